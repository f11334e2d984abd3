"""The routing kernel equals its plain-Python twin, promises no unit twice, and agrees with an exact solver."""

import numpy as np
import pytest

from benchmarks.exactness import compare
from benchmarks.routing_cases import Order, disagreements, faults, promised_units, random_case, route_by_kernel
from streams.routing import make_scratch
from streams.routing.policy import POLICIES
from streams.routing.reference import Decision, Stock, route_order_reference
from topics.compiled.bundle import Bundle

KINDS = {
    "single": {"lines": (1, 1)},
    "multi-line": {"lines": (2, 8), "share": 0.2},
    "split": {"lines": (3, 6), "share": 0.5, "most_stock": 5},
    "pickup": {"lines": (1, 6), "pickup": True, "share": 0.2},
    "single within a limit": {"lines": (1, 1), "limits": 0.7},
    "lines within limits": {"lines": (2, 6), "share": 0.2, "limits": 0.6},
    "single kit": {"lines": (1, 1), "kits": 1.0},
    "kits": {"lines": (2, 6), "kits": 0.5, "share": 0.2},
    "kits apart": {"lines": (2, 3), "kits": 0.6, "most_stock": 12, "limits": 0.3},
    "pickup of kits": {"lines": (1, 5), "kits": 0.5, "pickup": True},
    "pickup within limits": {"lines": (1, 5), "pickup": True, "limits": 0.6},
}
CASES = 2_000


def _route_by_twin(view: Bundle, order: Order) -> Decision:
    """Route an order with the plain-Python twin."""
    return route_order_reference(
        Stock.of(view),
        order.skus,
        order.quantities,
        order.refused,
        order.destination,
        order.pickup_location,
        order.allow_split,
        order.allow_partial,
        order.kits,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_equals_its_twin(kind):
    for seed in range(CASES):
        view, order = random_case(np.random.default_rng([seed, len(kind)]), **KINDS[kind])
        decision, cell = route_by_kernel(view, order)
        found = disagreements(order, decision, _route_by_twin(view, order)) + faults(view, order, decision, cell)
        assert not found, f"{kind}, seed {seed}: {found}"


def test_the_fast_path_of_nearest_decides_as_the_general_way_at_the_same_prices():
    general = make_scratch(64, policy=len(POLICIES))
    for seed in range(CASES):
        view, order = random_case(np.random.default_rng([seed, 1]), lines=(1, 1))
        assert route_by_kernel(view, order) == route_by_kernel(view, order, general), f"seed {seed}"


@pytest.mark.parametrize("kits", [0.0, 0.3])
@pytest.mark.parametrize("lines", [(9, 20), (20, 60)])
def test_a_large_order_is_never_promised_more_than_there_is(lines, kits):
    for seed in range(300):
        rng, limits = np.random.default_rng([seed, lines[0]]), 0.5 * (seed % 3 == 0)
        view, order = random_case(rng, lines, share=0.2, locations=(1, 30), limits=limits, kits=kits)
        decision, cell = route_by_kernel(view, order)
        found = faults(view, order, decision, cell)
        assert not found, f"seed {seed}: {found}"


def test_a_large_order_of_kits_gets_what_one_of_plain_lines_gets_in_few_more_shipments():
    units, shipments = np.zeros(2), np.zeros(2)
    for seed in range(300):
        rng = np.random.default_rng([seed, 5])
        view, order = random_case(rng, (9, 60), share=0.2, locations=(5, 60), most_stock=12)
        plain, _ = route_by_kernel(view, order)
        order.kits = {line: {sku: order.quantities[line]} for line, sku in enumerate(order.skus) if sku >= 0}
        kits, _ = route_by_kernel(view, order)
        units += promised_units(order, plain), promised_units(order, kits)
        shipments += plain.shipments, kits.shipments
    assert units[1] >= 0.999 * units[0]
    assert shipments[1] <= 1.15 * shipments[0]


def test_orders_of_up_to_eight_lines_are_as_an_exact_solver_has_them():
    result = compare(cases=100, lines=(2, 8), share=0.25, locations=(2, 12), seed=7)
    assert result.cases == 100
    assert result.shared > 10
    assert result.agreed == 100, result
