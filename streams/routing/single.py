"""The hot path: one line, delivered; one scan over the SKU's cells, no table of candidates.

Most cells are left after one comparison of squared chords: a cell's stock is looked at only if its location is among the
four nearest so far (an explanation names three besides the winner) or as near as the best that has the stock.
Owner: kernel.py.
Not here: several lines, pickups (few.py).
"""

import numpy as np

from streams.routing.candidates import LOSERS, NEAR, SHIPPER, free_units, nearer, role_of
from streams.routing.distance import EQUAL_M, metres, squared_chord, window
from topics.kernels import allocating_kernel, inlined
from topics.reasons import Lost, ShipmentKind, Unallocated, Won


@allocating_kernel
def route_line(view, sku, quantity, refused_locations, x, y, z, allow_split, scratch, out):
    """Route an order of one delivered line; arguments and result as for `route_order_kernel`."""
    cells, locations, sku_cells = view.cells, view.locations, view.sku_cells
    near, near_chord2 = scratch.near, scratch.near_chord2
    start = stop = 0
    if sku >= 0:
        start = view.sku_links[sku].block_at
        stop = start + view.sku_links[sku].block_count
    winner, best, reach, able, tied = -1, np.inf, np.inf, 0, False
    near_count, limit = 0, np.inf
    for at in range(start, stop):
        row = sku_cells[at]
        location = cells[row].location
        chord2 = squared_chord(locations[location], x, y, z)
        if chord2 > limit:
            continue
        near_count = _keep_near(near, near_chord2, near_count, row, chord2, view)
        if _ships(view, row, quantity, refused_locations):
            able += 1
            if chord2 < best:
                farther = window(chord2)
                tied = best <= farther
                winner, best, reach = row, chord2, farther
            elif chord2 <= reach:
                tied = True
        if near_count == NEAR:
            limit = max(reach, near_chord2[NEAR - 1])

    out.explanation[0] = stop - start
    if winner < 0:
        out.reason[0] = _why_not(view, start, stop, quantity, allow_split)
        _explain(view, near, near_chord2, near_count, -1, 0.0, quantity, refused_locations, out)
        return 0
    shortest = metres(best)
    won = Won.NEAREST
    if tied:
        winner, won = _break_tie(view, start, stop, quantity, refused_locations, x, y, z, winner, shortest, reach)
    elif able == 1 and not _another(view, start, stop, quantity, refused_locations, winner):
        won = Won.ONLY_CANDIDATE
    location = cells[winner].location
    out.location[0] = location
    out.cell[0] = winner
    out.distance_m[0] = np.int32(metres(squared_chord(locations[location], x, y, z)) + 0.5)
    out.kind[0] = ShipmentKind.SHIP
    out.explanation[1] = won
    out.explanation[3] = 1
    _explain(view, near, near_chord2, near_count, winner, shortest, quantity, refused_locations, out)
    return 1


@inlined
def _keep_near(near, near_chord2, count, row, chord2, view):
    """Insert a cell into the list of the nearest; return the list's length."""
    location = view.cells[row].location
    at = count
    if count == NEAR:
        at = NEAR - 1
        if not nearer(chord2, location, near_chord2[at], view.cells[near[at]].location, view.locations):
            return count
    while at > 0 and nearer(chord2, location, near_chord2[at - 1], view.cells[near[at - 1]].location, view.locations):
        near[at] = near[at - 1]
        near_chord2[at] = near_chord2[at - 1]
        at -= 1
    near[at] = row
    near_chord2[at] = chord2
    return min(count + 1, NEAR)


@allocating_kernel
def _ships(view, row, quantity, refused_locations):
    """Whether a cell's location may ship, has not refused, and has the units."""
    cell = view.cells[row]
    return free_units(cell) >= quantity and _eligible(view, cell.location, refused_locations)


@allocating_kernel
def _eligible(view, location, refused_locations):
    if role_of(view.locations[location], location, -1) != SHIPPER:
        return False
    for i in range(refused_locations.size):  # noqa: SIM110 (numba compiles no generator here)
        if refused_locations[i] == location:
            return False
    return True


@allocating_kernel
def _another(view, start, stop, quantity, refused_locations, winner):
    """Whether a cell besides the winner could have served; the scan may have left it unseen as too far."""
    for at in range(start, stop):
        row = view.sku_cells[at]
        if row != winner and _ships(view, row, quantity, refused_locations):
            return True
    return False


@allocating_kernel
def _break_tie(view, start, stop, quantity, refused_locations, x, y, z, nearest, shortest, reach):
    """Of the cells that serve within a metre of the nearest: the lowest priority, then the smallest id."""
    winner, won = nearest, Won.NEAREST
    for at in range(start, stop):
        row = view.sku_cells[at]
        if row == winner:
            continue
        place = view.locations[view.cells[row].location]
        chord2 = squared_chord(place, x, y, z)
        if chord2 > reach or not _ships(view, row, quantity, refused_locations):
            continue
        if metres(chord2) > shortest + EQUAL_M:
            continue
        best = view.locations[view.cells[winner].location]
        if place.priority == best.priority:
            won = Won.LOCATION_ID
            if place.rank < best.rank:
                winner = row
        elif place.priority < best.priority:
            winner, won = row, Won.PRIORITY
        elif won == Won.NEAREST:
            won = Won.PRIORITY
    return winner, won


@allocating_kernel
def _why_not(view, start, stop, quantity, allow_split):
    if not allow_split:
        return Unallocated.NO_SINGLE_LOCATION
    for at in range(start, stop):
        if free_units(view.cells[view.sku_cells[at]]) >= quantity:
            return Unallocated.NOT_ELIGIBLE
    return Unallocated.NO_STOCK


@allocating_kernel
def _explain(view, near, near_chord2, near_count, winner, shortest, quantity, refused_locations, out):
    """Name the nearest three besides the winner, and why they lost."""
    losers = 0
    for i in range(near_count):
        row = near[i]
        if row == winner or losers == LOSERS:
            continue
        location = view.cells[row].location
        distance = metres(near_chord2[i])
        reason = Lost.FARTHER
        if not _eligible(view, location, refused_locations):
            reason = Lost.NOT_ELIGIBLE
        elif free_units(view.cells[row]) < quantity:
            reason = Lost.NO_STOCK
        elif distance <= shortest + EQUAL_M:
            tie = view.locations[location].priority == view.locations[view.cells[winner].location].priority
            reason = Lost.LOCATION_ID if tie else Lost.PRIORITY
        out.loser_location[losers] = location
        out.loser_distance_m[losers] = np.int32(distance + 0.5)
        out.loser_reason[losers] = reason
        losers += 1
    out.explanation[2] = losers
