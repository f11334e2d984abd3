"""Fences: which location may serve an order, or one of its lines, at all. What it costs is not asked here.

A location is an order's SHIPPER, its OWN (the pickup location itself) or NONE. A SHIPPER or OWN may still have refused a line
of the order earlier: it is never asked for that line again.
Owner: nobody; pure functions.
Not here: stock (candidates.py), prices (prices.py).
"""

from state.columns import ENABLED, PICKS_UP, SHIPS
from topics.compiled.kernels import inner_kernel

NONE, SHIPPER, OWN = range(3)


@inner_kernel
def role_of(place, location, pickup_location):
    """What a location may do for this order; `place` is its row, `pickup_location` -1 for a delivery."""
    if location == pickup_location:
        return OWN if place.flags & ENABLED and place.flags & PICKS_UP else NONE
    return SHIPPER if place.flags & ENABLED and place.flags & SHIPS else NONE


@inner_kernel
def refuses(location, line, refused_lines, refused_locations):
    """Whether a location refused a line of the order before."""
    for i in range(refused_lines.size):  # noqa: SIM110 (numba compiles no generator here)
        if refused_lines[i] == line and refused_locations[i] == location:
            return True
    return False
