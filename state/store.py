"""A partition's state on disk: a snapshot in RocksDB, so that a restart need not fold the whole changelog.

Whole batches of the changelog go in, committed ones only (who reads it for us sees to that); all that several of them changed
is one atomic write, together with the place in the changelog where it stands: the cursor. What is lost or damaged here costs
time, never truth: the changelog has it all.

On disk: each table of each pool in pages of a fixed number of rows, under `pool NUL table NUL page (uint32, big endian)`; the
value is a CRC-32 of key and rows, then the rows as numpy lays them out. Rings (`movements`, `seen`) are paged by position and
their old pages deleted, text by place in the heap. The empty key holds the cursor, the layout and version that wrote it
(schema.py), and of each table its columns and how many rows and pages it has. A table of an older layout is read as it is; the
first write that changes such a table converts the whole of it, in the same atomic write.
Owner: one process at a time, by RocksDB's lock. Not here: when to write and what to do about damage (worker/snapshots.py).
"""

import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import orjson
from rocksdict import DBCompressionType, Options, Rdict, WriteBatch

from state import changelog
from state.rows import join, put, take
from state.schema import LAYOUT, NEARSHELF, NewerLayout, Schema, check_layout
from state.tables import PAGE_BYTES
from state.tableset import Delta
from topics.errors import SnapshotUnusable

STORED_BYTES = 64 << 10
"""Of a page, at most."""
_META = b""
_CRC = struct.Struct("<I")
_NUMBER = struct.Struct(">I")
_LOG_BLOCK = 32 << 10
_LOG_RECORD = struct.Struct("<IHB")  # masked CRC-32C of type and content, content's bytes, type
_LOG_MASK = 0xA282EAD8
_HEAP = np.dtype((np.void, PAGE_BYTES))


class StoreDamaged(SnapshotUnusable):
    """What the disk holds is not what was written; the message says where."""


class StoreForeign(SnapshotUnusable):
    """What the disk holds belongs to something else; the message says what."""


class StoreInUse(SnapshotUnusable):
    """Another process has it open."""


class StoreFull(SnapshotUnusable):
    """The disk takes no more, or can't be written; the snapshot stands where it stood."""


class Store:
    """One partition's snapshot. Any error but those above is a fault of ours.

    Parameters
    ----------
    directory : Path
        Made if missing.
    identity : dict
        What the snapshot is of; JSON. One of anything else is foreign.
    schema : Schema
        Of the state.

    Raises
    ------
    StoreDamaged, StoreForeign, StoreInUse, StoreFull
    NewerLayout
        A later version wrote it.
    """

    def __init__(self, directory: Path, identity: dict[str, Any], schema: Schema):
        self.directory = directory
        self._identity = identity
        self.schema = schema
        self.rings = {ring.name for ring in schema.rings}
        self._db: Any = None  # an Rdict, until `close`
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            _check_logs(directory)
            self._db = Rdict(str(directory), _options())
            self._meta = self._read_meta()
        except Exception as error:
            self.close()
            raise _named(error, directory) from error

    @property
    def cursor(self) -> dict[str, Any] | None:
        """Where the snapshot stands, as given to `write`; None = there is none."""
        return self._meta["cursor"]

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(Exception):  # what could not be written is written another time
                db.close()

    def get(self, key: bytes) -> bytes | None:
        """Read a page as it is stored."""
        return self._db.get(key)

    def write(self, manifests: Iterable[tuple[dict[str, Any], memoryview]], cursor: dict[str, Any]) -> None:
        """Apply batches to the snapshot, all or none.

        Parameters
        ----------
        manifests : iterable of (manifest, blobs)
            The next batches, in order, as `changelog.manifest_of` gives them.
        cursor : dict
            Where the snapshot stands then; JSON.

        Raises
        ------
        StoreDamaged, StoreFull
        """
        deltas: dict[str, list[Delta]] = {}
        for manifest, blobs in manifests:
            for pool in manifest["pools"]:
                deltas.setdefault(pool["pool_id"], []).append(changelog.delta_of(pool["tables"], blobs))
        written = {"layout": LAYOUT, "nearshelf": NEARSHELF}
        meta = {"identity": self._identity, "written": written, "cursor": cursor, "pools": dict(self._meta["pools"])}
        writes = WriteBatch(raw_mode=True)
        try:
            for pool_id, found in deltas.items():
                pool = _PoolWriter(self, writes, pool_id, meta["pools"].get(pool_id, {}))
                meta["pools"][pool_id] = pool.write(found)
            text = orjson.dumps(meta)
            writes.put(_META, _sealed(_META, text))
            self._db.write(writes)
        except Exception as error:
            raise _named(error, self.directory) from error
        self._meta = meta

    def read(self) -> dict[str, Delta]:
        """Read all of it: pool id → all its rows, as one delta.

        Raises
        ------
        StoreDamaged
        """
        try:
            return {pool_id: self._read_pool(pool_id, tables) for pool_id, tables in self._meta["pools"].items()}
        except Exception as error:
            raise _named(error, self.directory) from error

    def _read_meta(self) -> dict[str, Any]:
        value = self._db.get(_META)
        if value is None:
            if next(iter(self._db.keys()), None) is not None:
                raise StoreDamaged(f"{self.directory}: pages, but nothing that says what they are")
            return {"cursor": None, "pools": {}}
        meta = orjson.loads(_unsealed(_META, value))
        check_layout(meta.get("written", {}), f"the snapshot in {self.directory}")
        # The first version of layout 1 wrote a version and a digest of the layout into the identity.
        found = {name: value for name, value in meta["identity"].items() if name in self._identity}
        if found != self._identity:
            raise StoreForeign(f"{self.directory}: a snapshot of {self._identity} expected, found {found}")
        return meta

    def _read_pool(self, pool_id: str, tables: dict[str, dict[str, Any]]) -> Delta:
        read = {name: self.read_table(pool_id, name, table) for name, table in tables.items()}
        delta = Delta(read.pop("pool"))
        for name, values in read.items():
            if name == "heap":
                pages = values.view(np.uint8).reshape(-1, PAGE_BYTES)
                delta.pages = np.arange(len(pages), dtype=np.int64) * PAGE_BYTES, pages
            elif name in self.rings:
                delta.appended[name] = tables[name]["first"], values
            else:
                delta.rows[name] = np.arange(values.size, dtype=np.int32), values
        return delta

    def read_table(self, pool_id: str, name: str, table: dict[str, Any]) -> np.ndarray:
        """Read rows `first` to `rows` of a table; a page of the heap that nobody wrote to is missing rightly."""
        dtype = _HEAP if name == "heap" else changelog.dtype_of(table["columns"])
        first, rows, found = table["first"], table["rows"], 0
        values = np.zeros(rows - first, dtype)
        per = _rows_per_page(dtype)
        for page in range(first // per, -(-rows // per)):
            key = _key(pool_id, name, page)
            stored = self._db.get(key)
            if stored is None:
                continue
            found += 1
            content = np.frombuffer(_unsealed(key, stored), dtype)
            start, stop = max(first, page * per), min(rows, page * per + content.size)
            put(values, slice(start - first, stop - first), content[start - page * per : stop - page * per])
        if found != table["pages"]:
            raise StoreDamaged(
                f"{self.directory}: pool {pool_id}, table {name}: {table['pages']} pages expected, found {found}"
            )
        return values


class _PoolWriter:
    """Puts what batches changed in one pool into a write, in today's layout."""

    def __init__(self, store: Store, writes: WriteBatch, pool_id: str, tables: dict[str, dict[str, Any]]):
        self._store = store
        self._schema = store.schema
        self._writes = writes
        self._pool_id = pool_id
        self._tables = {name: dict(table) for name, table in tables.items()}

    def write(self, deltas: list[Delta]) -> dict[str, dict[str, Any]]:
        """Write the deltas, oldest first; gives what the tables then are."""
        changes: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        tables = self._schema.tables
        for delta in deltas:
            appended = {name: (np.arange(start, start + new.size), new) for name, (start, new) in delta.appended.items()}
            for name, (rows, values) in (delta.rows | appended).items():
                if name in tables:
                    changes.setdefault(name, []).append((rows, tables[name].fitted(values)))
            if delta.pages is not None:
                at, pages = delta.pages
                changes.setdefault("heap", []).append((at // PAGE_BYTES, np.ascontiguousarray(pages).view(_HEAP)[:, 0]))
        pool = self._schema.head.fitted(deltas[-1].pool)
        changes["pool"] = [(np.zeros(1, np.int64), pool)]
        for name, found in changes.items():
            self._put(name, np.concatenate([rows for rows, _ in found]), join([values for _, values in found]))
        for ring in self._schema.rings:
            if ring.name in self._tables:
                self._drop(ring.name, int(pool[f"{ring.prefix}_head"][0]))
        return self._tables

    def _put(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Replace rows of a table; of rows named twice the last stands."""
        table = self._tables.setdefault(name, {"first": 0, "rows": 0, "pages": 0, "columns": None})
        columns = None if name == "heap" else changelog.described(values.dtype)
        converting = table["columns"] not in (None, columns)
        if converting:
            rows = np.concatenate([np.arange(table["first"], table["rows"]), rows])
            values = join([self._taken_out(name), values])
        table["columns"] = columns
        if name in self._store.rings and not table["pages"]:
            table["first"] = int(rows[0])
        table["rows"] = max(table["rows"], int(rows.max(initial=-1)) + 1)
        per = _rows_per_page(values.dtype)
        order = np.argsort(rows // per, kind="stable")
        rows, values = rows[order], take(values, order)
        pages, starts = np.unique(rows // per, return_index=True)
        for page, start, stop in zip(pages.tolist(), starts.tolist(), [*starts[1:].tolist(), rows.size], strict=True):
            key = _key(self._pool_id, name, page)
            stored = None if converting else self._store.get(key)
            table["pages"] += stored is None
            inside = rows[start:stop] - page * per
            content = np.zeros(min(per, table["rows"] - page * per), values.dtype)
            if stored is not None:
                former = np.frombuffer(_unsealed(key, stored), values.dtype)
                put(content, slice(former.size), former)
            put(content, inside, values[start:stop])
            self._writes.put(key, _sealed(key, content.tobytes()))

    def _taken_out(self, name: str) -> np.ndarray:
        """Give all rows of a table of an older layout, in today's, and delete its pages."""
        table = self._tables[name]
        rows = self._store.read_table(self._pool_id, name, table)
        per = _rows_per_page(rows.dtype)
        for page in range(table["first"] // per, -(-table["rows"] // per)):
            self._writes.delete(_key(self._pool_id, name, page))
        table["pages"] = 0
        return self._schema.tables[name].fitted(rows)

    def _drop(self, name: str, head: int) -> None:
        """Delete a ring's pages before position `head`."""
        table = self._tables[name]
        per = _rows_per_page(changelog.dtype_of(table["columns"]))
        for page in range(table["first"] // per, min(head, table["rows"]) // per):
            self._writes.delete(_key(self._pool_id, name, page))
            table["pages"] -= 1
        table["first"] = max(table["first"], min(head, table["rows"]))


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(32 << 20)
    options.set_keep_log_file_num(2)
    options.set_max_open_files(64)
    return options


def _check_logs(directory: Path) -> None:
    """Refuse a manifest or a write-ahead log with a record that is not as it was written.

    RocksDB would do so too, but for a record's type: with one bit of it flipped (1 → 5) it reads the record for ever, deaf to
    everything (9.8.4, in rocksdict 0.3.29). The format: https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format
    """
    for path in sorted([*directory.glob("MANIFEST-*"), *directory.glob("*.log")]):
        content = memoryview(path.read_bytes())
        at = 0
        while at + _LOG_RECORD.size <= len(content):
            left = _LOG_BLOCK - at % _LOG_BLOCK
            if left < _LOG_RECORD.size:  # too little for a record: filled up
                at += left
                continue
            crc, size, kind = _LOG_RECORD.unpack_from(content, at)
            end = at + _LOG_RECORD.size + size
            if crc == size == kind == 0 or end > len(content):  # room not written yet; cut off while it was written
                break
            found = google_crc32c.value(bytes(content[at + _LOG_RECORD.size - 1 : end]))
            if ((found >> 15 | found << 17) + _LOG_MASK) & 0xFFFFFFFF != crc:
                raise StoreDamaged(f"{path}: the record at byte {at} is not as it was written")
            at = end


def _rows_per_page(dtype: np.dtype) -> int:
    return 1 << (STORED_BYTES // dtype.itemsize).bit_length() - 1


def _key(pool_id: str, table: str, page: int) -> bytes:
    return b"%b\0%b\0%b" % (pool_id.encode(), table.encode(), _NUMBER.pack(page))  # ids are printable: no NUL in them


def _sealed(key: bytes, content: bytes) -> bytes:
    return _CRC.pack(zlib.crc32(content, zlib.crc32(key))) + content


def _unsealed(key: bytes, value: bytes) -> memoryview:
    content = memoryview(value)[_CRC.size :]
    if len(value) < _CRC.size or _CRC.unpack_from(value)[0] != zlib.crc32(content, zlib.crc32(key)):
        raise StoreDamaged(f"checksum of {_shown(key)}")
    return content


def _shown(key: bytes) -> str:
    if key == _META:
        return "the cursor"
    pool, table, page = key.split(b"\0", 2)
    return f"pool {pool.decode()}, table {table.decode()}, page {_NUMBER.unpack(page)[0]}"


def _named(error: Exception, directory: Path) -> Exception:
    """Tell RocksDB's errors apart; it has one class for them all, and says in words what is wrong."""
    text = str(error)
    if isinstance(error, StoreDamaged | StoreForeign | StoreInUse | StoreFull | NewerLayout):
        return type(error)(text if str(directory) in text else f"{directory}: {text}")
    if isinstance(error, OSError):
        return StoreFull(f"{directory}: {text}")
    if type(error) is not Exception and not isinstance(error, ValueError | KeyError):
        return error
    if "LOCK" in text:
        return StoreInUse(f"{directory}: {text}")
    if "IO error" in text and "No such file" not in text:
        return StoreFull(f"{directory}: {text}")
    return StoreDamaged(f"{directory}: {text}")
