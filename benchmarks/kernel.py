"""How many orders a second does the routing kernel decide, by itself, on one core, beside its plain-Python twin?

Each order is decided on the stock that those before it left, and what it is promised is reserved. Every location has a cell of
every SKU; 20 % are empty from the start.
"""

import statistics
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.harness import main, table
from benchmarks.routing_cases import Order, disagreements, faults, make_view, promised_units, route_by_kernel
from streams.routing import View, make_scratch, reserve, route_orders_kernel
from streams.routing.distance import unit_vector
from streams.routing.reference import Stock, route_orders_reference

PACKAGES = ("numpy", "numba")
SEED = 1
CASES = ((1, 50), (1, 500), (1, 5_000), (5, 500))
ORDERS = {"smoke": 500, "full": 100_000}
TWIN_ORDERS = {"smoke": 5, "full": 100}
ROUNDS = {"smoke": 2, "full": 7}
SKUS = 100


def _world(location_count: int, rng: np.random.Generator) -> View:
    on_hand = rng.integers(0, 500, location_count * SKUS) * (rng.random(location_count * SKUS) < 0.8)
    cells = np.zeros((location_count * SKUS, 5), np.int64)
    cells[:, 0] = np.repeat(np.arange(SKUS), location_count)
    cells[:, 1] = np.tile(np.arange(location_count), SKUS)
    cells[:, 2] = on_hand
    return make_view(rng.uniform(50, 58, location_count), rng.uniform(-5, 1.5, location_count), cells, sku_count=SKUS)


def _orders(lines: int, count: int, rng: np.random.Generator) -> list[Order]:
    skus = [rng.choice(SKUS, lines, replace=False).tolist() for _ in range(count)]
    places = zip(rng.uniform(50, 58, count), rng.uniform(-5, 1.5, count), strict=True)
    return [
        Order(sku, rng.integers(1, 4, lines).tolist(), unit_vector(*place)) for sku, place in zip(skus, places, strict=True)
    ]


def _batch(view: View, orders: list[Order]) -> tuple:
    """The arguments of `route_orders_kernel`."""
    count, lines = len(orders), len(orders[0].skus)
    total = count * lines
    return (
        view,
        np.arange(count + 1) * lines,
        np.array([order.skus for order in orders], np.int32).ravel(),
        np.array([order.quantities for order in orders], np.int32).ravel(),
        np.array([order.destination for order in orders]),
        np.full(count, -1, np.int32),
        np.ones(count, bool),
        np.ones(count, bool),
        make_scratch(view.locations.size),
        *(np.empty(total, np.int32) for _ in range(3)),
        *(np.empty(total, np.uint8) for _ in range(2)),
        np.empty((count, 4), np.int64),
        np.empty((count, 3), np.int32),
        np.empty((count, 3), np.int32),
        np.empty((count, 3), np.uint8),
    )


def _case(lines: int, locations: int, size: str) -> dict[str, Any]:
    rng = np.random.default_rng([SEED, lines, locations])
    view, orders = _world(locations, rng), _orders(lines, ORDERS[size], rng)
    arguments, reserved = _batch(view, orders), view.cells["reserved"].copy()
    seconds = []
    for _ in range(ROUNDS[size] + 1):
        view.cells["reserved"] = reserved
        started = time.perf_counter()
        route_orders_kernel(*arguments)
        seconds.append(time.perf_counter() - started)
    taken = np.bincount(arguments[10][arguments[10] >= 0], arguments[3][arguments[10] >= 0], view.cells.size)
    correct = bool((taken == view.cells["reserved"]).all() and (view.cells["reserved"] <= view.cells["on_hand"]).all())
    view.cells["reserved"] = reserved
    twin_orders = orders[: TWIN_ORDERS[size]]
    stock = Stock.of(view)
    started = time.perf_counter()
    twins = route_orders_reference(stock, [asdict(order) for order in twin_orders])
    twin_s = time.perf_counter() - started
    for order, twin in zip(twin_orders, twins, strict=True):
        decision, cell = route_by_kernel(view, order)
        correct &= not disagreements(order, decision, twin) and not faults(view, order, decision, cell)
        correct &= promised_units(order, decision) > 0
        reserve(view, np.array(order.quantities, np.int32), np.array(cell, np.int32))
    kernel = len(orders) / statistics.median(seconds[1:])
    return {
        "lines": lines,
        "locations": locations,
        "orders": len(orders),
        "kernel_per_s": kernel,
        "twin_per_s": len(twin_orders) / twin_s,
        "correct": correct,
    }


def run(size: str) -> dict[str, Any]:
    """Time each case: medians of several rounds over the same orders, the first, which warms, left out."""
    cases = [_case(lines, locations, size) for lines, locations in CASES]
    return {"seed": SEED, "cases": cases, "correct": all(case["correct"] for case in cases)}


def lines(result: dict[str, Any]) -> list[str]:
    """The answer as a table."""
    rows = [
        [
            f"{case['lines']} of {case['locations']:,}",
            f"{case['orders']:,}",
            f"{case['kernel_per_s']:,.0f}",
            f"{1e6 / case['kernel_per_s']:.2f}",
            f"{case['twin_per_s']:,.0f}",
            f"{case['kernel_per_s'] / case['twin_per_s']:,.0f} x",
        ]
        for case in result["cases"]
    ]
    head = ["lines of locations", "orders", "kernel, orders/s", "µs an order", "twin, orders/s", "kernel ÷ twin"]
    answers = "answers checked: all right" if result["correct"] else "answers checked: WRONG"
    return [f"seed {result['seed']}; {answers}", "", *table(head, rows)]


if __name__ == "__main__":
    main(sys.modules[__name__])
