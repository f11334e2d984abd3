"""Reading a partition to its end: the one way, for recovery, the command line, the audit, the benchmarks and the tests.

The end is the last stable offset, told by librdkafka's end-of-partition event, which counts commit markers too. So a reader
of committed records ends though the partition's last offset is a marker, which no reader is given.
Invariant: of a partition each record is given once, in order, up to its end or to the end that the caller names.
Not here: reading on for ever (locations.py, standby.py, `nearshelf tail`), what records mean.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from streams.kafka.clients import BrokerUnreachable, reading_config
from streams.kafka.names import Consumer
from topics.errors import NearshelfError

FETCH_RECORDS = 500
POLL_S = 0.2
# A client made anew answers at once; one that has not by then is better replaced than waited for.
ANSWER_S = 5.0
SILENCE_S = 30
AGAIN_S = 0.1
MOVING = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}
"""What a broker answers of a partition whose leader changes, or that was made a moment ago."""
Partition = tuple[str, int]
"""Topic and partition."""


class Interrupted(NearshelfError):
    """The caller was told to stop."""


def read_to_end(
    consumer: Any,
    starts: Mapping[Partition, int],
    waited: Callable[[float], object],
    ends: Mapping[Partition, int] | None = None,
) -> Iterator[Any]:
    """Yield the messages of partitions up to their ends.

    Parameters
    ----------
    consumer : Consumer
        With `enable.partition.eof`; nobody else uses it meanwhile. Its assignment is taken away afterwards.
    starts : mapping of (topic, partition) to int
        Offset to begin from, or `OFFSET_BEGINNING`.
    waited : callable
        Called after each fetch with the seconds since anything was heard; what it raises ends the reading.
    ends : mapping of (topic, partition) to int, optional
        Offset to stop before, though more may be there; the partition is waited for until it reaches it. Default: the last
        stable offset.

    Raises
    ------
    KafkaException
        A partition can't be read.
    """
    left: set[Any] = set(starts)
    ends_of: Mapping[Any, float] = ends or {}
    consumer.assign([TopicPartition(*place, offset) for place, offset in starts.items()])
    heard = time.monotonic()
    try:
        while left:
            # One message first: `consume` waits for the whole number.
            first = consumer.poll(POLL_S)
            heard = time.monotonic() if first is not None else heard
            waited(time.monotonic() - heard)
            for message in [first, *consumer.consume(FETCH_RECORDS, 0)] if first is not None else ():
                error, place = message.error(), (message.topic(), message.partition())
                at_end = error is not None and error.code() == KafkaError._PARTITION_EOF
                if error is not None and not at_end:
                    if not error.retriable():
                        raise KafkaException(error)
                elif (message.offset() or 0) >= ends_of.get(place, 0 if at_end else inf):
                    left.discard(place)
                elif not at_end and place in left:
                    yield message
    finally:
        consumer.unassign()


class LogReader:
    """Answers what the cluster knows of the consumer group and of partitions' ends, and reads a partition to its end.

    It is no member of the group: Faust is. One call at a time, from any thread, is let in by confluent-kafka 2.16; so a
    client that a thread polls for ever must not be asked anything.

    Parameters
    ----------
    settings
        `bootstrap_servers`, `topic_prefix`, `group_id`, `request_timeout_ms`, `fetch_queue_backoff_ms`.
    group : str, optional
        The consumer group asked about. Default: the workers', `group_id`.
    own
        More of the consumer's configuration, `_` for each `.`.
    """

    def __init__(self, settings: Any, group: str | None = None, **own: Any):
        self._bootstrap_servers = settings.bootstrap_servers
        self._timeout_s = min(ANSWER_S, settings.request_timeout_ms / 1000)
        reading = {
            "enable_partition_eof": True,
            "auto_offset_reset": "error",
            "fetch_queue_backoff_ms": settings.fetch_queue_backoff_ms,
            "fetch_wait_max_ms": 10,  # the end is told only when a fetch comes back empty
        }
        self.consumer = Consumer(reading_config(settings, group or settings.group_id, **reading | own))

    def __enter__(self) -> "LogReader":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self.consumer.close()

    def group_metadata(self) -> Any:
        """Give what a transaction commits the group's offsets with."""
        return self.consumer.consumer_group_metadata()

    def committed(self, topics: Iterable[str], partition: int) -> dict[str, int]:
        """Give the stable committed offset of each topic that has one."""
        found = self.committed_of((topic, partition) for topic in topics)
        return {topic: offset for (topic, _), offset in found.items()}

    def committed_of(self, places: Iterable[Partition]) -> dict[Partition, int]:
        """Give the stable committed offset of each partition that has one."""
        found = {}
        for answer in self.consumer.committed([TopicPartition(*place) for place in places], self._timeout_s):
            if answer.error:
                raise KafkaException(answer.error)
            if answer.offset >= 0:
                found[answer.topic, answer.partition] = answer.offset
        return found

    def range(self, topic: str, partition: int, timeout_s: float | None = None) -> tuple[int, int]:
        """Give the first offset of a partition and its last stable one, now; a partition without a leader is asked again."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout_s, cached=False)
            except KafkaException as failure:
                if failure.args[0].code() not in MOVING or time.monotonic() > deadline:
                    raise
                time.sleep(AGAIN_S)

    def since(self, topic: str, partition: int, time_ms: int) -> int:
        """Give the offset of a partition's first record of a time or later, `OFFSET_END` if there is none."""
        (found,) = self.consumer.offsets_for_times([TopicPartition(topic, partition, time_ms)], self._timeout_s)
        return found.offset

    def read(self, topic: str, starts: Mapping[int, int]) -> Iterator[Any]:
        """Yield a topic's committed messages: of each partition from an offset, or the first left, to its last stable one.

        Raises
        ------
        BrokerUnreachable
            Nothing was heard of the partitions for `SILENCE_S`.
        KafkaException
            A partition can't be read.
        """
        ranges = {partition: self.range(topic, partition) for partition in starts}
        # An offset beyond the end would be taken for one that is gone.
        left = {partition: start for partition, start in starts.items() if start < ranges[partition][1]}

        def waited(silent_s: float) -> None:
            if silent_s > SILENCE_S:
                raise BrokerUnreachable(self._bootstrap_servers, f"since {SILENCE_S} s")

        places = {(topic, partition): max(start, ranges[partition][0]) for partition, start in left.items()}
        yield from read_to_end(self.consumer, places, waited, {place: ranges[place[1]][1] for place in places})

    def messages(self, topic: str, partition: int, interrupted: Callable[[], bool], start: int | None = None) -> Iterator[Any]:
        """Yield a partition's committed messages from offset `start` (None: its first) to its last stable one.

        Raises
        ------
        Interrupted
            `interrupted`, asked every now and then, said so.
        KafkaException
            The partition can't be read.
        """
        # librdkafka looks for the leader of a topic that is new to it once a second, but at once to answer this.
        self.range(topic, partition)

        def waited(_: float) -> None:
            if interrupted():
                raise Interrupted

        yield from read_to_end(self.consumer, {(topic, partition): OFFSET_BEGINNING if start is None else start}, waited)
