"""Faust's Kafka transport, set for whole batches: the worker's membership in the consumer group and its fetching.

Registered as the scheme `nearshelf://` (entry point `faust.transports`). Faust and aiokafka keep the membership, heartbeats
and fetch requests; this module changes five things of their driver:
1. fetch wait, fetch size and isolation level, which the driver fixes, come from the settings;
2. a fetch is handed on as `Fetched` ranges, their bytes read into columns by a kernel (aiokafka and the driver make two
   objects per record: 3 µs), all of an agent's in one message, and fetches do not follow each other more closely than
   `fetch_pause_ms`: under many small appends the fetching would take a core;
3. a partition whose backlog is full is left out of the fetch requests, and only it: the driver would sleep a second, or hold
   up all partitions of a broker;
4. after a rebalance it seeks to the positions of the partitions' owners, never to what the group coordinator remembers;
5. it gives the flows the contract's names of topics; Faust and aiokafka know the cluster's (names.py).

Invariant: a range's `start` is where the fetch was read from, so its taker can tell whether anything between was lost.
Not here: what becomes of the records (flow.py), who owns what (app.py). This and app.py are all that know of Faust's driver.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import ConsumerStoppedError, KafkaConnectionError
from aiokafka.record.memory_records import MemoryRecords
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.kafka.names import on_cluster
from streams.kafka.record_batches import read_batches
from topics.codec.records import Records

log = logging.getLogger("nearshelf.transport")

RETRY_S = 1.0


@dataclass(slots=True)
class Fetched:
    """One fetch of one partition: the log from `start` up to `end`, of which `records` is all that is visible.

    Aborted transactions, markers and what compaction took away leave no records, so `records` may be empty and its offsets
    may have gaps; the range has none.
    """

    topic: str
    partition: int
    start: int
    end: int
    records: Records
    highwater: int


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread in which aiokafka runs; everything here but `throttle` is called in it."""

    logger = logging.getLogger("faust.transport")

    _drain_at = 0.0  # monotonic seconds: not before

    async def on_start(self) -> None:
        """Start aiokafka's consumer, as soon as a broker answers: it gives up at the first attempt."""
        while True:
            try:
                return await super().on_start()
            except KafkaConnectionError as error:
                log.warning("no broker answers, trying again: %s", error)
                await self._consumer.stop()
                await asyncio.sleep(RETRY_S)

    def _create_worker_consumer(self, transport: "Transport") -> Any:
        consumer = super()._create_worker_consumer(transport)
        settings = self.app.settings
        consumer._fetch_max_wait_ms = settings.fetch_wait_ms
        consumer._fetch_max_bytes = settings.fetch_bytes
        consumer._isolation_level = "read_committed"
        return consumer

    def throttle(self, tps: Iterable[TP], held: bool) -> None:
        """Leave partitions out of the fetch requests, or take them in again; from any thread."""
        if not self.thread_loop.is_closed():
            self.thread_loop.call_soon_threadsafe(self._throttle, tuple(tps), held)

    def _throttle(self, tps: tuple[TP, ...], held: bool) -> None:
        subscription = self._ensure_consumer()._subscription
        for tp in tps:
            if subscription.is_assigned(tp):
                (subscription.pause if held else subscription.resume)(tp)

    async def _fetch_records(
        self, consumer: Any, active_partitions: set[TP], timeout: float = 0, max_records: int | None = None
    ) -> dict[TP, Fetched]:
        if not self.consumer.flow_active:
            return {}
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError()
        with fetcher._subscriptions.fetch_context():
            if fetcher._subscriptions.reassignment_in_progress:
                await asyncio.sleep(0.02)  # Faust is about to stop the flow
                return {}
            if not fetcher._records:
                waiter = fetcher._create_fetch_waiter()
                done, _ = await asyncio.wait([waiter], timeout=timeout)
                if not done:
                    waiter.cancel()
                    return {}
                waiter.result()  # raises what the group coordinator can't recover from
            pause_s = self._drain_at - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            self._drain_at = time.monotonic() + self.app.settings.fetch_pause_ms / 1000
            return self._drain(fetcher, active_partitions)

    def _drain(self, fetcher: Any, active_partitions: set[TP]) -> dict[TP, Fetched]:
        """Take all that is fetched, held partitions' too: what waits here holds up the next fetch of its whole broker."""
        taken = {}
        for tp in list(fetcher._records):
            if tp not in active_partitions and fetcher._subscriptions.is_assigned(tp):
                continue
            result = fetcher._records.pop(tp)
            if not isinstance(result, FetchResult):
                fetcher._notify(fetcher._wait_consume_future)
                result.check_raise()
            elif result._assignment.active:
                fetched = read(result._partition_records, result._assignment.state_value(tp))
                if fetched is not None:
                    fetched.topic = tp.topic.removeprefix(self.app.settings.topic_prefix)
                    taken[TP(*tp)] = fetched
        fetcher._notify(fetcher._wait_consume_future)
        return taken


class KeptRecords(MemoryRecords):
    """A fetch response's records as bytes; aiokafka's parser is only asked whether there are any."""

    def __init__(self, content: bytes):
        super().__init__(content)
        self.content = content


aiokafka_fetcher.MemoryRecords = KeptRecords


def read(source: PartitionRecords, state: Any) -> Fetched | None:
    """Unpack one fetch response and move the fetch position past it; None if the position was moved meanwhile."""
    start = source.next_fetch_offset
    if not state.has_valid_position or state.position != start:
        return None
    records, end = read_batches(source._records.content, start, source._aborted_transactions)
    state.consumed_to(end)
    return Fetched(*source._tp, start, end, records, state.highwater)


class Consumer(driver.Consumer):
    """Faust's consumer; everything here is called on Faust's event loop."""

    logger = logging.getLogger("faust.transport")

    _thread: ConsumerThread

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, fetch: list[Fetched]) -> ConsumerMessage:
        # Faust knows a message's place by its offset: the first range's last one stands for all of it.
        return ConsumerMessage(
            tp.topic, tp.partition, fetch[0].end - 1, time.time(), 0, (), None, fetch, None, 0, 0, tp,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def _wait_next_records(self, timeout: float) -> tuple[dict[TP, list[Fetched]], set[TP]]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        active = self._get_active_partitions()
        if active:
            taken = await self._getmany(active_partitions=active, timeout=timeout)
            return self._by_agent(taken), active
        await self.sleep(0.05)
        return {}, active

    def _by_agent(self, taken: dict[TP, Fetched]) -> dict[TP, list[Fetched]]:
        """Put what an agent gets of a fetch into one message, under its first partition: each costs half a millisecond."""
        messages: dict[str, list[Fetched]] = {}
        first: dict[str, TP] = {}
        for tp, fetched in taken.items():
            agent = self.app.flows.agent_of(fetched.topic)
            messages.setdefault(agent, []).append(fetched)
            first.setdefault(agent, tp)
        return {first[agent]: fetch for agent, fetch in messages.items()}

    # By the contract's names

    def owned(self) -> set[TP]:
        """Give the partitions that are assigned."""
        prefix = self.app.settings.topic_prefix
        return {TP(tp.topic.removeprefix(prefix), tp.partition) for tp in self.assignment()}

    def throttle(self, tps: Iterable[TP], held: bool) -> None:
        """Stop fetching partitions whose backlog is full, or go on; from any thread."""
        self._thread.throttle([self._on_cluster(tp) for tp in tps], held)

    async def seek_owned(self, positions: dict[TP, int]) -> None:
        """Fetch on from these positions, of those partitions that are assigned."""
        wanted = {self._on_cluster(tp): offset for tp, offset in positions.items()}
        assignment = self.assignment()
        await self.seek_wait({tp: offset for tp, offset in wanted.items() if tp in assignment})

    def _on_cluster(self, tp: TP) -> TP:
        return TP(on_cluster(self.app.settings, tp.topic), tp.partition)

    async def perform_seek(self) -> None:
        await self.seek_owned(self.app.flows.positions())

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: the driver judges by Faust's acks and commits, of which there are none."""


class Transport(driver.Transport):
    """`nearshelf://host:port`."""

    Consumer = Consumer
    driver_version = f"nearshelf on {driver.Transport.driver_version}"
