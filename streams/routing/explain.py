"""What several lines' routing has in common once the lines have their slots: the single winner, the answer, its explanation.

Owner: kernel.py; few.py and many.py call it.
Not here: which slot takes which line.
"""

import numpy as np

from streams.routing.candidates import LOSERS, NONE, OWN, SHIPPER, nearer
from streams.routing.distance import EQUAL_M, metres, window
from topics.kernels import allocating_kernel
from topics.reasons import Lost, ShipmentKind, Won


@allocating_kernel
def pick_single(view, slots, slot_count):
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
        return -1, Won.NOTHING
    shortest, reach = metres(nearest), window(nearest)
    winner, won = -1, Won.NEAREST if able > 1 else Won.ONLY_CANDIDATE
    for slot in range(slot_count):
        chord2 = slots[slot].chord2
        if not slots[slot].whole or chord2 > reach or metres(chord2) > shortest + EQUAL_M:
            continue
        if winner < 0:
            winner = slot
            continue
        place, best = view.locations[slots[slot].location], view.locations[slots[winner].location]
        if place.priority == best.priority:
            won = Won.LOCATION_ID
            if place.rank < best.rank:
                winner = slot
        elif place.priority < best.priority:
            winner, won = slot, Won.PRIORITY
        elif won == Won.NEAREST:
            won = Won.PRIORITY
    return winner, won


@allocating_kernel
def write_promises(line_count, pickup_location, scratch, out):
    """Write the lines that have a slot; return (lines promised, shipments)."""
    slots = scratch.slots
    lines = shipments = 0
    for i in range(line_count):
        slot = scratch.line_slot[i]
        if slot < 0:
            continue
        lines += 1
        if not slots[slot].chosen:
            slots[slot].chosen = 1
            shipments += 1
        out.location[i] = slots[slot].location
        out.cell[i] = scratch.line_cell[i]
        out.distance_m[i] = np.int32(metres(slots[slot].chord2) + 0.5)
        if slots[slot].role == OWN:
            out.kind[i] = ShipmentKind.PICKUP
        else:
            out.kind[i] = ShipmentKind.SHIP if pickup_location < 0 else ShipmentKind.TRANSFER
    return lines, shipments


@allocating_kernel
def find_losers(view, slot_count, scratch):
    """Put the nearest slots that were not chosen into `scratch.near`; return how many."""
    slots, near = scratch.slots, scratch.near
    count = 0
    for slot in range(slot_count):
        if slots[slot].chosen:
            continue
        chord2, location = slots[slot].chord2, slots[slot].location
        at = count
        if count == LOSERS:
            if chord2 > slots[near[LOSERS - 1]].chord2:
                continue
            at = LOSERS - 1
            if not nearer(chord2, location, slots[near[at]].chord2, slots[near[at]].location, view.locations):
                continue
        while at > 0:
            before = slots[near[at - 1]]
            if not nearer(chord2, location, before.chord2, before.location, view.locations):
                break
            near[at] = near[at - 1]
            at -= 1
        near[at] = slot
        count = min(count + 1, LOSERS)
    return count


@allocating_kernel
def write_losers(view, loser_count, winner, won, needed_units, scratch, out):
    """Write why each slot in `scratch.near` lost.

    Parameters
    ----------
    winner : int
        The single winner's slot, read only if `won` is a tie-break.
    needed_units : int
        Units of the answer, or of the order if nothing was promised. A slot's `units` is what it could take alone; -1 says
        that it has the stock but refused.
    """
    slots = scratch.slots
    for i in range(loser_count):
        entry = slots[scratch.near[i]]
        reason = Lost.FARTHER
        if entry.role == NONE or entry.units < 0:
            reason = Lost.NOT_ELIGIBLE
        elif entry.units == 0:
            reason = Lost.NO_STOCK
        elif entry.units < needed_units:
            reason = Lost.FEWER_UNITS
        elif entry.role == SHIPPER and (won == Won.PRIORITY or won == Won.LOCATION_ID):
            reason = _tie_reason(view, slots, entry, winner)
        out.loser_location[i] = entry.location
        out.loser_distance_m[i] = np.int32(metres(entry.chord2) + 0.5)
        out.loser_reason[i] = reason
    out.explanation[2] = loser_count


@allocating_kernel
def _tie_reason(view, slots, entry, winner):
    """Why a slot lost that could have been the answer, when the answer was found by a tie-break."""
    if not entry.whole or metres(entry.chord2) > metres(slots[winner].chord2) + EQUAL_M:
        return Lost.FARTHER
    if view.locations[entry.location].priority == view.locations[slots[winner].location].priority:
        return Lost.LOCATION_ID
    return Lost.PRIORITY
