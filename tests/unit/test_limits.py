"""No sender can fill a pool: what is beyond a limit is a dead letter and changes nothing, what is known goes on as before."""

import orjson
import pytest

from state.orders import MAX_LINE_PARTS, MAX_ORDER_PARTS
from streams.batch.pipeline import LocationChange, Segment
from streams.demand.pipeline import ClicksPipeline
from streams.inventory.pipeline import InventoryPipeline
from tests.complaints.story import START_MS, Story, change_places, go_on, in_batches, refuses, shipment
from tests.inventory_log import LogRecord, latest, make_log, play, published, settings
from topics.events import MAX_LINES, MAX_VALUE_BYTES

DAY_MS = 86_400_000


# A record's own size.


@in_batches
def test_a_record_of_more_than_4_mib_is_refused_whole(size):
    event = {"event_id": "e", "event_time": START_MS, "kind": "receipt", "location_id": "A", "sku": "s", "quantity": 1}
    value = orjson.dumps(event | {"note": "x" * MAX_VALUE_BYTES})
    story = Story("A").stock("receipt", "A", "s", 1)
    story.time += 1_000
    ending = refuses(story.send("stock.v1", value), size, "too_large")
    assert len(ending.letters[0]["value"]) > MAX_VALUE_BYTES
    assert ending.cell("A", "s") == (1, 0, 1)


@in_batches
def test_an_order_of_more_than_1000_lines_is_refused_and_one_of_1000_is_not(size):
    story = Story("A").stock("receipt", "A", "s", 5_000).order("most", *[("s", 1)] * MAX_LINES)
    ending = refuses(story.order("more", *[("s", 1)] * (MAX_LINES + 1)), size, "out_of_range")
    assert len(ending.promised("most")) == MAX_LINES
    assert ending.cell("A", "s") == (5_000, MAX_LINES, 4_000)


@in_batches
def test_an_answer_of_more_than_1000_lines_is_refused(size):
    lines = [{"line_id": f"l{i}", "quantity": 1} for i in range(MAX_LINES + 1)]
    story = Story("A").stock("receipt", "A", "s", 5_000).order("o", *[("s", 1)] * MAX_LINES)
    refuses(story.answer("shipped", "o", shipment(1), "A", lines=lines), size, "out_of_range")
    refuses(story.cancelled("o", line_ids=["l0"] * (MAX_LINES + 1)), size, "out_of_range", "out_of_range")


@pytest.mark.parametrize("levels", [10, 190, 250, 300, 100_000])
@pytest.mark.parametrize("key", [b"A", b"nowhere"])
def test_a_location_record_nested_without_end_is_a_dead_letter_or_taken_for_what_it_says(key, levels):
    nested = b"[" * levels + b"]" * levels
    value = orjson.dumps({"id": key.decode(), "pool": "uk", "kind": "store", "latitude": 50, "longitude": 0})
    ending = Story("A").stock("receipt", "A", "s", 1).run(1)
    for offset, record in enumerate((value[:-1] + b',"note":' + nested + b"}", nested), 1):
        ending = change_places(ending, LocationChange(0, offset, START_MS, key, record))
    assert ending.reasons() == ["not_json"] * (1 if levels < 200 else 2)
    restored = InventoryPipeline(0, 1, settings())
    for outcome in ending.outcomes:
        restored.restore(outcome.changelog, outcome.link)
    restored.seal()
    assert restored.digests() == ending.pipeline.digests()


# What a pool keeps.

MOVES = {
    "sale": {},
    "return": {},
    "receipt": {},
    "adjustment": {},
    "count": {},
    "transfer_out": {"transfer_id": "t", "to_location_id": "B"},
    "transfer_in": {"transfer_id": "t"},
    "safety_stock": {},
    "quarantine": {},
    "release": {},
}
EXPECTED = {"supply_id": "p", "expected_at": START_MS}


@in_batches
@pytest.mark.parametrize("kind", [*MOVES, "expected"])
def test_a_sku_too_many_is_refused_and_the_known_ones_go_on(size, kind):
    more = MOVES.get(kind, EXPECTED)
    story = Story("A", "B", max_skus=2).stock("receipt", "A", "s", 5).stock("receipt", "A", "t", 5)
    story.stock(kind, "A", "u", 1, **more).stock(kind, "B", "\u00fc", 1, **more)
    ending = refuses(story, size, "too_many_skus", "too_many_skus")
    story.stock("sale", "A", "t", 1).stock("receipt", "B", "s", 3).order("o", ("s", 3), ("t", 3))
    ending = go_on(ending, story, size)
    assert len(ending.letters) == 2
    assert ending.last("o")["status"] == "allocated"
    assert ending.state.count("skus") == 2


@in_batches
@pytest.mark.parametrize("kind", MOVES)
def test_a_cell_too_many_is_refused_and_the_known_ones_go_on(size, kind):
    story = Story("A", "B", max_cells=2).stock("receipt", "A", "s", 5).stock("receipt", "A", "t", 5)
    story.stock(kind, "B", "s", 1, **MOVES[kind]).stock(kind, "A", "u", 1, **MOVES[kind])
    ending = refuses(story, size, "too_many_cells", "too_many_cells")
    story.stock("expected", "B", "s", 5, **EXPECTED).stock("sale", "A", "s", 1).order("o", ("s", 4), ("t", 5))
    ending = go_on(ending, story, size)
    assert len(ending.letters) == 2, "expected supply needs no cell"
    assert ending.last("o")["status"] == "allocated"
    assert ending.state.count("cells") == 2


@in_batches
@pytest.mark.parametrize("kind, more", [("placed", {}), ("held", {"expires_at": START_MS + DAY_MS})])
def test_an_order_for_skus_too_many_is_refused_whole(size, kind, more):
    story = Story("A", max_skus=3).stock("receipt", "A", "s", 5).stock("receipt", "A", "t", 5)
    story.order("two", ("s", 1), ("new", 1), ("newer", 1), kind=kind, **more).order(
        "same", ("x", 1), ("x", 1), kind=kind, **more
    )
    ending = refuses(story, size, "too_many_skus", "too_many_skus")
    story.order("one", ("s", 1), ("new", 1), kind=kind, **more).order("known", ("s", 1), ("new", 1), kind=kind, **more)
    ending = go_on(ending, story.order("next", ("newer", 1)), size)
    assert ending.reasons()[2:] == ["too_many_skus"]
    assert {decision["order_id"] for decision in ending.decisions} == {"one", "known"}


@in_batches
def test_lines_too_many_are_refused_until_closed_orders_are_forgotten(size):
    story = Story("A", max_order_lines=4, closed_order_days=1).stock("receipt", "A", "s", 50)
    story.order("a", ("s", 1), ("s", 1)).order("b", ("s", 1)).order("c", ("s", 1), ("s", 1))
    ending = refuses(story, size, "too_many_lines")
    story.order("d", ("s", 1)).cancelled("a").order("e", ("s", 1)).answer("shipped", "b", shipment(2), "A")
    ending = go_on(ending, story, size)
    assert ending.reasons() == ["too_many_lines"] * 2, "a cancelled order is kept for a day"
    assert ending.last("d")["status"] == "allocated" and ending.last("a")["status"] == "cancelled"
    story.time += DAY_MS
    ending = go_on(ending, story.order("f", ("s", 1)).order("g", ("s", 1), ("s", 1)).order("h", ("s", 1)), size)
    assert ending.reasons() == ["too_many_lines"] * 3
    assert ending.last("f")["status"] == ending.last("g")["status"] == "allocated"
    assert ending.letters[-1]["key"] and ending.last("g")["order_id"] == "g"


@in_batches
def test_a_hold_is_confirmed_though_there_is_no_room_for_another_line(size):
    story = Story("A", max_order_lines=2).stock("receipt", "A", "s", 5)
    story.order("o", ("s", 1), ("s", 1), kind="held", expires_at=START_MS + DAY_MS).order("o", ("s", 1), ("s", 1))
    ending = story.run(size)
    assert ending.reasons() == []
    assert [decision["status"] for decision in ending.decisions] == ["held", "allocated"]


@in_batches
def test_a_hold_that_can_not_be_replaced_stays_as_it_is(size):
    story = Story("A", max_order_lines=2).stock("receipt", "A", "s", 5)
    story.order("o", ("s", 1), kind="held", expires_at=START_MS + DAY_MS).order("o", ("s", 2), ("s", 2))
    ending = refuses(story, size, "too_many_lines")
    assert ending.cell("A", "s") == (5, 1, 4)


SUPPLIES = {
    "expected": {"supply_id": "p", "expected_at": START_MS},
    "transfer_out": {"transfer_id": "p", "to_location_id": "B"},
    "transfer_in": {"transfer_id": "p"},
}


@in_batches
@pytest.mark.parametrize("kind", SUPPLIES)
def test_supplies_too_many_are_refused_until_one_is_there(size, kind):
    story = Story("A", "B", max_supplies=2).stock("receipt", "A", "s", 50)
    story.stock("expected", "A", "s", 7, supply_id="x", expected_at=START_MS)
    story.stock("transfer_out", "A", "s", 2, transfer_id="y", to_location_id="B")
    ending = refuses(story.stock(kind, "A", "s", 1, **SUPPLIES[kind], event_id="again"), size, "too_many_supplies")
    story.stock("expected", "A", "s", 9, supply_id="x", expected_at=START_MS)
    story.stock("transfer_in", "B", "s", 2, transfer_id="y")  # it is there: gone from the table
    story.stock(kind, "A", "s", 1, **SUPPLIES[kind], event_id="again")
    ending = go_on(ending, story, size)
    assert len(ending.letters) == 1, "a refused event's id is not remembered"
    assert ending.count("duplicate") == 0


@in_batches
def test_settled_transfers_are_remembered_only_as_many_as_those_that_are_not(size):
    story = Story("A", "B", max_supplies=2).stock("receipt", "A", "s", 50)
    for number in range(4):
        story.stock("transfer_out", "A", "s", 1, transfer_id=f"t{number}", to_location_id="B")
        story.stock("transfer_in", "B", "s", 1, transfer_id=f"t{number}")
    story.stock("transfer_in", "B", "s", 1, transfer_id="t0").stock("transfer_in", "B", "s", 1, transfer_id="t3")
    ending = story.run(size)
    assert {key: (each["sent"], each["received"]) for key, each in latest(ending.outcomes, "transfers.v1").items()} == {
        b"uk/t0/s": (1, 2),
        b"uk/t1/s": (1, 1),
        b"uk/t3/s": (0, 1),
    }
    ending = refuses(story.stock("transfer_in", "B", "s", 1, transfer_id="t1"), size, "too_many_supplies")
    assert ending.state.row[["kept_supplies", "settled_supplies"]].tolist() == [(2, 1)]


# Clicks.


def clicks(*skus: str, start: int = 0, kind: str = "view") -> list[LogRecord]:
    """A click a second on each SKU."""
    records = []
    for i, sku in enumerate(skus, start):
        click = {"event_id": f"e{i}", "event_time": START_MS, "visitor_id": "v", "kind": kind, "channel": "web"}
        value = orjson.dumps(click | {"sku": sku, "pool_id": "uk"})
        records.append(LogRecord("clicks.v1", i, START_MS + 1_000 * i, b"v", value))
    return records


def count_clicks(pipeline: ClicksPipeline, records: list[LogRecord], size: int) -> list:
    batches = [records[at : at + size] for at in range(0, len(records), size)]
    return [pipeline.process(pipeline.decode([Segment.of("clicks.v1", batch)]), []) for batch in batches]


def narrow(rows: int) -> ClicksPipeline:
    return ClicksPipeline(0, 1, settings(max_demand_rows=rows))


@in_batches
def test_clicks_on_skus_too_many_are_refused_until_the_window_has_passed(size):
    pipeline = narrow(2)
    outcomes = count_clicks(pipeline, clicks("a", "b", "c", "a", "b", "d"), size)
    letters = published(outcomes, "dead-letter.v1")
    assert [(letter["offset"], letter["reason"]) for letter in letters] == [(2, "too_many_skus"), (5, "too_many_skus")]
    views = {demand["sku"]: demand["views"] for demand in published(outcomes, "demand.v1")}
    assert views == {"a": 2, "b": 2}
    outcomes = count_clicks(pipeline, clicks("c", "d", "e", start=4_000), size)
    assert [letter["offset"] for letter in published(outcomes, "dead-letter.v1")] == [4_002]
    views = {demand["sku"]: demand["views"] for demand in published(outcomes, "demand.v1")}
    assert views == {"a": 0, "b": 0, "c": 1, "d": 1}


@in_batches
def test_a_click_that_is_not_counted_is_not_refused_for_room(size):
    records = [*clicks("a"), *clicks("b", start=1, kind="search"), *clicks("c", start=2, kind="wishlist")]
    assert published(count_clicks(narrow(1), records, size), "dead-letter.v1") == []


def test_refused_clicks_change_nothing():
    records = clicks("a", "b", *(f"s{i}" for i in range(50)))
    garbage = [LogRecord(r.topic, r.offset, r.timestamp, r.key, r.value if i < 2 else b"?") for i, r in enumerate(records)]
    pipeline, twin = narrow(2), narrow(2)
    assert len(published(count_clicks(pipeline, records, 7), "dead-letter.v1")) == 50
    count_clicks(twin, garbage, 7)
    assert pipeline.digests() == twin.digests()


# Batches, and what is written down.

TIGHT = {"max_skus": 6, "max_cells": 15, "max_order_lines": 15, "max_supplies": 3, "closed_order_days": 1}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("step_ms", [700, 400_000])
def test_a_batchs_cut_never_shows_where_limits_are_reached(seed, step_ms):
    log = make_log(seed, 600, step_ms=step_ms, **TIGHT)
    results = []
    for size in (1, 7, len(log.records)):
        pipeline = InventoryPipeline(0, 1, settings(**TIGHT))
        outcomes = play(pipeline, log, size)
        letters = sorted(published(outcomes, "dead-letter.v1"), key=repr)
        last = {(cell["location_id"], cell["sku"]): cell for cell in published(outcomes, "inventory.v1")}
        results.append((by_pool(outcomes), letters, last, pipeline.digests()))
    assert results[0] == results[1] == results[2]
    found = {letter["reason"] for letter in results[0][1]}
    assert {"too_many_skus", "too_many_cells", "too_many_lines"} <= found


def by_pool(outcomes: list) -> dict[str, list[dict]]:
    decisions: dict[str, list[dict]] = {}
    for decision in published(outcomes, "allocations.v1"):
        decisions.setdefault(decision["pool_id"], []).append(decision)
    return decisions


@pytest.mark.parametrize("seed", range(3))
def test_a_pool_at_its_limits_is_restored_at_its_limits(seed):
    log = make_log(seed, 600, **TIGHT)
    whole = play(InventoryPipeline(0, 1, settings(**TIGHT)), log, 11)
    restored = InventoryPipeline(0, 1, settings(**TIGHT))
    for outcome in whole[:30]:
        restored.restore(outcome.changelog, outcome.link)
    restored.seal()
    again = play(restored, type(log)([], log.records[30 * 11 :]), 11)
    assert published(again, "dead-letter.v1") == published(whole[30:], "dead-letter.v1")


# Memory.


def test_a_hostile_sender_of_new_skus_orders_and_supplies_makes_no_array_grow():
    few = {"max_skus": 100, "max_cells": 100, "max_order_lines": 200, "max_supplies": 50}
    pipeline = InventoryPipeline(0, 1, settings(**few))
    sizes, offset = [], 0
    for part in range(20):
        story = Story("A", "B", **few)
        story.time, story._offsets = part * 400_000, {topic: offset for topic in ("stock.v1", "orders.v1")}
        for i in range(100 * part, 100 * (part + 1)):
            story.stock("count", "A", f"sku-{i}", 1)
            story.stock("expected", "B", f"sku-{i % 100}", 1, supply_id=f"p{i}", expected_at=START_MS)
            story.stock("transfer_out", "A", "sku-1", 1, transfer_id=f"t{i}", to_location_id="B")
            story.stock("transfer_in", "B", "sku-1", 1, transfer_id=f"t{i}")
            story.order(f"o{i}", (f"other-{i}", 1), ("sku-1", 1))
            story.order(f"p{i}", ("sku-1", 1), ("sku-2", 1))
        log = story.log if part == 0 else type(story.log)([], story.log.records)
        play(pipeline, log, 50)
        offset += 1_000
        sizes.append(arrays(pipeline))
    assert sizes[0], "there are arrays"
    assert sizes[-1] == sizes[2], "full after three parts"
    state = pipeline.pools[b"uk"]
    assert (state.count("skus"), state.row["kept_supplies"][0]) == (100, 50)
    assert state.row["kept_lines"][0] <= 200


def arrays(pipeline: InventoryPipeline) -> dict[str, int]:
    """Bytes of each array that an event can make grow."""
    state = pipeline.pools[b"uk"]
    return {name: array.nbytes for name, array in state.t.arrays().items()} | {
        f"work {name}": getattr(pipeline._work, name).nbytes for name in ("rows", "stamps", "units")
    }


def test_a_hostile_sender_of_clicks_makes_no_array_grow():
    pipeline = narrow(100)
    sizes = []
    for part in range(10):
        sent = clicks(*(f"{part}-{i}" for i in range(100)), start=100 * part)
        pipeline.process(pipeline.decode([Segment.of("clicks.v1", sent)]), [])
        sizes.append({name: array.nbytes for name, array in pipeline.state.t.arrays().items()})
    assert sizes[-1] == sizes[1]


def test_a_location_that_rejects_unit_by_unit_cuts_a_line_into_so_many_parts_at_most():
    story = Story("A", "B").stock("receipt", "A", "s", 1_000).order("o", ("s", 500))
    for _ in range(200):
        story.answer("rejected", "o", shipment(1), "A", lines=[{"line_id": "l0", "quantity": 1}])
    story.answer("rejected", "o", shipment(1), "A")  # all that is left: cuts nothing
    ended = story.run(50)
    assert int(ended.state.row["kept_lines"][0]) == MAX_LINE_PARTS
    assert ended.reasons() == ["too_many_lines"] * (200 - MAX_LINE_PARTS + 1)
    assert "reject all that is left" in ended.letters[0]["detail"]
    assert ended.cell("A", "s")[1] == 0
    assert sum(line["quantity"] for line in ended.last("o")["unallocated"]) == 500


def test_an_order_that_is_changed_without_end_has_so_many_parts_at_most():
    story = Story("A").stock("receipt", "A", "s", 5).stock("receipt", "A", "t", 5).order("o", ("s", 1))
    for number in range(MAX_ORDER_PARTS + 4):
        story.order("o", ("t" if number % 2 == 0 else "s", 1), kind="changed")
    ended = story.cancelled("o").run(500)
    assert ended.reasons() == ["too_many_lines"] * 5
    assert "cancel it and place another" in ended.letters[0]["detail"]
    assert int(ended.state.row["kept_lines"][0]) == MAX_ORDER_PARTS
    assert ended.cell("A", "s")[1] == ended.cell("A", "t")[1] == 0


def test_holds_that_ended_before_their_time_take_no_room():
    pipeline = InventoryPipeline(0, 1, settings(closed_order_days=1))
    story = Story("A", closed_order_days=1)
    for number in range(600):
        story.order(f"h{number}", ("s", 1), kind="held", expires_at=253_402_300_799_999).cancelled(f"h{number}")
        story.time += 86_400_000
    play(pipeline, story.log, 10)
    assert pipeline.pools[b"uk"].t.holds.size <= 256
