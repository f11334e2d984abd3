"""More than 8 lines, up to a thousand: bit sets of covered lines per location, and a set cover with a bounded search.

A single location that can ship everything is found exactly. Otherwise the lines to serve are settled first, since units come
before shipments: all lines that some location can take, and of lines that share a SKU, a subset of most units. Then covers.py
chooses the locations. A location is left out if a cheaper one covers its lines.
The units are the most possible if no SKU is on more than 8 lines. Of more lines of a SKU, the largest are placed first, where
they leave least.
Owner: lines.py.
Not here: the search itself (covers.py), 8 lines and fewer (few.py).
"""

from collections import namedtuple

import numpy as np

from streams.routing.answer import find_losers, keep_promises, write_losers, write_promises
from streams.routing.bits import EMPTY, add, drop, fill, has, size_of, within
from streams.routing.candidates import find_own, free_units, open_candidate
from streams.routing.covers import NOBODY, Covers, choose_takers
from streams.routing.families import Lines, combine_families, sort_by_price
from streams.routing.fences import SHIPPER, fenced_off, refuses
from streams.routing.prices import cost_of, shipment_cost
from streams.routing.scratch import EXACT_LINES
from streams.routing.sorting import sort_rows
from streams.routing.ties import pick_single
from topics.compiled.kernels import inner_kernel
from topics.reasons import Unallocated, Won

# Lines of one SKU among which the best subset for one location is found by trying them all; then largest first.
SUBSET_LINES = 12
# Lines of one SKU that one location is considered for; a set of them is held in an int64.
SHARED_LINES = 62

# One order's lines by SKU: group g's lines are lines[start[g]:start[g + 1]], most units first; group: int32[n], -1 = nobody
# stocks it. covers: uint64[candidates, words], the lines a location could take alone.
Order = namedtuple("Order", "count group_count start lines group sku quantity words covers")


@inner_kernel
def route_many(view, line_count, refused_lines, refused_locations, x, y, z, pickup_location, allow_split, allow_partial, work):
    """Route an order of more than 8 lines; arguments as for `route_lines`."""
    order = _group_lines(line_count, work)
    found_count = _gather(view, order, refused_lines, refused_locations, x, y, z, pickup_location, work)
    candidates, line_location, locations = work.candidates, work.line_location, view.locations
    own = find_own(pickup_location, work)
    ask = work.ask[: order.words]
    fill(ask, line_count)
    for i in range(line_count):
        line_location[i] = -1
    if own >= 0 and (allow_split or (not candidates[own].short and within(ask, order.covers[own]))):
        _serve_own(view, order, own, ask, work)
    asked = size_of(ask)
    served_own = asked < line_count

    winner, won = np.int64(-1), np.int64(Won.FEWEST_SHIPMENTS)
    if asked and not allow_split:
        winner, won = _single(view, order, ask, found_count, work)
    elif asked:
        _settle(view, order, ask, found_count, work)
        if size_of(ask):
            winner, won = _single(view, order, ask, found_count, work)
            if winner < 0:
                _spread(view, order, ask, found_count, work)
        _complete(view, order, work)

    promised, units = keep_promises(line_count, allow_partial, work)
    if promised == 0:
        served_own = False
        won = np.int64(Won.NOTHING)
    _find_cells(view, order, work)
    _write_reasons(view, order, refused_lines, refused_locations, allow_split, work)
    lines, shipments = write_promises(locations, line_count, x, y, z, pickup_location, work)
    if served_own:
        won = np.int64(Won.OWN_STOCK)
    elif shipments > 1:
        won = np.int64(Won.FEWEST_SHIPMENTS)
    explanation = work.out.explanation
    explanation[0] = found_count
    explanation[1] = won
    explanation[3] = shipments
    loser_count = find_losers(locations, found_count, work)
    fill(ask, line_count)
    for i in range(loser_count):
        location = np.int64(work.near[i])
        candidates[location].units = _units_alone(view, order, location, ask, refused_lines, refused_locations)
    write_losers(locations, found_count, loser_count, x, y, z, winner, won, units, work)
    return lines


@inner_kernel
def _group_lines(count, work):
    """Sort lines by SKU, within a SKU by falling quantity, then by place in the order."""
    line_sku, quantity, lines, key = work.line_sku, work.line_quantity, work.lines, work.line_key
    group, start, sku = work.line_group, work.group_start, work.group_sku
    for i in range(count):
        lines[i] = i
        key[i] = (np.int64(line_sku[i]) << 32) - quantity[i]
    sort_rows(key, lines, count)
    group_count = 0
    start[0] = 0
    for at in range(count):
        line = lines[at]
        group[line] = -1
        if line_sku[line] < 0:
            start[0] = at + 1
            continue
        if group_count == 0 or sku[group_count - 1] != line_sku[line]:
            sku[group_count] = line_sku[line]
            group_count += 1
        start[group_count] = at + 1
        group[line] = group_count - 1
    return Order(count, group_count, start, lines, group, sku, quantity, (count + 63) >> 6, work.covers)


@inner_kernel
def _block(view, order, group):
    """The cells of a group's SKU, as a range of `view.sku_cells`."""
    link = view.sku_links[order.sku[group]]
    return link.block_at, link.block_at + link.block_count


@inner_kernel
def _gather(view, order, refused_lines, refused_locations, x, y, z, pickup_location, work):
    """Make each location with a cell of an ordered SKU a candidate, and note what it covers; return how many are."""
    work.clock[0] += 1
    clock = work.clock[0]
    candidates, found, covers = work.candidates, work.found, order.covers
    cells, locations, sku_cells = view.cells, view.locations, view.sku_cells
    lines, start, quantity = order.lines, order.start, order.quantity
    found_count = np.int64(0)
    for group in range(order.group_count):
        first, last = start[group], start[group + 1]
        total = np.int64(0)
        for k in range(first, last):
            total += quantity[lines[k]]
        block_at, block_end = _block(view, order, group)
        for at in range(block_at, block_end):
            row = sku_cells[at].row
            location = np.int64(cells[row].location)
            entry = candidates[location]
            if entry.stamp != clock:
                open_candidate(entry, locations[location], location, x, y, z, pickup_location, clock)
                for w in range(order.words):
                    covers[location, w] = EMPTY
                found[found_count] = location
                found_count += 1
            free = free_units(cells[row])
            if free < total:
                entry.short = 1
            for k in range(first, last):
                line = lines[k]
                if quantity[line] <= free:
                    covers[location, line >> 6] |= np.uint64(1) << np.uint64(line & 63)
    for i in range(refused_lines.size):
        if candidates[refused_locations[i]].stamp == clock:
            drop(covers[refused_locations[i]], refused_lines[i])
    return found_count


@inner_kernel
def _units_at(view, order, group, location):
    """Units of a group's SKU that may be promised at a location."""
    block_at, block_end = _block(view, order, group)
    for at in range(block_at, block_end):
        cell = view.cells[view.sku_cells[at].row]
        if cell.location == location:
            return max(np.int64(0), free_units(cell))
    return np.int64(0)


@inner_kernel
def _most(view, order, group, location, ask):
    """Of a group's lines in `ask`, a subset of most units that a location can take; a set over the group's lines.

    Exact up to SUBSET_LINES lines, then largest first.
    """
    first = order.start[group]
    size = min(order.start[group + 1] - first, SHARED_LINES)
    cover = order.covers[location]
    fits = np.int64(0)
    for k in range(size):
        line = order.lines[first + k]
        if has(cover, line) and has(ask, line):
            fits |= np.int64(1) << k
    if size == 1:
        return fits
    free = _units_at(view, order, group, location)
    best, most = np.int64(0), np.int64(0)
    for k in range(size):
        units = order.quantity[order.lines[first + k]]
        if fits >> k & 1 and most + units <= free:
            best |= np.int64(1) << k
            most += units
    if best == fits or size > SUBSET_LINES:
        return best
    subset = fits
    while subset:
        units = _units_of(order, group, subset)
        if most < units <= free:
            best, most = subset, units
        subset = (subset - 1) & fits
    return best


@inner_kernel
def _units_of(order, group, part):
    """Units of a set over a group's lines."""
    units = np.int64(0)
    k = order.start[group]
    while part:
        if part & 1:
            units += order.quantity[order.lines[k]]
        part >>= 1
        k += 1
    return units


@inner_kernel
def _serve_own(view, order, own, ask, work):
    """Serve from a pickup's own location what it can; take it from `ask`."""
    for group in range(order.group_count):
        part = _most(view, order, group, own, ask)
        k = order.start[group]
        while part:
            if part & 1:
                work.line_location[order.lines[k]] = own
                drop(ask, order.lines[k])
            part >>= 1
            k += 1


@inner_kernel
def _list_asked(order, group, ask, asked):
    """Put a group's lines that are in `ask` into `asked`, most units first; return (how many, their units)."""
    count, units = 0, np.int64(0)
    for k in range(order.start[group], order.start[group + 1]):
        line = order.lines[k]
        if has(ask, line):
            asked[count] = line
            count += 1
            units += order.quantity[line]
    return count, units


@inner_kernel
def _settle(view, order, ask, found_count, work):
    """Take from `ask` the lines that cannot be served by any shipper, alone or together with the others of their SKU."""
    candidates, covers = work.candidates, order.covers
    for w in range(order.words):
        union = EMPTY
        for k in range(found_count):
            location = np.int64(work.found[k])
            if candidates[location].role == SHIPPER:
                union |= covers[location, w]
        ask[w] &= union
    for group in range(order.group_count):
        count, units = _list_asked(order, group, ask, work.asked)
        if count < 2 or _fits_somewhere(view, order, group, count, units, work):
            continue
        if count <= EXACT_LINES:
            _settle_exactly(view, order, group, count, ask, found_count, work)
        else:
            _settle_tightest(view, order, group, count, ask, work)


@inner_kernel
def _fits_somewhere(view, order, group, count, units, work):
    """Whether one shipper can take all of a group's asked lines."""
    block_at, block_end = _block(view, order, group)
    for at in range(block_at, block_end):
        cell = view.cells[view.sku_cells[at].row]
        location = np.int64(cell.location)
        takes = free_units(cell) >= units and work.candidates[location].role == SHIPPER
        for i in range(count):
            takes = takes and has(order.covers[location], work.asked[i])
        if takes:
            return True
    return False


@inner_kernel
def _settle_exactly(view, order, group, count, ask, found_count, work):
    """Keep in `ask` the subset of a group's lines of most units that shippers can take, by the exact method of families.py."""
    candidates, sums, cost, mask, asked = work.candidates, work.sums, work.cost, work.group_mask, work.asked
    for k in range(found_count):
        location = np.int64(work.found[k])
        candidates[location].cover = 0
    block_at, block_end = _block(view, order, group)
    for at in range(block_at, block_end):
        cell = view.cells[view.sku_cells[at].row]
        location = np.int64(cell.location)
        work.cell_rows[location * EXACT_LINES] = view.sku_cells[at].row
        for i in range(count):
            if has(order.covers[location], asked[i]):
                candidates[location].cover |= 1 << i
    sums[0] = 0
    for i in range(count):
        for part in range(1 << i):
            sums[part | 1 << i] = sums[part] + order.quantity[asked[i]]
    full = (np.int64(1) << count) - 1
    mask[0] = full
    work.shared_groups[0] = 0
    combine_families(Lines(count, full, 1, 1, False, sums, mask, view.cells, EXACT_LINES), found_count, work)
    best = np.int64(0)
    for part in range(full + 1):
        if cost[part] < np.inf and (sums[part] > sums[best] or (sums[part] == sums[best] and cost[part] < cost[best])):
            best = part
    for i in range(count):
        if not best >> i & 1:
            drop(ask, asked[i])


@inner_kernel
def _settle_tightest(view, order, group, count, ask, work):
    """Place a group's lines, most units first, where they leave least; take from `ask` those that fit nowhere."""
    block_at, block_end = _block(view, order, group)
    left, size = work.room, block_end - block_at
    for k in range(size):
        cell = view.cells[view.sku_cells[block_at + k].row]
        left[k] = free_units(cell)
        if work.candidates[np.int64(cell.location)].role != SHIPPER:
            left[k] = 0
    for i in range(count):
        line = work.asked[i]
        units = order.quantity[line]
        best = -1
        for k in range(size):
            if left[k] < units or (best >= 0 and left[k] >= left[best]):
                continue
            location = np.int64(view.sku_cells[block_at + k].location)
            if has(order.covers[location], line):
                best = k
        if best >= 0:
            left[best] -= units
        else:
            drop(ask, line)


@inner_kernel
def _single(view, order, ask, found_count, work):
    """Assign all lines of `ask` to the best location that can take them; return (location or -1, reasons.Won)."""
    candidates = work.candidates
    for k in range(found_count):
        location = np.int64(work.found[k])
        candidates[location].whole = candidates[location].role == SHIPPER and within(ask, order.covers[location])
    for group in range(order.group_count):
        count, units = _list_asked(order, group, ask, work.asked)
        if count < 2:
            continue
        block_at, block_end = _block(view, order, group)
        for at in range(block_at, block_end):
            cell = view.cells[view.sku_cells[at].row]
            if free_units(cell) < units:
                candidates[np.int64(cell.location)].whole = 0
    winner, won = pick_single(view.locations, found_count, work)
    if winner >= 0:
        for i in range(order.count):
            if has(ask, i):
                work.line_location[i] = winner
    return winner, won


@inner_kernel
def _spread(view, order, ask, found_count, work):
    """Assign the lines of `ask` to several locations."""
    taker_count = _list_takers(order, ask, found_count, work)
    line_count = _list_rarest_first(order, ask, taker_count, work)
    covers = _pose(view, order, line_count, taker_count, found_count, work)
    choose_takers(covers, work.chosen, work.line_taker)
    for i in range(line_count):
        if work.line_taker[i] >= 0:
            work.line_location[work.asked[i]] = work.takers[work.line_taker[i]]


@inner_kernel
def _list_takers(order, ask, found_count, work):
    """Put the shippers of asked lines into `work.takers`, cheapest first, but none whose lines a cheaper one covers.

    A location that is short of a shared SKU makes no other superfluous: both may be needed.
    """
    candidates, covers, takers = work.candidates, order.covers, work.takers
    count = np.int64(0)
    for k in range(found_count):
        location = np.int64(work.found[k])
        if candidates[location].role == SHIPPER:
            takers[count] = location
            count += 1
    sort_by_price(count, work)
    kept = 0
    for rank in range(count):
        location = takers[rank]
        useful = False
        for w in range(order.words):
            useful = useful or covers[location, w] & ask[w] != EMPTY
        k = 0
        while useful and k < kept:
            if not candidates[takers[k]].short:
                useful = False
                for w in range(order.words):
                    useful = useful or covers[location, w] & ask[w] & ~covers[takers[k], w] != EMPTY
            k += 1
        if useful:
            takers[kept] = location
            kept += 1
    return kept


@inner_kernel
def _list_rarest_first(order, ask, taker_count, work):
    """Put the asked lines into `work.asked`, those with the fewest takers first; return how many."""
    count = np.int64(0)
    for line in range(order.count):
        if has(ask, line):
            work.line_key[line] = 0
            for k in range(taker_count):
                work.line_key[line] += has(order.covers[work.takers[k]], line)
            work.asked[count] = line
            count += 1
    sort_rows(work.line_key, work.asked, count)
    return count


@inner_kernel
def _pose(view, order, line_count, taker_count, found_count, work):
    """Write down the set-cover problem of the lines in `work.asked` and the candidates in `work.takers`."""
    asked, takers, number, candidates = work.asked, work.takers, work.line_number, work.candidates
    bits, quantity, start, lines = work.bits, work.quantity, work.shared_start, work.shared_line
    words = (line_count + 63) >> 6
    for i in range(order.count):
        number[i] = -1
    for i in range(line_count):
        number[asked[i]] = i
        quantity[i] = order.quantity[asked[i]]
    start[0] = 0
    shared = size = 0
    for group in range(order.group_count):
        first = size
        for k in range(order.start[group], order.start[group + 1]):
            if number[order.lines[k]] >= 0:
                lines[size] = number[order.lines[k]]
                size += 1
        if size - first < 2:
            size = first
            continue
        shared += 1
        start[shared] = size
    if shared * taker_count > work.free.size:
        taker_count = work.free.size // shared

    for k in range(found_count):
        location = np.int64(work.found[k])
        candidates[location].taker = -1
    for j in range(taker_count):
        candidates[takers[j]].taker = j
        work.taker_cost[j] = cost_of(candidates[takers[j]].price)
        for w in range(words):
            bits[j, w] = EMPTY
        for i in range(line_count):
            if has(order.covers[takers[j]], asked[i]):
                add(bits[j], i)
    for i in range(shared * taker_count):
        work.free[i] = 0
    for g in range(shared):
        block_at, block_end = _block(view, order, np.int64(order.group[asked[lines[start[g]]]]))
        for at in range(block_at, block_end):
            cell = view.cells[view.sku_cells[at].row]
            j = candidates[np.int64(cell.location)].taker
            if j >= 0:
                work.free[g * taker_count + j] = max(np.int64(0), free_units(cell))
    return Covers(line_count, taker_count, words, shared, shipment_cost(order.count), work)


@inner_kernel
def _list_room(view, order, group, work):
    """Put the units of each of a group's cells that this order leaves into `work.room`, by place in the block.

    Each candidate's `taker` is then its place.
    """
    block_at, block_end = _block(view, order, group)
    for at in range(block_at, block_end):
        cell = view.cells[view.sku_cells[at].row]
        work.room[at - block_at] = free_units(cell)
        work.candidates[cell.location].taker = at - block_at
    for k in range(order.start[group], order.start[group + 1]):
        location = work.line_location[order.lines[k]]
        if location >= 0:
            work.room[work.candidates[location].taker] -= order.quantity[order.lines[k]]


@inner_kernel
def _complete(view, order, work):
    """Give lines of a shared SKU that still wait to the cheapest shipper with units left: packing ends after PACK_STEPS."""
    candidates = work.candidates
    for group in range(order.group_count):
        start, stop = order.start[group], order.start[group + 1]
        waiting = 0
        for k in range(start, stop):
            waiting += work.line_location[order.lines[k]] < 0
        if waiting == 0 or stop - start == 1:
            continue
        _list_room(view, order, group, work)
        block_at, block_end = _block(view, order, group)
        for k in range(start, stop):
            line = order.lines[k]
            if work.line_location[line] >= 0:
                continue
            best, lowest = NOBODY, np.inf
            for at in range(block_at, block_end):
                location = np.int64(view.sku_cells[at].location)
                if work.room[at - block_at] < order.quantity[line] or candidates[location].price >= lowest:
                    continue
                if candidates[location].role == SHIPPER and has(order.covers[location], line):
                    best, lowest = location, candidates[location].price
            if best >= 0:
                work.line_location[line] = best
                work.room[candidates[best].taker] -= order.quantity[line]


@inner_kernel
def _find_cells(view, order, work):
    """Find the cell of each promised line."""
    for group in range(order.group_count):
        wanted = 0
        for k in range(order.start[group], order.start[group + 1]):
            wanted += work.line_location[order.lines[k]] >= 0
        at, block_end = _block(view, order, group)
        while wanted > 0 and at < block_end:
            row = view.sku_cells[at].row
            location = np.int64(view.cells[row].location)
            for k in range(order.start[group], order.start[group + 1]):
                if work.line_location[order.lines[k]] == location:
                    work.line_cell[order.lines[k]] = row
                    wanted -= 1
            at += 1


@inner_kernel
def _write_reasons(view, order, refused_lines, refused_locations, allow_split, work):
    """Write why each waiting line got no promise, after what the order's other lines took."""
    for line in range(order.count):
        if work.line_location[line] < 0:
            work.out.reason[line] = Unallocated.NO_STOCK if allow_split else Unallocated.NO_SINGLE_LOCATION
    for group in range(order.group_count if allow_split else 0):
        waiting = 0
        for k in range(order.start[group], order.start[group + 1]):
            waiting += work.line_location[order.lines[k]] < 0
        if waiting:
            _list_room(view, order, group, work)
            _write_group_reasons(view, order, group, refused_lines, refused_locations, work)


@inner_kernel
def _write_group_reasons(view, order, group, refused_lines, refused_locations, work):
    """Write the reasons of one SKU's waiting lines; the cells' units left are in `work.room`."""
    block_at, block_end = _block(view, order, group)
    for k in range(order.start[group], order.start[group + 1]):
        line = order.lines[k]
        if work.line_location[line] >= 0:
            continue
        for at in range(block_at, block_end):
            if work.room[at - block_at] < order.quantity[line]:
                continue
            location = np.int64(view.sku_cells[at].location)
            refused = refuses(location, line, refused_lines, refused_locations)
            work.out.reason[line] = fenced_off(work.candidates[location].role, refused, work.out.reason[line])
            if work.out.reason[line] == Unallocated.ALL_OR_NOTHING:
                break


@inner_kernel
def _units_alone(view, order, location, everything, refused_lines, refused_locations):
    """Most units of the order that a location could take alone; -1 if it has units only for lines it refused."""
    total = np.int64(0)
    for group in range(order.group_count):
        total += _units_of(order, group, _most(view, order, group, location, everything))
    if total == 0:
        for i in range(refused_lines.size):
            group = np.int64(order.group[refused_lines[i]])
            if refused_locations[i] != location or group < 0:
                continue
            if _units_at(view, order, group, location) >= order.quantity[refused_lines[i]]:
                return np.int64(-1)
    return total
