"""More than 8 lines, up to a thousand: bit sets of covered lines per location, and a set cover with a bounded search.

A single location that can ship everything is found exactly. Otherwise the lines to serve are settled first (those that some
location can take; of lines that share a SKU, a subset of most units), since units come before shipments; covers.py
then chooses the locations. Locations that a nearer one covers as well are left out.
Without a shared SKU the units are the most possible. With one they are, too, up to 8 lines of a SKU; beyond that the
largest lines are placed first where they fit tightest.
Owner: kernel.py.
Not here: the search itself (covers.py), 8 lines and fewer (few.py).
"""

from collections import namedtuple

import numpy as np

from streams.routing.bits import EMPTY, add, has, size_of, within
from streams.routing.candidates import EXACT_LINES, NONE, OWN, SHIPPER, free_units, open_slot
from streams.routing.covers import Covers, choose_takers
from streams.routing.distance import metres
from streams.routing.explain import find_losers, pick_single, write_losers, write_promises
from streams.routing.few import Lines, combine_families
from topics.kernels import allocating_kernel
from topics.reasons import Unallocated, Won

# One order's lines by SKU: group g's lines are lines[start[g]:start[g + 1]], most units first; group: int32[n], -1 = nobody
# stocks it. covers: uint64[slots, words], the lines a slot could take alone.
Order = namedtuple("Order", "count group_count start lines group sku quantity words covers")


@allocating_kernel
def route_many(
    view,
    sku_rows,
    quantities,
    refused_lines,
    refused_locations,
    x,
    y,
    z,
    pickup_location,
    allow_split,
    allow_partial,
    scratch,
    out,
):
    """Route an order of more than 8 lines; arguments and result as for `route_order_kernel`."""
    order = _group_lines(sku_rows, quantities, scratch)
    slot_count = _gather(view, order, refused_lines, refused_locations, x, y, z, pickup_location, scratch)
    slots, line_slot = scratch.slots, scratch.line_slot
    line_slot[: order.count] = -1
    own = -1
    if pickup_location >= 0:
        for slot in range(slot_count):
            if slots[slot].role == OWN:
                own = slot

    winner, won = -1, Won.FEWEST_SHIPMENTS
    ask = np.zeros(order.words, np.uint64)
    for i in range(order.count):
        add(ask, i)
    if own >= 0 and (allow_split or (not slots[own].short and within(ask, order.covers[own]))):
        _serve_own(view, order, own, ask, scratch)
    served_own = size_of(ask) < order.count
    if not allow_split:
        if size_of(ask):
            winner, won = _single(view, order, ask, slot_count, scratch)
    elif size_of(ask):
        _settle(view, order, ask, slot_count, scratch)
        if size_of(ask):
            winner, won = _single(view, order, ask, slot_count, scratch)
            if winner < 0:
                _spread(view, order, ask, slot_count, scratch)
                won = Won.FEWEST_SHIPMENTS
        _complete(view, order, refused_lines, refused_locations, slot_count, scratch)

    units = total = np.int64(0)
    promised = 0
    for i in range(order.count):
        total += order.quantity[i]
        if line_slot[i] >= 0:
            units += order.quantity[i]
            promised += 1
    if promised < order.count and not allow_partial:
        line_slot[: order.count] = -1
        units, promised = np.int64(0), 0
    if promised == 0:
        won = Won.NOTHING
    elif served_own:
        won = Won.OWN_STOCK
    _find_cells(view, order, scratch)
    _why_waiting(view, order, refused_lines, refused_locations, allow_split, scratch, out)
    lines, shipments = write_promises(order.count, pickup_location, scratch, out)
    if shipments > 1 and not served_own:
        won = Won.FEWEST_SHIPMENTS
    out.explanation[0] = slot_count
    out.explanation[1] = won
    out.explanation[3] = shipments
    loser_count = find_losers(view, slot_count, scratch)
    for i in range(loser_count):
        slots[scratch.near[i]].units = _units_alone(view, order, scratch.near[i], refused_lines, refused_locations, scratch)
    write_losers(view, loser_count, winner, won, units if units else total, scratch, out)
    return lines


@allocating_kernel
def _group_lines(sku_rows, quantities, scratch):
    """Sort lines by SKU, within a SKU by falling quantity, then by place in the order."""
    count = sku_rows.size
    quantity = quantities.astype(np.int64)
    by_quantity = np.argsort(-quantity, kind="mergesort")
    lines = by_quantity[np.argsort(sku_rows[by_quantity], kind="mergesort")].astype(np.int32)
    group = np.full(count, -1, np.int32)
    start = np.zeros(count + 1, np.int32)
    sku = np.empty(count, np.int32)
    group_count = 0
    for at in range(count):
        row = sku_rows[lines[at]]
        if row < 0:
            start[0] = at + 1
            continue
        if group_count == 0 or sku[group_count - 1] != row:
            sku[group_count] = row
            start[group_count] = at
            group_count += 1
        start[group_count] = at + 1
        group[lines[at]] = group_count - 1
    words = (count + 63) >> 6
    covers = scratch.covers[: scratch.covers.size // words * words].reshape(-1, words)
    return Order(count, group_count, start, lines, group, sku, quantity, words, covers)


@allocating_kernel
def _block(view, order, group):
    """The cells of a group's SKU, as a range of `view.sku_cells`."""
    link = view.sku_links[order.sku[group]]
    return link.block_at, link.block_at + link.block_count


@allocating_kernel
def _gather(view, order, refused_lines, refused_locations, x, y, z, pickup_location, scratch):
    """Give each location with a cell of an ordered SKU a slot, and note which lines it covers; return their number."""
    scratch.clock[0] += 1
    clock = scratch.clock[0]
    places, slots, covers = scratch.places, scratch.slots, order.covers
    cells, locations, sku_cells = view.cells, view.locations, view.sku_cells
    lines, start, quantity = order.lines, order.start, order.quantity
    slot_count = 0
    for group in range(order.group_count):
        total = np.int64(0)
        for k in range(start[group], start[group + 1]):
            total += quantity[lines[k]]
        block_at, block_end = _block(view, order, group)
        for at in range(block_at, block_end):
            row = sku_cells[at]
            location = cells[row].location
            if places[location].stamp == clock:
                slot = places[location].slot
            else:
                slot = slot_count
                open_slot(locations, location, x, y, z, pickup_location, clock, places, slots, slot)
                covers[slot, :] = EMPTY
                slot_count += 1
            free = free_units(cells[row])
            if free < total:
                slots[slot].short = 1
            for k in range(start[group], start[group + 1]):
                if quantity[lines[k]] <= free:
                    add(covers[slot], lines[k])
    for i in range(refused_lines.size):
        place = places[refused_locations[i]]
        if place.stamp == clock:
            covers[place.slot, refused_lines[i] >> 6] &= ~(np.uint64(1) << np.uint64(refused_lines[i] & 63))
    return slot_count


@allocating_kernel
def _units_at(view, order, group, location):
    """Units of a group's SKU that may be promised at a location."""
    block_at, block_end = _block(view, order, group)
    for at in range(block_at, block_end):
        cell = view.cells[view.sku_cells[at]]
        if cell.location == location:
            return max(np.int64(0), np.int64(free_units(cell)))
    return np.int64(0)


@allocating_kernel
def _most(order, group, cover, ask, free):
    """Of a group's lines in both sets, a subset of most units that fits; a set over the group's lines, as bits of an int.

    Exact up to 12 lines of a SKU, then largest first. Bits past the 62nd are never set: such lines wait.
    """
    first = order.start[group]
    size = min(order.start[group + 1] - first, 62)
    fits = np.int64(0)
    for k in range(size):
        line = order.lines[first + k]
        if has(cover, line) and has(ask, line):
            fits |= np.int64(1) << k
    greedy, total = np.int64(0), np.int64(0)
    for k in range(size):
        units = order.quantity[order.lines[first + k]]
        if fits >> k & 1 and total + units <= free:
            greedy |= np.int64(1) << k
            total += units
    if greedy == fits or size > 12:
        return greedy
    best, subset = greedy, fits
    while subset:
        units = np.int64(0)
        for k in range(size):
            if subset >> k & 1:
                units += order.quantity[order.lines[first + k]]
        if total < units <= free:
            best, total = subset, units
        subset = (subset - 1) & fits
    return best


@allocating_kernel
def _serve_own(view, order, own, ask, scratch):
    """Serve from a pickup's own location what it can; take it from `ask`."""
    location = scratch.slots[own].location
    cover = order.covers[own]
    for group in range(order.group_count):
        first, stop = order.start[group], order.start[group + 1]
        part = np.int64(0)
        if stop - first == 1:
            part = np.int64(has(cover, order.lines[first]))
        else:
            part = _most(order, group, cover, ask, _units_at(view, order, group, location))
        for k in range(min(stop - first, 62)):
            if part >> k & 1:
                line = order.lines[first + k]
                scratch.line_slot[line] = own
                ask[line >> 6] &= ~(np.uint64(1) << np.uint64(line & 63))


@allocating_kernel
def _asked(order, group, ask):
    """A group's lines in a set, most units first."""
    lines = np.empty(order.start[group + 1] - order.start[group], np.int32)
    count = 0
    for k in range(order.start[group], order.start[group + 1]):
        if has(ask, order.lines[k]):
            lines[count] = order.lines[k]
            count += 1
    return lines[:count]


@allocating_kernel
def _settle(view, order, ask, slot_count, scratch):
    """Take from `ask` the lines that cannot be served by any shipper, alone or together with the others of their SKU."""
    slots, covers = scratch.slots, order.covers
    for w in range(order.words):
        union = EMPTY
        for slot in range(slot_count):
            if slots[slot].role == SHIPPER:
                union |= covers[slot, w]
        ask[w] &= union
    for group in range(order.group_count):
        if order.start[group + 1] - order.start[group] == 1:
            continue
        lines = _asked(order, group, ask)
        if lines.size > 1 and not _fits_somewhere(view, order, group, lines, scratch):
            if lines.size <= EXACT_LINES:
                _settle_exactly(view, order, group, lines, ask, slot_count, scratch)
            else:
                _settle_tightest(view, order, group, lines, ask, scratch)


@allocating_kernel
def _fits_somewhere(view, order, group, lines, scratch):
    """Whether one shipper can take all of a group's asked lines."""
    units = order.quantity[lines].sum()
    block_at, block_end = _block(view, order, group)
    for at in range(block_at, block_end):
        cell = view.cells[view.sku_cells[at]]
        slot = scratch.places[cell.location].slot
        if free_units(cell) >= units and scratch.slots[slot].role == SHIPPER:
            takes = True
            for i in range(lines.size):
                takes = takes and has(order.covers[slot], lines[i])
            if takes:
                return True
    return False


@allocating_kernel
def _settle_exactly(view, order, group, lines, ask, slot_count, scratch):
    """Keep in `ask` the subset of a group's lines of most units that shippers can take, by few.py's exact method."""
    slots = scratch.slots
    for slot in range(slot_count):
        slots[slot].cover = 0
    block_at, block_end = _block(view, order, group)
    for at in range(block_at, block_end):
        cell = view.cells[view.sku_cells[at]]
        slot = scratch.places[cell.location].slot
        scratch.available[slot * EXACT_LINES] = max(0, free_units(cell))
        for i in range(lines.size):
            if has(order.covers[slot], lines[i]):
                slots[slot].cover |= 1 << i
    sums = np.zeros(1 << lines.size, np.int64)
    for i in range(lines.size):
        for part in range(1 << i):
            sums[part | 1 << i] = sums[part] + order.quantity[lines[i]]
    mask = np.full(1, sums.size - 1, np.int64)
    cost, _, _, _ = combine_families(Lines(lines.size, 1, True, sums, mask), slot_count, scratch)
    best = 0
    for part in range(sums.size):
        if cost[part] < np.inf and (sums[part] > sums[best] or (sums[part] == sums[best] and cost[part] < cost[best])):
            best = part
    for i in range(lines.size):
        if not best >> i & 1:
            ask[lines[i] >> 6] &= ~(np.uint64(1) << np.uint64(lines[i] & 63))


@allocating_kernel
def _settle_tightest(view, order, group, lines, ask, scratch):
    """Place a group's lines, most units first, where they leave least; take from `ask` those that fit nowhere."""
    block_at, block_end = _block(view, order, group)
    left = np.empty(block_end - block_at, np.int64)
    slot_at = np.empty(left.size, np.int32)
    for k in range(left.size):
        cell = view.cells[view.sku_cells[block_at + k]]
        slot_at[k] = scratch.places[cell.location].slot
        left[k] = free_units(cell) if scratch.slots[slot_at[k]].role == SHIPPER else 0
    for i in range(lines.size):
        units = order.quantity[lines[i]]
        best = -1
        for k in range(left.size):
            if left[k] >= units and (best < 0 or left[k] < left[best]) and has(order.covers[slot_at[k]], lines[i]):
                best = k
        if best >= 0:
            left[best] -= units
        else:
            ask[lines[i] >> 6] &= ~(np.uint64(1) << np.uint64(lines[i] & 63))


@allocating_kernel
def _single(view, order, ask, slot_count, scratch):
    """Assign all lines of `ask` to the best location that can take them; return (slot or -1, reasons.Won)."""
    slots = scratch.slots
    for slot in range(slot_count):
        slots[slot].whole = slots[slot].role == SHIPPER and within(ask, order.covers[slot])
    for group in range(order.group_count):
        if order.start[group + 1] - order.start[group] == 1:
            continue
        lines = _asked(order, group, ask)
        if lines.size < 2:
            continue
        units = order.quantity[lines].sum()
        block_at, block_end = _block(view, order, group)
        for at in range(block_at, block_end):
            cell = view.cells[view.sku_cells[at]]
            if free_units(cell) < units:
                slots[scratch.places[cell.location].slot].whole = 0
    winner, won = pick_single(view, slots, slot_count)
    if winner >= 0:
        for i in range(order.count):
            if has(ask, i):
                scratch.line_slot[i] = winner
    return winner, won


@allocating_kernel
def _spread(view, order, ask, slot_count, scratch):
    """Assign the lines of `ask` to several locations."""
    takers = _undominated(order, ask, slot_count, scratch)
    lines = _rarest_first(order, ask, takers)
    covers = _pose(view, order, lines, takers, slot_count, scratch)
    line_taker = np.empty(lines.size, np.int32)
    choose_takers(covers, line_taker)
    for i in range(lines.size):
        if line_taker[i] >= 0:
            scratch.line_slot[lines[i]] = takers[line_taker[i]]


@allocating_kernel
def _undominated(order, ask, slot_count, scratch):
    """Shippers of any asked line, nearest first, without those whose lines a nearer one covers with stock for all of them."""
    slots, covers = scratch.slots, order.covers
    shippers = np.empty(slot_count, np.int32)
    chords = np.empty(slot_count, np.float64)
    count = 0
    for slot in range(slot_count):
        if slots[slot].role == SHIPPER:
            shippers[count] = slot
            chords[count] = slots[slot].chord2
            count += 1
    nearest = np.argsort(chords[:count], kind="mergesort")
    kept = np.empty(count, np.int32)
    kept_count = 0
    for rank in range(count):
        slot = shippers[nearest[rank]]
        useful = False
        for w in range(order.words):
            useful = useful or covers[slot, w] & ask[w] != EMPTY
        k = 0
        while useful and k < kept_count:
            # One that is short of a shared SKU may be needed beside the nearer one, or the other way round.
            if not slots[kept[k]].short:
                useful = False
                for w in range(order.words):
                    useful = useful or covers[slot, w] & ask[w] & ~covers[kept[k], w] != EMPTY
            k += 1
        if useful:
            kept[kept_count] = slot
            kept_count += 1
    return kept[:kept_count]


@allocating_kernel
def _rarest_first(order, ask, takers):
    """The asked lines, those with the fewest takers first."""
    lines = np.empty(order.count, np.int32)
    rarity = np.zeros(order.count, np.int32)
    count = 0
    for i in range(order.count):
        if has(ask, i):
            for k in range(takers.size):
                rarity[count] += has(order.covers[takers[k]], i)
            lines[count] = i
            count += 1
    return lines[:count][np.argsort(rarity[:count], kind="mergesort")]


@allocating_kernel
def _pose(view, order, lines, takers, slot_count, scratch):
    """Write down the set-cover problem of some lines and takers."""
    bits = np.zeros((takers.size, (lines.size + 63) >> 6), np.uint64)
    price_m = np.empty(takers.size, np.float64)
    for j in range(takers.size):
        price_m[j] = metres(scratch.slots[takers[j]].chord2)
        for i in range(lines.size):
            if has(order.covers[takers[j]], lines[i]):
                add(bits[j], i)
    number = np.full(order.count, -1, np.int32)
    for i in range(lines.size):
        number[lines[i]] = i
    taker_of = np.full(slot_count, -1, np.int32)
    for j in range(takers.size):
        taker_of[takers[j]] = j

    group_start = np.zeros(order.group_count + 1, np.int32)
    group_line = np.empty(lines.size, np.int32)
    group_of = np.empty(order.group_count, np.int32)
    shared = size = 0
    for group in range(order.group_count):
        first = size
        for k in range(order.start[group], order.start[group + 1]):
            if number[order.lines[k]] >= 0:
                group_line[size] = number[order.lines[k]]
                size += 1
        if size - first < 2:
            size = first
            continue
        group_of[shared] = group
        shared += 1
        group_start[shared] = size
    free = np.zeros((shared, takers.size), np.int64)
    for g in range(shared):
        block_at, block_end = _block(view, order, group_of[g])
        for at in range(block_at, block_end):
            cell = view.cells[view.sku_cells[at]]
            j = taker_of[scratch.places[cell.location].slot]
            if j >= 0:
                free[g, j] = max(0, free_units(cell))
    return Covers(lines.size, bits, price_m, order.quantity[lines], group_start[: shared + 1], group_line[:size], free)


@allocating_kernel
def _left_at(order, group, free, slot, scratch):
    """Units left of a group's SKU at a slot after what this order takes there."""
    left = np.int64(free)
    for k in range(order.start[group], order.start[group + 1]):
        if scratch.line_slot[order.lines[k]] == slot:
            left -= order.quantity[order.lines[k]]
    return left


@allocating_kernel
def _complete(view, order, refused_lines, refused_locations, slot_count, scratch):
    """Give lines that still wait to the nearest shipper with units left: what a bounded packing may have missed."""
    for line in range(order.count):
        group = order.group[line]
        if scratch.line_slot[line] >= 0 or group < 0 or order.start[group + 1] - order.start[group] == 1:
            continue
        best = -1
        block_at, block_end = _block(view, order, group)
        for at in range(block_at, block_end):
            cell = view.cells[view.sku_cells[at]]
            slot = scratch.places[cell.location].slot
            entry = scratch.slots[slot]
            if entry.role != SHIPPER or not has(order.covers[slot], line):
                continue
            if best >= 0 and entry.chord2 >= scratch.slots[best].chord2:
                continue
            if _left_at(order, group, free_units(cell), slot, scratch) >= order.quantity[line]:
                best = slot
        scratch.line_slot[line] = best


@allocating_kernel
def _find_cells(view, order, scratch):
    """Find the cell of each promised line."""
    cells, sku_cells, places = view.cells, view.sku_cells, scratch.places
    for group in range(order.group_count):
        wanted = 0
        for k in range(order.start[group], order.start[group + 1]):
            wanted += scratch.line_slot[order.lines[k]] >= 0
        block_at, block_end = _block(view, order, group)
        at = block_at
        while wanted > 0 and at < block_end:
            row = sku_cells[at]
            slot = places[cells[row].location].slot
            for k in range(order.start[group], order.start[group + 1]):
                if scratch.line_slot[order.lines[k]] == slot:
                    scratch.line_cell[order.lines[k]] = row
                    wanted -= 1
            at += 1


@allocating_kernel
def _refused(line, location, refused_lines, refused_locations):
    for i in range(refused_lines.size):  # noqa: SIM110 (numba compiles no generator here)
        if refused_lines[i] == line and refused_locations[i] == location:
            return True
    return False


@allocating_kernel
def _why_waiting(view, order, refused_lines, refused_locations, allow_split, scratch, out):
    """Write why each waiting line got no promise, after what the order's other lines took."""
    for line in range(order.count):
        if scratch.line_slot[line] >= 0:
            continue
        reason = Unallocated.NO_STOCK if allow_split else Unallocated.NO_SINGLE_LOCATION
        group = order.group[line]
        if allow_split and group >= 0:
            block_at, block_end = _block(view, order, group)
            for at in range(block_at, block_end):
                cell = view.cells[view.sku_cells[at]]
                slot = scratch.places[cell.location].slot
                if _left_at(order, group, free_units(cell), slot, scratch) < order.quantity[line]:
                    continue
                eligible = scratch.slots[slot].role != NONE
                if eligible and not _refused(line, cell.location, refused_lines, refused_locations):
                    reason = Unallocated.ALL_OR_NOTHING
                    break
                reason = Unallocated.NOT_ELIGIBLE
        out.reason[line] = reason


@allocating_kernel
def _units_alone(view, order, slot, refused_lines, refused_locations, scratch):
    """Most units of the order that a slot could take alone; -1 if it has units only for lines it refused."""
    location = scratch.slots[slot].location
    cover = order.covers[slot]
    everything = np.full(order.words, ~EMPTY)
    total = np.int64(0)
    for group in range(order.group_count):
        first, stop = order.start[group], order.start[group + 1]
        if stop - first == 1:
            if has(cover, order.lines[first]):
                total += order.quantity[order.lines[first]]
            continue
        part = _most(order, group, cover, everything, _units_at(view, order, group, location))
        for k in range(min(stop - first, 62)):
            if part >> k & 1:
                total += order.quantity[order.lines[first + k]]
    if total == 0:
        for i in range(refused_lines.size):
            line = refused_lines[i]
            if refused_locations[i] != location or order.group[line] < 0:
                continue
            if _units_at(view, order, order.group[line], location) >= order.quantity[line]:
                return np.int64(-1)
    return total
