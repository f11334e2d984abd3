"""The working memory of one routing thread: allocated once, used for one order after the other.

Owner: the thread that routes; a Scratch serves one order at a time.
Not here: what a candidate is (candidates.py), what the arrays mean to a solver (the solver's own module).
"""

import numpy as np

from streams.routing.answer import LOSERS, Answer
from streams.routing.candidates import CANDIDATE
from topics.compiled.bundle import bundle

# Up to this many lines an order is routed exactly, over all subsets of its lines.
EXACT_LINES = 8
SUBSETS = 1 << EXACT_LINES
NEAR = LOSERS + 1  # nearest candidates kept: the winner may be one of them, and an explanation names three others

Scratch = bundle(
    "Scratch",
    # by length: one, per location, per location and line, per subset of few lines, per line, per word
    "clock near near_chord2 group_mask "
    "candidates found takers taker_key chosen trial room taker_cost "
    "cell_rows covers bits free "
    "sums cheapest cheapest_location cost taken before wanted parts used "
    "line_sku line_quantity line_group line_next line_location line_cell line_key line_number line_taker quantity line_cost "
    "group_sku group_head group_start shared_start shared_line lines asked at placed picks serves price left "
    "ask left_lines once twice done "
    "out route_lines policy",
    """One routing thread's working memory: the lines of the order in hand (`line_sku`, `line_quantity`), the answer (`out`),
    the address of the compiled function for several lines (lines.py), and the policy's code (policy.py).""",
)
# Locations that few.py may have to combine: all sets of 8 lines keep 9 - size takers.
MOST_STEPS = 1271
# Units of shared SKUs at takers that many.py can hold; orders that need more use the cheapest takers only.
MOST_FREE = 1 << 22


def allocate_scratch(location_count, line_capacity, policy, route_lines=0):
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
        taker_cost=np.zeros(location_count, np.float64),
        cell_rows=np.zeros(location_count * EXACT_LINES, np.int32),
        covers=np.zeros((location_count, words), np.uint64),
        bits=np.zeros((location_count, words), np.uint64),
        free=np.zeros(min(MOST_FREE, location_count * (line_capacity // 2 + 1)), np.int32),
        sums=of_subsets(np.int64),
        cheapest=of_subsets(),
        cheapest_location=of_subsets(np.int64),
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
        line_cost=of_lines(np.float64),
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
        policy=policy,
    )
