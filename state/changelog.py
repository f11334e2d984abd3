"""A batch's changelog record: what was read, in which order it was applied, and what it changed. Pure: bytes in, bytes out.

The records of a partition are a hash chain: a batch's link is the SHA-256 of the link before and its record's bytes, so a
record that was altered, removed or inserted breaks it there. The link travels in the record's headers.

Layout: uint32 (little endian) size of the manifest, the manifest (JSON), then blobs that the manifest points to by `at`
(offset from the end of the manifest) and `bytes`. Arrays are little endian, as numpy lays them out; each table's manifest
entry describes its row, so a reader needs nothing but this page:

    {"version": 1, "layout": 1, "nearshelf": "0.1.0", "batch": 7, "partition": 0, "topics": ["sales.v1", ...],
     "inputs": [{"topic": "sales.v1", "first": 120, "next": 161, "count": 40}, ...],
     "order": {"at": 0, "bytes": 40},
     "locations": [{"partition", "offset", "timestamp", "key", "value"}, ...], "products": [the same, ...],
     "pools": [{"pool_id": "uk", "tables": [table, ...]}, ...]}

`version` is that of this page, raised together with `layout`. `layout` is the tables' (schema.py), `nearshelf` the version that
wrote the record. `order` is one uint8 per event as applied, its topic's place in `topics`; `locations` are records of
locations.v1, `products` of products.v1 as far as they are of kits, both applied before the events.

    table = {"name": "cells", "kind": "rows", "columns": {"names", "formats", "offsets", "itemsize"}, "count": 3,
             "at", "bytes", "rows_at"}
    rows:   int32[count] row numbers at `rows_at`; the rows at `at` replace the table's
    append: entries of a ring from the position `start` on
    bytes:  the text heap: (int64 offset, int32 size)[count] at `rows_at`, the bytes themselves joined at `at`
"""

import hashlib
import struct
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import orjson

from state.schema import LAYOUT, NEARSHELF, check_layout
from state.tables import PAGE_BYTES
from state.tableset import Delta

VERSION = 1
FIRST_LINK = bytes(32)
"""What the first batch is linked to."""
_SIZE = struct.Struct("<I")
_PAGE = np.dtype([("at", "<i8"), ("size", "<i4")])


class _Blobs:
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, array: np.ndarray) -> int:
        data = array.tobytes()
        at = self.size
        self.parts.append(data)
        self.size += len(data)
        return at


@cache
def described(dtype: np.dtype) -> dict[str, Any]:
    """Describe a row as a manifest does: JSON from which `dtype_of` makes the dtype again."""
    names = dtype.names or ()
    fields: Mapping[str, Any] = dtype.fields or {}
    kinds = [fields[name][0] for name in names]
    return {
        "names": list(names),
        "formats": [kind.str if kind.subdtype is None else f"{kind.shape}{kind.base.str}" for kind in kinds],
        "offsets": [fields[name][1] for name in names],
        "itemsize": dtype.itemsize,
    }


def dtype_of(columns: dict[str, Any]) -> np.dtype:
    """Make the dtype that was described."""
    return _dtype(tuple(columns["names"]), tuple(columns["formats"]), tuple(columns["offsets"]), columns["itemsize"])


@cache
def _dtype(names: tuple[str, ...], formats: tuple[str, ...], offsets: tuple[int, ...], itemsize: int) -> np.dtype:
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize})


def _table(blobs: _Blobs, name: str, kind: str, values: np.ndarray, rows: np.ndarray | None = None) -> dict[str, Any]:
    entry = {"name": name, "kind": kind, "columns": described(values.dtype), "count": values.size, "bytes": values.nbytes}
    if rows is not None:
        entry["rows_at"] = blobs.add(rows)
    entry["at"] = blobs.add(values)
    return entry


def _pool_tables(blobs: _Blobs, delta: Delta) -> list[dict[str, Any]]:
    tables = [_table(blobs, "pool", "rows", delta.pool, np.zeros(1, np.int32))]
    tables += [_table(blobs, name, "rows", values, rows) for name, (rows, values) in delta.rows.items()]
    for name, (start, entries) in delta.appended.items():
        tables.append(_table(blobs, name, "append", entries) | {"start": start})
    if delta.pages is not None:
        offsets, pages = delta.pages
        spans = np.zeros(offsets.size, _PAGE)
        spans["at"], spans["size"] = offsets, PAGE_BYTES
        entry = {"name": "heap", "kind": "bytes", "count": spans.size, "bytes": pages.size}
        tables.append(entry | {"rows_at": blobs.add(spans), "at": blobs.add(pages)})
    return tables


def encode(head: dict[str, Any], order: np.ndarray, deltas: dict[str, Delta]) -> bytes:
    """Write a batch's record.

    Parameters
    ----------
    head : the manifest's `batch`, `partition`, `topics`, `inputs` and `locations`
    order : uint8[n], each event's topic as a place in `topics`, in the order applied
    deltas : pool id → what the batch changed there
    """
    blobs = _Blobs()
    manifest = {"version": VERSION, "layout": LAYOUT, "nearshelf": NEARSHELF, **head}
    manifest["order"] = {"at": blobs.add(order), "bytes": order.size}
    manifest["pools"] = [{"pool_id": pool_id, "tables": _pool_tables(blobs, delta)} for pool_id, delta in deltas.items()]
    text = orjson.dumps(manifest, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([_SIZE.pack(len(text)), text, *blobs.parts])


def next_link(previous: bytes, record: bytes) -> bytes:
    """Give a batch's link (32 bytes) from that of the batch before and its record."""
    link = hashlib.sha256(previous)
    link.update(record)
    return link.digest()


def manifest_of(record: bytes) -> tuple[dict[str, Any], memoryview]:
    """Read a record's manifest; returns it with the blobs behind it.

    Raises
    ------
    NewerLayout
        A later version wrote it.
    """
    (size,) = _SIZE.unpack_from(record)
    end = _SIZE.size + size
    manifest = orjson.loads(record[_SIZE.size : end])
    check_layout(manifest, f"the changelog's batch {manifest['batch']} of partition {manifest['partition']}")
    if manifest["version"] != VERSION:
        raise ValueError(f"expected a changelog record of version {VERSION}, found {manifest['version']}: it is damaged")
    return manifest, memoryview(record)[end:]


def delta_of(tables: list[dict[str, Any]], blobs: memoryview) -> Delta:
    """Read what a batch changed in one pool from its manifest entry and the record's blobs, in the layout it was written in."""
    rows, appended, pages = {}, {}, None
    for table in tables:
        name, count, at = table["name"], table["count"], table["at"]
        if table["kind"] == "bytes":
            spans = np.frombuffer(blobs, _PAGE, count, table["rows_at"])
            pages = (spans["at"], np.frombuffer(blobs, np.uint8, count * PAGE_BYTES, at).reshape(count, PAGE_BYTES))
            continue
        values = np.frombuffer(blobs, dtype_of(table["columns"]), count, at)
        if table["kind"] == "append":
            appended[name] = (table["start"], values)
        else:
            rows[name] = (np.frombuffer(blobs, np.int32, count, table["rows_at"]), values)
    return Delta(rows.pop("pool")[1], rows, appended, pages)
