"""What several lines' routing has in common once the lines have their slots: the single winner, the answer, its explanation.

Owner: lines.py; few.py and many.py call it.
Not here: which slot takes which line.
"""

import numpy as np

from streams.routing.candidates import LOSERS, NONE, OWN, nearer
from streams.routing.distance import EQUAL_M, metres, window
from streams.routing.inner import inner_kernel
from topics.reasons import Lost, ShipmentKind, Won

NEAREST, ONLY_CANDIDATE = int(Won.NEAREST), int(Won.ONLY_CANDIDATE)
PRIORITY, LOCATION_ID, NOTHING = int(Won.PRIORITY), int(Won.LOCATION_ID), int(Won.NOTHING)


@inner_kernel
def pick_single(locations, slots, slot_count):
    """Choose among the slots marked `whole`: the nearest; within a metre of it, lowest priority, then smallest id.

    Returns
    -------
    tuple of int
        Slot (-1: none is marked) and reasons.Won.
    """
    nearest, able = np.inf, 0
    for slot in range(slot_count):
        if slots[slot].whole:
            able += 1
            nearest = min(nearest, slots[slot].chord2)
    if able == 0:
        return -1, NOTHING
    shortest, reach = metres(nearest), window(nearest)
    winner, won = -1, NEAREST if able > 1 else ONLY_CANDIDATE
    for slot in range(slot_count):
        chord2 = slots[slot].chord2
        if not slots[slot].whole or chord2 > reach or metres(chord2) > shortest + EQUAL_M:
            continue
        if winner < 0:
            winner = slot
            continue
        place, best = locations[slots[slot].location], locations[slots[winner].location]
        if place.priority == best.priority:
            won = LOCATION_ID
            if place.rank < best.rank:
                winner = slot
        elif place.priority < best.priority:
            winner, won = slot, PRIORITY
        elif won == NEAREST:
            won = PRIORITY
    return winner, won


@inner_kernel
def write_promises(line_count, pickup_location, work):
    """Write the lines that have a slot; return (lines promised, shipments)."""
    slots, out = work.slots, work.out
    lines = shipments = 0
    for i in range(line_count):
        slot = work.line_slot[i]
        if slot < 0:
            continue
        lines += 1
        if not slots[slot].chosen:
            slots[slot].chosen = 1
            shipments += 1
        out.location[i] = slots[slot].location
        out.cell[i] = work.line_cell[i]
        out.distance_m[i] = np.int32(metres(slots[slot].chord2) + 0.5)
        if slots[slot].role == OWN:
            out.kind[i] = ShipmentKind.PICKUP
        elif pickup_location < 0:
            out.kind[i] = ShipmentKind.SHIP
        else:
            out.kind[i] = ShipmentKind.TRANSFER
    return lines, shipments


@inner_kernel
def find_losers(locations, slot_count, slots, near):
    """Put the nearest slots that were not chosen into `near`; return how many."""
    count = 0
    last = np.inf
    for slot in range(slot_count):
        chord2 = slots[slot].chord2
        if chord2 > last or slots[slot].chosen:
            continue
        location = slots[slot].location
        at = count
        if count == LOSERS:
            at = LOSERS - 1
            if not nearer(chord2, location, slots[near[at]].chord2, slots[near[at]].location, locations):
                continue
        while at > 0:
            before = slots[near[at - 1]]
            if not nearer(chord2, location, before.chord2, before.location, locations):
                break
            near[at] = near[at - 1]
            at -= 1
        near[at] = slot
        count = min(count + 1, LOSERS)
        if count == LOSERS:
            last = slots[near[LOSERS - 1]].chord2
    return count


@inner_kernel
def write_losers(locations, slot_count, loser_count, winner, won, needed_units, work):
    """Write why each slot in `work.near` lost.

    Parameters
    ----------
    winner : int
        The single winner's slot, read only if `won` is a tie-break.
    needed_units : int
        Units of the answer, or of the order if nothing was promised. A slot's `units` is what it could take alone; -1 says
        that it has the stock but refused.
    """
    slots, out = work.slots, work.out
    tied = won in (PRIORITY, LOCATION_ID)
    shortest = np.inf
    if tied:
        for slot in range(slot_count):
            if slots[slot].whole:
                shortest = min(shortest, slots[slot].chord2)
        shortest = metres(shortest)
    for i in range(loser_count):
        entry = slots[work.near[i]]
        reason = Lost.FARTHER
        if entry.role == NONE or entry.units < 0:
            reason = Lost.NOT_ELIGIBLE
        elif entry.units == 0:
            reason = Lost.NO_STOCK
        elif entry.units < needed_units:
            reason = Lost.FEWER_UNITS
        elif tied and entry.whole and metres(entry.chord2) <= shortest + EQUAL_M:
            best = locations[slots[winner].location].priority
            reason = Lost.LOCATION_ID if locations[entry.location].priority == best else Lost.PRIORITY
        out.loser_location[i] = entry.location
        out.loser_distance_m[i] = np.int32(metres(entry.chord2) + 0.5)
        out.loser_reason[i] = reason
    out.explanation[2] = loser_count
