"""How a partition's owner comes to its state: committed offsets, changelog, and the proof that the two belong together.

The steps, in this order, each in the flow's thread:
1. fence (transactions.py): from here on nobody else commits, and what a former owner left open is settled;
2. read the group's committed offsets, stable ones only;
3. fold the changelog up to its last stable offset, from where a standby or a snapshot stands, or from its first record;
4. check: the chain of batches has no gap (the pipeline does), and it ends where the committed offsets are;
5. give the offsets from which to read on.
Not here: the state itself (state/), who calls (flow.py).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from streams.batch.pipeline import Pipeline
from streams.kafka.clients import reading_config
from streams.worker.chain import Chain

FETCH_RECORDS = 500
POLL_S = 0.2
# A client made anew answers at once; one that has not by then is better replaced than waited for.
ANSWER_S = 5.0


class Inconsistent(Exception):
    """Offsets, changelog and inputs contradict each other: what is committed is not whole. Nothing may go on from it."""


class Interrupted(Exception):
    """The owner was told to stop."""


class LogReader:
    """Answers what the cluster knows of the consumer group and of partitions' ends, and reads a partition to its end.

    It is no member of the group: Faust is. One call at a time, from any thread, is let in by confluent-kafka 2.16; so a
    client that some thread polls for ever must never be asked anything.
    """

    def __init__(self, settings: Any):
        self._timeout_s = min(ANSWER_S, settings.request_timeout_ms / 1000)
        self._consumer = Consumer(
            reading_config(
                settings,
                settings.app_id,
                enable_partition_eof=True,
                auto_offset_reset="error",
                fetch_queue_backoff_ms=settings.fetch_queue_backoff_ms,
                fetch_wait_max_ms=10,
            )
        )

    def __enter__(self) -> "LogReader":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def group_metadata(self) -> Any:
        """Give what a transaction commits the group's offsets with."""
        return self._consumer.consumer_group_metadata()

    def committed(self, topics: Iterable[str], partition: int) -> dict[str, int]:
        """Give the stable committed offset of each topic that has one."""
        asked = [TopicPartition(topic, partition) for topic in topics]
        found = {}
        for answer in self._consumer.committed(asked, self._timeout_s):
            if answer.error:
                raise KafkaException(answer.error)
            if answer.offset >= 0:
                found[answer.topic] = answer.offset
        return found

    def range(self, topic: str, partition: int, timeout_s: float | None = None) -> tuple[int, int]:
        """Give the first offset of a partition and its last stable one, now."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout_s, cached=False)

    def messages(self, topic: str, partition: int, interrupted: Callable[[], bool], start: int | None = None) -> Iterator[Any]:
        """Yield a partition's committed messages from offset `start` (None: its first) to its last stable one.

        Raises
        ------
        Interrupted
            `interrupted`, asked every now and then, said so.
        KafkaException
            The partition can't be read.
        """
        # librdkafka looks for the leader of a topic that is new to it once a second; whoever asks for its end knows at once.
        self.range(topic, partition)
        self._consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING if start is None else start)])
        try:
            while True:
                # One message first: `consume` waits for the whole number.
                first = self._consumer.poll(POLL_S)
                if interrupted():
                    raise Interrupted
                for message in [first, *self._consumer.consume(FETCH_RECORDS, 0)] if first is not None else ():
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:
                        return
                    elif not error.retriable():
                        raise KafkaException(error)
        finally:
            self._consumer.unassign()


def restore(
    pipeline: Pipeline, reader: LogReader, partition: int, interrupted: Callable[[], bool], start: int | None = None
) -> int:
    """Fold the partition's changelog into a pipeline and seal it.

    Parameters
    ----------
    pipeline : Pipeline
        Empty, or as a snapshot or a standby left it. Its `changelog_topic` is read, `partition` of it, up to the last stable
        offset.
    interrupted : callable
        Asked every now and then; when true, the restoration is given up.
    start : int, optional
        Offset to read from, after the last batch that the pipeline has. Default: the changelog's first record.

    Returns
    -------
    int
        Batches folded.

    Raises
    ------
    ChangelogGap
        A batch or a part of one is missing, or was altered.
    Interrupted
        `interrupted` said so.
    KafkaException
        The changelog can't be read.
    """
    count = 0
    chain = Chain(pipeline.sequence, pipeline.link)
    for batch in chain.batches(reader.messages(pipeline.changelog_topic, partition, interrupted, start)):
        pipeline.restore(batch.record, batch.link)
        count += 1
    pipeline.seal()
    return count


def read_positions(
    restored: dict[str, int],
    committed: dict[str, int],
    ranges: dict[str, tuple[int, int]],
    expendable: Iterable[str] = (),
) -> dict[str, int]:
    """Check that offsets, changelog and inputs agree, and give the offset to read on from for each topic.

    Parameters
    ----------
    restored : dict
        Topic → next offset by the changelog; topics without a record yet are absent.
    committed : dict
        Topic → next offset by the consumer group. May lack topics: a group's offsets expire when it is long idle.
    ranges : dict
        Topic → first and last stable offset of the input.
    expendable : iterable of str
        Topics whose records may be deleted unread.

    Raises
    ------
    Inconsistent
        They don't agree, or records were deleted before they were read.

    Examples
    --------
    >>> read_positions({"a": 7}, {"a": 7}, {"a": (0, 9), "b": (2, 2)})
    {'a': 7, 'b': 2}
    """
    positions = {}
    for topic, (first, last) in ranges.items():
        known = restored.get(topic)
        if topic in committed and committed[topic] != known:
            raise Inconsistent(
                f"{topic}: the group's committed offset is {committed[topic]}, the changelog ends at {known}. They are "
                "written together, so one was changed or deleted from outside; restore it, or replay with a new app id."
            )
        if known is None or (known < first and topic in expendable):
            known = first
        elif not first <= known <= last:
            raise Inconsistent(
                f"{topic}: to be read on from offset {known}, but the log holds {first} to {last}. Records were deleted "
                "before they were read (retention shorter than the worker's absence?), or the topic was made anew; "
                "what they said is missing from the state: replay with a new app id."
            )
        positions[topic] = known
    return positions
