"""Serving a set of lines at the least cost that can be found, a shipment's cost included: set cover with prices.

A greedy choice gives an answer. Local steps improve it: drop a superfluous taker, take one instead of two, a cheaper one
instead of one. A branch and bound then looks for a better answer until it has proven that there is none. It branches over the
takers of the line that has the fewest. Improving and searching end after an amount of work that is counted, not timed: so no
order holds up the others, and the same order always gets the same answer.
Lines that share a SKU are covered like others, then packed into the units of the locations. A set of locations that covers but
does not pack gets one more.
Owner: many.py.
Not here: state, eligibility, which lines are to be served at all (many.py).
"""

from collections import namedtuple

import numpy as np

from streams.routing.bits import EMPTY, ONE, add, bit, count_bits
from topics.compiled.kernels import inner_kernel

# Bounds of the work on one order, in steps of some nanoseconds.
IMPROVE_WORK_PER_LINE = 10_000
SEARCH_WORK = 500_000
PACK_STEPS = 2_000
# No index; typed, since numba compiles a function once more for each constant.
NOBODY = np.int64(-1)

# A problem: lines are numbered from the one with the fewest takers, takers from the cheapest.
#   shipment: float64, metres that each taker in use adds
#   work: the Scratch with the arrays, which may be longer than the problem:
#     bits: uint64[takers, words], the lines a taker could take alone; taker_cost: float64[takers], metres
#     quantity: int64[lines]; free: int32[groups * takers], units a taker has for the group's lines
#     shared_start: int32[groups + 1], shared_line: int32[...], lines that share a SKU, most units first
#     done: int64[1], work done; the rest is working memory
Covers = namedtuple("Covers", "line_count taker_count words group_count shipment work")


@inner_kernel
def choose_takers(covers, takers_out, line_taker_out):
    """Choose takers for all lines and say which line goes where.

    Parameters
    ----------
    covers : Covers
        A line without a taker stays without.
    takers_out : int32[takers]
        The takers chosen.
    line_taker_out : int32[lines]
        The line's taker; -1 = no packing was found for the lines of its SKU.

    Returns
    -------
    bool
        Whether the answer is proven to be the best one.
    """
    count = _greedy(covers, takers_out)
    covers.work.done[0] = 0
    fewer = count
    while fewer >= 0:
        count = fewer
        fewer = _step(covers, takers_out, count)
    covers.work.done[0] = 0
    count, proven = _search(covers, takers_out, count)
    _hand_out(covers, takers_out, count, line_taker_out)
    return proven


@inner_kernel
def _greedy(covers, takers):
    """Take the location that covers most of what is left, the cheapest of equals; return how many were taken."""
    left = covers.work.left_lines
    for w in range(covers.words):
        left[w] = EMPTY
    for line in range(covers.line_count):
        add(left, line)
    count = np.int64(0)
    while True:
        best, best_gain = NOBODY, 0
        for j in range(covers.taker_count):
            gain = 0
            for w in range(covers.words):
                gain += count_bits(covers.work.bits[j, w] & left[w])
            if gain > best_gain:
                best, best_gain = j, gain
        if best < 0:
            break
        takers[count] = best
        count += 1
        for w in range(covers.words):
            left[w] &= ~covers.work.bits[best, w]
    for group in range(covers.group_count):
        while not _pack_group(covers, group, takers, count):
            best = _roomiest(covers, takers, count, group)
            if best < 0:
                break
            takers[count] = best
            count += 1
    return count


@inner_kernel
def _free(covers, group, taker):
    return covers.work.free[group * covers.taker_count + taker]


@inner_kernel
def _roomiest(covers, takers, count, group):
    """The taker with most units for a group's lines that is not chosen yet, -1 = none."""
    best, most = NOBODY, 0
    for j in range(covers.taker_count):
        if _free(covers, group, j) > most and not _is_chosen(takers, count, j):
            best, most = j, _free(covers, group, j)
    return best


@inner_kernel
def _is_chosen(takers, count, j):
    for i in range(count):  # noqa: SIM110 (numba compiles no generator here)
        if takers[i] == j:
            return True
    return False


@inner_kernel
def _count_takers(covers, takers, count):
    """Note which lines are covered by one of the takers, and which by two."""
    once, twice, more = covers.work.once, covers.work.twice, covers.work.left_lines
    for w in range(covers.words):
        once[w] = twice[w] = more[w] = EMPTY
    for i in range(count):
        for w in range(covers.words):
            lines = covers.work.bits[takers[i], w]
            more[w] |= twice[w] & lines
            twice[w] = (twice[w] | (once[w] & lines)) & ~more[w]
            once[w] = (once[w] | lines) & ~twice[w] & ~more[w]
    covers.work.done[0] += count * covers.words


@inner_kernel
def _find_left(covers, one, other):
    """Put the lines that only these two of the takers counted cover into `covers.work.left_lines`; whether there are any."""
    found = False
    for w in range(covers.words):
        mine, others = covers.work.bits[one, w], covers.work.bits[other, w]
        lines = ((mine | others) & covers.work.once[w]) | (mine & others & covers.work.twice[w])
        covers.work.left_lines[w] = lines
        found = found or lines != EMPTY
    covers.work.done[0] += covers.words
    return found


@inner_kernel
def _covers_left(covers, j):
    """Whether taker j covers all of `covers.work.left_lines`."""
    covers.work.done[0] += 1
    for w in range(covers.words):  # noqa: SIM110 (numba compiles no generator here)
        if covers.work.left_lines[w] & ~covers.work.bits[j, w] != EMPTY:
            return False
    return True


@inner_kernel
def _pack(covers, takers, count):
    """Place the lines of each shared SKU at the takers, in `covers.work.placed`; return the first group that fails, or -1."""
    failed = NOBODY
    for group in range(covers.group_count):
        if not _pack_group(covers, group, takers, count) and failed < 0:
            failed = group
    return failed


@inner_kernel
def _pack_group(covers, group, takers, count):
    """Place one group's lines, most units first, going back where it gets stuck, for at most PACK_STEPS steps.

    If that fails, the lines' `covers.work.placed` is -1.
    """
    start, stop = covers.work.shared_start[group], covers.work.shared_start[group + 1]
    size = stop - start
    room, at = covers.work.room, covers.work.at
    spare = np.int64(0)
    for i in range(count):
        room[i] = _free(covers, group, np.int64(takers[i]))
        spare += room[i]
    for k in range(start, stop):
        covers.work.placed[covers.work.shared_line[k]] = -1
        spare -= covers.work.quantity[covers.work.shared_line[k]]
    covers.work.done[0] += count + size
    if spare < 0:
        return False
    at[0] = -1
    depth = 0
    for _ in range(PACK_STEPS):
        line = np.int64(covers.work.shared_line[start + depth])
        units = covers.work.quantity[line]
        if at[depth] >= 0:
            room[at[depth]] += units
        i = first = at[depth] + 1
        while i < count and (room[i] < units or covers.work.bits[takers[i], line >> 6] & bit(line) == EMPTY):
            i += 1
        covers.work.done[0] += i - first + 1
        if i == count:
            depth -= 1
            if depth < 0:
                break
            continue
        at[depth] = i
        room[i] -= units
        depth += 1
        if depth == size:
            for k in range(size):
                covers.work.placed[covers.work.shared_line[start + k]] = takers[at[k]]
            return True
        at[depth] = -1
    return False


@inner_kernel
def _step(covers, takers, count):
    """Drop a taker, put one in the place of two, or a cheaper one in the place of one; how many are left, -1 = no change."""
    _count_takers(covers, takers, count)
    for i in range(count):
        if not _find_left(covers, takers[i], takers[i]) and _replace(covers, takers, count, i, i, NOBODY):
            return count - 1
    for i in range(count):
        for k in range(i):
            _find_left(covers, takers[i], takers[k])
            for j in range(covers.taker_count):
                if _covers_left(covers, j) and _replace(covers, takers, count, i, k, j):
                    return count - 1
            if covers.work.done[0] > covers.line_count * IMPROVE_WORK_PER_LINE:
                return NOBODY
    for i in range(count):
        _find_left(covers, takers[i], takers[i])
        for j in range(np.int64(takers[i])):
            if covers.work.taker_cost[j] >= covers.work.taker_cost[takers[i]]:
                break
            if _covers_left(covers, j) and _replace(covers, takers, count, i, i, j):
                return count
        if covers.work.done[0] > covers.line_count * IMPROVE_WORK_PER_LINE:
            return NOBODY
    return NOBODY


@inner_kernel
def _replace(covers, takers, count, i, k, j):
    """Put taker j (-1 = nobody) in the place of the i-th and the k-th, if it is new and everything still packs."""
    trial = covers.work.trial
    size = np.int64(0)
    for other in range(count):
        if other != i and other != k:
            if takers[other] == j:
                return False
            trial[size] = takers[other]
            size += 1
    if j >= 0:
        trial[size] = j
        size += 1
    covers.work.done[0] += count
    if covers.work.done[0] > covers.line_count * IMPROVE_WORK_PER_LINE or _pack(covers, trial, size) >= 0:
        return False
    for other in range(size):
        takers[other] = trial[other]
    return True


@inner_kernel
def _search(covers, takers, count):
    """Branch and bound from the answer in `takers`; return (takers of the best answer, whether it is proven best)."""
    bits, shipment, taker_cost, words = covers.work.bits, covers.shipment, covers.work.taker_cost, covers.words
    line_cost = covers.work.line_cost
    for i in range(covers.line_count):
        line_cost[i] = 0.0
    widest = 1
    for j in range(covers.taker_count - 1, -1, -1):
        width = 0
        for i in range(covers.line_count):
            if bits[j, i >> 6] & bit(i) != EMPTY:
                width += 1
                line_cost[i] = taker_cost[j]
        widest = max(widest, width)
    best = 0.0
    for i in range(count):
        best += shipment + taker_cost[takers[i]]
    if _pack(covers, takers, count) >= 0:
        best = np.inf
    # Per depth: the lines left, the price so far, the taker picked, what the pick must serve (a line, or -1 - group).
    left, price, picks, serves = covers.work.left, covers.work.price, covers.work.picks, covers.work.serves
    for w in range(words):
        left[0, w] = EMPTY
    for i in range(covers.line_count):
        add(left[0], i)
    price[0], picks[0], serves[0] = 0.0, -1, 0
    depth, best_count = np.int64(0), count
    deepest = min(count, picks.size - 1) - 1
    while covers.work.done[0] < SEARCH_WORK:
        j = _next_pick(covers, picks, depth, np.int64(serves[depth]))
        picks[depth] = j
        if j < 0:
            depth -= 1
            if depth < 0:
                return best_count, True
            continue
        spent = price[depth] + shipment + taker_cost[j]
        covers.work.done[0] += words
        lines_left = 0
        serve = -1
        for w in range(words):
            word = left[depth, w] & ~bits[j, w]
            left[depth + 1, w] = word
            if serve < 0 and word != EMPTY:
                serve = (w << 6) + count_bits((word & (~word + ONE)) - ONE)
            lines_left += count_bits(word)
        if lines_left == 0:
            if spent >= best:
                continue
            group = _pack(covers, picks, depth + 1)
            if group < 0:
                best, best_count = spent, depth + 1
                for i in range(best_count):
                    takers[i] = picks[i]
                continue
            bound, serve = spent + shipment, -1 - group
        else:
            bound = spent + (lines_left + widest - 1) // widest * shipment + line_cost[serve]
        if bound >= best or depth == deepest:
            continue
        depth += 1
        price[depth], picks[depth], serves[depth] = spent, -1, serve
    return best_count, False


@inner_kernel
def _next_pick(covers, picks, depth, serves):
    """The next taker after the last one tried at this depth that serves a line, or a group and is not picked; -1 = none."""
    for j in range(picks[depth] + 1, covers.taker_count):
        covers.work.done[0] += 1
        if serves >= 0:
            if covers.work.bits[j, serves >> 6] & bit(serves) != EMPTY:
                return j
        elif _free(covers, -1 - serves, j) > 0 and not _is_chosen(picks, depth, j):
            return j
    return -1


@inner_kernel
def _hand_out(covers, takers, count, line_taker):
    """Give each line to the cheapest of the takers that covers it, lines that share a SKU as they are packed."""
    for line in range(covers.line_count):
        best = -1
        for i in range(count):
            if covers.work.bits[takers[i], line >> 6] & bit(line) != EMPTY and (best < 0 or takers[i] < best):
                best = takers[i]
        line_taker[line] = best
    _pack(covers, takers, count)
    for k in range(covers.work.shared_start[covers.group_count]):
        line_taker[covers.work.shared_line[k]] = covers.work.placed[covers.work.shared_line[k]]
