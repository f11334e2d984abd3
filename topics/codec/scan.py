"""The record scanner: JSON records of one buffer to rows of EVENT, LINE and CLICK, compiled, without the GIL.

It takes what is surely good, and nothing else: what the grammar is sure of, no known key twice, each field in its bounds.
Any other record's row is left as it was (kind UNDECODED) for the models to judge, be it good or bad.
Invariants: a record it takes reads the same as its model (tests/property/test_codec_parity.py); syntax is checked to the
last byte, also where nothing is kept.
Not here: JSON's syntax (grammar.py), who has which field (fields.py), joining records and the doubtful ones (decode.py).
"""

import numpy as np

from topics.codec import fields as f
from topics.codec.grammar import (
    CLOSE_ARRAY,
    CLOSE_OBJECT,
    COMMA,
    DOUBT,
    FALSE,
    FIVE_BYTES,
    FOUR_BYTES,
    NULL,
    OPEN_ARRAY,
    OPEN_OBJECT,
    PREFIX,
    QUOTE,
    TRUE,
    byte_at,
    colon_end,
    find_word,
    read_integer,
    read_number,
    space_end,
    string_end,
    value_end,
    word_at,
)
from topics.columns import ALLOW_PARTIAL, ALLOW_SPLIT, HAS_LINES, MISSING, PICKUP, UNSTOCKED, URGENT
from topics.compiled.kernels import forced_inline, kernel
from topics.events import MAX_ID, MAX_LINES, MAX_MONEY, MAX_QUANTITY, MAX_TIME
from topics.reasons import Kind

# Where the groups of field codes end.
_ID_END = 1 + len(f.IDS)
_TEXT_END = _ID_END + len(f.FREE_TEXTS)
_MOMENT_END = _TEXT_END + len(f.MOMENTS)
_INTEGER_END = _MOMENT_END + len(f.INTEGERS)
_DEGREE_END = _INTEGER_END + len(f.DEGREES)
_SWITCH_END = _DEGREE_END + len(f.SWITCHES)

_LINE_ID = np.int64(f.CODE["line_id"])
_SKU = f.CODE["sku"]
_PICKUP_LOCATION_ID = f.CODE["pickup_location_id"]
_EVENT_TIME = f.CODE["event_time"]
_QUANTITY = f.CODE["quantity"]
_LATITUDE = f.CODE["latitude"]
_LONGITUDE = f.CODE["longitude"]
_ALLOW_SPLIT = f.CODE["allow_split"]
_ALLOW_PARTIAL = f.CODE["allow_partial"]
_STOCKED = f.CODE["stocked"]
_MISSING = f.CODE["missing"]
_KIND = f.CODE["kind"]
_MODE = f.CODE["mode"]
_SERVICE_LEVEL = f.CODE["service_level"]
_DESTINATION = f.CODE["destination"]
_LINES = f.CODE["lines"]
_LINE_IDS = f.CODE["line_ids"]

_CLICK_TEXTS = np.array(
    [f.CODE[name] for name in ("event_id", "visitor_id", "sku", "pool_id", "customer_id", "channel", "campaign_id")]
)
_PLACED, _HELD, _CANCELLED, _CHANGED = Kind.PLACED.value, Kind.HELD.value, Kind.CANCELLED.value, Kind.CHANGED.value
_COUNT, _ADJUSTMENT, _TICK, _RETURNED = Kind.COUNT.value, Kind.ADJUSTMENT.value, Kind.TICK.value, Kind.RETURNED.value

_WHAT = np.int64(f.mask(("line_id", "sku")))  # a line names one of them at least
_BLANK = 32  # which may be an id's only characters
_HASH = np.uint64(0x9E3779B97F4A7C15)
_U0, _U29 = np.uint64(0), np.uint64(29)


@forced_inline
def _scalar(buffer, at, field, fields_out, degrees_out):
    """Read a field of a plain type into its row; the position after it, or DOUBT."""
    if field < _TEXT_END or field >= _SWITCH_END:
        return _text(buffer, at, field, fields_out)
    if field < _INTEGER_END:
        at, value = read_integer(buffer, at)
        fields_out[field, 0] = value
        if field < _MOMENT_END:
            return at if 0 <= value <= MAX_TIME else DOUBT
        bound = MAX_QUANTITY if field == _QUANTITY else MAX_MONEY
        return at if -bound <= value <= bound else DOUBT
    if field < _DEGREE_END:
        at, value = read_number(buffer, at)
        degrees_out[field - _LATITUDE] = value
        bound = 90.0 if field == _LATITUDE else 180.0
        return at if -bound <= value <= bound else DOUBT
    word = word_at(buffer, at)
    fields_out[field, 0] = word & FOUR_BYTES == TRUE
    if word & FOUR_BYTES == TRUE:
        return at + 4
    return at + 5 if word & FIVE_BYTES == FALSE else DOUBT


@forced_inline
def _text(buffer, at, field, fields_out):
    """Read an id's slice, a choice's code, or nothing of a free text; the position after it, or DOUBT."""
    if byte_at(buffer, at) != QUOTE:
        return DOUBT
    end = string_end(buffer, at + 1)
    if end < 0:
        return DOUBT
    size = end - at - 1
    if field < _ID_END:
        if size == 0 or size > MAX_ID or byte_at(buffer, at + 1) == _BLANK:
            return DOUBT
        fields_out[field, 0] = at + 1
        fields_out[field, 1] = size
    elif field >= _SWITCH_END:
        fields_out[field, 0] = find_word(buffer, at + 1, size, f.CHOICE_TABLE, f.CHOICE_MULTIPLIER)
    return end + 1


@forced_inline
def _key(buffer, at, keys):
    """Read a key and its colon: (position of the value or DOUBT, field; 0 = not among `keys`)."""
    if byte_at(buffer, at) != QUOTE:
        return DOUBT, 0
    end = string_end(buffer, at + 1)
    if end < 0:
        return DOUBT, 0
    field = find_word(buffer, at + 1, end - at - 1, f.KEY_TABLE, f.KEY_MULTIPLIER)
    return colon_end(buffer, end), field if keys >> field & 1 else 0


@forced_inline
def _member(buffer, at, keys, seen):
    """Read a key, and a value that is null or of no use: (position or DOUBT, field, whether its value is yet to be read)."""
    at, field = _key(buffer, at, keys)
    if at < 0 or (field > 0 and seen >> field & 1):
        return DOUBT, field, False
    if field == 0:
        return value_end(buffer, at), field, False
    if word_at(buffer, at) & FOUR_BYTES == NULL:
        return at + 4, field, False
    return at, field, True


@forced_inline
def _next_member(buffer, at):
    """After a member: (position of the next key, after the closing brace, or DOUBT; whether the object is closed)."""
    at = space_end(buffer, at)
    byte = byte_at(buffer, at)
    if byte == COMMA:
        return space_end(buffer, at + 1), False
    return (at + 1 if byte == CLOSE_OBJECT else DOUBT), True


@kernel
def _leaf_object(buffer, at, keys, fields_out, degrees_out):
    """Read an object of plain fields: (position after it or DOUBT, mask of the fields that are there)."""
    if byte_at(buffer, at) != OPEN_OBJECT:
        return DOUBT, 0
    at = space_end(buffer, at + 1)
    seen = 0
    present = 0
    closed = False
    while not closed:
        at, field, follows = _member(buffer, at, keys, seen)
        seen |= 1 << field
        if follows:
            at = _scalar(buffer, at, field, fields_out, degrees_out)
            present |= 1 << field
        if at >= 0:
            at, closed = _next_member(buffer, at)
        if at < 0:
            return DOUBT, 0
    return at, present


@kernel
def _hash(buffer, at, size):
    """Hash a text of 1 to MAX_ID bytes to a uint64 other than 0."""
    end = at + size
    result = np.uint64(size)
    while at < end:
        result = (result ^ (word_at(buffer, at) & PREFIX[min(end - at, 8)])) * _HASH
        result ^= result >> _U29
        at += 8
    return result | np.uint64(1)


@kernel
def _distinct(buffer, lines, first, count, hashes_inout):
    """Tell whether the line ids surely differ; `hashes_inout` is an open-addressed set of at least 2 · MAX_LINES."""
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


@forced_inline
def _slice(present, fields, field):
    """A text's place and size, zeros if it is absent."""
    if present >> field & 1:
        return fields[field, 0], fields[field, 1]
    return 0, 0


@kernel
def _line_array(buffer, at, field, topic, line_row, lines_out, fields_inout, degrees_inout):
    """Read `lines`, or a cancellation's `line_ids`, into rows from `line_row`: (position after them or DOUBT, count)."""
    keys = f.ORDER_LINE if topic == f.ORDERS else f.FULFILMENT_LINE
    needs = f.ORDER_LINE_NEEDS if topic == f.ORDERS else f.FULFILMENT_LINE_NEEDS
    if byte_at(buffer, at) != OPEN_ARRAY:
        return DOUBT, 0
    at = space_end(buffer, at + 1)
    if byte_at(buffer, at) == CLOSE_ARRAY:
        return at + 1, 0
    count = 0
    while True:
        sku_at = sku_size = quantity = flags = np.int64(0)
        id_at, id_size = np.int64(0), np.int64(0)
        if field == _LINES:
            at, present = _leaf_object(buffer, at, keys, fields_inout, degrees_inout)
            quantity = fields_inout[_QUANTITY, 0]
            if present & needs != needs or quantity < 1:
                return DOUBT, 0
            if present & _WHAT == 0:
                return DOUBT, 0
            sku_at, sku_size = _slice(present, fields_inout, _SKU)
            id_at, id_size = _slice(present, fields_inout, _LINE_ID)
            if present >> _STOCKED & 1 and fields_inout[_STOCKED, 0] == 0:
                flags = np.int64(UNSTOCKED)
        else:
            at = _scalar(buffer, at, _LINE_ID, fields_inout, degrees_inout)
            id_at, id_size = fields_inout[_LINE_ID, 0], fields_inout[_LINE_ID, 1]
        if at < 0 or count == MAX_LINES:
            return DOUBT, 0
        line = lines_out[line_row + count]
        line.sku_at, line.sku_size, line.quantity, line.flags = sku_at, sku_size, quantity, flags
        line.line_id_at, line.line_id_size = id_at, id_size
        count += 1
        at = space_end(buffer, at)
        byte = byte_at(buffer, at)
        if byte == CLOSE_ARRAY:
            return at + 1, count
        if byte != COMMA:
            return DOUBT, 0
        at = space_end(buffer, at + 1)


@kernel
def _nested(buffer, at, field, topic, line_row, lines_out, fields_inout, degrees_inout, hashes_inout):
    """Read `destination`, `lines` or `line_ids`: (position after it or DOUBT, next free line row)."""
    if field == _DESTINATION:
        at, present = _leaf_object(buffer, at, np.int64(f.DESTINATION), fields_inout, degrees_inout)
        return at if present & f.DESTINATION_NEEDS == f.DESTINATION_NEEDS else DOUBT, line_row
    at, count = _line_array(buffer, at, field, topic, line_row, lines_out, fields_inout, degrees_inout)
    checked = field == _LINES and topic == f.ORDERS and at >= 0
    if checked and not (count > 0 and _distinct(buffer, lines_out, line_row, count, hashes_inout)):
        at = DOUBT
    fields_inout[field, 0] = line_row
    fields_inout[field, 1] = count
    return at, line_row + count


@kernel
def _record(buffer, at, end, topic, line_row, lines_out, fields_out, degrees_out, hashes_inout):
    """Read a record's object: (mask of the fields that are there, -1 = doubtful; next free line row)."""
    keys = f.KNOWN[topic]
    at = space_end(buffer, at)
    if byte_at(buffer, at) != OPEN_OBJECT:
        return DOUBT, line_row
    at = space_end(buffer, at + 1)
    seen = 0
    present = 0
    closed = False
    while not closed:
        at, field, follows = _member(buffer, at, keys, seen)
        seen |= 1 << field
        if follows and field < _DESTINATION:
            at = _scalar(buffer, at, field, fields_out, degrees_out)
        elif follows:
            at, line_row = _nested(buffer, at, field, topic, line_row, lines_out, fields_out, degrees_out, hashes_inout)
        present |= follows << field
        if at >= 0:
            at, closed = _next_member(buffer, at)
        if at < 0:
            return DOUBT, line_row
    return present if space_end(buffer, at) == end else DOUBT, line_row


@kernel
def _kind(present, fields, topic):
    """The kind of a record that has all that its kind requires, 0 = doubtful."""
    if topic == f.TICKS:
        kind = np.int64(_TICK)
    elif present >> _KIND & 1 and fields[_KIND, 0] < f.KIND_COUNT:
        kind = fields[_KIND, 0]
    else:
        return 0
    return kind if f.TOPIC_OF[kind] == topic and present & f.NEEDS[kind] == f.NEEDS[kind] else 0


@kernel
def _order_flags(present, fields):
    """The flags of a placed or held order, DOUBT if its place is missing or a choice unknown."""
    flags = HAS_LINES
    if not present >> _ALLOW_SPLIT & 1 or fields[_ALLOW_SPLIT, 0]:
        flags |= ALLOW_SPLIT
    if not present >> _ALLOW_PARTIAL & 1 or fields[_ALLOW_PARTIAL, 0]:
        flags |= ALLOW_PARTIAL
    level = fields[_SERVICE_LEVEL, 0] if present >> _SERVICE_LEVEL & 1 else f.STANDARD
    mode = fields[_MODE, 0] if present >> _MODE & 1 else f.DELIVERY
    if level == f.URGENT_LEVEL:
        flags |= URGENT
    elif level != f.STANDARD:
        return DOUBT
    if mode == f.PICKUP_MODE:
        return flags | PICKUP if present >> _PICKUP_LOCATION_ID & 1 else DOUBT
    return flags if mode == f.DELIVERY and present >> _DESTINATION & 1 else DOUBT


@kernel
def _fill_event(event_out, topic, present, fields, degrees):
    """Check a record's fields by its kind and write its row; whether it was surely good."""
    kind = _kind(present, fields, topic)
    if kind == 0:
        return False
    flags = 0
    if topic in (f.SALES, f.STOCK):
        quantity = fields[_QUANTITY, 0]
        if quantity < f.LEAST[kind] or (kind == _ADJUSTMENT and quantity == 0):
            return False
        event_out.quantity = quantity
    elif kind in (_PLACED, _HELD):
        flags = _order_flags(present, fields)
        if flags < 0:
            return False
        if flags & PICKUP == 0:
            present &= ~(1 << _PICKUP_LOCATION_ID)
            event_out.latitude = degrees[0]
            event_out.longitude = degrees[1]
    if kind == _CHANGED or (kind == _CANCELLED and present >> _LINES & 1):
        return False  # seldom: the models read them
    given = _LINE_IDS if kind == _CANCELLED else _LINES
    if kind == _CANCELLED and present >> given & 1 and fields[given, 1] == 0:
        return False
    if kind != _RETURNED and present >> _MISSING & 1 and fields[_MISSING, 0]:
        flags |= MISSING
    if present >> given & 1:
        flags |= HAS_LINES
        event_out.first_line = fields[given, 0]
        event_out.line_count = fields[given, 1]
    if topic != f.TICKS:
        event_out.event_time = fields[_EVENT_TIME, 0]
    time = f.TIME_OF[kind]
    if present >> time & 1:
        event_out.time = fields[time, 0]
    elif kind == _COUNT:
        event_out.time = fields[_EVENT_TIME, 0]
    texts = f.TEXT_OF[kind]
    event_out.event_id_at, event_out.event_id_size = _slice(present, fields, texts[0])
    event_out.location_at, event_out.location_size = _slice(present, fields, texts[1])
    event_out.sku_at, event_out.sku_size = _slice(present, fields, texts[2])
    event_out.reference_at, event_out.reference_size = _slice(present, fields, texts[3])
    event_out.shipment_at, event_out.shipment_size = _slice(present, fields, texts[4])
    event_out.target_at, event_out.target_size = _slice(present, fields, texts[5])
    event_out.flags = flags
    event_out.kind = kind
    return True


@kernel
def _fill_click(click_out, present, fields, degrees):
    """Write a click's row, if it is surely good."""
    kind = _kind(present, fields, np.int64(f.CLICKS))
    if kind == 0:
        return
    click_out.event_time = fields[_EVENT_TIME, 0]
    click_out.latitude = degrees[0] if present >> _LATITUDE & 1 else np.nan
    click_out.longitude = degrees[1] if present >> _LONGITUDE & 1 else np.nan
    click_out.event_id_at, click_out.event_id_size = _slice(present, fields, _CLICK_TEXTS[0])
    click_out.visitor_at, click_out.visitor_size = _slice(present, fields, _CLICK_TEXTS[1])
    click_out.sku_at, click_out.sku_size = _slice(present, fields, _CLICK_TEXTS[2])
    click_out.pool_at, click_out.pool_size = _slice(present, fields, _CLICK_TEXTS[3])
    click_out.customer_at, click_out.customer_size = _slice(present, fields, _CLICK_TEXTS[4])
    click_out.channel_at, click_out.channel_size = _slice(present, fields, _CLICK_TEXTS[5])
    click_out.campaign_at, click_out.campaign_size = _slice(present, fields, _CLICK_TEXTS[6])
    click_out.kind = kind


def workspace() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a scan works in: a record's fields by code (place and size, or value), its coordinates, its line ids' hashes."""
    return np.zeros((len(f.FIELDS), 2), np.int64), np.zeros(2, np.float64), np.zeros(4 * MAX_LINES, np.uint64)


@kernel
def scan_events(buffer, starts, ends, events_inout, lines_out, fields, degrees, hashes):
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
    fields, degrees, hashes : arrays
        Room to work in: `workspace()`.

    Returns
    -------
    int
        Rows of `lines_out` in use.
    """
    line_row = np.int64(0)
    for row in range(len(starts)):
        topic = np.int64(events_inout[row].topic)
        present, next_row = _record(buffer, starts[row], ends[row], topic, line_row, lines_out, fields, degrees, hashes)
        if present >= 0 and _fill_event(events_inout[row], topic, present, fields, degrees):
            line_row = next_row
    return line_row


@kernel
def scan_clicks(buffer, starts, ends, clicks_inout, lines_out, fields, degrees, hashes):
    """Read the surely good clicks of a batch; as `scan_events`, with CLICK rows and no lines (LINE[0])."""
    # As int64, or numba would compile the scanner again for these literals.
    topic, line_row = np.int64(f.CLICKS), np.int64(0)
    for row in range(len(starts)):
        present, _ = _record(buffer, starts[row], ends[row], topic, line_row, lines_out, fields, degrees, hashes)
        if present >= 0:
            _fill_click(clicks_inout[row], present, fields, degrees)
