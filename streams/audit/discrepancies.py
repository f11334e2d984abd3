"""Which alerts a pool's events call for, and which stand.

Owner: the pool's ledger (ledger.py). Not here: what was published (outputs.py), faults that the audit itself tells
(alerts.py).
"""

from collections.abc import Iterator
from typing import NamedTuple

from streams.audit.outputs import Place
from topics.outputs import Alert, Source
from topics.reasons import AlertKind, AlertStatus

CRITICAL = (AlertKind.SHORTFALL, AlertKind.OVER_SHIPPED, AlertKind.SHIPPED_AFTER_CLOSE)
NOT_COUNTED_AWAY = (AlertKind.SHORTFALL, AlertKind.LATE_MOVEMENT)
"""Kinds that no count of the cell clears."""
MINUTE_MS = 60_000
Cell = tuple[str, str]
"""Location and SKU."""


class Due(NamedTuple):
    """One alert that must be published; units as `found` and `expected`."""

    kind: AlertKind
    status: AlertStatus
    location_id: str | None
    sku: str | None
    found: int
    expected: int
    field: str | None = None


class Discrepancies:
    """One pool's."""

    def __init__(self) -> None:
        self.due: list[Due] = []
        """By the event in hand, in the order in which they happen."""
        self._standing: dict[Cell, set[AlertKind]] = {}

    def tell(self, kind: AlertKind, cell: Cell, units: int) -> None:
        """Raise what units of a fact contradict."""
        self._raise(kind, cell, units, 0)

    def left_out(self, fields: list[str]) -> None:
        """Tell of fields that only describe the event in hand, and are wrong."""
        kind, raised = AlertKind.FIELD_LEFT_OUT, AlertStatus.RAISED
        self.due += [Due(kind, raised, None, None, 1, 0, field) for field in dict.fromkeys(fields)]

    def short(self, cell: Cell, on_hand: int, reserved: int) -> None:
        """Raise that more is promised of a cell than there is."""
        self._raise(AlertKind.SHORTFALL, cell, on_hand, reserved)

    def covered(self, cell: Cell, on_hand: int, reserved: int) -> None:
        """Clear a cell's shortfall, if it stands."""
        if AlertKind.SHORTFALL in self._standing.get(cell, ()):
            self._clear(AlertKind.SHORTFALL, cell, on_hand, reserved)

    def counted(self, cell: Cell, on_hand: int) -> None:
        """Clear what a count settles."""
        for kind in sorted(self._standing.get(cell, set()).difference(NOT_COUNTED_AWAY)):
            self._clear(kind, cell, on_hand, 0)

    def _raise(self, kind: AlertKind, cell: Cell, found: int, expected: int) -> None:
        self.due.append(Due(kind, AlertStatus.RAISED, *cell, found, expected))
        if kind is not AlertKind.LATE_MOVEMENT:
            self._standing.setdefault(cell, set()).add(kind)

    def _clear(self, kind: AlertKind, cell: Cell, found: int, expected: int) -> None:
        self.due.append(Due(kind, AlertStatus.CLEARED, *cell, found, expected))
        self._standing[cell].remove(kind)
        if not self._standing[cell]:
            del self._standing[cell]


def alert_of(due: Due, pool_id: str, now: int, place: Place, timestamp: int, order_id: str | None) -> Alert:
    """Make the record that must be published: by the input at `place`, logged at `timestamp`, which may name an order.

    An alert's id is the same for the same thing; late movements are gathered by the minute. A field is left out whatever the
    pool's state, so such an alert has its record's time.
    """
    topic, partition, offset = place
    thing = (topic, due.field) if due.field else (due.location_id, due.sku)
    if due.kind is AlertKind.LATE_MOVEMENT:
        thing = due.location_id, str(timestamp // MINUTE_MS)
    return Alert(
        alert_id="/".join(_escaped((due.kind.wire, pool_id, *filter(None, thing)))),
        kind=due.kind.wire,
        severity="critical" if due.kind in CRITICAL else "warning",
        status=due.status.wire,
        pool_id=pool_id,
        location_id=due.location_id,
        sku=due.sku,
        order_id=order_id,
        field=due.field,
        found=due.found,
        expected=due.expected,
        since=timestamp if due.field else now,
        source=Source(topic=topic, partition=partition, offset=offset),
        remedy=due.kind.sentence,
    )


def _escaped(parts: tuple[str, ...]) -> Iterator[str]:
    return (part.replace("%", "%25").replace("/", "%2F") for part in parts)
