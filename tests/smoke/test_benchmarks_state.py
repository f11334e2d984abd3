"""The benchmarks of the state and of mixes run at their small size and find their answers right; so does running several."""

import json
from collections import Counter

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import mixes, state
from benchmarks.harness import WrongAnswer
from benchmarks.stocked import POOL, stock
from config.settings import load_settings
from streams.audit import Report
from streams.cli import build_app
from streams.cli.bench import MODULES, chosen
from streams.inventory.pipeline import InventoryPipeline

BENCHMARK = """
import sys
from benchmarks import harness

PACKAGES = ()


def run(size):
    {run}


def lines(result):
    return ["found " + result["found"]]


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
"""


def _bench(*arguments):
    return CliRunner().invoke(build_app(), ["bench", *map(str, arguments)])


def _stocked(cells, kind):
    pipeline = InventoryPipeline(0, 1, load_settings())
    for _ in stock(pipeline, cells, kind, state.UNITS):
        pass
    return pipeline.pools[POOL]


@pytest.fixture(scope="module")
def answer() -> dict:
    """The state benchmark's answer, as JSON has it."""
    return json.loads(json.dumps(state.run("smoke")))


def test_state_measures_each_number_of_cells_stocked_both_ways(answer):
    assert answer["correct"] is True
    assert [(case["cells"], case["kind"]) for case in answer["cases"]] == [
        (cells, kind) for cells in state.SIZES["smoke"].cells for kind in ("receipt", "count")
    ]
    for case in answer["cases"]:
        cells = case["arrays"]["cells"]
        assert cells["is"] == "table" and 0 < cells["used"] <= cells["allocated"]
        assert all(array["used"] <= array["allocated"] for array in case["arrays"].values())
        assert (case["arrays"]["movements"]["used"] > 0) is (case["kind"] == "receipt")  # a count is no movement


def test_state_puts_bytes_speed_and_growth_into_words(answer):
    text = "\n".join(state.lines(answer))
    for shown in ("cell_index", "stocked by", "expected at most 40 at 10,000,000", "µs an order", "10 times the cells", "Zipf"):
        assert shown in text
    assert "MISSED" not in text  # nor met: a goal for ten million cells is not judged on thousands


def test_state_judges_its_goal_at_ten_million_cells():
    def case(bytes_a_cell):
        size = bytes_a_cell * state.GOAL_CELLS
        return {
            "cells": state.GOAL_CELLS,
            "kind": "count",
            "rss_bytes": size,
            "arrays": {"cells": dict(used=1, allocated=size)},
        }

    assert state._verdict(case(40)).endswith(": met")
    assert state._verdict(case(41)).endswith(": MISSED")


@pytest.mark.parametrize("kind", ["receipt", "count"])
def test_state_finds_a_cell_with_other_units(kind):
    pool, none_moved = _stocked(700, kind), np.zeros(700, np.int64)
    state._check_units(pool, none_moved)
    pool.rows("cells")["on_hand"][3] += 1
    with pytest.raises(WrongAnswer, match="1 have other units"):
        state._check_units(pool, none_moved)
    with pytest.raises(WrongAnswer, match="expected 699 cells, found 700"):
        state._check_units(pool, none_moved[1:])


def test_mixes_commit_every_event_once_and_audit_clean():
    shape, result = mixes.SIZES["smoke"], json.loads(json.dumps(mixes.run("smoke")))
    assert result["correct"] is True
    assert result["mixes"].keys() == mixes.SHARES.keys()
    opening = shape.shop.skus * shape.shop.cells_per_sku
    assert sum(result["checks"]["events"].values()) == opening + (1 + shape.rounds) * sum(shape.events.values())
    assert result["checks"]["order_lines"] > 10 * result["checks"]["orders"] > 0
    for mix, found in result["mixes"].items():
        assert found["events"] == shape.events[mix] and found["events_per_s"] > 0
        assert (found["lines_an_event"] > 1) is ("orders.v1" in mixes.SHARES[mix])
    text = "\n".join(mixes.lines(result))
    for name in mixes.NAMES.values():
        assert f"{name}:" in text


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"fault_count": 1, "faults": ["a gap"]}, "1 faults, the first: a gap"),
        ({"events": Counter({"orders.v1": 2})}, "expected the events that were sent"),
        ({"outcomes": Counter(applied=2, duplicate=1)}, "duplicate"),
        ({"orders": 2}, "decided 2 of 3"),
    ],
)
def test_mixes_refuse_wrong_answers(told, found):
    right = {"events": Counter({"orders.v1": 3}), "outcomes": Counter(applied=3), "orders": 3}
    sent = Counter({"orders.v1": 3})
    mixes._check(Report(**right), sent)
    with pytest.raises(WrongAnswer, match=found):
        mixes._check(Report(**(right | told)), sent)


def test_one_benchmark_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, run in {
        "broken": 'raise RuntimeError("the shelf is empty")',
        "wrong": 'return {"correct": False, "found": "less"}',
        "right": 'return {"correct": True, "found": size}',
    }.items():
        (tmp_path / f"{name}_one.py").write_text(BENCHMARK.format(run=run))
        monkeypatch.setitem(MODULES, name, f"{name}_one")
    out = tmp_path / "out"
    out.mkdir()
    (out / "broken_one.json").write_text("of an earlier run")
    answer = _bench("right", "broken", "wrong", "--out", out)
    assert answer.exit_code == 1
    assert "wrong or failed: broken, wrong" in answer.output
    assert sorted(path.name for path in out.iterdir()) == [
        "broken_one.txt",
        "right_one.json",
        "right_one.txt",
        "wrong_one.json",
        "wrong_one.txt",
    ]
    assert "the shelf is empty" in (out / "broken_one.txt").read_text()
    assert json.loads((out / "right_one.json").read_text())["found"] == "smoke"
    assert (out / "right_one.txt").read_text().endswith("found smoke\n")
    assert _bench("right", "right", "--out", out).exit_code == 0


def test_all_leaves_out_what_takes_too_long_unless_it_is_named():
    every = chosen(["all"])
    assert set(every) == set(MODULES) - {"soak"}
    assert set(chosen(["soak", "all"])) == {*every, "soak"}
    assert chosen(["state", "kernel"]) == ["kernel", "state"]
