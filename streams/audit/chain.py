"""The changelog as the audit reads it: whole batches in order, what each consumed, and the cells it says they left behind.

A batch is n records of one partition (headers `batch` and `part`, "i/n"); joined: a size (uint32, little endian), a JSON
manifest, blobs. Rows are described by the manifest itself, so nothing of the state's code is needed to read them.
Owner: the audit. Not here: whether what a batch says is right (replay.py).
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from streams.audit.log import Record

VERSION = 1


class BrokenChain(Exception):
    """The changelog cannot be followed further: where, what was expected, what was found."""

    def __init__(self, offset: int | None, expected: str, found: str):
        super().__init__(f"expected {expected}, found {found}")
        self.offset = offset
        self.expected = expected
        self.found = found


class Input(NamedTuple):
    """What a batch consumed of one topic."""

    first: int
    next: int
    count: int


class Change(NamedTuple):
    """A record of `locations.v1` that a batch applied before its events."""

    partition: int
    offset: int
    timestamp: int
    key: str | None
    value: Any
    """As JSON has it; None for a tombstone, and for what is no JSON."""


class CellRow(NamedTuple):
    """A cell as the changelog holds it."""

    on_hand: int
    reserved: int
    safety_stock: int
    version: int
    updated_at: int


@dataclass(slots=True)
class PoolRows:
    """What a batch left behind in one pool."""

    now: int | None = None
    sequence: int | None = None
    cells: dict[tuple[str, str], CellRow] = field(default_factory=dict)
    """(Location id, SKU) → the cell's row."""


@dataclass(slots=True)
class Batch:
    """One batch of one partition."""

    number: int
    offset: int
    """Of its first changelog record."""
    inputs: dict[str, Input]
    order: list[str]
    """Topic of each event, in the order applied."""
    locations: list[Change]
    pools: dict[str, PoolRows]


class Chain:
    """Reads one partition's changelog and keeps what later batches refer to: texts and row names of each pool."""

    def __init__(self, partition: int):
        self.partition = partition
        self.number = 0
        self.pools: dict[str, _PoolNames] = {}

    def batches(self, records: Iterable[Record]) -> Iterator[Batch]:
        """Give the batches in order.

        Raises
        ------
        BrokenChain
            A part or a batch is missing, stands twice, or cannot be read.
        """
        parts: list[bytes] = []
        first = None
        for record in records:
            number, part, of = _header(record)
            if number != self.number + 1 or part != len(parts) + 1:
                raise BrokenChain(
                    record.offset,
                    f"batch {self.number + 1}, part {len(parts) + 1}",
                    f"batch {number}, part {part} of {of}",
                )
            first = first if parts else record
            parts.append(record.value or b"")
            if part == of:
                self.number = number
                yield self._batch(first.offset, b"".join(parts))
                parts = []
        if parts:
            raise BrokenChain(first.offset, f"all parts of batch {self.number + 1}", f"the first {len(parts)} only")

    def _batch(self, offset: int, data: bytes) -> Batch:
        try:
            size = int.from_bytes(data[:4], "little")
            manifest = json.loads(data[4 : 4 + size])
            blobs = memoryview(data)[4 + size :]
            if manifest["version"] != VERSION:
                raise BrokenChain(offset, f"a batch of version {VERSION}", f"version {manifest['version']}")
            if (manifest["batch"], manifest["partition"]) != (self.number, self.partition):
                found = f"batch {manifest['batch']} of partition {manifest['partition']}"
                raise BrokenChain(offset, f"batch {self.number} of partition {self.partition}", f"{found} inside")
            order = blobs[manifest["order"]["at"] :][: manifest["order"]["bytes"]]
            topics = manifest["topics"]
            return Batch(
                number=self.number,
                offset=offset,
                inputs={each["topic"]: Input(each["first"], each["next"], each["count"]) for each in manifest["inputs"]},
                order=[topics[index] for index in order],
                locations=[Change(*(each[field] for field in Change._fields)) for each in manifest["locations"]],
                pools={each["pool_id"]: self._rows(each, blobs) for each in manifest["pools"]},
            )
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise BrokenChain(offset, f"a readable batch {self.number}", f"{type(error).__name__}: {error}") from None

    def _rows(self, pool: dict, blobs: memoryview) -> PoolRows:
        names = self.pools.setdefault(pool["pool_id"], _PoolNames())
        tables = {table["name"]: table for table in pool["tables"]}
        if "heap" in tables:
            names.write(tables["heap"], blobs)
        for name, known in (("skus", names.skus), ("locations", names.locations)):
            for row, at, size in _table(tables.get(name), blobs, "id_at", "id_size"):
                known[row] = names.text(at, size)
        rows = PoolRows()
        for _, rows.now, rows.sequence in _table(tables.get("pool"), blobs, "now", "sequence"):
            pass
        for _, location, sku, *cell in _table(tables.get("cells"), blobs, "location", "sku", *CellRow._fields):
            rows.cells[names.locations[location], names.skus[sku]] = CellRow(*cell)
        return rows


class _PoolNames:
    """A pool's heap of texts, and which location or SKU a row number stands for."""

    def __init__(self):
        self.heap = bytearray()
        self.skus: dict[int, str] = {}
        self.locations: dict[int, str] = {}

    def write(self, table: dict, blobs: memoryview) -> None:
        pairs = np.dtype([("at", "<i8"), ("size", "<i4")])
        taken = table["at"]
        for at, size in np.frombuffer(blobs, pairs, table["count"], table["rows_at"]).tolist():
            if len(self.heap) < at + size:
                self.heap.extend(bytes(at + size - len(self.heap)))
            self.heap[at : at + size] = blobs[taken : taken + size]
            taken += size

    def text(self, at: int, size: int) -> str:
        return self.heap[at : at + size].decode()


def _header(record: Record) -> tuple[int, int, int]:
    headers = dict(record.headers)
    try:
        part, of = headers["part"].split(b"/")
        return int(headers["batch"]), int(part), int(of)
    except (KeyError, ValueError):
        raise BrokenChain(record.offset, "headers `batch` and `part` (i/n)", str(record.headers)) from None


def _table(table: dict | None, blobs: memoryview, *columns: str) -> Iterator[tuple[int, ...]]:
    """Give the rows a batch changed of a table: row number, then the columns asked for."""
    if table is None:
        return
    numbers = np.frombuffer(blobs, "<i4", table["count"], table["rows_at"]).tolist()
    values = np.frombuffer(blobs, np.dtype(table["columns"]), table["count"], table["at"])
    yield from zip(numbers, *(values[column].tolist() for column in columns), strict=True)
