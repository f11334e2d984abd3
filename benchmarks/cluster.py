"""A local Kafka for one benchmark, and what loads and observes it.

Owner: one run of a benchmark. Topics have one partition, of one pool, unless a benchmark asks for more; then each pool is
named so that it has a partition to itself.
Not here: what is measured (end_to_end.py, latency.py, ...), the processes (fleet.py).
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from benchmarks.fleet import Process, worker_arguments
from benchmarks.harness import WrongAnswer
from benchmarks.record import values as values_of
from benchmarks.synthetic import Synthetic
from config.settings import Settings, load_settings
from streams.kafka.clients import client_config, reading_config
from streams.kafka.create import create_topics
from streams.kafka.reading import read_to_end
from topics.catalogue import CATALOGUE
from topics.keys import partition_of

POOL = "bench"
SETTLE_S = 1.0  # between loading and the start of time: the broker has nothing left to do
Ends = dict[tuple[str, int], int]
"""Topic and partition → offset behind the last record."""
Part = tuple[str, str, list[bytes]]
"""Topic, pool, and values of records that follow each other."""


@dataclass(frozen=True)
class Round:
    """What one round took, by the clock and of each process's CPU."""

    events: int
    seconds: float
    process_cpu_s: float
    """Of the process under test, or of all of them."""
    broker_cpu_s: float
    busy: float
    """Share of all cores' time that was used, by anybody."""


class Sampler:
    """Looks at processes at regular times, in a thread, while the `with` block runs.

    Attributes
    ----------
    samples : list of dict
        Seconds since the start (`at_s`), summed over the processes `rss_mb`, `fds`, `sockets`, `threads`, and `more`'s figures.
    """

    def __init__(self, processes: Sequence[Process], every_s: float, more: Callable[[], dict[str, float]] = dict):
        self.samples: list[dict[str, float]] = []
        self._processes = [psutil.Process(process.pid) for process in processes]
        self._every_s, self._more = every_s, more
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> "Sampler":
        self.began = time.monotonic()
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        found = {"at_s": time.monotonic() - self.began, "rss_mb": 0.0, "fds": 0, "sockets": 0, "threads": 0}
        try:
            for process in self._processes:
                found["rss_mb"] += process.memory_info().rss / 1e6
                found["fds"] += process.num_fds()
                found["sockets"] += len(process.net_connections())
                found["threads"] += process.num_threads()
        except psutil.Error:  # it has ended: its own business to say so
            return
        self.samples.append(found | self._more())


class Bench:
    """The broker of a run, and what loads and observes it."""

    def __init__(self, settings: Settings, broker_pid: int, directory: Path):
        self.settings, self._broker_pid, self.directory = settings, broker_pid, directory
        # Without log lines of their own: these clients outlive the broker by a moment.
        clients = client_config(settings, log_level=0)
        self._admin = AdminClient(clients)
        queue = {"linger.ms": 5, "queue.buffering.max.messages": 0, "queue.buffering.max.kbytes": 2_000_000}
        self._producer = Producer(clients | queue)
        self._loader = Producer(clients | queue | {"transactional.id": "bench-loader", "transaction.timeout.ms": 600_000})
        self._loader.init_transactions()
        own = {"enable_partition_eof": True, "fetch_queue_backoff_ms": 1, "log_level": 0}
        self._reader = reading_config(settings, settings.app_id, **own)
        self._committed = Consumer(self._reader)
        # Asked for stable offsets, the coordinator would answer only while no transaction is open.
        self._offsets = Consumer(self._reader | {"isolation.level": "read_uncommitted"})

    def create(self, prefix: str, *models: str) -> dict[str, str]:
        """Create topics like those of the catalogue, under names of their own."""
        names = {model: f"{prefix}-{model}" for model in models}
        wanted = [NewTopic(names[model], 1, 1, config=CATALOGUE[model].config(self.settings)) for model in models]
        for future in self._admin.create_topics(wanted, operation_timeout=30).values():
            future.result()
        return names

    def write_network(self, *works: Synthetic) -> Path:
        """Write the workloads' locations as a network file, in JSON, which is YAML too."""
        path = self.directory / "network.json"
        locations = [place.model_dump(mode="json", exclude_none=True) for work in works for place in work.network()]
        pools = [{"id": work.pool} for work in works]
        path.write_text(json.dumps({"version": 1, "pools": pools, "locations": locations}))
        return path

    def worker_command(self, *works: Synthetic) -> list[str]:
        """The command line of a worker on this broker, with this run's settings."""
        return [sys.executable, "-m", "streams.cli", *worker_arguments(self.settings, network=self.write_network(*works))]

    def append(self, topic: str, values: list[bytes], pool: str = POOL) -> None:
        """Append a pool's records, and return when they are there."""
        _send(self._producer, topic, values, pool, self._partition_of(pool))

    def append_opening(self, work: Synthetic, topic: str = "stock.v1") -> None:
        """Append the opening stock of a workload."""
        for chunk in work.opening():
            self.append(topic, list(values_of(chunk)), work.pool)

    def load(self, parts: Iterable[Part]) -> tuple[Ends, Callable[[], None]]:
        """Append parts in order, in an open transaction; gives the offsets behind them, and what commits them all at once."""
        self._loader.begin_transaction()
        places = set()
        for topic, pool, values in parts:
            partition = self._partition_of(pool)
            places.add((topic, partition))
            _send(self._loader, topic, values, pool, partition)
        time.sleep(SETTLE_S)
        return {place: self.written(*place) for place in places}, self._loader.commit_transaction

    def written(self, topic: str, partition: int = 0) -> int:
        """The offset behind the last record, also of an open transaction."""
        return self._offsets.get_watermark_offsets(TopicPartition(topic, partition), 30)[1]

    def _partition_of(self, pool: str) -> int:
        return partition_of(pool.encode(), self.settings.partitions)

    def reached(self, ends: Ends) -> bool:
        """Whether the workers have committed all that lies before these offsets."""
        return _reached(self._offsets, ends)

    def ends(self, topic: str) -> Ends:
        """The offsets behind the last records of a topic of pools that can be read."""
        return {(topic, partition): self.end(topic, partition) for partition in range(self.settings.partitions)}

    def end(self, topic: str, partition: int = 0) -> int:
        """The offset behind the last record that can be read."""
        return self._committed.get_watermark_offsets(TopicPartition(topic, partition), 30)[1]

    def configure(self, topic: str, **config: str) -> None:
        """Change a topic's configuration; `_` in a name is a dot."""
        entries = [
            ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for name, value in config.items()
        ]
        asked = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        for future in self._admin.incremental_alter_configs([asked]).values():
            future.result(30)

    def read(self, topic: str, start: int = 0, partition: int = 0) -> Iterator[Any]:
        """The records that can be read."""
        consumer = Consumer(self._reader)
        try:
            yield from read_to_end(consumer, {(topic, partition): start}, lambda silent_s: None)
        finally:
            consumer.close()

    @contextmanager
    def group(self, name: str) -> Iterator[Callable[[Ends], bool]]:
        """Give a function that tells whether a consumer group has committed all that lies before some offsets."""
        consumer = Consumer(self._reader | {"group.id": name, "isolation.level": "read_uncommitted"})
        try:
            yield partial(_reached, consumer)
        finally:
            consumer.close()

    def process(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> Process:
        """Start a process, whose log is in this run's directory."""
        return Process(name, command, self.directory / f"{name}.log", environment)

    @contextmanager
    def worker(self, work: Synthetic) -> Iterator[Process]:
        """Append a workload's opening stock, run a worker, and give it when it has read all stock there is."""
        self.append_opening(work)
        with self.process("worker", self.worker_command(work)) as process:
            process.await_that(lambda: self.reached(self.ends("stock.v1")))
            yield process

    @contextmanager
    def peer(
        self, name: str, command: list[str], work: Synthetic, commit_interval_ms: int
    ) -> Iterator[tuple[Process, dict[str, str], Callable[[Ends], bool]]]:
        """Run a stream processor (peers/) on topics of its own, and give it when it has read a workload's opening stock.

        Gives its process, its topics by the names of the catalogue's, and whether it has committed all before some offsets.
        """
        models = {"stock": "stock.v1", "orders": "orders.v1", "allocations": "allocations.v1"}
        topics = self.create(name, *models.values())
        given: dict[str, Any] = {
            "bootstrap_servers": self.settings.bootstrap_servers,
            "application_id": f"peer-{name}",
            "network": str(self.write_network(work)),
            "state_directory": str(self.directory / f"{name}-state"),
            "commit_interval_ms": commit_interval_ms,
            **{option: topics[model] for option, model in models.items()},
        }
        environment = {}
        if name == "quix":
            given["producer"] = {"compression.type": self.settings.compression}
            environment["PEER"] = json.dumps(given)
        else:
            options = (part for key, value in given.items() for part in (f"--{key.replace('_', '-')}", str(value)))
            command = [*command, *options, "--set", f"producer.compression.type={self.settings.compression}"]
        self.append_opening(work, topics["stock.v1"])
        with self.group(given["application_id"]) as reached, self.process(name, command, environment) as process:
            process.await_that(lambda: reached(self.ends(topics["stock.v1"])))
            yield process, topics, reached

    def round(self, process: Process, parts: Sequence[Part], others: Sequence[Process] = ()) -> Round:
        """Load parts, and time the workers from their release until all are committed."""
        ends, release = self.load(parts)
        count = sum(len(values) for *_, values in parts)
        return self.measure(process, count, release, lambda: self.reached(ends), others)

    def measure(
        self,
        process: Process,
        events: int,
        release: Callable[[], Any],
        done: Callable[[], bool],
        others: Sequence[Process] = (),
    ) -> Round:
        """Time what follows a release until all of it is done; `process_cpu_s` is the process's and the others'."""
        pids = self._broker_pid, process.pid, *(other.pid for other in others)
        before, idle_s, started = [cpu_s(pid) for pid in pids], psutil.cpu_times().idle, time.perf_counter()
        release()
        process.await_that(done)
        seconds = time.perf_counter() - started
        used = [cpu_s(pid) - earlier for pid, earlier in zip(pids, before, strict=True)]
        busy = 1 - (psutil.cpu_times().idle - idle_s) / (seconds * (psutil.cpu_count() or 1))
        return Round(events, seconds, sum(used[1:]), used[0], busy)


def _reached(consumer: Consumer, ends: Ends) -> bool:
    found = consumer.committed([TopicPartition(*place) for place in ends], 30)
    return all(each.offset >= ends[each.topic, each.partition] for each in found)


def pools_for(partitions: int) -> list[str]:
    """Give a pool id per partition, such that the key's partitioner puts each into a partition of its own, in order."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        pool = f"{POOL}-{number}"
        found.setdefault(partition_of(pool.encode(), partitions), pool)
        number += 1
    return [found[partition] for partition in range(partitions)]


def _send(producer: Producer, topic: str, values: list[bytes], pool: str, partition: int) -> None:
    key = pool.encode()
    messages = [{"key": key, "value": value} for value in values]
    if producer.produce_batch(topic, messages, partition=partition) < len(messages) or producer.flush(120):
        raise WrongAnswer(f"{topic} does not take the benchmark's {len(values)} records")


def cpu_s(pid: int) -> float:
    """CPU time that a process has used since its start."""
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


@contextmanager
def bench(preset: str | None = None, partitions: int = 1, click_partitions: int = 1, **settings: Any) -> Iterator[Bench]:
    """Start a broker of our own with all topics, for workers with a preset, if any, and these settings; and stop it."""
    with tempfile.TemporaryDirectory(prefix="nearshelf-bench-") as name:
        directory = Path(name)
        broker = load_settings(data_directory=directory).local_broker()
        try:
            found = load_settings(
                data_directory=directory,
                bootstrap_servers=broker.start(),
                preset=preset,
                app_id="bench",
                partitions=partitions,
                click_partitions=click_partitions,
                metrics_port=0,
                **settings,
            )
            create_topics(AdminClient(client_config(found, log_level=0)), found)
            broker_pid = broker.status().pid
            assert broker_pid is not None, "the broker has just answered"
            yield Bench(found, broker_pid, directory)
        finally:
            broker.stop()
