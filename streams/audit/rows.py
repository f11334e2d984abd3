"""What a batch says it left behind: the rows of the changelog's tables, which the manifest itself describes.

Owner: the audit. Rows refer to texts and to rows of other tables that earlier batches wrote, so the names of each pool
are kept.
Not here: the chain of batches (chain.py), whether the rows are right (inventory.py, clicks.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np

from streams.audit.chain import UNREADABLE, Batch, Tables, unreadable
from streams.audit.stock import CellRow

_PAIRS = np.dtype([("at", "<i8"), ("size", "<i4")])


class DemandRow(NamedTuple):
    """A SKU's clicks within the window, as the changelog holds them."""

    views: int
    carts: int
    checkouts: int
    version: int
    updated_at: int


@dataclass(slots=True)
class PoolRows:
    """What a batch left behind in one pool."""

    now: int | None = None
    sequence: int | None = None
    cells: dict[tuple[str, str], CellRow] = field(default_factory=dict)
    """(Location id, SKU) → the cell's row."""
    kits_changed: bool = False


class Names:
    """A pool's heap of texts, and which location or SKU a row number stands for."""

    def __init__(self) -> None:
        self.heap = bytearray()
        self.skus: dict[int, str] = {}
        self.locations: dict[int, str] = {}
        self.kits: dict[int, tuple[int, ...]] = {}
        """Row → id_at, id_size, part_count (0 = free), first_part."""
        self.kit_parts: dict[int, tuple[int, ...]] = {}
        """Row → id_at, id_size, quantity, next."""

    def write(self, tables: Tables, blobs: memoryview) -> None:
        table = tables.get("heap")
        if table is None:
            return
        taken = table["at"]
        for at, size in np.frombuffer(blobs, _PAIRS, table["count"], table["rows_at"]).tolist():
            if len(self.heap) < at + size:
                self.heap.extend(bytes(at + size - len(self.heap)))
            self.heap[at : at + size] = blobs[taken : taken + size]
            taken += size

    def text(self, at: int, size: int) -> str:
        return self.heap[at : at + size].decode()

    def kits_now(self) -> dict[str, list[tuple[str, int]]]:
        """Give the kits: SKU → its parts' SKUs and units."""
        found: dict[str, list[tuple[str, int]]] = {}
        for at, size, count, part in self.kits.values():
            if count:
                parts = found[self.text(at, size)] = []
                while part >= 0 and len(parts) < count:
                    part_at, part_size, quantity, part = self.kit_parts[part]
                    parts.append((self.text(part_at, part_size), quantity))
        return found


def cells_of(batch: Batch, names: dict[str, Names]) -> dict[str, PoolRows]:
    """Read what an inventory batch left behind, by pool; `names` is kept from batch to batch.

    Raises
    ------
    BrokenChain
        It cannot be read.
    """
    try:
        return {pool: _pool_rows(tables, batch.blobs, names.setdefault(pool, Names())) for pool, tables in batch.pools.items()}
    except UNREADABLE as error:
        raise unreadable(batch.offset, batch.number, error) from None


def _pool_rows(tables: Tables, blobs: memoryview, names: Names) -> PoolRows:
    names.write(tables, blobs)
    for name, known in (("skus", names.skus), ("locations", names.locations)):
        for row, at, size in _table(tables.get(name), blobs, "id_at", "id_size"):
            known[row] = names.text(at, size)
    rows = PoolRows()
    for _, rows.now, rows.sequence in _table(tables.get("pool"), blobs, "now", "sequence"):
        pass
    columns_of = {"kits": ("part_count", "first_part"), "kit_parts": ("quantity", "next")}
    for name, changed in (("kits", names.kits), ("kit_parts", names.kit_parts)):
        for row, *values in _table(tables.get(name), blobs, "id_at", "id_size", *columns_of[name]):
            changed[row] = tuple(values)
    rows.kits_changed = bool(tables.keys() & columns_of.keys())
    cells = tables.get("cells")
    written = cells["columns"]["names"] if cells else ()
    columns = [column for column in CellRow._fields if column in written or column not in CellRow._field_defaults]
    for _, location, sku, *cell in _table(cells, blobs, "location", "sku", *columns):
        rows.cells[names.locations[location], names.skus[sku]] = CellRow(*cell)
    return rows


def demand_of(batch: Batch, names: Names) -> tuple[int | None, dict[tuple[str, str], DemandRow]]:
    """Read what a batch of clicks left behind: the clock, and (pool id, SKU) → row of those that have clicks.

    Raises
    ------
    BrokenChain
        It cannot be read.
    """
    now, rows = None, {}
    try:
        for tables in batch.pools.values():
            names.write(tables, batch.blobs)
            now = next((clock for _, clock in _table(tables.get("pool"), batch.blobs, "now")), now)
            columns = "id_at", "id_size", "pool_size", *DemandRow._fields
            for _, at, size, pool_size, *counts in _table(tables.get("rows"), batch.blobs, *columns):
                if size:  # else free
                    key = names.heap[at : at + size]
                    rows[key[:pool_size].decode(), key[pool_size + 1 :].decode()] = DemandRow(*counts)
    except UNREADABLE as error:
        raise unreadable(batch.offset, batch.number, error) from None
    return now, rows


@cache
def _dtype(names: tuple[str, ...], formats: tuple[str, ...], offsets: tuple[int, ...], itemsize: int) -> np.dtype:
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize})


def _table(table: dict | None, blobs: memoryview, *columns: str) -> Iterator[tuple[int, ...]]:
    """Give the rows a batch changed of a table: row number, then the columns asked for."""
    if table is None:
        return
    numbers = np.frombuffer(blobs, "<i4", table["count"], table["rows_at"]).tolist()
    described = table["columns"]
    dtype = _dtype(*(tuple(described[part]) for part in ("names", "formats", "offsets")), described["itemsize"])
    values = np.frombuffer(blobs, dtype, table["count"], table["at"])
    yield from zip(numbers, *(values[column].tolist() for column in columns), strict=True)
