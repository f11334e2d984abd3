"""The audit: reads the topics alone, folds them in slow plain Python, and compares with what the workers published.

It shares no code with the state, the engine, the routing or the codec: only the contract's models and names (topics/).
One partition after another, by its changelog's order of events: chain.py reads that, ledger.py folds, outputs.py finds
what was published, decisions.py judges a decision, replay.py goes through it all, report.py holds the answer.
Not here: the command line (streams/cli/audit.py).
"""

from collections.abc import Callable

from config.settings import Settings
from streams.audit.ledger import Limits
from streams.audit.log import Log
from streams.audit.replay import CHANGELOG, LOCATIONS, PartitionReplay
from streams.audit.report import Fault, Report
from topics.events import INVENTORY_TOPICS

__all__ = ["Fault", "Report", "audit", "audit_log"]

HOUR_MS = 3_600_000
Progress = Callable[[int, int], None]
"""Told (events judged, events in the topics)."""


def audit(settings: Settings, progress: Progress | None = None, complete: bool = False) -> Report:
    """Audit all that is committed on a cluster now.

    Parameters
    ----------
    settings : Settings
        Where the cluster is, the workers' group, and how long their pools remember.
    progress : callable, optional
        Told how far the audit is.
    complete : bool
        Count input records beyond the last batch as faults.

    Returns
    -------
    Report

    Raises
    ------
    confluent_kafka.KafkaException
        The cluster can't be reached, or refuses.
    """
    from streams.audit.kafka_log import KafkaLog  # only here: the fold needs no client

    return audit_log(KafkaLog(settings), limits_of(settings), progress, complete)


def limits_of(settings: Settings) -> Limits:
    """Read how long pools remember from the settings, which must be those of the workers."""
    return Limits(
        dedupe_events=settings.dedupe_events,
        dedupe_ms=settings.dedupe_hours * HOUR_MS,
        horizon_ms=settings.count_horizon_hours * HOUR_MS,
        closed_ms=settings.closed_order_days * 24 * HOUR_MS,
    )


def audit_log(log: Log, limits: Limits, progress: Progress | None = None, complete: bool = False) -> Report:
    """Audit a log, wherever it comes from; see `audit`."""
    report = Report()
    partitions = range(log.partition_count(CHANGELOG))
    total = sum(log.length(topic, partition) for topic in INVENTORY_TOPICS for partition in partitions)
    network = {
        (partition, record.offset): record
        for partition in range(log.partition_count(LOCATIONS))
        for record in log.read(LOCATIONS, partition)
    }
    judged = 0

    def tell(events: int) -> None:
        nonlocal judged
        judged += events
        if progress:
            progress(judged, max(judged, total))

    for partition in partitions:
        PartitionReplay(log, partition, limits, report, network, complete).run(tell)
        report.partitions += 1
    return report
