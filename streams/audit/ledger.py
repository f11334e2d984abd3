"""One pool as the audit keeps it: orders, shipments, stock and clock, one event at a time.

The ledger does what an event says by itself (stock moves, promises are given back) and nothing that is a matter of choice.
Which location gets a line it learns from `allocations.v1` (decisions.py), so it can judge a decision without making one.
Owner: the audit. It shares no code with the state or the engine, on purpose.
Not here: cells and supplies (stock.py), whether a record is readable (topics/events.py), a decision's rules (decisions.py).
"""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from itertools import count

from streams.audit.changes import change
from streams.audit.discrepancies import Discrepancies, Due
from streams.audit.facts import Demand, Fact, demands_of, may_be_rung_up, moved, rejected_units
from streams.audit.memory import Limits, RefusedEvent, Seen
from streams.audit.orders import Order, Part, Root, Shipment, is_as_asked, newness, part_of
from streams.audit.products import Kits
from streams.audit.stock import Clock, Stock
from topics.events import (
    Answered,
    Cancelled,
    Changed,
    Count,
    Held,
    LocationRecord,
    OrderLine,
    Placed,
    Returned,
    Sale,
    StockEvent,
    TransferOut,
)
from topics.reasons import AlertKind, AlertStatus, DeadLetter

MAX_UNITS = 1 << 62


class Pool:
    """One pool's ledger."""

    def __init__(self, pool_id: str, limits: Limits, network: dict[str, LocationRecord], kits: Kits):
        self.id = pool_id
        self.limits = limits
        self.network = network
        self.kits = kits
        self.clock = Clock()
        self.stock = Stock(pool_id, limits, self.clock)
        self.sequence = 0
        self.orders: dict[str, Order] = {}
        self.waiting: dict[str, dict[str, Order]] = defaultdict(dict)
        """SKU → order id → order with a waiting part that takes units of that SKU."""
        self.kept_lines = 0
        """Parts of the orders that are open, or closed but not forgotten."""
        self.order_count = 0
        self.line_count = 0
        """Orders, and the lines they asked for, ever."""
        self.discrepancies = Discrepancies()
        self._age = 0
        self._holds: list[tuple[int, int, int, Order]] = []
        """(Expires at, age, number of the entry, order)."""
        self._pushed = count()
        self._promises: dict[tuple[str, str], dict[Part, Order]] = defaultdict(dict)
        """Cell → its promises that are open."""
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
            self.stock.supplies.pass_due(timestamp)

    def due_holds(self) -> Iterator[Order]:
        """Give the holds whose time has come, in the order in which they expire."""
        while self._holds and self._holds[0][0] <= self.now:
            expires_at, *_, order = heapq.heappop(self._holds)
            if order.held and order.expires_at == expires_at:
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

    def move_stock(self, event: StockEvent) -> bool:
        """Apply an event of `stock.v1`; false = stale, ignored: the last count of the cell has seen it."""
        self.place(event.location_id)
        if isinstance(event, TransferOut):
            self.place(event.to_location_id)
        applied = self.stock.apply(event)
        if applied and isinstance(event, Count):
            cell = event.location_id, event.sku
            self.discrepancies.counted(cell, self.stock.cells[cell].on_hand)
        return applied

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
        """Enter an order, or bring its hold in line with the event; new lines wait until a decision says otherwise."""
        former = self.known(event.order_id)
        if former and not (former.ended and not former.shipped):
            if not former.held:
                raise RefusedEvent(DeadLetter.ORDER_EXISTS)
            if not is_as_asked(former, event):
                if not self.can_be_met(event):
                    return self._enter(event, former)
                change(self, former, event)
            former.request = event
            self._keep_held(former, event)
            self.queue(former)
            return former
        order = self._enter(event, None)
        if former:  # its lines count on as if it had been closed now
            former.closed_at = self.now
            self._closed.append((self.now, former))
        return order

    def _enter(self, event: Placed | Held, hold: Order | None) -> Order:
        """Make a new order; a hold that it stands for is given back."""
        self.check_order_room(event.lines)
        if hold:
            self.end(hold)
            age = hold.age
        else:
            self._age += 1
            age = self._age
        self.order_count += hold is None
        self.line_count += len(event.lines) - (len(hold.request.lines) if hold else 0)
        parts = [part_of(line, self.kits) for line in event.lines]
        self.note_lines(parts)
        order = self.orders[event.order_id] = Order(event.order_id, age, event, parts, held=False)
        self._keep_held(order, event)
        self.queue(order)
        return order

    def note_lines(self, parts: list[Part]) -> None:
        """Count new lines, and know their SKUs from now on."""
        self.kept_lines += len(parts)
        self.stock.skus.update(part.sku for part in parts)
        self.stock.skus.update(sku for part in parts for sku, _ in part.goods)

    def _keep_held(self, order: Order, event: Placed | Held) -> None:
        order.held = isinstance(event, Held)
        order.expires_at = event.expires_at if isinstance(event, Held) else None
        if isinstance(event, Held):
            heapq.heappush(self._holds, (event.expires_at, order.age, next(self._pushed), order))

    def can_be_met(self, request: Placed | Held) -> bool:
        """Tell whether a pickup, if it is one, has a location of the pool that does pickups."""
        if request.mode != "pickup":
            return True
        location = self.network.get(request.pickup_location_id or "")
        return location is not None and location.pool == self.id and "pickup" in (location.capabilities or ())

    def check_order_room(self, lines: list[OrderLine]) -> None:
        """Check that the pool may keep what an order's lines would add."""
        named = [sku for line in lines for sku in (line.sku, *(part for part, _ in part_of(line, self.kits).kit))]
        unknown = sum(sku not in self.stock.skus for sku in named)
        if len(self.stock.skus) + unknown > self.limits.max_skus:
            raise RefusedEvent(DeadLetter.TOO_MANY_SKUS)
        if self.kept_lines + len(lines) > self.limits.max_order_lines:
            raise RefusedEvent(DeadLetter.TOO_MANY_LINES)

    def change_order(self, event: Changed) -> Order:
        """Make an order another."""
        order = self._open_order(event.order_id)
        change(self, order, event)
        self.queue(order)
        return order

    def _open_order(self, order_id: str) -> Order:
        order = self.known(order_id)
        if order is None:
            raise RefusedEvent(DeadLetter.UNKNOWN_ORDER)
        if order.closed_at is not None:
            raise RefusedEvent(DeadLetter.ORDER_CLOSED)
        return order

    def cancel(self, event: Cancelled) -> Order:
        """Give back an order's unshipped units, those of some lines, or so many of some."""
        order = self._open_order(event.order_id)
        known = {part.line_id for part in order.parts}
        units: dict[str, int] = dict.fromkeys(known, MAX_UNITS)
        if event.line_ids is not None:
            units = dict.fromkeys(event.line_ids, MAX_UNITS)
        elif event.lines is not None:
            units = {line.line_id: line.quantity for line in event.lines}
        if not set(units) <= known:
            raise RefusedEvent(DeadLetter.UNKNOWN_LINE)
        if not sum(self._cancel_line(order, line_id, quantity) for line_id, quantity in units.items()):
            raise RefusedEvent(DeadLetter.ORDER_CLOSED)
        order.held = order.held and order.wants_units
        self.queue(order)
        return order

    def _cancel_line(self, order: Order, line_id: str, units: int) -> int:
        """Give back units of a line, at most so many; returns how many."""
        parts = [part for part in order.parts if part.line_id == line_id]
        left = units
        for part in parts:
            left -= part.want_less(left)
        for part in parts:
            left -= self.give_back(part, left)
        return units - left

    def end(self, order: Order) -> None:
        """Close an order that gets nothing any more: its hold expired, or it can never be met."""
        order.held, order.ended = False, True
        for part in order.parts:
            part.want_less(part.quantity)
            self.give_back(part, part.open_units)
        self.queue(order)

    def answer(self, event: Answered) -> tuple[Order | None, bool]:
        """Apply what a location did with goods; returns the order, if it is known, and whether it needs a decision."""
        if event.kind == "rejected":
            return self._reject(event), True
        order, demands = self._fact(event, -1)
        if order is None:
            return None, False
        fact = Fact(self, order, event.location_id, event.event_time)
        for demand in demands:
            if demand.parts:
                fact.send(event, demand)
            else:
                self._move_unknown(event, demand, -1)
        self.queue(order)
        return order, fact.took_from_others

    def take_back(self, event: Returned) -> None:
        """Apply what came back."""
        order, demands = self._fact(event, 1)
        if order is None:
            return
        fact = Fact(self, order, event.location_id, event.event_time)
        for demand in demands:
            if demand.parts:
                fact.take_back(event, demand)
            else:
                self._move_unknown(event, demand, 1)

    def _fact(self, event: Answered | Returned, sign: int) -> tuple[Order | None, list[Demand]]:
        """Say what a fact is about, if all of it may be applied; of an order that is not known it is applied already."""
        self.place(event.location_id)
        order = self.known(event.order_id)
        demands = demands_of(order, event, self.kits)
        if order is None and not demands:
            raise RefusedEvent(DeadLetter.UNKNOWN_ORDER)
        moves = [move for demand in demands for move in demand.moves(sign)]
        self.stock.check_moves(event.location_id, moves, event.event_time)
        for demand in demands if order is None else ():
            self._move_unknown(event, demand, sign)
        return order, demands

    def _move_unknown(self, event: Answered | Returned, demand: Demand, sign: int) -> None:
        """Move goods that nobody knows."""
        kind = AlertKind.SHIPPED_UNKNOWN if sign < 0 else AlertKind.OVER_RETURNED
        for sku, units in demand.moves(sign):
            self.discrepancies.tell(kind, (event.location_id, sku), abs(units))
            self.stock.move((event.location_id, sku), units, event.event_time)

    def _reject(self, event: Answered) -> Order | None:
        """Give promises back that a location can't keep; the units wait again, elsewhere."""
        order = self.known(event.order_id)
        if order is None:
            raise RefusedEvent(DeadLetter.UNKNOWN_ORDER)
        self.place(event.location_id)
        shipment = order.shipments.get(event.shipment_id)
        if shipment is None or not shipment.parts:
            raise RefusedEvent(DeadLetter.UNKNOWN_SHIPMENT)
        if event.location_id != shipment.location_id:
            raise RefusedEvent(DeadLetter.WRONG_LOCATION)
        taken, given_back = rejected_units(order, event)
        self._check_cuts(order, taken)
        for part in [part for part in order.parts if part in taken or part in given_back]:
            order.refusals.add((part.root, shipment.location_id))
            units, more = taken.get(part, 0), given_back.get(part, 0)
            if units:
                self.lose(order, part, units, missing=units if event.missing else 0)
            if event.missing:
                part.missing += more
                for sku, gone in part.taken(units + more):
                    self.stock.move((shipment.location_id, sku), -gone, event.event_time)
        self.queue(order)
        return order if taken else None

    def _check_cuts(self, order: Order, taken: dict[Part, int]) -> None:
        """Check that a line is not cut into more parts than are kept of one."""
        new = Counter[Root]()
        for part, units in taken.items():
            if order.has_room(part.root, new[part.root], new.total()):
                new[part.root] += 1
            elif units < part.quantity:
                raise RefusedEvent(DeadLetter.TOO_MANY_LINES)

    def sell(self, event: Sale) -> tuple[bool, Order | None, bool]:
        """Apply a till's line; returns false = stale, the order it collects, and whether that needs a decision."""
        self.place(event.location_id)
        order = self.known(event.order_id) if event.order_id and event.kind == "sale" else None
        if order is None or order.pickup != event.location_id:
            return self._sell_loose(event), None, False
        parts = [part for part in order.parts if part.stocked and part.sku == event.sku]
        parts = [part for part in parts if event.line_id in (None, part.line_id)]
        own = next(filter(may_be_rung_up, parts), None)
        if own is None:
            return self._sell_loose(event), None, False
        self.stock.check_moves(event.location_id, moved(own.goods, -event.quantity), event.event_time)
        fact = Fact(self, order, event.location_id, event.event_time)
        left = fact.ring_up([part for part in parts if part.goods == own.goods], event.quantity)
        if left:
            for move in moved(own.goods, -left):
                self.stock.move((event.location_id, move[0]), move[1], event.event_time)
        self.queue(order)
        return True, order, fact.took_from_others

    def _sell_loose(self, event: Sale) -> bool:
        """Apply a sale or return that is of no order; a kit's moves its parts."""
        kit = self.kits.of(event.sku)
        return self.stock.sell_kit(event, kit) if kit else self.stock.apply(event)

    # Promises, given back

    def give_back(self, part: Part, units: int) -> int:
        """Take promised units that are not wanted out of a part, as many as there are; returns how many."""
        taken = min(units, part.open_units)
        if taken:
            self.unreserve(part, taken)
            part.released += taken
            part.quantity -= taken
        return taken

    def unreserve(self, part: Part, units: int) -> None:
        """Give promised units of a part back at the cells."""
        assert part.shipment
        for sku, taken in part.taken(units):
            self.stock.write((part.shipment.location_id, sku), reserved=-taken)

    def _unlist(self, part: Part) -> None:
        """Take a part out of its cells' promises."""
        assert part.shipment
        for sku, _ in part.goods:
            self._promises[part.shipment.location_id, sku].pop(part, None)

    def lose(self, order: Order, part: Part, units: int, missing: int = 0, at_any_rate: bool = False) -> None:
        """Take a promise from units that are still wanted: they wait again, behind the part or, lacking room, as the part."""
        shipment = part.shipment
        assert shipment
        if not (order.has_room(part.root) or (at_any_rate and units < part.quantity)):
            self.unreserve(part, units)
            shipment.parts.remove(part)
            self._unlist(part)
            part.shipment, part.waiting = None, True
            part.released = part.missing = part.rung = part.implied = 0
            return
        self.give_back(part, units)
        part.missing += missing
        self.split(order, part, part.split_off(units))

    def split(self, order: Order, part: Part, new: Part) -> None:
        """Enter a part that was split off another one."""
        order.put_behind(part, new)
        self.kept_lines += 1

    def want_less(self, order: Order, part: Part, units: int) -> int:
        """Let an order want fewer units of a line, of which a part brought more; returns how many could be taken."""
        line = [each for each in order.parts if each.root == part.root]
        promised = [each for each in line if each.shipment and each.shipment is not part.shipment]
        left = units
        for each in line:
            left -= each.want_less(left)
        for each in sorted(promised, key=lambda each: newness(order, each), reverse=True):
            left -= self.give_back(each, left)
        return units - left

    def cover(self) -> list[Order]:
        """See to the cells that the event's own changes left short; gives the orders that lost a promise, oldest first.

        In the order in which they became short: a kit that one of them loses is given back at the others too.
        """
        losers: dict[str, Order] = {}
        for cell_name in list(self.stock.short | self.stock.written):
            cell = self.stock.cells[cell_name]
            if cell.on_hand < cell.reserved:
                self.discrepancies.short(cell_name, cell.on_hand, cell.reserved)
            while self.limits.on_shortfall == "reroute" and cell.reserved > max(cell.on_hand, 0):
                promises = {part: order for part, order in self._promises[cell_name].items() if part.open_units}
                part, order = max(promises.items(), key=lambda promise: newness(promise[1], promise[0]))
                self.lose(order, part, part.open_units, at_any_rate=True)
                losers[order.id] = order
            if cell.on_hand >= cell.reserved:
                self.discrepancies.covered(cell_name, cell.on_hand, cell.reserved)
        for order in losers.values():
            self.queue(order)
        return sorted(losers.values(), key=lambda order: order.age)

    def take_due(self) -> list[Due]:
        """Take the alerts that the event in hand calls for."""
        for cell, units in self.stock.late:
            self.discrepancies.tell(AlertKind.LATE_MOVEMENT, cell, units)
        self.stock.late.clear()
        for told in self.stock.supplies.told:
            status = AlertStatus.RAISED if told.stands else AlertStatus.CLEARED
            due = Due(told.kind, status, told.to, told.name[1], told.received, told.sent, told.name[0])
            self.discrepancies.due.append(due)
        self.stock.supplies.told.clear()
        taken, self.discrepancies.due = self.discrepancies.due, []
        return taken

    # Promises, as published

    def promise(self, order: Order, part: Part, shipment: Shipment) -> None:
        """Reserve a waiting part's units at a shipment's location."""
        part.shipment, part.waiting = shipment, False
        shipment.parts.append(part)
        order.shipments[shipment.id] = shipment
        for sku, units in part.taken(part.quantity):
            self._promises[shipment.location_id, sku][part] = order
            self.stock.write((shipment.location_id, sku), reserved=units)

    def queue(self, order: Order) -> None:
        """Bring the queues in line with what an order waits for, and note whether it is closed."""
        for part in order.parts:
            if part.shipment and not part.open_units:
                self._unlist(part)
        waits = {sku for part in order.parts if part.waiting for sku, _ in part.goods}
        for sku in {sku for part in order.parts for sku, _ in part.goods}:
            if sku in waits:
                self.waiting[sku][order.id] = order
            else:
                self.waiting[sku].pop(order.id, None)
        # A hold ends by its event or its time, not by being shipped.
        if order.held or order.wants_units:
            order.closed_at = None
        elif order.closed_at is None:
            order.closed_at = self.now
            self._closed.append((self.now, order))
