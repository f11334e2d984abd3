"""Deciding on one order at a time: route its open lines, reserve what was promised, write the decision down.

Routing and reservation are one step: nothing else touches the pool's cells in between.
Owner: waiting.py, which alone writes decisions. Not here: which location wins (streams/routing), what an event asks for
(order_events.py, fulfilments.py).
"""

import numpy as np

from state.columns import ADDED, CARRIED, COLLECTED, DROPPED, HELD, RESERVED, SHIPPED, WAITING
from state.orders import promise_line, wait_line
from state.tables import MAX_UNITS
from streams.routing.kernel import route_order_kernel
from streams.routing.lines import make_scratch
from topics import columns as c
from topics.compiled.bundle import Bundle
from topics.compiled.kernels import allocating_kernel, inner_kernel
from topics.reasons import Status

N_DECISIONS, N_SHIPMENTS, N_LINES, N_LOSERS = range(4)


class Decisions(Bundle):
    """The batch's decisions (topics/columns.py) and how many rows of each are in use."""

    _fields = ("decisions", "shipments", "lines", "losers", "counts")


class Work(Bundle):
    """Scratch of one order. Arrays of the order's lines are as long as the longest order may be."""

    _fields = (
        "rows",  # int32[]: the lines to route, or to act on
        "shipments",  # int32[]: shipment of each reserved line
        "units",  # int32[]: units a fulfilment takes of each line
        "new",  # int64[1]: cells an event would make
        "lost",  # int32[]: orders that lost a promise in the event in hand
        "stamps",  # int64[]: per order, the last sweep that chose it
        "chosen",  # int32[]: orders a sweep will try
        "sweeps",  # int64[1]
        "route",  # Scratch of streams/routing: the lines to route, and the answer
    )


def make_work(line_capacity: int, order_capacity: int, location_capacity: int) -> Bundle:
    """Allocate scratch for orders of so many lines, among so many orders and locations."""

    def lines() -> np.ndarray:
        return np.zeros(line_capacity, np.int32)

    return Work(
        rows=lines(),
        shipments=lines(),
        units=lines(),
        new=np.zeros(1, np.int64),
        lost=np.zeros(order_capacity, np.int32),
        stamps=np.zeros(order_capacity, np.int64),
        chosen=np.zeros(order_capacity, np.int32),
        sweeps=np.zeros(1, np.int64),
        route=make_scratch(location_capacity, line_capacity),
    )


def make_decisions(decisions: int, lines: int) -> Bundle:
    """Allocate room for so many decisions, with so many lines in all."""
    return Decisions(
        np.empty(decisions, c.DECISION),
        np.empty(lines, c.DECISION_SHIPMENT),
        np.empty(lines, c.DECISION_LINE),
        np.empty(3 * decisions, c.LOSER),
        np.zeros(4, np.int64),
    )


@allocating_kernel
def _refusals(t, order_row, work, n):
    """List the pairs (line of the n to route, location that rejected it)."""
    count = 0
    for fill in range(2):
        if fill:
            which = np.empty(count, np.int32)
            where = np.empty(count, np.int32)
            count = 0
        refusal = t.orders[order_row].refusal
        while refusal >= 0:
            for i in range(n):
                if t.lines[work.rows[i]].root == t.refusals[refusal].root:
                    if fill:
                        which[count] = i
                        where[count] = t.refusals[refusal].location
                    count += 1
            refusal = t.refusals[refusal].next
    return which, where


@inner_kernel
def _route(t, order_row, n, work):
    order = t.orders[order_row]
    if order.refusal >= 0:
        refused_lines, refused_locations = _refusals(t, order_row, work, n)
    else:
        refused_lines, refused_locations = work.rows[:0], work.rows[:0]
    return route_order_kernel(
        t.routing_view,
        work.route,
        n,
        refused_lines,
        refused_locations,
        order.x,
        order.y,
        order.z,
        order.pickup_location,
        (order.flags & c.ALLOW_SPLIT) != 0,
        (order.flags & c.ALLOW_PARTIAL) != 0,
    )


@inner_kernel
def _list_parts(t, row, count, route):
    """List for the routing what a kit's line takes of each part, behind `count` entries; returns how many there are now."""
    piece = t.lines[row].kit
    while piece >= 0:
        units = np.int64(t.lines[row].quantity) * t.lines[piece].quantity
        route.part_sku[count] = t.lines[piece].sku
        route.part_units[count] = min(units, MAX_UNITS + 1)  # no cell has more, and sums stay small
        count += 1
        piece = t.lines[piece].next
    return count


@inner_kernel
def try_order(t, order_row, event_row, work):
    """Route all lines of an order that hold no promise, and reserve what is promised; returns how many lines were.

    The decision that must follow carries the pool's next sequence number.
    """
    n = 0
    parts = 0
    work.route.kit_parts[0] = 0
    row = t.orders[order_row].first_line
    while row >= 0:
        line = t.lines[row]
        if line.state == WAITING or line.state == ADDED:
            work.rows[n] = row
            work.route.line_sku[n] = line.sku
            work.route.line_quantity[n] = line.quantity
            parts = _list_parts(t, row, parts, work.route)
            n += 1
            work.route.kit_parts[n] = parts
        row = line.next
    if n == 0:
        work.route.out.explanation[:] = 0
        return 0
    promised = _route(t, order_row, n, work)
    answer = work.route.out
    sequence = t.pool[0].sequence + 1
    shipments = 0
    for i in range(n):
        if answer.location[i] < 0:
            wait_line(t, work.rows[i], answer.reason[i])
            continue
        number = 0
        while number < shipments and work.shipments[number] != answer.location[i]:
            number += 1
        if number == shipments:
            work.shipments[number] = answer.location[i]
            shipments += 1
        promise_line(t, work.rows[i], answer.cell[i], sequence, number + 1, answer.kind[i], answer.distance_m[i], event_row)
    return promised


@inner_kernel
def status_of(t, order_row):
    """Give the reasons.Status of what an order has now."""
    order = t.orders[order_row]
    waiting = 0
    met = 0
    carried = 0
    row = order.first_line
    while row >= 0:
        state = t.lines[row].state
        if state == WAITING:
            waiting += 1
        elif state in (RESERVED, SHIPPED, COLLECTED):
            met += 1
        elif state == CARRIED:
            carried += t.lines[row].quantity
        row = t.lines[row].next
    if order.state == HELD:
        return Status.HELD
    if waiting == 0:
        return Status.ALLOCATED if met + carried > 0 else Status.CANCELLED
    return Status.PARTIAL if met > 0 else Status.BACKORDERED


@inner_kernel
def is_open(t, order_row):
    """Whether a line of the order still waits or is promised."""
    row = t.orders[order_row].first_line
    while row >= 0:
        if t.lines[row].state in (WAITING, RESERVED, ADDED):
            return True
        row = t.lines[row].next
    return False


@inner_kernel
def _write_shipments(t, out, order_row, work):
    """Write the order's open shipments, each with its lines; returns how many."""
    first = out.counts[N_SHIPMENTS]
    count = 0
    i = 0
    row = t.orders[order_row].first_line
    while row >= 0:
        line = t.lines[row]
        if line.state == RESERVED:
            k = 0
            while k < count:
                made = out.shipments[first + k]
                if made.sequence == line.shipment_sequence and made.number == line.shipment_number:
                    break
                k += 1
            if k == count:
                made = out.shipments[first + k]
                made.sequence = line.shipment_sequence
                made.number = line.shipment_number
                made.location = line.location
                made.distance_m = line.distance_m
                made.kind = line.shipment_kind
                made.line_count = 0
                count += 1
            out.shipments[first + k].line_count += 1
            work.shipments[i] = k
            work.rows[i] = row
            i += 1
        row = line.next
    at = out.counts[N_LINES]
    for k in range(count):
        out.shipments[first + k].first_line = at
        at += out.shipments[first + k].line_count
        out.shipments[first + k].line_count = 0
    out.counts[N_LINES] = at
    for j in range(i):
        made = out.shipments[first + work.shipments[j]]
        line = t.lines[work.rows[j]]
        _write_line(t, out.lines[made.first_line + made.line_count], order_row, line, line.quantity - line.shipped, 0)
        made.line_count += 1
    out.counts[N_SHIPMENTS] += count
    return count


@inner_kernel
def _write_line(t, written, order_row, line, quantity, reason):
    written.line_id_at = t.orders[order_row].id_at + line.id_at
    written.line_id_size = line.id_size
    written.sku = line.sku
    written.kit = line.kit
    written.quantity = quantity
    written.reason = reason


@inner_kernel
def _write_unallocated(t, out, order_row, state):
    """Write the lines in `state`, with their reasons; returns how many."""
    count = 0
    row = t.orders[order_row].first_line
    while row >= 0:
        line = t.lines[row]
        if line.state == state:
            _write_line(t, out.lines[out.counts[N_LINES]], order_row, line, line.quantity, line.reason)
            out.counts[N_LINES] += 1
            count += 1
        row = line.next
    return count


@inner_kernel
def write_decision(t, out, order_row, status, event_row, work, routed):
    """Write a decision with the pool's next sequence number; `routed`: the scratch explains it."""
    pool = t.pool[0]
    pool.sequence += 1
    order = t.orders[order_row]
    decision = out.decisions[out.counts[N_DECISIONS]]
    out.counts[N_DECISIONS] += 1
    decision.sequence = pool.sequence
    decision.decided_at = pool.now
    decision.order_id_at = order.id_at
    decision.order_id_size = order.id_size
    decision.event = event_row
    decision.status = status
    decision.policy = work.route.policy
    decision.first_shipment = out.counts[N_SHIPMENTS]
    decision.shipment_count = _write_shipments(t, out, order_row, work)
    decision.first_unallocated = out.counts[N_LINES]
    decision.unallocated_count = _write_unallocated(t, out, order_row, DROPPED if status == Status.REJECTED else WAITING)
    decision.first_loser = out.counts[N_LOSERS]
    decision.loser_count = 0
    decision.considered = 0
    decision.won = 0
    if routed:
        answer = work.route.out
        decision.considered = answer.explanation[0]
        decision.won = answer.explanation[1]
        decision.loser_count = answer.explanation[2]
        for i in range(answer.explanation[2]):
            loser = out.losers[out.counts[N_LOSERS]]
            loser.location = answer.loser_location[i]
            loser.distance_m = answer.loser_distance_m[i]
            loser.reason = answer.loser_reason[i]
            out.counts[N_LOSERS] += 1
