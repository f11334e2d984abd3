"""What a fact moves at a location: units of an order's line, or of a SKU that it names and no line that is known.

Units of a kit move its parts: of a line the parts that it was promised as, of a SKU those of products.v1 now. A fact is checked
first, rule by rule, for all it would move; then all of it moves, in one event.
Owner: apply.py's handlers. Not here: which line a fact is about (fulfilments.py), events of stock.v1 (stock_events.py).
"""

import numpy as np

from state.alerts import raise_alert, tell
from state.index import find_cell
from state.orders import first_piece, next_piece, units_each
from state.stock import cell_row, find_kit, find_sku, is_counted, move_stock, sku_row, within_bounds
from state.tables import MAX_CELLS, MAX_SKUS
from topics.compiled.kernels import inner_kernel
from topics.reasons import AlertKind, AlertStatus, DeadLetter

RULES = (1, 2, 3)
"""What there must be room for: units at the cells (1), SKUs (2), cells (3)."""


@inner_kernel
def _lacks_room(t, sku, location, units, event_time, rule, new_inout):
    """Whether a rule forbids that signed units move at a cell; `new_inout` counts what would be new. `sku` -1: it would be."""
    row = find_cell(t.cell_index, t.cells, sku, location) if sku >= 0 else np.int32(-1)
    if rule == 1:
        on_hand = np.int64(0)
        if row >= 0:
            on_hand = np.int64(t.cells[row].on_hand)
        return not is_counted(t, row, event_time) and not within_bounds(on_hand + units)
    if rule == 2:
        new_inout[0] += sku < 0
        return t.pool[0].sku_count + new_inout[0] > t.limits[MAX_SKUS]
    new_inout[0] += row < 0
    return t.pool[0].cell_count + new_inout[0] > t.limits[MAX_CELLS]


@inner_kernel
def line_lacks_room(t, row, location, units, event_time, rule, new_inout):
    """Whether a rule forbids that signed units of a line move."""
    piece = first_piece(t, row)
    while piece >= 0:
        if _lacks_room(t, t.lines[piece].sku, location, units * units_each(t, piece), event_time, rule, new_inout):
            return True
        piece = next_piece(t, piece)
    return False


@inner_kernel
def sku_lacks_room(t, text, at, size, location, units, event_time, rule, new_inout):
    """Whether a rule forbids that signed units of a SKU move."""
    kit = find_kit(t, text, at, size)
    if kit < 0:
        return _lacks_room(t, find_sku(t, text, at, size), location, units, event_time, rule, new_inout)
    row = t.kits[kit].first_part
    while row >= 0:
        part = t.kit_parts[row]
        sku = find_sku(t, t.heap, part.id_at, part.id_size)
        if _lacks_room(t, sku, location, units * part.quantity, event_time, rule, new_inout):
            return True
        row = part.next
    return False


@inner_kernel
def reason_of(rule):
    """The reason to refuse an event that breaks a rule."""
    if rule == 1:
        return DeadLetter.OUT_OF_RANGE
    return DeadLetter.TOO_MANY_SKUS if rule == 2 else DeadLetter.TOO_MANY_CELLS


@inner_kernel
def move_line(t, row, location, units, reserved_units, event_time, event_row):
    """Move signed units of a line, and as many of its promise at this location."""
    piece = first_piece(t, row)
    while piece >= 0:
        each = units_each(t, piece)
        cell = cell_row(t, t.lines[piece].sku, location)
        move_stock(t, cell, units * each, reserved_units * each, event_time, event_row)
        piece = next_piece(t, piece)


@inner_kernel
def tell_line(t, row, location, kind, units, event_row):
    """Raise an alert of units of a line at its cells, which are there."""
    piece = first_piece(t, row)
    while piece >= 0:
        cell = find_cell(t.cell_index, t.cells, t.lines[piece].sku, location)
        raise_alert(t, cell, kind, event_row, units * units_each(t, piece), 0)
        piece = next_piece(t, piece)


@inner_kernel
def move_unknown(t, text, at, size, location, units, kind, event_time, event_row):
    """Move signed units of a SKU that are of no line, and raise an alert of that kind at their cells."""
    kit = find_kit(t, text, at, size)
    if kit < 0:
        _move_told(t, sku_row(t, text, at, size), location, units, kind, event_time, event_row)
        return
    row = t.kits[kit].first_part
    while row >= 0:
        part = t.kit_parts[row]
        sku = sku_row(t, t.heap, part.id_at, part.id_size)
        _move_told(t, sku, location, units * part.quantity, kind, event_time, event_row)
        row = part.next


@inner_kernel
def _move_told(t, sku, location, units, kind, event_time, event_row):
    cell = cell_row(t, sku, location)
    move_stock(t, cell, units, 0, event_time, event_row)
    raise_alert(t, cell, kind, event_row, abs(units), 0)


@inner_kernel
def move_kit(t, kit, location, units, event_time, event_row):
    """Move signed units of a kit (a row of `kits`) at a till; false = the last count of each part's cell has seen them."""
    moved = False
    row = t.kits[kit].first_part
    while row >= 0:
        part = t.kit_parts[row]
        sku = sku_row(t, t.heap, part.id_at, part.id_size)
        cell = cell_row(t, sku, location)
        if is_counted(t, cell, event_time):
            tell_late(t, cell, units * part.quantity, event_row)
        else:
            move_stock(t, cell, units * part.quantity, 0, event_time, event_row)
            moved = True
        row = part.next
    return moved


@inner_kernel
def tell_late(t, row, units, event_row):
    """Tell of a movement that changes nothing, since the last count of its cell has seen it."""
    cell = t.cells[row]
    tell(t, AlertKind.LATE_MOVEMENT.value, AlertStatus.RAISED.value, event_row, cell.location, cell.sku, units, 0)
