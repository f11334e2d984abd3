"""The routing kernel: one order in, the location of each line and the reasons out.

It decides and changes nothing: the caller reserves what was promised before it routes the next order.
Owner: the engine (streams/inventory) and the benchmarks call it; its twin is reference.py.
Invariants: a line's location is eligible and did not refuse the line; what an order's lines take from a cell is at most what
is available there; the same input gives the same answer.
Not here: state (state/), pickups that can never be met (rejected before routing).
"""

import numpy as np

from state.columns import ENABLED
from streams.routing.answer import LOSERS
from streams.routing.lines import call_route_lines
from streams.routing.policy import NEAREST
from streams.routing.single import route_line
from topics.compiled.kernels import kernel
from topics.reasons import Unallocated


@kernel
def route_order_kernel(
    view, scratch, line_count, refused_lines, refused_locations, x, y, z, pickup_location, allow_split, allow_partial
):
    """Decide where each line of an order comes from.

    Parameters
    ----------
    view : View
        The pool's CELL, LOCATION, SKU_LINK rows and SKU_CELL blocks, as they are now.
    scratch : Scratch
        Made for at least as many locations as `view.locations` has rows. It holds the order's lines, as its docstring says, and
        is left with the answer, see below.
    line_count : int64
        n, at most the scratch's `line_capacity`.
    refused_lines, refused_locations : int32[r]
        Pairs: this line may not go to that location. Contiguous.
    x, y, z : float
        Destination, unit vector; not read for a pickup.
    pickup_location : int
        Location row, -1 = a delivery. A disabled one makes everything wait.
    allow_split, allow_partial : bool

    Returns
    -------
    int
        Lines promised. The lines of one location are one shipment. In `scratch.out` are
        `location`, `cell`, `distance_m` : int32[n], per line: location and cell row (of a kit's first part), -1 = it waits;
        metres from the destination, rounded;
        `kind`, `reason` : uint8[n], per line: reasons.ShipmentKind if promised, reasons.Unallocated if it waits; else 0;
        `explanation` : int64[4], locations considered, reasons.Won, losers named, shipments;
        `loser_location`, `loser_distance_m` : int32[3], `loser_reason` : uint8[3], the nearest considered locations besides the
        chosen, and their reasons.Lost.

    Raises
    ------
    ValueError
        The scratch is too small for the locations or the lines.
    """
    out = scratch.out
    for i in range(line_count):
        out.location[i] = out.cell[i] = -1
        out.distance_m[i] = 0
        out.kind[i] = out.reason[i] = 0
    for i in range(4):
        out.explanation[i] = 0
    if pickup_location < 0 and line_count == 1 and scratch.policy == NEAREST and scratch.kit_parts[1] == 0:
        return route_line(view, scratch, refused_locations, x, y, z, allow_split)
    if scratch.candidates.size < view.locations.size or scratch.line_sku.size <= line_count:
        raise ValueError("scratch is too small: make_scratch(view.locations.size, most lines of an order)")
    if pickup_location >= 0:
        place = view.locations[pickup_location]
        x, y, z = place.x, place.y, place.z
        if not place.flags & ENABLED:
            for i in range(line_count):
                out.reason[i] = Unallocated.LOCATION_DISABLED
            return 0
    line_count, pickup_location = np.int64(line_count), np.int64(pickup_location)
    order = (line_count, refused_lines, refused_locations, x, y, z, pickup_location, bool(allow_split), bool(allow_partial))
    return call_route_lines(scratch.route_lines, (view, scratch, *order))


@kernel
def reserve(view, quantities, cell):
    """Reserve an order's promised lines; `cell` int32[n] as the kernel wrote it."""
    for i in range(quantities.size):
        if cell[i] >= 0:
            view.cells[cell[i]].reserved += quantities[i]


@kernel
def route_orders_kernel(
    view,
    first_line,
    sku_rows,
    quantities,
    destinations,
    pickup_locations,
    allow_split,
    allow_partial,
    scratch,
    location_out,
    cell_out,
    distance_m_out,
    kind_out,
    reason_out,
    explanation_out,
    loser_location_out,
    loser_distance_m_out,
    loser_reason_out,
):
    """Route many orders of plain lines one after the other, reserving as it goes: the kernel as benchmarks and tests run it.

    Parameters
    ----------
    first_line : int64[m + 1]
        Order k's lines are rows first_line[k] to first_line[k + 1] of the line arrays.
    destinations : float64[m, 3]
        Unit vectors.
    pickup_locations : int32[m]
    allow_split, allow_partial : bool[m]
    explanation_out : int64[m, 4]
    loser_location_out, loser_distance_m_out, loser_reason_out : [m, 3]
        The rest as `route_order_kernel` leaves it, the line arrays for all orders' lines. No line was refused before.

    Returns
    -------
    int
        Lines promised.
    """
    nobody = scratch.line_sku[:0]
    out = scratch.out
    promised = 0
    for k in range(first_line.size - 1):
        start, count = first_line[k], first_line[k + 1] - first_line[k]
        if count >= scratch.line_sku.size:
            raise ValueError("scratch is too small: make_scratch(view.locations.size, most lines of an order)")
        scratch.kit_parts[: count + 1] = 0
        for i in range(count):
            scratch.line_sku[i] = sku_rows[start + i]
            scratch.line_quantity[i] = quantities[start + i]
        promised += route_order_kernel(
            view,
            scratch,
            count,
            nobody,
            nobody,
            destinations[k, 0],
            destinations[k, 1],
            destinations[k, 2],
            pickup_locations[k],
            allow_split[k],
            allow_partial[k],
        )
        for i in range(count):
            location_out[start + i] = out.location[i]
            cell_out[start + i] = out.cell[i]
            distance_m_out[start + i] = out.distance_m[i]
            kind_out[start + i] = out.kind[i]
            reason_out[start + i] = out.reason[i]
        for i in range(4):
            explanation_out[k, i] = out.explanation[i]
        for i in range(LOSERS):
            loser_location_out[k, i] = out.loser_location[i]
            loser_distance_m_out[k, i] = out.loser_distance_m[i]
            loser_reason_out[k, i] = out.loser_reason[i]
        reserve(view, quantities[start : start + count], cell_out[start : start + count])
    return promised
