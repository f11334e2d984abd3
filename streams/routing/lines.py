"""Routing of several lines, or of a pickup, behind one function pointer.

numba compiles a function again into each of its callers, and into their callers. So the routing of several lines made the
engine's compilation minutes long. A function called at an address is compiled once; the call costs some 20 ns.
The address is a plain number in the Scratch. A function object there would cost half a millisecond at each call from Python,
since numba would look up its type, and with it the types of all arrays beside it.
Owner: kernel.py calls it; `make_scratch` compiles it.
"""

from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from state.columns import CELL, LOCATION, SKU_CELL, SKU_LINK
from state.tables import View
from streams.routing.few import route_few
from streams.routing.kits import route_kits
from streams.routing.many import route_many
from streams.routing.policy import IN_FORCE
from streams.routing.scratch import EXACT_LINES, allocate_scratch
from topics.compiled.bundle import Bundle
from topics.compiled.kernels import inner_kernel, keep_with


@inner_kernel
def route_lines(
    view, scratch, line_count, refused_lines, refused_locations, x, y, z, pickup_location, allow_split, allow_partial
):
    """Route the order in hand; arguments and answer as for `route_order_kernel`, which has cleared the answer."""
    if line_count <= EXACT_LINES:
        return route_few(
            view, line_count, refused_lines, refused_locations, x, y, z, pickup_location, allow_split, allow_partial, scratch
        )
    if scratch.kit_parts[line_count] > 0:
        return route_kits(
            view, line_count, refused_lines, refused_locations, x, y, z, pickup_location, allow_split, allow_partial, scratch
        )
    return route_many(
        view, line_count, refused_lines, refused_locations, x, y, z, pickup_location, allow_split, allow_partial, scratch
    )


@cache
def _signature() -> Any:
    view = View(np.zeros(1, CELL), np.zeros(1, LOCATION), np.zeros(1, SKU_LINK), np.zeros(1, SKU_CELL))
    rows = numba.typeof(np.zeros(1, np.int32))
    scratch = allocate_scratch(1, 1, IN_FORCE)
    order = (types.int64, rows, rows, *(types.float64,) * 3, types.int64, types.boolean, types.boolean)
    return types.int64(numba.typeof(view), numba.typeof(scratch), *order)


@cache
def compile_route_lines() -> Any:
    """Compile `route_lines`, which is kept on disk like every kernel; `.address` is what kernels call."""
    keep_with(route_lines.py_func)
    return numba.cfunc(_signature(), cache=True, _nrt=False)(route_lines.py_func)  # type: ignore[call-arg]  # numba has it


def make_scratch(location_count: int, line_capacity: int = 1000, policy: int = IN_FORCE) -> Bundle:
    """Allocate the working memory of one routing thread.

    Parameters
    ----------
    location_count : int
        Rows of the pool's LOCATION array (its size, not its use); make a new Scratch when that grows.
    line_capacity : int
        Most lines of an order.
    policy : int
        Code of the policy to route by (policy.py).

    Returns
    -------
    Scratch
        Up to `250 + line_capacity / 4` bytes per location, 2 per location and line for orders that repeat SKUs, 1,600 per
        location for orders of kits; the operating system gives them as they are first used.
    """
    return allocate_scratch(location_count, line_capacity, policy, compile_route_lines().address)


@intrinsic
def call_route_lines(_context, address, given):
    """Call `route_lines` at its address, with a tuple of its arguments."""
    for one, expected in zip(given, _signature().args, strict=True):
        if one != expected:
            raise TypingError(f"route_lines takes {expected}, was given {one}")

    def call(context, builder, signature, arguments):
        kinds = [context.get_value_type(kind) for kind in signature.args[1]]
        function = builder.inttoptr(arguments[0], ir.FunctionType(ir.IntType(64), kinds).as_pointer())
        return builder.call(function, cgutils.unpack_tuple(builder, arguments[1]))

    return types.int64(address, given), call
