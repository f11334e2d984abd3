"""One seed: a cluster, some workers, a shop, what goes wrong and when, and what must be true when all is at rest again.

`simulate(seed)` gives a `Result`; the same seed gives the same one. The seed draws which kinds of faults there are at all and
how often each strikes, so that some runs see one kind in every combination with itself, others many kinds at once.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import NoneType
from typing import Any

from confluent_kafka import KafkaException

from config.settings import Settings
from streams.kafka.clients import BrokerUnreachable
from streams.worker.failpoints import FAIL_POINTS
from streams.worker.flow import PartitionFlow
from streams.worker.groups import Group, clicks_group, inventory_group
from streams.worker.owner import OtherOwner
from streams.worker.transactions import Refused
from tests.simulation import checks
from tests.simulation import scheduler as simulated
from tests.simulation.clients import FATES, Faults, World
from tests.simulation.disk import TROUBLES, Disks
from tests.simulation.kafka import OURS, RIVAL, Cluster
from tests.simulation.shop import Shop
from tests.simulation.worker import Worker
from topics.catalogue import CATALOGUE
from topics.events import LocationRecord
from topics.keys import partition_of

PATIENCE_S = 240.0
"""How long, in simulated time, all may take to come to rest once nothing goes wrong any more."""

LITTLE = {"max_skus": 2, "max_cells": 4, "max_order_lines": 12, "max_supplies": 2, "max_demand_rows": 2}
"""Limits so low that they are reached."""
SNAPSHOTS = 0.15
"""Share of the seeds with snapshots: to open RocksDB takes as long as a tenth of all else."""
REQUESTS = ("init", "flush", "offsets", "commit", "abort")
NO_ABORT = ("init:abortable", "abort:abortable")
KINDS: dict[str, tuple[float, ...]] = {
    **{f"{what}:{fate}": (0.03, 0.1, 0.3) for what in REQUESTS for fate in FATES if f"{what}:{fate}" not in NO_ABORT},
    **{f"{what}:{point}": (0.05, 0.2) for what in ("kill", "pause") for point in FAIL_POINTS},
    **{kind: (0.3, 0.6) for kind in TROUBLES},
    "queue_full": (0.001, 0.01),
    "unreadable": (0.02, 0.1),
    "timed_out": (0.02, 0.1),
    "tick_lost": (0.2,),
    **{f"fetch:{fate}": (0.01, 0.03) for fate in ("lost", "unanswered", "late", "stuck")},
    "fetch:skipped": (0.03, 0.1),
    "fetch:again": (0.05, 0.3),
    "disk_full": (0.05, 0.3),
}
"""Kind of fault → the rates at which it strikes where it can. Besides: kill and pause anywhere, outage, stop, more workers."""
DISK = (*TROUBLES, "disk_full", "kill:before_snapshot", "kill:after_snapshot")
OUTPUTS = {
    "inventory": ("allocations.v1", "alerts.v1", "inventory.v1", "transfers.v1", "supplies.v1"),
    "clicks": ("demand.v1",),
}
MAY_STOP = (NoneType, BrokerUnreachable, KafkaException, TimeoutError)
"""What keeps a worker from starting when the broker does not answer."""
REFUSALS = ("ChangelogGap", "Inconsistent", "OtherOwner")
RIVALS = 0.15
"""Share of the seeds with a worker of another `app_id`."""
RIVAL_NUMBER = -1


@dataclass(slots=True)
class Result:
    """What became of a seed."""

    seed: int
    problems: list[str] = field(default_factory=list)
    events: int = 0
    batches: int = 0
    decisions: int = 0
    transactions: int = 0
    crashes: int = 0
    snapshots: int = 0
    """Found good on the disks at the end."""
    faults: Counter = field(default_factory=Counter)
    """Kind → times injected."""
    points: Counter = field(default_factory=Counter)
    """Fail point → times passed."""
    outcomes: Counter = field(default_factory=Counter)
    """How transactions ended, and what made rebuilds necessary → times."""
    simulated_s: float = 0.0
    switches: int = 0
    cpu_s: float = 0.0
    digest: str = ""
    """Of all that happened: equal if two runs were the same."""


@cache
def _groups() -> list[Group]:
    return [inventory_group(), clicks_group(_base_settings())]


@cache
def _base_settings() -> Settings:
    return Settings(bootstrap_servers="simulated:1", app_id=OURS, metrics_port=0)


class Simulation:
    """One seed's world."""

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None):
        self.result = Result(seed)
        self.scheduler = simulated.Scheduler(seed, trace)
        self.random = rng = self.scheduler.random
        self.partitions = rng.choice([1, 2])
        self.settings = self._draw_settings()
        counts = {name: topic.partition_count(self.settings) for name, topic in CATALOGUE.items()}
        counts["locations.v1"] = counts["products.v1"] = rng.choice([1, 1, 2])
        self.cluster = Cluster(self.scheduler, counts, self.settings.session_timeout_ms / 1000)
        self.cluster.assigned_count = self.partitions
        self.faults = Faults(self.scheduler, self._draw_rates())
        World.cluster, World.faults, World.latency_s = self.cluster, self.faults, rng.choice([0.0005, 0.002, 0.01])
        self.shop = Shop(rng, rng.randint(1, 3), rng.randint(2, 6), rng.choice([1, 2, 4]), rng.choice([1, 3, 6]))
        self.network = self.shop.network()
        self.follower = checks.Follower(self.cluster)
        self.workers: dict[int, Worker | None] = {}
        self.wanted = rng.randint(1, 3)
        self.refused: list | None = None  # what workers stopped with, once the changelog is tampered with
        self.disks = Disks(rng) if self.settings.snapshot_interval_ms else None
        self.groups = _groups()[: rng.choice([1, 1, 1, 2])]
        self.inputs = [topic for group in self.groups for topic in group.topics]
        numbers = range(self.partitions)
        places = [group.place(number, self.partitions, self.settings) for group in self.groups for number in numbers]
        self.places = {place.name: place for place in places}
        self.lives = 0
        self.outcomes: Counter = Counter()
        self.fault_mean = rng.choice([None, 300, 1_500, 6_000])
        self.kill_share = rng.choice([0.0, 0.5, 1.0])

    # Drawn by the seed

    def _draw_settings(self) -> Settings:
        rng = self.random
        session = rng.choice([1_000, 3_000])
        return _base_settings().model_copy(
            update={
                "partitions": self.partitions,
                "click_partitions": self.partitions,
                **(LITTLE if rng.random() < 0.1 else {}),
                "transactions": rng.choice(["librdkafka", "direct"]),
                "fetch_wait_ms": 500,
                "batch_rows": rng.choice([1, 2, 5, 20, 50]),
                "batch_bytes": rng.choice([1_000, 1 << 20]),
                "batch_age_ms": rng.choice([0, 5, 50]),
                "backlog_rows": rng.choice([4, 40, 1_000]),
                "tick_ms": rng.choice([100, 500]),
                "session_timeout_ms": session,
                "heartbeat_ms": session // rng.choice([3, 6]),
                "request_timeout_ms": rng.choice([1_000, 3_000]),
                "transaction_timeout_ms": rng.choice([1_000, 3_000, 10_000]),
                "location_catchup_ms": rng.choice([0, 100, 2_000]),
                "snapshot_interval_ms": rng.choice([200, 1_000]) if rng.random() < SNAPSHOTS else 0,
                "standby": rng.random() < 0.3,
                "dedupe_events": rng.choice([8, 4_000_000]),
                "dedupe_hours": rng.choice([0, 24]),
                "on_shortfall": rng.choice(["reroute", "reroute", "keep"]),
                "transfer_days": 1,
            }
        )

    def _draw_rates(self) -> dict[str, float]:
        share = self.random.choice([0.0, 0.05, 0.15, 0.4])
        rates = {kind: self.random.choice(rates) for kind, rates in KINDS.items() if self.random.random() < share}
        if self.settings.snapshot_interval_ms:  # few seeds have any
            rates |= {kind: self.random.choice(KINDS[kind]) for kind in DISK if self.random.random() < 0.4}
        return rates

    # The run

    def run(self) -> Result:
        started = time.process_time()
        try:
            self._run()
        finally:
            self._bury_all()
            if self.disks is not None:
                self.disks.remove()
            self.result.cpu_s = time.process_time() - started
        return self.result

    def _run(self) -> None:
        scheduler, rng, result = self.scheduler, self.random, self.result
        people = simulated.Process("people")
        scheduler.fault = self._fault
        self._next_fault()
        first = [location for location in self.network if rng.random() < 0.9]
        for location in first:
            self._publish("locations.v1", location.id.encode(), location.model_dump_json().encode())
        for sku, value in self.shop.kits():
            self._publish("products.v1", sku, value)
        shop_ends: list[float] = []
        scheduler.spawn(people, lambda: self._sell(shop_ends), "shop")
        for number in range(self.wanted):
            scheduler.at(rng.random() * 0.2, lambda number=number: self._start(number))
        self._every(0.4, self.cluster.expire_members)
        self._every(rng.choice([0.02, 0.3]), self.follower.look)
        if rng.random() < RIVALS:
            scheduler.at(rng.random() * rng.choice([0.2, 6.0]), self._rival)
        for _ in range(rng.choice([0, 0, 1, 3])):
            scheduler.at(rng.random() * 6, self._disturb)
        calm_after = rng.random() * 6
        scheduler.run(lambda: bool(shop_ends), PATIENCE_S)
        scheduler.run(lambda: scheduler.now > shop_ends[0] + calm_after, PATIENCE_S)
        self._calm()
        calm_at = scheduler.now
        rests = scheduler.run(self._at_rest, calm_at + PATIENCE_S)
        result.problems += [] if rests else self._restless()
        if rests:
            self.follower.look()
            self._check()
            if not result.problems and rng.random() < 0.1:
                self._tamper()
        result.problems += self.follower.problems
        result.batches, result.decisions = self.follower.batches, len(self.follower.decisions)
        result.transactions = self.cluster.transactions
        result.faults += self.faults.counts
        result.outcomes = self.outcomes
        result.simulated_s, result.switches = scheduler.now, scheduler.switches
        result.digest = f"{rng.getrandbits(64):016x}"

    def _bury_all(self) -> None:
        for number, worker in self.workers.items():
            if worker is not None:
                self.workers[number] = None
                self.scheduler.bury(worker)

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        def again() -> None:
            act()
            self.scheduler.at(seconds, again)

        self.scheduler.at(seconds, again)

    # The shop

    def _sell(self, ends: list[float]) -> None:
        rng, scheduler = self.random, self.scheduler
        count = rng.randint(20, 100)
        pace = rng.choice([0.0005, 0.01, 0.05])
        for _ in range(count):
            scheduler.sleep(pace * rng.random() * 2)
            now = self.cluster.now_ms()
            if rng.random() < 0.03:
                location = rng.choice(self.network)
                self._publish("locations.v1", *self.shop.change(location))
                self._publish("products.v1", *self.shop.product())
                continue
            if len(self.groups) > 1 and rng.random() < 0.3:
                topic, key, value = self.shop.click(now)
            else:
                topic, key, value = self.shop.event(now, self.follower.decisions)
            self._publish(topic, key, value)
            self.result.events += 1
        ends.append(scheduler.now)

    def _publish(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        count = self.cluster.partition_counts[topic]
        number = partition_of(key, count) if key else 0
        if topic not in ("locations.v1", "products.v1") and self.random.random() < 0.02:
            number = self.random.randrange(count)  # where it does not belong, maybe
        if self.random.random() < 0.05:
            self.cluster.append_marker(topic, number)
        self.cluster.append(topic, number, [(key, value, ())])

    # Workers

    def _start(self, number: int) -> None:
        self.lives += 1
        network: list[LocationRecord] = self.network if self.random.random() < 0.3 else []
        settings = self.settings.model_copy(update={"app_id": RIVAL}) if number == RIVAL_NUMBER else self.settings
        if self.disks is not None:
            settings = settings.model_copy(update={"data_directory": self.disks.directory(number)})
            self._trouble_disk(number)
        worker = Worker(f"w{number}-{self.lives}", settings, self.groups, network, self._passed, self._ended, self.outcomes)
        worker.number = number
        self.workers[number] = worker
        self.scheduler.log(f"{worker.name} starts")
        self.scheduler.spawn(worker, worker.run, "loop")

    def _ended(self, worker: Worker, failure: BaseException | None, error: BaseException | None) -> None:
        """A worker stopped by itself."""
        self.scheduler.log(f"{worker.name} stopped: {failure!r} {error!r}")
        if isinstance(failure or error, OtherOwner) and worker.settings.app_id != self.cluster.owner:
            self.outcomes["other owner"] += 1
            worker.alive = False
            self.workers[worker.number] = None
            self.scheduler.at(0, lambda: self.scheduler.bury(worker))
            return
        if self.refused is not None:
            self.refused.append(failure or error)
        elif not (self._may_fail(failure) and isinstance(error, MAY_STOP)):
            error = failure or error
            self.result.problems.append(f"{worker.name} stopped: {type(error).__name__}: {error}")
        worker.alive = False
        self.scheduler.at(0, lambda: self.scheduler.bury(worker))
        self._restart(worker)

    def _may_fail(self, failure: BaseException | None) -> bool:
        return failure is None or (isinstance(failure, Refused) and "queue_full" in self.faults.rates)

    def _restart(self, worker: Worker) -> None:
        number = worker.number
        if self.workers.get(number) is worker:
            self.workers[number] = None
            delay = 0.05 if self.faults.calm else self.random.choice([0.05, 1.0, 5.0])
            self.scheduler.at(delay, lambda: self._start(number))

    # What goes wrong

    def _trouble_disk(self, number: int) -> None:
        for kind in TROUBLES:
            if self.faults.strikes(kind) and not self.disks.trouble(number, kind, self.places):
                self.faults.counts[kind] -= 1
        if self.random.random() < 0.6:
            self.disks.keep_copy(number)

    def _next_fault(self) -> None:
        if self.fault_mean is not None and not self.faults.calm:
            self.scheduler.fault_at = self.scheduler.points + int(self.random.expovariate(1 / self.fault_mean)) + 1

    def _fault(self, worker: Worker) -> None:
        """Strike the worker that runs, where it is."""
        self._next_fault()
        if self.random.random() < self.kill_share:
            self.faults.counts["kill"] += 1
            self._kill(worker)
        self.faults.counts["pause"] += 1
        self._pause(worker)

    def _passed(self, worker: Worker, point: str) -> None:
        self.result.points[point] += 1
        self.scheduler.log(f"passes {point}")
        self.scheduler.point()
        if self.faults.strikes(f"kill:{point}"):
            self._kill(worker)
        if self.faults.strikes(f"pause:{point}"):
            self._pause(worker)
            self.scheduler.sleep(0)

    def _kill(self, worker: Worker) -> None:
        self.scheduler.log(f"{worker.name} is killed")
        self.result.crashes += 1
        self._restart(worker)
        self.scheduler.kill(worker)

    def _pause(self, worker: Worker) -> None:
        seconds = self.settings.session_timeout_ms / 1000 * self.random.choice([0.1, 0.6, 1.5, 4.0])
        self.scheduler.log(f"{worker.name} is paused for {seconds:.1f} s")
        self.scheduler.pause(worker, seconds)

    def _disturb(self) -> None:
        """Trouble from outside: an outage of the broker, an orderly stop, a worker more."""
        if self.faults.calm:
            return
        kind = self.random.choice(["outage", "stop", "stop", "more"])
        self.faults.counts[kind] += 1
        self.scheduler.log(f"FAULT {kind}")
        if kind == "outage":
            self.cluster.up = False
            self.scheduler.at(self.random.choice([0.2, 2.0, 6.0]), self._come_up)
        elif kind == "more":
            self._start(max(self.wanted, *self.workers, 0) + 1)
        else:
            running = [worker for worker in self.workers.values() if worker is not None]
            if running:
                self.random.choice(running).stop()

    def _rival(self) -> None:
        """A worker of another `app_id` comes; whose the topics are, the first claim has decided, or decides now."""
        if not self.faults.calm:
            self.faults.counts["rival"] += 1
            self._start(RIVAL_NUMBER)

    def _come_up(self) -> None:
        self.cluster.up = True
        self.cluster.forgive()

    def _calm(self) -> None:
        self.scheduler.log("calm")
        self.faults.calm = True
        self.scheduler.fault_at = 1 << 62

    # At rest

    def _at_rest(self) -> bool:
        if not self.cluster.up or not self.cluster.settled() or self.cluster.group.rebalancing:
            return False
        flows = self._flows()
        if len(flows) != self.partitions * len(self.groups) or any(_busy(flow) for flow in flows):
            return False
        return next(checks.at_rest(self.cluster, self.inputs), None) is None

    def _flows(self) -> list[PartitionFlow]:
        """The flows of those who own a partition by the group's own account."""
        owners = self.cluster.group.assignment
        return [
            flow
            for worker in self.workers.values()
            if worker is not None and worker.alive and not worker.paused and worker.flows is not None
            for flow in worker.flows._flows.values()
            if flow.partition in owners.get(worker.member, ())
        ]

    def _restless(self) -> list[str]:
        left = list(checks.at_rest(self.cluster, self.inputs))
        left += [f"{flow.name} is busy" for flow in self._flows() if _busy(flow)]
        return [f"not at rest after {PATIENCE_S:g} s: {'; '.join(left) or f'{len(self._flows())} flows'}"]

    # A changelog that somebody has changed

    def _tamper(self) -> None:
        """Change the changelog, start a worker: it must see it and process nothing; and the audit must name it."""
        result, cluster, scheduler = self.result, self.cluster, self.scheduler
        self._bury_all()
        if self.disks is not None:
            self.disks.remove()  # a snapshot knows what stood there; who reads no more than its end sees no more
        group = self.random.choice(self.groups)
        tampered = checks.tamper(cluster, group, self.random)
        if tampered is None:
            return
        kind, number = tampered
        self.faults.counts[kind] += 1
        scheduler.log(f"FAULT {kind}")
        if not any("chain" in problem for problem in checks.audited(cluster, self.settings)):
            result.problems.append(f"{kind}: the audit does not see it")
        cluster.append(group.topics[0], number, [(b"uk", b"{}", ())])
        before = checks.written(cluster, group, number, OUTPUTS[group.name])
        self.refused = []
        self._start(RIVAL_NUMBER if cluster.owner == RIVAL else self.wanted + 100)
        scheduler.run(lambda: bool(self.refused), scheduler.now + 60)
        found = self.refused[0] if self.refused else None
        if type(found).__name__ not in REFUSALS:
            result.problems.append(f"{kind}: the worker should have refused to start, found {found!r}")
        if checks.written(cluster, group, number, OUTPUTS[group.name]) != before:
            result.problems.append(f"{kind}: something was written or committed all the same")

    def _stored(self, group: Group, number: int, live: dict[str, str]) -> Iterator[str]:
        """Compare each snapshot on the disks, with the changelog's tail, to the state that lives; the workers are stopped."""
        self._bury_all()
        name = f"{group.changelog_topic}-{number}"
        disks = {path.parent.parent.name: path for path in self.disks.found(name)} if self.disks is not None else {}
        for disk, path in disks.items():
            pipeline = checks.stored(self.cluster, group, number, self.settings, path, self.places[name])
            if pipeline is not None and pipeline.digests() != live:
                yield f"snapshot of {disk} and the changelog's tail give {pipeline.digests()}, live is {live}"
            self.result.snapshots += pipeline is not None

    def _check(self) -> None:
        result, cluster, settings = self.result, self.cluster, self.settings
        result.problems += checks.audited(cluster, settings)
        for flow in self._flows():  # named before the workers are stopped
            group, number = flow.group, flow.partition
            live = flow._pipeline.digests()
            others = {
                "changelog": checks.folded(cluster, group, number, settings),
                "replay": checks.replayed(cluster, group, number, settings, self.random),
            }
            for name, pipeline in others.items():
                if (found := pipeline.digests()) != live:
                    result.problems.append(f"digest: {flow.name}: live {live}, {name} {found}")
            for problem in self._stored(group, number, live):
                result.problems.append(f"digest: {flow.name}: {problem}")
            expected = flow._pipeline.next_offsets
            for topic in group.topics:
                if cluster.group.committed.get((topic, number)) != expected.get(topic):
                    found = cluster.group.committed.get((topic, number))
                    result.problems.append(f"offsets: {topic}[{number}]: {found} committed, {expected.get(topic)} in the state")


def _busy(flow: PartitionFlow) -> bool:
    return bool(
        flow._pipeline is None
        or flow._rebuild
        or flow._suspended
        or flow._unsettled
        or flow._commits
        or flow._inbox
        or flow._backlog
        or flow._pipeline.needs_ticks(simulated.TIME.time() * 1000)
    )


def simulate(seed: int, trace: Callable[[str], None] | None = None, **changes: Any) -> Result:
    """Run one seed; the stand-ins must be installed (worker.installed)."""
    return Simulation(seed, trace).run()
