"""Each benchmark runs at its small size and finds its answers right; how fast is no test's matter."""

import importlib
import json
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from benchmarks import answers, end_to_end, fleet, harness, latency, restart
from benchmarks.cluster import POOL
from benchmarks.harness import WrongAnswer
from streams.audit import Report
from streams.cli import build_app
from streams.cli.bench import MODULES


@pytest.fixture(scope="module")
def result() -> dict:
    """The end-to-end benchmark's answer, as JSON has it."""
    return json.loads(json.dumps(end_to_end.run("smoke")))


def test_end_to_end_decides_every_order_once_and_audits_clean(result):
    shape = end_to_end.SIZES["smoke"]
    orders = shape.warm_up + shape.rounds * shape.orders
    assert result["correct"] is True
    assert result["checks"]["decisions"] == sum(result["checks"]["statuses"].values()) == orders
    assert result["checks"]["statuses"]["allocated"] > 0.9 * orders
    assert result["checks"]["audit"] == {"faults": 0, "events": orders + shape.shop.skus * shape.shop.cells_per_sku}


def test_end_to_end_compares_like_with_like(result):
    assert result["loop"]["events"] == result["worker"]["events"]
    assert result["checks"]["agrees"]["manual"] >= end_to_end.AGREEMENT
    assert result["checks"]["manual_waiting"] > 0  # agreement on what can't be promised, too
    assert result["ratios"].keys() == {"loop", "manual"}
    for name in ("worker", "loop", "manual"):
        assert result[name]["events_per_s"] > 0


def test_end_to_end_puts_every_figure_into_words(result):
    text = "\n".join(end_to_end.lines(result))
    for shown in ("nearshelf's worker, exactly once", "bare librdkafka loop", "Faust's manual's way", "commit thread", "audit"):
        assert shown in text


class _Message:
    def __init__(self, value):
        self._value = value

    def key(self):
        return b"key"

    def value(self):
        return json.dumps(self._value).encode()


class _Topics:
    """What a worker is said to have decided: (sequence, order number)s."""

    settings = SimpleNamespace(partitions=1, click_partitions=1)

    def __init__(self, decisions, dead_letters=0, source="orders.v1"):
        self._decisions, self._dead_letters, self._source = decisions, dead_letters, {"topic": source}

    def read(self, topic, start=0, partition=0):
        for sequence, order in self._decisions if topic == "allocations.v1" else []:
            decision = {"pool_id": POOL, "sequence": sequence, "order_id": f"o{order:09}", "status": "allocated"}
            yield _Message(decision | {"shipments": [], "source": self._source})

    def end(self, topic, partition=0):
        return self._dead_letters


@pytest.mark.parametrize(
    ("topics", "found"),
    [
        (_Topics([(1, 0), (2, 1), (3, 1)]), "decision 3"),  # one order twice
        (_Topics([(1, 0), (3, 1), (4, 2)]), "decision 2"),  # a gap
        (_Topics([(1, 0), (2, 1)]), "2 of 3 orders"),  # one missing
        (_Topics([(1, 0), (2, 1), (3, 2)], dead_letters=1), "refused 1"),
    ],
)
def test_wrong_answers_are_refused(topics, found):
    with pytest.raises(WrongAnswer, match=found):
        answers.decisions(topics, 3)
        answers.check_refused(topics)


def test_a_pools_decisions_are_not_anothers():
    with pytest.raises(WrongAnswer, match=r"decision 1: .*'other', 1"):
        answers.decisions(_Topics([(1, 0)]), 1, pool="other")


def test_a_decision_on_an_order_that_waited_is_allowed_where_stock_comes_later():
    topics = _Topics([(1, 7), (2, 8)], source="stock.v1")
    assert answers.decisions(topics, 0, waiting=True) == ({answers.LATER: 2}, [])
    with pytest.raises(WrongAnswer, match="decision 1"):
        answers.decisions(topics, 0)


def test_a_fault_of_the_audit_is_a_wrong_answer():
    assert answers.check_clean(Report()).clean
    with pytest.raises(WrongAnswer, match="2 faults, the first: a gap"):
        answers.check_clean(Report(fault_count=2, faults=["a gap"]))


def test_a_process_that_ends_is_told_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "print('no such topic'); raise SystemExit(3)"]
    process = fleet.Process("peer", command, tmp_path / "log")
    with pytest.raises(fleet.ProcessFailed, match=r"peer ended with 3.*\n.*no such topic"):
        process.await_that(lambda: False)


@pytest.mark.parametrize("name", sorted(set(MODULES.values())))
def test_a_benchmark_says_what_it_takes(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        harness.main(importlib.import_module(name))
    assert "--size" in capsys.readouterr().out


def test_an_answer_comes_with_what_it_takes_to_compare_it(capsys):
    class Benchmark:
        __spec__ = end_to_end.__spec__
        PACKAGES = ("numpy",)

        @staticmethod
        def run(size):
            return {"correct": False, "found": size}

        @staticmethod
        def lines(result):
            return [f"found {result['found']}"]

    assert harness.answer(Benchmark, "smoke", as_json=True) is False
    answer = json.loads(capsys.readouterr().out)
    assert answer["command"] == "python -m benchmarks.end_to_end --size smoke"
    assert answer["machine"]["cores"] >= 1
    assert answer["versions"].keys() == {"python", "numpy"}
    assert answer["found"] == "smoke"
    harness.answer(Benchmark, "smoke", as_json=False)
    assert capsys.readouterr().out.endswith("\n\nfound smoke\n")


@pytest.mark.parametrize("arguments", [["no-such"], ["end-to-end", "--size", "huge"]])
def test_bench_names_what_there_is(arguments):
    answer = CliRunner().invoke(build_app(), ["bench", *arguments])
    assert answer.exit_code == 2
    assert "expected one of" in answer.output


@pytest.mark.parametrize("name", ["kernel", "exactness"])  # end-to-end is above
def test_bench_answers_rightly_in_json(name):
    answer = CliRunner().invoke(build_app(), ["bench", name, "--json"])
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.output)
    assert found["correct"] is True
    assert found["command"].endswith(f"benchmarks.{name} --size smoke")


@pytest.mark.parametrize("name", MODULES)
def test_bench_finds_every_benchmark(name):
    module = importlib.import_module(MODULES[name])
    assert callable(module.run) and callable(module.lines) and module.PACKAGES


def test_a_restart_gives_back_every_table_from_snapshot_and_from_changelog():
    result = restart.run("smoke")
    assert result["correct"] is True
    assert [case["cells"] for case in result["results"]] == [20_000]
    assert "20,000" in restart.lines(result)[-1]


def test_latency_counts_every_sale_and_every_order_once():
    result = latency.run("smoke")
    (row,) = result["rows"]
    assert row["complete"]
    for kind in ("sale", "order"):
        assert 0 < row[kind][0] <= row[kind][-1]
    assert "committed, order" in "\n".join(latency.lines(result))
