"""A local Kafka for one benchmark, what loads and observes it, and the processes that are measured on it.

Owner: one run of a benchmark. Every topic has one partition, of one pool.
Not here: what is measured (end_to_end.py, latency.py).
"""

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks import harness
from benchmarks.synthetic import Synthetic
from config.settings import Settings, load_settings
from topics.catalogue import CATALOGUE, create_topics

POOL = "bench"
PATIENCE_S = 900  # the first worker on a machine compiles its kernels
SETTLE_S = 1.0  # between loading and the start of time: the broker has nothing left to do
POLL_S = 0.005
NOT_YET = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
"""What a broker answers of topics and groups that are just being created."""


class WrongAnswer(Exception):
    """What was measured did not do its job; the message says in what."""


@dataclass(frozen=True)
class Round:
    """What one round took, by the clock and of each process's CPU."""

    events: int
    seconds: float
    process_cpu_s: float
    broker_cpu_s: float
    busy: float
    """Share of all cores' time that was used, by anybody."""


class Process:
    """A process under test; its output goes to a file."""

    def __init__(self, name: str, command: list[str], log: Path, environment: dict[str, str]):
        self.name, self._log = name, log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env=harness.environment() | environment,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def await_that(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds, looked at every few milliseconds."""
        deadline = time.monotonic() + PATIENCE_S
        while not _holds(condition):
            if self._process.poll() is not None or time.monotonic() > deadline:
                state = "stands still" if self._process.returncode is None else f"ended with {self._process.returncode}"
                raise WrongAnswer(f"{self.name} {state}. End of its log:\n{self._log.read_text()[-3000:]}")
            time.sleep(POLL_S)

    def metrics(self) -> str:
        """What a worker tells Prometheus."""
        port = re.search(r"metrics at http://127\.0\.0\.1:(\d+)", self._log.read_text())[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as found:
            return found.read().decode()

    def finish(self, timeout_s: float) -> None:
        """Wait for it to end by itself; raises `WrongAnswer` if it does not, or not well."""
        try:
            status = self._process.wait(max(1.0, timeout_s))
        except subprocess.TimeoutExpired:
            status = None
        if status != 0:
            raise WrongAnswer(f"{self.name} ended with {status}. End of its log:\n{self._log.read_text()[-3000:]}")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Bench:
    """The broker of a run, and what loads and observes it. Every topic has one partition."""

    def __init__(self, settings: Settings, broker_pid: int, directory: Path):
        self.settings, self._broker_pid, self.directory = settings, broker_pid, directory
        # Without log lines of their own: these clients outlive the broker by a moment.
        clients = {"bootstrap.servers": settings.bootstrap_servers, "log_level": 0}
        self._admin = AdminClient(clients)
        queue = {"linger.ms": 5, "queue.buffering.max.messages": 0, "queue.buffering.max.kbytes": 2_000_000}
        self._producer = Producer(clients | queue)
        self._loader = Producer(clients | queue | {"transactional.id": "bench-loader", "transaction.timeout.ms": 600_000})
        self._loader.init_transactions()
        self._reader = {
            "group.id": settings.app_id,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 1,
        }
        self._reader |= clients
        self._committed = Consumer(self._reader | {"isolation.level": "read_committed"})
        # Asked for stable offsets, the coordinator would answer only while no transaction is open.
        self._offsets = Consumer(self._reader | {"isolation.level": "read_uncommitted"})

    def create(self, prefix: str, *models: str) -> dict[str, str]:
        """Create topics like those of the catalogue, under names of their own."""
        names = {model: f"{prefix}-{model}" for model in models}
        wanted = [NewTopic(names[model], 1, 1, config=CATALOGUE[model].config(self.settings)) for model in models]
        for future in self._admin.create_topics(wanted, operation_timeout=30).values():
            future.result()
        return names

    def write_network(self, work: Synthetic) -> Path:
        """Write the workload's locations as a network file, in JSON, which is YAML too."""
        path = self.directory / "network.json"
        locations = [place.model_dump(mode="json", exclude_none=True) for place in work.network()]
        path.write_text(json.dumps({"version": 1, "pools": [{"id": POOL}], "locations": locations}))
        return path

    def worker_command(self, work: Synthetic) -> list[str]:
        """The command line of a worker on this broker, with this run's settings."""
        command = [sys.executable, "-m", "streams.cli", "worker", "--network", str(self.write_network(work))]
        command += ["--bootstrap-servers", self.settings.bootstrap_servers, "--preset", self.settings.preset]
        for name in ("app_id", "partitions", "click_partitions", "metrics_port"):
            command += ["--set", f"{name}={getattr(self.settings, name)}"]
        return command

    def append(self, topic: str, values: list[bytes]) -> None:
        """Append records, and return when they are there."""
        _send(self._producer, topic, values)

    def load(self, topic: str, values: list[bytes]) -> tuple[int, Callable[[], None]]:
        """Append records that nobody can read yet; gives the offset behind the last, and what releases them."""
        ends, release = self.load_all([(topic, values)])
        return ends[topic], release

    def load_all(self, parts: list[tuple[str, list[bytes]]]) -> tuple[dict[str, int], Callable[[], None]]:
        """Append parts to topics, one after the other, all released at once; gives each topic's offset behind the last."""
        self._loader.begin_transaction()
        for topic, values in parts:
            _send(self._loader, topic, values)
        time.sleep(SETTLE_S)
        ends = {topic: self._offsets.get_watermark_offsets(TopicPartition(topic, 0), 30)[1] for topic, _ in parts}
        return ends, self._loader.commit_transaction

    def end(self, topic: str) -> int:
        """The offset behind the last record that can be read."""
        return self._committed.get_watermark_offsets(TopicPartition(topic, 0), 30)[1]

    def committed(self, topic: str) -> int:
        """The offset up to which the worker has committed a topic."""
        return self._offsets.committed([TopicPartition(topic, 0)], 30)[0].offset

    def read(self, topic: str, start: int = 0) -> Iterator[Any]:
        """The records that can be read."""
        consumer = Consumer(self._reader)
        try:
            consumer.assign([TopicPartition(topic, 0, start)])
            while True:
                for message in consumer.consume(5_000, 1.0):
                    if message.error() is None:
                        yield message
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        return
                    else:
                        raise KafkaException(message.error())
        finally:
            consumer.close()

    @contextmanager
    def group(self, name: str) -> Iterator[Callable[[str], int]]:
        """Give what tells the offset up to which a consumer group has committed a topic."""
        consumer = Consumer(self._reader | {"group.id": name, "isolation.level": "read_uncommitted"})
        try:
            yield lambda topic: consumer.committed([TopicPartition(topic, 0)], 30)[0].offset
        finally:
            consumer.close()

    @contextmanager
    def process(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> Iterator[Process]:
        """Run a process, and stop it."""
        process = Process(name, command, self.directory / f"{name}.log", environment or {})
        try:
            yield process
        finally:
            process.stop()

    def measure(self, process: Process, events: int, release: Callable[[], Any], done: Callable[[], bool]) -> Round:
        """Time what follows a release until all of it is done."""
        pids = process.pid, self._broker_pid
        before, idle_s, started = [_cpu_s(pid) for pid in pids], psutil.cpu_times().idle, time.perf_counter()
        release()
        process.await_that(done)
        seconds = time.perf_counter() - started
        used = [_cpu_s(pid) - cpu_s for pid, cpu_s in zip(pids, before, strict=True)]
        busy = 1 - (psutil.cpu_times().idle - idle_s) / (seconds * psutil.cpu_count())
        return Round(events, seconds, *used, busy)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except KafkaException as failure:
        if failure.args[0].code() in NOT_YET:
            return False
        raise


def _send(producer: Producer, topic: str, values: list[bytes]) -> None:
    key = POOL.encode()
    messages = [{"key": key, "value": value} for value in values]
    if producer.produce_batch(topic, messages, partition=0) < len(messages) or producer.flush(120):
        raise WrongAnswer(f"{topic} does not take the benchmark's {len(values)} records")


def _cpu_s(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


@contextmanager
def bench(preset: str) -> Iterator[Bench]:
    """Start a broker of our own with all topics, for a worker with that preset; and stop it."""
    with tempfile.TemporaryDirectory(prefix="nearshelf-bench-") as name:
        directory = Path(name)
        broker = load_settings(data_directory=directory).local_broker()
        try:
            settings = load_settings(
                data_directory=directory,
                bootstrap_servers=broker.start(),
                preset=preset,
                app_id="bench",
                partitions=1,
                click_partitions=1,
                metrics_port=0,
            )
            create_topics(AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0}), settings)
            yield Bench(settings, broker.status().pid, directory)
        finally:
            broker.stop()
