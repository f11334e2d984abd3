"""A log of lists for the audit: records made by hand, or by the simulation."""

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

    def partition_count(self, topic: str) -> int:
        return self.partition_counts.get(topic, 0)

    def length(self, topic: str, partition: int) -> int:
        return len(self.records.get((topic, partition), ()))

    def read(self, topic: str, partition: int) -> Iterator[Record]:
        return iter(self.records.get((topic, partition), ()))

    def committed(self, topic: str, partition: int) -> int | None:
        return self.offsets.get((topic, partition))
