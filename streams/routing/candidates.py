"""The locations an order could come from: what each has of the order's SKUs, how far it is, what it may do.

A candidate is a location with a cell of an ordered SKU, eligible or not. The table of candidates has a row per location of
the pool, preallocated and never cleared: a row counts only if its stamp is this order's, and `found` lists those that do,
in the order in which the SKUs' cells name them.
Owner: the thread that routes; a Scratch serves one order at a time.
Not here: choosing among candidates (single.py, few.py, many.py).
"""

import numpy as np

from state.columns import ENABLED, PICKS_UP, SHIPS
from streams.routing.distance import squared_chord
from topics.compiled.bundle import bundle
from topics.compiled.kernels import inner_kernel

# Up to this many lines an order is routed exactly, over all subsets of its lines.
EXACT_LINES = 8
SUBSETS = 1 << EXACT_LINES
NEAR = 4  # nearest candidates kept: the winner may be one of them, and an explanation names three others
LOSERS = 3

CANDIDATE = np.dtype(
    [
        ("stamp", "i8"),  # the order it was found in last
        ("chord2", "f8"),  # squared chord to the destination
        ("units", "i8"),  # most units it could take alone
        ("taker", "i4"),  # many.py: its number in the set-cover problem, -1 = not in it
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

Answer = bundle(
    "Answer",
    "location cell distance_m kind reason explanation loser_location loser_distance_m loser_reason",
    """What was decided on the order in hand; its arrays are those of `route_order_kernel`.""",
)
Scratch = bundle(
    "Scratch",
    # by length: one, per location, per location and line, per subset of few lines, per line, per word
    "clock near near_chord2 group_mask "
    "candidates found takers taker_key chosen trial room price_m "
    "cell_rows covers bits free "
    "sums nearest nearest_location cost taken before wanted parts used "
    "line_sku line_quantity line_group line_next line_location line_cell line_key line_number line_taker quantity nearest_m "
    "group_sku group_head group_start shared_start shared_line lines asked at placed picks serves price left "
    "ask left_lines once twice done "
    "out route_lines",
    """One routing thread's working memory: the lines of the order in hand (`line_sku`, `line_quantity`), the answer (`out`),
    and the address of the compiled function for several lines (lines.py).""",
)
# Locations that few.py may have to combine: all sets of 8 lines keep 9 - size takers.
MOST_STEPS = 1271
# Units of shared SKUs at takers that many.py can hold; orders that need more use the nearest takers only.
MOST_FREE = 1 << 22


def allocate_scratch(location_count, line_capacity, route_lines=0):
    """Allocate the working memory; see `make_scratch` (lines.py)."""
    words = (line_capacity + 63) >> 6

    def of_lines(dtype=np.int32):
        return np.zeros(line_capacity + 1, dtype)

    def of_subsets(dtype=np.float64):
        return np.zeros(SUBSETS, dtype)

    out = Answer(
        *(of_lines() for _ in range(3)),
        of_lines(np.uint8),
        of_lines(np.uint8),
        np.zeros(4, np.int64),
        np.zeros(LOSERS, np.int32),
        np.zeros(LOSERS, np.int32),
        np.zeros(LOSERS, np.uint8),
    )
    return Scratch(
        clock=np.zeros(1, np.int64),
        near=np.zeros(NEAR, np.int32),
        near_chord2=np.zeros(NEAR, np.float64),
        group_mask=np.zeros(EXACT_LINES, np.int64),
        candidates=np.zeros(location_count, CANDIDATE),
        found=np.zeros(location_count, np.int32),
        takers=np.zeros(location_count, np.int32),
        taker_key=np.zeros(location_count, np.int64),
        chosen=np.zeros(location_count, np.int32),
        trial=np.zeros(location_count, np.int32),
        room=np.zeros(location_count, np.int64),
        price_m=np.zeros(location_count, np.float64),
        cell_rows=np.zeros(location_count * EXACT_LINES, np.int32),
        covers=np.zeros((location_count, words), np.uint64),
        bits=np.zeros((location_count, words), np.uint64),
        free=np.zeros(min(MOST_FREE, location_count * (line_capacity // 2 + 1)), np.int32),
        sums=of_subsets(np.int64),
        nearest=of_subsets(),
        nearest_location=of_subsets(np.int64),
        cost=of_subsets(),
        taken=of_subsets(np.int64),
        before=of_subsets(),
        wanted=of_subsets(np.int64),
        parts=np.zeros((MOST_STEPS, SUBSETS), np.uint8),
        used=np.zeros(MOST_STEPS, np.int32),
        line_sku=of_lines(),
        line_quantity=of_lines(np.int64),
        line_group=of_lines(),
        line_next=of_lines(),
        line_location=of_lines(),
        line_cell=of_lines(),
        line_key=of_lines(np.int64),
        line_number=of_lines(),
        line_taker=of_lines(),
        quantity=of_lines(np.int64),
        nearest_m=of_lines(np.float64),
        group_sku=of_lines(),
        group_head=of_lines(),
        group_start=of_lines(),
        shared_start=of_lines(),
        shared_line=of_lines(),
        lines=of_lines(),
        asked=of_lines(),
        at=of_lines(),
        placed=of_lines(),
        picks=of_lines(),
        serves=of_lines(),
        price=of_lines(np.float64),
        left=np.zeros((line_capacity + 1, words), np.uint64),
        ask=np.zeros(words, np.uint64),
        left_lines=np.zeros(words, np.uint64),
        once=np.zeros(words, np.uint64),
        twice=np.zeros(words, np.uint64),
        done=np.zeros(1, np.int64),
        out=out,
        route_lines=route_lines,
    )


@inner_kernel
def role_of(place, location, pickup_location):
    """What a location may do for this order; `place` is its row."""
    if location == pickup_location:
        return OWN if place.flags & ENABLED and place.flags & PICKS_UP else NONE
    return SHIPPER if place.flags & ENABLED and place.flags & SHIPS else NONE


@inner_kernel
def free_units(cell):
    """Units of a cell that may be promised; below zero when more is reserved or kept than there is."""
    return np.int64(cell.on_hand) - cell.reserved - cell.safety_stock


@inner_kernel
def open_candidate(entry, place, location, x, y, z, pickup_location, clock):
    """Start the candidate of a location (row `place`) that is met for the first time in this order."""
    entry.stamp = clock
    entry.chord2 = squared_chord(place, x, y, z)
    entry.role = role_of(place, location, pickup_location)
    entry.taker = -1
    entry.short = 0
    entry.whole = 0
    entry.chosen = 0
    entry.cover = 0
    entry.refused = 0


@inner_kernel
def find_own(pickup_location, work):
    """The pickup's location, if it is a candidate that may serve it; else -1."""
    if pickup_location >= 0:
        own = work.candidates[pickup_location]
        if own.stamp == work.clock[0] and own.role == OWN:
            return np.int64(pickup_location)
    return np.int64(-1)


@inner_kernel
def nearer(chord2, location, other_chord2, other_location, locations):
    """Order candidates by distance, co-located ones by id: the same whatever order the cells came in."""
    if chord2 != other_chord2:
        return chord2 < other_chord2
    return locations[location].rank < locations[other_location].rank
