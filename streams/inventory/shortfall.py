"""When a fact leaves fewer units on hand than are promised: the newest promises are taken back, to be routed again.

A kit's line is taken back whole, so its other parts are free again. The cells are seen to in the order in which the event left
them short: what one gives back may be what the next lacks.
Owner: apply.py, after each event's own changes. Not here: the decisions that follow (waiting.py).
"""

from state.alerts import SHORTFALL_BIT, clear_alert, raise_alert
from state.orders import line_of, open_units, want_again
from state.tables import REROUTES, WATCHED_COUNT
from streams.routing.sorting import sort_rows
from topics.compiled.kernels import inner_kernel
from topics.reasons import AlertKind


@inner_kernel
def release_short(t, work, event_row):
    """Raise and clear shortfalls of the cells that the event changed; returns how many orders lost a promise (work.lost)."""
    lost = 0
    work.sweeps[0] += 1
    i = 0
    while i < t.counters[WATCHED_COUNT]:
        row = t.watched[i]
        i += 1
        cell = t.cells[row]
        link = t.cell_links[row]
        link.watched = 0
        if cell.on_hand < cell.reserved:
            raise_alert(t, row, AlertKind.SHORTFALL.value, event_row, cell.on_hand, cell.reserved)
            while t.limits[REROUTES] and cell.reserved > max(cell.on_hand, 0) and link.promised_head > 0:
                line = line_of(t, link.promised_head - 1)
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
