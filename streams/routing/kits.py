"""More than 8 lines of which some are kits: right, and near the best, but not proven to be it.

A single location that can serve the whole order is found exactly. Otherwise the location that can take the most units comes
first (of equals the cheapest), and takes what fits, line by line, most units first; then the next one takes of what is left.
Owner: lines.py.
Not here: 8 lines and fewer, which are exact with kits too (few.py), larger orders of plain lines (many.py).
"""

import numpy as np

from streams.routing.answer import find_losers, keep_promises, write_losers, write_promises
from streams.routing.bits import EMPTY, add, drop, fill, has, size_of
from streams.routing.candidates import find_own, free_units, open_candidate
from streams.routing.fences import SHIPPER, fenced_off, refuses
from streams.routing.needs import list_needs, units_taken
from streams.routing.sorting import sort_rows
from streams.routing.ties import cheaper, pick_single
from topics.compiled.kernels import inner_kernel
from topics.reasons import Unallocated, Won

NOBODY = np.int64(-1)


@inner_kernel
def route_kits(view, line_count, refused_lines, refused_locations, x, y, z, pickup_location, allow_split, allow_partial, work):
    """Route an order of more than 8 lines with kits among them; arguments as for `route_lines`."""
    group_count = _group_needs(line_count, work)
    found_count = _gather(view, group_count, x, y, z, pickup_location, work)
    words = (line_count + 63) >> 6
    _cover(view, line_count, words, found_count, work)
    for i in range(refused_lines.size):
        if work.candidates[refused_locations[i]].stamp == work.clock[0]:
            drop(work.covers[refused_locations[i]], refused_lines[i])
    own = find_own(pickup_location, work)
    ask = work.ask[:words]
    fill(ask, line_count)
    winner, won = np.int64(-1), np.int64(Won.FEWEST_SHIPMENTS)
    served_own = own >= 0 and (allow_split or _fits_whole(view, line_count, group_count, own, work))
    if served_own:
        served_own = _serve(view, own, line_count, ask, work) > 0
    if size_of(ask) == line_count:
        winner, won = _single(view, line_count, group_count, found_count, work)
        if winner >= 0:
            _serve(view, winner, line_count, ask, work)
        else:
            won = np.int64(Won.FEWEST_SHIPMENTS)
    if allow_split and winner < 0:
        _spread(view, line_count, found_count, ask, work)

    promised, units = keep_promises(line_count, allow_partial, work)
    if promised == 0:
        served_own, won = False, np.int64(Won.NOTHING)
    for i in range(line_count):
        if work.line_location[i] < 0:
            work.out.reason[i] = Unallocated.NO_STOCK if allow_split else Unallocated.NO_SINGLE_LOCATION
            if allow_split:
                _write_reason(view, i, refused_lines, refused_locations, found_count, work)
        else:
            first = work.line_needs[i]
            work.line_cell[i] = _cell_at(view, np.int64(work.need_sku[first]), np.int64(work.line_location[i]))
    lines, shipments = write_promises(view.locations, line_count, x, y, z, pickup_location, work)
    if served_own:
        won = np.int64(Won.OWN_STOCK)
    explanation = work.out.explanation
    explanation[0] = found_count
    explanation[1] = won
    explanation[3] = shipments
    loser_count = find_losers(view.locations, found_count, work)
    for i in range(loser_count):
        location = np.int64(work.near[i])
        work.candidates[location].units = _units_alone(view, line_count, location, refused_lines, refused_locations, work)
    write_losers(view.locations, found_count, loser_count, x, y, z, winner, won, units, work)
    return lines


@inner_kernel
def _group_needs(line_count, work):
    """Group the needs by SKU, and put the lines into `work.lines`, most units first; returns how many groups there are."""
    count = list_needs(line_count, work)
    for need in range(count):
        work.need_order[need] = need
        work.need_key[need] = work.need_sku[need]
    sort_rows(work.need_key, work.need_order, count)
    groups = np.int64(0)
    for k in range(count):
        need = work.need_order[k]
        sku = work.need_sku[need]
        work.need_group[need] = work.need_next[need] = -1
        if sku < 0:
            continue
        if groups == 0 or work.group_sku[groups - 1] != sku:
            work.group_sku[groups] = sku
            work.group_head[groups] = -1
            groups += 1
        work.need_group[need] = groups - 1
        work.need_next[need] = work.group_head[groups - 1]
        work.group_head[groups - 1] = need
    for i in range(line_count):
        work.line_location[i] = -1
        work.lines[i] = i
        work.line_key[i] = -work.line_quantity[i]
    sort_rows(work.line_key, work.lines, line_count)
    return groups


@inner_kernel
def _gather(view, group_count, x, y, z, pickup_location, work):
    """Make each location with a cell of a needed SKU a candidate; returns how many are."""
    work.clock[0] += 1
    found_count = np.int64(0)
    for group in range(group_count):
        link = view.sku_links[work.group_sku[group]]
        for at in range(link.block_at, link.block_at + link.block_count):
            location = np.int64(view.sku_cells[at].location)
            if work.candidates[location].stamp != work.clock[0]:
                place = view.locations[location]
                open_candidate(work.candidates[location], place, location, x, y, z, pickup_location, work.clock[0])
                work.found[found_count] = location
                found_count += 1
    return found_count


@inner_kernel
def _count_having(view, line, less_taken, found_count, work):
    """Count in `work.room`, per candidate, how many of a line's needs it has; returns how many there are, -1 = nobody has all.

    `less_taken`: besides what it gives to other lines.
    """
    for k in range(found_count):
        work.room[work.found[k]] = 0
    first, last = work.line_needs[line], work.line_needs[line + 1]
    for need in range(first, last):
        group = np.int64(work.need_group[need])
        if group < 0:
            return NOBODY
        link = view.sku_links[work.group_sku[group]]
        for at in range(link.block_at, link.block_at + link.block_count):
            location = np.int64(view.sku_cells[at].location)
            units = free_units(view.cells[view.sku_cells[at].row])
            if less_taken:
                units -= units_taken(location, group, work)
            work.room[location] += units >= work.need_units[need]
    return np.int64(last - first)


@inner_kernel
def _cover(view, line_count, words, found_count, work):
    """Note in `work.covers` which lines each candidate could take alone."""
    for k in range(found_count):
        for w in range(words):
            work.covers[work.found[k], w] = EMPTY
    for line in range(line_count):
        needs = _count_having(view, line, False, found_count, work)
        for k in range(found_count):
            if work.room[work.found[k]] == needs:
                add(work.covers[work.found[k]], line)


@inner_kernel
def _cell_at(view, sku, location):
    """Find the cell of a SKU at a location; -1 = none."""
    link = view.sku_links[sku]
    for at in range(link.block_at, link.block_at + link.block_count):
        if view.sku_cells[at].location == location:
            return np.int64(view.sku_cells[at].row)
    return NOBODY


@inner_kernel
def _fits(view, line, location, work):
    """Whether a location has what a line needs besides what it gives to others."""
    for need in range(work.line_needs[line], work.line_needs[line + 1]):
        cell = _cell_at(view, np.int64(work.need_sku[need]), location)
        taken = units_taken(location, np.int64(work.need_group[need]), work)
        if cell < 0 or free_units(view.cells[cell]) - taken < work.need_units[need]:
            return False
    return True


@inner_kernel
def _fits_whole(view, line_count, group_count, location, work):
    """Whether a location can take all lines together."""
    for line in range(line_count):
        if not has(work.covers[location], line):
            return False
    for group in range(group_count):
        units = np.int64(0)
        need = work.group_head[group]
        while need >= 0:
            units += work.need_units[need]
            need = work.need_next[need]
        cell = _cell_at(view, np.int64(work.group_sku[group]), location)
        if cell < 0 or free_units(view.cells[cell]) < units:
            return False
    return True


@inner_kernel
def _single(view, line_count, group_count, found_count, work):
    """Choose the best location that can take the whole order; return (location or -1, reasons.Won)."""
    for k in range(found_count):
        location = np.int64(work.found[k])
        entry = work.candidates[location]
        entry.whole = entry.role == SHIPPER and _fits_whole(view, line_count, group_count, location, work)
    return pick_single(view.locations, found_count, work)


@inner_kernel
def _serve(view, location, line_count, ask_inout, work):
    """Give a location the lines of `ask` that fit there, most units first; returns how many did."""
    count = np.int64(0)
    for k in range(line_count):
        line = np.int64(work.lines[k])
        if has(ask_inout, line) and has(work.covers[location], line) and _fits(view, line, location, work):
            work.line_location[line] = location
            drop(ask_inout, line)
            count += 1
    return count


@inner_kernel
def _spread(view, line_count, found_count, ask_inout, work):
    """Serve what can be of `ask`, the location that could take the most units first."""
    for k in range(found_count):
        entry = work.candidates[work.found[k]]
        entry.taker = 0 if entry.role == SHIPPER else -1
    while size_of(ask_inout):
        best, most = NOBODY, np.int64(0)
        for k in range(found_count):
            location = np.int64(work.found[k])
            if work.candidates[location].taker < 0:
                continue
            units = np.int64(0)
            for line in range(line_count):
                if has(ask_inout, line) and has(work.covers[location], line):
                    units += work.line_quantity[line]
            price = work.candidates[location].price
            if units == 0:
                continue
            if units > most or (units == most and cheaper(price, location, work.candidates[best].price, best, view.locations)):
                best, most = location, units
        if best < 0:
            return
        _serve(view, best, line_count, ask_inout, work)
        work.candidates[best].taker = -1


@inner_kernel
def _write_reason(view, line, refused_lines, refused_locations, found_count, work):
    """Write why a line waits, after what the order's other lines took."""
    needs = _count_having(view, line, True, found_count, work)
    for k in range(found_count):
        location = np.int64(work.found[k])
        if work.room[location] == needs:
            refused = refuses(location, line, refused_lines, refused_locations)
            work.out.reason[line] = fenced_off(work.candidates[location].role, refused, work.out.reason[line])
            if work.out.reason[line] == Unallocated.ALL_OR_NOTHING:
                return


@inner_kernel
def _units_alone(view, line_count, location, refused_lines, refused_locations, work):
    """Units of the order that a location could take alone; -1 if it has units only for lines it refused.

    It is called when the answer is written: `work.line_location` is used again.
    """
    for i in range(line_count):
        work.line_location[i] = -1
    units = np.int64(0)
    for k in range(line_count):
        line = np.int64(work.lines[k])
        if has(work.covers[location], line) and _fits(view, line, location, work):
            work.line_location[line] = location
            units += work.line_quantity[line]
    if units == 0:
        for i in range(refused_lines.size):
            if refused_locations[i] == location and _fits(view, np.int64(refused_lines[i]), location, work):
                return NOBODY
    return units
