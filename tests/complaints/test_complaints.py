"""Ten things that went wrong in other shops' inventories, each with its thread, and what happens here instead.

Every story is told twice: one event a batch, and all in one. What depends on workers and a broker is in test_on_kafka.py.
"""

import itertools
import random

import orjson
import pytest

from state.digest import digest
from streams.batch.pipeline import LocationChange
from streams.inventory.pipeline import InventoryPipeline
from tests.complaints.ledger import Ledger
from tests.complaints.story import POOL, START_MS, STEP_MS, Story, change_places, go_on, in_batches, shipment, table
from tests.inventory_log import KITS, Log, LogRecord, location, make_log, play, published, segments, settings
from topics.keys import compound_key

# T1: the last unit.


@in_batches
@pytest.mark.parametrize("orders", [2, 10, 300])
def test_of_many_orders_for_the_last_unit_one_is_promised_it(size, orders):
    """Two shoppers press "place order" at the same moment, both orders go through, and the salable quantity is -1.

    https://github.com/magento/inventory/issues/2722
    https://github.com/vendurehq/vendure/issues/3508 (stock is checked in one step and taken in a later one)
    https://github.com/medusajs/medusa/issues/16569 (concurrent reservations each pass the check for the same unit)
    """
    story = Story("A").stock("receipt", "A", "s", 1)
    for i in range(orders):
        story.order(f"o{i}", ("s", 1))
    ending = story.run(size)
    assert [decision["status"] for decision in ending.decisions] == ["allocated"] + ["backordered"] * (orders - 1)
    assert ending.cell("A", "s") == (1, 1, 0)


@in_batches
def test_a_unit_given_back_goes_to_the_oldest_who_waits_and_to_nobody_else(size):
    """The same shops hand out a unit twice when an order for it is cancelled while others are placed.

    https://github.com/vendurehq/vendure/issues/3508
    """
    story = Story("A").stock("receipt", "A", "s", 1).order("o0", ("s", 1)).order("o1", ("s", 1)).order("o2", ("s", 1))
    ending = story.cancelled("o0").order("o3", ("s", 1)).run(size)
    promised = {order_id: bool(ending.promised(order_id)) for order_id in ("o0", "o1", "o2", "o3")}
    assert promised == {"o0": False, "o1": True, "o2": False, "o3": False}
    assert ending.cell("A", "s") == (1, 1, 0)


# T2: twice, and out of order.


@in_batches
def test_a_shipment_told_twice_is_deducted_once(size):
    """A client called "create shipment" several times for one order, and each call gave the reservation back once more.

    https://github.com/magento/inventory/pull/2872
    """
    story = Story("A").stock("receipt", "A", "s", 50).order("o", ("s", 10))
    story.answer("shipped", "o", shipment(1), "A", event_id="told", time=0)
    story.answer("shipped", "o", shipment(1), "A", event_id="told", time=0)  # the same message again
    story.answer("shipped", "o", shipment(1), "A")  # another message that says the same
    ending = story.run(size)
    assert ending.cell("A", "s") == (40, 0, 40)
    assert ending.count("duplicate") == 1
    assert ending.reasons() == ["shipment_closed"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_log_in_which_every_event_comes_twice_gives_the_same_state(size, seed):
    """As above, for every kind of event.

    https://github.com/magento/inventory/pull/2872
    """
    log = make_log(seed, 400)
    once = InventoryPipeline(0, 1, settings())
    decisions = published(play(once, log, 1), "allocations.v1")
    offsets: dict[str, int] = {}
    twice = Log(log.locations, products=log.products)
    for record in log.records:
        for _ in range(2):
            offset = offsets[record.topic] = offsets.get(record.topic, -1) + 1
            twice.records.append(LogRecord(record.topic, offset, record.timestamp, record.key, record.value))
    pipeline = InventoryPipeline(0, 1, settings())
    again = published(play(pipeline, twice, size), "allocations.v1")
    assert {key: digest(state) for key, state in pipeline.pools.items()} == {key: digest(s) for key, s in once.pools.items()}
    unsourced = lambda found: [decision | {"source": None} for decision in found if decision["pool_id"] == POOL]  # noqa: E731
    assert unsourced(again) == unsourced(decisions)


@in_batches
@pytest.mark.parametrize("counted_at", [2_500, 6_000])
def test_stock_events_in_any_order_give_the_same_quantity(size, counted_at):
    """Movements and a count may arrive in any order: those before the count are in it, those after it are not.

    https://github.com/magento/inventory/pull/2872
    """
    events = [("receipt", 5, 1_000), ("sale", 3, 2_000), ("return", 1, 3_000), ("quarantine", 2, 4_000)]
    signs = {"receipt": 1, "sale": -1, "return": 1, "quarantine": -1}
    expected = 20 + sum(signs[kind] * units for kind, units, time in events if time > counted_at)
    found = set()
    for order in itertools.permutations([*events, ("count", 20, counted_at)]):
        story = Story("A")
        for kind, quantity, time in order:
            story.stock(kind, "A", "s", quantity, time=time)
        found.add(story.run(size).cell("A", "s"))
    assert found == {(expected, 0, expected)}


@in_batches
def test_an_answer_before_its_order_is_refused_aloud_and_may_come_again(size):
    """Out of order between topics: what can't be applied yet is not lost and changes nothing.

    https://github.com/magento/inventory/pull/2872
    """
    story = Story("A").stock("receipt", "A", "s", 1).cancelled("o", event_id="early").order("o", ("s", 1))
    ending = story.cancelled("o", event_id="early").run(size)
    assert ending.reasons() == ["unknown_order"]
    assert [decision["status"] for decision in ending.decisions] == ["allocated", "cancelled"]
    assert ending.cell("A", "s") == (1, 0, 1)


# T3: two lines, one SKU.


@in_batches
@pytest.mark.parametrize(
    "stock, lines, units", [(1, (1, 1), 1), (3, (2, 2), 2), (4, (2, 2), 4), (5, (2, 3, 1), 5), (0, (1, 1), 0)]
)
def test_lines_that_share_a_sku_get_no_more_together_than_there_is(size, stock, lines, units):
    """Two cart lines of one inventory item are each checked against the same quantity, and both pass.

    https://github.com/medusajs/medusa/issues/16502
    """
    story = Story("A").stock("receipt", "A", "s", stock) if stock else Story("A").stock("count", "A", "s", 0)
    ending = story.order("o", *(("s", quantity) for quantity in lines)).run(size)
    assert sum(ending.promised("o").values()) == units
    assert ending.cell("A", "s") == (stock, units, stock - units)
    waiting = sum(line["quantity"] for line in ending.last("o")["unallocated"])
    assert waiting == sum(lines) - units


# T4: enough in all, nowhere enough for all.


@in_batches
@pytest.mark.parametrize("second", ["s", "t"], ids=["one SKU", "two SKUs"])
def test_what_no_single_location_has_is_split(size, second):
    """The cart is confirmed against the sum of all locations, then reserved at the first one only, and checkout fails.

    https://github.com/medusajs/medusa/issues/14987
    """
    story = Story("A", "B").stock("receipt", "A", "s", 1).stock("receipt", "B", second, 1)
    ending = story.order("o", ("s", 1), (second, 1)).run(size)
    assert ending.last("o")["status"] == "allocated"
    assert sorted(shipment["location_id"] for shipment in ending.last("o")["shipments"]) == ["A", "B"]


@in_batches
def test_what_may_not_be_split_waits_and_says_why(size):
    """An order that asks for one location, and a line, which never is cut in two, wait by name: nothing is half taken.

    https://github.com/medusajs/medusa/issues/14987
    """
    story = Story("A", "B").stock("receipt", "A", "s", 1).stock("receipt", "B", "s", 1)
    story.order("whole", ("s", 1), ("s", 1), allow_split=False).order("line", ("s", 2))
    ending = story.run(size)
    assert {line["reason"] for line in ending.last("whole")["unallocated"]} == {"no_single_location"}
    assert {line["reason"] for line in ending.last("line")["unallocated"]} == {"no_stock"}
    assert [ending.cell(place, "s") for place in "AB"] == [(1, 0, 1)] * 2
    ending = go_on(ending, story.stock("receipt", "B", "s", 1), size)
    assert ending.promised("whole") == {"l0": 1, "l1": 1}


# T5: counts and reservations.


@in_batches
def test_a_count_that_takes_the_sold_unit_off_already_does_not_stop_its_shipment(size):
    """The warehouse sets the quantity to 0, as the one unit is sold, and the order for it can't be shipped any more.

    https://github.com/magento/inventory/issues/2725
    """
    story = Story("A").stock("receipt", "A", "s", 1).order("o", ("s", 1)).stock("count", "A", "s", 0)
    story.order("late", ("s", 1)).answer("shipped", "o", shipment(1), "A")
    ending = story.run(size)
    assert ending.reasons() == []
    assert not ending.promised("late")
    assert ending.cell("A", "s")[1:] == (0, 0)


# Stock 5; an order for 1 is placed at 2 s, shipped at 4 s. What is left is 4, whenever a count is taken or told.
COUNTS = {
    "taken before the order, told at the end": (1_500, 5, 5),
    "taken between order and shipment, told at once": (3_000, 5, 3),
    "taken between order and shipment, told at the end": (3_500, 5, 5),
    "taken after the shipment": (4_500, 4, 5),
}


@in_batches
@pytest.mark.parametrize("taken, units, told", COUNTS.values(), ids=COUNTS)
def test_a_count_older_or_newer_than_a_reservation_deducts_nothing_twice(size, taken, units, told):
    """A stock level that arrives while orders are open is read as if it knew of all of them, or of none.

    https://github.com/magento/inventory/issues/2725
    """
    steps = {
        1: lambda story: story.stock("receipt", "A", "s", 5),
        2: lambda story: story.order("o", ("s", 1)),
        3: lambda story: story.stock("safety_stock", "A", "s", 0),
        4: lambda story: story.answer("shipped", "o", shipment(1), "A"),
        5: lambda story: story.stock("safety_stock", "A", "s", 0),
    }
    steps[told] = lambda story: story.counted("A", "s", units, at=taken)
    story = Story("A")
    for step in range(1, 6):
        steps[step](story)
        assert story.time == step * STEP_MS
    ending = story.run(size)
    assert ending.cell("A", "s") == (4, 0, 4)


@in_batches
def test_a_shipment_told_after_a_count_that_was_taken_after_it_is_not_deducted_again(size):
    """As above: the count saw that the unit is gone, and the location's answer comes late.

    https://github.com/magento/inventory/issues/2725
    """
    story = Story("A").stock("receipt", "A", "s", 5).order("o", ("s", 1)).counted("A", "s", 4, at=3_000)
    ending = story.answer("shipped", "o", shipment(1), "A", time=2_500).run(size)
    assert ending.cell("A", "s") == (4, 0, 4)


@in_batches
def test_a_count_older_than_the_last_one_is_stale(size):
    """Levels that arrive in the wrong order set the quantity back.

    https://github.com/magento/inventory/issues/2725
    """
    story = Story("A").counted("A", "s", 7, at=900).counted("A", "s", 3, at=400).stock("sale", "A", "s", 1)
    ending = story.run(size)
    assert ending.cell("A", "s") == (6, 0, 6)
    assert ending.count("stale") == 1


# T6: gone and back.


@in_batches
def test_a_sku_counted_out_and_in_again_keeps_its_open_promises_and_no_others(size):
    """A deleted product's reservation stays behind, and lowers the salable quantity of a new product of the same SKU for ever.

    Nothing is deleted here: a SKU that goes is counted to 0. The open order waits, and counts once; the shipped one no more.

    https://github.com/magento/inventory/issues/3373
    """
    story = Story("A").stock("receipt", "A", "s", 2).order("shipped", ("s", 1)).order("open", ("s", 1))
    story.answer("shipped", "shipped", shipment(1), "A").stock("count", "A", "s", 0)
    ending = story.run(size)
    assert ending.cell("A", "s") == (0, 0, 0) and ending.last("open")["status"] == "backordered"
    ending = go_on(ending, story.stock("count", "A", "s", 10), size)
    assert ending.cell("A", "s") == (10, 1, 9)
    ending = go_on(ending, story.answer("shipped", "open", shipment(4), "A"), size)
    assert ending.cell("A", "s") == (9, 0, 9)


@in_batches
def test_a_location_removed_and_added_again_has_its_cells_and_promises_as_they_were(size):
    """As above, for a place: its cells go on where they were, nothing comes back from the dead and nothing is lost.

    https://github.com/magento/inventory/issues/3373
    """
    story = Story("A", "B").stock("receipt", "A", "s", 2).stock("receipt", "B", "s", 1).order("o", ("s", 1))
    ending = story.run(size)
    before = table(ending.state)
    assert before["A", "s"]["reserved"] == 1
    removed = LocationChange(0, 2, START_MS + story.time, b"A", None)
    ending = go_on(change_places(ending, removed), story.order("p", ("s", 1)).order("q", ("s", 1)), size)
    assert [shipment["location_id"] for shipment in ending.last("p")["shipments"]] == ["B"], "A takes no new orders"
    assert ending.last("q")["status"] == "backordered"
    assert table(ending.state)["A", "s"] == before["A", "s"]
    ending = change_places(ending, location("A", POOL, 3, latitude=50.0))
    assert [shipment["location_id"] for shipment in ending.last("q")["shipments"]] == ["A"]
    cell = table(ending.state)["A", "s"]
    assert (cell["on_hand"], cell["reserved"], cell["version"]) == (2, 2, before["A", "s"]["version"] + 1)
    ending = go_on(ending, story.answer("shipped", "o", shipment(1), "A"), size)
    assert (table(ending.state)["A", "s"]["on_hand"], table(ending.state)["A", "s"]["reserved"]) == (1, 1)


# T7: moving a promise.


@in_batches
def test_a_promise_can_not_be_moved_to_a_location_without_the_stock(size):
    """A reservation's location is changed, the new one's stock is not looked at, and its available quantity is negative.

    Here a location answers for its own promises only; what left it all the same is a fact (test_reality.py).
    https://github.com/medusajs/medusa/issues/16488
    """
    story = Story("A", "B").stock("receipt", "A", "s", 10).stock("receipt", "B", "s", 1).order("o", ("s", 10))
    ending = story.answer("rejected", "o", shipment(1), "B").run(size)
    assert ending.reasons() == ["wrong_location"]
    assert (ending.cell("A", "s"), ending.cell("B", "s")) == ((10, 10, 0), (1, 0, 1))


@in_batches
def test_a_rejected_promise_moves_only_to_where_the_stock_is(size):
    """As above, when the location itself gives the promise up.

    https://github.com/medusajs/medusa/issues/16488
    """
    story = Story("A", "B", "C").stock("receipt", "A", "s", 10).stock("receipt", "B", "s", 9).order("o", ("s", 10))
    ending = story.answer("rejected", "o", shipment(1), "A").run(size)
    assert (ending.last("o")["status"], ending.last("o")["shipments"]) == ("backordered", [])
    assert (ending.cell("A", "s"), ending.cell("B", "s")) == ((10, 0, 10), (9, 0, 9))
    ending = go_on(ending, story.stock("receipt", "C", "s", 10), size)
    assert [shipment["location_id"] for shipment in ending.last("o")["shipments"]] == ["C"]


@in_batches
def test_a_hold_confirmed_for_another_pickup_place_takes_only_what_can_be_had(size):
    """As above, when the customer moves it.

    https://github.com/medusajs/medusa/issues/16488
    """
    story = Story("A", "B").stock("receipt", "A", "s", 1).stock("receipt", "B", "s", 1)
    story.order("other", ("s", 1), mode="pickup", pickup_location_id="B")
    more = {"mode": "pickup", "expires_at": START_MS + 60_000}
    story.order("o", ("s", 1), kind="held", pickup_location_id="A", **more).order(
        "o", ("s", 1), mode="pickup", pickup_location_id="B"
    )
    ending = story.run(size)
    assert [shipment["kind"] for shipment in ending.last("o")["shipments"]] == ["transfer"], "from A to B, where none is left"
    assert (ending.cell("A", "s"), ending.cell("B", "s")) == ((1, 1, 0), (1, 1, 0))


# T8: the ledger and the table.


@pytest.mark.parametrize("seed", range(20, 32))
def test_the_ledgers_sum_is_the_table_after_every_event(seed):
    """A counter kept beside the rows it sums up drifts from them, and nobody notices until it is negative.

    https://github.com/medusajs/medusa/issues/16569 (a lost update leaves reserved_quantity unlike its reservation rows)
    https://github.com/magento/inventory/pull/2872 (reservations that never sum up to zero again)
    """
    log = make_log(seed, 500)
    pipeline, ledger = InventoryPipeline(0, 1, settings()), Ledger(KITS)
    for i, record in enumerate(log.records):
        outcome = pipeline.process(pipeline.decode(segments([record])), log.changes if i == 0 else [])
        letters = [letter for letter in published([outcome], "dead-letter.v1") if letter["topic"] != "locations.v1"]
        ledger.fold(record, published([outcome], "allocations.v1"), refused=bool(letters))
        if outcome.outputs.get("inventory.v1"):
            cells = {place: cell for state in pipeline.pools.values() for place, cell in table(state).items()}
            assert {place: cell["on_hand"] for place, cell in cells.items()} == {
                place: ledger.on_hand.get(place, 0) for place in cells
            }, record
            assert {place: cell["reserved"] for place, cell in cells.items() if cell["reserved"]} == ledger.reserved, record


# T9: coordinates.

NOWHERE = {
    "no destination": ({}, "missing_field"),
    "null": ({"destination": None}, "missing_field"),
    "no longitude": ({"destination": {"latitude": 51.0}}, "missing_field"),
    "a null latitude": ({"destination": {"latitude": None, "longitude": 0.0}}, "missing_field"),
    "beyond the pole": ({"destination": {"latitude": 90.1, "longitude": 0.0}}, "out_of_range"),
    "beyond the date line": ({"destination": {"latitude": 51.0, "longitude": -180.5}}, "out_of_range"),
    "text": ({"destination": {"latitude": "51.0", "longitude": 0.0}}, "wrong_field"),
    "a postcode": ({"destination": "88000"}, "wrong_field"),
    "no pickup place": ({"mode": "pickup"}, "missing_field"),
}


@in_batches
@pytest.mark.parametrize("body, reason", NOWHERE.values(), ids=NOWHERE)
def test_a_missing_or_impossible_coordinate_is_refused_and_never_taken_for_the_last_one(size, body, reason):
    """A postcode that can't be found is taken for the middle of the country, and shipped from what is nearest to that.

    https://github.com/magento/inventory/issues/1930
    """
    lines = [{"line_id": "l", "sku": "s", "quantity": 1}]
    story = Story("A", "B").stock("receipt", "A", "s", 5).stock("receipt", "B", "s", 5).order("good", ("s", 1), near=51.0)
    story.tell("orders.v1", kind="placed", order_id="bad", lines=lines, **body).order("next", ("s", 1), near=51.0)
    ending = story.run(size)
    assert ending.reasons() == [reason]
    assert [decision["order_id"] for decision in ending.decisions] == ["good", "next"]
    assert ending.cell("B", "s") == (5, 2, 3)


@in_batches
@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e400", b"-91", b"1e2"])
def test_a_number_that_is_no_latitude_is_refused(size, number):
    """As above, as bytes.

    https://github.com/magento/inventory/issues/1930
    """
    story = Story("A").stock("receipt", "A", "s", 5).order("o", ("s", 1), near=77.5)
    record = story.log.records.pop()
    ending = story.send("orders.v1", record.value.replace(b"77.5", number)).run(size)
    assert ending.reasons() in (["out_of_range"], ["not_json"])
    assert ending.decisions == []
    assert ending.cell("A", "s") == (5, 0, 5)


@in_batches
def test_zero_is_a_coordinate_like_others(size):
    """0, 0 is not "none": the order goes to what is nearest to there.

    https://github.com/magento/inventory/issues/1930
    """
    story = Story("A", "B").stock("receipt", "A", "s", 1).stock("receipt", "B", "s", 1).order("o", ("s", 1), near=0.0)
    assert [shipment["location_id"] for shipment in story.run(size).last("o")["shipments"]] == ["A"]


@pytest.mark.parametrize("wrong", [{"latitude": None}, {"longitude": 181}, {"latitude": "51"}])
def test_a_location_without_a_place_on_earth_is_refused_and_its_former_one_stands(wrong):
    """As above, for the place that ships.

    https://github.com/magento/inventory/issues/1930
    """
    story = Story("A", "B").stock("receipt", "A", "s", 1).stock("receipt", "B", "s", 1)
    ending = change_places(story.run(1), location("A", POOL, 2, **({"latitude": 50.0} | wrong)))
    assert [letter["topic"] for letter in ending.letters] == ["locations.v1"]
    ending = go_on(ending, story.order("o", ("s", 1), near=50.0), 1)
    assert [shipment["location_id"] for shipment in ending.last("o")["shipments"]] == ["A"]


# T10: every change is told.


def test_every_change_of_a_cell_is_told_once_whoever_made_it():
    """Stock events are sent for edits by hand, but not when an order takes, gives back or ships units.

    https://github.com/saleor/saleor/issues/19449
    """
    story = Story("A").stock("receipt", "A", "s", 5).order("o", ("s", 2)).order("p", ("s", 1)).cancelled("p")
    story.answer("shipped", "o", shipment(1), "A").answer("returned", "o", shipment(1), "A")
    story.stock("safety_stock", "A", "s", 1).stock("count", "A", "s", 9).order("far too many", ("s", 50))
    cells = published(story.run(1).outcomes, "inventory.v1")
    assert [(cell["version"], cell["on_hand"], cell["reserved"], cell["available"]) for cell in cells] == [
        (1, 5, 0, 5),
        (2, 5, 2, 3),
        (3, 5, 3, 2),
        (4, 5, 2, 3),
        (5, 3, 0, 3),
        (6, 5, 0, 5),
        (7, 5, 0, 4),
        (8, 9, 0, 8),
    ]


@pytest.mark.parametrize("seed", range(40, 43))
@pytest.mark.parametrize("size", [1, 13, 10_000])
def test_a_batch_tells_each_cell_that_changed_once_with_its_last_value_and_a_greater_version(size, seed):
    """Of every batch: a cell has a record if and only if its version grew; the record is the cell as the table has it.

    So with one event a batch each change is one record; in a larger one the last value stands for all (contract, section 4).

    https://github.com/saleor/saleor/issues/19449
    """
    log = make_log(seed, 500)
    pipeline = InventoryPipeline(0, 1, settings())
    before: dict[tuple[str, str], dict] = {}
    for at in range(0, len(log.records), size):
        outcome = pipeline.process(pipeline.decode(segments(log.records[at : at + size])), log.changes if at == 0 else [])
        after = {place: cell for state in pipeline.pools.values() for place, cell in table(state).items()}
        told = {}
        for message in outcome.outputs.get("inventory.v1", []):
            cell = orjson.loads(message["value"])
            place = cell["location_id"], cell["sku"]
            assert message["key"].decode() == compound_key(*place)
            assert place not in told
            told[place] = {name: cell[name] for name in ("on_hand", "reserved", "safety_stock", "version")}
            assert cell["available"] == max(0, cell["on_hand"] - cell["reserved"] - cell["safety_stock"])
        none = {"on_hand": 0, "reserved": 0, "safety_stock": 0, "version": 0}
        assert told == {place: cell for place, cell in after.items() if cell["version"] > before.get(place, none)["version"]}
        for place, cell in after.items():
            former = before.get(place, none)
            assert cell["version"] >= former["version"]
            assert cell["version"] > former["version"] or cell == former
        before = after


@pytest.mark.parametrize("seed", range(3))
def test_the_versions_of_a_cell_do_not_depend_on_the_batches(seed):
    """As above: a reader of the last record knows how many changes there were, however the log was cut.

    https://github.com/saleor/saleor/issues/19449
    """
    log = make_log(60 + seed, 400)
    found = []
    for size in (1, random.Random(seed).randrange(2, 50), 10_000):
        cells = published(play(InventoryPipeline(0, 1, settings()), log, size), "inventory.v1")
        found.append({(cell["location_id"], cell["sku"]): cell for cell in cells})
    assert found[0] == found[1] == found[2]
