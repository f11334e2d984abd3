"""Writing JSON into a byte buffer from a kernel: texts, words of closed lists, whole numbers, kilometres.

Each `put_*` writes into `out` (uint8[]) at byte `at` and returns the place after what it wrote.
Owner: the caller gives a buffer with room enough. Not here: which fields a record has (encode.py, demand.py).
"""

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from topics.compiled.kernels import forced_inline, kernel
from topics.reasons import Wire

_QUOTE, _BACKSLASH, _MINUS, _POINT, _ZERO, _PERCENT, _SLASH = b'"\\-.0%/'


@intrinsic
def copy(typing_context, out, at, source, source_at, size):
    """Copy `size` bytes between uint8 arrays."""

    def build(context, builder, signature, arguments):
        target, source = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 2))
        target, source = builder.gep(target, [arguments[1]]), builder.gep(source, [arguments[3]])
        cgutils.raw_memcpy(builder, target, source, arguments[4], 1)
        return context.get_dummy_value()

    return types.none(out, types.int64, source, types.int64, types.int64), build


def words_of(codes: type[Wire]) -> tuple[np.ndarray, np.ndarray]:
    """The quoted wire names of a closed list: (uint8[codes, longest], their sizes)."""
    words = {code.value: np.frombuffer(f'"{code.wire}"'.encode(), np.uint8) for code in codes}
    texts = np.zeros((max(words) + 1, max(map(len, words.values()))), np.uint8)
    sizes = np.zeros(max(words) + 1, np.int64)
    for code, word in words.items():
        texts[code, : len(word)] = word
        sizes[code] = len(word)
    return texts, sizes


@forced_inline
def put(out, at, text):
    """Write bytes as they are: a literal, or uint8[]."""
    copy(out, at, text, 0, len(text))
    return at + len(text)


@forced_inline
def put_raw(out, at, heap, text_at, size):
    copy(out, at, heap, text_at, size)
    return at + size


@forced_inline
def put_escaped(out, at, heap, text_at, size):
    """Write a text, its quotes and backslashes escaped; ids are printable, so that nothing else needs it."""
    for i in range(text_at, text_at + size):
        byte = heap[i]
        if byte in (_QUOTE, _BACKSLASH):
            out[at] = _BACKSLASH
            at += 1
        out[at] = byte
        at += 1
    return at


@forced_inline
def put_part(out, at, heap, text_at, size):
    """Write a text as a part of a compound key, in at most three times its bytes; the twin of `keys.compound_key`."""
    for i in range(text_at, text_at + size):
        byte = heap[i]
        if byte == _PERCENT:
            at = put(out, at, b"%25")
        elif byte == _SLASH:
            at = put(out, at, b"%2F")
        else:
            out[at] = byte
            at += 1
    return at


@forced_inline
def put_word(out, at, words, sizes, code):
    size = sizes[code]
    for i in range(size):
        out[at + i] = words[code, i]
    return at + size


@forced_inline
def put_integer(out, at, value):
    if value < 0:
        out[at] = _MINUS
        at += 1
        value = -value
    size = 1
    bound = 10
    while size < 19 and value >= bound:
        bound *= 10
        size += 1
    for i in range(at + size - 1, at - 1, -1):
        rest = value // 10
        out[i] = _ZERO + value - rest * 10
        value = rest
    return at + size


@forced_inline
def put_text(out, at, name, heap, text_at, size):
    """Write what stands before a text, and the text."""
    return put_escaped(out, put(out, at, name), heap, text_at, size)


@forced_inline
def put_number(out, at, name, value):
    """Write what stands before a whole number, and the number."""
    return put_integer(out, put(out, at, name), np.int64(value))


@kernel
def put_km(out, at, metres):
    """Write metres as kilometres with one to three decimals."""
    at = put_integer(out, at, metres // 1000)
    rest = metres % 1000
    out[at] = _POINT
    out[at + 1] = _ZERO + rest // 100
    out[at + 2] = _ZERO + rest // 10 % 10
    out[at + 3] = _ZERO + rest % 10
    if rest % 10:
        return at + 4
    return at + 3 if rest % 100 else at + 2
