"""What the contract takes, what it refuses, and what it says of a refusal."""

import json
import unicodedata
from typing import get_args

import pytest
from pydantic import ValidationError

from topics.events import (
    CAPABILITIES,
    MAX_LINES,
    MAX_VALUE_BYTES,
    MODELS,
    UNPRINTABLE,
    Count,
    LocationRecord,
    Placed,
    Refusal,
    Sale,
    Tick,
    judge,
)
from topics.outputs import Demand
from topics.reasons import DeadLetter, Kind

BASE = {"event_id": "e-1", "event_time": 1_700_000_000_000}
LINE = {"line_id": "1", "sku": "A", "quantity": 2}
CELL = BASE | {"location_id": "L", "sku": "A"}
PLACED = BASE | {
    "kind": "placed",
    "order_id": "o-1",
    "lines": [LINE],
    "destination": {"latitude": 51.5, "longitude": -0.1},
}
PICKUP = {name: value for name, value in PLACED.items() if name != "destination"} | {
    "mode": "pickup",
    "pickup_location_id": "L",
}
SHIPMENT = BASE | {"order_id": "o-1", "shipment_id": "s-1", "location_id": "L"}
CLICK = BASE | {"kind": "view", "visitor_id": "v", "channel": "web"}
LOCATION = {"id": "L", "pool": "uk", "kind": "store", "latitude": 51, "longitude": -0.1}

SALE = CELL | {"kind": "sale", "quantity": 1}

GOOD = [
    ("sales.v1", SALE),
    ("sales.v1", CELL | {"kind": "return", "quantity": 1_000_000_000, "unit_price": -5, "currency": "GBP"}),
    ("stock.v1", CELL | {"kind": "receipt", "quantity": 1, "lot_id": "l", "expires_at": 5}),
    ("stock.v1", CELL | {"kind": "adjustment", "quantity": -1_000_000_000, "reason": "any\ntext"}),
    ("stock.v1", CELL | {"kind": "count", "quantity": 0, "counted_at": 0}),
    ("stock.v1", CELL | {"kind": "transfer_out", "quantity": 1, "transfer_id": "t", "to_location_id": "M"}),
    ("stock.v1", CELL | {"kind": "transfer_in", "quantity": 1, "transfer_id": "t"}),
    ("stock.v1", CELL | {"kind": "expected", "quantity": 0, "expected_at": 253_402_300_799_999, "supply_id": "s"}),
    ("stock.v1", CELL | {"kind": "safety_stock", "quantity": 0}),
    ("stock.v1", CELL | {"kind": "quarantine", "quantity": 1}),
    ("stock.v1", CELL | {"kind": "release", "quantity": 1}),
    ("orders.v1", PLACED),
    ("orders.v1", PICKUP),
    ("orders.v1", PLACED | {"kind": "held", "expires_at": 9}),
    ("orders.v1", PLACED | {"mode": None, "service_level": None, "allow_split": None, "allow_partial": None}),
    ("orders.v1", PLACED | {"lines": [LINE | {"line_id": str(number)} for number in range(MAX_LINES)]}),
    ("orders.v1", BASE | {"kind": "cancelled", "order_id": "o-1"}),
    ("orders.v1", BASE | {"kind": "cancelled", "order_id": "o-1", "line_ids": ["a"]}),
    ("fulfilments.v1", SHIPMENT | {"kind": "shipped"}),
    ("fulfilments.v1", SHIPMENT | {"kind": "collected", "lines": []}),
    ("fulfilments.v1", SHIPMENT | {"kind": "rejected", "reason": "broken", "lines": [LINE]}),
    ("fulfilments.v1", SHIPMENT | {"kind": "returned"}),
    ("ticks.v1", {"pool_id": "uk"}),
    ("clicks.v1", CLICK),
    ("clicks.v1", CLICK | {"kind": "checkout", "sku": "A", "pool_id": "uk", "latitude": 90, "longitude": -180}),
    ("locations.v1", LOCATION),
]


def judged(topic: str, value: object):
    return judge(topic, json.dumps(value).encode())


@pytest.mark.parametrize("topic, value", GOOD, ids=lambda value: value if isinstance(value, str) else value.get("kind"))
def test_a_good_record_is_read_and_unknown_fields_are_ignored(topic, value):
    plain = judged(topic, value)
    assert not isinstance(plain, Refusal)
    assert judged(topic, value | {"shoe_size": {"eu": [44]}}) == plain


@pytest.mark.parametrize("topic, value", GOOD, ids=lambda value: value if isinstance(value, str) else value.get("kind"))
def test_a_record_without_a_required_field_is_refused_as_such(topic, value):
    model = type(judged(topic, value))
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    for name in required:
        for lacking in ({other: found for other, found in value.items() if other != name}, value | {name: None}):
            refusal = judged(topic, lacking)
            assert refusal.reason == DeadLetter.MISSING_FIELD
            assert refusal.detail.startswith(f"{name}: expected")


BAD = [
    ("sales.v1", b"", DeadLetter.NOT_JSON, "value: expected a JSON object, found EOF"),
    ("sales.v1", b"[]", DeadLetter.NOT_JSON, "value: expected an object, found []"),
    ("orders.v1", b"null", DeadLetter.NOT_JSON, "value: expected an object, found null"),
    ("orders.v1", b"\xff", DeadLetter.NOT_JSON, "value: expected a JSON object, found"),
    ("orders.v1", b'{"kind":"placed"}{}', DeadLetter.NOT_JSON, "value: expected a JSON object, found trailing"),
    (
        "orders.v1",
        {"kind": "plced"},
        DeadLetter.UNKNOWN_KIND,
        "kind: expected one of 'placed', 'held', 'cancelled', 'changed', found",
    ),
    ("orders.v1", {"kind": 5}, DeadLetter.UNKNOWN_KIND, "kind: expected one of"),
    ("sales.v1", {"kind": "refund"}, DeadLetter.UNKNOWN_KIND, "kind: expected 'sale' or 'return', found 'refund'"),
    ("clicks.v1", CLICK | {"kind": "buy"}, DeadLetter.UNKNOWN_KIND, "kind: expected 'view', "),
    ("sales.v1", SALE | {"quantity": 0}, DeadLetter.OUT_OF_RANGE, "quantity: expected greater than or equal to 1, found 0"),
    ("sales.v1", SALE | {"quantity": 10**9 + 1}, DeadLetter.OUT_OF_RANGE, "quantity: expected less than or equal to"),
    ("sales.v1", SALE | {"quantity": 10**30}, DeadLetter.OUT_OF_RANGE, "quantity: expected less than or equal to"),
    ("sales.v1", SALE | {"quantity": "5"}, DeadLetter.WRONG_FIELD, "quantity: expected a valid integer, found '5'"),
    ("sales.v1", SALE | {"quantity": 12.5}, DeadLetter.WRONG_FIELD, "quantity: expected a valid integer, found 12.5"),
    ("sales.v1", SALE | {"quantity": 0.0}, DeadLetter.OUT_OF_RANGE, "quantity: expected greater than or equal to 1, found 0"),
    ("sales.v1", SALE | {"quantity": 1e300}, DeadLetter.OUT_OF_RANGE, "quantity: expected less than or equal to 1000000000"),
    ("sales.v1", SALE | {"quantity": True}, DeadLetter.WRONG_FIELD, "quantity: expected a valid integer, found True"),
    ("sales.v1", SALE | {"event_time": -1}, DeadLetter.TIME_OUT_OF_RANGE, "event_time: expected"),
    ("sales.v1", SALE | {"event_time": 253_402_300_800_000}, DeadLetter.TIME_OUT_OF_RANGE, "event_time: expected"),
    ("sales.v1", SALE | {"sku": ""}, DeadLetter.WRONG_FIELD, "sku: expected at least 1 character, found ''"),
    ("sales.v1", SALE | {"sku": "x" * 129}, DeadLetter.WRONG_FIELD, "sku: expected at most 128 characters"),
    ("sales.v1", SALE | {"sku": "a\tb"}, DeadLetter.WRONG_FIELD, "sku: expected printable text, found 'a\\tb'"),
    ("sales.v1", SALE | {"sku": "\u00a0"}, DeadLetter.WRONG_FIELD, "sku: expected printable text"),
    ("stock.v1", CELL | {"kind": "adjustment", "quantity": 0}, DeadLetter.OUT_OF_RANGE, "quantity: expected other than 0"),
    ("stock.v1", CELL | {"kind": "count", "quantity": -1}, DeadLetter.OUT_OF_RANGE, "quantity: expected"),
    ("orders.v1", PLACED | {"lines": []}, DeadLetter.OUT_OF_RANGE, "lines: expected at least 1 entries, found 0"),
    (
        "orders.v1",
        PLACED | {"lines": [LINE | {"line_id": str(n)} for n in range(1001)]},
        DeadLetter.OUT_OF_RANGE,
        "lines: expected at most 1000 entries, found",
    ),
    (
        "orders.v1",
        PLACED | {"lines": [LINE, LINE]},
        DeadLetter.WRONG_FIELD,
        "lines: expected lines with different line ids, found '1'",
    ),
    (
        "orders.v1",
        PLACED | {"lines": [LINE, LINE | {"line_id": "2", "quantity": -3}]},
        DeadLetter.OUT_OF_RANGE,
        "lines[1].quantity: expected greater than or equal to 1, found -3",
    ),
    (
        "orders.v1",
        PLACED | {"destination": None},
        DeadLetter.MISSING_FIELD,
        "destination: expected for mode delivery, found none",
    ),
    (
        "orders.v1",
        PLACED | {"mode": "pickup"},
        DeadLetter.MISSING_FIELD,
        "pickup_location_id: expected for mode pickup, found none",
    ),
    ("orders.v1", PLACED | {"mode": "drone"}, DeadLetter.WRONG_FIELD, "mode: expected 'delivery' or 'pickup', found 'drone'"),
    (
        "orders.v1",
        PLACED | {"destination": {"latitude": 90.1, "longitude": 0}},
        DeadLetter.OUT_OF_RANGE,
        "destination.latitude: expected less than or equal to 90",
    ),
    (
        "orders.v1",
        PLACED | {"destination": {"latitude": float("nan"), "longitude": 0}},
        DeadLetter.OUT_OF_RANGE,
        "destination.latitude: expected a finite number",
    ),
    (
        "orders.v1",
        PLACED | {"destination": {"latitude": 0}},
        DeadLetter.MISSING_FIELD,
        "destination.longitude: expected, found none",
    ),
    ("orders.v1", PLACED | {"allow_split": 1}, DeadLetter.WRONG_FIELD, "allow_split: expected a valid boolean, found 1"),
    (
        "fulfilments.v1",
        SHIPMENT | {"kind": "shipped", "lines": [{"line_id": "1", "quantity": 0}]},
        DeadLetter.OUT_OF_RANGE,
        "lines[0].quantity: expected",
    ),
    ("locations.v1", LOCATION | {"kind": "shed"}, DeadLetter.UNKNOWN_KIND, "kind: expected 'warehouse'"),
    (
        "locations.v1",
        LOCATION | {"capabilities": ["fly"]},
        DeadLetter.WRONG_FIELD,
        "capabilities[0]: expected 'ship' or 'pickup', found 'fly'",
    ),
]


@pytest.mark.parametrize("topic, value, reason, detail", BAD, ids=[row[3] for row in BAD])
def test_a_bad_record_is_refused_with_reason_and_sentence(topic, value, reason, detail):
    refusal = judge(topic, value) if isinstance(value, bytes) else judged(topic, value)
    assert refusal.reason == reason
    assert refusal.detail.startswith(detail)


def test_a_refusal_counts_the_other_faults():
    assert judged("sales.v1", {"kind": "sale"}).detail == "event_id: expected, found none (and 4 more)"


def test_a_refusal_of_a_huge_field_is_short():
    refusal = judged("sales.v1", SALE | {"quantity": ["x" * 10**6] * 3})
    assert len(refusal.detail) < 300


def test_no_value_and_a_value_too_large_are_refused():
    assert judge("sales.v1", None).reason == DeadLetter.NOT_JSON
    good = json.dumps(SALE).encode()
    assert isinstance(judge("sales.v1", good + b" " * (MAX_VALUE_BYTES - len(good))), Sale)
    assert judge("sales.v1", good + b" " * (MAX_VALUE_BYTES - len(good) + 1)).reason == DeadLetter.TOO_LARGE


def test_the_last_of_a_repeated_key_counts():
    assert judge("ticks.v1", b'{"pool_id":5,"pool_id":"uk"}') == Tick(pool_id="uk")


def test_defaults_are_the_contracts():
    placed = judged("orders.v1", PLACED)
    assert isinstance(placed, Placed)
    assert (placed.mode, placed.service_level, placed.allow_split, placed.allow_partial) == ("delivery", "standard", True, True)
    count = judged("stock.v1", CELL | {"kind": "count", "quantity": 1})
    assert isinstance(count, Count)
    assert count.counted_at is None


@pytest.mark.parametrize("kind", CAPABILITIES)
def test_a_location_is_capable_by_kind_unless_it_says_otherwise(kind):
    location = LocationRecord.model_validate(LOCATION | {"kind": kind})
    assert (location.enabled, location.priority, location.daily_capacity) == (True, 100, None)
    assert location.capabilities == CAPABILITIES[kind]
    assert judged("locations.v1", LOCATION | {"kind": kind, "capabilities": None}) == location
    assert LocationRecord.model_validate(LOCATION | {"kind": kind, "capabilities": []}).capabilities == []


def test_a_location_in_the_network_file_is_as_strict():
    with pytest.raises(ValidationError):
        LocationRecord.model_validate(LOCATION | {"priority": "100"})


def test_demand_is_counts_from_zero():
    demand = dict.fromkeys(("partition", "window_start", "views", "carts", "checkouts", "updated_at"), 0)
    demand |= {"pool_id": "uk", "sku": "A", "window_ms": 1, "version": 1}
    Demand.model_validate(demand)
    with pytest.raises(ValidationError):
        Demand.model_validate(demand | {"carts": -1})


def test_every_kind_of_event_has_exactly_one_model():
    words = [
        word
        for topic, models in MODELS.items()
        for model in models
        if "kind" in model.model_fields and topic != "locations.v1"
        for word in get_args(model.model_fields["kind"].annotation)
    ]
    assert sorted(words) == sorted(kind.wire for kind in Kind if kind not in (Kind.UNDECODED, Kind.TICK, Kind.LOCATION))


@pytest.mark.parametrize("text", ["12.0", "1.2e1", "120e-1", "12.000", "0.12E+2"])
def test_a_number_that_is_whole_may_be_written_with_a_point_or_an_exponent(text):
    value = json.dumps(SALE | {"quantity": "@", "unit_price": "@"}).replace('"@"', text).encode()
    sale = judge("sales.v1", value)
    assert (sale.quantity, sale.unit_price) == (12, 12) and type(sale.quantity) is int
    time = judge("sales.v1", json.dumps(SALE).replace("1700000000000", "1.7e12").encode()).event_time
    assert time == 1_700_000_000_000 and type(time) is int


def test_an_id_has_no_control_format_or_private_character_nor_another_space():
    refused = {chr(code) for first, last in UNPRINTABLE for code in range(first, last + 1)}
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs") and character != " ":
            assert character in refused, hex(code)
        elif character in refused:  # not assigned, in this version of Unicode
            assert unicodedata.category(character) == "Cn", hex(code)


@pytest.mark.parametrize("edge", sorted({edge for pair in UNPRINTABLE for edge in pair} - set(range(0xD800, 0xE000))), ids=hex)
def test_the_first_and_the_last_of_what_an_id_may_not_have_are_refused(edge):
    assert judged("sales.v1", SALE | {"sku": f"a{chr(edge)}b"}).detail.startswith("sku: expected printable text, found")


@pytest.mark.parametrize("text", ["a b", " a", "a ", "é", "😀", "\u0378", "\U0001fadd", "\ufffd", "A\u0301", "%", "NO"])
def test_any_other_character_is_taken_be_it_assigned_or_not(text):
    assert judged("sales.v1", SALE | {"sku": text}).sku == text


@pytest.mark.parametrize("text", [" ", "   ", " " * 128])
def test_an_id_of_blanks_only_is_refused(text):
    assert judged("sales.v1", SALE | {"sku": text}).detail.startswith("sku: expected more than blanks, found ' ")
