"""What the lines of an order need: units of SKUs. A plain line needs one SKU; a kit's line needs each of its parts.

A line's needs are rows `line_needs[i]` to `line_needs[i + 1]` of `need_line`, `need_sku`, `need_units`. Those of one SKU are a
group: a chain from `group_head` by `need_next`. A need of a SKU that nobody stocks is in no group.
Owner: few.py and kits.py. Not here: which location has what (few.py, kits.py), lines of plain SKUs beyond 8 (many.py).
"""

import numpy as np

from topics.compiled.kernels import inner_kernel


@inner_kernel
def list_needs(line_count, work):
    """List the needs of the order in hand; returns how many."""
    count = np.int64(0)
    for i in range(line_count):
        work.line_needs[i] = count
        first, last = work.kit_parts[i], work.kit_parts[i + 1]
        if first == last:
            work.need_line[count] = i
            work.need_sku[count] = work.line_sku[i]
            work.need_units[count] = work.line_quantity[i]
            count += 1
        for part in range(first, last):
            work.need_line[count] = i
            work.need_sku[count] = work.part_sku[part]
            work.need_units[count] = work.part_units[part]
            count += 1
    work.line_needs[line_count] = count
    return count


@inner_kernel
def is_kit(line, work):
    """Whether a line is a kit's."""
    return work.kit_parts[line] < work.kit_parts[line + 1]


@inner_kernel
def units_taken(location, group, work):
    """Units of a group's SKU that the lines at a location take (`line_location`)."""
    units = np.int64(0)
    need = work.group_head[group]
    while need >= 0:
        if work.line_location[work.need_line[need]] == location:
            units += work.need_units[need]
        need = work.need_next[need]
    return units
