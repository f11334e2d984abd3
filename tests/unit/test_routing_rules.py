"""The rules of policy `nearest`, one by one: what wins, what ties, what waits and why."""

import math

import numpy as np
import pytest

from benchmarks.routing_cases import METRE_DEGREES, Order, make_view, route_by_kernel
from state.columns import ENABLED, PICKS_UP, SHIPS
from streams.routing import make_scratch, reserve, route_orders_kernel
from streams.routing.distance import metres, unit_vector
from streams.routing.reference import great_circle_m
from topics.reasons import Lost, ShipmentKind, Unallocated, Won

HOME = unit_vector(52.0, 0.0)
ALL = ENABLED | SHIPS | PICKS_UP


def network(*stock, metres_north=None, priority=None, rank=None, flags=None, max_distance_km=None):
    """Locations in a row north of HOME, 100 km apart; `stock[i]` is location i's units per SKU."""
    north = metres_north or [100_000 * (row + 1) for row in range(len(stock))]
    cells = [(sku, row, units, 0, 0) for row, held in enumerate(stock) for sku, units in held.items()]
    skus = 1 + max((cell[0] for cell in cells), default=0)
    return make_view(
        [52.0 + METRE_DEGREES * metres for metres in north],
        [0.0] * len(stock),
        cells,
        priority,
        rank,
        flags,
        skus,
        max_distance_km,
    )


def order(*lines, **given):
    """An order of (SKU, units) lines to HOME."""
    return Order([sku for sku, _ in lines], [units for _, units in lines], HOME, **given)


def route(view, asked):
    return route_by_kernel(view, asked)[0]


# What wins


def test_the_nearest_location_with_the_units_wins():
    decision = route(network({0: 1}, {0: 5}, {0: 9}), order((0, 3)))
    assert decision.location == [1]
    assert decision.won == Won.NEAREST
    assert decision.kind == [ShipmentKind.SHIP]
    assert decision.distance_m == [pytest.approx(200_000, abs=1)]


def test_reserved_units_and_safety_stock_are_not_promised():
    view = make_view([53.0, 54.0, 55.0], [0.0] * 3, [(0, 0, 5, 3, 0), (0, 1, 5, 0, 3), (0, 2, 5, 1, 1)])
    assert route(view, order((0, 3))).location == [2]


def test_stock_below_zero_is_no_stock():
    assert route(network({0: -4}), order((0, 1))).reason == [Unallocated.NO_STOCK]


def test_units_near_the_limits_of_an_int32_do_not_wrap():
    view = make_view([53.0], [0.0], [(0, 0, -1_000_000_000, 1_000_000_000, 1_000_000_000)])
    assert route(view, order((0, 1))).location == [-1]
    view = make_view([53.0], [0.0], [(0, 0, 1_000_000_000, 0, 0)])
    assert route(view, order((0, 1_000_000_000))).location == [0]
    assert route(view, order((0, 1_000_000_000), (0, 1_000_000_000))).location.count(0) == 1


def test_one_location_with_everything_wins_over_a_nearer_split():
    decision = route(network({0: 9}, {1: 9}, {0: 9, 1: 9}), order((0, 1), (1, 1)))
    assert decision.location == [2, 2]
    assert decision.shipments == 1


def test_more_units_win_over_fewer_shipments():
    decision = route(network({0: 9}, {1: 9}), order((0, 1), (1, 1)))
    assert decision.location == [0, 1]
    assert decision.won == Won.FEWEST_SHIPMENTS


def test_fewer_shipments_win_over_a_shorter_way():
    stock = {0: 9}, {1: 9}, {2: 9}, {0: 9, 1: 9}
    assert route(network(*stock), order((0, 1), (1, 1), (2, 1))).location == [3, 3, 2]


def test_of_two_pairs_the_shorter_way_wins():
    stock = {0: 9, 1: 9}, {1: 9}, {2: 9}, {1: 9, 2: 9}
    decision = route(network(*stock), order((0, 1), (1, 1), (2, 1)))
    assert decision.total_m == pytest.approx(100_000 + 300_000, abs=2)


def test_what_no_location_has_does_not_hold_up_the_rest():
    decision = route(network({0: 9}, {0: 9, 1: 1}), order((0, 1), (1, 2), (-1, 1)))
    assert decision.location == [0, -1, -1]
    assert decision.reason == [0, Unallocated.NO_STOCK, Unallocated.NO_STOCK]


def test_a_line_is_never_divided():
    assert route(network({0: 2}, {0: 2}), order((0, 3))).location == [-1]


def test_two_lines_of_one_sku_get_no_more_than_there_is():
    decision = route(network({0: 3}), order((0, 2), (0, 2)))
    assert sorted(decision.location) == [-1, 0]


def test_of_lines_that_share_a_sku_those_of_most_units_are_promised():
    decision = route(network({0: 5}), order((0, 2), (0, 4), (0, 3)))
    assert decision.location == [0, -1, 0]


def test_lines_that_share_a_sku_spread_over_locations():
    decision = route(network({0: 3}, {0: 3}), order((0, 3), (0, 3)))
    assert sorted(decision.location) == [0, 1]


def test_a_place_is_not_used_twice_for_units_it_has_once():
    # Each line fits the near location alone; both fit only with the far one.
    stock = {0: 2, 1: 9}, {0: 2}
    decision = route(network(*stock), order((0, 2), (0, 2), (1, 1)))
    assert sorted(decision.location[:2]) == [0, 1]
    assert decision.location[2] == 0


# Ties


def test_within_a_metre_the_lower_priority_number_wins():
    view = network({0: 9}, {0: 9}, metres_north=[1000.0, 1000.8], priority=[100, 50])
    decision = route(view, order((0, 1)))
    assert decision.location == [1]
    assert decision.won == Won.PRIORITY
    assert decision.losers == [(0, 1000, Lost.PRIORITY)]


def test_beyond_a_metre_priority_says_nothing():
    view = network({0: 9}, {0: 9}, metres_north=[1000.0, 1001.2], priority=[100, 50])
    decision = route(view, order((0, 1)))
    assert decision.location == [0]
    assert decision.won == Won.NEAREST


def test_of_equal_priorities_the_smaller_id_wins():
    view = network({0: 9}, {0: 9}, {0: 9}, metres_north=[1000.0] * 3, rank=[2, 0, 1])
    decision = route(view, order((0, 1)))
    assert decision.location == [1]
    assert decision.won == Won.LOCATION_ID
    assert decision.losers == [(2, 1000, Lost.LOCATION_ID), (0, 1000, Lost.LOCATION_ID)]


@pytest.mark.parametrize("lines", [1, 3, 12])
def test_the_metre_counts_from_the_nearest(lines):
    # The third is within a metre of the second, not of the first.
    stock = {sku: 9 for sku in range(lines)}
    view = network(stock, stock, stock, metres_north=[1000.0, 1000.8, 1001.6], priority=[100, 50, 10])
    decision = route(view, order(*((sku, 1) for sku in range(lines))))
    assert set(decision.location) == {1}
    assert [(at, why) for at, _, why in decision.losers] == [(0, Lost.PRIORITY), (2, Lost.FARTHER)]


# Who may ship


def test_disabled_locations_and_those_that_do_not_ship_are_passed_over():
    view = network({0: 9}, {0: 9}, {0: 9}, flags=[SHIPS | PICKS_UP, ENABLED | PICKS_UP, ENABLED | SHIPS])
    decision = route(view, order((0, 1)))
    assert decision.location == [2]
    assert decision.won == Won.ONLY_CANDIDATE
    assert [why for _, _, why in decision.losers] == [Lost.NOT_ELIGIBLE] * 2


@pytest.mark.parametrize("lines", [1, 2, 9])
def test_a_line_never_returns_to_a_location_that_refused_it(lines):
    stock = {sku: 9 for sku in range(lines)}
    asked = order(*((sku, 1) for sku in range(lines)), refused={(0, 0)})
    assert route(network(stock, stock), asked).location == [1] * lines
    decision = route(network(stock), asked)
    assert decision.location == [-1] + [0] * (lines - 1)
    assert decision.reason[0] == Unallocated.NOT_ELIGIBLE


def test_a_refusal_by_a_location_without_the_sku_is_no_matter():
    assert route(network({0: 9}, {1: 9}), order((0, 1), refused={(0, 1)})).location == [0]


# How far


@pytest.mark.parametrize("lines", [1, 2, 9])
def test_beyond_its_limit_a_location_serves_nobody(lines):
    stock = {sku: 9 for sku in range(lines)}
    asked = order(*((sku, 1) for sku in range(lines)))
    decision = route(network(stock, stock, max_distance_km=[99.99, 200.01]), asked)
    assert decision.location == [1] * lines
    assert [(at, why) for at, _, why in decision.losers] == [(0, Lost.TOO_FAR)]
    decision = route(network(stock, {}, max_distance_km=[99.99, 0]), asked)
    assert decision.location == [-1] * lines
    assert decision.reason == [Unallocated.TOO_FAR] * lines
    assert route(network(stock, {}, max_distance_km=[100.01, 0]), asked).location == [0] * lines


@pytest.mark.parametrize("lines", [1, 2, 9])
def test_too_far_says_more_than_not_eligible_and_less_than_all_or_nothing(lines):
    stock = {sku: 9 for sku in range(lines)}
    asked = order(*((sku, 1) for sku in range(lines)), refused={(0, 0)})
    reasons = route(network(stock, stock, max_distance_km=[0, 50]), asked).reason
    assert reasons == [Unallocated.TOO_FAR] + [0] * (lines - 1)
    assert route(network(stock, {}, max_distance_km=[50, 0]), asked).reason[0] == Unallocated.NOT_ELIGIBLE
    asked = order(*((sku, 1) for sku in range(lines)), (-1, 1), allow_partial=False)
    assert route(network(stock, stock, max_distance_km=[0, 50]), asked).reason[0] == Unallocated.ALL_OR_NOTHING


@pytest.mark.parametrize("lines", [1, 9])
def test_a_limit_counts_from_the_pickup_location_and_never_for_it(lines):
    stock = {sku: 9 for sku in range(lines)}
    asked = order(*((sku, 1) for sku in range(lines)), pickup_location=0)
    assert route(network(stock, stock, max_distance_km=[1, 1]), asked).location == [0] * lines
    assert route(network({}, stock, max_distance_km=[1, 100.01]), asked).location == [1] * lines
    assert route(network({}, stock, max_distance_km=[1, 99.99]), asked).reason == [Unallocated.TOO_FAR] * lines


# Flags


@pytest.mark.parametrize("lines", [2, 10])
def test_without_splits_only_whole_orders_from_one_location_count(lines):
    everything = {sku: 9 for sku in range(lines)}
    half = {0: 9}
    asked = order(*((sku, 1) for sku in range(lines)), allow_split=False)
    assert route(network(half, everything), asked).location == [1] * lines
    decision = route(network(half, {sku: 9 for sku in range(1, lines)}), asked)
    assert decision.location == [-1] * lines
    assert decision.reason == [Unallocated.NO_SINGLE_LOCATION] * lines
    assert decision.won == Won.NOTHING


def test_without_splits_a_single_line_waits_for_a_single_location():
    assert route(network({0: 1}), order((0, 2), allow_split=False)).reason == [Unallocated.NO_SINGLE_LOCATION]


@pytest.mark.parametrize("lines", [2, 10])
def test_without_parts_it_is_all_or_nothing(lines):
    asked = order(*((sku, 1) for sku in range(lines)), allow_partial=False)
    enough = {sku: 9 for sku in range(1, lines)}
    decision = route(network(enough), asked)
    assert decision.location == [-1] * lines
    assert decision.reason == [Unallocated.NO_STOCK] + [Unallocated.ALL_OR_NOTHING] * (lines - 1)
    assert set(route(network(enough, {0: 1}), asked).location) == {0, 1}


# Why a line waits


def test_stock_only_at_locations_that_may_not_ship_is_not_eligible():
    view = network({0: 9}, {0: 1}, flags=[ENABLED | PICKS_UP, ALL])
    assert route(view, order((0, 2))).reason == [Unallocated.NOT_ELIGIBLE]
    assert route(view, order((0, 2), (0, 1))).reason == [Unallocated.NOT_ELIGIBLE, 0]


def test_a_line_whose_units_a_sibling_took_has_no_stock():
    decision = route(network({0: 3}), order((0, 3), (0, 1)))
    assert decision.reason == [0, Unallocated.NO_STOCK]


# Pickups


def test_a_pickup_takes_from_its_own_location_first():
    decision = route(network({0: 9}, {0: 9}), order((0, 1), pickup_location=1))
    assert decision.location == [1]
    assert decision.kind == [ShipmentKind.PICKUP]
    assert decision.distance_m == [0]
    assert decision.won == Won.OWN_STOCK


def test_what_the_own_location_lacks_comes_as_a_transfer_from_the_location_nearest_to_it():
    view = network({1: 9}, {0: 9}, {1: 9}, metres_north=[0.0, 100_000.0, 120_000.0])
    decision = route(view, order((0, 1), (1, 1), pickup_location=1))
    assert decision.location == [1, 2]
    assert decision.kind == [ShipmentKind.PICKUP, ShipmentKind.TRANSFER]
    assert decision.distance_m == [0, pytest.approx(20_000, abs=1)]


def test_the_own_location_need_not_ship():
    view = network({0: 9}, flags=[ENABLED | PICKS_UP])
    assert route(view, order((0, 1), pickup_location=0)).location == [0]


def test_the_own_location_promises_most_units_by_whole_lines():
    decision = route(network({0: 5}, {0: 9}), order((0, 4), (0, 3), (0, 2), pickup_location=0))
    assert decision.location == [1, 0, 0]


def test_of_equal_ways_to_use_the_own_stock_the_one_that_leaves_the_better_rest_is_taken():
    # 4 or 3 + 1 from its own; only the 4 could be transferred whole.
    decision = route(network({0: 4}, {0: 4}), order((0, 4), (0, 3), (0, 1), pickup_location=0))
    assert decision.location == [1, 0, 0]


def test_a_pickup_at_a_disabled_location_waits():
    view = network({0: 9}, {0: 9}, flags=[SHIPS | PICKS_UP, ALL])
    decision = route(view, order((0, 1), (0, 2), pickup_location=0))
    assert decision.location == [-1, -1]
    assert decision.reason == [Unallocated.LOCATION_DISABLED] * 2


@pytest.mark.parametrize("lines", [2, 10])
def test_a_pickup_without_splits_comes_from_one_location_or_waits(lines):
    whole = {sku: 9 for sku in range(lines)}
    part = {sku: 9 for sku in range(1, lines)}
    asked = order(*((sku, 1) for sku in range(lines)), allow_split=False, pickup_location=0)
    assert route(network(whole, whole), asked).location == [0] * lines
    transfer = route(network(part, whole), asked)
    assert transfer.location == [1] * lines
    assert set(transfer.kind) == {ShipmentKind.TRANSFER}
    assert route(network(part, {0: 9}), asked).reason == [Unallocated.NO_SINGLE_LOCATION] * lines


def test_a_line_the_own_location_refused_is_transferred():
    decision = route(network({0: 9}, {0: 9}), order((0, 1), pickup_location=0, refused={(0, 0)}))
    assert decision.location == [1]
    assert decision.kind == [ShipmentKind.TRANSFER]


# Explanations


def test_the_nearest_three_that_lost_are_named_with_their_reasons():
    stock = {1: 9}, {0: 1, 1: 9}, {0: 9, 1: 9}, {0: 9, 1: 9}, {0: 9, 1: 9}
    decision = route(network(*stock, flags=[ALL, ALL, ENABLED, ALL, ALL]), order((0, 2), (1, 1)))
    assert decision.considered == 5
    assert decision.location == [3, 3]
    assert [(at, why) for at, _, why in decision.losers] == [
        (0, Lost.FEWER_UNITS),
        (1, Lost.FEWER_UNITS),
        (2, Lost.NOT_ELIGIBLE),
    ]


def test_a_location_without_the_units_lost_for_want_of_stock():
    decision = route(network({0: 1}, {0: 9}, {0: 9}), order((0, 2)))
    assert [(at, why) for at, _, why in decision.losers] == [(0, Lost.NO_STOCK), (2, Lost.FARTHER)]


def test_nothing_promised_still_names_who_was_considered():
    decision = route(network({0: 1}, {0: 0}), order((0, 2)))
    assert decision.considered == 2
    assert decision.won == Won.NOTHING
    assert len(decision.losers) == 2


# Distances


def test_chords_and_angles_agree_within_a_metre_at_every_range():
    rng = np.random.default_rng(3)
    for _ in range(2_000):
        latitude, longitude = math.degrees(math.asin(rng.uniform(-1, 1))), rng.uniform(-180, 180)
        other = (-latitude, longitude - 180) if rng.random() < 0.3 else (latitude, longitude)
        off = rng.choice([0.0, 1e-5, 1e-2, 1.0, 60.0])
        one = unit_vector(latitude, longitude)
        two = unit_vector(max(-90.0, min(90.0, other[0] + off * rng.uniform(-1, 1))), other[1] + off * rng.uniform(-1, 1))
        squared = sum((a - b) ** 2 for a, b in zip(one, two, strict=True))
        assert abs(metres(squared) - great_circle_m(one, two)) < 0.5


# Bounds


def test_a_scratch_too_small_is_said_before_anything_is_written():
    view = network({0: 9, 1: 9}, {0: 9})
    with pytest.raises(ValueError, match="scratch is too small"):
        route_by_kernel(view, order((0, 1), (1, 1)), make_scratch(1))
    with pytest.raises(ValueError, match="scratch is too small"):
        route_by_kernel(view, order((0, 1), (1, 1), (0, 1)), make_scratch(2, line_capacity=2))


@pytest.mark.parametrize("distinct", [1, 40, 1000])
def test_a_thousand_lines_are_routed(distinct):
    lines = [(line % distinct, 1 + line % 3) for line in range(1000)]
    stock = [{sku: 400 for sku in range(distinct) if (sku + row) % 7} for row in range(20)]
    view = network(*stock)
    decision, cell = route_by_kernel(view, order(*lines))
    taken = np.bincount([row for row in cell if row >= 0], minlength=view.cells.size)
    for row in np.flatnonzero(taken):
        asked = sum(units for (_, units), at in zip(lines, cell, strict=True) if at == row)
        assert asked <= view.cells["on_hand"][row]
    assert min(decision.location) >= 0


def test_the_batch_kernel_reserves_as_it_goes():
    view = network({0: 3}, {0: 3})
    count = 4
    outputs = (
        *(np.empty(count, np.int32) for _ in range(3)),
        *(np.empty(count, np.uint8) for _ in range(2)),
        np.empty((count, 4), np.int64),
        np.empty((count, 3), np.int32),
        np.empty((count, 3), np.int32),
        np.empty((count, 3), np.uint8),
    )
    promised = route_orders_kernel(
        view,
        np.arange(count + 1),
        np.zeros(count, np.int32),
        np.full(count, 2, np.int32),
        np.array([HOME] * count),
        np.full(count, -1, np.int32),
        np.ones(count, bool),
        np.ones(count, bool),
        make_scratch(2),
        *outputs,
    )
    assert promised == 2
    assert outputs[0].tolist() == [0, 1, -1, -1]
    assert view.cells["reserved"].tolist() == [2, 2]


def test_deciding_changes_nothing_and_reserving_does():
    view = network({0: 3})
    _, cell = route_by_kernel(view, order((0, 2)))
    assert view.cells["reserved"].tolist() == [0]
    reserve(view, np.array([2], np.int32), np.array(cell, np.int32))
    assert view.cells["reserved"].tolist() == [2]


def test_the_order_of_cells_does_not_change_the_answer():
    rng = np.random.default_rng(5)
    for lines in (1, 4, 12):
        for _ in range(30):
            cells = [(sku, at, int(rng.integers(0, 9)), 0, 0) for sku in range(lines) for at in range(9) if rng.random() < 0.6]
            spots = rng.integers(0, 4, 9)  # many on one spot
            answers = []
            for _ in range(3):
                shuffled = [cells[i] for i in rng.permutation(len(cells))]
                view = make_view(52.5 + spots * 0.5, [0.0] * 9, shuffled, rank=np.arange(9)[::-1], sku_count=lines)
                decision = route(view, order(*((sku, 3) for sku in range(lines))))
                answers.append((decision.shipments, decision.losers, decision.won, round(decision.total_m)))
            assert answers[0] == answers[1] == answers[2]
