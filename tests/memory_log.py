"""A log of lists for the audit: records made by hand, or by the simulation."""

from bisect import bisect_left
from collections.abc import Iterator

from streams.audit.log import Record


class MemoryLog:
    """A log of lists: `records[topic, partition]`."""

    def __init__(
        self,
        records: dict[tuple[str, int], list[Record]],
        partition_counts: dict[str, int],
        offsets: dict[tuple[str, int], int] | None = None,
        moving: bool = False,
    ):
        self.records = records
        self.partition_counts = partition_counts
        self.offsets = offsets or {}
        self.moving = moving
        self.short: set[str] = set()

    def partition_count(self, topic: str) -> int:
        return self.partition_counts.get(topic, 0)

    def length(self, topic: str, partition: int) -> int:
        return len(self.records.get((topic, partition), ()))

    def read(self, topic: str, partition: int, start: int = 0) -> Iterator[Record]:
        return _Reader(self, (topic, partition), start)

    def committed(self, topic: str, partition: int) -> int | None:
        return self.offsets.get((topic, partition))


class _Reader:
    """A partition's records from an offset on; pickled, it keeps the next one's."""

    def __init__(self, log: MemoryLog, place: tuple[str, int], start: int):
        self._log, self._place = log, place
        self._records = log.records.get(place, [])
        self._at = bisect_left(self._records, start, key=lambda record: record.offset) if start else 0

    def __iter__(self) -> "_Reader":
        return self

    def __next__(self) -> Record:
        if self._at >= len(self._records):
            raise StopIteration
        self._at += 1
        return self._records[self._at - 1]

    def __getstate__(self) -> tuple:
        return self._log, self._place, self._records[self._at - 1].offset + 1 if self._at else 0

    def __setstate__(self, state: tuple) -> None:
        log, place, position = state
        self.__init__(log, place, position)  # type: ignore[misc]
        first = self._records[0].offset if self._records else 0
        if position < first and place[0] not in ("inventory.v1", "locations.v1"):
            log.short.add(f"{place[0]}[{place[1]}]@{position}")
