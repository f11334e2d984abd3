"""Ties: which of two candidates comes first, and which wins when both are equally cheap.

Two costs within `EQUAL_M` are equal (contract, section 6). Of equal candidates the lower priority number wins, then the
smaller location id. single.py, and the single winner of several lines, decide by the same functions.
Owner: nobody; pure functions.
"""

import numpy as np

from streams.routing.prices import cost_of, price_above
from topics.compiled.kernels import inner_kernel
from topics.reasons import Lost, Won

EQUAL_M = 1.0


@inner_kernel
def cheaper(price, location, other_price, other_location, locations):
    """Order candidates by price, equal ones by id: the same whatever order the cells came in."""
    if price != other_price:
        return price < other_price
    return locations[location].rank < locations[other_location].rank


@inner_kernel
def beats(locations, other, winner, won):
    """Judge two equally cheap candidates: whether `other` beats `winner`, and the reasons.Won of whichever wins."""
    place, best = locations[other], locations[winner]
    if place.priority == best.priority:
        return place.rank < best.rank, np.int64(Won.LOCATION_ID)
    if place.priority < best.priority:
        return True, np.int64(Won.PRIORITY)
    return False, np.int64(Won.PRIORITY) if won == Won.NEAREST else np.int64(won)


@inner_kernel
def lost_by(locations, loser, winner):
    """Why an equally cheap candidate lost; reasons.Lost."""
    return Lost.LOCATION_ID if locations[loser].priority == locations[winner].priority else Lost.PRIORITY


@inner_kernel
def pick_single(locations, found_count, work):
    """Choose among the candidates marked `whole`: the cheapest, ties as above.

    Returns
    -------
    tuple of int
        Location (-1: none is marked) and reasons.Won.
    """
    candidates = work.candidates
    lowest, able = np.inf, 0
    for k in range(found_count):
        location = np.int64(work.found[k])
        if candidates[location].whole:
            able += 1
            lowest = min(lowest, candidates[location].price)
    if able == 0:
        return np.int64(-1), np.int64(Won.NOTHING)
    least, reach = cost_of(lowest), price_above(lowest, EQUAL_M)
    winner, won = np.int64(-1), np.int64(Won.NEAREST if able > 1 else Won.ONLY_CANDIDATE)
    for k in range(found_count):
        location = np.int64(work.found[k])
        price = candidates[location].price
        if not candidates[location].whole or price > reach or cost_of(price) > least + EQUAL_M:
            continue
        better = True
        if winner >= 0:
            better, won = beats(locations, location, winner, won)
        if better:
            winner = location
    return winner, won
