"""The answer to an order: what is promised from where, and its explanation.

Owner: lines.py; few.py and many.py call it. single.py writes the same bundle itself.
Not here: which location takes which line.
"""

import numpy as np

from streams.routing.distance import metres, squared_chord
from streams.routing.fences import FAR, NONE, OWN
from streams.routing.prices import cost_of
from streams.routing.ties import EQUAL_M, cheaper, lost_by
from topics.compiled.bundle import Bundle
from topics.compiled.kernels import inner_kernel
from topics.reasons import Lost, ShipmentKind, Won

LOSERS = 3


class Answer(Bundle):
    """What was decided on the order in hand; its arrays are those of `route_order_kernel`."""

    _fields = (
        *("location", "cell", "distance_m", "kind", "reason", "explanation"),
        *("loser_location", "loser_distance_m", "loser_reason"),
    )


@inner_kernel
def keep_promises(line_count, allow_partial, work):
    """Take all lines back if some wait and the order is all or nothing.

    Returns
    -------
    tuple of int
        Lines that have a location; their units, or those of the whole order if none has.
    """
    promised, units, total = np.int64(0), np.int64(0), np.int64(0)
    for i in range(line_count):
        total += work.line_quantity[i]
        if work.line_location[i] >= 0:
            promised += 1
            units += work.line_quantity[i]
    if promised == 0 or (promised < line_count and not allow_partial):
        for i in range(line_count):
            work.line_location[i] = -1
        return np.int64(0), total
    return promised, units


@inner_kernel
def write_promises(locations, line_count, x, y, z, pickup_location, work):
    """Write the lines that have a location; return (lines promised, shipments)."""
    candidates, out = work.candidates, work.out
    lines = shipments = 0
    for i in range(line_count):
        location = work.line_location[i]
        if location < 0:
            continue
        lines += 1
        if not candidates[location].chosen:
            candidates[location].chosen = 1
            shipments += 1
        out.location[i] = location
        out.cell[i] = work.line_cell[i]
        out.distance_m[i] = _whole_metres(locations[location], x, y, z)
        if candidates[location].role == OWN:
            out.kind[i] = ShipmentKind.PICKUP
        elif pickup_location < 0:
            out.kind[i] = ShipmentKind.SHIP
        else:
            out.kind[i] = ShipmentKind.TRANSFER
    return lines, shipments


@inner_kernel
def _whole_metres(place, x, y, z):
    """Distance from a location (row `place`) to the destination, rounded."""
    return np.int32(metres(squared_chord(place, x, y, z)) + 0.5)


@inner_kernel
def find_losers(locations, found_count, work):
    """Put the cheapest candidates that were not chosen into `work.near`; return how many."""
    candidates, near = work.candidates, work.near
    count = 0
    last = np.inf
    for k in range(found_count):
        location = np.int64(work.found[k])
        price = candidates[location].price
        if price > last or candidates[location].chosen:
            continue
        at = count
        if count == LOSERS:
            at = LOSERS - 1
            if not cheaper(price, location, candidates[near[at]].price, near[at], locations):
                continue
        while at > 0 and cheaper(price, location, candidates[near[at - 1]].price, near[at - 1], locations):
            near[at] = near[at - 1]
            at -= 1
        near[at] = location
        count = min(count + 1, LOSERS)
        if count == LOSERS:
            last = candidates[near[LOSERS - 1]].price
    return count


@inner_kernel
def write_losers(locations, found_count, loser_count, x, y, z, winner, won, needed_units, work):
    """Write why each candidate in `work.near` lost.

    Parameters
    ----------
    winner : int
        The single winner, read only if `won` is a tie-break.
    needed_units : int
        Units of the answer, or of the order if nothing was promised. A candidate's `units` is what it could take
        alone; -1 says that it has the stock but refused.
    """
    candidates, out = work.candidates, work.out
    tied = won in (Won.PRIORITY, Won.LOCATION_ID)
    least = np.inf
    if tied:
        for k in range(found_count):
            location = np.int64(work.found[k])
            if candidates[location].whole:
                least = min(least, candidates[location].price)
        least = cost_of(least)
    for i in range(loser_count):
        location = work.near[i]
        entry = candidates[location]
        reason = Lost.FARTHER
        if entry.role == FAR:
            reason = Lost.TOO_FAR
        elif entry.role == NONE or entry.units < 0:
            reason = Lost.NOT_ELIGIBLE
        elif entry.units == 0:
            reason = Lost.NO_STOCK
        elif entry.units < needed_units:
            reason = Lost.FEWER_UNITS
        elif tied and entry.whole and cost_of(entry.price) <= least + EQUAL_M:
            reason = lost_by(locations, location, winner)
        out.loser_location[i] = location
        out.loser_distance_m[i] = _whole_metres(locations[location], x, y, z)
        out.loser_reason[i] = reason
    out.explanation[2] = loser_count
