"""The kits of a pool: SKUs that are promised as others. The only code that changes them. Rare, so plain Python.

A kit is named by its SKU's text, and so are its parts: a SKU gets a row of its own only when an event names it, or a kit of it.
Not here: which kits are good (streams/inventory/products.py), finding a kit in a kernel (stock.py), a line's parts (orders.py).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from state.hashing import hash_bytes
from state.index import find_text, insert, remove
from state.pool import PoolState
from state.tables import KIT_PARTS, KITS, MOST_PIECES, mark
from state.text import free_text_block, name_row

Parts = tuple[tuple[bytes, int], ...]
"""SKU and units of each part, in the order of the kit's record."""


def kits_of(state: PoolState) -> dict[bytes, Parts]:
    """Give all kits of a pool: SKU → its parts."""
    found, parts = {}, state.table("kit_parts")
    for row in state.indexed("kits"):
        kit = state.table("kits")[row]
        listed, at = [], int(kit["first_part"])
        while at >= 0:
            listed.append((_text(state, parts[at]), int(parts[at]["quantity"])))
            at = int(parts[at]["next"])
        found[_text(state, kit)] = tuple(listed)
    return found


def put_kit(state: PoolState, sku: bytes, parts: Sequence[tuple[bytes, int]]) -> None:
    """Let a SKU be a kit of these parts from now on; without parts it is no kit any more."""
    text = np.frombuffer(sku, np.uint8)
    low, high = (np.uint64(half) for half in hash_bytes(sku))
    t = state.t
    known = int(find_text(t.kit_index, t.kits, low, high, t.heap, text, 0, text.size))
    if known >= 0:
        _drop_kit(state, known)
    if not parts:
        return
    room = sum(2 * len(text) + 32 for text in (sku, *(part for part, _ in parts)))
    state.ensure(kits=1, kit_parts=len(parts), heap=room)
    row = _named(state, "kits", sku)
    insert(state.t.kit_index, low, row)
    following = -1
    for part, quantity in reversed(parts):
        at = _named(state, "kit_parts", part)
        values = state.table("kit_parts")[at]
        values["kit"], values["quantity"], values["next"] = row, quantity, following
        following = at
    kit = state.table("kits")[row]
    kit["first_part"], kit["part_count"], kit["next"] = following, len(parts), -1
    state.t.counters[MOST_PIECES] = max(state.t.counters[MOST_PIECES], len(parts))


def _drop_kit(state: PoolState, row: int) -> None:
    kit = state.table("kits")[row]
    remove(state.t.kit_index, state.t.kits, row)
    at = int(kit["first_part"])
    while at >= 0:
        following = int(state.table("kit_parts")[at]["next"])
        _free(state, "kit_parts", at)
        at = following
    kit["first_part"], kit["part_count"] = -1, 0
    _free(state, "kits", row)


def _named(state: PoolState, table: str, text: bytes) -> int:
    """Take a row, and give it its SKU; there is room."""
    head, prefix, code = state.row[0], state.schema.tables[table].prefix, _CODES[table]
    row = int(head[f"free_{prefix}"])
    if row >= 0:
        head[f"free_{prefix}"] = state.table(table)[row]["next"]
    else:
        row = int(head[f"{prefix}_count"])
        head[f"{prefix}_count"] += 1
    t, values, bytes_ = state.t, state.table(table)[row], np.frombuffer(text, np.uint8)
    low, high = (np.uint64(half) for half in hash_bytes(text))
    name_row(t, values, low, high, bytes_, 0, bytes_.size, bytes_.size)
    mark(t.journal, t.counters, code, values, row)
    return row


def _free(state: PoolState, table: str, row: int) -> None:
    """Give a row back, and its text."""
    t, values, free = state.t, state.table(table)[row], f"free_{state.schema.tables[table].prefix}"
    free_text_block(t.pool, t.heap, t.page_dirty, t.journal, t.counters, int(values["id_at"]), int(values["id_size"]))
    values["next"] = state.row[0][free]
    state.row[0][free] = row
    mark(t.journal, t.counters, _CODES[table], values, row)


_CODES = {"kits": KITS, "kit_parts": KIT_PARTS}


def _text(state: PoolState, row: Any) -> bytes:
    return state.text(int(row["id_at"]), int(row["id_size"]))
