"""The transactional producers of one input partition: outputs, changelog and input offsets in one Kafka transaction a batch.

Owner: the partition's flow. The flow makes the producers (`Lanes`); all else happens in each one's own thread (`Committer`).
While one ends its transaction, the next one is open. They take turns, and each waits for the one before it, three times:
- its offsets are sent when those of the batch before have arrived: of two that wait the later record counts, not the larger;
- its first record is sent when all of the batch before are in the log, so that records lie in the order of the batches;
- its transaction ends when the one before is known to be committed. If that fails, this one never ends.
An owner's first transaction is on the first lane. So of two owners that fence each other's lanes, one commits nothing.
A producer is our own (streams/kafka/direct.py) where the broker knows the newer protocol of transactions, else librdkafka's.
The worker that fences last owns the partition: the broker refuses all that a former owner's producers still do.
After a commit that ends with `Doubt`, or does not end, the transaction may have taken effect or not. The fence of another
producer settles it, and then the log shows which. So a producer is never used again after a doubt. (librdkafka 2.16 was seen
to stay in `send_offsets_to_transaction` for minutes when a broker restarts, whatever time-out it was given.)
Not here: what is in the transaction (pipeline.py), when to commit and what to do after a failure (flow.py).
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streams.batch.clock import Clock
from streams.batch.pipeline import Outcome
from streams.kafka.clients import client_config
from streams.kafka.direct import DirectProducer
from streams.kafka.librdkafka import handle_of, produce_spans
from streams.kafka.names import Producer
from streams.worker import failpoints, owner
from streams.worker.cluster import CannotStart
from topics.codec.messages import Messages
from topics.errors import NotCommitted

log = logging.getLogger("nearshelf.transactions")

# A changelog record is cut so that each part stays well below a broker's default limit of 1 MiB a batch.
PART_BYTES = 700_000
# The broker decides what is too large; the client's own limit, 1 MB, would refuse a dead letter of a record that is just legal.
MESSAGE_BYTES = 64 << 20
LANES = 2
"""Producers of a partition. Who takes it over fences all that a former owner may have, so later versions may not have fewer."""

FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}
# The producer takes no more messages: it is fenced, say, or the transaction has failed and must be aborted.
STOPPED = {KafkaError._FATAL, KafkaError._STATE}
# Sent again it would fail again.
HOPELESS = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.INVALID_RECORD,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}


class Fenced(NotCommitted):
    """Another producer with this transactional id took over: this one's batch did not, and never will, take effect."""


class Doubt(NotCommitted):
    """The broker's answer is missing: the batch may have taken effect or not."""


class Refused(NotCommitted):
    """The broker will never take this batch; the message says what it refuses and what to do."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A batch that took effect."""

    stages: dict[str, float]
    """Stage → seconds."""
    at_ms: float
    """When, epoch ms."""


class Turn:
    """A batch's place in the order of the lanes: what the batch behind it waits for."""

    def __init__(self) -> None:
        self.offered: Future[None] = Future()
        """Its offsets are with the group's coordinator, which takes the later of two that wait."""
        self.written: Future[None] = Future()
        """All its records are in the log."""
        self.committed: Future[Committed] = Future()

    def fail(self, error: BaseException) -> None:
        """End it without effect."""
        for each in (self.offered, self.written, self.committed):
            if not each.done():
                each.set_exception(error)


class PartitionProducer:
    """Commits batches of one partition. Making it fences: it is then the one producer of its id.

    Parameters
    ----------
    settings
        `app_id`, `bootstrap_servers`, `topic_prefix`, `linger_ms`, `retry_backoff_ms`, `compression`, `request_timeout_ms`,
        `transaction_timeout_ms`.
    transactional_id : str
        `lane_id`: the same in every worker that may own the partition, whatever its `app_id`.
    partition : int
        Written to in every output topic.
    changelog_topic : str
    group_metadata
        Of the consumer group whose offsets are committed.
    passed : callable
        Told each fail point as it is passed (failpoints.py).

    Raises
    ------
    KafkaException
        The broker does not answer, or refuses.
    """

    def __init__(
        self,
        settings: Any,
        transactional_id: str,
        partition: int,
        changelog_topic: str,
        group_metadata: Any,
        passed: Callable[[str], None],
    ):
        self.transactional_id = transactional_id
        self._partition = partition
        self._changelog_topic = changelog_topic
        self._group_metadata = group_metadata
        self._passed = passed
        self._owner = settings.app_id.encode()
        self._topic_prefix = settings.topic_prefix
        self._timeout_s = settings.request_timeout_ms / 1000
        direct = self._speaker(settings)
        self._direct = direct is not None
        self._producer = direct or Producer(self._config(settings))
        self._produce_block: Callable = (
            direct.produce_block if direct else partial(produce_spans, handle_of(self._producer, transactional_id))
        )
        # With a connection up the fence takes 50 ms; without one librdkafka asks for the coordinator again after half a second.
        self._producer.list_topics(changelog_topic, timeout=self._timeout_s)
        self._producer.init_transactions(self._timeout_s)

    def _speaker(self, settings: Any) -> Any:
        """Give a producer that speaks the newer protocol, if it is wanted and the broker knows it."""
        if settings.transactions == "librdkafka":
            return None
        producer = DirectProducer(
            settings.bootstrap_servers,
            self.transactional_id,
            self._partition,
            settings.group_id,
            settings.transaction_timeout_ms,
            settings.compression,
            settings.topic_prefix,
        )
        why_not = producer.why_not(self._timeout_s)
        if why_not and settings.transactions == "direct":
            raise CannotStart(f"transactions=direct can't be: {why_not}. transactions=auto takes librdkafka then.")
        if why_not:
            log.info("%s commits by librdkafka: %s", self.transactional_id, why_not)
        return None if why_not else producer

    def _config(self, settings: Any) -> dict[str, Any]:
        # Without a logger: librdkafka's line about a fenced producer would reach Python in the middle of another exception.
        return client_config(
            settings,
            client_id=self.transactional_id,
            transactional_id=self.transactional_id,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            message_timeout_ms=min(settings.request_timeout_ms, settings.transaction_timeout_ms),
            acks="all",
            partitioner="murmur2_random",
            compression_type=settings.compression,
            linger_ms=settings.linger_ms,
            retry_backoff_ms=settings.retry_backoff_ms,
            socket_nagle_disable=True,
            message_max_bytes=MESSAGE_BYTES,
            # A whole outcome is queued at once and is in memory anyway. With a limit, librdkafka would take later messages
            # of a list when it has refused earlier ones: out of order.
            queue_buffering_max_messages=0,
            queue_buffering_max_kbytes=2_000_000,
        )

    def commit(self, outcome: Outcome, turn: Turn, before: Turn | None) -> dict[str, float]:
        """Commit a batch, all or nothing, after the one before it.

        Parameters
        ----------
        outcome : Outcome
        turn : Turn
            The batch's own; `written` is set here.
        before : Turn or None
            Of the batch before it.

        Returns
        -------
        dict
            Stage → seconds: ``offsets``, ``turn``, ``produce``, ``flush``, ``order``, ``commit``.

        Raises
        ------
        Fenced
            The partition has another owner; the batch has no effect.
        Doubt
            The broker's answer is missing, it aborted the batch, or the batch before failed; this one may have taken effect.
        Refused
            The batch has no effect, and never can have.
        """
        try:
            return self._transact(outcome, turn, before)
        # Poll and flush raise a fatal error as it is, and it is no Exception.
        except (KafkaException, KafkaError) as failure:  # type: ignore[misc]
            error = failure if isinstance(failure, KafkaError) else failure.args[0]
            raise self._meaning(error) from None

    def close(self) -> None:
        """Give up; an open transaction is aborted if the broker answers soon, else left for the next fence."""
        self._producer.purge(in_flight=False)
        try:
            self._producer.abort_transaction(1)
        except KafkaException as failure:
            log.debug("%s: nothing aborted at close: %s", self.transactional_id, failure)

    def _await(self, done: Future, outcome: Outcome) -> None:
        """Wait for what the batch before has to do first."""
        try:
            done.result(self._timeout_s)
        except Exception as error:
            raise Doubt(f"batch {outcome.sequence} did not get its turn: {str(error) or 'no answer in time'}") from error

    def _transact(self, outcome: Outcome, turn: Turn, before: Turn | None) -> dict[str, float]:
        clock = Clock()
        self._producer.begin_transaction()
        # librdkafka's offsets come first. While the broker still writes the markers of the transaction before, it repeats this
        # request after `retry_backoff_ms`; the request of a first message it would repeat after 20 ms, a fixed number.
        steps = (self._write, self._offer) if self._direct else (self._offer, self._write)
        for step in steps:
            step(outcome, turn, before, clock)
        if before is not None:
            self._await(before.committed, outcome)
        clock.stage("order")
        self._passed(failpoints.AFTER_TURN)
        self._producer.commit_transaction(self._timeout_s)
        clock.stage("commit")
        self._passed(failpoints.AFTER_COMMIT)
        return clock.seconds

    def _offer(self, outcome: Outcome, turn: Turn, before: Turn | None, clock: Clock) -> None:
        """Send the offsets, after those of the batch before."""
        if before is not None:
            self._await(before.offered, outcome)
        if outcome.offsets:
            offsets = [TopicPartition(topic, self._partition, offset) for topic, offset in outcome.offsets.items()]
            self._producer.send_offsets_to_transaction(offsets, self._group_metadata, self._timeout_s)
        turn.offered.set_result(None)
        clock.stage("offsets")
        self._passed(failpoints.AFTER_OFFSETS)

    def _write(self, outcome: Outcome, turn: Turn, before: Turn | None, clock: Clock) -> None:
        """Send the records, after those of the batch before, and wait until all are in the log."""
        if before is not None:
            self._await(before.written, outcome)
        clock.stage("turn")
        for topic, messages in outcome.outputs.items():
            self._send(topic, messages)
        self._send_changelog(outcome)
        clock.stage("produce")
        self._passed(failpoints.AFTER_PRODUCE)
        if left := self._producer.flush(self._timeout_s):
            raise Doubt(f"{left} messages of batch {outcome.sequence} were not acknowledged within {self._timeout_s:g} s")
        turn.written.set_result(None)
        clock.stage("flush")
        self._passed(failpoints.AFTER_FLUSH)

    def _send(self, topic: str, messages: Messages) -> None:
        if messages.headers:
            for message in messages:  # one by one, all of them: the order within a key counts
                self._produce(topic, **message)
            return
        for buffer, spans in messages.blocks:
            try:
                self._produce_block(self._topic_prefix + topic, self._partition, buffer, spans)
            except KafkaException as failure:
                self._reject(topic, failure)

    def _send_changelog(self, outcome: Outcome) -> None:
        record = outcome.changelog
        count = -(-len(record) // PART_BYTES)
        for part in range(count):
            self._produce(
                self._changelog_topic,
                key=b"batch",
                value=record[part * PART_BYTES : (part + 1) * PART_BYTES],
                headers=[
                    ("batch", str(outcome.sequence).encode()),
                    ("part", f"{part + 1}/{count}".encode()),
                    ("link", outcome.link.hex().encode()),
                    (owner.HEADER, self._owner),
                ],
            )

    def _produce(self, topic: str, **message: Any) -> None:
        try:
            self._producer.produce(topic, partition=self._partition, **message)
        except BufferError as error:
            raise Refused(f"a message to {topic} was not accepted: {error}") from error
        except KafkaException as failure:
            self._reject(topic, failure)

    def _reject(self, topic: str, failure: KafkaException) -> None:
        """Raise the meaning of a message that was not accepted: `Refused`, or `Doubt` if the transaction failed before."""
        error = failure.args[0]
        if error.code() not in STOPPED:
            raise Refused(f"a message to {topic} was not accepted: {error.str()}") from failure
        self._producer.abort_transaction(self._timeout_s)  # raises the producer's fatal error, if it has one
        raise Doubt(f"{topic}: {error.str()}") from failure

    def _meaning(self, error: KafkaError) -> NotCommitted:
        """Abort what may be aborted, and say what it is: `Fenced`, `Refused`, or `Doubt`, after which all is rebuilt.

        An aborted batch is not sent again: the next batch's offsets may be there, and those sent later would count instead.
        """
        if not error.txn_requires_abort() or error.fatal():
            return Fenced(error.str()) if error.fatal() and error.code() in FENCED else Doubt(error.str())
        try:
            self._producer.abort_transaction(self._timeout_s)
        except KafkaException as failure:
            return Fenced(error.str()) if failure.args[0].code() in FENCED else Doubt(error.str())
        if error.code() in HOPELESS:
            return Refused(
                f"the cluster refuses what {self.transactional_id} writes: {error.str()}. "
                "Compare its topics with `nearshelf topics list` and the worker's rights."
            )
        return Doubt(error.str())


def fence(settings: Any, transactional_id: str) -> None:
    """End what a producer of this id may still do; raises KafkaException if the broker does not answer."""
    config = client_config(settings, transactional_id=transactional_id, transaction_timeout_ms=settings.transaction_timeout_ms)
    producer, timeout_s = Producer(config), settings.request_timeout_ms / 1000
    producer.list_topics(timeout=timeout_s)  # as in PartitionProducer
    producer.init_transactions(timeout_s)


class Committer:
    """The thread of one producer. The flow may leave it behind in a call that does not return: it ends when the call does."""

    def __init__(self, producer: PartitionProducer, name: str):
        self._producer = producer
        self._turns: SimpleQueue[tuple[Outcome, Turn, Turn | None] | Future[None]] = SimpleQueue()
        # A daemon: a call that does not return must not keep the process.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def commit(self, outcome: Outcome, turn: Turn, before: Turn | None) -> None:
        """Commit a batch after those given before; `turn` gets the result of `PartitionProducer.commit`."""
        self._turns.put((outcome, turn, before))

    def close(self) -> "Future[None]":
        """Close the producer after the commits given before."""
        closed: Future[None] = Future()
        self._turns.put(closed)
        return closed

    def _run(self) -> None:
        while True:
            given = self._turns.get()
            if isinstance(given, Future):
                try:
                    self._producer.close()
                    given.set_result(None)
                except BaseException as error:
                    given.set_exception(error)
                return
            outcome, turn, before = given
            try:
                stages = self._producer.commit(outcome, turn, before)
                turn.committed.set_result(Committed(stages, time.time() * 1000))
            except BaseException as error:
                turn.fail(error)


def lane_id(name: str, lane: int) -> str:
    """The transactional id of a partition's lane; `name` is ``{changelog on the cluster}-{partition}``.

    Examples
    --------
    >>> lane_id("inventory-changelog.v1-0", 0), lane_id("inventory-changelog.v1-0", 1)
    ('inventory-changelog.v1-0', 'inventory-changelog.v1-0-lane-1')
    """
    return f"{name}-lane-{lane}" if lane else name


class Lanes:
    """A partition's producers. Making them fences all that a former owner may have, the first lane first.

    Parameters
    ----------
    make : callable
        Transactional id → PartitionProducer.
    name : str
        ``{changelog on the cluster}-{partition}``.

    Raises
    ------
    KafkaException
        The broker does not answer, or refuses.
    """

    def __init__(self, make: Callable[[str], PartitionProducer], name: str):
        self._committers: list[Committer] = []
        self._count = 0
        self._last: Turn | None = None
        try:
            for lane in range(LANES):
                self._committers.append(Committer(make(lane_id(name, lane)), f"commit-{name}-{lane}"))
        except BaseException:
            self.close()
            raise

    def commit(self, outcome: Outcome) -> "Future[Committed]":
        """Commit a batch after those given before; the result is `PartitionProducer.commit`'s."""
        turn, before = Turn(), self._last
        self._committers[self._count % LANES].commit(outcome, turn, before)
        self._count += 1
        self._last = turn
        return turn.committed

    def close(self) -> "list[Future[None]]":
        """Close the producers after the commits given before."""
        return [committer.close() for committer in self._committers]
