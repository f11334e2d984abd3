"""The events of one seed: a small network, few SKUs, little stock, and everybody after the same units.

All kinds of events, sent again, late, stale and bad ones among them. Fulfilments answer decisions that were published.
"""

import random
from typing import Any

import orjson

from topics.events import LocationRecord

POOLS = ("uk", "fr", "es")
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
        self.tight = tight
        self.trouble = rng.choice([0.0, 0.05, 0.2])
        self.made = 0
        self.orders: list[tuple[str, str, list[dict]]] = []
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
            )
            for pool in self.pools
            for number in range(self.places)
        ]

    def change(self, location: LocationRecord) -> tuple[bytes, bytes | None]:
        """A change of the network: switched off or on, moved, deleted, nonsense."""
        changed = location.model_copy(
            update={"enabled": self.rng.random() < 0.6, "latitude": round(self.rng.uniform(50, 58), 3)}
        )
        value = self.rng.choices([changed.model_dump_json().encode(), None, b'{"id": 7}'], [8, 1, 1])[0]
        return location.id.encode(), value

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
            make = rng.choices([self._stock, self._sale, self._order, self._cancel, self._fulfil], [22, 12, 40, 6, 20])[0]
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

    def _place(self, pool: str) -> str:
        return f"{pool}-{self.rng.randrange(self.places)}"

    def _stock(self, pool: str, now: int, _: Any) -> tuple[str, dict]:
        rng = self.rng
        kinds = ["receipt"] * 5 + ["count", "count", "adjustment", "transfer_out", "transfer_in", "expected"]
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
            body |= {"transfer_id": f"t{rng.randrange(6)}", "to_location_id": self._place(pool)}
        elif kind == "expected":
            body |= {"supply_id": f"p{rng.randrange(4)}", "expected_at": now + 1_000, "quantity": rng.randint(0, 9)}
        elif kind == "safety_stock":
            body["quantity"] = rng.randint(0, 2)
        return "stock.v1", body

    def _sale(self, pool: str, now: int, _: Any) -> tuple[str, dict]:
        kind = self.rng.choice(["sale", "sale", "return"])
        body = {"location_id": self._place(pool), "sku": self.rng.choice(self.skus), "quantity": self.rng.randint(1, 2)}
        return "sales.v1", {"kind": kind, **body}

    def _order(self, pool: str, now: int, _: Any) -> tuple[str, dict]:
        rng = self.rng
        count = rng.choice([1, 1, 1, 1, 2, 3, 5])
        lines = [{"line_id": f"l{i}", "sku": rng.choice(self.skus), "quantity": rng.randint(1, 3)} for i in range(count)]
        order_id, known = f"o{self.made}", [order for order in self.orders[-12:] if order[0] == pool]
        if known and rng.random() < 0.15:
            _, order_id, former = rng.choice(known)
            lines = former if rng.random() < 0.6 else lines
        body: dict[str, Any] = {"kind": "placed", "order_id": order_id, "lines": lines}
        body |= {"allow_split": rng.random() < 0.8, "allow_partial": rng.random() < 0.8}
        if rng.random() < 0.3:
            body |= {"mode": "pickup", "pickup_location_id": self._place(pool) if rng.random() < 0.95 else "nowhere"}
        else:
            body["destination"] = {"latitude": round(rng.uniform(50, 58), 2), "longitude": round(rng.uniform(-5, 1), 2)}
        if rng.random() < 0.15:
            body |= {"kind": "held", "expires_at": now + rng.choice([50, 400, 2_000])}
        self.orders.append((pool, order_id, lines))
        return "orders.v1", body

    def _cancel(self, pool: str, now: int, _: Any) -> tuple[str, dict]:
        known = [order for order in self.orders if order[0] == pool] or [(pool, "unheard-of", [{"line_id": "l0"}])]
        _, order_id, lines = self.rng.choice(known[-15:])
        body: dict[str, Any] = {"kind": "cancelled", "order_id": order_id}
        if self.rng.random() < 0.4:
            body["line_ids"] = [line["line_id"] for line in lines if self.rng.random() < 0.5]
        return "orders.v1", body

    def _fulfil(self, pool: str, now: int, decisions: list[dict]) -> tuple[str, dict]:
        rng = self.rng
        known = [
            (decision["order_id"], shipment)
            for decision in decisions[-25:]
            if decision["pool_id"] == pool
            for shipment in decision["shipments"]
        ]
        if not known:
            return self._order(pool, now, decisions)
        order_id, shipment = rng.choice(known)
        kind = rng.choice(["shipped", "shipped", "collected", "rejected", "rejected", "returned"])
        body = {"kind": kind, "order_id": order_id}
        body |= {"shipment_id": shipment["shipment_id"], "location_id": shipment["location_id"]}
        if kind == "returned" or rng.random() < 0.1:
            body["location_id"] = self._place(pool)
        if rng.random() < 0.4:
            body["lines"] = [
                {"line_id": line["line_id"], "quantity": rng.randint(1, line["quantity"])}
                for line in shipment["lines"]
                if rng.random() < 0.7
            ]
        return "fulfilments.v1", body

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
