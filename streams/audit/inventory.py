"""One partition's audit: the changelog gives the order of events, the ledger what they add up to, the outputs what was said.

For each event of a batch, in the order applied, it checks: the event is refused if it must be; the holds that are due expire;
the event has the one decision that it needs; the decisions keep the rules; no order waits that could be served; what
differs from a promise is told. After the batch, the cells are those of the changelog and of `inventory.v1`, and what is to come
is as `transfers.v1` and `supplies.v1` say. What every
group's audit checks is in batches.py.
Memory follows what the pools hold, not the length of the log.
Owner: the audit. Not here: what a decision may say (decisions.py), what an event adds up to (ledger.py).
"""

import json
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

from streams.audit import batches
from streams.audit.batches import BatchReplay, refusal_of
from streams.audit.chain import Batch, Change
from streams.audit.decisions import follow, is_served, servable
from streams.audit.discrepancies import alert_of
from streams.audit.latest import Latest
from streams.audit.ledger import Pool
from streams.audit.log import Log, Record
from streams.audit.memory import Limits, RefusedEvent, check_times
from streams.audit.orders import Order
from streams.audit.outputs import Alerts, Cells, Decisions, Place
from streams.audit.products import Kits
from streams.audit.report import Report
from streams.audit.rows import Names, PoolRows, cells_of
from streams.audit.sequences import Sequences
from streams.audit.stock import Cell, CellRow
from topics.catalogue import (
    ALERTS,
    ALLOCATIONS,
    CATALOGUE,
    INVENTORY,
    INVENTORY_TOPICS,
    LOCATIONS,
    PRODUCTS,
    SUPPLIES,
    TRANSFERS,
    Role,
    changelog_of,
    topics_of,
)
from topics.events import (
    CAPABILITIES,
    Answered,
    Cancelled,
    Changed,
    Held,
    LocationRecord,
    Placed,
    ProductRecord,
    Refusal,
    Returned,
    Sale,
    StockEvent,
    Tick,
    judge,
)
from topics.keys import partition_of
from topics.outputs import Alert, Allocation, Supply, Transfer
from topics.reasons import DeadLetter, Outcome

CHANGELOG = changelog_of("inventory")
TRANSFER_KEY, SUPPLY_KEY = CATALOGUE[TRANSFERS].key_fields, CATALOGUE[SUPPLIES].key_fields
Turn = deque[tuple[int, Allocation]]
"""The decisions that one record caused, not yet judged; each with its offset."""
CHANGES_KEPT = 100_000
"""Records of `locations.v1`, and of `products.v1`, read and not yet in a batch; beyond it the oldest are taken at its word."""


class Changes:
    """The records of `locations.v1`, or of `products.v1`, until the batch that applies them has been compared with them."""

    def __init__(self, log: Log, topic: str):
        self._readers = [log.read(topic, partition) for partition in range(log.partition_count(topic))]
        self._records: dict[tuple[int, int], Record] = {}

    def take(self, partition: int, offset: int) -> Record | None:
        """Take a record; None = compacted away since."""
        if (partition, offset) not in self._records:
            for number, reader in enumerate(self._readers):
                for record in reader:
                    self._records[number, record.offset] = record
                    if len(self._records) > CHANGES_KEPT:
                        del self._records[next(iter(self._records))]
        return self._records.pop((partition, offset), None)


class InventoryReplay(BatchReplay):
    """Judges one partition of the inventory topics; see `BatchReplay`. `changes`, by topic, are shared by all partitions."""

    changelog = CHANGELOG
    topics = INVENTORY_TOPICS
    dead_letter_topics = topics_of("inventory", Role.INPUT, Role.STATE)

    def __init__(
        self,
        log: Log,
        partition: int,
        limits: Limits,
        report: Report,
        changes: dict[str, Changes],
        deleted: tuple[str, ...] = (),
    ):
        super().__init__(log, partition, limits, report, deleted)
        self.partition_count = log.partition_count(INVENTORY_TOPICS[0])
        self.changes = changes
        self.kits = Kits()
        self.network: dict[str, LocationRecord] = {}
        self.pools: dict[str, Pool] = {}
        self.names: dict[str, Names] = {}
        self.versions: dict[tuple[str, str, str], int] = {}
        self.decisions = Decisions(log.read(ALLOCATIONS, partition), self._fault)
        self.alerts = Alerts(log.read(ALERTS, partition), self._fault)
        self.cells = Cells(log.read(INVENTORY, partition), self._fault)
        self.transfers = Latest(log.read(TRANSFERS, partition), TRANSFERS, Transfer, TRANSFER_KEY, self._fault)
        self.supplies = Latest(log.read(SUPPLIES, partition), SUPPLIES, Supply, SUPPLY_KEY, self._fault)
        self.sequences = Sequences(log.read(ALLOCATIONS, partition), self._fault) if self.blind else None
        self.counted: dict[str, int] = {}
        """Blind: pool → decisions so far."""

    # 1. A batch

    def judge_batch(self, batch: Batch) -> None:
        left = cells_of(batch, self.names)
        records = {topic: self._consumed(batch, topic, given) for topic, given in batch.inputs.items()}
        self.dead_letters.open(self._reached)
        self.alerts.open(self._reached)
        self.decisions.open(self._reached, {pool: rows.sequence for pool, rows in left.items() if rows.sequence is not None})
        for pool in self.pools.values():
            pool.stock.changed.clear()
            for changed in pool.stock.supplies.changed:
                changed.clear()
        for change in batch.locations:
            self._location(change)
        for change in batch.products:
            self._product(change)
        for pool in self.pools.values():
            pool.seen.by_id = pool.stock.supplies.plain = batch.layout < 2
        tapes = {topic: iter(taken) for topic, taken in records.items()}
        for topic in self._order(batch, records):
            self._event(topic, next(tapes[topic]))
        for pool_id, rows in left.items():
            self._compare(batch, pool_id, rows)
        for pool_id in self.pools if batch.products else [name for name, rows in left.items() if rows.kits_changed]:
            found = self.names[pool_id].kits_now() if pool_id in self.names else {}
            if found != self.kits.parts:
                self._fault("kit", CHANGELOG, batch.offset, f"kits of pool {pool_id} {self.kits.parts}", found)
        self.cells.settle()
        for pool in self.pools.values():
            self._unnamed(batch, pool)
            self._expect_supplies(batch, pool)
        self.transfers.settle()
        self.supplies.settle()
        for offset, source in self.decisions.left(self._reached):
            self._unclaimed(offset, source)
        for offset, source in self.alerts.left(self._reached):
            self._unclaimed_alert(offset, source)
        for offset, place in self.dead_letters.left(self._reached):
            self._unclaimed_letter(offset, place)

    def _unclaimed(self, offset: int, source: Place) -> None:
        found = f"another decision by {source[0]}[{source[1]}]@{source[2]}, or one by what is no input"
        self._fault("decision", ALLOCATIONS, offset, "a source among the records processed", found)

    def _unclaimed_alert(self, offset: int, source: Place) -> None:
        found = f"another alert by {source[0]}[{source[1]}]@{source[2]}, or one by what is no input"
        self._fault("alert", ALERTS, offset, "a source among the records that call for alerts", found)

    # 2. A change of the network

    def _location(self, change: Change) -> None:
        place = LOCATIONS, change.partition, change.offset
        record = self._changed(place, change)
        try:
            location = self._judged(record)
        except RefusedEvent as refused:
            self._check_dead_letters(place, record, refused)
            return
        self._check_dead_letters(place, record, None)
        self.network[location.id] = location
        pool = self._pool(location.pool)
        pool.stock.freed.clear()
        turn = deque(self.decisions.take((pool.id, place)))
        self._sweep(pool, turn)
        self._leftover(turn, "no more decisions by a change of a location")
        self._check_waiting(pool, place, [order for waiting in pool.waiting.values() for order in waiting.values()])

    def _product(self, change: Change) -> None:
        place, refused = (PRODUCTS, change.partition, change.offset), None
        record = self._changed(place, change)
        try:
            self.kits.follow(record)
        except RefusedEvent as raised:
            refused = raised if self.partition == 0 else None  # partition 0 refuses for all
        self._check_dead_letters(place, record, refused)

    def _changed(self, place: Place, change: Change) -> Record:
        """Give the record of a change as published, or as the batch has it if it was compacted away since."""
        published = self.changes[place[0]].take(*place[1:])
        value = None if change.value is None else json.dumps(change.value).encode()
        if published is None:
            return Record(change.offset, change.timestamp, None if change.key is None else change.key.encode(), value)
        if (published.timestamp, _said(place[0], published.value)) != (change.timestamp, _said(place[0], value)):
            self.report.fault("network", *place, published, change)
        return published

    def _judged(self, record: Record) -> LocationRecord:
        """Read a change; a deleted location is a disabled one, since its stock and its orders remain."""
        key = (record.key or b"").decode(errors="replace")
        known = self.network.get(key)
        if record.value is None and known:
            return known.model_copy(update={"enabled": False, "capabilities": CAPABILITIES[known.kind]})
        location = judge(LOCATIONS, record.value)
        if isinstance(location, Refusal):
            raise RefusedEvent(location.reason)
        if location.id != key:
            raise RefusedEvent(DeadLetter.WRONG_FIELD)
        if known and known.pool != location.pool:
            raise RefusedEvent(DeadLetter.WRONG_POOL)
        return location

    def _pool(self, pool_id: str) -> Pool:
        if pool_id not in self.pools:
            self.pools[pool_id] = Pool(pool_id, self.limits, self.network, self.kits)
        return self.pools[pool_id]

    # 3. An event

    def _event(self, topic: str, record: Record) -> None:
        place = topic, self.partition, record.offset
        self.report.events[topic] += 1
        refused = None
        try:
            outcome = self._apply(place, record)
        except RefusedEvent as raised:
            outcome, refused = Outcome.DEAD_LETTER, raised
        self.report.outcomes[outcome.wire] += 1
        self._check_dead_letters(place, record, refused)

    def _apply(self, place: Place, record: Record) -> Outcome:
        topic, _, offset = place
        event = judge(topic, record.value, left_out := list[str]())
        try:
            pool = self._owner(record)
        except RefusedEvent as refused:
            raise refusal_of(event, refused) from None
        pool.advance(record.timestamp)
        pool.stock.freed.clear()
        turn = deque(self.decisions.take((pool.id, place)))
        touched: list[Order] = []
        try:
            self._expire(pool, place, turn)
            if isinstance(event, Refusal):
                raise RefusedEvent(event.reason)
            if isinstance(event, Tick):
                return Outcome.CLOCK
            check_times(event, record.timestamp, self.limits)
            if pool.seen.knows(topic, event, pool.now):
                pool.discrepancies.left_out(left_out)
                return Outcome.DUPLICATE
            pool.stock.begin()
            outcome, order, status = self._effect(pool, event)
            pool.discrepancies.left_out(left_out)
            pool.seen.remember(topic, event, pool.now)
            touched = [order] if order else []
            touched += [loser for loser in pool.cover() if loser is not order]
            for each in touched:
                self._own(pool, each, place, turn, status if each is order else "")
            return outcome
        finally:
            self._sweep(pool, turn)
            self._leftover(turn, f"no more decisions by {topic} offset {offset}")
            self._check_waiting(pool, place, touched)
            self._check_alerts(pool, place, record, getattr(event, "order_id", None))

    def _owner(self, record: Record) -> Pool:
        if not record.key:
            raise RefusedEvent(DeadLetter.MISSING_KEY)
        if partition_of(record.key, self.partition_count) != self.partition:
            raise RefusedEvent(DeadLetter.WRONG_PARTITION)
        pool = self.pools.get(record.key.decode(errors="replace"))
        if pool is None:
            raise RefusedEvent(DeadLetter.UNKNOWN_POOL)
        return pool

    def _effect(self, pool: Pool, event: Any) -> tuple[Outcome, Order | None, str]:
        """Apply an event; says which order now needs a decision, and its status where that is given."""
        if isinstance(event, Placed | Held):
            former = pool.known(event.order_id)
            order = pool.place_order(event)
            return Outcome.APPLIED, order, "rejected" if order is not former and not pool.can_be_met(order.request) else ""
        if isinstance(event, Changed):
            return Outcome.APPLIED, pool.change_order(event), ""
        if isinstance(event, Cancelled):
            order = pool.cancel(event)
            closed = "closed_short" if order.shipped else "cancelled"
            return Outcome.APPLIED, order, "" if order.closed_at is None else closed
        if isinstance(event, Answered):
            fulfilled, decided = pool.answer(event)
            return Outcome.APPLIED, fulfilled if decided else None, ""
        if isinstance(event, Returned):
            pool.take_back(event)
            return Outcome.APPLIED, None, ""
        if isinstance(event, Sale):
            applied, collected, decided = pool.sell(event)
            return Outcome.APPLIED if applied else Outcome.STALE, collected if decided else None, ""
        if isinstance(event, StockEvent):
            return Outcome.APPLIED if pool.move_stock(event) else Outcome.STALE, None, ""
        raise TypeError(f"the audit has no rule for {type(event).__name__}: see InventoryReplay._effect")

    # 4. Its decisions

    def _expire(self, pool: Pool, place: Place, turn: Turn) -> None:
        """Judge the expiry of each hold that is due, and who is served by it."""
        for order in pool.due_holds():
            pool.stock.begin()
            if not (turn and turn[0][1].order_id == order.id and turn[0][1].status == "expired"):
                found = f"a decision {turn[0][1].status} for order {turn[0][1].order_id}" if turn else "no decision"
                expected = f"hold {order.id} expired, due at {order.expires_at} and now is {pool.now}"
                self._fault("expiry", place[0], place[2], expected, found)
                continue
            self._expired(pool, order, turn)
            self._sweep(pool, turn, early=True)

    def _expired(self, pool: Pool, order: Order, turn: Turn) -> None:
        pool.end(order)
        pool.cover()
        self._follow(pool, order, turn, "expired")

    def _own(self, pool: Pool, order: Order, place: Place, turn: Turn, status: str) -> None:
        """Judge the decision that an event calls for, on its own order or on one that lost a promise."""
        if not turn or turn[0][1].order_id != order.id:
            found = f"a decision for order {turn[0][1].order_id}" if turn else "none"
            self._fault("decision", place[0], place[2], f"a decision for order {order.id}", found)
            return
        self._follow(pool, order, turn, status)
        if status == "rejected":
            pool.end(order)

    def _sweep(self, pool: Pool, turn: Turn, early: bool = False) -> None:
        """Judge the decisions of orders that waited; `early`: only those that need nothing of what the event itself does."""
        while turn:
            offset, decision = turn[0]
            order = pool.known(decision.order_id)
            if decision.status == "expired" or (early and not is_served(pool, order, decision)):
                return
            if order is None:
                self._fault("decision", ALLOCATIONS, offset, "an order that is known", decision.order_id)
                self._count(pool, turn)
                continue
            before = len(order.waiting)
            self._follow(pool, order, turn, "")
            if len(order.waiting) == before:
                expected = f"new promises for order {order.id}, which waits for {before} lines"
                self._fault("decision", ALLOCATIONS, offset, expected, "a decision without any")

    def _leftover(self, turn: Turn, expected: str) -> None:
        """Judge what nobody asked for: follow it where it can be."""
        while turn:
            offset, decision = turn[0]
            pool = self.pools[decision.pool_id]
            order = pool.known(decision.order_id)
            if decision.status == "expired" and order and order.held:
                expiry = f"hold {order.id} expired at {order.expires_at}"
                self._fault("expiry", ALLOCATIONS, offset, expiry, f"at {pool.now}")
                self._expired(pool, order, turn)
                self._sweep(pool, turn)
                continue
            self._fault("decision", ALLOCATIONS, offset, expected, f"{decision.status} for order {decision.order_id}")
            self._count(pool, turn)

    def _follow(self, pool: Pool, order: Order, turn: Turn, status: str) -> None:
        offset, decision = self._count(pool, turn)
        before = len(order.shipments)
        for problem in follow(pool, order, decision, status):
            self._fault(problem.kind, ALLOCATIONS, offset, problem.expected, f"{problem.found} (order {order.id})")
        new = list(order.shipments.values())[before:]
        self.report.shipments += len(new)
        self.report.distance_km += sum(shipment.distance_km or 0.0 for shipment in new)

    def _count(self, pool: Pool, turn: Turn) -> tuple[int, Allocation]:
        """Take the next decision, and check that it is the pool's next."""
        offset, decision = turn.popleft()
        self.report.decisions[decision.status] += 1
        if decision.sequence != pool.sequence + 1:
            expected = f"sequence {pool.sequence + 1} of pool {pool.id}"
            self._fault("sequence", ALLOCATIONS, offset, expected, decision.sequence)
        pool.sequence = decision.sequence
        return offset, decision

    def _check_waiting(self, pool: Pool, place: Place, orders: Iterable[Order]) -> None:
        """Check that none of `orders`, nor who waits for what became free, could be served where units are left."""
        suspects = {order.id: order for order in orders if order.waiting}
        for location_id, sku in pool.stock.freed:
            available = pool.stock.cells[location_id, sku].available
            if available:
                for order in pool.waiting[sku].values():
                    needed = [dict(part.taken(part.quantity)).get(sku, available + 1) for part in order.waiting]
                    if min(needed, default=available + 1) <= available:
                        suspects[order.id] = order
        for order in suspects.values():
            location = servable(pool, order)
            if location:
                waiting = [(part.line_id, part.sku, part.quantity) for part in order.waiting]
                expected = f"order {order.id} served, which waits for {waiting}: {location} has the units"
                self.report.fault("waiting", *place, expected, "no decision")

    # 5. Its alerts

    def _check_alerts(self, pool: Pool, place: Place, record: Record, order_id: str | None) -> None:
        """Check that what an event contradicts, or settles, is told, each once and in the order in which it happened."""
        wanted: dict[tuple[str, str | None], deque[Alert]] = defaultdict(deque)
        for due in pool.take_due():
            self.report.alerts[due.kind.wire] += 1
            alert = alert_of(due, pool.id, pool.now, place, record.timestamp, order_id)
            wanted[alert.alert_id, alert.sku].append(alert)
        for offset, found in self.alerts.take((pool.id, place), due=bool(wanted)):
            waiting = wanted[found.alert_id, found.sku]
            if not waiting:
                self._fault("alert", ALERTS, offset, f"no more alerts by {place[0]} offset {place[2]}", _shown(found))
            elif found != (alert := waiting.popleft()):
                self._fault("alert", ALERTS, offset, _shown(alert), _shown(found))
        for left in wanted.values():
            for alert in left:
                self.report.fault("alert", *place, _shown(alert), "none")

    # 6. What a batch leaves behind

    def _compare(self, batch: Batch, pool_id: str, rows: PoolRows) -> None:
        pool = self._pool(pool_id)
        if rows.now is not None and rows.now != pool.now:
            self._fault("clock", CHANGELOG, batch.offset, f"pool {pool_id} now {pool.now}", rows.now)
        if rows.sequence is not None and rows.sequence != pool.sequence:
            expected = f"{pool.sequence} decisions of pool {pool_id} by batch {batch.number}"
            self._fault("sequence", CHANGELOG, batch.offset, expected, rows.sequence)
        for (location_id, sku), row in rows.cells.items():
            cell = pool.stock.cells.get((location_id, sku)) or Cell()
            self._compare_cell(batch, (pool_id, location_id, sku), cell, row)
            pool.stock.changed.discard((location_id, sku))

    def _compare_cell(self, batch: Batch, name: tuple[str, str, str], cell: Cell, row: CellRow) -> None:
        shown = "/".join(name)
        if row != cell.expected(row):
            expected = f"{shown} = {cell.expected(row)}"
            self._fault("cell", CHANGELOG, batch.offset, expected, f"{row}, batch {batch.number}")
        if self._expect(name, batch, row) and not cell.changed_at <= row.updated_at <= cell.touched_at:
            expected = f"{shown} updated_at from {cell.changed_at} to {cell.touched_at}"
            self._fault("clock", CHANGELOG, batch.offset, expected, row.updated_at)

    def _expect(self, name: tuple[str, str, str], batch: Batch, row: CellRow) -> bool:
        """Expect a cell's new version in `inventory.v1`; false = it has the same one."""
        version = self.versions.get(name, 0)
        if row.version == version:
            return False  # written, but nothing an order could see
        if row.version < version:
            shown = "/".join(name)
            self._fault("cell", CHANGELOG, batch.offset, f"{shown} at a version above {version}", row.version)
        self.versions[name] = row.version
        self.cells.expect(name, batch.number, row)
        return True

    def _unnamed(self, batch: Batch, pool: Pool) -> None:
        """Check that the cells a batch changed are in its changelog record."""
        for location_id, sku in pool.stock.changed:
            expected = f"{pool.id}/{location_id}/{sku} among the cells of batch {batch.number}, which changes it"
            self._fault("cell", CHANGELOG, batch.offset, expected, "not there")

    def _expect_supplies(self, batch: Batch, pool: Pool) -> None:
        supplies = pool.stock.supplies
        left = {name: supplies.published(name, pool.id) for name in supplies.changed[0]}
        coming = {name: supplies.expected.get(name) for name in supplies.changed[1]}
        for latest, values, changed in (
            (self.transfers, left, supplies.changed[0]),
            (self.supplies, coming, supplies.changed[1]),
        ):
            for name, value in values.items():
                if changed[name] and value is not None:  # it ended, and stands again
                    latest.expect((pool.id, *name), batch.number, None)
                latest.expect((pool.id, *name), batch.number, value)

    # 7. Whenever all is in sight

    def settle_outputs(self, due: batches.Due, moving: bool) -> None:
        for offset, source in self.decisions.rest(due(ALLOCATIONS) or 0):
            if not (moving and self._beyond(source)):
                self._unclaimed(offset, source)
        for offset, source in self.alerts.rest(due(ALERTS) or 0):
            if not (moving and self._beyond(source)):
                self._unclaimed_alert(offset, source)
        self._settle_cells(due, moving)
        for topic, latest in ((TRANSFERS, self.transfers), (SUPPLIES, self.supplies)):
            latest.drain()
            if not moving:
                latest.rest(due(topic) or 0)

    def _settle_cells(self, due: batches.Due, moving: bool) -> None:
        self.cells.drain()
        if not moving:
            for published in self.cells.rest(due(INVENTORY) or 0, self.versions):
                self._fault("inventory", INVENTORY, published.offset, "a value of a batch", published.value)

    # 8. Where the causes are deleted

    def skip_batch(self, batch: Batch) -> None:
        for pool_id, rows in cells_of(batch, self.names).items():
            self.counted[pool_id] = self.counted.get(pool_id, 0) if rows.sequence is None else rows.sequence
            for (location_id, sku), row in rows.cells.items():
                self._expect((pool_id, location_id, sku), batch, row)
        self.cells.settle()

    def settle_blind(self, due: batches.Due, moving: bool) -> None:
        assert self.sequences
        self.sequences.settle(due(ALLOCATIONS) or 0, self.counted, moving)
        self._settle_cells(due, moving)

    def add_totals(self) -> None:
        report = self.report
        if self.blind:
            report.pools += len(self.names)
            report.cells += len(self.versions)
            return
        for pool in self.pools.values():
            report.orders += pool.order_count
            report.order_lines += pool.line_count
            report.cells += len(pool.stock.cells)
            report.units_on_hand += sum(cell.on_hand for cell in pool.stock.cells.values())
            report.units_reserved += sum(cell.reserved for cell in pool.stock.cells.values())
        report.pools += len(self.pools)


def _shown(alert: Alert) -> str:
    return " ".join(f"{name}={value}" for name, value in alert.model_dump(exclude={"source"}).items())


def _said(topic: str, value: bytes | None) -> Any:
    """What a record of a location says, or a product's of its kit: None = it is gone, False = nothing that is taken."""
    judged = None if value is None else judge(topic, value)
    if isinstance(judged, Refusal):
        return False
    return (judged.sku, judged.kit) if isinstance(judged, ProductRecord) else judged
