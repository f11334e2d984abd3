"""Fences: which location may serve an order, or one of its lines, at all. What it costs is not asked here.

A location is an order's SHIPPER, its OWN (the pickup location itself), FAR (a shipper whose limit of distance is shorter than
this) or NONE. A SHIPPER or OWN may still have refused a line of the order earlier: it is never asked for that line again.
Owner: nobody; pure functions.
Not here: stock (candidates.py), prices (prices.py).
"""

import numpy as np

from state.columns import ENABLED, PICKS_UP, SHIPS
from streams.routing.distance import squared_chord
from topics.compiled.kernels import inner_kernel
from topics.reasons import Unallocated

NONE, SHIPPER, OWN, FAR = range(4)


@inner_kernel
def role_of(place, location, pickup_location, x, y, z):
    """What a location (row `place`) may do for an order to a destination (unit vector); `pickup_location` -1 = a delivery."""
    if location == pickup_location:
        return OWN if place.flags & ENABLED and place.flags & PICKS_UP else NONE
    if not place.flags & ENABLED or not place.flags & SHIPS:
        return NONE
    if place.limit_chord2 > 0.0 and squared_chord(place, x, y, z) > place.limit_chord2:
        return FAR
    return SHIPPER


@inner_kernel
def refuses(location, line, refused_lines, refused_locations):
    """Whether a location refused a line of the order before."""
    for i in range(refused_lines.size):  # noqa: SIM110 (numba compiles no generator here)
        if refused_lines[i] == line and refused_locations[i] == location:
            return True
    return False


@inner_kernel
def fenced_off(role, refused, reason):
    """Why a line waits, if one more location has the units for it; reasons.Unallocated.

    `reason` is what the locations before say. One that could serve the line says more than one that is too far, and that more
    than one that may not serve it at all.
    """
    if role in (SHIPPER, OWN) and not refused:
        return np.int64(Unallocated.ALL_OR_NOTHING)
    if reason == Unallocated.TOO_FAR or (role == FAR and not refused):
        return np.int64(Unallocated.TOO_FAR)
    return np.int64(Unallocated.NOT_ELIGIBLE)
