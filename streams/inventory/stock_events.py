"""Lines of sales.v1 and stock.v1: what each kind means for the cells.

A handler checks everything first and changes something only if all is well. It returns 0, `STALE`, or the reasons.DeadLetter
for which the event is refused, having changed nothing. What an event frees goes to waiting orders afterwards (waiting.py).
Owner: apply.py. Not here: dedupe, the clock (apply.py).
"""

import numpy as np

from state.alerts import clear_counted
from state.columns import EXPECTED_SUPPLY, IN_TRANSIT
from state.index import find_cell
from state.stock import (
    cell_row,
    change_cell,
    find_kit,
    find_location,
    find_sku,
    is_counted,
    move_stock,
    moved_after,
    sku_row,
    within_bounds,
)
from state.supply import change_transfer, expect_supply, has_supply
from state.tables import MAX_CELLS, MAX_SKUS, MAX_SUPPLIES
from streams.inventory.moves import RULES, move_kit, reason_of, sku_lacks_room, tell_late
from topics.compiled.kernels import inner_kernel
from topics.reasons import DeadLetter, Kind

STALE = 255


@inner_kernel
def apply_stock(t, event, event_row, buffer, work):
    """Apply a line of sales.v1 or stock.v1. A till's kit is its parts; who counts or receives a kit's SKU has boxes of it."""
    location = find_location(t, buffer, event.location_at, event.location_size)
    if location < 0:
        return DeadLetter.UNKNOWN_LOCATION
    if event.kind == Kind.SALE or event.kind == Kind.RETURN:
        kit = find_kit(t, buffer, event.sku_at, event.sku_size)
        if kit >= 0:
            return _sell_kit(t, event, event_row, buffer, location, kit, work)
    sku = find_sku(t, buffer, event.sku_at, event.sku_size)
    known = find_cell(t.cell_index, t.cells, sku, location) if sku >= 0 else np.int32(-1)
    on_hand = 0
    if known >= 0:
        on_hand = t.cells[known].on_hand
    if event.kind == Kind.COUNT:
        return _apply_count(t, event, event_row, buffer, location, sku, known)
    units = np.int64(event.quantity)
    if event.kind in (Kind.SALE, Kind.TRANSFER_OUT, Kind.QUARANTINE):
        units = -units
    target = np.int32(-1)
    if event.kind == Kind.TRANSFER_OUT:
        target = find_location(t, buffer, event.target_at, event.target_size)
        if target < 0:
            return DeadLetter.UNKNOWN_LOCATION
    moves = event.kind not in (Kind.EXPECTED, Kind.SAFETY_STOCK)
    late = moves and is_counted(t, known, event.event_time)
    if late and event.kind not in (Kind.TRANSFER_OUT, Kind.TRANSFER_IN):
        tell_late(t, known, units, event_row)
        return STALE
    if moves and not late and not within_bounds(on_hand + units):
        return DeadLetter.OUT_OF_RANGE
    full = _lacks_room(t, event, buffer, sku, known)
    if full:
        return full
    sku = sku_row(t, buffer, event.sku_at, event.sku_size)
    at, size = event.reference_at, event.reference_size
    if event.kind == Kind.EXPECTED:
        expect_supply(t, buffer, at, size, sku, location, event.quantity, event.time, event_row)
        return 0
    if event.kind == Kind.SAFETY_STOCK:
        row = cell_row(t, sku, location)
        change_cell(t, row, t.cells[row].on_hand, t.cells[row].reserved, event.quantity, event_row)
        return 0
    if late:
        tell_late(t, known, units, event_row)
    elif moves:
        move_stock(t, cell_row(t, sku, location), units, 0, event.event_time, event_row)
    if event.kind in (Kind.TRANSFER_OUT, Kind.TRANSFER_IN):
        leads = target if event.kind == Kind.TRANSFER_OUT else location
        change_transfer(t, buffer, at, size, sku, location, leads, -units, event.event_time, event_row)
    return 0


@inner_kernel
def _sell_kit(t, event, event_row, buffer, location, kit, work):
    """Apply a till's sale or return of a kit: its parts move, all in this event."""
    units = np.int64(event.quantity) if event.kind == Kind.RETURN else -np.int64(event.quantity)
    for rule in RULES:
        work.new[0] = 0
        if sku_lacks_room(t, buffer, event.sku_at, event.sku_size, location, units, event.event_time, rule, work.new):
            return reason_of(rule)
    return 0 if move_kit(t, kit, location, units, event.event_time, event_row) else STALE


@inner_kernel
def _lacks_room(t, event, buffer, sku, known):
    """Why the pool has no room for what a line of stock would add: a SKU, a cell, a supply; 0 = it has."""
    pool = t.pool[0]
    if sku < 0 and pool.sku_count >= t.limits[MAX_SKUS]:
        return DeadLetter.TOO_MANY_SKUS
    if known < 0 and event.kind != Kind.EXPECTED and pool.cell_count >= t.limits[MAX_CELLS]:
        return DeadLetter.TOO_MANY_CELLS
    if pool.kept_supplies >= t.limits[MAX_SUPPLIES]:
        kind = EXPECTED_SUPPLY if event.kind == Kind.EXPECTED else IN_TRANSIT
        supplies = event.kind in (Kind.EXPECTED, Kind.TRANSFER_OUT, Kind.TRANSFER_IN)
        if supplies and not has_supply(t, kind, buffer, event.reference_at, event.reference_size, sku):
            return DeadLetter.TOO_MANY_SUPPLIES
    return 0


@inner_kernel
def _apply_count(t, event, event_row, buffer, location, sku, known):
    """Set on hand to what was counted, plus what is known to have moved since."""
    moved = np.int64(0)
    if known >= 0:
        if event.time < t.cells[known].counted_at:
            return STALE
        exact, moved = moved_after(t, known, event.time)
        if not exact:
            return DeadLetter.COUNT_TOO_OLD
    if not within_bounds(event.quantity + moved):
        return DeadLetter.OUT_OF_RANGE
    full = _lacks_room(t, event, buffer, sku, known)
    if full:
        return full
    row = cell_row(t, sku_row(t, buffer, event.sku_at, event.sku_size), location)
    cell = t.cells[row]
    cell.counted_at = event.time
    change_cell(t, row, event.quantity + moved, cell.reserved, cell.safety_stock, event_row)
    clear_counted(t, row, event_row)
    return 0
