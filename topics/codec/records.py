"""Records of one partition as columns: where in a buffer each key, value and headers are. No Python object per record.

`Records` are what a fetch gave (streams/kafka/record_batches.py), or a slice of that. `join` puts the values of several into
one buffer, in the order they are to be applied, as the scanner (scan.py) reads them. A single `Record` is made only when
a caller takes one out.

Owner of a buffer: all `Records` that point into it; nobody writes to it.
Not here: fetching, Kafka's record batches, what a value says (decode.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

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
        ("headers_at", "<i8"),  # where their count stands, then each as Kafka writes it; 0 = there are none
        ("key_size", "<i4"),
        ("value_size", "<i4"),
    ]
)


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
    content, found = memoryview(buffer.data), []
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
    found: dict[bytes | None, Any] = {}
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
