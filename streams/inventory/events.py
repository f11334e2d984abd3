"""What each input event means for the state: one handler per kind of event.

A handler checks everything first and changes something only if all is well: it returns 0, `STALE`, or the code of the reason
(reasons.DeadLetter) for which the event is refused, having changed nothing. An order that is to be routed is left in the
counter TO_ROUTE.
Not here: dedupe, the clock, serving those who wait (apply.py).
"""

import math

import numpy as np

from state.columns import (
    ADDED,
    CLOSED,
    COLLECTED,
    DROPPED,
    EXPECTED_SUPPLY,
    EXPIRED,
    HELD,
    IN_TRANSIT,
    OPEN,
    PICKS_UP,
    RESERVED,
    SHIPPED,
    WAITING,
)
from state.hashing import hash_text, same_text
from state.index import find_cell, find_text
from state.orders import (
    add_line,
    add_order,
    close_order,
    count_kept_lines,
    drop_line,
    find_order,
    push_hold,
    refuse,
    split_line,
)
from state.stock import (
    cell_row,
    change_cell,
    change_supply,
    find_sku,
    has_supply,
    is_counted,
    move_stock,
    moved_after,
    reserve,
    sku_row,
    within_bounds,
)
from state.tables import LINES, MAX_CELLS, MAX_LINES, MAX_SKUS, MAX_SUPPLIES, ORDERS, TO_ROUTE, mark
from state.text import copy_text, touch_text
from streams.inventory.decide import CANCELLED, EXPIRED_STATUS, REJECTED, is_open, status_of, write_decision
from topics import columns as c
from topics.compiled.kernels import kernel
from topics.reasons import DeadLetter, Kind, ShipmentKind, Unallocated

STALE = 255
# Into how many parts locations may cut a line, and all of an order, by rejecting some of its units.
MAX_LINE_PARTS = 64
MAX_ORDER_PARTS = 2_000
_DASH, _ZERO = 45, 48  # ASCII

SALE = int(Kind.SALE)
RETURN = int(Kind.RETURN)
RECEIPT = int(Kind.RECEIPT)
ADJUSTMENT = int(Kind.ADJUSTMENT)
COUNT = int(Kind.COUNT)
TRANSFER_OUT = int(Kind.TRANSFER_OUT)
TRANSFER_IN = int(Kind.TRANSFER_IN)
EXPECTED = int(Kind.EXPECTED)
SAFETY_STOCK = int(Kind.SAFETY_STOCK)
QUARANTINE = int(Kind.QUARANTINE)
HELD_KIND = int(Kind.HELD)
COLLECTED_KIND = int(Kind.COLLECTED)
REJECTED_KIND = int(Kind.REJECTED)
RETURNED_KIND = int(Kind.RETURNED)

OUT_OF_RANGE = int(DeadLetter.OUT_OF_RANGE)
UNKNOWN_LOCATION = int(DeadLetter.UNKNOWN_LOCATION)
ORDER_EXISTS = int(DeadLetter.ORDER_EXISTS)
UNKNOWN_ORDER = int(DeadLetter.UNKNOWN_ORDER)
ORDER_CLOSED = int(DeadLetter.ORDER_CLOSED)
UNKNOWN_LINE = int(DeadLetter.UNKNOWN_LINE)
UNKNOWN_SHIPMENT = int(DeadLetter.UNKNOWN_SHIPMENT)
WRONG_LOCATION = int(DeadLetter.WRONG_LOCATION)
SHIPMENT_CLOSED = int(DeadLetter.SHIPMENT_CLOSED)
EXCEEDS_SHIPMENT = int(DeadLetter.EXCEEDS_SHIPMENT)
NOT_SHIPPED = int(DeadLetter.NOT_SHIPPED)
COUNT_TOO_OLD = int(DeadLetter.COUNT_TOO_OLD)
TOO_MANY_SKUS = int(DeadLetter.TOO_MANY_SKUS)
TOO_MANY_CELLS = int(DeadLetter.TOO_MANY_CELLS)
TOO_MANY_LINES = int(DeadLetter.TOO_MANY_LINES)
TOO_MANY_SUPPLIES = int(DeadLetter.TOO_MANY_SUPPLIES)

TRANSFER = int(ShipmentKind.TRANSFER)
NO_SUCH_PICKUP = int(Unallocated.UNKNOWN_LOCATION)
NO_PICKUP = int(Unallocated.NO_PICKUP)


@kernel
def find_location(t, buffer, at, size):
    """Find a location's row by its id; -1 = not in this pool."""
    low, high = hash_text(buffer, at, size)
    return find_text(t.location_index, t.locations, low, high, t.heap, buffer, at, size)


@kernel
def apply_stock(t, e, buffer):
    """Apply a line of sales.v1 or stock.v1."""
    location = find_location(t, buffer, e.location_at, e.location_size)
    if location < 0:
        return UNKNOWN_LOCATION
    sku = find_sku(t, buffer, e.sku_at, e.sku_size)
    known = find_cell(t.cell_index, t.cells, sku, location) if sku >= 0 else np.int32(-1)
    on_hand = 0
    if known >= 0:
        on_hand = t.cells[known].on_hand
    if e.kind == COUNT:
        return _apply_count(t, e, buffer, location, sku, known)
    units = np.int64(e.quantity)
    if e.kind == SALE or e.kind == TRANSFER_OUT or e.kind == QUARANTINE:
        units = -units
    moves = e.kind != EXPECTED and e.kind != SAFETY_STOCK
    if moves and is_counted(t, known, e.event_time):
        if e.kind != TRANSFER_OUT and e.kind != TRANSFER_IN:
            return STALE
        moves = False
    if moves and not within_bounds(on_hand + units):
        return OUT_OF_RANGE
    full = _lacks_room(t, e, buffer, sku, known)
    if full:
        return full
    if e.kind == EXPECTED:
        sku = sku_row(t, buffer, e.sku_at, e.sku_size)
        change_supply(t, EXPECTED_SUPPLY, buffer, e.reference_at, e.reference_size, sku, location, e.quantity, e.time)
        return 0
    if e.kind == SAFETY_STOCK:
        row = cell_row(t, sku_row(t, buffer, e.sku_at, e.sku_size), location)
        change_cell(t, row, t.cells[row].on_hand, t.cells[row].reserved, e.quantity)
        return 0
    sku = sku_row(t, buffer, e.sku_at, e.sku_size)
    if moves:
        move_stock(t, cell_row(t, sku, location), units, 0, e.event_time)
    if e.kind == TRANSFER_OUT:
        target = find_location(t, buffer, e.target_at, e.target_size)
        change_supply(t, IN_TRANSIT, buffer, e.reference_at, e.reference_size, sku, target, units * -1, e.event_time)
    elif e.kind == TRANSFER_IN:
        change_supply(t, IN_TRANSIT, buffer, e.reference_at, e.reference_size, sku, location, -units, e.event_time)
    return 0


@kernel
def _lacks_room(t, e, buffer, sku, known):
    """Why the pool has no room for what a line of stock would add: a SKU, a cell, a supply; 0 = it has."""
    pool = t.pool[0]
    if sku < 0 and pool.sku_count >= t.limits[MAX_SKUS]:
        return TOO_MANY_SKUS
    if known < 0 and e.kind != EXPECTED and pool.cell_count >= t.limits[MAX_CELLS]:
        return TOO_MANY_CELLS
    if pool.kept_supplies >= t.limits[MAX_SUPPLIES]:
        kind = EXPECTED_SUPPLY if e.kind == EXPECTED else IN_TRANSIT
        supplies = e.kind == EXPECTED or e.kind == TRANSFER_OUT or e.kind == TRANSFER_IN
        if supplies and not has_supply(t, kind, buffer, e.reference_at, e.reference_size, sku):
            return TOO_MANY_SUPPLIES
    return 0


@kernel
def _apply_count(t, e, buffer, location, sku, known):
    """Set on hand to what was counted, plus what is known to have moved since."""
    moved = np.int64(0)
    if known >= 0:
        if e.time < t.cells[known].counted_at:
            return STALE
        exact, moved = moved_after(t, known, e.time)
        if not exact:
            return COUNT_TOO_OLD
    if not within_bounds(e.quantity + moved):
        return OUT_OF_RANGE
    full = _lacks_room(t, e, buffer, sku, known)
    if full:
        return full
    row = cell_row(t, sku_row(t, buffer, e.sku_at, e.sku_size), location)
    cell = t.cells[row]
    cell.counted_at = e.time
    change_cell(t, row, e.quantity + moved, cell.reserved, cell.safety_stock)
    return 0


@kernel
def _same_order(t, order_row, e, lines, buffer, flags, pickup, x, y, z):
    """Tell whether a `placed` asks for just what the hold asked for, all of which is still open."""
    order = t.orders[order_row]
    if order.flags != flags or order.pickup_location != pickup or order.x != x or order.y != y or order.z != z:
        return False
    row = order.first_line
    for i in range(e.first_line, e.first_line + e.line_count):
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
def drop_order(t, order_row, state):
    """Give back all that an order still holds or waits for, and close it."""
    row = t.orders[order_row].first_line
    while row >= 0:
        if t.lines[row].state == WAITING or t.lines[row].state == RESERVED:
            drop_line(t, row)
        row = t.lines[row].next
    close_order(t, order_row, state)


@kernel
def _destination(e):
    phi = math.radians(e.latitude)
    theta = math.radians(e.longitude)
    return math.cos(phi) * math.cos(theta), math.cos(phi) * math.sin(theta), math.sin(phi)


@kernel
def _write_lines(t, order_row, e, lines, buffer):
    """Make the order's lines, and keep their ids behind the order's own."""
    order = t.orders[order_row]
    at = np.int64(order.id_size)
    previous = np.int32(-1)
    for i in range(e.first_line, e.first_line + e.line_count):
        asked = lines[i]
        size = asked.line_id_size
        copy_text(t.heap, order.id_at + at, buffer, asked.line_id_at, size)
        sku = sku_row(t, buffer, asked.sku_at, asked.sku_size)
        previous = add_line(t, order_row, previous, sku, asked.quantity, at, size)
        at += size
    touch_text(t.page_dirty, t.journal, t.counters, order.id_at, order.text_size)


@kernel
def _refuse_pickup(t, out, order_row, reason, event, work):
    """Decide that an order can never be met: its pickup location is none."""
    row = t.orders[order_row].first_line
    while row >= 0:
        t.lines[row].reason = reason
        t.lines[row].state = DROPPED
        row = t.lines[row].next
    close_order(t, order_row, CLOSED)
    write_decision(t, out, order_row, REJECTED, event, work, False)


@kernel
def _lacks_order_room(t, e, lines, buffer):
    """Why the pool has no room for an order's lines or their SKUs; 0 = it has."""
    pool = t.pool[0]
    if pool.sku_count + e.line_count > t.limits[MAX_SKUS]:
        unknown = 0
        for i in range(e.first_line, e.first_line + e.line_count):
            unknown += find_sku(t, buffer, lines[i].sku_at, lines[i].sku_size) < 0
        if pool.sku_count + unknown > t.limits[MAX_SKUS]:
            return TOO_MANY_SKUS
    if pool.kept_lines + e.line_count > t.limits[MAX_LINES] and count_kept_lines(t) + e.line_count > t.limits[MAX_LINES]:
        return TOO_MANY_LINES
    return 0


@kernel
def place_order(t, out, e, event, lines, buffer, work):
    """Apply `placed` or `held`: make the order, which is then to be routed, or confirm its hold."""
    held = e.kind == HELD_KIND
    flags = e.flags & (c.ALLOW_SPLIT | c.ALLOW_PARTIAL | c.PICKUP | c.URGENT)
    x, y, z = _destination(e)
    pickup = np.int32(-1)
    if flags & c.PICKUP:
        x, y, z = 0.0, 0.0, 0.0
        pickup = find_location(t, buffer, e.location_at, e.location_size)
    age = np.int64(0)
    former = find_order(t, buffer, e.reference_at, e.reference_size)
    if former >= 0:
        state = t.orders[former].state
        if state in (OPEN, CLOSED) or (state == HELD and held):
            return ORDER_EXISTS
        if state == HELD:
            age = t.orders[former].age
            if _same_order(t, former, e, lines, buffer, flags, pickup, x, y, z):
                t.orders[former].state = OPEN
                t.pool[0].held_orders -= 1
                mark(t.journal, t.counters, ORDERS, t.orders[former], former)
                write_decision(t, out, former, status_of(t, former), event, work, False)
                if not is_open(t, former):
                    close_order(t, former, CLOSED)
                return 0
    full = _lacks_order_room(t, e, lines, buffer)
    if full:
        return full
    if age > 0:
        drop_order(t, former, CLOSED)
    text_size = np.int64(e.reference_size)
    for i in range(e.first_line, e.first_line + e.line_count):
        text_size += lines[i].line_id_size
    row = add_order(t, buffer, e.reference_at, e.reference_size, text_size)
    order = t.orders[row]
    if age > 0:
        order.age = age
    order.flags = flags
    order.x, order.y, order.z = x, y, z
    order.pickup_location = pickup
    _write_lines(t, row, e, lines, buffer)
    if flags & c.PICKUP:
        if pickup < 0:
            _refuse_pickup(t, out, row, NO_SUCH_PICKUP, event, work)
            return 0
        if t.locations[pickup].flags & PICKS_UP == 0:
            _refuse_pickup(t, out, row, NO_PICKUP, event, work)
            return 0
    if held:
        order.state = HELD
        order.expires_at = e.time
        t.pool[0].held_orders += 1
        push_hold(t, row)
    t.counters[TO_ROUTE] = row
    return 0


@kernel
def expire_order(t, out, order_row, event, work):
    """End a hold whose time has come."""
    drop_order(t, order_row, EXPIRED)
    write_decision(t, out, order_row, EXPIRED_STATUS, event, work, False)


@kernel
def _is_named(t, order_row, row, asked, buffer):
    line = t.lines[row]
    at = t.orders[order_row].id_at + line.id_at
    return same_text(t.heap, at, line.id_size, buffer, asked.line_id_at, asked.line_id_size)


@kernel
def cancel_order(t, out, e, event, lines, buffer, work):
    """Apply `cancelled`: give back every unshipped unit of the order, or of the lines named."""
    row = find_order(t, buffer, e.reference_at, e.reference_size)
    if row < 0:
        return UNKNOWN_ORDER
    if t.orders[row].state != OPEN and t.orders[row].state != HELD:
        return ORDER_CLOSED
    named = e.flags & c.HAS_LINES != 0
    for i in range(e.first_line, e.first_line + e.line_count):
        known = False
        line = t.orders[row].first_line
        while line >= 0 and not known:
            known = _is_named(t, row, line, lines[i], buffer)
            line = t.lines[line].next
        if not known:
            return UNKNOWN_LINE
    count = 0
    line = t.orders[row].first_line
    while line >= 0:
        chosen = not named
        for i in range(e.first_line, e.first_line + e.line_count):
            chosen |= _is_named(t, row, line, lines[i], buffer)
        if chosen and (t.lines[line].state == WAITING or t.lines[line].state == RESERVED):
            work.rows[count] = line
            count += 1
        line = t.lines[line].next
    if count == 0:
        return ORDER_CLOSED
    for i in range(count):
        drop_line(t, work.rows[i])
    if is_open(t, row):
        t.counters[TO_ROUTE] = row  # what is left may now go where the whole could not
    else:
        close_order(t, row, CLOSED)
        write_decision(t, out, row, CANCELLED, event, work, False)
    return 0


@kernel
def _shipment_of(t, buffer, at, size, tag):
    """Read a shipment id, `{tag}-{sequence}-{number}`; (0, 0) if it is none of this pool's."""
    if size < tag.size + 4 or size > 48 or not same_text(buffer, at, tag.size, tag, 0, tag.size):
        return np.int64(0), np.int64(0)
    sequence = np.int64(0)
    number = np.int64(0)
    dashes = 0
    digits = 0
    for i in range(at + tag.size, at + size):
        byte = np.int64(buffer[i])
        if byte == _DASH:
            if dashes == 2 or (dashes == 1 and digits == 0):
                return np.int64(0), np.int64(0)
            dashes += 1
            sequence = number
            number = np.int64(0)
            digits = 0
        elif _ZERO <= byte <= _ZERO + 9 and dashes > 0 and digits < 18 and not (digits == 0 and byte == _ZERO):
            number = number * 10 + byte - _ZERO
            digits += 1
        else:
            return np.int64(0), np.int64(0)
    if dashes != 2 or digits == 0:
        return np.int64(0), np.int64(0)
    return sequence, number


@kernel
def _left(line, kind):
    """Units of a shipment's line that an answer of this kind may take."""
    if kind == RETURNED_KIND:
        return line.shipped - line.returned
    if kind == COLLECTED_KIND and line.shipment_kind == TRANSFER:
        return line.shipped - line.collected if line.state == SHIPPED else 0
    return line.quantity - line.shipped if line.state == RESERVED else 0


@kernel
def _take_units(t, order_row, e, lines, buffer, work, n):
    """Say how many units of each of the shipment's n lines (work.rows) the event takes: work.units. Returns a reason or 0."""
    total = np.int64(0)
    shipped = False
    reserved = False
    for k in range(n):
        line = t.lines[work.rows[k]]
        work.units[k] = 0
        total += _left(line, e.kind)
        shipped |= line.shipped > 0
        reserved |= line.state == RESERVED
    if total == 0:
        if e.kind == RETURNED_KIND and not shipped:
            return NOT_SHIPPED
        if e.kind == COLLECTED_KIND and t.lines[work.rows[0]].shipment_kind == TRANSFER and reserved:
            return NOT_SHIPPED
        return SHIPMENT_CLOSED
    if e.flags & c.HAS_LINES == 0:
        for k in range(n):
            work.units[k] = _left(t.lines[work.rows[k]], e.kind)
        return 0
    for i in range(e.first_line, e.first_line + e.line_count):
        wanted = np.int64(lines[i].quantity)
        known = False
        for k in range(n):
            if _is_named(t, order_row, work.rows[k], lines[i], buffer):
                known = True
                taken = min(wanted, np.int64(_left(t.lines[work.rows[k]], e.kind) - work.units[k]))
                work.units[k] += taken
                wanted -= taken
        if not known:
            return UNKNOWN_LINE
        if wanted > 0:
            return EXCEEDS_SHIPMENT
    return 0


@kernel
def _ship(t, row, units, event_time):
    line = t.lines[row]
    line.shipped += units
    if line.shipped == line.quantity:
        line.state = SHIPPED
    mark(t.journal, t.counters, LINES, line, row)
    cell = find_cell(t.cell_index, t.cells, line.sku, line.location)
    move_stock(t, cell, -units, -units, event_time)


@kernel
def _reject(t, row, units, location):
    """Give a promise back to a location that can't keep it; the units are open again."""
    line = t.lines[row]
    reserve(t, find_cell(t.cell_index, t.cells, line.sku, line.location), -units)
    if units == line.quantity:
        line.state = ADDED
        line.shipment_sequence = 0
        line.shipment_number = 0
        mark(t.journal, t.counters, LINES, line, row)
    else:
        split_line(t, row, units)
    refuse(t, line.order, line.root, location)


@kernel
def _cuts_too_fine(t, order_row, work, n):
    """Tell whether a partial rejection would cut a line, or the order, into more parts than are kept of one."""
    new = 0
    for k in range(n):
        line = t.lines[work.rows[k]]
        if 0 < work.units[k] < line.quantity:
            new += 1
            parts = 0
            row = t.orders[order_row].first_line
            while row >= 0:
                parts += t.lines[row].root == line.root
                row = t.lines[row].next
            if parts >= MAX_LINE_PARTS:
                return True
    return new > 0 and t.orders[order_row].line_count + new > MAX_ORDER_PARTS


@kernel
def apply_fulfilment(t, e, lines, buffer, work, tag):
    """Apply what a location answers to a shipment; after a rejection the order is to be routed."""
    order_row = find_order(t, buffer, e.reference_at, e.reference_size)
    if order_row < 0:
        return UNKNOWN_ORDER
    location = find_location(t, buffer, e.location_at, e.location_size)
    if location < 0:
        return UNKNOWN_LOCATION
    sequence, number = _shipment_of(t, buffer, e.shipment_at, e.shipment_size, tag)
    n = 0
    row = t.orders[order_row].first_line
    while row >= 0:
        line = t.lines[row]
        if sequence > 0 and line.shipment_sequence == sequence and line.shipment_number == number:
            work.rows[n] = row
            n += 1
        row = line.next
    if n == 0:
        return UNKNOWN_SHIPMENT
    first = t.lines[work.rows[0]]
    place = first.location
    if e.kind == COLLECTED_KIND and first.shipment_kind == TRANSFER:
        place = t.orders[order_row].pickup_location
    if e.kind != RETURNED_KIND and location != place:
        return WRONG_LOCATION
    reason = _take_units(t, order_row, e, lines, buffer, work, n)
    if reason:
        return reason
    if e.kind == RETURNED_KIND:
        return _return_units(t, e, location, work, n)
    if e.kind == REJECTED_KIND and _cuts_too_fine(t, order_row, work, n):
        return TOO_MANY_LINES
    for k in range(n):
        row = work.rows[k]
        units = work.units[k]
        if units == 0:
            continue
        if e.kind == REJECTED_KIND:
            _reject(t, row, units, location)
        elif e.kind == COLLECTED_KIND and first.shipment_kind == TRANSFER:
            t.lines[row].collected += units
            if t.lines[row].collected == t.lines[row].shipped:
                t.lines[row].state = COLLECTED
            mark(t.journal, t.counters, LINES, t.lines[row], row)
        else:
            _ship(t, row, units, e.event_time)
    if e.kind == REJECTED_KIND:
        t.counters[TO_ROUTE] = order_row
    elif (t.orders[order_row].state == OPEN) and not is_open(t, order_row):
        close_order(t, order_row, CLOSED)
    return 0


@kernel
def _return_units(t, e, location, work, n):
    new = 0
    for k in range(n):
        new += work.units[k] > 0 and find_cell(t.cell_index, t.cells, t.lines[work.rows[k]].sku, location) < 0
    if new > 0 and t.pool[0].cell_count + new > t.limits[MAX_CELLS]:
        return TOO_MANY_CELLS
    for k in range(n):
        sku = t.lines[work.rows[k]].sku
        units = np.int64(0)
        for other in range(n):
            if t.lines[work.rows[other]].sku == sku:
                units += work.units[other]
        known = find_cell(t.cell_index, t.cells, sku, location)
        if known >= 0:
            units += t.cells[known].on_hand
        if not within_bounds(units) and not is_counted(t, known, e.event_time):
            return OUT_OF_RANGE
    for k in range(n):
        if work.units[k] > 0:
            line = t.lines[work.rows[k]]
            line.returned += work.units[k]
            mark(t.journal, t.counters, LINES, line, work.rows[k])
            move_stock(t, cell_row(t, line.sku, location), work.units[k], 0, e.event_time)
    return 0
