"""The dedupe window: the events applied, by the hash of topic, sender and event id, in order, in a ring.

An event counts as seen while it is among the last `DEDUPE_EVENTS` of the pool or younger than `DEDUPE_MS` on the log's clock;
the rule is asked at each event, and room is made only between batches, so a batch's cut never shows.
Layout 1 knew an event by its id alone, and not what it said. While such entries are in the window, a second look-up finds them.
"""

from typing import Any

import numpy as np

from state.hashing import hash_on, hash_text
from state.index import find_hash, insert, remove
from state.tables import DEDUPE_EVENTS, DEDUPE_MS
from topics.compiled.kernels import kernel

UNSEEN, SEEN, REUSED = range(3)
"""An event is new; it was applied before; another one of its sender was applied under its id."""


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
def key_of(topic, buffer, sender_at, sender_size, id_at, id_size):
    """Hash what makes an event the only one of its kind: its topic's code, its sender, its id; (low, high)."""
    low, high = hash_on(np.uint64(topic), np.uint64(0), buffer, sender_at, sender_size)
    return hash_on(low, high, buffer, id_at, id_size)


@kernel
def was_seen(t, low, high, content, buffer, id_at, id_size):
    """Compare an event with those applied inside the window: UNSEEN, SEEN or REUSED."""
    slot = find_hash(t.seen_index, t.seen, low, high)
    if slot >= 0 and _in_window(t, t.seen[slot].time, _position(t, slot)):
        return SEEN if t.seen[slot].content == content else REUSED
    pool = t.pool[0]
    first_keyed = pool.seen_tail - pool.seen_keyed
    if pool.seen_head < first_keyed:
        low, high = hash_text(buffer, id_at, id_size)
        slot = find_hash(t.seen_index, t.seen, low, high)
        if slot >= 0:
            position = _position(t, slot)
            if position < first_keyed and _in_window(t, t.seen[slot].time, position):
                return SEEN
    return UNSEEN


@kernel
def remember(t, low, high, content):
    """Note an event as applied now."""
    pool = t.pool[0]
    old = find_hash(t.seen_index, t.seen, low, high)
    if old >= 0:
        remove(t.seen_index, t.seen, old)
    slot = pool.seen_tail & (t.seen.size - 1)
    entry = t.seen[slot]
    entry.hash_low = low
    entry.hash_high = high
    entry.content = content
    entry.time = pool.now
    pool.seen_tail += 1
    pool.seen_keyed += 1
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
    """Give the ring's slots (int64[]), oldest first, of the events that count as seen, whether others were dropped or not."""
    pool = t.pool[0]
    positions = np.arange(pool["seen_head"], pool["seen_tail"])
    recent = t.seen["time"][positions & (t.seen.size - 1)] >= pool["now"] - t.limits[DEDUPE_MS]
    return positions[recent | (positions >= pool["seen_tail"] - t.limits[DEDUPE_EVENTS])] & (t.seen.size - 1)
