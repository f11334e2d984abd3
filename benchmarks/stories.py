"""Orders and decisions in words: three orders as stories, and parcels and kilometres beside a central warehouse.

Owner: the demo. Everything here is computed from records of `orders.v1` and `allocations.v1` and the network.
Not here: reading the topics (demo.py), laying out (streams/cli/demo.py).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.retail.places import town_near
from config.network import distances_km
from topics.events import LocationRecord
from topics.reasons import Lost, Won

NEAR_KM = 50.0
SHORT_LINES = 3


@dataclass(slots=True)
class History:
    """An order and its decisions, in order, as read from the topics."""

    order: dict[str, Any]
    decisions: list[dict[str, Any]] = field(default_factory=list)

    def delivered(self) -> bool:
        return self.order.get("destination") is not None and self.order.get("mode") != "pickup"

    def waited(self) -> bool:
        """Whether units of it waited before its last decision."""
        return any(decision["unallocated"] for decision in self.decisions[:-1])


def order_histories(events: Sequence[dict[str, Any]], decisions: Sequence[dict[str, Any]]) -> list[History]:
    """Bring placed orders and their decisions together; orders without a decision are left out."""
    found = {event["order_id"]: History(event) for event in events if event["kind"] == "placed"}
    for decision in decisions:
        if decision["order_id"] in found and decision["status"] != "held":
            found[decision["order_id"]].decisions.append(decision)
    return [each for each in found.values() if each.decisions]


def three_stories(histories: Sequence[History]) -> list[tuple[str, list[str]]]:
    """Put three orders into words: one that one location sends, one that several share, one that waited. Title and sentences.

    The shortest of its kind is taken; a kind that did not occur is left out.
    """
    kinds: list[tuple[str, Callable[[History], bool]]] = [
        ("From one place", lambda each: _shipments(each) == 1 and bool(each.decisions[0]["explanation"]["lost"])),
        ("From several places", lambda each: _shipments(each) > 1),
        ("It waited", lambda each: each.waited() and each.decisions[-1]["status"] == "allocated"),
    ]
    stories = []
    for title, fits in kinds:
        found = [each for each in histories if each.delivered() and fits(each)]
        if found:
            stories.append((title, list(_story(min(found, key=lambda each: len(each.order["lines"]))))))
    return stories


def _shipments(history: History) -> int:
    """Count the shipments of an order that was allocated at once, else 0."""
    first = history.decisions[0]
    return len(first["shipments"]) if first["status"] == "allocated" else 0


def _story(history: History) -> Iterator[str]:
    order, place = history.order, history.order["destination"]
    lines = [f"{line['quantity']} of {line['sku']}" for line in order["lines"]]
    more = f" and {len(lines) - 3} lines more" if len(lines) > 4 else ""
    town = town_near(place["latitude"], place["longitude"])
    yield f"Order {order['order_id']} asks for {', '.join(lines[: 3 if more else 4])}{more}, to be sent to {town}."
    before: dict[str, Any] | None = None
    for decision in history.decisions:
        yield from _decision(decision, before)
        before = decision


def _decision(decision: dict[str, Any], before: dict[str, Any] | None) -> Iterator[str]:
    """Put a decision into words, less the shipments of the one `before` it; None: this is the order's first."""
    why = decision["explanation"]
    known = {each["shipment_id"] for each in before["shipments"]} if before else set()
    chosen = [
        f"{each['location_id']}, {each['distance_km']:.0f} km away, sends {sum(line['quantity'] for line in each['lines'])}"
        for each in decision["shipments"]
        if each["shipment_id"] not in known
    ]
    if chosen and before is None and not why["considered"]:
        yield f"It was promised as a basket before: {'; '.join(chosen)}."
    elif chosen:
        when = f"{why['considered']} locations are looked at"
        if before is not None:
            later = f"{_cause(decision['source'])} makes units available"
            when = later if before["unallocated"] else "Later goods that it was promised are not there any more"
        yield f"{when}: {'; '.join(chosen)}. {Won[why['won'].upper()].sentence}"
    lost = defaultdict(list)
    for each in why["lost"]:
        lost[each["reason"]].append(f"{each['location_id']} at {each['distance_km']:.0f} km")
    for reason, places in lost.items():
        yield f"Not {', '.join(places)}: {Lost[reason.upper()].sentence}"
    if waiting := sum(line["quantity"] for line in decision["unallocated"]):
        yield f"{waiting} units wait until somewhere has them ({decision['status']})."


def _cause(source: dict[str, Any]) -> str:
    return {
        "stock.v1": "Later a delivery or a count",
        "sales.v1": "Later a return at a till",
        "orders.v1": "Later a cancelled order",
        "ticks.v1": "Later a basket that expired",
    }.get(source["topic"], f"Later an event of {source['topic']}")


@dataclass(slots=True)
class Way:
    """What one way of sending the promised goods takes."""

    parcels: int = 0
    kilometres: float = 0.0
    units: int = 0
    near_units: int = 0
    """Units that travel at most `NEAR_KM`."""

    def add(self, distance_km: float, units: int) -> None:
        """Count a parcel."""
        self.parcels += 1
        self.kilometres += distance_km
        self.units += units
        self.near_units += units * (distance_km <= NEAR_KM)


@dataclass(slots=True)
class Ways:
    """Deliveries as nearshelf promised them, and the same goods from one central warehouse, if it had them all."""

    central: list[str] = field(default_factory=list)
    """Of each pool, the warehouse that is nearest to all its customers."""
    promised: tuple[Way, Way] = field(default_factory=lambda: (Way(), Way()))
    """Of all orders, and of those of at most `SHORT_LINES` lines."""
    centrally: tuple[Way, Way] = field(default_factory=lambda: (Way(), Way()))


def compare(histories: Sequence[History], locations: Sequence[LocationRecord]) -> Ways:
    """Compare nearshelf's promises for deliveries with the central warehouse, from the same orders and units.

    An order counts with its last decision that has shipments; what it was not promised is sent by neither way.
    """
    pools = defaultdict(list)
    for each in histories:
        promised = [decision for decision in each.decisions if decision["shipments"]]
        if each.delivered() and promised:
            pools[promised[-1]["pool_id"]].append((each.order, promised[-1]["shipments"]))
    ways = Ways()
    for pool, orders in pools.items():
        to = np.array([[order["destination"][name] for name in ("latitude", "longitude")] for order, _ in orders])
        warehouses = [place for place in locations if place.pool == pool and place.kind == "warehouse"]
        reach = [distances_km(to, np.array([place.latitude, place.longitude])) for place in warehouses]
        best = int(np.argmin([found.sum() for found in reach]))
        ways.central.append(warehouses[best].id)
        for (order, shipments), direct_km in zip(orders, reach[best], strict=True):
            parcels = [(each["distance_km"], sum(line["quantity"] for line in each["lines"])) for each in shipments]
            for group in range(2 if len(order["lines"]) <= SHORT_LINES else 1):
                for distance_km, units in parcels:
                    ways.promised[group].add(distance_km, units)
                ways.centrally[group].add(float(direct_km), sum(units for _, units in parcels))
    return ways
