"""Bad records of every kind, each with the reason for which it must be refused, to be mixed into good ones.

Owner: the list of what may be wrong with an input. Keep it complete: a reason of reasons.DeadLetter that can be produced
without a state of its own belongs here.
Invariants: no bad record depends on one of another topic, since no order between topics is promised; SKUs and orders named
here are nobody else's, so good records are decided as if these were not there.
Not here: `count_too_old`, which needs a movement applied longer ago than the horizon by the log's clock, and
`wrong_pool` for a network of one pool.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.record import APPLIED, Record
from topics.events import EARLIEST_MS, MAX_ID, MAX_LINES, MAX_QUANTITY, MAX_TIME, MAX_VALUE_BYTES, LocationRecord
from topics.keys import partition_of
from topics.reasons import DeadLetter

SKU = "BAD-RECORDS-SKU"
TILL = ("channel", "customer_id", "receipt_id", "unit_price", "currency")  # fields that only describe a sale
NOT_JSON = (
    b"",
    b"{",
    b"null",
    b"5",
    b'"sale"',
    b"[]",
    b"{} {}",
    b'1},{"kind":"sale"',
    b'{"kind":"sale",}',
    b"{'kind':'sale'}",
    b'\xef\xbb\xbf{"kind":"sale"}',
    b'\xff\xfe{"kind":"sale"}',
    b'{"kind":"s\xffle"}',
    b'{"kind":"sa\nle"}',
    b'{"kind":"\\ud800"}',
    b"[" * 300,
)


@dataclass(frozen=True, slots=True)
class _Site:
    """Where the bad records are from."""

    pool: str
    location: LocationRecord
    other: LocationRecord
    """Another location of the pool."""
    time: int


def bad_records(locations: Sequence[LocationRecord], now_ms: int, seed: int = 1, partitions: int = 1) -> list[Record]:
    """Make bad records of every kind for a network, and the good ones that some of them need before them.

    Parameters
    ----------
    locations : sequence of LocationRecord
        The network; its first pool's records are made. At least two locations of one pool.
    now_ms : int
        Event time of all, epoch ms.
    seed : int
        Of the order of the records; those that belong together stay in order.
    partitions : int
        Partition count of the inventory topics; from 2 there is a `wrong_partition`.

    Returns
    -------
    list of Record
        To be produced in order, among others.
    """
    pool = locations[0].pool
    first, second = [location for location in locations if location.pool == pool][:2]
    site = _Site(pool, first, second, now_ms)
    good = _good_events(site)
    groups = [[record] for record in _bad_values(site, good)]
    groups += [[record] for record in _bad_keys(site, good, locations, partitions)]
    groups += [[record] for record in _unknown_things(site, good)]
    groups += _sequences(site, good)
    random.Random(seed).shuffle(groups)
    return [record for group in groups for record in group]


def too_large(locations: Sequence[LocationRecord], now_ms: int) -> Record:
    """A good sale in more bytes than a record may have; to be produced compressed, with a raised `message.max.bytes`."""
    pool = locations[0].pool
    event = _good_events(_Site(pool, locations[0], locations[0], now_ms))["sales.v1", "sale"]
    value = orjson.dumps(event | {"note": "x" * MAX_VALUE_BYTES})
    return Record("sales.v1", pool.encode(), value, DeadLetter.TOO_LARGE.wire)


def bad_fulfilments(allocation: Mapping, other_location: str, now_ms: int) -> list[Record]:
    """Bad answers to a shipment, and the good one in their midst, after which it is closed.

    Parameters
    ----------
    allocation : mapping
        A decoded record of `allocations.v1` whose first shipment is open and of kind `ship`, and for which nobody else
        answers.
    other_location : str
        A location of the same pool that is not the shipment's.
    now_ms : int
        Event time of all, epoch ms.
    """
    shipment = allocation["shipments"][0]
    base = {
        "event_time": now_ms,
        "order_id": allocation["order_id"],
        "shipment_id": shipment["shipment_id"],
        "location_id": shipment["location_id"],
        "reason": "sent by the bad records",
    }
    answers: list[tuple[str, dict[str, Any], DeadLetter | None]] = [
        ("rejected", {"location_id": other_location}, DeadLetter.WRONG_LOCATION),
        ("shipped", {"location_id": "NOWHERE"}, DeadLetter.UNKNOWN_LOCATION),
        ("shipped", {"shipment_id": "no-shipment-1"}, DeadLetter.UNKNOWN_SHIPMENT),
        ("shipped", {"lines": [{"line_id": "no-such-line", "quantity": 1}]}, DeadLetter.UNKNOWN_LINE),
        ("returned", {}, DeadLetter.NOT_SHIPPED),
        ("shipped", {}, None),
        ("shipped", {}, DeadLetter.SHIPMENT_CLOSED),
        ("rejected", {}, DeadLetter.SHIPMENT_CLOSED),
    ]
    records = []
    for number, (kind, change, reason) in enumerate(answers):
        event = base | {"kind": kind, "event_id": f"bad-{shipment['shipment_id']}-{number}"} | change
        outcome = reason.wire if reason else APPLIED
        records.append(Record("fulfilments.v1", allocation["pool_id"].encode(), orjson.dumps(event), outcome))
    return records


def _good_events(site: _Site) -> dict[tuple[str, str], dict]:
    """(Topic, kind) → the least that a good event of that kind has: every field is needed."""
    here, time = site.location.id, site.time
    cell = {"location_id": here, "sku": SKU}
    order = {
        "lines": [{"line_id": "1", "sku": SKU, "quantity": 1}],
        "destination": {"latitude": site.location.latitude, "longitude": site.location.longitude},
    }
    answer = {"shipment_id": "no-shipment-1", "location_id": here}
    transfer = {"transfer_id": "bad-transfer"}
    events: list[tuple[str, str, dict]] = [
        ("sales.v1", "sale", cell | {"quantity": 1}),
        ("sales.v1", "return", cell | {"quantity": 1}),
        ("stock.v1", "receipt", cell | {"quantity": 1}),
        ("stock.v1", "adjustment", cell | {"quantity": -1}),
        ("stock.v1", "count", cell | {"quantity": 1}),
        ("stock.v1", "transfer_out", cell | {"quantity": 1, "to_location_id": site.other.id} | transfer),
        ("stock.v1", "transfer_in", cell | {"quantity": 1} | transfer),
        ("stock.v1", "expected", cell | {"quantity": 1, "expected_at": time, "supply_id": "bad-supply"}),
        ("stock.v1", "safety_stock", cell | {"quantity": 1}),
        ("stock.v1", "quarantine", cell | {"quantity": 1}),
        ("stock.v1", "release", cell | {"quantity": 1}),
        ("orders.v1", "placed", {"order_id": "bad-order"} | order),
        ("orders.v1", "held", {"order_id": "bad-order", "expires_at": MAX_TIME} | order),
        ("orders.v1", "cancelled", {"order_id": "bad-order"}),
        ("orders.v1", "changed", {"order_id": "bad-order"}),
        *(("fulfilments.v1", kind, {"order_id": "bad-order"} | answer) for kind in ("shipped", "collected", "rejected")),
        ("fulfilments.v1", "returned", {"order_id": "bad-order", "location_id": answer["location_id"]}),
    ]
    return {
        (topic, kind): {"kind": kind, "event_id": f"bad-{topic}-{kind}", "event_time": time} | fields
        for topic, kind, fields in events
    }


def _bad_values(site: _Site, good: dict[tuple[str, str], dict]) -> Iterator[Record]:
    key = site.pool.encode()
    topics = sorted({topic for topic, _ in good})
    for topic in topics:
        for content in (None, *NOT_JSON):
            yield Record(topic, key, content, DeadLetter.NOT_JSON.wire)
    for (topic, kind), event in good.items():
        for changed, reason in _spoiled(event):
            yield Record(topic, key, orjson.dumps(changed), reason.wire)
        for other in ("sold", kind.upper(), ""):
            yield Record(topic, key, orjson.dumps(event | {"kind": other}), DeadLetter.UNKNOWN_KIND.wire)
    for kind, change, reason in _odd_orders():
        event = deepcopy(good["orders.v1", kind])
        change(event)
        yield Record("orders.v1", key, orjson.dumps(event), reason.wire)
    for topic, kind, field, value, reason in _odd_fields():
        yield Record(topic, key, orjson.dumps(good[topic, kind] | {field: value}), reason.wire)
    huge = orjson.dumps(good["sales.v1", "sale"]).replace(b'"quantity":1', b'"quantity":' + b"9" * 30)
    yield Record("sales.v1", key, huge, DeadLetter.OUT_OF_RANGE.wire)


def _spoiled(event: dict) -> Iterator[tuple[dict, DeadLetter]]:
    """The event without each of its fields in turn, with each null, and with each of a wrong type or form."""
    for name, value in event.items():
        without = {key: kept for key, kept in event.items() if key != name}
        yield without, DeadLetter.MISSING_FIELD
        yield event | {name: None}, DeadLetter.MISSING_FIELD
        if name == "kind":
            continue
        wrong: tuple = ("text", 5, True)
        if isinstance(value, str):
            wrong = (5, True, ["a"], {}, "", "x" * (MAX_ID + 1), "line\nbreak", "zero\x00byte")
        elif isinstance(value, int):
            wrong = ("5", 5.5, True, [5], {})
        for found in wrong:
            yield event | {name: found}, DeadLetter.WRONG_FIELD
        if name in ("expected_at", "expires_at"):
            for found in (-1, MAX_TIME + 1):
                yield event | {name: found}, DeadLetter.OUT_OF_RANGE
        if name == "event_time":
            for found in (-1, 0, value // 1000, EARLIEST_MS - 1, MAX_TIME, value * 1000):
                yield event | {name: found}, DeadLetter.TIME_OUT_OF_RANGE
        if name == "quantity":
            least = {"adjustment": -MAX_QUANTITY, "count": 0, "expected": 0, "safety_stock": 0}.get(event["kind"], 1)
            zero = [0] if event["kind"] == "adjustment" else []
            for found in (least - 1, MAX_QUANTITY + 1, *zero):
                yield event | {name: found}, DeadLetter.OUT_OF_RANGE


def _odd_orders() -> Iterator[tuple[str, Callable[[dict], None], DeadLetter]]:
    """(Kind, what to do to a good order, reason)."""

    def line(**fields: object) -> Callable[[dict], None]:
        return lambda event: event["lines"][0].update(fields)

    def lines(count: int) -> Callable[[dict], None]:
        many = [{"line_id": str(number), "sku": SKU, "quantity": 1} for number in range(count)]
        return lambda event: event.update(lines=many)

    def place(**fields: object) -> Callable[[dict], None]:
        return lambda event: event["destination"].update(fields)

    def fields(**found: object) -> Callable[[dict], None]:
        return lambda event: event.update(found)

    def line_without(name: str) -> Callable[[dict], None]:
        return lambda event: event["lines"][0].pop(name)

    def place_without(name: str) -> Callable[[dict], None]:
        return lambda event: event["destination"].pop(name)

    repeated = [{"line_id": "1", "sku": SKU, "quantity": 1}] * 2
    for kind in ("placed", "held"):
        for name in ("line_id", "sku", "quantity"):
            yield kind, line_without(name), DeadLetter.MISSING_FIELD
        for name in ("latitude", "longitude"):
            yield kind, place_without(name), DeadLetter.MISSING_FIELD
            yield kind, place(**{name: "51.5"}), DeadLetter.WRONG_FIELD
        yield kind, fields(mode="pickup"), DeadLetter.MISSING_FIELD
        yield kind, fields(mode="drone"), DeadLetter.WRONG_FIELD
        yield kind, fields(service_level="slow"), DeadLetter.WRONG_FIELD
        yield kind, fields(allow_split="yes"), DeadLetter.WRONG_FIELD
        yield kind, fields(allow_partial=1), DeadLetter.WRONG_FIELD
        yield kind, fields(lines=[5]), DeadLetter.WRONG_FIELD
        yield kind, fields(lines=repeated), DeadLetter.WRONG_FIELD
        yield kind, line(quantity="2"), DeadLetter.WRONG_FIELD
        yield kind, line(quantity=1.5), DeadLetter.WRONG_FIELD
        yield kind, line(sku=""), DeadLetter.WRONG_FIELD
        for quantity in (0, -1, MAX_QUANTITY + 1):
            yield kind, line(quantity=quantity), DeadLetter.OUT_OF_RANGE
        yield kind, lines(0), DeadLetter.OUT_OF_RANGE
        yield kind, lines(MAX_LINES + 1), DeadLetter.OUT_OF_RANGE
        for latitude in (-90.1, 91, 1e300):
            yield kind, place(latitude=latitude), DeadLetter.OUT_OF_RANGE
        for longitude in (-180.1, 181):
            yield kind, place(longitude=longitude), DeadLetter.OUT_OF_RANGE


def _odd_fields() -> Iterator[tuple[str, str, str, object, DeadLetter]]:
    """(Topic, kind, field that may be absent, its bad value, reason)."""
    yield "stock.v1", "count", "counted_at", "yesterday", DeadLetter.WRONG_FIELD
    for time in (-1, 0, EARLIEST_MS - 1, MAX_TIME, MAX_TIME + 1):
        yield "stock.v1", "count", "counted_at", time, DeadLetter.TIME_OUT_OF_RANGE
    yield "stock.v1", "transfer_in", "to_location_id", "", DeadLetter.WRONG_FIELD
    yield "orders.v1", "cancelled", "line_ids", "1", DeadLetter.WRONG_FIELD
    yield "orders.v1", "cancelled", "line_ids", [1], DeadLetter.WRONG_FIELD
    yield "orders.v1", "cancelled", "line_ids", ["1"] * (MAX_LINES + 1), DeadLetter.OUT_OF_RANGE
    yield "fulfilments.v1", "shipped", "lines", {"line_id": "1"}, DeadLetter.WRONG_FIELD
    yield "fulfilments.v1", "shipped", "lines", [{"line_id": "1"}], DeadLetter.MISSING_FIELD
    yield "fulfilments.v1", "shipped", "lines", [{"line_id": "1", "quantity": 0}], DeadLetter.OUT_OF_RANGE


def _bad_keys(
    site: _Site, good: dict[tuple[str, str], dict], locations: Sequence[LocationRecord], partitions: int
) -> Iterator[Record]:
    key = site.pool.encode()
    elsewhere = next((location for location in locations if location.pool != site.pool), None)
    wrong = (partition_of(key, partitions) + 1) % partitions
    for topic, kind in (
        ("sales.v1", "sale"),
        ("stock.v1", "receipt"),
        ("orders.v1", "placed"),
        ("fulfilments.v1", "shipped"),
    ):
        value = orjson.dumps(good[topic, kind])
        yield Record(topic, None, value, DeadLetter.MISSING_KEY.wire)
        yield Record(topic, b"", value, DeadLetter.MISSING_KEY.wire)
        yield Record(topic, b"atlantis", value, DeadLetter.UNKNOWN_POOL.wire)
        yield Record(topic, b"\xff\xfe", value, DeadLetter.UNKNOWN_POOL.wire)
        if partitions > 1:
            yield Record(topic, key, value, DeadLetter.WRONG_PARTITION.wire, wrong)
        if elsewhere and "sku" in good[topic, kind]:
            there = orjson.dumps(good[topic, kind] | {"location_id": elsewhere.id})
            yield Record(topic, key, there, DeadLetter.WRONG_POOL.wire)


def _unknown_things(site: _Site, good: dict[tuple[str, str], dict]) -> Iterator[Record]:
    key = site.pool.encode()
    for (topic, kind), event in good.items():
        if "sku" in event:
            nowhere = orjson.dumps(event | {"location_id": "NOWHERE"})
            yield Record(topic, key, nowhere, DeadLetter.UNKNOWN_LOCATION.wire)
        if topic == "fulfilments.v1" or kind in ("cancelled", "changed"):
            nothing = orjson.dumps(event | {"order_id": "never-placed"})
            yield Record(topic, key, nothing, DeadLetter.UNKNOWN_ORDER.wire)


def _sequences(site: _Site, good: dict[tuple[str, str], dict]) -> list[list[Record]]:
    """Records that are bad because of those before them."""
    key = site.pool.encode()

    def steps(topic: str, name: str, *events: tuple[str, dict, DeadLetter | None]) -> list[Record]:
        return [
            Record(
                topic,
                key,
                orjson.dumps(good[topic, kind] | {"event_id": f"bad-{name}-{number}"} | change),
                reason.wire if reason else APPLIED,
            )
            for number, (kind, change, reason) in enumerate(events)
        ]

    twice, held = {"order_id": "bad-twice"}, {"order_id": "bad-held"}
    full = {"sku": f"{SKU}-FULL"}
    line = {"line_id": "1", "sku": SKU, "quantity": 1, "unit_price": 2.55}
    described = {"order_id": "bad-described", "lines": [line]} | dict.fromkeys(("channel", "customer_id", "campaign_id"), 5)
    return [
        steps(
            "orders.v1",
            "twice",
            ("placed", twice, None),
            ("placed", twice, DeadLetter.ORDER_EXISTS),
            ("held", twice, DeadLetter.ORDER_EXISTS),
            ("cancelled", twice | {"line_ids": ["1", "no-such-line"]}, DeadLetter.UNKNOWN_LINE),
            ("cancelled", twice, None),
            ("cancelled", twice, DeadLetter.ORDER_CLOSED),
            ("placed", twice, DeadLetter.ORDER_EXISTS),
        ),
        steps(
            "orders.v1",
            "held",
            ("held", held, None),
            ("held", held, None),  # again
            ("cancelled", held, None),
            ("changed", held, DeadLetter.ORDER_CLOSED),
            ("cancelled", held, DeadLetter.ORDER_CLOSED),
        ),
        # A whole number is one however it is written; what only describes an event costs nothing.
        steps("stock.v1", "whole", ("receipt", {"quantity": 2.0}, None), ("count", {"quantity": 3.0}, None)),
        steps(
            "sales.v1", "described-till", *(("sale", {name: 5.5}, None) for name in TILL), ("return", {"customer_id": ""}, None)
        ),
        steps("stock.v1", "described", ("receipt", {"expires_at": -1, "lot_id": 7}, None), ("adjustment", {"reason": 7}, None)),
        steps("orders.v1", "described-order", ("placed", described, None), ("cancelled", {"order_id": "bad-described"}, None)),
        steps("fulfilments.v1", "described-answer", ("rejected", {"reason": 7}, DeadLetter.UNKNOWN_ORDER)),
        steps(
            "stock.v1",
            "reused",
            ("receipt", {"event_id": "bad-reused"}, None),
            ("receipt", {"event_id": "bad-reused", "quantity": 2}, DeadLetter.EVENT_ID_REUSED),
            ("count", {"event_id": "bad-reused"}, DeadLetter.EVENT_ID_REUSED),
        ),
        steps(
            "stock.v1",
            "full",
            ("receipt", full | {"quantity": MAX_QUANTITY}, None),
            ("receipt", full | {"quantity": 1}, DeadLetter.OUT_OF_RANGE),
            ("release", full | {"quantity": MAX_QUANTITY}, DeadLetter.OUT_OF_RANGE),
            ("adjustment", full | {"quantity": -MAX_QUANTITY}, None),
        ),
    ]
