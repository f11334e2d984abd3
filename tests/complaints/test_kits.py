"""Kits: promised as their parts from one location, all or none; whatever happens to units of a kit happens to its parts.

A box is two cups and a lid. Every story is told twice: one event a batch, and all in one.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from state.digest import digest
from streams.inventory.pipeline import InventoryPipeline
from tests.complaints.story import START_MS, Ending, Story, change_places, go_on, in_batches, refuses, shipment, table
from tests.inventory_log import kit, product, published, settings

BOX = (("CUP", 2), ("LID", 1))
Books = dict[str, tuple[tuple[int, int], tuple[int, int]]]
"""Place → on hand and reserved of cups, then of lids."""


def shop(**changed) -> Story:
    """W1 has parts of four boxes, and two cups; W2 of one."""
    story = Story("W1", "W2", **changed).kit("BOX", *BOX)
    for place, cups, lids in (("W1", 10, 4), ("W2", 2, 1)):
        story.stock("receipt", place, "CUP", cups).stock("receipt", place, "LID", lids)
    return story


def ordered(**more) -> Story:
    """Three boxes are promised, by W1."""
    return shop().order("o", ("BOX", 3), **more)


def of(units: int) -> dict:
    """An event's lines: so many units of the order's boxes."""
    return {"lines": [{"line_id": "l0", "quantity": units}]}


def picked_up() -> Story:
    return ordered(mode="pickup", pickup_location_id="W1")


def books(ending: Ending) -> Books:
    cells = {cell: (found["on_hand"], found["reserved"]) for cell, found in table(ending.state).items()}
    return {place: (cells[place, "CUP"], cells[place, "LID"]) for place in ("W1", "W2")}


def raised(ending: Ending) -> list[str]:
    return [alert["kind"] for alert in published(ending.outcomes, "alerts.v1") if alert["status"] == "raised"]


W1, W2 = ((10, 0), (4, 0)), ((2, 0), (1, 0))  # untouched
PROMISED = ((10, 6), (4, 3))
STORIES: dict[str, tuple[Callable[[], Story], Books, list[str]]] = {
    "placed: promised as its parts": (ordered, {"W1": PROMISED, "W2": W2}, []),
    "all or none: there are cups for five boxes, and lids for four": (
        lambda: shop().order("o", ("BOX", 5)),
        {"W1": W1, "W2": W2},
        [],
    ),
    "what a box takes of the cups is not promised to another line": (
        lambda: ordered().order("p", ("CUP", 5)).order("q", ("CUP", 4)),
        {"W1": ((10, 10), (4, 3)), "W2": W2},
        [],
    ),
    "in one order too": (
        lambda: shop().order("o", ("BOX", 4), ("CUP", 3), ("LID", 1)),
        {"W1": ((10, 8), (4, 4)), "W2": ((2, 0), (1, 1))},
        [],
    ),
    "stock of the box itself is another thing": (
        lambda: ordered().stock("receipt", "W1", "BOX", 9).order("p", ("BOX", 5)),
        {"W1": PROMISED, "W2": W2},
        [],
    ),
    "one that waits is served when the part arrives that it lacks": (
        lambda: shop().order("o", ("BOX", 5)).stock("receipt", "W1", "LID", 1),
        {"W1": ((10, 10), (5, 5)), "W2": W2},
        [],
    ),
    "also if it lacks several, whichever comes last": (
        lambda: shop().order("o", ("BOX", 6)).stock("receipt", "W1", "CUP", 2).stock("receipt", "W1", "LID", 2),
        {"W1": ((12, 12), (6, 6)), "W2": W2},
        [],
    ),
    "shipped": (
        lambda: ordered().answer("shipped", "o", shipment(1), "W1"),
        {"W1": ((4, 0), (1, 0)), "W2": W2},
        [],
    ),
    "shipped in part": (
        lambda: ordered().answer("shipped", "o", shipment(1), "W1", **of(1)),
        {"W1": ((8, 4), (3, 2)), "W2": W2},
        [],
    ),
    "shipped, named by its SKU": (
        lambda: ordered().answer("shipped", "o", shipment(1), "W1", lines=[{"sku": "BOX", "quantity": 2}]),
        {"W1": ((6, 2), (2, 1)), "W2": W2},
        [],
    ),
    "shipped from elsewhere": (
        lambda: ordered().answer("shipped", "o", shipment(1), "W2", **of(1)),
        {"W1": ((10, 4), (4, 2)), "W2": ((0, 0), (0, 0))},
        ["shipped_from_elsewhere"] * 2,
    ),
    "more shipped than promised": (
        lambda: ordered().answer("shipped", "o", shipment(1), "W1", **of(4)),
        {"W1": ((2, 0), (0, 0)), "W2": W2},
        ["over_shipped"] * 2,
    ),
    "shipped after it was cancelled": (
        lambda: ordered().cancelled("o").answer("shipped", "o", shipment(1), "W1"),
        {"W1": ((4, 0), (1, 0)), "W2": W2},
        ["shipped_after_close"] * 2,
    ),
    "shipped though it waits": (
        lambda: shop().order("o", ("BOX", 5)).answer("shipped", "o", "?", "W1", lines=[{"line_id": "l0", "quantity": 2}]),
        {"W1": ((6, 0), (2, 0)), "W2": W2},
        ["shipped_unpromised"] * 2,
    ),
    "shipped of an order that nobody knows": (
        lambda: shop().answer("shipped", "?", "x", "W1", lines=[{"sku": "BOX", "quantity": 2}]),
        {"W1": ((6, 0), (2, 0)), "W2": W2},
        ["shipped_unknown"] * 2,
    ),
    "cancelled": (lambda: ordered().cancelled("o"), {"W1": W1, "W2": W2}, []),
    "cancelled by its line": (lambda: ordered().cancelled("o", line_ids=["l0"]), {"W1": W1, "W2": W2}, []),
    "cancelled in part": (lambda: ordered().cancelled("o", **of(2)), {"W1": ((10, 2), (4, 1)), "W2": W2}, []),
    "rejected: no other place has parts of three": (
        lambda: ordered().answer("rejected", "o", shipment(1), "W1"),
        {"W1": W1, "W2": W2},
        [],
    ),
    "rejected in part: another place has parts of one": (
        lambda: ordered().answer("rejected", "o", shipment(1), "W1", **of(1)),
        {"W1": ((10, 4), (4, 2)), "W2": ((2, 2), (1, 1))},
        [],
    ),
    "missing": (
        lambda: ordered().answer("rejected", "o", shipment(1), "W1", missing=True, **of(1)),
        {"W1": ((8, 4), (3, 2)), "W2": ((2, 2), (1, 1))},
        [],
    ),
    "returned, to another place": (
        lambda: ordered().answer("shipped", "o", shipment(1), "W1").answer("returned", "o", shipment(1), "W2", **of(1)),
        {"W1": ((4, 0), (1, 0)), "W2": ((4, 0), (2, 0))},
        [],
    ),
    "more returned than shipped": (
        lambda: ordered().answer("returned", "o", shipment(1), "W2", **of(1)),
        {"W1": PROMISED, "W2": ((4, 0), (2, 0))},
        ["over_returned"] * 2,
    ),
    "changed to fewer": (
        lambda: ordered().tell("orders.v1", kind="changed", order_id="o", lines=[line("BOX", 2)]),
        {"W1": ((10, 4), (4, 2)), "W2": W2},
        [],
    ),
    "changed to more": (
        lambda: ordered().tell("orders.v1", kind="changed", order_id="o", lines=[line("BOX", 4)]),
        {"W1": ((10, 8), (4, 4)), "W2": W2},
        [],
    ),
    "changed to what it is made of": (
        lambda: ordered().tell("orders.v1", kind="changed", order_id="o", lines=[line("CUP", 7)]),
        {"W1": ((10, 7), (4, 0)), "W2": W2},
        [],
    ),
    "held": (
        lambda: shop().order("o", ("BOX", 3), kind="held", expires_at=START_MS + 90_000),
        {"W1": PROMISED, "W2": W2},
        [],
    ),
    "held, and confirmed": (
        lambda: shop().order("o", ("BOX", 3), kind="held", expires_at=START_MS + 90_000).order("o", ("BOX", 3)),
        {"W1": PROMISED, "W2": W2},
        [],
    ),
    "expired": (
        lambda: shop().order("o", ("BOX", 3), kind="held", expires_at=START_MS + 5_500).stock("receipt", "W2", "LID", 1),
        {"W1": W1, "W2": ((2, 0), (2, 0))},
        [],
    ),
    "collected": (
        lambda: picked_up().answer("collected", "o", shipment(1), "W1"),
        {"W1": ((4, 0), (1, 0)), "W2": W2},
        [],
    ),
    "rung up at the till, then collected: once": (
        lambda: (
            picked_up()
            .stock("sale", "W1", "BOX", 3, order_id="o", line_id="l0")
            .answer("collected", "o", shipment(1), "W1", **of(3))
        ),
        {"W1": ((4, 0), (1, 0)), "W2": W2},
        [],
    ),
    "rung up with one box more, which is sold": (
        lambda: picked_up().stock("sale", "W1", "BOX", 4, order_id="o"),
        {"W1": ((2, 0), (0, 0)), "W2": W2},
        [],
    ),
    "a till's sale": (lambda: shop().stock("sale", "W2", "BOX", 1), {"W1": W1, "W2": ((0, 0), (0, 0))}, []),
    "a till's return": (lambda: shop().stock("return", "W2", "BOX", 2), {"W1": W1, "W2": ((6, 0), (3, 0))}, []),
    "a till's sale of which one part was counted since": (
        lambda: shop().counted("W2", "CUP", 5, at=9_000).stock("sale", "W2", "BOX", 1, time=8_000),
        {"W1": W1, "W2": ((5, 0), (0, 0))},
        ["late_movement"],
    ),
    "a shortfall of one part takes the whole line back": (
        lambda: ordered().stock("sale", "W1", "CUP", 5),
        {"W1": ((5, 0), (4, 0)), "W2": W2},
        ["shortfall"],
    ),
    "the newest first, plain or of a kit, and no more than it must": (
        lambda: ordered().order("p", ("LID", 1)).order("q", ("CUP", 4)).stock("sale", "W1", "CUP", 2),
        {"W1": ((8, 6), (4, 4)), "W2": W2},
        ["shortfall"],
    ),
    "what is taken back for the cups is enough for the lids": (
        lambda: shop().order("o", ("BOX", 2)).order("p", ("BOX", 2)).stock("sale", "W1", "BOX", 2),
        {"W1": ((6, 4), (2, 2)), "W2": W2},
        ["shortfall"],
    ),
}


def line(sku: str, units: int) -> dict:
    return {"line_id": "l0", "sku": sku, "quantity": units}


@in_batches
@pytest.mark.parametrize(("tell", "expected", "alerts"), STORIES.values(), ids=STORIES)
def test_a_kit_is_its_parts(tell, expected, alerts, size):
    ending = tell().run(size)
    assert (books(ending), raised(ending), ending.reasons()) == (expected, alerts, [])


def test_a_decision_names_the_kit_and_its_parts():
    ending = shop().order("o", ("BOX", 3), ("CUP", 1), ("BOX", 2)).run(1)
    (sent,), decision = ending.last("o")["shipments"], ending.last("o")
    boxes = lambda units: [{"sku": "CUP", "quantity": 2 * units}, {"sku": "LID", "quantity": units}]  # noqa: E731
    assert sent["lines"] == [
        {"line_id": "l0", "sku": "BOX", "quantity": 3, "parts": boxes(3)},
        {"line_id": "l1", "sku": "CUP", "quantity": 1},
    ]
    (waits,) = decision["unallocated"]
    assert (waits["line_id"], waits["sku"], waits["quantity"], waits["parts"]) == ("l2", "BOX", 2, boxes(2))


def test_the_example_of_the_docs():
    story = (
        Story("W1").kit("GIFT-BOX", ("MUG", 2), ("TEA", 1)).stock("receipt", "W1", "MUG", 10).stock("receipt", "W1", "TEA", 4)
    )
    steps = [
        lambda: story.order("a", ("GIFT-BOX", 3)),
        lambda: story.order("b", ("MUG", 5)),
        lambda: story.order("c", ("GIFT-BOX", 2)),
        lambda: story.answer("shipped", "a", shipment(1), "W1", **of(1)),
        lambda: story.cancelled("a", **of(1)),
        lambda: story.stock("sale", "W1", "GIFT-BOX", 1),
        lambda: story.stock("receipt", "W1", "TEA", 1),
    ]
    page = (Path(__file__).parents[2] / "docs/products.md").read_text()
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in page.splitlines() if row.count("|") == 5]
    ending = story.run(1)
    for (what, mugs, teas, _), step in zip(rows[2:], steps, strict=True):
        step()
        ending = go_on(ending, story, 1)
        found = [ending.cell("W1", sku)[:2] for sku in ("MUG", "TEA")]
        assert [mugs, teas] == [f"{on_hand}, {reserved}" for on_hand, reserved in found], what
    assert [len(ending.last(order)["unallocated"]) for order in "abc"] == [0, 1, 0]


# What a kit is made of is settled when its line is made.

SMALL = kit(("CUP", 1))


def redefined(story: Story, value: dict | None = SMALL) -> Ending:
    """What a story came to, and then a box is something else."""
    return change_places(story.run(1), product("BOX", 1, value))


def test_a_line_stays_what_it_was_when_it_was_made():
    story = ordered()
    ending = go_on(redefined(story), story.answer("shipped", "o", shipment(1), "W1", **of(2)), 1)
    assert books(ending) == {"W1": ((6, 2), (2, 1)), "W2": W2}
    ending = go_on(ending, story.answer("returned", "o", shipment(1), "W1", **of(1)).order("p", ("BOX", 5)), 1)
    assert books(ending) == {"W1": ((8, 7), (3, 1)), "W2": W2}
    assert ending.last("p")["shipments"][0]["lines"][0]["parts"] == [{"sku": "CUP", "quantity": 5}]


def test_a_change_of_an_order_keeps_its_lines_and_takes_new_ones_as_they_are_now():
    story = ordered()
    ending, new = redefined(story), {"line_id": "m", "sku": "BOX", "quantity": 3}
    ending = go_on(ending, story.tell("orders.v1", kind="changed", order_id="o", lines=[line("BOX", 2), new]), 1)
    assert books(ending) == {"W1": ((10, 4 + 3), (4, 2)), "W2": W2}
    ending = go_on(ending, story.answer("shipped", "o", shipment(2), "W1", lines=[{"sku": "BOX", "quantity": 3}]), 1)
    assert books(ending) == {"W1": ((7, 4), (4, 2)), "W2": W2}, "a SKU without a line is the shipment's"


def test_a_line_waits_for_the_parts_it_was_made_of():
    story = shop().order("o", ("BOX", 5))
    ending = go_on(redefined(story, None), story.stock("receipt", "W1", "LID", 1), 1)
    assert books(ending) == {"W1": ((10, 10), (5, 5)), "W2": W2}


def test_a_line_stays_plain_though_its_sku_becomes_a_kit():
    story = Story("W1", "W2").order("o", ("BOX", 3))
    ending = change_places(story.run(1), product("BOX", 0, kit(*BOX)))
    ending = go_on(ending, story.stock("receipt", "W1", "BOX", 3).answer("shipped", "o", shipment(2), "W1"), 1)
    assert ending.cells()["W1", "BOX"]["on_hand"] == 0 and ("W1", "CUP") not in ending.cells()


def test_a_hold_keeps_its_kit_when_it_is_confirmed():
    story = shop().order("o", ("BOX", 3), kind="held", expires_at=START_MS + 90_000)
    assert books(go_on(redefined(story), story.order("o", ("BOX", 3)), 1)) == {"W1": PROMISED, "W2": W2}


# Bounds


@in_batches
def test_an_order_that_names_more_skus_by_its_kits_than_a_pool_may_have_is_refused_whole(size):
    story = Story("W1", max_skus=3).kit("BOX", *BOX).kit("SET", ("PEN", 1)).order("o", ("BOX", 1))
    refuses(story.order("p", ("BOX", 1), ("SET", 1)), size, "too_many_skus")


@in_batches
@pytest.mark.parametrize("kind", ["sale", "return"])
def test_a_till_that_would_move_a_part_beyond_all_bounds_is_refused_whole(kind, size):
    refuses(shop().stock(kind, "W1", "BOX", 600_000_000), size, "out_of_range")


@in_batches
def test_a_fact_that_would_make_a_cell_too_many_is_refused_whole(size):
    story = Story("W1", max_cells=2).kit("BOX", *BOX).stock("receipt", "W1", "PEN", 1)
    refuses(story.answer("shipped", "?", "x", "W1", lines=[{"sku": "BOX", "quantity": 1}]), size, "too_many_cells")


@in_batches
def test_the_largest_kits_in_a_large_order_find_room(size):
    parts = [(f"P{number}", 1 + number % 3) for number in range(50)]
    story = Story("W1").kit("ALL", *parts)
    for sku, units in parts:
        story.stock("receipt", "W1", sku, 60 * units)
    story.order("o", *[("ALL", 1)] * 60).answer("rejected", "o", shipment(1), "W1", missing=True)
    ending = story.answer("returned", "o", shipment(1), "W1", lines=[{"sku": "ALL", "quantity": 60}]).run(size)
    assert {cell["on_hand"] for cell in table(ending.state).values()} == {60, 120, 180}
    assert {cell["reserved"] for cell in table(ending.state).values()} == {0}


def test_a_restored_pool_goes_on_as_if_it_had_never_stopped():
    story = ordered().order("p", ("BOX", 2)).order("q", ("LID", 1)).answer("rejected", "o", shipment(1), "W1", **of(1))
    ending = story.run(1)
    restored = InventoryPipeline(0, 1, settings())
    for outcome in ending.outcomes:
        restored.restore(outcome.changelog, outcome.link)
    restored.seal()
    assert digest(restored.pools[b"uk"]) == digest(ending.state)
    story.stock("sale", "W1", "LID", 2).stock("receipt", "W1", "LID", 9).cancelled("o").stock("receipt", "W1", "CUP", 1)
    ends = [go_on(Ending(each, ending.outcomes), story, 1) for each in (ending.pipeline, restored)]
    assert ends[0].decisions == ends[1].decisions
    assert digest(ends[0].state) == digest(ends[1].state)
