"""Standby: the state of partitions that other workers own, kept in memory, so that a takeover has little left to read.

One thread per worker follows the changelogs of all partitions that are not its own, reading committed records only, and folds
them. When a partition becomes its own, the flow takes the state as it stands and folds what is still missing, behind its fence,
like any other restart. Costs the memory of those partitions' state, and a part of a core; the setting `standby` switches it on.
Not here: what makes a partition ours (app.py), the restart itself (flow.py, recovery.py).
"""

import logging
import threading
from collections.abc import Iterable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from state.schema import NewerLayout
from streams.batch.pipeline import ChangelogGap, Pipeline
from streams.kafka.clients import reading_config
from streams.kafka.names import Consumer
from streams.kafka.reading import LogReader
from streams.worker.chain import Chain
from streams.worker.owner import OtherOwner
from streams.worker.snapshots import GroupPartition, Snapshots

log = logging.getLogger("nearshelf.standby")

POLL_S = 0.1
# Folded at a time; a takeover waits for it.
MESSAGES = 50


class _Followed:
    """One partition's state, up to a place in its changelog."""

    def __init__(self, place: GroupPartition, pipeline: Pipeline, next_offset: int | None):
        self.place = place
        self.pipeline = pipeline
        self.next = next_offset
        self._chain = Chain(pipeline.sequence, pipeline.link, place.app_id)

    def take(self, message: Any) -> None:
        if self.next is not None and message.offset() < self.next:
            return  # fetched before the assignment changed
        batch = self._chain.take(message)
        if batch is not None:
            self.pipeline.restore(batch.record, batch.link)
            self.next = batch.next


class Standby:
    """All that a worker keeps warm of others' state.

    Parameters
    ----------
    settings
        `standby`, and what a consumer needs.
    snapshots : Snapshots
        Where to begin from.
    """

    def __init__(self, settings: Any, snapshots: Snapshots):
        self._settings = settings
        self._snapshots = snapshots
        self._lock = threading.Lock()
        self._wanted: dict[str, tuple[GroupPartition, Any]] = {}  # name → place, what makes an empty pipeline
        self._followed: dict[tuple[str, int], _Followed] = {}  # (changelog, partition) → its state
        self._changed = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    def follow(self, wanted: Iterable[tuple[GroupPartition, Any]]) -> None:
        """Follow these partitions too; one is followed until it is taken.

        Parameters
        ----------
        wanted : iterable of (GroupPartition, callable)
            The callable makes an empty pipeline.
        """
        if not self._settings.standby:
            return
        with self._lock:
            self._wanted |= {place.name: (place, make) for place, make in wanted}
            self._changed = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="standby", daemon=True)
            self._thread.start()

    def take(self, place: GroupPartition) -> tuple[Pipeline, int | None] | None:
        """Hand over a partition's state, not sealed yet, and where to read its changelog on; None = there is none."""
        with self._lock:
            self._wanted.pop(place.name, None)
            followed = self._followed.pop((place.changelog_topic, place.partition), None)
            self._changed = True
        return None if followed is None else (followed.pipeline, followed.next)

    def stop(self) -> None:
        self._stopping = True
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        consumer = Consumer(
            reading_config(
                self._settings,
                f"{self._settings.group_id}-standby",  # needed by the client, never used
                auto_offset_reset="error",
                fetch_queue_backoff_ms=self._settings.fetch_queue_backoff_ms,
            )
        )
        try:
            while not self._stopping:
                try:
                    if self._changed:
                        self._assign(consumer)
                    self._fold(consumer.consume(MESSAGES, POLL_S))
                except KafkaException as failure:
                    log.warning("standby: %s", failure)
        except BaseException as error:  # the worker can do without
            log.exception("no more standby: %s", error)
            with self._lock:
                self._followed.clear()
        finally:
            consumer.close()

    def _assign(self, consumer: Any) -> None:
        """Begin to follow what is new, and read it all on from where each stands."""
        with self._lock:
            self._changed = False
            known = {followed.place.name for followed in self._followed.values()}
            new = [wanted for name, wanted in self._wanted.items() if name not in known]
        for place, make in new:
            try:
                followed = self._begin(place, make)
            except (NewerLayout, OtherOwner) as error:
                self._give_up(place, error)
                continue
            with self._lock:
                if place.name in self._wanted:
                    self._followed[place.changelog_topic, place.partition] = followed
        with self._lock:
            places = [
                TopicPartition(topic, partition, OFFSET_BEGINNING if followed.next is None else followed.next)
                for (topic, partition), followed in self._followed.items()
            ]
        consumer.assign(places)

    def _begin(self, place: GroupPartition, make: Any) -> _Followed:
        pipeline = make()
        with LogReader(self._settings) as reader:
            cursor = self._snapshots.load(place, pipeline, reader, lambda: self._stopping)
        return _Followed(place, pipeline, None if cursor is None else cursor.next)

    def _fold(self, messages: list[Any]) -> None:
        for message in messages:
            key = message.topic(), message.partition()
            with self._lock:
                followed = self._followed.get(key)
                if followed is None:
                    continue
                try:
                    if message.error() is None:
                        followed.take(message)
                    elif not message.error().retriable():
                        raise ChangelogGap(message.error().str())
                except (ChangelogGap, NewerLayout, OtherOwner) as error:
                    del self._followed[key]
                    self._give_up(followed.place, error)

    def _give_up(self, place: GroupPartition, error: Exception) -> None:
        log.error("%s is not kept warm: %s", place.name, error)
        self._wanted.pop(place.name, None)
