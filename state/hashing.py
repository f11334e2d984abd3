"""The 128-bit hash of a key: MurmurHash3_x64_128 (Austin Appleby, public domain), seed 0; of several texts, one on another.

128 bits, because the dedupe window knows an event by its hash alone: among 4 million the chance of any
accidental collision is about 2e-26 (birthday bound n²/2^129).
"""

import numpy as np

from topics.compiled.kernels import kernel

_C1 = np.uint64(0x87C37B91114253D5)
_C2 = np.uint64(0x4CF5AD432745937F)
_M1 = np.uint64(0xFF51AFD7ED558CCD)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)
_A1 = np.uint64(0x52DCE729)
_A2 = np.uint64(0x38495AB5)
_FIVE = np.uint64(5)


@kernel
def _rotate(x, bits):
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@kernel
def _finish(x):
    x ^= x >> np.uint64(33)
    x *= _M1
    x ^= x >> np.uint64(33)
    x *= _M2
    x ^= x >> np.uint64(33)
    return x


@kernel
def _word(text, at, size):
    """Read up to 8 bytes, little endian."""
    word = np.uint64(0)
    for i in range(size):
        word |= np.uint64(text[at + i]) << np.uint64(8 * i)
    return word


@kernel
def hash_text(text, at, size):
    """Hash `size` bytes of `text` (uint8[]) from `at`; returns (low, high) as uint64."""
    return hash_on(np.uint64(0), np.uint64(0), text, at, size)


@kernel
def hash_on(low, high, text, at, size):
    """Hash a text on top of another one's hash, which takes the place of the seed."""
    end = at + size
    i = at
    while i + 16 <= end:
        a = _word(text, i, 8)
        b = _word(text, i + 8, 8)
        low ^= _rotate(a * _C1, 31) * _C2
        low = (_rotate(low, 27) + high) * _FIVE + _A1
        high ^= _rotate(b * _C2, 33) * _C1
        high = (_rotate(high, 31) + low) * _FIVE + _A2
        i += 16
    rest = end - i
    if rest > 8:
        high ^= _rotate(_word(text, i + 8, rest - 8) * _C2, 33) * _C1
        rest = 8
    if rest > 0:
        low ^= _rotate(_word(text, i, rest) * _C1, 31) * _C2
    low ^= np.uint64(size)
    high ^= np.uint64(size)
    low += high
    high += low
    low = _finish(low)
    high = _finish(high)
    low += high
    high += low
    return low, high


@kernel
def same_text(a, a_at, a_size, b, b_at, b_size):
    """Tell whether two slices of uint8 arrays hold the same bytes."""
    if a_size != b_size:
        return False
    for i in range(a_size):  # noqa: SIM110 (numba has no all() over a generator)
        if a[a_at + i] != b[b_at + i]:
            return False
    return True


def hash_bytes(text: bytes) -> tuple[int, int]:
    """Hash a whole byte string; (low, high)."""
    low, high = hash_text(np.frombuffer(text, np.uint8), 0, len(text))
    return int(low), int(high)
