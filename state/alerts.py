"""Discrepancies of a pool: what a batch tells of them, and which of them stand at a cell.

A kind of alert stands at a cell at most once: its bit in the cell's `alerts`. The batch's alerts are encoded when its events
are applied. Not here: when something is a discrepancy (stock.py, streams/inventory), the record (topics/outputs.py).
"""

from state.tables import ALERT_COUNT, CELLS, mark
from topics.compiled.kernels import inner_kernel
from topics.reasons import AlertKind, AlertStatus

SHORTFALL_BIT = 1 << AlertKind.SHORTFALL.value


@inner_kernel
def tell(t, kind, status, event_row, location, sku, found, expected):
    """Note an alert to be published; `found` and `expected` are units."""
    alert = t.alerts[t.counters[ALERT_COUNT]]
    t.counters[ALERT_COUNT] += 1
    alert.kind = kind
    alert.status = status
    alert.event = event_row
    alert.location = location
    alert.sku = sku
    alert.time = t.pool[0].now
    alert.found = found
    alert.expected = expected


@inner_kernel
def raise_alert(t, row, kind, event_row, found, expected):
    """Raise an alert at a cell; it stands until it is cleared."""
    cell = t.cells[row]
    cell.alerts |= 1 << kind
    mark(t.journal, t.counters, CELLS, cell, row)
    tell(t, kind, AlertStatus.RAISED.value, event_row, cell.location, cell.sku, found, expected)


@inner_kernel
def clear_alert(t, row, kind, event_row, found, expected):
    """Clear an alert that stands at a cell."""
    cell = t.cells[row]
    cell.alerts &= ~(1 << kind)
    mark(t.journal, t.counters, CELLS, cell, row)
    tell(t, kind, AlertStatus.CLEARED.value, event_row, cell.location, cell.sku, found, expected)


@inner_kernel
def clear_counted(t, row, event_row):
    """Clear all that a count settles: everything at the cell but a shortfall."""
    cell = t.cells[row]
    if cell.alerts & ~SHORTFALL_BIT == 0:
        return
    for kind in range(32):
        if 1 << kind != SHORTFALL_BIT and cell.alerts >> kind & 1:
            clear_alert(t, row, kind, event_row, cell.on_hand, 0)
