"""Logs written by hand, for the audit: `Hand` packs what it is told, `clean()` is a log in which all is as it must be.

Nothing of the product works out what is right here.
"""

import json
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from streams.audit import audit_log
from streams.audit.log import Record
from streams.audit.memory import Limits
from streams.audit.report import Report
from tests.memory_log import MemoryLog
from topics.reasons import AlertKind

HOUR_MS = 3_600_000
T0 = 1_700_000_000_000
TOPICS = ("sales.v1", "stock.v1", "orders.v1", "fulfilments.v1", "ticks.v1")
OUTPUTS = ("allocations.v1", "alerts.v1", "inventory.v1", "dead-letter.v1", "inventory-changelog.v1", "locations.v1")
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
    link: bytes = bytes(32)
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

    def event(
        self, topic: str, value, *decisions: dict, alerts=(), dead: str | None = None, after_ms: int = 10, key=b"uk"
    ) -> int:
        """Append an input, with the decisions and alerts it causes, or the reason for which it is refused."""
        self.now += after_ms
        offset = self.append(topic, value, key)
        self.pending.append((topic, offset))
        for decision in decisions:
            self.decide(decision, topic, offset)
        for alert in alerts:
            self.alert(alert, topic, offset, value.get("order_id"))
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

    def alert(self, alert: dict, topic: str, offset: int, order_id: str | None) -> None:
        kind, place, sku = alert["kind"], alert["location_id"], alert["sku"]
        last = self.now // 60_000 if kind == "late_movement" else sku
        if "field" in alert:
            place, last = topic, alert["field"]
        value = {
            "alert_id": f"{kind}/uk/{place}/{last}",
            "severity": "critical" if kind in ("shortfall", "over_shipped", "shipped_after_close") else "warning",
            "pool_id": "uk",
            "order_id": order_id,
            "since": self.now,
            "source": {"topic": topic, "partition": 0, "offset": offset},
            "remedy": AlertKind[kind.upper()].sentence,
            **alert,
        }
        self.append("alerts.v1", value, value["alert_id"].encode())

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
        self.link = sha256(self.link + record).digest()
        for part in parts_of(record, self.batches, self.link):
            self.append("inventory-changelog.v1", *part)
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
            "layout": 2,
            "pools": [{"pool_id": "uk", "tables": tables}],
        }
        text = json.dumps(manifest).encode()
        return len(text).to_bytes(4, "little") + text + bytes(blobs)

    def audit(
        self, complete: bool = False, moving: bool = False, committed: dict | None = None, limits: Limits = LIMITS
    ) -> Report:
        log = MemoryLog(
            {(topic, 0): records for topic, records in self.records.items()},
            dict.fromkeys((*TOPICS, *OUTPUTS), 1),
            {(topic, 0): offset for topic, offset in (committed or {}).items()},
            moving,
        )
        return audit_log(log, limits, complete=complete)

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

    def batch_at(self, number: int) -> int:
        """Index of the first changelog record of a batch."""
        records = self.records["inventory-changelog.v1"]
        return next(i for i, record in enumerate(records) if record.headers[0][1] == str(number).encode())

    def data_of(self, number: int) -> bytes:
        """A batch's changelog record, whole."""
        at = self.batch_at(number)
        return b"".join(record.value for record in self.records["inventory-changelog.v1"][at : at + 2])

    def rewrite(self, number: int, data: bytes, link: bytes | None = None) -> None:
        """Put another changelog record in a batch's place; with a link of its own, or with the one that it had."""
        at = self.batch_at(number)
        records = self.records["inventory-changelog.v1"]
        link = bytes.fromhex(records[at].headers[1][1].decode()) if link is None else link
        for i, (value, _, headers) in enumerate(parts_of(data, number, link), at):
            records[i] = records[i]._replace(value=value, headers=headers)

    def relink(self) -> None:
        """Make the links anew, as if the changelog had been written as it is now."""
        link = bytes(32)
        for number in range(1, self.batches + 1):
            data = self.data_of(number)
            link = sha256(link + data).digest()
            self.rewrite(number, data, link)
        self.link = link
        self.link = link

    def find(self, topic: str, **fields) -> int:
        """Offset of the first record with these fields."""
        for record in self.records[topic]:
            value = json.loads(record.value)
            if all(value.get(name) == wanted for name, wanted in fields.items()):
                return record.offset
        raise LookupError(fields)


def parts_of(record: bytes, number: int, link: bytes) -> list[tuple[bytes, bytes, tuple]]:
    """Cut a batch's changelog record in two: value, key and headers of each."""
    middle = len(record) // 2
    headers = (("batch", str(number).encode()), ("link", link.hex().encode()))
    return [
        (record[:middle], b"batch", (*headers, ("part", b"1/2"))),
        (record[middle:], b"batch", (*headers, ("part", b"2/2"))),
    ]


# What the hand-written records are made of


def line(line_id: str, sku: str, quantity: int, reason: str | None = None) -> dict:
    return {"line_id": line_id, "sku": sku, "quantity": quantity} | ({"reason": reason} if reason else {})


def ship(place: str, *lines: dict, kind: str = "ship", to: dict = LINCOLN, shipment_id: str = "") -> dict:
    distance = {"distance_km": km(PLACES[place], to)}
    return {"shipment_id": shipment_id, "location_id": place, "kind": kind, "lines": list(lines), **distance}


def says(order_id: str, status: str, *shipments: dict, waits: tuple[dict, ...] = ()) -> dict:
    return {"order_id": order_id, "status": status, "shipments": list(shipments), "unallocated": list(waits)}


def tells(kind: str, place: str, sku: str, found: int, expected: int = 0, status: str = "raised") -> dict:
    return {"kind": kind, "status": status, "location_id": place, "sku": sku, "found": found, "expected": expected}


def left_out(field: str) -> dict:
    return {"kind": "field_left_out", "status": "raised", "location_id": None, "sku": None, "field": field} | {
        "found": 1,
        "expected": 0,
    }


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

    # Shipped in two goes, some returned elsewhere; a count from before the return, and a count and a sale that come too late.
    hand.event("fulfilments.v1", answer("e10", "shipped", "O1", "0000abcd-1-1", "DC", ("l1", 3)))
    hand.batch(DC_A=(6, 6))
    hand.event("fulfilments.v1", answer("e11", "collected", "O1", "0000abcd-1-1", "DC"))
    hand.event("fulfilments.v1", answer("e12", "rejected", "O1", "0000abcd-1-1", "DC"), dead="shipment_closed", after_ms=0)
    hand.batch(DC_A=(4, 4))
    hand.event("fulfilments.v1", answer("e13", "returned", "O1", "0000abcd-1-1", "LEEDS", ("l1", 1), event_time=T0 + 50))
    hand.batch(LEEDS_A=(5, 2, 1))
    hand.event("stock.v1", stock("e14", "count", "LEEDS", "A", 3, counted_at=T0 + 20))
    hand.batch(LEEDS_A=(4, 2, 1))
    hand.event("stock.v1", stock("e15", "count", "LEEDS", "A", 9, counted_at=T0 + 10))
    hand.event("sales.v1", stock("e15b", "sale", "LEEDS", "A", 1), alerts=[tells("late_movement", "LEEDS", "A", -1)])
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
    hand.event("fulfilments.v1", answer("e24", "returned", "P1", f"0000abcd-{number}-2", "LEEDS"), dead="not_shipped")
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
    hand.event("stock.v1", stock("e30", "receipt", "LEEDS", "A", 2, event_time=hand.now))
    hand.batch(LEEDS_A=(6, 3, 1))
    hand.location("LEEDS", **PLACES["LEEDS"])
    hand.decide(says("O5", "allocated", ship("LEEDS", lines[0]), ship("DC", lines[1])), "locations.v1", 4)

    # A till sells what is promised: the order that loses its promise is routed again.
    kept = ship("LEEDS", lines[0], shipment_id=f"0000abcd-{hand.sequence}-1")
    hand.event(
        "sales.v1",
        stock("e31", "sale", "DC", "B", 3),
        says("O5", "partial", kept, waits=(lines[1] | {"reason": "no_stock"},)),
        alerts=[tells("shortfall", "DC", "B", -1, 2)],
        after_ms=0,
    )
    hand.batch(LEEDS_A=(6, 4, 1), DC_B=(-1, 0))
    return hand
