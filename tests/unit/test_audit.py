"""The audit over a log written by hand: clean as it stands, and each way of spoiling it is found and named.

`Hand` only packs what a test says (records, a manifest, cells); nothing of the product works out what is right here.
"""

import json
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from streams.audit import audit_log
from streams.audit.ledger import Limits
from streams.audit.log import MemoryLog, Record
from streams.audit.report import Report

HOUR_MS = 3_600_000
T0 = 1_700_000_000_000
TOPICS = ("sales.v1", "stock.v1", "orders.v1", "fulfilments.v1", "ticks.v1")
OUTPUTS = ("allocations.v1", "inventory.v1", "dead-letter.v1", "inventory-changelog.v1", "locations.v1")
LIMITS = Limits(dedupe_events=1000, dedupe_ms=24 * HOUR_MS, horizon_ms=48 * HOUR_MS, closed_ms=720 * HOUR_MS)
POOL_DTYPE = np.dtype([("sequence", "<i8"), ("now", "<i8")], align=True)
NAME_DTYPE = np.dtype([("id_size", "<i4"), ("id_at", "<i8")], align=True)
CELL_FIELDS = ("location", "sku", "on_hand", "reserved", "safety_stock", "version")
CELL_DTYPE = np.dtype([*((name, "<i4") for name in CELL_FIELDS), ("updated_at", "<i8")], align=True)
LINCOLN = {"latitude": 53.23, "longitude": -0.54}
PLACES = {
    "DC": {"kind": "warehouse", "latitude": 53.48, "longitude": -2.24},
    "LEEDS": {"kind": "store", "latitude": 53.8, "longitude": -1.55},
    "BATH": {"kind": "pickup_point", "latitude": 51.38, "longitude": -2.36},
}


def km(a: dict, b: dict) -> float:
    """Great circle by the law of cosines, rounded to a metre."""
    p, q = np.radians([a["latitude"], b["latitude"]])
    cosine = np.sin(p) * np.sin(q) + np.cos(p) * np.cos(q) * np.cos(np.radians(a["longitude"] - b["longitude"]))
    return round(float(6371.0088 * np.arccos(min(1.0, cosine))), 3)


@dataclass
class Hand:
    """A log in the making: one pool, `uk`, in the only partition."""

    records: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    now: int = T0
    sequence: int = 0
    batches: int = 0
    pending: list[tuple[str, int]] = field(default_factory=list)
    locations: list[dict] = field(default_factory=list)
    skus: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    versions: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))

    def append(self, topic: str, value, key: bytes | None = b"uk", headers=()) -> int:
        offset = len(self.records[topic])
        data = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
        self.records[topic].append(Record(offset, self.now, key, data, tuple(headers)))
        return offset

    def location(self, location_id: str, kind: str, **fields) -> None:
        value = {"id": location_id, "pool": "uk", "kind": kind, "capabilities": None, "enabled": True, **fields}
        offset = self.append("locations.v1", value, location_id.encode())
        self.locations.append({"partition": 0, "offset": offset, "timestamp": self.now, "key": location_id, "value": value})
        if location_id not in self.places:
            self.places.append(location_id)

    def event(self, topic: str, value, *decisions: dict, dead: str | None = None, after_ms: int = 10, key=b"uk") -> int:
        """Append an input, with the decisions it causes, or the reason for which it is refused."""
        self.now += after_ms
        offset = self.append(topic, value, key)
        self.pending.append((topic, offset))
        for decision in decisions:
            self.decide(decision, topic, offset)
        if dead:
            record = self.records[topic][offset]
            letter = {
                "topic": topic,
                "partition": 0,
                "offset": offset,
                "timestamp": record.timestamp,
                "reason": dead,
                "detail": "as the test says",
                "key": None if record.key is None else b64encode(record.key).decode(),
                "value": None if record.value is None else b64encode(record.value).decode(),
            }
            self.append("dead-letter.v1", letter, record.key)
        return offset

    def decide(self, decision: dict, topic: str, offset: int) -> None:
        self.sequence += 1
        allocation_id = f"0000abcd-{self.sequence}"
        shipments = [
            each | {"shipment_id": each.get("shipment_id") or f"{allocation_id}-{number}"}
            for number, each in enumerate(decision["shipments"], 1)
        ]
        value = {
            "allocation_id": allocation_id,
            "sequence": self.sequence,
            "pool_id": "uk",
            "policy": "nearest",
            "decided_at": self.now,
            "source": {"topic": topic, "partition": 0, "offset": offset},
            "explanation": {"policy": "nearest", "version": 1, "considered": 3, "won": "nearest", "lost": []},
            **decision,
            "shipments": shipments,
        }
        self.append("allocations.v1", value, decision["order_id"].encode())

    def batch(self, **cells: tuple[int, ...]) -> None:
        """Close a batch; `DC_A=(on hand, reserved, safety stock)` are the cells it changed."""
        self.batches += 1
        rows = [self._cell(*name.split("_"), *numbers) for name, numbers in cells.items()]
        inputs = []
        for topic in TOPICS:
            offsets = [offset for name, offset in self.pending if name == topic]
            if offsets:
                inputs.append({"topic": topic, "first": offsets[0], "next": offsets[-1] + 1, "count": len(offsets)})
        record = self._pack(inputs, bytes(TOPICS.index(topic) for topic, _ in self.pending), rows)
        middle = len(record) // 2
        for number, part in ((1, record[:middle]), (2, record[middle:])):
            headers = (("batch", str(self.batches).encode()), ("part", f"{number}/2".encode()))
            self.append("inventory-changelog.v1", part, b"batch", headers)
        self.pending, self.locations = [], []

    def _cell(self, place: str, sku: str, on_hand: int, reserved: int = 0, safety_stock: int = 0) -> tuple:
        if sku not in self.skus:
            self.skus.append(sku)
        self.versions[place, sku] += 2
        version = self.versions[place, sku]
        value = {
            "pool_id": "uk",
            "location_id": place,
            "sku": sku,
            "on_hand": on_hand,
            "reserved": reserved,
            "safety_stock": safety_stock,
            "available": max(0, on_hand - reserved - safety_stock),
            "version": version,
            "updated_at": self.now,
        }
        self.append("inventory.v1", value, f"{place}/{sku}".encode())
        numbers = (on_hand, reserved, safety_stock, version, self.now)
        return (self.places.index(place), self.skus.index(sku), *numbers)

    def _pack(self, inputs: list[dict], order: bytes, rows: list[tuple]) -> bytes:
        blobs = bytearray(order)
        texts = [text.encode() for text in (*self.places, *self.skus)]
        starts = [sum(map(len, texts[:i])) for i in range(len(texts))]
        names = [(len(text), start) for text, start in zip(texts, starts, strict=True)]
        heap = np.array([(0, sum(map(len, texts)))], np.dtype([("at", "<i8"), ("size", "<i4")]))
        tables = [{"name": "heap", "kind": "bytes", "count": 1, "rows_at": len(blobs), "at": len(blobs) + heap.nbytes}]
        blobs += heap.tobytes() + b"".join(texts)

        def table(name: str, values: np.ndarray) -> None:
            numbers = np.arange(values.size, dtype="<i4")
            columns = {
                "names": list(values.dtype.names),
                "formats": [values.dtype[name].str for name in values.dtype.names],
                "offsets": [values.dtype.fields[name][1] for name in values.dtype.names],
                "itemsize": values.dtype.itemsize,
            }
            entry = {"name": name, "kind": "rows", "columns": columns, "count": values.size, "bytes": values.nbytes}
            tables.append(entry | {"rows_at": len(blobs), "at": len(blobs) + numbers.nbytes})
            blobs.extend(numbers.tobytes() + values.tobytes())

        table("locations", np.array(names[: len(self.places)], NAME_DTYPE))
        table("skus", np.array(names[len(self.places) :], NAME_DTYPE))
        table("pool", np.array([(self.sequence, self.now)], POOL_DTYPE))
        table("cells", np.array(rows, CELL_DTYPE))
        manifest = {
            "version": 1,
            "batch": self.batches,
            "partition": 0,
            "topics": TOPICS,
            "inputs": inputs,
            "order": {"at": 0, "bytes": len(order)},
            "locations": self.locations,
            "pools": [{"pool_id": "uk", "tables": tables}],
        }
        text = json.dumps(manifest).encode()
        return len(text).to_bytes(4, "little") + text + bytes(blobs)

    def audit(self, complete: bool = False, moving: bool = False, committed: dict | None = None) -> Report:
        log = MemoryLog(
            {(topic, 0): records for topic, records in self.records.items()},
            dict.fromkeys((*TOPICS, *OUTPUTS), 1),
            {(topic, 0): offset for topic, offset in (committed or {}).items()},
            moving,
        )
        return audit_log(log, LIMITS, complete=complete)

    # Spoiling

    def edit(self, topic: str, offset: int, change: Callable[[dict], object]) -> None:
        """Change a JSON record in place."""
        record = self.records[topic][offset]
        value = json.loads(record.value)
        change(value)
        self.records[topic][offset] = record._replace(value=json.dumps(value).encode())

    def drop(self, topic: str, offset: int) -> None:
        """Take a record out, as if it had never been; the others keep their offsets."""
        self.records[topic] = [record for record in self.records[topic] if record.offset != offset]

    def find(self, topic: str, **fields) -> int:
        """Offset of the first record with these fields."""
        for record in self.records[topic]:
            value = json.loads(record.value)
            if all(value.get(name) == wanted for name, wanted in fields.items()):
                return record.offset
        raise LookupError(fields)


# What the hand-written records are made of


def line(line_id: str, sku: str, quantity: int, reason: str | None = None) -> dict:
    return {"line_id": line_id, "sku": sku, "quantity": quantity} | ({"reason": reason} if reason else {})


def ship(place: str, *lines: dict, kind: str = "ship", to: dict = LINCOLN, shipment_id: str = "") -> dict:
    distance = {"distance_km": km(PLACES[place], to)}
    return {"shipment_id": shipment_id, "location_id": place, "kind": kind, "lines": list(lines), **distance}


def says(order_id: str, status: str, *shipments: dict, waits: tuple[dict, ...] = ()) -> dict:
    return {"order_id": order_id, "status": status, "shipments": list(shipments), "unallocated": list(waits)}


def stock(event_id: str, kind: str, place: str, sku: str, quantity: int, **fields) -> dict:
    own = {"event_id": event_id, "event_time": T0, "kind": kind}
    return own | {"location_id": place, "sku": sku, "quantity": quantity} | fields


def order(event_id: str, order_id: str, *lines: dict, kind: str = "placed", **fields) -> dict:
    own = {"event_id": event_id, "event_time": T0, "kind": kind, "order_id": order_id, "lines": list(lines)}
    return own | ({} if "mode" in fields else {"destination": LINCOLN}) | fields


def answer(event_id: str, kind: str, order_id: str, shipment_id: str, place: str, *lines: tuple, **fields) -> dict:
    own = {"event_id": event_id, "event_time": T0, "kind": kind, "order_id": order_id, "shipment_id": shipment_id}
    given = {"lines": [{"line_id": line_id, "quantity": units} for line_id, units in lines]} if lines else {}
    return own | {"location_id": place} | given | fields


def cancel(event_id: str, order_id: str, **fields) -> dict:
    return {"event_id": event_id, "event_time": T0, "kind": "cancelled", "order_id": order_id, **fields}


def clean() -> Hand:
    """Write a log in which everything is as it must be."""
    hand = Hand()
    for place, value in PLACES.items():
        hand.location(place, **value)
    hand.event("stock.v1", stock("e1", "receipt", "DC", "A", 10))
    hand.batch(DC_A=(10,))
    hand.event("sales.v1", stock("e2", "sale", "DC", "A", 3))
    hand.batch(DC_A=(7,))
    hand.event("stock.v1", stock("e3", "receipt", "LEEDS", "A", 4))
    hand.event("stock.v1", stock("e4", "safety_stock", "LEEDS", "A", 1))
    hand.batch(LEEDS_A=(4, 0, 1))

    # What changes nothing: a repetition, and all that is refused.
    hand.event("sales.v1", stock("e2", "sale", "DC", "A", 3))
    hand.event("sales.v1", b"{", dead="not_json")
    hand.event("sales.v1", None, dead="not_json")
    hand.event("sales.v1", {"kind": "sale"}, dead="missing_field")
    hand.event("sales.v1", stock("e5", "sale", "DC", "A", 0), dead="out_of_range")
    hand.event("sales.v1", stock("e5", "sale", "MOON", "A", 1), dead="unknown_location")
    hand.event("sales.v1", stock("e5", "sale", "DC", "A", 1), key=None, dead="missing_key")
    hand.event("sales.v1", stock("e5", "sale", "DC", "A", 1), key=b"mars", dead="unknown_pool")
    hand.event("stock.v1", stock("e5", "receipt", "DC", "A", 1_000_000_000), dead="out_of_range")
    hand.event("orders.v1", cancel("e5", "O1"), dead="unknown_order")
    hand.batch()

    # Two lines of a SKU from one place; another order waits; a refusal sends a line elsewhere and frees units for it.
    hand.event(
        "orders.v1",
        order("e5", "O1", line("l1", "A", 5), line("l2", "A", 2)),
        says("O1", "allocated", ship("DC", line("l1", "A", 5), line("l2", "A", 2))),
    )
    hand.batch(DC_A=(7, 7))
    hand.event("orders.v1", order("e6", "O1", line("l1", "A", 5)), dead="order_exists")
    hand.event(
        "orders.v1", order("e7", "O2", line("l1", "A", 4)), says("O2", "backordered", waits=(line("l1", "A", 4, "no_stock"),))
    )
    hand.batch()
    hand.event("stock.v1", stock("e8", "receipt", "DC", "A", 2))
    hand.batch(DC_A=(9, 7))
    first = ship("DC", line("l1", "A", 5), shipment_id="0000abcd-1-1")
    hand.event(
        "fulfilments.v1",
        answer("e9", "rejected", "O1", "0000abcd-1-1", "DC", ("l2", 2)),
        says("O1", "allocated", first, ship("LEEDS", line("l2", "A", 2))),
        says("O2", "allocated", ship("DC", line("l1", "A", 4))),
    )
    hand.batch(DC_A=(9, 9), LEEDS_A=(4, 2, 1))

    # Shipped in two goes, some returned elsewhere; a count from before the return, and one that comes too late.
    hand.event("fulfilments.v1", answer("e10", "shipped", "O1", "0000abcd-1-1", "DC", ("l1", 3)))
    hand.batch(DC_A=(6, 6))
    hand.event("fulfilments.v1", answer("e11", "collected", "O1", "0000abcd-1-1", "DC"))
    hand.event("fulfilments.v1", answer("e12", "shipped", "O1", "0000abcd-1-1", "DC"), dead="shipment_closed", after_ms=0)
    hand.batch(DC_A=(4, 4))
    hand.event("fulfilments.v1", answer("e13", "returned", "O1", "0000abcd-1-1", "LEEDS", ("l1", 1), event_time=T0 + 50))
    hand.batch(LEEDS_A=(5, 2, 1))
    hand.event("stock.v1", stock("e14", "count", "LEEDS", "A", 3, counted_at=T0 + 20))
    hand.batch(LEEDS_A=(4, 2, 1))
    hand.event("stock.v1", stock("e15", "count", "LEEDS", "A", 9, counted_at=T0 + 10))
    hand.batch()

    # A hold that expires, by a tick, and what it held goes to who waits; a hold that is confirmed.
    hand.event(
        "orders.v1",
        order("e16", "H1", line("l1", "A", 1), kind="held", expires_at=hand.now + 1000),
        says("H1", "held", ship("LEEDS", line("l1", "A", 1))),
    )
    hand.batch(LEEDS_A=(4, 3, 1))
    hand.event(
        "orders.v1", order("e17", "O3", line("l1", "A", 1)), says("O3", "backordered", waits=(line("l1", "A", 1, "no_stock"),))
    )
    hand.batch()
    hand.event("ticks.v1", {"pool_id": "uk"}, after_ms=400)
    hand.batch()
    hand.event(
        "ticks.v1",
        {"pool_id": "uk"},
        says("H1", "expired"),
        says("O3", "allocated", ship("LEEDS", line("l1", "A", 1))),
        after_ms=1000,
    )
    hand.batch(LEEDS_A=(4, 3, 1))
    hand.event("orders.v1", cancel("e18", "O3"), says("O3", "cancelled"))
    hand.batch(LEEDS_A=(4, 2, 1))
    hand.event("orders.v1", cancel("e19", "O3"), dead="order_closed")
    hand.event(
        "orders.v1",
        order("e19", "H2", line("l1", "A", 1), kind="held", expires_at=hand.now + 1000),
        says("H2", "held", ship("LEEDS", line("l1", "A", 1))),
    )
    hand.batch(LEEDS_A=(4, 3, 1))
    kept = ship("LEEDS", line("l1", "A", 1), shipment_id=f"0000abcd-{hand.sequence}-1")
    hand.event("orders.v1", order("e20", "H2", line("l1", "A", 1)), says("H2", "allocated", kept))
    hand.batch()

    # A pickup: what its place has, and the rest comes to it; one where nothing can be picked up.
    hand.event("stock.v1", stock("e21", "receipt", "LEEDS", "B", 1))
    hand.batch(LEEDS_B=(1,))
    hand.event("stock.v1", stock("e22", "receipt", "DC", "B", 5))
    hand.batch(DC_B=(5,))
    leeds = PLACES["LEEDS"]
    own = ship("LEEDS", line("l1", "B", 1), kind="pickup", to=leeds)
    brought = ship("DC", line("l2", "B", 3), kind="transfer", to=leeds)
    request = order("e23", "P1", line("l1", "B", 1), line("l2", "B", 3), mode="pickup", pickup_location_id="LEEDS")
    hand.event("orders.v1", request, says("P1", "allocated", own, brought))
    hand.batch(LEEDS_B=(1, 1), DC_B=(5, 3))
    number = hand.sequence
    hand.event("fulfilments.v1", answer("e24", "collected", "P1", f"0000abcd-{number}-2", "LEEDS"), dead="not_shipped")
    hand.event("fulfilments.v1", answer("e24", "shipped", "P1", f"0000abcd-{number}-2", "DC"))
    hand.batch(DC_B=(2, 0))
    hand.event("fulfilments.v1", answer("e25", "collected", "P1", f"0000abcd-{number}-2", "LEEDS"))
    hand.event("fulfilments.v1", answer("e26", "collected", "P1", f"0000abcd-{number}-1", "LEEDS"))
    hand.batch(LEEDS_B=(0,))
    hand.event(
        "orders.v1",
        order("e27", "P2", line("l1", "B", 1), mode="pickup", pickup_location_id="DC"),
        says("P2", "rejected", waits=(line("l1", "B", 1, "no_pickup"),)),
    )

    # Orders that want all or one place, and wait; a place closes and opens.
    lines = line("l1", "A", 1), line("l2", "B", 2)
    hand.event(
        "orders.v1",
        order("e28", "O4", *lines, allow_split=False),
        says("O4", "backordered", waits=tuple(each | {"reason": "no_single_location"} for each in lines)),
    )
    hand.event(
        "orders.v1",
        order("e29", "O5", *lines, allow_partial=False),
        says("O5", "backordered", waits=tuple(each | {"reason": "all_or_nothing"} for each in lines)),
    )
    hand.batch()
    hand.location("LEEDS", **PLACES["LEEDS"] | {"enabled": False})
    hand.event("stock.v1", stock("e30", "receipt", "LEEDS", "A", 2))
    hand.batch(LEEDS_A=(6, 3, 1))
    hand.location("LEEDS", **PLACES["LEEDS"])
    hand.decide(says("O5", "allocated", ship("LEEDS", lines[0]), ship("DC", lines[1])), "locations.v1", 4)
    hand.event("sales.v1", stock("e31", "sale", "DC", "B", 3), after_ms=0)
    hand.batch(LEEDS_A=(6, 4, 1), DC_B=(-1, 2))
    return hand


def test_a_clean_log_is_found_clean():
    report = clean().audit(complete=True)
    assert not report.faults
    assert report.clean


def test_the_report_counts_what_was_judged():
    hand = clean()
    report = hand.audit()
    assert report.batches == hand.batches
    assert report.events == {topic: len(hand.records[topic]) for topic in TOPICS}
    assert report.outcomes == {"applied": 28, "duplicate": 1, "stale": 1, "dead_letter": 13, "clock": 2}
    assert sum(report.dead_letters.values()) == 13
    assert report.decisions == {
        "allocated": 7,
        "backordered": 4,
        "held": 2,
        "expired": 1,
        "cancelled": 1,
        "rejected": 1,
    }
    assert (report.pools, report.partitions, report.cells) == (1, 1, 4)
    assert (report.units_on_hand, report.units_reserved) == (4 + 6 - 1 + 0, 4 + 4 + 2 + 0)


# Spoiling it, one way at a time: what is done, and the fault that must be among those found: kind, topic, words.

SPOILS: dict[str, tuple[Callable[[Hand], object], str, str, str]] = {}


def spoil(kind: str, topic: str, words: str):
    """Register a way of spoiling the clean log, by what it is called."""

    def register(function: Callable[[Hand], object]):
        SPOILS[function.__name__.strip("_")] = (function, kind, topic, words)
        return function

    return register


def decision_of(hand: Hand, order_id: str, status: str) -> int:
    return hand.find("allocations.v1", order_id=order_id, status=status)


def rewrite(hand: Hand, batch: int, change: Callable[[dict], object]) -> None:
    """Change a batch's manifest, keeping its blobs."""
    parts = [record for record in hand.records["inventory-changelog.v1"] if record.headers[0][1] == str(batch).encode()]
    data = b"".join(part.value for part in parts)
    size = int.from_bytes(data[:4], "little")
    manifest = json.loads(data[4 : 4 + size])
    change(manifest)
    text = json.dumps(manifest).encode()
    whole = len(text).to_bytes(4, "little") + text + data[4 + size :]
    at = [record.offset for record in hand.records["inventory-changelog.v1"]].index(parts[0].offset)
    hand.records["inventory-changelog.v1"][at : at + 2] = [
        parts[0]._replace(value=whole[:9]),
        parts[1]._replace(value=whole[9:]),
    ]


@spoil("decision", "orders.v1", "a decision for order O2; found none")
def _a_decision_is_missing(hand):
    hand.drop("allocations.v1", decision_of(hand, "O2", "backordered"))


@spoil("sequence", "allocations.v1", "sequence 2 of pool uk; found 3")
def _a_number_is_missing(hand):
    hand.drop("allocations.v1", decision_of(hand, "O2", "backordered"))


@spoil("decision", "allocations.v1", "new promises for order H2, which waits for 0 lines")
def _a_decision_stands_twice(hand):
    record = hand.records["allocations.v1"][decision_of(hand, "H2", "allocated")]
    hand.records["allocations.v1"].append(record._replace(offset=1000))


@spoil("sequence", "allocations.v1", "sequence 11 of pool uk; found 10")
def _a_number_stands_twice(hand):
    for sequence in range(11, hand.sequence + 1):
        change = {"sequence": sequence - 1, "allocation_id": f"0000abcd-{sequence - 1}"}
        hand.edit("allocations.v1", hand.find("allocations.v1", sequence=sequence), lambda d, c=change: d.update(c))


@spoil("decision", "allocations.v1", "a source among the records processed")
def _a_decision_by_nothing(hand):
    record = hand.records["allocations.v1"][0]
    value = json.loads(record.value) | {"source": {"topic": "orders.v1", "partition": 0, "offset": 999}}
    hand.records["allocations.v1"].append(record._replace(offset=1000, value=json.dumps(value).encode()))


@spoil("promise", "allocations.v1", "at most 7 units of DC/A, all that is available; found 8")
def _more_is_promised_than_there_is(hand):
    hand.edit("orders.v1", 1, lambda order: order["lines"][0].update(quantity=8))
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0]["lines"][0].update(quantity=8))


@spoil("promise", "allocations.v1", "at most 2 units of DC/A, all that is available; found 4")
def _two_lines_are_promised_the_same_units(hand):
    hand.edit("orders.v1", 1, lambda order: order["lines"][1].update(quantity=4))
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0]["lines"][1].update(quantity=4))


@spoil("promise", "allocations.v1", "an enabled location; found ship by LEEDS, which is disabled")
def _a_disabled_location_promises(hand):
    hand.drop("locations.v1", 4)
    rewrite(hand, hand.batches, lambda manifest: manifest["locations"][0]["value"].update(enabled=False))


@spoil("promise", "allocations.v1", "a location that can ship; found ship by LEEDS, which can ['pickup']")
def _a_location_promises_what_it_cannot(hand):
    hand.records["locations.v1"].clear()
    rewrite(hand, 1, lambda manifest: manifest["locations"][1]["value"].update(capabilities=["pickup"]))


@spoil("promise", "allocations.v1", "elsewhere than where it was refused; found DC")
def _a_line_goes_where_it_was_refused(hand):
    offset = decision_of(hand, "O1", "allocated") + 2
    hand.edit("allocations.v1", offset, lambda d: d["shipments"].__setitem__(1, d["shipments"][1] | {"location_id": "DC"}))


@spoil("promise", "allocations.v1", "a location of the pool; found MOON")
def _a_location_nobody_knows_promises(hand):
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0].update(location_id="MOON"))


@spoil("promise", "allocations.v1", "one of the lines that wait, whole")
def _a_line_is_promised_in_part(hand):
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0]["lines"][0].update(quantity=4))


@spoil("promise", "allocations.v1", "one of the lines that wait, whole")
def _a_line_is_promised_that_was_not_ordered(hand):
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0]["lines"].append(line("l9", "A", 1)))


@spoil("promise", "allocations.v1", "all lines from one location (allow_split=false)")
def _an_order_is_split_that_may_not_be(hand):
    hand.edit("orders.v1", hand.find("orders.v1", order_id="O5"), lambda order: order.update(allow_split=False))


@spoil("promise", "allocations.v1", "all 2 waiting lines or none (allow_partial=false)")
def _a_part_is_promised_of_all_or_nothing(hand):
    def change(decision):
        decision["shipments"].pop()
        decision["unallocated"] = [line("l2", "B", 2, "no_stock")]
        decision["status"] = "partial"

    hand.edit("allocations.v1", decision_of(hand, "O5", "allocated"), change)


@spoil("promise", "allocations.v1", "transfer by DC; found ship by DC")
def _a_pickup_is_shipped_to_nobody(hand):
    offset = decision_of(hand, "P1", "allocated")
    hand.edit("allocations.v1", offset, lambda d: d["shipments"][1].update(kind="ship"))


@spoil("decision", "allocations.v1", "shipment 0000abcd-1-1 kept")
def _a_promise_is_moved(hand):
    offset = hand.find("allocations.v1", sequence=3)
    hand.edit("allocations.v1", offset, lambda d: d["shipments"][0].update(location_id="LEEDS"))


@spoil("decision", "allocations.v1", "shipment 0000abcd-1-1 kept")
def _a_promise_is_forgotten(hand):
    hand.edit("allocations.v1", hand.find("allocations.v1", sequence=3), lambda d: d["shipments"].pop(0))


@spoil("decision", "allocations.v1", "status backordered; found allocated")
def _a_status_says_too_much(hand):
    hand.edit("allocations.v1", decision_of(hand, "O2", "backordered"), lambda d: d.update(status="allocated"))


@spoil("decision", "allocations.v1", "unallocated [('l1', 'A', 4)]; found []")
def _a_waiting_line_is_not_named(hand):
    hand.edit("allocations.v1", decision_of(hand, "O2", "backordered"), lambda d: d.update(unallocated=[]))


@spoil("decision", "allocations.v1", "a reason that can be: no_stock or not_eligible or too_far; found no_pickup")
def _a_reason_that_cannot_be(hand):
    offset = decision_of(hand, "O2", "backordered")
    hand.edit("allocations.v1", offset, lambda d: d["unallocated"][0].update(reason="no_pickup"))


@spoil("decision", "allocations.v1", "distance_km")
def _a_distance_is_wrong(hand):
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0].update(distance_km=d["shipments"][0]["distance_km"] + 0.01))


@spoil("decision", "allocations.v1", "a Allocation record")
def _a_decision_is_unreadable(hand):
    hand.edit("allocations.v1", 0, lambda d: d.pop("policy"))


@spoil("decision", "allocations.v1", "key O1")
def _a_decision_has_the_wrong_key(hand):
    hand.records["allocations.v1"][0] = hand.records["allocations.v1"][0]._replace(key=b"O9")


@spoil("clock", "allocations.v1", "decided_at")
def _a_decision_is_dated_wrong(hand):
    hand.edit("allocations.v1", 0, lambda d: d.update(decided_at=d["decided_at"] + 1))


@spoil("expiry", "ticks.v1", "hold H1 expired")
def _a_hold_does_not_expire(hand):
    hand.drop("allocations.v1", decision_of(hand, "H1", "expired"))


@spoil("expiry", "allocations.v1", "hold H1 expired at")
def _a_hold_expires_too_soon(hand):
    offset = decision_of(hand, "H1", "expired")
    hand.edit("allocations.v1", offset, lambda d: d["source"].update(offset=0))


@spoil("waiting", "fulfilments.v1", "order O2 served")
def _an_order_waits_that_could_be_served(hand):
    hand.drop("allocations.v1", hand.find("allocations.v1", order_id="O2", status="allocated"))


@spoil("waiting", "orders.v1", "order O1 served")
def _an_order_is_not_promised_what_is_there(hand):
    waits = [line("l1", "A", 5, "no_stock"), line("l2", "A", 2, "no_stock")]
    hand.edit("allocations.v1", 0, lambda d: d.update(shipments=[], unallocated=waits, status="backordered"))


@spoil("waiting", "locations.v1", "order O5 served")
def _nobody_is_served_when_a_place_opens(hand):
    hand.drop("allocations.v1", decision_of(hand, "O5", "allocated"))


@spoil("dead_letter", "sales.v1", "a dead letter, reason not_json; found none")
def _a_dead_letter_is_missing(hand):
    hand.drop("dead-letter.v1", 0)


@spoil("dead_letter", "dead-letter.v1", "reason not_json; found missing_field")
def _a_dead_letter_has_another_reason(hand):
    hand.edit("dead-letter.v1", 0, lambda letter: letter.update(reason="missing_field"))


@spoil("dead_letter", "dead-letter.v1", "the record whole")
def _a_dead_letter_is_not_whole(hand):
    hand.edit("dead-letter.v1", 0, lambda letter: letter.update(value="W10="))


@spoil("dead_letter", "dead-letter.v1", "one dead letter for sales.v1[0]@2")
def _a_dead_letter_stands_twice(hand):
    hand.records["dead-letter.v1"].append(hand.records["dead-letter.v1"][0]._replace(offset=1000))


@spoil("dead_letter", "dead-letter.v1", "no dead letter for sales.v1[0]@0, which is good")
def _a_good_record_is_refused(hand):
    hand.edit("dead-letter.v1", 0, lambda letter: letter.update(offset=0))


@spoil("dead_letter", "dead-letter.v1", "a record among those processed")
def _a_dead_letter_for_nothing(hand):
    hand.edit("dead-letter.v1", 0, lambda letter: letter.update(offset=999))


@spoil("chain", "inventory-changelog.v1", "batch 5, part 1; found batch 6")
def _a_batch_is_missing(hand):
    kept = [record for record in hand.records["inventory-changelog.v1"] if record.headers[0][1] != b"5"]
    hand.records["inventory-changelog.v1"] = kept


@spoil("chain", "inventory-changelog.v1", "batch 5, part 2; found batch 6, part 1")
def _a_part_is_missing(hand):
    hand.drop("inventory-changelog.v1", 9)


@spoil("chain", "inventory-changelog.v1", "all parts of batch")
def _the_last_part_is_missing(hand):
    hand.records["inventory-changelog.v1"].pop()


@spoil("chain", "inventory-changelog.v1", "found batch 5, part 1")
def _a_batch_stands_twice(hand):
    again = [record for record in hand.records["inventory-changelog.v1"] if record.headers[0][1] == b"5"]
    hand.records["inventory-changelog.v1"][10:10] = again


@spoil("chain", "inventory-changelog.v1", "a readable batch 5")
def _a_batch_is_unreadable(hand):
    record = hand.records["inventory-changelog.v1"][8]
    hand.records["inventory-changelog.v1"][8] = record._replace(value=record.value[:20] + b"x" + record.value[21:])


@spoil("chain", "inventory-changelog.v1", "batch 5 of partition 0; found batch 5 of partition 1")
def _a_batch_of_another_partition(hand):
    rewrite(hand, 5, lambda manifest: manifest.update(partition=1))


@spoil("input", "orders.v1", "each record in a batch")
def _a_record_is_skipped(hand):
    rewrite(hand, 5, lambda manifest: manifest["inputs"][0].update(first=2, next=2))


@spoil("input", "orders.v1", "offset 2 as the next to be consumed")
def _a_record_is_consumed_twice(hand):
    rewrite(hand, 6, lambda manifest: manifest["inputs"][0].update(first=1))


@spoil("input", "stock.v1", "1 records from 4")
def _a_consumed_record_is_gone(hand):
    hand.drop("stock.v1", 4)


@spoil("chain", "inventory-changelog.v1", "an order of events with 8 of sales.v1; found 7")
def _the_order_of_events_lacks_one(hand):
    rewrite(hand, 4, lambda manifest: manifest["order"].update(at=1, bytes=manifest["order"]["bytes"] - 1))


@spoil("network", "locations.v1", "")
def _a_location_is_not_as_published(hand):
    rewrite(hand, 1, lambda manifest: manifest["locations"][0]["value"].update(latitude=53.49))


@spoil("clock", "inventory-changelog.v1", "pool uk now")
def _the_clock_is_wrong(hand):
    hand.records["sales.v1"][1] = hand.records["sales.v1"][1]._replace(timestamp=hand.now + 10**6)


@spoil("cell", "inventory-changelog.v1", "uk/DC/A (on_hand, reserved, safety_stock) = (6, 0, 0); found (7, 0, 0), batch 2")
def _a_sale_is_lost(hand):
    hand.edit("sales.v1", 0, lambda sale: sale.update(quantity=4))


@spoil("cell", "inventory-changelog.v1", "uk/DC/A among the cells of batch 4")
def _a_repetition_counts(hand):
    hand.edit("sales.v1", 1, lambda sale: sale.update(event_id="e2b"))


@spoil("cell", "inventory-changelog.v1", "uk/LEEDS/A (on_hand, reserved, safety_stock) = (5, 2, 1)")
def _a_count_forgets_what_came_after(hand):
    hand.edit("stock.v1", hand.find("stock.v1", event_id="e14"), lambda count: count.update(quantity=4))


@spoil("cell", "inventory-changelog.v1", "uk/LEEDS/A among the cells of batch")
def _a_stale_count_is_fresh(hand):
    hand.edit("stock.v1", hand.find("stock.v1", event_id="e15"), lambda count: count.update(counted_at=T0 + 30))


@spoil("inventory", "inventory.v1", "uk/DC/A = CellRow(on_hand=7")
def _a_value_is_wrong(hand):
    hand.edit("inventory.v1", 1, lambda value: value.update(on_hand=8, available=8))


@spoil("inventory", "inventory.v1", "available = max(0, on_hand - reserved - safety_stock)")
def _what_is_available_is_wrong(hand):
    hand.edit("inventory.v1", 1, lambda value: value.update(available=8))


@spoil("inventory", "inventory.v1", "found no such record")
def _the_last_value_is_missing(hand):
    hand.records["inventory.v1"].pop()


@spoil("inventory", "inventory.v1", "a version above 2")
def _a_version_does_not_grow(hand):
    hand.edit("inventory.v1", 1, lambda value: value.update(version=2))


@spoil("inventory", "inventory.v1", "a value of a batch")
def _a_value_of_no_batch(hand):
    record = hand.records["inventory.v1"][-1]
    value = json.loads(record.value) | {"version": 100}
    hand.records["inventory.v1"].append(record._replace(offset=1000, value=json.dumps(value).encode()))


@pytest.mark.parametrize("name", SPOILS)
def test_a_spoiled_log_is_found_out(name):
    change, kind, topic, words = SPOILS[name]
    hand = clean()
    change(hand)
    report = hand.audit()
    assert not report.clean
    assert any(
        fault.kind == kind and fault.topic == topic and words in f"{fault.expected}; found {fault.found}"
        for fault in report.faults
    ), "\n".join(map(str, report.faults))


def test_a_fault_is_named_once_and_does_not_spread():
    hand = clean()
    hand.edit("allocations.v1", 0, lambda d: d.update(decided_at=0))
    assert hand.audit().fault_count == 1


def test_inputs_nobody_consumed_yet_are_counted_and_a_fault_only_if_all_must_be():
    hand = clean()
    hand.event("sales.v1", stock("e99", "sale", "DC", "A", 1))
    assert hand.audit().clean
    assert hand.audit().unprocessed == 1
    assert [fault.kind for fault in hand.audit(complete=True).faults] == ["input"]


def test_transaction_markers_between_inputs_are_no_gap():
    hand = clean()
    shifted = [record._replace(offset=record.offset + 7) for record in hand.records["sales.v1"]]
    hand.records["sales.v1"] = shifted
    for topic in ("allocations.v1", "dead-letter.v1"):
        for record in list(hand.records[topic]):
            value = json.loads(record.value)
            source = value.get("source", value)
            if source["topic"] == "sales.v1":
                hand.edit(topic, record.offset, lambda v: v.get("source", v).update(offset=v.get("source", v)["offset"] + 7))
    for batch in range(1, hand.batches + 1):

        def shift(manifest):
            for given in manifest["inputs"]:
                if given["topic"] == "sales.v1":
                    given.update(first=given["first"] + 7, next=given["next"] + 7)

        rewrite(hand, batch, shift)
    assert not hand.audit().faults


def test_a_compacted_inventory_topic_is_clean():
    hand = clean()
    last = {record.key: record for record in hand.records["inventory.v1"]}
    hand.records["inventory.v1"] = sorted(last.values())
    assert not hand.audit().faults


def test_a_compacted_locations_topic_is_clean():
    hand = clean()
    last = {record.key: record for record in hand.records["locations.v1"]}
    hand.records["locations.v1"] = sorted(last.values())
    assert not hand.audit().faults


def test_outputs_ahead_of_the_changelog_are_no_fault_while_batches_are_committed():
    hand = clean()
    offset = hand.event("sales.v1", stock("e99", "sale", "DC", "A", 0), dead="out_of_range")
    hand.decide(says("O9", "backordered"), "sales.v1", offset)
    hand.versions["DC", "A"] += 10
    hand._cell("DC", "A", 9)
    assert hand.audit(moving=True).clean
    assert {fault.kind for fault in hand.audit().faults} == {"decision", "dead_letter", "inventory"}


def test_the_groups_offsets_must_be_those_of_the_changelog():
    hand = clean()
    ends = {topic: len(hand.records[topic]) for topic in TOPICS}
    assert hand.audit(committed=ends).clean
    assert hand.audit(committed=ends | {"sales.v1": ends["sales.v1"] - 1}).faults[0].kind == "chain"
    ahead = ends | {"sales.v1": ends["sales.v1"] + 1}
    assert hand.audit(committed=ahead).faults[0].topic == "sales.v1"
    assert hand.audit(committed=ahead, moving=True).clean


def test_a_broken_chain_ends_the_audit_of_its_partition_only():
    hand = clean()
    _a_batch_is_missing(hand)
    report = hand.audit()
    assert [fault.kind for fault in report.faults] == ["chain"]
    assert report.batches == 4
