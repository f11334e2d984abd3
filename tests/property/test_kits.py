"""Random histories in which kits share parts with each other and with plain lines, and become others all the time."""

from collections.abc import Iterator

import orjson
import pytest

from state.digest import digest
from streams.batch.pipeline import Outcome
from streams.inventory.pipeline import InventoryPipeline
from tests.complaints.ledger import Ledger
from tests.complaints.story import table
from tests.inventory_log import KITS, Log, make_log, published, segments, settings


def told(log: Log, pipeline: InventoryPipeline, ledger: Ledger) -> Iterator[tuple[int, Outcome]]:
    """Tell a log record by record to a pipeline and to the ledger, which has the same kits."""
    for number, record in enumerate(log.records):
        changes = log.later.get(number, [])
        outcome = pipeline.process(pipeline.decode(segments([record])), (log.changes if number == 0 else []) + changes)
        for change in changes:
            parts = orjson.loads(change.value)["kit"] if change.value else []
            ledger.kits[change.key.decode()] = tuple((part["sku"], part["quantity"]) for part in parts)
        refused = any(letter["topic"] == record.topic for letter in published([outcome], "dead-letter.v1"))
        ledger.fold(record, published([outcome], "allocations.v1"), refused)
        yield number, outcome


def cells_of(pipeline: InventoryPipeline) -> dict[tuple[str, str], dict]:
    return {name: cell for state in pipeline.pools.values() for name, cell in table(state).items()}


@pytest.mark.parametrize("seed", range(500, 512))
def test_after_each_event_the_books_are_those_of_the_parts_and_none_is_promised_twice(seed):
    log, pipeline, ledger = make_log(seed, 300, redefine=0.1), InventoryPipeline(0, 1, settings()), Ledger(dict(KITS))
    sent = 0
    for number, outcome in told(log, pipeline, ledger):
        cells = cells_of(pipeline)
        assert {name: cell["on_hand"] for name, cell in cells.items()} == {
            name: ledger.on_hand.get(name, 0) for name in cells
        }, number
        assert {name: cell["reserved"] for name, cell in cells.items() if cell["reserved"]} == ledger.reserved, number
        assert all(cell["reserved"] <= max(cell["on_hand"], 0) for cell in cells.values()), number
        for decision in published([outcome], "allocations.v1"):
            lines = [line for shipment in decision["shipments"] for line in shipment["lines"]] + decision["unallocated"]
            parts = [part["quantity"] % line["quantity"] for line in lines for part in line.get("parts", [])]
            assert not any(parts), "whole kits"
            sent += len(parts)
    assert sent > 50


@pytest.mark.parametrize("seed", range(520, 526))
def test_a_pipeline_restored_from_the_changelog_has_the_same_lines_and_goes_on_alike(seed):
    log, pipeline, ledger = make_log(seed, 300, redefine=0.1), InventoryPipeline(0, 1, settings()), Ledger(dict(KITS))
    restored = InventoryPipeline(0, 1, settings())
    for number, outcome in told(log, pipeline, ledger):
        if number < 150:
            restored.restore(outcome.changelog, outcome.link)
    restored.seal()
    rest = Log([], log.records[150:], later={number - 150: changes for number, changes in log.later.items() if number >= 150})
    for number, record in enumerate(rest.records):
        restored.process(restored.decode(segments([record])), rest.later.get(number, []))
    assert {key: digest(state) for key, state in restored.pools.items()} == {
        key: digest(state) for key, state in pipeline.pools.items()
    }
