"""The fast path of policy `nearest`: one line, delivered; no table of candidates, no prices but distances.

A SKU's cells are sorted by their location's z, the sine of its latitude. A search begins at the destination's z and goes
upwards, then downwards. No chord is shorter than its difference in z. So a direction ends where that difference alone exceeds
the limit of the search. Of n cells spread over an area, a search reads about the square root of n.
The first search finds the four nearest cells, with stock or without: an explanation names three besides the winner, and mostly
the winner is among them. If it is not, a second search finds the nearest cell with the stock.
Owner: kernel.py.
Not here: several lines, pickups, other policies (lines.py).
"""

import numpy as np

from streams.routing.answer import LOSERS
from streams.routing.candidates import free_units
from streams.routing.distance import metres, squared_chord, window
from streams.routing.fences import FAR, SHIPPER, fenced_off, role_of
from streams.routing.scratch import NEAR
from streams.routing.ties import EQUAL_M, beats, cheaper, lost_by
from topics.compiled.kernels import kernel
from topics.reasons import Lost, ShipmentKind, Unallocated, Won


@kernel
def route_line(view, scratch, refused_locations, x, y, z, allow_split):
    """Route an order of one delivered line; arguments and answer as for `route_order_kernel`, which has cleared the answer."""
    sku, quantity, out = scratch.line_sku[0], scratch.line_quantity[0], scratch.out
    near, near_chord2 = scratch.near, scratch.near_chord2
    cells, locations, sku_cells = view.cells, view.locations, view.sku_cells
    start = stop = np.int64(0)
    if sku >= 0:
        start = view.sku_links[sku].block_at
        stop = start + view.sku_links[sku].block_count
    middle = _first_above(locations, sku_cells, start, stop, z)
    near_count = _nearest(locations, sku_cells, start, middle, stop, x, y, z, near, near_chord2)
    able, first = 0, NEAR
    for i in range(near_count):
        entry = sku_cells[near[i]]
        if free_units(cells[entry.row]) >= quantity and _eligible(locations, entry.location, refused_locations, x, y, z):
            able += 1
            first = min(first, i)
    winner, best, reach, tied = np.int64(-1), np.inf, np.inf, False
    if able > 0:
        winner, best = np.int64(sku_cells[near[first]].row), near_chord2[first]
        reach = window(best, EQUAL_M)
        # Every cell as near as the winner is in the list, unless the whole list is as near.
        tied = near_count == NEAR and near_chord2[NEAR - 1] <= reach
        tied |= able > 1 and first + 1 < near_count and near_chord2[first + 1] <= reach
    elif near_count == NEAR:
        winner, best, reach, tied = _nearest_able(view, start, middle, stop, quantity, refused_locations, x, y, z)

    out.explanation[0] = stop - start
    shortest, won = 0.0, np.int64(Won.NEAREST)
    if winner < 0:
        out.reason[0] = _why_not(view, start, stop, quantity, refused_locations, x, y, z, allow_split)
    else:
        shortest = distance = metres(best)
        if tied:
            winner, won = _break_tie(view, start, stop, quantity, refused_locations, x, y, z, winner, shortest, reach)
            distance = metres(squared_chord(locations[cells[winner].location], x, y, z))
        if won == Won.NEAREST and able <= 1 and not _another(view, start, stop, quantity, refused_locations, x, y, z, winner):
            won = np.int64(Won.ONLY_CANDIDATE)
        out.location[0] = cells[winner].location
        out.cell[0] = winner
        out.distance_m[0] = np.int32(distance + 0.5)
        out.kind[0] = ShipmentKind.SHIP
        out.explanation[1] = won
        out.explanation[3] = 1
    _explain(view, scratch, near_count, winner, shortest, refused_locations, x, y, z)
    return np.int64(winner >= 0)


@kernel
def _first_above(locations, sku_cells, start, stop, z):
    """Find the first cell of a block whose location is at `z` or above."""
    while start < stop:
        middle = (start + stop) >> 1
        if locations[sku_cells[middle].location].z < z:
            start = middle + 1
        else:
            stop = middle
    return start


@kernel
def _nearest(locations, sku_cells, start, middle, stop, x, y, z, near, near_chord2):
    """List the places of a block's nearest cells, nearest first; return how many."""
    count, limit = 0, np.inf
    at, end, step = middle, stop, 1
    while True:
        while at != end:
            location = sku_cells[at].location
            place = locations[location]
            gap = place.z - z
            if gap * gap > limit:
                break
            chord2 = squared_chord(place, x, y, z)
            if chord2 <= limit:
                count = _keep_near(locations, sku_cells, near, near_chord2, count, at, location, chord2)
                if count == NEAR:
                    limit = near_chord2[NEAR - 1]
            at += step
        if step < 0:
            return count
        at, end, step = middle - 1, start - 1, -1


@kernel
def _keep_near(locations, sku_cells, near, near_chord2, count, cell_at, location, chord2):
    """Insert a cell into the list of the nearest; return the list's length."""
    at = count
    if count == NEAR:
        at = NEAR - 1
        if not cheaper(chord2, location, near_chord2[at], sku_cells[near[at]].location, locations):
            return count
    while at > 0 and cheaper(chord2, location, near_chord2[at - 1], sku_cells[near[at - 1]].location, locations):
        near[at] = near[at - 1]
        near_chord2[at] = near_chord2[at - 1]
        at -= 1
    near[at] = cell_at
    near_chord2[at] = chord2
    return min(count + 1, NEAR)


@kernel
def _nearest_able(view, start, middle, stop, quantity, refused_locations, x, y, z):
    """Find the nearest cell that can serve: its row, squared chord, what counts as equally near, and whether any is."""
    locations, sku_cells = view.locations, view.sku_cells
    winner, best, reach, tied = np.int64(-1), np.inf, np.inf, False
    at, end, step = middle, stop, 1
    while True:
        while at != end:
            entry = sku_cells[at]
            place = locations[entry.location]
            gap = place.z - z
            if gap * gap > reach:
                break
            chord2 = squared_chord(place, x, y, z)
            if (
                chord2 <= reach
                and free_units(view.cells[entry.row]) >= quantity
                and _eligible(locations, entry.location, refused_locations, x, y, z)
            ):
                if chord2 < best:
                    farther = window(chord2, EQUAL_M)
                    tied = best <= farther
                    winner, best, reach = np.int64(entry.row), chord2, farther
                else:
                    tied = True
            at += step
        if step < 0:
            return winner, best, reach, tied
        at, end, step = middle - 1, start - 1, -1


@kernel
def _eligible(locations, location, refused_locations, x, y, z):
    """Whether a location may ship so far and has not refused."""
    role = role_of(locations[location], location, -1, x, y, z)
    return role == SHIPPER and not _refused(location, refused_locations)


@kernel
def _refused(location, refused_locations):
    """Whether a location refused the line before."""
    for i in range(refused_locations.size):  # noqa: SIM110 (numba compiles no generator here)
        if refused_locations[i] == location:
            return True
    return False


@kernel
def _another(view, start, stop, quantity, refused_locations, x, y, z, winner):
    """Whether a cell besides the winner could have served. The searches end before they have read all cells."""
    for at in range(start, stop):
        row = view.sku_cells[at].row
        cell = view.cells[row]
        if (
            row != winner
            and free_units(cell) >= quantity
            and _eligible(view.locations, cell.location, refused_locations, x, y, z)
        ):
            return True
    return False


@kernel
def _break_tie(view, start, stop, quantity, refused_locations, x, y, z, nearest, shortest, reach):
    """Of the cells that serve within a metre of the nearest: the lowest priority, then the smallest id."""
    winner, won = nearest, np.int64(Won.NEAREST)
    for at in range(start, stop):
        row = np.int64(view.sku_cells[at].row)
        cell = view.cells[row]
        chord2 = squared_chord(view.locations[cell.location], x, y, z)
        if row == winner or chord2 > reach or metres(chord2) > shortest + EQUAL_M:
            continue
        if free_units(cell) < quantity or not _eligible(view.locations, cell.location, refused_locations, x, y, z):
            continue
        better, won = beats(view.locations, cell.location, view.cells[winner].location, won)
        if better:
            winner = row
    return winner, won


@kernel
def _why_not(view, start, stop, quantity, refused_locations, x, y, z, allow_split):
    if not allow_split:
        return np.int64(Unallocated.NO_SINGLE_LOCATION)
    reason = np.int64(Unallocated.NO_STOCK)
    for at in range(start, stop):
        entry = view.sku_cells[at]
        if free_units(view.cells[entry.row]) >= quantity:
            role = role_of(view.locations[entry.location], entry.location, -1, x, y, z)
            reason = fenced_off(role, _refused(entry.location, refused_locations), reason)
    return reason


@kernel
def _explain(view, scratch, near_count, winner, shortest, refused_locations, x, y, z):
    """Name the nearest three besides the winner, and why they lost."""
    cells, locations, out = view.cells, view.locations, scratch.out
    losers = 0
    for i in range(near_count):
        entry = view.sku_cells[scratch.near[i]]
        row, location = entry.row, entry.location
        if row == winner or losers == LOSERS:
            continue
        distance = metres(scratch.near_chord2[i])
        reason = Lost.FARTHER
        role = role_of(locations[location], location, -1, x, y, z)
        if role == FAR:
            reason = Lost.TOO_FAR
        elif role != SHIPPER:
            reason = Lost.NOT_ELIGIBLE
        elif free_units(cells[row]) < scratch.line_quantity[0]:
            reason = Lost.NO_STOCK
        elif _refused(location, refused_locations):
            reason = Lost.NOT_ELIGIBLE
        elif distance <= shortest + EQUAL_M:
            reason = lost_by(locations, location, cells[winner].location)
        out.loser_location[losers] = location
        out.loser_distance_m[losers] = np.int32(distance + 0.5)
        out.loser_reason[losers] = reason
        losers += 1
    out.explanation[2] = losers
