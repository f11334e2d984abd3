"""The digest is another whenever something differs that decides a further answer, and the same whatever the rows' numbers."""

import numpy as np
import pytest

from state import columns
from state.digest import digest
from streams.inventory.pipeline import InventoryPipeline
from tests.complaints.story import Story, shipment
from tests.golden.logs import CLICK_RECORDS, clicks_pipeline, make_clicks, play_clicks
from tests.inventory_log import make_log, play, settings
from topics.reasons import ShipmentKind

SCHEMAS = {"pool": InventoryPipeline.schema, "clicks": clicks_pipeline().schema}
DIGESTED = [
    (what, table.name, column)
    for what, schema in SCHEMAS.items()
    for table in schema.tables.values()
    for column, role in table.roles.items()
    if role.digested
]


@pytest.fixture(scope="module")
def states():
    """A pool and the clicks of a long log, with rows in every table."""
    pipeline = InventoryPipeline(0, 1, settings(closed_order_days=1))
    play(pipeline, make_log(4, 1_200, closed_order_days=1), 50)
    clicks = clicks_pipeline()
    play_clicks(clicks, make_clicks(4, CLICK_RECORDS), 50)
    return {"pool": pipeline.pools[b"uk"], "clicks": clicks.state}


@pytest.mark.parametrize(("what", "table", "column"), DIGESTED, ids=[".".join(each) for each in DIGESTED])
def test_a_column_that_differs_in_one_row_is_seen(states, what, table, column):
    """Each column is seen, but for those that the schema names as internal: so a new one is, or is named."""
    state, role = states[what], SCHEMAS[what].tables[table].roles[column]
    before, rows = digest(state), ({"pool": np.array([0])} | state.counting()[0])[table]
    if role.size:  # a part of a kit has no text of its own
        rows = rows[state.table(table)[role.size][rows] > 0]
    assert rows.size, f"no row in {table}: the log above shows nothing"
    row, values = int(rows[-1]), state.table(table)[column]
    former = values[row].copy()
    if role.table:
        values[row] = -1 if former >= 0 else 0
    else:  # a time forgotten counts if it is the latest
        values[row] += 10**13 if column == "forgotten" else 1
    after = digest(state)
    values[row] = former
    assert after != before == digest(state)


@pytest.mark.parametrize(("what", "moved"), [("pool", "locations"), ("pool", "skus"), ("pool", "cells"), ("clicks", "rows")])
def test_the_rows_numbers_are_not_seen(states, what, moved):
    state = states[what]
    before, count = digest(state), state.count(moved)
    numbers = np.random.default_rng(1).permutation(count)  # row i goes to numbers[i]
    assert count > 2
    kept = {}
    for table in SCHEMAS[what].tables.values():
        array = state.table(table.name)
        kept[table.name] = array.copy()
        for column, role in table.roles.items():
            if role.table == moved:
                there = (array[column] >= 0) & (array[column] < count)
                array[column][there] = numbers[array[column][there]]
    rows = state.table(moved)
    rows[numbers] = rows[:count].copy()
    moved_rows, after = rows[:count].tolist(), digest(state)
    for name, array in kept.items():
        state.table(name)[:] = array
    assert moved_rows != rows[:count].tolist()
    assert after == before == digest(state)


def test_two_worlds_whose_order_goes_elsewhere_differ():
    """The order waits: nothing but its destination is another."""
    one, other = (Story("A").order("o", ("X", 1), near=latitude).run(9) for latitude in (50.0, 51.0))
    assert one.last("o") == other.last("o")
    assert digest(one.state) != digest(other.state)


def test_two_worlds_one_of_which_remembers_a_refusal_differ():
    """Both have the unit in A and the order waiting; in one of them A has refused it and is not asked again."""
    story = Story("A").stock("receipt", "A", "X", 1).order("o", ("X", 1))
    state = story.answer("rejected", "o", shipment(1), "A", reason="broken").run(9).state
    assert state.rows("lines")["state"].tolist() == [columns.DROPPED, columns.WAITING]
    before, order = digest(state), state.rows("orders")
    assert order["refusal"].tolist() == [0]
    order["refusal"] = -1
    assert digest(state) != before


def test_two_worlds_that_ship_and_transfer_differ():
    story = Story("A", "B").stock("receipt", "A", "X", 1)
    state = story.order("o", ("X", 1), mode="pickup", pickup_location_id="B").run(9).state
    before, line = digest(state), state.rows("lines")
    assert line["shipment_kind"].tolist() == [ShipmentKind.TRANSFER]
    line["shipment_kind"] = ShipmentKind.SHIP
    assert digest(state) != before


def test_two_worlds_that_heard_of_their_locations_in_another_order_are_the_same():
    found = []
    for turned in (False, True):
        story = Story("A", "B", "C")
        story.log.locations.sort(key=lambda change: change.offset, reverse=turned)
        story.stock("receipt", "A", "X", 1).stock("receipt", "C", "X", 2).order("o", ("X", 2), near=51.0)
        found.append(story.order("p", ("X", 1), mode="pickup", pickup_location_id="B").run(9).state)
    rows = [[state.text(row["id_at"], 1) for row in state.rows("locations")] for state in found]
    assert rows == [[b"A", b"B", b"C"], [b"C", b"B", b"A"]]
    assert digest(found[0]) == digest(found[1])
