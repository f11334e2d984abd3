"""The protocol between a flow and a pipeline: a batch of records goes in, everything to be committed comes out.

A pipeline owns the state of one partition of one group of topics. It knows no Kafka client, no clock and no event loop, so
the same records in the same order always give the same outcome. The flow (worker/flow.py) gives batches to the pipeline,
commits their outcomes, and restores the pipeline from the changelog whenever it can't know whether a commit took effect.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, TypeVar

import numpy as np

from state.tableset import Delta
from topics.codec.messages import Messages
from topics.codec.records import Record, Records
from topics.errors import Contradiction


@dataclass(slots=True)
class Segment:
    """Consecutive records of one input topic, oldest first; there is at least one."""

    topic: str
    records: list[Records]

    @classmethod
    def of(cls, topic: str, records: Iterable[Any]) -> "Segment":
        """Make one of objects with a `Record`'s attributes."""
        return cls(topic, [Records.of(records)])

    def __len__(self) -> int:
        return sum(map(len, self.records))

    def __iter__(self) -> Iterator[Record]:
        return chain.from_iterable(self.records)


@dataclass(slots=True)
class LocationChange:
    """One record of `locations.v1`."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass(slots=True)
class Outcome:
    """All that one batch changes outside the pipeline: to be committed in one transaction, or not at all."""

    outputs: dict[str, Messages]
    """Topic → what is produced to it."""
    changelog: bytes
    """The batch's changelog record; empty when nothing happened that a replay must know."""
    offsets: dict[str, int]
    """Input topic → offset to read next, in this partition; only the topics that had records."""
    sequence: int
    """The batch's number in this partition, from 1, without gaps."""
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    """(Topic, outcome's wire name) → events."""
    stages: dict[str, float] = field(default_factory=dict)
    """Stage → seconds."""
    link: bytes = b""
    """The changelog record's link in the hash chain (state/changelog.py)."""
    timestamps: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """int64[n]: the records' own timestamps, epoch ms."""
    left_out: dict[tuple[str, str], int] = field(default_factory=dict)
    """(Topic, field) → good events in which it only describes them, was wrong, and is left out."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where in a partition's changelog a state stands, and what had been read by then."""

    batch: int
    """Number of the last batch in the state; 0 = none."""
    link: bytes
    at: int
    """Offset of that batch's first record in the changelog."""
    next: int
    """Offset after its last."""
    inputs: dict[str, int]
    """Input topic → offset to read next."""
    locations: dict[int, int]
    """Partition of locations.v1 → offset after the last record applied."""


class ChangelogGap(Contradiction):
    """The changelog's chain of batches is broken: found, expected and where stand in the message."""


D = TypeVar("D")
"""A decoded batch; what it is, only its pipeline knows."""


class Pipeline(Protocol[D]):
    """One partition's owner of state, as the flow sees it. A batch goes through `decode`, `lacks_locations` and `process`."""

    topics: tuple[str, ...]
    changelog_topic: str
    sequence: int
    link: bytes
    next_offsets: dict[str, int]

    def decode(self, segments: list[Segment]) -> D:
        """Read a batch's records, merged by timestamp. The state is not asked and not changed."""

    def lacks_locations(self, decoded: D) -> bool:
        """Tell whether a record names a location or a pool that is unknown here, so that the location feed should catch up."""

    def process(self, decoded: D, changes: list[LocationChange]) -> Outcome:
        """Apply a batch: location changes first, then its records."""

    def needs_ticks(self) -> list[bytes]:
        """Give the ids of the pools in which something waits on time."""

    def load(self, cursor: Cursor, pools: dict[str, Delta]) -> None:
        """Take over a snapshot: all rows of all pools, as one delta each. The pipeline is empty before."""

    def restore(self, record: bytes, link: bytes) -> None:
        """Fold one whole changelog record, whose link is proven; raises `ChangelogGap` if it is not the next of the chain."""

    def seal(self) -> None:
        """Build what is derived from the restored tables; once, after the last `restore`."""

    def digests(self) -> dict[str, str]:
        """Give each pool's state as one number (state/digest.py)."""
