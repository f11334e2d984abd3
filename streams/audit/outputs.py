"""What the workers published in one partition, read in step with the batches: decisions, dead letters and cells.

A batch's outputs lie between those of the batches around it, so of each topic only a window is held: the records that
the batch in hand can have caused. They are indexed by the record they name, so that one which is missing, stands twice
or was never due is found however it is placed within the window; one that lies elsewhere is a fault at its place.
Owner: the audit. Not here: what they should say (inventory.py, decisions.py, clicks.py).
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from streams.audit.log import Record
from streams.audit.report import FaultSink
from streams.audit.stock import CellRow
from topics.catalogue import ALERTS, ALLOCATIONS, DEAD_LETTERS, INVENTORY
from topics.outputs import Alert, Allocation, DeadLetterRecord, Inventory

Place = tuple[str, int, int]
"""Topic, partition and offset of a record."""
Head = tuple[Any, Place, Any, int]
"""Of a record that is to be judged: key in the index, place of its cause, value, and its own offset."""
Reached = Callable[[Place], bool]
"""Whether a record is in the batch in hand, or in one before it."""

LOOKAHEAD = 1_000
"""Records read beyond a batch's own, in search of one that is missing."""
CELLS_AHEAD = 100_000
"""Values of `inventory.v1` read ahead where the topic is compacted."""


class Tape:
    """Records in order, with sight of the next. Where they end, they may go on later."""

    def __init__(self, records: Iterator[Record]):
        self._records = records
        self._head: Record | None = None

    @property
    def head(self) -> Record | None:
        """The next record; None while there is none."""
        if self._head is None:
            self._head = next(self._records, None)
        return self._head

    def take(self) -> Record | None:
        """Take the next record."""
        taken, self._head = self.head, None
        return taken

    def until(self, offset: int) -> list[Record]:
        """Take the records before an offset."""
        taken = []
        while (head := self.head) and head.offset < offset:
            taken.append(head)
            self._head = None
        return taken

    def count_rest(self) -> int:
        """Count the records nobody took, which takes them."""
        count = 0
        while self.take():
            count += 1
        return count


class Caused:
    """The records of a topic of outputs that belong to the batch in hand, by the record each names as its cause.

    Parameters
    ----------
    records : iterator of Record
    read : callable
        Record → (key in the index, place of the cause, value), or None for what is not to be judged.
    """

    def __init__(self, records: Iterator[Record], read: Callable[[Record], tuple[Any, Place, Any] | None]):
        self._tape = Tape(records)
        self._read = read
        self._next: Head | None = None
        self._index: dict[Any, list[tuple[int, Any]]] = {}
        self._places: dict[Any, Place] = {}

    def head(self) -> Head | None:
        """The next record that is to be judged; None while there is none."""
        while self._next is None and (record := self._tape.take()):
            found = self._read(record)
            if found is not None:
                self._next = (*found, record.offset)
        return self._next

    def pull(self, head: Head) -> None:
        """Take the next record into the window."""
        key, place, value, offset = head
        self._next = None
        self._index.setdefault(key, []).append((offset, value))
        self._places[key] = place

    def open(self, reached: Reached) -> None:
        """Take in what the batches up to the one in hand have caused."""
        while (head := self.head()) and reached(head[1]):
            self.pull(head)

    def take(self, key: Any, due: bool = False) -> list[tuple[int, Any]]:
        """Take the records of one cause, each with its offset; if there is none and one is due, look ahead for it."""
        if due:
            ahead = 0
            while key not in self._index and ahead < LOOKAHEAD and (head := self.head()):
                self.pull(head)
                ahead += 1
        self._places.pop(key, None)
        return self._index.pop(key, [])

    def left(self, reached: Reached) -> Iterator[tuple[int, Place]]:
        """Take out what nobody took though its cause is reached: offset and cause."""
        if self._index:
            for key in [key for key, place in self._places.items() if reached(place)]:
                place = self._places.pop(key)
                yield from ((offset, place) for offset, _ in self._index.pop(key))

    def rest(self, due: float) -> Iterator[tuple[int, Place]]:
        """Take out all that lies before the offset `due` and nobody took."""
        while (head := self.head()) and head[3] < due:
            self.pull(head)
            yield from self._before(due)
        yield from self._before(due)

    def _before(self, due: float) -> Iterator[tuple[int, Place]]:
        for key in [key for key, found in self._index.items() if found[0][0] < due]:
            place = self._places.pop(key)
            yield from ((offset, place) for offset, _ in self._index.pop(key))


class Decisions(Caused):
    """The decisions of a partition, by pool and source."""

    def __init__(self, records: Iterator[Record], fault: FaultSink):
        super().__init__(records, self._decision)
        self._fault = fault
        self._sequences: dict[str, int] = {}
        """Pool → the largest sequence taken in."""

    def _decision(self, record: Record) -> tuple[Any, Place, Allocation] | None:
        decision = read(Allocation, ALLOCATIONS, "decision", record, self._fault)
        if decision is None:
            return None
        if record.key != decision.order_id.encode():
            self._fault("decision", ALLOCATIONS, record.offset, f"key {decision.order_id}", record.key)
        place = _place(decision.source)
        return (decision.pool_id, place), place, decision

    def open(self, reached: Reached, sequences: dict[str, int] | None = None) -> None:
        """Take in what the batches up to the one in hand have caused, and all up to the `sequences` of their pools."""
        super().open(reached)
        for _ in range(LOOKAHEAD):
            head = self.head()
            if not head or all(self._sequences.get(pool, 0) >= wanted for pool, wanted in (sequences or {}).items()):
                return
            self.pull(head)
            super().open(reached)

    def pull(self, head: Head) -> None:
        decision = head[2]
        self._sequences[decision.pool_id] = max(decision.sequence, self._sequences.get(decision.pool_id, 0))
        super().pull(head)


class Alerts(Caused):
    """The workers' alerts of a partition, by pool and source; what an audit wrote is passed over."""

    def __init__(self, records: Iterator[Record], fault: FaultSink):
        super().__init__(records, self._alert)
        self._fault = fault

    def _alert(self, record: Record) -> tuple[Any, Place, Alert] | None:
        if b"audit" in (record.value or b"") and _kind_of(record) == "audit":
            return None
        alert = read(Alert, ALERTS, "alert", record, self._fault)
        if alert is None:
            return None
        if record.key != alert.alert_id.encode():
            self._fault("alert", ALERTS, record.offset, f"key {alert.alert_id}", record.key)
        place = _place(alert.source)
        return (alert.pool_id, place), place, alert


class DeadLetters(Caused):
    """The dead letters of some topics in a partition, by the record refused."""

    def __init__(self, records: Iterator[Record], topics: tuple[str, ...], fault: FaultSink):
        super().__init__(records, self._letter)
        self._topics = topics
        self._fault = fault

    def _letter(self, record: Record) -> tuple[Any, Place, DeadLetterRecord] | None:
        letter = read(DeadLetterRecord, DEAD_LETTERS, "dead_letter", record, self._fault)
        if letter is None or letter.topic not in self._topics:
            return None
        return _place(letter), _place(letter), letter


class Published(NamedTuple):
    """One value of `inventory.v1`."""

    offset: int
    value: Inventory


CellName = tuple[str, str, str]
"""Pool, location and SKU."""


class Cells:
    """The values of `inventory.v1` of a partition, compared with the rows of the batches."""

    def __init__(self, records: Iterator[Record], fault: FaultSink):
        self._tape = Tape(records)
        self._fault = fault
        self._versions: dict[CellName, int] = {}
        self._ahead: dict[CellName, deque[Published]] = {}
        self._ahead_count = 0
        self._owed: dict[CellName, tuple[int, CellRow]] = {}
        """Cell → the last batch that left it a value which was not met yet, and that value."""
        self._fresh: set[CellName] = set()
        """Those owed by the batch in hand."""

    def expect(self, cell: CellName, batch: int, row: CellRow) -> None:
        """Note that a batch left a cell a value; unless a newer one stands for it (compaction), it must be there."""
        ahead = self._ahead.get(cell)
        while ahead and ahead[0].value.version < row.version:
            self._drop(cell, ahead)
        if ahead and ahead[0].value.version == row.version:
            self._compare(cell, batch, row, self._drop(cell, ahead))
        elif not ahead:
            self._owed[cell] = batch, row
            self._fresh.add(cell)

    def settle(self) -> None:
        """Look for the values of the batch in hand."""
        while self._fresh and self._ahead_count < CELLS_AHEAD and self._pull():
            pass
        self._fresh.clear()

    def drain(self) -> None:
        """Judge the values still owed, when all that there is of the topic is in sight."""
        while self._owed and self._pull():
            pass
        for cell, (batch, row) in self._owed.items():
            self._fault("inventory", INVENTORY, None, _shown(cell, batch, row), "no such record")
        self._owed.clear()

    def rest(self, due: float, versions: dict[CellName, int]) -> Iterator[Published]:
        """Take out the values before the offset `due`; give those newer than the `versions` that the cells have come to."""
        while (head := self._tape.head) and head.offset < due:
            self._pull()
        for cell, ahead in list(self._ahead.items()):
            while ahead and ahead[0].offset < due:
                published = self._drop(cell, ahead)
                if published.value.version > versions.get(cell, 0):
                    yield published

    def _drop(self, cell: CellName, ahead: deque[Published]) -> Published:
        self._ahead_count -= 1
        published = ahead.popleft()
        if not ahead:
            del self._ahead[cell]
        return published

    def _compare(self, cell: CellName, batch: int, row: CellRow, published: Published) -> None:
        found = CellRow(*(getattr(published.value, field) for field in CellRow._fields))
        if found != row:
            self._fault("inventory", INVENTORY, published.offset, _shown(cell, batch, row), found)

    def _pull(self) -> bool:
        record = self._tape.take()
        if record is None:
            return False
        value = read(Inventory, INVENTORY, "inventory", record, self._fault)
        if value is None:
            return True
        cell = value.pool_id, value.location_id, value.sku
        self._check(cell, value, record)
        published = Published(record.offset, value)
        batch, row = self._owed.get(cell, (0, None))
        if row is None or value.version > row.version:
            self._ahead.setdefault(cell, deque()).append(published)
            self._ahead_count += 1
        elif value.version == row.version:
            self._compare(cell, batch, row, published)
        if row is not None and value.version >= row.version:
            del self._owed[cell]
            self._fresh.discard(cell)
        return True

    def _check(self, cell: CellName, value: Inventory, record: Record) -> None:
        """Check a value by itself."""
        key = key_of(value.location_id, value.sku)
        if record.key != key.encode():
            self._fault("inventory", INVENTORY, record.offset, f"key {key}", record.key)
        if value.available != max(0, value.on_hand - value.reserved - value.safety_stock):
            expected = "available = max(0, on_hand - reserved - safety_stock)"
            self._fault("inventory", INVENTORY, record.offset, expected, value)
        before = self._versions.get(cell, 0)
        if value.version <= before:
            self._fault("inventory", INVENTORY, record.offset, f"a version above {before}", value.version)
        self._versions[cell] = max(before, value.version)


_ESCAPES = str.maketrans({"%": "%25", "/": "%2F"})


def key_of(*parts: str) -> str:
    """Join parts to a key from which each can be told again."""
    return "/".join(part.translate(_ESCAPES) for part in parts)


def _shown(cell: CellName, batch: int, row: CellRow) -> str:
    return f"{'/'.join(cell)} = {row}, as batch {batch} left it"


def _kind_of(record: Record) -> object:
    try:
        return json.loads(record.value or b"")["kind"]
    except (ValueError, TypeError, KeyError):
        return None


def _place(source: Any) -> Place:
    return source.topic, source.partition, source.offset


def read(model: Any, topic: str, kind: str, record: Record, fault: FaultSink) -> Any:
    """Read an output by its model; one that does not fit is a fault, and None."""
    try:
        return model.model_validate_json(record.value or b"")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        fault(kind, topic, record.offset, f"a {model.__name__} record", f"{where}: {first['msg']}")
        return None
