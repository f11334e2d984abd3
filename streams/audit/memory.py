"""What the audit of a partition remembers, and for how long: the limits, and the events that were applied.

Owner: the audit, of inventory and of clicks alike.
"""

from collections import deque
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from topics.errors import NearshelfError
from topics.events import EARLIEST_MS, Count, OrderRequest, Record
from topics.reasons import DeadLetter


class RefusedEvent(NearshelfError):
    """An event that the contract sends to the dead letters; `instead` is another reason that would be as right."""

    def __init__(self, reason: DeadLetter, instead: DeadLetter | None = None):
        super().__init__(reason.wire)
        self.reason = reason
        self.instead = instead


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a pool remembers, ms, how much it keeps, and what it does in a shortfall; the settings of the same names."""

    dedupe_events: int
    dedupe_ms: int
    horizon_ms: int
    closed_ms: int
    max_skus: int = 5_000_000
    max_cells: int = 20_000_000
    max_order_lines: int = 10_000_000
    max_supplies: int = 2_000_000
    max_demand_rows: int = 5_000_000
    on_shortfall: Literal["reroute", "keep"] = "reroute"
    demand_window_ms: int = 3_600_000
    demand_step_ms: int = 60_000
    clock_skew_ms: int = 300_000


def check_times(event: Any, timestamp: int, limits: Limits) -> None:
    """Refuse an event that says it happened before the year 2000, or after the log has it; `timestamp` is its record's."""
    for name in ("event_time", "counted_at"):
        time = getattr(event, name, None)
        if time is not None and (time < EARLIEST_MS or time - limits.clock_skew_ms > timestamp):
            raise RefusedEvent(DeadLetter.TIME_OUT_OF_RANGE)


_SENDERS = {
    "sales.v1": "location_id",
    "stock.v1": "location_id",
    "orders.v1": "order_id",
    "fulfilments.v1": "order_id",
    "clicks.v1": "visitor_id",
}
"""Topic → the field that says who numbers its events."""
_DESCRIPTIVE = frozenset(
    ("channel", "customer_id", "receipt_id", "unit_price", "currency", "lot_id", "reason", "expires_at", "campaign_id")
)
"""Fields that only describe an event, where it may lack them."""


def _said(record: Record) -> dict[str, Any]:
    """Give what a record says, less its event id and what only describes it."""
    fields = type(record).model_fields
    left_out = {name for name in _DESCRIPTIVE & fields.keys() if not fields[name].is_required()}
    said = {name: getattr(record, name) for name in fields if name not in left_out and name != "event_id"}
    return {name: _plain(value) for name, value in said.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, Record):
        return _said(value)
    return value + 0.0 if isinstance(value, float) else value  # never -0.0


def content_of(event: Any) -> bytes:
    """Hash what an event says: two events of one id are the same if this is. An order says one place, that of its mode."""
    said = _said(event)
    if isinstance(event, Count) and event.counted_at is None:
        said["counted_at"] = event.event_time
    if isinstance(event, OrderRequest):
        del said["pickup_location_id" if event.mode == "delivery" else "destination"]
    return blake2b(repr(sorted(said.items())).encode(), digest_size=8).digest()


class Seen:
    """The events that were applied, for as long as one is a duplicate: among the last so many, or young enough.

    Before layout 2 an event was known by its id alone, whoever sent it and whatever it said; `by_id` is set for such batches.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self.by_id = False
        self._entries: dict[bytes, tuple[int, int, bytes]] = {}
        self._order: deque[bytes] = deque()
        self._count = 0

    def knows(self, topic: str, event: Any, now: int) -> bool:
        """Tell whether an event was applied inside the dedupe window; raises RefusedEvent if another one of its id was."""
        for key in [self._key(topic, event, True)] if self.by_id else [self._key(topic, event), self._key(topic, event, True)]:
            seen = self._entries.get(key)
            if seen is None or not self._in_window(seen, now):
                continue
            if seen[2] and seen[2] != content_of(event):
                raise RefusedEvent(DeadLetter.EVENT_ID_REUSED)
            return True
        return False

    def remember(self, topic: str, event: Any, now: int) -> None:
        """Note an event as applied."""
        key = self._key(topic, event, self.by_id)
        self._entries[key] = (self._count, now, b"" if self.by_id else content_of(event))
        self._order.append(key)
        self._count += 1
        while not self._in_window(self._entries.get(self._order[0], (-1, -1, b"")), now):
            self._entries.pop(self._order.popleft(), None)

    def _key(self, topic: str, event: Any, by_id: bool = False) -> bytes:
        sender = () if by_id else (topic, getattr(event, _SENDERS[topic]))
        return blake2b("\0".join((*sender, event.event_id)).encode(), digest_size=16).digest()

    def _in_window(self, seen: tuple[int, int, bytes], now: int) -> bool:
        position, time, _ = seen
        return self._count - position <= self._limits.dedupe_events or time >= now - self._limits.dedupe_ms
