"""A producer of the newer protocol: batches it writes, codes it is answered, requests it repeats."""

import socket
import struct
import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from aiokafka.record.memory_records import MemoryRecords
from confluent_kafka import KafkaException
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.schema.end_txn.v5.request import EndTxnRequest
from kio.schema.end_txn.v5.response import EndTxnResponse
from kio.schema.errors import ErrorCode
from kio.schema.types import ProducerId
from kio.static.primitive import i16, i32Timedelta, i64

from streams.kafka import brokers, direct, wire
from streams.kafka.direct import AGAIN, ELSEWHERE, FENCED, HOPELESS, DirectProducer
from streams.kafka.record_batches import BatchWriter, read_batches
from topics.codec.messages import Messages

CONTENT = st.none() | st.binary(max_size=200)
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=9)), max_size=3)
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def written(writer: BatchWriter, topic: str = "t") -> list[Any]:
    """The records that a topic's batches hold, each batch read by us and by aiokafka."""
    found = []
    for records, count in writer.take().get(topic, []):
        batch = writer.seal(records, count, 7, 3, 0)
        ours, end = read_batches(batch, 0)
        assert end == count
        others = MemoryRecords(batch)
        theirs = others.next_batch()
        assert theirs.validate_crc() and theirs.is_transactional and (theirs.producer_id, theirs.producer_epoch) == (7, 3)
        read = [(each.offset, each.key, each.value, tuple(each.headers)) for each in theirs]
        assert read == [(each.offset, each.key, each.value, tuple(each.headers)) for each in ours]
        assert [offset for offset, *_ in read] == list(range(count))
        found += [rest for _, *rest in read]
    return [tuple(each) for each in found]


@settings(deadline=None)  # the first call compiles
@given(
    st.lists(st.lists(st.tuples(CONTENT, CONTENT), max_size=5) | st.tuples(CONTENT, CONTENT, HEADERS), max_size=5),
    st.sampled_from(CODECS),
)
def test_what_is_written_is_read_again(pieces, codec):
    writer, wanted = BatchWriter(codec), []
    for piece in pieces:
        if isinstance(piece, list):
            for buffer, spans in Messages.of([{"key": key, "value": value} for key, value in piece]).blocks:
                writer.add_block("t", buffer, spans)
            wanted += [(key, value, ()) for key, value in piece]
        else:
            key, value, headers = piece
            writer.add("t", key, value, headers)
            wanted.append((key, value, tuple(headers)))
    assert written(writer) == wanted


@pytest.mark.parametrize("sizes", [[400_000] * 7, [3_000_000, 1, 1], [10] * 200_000, [899_000, 2_000], [1, 2_000_000, 1]])
def test_batches_stay_below_a_brokers_limit_unless_one_record_is_larger(sizes):
    rng = np.random.default_rng(1)
    values = [rng.integers(0, 256, size, np.uint8).tobytes() for size in sizes]
    writer = BatchWriter("none")
    for buffer, spans in Messages.of([{"key": b"k", "value": value} for value in values]).blocks:
        writer.add_block("t", buffer, spans)
    batches = writer.take()["t"]
    assert sum(count for _, count in batches) == len(values)
    assert all(len(records) <= 1_000_000 or count == 1 for records, count in batches)
    assert len(batches) <= 2 * (sum(sizes) + 25 * len(sizes)) // 900_000 + 2
    for records, count in batches:
        found, _ = read_batches(writer.seal(records, count, 1, 1, 0), 0)
        assert [each.value for each in found] == values[:count]
        del values[:count]


def test_no_code_means_two_things_and_none_is_unknown():
    kinds = [AGAIN, ELSEWHERE, FENCED, HOPELESS]
    assert sum(map(len, kinds)) == len(set().union(*kinds))
    assert all(isinstance(code, ErrorCode) for kind in kinds for code in kind)


class Scripted:
    """A broker that answers each request with the next of a script: a code, or an exception."""

    features: ClassVar = {wire.TRANSACTION_VERSION: 2}
    script: ClassVar[list[Any]] = []
    asked: ClassVar[list[Any]] = []

    def __init__(self, *_: Any):
        self.closed = False

    def speaks(self, _: Any) -> bool:
        return True

    def call(self, request: Any, response: type, timeout_s: float) -> Any:
        self.asked.append(request)
        found = self.script.pop(0)
        if isinstance(found, Exception):
            raise found
        return EndTxnResponse(
            throttle_time=i32Timedelta.parse(timedelta(0)),
            error_code=found,
            producer_id=ProducerId(i64(5)),
            producer_epoch=i16(9),
        )


@pytest.fixture
def producer(monkeypatch):
    monkeypatch.setattr(brokers, "Connection", Scripted)
    monkeypatch.setattr(direct, "BACKOFF_S", (0.0001,))
    monkeypatch.setattr(Scripted, "asked", [])
    made = DirectProducer("a:1", "id", 0, "group", 10_000, "none", "")
    monkeypatch.setattr(made, "_coordinator", lambda *_: made._brokers.reach(("a", 1), 1))
    made._open = True
    return made


def end(producer, *script):
    Scripted.script = list(script)
    producer.commit_transaction(0.5)
    return Scripted.asked


def test_an_end_is_asked_again_with_the_same_epoch_until_it_is_answered(producer):
    asked = end(producer, ErrorCode.concurrent_transactions, wire.Disconnected("x"), ErrorCode.not_coordinator, ErrorCode.none)
    assert len(asked) == 4 and len({repr(each) for each in asked}) == 1
    assert isinstance(asked[0], EndTxnRequest)
    assert (producer._producer_id, producer._epoch) == (5, 9)


@pytest.mark.parametrize("code", sorted(set(ErrorCode) - AGAIN - ELSEWHERE - FENCED - HOPELESS - {ErrorCode.none}))
def test_any_other_code_is_a_doubt(producer, code):
    with pytest.raises(KafkaException) as raised:
        end(producer, code)
    error = raised.value.args[0]
    assert not error.fatal() and not error.txn_requires_abort() and code.name in error.str()
    with pytest.raises(KafkaException):
        producer.begin_transaction()


@pytest.mark.parametrize("code", sorted(FENCED))
def test_who_is_fenced_knows_it_at_the_first_request_and_doubts_at_a_repeated_one(producer, code):
    with pytest.raises(KafkaException) as raised:
        end(producer, code)
    assert raised.value.args[0].fatal()
    producer._failed = None
    with pytest.raises(KafkaException) as raised:
        end(producer, wire.Disconnected("x"), code)
    assert not raised.value.args[0].fatal()


@pytest.mark.parametrize("code", sorted(HOPELESS))
def test_what_can_never_be_taken_is_to_be_aborted(producer, code):
    with pytest.raises(KafkaException) as raised:
        end(producer, code)
    assert raised.value.args[0].txn_requires_abort()
    Scripted.script = [ErrorCode.none]
    producer.abort_transaction(1)
    assert not Scripted.asked[-1].committed


def test_batches_of_a_topic_are_numbered_on_within_an_epoch(producer, monkeypatch):
    sealed = []
    monkeypatch.setattr(producer._writer, "seal", lambda *given: sealed.append(given[2:]) or b"")
    monkeypatch.setattr(producer, "_ask", lambda where, what, _: what[2](acknowledged("t")))
    for value in (bytes(800_000), bytes(800_000), b"x"):
        producer.produce("t", 0, value, b"k")
    producer.flush(1)
    assert sealed == [(-1, -1, 0), (-1, -1, 1)]


def acknowledged(topic: str) -> SimpleNamespace:
    answer = SimpleNamespace(error_code=ErrorCode.none, error_message=None)
    return SimpleNamespace(responses=[SimpleNamespace(name=topic, partition_responses=[answer])])


def test_no_answer_in_time_is_a_doubt(producer):
    Scripted.script = [wire.Disconnected("gone")] * 100_000
    with pytest.raises(KafkaException, match="gone"):
        producer.commit_transaction(0.05)


def test_a_transaction_that_the_broker_has_not_heard_of_is_not_ended(producer):
    producer._open = False
    assert end(producer) == []


@pytest.mark.parametrize("answer", [b"", b"\xff\xff\xff\xff", struct.pack(">ii", 4, 99), struct.pack(">i", 6) + bytes(6)])
def test_an_answer_that_is_none_closes_the_connection(answer):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(answer)
        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    with pytest.raises(wire.Disconnected, match=r"127\.0\.0\.1"):
        wire.Connection("127.0.0.1", listener.getsockname()[1], "test", 2.0)
    listener.close()
