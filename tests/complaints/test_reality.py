"""When reality differs from the promise: facts are applied whatever was promised, and each contradiction is told.

Every story is told twice: one event a batch, and all in one.
"""

import itertools
from dataclasses import replace

import pytest

from tests.complaints.story import POOL, START_MS, TICK, Ending, Story, go_on, in_batches, shipment
from tests.inventory_log import latest, published


def alerts(ending: Ending) -> list[tuple[str, str, str | None]]:
    """(Kind, status, order) of each alert."""
    return [(alert["kind"], alert["status"], alert["order_id"]) for alert in published(ending.outcomes, "alerts.v1")]


def raised(ending: Ending) -> list[str]:
    return [kind for kind, status, _ in alerts(ending) if status == "raised"]


def statuses(ending: Ending) -> list[tuple[str, str]]:
    return [(decision["order_id"], decision["status"]) for decision in ending.decisions]


@in_batches
def test_a_parcel_that_left_after_its_order_was_cancelled_leaves_the_books_too(size):
    """https://github.com/Shopify/shopify-api-ruby/issues/637, https://github.com/medusajs/medusa/issues/12561"""
    story = Story("W1").stock("receipt", "W1", "s", 1).order("o1", ("s", 1)).order("o2", ("s", 1)).cancelled("o1")
    ending = story.answer("shipped", "o1", shipment(1), "W1").run(size)
    assert ending.cell("W1", "s") == (0, 0, 0)
    assert ending.reasons() == []
    assert alerts(ending) == [
        ("shipped_after_close", "raised", "o1"),
        ("shortfall", "raised", "o1"),
        ("shortfall", "cleared", "o1"),
    ]
    assert statuses(ending)[-1] == ("o2", "backordered")


@in_batches
def test_a_cancellation_after_the_parcel_left_ends_the_same(size):
    story = Story("W1").stock("receipt", "W1", "s", 1).order("o1", ("s", 1)).order("o2", ("s", 1))
    ending = story.answer("shipped", "o1", shipment(1), "W1").cancelled("o1").run(size)
    assert ending.cell("W1", "s") == (0, 0, 0)
    assert ending.last("o2")["status"] == "backordered"
    assert ending.reasons() == ["order_closed"]


@in_batches
def test_a_hold_collected_after_it_expired_leaves_the_books(size):
    story = Story("W1").stock("receipt", "W1", "s", 3)
    story.order("o", ("s", 2), kind="held", expires_at=START_MS + 2_500).stock("receipt", "W1", "other", 1)
    ending = story.answer("shipped", "o", shipment(1), "W1").run(size)
    assert ending.cell("W1", "s") == (1, 0, 1)
    assert raised(ending) == ["shipped_after_close"]


@in_batches
def test_goods_that_left_another_place_are_taken_off_there(size):
    """https://github.com/medusajs/medusa/issues/16338, https://github.com/nopSolutions/nopCommerce/issues/5432"""
    story = Story("W1", "W2").stock("receipt", "W1", "s", 1).stock("receipt", "W2", "s", 5).order("o", ("s", 1))
    ending = story.answer("shipped", "o", shipment(1), "W2").run(size)
    assert ending.cell("W1", "s") == (1, 0, 1) and ending.cell("W2", "s") == (4, 0, 4)
    assert raised(ending) == ["shipped_from_elsewhere"]


@in_batches
def test_more_units_than_promised_all_leave(size):
    story = Story("W1").stock("receipt", "W1", "s", 9).order("o", ("s", 2))
    ending = story.answer("shipped", "o", shipment(1), "W1", lines=[{"line_id": "l0", "quantity": 5}]).run(size)
    assert ending.cell("W1", "s") == (4, 0, 4)
    assert [(alert["kind"], alert["found"]) for alert in published(ending.outcomes, "alerts.v1")] == [("over_shipped", 3)]


@in_batches
def test_goods_of_an_order_nobody_knows_leave_if_they_are_named(size):
    story = Story("W1").stock("receipt", "W1", "s", 9)
    story.answer("shipped", "?", "x", "W1", lines=[{"sku": "s", "quantity": 2}])
    ending = story.answer("shipped", "?", "x", "W1", lines=[{"line_id": "l0", "quantity": 2}]).run(size)
    assert ending.cell("W1", "s") == (7, 0, 7)
    assert raised(ending) == ["shipped_unknown"] and ending.reasons() == ["unknown_order"]


@in_batches
def test_a_shortfall_takes_the_newest_promise_back_and_routes_it_again(size):
    story = Story("W1", "W2").stock("receipt", "W1", "s", 3).order("o1", ("s", 1)).order("o2", ("s", 2))
    story.stock("receipt", "W2", "s", 2)
    ending = story.stock("sale", "W1", "s", 1).run(size)
    assert ending.cell("W1", "s") == (2, 1, 1) and ending.cell("W2", "s") == (2, 2, 0)
    assert ending.last("o2")["shipments"][0]["location_id"] == "W2"
    found = published(ending.outcomes, "alerts.v1")
    assert [(alert["status"], alert["found"], alert["expected"]) for alert in found] == [("raised", 2, 3), ("cleared", 2, 1)]


@in_batches
def test_a_shortfall_stands_while_promises_are_kept(size):
    story = Story("W1", "W2", on_shortfall="keep").stock("receipt", "W1", "s", 2).order("o1", ("s", 2))
    ending = story.stock("sale", "W1", "s", 1).stock("receipt", "W1", "s", 1).run(size)
    assert ending.cell("W1", "s") == (2, 2, 0)
    assert alerts(ending) == [("shortfall", "raised", None), ("shortfall", "cleared", None)]


@in_batches
def test_a_missing_unit_leaves_on_hand_until_it_is_sent_after_all(size):
    story = Story("W1").stock("receipt", "W1", "s", 3).order("o", ("s", 1))
    story.answer("rejected", "o", shipment(1), "W1", missing=True)
    assert story.run(size).cell("W1", "s") == (2, 0, 2)
    ending = story.answer("shipped", "o", shipment(1), "W1").run(size)
    assert ending.cell("W1", "s") == (2, 0, 2)
    assert ending.last("o")["status"] == "allocated" and not ending.last("o")["unallocated"]


@in_batches
def test_what_a_location_refused_and_sent_all_the_same_is_not_sent_twice(size):
    story = Story("W1", "W2").stock("receipt", "W1", "s", 1).stock("receipt", "W2", "s", 1).order("o", ("s", 1))
    story.answer("rejected", "o", shipment(1), "W1")
    ending = story.answer("shipped", "o", shipment(1), "W1").run(size)
    assert ending.cell("W1", "s") == (0, 0, 0) and ending.cell("W2", "s") == (1, 0, 1)
    assert statuses(ending) == [("o", "allocated"), ("o", "allocated"), ("o", "allocated")]
    assert ending.last("o")["shipments"] == []


@in_batches
@pytest.mark.parametrize("sale_first", [False, True])
def test_a_pickup_rung_up_at_the_till_leaves_once(size, sale_first):
    story = Story("W1").stock("receipt", "W1", "s", 5)
    story.order("o", ("s", 1), mode="pickup", pickup_location_id="W1")
    told = [
        lambda: story.answer("collected", "o", shipment(1), "W1"),
        lambda: story.stock("sale", "W1", "s", 1, order_id="o"),
    ]
    for tell in reversed(told) if sale_first else told:
        tell()
    ending = story.run(size)
    assert ending.cell("W1", "s") == (4, 0, 4)
    assert ending.reasons() == [] and alerts(ending) == []
    assert story.stock("sale", "W1", "s", 1, order_id="o").run(size).cell("W1", "s") == (3, 0, 3)  # another one


@in_batches
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_transfer_is_sent_collected_and_rung_up_in_any_order(size, order):
    story = Story("P", "W").stock("receipt", "W", "s", 5)
    story.order("o", ("s", 2), mode="pickup", pickup_location_id="P")
    told = [
        lambda: story.answer("shipped", "o", shipment(1), "W"),
        lambda: story.answer("collected", "o", shipment(1), "P"),
        lambda: story.stock("sale", "P", "s", 2, order_id="o"),
    ]
    for i in order:
        told[i]()
    ending = story.run(size)
    assert ending.cell("W", "s") == (3, 0, 3)
    assert ("P", "s") not in ending.cells()
    assert ending.reasons() == [] and alerts(ending) == []


@in_batches
@pytest.mark.parametrize("shipped_first", [False, True])
def test_what_is_collected_under_a_former_shipment_came_by_the_transfer_there_is_now(size, shipped_first):
    """A hold expires and its order is placed again; the counter still names the transfer of before."""
    story = Story("P", "W").stock("receipt", "W", "s", 5)
    pickup = {"mode": "pickup", "pickup_location_id": "P"}
    story.order("o", ("s", 2), kind="held", expires_at=START_MS + 3_000, **pickup)
    story.time = 5_000
    story.order("o", ("s", 2), **pickup)
    ending = story.run(size)
    (now,) = ending.last("o")["shipments"]
    assert (now["location_id"], now["kind"]) == ("W", "transfer") and now["shipment_id"] != shipment(1)
    lines = [{"line_id": "l0", "quantity": 2}]
    story.answer("collected", "o", shipment(1), "P", lines=lines)
    story.answer("shipped", "o", now["shipment_id"], "W")
    if shipped_first:
        last = story.log.records[-2:]
        story.log.records[-2:] = [replace(last[1], offset=last[0].offset), replace(last[0], offset=last[1].offset)]
    ending = story.run(size)
    assert ending.cell("W", "s") == (3, 0, 3)
    assert ("P", "s") not in ending.cells() and alerts(ending) == []


@in_batches
def test_units_of_a_line_are_cancelled(size):
    """https://github.com/vendurehq/vendure/issues/1210"""
    story = Story("W1").stock("receipt", "W1", "a", 9).stock("receipt", "W1", "b", 9).order("o", ("a", 3), ("b", 1))
    ending = story.cancelled("o", lines=[{"line_id": "l0", "quantity": 2}]).run(size)
    assert ending.promised("o") == {"l0": 1, "l1": 1}
    assert ending.cell("W1", "a") == (9, 1, 8)


@in_batches
def test_an_order_partly_shipped_and_then_cancelled_is_closed_short(size):
    story = Story("W1").stock("receipt", "W1", "s", 9).order("o", ("s", 3))
    story.answer("shipped", "o", shipment(1), "W1", lines=[{"line_id": "l0", "quantity": 1}])
    ending = story.cancelled("o").run(size)
    assert ending.last("o")["status"] == "closed_short" and ending.cell("W1", "s") == (8, 0, 8)


@in_batches
def test_a_changed_order_keeps_its_age_and_what_still_fits(size):
    """https://github.com/PrestaShop/PrestaShop/issues/42387"""
    story = Story("W1", "W2").stock("receipt", "W1", "a", 5).stock("receipt", "W2", "b", 5).stock("receipt", "W2", "c", 1)
    story.order("o", ("a", 3), ("b", 1))
    lines = [{"line_id": "l0", "sku": "a", "quantity": 1}, {"line_id": "l2", "sku": "c", "quantity": 1}]
    ending = story.tell("orders.v1", kind="changed", order_id="o", lines=lines).run(size)
    assert ending.promised("o") == {"l0": 1, "l2": 1}
    assert ending.cell("W1", "a") == (5, 1, 4) and ending.cell("W2", "b") == (5, 0, 5) and ending.cell("W2", "c") == (1, 1, 0)
    assert len(ending.decisions) == 2
    first, second = ({each["shipment_id"] for each in decision["shipments"]} for decision in ending.decisions)
    assert first & second == {shipment(1, 1)}


@in_batches
def test_another_destination_keeps_the_promise_and_tells_the_new_distance(size):
    story = Story("W1", "W2").stock("receipt", "W1", "a", 5).stock("receipt", "W2", "a", 5).order("o", ("a", 3))
    story.tell("orders.v1", kind="changed", order_id="o", destination={"latitude": 51.0, "longitude": 0.0})
    ending = story.run(size)
    (kept,) = ending.last("o")["shipments"]
    assert kept["location_id"] == "W1" and kept["shipment_id"] == shipment(1) and 111 < kept["distance_km"] < 112


@in_batches
def test_a_changed_order_that_grows_is_routed_whole(size):
    story = Story("W1", "W2").stock("receipt", "W1", "a", 3).stock("receipt", "W2", "a", 5).order("o", ("a", 3))
    lines = [{"line_id": "l0", "sku": "a", "quantity": 4}]
    ending = story.tell("orders.v1", kind="changed", order_id="o", lines=lines).run(size)
    assert [each["location_id"] for each in ending.last("o")["shipments"]] == ["W2"]
    assert ending.cell("W1", "a") == (3, 0, 3) and ending.cell("W2", "a") == (5, 4, 1)


@in_batches
def test_an_order_can_not_become_less_than_what_was_shipped_of_it(size):
    story = Story("W1").stock("receipt", "W1", "a", 5).order("o", ("a", 3))
    story.answer("shipped", "o", shipment(1), "W1", lines=[{"line_id": "l0", "quantity": 2}])
    for lines in ([{"line_id": "l0", "sku": "a", "quantity": 1}], [{"line_id": "l9", "sku": "a", "quantity": 5}]):
        story.tell("orders.v1", kind="changed", order_id="o", lines=lines)
    ending = story.run(size)
    assert ending.reasons() == ["exceeds_shipped"] * 2 and ending.cell("W1", "a") == (3, 1, 2)


@in_batches
def test_a_hold_held_again_expires_later(size):
    """https://github.com/woocommerce/woocommerce-blocks/issues/4658"""
    story = Story("W1").stock("receipt", "W1", "s", 1)
    for until in (4_500, 8_500):
        story.order("o", ("s", 1), kind="held", expires_at=START_MS + until)
    for _ in range(4):  # to 7 s
        story.stock("receipt", "W1", "other", 1)
    ending = story.run(size)
    assert ending.cell("W1", "s") == (1, 1, 0) and ending.reasons() == []
    for _ in range(2):
        story.stock("receipt", "W1", "other", 1)
    ending = story.run(size)
    assert ending.cell("W1", "s") == (1, 0, 1) and statuses(ending)[-1] == ("o", "expired")


@in_batches
@pytest.mark.parametrize("until", [0, START_MS - 1])
def test_a_hold_until_a_time_that_is_past_ends_with_the_next_event(size, until):
    story = Story("W1").stock("receipt", "W1", "s", 1).order("o", ("s", 1), kind="held", expires_at=until)
    ending = story.order("p", ("s", 1)).run(size)
    assert statuses(ending) == [("o", "held"), ("o", "expired"), ("p", "allocated")]


@in_batches
def test_an_expired_order_can_be_placed_again_and_so_can_a_rejected_one(size):
    story = Story("W1").stock("receipt", "W1", "s", 1).order("o", ("s", 1), kind="held", expires_at=START_MS + 2_500)
    story.order("p", ("s", 1), mode="pickup", pickup_location_id="nowhere")
    ending = story.order("o", ("s", 1)).order("p", ("s", 1)).run(size)
    assert ending.last("o")["status"] == "allocated" and ending.last("p")["status"] == "backordered"
    assert ending.reasons() == []


@in_batches
def test_a_line_that_is_not_stocked_is_carried_through(size):
    story = Story("W1").stock("receipt", "W1", "s", 1)
    lines = [
        {"line_id": "l0", "sku": "s", "quantity": 1},
        {"line_id": "c", "sku": "carriage", "quantity": 1, "stocked": False},
    ]
    story.tell("orders.v1", kind="placed", order_id="o", lines=lines, destination={"latitude": 50.0, "longitude": 0.0})
    story.tell("orders.v1", kind="placed", order_id="p", lines=lines[1:], destination={"latitude": 50.0, "longitude": 0.0})
    shipped = [{"line_id": "l0", "quantity": 1}, {"line_id": "c", "quantity": 1}]
    ending = story.answer("shipped", "o", shipment(1), "W1", lines=shipped).run(size)
    assert statuses(ending) == [("o", "allocated"), ("p", "allocated")]
    assert ending.cell("W1", "s") == (0, 0, 0) and ending.reasons() == [] and alerts(ending) == []


@in_batches
def test_a_return_without_its_shipment_is_found_also_when_the_hold_has_expired(size):
    story = Story("W1", "W2").stock("receipt", "W1", "s", 3)
    story.order("o", ("s", 2), kind="held", expires_at=START_MS + 4_500)
    story.answer("shipped", "o", shipment(1), "W1").stock("receipt", "W1", "other", 1).stock("receipt", "W1", "other", 1)
    back = {"kind": "returned", "order_id": "o", "location_id": "W2"}
    story.tell("fulfilments.v1", **back, lines=[{"line_id": "l0", "quantity": 2}])
    ending = story.run(size)
    assert ending.cell("W2", "s") == (2, 0, 2) and ending.reasons() == [] and alerts(ending) == []
    ending = story.tell("fulfilments.v1", **back, lines=[{"line_id": "l0", "quantity": 1}]).run(size)
    assert ending.cell("W2", "s") == (3, 0, 3) and raised(ending) == ["over_returned"]


@in_batches
def test_a_transfer_to_nowhere_moves_nothing(size):
    """https://github.com/IMA-WorldHealth/bhima/issues/5950"""
    story = Story("W1").stock("receipt", "W1", "s", 10)
    ending = story.stock("transfer_out", "W1", "s", 10, transfer_id="t", to_location_id="NOWHERE").run(size)
    assert ending.cell("W1", "s") == (10, 0, 10) and ending.reasons() == ["unknown_location"]


DAY_MS = 86_400_000


def sends(*units: int, place: str = "W1", transfer: str = "t", to: str = "W2", **more):
    """A function that tells of departures."""

    def tell(story: Story) -> None:
        for each in units:
            story.stock("transfer_out", place, "s", each, transfer_id=transfer, to_location_id=to, **more)

    return tell


def receives(*units: int, place: str = "W2", transfer: str = "t", **more):
    """A function that tells of arrivals."""

    def tell(story: Story) -> None:
        for each in units:
            story.stock("transfer_in", place, "s", each, transfer_id=transfer, **more)

    return tell


def moved(ending: Ending, transfer: str = "t") -> dict:
    return latest(ending.outcomes, "transfers.v1")[f"{POOL}/{transfer}/s".encode()]


def ticked(story: Story, days: float) -> Story:
    story.time += int(days * DAY_MS)
    return story.send("ticks.v1", TICK)


@in_batches
@pytest.mark.parametrize(
    ("told", "left", "status"),
    [
        ([sends(10)], (10, 0, 10), "open"),
        ([sends(10), receives(4)], (10, 4, 6), "open"),
        ([sends(10), receives(4, 6)], (10, 10, 0), "received"),
        ([receives(4), sends(10), receives(6)], (10, 10, 0), "received"),
        ([sends(6, 4), receives(10)], (10, 10, 0), "received"),
        ([sends(3), receives(4), sends(1)], (4, 4, 0), "received"),
        ([sends(10), receives(12)], (10, 12, 0), "excess"),
        ([sends(10), receives(10, 2)], (10, 12, 0), "excess"),
        ([receives(12), sends(10)], (10, 12, 0), "excess"),
        ([receives(4)], (0, 4, 0), "excess"),
    ],
    ids=(
        "left",
        "some came",
        "all came",
        "came early too",
        "left in two",
        "left later",
        "excess",
        "excess later",
        "early",
        "unsent",
    ),
)
def test_a_transfer_shows_what_left_what_came_and_what_is_under_way(size, told, left, status):
    story = Story("W1", "W2").stock("receipt", "W1", "s", 50)
    for tell in told:
        tell(story)
    ending = story.run(size)
    found = moved(ending)
    assert (found["sent"], found["received"], found["open"]) == left and found["status"] == status
    assert (found["pool_id"], found["transfer_id"], found["sku"], found["to"]) == (POOL, "t", "s", "W2")
    if left[0]:
        assert found["from"] == "W1" and found["expected_at"] == found["sent_at"] + 14 * DAY_MS
    else:
        assert (found["from"], found["sent_at"], found["expected_at"]) == (None, None, None)
    assert ending.cell("W1", "s")[0] == 50 - left[0]
    standing = [alert for alert in published(ending.outcomes, "alerts.v1") if alert["kind"] == "transfer_excess"][-1:]
    assert [(each["found"], each["expected"]) for each in standing if each["status"] == "raised"] == (
        [(left[1], left[0])] if status == "excess" else []
    )


@in_batches
def test_more_that_arrives_than_left_is_told_until_the_rest_is_known_to_have_left(size):
    story = Story("W1", "W2").stock("receipt", "W1", "s", 50)
    for tell in (receives(4), sends(3), sends(1)):
        tell(story)
    ending = story.run(size)
    assert alerts(ending) == [("transfer_excess", "raised", None)] * 2 + [("transfer_excess", "cleared", None)]
    told = published(ending.outcomes, "alerts.v1")
    assert {each["alert_id"] for each in told} == {f"transfer_excess/{POOL}/t/s"}
    assert [(each["found"], each["expected"]) for each in told] == [(4, 0), (4, 3), (4, 4)]
    assert {(each["location_id"], each["transfer_id"], each["severity"]) for each in told} == {("W2", "t", "warning")}


@in_batches
def test_a_transfer_that_does_not_arrive_is_overdue_until_it_does(size):
    story = Story("W1", "W2").stock("receipt", "W1", "s", 50)
    sends(10)(story)
    receives(4)(story)
    ending = ticked(story, 14).run(size)
    assert moved(ending)["status"] == "overdue" and moved(ending)["open"] == 6
    assert [alert["found"] for alert in published(ending.outcomes, "alerts.v1")] == [4]
    receives(6)(story)
    ending = go_on(ending, story, size)
    assert [each[:2] for each in alerts(ending)] == [("transfer_overdue", "raised"), ("transfer_overdue", "cleared")]
    assert published(ending.outcomes, "alerts.v1")[-1]["found"] == 10
    assert latest(ending.outcomes, "transfers.v1") == {}, "settled and past its time: forgotten"


@in_batches
def test_a_transfer_is_not_overdue_a_millisecond_before_its_time(size):
    story = Story("W1", "W2").stock("receipt", "W1", "s", 50)
    sends(10)(story)
    story.time += 14 * DAY_MS - 1
    ending = story.send("ticks.v1", TICK).run(size)
    assert alerts(ending) == [] and moved(ending)["status"] == "open"
    story.time += 1
    ending = go_on(ending, story.send("ticks.v1", TICK), size)
    assert raised(ending) == ["transfer_overdue"]


@in_batches
def test_a_thousand_transfers_that_are_due_at_once_are_all_told(size):
    story = Story("W1", "W2").stock("receipt", "W1", "s", 1_000)
    for number in range(1_000):
        sends(1, transfer=f"t{number}")(story)
    ending = ticked(story, 14).run(size)
    assert sorted(alert["transfer_id"] for alert in published(ending.outcomes, "alerts.v1")) == sorted(
        f"t{number}" for number in range(1_000)
    )
    assert {each["status"] for each in latest(ending.outcomes, "transfers.v1").values()} == {"overdue"}


@in_batches
def test_a_departure_told_late_is_overdue_at_once_and_the_earliest_departure_counts(size):
    story = Story("W1", "W2").stock("receipt", "W1", "s", 50)
    sends(1, time=-15 * DAY_MS)(story)
    sends(1, transfer="u")(story)
    sends(1, transfer="u", time=-14 * DAY_MS + 60_000)(story)
    ending = story.run(size)
    assert [alert["transfer_id"] for alert in published(ending.outcomes, "alerts.v1")] == ["t"]
    assert moved(ending, "u")["sent_at"] == START_MS - 14 * DAY_MS + 60_000
    ending = go_on(ending, ticked(story, 1), size)
    assert [alert["transfer_id"] for alert in published(ending.outcomes, "alerts.v1")] == ["t", "u"]


@in_batches
def test_a_settled_transfer_is_remembered_until_it_would_be_due_and_what_comes_later_is_too_much(size):
    story = Story("W1", "W2").stock("receipt", "W1", "s", 50)
    sends(10)(story)
    receives(10)(story)
    ending = ticked(story, 13).run(size)
    assert moved(ending)["status"] == "received"
    ending = go_on(ending, ticked(story, 1), size)
    last = list(ending.outcomes[-1].outputs["transfers.v1"])[-1]
    assert last == {"key": f"{POOL}/t/s".encode(), "value": None}
    assert ending.state.row[["kept_supplies", "settled_supplies"]].tolist() == [(0, 0)]
    receives(2)(story)
    ending = go_on(ending, story, size)
    assert (moved(ending)["sent"], moved(ending)["received"], moved(ending)["status"]) == (0, 2, "excess")
    assert raised(ending) == ["transfer_excess"]


@in_batches
def test_a_pool_asks_for_a_tick_only_when_a_transfer_is_due(size):
    story = Story("W1", "W2").stock("receipt", "W1", "s", 50)
    sends(10)(story)
    ending = story.run(size)
    due = moved(ending)["expected_at"]
    assert ending.pipeline.needs_ticks(due - 1) == []
    assert ending.pipeline.needs_ticks(due) == [POOL.encode()]
    ending = go_on(ending, ticked(story, 14), size)
    assert ending.pipeline.needs_ticks(due + DAY_MS) == []


@in_batches
def test_expected_supply_is_what_was_said_last_and_is_taken_out_when_none_is_to_come(size):
    story = Story("W1", "W2")
    story.stock("expected", "W1", "s", 7, supply_id="p/1", expected_at=START_MS + 5)
    story.stock("expected", "W2", "s", 9, supply_id="p/1", expected_at=START_MS + 6)
    ending = story.stock("expected", "W2", "u", 1, supply_id="p/1", expected_at=START_MS + 6).run(size)
    found = latest(ending.outcomes, "supplies.v1")
    assert found.keys() == {b"uk/p%2F1/s", b"uk/p%2F1/u"}
    assert found[b"uk/p%2F1/s"] == {
        "pool_id": POOL,
        "supply_id": "p/1",
        "location_id": "W2",
        "sku": "s",
        "quantity": 9,
        "expected_at": START_MS + 6,
        "updated_at": START_MS + 2_000,
    }
    story.stock("expected", "W2", "s", 0, supply_id="p/1", expected_at=START_MS + 6)
    ending = go_on(ending, story, size)
    assert list(ending.outcomes[-1].outputs["supplies.v1"]) == [{"key": b"uk/p%2F1/s", "value": None}]
    assert latest(ending.outcomes, "supplies.v1").keys() == {b"uk/p%2F1/u"}
    story.stock("expected", "W2", "s", 3, supply_id="p/1", expected_at=START_MS + 7)
    assert latest(go_on(ending, story, size).outcomes, "supplies.v1")[b"uk/p%2F1/s"]["quantity"] == 3


def test_a_supply_that_goes_and_comes_again_in_one_batch_stands():
    story = Story("W1")
    for units in (7, 0, 3, 0, 2):
        story.stock("expected", "W1", "s", units, supply_id="p", expected_at=START_MS)
        story.stock("expected", "W1", "t", 9 - units, supply_id=f"q{units}", expected_at=START_MS)
    one, other = story.run(1), story.run(10_000)
    # Rows that were freed are used again.
    assert (
        latest(one.outcomes, "supplies.v1") != {}
        and latest(one.outcomes, "supplies.v1").keys() == latest(other.outcomes, "supplies.v1").keys()
    )
    assert latest(other.outcomes, "supplies.v1")[b"uk/p/s"]["quantity"] == 2
    assert one.pipeline.digests() == other.pipeline.digests()


@in_batches
def test_a_late_movement_is_told_and_a_count_settles_what_stands(size):
    story = Story("W1").stock("receipt", "W1", "s", 9).order("o", ("s", 2))
    story.answer("shipped", "o", shipment(1), "W1", lines=[{"line_id": "l0", "quantity": 3}])
    story.counted("W1", "s", 6, at=5_500)
    ending = story.stock("sale", "W1", "s", 1, time=2_000).run(size)
    assert ending.cell("W1", "s") == (6, 0, 6)
    assert [each[:2] for each in alerts(ending)] == [
        ("over_shipped", "raised"),
        ("over_shipped", "cleared"),
        ("late_movement", "raised"),
    ]
    assert published(ending.outcomes, "alerts.v1")[-1]["alert_id"].startswith(f"late_movement/{POOL}/W1/")
