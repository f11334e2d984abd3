"""Columns to records: decisions, cells, supplies, alerts and dead letters as the JSON of the contract.

Owner: the pipelines. The kernels write keys and values one after the other into one buffer, without the GIL; `Messages` says
where each is, and librdkafka takes them from there (streams/kafka/librdkafka.py).
Invariants: every value is what its output model (topics/events.py) reads back; texts are escaped; the same columns give
the same bytes.
Not here: where records go (streams/), the tables' schemas (topics/columns.py, state/columns.py).
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from topics.codec.messages import Messages
from topics.codec.put import put, put_km, put_number, put_part, put_raw, put_text, put_word, words_of
from topics.compiled.kernels import kernel
from topics.events import MAX_ID
from topics.keys import compound_key
from topics.reasons import (
    AlertKind,
    AlertStatus,
    DeadLetter,
    Kind,
    Lost,
    ShipmentKind,
    Status,
    TransferStatus,
    Unallocated,
    Won,
)

_STATUS, _STATUS_SIZE = words_of(Status)
_SHIPMENT, _SHIPMENT_SIZE = words_of(ShipmentKind)
_UNALLOCATED, _UNALLOCATED_SIZE = words_of(Unallocated)
_WON, _WON_SIZE = words_of(Won)
_LOST, _LOST_SIZE = words_of(Lost)
_TRANSFER, _TRANSFER_SIZE = words_of(TransferStatus)
_ALERT, _ALERT_SIZE = words_of(AlertStatus)
_LATE_MOVEMENT = AlertKind.LATE_MOVEMENT.value
OF_ORDERS = [kind.value for kind in Kind if kind is Kind.SALE or Kind.PLACED <= kind <= Kind.RETURNED]
"""Kinds of events whose reference is an order's id."""
_MINUTE_MS = 60_000
_OVERDUE_BIT = 1 << AlertKind.TRANSFER_OVERDUE.value

_USUAL_DECISION = 768  # bytes, key and value
_USUAL_CELL = 256
_USUAL_ALERT = 640
# Room that surely suffices: a text of MAX_ID characters takes at most 4 bytes a character, escaped or not.
_TEXT_ROOM = 4 * MAX_ID
_DECISION_ROOM = 1024 + 2 * _TEXT_ROOM
_SHIPMENT_ROOM = 256 + _TEXT_ROOM
_LINE_ROOM = 128 + 2 * _TEXT_ROOM
_PART_ROOM = 64 + _TEXT_ROOM
_LOSER_ROOM = 128 + _TEXT_ROOM
_CELL_ROOM = 512 + 4 * _TEXT_ROOM
_ALERT_ROOM = 512 + 13 * _TEXT_ROOM
_SUPPLY_ROOM = 512 + 7 * _TEXT_ROOM


@kernel
def _put_parts(out, at, line, heap, skus, pieces):
    """Write the parts of a kit's line, each with its units for the whole line."""
    at = put(out, at, b',"parts":[')
    row = line.kit
    while row >= 0:
        piece = pieces[row]
        sku = skus[piece.sku]
        at = put_text(out, at, b'{"sku":"', heap, sku.id_at, sku.id_size)
        at = put_number(out, at, b'","quantity":', np.int64(line.quantity) * piece.quantity)
        at = put(out, at, b"},")
        row = piece.next
    return put(out, at - 1, b"]")


@kernel
def _put_line(out, at, line, heap, skus, pieces):
    """Write a line of a decision but for its closing brace."""
    sku = skus[line.sku]
    at = put_text(out, at, b'{"line_id":"', heap, line.line_id_at, line.line_id_size)
    at = put_text(out, at, b'","sku":"', heap, sku.id_at, sku.id_size)
    at = put_number(out, at, b'","quantity":', line.quantity)
    return at if line.kit < 0 else _put_parts(out, at, line, heap, skus, pieces)


@kernel
def _put_shipment(out, at, shipment, lines, heap, skus, locations, pieces, tag):
    at = put(out, put(out, at, b'{"shipment_id":"'), tag)
    at = put_number(out, at, b"-", shipment.sequence)
    at = put_number(out, at, b"-", shipment.number)
    location = locations[shipment.location]
    at = put_text(out, at, b'","location_id":"', heap, location.id_at, location.id_size)
    at = put_word(out, put(out, at, b'","kind":'), _SHIPMENT, _SHIPMENT_SIZE, shipment.kind)
    at = put_km(out, put(out, at, b',"distance_km":'), np.int64(shipment.distance_m))
    at = put(out, at, b',"lines":[')
    for row in range(shipment.first_line, shipment.first_line + shipment.line_count):
        at = put(out, _put_line(out, at, lines[row], heap, skus, pieces), b"},")
    at -= shipment.line_count > 0
    return put(out, at, b"]}")


@kernel
def _put_loser(out, at, loser, heap, locations):
    location = locations[loser.location]
    at = put_text(out, at, b'{"location_id":"', heap, location.id_at, location.id_size)
    at = put_km(out, put(out, at, b'","distance_km":'), np.int64(loser.distance_m))
    return put_word(out, put(out, at, b',"reason":'), _LOST, _LOST_SIZE, loser.reason)


@kernel
def _put_one(out, at, texts, ends, number):
    """Write one of several texts that lie behind one another; text i is `texts[ends[i]:ends[i + 1]]`."""
    return put_raw(out, at, texts, ends[number], ends[number + 1] - ends[number])


@kernel
def _decision_room(decision, shipments, line_room):
    room = _DECISION_ROOM + decision.shipment_count * _SHIPMENT_ROOM
    room += decision.unallocated_count * line_room + decision.loser_count * _LOSER_ROOM
    for row in range(decision.first_shipment, decision.first_shipment + decision.shipment_count):
        room += shipments[row].line_count * line_room
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
    pieces,
    line_room,
    events,
    partitions,
    topics,
    topic_ends,
    policies,
    policy_ends,
    pool,
    tag,
):
    """Write keys and values from decision `first` on into `out` from `at`, as long as there surely is room.

    `spans_out` (int64[n, 3]) gets the places of a key, of its value, and of the end. Returns the next decision and place.
    """
    for number in range(first, len(decisions)):
        decision = decisions[number]
        if at + _decision_room(decision, shipments, line_room) + len(pool) + len(topics) + 2 * len(policies) > len(out):
            return number, at
        spans_out[number, 0] = at
        at = put_raw(out, at, heap, decision.order_id_at, decision.order_id_size)
        spans_out[number, 1] = at
        at = put(out, put(out, at, b'{"allocation_id":"'), tag)
        at = put_number(out, at, b"-", decision.sequence)
        at = put_number(out, at, b'","sequence":', decision.sequence)
        at = put_text(out, at, b',"order_id":"', heap, decision.order_id_at, decision.order_id_size)
        at = put_word(out, put(out, at, pool), _STATUS, _STATUS_SIZE, decision.status)
        at = put(out, at, b',"shipments":[')
        for row in range(decision.first_shipment, decision.first_shipment + decision.shipment_count):
            at = put(out, _put_shipment(out, at, shipments[row], lines, heap, skus, locations, pieces, tag), b",")
        at -= decision.shipment_count > 0
        at = put(out, at, b'],"unallocated":[')
        for row in range(decision.first_unallocated, decision.first_unallocated + decision.unallocated_count):
            at = put(out, _put_line(out, at, lines[row], heap, skus, pieces), b',"reason":')
            at = put(out, put_word(out, at, _UNALLOCATED, _UNALLOCATED_SIZE, lines[row].reason), b"},")
        at -= decision.unallocated_count > 0
        at = _put_one(out, put(out, at, b'],"policy":'), policies, policy_ends, 2 * decision.policy)
        at = put_number(out, at, b',"decided_at":', decision.decided_at)
        event = events[decision.event]
        at = _put_one(out, put(out, at, b',"source":{"topic":'), topics, topic_ends, event.topic)
        at = put_number(out, at, b',"partition":', partitions[decision.event])
        at = put_number(out, at, b',"offset":', event.offset)
        at = _put_one(out, put(out, at, b'},"explanation":{"policy":'), policies, policy_ends, 2 * decision.policy)
        at = _put_one(out, at, policies, policy_ends, 2 * decision.policy + 1)
        at = put_number(out, at, b',"considered":', decision.considered)
        at = put_word(out, put(out, at, b',"won":'), _WON, _WON_SIZE, decision.won)
        at = put(out, at, b',"lost":[')
        for row in range(decision.first_loser, decision.first_loser + decision.loser_count):
            at = put(out, _put_loser(out, at, losers[row], heap, locations), b"},")
        at -= decision.loser_count > 0
        at = put(out, at, b"]}}")
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
        at = put(out, put_part(out, at, heap, location.id_at, location.id_size), b"/")
        at = put_part(out, at, heap, sku.id_at, sku.id_size)
        spans_out[number, 1] = at
        at = put_text(out, at, pool, heap, location.id_at, location.id_size)
        at = put_text(out, at, b'","sku":"', heap, sku.id_at, sku.id_size)
        at = put_number(out, at, b'","on_hand":', cell.on_hand)
        at = put_number(out, at, b',"reserved":', cell.reserved)
        at = put_number(out, at, b',"safety_stock":', cell.safety_stock)
        available = np.int64(cell.on_hand) - np.int64(cell.reserved) - np.int64(cell.safety_stock)
        at = put_number(out, at, b',"available":', max(0, available))
        at = put_number(out, at, b',"version":', cell.version)
        at = put_number(out, at, b',"updated_at":', cell.updated_at)
        at = put(out, at, b"}")
        spans_out[number, 2] = at
    return len(rows), at


@kernel
def _put_supply_key(out, at, supply, skus, heap, pool_part):
    at = put_part(out, put(out, at, pool_part), heap, supply.id_at, supply.id_size)
    sku = skus[supply.sku]
    return put_part(out, put(out, at, b"/"), heap, sku.id_at, sku.id_size)


@kernel
def _put_location(out, at, name, row, locations, heap):
    """Write what stands before a location's id, and the id; -1 = null."""
    at = put(out, at, name)
    if row < 0:
        return put(out, at, b"null")
    location = locations[row]
    at = put_text(out, at, b'"', heap, location.id_at, location.id_size)
    return put(out, at, b'"')


@kernel
def _put_time(out, at, name, time):
    """Write what stands before a time, and the time; -1 = null."""
    return put(out, put(out, at, name), b"null") if time < 0 else put_number(out, at, name, time)


@kernel
def _transfer_status(supply):
    if supply.quantity == 0:
        return TransferStatus.RECEIVED.value
    if supply.quantity < 0:
        return TransferStatus.EXCESS.value
    return TransferStatus.OVERDUE.value if supply.alerts & _OVERDUE_BIT else TransferStatus.OPEN.value


@kernel
def _put_transfer(out, at, supply, locations, skus, heap, transfer_ms):
    """Write what a transfer's value says behind its id."""
    sku = skus[supply.sku]
    at = _put_location(out, at, b'","from":', supply.origin, locations, heap)
    at = _put_location(out, at, b',"to":', supply.location, locations, heap)
    at = put_text(out, at, b',"sku":"', heap, sku.id_at, sku.id_size)
    at = put_number(out, at, b'","sent":', supply.received + supply.quantity)
    at = put_number(out, at, b',"received":', supply.received)
    at = put_number(out, at, b',"open":', max(0, supply.quantity))
    at = _put_time(out, at, b',"sent_at":', supply.sent_at)
    at = _put_time(out, at, b',"expected_at":', supply.sent_at if supply.sent_at < 0 else supply.sent_at + transfer_ms)
    return put_word(out, put(out, at, b',"status":'), _TRANSFER, _TRANSFER_SIZE, _transfer_status(supply))


@kernel
def _put_supply(out, at, supply, locations, skus, heap):
    """Write what a supply's value says behind its id."""
    sku = skus[supply.sku]
    at = _put_location(out, at, b'","location_id":', supply.location, locations, heap)
    at = put_text(out, at, b',"sku":"', heap, sku.id_at, sku.id_size)
    at = put_number(out, at, b'","quantity":', supply.quantity)
    return put_number(out, at, b',"expected_at":', supply.expected_at)


@kernel
def _supplies_kernel(first, at, out, spans_out, supplies, rows, gone, skus, locations, heap, pool_part, pool, transfer_ms):
    """Write keys and values, of transfers, or of supplies (`transfer_ms` -1); as `_allocations_kernel`."""
    for number in range(first, len(rows)):
        if at + _SUPPLY_ROOM + len(pool_part) + len(pool) > len(out):
            return number, at
        supply = supplies[rows[number]]
        spans_out[number, 0] = at
        at = _put_supply_key(out, at, supply, skus, heap, pool_part)
        spans_out[number, 1] = -1
        if not gone[number]:
            spans_out[number, 1] = at
            at = put_text(out, at, pool, heap, supply.id_at, supply.id_size)
            if transfer_ms >= 0:
                at = _put_transfer(out, at, supply, locations, skus, heap, transfer_ms)
            else:
                at = _put_supply(out, at, supply, locations, skus, heap)
            at = put(out, put_number(out, at, b',"updated_at":', supply.updated_at), b"}")
        spans_out[number, 2] = at
    return len(rows), at


@kernel
def _put_id(out, at, name, heap, text_at, size):
    """Write what stands before an id, and the id; without one (size 0), null."""
    at = put(out, at, name)
    return put(out, put_text(out, at, b'"', heap, text_at, size), b'"') if size else put(out, at, b"null")


@kernel
def _alerts_kernel(
    first,
    at,
    out,
    spans_out,
    alerts,
    supplies,
    skus,
    locations,
    heap,
    events,
    of_order,
    partitions,
    buffer,
    topics,
    topic_ends,
    kinds,
    kind_ends,
    pool,
):
    """Write keys and values; as `_allocations_kernel`. Texts 3 × kind on: the key's start, severity, remedy."""
    for number in range(first, len(alerts)):
        if at + _ALERT_ROOM + 2 * len(pool) + len(topics) + len(kinds) > len(out):
            return number, at
        alert = alerts[number]
        location, sku, event = locations[alert.location], skus[alert.sku], events[alert.event]
        key_at = spans_out[number, 0] = at
        at = _put_one(out, at, kinds, kind_ends, 3 * alert.kind)
        of_transfer = alert.supply >= 0
        thing_at, thing_size = location.id_at, location.id_size
        if of_transfer:
            thing_at, thing_size = supplies[alert.supply].id_at, supplies[alert.supply].id_size
        at = put_part(out, at, heap, thing_at, thing_size)
        if alert.kind == _LATE_MOVEMENT:
            at = put_number(out, at, b"/", event.timestamp // _MINUTE_MS)
        else:
            at = put_part(out, put(out, at, b"/"), heap, sku.id_at, sku.id_size)
        spans_out[number, 1] = value_at = at
        at = put_text(out, at, b'{"alert_id":"', out, key_at, value_at - key_at)
        at = _put_one(out, put(out, at, b'"'), kinds, kind_ends, 3 * alert.kind + 1)
        at = put_word(out, put(out, at, b',"status":'), _ALERT, _ALERT_SIZE, alert.status)
        at = put_text(out, put(out, at, pool), b',"location_id":"', heap, location.id_at, location.id_size)
        at = put_text(out, at, b'","sku":"', heap, sku.id_at, sku.id_size)
        order_size = event.reference_size if of_order[number] and not of_transfer else 0
        at = _put_id(out, at, b'","order_id":', buffer, event.reference_at, order_size)
        at = _put_id(out, at, b',"field":null,"transfer_id":', heap, thing_at, thing_size if of_transfer else 0)
        at = put_number(out, at, b',"found":', alert.found)
        at = put_number(out, at, b',"expected":', alert.expected)
        at = put_number(out, at, b',"since":', alert.time)
        at = _put_one(out, put(out, at, b',"source":{"topic":'), topics, topic_ends, event.topic)
        at = put_number(out, at, b',"partition":', partitions[alert.event])
        at = put_number(out, at, b',"offset":', event.offset)
        at = _put_one(out, put(out, at, b'},"remedy":'), kinds, kind_ends, 3 * alert.kind + 2)
        at = put(out, at, b"}")
        spans_out[number, 2] = at
    return len(alerts), at


def _messages(write: Callable, count: int, usual_bytes: int, *columns: Any) -> Messages:
    """Have a kernel write `count` records; while they do not all fit, the buffer is made larger."""
    out = np.empty(usual_bytes * (count + 1), np.uint8)
    spans = np.empty((count, 3), np.int64)
    done, at = write(0, 0, out, spans, *columns)
    while done < count:
        out = np.concatenate([out[:at], np.empty(len(out) + _DECISION_ROOM, np.uint8)])
        done, at = write(done, at, out, spans, *columns)
    messages = Messages()
    messages.add(out[:at], spans)
    return messages


def _joined(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Put texts behind one another, for `_put_one`: uint8[...], int64[texts + 1]."""
    return np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)])


def encode_allocations(
    decisions: np.ndarray,
    shipments: np.ndarray,
    lines: np.ndarray,
    losers: np.ndarray,
    *,
    heap: np.ndarray,
    skus: np.ndarray,
    locations: np.ndarray,
    pieces: np.ndarray,
    most_pieces: int,
    events: np.ndarray,
    partitions: np.ndarray,
    topic_names: Sequence[str],
    policies: Sequence[tuple[str, int]],
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
    pieces : LINE[]
        The pool's table with the parts of kits' lines; `sku`, `quantity` and `next` are read.
    most_pieces : int
        No line has more parts.
    events : EVENT[]
        The events that caused the decisions; `topic` and `offset` are read.
    partitions : int32[len(events)]
        Each event's partition.
    topic_names : sequence of str
        What `topic` leads into.
    policies : sequence of (str, int)
        What a decision's `policy` leads into: a name and a version.
    pool_id, tag : bytes
        The pool's id, and what its allocations' and shipments' ids begin with (ASCII).

    Returns
    -------
    Messages
        For each decision, in order; key: the order's id.
    """
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
        pieces,
        _LINE_ROOM + most_pieces * _PART_ROOM,
        events,
        partitions,
        *_joined([orjson.dumps(name) for name in topic_names]),
        *_joined([part for name, version in policies for part in (orjson.dumps(name), b',"version":%d' % version)]),
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
        For each row, in order; key: location_id/sku (keys.compound_key).
    """
    pool = np.frombuffer(b'{"pool_id":' + orjson.dumps(pool_id.decode()) + b',"location_id":"', np.uint8)
    return _messages(_inventory_kernel, len(rows), _USUAL_CELL, cells, rows, skus, locations, heap, pool)


def encode_transfers(
    supplies: np.ndarray,
    rows: np.ndarray,
    gone: np.ndarray,
    *,
    skus: np.ndarray,
    locations: np.ndarray,
    heap: np.ndarray,
    pool_id: bytes,
    transfer_ms: int,
) -> Messages:
    """Write transfers as records of `transfers.v1`.

    Parameters
    ----------
    supplies, skus, locations : SUPPLY[], SKU[], LOCATION[]
        The pool's tables (state/columns.py).
    rows : int32[n]
        The transfers to write.
    gone : bool[n]
        Those that are dropped: their records have no value.
    heap : uint8[]
        The pool's texts.
    pool_id : bytes
        The pool's id.
    transfer_ms : int
        How long a transfer may take, ms.

    Returns
    -------
    Messages
        For each row, in order; key: pool_id/transfer_id/sku (keys.compound_key).
    """
    columns = (supplies, rows, gone, skus, locations, heap, *_named(pool_id, "transfer_id"), np.int64(transfer_ms))
    return _messages(_supplies_kernel, len(rows), _USUAL_CELL, *columns)


def encode_supplies(
    supplies: np.ndarray,
    rows: np.ndarray,
    gone: np.ndarray,
    *,
    skus: np.ndarray,
    locations: np.ndarray,
    heap: np.ndarray,
    pool_id: bytes,
) -> Messages:
    """Write expected supplies as records of `supplies.v1`; parameters and result as of `encode_transfers`."""
    columns = (supplies, rows, gone, skus, locations, heap, *_named(pool_id, "supply_id"), np.int64(-1))
    return _messages(_supplies_kernel, len(rows), _USUAL_CELL, *columns)


def encode_alerts(
    alerts: np.ndarray,
    *,
    supplies: np.ndarray,
    skus: np.ndarray,
    locations: np.ndarray,
    heap: np.ndarray,
    events: np.ndarray,
    partitions: np.ndarray,
    buffer: np.ndarray,
    topic_names: Sequence[str],
    pool_id: bytes,
) -> Messages:
    """Write what a batch tells of cells and transfers as records of `alerts.v1`.

    Parameters
    ----------
    alerts : ALERT[n]
        The discrepancies (topics/columns.py).
    supplies, skus, locations : SUPPLY[], SKU[], LOCATION[]
        The pool's tables.
    heap : uint8[]
        The pool's texts.
    events : EVENT[]
        The events that caused the alerts.
    partitions : int32[len(events)]
        Each event's partition.
    buffer : uint8[]
        The events' texts.
    topic_names : sequence of str
        What an event's `topic` leads into.
    pool_id : bytes
        The pool's id.

    Returns
    -------
    Messages
        For each alert, in order; key: its id (topics/outputs.py, `Alert`).
    """
    pool = pool_id.decode()
    kinds = {kind.value: (f"{compound_key(kind.wire, pool)}/".encode(), *_kind_texts(kind)) for kind in AlertKind}
    causes = events[alerts["event"]]
    return _messages(
        _alerts_kernel,
        len(alerts),
        _USUAL_ALERT,
        alerts,
        supplies,
        skus,
        locations,
        heap,
        events,
        np.isin(causes["kind"], OF_ORDERS) & (causes["reference_size"] > 0),
        partitions,
        buffer,
        *_joined([orjson.dumps(name) for name in topic_names]),
        *_joined([text for number in range(max(kinds) + 1) for text in kinds.get(number, (b"", b"", b""))]),
        np.frombuffer(b',"pool_id":' + orjson.dumps(pool), np.uint8),
    )


def encode_left_out(
    field: str, topic: str, partition: int, offset: int, order_id: str | None, time: int, pool_id: bytes
) -> dict:
    """Write that a field was left out of an event as a record of `alerts.v1`; `time` is the pool's, epoch ms."""
    kind = AlertKind.FIELD_LEFT_OUT
    alert_id = compound_key(kind.wire, pool_id.decode(), topic, field)
    value = {
        "alert_id": alert_id,
        "kind": kind.wire,
        "severity": kind.severity,
        "status": AlertStatus.RAISED.wire,
        "pool_id": pool_id.decode(),
        "location_id": None,
        "sku": None,
        "order_id": order_id,
        "field": field,
        "transfer_id": None,
        "found": 1,
        "expected": 0,
        "since": time,
        "source": {"topic": topic, "partition": partition, "offset": offset},
        "remedy": kind.sentence,
    }
    return {"key": alert_id.encode(), "value": orjson.dumps(value)}


def _kind_texts(kind: AlertKind) -> tuple[bytes, bytes]:
    told = b',"kind":' + orjson.dumps(kind.wire) + b',"severity":' + orjson.dumps(kind.severity)
    return told, orjson.dumps(kind.sentence)


def _named(pool_id: bytes, reference: str) -> tuple[np.ndarray, np.ndarray]:
    """Write what the keys of a pool's supplies begin with, and what their values begin with."""
    part = f"{compound_key(pool_id.decode())}/".encode()
    value = b'{"pool_id":' + orjson.dumps(pool_id.decode()) + b',"%s":"' % reference.encode()
    return np.frombuffer(part, np.uint8), np.frombuffer(value, np.uint8)


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
