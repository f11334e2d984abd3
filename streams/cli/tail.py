"""`nearshelf tail`: a topic's records as they come, for people and for scripts."""

import base64
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from streams.cli.options import Bootstrap, Json, Set, read_settings


def register(app: typer.Typer) -> None:
    app.command()(tail)


def tail(
    topic: Annotated[str, typer.Argument(help="Any topic of the cluster, without the topic_prefix.")],
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Not only what comes from now on.")] = False,
    committed: Annotated[
        bool, typer.Option("--committed/--uncommitted", help="Wait for transactions to commit, or show at once.")
    ] = True,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many records. Default: at Ctrl-C.")] = None,
    bootstrap_servers: Bootstrap = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Print a topic's records until Ctrl-C; with --json one object a line, with partition, offset, time and key."""
    from streams.kafka.clients import partitions_of

    settings = read_settings(assignments, bootstrap_servers=bootstrap_servers)
    partitions = partitions_of(topic, settings)
    show = _json_line if as_json else _text_line
    try:
        for message in _messages(settings, topic, partitions, from_beginning, committed, count):
            sys.stdout.write(show(message) + "\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        pass


def _messages(
    settings: Any, topic: str, partitions: list[int], from_beginning: bool, committed: bool, count: int | None
) -> Iterator[Any]:
    from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaException, TopicPartition

    from streams.kafka.clients import reading_config
    from streams.kafka.names import Consumer

    level = "read_committed" if committed else "read_uncommitted"
    backoff_ms = settings.fetch_queue_backoff_ms
    own = {"isolation_level": level, "fetch_queue_backoff_ms": backoff_ms, "log_level": 0}
    consumer = Consumer(reading_config(settings, f"{settings.group_id}-tail", **own))  # never joined, nothing is committed
    start = OFFSET_BEGINNING if from_beginning else OFFSET_END
    consumer.assign([TopicPartition(topic, partition, start) for partition in partitions])
    seen = 0
    try:
        while seen != count:
            for message in consumer.consume(1 if count is None else min(count - seen, 1000), timeout=0.2):
                if message.error():
                    raise KafkaException(message.error())
                yield message
                seen += 1
    finally:
        consumer.close()


def _text_line(message: Any) -> str:
    _, timestamp = message.timestamp()
    key, value = (as_text(part) for part in (message.key(), message.value()))
    time = iso(timestamp)
    time = time[11:-1] if time.endswith("Z") else time
    return f"{time} {message.partition()}@{message.offset()} {key or '-'} {value}"


def _json_line(message: Any) -> str:
    import orjson

    return orjson.dumps(
        {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": message.timestamp()[1],
            "key": as_text(message.key()),
            "value": parsed(message.value()),
        }
    ).decode()


def parsed(value: bytes | None) -> Any:
    """JSON as what it is, other text as text, other bytes as base64; JSON too deep to be written again is text."""
    import orjson

    try:
        found = orjson.loads(value or b"")
        orjson.dumps(found)
        return found
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return as_text(value)


def iso(time_ms: int) -> str:
    """Write a time for people; the number itself where the calendar has no such time, since any producer may set one."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(time_ms)


def as_text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()
