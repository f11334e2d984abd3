"""The locations an order could come from: what each has of the order's SKUs, what it costs, what it may do.

A candidate is a location with a cell of an ordered SKU, eligible or not. The table of candidates has a row per location of
the pool and is never cleared: a row counts if its stamp is this order's. `found` lists the rows that count, in the order in
which the SKUs' cells name them.
Owner: the thread that routes; a Scratch serves one order at a time.
Not here: choosing among candidates (single.py, few.py, many.py).
"""

import numpy as np

from streams.routing.fences import OWN, role_of
from streams.routing.prices import price_of
from topics.compiled.kernels import inner_kernel

CANDIDATE = np.dtype(
    [
        ("stamp", "i8"),  # the order it was found in last
        ("price", "f8"),  # of serving the order from it (prices.py)
        ("units", "i8"),  # most units it could take alone
        ("taker", "i4"),  # many.py: its number in the set-cover problem, -1 = not in it
        ("role", "u1"),  # fences.NONE | SHIPPER | OWN | FAR
        ("short", "u1"),  # many.py: it has too little of a SKU for all the lines that share it
        ("whole", "u1"),  # 1: it could be the single answer
        ("chosen", "u1"),
        ("cover", "u1"),  # few.py: bit per line it may and could take alone
    ],
    align=True,
)


@inner_kernel
def free_units(cell):
    """Units of a cell that may be promised; below zero when more is reserved or kept than there is."""
    return np.int64(cell.on_hand) - cell.reserved - cell.safety_stock


@inner_kernel
def open_candidate(entry, place, location, x, y, z, pickup_location, clock):
    """Start the candidate of a location (row `place`) that is met for the first time in this order."""
    entry.stamp = clock
    entry.price = price_of(place, x, y, z)
    entry.role = role_of(place, location, pickup_location, x, y, z)
    entry.taker = -1
    entry.short = 0
    entry.whole = 0
    entry.chosen = 0
    entry.cover = 0


@inner_kernel
def find_own(pickup_location, work):
    """The pickup's location, if it is a candidate that may serve it; else -1."""
    if pickup_location >= 0:
        own = work.candidates[pickup_location]
        if own.stamp == work.clock[0] and own.role == OWN:
            return np.int64(pickup_location)
    return np.int64(-1)
