"""What the workers published in one partition, ready to be asked for by cause: decisions, dead letters and cells.

Owner: the audit. Decisions and dead letters are indexed by the record they name, so that one which is missing, stands twice or
was never due is found however it is placed. `inventory.v1` is read in step with the batches, since it only needs the last few.
Not here: what they should say (replay.py, decisions.py).
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pydantic import ValidationError

from streams.audit.log import Record
from topics.events import Allocation, DeadLetterRecord, Inventory

Place = tuple[str, int, int]
"""Topic, partition and offset of a record."""
FaultSink = Callable[[str, str, int | None, object, object], None]
"""(kind, topic, offset, expected, found)."""

INVENTORY = "inventory.v1"
ALLOCATIONS = "allocations.v1"
DEAD_LETTERS = "dead-letter.v1"


class Decisions:
    """The decisions of a partition, by pool and source."""

    def __init__(self, records: Iterator[Record], fault: FaultSink):
        self._by_source: dict[tuple[str, Place], list[tuple[int, bytes]]] = defaultdict(list)
        for record in records:
            decision = _read(Allocation, ALLOCATIONS, "decision", record, fault)
            if decision is None:
                continue
            if record.key != decision.order_id.encode():
                fault("decision", ALLOCATIONS, record.offset, f"key {decision.order_id}", record.key)
            self._by_source[decision.pool_id, _place(decision.source)].append((record.offset, record.value))

    def take(self, pool_id: str, source: Place) -> deque[tuple[int, Allocation]]:
        """Take the decisions a record caused in a pool, as published; each with its offset."""
        found = self._by_source.pop((pool_id, source), ())
        return deque((offset, Allocation.model_validate_json(value)) for offset, value in found)

    def rest(self) -> Iterator[tuple[int, Place]]:
        """Give the decisions nobody took: offset and source."""
        for (_, source), found in self._by_source.items():
            for offset, _ in found:
                yield offset, source


class DeadLetters:
    """The dead letters of a partition, by the record refused."""

    def __init__(self, records: Iterator[Record], fault: FaultSink):
        self._by_place: dict[Place, list[tuple[int, DeadLetterRecord]]] = defaultdict(list)
        for record in records:
            letter = _read(DeadLetterRecord, DEAD_LETTERS, "dead_letter", record, fault)
            if letter is not None:
                self._by_place[_place(letter)].append((record.offset, letter))

    def take(self, place: Place) -> list[tuple[int, DeadLetterRecord]]:
        """Take the dead letters of one record; each with its offset."""
        return self._by_place.pop(place, [])

    def rest(self) -> Iterator[tuple[int, Place]]:
        """Give the dead letters nobody took: offset and place of the record refused."""
        for place, found in self._by_place.items():
            for offset, _ in found:
                yield offset, place


class Published(NamedTuple):
    """One value of `inventory.v1`."""

    offset: int
    value: Inventory


class Cells:
    """The values of `inventory.v1` of a partition, read in step with the batches."""

    def __init__(self, records: Iterator[Record], fault: FaultSink):
        self._records = records
        self._fault = fault
        self._versions: dict[tuple[str, str, str], int] = {}
        self._ahead: dict[tuple[str, str, str], deque[Published]] = defaultdict(deque)

    def at(self, cell: tuple[str, str, str], version: int) -> tuple[Published | None, bool]:
        """Find a cell's value of a version; the second says whether a newer one stands for it (compaction)."""
        ahead = self._ahead[cell]
        while not (ahead and ahead[-1].value.version >= version) and self._pull():
            pass
        while ahead and ahead[0].value.version < version:
            ahead.popleft()
        found = ahead[0] if ahead else None
        if found and found.value.version == version:
            return found, len(ahead) > 1
        return None, found is not None

    def rest(self, versions: dict[tuple[str, str, str], int]) -> Iterator[Published]:
        """Give the values newer than the `versions` that a cell has come to, or of a cell that is not among them."""
        while self._pull():
            pass
        for cell, ahead in self._ahead.items():
            yield from (each for each in ahead if each.value.version > versions.get(cell, 0))

    def _pull(self) -> bool:
        record = next(self._records, None)
        if record is None:
            return False
        value = _read(Inventory, INVENTORY, "inventory", record, self._fault)
        if value is None:
            return True
        cell = value.pool_id, value.location_id, value.sku
        if record.key != f"{value.location_id}/{value.sku}".encode():
            self._fault("inventory", INVENTORY, record.offset, f"key {value.location_id}/{value.sku}", record.key)
        if value.available != max(0, value.on_hand - value.reserved - value.safety_stock):
            expected = "available = max(0, on_hand - reserved - safety_stock)"
            self._fault("inventory", INVENTORY, record.offset, expected, value)
        before = self._versions.get(cell, 0)
        if value.version <= before:
            self._fault("inventory", INVENTORY, record.offset, f"a version above {before}", value.version)
        self._versions[cell] = max(before, value.version)
        self._ahead[cell].append(Published(record.offset, value))
        return True


def _place(source) -> Place:
    return source.topic, source.partition, source.offset


def _read(model, topic: str, kind: str, record: Record, fault: FaultSink):
    """Read an output by its model; one that does not fit is a fault, and None."""
    try:
        return model.model_validate_json(record.value or b"")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        fault(kind, topic, record.offset, f"a {model.__name__} record", f"{where}: {first['msg']}")
        return None
