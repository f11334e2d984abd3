"""The backlog of one partition: fetched records that no batch has taken yet, and where the next fetch must start.

Owner: the partition's flow, which calls every method under its condition. Invariants:
- a record enters once: what lies below the next offset is dropped, and a fetched range that does not join on to the one before
  is refused (gaps *within* a range are the log's own: markers, compaction);
- it is bounded by `backlog_rows` and one fetch: at `backlog_rows` the fetching is stopped, at half of them it goes on.
Not here: when a batch closes (flow.py), fetching (streams/kafka/fetching.py).
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from streams.kafka.fetching import Fetched
from topics.codec.records import Records

NEVER = 1 << 62  # an offset that no record reaches
Taken = dict[str, list[Records]]
"""Topic → its records of one batch, oldest first."""


@dataclass(slots=True)
class Waiting:
    """Records of one fetched range, or what is left of them."""

    arrived: float  # monotonic seconds
    topic: str
    records: Records
    size_bytes: int  # of their values


class Backlog:
    """What one partition's flow has yet to process.

    Parameters
    ----------
    settings
        `backlog_rows`, `batch_rows`, `batch_bytes`.
    throttle : callable
        Called with True to stop the partition's fetching, with False to let it go on.

    Attributes
    ----------
    rows, size_bytes : int
        Of all that waits.
    positions : dict of str to int
        Topic → where the next fetched range must start, at most. Topics without one are not taken.
    """

    def __init__(self, settings: Any, throttle: Callable[[bool], None]):
        self.rows = 0
        self.size_bytes = 0
        self.positions: dict[str, int] = {}
        self._settings = settings
        self._throttle = throttle
        self._held = False
        self._waiting: deque[Waiting] = deque()
        self._taken: dict[str, int] = {}  # topic → next offset that no batch has taken

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def arrived(self) -> float:
        """When the oldest records arrived, monotonic seconds."""
        return self._waiting[0].arrived

    @property
    def full(self) -> bool:
        """Whether a batch may not take more than what waits."""
        return self.rows >= self._settings.batch_rows or self.size_bytes >= self._settings.batch_bytes

    def offer(self, fetched: Fetched) -> bool:
        """Take a fetched range; False if records before it are missing, so that it must be fetched again."""
        topic = fetched.topic
        if topic not in self.positions:
            return True
        position = self.positions[topic]
        if fetched.start > position:
            return False
        records = fetched.records
        if fetched.start < position:
            records = records.at_least(position)
        self.positions[topic] = max(position, fetched.end)
        if len(records):
            self._append(Waiting(time.monotonic(), topic, records, records.value_bytes))
        if self.rows >= self._settings.backlog_rows:
            self._hold(True)
        return True

    def take(self) -> Taken:
        """Take a batch: the oldest records, up to its rows and bytes, but one at least."""
        batch: Taken = {}
        rows_left, bytes_left = self._settings.batch_rows, self._settings.batch_bytes
        while self._waiting and rows_left > 0 and (bytes_left > 0 or not batch):
            oldest = self._waiting.popleft()
            count, size_bytes = fitting(oldest, rows_left, bytes_left, must=not batch)
            if count == 0:
                self._waiting.appendleft(oldest)
                break
            if count < len(oldest.records):
                rest = Waiting(oldest.arrived, oldest.topic, oldest.records[count:], oldest.size_bytes - size_bytes)
                self._waiting.appendleft(rest)
            records = oldest.records[:count]
            batch.setdefault(oldest.topic, []).append(records)
            self._taken[oldest.topic] = records[-1].offset + 1
            rows_left -= count
            bytes_left -= size_bytes
            self.rows -= count
            self.size_bytes -= size_bytes
        if self.rows <= self._settings.backlog_rows // 2:
            self._hold(False)
        return batch

    def drop(self) -> None:
        """Drop what waits: it is fetched again, from where no batch has taken it."""
        self._clear()
        self.positions = dict(self._taken)

    def begin_at(self, positions: dict[str, int]) -> None:
        """Begin anew: fetching starts from these positions."""
        self._clear()
        self.positions, self._taken = dict(positions), dict(positions)

    def go_on_from(self, positions: dict[str, int], unsettled: Iterable[Taken], lost: Iterable[str]) -> None:
        """Put the batches that are not settled back in front, less what turned out to be committed.

        Parameters
        ----------
        positions : dict
            Topic → next offset by what is committed.
        unsettled : iterable of Taken
            The batches, in the order they were taken.
        lost : iterable of str
            Topics of which the broker lost committed records: what waits of them is dropped, and they are fetched again.
        """
        # Another owner may have gone further than what was fetched here.
        self.positions = {topic: max(at, positions[topic]) for topic, at in self.positions.items()}
        self.positions |= {topic: positions[topic] for topic in lost}
        self._taken = dict(positions)
        now = time.monotonic()
        queued = [
            Waiting(now, topic, records, 0) for batch in unsettled for topic, chunks in batch.items() for records in chunks
        ]
        queued += self._waiting
        self._waiting.clear()
        self.rows = self.size_bytes = 0
        for waiting in queued:
            records = waiting.records.at_least(NEVER if waiting.topic in lost else positions.get(waiting.topic, NEVER))
            if len(records):
                self._append(Waiting(waiting.arrived, waiting.topic, records, records.value_bytes))

    def _append(self, waiting: Waiting) -> None:
        self._waiting.append(waiting)
        self.rows += len(waiting.records)
        self.size_bytes += waiting.size_bytes

    def _clear(self) -> None:
        self._waiting.clear()
        self.rows = self.size_bytes = 0
        self._hold(False)

    def _hold(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            self._throttle(held)


def fitting(waiting: Waiting, rows: int, size_bytes: int, must: bool) -> tuple[int, int]:
    """Count the leading records that fit into the rows and bytes left, one at least if `must`; and their bytes."""
    if len(waiting.records) <= rows and waiting.size_bytes <= size_bytes:
        return len(waiting.records), waiting.size_bytes
    count = max(min(rows, waiting.records.fitting(size_bytes)), int(must))
    return count, waiting.records[:count].value_bytes
