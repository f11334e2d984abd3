"""Judging one published decision against a pool's ledger, and following it.

A decision is free in one thing only: which location gets which waiting line. All else is given: promises already made
stand, whole lines, places that are enabled, capable, near as stated and have the units, and what is not promised is
named as waiting. A decision at fault is followed as far as it can be, so that one fault does not drag others behind it.
Owner: the audit. Not here: which event must have a decision (inventory.py), whether it is the nearest (the routing's own
tests).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import asin, cos, inf, radians, sin, sqrt
from typing import NamedTuple

from streams.audit.ledger import Pool
from streams.audit.orders import Order, Part, Shipment
from streams.audit.products import Goods
from topics.events import LocationRecord
from topics.outputs import Allocation, ShipmentLine, UnallocatedLine
from topics.outputs import Shipment as PublishedShipment

EARTH_RADIUS_KM = 6371.0088
DISTANCE_TOLERANCE_KM = 0.0021  # distances are rounded to a metre, from unit vectors

Line = tuple[str | int | tuple[str, int], ...]
"""Line id, SKU, units; of a kit also its parts, each with its units for the whole line."""


class Problem(NamedTuple):
    """What is wrong with a decision; `kind` is one of report.FAULTS."""

    kind: str
    expected: str
    found: str


def follow(pool: Pool, order: Order, decision: Allocation, status: str) -> Iterator[Problem]:
    """Enter a decision's new promises into the ledger; yields what is wrong with it.

    `status` is what the decision must say, or "" where it follows from what the order then has.
    """
    yield from _frame(pool, order, decision)
    published = {shipment.shipment_id: shipment for shipment in decision.shipments}
    if len(published) < len(decision.shipments):
        yield Problem("decision", "each shipment once", f"ids {[each.shipment_id for each in decision.shipments]}")
    for kept in order.open_shipments:
        yield from _kept(pool, order, kept, published.pop(kept.id, None))
    waited = order.waiting
    by_line: dict[Line, list[Part]] = defaultdict(list)
    for part in waited:
        by_line[_line_of(part, part.quantity)].append(part)
    for shipment in sorted(published.values(), key=_number):
        yield from _new_shipment(pool, order, decision, shipment, by_line)
    yield from _flags(order, waited)
    pool.queue(order)
    yield from _rest(pool, order, decision, status)


def _frame(pool: Pool, order: Order, decision: Allocation) -> Iterator[Problem]:
    if decision.decided_at != pool.now:
        yield Problem("clock", f"decided_at {pool.now}, the pool's now", str(decision.decided_at))
    if not decision.allocation_id.endswith(f"-{decision.sequence}"):
        yield Problem("decision", f"an allocation_id that ends in -{decision.sequence}", decision.allocation_id)


def _number(published: PublishedShipment) -> int:
    """Read the number of a shipment in its decision: of equal parts the first is in the shipment of the smaller number."""
    number = published.shipment_id.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _kept(pool: Pool, order: Order, shipment: Shipment, published: PublishedShipment | None) -> Iterator[Problem]:
    """Check that a promise made before stands as it was; to a new destination it is as far as that is."""
    if shipment.distance_km is None and published:
        shipment.distance_km = published.distance_km
        yield from _distance(pool, order, shipment)
    expected = _shown(
        shipment.location_id,
        shipment.kind,
        shipment.distance_km,
        [_line_of(part, part.open_units) for part in shipment.parts if part.open_units],
    )
    if published is None:
        yield Problem("decision", f"shipment {shipment.id} kept: {expected}", "not in the decision")
        return
    found = _shown(published.location_id, published.kind, published.distance_km, _lines(published.lines))
    if found != expected:
        yield Problem("decision", f"shipment {shipment.id} kept: {expected}", found)


def _shown(location_id: str, kind: str, distance_km: float | None, lines: list[tuple]) -> str:
    return f"{kind} by {location_id} over {distance_km} km, lines {sorted(lines)}"


def _lines(lines: Sequence[ShipmentLine | UnallocatedLine]) -> list[Line]:
    return [(line.line_id, line.sku, line.quantity, *_parts(line)) for line in lines]


def _parts(line: ShipmentLine | UnallocatedLine) -> Goods:
    return tuple((part.sku, part.quantity) for part in line.parts or ())


def _waiting_lines(order: Order) -> list[Line]:
    return [_line_of(part, part.quantity) for part in order.waiting]


def _line_of(part: Part, units: int) -> Line:
    """Say how so many units of a part are published."""
    return part.line_id, part.sku, units, *(part.taken(units) if part.kit else ())


def _new_shipment(
    pool: Pool, order: Order, decision: Allocation, published: PublishedShipment, by_line: dict[Line, list[Part]]
) -> Iterator[Problem]:
    """Judge a shipment that was not there before, and take its lines from those that wait."""
    named = published.shipment_id, published.location_id, published.kind, published.distance_km
    shipment = Shipment(*named, sequence=decision.sequence)
    if not published.shipment_id.startswith(decision.allocation_id + "-"):
        yield Problem("decision", f"a shipment_id that begins with {decision.allocation_id}-", published.shipment_id)
    if not published.lines:
        yield Problem("decision", f"lines in shipment {published.shipment_id}", "none")
    location = pool.network.get(published.location_id)
    if location is None or location.pool != pool.id:
        yield Problem("promise", "a location of the pool", published.location_id)
    else:
        yield from _capable(pool, order, shipment, location)
    for line in _lines(published.lines):
        if not by_line[line]:
            yield Problem("promise", f"one of the lines that wait, whole: {_waiting_lines(order)}", str(line))
            continue
        part = by_line[line].pop(0)
        if (part.root, shipment.location_id) in order.refusals:
            yield Problem("promise", f"line {part.line_id} elsewhere than where it was refused", shipment.location_id)
        for sku, units in part.taken(part.quantity):
            cell = pool.stock.cells.get((shipment.location_id, sku))
            available = cell.available if cell else 0
            if available < units:
                cell_name = f"{shipment.location_id}/{sku}"
                yield Problem("promise", f"at most {available} units of {cell_name}, all that is available", f"{units}")
        pool.promise(order, part, shipment)


def _capable(pool: Pool, order: Order, shipment: Shipment, location: LocationRecord) -> Iterator[Problem]:
    """Check that a location may make a shipment, and how far it is."""
    name = f"{shipment.kind} by {shipment.location_id}"
    kind = kind_of(order, location.id)
    if shipment.kind != kind:
        yield Problem("promise", f"{kind} by {shipment.location_id}", name)
    if not location.enabled:
        yield Problem("promise", "an enabled location", f"{name}, which is disabled")
    needed = "pickup" if kind == "pickup" else "ship"
    if needed not in (location.capabilities or ()):
        yield Problem("promise", f"a location that can {needed}", f"{name}, which can {location.capabilities}")
    yield from _distance(pool, order, shipment)
    if kind != "pickup" and _beyond(pool, order, location) > DISTANCE_TOLERANCE_KM:
        yield Problem(
            "promise", f"a location within its {location.max_distance_km:g} km", f"{name} over {shipment.distance_km} km"
        )


def _distance(pool: Pool, order: Order, shipment: Shipment) -> Iterator[Problem]:
    location = pool.network[shipment.location_id]
    distance = _distance_km(pool, order, location)
    if abs((shipment.distance_km or 0.0) - distance) > DISTANCE_TOLERANCE_KM:
        yield Problem("decision", f"distance_km {distance:.3f} from {location.id}", str(shipment.distance_km))


def _distance_km(pool: Pool, order: Order, location: LocationRecord) -> float:
    """Measure how far an order's destination, or its pickup location, is from a location."""
    target = (pool.network.get(order.pickup) if order.pickup else order.request.destination) or location
    return great_circle_km(location.latitude, location.longitude, target.latitude, target.longitude)


def _beyond(pool: Pool, order: Order, location: LocationRecord) -> float:
    """Say by how many km the destination is beyond a location's limit; below 0: within."""
    limit = location.max_distance_km
    return -inf if limit is None else _distance_km(pool, order, location) - limit


def _too_far(pool: Pool, order: Order, skus: list[str]) -> bool:
    """Tell whether a location that has cells of one of these SKUs could ship to an order, were it not too far away."""
    names = {name for sku in skus for name in pool.stock.stocked.get(sku, ())}
    places = [pool.network.get(name) for name in names if kind_of(order, name) != "pickup"]
    able = [place for place in places if place and place.enabled and "ship" in (place.capabilities or ())]
    return any(_beyond(pool, order, place) > -DISTANCE_TOLERANCE_KM for place in able)


def kind_of(order: Order, location_id: str) -> str:
    """Say what a shipment of an order from a location is."""
    if not order.pickup:
        return "ship"
    return "pickup" if location_id == order.pickup else "transfer"


def _flags(order: Order, waited: list[Part]) -> Iterator[Problem]:
    """Check what was promised of the lines that waited against what the customer allows."""
    new = [part for part in waited if not part.waiting]
    locations = sorted({part.shipment.location_id for part in new if part.shipment})
    if not order.request.allow_partial and 0 < len(new) < len(waited):
        yield Problem("promise", f"all {len(waited)} waiting lines or none (allow_partial=false)", f"{len(new)}")
    if not order.request.allow_split and new and (len(locations) > 1 or len(new) < len(waited)):
        found = f"{len(new)} of {len(waited)} lines from {locations}"
        yield Problem("promise", "all lines from one location (allow_split=false)", found)


def _rest(pool: Pool, order: Order, decision: Allocation, status: str) -> Iterator[Problem]:
    """Check what the decision says it leaves open."""
    waiting = sorted(_waiting_lines(order))
    unallocated = sorted(_lines(decision.unallocated))
    if waiting != unallocated:
        yield Problem("decision", f"unallocated {waiting}", str(unallocated))
    for line in decision.unallocated:
        possible = _possible_reasons(pool, order, status, [sku for sku, _ in _parts(line)] or [line.sku])
        if line.reason not in possible:
            yield Problem("decision", f"a reason that can be: {' or '.join(possible)}", line.reason)
    if status == "rejected" and decision.shipments:
        yield Problem("decision", "no shipments", f"{len(decision.shipments)}")
    expected = status or status_of(order)
    if decision.status != expected:
        yield Problem("decision", f"status {expected}", decision.status)


def _possible_reasons(pool: Pool, order: Order, status: str, skus: list[str]) -> list[str]:
    """List what an order's line that takes units of these SKUs can be without a promise for."""
    request = order.request
    if status == "rejected":
        location = pool.network.get(order.pickup)
        return ["no_pickup" if location and location.pool == pool.id else "unknown_location"]
    reasons = {
        "no_stock": True,
        "not_eligible": True,
        "too_far": _too_far(pool, order, skus),
        "no_single_location": not request.allow_split,
        "all_or_nothing": not request.allow_partial,
        "location_disabled": bool(order.pickup),
    }
    return [reason for reason, can_be in reasons.items() if can_be]


def status_of(order: Order) -> str:
    """Say what an open order's decision must be called, by what the order has."""
    if order.held:
        return "held"
    if not order.waiting:
        return "allocated"
    return "partial" if any(part.open_units or part.shipped for part in order.parts) else "backordered"


def great_circle_km(latitude_a: float, longitude_a: float, latitude_b: float, longitude_b: float) -> float:
    """Great-circle distance by the haversine formula, km; degrees in.

    Examples
    --------
    >>> round(great_circle_km(0.0, 0.0, 0.0, 90.0), 3)  # a quarter of the equator
    10007.557
    """
    a, b = radians(latitude_a), radians(latitude_b)
    h = sin((b - a) / 2) ** 2 + cos(a) * cos(b) * sin(radians(longitude_b - longitude_a) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * asin(min(1.0, sqrt(h)))


def servable(pool: Pool, order: Order) -> str | None:
    """Name a location that could serve an order that waits, or all of them it needs; None = none is plain to see.

    Lines that share a SKU are tried together at one location only, so not every order that could be served is found.
    """
    waiting = order.waiting
    if not waiting or not pool.can_be_met(order.request) or (order.pickup and not pool.network[order.pickup].enabled):
        return None
    if not order.request.allow_split:
        return _place_for(pool, order, waiting)
    if order.request.allow_partial:
        return next(filter(None, (_place_for(pool, order, [part]) for part in waiting)), None)
    places = [_place_for(pool, order, parts) for parts in _apart(waiting)]
    return ", ".join(filter(None, places)) if all(places) else None


def _apart(parts: list[Part]) -> list[list[Part]]:
    """Put parts that share a SKU, directly or through others, into one list."""
    groups: list[tuple[set[str], list[Part]]] = []
    for part in parts:
        skus, together = {sku for sku, _ in part.goods}, [part]
        for group in [group for group in groups if group[0] & skus]:
            groups.remove(group)
            skus, together = skus | group[0], group[1] + together
        groups.append((skus, together))
    return [together for _, together in groups]


def is_served(pool: Pool, order: Order | None, decision: Allocation) -> bool:
    """Tell whether a decision only gives an order that waits units which are there now."""
    if order is None or not order.waiting or (decision.status == "held") != order.held:
        return False
    if (not order.request.allow_partial and decision.unallocated) or not pool.can_be_met(order.request):
        return False
    published = {shipment.shipment_id: shipment for shipment in decision.shipments}
    for kept in order.open_shipments:
        same = published.pop(kept.id, None)
        if same is None or sum(line.quantity for line in same.lines) != kept.open_units:
            return False
    if not order.request.allow_split and (len(published) > 1 or decision.unallocated):
        return False
    lines = _lines(decision.unallocated)
    units: dict[tuple[str, str], int] = defaultdict(int)
    for shipment in published.values():
        named = [part for part in order.waiting for line in shipment.lines if part.line_id == line.line_id]
        if not _eligible(pool, order, shipment.location_id, named):
            return False
        lines += _lines(shipment.lines)
        for line in shipment.lines:
            for sku, taken in _parts(line) or ((line.sku, line.quantity),):
                units[shipment.location_id, sku] += taken
    if sorted(lines) != sorted(_waiting_lines(order)):
        return False
    return bool(units) and all(key in pool.stock.cells and pool.stock.cells[key].available >= n for key, n in units.items())


def _place_for(pool: Pool, order: Order, parts: list[Part]) -> str | None:
    """Find a location that may take all these parts and has the units."""
    units: dict[str, int] = defaultdict(int)
    for part in parts:
        for sku, taken in part.taken(part.quantity):
            units[sku] += taken
    for location_id in pool.stock.stocked.get(parts[0].goods[0][0], ()):
        cells = [(pool.stock.cells.get((location_id, sku)), needed) for sku, needed in units.items()]
        if all(cell and cell.available >= needed for cell, needed in cells) and _eligible(pool, order, location_id, parts):
            return location_id
    return None


def _eligible(pool: Pool, order: Order, location_id: str, parts: list[Part]) -> bool:
    location = pool.network.get(location_id)
    own = kind_of(order, location_id) == "pickup"
    return (
        location is not None
        and location.pool == pool.id
        and location.enabled
        and ("pickup" if own else "ship") in (location.capabilities or ())
        and (own or _beyond(pool, order, location) < -DISTANCE_TOLERANCE_KM)
        and not any((part.root, location_id) in order.refusals for part in parts)
    )
