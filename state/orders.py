"""Orders, their lines and promises, the queues of waiting lines, holds by time: the only code that changes them.

A line is WAITING (in its SKU's queue, oldest order first), RESERVED at one location (in its cell's list, newest promise first),
SHIPPED, DROPPED, or CARRIED: not stocked. The cell's `reserved` is the sum over its RESERVED lines of quantity − shipped.
Cells know of a line by its pieces. A plain line is its own piece. A kit's line has a piece per part of the kit, as it was when
the line was made: a row of its own, which is in the part's queue and in its cell's list. A
closed order is kept for `CLOSED_MS`, so that a second `placed` or a return finds it; after that it counts as unknown, and its
rows and text are used again.
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
    KIT_PART,
    OPEN,
    RESERVED,
    SHIPPED,
    WAITING,
)
from state.hashing import hash_text
from state.index import find_cell, find_text, insert, remove
from state.stock import reserve, sku_row
from state.tables import (
    CLOSED_HEAD,
    CLOSED_MS,
    CLOSED_TAIL,
    HOLD_COUNT,
    LINES,
    LONGEST_ORDER,
    MOST_PIECES,
    MOST_PROMISED,
    ORDERS,
    REFUSALS,
    mark,
    take_row,
)
from state.text import allocate_text, copy_text, free_text_block, name_row, touch_text
from state.timed import pop_timed, push_timed
from topics.compiled.kernels import kernel

_FEWEST_HOLDS = 64
# Into how many parts what is given back may cut a line, and all of an order.
MAX_LINE_PARTS = 64
MAX_ORDER_PARTS = 2_000


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
    # Else its time has come, and it goes when the batch is done; or it has just been closed, and is queued.
    if order.closed_at < t.pool[0].now <= order.closed_at + t.limits[CLOSED_MS]:
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
def enlarge_text(t, row, more):
    """Give an order `more` bytes behind its text. A row of its own keeps the former block, which decisions in hand point to."""
    pool = t.pool[0]
    order = t.orders[row]
    keeper_row, pool.free_order, pool.order_count = take_row(t.orders, pool.free_order, pool.order_count)
    keeper = t.orders[keeper_row]
    keeper.age = 0
    keeper.id_at = order.id_at
    keeper.id_size = order.id_size
    keeper.text_size = order.text_size
    keeper.closed_at = pool.now
    keeper.first_line = -1
    keeper.line_count = 0
    keeper.refusal = -1
    keeper.state = GONE
    mark(t.journal, t.counters, ORDERS, keeper, keeper_row)
    push_closed(t, keeper_row)
    order.id_at = allocate_text(t.pool, t.heap, order.text_size + more)
    copy_text(t.heap, order.id_at, t.heap, keeper.id_at, order.text_size)
    order.text_size += more
    touch_text(t.page_dirty, t.journal, t.counters, order.id_at, order.text_size)
    mark(t.journal, t.counters, ORDERS, order, row)


@kernel
def _take_line(t, order_row, sku, quantity, state):
    """Take a row of an order for a line or a piece, in no chain yet."""
    pool = t.pool[0]
    row, pool.free_line, pool.line_count = take_row(t.lines, pool.free_line, pool.line_count)
    line = t.lines[row]
    line.order = order_row
    line.next = -1
    line.kit = -1
    line.sku = sku
    line.quantity = quantity
    line.shipped = 0
    line.returned = 0
    line.collected = 0
    line.location = -1
    line.root = row
    line.id_at = 0
    line.id_size = 0
    line.shipment_sequence = 0
    line.shipment_number = 0
    line.distance_m = 0
    line.released = 0
    line.missing = 0
    line.rung = 0
    line.implied = 0
    line.shipment_kind = 0
    line.state = state
    line.reason = 0
    mark(t.journal, t.counters, LINES, line, row)
    return row


@kernel
def add_line(t, order_row, previous, sku, quantity, id_at, id_size):
    """Make a line, neither waiting nor promised yet, behind line `previous` (-1: the first).

    `id_at` is relative to the order's text block.
    """
    row = _take_line(t, order_row, sku, quantity, ADDED)
    line = t.lines[row]
    line.id_at = id_at
    line.id_size = id_size
    order = t.orders[order_row]
    if previous < 0:
        order.first_line = row
    else:
        line.next = t.lines[previous].next
        t.lines[previous].next = row
        mark(t.journal, t.counters, LINES, t.lines[previous], previous)
    order.line_count += 1
    pool = t.pool[0]
    pool.kept_lines += 1
    t.counters[LONGEST_ORDER] = max(t.counters[LONGEST_ORDER], order.line_count)
    pool.open_lines += 1
    mark(t.journal, t.counters, ORDERS, order, order_row)
    return row


@kernel
def _add_piece(t, row, previous, sku, units):
    """Make a piece of a new line behind piece `previous` (-1: the first); returns the piece's row."""
    piece = _take_line(t, t.lines[row].order, sku, units, KIT_PART)
    t.lines[piece].root = row
    if previous < 0:
        t.lines[row].kit = piece
    else:
        t.lines[previous].next = piece
    return piece


@kernel
def add_kit(t, row, kit):
    """Give a new line the pieces of a kit (a row of `kits`) as it is defined now."""
    count = 0
    previous = np.int32(-1)
    at = t.kits[kit].first_part
    while at >= 0:
        part = t.kit_parts[at]
        previous = _add_piece(t, row, previous, sku_row(t, t.heap, part.id_at, part.id_size), part.quantity)
        count += 1
        at = part.next
    t.counters[MOST_PIECES] = max(t.counters[MOST_PIECES], count)


@kernel
def first_piece(t, row):
    """Give the first of a line's pieces, by which cells know of it: the line itself, unless it is of a kit."""
    return np.int32(row) if t.lines[row].kit < 0 else t.lines[row].kit


@kernel
def next_piece(t, piece):
    """Give the piece of the same line behind one; -1 = none."""
    return t.lines[piece].next if t.lines[piece].state == KIT_PART else np.int32(-1)


@kernel
def units_each(t, piece):
    """Give the units of a piece's SKU that one unit of its line takes."""
    return np.int64(t.lines[piece].quantity) if t.lines[piece].state == KIT_PART else np.int64(1)


@kernel
def line_of(t, piece):
    """Give the line that a piece is of."""
    return t.lines[piece].root if t.lines[piece].state == KIT_PART else np.int32(piece)


@kernel
def has_same_pieces(t, row, other):
    """Tell whether two lines are of one SKU, and what a unit of each takes is the same."""
    if t.lines[row].sku != t.lines[other].sku:
        return False
    piece, same = t.lines[row].kit, t.lines[other].kit
    while piece >= 0 and same >= 0:
        if t.lines[piece].sku != t.lines[same].sku or t.lines[piece].quantity != t.lines[same].quantity:
            return False
        piece, same = t.lines[piece].next, t.lines[same].next
    return piece == same


@kernel
def _enqueue(t, row):
    """Put a piece into its SKU's queue, behind the orders that are older."""
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
def _enqueue_line(t, row):
    piece = first_piece(t, row)
    while piece >= 0:
        _enqueue(t, piece)
        piece = next_piece(t, piece)


@kernel
def link_waiting(t, rows):
    """Queue waiting lines (int64[], oldest order first), after a restore."""
    for row in rows:
        _enqueue_line(t, row)


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
        _enqueue_line(t, row)
    line.reason = reason
    mark(t.journal, t.counters, LINES, line, row)


@kernel
def _leave_queue(t, row):
    if t.lines[row].state == WAITING:
        piece = first_piece(t, row)
        while piece >= 0:
            _dequeue(t, piece)
            piece = next_piece(t, piece)
        t.pool[0].waiting_lines -= 1


@kernel
def promise_line(t, row, cell, sequence, number, kind, distance_m, event_row):
    """Promise a line whole from the location of a cell; `cell` is that of its first piece."""
    _leave_queue(t, row)
    line = t.lines[row]
    line.state = RESERVED
    line.reason = 0
    line.released = 0
    line.missing = 0
    line.rung = 0
    line.implied = 0
    line.location = t.cells[cell].location
    line.shipment_sequence = sequence
    line.shipment_number = number
    line.shipment_kind = kind
    line.distance_m = distance_m
    mark(t.journal, t.counters, LINES, line, row)
    piece = first_piece(t, row)
    while piece >= 0:
        _link_promise(t, cell, piece)
        reserve(t, cell, line.quantity * units_each(t, piece), event_row)
        piece = next_piece(t, piece)
        if piece >= 0:
            cell = cell_of(t, row, piece)


@kernel
def cell_of(t, row, piece):
    """Find the cell where a line's piece is promised."""
    return find_cell(t.cell_index, t.cells, t.lines[piece].sku, t.lines[row].location)


@kernel
def reserve_line(t, row, units, event_row):
    """Promise units of a line where it is (negative: give them back), piece by piece."""
    piece = first_piece(t, row)
    while piece >= 0:
        reserve(t, cell_of(t, row, piece), units * units_each(t, piece), event_row)
        piece = next_piece(t, piece)


@kernel
def _link_promise(t, cell, row):
    """Put a piece at the head of its cell's promises, which are thus newest first."""
    link = t.cell_links[cell]
    t.line_links[row].promised_next = link.promised_head
    t.line_links[row].promised_previous = 0
    if link.promised_head > 0:
        t.line_links[link.promised_head - 1].promised_previous = row + 1
    link.promised_head = row + 1
    link.promised_count += 1
    t.counters[MOST_PROMISED] = max(t.counters[MOST_PROMISED], np.int64(link.promised_count))


@kernel
def link_promises(t, rows):
    """List the promised lines (int64[], oldest promise first) by their cells, after a restore."""
    for row in range(t.pool[0].cell_count):
        t.cell_links[row].promised_head = 0
        t.cell_links[row].promised_count = 0
    for row in rows:
        piece = first_piece(t, row)
        while piece >= 0:
            _link_promise(t, cell_of(t, row, piece), piece)
            piece = next_piece(t, piece)


@kernel
def _unlink_line(t, row):
    piece = first_piece(t, row)
    while piece >= 0:
        _unlink_promise(t, cell_of(t, row, piece), piece)
        piece = next_piece(t, piece)


@kernel
def _unlink_promise(t, cell, row):
    own = t.line_links[row]
    link = t.cell_links[cell]
    if own.promised_previous > 0:
        t.line_links[own.promised_previous - 1].promised_next = own.promised_next
    else:
        link.promised_head = own.promised_next
    if own.promised_next > 0:
        t.line_links[own.promised_next - 1].promised_previous = own.promised_previous
    link.promised_count -= 1


@kernel
def open_units(line):
    """Units that are promised and not yet shipped."""
    return np.int64(line.quantity - line.shipped) if line.state == RESERVED else np.int64(0)


@kernel
def waiting_units(line):
    """Units that have no promise."""
    return np.int64(line.quantity) if line.state == WAITING or line.state == ADDED else np.int64(0)


@kernel
def settle_line(t, row):
    """Bring a line's state in line with its units, and note the change."""
    line = t.lines[row]
    if line.state == RESERVED and line.quantity == line.shipped:
        _unlink_line(t, row)
        line.state = SHIPPED if line.shipped > 0 else DROPPED
    elif (line.state == WAITING or line.state == ADDED) and (line.quantity == 0 or line.shipped > 0):
        _leave_queue(t, row)
        line.state = SHIPPED if line.shipped > 0 else DROPPED
    elif line.state == DROPPED and line.shipped > 0:
        line.state = SHIPPED
    mark(t.journal, t.counters, LINES, line, row)


@kernel
def unwant(t, row, units, event_row):
    """Take open or waiting units out of an order: nobody wants them any more."""
    line = t.lines[row]
    if line.state == RESERVED:
        line.released += units
        reserve_line(t, row, -units, event_row)
    line.quantity -= units
    settle_line(t, row)


@kernel
def unwant_line(t, row, event_row):
    """Take all that is open or waiting of a line out of its order; what was shipped of it stays shipped."""
    units = open_units(t.lines[row]) + waiting_units(t.lines[row])
    if units > 0:
        unwant(t, row, units, event_row)


@kernel
def add_part(t, row, units, state):
    """Make a part of a line behind its row; returns the part's row."""
    line = t.lines[row]
    part = add_line(t, line.order, row, line.sku, units, line.id_at, line.id_size)
    t.lines[part].root = line.root
    t.lines[part].state = state
    previous = np.int32(-1)
    piece = line.kit
    while piece >= 0:
        previous = _add_piece(t, part, previous, t.lines[piece].sku, t.lines[piece].quantity)
        piece = t.lines[piece].next
    return part


@kernel
def has_room_for_part(t, row):
    """Whether a line, and its order, may be cut into one part more."""
    order = t.orders[t.lines[row].order]
    if order.line_count >= MAX_ORDER_PARTS:
        return False
    parts = 0
    other = order.first_line
    while other >= 0:
        parts += t.lines[other].root == t.lines[row].root
        other = t.lines[other].next
    return parts < MAX_LINE_PARTS


@kernel
def want_again(t, row, units, event_row):
    """Give back open units of a line that are still wanted: a part of their own, to be routed.

    The line keeps its shipment, since the units may leave the location all the same. A line cut into as many parts as it may be
    forgets its shipment instead, if it gives back all it has.
    """
    line = t.lines[row]
    reserve_line(t, row, -units, event_row)
    if units == line.quantity and not has_room_for_part(t, row):
        _unlink_line(t, row)
        line.state = ADDED
        line.shipment_sequence = 0
        line.shipment_number = 0
        line.released = 0
        line.missing = 0
        line.rung = 0
        line.implied = 0
        mark(t.journal, t.counters, LINES, line, row)
        return
    add_part(t, row, units, ADDED)
    line.quantity -= units
    line.released += units
    settle_line(t, row)


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
def _free_lines(t, row):
    """Free the rows of a chain of lines, or of pieces."""
    pool = t.pool[0]
    while row >= 0:
        following = t.lines[row].next
        t.lines[row].state = 0
        t.lines[row].next = pool.free_line
        pool.free_line = row
        mark(t.journal, t.counters, LINES, t.lines[row], row)
        row = following


@kernel
def _free_order(t, row):
    order = t.orders[row]
    pool = t.pool[0]
    line = order.first_line
    while line >= 0:
        following = t.lines[line].next
        _free_lines(t, t.lines[line].kit)
        line = following
    _free_lines(t, order.first_line)
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
def push_hold(t, row):
    """Put a held order among those that expire."""
    order = t.orders[row]
    push_timed(t.holds, t.counters, HOLD_COUNT, order.expires_at, order.age, row)


@kernel
def _still_held(t, hold):
    """Whether an entry of the heap is that of a hold as it is now: one held again is in it twice."""
    order = t.orders[hold.order]
    return order.state == HELD and order.age == hold.age and order.expires_at == hold.time


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
        if _still_held(t, t.holds[i]):
            push_hold(t, row)


@kernel
def pop_due_hold(t):
    """Take the next hold that has expired by the pool's now; -1 = none is due."""
    while t.counters[HOLD_COUNT] > 0 and t.holds[0].time <= t.pool[0].now:
        row, due = t.holds[0].order, _still_held(t, t.holds[0])
        pop_timed(t.holds, t.counters, HOLD_COUNT)
        if due:
            return row
    return np.int32(-1)
