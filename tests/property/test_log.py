"""The reader of Kafka's log format against aiokafka's, over generated and damaged responses; joining against plain Python."""

import random

import numpy as np
import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from streams.kafka.record_batches import read_batches
from topics.codec.records import Record, Records, join
from topics.events import MAX_VALUE_BYTES

COMPRESSIONS = (0, 1, 2, 3, 4)  # none, gzip, snappy, lz4, zstd
TEXTS = (None, b"", b"k", b"uk", b"x" * 70, b"y" * 300, b"\xff\0" * 40)
HEADERS = ([], [], [], [("traceparent", b"00-1-2-01")], [("a", None), ("b", b""), ("c" * 90, b"d" * 200)])


def batch(first, records, compression=0, producer=-1, transactional=False, append_time=None, control=None):
    """One record batch as a broker keeps it; `records` are (delta of the offset, timestamp, key, value, headers)."""
    builder = DefaultRecordBatchBuilder(2, compression, transactional, producer, 0, 0, 1 << 22)
    for record in records:
        assert builder.append(*record) is not None
    written = bytearray(builder.build())
    written[0:8] = first.to_bytes(8, "big")
    attributes = int.from_bytes(written[21:23], "big")
    if append_time is not None:
        attributes |= 0x08
        written[35:43] = append_time.to_bytes(8, "big")
    if control is not None:
        attributes |= 0x30
    written[21:23] = attributes.to_bytes(2, "big")
    written[17:21] = calc_crc32c(bytes(written[21:])).to_bytes(4, "big")
    return bytes(written)


def response(rng):
    """A fetch response, and the aborted transactions a broker names with it."""
    parts, aborted, at, open_since = [], [], rng.randrange(100), {}
    for _ in range(rng.randrange(1, 12)):
        if open_since and rng.random() < 0.3:
            producer = rng.choice(sorted(open_since))
            kind = rng.choice([0, 1])
            first = open_since.pop(producer)
            if kind == 0:
                aborted.append((producer, first))
            marker = (0, 5, b"\0\0" + kind.to_bytes(2, "big"), b"\0\0\0\0\0\0", [])
            parts.append(batch(at, [marker], producer=producer, transactional=True, control=kind))
            at += 1
            continue
        count = rng.choice([1, 1, 2, 30])
        deltas = sorted(rng.sample(range(2 * count), count))  # compaction leaves gaps
        records = [
            (delta, 1_000_000 + rng.randrange(-500, 500), rng.choice(TEXTS), rng.choice(TEXTS), rng.choice(HEADERS))
            for delta in deltas
        ]
        transactional = rng.random() < 0.5
        producer = rng.randrange(3) if transactional else -1
        if transactional:
            open_since.setdefault(producer, at)
        append_time = rng.choice([None, None, 77])
        parts.append(batch(at, records, rng.choice(COMPRESSIONS), producer, transactional, append_time))
        at += deltas[-1] + 1 + rng.choice([0, 0, 5])
    return b"".join(parts), aborted


def as_aiokafka_reads(content, start, aborted):
    source = PartitionRecords(
        TopicPartition("a", 0), MemoryRecords(content), list(aborted), start, None, None, True, READ_COMMITTED
    )
    records = [Record(each.offset, each.timestamp, each.key, each.value, list(each.headers)) for each in source]
    return records, source.next_fetch_offset


@pytest.mark.parametrize("seed", range(8))
def test_a_response_reads_as_aiokafka_reads_it(seed):
    rng = random.Random(seed)
    for _ in range(40):
        content, aborted = response(rng)
        first = int.from_bytes(content[:8], "big")
        for start in (first, first + rng.randrange(1 + int.from_bytes(content[23:27], "big"))):
            found, end = read_batches(content, start, aborted)
            assert (list(found), end) == as_aiokafka_reads(content, start, aborted)


def test_a_batch_that_is_cut_off_is_left_for_the_next_fetch():
    whole, cut = batch(3, [(0, 5, b"k", b"v", [])]), batch(4, [(0, 5, b"k", b"w", [])])
    for size in range(len(cut)):
        found, end = read_batches(whole + cut[:size], 3)
        assert ([record.value for record in found], end) == ([b"v"], 4)


def test_records_of_before_kafka_0_11_are_read_too():
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    for offset in range(3):
        builder.append(offset, 9, b"k", b"%d" % offset)
    found, end = read_batches(bytes(builder.build()), 1)
    assert ([(record.offset, record.timestamp, record.key, record.value) for record in found], end) == (
        [(1, 9, b"k", b"1"), (2, 9, b"k", b"2")],
        3,
    )


@pytest.mark.parametrize("mend", [True, False], ids=["checksum mended", "checksum as it was"])
def test_damage_is_an_error_and_never_a_place_outside_the_buffer(mend):
    rng = random.Random(f"damage {mend}")
    outcomes = {"read": 0, "refused": 0}
    for _ in range(3_000):
        content = bytearray(batch(3, [(i, 5, b"key", b"value" * i, HEADERS[-1]) for i in range(5)]))
        for _ in range(rng.choice([1, 1, 3])):
            content[rng.randrange(61 if mend else 17, len(content))] = rng.randrange(256)
        if mend:
            content[17:21] = calc_crc32c(bytes(content[21:])).to_bytes(4, "big")
        try:
            found, _ = read_batches(bytes(content), 0)
        except CorruptRecordException:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        rows = found.rows
        for name in ("key", "value"):
            ends = rows[f"{name}_at"] + np.maximum(rows[f"{name}_size"], 0)
            assert (rows[f"{name}_at"] >= 0).all()
            assert (ends <= found.buffer.size).all()
        list(found)  # headers too
    assert outcomes["refused"] > 50
    assert mend == (outcomes["read"] > 500)


def test_a_count_that_is_too_large_is_refused():
    content = bytearray(batch(3, [(0, 5, b"k", b"v", [])]))
    content[57:61] = (2_000_000_000).to_bytes(4, "big")
    content[17:21] = calc_crc32c(bytes(content[21:])).to_bytes(4, "big")
    with pytest.raises(CorruptRecordException, match="batch of offset 3: its records are not as the format says"):
        read_batches(bytes(content), 0)


@pytest.mark.parametrize("seed", range(20))
def test_joined_records_are_in_the_order_given_and_grouped_by_key(seed):
    rng = random.Random(seed)
    keys = [*TEXTS[: rng.randrange(1, 8)], *(b"pool-%d" % i for i in range(rng.choice([0, 0, 300])))]
    chunks = [
        [Record(i, rng.randrange(99), rng.choice(keys), rng.choice(TEXTS), rng.choice(HEADERS)) for i in range(size)]
        for size in rng.choices([1, 2, 50, 400], k=rng.randrange(1, 5))
    ]
    together = [record for chunk in chunks for record in chunk]
    order = np.array(rng.sample(range(len(together)), len(together))) if rng.random() < 0.7 else None
    expected = together if order is None else [together[i] for i in order]
    joined = join([Records.of(chunk) for chunk in chunks], order)
    assert [joined.record(i) for i in range(len(joined))] == expected
    content = joined.buffer.tobytes()
    assert [content[start:end] for start, end in zip(joined.starts, joined.ends, strict=True)] == [
        record.value or b"" for record in expected
    ]
    assert {content[end] for end in joined.ends} == {0}
    assert list(joined) == [record.value for record in expected]
    groups = {}
    for i, record in enumerate(expected):
        groups.setdefault(record.key, []).append(i)
    assert {key: rows.tolist() for key, rows in joined.groups.items()} == groups
    assert list(joined.groups) == list(groups)
    assert joined.with_headers() == [i for i, record in enumerate(expected) if record.headers]


def test_a_value_too_large_to_be_good_takes_no_place():
    joined = join([Records.of([Record(0, 0, b"k", b"x" * (MAX_VALUE_BYTES + 1), []), Record(1, 0, b"k", b"y", [])])])
    assert (joined.ends - joined.starts).tolist() == [0, 1]
    assert len(joined[0]) == MAX_VALUE_BYTES + 1


def test_nothing_joined_is_nothing():
    joined = join([])
    assert (len(joined), joined.groups) == (0, {})


def test_records_are_cut_by_offset_number_and_bytes():
    records = Records.of(Record(offset, 0, None, b"x" * size, []) for offset, size in ((3, 5), (5, 7), (9, 1)))
    assert [record.offset for record in records.at_least(4)] == [5, 9]
    assert [len(records.at_least(offset)) for offset in (0, 3, 9, 10)] == [3, 3, 1, 0]
    assert [records.fitting(size) for size in (4, 5, 12, 13, 99)] == [0, 1, 2, 3, 3]
    assert records[:2].value_bytes == 12
    assert records[-1].offset == 9
