"""A pool's transfers and expected supplies as the audit keeps them: sums in plain dicts, and what is due by the pool's clock.

Owner: the pool's stock (stock.py). It shares no code with the state or the engine, on purpose.
Not here: what a transfer does to a cell (stock.py), what was published (latest.py).
"""

import heapq
from dataclasses import dataclass
from typing import NamedTuple

from streams.audit.memory import Limits
from topics.events import Expected, TransferIn, TransferOut
from topics.outputs import Supply, Transfer
from topics.reasons import AlertKind

Name = tuple[str, str]
"""Reference (transfer_id or supply_id) and SKU."""


@dataclass(slots=True)
class Moved:
    """A SKU of a transfer."""

    to: str
    sent: int = 0
    received: int = 0
    came_from: str | None = None
    sent_at: int | None = None
    excess: bool = False
    overdue: bool = False
    updated_at: int = 0

    @property
    def settled(self) -> bool:
        return self.sent == self.received


class Told(NamedTuple):
    """An alert of a transfer that is called for; `stands`: raised, else cleared."""

    kind: AlertKind
    stands: bool
    name: Name
    to: str
    received: int
    sent: int


class Supplies:
    """One pool's.

    Attributes
    ----------
    plain : bool
        Whether the batch in hand is of layout 1: it published none of this, and knew of a transfer how much was under way.
    changed : (transfers, supplies)
        What the batch in hand changed; true: it ended in between, and may stand again.
    told : list of Told
        What the event in hand calls for, in order.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self.plain = False
        self.transfers: dict[Name, Moved] = {}
        self.expected: dict[Name, Supply] = {}
        self.changed: tuple[dict[Name, bool], dict[Name, bool]] = ({}, {})
        self.told: list[Told] = []
        self._settled: set[Name] = set()
        self._due: list[tuple[int, Name]] = []

    def has_room(self, event: Expected | TransferIn | TransferOut) -> bool:
        """Tell whether the pool may keep what an event is about."""
        if isinstance(event, Expected):
            known = (event.supply_id, event.sku) in self.expected
        else:
            known = not self.transfers.get((event.transfer_id, event.sku), Moved("")).settled
        return known or len(self.transfers) - len(self._settled) + len(self.expected) < self._limits.max_supplies

    def expect(self, event: Expected, pool_id: str, now: int) -> None:
        """Set a supply."""
        name = event.supply_id, event.sku
        self.expected.pop(name, None)
        if event.quantity:
            self.expected[name] = Supply(
                pool_id=pool_id,
                supply_id=event.supply_id,
                location_id=event.location_id,
                sku=event.sku,
                quantity=event.quantity,
                expected_at=event.expected_at,
                updated_at=now,
            )
        if not self.plain:
            self.changed[1][name] = not event.quantity or self.changed[1].get(name, False)

    def move(self, event: TransferIn | TransferOut, now: int) -> None:
        """Note units that left or arrived."""
        name = event.transfer_id, event.sku
        moved = self.transfers.get(name)
        if moved is None:
            moved = self.transfers[name] = Moved(event.location_id)
        self._settled.discard(name)
        if isinstance(event, TransferOut):
            moved.sent += event.quantity
            moved.to = event.to_location_id
            if not self.plain:
                moved.came_from = event.location_id
                moved.sent_at = event.event_time if moved.sent_at is None else min(moved.sent_at, event.event_time)
                heapq.heappush(self._due, (self._due_at(moved), name))
        else:
            if not moved.sent and not self.plain:
                moved.to = event.location_id
            moved.received += event.quantity
        if self.plain:
            least = min(moved.sent, moved.received)
            moved.sent, moved.received = moved.sent - least, moved.received - least
            if moved.settled:
                del self.transfers[name]
            return
        is_due = moved.sent_at is not None and self._due_at(moved) <= now
        moved.excess = self._stands(AlertKind.TRANSFER_EXCESS, name, moved, moved.excess, moved.received > moved.sent)
        overdue = is_due and moved.sent > moved.received
        moved.overdue = self._stands(AlertKind.TRANSFER_OVERDUE, name, moved, moved.overdue, overdue)
        self._write(name, moved, now)
        if moved.settled:
            if is_due or moved.sent_at is None or len(self._settled) >= self._limits.max_supplies:
                self._end(name)
            else:
                self._settled.add(name)

    def pass_due(self, now: int) -> None:
        """See to the transfers whose time has come: those under way are overdue, those settled are forgotten."""
        while self._due and self._due[0][0] <= now:
            due_at, name = heapq.heappop(self._due)
            moved = self.transfers.get(name)
            if moved is None or moved.sent_at is None or self._due_at(moved) != due_at:
                continue
            if moved.settled:
                self._write(name, moved, now)
                self._settled.discard(name)
                self._end(name)
            elif moved.sent > moved.received and not moved.overdue:
                moved.overdue = self._stands(AlertKind.TRANSFER_OVERDUE, name, moved, False, True)
                self._write(name, moved, now)

    def published(self, name: Name, pool_id: str) -> Transfer | None:
        """Give what `transfers.v1` must say of a transfer; None = it is gone."""
        moved = self.transfers.get(name)
        if moved is None:
            return None
        status = "overdue" if moved.overdue else "open"
        if moved.received >= moved.sent:
            status = "received" if moved.settled else "excess"
        return Transfer.model_validate(
            {
                "pool_id": pool_id,
                "transfer_id": name[0],
                "from": moved.came_from,
                "to": moved.to,
                "sku": name[1],
                "sent": moved.sent,
                "received": moved.received,
                "open": max(0, moved.sent - moved.received),
                "sent_at": moved.sent_at,
                "expected_at": None if moved.sent_at is None else self._due_at(moved),
                "status": status,
                "updated_at": moved.updated_at,
            }
        )

    def _due_at(self, moved: Moved) -> int:
        return (moved.sent_at or 0) + self._limits.transfer_ms

    def _stands(self, kind: AlertKind, name: Name, moved: Moved, stood: bool, stands: bool) -> bool:
        if stood or stands:
            self.told.append(Told(kind, stands, name, moved.to, moved.received, moved.sent))
        return stands

    def _write(self, name: Name, moved: Moved, now: int) -> None:
        moved.updated_at = now
        self.changed[0].setdefault(name, False)

    def _end(self, name: Name) -> None:
        del self.transfers[name]
        self.changed[0][name] = True
