"""The audit where reality differs from the promise: each rule as a hand-made log, clean, and spoiled."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests import hand_log
from tests.hand_log import LIMITS, PLACES, T0, Hand, answer, cancel, left_out, line, order, says, ship, stock, tells

LEEDS = PLACES["LEEDS"]


def shop(**stock_of: int) -> Hand:
    """A network with a warehouse, a store and a pickup point; `DC_A=10` are its units."""
    hand = Hand()
    for place, value in PLACES.items():
        hand.location(place, **value)
    for number, (cell, units) in enumerate(stock_of.items()):
        hand.event("stock.v1", stock(f"s{number}", "receipt", *cell.split("_"), units))
        hand.batch(**{cell: (units,)})
    return hand


def promised(hand: Hand, order_id: str, place: str, *lines: dict, kind: str = "ship", **fields) -> str:
    """Place an order that one location takes whole; gives its shipment's id."""
    to = PLACES[fields["pickup_location_id"]] if kind != "ship" else hand_log.LINCOLN
    given = ship(place, *lines, kind=kind, to=to)
    hand.event("orders.v1", order(f"p-{order_id}", order_id, *lines, **fields), says(order_id, "allocated", given))
    return f"0000abcd-{hand.sequence}-1"


def picked_up(hand: Hand, order_id: str, place: str, *lines: dict, at: str = "LEEDS") -> str:
    kind = "pickup" if place == at else "transfer"
    return promised(hand, order_id, place, *lines, kind=kind, mode="pickup", pickup_location_id=at)


def moved(hand: Hand, topic: str, value: dict, *decisions: dict, alerts=(), **cells) -> None:
    """One event, one batch."""
    hand.event(topic, value, *decisions, alerts=alerts)
    hand.batch(**cells)


def till(event_id: str, place: str, sku: str, quantity: int, order_id: str, **fields) -> dict:
    return stock(event_id, "sale", place, sku, quantity, order_id=order_id, **fields)


def changed(event_id: str, order_id: str, *lines: dict, **fields) -> dict:
    own = {"event_id": event_id, "event_time": T0, "kind": "changed", "order_id": order_id}
    return own | ({"lines": list(lines)} if lines else {}) | fields


# The rules, one log each

LOGS: dict[str, Callable[[], Hand]] = {}


def log(function: Callable[[], Hand]) -> Callable[[], Hand]:
    LOGS[function.__name__.strip("_")] = function
    return function


@log
def _a_parcel_leaves_after_the_order_was_cancelled(left: int = 2):
    hand = shop(DC_A=5)
    shipment = promised(hand, "O1", "DC", line("l1", "A", 3))
    hand.batch(DC_A=(5, 3))
    moved(hand, "orders.v1", cancel("c1", "O1"), says("O1", "cancelled"), DC_A=(5, 0))
    late = tells("shipped_after_close", "DC", "A", 3)
    moved(hand, "fulfilments.v1", answer("f1", "shipped", "O1", shipment, "DC"), alerts=[late], DC_A=(left, 0))
    moved(hand, "fulfilments.v1", answer("f2", "returned", "O1", shipment, "LEEDS"), LEEDS_A=(3,))
    hand.event("fulfilments.v1", answer("f3", "shipped", "O1", shipment, "DC"), dead="shipment_closed")
    hand.batch()
    return hand


@log
def _a_parcel_leaves_after_the_hold_expired():
    hand = shop(DC_A=5)
    hold = order("h", "H1", line("l1", "A", 3), kind="held", expires_at=hand.now + 100)
    hand.event("orders.v1", hold, says("H1", "held", ship("DC", line("l1", "A", 3))))
    hand.batch(DC_A=(5, 3))
    hand.event("ticks.v1", {"pool_id": "uk"}, says("H1", "expired"), after_ms=1000)
    hand.batch(DC_A=(5, 0))
    late = tells("shipped_after_close", "DC", "A", 3)
    moved(hand, "fulfilments.v1", answer("f1", "shipped", "H1", "0000abcd-1-1", "DC"), alerts=[late], DC_A=(2, 0))
    hand.event("orders.v1", order("p1", "H1", line("l1", "A", 1)), dead="order_exists")
    hand.batch()
    return hand


@log
def _what_was_refused_leaves_all_the_same():
    hand = shop(DC_A=4, LEEDS_A=4)
    shipment = promised(hand, "O1", "DC", line("l1", "A", 3))
    hand.batch(DC_A=(4, 3))
    again = says("O1", "allocated", ship("LEEDS", line("l1", "A", 3)))
    moved(hand, "fulfilments.v1", answer("f1", "rejected", "O1", shipment, "DC"), again, DC_A=(4, 0), LEEDS_A=(4, 3))
    left = ship("LEEDS", line("l1", "A", 1), shipment_id="0000abcd-2-1")
    moved(
        hand,
        "fulfilments.v1",
        answer("f2", "shipped", "O1", shipment, "DC", ("l1", 2)),
        says("O1", "allocated", left),
        alerts=[tells("shipped_after_close", "DC", "A", 2)],
        DC_A=(2, 0),
        LEEDS_A=(4, 1),
    )
    return hand


@log
def _missing_units_leave_on_hand_once(left: int = 1):
    hand = shop(DC_A=4)
    shipment = promised(hand, "O1", "DC", line("l1", "A", 3))
    hand.batch(DC_A=(4, 3))
    missing = answer("f1", "rejected", "O1", shipment, "DC", missing=True)
    moved(hand, "fulfilments.v1", missing, says("O1", "backordered", waits=(line("l1", "A", 3, "no_stock"),)), DC_A=(left, 0))
    found = tells("shipped_after_close", "DC", "A", 3)
    moved(
        hand,
        "fulfilments.v1",
        answer("f2", "shipped", "O1", shipment, "DC"),
        says("O1", "allocated"),
        alerts=[found],
    )
    return hand


@log
def _a_parcel_leaves_another_location():
    hand = shop(DC_A=5)
    shipment = promised(hand, "O1", "DC", line("l1", "A", 3))
    hand.batch(DC_A=(5, 3))
    moved(
        hand,
        "fulfilments.v1",
        answer("f1", "shipped", "O1", shipment, "LEEDS"),
        alerts=[tells("shipped_from_elsewhere", "LEEDS", "A", 3), tells("shortfall", "LEEDS", "A", -3, 0)],
        DC_A=(5, 0),
        LEEDS_A=(-3,),
    )
    count = stock("n1", "count", "LEEDS", "A", 0, event_time=hand.now)
    cleared = [
        tells("shipped_from_elsewhere", "LEEDS", "A", 0, status="cleared"),
        tells("shortfall", "LEEDS", "A", 0, 0, status="cleared"),
    ]
    moved(hand, "stock.v1", count, alerts=cleared, LEEDS_A=(0,))
    return hand


@log
def _more_leaves_than_was_promised():
    hand = shop(DC_A=5)
    shipment = promised(hand, "O1", "DC", line("l1", "A", 3))
    hand.batch(DC_A=(5, 3))
    more = answer("f1", "shipped", "O1", shipment, "DC", ("l1", 4))
    moved(hand, "fulfilments.v1", more, alerts=[tells("over_shipped", "DC", "A", 1)], DC_A=(1, 0))
    back = answer("f2", "returned", "O1", shipment, "DC", ("l1", 5))
    moved(hand, "fulfilments.v1", back, alerts=[tells("over_returned", "DC", "A", 1)], DC_A=(6, 0))
    return hand


@log
def _goods_leave_that_nobody_knows():
    hand = shop(DC_A=5)
    known = promised(hand, "O1", "DC", line("l1", "A", 3))
    hand.batch(DC_A=(5, 3))
    what = {"lines": [{"sku": "A", "quantity": 1}]}
    strange = answer("f1", "shipped", "O9", "x", "DC", **what)
    moved(hand, "fulfilments.v1", strange, alerts=[tells("shipped_unknown", "DC", "A", 1)], DC_A=(4, 3))
    other = answer("f2", "shipped", "O1", known, "DC", lines=[{"line_id": "l1", "sku": "B", "quantity": 1}])
    alerts = [tells("shipped_unknown", "DC", "B", 1), tells("shortfall", "DC", "B", -1, 0)]
    moved(hand, "fulfilments.v1", other, alerts=alerts, DC_B=(-1,))
    back = answer("f3", "returned", "O9", "x", "DC", **what)
    moved(hand, "fulfilments.v1", back, alerts=[tells("over_returned", "DC", "A", 1)], DC_A=(5, 3))
    hand.event("fulfilments.v1", answer("f4", "shipped", "O9", "x", "DC"), dead="unknown_order")
    hand.event("fulfilments.v1", answer("f4", "shipped", "O9", "x", "DC", ("l1", 1)), dead="unknown_order")
    hand.event("fulfilments.v1", answer("f4", "shipped", "O1", known, "DC", ("l9", 1)), dead="unknown_line")
    hand.event("fulfilments.v1", answer("f4", "shipped", "O1", "x", "DC"), dead="unknown_shipment")
    hand.event("fulfilments.v1", answer("f4", "shipped", "O1", known, "MOON"), dead="unknown_location")
    hand.batch()
    return hand


@log
def _what_waits_is_sent_unpromised():
    hand = shop(DC_A=1)
    hand.event(
        "orders.v1", order("p1", "O1", line("l1", "A", 3)), says("O1", "backordered", waits=(line("l1", "A", 3, "no_stock"),))
    )
    hand.batch()
    sent = answer("f1", "shipped", "O1", "x", "DC", ("l1", 1))
    waits = (line("l1", "A", 2, "no_stock"),)
    alerts = [tells("shipped_unpromised", "DC", "A", 1)]
    moved(hand, "fulfilments.v1", sent, says("O1", "partial", waits=waits), alerts=alerts, DC_A=(0,))
    return hand


@log
def _a_shortfall_moves_the_newest_promise():
    hand = shop(DC_A=5, LEEDS_A=2)
    promised(hand, "O1", "DC", line("l1", "A", 3))
    promised(hand, "O2", "DC", line("l1", "A", 2))
    hand.batch(DC_A=(5, 5))
    moved(
        hand,
        "sales.v1",
        stock("x1", "sale", "DC", "A", 1),
        says("O2", "allocated", ship("LEEDS", line("l1", "A", 2))),
        alerts=[tells("shortfall", "DC", "A", 4, 5), tells("shortfall", "DC", "A", 4, 3, status="cleared")],
        DC_A=(4, 3),
        LEEDS_A=(2, 2),
    )
    return hand


@log
def _a_shortfall_moves_as_many_promises_as_it_must_and_the_oldest_order_is_served_first():
    hand = shop(DC_A=6)
    promised(hand, "O1", "DC", line("l1", "A", 2))
    promised(hand, "O2", "DC", line("l1", "A", 2))
    promised(hand, "O3", "DC", line("l1", "A", 2))
    hand.batch(DC_A=(6, 6))
    waits = (line("l1", "A", 2, "no_stock"),)
    moved(
        hand,
        "stock.v1",
        stock("n1", "count", "DC", "A", 3),
        says("O2", "backordered", waits=waits),
        says("O3", "backordered", waits=waits),
        alerts=[tells("shortfall", "DC", "A", 3, 6), tells("shortfall", "DC", "A", 3, 2, status="cleared")],
        DC_A=(3, 2),
    )
    return hand


@log
def _a_movement_is_older_than_the_count():
    hand = shop(DC_A=5)
    moved(hand, "stock.v1", stock("n1", "count", "DC", "A", 4, counted_at=hand.now), DC_A=(4,))
    hand.event("sales.v1", stock("x1", "sale", "DC", "A", 1), alerts=[tells("late_movement", "DC", "A", -1)])
    hand.event("stock.v1", stock("x2", "receipt", "DC", "A", 2), alerts=[tells("late_movement", "DC", "A", 2)])
    hand.batch()
    shipment = promised(hand, "O1", "DC", line("l1", "A", 3))
    hand.batch(DC_A=(4, 3))
    sent = answer("f1", "shipped", "O1", shipment, "DC")
    moved(hand, "fulfilments.v1", sent, alerts=[tells("late_movement", "DC", "A", -3)], DC_A=(4, 0))
    return hand


@log
def _a_field_that_only_describes_is_wrong():
    hand = shop(DC_A=5)
    sale = stock("x1", "sale", "DC", "A", 1, unit_price=12.99, currency="")
    told = [left_out("unit_price"), left_out("currency")]
    moved(hand, "sales.v1", sale, alerts=told, DC_A=(4,))
    hand.event("sales.v1", sale, alerts=told)  # again: it changes nothing, and its sender is told all the same
    hand.event("sales.v1", sale | {"event_id": "x2", "quantity": 0}, dead="out_of_range")
    hand.batch()
    return hand


@log
def _a_till_and_the_collection_tell_of_the_same_goods():
    hand = shop(LEEDS_A=5)
    shipment = picked_up(hand, "P1", "LEEDS", line("l1", "A", 2))
    hand.batch(LEEDS_A=(5, 2))
    moved(hand, "sales.v1", till("x1", "LEEDS", "A", 2, "P1"), LEEDS_A=(3, 0))
    hand.event("fulfilments.v1", answer("f1", "collected", "P1", shipment, "LEEDS"))
    hand.batch()
    shipment = picked_up(hand, "P2", "LEEDS", line("l1", "A", 2))
    hand.batch(LEEDS_A=(3, 2))
    moved(hand, "fulfilments.v1", answer("f2", "collected", "P2", shipment, "LEEDS"), LEEDS_A=(1, 0))
    moved(hand, "sales.v1", till("x2", "LEEDS", "A", 3, "P2", line_id="l1"), LEEDS_A=(0, 0))
    return hand


@log
def _a_transfer_is_collected_before_it_is_told_shipped():
    hand = shop(DC_B=5)
    shipment = picked_up(hand, "P1", "DC", line("l1", "B", 3))
    hand.batch(DC_B=(5, 3))
    moved(hand, "fulfilments.v1", answer("f1", "collected", "P1", shipment, "LEEDS"), DC_B=(2, 0))
    hand.event("fulfilments.v1", answer("f2", "shipped", "P1", shipment, "DC"))
    hand.event("fulfilments.v1", answer("f3", "collected", "P1", shipment, "LEEDS"), dead="shipment_closed")
    hand.event("sales.v1", till("x1", "LEEDS", "B", 3, "P1"))
    hand.batch()
    return hand


@log
def _a_till_sells_what_expired():
    hand = shop(LEEDS_A=5)
    request = order(
        "h", "H1", line("l1", "A", 2), kind="held", mode="pickup", pickup_location_id="LEEDS", expires_at=hand.now + 50
    )
    hand.event("orders.v1", request, says("H1", "held", ship("LEEDS", line("l1", "A", 2), kind="pickup", to=LEEDS)))
    hand.batch(LEEDS_A=(5, 2))
    hand.event("ticks.v1", {"pool_id": "uk"}, says("H1", "expired"), after_ms=1000)
    hand.batch(LEEDS_A=(5, 0))
    late = tells("shipped_after_close", "LEEDS", "A", 2)
    moved(hand, "sales.v1", till("x1", "LEEDS", "A", 2, "H1"), alerts=[late], LEEDS_A=(3, 0))
    return hand


@log
def _units_are_cancelled_and_the_rest_was_shipped():
    hand = shop(DC_A=5)
    shipment = promised(hand, "O1", "DC", line("l1", "A", 4))
    hand.batch(DC_A=(5, 4))
    left = ship("DC", line("l1", "A", 3), shipment_id=shipment)
    one = cancel("c1", "O1", lines=[{"line_id": "l1", "quantity": 1}])
    moved(hand, "orders.v1", one, says("O1", "allocated", left), DC_A=(5, 3))
    moved(hand, "fulfilments.v1", answer("f1", "shipped", "O1", shipment, "DC", ("l1", 1)), DC_A=(4, 2))
    many = cancel("c2", "O1", lines=[{"line_id": "l1", "quantity": 9}])
    moved(hand, "orders.v1", many, says("O1", "closed_short"), DC_A=(4, 0))
    hand.event("orders.v1", cancel("c3", "O1", lines=[{"line_id": "l1", "quantity": 1}]), dead="order_closed")
    hand.batch()
    return hand


@log
def _an_order_is_changed():
    hand = shop(DC_A=9, DC_B=3)
    shipment = promised(hand, "O1", "DC", line("l1", "A", 4), line("l2", "A", 2))
    hand.batch(DC_A=(9, 6))
    moved(
        hand,
        "orders.v1",
        changed("g1", "O1", line("l1", "A", 3), line("l3", "B", 1)),
        says("O1", "allocated", ship("DC", line("l1", "A", 3), shipment_id=shipment), ship("DC", line("l3", "B", 1))),
        DC_A=(9, 3),
        DC_B=(3, 1),
    )
    other = {"latitude": 51.0, "longitude": -1.0}
    kept = (
        ship("DC", line("l1", "A", 3), shipment_id=shipment, to=other),
        ship("DC", line("l3", "B", 1), shipment_id="0000abcd-2-2", to=other),
    )
    moved(hand, "orders.v1", changed("g2", "O1", destination=other), says("O1", "allocated", *kept))
    moved(hand, "fulfilments.v1", answer("f1", "shipped", "O1", shipment, "DC"), DC_A=(6, 0))
    hand.event("orders.v1", changed("g3", "O1", line("l1", "A", 2), line("l3", "B", 1)), dead="exceeds_shipped")
    hand.event("orders.v1", changed("g3", "O1", mode="pickup", pickup_location_id="DC"), dead="unknown_location")
    hand.event("orders.v1", changed("g3", "O9", line("l1", "A", 2)), dead="unknown_order")
    hand.batch()
    more = says("O1", "allocated", kept[1], ship("DC", line("l1", "A", 2), to=other))
    moved(hand, "orders.v1", changed("g4", "O1", line("l1", "A", 5), line("l3", "B", 1)), more, DC_A=(6, 2))
    moved(hand, "orders.v1", changed("g5", "O1", line("l1", "A", 3)), says("O1", "allocated"), DC_A=(6, 0), DC_B=(3, 0))
    hand.event("orders.v1", changed("g6", "O1", line("l1", "A", 4)), dead="order_closed")
    hand.batch()
    return hand


@log
def _a_changed_order_keeps_its_age():
    hand = shop(DC_A=1)
    waits = (line("l1", "A", 5, "no_stock"),)
    hand.event("orders.v1", order("p1", "O1", *[line("l1", "A", 5)]), says("O1", "backordered", waits=waits))
    hand.event("orders.v1", order("p2", "O2", *[line("l1", "A", 5)]), says("O2", "backordered", waits=waits))
    fewer = (line("l1", "A", 4, "no_stock"),)
    hand.event("orders.v1", changed("g1", "O1", line("l1", "A", 4)), says("O1", "backordered", waits=fewer))
    hand.batch()
    served = says("O1", "allocated", ship("DC", line("l1", "A", 4))), says("O2", "allocated", ship("DC", line("l1", "A", 5)))
    moved(hand, "stock.v1", stock("e9", "receipt", "DC", "A", 9), *served, DC_A=(10, 9))
    short = [tells("shortfall", "DC", "A", 0, 9), tells("shortfall", "DC", "A", 0, 0, status="cleared")]
    lost = says("O1", "backordered", waits=fewer), says("O2", "backordered", waits=waits)
    moved(hand, "stock.v1", stock("n1", "count", "DC", "A", 0, event_time=hand.now), *lost, alerts=short, DC_A=(0, 0))
    return hand


@log
def _a_hold_is_held_again():
    hand = shop(DC_A=5)
    first = order("h1", "H1", line("l1", "A", 2), kind="held", expires_at=hand.now + 100)
    hand.event("orders.v1", first, says("H1", "held", ship("DC", line("l1", "A", 2))))
    hand.batch(DC_A=(5, 2))
    kept = ship("DC", line("l1", "A", 2), shipment_id="0000abcd-1-1")
    hand.event("orders.v1", first | {"event_id": "h2", "expires_at": hand.now + 5000}, says("H1", "held", kept))
    hand.event("ticks.v1", {"pool_id": "uk"}, after_ms=1000)
    hand.batch()
    other = order("h3", "H1", line("l1", "A", 1), kind="held", expires_at=hand.now + 200)
    kept = ship("DC", line("l1", "A", 1), shipment_id="0000abcd-1-1")
    moved(hand, "orders.v1", other, says("H1", "held", kept), DC_A=(5, 1))
    hand.event("ticks.v1", {"pool_id": "uk"}, says("H1", "expired"), after_ms=300)
    hand.batch(DC_A=(5, 0))
    again = order("p1", "H1", line("l1", "A", 3))
    moved(hand, "orders.v1", again, says("H1", "allocated", ship("DC", line("l1", "A", 3))), DC_A=(5, 3))
    hand.event("orders.v1", order("h4", "H1", line("l1", "A", 3), kind="held", expires_at=hand.now), dead="order_exists")
    hand.batch()
    return hand


@log
def _a_rejected_order_is_placed_again():
    hand = shop(LEEDS_A=5)
    nowhere = order("p1", "O1", line("l1", "A", 1), mode="pickup", pickup_location_id="DC")
    hand.event("orders.v1", nowhere, says("O1", "rejected", waits=(line("l1", "A", 1, "no_pickup"),)))
    picked_up(hand, "O1", "LEEDS", line("l1", "A", 1))
    hand.batch(LEEDS_A=(5, 1))
    return hand


@log
def _lines_that_are_in_no_stock():
    hand = shop(DC_A=5)
    carriage = line("l9", "CARRIAGE", 1) | {"stocked": False}
    hand.event(
        "orders.v1", order("p1", "O1", line("l1", "A", 2), carriage), says("O1", "allocated", ship("DC", line("l1", "A", 2)))
    )
    hand.batch(DC_A=(5, 2))
    hand.event("orders.v1", order("p2", "O2", carriage), says("O2", "allocated"))
    hand.event("orders.v1", cancel("c1", "O2"), dead="order_closed")
    hand.event("fulfilments.v1", answer("f1", "shipped", "O2", "x", "DC", ("l9", 1)))
    hand.batch()
    moved(hand, "fulfilments.v1", answer("f2", "shipped", "O1", "0000abcd-1-1", "DC", ("l1", 2), ("l9", 1)), DC_A=(3, 0))
    return hand


@log
def _a_return_finds_its_shipment():
    hand = shop(DC_A=5)
    shipment = promised(hand, "O1", "DC", line("l1", "A", 3))
    moved(hand, "fulfilments.v1", answer("f1", "shipped", "O1", shipment, "DC"), DC_A=(2, 0))
    back = answer("f2", "returned", "O1", "", "DC", ("l1", 2))
    moved(hand, "fulfilments.v1", back | {"shipment_id": None}, DC_A=(4, 0))
    hand.event("fulfilments.v1", answer("f3", "returned", "O1", "", "DC") | {"shipment_id": None}, dead="unknown_shipment")
    hand.batch()
    moved(hand, "fulfilments.v1", answer("f3", "returned", "O1", shipment, "DC"), DC_A=(5, 0))
    return hand


@pytest.mark.parametrize("name", LOGS)
def test_a_log_that_keeps_the_rule_is_clean(name):
    report = LOGS[name]().audit(complete=True)
    assert not report.faults


# Spoiling: the log, what is done to it, and the fault that must be among those found: kind and words.

SPOILS: dict[str, tuple[str, Callable[[Hand], object], str, str]] = {}


def spoil(of: Callable[[], Hand], kind: str, words: str):
    def register(function: Callable[[Hand], object]):
        SPOILS[function.__name__.strip("_")] = (of.__name__.strip("_"), function, kind, words)
        return function

    return register


def alert_of(hand: Hand, kind: str, status: str = "raised") -> int:
    return hand.find("alerts.v1", kind=kind, status=status)


def renamed(decision: dict, order_id: str) -> None:
    decision.update(order_id=order_id)


@pytest.mark.parametrize("kind", ["shipped_after_close", "shipped_from_elsewhere", "over_shipped", "over_returned"])
@pytest.mark.parametrize("change", ["missing", "twice", "more", "other order", "wrong kind"])
def test_an_alert_that_is_not_as_it_must_be_is_found(kind, change):
    name = next(
        name for name, log in LOGS.items() if any(b'"%s"' % kind.encode() in r.value for r in log().records["alerts.v1"])
    )
    hand = LOGS[name]()
    at = alert_of(hand, kind)
    if change == "missing":
        hand.drop("alerts.v1", at)
    elif change == "twice":
        hand.records["alerts.v1"].insert(at, hand.records["alerts.v1"][at])
    else:
        fields = {"more": {"found": 99}, "other order": {"order_id": "O77"}, "wrong kind": {"kind": "shortfall"}}[change]
        hand.edit("alerts.v1", at, lambda alert: alert.update(fields))
    assert {fault.kind for fault in hand.audit().faults} == {"alert"}


def test_an_alert_nobody_called_for_is_found():
    hand = _more_leaves_than_was_promised()
    record = hand.records["alerts.v1"][0]
    value = json.loads(record.value) | {"source": {"topic": "sales.v1", "partition": 0, "offset": 77}}
    hand.records["alerts.v1"].append(record._replace(offset=99, value=json.dumps(value).encode()))
    (fault,) = hand.audit().faults
    assert (fault.kind, fault.offset) == ("alert", 99)


def test_what_an_audit_told_is_passed_over():
    hand = _more_leaves_than_was_promised()
    hand.append("alerts.v1", {"kind": "audit", "alert_id": "x"}, b"x")
    assert not hand.audit().faults


def test_promises_are_kept_in_a_shortfall_where_that_is_the_setting():
    hand = shop(DC_A=5)
    shipment = promised(hand, "O1", "DC", line("l1", "A", 3))
    hand.batch(DC_A=(5, 3))
    short = [tells("shortfall", "DC", "A", 1, 3)]
    moved(hand, "sales.v1", stock("x1", "sale", "DC", "A", 4), alerts=short, DC_A=(1, 3))
    kept = ship("DC", line("l1", "A", 1), shipment_id=shipment)
    two = cancel("c1", "O1", lines=[{"line_id": "l1", "quantity": 2}])
    covered = [tells("shortfall", "DC", "A", 1, 1, status="cleared")]
    moved(hand, "orders.v1", two, says("O1", "allocated", kept), alerts=covered, DC_A=(1, 1))
    assert not hand.audit(limits=replace(LIMITS, on_shortfall="keep")).faults
    assert {fault.kind for fault in hand.audit().faults} >= {"decision", "cell"}


@spoil(_a_parcel_leaves_after_the_order_was_cancelled, "decision", "status cancelled; found closed_short")
def _a_cancelled_order_is_called_closed_short(hand):
    hand.edit("allocations.v1", 1, lambda decision: decision.update(status="closed_short"))


@spoil(_units_are_cancelled_and_the_rest_was_shipped, "decision", "status closed_short; found cancelled")
def _closed_short_is_called_cancelled(hand):
    hand.edit("allocations.v1", 2, lambda decision: decision.update(status="cancelled"))


@spoil(_units_are_cancelled_and_the_rest_was_shipped, "decision", "lines [('l1', 'A', 3)]; found ship by DC")
def _more_is_cancelled_than_was_asked(hand):
    hand.edit("allocations.v1", 1, lambda decision: decision["shipments"][0]["lines"][0].update(quantity=2))


@spoil(_what_was_refused_leaves_all_the_same, "decision", "a decision for order O1; found none")
def _nobody_is_told_that_less_is_to_be_sent(hand):
    hand.drop("allocations.v1", 2)


@spoil(_what_was_refused_leaves_all_the_same, "decision", "lines [('l1', 'A', 1)]; found ship by LEEDS")
def _what_was_sent_is_to_be_sent_again(hand):
    hand.edit("allocations.v1", 2, lambda decision: decision["shipments"][0]["lines"][0].update(quantity=3))


@spoil(_a_shortfall_moves_the_newest_promise, "decision", "a decision for order O2; found none")
def _a_shortfall_is_not_routed_again(hand):
    hand.drop("allocations.v1", 2)


@spoil(_a_shortfall_moves_the_newest_promise, "decision", "a decision for order O2; found a decision for order O1")
def _the_older_promise_is_released(hand):
    hand.edit("allocations.v1", 2, lambda decision: renamed(decision, "O1"))


@spoil(_a_shortfall_moves_the_newest_promise, "alert", "kind=shortfall severity=critical status=cleared")
def _a_shortfall_is_not_cleared(hand):
    hand.drop("alerts.v1", alert_of(hand, "shortfall", "cleared"))


@spoil(_a_shortfall_moves_as_many_promises_as_it_must_and_the_oldest_order_is_served_first, "decision", "for order O2; found")
def _the_newer_order_is_decided_first(hand):
    for at, order_id in ((3, "O3"), (4, "O2")):
        hand.edit("allocations.v1", at, lambda decision, order_id=order_id: renamed(decision, order_id))


@spoil(_a_movement_is_older_than_the_count, "alert", "late_movement")
def _a_late_movement_is_not_told(hand):
    hand.drop("alerts.v1", alert_of(hand, "late_movement"))


@spoil(_a_field_that_only_describes_is_wrong, "alert", "field=currency")
def _a_field_left_out_is_not_told(hand):
    hand.drop("alerts.v1", 1)


@spoil(_a_till_and_the_collection_tell_of_the_same_goods, "cell", "LEEDS/A")
def _goods_leave_twice(hand):
    hand.edit("sales.v1", 0, lambda sale: sale.pop("order_id"))


@spoil(_an_order_is_changed, "decision", "shipment 0000abcd-1-1 kept")
def _a_changed_order_loses_its_promise(hand):
    hand.edit("allocations.v1", 1, lambda decision: decision["shipments"].pop(0))


@spoil(_an_order_is_changed, "decision", "distance_km")
def _a_changed_order_shows_the_old_distance(hand):
    hand.edit("allocations.v1", 2, lambda decision: decision["shipments"][0].update(distance_km=1.0))


@spoil(_a_changed_order_keeps_its_age, "decision", "a decision for order O1; found a decision for order O2")
def _a_changed_order_loses_its_age(hand):
    first, second = hand.records["allocations.v1"][-2:]
    for record, other in ((first, second), (second, first)):
        said = {name: json.loads(other.value)[name] for name in ("order_id", "unallocated")}
        hand.edit("allocations.v1", record.offset, lambda decision, said=said: decision.update(said))


@spoil(_a_hold_is_held_again, "expiry", "hold H1 expired")
def _a_hold_expires_at_its_first_time(hand):
    at = hand.find("allocations.v1", order_id="H1", status="expired")
    hand.edit("allocations.v1", at, lambda decision: decision["source"].update(offset=0))


@spoil(_lines_that_are_in_no_stock, "decision", "unallocated []")
def _carriage_waits(hand):
    hand.edit("allocations.v1", 1, lambda decision: decision["unallocated"].append(line("l9", "CARRIAGE", 1, "no_stock")))


@pytest.mark.parametrize("log", [_a_parcel_leaves_after_the_order_was_cancelled, _missing_units_leave_on_hand_once])
def test_units_that_left_and_are_still_on_hand_are_found(log):
    assert {fault.kind for fault in log(left=4).audit().faults} == {"cell"}


@pytest.mark.parametrize("name", SPOILS)
def test_a_spoiled_log_is_found_out(name):
    of, change, kind, words = SPOILS[name]
    hand = LOGS[of]()
    change(hand)
    found = hand.audit().faults
    assert any(fault.kind == kind and words in f"{fault.expected}; found {fault.found}" for fault in found), "\n".join(
        map(str, found)
    )
