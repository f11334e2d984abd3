"""A model of Apache Kafka's broker: logs, transactions in two phases, consumer groups; their state, and the requests to it.

Each method of `Cluster` is one request as the broker handles it, at once; what lies between requests (time, loss) is the
clients' (clients.py). Modelled:
- partitions with dense offsets, LogAppendTime, transactional records, control markers that take an offset, last stable offset;
- the transaction coordinator: epochs, fencing, Ongoing → Prepare → markers partition by partition (the group's offsets are one
  of them, pending until then) → complete; time-outs that abort and fence;
- producer epochs as each partition knows them: from the markers, so that a zombie may still write where no marker has come yet;
- the group coordinator: join, generations, heartbeats, session time-outs, one assignment of whole partitions.
Not modelled: replication and unclean elections, retention and compaction, several brokers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from tests.simulation.scheduler import START_S, Scheduler

MARKER = object()
OURS, RIVAL = "sim", "rival"
"""The `app_id`s of the workers, each a group of its own."""


class Concurrent(Exception):
    """CONCURRENT_TRANSACTIONS: ask again."""


def failure(code: int, text: str = "", **flags: bool) -> KafkaException:
    """What confluent-kafka raises."""
    return KafkaException(KafkaError(code, text or KafkaError(code).str(), **flags))


class Entry:
    """A record of a log, in the shape that both the flow's records and the audit's have."""

    __slots__ = ("headers", "key", "offset", "timestamp", "transaction", "value")

    def __init__(self, offset: int, timestamp: int, key: Any, value: Any, headers: Any, transaction: "Transaction | None"):
        self.offset, self.timestamp, self.key, self.value = offset, timestamp, key, value
        self.headers, self.transaction = headers, transaction


@dataclass(eq=False, slots=True)
class Transaction:
    """One transaction; `state`: ongoing, commit, abort (both decided), and `unmarked` still to learn of it."""

    owner: str
    epoch: int
    started_at: float
    state: str = "ongoing"
    unmarked: set = field(default_factory=set)
    """Partitions, and None for the group's offsets."""
    offsets: dict[tuple[str, tuple[str, int]], tuple[int, int]] = field(default_factory=dict)
    """Group and partition → number of the record that says so, and the offset."""
    ended_by_request: int = -1
    """The epoch in which its producer asked for its end, by the newer protocol."""

    @property
    def over(self) -> bool:
        return self.state != "ongoing" and not self.unmarked


class Partition:
    """A partition's log."""

    def __init__(self, topic: str, number: int):
        self.topic, self.number = topic, number
        self.entries: list[Entry] = []
        self.open: dict[Transaction, int] = {}  # transaction without a marker yet → its first offset
        self.epochs: dict[str, int] = {}  # transactional id → epoch of its last marker
        self.sequences: dict[tuple[str, int], int] = {}  # transactional id and epoch → next sequence number

    @property
    def end(self) -> int:
        return len(self.entries)

    @property
    def last_stable(self) -> int:
        return min(self.open.values(), default=len(self.entries))

    def read(self, start: int, count: int, committed: bool = True) -> tuple[list[Entry], int]:
        """Give up to `count` visible records from `start` on, and where to read on."""
        found: list[Entry] = []
        at, end = start, self.last_stable if committed else self.end
        while at < end and len(found) < count:
            entry = self.entries[at]
            at += 1
            if entry.value is not MARKER and not (committed and entry.transaction and entry.transaction.state != "commit"):
                found.append(entry)
        return found, max(at, start)


@dataclass(slots=True)
class Producer:
    """What the transaction coordinator knows of a transactional id."""

    epoch: int = -1
    timeout_s: float = 60.0
    transaction: Transaction | None = None


@dataclass(slots=True)
class Member:
    heard_at: float
    joining: bool = False


class Group:
    """A consumer group and its coordinator: who is in it, and who reads what."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.members: dict[str, Member] = {}
        self.generation = 0
        self.assignment: dict[str, list[int]] = {}
        self.rebalancing = False
        self.began_at = 0.0
        self.committed: dict[tuple[str, int], int] = {}
        self.applied: dict[tuple[str, int], int] = {}  # the record that said so
        self.pending: dict[tuple[str, int], list[Transaction]] = {}

    def join(self, member: str) -> None:
        """Enter the group, or come back for its next generation."""
        group = self
        group.members[member] = Member(self.cluster.scheduler.now, joining=True)
        self._rebalance()

    def leave(self, member: str) -> None:
        if self.members.pop(member, None) is not None:
            self._rebalance()

    def heartbeat(self, member: str, generation: int) -> str:
        """Stay in the group; answers ok, rebalance or unknown."""
        group = self
        if member not in group.members:
            return "unknown"
        group.members[member].heard_at = self.cluster.scheduler.now
        return "ok" if generation == group.generation and not group.rebalancing else "rebalance"

    def assigned(self, member: str, generation: int) -> tuple[int, list[int]] | None:
        """Give (generation, partitions) once a rebalance later than `generation` is over; None until then."""
        group = self
        if group.rebalancing and member in group.members and not group.members[member].joining:
            self.join(member)  # what it was assigned is void before it heard of it: SyncGroup's answer sends it back
        if group.rebalancing or group.generation <= generation or member not in group.assignment:
            return None
        return group.generation, group.assignment[member]

    def expire_members(self) -> None:
        """Put out who was not heard of; called every now and then."""
        if self.cluster.up:
            for name, member in list(self.members.items()):
                if not member.joining and self.cluster.scheduler.now - member.heard_at > self.cluster.session_s:
                    self.cluster.scheduler.log(f"{name} is put out of the group")
                    self.leave(name)

    def forgive(self) -> None:
        """A coordinator that comes up gives everybody a session anew."""
        for member in self.members.values():
            member.heard_at = self.cluster.scheduler.now

    def _rebalance(self) -> None:
        group = self
        if not group.members:
            group.generation += 1
            group.assignment, group.rebalancing = {}, False
            return
        if not group.rebalancing:
            group.rebalancing, group.began_at = True, self.cluster.scheduler.now
        if all(member.joining for member in group.members.values()):
            self._assign()

    def _assign(self) -> None:
        group, names = self, sorted(self.members)
        group.generation += 1
        former = {number: name for name, numbers in group.assignment.items() for number in numbers}
        group.assignment = {name: [] for name in names}
        for number in range(self.cluster.assigned_count):
            sticky = former.get(number) in group.assignment and self.cluster.random.random() < 0.7
            fewest = min(len(numbers) for numbers in group.assignment.values())
            free = [name for name in names if len(group.assignment[name]) == fewest]
            group.assignment[former[number] if sticky else self.cluster.random.choice(free)].append(number)
        for member in group.members.values():
            member.joining, member.heard_at = False, self.cluster.scheduler.now
        group.rebalancing = False
        self.cluster.scheduler.log(f"generation {group.generation}: {group.assignment}")


class Cluster:
    """The brokers, as one."""

    def __init__(self, scheduler: Scheduler, partition_counts: dict[str, int], session_s: float):
        self.scheduler = scheduler
        self.random = scheduler.random
        self.session_s = session_s
        self.up = True
        self.partition_counts = partition_counts
        self.partitions = {
            (topic, number): Partition(topic, number) for topic, count in partition_counts.items() for number in range(count)
        }
        self.producers: dict[str, Producer] = {}
        self.groups = {name: Group(self) for name in (OURS, RIVAL)}
        self.marker_delay_s = self.random.choice([0.0005, 0.005, 0.05])
        self.watchers: dict[str, list[Callable[[], None]]] = {topic: [] for topic in partition_counts}
        self.assigned_count = max(partition_counts.values())
        self.transactions = 0
        self.offset_records = 0
        self.changes = 0  # of what can be read

    # Logs

    def append(self, topic: str, number: int, messages: Iterable[tuple], transaction: Transaction | None = None) -> None:
        """Append (key, value, headers) at the log's own time."""
        partition = self.partitions[topic, number]
        now = self.now_ms()
        if transaction is not None and transaction not in partition.open:
            partition.open[transaction] = partition.end
        for key, value, headers in messages:
            partition.entries.append(Entry(partition.end, now, key, value, headers or (), transaction))
        if transaction is None:
            self._moved(topic)

    def append_marker(self, topic: str, number: int) -> None:
        """Append a control record of nobody's: a gap in the offsets of what can be read."""
        partition = self.partitions[topic, number]
        partition.entries.append(Entry(partition.end, self.now_ms(), None, MARKER, (), None))

    def now_ms(self) -> int:
        return int((START_S + self.scheduler.now) * 1000)

    def watch(self, topic: str, tell: Callable[[], None]) -> None:
        """Have `tell` called once, when more of a topic can be read."""
        self.watchers[topic].append(tell)

    def _moved(self, topic: str) -> None:
        self.changes += 1
        if told := self.watchers[topic]:
            self.watchers[topic] = []
            for tell in told:
                tell()

    # The transaction coordinator. What ends in `_2` is of the newer protocol, transaction version 2.

    def init_producer(self, name: str, timeout_s: float) -> int:
        producer = self.producers.setdefault(name, Producer())
        transaction = producer.transaction
        if transaction is not None and not transaction.over:
            if transaction.state == "ongoing":
                producer.epoch += 1  # from here on the former is fenced
                self._end(producer, "abort")
            raise Concurrent
        producer.epoch += 1
        producer.timeout_s = timeout_s
        return producer.epoch

    def add_partition(self, name: str, epoch: int, place: tuple[str, int]) -> None:
        """Have a partition in the transaction: what a client asks before it first writes there."""
        self._ongoing(self.producers[name], name, epoch).unmarked.add(self.partitions[place])

    def produce(self, name: str, epoch: int, place: tuple[str, int], messages: list[tuple]) -> None:
        """Append to a partition of the transaction; the partition knows epochs only, not what the coordinator has decided."""
        transaction, partition = self.producers[name].transaction, self.partitions[place]
        if partition.epochs.get(name, -1) > epoch:
            raise failure(KafkaError.INVALID_PRODUCER_EPOCH)
        if partition not in transaction.unmarked:
            raise failure(KafkaError.INVALID_TXN_STATE)
        partition.epochs[name] = epoch
        self.append(*place, messages, transaction)

    def produce_2(self, name: str, epoch: int, sequence: int, place: tuple[str, int], messages: list[tuple]) -> None:
        """Append, and have the partition in the transaction; what is repeated is known by its sequence number."""
        partition = self.partitions[place]
        if partition.epochs.get(name, -1) > epoch or self.producers[name].epoch > epoch:
            raise failure(KafkaError.INVALID_PRODUCER_EPOCH)
        transaction = self._ongoing(self.producers[name], name, epoch)
        expected = partition.sequences.get((name, epoch), 0)
        if sequence < expected:
            return  # a repetition
        if sequence > expected:
            raise failure(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
        transaction.unmarked.add(partition)
        partition.epochs[name] = epoch
        partition.sequences[name, epoch] = sequence + len(messages)
        self.append(*place, messages, transaction)

    def end_transaction_2(self, name: str, epoch: int, state: str) -> int:
        """Decide a transaction; give the producer's next epoch. Asked again it says so again."""
        producer = self.producers[name]
        transaction = producer.transaction
        if producer.epoch == epoch + 1 and transaction is not None and transaction.ended_by_request == epoch:
            if not transaction.over:
                raise Concurrent
            if transaction.state == state:
                return producer.epoch
        if producer.epoch > epoch:
            raise failure(KafkaError.PRODUCER_FENCED)
        if transaction is None or transaction.state != "ongoing":
            raise failure(KafkaError.INVALID_TXN_STATE)
        producer.epoch += 1
        transaction.ended_by_request = epoch
        self._end(producer, state)
        return producer.epoch

    def add_offsets(self, name: str, epoch: int, offsets: dict[tuple[str, int], int], group: str) -> None:
        transaction = self._ongoing(self.producers[name], name, epoch)
        transaction.unmarked.add(None)
        for place, offset in offsets.items():
            self.offset_records += 1
            transaction.offsets[group, place] = self.offset_records, offset
            pending = self.groups[group].pending.setdefault(place, [])
            if transaction not in pending:
                pending.append(transaction)

    def end_transaction(self, name: str, epoch: int, state: str) -> None:
        """Decide a transaction: "commit" or "abort". That it is decided is all the answer says."""
        producer = self.producers[name]
        if producer.epoch > epoch:
            raise failure(KafkaError.PRODUCER_FENCED)
        transaction = producer.transaction
        if transaction is None or transaction.state == state:
            return  # asked again
        if transaction.state != "ongoing":
            raise failure(KafkaError.INVALID_TXN_STATE)
        self._end(producer, state)

    def _ongoing(self, producer: Producer, name: str, epoch: int) -> Transaction:
        if producer.epoch > epoch:
            raise failure(KafkaError.PRODUCER_FENCED)
        transaction = producer.transaction
        if transaction is not None and not transaction.over:
            if transaction.state != "ongoing":
                raise Concurrent
            return transaction
        transaction = producer.transaction = Transaction(name, epoch, self.scheduler.now)
        self.transactions += 1
        self.scheduler.at(producer.timeout_s, lambda: self._time_out(producer, transaction))
        return transaction

    def _time_out(self, producer: Producer, transaction: Transaction) -> None:
        if transaction.state != "ongoing":
            return
        if not self.up:
            self.scheduler.at(0.5, lambda: self._time_out(producer, transaction))
            return
        self.scheduler.log(f"{transaction.owner}: transaction timed out")
        producer.epoch += 1
        self._end(producer, "abort")

    def _end(self, producer: Producer, state: str) -> None:
        transaction = producer.transaction
        transaction.state = state
        epoch = producer.epoch
        self.scheduler.log(f"{transaction.owner}: {state} decided")
        # In the order of their names: a set's own order is not the seed's.
        for place in sorted(transaction.unmarked, key=lambda each: ("", 0) if each is None else (each.topic, each.number)):
            self.scheduler.at(self.random.random() * self.marker_delay_s, partial(self._mark, transaction, place, epoch))

    def _mark(self, transaction: Transaction, place: Partition | None, epoch: int) -> None:
        if not self.up:
            self.scheduler.at(0.1, lambda: self._mark(transaction, place, epoch))
            return
        if place is None:
            for (group, name), (record, offset) in transaction.offsets.items():
                found = self.groups[group]
                found.pending[name].remove(transaction)
                # Of two transactions that are pending at once the one with the later record counts, whichever ends first.
                if transaction.state == "commit" and record > found.applied.get(name, 0):
                    found.committed[name], found.applied[name] = offset, record
        else:
            place.entries.append(Entry(place.end, self.now_ms(), None, MARKER, (), transaction))
            place.open.pop(transaction, None)
            place.epochs[transaction.owner] = max(epoch, place.epochs.get(transaction.owner, -1))
            self._moved(place.topic)
        transaction.unmarked.discard(place)

    def settled(self) -> bool:
        """Whether no transaction is open or undecided anywhere."""
        return all(producer.transaction is None or producer.transaction.over for producer in self.producers.values())

    # The group coordinators

    @property
    def owner(self) -> str:
        """Whose the topics are: the `app_id` of the first claim that is committed; before it ours."""
        first, _ = self.partitions["inventory-changelog.v1", 0].read(0, 1)
        return dict(first[0].headers)["owner"].decode() if first else OURS

    @property
    def group(self) -> Group:
        """The owner's."""
        return self.groups[self.owner]

    def expire_members(self) -> None:
        for group in self.groups.values():
            group.expire_members()

    def forgive(self) -> None:
        for group in self.groups.values():
            group.forgive()

    def stable_offsets(self, name: str, places: list[tuple[str, int]]) -> list[int | None]:
        """Give the committed offsets, none of which a pending transaction may change."""
        if any(self.groups[name].pending.get(place) for place in places):
            raise Concurrent
        return self.known_offsets(name, places)

    def known_offsets(self, name: str, places: list[tuple[str, int]]) -> list[int | None]:
        """Give the committed offsets, also those that a pending transaction may change."""
        return [self.groups[name].committed.get(place) for place in places]
