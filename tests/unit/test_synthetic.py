"""The synthetic workload: good records of the promised size and mix, the same for the same parameters."""

from collections import Counter

import pytest

from benchmarks.synthetic import CHUNK, Synthetic
from topics.events import Placed, Receipt, judge


def orders(work: Synthetic) -> list[bytes]:
    return [record.value for chunk in work.order_records() for record in chunk]


def test_a_single_line_order_is_good_and_has_207_bytes():
    work = Synthetic(orders=CHUNK + 1, locations=20, skus=50)
    chunks = list(work.order_records())
    assert [len(chunk) for chunk in chunks] == [CHUNK, 1]
    assert {len(record.value) for chunk in chunks for record in chunk} == {207}
    for record in (*chunks[0][:500], chunks[1][0]):
        order = judge(record.topic, record.value)
        assert isinstance(order, Placed)
        assert len(order.lines) == 1
        assert record.key == b"bench"


def test_order_and_event_ids_are_distinct():
    placed = [judge("orders.v1", value) for value in orders(Synthetic(orders=300))]
    assert len({order.order_id for order in placed}) == len({order.event_id for order in placed}) == 300


def test_the_retail_mix_has_orders_of_one_line_and_of_hundreds():
    sizes = [len(judge("orders.v1", value).lines) for value in orders(Synthetic(orders=1_000, mix="retail"))]
    assert min(sizes) == 1
    assert max(sizes) > 300
    assert 20 < sum(sizes) / len(sizes) < 40


def test_the_first_skus_sell_most():
    sold = Counter(judge("orders.v1", value).lines[0].sku for value in orders(Synthetic(orders=5_000, skus=1_000)))
    assert sold["SKU-000000"] > 5 * sold["SKU-000019"] > 0


@pytest.mark.parametrize("fill", [0.5, 1.1])
def test_opening_stock_is_the_given_share_of_the_demand_in_distinct_cells_of_the_network(fill):
    work = Synthetic(orders=100_000, locations=30, skus=40, cells_per_sku=5, fill=fill)
    receipts = [judge(record.topic, record.value) for chunk in work.opening() for record in chunk]
    assert all(isinstance(receipt, Receipt) for receipt in receipts)
    known = {location.id for location in work.network()}
    cells = {(receipt.location_id, receipt.sku) for receipt in receipts}
    assert len(known) == 30
    assert len(cells) == len(receipts) == 200
    assert {location for location, _ in cells} <= known
    units = sum(receipt.quantity for receipt in receipts)
    asked = sum(judge("orders.v1", value).lines[0].quantity for value in orders(work)[::10]) * 10
    assert units == pytest.approx(asked * fill, rel=0.02)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    def bytes_of(seed: int) -> list:
        work = Synthetic(orders=100, locations=20, skus=30, cells_per_sku=3, seed=seed)
        return [work.network(), list(work.opening()), orders(work)]

    assert bytes_of(1) == bytes_of(1)
    assert all(one != other for one, other in zip(bytes_of(1), bytes_of(2), strict=True))
