"""The locations an order could come from: what each has of the order's SKUs, how far it is, what it may do.

A candidate is a location with a cell of an ordered SKU, eligible or not; its slot is its row in the tables of `Scratch`,
in the order in which the SKUs' cells name it. The tables are preallocated and never cleared: a location's slot counts
only if its stamp is this order's.
Owner: the thread that routes; a Scratch serves one order at a time.
Not here: choosing among candidates (single.py, few.py, many.py).
"""

from collections import namedtuple

import numpy as np

from state.columns import ENABLED, PICKS_UP, SHIPS
from streams.routing.distance import squared_chord
from topics.kernels import allocating_kernel, inlined

View = namedtuple("View", "cells locations sku_links sku_cells")
View.__doc__ = (
    """What routing reads of a pool: CELL, LOCATION and SKU_LINK rows, and int32 cell rows by SKU (state/columns.py)."""
)

# Up to this many lines an order is routed exactly, over all subsets of its lines.
EXACT_LINES = 8
SUBSETS = 1 << EXACT_LINES

PLACE = np.dtype([("stamp", "i8"), ("slot", "i4")], align=True)
SLOT = np.dtype(
    [
        ("chord2", "f8"),  # squared chord to the destination
        ("units", "i8"),  # most units it could take alone
        ("location", "i4"),
        ("role", "u1"),  # NONE | SHIPPER | OWN
        ("short", "u1"),  # many.py: it has too little of a SKU for all the lines that share it
        ("whole", "u1"),  # 1: it could be the single answer
        ("chosen", "u1"),
        ("cover", "u1"),  # few.py: bit per line it could take alone
        ("refused", "u1"),  # few.py: bit per line it refused
    ],
    align=True,
)
NONE, SHIPPER, OWN = range(3)

Scratch = namedtuple(
    "Scratch",
    "clock places slots cells available covers near near_chord2 sums group_mask nearest nearest_slot cost taken "
    "group_sku group_head line_group line_next line_slot line_cell",
)
Answer = namedtuple("Answer", "location cell distance_m kind reason explanation loser_location loser_distance_m loser_reason")
Answer.__doc__ = """The output arrays of `route_order_kernel`, bundled for the functions that fill them."""
NEAR = 4  # nearest candidates kept: the winner may be one of them, and an explanation names three others
LOSERS = 3


def make_scratch(location_count, line_capacity=1000):
    """Allocate the working memory of one routing thread.

    Parameters
    ----------
    location_count : int
        Rows of the pool's LOCATION array (its size, not its use); make a new Scratch when that grows.
    line_capacity : int
        Most lines of an order.

    Returns
    -------
    Scratch
        About `60 + 64 + line_capacity / 8` bytes per location.
    """
    words = (line_capacity + 63) // 64
    lines = (np.empty(line_capacity, np.int32) for _ in range(6))
    return Scratch(
        np.zeros(1, np.int64),
        np.zeros(location_count, PLACE),
        np.zeros(location_count, SLOT),
        np.zeros(location_count * EXACT_LINES, np.int32),
        np.zeros(location_count * EXACT_LINES, np.int32),
        np.zeros(location_count * words, np.uint64),
        np.zeros(NEAR, np.int32),
        np.zeros(NEAR, np.float64),
        np.zeros(SUBSETS, np.int64),
        np.zeros(EXACT_LINES, np.int64),
        np.zeros(SUBSETS, np.float64),
        np.zeros(SUBSETS, np.int32),
        np.zeros(SUBSETS, np.float64),
        np.zeros(SUBSETS, np.int32),
        *lines,
    )


@inlined
def role_of(place, location, pickup_location):
    """What a location may do for this order; `place` is its row."""
    if location == pickup_location:
        return OWN if place.flags & ENABLED and place.flags & PICKS_UP else NONE
    return SHIPPER if place.flags & ENABLED and place.flags & SHIPS else NONE


@inlined
def free_units(cell):
    """Units of a cell that may be promised; below zero when more is reserved or kept than there is."""
    return cell.on_hand - cell.reserved - cell.safety_stock


@inlined
def open_slot(locations, location, x, y, z, pickup_location, clock, places, slots, slot):
    """Make `slot` the candidate for a location met for the first time in this order."""
    places[location].stamp = clock
    places[location].slot = slot
    place = locations[location]
    entry = slots[slot]
    entry.chord2 = squared_chord(place, x, y, z)
    entry.location = location
    entry.role = role_of(place, location, pickup_location)
    entry.short = 0
    entry.whole = 0
    entry.chosen = 0
    entry.cover = 0
    entry.refused = 0


@allocating_kernel
def nearer(chord2, location, other_chord2, other_location, locations):
    """Order candidates by distance, co-located ones by id: the same whatever order the cells came in."""
    if chord2 != other_chord2:
        return chord2 < other_chord2
    return locations[location].rank < locations[other_location].rank
