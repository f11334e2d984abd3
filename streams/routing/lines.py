"""Routing of several lines, or of a pickup, behind one function pointer.

What numba compiles into a caller, it optimises again with that caller, and with each caller's caller: the routing of several
lines, linked into the engine, made its compilation minutes long. Called through an address it is compiled once; the call
costs some 20 ns. So it takes nothing but the pool, the working memory and numbers, and leaves its answer there.
Owner: kernel.py, which calls the pointer that `make_scratch` puts into a Scratch.
"""

from functools import cache

import numba
import numpy as np
from numba import types

from state.columns import CELL, LOCATION, SKU_LINK
from streams.routing.candidates import EXACT_LINES, View, make_work
from streams.routing.few import route_few
from streams.routing.inner import inner_kernel
from streams.routing.many import route_many


@inner_kernel
def route_lines(view, work, line_count, refused_lines, refused_locations, x, y, z, pickup_location, allow_split, allow_partial):
    """Route the order whose lines are in `work.line_sku` and `work.line_quantity`; the answer is in `work.out`.

    Arguments and answer as for `route_order_kernel`, into which the answer is copied.
    """
    out = work.out
    for i in range(line_count):
        out.location[i] = out.cell[i] = -1
        out.distance_m[i] = 0
        out.kind[i] = out.reason[i] = 0
    if line_count <= EXACT_LINES:
        return route_few(
            view, line_count, refused_lines, refused_locations, x, y, z, pickup_location, allow_split, allow_partial, work
        )
    return route_many(
        view, line_count, refused_lines, refused_locations, x, y, z, pickup_location, allow_split, allow_partial, work
    )


@cache
def compile_route_lines():
    """Compile `route_lines` to an address that kernels can call; kept on disk like every kernel."""
    view = View(np.zeros(1, CELL), np.zeros(1, LOCATION), np.zeros(1, SKU_LINK), np.zeros(1, np.int32))
    rows = numba.typeof(np.zeros(1, np.int32))
    signature = types.int64(
        numba.typeof(view),
        numba.typeof(make_work(1, 1)),
        types.int64,
        rows,
        rows,
        *(types.float64,) * 3,
        types.int64,
        types.boolean,
        types.boolean,
    )
    return numba.cfunc(signature, cache=True, _nrt=False)(route_lines.py_func)
