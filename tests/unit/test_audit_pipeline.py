"""The audit over what the real pipeline makes of generated events: it finds nothing, however they are cut into batches."""

import json
import random
from collections import defaultdict

import pytest

from config.settings import load_settings
from streams.audit import audit_log, limits_of
from streams.audit.log import Record
from streams.batch.pipeline import LocationChange, Segment
from streams.inventory.pipeline import InventoryPipeline
from tests.memory_log import MemoryLog
from topics.catalogue import INVENTORY_TOPICS
from topics.keys import partition_of

T0 = 1_700_000_000_000
TOWNS = [(51.5, -0.1), (52.5, -1.9), (53.5, -2.2), (53.8, -1.5), (55.9, -3.2), (50.7, -3.5), (51.5, -3.2), (54.6, -5.9)]
KINDS = ["warehouse", "regional_warehouse", "front_warehouse", "store", "pickup_point"]
OUTPUTS = ("allocations.v1", "inventory.v1", "dead-letter.v1", "inventory-changelog.v1")


class Topics:
    """The records of all topics of one partition, as a broker would keep them."""

    def __init__(self, partition: int, partitions: int, gap: int = 1):
        self.partition, self.partitions, self.gap = partition, partitions, gap
        self.records: dict[str, list[Record]] = defaultdict(list)
        self.ends: dict[str, int] = defaultdict(int)
        self.now = T0

    def append(self, topic: str, key, value, headers=()) -> Record:
        record = Record(self.ends[topic], self.now, key, value, tuple(headers))
        self.records[topic].append(record)
        self.ends[topic] += 1
        return record

    def commit(self, outcome) -> None:
        """Append a batch's outputs, and the marker that ends its transaction."""
        for topic, messages in outcome.outputs.items():
            for message in messages:
                self.append(topic, message["key"], message["value"])
        if outcome.changelog:
            middle = len(outcome.changelog) // 2
            for part, data in (("1/2", outcome.changelog[:middle]), ("2/2", outcome.changelog[middle:])):
                headers = [("batch", str(outcome.sequence).encode()), ("part", part.encode())]
                headers.append(("link", outcome.link.hex().encode()))
                self.append("inventory-changelog.v1", b"batch", data, headers)
        for topic in OUTPUTS:
            self.ends[topic] += self.gap

    def log(self) -> MemoryLog:
        records = {(topic, self.partition): found for topic, found in self.records.items() if topic != "locations.v1"}
        records["locations.v1", 0] = self.records["locations.v1"]
        counts = dict.fromkeys((*INVENTORY_TOPICS, *OUTPUTS), self.partitions) | {"locations.v1": 1}
        return MemoryLog(records, counts)


class Shop:
    """A seeded source of events: mostly sensible, since it remembers what it sent and what was answered."""

    def __init__(self, seed: int, pools: list[str], bad: float = 0.1):
        self.random = random.Random(seed)
        self.pools = pools
        self.bad = bad
        self.count = 0
        self.ids: list[str] = []
        self.orders: list[str] = []
        self.shipments: list[dict] = []
        self.places = {pool: [f"{pool}-{i}" for i in range(6)] for pool in pools}
        self.skus = ["S0", "S1", "S/2", "S%3", "S%2F4"]

    def network(self):
        for pool, places in self.places.items():
            for place in places:
                yield place, self.location(pool, place)

    def location(self, pool: str, place: str) -> dict:
        latitude, longitude = self.random.choice(TOWNS)
        return {
            "id": place,
            "pool": pool,
            "kind": self.random.choice(KINDS),
            "latitude": latitude + self.random.random() / 10,
            "longitude": longitude,
            "enabled": self.random.random() < 0.9,
            "priority": self.random.choice([100, 100, 50]),
        }

    def change(self) -> tuple[bytes, bytes | None]:
        """A change of the network."""
        pool = self.random.choice(self.pools)
        place = self.random.choice(self.places[pool])
        chance = self.random.random()
        if chance < 0.1:
            return place.encode(), None
        if chance < 0.15:
            return place.encode(), b"[]"
        if chance < 0.2:
            return b"other", json.dumps(self.location(pool, place)).encode()
        return place.encode(), json.dumps(self.location(pool, place)).encode()

    def event(self, now: int) -> tuple[str, bytes | None, bytes | None]:
        """Topic, key and value of the next event."""
        rng = self.random
        pool = rng.choice(self.pools)
        key = pool.encode()
        if rng.random() < self.bad / 2:
            value = rng.choice([b"{", b"[]", None, b'{"kind": "sale"}', b'{"kind": "nonsense"}', b"\xff"])
            return rng.choice(INVENTORY_TOPICS), rng.choice([key, key, None, b"", b"mars"]), value
        if rng.random() < 0.03:
            return "ticks.v1", key, json.dumps({"pool_id": pool}).encode()
        topic, fields = rng.choice([self.sale, self.stock, self.stock, self.order, self.order, self.fulfilment])(pool, now)
        event_id = f"e{self.count}"
        self.count += 1
        if self.ids and rng.random() < 0.05:
            event_id = rng.choice(self.ids)
        self.ids.append(event_id)
        value = {"event_id": event_id, "event_time": now - rng.choice([0, 5, 50, 500]), **fields}
        if "quantity" in value and rng.random() < 0.1:
            value["quantity"] = rng.choice([float(value["quantity"]), value["quantity"] + 0.5])
        if rng.random() < self.bad:
            value |= rng.choice([{"customer_id": ""}, {"unit_price": 12.99}, {"reason": 5}, {"channel": "web"}, {"lot_id": []}])
        if rng.random() < self.bad / 5:
            name = rng.choice([name for name in ("event_time", "counted_at") if name in value])
            value[name] = rng.choice([0, now // 1000, now * 1000, 946_684_799_999, now + 300_000, now + 300_001])
        if rng.random() < self.bad / 10:
            key = rng.choice([b"mars", None, rng.choice(self.pools).encode()])
        return topic, key, json.dumps(value).encode()

    def place(self, pool: str) -> str:
        if self.random.random() < self.bad / 5:
            return self.random.choice(["nowhere", self.random.choice(self.places[self.random.choice(self.pools)])])
        return self.random.choice(self.places[pool])

    def sale(self, pool: str, now: int):
        kind = self.random.choice(["sale", "sale", "return"])
        quantity = self.random.randint(1, 4)
        return "sales.v1", {"kind": kind, "location_id": self.place(pool), "sku": self.sku(), "quantity": quantity}

    def sku(self) -> str:
        return self.random.choice(self.skus)

    def stock(self, pool: str, now: int):
        rng = self.random
        kinds = ["receipt", "receipt", "adjustment", "count", "transfer_out", "transfer_in"]
        kind = rng.choice([*kinds, "expected", "safety_stock", "quarantine", "release"])
        fields = {"kind": kind, "location_id": self.place(pool), "sku": self.sku(), "quantity": rng.randint(1, 9)}
        if kind == "adjustment":
            fields["quantity"] = rng.choice([-3, -1, 2, 5, 1_000_000_000])
        if kind == "count":
            fields |= {"counted_at": now - rng.choice([0, 10, 100, 1000, 10**8, 3 * 10**8])}
        if kind in ("transfer_out", "transfer_in"):
            fields |= {"transfer_id": f"t{rng.randint(0, 20)}", "to_location_id": self.place(pool)}
        if kind == "expected":
            fields |= {"expected_at": now + 10**6, "supply_id": f"s{rng.randint(0, 9)}"}
        if kind == "safety_stock":
            fields["quantity"] = rng.randint(0, 2)
        return "stock.v1", fields

    def order(self, pool: str, now: int):
        rng = self.random
        if self.orders and rng.random() < 0.25:
            fields = {"kind": "cancelled", "order_id": rng.choice(self.orders[-40:])}
            if rng.random() < 0.5:
                fields["line_ids"] = rng.sample(["l0", "l1", "l2", "l9"], rng.randint(0, 2))
            return "orders.v1", fields
        known = [order for order in self.orders[-30:] if order.startswith("h")]
        if known and rng.random() < 0.3:
            again = rng.choice(known)
            fields = dict(self.requests[again]) if rng.random() < 0.7 else self.request(pool)
            return "orders.v1", {
                "kind": rng.choice(["placed", "placed", "held"]),
                "expires_at": now + 1,
                "order_id": again,
            } | fields
        held = rng.random() < 0.25
        order_id = f"{'h' if held else 'o'}{len(self.orders)}"
        self.orders.append(order_id)
        fields = self.request(pool)
        self.requests[order_id] = fields
        times = {"expires_at": now + rng.choice([-10, 0, 100, 1000, 5000])} if held else {}
        return "orders.v1", {"kind": "held" if held else "placed", "order_id": order_id} | times | fields

    requests: dict[str, dict]

    def request(self, pool: str) -> dict:
        rng = self.random
        count = rng.choice([1, 1, 1, 2, 2, 3, 5, 8, 12])
        lines = [{"line_id": f"l{i}", "sku": self.sku(), "quantity": rng.randint(1, 5)} for i in range(count)]
        fields: dict = {"lines": lines, "allow_split": rng.random() < 0.8, "allow_partial": rng.random() < 0.8}
        if rng.random() < 0.3:
            return fields | {"mode": "pickup", "pickup_location_id": self.place(pool)}
        latitude, longitude = rng.choice(TOWNS)
        return fields | {"destination": {"latitude": latitude, "longitude": longitude}}

    def learn(self, messages: list[dict]) -> None:
        """See decisions, to answer them."""
        for message in messages:
            decision = json.loads(message["value"])
            for shipment in decision["shipments"]:
                self.shipments.append(shipment | {"order_id": decision["order_id"], "pool": decision["pool_id"]})
        self.shipments = self.shipments[-60:]

    def fulfilment(self, pool: str, now: int):
        rng = self.random
        known = [shipment for shipment in self.shipments if shipment["pool"] == pool]
        if not known:
            return self.sale(pool, now)
        shipment = rng.choice(known)
        kind = rng.choice(["shipped", "shipped", "shipped", "collected", "rejected", "returned"])
        place = shipment["location_id"]
        if kind in ("collected", "returned") and rng.random() < 0.6:
            place = rng.choice(self.places[pool])
        if kind == "collected" and shipment["kind"] == "transfer":
            place = self.requests.get(shipment["order_id"], {}).get("pickup_location_id", place)
        fields = {"order_id": shipment["order_id"], "shipment_id": shipment["shipment_id"], "location_id": place}
        if rng.random() < 0.05:
            fields |= rng.choice([{"order_id": "nobody"}, {"shipment_id": "x-1-1"}, {"location_id": "nowhere"}])
        if rng.random() < 0.5:
            lines = rng.sample(shipment["lines"], rng.randint(0, len(shipment["lines"])))
            amounts = [{"line_id": line["line_id"], "quantity": rng.randint(1, line["quantity"])} for line in lines]
            fields["lines"] = amounts + ([{"line_id": "l9", "quantity": 1}] if rng.random() < 0.03 else [])
        return "fulfilments.v1", {"kind": kind} | fields


def restarted(topics: Topics, settings) -> tuple[InventoryPipeline, list[Record]]:
    """Give a new pipeline restored from the changelog, and the locations a worker that starts now reads."""
    pipeline = InventoryPipeline(topics.partition, topics.partitions, settings)
    parts = topics.records["inventory-changelog.v1"]
    for first, second in zip(parts[::2], parts[1::2], strict=True):
        pipeline.restore(first.value + second.value, bytes.fromhex(dict(first.headers)["link"].decode()))
    pipeline.seal()
    return pipeline, sorted({record.key: record for record in topics.records["locations.v1"]}.values())


def run(
    seed: int,
    events: int,
    most: int,
    pools: tuple[str, ...] = ("uk",),
    partitions: int = 1,
    restarts: float = 0.0,
    pace: int = 1,
    **changed,
):
    """Let a pipeline process a shop's events in batches of at most `most`; audit what it made of them."""
    settings = load_settings(bootstrap_servers="nowhere:1", **changed)
    shop = Shop(seed, list(pools))
    shop.requests = {}
    partition = partition_of(pools[0].encode(), partitions)
    topics = Topics(partition, partitions)
    pipeline = InventoryPipeline(partition, partitions, settings)
    changes = [(place.encode(), json.dumps(value).encode()) for place, value in shop.network()]
    rng = random.Random(seed)
    left = events
    while left > 0:
        size = rng.randint(1, most)
        left -= size
        taken: dict[str, list[Record]] = defaultdict(list)
        for _ in range(size):
            topics.now += pace * rng.choice([0, 0, 1, 5, 100, 2000])
            topic, key, value = shop.event(topics.now)
            taken[topic].append(topics.append(topic, key, value))
        if rng.random() < 0.1:
            changes.append(shop.change())
        located = [topics.append("locations.v1", key, value) for key, value in changes]
        if rng.random() < restarts:
            pipeline, located = restarted(topics, settings)
        changes = []
        outcome = pipeline.process(
            pipeline.decode([Segment.of(topic, records) for topic, records in taken.items()]),
            [LocationChange(0, record.offset, record.timestamp, record.key, record.value) for record in located],
        )
        topics.commit(outcome)
        shop.learn(outcome.outputs.get("allocations.v1", []))
    return audit_log(topics.log(), limits_of(settings))


@pytest.mark.parametrize("seed", range(6))
def test_what_the_pipeline_makes_of_events_is_clean(seed):
    report = run(seed, events=600, most=[1, 7, 60][seed % 3])
    assert not report.faults
    assert report.decisions.total() > 100


@pytest.mark.parametrize(
    ("reason", "limit"),
    [
        ("too_many_skus", {"max_skus": 3}),
        ("too_many_cells", {"max_cells": 12}),
        ("too_many_lines", {"max_order_lines": 40, "closed_order_days": 1}),
        ("too_many_supplies", {"max_supplies": 2}),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_pool_that_is_full_refuses_exactly_what_it_must(reason, limit, seed):
    report = run(seed, events=500, most=[1, 20, 60][seed % 3], restarts=0.1, pace=1000, **limit)
    assert not report.faults
    assert report.dead_letters[reason] > 3


def test_two_pools_in_one_partition_are_clean():
    report = run(seed=11, events=600, most=30, pools=("uk", "ie"))
    assert not report.faults
    assert report.pools == 2


def test_one_partition_of_several_is_clean():
    report = run(seed=5, events=600, most=30, partitions=4)
    assert not report.faults
    assert report.dead_letters["wrong_partition"] > 0


def test_a_pipeline_restored_from_its_changelog_goes_on_clean():
    report = run(seed=4, events=600, most=20, restarts=0.3)
    assert not report.faults
