"""Seeded networks and orders for routing, shared by tests and benchmarks, and the kernel's answer as plain values.

Owner: tests/property/test_routing_*.py, benchmarks/kernel.py, benchmarks/exactness.py.
Invariants: a seed gives the same case for ever on one numpy version.
"""

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from state.columns import CELL, ENABLED, LOCATION, PICKS_UP, SHIPS, SKU_CELL, SKU_LINK
from state.network import limit_chord2
from streams.routing import View, make_scratch, route_order_kernel
from streams.routing.distance import unit_vector
from streams.routing.reference import Decision, Kits
from topics.compiled.bundle import Bundle

UK = (50.0, 58.0, -5.0, 1.5)  # degrees: south, north, west, east
METRE_DEGREES = 360.0 / 40_030_228.9  # of latitude


def make_view(
    latitudes: ArrayLike,
    longitudes: ArrayLike,
    cells: ArrayLike,
    priority: ArrayLike | None = None,
    rank: ArrayLike | None = None,
    flags: ArrayLike | None = None,
    sku_count: int | None = None,
    max_distance_km: ArrayLike | None = None,
) -> Bundle:
    """Build a View from locations and cells.

    Parameters
    ----------
    latitudes, longitudes : sequence of float
        Degrees, one of each per location.
    cells : sequence of (sku row, location row, on hand, reserved, safety stock)
        In any order.
    priority, rank, flags : sequence of int, optional
        Default: 100, the row, enabled with every capability.
    sku_count : int, optional
        Default: as many as the cells name.
    max_distance_km : sequence of float, optional
        Kilometres, 0 = no limit. Default: none has a limit.
    """
    count = np.size(latitudes)
    locations = np.zeros(count, LOCATION)
    locations["latitude"], locations["longitude"] = latitudes, longitudes
    for row in range(count):
        x, y, z = unit_vector(locations["latitude"][row], locations["longitude"][row])
        locations["x"][row], locations["y"][row], locations["z"][row] = x, y, z
    locations["priority"] = 100 if priority is None else priority
    locations["rank"] = np.arange(count) if rank is None else rank
    locations["flags"] = ENABLED | SHIPS | PICKS_UP if flags is None else flags
    locations["limit_chord2"] = [
        limit_chord2(km) for km in np.broadcast_to(0.0 if max_distance_km is None else max_distance_km, count).tolist()
    ]
    columns = np.asarray(cells, np.int32).reshape(-1, 5).T
    table = np.zeros(columns.shape[1], CELL)
    for name, column in zip(("sku", "location", "on_hand", "reserved", "safety_stock"), columns, strict=True):
        table[name] = column
    links = np.zeros(sku_count or int(table["sku"].max(initial=-1)) + 1, SKU_LINK)
    links["block_count"] = np.bincount(table["sku"], minlength=links.size)
    links["block_at"] = np.cumsum(links["block_count"]) - links["block_count"]
    blocks = np.zeros(table.size, SKU_CELL)
    blocks["row"] = np.lexsort((locations["z"][table["location"]], table["sku"]))
    blocks["location"] = table["location"][blocks["row"]]
    return View(table, locations, links, blocks)


@dataclass(slots=True)
class Order:
    """The arguments of `route_order_reference` besides the stock."""

    skus: list[int]
    quantities: list[int]
    destination: tuple[float, float, float]
    refused: set[tuple[int, int]] = field(default_factory=set)
    pickup_location: int = -1
    allow_split: bool = True
    allow_partial: bool = True
    kits: Kits = field(default_factory=dict)


def route_by_kernel(view: Bundle, order: Order, scratch: Bundle | None = None) -> tuple[Decision, list[int]]:
    """Route an order with the kernel; the decision (distances as rounded by it) and each line's cell row."""
    count = len(order.skus)
    scratch = scratch or _scratch(max(64, view.locations.size))
    if count < scratch.line_sku.size:
        scratch.line_sku[:count], scratch.line_quantity[:count] = order.skus, order.quantities
        parts = [order.kits.get(line, {}) for line in range(count)]
        scratch.kit_parts[: count + 1] = np.cumsum([0, *map(len, parts)])
        listed = [part for kit in parts for part in kit.items()]
        scratch.part_sku[: len(listed)] = [sku for sku, _ in listed]
        scratch.part_units[: len(listed)] = [units for _, units in listed]
    refused = np.array(sorted(order.refused), np.int32).reshape(-1, 2)
    promised = route_order_kernel(
        view,
        scratch,
        count,
        np.ascontiguousarray(refused[:, 0]),
        np.ascontiguousarray(refused[:, 1]),
        *order.destination,
        order.pickup_location,
        order.allow_split,
        order.allow_partial,
    )
    out = scratch.out
    location, cell, distance_m, kind, reason = (
        array[:count].tolist() for array in (out.location, out.cell, out.distance_m, out.kind, out.reason)
    )
    explanation = out.explanation.tolist()
    loser_location, loser_distance_m, loser_reason = (
        array.tolist() for array in (out.loser_location, out.loser_distance_m, out.loser_reason)
    )
    losers = list(zip(loser_location, loser_distance_m, loser_reason, strict=True))[: explanation[2]]
    decision = Decision(location, distance_m, kind, reason, explanation[0], explanation[1], losers)
    if explanation[3] != decision.shipments or promised != sum(at >= 0 for at in location):
        raise AssertionError(f"counts disagree with the lines: {promised} promised, {explanation[3]} shipments, {location}")
    return decision, cell


@cache
def _scratch(location_count: int) -> Bundle:
    return make_scratch(location_count)


def promised_units(order: Order, decision: Decision) -> int:
    """Units that got a location."""
    return sum(units for units, at in zip(order.quantities, decision.location, strict=True) if at >= 0)


def disagreements(order: Order, kernel: Decision, twin: Decision) -> list[str]:
    """Name what differs between two answers beyond the ties the rule leaves open; distances by a rounded metre each."""
    found = []

    def compare(name: str, one: object, other: object) -> None:
        if one != other:
            found.append(f"{name}: kernel {one}, twin {other}")

    compare("units", promised_units(order, kernel), promised_units(order, twin))
    compare("shipments", kernel.shipments, twin.shipments)
    compare("considered", kernel.considered, twin.considered)
    compare("won", kernel.won, twin.won)
    if abs(kernel.total_m - twin.total_m) > 1.0 + 0.5 * twin.shipments:
        found.append(f"metres: kernel {kernel.total_m}, twin {twin.total_m}")
    transfers = {at for at, kind in zip(twin.location, twin.kind, strict=True) if kind > 0 and at != order.pickup_location}
    needs = [sku for line, sku in enumerate(order.skus) for sku in order.kits.get(line, [sku])]
    unshared = len(set(needs)) == len(needs)
    if len(transfers) <= 1 and unshared:
        compare("locations", kernel.location, twin.location)
    if unshared:
        compare("reasons", kernel.reason, twin.reason)
        compare("promised lines", [at >= 0 for at in kernel.location], [at >= 0 for at in twin.location])
    if set(kernel.location) == set(twin.location):
        compare("kinds", set(kernel.kind) - {0}, set(twin.kind) - {0})
        compare("losers", [(at, why) for at, _, why in kernel.losers], [(at, why) for at, _, why in twin.losers])
        for (_, metres, _), (_, exact, _) in zip(kernel.losers, twin.losers, strict=False):
            if abs(metres - exact) > 0.6:
                found.append(f"loser's distance: kernel {metres}, twin {exact}")
    return found


def faults(view: Bundle, order: Order, decision: Decision, cell: list[int]) -> list[str]:
    """Name what no answer may do: promise more than there is, at a location that may not, or split a line's truth."""
    found = []
    taken: dict[int, int] = {}
    for line, (at, row) in enumerate(zip(decision.location, cell, strict=True)):
        if (at < 0) != (row < 0) or (at < 0) != (decision.reason[line] > 0) or (at >= 0) != (decision.kind[line] > 0):
            found.append(f"line {line} is half promised")
        if at < 0:
            continue
        needs = order.kits.get(line) or {order.skus[line]: order.quantities[line]}
        if view.cells["sku"][row] != next(iter(needs)) or view.cells["location"][row] != at:
            found.append(f"line {line}: cell {row} is another's")
        needed = ENABLED | (PICKS_UP if at == order.pickup_location else SHIPS)
        far = at != order.pickup_location and _is_far(view.locations[at], view, order)
        if view.locations["flags"][at] & needed != needed or (line, at) in order.refused or far:
            found.append(f"line {line}: location {at} may not")
        for sku, units in needs.items():
            (own,) = np.flatnonzero((view.cells["sku"] == sku) & (view.cells["location"] == at)).tolist() or [-1]
            taken[own] = taken.get(own, 0) + units
    if -1 in taken:
        found.append("a part is promised where it has no cell")
    for row, units in taken.items():
        free = int(view.cells["on_hand"][row]) - int(view.cells["reserved"][row]) - int(view.cells["safety_stock"][row])
        if units > free:
            found.append(f"cell {row}: {units} promised, {free} there")
    if not order.allow_partial and 0 < sum(at >= 0 for at in decision.location) < len(order.skus):
        found.append("part of an order that allows none")
    if not order.allow_split and decision.shipments > 1:
        found.append("a split of an order that allows none")
    return found


def _is_far(place: np.void, view: Bundle, order: Order) -> bool:
    """Whether a destination is farther from a location than its limit, by more than a metre."""
    target, limit = order.destination, float(place["limit_chord2"])
    if order.pickup_location >= 0:
        target = _vector(view.locations[order.pickup_location])
    return 0.0 < limit < math.dist(_vector(place), target) ** 2 - 1e-12


def _vector(place: np.void) -> tuple[float, float, float]:
    return float(place["x"]), float(place["y"]), float(place["z"])


def random_case(
    rng: np.random.Generator,
    lines: tuple[int, int],
    share: float = 0.0,
    pickup: bool = False,
    refusals: bool = True,
    locations: tuple[int, int] = (1, 9),
    most_stock: int = 8,
    density: tuple[float, float] = (0.2, 1.0),
    limits: float = 0.0,
    kits: float = 0.0,
) -> tuple[Bundle, Order]:
    """Draw a small, difficult network and an order.

    Parameters
    ----------
    rng : Generator
    lines : (int, int)
        Fewest and most lines.
    share : float
        Probability that a line takes an earlier line's SKU.
    pickup : bool
        A pickup at a random location, else a delivery.
    refusals : bool
        Let some locations have refused some lines.
    locations : (int, int)
        Fewest and most locations. Some stand on one spot, some within a metre of another.
    most_stock : int
        Units on hand are below this; quantities are 1 to 4, so stock is tight by default.
    density : (float, float)
        Least and most share of the locations that have a cell of a SKU.
    limits : float
        Probability that a location has a limit of distance, of up to 600 km.
    kits : float
        Probability that a line is of a kit, of one to three SKUs.
    """
    count = int(rng.integers(locations[0], locations[1] + 1))
    south, north, west, east = UK
    latitude, longitude = rng.uniform(south, north, count), rng.uniform(west, east, count)
    for row in range(1, count):
        if rng.random() < 0.3:
            other = int(rng.integers(row))
            latitude[row] = latitude[other] + rng.choice([0.0, 0.0, 0.2, -0.2, 3.0]) * METRE_DEGREES
            longitude[row] = longitude[other]
    flags = np.full(count, ENABLED | SHIPS | PICKS_UP)
    for flag, odds in ((ENABLED, 0.1), (SHIPS, 0.15), (PICKS_UP, 0.2)):
        flags[rng.random(count) < odds] &= ~flag
    line_count = int(rng.integers(lines[0], lines[1] + 1))
    sku_count = line_count + 1
    skus: list[int] = []
    for line in range(line_count):
        skus.append(int(rng.choice(skus)) if skus and rng.random() < share else line)
    skus = [-1 if rng.random() < 0.03 else sku for sku in skus]
    share_stocked = rng.uniform(*density)
    cells = [
        (sku, at, int(rng.integers(-1, most_stock)), int(rng.integers(0, 3)), int(rng.choice([0, 0, 1])))
        for sku in range(sku_count)
        for at in range(count)
        if rng.random() < share_stocked
    ]
    cells = [cells[i] for i in rng.permutation(len(cells))]
    view = make_view(
        latitude, longitude, cells, rng.choice([50, 100], count), rng.permutation(count), flags, sku_count=sku_count
    )
    refused = set()
    if refusals and rng.random() < 0.3:
        pairs = rng.integers(0, (line_count, count), (int(rng.integers(1, 2 * line_count + 1)), 2))
        refused = {(int(line), int(at)) for line, at in pairs}
    order = Order(
        skus,
        [int(q) for q in rng.integers(1, 5, line_count)],
        unit_vector(rng.uniform(south, north), rng.uniform(west, east)),
        refused,
        int(rng.integers(count)) if pickup else -1,
        bool(rng.random() < 0.8),
        bool(rng.random() < 0.8),
    )
    if kits:
        for line in np.flatnonzero(rng.random(line_count) < kits).tolist():
            parts = rng.choice(sku_count, min(sku_count, int(rng.integers(1, 4))), replace=False).tolist()
            order.kits[line] = {sku: order.quantities[line] * int(rng.integers(1, 3)) for sku in parts}
            order.skus[line] = -1
    if limits:
        far = [limit_chord2(km) for km in rng.uniform(1, 600, count).tolist()]
        view.locations["limit_chord2"] = np.where(rng.random(count) < limits, far, 0.0)
    return view, order
