"""Building a pool's derived links from its tables, after a restore."""

from state.orders import enqueue, push_closed, push_hold
from state.stock import link_cell, link_sku
from topics.kernels import kernel


@kernel
def link_cells(t):
    """Give each SKU the block of its cells."""
    for row in range(t.pool[0].sku_count):
        link_sku(t, row)
    for row in range(t.pool[0].cell_count):
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
