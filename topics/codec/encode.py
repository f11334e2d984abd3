"""Columns to records: decisions, cells and dead letters as the JSON of the contract.

Owner: the pipelines. The kernels write keys and values one after the other into one buffer, without the GIL; `Messages` says
where each is, and librdkafka takes them from there (streams/kafka/librdkafka.py).
Invariants: every value is what its output model (topics/events.py) reads back; texts are escaped; the same columns give
the same bytes.
Not here: where records go (streams/), the tables' schemas (topics/columns.py, state/columns.py).
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum

import numpy as np
import orjson
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from topics.compiled.kernels import forced_inline, kernel
from topics.events import MAX_ID
from topics.reasons import DeadLetter, Lost, ShipmentKind, Status, Unallocated, Won

POLICY = "nearest"
POLICY_VERSION = 1


@intrinsic
def _copy(typing_context, out, at, source, source_at, size):
    """Copy `size` bytes between uint8 arrays."""

    def build(context, builder, signature, arguments):
        target, source = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 2))
        target, source = builder.gep(target, [arguments[1]]), builder.gep(source, [arguments[3]])
        cgutils.raw_memcpy(builder, target, source, arguments[4], 1)
        return context.get_dummy_value()

    return types.none(out, types.int64, source, types.int64, types.int64), build


def _text(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def _words(codes: type[IntEnum]) -> tuple[np.ndarray, np.ndarray]:
    """The quoted wire names of a closed list: (uint8[codes, longest], their sizes)."""
    words = {code.value: _text(f'"{code.wire}"') for code in codes}
    texts = np.zeros((max(words) + 1, max(map(len, words.values()))), np.uint8)
    sizes = np.zeros(max(words) + 1, np.int64)
    for code, word in words.items():
        texts[code, : len(word)] = word
        sizes[code] = len(word)
    return texts, sizes


_STATUS, _STATUS_SIZE = _words(Status)
_SHIPMENT, _SHIPMENT_SIZE = _words(ShipmentKind)
_UNALLOCATED, _UNALLOCATED_SIZE = _words(Unallocated)
_WON, _WON_SIZE = _words(Won)
_LOST, _LOST_SIZE = _words(Lost)

_QUOTE, _BACKSLASH, _COMMA, _CLOSE, _SLASH, _MINUS, _POINT, _ZERO = b'"\\,}/-.0'

_ALLOCATION_ID = _text('{"allocation_id":"')
_SEQUENCE = _text('","sequence":')
_ORDER_ID = _text(',"order_id":"')
_SHIPMENTS = _text(',"shipments":[')
_SHIPMENT_ID = _text('{"shipment_id":"')
_LOCATION_ID = _text('","location_id":"')
_KIND = _text('","kind":')
_DISTANCE = _text(',"distance_km":')
_LINES = _text(',"lines":[')
_LINE_ID = _text('{"line_id":"')
_SKU = _text('","sku":"')
_QUANTITY = _text('","quantity":')
_LINES_END = _text("]}")
_REASON = _text(',"reason":')
_UNALLOCATED_LINES = _text('],"unallocated":[')
_DECIDED_AT = _text(f'],"policy":"{POLICY}","decided_at":')
_SOURCE = _text(',"source":{"topic":')
_PARTITION = _text(',"partition":')
_OFFSET = _text(',"offset":')
_CONSIDERED = _text(f'}},"explanation":{{"policy":"{POLICY}","version":{POLICY_VERSION},"considered":')
_WON_BY = _text(',"won":')
_LOSERS = _text(',"lost":[')
_LOSER = _text('{"location_id":"')
_LOSER_DISTANCE = _text('","distance_km":')
_END = _text("]}}")
_ON_HAND = _text('","on_hand":')
_RESERVED = _text(',"reserved":')
_SAFETY_STOCK = _text(',"safety_stock":')
_AVAILABLE = _text(',"available":')
_VERSION = _text(',"version":')
_UPDATED_AT = _text(',"updated_at":')

_USUAL_DECISION = 768  # bytes, key and value
_USUAL_CELL = 256
# Room that surely suffices: a text of MAX_ID characters takes at most 4 bytes a character, escaped or not.
_TEXT_ROOM = 4 * MAX_ID
_DECISION_ROOM = 1024 + 2 * _TEXT_ROOM
_SHIPMENT_ROOM = 256 + _TEXT_ROOM
_LINE_ROOM = 128 + 2 * _TEXT_ROOM
_LOSER_ROOM = 128 + _TEXT_ROOM
_CELL_ROOM = 512 + 4 * _TEXT_ROOM


@forced_inline
def _put(out, at, text):
    _copy(out, at, text, 0, len(text))
    return at + len(text)


@forced_inline
def _put_raw(out, at, heap, text_at, size):
    _copy(out, at, heap, text_at, size)
    return at + size


@forced_inline
def _put_escaped(out, at, heap, text_at, size):
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
def _put_word(out, at, words, sizes, code):
    size = sizes[code]
    for i in range(size):
        out[at + i] = words[code, i]
    return at + size


@forced_inline
def _put_integer(out, at, value):
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


@kernel
def _put_km(out, at, metres):
    """Write metres as kilometres with one to three decimals."""
    at = _put_integer(out, at, metres // 1000)
    rest = metres % 1000
    out[at] = _POINT
    out[at + 1] = _ZERO + rest // 100
    out[at + 2] = _ZERO + rest // 10 % 10
    out[at + 3] = _ZERO + rest % 10
    if rest % 10:
        return at + 4
    return at + 3 if rest % 100 else at + 2


@kernel
def _put_line(out, at, line, heap, skus):
    """Write a line of a decision but for its closing brace."""
    at = _put(out, at, _LINE_ID)
    at = _put_escaped(out, at, heap, line.line_id_at, line.line_id_size)
    at = _put(out, at, _SKU)
    at = _put_escaped(out, at, heap, skus[line.sku].id_at, skus[line.sku].id_size)
    at = _put(out, at, _QUANTITY)
    return _put_integer(out, at, np.int64(line.quantity))


@kernel
def _put_shipment(out, at, shipment, lines, heap, skus, locations, tag):
    at = _put(out, at, _SHIPMENT_ID)
    at = _put(out, at, tag)
    out[at] = _MINUS
    at = _put_integer(out, at + 1, shipment.sequence)
    out[at] = _MINUS
    at = _put_integer(out, at + 1, np.int64(shipment.number))
    at = _put(out, at, _LOCATION_ID)
    location = locations[shipment.location]
    at = _put_escaped(out, at, heap, location.id_at, location.id_size)
    at = _put(out, at, _KIND)
    at = _put_word(out, at, _SHIPMENT, _SHIPMENT_SIZE, shipment.kind)
    at = _put(out, at, _DISTANCE)
    at = _put_km(out, at, np.int64(shipment.distance_m))
    at = _put(out, at, _LINES)
    for row in range(shipment.first_line, shipment.first_line + shipment.line_count):
        at = _put_line(out, at, lines[row], heap, skus)
        out[at] = _CLOSE
        out[at + 1] = _COMMA
        at += 2
    at -= shipment.line_count > 0
    return _put(out, at, _LINES_END)


@kernel
def _put_loser(out, at, loser, heap, locations):
    at = _put(out, at, _LOSER)
    location = locations[loser.location]
    at = _put_escaped(out, at, heap, location.id_at, location.id_size)
    at = _put(out, at, _LOSER_DISTANCE)
    at = _put_km(out, at, np.int64(loser.distance_m))
    at = _put(out, at, _REASON)
    return _put_word(out, at, _LOST, _LOST_SIZE, loser.reason)


@kernel
def _decision_room(decision, shipments):
    room = _DECISION_ROOM + decision.shipment_count * _SHIPMENT_ROOM
    room += decision.unallocated_count * _LINE_ROOM + decision.loser_count * _LOSER_ROOM
    for row in range(decision.first_shipment, decision.first_shipment + decision.shipment_count):
        room += shipments[row].line_count * _LINE_ROOM
    return room


@kernel
def _allocations_kernel(
    first,
    at,
    out,
    spans_out,
    decisions,
    shipments,
    lines,
    losers,
    heap,
    skus,
    locations,
    events,
    partitions,
    topics,
    topic_ends,
    pool,
    tag,
):
    """Write keys and values from decision `first` on into `out` from `at`, as long as there surely is room.

    `spans_out` (int64[n, 3]) gets the places of a key, of its value, and of the end. Returns the next decision and place.
    """
    for number in range(first, len(decisions)):
        decision = decisions[number]
        if at + _decision_room(decision, shipments) + len(pool) + len(topics) > len(out):
            return number, at
        spans_out[number, 0] = at
        at = _put_raw(out, at, heap, decision.order_id_at, decision.order_id_size)
        spans_out[number, 1] = at
        at = _put(out, at, _ALLOCATION_ID)
        at = _put(out, at, tag)
        out[at] = _MINUS
        at = _put_integer(out, at + 1, decision.sequence)
        at = _put(out, at, _SEQUENCE)
        at = _put_integer(out, at, decision.sequence)
        at = _put(out, at, _ORDER_ID)
        at = _put_escaped(out, at, heap, decision.order_id_at, decision.order_id_size)
        at = _put(out, at, pool)
        at = _put_word(out, at, _STATUS, _STATUS_SIZE, decision.status)
        at = _put(out, at, _SHIPMENTS)
        for row in range(decision.first_shipment, decision.first_shipment + decision.shipment_count):
            at = _put_shipment(out, at, shipments[row], lines, heap, skus, locations, tag)
            out[at] = _COMMA
            at += 1
        at -= decision.shipment_count > 0
        at = _put(out, at, _UNALLOCATED_LINES)
        for row in range(decision.first_unallocated, decision.first_unallocated + decision.unallocated_count):
            at = _put_line(out, at, lines[row], heap, skus)
            at = _put(out, at, _REASON)
            at = _put_word(out, at, _UNALLOCATED, _UNALLOCATED_SIZE, lines[row].reason)
            out[at] = _CLOSE
            out[at + 1] = _COMMA
            at += 2
        at -= decision.unallocated_count > 0
        at = _put(out, at, _DECIDED_AT)
        at = _put_integer(out, at, decision.decided_at)
        event = events[decision.event]
        at = _put(out, at, _SOURCE)
        topic_at = topic_ends[event.topic]
        at = _put_raw(out, at, topics, topic_at, topic_ends[event.topic + 1] - topic_at)
        at = _put(out, at, _PARTITION)
        at = _put_integer(out, at, np.int64(partitions[decision.event]))
        at = _put(out, at, _OFFSET)
        at = _put_integer(out, at, event.offset)
        at = _put(out, at, _CONSIDERED)
        at = _put_integer(out, at, np.int64(decision.considered))
        at = _put(out, at, _WON_BY)
        at = _put_word(out, at, _WON, _WON_SIZE, decision.won)
        at = _put(out, at, _LOSERS)
        for row in range(decision.first_loser, decision.first_loser + decision.loser_count):
            at = _put_loser(out, at, losers[row], heap, locations)
            out[at] = _CLOSE
            out[at + 1] = _COMMA
            at += 2
        at -= decision.loser_count > 0
        at = _put(out, at, _END)
        spans_out[number, 2] = at
    return len(decisions), at


@kernel
def _inventory_kernel(first, at, out, spans_out, cells, rows, skus, locations, heap, pool):
    """Write keys and values; as `_allocations_kernel`."""
    for number in range(first, len(rows)):
        if at + _CELL_ROOM + len(pool) > len(out):
            return number, at
        cell = cells[rows[number]]
        location = locations[cell.location]
        sku = skus[cell.sku]
        spans_out[number, 0] = at
        at = _put_raw(out, at, heap, location.id_at, location.id_size)
        out[at] = _SLASH
        at = _put_raw(out, at + 1, heap, sku.id_at, sku.id_size)
        spans_out[number, 1] = at
        at = _put(out, at, pool)
        at = _put_escaped(out, at, heap, location.id_at, location.id_size)
        at = _put(out, at, _SKU)
        at = _put_escaped(out, at, heap, sku.id_at, sku.id_size)
        at = _put(out, at, _ON_HAND)
        at = _put_integer(out, at, np.int64(cell.on_hand))
        at = _put(out, at, _RESERVED)
        at = _put_integer(out, at, np.int64(cell.reserved))
        at = _put(out, at, _SAFETY_STOCK)
        at = _put_integer(out, at, np.int64(cell.safety_stock))
        at = _put(out, at, _AVAILABLE)
        available = np.int64(cell.on_hand) - np.int64(cell.reserved) - np.int64(cell.safety_stock)
        at = _put_integer(out, at, max(0, available))
        at = _put(out, at, _VERSION)
        at = _put_integer(out, at, np.int64(cell.version))
        at = _put(out, at, _UPDATED_AT)
        at = _put_integer(out, at, cell.updated_at)
        out[at] = _CLOSE
        at += 1
        spans_out[number, 2] = at
    return len(rows), at


class Messages:
    """Records to be produced to one topic, in order.

    Attributes
    ----------
    blocks : list of (uint8[], int64[n, 3])
        Buffers, and where in them each message's key begins (-1: it has none), its value begins, and it ends.
    headers : dict of int to list
        Number of a message → its headers, of those that have some.
    """

    __slots__ = ("_count", "blocks", "headers")

    def __init__(self) -> None:
        self.blocks: list[tuple[np.ndarray, np.ndarray]] = []
        self.headers: dict[int, list[tuple[str, bytes]]] = {}
        self._count = 0

    @classmethod
    def of(cls, messages: Sequence[dict]) -> "Messages":
        """Make them of dicts with `key` (or None), `value` and, maybe, `headers`."""
        made, parts, spans, at = cls(), [], [], 0
        for number, message in enumerate(messages):
            key, value = message.get("key"), message["value"]
            value_at = at + len(key or b"")
            spans.append((-1 if key is None else at, value_at, value_at + len(value)))
            parts += [key or b"", value]
            at = spans[-1][2]
            if message.get("headers"):
                made.headers[number] = message["headers"]
        made.add(np.frombuffer(b"".join(parts), np.uint8), np.array(spans, np.int64).reshape(len(spans), 3))
        return made

    def add(self, buffer: np.ndarray, spans: np.ndarray) -> None:
        """Append a block."""
        if len(spans):
            self.blocks.append((buffer, spans))
            self._count += len(spans)

    def extend(self, others: "Messages") -> None:
        """Append others."""
        self.headers |= {self._count + number: headers for number, headers in others.headers.items()}
        self.blocks += others.blocks
        self._count += len(others)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict]:
        """Give each as `Producer.produce` takes it."""
        number = 0
        for buffer, spans in self.blocks:
            content = buffer.tobytes()
            for key, value, end in spans.tolist():
                message = {"key": None if key < 0 else content[key:value], "value": content[value:end]}
                if number in self.headers:
                    message["headers"] = self.headers[number]
                yield message
                number += 1


def _messages(write: Callable, count: int, usual_bytes: int, *columns) -> Messages:
    """Let a kernel write `count` records, in a buffer that grows as it asks."""
    out = np.empty(usual_bytes * (count + 1), np.uint8)
    spans = np.empty((count, 3), np.int64)
    done, at = write(0, 0, out, spans, *columns)
    while done < count:
        out = np.concatenate([out[:at], np.empty(len(out) + _DECISION_ROOM, np.uint8)])
        done, at = write(done, at, out, spans, *columns)
    messages = Messages()
    messages.add(out[:at], spans)
    return messages


def encode_allocations(
    decisions: np.ndarray,
    shipments: np.ndarray,
    lines: np.ndarray,
    losers: np.ndarray,
    *,
    heap: np.ndarray,
    skus: np.ndarray,
    locations: np.ndarray,
    events: np.ndarray,
    partitions: np.ndarray,
    topic_names: Sequence[str],
    pool_id: bytes,
    tag: bytes,
) -> Messages:
    """Write decisions as records of `allocations.v1`.

    Parameters
    ----------
    decisions, shipments, lines, losers : DECISION[n], DECISION_SHIPMENT[], DECISION_LINE[], LOSER[]
        The decisions and what belongs to them (topics/columns.py).
    heap : uint8[]
        The pool's texts.
    skus, locations : SKU[], LOCATION[]
        The pool's tables (state/columns.py); `id_at` and `id_size` are read.
    events : EVENT[]
        The events that caused the decisions; `topic` and `offset` are read.
    partitions : int32[len(events)]
        Each event's partition.
    topic_names : sequence of str
        What `topic` leads into.
    pool_id, tag : bytes
        The pool's id, and what its allocations' and shipments' ids begin with (ASCII).

    Returns
    -------
    Messages
        For each decision, in order; key: the order's id.
    """
    names = [orjson.dumps(name) for name in topic_names]
    ends = np.cumsum([0, *map(len, names)])
    return _messages(
        _allocations_kernel,
        len(decisions),
        _USUAL_DECISION,
        decisions,
        shipments,
        lines,
        losers,
        heap,
        skus,
        locations,
        events,
        partitions,
        np.frombuffer(b"".join(names), np.uint8),
        ends,
        np.frombuffer(b'","pool_id":' + orjson.dumps(pool_id.decode()) + b',"status":', np.uint8),
        np.frombuffer(tag, np.uint8),
    )


def encode_inventory(
    cells: np.ndarray, rows: np.ndarray, *, skus: np.ndarray, locations: np.ndarray, heap: np.ndarray, pool_id: bytes
) -> Messages:
    """Write cells as records of `inventory.v1`.

    Parameters
    ----------
    cells, skus, locations : CELL[], SKU[], LOCATION[]
        The pool's tables (state/columns.py).
    rows : int32[n]
        The cells to write.
    heap : uint8[]
        The pool's texts.
    pool_id : bytes
        The pool's id.

    Returns
    -------
    Messages
        For each row, in order; key: location_id/sku.
    """
    pool = np.frombuffer(b'{"pool_id":' + orjson.dumps(pool_id.decode()) + b',"location_id":"', np.uint8)
    return _messages(_inventory_kernel, len(rows), _USUAL_CELL, cells, rows, skus, locations, heap, pool)


def encode_dead_letter(
    topic: str,
    partition: int,
    offset: int,
    timestamp: int,
    key: bytes | None,
    value: bytes | None,
    reason: DeadLetter,
    detail: str,
) -> dict:
    """Write a refused record, whole, as a record of `dead-letter.v1`; `timestamp` is its own, epoch ms.

    Examples
    --------
    >>> message = encode_dead_letter("sales.v1", 0, 7, 9, b"uk", b"?", DeadLetter.NOT_JSON, "value: expected ...")
    >>> message["key"], orjson.loads(message["value"])["value"]
    (b'uk', 'Pw==')
    """
    letter = {
        "topic": topic,
        "partition": int(partition),
        "offset": int(offset),
        "timestamp": int(timestamp),
        "reason": DeadLetter(reason).wire,
        "detail": detail,
        "key": None if key is None else b64encode(key).decode(),
        "value": None if value is None else b64encode(value).decode(),
    }
    return {"key": key, "value": orjson.dumps(letter)}
