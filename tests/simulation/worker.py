"""One worker as a process: `Flows` and everything below it, as they are; in Faust's place a model of what it does with them.

`installed()` puts the simulated clock, threads and clients where the product's modules look for them. `Worker.run` is the
process: what `run_worker` does, with a membership and a recovery coroutine in the place of Faust's services. They keep Faust's
order: revoked → (rejoined) assigned → rebalanced, one at a time.
Not here: when a worker starts, dies or stops (run.py).
"""

import asyncio
import concurrent.futures
import importlib
import pkgutil
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import confluent_kafka
import confluent_kafka.admin
from faust.types import TP

from state import store
from streams.kafka.fetching import Fetched
from streams.worker.flows import Flows
from streams.worker.groups import Group
from tests.simulation import clients, wire
from tests.simulation import scheduler as simulated
from tests.simulation.clients import World
from topics.events import LocationRecord

PACKAGES = ("streams.worker", "streams.kafka")
"""Every module of these runs under the stand-ins, but for those below."""
OUTSIDE = {
    "streams.kafka.transport",  # Faust's side, which `Worker` plays
    "streams.kafka.wire",  # `Connection` stands in for it
    "streams.kafka.names",  # makes the clients for which there are stand-ins
    *("streams.kafka.librdkafka", "streams.worker.metrics"),  # `produce_spans` and `Metrics` stand in for them
    "streams.worker.warm",  # compiling
}


class _Nothing:
    """Any metric: takes what it is told."""

    def __init__(self, counts: Any = None, names: tuple = ()):
        self.counts, self.names = counts, names

    def labels(self, *names: str) -> "_Nothing":
        return _Nothing(self.counts, names)

    def inc(self, amount: float = 1) -> None:
        if self.counts is not None:
            self.counts[self.names[-1]] += 1

    def set(self, value: float) -> None: ...

    def observe(self, *_: Any) -> None: ...


class Metrics:
    """Counts transactions and rebuilds by their kind, and nothing else."""

    def __init__(self) -> None:
        process = simulated.process()
        self.transactions = _Nothing(process.counts)
        self.rebuilds = _Nothing(process.counts)

    def __getattr__(self, name: str) -> _Nothing:
        return _Nothing()

    def serve(self, port: int) -> tuple[int, Callable[[], None]]:
        return 0, lambda: None


def _fail_points(fail_at: str) -> Callable[[str], None]:
    return simulated.process().passed


class Store(store.Store):
    """The real one; what another process holds open when its worker dies is closed by the system, so it is here."""

    def __init__(self, *given: Any):
        simulated.current().point()
        if World.faults.strikes("disk_full"):
            raise store.StoreFull("simulated")
        self._process = simulated.process()
        super().__init__(*given)
        self._process.stores.append(self)

    def close(self) -> None:
        super().close()
        if self in self._process.stores:
            self._process.stores.remove(self)

    def write(self, *given: Any) -> None:
        simulated.current().point()
        if World.faults.strikes("disk_full"):
            raise store.StoreFull("simulated")
        super().write(*given)
        simulated.current().point()


STAND_INS = {
    "threading": simulated.THREADING,
    "time": simulated.TIME,
    "Future": simulated.Future,
    "wait": simulated.wait,
    "SimpleQueue": simulated.SimpleQueue,
    "Producer": clients.Producer,
    "handle_of": lambda producer, _: producer,
    "produce_spans": clients.produce_spans,
    "Consumer": clients.Consumer,
    "AdminClient": clients.AdminClient,
    "Connection": wire.Connection,
    "read_batches": wire.read_batches,
    "Metrics": Metrics,
    "fail_points": _fail_points,
    "Store": Store,
}
REAL = (
    *(threading, time, queue, concurrent.futures, confluent_kafka, confluent_kafka.admin, store.Store),
    *(threading.Thread, threading.Condition, threading.Lock, threading.Event, time.time, time.monotonic, time.sleep),
    *(time.perf_counter, queue.Queue, queue.SimpleQueue, concurrent.futures.Future, concurrent.futures.wait),
    *(confluent_kafka.Producer, confluent_kafka.Consumer, confluent_kafka.admin.AdminClient),
)
"""What a module must not have but under a name of `STAND_INS`."""


def simulated_modules() -> list[ModuleType]:
    """Import the modules that run under the stand-ins."""
    packages = [importlib.import_module(package) for package in PACKAGES]
    names = {f"{package.__name__}.{found.name}" for package in packages for found in pkgutil.iter_modules(package.__path__)}
    if gone := OUTSIDE - names:
        raise LookupError(f"expected modules that the simulation leaves out, found none named {', '.join(sorted(gone))}")
    return [importlib.import_module(name) for name in sorted(names - OUTSIDE)]


@contextmanager
def installed() -> Iterator[None]:
    """Put the stand-ins into the product's modules.

    Raises
    ------
    LookupError
        A module has a clock, a thread, a queue or a client for which there is no stand-in, or a stand-in has no place:
        the simulation would go on with the real thing, or without what it is to test.
    """
    former, modules = [], simulated_modules()
    for module in modules:
        for name, value in vars(module).items():
            if name not in STAND_INS and any(value is real for real in REAL):
                raise LookupError(f"{module.__name__}.{name}: expected a stand-in for {value!r}, found none in STAND_INS")
    for name in STAND_INS:
        places = [module for module in modules if hasattr(module, name)]
        if not places:
            raise LookupError(f"{name}: expected a module of {', '.join(PACKAGES)} that imports it, found none")
        former += [(module, name, getattr(module, name)) for module in places]
    try:
        for module, name, _ in former:
            setattr(module, name, STAND_INS[name])
        yield
    finally:
        for module, name, value in former:
            setattr(module, name, value)


class _Signal:
    def connect(self, _: Any) -> None: ...


class _Consumer:
    """Faust's consumer as `Flows` sees it."""

    def __init__(self, host: "Worker"):
        self._host = host

    def owned(self) -> set[TP]:
        return set(self._host.assignment)


class _App:
    """Faust's app as `Flows` sees it."""

    def __init__(self, host: "Worker", settings: Any):
        self.settings = settings
        self.consumer = _Consumer(host)
        self.consumer_generation_id = 0
        self.on_partitions_revoked = self.on_partitions_assigned = _Signal()
        self.on_rebalance_complete = self.on_before_shutdown = _Signal()
        self._host = host

    async def crash(self, error: BaseException) -> None:
        self._host.stopping.set()


class Worker(simulated.Process):
    """A worker's process.

    Parameters
    ----------
    name : str
        Its member id; one that no process had before.
    settings : Settings
    groups : list of Group
    network : sequence of LocationRecord
        What it publishes at its start.
    passed : callable
        Told (worker, fail point).
    ended : callable
        Told (worker, failure or None, error or None) when it stops by itself: the flows' failure, what stopped it besides.
    counts : Counter
        Transactions and rebuilds by their kind.
    """

    def __init__(
        self,
        name: str,
        settings: Any,
        groups: list[Group],
        network: list[LocationRecord],
        passed: Callable[["Worker", str], None],
        ended: Callable[["Worker", BaseException | None, BaseException | None], None],
        counts: Any,
    ):
        super().__init__(name, faulty=True)
        self.counts = counts
        self.stores: list[Store] = []
        self.settings, self._groups, self._network, self._ended = settings, groups, network, ended
        self._topics = [topic for group in groups for topic in group.topics]
        self.passed = lambda point: passed(self, point)
        self.app = _App(self, settings)
        self.flows: Flows | None = None
        self.loop = simulated.Loop()
        self.stopping = asyncio.Event()
        self.assignment: list[TP] = []
        self._former: deque[Fetched] = deque(maxlen=6)
        self._rebalanced = asyncio.Event()
        self._lives = 0
        self.member = ""

    def run(self) -> None:
        """The process's main thread."""
        error: BaseException | None = None
        self.flows = Flows(self.app, self._groups, self._network)
        self.flows.feed = partial(self._deliver, self.flows.feed)  # type: ignore[method-assign]
        try:
            self.flows.prepare()
            self.loop.run(self._host())
        except simulated.Killed:
            raise
        except Exception as raised:
            error = raised
        try:
            self.flows.release()
        except simulated.Killed:
            raise
        except Exception as raised:
            error = error or raised
        self._ended(self, self.flows.failure, error)

    def buried(self) -> None:
        """Do what the operating system does for a process that is gone."""
        for each in list(self.stores):
            each.close()

    def stop(self) -> None:
        """An orderly stop (SIGTERM); from the hub."""
        self.loop.call_soon_threadsafe(self.stopping.set)

    # In Faust's place

    async def _host(self) -> None:
        services = [self.loop.create_task(service()) for service in (self._membership, self._recovery)]
        stopped = self.loop.create_task(self.stopping.wait())
        await asyncio.wait([stopped, *services], return_when=asyncio.FIRST_COMPLETED)
        await self.flows.on_shutdown(self.app)
        if World.cluster.up:
            World.cluster.groups[self.settings.group_id].leave(self.member)
        for service in services:
            if service.done() and self.flows.failure is None:
                service.result()
            service.cancel()

    async def _membership(self) -> None:
        cluster, generation, answer = World.cluster, 0, "unknown"
        group = cluster.groups[self.settings.group_id]
        while True:
            if answer == "unknown":
                self._lives += 1
                self.member = f"{self.name}.{self._lives}"
            while not cluster.up:
                await asyncio.sleep(0.1)
            group.join(self.member)
            while (found := group.assigned(self.member, generation)) is None and self.member in group.members:
                await asyncio.sleep(0.03)
            if found is None:
                answer = "unknown"  # put out before it heard what it was assigned
                continue
            generation, numbers = found
            self.app.consumer_generation_id = generation
            self.assignment = [TP(topic, number) for number in numbers for topic in self._topics]
            await self.flows.on_assigned(self.app, self.assignment)
            self._rebalanced.set()
            answer = "ok"
            while answer == "ok":
                await asyncio.sleep(self.settings.heartbeat_ms / 1000)
                if cluster.up:
                    answer = group.heartbeat(self.member, generation)
            simulated.current().log(f"revoked: {answer}")
            await self.flows.on_revoked(self.app, self.assignment)

    async def _recovery(self) -> None:
        while True:
            await self._rebalanced.wait()
            self._rebalanced.clear()
            await self.flows.on_rebalanced(self.app)

    def _deliver(self, feed: Callable[[Fetched], None], fetched: Fetched) -> None:
        """Hand on a range, or what fetching under rebalances and seeks may make of it at worst."""
        self._former.append(fetched)
        more = fetched.end < World.cluster.partitions[fetched.topic, fetched.partition].last_stable
        if more and World.faults.strikes("fetch:skipped"):
            return  # the next one tells
        if World.faults.strikes("fetch:again"):
            feed(World.cluster.random.choice(self._former))
        feed(fetched)
