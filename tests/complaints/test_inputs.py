"""What senders get wrong in an event itself, each with its thread, and what happens here instead.

Every story is told twice: one event a batch, and all in one.
"""

import itertools
from collections import Counter

import orjson
import pytest

from tests.complaints.story import POOL, START_MS, STEP_MS, Story, in_batches, refuses
from tests.inventory_log import published

HOUR_MS = 3_600_000
SKEW_MS = 300_000


# T11: another clock.


@in_batches
@pytest.mark.parametrize("field", ["time", "counted_at"])
def test_a_count_from_the_future_freezes_no_cell(size, field):
    """A device with a wrong clock counts tomorrow, and every sale until then counts as known already.

    https://github.com/openmsupply/open-msupply/issues/11603, https://github.com/openmsupply/open-msupply/issues/8953
    """
    story = Story("A").stock("count", "A", "s", 10)
    ahead = HOUR_MS if field == "time" else START_MS + HOUR_MS
    ending = refuses(story.stock("count", "A", "s", 99, **{field: ahead}), size, "time_out_of_range")
    name = "event_time" if field == "time" else "counted_at"
    assert ending.letters[0]["detail"].startswith(f"{name}: {START_MS + HOUR_MS} is 3598 s ahead of the log, which is at ")
    ending = story.stock("sale", "A", "s", 3).order("o", ("s", 8)).run(size)
    assert ending.cell("A", "s") == (7, 0, 7)
    assert ending.last("o")["status"] == "backordered"


@in_batches
def test_a_sale_in_seconds_is_no_sale_of_1970(size):
    """A sender tells seconds; the sale is older than the last count and is lost.

    https://github.com/eclipse/kuksa.val/issues/88
    """
    story = Story("A").stock("count", "A", "s", 10)
    ending = refuses(story.stock("sale", "A", "s", 4, time=-START_MS + START_MS // 1000), size, "time_out_of_range")
    assert ending.letters[0]["detail"] == f"event_time: {START_MS // 1000} looks like seconds; expected epoch milliseconds"


@pytest.mark.parametrize("time", [-START_MS + 946_684_800_000, STEP_MS + SKEW_MS])
def test_the_earliest_and_the_latest_plausible_times_are_taken(time):
    assert Story("A").stock("receipt", "A", "s", 4, time=time).run(1).cell("A", "s") == (4, 0, 4)


@pytest.mark.parametrize("time", [-START_MS + 946_684_799_999, STEP_MS + SKEW_MS + 1])
def test_a_millisecond_beyond_them_is_refused(time):
    refuses(Story("A").stock("receipt", "A", "s", 1).stock("receipt", "A", "s", 4, time=time + STEP_MS * (time > 0)), 1,
            "time_out_of_range")  # fmt: skip


def test_how_far_a_sender_may_be_ahead_is_a_setting():
    story = Story("A", clock_skew_ms=0).stock("receipt", "A", "s", 1)
    ending = refuses(story.stock("receipt", "A", "s", 4, time=2 * STEP_MS + 1), 1, "time_out_of_range")
    assert ending.letters[0]["detail"].endswith("expected at most 0 s (setting clock_skew_ms): set the sender's clock")


# T12: whose id.


@in_batches
def test_two_tills_that_count_from_one_are_two_senders(size):
    """An id is its source's own; taken for everybody's, the second till's sales are dropped as duplicates.

    https://github.com/saleor/saleor/issues/14251, https://github.com/cloudevents/spec (id and source together)
    """
    story = Story("A", "B").stock("receipt", "A", "s", 5, event_id="1").stock("receipt", "B", "s", 5, event_id="1")
    story.stock("sale", "A", "s", 1, event_id="3").stock("sale", "B", "s", 2, event_id="3")
    story.stock("receipt", "A", "s", 10, event_id="3")  # of another topic
    ending = story.order("o", ("s", 1), event_id="1").run(size)
    assert ending.cell("A", "s") == (14, 1, 13) and ending.cell("B", "s") == (3, 0, 3)
    assert ending.count("applied") == 6 and not ending.letters


@in_batches
def test_lines_sent_as_events_of_one_id_are_told_and_not_dropped(size):
    """A delivery note of three lines comes as three events with the note's number as id.

    https://github.com/saleor/saleor/issues/14251
    """
    story = Story("A")
    for sku in "stu":
        story.stock("receipt", "A", sku, 5, event_id="note", time=0)
    ending = refuses(story, size, "event_id_reused", "event_id_reused")
    assert ending.cells().keys() == {("A", "s")}
    assert ending.letters[0]["detail"] == (
        "event_id: expected an id of its own, found 'note', which location 'A' has used for an event that says something else; "
        "give each event a new id, and send an event again as it was"
    )


ORDER = {
    "event_id": "e",
    "event_time": START_MS,
    "kind": "placed",
    "order_id": "o",
    "lines": [{"line_id": "1", "sku": "s", "quantity": 1}, {"line_id": "2", "sku": "t", "quantity": 1}],
    "destination": {"latitude": 51.5, "longitude": 0.0},
}
SECOND = ORDER["lines"][1]
STOCK = {"event_id": "e", "event_time": START_MS, "location_id": "A", "sku": "s"}
RECEIPT = STOCK | {"kind": "receipt", "quantity": 1}
COUNT = STOCK | {"kind": "count", "quantity": 1}
TRANSFER = STOCK | {"kind": "transfer_in", "quantity": 1, "transfer_id": "t"}
HELD = ORDER | {"kind": "held", "expires_at": START_MS + HOUR_MS}
PICKUP = ORDER | {"mode": "pickup", "pickup_location_id": "A"}


def twice(event: dict, changed: bytes, size: int) -> list[str]:
    """Send an event, and something else; gives the reasons of the dead letters."""
    topic = "orders.v1" if "order_id" in event else "stock.v1"
    story = Story("A", "B").send(topic, orjson.dumps(event))
    ending = story.send(topic, changed).run(size)
    assert ending.count("duplicate") + len(ending.letters) == 1 == ending.count("applied")
    return ending.reasons()


SAME = [
    (RECEIPT, {"lot_id": "l", "expires_at": 5, "note": 1}),
    (COUNT, {"counted_at": START_MS}),
    (ORDER, {"channel": "web", "customer_id": "c", "currency": "EUR", "campaign_id": "x", "mode": "delivery"}),
    (ORDER, {"allow_split": True, "allow_partial": None, "service_level": "standard", "pickup_location_id": "A"}),
    (ORDER, {"lines": [line | {"unit_price": 5} for line in ORDER["lines"]]}),
    (ORDER, {"destination": {"longitude": -0.0, "latitude": 51.5, "note": {}}}),
    (PICKUP, {"destination": None}),
]


@pytest.mark.parametrize("event, change", SAME)
def test_an_event_told_in_other_words_is_the_same(event, change):
    assert twice(event, orjson.dumps(event | change, option=orjson.OPT_INDENT_2), 1) == []
    assert twice(event, orjson.dumps(dict(reversed((event | change).items()))), 10) == []


OTHER = [
    *((RECEIPT, change) for change in ({"quantity": 2}, {"kind": "release"}, {"sku": "t"}, {"event_time": START_MS - 1})),
    (COUNT, {"counted_at": START_MS - 1}),
    *((TRANSFER, {name: "B"}) for name in ("transfer_id", "to_location_id")),
    *((ORDER, {name: False}) for name in ("allow_split", "allow_partial")),
    *((ORDER, {"destination": ORDER["destination"] | {name: 0.5}}) for name in ("latitude", "longitude")),
    *((ORDER, {"lines": [ORDER["lines"][0], SECOND | change]}) for change in ({"line_id": "3"}, {"sku": "s"}, {"quantity": 2})),
    *((ORDER, {"lines": lines}) for lines in (ORDER["lines"][:1], ORDER["lines"][::-1])),
    *((ORDER, change) for change in ({"service_level": "urgent"}, {"mode": "pickup", "pickup_location_id": "A"})),
    (ORDER, {"kind": "cancelled"}),
    (PICKUP, {"pickup_location_id": "B"}),
    (HELD, {"expires_at": START_MS + HOUR_MS + 1}),
    (HELD, {"kind": "placed"}),
]  # fmt: skip


@pytest.mark.parametrize("event, change", OTHER)
def test_an_event_that_says_something_else_under_its_id_is_refused(event, change):
    for size, escaped in itertools.product([1, 10], [False, True]):
        changed = orjson.dumps(event | change)
        # An escape that the scanner leaves to the models.
        assert twice(event, changed.replace(b'"e"', b'"\\u0065"') if escaped else changed, size) == ["event_id_reused"]


@in_batches
def test_a_refused_event_may_come_again_under_its_id(size):
    story = (
        Story("A").stock("sale", "NOWHERE", "s", 1, event_id="1").stock("receipt", "A", "s", 1, event_id="1", time=9 * HOUR_MS)
    )
    ending = story.stock("receipt", "A", "s", 2, event_id="1").run(size)
    assert ending.reasons() == ["unknown_location", "time_out_of_range"]
    assert ending.cell("A", "s") == (2, 0, 2)


def test_an_id_that_left_the_window_may_be_used_again():
    story = Story("A", dedupe_events=2, dedupe_hours=0)
    for event_id in ("1", "2", "3", "1"):
        story.stock("receipt", "A", "s", 1, event_id=event_id)
    ending = story.run(10)
    assert ending.cell("A", "s") == (4, 0, 4) and not ending.letters


# T13: a key that two cells share.


@in_batches
def test_two_cells_never_share_a_key(size):
    """A separator inside an id makes two cells one for whoever reads the compacted topic.

    https://github.com/xataio/pgstream/issues/1033, https://github.com/woocommerce/woocommerce/issues/7592
    """
    story = Story("WH", "WH/S1").stock("receipt", "WH", "S1/X", 5).stock("receipt", "WH/S1", "X", 9)
    story.stock("receipt", "WH", "S1%2FX", 7).stock("receipt", "WH", "%" * 128, 1)
    ending = story.run(size)
    keys = [message["key"].decode() for outcome in ending.outcomes for message in outcome.outputs["inventory.v1"]]
    assert keys == ["WH/S1%2FX", "WH%2FS1/X", "WH/S1%252FX", "WH/" + "%25" * 128]


# T14: what only describes.


@in_batches
def test_a_field_that_only_describes_costs_no_fact_and_is_told(size):
    """A till sends an empty customer and a price with decimals, and the sale is not there.

    https://github.com/woocommerce/woocommerce/issues/52198, https://github.com/openmsupply/open-msupply/issues/818
    """
    story = Story("A").stock("receipt", "A", "s", 9, lot_id=7, expires_at="soon")
    story.stock("sale", "A", "s", 2, customer_id="", unit_price=12.99, channel=5, currency=[], receipt_id="r")
    lines = [{"line_id": "1", "sku": "s", "quantity": 1, "unit_price": unit_price} for unit_price in (12.99, "12", 5)]
    lines = [line | {"line_id": f"{i}"} for i, line in enumerate(lines)]
    order = {"kind": "placed", "order_id": "o", "lines": lines, "destination": {"latitude": 50.0, "longitude": 0.0}}
    ending = story.tell("orders.v1", **order, campaign_id=1, customer_id="c").run(size)
    assert ending.cell("A", "s") == (7, 3, 4) and not ending.letters
    left_out = Counter()
    for outcome in ending.outcomes:
        left_out.update(outcome.left_out)
    assert left_out == {("stock.v1", name): 1 for name in ("lot_id", "expires_at")} | {
        ("sales.v1", name): 1 for name in ("customer_id", "unit_price", "channel", "currency")
    } | {("orders.v1", "unit_price"): 2, ("orders.v1", "campaign_id"): 1}  # fmt: skip
    told = published(ending.outcomes, "alerts.v1")
    assert sorted((alert["source"]["topic"], alert["field"]) for alert in told) == sorted(left_out)
    assert told[0]["alert_id"] == f"field_left_out/{POOL}/{told[0]['source']['topic']}/{told[0]['field']}"
    assert {alert["kind"] for alert in told} == {"field_left_out"}


def test_what_a_refused_event_only_describes_is_not_told():
    ending = Story("A").stock("sale", "A", "s", 0, customer_id="").run(1)
    assert ending.reasons() == ["out_of_range"] and not any(outcome.left_out for outcome in ending.outcomes)
    assert not published(ending.outcomes, "alerts.v1")


# T15: a number with a point.


@in_batches
def test_a_whole_number_with_a_point_is_that_number_and_half_a_unit_is_none(size):
    """A till's language has one kind of number, and writes 2.0.

    https://github.com/woocommerce/woocommerce/issues/52198
    """
    story = Story("A").stock("receipt", "A", "s", 9.0).stock("sale", "A", "s", 2.0, event_id="1", time=0)
    story.stock("sale", "A", "s", 2, event_id="1", time=0)  # the same event
    ending = refuses(story.stock("sale", "A", "s", 12.5), size, "wrong_field")
    assert ending.cell("A", "s") == (7, 0, 7) and ending.count("duplicate") == 1
