"""Serving a set of lines from as few locations as can be found, then as near ones: set cover with prices.

Greedy gives an answer, local steps improve it (drop what is redundant, take a nearer one instead, one instead of two), and a
branch and bound looks for a better one until it has proven that there is none or has used up its steps. It branches over
the takers of the line that has the fewest; steps are counted, not timed, so the same order always gets the same answer.
Lines that share a SKU are covered like others, and what they take from one location is then packed; a set of locations
that covers but does not pack gets one more.
Owner: many.py.
Not here: state, eligibility, which lines are to be served at all (many.py).
"""

from collections import namedtuple

import numpy as np

from streams.routing.bits import EMPTY, add, bit, count_bits, has, lowest, size_of, within
from topics.kernels import allocating_kernel

# More metres than a thousand distances add up to.
SHIPMENT_M = 1e11
SEARCH_STEPS = 50_000
PACK_STEPS = 2_000
# Pairs of locations are tried against one in their stead up to this many locations.
PAIR_LIMIT = 40

# A problem: lines are numbered from the one with the fewest takers, takers from the nearest.
#   bits: uint64[takers, words], the lines a taker could take alone; price_m: float64[takers], distances
#   quantity: int64[lines]
#   group_start: int32[groups + 1], group_line: int32[...], lines that share a SKU, most units first
#   free: int64[groups, takers], units a taker has for the group's lines
Covers = namedtuple("Covers", "line_count bits price_m quantity group_start group_line free")


@allocating_kernel
def choose_takers(covers, line_taker_out):
    """Choose takers for all lines and say which line goes where.

    Parameters
    ----------
    covers : Covers
        Each line has at least one taker.
    line_taker_out : int32[lines]
        The line's taker; -1 = no packing was found for the lines of its SKU.

    Returns
    -------
    bool
        Whether the answer is proven to be the best one.
    """
    takers = np.empty(covers.price_m.size, np.int32)
    count = _greedy(covers, takers)
    count = _improve(covers, takers, count, line_taker_out)
    count, proven = _search(covers, takers, count, line_taker_out)
    _hand_out(covers, takers, count, line_taker_out)
    return proven


@allocating_kernel
def _everything(covers):
    words = np.zeros(covers.bits.shape[1], np.uint64)
    for i in range(covers.line_count):
        add(words, i)
    return words


@allocating_kernel
def _greedy(covers, takers):
    """Take the location that covers most of what is left, the nearest of equals; return how many were taken."""
    bits = covers.bits
    left = _everything(covers)
    placed = np.empty(covers.line_count, np.int32)
    chosen = np.zeros(takers.size, np.bool_)
    count = 0
    while True:
        best, best_gain = -1, 0
        for j in range(takers.size):
            gain = 0
            for w in range(left.size):
                gain += count_bits(bits[j, w] & left[w])
            if gain > best_gain:
                best, best_gain = j, gain
        if best < 0:
            group = _pack(covers, takers, count, placed)
            if group < 0:
                return count
            best = _roomiest(covers, group, chosen)
            if best < 0:
                return count
        takers[count] = best
        chosen[best] = True
        count += 1
        for w in range(left.size):
            left[w] &= ~bits[best, w]


@allocating_kernel
def _roomiest(covers, group, chosen):
    """The taker with most units for a group's lines that is not chosen yet, -1 = none."""
    best = -1
    for j in range(chosen.size):
        if not chosen[j] and covers.free[group, j] > 0 and (best < 0 or covers.free[group, j] > covers.free[group, best]):
            best = j
    return best


@allocating_kernel
def _pack(covers, takers, count, line_taker_out):
    """Place the lines of each shared SKU at the takers; return the first group that does not fit, -1 = all do.

    A group that does not fit has -1 in `line_taker_out`.
    """
    failed = -1
    for group in range(covers.group_start.size - 1):
        if not _pack_group(covers, group, takers, count, line_taker_out) and failed < 0:
            failed = group
    return failed


@allocating_kernel
def _pack_group(covers, group, takers, count, line_taker_out):
    """Place one group's lines, most units first, going back where it gets stuck, for at most PACK_STEPS steps."""
    start, stop = covers.group_start[group], covers.group_start[group + 1]
    size = stop - start
    left = np.empty(count, np.int64)
    for i in range(count):
        left[i] = covers.free[group, takers[i]]
    at = np.full(size, -1, np.int32)
    depth = 0
    for _ in range(PACK_STEPS):
        line = covers.group_line[start + depth]
        units = covers.quantity[line]
        if at[depth] >= 0:
            left[at[depth]] += units
        i = at[depth] + 1
        while i < count and not (left[i] >= units and has(covers.bits[takers[i]], line)):
            i += 1
        if i == count:
            at[depth] = -1
            depth -= 1
            if depth < 0:
                break
            continue
        at[depth] = i
        left[i] -= units
        depth += 1
        if depth == size:
            for k in range(size):
                line_taker_out[covers.group_line[start + k]] = takers[at[k]]
            return True
    for k in range(start, stop):
        line_taker_out[covers.group_line[k]] = -1
    return False


@allocating_kernel
def _left_by(covers, takers, count, without, also_without):
    """The lines that no taker but two given ones covers."""
    left = _everything(covers)
    for i in range(count):
        if i != without and i != also_without:
            for w in range(left.size):
                left[w] &= ~covers.bits[takers[i], w]
    return left


@allocating_kernel
def _improve(covers, takers, count, placed):
    """Repeat the first step that helps, until none does; return how many takers are left."""
    while True:
        fewer = _step(covers, takers, count, placed)
        if fewer < 0:
            return count
        count = fewer


@allocating_kernel
def _step(covers, takers, count, placed):
    """Drop a taker, put one in the place of two, or a nearer one in the place of one; -1 = nothing helps."""
    trial = np.empty(count, np.int32)
    for i in range(count):
        left = _left_by(covers, takers, count, i, i)
        if size_of(left) == 0 and _replace(covers, takers, count, i, i, -1, trial, placed):
            return count - 1
    if count <= PAIR_LIMIT:
        for i in range(count):
            for k in range(i):
                left = _left_by(covers, takers, count, i, k)
                for j in range(covers.price_m.size):
                    if within(left, covers.bits[j]) and _replace(covers, takers, count, i, k, j, trial, placed):
                        return count - 1
    for i in range(count):
        left = _left_by(covers, takers, count, i, i)
        for j in range(takers[i]):
            if covers.price_m[j] >= covers.price_m[takers[i]]:
                break
            if within(left, covers.bits[j]) and _replace(covers, takers, count, i, i, j, trial, placed):
                return count
    return -1


@allocating_kernel
def _replace(covers, takers, count, i, k, j, trial, placed):
    """Put taker j (-1 = nobody) in the place of the i-th and the k-th, if everything still packs."""
    size = 0
    for other in range(count):
        if other != i and other != k:
            if takers[other] == j:
                return False
            trial[size] = takers[other]
            size += 1
    if j >= 0:
        trial[size] = j
        size += 1
    if _pack(covers, trial, size, placed) >= 0:
        return False
    takers[:size] = trial[:size]
    return True


@allocating_kernel
def _price(covers, takers, count):
    total = 0.0
    for i in range(count):
        total += SHIPMENT_M + covers.price_m[takers[i]]
    return total


@allocating_kernel
def _search(covers, takers, count, placed):
    """Branch and bound from the answer in `takers`; return (takers of the best answer, whether it is proven best)."""
    bits, price_m = covers.bits, covers.price_m
    words = bits.shape[1]
    nearest_m = np.empty(covers.line_count, np.float64)
    widest = 1
    for j in range(price_m.size - 1, -1, -1):
        widest = max(widest, size_of(bits[j]))
        for i in range(covers.line_count):
            if has(bits[j], i):
                nearest_m[i] = price_m[j]
    best = _price(covers, takers, count)
    if _pack(covers, takers, count, placed) >= 0:
        best = np.inf
    # Per depth: the lines left, the price so far, the taker picked, what the pick must serve (a line, or -1 - group).
    left = np.empty((count + 1, words), np.uint64)
    left[0] = _everything(covers)
    price = np.zeros(count + 1)
    picks = np.full(count + 1, -1, np.int32)
    serves = np.zeros(count + 1, np.int32)
    depth = 0
    best_count = count
    for _ in range(SEARCH_STEPS):
        j = _next_pick(covers, picks, depth, serves[depth])
        picks[depth] = j
        if j < 0:
            depth -= 1
            if depth < 0:
                return best_count, True
            continue
        spent = price[depth] + SHIPMENT_M + price_m[j]
        lines_left = 0
        for w in range(words):
            word = left[depth, w] & ~bits[j, w]
            left[depth + 1, w] = word
            lines_left += count_bits(word)
        if lines_left == 0:
            if spent >= best:
                continue
            group = _pack(covers, picks, depth + 1, placed)
            if group < 0:
                best, best_count = spent, depth + 1
                takers[:best_count] = picks[:best_count]
                continue
            bound, serve = spent + SHIPMENT_M, -1 - group
        else:
            serve = lowest(left[depth + 1])
            bound = spent + (lines_left + widest - 1) // widest * SHIPMENT_M + nearest_m[serve]
        if bound >= best or depth + 1 == count:
            continue
        depth += 1
        price[depth] = spent
        serves[depth] = serve
        picks[depth] = -1
    return best_count, False


@allocating_kernel
def _next_pick(covers, picks, depth, serves):
    """The next taker after the last one tried at this depth that serves a line, or a group and is not picked; -1 = none."""
    for j in range(picks[depth] + 1, covers.price_m.size):
        if serves >= 0:
            if covers.bits[j, serves >> 6] & bit(serves) != EMPTY:
                return j
        elif covers.free[-1 - serves, j] > 0:
            picked = False
            for i in range(depth):
                picked = picked or picks[i] == j
            if not picked:
                return j
    return -1


@allocating_kernel
def _hand_out(covers, takers, count, line_taker_out):
    """Give each line to the nearest of the takers that covers it, lines that share a SKU as they were packed."""
    order = np.sort(takers[:count])
    for line in range(covers.line_count):
        line_taker_out[line] = -1
        for i in range(count):
            if has(covers.bits[order[i]], line):
                line_taker_out[line] = order[i]
                break
    _pack(covers, order, count, line_taker_out)
