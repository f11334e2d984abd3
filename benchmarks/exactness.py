"""How far from the optimum are the kernel's decisions, by an exact solver (HiGHS, through SciPy)?

The rule of policy `nearest`, solved as three integer programs one after the other: most units; with those, fewest shipments;
with both, least distance. Deliveries that may be split and met in part; stock is tight, some lines share a SKU. The orders
of more than 8 lines meet 40 to 80 locations of which each SKU is at a few only, so that they take several shipments.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import LinearConstraint, milp

from benchmarks.harness import main, table
from benchmarks.routing_cases import Order, promised_units, random_case, route_by_kernel
from state.columns import ENABLED, SHIPS
from topics.compiled.bundle import Bundle

PACKAGES = ("numpy", "numba", "scipy")
SEED = 1
EARTH_M = 6_371_008.8
CASES = {"smoke": 40, "full": 500}


@dataclass(slots=True)
class Gap:
    """Kernel against solver over many orders."""

    cases: int = 0
    shared: int = 0
    """Orders in which two lines have one SKU."""
    agreed: int = 0
    """Units, shipments and distance (within a metre, and the rounding of each shipment) are the solver's."""
    units: int = 0
    """Units the solver promises and the kernel does not."""
    solver_units: int = 0
    shipments: int = 0
    """Shipments more than the solver's, of orders with as many units."""
    solver_shipments: int = 0
    metres: float = 0.0
    """Metres more than the solver's, of orders with as many units and shipments."""
    solver_metres: float = 0.0


def solve(view: Bundle, order: Order) -> tuple[int, int, float]:
    """Decide a delivery exactly; (units, shipments, metres)."""
    places = [row for row in range(view.locations.size) if view.locations["flags"][row] & (ENABLED | SHIPS) == ENABLED | SHIPS]
    free = {
        (int(cell["sku"]), int(cell["location"])): int(cell["on_hand"]) - int(cell["reserved"]) - int(cell["safety_stock"])
        for cell in view.cells
    }
    pairs = [
        (line, at)
        for line, (sku, units) in enumerate(zip(order.skus, order.quantities, strict=True))
        for at in places
        if free.get((sku, at), 0) >= units and (line, at) not in order.refused
    ]
    if not pairs:
        return 0, 0, 0.0
    used = sorted({at for _, at in pairs})
    count = len(pairs) + len(used)
    rows, upper = [], []

    def limit(coefficients: Mapping[int, float], most: float) -> None:
        row = np.zeros(count)
        for column, value in coefficients.items():
            row[column] = value
        rows.append(row)
        upper.append(most)

    for line in range(len(order.skus)):
        limit({i: 1 for i, pair in enumerate(pairs) if pair[0] == line}, 1)
    for sku, at in {(order.skus[line], at) for line, at in pairs}:
        taken = {i: order.quantities[line] for i, (line, place) in enumerate(pairs) if place == at and order.skus[line] == sku}
        limit(taken, free[sku, at])
    for i, (_, at) in enumerate(pairs):
        limit({i: 1, len(pairs) + used.index(at): -1}, 0)
    units = np.array([order.quantities[line] for line, _ in pairs] + [0] * len(used), float)
    opened = np.array([0] * len(pairs) + [1] * len(used), float)
    vectors = np.array([[view.locations[axis][at] for axis in "xyz"] for at in used])
    chords = np.linalg.norm(vectors - np.array(order.destination), axis=1)
    metres = np.concatenate([np.zeros(len(pairs)), 2 * EARTH_M * np.arcsin(np.minimum(1, chords / 2))])

    def best(objective: np.ndarray) -> float:
        constraint = LinearConstraint(np.array(rows), -np.inf, np.array(upper))
        answer = milp(objective, constraints=constraint, integrality=np.ones(count), bounds=(0, 1), options={"mip_rel_gap": 0})
        if not answer.success:
            raise RuntimeError(f"HiGHS: {answer.message}")
        return answer.fun

    most = round(-best(-units))
    limit({i: -value for i, value in enumerate(units) if value}, -most)
    fewest = round(best(opened))
    limit({len(pairs) + i: 1 for i in range(len(used))}, fewest)
    return most, fewest, best(metres) if most else 0.0


def compare(
    cases: int,
    lines: tuple[int, int],
    share: float,
    locations: tuple[int, int],
    seed: int = SEED,
    most_stock: int = 6,
    density: tuple[float, float] = (0.2, 1.0),
) -> Gap:
    """Route and solve so many random orders; see `random_case` for what they are drawn from."""
    gap = Gap()
    for case in range(cases):
        rng = np.random.default_rng([seed, case, lines[1]])
        view, order = random_case(rng, lines, share, locations=locations, most_stock=most_stock, density=density)
        order.allow_split = order.allow_partial = True
        decision, _ = route_by_kernel(view, order)
        found = promised_units(order, decision)
        units, shipments, metres = solve(view, order)
        gap.cases += 1
        gap.shared += len(set(order.skus)) < len(order.skus)
        gap.units += units - found
        gap.solver_units += units
        if found != units:
            continue
        gap.shipments += decision.shipments - shipments
        gap.solver_shipments += shipments
        if decision.shipments != shipments:
            continue
        more = decision.total_m - metres
        gap.metres += max(0.0, more)
        gap.solver_metres += metres
        gap.agreed += abs(more) <= 1.0 + 0.5 * shipments
    return gap


def run(size: str) -> dict[str, Any]:
    """Compare small orders, where the kernel must be exact, and larger ones, where the gap is what it is."""
    cases = CASES[size]
    small = compare(cases, (2, 8), 0.25, (2, 12))
    large = {
        f"{few} to {many} lines": compare(cases // 5, (few, many), 0.1, (40, 80), most_stock=12, density=(0.08, 0.3))
        for few, many in ((9, 15), (16, 25), (26, 40))
    }
    return {"seed": SEED, "correct": small.agreed == small.cases, "gaps": {"2 to 8 lines": small, **large}}


def lines(result: dict[str, Any]) -> list[str]:
    """The answer as a table."""
    rows = []
    for name, gap in result["gaps"].items():
        rows.append(
            [
                name,
                f"{gap.agreed} of {gap.cases}",
                f"{gap.shared}",
                f"{gap.solver_shipments / gap.cases:.1f}",
                f"{100 * gap.units / max(1, gap.solver_units):.2f} %",
                f"{100 * gap.shipments / max(1, gap.solver_shipments):.2f} %",
                f"{100 * gap.metres / max(1.0, gap.solver_metres):.2f} %",
            ]
        )
    head = ["orders", "as HiGHS", "sharing a SKU", "shipments each", "units fewer", "shipments more", "km more"]
    return [f"seed {result['seed']}", "", *table(head, rows)]


if __name__ == "__main__":
    main(sys.modules[__name__])
