"""The working memory of one routing thread: allocated once, used for one order after the other.

Owner: the thread that routes; a Scratch serves one order at a time.
Not here: what a candidate is (candidates.py), what the arrays mean to a solver (the solver's own module).
"""

from typing import Any

import numpy as np

from streams.routing.answer import LOSERS, Answer
from streams.routing.candidates import CANDIDATE
from topics.compiled.bundle import Bundle
from topics.events import MAX_KIT_PARTS

# Up to this many lines an order is routed exactly, over all subsets of its lines.
EXACT_LINES = 8
SUBSETS = 1 << EXACT_LINES
EXACT_NEEDS = EXACT_LINES * MAX_KIT_PARTS
NEAR = LOSERS + 1  # nearest candidates kept: the winner may be one of them, and an explanation names three others

# Locations that few.py may have to combine: all sets of 8 lines keep 9 - size takers.
MOST_STEPS = 1271
# Units of shared SKUs at takers that many.py can hold; orders that need more use the cheapest takers only.
MOST_FREE = 1 << 22


def _layout(location_count: int, line_capacity: int) -> list[tuple[Any, Any, str]]:
    """List the arrays: shape, dtype, names."""
    lines, words = line_capacity + 1, (line_capacity + 63) >> 6
    needs = max(EXACT_LINES, lines) * MAX_KIT_PARTS
    return [
        (1, "i8", "clock done"),
        (NEAR, "i4", "near"),
        (NEAR, "f8", "near_chord2"),
        (EXACT_NEEDS, "i8", "group_mask"),
        (EXACT_NEEDS, "i4", "shared_groups"),
        (location_count, CANDIDATE, "candidates"),
        (location_count, "i4", "found takers chosen trial"),
        (location_count, "i8", "taker_key room"),
        (location_count, "f8", "taker_cost"),
        (location_count * EXACT_NEEDS, "i4", "cell_rows"),
        ((location_count, words), "u8", "covers bits"),
        (min(MOST_FREE, location_count * (line_capacity // 2 + 1)), "i4", "free"),
        (SUBSETS, "i8", "sums cheapest_location taken wanted"),
        (SUBSETS, "f8", "cheapest cost before"),
        ((MOST_STEPS, SUBSETS), "u1", "parts"),
        (MOST_STEPS, "i4", "used"),
        (lines, "i4", "line_sku line_group line_location line_cell line_number line_taker"),
        (lines, "i4", "group_start shared_start shared_line lines asked at placed picks serves"),
        (lines + 1, "i4", "kit_parts line_needs"),
        (needs, "i4", "part_sku need_line need_sku need_group need_next need_order group_sku group_head"),
        (needs, "i8", "part_units need_units need_key"),
        (lines, "i8", "line_quantity line_key quantity"),
        (lines, "f8", "line_cost price"),
        ((lines, words), "u8", "left"),
        (words, "u8", "ask left_lines once twice"),
    ]


class Scratch(Bundle):
    """One routing thread's working memory: the lines of the order in hand, the answer (`out`), the address of the compiled
    function for several lines (lines.py), and the policy's code (policy.py).

    The caller writes of n lines
    `line_sku` : int32[n], SKU row, -1 = one nobody stocks; not read of a kit
    `line_quantity` : int64[n], units, >= 1; of a kit, kits
    `kit_parts` : int32[n + 1], line i is the parts `kit_parts[i]` to `kit_parts[i + 1]`; none: it is no kit
    `part_sku`, `part_units` : int32[], int64[], SKU row of a part, and its units for all kits of the line together.
    A kit's parts are different SKUs; all come from one location, or none.
    """

    _fields = (*" ".join(names for _, _, names in _layout(1, 1)).split(), "out", "route_lines", "policy")


def allocate_scratch(location_count: int, line_capacity: int, policy: int, route_lines: int = 0) -> Scratch:
    """Allocate the working memory; see `make_scratch` (lines.py)."""
    lines = line_capacity + 1
    out = Answer(
        *(np.zeros(lines, np.int32) for _ in range(3)),
        *(np.zeros(lines, np.uint8) for _ in range(2)),
        np.zeros(4, np.int64),
        *(np.zeros(LOSERS, dtype) for dtype in (np.int32, np.int32, np.uint8)),
    )
    layout = _layout(location_count, line_capacity)
    arrays = {name: np.zeros(shape, dtype) for shape, dtype, names in layout for name in names.split()}
    return Scratch(**arrays, out=out, route_lines=route_lines, policy=policy)
