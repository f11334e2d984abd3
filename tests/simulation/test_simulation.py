"""Some seeds of the simulation, and proof that it finds what it is there to find: the product without one of its guards fails.

`make simulate` runs many more.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streams.inventory import pipeline as inventory
from streams.worker import flow, owner, recovery, snapshots, transactions
from streams.worker.chain import Chain
from tests.simulation import kafka
from tests.simulation.many import Total, run_seeds
from tests.simulation.run import Result
from tests.simulation.worker import installed
from topics.codec.records import Records

SEEDS = 100
ENOUGH = 400
"""Seeds in which the simulation must have found a missing guard."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    import gc
    import logging

    logging.disable(logging.NOTSET)
    gc.enable()


def first_violation(seeds: range) -> tuple[int, str] | None:
    """Run seeds until one finds something."""
    for result in run_seeds(seeds):
        if result.problems:
            return result.seed, result.problems[0]
    return None


def test_nothing_is_lost_doubled_or_oversold_whatever_goes_wrong():
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(SEEDS), "--processes", "2"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-8_000:] + found.stderr[-2_000:]


def test_a_seed_gives_the_same_run_again():
    first, second = (list(run_seeds(range(7, 19))) for _ in range(2))
    assert [(result.digest, result.switches, result.faults) for result in first] == [
        (result.digest, result.switches, result.faults) for result in second
    ]


def test_a_violation_is_printed_with_its_seed_and_the_command_that_replays_it(capsys: pytest.CaptureFixture):
    Total().add(Result(123, problems=["audit: a fault"]))
    printed = capsys.readouterr().out
    assert "audit: a fault" in printed and "make simulate SEED=123" in printed


@pytest.fixture(scope="module")
def sound() -> None:
    """With all its guards the product has nothing to be found: what is found without one is that one's."""
    assert first_violation(range(12)) is None


# Each takes one guard away.


def _no_fencing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new producer leaves the former's epoch in force."""

    def init_producer(self: kafka.Cluster, name: str, timeout_s: float) -> int:
        producer = self.producers.setdefault(name, kafka.Producer())
        producer.epoch, producer.timeout_s = max(producer.epoch, 0), timeout_s
        return producer.epoch

    monkeypatch.setattr(kafka.Cluster, "init_producer", init_producer)


def _doubt_is_success(monkeypatch: pytest.MonkeyPatch) -> None:
    real = transactions.PartitionProducer.commit

    def commit(self: Any, *given: Any) -> dict:
        try:
            return real(self, *given)
        except transactions.Doubt:
            return {}

    monkeypatch.setattr(transactions.PartitionProducer, "commit", commit)


def _doubt_is_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in doubt is sent again by the same producer."""
    real = transactions.PartitionProducer.commit

    def commit(self: Any, outcome: Any, turn: Any, before: Any) -> dict:
        for _ in range(5):
            try:
                return real(self, outcome, turn, before)
            except transactions.Doubt:
                turn.offered, turn.written = transactions.Future(), transactions.Future()
        return real(self, outcome, turn, before)

    monkeypatch.setattr(transactions.PartitionProducer, "commit", commit)


def _lanes_loose(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A batch does not wait until the one before it is `written`, or `committed`."""

    def commit(self: Any, outcome: Any) -> Any:
        turn, before = transactions.Turn(), self._last
        if before is not None:
            loose = transactions.Turn()
            loose.written, loose.committed = before.written, before.committed
            setattr(loose, what, transactions.Future())
            getattr(loose, what).set_result(None)
            before = loose
        self._committers[self._count % transactions.LANES].commit(outcome, turn, before)
        self._count, self._last = self._count + 1, turn
        return turn.committed

    monkeypatch.setattr(transactions.Lanes, "commit", commit)


def _records_overtake(monkeypatch: pytest.MonkeyPatch) -> None:
    _lanes_loose(monkeypatch, "written")


def _commits_overtake(monkeypatch: pytest.MonkeyPatch) -> None:
    _lanes_loose(monkeypatch, "committed")


def _one_lane_is_fenced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new owner's second lane has a name of its own."""
    made = itertools.count()
    monkeypatch.setattr(transactions, "lane_id", lambda name, lane: f"{name}-lane-{lane}-{next(made)}" if lane else name)


def _overlaps_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies below the next offset is processed again."""
    monkeypatch.setattr(Records, "at_least", lambda self, _: self)


def _gaps_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = flow.PartitionFlow.offer

    def offer(self: Any, fetched: Any) -> bool:
        if fetched.topic in self._positions:
            self._positions[fetched.topic] = max(self._positions[fetched.topic], fetched.start)
        return real(self, fetched)

    monkeypatch.setattr(flow.PartitionFlow, "offer", offer)


def _state_survives_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a commit that failed, the flow goes on with the state that is ahead of the log."""
    real = flow.PartitionFlow._restore

    def restore(self: Any) -> Any:
        former = self._pipeline
        pipeline, positions, source = real(self)
        return (former or pipeline), positions, source

    monkeypatch.setattr(flow.PartitionFlow, "_restore", restore)


def _uncommitted_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers see records of transactions that are open or aborted."""
    real = kafka.Partition.read

    def read(self: kafka.Partition, start: int, count: int, committed: bool = True) -> Any:
        return real(self, start, count, committed and self.topic != "inventory-changelog.v1")

    monkeypatch.setattr(kafka.Partition, "read", read)


def _duplicates_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered of the events that were."""
    real = inventory.InventoryPipeline.process

    def process(self: Any, *given: Any) -> Any:
        for state in self.pools.values():
            state._arrays["seen_index"][:] = -1
        return real(self, *given)

    monkeypatch.setattr(inventory.InventoryPipeline, "process", process)


def _foreign_snapshots_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_prove", lambda *_: None)
    monkeypatch.setattr(Chain, "take", _unproven(Chain.take))


def _links_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chain, "take", _unproven(Chain.take))


def _unproven(real: Callable) -> Callable:
    def take(self: Any, message: Any) -> Any:
        headers = dict(message.headers() or ())
        from streams.worker import chain

        found = chain.next_link
        chain.next_link = lambda *_: bytes.fromhex(headers["link"].decode())
        try:
            return real(self, message)
        finally:
            chain.next_link = found

    return take


def _anybody_may_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks whose the topics are."""
    monkeypatch.setattr(owner, "check", lambda *_: None)
    monkeypatch.setattr(snapshots, "check", lambda *_: None)


def _offsets_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery takes the group's offsets without a look at the changelog's."""

    def read_positions(restored: dict, committed: dict, ranges: dict, expendable: Any = ()) -> dict:
        return {topic: committed.get(topic, restored.get(topic, first)) for topic, (first, _) in ranges.items()}

    monkeypatch.setattr(recovery, "read_positions", read_positions)


GUARDS = [
    _no_fencing,
    _doubt_is_success,
    _doubt_is_failure,
    _records_overtake,
    _commits_overtake,
    _one_lane_is_fenced,
    _overlaps_are_taken,
    _gaps_are_taken,
    _state_survives_doubt,
    _uncommitted_is_folded,
    _duplicates_count,
    _foreign_snapshots_are_loaded,
    _links_are_not_checked,
    _offsets_are_not_compared,
    _anybody_may_take_over,
]


@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize("remove", GUARDS, ids=lambda remove: remove.__name__.strip("_"))
def test_a_missing_guard_is_found(remove: Callable, monkeypatch: pytest.MonkeyPatch):
    with installed():  # before the guard goes: what it replaces is put back after it
        remove(monkeypatch)
        found = first_violation(range(ENOUGH))
        monkeypatch.undo()
    assert found is not None, f"{ENOUGH} seeds found nothing"
