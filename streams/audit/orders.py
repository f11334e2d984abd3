"""Orders as the audit keeps them: lines in parts, in an order's chain, and the shipments that hold them.

A line is one or more parts. The chain has the lines as given; a part split off stands behind the one it was split from.
A part of a kit's line counts kits. What it takes of stock, its goods, is what the kit was made of when the line was made.
Owner: the pool's ledger (ledger.py). It shares no code with the state or the engine, on purpose.
Not here: what an event does to parts (facts.py, changes.py, ledger.py).
"""

from collections import defaultdict
from dataclasses import dataclass, field

from streams.audit.products import Goods, Kits
from topics.events import Held, OrderLine, Placed

MAX_LINE_PARTS = 64
MAX_ORDER_PARTS = 2_000
"""Into how many parts a line may be cut, and all of an order, unless a shortfall cuts it."""
Root = tuple[str, str, bool]
"""A line of an order: line id, SKU, whether it is stocked."""


@dataclass(slots=True, eq=False)
class Part:
    """Units of a line that go one way."""

    line_id: str
    sku: str
    quantity: int
    shipped: int = 0
    returned: int = 0
    shipment: "Shipment | None" = None
    waiting: bool = True
    collected: int = 0
    """Of a transfer: handed over at the pickup location."""
    released: int = 0
    """Units of its shipment that were given back; they may still leave the location."""
    missing: int = 0
    """Of those: units that left on hand as not to be found."""
    rung: int = 0
    """Units that a till reported and `collected` has yet to confirm; below 0: the other way round."""
    implied: int = 0
    """Of a transfer: units taken as shipped because they were collected; `shipped` has yet to confirm them."""
    stocked: bool = True
    kit: Goods = ()
    """Empty: a plain line."""

    @property
    def goods(self) -> Goods:
        """What a unit of it takes of stock."""
        return self.kit or ((self.sku, 1),)

    def taken(self, units: int) -> list[tuple[str, int]]:
        """Say what so many units of it take of stock: SKUs, and units of each."""
        return [(sku, units * each) for sku, each in self.goods]

    def split_off(self, units: int, shipped: int = 0) -> "Part":
        """Make another part of its line: one that waits, or of units that were shipped without a promise."""
        return Part(self.line_id, self.sku, units, shipped, waiting=not shipped, kit=self.kit)

    @property
    def root(self) -> Root:
        return self.line_id, self.sku, self.stocked

    @property
    def kind(self) -> str:
        """What its shipment is; empty without one."""
        return self.shipment.kind if self.shipment else ""

    @property
    def open_units(self) -> int:
        """Promised and not yet shipped or collected."""
        return self.quantity - self.shipped if self.shipment else 0

    def want_less(self, units: int) -> int:
        """Take units out of a part that waits, as many as there are; returns how many."""
        taken = min(units, self.quantity) if self.waiting else 0
        self.quantity -= taken
        self.waiting = self.waiting and self.quantity > 0
        return taken


@dataclass(slots=True, eq=False)
class Shipment:
    """What one location ships of an order."""

    id: str
    location_id: str
    kind: str
    distance_km: float | None
    """None: to a new destination, not published yet."""
    sequence: int
    """Of the decision that made it."""
    parts: list[Part] = field(default_factory=list)

    @property
    def open_units(self) -> int:
        return sum(part.open_units for part in self.parts)


@dataclass(slots=True, eq=False)
class Order:
    """One order, or a hold."""

    id: str
    age: int
    request: Placed | Held
    """As it shall be now, but for the lines: those are in the parts."""
    parts: list[Part]
    """The chain."""
    held: bool
    expires_at: int | None = None
    """When a hold ends, epoch ms; None for an order."""
    shipments: dict[str, Shipment] = field(default_factory=dict)
    refusals: set[tuple[Root, str]] = field(default_factory=set)
    """(Line, location that refused it)."""
    closed_at: int | None = None
    ended: bool = False
    """It expired or was rejected."""
    forgotten: bool = False

    @property
    def pickup(self) -> str:
        """The location where the customer comes for it; empty for a delivery."""
        return (self.request.pickup_location_id or "") if self.request.mode == "pickup" else ""

    @property
    def waiting(self) -> list[Part]:
        return [part for part in self.parts if part.waiting]

    @property
    def open_shipments(self) -> list[Shipment]:
        return [shipment for shipment in self.shipments.values() if shipment.open_units]

    @property
    def shipped(self) -> bool:
        """Whether anything of it ever was."""
        return any(part.shipped for part in self.parts)

    @property
    def wants_units(self) -> bool:
        """Whether a part waits or is promised."""
        return any(part.waiting or part.open_units for part in self.parts)

    def roots(self) -> dict[Root, list[Part]]:
        """Give each line's parts, in the chain's order."""
        found: dict[Root, list[Part]] = defaultdict(list)
        for part in self.parts:
            found[part.root].append(part)
        return found

    def has_room(self, root: Root, more: int = 0, more_in_all: int = 0) -> bool:
        """Tell whether a line may be cut once more, if so many parts are added to it, and to all the order, before."""
        of_line = sum(part.root == root for part in self.parts)
        return len(self.parts) + more_in_all < MAX_ORDER_PARTS and of_line + more < MAX_LINE_PARTS

    def put_behind(self, part: Part, new: Part) -> None:
        """Enter a new part behind another one of its line."""
        self.parts.insert(self.parts.index(part) + 1, new)


def newness(order: Order, part: Part) -> tuple[int, int]:
    """Say how new a promise is: the last decision's is the newest, and in it the one that is last in its order's chain."""
    return part.shipment.sequence if part.shipment else 0, order.parts.index(part)


def part_of(line: OrderLine, kits: Kits) -> Part:
    """Make the part of a new line."""
    kit = kits.of(line.sku) if line.stocked else ()
    return Part(line.line_id, line.sku, line.quantity, waiting=line.stocked, stocked=line.stocked, kit=kit)


def asked_by(lines: list[OrderLine]) -> dict[Root, int]:
    """Say how many units of each line are asked for."""
    return {(line.line_id, line.sku, line.stocked): line.quantity for line in lines}


def place_of(request: Placed | Held) -> tuple:
    """Give the mode and the place that goes with it."""
    return request.mode, request.destination if request.mode == "delivery" else request.pickup_location_id


def is_as_asked(order: Order, event: Placed | Held) -> bool:
    """Tell whether an event asks for just what a hold asked for, all of which is still in it."""

    def essence(request: Placed | Held) -> tuple:
        return place_of(request), request.service_level, request.allow_split, request.allow_partial

    kept = {root: sum(part.quantity for part in parts) for root, parts in order.roots().items()}
    asked = asked_by(event.lines)
    return essence(order.request) == essence(event) and [*kept.items()] == [*asked.items()]
