"""The shop that never closes: seeded orders for too little stock, tills, counts, answers of locations, repeats and nonsense.

`Shop` makes events up and knows nothing of Kafka; `Load` is the thread that sends them. Decisions come back from the reader,
so that shipments are answered. What is made follows from the seed and the decisions; when, from the machine.
SKUs that begin with `ORDERS-ONLY` get receipts and orders, of kits of them too, and nothing else. So for them a promise without
stock can be seen from outside at any moment: `received` is what was ever sent of them.
Owner: the round. Not here: what must come of it (watch.py, rest.py).
"""

import random
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import orjson
import yaml
from confluent_kafka import KafkaError, Message, Producer

PARTITIONS = 4
POOLS = ("north", "south", "capital", "london", "downs")  # partitions 2, 3, 1, 0, 2
KINDS = ("warehouse", "store", "front_warehouse", "store", "pickup_point")
SKUS = tuple(f"SKU-{number}" for number in range(8))
ORDERS_ONLY = tuple(f"ORDERS-ONLY-{number}" for number in range(4))
BOXES = ("BOX-0", "BOX-1", "BOX-2")
"""Kits of SKUs, now and then."""
KIT = "BOX-ONLY"
KIT_OF = {ORDERS_ONLY[0]: 2, ORDERS_ONLY[1]: 1}
STEP_S = 0.02
TRANSFER_MS = 14 * 86_400_000
"""How long a transfer may take: the default of `transfer_days`."""
LATEST = 400
"""Decisions and records kept to be answered, cancelled or repeated."""
NONSENSE = (b"", b"{", b"null", b'1},{"kind":"sale"', b'{"kind":"whim"}', b"[" * 300)


def network() -> list[dict[str, Any]]:
    """Five locations a pool, near each other, so that they compete."""
    return [
        {
            "id": f"{pool}-{number}",
            "pool": pool,
            "kind": kind,
            "latitude": 51.0 + index,
            "longitude": -1.0 + number / 10,
            "priority": 100,
            "max_distance_km": 50.0 if number == 1 else None,
        }
        for index, pool in enumerate(POOLS)
        for number, kind in enumerate(KINDS)
    ]


def write_network(path: Path) -> None:
    path.write_text(yaml.safe_dump({"version": 1, "pools": [{"id": pool} for pool in POOLS], "locations": network()}))


Record = tuple[str, bytes | None, bytes]
"""Topic, key, value."""


def taken(line: dict[str, Any]) -> dict[str, int]:
    """SKU → units of it that a published line takes."""
    return {part["sku"]: part["quantity"] for part in line.get("parts") or [line]}


class Shop:
    """Makes events up, one after another, all from one seed and the decisions it is told."""

    def __init__(self, seed: str):
        self.received: Counter[tuple[str, str]] = Counter()
        """(Pool, SKU that only orders touch) → units sent so far."""
        self._random = random.Random(seed)
        self._number = 0
        self._orders: deque[tuple[str, str]] = deque(maxlen=LATEST)
        self._waiting: deque[tuple[str, str]] = deque(maxlen=LATEST)
        self._shipments: deque[tuple[str, str, dict]] = deque(maxlen=LATEST)
        self._shipped: deque[Record] = deque(maxlen=LATEST)
        self._recent: deque[Record] = deque(maxlen=LATEST)
        self._makers = (
            (30, self._order),
            (4, self._hold),
            (6, self._cancel),
            (13, self._receipt),
            (10, self._sale),
            (7, self._stock),
            (22, self._answer),
            (2, self._return),
            (4, self._contradict),
            (3, self._change),
            (4, self._again),
            (2, self._trouble),
            (0.3, self._location),
            (0.3, self._product),
            (3, self._click),
        )

    def learn(self, decision: dict[str, Any]) -> None:
        """Hear of a decision; from any thread."""
        pool, order = decision["pool_id"], decision["order_id"]
        if decision["unallocated"]:
            self._waiting.append((pool, order))
        for shipment in decision["shipments"]:
            self._shipments.append((pool, order, shipment))

    def event(self) -> Record:
        """Make the next record."""
        make = self._random.choices([maker for _, maker in self._makers], [weight for weight, _ in self._makers])[0]
        record = make(self._random.choice(POOLS))
        if make != self._again:
            self._recent.append(record)
        return record

    def opening(self) -> list[Record]:
        """Some stock of everything, and a kit."""
        kit = [{"sku": sku, "quantity": units} for sku, units in KIT_OF.items()]
        return [("products.v1", KIT.encode(), orjson.dumps({"sku": KIT, "kit": kit}))] + [
            self._stock_event(pool, kind="receipt", sku=sku, quantity=20, location_id=f"{pool}-{place}")
            for pool in POOLS
            for sku in (*SKUS, *ORDERS_ONLY)
            for place in range(4)
        ]

    def _event(self, topic: str, pool: str, **fields: Any) -> Record:
        self._number += 1
        body = {"event_id": f"e{self._number}", "event_time": int(time.time() * 1000)} | fields
        return topic, pool.encode(), orjson.dumps(body)

    def _place(self, pool: str) -> str:
        return f"{pool}-{self._random.randrange(5)}"

    def _stock_event(self, pool: str, **fields: Any) -> Record:
        if fields["sku"] in ORDERS_ONLY:
            self.received[pool, fields["sku"]] += fields["quantity"]
        return self._event("stock.v1", pool, **fields)

    def _receipt(self, pool: str) -> Record:
        sku, quantity = self._random.choice(SKUS + ORDERS_ONLY), self._random.randint(1, 12)
        return self._stock_event(pool, kind="receipt", sku=sku, quantity=quantity, location_id=self._place(pool))

    def _stock(self, pool: str) -> Record:
        chance, now = self._random, int(time.time() * 1000)
        fields: dict[str, Any] = {
            "sku": chance.choice(SKUS),
            "location_id": self._place(pool),
            "quantity": chance.randint(1, 6),
        }
        kind = chance.choice(
            ("adjustment", "count", "transfer_out", "transfer_in", "expected", "safety_stock", "quarantine", "release")
        )
        if kind == "adjustment":
            fields["quantity"] = chance.choice((-2, -1, 1, 2))
        elif kind == "count":
            fields |= {"quantity": chance.randint(0, 20), "counted_at": now - chance.choice((0, 100, 5_000, 60_000))}
        elif kind.startswith("transfer"):
            ago = chance.choice((0, 0, TRANSFER_MS - 5_000, TRANSFER_MS))  # it is, or soon will be, overdue
            fields |= {"transfer_id": f"t{chance.randrange(50)}", "to_location_id": self._place(pool), "event_time": now - ago}
        elif kind == "expected":
            fields |= {"supply_id": f"p{chance.randrange(20)}", "expected_at": now + 1_000}
        elif kind == "safety_stock":
            fields["quantity"] = chance.randint(0, 2)
        return self._event("stock.v1", pool, kind=kind, **fields)

    def _sale(self, pool: str) -> Record:
        kind = self._random.choice(("sale", "sale", "return"))
        fields = {"kind": kind, "location_id": self._place(pool), "sku": self._random.choice(SKUS + BOXES)}
        described = {"unit_price": 12.5} if self._random.random() < 0.1 else {}
        return self._event("sales.v1", pool, **fields, **described, quantity=self._random.randint(1, 3))

    def _wishes(self) -> dict[str, Any]:
        chance = self._random
        count = chance.choice((1, 1, 1, 2, 3, 6))
        skus = chance.choices((*SKUS, *ORDERS_ONLY, *BOXES, KIT), k=count)
        fields: dict[str, Any] = {
            "lines": [{"line_id": f"l{i}", "sku": sku, "quantity": chance.randint(1, 4)} for i, sku in enumerate(skus)],
            "allow_split": chance.random() < 0.8,
            "allow_partial": chance.random() < 0.8,
        }
        return fields

    def _order(self, pool: str) -> Record:
        fields = {"order_id": f"o{self._number}", "kind": "placed"} | self._wishes()
        if self._random.random() < 0.2:
            fields |= {"mode": "pickup", "pickup_location_id": self._place(pool)}
        else:
            fields["destination"] = {"latitude": 51.0 + self._random.random(), "longitude": -self._random.random()}
        self._orders.append((pool, fields["order_id"]))
        return self._event("orders.v1", pool, **fields)

    def _hold(self, pool: str) -> Record:
        expires_at = int(time.time() * 1000) + self._random.choice((50, 500, 2_000))
        fields = {"order_id": f"o{self._number}", "kind": "held", "expires_at": expires_at} | self._wishes()
        fields["destination"] = {"latitude": 51.0, "longitude": -0.5}
        return self._event("orders.v1", pool, **fields)

    def _cancel(self, pool: str) -> Record:
        known = self._waiting if self._waiting and self._random.random() < 0.8 else self._orders
        if not known:
            return self._order(pool)
        pool, order_id = self._random.choice(known)
        more = {"lines": [{"line_id": "l0", "quantity": 1}]} if self._random.random() < 0.3 else {}
        return self._event("orders.v1", pool, kind="cancelled", order_id=order_id, **more)

    def _change(self, pool: str) -> Record:
        """An order is changed, or a hold is held again."""
        if not self._orders:
            return self._order(pool)
        pool, order_id = self._random.choice(self._orders)
        destination = {"latitude": 51.0 + self._random.random(), "longitude": -self._random.random()}
        more = self._random.choice(({"allow_split": True}, {"destination": destination}, {"service_level": "urgent"}))
        return self._event("orders.v1", pool, kind="changed", order_id=order_id, **more)

    def _contradict(self, pool: str) -> Record:
        """A location tells of goods that nobody promised from there: of a shipped order once more, or of an unknown one."""
        chance, order_id = self._random, "nobody"
        if self._shipped and chance.random() < 0.7:
            _, key, value = chance.choice(self._shipped)
            pool, order_id = (key or b"").decode(), orjson.loads(value or b"")["order_id"]
        lines = [{"sku": chance.choice(SKUS), "quantity": chance.randint(1, 2)}]
        fields = {"order_id": order_id, "shipment_id": "by hand", "location_id": self._place(pool), "lines": lines}
        return self._event("fulfilments.v1", pool, kind=chance.choice(("shipped", "collected", "returned")), **fields)

    def _answer(self, pool: str) -> Record:
        try:
            pool, order_id, shipment = self._shipments.popleft()
        except IndexError:
            return self._order(pool)
        kind = "rejected" if self._random.random() < 0.1 else "collected" if shipment["kind"] == "pickup" else "shipped"
        fields = {"kind": kind, "order_id": order_id, "reason": "damaged"}
        fields |= {name: shipment[name] for name in ("shipment_id", "location_id")}
        of_orders_only = any(sku in ORDERS_ONLY for line in shipment["lines"] for sku in taken(line))
        if kind == "rejected" and not of_orders_only and self._random.random() < 0.5:
            fields["missing"] = True
        record = self._event("fulfilments.v1", pool, **fields)
        if kind == "shipped" and not of_orders_only:
            self._shipped.append(record)
        return record

    def _return(self, pool: str) -> Record:
        if not self._shipped:
            return self._sale(pool)
        _, key, value = self._shipped.popleft()
        fields = orjson.loads(value)
        fields = {name: fields[name] for name in ("order_id", "shipment_id", "location_id")}
        return self._event("fulfilments.v1", key.decode(), kind="returned", **fields)

    def _again(self, pool: str) -> Record:
        return self._random.choice(self._recent) if self._recent else self._sale(pool)

    def _trouble(self, pool: str) -> Record:
        topic = self._random.choice(("sales.v1", "stock.v1", "orders.v1", "fulfilments.v1"))
        if self._random.random() < 0.5:
            return topic, pool.encode(), self._random.choice(NONSENSE)
        wrong = self._random.choice(({"location_id": "nowhere"}, {"quantity": "3"}, {"sku": None}))
        fields = {"kind": "sale", "location_id": self._place(pool), "sku": SKUS[0], "quantity": 1} | wrong
        return self._event("sales.v1", self._random.choice((pool, "atlantis")), **fields)

    def _location(self, pool: str) -> Record:
        """A place is preferred less, or more: the network changes while it works."""
        place = self._random.choice([one for one in network() if one["pool"] == pool])
        return "locations.v1", place["id"].encode(), orjson.dumps(place | {"priority": self._random.randint(90, 110)})

    def _product(self, pool: str) -> Record:
        """A kit, one that is none any more, or one of kits, which is refused."""
        sku, *parts = self._random.sample((*BOXES, *SKUS), 3)
        kit = [{"sku": part, "quantity": self._random.randint(1, 3)} for part in parts]
        return "products.v1", sku.encode(), orjson.dumps({"sku": sku, "kit": kit if self._random.random() < 0.7 else None})

    def _click(self, pool: str) -> Record:
        visitor = f"visitor-{self._random.randrange(50)}"
        fields = {"kind": "view", "visitor_id": visitor, "channel": "web", "sku": self._random.choice(SKUS), "pool_id": pool}
        topic, _, value = self._event("clicks.v1", pool, **fields)
        return topic, visitor.encode(), value


class Load(threading.Thread):
    """Sends a shop's events at a rate, as upstream systems do: idempotent, patient, Java's default partitioner."""

    def __init__(self, address: str, shop: Shop, rate: float):
        super().__init__(name="load", daemon=True)
        self.shop = shop
        self.sent = 0
        self.failed: list[str] = []
        self._rate = rate
        self._ended = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 5,
                "delivery.timeout.ms": 300_000,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )

    def run(self) -> None:
        for record in self.shop.opening():
            self._send(record)
        started, owed = time.monotonic(), 0
        while not self._ended.wait(STEP_S):
            due = int((time.monotonic() - started) * self._rate)
            for _ in range(min(due - owed, 1_000)):
                self._send(self.shop.event())
            owed = due
            self._producer.poll(0)

    def stop(self, timeout_s: float = 120.0) -> None:
        """Send no more, and return when all of it is in the log, or the time is up."""
        self._ended.set()
        self.join()
        if left := self._producer.flush(timeout_s):
            self.failed.append(f"{left} records were not taken by the broker within {timeout_s:g} s")

    def _send(self, record: Record) -> None:
        topic, key, value = record
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._delivered)
                break
            except BufferError:
                self._producer.poll(0.1)
        self.sent += 1

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failed.append(f"{message.topic()}: {error}")
