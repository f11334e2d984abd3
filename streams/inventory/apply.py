"""Applying a pool's events one after another, as the log has them.

Each event is done with before the next begins. The clock moves to the record's timestamp, due holds expire, and transfers
that are due become overdue. An event whose
own time is not plausible is refused. One that was seen before changes nothing; another one under its id is refused. The event
is applied or refused. The orders that wait for what it freed are served. So the same events cut into other batches give the
same decisions.
Owner: the partition's pipeline. Invariant: an event is only begun if every table has room for all it may need.
"""

import numpy as np

from state.columns import EXPIRED
from state.orders import forget_holds, forget_orders, pop_due_hold
from state.seen import SEEN, UNSEEN, forget_seen, key_of, remember, was_seen
from state.stock import find_location, forget_movements
from state.supply import forget_supplies, pass_due
from state.tables import (
    ALERT_COUNT,
    BLOCKS_TAIL,
    CLOCK_SKEW_MS,
    DUE_COUNT,
    HOLD_COUNT,
    LONGEST_ORDER,
    MOST_PIECES,
    MOST_PROMISED,
)
from streams.batch.times import is_plausible
from streams.inventory.decide import N_DECISIONS, N_LINES
from streams.inventory.fulfilments import apply_fact, reject, ring_up
from streams.inventory.order_events import NO_ORDER, cancel_order, change_order, drop_order, place_order
from streams.inventory.shortfall import release_short
from streams.inventory.stock_events import STALE, apply_stock
from streams.inventory.waiting import serve
from topics.compiled.kernels import kernel
from topics.reasons import DeadLetter, Kind, Outcome, Status

# A text is at most 128 characters of 4 bytes, and its block at most twice that.
_TEXT_BYTES = 1024
# What one event may need for each line it may touch: lines cut into parts or made anew, movements, alerts.
LINES_ROOM, MOVES_ROOM, ALERTS_ROOM = 3, 12, 32


@kernel
def lines_at_most(t, line_count):
    """Bound the lines one event may touch: its own, and those of the longest order."""
    return max(np.int64(line_count), t.counters[LONGEST_ORDER]) + 1


@kernel
def rows_a_line(t):
    """Bound the rows of a line: its own and, if there are kits, its pieces. It bounds the cells that it may touch, too."""
    return 1 + t.counters[MOST_PIECES]


@kernel
def promises_at_most(t, n):
    """Bound the promises that one event about so many lines and pieces may take back."""
    return min(np.int64(t.pool[0].open_lines), n * t.counters[MOST_PROMISED])


@kernel
def _has_room(t, out, work, line_count):
    n = lines_at_most(t, line_count)
    each = rows_a_line(t)
    cells = n * each
    pool = t.pool[0]
    lost = promises_at_most(t, cells)
    decisions = pool.waiting_lines + pool.held_orders + 2 + lost
    return (
        pool.sku_count + cells <= t.skus.size
        and pool.cell_count + cells <= t.cells.size
        and pool.order_count + 2 <= t.orders.size
        and pool.line_count + each * (LINES_ROOM * n + lost) <= t.lines.size
        and pool.refusal_count + n <= t.refusals.size
        and pool.supply_count + 1 <= t.supplies.size
        and pool.movement_tail - pool.movement_head + MOVES_ROOM * cells <= t.movements.size
        and pool.seen_tail - pool.seen_head + 1 <= t.seen.size
        and pool.heap_size + (2 * cells + 2) * _TEXT_BYTES <= t.heap.size
        and t.counters[BLOCKS_TAIL] + cells * 2 * (pool.location_count + 4) <= t.sku_cells.size
        and t.counters[HOLD_COUNT] + 1 <= t.holds.size
        and t.counters[DUE_COUNT] + 1 <= t.due.size
        and t.counters[ALERT_COUNT] + ALERTS_ROOM * cells <= t.alerts.size
        and LINES_ROOM * n <= work.rows.size
        and t.orders.size <= work.stamps.size
        and t.locations.size <= work.route.candidates.size
        and out.counts[N_DECISIONS] + decisions <= out.decisions.size
        and out.counts[N_LINES] + 2 * pool.open_lines + 2 * lost + LINES_ROOM * n <= out.lines.size
    )


@kernel
def _expire_due(t, out, event_row, work):
    order_row = pop_due_hold(t)
    while order_row >= 0:
        drop_order(t, order_row, EXPIRED, event_row)
        lost = release_short(t, work, event_row)
        serve(t, out, order_row, Status.EXPIRED, lost, event_row, work, False)
        order_row = pop_due_hold(t)


@kernel
def _pass_due(t, event_row, line_count):
    """Tell of the transfers that are due; false = there is no room for all that is to be told, and this goes on later."""
    room = t.alerts.size - ALERTS_ROOM * lines_at_most(t, line_count) * rows_a_line(t)
    while t.counters[ALERT_COUNT] < room:
        if not pass_due(t, event_row):
            return True
    return False


@kernel
def _apply_one(t, event, event_row, lines, buffer, work, tag):
    """Apply one event; (0, `STALE` or reasons.DeadLetter; the order to decide on; its status), see order_events.py."""
    if event.kind == Kind.SALE and event.reference_size > 0:
        rung, reason, order_row, status = ring_up(t, event, event_row, buffer, work)
        if rung:
            return reason, order_row, status
    if Kind.UNDECODED < event.kind <= Kind.RELEASE:
        return apply_stock(t, event, event_row, buffer, work), NO_ORDER, 0
    if event.kind in (Kind.PLACED, Kind.HELD):
        return place_order(t, event, event_row, lines, buffer, work)
    if event.kind == Kind.CHANGED:
        return change_order(t, event, event_row, lines, buffer, work)
    if event.kind == Kind.CANCELLED:
        return cancel_order(t, event, event_row, lines, buffer, work)
    if event.kind == Kind.REJECTED:
        return reject(t, event, event_row, lines, buffer, work, tag)
    if Kind.SHIPPED <= event.kind <= Kind.RETURNED:
        return apply_fact(t, event, event_row, lines, buffer, work, tag)
    raise ValueError("an event of a kind that has no handler: see _apply_one in streams/inventory/apply.py")


@kernel
def _key_of(event, buffer):
    """Hash what no two events share: topic, sender and event id. A sender is a location, or the order that is spoken of."""
    at, size = event.reference_at, event.reference_size
    if event.kind < Kind.PLACED:
        at, size = event.location_at, event.location_size
    return key_of(event.topic, buffer, at, size, event.event_id_at, event.event_id_size)


@kernel
def _times_are_plausible(t, event):
    skew = t.limits[CLOCK_SKEW_MS]
    if event.kind == Kind.COUNT and not is_plausible(event.time, event.timestamp, skew):
        return False
    return is_plausible(event.event_time, event.timestamp, skew)


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
        event_row = rows[k]
        event = events[event_row]
        if not _has_room(t, out, work, event.line_count):
            return k
        if event.kind == Kind.LOCATION:
            serve(t, out, NO_ORDER, 0, 0, event_row, work, True)
            continue
        if event.timestamp > t.pool[0].now:
            t.pool[0].now = event.timestamp
        _expire_due(t, out, event_row, work)
        if not _pass_due(t, event_row, event.line_count):
            return k
        if event.kind == Kind.UNDECODED:
            event.outcome = Outcome.DEAD_LETTER
            continue
        if event.kind == Kind.TICK:
            event.outcome = Outcome.CLOCK
            continue
        if not _times_are_plausible(t, event):
            event.outcome = Outcome.DEAD_LETTER
            event.reason = DeadLetter.TIME_OUT_OF_RANGE
            continue
        low, high = _key_of(event, buffer)
        seen = was_seen(t, low, high, event.content, buffer, event.event_id_at, event.event_id_size)
        if seen != UNSEEN:
            event.outcome = Outcome.DUPLICATE
            if seen != SEEN:
                event.outcome = Outcome.DEAD_LETTER
                event.reason = DeadLetter.EVENT_ID_REUSED
            continue
        reason, order_row, status = _apply_one(t, event, event_row, lines, buffer, work, tag)
        if reason == 0:
            event.outcome = Outcome.APPLIED
        elif reason == STALE:
            event.outcome = Outcome.STALE
        else:
            event.outcome = Outcome.DEAD_LETTER
            event.reason = reason
            continue
        remember(t, low, high, event.content)
        lost = release_short(t, work, event_row)
        serve(t, out, order_row, status, lost, event_row, work, False)
    return rows.size


@kernel
def names_unknown_location(t, events, buffer, rows):
    """Whether any of the pool's events names a location that is not in the pool."""
    for event_row in rows:
        event = events[event_row]
        if event.location_size > 0 and find_location(t, buffer, event.location_at, event.location_size) < 0:
            return True
    return False


@kernel
def forget_old(t):
    """Make room between batches: what left the dedupe window, old movements, orders closed long ago."""
    forget_seen(t)
    forget_movements(t)
    forget_orders(t)
    forget_holds(t)
    forget_supplies(t)
