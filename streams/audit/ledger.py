"""One pool as the audit keeps it: cells, orders, shipments and clock in plain dicts, one event at a time.

The ledger does what an event says by itself (stock moves, promises are given back) and nothing that is a matter of
choice: which location gets a line it learns from `allocations.v1` (decisions.py), so it can judge a decision without
making one.
Owner: the audit. It shares no code with the state or the engine, on purpose.
Not here: whether a record is readable (topics/events.py), what a decision may say (decisions.py).
"""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from topics.errors import NearshelfError
from topics.events import (
    MAX_QUANTITY,
    Cancelled,
    Count,
    Expected,
    Fulfilment,
    Held,
    LocationRecord,
    OrderRequest,
    Placed,
    Record,
    SafetyStock,
)
from topics.reasons import DeadLetter

SIGNS = {
    "sale": -1,
    "return": 1,
    "receipt": 1,
    "adjustment": 1,
    "transfer_out": -1,
    "transfer_in": 1,
    "quarantine": -1,
    "release": 1,
}
"""What a stock movement does to on hand."""

MAX_LINE_PARTS = 64
MAX_ORDER_PARTS = 2_000
"""Into how many parts rejections may cut a line, and all of an order."""


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


@dataclass(slots=True)
class Cell:
    """One SKU at one location."""

    on_hand: int = 0
    reserved: int = 0
    safety_stock: int = 0
    changed_at: int = 0
    """Pool's now when a quantity last changed."""
    touched_at: int = 0
    """Pool's now when an event last wrote the cell, changed or not."""
    counted_at: int = -1
    movements: deque[tuple[int, int, int]] = field(default_factory=deque)
    """(event_time, applied at, signed units), in the order applied."""
    forgotten: int = -1
    """Latest event_time among movements applied before the horizon."""

    @property
    def available(self) -> int:
        return max(0, self.on_hand - self.reserved - self.safety_stock)


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
    def waiting(self) -> list[Part]:
        return [part for part in self.parts if part.waiting]

    @property
    def open_shipments(self) -> list[Shipment]:
        return [shipment for shipment in self.shipments.values() if shipment.open_units]


class Pool:
    """One pool's ledger."""

    def __init__(self, pool_id: str, limits: Limits, network: dict[str, LocationRecord]):
        self.id = pool_id
        self.limits = limits
        self.network = network
        self.now = 0
        self.sequence = 0
        self.cells: dict[tuple[str, str], Cell] = {}
        self.stocked: dict[str, set[str]] = defaultdict(set)
        """SKU → locations with a cell."""
        self.orders: dict[str, Order] = {}
        self.waiting: dict[str, dict[str, Order]] = defaultdict(dict)
        """SKU → order id → order with a waiting part of that SKU."""
        self.changed: set[tuple[str, str]] = set()
        """Cells written since the batch began."""
        self.freed: set[tuple[str, str]] = set()
        """Cells whose available rose in the event in hand."""
        self.skus: set[str] = set()
        """Ever heard of."""
        self.supplies: dict[tuple[str, str, str], int] = {}
        """("expected" or "in transit", its reference, SKU) → units that are to come; never 0."""
        self.kept_lines = 0
        """Parts of the orders that are open, or closed but not forgotten."""
        self.order_count = 0
        self.line_count = 0
        """Orders, and the lines they asked for, ever."""
        self._age = 0
        self._holds: list[tuple[int, int, Order]] = []
        self._closed: deque[tuple[int, Order]] = deque()
        """(Closed at, order), oldest first."""
        self._seen = Seen(limits)

    # Time and identity

    def advance(self, timestamp: int) -> None:
        """Let the pool's clock see a record."""
        if timestamp > self.now:
            self.now = timestamp
            self._forget_orders()

    def due_holds(self) -> Iterator[Order]:
        """Give the holds whose time has come, in the order in which they expire."""
        while self._holds and self._holds[0][0] <= self.now:
            _, age, order = heapq.heappop(self._holds)
            if order.held and order.age == age and order.closed_at is None:
                yield order

    def is_duplicate(self, event_id: str) -> bool:
        """Tell whether an event id was applied inside the dedupe window."""
        return self._seen.knows(event_id, self.now)

    def remember(self, event_id: str) -> None:
        """Note an event id as applied."""
        self._seen.remember(event_id, self.now)

    def _forget_orders(self) -> None:
        """Drop the orders that were closed so long ago that they count as unknown."""
        while self._closed and self._closed[0][0] + self.limits.closed_ms < self.now:
            closed_at, order = self._closed.popleft()
            if order.closed_at == closed_at and not order.forgotten:  # else it was closed again later
                order.forgotten = True
                self.kept_lines -= len(order.parts)
                if self.orders.get(order.id) is order:
                    del self.orders[order.id]

    # Cells

    def cell(self, location_id: str, sku: str) -> Cell:
        """Find a cell, or make it."""
        key = location_id, sku
        found = self.cells.get(key)
        if found is None:
            found = self.cells[key] = Cell()
            self.stocked[sku].add(location_id)
        return found

    def _write(self, key: tuple[str, str], on_hand: int = 0, reserved: int = 0, safety_stock: int = 0) -> None:
        """Change a cell by signed units."""
        cell = self.cell(*key)
        before = cell.available
        cell.on_hand += on_hand
        cell.reserved += reserved
        cell.safety_stock += safety_stock
        if on_hand or reserved or safety_stock:
            cell.changed_at = self.now
        cell.touched_at = self.now
        self.changed.add(key)
        if cell.available > before:
            self.freed.add(key)

    def _check_bounds(self, key: tuple[str, str], on_hand: int) -> None:
        cell = self.cells.get(key)
        if abs((cell.on_hand if cell else 0) + on_hand) > MAX_QUANTITY:
            raise RefusedEvent(DeadLetter.OUT_OF_RANGE)

    def _is_counted(self, key: tuple[str, str], event_time: int) -> bool:
        """Tell whether the last count of a cell has seen what moved at this time: it does not move again."""
        cell = self.cells.get(key)
        return cell is not None and event_time < cell.counted_at

    def _move(self, key: tuple[str, str], on_hand: int, event_time: int, reserved: int = 0) -> None:
        if self._is_counted(key, event_time):
            self._write(key, 0, reserved)
            return
        cell = self.cell(*key)
        cell.movements.append((event_time, self.now, on_hand))
        self._forget(cell)
        self._write(key, on_hand, reserved)

    def _forget(self, cell: Cell) -> None:
        oldest = self.now - self.limits.horizon_ms
        while cell.movements and cell.movements[0][1] < oldest:
            cell.forgotten = max(cell.forgotten, cell.movements.popleft()[0])

    # Events. Each raises RefusedEvent before it changes anything.

    def stock(self, event: Record) -> bool:
        """Apply an event of `sales.v1` or `stock.v1`; false = stale, ignored: the last count of the cell has seen it."""
        self.place(event.location_id)
        key = event.location_id, event.sku
        if isinstance(event, Count):
            return self._count(key, event)
        if isinstance(event, SafetyStock):
            self._check_room(key)
            self._write(key, safety_stock=event.quantity - self.cell(*key).safety_stock)
        elif isinstance(event, Expected):
            supply = "expected", event.supply_id, event.sku
            self._check_room(key, supply, makes_cell=False)
            self._supply(supply, event.quantity)
        else:
            units = SIGNS[event.kind] * event.quantity
            supply = ("in transit", event.transfer_id, event.sku) if event.kind.startswith("transfer") else None
            counted = self._is_counted(key, event.event_time)
            if counted and not supply:
                return False
            if not counted:
                self._check_bounds(key, units)
            self._check_room(key, supply)
            if not counted:
                self._move(key, units, event.event_time)
            if supply:
                self._supply(supply, self.supplies.get(supply, 0) - units)
        self.skus.add(event.sku)
        return True

    def _check_room(self, key: tuple[str, str], supply: tuple[str, str, str] | None = None, makes_cell: bool = True) -> None:
        """Check that the pool may keep what an event about a cell, and a supply, would add."""
        if key[1] not in self.skus and len(self.skus) >= self.limits.max_skus:
            raise RefusedEvent(DeadLetter.TOO_MANY_SKUS)
        if makes_cell and key not in self.cells and len(self.cells) >= self.limits.max_cells:
            raise RefusedEvent(DeadLetter.TOO_MANY_CELLS)
        if supply and supply not in self.supplies and len(self.supplies) >= self.limits.max_supplies:
            raise RefusedEvent(DeadLetter.TOO_MANY_SUPPLIES)

    def _supply(self, supply: tuple[str, str, str], units: int) -> None:
        if units:
            self.supplies[supply] = units
        else:
            self.supplies.pop(supply, None)

    def _count(self, key: tuple[str, str], event: Count) -> bool:
        counted_at = event.event_time if event.counted_at is None else event.counted_at
        cell = self.cells.get(key) or Cell()
        if counted_at < cell.counted_at:
            return False
        self._forget(cell)
        if cell.forgotten > counted_at:
            raise RefusedEvent(DeadLetter.COUNT_TOO_OLD)
        later = sum(units for event_time, _, units in cell.movements if event_time > counted_at)
        if abs(event.quantity + later) > MAX_QUANTITY:
            raise RefusedEvent(DeadLetter.OUT_OF_RANGE)
        self._check_room(key)
        self.skus.add(event.sku)
        self.cell(*key).counted_at = counted_at
        self._write(key, on_hand=event.quantity + later - cell.on_hand)
        return True

    def place(self, location_id: str) -> LocationRecord:
        """Find a location of this pool."""
        location = self.network.get(location_id)
        if location is None:
            # A location of another partition's pool is known to its own partition's log only.
            raise RefusedEvent(DeadLetter.UNKNOWN_LOCATION, DeadLetter.WRONG_POOL)
        if location.pool != self.id:
            raise RefusedEvent(DeadLetter.WRONG_POOL)
        return location

    def known(self, order_id: str) -> Order | None:
        """Find an order that is not forgotten."""
        return self.orders.get(order_id)

    def place_order(self, event: Placed | Held) -> Order:
        """Enter an order, or confirm its hold; the lines of a new one wait until a decision says otherwise."""
        held = isinstance(event, Held)
        former = self.known(event.order_id)
        if former and not former.expired:
            if held or not former.held:
                raise RefusedEvent(DeadLetter.ORDER_EXISTS)
            if _is_as_asked(former, event):
                former.held = False
                former.request = event
                self.queue(former)
                return former
        self._check_order_room(event)
        if former and not former.expired:
            former.held = False
            self.release(former)
            age = former.age
        else:
            self._age += 1
            age = self._age
        self.order_count += former is None
        self.line_count += len(event.lines) - (len(former.request.lines) if former else 0)
        if former:  # its lines count on as if it had been closed now
            former.closed_at = self.now
            self._closed.append((self.now, former))
        parts = [Part(line.line_id, line.sku, line.quantity) for line in event.lines]
        self.kept_lines += len(parts)
        self.skus.update(part.sku for part in parts)
        order = self.orders[event.order_id] = Order(event.order_id, age, event, parts, held)
        self.queue(order)
        if held:
            heapq.heappush(self._holds, (event.expires_at, age, order))
        return order

    def _check_order_room(self, event: Placed | Held) -> None:
        """Check that the pool may keep what a new order would add."""
        unknown = sum(line.sku not in self.skus for line in event.lines)
        if len(self.skus) + unknown > self.limits.max_skus:
            raise RefusedEvent(DeadLetter.TOO_MANY_SKUS)
        if self.kept_lines + len(event.lines) > self.limits.max_order_lines:
            raise RefusedEvent(DeadLetter.TOO_MANY_LINES)

    def cancel(self, event: Cancelled) -> Order:
        """Give back an order's unshipped units, or some lines'."""
        order = self.known(event.order_id)
        if order is None:
            raise RefusedEvent(DeadLetter.UNKNOWN_ORDER)
        if order.closed_at is not None:
            raise RefusedEvent(DeadLetter.ORDER_CLOSED)
        parts = order.parts
        if event.line_ids is not None:
            if not set(event.line_ids) <= {part.line_id for part in parts}:
                raise RefusedEvent(DeadLetter.UNKNOWN_LINE)
            parts = [part for part in parts if part.line_id in event.line_ids]
        if not any(part.waiting or part.open_units for part in parts):
            raise RefusedEvent(DeadLetter.ORDER_CLOSED)
        order.held = order.held and any(part.waiting or part.open_units for part in order.parts if part not in parts)
        self.release(order, parts)
        return order

    def end(self, order: Order, expired: bool = False) -> None:
        """Close an order that gets nothing any more: its hold expired, or it can never be met."""
        order.held, order.expired = False, expired
        self.release(order)

    def release(self, order: Order, parts: list[Part] | None = None) -> None:
        """Take open parts (default: all) out of an order; what was shipped stays shipped."""
        for part in order.parts if parts is None else parts:
            if part.open_units:
                self._write((part.shipment.location_id, part.sku), reserved=-part.open_units)
            if part.waiting or part.open_units:
                part.quantity = part.shipped
            part.waiting = False
        self.queue(order)

    def fulfil(self, event: Fulfilment) -> Order:
        """Apply what a location answers; returns the order."""
        order = self.known(event.order_id)
        if order is None:
            raise RefusedEvent(DeadLetter.UNKNOWN_ORDER)
        self.place(event.location_id)
        shipment = order.shipments.get(event.shipment_id)
        if shipment is None or not shipment.parts:
            raise RefusedEvent(DeadLetter.UNKNOWN_SHIPMENT)
        arrival = shipment.kind == "transfer" and event.kind == "collected"
        at = order.request.pickup_location_id if arrival else shipment.location_id
        if event.kind != "returned" and event.location_id != at:
            raise RefusedEvent(DeadLetter.WRONG_LOCATION)
        if arrival:
            self._collect(shipment, event)
        elif event.kind == "returned":
            self._return(shipment, event)
        elif event.kind == "rejected":
            self._reject(order, shipment, event)
        else:
            self._ship(shipment, event)
        self.queue(order)
        return order

    def _ship(self, shipment: Shipment, event: Fulfilment) -> None:
        for part, units in _open_units(shipment, event):
            part.shipped += units
            self._move((shipment.location_id, part.sku), -units, event.event_time, reserved=-units)

    def _collect(self, shipment: Shipment, event: Fulfilment) -> None:
        """Close what a transfer brought to the pickup location; its stock moved when it was shipped."""
        arrived = {part: 0 if part.open_units else part.shipped - part.collected for part in shipment.parts}
        on_its_way = any(part.open_units for part in shipment.parts)
        for part, units in _take(event, arrived, DeadLetter.NOT_SHIPPED if on_its_way else DeadLetter.SHIPMENT_CLOSED):
            part.collected += units

    def _reject(self, order: Order, shipment: Shipment, event: Fulfilment) -> None:
        """Give promises back; the units wait, as a line of their own if the location keeps or has shipped some."""
        taken = list(_open_units(shipment, event))
        cut = [part for part, units in taken if 0 < units < part.quantity]
        parts = Counter(part.line_id for part in order.parts)
        if any(parts[part.line_id] >= MAX_LINE_PARTS for part in cut) or (
            cut and len(order.parts) + len(cut) > MAX_ORDER_PARTS
        ):
            raise RefusedEvent(DeadLetter.TOO_MANY_LINES)
        for part, units in taken:
            self._write((shipment.location_id, part.sku), reserved=-units)
            order.refusals.add((part.line_id, shipment.location_id))
            if units == part.quantity:
                shipment.parts.remove(part)
                part.shipment, part.waiting = None, True
            else:
                part.quantity -= units
                order.parts.append(Part(part.line_id, part.sku, units))
                self.kept_lines += 1

    def _return(self, shipment: Shipment, event: Fulfilment) -> None:
        shipped = any(part.shipped for part in shipment.parts)
        room = {part: part.shipped - part.returned for part in shipment.parts}
        taken = _take(event, room, DeadLetter.SHIPMENT_CLOSED if shipped else DeadLetter.NOT_SHIPPED)
        per_cell: dict[str, int] = defaultdict(int)
        for part, units in taken:
            per_cell[part.sku] += units
        new = sum(1 for part, units in taken if units and (event.location_id, part.sku) not in self.cells)
        if new and len(self.cells) + new > self.limits.max_cells:
            raise RefusedEvent(DeadLetter.TOO_MANY_CELLS)
        for sku, units in per_cell.items():
            if not self._is_counted((event.location_id, sku), event.event_time):
                self._check_bounds((event.location_id, sku), units)
        for part, units in taken:
            part.returned += units
            self._move((event.location_id, part.sku), units, event.event_time)

    # Promises, as published

    def promise(self, order: Order, part: Part, shipment: Shipment) -> None:
        """Reserve a waiting part's units at a shipment's location."""
        part.shipment, part.waiting = shipment, False
        shipment.parts.append(part)
        order.shipments[shipment.id] = shipment
        self._write((shipment.location_id, part.sku), reserved=part.quantity)

    def queue(self, order: Order) -> None:
        """Bring the queues in line with what an order waits for, and note whether it is closed."""
        waits = {part.sku for part in order.parts if part.waiting}
        for sku in {part.sku for part in order.parts}:
            if sku in waits:
                self.waiting[sku][order.id] = order
            else:
                self.waiting[sku].pop(order.id, None)
        # A hold ends by its event or its time, not by being shipped.
        if waits or order.held or any(part.open_units for part in order.parts):
            order.closed_at = None
        elif order.closed_at is None:
            order.closed_at = self.now
            self._closed.append((self.now, order))


def _is_as_asked(order: Order, event: Placed) -> bool:
    """Tell whether an order asks for just what its hold asked for, all of which is still in it."""

    def essence(request: OrderRequest) -> tuple:
        lines = [(line.line_id, line.sku, line.quantity) for line in request.lines]
        place = request.destination if request.mode == "delivery" else request.pickup_location_id
        return lines, request.mode, place, request.service_level, request.allow_split, request.allow_partial

    asked = sum(line.quantity for line in order.request.lines)
    return essence(order.request) == essence(event) and sum(part.quantity for part in order.parts) == asked


def _open_units(shipment: Shipment, event: Fulfilment) -> list[tuple[Part, int]]:
    return _take(event, {part: part.open_units for part in shipment.parts}, DeadLetter.SHIPMENT_CLOSED)


def _take(event: Fulfilment, room: dict[Part, int], when_none: DeadLetter) -> list[tuple[Part, int]]:
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
