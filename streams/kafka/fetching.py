"""Fetching: the log of the assigned partitions, read by threads of our own and handed on as bytes in columns.

Faust keeps the membership: it says which partitions are ours (transport.py). Its own way of fetching, aiokafka's, goes through
two event loops and took 4 ms of CPU a fetch: half of a core at a hundred small fetches a second.

    finder   asks who leads the partitions that have no leader yet
    readers  one thread a leader: Fetch → kernel → `take`, and again

Owner: the worker's flows. They say which partitions, from where (`assign`, `seek`), and which to leave out (`throttle`).
Invariants: a range's `start` is where the fetch was read from, so its taker can tell whether anything between was lost. What
was asked for before the last `assign` or `seek` of a partition is not handed on, unless that came while it was being handed on.
Not here: what becomes of the records (worker/flow.py), who owns what (worker/app.py).
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kio.schema.errors import ErrorCode
from kio.schema.fetch.v12.request import FetchPartition, FetchRequest, FetchTopic
from kio.schema.fetch.v12.response import FetchResponse
from kio.schema.types import BrokerId, TopicName
from kio.static.primitive import i8, i32, i32Timedelta, i64

from streams.kafka.brokers import Address, Brokers
from streams.kafka.names import on_cluster
from streams.kafka.record_batches import read_batches
from streams.kafka.wire import Disconnected
from topics.codec.records import Records

log = logging.getLogger("nearshelf.fetching")

RETRY_S = 0.2
ELSEWHERE = {
    ErrorCode.fenced_leader_epoch,
    ErrorCode.kafka_storage_error,
    ErrorCode.leader_not_available,
    ErrorCode.not_leader_or_follower,
    ErrorCode.offset_not_available,
    ErrorCode.replica_not_available,
    ErrorCode.unknown_leader_epoch,
    ErrorCode.unknown_topic_or_partition,
}
"""The leader is looked up anew."""
_COMMITTED = i8(1)  # isolation level
_NOBODY = i32(-1)


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


Place = tuple[str, int]
"""Topic by the contract's name, partition."""


@dataclass(slots=True, eq=False)
class _Position:
    """Where a partition is fetched from."""

    place: Place
    offset: int
    leader: Address | None = None
    held: bool = False
    lost: bool = False  # the log has no such offset
    told: ErrorCode = ErrorCode.none  # what was logged last of why it waits


class Fetcher:
    """Fetches committed records of the assigned partitions.

    Parameters
    ----------
    settings
        `bootstrap_servers`, `topic_prefix`, `app_id`, `fetch_wait_ms`, `fetch_pause_ms`, `fetch_bytes`, `request_timeout_ms`.
    take : callable
        Given each `Fetched`, in a thread of the fetcher's; those of a partition in order.
    lost : callable
        Told (topic, partition, offset) when the log does not have the offset; it is not fetched until the next `seek`.
    failed : callable
        Told what ends a thread.
    """

    def __init__(
        self,
        settings: Any,
        take: Callable[[Fetched], None],
        lost: Callable[[str, int, int], None],
        failed: Callable[[BaseException], None],
    ):
        self._settings = settings
        self._take, self._lost, self._failed = take, lost, failed
        self._timeout_s = settings.request_timeout_ms / 1000
        self._condition = threading.Condition()
        self._positions: dict[Place, _Position] = {}
        self._held: set[Place] = set()
        self._readers: set[Address] = set()
        self._closed = False
        self._start("fetch-finder", self._find)

    # Called by the flows, from any thread

    def assign(self, offsets: Mapping[Any, int]) -> None:
        """Fetch these partitions, from these offsets, and no others."""
        with self._condition:
            leaders = {place: each.leader for place, each in self._positions.items()}
            self._positions = {
                place: _Position(place, offset, leaders.get(place), place in self._held) for place, offset in offsets.items()
            }
            self._condition.notify_all()

    def seek(self, place: Place, offset: int) -> bool:
        """Fetch an assigned partition from another offset; false if it is not assigned."""
        with self._condition:
            former = self._positions.get(place)
            if former is None:
                return False
            self._positions[place] = _Position(place, offset, former.leader, former.held)
            self._condition.notify_all()
            return True

    def throttle(self, places: Iterable[Place], held: bool) -> None:
        """Leave partitions out, or take them in again."""
        with self._condition:
            for place in places:
                (self._held.add if held else self._held.discard)(place)
                if place in self._positions:
                    self._positions[place].held = held
            self._condition.notify_all()

    def close(self) -> None:
        """Fetch no more; threads end when their requests do."""
        with self._condition:
            self._closed = True
            self._positions.clear()
            self._condition.notify_all()

    # Threads

    def _start(self, name: str, run: Callable[..., None], *given: Any) -> None:
        def guarded() -> None:
            try:
                run(*given)
            except BaseException as error:
                log.critical("%s stopped: %s", name, error)
                self._failed(error)

        threading.Thread(target=guarded, name=name, daemon=True).start()

    def _find(self) -> None:
        """Look up the leaders of partitions that have none, and start a reader for each new leader."""
        brokers, told = Brokers(self._settings.bootstrap_servers, "nearshelf-finder"), ""
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._homeless())
                if self._closed:
                    return brokers.close()
                homeless = self._homeless()
            names = {on_cluster(self._settings, each.place[0]): each.place[0] for each in homeless}
            try:
                found, missing = brokers.leaders(sorted(names), self._timeout_s)
                why = ", ".join(f"{topic}: {code.name}" for topic, code in missing.items())
            except Disconnected as error:
                found, why = {}, str(error)
            if why != told:
                told = why
                log.log(logging.WARNING if why else logging.INFO, "fetching %s", f"waits: {why}" if why else "goes on")
            with self._condition:
                for (name, partition), leader in found.items():
                    place = names[name], partition
                    if place in self._positions and self._positions[place].leader is None:
                        self._positions[place].leader = leader
                for address in {each.leader for each in self._positions.values() if each.leader} - self._readers:
                    self._readers.add(address)
                    self._start(f"fetch-{address[0]}:{address[1]}", self._read, address)
                self._condition.notify_all()
                if self._homeless():
                    self._condition.wait(RETRY_S)

    def _homeless(self) -> list[_Position]:
        return [each for each in self._positions.values() if each.leader is None]

    def _ready(self, leader: Address) -> list[_Position]:
        return [each for each in self._positions.values() if each.leader == leader and not each.held and not each.lost]

    def _read(self, leader: Address) -> None:
        """Fetch what a broker leads."""
        settings = self._settings
        brokers, pause_s = Brokers(settings.bootstrap_servers, "nearshelf-fetcher"), settings.fetch_pause_ms / 1000
        patience_s = settings.fetch_wait_ms / 1000 + self._timeout_s
        next_at = 0.0
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._ready(leader))
                if self._closed:
                    return brokers.close()
            if (early_s := next_at - time.monotonic()) > 0:
                time.sleep(early_s)
            with self._condition:
                wanted = {each.place: (each, each.offset) for each in self._ready(leader)}
            if not wanted:
                continue
            next_at = time.monotonic() + pause_s
            try:
                answer = brokers.reach(leader, self._timeout_s).call(self._request(wanted), FetchResponse, patience_s)
            except Disconnected as error:
                log.debug("fetching from %s:%d: %s", *leader, error)
                self._forget(each for each, _ in wanted.values())
                time.sleep(RETRY_S)
                continue
            if not self._judge(answer, wanted):
                time.sleep(RETRY_S)

    def _request(self, wanted: dict[Place, tuple[_Position, int]]) -> FetchRequest:
        topics = defaultdict(list)
        for (topic, partition), (_, offset) in wanted.items():
            topics[topic].append(
                FetchPartition(
                    partition=i32(partition),
                    current_leader_epoch=_NOBODY,
                    fetch_offset=i64(offset),
                    last_fetched_epoch=_NOBODY,
                    log_start_offset=i64(-1),
                    partition_max_bytes=i32(self._settings.fetch_bytes),
                )
            )
        return FetchRequest(
            cluster_id=None,
            replica_id=BrokerId(-1),
            max_wait=i32Timedelta.parse(timedelta(milliseconds=self._settings.fetch_wait_ms)),
            min_bytes=i32(1),
            max_bytes=i32(self._settings.fetch_bytes),
            isolation_level=_COMMITTED,
            session_id=i32(0),
            session_epoch=_NOBODY,
            topics=tuple(
                FetchTopic(topic=TopicName(on_cluster(self._settings, topic)), partitions=tuple(partitions))
                for topic, partitions in topics.items()
            ),
            forgotten_topics_data=(),
            rack_id="",
        )

    def _judge(self, answer: FetchResponse, wanted: dict[Place, tuple[_Position, int]]) -> bool:
        """Hand on what was fetched; false if the broker had better be left alone for a while."""
        if answer.error_code is not ErrorCode.none:
            log.warning("fetching: expected records, found %s", answer.error_code.name)
            return False
        well = True
        for topic in answer.responses:
            name = topic.topic.removeprefix(self._settings.topic_prefix)
            for each in topic.partitions:
                position, offset = wanted[name, each.partition_index]
                if each.error_code is ErrorCode.none:
                    position.told = ErrorCode.none
                    if each.records:
                        self._hand_on(position, offset, each)
                elif each.error_code is ErrorCode.offset_out_of_range:
                    with self._condition:
                        position.lost = True
                    self._lost(*position.place, offset)
                else:
                    well = False
                    if position.told is not each.error_code:
                        position.told = each.error_code
                        log.warning("fetching %s[%d] waits: %s", *position.place, each.error_code.name)
                    if each.error_code in ELSEWHERE:
                        self._forget([position])
        return well

    def _hand_on(self, position: _Position, start: int, found: Any) -> None:
        aborted = [(each.producer_id, each.first_offset) for each in found.aborted_transactions or ()]
        records, end = read_batches(found.records, start, aborted)
        with self._condition:
            if self._positions.get(position.place) is not position:
                return  # assigned anew, sought, or no longer ours
            position.offset = end
        if end > start:
            self._take(Fetched(*position.place, start, end, records, found.high_watermark))

    def _forget(self, positions: Iterable[_Position]) -> None:
        with self._condition:
            for each in positions:
                each.leader = None
            self._condition.notify_all()
