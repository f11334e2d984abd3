"""Ties: which of two candidates comes first, and which wins when both are equally near.

Two distances within `EQUAL_M` are equal (contract, section 6). Of equal candidates the lower priority number wins, then the
smaller location id. single.py, and the single winner of several lines, decide by the same functions.
Owner: nobody; pure functions.
"""

import numpy as np

from streams.routing.distance import EQUAL_M, metres, window
from topics.compiled.kernels import inner_kernel
from topics.reasons import Lost, Won


@inner_kernel
def nearer(chord2, location, other_chord2, other_location, locations):
    """Order candidates by distance, co-located ones by id: the same whatever order the cells came in."""
    if chord2 != other_chord2:
        return chord2 < other_chord2
    return locations[location].rank < locations[other_location].rank


@inner_kernel
def beats(locations, other, winner, won):
    """Judge two equally near candidates: whether `other` beats `winner`, and the reasons.Won of whichever wins."""
    place, best = locations[other], locations[winner]
    if place.priority == best.priority:
        return place.rank < best.rank, np.int64(Won.LOCATION_ID)
    if place.priority < best.priority:
        return True, np.int64(Won.PRIORITY)
    return False, np.int64(Won.PRIORITY) if won == Won.NEAREST else np.int64(won)


@inner_kernel
def lost_by(locations, loser, winner):
    """Why an equally near candidate lost; reasons.Lost."""
    return Lost.LOCATION_ID if locations[loser].priority == locations[winner].priority else Lost.PRIORITY


@inner_kernel
def pick_single(locations, found_count, work):
    """Choose among the candidates marked `whole`: the nearest, ties as above.

    Returns
    -------
    tuple of int
        Location (-1: none is marked) and reasons.Won.
    """
    candidates = work.candidates
    nearest, able = np.inf, 0
    for k in range(found_count):
        location = np.int64(work.found[k])
        if candidates[location].whole:
            able += 1
            nearest = min(nearest, candidates[location].chord2)
    if able == 0:
        return np.int64(-1), np.int64(Won.NOTHING)
    shortest, reach = metres(nearest), window(nearest)
    winner, won = np.int64(-1), np.int64(Won.NEAREST if able > 1 else Won.ONLY_CANDIDATE)
    for k in range(found_count):
        location = np.int64(work.found[k])
        chord2 = candidates[location].chord2
        if not candidates[location].whole or chord2 > reach or metres(chord2) > shortest + EQUAL_M:
            continue
        better = True
        if winner >= 0:
            better, won = beats(locations, location, winner, won)
        if better:
            winner = location
    return winner, won
