"""Serving an event's own order, then the orders that wait for what the event freed, oldest first.

An order waits only while nothing can be promised to it. So only a line that fits into a freed cell, of a kit by one of
its parts, can change that: other orders are passed over without routing, unless all are to be tried (the network has changed).
Policies must keep to this: no waiting order becomes servable by time alone.
Owner: apply.py. Not here: one order's routing, reservation and decision (decide.py).
"""

import numpy as np

from state.orders import line_of, units_each
from state.stock import available
from state.tables import FREED_COUNT, MAX_UNITS
from streams.inventory.decide import status_of, try_order, write_decision
from streams.routing.sorting import sort_rows
from topics.compiled.kernels import inner_kernel


@inner_kernel
def _waiting_units(t, piece):
    """Units of a piece's SKU that its line waits for."""
    return t.lines[line_of(t, piece)].quantity * units_each(t, piece)


@inner_kernel
def _choose(t, work, sku, units, count):
    """Note the orders that wait for a SKU with a line of at most `units`; returns how many are noted now."""
    row = t.sku_links[sku].waiting_head
    while row >= 0:
        order = t.lines[row].order
        if work.stamps[order] != work.sweeps[0] and _waiting_units(t, row) <= units:
            work.stamps[order] = work.sweeps[0]
            work.chosen[count] = order
            count += 1
        row = t.line_links[row].waiting_next
    return count


@inner_kernel
def _choose_waiting(t, work, try_all):
    """List the orders to try, oldest first: all that wait, or those that a cell in `freed` could serve; returns how many."""
    work.sweeps[0] += 1
    count = 0
    if try_all:
        for sku in range(t.pool[0].sku_count):
            count = _choose(t, work, sku, MAX_UNITS, count)
    else:
        for i in range(t.counters[FREED_COUNT]):
            cell = t.cells[t.freed[i]]
            count = _choose(t, work, cell.sku, available(cell), count)
    sort_rows(t.orders.age, work.chosen, count)
    return count


@inner_kernel
def serve(t, out, own, status, lost, event_row, work, try_all):
    """Decide on the event's own order, on those that lost a promise, then on those that wait for what the event freed.

    Parameters
    ----------
    own : int32
        The order that always gets a decision; -1 = none. A waiting order gets one only if it was promised something.
    status : int
        What the decision on `own` says; 0 = it is routed first.
    lost : int
        The first `work.lost` get a decision each, `own` not twice.
    event_row : int
        The decisions' source: a row of the batch's events.
    try_all : bool
        Try all waiting orders, whatever was freed.
    """
    if t.pool[0].waiting_lines == 0 and own < 0 and lost == 0:
        t.counters[FREED_COUNT] = 0
        return
    # The orders to try are listed once the event's own is decided: it may take what it freed.
    status_given = status != 0
    count = np.int64(-1)
    at = np.int64(0)
    next_lost = 0
    first = np.int32(own)
    single = False
    cell_row = np.int32(0)
    row = np.int32(-1)
    while True:
        while own < 0 and next_lost < lost:
            if work.lost[next_lost] != first or status_given:
                own = work.lost[next_lost]
            next_lost += 1
        order_row = np.int32(own)
        if own < 0 and count < 0:
            single = t.counters[FREED_COUNT] == 1 and not try_all
            count = 0
            if single:
                cell_row = t.freed[0]
                row = t.sku_links[t.cells[cell_row].sku].waiting_head
            elif try_all or t.counters[FREED_COUNT] > 0:
                count = _choose_waiting(t, work, try_all)
            t.counters[FREED_COUNT] = 0
        if single:
            # The queue of one cell's SKU, while the cell has any left. An order's lines of one SKU stand together in it, and
            # deciding on the order may take any of them out.
            units = available(t.cells[cell_row])
            while row >= 0 and units > 0 and order_row < 0:
                candidate = t.lines[row].order
                while row >= 0 and t.lines[row].order == candidate:
                    if _waiting_units(t, row) <= units:
                        order_row = candidate
                    row = t.line_links[row].waiting_next
        elif own < 0 and at < count:
            order_row = work.chosen[at]
            at += 1
        if order_row < 0:
            return
        routed = own < 0 or order_row != first or status == 0
        promised = 0
        if routed:
            promised = try_order(t, order_row, event_row, work)
            status = status_of(t, order_row)
        if own >= 0 or promised > 0:
            write_decision(t, out, order_row, status, event_row, work, routed)
        own = np.int32(-1)
