"""Events of orders.v1: placed, held, changed, cancelled.

A handler checks everything first and changes something only if all is well. It returns (reason, order, status). The reason is
0, or the reasons.DeadLetter for which the event is refused, having changed nothing. The order, -1 for none, gets a decision:
one that says `status`, or, if that is 0, whatever routing it brings.
Owner: apply.py. Not here: dedupe, the clock (apply.py); routing and writing the decision (waiting.py, decide.py).
"""

import math

import numpy as np

from state.columns import ADDED, CARRIED, CLOSED, DROPPED, EXPIRED, HELD, OPEN, PICKS_UP
from state.hashing import same_text
from state.orders import (
    MAX_ORDER_PARTS,
    add_kit,
    add_line,
    add_order,
    add_part,
    close_order,
    count_kept_lines,
    enlarge_text,
    find_order,
    open_units,
    push_hold,
    unwant,
    unwant_line,
    waiting_units,
)
from state.stock import find_kit, find_location, find_sku, sku_row
from state.tables import LINES, MAX_LINES, MAX_SKUS, MAX_UNITS, MOST_PIECES, ORDERS, mark
from state.text import copy_text, touch_text
from streams.inventory.decide import is_open, status_of
from streams.routing.distance import metres, squared_chord
from topics import columns as c
from topics.compiled.kernels import inner_kernel
from topics.reasons import DeadLetter, Kind, Status, Unallocated

NO_ORDER = np.int32(-1)
_GIVEN_ALL = np.int64(c.GIVEN_MODE | c.GIVEN_DESTINATION | c.GIVEN_PICKUP | c.GIVEN_LEVEL | c.GIVEN_SPLIT | c.GIVEN_PARTIAL)


@inner_kernel
def place_order(t, event, event_row, lines, buffer, work):
    """Apply `placed` or `held`: make the order, which is then to be routed, confirm its hold, or change it."""
    held = event.kind == Kind.HELD
    flags = event.flags & (c.ALLOW_SPLIT | c.ALLOW_PARTIAL | c.PICKUP | c.URGENT)
    x, y, z = _destination(event)
    pickup = np.int32(-1)
    picks_up = True
    if flags & c.PICKUP:
        x, y, z = 0.0, 0.0, 0.0
        pickup = find_location(t, buffer, event.location_at, event.location_size)
        picks_up = pickup >= 0 and t.locations[pickup].flags & PICKS_UP != 0
    age = np.int64(0)
    former = find_order(t, buffer, event.reference_at, event.reference_size)
    if former >= 0:
        order = t.orders[former]
        if order.state in (OPEN, CLOSED) or (order.state == EXPIRED and _has_shipped(t, former)):
            return DeadLetter.ORDER_EXISTS, NO_ORDER, 0
        if order.state == HELD:
            same = _same_order(t, former, event, lines, buffer, flags, pickup, x, y, z)
            if not same and picks_up:
                reason = _change(t, former, event, event_row, lines, buffer, _GIVEN_ALL, work)
                if reason:
                    return reason, NO_ORDER, 0
            if same or picks_up:
                if held:
                    if order.expires_at != event.time:
                        _hold_until(t, former, event.time)
                    return 0, former, Status.HELD if same else 0
                order.state = OPEN
                t.pool[0].held_orders -= 1
                mark(t.journal, t.counters, ORDERS, order, former)
                return _after_change(t, former, same)
            age = order.age
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
    if not picks_up:
        _refuse_pickup(t, row, Unallocated.UNKNOWN_LOCATION if pickup < 0 else Unallocated.NO_PICKUP)
        return 0, row, Status.REJECTED
    if held:
        order.state = HELD
        t.pool[0].held_orders += 1
        _hold_until(t, row, event.time)
        return 0, row, 0
    return _after_change(t, row, False)


@inner_kernel
def _hold_until(t, order_row, time):
    """Let a hold expire at a time (epoch ms)."""
    order = t.orders[order_row]
    order.expires_at = time
    mark(t.journal, t.counters, ORDERS, order, order_row)
    push_hold(t, order_row)


@inner_kernel
def _after_change(t, order_row, decided):
    """Close an order that has nothing open any more; what the handler returns. `decided`: it is not routed."""
    order = t.orders[order_row]
    status = status_of(t, order_row) if decided else 0
    if order.state == OPEN and not is_open(t, order_row):
        close_order(t, order_row, CLOSED)
    return 0, order_row, status


@inner_kernel
def _has_shipped(t, order_row):
    """Whether units of an order were shipped."""
    row = t.orders[order_row].first_line
    while row >= 0:
        if t.lines[row].shipped > 0:
            return True
        row = t.lines[row].next
    return False


@inner_kernel
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
        if (line.state == CARRIED) != (asked.flags & c.UNSTOCKED != 0):
            return False
        units = np.int64(0)
        root = row
        while row >= 0 and t.lines[row].root == root:
            units += t.lines[row].quantity
            row = t.lines[row].next
        if units != asked.quantity:
            return False
    return row < 0


@inner_kernel
def drop_order(t, order_row, state, event_row):
    """Give back all that an order still holds or waits for, and close it."""
    row = t.orders[order_row].first_line
    while row >= 0:
        unwant_line(t, row, event_row)
        row = t.lines[row].next
    close_order(t, order_row, state)


@inner_kernel
def _destination(event):
    phi = math.radians(event.latitude)
    theta = math.radians(event.longitude)
    return math.cos(phi) * math.cos(theta), math.cos(phi) * math.sin(theta), math.sin(phi)


@inner_kernel
def _write_lines(t, order_row, event, lines, buffer):
    """Make the order's lines, and keep their ids behind the order's own."""
    order = t.orders[order_row]
    at = np.int64(order.id_size)
    previous = np.int32(-1)
    for i in range(event.first_line, event.first_line + event.line_count):
        asked = lines[i]
        previous = _write_line(t, order_row, previous, asked, buffer, at)
        at += asked.line_id_size
    touch_text(t.page_dirty, t.journal, t.counters, order.id_at, order.text_size)


@inner_kernel
def _write_line(t, order_row, previous, asked, buffer, at):
    """Make a line that is asked for, and its parts if its SKU is a kit now; its id stands at `at` of the order's text."""
    copy_text(t.heap, t.orders[order_row].id_at + at, buffer, asked.line_id_at, asked.line_id_size)
    sku = sku_row(t, buffer, asked.sku_at, asked.sku_size)
    row = add_line(t, order_row, previous, sku, asked.quantity, at, asked.line_id_size)
    if asked.flags & c.UNSTOCKED:
        t.lines[row].state = CARRIED
        return row
    kit = find_kit(t, buffer, asked.sku_at, asked.sku_size)
    if kit >= 0:
        add_kit(t, row, kit)
    return row


@inner_kernel
def _refuse_pickup(t, order_row, reason):
    """Close an order that can never be met: its pickup location is none."""
    row = t.orders[order_row].first_line
    while row >= 0:
        if t.lines[row].state != CARRIED:
            t.lines[row].reason = reason
            t.lines[row].state = DROPPED
        row = t.lines[row].next
    close_order(t, order_row, EXPIRED)


@inner_kernel
def _lacks_order_room(t, event, lines, buffer):
    """Why the pool has no room for an order's lines or their SKUs; 0 = it has."""
    pool = t.pool[0]
    if pool.sku_count + event.line_count * (1 + t.counters[MOST_PIECES]) > t.limits[MAX_SKUS]:
        unknown = 0
        for i in range(event.first_line, event.first_line + event.line_count):
            unknown += _new_skus(t, lines[i], buffer)
        if pool.sku_count + unknown > t.limits[MAX_SKUS]:
            return DeadLetter.TOO_MANY_SKUS
    most = t.limits[MAX_LINES] - event.line_count
    if pool.kept_lines > most and count_kept_lines(t) > most:
        return DeadLetter.TOO_MANY_LINES
    return 0


@inner_kernel
def _new_skus(t, asked, buffer):
    """Count the SKUs that a line of an order names, itself or by its kit, and that have no row yet."""
    unknown = 0
    unknown += find_sku(t, buffer, asked.sku_at, asked.sku_size) < 0
    kit = np.int32(-1) if asked.flags & c.UNSTOCKED else find_kit(t, buffer, asked.sku_at, asked.sku_size)
    row = np.int32(-1)
    if kit >= 0:
        row = t.kits[kit].first_part
    while row >= 0:
        part = t.kit_parts[row]
        unknown += find_sku(t, t.heap, part.id_at, part.id_size) < 0
        row = part.next
    return unknown


@inner_kernel
def is_named(t, order_row, row, asked, buffer):
    """Whether an order's line row has the line id that a line of an event names."""
    line = t.lines[row]
    at = t.orders[order_row].id_at + line.id_at
    return same_text(t.heap, at, line.id_size, buffer, asked.line_id_at, asked.line_id_size)


@inner_kernel
def cancel_order(t, event, event_row, lines, buffer, work):
    """Apply `cancelled`: give back every unshipped unit of the order, or of the lines named, or so many of each."""
    row = find_order(t, buffer, event.reference_at, event.reference_size)
    if row < 0:
        return DeadLetter.UNKNOWN_ORDER, NO_ORDER, 0
    if t.orders[row].state != OPEN and t.orders[row].state != HELD:
        return DeadLetter.ORDER_CLOSED, NO_ORDER, 0
    total = np.int64(0)
    for i in range(event.first_line, event.first_line + event.line_count):
        known = False
        line = t.orders[row].first_line
        while line >= 0:
            if is_named(t, row, line, lines[i], buffer):
                known = True
                total += open_units(t.lines[line]) + waiting_units(t.lines[line])
            line = t.lines[line].next
        if not known:
            return DeadLetter.UNKNOWN_LINE, NO_ORDER, 0
    if event.flags & c.HAS_LINES == 0:
        line = t.orders[row].first_line
        while line >= 0:
            total += open_units(t.lines[line]) + waiting_units(t.lines[line])
            line = t.lines[line].next
    if total == 0:
        return DeadLetter.ORDER_CLOSED, NO_ORDER, 0
    if event.flags & c.HAS_LINES == 0:
        line = t.orders[row].first_line
        while line >= 0:
            unwant_line(t, line, event_row)
            line = t.lines[line].next
    for i in range(event.first_line, event.first_line + event.line_count):
        units = np.int64(lines[i].quantity) if lines[i].quantity > 0 else np.int64(MAX_UNITS)
        for open_too in range(2):  # what waits goes first
            line = t.orders[row].first_line
            while line >= 0 and units > 0:
                if is_named(t, row, line, lines[i], buffer):
                    of_line = open_units(t.lines[line]) if open_too else waiting_units(t.lines[line])
                    less = min(units, of_line)
                    if less > 0:
                        unwant(t, line, less, event_row)
                        units -= less
                line = t.lines[line].next
    if is_open(t, row):
        return 0, row, 0  # what is left may now go where the whole could not
    close_order(t, row, CLOSED)
    return 0, row, Status.CLOSED_SHORT if _has_shipped(t, row) else Status.CANCELLED


@inner_kernel
def change_order(t, event, event_row, lines, buffer, work):
    """Apply `changed`: the order is another from now on; its age, and the promises that still fit, stay."""
    row = find_order(t, buffer, event.reference_at, event.reference_size)
    if row < 0:
        return DeadLetter.UNKNOWN_ORDER, NO_ORDER, 0
    if t.orders[row].state != OPEN and t.orders[row].state != HELD:
        return DeadLetter.ORDER_CLOSED, NO_ORDER, 0
    reason = _change(t, row, event, event_row, lines, buffer, np.int64(event.given), work)
    if reason:
        return reason, NO_ORDER, 0
    return _after_change(t, row, False)


@inner_kernel
def _is_asked(t, order_row, row, asked, buffer):
    """Whether a line of an event is an order's line: id, SKU, stocked or not."""
    line = t.lines[row]
    sku = t.skus[line.sku]
    return (
        (line.state == CARRIED) == (asked.flags & c.UNSTOCKED != 0)
        and same_text(t.heap, sku.id_at, sku.id_size, buffer, asked.sku_at, asked.sku_size)
        and is_named(t, order_row, row, asked, buffer)
    )


@inner_kernel
def _find_asked(t, order_row, row, event, lines, buffer):
    """Find the line of an event that asks for an order's line; -1 = none."""
    for i in range(event.first_line, event.first_line + event.line_count):
        if _is_asked(t, order_row, row, lines[i], buffer):
            return i
    return -1


@inner_kernel
def _fits_what_shipped(t, order_row, event, lines, buffer):
    """Whether a changed order still has all that was shipped of it."""
    row = t.orders[order_row].first_line
    while row >= 0:
        if t.lines[row].shipped > 0:
            asked = _find_asked(t, order_row, row, event, lines, buffer)
            if asked < 0:
                return False
            shipped = np.int64(0)
            other = t.orders[order_row].first_line
            while other >= 0:
                if t.lines[other].shipped > 0 and _is_asked(t, order_row, other, lines[asked], buffer):
                    shipped += t.lines[other].shipped
                other = t.lines[other].next
            if lines[asked].quantity < shipped:
                return False
        row = t.lines[row].next
    return True


@inner_kernel
def _change(t, order_row, event, event_row, lines, buffer, given, work):
    """Make an order what an event says it shall be; `given`: what of it the event says. A reason or 0."""
    order = t.orders[order_row]
    if order.line_count >= MAX_ORDER_PARTS:
        return DeadLetter.TOO_MANY_LINES
    flags = np.int64(order.flags)
    for bit, flag in ((c.GIVEN_MODE, c.PICKUP), (c.GIVEN_LEVEL, c.URGENT), (c.GIVEN_SPLIT, c.ALLOW_SPLIT)):
        if given & bit:
            flags = flags & ~flag | event.flags & flag
    if given & c.GIVEN_PARTIAL:
        flags = flags & ~c.ALLOW_PARTIAL | event.flags & c.ALLOW_PARTIAL
    x, y, z, pickup = order.x, order.y, order.z, order.pickup_location
    if flags & c.PICKUP:
        if given & c.GIVEN_PICKUP:
            pickup = find_location(t, buffer, event.location_at, event.location_size)
            if pickup < 0 or t.locations[pickup].flags & PICKS_UP == 0:
                return DeadLetter.UNKNOWN_LOCATION
        x, y, z = 0.0, 0.0, 0.0
    else:
        if given & c.GIVEN_DESTINATION:
            x, y, z = _destination(event)
        pickup = np.int32(-1)
    if event.flags & c.HAS_LINES:
        if not _fits_what_shipped(t, order_row, event, lines, buffer):
            return DeadLetter.EXCEEDS_SHIPPED
        full = _lacks_order_room(t, event, lines, buffer)
        if full:
            return full
    fits = pickup == order.pickup_location and (flags ^ order.flags) & c.PICKUP == 0
    moved = x != order.x or y != order.y or z != order.z
    order.flags = flags
    order.x, order.y, order.z = x, y, z
    order.pickup_location = pickup
    mark(t.journal, t.counters, ORDERS, order, order_row)
    for k in range(event.line_count):
        work.shipments[k] = 0
    row = order.first_line
    while row >= 0:
        following = t.lines[row].next
        if t.lines[row].root == row:
            asked = _find_asked(t, order_row, row, event, lines, buffer)
            if event.flags & c.HAS_LINES == 0:
                _resize(t, row, _quantity_of(t, row), fits, event_row)
            elif asked < 0:
                _drop_root(t, row, event_row)
            elif work.shipments[asked - event.first_line] == 0:
                work.shipments[asked - event.first_line] = 1
                _resize(t, row, np.int64(lines[asked].quantity), fits, event_row)
            while following >= 0 and t.lines[following].root == row:
                following = t.lines[following].next
        row = following
    _add_lines(t, order_row, event, lines, buffer, work)
    if moved and fits:
        row = order.first_line
        while row >= 0:
            line = t.lines[row]
            if open_units(line) > 0:
                chord2 = squared_chord(t.locations[line.location], x, y, z)
                line.distance_m = np.int32(round(metres(chord2)))
                mark(t.journal, t.counters, LINES, line, row)
            row = line.next
    return 0


@inner_kernel
def _quantity_of(t, root):
    """Units that an order asks for of a line, over all its parts."""
    units = np.int64(0)
    row = root
    while row >= 0 and t.lines[row].root == root:
        units += t.lines[row].quantity
        row = t.lines[row].next
    return units


@inner_kernel
def _drop_root(t, root, event_row):
    """Take a line out of an order, with all its parts."""
    row = root
    while row >= 0 and t.lines[row].root == root:
        unwant_line(t, row, event_row)
        if t.lines[row].state == CARRIED:
            t.lines[row].quantity = 0
            mark(t.journal, t.counters, LINES, t.lines[row], row)
        row = t.lines[row].next


@inner_kernel
def _resize(t, root, quantity, fits, event_row):
    """Ask for so many units of a line. Its promises stay as far as they fit; what is more is to be routed anew, whole."""
    if t.lines[root].state == CARRIED:
        t.lines[root].quantity = quantity
        mark(t.journal, t.counters, LINES, t.lines[root], root)
        return
    excess = _quantity_of(t, root) - quantity
    if fits and excess == 0:
        return
    shipped = np.int64(0)
    last = root
    row = root
    while row >= 0 and t.lines[row].root == root:
        if not fits or excess < 0:
            unwant_line(t, row, event_row)
        elif waiting_units(t.lines[row]) > 0:
            less = min(excess, waiting_units(t.lines[row]))
            excess -= less
            if less > 0:
                unwant(t, row, less, event_row)
        shipped += t.lines[row].shipped
        last = row
        row = t.lines[row].next
    if not fits or excess < 0:
        if quantity > shipped:
            part = add_part(t, last, quantity - shipped, ADDED)
            t.lines[part].root = root
        return
    while excess > 0:
        last = np.int32(-1)
        row = root
        while row >= 0 and t.lines[row].root == root:
            if open_units(t.lines[row]) > 0:
                last = row
            row = t.lines[row].next
        less = min(excess, open_units(t.lines[last]))
        unwant(t, last, less, event_row)
        excess -= less


@inner_kernel
def _add_lines(t, order_row, event, lines, buffer, work):
    """Add to a changed order the lines that are new (work.shipments 0), in a larger block of text."""
    order = t.orders[order_row]
    more = np.int64(0)
    count = 0
    for k in range(event.line_count):
        if work.shipments[k] == 0:
            more += lines[event.first_line + k].line_id_size
            count += 1
    if count == 0:
        return
    at = np.int64(order.text_size)
    enlarge_text(t, order_row, more)
    previous = order.first_line
    while previous >= 0 and t.lines[previous].next >= 0:
        previous = t.lines[previous].next
    for k in range(event.line_count):
        if work.shipments[k] == 0:
            asked = lines[event.first_line + k]
            previous = _write_line(t, order_row, previous, asked, buffer, at)
            at += asked.line_id_size
    touch_text(t.page_dirty, t.journal, t.counters, order.id_at, order.text_size)
