"""Open-addressing indexes from a key to a row: int32 slots, -1 = empty, linear probing, a power-of-two size.

Derived from the tables, never in the changelog. Deletion shifts the run back, so there are no tombstones. Callers keep the
load at one half or less (state/pool.py sizes an index with its table).
"""

import numpy as np

from state.hashing import same_text
from topics.compiled.kernels import kernel

_MIX = np.uint64(0x9E3779B97F4A7C15)


@kernel
def find_text(slots, table, low, high, heap, text, at, size):
    """Find the row whose id is `text[at : at + size]` with hash (low, high); -1 = none.

    `table` has the fields hash_low, hash_high, id_at, id_size; its ids lie in `heap`.
    """
    mask = slots.size - 1
    slot = np.int64(low) & mask
    while slots[slot] >= 0:
        row = table[slots[slot]]
        if row.hash_low == low and row.hash_high == high and same_text(heap, row.id_at, row.id_size, text, at, size):
            return slots[slot]
        slot = (slot + 1) & mask
    return np.int32(-1)


@kernel
def find_hash(slots, table, low, high):
    """Find the row with hash (low, high); -1 = none."""
    mask = slots.size - 1
    slot = np.int64(low) & mask
    while slots[slot] >= 0:
        row = table[slots[slot]]
        if row.hash_low == low and row.hash_high == high:
            return slots[slot]
        slot = (slot + 1) & mask
    return np.int32(-1)


@kernel
def insert(slots, low, row):
    """Enter a row that is not there yet."""
    mask = slots.size - 1
    slot = np.int64(low) & mask
    while slots[slot] >= 0:
        slot = (slot + 1) & mask
    slots[slot] = row


@kernel
def remove(slots, table, row):
    """Take a row out and close the gap its run would have."""
    mask = slots.size - 1
    slot = np.int64(table[row].hash_low) & mask
    while slots[slot] != row:
        slot = (slot + 1) & mask
    gap = slot
    slot = (slot + 1) & mask
    while slots[slot] >= 0:
        home = np.int64(table[slots[slot]].hash_low) & mask
        if ((slot - home) & mask) >= ((slot - gap) & mask):
            slots[gap] = slots[slot]
            gap = slot
        slot = (slot + 1) & mask
    slots[gap] = -1


@kernel
def cell_home(sku, location):
    """Hash a cell's key, two row numbers, to a uint64."""
    key = (np.uint64(sku) << np.uint64(32)) | np.uint64(location)
    key *= _MIX
    return key ^ (key >> np.uint64(29))


@kernel
def find_cell(slots, cells, sku, location):
    """Find the cell of a SKU row at a location row; -1 = none."""
    mask = slots.size - 1
    slot = np.int64(cell_home(sku, location)) & mask
    while slots[slot] >= 0:
        cell = cells[slots[slot]]
        if cell.sku == sku and cell.location == location:
            return slots[slot]
        slot = (slot + 1) & mask
    return np.int32(-1)


@kernel
def index_rows(slots, table, rows):
    """Enter the given rows (int64[]) of a hashed table into empty slots."""
    slots[:] = -1
    for row in rows:
        insert(slots, table[row].hash_low, row)


@kernel
def index_newest(slots, table, rows):
    """Enter rows (int64[], oldest first) of a hashed table into empty slots; of rows with one hash the newest stays."""
    slots[:] = -1
    mask = slots.size - 1
    for row in rows:
        slot = np.int64(table[row].hash_low) & mask
        while slots[slot] >= 0:
            other = table[slots[slot]]
            if other.hash_low == table[row].hash_low and other.hash_high == table[row].hash_high:
                break
            slot = (slot + 1) & mask
        slots[slot] = row


@kernel
def index_cells(slots, cells, count):
    """Enter all cells into empty slots."""
    slots[:] = -1
    for row in range(count):
        insert(slots, cell_home(cells[row].sku, cells[row].location), row)
