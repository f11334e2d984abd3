"""All partitions' audits of one log, one after the other: as far as the log goes now, and again when it has grown.

Owner: `audit_log`, once through; follow.py, for ever. Not here: what is judged (inventory.py, clicks.py), what is read
(log.py).
"""

from collections.abc import Callable
from functools import partial
from math import inf

from streams.audit.batches import BatchReplay
from streams.audit.clicks import ClickReplay
from streams.audit.inventory import Changes, InventoryReplay
from streams.audit.log import Log
from streams.audit.memory import Limits
from streams.audit.report import Report
from topics.catalogue import Role, topics_of

Deletions = Callable[[str, int], tuple[str, ...]]
"""(Changelog, partition) → topics of it whose first records are deleted."""


class Auditor:
    """Judges a log.

    Parameters
    ----------
    log : Log
    limits : Limits
        What the workers' pools remember and keep.
    report : Report
        Told what is found.
    deletions : callable, optional
        Which topics no longer begin with their first record.
    """

    def __init__(self, log: Log, limits: Limits, report: Report, deletions: Deletions = lambda changelog, partition: ()):
        self.log = log
        self.report = report
        changes = {topic: Changes(log, topic) for topic in topics_of("inventory", Role.STATE)}
        self.replays: list[BatchReplay] = [
            InventoryReplay(log, partition, limits, report, changes, deletions(InventoryReplay.changelog, partition))
            for partition in range(log.partition_count(InventoryReplay.changelog))
        ]
        report.partitions = len(self.replays)
        self.replays += [
            ClickReplay(log, partition, limits, report, deletions(ClickReplay.changelog, partition))
            for partition in range(log.partition_count(ClickReplay.changelog))
        ]

    def length(self) -> int:
        """Estimate how many inputs the log holds."""
        return sum(self.log.length(topic, replay.partition) for replay in self.replays for topic in replay.topics)

    def catch_up(self, tell: Callable[[int], None]) -> None:
        """Judge the batches that are there; `tell` is told how many events each had."""
        for replay in self.replays:
            replay.catch_up(tell)

    def settle(self, due: Callable[[str, int, str], float | None]) -> None:
        """Judge what nobody has caused; `due` is (changelog, partition, topic) → as in `batches.Due`."""
        for replay in self.replays:
            replay.settle(partial(due, replay.changelog, replay.partition))

    def finish(self, complete: bool) -> None:
        """Judge what is left when nothing more will be read; `complete`: inputs in no batch are faults."""
        for replay in self.replays:
            replay.count_unprocessed(complete)
            replay.settle(partial(self._due, replay), self.log.moving)
            replay.add_totals()

    def _due(self, replay: BatchReplay, topic: str) -> float | None:
        if topic not in replay.topics:
            return inf
        return None if self.log.moving else self.log.committed(topic, replay.partition)
