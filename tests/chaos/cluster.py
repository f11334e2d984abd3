"""The run's own Apache Kafka, which can be killed and paused, and what its topics, transactions and groups are at a moment.

Owner: one round. Its listeners: its own for those who check, and one behind a proxy for each worker's place.
Not here: when it is hurt (faults.py).
"""

import contextlib
import os
import signal
import struct
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from config.broker import Broker, _free_port
from config.settings import load_settings
from tests.chaos.proxy import Proxy
from topics.catalogue import CATALOGUE

TIMEOUT_S = 20.0
OPEN_S = 5.0  # longer than a worker leaves a transaction open
TRANSACTIONS = "__transaction_state"
# The coordinator's names of a transaction's states; those in which one is open, or decided and not yet carried out.
OPEN = {1: "Ongoing", 2: "PrepareCommit", 3: "PrepareAbort", 7: "PrepareEpochFence"}

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Window:
    """One transaction, from its first record to the coordinator's note that it is complete; epoch ms."""

    transactional_id: str
    begun_ms: int
    ended_ms: float


class Cluster:
    """One broker in a directory, with a proxy for each of `places` workers."""

    def __init__(self, directory: Path, places: int):
        own = load_settings(data_directory=directory)  # this machine's cache of jars
        ports: list[int] = []
        while len(ports) < 2 * places:
            port = _free_port()
            if port not in ports:
                ports.append(port)
        pairs = list(zip(ports[::2], ports[1::2], strict=True))
        self.broker = Broker(directory, own.cache_directory, own.maven_url, heap_mb=512, proxied=pairs)
        self.address = self.broker.start()
        self.proxies = [Proxy(told, port) for port, told in pairs]
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0, "reconnect.backoff.max.ms": 500})

    def close(self) -> None:
        for proxy in self.proxies:
            proxy.close()
        with contextlib.suppress(psutil.NoSuchProcess):
            self._send(signal.SIGCONT)
            self._send(signal.SIGKILL)

    # Faults

    def _send(self, number: int) -> None:
        pid = self.broker.status().pid
        if pid is not None:
            os.kill(pid, number)

    def kill(self) -> None:
        """`kill -9`; returns when the process is gone."""
        process = psutil.Process(self.broker.status().pid)
        for proxy in self.proxies:
            proxy.listen(False)
        process.kill()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(10)

    def restart(self) -> None:
        """Start it again at its address, and return when it answers."""
        self.broker.start(port=int(self.address.rpartition(":")[2]))
        for proxy in self.proxies:
            proxy.listen(True)

    def pause(self) -> None:
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        self._send(signal.SIGCONT)

    # Questions

    def places(self, topics: Iterable[str]) -> list[Place]:
        found = self.admin.list_topics(timeout=TIMEOUT_S).topics
        return [(topic, partition) for topic in topics for partition in found[topic].partitions]

    def ends(self, places: Iterable[Place], stable: bool) -> dict[Place, int]:
        """Give each partition's end: the last stable offset, or that of all records."""
        level = IsolationLevel.READ_COMMITTED if stable else IsolationLevel.READ_UNCOMMITTED
        wanted = {TopicPartition(*place): OffsetSpec.latest() for place in places}
        futures = self.admin.list_offsets(wanted, isolation_level=level, request_timeout=TIMEOUT_S)
        return {(place.topic, place.partition): future.result().offset for place, future in futures.items()}

    def committed(self, group: str, places: Iterable[Place]) -> dict[Place, int]:
        """Give the group's offsets; 0 where it has none. Raises while offsets are pending."""
        # Not by the AdminClient: librdkafka 2.16 crashes in that request against a broker that has just started.
        asked = {
            "bootstrap.servers": self.address,
            "group.id": group,
            "isolation.level": "read_committed",  # so that it waits for pending offsets
            "enable.auto.commit": False,
            "log_level": 0,
        }
        consumer = Consumer(asked)
        try:
            found = consumer.committed([TopicPartition(*place) for place in places], TIMEOUT_S)
        finally:
            consumer.close()
        for place in found:
            if place.error is not None:
                raise KafkaException(place.error)
        return {(place.topic, place.partition): max(0, place.offset) for place in found}

    def messages(self, topic: str, partition: int, isolation: str = "read_committed") -> Iterator[Any]:
        """Yield a partition's messages from its first to its end now."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "chaos-checks",
                "enable.auto.commit": False,
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 10,
                "log_level": 0,
            }
        )
        consumer.assign([TopicPartition(topic, partition, 0)])
        try:
            while True:
                first = consumer.poll(TIMEOUT_S)
                if first is None:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no answer from {topic}[{partition}]"))
                for message in (first, *consumer.consume(1_000, 0)):
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:
                        return
                    elif not error.retriable():
                        raise KafkaException(error)
        finally:
            consumer.close()

    def windows(self) -> dict[str, list[Window]]:
        """Transactional id → its transactions, by the coordinator's own log."""
        found: dict[str, list[Window]] = defaultdict(list)
        for topic, partition in self.places([TRANSACTIONS]):
            begun: dict[str, int] = {}
            for message in self.messages(topic, partition, "read_uncommitted"):
                entry = transaction_entry(message.key(), message.value())
                if entry is None:
                    continue
                name, state = entry
                at_ms = message.timestamp()[1]
                if state in OPEN:
                    begun.setdefault(name, at_ms)
                elif name in begun:
                    found[name].append(Window(name, begun.pop(name), at_ms))
            for name, at_ms in begun.items():
                found[name].append(Window(name, at_ms, float("inf")))
        return found

    def without_markers(self) -> list[Place]:
        """Give the partitions in which a transaction hangs that is over, by the coordinator's own log.

        A broker of Kafka 4 does that to itself: one that was unregistered while it was paused takes its own partitions for
        deleted, and completes a transaction without writing its markers (KAFKA-20734). Nobody can read on then.
        """
        places = self.places(CATALOGUE)
        ends, stable = self.ends(places, False), self.ends(places, True)
        time.sleep(OPEN_S)
        held_up = [place for place, at in self.ends(places, True).items() if at == stable[place] < ends[place]]
        is_open = any(window.ended_ms == float("inf") for windows in self.windows().values() for window in windows)
        return [] if is_open else held_up


def transaction_entry(key: bytes | None, value: bytes | None) -> tuple[str, int] | None:
    """Read (transactional id, state) from a record of `__transaction_state`; None for what is none.

    Examples
    --------
    >>> transaction_entry(b"\\0\\0\\0\\2ab", b"\\0\\1" + bytes(14) + b"\\4")
    ('ab', 4)
    """
    if key is None or value is None:
        return None
    _, size = struct.unpack_from(">hh", key)
    # version, producer id, epoch, time-out, state: the same places in all versions of the value
    _, _, _, _, state = struct.unpack_from(">hqhib", value)
    return key[4 : 4 + size].decode(), state
