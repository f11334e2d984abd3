"""When a fact leaves fewer units on hand than are promised: the newest promises are taken back, to be routed again.

Owner: apply.py, after each event's own changes. Not here: the decisions that follow (waiting.py).
"""

from state.alerts import SHORTFALL_BIT, clear_alert, raise_alert
from state.orders import open_units, want_again
from state.tables import REROUTES, WATCHED_COUNT
from streams.routing.sorting import sort_rows
from topics.compiled.kernels import inner_kernel
from topics.reasons import AlertKind


@inner_kernel
def release_short(t, work, event_row):
    """Raise and clear shortfalls of the cells that the event changed; returns how many orders lost a promise (work.lost)."""
    lost = 0
    work.sweeps[0] += 1
    for i in range(t.counters[WATCHED_COUNT]):
        row = t.watched[i]
        cell = t.cells[row]
        link = t.cell_links[row]
        link.watched = 0
        if cell.on_hand < cell.reserved:
            raise_alert(t, row, AlertKind.SHORTFALL.value, event_row, cell.on_hand, cell.reserved)
            while t.limits[REROUTES] and cell.reserved > max(cell.on_hand, 0) and link.promised_head > 0:
                line = link.promised_head - 1
                order = t.lines[line].order
                if work.stamps[order] != work.sweeps[0]:
                    work.stamps[order] = work.sweeps[0]
                    work.lost[lost] = order
                    lost += 1
                link.watched = 1  # it is looked at already
                want_again(t, line, open_units(t.lines[line]), event_row)
                link.watched = 0
        if cell.alerts & SHORTFALL_BIT and cell.on_hand >= cell.reserved:
            clear_alert(t, row, AlertKind.SHORTFALL.value, event_row, cell.on_hand, cell.reserved)
    t.counters[WATCHED_COUNT] = 0
    sort_rows(t.orders.age, work.lost, lost)
    return lost
