"""The flows of all partitions that this worker owns, and what they share.

The life of an assignment. Revoked: every flow finishes and commits the batch in hand and is suspended; what was fetched ahead
is dropped. Assigned: the worker closes the flows of lost partitions, and those of new partitions restore their state. A flow
that stays goes on with its state, if the worker missed no assignment meanwhile. When all are ready, Faust's consumer seeks to
where they are, and fetching goes on. A mistake here costs time, not truth: the fence of the transactional producer decides who
owns a partition.
Owner: Faust's event loop. Not here: Faust itself (app.py), one partition's flow (flow.py).
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import KafkaException
from faust.types import TP

from streams.batch.pipeline import Pipeline
from streams.kafka.clients import BrokerUnreachable
from streams.kafka.fetching import Fetched, Fetcher
from streams.kafka.reading import LogReader
from streams.worker.cluster import CannotStart, partition_counts
from streams.worker.failpoints import fail_points
from streams.worker.flow import PartitionFlow, Shared
from streams.worker.groups import Group
from streams.worker.locations import LocationFeed
from streams.worker.metrics import Metrics
from streams.worker.owner import claim
from streams.worker.recovery import Inconsistent
from streams.worker.snapshots import GroupPartition, Snapshots
from streams.worker.standby import Standby
from streams.worker.ticks import TickWriter
from topics.catalogue import Role, topics_of
from topics.errors import Contradiction, NearshelfError
from topics.events import LocationRecord

log = logging.getLogger("nearshelf.worker")

# A rebalance waits for the batch in hand this part of the session time-out, then goes on without it.
PATIENCE = 0.5
SEEK_RETRY_S = 1.0


class NotCopartitioned(Contradiction):
    """Topics of one group were given to different workers for the same partition."""


class Flows:
    """The flows of all partitions this worker owns, and what they share. Lives on Faust's event loop.

    Parameters
    ----------
    app : WorkerApp (app.py)
    groups : sequence of Group
    network : sequence of LocationRecord
        To be in `locations.v1` before anything is processed; may be empty.
    """

    def __init__(self, app: Any, groups: Sequence[Group], network: Sequence[LocationRecord]):
        self.failure: BaseException | None = None
        self.metrics = Metrics()
        self._app = app
        self.groups = groups
        self._network = network
        self._group_of = {topic: group for group in groups for topic in group.topics}
        self._partitions: dict[str, int] = {}  # topic → partitions
        self._flows: dict[tuple[str, int], PartitionFlow] = {}
        self._generation: int | None = None
        self._assigned = asyncio.Event()  # clear from a revocation to the assignment that follows it
        self._assigned.set()
        self._revoked = asyncio.Event()
        self._seeking: set[TP] = set()
        self._fetcher: Fetcher = None  # type: ignore[assignment]  # made by `prepare`
        self._shared: Shared = None  # type: ignore[assignment]  # made by `prepare`
        self._reader: LogReader = None  # type: ignore[assignment]  # too
        self._loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]  # known from the first assignment on
        self._stop_metrics = lambda: None
        app.on_partitions_revoked.connect(self.on_revoked)
        app.on_partitions_assigned.connect(self.on_assigned)
        app.on_rebalance_complete.connect(self.on_rebalanced)
        app.on_before_shutdown.connect(self.on_shutdown)

    # Before and after Faust: these block

    def prepare(self) -> None:
        """Check the cluster and whose it is, read the locations, publish the network, serve the metrics.

        Raises
        ------
        BrokerUnreachable
            No broker answers, or the network can't be published.
        MissingTopics, CannotStart
            Topics are missing or don't fit, or the metrics' port is taken.
        OtherOwner
            The topics belong to workers of another `app_id`.
        """
        settings = self._app.settings
        self._partitions = partition_counts(settings, self.groups)
        self._reader = LogReader(settings)
        claim(settings, [group.changelog_topic for group in self.groups], self._reader)
        read_whole = {topic: self._partitions[topic] for topic in topics_of("inventory", Role.STATE)}
        feed = LocationFeed(settings, read_whole, self._reader, self.fail)
        passed = fail_points(settings.fail_at)
        self._fetcher = Fetcher(settings, lambda fetched: self.feed(fetched), self._lost, self.fail)
        snapshots = Snapshots(settings, passed)
        self._shared = Shared(
            settings=settings,
            group_metadata=self._reader.group_metadata(),
            locations=feed,
            ticks=TickWriter(settings),
            snapshots=snapshots,
            standby=Standby(settings, snapshots),
            metrics=self.metrics,
            passed=passed,
            throttle=self._fetcher.throttle,
            fetch_again=self._fetch_again,
            failed=self.fail,
        )
        self.metrics.lag.ask = self._lags
        self.metrics.backlog.ask = self._backlogs
        try:
            port, self._stop_metrics = self.metrics.serve(settings.metrics_port)
        except OSError as error:
            raise CannotStart(
                f"metrics can't be served at port {settings.metrics_port} ({error.strerror}). "
                "Name another by --set metrics_port=PORT (or NEARSHELF_METRICS_PORT); 0 takes any free one."
            ) from None
        log.info("metrics at http://127.0.0.1:%d/metrics", port)
        feed.start()
        if self._network:
            try:
                count = feed.publish(self._network)
            except (KafkaException, TimeoutError) as failure:
                raise BrokerUnreachable(settings.bootstrap_servers, f"to publish the network ({failure})") from None
            log.info("%d of the network's %d locations were missing: published", count, len(self._network))

    def release(self) -> None:
        """Give back what `prepare` took; all flows are closed."""
        if self._fetcher is not None:
            self._fetcher.close()
        if self._shared is not None:
            self._stop_metrics()
            self._shared.standby.stop()
            self._shared.snapshots.stop()
            self._shared.ticks.close()
            self._shared.locations.stop()
        if self._reader is not None:
            self._reader.close()

    def fail(self, error: BaseException) -> None:
        """Stop the worker, with an error; from any thread."""
        self.failure = self.failure or error
        if isinstance(error, NearshelfError):  # its message says all; Faust would log tracebacks of its own end behind it
            logging.getLogger("faust").setLevel(logging.CRITICAL + 1)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._app.crash(error)))

    # Records

    def feed(self, fetched: Fetched) -> None:
        """Hand a fetched range to its partition's flow; from a thread of the fetcher's."""
        flow = self._flow_of(fetched.topic, fetched.partition)
        if flow is not None and not flow.offer(fetched):
            self._fetch_again(flow, fetched.topic, fetched.start)

    def _lost(self, topic: str, partition: int, offset: int) -> None:
        flow = self._flow_of(topic, partition)
        if flow is not None:
            self._fetch_again(flow, topic, offset)

    def _flow_of(self, topic: str, partition: int) -> PartitionFlow | None:
        return self._flows.get((self._group_of[topic].name, partition))

    def _fetch_again(self, flow: PartitionFlow, topic: str, found: int) -> None:
        self._loop.call_soon_threadsafe(self._seek_soon, flow, topic, found)

    def _seek_soon(self, flow: PartitionFlow, topic: str, found: int) -> None:
        tp = TP(topic, flow.partition)
        if tp not in self._seeking:
            self._seeking.add(tp)
            self._loop.create_task(self._seek_back(flow, tp, found))

    async def _seek_back(self, flow: PartitionFlow, tp: TP, found: int) -> None:
        """Fetch again what was lost between a fetch and its flow; repeated until done: a quiet topic has no next fetch."""
        try:
            while not await self._sought_back(flow, tp, found):
                await asyncio.sleep(SEEK_RETRY_S)
                if flow not in self._flows.values():
                    return  # its successor knows where to begin
        except Inconsistent as error:
            self.fail(error)
        finally:
            self._seeking.discard(tp)

    async def _sought_back(self, flow: PartitionFlow, tp: TP, found: int) -> bool:
        try:
            position = flow.positions()[tp.topic]
            first, _ = await self._loop.run_in_executor(None, self._reader.range, *tp)
            if first > position:
                raise Inconsistent(
                    f"{tp.topic}[{tp.partition}]: offsets {position} to {first - 1} were deleted before they were read "
                    "(retention too short?); what they said is missing from the state: see docs/repair-a-changelog.md."
                )
            log.warning("%s[%d]: expected offset %d, fetched from %d: fetching again", *tp, position, found)
            self._fetcher.seek(tp, position)
        except Inconsistent:
            raise
        except Exception as error:  # the assignment changes, the broker is away
            log.warning("%s[%d]: not sought back: %s", *tp, error)
            return False
        return True

    def positions(self) -> dict[TP, int]:
        """Give, per assigned topic and partition, the offset from which to fetch on."""
        return {
            TP(topic, flow.partition): offset
            for flow in self._flows.values()
            for topic, offset in flow.positions().items()
        }  # fmt: skip

    # Assignments: Faust's signals

    async def on_revoked(self, app: Any, revoked: Iterable[TP], **_: Any) -> None:
        self._assigned.clear()
        self._revoked.set()
        self._fetcher.assign({})
        quiet = [flow.suspend() for flow in self._flows.values()]
        if not await _done(quiet, self._app.settings.session_timeout_ms / 1000 * PATIENCE):
            log.warning("partitions go on to their next owner with a batch in hand: its fence will settle it")

    async def on_assigned(self, app: Any, assigned: Iterable[TP], **_: Any) -> None:
        self._revoked.clear()
        self._assigned.set()

    async def on_rebalanced(self, app: Any, **_: Any) -> None:
        """Make the flows those of the assignment; return when all are ready, or when the assignment is out of date."""
        self._loop = asyncio.get_running_loop()
        try:
            if self.failure is not None:
                raise self.failure
            owned = self._owned(self._app.consumer.owned())
            generation, previous = self._app.consumer_generation_id, self._generation
            self._generation = generation
            # Between consecutive generations nobody else can have owned what we had in both.
            doubt = None if previous is not None and previous <= generation <= previous + 1 else "assigned"
            await self._close([key for key in self._flows if key not in owned])
            ready = []
            for key in sorted(owned):
                kept = key in self._flows
                if not kept:
                    group = next(group for group in self.groups if group.name == key[0])
                    self._flows[key] = PartitionFlow(group, key[1], self._partitions[group.topics[0]], self._shared)
                ready.append(self._flows[key].resume(rebuild=doubt if kept else None))
            self._shared.standby.follow(self._others(owned))
            self._count()
            if await self._ready_or_revoked(ready):
                self._fetcher.assign(self.positions())
                log.info("ready: %s", self._describe() or "no partitions for this worker")
        except Exception as error:
            self.fail(error)
            raise

    async def _ready_or_revoked(self, ready: "list[Future[None]]") -> bool:
        all_ready = asyncio.ensure_future(_done(ready, None))
        revoked = asyncio.ensure_future(self._revoked.wait())
        await asyncio.wait({all_ready, revoked}, return_when=asyncio.FIRST_COMPLETED)
        revoked.cancel()
        if not self._revoked.is_set():
            return True
        # Faust would fetch on the strength of this assignment: let it see first that there is another.
        all_ready.cancel()
        await self._assigned.wait()
        return False

    async def on_shutdown(self, app: Any, **_: Any) -> None:
        await self._close(list(self._flows))

    async def _close(self, keys: Iterable[tuple[str, int]]) -> None:
        ended = [self._flows.pop(key).close() for key in keys]
        if not await _done(ended, self._app.settings.request_timeout_ms / 1000):
            log.warning("a batch in hand was given up: the next owner's fence will settle it")
        self._count()

    def _others(self, owned: set[tuple[str, int]]) -> list[tuple[GroupPartition, Callable[[], Pipeline]]]:
        """Name the partitions that are not owned, each with what makes its empty pipeline."""
        settings = self._app.settings
        found: list[tuple[GroupPartition, Callable[[], Pipeline]]] = []
        for group in self.groups:
            count = self._partitions[group.topics[0]]
            for partition in range(count):
                if (group.name, partition) not in owned:
                    make = partial(group.make_pipeline, partition, count, settings)
                    found.append((group.place(partition, count, settings), make))
        return found

    def _owned(self, assignment: Iterable[TP]) -> set[tuple[str, int]]:
        """Give the (group, partition)s of an assignment; each must be whole."""
        topics = defaultdict(set)
        for tp in assignment:
            topics[self._group_of[tp.topic].name, tp.partition].add(tp.topic)
        for group in self.groups:
            for (name, partition), found in topics.items():
                if name == group.name and found != set(group.topics):
                    raise NotCopartitioned(
                        f"partition {partition} of {', '.join(sorted(found))} was assigned without "
                        f"{', '.join(sorted(set(group.topics) - found))}. All must have the same partition count, and all "
                        f"workers of {self._app.settings.app_id} must be of one version: stop those that are not."
                    )
                if name == group.name and partition >= self._partitions[group.topics[0]]:
                    raise NotCopartitioned(
                        f"the {name} topics had {self._partitions[group.topics[0]]} partitions when this worker started, "
                        f"now there is a partition {partition}: pools have moved, so their state has to. Restore the count."
                    )
        return set(topics)

    # What the metrics ask

    def _count(self) -> None:
        for group in self.groups:
            self.metrics.owned.labels(group.name).set(sum(name == group.name for name, _ in self._flows))

    def _describe(self) -> str:
        owned = defaultdict(list)
        for name, partition in sorted(self._flows):
            owned[name].append(str(partition))
        return "; ".join(f"{name} partitions {', '.join(partitions)}" for name, partitions in owned.items())

    def _lags(self) -> Iterable[tuple[tuple[str, ...], float]]:
        for flow in list(self._flows.values()):
            for topic, offset in list(flow.committed.items()):
                if topic in flow.highwaters:
                    yield (topic, str(flow.partition)), max(0, flow.highwaters[topic] - offset)

    def _backlogs(self) -> Iterable[tuple[tuple[str, ...], float]]:
        for (name, partition), flow in list(self._flows.items()):
            yield (name, str(partition)), flow.backlog_rows


async def _done(futures: "Iterable[Future[None]]", timeout_s: float | None) -> bool:
    """Wait for futures of other threads; false if the time was up first."""
    waiting = [asyncio.wrap_future(future) for future in futures]
    return not waiting or not (await asyncio.wait(waiting, timeout=timeout_s))[1]
