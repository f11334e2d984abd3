"""The location feed: every worker reads all of `locations.v1` and gives each flow the records it has not seen yet.

Owner: one thread of the worker. Each flow has an inbox. A new inbox starts with the latest record of every location, tombstones
included, so the flow learns what changed while its partition had no owner. If the latest record of a location is invalid, the
last valid one is there too: it names the location's pool. Records are in the order of their partition; the flow's pipeline
leaves out those it has applied already, by partition and offset.
Invariant: a change is in every inbox, or in none yet; `catch_up` returns true only when all that was committed before the
call is in them.
Not here: what a location means (topics/), when it comes into force (state/), how networks differ (streams/kafka/network.py).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition
from pydantic import ValidationError

from streams.batch.pipeline import LocationChange
from streams.kafka.clients import reading_config
from streams.kafka.names import Consumer
from streams.kafka.network import Differences, PublishedNetwork, write_network
from streams.kafka.reading import LogReader
from topics.catalogue import LOCATIONS
from topics.events import LocationRecord

log = logging.getLogger("nearshelf.locations")

POLL_S = 0.2
RETRY_S = 0.1
FETCH_RECORDS = 500
TOLD_DIFFERENCES = 20
"""Locations that differ from the network file and are named in the log one by one."""


class Inbox:
    """Location changes one flow has not taken yet."""

    def __init__(self, changes: list[LocationChange], arrived: Callable[[], None]):
        self._changes = deque(changes)
        self._arrived = arrived

    def __bool__(self) -> bool:
        return bool(self._changes)

    def put(self, changes: list[LocationChange]) -> None:
        self._changes.extend(changes)
        self._arrived()

    def take(self) -> list[LocationChange]:
        taken = []
        while self._changes:
            taken.append(self._changes.popleft())
        return taken


class LocationFeed:
    """Reads `locations.v1` for the whole worker.

    Parameters
    ----------
    settings
        `bootstrap_servers`, `topic_prefix`, `group_id`, `request_timeout_ms`, `fetch_wait_ms`.
    partitions : int
        Of `locations.v1`.
    reader : LogReader
        Asked for the topic's end.
    failed : callable
        Told the error that ended the feed; the worker stops.
    """

    def __init__(self, settings: Any, partitions: int, reader: LogReader, failed: Callable[[BaseException], None]):
        self._settings = settings
        self._reader = reader
        self._failed = failed
        self._timeout_s = settings.request_timeout_ms / 1000
        self._condition = threading.Condition()
        self._latest: dict[bytes | None, LocationChange] = {}
        self._good: dict[bytes | None, LocationChange] = {}  # the last valid record: it names the pool
        self._reached = dict.fromkeys(range(partitions), -1)  # partition → offset up to which all is in the inboxes
        self._inboxes: list[Inbox] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="locations", daemon=True)
        self._consumer = Consumer(
            reading_config(
                settings,
                f"{settings.group_id}-locations",  # needed by the client, never used
                enable_partition_eof=True,
                auto_offset_reset="earliest",
            )
        )

    def start(self) -> None:
        self._consumer.assign([TopicPartition(LOCATIONS, partition, OFFSET_BEGINNING) for partition in self._reached])
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        if self._thread.is_alive():
            self._thread.join()
        self._consumer.close()

    def subscribe(self, arrived: Callable[[], None]) -> Inbox:
        """Open an inbox with the latest record of every location, and the last valid one if that is another.

        Parameters
        ----------
        arrived : callable
            Called in the feed's thread whenever something was put in.
        """
        with self._condition:
            inbox = Inbox(self._known(), arrived)
            self._inboxes.append(inbox)
            return inbox

    def unsubscribe(self, inbox: Inbox) -> None:
        with self._condition:
            self._inboxes.remove(inbox)

    def _known(self) -> list[LocationChange]:
        """Give the latest record of every location, and the last valid one, in each partition's own order."""
        known = {(each.partition, each.offset): each for each in (*self._good.values(), *self._latest.values())}
        return [known[place] for place in sorted(known)]  # a pipeline tells by the offset what it has

    def catch_up(self, timeout_s: float) -> bool:
        """Wait until all that is committed to `locations.v1` now is in the inboxes; false if it took too long."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                ends = {
                    partition: self._reader.range(LOCATIONS, partition, max(0.01, deadline - time.monotonic()))[1]
                    for partition in self._reached
                }
                break
            except KafkaException as failure:
                if time.monotonic() + RETRY_S > deadline:
                    log.warning("the end of %s is not to be had: %s", LOCATIONS, failure)
                    return False
                time.sleep(RETRY_S)  # no leader yet, or the broker is away
        with self._condition:
            return self._condition.wait_for(
                lambda: all(self._reached[partition] >= end for partition, end in ends.items()),
                max(0.0, deadline - time.monotonic()),
            )

    def publish(self, network: Collection[LocationRecord]) -> int:
        """Write those locations of a network file to `locations.v1` that were never published; give their number.

        What is published otherwise stays as it is, since the file may be older; the log names it.

        Raises
        ------
        KafkaException
            One could not be written.
        TimeoutError
            `locations.v1` could not be read to its end, or written, in `request_timeout_ms`.
        """
        if not self.catch_up(self._timeout_s):
            raise TimeoutError(f"{LOCATIONS} could not be read to its end within {self._timeout_s:g} s")
        published = PublishedNetwork()
        with self._condition:
            known = self._known()
        for change in known:
            published.take(change.key, change.value, change.timestamp)
        differences = published.differences({location.pool for location in network}, network)
        _tell(differences)
        return write_network(self._settings, differences.missing)

    def _run(self) -> None:
        try:
            while not self._stopping:
                first = self._consumer.poll(POLL_S)
                if first is not None:
                    self._take([first, *self._consumer.consume(FETCH_RECORDS, 0)])
        except BaseException as error:
            self._failed(error)

    def _take(self, messages: list[Any]) -> None:
        changes, reached = [], {}
        for message in messages:
            error = message.error()
            if error is None:
                changes.append(
                    LocationChange(
                        message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value()
                    )
                )
                reached[message.partition()] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                reached[message.partition()] = message.offset()
            elif not error.retriable():
                raise KafkaException(error)
        with self._condition:
            self._latest.update((change.key, change) for change in changes)
            self._good.update((change.key, change) for change in changes if _location(change) is not None)
            if changes:
                for inbox in self._inboxes:
                    inbox.put(changes)
            self._reached.update(reached)
            self._condition.notify_all()


def _tell(differences: Differences) -> None:
    """Log how a network file differs from what is published, which is in force."""
    others = [f"{location.id}: only published, not in the file" for location in differences.only_published]
    told = [*map(str, differences.different), *others]
    for line in told[:TOLD_DIFFERENCES]:
        log.warning("the network file differs from %s, which is in force: %s", LOCATIONS, line)
    if told:
        log.warning(
            "%d locations differ: the published ones are in force. `nearshelf network diff FILE` shows all; "
            "`nearshelf network apply FILE` publishes the file's",
            len(told),
        )


def _location(change: LocationChange) -> LocationRecord | None:
    try:
        return LocationRecord.model_validate_json(change.value or b"null")
    except ValidationError:
        return None
