"""Orders, their lines and promises, the queues of waiting lines, holds by time: the only code that changes them.

A line is WAITING (in its SKU's queue, oldest order first), RESERVED at one location, SHIPPED, COLLECTED or DROPPED. The cell's
`reserved` is the sum over its RESERVED lines of quantity − shipped. A closed order is kept for `CLOSED_MS`, so that a second
`placed` or a return finds it; after that it counts as unknown, and its rows and text are used again.
Not here: which location gets a line (streams/routing), what an event means (streams/inventory).
"""

import numpy as np

from state.columns import (
    ADDED,
    CLOSED,
    DROPPED,
    EXPIRED,
    FREE,
    GONE,
    HELD,
    OPEN,
    RESERVED,
    SHIPPED,
    WAITING,
)
from state.hashing import hash_text
from state.index import find_cell, find_text, insert, remove
from state.stock import reserve
from state.tables import (
    CLOSED_HEAD,
    CLOSED_MS,
    CLOSED_TAIL,
    HOLD_COUNT,
    LINES,
    LONGEST_ORDER,
    ORDERS,
    REFUSALS,
    mark,
    take_row,
)
from state.text import free_text_block, name_row
from topics.compiled.kernels import kernel

_FEWEST_HOLDS = 64


@kernel
def find_order(t, text, at, size):
    """Find an order's row by its id; -1 = unknown, or closed so long ago that it counts as unknown."""
    low, high = hash_text(text, at, size)
    row = find_text(t.order_index, t.orders, low, high, t.heap, text, at, size)
    if row >= 0:
        order = t.orders[row]
        if order.state != OPEN and order.state != HELD and order.closed_at + t.limits[CLOSED_MS] < t.pool[0].now:
            return np.int32(-1)
    return row


@kernel
def forget_order(t, row):
    """Make room for another order of the same id: the row is no longer found, and freed when its time comes."""
    order = t.orders[row]
    remove(t.order_index, t.orders, row)
    order.state = GONE
    mark(t.journal, t.counters, ORDERS, order, row)
    if order.closed_at + t.limits[CLOSED_MS] >= t.pool[0].now:  # else its time has come: it goes when the batch is done
        order.closed_at = t.pool[0].now
        push_closed(t, row)


@kernel
def add_order(t, text, at, size, text_size):
    """Make an order's row, with a text block of `text_size` bytes that begins with its id; returns the row."""
    low, high = hash_text(text, at, size)
    former = find_text(t.order_index, t.orders, low, high, t.heap, text, at, size)
    if former >= 0:
        forget_order(t, former)
    pool = t.pool[0]
    row, pool.free_order, pool.order_count = take_row(t.orders, pool.free_order, pool.order_count)
    order = t.orders[row]
    name_row(t, order, low, high, text, at, size, text_size)
    pool.age += 1
    order.age = pool.age
    order.text_size = text_size
    order.expires_at = 0
    order.closed_at = 0
    order.first_line = -1
    order.line_count = 0
    order.pickup_location = -1
    order.refusal = -1
    order.state = OPEN
    order.flags = 0
    order.next = -1
    mark(t.journal, t.counters, ORDERS, order, row)
    insert(t.order_index, low, row)
    return row


@kernel
def add_line(t, order_row, previous, sku, quantity, id_at, id_size):
    """Make a line, neither waiting nor promised yet, behind line `previous` (-1: the first).

    `id_at` is relative to the order's text block.
    """
    pool = t.pool[0]
    row, pool.free_line, pool.line_count = take_row(t.lines, pool.free_line, pool.line_count)
    line = t.lines[row]
    line.order = order_row
    line.next = -1
    line.sku = sku
    line.quantity = quantity
    line.shipped = 0
    line.returned = 0
    line.collected = 0
    line.location = -1
    line.root = row
    line.id_at = id_at
    line.id_size = id_size
    line.shipment_sequence = 0
    line.shipment_number = 0
    line.distance_m = 0
    line.shipment_kind = 0
    line.state = ADDED
    line.reason = 0
    mark(t.journal, t.counters, LINES, line, row)
    order = t.orders[order_row]
    if previous < 0:
        order.first_line = row
    else:
        line.next = t.lines[previous].next
        t.lines[previous].next = row
        mark(t.journal, t.counters, LINES, t.lines[previous], previous)
    order.line_count += 1
    pool.kept_lines += 1
    t.counters[LONGEST_ORDER] = max(t.counters[LONGEST_ORDER], order.line_count)
    pool.open_lines += 1
    mark(t.journal, t.counters, ORDERS, order, order_row)
    return row


@kernel
def enqueue(t, row):
    """Put a line into its SKU's queue, behind the orders that are older."""
    link = t.sku_links[t.lines[row].sku]
    age = t.orders[t.lines[row].order].age
    before = link.waiting_tail
    while before >= 0 and t.orders[t.lines[before].order].age > age:
        before = t.line_links[before].waiting_previous
    if before >= 0:
        after = t.line_links[before].waiting_next
        t.line_links[before].waiting_next = row
    else:
        after = link.waiting_head
        link.waiting_head = row
    t.line_links[row].waiting_previous = before
    t.line_links[row].waiting_next = after
    if after >= 0:
        t.line_links[after].waiting_previous = row
    else:
        link.waiting_tail = row


@kernel
def link_waiting(t, rows):
    """Queue waiting lines (int64[], oldest order first), after a restore."""
    for row in rows:
        enqueue(t, row)


@kernel
def link_timed(t, held, closed):
    """Queue, after a restore, held orders by expiry and closed ones (int64[], by closing time) for the day they are freed."""
    for row in held:
        push_hold(t, row)
    for row in closed:
        push_closed(t, row)


@kernel
def _dequeue(t, row):
    link = t.sku_links[t.lines[row].sku]
    before = t.line_links[row].waiting_previous
    after = t.line_links[row].waiting_next
    if before >= 0:
        t.line_links[before].waiting_next = after
    else:
        link.waiting_head = after
    if after >= 0:
        t.line_links[after].waiting_previous = before
    else:
        link.waiting_tail = before


@kernel
def wait_line(t, row, reason):
    """Let a line wait for stock, for a reason."""
    line = t.lines[row]
    if line.state != WAITING:
        line.state = WAITING
        line.location = -1
        t.pool[0].waiting_lines += 1
        enqueue(t, row)
    line.reason = reason
    mark(t.journal, t.counters, LINES, line, row)


@kernel
def _leave_queue(t, row):
    if t.lines[row].state == WAITING:
        _dequeue(t, row)
        t.pool[0].waiting_lines -= 1


@kernel
def promise_line(t, row, cell, sequence, number, kind, distance_m, event_row):
    """Promise a line whole from a cell."""
    _leave_queue(t, row)
    line = t.lines[row]
    line.state = RESERVED
    line.reason = 0
    line.location = t.cells[cell].location
    line.shipment_sequence = sequence
    line.shipment_number = number
    line.shipment_kind = kind
    line.distance_m = distance_m
    mark(t.journal, t.counters, LINES, line, row)
    reserve(t, cell, line.quantity, event_row)


@kernel
def drop_line(t, row, event_row):
    """Take an open line out of its order: its promise is given back; what was shipped of it stays shipped."""
    line = t.lines[row]
    if line.state == RESERVED:
        cell = find_cell(t.cell_index, t.cells, line.sku, line.location)
        reserve(t, cell, line.shipped - line.quantity, event_row)
    _leave_queue(t, row)
    if line.shipped > 0:
        line.quantity = line.shipped
        line.state = SHIPPED
    else:
        line.state = DROPPED
    mark(t.journal, t.counters, LINES, line, row)


@kernel
def split_line(t, row, units):
    """Part off `units` of a line's unshipped quantity as a line of its own, neither waiting nor promised; returns its row."""
    line = t.lines[row]
    part = add_line(t, line.order, row, line.sku, units, line.id_at, line.id_size)
    t.lines[part].root = line.root
    line.quantity -= units
    if line.shipped == line.quantity:
        line.state = SHIPPED
    mark(t.journal, t.counters, LINES, line, row)
    return part


@kernel
def refuse(t, order_row, root, location):
    """Note that a location rejected a line."""
    pool = t.pool[0]
    row, pool.free_refusal, pool.refusal_count = take_row(t.refusals, pool.free_refusal, pool.refusal_count)
    refusal = t.refusals[row]
    refusal.root = root
    refusal.location = location
    refusal.next = t.orders[order_row].refusal
    mark(t.journal, t.counters, REFUSALS, refusal, row)
    t.orders[order_row].refusal = row
    mark(t.journal, t.counters, ORDERS, t.orders[order_row], order_row)


@kernel
def close_order(t, row, state):
    """Close an order none of whose lines is open: CLOSED or EXPIRED."""
    order = t.orders[row]
    if order.state == HELD:
        t.pool[0].held_orders -= 1
    order.state = state
    order.closed_at = t.pool[0].now
    t.pool[0].open_lines -= order.line_count
    mark(t.journal, t.counters, ORDERS, order, row)
    push_closed(t, row)


@kernel
def push_closed(t, row):
    """Queue a closed order to be freed when its time comes."""
    entry = t.closed[t.counters[CLOSED_TAIL] & (t.closed.size - 1)]
    entry.time = t.orders[row].closed_at
    entry.age = t.orders[row].age
    entry.order = row
    t.counters[CLOSED_TAIL] += 1


@kernel
def _free_order(t, row):
    order = t.orders[row]
    pool = t.pool[0]
    line = order.first_line
    while line >= 0:
        following = t.lines[line].next
        t.lines[line].state = 0
        t.lines[line].next = pool.free_line
        pool.free_line = line
        mark(t.journal, t.counters, LINES, t.lines[line], line)
        line = following
    refusal = order.refusal
    while refusal >= 0:
        following = t.refusals[refusal].next
        t.refusals[refusal].next = pool.free_refusal
        pool.free_refusal = refusal
        mark(t.journal, t.counters, REFUSALS, t.refusals[refusal], refusal)
        refusal = following
    free_text_block(t.pool, t.heap, t.page_dirty, t.journal, t.counters, order.id_at, order.text_size)
    pool.kept_lines -= order.line_count
    order.state = FREE
    order.age = 0
    order.next = pool.free_order
    pool.free_order = row
    mark(t.journal, t.counters, ORDERS, order, row)


@kernel
def _tells(order, entry):
    """Whether an entry of the ring is that of an order's last closing: one placed again after it expired is in it twice."""
    return order.age == entry.age and order.closed_at == entry.time and order.state in (CLOSED, EXPIRED, GONE)


@kernel
def count_kept_lines(t):
    """Count the lines of the orders kept, less those that `forget_orders` would free now, so that a batch's cut never shows."""
    oldest = t.pool[0].now - t.limits[CLOSED_MS]
    lines = t.pool[0].kept_lines
    for position in range(t.counters[CLOSED_HEAD], t.counters[CLOSED_TAIL]):
        entry = t.closed[position & (t.closed.size - 1)]
        if entry.time >= oldest:
            break
        if _tells(t.orders[entry.order], entry):
            lines -= t.orders[entry.order].line_count
    return lines


@kernel
def forget_orders(t):
    """Free the orders closed long ago; between batches, since decisions of a batch in hand point to their text."""
    oldest = t.pool[0].now - t.limits[CLOSED_MS]
    while t.counters[CLOSED_HEAD] < t.counters[CLOSED_TAIL]:
        entry = t.closed[t.counters[CLOSED_HEAD] & (t.closed.size - 1)]
        if entry.time >= oldest:
            break
        t.counters[CLOSED_HEAD] += 1
        order = t.orders[entry.order]
        if _tells(order, entry):
            if order.state != GONE:
                remove(t.order_index, t.orders, entry.order)
            _free_order(t, entry.order)


@kernel
def _earlier(a, b):
    return a.time < b.time or (a.time == b.time and a.age < b.age)


@kernel
def _swap(holds, i, j):
    time, age, order = holds[i].time, holds[i].age, holds[i].order
    holds[i].time, holds[i].age, holds[i].order = holds[j].time, holds[j].age, holds[j].order
    holds[j].time, holds[j].age, holds[j].order = time, age, order


@kernel
def push_hold(t, row):
    """Put a held order among those that expire."""
    i = t.counters[HOLD_COUNT]
    t.counters[HOLD_COUNT] += 1
    t.holds[i].time = t.orders[row].expires_at
    t.holds[i].age = t.orders[row].age
    t.holds[i].order = row
    while i > 0 and _earlier(t.holds[i], t.holds[(i - 1) // 2]):
        _swap(t.holds, i, (i - 1) // 2)
        i = (i - 1) // 2


@kernel
def forget_holds(t):
    """Drop from the holds' heap those that ended before their time, once they are most of it."""
    if t.counters[HOLD_COUNT] <= 2 * t.pool[0].held_orders + _FEWEST_HOLDS:
        return
    count = t.counters[HOLD_COUNT]
    t.counters[HOLD_COUNT] = 0
    for i in range(count):
        row = t.holds[i].order
        # What is pushed goes to a place before this one.
        if t.orders[row].state == HELD and t.orders[row].age == t.holds[i].age:
            push_hold(t, row)


@kernel
def pop_due_hold(t):
    """Take the next hold that has expired by the pool's now; -1 = none is due."""
    while t.counters[HOLD_COUNT] > 0 and t.holds[0].time <= t.pool[0].now:
        row, age = t.holds[0].order, t.holds[0].age
        t.counters[HOLD_COUNT] -= 1
        last = t.counters[HOLD_COUNT]
        _swap(t.holds, 0, last)
        i = 0
        while True:
            least = i
            for child in (2 * i + 1, 2 * i + 2):
                if child < last and _earlier(t.holds[child], t.holds[least]):
                    least = child
            if least == i:
                break
            _swap(t.holds, i, least)
            i = least
        if t.orders[row].state == HELD and t.orders[row].age == age:
            return row
    return np.int32(-1)
