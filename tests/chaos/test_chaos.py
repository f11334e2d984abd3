"""The machinery, small, on a real Kafka: a few faults of the cheap sorts, and a round that was tampered with.

The long runs are `make chaos-short` and `make chaos`.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from tests.chaos import report
from tests.chaos.nursery import Nursery
from tests.chaos.round import Options, Result, Round

CHEAP = ("after_produce", "after_commit", "kill", "zombie", "stop", "cut", "drop_answers", "flip_snapshot")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    found = Nursery()
    yield found
    found.close()


def run(nursery: Nursery, directory: Path, faults: int, kind: type[Round] = Round, names: tuple[str, ...] = CHEAP) -> Result:
    options = Options(seed=1, names=names, rate=150)
    return kind(1, options, nursery, directory / "round", {}).run(faults, 60.0)


def test_nothing_is_lost_or_done_twice_under_a_few_faults(nursery: Nursery, tmp_path: Path):
    result = run(nursery, tmp_path, 8)
    assert result.violations == []
    assert len(result.events) >= 8
    assert result.decisions > 0 and result.snapshots > 0 and result.owners == 4
    assert result.kept is None and not (tmp_path / "round").exists()
    assert any(event.recovery.seconds is not None for event in result.events)
    rows = {row["fault"]: row for row in report.rows([result])}
    assert rows["all"]["times"] == sum(row["times"] for name, row in rows.items() if name != "all") >= 8
    json_path, markdown_path = report.write(tmp_path, [result], "a test")
    assert json_path.exists() and "| all |" in markdown_path.read_text()


class Tampered(Round):
    """Someone else writes to the topics when all have stopped."""

    def _stop_all(self) -> None:
        super()._stop_all()
        config = {"bootstrap.servers": self.cluster.address, "log_level": 0}
        partition, messages = next(
            (partition, found) for partition in range(4) if (found := list(self.cluster.messages("allocations.v1", partition)))
        )
        again = Producer(config)
        again.produce("allocations.v1", messages[-1].value(), messages[-1].key(), partition)
        again.flush(10)
        self.never_ended = Producer(config | {"transactional.id": "meddler"})
        self.never_ended.init_transactions(10)
        self.never_ended.begin_transaction()
        self.never_ended.produce("inventory.v1", b"{}", b"a/b", 0)
        self.never_ended.flush(10)
        group = Consumer(config | {"group.id": self.settings.app_id})
        for _ in range(20):  # until the last worker is no member any more
            with contextlib.suppress(KafkaException):
                group.commit(offsets=[TopicPartition("orders.v1", partition, 1)], asynchronous=False)
                break
            time.sleep(0.5)
        group.close()
        worker = next(worker for worker in self.crew.workers if worker.digests())
        with open(worker.log, "a") as log:
            log.write(f'inventory-changelog.v1-{partition} at batch 999999: {{"north": "0"}}\n')


def test_a_round_that_was_tampered_with_is_found_out(nursery: Nursery, tmp_path: Path):
    result = run(nursery, tmp_path, 1, Tampered, ("stop",))
    for said in (
        "was there already",
        "audit: ",
        "a transaction hangs: ('inventory.v1', 0)",
        "the group's offsets are not the inputs' ends",
        "digests differ",
    ):
        assert any(said in what for what in result.violations), (said, result.violations)
    assert result.kept == tmp_path / "round"
