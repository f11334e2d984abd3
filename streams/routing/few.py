"""Up to 8 lines, exactly: what matters of a location is which lines it covers and how far it is.

Without a SKU on two lines, any part of a location's cover is open to it: the nearest location per cover set, a minimum
over supersets, then a subset sum over sets of lines. The answer never uses a location twice, since its two parts together
are one shipment less.
Lines that share a SKU compete for the same units: what a location can take is then a family of sets, closed downward, and
a location used twice would be promised twice. So each set of lines keeps its `8 - size + 1` nearest takers (the other lines
cannot occupy more locations than that leaves) and sets are combined over distinct locations.
Units decide first, then a cost in metres to which each shipment adds more than any distances can.
Owner: kernel.py.
Not here: one delivered line (single.py), more than 8 (many.py).
"""

from collections import namedtuple

import numpy as np

from streams.routing.candidates import EXACT_LINES, NONE, OWN, SHIPPER, free_units, open_slot
from streams.routing.distance import metres
from streams.routing.explain import find_losers, pick_single, write_losers, write_promises
from topics.kernels import allocating_kernel
from topics.reasons import Unallocated, Won

# More metres than any 8 distances add up to.
SHIPMENT_M = 1e9

# One order's lines as sets: bit i of a set is line i.
#   sums: int64[2^lines], units of a set; group_mask: int64[groups], lines of a SKU
Lines = namedtuple("Lines", "count group_count shared sums group_mask")


@allocating_kernel
def route_few(
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
    """Route an order of 1 to 8 lines; arguments and result as for `route_order_kernel`."""
    lines = _group_lines(sku_rows, quantities, scratch)
    slot_count = _gather(view, quantities, refused_lines, refused_locations, x, y, z, pickup_location, lines, scratch)
    slots = scratch.slots
    full = len(lines.sums) - 1
    own = -1
    if pickup_location >= 0:
        for slot in range(slot_count):
            if slots[slot].role == OWN:
                own = slot
    for i in range(lines.count):
        scratch.line_slot[i] = -1

    own_set = rest = 0
    winner, won = -1, Won.FEWEST_SHIPMENTS
    if own >= 0 and _takes(lines, own, full, scratch):
        own_set = full
    elif not allow_split:
        winner, won = _single(view, lines, full, lines.sums[full], slot_count, scratch)
        rest = full if winner >= 0 else 0
    elif lines.shared:
        own_set, rest, winner, won = _share(view, lines, own, slot_count, scratch)
    else:
        own_set = np.int64(slots[own].cover) if own >= 0 else 0
        rest, winner, won = _combine(view, lines, full & ~own_set, slot_count, scratch)
    if own_set:
        _assign(own_set, own, scratch)
        won = Won.OWN_STOCK

    promised = own_set | rest
    if promised != full and not allow_partial:
        promised = 0
        for i in range(lines.count):
            scratch.line_slot[i] = -1
    if promised == 0:
        won = Won.NOTHING
    for i in range(lines.count):
        if scratch.line_slot[i] >= 0:
            scratch.line_cell[i] = scratch.cells[scratch.line_slot[i] * EXACT_LINES + scratch.line_group[i]]
        else:
            out.reason[i] = _why_waiting(i, quantities, allow_split, slot_count, scratch)
    line_count, shipments = write_promises(lines.count, pickup_location, scratch, out)
    out.explanation[0] = slot_count
    out.explanation[1] = won
    out.explanation[3] = shipments
    loser_count = find_losers(view, slot_count, scratch)
    for i in range(loser_count):
        slots[scratch.near[i]].units = _units_alone(lines, quantities, scratch.near[i], scratch)
    write_losers(view, loser_count, winner, won, lines.sums[promised if promised else full], scratch, out)
    return line_count


@allocating_kernel
def _group_lines(sku_rows, quantities, scratch):
    """Group lines by SKU. A line whose SKU nobody stocks is in no group."""
    count = sku_rows.size
    group_count, known = 0, 0
    for i in range(count):
        scratch.line_group[i] = scratch.line_next[i] = -1
        if sku_rows[i] < 0:
            continue
        known += 1
        group = 0
        while group < group_count and scratch.group_sku[group] != sku_rows[i]:
            group += 1
        if group == group_count:
            scratch.group_sku[group] = sku_rows[i]
            scratch.group_head[group] = -1
            scratch.group_mask[group] = 0
            group_count += 1
        scratch.line_group[i] = group
        scratch.line_next[i] = scratch.group_head[group]
        scratch.group_head[group] = i
        scratch.group_mask[group] |= 1 << i
    sums = scratch.sums[: 1 << count]
    sums[0] = 0
    for i in range(count):
        for part in range(1 << i):
            sums[part | 1 << i] = sums[part] + quantities[i]
    return Lines(count, group_count, known > group_count, sums, scratch.group_mask)


@allocating_kernel
def _gather(view, quantities, refused_lines, refused_locations, x, y, z, pickup_location, lines, scratch):
    """Give each location with a cell of an ordered SKU a slot, and note what it has; return the number of slots."""
    scratch.clock[0] += 1
    clock = scratch.clock[0]
    places, slots, available, slot_cells = scratch.places, scratch.slots, scratch.available, scratch.cells
    cells, locations, sku_cells, line_next = view.cells, view.locations, view.sku_cells, scratch.line_next
    slot_count = 0
    for group in range(lines.group_count):
        head = scratch.group_head[group]
        start = view.sku_links[scratch.group_sku[group]].block_at
        stop = start + view.sku_links[scratch.group_sku[group]].block_count
        for at in range(start, stop):
            row = sku_cells[at]
            location = cells[row].location
            if places[location].stamp == clock:
                slot = places[location].slot
            else:
                slot = slot_count
                open_slot(locations, location, x, y, z, pickup_location, clock, places, slots, slot)
                available[slot * EXACT_LINES : (slot + 1) * EXACT_LINES] = 0
                slot_count += 1
            free = free_units(cells[row])
            if free <= 0:
                continue
            available[slot * EXACT_LINES + group] = free
            slot_cells[slot * EXACT_LINES + group] = row
            cover = 0
            i = head
            while i >= 0:
                if quantities[i] <= free:
                    cover |= 1 << i
                i = line_next[i]
            slots[slot].cover |= cover
    for i in range(refused_lines.size):
        place = places[refused_locations[i]]
        if place.stamp == clock:
            slots[place.slot].refused |= 1 << refused_lines[i]
    if refused_lines.size:
        for slot in range(slot_count):
            slots[slot].cover &= ~slots[slot].refused
    return slot_count


@allocating_kernel
def _takes(lines, slot, part, scratch):
    """Whether a slot can take a whole set of lines at once."""
    if part & scratch.slots[slot].cover != part:
        return False
    if lines.shared:
        for group in range(lines.group_count):
            if lines.sums[part & lines.group_mask[group]] > scratch.available[slot * EXACT_LINES + group]:
                return False
    return True


@allocating_kernel
def _most(lines, slot, ask, scratch):
    """Of a set of lines, the subset of most units that a slot can take."""
    part = ask & scratch.slots[slot].cover
    if _takes(lines, slot, part, scratch):
        return part
    best, subset = 0, part
    while subset:
        subset = (subset - 1) & part
        if lines.sums[subset] > lines.sums[best] and _takes(lines, slot, subset, scratch):
            best = subset
    return best


@allocating_kernel
def _assign(part, slot, scratch):
    for i in range(EXACT_LINES):
        if part >> i & 1:
            scratch.line_slot[i] = slot


@allocating_kernel
def _single(view, lines, ask, units, slot_count, scratch):
    """Assign lines of `ask` worth `units` to the best location that can take as many alone; (slot or -1, reasons.Won)."""
    slots = scratch.slots
    if lines.shared:
        for slot in range(slot_count):
            if slots[slot].role == SHIPPER:
                slots[slot].whole = lines.sums[_most(lines, slot, ask, scratch)] == units
    else:
        sums = lines.sums
        for slot in range(slot_count):
            slots[slot].whole = slots[slot].role == SHIPPER and sums[slots[slot].cover & ask] == units
    winner, won = pick_single(view, slots, slot_count)
    if winner >= 0:
        _assign(_most(lines, winner, ask, scratch), winner, scratch)
    return winner, won


@allocating_kernel
def _combine(view, lines, ask, slot_count, scratch):
    """Assign the lines of `ask`, no two of one SKU; return (set promised, single winner or -1, reasons.Won)."""
    slots, nearest, nearest_slot = scratch.slots, scratch.nearest, scratch.nearest_slot
    nearest[: len(lines.sums)] = np.inf
    reachable = np.int64(0)
    for slot in range(slot_count):
        part = slots[slot].cover & ask
        if part and slots[slot].role == SHIPPER:
            reachable |= part
            if slots[slot].chord2 < nearest[part]:
                nearest[part] = slots[slot].chord2
                nearest_slot[part] = slot
    if reachable == 0:
        return 0, -1, Won.NOTHING
    if nearest[reachable] < np.inf:
        winner, won = _single(view, lines, reachable, lines.sums[reachable], slot_count, scratch)
        return reachable, winner, won
    _price_covers(reachable, nearest, nearest_slot)
    _split(reachable, nearest, nearest_slot, scratch)
    return reachable, -1, Won.FEWEST_SHIPMENTS


@allocating_kernel
def _price_covers(reachable, nearest, nearest_slot):
    """Turn squared chords per exact cover into costs of the nearest location that covers at least the set."""
    for part in range(1, reachable + 1):
        if nearest[part] < np.inf:
            nearest[part] = SHIPMENT_M + metres(nearest[part])
    bit = 1
    while bit <= reachable:
        if reachable & bit:
            for part in range(reachable + 1):
                if not part & bit and nearest[part | bit] < nearest[part]:
                    nearest[part] = nearest[part | bit]
                    nearest_slot[part] = nearest_slot[part | bit]
        bit <<= 1


@allocating_kernel
def _split(reachable, nearest, nearest_slot, scratch):
    """Cover a set by the cheapest partition: the part that holds the set's lowest line, and the rest."""
    cost, taken = scratch.cost, scratch.taken
    cost[0] = 0.0
    for target in range(1, reachable + 1):
        if target & reachable != target:
            continue
        lowest = target & -target
        others = target ^ lowest
        best, best_part = np.inf, 0
        subset = others
        while True:
            part = subset | lowest
            total = nearest[part] + cost[target ^ part]
            if total < best:
                best, best_part = total, part
            if subset == 0:
                break
            subset = (subset - 1) & others
        cost[target] = best
        taken[target] = best_part
    left = reachable
    while left:
        part = np.int64(taken[left])
        _assign(part, nearest_slot[part], scratch)
        left ^= part


@allocating_kernel
def _share(view, lines, own, slot_count, scratch):
    """Assign lines of which some share a SKU; return (own location's set, the others', single winner or -1, Won)."""
    cost, used, parts, step_count = combine_families(lines, slot_count, scratch)
    full = len(lines.sums) - 1
    own_units = lines.sums[_most(lines, own, full, scratch)] if own >= 0 else 0
    best_own = best_rest = 0
    for own_set in range(full, -1, -1):
        # Equal ways to use the own location's stock are judged by what they leave to the others.
        if lines.sums[own_set] != own_units or (own_set and not _takes(lines, own, own_set, scratch)):
            continue
        rest = subset = full ^ own_set
        while True:
            if cost[subset] < np.inf:
                gain = lines.sums[subset] - lines.sums[best_rest]
                if gain > 0 or (gain == 0 and cost[subset] < cost[best_rest]):
                    best_own, best_rest = own_set, subset
            if subset == 0:
                break
            subset = (subset - 1) & rest
        if own_set and best_own == 0:
            best_own = own_set
    if 0 < cost[best_rest] < 2 * SHIPMENT_M:
        ask = full ^ best_own
        winner, won = _single(view, lines, ask, lines.sums[best_rest], slot_count, scratch)
        return best_own, _most(lines, winner, ask, scratch), winner, won
    left = best_rest
    for step in range(step_count - 1, -1, -1):
        part = np.int64(parts[step, left])
        if part:
            _assign(part, used[step], scratch)
            left ^= part
    return best_own, best_rest, -1, Won.FEWEST_SHIPMENTS


@allocating_kernel
def combine_families(lines, slot_count, scratch):
    """Find the cheapest way to serve each set of lines from distinct shippers.

    Returns
    -------
    tuple
        cost float64[2^lines] (inf: cannot be served), used int32[steps] (slots, nearest first),
        parts uint8[steps, 2^lines] (lines the step's slot takes towards a set), number of steps.
    """
    slots = scratch.slots
    shippers = np.empty(slot_count, np.int32)
    chords = np.empty(slot_count, np.float64)
    count = 0
    for slot in range(slot_count):
        if slots[slot].role == SHIPPER and slots[slot].cover:
            shippers[count] = slot
            chords[count] = slots[slot].chord2
            count += 1
    order = np.argsort(chords[:count], kind="mergesort")

    size = len(lines.sums)
    wanted = np.empty(size, np.int32)  # takers that a set still keeps
    for part in range(size):
        wanted[part] = lines.count + 1
        for i in range(lines.count):
            wanted[part] -= part >> i & 1
    cost = np.full(size, np.inf)
    cost[0] = 0.0
    before = np.empty(size, np.float64)
    used = np.empty(count, np.int32)
    parts = np.zeros((count, size), np.uint8)
    steps = 0
    for rank in range(count):
        slot = shippers[order[rank]]
        price = SHIPMENT_M + metres(slots[slot].chord2)
        kept = False
        cover = np.int64(slots[slot].cover)
        part = cover
        while part:
            if wanted[part] > 0 and _takes(lines, slot, part, scratch):
                wanted[part] -= 1
                if not kept:
                    before[:] = cost
                    kept = True
                _extend(part, price, before, cost, parts[steps])
            part = (part - 1) & cover
        if kept:
            used[steps] = slot
            steps += 1
    return cost, used, parts, steps


@allocating_kernel
def _extend(part, price, before, cost, part_of):
    """Serve `part` from a further location, on top of every set served without it."""
    others = (before.size - 1) ^ part
    subset = others
    while True:
        total = before[subset] + price
        if total < cost[subset | part]:
            cost[subset | part] = total
            part_of[subset | part] = part
        if subset == 0:
            break
        subset = (subset - 1) & others


@allocating_kernel
def _why_waiting(line, quantities, allow_split, slot_count, scratch):
    """Why a line got no promise, after what the order's other lines took; reasons.Unallocated."""
    if not allow_split:
        return Unallocated.NO_SINGLE_LOCATION
    group = scratch.line_group[line]
    if group < 0:
        return Unallocated.NO_STOCK
    reason = Unallocated.NO_STOCK
    for slot in range(slot_count):
        left = np.int64(scratch.available[slot * EXACT_LINES + group])
        i = scratch.group_head[group]
        while i >= 0:
            if scratch.line_slot[i] == slot:
                left -= quantities[i]
            i = scratch.line_next[i]
        if left < quantities[line]:
            continue
        entry = scratch.slots[slot]
        if entry.role != NONE and not entry.refused >> line & 1:
            return Unallocated.ALL_OR_NOTHING
        reason = Unallocated.NOT_ELIGIBLE
    return reason


@allocating_kernel
def _units_alone(lines, quantities, slot, scratch):
    """Most units of the order that a slot could take alone; -1 if it has units only for lines it refused."""
    units = lines.sums[_most(lines, slot, len(lines.sums) - 1, scratch)]
    if units == 0:
        for i in range(lines.count):
            group = scratch.line_group[i]
            if not scratch.slots[slot].refused >> i & 1 or group < 0:
                continue
            if scratch.available[slot * EXACT_LINES + group] >= quantities[i]:
                return np.int64(-1)
    return units
