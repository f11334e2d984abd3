"""What the encoder writes: the contract's JSON, equal to a plain reference, readable by the output models."""

from base64 import b64decode

import numpy as np
import orjson
import pytest

from state.columns import CELL, LOCATION, SKU
from topics.codec.encode import encode_allocations, encode_dead_letter, encode_inventory
from topics.columns import DECISION, DECISION_LINE, DECISION_SHIPMENT, EVENT, LOSER
from topics.events import MAX_ID
from topics.keys import compound_key
from topics.outputs import Allocation, DeadLetterRecord, Inventory
from topics.reasons import DeadLetter, Lost, ShipmentKind, Status, Unallocated, Won

TOPICS = ["sales.v1", "orders.v1", "locations.v1"]
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
        self.rows["lines"].append((at, size, sku, quantity, reason))
        line = {"line_id": line_id, "sku": self.sku_ids[sku], "quantity": quantity}
        return line | {"reason": Unallocated(reason).wire} if reason else line

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

    def encode(self) -> list[dict]:
        return encode_allocations(
            self.decisions,
            np.array(self.rows["shipments"], DECISION_SHIPMENT),
            np.array(self.rows["lines"], DECISION_LINE),
            np.array(self.rows["losers"], LOSER),
            heap=self.texts.array(),
            skus=self.skus,
            locations=self.locations,
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
        assert Allocation.model_validate_json(message["value"]).model_dump() == expected


def test_a_decision_of_a_thousand_long_lines_fits():
    decisions = Decisions(3, 1)
    first = len(decisions.rows["lines"])
    sku = decisions.sku_ids.index("😀" * MAX_ID)
    for _ in range(1000):
        at, size = decisions.texts.add("😀" * MAX_ID)
        decisions.rows["lines"].append((at, size, sku, 1, Unallocated.NO_STOCK))
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
