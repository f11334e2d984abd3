"""The audit beside production, for ever: cut after cut, each batch is judged soon after its commit.

A cut brings in sight what is committed now (kafka_log.py); the batches in it are judged; then what nobody has caused is
judged, as far as it was stable at the cut before. It begins at the topics' beginning, or goes on from a checkpoint.
What is acknowledged is read once, at the start.
Owner: `nearshelf audit --follow`. Not here: where faults go (alerts.py), the terminal (streams/cli/audit.py).
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings
from streams.audit import begin, limits_of
from streams.audit.acknowledged import read_acknowledgements
from streams.audit.checkpoint import save
from streams.audit.kafka_log import KafkaLog
from streams.audit.report import Fault, Report
from streams.kafka.reading import Interrupted

PAUSE_S = 0.5
"""Between cuts when there is nothing to judge; a busy log is cut again at once."""
CHECKPOINT_S = 600.0
"""Between two checkpoints."""
OVERDUE_S = 10.0
"""How long after its time-out a broker may take to abort a transaction: it looks that often, by default."""


@dataclass(slots=True)
class Progress:
    """How far an audit that follows is."""

    events: int = 0
    """Judged so far."""
    length: int = 0
    """Of the inputs, at the last cut."""
    caught_up: bool = False
    """Whether all in sight at the last cut is judged."""


def follow(
    settings: Settings,
    stop: threading.Event,
    told: Callable[[Fault], None],
    progress: Callable[[Progress, Report], None],
    checkpoint: Path | None = None,
) -> Report:
    """Audit a cluster until `stop` is set.

    Parameters
    ----------
    settings : Settings
        As for `audit`.
    stop : threading.Event
        Ends it, within a second or so.
    told : callable
        Told each fault at once.
    progress : callable
        Called after each batch and each cut.
    checkpoint : Path, optional
        As for `audit`; written every `CHECKPOINT_S` too.

    Returns
    -------
    Report
        What was judged until then; inputs that are in no batch are not counted.

    Raises
    ------
    MissingTopics
        The cluster lacks topics.
    confluent_kafka.KafkaException
        The cluster refuses; one that can't be reached is waited for.
    """
    report, state = Report(told=told, acknowledgements=read_acknowledgements(settings)), Progress()
    overdue_s = settings.transaction_timeout_ms / 1000 + OVERDUE_S
    overdue: set[tuple[str, int, int]] = set()

    def tell(events: int) -> None:
        state.events += events
        progress(state, report)
        if stop.is_set():
            raise Interrupted

    with KafkaLog(settings, stop) as log:
        try:
            log.cut()
        except Interrupted:
            return report
        limits, saved_at = limits_of(settings), time.monotonic()
        auditor = begin(log, limits, report, log.deletions, checkpoint)
        try:
            while not stop.is_set():
                judged, began = state.events, time.monotonic()
                log.cut()
                state.length, state.caught_up = auditor.length(), False
                auditor.catch_up(tell)
                auditor.settle(log.due)
                for topic, partition, since, end in log.open_transactions(overdue_s):
                    if (topic, partition, since) not in overdue:
                        overdue.add((topic, partition, since))
                        expected = (
                            f"no transaction open for more than {overdue_s:g} s; records after it up to {end} are held back"
                        )
                        report.fault("transaction", topic, partition, since, expected, f"one open since offset {since}")
                state.caught_up = True
                if checkpoint and time.monotonic() - saved_at > CHECKPOINT_S:
                    save(checkpoint, auditor, limits)
                    saved_at = time.monotonic()
                progress(state, report)
                stop.wait(0 if state.events > judged and time.monotonic() - began > PAUSE_S else PAUSE_S)
        except Interrupted:
            pass
        if checkpoint and state.caught_up:  # else it may have been interrupted within a batch
            save(checkpoint, auditor, limits)
        for replay in auditor.replays:
            replay.add_totals()
    return report
