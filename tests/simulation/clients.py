"""The model broker's clients, in the place and the shape of confluent-kafka's: where requests take time, and get lost.

A request travels by itself: once sent it arrives though its sender dies or is stopped meanwhile; the answer finds whoever is
left. `Faults` draws, by the seed, what becomes of each.
Not here: what the broker does (kafka.py).
"""

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from tests.simulation import scheduler as simulated
from tests.simulation.kafka import Cluster, Concurrent, Entry, failure
from topics.codec.messages import Messages
from topics.keys import partition_of

RETRY_S = 0.002
STUCK = 3.0  # a call that ignores its time-out returns after so many times it, at most

FATES = ("lost", "unanswered", "late", "stuck", "abortable")
"""What may become of a request: it never arrives; it takes effect but the call times out; it arrives after the call timed out;
the call returns long after its time-out; the client says that the transaction must be aborted."""


class Faults:
    """What goes wrong, by the seed: a rate for each kind of fault, 0 for most; counts what it did."""

    def __init__(self, scheduler: simulated.Scheduler, rates: dict[str, float]):
        self.scheduler = scheduler
        self.rates = rates
        self.counts: Counter[str] = Counter()
        self.calm = False  # from some moment on nothing goes wrong any more

    def strikes(self, kind: str) -> bool:
        rate = self.rates.get(kind, 0.0)
        if not rate or self.calm or self.scheduler.random.random() >= rate:
            return False
        self.counts[kind] += 1
        self.scheduler.log(f"FAULT {kind}")
        return True

    def fate(self, what: str) -> str:
        """Draw what becomes of a request."""
        if self.calm:
            return ""
        return next((fate for fate in FATES if self.strikes(f"{what}:{fate}")), "")


class World:
    """What the clients of one seed need: set before any of them is made."""

    cluster: Cluster
    faults: Faults
    latency_s: float


def _delay() -> float:
    return World.latency_s * World.cluster.random.random()


def _timed_out() -> KafkaException:
    return failure(KafkaError._TIMED_OUT, "no answer in time", retriable=True)


def request(what: str, timeout_s: float, apply: Callable[[], Any]) -> Any:
    """Ask the broker, and wait for its answer."""
    scheduler, cluster, process = simulated.current(), World.cluster, simulated.process()
    scheduler.point()
    fate = World.faults.fate(what)
    ends_at, me = scheduler.now + timeout_s, scheduler.me()
    answer: list[Any] = []

    def arrive() -> None:
        if not cluster.up:
            return again(0.05)
        try:
            result = apply()
        except Concurrent:
            return again(RETRY_S)
        except KafkaException as error:
            result = error
        if fate not in ("unanswered", "late"):
            slowly = timeout_s * (1 + STUCK * cluster.random.random()) if fate == "stuck" else 0.0
            scheduler.at(slowly + _delay(), lambda: (answer.append(result), scheduler.wake(*me)))

    def again(delay_s: float) -> None:
        if process.alive and scheduler.now + delay_s < ends_at:
            scheduler.at(delay_s, arrive)

    if fate == "abortable":
        raise failure(KafkaError._TIMED_OUT, f"{what}: simulated", txn_requires_abort=True)
    if fate != "lost":
        scheduler.at(_delay() + (timeout_s * cluster.random.uniform(0.2, 2.0) if fate == "late" else 0.0), arrive)
    scheduler.block(None if fate == "stuck" and cluster.up else timeout_s)
    if not answer:
        raise _timed_out()
    if isinstance(answer[0], KafkaException):
        raise answer[0]
    return answer[0]


class Producer:
    def __init__(self, config: dict[str, Any], logger: Any = None):
        self._name = config.get("transactional.id")
        self._timeout_s = config.get("transaction.timeout.ms", 60_000) / 1000
        self._process = simulated.process()
        self._epoch = -1
        self._error: KafkaException | None = None  # the transaction's, or fatal
        self._queue: list[tuple[tuple[str, int], tuple]] = []
        self._lines: dict[tuple[str, int], deque[list[tuple]]] = {}  # partition → batches on their way, in order
        self._added: set[tuple[str, int]] = set()  # the transaction's partitions
        self._in_flight = 0
        self._flusher: tuple | None = None
        self._delivered: list[Callable] = []

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
        return request("read", timeout, _Topics)

    # Transactions

    def init_transactions(self, timeout: float) -> None:
        self._epoch = request("init", timeout, lambda: World.cluster.init_producer(self._name, self._timeout_s))

    def begin_transaction(self) -> None:
        self._check()
        self._added.clear()

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], metadata: Any, timeout: float) -> None:
        self._check()
        wanted = {(each.topic, each.partition): each.offset for each in offsets}
        self._ask("offsets", timeout, lambda: World.cluster.add_offsets(self._name, self._epoch, wanted, metadata.group))

    def commit_transaction(self, timeout: float) -> None:
        if (self._queue or self._in_flight) and self.flush(timeout):
            raise _timed_out()
        self._check()
        self._ask("commit", timeout, lambda: World.cluster.end_transaction(self._name, self._epoch, "commit"))

    def abort_transaction(self, timeout: float) -> None:
        if self._error is not None and self._error.args[0].fatal():
            raise self._error
        self._forget_messages()
        self._error = None
        self._ask("abort", timeout, lambda: World.cluster.end_transaction(self._name, self._epoch, "abort"))

    def purge(self, in_queue: bool = True, in_flight: bool = True) -> None:
        self._queue.clear()

    def _forget_messages(self) -> None:
        self._queue.clear()
        for line in self._lines.values():
            line.clear()
        self._in_flight = 0

    def _ask(self, what: str, timeout_s: float, apply: Callable[[], Any]) -> None:
        try:
            request(what, timeout_s, apply)
        except KafkaException as error:
            raise self._fail(error) from None

    def _check(self) -> None:
        simulated.current().point()
        if self._error is not None:
            raise self._error

    def _fail(self, error: KafkaException) -> KafkaException:
        """Keep an error that stays, as librdkafka does."""
        found = error.args[0]
        if found.code() in (KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH):
            error = self._error = failure(KafkaError._FENCED, found.str(), fatal=True)
        elif found.txn_requires_abort():
            self._error = error
        return error

    # Messages

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = -1,
        on_delivery: Callable | None = None,
        headers: Any = None,
    ) -> None:
        scheduler = simulated.current()
        if not simulated.process().alive:
            raise simulated.Killed
        if self._name is not None and World.faults.strikes("queue_full"):
            raise BufferError("Local: Queue full")
        if partition < 0:
            partition = partition_of(key, World.cluster.partition_counts[topic])
        message = (key, value, tuple(headers or ()))
        if self._name is not None:
            self._queue.append(((topic, partition), message))
            if scheduler.random.random() < 0.1:
                self._dispatch()
            return
        if topic == "ticks.v1" and World.faults.strikes("tick_lost"):
            return
        self._queue.append(((topic, partition), message))
        self._dispatch()
        if on_delivery is not None:
            self._delivered.append(on_delivery)

    def poll(self, timeout: float = 0) -> int:
        return 0

    def flush(self, timeout: float) -> int:
        scheduler = simulated.current()
        scheduler.point()
        fate = World.faults.fate("flush") if self._name else ""
        if fate == "abortable":
            self._fail(failure(KafkaError._TIMED_OUT, "a message was not delivered", txn_requires_abort=True))
            self._queue.clear()
        self._dispatch(fate)
        ends_at = scheduler.now + timeout
        while self._in_flight and scheduler.now < ends_at:
            self._flusher = scheduler.me()
            scheduler.block(ends_at - scheduler.now)
        self._flusher = None
        if not self._in_flight:
            told, self._delivered = self._delivered, []
            for tell in told:
                tell(None, None)
        return self._in_flight

    def _dispatch(self, fate: str = "") -> None:
        """Put what is queued on its way, a batch for each partition."""
        groups: dict[tuple[str, int], list[tuple]] = {}
        for place, message in self._queue:
            groups.setdefault(place, []).append(message)
        self._queue.clear()
        for place, messages in groups.items():
            self._in_flight += len(messages)
            struck = fate and World.cluster.random.random() < 0.5
            if struck and fate in ("lost", "stuck"):
                continue
            line = self._lines.setdefault(place, deque())
            line.append(messages)
            if len(line) == 1:
                late = self._timeout_s * World.cluster.random.random() if struck and fate == "late" else 0.0
                lost_answer = bool(struck and fate == "unanswered")
                self._later(_delay() + late, place, lost_answer)

    def _later(self, delay_s: float, place: tuple[str, int], lost_answer: bool = False) -> None:
        simulated.current().at(delay_s, lambda: self._arrive(place, lost_answer))

    def _arrive(self, place: tuple[str, int], lost_answer: bool) -> None:
        line = self._lines[place]
        if not line:
            return
        try:
            if not World.cluster.up:
                raise Concurrent
            if self._name is None:
                World.cluster.append(*place, line[0])
            else:
                if place not in self._added:
                    World.cluster.add_partition(self._name, self._epoch, place)
                    self._added.add(place)
                World.cluster.produce(self._name, self._epoch, place, line[0])
        except Concurrent:
            if self._process.alive:
                self._later(RETRY_S if World.cluster.up else 0.05, place, lost_answer)
            return
        except KafkaException as error:
            self._fail(error)
        messages = line.popleft()
        if not lost_answer:
            self._in_flight -= len(messages)
        if line:
            self._later(_delay(), place)
        if not self._in_flight and self._flusher is not None:
            simulated.current().wake(*self._flusher)


def produce_spans(producer: Producer, topic: str, partition: int, buffer: Any, spans: Any) -> None:
    """As streams/kafka/librdkafka.py: all are tried, and what was not accepted is told afterwards."""
    messages = Messages()
    messages.add(buffer, spans)
    refused = False
    for message in messages:
        try:
            producer.produce(topic, message["value"], message["key"], partition)
        except BufferError:
            refused = True
    if refused:
        raise KafkaException(KafkaError(KafkaError._QUEUE_FULL))


class Message:
    """A consumer's message, or its error."""

    __slots__ = ("_entry", "_error", "_offset", "_partition", "_topic")

    def __init__(self, topic: str, partition: int, offset: int, entry: Entry | None = None, error: KafkaError | None = None):
        self._topic, self._partition, self._offset, self._entry, self._error = topic, partition, offset, entry, error

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def key(self) -> bytes | None:
        return self._entry.key

    def value(self) -> bytes | None:
        return self._entry.value

    def headers(self) -> list | None:
        return list(self._entry.headers) or None

    def timestamp(self) -> tuple[int, int]:
        return 2, self._entry.timestamp


class Consumer:
    """Reads what it is assigned. No member of the group."""

    def __init__(self, config: dict[str, Any], logger: Any = None):
        self._committed_only = config.get("isolation.level", "read_committed") == "read_committed"
        self._tells_ends = config.get("enable.partition.eof", False)
        self._positions: dict[tuple[str, int], int] = {}
        self._told: dict[tuple[str, int], int] = {}  # partition → the end that was reported last
        self.group = config["group.id"]
        self._fails = config.get("auto.offset.reset") == "error"  # recovery's reader
        self._ahead: deque[Message] = deque()

    def close(self) -> None:
        self._positions.clear()

    def consumer_group_metadata(self) -> Any:
        return self

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        places = [(each.topic, each.partition) for each in partitions]
        asked = World.cluster.stable_offsets if self._committed_only else World.cluster.known_offsets
        found = self._ask(timeout, lambda: asked(self.group, places))
        answers = zip(places, found, strict=True)
        return [TopicPartition(*place, OFFSET_INVALID if offset is None else offset) for place, offset in answers]

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float, cached: bool = True) -> tuple[int, int]:
        found = World.cluster.partitions[partition.topic, partition.partition]
        return self._ask(timeout, lambda: (0, found.last_stable if self._committed_only else found.end))

    def _ask(self, timeout_s: float, apply: Callable[[], Any]) -> Any:
        if World.faults.strikes("timed_out"):
            simulated.current().sleep(timeout_s)
            raise _timed_out()
        return request("read", timeout_s, apply)

    def assign(self, partitions: list[TopicPartition]) -> None:
        simulated.current().point()
        self._positions = {(each.topic, each.partition): max(each.offset, 0) for each in partitions}
        self._told.clear()
        self._ahead.clear()

    def unassign(self) -> None:
        self._positions = {}
        self._ahead.clear()

    def poll(self, timeout: float) -> Message | None:
        scheduler = simulated.current()
        scheduler.point()
        ends_at = scheduler.now + timeout
        while True:
            if self._fails and self._positions and World.faults.strikes("unreadable"):
                place = next(iter(self._positions))
                return Message(*place, 0, error=KafkaError(KafkaError._TRANSPORT))
            if message := self._next():
                return message
            if scheduler.now >= ends_at:
                return None
            wake = partial(scheduler.wake, *scheduler.me())
            for topic, _ in self._positions:
                World.cluster.watch(topic, wake)
            scheduler.block(ends_at - scheduler.now)

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        first = self.poll(timeout) if timeout > 0 else None
        found = [] if first is None else [first]
        count = min(num_messages, World.cluster.random.choice([0, 1, 3, 500]))
        while len(found) < count and (message := self._next()):
            found.append(message)
        return found

    def _next(self) -> Message | None:
        if self._ahead:
            return self._ahead.popleft()
        if not World.cluster.up:
            return None
        for (topic, number), position in self._positions.items():
            partition = World.cluster.partitions[topic, number]
            entries, after = partition.read(position, 100, self._committed_only)
            if entries:
                self._positions[topic, number] = after
                self._ahead.extend(Message(topic, number, entry.offset, entry) for entry in entries)
                return self._ahead.popleft()
            self._positions[topic, number] = after
            if self._tells_ends and (self._told.get((topic, number)) != after or after != position):
                self._told[topic, number] = after
                return Message(topic, number, after, error=KafkaError(KafkaError._PARTITION_EOF))
        return None


class AdminClient:
    def __init__(self, config: dict[str, Any]):
        pass

    def list_topics(self, timeout: float) -> Any:
        return request("read", timeout, _Topics)


class _Topics:
    def __init__(self) -> None:
        self.topics = {name: _Topic(count) for name, count in World.cluster.partition_counts.items()}


class _Topic:
    def __init__(self, count: int):
        self.partitions = dict.fromkeys(range(count))
