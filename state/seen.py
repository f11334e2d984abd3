"""The dedupe window: the hashes of the event ids applied, in order, in a ring.

An id counts as seen while it is among the last `DEDUPE_EVENTS` of the pool or younger than `DEDUPE_MS` on the log's clock;
the rule is asked at each event, and room is made only between batches, so a batch's cut never shows.
"""

from typing import Any

import numpy as np

from state.index import find_hash, insert, remove
from state.tables import DEDUPE_EVENTS, DEDUPE_MS
from topics.compiled.kernels import kernel


@kernel
def _in_window(t, time, position):
    pool = t.pool[0]
    return pool.seen_tail - position <= t.limits[DEDUPE_EVENTS] or time >= pool.now - t.limits[DEDUPE_MS]


@kernel
def _position(t, slot):
    """Position of the entry in a ring slot."""
    head = t.pool[0].seen_head
    return head + ((slot - head) & (t.seen.size - 1))


@kernel
def was_seen(t, low, high):
    """Tell whether an event id (its hash) was applied inside the window."""
    slot = find_hash(t.seen_index, t.seen, low, high)
    return slot >= 0 and _in_window(t, t.seen[slot].time, _position(t, slot))


@kernel
def remember(t, low, high):
    """Note an event id as applied now."""
    pool = t.pool[0]
    old = find_hash(t.seen_index, t.seen, low, high)
    if old >= 0:
        remove(t.seen_index, t.seen, old)
    slot = pool.seen_tail & (t.seen.size - 1)
    entry = t.seen[slot]
    entry.hash_low = low
    entry.hash_high = high
    entry.time = pool.now
    pool.seen_tail += 1
    insert(t.seen_index, low, slot)


@kernel
def forget_seen(t):
    """Drop what left the window; between batches."""
    pool = t.pool[0]
    while pool.seen_head < pool.seen_tail:
        slot = pool.seen_head & (t.seen.size - 1)
        entry = t.seen[slot]
        if _in_window(t, entry.time, pool.seen_head):
            break
        if find_hash(t.seen_index, t.seen, entry.hash_low, entry.hash_high) == slot:
            remove(t.seen_index, t.seen, slot)
        pool.seen_head += 1


def remembered(t: Any) -> np.ndarray:
    """Give the ring's slots (int64[]), oldest first, of the ids that count as seen, whether the others were dropped or not."""
    pool = t.pool[0]
    positions = np.arange(pool["seen_head"], pool["seen_tail"])
    recent = t.seen["time"][positions & (t.seen.size - 1)] >= pool["now"] - t.limits[DEDUPE_MS]
    return positions[recent | (positions >= pool["seen_tail"] - t.limits[DEDUPE_EVENTS])] & (t.seen.size - 1)
