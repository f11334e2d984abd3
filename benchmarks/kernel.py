"""How many orders a second does the routing kernel decide, by itself, on one core, and how does that grow?

Over locations, lines and the share of locations that stock a SKU. Beside it, for one line, what a good engineer would put
together from well-kept libraries: the nearest locations of a whole batch of orders by a tree (scikit-learn's BallTree with
haversine, SciPy's cKDTree over unit vectors), then the first that has the stock, in a compiled loop; orders that none of
these serves are asked for with four times as many. And the kernel's plain-Python twin.

Each order is decided on the stock that those before it left, and what it is promised is reserved. A tenth of the cells are
empty from the start. Answers are checked: units promised against the cells, the trees' locations against the kernel's, the
twin's whole decisions against the kernel's.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numba
import numpy as np
from scipy.spatial import cKDTree
from sklearn.neighbors import BallTree

from benchmarks.harness import main, table, verdict
from benchmarks.routing_cases import Order, disagreements, faults, make_view, promised_units, route_by_kernel
from streams.routing import make_scratch, reserve, route_orders_kernel
from streams.routing.distance import unit_vector
from streams.routing.reference import Stock, route_orders_reference
from topics.compiled.bundle import Bundle

PACKAGES = ("numpy", "numba", "scipy", "scikit-learn")
SEED = 1
SKUS = 100
LINES = (1, 3, 8, 40)
LOCATIONS = (50, 500, 5_000)
DENSITIES = (1.0, 0.1)
ORDERS = {"smoke": 400, "full": 100_000}
"""Of one line; of n lines an n²-th of it over fewer than 5,000 locations, and a tenth of that over 5,000."""
FEWEST_ORDERS = 20
TWIN_ORDERS = {"smoke": 5, "full": 50}
TWIN_CASES = ((1, 50), (1, 500), (3, 500), (8, 50))
ROUNDS = {"smoke": 2, "full": 7}
NEAREST = 16  # neighbours asked for first
GOAL_PER_S = 2_000_000
AGREEMENT = 0.999
"""Of the trees with the kernel, for which two locations within a metre are equal."""


def _world(location_count: int, density: float, rng: np.random.Generator) -> Bundle:
    stocked = np.argwhere(rng.random((SKUS, location_count)) < density)
    cells = np.zeros((len(stocked), 5), np.int64)
    cells[:, :2] = stocked
    cells[:, 2] = rng.integers(0, 500, len(cells)) * (rng.random(len(cells)) < 0.9)
    return make_view(rng.uniform(50, 58, location_count), rng.uniform(-5, 1.5, location_count), cells, sku_count=SKUS)


def _orders(lines: int, count: int, rng: np.random.Generator) -> list[Order]:
    skus = [rng.choice(SKUS, lines, replace=False).tolist() for _ in range(count)]
    places = zip(rng.uniform(50, 58, count), rng.uniform(-5, 1.5, count), strict=True)
    return [
        Order(sku, rng.integers(1, 4, lines).tolist(), unit_vector(*place)) for sku, place in zip(skus, places, strict=True)
    ]


def _batch(view: Bundle, orders: list[Order]) -> tuple:
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


def _case(lines: int, locations: int, density: float, size: str) -> dict[str, Any]:
    rng = np.random.default_rng([SEED, lines, locations, int(100 * density)])
    count = max(FEWEST_ORDERS, ORDERS[size] // lines**2 // (10 if lines > 1 and locations > 500 else 1))
    view, orders = _world(locations, density, rng), _orders(lines, count, rng)
    arguments, reserved = _batch(view, orders), view.cells["reserved"].copy()
    seconds = []
    for _ in range(ROUNDS[size] + 1):
        view.cells["reserved"] = reserved
        started = time.perf_counter()
        route_orders_kernel(*arguments)
        seconds.append(time.perf_counter() - started)
    promised = arguments[10] >= 0
    taken = np.bincount(arguments[10][promised], arguments[3][promised], view.cells.size)
    correct = bool((taken == view.cells["reserved"]).all() and (view.cells["reserved"] <= view.cells["on_hand"]).all())
    view.cells["reserved"] = reserved
    case: dict[str, Any] = {
        "lines": lines,
        "locations": locations,
        "density": density,
        "orders": count,
        "promised": float(promised.mean()),
        "kernel_per_s": count / statistics.median(seconds[1:]),
        "trees": {},
        "twin_per_s": None,
    }
    if lines == 1:
        for name, nearest in _trees(view, arguments[4]).items():
            case["trees"][name], agreed = _by_tree(nearest, view, arguments, ROUNDS[size])
            correct &= agreed >= AGREEMENT
    if (lines, locations) in TWIN_CASES and density == 1.0:
        case["twin_per_s"], right = _by_twin(view, orders[: TWIN_ORDERS[size]])
        correct &= right
    return case | {"correct": correct}


def _by_twin(view: Bundle, orders: list[Order]) -> tuple[float, bool]:
    """Time the twin, and compare its decisions with the kernel's, order by order."""
    stock, correct = Stock.of(view), True
    started = time.perf_counter()
    twins = route_orders_reference(stock, [asdict(order) for order in orders])
    seconds = time.perf_counter() - started
    for order, twin in zip(orders, twins, strict=True):
        decision, cell = route_by_kernel(view, order)
        correct &= not disagreements(order, decision, twin) and not faults(view, order, decision, cell)
        correct &= promised_units(order, decision) > 0
        reserve(view, np.array(order.quantities, np.int32), np.array(cell, np.int32))
    return len(orders) / seconds, correct


# By a tree


def _trees(view: Bundle, destinations: np.ndarray) -> dict[str, Callable[[np.ndarray, int], np.ndarray]]:
    """Name → a function that gives, for some of the orders, the numbers of the k nearest locations, nearest first."""
    places = np.radians(np.stack([view.locations["latitude"], view.locations["longitude"]], 1))
    ball = BallTree(places, metric="haversine")
    asked = np.stack([np.arcsin(destinations[:, 2]), np.arctan2(destinations[:, 1], destinations[:, 0])], 1)
    kd = cKDTree(np.stack([view.locations[axis] for axis in "xyz"], 1))
    return {
        "BallTree": lambda which, k: ball.query(asked[which], k, return_distance=False),
        "cKDTree": lambda which, k: kd.query(destinations[which], k)[1].reshape(len(which), k),
    }


def _by_tree(nearest: Callable, view: Bundle, arguments: tuple, rounds: int) -> tuple[float, float]:
    """Orders a second, and the share that gets the kernel's location."""
    skus, quantities, decided = arguments[2], arguments[3], arguments[9]
    stock = np.zeros((SKUS, view.locations.size), np.int32)
    stock[view.cells["sku"], view.cells["location"]] = view.cells["on_hand"]
    seconds = []
    for _ in range(rounds + 1):
        free, found = stock.copy(), np.full(len(skus), -1, np.int32)
        started = time.perf_counter()
        _serve(nearest, free, skus, quantities, found)
        seconds.append(time.perf_counter() - started)
    return len(skus) / statistics.median(seconds[1:]), float((found == decided).mean())


def _serve(nearest: Callable, free: np.ndarray, skus: np.ndarray, quantities: np.ndarray, found_out: np.ndarray) -> None:
    """Serve all orders in turn; where none of its neighbours has the stock, an order is looked at again with more of them."""
    count, first, k = len(skus), 0, min(NEAREST, free.shape[1])
    neighbours = nearest(np.arange(count), k)
    while first < count:
        first = _first_able(neighbours, free, skus, quantities, found_out, first)
        if first == count:
            return
        more = k
        while found_out[first] < 0 and more < free.shape[1]:
            more = min(4 * more, free.shape[1])
            _first_able(nearest(np.array([first]), more), free, skus[first:], quantities[first:], found_out[first:], 0)
        first += 1


@numba.njit
def _first_able(neighbours, free, skus, quantities, found_out, first):
    """Give each order its nearest location with the stock; stop at the first order for which no neighbour has it."""
    offset = 0 if len(neighbours) == len(skus) else first
    for i in range(first, min(len(skus), offset + len(neighbours))):
        for location in neighbours[i - offset]:
            if free[skus[i], location] >= quantities[i]:
                free[skus[i], location] -= quantities[i]
                found_out[i] = location
                break
        if found_out[i] < 0:
            return i
    return min(len(skus), offset + len(neighbours))


def run(size: str) -> dict[str, Any]:
    """Time each case: medians of several rounds over the same orders, the first, which warms, left out."""
    cases = [_case(lines, locations, density, size) for density in DENSITIES for lines in LINES for locations in LOCATIONS]
    return {"seed": SEED, "cases": cases, "correct": all(case["correct"] for case in cases)}


def lines(result: dict[str, Any]) -> list[str]:
    """The answer as tables."""
    rows = [
        [
            f"{case['lines']} of {case['locations']:,}",
            f"{case['density']:.0%}",
            f"{case['promised']:.0%}",
            f"{case['kernel_per_s']:,.0f}",
            f"{1e6 / case['kernel_per_s']:.2f}",
            *(_times(case["trees"].get(name), case) for name in ("BallTree", "cKDTree")),
            _times(case["twin_per_s"], case),
        ]
        for case in result["cases"]
    ]
    head = ["lines of locations", "stocked at", "lines promised", "kernel, orders/s", "µs an order"]
    head += ["÷ BallTree", "÷ cKDTree", "÷ twin"]
    answers = "answers checked: all right" if result["correct"] else "answers checked: WRONG"
    return [f"seed {result['seed']}; one core; {answers}", "", *table(head, rows), "", *_verdicts(result["cases"])]


def _times(per_s: float | None, case: dict[str, Any]) -> str:
    return "" if per_s is None else f"{case['kernel_per_s'] / per_s:,.1f} x"


def _verdicts(cases: list[dict[str, Any]]) -> list[str]:
    one = {case["locations"]: case["kernel_per_s"] for case in cases if case["lines"] == 1 and case["density"] == 1.0}
    growth = one[500] / one[5_000]
    return [
        verdict(f"one line, 500 locations: {one[500]:,.0f} orders/s", f"at least {GOAL_PER_S:,}", one[500] >= GOAL_PER_S),
        verdict(f"ten times the locations, 500 to 5,000: {growth:.1f} times the cost", "less than 10", growth < 10),
    ]


if __name__ == "__main__":
    main(sys.modules[__name__])
