"""What a decoded batch holds, column by column, and that no record costs another its row."""

import json
import math

import numpy as np
import pytest

from tests.unit.test_events import CELL, CLICK, LINE, PICKUP, PLACED, SHIPMENT
from topics.catalogue import INVENTORY_TOPICS
from topics.codec import content
from topics.codec.decode import Batch, decode, decode_clicks, records_of
from topics.columns import ALLOW_PARTIAL, ALLOW_SPLIT, EVENT, HAS_LINES, URGENT
from topics.columns import PICKUP as PICKUP_FLAG
from topics.events import MAX_LINES, MAX_VALUE_BYTES
from topics.reasons import DeadLetter, Kind

SALES, STOCK, ORDERS, FULFILMENTS, TICKS = range(len(INVENTORY_TOPICS))
TIME = CELL["event_time"]


def decoded(*records: tuple[int, object]) -> Batch:
    values = [value if isinstance(value, bytes | None) else json.dumps(value).encode() for _, value in records]
    numbers = np.arange(len(records))
    return decode(records_of(values, 100 + numbers, 1000 + numbers), [topic for topic, _ in records])


def said(batch: Batch, row: int = 0) -> dict:
    """The columns of an event that are not zero, texts as text."""
    event = dict(zip(EVENT.names, batch.events[row].tolist(), strict=True))
    for name in [name.removesuffix("_at") for name in event if name.endswith("_at")]:
        event[name] = text(batch, event.pop(f"{name}_at"), event.pop(f"{name}_size"))
    first, count = event.pop("first_line"), event.pop("line_count")
    event["lines"] = [
        (text(batch, line["line_id_at"], line["line_id_size"]), text(batch, line["sku_at"], line["sku_size"]), line["quantity"])
        for line in batch.lines[first : first + count]
    ]
    return {name: value for name, value in event.items() if value and name not in ("topic", "offset", "timestamp", "content")}


def text(batch: Batch, at: int, size: int) -> str:
    return batch.buffer[at : at + size].tobytes().decode()


COMMON = {"event_id": "e-1", "event_time": TIME}
IN_CELL = COMMON | {"location": "L", "sku": "A"}
SPLIT_PARTIAL = ALLOW_SPLIT | ALLOW_PARTIAL | HAS_LINES
COLUMNS = [
    (SALES, CELL | {"kind": "sale", "quantity": 3}, IN_CELL | {"kind": Kind.SALE, "quantity": 3}),
    (SALES, CELL | {"kind": "return", "quantity": 3}, IN_CELL | {"kind": Kind.RETURN, "quantity": 3}),
    (STOCK, CELL | {"kind": "receipt", "quantity": 3, "expires_at": 5}, IN_CELL | {"kind": Kind.RECEIPT, "quantity": 3}),
    (STOCK, CELL | {"kind": "adjustment", "quantity": -3}, IN_CELL | {"kind": Kind.ADJUSTMENT, "quantity": -3}),
    (STOCK, CELL | {"kind": "count", "quantity": 3}, IN_CELL | {"kind": Kind.COUNT, "quantity": 3, "time": TIME}),
    (STOCK, CELL | {"kind": "count", "quantity": 0, "counted_at": 7}, IN_CELL | {"kind": Kind.COUNT, "time": 7}),
    (
        STOCK,
        CELL | {"kind": "transfer_out", "quantity": 3, "transfer_id": "t", "to_location_id": "M"},
        IN_CELL | {"kind": Kind.TRANSFER_OUT, "quantity": 3, "reference": "t", "target": "M"},
    ),
    (
        STOCK,
        CELL | {"kind": "transfer_in", "quantity": 3, "transfer_id": "t"},
        IN_CELL | {"kind": Kind.TRANSFER_IN, "quantity": 3, "reference": "t"},
    ),
    (
        STOCK,
        CELL | {"kind": "expected", "quantity": 3, "expected_at": 9, "supply_id": "s"},
        IN_CELL | {"kind": Kind.EXPECTED, "quantity": 3, "reference": "s", "time": 9},
    ),
    (STOCK, CELL | {"kind": "safety_stock", "quantity": 3}, IN_CELL | {"kind": Kind.SAFETY_STOCK, "quantity": 3}),
    (STOCK, CELL | {"kind": "quarantine", "quantity": 3}, IN_CELL | {"kind": Kind.QUARANTINE, "quantity": 3}),
    (STOCK, CELL | {"kind": "release", "quantity": 3}, IN_CELL | {"kind": Kind.RELEASE, "quantity": 3}),
    (
        ORDERS,
        PLACED | {"pickup_location_id": "ignored"},
        COMMON
        | {"kind": Kind.PLACED, "reference": "o-1", "latitude": 51.5, "longitude": -0.1}
        | {"flags": SPLIT_PARTIAL, "lines": [("1", "A", 2)]},
    ),
    (
        ORDERS,
        PICKUP | {"destination": {"latitude": 1, "longitude": 2}, "service_level": "urgent", "allow_split": False},
        COMMON
        | {"kind": Kind.PLACED, "reference": "o-1", "location": "L", "lines": [("1", "A", 2)]}
        | {"flags": ALLOW_PARTIAL | PICKUP_FLAG | URGENT | HAS_LINES},
    ),
    (
        ORDERS,
        PLACED | {"kind": "held", "expires_at": 9, "allow_partial": False, "lines": [LINE, LINE | {"line_id": "2"}]},
        COMMON
        | {"kind": Kind.HELD, "reference": "o-1", "latitude": 51.5, "longitude": -0.1, "time": 9}
        | {"flags": ALLOW_SPLIT | HAS_LINES, "lines": [("1", "A", 2), ("2", "A", 2)]},
    ),
    (
        ORDERS,
        CELL | {"kind": "cancelled", "order_id": "o-1"},
        COMMON | {"kind": Kind.CANCELLED, "reference": "o-1"},
    ),
    (
        ORDERS,
        CELL | {"kind": "cancelled", "order_id": "o-1", "line_ids": ["1", "2"]},
        COMMON | {"kind": Kind.CANCELLED, "reference": "o-1", "flags": HAS_LINES, "lines": [("1", "", 0), ("2", "", 0)]},
    ),
    (
        FULFILMENTS,
        SHIPMENT | {"kind": "shipped"},
        COMMON | {"kind": Kind.SHIPPED, "reference": "o-1", "shipment": "s-1", "location": "L"},
    ),
    (
        FULFILMENTS,
        SHIPMENT | {"kind": "rejected", "lines": [{"line_id": "1", "quantity": 2}], "reason": "why"},
        COMMON
        | {"kind": Kind.REJECTED, "reference": "o-1", "shipment": "s-1", "location": "L"}
        | {"flags": HAS_LINES, "lines": [("1", "", 2)]},
    ),
    (
        FULFILMENTS,
        SHIPMENT | {"kind": "returned", "lines": []},
        COMMON | {"kind": Kind.RETURNED, "reference": "o-1", "shipment": "s-1", "location": "L", "flags": HAS_LINES},
    ),
    (TICKS, {"pool_id": "uk"}, {"kind": Kind.TICK, "reference": "uk"}),
]


@pytest.mark.parametrize("topic, value, expected", COLUMNS, ids=[row[2]["kind"].wire for row in COLUMNS])
def test_each_kind_fills_its_columns_and_no_others(topic, value, expected):
    assert said(decoded((topic, value))) == expected


@pytest.mark.parametrize("topic, value, expected", COLUMNS, ids=[row[2]["kind"].wire for row in COLUMNS])
def test_the_judge_fills_the_same_columns(topic, value, expected):
    assert said(decoded((topic, value | {"note": 'only the models read "escapes"'}))) == expected


def test_a_rows_origin_is_kept():
    batch = decoded((TICKS, {"pool_id": "uk"}), (SALES, b"?"))
    assert batch.events["topic"].tolist() == [TICKS, SALES]
    assert batch.events["offset"].tolist() == [100, 101]
    assert batch.events["timestamp"].tolist() == [1000, 1001]


def test_texts_that_only_the_models_read_resolve_like_any_other():
    odd = ["é", 'a"b', "\\", "😀" * 128]
    batch = decoded(*[(SALES, CELL | {"kind": "sale", "quantity": 1, "sku": sku}) for sku in [*odd, "plain"]])
    assert [said(batch, row)["sku"] for row in range(5)] == [*odd, "plain"]
    assert not batch.details


def test_bad_records_are_rows_with_a_reason_and_a_sentence_and_nothing_else():
    good = (SALES, CELL | {"kind": "sale", "quantity": 1})
    bad = [b"", None, b"[]", b'{"kind":"sale"}', b"\x00", b'{"event_id":"x","kind":"sale', json.dumps(CELL).encode()]
    mixed = [record for value in bad for record in (good, (SALES, value))]
    batch = decoded(*mixed)
    for row in range(0, len(mixed), 2):
        assert said(batch, row) == COLUMNS[0][2] | {"quantity": 1}
    for row in range(1, len(mixed), 2):
        assert set(said(batch, row)) == {"reason"}
        assert batch.details[row]
    assert set(batch.details) == set(range(1, len(mixed), 2))


def test_no_record_smuggles_another_in():
    tick = b'{"pool_id":"a"},{"pool_id":"b"}'
    batch = decoded((TICKS, tick), (TICKS, b'{"pool_id":"c'), (TICKS, b'"}'), (TICKS, b'{"pool_id":"d"}\x00{"pool_id":"e"}'))
    assert batch.events["reason"].tolist() == [DeadLetter.NOT_JSON] * 4


def test_a_record_of_4_mib_is_read_and_a_larger_one_refused():
    start = b'{"pool_id":"uk","note":"'
    largest = start + b"x" * (MAX_VALUE_BYTES - len(start) - 2) + b'"}'
    batch = decoded((TICKS, largest), (TICKS, largest + b" "), (TICKS, {"pool_id": "uk"}))
    assert batch.events["kind"].tolist() == [Kind.TICK, Kind.UNDECODED, Kind.TICK]
    assert batch.events["reason"].tolist() == [0, DeadLetter.TOO_LARGE, 0]


def test_a_batch_beyond_the_offsets_range_is_refused_whole():
    value = b" " * MAX_VALUE_BYTES
    with pytest.raises(ValueError, match="expected less than 1 GiB"):
        records_of([value] * 256)


def order_of(ids: list[str]) -> tuple[int, dict]:
    return ORDERS, PLACED | {"lines": [LINE | {"line_id": line_id} for line_id in ids]}


def test_a_thousand_lines_are_read_and_one_more_refused():
    ids = [f"line {number}" for number in range(MAX_LINES + 1)]
    batch = decoded(order_of(ids[:MAX_LINES]), order_of(ids), order_of(["last"]))
    assert [line[0] for line in said(batch, 0)["lines"]] == ids[:MAX_LINES]
    assert batch.events["reason"].tolist() == [0, DeadLetter.OUT_OF_RANGE, 0]
    assert [line[0] for line in said(batch, 2)["lines"]] == ["last"]


@pytest.mark.parametrize("count", [2, 3, 17, 1000])
def test_a_repeated_line_id_is_found_wherever_it_is(count):
    ids = [f"{number}" for number in range(count)]
    repeated = [order_of([*ids[:place], ids[(place + 1) % count], *ids[place + 1 :]]) for place in (0, count // 2, count - 1)]
    batch = decoded(*repeated, order_of(ids))
    assert batch.events["reason"].tolist() == [DeadLetter.WRONG_FIELD] * 3 + [0]


def test_as_many_lines_as_a_buffer_can_hold_fit():
    ids = [str(number % 10) for number in range(MAX_LINES)]
    cancelled = CELL | {"kind": "cancelled", "order_id": "o", "line_ids": ids}
    batch = decoded(*[(ORDERS, json.dumps(cancelled, separators=(",", ":")).encode())] * 50)
    for row in range(50):
        assert [line[0] for line in said(batch, row)["lines"]] == ids


def test_an_empty_batch_is_empty():
    batch = decoded()
    assert (len(batch.events), len(batch.lines), batch.details) == (0, 0, {})


def click_said(value: dict) -> dict:
    batch = decode_clicks(records_of([json.dumps(value).encode()], [5], [6]))
    click = batch.clicks[0]
    names = ("event_id", "visitor", "sku", "pool", "customer", "channel", "campaign")
    texts = {name: text(batch, click[f"{name}_at"], click[f"{name}_size"]) for name in names}
    return texts | {name: click[name].item() for name in ("kind", "offset", "timestamp", "event_time", "latitude", "longitude")}


@pytest.mark.parametrize("note", ["plain", "é"], ids=["scanned", "judged"])
def test_a_click_fills_its_columns(note):
    full = CLICK | {"kind": "cart", "sku": "A", "pool_id": "uk", "customer_id": "c", "campaign_id": "m"}
    assert click_said(full | {"latitude": -1.5, "longitude": 2, "note": note}) == {
        **{"event_id": "e-1", "visitor": "v", "sku": "A", "pool": "uk", "customer": "c", "channel": "web", "campaign": "m"},
        **{"kind": Kind.CART, "offset": 5, "timestamp": 6, "event_time": TIME, "latitude": -1.5, "longitude": 2.0},
    }


@pytest.mark.parametrize("note", ["plain", "é"], ids=["scanned", "judged"])
def test_what_a_click_lacks_is_empty_or_nan(note):
    found = click_said(CLICK | {"note": note, "sku": None})
    assert found["sku"] == found["pool"] == found["customer"] == found["campaign"] == ""
    assert math.isnan(found["latitude"])
    assert math.isnan(found["longitude"])


def test_a_bad_click_has_a_reason_and_a_sentence():
    batch = decode_clicks(records_of([b"{}", None]))
    assert batch.clicks["reason"].tolist() == [DeadLetter.MISSING_FIELD, DeadLetter.NOT_JSON]
    assert set(batch.details) == {0, 1}


# What an event says, as one number. Which fields count: tests/complaints/test_inputs.py.


def test_a_column_counts_as_content_unless_it_is_listed():
    table = np.dtype([("old", "i4"), ("new", "u1"), ("where", "i8"), ("text_at", "i4"), ("text_size", "i4")], align=True)
    places, masks, texts = content._content_of(table, "where")
    assert [(place, f"{mask:016x}") for place, mask in zip(places.tolist(), masks.tolist(), strict=True)] == [
        (0, "000000ffffffffff"),
        (2, "ffffffff00000000"),
    ]
    assert texts.tolist() == [[4, 5]]
    with pytest.raises(ValueError, match=r"found \['elsewhere'\]"):
        content._content_of(table, "elsewhere")


def test_content_is_the_same_wherever_a_record_stands_and_whoever_reads_it():
    order = json.dumps(PLACED).encode()
    judged = order.replace(b'"o-1"', b'"\\u006f-1"')
    batch = decode(records_of([b"?", order, order, judged, order.replace(b'"quantity": 2', b'"quantity": 3')]), [ORDERS] * 5)
    bad, *same, other = batch.events["content"].tolist()
    assert bad == 0 and len(set(same)) == 1 and other not in (0, same[0])
