"""The main job on real data, start to end: broker, topics, network, worker, 50,062 lines of a shop, audit, summary.

Everything runs as in production: the workers are processes of their own, and what the demo says of them it reads from the
topics. The demo has a broker of its own, in the data directory, and wipes that first.
Owner: `nearshelf demo` (streams/cli/demo.py). Not here: the data (retail/), the processes (fleet.py), what is said of single
orders (stories.py), the audit (streams/audit).
"""

import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import orjson

from benchmarks.fleet import DRAIN_S, Sender, Workers, drain, ends, lag, partitions, running
from benchmarks.record import Record
from benchmarks.retail.clicks import retail_clicks
from benchmarks.retail.workload import CensusRow, Workload, retail_events
from benchmarks.stories import Ways, compare, order_histories, three_stories
from config.network import Network, load_network
from config.settings import Settings
from streams.audit import Report, audit
from streams.kafka.clients import client_config, reading_config
from streams.kafka.create import create_topics
from streams.kafka.names import AdminClient, Consumer
from topics.catalogue import CATALOGUE, INVENTORY_TOPICS
from topics.errors import AnswerIsNo

PACED_S = 20.0
READY_S = 600.0

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and of how much (None: not known)."""


class DemoFailed(AnswerIsNo):
    """The demo can't go on: the message says where, and where to look."""


@dataclass(slots=True)
class Options:
    """What `nearshelf demo` was asked for."""

    lines: int | None = None
    paced: bool = True
    kills: int = 0
    workers: int = 1
    replace: bool = True
    """Start a new worker for one that is killed; if not, the others take over."""
    seed: int = 1
    own_broker: bool = True


@dataclass(slots=True)
class Summary:
    """What came of it; counts are the audit's, which reads the topics alone."""

    lines: int
    census: list[CensusRow]
    facts: dict[str, int]
    expected: dict[str, int]
    """Outcome → records, by what the workload knows in advance."""
    seconds: float
    """From the first record sent to the last one committed, without the opening stock."""
    events: int
    """Records of the stream, in that time."""
    latency_p50_ms: float
    """From a record's append to the log until a `read_committed` reader has its decision."""
    latency_p99_ms: float
    kills: int
    report: Report
    stories: list[tuple[str, list[str]]]
    """Three orders: title and sentences of each."""
    ways: Ways
    unexpected: list[str] = field(default_factory=list)
    """What is not as the workload says, a sentence each."""

    @property
    def clean(self) -> bool:
        return self.report.clean and not self.unexpected

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"report": self.report.as_dict(), "clean": self.clean}


@dataclass
class Demo:
    """One run.

    Parameters
    ----------
    settings, options
        Where, and what was asked for.
    say : callable
        Called with each sentence about what has happened.
    progress : callable
        Called while something is under way.
    stay : callable
        Called with settings and summary when all is done, broker and workers still running; they end when it returns.
    """

    settings: Settings
    options: Options
    say: Callable[[str], None]
    progress: Progress = lambda doing, done, total: None
    stay: Callable[[Settings, Summary], None] | None = None

    def __post_init__(self) -> None:
        if self.settings.network is None:
            raise DemoFailed("the demo needs a network file: name it by the setting `network`")
        self.network = self.settings.network
        self.directory = self.settings.data_directory / "demo"

    def run(self) -> Summary:
        """Do all of it; raises `DemoFailed`, `ProcessFailed`, `BrokerError`."""
        with ExitStack() as stack:
            if self.options.own_broker:
                self.settings = stack.enter_context(self._own_broker())
            network = load_network(self.network)
            self._create_topics()
            self._compile()
            self.directory.mkdir(parents=True, exist_ok=True)
            workers = stack.enter_context(running(self.settings, self.directory, self.options.workers))
            workload = self._workload(network)
            reader = stack.enter_context(_Reader(self.settings))
            self._await_ready(workers, len(network.locations))
            sender = Sender(self.settings)
            sender.send(workload.opening)
            sender.flush()
            self._drain("stocking the shelves", workers, len(workload.opening))
            self.say(f"Opening stock is on the shelves: {len(workload.opening):,} stock events.")
            clicks = retail_clicks(workload)
            started = time.time()
            killed = self._stream(sender, workload, clicks, workers)
            sender.flush()
            self._drain("deciding the rest", workers, len(workload.stream))
            seconds = time.time() - started
            self._await_expiries(reader, workload)
            if self.stay is None:
                workers.stop()
            report = audit(self.settings, lambda done, total: self.progress("auditing", done, total), complete=True)
            summary = self._summary(workload, len(clicks), reader, seconds, killed, report, network)
            if self.stay is not None:
                self.stay(self.settings, summary)
                workers.stop()
            return summary

    def _drain(self, doing: str, workers: Workers, total: int) -> None:
        drain(self.settings, workers, lambda left: self.progress(doing, max(0, total - left), total))

    @contextmanager
    def _own_broker(self) -> Iterator[Settings]:
        former = self.settings.model_copy(update={"data_directory": self.directory})
        former.local_broker().stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        broker = former.local_broker()
        try:
            address = broker.start(report=lambda text: self.progress(text, 0, None))
            self.say(f"Apache Kafka runs at {address}; its data is in {broker.directory}.")
            yield former.model_copy(update={"bootstrap_servers": address})
        finally:
            broker.stop()

    def _create_topics(self) -> None:
        admin = AdminClient(client_config(self.settings, log_level=0))
        create_topics(admin, self.settings)
        if not self.options.own_broker:
            for name in CATALOGUE:
                if ends(self.settings, name) and name != "locations.v1":
                    raise DemoFailed(
                        f"{name} at {self.settings.bootstrap_servers} holds records already; expected empty topics. "
                        "The demo is not for a cluster in use: run it without --bootstrap-servers and "
                        "NEARSHELF_BOOTSTRAP_SERVERS, on a broker of its own."
                    )

    def _compile(self) -> None:
        self.progress("compiling (minutes the first time, then it is kept)", 0, None)
        done = subprocess.run([sys.executable, "-m", "streams.worker.warm"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoFailed(f"the kernels could not be compiled:\n{done.stderr}")

    def _workload(self, network: Network) -> Workload:
        self.progress("reading the shop's invoices", 0, None)
        return retail_events(
            network.locations,
            lines=self.options.lines,
            seed=self.options.seed,
            now_ms=int(time.time() * 1000),
            duration_ms=int(PACED_S * 1000) if self.options.paced else 5_000,
        )

    def _await_ready(self, workers: Workers, locations: int) -> None:
        """Wait until the workers have published the network, and say they are ready."""
        self.progress("starting the workers", 0, None)
        deadline = time.monotonic() + READY_S
        while not workers.ready() or ends(self.settings, "locations.v1") < locations:
            workers.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"no worker was ready within {READY_S:.0f} s; see {workers.log_path}")
            time.sleep(0.1)
        count = self.options.workers
        self.say(f"{count} {'workers are' if count > 1 else 'worker is'} ready, for {locations} locations.")

    def _stream(self, sender: Sender, workload: Workload, clicks: list[Record], workers: Workers) -> int:
        """Send the stream, paced or as fast as it goes, the clicks beside it, killing workers on the way."""
        records = workload.stream
        total, killed = len(records), 0
        started = time.monotonic()
        step = max(1, total // 400)
        for at in range(0, total, step):
            if self.options.paced:
                time.sleep(max(0.0, started + PACED_S * at / total - time.monotonic()))
            sender.send(records[at : at + step], wait=False)
            share = at / total, (at + step) / total
            sender.send(clicks[int(share[0] * len(clicks)) : int(share[1] * len(clicks))], wait=False)
            self.progress("lines of the shop", min(workload.lines, int(workload.lines * share[1])), workload.lines)
            if killed < self.options.kills and share[1] > (killed + 1) / (self.options.kills + 1):
                killed += 1
                successor = "a new one starts" if self.options.replace else "the others take over"
                pid = workers.kill(self.options.replace)
                self.say(f"kill -9 of worker {pid} after {100 * share[1]:.0f} % of the lines; {successor}.")
            workers.check()
        sender.flush()
        return killed

    def _await_expiries(self, reader: "_Reader", workload: Workload) -> None:
        """Wait for the abandoned holds to expire by themselves: time passes in a quiet shop too."""
        expected = workload.facts.get("holds_abandoned", 0)
        deadline = time.monotonic() + DRAIN_S
        while reader.statuses["expired"] < expected and time.monotonic() < deadline:
            self.progress("waiting for unpaid baskets to expire", reader.statuses["expired"], expected)
            time.sleep(0.05)
        while lag(self.settings) > 0 and time.monotonic() < deadline:
            time.sleep(0.02)

    def _summary(
        self,
        workload: Workload,
        clicks: int,
        reader: "_Reader",
        seconds: float,
        killed: int,
        report: Report,
        network: Network,
    ) -> Summary:
        histories = order_histories([orjson.loads(value) for value in reader.orders], reader.decisions)
        latencies = np.array(reader.latencies_ms or [0.0])
        expected = Counter(applied=clicks)
        for (topic, outcome), count in workload.expected().items():
            if topic in INVENTORY_TOPICS:
                expected[outcome] += count
        summary = Summary(
            lines=workload.lines,
            census=workload.census,
            facts=workload.facts,
            expected=dict(expected),
            seconds=seconds,
            events=len(workload.stream),
            latency_p50_ms=float(np.percentile(latencies, 50)),
            latency_p99_ms=float(np.percentile(latencies, 99)),
            kills=killed,
            report=report,
            stories=three_stories(histories),
            ways=compare(histories, network.locations),
        )
        found = report.outcomes + report.dead_letters
        del found["dead_letter"], found["clock"]
        # A sale that a later count overtakes on its way is stale: how many do is a matter of chance.
        overtaken = found["stale"] - expected["stale"]
        if overtaken > 0:
            found["stale"] -= overtaken
            found["applied"] += overtaken
        for outcome in sorted({*expected, *found}):
            if expected[outcome] != found[outcome]:
                summary.unexpected.append(f"{outcome}: the workload has {expected[outcome]:,}, the topics {found[outcome]:,}")
        return summary


class _Reader:
    """A downstream service: reads committed decisions as they come, and how late they are."""

    def __init__(self, settings: Settings):
        self.statuses: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self.orders: list[bytes] = []
        """Values of `orders.v1`."""
        self.decisions: list[dict[str, Any]] = []
        own = {"fetch_wait_max_ms": 5, "fetch_queue_backoff_ms": 1, "log_level": 0}
        config = reading_config(settings, f"{settings.group_id}-reader", **own)
        self._decided = Consumer(config)
        self._sources = Consumer(config)
        self._sent: dict[tuple[int | None, int | None], int] = {}
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._read_sources), threading.Thread(target=self._read_decisions)]
        self._decided.assign(partitions(settings, "allocations.v1"))
        self._sources.assign(partitions(settings, "orders.v1"))

    def __enter__(self) -> "_Reader":
        for thread in self._threads:
            thread.start()
        return self

    def _read_sources(self) -> None:
        while not self._stopped.is_set():
            for message in self._sources.consume(1_000, 0.05):
                if not message.error():
                    self._sent[message.partition(), message.offset()] = message.timestamp()[1]
                    self.orders.append(message.value() or b"")

    def _read_decisions(self) -> None:
        while not self._stopped.is_set():
            message = self._decided.poll(0.05)
            if message is None or message.error():
                continue
            now_ms = time.time() * 1000
            decision = orjson.loads(message.value() or b"")
            self.decisions.append(decision)
            self.statuses[decision["status"]] += 1
            source = decision["source"]
            if source["topic"] == "orders.v1":
                sent = self._sent.get((source["partition"], source["offset"]))
                if sent is not None:
                    self.latencies_ms.append(now_ms - sent)

    def __exit__(self, *_: Any) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._decided.close()
        self._sources.close()
