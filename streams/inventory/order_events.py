"""Events of orders.v1: placed, held, cancelled.

A handler checks everything first and changes something only if all is well. It returns (reason, order, status). The reason is
0, or the reasons.DeadLetter for which the event is refused, having changed nothing. The order, -1 for none, gets a decision:
one that says `status`, or, if that is 0, whatever routing it brings.
Owner: apply.py. Not here: dedupe, the clock (apply.py); routing and writing the decision (waiting.py, decide.py).
"""

import math

import numpy as np

from state.columns import CLOSED, DROPPED, HELD, OPEN, PICKS_UP, RESERVED, WAITING
from state.hashing import same_text
from state.orders import add_line, add_order, close_order, count_kept_lines, drop_line, find_order, push_hold
from state.stock import find_location, find_sku, sku_row
from state.tables import MAX_LINES, MAX_SKUS, ORDERS, mark
from state.text import copy_text, touch_text
from streams.inventory.decide import is_open, status_of
from topics import columns as c
from topics.compiled.kernels import kernel
from topics.reasons import DeadLetter, Kind, Status, Unallocated

NO_ORDER = np.int32(-1)


@kernel
def place_order(t, event, event_row, lines, buffer):
    """Apply `placed` or `held`: make the order, which is then to be routed, or confirm its hold."""
    held = event.kind == Kind.HELD
    flags = event.flags & (c.ALLOW_SPLIT | c.ALLOW_PARTIAL | c.PICKUP | c.URGENT)
    x, y, z = _destination(event)
    pickup = np.int32(-1)
    if flags & c.PICKUP:
        x, y, z = 0.0, 0.0, 0.0
        pickup = find_location(t, buffer, event.location_at, event.location_size)
    age = np.int64(0)
    former = find_order(t, buffer, event.reference_at, event.reference_size)
    if former >= 0:
        state = t.orders[former].state
        if state in (OPEN, CLOSED) or (state == HELD and held):
            return DeadLetter.ORDER_EXISTS, NO_ORDER, 0
        if state == HELD:
            age = t.orders[former].age
            if _same_order(t, former, event, lines, buffer, flags, pickup, x, y, z):
                t.orders[former].state = OPEN
                t.pool[0].held_orders -= 1
                mark(t.journal, t.counters, ORDERS, t.orders[former], former)
                status = status_of(t, former)
                if not is_open(t, former):
                    close_order(t, former, CLOSED)
                return 0, former, status
    full = _lacks_order_room(t, event, lines, buffer)
    if full:
        return full, NO_ORDER, 0
    if age > 0:
        drop_order(t, former, CLOSED, event_row)
    text_size = np.int64(event.reference_size)
    for i in range(event.first_line, event.first_line + event.line_count):
        text_size += lines[i].line_id_size
    row = add_order(t, buffer, event.reference_at, event.reference_size, text_size)
    order = t.orders[row]
    if age > 0:
        order.age = age
    order.flags = flags
    order.x, order.y, order.z = x, y, z
    order.pickup_location = pickup
    _write_lines(t, row, event, lines, buffer)
    if flags & c.PICKUP:
        if pickup < 0:
            _refuse_pickup(t, row, Unallocated.UNKNOWN_LOCATION)
            return 0, row, Status.REJECTED
        if t.locations[pickup].flags & PICKS_UP == 0:
            _refuse_pickup(t, row, Unallocated.NO_PICKUP)
            return 0, row, Status.REJECTED
    if held:
        order.state = HELD
        order.expires_at = event.time
        t.pool[0].held_orders += 1
        push_hold(t, row)
    return 0, row, 0


@kernel
def _same_order(t, order_row, event, lines, buffer, flags, pickup, x, y, z):
    """Whether a `placed` asks for just what the hold asked for, all of which is still open."""
    order = t.orders[order_row]
    if order.flags != flags or order.pickup_location != pickup or order.x != x or order.y != y or order.z != z:
        return False
    row = order.first_line
    for i in range(event.first_line, event.first_line + event.line_count):
        if row < 0:
            return False
        asked = lines[i]
        line = t.lines[row]
        sku = t.skus[line.sku]
        if not same_text(t.heap, order.id_at + line.id_at, line.id_size, buffer, asked.line_id_at, asked.line_id_size):
            return False
        if not same_text(t.heap, sku.id_at, sku.id_size, buffer, asked.sku_at, asked.sku_size):
            return False
        units = np.int64(0)
        root = row
        while row >= 0 and t.lines[row].root == root:
            if t.lines[row].state == DROPPED:
                return False
            units += t.lines[row].quantity
            row = t.lines[row].next
        if units != asked.quantity:
            return False
    return row < 0


@kernel
def drop_order(t, order_row, state, event_row):
    """Give back all that an order still holds or waits for, and close it."""
    row = t.orders[order_row].first_line
    while row >= 0:
        if t.lines[row].state == WAITING or t.lines[row].state == RESERVED:
            drop_line(t, row, event_row)
        row = t.lines[row].next
    close_order(t, order_row, state)


@kernel
def _destination(event):
    phi = math.radians(event.latitude)
    theta = math.radians(event.longitude)
    return math.cos(phi) * math.cos(theta), math.cos(phi) * math.sin(theta), math.sin(phi)


@kernel
def _write_lines(t, order_row, event, lines, buffer):
    """Make the order's lines, and keep their ids behind the order's own."""
    order = t.orders[order_row]
    at = np.int64(order.id_size)
    previous = np.int32(-1)
    for i in range(event.first_line, event.first_line + event.line_count):
        asked = lines[i]
        size = asked.line_id_size
        copy_text(t.heap, order.id_at + at, buffer, asked.line_id_at, size)
        sku = sku_row(t, buffer, asked.sku_at, asked.sku_size)
        previous = add_line(t, order_row, previous, sku, asked.quantity, at, size)
        at += size
    touch_text(t.page_dirty, t.journal, t.counters, order.id_at, order.text_size)


@kernel
def _refuse_pickup(t, order_row, reason):
    """Close an order that can never be met: its pickup location is none."""
    row = t.orders[order_row].first_line
    while row >= 0:
        t.lines[row].reason = reason
        t.lines[row].state = DROPPED
        row = t.lines[row].next
    close_order(t, order_row, CLOSED)


@kernel
def _lacks_order_room(t, event, lines, buffer):
    """Why the pool has no room for an order's lines or their SKUs; 0 = it has."""
    pool = t.pool[0]
    if pool.sku_count + event.line_count > t.limits[MAX_SKUS]:
        unknown = 0
        for i in range(event.first_line, event.first_line + event.line_count):
            unknown += find_sku(t, buffer, lines[i].sku_at, lines[i].sku_size) < 0
        if pool.sku_count + unknown > t.limits[MAX_SKUS]:
            return DeadLetter.TOO_MANY_SKUS
    most = t.limits[MAX_LINES] - event.line_count
    if pool.kept_lines > most and count_kept_lines(t) > most:
        return DeadLetter.TOO_MANY_LINES
    return 0


@kernel
def is_named(t, order_row, row, asked, buffer):
    """Whether an order's line row has the line id that a line of an event names."""
    line = t.lines[row]
    at = t.orders[order_row].id_at + line.id_at
    return same_text(t.heap, at, line.id_size, buffer, asked.line_id_at, asked.line_id_size)


@kernel
def cancel_order(t, event, event_row, lines, buffer, work):
    """Apply `cancelled`: give back every unshipped unit of the order, or of the lines named."""
    row = find_order(t, buffer, event.reference_at, event.reference_size)
    if row < 0:
        return DeadLetter.UNKNOWN_ORDER, NO_ORDER, 0
    if t.orders[row].state != OPEN and t.orders[row].state != HELD:
        return DeadLetter.ORDER_CLOSED, NO_ORDER, 0
    named = event.flags & c.HAS_LINES != 0
    for i in range(event.first_line, event.first_line + event.line_count):
        known = False
        line = t.orders[row].first_line
        while line >= 0 and not known:
            known = is_named(t, row, line, lines[i], buffer)
            line = t.lines[line].next
        if not known:
            return DeadLetter.UNKNOWN_LINE, NO_ORDER, 0
    count = 0
    line = t.orders[row].first_line
    while line >= 0:
        chosen = not named
        for i in range(event.first_line, event.first_line + event.line_count):
            chosen |= is_named(t, row, line, lines[i], buffer)
        if chosen and (t.lines[line].state == WAITING or t.lines[line].state == RESERVED):
            work.rows[count] = line
            count += 1
        line = t.lines[line].next
    if count == 0:
        return DeadLetter.ORDER_CLOSED, NO_ORDER, 0
    for i in range(count):
        drop_line(t, work.rows[i], event_row)
    if is_open(t, row):
        return 0, row, 0  # what is left may now go where the whole could not
    close_order(t, row, CLOSED)
    return 0, row, Status.CANCELLED
