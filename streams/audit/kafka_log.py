"""A cluster's topics as the audit's log: a cut through all of them, read by one consumer; then another cut.

A cut is consistent without stopping anybody: the changelogs' ends are read first; when every transaction that the
outputs then held has ended, each batch below those ends has all its outputs in sight. Outputs of later batches may be
in sight too (`moving`).
A record of an output that was stable at one cut belongs to a batch that is in sight at a later one (`due`), since the
changelog's record is written before a transaction is committed.
Memory: a few thousand records a partition. The one consumer is assigned to whatever partition is read on, for a few
megabytes.
Owner: the audit. Not here: what records mean.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from config.settings import Settings
from streams.audit.log import Deleted, Record
from streams.kafka.clients import MissingTopics, client_config
from streams.kafka.names import AdminClient
from streams.kafka.reading import Interrupted, LogReader, Partition, read_to_end
from topics.catalogue import CATALOGUE, GROUPS, Keep, Role, changelog_of, inputs_of, outputs_of, topics_of

INPUTS = {changelog_of(group): inputs_of(group) for group in GROUPS}
OUTPUTS = {changelog_of(group): outputs_of(group) for group in GROUPS}
TOPICS = tuple(dict.fromkeys(topic for group in GROUPS for topic in topics_of(group, *Role)))
CUTS = 5
"""Tries for a cut during which no batch is committed."""
SETTLE_S = 5.0
"""How long open transactions may take to end before what they hold back is left out of the cut."""
FETCH_RECORDS = 2_000
FETCH_BYTES = 4 << 20
PASSING = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)
"""What a broker that has just started, or that ends a transaction, answers; another try helps."""

Offsets = dict[Partition, int]


@dataclass(slots=True)
class _Mark:
    """What was stable at a cut, and how long the changelog was after it."""

    stable: Offsets
    written: int


class KafkaLog:
    """See `log.Log`; there is nothing in sight before the first cut.

    Parameters
    ----------
    settings : Settings
    stop : threading.Event, optional
        With it the log waits for an unreachable cluster until it is set, then raises `Interrupted`. Without: one time-out.
    """

    def __init__(self, settings: Settings, stop: threading.Event | None = None):
        self._timeout_s = settings.request_timeout_ms / 1000
        self._stop = stop
        self._admin = AdminClient(client_config(settings, log_level=0))
        found = self._admin.list_topics(timeout=self._timeout_s).topics
        missing = [topic for topic in TOPICS if topic not in found]
        if missing:
            raise MissingTopics(missing, settings)
        self._counts = {topic: len(found[topic].partitions) for topic in TOPICS}
        self._starts = self._offsets(TOPICS, OffsetSpec.earliest(), IsolationLevel.READ_COMMITTED)
        self._ends = dict(self._starts)
        self._committed: Offsets = {}
        self._marks: dict[Partition, _Mark] = {}
        self._due: dict[Partition, Offsets] = {}
        self._open: dict[Partition, tuple[int, int, float]] = {}
        self.moving = False
        self.short: set[str] = set()
        self._reader = LogReader(settings, log_level=0, queued_max_messages_kbytes=FETCH_BYTES >> 10)

    def __enter__(self) -> "KafkaLog":
        return self

    def __exit__(self, *_: Any) -> None:
        self._reader.close()

    # What the audit asks

    def partition_count(self, topic: str) -> int:
        return self._counts[topic]

    def length(self, topic: str, partition: int) -> int:
        return self._ends[topic, partition] - self._starts[topic, partition]

    def committed(self, topic: str, partition: int) -> int | None:
        return self._committed.get((topic, partition))

    def read(self, topic: str, partition: int, start: int = 0) -> Iterator[Record]:
        return _Reader(self, (topic, partition), max(start, self._starts[topic, partition]))

    def resumed(self, place: Partition, position: int) -> int:
        """Give where a reader of a checkpoint reads on; note it if retention has been there."""
        start = self._starts[place]
        if position < start and CATALOGUE[place[0]].keep is not Keep.LATEST:
            self.short.add(f"{place[0]}[{place[1]}]@{position}")
        return max(position, start)

    def deletions(self, changelog: str, partition: int) -> tuple[str, ...]:
        """Give the topics of a changelog's partition whose first records were deleted."""
        topics = (changelog, *INPUTS[changelog], *OUTPUTS[changelog])
        return tuple(topic for topic in topics if CATALOGUE[topic].keep is not Keep.LATEST and self._starts[topic, partition])

    def due(self, changelog: str, partition: int, topic: str) -> int | None:
        """Give the offset before which all must belong to a batch in sight: see `batches.Due`."""
        return self._due.get((changelog, partition), {}).get((topic, partition))

    def open_transactions(self, for_s: float = 0.0) -> list[tuple[str, int, int, int]]:
        """Give the partitions with a transaction open for so long: topic, partition, since which offset, end."""
        now = time.monotonic()
        return [(*place, since, end) for place, (since, end, seen) in self._open.items() if now - seen >= for_s]

    # Cuts

    def cut_at_rest(self) -> None:
        """Make a cut; if batches are committed meanwhile, another, so that it is not `moving` if that can be had."""
        for _ in range(CUTS):
            self.cut(TOPICS)
            if not self.moving or self._open:
                break

    def cut(self, settled: Collection[str] = frozenset(chain.from_iterable(OUTPUTS.values()))) -> None:
        """Bring in sight what is committed now, but for batches whose outputs are not all to be seen.

        `settled`: topics whose open transactions are waited for.
        """
        while True:
            try:
                self._cut(settled)
                return
            except KafkaException:
                if self._stop is None:
                    raise
                if self._stop.wait(1.0):
                    raise Interrupted from None

    def _cut(self, settled: Collection[str]) -> None:
        # All topics at once: one that the client does not know when it is assigned would be looked up once a second only.
        self._reader.consumer.list_topics(timeout=self._timeout_s)
        changelogs = self._latest(INPUTS, IsolationLevel.READ_COMMITTED)
        written = self._latest(TOPICS, IsolationLevel.READ_UNCOMMITTED)
        deadline = time.monotonic() + SETTLE_S
        while True:
            stable = self._latest(TOPICS, IsolationLevel.READ_COMMITTED)
            late = {place for place, end in stable.items() if end < written[place]}
            if not any(topic in settled for topic, _ in late) or time.monotonic() > deadline:
                break
            time.sleep(0.01)
            if self._stop and self._stop.is_set():
                raise Interrupted
        self._committed = self._group_offsets()
        after = self._latest(INPUTS, IsolationLevel.READ_UNCOMMITTED)
        later = self._latest(INPUTS, IsolationLevel.READ_COMMITTED)
        self.moving = bool(late) or changelogs != later
        self._note_open(late, stable, written)
        for (changelog, partition), end in changelogs.items():
            if any((topic, partition) in late for topic in OUTPUTS[changelog]):
                changelogs[changelog, partition] = self._ends[changelog, partition]
            else:
                self._note_due((changelog, partition), end, stable, after)
        self._ends = stable | changelogs

    def _note_open(self, late: set[Partition], stable: Offsets, written: Offsets) -> None:
        """Keep, of each partition with an open transaction, since which offset it is, and when it was seen first."""
        before, self._open = self._open, {}
        for place in late:
            since, _, seen = before.get(place, (None, 0, 0.0))
            self._open[place] = (stable[place], written[place], seen if since == stable[place] else time.monotonic())

    def _note_due(self, place: Partition, end: int, stable: Offsets, after: Offsets) -> None:
        mark = self._marks.get(place)
        if mark and end >= mark.written:
            self._due[place] = mark.stable
            mark = None
        if mark is None:
            outputs = {(topic, place[1]) for topic in OUTPUTS[place[0]]}
            self._marks[place] = _Mark({each: stable[each] for each in outputs} | self._committed, after[place])

    def _latest(self, topics: Any, level: IsolationLevel) -> Offsets:
        return self._offsets(topics, OffsetSpec.latest(), level)

    def _offsets(self, topics: Any, which: OffsetSpec, level: IsolationLevel) -> Offsets:
        wanted = {TopicPartition(topic, partition): which for topic in topics for partition in range(self._counts[topic])}

        def ask() -> Offsets:
            futures = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=self._timeout_s)
            return {(place.topic, place.partition): future.result().offset for place, future in futures.items()}

        return self._patiently(ask)

    def _group_offsets(self) -> Offsets:
        """Give the group's offsets, stable ones only.

        By the consumer: librdkafka's admin client (2.16) crashes the process when a coordinator answers that it is not ready.
        """
        topics = [topic for inputs in INPUTS.values() for topic in inputs]
        places = [(topic, partition) for topic in topics for partition in range(self._counts[topic])]
        return self._patiently(lambda: self._reader.committed_of(places))

    def _patiently(self, ask: Callable[[], Offsets]) -> Offsets:
        """Ask again while the answer is one that passes."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return ask()
            except KafkaException as failure:
                if failure.args[0].code() not in PASSING or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    # Reading

    def fetch(self, place: Partition, position: int) -> tuple[list[Record], int]:
        """Read some records of a partition from a position on, as far as the cut goes; give them and the next position."""
        end, size = self._ends[place], 0
        records: list[Record] = []
        if position >= end:
            return records, position
        try:
            for message in read_to_end(self._reader.consumer, {place: position}, partial(self._waited, place), {place: end}):
                records.append(_record(message))
                size += len(message.value() or b"")
                if len(records) >= FETCH_RECORDS or size >= FETCH_BYTES:
                    return records, message.offset() + 1
        except KafkaException as failure:
            if failure.args[0].code() == KafkaError._AUTO_OFFSET_RESET:
                raise Deleted(*place, position) from None
            raise
        return records, end

    def _waited(self, place: Partition, silent_s: float) -> None:
        if self._stop and self._stop.is_set():
            raise Interrupted
        if self._stop is None and silent_s > self._timeout_s:
            reason = f"no record of {place[0]}[{place[1]}] within {self._timeout_s:g} s"
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, reason))


class _Reader:
    """A partition's records, as far as the last cut goes; after another cut there may be more."""

    def __init__(self, log: KafkaLog, place: Partition, position: int):
        self._log = log
        self._place = place
        self._position = position
        self._records: deque[Record] = deque()

    def __getstate__(self) -> tuple:
        return self._log, self._place, self._records[0].offset if self._records else self._position

    def __setstate__(self, state: tuple) -> None:
        log, place, position = state
        self.__init__(log, place, log.resumed(place, position))  # type: ignore[misc]

    def __iter__(self) -> "_Reader":
        return self

    def __next__(self) -> Record:
        if not self._records:
            records, self._position = self._log.fetch(self._place, self._position)
            self._records.extend(records)
        if not self._records:
            raise StopIteration
        return self._records.popleft()


def _record(message: Any) -> Record:
    headers = tuple(message.headers() or ())
    return Record(message.offset(), message.timestamp()[1], message.key(), message.value(), headers)
