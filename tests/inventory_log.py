"""Random but reproducible logs of inventory events, of every kind and with every sort of trouble, for the tests.

`make_log(seed, count)` plays the shop: it runs a pipeline of its own to know which shipments there are to ship, reject or
return, and gives back the log as one sequence of records with growing timestamps, so that every cut of it merges alike.
"""

import random
from dataclasses import dataclass, field

import orjson

from config.settings import Settings
from streams.batch.pipeline import LocationChange, Outcome, Segment
from streams.inventory.pipeline import InventoryPipeline
from tests import reality

SKUS = [f"SKU-{i}" for i in range(7)]
KITS = {"KIT-0": (("SKU-0", 2), ("SKU-1", 1)), "KIT-1": (("SKU-1", 1), ("SKU-3", 2), ("SKU-4", 1))}
"""What the shop's kits are made of; others order their parts too."""
ARTICLES = [*SKUS, *KITS]
POOLS = ("uk", "fr")
START_MS = 1_700_000_000_000


@dataclass(slots=True)
class LogRecord:
    """A record as the flow hands it over."""

    topic: str
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple = ()


@dataclass(slots=True)
class Log:
    """Records in the order they are to be applied."""

    locations: list[LocationChange]
    records: list[LogRecord] = field(default_factory=list)
    products: list[LocationChange] = field(default_factory=list)
    later: dict[int, list[LocationChange]] = field(default_factory=dict)
    """Number of a record → the products that change just before it; `play` has none."""

    @property
    def changes(self) -> list[LocationChange]:
        """What is known of locations and products before the first record."""
        return self.locations + self.products


def settings(**changed) -> Settings:
    """Settings with small windows, so that tests reach their ends."""
    return Settings(bootstrap_servers="none:1", **changed)


def location(location_id: str, pool: str, offset: int, **more) -> LocationChange:
    """A record of locations.v1."""
    value = {"id": location_id, "pool": pool, "kind": "store", "latitude": 51.0, "longitude": 0.0} | more
    return LocationChange(0, offset, START_MS, location_id.encode(), orjson.dumps(value))


def product(sku: str, offset: int, value: dict | None) -> LocationChange:
    """A record of products.v1."""
    return LocationChange(0, offset, START_MS, sku.encode(), None if value is None else orjson.dumps(value), "products.v1")


def kit(*parts: tuple[str, int]) -> dict:
    """A product that is a kit of these parts."""
    return {"kit": [{"sku": sku, "quantity": quantity} for sku, quantity in parts]}


def network(rng: random.Random, per_pool: int = 5) -> list[LocationChange]:
    """Locations of both pools: stores, a warehouse, a pickup point."""
    changes = []
    for pool in POOLS:
        for i in range(per_pool):
            kind = ("warehouse", "store", "store", "pickup_point", "front_warehouse")[i % 5]
            changes.append(
                location(
                    f"{pool}-{i}",
                    pool,
                    len(changes),
                    kind=kind,
                    latitude=round(rng.uniform(50, 58), 3),
                    longitude=round(rng.uniform(-5, 1), 3),
                    priority=rng.choice([1, 100]),
                    max_distance_km=200 if i == 2 else None,
                )
            )
    return changes


def segments(records: list[LogRecord]) -> list[Segment]:
    """One batch's records, topic by topic, as fetched."""
    by_topic: dict[str, list[LogRecord]] = {}
    for record in records:
        by_topic.setdefault(record.topic, []).append(record)
    return [Segment.of(topic, found) for topic, found in by_topic.items()]


def play(pipeline: InventoryPipeline, log: Log, size: int) -> list[Outcome]:
    """Run a log through a pipeline in batches of `size` records."""
    outcomes = []
    for at in range(0, len(log.records), size):
        decoded = pipeline.decode(segments(log.records[at : at + size]))
        outcomes.append(pipeline.process(decoded, log.changes if at == 0 else []))
    return outcomes


def published(outcomes: list[Outcome], topic: str) -> list[dict]:
    """The values published to a topic, in order."""
    return [orjson.loads(message["value"]) for outcome in outcomes for message in outcome.outputs.get(topic, [])]


def latest(outcomes: list[Outcome], topic: str) -> dict[bytes, dict]:
    """The last value of each key of a compacted topic, of those that have one."""
    last = {message["key"]: message["value"] for outcome in outcomes for message in outcome.outputs.get(topic, [])}
    return {key: orjson.loads(value) for key, value in last.items() if value is not None}


class _Shop:
    """Makes up events, knowing what was promised so far."""

    def __init__(self, rng: random.Random, tight: int):
        self.rng = rng
        self.tight = tight
        self.orders: list[tuple[str, str, list[dict]]] = []
        self.shipments: list[tuple[str, str, dict]] = []
        self.made = 0
        self.pickups: dict[str, str] = {}
        """Order id → where it is, or was, to be picked up."""

    def place(self, pool: str) -> str:
        return f"{pool}-{self.rng.randrange(5)}"

    def event(self, now: int) -> tuple[str, str | None, dict]:
        rng, pool = self.rng, self.rng.choice(POOLS)
        self.made += 1
        base = {"event_id": f"e{self.made}", "event_time": now - rng.choice([0, 0, 5, 4_000, 60_000])}
        make = rng.choices(
            [
                self._stock,
                self._sale,
                self._order,
                self._cancel,
                self._change,
                self._fulfil,
                self._ring_up,
                self._trouble,
                self._again,
            ],
            [20, 10, 32, 6, 5, 20, 4, 5, 3],
        )[0]
        topic, body = make(pool, now)
        key = body.pop("_key", pool)
        return topic, key, base | body

    def _stock(self, pool: str, now: int) -> tuple[str, dict]:
        rng = self.rng
        kind = rng.choice(
            ["receipt"] * 5
            + ["adjustment", "count", "count", "transfer_out", "transfer_in", "expected", "safety_stock"]
            + ["quarantine", "release"]
        )
        body = {"kind": kind, "location_id": self.place(pool), "sku": rng.choice(SKUS), "quantity": rng.randint(1, self.tight)}
        if kind == "adjustment":
            body["quantity"] = rng.choice([-3, -1, 1, 2])
        elif kind == "count":
            body["quantity"] = rng.randint(0, self.tight)
            if rng.random() < 0.7:
                body["counted_at"] = now - rng.choice([0, 1_000, 30_000, 120_000])
        elif kind.startswith("transfer"):
            body |= {"transfer_id": f"t{rng.randrange(40)}", "to_location_id": self.place(pool)}
        elif kind == "expected":
            body |= {"supply_id": f"p{rng.randrange(10)}", "expected_at": now + 1_000, "quantity": rng.randint(0, 9)}
        elif kind == "safety_stock":
            body["quantity"] = rng.randint(0, 2)
        return "stock.v1", body

    def _sale(self, pool: str, now: int) -> tuple[str, dict]:
        kind = self.rng.choice(["sale", "sale", "return"])
        sku, units = self.rng.choice(ARTICLES), self.rng.randint(1, 3)
        return "sales.v1", {"kind": kind, "location_id": self.place(pool), "sku": sku, "quantity": units}

    def _order(self, pool: str, now: int) -> tuple[str, dict]:
        rng = self.rng
        count = rng.choice([1, 1, 1, 2, 3, 5, 8, 12])
        lines = reality.order_lines(rng, ARTICLES, count, most=4)
        order_id, known = f"o{self.made}", [order for order in self.orders if order[0] == pool]
        if known and rng.random() < 0.12:
            _, order_id, former = rng.choice(known[-8:])
            lines = former if rng.random() < 0.6 else lines
        body = {"kind": "placed", "order_id": order_id, "lines": lines}
        body |= {"allow_split": rng.random() < 0.8, "allow_partial": rng.random() < 0.8}
        body |= reality.somewhere(rng, self.place(pool) if rng.random() < 0.95 else "nowhere")
        self._note_pickup(body)
        if rng.random() < 0.2:
            body |= {"kind": "held", "expires_at": now + rng.choice([50, 3_000, 40_000])}
        self.orders.append((pool, order_id, lines))
        return "orders.v1", body

    def _note_pickup(self, body: dict) -> None:
        if "pickup_location_id" in body:
            self.pickups[body["order_id"]] = body["pickup_location_id"]

    def _known(self, pool: str) -> tuple[str, list[dict]]:
        known = [order for order in self.orders if order[0] == pool] or [(pool, "unheard-of", [{"line_id": "l0"}])]
        _, order_id, lines = self.rng.choice(known[-30:])
        return order_id, lines

    def _cancel(self, pool: str, now: int) -> tuple[str, dict]:
        return "orders.v1", reality.cancellation(self.rng, *self._known(pool))

    def _change(self, pool: str, now: int) -> tuple[str, dict]:
        if not any(order[0] == pool for order in self.orders):
            return self._order(pool, now)
        place = self.place(pool) if self.rng.random() < 0.9 else "nowhere"
        body = reality.change(self.rng, *self._known(pool), ARTICLES, place)
        self._note_pickup(body)
        return "orders.v1", body

    def _promised(self, pool: str, picked_up: bool = False) -> tuple[str, dict] | None:
        known = [shipment for shipment in self.shipments if shipment[0] == pool]
        known = [shipment for shipment in known[-40:] if not picked_up or shipment[1] in self.pickups]
        return self.rng.choice(known)[1:] if known else None

    def _fulfil(self, pool: str, now: int) -> tuple[str, dict]:
        found = self._promised(pool)
        if not found:
            return self._order(pool, now)
        return "fulfilments.v1", reality.answer(self.rng, *found, self.pickups.get(found[0]), self.place(pool), ARTICLES)

    def _ring_up(self, pool: str, now: int) -> tuple[str, dict]:
        found = self._promised(pool, picked_up=True)
        if not found:
            return self._sale(pool, now)
        return "sales.v1", reality.till_sale(self.rng, *found, self.pickups[found[0]])

    def _trouble(self, pool: str, now: int) -> tuple[str, dict]:
        topic, body = self.rng.choice([self._stock, self._sale, self._order])(pool, now)
        which = self.rng.randrange(5)
        if which == 0:
            body["location_id"] = "nowhere"
        elif which == 1:
            body["quantity"] = "3"
        elif which == 2:
            body["_key"] = "mars"
        elif which == 3:
            body["location_id"] = self.place("fr" if pool == "uk" else "uk")
        else:
            body["kind"] = "whim"
        return topic, body

    def _again(self, pool: str, now: int) -> tuple[str, dict]:
        return "ticks.v1", {"pool_id": pool}

    def learn(self, outcome: Outcome) -> None:
        for message in outcome.outputs.get("allocations.v1", []):
            decision = orjson.loads(message["value"])
            for shipment in decision["shipments"]:
                self.shipments.append((decision["pool_id"], decision["order_id"], shipment))


def _redefined(rng: random.Random, number: int) -> LocationChange:
    """A kit becomes another, or none."""
    parts = [(sku, rng.randint(1, 2)) for sku in rng.sample(SKUS[:5], rng.randint(0, 3))]
    return product(rng.choice([*KITS]), 100 + number, kit(*parts) if parts else None)


def make_log(seed: int, count: int, tight: int = 6, step_ms: int = 700, redefine: float = 0.0, **changed) -> Log:
    """Make a log of `count` records, some of them sent twice; before so many of them, a share, a kit becomes another."""
    rng = random.Random(seed)
    kits = [("KIT-1", kit(("SKU-2", 1))), *((sku, kit(*parts)) for sku, parts in KITS.items())]
    log = Log(network(rng), products=[product(sku, number, value) for number, (sku, value) in enumerate(kits)])
    scout = InventoryPipeline(0, 1, settings(**changed))
    shop = _Shop(rng, tight)
    offsets: dict[str, int] = {}
    now = START_MS
    for i in range(count):
        now += rng.randint(1, step_ms)
        if log.records and rng.random() < 0.05:
            former = rng.choice(log.records[-60:])
            topic, key, value = former.topic, former.key, former.value
        else:
            topic, pool, body = shop.event(now)
            key, value = pool.encode(), orjson.dumps(body)
        offsets[topic] = offsets.get(topic, -1) + rng.choice([1, 1, 1, 2])
        record = LogRecord(topic, offsets[topic], now, key, value)
        log.records.append(record)
        if redefine and rng.random() < redefine:
            log.later[i] = [_redefined(rng, i)]
        changes = log.changes if i == 0 else []
        shop.learn(scout.process(scout.decode(segments([record])), changes + log.later.get(i, [])))
    return log
