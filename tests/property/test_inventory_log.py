"""The same log gives the same decisions however it is cut; what the changelog carries gives the same state back."""

import random

import numpy as np
import orjson
import pytest

from state.digest import digest
from streams.batch.pipeline import LocationChange, Outcome
from streams.inventory.pipeline import InventoryPipeline
from tests.inventory_log import POOLS, latest, make_log, play, published, segments, settings

SMALL_WINDOWS = {"dedupe_events": 50, "dedupe_hours": 0, "count_horizon_hours": 1, "closed_order_days": 1}


def _pipeline(**changed) -> InventoryPipeline:
    return InventoryPipeline(0, 1, settings(**changed))


def _by_pool(decisions: list[dict]) -> dict[str, list[dict]]:
    return {pool: [decision for decision in decisions if decision["pool_id"] == pool] for pool in POOLS}


def _digests(pipeline: InventoryPipeline) -> dict[bytes, str]:
    return {key: digest(state) for key, state in pipeline.pools.items()}


def _restored(outcomes: list[Outcome], **changed) -> InventoryPipeline:
    pipeline = _pipeline(**changed)
    for outcome in outcomes:
        pipeline.restore(outcome.changelog, outcome.link)
    pipeline.seal()
    return pipeline


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("step_ms, changed", [(700, {}), (400_000, SMALL_WINDOWS)], ids=["defaults", "small windows"])
def test_a_batchs_cut_never_shows_in_a_result(seed, step_ms, changed):
    log = make_log(seed, 600, step_ms=step_ms, **changed)
    results = []
    for size in (1, 7, len(log.records)):
        pipeline = _pipeline(**changed)
        outcomes = play(pipeline, log, size)
        last = {(cell["location_id"], cell["sku"]): cell for cell in published(outcomes, "inventory.v1")}
        to_come = [latest(outcomes, topic) for topic in ("transfers.v1", "supplies.v1")]
        found = [_by_pool(published(outcomes, "allocations.v1")), published(outcomes, "dead-letter.v1"), last]
        results.append((*found, _digests(pipeline), to_come))
    assert results[0][0] and results[0][1] and results[0][2] and all(results[0][4])
    for other in results[1:]:
        assert other[0] == results[0][0]
        assert sorted(other[1], key=repr) == sorted(results[0][1], key=repr)
        assert other[2] == results[0][2]
        assert other[3:] == results[0][3:]


@pytest.mark.parametrize("seed", range(100, 112))
@pytest.mark.parametrize("step_ms, changed", [(700, {}), (400_000, SMALL_WINDOWS)], ids=["defaults", "small windows"])
def test_folding_the_deltas_gives_the_state(seed, step_ms, changed):
    log = make_log(seed, 600, step_ms=step_ms, **changed)
    pipeline = _pipeline(**changed)
    outcomes = play(pipeline, log, 13)
    assert _digests(_restored(outcomes, **changed)) == _digests(pipeline)


@pytest.mark.parametrize("seed", range(200, 206))
def test_a_pipeline_restored_in_mid_stream_decides_as_if_it_had_never_stopped(seed):
    log = make_log(seed, 600)
    whole = play(_pipeline(), log, 11)
    restored = _restored(whole[:30])
    rest = type(log)([], log.records[30 * 11 :])
    again = play(restored, rest, 11)
    for topic in ("allocations.v1", "inventory.v1", "dead-letter.v1"):
        assert published(again, topic) == published(whole[30:], topic)
    for topic in ("transfers.v1", "supplies.v1", "alerts.v1"):
        assert [outcome.outputs.get(topic) and list(outcome.outputs[topic]) for outcome in again] == [
            outcome.outputs.get(topic) and list(outcome.outputs[topic]) for outcome in whole[30:]
        ], topic
    assert [outcome.sequence for outcome in again] == [outcome.sequence for outcome in whole[30:]]


@pytest.mark.parametrize("seed", range(300, 306))
def test_a_skus_cells_lie_by_latitude_though_locations_move_and_after_a_restore(seed):
    log = make_log(seed, 600)
    pipeline, rng = _pipeline(), random.Random(seed)
    outcomes = []
    for at in range(0, len(log.records), 50):
        changes = log.locations
        if at:
            moved = rng.sample(log.locations, 2)
            where = {"latitude": rng.choice([50.0, 51.5, rng.uniform(50, 58)]), "longitude": rng.uniform(-5, 1)}
            changes = [
                LocationChange(0, 1_000 * at + i, each.timestamp, each.key, orjson.dumps(orjson.loads(each.value) | where))
                for i, each in enumerate(moved)
            ]
        outcomes.append(pipeline.process(pipeline.decode(segments(log.records[at : at + 50])), changes))
    found, restored = ({key: _blocks(state) for key, state in each.pools.items()} for each in (pipeline, _restored(outcomes)))
    assert found == restored
    for key, state in pipeline.pools.items():
        z = state.rows("locations")["z"]
        for sku, block in enumerate(found[key]):
            rows = np.flatnonzero(state.rows("cells")["sku"] == sku).tolist()
            places = {row: int(state.rows("cells")["location"][row]) for row in rows}
            assert block == sorted(places.items(), key=lambda each: (z[each[1]], each[0]))


def _blocks(state):
    links = state.t.sku_links[: state.count("skus")]
    return [
        [tuple(each.tolist()) for each in state.t.sku_cells[link["block_at"] : link["block_at"] + link["block_count"]]]
        for link in links
    ]
