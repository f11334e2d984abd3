"""The scanner and the models read every record alike: good ones, bad ones, and odd ones in between.

A batch is decoded twice: as it is done, and with the scanner switched off, so that the models judge every record. All
columns must be equal, texts and lines by what they resolve to, floats to the bit.
"""

import json
import random
from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topics.catalogue import INVENTORY_TOPICS
from topics.codec import decode as codec
from topics.codec.scan import scan_clicks, scan_events, workspace
from topics.columns import CLICK, EVENT, LINE
from topics.events import MODELS

TOPICS = [*INVENTORY_TOPICS, "clicks.v1"]
CLICKS = TOPICS.index("clicks.v1")

KINDS = {
    "sales.v1": ["sale", "return"],
    "stock.v1": (
        ["receipt", "adjustment", "count", "transfer_out", "transfer_in", "expected", "safety_stock", "quarantine", "release"]
    ),
    "orders.v1": ["placed", "placed", "placed", "held", "cancelled", "changed"],
    "fulfilments.v1": ["shipped", "collected", "rejected", "returned"],
    "clicks.v1": ["view", "search", "cart", "wishlist", "checkout"],
}


# Records as plain values.


def good(rng: random.Random, topic: str) -> dict:
    """A record that the contract takes."""
    if topic == "ticks.v1":
        return {"pool_id": ident(rng)}
    kind = rng.choice(KINDS[topic])
    record = {"event_id": ident(rng), "event_time": time(rng), "kind": kind}
    record |= GOOD[topic](rng, kind)
    members = list(record.items())
    rng.shuffle(members)
    return dict(members)


def ident(rng: random.Random) -> str:
    return rng.choice(["A", "SKU-1", "a b", "x" * 128, "/{}[]:,'", "a ", f"id-{rng.randrange(10**9)}", "12345678", "1234567"])


def time(rng: random.Random) -> int:
    return rng.choice([0, 1, 1_700_000_000_000, 253_402_300_799_999])


def optional(rng: random.Random, **makers) -> dict:
    return {name: make(rng) if rng.random() < 0.8 else None for name, make in makers.items() if rng.random() < 0.4}


def money(rng: random.Random) -> int:
    return rng.choice([0, -5, 499, 10**12, -(10**12)])


def units(rng: random.Random) -> int:
    return rng.choice([1, 2, 10, 1_000_000_000])


def sale(rng: random.Random, kind: str) -> dict:
    return {"location_id": ident(rng), "sku": ident(rng), "quantity": units(rng)} | optional(
        rng, channel=ident, customer_id=ident, receipt_id=ident, unit_price=money, currency=ident, order_id=ident, line_id=ident
    )


def stock(rng: random.Random, kind: str) -> dict:
    record = optional(rng, lot_id=ident, expires_at=time, reason=ident, counted_at=time, to_location_id=ident)
    record |= {"location_id": ident(rng), "sku": ident(rng), "quantity": units(rng)}
    if kind in ("count", "expected", "safety_stock"):
        record["quantity"] = rng.choice([0, 5])
    if kind == "adjustment":
        record["quantity"] *= rng.choice([1, -1])
    if kind.startswith("transfer"):
        record["transfer_id"] = ident(rng)
    if kind == "transfer_out":
        record["to_location_id"] = ident(rng)
    if kind == "expected":
        record |= {"expected_at": time(rng), "supply_id": ident(rng)}
    return record


def degrees(rng: random.Random, bound: int):
    number = rng.uniform(-bound, bound)
    return rng.choice([number, round(number, 6), round(number), float(round(number)), bound, -bound, 0, 0.0, number / 1e6])


def order(rng: random.Random, kind: str) -> dict:
    record = {"order_id": ident(rng)}
    if kind == "cancelled":
        some = lambda rng: [{"line_id": f"l{number}", "quantity": units(rng)} for number in range(rng.randint(1, 3))]  # noqa: E731
        ids = lambda rng: [ident(rng) for _ in range(rng.randint(1, 4))]  # noqa: E731
        return record | (optional(rng, line_ids=ids) or optional(rng, lines=some))
    flag = lambda rng: rng.random() < 0.5  # noqa: E731
    record["lines"] = [
        {"line_id": f"{rng.choice('ab')}{number}", "sku": ident(rng), "quantity": units(rng)}
        | optional(rng, unit_price=money, note=ident, stocked=flag)
        for number in range(rng.choice([1, 1, 2, 3, 9]))
    ]
    if kind == "changed" and rng.random() < 0.4:
        del record["lines"]
    destination = {"latitude": degrees(rng, 90), "longitude": degrees(rng, 180)}
    if rng.random() < 0.3:
        record |= {"mode": "pickup", "pickup_location_id": ident(rng)}
        record |= {"destination": destination} if rng.random() < 0.3 else {}
    else:
        record["destination"] = destination
        record |= optional(rng, mode=lambda rng: "delivery", pickup_location_id=ident)
    if kind == "held":
        record["expires_at"] = time(rng)
    record |= optional(rng, allow_split=flag, allow_partial=flag, channel=ident, customer_id=ident, campaign_id=ident)
    return record | optional(rng, service_level=lambda rng: rng.choice(["standard", "urgent"]), currency=ident)


def fulfilment(rng: random.Random, kind: str) -> dict:
    record = {"order_id": ident(rng), "shipment_id": ident(rng), "location_id": ident(rng)}
    line = lambda rng: rng.choice([{"line_id": ident(rng)}, {"sku": ident(rng)}, {"line_id": ident(rng), "sku": ident(rng)}])  # noqa: E731
    lines = lambda rng: [line(rng) | {"quantity": units(rng)} for _ in range(rng.randrange(3))]  # noqa: E731
    if kind == "returned" and rng.random() < 0.3:
        del record["shipment_id"]
    return record | optional(rng, lines=lines, reason=ident, sku=ident, missing=lambda rng: rng.random() < 0.5)


def click(rng: random.Random, kind: str) -> dict:
    record = {"visitor_id": ident(rng), "channel": ident(rng)}
    places = {"latitude": lambda rng: degrees(rng, 90), "longitude": lambda rng: degrees(rng, 180)}
    return record | optional(rng, sku=ident, customer_id=ident, campaign_id=ident, pool_id=ident, **places)


GOOD = {"sales.v1": sale, "stock.v1": stock, "orders.v1": order, "fulfilments.v1": fulfilment, "clicks.v1": click}

ODD_VALUES = [
    None, True, False, 0, -1, 1, 1.0, 1.5, -0.0, 10**9, 10**9 + 1, -(10**9), 10**17, 10**18, 2**63, 10**30, "", " ", "x" * 129,
    "5", "é", "\n", "\x7f", "\u00a0", "\u2028", "😀", '"', "\\", "placed", "sale", "pickup", "urgent", "view", [], {}, [[]],
    [{}], [1], ["a"], ["a", "a"], {"latitude": 1}, {"latitude": 91, "longitude": 0}, {"latitude": 1, "longitude": 2},
    {"latitude": None, "longitude": 2}, [{"line_id": "a", "sku": "s", "quantity": 1}],
    [{"line_id": "a", "sku": "s", "quantity": 1}] * 2, [{"line_id": "a", "quantity": 0}], {"a": [{"b": {}}, [], 1, "x", None]},
    "   ", " a", "\u0378", "\u200d",
]  # fmt: skip


def spoil(rng: random.Random, value):
    """Change something somewhere in a record."""
    if isinstance(value, dict) and value:
        name = rng.choice(list(value))
        deeper = isinstance(value[name], dict | list) and rng.random() < 0.6
        choice = rng.randrange(3)
        if deeper:
            return value | {name: spoil(rng, value[name])}
        if choice == 0:
            return {other: found for other, found in value.items() if other != name}
        if choice == 1:
            return value | {name: rng.choice(ODD_VALUES)}
        return value | {
            rng.choice(["note", "", "sku2", "éé", "x" * 30, "lines", "quantity", "line_ids"]): rng.choice(ODD_VALUES)
        }
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        spoilt = [*value[:place], spoil(rng, value[place]), *value[place + 1 :]]
        return rng.choice([value[:place], [*value, value[place]], spoilt])
    return rng.choice(ODD_VALUES)


# Records as bytes.

SPLICES = [
    b"NaN", b"Infinity", b"-Infinity", b"1e3", b"1E400", b"-0", b"-0.0", b"01", b"1.", b".5", b"+1", b"1.50", b"0.1",
    b"1e-7", b"0.30000000000000004", b"123456789012345678", b"1234567890123456789", b"9" * 400, b"true", b"null",
    b"nul", b"tru", b"falsey", b"\\u0041", b"\\n", b'\\"', b"\\ud800", b"\\", b"\xef\xbb\xbf", b"\xc3\xa9", b"\xff",
    b"\xc0\x80", b"\x00", b"\x01", b"\x7f", b'"', b",", b":", b"{", b"}", b"[", b"]", b" ", b"\t", b"\r\n", b"\x0b",
    b"//", b"{}", b"[]", b'""', b'"a":1,', b'"kind":"sale",', b'"quantity":2,', b'"sku":"t",', b'"lines":[],',
    b',"x":[[],{"a":{}}]', b"[" * 20 + b"]" * 20, b"[" * 300, b"[" * 300 + b"]" * 300,
    b"[" * 40 + b"]" * 40, b'{"a":' * 5 + b"1" + b"}" * 5,
    b'"pool_id":"p",', b"1,2", b"'",
    b"[1}", b'{"a":1]', b"[}", b"{]", b"[,]", b"[1,]", b'{"a":1,}', b'{"a"}', b"{1:1}", b"[1 2]", b'{"a" 1}', b"[[1],{}]",
]  # fmt: skip


def render(rng: random.Random, value) -> bytes:
    """JSON in one of the ways that senders have."""
    space = rng.choice(["", "", "", " ", "\n\t", " \r\n "])
    text = json.dumps(
        value,
        ensure_ascii=rng.random() < 0.5,
        separators=(f"{space},{space}", f"{space}:{space}"),
        indent=rng.choice([None, None, 1]),
    )
    return (space + text + space).encode()


def mutate(rng: random.Random, value: bytes) -> bytes:
    """Change some bytes."""
    at = rng.randrange(len(value) + 1)
    to = min(len(value), at + rng.choice([1, 1, 2, 5, 20]))
    match rng.randrange(7):
        case 0:
            return value[:at]
        case 1:
            return value[:at] + value[to:]
        case 2:
            return value[:at] + bytes([rng.randrange(256)]) + value[at + 1 :]
        case 3:
            return value[:at] + value[at:to] * 2 + value[to:]
        case 4:
            return value[:at] + rng.choice(SPLICES) + value[at:]
        case 5:
            return replace_token(rng, value)
        case _:
            flipped = bytearray(value or b" ")
            flipped[at % len(flipped)] ^= 1 << rng.randrange(8)
            return bytes(flipped)


def replace_token(rng: random.Random, value: bytes) -> bytes:
    """Put something else where a value or key stands."""
    starts = [place + 1 for place, byte in enumerate(value) if byte in b":,[{"] or [0]
    at = rng.choice(starts)
    to = at
    while to < len(value) and value[to] not in b",:]}":
        to += 1
    return value[:at] + rng.choice(SPLICES) + value[to:]


def record(rng: random.Random, topic: str) -> bytes:
    """A good, bad or odd record."""
    value = good(rng, topic)
    while rng.random() < 0.4:
        value = spoil(rng, value)
    data = render(rng, value)
    while rng.random() < 0.5:
        data = mutate(rng, data)
    return data


# The comparison.


def rows(batch) -> list[dict]:
    """What each row of a batch says, its texts and lines resolved."""
    table = batch.clicks if isinstance(batch, codec.ClickBatch) else batch.events
    text = batch.buffer.tobytes()
    found = []
    for number, row in enumerate(table.tolist()):
        said = resolved(dict(zip(table.dtype.names, row, strict=True)), text)
        if "line_count" in said:
            first, count = said.pop("first_line"), said["line_count"]
            said["lines"] = [
                resolved(dict(zip(LINE.names, line, strict=True)), text) for line in batch.lines[first : first + count].tolist()
            ]
            assert len(said["lines"]) == count
        found.append({name: exact(value) for name, value in said.items()} | {"detail": batch.details.get(number)})
    return found


def resolved(row: dict, text: bytes) -> dict:
    places = [name.removesuffix("_at") for name in row if name.endswith("_at")]
    said = {name: value for name, value in row.items() if not name.endswith(("_at", "_size"))}
    return said | {name: text[row[f"{name}_at"] : row[f"{name}_at"] + row[f"{name}_size"]] for name in places}


def exact(value):
    return value.hex() if isinstance(value, float) else value


def decoded(values: list[bytes | None], topic: int, *, scanned: bool) -> list[dict]:
    return rows(batch_of(values, topic, scanned=scanned))


def batch_of(values: list[bytes | None], topic: int, *, scanned: bool):
    numbers = np.arange(len(values))
    scanners = (scan_events, scan_clicks) if scanned else (no_scan, no_scan)
    with patch.multiple(codec, scan_events=scanners[0], scan_clicks=scanners[1]):
        if topic == CLICKS:
            return codec.decode_clicks(codec.records_of(values, numbers, numbers + 7))
        return codec.decode(codec.records_of(values, numbers, numbers + 7), np.full(len(values), topic, np.uint8))


def no_scan(*arguments) -> int:
    return 0


def assert_parity(values: list[bytes | None], topic: int) -> None:
    scanned, judged = batch_of(values, topic, scanned=True), batch_of(values, topic, scanned=False)
    assert scanned.left_out == judged.left_out
    for value, one, other in zip(values, rows(scanned), rows(judged), strict=True):
        assert one == other, f"{TOPICS[topic]} {value!r}"


def taken(values: list[bytes], topic: int) -> np.ndarray:
    """Which records the scanner reads without the models' help."""
    records = codec.records_of(values)
    buffer, starts, ends = records.buffer, records.starts, records.ends
    if topic == CLICKS:
        rows_out = np.zeros(len(values), CLICK)
        scan_clicks(buffer, starts, ends, rows_out, np.empty(0, LINE), *workspace())
    else:
        rows_out = np.zeros(len(values), EVENT)
        rows_out["topic"] = topic
        scan_events(buffer, starts, ends, rows_out, np.empty(len(buffer), LINE), *workspace())
    return rows_out["kind"] > 0


every_topic = pytest.mark.parametrize("topic", range(len(TOPICS)), ids=TOPICS)


@every_topic
def test_generated_records_read_alike(topic):
    rng = random.Random(f"parity {topic}")
    values = [record(rng, TOPICS[topic]) for _ in range(6000)]
    assert_parity(values, topic)
    share = taken(values, topic).mean()
    assert 0.05 < share < 0.95, "both ways must be tried"


@every_topic
def test_plain_good_records_need_no_judge(topic):
    rng = random.Random(f"plain {topic}")
    values = [json.dumps(good(rng, TOPICS[topic])).encode() for _ in range(500)]
    # Not plain: exponents, which Python writes for small numbers, and what is seldom; the models take them.
    seldom = (b"e-", b'"changed"')
    plain = [value for value in values if not any(word in value for word in seldom)]
    plain = [value for value in plain if not (b'"cancelled"' in value and b'"lines": [' in value)]
    assert len(plain) > 300
    assert taken(plain, topic).all()


@every_topic
def test_each_byte_cut_off_or_replaced_reads_alike(topic):
    rng = random.Random(f"bytes {topic}")
    value = json.dumps(good(rng, TOPICS[topic])).encode()
    values = [value[:at] for at in range(len(value))]
    for byte in b'\x00"\\{}[]:,. 0-eE\x80\xff\x1f\x7f':
        values += [value[:at] + bytes([byte]) + value[at + 1 :] for at in range(len(value))]
        values += [value[:at] + bytes([byte]) + value[at:] for at in range(len(value) + 1)]
    assert_parity(values, topic)


@every_topic
def test_an_odd_value_in_any_field_reads_alike(topic):
    rng = random.Random(f"fields {topic}")
    values = []
    for _ in range(3):
        value = good(rng, TOPICS[topic])
        names = [*value, "lines", "line_ids", "destination", "sku", "quantity", "unknown"]
        values += [json.dumps(value | {name: odd}).encode() for name in names for odd in ODD_VALUES]
        splices = [splice.decode("latin-1") for splice in SPLICES]
        values += [
            json.dumps(value | {name: "@"}).replace('"@"', splice).encode("latin-1") for name in names for splice in splices
        ]
    assert_parity(values, topic)


DESCRIBED = {
    "sales.v1": ("channel", "customer_id", "receipt_id", "unit_price", "currency"),
    "stock.v1": ("lot_id", "reason", "expires_at"),
    "orders.v1": ("channel", "customer_id", "currency", "campaign_id"),
    "fulfilments.v1": ("reason",),
    "clicks.v1": ("customer_id", "campaign_id"),
}


@pytest.mark.parametrize("topic", [TOPICS.index(name) for name in DESCRIBED], ids=DESCRIBED)
def test_a_field_that_only_describes_costs_nothing_when_it_is_wrong(topic):
    rng, told = random.Random(f"described {topic}"), Counter()
    for _ in range(60):
        value = good(rng, TOPICS[topic])
        fields = [name for name in DESCRIBED[TOPICS[topic]] if (name, value["kind"]) != ("expires_at", "held")]
        plain = {name: found for name, found in value.items() if name not in fields}
        odd = [plain | {name: wrong} for name in fields for wrong in ([], {"a": 1}, True, -1.5)]
        values = [json.dumps(each).encode() for each in [plain, *odd]]
        assert_parity(values, topic)
        batch = batch_of(values, topic, scanned=True)
        found = [{name: said for name, said in row.items() if name not in ("offset", "timestamp")} for row in rows(batch)]
        assert found[0]["kind"] > 0 and all(row == found[0] for row in found)
        told.update(name for names in batch.left_out.values() for name in names)
    assert set(told) == set(DESCRIBED[TOPICS[topic]])


@every_topic
def test_a_repeated_key_reads_alike(topic):
    rng = random.Random(f"repeated {topic}")
    values = []
    for _ in range(10):
        value = good(rng, TOPICS[topic])
        inner = [value, *value.get("lines", [])[:1]] if isinstance(value.get("lines", []), list) else [value]
        inner += [value["destination"]] if value.get("destination") else []
        whole = json.dumps(value)
        for repeated in inner:
            text = json.dumps(repeated)
            for name in repeated:
                for again in ("null", json.dumps(repeated[name]), '"other"', "1"):
                    member = f'"{name}": {again}'
                    for twice in (f"{{{member}, {text[1:]}", f"{text[:-1]}, {member}}}"):
                        values.append(whole.replace(text, twice, 1).encode())
    assert_parity(values, topic)


def json_values() -> st.SearchStrategy:
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


FIELD_NAMES = sorted({name for topic in TOPICS for seed in range(40) for name in good(random.Random(seed), topic)})


@settings(deadline=None, max_examples=300)
@given(
    topic=st.integers(0, len(TOPICS) - 1),
    seed=st.integers(0, 1 << 32),
    changes=st.dictionaries(st.sampled_from(FIELD_NAMES) | st.text(), json_values(), max_size=4),
    plain=st.booleans(),
)
def test_any_json_in_any_field_reads_alike(topic, seed, changes, plain):
    value = good(random.Random(seed), TOPICS[topic]) | changes
    assert_parity([json.dumps(value, ensure_ascii=plain).encode()], topic)


@settings(deadline=None, max_examples=300)
@given(topic=st.integers(0, len(TOPICS) - 1), values=st.lists(st.none() | st.binary(), max_size=5))
def test_any_bytes_read_alike(topic, values):
    assert_parity(values, topic)


@settings(deadline=None, max_examples=500)
@given(latitude=st.floats(-91, 91), digits=st.integers(0, 25))
def test_coordinates_are_read_to_the_last_bit(latitude, digits):
    template = '{"event_id":"e","event_time":1,"visitor_id":"v","kind":"view","channel":"w","latitude":%s}'
    texts = [repr(latitude), f"{latitude:.{digits}f}", f"{latitude:.17g}"]
    assert_parity([(template % text).encode() for text in texts], CLICKS)


def test_random_coordinates_need_no_judge():
    rng = random.Random(1)
    template = '{"event_id":"e","event_time":1,"visitor_id":"v","kind":"view","channel":"w","latitude":%r,"longitude":%r}'
    values = [(template % (rng.uniform(-90, 90), rng.uniform(-180, 180))).encode() for _ in range(5000)]
    assert_parity(values, CLICKS)
    assert taken(values, CLICKS).mean() > 0.99


def test_batches_of_mixed_topics_keep_each_record_to_itself():
    rng = random.Random("mixed")
    topics = [rng.randrange(len(INVENTORY_TOPICS)) for _ in range(3000)]
    values = [record(rng, TOPICS[topic]) for topic in topics]
    numbers = np.arange(len(values))
    together = rows(codec.decode(codec.records_of(values, numbers, numbers + 7), topics))
    for topic in range(len(INVENTORY_TOPICS)):
        places = [place for place, found in enumerate(topics) if found == topic]
        alone = decoded([values[place] for place in places], topic, scanned=True)
        for place, one in zip(places, alone, strict=True):
            assert together[place] == one | {"offset": place, "timestamp": place + 7}, values[place]


def test_every_input_topic_but_the_network_is_covered():
    assert set(TOPICS) == set(MODELS) - {"locations.v1"}
