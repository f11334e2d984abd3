"""What the audit reads: the committed records of a topic's partition, in order, up to an end that is fixed while it is judged.

Owner: the audit. streams/audit/kafka_log.py reads a cluster; tests/memory_log.py holds hand-made records.
Not here: what records mean.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from topics.errors import Contradiction


class Record(NamedTuple):
    """One committed record; `timestamp` is the log's own, epoch ms."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Deleted(Contradiction):
    """A record that is still to be read is not there any more: retention was faster than the audit."""

    def __init__(self, topic: str, partition: int, offset: int):
        super().__init__(f"{topic}[{partition}]@{offset} was deleted before it was read")
        self.topic = topic
        self.offset = offset


class Log(Protocol):
    """A consistent view of the topics: every output of a batch is in sight if its changelog record is."""

    short: set[str]
    """Places from which a checkpoint would read on, and whose next records are deleted."""
    moving: bool
    """Whether outputs may be in sight of batches whose changelog record is not."""

    def partition_count(self, topic: str) -> int:
        """Count a topic's partitions; 0 = there is no such topic."""

    def length(self, topic: str, partition: int) -> int:
        """Estimate how many records `read` will give."""

    def read(self, topic: str, partition: int, start: int = 0) -> Iterator[Record]:
        """Give the committed records from an offset on, oldest first.

        Of a log that grows, `next` may be tried again after the end. The iterator can be pickled, without the log.
        """

    def committed(self, topic: str, partition: int) -> int | None:
        """Give the offset the workers' group had committed before anything else was read; None = never any."""
