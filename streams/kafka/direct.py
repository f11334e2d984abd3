"""`DirectProducer`: a transactional producer that speaks Kafka's newer protocol of transactions (KIP-890, part 2) [1] itself.

librdkafka 2.16 speaks the older one: a round trip to name each partition to the transaction, one to name the group, and the
next transaction of the producer waits for the markers of the last. In the newer one, version 2, the first `Produce` names them,
each `EndTxn` gives the producer a new epoch, and a late `Produce` of a transaction that has ended is refused by its epoch.

    init_transactions → READY → (TxnOffsetCommit, Produce ...) OPEN → EndTxn → READY, one epoch later
    any error that is not answered by asking again → FAILED: this producer is never used again, but to abort

Same calls and errors as confluent-kafka's `Producer`, as far as a partition needs them (worker/transactions.py).
Owner: one thread. Invariants: one request at a time; a request that is repeated has the same bytes, so that the broker knows it
(sequence numbers; an `EndTxn` of the epoch before); what is asked again is in `AGAIN` and `ELSEWHERE`, nothing else.
Not here: connections (brokers.py, wire.py), the format of records (record_batches.py), when to commit (worker/transactions.py).

[1] https://cwiki.apache.org/confluence/display/KAFKA/KIP-890%3A+Transactions+Server-Side+Defense
"""

import logging
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, NoReturn

import numpy as np
from confluent_kafka import KafkaError, KafkaException
from kio.schema.end_txn.v5.request import EndTxnRequest
from kio.schema.end_txn.v5.response import EndTxnResponse
from kio.schema.errors import ErrorCode
from kio.schema.find_coordinator.v4.request import FindCoordinatorRequest
from kio.schema.find_coordinator.v4.response import FindCoordinatorResponse
from kio.schema.init_producer_id.v5.request import InitProducerIdRequest
from kio.schema.init_producer_id.v5.response import InitProducerIdResponse
from kio.schema.metadata.v12.request import MetadataRequest
from kio.schema.produce.v12.request import PartitionProduceData, ProduceRequest, TopicProduceData
from kio.schema.produce.v12.response import ProduceResponse
from kio.schema.txn_offset_commit.v5.request import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from kio.schema.txn_offset_commit.v5.response import TxnOffsetCommitResponse
from kio.schema.types import GroupId, ProducerId, TopicName, TransactionalId
from kio.static.primitive import Records, i8, i16, i32, i32Timedelta, i64

from streams.kafka.brokers import Address, Brokers
from streams.kafka.record_batches import BatchWriter
from streams.kafka.wire import TRANSACTION_VERSION, Connection, Disconnected
from topics.errors import NoBroker

log = logging.getLogger("nearshelf.direct")

REQUESTS = (
    EndTxnRequest,
    FindCoordinatorRequest,
    InitProducerIdRequest,
    MetadataRequest,
    ProduceRequest,
    TxnOffsetCommitRequest,
)
"""What the broker must speak."""
AGAIN = {
    ErrorCode.concurrent_transactions,
    ErrorCode.coordinator_load_in_progress,
    ErrorCode.not_enough_replicas,
    ErrorCode.not_enough_replicas_after_append,
    ErrorCode.request_timed_out,
}
"""Answered by the right broker, which is not ready: the same is asked again."""
ELSEWHERE = {
    ErrorCode.broker_not_available,
    ErrorCode.coordinator_not_available,
    ErrorCode.fenced_leader_epoch,
    ErrorCode.kafka_storage_error,
    ErrorCode.leader_not_available,
    ErrorCode.network_exception,
    ErrorCode.not_coordinator,
    ErrorCode.not_leader_or_follower,
    ErrorCode.replica_not_available,
    ErrorCode.unknown_leader_epoch,
    ErrorCode.unknown_topic_or_partition,
}
"""Another broker must be asked: leaders and coordinators are looked up anew."""
FENCED = {ErrorCode.invalid_producer_epoch, ErrorCode.producer_fenced}
"""Another producer of this id took over, or the transaction was aborted because it took too long."""
HOPELESS = {
    ErrorCode.cluster_authorization_failed,
    ErrorCode.group_authorization_failed,
    ErrorCode.invalid_record,
    ErrorCode.message_too_large,
    ErrorCode.record_list_too_large,
    ErrorCode.topic_authorization_failed,
    ErrorCode.transactional_id_authorization_failed,
}
"""Asked again it would fail again. Every other code leaves open what the broker did: a doubt."""
BACKOFF_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""Between attempts; the last for all later ones."""
_TRANSACTION, _GROUP = 1, 0  # kinds of coordinators
_NOBODY = ProducerId(i64(-1))


def milliseconds(value: float) -> Any:
    """Give a time as the protocol's layouts take it."""
    return i32Timedelta.parse(timedelta(milliseconds=int(value)))


class _Unanswered(NoBroker):
    """A coordinator or leader is not known yet; the message says why."""


class DirectProducer:
    """A transactional producer of one partition number.

    Parameters
    ----------
    bootstrap_servers : str
        ``host:port,host:port``.
    transactional_id : str
    partition : int
        Written to in each topic.
    group_id : str
        Whose offsets are committed.
    transaction_timeout_ms : int
    compression : str
        A codec of Kafka's, or ``none``.
    topic_prefix : str
        Put before each topic's name; `produce_block` alone is given names with it.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        transactional_id: str,
        partition: int,
        group_id: str,
        transaction_timeout_ms: int,
        compression: str,
        topic_prefix: str,
    ):
        self._brokers = Brokers(bootstrap_servers, transactional_id)
        self._id = TransactionalId(transactional_id)
        self._partition = partition
        self._group_id = GroupId(group_id)
        self._timeout_ms = transaction_timeout_ms
        self._writer = BatchWriter(compression)
        self._prefix = topic_prefix
        self._leaders: dict[str, Address] = {}  # topic → its leader
        self._coordinators: dict[int, Address] = {}
        self._producer_id, self._epoch = _NOBODY, i16(-1)
        self._open = False  # the broker may have heard of this transaction
        self._sequences: dict[str, int] = {}  # topic → next sequence number of this epoch
        self._failed: KafkaException | None = None

    def why_not(self, timeout: float) -> str:
        """Connect; say why the broker can't be spoken to directly, nothing if it can.

        Raises
        ------
        KafkaException
            No broker answers.
        """
        found: list[Connection] = []
        self._ask(lambda left: found.append(self._brokers.any(left)), None, timeout)
        level = found[0].features.get(TRANSACTION_VERSION, 0)
        if level < 2:
            return f"the cluster's {TRANSACTION_VERSION} is {level}, not 2 (Kafka 4.0 or later; `kafka-features.sh upgrade`)"
        missing = [request.__name__ for request in REQUESTS if not found[0].speaks(request)]
        return f"the broker does not speak {', '.join(missing)} as needed" if missing else ""

    # The calls of confluent-kafka's Producer

    def list_topics(self, topic: str, timeout: float) -> None:
        """Connect, so that what comes next need not."""
        self._ask(lambda left: self._leader(self._prefix + topic, left), None, timeout)

    def init_transactions(self, timeout: float) -> None:
        """Fence former producers of this id, abort what they left open, and take the next epoch."""
        request = InitProducerIdRequest(
            transactional_id=self._id,
            transaction_timeout=milliseconds(self._timeout_ms),
            producer_id=_NOBODY,
            producer_epoch=i16(-1),
        )
        answer = self._ask(self._transaction_coordinator, (request, InitProducerIdResponse, _code), timeout)
        self._begin_epoch(answer)

    def begin_transaction(self) -> None:
        """Begin; the broker hears of it with the first request."""
        self._check()

    def send_offsets_to_transaction(self, offsets: Iterable[Any], _metadata: Any, timeout: float) -> None:
        """Have the group's offsets committed with the transaction."""
        self._check()
        request = TxnOffsetCommitRequest(
            transactional_id=self._id,
            group_id=self._group_id,
            producer_id=self._producer_id,
            producer_epoch=self._epoch,
            generation_id=i32(-1),
            member_id="",
            group_instance_id=None,
            topics=tuple(
                TxnOffsetCommitRequestTopic(
                    name=TopicName(self._prefix + each.topic),
                    partitions=(
                        TxnOffsetCommitRequestPartition(
                            partition_index=i32(each.partition),
                            committed_offset=i64(each.offset),
                            committed_leader_epoch=i32(-1),
                            committed_metadata="",
                        ),
                    ),
                )
                for each in offsets
            ),
        )
        self._open = True
        self._ask(self._group_coordinator, (request, TxnOffsetCommitResponse, _worst_offset), timeout)

    def produce(self, topic: str, partition: int, value: bytes, key: bytes, headers: Any = None) -> None:
        """Take a record."""
        self._check()
        self._writer.add(self._prefix + topic, key, value, headers or ())

    def produce_block(self, topic: str, _partition: int, buffer: np.ndarray, spans: np.ndarray) -> None:
        """Take records, as `streams.kafka.librdkafka.produce_spans` does."""
        self._check()
        self._writer.add_block(topic, buffer, spans)

    def flush(self, timeout: float) -> int:
        """Send what was taken; 0 when all of it is acknowledged.

        Raises
        ------
        KafkaException
            Some of it is not.
        """
        self._check()
        deadline = time.monotonic() + timeout
        batches = self._writer.take()
        while batches:
            # One batch of a partition in a request, as the broker demands.
            first = {topic: waiting.pop(0) for topic, waiting in batches.items()}
            batches = {topic: waiting for topic, waiting in batches.items() if waiting}
            self._produce(first, deadline)
        return 0

    def commit_transaction(self, timeout: float) -> None:
        """End it; all has been acknowledged."""
        self._check()
        self._end(True, timeout)

    def abort_transaction(self, timeout: float) -> None:
        """Undo it, whatever failed before."""
        if self._failed is not None and self._failed.args[0].fatal():
            raise self._failed
        self._failed = None
        self._writer.take()
        self._end(False, timeout)

    def purge(self, **_: bool) -> None:
        """Forget what was taken and not sent."""
        self._writer.take()

    # Transactions

    def _end(self, committed: bool, timeout: float) -> None:
        if not self._open:
            return  # the broker has not heard of it, and would call it invalid
        request = EndTxnRequest(
            transactional_id=self._id,
            producer_id=self._producer_id,
            producer_epoch=self._epoch,
            committed=committed,
        )
        self._begin_epoch(self._ask(self._transaction_coordinator, (request, EndTxnResponse, _code), timeout))

    def _begin_epoch(self, answer: Any) -> None:
        self._producer_id, self._epoch, self._open = answer.producer_id, answer.producer_epoch, False
        self._sequences.clear()

    def _produce(self, batches: dict[str, tuple[bytes, int]], deadline: float) -> None:
        """Send a batch a topic, those of one leader in one request, until all are acknowledged."""
        self._open = True
        sealed = {}
        for topic, (records, count) in batches.items():
            sequence = self._sequences.get(topic, 0)
            sealed[topic] = self._writer.seal(records, count, self._producer_id, self._epoch, sequence)
            self._sequences[topic] = (sequence + count) & 0x7FFFFFFF
        while sealed:
            topic = next(iter(sealed))
            asked: list[str] = []

            def ask(left: float, topic: str = topic, asked: list[str] = asked) -> Connection:
                connection = self._leader(topic, left)
                asked[:] = [each for each in sealed if self._leader_address(each, left) == self._leaders[topic]]
                return connection

            def request(asked: list[str] = asked) -> ProduceRequest:
                return ProduceRequest(
                    transactional_id=self._id,
                    acks=i16(-1),
                    timeout=milliseconds(max(deadline - time.monotonic(), 0.0) * 1000),
                    topic_data=tuple(
                        TopicProduceData(
                            name=TopicName(each),
                            partition_data=(PartitionProduceData(index=i32(self._partition), records=Records(sealed[each])),),
                        )
                        for each in asked
                    ),
                )

            def acknowledged(answer: ProduceResponse) -> tuple[ErrorCode, str]:
                worst, text = ErrorCode.none, ""
                for each in answer.responses:
                    (found,) = each.partition_responses
                    # A batch that was repeated because its answer was missing.
                    if found.error_code in (ErrorCode.none, ErrorCode.duplicate_sequence_number):
                        del sealed[each.name]
                    elif _rank(found.error_code) > _rank(worst):
                        worst, text = found.error_code, f"{each.name}: {found.error_message or ''}"
                return worst, text

            self._ask(ask, (request, ProduceResponse, acknowledged), deadline - time.monotonic())

    # Asking

    def _ask(self, where: Callable[[float], Any], what: tuple[Any, type, Callable] | None, timeout: float) -> Any:
        """Ask the broker that `where` gives until the answer is final: give it, or fail."""
        deadline, attempt, why = time.monotonic() + timeout, 0, "nobody answered"
        while (left := deadline - time.monotonic()) > 0:
            if attempt:
                time.sleep(min(left, BACKOFF_S[min(attempt, len(BACKOFF_S)) - 1]))
            attempt += 1
            try:
                connection = where(left)
                if what is None:
                    return None
                request, response, judge = what
                answer = connection.call(request() if callable(request) else request, response, left)
            except (Disconnected, _Unanswered) as error:
                why = str(error)
                self._look_anew()
                continue
            code, text = judge(answer)
            if code is ErrorCode.none:
                return answer
            why = f"{code.name} {text}".strip()
            if code in ELSEWHERE:
                self._look_anew()
            elif code in FENCED and attempt > 1 and isinstance(answer, EndTxnResponse):
                break  # the end that was asked for before may have come before the fence
            elif code not in AGAIN:
                self._fail(code, why)
        return self._fail(None, f"no answer to rely on within {timeout:.1f} s, at last: {why}")

    def _fail(self, code: ErrorCode | None, why: str) -> NoReturn:
        if code is None:
            error = KafkaError(KafkaError._TIMED_OUT, f"{self._id}: {why}", retriable=True)
        elif code in FENCED:
            error = KafkaError(KafkaError._FENCED, f"{self._id}: {why}", fatal=True)
        else:
            error = KafkaError(code.value, f"{self._id}: {why}", txn_requires_abort=code in HOPELESS)
        self._failed = KafkaException(error)
        raise self._failed

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    # Brokers

    def _look_anew(self) -> None:
        """Forget who leads and who coordinates; connections that were lost are made again."""
        self._leaders.clear()
        self._coordinators.clear()

    def _leader(self, topic: str, left: float) -> Connection:
        return self._brokers.reach(self._leader_address(topic, left), left)

    def _leader_address(self, topic: str, left: float) -> Address:
        if topic not in self._leaders:
            found, why = self._brokers.leaders([topic], left)
            if (topic, self._partition) not in found:
                code = why.get(topic, ErrorCode.unknown_topic_or_partition)
                raise _Unanswered(f"{topic}[{self._partition}] has no leader: {code.name}")
            self._leaders[topic] = found[topic, self._partition]
        return self._leaders[topic]

    def _transaction_coordinator(self, left: float) -> Connection:
        return self._coordinator(_TRANSACTION, self._id, left)

    def _group_coordinator(self, left: float) -> Connection:
        return self._coordinator(_GROUP, self._group_id, left)

    def _coordinator(self, kind: int, key: str, left: float) -> Connection:
        if kind not in self._coordinators:
            request = FindCoordinatorRequest(key_type=i8(kind), coordinator_keys=(key,))
            (found,) = self._brokers.any(left).call(request, FindCoordinatorResponse, left).coordinators
            if found.error_code in HOPELESS:
                self._fail(found.error_code, f"{found.error_code.name}: {found.error_message}")
            if found.error_code is not ErrorCode.none:
                raise _Unanswered(f"{key} has no coordinator: {found.error_code.name}")
            self._coordinators[kind] = (found.host, found.port)
        return self._brokers.reach(self._coordinators[kind], left)


def _rank(code: ErrorCode) -> int:
    """Of several codes in an answer the gravest counts."""
    if code is ErrorCode.none:
        return 0
    if code in AGAIN or code in ELSEWHERE:
        return 1 + (code in ELSEWHERE)
    return 4 + (code in FENCED) if code in FENCED or code in HOPELESS else 3


def _code(answer: Any) -> tuple[ErrorCode, str]:
    return answer.error_code, ""


def _worst_offset(answer: TxnOffsetCommitResponse) -> tuple[ErrorCode, str]:
    codes = [each.error_code for topic in answer.topics for each in topic.partitions]
    return max(codes, key=_rank, default=ErrorCode.none), ""
