"""The JSON scanner: records of one buffer to rows of EVENT, LINE and CLICK, compiled, without the GIL.

It takes what is surely good, and nothing else: printable ASCII without escapes, plain integers, no key twice, each field
in its bounds. Any other record is left as it was (kind UNDECODED) for the models to judge, be it good or bad.
Invariants: a record it takes reads the same as its model (tests/property/test_codec_parity.py); syntax is checked to the
last byte, also where nothing is kept.
The buffer: each record is followed by a NUL byte, the last one by `PADDING` more. NUL is no part of JSON, so that no loop
runs past its record, and no read past the buffer.
All kernels stand in this one file because numba's cache notices a change in a kernel's own file only.
Not here: joining records, the doubtful ones, what the columns mean (topics/columns.py).
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from topics.columns import ALLOW_PARTIAL, ALLOW_SPLIT, HAS_LINES, PICKUP, URGENT
from topics.events import INVENTORY_TOPICS, MAX_ID, MAX_LINES, MAX_MONEY, MAX_QUANTITY, MAX_TIME
from topics.reasons import Kind

PADDING = 32  # bytes
MAX_DEPTH = 32  # of values nobody reads
DOUBT = -1  # instead of a position

# Field codes, grouped by how a field is read; code 0 is a field nobody reads.
_IDS = (
    "event_id location_id sku order_id shipment_id transfer_id supply_id pool_id to_location_id pickup_location_id "
    "visitor_id line_id channel customer_id receipt_id currency lot_id campaign_id"
).split()
_TEXTS = ["reason"]
_TIMES = ["event_time", "counted_at", "expires_at", "expected_at"]
_NUMBERS = ["latitude", "longitude"]
_FLAGS = ["allow_split", "allow_partial"]
_CHOICES = ["kind", "mode", "service_level"]
FIELDS = ["", *_IDS, *_TEXTS, *_TIMES, "quantity", "unit_price", *_NUMBERS, *_FLAGS, *_CHOICES]
FIELDS += ["destination", "lines", "line_ids"]
FIELD_COUNT = len(FIELDS)

_ID_END = FIELDS.index("reason")
_TEXT_END = FIELDS.index("event_time")
_TIME_END = FIELDS.index("quantity")
_QUANTITY = FIELDS.index("quantity")
_MONEY = FIELDS.index("unit_price")
_LATITUDE = FIELDS.index("latitude")
_LONGITUDE = FIELDS.index("longitude")
_ALLOW_SPLIT = FIELDS.index("allow_split")
_ALLOW_PARTIAL = FIELDS.index("allow_partial")
_KIND = FIELDS.index("kind")
_MODE = FIELDS.index("mode")
_SERVICE_LEVEL = FIELDS.index("service_level")
_DESTINATION = FIELDS.index("destination")
_LINES = FIELDS.index("lines")
_LINE_IDS = FIELDS.index("line_ids")
_EVENT_TIME = FIELDS.index("event_time")
_EVENT_ID = FIELDS.index("event_id")
_POOL_ID = FIELDS.index("pool_id")
_LINE_ID = FIELDS.index("line_id")
_SKU = FIELDS.index("sku")
_VISITOR_ID = FIELDS.index("visitor_id")
_CUSTOMER_ID = FIELDS.index("customer_id")
_CHANNEL = FIELDS.index("channel")
_CAMPAIGN_ID = FIELDS.index("campaign_id")
_PICKUP_LOCATION_ID = FIELDS.index("pickup_location_id")


def _mask(names: str) -> int:
    return sum(1 << FIELDS.index(name) for name in set(names.split()))


# The fields that are read, by topic code; clicks come after the inventory topics.
_ORDER = "event_id event_time kind order_id lines mode destination pickup_location_id service_level allow_split "
_CLICK_KEYS = _mask(
    "event_id event_time kind visitor_id sku customer_id channel campaign_id pool_id latitude longitude"
)
_KEYS = np.array(
    [
        _mask("event_id event_time kind location_id sku quantity channel customer_id receipt_id unit_price currency"),
        _mask(
            "event_id event_time kind location_id sku quantity lot_id expires_at reason counted_at transfer_id "
            "to_location_id expected_at supply_id"
        ),
        _mask(_ORDER + "allow_partial channel customer_id currency campaign_id expires_at line_ids"),
        _mask("event_id event_time kind order_id shipment_id location_id lines reason"),
        _mask("pool_id"),
    ],
    np.int64,
)
_DESTINATION_KEYS = _mask("latitude longitude")
_ORDER_LINE_KEYS = _mask("line_id sku quantity unit_price")
_ORDER_LINE_NEEDS = _mask("line_id sku quantity")
_FULFILMENT_LINE_KEYS = _mask("line_id quantity")

SALES, STOCK, ORDERS, FULFILMENTS, TICKS = range(len(INVENTORY_TOPICS))

# What each kind fills: column -> field. `location`, `latitude`, `longitude` of an order are filled by its mode.
_STOCK_TEXTS = {"event_id": "event_id", "location": "location_id", "sku": "sku"}
_TRANSFER_TEXTS = _STOCK_TEXTS | {"reference": "transfer_id", "target": "to_location_id"}
_ORDER_TEXTS = {"event_id": "event_id", "reference": "order_id"}
_FULFILMENT_TEXTS = _ORDER_TEXTS | {"location": "location_id", "shipment": "shipment_id"}
TEXTS: dict[Kind, dict[str, str]] = (
    dict.fromkeys((Kind.SALE, Kind.RETURN, Kind.RECEIPT, Kind.ADJUSTMENT, Kind.COUNT), _STOCK_TEXTS)
    | dict.fromkeys((Kind.SAFETY_STOCK, Kind.QUARANTINE, Kind.RELEASE), _STOCK_TEXTS)
    | dict.fromkeys((Kind.TRANSFER_OUT, Kind.TRANSFER_IN), _TRANSFER_TEXTS)
    | {Kind.EXPECTED: _STOCK_TEXTS | {"reference": "supply_id"}}
    | dict.fromkeys((Kind.PLACED, Kind.HELD), _ORDER_TEXTS | {"location": "pickup_location_id"})
    | {Kind.CANCELLED: _ORDER_TEXTS}
    | dict.fromkeys((Kind.SHIPPED, Kind.COLLECTED, Kind.REJECTED, Kind.RETURNED), _FULFILMENT_TEXTS)
    | {Kind.TICK: {"reference": "pool_id"}}
)
TIMES = {Kind.COUNT: "counted_at", Kind.EXPECTED: "expected_at", Kind.HELD: "expires_at"}
COLUMNS = ("event_id", "location", "sku", "reference", "shipment", "target")

_KIND_COUNT = max(Kind) + 1
_TEXT_OF = np.zeros((_KIND_COUNT, len(COLUMNS)), np.int64)  # field of a kind's column, 0 = none
_TIME_OF = np.zeros(_KIND_COUNT, np.int64)
_NEEDS = np.zeros(_KIND_COUNT, np.int64)  # mask of a kind's required fields
_LEAST = np.ones(_KIND_COUNT, np.int64)  # smallest quantity
_TOPIC_OF = np.full(_KIND_COUNT, -1, np.int64)
for _kind, _columns in TEXTS.items():
    for _column, _field in _columns.items():
        _TEXT_OF[_kind, COLUMNS.index(_column)] = FIELDS.index(_field)
    _NEEDS[_kind] = _mask("event_id event_time kind " + " ".join(_columns.values()))
    _TOPIC_OF[_kind] = (SALES, STOCK, STOCK, ORDERS, FULFILMENTS, TICKS)[_kind // 10]
    if _TOPIC_OF[_kind] in (SALES, STOCK):
        _NEEDS[_kind] |= _mask("quantity")
for _kind, _field in TIMES.items():
    _TIME_OF[_kind] = FIELDS.index(_field)
_NEEDS[Kind.EXPECTED] |= _mask("expected_at")
_NEEDS[Kind.HELD] |= _mask("expires_at lines")
_NEEDS[Kind.PLACED] |= _mask("lines")
_NEEDS[Kind.PLACED] &= ~_mask("pickup_location_id")
_NEEDS[Kind.HELD] &= ~_mask("pickup_location_id")
_NEEDS[Kind.TRANSFER_IN] &= ~_mask("to_location_id")
_LEAST[[Kind.COUNT, Kind.EXPECTED, Kind.SAFETY_STOCK]] = 0
_LEAST[Kind.ADJUSTMENT] = -MAX_QUANTITY
_CLICK_NEEDS = _mask("event_id event_time kind visitor_id channel")

_COUNT, _VIEW, _CHECKOUT = Kind.COUNT.value, Kind.VIEW.value, Kind.CHECKOUT.value
_PLACED, _HELD, _CANCELLED = Kind.PLACED.value, Kind.HELD.value, Kind.CANCELLED.value
_ADJUSTMENT, _TICK = Kind.ADJUSTMENT.value, Kind.TICK.value
_DELIVERY_WORD, _PICKUP_WORD, _STANDARD_WORD, _URGENT_WORD = range(_KIND_COUNT, _KIND_COUNT + 4)

# A lexicon: words of at most 24 bytes, found by one multiplication. Row: the word as three little-endian integers, its code.
_LEXICON_BITS = 8


def _lexicon(words: dict[str, int]) -> tuple[np.ndarray, np.uint64]:
    """Lay the words out so that none shares its row; the multiplier is found by trial."""
    parts = {word: [int.from_bytes(word.encode()[at : at + 8], "little") for at in (0, 8, 16)] for word in words}
    multiplier = 0x9E3779B97F4A7C15
    while True:
        rows = {word: _row(*parts[word], multiplier) for word in words}
        if len(set(rows.values())) == len(words):
            break
        multiplier = (multiplier * 0xD1342543DE82EF95 + 2) & (1 << 64) - 1 | 1
    table = np.zeros((1 << _LEXICON_BITS, 4), np.uint64)
    for word, code in words.items():
        table[rows[word]] = [*parts[word], code]
    return table, np.uint64(multiplier)


def _row(first: int, second: int, third: int, multiplier: int) -> int:
    mixed = first ^ second >> 7 ^ second << 9 & (1 << 64) - 1 ^ third
    return (mixed * multiplier & (1 << 64) - 1) >> 64 - _LEXICON_BITS


_KEY_TABLE, _KEY_MULTIPLIER = _lexicon({name: code for code, name in enumerate(FIELDS) if name})
_CHOICE_TABLE, _CHOICE_MULTIPLIER = _lexicon(
    {kind.wire: kind.value for kind in Kind if _TOPIC_OF[kind] >= 0 or _VIEW <= kind <= _CHECKOUT}
    | {"delivery": _DELIVERY_WORD, "pickup": _PICKUP_WORD, "standard": _STANDARD_WORD, "urgent": _URGENT_WORD}
)
_PREFIX = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)

_QUOTES = np.uint64(0x2222222222222222)
_BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
_DELETES = np.uint64(0x7F7F7F7F7F7F7F7F)
_SPACES = np.uint64(0x2020202020202020)
_ONES = np.uint64(0x0101010101010101)
_HIGHS = np.uint64(0x8080808080808080)
_TRUE = np.uint64(int.from_bytes(b"true", "little"))
_FALSE = np.uint64(int.from_bytes(b"false", "little"))
_NULL = np.uint64(int.from_bytes(b"null", "little"))
_FOUR_BYTES = np.uint64((1 << 32) - 1)
_FIVE_BYTES = np.uint64((1 << 40) - 1)
_HASH = np.uint64(0x9E3779B97F4A7C15)
_U0, _U7, _U9, _U29 = np.uint64(0), np.uint64(7), np.uint64(9), np.uint64(29)
_LEXICON_SHIFT = np.uint64(64 - _LEXICON_BITS)
_TENS = np.array([10.0**power for power in range(23)])  # exact
_SPLIT = float((1 << 27) + 1)

_kernel = njit(cache=True, nogil=True)


@intrinsic
def _byte(typing_context, buffer, at):
    """Read one byte of a uint8 array as int64; no test for a negative index, unlike `buffer[at]`."""

    def build(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.zext(builder.load(builder.gep(array.data, [arguments[1]])), ir.IntType(64))

    return types.int64(buffer, types.int64), build


@intrinsic
def _word(typing_context, buffer, at):
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


@_kernel
def _space_end(buffer, at):
    while True:
        byte = _byte(buffer, at)
        if byte > 32 or not (byte == 32 or byte == 10 or byte == 13 or byte == 9):
            return at
        at += 1


@_kernel
def _string_end(buffer, at):
    """Find the closing quote of plain printable ASCII from `at`; DOUBT at anything else."""
    while True:
        word = _word(buffer, at)
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
            return end if _byte(buffer, end) == 34 else DOUBT
        at += 8


@_kernel
def _find(buffer, at, size, table, multiplier):
    """Look `size` bytes up in a lexicon; 0 = not in it."""
    if size > 24:
        return 0
    first = _word(buffer, at) & _PREFIX[min(size, 8)]
    second = _U0
    third = _U0
    if size > 8:
        second = _word(buffer, at + 8) & _PREFIX[min(size - 8, 8)]
        if size > 16:
            third = _word(buffer, at + 16) & _PREFIX[size - 16]
    row = ((first ^ second >> _U7 ^ second << _U9 ^ third) * multiplier) >> _LEXICON_SHIFT
    if table[row, 0] == first and table[row, 1] == second and table[row, 2] == third:
        return np.int64(table[row, 3])
    return 0


@_kernel
def _integer(buffer, at):
    """Read an integer of at most 18 digits: (position after it or DOUBT, value)."""
    negative = _byte(buffer, at) == 45
    if negative:
        at += 1
    first = at
    value = 0
    while True:
        digit = _byte(buffer, at) - 48
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit
        at += 1
    size = at - first
    if size == 0 or size > 18 or (size > 1 and _byte(buffer, first) == 48):
        return DOUBT, 0
    return at, -value if negative else value


@_kernel
def _number(buffer, at):
    """Read a decimal number without exponent, correctly rounded: (position after it or DOUBT, value)."""
    negative = _byte(buffer, at) == 45
    if negative:
        at += 1
    first = at
    digits = 0
    point = -1
    while True:
        byte = _byte(buffer, at)
        if byte == 46 and point < 0 and at > first:
            point = at
        elif 48 <= byte <= 57:
            if digits >= 10**17:
                return DOUBT, 0.0
            digits = digits * 10 + byte - 48
        else:
            break
        at += 1
    places = at - point - 1 if point >= 0 else 0
    whole = (point if point >= 0 else at) - first
    if whole == 0 or (whole > 1 and _byte(buffer, first) == 48) or (point >= 0 and places == 0) or places > 22:
        return DOUBT, 0.0
    value, sure = _quotient(digits, _TENS[places])
    if not sure or (negative and digits == 0):
        return DOUBT, 0.0
    return at, -value if negative else value


@_kernel
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


@_kernel
def _number_end(buffer, at):
    """Find the end of a number in JSON's grammar."""
    if _byte(buffer, at) == 45:
        at += 1
    first = at
    at = _digits_end(buffer, at)
    if at == first or (at > first + 1 and _byte(buffer, first) == 48):
        return DOUBT
    if _byte(buffer, at) == 46:
        first = at + 1
        at = _digits_end(buffer, first)
        if at == first:
            return DOUBT
    if _byte(buffer, at) | 32 == 101:
        first = at + 1
        if _byte(buffer, first) == 43 or _byte(buffer, first) == 45:
            first += 1
        at = _digits_end(buffer, first)
        if at == first:
            return DOUBT
    return at if at - first < MAX_ID else DOUBT


@_kernel
def _digits_end(buffer, at):
    while 48 <= _byte(buffer, at) <= 57:
        at += 1
    return at


@_kernel
def _colon_end(buffer, at):
    """Pass the colon after a key whose closing quote is at `at`, and the space around it."""
    at = _space_end(buffer, at + 1)
    return _space_end(buffer, at + 1) if _byte(buffer, at) == 58 else DOUBT


@_kernel
def _scalar_end(buffer, at):
    byte = _byte(buffer, at)
    if byte == 34:
        at = _string_end(buffer, at + 1)
        return at + 1 if at >= 0 else DOUBT
    if byte == 45 or 48 <= byte <= 57:
        return _number_end(buffer, at)
    word = _word(buffer, at)
    if word & _FOUR_BYTES == _TRUE or word & _FOUR_BYTES == _NULL:
        return at + 4
    return at + 5 if word & _FIVE_BYTES == _FALSE else DOUBT


@_kernel
def _value_end(buffer, at):
    """Check the syntax of any value and find its end."""
    objects = 0  # a bit per open bracket, the innermost lowest: 1 = object
    depth = 0
    while True:
        byte = _byte(buffer, at)
        opened = byte == 123 or byte == 91
        if opened:
            depth += 1
            objects = objects << 1 | (byte == 123)
            at = _space_end(buffer, at + 1)
            if depth > MAX_DEPTH:
                return DOUBT
        else:
            at = _scalar_end(buffer, at)
            if at < 0:
                return DOUBT
        # Close what closes here, and step over a comma to the next value.
        while depth > 0:
            at = _space_end(buffer, at)
            byte = _byte(buffer, at)
            if byte == 93 + 32 * (objects & 1):
                depth -= 1
                objects >>= 1
                at += 1
                opened = False
                continue
            if not opened:
                if byte != 44:
                    return DOUBT
                at = _space_end(buffer, at + 1)
            if objects & 1:
                if _byte(buffer, at) != 34:
                    return DOUBT
                at = _string_end(buffer, at + 1)
                if at < 0:
                    return DOUBT
                at = _colon_end(buffer, at)
                if at < 0:
                    return DOUBT
            break
        if depth == 0:
            return at


@_kernel
def _scalar(buffer, at, field, fields_out, numbers_out):
    """Read a field of a plain type into its row; the position after it, or DOUBT."""
    if field < _TEXT_END or field >= _KIND:
        if _byte(buffer, at) != 34:
            return DOUBT
        end = _string_end(buffer, at + 1)
        if end < 0:
            return DOUBT
        size = end - at - 1
        if field < _ID_END:
            if size == 0 or size > MAX_ID:
                return DOUBT
            fields_out[field, 0] = at + 1
            fields_out[field, 1] = size
        elif field >= _KIND:
            fields_out[field, 0] = _find(buffer, at + 1, size, _CHOICE_TABLE, _CHOICE_MULTIPLIER)
        return end + 1
    if field < _LATITUDE:
        at, value = _integer(buffer, at)
        fields_out[field, 0] = value
        if field < _TIME_END:
            good = 0 <= value <= MAX_TIME
        else:
            bound = MAX_QUANTITY if field == _QUANTITY else MAX_MONEY
            good = -bound <= value <= bound
        return at if good else DOUBT
    if field < _ALLOW_SPLIT:
        at, number = _number(buffer, at)
        numbers_out[field - _LATITUDE] = number
        bound = 90.0 if field == _LATITUDE else 180.0
        return at if -bound <= number <= bound else DOUBT
    word = _word(buffer, at)
    if word & _FOUR_BYTES == _TRUE:
        fields_out[field, 0] = 1
        return at + 4
    fields_out[field, 0] = 0
    return at + 5 if word & _FIVE_BYTES == _FALSE else DOUBT


@_kernel
def _key(buffer, at, keys):
    """Read a key and its colon: (position of the value or DOUBT, field; 0 = not among `keys`)."""
    if _byte(buffer, at) != 34:
        return DOUBT, 0
    end = _string_end(buffer, at + 1)
    if end < 0:
        return DOUBT, 0
    field = _find(buffer, at + 1, end - at - 1, _KEY_TABLE, _KEY_MULTIPLIER)
    return _colon_end(buffer, end), field if keys >> field & 1 else 0


@_kernel
def _is_null(buffer, at):
    return _word(buffer, at) & _FOUR_BYTES == _NULL


@_kernel
def _next_member(buffer, at):
    """After a member: (position of the next key, after the closing brace, or DOUBT; whether the object is closed)."""
    at = _space_end(buffer, at)
    byte = _byte(buffer, at)
    if byte == 44:
        return _space_end(buffer, at + 1), False
    return (at + 1 if byte == 125 else DOUBT), True


@_kernel
def _leaf_object(buffer, at, keys, fields_out, numbers_out):
    """Read an object of plain fields: (position after it or DOUBT, mask of the fields that are there)."""
    if _byte(buffer, at) != 123:
        return DOUBT, 0
    at = _space_end(buffer, at + 1)
    seen = 0
    present = 0
    closed = False
    while not closed:
        at, field = _key(buffer, at, keys)
        if at < 0 or (field > 0 and seen >> field & 1):
            return DOUBT, 0
        if field == 0:
            at = _value_end(buffer, at)
        elif _is_null(buffer, at):
            at += 4
            seen |= 1 << field
        else:
            at = _scalar(buffer, at, field, fields_out, numbers_out)
            seen |= 1 << field
            present |= 1 << field
        if at < 0:
            return DOUBT, 0
        at, closed = _next_member(buffer, at)
        if at < 0:
            return DOUBT, 0
    return at, present


@_kernel
def _hash(buffer, at, size):
    """Hash a text of 1 to MAX_ID bytes to a uint64 other than 0."""
    end = at + size
    result = np.uint64(size)
    while at < end:
        result = (result ^ (_word(buffer, at) & _PREFIX[min(end - at, 8)])) * _HASH
        result ^= result >> _U29
        at += 8
    return result | np.uint64(1)


@_kernel
def _distinct(buffer, lines, first, count, hashes_inout):
    """Tell whether the line ids surely differ; `hashes_inout` (uint64[4 · MAX_LINES]) is an open-addressed set."""
    capacity = 4
    while capacity < 2 * count:
        capacity *= 2
    hashes_inout[:capacity] = _U0
    for row in range(first, first + count):
        hashed = _hash(buffer, np.int64(lines[row].line_id_at), np.int64(lines[row].line_id_size))
        slot = np.int64(hashed >> np.uint64(32)) & (capacity - 1)
        while hashes_inout[slot] != _U0:
            if hashes_inout[slot] == hashed:
                return False
            slot = (slot + 1) & (capacity - 1)
        hashes_inout[slot] = hashed
    return True


@_kernel
def _line_array(buffer, at, topic, line_row, lines_out, fields_inout, numbers_inout):
    """Read an order's or a fulfilment's `lines` into rows from `line_row`: (position after them or DOUBT, count)."""
    keys = _ORDER_LINE_KEYS if topic == ORDERS else _FULFILMENT_LINE_KEYS
    needs = _ORDER_LINE_NEEDS if topic == ORDERS else _FULFILMENT_LINE_KEYS
    if _byte(buffer, at) != 91:
        return DOUBT, 0
    at = _space_end(buffer, at + 1)
    if _byte(buffer, at) == 93:
        return at + 1, 0
    count = 0
    while True:
        at, present = _leaf_object(buffer, at, keys, fields_inout, numbers_inout)
        quantity = fields_inout[_QUANTITY, 0]
        if at < 0 or present & needs != needs or quantity < 1 or count == MAX_LINES:
            return DOUBT, 0
        line = lines_out[line_row + count]
        line.line_id_at = fields_inout[_LINE_ID, 0]
        line.line_id_size = fields_inout[_LINE_ID, 1]
        line.sku_at = fields_inout[_SKU, 0] if topic == ORDERS else 0
        line.sku_size = fields_inout[_SKU, 1] if topic == ORDERS else 0
        line.quantity = quantity
        count += 1
        at = _space_end(buffer, at)
        byte = _byte(buffer, at)
        if byte == 93:
            return at + 1, count
        if byte != 44:
            return DOUBT, 0
        at = _space_end(buffer, at + 1)


@_kernel
def _line_id_array(buffer, at, line_row, lines_out, fields_inout, numbers_inout):
    """Read a cancellation's `line_ids` into rows from `line_row`: (position after them or DOUBT, count)."""
    if _byte(buffer, at) != 91:
        return DOUBT, 0
    at = _space_end(buffer, at + 1)
    if _byte(buffer, at) == 93:
        return at + 1, 0
    count = 0
    while True:
        at = _scalar(buffer, at, _LINE_ID, fields_inout, numbers_inout)
        if at < 0 or count == MAX_LINES:
            return DOUBT, 0
        line = lines_out[line_row + count]
        line.line_id_at = fields_inout[_LINE_ID, 0]
        line.line_id_size = fields_inout[_LINE_ID, 1]
        line.sku_at = 0
        line.sku_size = 0
        line.quantity = 0
        count += 1
        at = _space_end(buffer, at)
        byte = _byte(buffer, at)
        if byte == 93:
            return at + 1, count
        if byte != 44:
            return DOUBT, 0
        at = _space_end(buffer, at + 1)


@_kernel
def _nested(buffer, at, field, topic, line_row, lines_out, fields_inout, numbers_inout, hashes_inout):
    """Read `destination`, `lines` or `line_ids`: (position after it or DOUBT, next free line row)."""
    if field == _DESTINATION:
        at, present = _leaf_object(buffer, at, _DESTINATION_KEYS, fields_inout, numbers_inout)
        return at if present == _DESTINATION_KEYS else DOUBT, line_row
    if field == _LINES:
        at, count = _line_array(buffer, at, topic, line_row, lines_out, fields_inout, numbers_inout)
        if (
            at >= 0
            and topic == ORDERS
            and not (count > 0 and _distinct(buffer, lines_out, line_row, count, hashes_inout))
        ):
            at = DOUBT
    else:
        at, count = _line_id_array(buffer, at, line_row, lines_out, fields_inout, numbers_inout)
    fields_inout[field, 0] = line_row
    fields_inout[field, 1] = count
    return at, line_row + count


@_kernel
def _record(buffer, at, end, keys, topic, line_row, lines_out, fields_out, numbers_out, hashes_inout):
    """Read a record's object: (mask of the fields that are there, -1 = doubtful; next free line row)."""
    at = _space_end(buffer, at)
    if _byte(buffer, at) != 123:
        return DOUBT, line_row
    at = _space_end(buffer, at + 1)
    seen = 0
    present = 0
    closed = False
    while not closed:
        at, field = _key(buffer, at, keys)
        if at < 0 or (field > 0 and seen >> field & 1):
            return DOUBT, line_row
        if field == 0:
            at = _value_end(buffer, at)
        elif _is_null(buffer, at):
            at += 4
            seen |= 1 << field
        else:
            if field < _DESTINATION:
                at = _scalar(buffer, at, field, fields_out, numbers_out)
            else:
                at, line_row = _nested(
                    buffer, at, field, topic, line_row, lines_out, fields_out, numbers_out, hashes_inout
                )
            seen |= 1 << field
            present |= 1 << field
        if at < 0:
            return DOUBT, line_row
        at, closed = _next_member(buffer, at)
        if at < 0:
            return DOUBT, line_row
    return present if _space_end(buffer, at) == end else DOUBT, line_row


@_kernel
def _order_flags(present, fields):
    """The flags of a placed or held order, -1 = doubtful."""
    flags = HAS_LINES
    if not present >> _ALLOW_SPLIT & 1 or fields[_ALLOW_SPLIT, 0] == 1:
        flags |= ALLOW_SPLIT
    if not present >> _ALLOW_PARTIAL & 1 or fields[_ALLOW_PARTIAL, 0] == 1:
        flags |= ALLOW_PARTIAL
    if present >> _MODE & 1:
        if fields[_MODE, 0] == _PICKUP_WORD:
            flags |= PICKUP
        elif fields[_MODE, 0] != _DELIVERY_WORD:
            return DOUBT
    if present >> _SERVICE_LEVEL & 1:
        if fields[_SERVICE_LEVEL, 0] == _URGENT_WORD:
            flags |= URGENT
        elif fields[_SERVICE_LEVEL, 0] != _STANDARD_WORD:
            return DOUBT
    return flags


@_kernel
def _fill_event(event_out, topic, present, fields, numbers):
    """Check a record's fields by its kind and write its row; whether it was surely good."""
    kind = fields[_KIND, 0] if topic != TICKS else _TICK
    if topic == TICKS:
        if present != 1 << _POOL_ID:
            return False
    elif not present >> _KIND & 1 or kind >= _DELIVERY_WORD or _TOPIC_OF[kind] != topic:
        return False
    elif present & _NEEDS[kind] != _NEEDS[kind]:
        return False
    flags = 0
    places = present
    if kind == _PLACED or kind == _HELD:
        flags = _order_flags(present, fields)
        if flags < 0:
            return False
        place = _PICKUP_LOCATION_ID if flags & PICKUP else _DESTINATION
        if not present >> place & 1:
            return False
        if flags & PICKUP == 0:
            places = present & ~(1 << _PICKUP_LOCATION_ID)
            event_out.latitude = numbers[0]
            event_out.longitude = numbers[1]
    if topic <= STOCK:
        quantity = fields[_QUANTITY, 0]
        if quantity < _LEAST[kind] or (kind == _ADJUSTMENT and quantity == 0):
            return False
        event_out.quantity = quantity
    given = _LINE_IDS if kind == _CANCELLED else _LINES
    if present >> given & 1:
        flags |= HAS_LINES
        event_out.first_line = fields[given, 0]
        event_out.line_count = fields[given, 1]
    if topic != TICKS:
        event_out.event_time = fields[_EVENT_TIME, 0]
    time = _TIME_OF[kind]
    if present >> time & 1:
        event_out.time = fields[time, 0]
    elif kind == _COUNT:
        event_out.time = fields[_EVENT_TIME, 0]
    _fill_texts(event_out, kind, places, fields)
    event_out.flags = flags
    event_out.kind = kind
    return True


@_kernel
def _fill_texts(event_out, kind, present, fields):
    field = _TEXT_OF[kind, 0]
    if present >> field & 1:
        event_out.event_id_at = fields[field, 0]
        event_out.event_id_size = fields[field, 1]
    field = _TEXT_OF[kind, 1]
    if present >> field & 1:
        event_out.location_at = fields[field, 0]
        event_out.location_size = fields[field, 1]
    field = _TEXT_OF[kind, 2]
    if present >> field & 1:
        event_out.sku_at = fields[field, 0]
        event_out.sku_size = fields[field, 1]
    field = _TEXT_OF[kind, 3]
    if present >> field & 1:
        event_out.reference_at = fields[field, 0]
        event_out.reference_size = fields[field, 1]
    field = _TEXT_OF[kind, 4]
    if present >> field & 1:
        event_out.shipment_at = fields[field, 0]
        event_out.shipment_size = fields[field, 1]
    field = _TEXT_OF[kind, 5]
    if present >> field & 1:
        event_out.target_at = fields[field, 0]
        event_out.target_size = fields[field, 1]


@_kernel
def scan_events(buffer, starts, ends, events_inout, lines_out):
    """Read the surely good records of a batch; the others' rows are left as they are, kind UNDECODED.

    Parameters
    ----------
    buffer : uint8[]
        Records, each followed by a NUL byte, then `PADDING` zeros.
    starts, ends : int64[n]
        Where each record begins, and the position after its last byte.
    events_inout : EVENT[n]
        Zeros but for `topic`.
    lines_out : LINE[]
        Room for a row per four bytes of the buffer.

    Returns
    -------
    int
        Rows of `lines_out` in use.
    """
    fields = np.zeros((FIELD_COUNT, 2), np.int64)
    numbers = np.zeros(2, np.float64)
    hashes = np.zeros(4 * MAX_LINES, np.uint64)
    line_row = 0
    for row in range(len(starts)):
        topic = np.int64(events_inout[row].topic)
        present, next_row = _record(
            buffer, starts[row], ends[row], _KEYS[topic], topic, line_row, lines_out, fields, numbers, hashes
        )
        if present >= 0 and _fill_event(events_inout[row], topic, present, fields, numbers):
            line_row = next_row
    return line_row


@_kernel
def scan_clicks(buffer, starts, ends, clicks_inout, lines_out):
    """Read the surely good clicks of a batch; as `scan_events`, with CLICK rows and no lines (LINE[0])."""
    fields = np.zeros((FIELD_COUNT, 2), np.int64)
    numbers = np.zeros(2, np.float64)
    hashes = np.zeros(0, np.uint64)
    for row in range(len(starts)):
        present, _ = _record(buffer, starts[row], ends[row], _CLICK_KEYS, TICKS, 0, lines_out, fields, numbers, hashes)
        kind = fields[_KIND, 0]
        if present < 0 or present & _CLICK_NEEDS != _CLICK_NEEDS or not _VIEW <= kind <= _CHECKOUT:
            continue
        click = clicks_inout[row]
        click.event_time = fields[_EVENT_TIME, 0]
        click.latitude = numbers[0] if present >> _LATITUDE & 1 else np.nan
        click.longitude = numbers[1] if present >> _LONGITUDE & 1 else np.nan
        click.event_id_at = fields[_EVENT_ID, 0]
        click.event_id_size = fields[_EVENT_ID, 1]
        click.visitor_at = fields[_VISITOR_ID, 0]
        click.visitor_size = fields[_VISITOR_ID, 1]
        click.channel_at = fields[_CHANNEL, 0]
        click.channel_size = fields[_CHANNEL, 1]
        if present >> _SKU & 1:
            click.sku_at = fields[_SKU, 0]
            click.sku_size = fields[_SKU, 1]
        if present >> _POOL_ID & 1:
            click.pool_at = fields[_POOL_ID, 0]
            click.pool_size = fields[_POOL_ID, 1]
        if present >> _CUSTOMER_ID & 1:
            click.customer_at = fields[_CUSTOMER_ID, 0]
            click.customer_size = fields[_CUSTOMER_ID, 1]
        if present >> _CAMPAIGN_ID & 1:
            click.campaign_at = fields[_CAMPAIGN_ID, 0]
            click.campaign_size = fields[_CAMPAIGN_ID, 1]
        click.kind = kind
