"""What every cell must be, added up from a log and the decisions alone: a second opinion in plain Python.

On hand is the last count plus the movements after it, whichever was told first; reserved is what the orders' last decisions
promise and nobody shipped. A shipment's units of a line are one number here, and who waits for what the decisions say. A kit's
units move what the kit was made of when its line was asked for, or, without a line, what it is made of now.
Shares nothing with the product but the topics' formats. Not here: who gets what (that is the decisions'), times gone by
(windows and horizons are taken for endless).
"""

from collections import defaultdict
from dataclasses import dataclass, field

import orjson

from tests.inventory_log import LogRecord

_SIGN = {
    "sale": -1,
    "return": 1,
    "receipt": 1,
    "adjustment": 1,
    "transfer_in": 1,
    "transfer_out": -1,
    "release": 1,
    "quarantine": -1,
}
_Root = tuple[str, str]  # line id, SKU
_Goods = tuple[tuple[str, int], ...]  # SKUs, and units of each


@dataclass(eq=False)
class _Units:
    """A shipment's units of a line; without a shipment: units that were sent though nobody had promised them."""

    shipment_id: str = ""
    place: str = ""
    kind: str = ""
    open: int = 0
    shipped: int = 0
    returned: int = 0
    collected: int = 0
    rung: int = 0  # by a till, and not confirmed; below 0: collected, and not rung up
    implied: int = 0  # shipped because it was collected
    released: int = 0
    missing: int = 0

    @property
    def sequence(self) -> int:
        return int(self.shipment_id.split("-")[-2])


@dataclass
class _Order:
    pickup: str = ""
    lines: dict[_Root, list[_Units]] = field(default_factory=dict)
    goods: dict[_Root, _Goods] = field(default_factory=dict)  # what a unit of each takes
    waiting: dict[_Root, int] = field(default_factory=lambda: defaultdict(int))
    unstocked: set[_Root] = field(default_factory=set)
    gone: bool = False

    def learn(self, event: dict, kits: dict[str, _Goods]) -> None:
        if event.get("mode") or event["kind"] != "changed":
            self.pickup = event["pickup_location_id"] if event.get("mode") == "pickup" else ""
        elif self.pickup:
            self.pickup = event.get("pickup_location_id") or self.pickup
        for line in event.get("lines") or ():
            root = line["line_id"], line["sku"]
            self.lines.setdefault(root, [])
            self.goods.setdefault(root, _goods_of(line["sku"], kits))
            if not line.get("stocked", True):
                self.unstocked.add(root)

    def of(self, shipment_id: str | None) -> list[tuple[_Root, _Units]]:
        found = [(root, units) for root, each in self.lines.items() for units in each]
        return [(root, units) for root, units in found if units.kind and units.shipment_id == shipment_id]


class Ledger:
    """Folds records one by one, each with the decisions it caused; `on_hand` and `reserved` are by (location, SKU).

    `kits` are those in force.
    """

    def __init__(self, kits: dict[str, _Goods]):
        self.kits = kits
        self.on_hand: dict[tuple[str, str], int] = defaultdict(int)
        self._moved: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)  # (its own time, units)
        self._counted: dict[tuple[str, str], int] = {}
        self._seen: set[tuple[str, str, str]] = set()  # topic, sender, event id
        self._orders: dict[str, _Order] = {}

    @property
    def reserved(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = defaultdict(int)
        for order in self._orders.values():
            for root, each in order.lines.items():
                for units in each:
                    for sku, count in order.goods[root]:
                        found[units.place, sku] += units.open * count
        return {cell: units for cell, units in found.items() if units}

    def fold(self, record: LogRecord, decisions: list[dict], refused: bool) -> None:
        event = None if refused or record.topic == "ticks.v1" else orjson.loads(record.value)
        for decision in decisions:
            if decision["status"] == "expired":  # before the event itself
                self._decided(decision)
        of_stock = record.topic in ("sales.v1", "stock.v1")
        key = event and (record.topic, event["location_id" if of_stock else "order_id"], event["event_id"])
        if key and key not in self._seen:
            self._seen.add(key)
            {"orders.v1": self._ask, "fulfilments.v1": self._answer}.get(record.topic, self._stock)(event)
        for decision in decisions:
            self._decided(decision)

    def _ask(self, event: dict) -> None:
        if event["kind"] == "cancelled":
            return
        order = self._orders.get(event["order_id"])
        if order is None or order.gone:
            order = self._orders[event["order_id"]] = _Order()
        order.learn(event, self.kits)

    def _decided(self, decision: dict) -> None:
        """Take over what an order's decision promises; what it had and has no more was given back."""
        order = self._orders[decision["order_id"]]
        order.gone = decision["status"] in ("expired", "rejected")
        if decision["status"] == "rejected":
            order.lines = {root: [] for root in order.lines}
            order.goods = {root: _goods_of(root[1], self.kits) for root in order.lines}
        order.waiting.clear()
        for line in decision["unallocated"] if decision["status"] != "rejected" else ():
            order.waiting[line["line_id"], line["sku"]] += line["quantity"]
        promised: dict[tuple[_Root, str], int] = defaultdict(int)
        for shipment in decision["shipments"]:
            for line in shipment["lines"]:
                root = line["line_id"], line["sku"]
                promised[root, shipment["shipment_id"]] += line["quantity"]
                if all(units.shipment_id != shipment["shipment_id"] for units in order.lines[root]):
                    order.lines[root].append(_Units(shipment["shipment_id"], shipment["location_id"], shipment["kind"]))
        for root, each in order.lines.items():
            for units in each:
                now = promised[root, units.shipment_id] if units.kind else 0
                units.released += max(units.open - now, 0)
                units.open = now

    # Stock

    def _stock(self, event: dict) -> None:
        cell = event["location_id"], event["sku"]
        if event["kind"] in _SIGN:
            left, goods = event["quantity"], ((event["sku"], 1),)
            if event["kind"] in ("sale", "return"):
                goods = _goods_of(event["sku"], self.kits)
            if event["kind"] == "sale" and event.get("order_id"):
                left, goods = self._ring_up(event, goods)
            self._move(event["location_id"], goods, _SIGN[event["kind"]] * left, event["event_time"])
        elif event["kind"] == "count":
            at = event.get("counted_at", event["event_time"])
            if at >= self._counted.get(cell, -1):
                self._counted[cell] = at
                self.on_hand[cell] = event["quantity"] + sum(units for time, units in self._moved[cell] if time > at)

    def _move(self, place: str, goods: _Goods, units: int, time: int) -> None:
        for sku, count in goods:
            if units and time >= self._counted.get((place, sku), -1):  # else the count has seen it
                self._moved[place, sku].append((time, units * count))
                self.on_hand[place, sku] += units * count

    def _ring_up(self, event: dict, loose: _Goods) -> tuple[int, _Goods]:
        """Take what a till sold of an order that is to be picked up there; gives what it sold besides, and of what."""
        order, left = self._orders.get(event["order_id"]), event["quantity"]
        if order is None or order.pickup != event["location_id"]:
            return left, loose
        lines = [root for root in order.lines if root[1] == event["sku"] and event.get("line_id") in (None, root[0])]
        wanted = [order.goods[root] for root in lines if any(map(_may_be_rung_up, order.lines[root]))]
        if not wanted:
            return left, loose
        each = [(root, units) for root in lines for units in order.lines[root] if order.goods[root] == wanted[0]]
        for _, units in each:
            taken = min(left, max(-units.rung, 0))
            units.rung += taken
            left -= taken
        transfers = [(root, units) for root, units in each if units.kind == "transfer"]
        others = [(root, units) for root, units in each if units.kind != "transfer"]
        for root, units in each:  # what is at the location comes before what is on its way
            if units.kind == "transfer":
                left -= self._hand_over(order, root, units, min(left, units.shipped - units.collected), event, rung=1)
            elif units.kind == "pickup":
                left -= self._leave(order, root, units, left, event, rung=1)
        for root, units in others:
            left -= self._leave_late(order, root, units, left, event, False, rung=1)
        for root, units in transfers:
            left -= self._hand_over(order, root, units, left, event, rung=1)
        for root, units in transfers:
            left -= self._leave_late(order, root, units, left, event, True, rung=1)
        return left, wanted[0]

    # What a location did

    def _answer(self, event: dict) -> None:
        order = self._orders.get(event["order_id"])
        if event["kind"] == "rejected":
            if event.get("missing"):
                self._miss(order, event)
            return
        for root, units in self._named(order, event):
            if event["kind"] == "returned":
                self._return(order, root, units, event)
            elif isinstance(root, str):  # goods that nobody knows
                self._move(event["location_id"], _goods_of(root, self.kits), -units, event["event_time"])
            else:
                self._send(order, root, units, event)

    def _arrives(self, order: _Order, event: dict) -> bool:
        own = order.of(event["shipment_id"])
        return (
            event["kind"] == "collected" and event["location_id"] == order.pickup and any(u.kind == "transfer" for _, u in own)
        )

    def _named(self, order: _Order | None, event: dict) -> list[tuple]:
        """What an answer is about: a line (or lines of a SKU) of the order, or a SKU that nobody knows, and so many units."""
        if event.get("lines") is None:
            return self._whole(order, event)
        named = []
        for line in event["lines"]:
            roots = list(order.lines) if order else []
            if line.get("line_id") is not None:
                roots = [root for root in roots if root[0] == line["line_id"]]
            if line.get("sku") is not None:
                roots = [root for root in roots if root[1] == line["sku"]]
            if not roots:
                named.append((line["sku"], line["quantity"]))
                continue
            roots = [root for root in roots if root not in order.unstocked]
            own = [root for root, _ in order.of(event.get("shipment_id")) if root in roots]
            if roots:
                first = own[0] if own else roots[-1]
                same = [root for root in roots if root[1] == first[1] and order.goods[root] == order.goods[first]]
                named.append((same, line["quantity"]))
        return named

    def _whole(self, order: _Order, event: dict) -> list[tuple]:
        own, arrives = order.of(event["shipment_id"]), self._arrives(order, event)
        if event["kind"] == "returned":
            found = [units.shipped - units.returned for _, units in own]
        else:
            found = [
                _confirmable(units, event["kind"]) + units.open + (units.shipped - units.collected if arrives else 0)
                for _, units in own
            ]
            if not any(found) and not any(units.shipped for _, units in own):
                found = [units.released for _, units in own]
        return [([root], units) for (root, _), units in zip(own, found, strict=True)]

    def _send(self, order: _Order, roots: list[_Root], left: int, event: dict) -> None:
        arrives = self._arrives(order, event)
        each = [(root, units) for root in roots for units in order.lines[root]]
        own = [(root, units) for root, units in each if units.kind and units.shipment_id == event["shipment_id"]]
        for _, units in own:
            taken = min(left, _confirmable(units, event["kind"]))
            if units.kind == "transfer" and event["kind"] == "shipped":
                units.implied -= taken
            else:
                units.rung -= taken
            left -= taken
        for root, units in own:
            left -= (self._hand_over if arrives else self._leave)(order, root, units, left, event)
        for root, units in own:
            left -= self._leave_late(order, root, units, left, event, arrives)
        for root, units in each:
            if (root, units) not in own:
                left -= self._leave(order, root, units, left, event)
        for root in roots:
            taken = min(left, order.waiting[root])
            order.waiting[root] -= taken
            order.lines[root].append(_Units(shipped=taken))
            self._move(event["location_id"], order.goods[root], -taken, event["event_time"])
            left -= taken
        if own:
            beyond = own[0][1]
            beyond.shipped += left
            _note(beyond, left, arrives, -1)
        self._move(event["location_id"], order.goods[roots[0]], -left, event["event_time"])

    def _leave(self, order: _Order, root: _Root, units: _Units, left: int, event: dict, rung: int = -1) -> int:
        """Take what is promised."""
        taken = min(left, units.open)
        units.open -= taken
        units.shipped += taken
        units.rung += rung * taken if units.kind == "pickup" else 0
        self._move(event["location_id"], order.goods[root], -taken, event["event_time"])
        return taken

    def _hand_over(self, order: _Order, root: _Root, units: _Units, left: int, event: dict, rung: int = -1) -> int:
        """Take what was brought to the pickup location, or must have been."""
        arrived = min(left, units.shipped - units.collected)
        implied = min(left - arrived, units.open)
        units.open -= implied
        units.shipped += implied
        units.implied += implied
        units.collected += arrived + implied
        units.rung += rung * (arrived + implied)
        self._move(units.place, order.goods[root], -implied, event["event_time"])
        return arrived + implied

    def _leave_late(
        self, order: _Order, root: _Root, units: _Units, left: int, event: dict, arrives: bool, rung: int = -1
    ) -> int:
        """Take what was given back, and left all the same; so much less is wanted."""
        taken = min(left, units.released)
        found = min(taken, units.missing) if arrives or event["location_id"] == units.place else 0
        units.released -= taken
        units.missing = min(units.missing - found, units.released)
        units.shipped += taken
        _note(units, taken, arrives, rung)
        place = units.place if arrives else event["location_id"]
        self._move(place, order.goods[root], found - taken, event["event_time"])
        less = taken - min(taken, order.waiting[root])
        order.waiting[root] -= taken - less
        others = [each for each in order.lines[root] if each.kind and each.shipment_id != units.shipment_id]
        for each in sorted(others, key=lambda each: each.sequence, reverse=True):
            given = min(less, each.open)
            each.open -= given
            each.released += given
            less -= given
        return taken

    def _miss(self, order: _Order, event: dict) -> None:
        """Take what a location could not find off on hand."""
        own = order.of(event["shipment_id"])
        wanted = [(None, None, None)] if event.get("lines") is None else []
        wanted += [(line.get("line_id"), line.get("sku"), line["quantity"]) for line in event.get("lines") or ()]
        any_open = any(units.open for _, units in own)
        for line_id, sku, quantity in wanted:
            left = quantity
            named = [(root, units) for root, units in own if line_id == root[0] or (line_id is None and sku in (None, root[1]))]
            for root, units in named:
                taken = units.open if left is None else min(left, units.open)
                left = left if left is None else left - taken
                units.open -= taken
                units.released += taken
                units.missing += taken
                self._move(units.place, order.goods[root], -taken, event["event_time"])
            for root, units in named if left is not None or not any_open else ():  # given back before, and missing now
                spare = max(units.released - units.missing, 0)
                taken = spare if left is None else min(left, spare)
                left = left if left is None else left - taken
                units.missing += taken
                self._move(units.place, order.goods[root], -taken, event["event_time"])

    def _return(self, order: _Order | None, roots: list[_Root] | str, left: int, event: dict) -> None:
        goods = _goods_of(roots, self.kits) if isinstance(roots, str) else order.goods[roots[0]]
        self._move(event["location_id"], goods, left, event["event_time"])
        each = [] if isinstance(roots, str) else [units for root in roots for units in order.lines[root]]
        for units in sorted(each, key=lambda units: not units.kind or units.shipment_id != event.get("shipment_id")):
            taken = min(left, units.shipped - units.returned)
            units.returned += taken
            left -= taken


def _goods_of(sku: str, kits: dict[str, _Goods]) -> _Goods:
    return kits.get(sku) or ((sku, 1),)


def _may_be_rung_up(units: _Units) -> bool:
    """Whether a sale may be the collection of some of a shipment's units."""
    brought = units.shipped - units.collected if units.kind == "transfer" else 0
    promised = units.open if units.kind in ("pickup", "transfer") else 0
    return units.rung < 0 or brought + promised + units.released > 0


def _confirmable(units: _Units, kind: str) -> int:
    if units.kind == "transfer" and kind == "shipped":
        return units.implied
    return max(units.rung, 0) if units.kind == "pickup" or (units.kind, kind) == ("transfer", "collected") else 0


def _note(units: _Units, taken: int, arrives: bool, rung: int) -> None:
    """Note how units left that were not promised any more."""
    if arrives:
        units.collected += taken
        units.implied += taken
    if arrives or units.kind == "pickup" or rung > 0:
        units.rung += rung * taken
