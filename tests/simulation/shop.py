"""The events of one seed: a small network, few SKUs, little stock, and everybody after the same units.

All kinds of events, sent again, late, stale and bad ones among them. Fulfilments answer decisions that were published.
"""

import random
from typing import Any

import orjson

from tests import reality
from topics.events import LocationRecord

POOLS = ("uk", "fr", "es")
TRANSFER_MS = 86_400_000
"""How long a transfer may take (run.py)."""
KINDS = ("warehouse", "store", "front_warehouse", "store", "pickup_point", "regional_warehouse")


class Shop:
    """Makes up events.

    Parameters
    ----------
    rng : random.Random
    pools, places, skus : int
        How many pools, locations a pool, SKUs there are.
    tight : int
        The largest quantity of a receipt or a count.
    """

    def __init__(self, rng: random.Random, pools: int, places: int, skus: int, tight: int):
        self.rng = rng
        self.pools = POOLS[:pools]
        self.places = places
        self.skus = [f"S{('', '/', '%')[number % 3]}{number}" for number in range(skus)]
        self.articles = [*self.skus, "K/1", "K2"]
        """What is ordered, rung up and sold: SKUs that have stock, and two that are kits of them most of the time."""
        self.tight = tight
        self.trouble = rng.choice([0.0, 0.05, 0.2])
        self.made = 0
        self.orders: list[tuple[str, str, list[dict]]] = []
        self.pickups: dict[str, str] = {}
        """Order id → where it is, or was, to be picked up."""
        self.clicks: list[tuple[str, bytes, bytes]] = []
        self.sent: list[tuple[str, bytes | None, bytes | None]] = []

    def network(self) -> list[LocationRecord]:
        return [
            LocationRecord(
                id=f"{pool}-{number}",
                pool=pool,
                kind=KINDS[number],
                latitude=round(self.rng.uniform(50, 58), 3),
                longitude=round(self.rng.uniform(-5, 1), 3),
                priority=self.rng.choice([1, 100]),
                max_distance_km=250.0 if number % 3 == 1 else None,
            )
            for pool in self.pools
            for number in range(self.places)
        ]

    def change(self, location: LocationRecord) -> tuple[bytes, bytes | None]:
        """A change of the network: switched off or on, moved, limited, deleted, nonsense."""
        enabled, latitude = self.rng.random() < 0.6, round(self.rng.uniform(50, 58), 3)
        limit = 300.0 if latitude > 54 else None
        changed = location.model_copy(update={"enabled": enabled, "latitude": latitude, "max_distance_km": limit})
        value = self.rng.choices([changed.model_dump_json().encode(), None, b'{"id": 7}'], [8, 1, 1])[0]
        return location.id.encode(), value

    def kits(self) -> list[tuple[bytes, bytes]]:
        """Products that are there from the start: kits that share parts with each other and with plain lines."""
        return [
            (sku.encode(), orjson.dumps({"kit": [{"sku": part, "quantity": self.rng.choice([1, 1, 2])} for part in parts]}))
            for sku in self.articles[-2:]
            if (parts := self.rng.sample(self.skus, min(self.rng.choice([0, 1, 2, 2, 2, 3]), len(self.skus))))
        ]

    def product(self) -> tuple[bytes, bytes | None]:
        """A product's record: a kit, one that is no kit any more, a kit of kits, one that is gone, nonsense."""
        sku, *parts = self.rng.sample([*self.articles, "P1"], 3)
        kit = [{"sku": part, "quantity": self.rng.choice([1, 2, 2, 0])} for part in parts]
        body = {"name": sku, "kit": self.rng.choice([kit, kit, kit[:1], None]), "weight_g": self.rng.choice([5, "heavy"])}
        return sku.encode(), self.rng.choices([orjson.dumps(body), None, b"[", b'{"sku": "other"}'], [8, 2, 1, 1])[0]

    def event(self, now: int, decisions: list[dict]) -> tuple[str, bytes | None, bytes | None]:
        """Give the next event's topic, key and value.

        Parameters
        ----------
        now : int
            Epoch ms.
        decisions : list of dict
            Values of `allocations.v1` so far.
        """
        rng = self.rng
        if self.sent and rng.random() < 0.06:
            return rng.choice(self.sent[-40:])  # the same event again
        self.made += 1
        if rng.random() < self.trouble:
            topic, key, value = self._trouble(now)
        else:
            pool = rng.choice(self.pools)
            makers = [self._stock, self._sale, self._order, self._cancel, self._change, self._fulfil, self._ring_up]
            make = rng.choices(makers, [20, 10, 32, 6, 6, 22, 4])[0]
            topic, body = make(pool, now, decisions)
            key, value = pool.encode(), self._value(now, body)
        self.sent.append((topic, key, value))
        return topic, key, value

    def click(self, now: int) -> tuple[str, bytes | None, bytes | None]:
        """Give a click's topic, key and value."""
        rng = self.rng
        self.made += 1
        visitor = f"v{rng.randrange(6)}"
        body = {"kind": rng.choice(["view", "cart", "search"]), "visitor_id": visitor, "channel": "web"}
        body |= {"sku": rng.choice(self.skus), "pool_id": rng.choice(self.pools)}
        if rng.random() < self.trouble:
            body["kind"] = 7
        value = self._value(now, body)
        if self.clicks and rng.random() < 0.1:
            return rng.choice(self.clicks)
        self.clicks.append(("clicks.v1", visitor.encode(), value))
        return self.clicks[-1]

    def _value(self, now: int, body: dict[str, Any]) -> bytes:
        time = now - self.rng.choice([0, 0, 0, 5, 900, 60_000])
        if self.rng.random() < self.trouble / 4:
            time = self.rng.choice([0, now // 1000, now * 1000, now + 300_000, now + 400_000])
        number = self.made if self.rng.random() > self.trouble / 4 else self.rng.randrange(self.made)  # an id used before
        if "quantity" in body and self.rng.random() < 0.05 and isinstance(body["quantity"], int):
            body = body | {"quantity": float(body["quantity"])}
        if self.rng.random() < self.trouble / 4:  # left out where it is known, nothing where it is not
            body = body | {self.rng.choice(["channel", "customer_id", "unit_price", "reason", "lot_id"]): 2.5}
        return orjson.dumps({"event_id": f"e{number}", "event_time": time} | body)

    def _transfer(self, pool: str, now: int) -> dict:
        """Of few transfers; half of them left so long ago that they are overdue, or soon will be."""
        rng = self.rng
        body = {"transfer_id": f"t{rng.choice(['/', '%', ''])}", "to_location_id": self._place(pool)}
        body |= {"sku": rng.choice(self.skus[:2]), "quantity": rng.randint(1, 3)}
        if rng.random() < 0.5:
            body["event_time"] = now - TRANSFER_MS + rng.choice([-60_000, 0, 500, 3_000])
        return body

    def _place(self, pool: str) -> str:
        return f"{pool}-{self.rng.randrange(self.places)}"

    def _stock(self, pool: str, now: int, _: Any) -> tuple[str, dict]:
        rng = self.rng
        kinds = ["receipt"] * 5 + ["count", "count", "adjustment", *["transfer_out", "transfer_in"] * 3, "expected", "expected"]
        kind = rng.choice([*kinds, "safety_stock", "quarantine", "release"])
        body = {"kind": kind, "location_id": self._place(pool), "sku": rng.choice(self.skus)}
        body["quantity"] = rng.randint(1, self.tight)
        if kind == "adjustment":
            body["quantity"] = rng.choice([-3, -1, 1, 2])
        elif kind == "count":
            body["quantity"] = rng.randint(0, self.tight)
            if rng.random() < 0.7:
                body["counted_at"] = now - rng.choice([0, 200, 2_000, 120_000])
        elif kind.startswith("transfer"):
            body |= self._transfer(pool, now)
        elif kind == "expected":
            body |= {"supply_id": f"p{rng.randrange(3)}", "expected_at": now + 1_000, "quantity": rng.choice([0, 0, 1, 9])}
        elif kind == "safety_stock":
            body["quantity"] = rng.randint(0, 2)
        return "stock.v1", body

    def _sale(self, pool: str, now: int, _: Any) -> tuple[str, dict]:
        kind = self.rng.choice(["sale", "sale", "return"])
        body = {"location_id": self._place(pool), "sku": self.rng.choice(self.articles), "quantity": self.rng.randint(1, 2)}
        return "sales.v1", {"kind": kind, **body}

    def _order(self, pool: str, now: int, _: Any) -> tuple[str, dict]:
        rng = self.rng
        count = rng.choice([1, 1, 1, 1, 2, 3, 5])
        lines = reality.order_lines(rng, self.articles, count, most=3)
        order_id, known = f"o{self.made}", [order for order in self.orders[-12:] if order[0] == pool]
        if known and rng.random() < 0.15:
            _, order_id, former = rng.choice(known)
            lines = former if rng.random() < 0.6 else lines
        body: dict[str, Any] = {"kind": "placed", "order_id": order_id, "lines": lines}
        body |= {"allow_split": rng.random() < 0.8, "allow_partial": rng.random() < 0.8}
        body |= reality.somewhere(rng, self._place(pool) if rng.random() < 0.95 else "nowhere")
        self._note_pickup(body)
        if rng.random() < 0.2:
            body |= {"kind": "held", "expires_at": now + rng.choice([50, 400, 2_000])}
        self.orders.append((pool, order_id, lines))
        return "orders.v1", body

    def _note_pickup(self, body: dict) -> None:
        if "pickup_location_id" in body:
            self.pickups[body["order_id"]] = body["pickup_location_id"]

    def _known(self, pool: str) -> tuple[str, list[dict]]:
        """An order of late, and the lines that it was placed with."""
        known = [order for order in self.orders if order[0] == pool] or [(pool, "unheard-of", [{"line_id": "l0"}])]
        _, order_id, lines = self.rng.choice(known[-15:])
        return order_id, lines

    def _cancel(self, pool: str, now: int, _: Any) -> tuple[str, dict]:
        return "orders.v1", reality.cancellation(self.rng, *self._known(pool))

    def _change(self, pool: str, now: int, decisions: list[dict]) -> tuple[str, dict]:
        if not any(order[0] == pool for order in self.orders):
            return self._order(pool, now, decisions)
        place = self._place(pool) if self.rng.random() < 0.9 else "nowhere"
        body = reality.change(self.rng, *self._known(pool), self.articles, place)
        self._note_pickup(body)
        return "orders.v1", body

    def _promised(self, pool: str, decisions: list[dict]) -> tuple[str, dict] | None:
        """A shipment of a decision of late, which may be gone, and its order."""
        known = [
            (decision["order_id"], shipment)
            for decision in decisions[-25:]
            if decision["pool_id"] == pool
            for shipment in decision["shipments"]
        ]
        return self.rng.choice(known) if known else None

    def _fulfil(self, pool: str, now: int, decisions: list[dict]) -> tuple[str, dict]:
        found = self._promised(pool, decisions)
        if not found:
            return self._order(pool, now, decisions)
        pickup = self.pickups.get(found[0])
        return "fulfilments.v1", reality.answer(self.rng, *found, pickup, self._place(pool), self.articles)

    def _ring_up(self, pool: str, now: int, decisions: list[dict]) -> tuple[str, dict]:
        found = self._promised(pool, [decision for decision in decisions if decision["order_id"] in self.pickups])
        if not found:
            return self._sale(pool, now, decisions)
        return "sales.v1", reality.till_sale(self.rng, *found, self.pickups[found[0]])

    def _trouble(self, now: int) -> tuple[str, bytes | None, bytes | None]:
        """A record that must come to nothing but a dead letter."""
        rng, pool = self.rng, self.rng.choice(self.pools)
        topic, body = rng.choice([self._stock, self._sale, self._order])(pool, now, ())
        key: bytes | None = pool.encode()
        which = rng.randrange(7)
        if which == 0:
            body["location_id"] = "nowhere"
        elif which == 1:
            body["quantity"] = "3"
        elif which == 2:
            key = b"mars"
        elif which == 3:
            key = None
        elif which == 4:
            body["kind"] = "whim"
        elif which == 5:
            return topic, key, rng.choice([b"", b"{", b"\xff\xfe", b"[]", None])
        else:
            body["location_id"] = self._place(rng.choice(self.pools))
        return topic, key, self._value(now, body)
