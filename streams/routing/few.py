"""Up to 8 lines, exactly: what matters of a location is which lines it covers and what it costs.

No SKU on two lines: any part of a location's cover is open to it. So the cheapest location of each cover set is kept, then of
each set's supersets, and a subset sum over the sets of lines finds the cheapest partition. That never uses a location twice,
since its two parts together are one shipment less.
A SKU on two lines: the lines compete for the same units, and a location used twice would be promised twice (families.py). Each
set of n lines keeps only its `n - size + 1` cheapest takers: the other lines cannot occupy more locations than that leaves.
A kit's line needs several SKUs (needs.py); a location covers it if it has them all.
Units decide first, then the cost, to which each shipment adds more than any distances can (prices.py).
Owner: lines.py.
Not here: one delivered line (single.py), more than 8 (many.py).
"""

import numpy as np

from streams.routing.answer import find_losers, write_losers, write_promises
from streams.routing.candidates import find_own, free_units, open_candidate
from streams.routing.families import Lines, combine_families, most, takes, units_at
from streams.routing.fences import SHIPPER, fenced_off, refuses
from streams.routing.needs import list_needs, units_taken
from streams.routing.prices import cost_of, shipment_cost
from streams.routing.scratch import EXACT_LINES
from streams.routing.ties import pick_single
from topics.compiled.kernels import inner_kernel
from topics.reasons import Unallocated, Won


@inner_kernel
def route_few(view, line_count, refused_lines, refused_locations, x, y, z, pickup_location, allow_split, allow_partial, work):
    """Route an order of 1 to 8 lines; arguments as for `route_lines`."""
    lines = _group_lines(line_count, view.cells, work)
    found_count = _gather(view, lines, refused_lines, refused_locations, x, y, z, pickup_location, work)
    candidates, locations = work.candidates, view.locations
    own = find_own(pickup_location, work)
    for i in range(line_count):
        work.line_location[i] = -1

    full = lines.full
    own_set = rest = np.int64(0)
    winner, won = np.int64(-1), np.int64(Won.FEWEST_SHIPMENTS)
    if own >= 0 and takes(lines, own, full, work):
        own_set = full
    elif not allow_split or (own < 0 and lines.shared):
        winner, won = _single(locations, lines, full, lines.sums[full], found_count, work)
        if winner >= 0:
            rest = full
    if own_set == full or rest == full or not allow_split:
        pass
    elif lines.shared:
        own_set, rest, winner, won = _share(locations, lines, own, found_count, work)
    else:
        if own >= 0:
            own_set = np.int64(candidates[own].cover)
        rest, winner, won = _combine(locations, lines, full & ~own_set, found_count, work)
    if own_set:
        _assign(own_set, own, work)
        won = np.int64(Won.OWN_STOCK)

    promised = own_set | rest
    if promised != full and not allow_partial:
        promised = np.int64(0)
        for i in range(line_count):
            work.line_location[i] = -1
    if promised == 0:
        won = np.int64(Won.NOTHING)
    for i in range(line_count):
        if work.line_location[i] >= 0:
            work.line_cell[i] = work.cell_rows[work.line_location[i] * lines.stride + work.line_group[i]]
        else:
            work.out.reason[i] = _why_waiting(lines, i, refused_lines, refused_locations, allow_split, found_count, work)
    promised_lines, shipments = write_promises(locations, line_count, x, y, z, pickup_location, work)
    explanation = work.out.explanation
    explanation[0] = found_count
    explanation[1] = won
    explanation[3] = shipments
    loser_count = find_losers(locations, found_count, work)
    for i in range(loser_count):
        candidates[work.near[i]].units = _units_alone(lines, np.int64(work.near[i]), refused_lines, refused_locations, work)
    needed = lines.sums[promised] if promised else lines.sums[full]
    write_losers(locations, found_count, loser_count, x, y, z, winner, won, needed, work)
    return promised_lines


@inner_kernel
def _group_lines(line_count, cells, work):
    """Group the lines' needs by SKU. A line of which nobody stocks a SKU has no group."""
    group_sku, group_head, group_mask, shared_groups = work.group_sku, work.group_head, work.group_mask, work.shared_groups
    need_count = list_needs(line_count, work)
    group_count = shared = np.int64(0)
    for need in range(need_count):
        sku, line = work.need_sku[need], work.need_line[need]
        work.need_group[need] = work.need_next[need] = -1
        if sku < 0:
            continue
        group = np.int64(0)
        while group < group_count and group_sku[group] != sku:
            group += 1
        if group == group_count:
            group_sku[group] = sku
            group_head[group] = -1
            group_mask[group] = 0
            group_count += 1
        elif work.need_next[group_head[group]] < 0:
            shared_groups[shared] = group
            shared += 1
        work.need_group[need] = group
        work.need_next[need] = group_head[group]
        group_head[group] = need
        group_mask[group] |= 1 << line
    for i in range(line_count):
        work.line_group[i] = work.need_group[work.line_needs[i]]
        for need in range(work.line_needs[i], work.line_needs[i + 1]):
            if work.need_group[need] < 0:
                work.line_group[i] = -1
    sums = work.sums
    sums[0] = 0
    for i in range(line_count):
        for part in range(1 << i):
            sums[part | 1 << i] = sums[part] + work.line_quantity[i]
    full = (np.int64(1) << line_count) - 1
    kits = work.kit_parts[line_count] > 0
    stride = max(np.int64(EXACT_LINES), group_count)
    return Lines(line_count, full, group_count, shared, kits, sums, group_mask, cells, stride)


@inner_kernel
def _gather(view, lines, refused_lines, refused_locations, x, y, z, pickup_location, work):
    """Make each location with a cell of an ordered SKU a candidate, and note what it covers; return how many are."""
    work.clock[0] += 1
    clock = work.clock[0]
    candidates, found, cell_rows = work.candidates, work.found, work.cell_rows
    cells, locations, sku_cells = view.cells, view.locations, view.sku_cells
    need_line, need_units, need_next = work.need_line, work.need_units, work.need_next
    found_count = np.int64(0)
    for group in range(lines.group_count):
        head = work.group_head[group]
        first_units, first_bit, second = need_units[head], 1 << need_line[head], need_next[head]
        start = view.sku_links[work.group_sku[group]].block_at
        stop = start + view.sku_links[work.group_sku[group]].block_count
        for at in range(start, stop):
            row = sku_cells[at].row
            location = np.int64(sku_cells[at].location)
            entry = candidates[location]
            if entry.stamp != clock:
                open_candidate(entry, locations[location], location, x, y, z, pickup_location, clock)
                first = location * lines.stride
                for other in range(EXACT_LINES):  # a fixed number: one store
                    cell_rows[first + other] = -1
                for other in range(EXACT_LINES, lines.stride):
                    cell_rows[first + other] = -1
                found[found_count] = location
                found_count += 1
            cell_rows[location * lines.stride + group] = row
            free = free_units(cells[row])
            cover = first_bit if first_units <= free else 0
            need = second
            while need >= 0:
                if need_units[need] <= free:
                    cover |= 1 << need_line[need]
                need = need_next[need]
            entry.cover |= cover
    if lines.kits:
        for k in range(found_count):
            _uncover_kits(lines, np.int64(found[k]), work)
    for i in range(refused_lines.size):
        entry = candidates[refused_locations[i]]
        if entry.stamp == clock:
            entry.cover &= ~(1 << refused_lines[i])
    return found_count


@inner_kernel
def _uncover_kits(lines, location, work):
    """Take from a location's cover the lines of which it has one part, but not all."""
    entry = work.candidates[location]
    for i in range(lines.count):
        if entry.cover >> i & 1 and not _has(lines, location, i, False, work):
            entry.cover &= ~(1 << i)


@inner_kernel
def _has(lines, location, line, less_taken, work):
    """Whether a location has all that a line needs; `less_taken`: besides what it gives to others."""
    if work.line_group[line] < 0:
        return False
    for need in range(work.line_needs[line], work.line_needs[line + 1]):
        group = np.int64(work.need_group[need])
        units = units_at(lines, location, group, work)
        if less_taken:
            units -= units_taken(location, group, work)
        if units < work.need_units[need]:
            return False
    return True


@inner_kernel
def _assign(part, location, work):
    for i in range(EXACT_LINES):
        if part >> i & 1:
            work.line_location[i] = location


@inner_kernel
def _single(locations, lines, ask, units, found_count, work):
    """Assign lines of `ask` worth `units` to the best location that takes as many alone; (location or -1, reasons.Won)."""
    candidates, sums = work.candidates, lines.sums
    for k in range(found_count):
        location = np.int64(work.found[k])
        whole = candidates[location].role == SHIPPER and sums[ask & np.int64(candidates[location].cover)] >= units
        if whole and lines.shared:
            whole = sums[most(lines, location, ask, work)] == units
        candidates[location].whole = whole
    winner, won = pick_single(locations, found_count, work)
    if winner >= 0:
        _assign(most(lines, winner, ask, work), winner, work)
    return winner, won


@inner_kernel
def _combine(locations, lines, ask, found_count, work):
    """Assign the lines of `ask`, no two of which need one SKU; return (set promised, single winner or -1, reasons.Won)."""
    candidates, cheapest, cheapest_location = work.candidates, work.cheapest, work.cheapest_location
    for part in range(lines.full + 1):
        cheapest[part] = np.inf
    reachable = np.int64(0)
    for k in range(found_count):
        location = np.int64(work.found[k])
        part = np.int64(candidates[location].cover) & ask
        if part and candidates[location].role == SHIPPER:
            reachable |= part
            if candidates[location].price < cheapest[part]:
                cheapest[part] = candidates[location].price
                cheapest_location[part] = location
    winner, won = np.int64(-1), np.int64(Won.FEWEST_SHIPMENTS)
    if reachable and cheapest[reachable] < np.inf:
        winner, won = _single(locations, lines, reachable, lines.sums[reachable], found_count, work)
    elif reachable:
        _price_covers(reachable, shipment_cost(lines.count), cheapest, cheapest_location)
        _split(reachable, work)
    return reachable, winner, won


@inner_kernel
def _price_covers(reachable, shipment, cheapest, cheapest_location):
    """Turn prices per exact cover into costs of the cheapest location that covers at least the set."""
    for part in range(1, reachable + 1):
        if cheapest[part] < np.inf:
            cheapest[part] = shipment + cost_of(cheapest[part])
    bit = 1
    while bit <= reachable:
        if reachable & bit:
            for part in range(reachable + 1):
                if not part & bit and cheapest[part | bit] < cheapest[part]:
                    cheapest[part] = cheapest[part | bit]
                    cheapest_location[part] = cheapest_location[part | bit]
        bit <<= 1


@inner_kernel
def _split(reachable, work):
    """Cover a set by the cheapest partition: the part that holds the set's lowest line, and the rest."""
    cheapest, cost, taken = work.cheapest, work.cost, work.taken
    cost[0] = 0.0
    for target in range(1, reachable + 1):
        if target & reachable != target:
            continue
        first = target & -target
        others = target ^ first
        best, best_part = np.inf, 0
        subset = others
        while True:
            part = subset | first
            total = cheapest[part] + cost[target ^ part]
            if total < best:
                best, best_part = total, part
            if subset == 0:
                break
            subset = (subset - 1) & others
        cost[target] = best
        taken[target] = best_part
    left = reachable
    while left:
        part = taken[left]
        _assign(part, work.cheapest_location[part], work)
        left ^= part


@inner_kernel
def _share(locations, lines, own, found_count, work):
    """Assign lines of which some need the same SKU; return (own location's set, the others', single winner or -1, Won)."""
    step_count = combine_families(lines, found_count, work)
    full, sums, cost = lines.full, lines.sums, work.cost
    own_units = np.int64(0)
    if own >= 0:
        own_units = sums[most(lines, own, full, work)]
    best_own = best_rest = np.int64(0)
    for own_set in range(full, -1, -1):
        # Equal ways to use the own location's stock are judged by what they leave to the others.
        if sums[own_set] != own_units or (own_set and not takes(lines, own, own_set, work)):
            continue
        if best_own == 0:
            best_own = own_set
        rest = subset = full ^ own_set
        while True:
            if cost[subset] < np.inf:
                gain = sums[subset] - sums[best_rest]
                if gain > 0 or (gain == 0 and cost[subset] < cost[best_rest]):
                    best_own, best_rest = own_set, subset
            if subset == 0:
                break
            subset = (subset - 1) & rest
    if 0 < cost[best_rest] < 2 * shipment_cost(lines.count):
        ask = full ^ best_own
        winner, won = _single(locations, lines, ask, sums[best_rest], found_count, work)
        return best_own, most(lines, winner, ask, work), winner, won
    left = best_rest
    for step in range(step_count - 1, -1, -1):
        part = np.int64(work.parts[step, left])
        if part:
            _assign(part, np.int64(work.used[step]), work)
            left ^= part
    return best_own, best_rest, np.int64(-1), np.int64(Won.FEWEST_SHIPMENTS)


@inner_kernel
def _why_waiting(lines, line, refused_lines, refused_locations, allow_split, found_count, work):
    """Why a line got no promise, after what the order's other lines took; reasons.Unallocated."""
    if not allow_split:
        return np.int64(Unallocated.NO_SINGLE_LOCATION)
    reason = np.int64(Unallocated.NO_STOCK)
    for k in range(found_count):
        location = np.int64(work.found[k])
        if not _has(lines, location, line, True, work):
            continue
        refused = refuses(location, line, refused_lines, refused_locations)
        reason = fenced_off(work.candidates[location].role, refused, reason)
        if reason == Unallocated.ALL_OR_NOTHING:
            break
    return reason


@inner_kernel
def _units_alone(lines, location, refused_lines, refused_locations, work):
    """Most units of the order that a location could take alone; -1 if it has units only for lines it refused."""
    units = lines.sums[most(lines, location, lines.full, work)]
    if units == 0:
        for i in range(refused_lines.size):
            if refused_locations[i] == location and _has(lines, location, np.int64(refused_lines[i]), False, work):
                return np.int64(-1)
    return units
