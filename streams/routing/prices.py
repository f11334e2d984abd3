"""Prices: what it costs to serve an order from a location. The solvers know a location by its price and its fences alone.

A candidate's `price` compares: the smaller is the cheaper. `cost_of` turns a price into metres, which add up. Policy `nearest`
compares squared chords, which need no trigonometry, and adds great circles. A further term of the cost, of the location's row
or of the destination, is added in `price_of`; a price in metres is its own cost.
Owner: nobody; pure functions. Invariants: a price is not negative (families.py sorts by its bits); `cost_of` never falls.
Not here: who may serve (fences.py), equal costs (ties.py), one delivered line of `nearest` (single.py).
"""

from streams.routing.distance import metres, squared_chord, window
from topics.compiled.kernels import inner_kernel


@inner_kernel
def price_of(place, x, y, z):
    """Price of serving a destination (unit vector) from a location; `place` is its row."""
    return squared_chord(place, x, y, z)


@inner_kernel
def cost_of(price):
    """Cost of a price, in metres."""
    return metres(price)


@inner_kernel
def price_above(price, margin_m):
    """A price that no price exceeds whose cost is at most `margin_m` above that of `price`."""
    return window(price, margin_m)


@inner_kernel
def shipment_cost(line_count):
    """Cost of a shipment in an order of so many lines, in metres: more than as many distances add up to.

    So fewer shipments come before any distance. The larger it is, the more of the distances is lost to rounding.
    """
    return 1e9 if line_count <= 8 else 1e11
