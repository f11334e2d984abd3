"""One input partition's flow: fetched records in, batches through the pipeline, transactions out, in order, exactly once.

                 event loop          flow thread                      commit thread
    Faust agent → offer() → backlog → batch n+1 → pipeline.process → [outcome] → batch n: one Kafka transaction

The life of a batch: 1. it closes on rows, bytes or age (an open one waits for a lane, transactions.py, which it would wait for
anyway); 2. the pipeline decodes it; 3. if it names an unknown location, the location feed catches up; 4. the pipeline applies
it; 5. it waits for its lane; 6. its commit begins, and the next batch is taken. So the state is at most one batch ahead of the
commits under way, of which there are as many as lanes.

When a commit's fate is in doubt, state and producers are thrown away, and with them the commits behind it: fence, committed
offsets, changelog (recovery.py), then the batches that were not settled go through again, less what turns out to be committed.

Owner of the pipeline: the flow thread, nobody else ever. Invariants:
- a record is processed once: it enters the backlog once (backlog.py), and what was committed does not go through again;
- an outcome is committed in the order processed, or the state it belongs to is discarded.
Not here: what the records mean (streams/batch/pipeline.py), who owns which partition (flows.py).
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, KafkaException

from streams.batch.clock import Clock
from streams.batch.pipeline import LocationChange, Outcome, Pipeline, Segment
from streams.kafka.fetching import Fetched
from streams.kafka.reading import Interrupted, LogReader
from streams.worker import failpoints, recovery
from streams.worker.backlog import Backlog, Taken
from streams.worker.groups import Group
from streams.worker.locations import Inbox, LocationFeed
from streams.worker.metrics import Metrics
from streams.worker.recovery import Inconsistent
from streams.worker.snapshots import Snapshots
from streams.worker.standby import Standby
from streams.worker.ticks import TickWriter
from streams.worker.transactions import HOPELESS, LANES, Committed, Doubt, Fenced, Lanes, PartitionProducer, Refused, fence

log = logging.getLogger("nearshelf.flow")

RETRY_S = 1.0
# A broker that has just started may not know its partitions yet; one that does not after so long has lost them.
UNKNOWN = {KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART}
UNKNOWN_S = 60.0
# Said when a restoration is held up for longer than any open transaction may last.
HELD_UP = (
    "if the broker answers others, it has completed a transaction without ending it in its partitions (KAFKA-20734): find it "
    "with `kafka-transactions.sh find-hanging`, end it with `kafka-transactions.sh abort`, __consumer_offsets included"
)


@dataclass(slots=True)
class Shared:
    """What all flows of a worker use together."""

    settings: Any
    group_metadata: Any
    """Of the consumer group, to commit its offsets with."""
    locations: LocationFeed
    ticks: TickWriter
    snapshots: Snapshots
    standby: Standby
    metrics: Metrics
    passed: Callable[[str], None]
    """Called with each fail point that the worker passes."""
    throttle: Callable[[Iterable[tuple[str, int]], bool], None]
    """Called to stop the fetching of (topic, partition)s, or to let it go on."""
    fetch_again: Callable[["PartitionFlow", str, int], None]
    """Called to fetch a topic again from the flow's position on; the last argument is the offset that was fetched instead."""
    failed: Callable[[BaseException], None]
    """Called with an error after which the worker must stop."""


@dataclass(frozen=True, slots=True)
class _Commit:
    """A commit under way."""

    outcome: Outcome
    result: "Future[Committed]"
    due_at: float  # monotonic seconds

    @property
    def over(self) -> bool:
        return self.result.done() or time.monotonic() >= self.due_at


class PartitionFlow:
    """The flow of one partition of one group. The event loop calls the public methods; none of them blocks.

    It starts suspended. `resume` makes it restore its state, if it has none, and then take what is offered.
    """

    def __init__(self, group: Group, partition: int, partitions: int, shared: Shared):
        self.group = group
        self.partition = partition
        self.place = group.place(partition, partitions, shared.settings)
        self.name = self.place.name
        self.highwaters: dict[str, int] = {}
        self.committed: dict[str, int] = {}
        self._partitions = partitions
        self._shared = shared
        self._settings = shared.settings
        # The event loop's and the flow thread's, under the condition.
        self._condition = threading.Condition()
        self._backlog = Backlog(shared.settings, self._throttle)
        self._suspended = True
        self._closing = False
        self._rebuild: str | None = "assigned"  # why the state must be restored before anything else
        self._ready: Future[None] = Future()
        self._quiet: Future[None] = Future()
        self._ended: Future[None] = Future()
        # The flow thread's alone.
        self._pipeline: Pipeline = None  # type: ignore[assignment]  # restored before anything is asked of it
        self._inbox: Inbox | None = None
        self._unsettled: deque[Taken] = deque()  # batches whose commit is not known to have succeeded
        self._lanes: Lanes | None = None
        self._commits: deque[_Commit] = deque()  # the oldest first
        self._tick_at = 0.0
        self._unforeseen_at = 0  # number of the last batch whose commit failed in a way that nobody foresaw
        self._thread = threading.Thread(target=self._run, name=f"flow-{group.name}-{partition}", daemon=True)
        self._thread.start()

    # The event loop's side.

    def offer(self, fetched: Fetched) -> bool:
        """Take a fetched range into the backlog.

        Returns
        -------
        bool
            False if records before it are missing: the topic must be fetched again from `positions()[topic]`.
        """
        with self._condition:
            self.highwaters[fetched.topic] = fetched.highwater
            if self._suspended or self._closing:
                return True  # it will be fetched again, from the position at which the flow resumes
            self._condition.notify_all()
            return self._backlog.offer(fetched)

    def positions(self) -> dict[str, int]:
        """Give, per topic, the offset from which to fetch on."""
        with self._condition:
            return dict(self._backlog.positions)

    @property
    def backlog_rows(self) -> int:
        return self._backlog.rows

    def resume(self, rebuild: str | None = None) -> "Future[None]":
        """Go on, or begin.

        Parameters
        ----------
        rebuild : str, optional
            Why the state at hand must not be trusted: it is then restored from the changelog first.

        Returns
        -------
        Future
            Done when the state is there and `positions` is where to fetch on.
        """
        with self._condition:
            if self._ready.done() and (self._suspended or rebuild):
                self._ready = Future()
            self._rebuild = self._rebuild or rebuild
            self._suspended = False
            self._condition.notify_all()
            return self._ready

    def suspend(self) -> "Future[None]":
        """Finish the batch in hand, commit it, and wait; the backlog is dropped, to be fetched again.

        Returns
        -------
        Future
            Done when nothing is in hand.
        """
        with self._condition:
            if not self._suspended:
                self._suspended = True
                self._quiet = Future()
                if self._rebuild is not None:  # what was in hand is lost already
                    self._quiet.set_result(None)
                self._backlog.drop()
                self._condition.notify_all()
            return self._quiet

    def close(self) -> "Future[None]":
        """Finish the batch in hand, commit it, and give the partition up; done when it is."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        return self._ended

    # The flow thread's side.

    def _run(self) -> None:
        try:
            while self._rest():
                try:
                    if self._rebuild:
                        self._recover()
                    self._announce()
                    self._work()
                except Interrupted:
                    continue
            self._log_digests()
        except BaseException as error:
            log.critical("%s stopped: %s", self.name, error)
            self._shared.failed(error)
        finally:
            self._leave_producers()
            self._shared.snapshots.release(self.place)
            if self._inbox is not None:
                self._shared.locations.unsubscribe(self._inbox)
            with self._condition:
                self._closing = True
                self._ready.cancel()
                self._quiet.cancel()
            self._ended.set_result(None)

    def _rest(self) -> bool:
        """Wait while suspended, with nothing in hand; false when it is time to go."""
        with self._condition:
            if self._suspended and not self._quiet.done():
                self._quiet.set_result(None)
            self._condition.wait_for(lambda: self._closing or not self._suspended)
            return not self._closing

    def _log_digests(self) -> None:
        if self._settings.digest_at_stop and self._rebuild is None:
            log.info("%s at batch %d: %s", self.name, self._pipeline.sequence, json.dumps(self._pipeline.digests()))

    def _announce(self) -> None:
        with self._condition:
            if not self._ready.done():
                self._ready.set_result(None)

    def _work(self) -> None:
        while not self._interrupted():
            self._tick()
            batch = self._next_batch()
            if batch is not None:
                self._advance(*batch)
            elif self._commit_is_over():
                self._settle()
        self._settle_all()

    def _commit_is_over(self) -> bool:
        return bool(self._commits) and self._commits[0].over

    def _interrupted(self) -> bool:
        return self._suspended or self._closing or self._rebuild is not None or not self._ready.done()

    def _next_batch(self) -> tuple[Taken, list[LocationChange]] | None:
        """Wait for a batch to close; None if a tick, a commit or the owner's word comes first."""
        settings = self._settings
        with self._condition:
            while not self._interrupted():
                if self._commit_is_over():
                    return None
                now, wake_at = time.monotonic(), self._tick_at
                if self._inbox or self._backlog.full:
                    return self._cut()
                if self._backlog and len(self._commits) < LANES:
                    closes_at = self._backlog.arrived + settings.batch_age_ms / 1000
                    if now >= closes_at:
                        return self._cut()
                    wake_at = min(wake_at, closes_at)
                if now >= wake_at:
                    return None
                self._condition.wait(wake_at - now)
        return None

    def _cut(self) -> tuple[Taken, list[LocationChange]]:
        return self._backlog.take(), self._inbox.take() if self._inbox is not None else []

    def _advance(self, batch: Taken, changes: list[LocationChange]) -> None:
        assert self._lanes is not None, "a batch is taken only after a restoration, which makes them"
        self._unsettled.append(batch)
        segments = [Segment(topic, records) for topic, records in batch.items()]
        clock = Clock()
        decoded = self._pipeline.decode(segments)
        clock.stage("decode")
        if self._inbox is not None and self._pipeline.lacks_locations(decoded):
            self._shared.locations.catch_up(self._settings.location_catchup_ms / 1000)
            changes += self._inbox.take()
        clock.stage("catch_up")
        outcome = self._pipeline.process(decoded, changes)
        outcome.stages = clock.seconds | outcome.stages
        self._shared.passed(failpoints.AFTER_PROCESS)
        while len(self._commits) == LANES or self._commit_is_over():
            self._settle()
        if self._rebuild is not None:
            self._settle_all()
            return
        if not (outcome.offsets or outcome.changelog or outcome.outputs):
            self._unsettled.pop()
            return
        due_at = time.monotonic() + self._settings.request_timeout_ms / 1000
        commit = _Commit(outcome, self._lanes.commit(outcome), due_at)
        self._commits.append(commit)
        commit.result.add_done_callback(self._wake)

    def _wake(self, _: Any = None) -> None:
        with self._condition:
            self._condition.notify_all()

    def _settle_all(self) -> None:
        while self._commits:
            self._settle()

    def _settle(self) -> None:
        """Wait for the oldest commit under way, and act on its result: committed, fenced, in doubt or refused.

        If it is not committed, those behind it never are: they are forgotten, and their batches go through again.
        """
        commit = self._commits.popleft()
        outcome = commit.outcome
        count = self._shared.metrics.transactions.labels
        try:
            committed = commit.result.result(max(0.0, commit.due_at - time.monotonic()))
        except Fenced as error:
            count(self.group.name, "fenced").inc()
            log.warning("%s was taken over by another worker: %s", self.name, error)
            self._rebuild = "fenced"
            self._await_verdict()
        except (Doubt, TimeoutError) as error:
            why = str(error) or "no answer in time"
            count(self.group.name, "doubtful").inc()
            log.warning("%s: the fate of batch %d is unknown: %s", self.name, outcome.sequence, why)
            self._rebuild = "doubt"
        except Refused:
            count(self.group.name, "refused").inc()
            raise
        except Exception as error:
            # An error that this code does not know may have left anything behind. Once may be chance; twice at one batch is a
            # fault of ours.
            if self._unforeseen_at == outcome.sequence:
                raise
            self._unforeseen_at = outcome.sequence
            count(self.group.name, "doubtful").inc()
            log.exception("%s: the fate of batch %d is unknown: %s", self.name, outcome.sequence, error)
            self._rebuild = "doubt"
        else:
            count(self.group.name, "committed").inc()
            self._unsettled.popleft()
            self.committed.update(outcome.offsets)
            self._measure(outcome, committed)
            return
        self._commits.clear()

    def _await_verdict(self) -> None:
        """After a fence, wait whether the group gives the partition away: then this flow is suspended within a heartbeat.

        If it is not, this worker is the owner, and the one that fenced it came too late: the flow takes the partition back.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._suspended or self._closing, 2 * self._settings.heartbeat_ms / 1000)

    def _measure(self, outcome: Outcome, committed: Committed) -> None:
        metrics, name = self._shared.metrics, self.group.name
        for (topic, result), number in outcome.counts.items():
            metrics.events.labels(topic, result).inc(number)
        for (topic, field), number in outcome.left_out.items():
            metrics.left_out.labels(topic, field).inc(number)
        for stage, seconds in {**outcome.stages, **committed.stages}.items():
            metrics.stage.observe(seconds, name, stage)
        metrics.commit.observe(sum(committed.stages.values()), name)
        metrics.batch.observe(len(outcome.timestamps), name)
        metrics.latency.observe(np.maximum(committed.at_ms - outcome.timestamps, 0) / 1000, name)

    def _tick(self) -> None:
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + self._settings.tick_ms / 1000
            pools = self._pipeline.needs_ticks(time.time() * 1000)
            if pools:
                self._shared.ticks.write(pools, self.partition)
                self._shared.metrics.ticks.inc(len(pools))

    def _recover(self) -> None:
        """Fence, restore, check; then put the batches that were not settled back in front of the backlog."""
        cause, started, contradiction, unknown_at = self._rebuild, time.perf_counter(), None, None
        started_at = time.monotonic()
        while True:
            try:
                pipeline, positions, restored = self._restore()
                break
            except Inconsistent as error:
                # If another worker took over after the fence, what was read is of several moments: not so the next time.
                if str(error) == contradiction:
                    raise
                contradiction = str(error)
                log.warning("%s is restored once more: %s", self.name, error)
            except KafkaException as failure:
                code, now = failure.args[0].code(), time.monotonic()
                unknown_at = (unknown_at or now) if code in UNKNOWN else None
                if code in HOPELESS or (unknown_at is not None and now - unknown_at > UNKNOWN_S):
                    raise
                held_up = now - started_at > UNKNOWN_S and code == KafkaError._TIMED_OUT
                log.warning("%s can't be restored yet: %s%s", self.name, failure, f"; {HELD_UP}" if held_up else "")
            with self._condition:
                if self._condition.wait_for(lambda: self._suspended or self._closing, RETRY_S):
                    raise Interrupted
        seconds = time.perf_counter() - started
        self._shared.metrics.rebuilds.labels(self.group.name, cause).inc()
        self._shared.metrics.rebuild.observe(seconds, self.group.name)
        log.info("%s restored in %.2f s from %s, %s", self.name, seconds, restored, positions)
        self._shared.snapshots.keep(self.place)
        if self.group.reads_locations:
            if self._inbox is not None:
                self._shared.locations.unsubscribe(self._inbox)
            self._inbox = self._shared.locations.subscribe(self._wake)
        # A broker may lose what it confirmed (KAFKA-20734). The flow keeps no committed records, so they are fetched again.
        lost = {topic: at for topic, at in self.committed.items() if positions[topic] < at}
        with self._condition:
            self._pipeline, self._rebuild = pipeline, None
            self.committed = dict(positions)
            if self._suspended or not self._ready.done():  # fetching starts anew from these positions
                self._backlog.begin_at(positions)
            else:
                self._backlog.go_on_from(positions, self._unsettled, lost)
                self._condition.notify_all()
            self._unsettled.clear()
        for topic, at in lost.items():
            log.error(
                "%s: %s was committed up to %d, Kafka now says %d: fetching again", self.name, topic, at, positions[topic]
            )
            self._shared.fetch_again(self, topic, at)

    def _restore(self) -> tuple[Pipeline, dict[str, int], str]:
        group = self.group
        self._leave_producers()
        self._shared.snapshots.release(self.place)
        if self.place.former is not None:
            # A worker of an earlier version may still run; its producer has another name than ours.
            fence(self._settings, self.place.former)
        self._lanes = Lanes(self._make_producer, self.name)
        # A client of its own: one that was there before an outage may wait long for its coordinator after it.
        with LogReader(self._settings) as reader:
            committed = reader.committed(group.topics, self.partition)
            ranges = {topic: reader.range(topic, self.partition) for topic in group.topics}
            pipeline, start, source = self._newest_state(reader)
            batches = recovery.restore(pipeline, reader, self.partition, lambda: self._closing, start, self.place.app_id)
            if kept := pipeline.kept_products():
                self._shared.locations.want(kept, reader)
        if group.reads_locations and not self._shared.locations.catch_up(self._settings.request_timeout_ms / 1000):
            log.warning("%s goes on without the newest locations", self.name)
        positions = recovery.read_positions(pipeline.next_offsets, committed, ranges, group.expendable)
        return pipeline, positions, f"{source} and {batches} batches of the changelog"

    def _newest_state(self, reader: LogReader) -> tuple[Pipeline, int | None, str]:
        """Give the newest state at hand, the changelog's offset to read on from (None: the first), and the state's source."""
        taken = self._shared.standby.take(self.place)
        if taken is not None:
            return *taken, "standby"
        pipeline = self.group.make_pipeline(self.partition, self._partitions, self._settings)
        cursor = self._shared.snapshots.load(self.place, pipeline, reader, lambda: self._closing)
        if cursor is None:
            return pipeline, None, "nothing"
        return pipeline, cursor.next, f"the snapshot of batch {cursor.batch}"

    def _make_producer(self, transactional_id: str) -> PartitionProducer:
        shared, changelog = self._shared, self.group.changelog_topic
        return PartitionProducer(
            self._settings, transactional_id, self.partition, changelog, shared.group_metadata, shared.passed
        )

    def _leave_producers(self) -> None:
        """Close the producers, but don't wait long for it: the next fence does all that is needed."""
        if self._lanes is not None:
            wait(self._lanes.close(), RETRY_S)
            self._lanes = None

    def _throttle(self, held: bool) -> None:
        self._shared.throttle([(topic, self.partition) for topic in self.group.topics], held)
