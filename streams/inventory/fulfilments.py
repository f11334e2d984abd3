"""Events of fulfilments.v1: what a location answers to a shipment.

Handlers check, change and return as those of order_events.py do. After a rejection the order is routed again.
Owner: apply.py. Not here: dedupe, the clock (apply.py).
"""

import numpy as np

from state.columns import ADDED, CLOSED, COLLECTED, OPEN, RESERVED, SHIPPED
from state.hashing import same_text
from state.index import find_cell
from state.orders import close_order, find_order, refuse, split_line
from state.stock import cell_row, find_location, is_counted, move_stock, reserve, within_bounds
from state.tables import LINES, MAX_CELLS, mark
from streams.inventory.decide import is_open
from streams.inventory.order_events import NO_ORDER, is_named
from topics import columns as c
from topics.compiled.kernels import kernel
from topics.reasons import DeadLetter, Kind, ShipmentKind

# Into how many parts locations may cut a line, and all of an order, by rejecting some of its units.
MAX_LINE_PARTS = 64
MAX_ORDER_PARTS = 2_000
_DASH, _ZERO = 45, 48  # ASCII


@kernel
def apply_fulfilment(t, event, event_row, lines, buffer, work, tag):
    """Apply what a location answers to a shipment."""
    order_row = find_order(t, buffer, event.reference_at, event.reference_size)
    if order_row < 0:
        return DeadLetter.UNKNOWN_ORDER, NO_ORDER, 0
    location = find_location(t, buffer, event.location_at, event.location_size)
    if location < 0:
        return DeadLetter.UNKNOWN_LOCATION, NO_ORDER, 0
    sequence, number = _shipment_of(t, buffer, event.shipment_at, event.shipment_size, tag)
    n = 0
    row = t.orders[order_row].first_line
    while row >= 0:
        line = t.lines[row]
        if sequence > 0 and line.shipment_sequence == sequence and line.shipment_number == number:
            work.rows[n] = row
            n += 1
        row = line.next
    if n == 0:
        return DeadLetter.UNKNOWN_SHIPMENT, NO_ORDER, 0
    first = t.lines[work.rows[0]]
    place = first.location
    if event.kind == Kind.COLLECTED and first.shipment_kind == ShipmentKind.TRANSFER:
        place = t.orders[order_row].pickup_location
    if event.kind != Kind.RETURNED and location != place:
        return DeadLetter.WRONG_LOCATION, NO_ORDER, 0
    reason = _take_units(t, order_row, event, lines, buffer, work, n)
    if reason:
        return reason, NO_ORDER, 0
    if event.kind == Kind.RETURNED:
        return _return_units(t, event, event_row, location, work, n), NO_ORDER, 0
    if event.kind == Kind.REJECTED and _cuts_too_fine(t, order_row, work, n):
        return DeadLetter.TOO_MANY_LINES, NO_ORDER, 0
    for k in range(n):
        row = work.rows[k]
        units = work.units[k]
        if units == 0:
            continue
        if event.kind == Kind.REJECTED:
            _reject(t, row, units, location, event_row)
        elif event.kind == Kind.COLLECTED and first.shipment_kind == ShipmentKind.TRANSFER:
            t.lines[row].collected += units
            if t.lines[row].collected == t.lines[row].shipped:
                t.lines[row].state = COLLECTED
            mark(t.journal, t.counters, LINES, t.lines[row], row)
        else:
            _ship(t, row, units, event.event_time, event_row)
    if event.kind == Kind.REJECTED:
        return 0, order_row, 0
    if t.orders[order_row].state == OPEN and not is_open(t, order_row):
        close_order(t, order_row, CLOSED)
    return 0, NO_ORDER, 0


@kernel
def _shipment_of(t, buffer, at, size, tag):
    """Read a shipment id, `{tag}-{sequence}-{number}`; (0, 0) if it is not one of this pool's."""
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
    if kind == Kind.RETURNED:
        return line.shipped - line.returned
    if kind == Kind.COLLECTED and line.shipment_kind == ShipmentKind.TRANSFER:
        return line.shipped - line.collected if line.state == SHIPPED else 0
    return line.quantity - line.shipped if line.state == RESERVED else 0


@kernel
def _take_units(t, order_row, event, lines, buffer, work, n):
    """Put into work.units how many units the event takes of each of the shipment's n lines (work.rows); a reason or 0."""
    total = np.int64(0)
    shipped = False
    reserved = False
    for k in range(n):
        line = t.lines[work.rows[k]]
        work.units[k] = 0
        total += _left(line, event.kind)
        shipped |= line.shipped > 0
        reserved |= line.state == RESERVED
    if total == 0:
        if event.kind == Kind.RETURNED and not shipped:
            return DeadLetter.NOT_SHIPPED
        if event.kind == Kind.COLLECTED and t.lines[work.rows[0]].shipment_kind == ShipmentKind.TRANSFER and reserved:
            return DeadLetter.NOT_SHIPPED
        return DeadLetter.SHIPMENT_CLOSED
    if event.flags & c.HAS_LINES == 0:
        for k in range(n):
            work.units[k] = _left(t.lines[work.rows[k]], event.kind)
        return 0
    for i in range(event.first_line, event.first_line + event.line_count):
        wanted = np.int64(lines[i].quantity)
        known = False
        for k in range(n):
            if is_named(t, order_row, work.rows[k], lines[i], buffer):
                known = True
                taken = min(wanted, np.int64(_left(t.lines[work.rows[k]], event.kind) - work.units[k]))
                work.units[k] += taken
                wanted -= taken
        if not known:
            return DeadLetter.UNKNOWN_LINE
        if wanted > 0:
            return DeadLetter.EXCEEDS_SHIPMENT
    return 0


@kernel
def _ship(t, row, units, event_time, event_row):
    line = t.lines[row]
    line.shipped += units
    if line.shipped == line.quantity:
        line.state = SHIPPED
    mark(t.journal, t.counters, LINES, line, row)
    cell = find_cell(t.cell_index, t.cells, line.sku, line.location)
    move_stock(t, cell, -units, -units, event_time, event_row)


@kernel
def _reject(t, row, units, location, event_row):
    """Give a promise back to a location that can't keep it; the units are open again."""
    line = t.lines[row]
    reserve(t, find_cell(t.cell_index, t.cells, line.sku, line.location), -units, event_row)
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
    """Whether a partial rejection would cut a line, or the order, into more parts than are kept of one."""
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
def _return_units(t, event, event_row, location, work, n):
    new = 0
    for k in range(n):
        new += work.units[k] > 0 and find_cell(t.cell_index, t.cells, t.lines[work.rows[k]].sku, location) < 0
    if new > 0 and t.pool[0].cell_count + new > t.limits[MAX_CELLS]:
        return DeadLetter.TOO_MANY_CELLS
    for k in range(n):
        sku = t.lines[work.rows[k]].sku
        units = np.int64(0)
        for other in range(n):
            if t.lines[work.rows[other]].sku == sku:
                units += work.units[other]
        known = find_cell(t.cell_index, t.cells, sku, location)
        if known >= 0:
            units += t.cells[known].on_hand
        if not within_bounds(units) and not is_counted(t, known, event.event_time):
            return DeadLetter.OUT_OF_RANGE
    for k in range(n):
        if work.units[k] > 0:
            line = t.lines[work.rows[k]]
            line.returned += work.units[k]
            mark(t.journal, t.counters, LINES, line, work.rows[k])
            move_stock(t, cell_row(t, line.sku, location), work.units[k], 0, event.event_time, event_row)
    return 0
