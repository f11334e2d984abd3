"""Which times of an event are plausible: from the year 2000 to the record's own log time, and a little more.

The kernels of both groups ask here before an event does anything, so that a sender's wrong clock never freezes a cell.
Not here: what becomes of the event (streams/inventory/apply.py, streams/demand/kernel.py), the audit's own check.
"""

from topics.compiled.kernels import kernel
from topics.events import EARLIEST_MS, looks_like


@kernel
def is_plausible(time, timestamp, clock_skew_ms):
    """Whether an event's own time may be right, epoch ms; `timestamp` is its record's in the log."""
    return time >= EARLIEST_MS and time - clock_skew_ms <= timestamp  # a timestamp may be any int64


def implausible(field: str, time: int, timestamp: int, clock_skew_ms: int) -> str:
    """Say what is wrong with a time that is not plausible.

    Examples
    --------
    >>> implausible("event_time", 1_700_000_000, 1_700_000_000_000, 300_000)
    'event_time: 1700000000 looks like seconds; expected epoch milliseconds'
    >>> implausible("counted_at", 1_700_003_600_000, 1_700_000_000_000, 300_000).split("; ")[0]
    'counted_at: 1700003600000 is 3600 s ahead of the log, which is at 1700000000000'
    """
    if unit := looks_like(time, timestamp + clock_skew_ms):
        return f"{field}: {time} looks like {unit}; expected epoch milliseconds"
    if time < EARLIEST_MS:
        return f"{field}: expected epoch milliseconds from {EARLIEST_MS} (2000-01-01T00:00:00Z) on, found {time}"
    return (
        f"{field}: {time} is {(time - timestamp) / 1000:.10g} s ahead of the log, which is at {timestamp}; expected at most "
        f"{clock_skew_ms / 1000:.10g} s (setting clock_skew_ms): set the sender's clock"
    )
