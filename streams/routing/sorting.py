"""A sort for the kernels. numba's own argsort is many times as much code, and every caller compiles it again.

Owner: the solvers; the engine sorts orders by age with it.
"""

import numpy as np

from topics.compiled.kernels import inner_kernel

TOP = np.int64(0)


@inner_kernel
def sort_rows(key, rows_inout, count):
    """Sort rows by their key, equal ones by row: heapsort, in place.

    Parameters
    ----------
    key : int64[...] (any stride)
        A key per row. A squared chord's bits will do: floats that are not negative compare as their bits do.
    rows_inout : int32[...]
        The first `count` are sorted.
    """
    for root in range(count // 2 - 1, -1, -1):
        _sink(key, rows_inout, root, count)
    for end in range(count - 1, 0, -1):
        rows_inout[0], rows_inout[end] = rows_inout[end], rows_inout[0]
        _sink(key, rows_inout, TOP, end)


@inner_kernel
def _sink(key, rows, at, end):
    while True:
        child = 2 * at + 1
        if child >= end:
            return
        if child + 1 < end and _before(key, rows[child], rows[child + 1]):
            child += 1
        if not _before(key, rows[at], rows[child]):
            return
        rows[at], rows[child] = rows[child], rows[at]
        at = child


@inner_kernel
def _before(key, one, other):
    return key[one] < key[other] or (key[one] == key[other] and one < other)
