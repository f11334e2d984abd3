"""More than 8 lines."""

from numba import njit

from topics.reasons import Unallocated


@njit(cache=True, nogil=True)
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
    out.reason[: sku_rows.size] = Unallocated.NO_STOCK
    return 0
