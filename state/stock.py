"""Cells, SKUs and movements: the only code that changes them. Here a kernel finds a SKU, a kit or a location by its id.

Every change of a cell raises its version by one. Whatever raises a cell's available is noted in `freed`, for the waiting
orders to be tried before the next event. `reserved` never falls below zero.
Not here: who decides on a reservation (streams/inventory), orders and their lines (orders.py), supply (supply.py).
"""

import numpy as np

from state.alerts import SHORTFALL_BIT, tell
from state.hashing import hash_text
from state.index import cell_home, find_cell, find_text, insert
from state.tables import (
    BLOCKS_TAIL,
    CELLS,
    FREED_COUNT,
    HORIZON_MS,
    MAX_UNITS,
    SKUS,
    WATCHED_COUNT,
    mark,
)
from state.text import name_row
from topics.compiled.kernels import kernel
from topics.reasons import AlertKind, AlertStatus

FIRST_BLOCK = 4


@kernel
def available(cell):
    """Units of a cell that an order may be promised."""
    return max(0, cell.on_hand - cell.reserved - cell.safety_stock)


@kernel
def find_location(t, text, at, size):
    """Find a location's row by its id; -1 = not in this pool."""
    low, high = hash_text(text, at, size)
    return find_text(t.location_index, t.locations, low, high, t.heap, text, at, size)


@kernel
def find_sku(t, text, at, size):
    """Find a SKU's row by its id; -1 = never heard of."""
    low, high = hash_text(text, at, size)
    return find_text(t.sku_index, t.skus, low, high, t.heap, text, at, size)


@kernel
def find_kit(t, text, at, size):
    """Find a kit's row by its SKU; -1 = the SKU is no kit now."""
    if t.pool[0].kit_count == 0:
        return np.int32(-1)
    low, high = hash_text(text, at, size)
    return find_text(t.kit_index, t.kits, low, high, t.heap, text, at, size)


@kernel
def sku_row(t, text, at, size):
    """Find a SKU's row, or make it."""
    low, high = hash_text(text, at, size)
    row = find_text(t.sku_index, t.skus, low, high, t.heap, text, at, size)
    if row >= 0:
        return row
    row = np.int32(t.pool[0].sku_count)
    t.pool[0].sku_count += 1
    sku = t.skus[row]
    name_row(t, sku, low, high, text, at, size, size)
    mark(t.journal, t.counters, SKUS, sku, row)
    insert(t.sku_index, low, row)
    link_sku(t, row)
    return row


@kernel
def link_sku(t, row):
    """Start a SKU with no cells and nobody waiting."""
    link = t.sku_links[row]
    link.block_at = 0
    link.block_count = 0
    link.block_capacity = 0
    link.waiting_head = -1
    link.waiting_tail = -1


@kernel
def link_cell(t, row):
    """Enter a cell into its SKU's block; a full block moves to the tail, twice as large."""
    cell = t.cells[row]
    link = t.sku_links[cell.sku]
    if link.block_count == link.block_capacity:
        capacity = max(FIRST_BLOCK, 2 * link.block_capacity)
        at = t.counters[BLOCKS_TAIL]
        for i in range(link.block_count):
            t.sku_cells[at + i] = t.sku_cells[link.block_at + i]
        link.block_at = at
        link.block_capacity = capacity
        t.counters[BLOCKS_TAIL] += capacity
    z = t.locations[cell.location].z
    at = link.block_at + link.block_count
    while at > link.block_at:
        before = t.sku_cells[at - 1]
        before_z = t.locations[before.location].z
        if before_z < z or (before_z == z and before.row < row):
            break
        t.sku_cells[at] = before
        at -= 1
    t.sku_cells[at].row = row
    t.sku_cells[at].location = cell.location
    link.block_count += 1


@kernel
def link_cells(t, rows):
    """After a restore, give each SKU a block just large enough for its cells; `rows` (int64[]) are all cells, by their z."""
    for row in range(t.pool[0].sku_count):
        link_sku(t, row)
    for row in range(t.pool[0].cell_count):
        t.sku_links[t.cells[row].sku].block_capacity += 1
    tail = np.int64(0)
    for row in range(t.pool[0].sku_count):
        link = t.sku_links[row]
        capacity = FIRST_BLOCK
        while capacity < link.block_capacity:
            capacity *= 2
        link.block_at = tail
        link.block_capacity = capacity if link.block_capacity else 0
        tail += link.block_capacity
    t.counters[BLOCKS_TAIL] = tail
    for row in rows:
        link_cell(t, row)


@kernel
def relink_cells(t, location):
    """Put the cells of a location that has moved into their places in the SKUs' blocks."""
    for row in range(t.pool[0].cell_count):
        if t.cells[row].location != location:
            continue
        link = t.sku_links[t.cells[row].sku]
        at = link.block_at
        while t.sku_cells[at].row != row:
            at += 1
        link.block_count -= 1
        for i in range(at, link.block_at + link.block_count):
            t.sku_cells[i] = t.sku_cells[i + 1]
        link_cell(t, row)


@kernel
def cell_row(t, sku, location):
    """Find the cell of a SKU at a location, or make it, empty."""
    row = find_cell(t.cell_index, t.cells, sku, location)
    if row >= 0:
        return row
    row = np.int32(t.pool[0].cell_count)
    t.pool[0].cell_count += 1
    cell = t.cells[row]
    cell.sku = sku
    cell.location = location
    cell.on_hand = 0
    cell.reserved = 0
    cell.safety_stock = 0
    cell.version = 0
    cell.counted_at = -1
    cell.movement = -1
    cell.forgotten = -1
    cell.alerts = 0
    cell.dirty = 0
    link = t.cell_links[row]
    link.event = 0
    link.promised_head = 0
    link.promised_count = 0
    link.watched = 0
    insert(t.cell_index, cell_home(sku, location), row)
    link_cell(t, row)
    return row


@kernel
def change_cell(t, row, on_hand, reserved, safety_stock, event_row):
    """Set a cell's three quantities, because of an event of the batch in hand; one change, one version."""
    cell = t.cells[row]
    before = available(cell)
    cell.on_hand = on_hand
    cell.reserved = reserved
    cell.safety_stock = safety_stock
    cell.version += 1
    cell.updated_at = t.pool[0].now
    link = t.cell_links[row]
    link.event = event_row + 1
    mark(t.journal, t.counters, CELLS, cell, row)
    if (on_hand < reserved or cell.alerts & SHORTFALL_BIT) and link.watched == 0:
        link.watched = 1
        t.watched[t.counters[WATCHED_COUNT]] = row
        t.counters[WATCHED_COUNT] += 1
    if available(cell) > before:
        t.freed[t.counters[FREED_COUNT]] = row
        t.counters[FREED_COUNT] += 1


@kernel
def reserve(t, row, units, event_row):
    """Promise units of a cell (negative: give them back)."""
    cell = t.cells[row]
    change_cell(t, row, cell.on_hand, cell.reserved + units, cell.safety_stock, event_row)


@kernel
def within_bounds(on_hand):
    """Tell whether a count of units is one a cell may hold."""
    return -MAX_UNITS <= on_hand <= MAX_UNITS


@kernel
def is_counted(t, row, event_time):
    """Tell whether the last count of a cell (-1 = no cell) has seen what moved at this time: it is not to move again."""
    return row >= 0 and event_time < t.cells[row].counted_at


@kernel
def move_stock(t, row, units, reserved_units, event_time, event_row):
    """Change on hand by signed units, and reserved by signed units, as one movement that a late count keeps on top.

    What the last count has seen changes on hand no more.
    """
    cell = t.cells[row]
    if is_counted(t, row, event_time):
        if units != 0:
            tell(t, AlertKind.LATE_MOVEMENT.value, AlertStatus.RAISED.value, event_row, cell.location, cell.sku, units, 0)
        change_cell(t, row, cell.on_hand, cell.reserved + reserved_units, cell.safety_stock, event_row)
        return
    position = t.pool[0].movement_tail
    movement = t.movements[position & (t.movements.size - 1)]
    movement.event_time = event_time
    movement.applied_at = t.pool[0].now
    movement.previous = cell.movement
    movement.cell = row
    movement.quantity = units
    t.pool[0].movement_tail = position + 1
    cell.movement = position
    change_cell(t, row, cell.on_hand + units, cell.reserved + reserved_units, cell.safety_stock, event_row)


@kernel
def moved_after(t, row, time):
    """Sum the movements of a cell whose own time is after `time`.

    Returns (exact, units); exact is false if a movement after `time` is no longer kept.
    """
    cell = t.cells[row]
    oldest = t.pool[0].now - t.limits[HORIZON_MS]
    if cell.forgotten > time:
        return False, 0
    units = 0
    position = cell.movement
    while position >= t.pool[0].movement_head:
        movement = t.movements[position & (t.movements.size - 1)]
        if movement.event_time > time:
            if movement.applied_at < oldest:
                return False, 0
            units += movement.quantity
        position = movement.previous
    return True, units


@kernel
def forget_movements(t):
    """Drop movements applied before the horizon; between batches, so that a batch's cut never shows."""
    pool = t.pool[0]
    oldest = pool.now - t.limits[HORIZON_MS]
    while pool.movement_head < pool.movement_tail:
        movement = t.movements[pool.movement_head & (t.movements.size - 1)]
        if movement.applied_at >= oldest:
            break
        cell = t.cells[movement.cell]
        if movement.event_time > cell.forgotten:
            cell.forgotten = movement.event_time
            mark(t.journal, t.counters, CELLS, cell, movement.cell)
        pool.movement_head += 1
