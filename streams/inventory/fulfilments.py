"""Events of fulfilments.v1, and sales of an order: what left a location, came back, or can't be provided.

What is told has happened (shipped, collected, returned, a sale), so it is applied whatever was promised: a fact is refused only
if it does not say where, what and how many. Units that left are looked for among what the order knows, in four steps: told
before (a till and the store may both tell of a collection), open in the shipment, given back earlier, open elsewhere. What is
left after that was nobody's. Each step that contradicts a promise raises an alert.
A rejection is an answer to a promise, and is refused if there is none. After it the order is routed again.
Handlers check, change and return as those of order_events.py do. Units are those of the order's line: of a kit, kits.
Owner: apply.py. Not here: dedupe, the clock (apply.py), what units move at the cells (moves.py), shortfalls (shortfall.py).
"""

import numpy as np

from state.columns import ADDED, CARRIED, CLOSED, OPEN
from state.hashing import same_text
from state.orders import (
    add_part,
    close_order,
    find_order,
    has_room_for_part,
    has_same_pieces,
    open_units,
    refuse,
    reserve_line,
    settle_line,
    unwant,
    waiting_units,
    want_again,
)
from state.stock import find_location, find_sku
from state.tables import LINES, mark
from streams.inventory.decide import is_open
from streams.inventory.moves import (
    RULES,
    line_lacks_room,
    move_line,
    move_unknown,
    reason_of,
    sku_lacks_room,
    tell_line,
)
from streams.inventory.order_events import NO_ORDER, is_named
from topics import columns as c
from topics.compiled.kernels import inner_kernel
from topics.reasons import AlertKind, DeadLetter, Kind, ShipmentKind

_DASH, _ZERO = 45, 48  # ASCII


@inner_kernel
def shipment_of(buffer, at, size, tag):
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


@inner_kernel
def _is_of(line, sequence, number):
    """Whether a line belongs to a shipment."""
    return sequence > 0 and line.shipment_sequence == sequence and line.shipment_number == number


@inner_kernel
def _arrives(t, line, location, kind):
    """Whether an event is about what a transfer brought to the pickup location."""
    at_counter = kind == Kind.COLLECTED or kind == Kind.SALE
    return at_counter and line.shipment_kind == ShipmentKind.TRANSFER and location == t.orders[line.order].pickup_location


@inner_kernel
def _find_lines(t, order_row, asked, buffer, sequence, number, rows_out):
    """List an order's lines that a line of an event names: (their count without those carried, whether it names any)."""
    named = asked.line_id_size > 0
    wanted = np.int32(-1)
    if asked.sku_size > 0:
        wanted = find_sku(t, buffer, asked.sku_at, asked.sku_size)
        if wanted < 0:
            return 0, False
    known = False
    count = 0
    own = np.int32(-1)
    row = t.orders[order_row].first_line
    while row >= 0:
        line = t.lines[row]
        if (wanted < 0 or line.sku == wanted) and (not named or is_named(t, order_row, row, asked, buffer)):
            known = True
            if line.state != CARRIED:
                rows_out[count] = row
                count += 1
                if own < 0 and _is_of(line, sequence, number):
                    own = row
        row = line.next
    if count > 0:  # after a change, lines of several SKUs may have had the id, or of several definitions of one kit
        count = _keep_alike(t, rows_out, count, own if own >= 0 else rows_out[count - 1])
    return count, known


@inner_kernel
def _keep_alike(t, rows_inout, count, own):
    """Keep of rows those whose units are the same goods as those of line `own`; returns how many."""
    kept = 0
    for k in range(count):
        if has_same_pieces(t, rows_inout[k], own):
            rows_inout[kept] = rows_inout[k]
            kept += 1
    return kept


@inner_kernel
def _list_shipment(t, order_row, sequence, number, rows_out):
    """List the lines of an order's shipment."""
    count = 0
    row = t.orders[order_row].first_line
    while row >= 0:
        if _is_of(t.lines[row], sequence, number):
            rows_out[count] = row
            count += 1
        row = t.lines[row].next
    return count


@inner_kernel
def _units_left(t, row, location, kind):
    """Units of a shipment's line that an event without lines is about, but for those given back."""
    line = t.lines[row]
    if kind == Kind.RETURNED:
        return np.int64(line.shipped - line.returned)
    units = open_units(line)
    if kind == Kind.REJECTED:
        return units
    if line.shipment_kind == ShipmentKind.TRANSFER and kind == Kind.SHIPPED:
        return units + line.implied
    if line.shipment_kind == ShipmentKind.SHIP:
        return units
    units += max(line.rung, 0)
    return units + line.shipped - line.collected if _arrives(t, line, location, kind) else units


@inner_kernel
def _put_units(t, order_row, location, kind, sequence, number, work):
    """Put the lines and units that an event without lines is about into work: (their count, a reason or 0)."""
    n = 0
    if order_row >= 0:
        n = _list_shipment(t, order_row, sequence, number, work.rows)
    if n == 0:
        return 0, DeadLetter.UNKNOWN_ORDER if order_row < 0 else DeadLetter.UNKNOWN_SHIPMENT
    total = np.int64(0)
    shipped = False
    for k in range(n):
        work.units[k] = _units_left(t, work.rows[k], location, kind)
        total += work.units[k]
        shipped |= t.lines[work.rows[k]].shipped > 0
    if total == 0 and not shipped and (kind == Kind.SHIPPED or kind == Kind.COLLECTED):
        for k in range(n):
            work.units[k] = t.lines[work.rows[k]].released
            total += work.units[k]
    if total == 0:
        return 0, DeadLetter.NOT_SHIPPED if kind == Kind.RETURNED and not shipped else DeadLetter.SHIPMENT_CLOSED
    return n, 0


@inner_kernel
def _check_lines(t, order_row, location, event, lines, buffer, sequence, number, sign, work):
    """Check that each line of a fact says what moved (0), and that there is room: of units (1), SKUs (2), cells (3)."""
    for rule in range(4):
        work.new[0] = 0
        for i in range(event.first_line, event.first_line + event.line_count):
            asked = lines[i]
            n = 0
            known = False
            if order_row >= 0:
                n, known = _find_lines(t, order_row, asked, buffer, sequence, number, work.rows)
            if known and n == 0:
                continue
            if not known and asked.sku_size == 0:
                return DeadLetter.UNKNOWN_ORDER if order_row < 0 else DeadLetter.UNKNOWN_LINE
            if rule == 0:
                continue
            units = sign * np.int64(asked.quantity)
            at, size, time = asked.sku_at, asked.sku_size, event.event_time
            if known and line_lacks_room(t, work.rows[0], location, units, time, rule, work.new):
                return reason_of(rule)
            if not known and sku_lacks_room(t, buffer, at, size, location, units, time, rule, work.new):
                return reason_of(rule)
    return 0


@inner_kernel
def _depart(t, row, units, location, event_time, event_row):
    """Units of a promise leave a location, be it the one they were promised at or another."""
    line = t.lines[row]
    if location == line.location:
        move_line(t, row, location, -units, -units, event_time, event_row)
    else:
        reserve_line(t, row, -units, event_row)
        move_line(t, row, location, -units, 0, event_time, event_row)
        tell_line(t, row, location, AlertKind.SHIPPED_FROM_ELSEWHERE.value, units, event_row)
    line.shipped += units
    settle_line(t, row)


@inner_kernel
def _want_less(t, order_row, root, units, sequence, number, event_row):
    """Take units of a line that left unexpectedly off what its order still wants; whether there was anything to take."""
    taken = False
    row = t.orders[order_row].first_line
    while row >= 0 and units > 0:
        if t.lines[row].root == root:
            less = min(units, waiting_units(t.lines[row]))
            if less > 0:
                unwant(t, row, less, event_row)
                units -= less
                taken = True
        row = t.lines[row].next
    while units > 0:
        newest = np.int32(-1)
        row = t.orders[order_row].first_line
        while row >= 0:
            line = t.lines[row]
            other = line.root == root and open_units(line) > 0 and not _is_of(line, sequence, number)
            if other and (newest < 0 or line.shipment_sequence >= t.lines[newest].shipment_sequence):
                newest = row
            row = line.next
        if newest < 0:
            break
        less = min(units, open_units(t.lines[newest]))
        unwant(t, newest, less, event_row)
        units -= less
        taken = True
    return taken


@inner_kernel
def _confirm(t, row, units, sign, location, kind):
    """Step 0: take units that were told before, by a till or by the other event; returns how many."""
    line = t.lines[row]
    told = np.int64(0)
    if line.shipment_kind == ShipmentKind.TRANSFER and kind == Kind.SHIPPED:
        told = min(units, np.int64(line.implied))
        line.implied -= told
    elif line.shipment_kind != ShipmentKind.SHIP:
        told = min(units, max(np.int64(sign * line.rung), np.int64(0)))
        line.rung -= sign * told
    if told > 0:
        mark(t.journal, t.counters, LINES, line, row)
    return told


@inner_kernel
def _hand_over(t, row, units, sign):
    """Step 1: take units that a transfer brought, and that nobody has collected; returns how many."""
    line = t.lines[row]
    taken = min(units, np.int64(line.shipped - line.collected))
    if taken > 0:
        line.collected += taken
        line.rung -= sign * taken
        mark(t.journal, t.counters, LINES, line, row)
    return taken


@inner_kernel
def _note_gone(t, row, units, sign, location, kind):
    """Note of units that left what the counterpart event (of the till, or of the transfer) is yet to confirm."""
    line = t.lines[row]
    arrives = _arrives(t, line, location, kind)
    if arrives:
        line.collected += units
        line.implied += units
    if arrives or line.shipment_kind == ShipmentKind.PICKUP:
        line.rung -= sign * units


@inner_kernel
def _send_open(t, row, units, sign, location, event, event_row):
    """Steps 1 and 3: take promised units; returns how many."""
    line = t.lines[row]
    taken = min(units, open_units(line))
    if taken > 0:
        _note_gone(t, row, taken, sign, location, event.kind)
        left_at = line.location if _arrives(t, line, location, event.kind) else location
        _depart(t, row, taken, left_at, event.event_time, event_row)
    return taken


@inner_kernel
def _send_released(t, row, units, sign, location, event, event_row):
    """Step 2: take units that were given back, and left all the same: (how many, whether the order wants less of others)."""
    line = t.lines[row]
    taken = min(units, np.int64(line.released))
    if taken <= 0:
        return np.int64(0), False
    left_at = line.location if _arrives(t, line, location, event.kind) else location
    found = min(taken, np.int64(line.missing)) if left_at == line.location else np.int64(0)
    line.released -= taken
    line.missing = min(line.missing - found, line.released)
    line.quantity += taken
    line.shipped += taken
    _note_gone(t, row, taken, sign, location, event.kind)
    settle_line(t, row)
    if taken > found:
        move_line(t, row, left_at, found - taken, 0, event.event_time, event_row)
    tell_line(t, row, left_at, AlertKind.SHIPPED_AFTER_CLOSE.value, taken, event_row)
    order_row, root = line.order, line.root
    return taken, _want_less(t, order_row, root, taken, line.shipment_sequence, line.shipment_number, event_row)


@inner_kernel
def _send_waiting(t, row, units, location, event, event_row):
    """Step 3: take units that wait for a promise; returns how many."""
    taken = min(units, waiting_units(t.lines[row]))
    if taken <= 0:
        return np.int64(0)
    if taken < t.lines[row].quantity:
        t.lines[row].quantity -= taken
        mark(t.journal, t.counters, LINES, t.lines[row], row)
        row = add_part(t, row, taken, ADDED)
    line = t.lines[row]
    line.shipped = taken
    settle_line(t, row)
    line.location = location
    move_line(t, row, location, -taken, 0, event.event_time, event_row)
    tell_line(t, row, location, AlertKind.SHIPPED_UNPROMISED.value, taken, event_row)
    return taken


@inner_kernel
def _send_beyond(t, n, units, location, event, event_row, sequence, number, work):
    """Step 4: take units that nobody asked for; the shipment's first line has them."""
    move_line(t, work.rows[0], location, -units, 0, event.event_time, event_row)
    tell_line(t, work.rows[0], location, AlertKind.OVER_SHIPPED.value, units, event_row)
    for k in range(n):
        line = t.lines[work.rows[k]]
        if _is_of(line, sequence, number):
            line.quantity += units
            line.shipped += units
            _note_gone(t, work.rows[k], units, 1, location, event.kind)
            settle_line(t, work.rows[k])
            return


@inner_kernel
def _send(t, n, units, location, event, event_row, sequence, number, work):
    """Units left a location; they are looked for among work.rows[:n], the order's lines that they may be of.

    Returns whether what the order waits for, or is promised elsewhere, has changed.
    """
    changed = False
    kind = event.kind
    for k in range(n):
        if _is_of(t.lines[work.rows[k]], sequence, number):
            units -= _confirm(t, work.rows[k], units, 1, location, kind)
    for k in range(n):
        row = work.rows[k]
        if _is_of(t.lines[row], sequence, number):
            if _arrives(t, t.lines[row], location, kind):
                units -= _hand_over(t, row, units, 1)
            units -= _send_open(t, row, units, 1, location, event, event_row)
    for k in range(n):
        if _is_of(t.lines[work.rows[k]], sequence, number):
            taken, less = _send_released(t, work.rows[k], units, 1, location, event, event_row)
            units -= taken
            changed |= less
    for k in range(n):
        row = work.rows[k]
        if not _is_of(t.lines[row], sequence, number):
            if _arrives(t, t.lines[row], location, kind):
                units -= _hand_over(t, row, units, 1)
            taken = _send_open(t, row, units, 1, location, event, event_row)
            units -= taken
            changed |= taken > 0
    for k in range(n):
        taken = _send_waiting(t, work.rows[k], units, location, event, event_row)
        units -= taken
        changed |= taken > 0
    if units > 0:
        _send_beyond(t, n, units, location, event, event_row, sequence, number, work)
    return changed


@inner_kernel
def _ring(t, n, units, location, event, event_row, work):
    """A till sold units; they are looked for among work.rows[:n], the lines of a pickup order.

    What is, or was, promised at the till's location comes before what a transfer has yet to bring: (units that are none of the
    order's, whether what it waits for has changed).
    """
    changed = False
    for k in range(n):
        units -= _confirm(t, work.rows[k], units, -1, location, event.kind)
    for brought in range(2):  # at the location, then on the way
        for k in range(n):
            row = work.rows[k]
            transfer = t.lines[row].shipment_kind == ShipmentKind.TRANSFER
            if brought == 0 and transfer:
                units -= _hand_over(t, row, units, -1)
            elif transfer == (brought == 1):
                units -= _send_open(t, row, units, -1, location, event, event_row)
        for k in range(n):
            if (t.lines[work.rows[k]].shipment_kind == ShipmentKind.TRANSFER) == (brought == 1):
                taken, less = _send_released(t, work.rows[k], units, -1, location, event, event_row)
                units -= taken
                changed |= less
    return units, changed


@inner_kernel
def _take_back(t, n, units, location, event, event_row, sequence, number, work):
    """Units came back to a location; they are looked for among work.rows[:n]."""
    move_line(t, work.rows[0], location, units, 0, event.event_time, event_row)
    for others in range(2):
        for k in range(n):
            line = t.lines[work.rows[k]]
            if _is_of(line, sequence, number) == (others == 0):
                taken = min(units, np.int64(line.shipped - line.returned))
                if taken > 0:
                    line.returned += taken
                    units -= taken
                    mark(t.journal, t.counters, LINES, line, work.rows[k])
    if units > 0:
        tell_line(t, work.rows[0], location, AlertKind.OVER_RETURNED.value, units, event_row)


@inner_kernel
def _move_unknown(t, asked, buffer, location, event, event_row):
    """Goods that nobody knows left a location, or came back to one."""
    units, kind = -np.int64(asked.quantity), AlertKind.SHIPPED_UNKNOWN.value
    if event.kind == Kind.RETURNED:
        units, kind = -units, AlertKind.OVER_RETURNED.value
    move_unknown(t, buffer, asked.sku_at, asked.sku_size, location, units, kind, event.event_time, event_row)


@inner_kernel
def _concluded(t, order_row, changed):
    """Close an order that has nothing open any more; what the handler of a fact returns."""
    if t.orders[order_row].state == OPEN and not is_open(t, order_row):
        close_order(t, order_row, CLOSED)
    return 0, order_row if changed else NO_ORDER, 0


@inner_kernel
def apply_fact(t, event, event_row, lines, buffer, work, tag):
    """Apply `shipped`, `collected` or `returned`."""
    location = find_location(t, buffer, event.location_at, event.location_size)
    if location < 0:
        return DeadLetter.UNKNOWN_LOCATION, NO_ORDER, 0
    order_row = find_order(t, buffer, event.reference_at, event.reference_size)
    sequence, number = shipment_of(buffer, event.shipment_at, event.shipment_size, tag)
    back = event.kind == Kind.RETURNED
    changed = False
    if order_row < 0 and event.line_count == 0:
        return DeadLetter.UNKNOWN_ORDER, NO_ORDER, 0
    if event.flags & c.HAS_LINES == 0:
        n, reason = _put_units(t, order_row, location, event.kind, sequence, number, work)
        if reason:
            return reason, NO_ORDER, 0
        for rule in RULES:
            work.new[0] = 0
            for k in range(n):
                if work.units[k] > 0:
                    units = np.int64(work.units[k]) if back else -np.int64(work.units[k])
                    if line_lacks_room(t, work.rows[k], location, units, event.event_time, rule, work.new):
                        return reason_of(rule), NO_ORDER, 0
        for k in range(n):
            work.shipments[k] = work.rows[k]
        for k in range(n):
            units = np.int64(work.units[k])
            if units > 0:
                work.rows[0] = work.shipments[k]
                if back:
                    _take_back(t, 1, units, location, event, event_row, sequence, number, work)
                else:
                    changed |= _send(t, 1, units, location, event, event_row, sequence, number, work)
        return _concluded(t, order_row, changed)
    sign = 1 if back else -1
    reason = _check_lines(t, order_row, location, event, lines, buffer, sequence, number, sign, work)
    if reason:
        return reason, NO_ORDER, 0
    for i in range(event.first_line, event.first_line + event.line_count):
        asked = lines[i]
        n = 0
        known = False
        if order_row >= 0:
            n, known = _find_lines(t, order_row, asked, buffer, sequence, number, work.rows)
        if not known:
            _move_unknown(t, asked, buffer, location, event, event_row)
        elif n > 0 and back:
            _take_back(t, n, np.int64(asked.quantity), location, event, event_row, sequence, number, work)
        elif n > 0:
            units = np.int64(asked.quantity)
            changed |= _send(t, n, units, location, event, event_row, sequence, number, work)
    return _concluded(t, order_row, changed) if order_row >= 0 else (0, NO_ORDER, 0)


@inner_kernel
def ring_up(t, event, event_row, buffer, work):
    """Apply a sale of a pickup order's goods: (whether it is one, reason, order, status); what is beyond the order is sold."""
    order_row = find_order(t, buffer, event.reference_at, event.reference_size)
    if order_row < 0:
        return False, 0, NO_ORDER, 0
    order = t.orders[order_row]
    location = find_location(t, buffer, event.location_at, event.location_size)
    sku = find_sku(t, buffer, event.sku_at, event.sku_size)
    if order.flags & c.PICKUP == 0 or location < 0 or location != order.pickup_location or sku < 0:
        return False, 0, NO_ORDER, 0
    n = 0
    room = np.int64(0)
    own = np.int32(-1)
    row = order.first_line
    while row >= 0:
        line = t.lines[row]
        id_at = order.id_at + line.id_at
        named = event.shipment_size == 0 or same_text(
            t.heap, id_at, line.id_size, buffer, event.shipment_at, event.shipment_size
        )
        if line.sku == sku and named and line.state != CARRIED:
            work.rows[n] = row
            n += 1
            room += max(-line.rung, 0) + open_units(line) + line.released
            if line.shipment_kind == ShipmentKind.TRANSFER:
                room += line.shipped - line.collected
            if own < 0 and room > 0:
                own = row
        row = line.next
    if room == 0:
        return False, 0, NO_ORDER, 0
    n = _keep_alike(t, work.rows, n, own)
    units = np.int64(event.quantity)
    for rule in RULES:
        work.new[0] = 0
        if line_lacks_room(t, own, location, -units, event.event_time, rule, work.new):
            return True, reason_of(rule), NO_ORDER, 0
    rest, changed = _ring(t, n, units, location, event, event_row, work)
    if rest > 0:
        move_line(t, own, location, -rest, 0, event.event_time, event_row)
    reason, order_row, status = _concluded(t, order_row, changed)
    return True, reason, order_row, status


@inner_kernel
def reject(t, event, event_row, lines, buffer, work, tag):
    """Apply `rejected`: give promises back to a location that can't keep them; the units are open again."""
    order_row = find_order(t, buffer, event.reference_at, event.reference_size)
    if order_row < 0:
        return DeadLetter.UNKNOWN_ORDER, NO_ORDER, 0
    location = find_location(t, buffer, event.location_at, event.location_size)
    if location < 0:
        return DeadLetter.UNKNOWN_LOCATION, NO_ORDER, 0
    sequence, number = shipment_of(buffer, event.shipment_at, event.shipment_size, tag)
    n = _list_shipment(t, order_row, sequence, number, work.rows)
    if n == 0:
        return DeadLetter.UNKNOWN_SHIPMENT, NO_ORDER, 0
    if t.lines[work.rows[0]].location != location:
        return DeadLetter.WRONG_LOCATION, NO_ORDER, 0
    missing = event.flags & c.MISSING != 0
    for k in range(n):
        work.units[k] = 0  # of what is promised
        work.shipments[k] = 0  # of what was given back
    if event.flags & c.HAS_LINES == 0:
        total = np.int64(0)
        for k in range(n):
            work.units[k] = open_units(t.lines[work.rows[k]])
            total += work.units[k]
        for k in range(n):
            if total == 0:
                work.shipments[k] = _spare_units(t, work.rows[k], location, missing)
    for i in range(event.first_line, event.first_line + event.line_count):
        wanted = np.int64(lines[i].quantity)
        sku = find_sku(t, buffer, lines[i].sku_at, lines[i].sku_size) if lines[i].sku_size > 0 else np.int32(-1)
        known = False
        for spare in range(2):
            for k in range(n):
                row = work.rows[k]
                named = lines[i].line_id_size > 0
                if is_named(t, order_row, row, lines[i], buffer) if named else t.lines[row].sku == sku:
                    known = True
                    if spare:
                        taken = min(wanted, _spare_units(t, row, location, missing) - work.shipments[k])
                        work.shipments[k] += taken
                    else:
                        taken = min(wanted, open_units(t.lines[row]) - work.units[k])
                        work.units[k] += taken
                    wanted -= taken
        if not known:
            return DeadLetter.UNKNOWN_LINE, NO_ORDER, 0
    promised = np.int64(0)
    total = np.int64(0)
    for k in range(n):
        row = work.rows[k]
        promised += work.units[k]
        total += work.units[k] + work.shipments[k]
        if 0 < work.units[k] < t.lines[row].quantity and not has_room_for_part(t, row):
            return DeadLetter.TOO_MANY_LINES, NO_ORDER, 0
    if total == 0:
        return DeadLetter.SHIPMENT_CLOSED, NO_ORDER, 0
    for k in range(n):
        row = work.rows[k]
        units = np.int64(work.units[k])
        gone = units + work.shipments[k]
        if gone == 0:
            continue
        line = t.lines[row]
        if not _has_refused(t, order_row, line.root, location):
            refuse(t, order_row, line.root, location)
        if units > 0:
            want_again(t, row, units, event_row)
        if missing:
            if line.state != ADDED:
                line.missing += gone
                mark(t.journal, t.counters, LINES, line, row)
            move_line(t, row, location, -gone, 0, event.event_time, event_row)
    return 0, order_row if promised > 0 else NO_ORDER, 0


@inner_kernel
def _has_refused(t, order_row, root, location):
    """Whether a location rejected a line before."""
    row = t.orders[order_row].refusal
    while row >= 0:
        if t.refusals[row].root == root and t.refusals[row].location == location:
            return True
        row = t.refusals[row].next
    return False


@inner_kernel
def _spare_units(t, row, location, missing):
    """Units that a line's shipment gave back, and that a rejection says something new of: that they are missing, or refused."""
    line = t.lines[row]
    if not missing and _has_refused(t, line.order, line.root, location):
        return np.int64(0)
    return max(np.int64(line.released - line.missing), np.int64(0))
