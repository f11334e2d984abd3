"""Processes that are measured or tried: how they are started, watched and ended. One way for demo, benchmarks and tests.

Owner: the caller that starts a process also ends it; `running` does both.
Invariants: a worker gets every setting that differs from its default, so none is forgotten; its output is in a log file.
Not here: the broker (config/broker.py), what is sent (retail/, synthetic.py), forked workers (tests/chaos/nursery.py).
"""

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from benchmarks import harness
from benchmarks.record import Record
from config.settings import Settings
from streams.kafka.clients import client_config, reading_config
from streams.kafka.names import Consumer, Producer
from streams.kafka.reading import LogReader
from topics.catalogue import CLICKS, INVENTORY_TOPICS
from topics.errors import AnswerIsNo

PATIENCE_S = 900.0  # the first worker on a machine compiles its kernels
DRAIN_S = 120.0
STOP_S = 60.0
POLL_S = 0.005
MARKERS = 100
NOT_YET = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
"""What a broker answers of topics and groups that are just being created."""


class ProcessFailed(AnswerIsNo):
    """A process ended or hangs, or its work is not done in time; the message has the end of its log."""


def worker_arguments(settings: Settings, **changed: object) -> list[str]:
    """Give the arguments with which `nearshelf` runs a worker with these settings, some of them changed.

    Examples
    --------
    >>> from config.settings import load_settings
    >>> worker_arguments(load_settings(bootstrap_servers="a:9092", data_directory="/data"), metrics_port=0)
    ['worker', '--set', 'bootstrap_servers=a:9092', '--set', 'data_directory=/data', '--set', 'metrics_port=0']
    """
    given = settings.model_dump(exclude_defaults=True) | changed
    return ["worker", *(part for name, value in given.items() for part in ("--set", f"{name}={value}"))]


class Process:
    """A process whose output is appended to a log file."""

    def __init__(self, name: str, command: list[str], log: Path, environment: dict[str, str] | None = None):
        self.name, self._log = name, log
        with log.open("ab") as output:
            self._began = output.tell()
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env=harness.environment() | (environment or {}),
                start_new_session=True,  # Ctrl-C in the terminal is for its owner
            )
        self.pid = self._process.pid

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def output(self) -> str:
        """What the log says since this process started."""
        with self._log.open("rb") as log:
            log.seek(self._began)
            return log.read().decode(errors="replace")

    def check(self) -> None:
        """Raise `ProcessFailed` if it has ended by itself."""
        if self._process.poll() is not None:
            raise self._failed(f"ended with {self._process.returncode}")

    def await_that(self, condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        """Return when the condition holds, looked at every few milliseconds."""
        deadline = time.monotonic() + patience_s
        while not _holds(condition):
            self.check()
            if time.monotonic() > deadline:
                raise self._failed("stands still")
            time.sleep(POLL_S)

    def serves(self) -> bool:
        """Whether a worker gives metrics yet."""
        return self._port() is not None

    def _port(self) -> str | None:
        found = re.search(r"metrics at http://127\.0\.0\.1:(\d+)", self.output())
        return found and found[1]

    def metrics(self) -> str:
        """A worker's metrics, as Prometheus reads them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port()}/metrics", timeout=10) as found:
            return found.read().decode()

    def finish(self, timeout_s: float = STOP_S) -> None:
        """Wait for its end; raises `ProcessFailed` if it does not end in time, or not with exit status 0."""
        try:
            status = self._process.wait(max(1.0, timeout_s))
        except subprocess.TimeoutExpired:
            raise self._failed(f"did not end within {timeout_s:.0f} s") from None
        if status:
            raise self._failed(f"ended with {status}")

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as `kill -9` does."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        self.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def _failed(self, how: str) -> ProcessFailed:
        return ProcessFailed(f"{self.name} {how}. End of its log, {self._log}:\n{self.output()[-3000:]}")


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except KafkaException as failure:
        if failure.args[0].code() in NOT_YET:
            return False
        raise


class Workers:
    """Worker processes that share one log."""

    def __init__(self, settings: Settings, directory: Path, count: int):
        self.log_path = directory / "worker.log"
        self._command = [sys.executable, "-m", "streams.cli", *worker_arguments(settings, metrics_port=0)]
        self._count = count
        self._processes: list[Process] = []

    def start(self) -> None:
        """Start workers until there are as many as asked for."""
        while len(self._processes) < self._count:
            self._processes.append(Process("a worker", self._command, self.log_path))

    def ready(self) -> bool:
        """Whether one of them has said that it is ready."""
        return any("ready: " in process.output() for process in self._processes)

    def check(self) -> None:
        """Raise `ProcessFailed` if one has ended by itself."""
        for process in self._processes:
            process.check()

    def kill(self, replace: bool) -> int:
        """Kill the oldest worker, and start another if asked to; returns the dead one's process id."""
        process = self._processes.pop(0)
        process.kill()
        if replace:
            self.start()
        return process.pid

    def stop(self) -> None:
        """Ask all to leave; raises `ProcessFailed` if one does not, or not with exit status 0."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.finish()
        self._processes.clear()

    def end(self) -> None:
        """Kill all that are left."""
        for process in self._processes:
            process.kill()


@contextmanager
def running(settings: Settings, directory: Path, count: int) -> Iterator[Workers]:
    """Run so many workers; what is left of them at the end is killed."""
    workers = Workers(settings, directory, count)
    try:
        workers.start()
        yield workers
    finally:
        workers.end()


class Sender:
    """Sends records as an upstream system would: Java's default partitioner, idempotent."""

    def __init__(self, settings: Settings):
        own = {"partitioner": "murmur2_random", "enable_idempotence": True, "linger_ms": 2, "log_level": 0}
        self._producer = Producer(client_config(settings, **own))
        self._failed: list[str] = []

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error}")

    def send(self, records: Sequence[Record], wait: bool = True) -> None:
        """Send records; with `wait`, return when all are delivered."""
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
        """Return when all is delivered; raises `ProcessFailed` if something can't be."""
        self._producer.flush(DRAIN_S)
        if self._failed:
            raise ProcessFailed(f"{len(self._failed)} records could not be sent; the first: {self._failed[0]}")


def drain(settings: Settings, workers: Workers, left: Callable[[int], None] = lambda count: None) -> None:
    """Wait until all that was sent is committed.

    Parameters
    ----------
    settings, workers
        The cluster, and who does the work.
    left : callable
        Called again and again with the number of records that are still to be committed.

    Raises
    ------
    ProcessFailed
        It takes too long, or a worker ends.
    """
    deadline = time.monotonic() + DRAIN_S
    while (count := lag(settings)) > 0:
        workers.check()
        left(count)
        if time.monotonic() > deadline:
            raise ProcessFailed(f"{count:,} records were not committed within {DRAIN_S:.0f} s; see {workers.log_path}")
        time.sleep(0.02)


@cache
def _client(settings: Settings) -> Consumer:
    return Consumer(reading_config(settings, settings.group_id, log_level=0))


def partitions(settings: Settings, topic: str) -> list[TopicPartition]:
    """A topic's partitions, each with offset 0."""
    found = _client(settings).list_topics(topic, 10).topics[topic].partitions
    return [TopicPartition(topic, partition, 0) for partition in found]


def ends(settings: Settings, topic: str) -> int:
    """Sum the end offsets of a topic."""
    return sum(_end(settings, place) for place in partitions(settings, topic))


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


def lag(settings: Settings) -> int:
    """Count the input records that are not committed yet; one, if the broker has just started and does not know yet.

    A transaction's marker has an offset and is no record, so a small distance from the end is counted by reading it.
    """
    places = [place for topic in (*INVENTORY_TOPICS, CLICKS) for place in partitions(settings, topic)]
    try:
        committed = _client(settings).committed(places, 10)
    except KafkaException as failure:
        if failure.args[0].code() not in NOT_YET:
            raise
        return 1
    starts = {(place.topic, place.partition): max(0, place.offset) for place in committed}
    offsets = sum(max(0, _end(settings, place) - starts[place.topic, place.partition]) for place in places)
    if not 0 < offsets <= MARKERS:
        return offsets
    with LogReader(settings, log_level=0) as reader:
        return sum(1 for (topic, partition), start in starts.items() for _ in reader.read(topic, {partition: start}))
