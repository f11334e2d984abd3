"""Sets of up to a thousand lines as words of 64 bits.

Owner: many.py and covers.py.
"""

import numpy as np

from topics.compiled.kernels import inner_kernel

ONE = np.uint64(1)
EMPTY = np.uint64(0)
_M1, _M2, _M4 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
_SPREAD = np.uint64(0x0101010101010101)
_S1, _S2, _S4, _S56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)


@inner_kernel
def bit(i):
    """The word that holds only line i's bit of its word."""
    return ONE << np.uint64(i & 63)


@inner_kernel
def has(words, i):
    """Whether line i is in the set."""
    return words[i >> 6] & bit(i) != EMPTY


@inner_kernel
def add(words, i):
    """Put line i into the set."""
    words[i >> 6] |= bit(i)


@inner_kernel
def drop(words, i):
    """Take line i out of the set."""
    words[i >> 6] &= ~bit(i)


@inner_kernel
def fill(words, count):
    """Make the set that of lines 0 to count - 1."""
    for w in range(words.size):
        words[w] = EMPTY
    for i in range(count):
        add(words, i)


@inner_kernel
def count_bits(word):
    """Lines in one word (LLVM makes one instruction of it)."""
    word = word - ((word >> _S1) & _M1)
    word = (word & _M2) + ((word >> _S2) & _M2)
    word = (word + (word >> _S4)) & _M4
    return np.int64((word * _SPREAD) >> _S56)


@inner_kernel
def size_of(words):
    """Lines in a set."""
    count = 0
    for w in range(words.size):
        count += count_bits(words[w])
    return count


@inner_kernel
def within(words, others):
    """Whether every line of one set is in another."""
    for w in range(words.size):  # noqa: SIM110 (numba compiles no generator here)
        if words[w] & ~others[w] != EMPTY:
            return False
    return True


@inner_kernel
def lowest(words):
    """The first line of a set that is not empty."""
    w = 0
    while words[w] == EMPTY:
        w += 1
    return (w << 6) + count_bits((words[w] & (~words[w] + ONE)) - ONE)
