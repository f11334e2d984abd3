"""A downstream service that trusts nobody: it reads committed decisions and cells as they come, and checks each.

`Watch` is the check, fed by hand in its own tests; `Reader` is the thread that feeds it. All along:
1. a pool's decisions are numbered 1, 2, 3, ... and no allocation id comes twice;
2. a cell's versions grow, its `available` is what the contract says, and nothing is reserved below zero;
3. of a SKU that only orders touch, no cell has more reserved than on hand (a parcel that left against its order may take
   that below zero; then nothing is reserved), and no more is promised than was ever received;
4. (at rest, `reread`) what was read is what the log says: no decision was changed or taken back.
It also tells how long a pool was without a decision after a fault.
Not here: whether a decision is the right one (the audit's, at rest).
"""

import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.chaos.load import ORDERS_ONLY, taken

DECISIONS, CELLS, TRANSFERS = "allocations.v1", "inventory.v1", "transfers.v1"


@dataclass(slots=True)
class Recovery:
    """The wait, after a fault, for each of some pools to have a decision on something that came after the fault."""

    at_ms: float
    pools: set[str]
    seconds: float | None = None
    """Until the last of them had it; None while it lasts."""
    _waiting: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._waiting = set(self.pools)

    @property
    def share(self) -> float:
        """Of the pools that go on already."""
        return 1 - len(self._waiting) / max(1, len(self.pools))

    def see(self, pool: str, decided_at: int, now_ms: float) -> None:
        if decided_at > self.at_ms and pool in self._waiting:
            self._waiting.discard(pool)
            if not self._waiting:
                self.seconds = (now_ms - self.at_ms) / 1000


class Watch:
    """What is known from the records read so far.

    Parameters
    ----------
    received : mapping
        (Pool, SKU that only orders touch) → units ever sent; asked after the decision was read, so never too low.
    learn : callable
        Told each decision.
    """

    def __init__(self, received: Mapping[tuple[str, str], int], learn: Callable[[dict], None] = lambda decision: None):
        self.violations: list[str] = []
        self.decisions = 0
        self.cells = 0
        self._received = received
        self._learn = learn
        self._lock = threading.Lock()
        self._recoveries: list[Recovery] = []
        self._sequences: Counter[str] = Counter()  # pool → its last decision's number
        self._ids: set[str] = set()
        self._promised: Counter[tuple[str, str]] = Counter()
        self._orders: dict[tuple[str, str], Counter[str]] = {}  # (pool, order) → SKU that only orders touch → units promised
        self._versions: Counter[bytes] = Counter()
        self._marks: dict[int, list[tuple[int, int]]] = defaultdict(list)  # partition → (offset, sum) of each decision

    def expect(self, at_ms: float, pools: Iterable[str]) -> Recovery:
        """Measure how long these pools take to go on after a fault at that time."""
        recovery = Recovery(at_ms, set(pools))
        if recovery.pools:
            with self._lock:
                self._recoveries.append(recovery)
        return recovery

    def recovering(self) -> list[Recovery]:
        with self._lock:
            return [recovery for recovery in self._recoveries if recovery.seconds is None]

    def decision(self, partition: int, offset: int, value: bytes, now_ms: float) -> None:
        """Take one record of allocations.v1."""
        found = orjson.loads(value)
        pool, sequence, place = found["pool_id"], found["sequence"], f"{DECISIONS}[{partition}]@{offset}"
        expected = self._sequences[pool] + 1
        if sequence != expected:
            self._blame(f"{place}: decision {expected} of pool {pool} expected, found {sequence} ({found['allocation_id']})")
        self._sequences[pool] = max(sequence, expected - 1)
        if found["allocation_id"] in self._ids:
            self._blame(f"{place}: {found['allocation_id']} was there already")
        self._ids.add(found["allocation_id"])
        self._marks[partition].append((offset, zlib.crc32(value)))
        self._promise(pool, found, place)
        self.decisions += 1
        with self._lock:
            self._recoveries = [recovery for recovery in self._recoveries if recovery.seconds is None]
            for recovery in self._recoveries:
                recovery.see(pool, found["decided_at"], now_ms)
        self._learn(found)

    def _promise(self, pool: str, found: dict[str, Any], place: str) -> None:
        """Replace what the order was promised by what it is promised now."""
        new: Counter[str] = Counter()
        for line in (line for shipment in found["shipments"] for line in shipment["lines"]):
            new.update({sku: units for sku, units in taken(line).items() if sku in ORDERS_ONLY})
        old = self._orders.get((pool, found["order_id"]), Counter())
        for sku in {*new, *old}:
            self._promised[pool, sku] += new[sku] - old[sku]
            if self._promised[pool, sku] > self._received[pool, sku]:
                self._blame(
                    f"{place}: {self._promised[pool, sku]} units of {sku} are promised in pool {pool}, "
                    f"where {self._received[pool, sku]} were ever received"
                )
        self._orders[pool, found["order_id"]] = new

    def cell(self, partition: int, offset: int, key: bytes, value: bytes) -> None:
        """Take one record of inventory.v1."""
        found = orjson.loads(value)
        place = f"{CELLS}[{partition}]@{offset} ({key.decode()})"
        if found["version"] <= self._versions[key]:
            self._blame(f"{place}: version {found['version']} after version {self._versions[key]}")
        self._versions[key] = found["version"]
        on_hand, reserved = found["on_hand"], found["reserved"]
        if reserved < 0:
            self._blame(f"{place}: {reserved} reserved")
        if found["available"] != max(0, on_hand - reserved - found["safety_stock"]):
            self._blame(f"{place}: {found['available']} available of {on_hand} on hand, {reserved} reserved")
        if found["sku"] in ORDERS_ONLY and reserved > max(on_hand, 0):
            self._blame(f"{place}: oversold: {reserved} reserved of {on_hand} on hand")
        self.cells += 1

    def transfer(self, partition: int, offset: int, key: bytes, value: bytes | None) -> None:
        """Take one record of transfers.v1."""
        if value is None:
            return
        found = orjson.loads(value)
        sent, received, place = found["sent"], found["received"], f"{TRANSFERS}[{partition}]@{offset} ({key.decode()})"
        if found["open"] != max(0, sent - received):
            self._blame(f"{place}: {found['open']} open of {sent} sent, {received} received")
        if (found["status"] == "received") != (sent == received) or (found["status"] == "excess") != (received > sent):
            self._blame(f"{place}: {found['status']} with {sent} sent, {received} received")

    def reread(self, partition: int, messages: Iterable[Any]) -> None:
        """Compare what was read with the log as it is now."""
        now = [(message.offset(), zlib.crc32(message.value())) for message in messages]
        if now != self._marks[partition]:
            differing = sorted(set(now) ^ set(self._marks[partition]))
            self._blame(
                f"{DECISIONS}[{partition}]: {len(self._marks[partition])} decisions were read as they came, {len(now)} stand "
                f"in the log; first difference at offset {differing[0][0] if differing else '?'}"
            )

    def _blame(self, what: str) -> None:
        self.violations.append(what)


class Reader(threading.Thread):
    """Reads both topics from their beginning, committed records only, until stopped."""

    def __init__(self, address: str, watch: Watch, partitions: int):
        super().__init__(name="reader", daemon=True)
        self.watch = watch
        self.failure: str | None = None
        self._ended = threading.Event()
        self._reached: Counter[tuple[str, int]] = Counter()  # where the log ended when its end was last met
        self._consumer = Consumer(
            {
                "bootstrap.servers": address,
                "group.id": "chaos-reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 20,
                "fetch.queue.backoff.ms": 5,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._consumer.assign(
            [TopicPartition(topic, partition, 0) for topic in (DECISIONS, CELLS, TRANSFERS) for partition in range(partitions)]
        )

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                for message in self._consumer.consume(500, 0.02):
                    if message.error() is None:
                        self._take(message)
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        self._reached[message.topic(), message.partition()] = message.offset()
                    elif not message.error().retriable():
                        raise RuntimeError(str(message.error()))
        except Exception as error:
            self.failure = f"the reader stopped: {error!r}"

    def _take(self, message: Any) -> None:
        if message.topic() == DECISIONS:
            self.watch.decision(message.partition(), message.offset(), message.value(), time.time() * 1000)
        elif message.topic() == TRANSFERS:
            self.watch.transfer(message.partition(), message.offset(), message.key(), message.value())
        else:
            self.watch.cell(message.partition(), message.offset(), message.key(), message.value())

    def at(self, ends: Mapping[tuple[str, int], int], timeout_s: float) -> bool:
        """Wait until everything below these ends is read; false if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.failure is None:
            if all(self._reached[place] >= end for place, end in ends.items()):
                return True
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        self._ended.set()
        self.join()
        self._consumer.close()
