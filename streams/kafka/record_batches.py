"""A fetch response's bytes to `Records`: the record batches of Kafka's log format version 2 [1], as the broker sent them.

Owner: the transport. A kernel reads the batches; no Python object is made per record.
Invariants: a batch is taken whole or not at all; what an aborted transaction wrote, and markers, leave no row; every place and
size of a row lies within the buffer, whatever the bytes say.
Not here: fetching (transport.py), what becomes of the records (topics/codec/records.py).

[1] https://kafka.apache.org/documentation/#recordbatch
"""

import struct
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
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


def warm() -> None:
    """Compile the reader's kernel, or load it from numba's cache, before the first fetch comes."""
    _scanned(np.frombuffer(b"\0", np.uint8), [], 0)
