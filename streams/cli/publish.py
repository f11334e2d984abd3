"""`nearshelf publish`: JSON lines to an input topic, each with the key that puts it into the right partition.

Invariants: lines keep their order within a key; a line that is refused is named by its number and does not stop the others.
Not here: what a record must be (topics/events.py), what is said of a line that is none (lines.py), what becomes of it (the
worker).
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.lines import fault_of, fields_of, numbered, text_field
from streams.cli.options import Bootstrap, Json, Set, read_settings

if TYPE_CHECKING:
    from streams.kafka.names import Producer

DELIVERY_TIMEOUT_MS = 30_000
BATCH_BYTES = 1_000_000
"""librdkafka's own default of batch.size."""


def register(app: typer.Typer) -> None:
    app.command()(publish)


@dataclass(slots=True)
class Report:
    """What became of the lines. `faults` is line number → why it was not sent, or not delivered."""

    sent: int = 0
    faults: dict[int, str] = field(default_factory=dict)


def publish(
    topic: Annotated[str, typer.Argument(help="An input of the contract, orders.v1 say.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", exists=True, dir_okay=False, help="JSON lines. Default: standard input.")
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            help="The pool of every line. Default: that of the line's location_id; an order's pool_id, or the only pool."
        ),
    ] = None,
    network: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Look up pools in this file. Default: in locations.v1."),
    ] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Send lines as they are, right or wrong.")] = False,
    bootstrap_servers: Bootstrap = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Publish events, one JSON object a line; exit status 1 if a line was refused or not delivered.

    Sales, stock and fulfilments go to the pool of their location_id; orders to their field pool_id, or to the only pool
    there is. Clicks are keyed by visitor, locations by id.
    """
    from streams.kafka.clients import partitions_of
    from topics.catalogue import publishable

    topics = {each.name: each for each in publishable()}
    if topic not in topics:
        raise typer.BadParameter(f"expected one of {', '.join(topics)}, found {topic}", param_hint="TOPIC")
    settings = read_settings(assignments, bootstrap_servers=bootstrap_servers)
    partitions_of(topic, settings)
    pools = {} if pool or topics[topic].own_key else _pools(settings, network)
    report = Report()
    with file.open("rb") if file else sys.stdin.buffer as source:
        send(settings, topic, _keyed(topic, numbered(source), pool, pools, unchecked, report), report)
    _tell(topic, report, as_json)
    raise typer.Exit(1 if report.faults else 0)


def _pools(settings: Any, network: Path | None) -> dict[str, str]:
    """Return location id → pool id."""
    if network is not None:
        from config.network import load_network

        return {location.id: location.pool for location in load_network(network).locations}
    return published_pools(settings)


def published_pools(settings: Any) -> dict[str, str]:
    """Give location id → pool id by `locations.v1`, as the workers have it (streams/inventory/network.py).

    A location stays in the pool of its first valid record: workers refuse a record that moves it. One that is deleted is
    disabled, and its stock is still where it was. Where compaction has removed the first record, the first that is left counts.
    """
    from streams.kafka.clients import partitions_of
    from streams.kafka.reading import LogReader
    from topics.catalogue import LOCATIONS

    starts = dict.fromkeys(partitions_of(LOCATIONS, settings), 0)
    with LogReader(settings, f"{settings.group_id}-publish", log_level=0) as reader:
        return first_pools((message.key(), message.value()) for message in reader.read(LOCATIONS, starts))


def first_pools(records: Iterable[tuple[bytes | None, bytes | None]]) -> dict[str, str]:
    """Give location id → pool id of the first valid record of each, of keys and values in their order."""
    from topics.catalogue import LOCATIONS
    from topics.events import Refusal, judge

    pools: dict[str, str] = {}
    for key, value in records:
        location = judge(LOCATIONS, value)
        if not isinstance(location, Refusal) and key == location.id.encode():
            pools.setdefault(location.id, location.pool)
    return pools


def _keyed(
    topic: str,
    lines: Iterator[tuple[int, bytes]],
    pool: str | None,
    pools: dict[str, str],
    unchecked: bool,
    report: Report,
) -> Iterator[tuple[int, str | None, bytes]]:
    """Give each line's number, key and value; lines that are refused go to the report."""
    key_of = _key_finder(topic, pool, pools)
    for number, line in lines:
        fault = "" if unchecked else fault_of(topic, line)
        key, no_key = (None, "") if fault else key_of(line)
        if fault or (no_key and not unchecked):
            report.faults[number] = fault or no_key
        else:
            yield number, key, line


def _key_finder(topic: str, pool: str | None, pools: dict[str, str]) -> Callable[[bytes], tuple[str | None, str]]:
    """Return a function from a line to its key and, where there is none, why."""
    from topics.catalogue import CATALOGUE

    names = sorted(set(pools.values()))
    only_pool = names[0] if len(names) == 1 else None
    own_key, has_location = CATALOGUE[topic].own_key, CATALOGUE[topic].every_value_has("location_id")

    def key_of(line: bytes) -> tuple[str | None, str]:
        event = fields_of(line)
        if own_key:
            return text_field(event, own_key), ""
        if pool:
            return pool, ""
        if not has_location:
            key = text_field(event, "pool_id") or only_pool
            return key, "" if key else _no_pool(names)
        location = text_field(event, "location_id")
        # Where nothing is checked, a record that names no known location still has to go somewhere.
        fault = "" if location in pools else f"location_id: expected a known location, found {location}"
        return pools.get(location or "", only_pool), fault

    return key_of


def _no_pool(names: list[str]) -> str:
    if not names:
        return "pool_id: expected the order's pool, and no location is known yet. Name it by --pool, or give --network"
    return f"pool_id: expected one of {', '.join(names)}, found none. Add the field, or name the pool by --pool"


def send(settings: Any, topic: str, messages: Iterator[tuple[int, str | None, bytes]], report: Report) -> None:
    """Send messages of (number, key, value), and note in the report what became of each."""
    from confluent_kafka import KafkaError, KafkaException

    limits = limits_of(settings, [topic])
    producer = producer_of(settings, limits, enable_idempotence=True)
    undelivered = Undelivered(settings, limits)

    def delivered(number: int, value: bytes) -> Callable[[Any, Any], None]:
        def note(error: Any, message: Any) -> None:
            if error is None:
                report.sent += 1
            else:
                report.faults[number] = undelivered.because(error, topic, value)

        return note

    fatal: KafkaError | None = None
    try:
        for number, key, value in messages:
            try:
                enqueue(producer, topic, key, value, on_delivery=delivered(number, value))
            except KafkaException as error:
                report.faults[number] = undelivered.because(error.args[0], topic, value)
            producer.poll(0)
    except KafkaError as error:  # type: ignore[misc]  # what poll raises if the producer can't go on is no Exception
        fatal = error
    finally:  # on Ctrl-C too: what was taken is delivered
        if fatal is None:
            producer.flush()
    if fatal is not None:
        raise KafkaException(fatal)


def limits_of(settings: Any, topics: Iterable[str]) -> dict[str, int]:
    """Give how many bytes each topic takes at once, of those that exist and may be asked for."""
    from confluent_kafka import KafkaException

    from streams.kafka.clients import connect
    from streams.kafka.create import topic_config

    admin = connect(settings)
    limits = {}
    for topic in topics:
        with suppress(KafkaException):
            limits[topic] = int(topic_config(admin, [topic])[topic]["max.message.bytes"])
    return limits


def producer_of(settings: Any, limits: dict[str, int], **own: Any) -> "Producer":
    """Make a producer of input records for topics with these limits.

    A broker refuses a batch that is larger than the topic's limit, and with it all good records in it. So no batch is larger,
    unless it is one record.
    """
    from streams.kafka.clients import client_config
    from streams.kafka.names import Producer
    from topics.catalogue import INPUT_BYTES

    # What is compressed may be larger before.
    largest = max(limits.values(), default=INPUT_BYTES) if settings.compression == "none" else INPUT_BYTES
    common = {
        "partitioner": "murmur2_random",
        "linger_ms": settings.linger_ms,
        "compression_type": settings.compression,
        "message_timeout_ms": DELIVERY_TIMEOUT_MS,
        "message_max_bytes": max(1000, min(INPUT_BYTES, largest)),
        "batch_size": max(1, min(BATCH_BYTES, *limits.values())) if limits else BATCH_BYTES,
        "log_level": 0,
    }
    return Producer(client_config(settings, **common | own))


def enqueue(producer: "Producer", topic: str, key: str | None, value: bytes, **own: Any) -> None:
    """Hand a record to the producer, and wait while its queue is full; raises KafkaException if it can never be sent."""
    while True:
        try:
            producer.produce(topic, value, key, **own)
            return
        except BufferError:
            producer.poll(0.1)


class Undelivered:
    """Says why a record was not delivered."""

    def __init__(self, settings: Any, limits: dict[str, int]):
        self._settings = settings
        self._limits = limits

    def because(self, error: Any, topic: str, value: bytes) -> str:
        from confluent_kafka import KafkaError

        from streams.kafka.names import on_cluster

        if error.code() != KafkaError.MSG_SIZE_TOO_LARGE:
            return f"not delivered: {error.str()}"
        name, limit = on_cluster(self._settings, topic), self._limits.get(topic, "fewer")
        how = f"kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config max.message.bytes=..."
        return f"not delivered: {name} takes at most {limit} bytes, found {len(value)}. An operator can raise the limit: {how}"


def _tell(topic: str, report: Report, as_json: bool) -> None:
    if as_json:
        faults = [{"line": number, "detail": detail} for number, detail in sorted(report.faults.items())]
        typer.echo(json.dumps({"topic": topic, "sent": report.sent, "faults": faults}))
        return
    for number, detail in sorted(report.faults.items()):
        typer.echo(f"line {number}: {detail}", err=True)
    typer.echo(f"{report.sent} sent to {topic}" + (f", {len(report.faults)} not" if report.faults else ""))
