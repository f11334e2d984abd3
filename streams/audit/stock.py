"""A pool's stock as the audit keeps it: cells in plain dicts, changed by one event at a time.

Owner: the pool's ledger (ledger.py). It shares no code with the state or the engine, on purpose.
Not here: what is to come (supplies.py), orders and their promises (orders.py, ledger.py), whether a location is the pool's
(ledger.py).
"""

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.audit.memory import Limits, RefusedEvent
from streams.audit.products import Goods
from streams.audit.supplies import Supplies
from topics.events import (
    MAX_QUANTITY,
    Adjustment,
    Count,
    Expected,
    Quarantine,
    Receipt,
    SafetyStock,
    Sale,
    StockEvent,
    TransferIn,
    TransferOut,
)
from topics.reasons import DeadLetter

Movement = Sale | Receipt | Adjustment | TransferOut | TransferIn | Quarantine
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


class CellRow(NamedTuple):
    """A cell as a batch left it, in the changelog and in `inventory.v1`; a field with a default is one that came later."""

    on_hand: int
    reserved: int
    safety_stock: int
    version: int
    updated_at: int


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

    def expected(self, row: CellRow) -> CellRow:
        """Give what a batch's row of this cell must be: all but its version and time, which are judged by themselves."""
        return row._replace(on_hand=self.on_hand, reserved=self.reserved, safety_stock=self.safety_stock)


@dataclass(slots=True)
class Clock:
    """A pool's now: the largest timestamp seen, epoch ms."""

    now: int = 0


class Stock:
    """One pool's cells, and what is to come."""

    def __init__(self, pool_id: str, limits: Limits, clock: Clock):
        self.pool_id = pool_id
        self.limits = limits
        self.clock = clock
        self.cells: dict[tuple[str, str], Cell] = {}
        self.stocked: dict[str, set[str]] = defaultdict(set)
        """SKU → locations with a cell."""
        self.changed: set[tuple[str, str]] = set()
        """Cells written since the batch began."""
        self.freed: set[tuple[str, str]] = set()
        """Cells whose available rose in the event in hand."""
        self.written: dict[tuple[str, str], None] = {}
        """Cells that the event in hand wrote by itself, in order."""
        self.short: dict[tuple[str, str], None] = {}
        """Of those, the ones that it left with less on hand than promised, in the order in which it did."""
        self.late: list[tuple[tuple[str, str], int]] = []
        """(Cell, signed units) of the event in hand that moved nothing, since the cell's last count has seen them."""
        self.skus: set[str] = set()
        """Ever heard of."""
        self.supplies = Supplies(limits)

    def cell(self, location_id: str, sku: str) -> Cell:
        """Find a cell, or make it."""
        key = location_id, sku
        found = self.cells.get(key)
        if found is None:
            found = self.cells[key] = Cell()
            self.stocked[sku].add(location_id)
        return found

    def write(self, key: tuple[str, str], on_hand: int = 0, reserved: int = 0, safety_stock: int = 0) -> None:
        """Change a cell by signed units."""
        cell = self.cell(*key)
        self.skus.add(key[1])
        before = cell.available
        cell.on_hand += on_hand
        cell.reserved += reserved
        cell.safety_stock += safety_stock
        if on_hand or reserved or safety_stock:
            cell.changed_at = self.clock.now
        self.written[key] = None
        if cell.on_hand < cell.reserved:
            self.short.setdefault(key)
        cell.touched_at = self.clock.now
        self.changed.add(key)
        if cell.available > before:
            self.freed.add(key)

    def check_bounds(self, key: tuple[str, str], on_hand: int) -> None:
        cell = self.cells.get(key)
        if abs((cell.on_hand if cell else 0) + on_hand) > MAX_QUANTITY:
            raise RefusedEvent(DeadLetter.OUT_OF_RANGE)

    def is_counted(self, key: tuple[str, str], event_time: int) -> bool:
        """Tell whether the last count of a cell has seen what moved at this time: it does not move again."""
        cell = self.cells.get(key)
        return cell is not None and event_time < cell.counted_at

    def move(self, key: tuple[str, str], on_hand: int, event_time: int, reserved: int = 0) -> None:
        """Apply a movement, unless the cell's last count has seen it; what is `reserved` changes in any case."""
        if self.is_counted(key, event_time):
            self.late.append((key, on_hand))
            self.write(key, 0, reserved)
            return
        cell = self.cell(*key)
        cell.movements.append((event_time, self.clock.now, on_hand))
        self._forget(cell)
        self.write(key, on_hand, reserved)

    def _forget(self, cell: Cell) -> None:
        oldest = self.clock.now - self.limits.horizon_ms
        while cell.movements and cell.movements[0][1] < oldest:
            cell.forgotten = max(cell.forgotten, cell.movements.popleft()[0])

    def apply(self, event: Sale | StockEvent) -> bool:
        """Apply an event of `sales.v1` or `stock.v1`; false = stale, ignored: the last count of the cell has seen it."""
        key = event.location_id, event.sku
        if isinstance(event, Count):
            return self._count(key, event)
        if isinstance(event, SafetyStock):
            self._check_room(key)
            self.write(key, safety_stock=event.quantity - self.cell(*key).safety_stock)
        elif isinstance(event, Expected):
            self._check_room(key, event, makes_cell=False)
            self.supplies.expect(event, self.pool_id, self.clock.now)
        else:
            assert isinstance(event, Movement), event
            units = SIGNS[event.kind] * event.quantity
            transfer = event if isinstance(event, TransferOut | TransferIn) else None
            counted = self.is_counted(key, event.event_time)
            if counted and not transfer:
                self.late.append((key, units))
                return False
            if not counted:
                self.check_bounds(key, units)
            self._check_room(key, transfer)
            if counted:
                self.late.append((key, units))
            else:
                self.move(key, units, event.event_time)
            if transfer:
                self.supplies.move(transfer, self.clock.now)
        self.skus.add(event.sku)
        return True

    def begin(self) -> None:
        """Forget what the event before wrote."""
        self.written.clear()
        self.short.clear()

    def check_moves(self, location_id: str, moves: list[tuple[str, int]], event_time: int) -> None:
        """Check that the pool may keep what signed units of SKUs that move at a location would add, each by itself."""
        for sku, units in moves:
            if not self.is_counted((location_id, sku), event_time):
                self.check_bounds((location_id, sku), units)
        if len(self.skus) + sum(sku not in self.skus for sku, _ in moves) > self.limits.max_skus:
            raise RefusedEvent(DeadLetter.TOO_MANY_SKUS)
        if len(self.cells) + sum((location_id, sku) not in self.cells for sku, _ in moves) > self.limits.max_cells:
            raise RefusedEvent(DeadLetter.TOO_MANY_CELLS)

    def sell_kit(self, event: Sale, kit: Goods) -> bool:
        """Apply a till's sale or return of a kit; false = stale, ignored: the last counts of all its parts have seen it."""
        moves = [(sku, SIGNS[event.kind] * event.quantity * each) for sku, each in kit]
        self.check_moves(event.location_id, moves, event.event_time)
        applied = False
        for sku, units in moves:
            key = event.location_id, sku
            if self.is_counted(key, event.event_time):
                self.late.append((key, units))
            else:
                self.move(key, units, event.event_time)
                applied = True
        return applied

    def _check_room(
        self, key: tuple[str, str], event: Expected | TransferOut | TransferIn | None = None, makes_cell: bool = True
    ) -> None:
        """Check that the pool may keep what an event about a cell, and maybe a supply or transfer, would add."""
        if key[1] not in self.skus and len(self.skus) >= self.limits.max_skus:
            raise RefusedEvent(DeadLetter.TOO_MANY_SKUS)
        if makes_cell and key not in self.cells and len(self.cells) >= self.limits.max_cells:
            raise RefusedEvent(DeadLetter.TOO_MANY_CELLS)
        if event and not self.supplies.has_room(event):
            raise RefusedEvent(DeadLetter.TOO_MANY_SUPPLIES)

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
        self.write(key, on_hand=event.quantity + later - cell.on_hand)
        return True
