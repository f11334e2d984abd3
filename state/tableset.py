"""The arrays of a state, made from its schema: their growth, the delta of a batch, and folding deltas back.

A pool's state (pool.py) and that of clicks (demand.py) stand on this. They name their schema, what is derived from the tables
(indexes, links), and what rows an index has.
A batch ends with `take_delta()`: every row it changed, as it now is. Folding a state's deltas in order into a new one and then
`seal()` gives the same tables (digest.py). What an older layout wrote is folded column by column (schema.py).
Owner: the pipeline of the partition, the only writer. Not here: what an event does, the delta's bytes (changelog.py).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from state.index import index_newest, index_rows
from state.rows import enlarged, entries, extended, moved, put, room_for, take
from state.schema import Schema
from state.tables import JOURNAL_SIZE, PAGE_BYTES, PAGES

_NUMBER = (1 << 40) - 1


@dataclass(slots=True)
class Delta:
    """What a batch changed: rows of tables as they now are, what was appended to the rings, bytes of the heap."""

    pool: np.ndarray
    """The head, one row."""
    rows: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Table → (int32[n] row numbers, n rows)."""
    appended: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)
    """Ring → (position of the first, entries)."""
    pages: tuple[np.ndarray, np.ndarray] | None = None
    """(int64[n] offsets, uint8[n, PAGE_BYTES]) of the heap."""


class TableSet(ABC):
    """A state's tables. `t` is what the kernels take, renewed whenever an array grows.

    Parameters
    ----------
    more : arrays by name
        Those of the bundle that no schema names, but for the heap, the journal, the indexes and `beside`.
    """

    schema: ClassVar[Schema]
    indexes: ClassVar[dict[str, str]]
    """Table → its index, an array of the bundle."""
    beside: ClassVar[dict[str, tuple[str, np.dtype]]]
    """Table → an array of the bundle that has an entry for each of its rows: (name, dtype)."""
    t: Any

    def __init__(self, **more: np.ndarray):
        tables = self.schema.tables.values()
        self._arrays: dict[str, np.ndarray] = {table.name: table.new(0) for table in tables} | {
            "pool": self.schema.head.new(1),
            "heap": np.zeros(0, np.uint8),
            "page_dirty": np.zeros(0, np.uint8),
            "journal": np.zeros(0, np.int64),
            **{name: np.full(2, -1, np.int32) for name in self.indexes.values()},
            **{name: np.zeros(0, dtype) for name, dtype in self.beside.values()},
            **more,
        }
        self._appended = {ring.name: 0 for ring in self.schema.rings}  # positions up to which deltas have been taken
        self.ensure()

    @abstractmethod
    def bundled(self) -> Any:
        """Make the bundle of the arrays."""

    def indexed(self, name: str) -> np.ndarray:
        """Give the rows (int64[]) of a table that its index has."""
        return np.arange(self.count(name))

    @property
    def row(self) -> np.ndarray:
        """The head: counters and clock, one row."""
        return self._arrays["pool"]

    def count(self, table: str) -> int:
        """Rows of a table in use or free."""
        return int(self.row[f"{self.schema.tables[table].prefix}_count"][0])

    def table(self, name: str) -> np.ndarray:
        """View an array, whole."""
        return self._arrays[name]

    def rows(self, table: str) -> np.ndarray:
        """View a table's rows in use or free."""
        return self._arrays[table][: self.count(table)]

    def span(self, ring: str) -> tuple[int, int]:
        """Give the position of a ring's first entry, and that after its last."""
        prefix = self.schema.tables[ring].prefix
        return int(self.row[f"{prefix}_head"][0]), int(self.row[f"{prefix}_tail"][0])

    def ring(self, name: str) -> tuple[int, np.ndarray]:
        """Copy a ring's entries; (position of the first, entries, oldest first)."""
        head, tail = self.span(name)
        return head, entries(self._arrays[name], head, tail)

    def text(self, at: int, size: int) -> bytes:
        """Read a text of the heap."""
        return self._arrays["heap"][at : at + size].tobytes()

    def ensure(self, **needed: int) -> None:
        """Make room for so many more rows (of a table or ring by name) or bytes (`heap`)."""
        rings = {ring.name for ring in self.schema.rings}
        for name, more in needed.items():
            if name == "heap":
                self._grow_heap(int(self.row["heap_size"][0]) + more)
            elif name in rings:
                self._grow_ring(name, more)
            elif self._grow_rows(name, self.count(name) + more):
                self._index(name)
        size = sum(self._arrays[table.name].size for table in self.schema.rows) + self._arrays["page_dirty"].size
        self._grow("journal", size + 1)
        self.t = self.bundled()

    def _grow(self, name: str, needed: int) -> bool:
        if needed <= self._arrays[name].size:
            return False
        self._arrays[name] = enlarged(self._arrays[name], room_for(needed))
        return True

    def _grow_rows(self, name: str, needed: int) -> bool:
        """Enlarge a table and what lies beside it; false if it is large enough."""
        if not self._grow(name, needed):
            return False
        if name in self.beside:
            beside = self.beside[name][0]
            self._arrays[beside] = enlarged(self._arrays[beside], self._arrays[name].size)
        return True

    def _grow_heap(self, needed: int) -> None:
        if self._grow("heap", needed):
            self._arrays["page_dirty"] = enlarged(self._arrays["page_dirty"], self._arrays["heap"].size // PAGE_BYTES)

    def _grow_ring(self, name: str, more: int) -> None:
        head, tail = self.span(name)
        if tail - head + more > self._arrays[name].size:
            self._arrays[name] = moved(self._arrays[name], room_for(tail - head + more), head, tail)
            self._index(name)

    def _index(self, name: str) -> None:
        """Build a table's index anew, if it has one, with room for twice its rows."""
        if name in self.indexes:
            slots = enlarged(self._arrays[self.indexes[name]], 2 * max(self._arrays[name].size, 1))
            self._fill(name, slots)
            self._arrays[self.indexes[name]] = slots

    def _fill(self, name: str, slots: np.ndarray) -> None:
        """Enter a table's rows into the slots of its index."""
        table = self._arrays[name]
        if any(name == ring.name for ring in self.schema.rings):
            index_newest(slots, table, np.arange(*self.span(name)) & (table.size - 1))
        else:
            index_rows(slots, table, self.indexed(name))

    def journal(self, code: int) -> np.ndarray:
        """Give the rows (int64[]) of a table, by its code, that changed since the last `take_delta`, by their first change."""
        journal = self._arrays["journal"][: self._arrays["counters"][JOURNAL_SIZE]]
        return journal[journal >> 40 == code] & _NUMBER

    def take_delta(self) -> Delta:
        """Give what changed since the last call, and call it clean."""
        a = self._arrays
        delta = Delta(take(a["pool"], np.zeros(1, np.intp)))  # whole, gaps too: `copy` leaves them as they were found
        for code, table in enumerate(self.schema.rows):
            rows = self.journal(code)
            if rows.size:
                a[table.name]["dirty"][rows] = 0
                delta.rows[table.name] = (rows.astype(np.int32), take(a[table.name], rows))
        pages = self.journal(PAGES)
        if pages.size:
            a["page_dirty"][pages] = 0
            delta.pages = (pages * PAGE_BYTES, a["heap"].reshape(-1, PAGE_BYTES)[pages])
        for name, start in self._appended.items():
            _, tail = self.span(name)
            if tail > start:
                delta.appended[name] = (start, entries(a[name], start, tail))
                self._appended[name] = tail
        a["counters"][JOURNAL_SIZE] = 0
        return delta

    def fold(self, delta: Delta) -> None:
        """Apply a delta, of this layout or an older one, to the persistent tables; `seal()` follows the last.

        A table that is no longer there is left out.
        """
        a, tables = self._arrays, self.schema.tables
        put(a["pool"], slice(1), self.schema.head.fitted(delta.pool))
        for name, (rows, values) in delta.rows.items():
            if name in tables:
                self._grow_rows(name, self.count(name))
                put(a[name], rows, tables[name].fitted(values))
        self._grow_heap(int(self.row["heap_size"][0]))
        if delta.pages is not None:
            at, pages = delta.pages
            a["heap"].reshape(-1, PAGE_BYTES)[at // PAGE_BYTES] = pages
        for name, (start, values) in delta.appended.items():
            if name in tables:
                a[name] = extended(a[name], start, tables[name].fitted(values), *self.span(name))

    def seal(self) -> None:
        """Build the indexes of the persistent tables; a state with more that is derived builds that too."""
        for name in self.indexes:
            self._index(name)
        self._appended = {name: self.span(name)[1] for name in self._appended}
        self.ensure()

    def by_key(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Sort rows of a table by the hash of their keys."""
        table = self._arrays[name]
        return rows[np.lexsort((table["hash_low"][rows], table["hash_high"][rows]))]

    @abstractmethod
    def counting(self) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], np.ndarray]]:
        """Say what of the tables counts for the digest (digest.py).

        Returns
        -------
        rows : dict of str to int64[]
            Table or ring → the rows that count, in an order that does not depend on their numbers. Of the tables not named here
            none does. A table stands behind those that its order depends on.
        values : dict
            (Table, column) → values of those rows, in that order, that count instead of the stored ones.
        """
