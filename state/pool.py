"""The state of one pool: its tables, what is derived from them, and what of them counts.

Owner: the pipeline of the pool's partition, the only writer; nothing here knows Kafka, a clock or an event loop.
Not here: growth, deltas and folding (tableset.py), what an event does (streams/inventory), the delta's bytes (changelog.py).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from state import columns
from state.hashing import hash_bytes
from state.index import index_cells
from state.orders import link_promises, link_timed, link_waiting
from state.rows import moved
from state.seen import remembered
from state.stock import FIRST_BLOCK, link_cells
from state.supply import link_due
from state.tables import (
    ALERT_COUNT,
    BLOCKS_TAIL,
    CELLS,
    CLOSED_HEAD,
    CLOSED_MS,
    CLOSED_TAIL,
    DUE_COUNT,
    HOLD_COUNT,
    HORIZON_MS,
    LONGEST_ORDER,
    MOST_PIECES,
    SUPPLIES,
    Tables,
    View,
)
from state.tableset import Delta, TableSet
from topics.columns import ALERT


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
    reroutes: int = 1
    """1: a shortfall's promises are routed again; 0: they stay."""
    clock_skew_ms: int = 300_000
    transfer_ms: int = 14 * 24 * 3_600_000


class PoolState(TableSet):
    """One pool's tables."""

    schema = columns.SCHEMA
    indexes: ClassVar = {
        "locations": "location_index",
        "skus": "sku_index",
        "cells": "cell_index",
        "orders": "order_index",
        "supplies": "supply_index",
        "kits": "kit_index",
        "seen": "seen_index",
    }
    beside: ClassVar = {
        "skus": ("sku_links", columns.SKU_LINK),
        "lines": ("line_links", columns.LINE_LINK),
        "cells": ("cell_links", columns.CELL_LINK),
        "supplies": ("supply_links", columns.SUPPLY_LINK),
    }

    def __init__(self, pool_id: bytes, limits: Limits = Limits()):
        self.pool_id = pool_id
        self.tag = f"{hash_bytes(pool_id)[0] & 0xFFFFFFFF:08x}".encode()
        super().__init__(
            limits=np.array([getattr(limits, name) for name in Limits.__slots__], np.int64),
            counters=np.zeros(16, np.int64),
            sku_cells=np.zeros(0, columns.SKU_CELL),
            holds=np.zeros(0, columns.TIMED),
            closed=np.zeros(0, columns.TIMED),
            due=np.zeros(0, columns.TIMED),
            freed=np.zeros(256, np.int32),
            watched=np.zeros(0, np.int32),
            alerts=np.zeros(0, ALERT),
        )

    def bundled(self) -> Any:
        """Make the bundle of the arrays."""
        return Tables(**self._arrays, routing_view=View(**{name: self._arrays[name] for name in View._fields}))

    def names_of(self, location: int, sku: int) -> tuple[str, str]:
        """Give the ids of a location's row and a SKU's."""
        rows = self.table("locations")[location], self.table("skus")[sku]
        place, article = (self.text(int(row["id_at"]), int(row["id_size"])).decode() for row in rows)
        return place, article

    def reference_of(self, supply: int) -> str | None:
        """Give the supply_id or transfer_id of a supply's row; None if there is none (-1)."""
        if supply < 0:
            return None
        row = self.table("supplies")[supply]
        return self.text(int(row["id_at"]), int(row["id_size"])).decode()

    def ensure(self, *, sku_cells: int = 0, holds: int = 0, due: int = 0, alerts: int = 0, **needed: int) -> None:
        """Make room for so many more rows (of a table or ring by name), bytes (`heap`) or slots (the others)."""
        counters = self._arrays["counters"]
        self._grow("sku_cells", int(counters[BLOCKS_TAIL]) + sku_cells)
        self._grow("holds", int(counters[HOLD_COUNT]) + holds)
        self._grow("due", int(counters[DUE_COUNT]) + due)
        self._grow("alerts", int(counters[ALERT_COUNT]) + alerts)
        super().ensure(**needed)

    def _grow_rows(self, name: str, needed: int) -> bool:
        a, grown = self._arrays, super()._grow_rows(name, needed)
        if grown and name == "orders":  # a closed one is in the ring twice at most
            a["closed"] = moved(a["closed"], 2 * a["orders"].size, *a["counters"][[CLOSED_HEAD, CLOSED_TAIL]].tolist())
        if grown and name == "cells":
            self._grow("watched", a["cells"].size)
        if grown:  # in one event each line of the orders it touches frees a cell at most once
            self._grow("freed", a["lines"].size + a["orders"].size + 16)
        return grown

    def indexed(self, name: str) -> np.ndarray:
        """Give the rows (int64[]) of a table that its index has."""
        if name == "orders":
            return np.flatnonzero(np.isin(self.rows(name)["state"], (columns.FREE, columns.GONE), invert=True))
        if name == "supplies":
            return np.flatnonzero(np.isin(self.rows(name)["kind"], (columns.EXPECTED_SUPPLY, columns.IN_TRANSIT)))
        return np.flatnonzero(self.rows(name)["part_count"]) if name == "kits" else super().indexed(name)

    def _fill(self, name: str, slots: np.ndarray) -> None:
        if name == "cells":
            index_cells(slots, self.table(name), self.count(name))
        else:
            super()._fill(name, slots)

    def changed_cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the cells that got a new version since the last `take_delta`, and the events that changed them last."""
        rows = self.journal(CELLS).astype(np.int32)
        events = self.table("cell_links")["event"][rows]
        return rows[events > 0], events[events > 0] - 1

    def changed_supplies(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the supplies and transfers that events changed since the last `take_delta`, and the events; dropped first."""
        rows = self.journal(SUPPLIES).astype(np.int32)
        events = self.table("supply_links")["event"][rows]
        rows, events = rows[events > 0], events[events > 0] - 1
        # One that is dropped may have come to stand again, in another row.
        order = np.argsort(self.table("supplies")["kind"][rows] < columns.GONE_SUPPLY, kind="stable")
        return rows[order], events[order]

    def next_due(self) -> int | None:
        """Say when, by the log's clock, the next transfer is due, epoch ms."""
        return int(self.table("due")["time"][0]) if self._arrays["counters"][DUE_COUNT] else None

    def take_delta(self) -> Delta:
        """Give what changed since the last call, and call it clean."""
        self.table("cell_links")["event"][self.journal(CELLS)] = 0
        self.table("supply_links")["event"][self.journal(SUPPLIES)] = 0
        return super().take_delta()

    def seal(self) -> None:
        """Build all that is derived from the persistent tables."""
        counters = self._arrays["counters"]
        counters[:] = 0
        counters[LONGEST_ORDER] = self.rows("orders")["line_count"].max(initial=0)
        counters[MOST_PIECES] = self._most_pieces()
        self._grow("sku_cells", 2 * self.count("cells") + FIRST_BLOCK * self.count("skus"))
        self._grow("holds", int(self.row["held_orders"][0]) + 1)
        self._grow("due", self.count("supplies") + 1)
        super().seal()
        # In the order of their blocks: entered by row, each would push half of its block along.
        _, heights = np.unique(self.rows("locations")["z"], return_inverse=True)
        link_cells(self.t, np.argsort(heights.astype(np.int32)[self.rows("cells")["location"]], kind="stable"))
        lines, orders = self.rows("lines"), self.rows("orders")
        promised = np.flatnonzero(lines["state"] == columns.RESERVED)
        served = np.isin(orders["state"], (columns.OPEN, columns.HELD))
        chains = _chained(orders["first_line"][served], self.table("lines")["next"])
        depth = np.zeros(lines.size, np.int64)
        depth[chains] = np.arange(chains.size)
        link_promises(self.t, promised[np.lexsort((depth[promised], lines["shipment_sequence"][promised]))])
        waiting = np.flatnonzero(lines["state"] == columns.WAITING)
        link_waiting(self.t, waiting[np.argsort(orders["age"][lines["order"][waiting]], kind="stable")])
        closed = np.flatnonzero(np.isin(orders["state"], (columns.CLOSED, columns.EXPIRED, columns.GONE)))
        held = np.flatnonzero(orders["state"] == columns.HELD)
        link_timed(self.t, held, closed[np.argsort(orders["closed_at"][closed], kind="stable")])
        link_due(self.t)

    def _most_pieces(self) -> int:
        """Count the parts of the largest kit that a line has, or that is in force."""
        lines = self.rows("lines")
        of_lines = np.unique(lines["root"][lines["state"] == columns.KIT_PART], return_counts=True)[1]
        return max(of_lines.max(initial=0), self.rows("kits")["part_count"].max(initial=0))

    def counting(self) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], np.ndarray]]:
        """Say what counts for the digest: no free rows, no orders, movements and event ids that count as forgotten."""
        now, limits = int(self.row["now"][0]), self.t.limits
        orders = self.rows("orders")
        closed = np.isin(orders["state"], (columns.CLOSED, columns.EXPIRED)) & (orders["closed_at"] >= now - limits[CLOSED_MS])
        kept = self.by_key("orders", np.flatnonzero(np.isin(orders["state"], (columns.OPEN, columns.HELD)) | closed))
        rows = {name: self.by_key(name, self.indexed(name)) for name in ("locations", "skus", "supplies", "kits")}
        cells = self.rows("cells")
        keys = [np.argsort(rows[table])[cells[column]] for table, column in (("skus", "sku"), ("locations", "location"))]
        rows |= {"cells": np.lexsort(keys), "orders": kept}
        rows["lines"] = self._with_pieces(_chained(orders["first_line"][kept], self.table("lines")["next"]))
        rows["refusals"] = _chained(orders["refusal"][kept], self.table("refusals")["next"])
        rows["kit_parts"] = _chained(self.rows("kits")["first_part"][rows["kits"]], self.table("kit_parts")["next"])
        movements = self.table("movements")
        entries = np.arange(*self.span("movements")) & (movements.size - 1)
        outside = movements["applied_at"][entries] < now - limits[HORIZON_MS]
        forgotten = cells["forgotten"].copy()
        np.maximum.at(forgotten, movements["cell"][entries[outside]], movements["event_time"][entries[outside]])
        rows |= {"movements": entries[~outside], "seen": remembered(self.t)}
        return rows, {("cells", "forgotten"): forgotten[rows["cells"]]}

    def _with_pieces(self, rows: np.ndarray) -> np.ndarray:
        """Put before rows of lines, int64[], those of their pieces."""
        lines = self.table("lines")
        return np.concatenate([_chained(lines["kit"][rows], lines["next"]), rows])


def _chained(first: np.ndarray, following: np.ndarray) -> np.ndarray:
    """List the rows of chains, int64[]: the first of each, then the second of each, and so on."""
    found, rows = [], first[first >= 0]
    while rows.size:
        found.append(rows)
        rows = following[rows]
        rows = rows[rows >= 0]
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)
