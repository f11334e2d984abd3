"""Fetched bytes to columns: where in a buffer each record's key, value and headers are. No Python object per record.

`read_batches` walks a fetch response, the record batches of Kafka's log format version 2 [1], as the broker sent it. `Records`
are what it found, or a slice of that. `join` puts the values of several into one buffer, in the order they are to be applied,
as the scanner (scan.py) wants them. A single `Record` is only made where somebody asks for one.

Owner of a buffer: all `Records` that point into it; nobody writes to it.
Invariants: a batch is taken whole or not at all; what an aborted transaction wrote, and markers, leave no row; every place and
size of a row lies within the buffer, whatever the bytes say.
Not here: fetching (streams/kafka/transport.py), what a value says (decode.py).

[1] https://kafka.apache.org/documentation/#recordbatch
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from topics.codec.grammar import PADDING
from topics.codec.put import copy
from topics.compiled.kernels import forced_inline, kernel
from topics.events import MAX_VALUE_BYTES

NONE = -1
"""Size of a key or value that is null."""
ROW = np.dtype(
    [
        ("offset", "<i8"),
        ("timestamp", "<i8"),  # epoch ms
        ("key_at", "<i8"),
        ("value_at", "<i8"),
        ("headers_at", "<i8"),  # where their count stands; 0 = there are none
        ("key_size", "<i4"),
        ("value_size", "<i4"),
    ]
)
# Base offset, length, leader epoch, magic, CRC, attributes, last offset's delta, first and last timestamp, producer id and
# epoch, base sequence, records.
_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH_END, _CRC_END, _MAGIC_AT = 12, 21, 16
_COMPRESSION, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_DECODERS: tuple[Callable[[Any], bytes], ...] = (bytes, gzip_decode, snappy_decode, lz4_decode, zstd_decode)
_SHORTEST_RECORD = 7  # bytes
_ABORT = b"\0\0\0\0"  # a control record's key: version, type
_BATCH = np.dtype([(name, "<i8") for name in ("at", "end", "count", "offset", "timestamp", "append_time")])


class Record(NamedTuple):
    """One record, unpacked."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Records:
    """Records of one partition in the order of the log.

    Attributes
    ----------
    buffer : uint8[], read-only
    rows : ROW[n]
    """

    __slots__ = ("buffer", "rows")

    def __init__(self, buffer: np.ndarray, rows: np.ndarray):
        self.buffer, self.rows = buffer, rows

    @classmethod
    def of(cls, records: Iterable[Any]) -> "Records":
        """Make them of objects with a `Record`'s attributes."""
        records = list(records)
        rows, parts, at = np.zeros(len(records), ROW), [b"\0"], 1
        for row, record in zip(rows, records, strict=True):
            row["offset"], row["timestamp"] = record.offset, record.timestamp
            for name, content in (("key", record.key), ("value", record.value)):
                row[f"{name}_at"], row[f"{name}_size"] = at, NONE if content is None else len(content)
                parts.append(content or b"")
                at += len(parts[-1])
            if record.headers:
                row["headers_at"] = at
                parts.append(_written(record.headers))
                at += len(parts[-1])
        return cls(np.frombuffer(b"".join(parts), np.uint8), rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: int | slice) -> Any:
        """Give one `Record`, or some `Records`."""
        if isinstance(which, slice):
            return Records(self.buffer, self.rows[which])
        return _unpacked(self.buffer, self.rows[which])

    def __iter__(self) -> Iterator[Record]:
        return (_unpacked(self.buffer, row) for row in self.rows)

    @property
    def value_bytes(self) -> int:
        return int(np.maximum(self.rows["value_size"], 0).sum())

    def at_least(self, offset: int) -> "Records":
        """Give those from `offset` on."""
        return self[int(np.searchsorted(self.rows["offset"], offset)) :]

    def fitting(self, size_bytes: int) -> int:
        """Count the leading records whose values are that many bytes at most."""
        return int(np.searchsorted(np.cumsum(np.maximum(self.rows["value_size"], 0, dtype=np.int64)), size_bytes, "right"))


def _unpacked(buffer: np.ndarray, row: np.void) -> Record:
    offset, timestamp, key_at, value_at, headers_at, key_size, value_size = row.item()
    key = None if key_size == NONE else buffer[key_at : key_at + key_size].tobytes()
    value = None if value_size == NONE else buffer[value_at : value_at + value_size].tobytes()
    return Record(offset, timestamp, key, value, _headers(buffer, headers_at) if headers_at else [])


def _headers(buffer: np.ndarray, at: int) -> list[tuple[str, bytes | None]]:
    """Read headers; none if they can't be read: the broker doesn't look at them either."""
    content, found = memoryview(buffer), []
    try:
        count, at = _integer(content, at)
        for _ in range(count):
            size, at = _integer(content, at)
            name, at = bytes(content[at : at + size]).decode(errors="replace"), at + size
            size, at = _integer(content, at)
            found.append((name, None if size < 0 else bytes(content[at : at + size])))
            at += max(size, 0)
    except IndexError:
        return []
    return found


def _integer(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at


def _varint(value: int) -> bytes:
    value, out = (value << 1) ^ (value >> 63), bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _written(headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    parts = [_varint(len(headers))]
    for name, content in headers:
        encoded = name.encode()
        parts += [_varint(len(encoded)), encoded, _varint(NONE if content is None else len(content)), content or b""]
    return b"".join(parts)


# Reading


def read_batches(content: bytes, start: int, aborted: Iterable[tuple[int, int]] = ()) -> tuple[Records, int]:
    """Read a fetch response's records of one partition.

    Parameters
    ----------
    content : bytes
        Whole record batches; the last may be cut off, and is then left out.
    start : int
        The offset fetched from: what lies below, in a batch that began before it, is left out.
    aborted : iterable of (producer id, first offset)
        The aborted transactions the broker named with it.

    Returns
    -------
    Records, int
        And the offset to fetch on from.

    Raises
    ------
    aiokafka.errors.CorruptRecordException
        A checksum is wrong, or a batch is not as the format says.
    """
    waiting, dead = sorted(aborted, key=lambda each: each[1], reverse=True), set()
    parts: list[Any] = []  # what is decompressed; empty as long as nothing was
    batches, at, next_offset = [], 0, start
    view = memoryview(content)
    while at + _HEADER.size <= len(content):
        base, length, _, magic, crc, attributes, last, first_time, last_time, producer, _, _, count = _HEADER.unpack_from(
            content, at
        )
        begin, end = at + _HEADER.size, at + _LENGTH_END + length
        if magic < 2:
            return _read_old(content, start)
        if end > len(content):
            break
        if end < begin or calc_crc32c(view[at + _CRC_END : end]) != crc:
            raise CorruptRecordException(f"batch of offset {base}: its checksum is wrong")
        at = end
        while waiting and waiting[-1][1] <= base:
            dead.add(waiting.pop()[0])
        next_offset = max(next_offset, base + last + 1)
        if attributes & _CONTROL:
            if _is_abort(content[begin:end], count):
                dead.discard(producer)
        elif not (attributes & _TRANSACTIONAL and producer in dead):
            batches.append((begin, end, count, base, first_time, last_time if attributes & _APPEND_TIME else -1, attributes))
    if any(batch[-1] & _COMPRESSION for batch in batches):
        buffer, places, size = b"", [], 0
        for begin, end, *_, attributes in batches:
            parts.append(_DECODERS[min(attributes & _COMPRESSION, 4)](view[begin:end]))
            places.append((size, size + len(parts[-1])))
            size += len(parts[-1])
        buffer = b"".join(parts)
        batches = [(*place, *batch[2:]) for place, batch in zip(places, batches, strict=True)]
    else:
        buffer = content
    return _scanned(np.frombuffer(buffer, np.uint8), batches, start), next_offset


def _scanned(buffer: np.ndarray, batches: list[tuple], lowest: int) -> Records:
    table = np.array([batch[:6] for batch in batches], np.int64).reshape(len(batches), 6).view(_BATCH).ravel()
    sizes = (table["end"] - table["at"]) // _SHORTEST_RECORD
    rows = np.zeros(int(np.minimum(table["count"], sizes).clip(0).sum()), ROW)
    count = _scan(buffer, table, lowest, rows)
    if count < 0:
        raise CorruptRecordException(f"batch of offset {table['offset'][-1 - count]}: its records are not as the format says")
    return Records(buffer, rows[:count])


def _is_abort(content: bytes, count: int) -> bool:
    (record,) = _scanned(np.frombuffer(content, np.uint8), [(0, len(content), min(count, 1), 0, 0, -1)], 0)
    return record.key is not None and record.key[:4] == _ABORT


def _read_old(content: bytes, start: int) -> tuple[Records, int]:
    """Read what was written before Kafka 0.11 by aiokafka's parser."""
    records, found, end = MemoryRecords(content), [], start
    while records.has_next():
        batch = records.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"after offset {end}: a checksum is wrong")
        for record in batch:
            if record.offset >= start:
                found.append(record)
            end = max(end, record.offset + 1)
    return Records.of(found), end


@forced_inline
def _read_varint(buffer, at, end):
    """Read a zigzag varint; the place after it, or -1 if it does not end in time."""
    value = np.int64(0)
    shift = np.int64(0)
    while at < end and shift < 70:
        byte = np.int64(buffer[at])
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            # As an unsigned number: zigzag's last bit is the sign.
            return np.int64(np.uint64(value) >> np.uint64(1)) ^ -(value & 1), at
        shift += 7
    return np.int64(0), np.int64(-1)


@forced_inline
def _read_span(buffer, at, end):
    """Read a size and skip so many bytes: (size, their place, the place after them), or -1 as the last if they do not fit."""
    size, at = _read_varint(buffer, at, end)
    if at < 0 or size < NONE or size > end - at:
        return np.int64(0), np.int64(0), np.int64(-1)
    return size, at, at + max(size, 0)


@kernel
def _scan(buffer, batches, lowest, rows_out):
    """Fill rows from all batches; returns their number, or -1 - i where batch i is no such."""
    n = np.int64(0)
    for i in range(batches.size):
        batch = batches[i]
        at = batch.at
        for _ in range(batch.count):
            length, at = _read_varint(buffer, at, batch.end)
            if at < 0 or length < 0 or length > batch.end - at or n >= rows_out.size:
                return -1 - i
            end = at + length
            row = rows_out[n]
            delta, at = _read_varint(buffer, at + 1, end)  # behind the attributes
            if at < 0:
                return -1 - i
            row.timestamp = batch.append_time if batch.append_time >= 0 else batch.timestamp + delta
            delta, at = _read_varint(buffer, at, end)
            if at < 0:
                return -1 - i
            row.offset = batch.offset + delta
            row.key_size, row.key_at, at = _read_span(buffer, at, end)
            if at < 0:
                return -1 - i
            row.value_size, row.value_at, at = _read_span(buffer, at, end)
            if at < 0:
                return -1 - i
            headers_at = at
            count, at = _read_varint(buffer, at, end)
            if at < 0:
                return -1 - i
            row.headers_at = headers_at if count > 0 else 0
            at = end
            n += row.offset >= lowest
    return n


# Joining


@dataclass(slots=True)
class Joined:
    """Records in the order they are to be applied; as a sequence, their values.

    Attributes
    ----------
    buffer : uint8[], read-only
        The values, each with a zero byte behind it; nothing in the place of one that is null or too large.
    starts, ends : int64[n]
        Where each value begins and ends.
    rows : ROW[n]
        As they were; their places are those in the record's own buffer.
    groups : dict of key to int64[]
        The rows that have the key, in order; keys by first appearance.
    """

    buffer: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    rows: np.ndarray
    groups: dict[bytes | None, np.ndarray]
    _chunks: list[Records]
    _chunk_of: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> bytes | None:
        return self.record(i).value

    def record(self, i: int) -> Record:
        return _unpacked(self._chunks[self._chunk_of[i]].buffer, self.rows[i])

    def with_headers(self) -> list[int]:
        """Give the numbers of the records that have headers."""
        return np.flatnonzero(self.rows["headers_at"]).tolist()


def join(chunks: list[Records], order: np.ndarray | None = None) -> Joined:
    """Put records one behind the other, or in another order: the i-th is then the `order[i]`-th of all.

    Raises
    ------
    ValueError
        If the values don't fit into 1 GiB.
    """
    rows = np.concatenate([chunk.rows for chunk in chunks]) if chunks else np.zeros(0, ROW)
    chunk_of = np.repeat(np.arange(len(chunks)), [len(chunk) for chunk in chunks])
    if order is not None:
        rows, chunk_of = rows[order], chunk_of[order]
    sizes = rows["value_size"].astype(np.int64)
    sizes[(sizes < 0) | (sizes > MAX_VALUE_BYTES)] = 0
    ends = np.cumsum(sizes + 1) - 1
    starts = ends - sizes
    total = int(sizes.sum()) + len(rows) + PADDING
    if total >= 1 << 30:  # the models' texts may add as much again
        raise ValueError(f"batch of {total} bytes: expected less than 1 GiB; lower the batch's limit of bytes")
    key_ends = np.cumsum(np.maximum(rows["key_size"], 0, dtype=np.int64))
    out, keys = np.empty(total, np.uint8), np.empty(int(key_ends[-1]) if len(rows) else 0, np.uint8)
    out[total - PADDING :] = 0
    for number, chunk in enumerate(chunks):
        places = np.arange(len(rows)) if len(chunks) == 1 else np.flatnonzero(chunk_of == number)
        _gather(chunk.buffer, rows, places, starts, ends, key_ends, out, keys)
    out.flags.writeable = False
    return Joined(out, starts, ends, rows, _grouped(keys, key_ends, rows), chunks, chunk_of)


def _grouped(keys: np.ndarray, key_ends: np.ndarray, rows: np.ndarray) -> dict[bytes | None, np.ndarray]:
    codes, firsts = np.empty(len(rows), np.int32), np.empty(len(rows), np.int64)
    count = _group(keys, key_ends, rows, np.full(2 << len(rows).bit_length(), -1, np.int32), codes, firsts)
    found = {}
    for first in firsts[:count].tolist():
        size, end = int(rows["key_size"][first]), int(key_ends[first])
        found[None if size == NONE else keys[end - size : end].tobytes()] = None
    if count == 1:
        return {key: np.arange(len(rows)) for key in found}
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes, minlength=count))[:-1]) if count else []
    return dict(zip(found, members, strict=True))


@kernel
def _gather(buffer, rows, places, starts, ends, key_ends, values_out, keys_out):
    """Copy the values and keys of the rows at `places`, whose bytes are in `buffer`, to where they belong."""
    for i in range(places.size):
        place = places[i]
        row = rows[place]
        copy(values_out, starts[place], buffer, row.value_at, ends[place] - starts[place])
        values_out[ends[place]] = 0
        if row.key_size > 0:
            copy(keys_out, key_ends[place] - row.key_size, buffer, row.key_at, np.int64(row.key_size))


@forced_inline
def _same_key(keys, key_ends, rows, one, other):
    size = rows[one].key_size
    if rows[other].key_size != size:
        return False
    at = key_ends[one] - max(size, 0)
    distance = key_ends[other] - key_ends[one]
    for i in range(at, key_ends[one]):  # noqa: SIM110 (numba compiles no generator here)
        if keys[i] != keys[i + distance]:
            return False
    return True


@kernel
def _group(keys, key_ends, rows, table, codes_out, firsts_out):
    """Number the keys by first appearance; `table` (int32, a power of two above twice the rows, all -1) is scratch."""
    count = 0
    mask = table.size - 1
    for i in range(rows.size):
        if i and _same_key(keys, key_ends, rows, i - 1, i):
            codes_out[i] = codes_out[i - 1]
            continue
        # FNV-1a: http://www.isthe.com/chongo/tech/comp/fnv/
        hashed = np.uint64(0xCBF29CE484222325)
        for at in range(key_ends[i] - max(rows[i].key_size, 0), key_ends[i]):
            hashed = (hashed ^ np.uint64(keys[at])) * np.uint64(0x100000001B3)
        slot = np.int64(hashed >> np.uint64(32)) & mask
        while table[slot] >= 0 and not _same_key(keys, key_ends, rows, firsts_out[table[slot]], i):
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot] = count
            firsts_out[count] = i
            count += 1
        codes_out[i] = table[slot]
    return count


def warm() -> None:
    """Compile the reader's kernel, or load it from numba's cache, before the first fetch comes."""
    _scanned(np.frombuffer(b"\0", np.uint8), [], 0)
