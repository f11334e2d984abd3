"""`nearshelf publish`: JSON lines to an input topic, each with the key that puts it into the right partition.

Invariants: lines keep their order within a key; a line that is refused is named by its number and does not stop the others.
Not here: what a record must be (topics/events.py), what becomes of it (the worker).
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from streams.cli.options import Bootstrap, Json, Set, read_settings

DELIVERY_TIMEOUT_MS = 30_000


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
        send(settings, topic, _keyed(topic, _lines(source), pool, pools, unchecked, report), report)
    _tell(topic, report, as_json)
    raise typer.Exit(1 if report.faults else 0)


def _lines(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    return ((number, line.strip()) for number, line in enumerate(source, 1) if line.strip())


def _pools(settings: Any, network: Path | None) -> dict[str, str]:
    """Return location id → pool id."""
    if network is not None:
        from config.network import load_network

        return {location.id: location.pool for location in load_network(network).locations}
    return published_pools(settings)


def published_pools(settings: Any) -> dict[str, str]:
    """Give location id → pool id by `locations.v1`; a location whose last record is empty is gone."""
    from streams.kafka.clients import partitions_of
    from streams.kafka.reading import LogReader
    from topics.catalogue import LOCATIONS
    from topics.events import Refusal, judge

    starts = dict.fromkeys(partitions_of(LOCATIONS, settings), 0)
    pools: dict[str, str] = {}
    with LogReader(settings, f"{settings.group_id}-publish", log_level=0) as reader:
        for message in reader.read(LOCATIONS, starts):
            location = judge(LOCATIONS, message.value())
            pools.pop((message.key() or b"").decode(errors="replace"), None)
            if not isinstance(location, Refusal):
                pools[location.id] = location.pool
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
    from topics.events import Refusal, judge

    key_of = _key_finder(topic, pool, pools)
    for number, line in lines:
        if not unchecked:
            found = judge(topic, line)
            if isinstance(found, Refusal):
                report.faults[number] = found.detail
                continue
        key, fault = key_of(line)
        if fault and not unchecked:
            report.faults[number] = fault
            continue
        yield number, key, line


def _key_finder(topic: str, pool: str | None, pools: dict[str, str]) -> Callable[[bytes], tuple[str | None, str]]:
    """Return a function from a line to its key and, where there is none, why."""
    from topics.catalogue import CATALOGUE

    names = sorted(set(pools.values()))
    only_pool = names[0] if len(names) == 1 else None
    own_key, has_location = CATALOGUE[topic].own_key, CATALOGUE[topic].every_value_has("location_id")

    def key_of(line: bytes) -> tuple[str | None, str]:
        event = _object(line)
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


def _object(line: bytes) -> dict:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def text_field(event: dict, name: str) -> str | None:
    return event[name] if isinstance(event.get(name), str) else None


def _no_pool(names: list[str]) -> str:
    if not names:
        return "pool_id: expected the order's pool, and no location is known yet. Name it by --pool, or give --network"
    return f"pool_id: expected one of {', '.join(names)}, found none. Add the field, or name the pool by --pool"


def send(settings: Any, topic: str, messages: Iterator[tuple], report: Report) -> None:
    """Send messages of (number, key, value, header, ...), and note in the report what became of each."""
    from streams.kafka.clients import client_config
    from streams.kafka.names import Producer

    producer = Producer(
        client_config(
            settings,
            partitioner="murmur2_random",
            enable_idempotence=True,
            linger_ms=settings.linger_ms,
            compression_type=settings.compression,
            message_timeout_ms=DELIVERY_TIMEOUT_MS,
            log_level=0,
        )
    )

    def delivered(number: int) -> Callable[[Any, Any], None]:
        def note(error: Any, message: Any) -> None:
            if error is None:
                report.sent += 1
            else:
                report.faults[number] = f"not delivered: {error.str()}"

        return note

    try:
        for number, key, value, *headers in messages:
            while True:
                try:
                    producer.produce(topic, value, key, headers=headers, on_delivery=delivered(number))
                    break
                except BufferError:  # the queue is full
                    producer.poll(0.1)
            producer.poll(0)
    finally:  # on Ctrl-C too: what was taken is delivered
        producer.flush()


def _tell(topic: str, report: Report, as_json: bool) -> None:
    if as_json:
        faults = [{"line": number, "detail": detail} for number, detail in sorted(report.faults.items())]
        typer.echo(json.dumps({"topic": topic, "sent": report.sent, "faults": faults}))
        return
    for number, detail in sorted(report.faults.items()):
        typer.echo(f"line {number}: {detail}", err=True)
    typer.echo(f"{report.sent} sent to {topic}" + (f", {len(report.faults)} not" if report.faults else ""))
