"""The model broker as a direct producer reaches it: in the place and the shape of streams/kafka/wire.py's `Connection`.

A request travels by itself: it may take effect though the connection is lost, and after it. Answers are the protocol's own.
Not here: what the broker does (kafka.py), librdkafka's side (clients.py).
"""

import struct
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaException
from kio.schema.end_txn.v5.request import EndTxnRequest
from kio.schema.end_txn.v5.response import EndTxnResponse
from kio.schema.errors import ErrorCode
from kio.schema.fetch.v12.request import FetchRequest
from kio.schema.find_coordinator.v4.request import FindCoordinatorRequest
from kio.schema.find_coordinator.v4.response import Coordinator, FindCoordinatorResponse
from kio.schema.init_producer_id.v5.request import InitProducerIdRequest
from kio.schema.init_producer_id.v5.response import InitProducerIdResponse
from kio.schema.metadata.v12.request import MetadataRequest
from kio.schema.metadata.v12.response import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from kio.schema.produce.v12.request import ProduceRequest
from kio.schema.produce.v12.response import (
    LeaderIdAndEpoch,
    PartitionProduceResponse,
    ProduceResponse,
    TopicProduceResponse,
)
from kio.schema.txn_offset_commit.v5.request import TxnOffsetCommitRequest
from kio.schema.txn_offset_commit.v5.response import (
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)
from kio.schema.types import BrokerId, ProducerId
from kio.static.primitive import i16, i32, i32Timedelta, i64

from streams.kafka.record_batches import read_batches as _really_read
from streams.kafka.wire import TRANSACTION_VERSION, Disconnected
from tests.simulation import scheduler as simulated
from tests.simulation.clients import World
from tests.simulation.kafka import Concurrent
from topics.codec.records import Records

_BROKER, _HOST, _PORT = BrokerId(0), "model", i32(9092)
_ID = ProducerId(i64(1))
_AT_ONCE = i32Timedelta.parse(timedelta(0))
_SEQUENCE = struct.Struct(">i")
_SEQUENCE_AT, _EPOCH_AT = 53, 51


class Connection:
    """A connection to the model's one broker."""

    def __init__(self, host: str, port: int, client_id: str, timeout_s: float):
        self.features = {TRANSACTION_VERSION: 2}
        self._name = client_id
        self.closed = False
        simulated.current().sleep(_delay())
        if not World.cluster.up:
            self.closed = True
            raise Disconnected("simulated: refused")

    def speaks(self, request: Any) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    def call(self, request: Any, response: type, timeout_s: float) -> Any:
        scheduler, cluster, faults, me = simulated.current(), World.cluster, World.faults, simulated.current().me()
        scheduler.point()
        if self.closed:
            raise Disconnected("simulated: closed")
        kind, handle = _HANDLERS[type(request)]
        fate = faults.fate(kind(request))
        answers: list[Any] = []
        answered: list[bool] = []

        def arrive() -> None:
            if not cluster.up:
                return
            if isinstance(request, FetchRequest) and not _has_news(request):  # it waits for records
                for topic in request.topics:
                    cluster.watch(topic.topic, partial(moved, topic.topic))
                scheduler.at(request.max_wait.total_seconds(), respond)
            else:
                respond()

        def moved(topic: str) -> None:
            if _has_news(request):
                respond()
            elif not answered:
                cluster.watch(topic, partial(moved, topic))

        def respond() -> None:
            if answered or not cluster.up:
                return
            answered.append(True)
            answer = handle(self._name, request)
            if fate not in ("unanswered", "late", "stuck"):
                scheduler.at(_delay(), lambda: (answers.append(answer), scheduler.wake(*me)))

        if fate == "abortable":
            scheduler.sleep(_delay())
            return _answer(request, ErrorCode.unknown_server_error)
        if fate != "lost":
            scheduler.at(_delay() + (timeout_s * cluster.random.uniform(0.2, 2.0) if fate == "late" else 0.0), arrive)
        # A connection that is lost is seen at once, or never.
        lost = (fate or not cluster.up) and cluster.random.random() < 0.5
        scheduler.block(min(timeout_s, 10 * World.latency_s) if lost else timeout_s)
        if not answers:
            self.close()
            raise Disconnected("simulated: no answer")
        return answers[0]


def _delay() -> float:
    return World.latency_s * World.cluster.random.random()


def _judged(apply: Callable[[], Any]) -> tuple[ErrorCode, Any]:
    """Do what a request asks; the code of the answer, and what it gives."""
    try:
        return ErrorCode.none, apply()
    except Concurrent:
        return ErrorCode.concurrent_transactions, None
    except KafkaException as error:
        return ErrorCode(error.args[0].code()), None


def _init(name: str, request: InitProducerIdRequest) -> Any:
    timeout_s = request.transaction_timeout.total_seconds()
    code, epoch = _judged(lambda: World.cluster.init_producer(name, timeout_s))
    return _answer(request, code, epoch or 0)


def _offsets(name: str, request: TxnOffsetCommitRequest) -> Any:
    wanted = {
        (topic.name, each.partition_index): each.committed_offset for topic in request.topics for each in topic.partitions
    }
    code, _ = _judged(lambda: World.cluster.add_offsets(name, request.producer_epoch, wanted, request.group_id))
    return _answer(request, code)


def _produce(name: str, request: ProduceRequest) -> Any:
    codes = {}
    for topic in request.topic_data:
        ((index, content),) = [(each.index, each.records) for each in topic.partition_data]
        records, _ = _really_read(content, 0)
        messages = [(each.key, each.value, tuple(each.headers or ())) for each in records]
        epoch = int.from_bytes(content[_EPOCH_AT : _EPOCH_AT + 2], "big")
        (sequence,) = _SEQUENCE.unpack_from(content, _SEQUENCE_AT)
        place = topic.name, index
        codes[place], _ = _judged(
            lambda place=place, messages=messages, epoch=epoch, sequence=sequence: World.cluster.produce_2(
                name, epoch, sequence, place, messages
            )
        )
    return _produced(codes)


def _end(name: str, request: EndTxnRequest) -> Any:
    state = "commit" if request.committed else "abort"
    code, epoch = _judged(lambda: World.cluster.end_transaction_2(name, request.producer_epoch, state))
    return _answer(request, code, epoch or 0)


class _Read(list):
    """Records in the place of their bytes, and the offset to read on from."""

    end = 0


def read_batches(content: Any, start: int, aborted: Any = ()) -> tuple[Records, int]:
    """As streams/kafka/record_batches.py, of what the model's fetch gives."""
    return Records.of(content), content.end


def _has_news(request: FetchRequest) -> bool:
    return any(
        World.cluster.partitions[topic.topic, each.partition].last_stable > each.fetch_offset
        for topic in request.topics
        for each in topic.partitions
    )


def _fetch(_: str, request: FetchRequest) -> Any:
    topics = []
    for topic in request.topics:
        parts = []
        for each in topic.partitions:
            partition = World.cluster.partitions[topic.topic, each.partition]
            records, end = partition.read(each.fetch_offset, World.cluster.random.choice([1, 4, 40]))
            found = _Read(records)
            found.end = end
            parts.append(
                SimpleNamespace(
                    partition_index=each.partition,
                    error_code=ErrorCode.none,
                    high_watermark=partition.end,
                    aborted_transactions=(),
                    records=found if end > each.fetch_offset else None,
                )
            )
        topics.append(SimpleNamespace(topic=topic.topic, partitions=parts))
    return SimpleNamespace(error_code=ErrorCode.none, responses=topics)


def _metadata(_: str, request: MetadataRequest) -> Any:
    return MetadataResponse(
        throttle_time=_AT_ONCE,
        brokers=(MetadataResponseBroker(node_id=_BROKER, host=_HOST, port=_PORT, rack=None),),
        cluster_id="model",
        controller_id=_BROKER,
        topics=tuple(_topic(each.name) for each in request.topics or ()),
    )


def _topic(topic: Any) -> MetadataResponseTopic:
    partitions = tuple(
        MetadataResponsePartition(
            error_code=ErrorCode.none,
            partition_index=i32(number),
            leader_id=_BROKER,
            leader_epoch=i32(0),
            replica_nodes=(_BROKER,),
            isr_nodes=(_BROKER,),
            offline_replicas=(),
        )
        for number in range(World.cluster.partition_counts[topic])
    )
    return MetadataResponseTopic(error_code=ErrorCode.none, name=topic, topic_id=None, is_internal=False, partitions=partitions)


def _coordinator(_: str, request: FindCoordinatorRequest) -> Any:
    (key,) = request.coordinator_keys
    found = Coordinator(key=key, node_id=_BROKER, host=_HOST, port=_PORT, error_code=ErrorCode.none, error_message=None)
    return FindCoordinatorResponse(throttle_time=_AT_ONCE, coordinators=(found,))


def _produced(codes: dict[tuple[str, int], ErrorCode]) -> ProduceResponse:
    return ProduceResponse(
        responses=tuple(
            TopicProduceResponse(
                name=topic,
                partition_responses=(
                    PartitionProduceResponse(
                        index=i32(index),
                        error_code=code,
                        base_offset=i64(0),
                        log_append_time=None,
                        log_start_offset=i64(0),
                        record_errors=(),
                        error_message=None,
                        current_leader=LeaderIdAndEpoch(leader_id=_BROKER, leader_epoch=i32(0)),
                    ),
                ),
            )
            for (topic, index), code in codes.items()
        ),
        throttle_time=_AT_ONCE,
        node_endpoints=(),
    )


def _answer(request: Any, code: ErrorCode, epoch: int = 0) -> Any:
    """Answer a request with a code."""
    if isinstance(request, ProduceRequest):
        return _produced({(topic.name, topic.partition_data[0].index): code for topic in request.topic_data})
    if isinstance(request, TxnOffsetCommitRequest):
        return TxnOffsetCommitResponse(
            throttle_time=_AT_ONCE,
            topics=tuple(
                TxnOffsetCommitResponseTopic(
                    name=topic.name,
                    partitions=tuple(
                        TxnOffsetCommitResponsePartition(partition_index=each.partition_index, error_code=code)
                        for each in topic.partitions
                    ),
                )
                for topic in request.topics
            ),
        )
    kind = EndTxnResponse if isinstance(request, EndTxnRequest) else InitProducerIdResponse
    return kind(throttle_time=_AT_ONCE, error_code=code, producer_id=_ID, producer_epoch=i16(epoch))


_HANDLERS: dict[type, tuple[Callable[[Any], str], Callable[[str, Any], Any]]] = {
    InitProducerIdRequest: (lambda _: "init", _init),
    TxnOffsetCommitRequest: (lambda _: "offsets", _offsets),
    ProduceRequest: (lambda _: "flush", _produce),
    EndTxnRequest: (lambda request: "commit" if request.committed else "abort", _end),
    MetadataRequest: (lambda _: "read", _metadata),
    FindCoordinatorRequest: (lambda _: "read", _coordinator),
    FetchRequest: (lambda _: "fetch", _fetch),
}
"""Request → its kind, by which faults strike, and what the broker does."""
