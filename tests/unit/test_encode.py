"""What the encoder writes: the contract's JSON, equal to a plain reference, readable by the output models."""

from base64 import b64decode

import numpy as np
import orjson
import pytest

from state.columns import CELL, EXPECTED_SUPPLY, IN_TRANSIT, LINE, LOCATION, SKU, SUPPLIES
from topics.codec.encode import (
    encode_alerts,
    encode_allocations,
    encode_dead_letter,
    encode_inventory,
    encode_supplies,
    encode_transfers,
)
from topics.columns import ALERT, DECISION, DECISION_LINE, DECISION_SHIPMENT, EVENT, LOSER
from topics.events import MAX_ID
from topics.keys import compound_key
from topics.outputs import Alert, Allocation, DeadLetterRecord, Inventory, Supply, Transfer
from topics.reasons import AlertKind, AlertStatus, DeadLetter, Kind, Lost, ShipmentKind, Status, Unallocated, Won

TOPICS = ["sales.v1", "orders.v1", "locations.v1"]
MOST_PARTS = 50
POLICIES = [("nearest", 1), ('"a" policy', 12)]
ODD_TEXTS = ['"', "\\", "A-1", '\\"' * (MAX_ID // 2), "é", "😀" * MAX_ID, "two words", "S/K\\U", "x" * MAX_ID, "%" * MAX_ID]


class Texts:
    """A heap being filled."""

    def __init__(self):
        self.heap = bytearray(b"\xff" * 7)

    def add(self, text: str) -> tuple[int, int]:
        at = len(self.heap)
        self.heap += text.encode()
        return at, len(self.heap) - at

    def array(self) -> np.ndarray:
        return np.frombuffer(bytes(self.heap), np.uint8)


def named(dtype: np.dtype, ids: list[str], texts: Texts) -> np.ndarray:
    table = np.zeros(len(ids), dtype)
    for row, text in enumerate(ids):
        table["id_at"][row], table["id_size"][row] = texts.add(text)
    return table


class Decisions:
    """Random decision columns beside what they mean as plain values."""

    def __init__(self, seed: int, count: int):
        self.random = np.random.default_rng(seed)
        self.texts = Texts()
        self.sku_ids = [*ODD_TEXTS, "SKU-1", "SKU-2"]
        self.location_ids = [*ODD_TEXTS[::-1], "STORE-1"]
        self.skus = named(SKU, self.sku_ids, self.texts)
        self.locations = named(LOCATION, self.location_ids, self.texts)
        self.events = np.zeros(5, EVENT)
        self.events["topic"] = self.random.integers(0, len(TOPICS), 5)
        self.events["offset"] = self.random.integers(0, 1 << 60, 5)
        self.partitions = self.random.integers(0, 64, 5).astype(np.int32)
        self.rows: dict[str, list[tuple]] = {"shipments": [], "lines": [], "losers": []}
        self.pieces: list[tuple[int, int, int]] = []
        """SKU, units in one kit, next: the rows of kits' parts."""
        self.pool_id = 'u"k'
        self.expected = []
        decisions = [self.decision(number) for number in range(count)]
        self.decisions = np.array(decisions, DECISION)

    def pick(self, values):
        return values[int(self.random.integers(0, len(values)))]

    def text(self) -> tuple[str, int, int]:
        text = self.pick(ODD_TEXTS)
        return text, *self.texts.add(text)

    def location(self) -> tuple[int, str]:
        row = int(self.random.integers(0, len(self.location_ids)))
        return row, self.location_ids[row]

    def distance(self) -> tuple[int, float]:
        metres = self.pick([0, 1, 10, 100, 1000, 12345, 20_015_087, int(self.random.integers(0, 20_000_000))])
        return metres, metres / 1000

    def line(self, reason: int = 0) -> dict:
        line_id, at, size = self.text()
        sku = int(self.random.integers(0, len(self.sku_ids)))
        quantity = self.pick([1, 9, 10, 99, 1_000_000_000])
        kit, parts = self.parts(quantity)
        self.rows["lines"].append((at, size, sku, kit, quantity, reason))
        line = {"line_id": line_id, "sku": self.sku_ids[sku], "quantity": quantity} | parts
        return line | {"reason": Unallocated(reason).wire} if reason else line

    def parts(self, quantity: int) -> tuple[int, dict]:
        """The parts of so many kits: the row of the first, and what is written; of three lines in four none."""
        count = self.pick([0, 0, 0, int(self.random.integers(1, MOST_PARTS + 1))])
        skus = self.random.integers(0, len(self.sku_ids), count).tolist()
        units = [self.pick([1, 2, 1_000_000_000]) for _ in skus]
        first = len(self.pieces)
        for at, (sku, each) in enumerate(zip(skus, units, strict=True), first + 1):
            self.pieces.append((sku, each, at if at < first + count else -1))
        written = [{"sku": self.sku_ids[sku], "quantity": each * quantity} for sku, each in zip(skus, units, strict=True)]
        return (first, {"parts": written}) if count else (-1, {})

    def shipment(self) -> dict:
        sequence, number = int(self.random.integers(1, 1 << 62)), int(self.random.integers(1, 1000))
        row, location_id = self.location()
        metres, km = self.distance()
        kind = self.pick(list(ShipmentKind))
        first = len(self.rows["lines"])
        lines = [self.line() for _ in range(self.random.integers(0, 4))]
        self.rows["shipments"].append((sequence, number, row, metres, kind, first, len(lines)))
        return {
            "shipment_id": f"0a1b2c3d-{sequence}-{number}",
            "location_id": location_id,
            "kind": kind.wire,
            "distance_km": km,
            "lines": lines,
        }

    def loser(self) -> dict:
        row, location_id = self.location()
        metres, km = self.distance()
        reason = self.pick(list(Lost))
        self.rows["losers"].append((row, metres, reason))
        return {"location_id": location_id, "distance_km": km, "reason": reason.wire}

    def decision(self, number: int) -> tuple:
        order_id, order_at, order_size = self.text()
        firsts = []
        children = []
        for table, make in (
            ("shipments", self.shipment),
            ("lines", lambda: self.line(self.pick(list(Unallocated)))),
            ("losers", self.loser),
        ):
            count = int(self.random.integers(0, 4))
            firsts += [len(self.rows[table]), count]
            children.append([make() for _ in range(count)])
        sequence, decided_at = number + 1, int(self.random.integers(0, 253_402_300_799_999))
        event = int(self.random.integers(0, len(self.events)))
        policy = int(self.random.integers(0, len(POLICIES)))
        status, won, considered = self.pick(list(Status)), self.pick(list(Won)), int(self.random.integers(0, 5000))
        self.expected.append(
            {
                "allocation_id": f"0a1b2c3d-{sequence}",
                "sequence": sequence,
                "order_id": order_id,
                "pool_id": self.pool_id,
                "status": status.wire,
                "shipments": children[0],
                "unallocated": children[1],
                "policy": POLICIES[policy][0],
                "decided_at": decided_at,
                "source": {
                    "topic": TOPICS[self.events["topic"][event]],
                    "partition": int(self.partitions[event]),
                    "offset": int(self.events["offset"][event]),
                },
                "explanation": {
                    "policy": POLICIES[policy][0],
                    "version": POLICIES[policy][1],
                    "considered": considered,
                    "won": won.wire,
                    "lost": children[2],
                },
            }
        )
        return (sequence, decided_at, order_at, order_size, event, status, won, policy, considered, *firsts)

    def piece_rows(self) -> np.ndarray:
        rows = np.zeros(len(self.pieces), LINE)
        rows["sku"], rows["quantity"], rows["next"] = np.array(self.pieces, np.int64).reshape(-1, 3).T
        return rows

    def encode(self) -> list[dict]:
        return encode_allocations(
            self.decisions,
            np.array(self.rows["shipments"], DECISION_SHIPMENT),
            np.array(self.rows["lines"], DECISION_LINE),
            np.array(self.rows["losers"], LOSER),
            heap=self.texts.array(),
            skus=self.skus,
            locations=self.locations,
            pieces=self.piece_rows(),
            most_pieces=MOST_PARTS,
            events=self.events,
            partitions=self.partitions,
            topic_names=TOPICS,
            policies=POLICIES,
            pool_id=self.pool_id.encode(),
            tag=b"0a1b2c3d",
        )


@pytest.mark.parametrize("seed", range(5))
def test_allocations_are_byte_for_byte_the_plain_reference(seed):
    decisions = Decisions(seed, 200)
    messages = decisions.encode()
    assert [message["value"] for message in messages] == [orjson.dumps(value) for value in decisions.expected]
    assert [message["key"] for message in messages] == [value["order_id"].encode() for value in decisions.expected]


def test_allocations_read_back_as_their_model():
    decisions = Decisions(99, 200)
    for message, expected in zip(decisions.encode(), decisions.expected, strict=True):
        assert Allocation.model_validate_json(message["value"]).model_dump(exclude_unset=True) == expected


def test_a_decision_of_a_thousand_long_lines_fits():
    decisions = Decisions(3, 1)
    first = len(decisions.rows["lines"])
    sku = decisions.sku_ids.index("😀" * MAX_ID)
    for _ in range(1000):
        at, size = decisions.texts.add("😀" * MAX_ID)
        decisions.rows["lines"].append((at, size, sku, -1, 1, Unallocated.NO_STOCK))
    decisions.decisions["first_unallocated"] = first
    decisions.decisions["unallocated_count"] = 1000
    allocation = Allocation.model_validate_json(next(iter(decisions.encode()))["value"])
    assert {line.line_id for line in allocation.unallocated} == {"😀" * MAX_ID}
    assert len(allocation.unallocated) == 1000


def test_no_decisions_are_no_records():
    empty = Decisions(0, 0)
    assert list(empty.encode()) == []


def test_inventory_is_byte_for_byte_the_plain_reference_and_reads_back():
    texts = Texts()
    sku_ids, location_ids = ODD_TEXTS, ODD_TEXTS[::-1]
    skus, locations = named(SKU, sku_ids, texts), named(LOCATION, location_ids, texts)
    random = np.random.default_rng(7)
    cells = np.zeros(300, CELL)
    for name, low, high in (
        ("sku", 0, len(sku_ids)),
        ("location", 0, len(location_ids)),
        ("on_hand", -1_000_000_000, 1_000_000_001),
        ("reserved", 0, 1_000_000_001),
        ("safety_stock", 0, 1_000_000_001),
        ("version", 1, 1 << 31),
        ("updated_at", 0, 253_402_300_800_000),
    ):
        cells[name] = random.integers(low, high, len(cells))
    cells["reserved"][:100] %= 10
    cells["safety_stock"][:100] %= 10
    cells["on_hand"][:20] = 0
    rows = random.permutation(len(cells)).astype(np.int32)
    messages = encode_inventory(cells, rows, skus=skus, locations=locations, heap=texts.array(), pool_id=b'u"k')
    assert len(messages) == len(rows)
    for row, message in zip(rows, messages, strict=True):
        cell = {name: int(cells[name][row]) for name in CELL.names}
        location_id, sku = location_ids[cell["location"]], sku_ids[cell["sku"]]
        expected = {
            "pool_id": 'u"k',
            "location_id": location_id,
            "sku": sku,
            "on_hand": cell["on_hand"],
            "reserved": cell["reserved"],
            "safety_stock": cell["safety_stock"],
            "available": max(0, cell["on_hand"] - cell["reserved"] - cell["safety_stock"]),
            "version": cell["version"],
            "updated_at": cell["updated_at"],
        }
        assert message == {"key": compound_key(location_id, sku).encode(), "value": orjson.dumps(expected)}
        assert Inventory.model_validate_json(message["value"]).model_dump() == expected


class Supplies:
    """Random rows of the table of supplies, beside the pool they belong to."""

    def __init__(self, seed: int):
        random, texts = np.random.default_rng(seed), Texts()
        self.sku_ids, self.location_ids, self.references = [*ODD_TEXTS, "SKU-1"], [*ODD_TEXTS[::-1], "STORE-1"], ODD_TEXTS
        self.skus, self.locations = named(SKU, self.sku_ids, texts), named(LOCATION, self.location_ids, texts)
        ids = [texts.add(text) for text in self.references]
        self.rows = np.zeros(300, SUPPLIES.dtype)
        self.of = random.integers(0, len(self.references), 300)
        self.rows["id_at"], self.rows["id_size"] = np.array(ids)[self.of].T
        for name, low, high in (
            ("sku", 0, len(self.sku_ids)),
            ("location", 0, len(self.location_ids)),
            ("origin", -1, len(self.location_ids)),
            ("quantity", 0, 1 << 40),
            ("received", 0, 1 << 40),
            ("sent_at", 0, 253_402_300_000_000),
            ("expected_at", 0, 253_402_300_800_000),
            ("updated_at", 0, 253_402_300_800_000),
        ):
            self.rows[name] = random.integers(low, high, 300)
        self.rows["quantity"][:100] %= 3
        self.rows["sent_at"][50:150] = -1
        self.gone = random.random(300) < 0.2
        self.order = random.permutation(300).astype(np.int32)
        self.heap = texts.array()

    def encoded(self, encode, **more):
        shared = {"skus": self.skus, "locations": self.locations, "heap": self.heap, "pool_id": b'u"/k'}
        return encode(self.rows, self.order, self.gone[self.order], **shared, **more)

    def expected(self, describe):
        """(Key, value or None) of each message."""
        for row in self.order.tolist():
            supply = {name: int(self.rows[name][row]) for name in SUPPLIES.dtype.names}
            reference, sku = self.references[self.of[row]], self.sku_ids[supply["sku"]]
            key = compound_key('u"/k', reference, sku).encode()
            yield key, None if self.gone[row] else describe(supply, reference, sku)


@pytest.mark.parametrize("kind, seed", [(IN_TRANSIT, 6), (EXPECTED_SUPPLY, 7)])
def test_what_is_to_come_is_written_with_every_key_and_value_and_what_is_gone_without(kind, seed):
    supplies = Supplies(seed)
    rows = supplies.rows
    if kind == IN_TRANSIT:
        rows["quantity"][200:] -= rows["received"][200:] // 2  # never below what was received
        rows["alerts"][::2] = 1 << AlertKind.TRANSFER_OVERDUE

    def transfer(supply, reference, sku):
        units, sent_at = supply["quantity"], supply["sent_at"]
        late = "overdue" if supply["alerts"] else "open"
        return {
            "pool_id": 'u"/k',
            "transfer_id": reference,
            "from": None if supply["origin"] < 0 else supplies.location_ids[supply["origin"]],
            "to": supplies.location_ids[supply["location"]],
            "sku": sku,
            "sent": units + supply["received"],
            "received": supply["received"],
            "open": max(0, units),
            "sent_at": None if sent_at < 0 else sent_at,
            "expected_at": None if sent_at < 0 else sent_at + 5,
            "status": late if units > 0 else "excess" if units < 0 else "received",
            "updated_at": supply["updated_at"],
        }

    def supply(row, reference, sku):
        named = {"pool_id": 'u"/k', "supply_id": reference, "location_id": supplies.location_ids[row["location"]], "sku": sku}
        return named | {"quantity": row["quantity"], "expected_at": row["expected_at"], "updated_at": row["updated_at"]}

    if kind == IN_TRANSIT:
        messages, model, wanted = supplies.encoded(encode_transfers, transfer_ms=5), Transfer, supplies.expected(transfer)
    else:
        rows["quantity"] %= 1_000_000_000
        rows["quantity"] += 1
        messages, model, wanted = supplies.encoded(encode_supplies), Supply, supplies.expected(supply)
    for message, (key, value) in zip(messages, wanted, strict=True):
        assert message == {"key": key, "value": None if value is None else orjson.dumps(value)}
        if value is not None:
            assert model.model_validate_json(message["value"]).model_dump(by_alias=True) == value


@pytest.mark.parametrize("key, value", [(b"uk", b"\xff\x00"), (None, None), (b"", b"")])
def test_a_dead_letter_holds_the_record_whole(key, value):
    message = encode_dead_letter("orders.v1", 3, 7, 9, key, value, DeadLetter.NOT_JSON, 'value: "é"')
    letter = DeadLetterRecord.model_validate_json(message["value"])
    assert (letter.topic, letter.partition, letter.offset, letter.timestamp) == ("orders.v1", 3, 7, 9)
    assert (letter.reason, letter.detail) == ("not_json", 'value: "é"')
    assert message["key"] == key
    assert (decoded(letter.key), decoded(letter.value)) == (key, value)


def decoded(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def test_alerts_are_written_with_every_key_and_value():
    random, texts, supplies = np.random.default_rng(8), Texts(), Supplies(9)
    texts.heap = bytearray(supplies.heap.tobytes())
    kinds = [kind for kind in AlertKind if kind != AlertKind.FIELD_LEFT_OUT]
    of_events = [Kind.SALE, Kind.RECEIPT, Kind.SHIPPED, Kind.COUNT]
    references = [*ODD_TEXTS, ""]
    events, alerts = np.zeros(60, EVENT), np.zeros(300, ALERT)
    buffer = Texts()
    for row in range(60):
        events["reference_at"][row], events["reference_size"][row] = buffer.add(references[row % len(references)])
        events["kind"][row], events["topic"][row] = of_events[row % 4], row % len(TOPICS)
    events["timestamp"], events["offset"] = random.integers(0, 1 << 42, 60), random.integers(0, 1 << 60, 60)
    for name, high in (("event", 60), ("location", len(supplies.locations)), ("sku", len(supplies.skus)), ("time", 1 << 42)):
        alerts[name] = random.integers(0, high, 300)
    for name in ("found", "expected"):
        alerts[name] = random.integers(-(1 << 40), 1 << 40, 300)
    alerts["kind"], alerts["status"] = random.choice(kinds, 300), random.choice(list(AlertStatus), 300)
    alerts["supply"] = np.where(np.isin(alerts["kind"], (AlertKind.TRANSFER_EXCESS, AlertKind.TRANSFER_OVERDUE)), 5, -1)
    messages = encode_alerts(
        alerts,
        supplies=supplies.rows,
        skus=supplies.skus,
        locations=supplies.locations,
        heap=supplies.heap,
        events=events,
        partitions=np.arange(60, dtype=np.int32),
        buffer=buffer.array(),
        topic_names=TOPICS,
        pool_id=b'u"/k',
    )
    for message, alert in zip(messages, alerts, strict=True):
        kind, row = AlertKind(int(alert["kind"])), int(alert["event"])
        location, sku = supplies.location_ids[alert["location"]], supplies.sku_ids[alert["sku"]]
        transfer = supplies.references[supplies.of[5]] if alert["supply"] >= 0 else None
        order_id = references[row % len(references)] if row % 4 in (0, 2) and transfer is None else None
        last = str(int(events["timestamp"][row]) // 60_000) if kind is AlertKind.LATE_MOVEMENT else sku
        value = {
            "alert_id": compound_key(kind.wire, 'u"/k', transfer or location, last),
            "kind": kind.wire,
            "severity": "critical" if kind.wire in ("shortfall", "shipped_after_close", "over_shipped") else "warning",
            "status": AlertStatus(int(alert["status"])).wire,
            "pool_id": 'u"/k',
            "location_id": location,
            "sku": sku,
            "order_id": order_id or None,
            "field": None,
            "transfer_id": transfer,
            "found": int(alert["found"]),
            "expected": int(alert["expected"]),
            "since": int(alert["time"]),
            "source": {"topic": TOPICS[row % len(TOPICS)], "partition": row, "offset": int(events["offset"][row])},
            "remedy": kind.sentence,
        }
        assert message == {"key": value["alert_id"].encode(), "value": orjson.dumps(value)}
        assert Alert.model_validate_json(message["value"]).model_dump() == value
