"""The record batches of Kafka's log format version 2 [1]: a fetch response's bytes to `Records`, and `Messages` to batches.

Owner: the transport reads, a direct producer writes (direct.py). Kernels do both; no Python object is made per record.
Invariants: a batch is taken whole or not at all; what an aborted transaction wrote, and markers, leave no row; every place and
size of a row lies within the buffer, whatever the bytes say.
Not here: fetching (transport.py), sending (direct.py), what becomes of the records (topics/codec/records.py).

[1] https://kafka.apache.org/documentation/#recordbatch
"""

import struct
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import google_crc32c
import numpy as np
from aiokafka.codec import (
    gzip_decode,
    gzip_encode,
    lz4_decode,
    lz4_encode,
    snappy_decode,
    snappy_encode,
    zstd_decode,
    zstd_encode,
)
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from topics.codec.records import NONE, ROW, Records
from topics.compiled.kernels import forced_inline, kernel

# Base offset, length, leader epoch, magic, CRC, attributes, last offset's delta, first and last timestamp, producer id and
# epoch, base sequence, records.
_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH_END, _CRC_END, _MAGIC_AT = 12, 21, 16
_COMPRESSION, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_DECODERS: tuple[Callable[[Any], bytes], ...] = (bytes, gzip_decode, snappy_decode, lz4_decode, zstd_decode)
_SHORTEST_RECORD = 7  # bytes
_ABORT = b"\0\0\0\0"  # a control record's key: version, type
_BATCH = np.dtype([(name, "<i8") for name in ("at", "end", "count", "offset", "timestamp", "append_time")])


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


# What a record needs beyond its key and value: the varints of its length, offset and sizes, and a byte each for the attributes,
# the time and the count of headers.
_MOST_EXTRA = 5 + 5 + 5 + 5 + 3
# Below a broker's default limit of a batch, 1 MiB.
_BATCH_BYTES = 900_000
_ENCODERS: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "none": (0, bytes),
    "gzip": (1, gzip_encode),
    "snappy": (2, snappy_encode),
    "lz4": (3, partial(lz4_encode, level=1)),  # the default, 9, is nine times slower
    "zstd": (4, zstd_encode),
}


class BatchWriter:
    """Records of one producer, on their way into record batches of a transaction.

    Parameters
    ----------
    compression : str
        ``none``, ``gzip``, ``snappy``, ``lz4`` or ``zstd``.
    """

    def __init__(self, compression: str):
        self._codec, self._compress = _ENCODERS[compression]
        self._full: dict[str, list[tuple[bytes, int]]] = {}  # topic → records of whole batches, and how many
        self._filling: dict[str, tuple[np.ndarray, int, int]] = {}  # topic → buffer, bytes used, records

    def add(self, topic: str, key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> None:
        """Append a record that may have headers."""
        body = bytearray(b"\0\0")
        buffer, at, count = self._filling.pop(topic, (np.zeros(0, np.uint8), 0, 0))
        if at and at + len(key or b"") + len(value or b"") > _BATCH_BYTES:
            self._finish(topic, buffer, at, count)
            at = count = 0
        body += _varint(count)
        for each in (key, value):
            body += _varint(NONE if each is None else len(each)) + (each or b"")
        pairs = list(headers)
        body += _varint(len(pairs))
        for name, each in pairs:
            body += _varint(len(name.encode())) + name.encode() + _varint(NONE if each is None else len(each)) + (each or b"")
        record = np.frombuffer(_varint(len(body)) + body, np.uint8)
        self._filling[topic] = (np.concatenate([buffer[:at], record]), at + record.size, count + 1)

    def add_block(self, topic: str, buffer: np.ndarray, spans: np.ndarray) -> None:
        """Append records that lie in a buffer.

        Parameters
        ----------
        topic : str
        buffer : uint8[]
        spans : int64[n, 3]
            Where each one's key begins (-1: none), its value begins (-1: none), and it ends.
        """
        done = 0
        while done < len(spans):
            out, at, count = self._filling.pop(topic, (np.zeros(0, np.uint8), 0, 0))
            starts = np.where(spans[done:, 0] < 0, spans[done:, 1], spans[done:, 0])
            sizes = np.cumsum(np.where(starts < 0, 0, spans[done:, 2] - starts) + _MOST_EXTRA)
            room = max(_BATCH_BYTES - at, 0 if at else int(sizes[0]))
            n = int(np.searchsorted(sizes, room, side="right"))
            if n == 0:
                self._finish(topic, out, at, count)
                continue
            if out.size < at + sizes[n - 1]:
                out = np.concatenate([out[:at], np.empty(int(sizes[n - 1]), np.uint8)])
            at = _write(buffer, spans[done : done + n], count, out, at)
            self._filling[topic] = (out, at, count + n)
            done += n

    def take(self) -> dict[str, list[tuple[bytes, int]]]:
        """Give what was added, per topic as records of batches and their counts, and forget it."""
        for topic, each in self._filling.items():
            self._finish(topic, *each)
        found, self._full, self._filling = self._full, {}, {}
        return found

    def seal(self, records: bytes, count: int, producer_id: int, epoch: int, sequence: int) -> bytes:
        """Make a batch of records."""
        content, now = self._compress(records), int(time.time() * 1000)
        attributes = self._codec | _TRANSACTIONAL
        header = bytearray(_HEADER.size)
        length = _HEADER.size - _LENGTH_END + len(content)
        _HEADER.pack_into(
            header, 0, 0, length, -1, 2, 0, attributes, count - 1, now, now, producer_id, epoch, sequence, count
        )  # fmt: skip
        crc = google_crc32c.extend(google_crc32c.value(bytes(header[_CRC_END:])), content)
        header[_CRC_END - 4 : _CRC_END] = crc.to_bytes(4, "big")
        return b"".join((header, content))

    def _finish(self, topic: str, buffer: np.ndarray, at: int, count: int) -> None:
        if count:
            self._full.setdefault(topic, []).append((buffer[:at].tobytes(), count))


def _varint(value: int) -> bytes:
    """Write a zigzag varint of up to 64 bits."""
    rest, out = (value << 1) ^ (value >> 63), bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


@forced_inline
def _write_varint(value, out, at):
    """Write a number from -1 on as a zigzag varint; the place after it."""
    rest = np.int64(value * 2 if value >= 0 else 1)
    while rest > 0x7F:
        out[at] = rest & 0x7F | 0x80
        at += 1
        rest >>= 7
    out[at] = rest
    return at + 1


@forced_inline
def _varint_size(value):
    rest = np.int64(value * 2 if value >= 0 else 1)
    size = np.int64(1)
    while rest > 0x7F:
        rest >>= 7
        size += 1
    return size


@kernel
def _write(buffer, spans, first, out, at):
    """Write records without headers, the first one's offset `first` behind the batch's; the place after them."""
    for i in range(spans.shape[0]):
        key, value, end = spans[i, 0], spans[i, 1], spans[i, 2]
        key_size = NONE if key < 0 else (end if value < 0 else value) - key
        value_size = NONE if value < 0 else end - value
        size = (
            3  # attributes, time, count of headers
            + _varint_size(first + i)
            + _varint_size(key_size)
            + max(key_size, 0)
            + _varint_size(value_size)
            + max(value_size, 0)
        )
        at = _write_varint(size, out, at)
        out[at] = 0
        out[at + 1] = 0
        at = _write_varint(first + i, out, at + 2)
        at = _write_varint(key_size, out, at)
        for j in range(key_size):
            out[at + j] = buffer[key + j]
        at += max(key_size, 0)
        at = _write_varint(value_size, out, at)
        for j in range(value_size):
            out[at + j] = buffer[value + j]
        at += max(value_size, 0)
        out[at] = 0
        at += 1
    return at


def warm() -> None:
    """Compile the reader's kernel, or load it from numba's cache, before the first fetch comes."""
    _scanned(np.frombuffer(b"\0", np.uint8), [], 0)
    BatchWriter("none").add_block("", np.zeros(1, np.uint8), np.array([[0, 0, 1]], np.int64))
