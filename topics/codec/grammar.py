"""JSON's grammar, compiled: strings, numbers and values in a byte buffer, each function from a position to the one after.

A function that is not sure answers DOUBT instead of a position. Surely good are plain printable ASCII strings without
escapes, integers of up to 18 digits, decimal numbers without exponent; of values nobody reads, any number.
The buffer (uint8[]): each record is followed by a NUL byte, the last one by `PADDING` more. NUL is no part of JSON, so that
no loop runs past its record, and eight bytes may be read at any place of one.
Not here: what the values mean (scan.py).
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from topics.codec.fields import LEXICON_BITS
from topics.compiled.kernels import forced_inline, kernel

PADDING = 32  # bytes
MAX_DEPTH = 32  # of values nobody reads
MAX_NUMBER = 128  # bytes, of numbers nobody reads
DOUBT = -1

QUOTE, COMMA, COLON, OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT = b'",:[]{}'
_SPACE, _TAB, _LINE_FEED, _RETURN, _MINUS, _PLUS, _POINT, _ZERO, _NINE, _E = b" \t\n\r-+.09e"

PREFIX = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)

_QUOTES = np.uint64(0x2222222222222222)
_BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
_DELETES = np.uint64(0x7F7F7F7F7F7F7F7F)
_SPACES = np.uint64(0x2020202020202020)
_ONES = np.uint64(0x0101010101010101)
_HIGHS = np.uint64(0x8080808080808080)
TRUE = np.uint64(int.from_bytes(b"true", "little"))
FALSE = np.uint64(int.from_bytes(b"false", "little"))
NULL = np.uint64(int.from_bytes(b"null", "little"))
FOUR_BYTES = np.uint64((1 << 32) - 1)
FIVE_BYTES = np.uint64((1 << 40) - 1)
_U0, _U7, _U9 = np.uint64(0), np.uint64(7), np.uint64(9)
_LEXICON_SHIFT = np.uint64(64 - LEXICON_BITS)
_TENS = np.array([10.0**power for power in range(23)])  # exact
_SPLIT = float((1 << 27) + 1)


@intrinsic
def byte_at(typing_context, buffer, at):
    """Read one byte of a uint8 array as int64; no test for a negative index, unlike `buffer[at]`."""

    def build(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.zext(builder.load(builder.gep(array.data, [arguments[1]])), ir.IntType(64))

    return types.int64(buffer, types.int64), build


@intrinsic
def word_at(typing_context, buffer, at):
    """Read eight bytes of a uint8 array, at any place, as a little-endian uint64."""

    def build(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(place, align=1)

    return types.uint64(buffer, types.int64), build


@intrinsic
def _lowest_bit(typing_context, word):
    """Count the zero bits below the lowest one bit of a uint64 other than 0."""

    def build(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), build


@forced_inline
def space_end(buffer, at):
    while True:
        byte = byte_at(buffer, at)
        if byte > _SPACE or byte not in (_SPACE, _LINE_FEED, _RETURN, _TAB):
            return at
        at += 1


@forced_inline
def string_end(buffer, at):
    """Find the closing quote of plain printable ASCII from `at`; DOUBT at anything else."""
    while True:
        word = word_at(buffer, at)
        quotes = word ^ _QUOTES
        backslashes = word ^ _BACKSLASHES
        deletes = word ^ _DELETES
        # A byte's high bit is set where it is the one looked for (or, after a hit, by the borrow: the lowest counts).
        hits = (quotes - _ONES) & ~quotes
        hits |= (backslashes - _ONES) & ~backslashes
        hits |= (deletes - _ONES) & ~deletes
        hits |= (word - _SPACES) & ~word
        hits = (hits | word) & _HIGHS
        if hits != _U0:
            end = at + (_lowest_bit(hits) >> 3)
            return end if byte_at(buffer, end) == QUOTE else DOUBT
        at += 8


@forced_inline
def find_word(buffer, at, size, table, multiplier):
    """Look `size` bytes up in a lexicon; 0 = not in it."""
    if size > 24:
        return 0
    first = word_at(buffer, at) & PREFIX[min(size, 8)]
    second = _U0
    third = _U0
    if size > 8:
        second = word_at(buffer, at + 8) & PREFIX[min(size - 8, 8)]
        if size > 16:
            third = word_at(buffer, at + 16) & PREFIX[size - 16]
    row = ((first ^ second >> _U7 ^ second << _U9 ^ third) * multiplier) >> _LEXICON_SHIFT
    if table[row, 0] == first and table[row, 1] == second and table[row, 2] == third:
        return np.int64(table[row, 3])
    return 0


@forced_inline
def read_integer(buffer, at):
    """Read an integer of at most 18 digits: (position after it or DOUBT, value)."""
    negative = byte_at(buffer, at) == _MINUS
    if negative:
        at += 1
    first = at
    value = 0
    while True:
        digit = byte_at(buffer, at) - _ZERO
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit
        at += 1
    size = at - first
    if size == 0 or size > 18 or (size > 1 and byte_at(buffer, first) == _ZERO):
        return DOUBT, 0
    return at, -value if negative else value


@kernel
def read_number(buffer, at):
    """Read a decimal number without exponent, correctly rounded: (position after it or DOUBT, value)."""
    negative = byte_at(buffer, at) == _MINUS
    if negative:
        at += 1
    first = at
    digits = 0
    point = -1
    while True:
        byte = byte_at(buffer, at)
        if byte == _POINT and point < 0 and at > first:
            point = at
        elif _ZERO <= byte <= _NINE:
            if digits >= 10**17:
                return DOUBT, 0.0
            digits = digits * 10 + byte - _ZERO
        else:
            break
        at += 1
    places = at - point - 1 if point >= 0 else 0
    whole = (point if point >= 0 else at) - first
    if whole == 0 or (whole > 1 and byte_at(buffer, first) == _ZERO) or (point >= 0 and places == 0) or places > 22:
        return DOUBT, 0.0
    value, sure = _quotient(digits, _TENS[places])
    if not sure or (negative and digits == 0):
        return DOUBT, 0.0
    return at, -value if negative else value


@kernel
def _quotient(digits, ten):
    """Divide an int64 by an exact power of ten, correctly rounded: (value, whether that is sure).

    Beyond 2^53 the quotient is corrected by its exact remainder (Dekker, 1971); what lands too near the middle between
    two floats to be told is not sure.
    """
    value = np.float64(digits)
    quotient = value / ten
    if digits <= 1 << 53:
        return quotient, True
    product = quotient * ten
    high = quotient * _SPLIT
    high -= high - quotient
    low = quotient - high
    ten_high = ten * _SPLIT
    ten_high -= ten_high - ten
    ten_low = ten - ten_high
    error = ((high * ten_high - product) + high * ten_low + low * ten_high) + low * ten_low
    remainder = (value - product) - error + np.float64(digits - np.int64(value))
    correction = remainder / ten
    rounded = quotient + correction
    left = correction - (rounded - quotient)
    return rounded, rounded + left * (1 + 1e-9) == rounded


@kernel
def _number_end(buffer, at):
    """Find the end of a number in JSON's grammar."""
    start = at
    if byte_at(buffer, at) == _MINUS:
        at += 1
    first = at
    at = _digits_end(buffer, at)
    if at == first or (at > first + 1 and byte_at(buffer, first) == _ZERO):
        return DOUBT
    if byte_at(buffer, at) == _POINT:
        first = at + 1
        at = _digits_end(buffer, first)
        if at == first:
            return DOUBT
    if byte_at(buffer, at) | 32 == _E:
        first = at + 1
        if byte_at(buffer, first) == _PLUS or byte_at(buffer, first) == _MINUS:
            first += 1
        at = _digits_end(buffer, first)
        if at == first:
            return DOUBT
    return at if at - start <= MAX_NUMBER else DOUBT


@kernel
def _digits_end(buffer, at):
    while _ZERO <= byte_at(buffer, at) <= _NINE:
        at += 1
    return at


@forced_inline
def colon_end(buffer, at):
    """Pass the colon after a key whose closing quote is at `at`, and the space around it."""
    at = space_end(buffer, at + 1)
    return space_end(buffer, at + 1) if byte_at(buffer, at) == COLON else DOUBT


@kernel
def _scalar_end(buffer, at):
    byte = byte_at(buffer, at)
    if byte == QUOTE:
        at = string_end(buffer, at + 1)
        return at + 1 if at >= 0 else DOUBT
    if byte == _MINUS or _ZERO <= byte <= _NINE:
        return _number_end(buffer, at)
    word = word_at(buffer, at)
    if word & FOUR_BYTES == TRUE or word & FOUR_BYTES == NULL:
        return at + 4
    return at + 5 if word & FIVE_BYTES == FALSE else DOUBT


@kernel
def value_end(buffer, at):
    """Check the syntax of any value and find its end."""
    objects = 0  # a bit per open bracket, the innermost lowest: 1 = object
    depth = 0
    while True:
        byte = byte_at(buffer, at)
        opened = byte in (OPEN_OBJECT, OPEN_ARRAY)
        if opened:
            depth += 1
            objects = objects << 1 | (byte == OPEN_OBJECT)
            at = space_end(buffer, at + 1)
            if depth > MAX_DEPTH:
                return DOUBT
        else:
            at = _scalar_end(buffer, at)
            if at < 0:
                return DOUBT
        # Close what closes here, and step over a comma to the next value.
        while depth > 0:
            at = space_end(buffer, at)
            byte = byte_at(buffer, at)
            if byte == CLOSE_ARRAY + 32 * (objects & 1):
                depth -= 1
                objects >>= 1
                at += 1
                opened = False
                continue
            if not opened:
                if byte != COMMA:
                    return DOUBT
                at = space_end(buffer, at + 1)
            if objects & 1:
                if byte_at(buffer, at) != QUOTE:
                    return DOUBT
                at = string_end(buffer, at + 1)
                if at < 0:
                    return DOUBT
                at = colon_end(buffer, at)
                if at < 0:
                    return DOUBT
            break
        if depth == 0:
            return at
