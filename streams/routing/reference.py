"""The kernel's twin in plain Python: the rules of policy `nearest` as they read, with no thought of speed.

It tries locations one after the other on every set of lines served so far, and keeps the cheapest way to each set. That
is exact for any number of lines, in time and memory that only small networks and orders allow. Distances come from the
angle between two vectors by atan2, exact at any range; the kernel takes chords.
Owner: tests and benchmarks; the product does not call it.
Invariants: shares no code with the kernel but the closed lists and the flags of the schema.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any

from state.columns import ENABLED, PICKS_UP, SHIPS
from topics.reasons import Lost, ShipmentKind, Unallocated, Won

EARTH_RADIUS_M = 6_371_008.8
EQUAL_M = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """A location."""

    vector: tuple[float, float, float]
    priority: int
    rank: int
    ships: bool
    picks_up: bool
    enabled: bool
    limit_m: float = math.inf


@dataclass(slots=True)
class Stock:
    """A pool's locations and, per SKU row and location row, the units that may be promised."""

    places: list[Place]
    free: dict[int, dict[int, int]]

    @classmethod
    def of(cls, view: Any) -> "Stock":
        """Copy a kernel's View."""
        places = [
            Place(
                (float(row["x"]), float(row["y"]), float(row["z"])),
                int(row["priority"]),
                int(row["rank"]),
                bool(row["flags"] & ENABLED and row["flags"] & SHIPS),
                bool(row["flags"] & ENABLED and row["flags"] & PICKS_UP),
                bool(row["flags"] & ENABLED),
                2 * EARTH_RADIUS_M * math.asin(math.sqrt(row["limit_chord2"]) / 2) or math.inf,
            )
            for row in view.locations
        ]
        free: dict[int, dict[int, int]] = {}
        for sku, link in enumerate(view.sku_links):
            rows = view.sku_cells["row"][link["block_at"] : link["block_at"] + link["block_count"]]
            cells = view.cells[rows]
            units = cells["on_hand"].astype(int) - cells["reserved"] - cells["safety_stock"]
            free[sku] = dict(zip(cells["location"].tolist(), units.tolist(), strict=True))
        return cls(places, free)


@dataclass(slots=True)
class Decision:
    """What the kernel writes, as plain values; `distance_m` per line is not rounded."""

    location: list[int]
    distance_m: list[float]
    kind: list[int]
    reason: list[int]
    considered: int = 0
    won: int = Won.NOTHING
    losers: list[tuple[int, float, int]] = field(default_factory=list)

    @property
    def shipments(self) -> int:
        """Distinct locations that ship."""
        return len({location for location in self.location if location >= 0})

    @property
    def total_m(self) -> float:
        """Sum of the distances of the locations that ship."""
        return sum({at: metres for at, metres in zip(self.location, self.distance_m, strict=True) if at >= 0}.values())


def great_circle_m(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Great circle between two unit vectors, in metres, by atan2 of the cross and the dot product."""
    (a, b, c), (u, v, w) = one, other
    cross = math.hypot(b * w - c * v, c * u - a * w, a * v - b * u)
    return EARTH_RADIUS_M * math.atan2(cross, a * u + b * v + c * w)


Lines = frozenset[int]
Kits = dict[int, dict[int, int]]
"""Line → SKU row → its units for all kits of the line together."""
Tie = dict[int, float]
"""Location → metres, of the rivals of a single winner."""


class _Order:
    """One order against the stock: who may take what."""

    def __init__(
        self,
        stock: Stock,
        skus: list[int],
        quantities: list[int],
        refused: set[tuple[int, int]],
        destination: tuple[float, float, float],
        kits: Kits,
    ):
        self.stock, self.skus, self.quantities, self.refused, self.kits = stock, skus, quantities, refused, kits
        self.everything = frozenset(range(len(skus)))
        self.needs = [kits.get(line) or {sku: quantities[line]} for line, sku in enumerate(skus)]
        cells = {location for needs in self.needs for sku in needs for location in stock.free.get(sku, ())}
        self.distance_m = {at: great_circle_m(stock.places[at].vector, destination) for at in cells}

    def units(self, lines: Iterable[int]) -> int:
        return sum(self.quantities[line] for line in lines)

    def has(self, line: int, location: int, taken: Iterable[int] = ()) -> bool:
        """Whether a location has what a line needs, besides what it gives to the lines taken."""
        given: Counter[int] = Counter()
        for other in taken:
            given.update(self.needs[other])
        free = self.stock.free
        return all(units <= free.get(sku, {}).get(location, 0) - given[sku] for sku, units in self.needs[line].items())

    def takes(self, location: int, lines: Iterable[int]) -> bool:
        """Whether a location can take these lines together."""
        needed: Counter[int] = Counter()
        for line in lines:
            if (line, location) in self.refused:
                return False
            needed.update(self.needs[line])
        return all(units <= self.stock.free.get(sku, {}).get(location, 0) for sku, units in needed.items())

    def parts(self, location: int, lines: Iterable[int], most_units: bool) -> list[Lines]:
        """The subsets of some lines a location can take to which no line can be added; or only those of most units."""
        per_sku: dict[int, list[int]] = {}
        for line in sorted(lines):
            if self.takes(location, [line]):  # lines of kits may need the same as any other
                per_sku.setdefault(-1 if self.kits else self.skus[line], []).append(line)
        choices = []
        for same in per_sku.values():
            fitting = [set(same)] if self.takes(location, same) else []
            for size in range(len(same) - 1, 0, -1) if not fitting else ():
                for subset in combinations(same, size):
                    if self.takes(location, subset) and not any(set(subset) < larger for larger in fitting):
                        fitting.append(set(subset))
            if most_units:
                most = max(self.units(subset) for subset in fitting)
                fitting = [subset for subset in fitting if self.units(subset) == most]
            choices.append(fitting)
        return [Lines().union(*choice) for choice in product(*choices)]

    def most(self, location: int, lines: Iterable[int]) -> int:
        """Most units of some lines that a location could take alone."""
        return max(self.units(part) for part in self.parts(location, lines, most_units=True))


def route_order_reference(
    stock: Stock,
    skus: list[int],
    quantities: list[int],
    refused: set[tuple[int, int]],
    destination: tuple[float, float, float],
    pickup_location: int = -1,
    allow_split: bool = True,
    allow_partial: bool = True,
    kits: Kits | None = None,
) -> Decision:
    """Decide where each line of an order comes from; the stock is not changed.

    Parameters
    ----------
    stock : Stock
    skus, quantities : list of int
        SKU row (-1 = nobody stocks it) and units of each line.
    refused : set of (int, int)
        Pairs (line, location).
    destination : tuple of float
        Unit vector; not read for a pickup.
    pickup_location : int
        Location row, -1 = a delivery.
    allow_split, allow_partial : bool
    kits : Kits
        Of the lines of kits, what they need; their `skus` are not read.

    Returns
    -------
    Decision
    """
    count = len(skus)
    decision = Decision([-1] * count, [0.0] * count, [0] * count, [0] * count)
    pickup = pickup_location >= 0
    if pickup:
        if not stock.places[pickup_location].enabled:
            decision.reason = [Unallocated.LOCATION_DISABLED] * count
            return decision
        destination = stock.places[pickup_location].vector
    order = _Order(stock, skus, quantities, refused, destination, kits or {})
    able = [at for at in order.distance_m if stock.places[at].ships and at != pickup_location]
    shippers = [at for at in able if order.distance_m[at] <= stock.places[at].limit_m]
    far = set(able) - set(shippers)
    own = pickup_location if pickup and stock.places[pickup_location].picks_up else None

    served, tie = _choose(order, shippers, own, allow_split)
    if len(served) < count and not allow_partial:
        served = {}
    for line, location in served.items():
        decision.location[line] = location
        decision.distance_m[line] = order.distance_m[location]
        decision.kind[line] = ShipmentKind.TRANSFER if pickup else ShipmentKind.SHIP
        if location == own:
            decision.kind[line] = ShipmentKind.PICKUP
    for line in order.everything - served.keys():
        decision.reason[line] = _why_waiting(order, line, served, shippers, own, far, allow_split)
    decision.considered = len(order.distance_m)
    decision.won = _why_won(order, served, own, tie)
    decision.losers = _losers(order, served, shippers, own, far, tie, decision.won)
    return decision


def _choose(order: _Order, shippers: list[int], own: int | None, allow_split: bool) -> tuple[dict[int, int], Tie]:
    """Choose a location per line; also return the rivals of a single winner, {location: metres}."""
    if own is not None and order.takes(own, order.everything):
        return dict.fromkeys(order.everything, own), {}
    if own is None or not allow_split:
        rivals = [at for at in shippers if order.takes(at, order.everything)]
        if rivals:
            return _single(order, rivals, order.everything)
        if not allow_split:
            return {}, {}
    candidates = []
    for own_part in order.parts(own, order.everything, most_units=True) if own is not None else [Lines()]:
        left = order.everything - own_part
        for rest, way in _ways(order, shippers, left).items():
            candidates.append((order.units(rest), -way[0], -way[1], own_part, left, way[2]))
    units, shipments, _, own_part, left, assigned = max(candidates, key=lambda found: found[:3])
    served, tie = dict(assigned), Tie()
    if shipments == -1:
        served, tie = _single(order, [at for at in shippers if order.most(at, left) == units], left)
    if own is not None:
        served.update(dict.fromkeys(own_part, own))
    return served, tie


def _ways(order: _Order, shippers: list[int], lines: Lines) -> dict[Lines, tuple[int, float, dict[int, int]]]:
    """For each set of lines that some shippers can serve together: (shipments, metres, {line: location}), the cheapest."""
    ways: dict[Lines, tuple[int, float, dict[int, int]]] = {Lines(): (0, 0.0, {})}
    for location in shippers:
        before = list(ways.items())
        for done, (shipments, metres, assigned) in before:
            for part in order.parts(location, lines - done, most_units=False):
                if not part:
                    continue
                way = (shipments + 1, metres + order.distance_m[location])
                if done | part not in ways or way < ways[done | part][:2]:
                    ways[done | part] = (*way, {**assigned, **dict.fromkeys(part, location)})
    return ways


def _single(order: _Order, rivals: list[int], lines: Iterable[int]) -> tuple[dict[int, int], Tie]:
    """Choose the nearest; within a metre of it, the lowest priority, then the smallest id."""
    nearest = min(order.distance_m[at] for at in rivals)
    places = order.stock.places
    close = [at for at in rivals if order.distance_m[at] <= nearest + EQUAL_M]
    winner = min(close, key=lambda at: (places[at].priority, places[at].rank))
    part = order.parts(winner, lines, most_units=True)[0]
    return dict.fromkeys(part, winner), {at: order.distance_m[at] for at in rivals}


def _why_waiting(
    order: _Order, line: int, served: dict[int, int], shippers: list[int], own: int | None, far: set[int], allow_split: bool
) -> Unallocated:
    if not allow_split:
        return Unallocated.NO_SINGLE_LOCATION
    reason = Unallocated.NO_STOCK
    for location in order.distance_m:
        if not order.has(line, location, [other for other, at in served.items() if at == location]):
            continue
        if (location in shippers or location == own) and (line, location) not in order.refused:
            return Unallocated.ALL_OR_NOTHING
        if location in far and (line, location) not in order.refused:
            reason = Unallocated.TOO_FAR
        elif reason != Unallocated.TOO_FAR:
            reason = Unallocated.NOT_ELIGIBLE
    return reason


def _why_won(order: _Order, served: dict[int, int], own: int | None, tie: Tie) -> Won:
    if not served:
        return Won.NOTHING
    if own in served.values():
        return Won.OWN_STOCK
    if len(set(served.values())) > 1:
        return Won.FEWEST_SHIPMENTS
    if len(tie) == 1:
        return Won.ONLY_CANDIDATE
    (winner,) = set(served.values())
    close = [at for at in tie if tie[at] <= min(tie.values()) + EQUAL_M]
    if len(close) == 1:
        return Won.NEAREST
    places = order.stock.places
    same = [at for at in close if places[at].priority == places[winner].priority]
    return Won.LOCATION_ID if len(same) > 1 else Won.PRIORITY


def _losers(
    order: _Order, served: dict[int, int], shippers: list[int], own: int | None, far: set[int], tie: Tie, won: int
) -> list[tuple[int, float, int]]:
    """The nearest three that were considered and not chosen: (location, metres, reasons.Lost)."""
    places = order.stock.places
    chosen = set(served.values())
    others = sorted(order.distance_m.keys() - chosen, key=lambda at: (order.distance_m[at], places[at].rank))[:3]
    needed = order.units(served or order.everything)
    losers: list[tuple[int, float, int]] = []
    for location in others:
        units = order.most(location, order.everything)
        refused_stock = any(at == location and order.has(line, at) for line, at in order.refused)
        reason = Lost.FARTHER
        if location in far:
            reason = Lost.TOO_FAR
        elif location not in shippers and location != own:
            reason = Lost.NOT_ELIGIBLE
        elif units == 0:
            reason = Lost.NOT_ELIGIBLE if refused_stock else Lost.NO_STOCK
        elif units < needed:
            reason = Lost.FEWER_UNITS
        elif won in (Won.PRIORITY, Won.LOCATION_ID) and location in tie:
            (winner,) = chosen
            if tie[location] <= min(tie.values()) + EQUAL_M:
                same = places[location].priority == places[winner].priority
                reason = Lost.LOCATION_ID if same else Lost.PRIORITY
        losers.append((location, order.distance_m[location], reason))
    return losers


def route_orders_reference(stock: Stock, orders: list[dict[str, Any]]) -> list[Decision]:
    """Route orders one after the other, reserving as it goes; each order is a dict of `route_order_reference`'s arguments."""
    decisions = []
    for order in orders:
        decision = route_order_reference(stock, **order)
        for sku, units, location in zip(order["skus"], order["quantities"], decision.location, strict=True):
            if location >= 0:
                stock.free[sku][location] -= units
        decisions.append(decision)
    return decisions
