"""One pool as the audit keeps it: orders, shipments, stock and clock, one event at a time.

The ledger does what an event says by itself (stock moves, promises are given back) and nothing that is a matter of choice.
Which location gets a line it learns from `allocations.v1` (decisions.py), so it can judge a decision without making one.
Owner: the audit. It shares no code with the state or the engine, on purpose.
Not here: cells and supplies (stock.py), whether a record is readable (topics/events.py), a decision's rules (decisions.py).
"""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Iterator

from streams.audit.memory import Limits, RefusedEvent, Seen
from streams.audit.orders import Order, Part, Shipment, is_as_asked, open_units_of, units_of
from streams.audit.stock import Clock, Stock
from topics.events import Cancelled, Fulfilment, Held, LocationRecord, Placed, Sale, StockEvent
from topics.reasons import DeadLetter

MAX_LINE_PARTS = 64
MAX_ORDER_PARTS = 2_000
"""Into how many parts rejections may cut a line, and all of an order."""


class Pool:
    """One pool's ledger."""

    def __init__(self, pool_id: str, limits: Limits, network: dict[str, LocationRecord]):
        self.id = pool_id
        self.limits = limits
        self.network = network
        self.clock = Clock()
        self.stock = Stock(limits, self.clock)
        self.sequence = 0
        self.orders: dict[str, Order] = {}
        self.waiting: dict[str, dict[str, Order]] = defaultdict(dict)
        """SKU → order id → order with a waiting part of that SKU."""
        self.kept_lines = 0
        """Parts of the orders that are open, or closed but not forgotten."""
        self.order_count = 0
        self.line_count = 0
        """Orders, and the lines they asked for, ever."""
        self._age = 0
        self._holds: list[tuple[int, int, Order]] = []
        self._closed: deque[tuple[int, Order]] = deque()
        """(Closed at, order), oldest first."""
        self.seen = Seen(limits)

    # Time and identity

    @property
    def now(self) -> int:
        return self.clock.now

    def advance(self, timestamp: int) -> None:
        """Let the pool's clock see a record."""
        if timestamp > self.now:
            self.clock.now = timestamp
            self._forget_orders()

    def due_holds(self) -> Iterator[Order]:
        """Give the holds whose time has come, in the order in which they expire."""
        while self._holds and self._holds[0][0] <= self.now:
            _, age, order = heapq.heappop(self._holds)
            if order.held and order.age == age and order.closed_at is None:
                yield order

    def _forget_orders(self) -> None:
        """Drop the orders that were closed so long ago that they count as unknown."""
        while self._closed and self._closed[0][0] + self.limits.closed_ms < self.now:
            closed_at, order = self._closed.popleft()
            if order.closed_at == closed_at and not order.forgotten:  # else it was closed again later
                order.forgotten = True
                self.kept_lines -= len(order.parts)
                if self.orders.get(order.id) is order:
                    del self.orders[order.id]

    # Events. Each raises RefusedEvent before it changes anything.

    def move_stock(self, event: Sale | StockEvent) -> bool:
        """Apply an event of `sales.v1` or `stock.v1`; false = stale, ignored: the last count of the cell has seen it."""
        self.place(event.location_id)
        return self.stock.apply(event)

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
            if is_as_asked(former, event):
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
        self.stock.skus.update(part.sku for part in parts)
        order = self.orders[event.order_id] = Order(event.order_id, age, event, parts, held)
        self.queue(order)
        if isinstance(event, Held):
            heapq.heappush(self._holds, (event.expires_at, age, order))
        return order

    def _check_order_room(self, event: Placed | Held) -> None:
        """Check that the pool may keep what a new order would add."""
        unknown = sum(line.sku not in self.stock.skus for line in event.lines)
        if len(self.stock.skus) + unknown > self.limits.max_skus:
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
            if part.shipment and part.open_units:
                self.stock.write((part.shipment.location_id, part.sku), reserved=-part.open_units)
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
        at = order.pickup if arrival else shipment.location_id
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
        for part, units in open_units_of(shipment, event):
            part.shipped += units
            self.stock.move((shipment.location_id, part.sku), -units, event.event_time, reserved=-units)

    def _collect(self, shipment: Shipment, event: Fulfilment) -> None:
        """Close what a transfer brought to the pickup location; its stock moved when it was shipped."""
        arrived = {part: 0 if part.open_units else part.shipped - part.collected for part in shipment.parts}
        on_its_way = any(part.open_units for part in shipment.parts)
        for part, units in units_of(event, arrived, DeadLetter.NOT_SHIPPED if on_its_way else DeadLetter.SHIPMENT_CLOSED):
            part.collected += units

    def _reject(self, order: Order, shipment: Shipment, event: Fulfilment) -> None:
        """Give promises back; the units wait, as a line of their own if the location keeps or has shipped some."""
        taken = list(open_units_of(shipment, event))
        cut = [part for part, units in taken if 0 < units < part.quantity]
        parts = Counter(part.line_id for part in order.parts)
        if any(parts[part.line_id] >= MAX_LINE_PARTS for part in cut) or (
            cut and len(order.parts) + len(cut) > MAX_ORDER_PARTS
        ):
            raise RefusedEvent(DeadLetter.TOO_MANY_LINES)
        for part, units in taken:
            self.stock.write((shipment.location_id, part.sku), reserved=-units)
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
        taken = units_of(event, room, DeadLetter.SHIPMENT_CLOSED if shipped else DeadLetter.NOT_SHIPPED)
        per_cell: dict[str, int] = defaultdict(int)
        for part, units in taken:
            per_cell[part.sku] += units
        new = sum(1 for part, units in taken if units and (event.location_id, part.sku) not in self.stock.cells)
        if new and len(self.stock.cells) + new > self.limits.max_cells:
            raise RefusedEvent(DeadLetter.TOO_MANY_CELLS)
        for sku, units in per_cell.items():
            if not self.stock.is_counted((event.location_id, sku), event.event_time):
                self.stock.check_bounds((event.location_id, sku), units)
        for part, units in taken:
            part.returned += units
            self.stock.move((event.location_id, part.sku), units, event.event_time)

    # Promises, as published

    def promise(self, order: Order, part: Part, shipment: Shipment) -> None:
        """Reserve a waiting part's units at a shipment's location."""
        part.shipment, part.waiting = shipment, False
        shipment.parts.append(part)
        order.shipments[shipment.id] = shipment
        self.stock.write((shipment.location_id, part.sku), reserved=part.quantity)

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
