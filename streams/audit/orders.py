"""Orders as the audit keeps them: parts of lines, shipments, and which units an event is about.

Owner: the pool's ledger (ledger.py). It shares no code with the state or the engine, on purpose.
"""

from dataclasses import dataclass, field

from streams.audit.memory import RefusedEvent
from topics.events import Fulfilment, Held, OrderRequest
from topics.reasons import DeadLetter


@dataclass(slots=True, eq=False)
class Part:
    """Units of a line that go one way: a whole line, or what a location refused of it."""

    line_id: str
    sku: str
    quantity: int
    shipped: int = 0
    returned: int = 0
    shipment: "Shipment | None" = None
    waiting: bool = True
    collected: int = 0
    """Of a transfer: handed over at the pickup location."""

    @property
    def open_units(self) -> int:
        """Promised and not yet shipped or collected."""
        return self.quantity - self.shipped if self.shipment else 0


@dataclass(slots=True, eq=False)
class Shipment:
    """What one location ships of an order."""

    id: str
    location_id: str
    kind: str
    distance_km: float
    parts: list[Part] = field(default_factory=list)

    @property
    def open_units(self) -> int:
        return sum(part.open_units for part in self.parts)


@dataclass(slots=True, eq=False)
class Order:
    """One order, or a hold."""

    id: str
    age: int
    request: OrderRequest
    parts: list[Part]
    held: bool
    shipments: dict[str, Shipment] = field(default_factory=dict)
    refusals: set[tuple[str, str]] = field(default_factory=set)
    """(Line id, location that refused it)."""
    closed_at: int | None = None
    expired: bool = False
    forgotten: bool = False

    @property
    def expires_at(self) -> int | None:
        """When a hold ends, epoch ms."""
        return self.request.expires_at if isinstance(self.request, Held) else None

    @property
    def waiting(self) -> list[Part]:
        return [part for part in self.parts if part.waiting]

    @property
    def open_shipments(self) -> list[Shipment]:
        return [shipment for shipment in self.shipments.values() if shipment.open_units]


def is_as_asked(order: Order, event: OrderRequest) -> bool:
    """Tell whether an order asks for just what its hold asked for, all of which is still in it."""

    def essence(request: OrderRequest) -> tuple:
        lines = [(line.line_id, line.sku, line.quantity) for line in request.lines]
        place = request.destination if request.mode == "delivery" else request.pickup_location_id
        return lines, request.mode, place, request.service_level, request.allow_split, request.allow_partial

    asked = sum(line.quantity for line in order.request.lines)
    return essence(order.request) == essence(event) and sum(part.quantity for part in order.parts) == asked


def open_units_of(shipment: Shipment, event: Fulfilment) -> list[tuple[Part, int]]:
    return units_of(event, {part: part.open_units for part in shipment.parts}, DeadLetter.SHIPMENT_CLOSED)


def units_of(event: Fulfilment, room: dict[Part, int], when_none: DeadLetter) -> list[tuple[Part, int]]:
    """Say how many units of which parts an event is about: what it names, by default all there is room for."""
    if not any(room.values()):
        raise RefusedEvent(when_none)
    if event.lines is None:
        return [(part, units) for part, units in room.items() if units]
    taken = dict.fromkeys(room, 0)
    for line in event.lines:
        left = line.quantity
        parts = [part for part in room if part.line_id == line.line_id]
        if not parts:
            raise RefusedEvent(DeadLetter.UNKNOWN_LINE)
        for part in parts:
            units = min(left, room[part] - taken[part])
            taken[part] += units
            left -= units
        if left:
            raise RefusedEvent(DeadLetter.EXCEEDS_SHIPMENT)
    return [(part, units) for part, units in taken.items() if units]
