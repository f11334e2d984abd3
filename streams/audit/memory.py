"""What the audit of a partition remembers, and for how long: the limits, and the ids of the events that were applied.

Owner: the audit, of inventory and of clicks alike.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

from topics.errors import NearshelfError
from topics.events import EARLIEST_MS
from topics.reasons import DeadLetter


class RefusedEvent(NearshelfError):
    """An event that the contract sends to the dead letters; `instead` is another reason that would be as right."""

    def __init__(self, reason: DeadLetter, instead: DeadLetter | None = None):
        super().__init__(reason.wire)
        self.reason = reason
        self.instead = instead


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a pool remembers, ms, and how much it keeps; the settings of the same names."""

    dedupe_events: int
    dedupe_ms: int
    horizon_ms: int
    closed_ms: int
    max_skus: int = 5_000_000
    max_cells: int = 20_000_000
    max_order_lines: int = 10_000_000
    max_supplies: int = 2_000_000
    max_demand_rows: int = 5_000_000
    demand_window_ms: int = 3_600_000
    demand_step_ms: int = 60_000
    clock_skew_ms: int = 300_000


def check_times(event: Any, timestamp: int, limits: Limits) -> None:
    """Refuse an event that says it happened before the year 2000, or after the log has it; `timestamp` is its record's."""
    for name in ("event_time", "counted_at"):
        time = getattr(event, name, None)
        if time is not None and (time < EARLIEST_MS or time - limits.clock_skew_ms > timestamp):
            raise RefusedEvent(DeadLetter.TIME_OUT_OF_RANGE)


class Seen:
    """The event ids that were applied, for as long as one is a duplicate: among the last so many, or young enough."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._entries: dict[str, tuple[int, int]] = {}
        self._order: deque[str] = deque()
        self._count = 0

    def knows(self, event_id: str, now: int) -> bool:
        """Tell whether an event id was applied inside the dedupe window."""
        seen = self._entries.get(event_id)
        return seen is not None and self._in_window(seen, now)

    def remember(self, event_id: str, now: int) -> None:
        """Note an event id as applied."""
        self._entries[event_id] = (self._count, now)
        self._order.append(event_id)
        self._count += 1
        while not self._in_window(self._entries.get(self._order[0], (-1, -1)), now):
            self._entries.pop(self._order.popleft(), None)

    def _in_window(self, seen: tuple[int, int], now: int) -> bool:
        position, time = seen
        return self._count - position <= self._limits.dedupe_events or time >= now - self._limits.dedupe_ms
