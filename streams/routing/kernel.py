"""The routing kernel of policy `nearest`: one order in, the location of each line and the reasons out.

It decides and changes nothing: the caller reserves what was promised before it routes the next order.
Owner: the engine (streams/engine) and the benchmarks call it; its twin is reference.py.
Invariants: a line's location is eligible and did not refuse the line; what an order's lines take from a cell is at most what
is available there; the same input gives the same answer.
Not here: state (state/), pickups that can never be met (rejected before routing).
"""

import numpy as np

from state.columns import ENABLED
from streams.routing.candidates import LOSERS, Answer, View
from streams.routing.lines import call_route_lines
from streams.routing.single import route_line
from topics.kernels import kernel
from topics.reasons import Unallocated


@kernel
def route_order_kernel(
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
    """Decide where each line of an order comes from.

    Parameters
    ----------
    view : View
        The pool's CELL, LOCATION, SKU_LINK rows and int32 cell rows by SKU, as they are now.
    sku_rows : int32[n]
        The lines' SKUs; -1 = a SKU nobody stocks. n is at most the scratch's `line_capacity`.
    quantities : int32[n]
        Units, >= 1.
    refused_lines, refused_locations : int32[r]
        Pairs: this line may not go to that location. Contiguous.
    x, y, z : float
        Destination, unit vector; not read for a pickup.
    pickup_location : int
        Location row, -1 = a delivery. A disabled one makes everything wait.
    allow_split, allow_partial : bool
    scratch : Scratch
        Made for at least as many locations as `view.locations` has rows.
    location_out, cell_out, distance_m_out : int32[n]
        Per line: location and cell row, -1 = it waits; metres from the destination, rounded.
    kind_out, reason_out : uint8[n]
        Per line: reasons.ShipmentKind if promised, reasons.Unallocated if it waits; else 0.
    explanation_out : int64[4]
        Locations considered, reasons.Won, losers named, shipments.
    loser_location_out, loser_distance_m_out : int32[3]
    loser_reason_out : uint8[3]
        The nearest considered locations besides the chosen, and their reasons.Lost.

    Returns
    -------
    int
        Lines promised. The lines of one location are one shipment.

    Raises
    ------
    ValueError
        The scratch is too small for the locations or the lines.
    """
    out = Answer(
        location_out,
        cell_out,
        distance_m_out,
        kind_out,
        reason_out,
        explanation_out,
        loser_location_out,
        loser_distance_m_out,
        loser_reason_out,
    )
    line_count = sku_rows.size
    for i in range(line_count):
        location_out[i] = cell_out[i] = -1
        distance_m_out[i] = 0
        kind_out[i] = reason_out[i] = 0
    for i in range(4):
        explanation_out[i] = 0
    work = scratch.work
    if pickup_location < 0 and line_count == 1:
        return route_line(
            view,
            sku_rows[0],
            quantities[0],
            refused_locations,
            x,
            y,
            z,
            allow_split,
            work.near,
            work.near_chord2,
            out,
        )
    if work.candidates.size < view.locations.size or work.line_sku.size <= line_count:
        raise ValueError("scratch is too small: make_scratch(view.locations.size, most lines of an order)")
    if pickup_location >= 0:
        place = view.locations[pickup_location]
        x, y, z = place.x, place.y, place.z
        if not place.flags & ENABLED:
            for i in range(line_count):
                reason_out[i] = Unallocated.LOCATION_DISABLED
            return 0
    for i in range(line_count):
        work.line_sku[i] = sku_rows[i]
        work.line_quantity[i] = quantities[i]
    promised = call_route_lines(
        scratch.route_lines,
        View(view.cells, view.locations, view.sku_links, view.sku_cells),
        work,
        np.int64(line_count),
        refused_lines,
        refused_locations,
        x,
        y,
        z,
        np.int64(pickup_location),
        bool(allow_split),
        bool(allow_partial),
    )
    _copy_answer(work.out, line_count, out)
    return promised


@kernel
def _copy_answer(answer, line_count, out):
    for i in range(line_count):
        out.location[i] = answer.location[i]
        out.cell[i] = answer.cell[i]
        out.distance_m[i] = answer.distance_m[i]
        out.kind[i] = answer.kind[i]
        out.reason[i] = answer.reason[i]
    for i in range(4):
        out.explanation[i] = answer.explanation[i]
    for i in range(LOSERS):
        out.loser_location[i] = answer.loser_location[i]
        out.loser_distance_m[i] = answer.loser_distance_m[i]
        out.loser_reason[i] = answer.loser_reason[i]


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
    """Route many orders one after the other, reserving as it goes: the kernel as benchmarks and tests run it.

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
        The rest as in `route_order_kernel`, the line arrays for all orders' lines. No line was refused before.

    Returns
    -------
    int
        Lines promised.
    """
    nobody = scratch.work.line_sku[:0]
    promised = 0
    for k in range(first_line.size - 1):
        start, stop = first_line[k], first_line[k + 1]
        promised += route_order_kernel(
            view,
            sku_rows[start:stop],
            quantities[start:stop],
            nobody,
            nobody,
            destinations[k, 0],
            destinations[k, 1],
            destinations[k, 2],
            pickup_locations[k],
            allow_split[k],
            allow_partial[k],
            scratch,
            location_out[start:stop],
            cell_out[start:stop],
            distance_m_out[start:stop],
            kind_out[start:stop],
            reason_out[start:stop],
            explanation_out[k],
            loser_location_out[k],
            loser_distance_m_out[k],
            loser_reason_out[k],
        )
        reserve(view, quantities[start:stop], cell_out[start:stop])
    return promised
