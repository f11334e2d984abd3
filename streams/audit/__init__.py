"""The audit: reads the topics alone, folds them in slow plain Python, and compares with what the workers published.

It shares no code with the state, the engine, the routing, the codec or the changelog: only the contract's models and
names (topics/). One partition after another, batch by batch: chain.py proves that the changelog is as it was written,
rows.py reads what it says, ledger.py folds, outputs.py finds what was published, decisions.py judges a decision,
inventory.py goes through all that is about stock and clicks.py through what is about clicks, with what they share in
batches.py; report.py holds the answer. kafka_log.py reads a cluster; follow.py does it for ever, and alerts.py writes
what it finds to `alerts.v1`; acknowledged.py reads which faults somebody has looked at; checkpoint.py keeps what an audit
knows in a file, from which a later one goes on.
Not here: the command line (streams/cli/audit.py).
"""

from collections.abc import Callable
from pathlib import Path

from config.settings import Settings
from streams.audit.auditor import Auditor, Deletions
from streams.audit.checkpoint import CheckpointUnusable, resume, save
from streams.audit.log import Log
from streams.audit.memory import Limits
from streams.audit.report import Fault, Report

__all__ = ["Fault", "Report", "audit", "audit_log", "limits_of"]

HOUR_MS = 3_600_000
Progress = Callable[[int, int], None]
"""Told (events judged, events in the topics)."""


def audit(
    settings: Settings,
    progress: Progress | None = None,
    complete: bool = False,
    told: Callable[[Fault], None] | None = None,
    checkpoint: Path | None = None,
) -> Report:
    """Audit all that is committed on a cluster now.

    Parameters
    ----------
    settings : Settings
        Where the cluster is, the workers' group, and what their pools remember and keep.
    progress : callable, optional
        Told how far the audit is.
    complete : bool
        Count input records beyond the last batch, and open transactions, as faults.
    told : callable, optional
        Told each fault at once.
    checkpoint : Path, optional
        A file from which the audit goes on, if it is there, and where it leaves what it knows in the end.

    Returns
    -------
    Report

    Raises
    ------
    MissingTopics
        The cluster lacks topics.
    confluent_kafka.KafkaException
        The cluster can't be reached, or refuses.
    """
    from streams.audit.acknowledged import read_acknowledgements
    from streams.audit.kafka_log import KafkaLog  # only here: the fold needs no client

    report = Report(told=told, acknowledgements=read_acknowledgements(settings))
    with KafkaLog(settings) as log:
        log.cut_at_rest()
        for topic, partition, since, end in log.open_transactions():
            shown = f"{topic}[{partition}] since offset {since}"
            report.open_transactions.append(shown)
            if complete:
                report.fault("transaction", topic, partition, since, f"the last stable offset at the end, {end}", f"at {since}")
        return audit_log(log, limits_of(settings), progress, complete, report, log.deletions, checkpoint)


def limits_of(settings: Settings) -> Limits:
    """Read what pools remember and keep from the settings, which must be those of the workers."""
    return Limits(
        dedupe_events=settings.dedupe_events,
        dedupe_ms=settings.dedupe_hours * HOUR_MS,
        horizon_ms=settings.count_horizon_hours * HOUR_MS,
        closed_ms=settings.closed_order_days * 24 * HOUR_MS,
        max_skus=settings.max_skus,
        max_cells=settings.max_cells,
        max_order_lines=settings.max_order_lines,
        max_supplies=settings.max_supplies,
        max_demand_rows=settings.max_demand_rows,
        on_shortfall=settings.on_shortfall,
        clock_skew_ms=settings.clock_skew_ms,
        demand_window_ms=settings.demand_window_ms,
        demand_step_ms=settings.demand_window_ms // settings.demand_buckets,
    )


def audit_log(
    log: Log,
    limits: Limits,
    progress: Progress | None = None,
    complete: bool = False,
    report: Report | None = None,
    deletions: Deletions = lambda changelog, partition: (),
    checkpoint: Path | None = None,
) -> Report:
    """Audit a log, wherever it comes from; see `audit`."""
    report = report or Report()
    auditor = begin(log, limits, report, deletions, checkpoint)
    total = auditor.length()
    judged = 0

    def tell(events: int) -> None:
        nonlocal judged
        judged += events
        if progress:
            progress(judged, max(judged, total))

    auditor.catch_up(tell)
    if checkpoint:
        save(checkpoint, auditor, limits)
    auditor.finish(complete)
    return report


def begin(log: Log, limits: Limits, report: Report, deletions: Deletions, checkpoint: Path | None) -> Auditor:
    """Go on from a checkpoint if there is one that can be used, else begin at the topics' beginning."""
    if checkpoint:
        try:
            auditor = resume(checkpoint, log, limits, report)
            report.checkpoint = f"went on from {checkpoint}" if auditor else f"none at {checkpoint} yet"
            if auditor:
                return auditor
        except CheckpointUnusable as unusable:
            log.short.clear()
            report.checkpoint = f"not used: {unusable}"
    return Auditor(log, limits, report, deletions)
