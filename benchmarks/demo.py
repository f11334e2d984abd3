"""The main job on real data, start to end: broker, topics, network, worker, 50,062 lines of a shop, audit, summary.

Everything runs as in production: the workers are processes of their own, told nothing but the broker's address; what the demo
says of them it reads from the topics. It uses a broker of its own, in the data directory, and wipes that first.
Owner: `nearshelf demo` (cli/demo.py). Not here: the data (benchmarks/retail), the audit (audit/).
"""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.record import Record
from benchmarks.retail.clicks import retail_clicks
from benchmarks.retail.workload import CensusRow, Workload, retail_events
from config.network import Network, load_network
from config.settings import Settings
from streams.audit import Report, audit
from streams.cli.cluster import QUIET
from streams.kafka.create import create_topics
from topics.catalogue import CATALOGUE, INVENTORY_TOPICS

# Settings of the demo that its workers have too.
_PASSED_ON = (
    "app_id", "data_directory", "partitions", "session_timeout_ms", "heartbeat_ms", "snapshot_interval_ms", "standby",
    "digest_at_stop",
)  # fmt: skip
_NOT_YET = (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
PACED_S = 20.0
READY_S = 600.0
DRAIN_S = 120.0
STOP_S = 60.0


class DemoFailed(Exception):
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
    unexpected: list[str] = field(default_factory=list)
    """What is not as the workload says, a sentence each."""

    @property
    def clean(self) -> bool:
        return self.report.clean and not self.unexpected

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"report": self.report.as_dict(), "clean": self.clean}


class Demo:
    """One run. `say` is told what is going on; `progress` lines sent, of how many."""

    def __init__(self, settings: Settings, options: Options, say: Callable[[str], None], progress: Callable[[int, int], None]):
        self.settings = settings
        self.options = options
        self.say = say
        self.progress = progress
        self.directory = settings.data_directory / "demo"

    def run(self) -> Summary:
        """Do all of it; raises `DemoFailed`, `BrokerError`."""
        with ExitStack() as stack:
            if self.options.own_broker:
                self.settings = stack.enter_context(self._own_broker())
            network = load_network(self.settings.network)
            self._create_topics()
            self._compile()
            self.directory.mkdir(parents=True, exist_ok=True)
            workers = stack.enter_context(running(self.settings, self.directory, self.options.workers))
            workload = self._workload(network)
            reader = stack.enter_context(_reading(self.settings))
            self._await_ready(workers, len(network.locations))
            self.say(f"opening stock: {len(workload.opening):,} stock events")
            sender = Sender(self.settings)
            sender.send(workload.opening)
            sender.flush()
            drain(self.settings, workers)
            clicks = self._clicks(workload)
            started = time.time()
            killed = self._stream(sender, workload, clicks, workers)
            sender.flush()
            drain(self.settings, workers)
            seconds = time.time() - started
            self._await_expiries(reader, workload)
            workers.stop()
            self.say("auditing, from the topics alone")
            report = audit(self.settings, complete=True)
            return self._summary(workload, len(clicks), reader, seconds, killed, report)

    @contextmanager
    def _own_broker(self) -> Iterator[Settings]:
        former = self.settings.model_copy(update={"data_directory": self.directory})
        former.local_broker().stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        broker = former.local_broker()
        address = broker.start(report=lambda text: self.say(f"Apache Kafka: {text}"))
        self.say(f"Apache Kafka runs at {address}")
        try:
            yield former.model_copy(update={"bootstrap_servers": address})
        finally:
            broker.stop()

    def _create_topics(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.settings.bootstrap_servers, **QUIET})
        create_topics(admin, self.settings)
        if not self.options.own_broker:
            for name in CATALOGUE:
                if _ends(self.settings, name) and name != "locations.v1":
                    raise DemoFailed(
                        f"{name} at {self.settings.bootstrap_servers} holds records already; expected empty topics. "
                        "The demo is not for a cluster in use: run it without --bootstrap-servers, with a broker of its own."
                    )

    def _compile(self) -> None:
        self.say("kernels: compiling them takes a few minutes the first time, then they are kept")
        done = subprocess.run([sys.executable, "-m", "streams.worker.warm"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoFailed(f"the kernels could not be compiled:\n{done.stderr}")

    def _workload(self, network: Network) -> Workload:
        self.say("reading the shop's invoices")
        return retail_events(
            network.locations,
            lines=self.options.lines,
            seed=self.options.seed,
            now_ms=int(time.time() * 1000),
            duration_ms=int(PACED_S * 1000) if self.options.paced else 5_000,
        )

    def _clicks(self, workload: Workload) -> list[Record]:
        return retail_clicks(workload)

    def _await_ready(self, workers: "Workers", locations: int) -> None:
        """Wait until the workers have published the network, and say they are ready."""
        deadline = time.monotonic() + READY_S
        while not workers.ready() or _ends(self.settings, "locations.v1") < locations:
            workers.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"no worker was ready within {READY_S:.0f} s; see {workers.log_path}")
            time.sleep(0.1)
        self.say(f"{self.options.workers} worker(s) ready, {locations} locations")

    def _stream(self, sender: "Sender", workload: Workload, clicks: list[Record], workers: "Workers") -> int:
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
            self.progress(min(workload.lines, int(workload.lines * share[1])), workload.lines)
            if killed < self.options.kills and share[1] > (killed + 1) / (self.options.kills + 1):
                killed += 1
                successor = "a new one starts" if self.options.replace else "the others take over"
                self.say(f"kill -9 of worker {workers.kill(self.options.replace)} at {100 * share[1]:.0f} %, {successor}")
            workers.check()
        sender.flush()
        self.progress(workload.lines, workload.lines)
        return killed

    def _await_expiries(self, reader: "_Reader", workload: Workload) -> None:
        """Wait for the abandoned holds to expire by themselves: time passes in a quiet shop too."""
        expected = workload.facts.get("holds_abandoned", 0)
        if expected:
            self.say(f"waiting for {expected} abandoned holds to expire")
        deadline = time.monotonic() + DRAIN_S
        while reader.statuses["expired"] < expected and time.monotonic() < deadline:
            time.sleep(0.05)
        while _lag(self.settings) > 0 and time.monotonic() < deadline:
            time.sleep(0.02)

    def _summary(
        self, workload: Workload, clicks: int, reader: "_Reader", seconds: float, killed: int, report: Report
    ) -> Summary:
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


class Workers:
    """The worker processes; their output goes to one log."""

    def __init__(self, settings: Settings, directory: Path, count: int):
        self.log_path = directory / "worker.log"
        self._settings = settings
        self._count = count
        self._processes: list[subprocess.Popen] = []

    def start(self) -> None:
        while len(self._processes) < self._count:
            self._processes.append(self._spawn())

    def _spawn(self) -> subprocess.Popen:
        settings = self._settings
        command = [sys.executable, "-m", "streams.cli", "worker", "--network", str(settings.network)]
        command += ["--bootstrap-servers", settings.bootstrap_servers]
        given = {"metrics_port": 0} | {name: getattr(settings, name) for name in _PASSED_ON}
        for name, value in given.items():
            command += ["--set", f"{name}={value}"]
        if settings.preset:
            command += ["--preset", settings.preset]
        with self.log_path.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def ready(self) -> bool:
        return self.log_path.exists() and self.log_path.read_bytes().count(b"ready: ") >= 1

    def check(self) -> None:
        """Raise if a worker ended by itself."""
        for process in self._processes:
            if process.poll() is not None:
                raise DemoFailed(f"a worker stopped with exit status {process.returncode}; see {self.log_path}")

    def kill(self, replace: bool) -> int:
        """Kill the oldest worker, and start another if asked to; returns the dead one's process id."""
        process = self._processes.pop(0)
        process.kill()
        process.wait()
        if replace:
            self.start()
        return process.pid

    def stop(self) -> None:
        """Ask all to leave; raises if one does not, or not cleanly."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                status = process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                raise DemoFailed(f"a worker did not leave within {STOP_S:.0f} s; see {self.log_path}") from None
            if status:
                raise DemoFailed(f"a worker left with exit status {status}; see {self.log_path}")
        self._processes.clear()

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


class Sender:
    """Sends records as an upstream system would: Java's default partitioner, idempotent."""

    def __init__(self, settings: Settings):
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap_servers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 2,
                **QUIET,
            }
        )
        self._failed: list[str] = []

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error}")

    def send(self, records: Sequence[Record], wait: bool = True) -> None:
        for record in records:
            while True:
                try:
                    partition = -1 if record.partition is None else record.partition
                    self._producer.produce(record.topic, record.value, record.key, partition, self._delivered)
                    break
                except BufferError:
                    self._producer.poll(0.1)
        self._producer.poll(0)
        if wait:
            self.flush()

    def flush(self) -> None:
        self._producer.flush(DRAIN_S)
        if self._failed:
            raise DemoFailed(f"{len(self._failed)} records could not be sent; the first: {self._failed[0]}")


class _Reader:
    """A downstream service: reads committed decisions as they come, and how late they are."""

    def __init__(self, settings: Settings):
        self.statuses: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        config = {"bootstrap.servers": settings.bootstrap_servers, "group.id": f"{settings.app_id}-reader"}
        config |= {"enable.auto.commit": False, "fetch.wait.max.ms": 5, "fetch.queue.backoff.ms": 1} | QUIET
        self._decisions = Consumer(config | {"isolation.level": "read_committed"})
        self._sources = Consumer(config)
        self._sent: dict[tuple[int, int], int] = {}
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._read_sources), threading.Thread(target=self._read_decisions)]
        for consumer, topic in ((self._decisions, "allocations.v1"), (self._sources, "orders.v1")):
            partitions = consumer.list_topics(topic, 10).topics[topic].partitions
            consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _read_sources(self) -> None:
        while not self._stopped.is_set():
            for message in self._sources.consume(1_000, 0.05):
                if not message.error():
                    self._sent[message.partition(), message.offset()] = message.timestamp()[1]

    def _read_decisions(self) -> None:
        while not self._stopped.is_set():
            message = self._decisions.poll(0.05)
            if message is None or message.error():
                continue
            now_ms = time.time() * 1000
            decision = orjson.loads(message.value())
            self.statuses[decision["status"]] += 1
            source = decision["source"]
            if source["topic"] == "orders.v1":
                sent = self._sent.get((source["partition"], source["offset"]))
                if sent is not None:
                    self.latencies_ms.append(now_ms - sent)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._decisions.close()
        self._sources.close()


@contextmanager
def running(settings: Settings, directory: Path, count: int) -> Iterator[Workers]:
    """Run so many workers as processes; what is left of them at the end is killed."""
    workers = Workers(settings, directory, count)
    try:
        workers.start()
        yield workers
    finally:
        workers.end()


def drain(settings: Settings, workers: Workers) -> None:
    """Wait until all that was sent is committed; raises `DemoFailed` if it takes too long, or a worker ends."""
    deadline = time.monotonic() + DRAIN_S
    while (left := _lag(settings)) > 0:
        workers.check()
        if time.monotonic() > deadline:
            raise DemoFailed(f"{left:,} records were not committed within {DRAIN_S:.0f} s; see {workers.log_path}")
        time.sleep(0.02)


@contextmanager
def _reading(settings: Settings) -> Iterator[_Reader]:
    reader = _Reader(settings)
    reader.start()
    try:
        yield reader
    finally:
        reader.stop()


@cache
def _client(settings: Settings) -> Consumer:
    config = {"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.app_id, "enable.auto.commit": False}
    return Consumer(config | QUIET)


def _partitions(settings: Settings, topic: str) -> list[TopicPartition]:
    found = _client(settings).list_topics(topic, 10).topics[topic].partitions
    return [TopicPartition(topic, partition) for partition in found]


def _ends(settings: Settings, topic: str) -> int:
    """Sum the end offsets of a topic."""
    return sum(_end(settings, place) for place in _partitions(settings, topic))


def _end(settings: Settings, place: TopicPartition) -> int:
    """Give a partition's end offset; a topic made a moment ago may have no leader yet."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return _client(settings).get_watermark_offsets(place, 10, cached=False)[1]
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _lag(settings: Settings) -> int:
    """Count the input records that are not committed yet; one, if a broker that has just started can't tell."""
    places = [place for topic in (*INVENTORY_TOPICS, "clicks.v1") for place in _partitions(settings, topic)]
    try:
        committed = _client(settings).committed(places, 10)
    except KafkaException as failure:
        if failure.args[0].code() not in _NOT_YET:
            raise
        return 1
    ends = (_end(settings, place) for place in places)
    return sum(max(0, end - max(0, place.offset)) for place, end in zip(committed, ends, strict=True))
