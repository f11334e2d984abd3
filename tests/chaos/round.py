"""One round: a fresh broker, fresh topics, workers, load and reader; faults one upon another; rest; checks.

A round is independent of every other: its seed is the run's and its number, its data is in a directory of its own, which is
kept if anything is wrong. What is chosen follows from the seed; what it meets does not, since the machine's timing has its say.
Not here: the faults (faults.py), what must hold at rest (rest.py), the table (report.py).
"""

import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from heapq import heappop, heappush
from itertools import count
from pathlib import Path

from config.settings import load_settings
from streams.kafka.create import create_topics
from streams.worker.failpoints import FAIL_POINTS
from tests.chaos import faults, rest
from tests.chaos.cluster import Cluster
from tests.chaos.load import PARTITIONS, POOLS, Load, Shop, write_network
from tests.chaos.nursery import Nursery
from tests.chaos.watch import Reader, Recovery, Watch
from tests.chaos.workers import Crew, Place, Worker, point_of
from topics.keys import partition_of

PLACES = 4
AT_START = 3
STEP_S = 0.02
MOST = 0.6
AT_REST = "at rest"
READY_S = 60.0
RECOVERED_S = 90.0
LEFT_S = 60.0
STARTED_S = 60.0
UNREACHABLE = 3  # exit status of a worker that finds no broker when it starts: whoever runs it starts it again
REFUSED = 2
# Short, so that a dead worker is missed soon and a dead transaction does not hold up readers; batches small, so there are many.
OWN = {
    "session_timeout_ms": 2_000,
    "heartbeat_ms": 500,
    "transaction_timeout_ms": 10_000,
    "request_timeout_ms": 5_000,
    "batch_rows": 200,
    "batch_age_ms": 20,
    "snapshot_interval_ms": 500,
    "digest_at_stop": "true",
}


@dataclass(slots=True)
class Event:
    """One fault that was done."""

    name: str
    at_ms: float
    partitions: tuple[int, ...]
    recovery: Recovery
    inside: bool = False


@dataclass(slots=True)
class Options:
    """What a run is asked for, as far as it concerns a round."""

    seed: int = 1
    names: tuple[str, ...] = faults.NAMES
    rate: float = 150.0
    gap_s: tuple[float, float] = (0.1, 1.0)
    """Time between two faults that are chosen, uniformly."""
    patience_s: float = 5.0
    """How long the next one waits for most pools to go on after the last."""
    impatient: float = 0.4
    """Share of faults that do not wait."""
    armed: float = 0.75
    """Share of workers that start with a fail point set."""
    keep: bool = False
    """Whether a round's data and logs stay even if nothing is wrong."""
    long: bool = True
    """Whether a paused broker may stay so for half a minute, not 6 s."""


@dataclass(slots=True)
class Result:
    """What came of a round."""

    number: int
    events: list[Event] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    blamed: Counter[str] = field(default_factory=Counter)
    """Fault after which, or `AT_REST`, → violations found then."""
    notes: list[str] = field(default_factory=list)
    decisions: int = 0
    records: int = 0
    seconds: float = 0.0
    rested_s: float = 0.0
    """From the last fault until everything was at rest."""
    checked_s: float = 0.0
    snapshots: int = 0
    """Snapshots on disk that were compared."""
    owners: int = 0
    """Partitions whose last owner's digest was."""
    kept: Path | None = None
    without_markers: list = field(default_factory=list)
    """Partitions in which the broker lost a transaction's markers, which ended the round (cluster.py)."""


class Round:
    """The state of a round that runs, as the faults see it."""

    def __init__(self, number: int, options: Options, nursery: Nursery, directory: Path, done: dict[str, int]):
        self.number = number
        self.options = options
        self.chance = random.Random(f"{options.seed}/{number}")
        self.session_s = OWN["session_timeout_ms"] / 1000
        self.long = options.long
        self.result = Result(number)
        self.directory = directory
        self._done = done
        """Fault → how often it was done in this run; the fail point done least is set next."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        write_network(directory / "network.yaml")
        self.cluster = Cluster(directory, PLACES)
        try:
            self._begin(nursery)
        except BaseException:
            self.cluster.close()
            raise

    def _begin(self, nursery: Nursery) -> None:
        self.settings = load_settings(
            bootstrap_servers=self.cluster.address,
            app_id=f"chaos-{self.options.seed}-{self.number}",
            network=self.directory / "network.yaml",
            data_directory=self.directory,
            partitions=PARTITIONS,
            click_partitions=PARTITIONS,
            **OWN,
        )
        create_topics(self.cluster.admin, self.settings)
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._away_until = 0.0
        self._disturbed: dict[int, float] = {}
        self._heard = 0
        self._resting = False
        self._ending: list[tuple[float, Worker]] = []
        self._refusing: list[tuple[float, Worker]] = []
        self._arming = any(name in FAIL_POINTS for name in self.options.names)
        self.crew = Crew(
            self.settings,
            nursery,
            [f"127.0.0.1:{proxy.port}" for proxy in self.cluster.proxies],
            self.directory,
        )
        if "disk_full" in self.options.names:
            refused = self.crew.places[0].mount()
            if refused is not None:
                self.result.notes.append(f"disk_full is left out: no tmpfs can be mounted here ({refused})")
        self.shop = Shop(f"{self.options.seed}/{self.number}")
        self.watch = Watch(self.shop.received, self.shop.learn)
        self.reader = Reader(self.cluster.address, self.watch, PARTITIONS)
        self.load = Load(self.cluster.address, self.shop, self.options.rate)

    # What faults use

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        heappush(self._later, (time.monotonic() + seconds, next(self._numbers), action))

    def start(self, place: Place) -> Worker:
        """Start a worker, perhaps one that is to die at a fail point."""
        fail_at = ""
        if self._arming and self.chance.random() < self.options.armed:
            points = [name for name in FAIL_POINTS if name in self.options.names]
            fewest = min(self._done.get(name, 0) + self._armed(name) for name in points)
            name = self.chance.choice([name for name in points if self._done.get(name, 0) + self._armed(name) == fewest])
            fail_at = f"{name}:{self.chance.choice((1, 2, 3, 5, 10, 20, 40, 80))}"
        return self.crew.start(place, fail_at, standby=self.chance.random() < 0.5)

    def _armed(self, name: str) -> int:
        return sum(point_of(worker) == name for worker in self.crew.alive())

    def restart_later(self, place: Place) -> None:
        place.restart_at = time.monotonic() + self.chance.choice((0.0, 0.0, 0.5, self.session_s + 1))

    def expect_end(self, worker: Worker, seconds: float) -> None:
        """Count it as a violation if this worker, told to stop, is still there then."""
        self._ending.append((time.monotonic() + seconds, worker))

    def expect_refusal(self, rival: Worker, seconds: float) -> None:
        """Count it as a violation if this worker of another `app_id` has not refused by then."""
        self._refusing.append((time.monotonic() + seconds, rival))

    def away_until(self, seconds: float) -> None:
        """The broker may not answer for so long: a worker that starts may find none."""
        self._away_until = max(self._away_until, time.monotonic() + seconds)

    def disturb(self, place: Place, seconds: float) -> None:
        """The same for the way of one worker to it."""
        self._disturbed[place.number] = time.monotonic() + seconds

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let the round go on until a condition holds; false if it does not within that time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.step()
            time.sleep(STEP_S)
        return True

    def note(self, what: str, at_ms: float | None = None) -> None:
        """Write a line to the round's diary, which is kept with the logs."""
        at = datetime.fromtimestamp(time.time() if at_ms is None else at_ms / 1000)
        with open(self.directory / "diary.log", "a") as diary:
            diary.write(f"{at:%Y-%m-%d %H:%M:%S},{at.microsecond // 1000:03} CHAOS {what}\n")

    # Its course

    def run(self, faults_wanted: int, seconds: float) -> Result:
        """Do so many faults, or as many as fit into that time, come to rest, check, and clear up."""
        started = time.monotonic()
        try:
            self._run(faults_wanted, started + seconds)
        except Exception as error:
            self._violate(f"the round broke off: {type(error).__name__}: {error}")
        finally:
            self.result.decisions, self.result.records = self.watch.decisions, self.load.sent
            self.close()
            self.result.seconds = time.monotonic() - started
        return self.result

    def _run(self, wanted: int, deadline: float) -> None:
        self.reader.start()
        for place in self.crew.places[:AT_START]:
            self.crew.start(place)
        if not self.wait(lambda: all(worker.ready() for worker in self.crew.alive()), READY_S):
            self._violate(f"no worker was ready within {READY_S:g} s")
            return
        self.load.start()
        self.wait(lambda: self.watch.decisions > 0, READY_S)
        if self._arming:  # those that started the round have none: one by one they make room for others
            for place in self.crew.places[:AT_START]:
                self.later(self.chance.uniform(0, 10), lambda place=place: self._replace(place))
        self._hurt(wanted, deadline)
        resting = time.monotonic()
        self.note("no more faults")
        self._come_to_rest()
        if self._all_stopped():
            self.result.rested_s = time.monotonic() - resting
            self._resting = True
            rest.check(self)
            self._hear()

    def _replace(self, place: Place) -> None:
        if place.worker is not None and place.worker.told is None and "stop" in self.options.names:
            self._record("stop", [place.worker])
            place.worker.stop()
            place.restart_at = time.monotonic()

    def _hurt(self, wanted: int, deadline: float) -> None:
        chosen = [name for name in faults.FAULTS if name in self.options.names]
        weights = [faults.FAULTS[name].weight for name in chosen]
        while len(self.result.events) < wanted and time.monotonic() < deadline:
            if chosen:
                self._hurt_once(self.chance.choices(chosen, weights)[0])
            if self.chance.random() >= self.options.impatient:
                self.wait(self._most_go_on, self.options.patience_s)
            self.wait(lambda: False, self.chance.uniform(*self.options.gap_s))

    def _most_go_on(self) -> bool:
        """Whether the pools hurt last have decisions again, most of them, and those hurt before."""
        recovering = self.watch.recovering()
        return not recovering or recovering[-1].share >= MOST

    def _hurt_once(self, name: str) -> None:
        at_ms = time.time() * 1000
        owned = {id(worker): worker.owned() for worker in self.crew.alive()}
        hit = faults.FAULTS[name].do(self)
        if hit is not None:
            self._record(name, hit, at_ms, owned)

    def _record(self, name: str, hit: list[Worker], at_ms: float | None = None, owned: dict | None = None) -> None:
        at_ms = time.time() * 1000 if at_ms is None else at_ms
        if name in faults.WHOLE_CLUSTER:
            partitions = tuple(range(PARTITIONS))
        else:
            partitions = tuple(sorted({p for worker in hit for p in (owned or {}).get(id(worker), worker.owned())}))
        pools = [pool for pool in POOLS if partition_of(pool.encode(), PARTITIONS) in partitions]
        self.result.events.append(Event(name, at_ms, partitions, self.watch.expect(at_ms, pools), name in faults.INSIDE))
        self._done[name] = self._done.get(name, 0) + 1
        self.note(
            f"{name} {[f'{worker.place.number}/{worker.log.name}' for worker in hit]}, partitions {list(partitions)}", at_ms
        )

    def step(self) -> None:
        """Do what is due: undo faults, notice deaths, start successors."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heappop(self._later)[2]()
        self.bury()
        self._hear()
        for place in self.crew.places:
            if place.worker is None and place.restart_at is not None and place.restart_at <= now:
                self.start(place)
        for due, worker in list(self._ending):
            if worker.child.poll() is not None:
                self._ending.remove((due, worker))
            elif now > due:
                self._ending.remove((due, worker))
                self._violate(f"a worker told to stop was still there after {faults.STOP_S:g} s: {worker.log}")

        for due, rival in list(self._refusing):
            status = rival.child.poll()
            if status is not None or now > due:
                self._refusing.remove((due, rival))
                refused = status == REFUSED and "belongs to the workers with app_id" in rival.log.read_text(errors="replace")
                if not refused and status != UNREACHABLE:
                    self._violate(f"a worker of another app_id should have refused to start, status {status}: {rival.log}")

    def bury(self) -> None:
        """Take note of the workers that ended: as they were to, or not."""
        for worker in self.crew.buried():
            status = worker.child.returncode
            if status == -signal.SIGKILL and worker.told == "killed":
                continue
            if status == -signal.SIGKILL and worker.fail_at:
                self._record(point_of(worker), [worker])
            elif status == UNREACHABLE and not worker.ready() and self._unreachable(worker.place):
                pass
            elif status == -signal.SIGTERM and worker.told == "stopped" and not worker.ready():
                pass  # told before it listens to that
            elif not (status == 0 and worker.told == "stopped"):
                self._violate(f"a worker ended with status {status}, told: {worker.told}: {worker.log}")
            if worker.told is None:
                self.restart_later(worker.place)

    def _unreachable(self, place: Place) -> bool:
        return time.monotonic() < max(self._away_until, self._disturbed.get(place.number, 0.0))

    def _come_to_rest(self) -> None:
        """No more faults: everything that is down comes up again, and all that was hurt must go on."""
        self._arming = False
        while self._later:
            heappop(self._later)[2]()
        for proxy in self.cluster.proxies:
            proxy.delay(0)
            proxy.drop_answers(False)
        for worker in self.crew.alive():
            if worker.fail_at:  # it might die of it before it has told its digest
                worker.stop()
                self.restart_later(worker.place)
        self.wait(lambda: all(place.restart_at is None for place in self.crew.places), STARTED_S)
        self.wait(lambda: not self._refusing, faults.STOP_S)
        if not self.wait(lambda: not self.watch.recovering(), RECOVERED_S):
            if self._broker_lost_markers():
                return
            late = self.watch.recovering()[0]
            name = next(event.name for event in self.result.events if event.recovery is late)
            self._violate(f"no recovery from {name} within {RECOVERED_S:g} s of rest: pools {sorted(late.pools)}")
        self.load.stop()
        for failure in self.load.failed[:3]:
            self.result.notes.append(f"load: {failure}")

    def _still(self) -> bool:
        """Wait until all that was sent is committed, and nothing more is coming."""
        if self.result.without_markers:
            return False
        limit, before = time.monotonic() + RECOVERED_S, None
        while time.monotonic() < limit:
            self.wait(lambda: False, 1.0)
            now = rest.offsets(self)
            if now is not None and now == before:
                return True
            before = now
        if not self._broker_lost_markers():
            self._violate(f"not at rest within {RECOVERED_S:g} s: {rest.lag(self)}")
        return False

    def _all_stopped(self) -> bool:
        """Stop all when nothing more is coming; once more if one wrote a tick on its way out, which nobody has read."""
        while self._still():
            self._stop_all()
            if {topic for topic, _ in rest.lag(self)} != {"ticks.v1"}:
                return True
            self.note("a tick was written as the workers stopped: one of them starts again to read it")
            self.crew.start(self.crew.places[0])
        return False

    def _broker_lost_markers(self) -> bool:
        self.result.without_markers = self.cluster.without_markers()
        if self.result.without_markers:
            self.result.notes.append(
                "ended, not checked: the broker completed transactions without their markers (KAFKA-20734), "
                f"so nobody can read on in {self.result.without_markers}"
            )
            self.note(self.result.notes[-1])
        return bool(self.result.without_markers)

    def _stop_all(self) -> None:
        for worker in self.crew.alive():
            worker.stop()
        for worker in [place.worker for place in self.crew.places if place.worker is not None]:
            if worker.child.wait(LEFT_S) is None:
                self._violate(f"a worker told to stop was still there after {LEFT_S:g} s: {worker.log}")
        self.bury()

    def _hear(self) -> None:
        """Take over what the reader has found."""
        while self._heard < len(self.watch.violations):
            self._heard += 1
            self._violate(self.watch.violations[self._heard - 1])

    def _violate(self, what: str) -> None:
        last = self.result.events[-1].name if self.result.events else AT_REST
        self.result.blamed[AT_REST if self._resting else last] += 1
        self.result.violations.append(what)
        self.note(f"VIOLATION {what}")

    violate = _violate

    def close(self) -> None:
        """End everything; keep the directory if something is wrong."""
        self.crew.end()
        if self.reader.is_alive():
            self.reader.stop()
        if self.reader.failure:
            self._violate(self.reader.failure)
        self.cluster.close()
        if self.result.violations or self.result.without_markers or self.options.keep:
            self.result.kept = self.directory
        else:
            shutil.rmtree(self.directory, ignore_errors=True)


def run_round(number: int, options: Options, directory: Path, done: dict[str, int], wanted: int, seconds: float) -> Result:
    """Run one round, in a process that has a nursery from an earlier one or gets its own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that broker and workers are ended, as by Ctrl-C
    return Round(number, options, _nursery(), directory, done).run(wanted, seconds)


@cache
def _nursery() -> Nursery:
    return Nursery()  # it ends with its parent
