"""Up to 8 lines as sets: which a location can take, and the cheapest way to serve each set from several locations.

Bit i of a set is line i. What a location can take is a family of sets that holds every subset of each: two lines of one SKU
that fit alone need not fit together. `combine_families` combines such families over distinct locations.
Owner: few.py, and many.py for the lines of one SKU.
Not here: which lines share a SKU and what each location covers (few.py, many.py).
"""

from collections import namedtuple

import numpy as np

from streams.routing.candidates import free_units
from streams.routing.fences import SHIPPER
from streams.routing.prices import cost_of, shipment_cost
from streams.routing.sorting import sort_rows
from topics.compiled.kernels import inner_kernel

# One order's lines as sets: bit i of a set is line i, `full` is all of them.
#   shared: how many SKUs several lines need; kits: whether a line is a kit's
#   sums: int64[2^lines], units of a set of lines; group_mask: int64[groups], lines of a SKU; cells: CELL rows
#   stride: of `work.cell_rows`, whose [location * stride + group] is a cell's row
Lines = namedtuple("Lines", "count full group_count shared kits sums group_mask cells stride")


@inner_kernel
def units_at(lines, location, group, work):
    """Units of a group's SKU that may be promised at a location."""
    row = work.cell_rows[location * lines.stride + group]
    if row < 0:
        return np.int64(0)
    return max(np.int64(0), free_units(lines.cells[row]))


@inner_kernel
def _units_needed(lines, group, part, work):
    """Units of a group's SKU that a set of lines needs."""
    if not lines.kits:
        return np.int64(lines.sums[part & lines.group_mask[group]])
    units = np.int64(0)
    need = work.group_head[group]
    while need >= 0:
        if part >> work.need_line[need] & 1:
            units += work.need_units[need]
        need = work.need_next[need]
    return units


@inner_kernel
def takes(lines, location, part, work):
    """Whether a location can take a whole set of lines at once."""
    if part & work.candidates[location].cover != part:
        return False
    for k in range(lines.shared):
        group = np.int64(work.shared_groups[k])
        if _units_needed(lines, group, part, work) > units_at(lines, location, group, work):
            return False
    return True


@inner_kernel
def most(lines, location, ask, work):
    """Of a set of lines, the subset of most units that a location can take."""
    part = ask & np.int64(work.candidates[location].cover)
    if takes(lines, location, part, work):
        return part
    best, subset = np.int64(0), part
    while subset:
        subset = (subset - 1) & part
        if lines.sums[subset] > lines.sums[best] and takes(lines, location, subset, work):
            best = subset
    return best


@inner_kernel
def combine_families(lines, found_count, work):
    """Find the cheapest way to serve each set of lines from distinct shippers; the costs are in `work.cost`, inf = none.

    Returns
    -------
    int
        Steps: `work.used` names their candidates, cheapest first, `work.parts` per set the lines that a step's location takes.
    """
    candidates, takers = work.candidates, work.takers
    count = np.int64(0)
    for k in range(found_count):
        location = np.int64(work.found[k])
        if candidates[location].role == SHIPPER and candidates[location].cover:
            takers[count] = location
            count += 1
    sort_by_price(count, work)

    wanted, cost, before = work.wanted, work.cost, work.before
    for part in range(lines.full + 1):
        cost[part] = np.inf
        wanted[part] = lines.count + 1  # takers that a set still keeps
        for i in range(lines.count):
            wanted[part] -= part >> i & 1
    cost[0] = 0.0
    steps = closed = 0
    for rank in range(count):
        if closed == lines.full:
            break
        location = np.int64(takers[rank])
        added = shipment_cost(lines.count) + cost_of(candidates[location].price)
        kept = False
        cover = np.int64(candidates[location].cover)
        part = cover
        while part:
            if wanted[part] > 0 and takes(lines, location, part, work):
                wanted[part] -= 1
                closed += wanted[part] == 0
                if not kept:
                    for i in range(lines.full + 1):
                        before[i] = cost[i]
                        work.parts[steps, i] = 0
                    kept = True
                _extend(part, added, lines.full, before, cost, work.parts[steps])
            part = (part - 1) & cover
        if kept:
            work.used[steps] = location
            steps += 1
    return steps


@inner_kernel
def sort_by_price(count, work):
    """Sort the candidates in `work.takers`, cheapest first."""
    prices = work.taker_key.view(np.float64)
    for i in range(count):
        prices[work.takers[i]] = work.candidates[work.takers[i]].price
    sort_rows(work.taker_key, work.takers, count)


@inner_kernel
def _extend(part, added, full, before, cost, part_of):
    """Serve `part` from one more location, on top of every set served without it."""
    others = full ^ part
    subset = others
    while True:
        total = before[subset] + added
        if total < cost[subset | part]:
            cost[subset | part] = total
            part_of[subset | part] = part
        if subset == 0:
            break
        subset = (subset - 1) & others
