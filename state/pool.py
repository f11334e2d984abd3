"""The state of one pool: its arrays, their growth, the delta of a batch, and folding deltas back.

Owner: the pipeline of the pool's partition, the only writer; nothing here knows Kafka, a clock or an event loop.
A batch ends with `take_delta()`: every row it changed, as it now is. Folding a pool's deltas in order into a new PoolState and
then `seal()` gives the same tables (digest.py).
Not here: what an event does (streams/inventory), the delta's bytes (changelog.py).
"""

from dataclasses import dataclass, field

import numpy as np

from state import columns
from state.hashing import hash_bytes
from state.index import index_cells, index_newest, index_rows
from state.links import link_cells, link_holds, link_waiting
from state.rows import enlarged, entries, extended, moved, put, room_for, take
from state.stock import FIRST_BLOCK
from state.tables import (
    BLOCKS_TAIL,
    CELLS,
    CLOSED_HEAD,
    CLOSED_TAIL,
    HOLD_COUNT,
    JOURNAL_SIZE,
    LONGEST_ORDER,
    PAGE_BYTES,
    PAGES,
    ROW_TABLES,
    Tables,
    View,
)

RINGS = ("movements", "seen")
_DTYPES = {
    "locations": columns.LOCATION,
    "skus": columns.SKU,
    "cells": columns.CELL,
    "orders": columns.ORDER,
    "lines": columns.LINE,
    "refusals": columns.REFUSAL,
    "supplies": columns.SUPPLY,
    "movements": columns.MOVEMENT,
    "seen": columns.SEEN,
}
_COUNTS = {
    "locations": "location_count",
    "skus": "sku_count",
    "cells": "cell_count",
    "orders": "order_count",
    "lines": "line_count",
    "refusals": "refusal_count",
    "supplies": "supply_count",
}
# Derived arrays that grow with a table, row for row: table → (array, dtype).
_LINKS = {
    "skus": ("sku_links", columns.SKU_LINK),
    "lines": ("line_links", columns.LINE_LINK),
    "cells": ("cell_event", np.dtype(np.int32)),
}
_INDEXES = {
    "locations": "location_index",
    "skus": "sku_index",
    "cells": "cell_index",
    "orders": "order_index",
    "supplies": "supply_index",
    "seen": "seen_index",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a pool remembers, and how much it keeps; see the settings of the same names."""

    dedupe_events: int = 4_000_000
    dedupe_ms: int = 24 * 3_600_000
    horizon_ms: int = 48 * 3_600_000
    closed_ms: int = 30 * 24 * 3_600_000
    max_skus: int = 5_000_000
    max_cells: int = 20_000_000
    max_lines: int = 10_000_000
    max_supplies: int = 2_000_000


@dataclass(slots=True)
class Delta:
    """What a batch changed: rows of tables as they now are, what was appended to the rings, bytes of the heap."""

    pool: np.ndarray
    """POOL[1]."""
    rows: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Table → (int32[n] row numbers, n rows)."""
    appended: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)
    """Ring → (position of the first, entries)."""
    pages: tuple[np.ndarray, np.ndarray] | None = None
    """(int64[n] offsets, uint8[n, PAGE_BYTES]) of the heap."""


class PoolState:
    """One pool's tables; `t` is what the kernels take, renewed whenever an array grows."""

    def __init__(self, pool_id: bytes, limits: Limits = Limits()):
        self.pool_id = pool_id
        self.tag = f"{hash_bytes(pool_id)[0] & 0xFFFFFFFF:08x}".encode()
        row = np.zeros(1, columns.POOL)
        for name in ("free_order", "free_line", "free_refusal", "free_supply", "free_text"):
            row[name] = -1
        arrays = {"pool": row, "limits": np.array([getattr(limits, name) for name in Limits.__slots__], np.int64)}
        arrays["counters"] = np.zeros(16, np.int64)
        for name in (*ROW_TABLES, *RINGS):
            arrays[name] = np.zeros(0, _DTYPES[name])
        for array, dtype in _LINKS.values():
            arrays[array] = np.zeros(0, dtype)
        for name in _INDEXES.values():
            arrays[name] = np.full(2, -1, np.int32)
        arrays["heap"] = np.zeros(0, np.uint8)
        arrays["page_dirty"] = np.zeros(0, np.uint8)
        arrays["sku_cells"] = np.zeros(0, columns.SKU_CELL)
        arrays["holds"] = np.zeros(0, columns.TIMED)
        arrays["closed"] = np.zeros(0, columns.TIMED)
        arrays["journal"] = np.zeros(0, np.int64)
        arrays["freed"] = np.zeros(0, np.int32)
        self._arrays = arrays
        self._appended = dict.fromkeys(RINGS, 0)
        self.ensure()

    @property
    def row(self) -> np.ndarray:
        """The pool's counters, POOL[1]."""
        return self._arrays["pool"]

    def count(self, table: str) -> int:
        """Rows of a table in use or free."""
        return int(self.row[_COUNTS[table]][0])

    def rows(self, table: str) -> np.ndarray:
        """View a table's rows."""
        return self._arrays[table][: self.count(table)]

    def ring(self, name: str) -> tuple[int, np.ndarray]:
        """Copy a ring's entries; (position of the first, entries, oldest first)."""
        head, tail = self._span(name)
        return head, entries(self._arrays[name], head, tail)

    def text(self, at: int, size: int) -> bytes:
        """Read a text of the heap."""
        return self._arrays["heap"][at : at + size].tobytes()

    def ensure(self, **needed: int) -> None:
        """Make room for so many more rows (of a table or ring by name), or bytes (`heap`), or slots (`sku_cells`, `holds`)."""
        for name, more in needed.items():
            if name in ROW_TABLES:
                self._grow_table(name, self.count(name) + more)
            elif name in RINGS:
                head, tail = self._span(name)
                self._grow_ring(name, tail - head + more)
            elif name == "heap":
                self._grow("heap", int(self.row["heap_size"][0]) + more, "page_dirty", PAGE_BYTES)
            elif name == "sku_cells":
                self._grow("sku_cells", int(self._arrays["counters"][BLOCKS_TAIL]) + more)
            else:
                self._grow("holds", int(self._arrays["counters"][HOLD_COUNT]) + more)
        self._grow("journal", sum(self._arrays[name].size for name in (*ROW_TABLES, "page_dirty")) + 1)
        # In one event each line of the orders it touches frees a cell at most once.
        self._grow("freed", self._arrays["lines"].size + self._arrays["orders"].size + 16)
        view = View(**{name: self._arrays[name] for name in View._fields})
        self.t = Tables(**self._arrays, routing_view=view)

    def _grow(self, name: str, needed: int, companion: str | None = None, per: int = 1) -> bool:
        array = self._arrays[name]
        if needed <= array.size:
            return False
        size = room_for(needed)
        self._arrays[name] = enlarged(array, size)
        if companion:
            self._arrays[companion] = enlarged(self._arrays[companion], size // per)
        return True

    def _grow_table(self, name: str, needed: int) -> None:
        if not self._grow(name, needed):
            return
        if name in _LINKS:
            array, _ = _LINKS[name]
            self._arrays[array] = enlarged(self._arrays[array], self._arrays[name].size)
        if name == "orders":
            self._grow_closed(2 * self._arrays[name].size)
        self._index(name)

    def _grow_closed(self, size: int) -> None:
        """Enlarge the ring of closed orders; an order is in it twice at most."""
        head, tail = self._arrays["counters"][[CLOSED_HEAD, CLOSED_TAIL]].tolist()
        self._arrays["closed"] = moved(self._arrays["closed"], size, head, tail)

    def _span(self, ring: str) -> tuple[int, int]:
        prefix = {"movements": "movement", "seen": "seen"}[ring]
        return int(self.row[f"{prefix}_head"][0]), int(self.row[f"{prefix}_tail"][0])

    def _grow_ring(self, name: str, needed: int) -> None:
        if needed <= self._arrays[name].size:
            return
        self._arrays[name] = moved(self._arrays[name], room_for(needed), *self._span(name))
        if name in _INDEXES:
            self._index(name)

    def _index(self, name: str) -> None:
        """Build a table's index anew, with room for twice its rows."""
        if name not in _INDEXES:
            return
        table = self._arrays[name]
        slots = enlarged(self._arrays[_INDEXES[name]], 2 * max(table.size, 1))
        if name == "cells":
            index_cells(slots, table, self.count(name))
        elif name == "seen":
            head, tail = self._span(name)
            index_newest(slots, table, np.arange(head, tail) & (table.size - 1))
        else:
            rows = np.arange(self.count(name))
            if name == "orders":
                rows = rows[np.isin(table["state"][: rows.size], (columns.FREE, columns.GONE), invert=True)]
            elif name == "supplies":
                rows = rows[table["kind"][: rows.size] != 0]
            index_rows(slots, table, rows)
        self._arrays[_INDEXES[name]] = slots

    def changed_cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the cells that got a new version since the last `take_delta`, and the events that changed them last."""
        a = self._arrays
        journal = a["journal"][: a["counters"][JOURNAL_SIZE]]
        rows = (journal[journal >> 40 == CELLS] & ((1 << 40) - 1)).astype(np.int32)
        events = a["cell_event"][rows]
        return rows[events > 0], events[events > 0] - 1

    def take_delta(self) -> Delta:
        """Give what changed since the last call, and call it clean."""
        a = self._arrays
        counters = a["counters"]
        journal = a["journal"][: counters[JOURNAL_SIZE]]
        tables, numbers = journal >> 40, (journal & ((1 << 40) - 1)).astype(np.int64)
        delta = Delta(take(a["pool"], np.zeros(1, np.intp)))  # whole, gaps too: `copy` leaves them as they were found
        for code, name in enumerate(ROW_TABLES):
            rows = numbers[tables == code]
            if rows.size:
                a[name]["dirty"][rows] = 0
                delta.rows[name] = (rows.astype(np.int32), take(a[name], rows))
                if name == "cells":
                    a["cell_event"][rows] = 0
        pages = numbers[tables == PAGES]
        if pages.size:
            a["page_dirty"][pages] = 0
            delta.pages = (pages * PAGE_BYTES, a["heap"].reshape(-1, PAGE_BYTES)[pages])
        for name in RINGS:
            _, tail = self._span(name)
            start = self._appended[name]
            if tail > start:
                delta.appended[name] = (start, entries(a[name], start, tail))
                self._appended[name] = tail
        counters[JOURNAL_SIZE] = 0
        return delta

    def fold(self, delta: Delta) -> None:
        """Apply a delta to the persistent tables; `seal()` follows the last."""
        a = self._arrays
        a["pool"][:] = delta.pool
        for name, (rows, values) in delta.rows.items():
            if self._grow(name, self.count(name)) and name in _LINKS:
                array, _ = _LINKS[name]
                a[array] = enlarged(a[array], a[name].size)
            put(a[name], rows, values)
        self._grow("heap", int(self.row["heap_size"][0]), "page_dirty", PAGE_BYTES)
        if delta.pages is not None:
            at, pages = delta.pages
            a["heap"].reshape(-1, PAGE_BYTES)[at // PAGE_BYTES] = pages
        for name, (start, values) in delta.appended.items():
            head, tail = self._span(name)
            a[name] = extended(a[name], start, values, head, tail)

    def seal(self) -> None:
        """Build all that is derived from the persistent tables."""
        a = self._arrays
        for name in _INDEXES:
            self._index(name)
        self._appended = {name: self._span(name)[1] for name in RINGS}
        self._grow("sku_cells", 2 * self.count("cells") + FIRST_BLOCK * self.count("skus"))
        self._grow_closed(2 * max(a["orders"].size, 128))
        self._grow("holds", int(self.row["held_orders"][0]) + 1)
        a["counters"][:] = 0
        a["counters"][LONGEST_ORDER] = self.rows("orders")["line_count"].max(initial=0)
        self.ensure()
        # In the order of their blocks: entered by row, each would push half of its block along.
        _, heights = np.unique(self.rows("locations")["z"], return_inverse=True)
        link_cells(self.t, np.argsort(heights.astype(np.int32)[self.rows("cells")["location"]], kind="stable"))
        lines = self.rows("lines")
        waiting = np.flatnonzero(lines["state"] == columns.WAITING)
        orders = self.rows("orders")
        link_waiting(self.t, waiting[np.argsort(orders["age"][lines["order"][waiting]], kind="stable")])
        closed = np.flatnonzero(np.isin(orders["state"], (columns.CLOSED, columns.EXPIRED, columns.GONE)))
        held = np.flatnonzero(orders["state"] == columns.HELD)
        link_holds(self.t, held, closed[np.argsort(orders["closed_at"][closed], kind="stable")])
