"""A cluster's topics as the audit's log: a cut through all of them at the start, then one reader per partition.

The cut is consistent without stopping anybody: the changelog's end is read first; when every transaction that the outputs then
held has ended, each batch below that end has all its outputs in sight. Outputs of later batches may be in sight too (`moving`).
Owner: the audit. Not here: what records mean.
"""

import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from config.settings import Settings
from streams.audit.log import Record
from streams.audit.outputs import ALLOCATIONS, DEAD_LETTERS, INVENTORY
from streams.audit.replay import CHANGELOG, LOCATIONS
from topics.events import INVENTORY_TOPICS

OUTPUTS = (ALLOCATIONS, INVENTORY, DEAD_LETTERS)
TOPICS = (*INVENTORY_TOPICS, LOCATIONS, *OUTPUTS, CHANGELOG)
CUTS = 5
"""Tries for a cut during which no batch is committed."""
SETTLE_S = 5.0
"""How long open transactions may take to end before the audit begins all the same."""
FETCH_RECORDS = 1_000
COORDINATOR_COMES = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
"""What a broker that has just started answers; another try helps."""

Place = tuple[str, int]


class MissingTopics(Exception):
    """The cluster lacks topics of the catalogue; the message names them and the remedy."""


class KafkaLog:
    """See `log.Log`."""

    def __init__(self, settings: Settings):
        self._timeout_s = settings.request_timeout_ms / 1000
        self._config = {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": settings.app_id,  # never joined
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": settings.fetch_queue_backoff_ms,
            "queued.max.messages.kbytes": 16_384,
        }
        self._admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
        found = self._admin.list_topics(timeout=self._timeout_s).topics
        missing = [topic for topic in TOPICS if topic not in found]
        if missing:
            raise MissingTopics(f"the cluster has no {', '.join(missing)}: `nearshelf topics create` makes them")
        self._counts = {topic: len(found[topic].partitions) for topic in TOPICS}
        self._starts = self._offsets(TOPICS, OffsetSpec.earliest(), IsolationLevel.READ_COMMITTED)
        for _ in range(CUTS):
            self._cut()
            if not self.moving:
                break

    def partition_count(self, topic: str) -> int:
        return self._counts[topic]

    def length(self, topic: str, partition: int) -> int:
        return self._ends[topic, partition] - self._starts[topic, partition]

    def committed(self, topic: str, partition: int) -> int | None:
        return self._committed.get((topic, partition))

    def read(self, topic: str, partition: int) -> Iterator[Record]:
        start, end = self._starts[topic, partition], self._ends[topic, partition]
        if start >= end:
            return
        consumer = Consumer(self._config)
        try:
            consumer.assign([TopicPartition(topic, partition, start)])
            while True:
                # consume() alone waits for as many as it is asked for
                first = consumer.poll(self._timeout_s)
                if first is None:
                    reason = f"no record of {topic}[{partition}] within {self._timeout_s:g} s"
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, reason))
                for message in (first, *consumer.consume(FETCH_RECORDS, 0)):
                    error = message.error()
                    if error is None and message.offset() < end:
                        yield _record(message)
                    elif error is None or error.code() == KafkaError._PARTITION_EOF:
                        return
                    elif not error.retriable():
                        raise KafkaException(error)
        finally:
            consumer.close()

    def _cut(self) -> None:
        changelog = self._offsets([CHANGELOG], OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
        written = self._offsets(OUTPUTS, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)
        deadline = time.monotonic() + SETTLE_S
        while True:
            outputs = self._offsets(OUTPUTS, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
            settled = all(outputs[place] >= end for place, end in written.items())
            if settled or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        self._committed = self._group_offsets()
        inputs = self._offsets((*INVENTORY_TOPICS, LOCATIONS), OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
        later = self._offsets([CHANGELOG], OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
        self.moving = not settled or changelog != later
        self._ends = inputs | outputs | changelog

    def _offsets(self, topics: Any, which: OffsetSpec, level: IsolationLevel) -> dict[Place, int]:
        wanted = {TopicPartition(topic, partition): which for topic in topics for partition in range(self._counts[topic])}
        futures = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=self._timeout_s)
        return {(place.topic, place.partition): future.result().offset for place, future in futures.items()}

    def _group_offsets(self) -> dict[Place, int]:
        places = [TopicPartition(topic, p) for topic in INVENTORY_TOPICS for p in range(self._counts[topic])]
        request = [ConsumerGroupTopicPartitions(self._config["group.id"], places)]
        deadline = time.monotonic() + self._timeout_s
        while True:
            futures = self._admin.list_consumer_group_offsets(request, require_stable=True, request_timeout=self._timeout_s)
            try:
                (found,) = (future.result().topic_partitions for future in futures.values())
                return {(place.topic, place.partition): place.offset for place in found if place.offset >= 0}
            except KafkaException as failure:
                if failure.args[0].code() not in COORDINATOR_COMES or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)


def _record(message: Any) -> Record:
    headers = tuple(message.headers() or ())
    return Record(message.offset(), message.timestamp()[1], message.key(), message.value(), headers)
