"""Applying a pool's events one after another, as the log has them.

Each event, whole, before the next: the clock moves to the record's timestamp and due holds expire; an id seen before changes
nothing; the event is applied or refused; whoever waits for what it freed is served. Cutting the same events into other batches
gives the same decisions.
Owner: the partition's pipeline. Invariant: an event is only begun if every table has room for all it may need.
"""

import numpy as np

from state.hashing import hash_text
from state.orders import forget_holds, forget_orders, pop_due_hold
from state.seen import forget_seen, remember, was_seen
from state.stock import forget_movements
from state.tables import BLOCKS_TAIL, EVENT, HOLD_COUNT, LONGEST_ORDER
from streams.inventory.decide import N_DECISIONS, N_LINES, serve
from streams.inventory.events import (
    STALE,
    apply_fulfilment,
    apply_stock,
    cancel_order,
    expire_order,
    find_location,
    place_order,
)
from topics.compiled.kernels import kernel
from topics.reasons import Kind, Outcome

UNDECODED = int(Kind.UNDECODED)
FIRST_ORDER_KIND = PLACED_KIND = int(Kind.PLACED)
HELD_KIND = int(Kind.HELD)
CANCELLED_KIND = int(Kind.CANCELLED)
FIRST_FULFILMENT_KIND = int(Kind.SHIPPED)
TICK = int(Kind.TICK)
LOCATION = int(Kind.LOCATION)
APPLIED = int(Outcome.APPLIED)
DUPLICATE = int(Outcome.DUPLICATE)
STALE_OUTCOME = int(Outcome.STALE)
DEAD_LETTER = int(Outcome.DEAD_LETTER)
CLOCK = int(Outcome.CLOCK)

# A text is at most 128 characters of 4 bytes, and its block at most twice that.
_TEXT_BYTES = 1024


@kernel
def lines_at_most(t, line_count):
    """Bound the lines one event may touch: its own, and those of the longest order."""
    return max(np.int64(line_count), t.counters[LONGEST_ORDER]) + 1


@kernel
def _has_room(t, out, work, line_count):
    n = lines_at_most(t, line_count)
    pool = t.pool[0]
    decisions = pool.waiting_lines + pool.held_orders + 2
    return (
        pool.sku_count + n <= t.skus.size
        and pool.cell_count + n <= t.cells.size
        and pool.order_count + 1 <= t.orders.size
        and pool.line_count + n <= t.lines.size
        and pool.refusal_count + n <= t.refusals.size
        and pool.supply_count + 1 <= t.supplies.size
        and pool.movement_tail - pool.movement_head + n <= t.movements.size
        and pool.seen_tail - pool.seen_head + 1 <= t.seen.size
        and pool.heap_size + (2 * n + 2) * _TEXT_BYTES <= t.heap.size
        and t.counters[BLOCKS_TAIL] + n * 2 * (pool.location_count + 4) <= t.sku_cells.size
        and t.counters[HOLD_COUNT] + 1 <= t.holds.size
        and 2 * n <= work.rows.size
        and t.orders.size <= work.stamps.size
        and t.locations.size <= work.route.candidates.size
        and out.counts[N_DECISIONS] + decisions <= out.decisions.size
        and out.counts[N_LINES] + pool.open_lines + 2 * n <= out.lines.size
    )


@kernel
def _expire_due(t, out, event, work):
    order_row = pop_due_hold(t)
    while order_row >= 0:
        expire_order(t, out, order_row, event, work)
        serve(t, out, event, work, False)
        order_row = pop_due_hold(t)


@kernel
def _apply_one(t, out, e, event, lines, buffer, work, tag):
    if e.kind < FIRST_ORDER_KIND:
        return apply_stock(t, e, buffer)
    if e.kind == PLACED_KIND or e.kind == HELD_KIND:
        return place_order(t, out, e, event, lines, buffer, work)
    if e.kind == CANCELLED_KIND:
        return cancel_order(t, out, e, event, lines, buffer, work)
    if FIRST_FULFILMENT_KIND <= e.kind < TICK:
        return apply_fulfilment(t, e, lines, buffer, work, tag)
    raise ValueError("an event of a kind that has no handler: see _apply_one in streams/inventory/apply.py")


@kernel
def apply_events(t, out, work, events, lines, buffer, rows, start, tag):
    """Apply events[rows[start:]] in order; writes their `outcome` and `reason`.

    Parameters
    ----------
    t : Tables of the pool
    out : Decisions, appended to
    events, lines, buffer : a decoded batch (EVENT[], LINE[], uint8[])
    rows : int64[n], the pool's events in the order to apply; one of kind LOCATION says that the network has just changed
    start : first position of `rows` to apply
    tag : uint8[8], the pool's tag in shipment ids

    Returns
    -------
    Position reached: `rows.size`, or that of the first event for which a table lacks room.
    """
    for k in range(start, rows.size):
        event = rows[k]
        e = events[event]
        if not _has_room(t, out, work, e.line_count):
            return k
        t.counters[EVENT] = event
        if e.kind == LOCATION:
            serve(t, out, event, work, True)
            continue
        if e.timestamp > t.pool[0].now:
            t.pool[0].now = e.timestamp
        _expire_due(t, out, event, work)
        if e.kind == UNDECODED:
            e.outcome = DEAD_LETTER
            continue
        if e.kind == TICK:
            e.outcome = CLOCK
            continue
        low, high = hash_text(buffer, e.event_id_at, e.event_id_size)
        if was_seen(t, low, high):
            e.outcome = DUPLICATE
            continue
        reason = _apply_one(t, out, e, event, lines, buffer, work, tag)
        if reason == 0:
            e.outcome = APPLIED
        elif reason == STALE:
            e.outcome = STALE_OUTCOME
        else:
            e.outcome = DEAD_LETTER
            e.reason = reason
            continue
        remember(t, low, high)
        serve(t, out, event, work, False)
    return rows.size


@kernel
def names_unknown_location(t, events, buffer, rows):
    """Tell whether any of the pool's events names a location that is not in the pool."""
    for row in rows:
        e = events[row]
        if e.location_size > 0 and find_location(t, buffer, e.location_at, e.location_size) < 0:
            return True
    return False


@kernel
def forget_old(t):
    """Make room between batches: what left the dedupe window, old movements, orders closed long ago."""
    forget_seen(t)
    forget_movements(t)
    forget_orders(t)
    forget_holds(t)
