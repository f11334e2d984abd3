"""The network as published in `locations.v1`: what is in force, how another network differs from it, and writing to it.

A record is in force if it can be read, its key is its `id`, and the location keeps its pool; else the one before it stays. An
empty record removes a location: its stock and its open orders remain, it gets no new ones.
Owner: `nearshelf network diff` and `apply`, and a worker that was started with a network file.
Not here: reading on for ever (streams/worker/locations.py), the file (config/network.py).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from streams.kafka.clients import client_config
from streams.kafka.names import Producer
from streams.kafka.reading import LogReader
from topics.catalogue import LOCATIONS
from topics.events import LocationRecord, Refusal, judge


@dataclass(slots=True)
class Published:
    """What is known of one location id."""

    location: LocationRecord | None
    """In force; None = removed, or never readable."""
    timestamp: int
    """Of the record in force, epoch ms."""
    pool: str = ""
    """That it can't leave; empty: it never had one."""
    unreadable: str = ""
    """Why no record of it is in force."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a location that differs."""

    name: str
    file: Any
    published: Any


@dataclass(slots=True)
class Different:
    """A location that is published otherwise than the file has it."""

    location: LocationRecord
    """As the file has it."""
    published_at: int
    """Epoch ms."""
    fields: list[Field] = field(default_factory=list)
    """Empty: it was removed, or what is published can't be read."""
    why: str = ""
    """Why there are no fields to compare."""

    @property
    def changes_pool(self) -> bool:
        """Whether the file has it in another pool, which no record can bring about."""
        return any(each.name == "pool" for each in self.fields)

    def __str__(self) -> str:
        told = self.why or "; ".join(
            f"{each.name}: file {shown(each.file)}, published {shown(each.published)}" for each in self.fields
        )
        return f"{self.location.id}: {told} (published {time_of(self.published_at)})"


@dataclass(slots=True)
class Differences:
    """How a file differs from what is published."""

    missing: list[LocationRecord] = field(default_factory=list)
    """Never published."""
    different: list[Different] = field(default_factory=list)
    only_published: list[LocationRecord] = field(default_factory=list)
    """In force, of a pool that the file declares, and not in the file."""
    elsewhere: list[LocationRecord] = field(default_factory=list)
    """In force, of other pools: not the file's concern."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.different or self.only_published)


class PublishedNetwork:
    """The locations of `locations.v1`, record by record.

    Examples
    --------
    >>> published = PublishedNetwork()
    >>> published.take(b"A", b'{"id": "A", "pool": "uk", "kind": "store", "latitude": 51, "longitude": 0}', 0)
    >>> published.take(b"A", b"{", 1)
    >>> place = published.known["A"].location
    >>> str(published.differences(["uk"], [place.model_copy(update={"enabled": False})]).different[0])
    'A: enabled: file false, published true (published 1970-01-01 00:00:00 UTC)'
    """

    def __init__(self) -> None:
        self.known: dict[str, Published] = {}

    def take(self, key: bytes | None, value: bytes | None, timestamp: int) -> None:
        """Let the next record of its partition come into force, if it does."""
        name = (key or b"").decode(errors="replace")
        known = self.known.get(name)
        if value is None:
            self.known[name] = Published(None, timestamp, known.pool if known else "")
            return
        location = judge(LOCATIONS, value)
        if isinstance(location, Refusal):
            wrong = f"{location.reason.wire}: {location.detail}"
        elif location.id != name:
            wrong = f"expected id {name}, its key, found {location.id}"
        elif known and known.pool not in ("", location.pool):
            wrong = f"expected pool {known.pool}, which it was in before, found {location.pool}"
        else:
            self.known[name] = Published(location, timestamp, location.pool)
            return
        if known is None:
            self.known[name] = Published(None, timestamp, unreadable=wrong)

    def differences(self, pools: Iterable[str], locations: Iterable[LocationRecord]) -> Differences:
        """Say how a network of some pools differs from this one."""
        found, wanted, declared = Differences(), {location.id: location for location in locations}, set(pools)
        for location in wanted.values():
            known = self.known.get(location.id)
            if known is None:
                found.missing.append(location)
            elif (different := _compared(location, known)) is not None:
                found.different.append(different)
        for name, known in self.known.items():
            if known.location is not None and name not in wanted:
                (found.only_published if known.location.pool in declared else found.elsewhere).append(known.location)
        return found


def _compared(location: LocationRecord, known: Published) -> Different | None:
    different = Different(location, known.timestamp)
    if known.location is None:
        removed = f"removed; the file has it in pool {location.pool}"
        different.why = f"what is published can't be read ({known.unreadable})" if known.unreadable else removed
        if known.pool not in ("", location.pool):
            different.fields.append(Field("pool", location.pool, known.pool))
        return different
    for name in LocationRecord.model_fields:
        here, there = getattr(location, name), getattr(known.location, name)
        if _plain(here) != _plain(there):
            different.fields.append(Field(name, here, there))
    return different if different.fields else None


def _plain(value: Any) -> Any:
    return sorted(set(value)) if isinstance(value, list) else value  # the order of capabilities says nothing


def shown(value: Any) -> str:
    """Give a field's value as YAML has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)


def time_of(timestamp: int) -> str:
    """Give a time in epoch ms for people.

    Examples
    --------
    >>> time_of(1_700_000_000_000)
    '2023-11-14 22:13:20 UTC'
    """
    return f"{datetime.fromtimestamp(timestamp / 1000, UTC):%Y-%m-%d %H:%M:%S UTC}"


def read_network(settings: Any, partitions: Iterable[int]) -> PublishedNetwork:
    """Read `locations.v1` to its end.

    Raises
    ------
    BrokerUnreachable, KafkaException
        It can't be read.
    """
    published = PublishedNetwork()
    with LogReader(settings, f"{settings.group_id}-network", log_level=0) as reader:
        for message in reader.read(LOCATIONS, dict.fromkeys(partitions, 0)):
            published.take(message.key(), message.value(), message.timestamp()[1])
    return published


def write_network(settings: Any, locations: Iterable[LocationRecord], removed: Iterable[str] = ()) -> int:
    """Write locations to `locations.v1`, and an empty record for each that is removed; give the number of records.

    Each record is written once, in this order for each id. When it fails, some may be written: comparing again tells which.

    Raises
    ------
    KafkaException
        One could not be written.
    TimeoutError
        Some were not written within `request_timeout_ms`.
    """
    errors: list[KafkaError] = []
    timeout_ms = settings.request_timeout_ms
    own = {"enable_idempotence": True, "partitioner": "murmur2_random", "message_timeout_ms": timeout_ms, "log_level": 0}
    producer = Producer(client_config(settings, **own))
    count = 0
    for key, value in _records(locations, removed):
        while True:
            try:
                producer.produce(LOCATIONS, value, key, on_delivery=lambda error, _: errors.extend([error] if error else []))
                break
            except BufferError:  # the queue is full
                producer.poll(0.1)
        count += 1
    left = producer.flush(timeout_ms / 1000 + 1)
    if errors:
        raise KafkaException(errors[0])
    if left:
        raise TimeoutError(f"{left} of {count} records of {LOCATIONS} could not be written within {timeout_ms / 1000:g} s")
    return count


def _records(locations: Iterable[LocationRecord], removed: Iterable[str]) -> Iterator[tuple[bytes, bytes | None]]:
    for location in locations:
        yield location.id.encode(), location.model_dump_json().encode()
    for name in removed:
        yield name.encode(), None
