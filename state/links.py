"""Building a pool's derived links from its tables, after a restore."""

import numpy as np

from state.orders import enqueue, push_closed, push_hold
from state.stock import FIRST_BLOCK, link_cell, link_sku
from state.tables import BLOCKS_TAIL
from topics.compiled.kernels import kernel


@kernel
def link_cells(t, rows):
    """Give each SKU the block of its cells, at once as large as it has to be; `rows` (int64[]) are all cells, by their z."""
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
def link_waiting(t, rows):
    """Queue waiting lines (int64[], oldest order first)."""
    for row in rows:
        enqueue(t, row)


@kernel
def link_holds(t, held, closed):
    """Queue held orders by expiry, and closed orders (int64[], by closing time) for the day they are freed."""
    for row in held:
        push_hold(t, row)
    for row in closed:
        push_closed(t, row)
