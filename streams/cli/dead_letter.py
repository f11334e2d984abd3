"""`nearshelf dead-letter list|show|replay`: what was refused and why, and how a repaired event gets back in.

A dead letter's place is `partition@offset` in dead-letter.v1. A replayed event goes to the topic it came from, keyed as
`nearshelf publish` would, with its event id: the id of a refused event is not remembered, so the repaired one is no duplicate,
and sent again it is one. That it was replayed, by whom and when, is noted on dead-letter-replays.v1.
Invariants: nothing is ever removed from dead-letter.v1; what the models would refuse again is not sent; no letter stops a
command, whatever it holds.
Not here: why a record is refused (topics/events.py, streams/inventory), sending and marks (replays.py).
"""

import heapq
import json
import re
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli import publish, tail
from streams.cli.lines import fault_of, fields_of, text_field
from streams.cli.options import Bootstrap, Json, Set, read_settings
from streams.cli.replays import Mark, Marks, Replayer, Sending, operator, read_marks, read_marks_if_any

if TYPE_CHECKING:
    from topics.outputs import DeadLetterReplay

_AGE = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PLACE = re.compile(r"(\d{1,9})@(\d{1,18})")

group = typer.Typer(no_args_is_help=True, help="Records that were refused: look at them, repair them, send them again.")


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="dead-letter")


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of dead-letter.v1. `key` and `value` are the refused record's; `refused_at` is epoch ms."""

    partition: int
    offset: int
    refused_at: int
    headers: tuple[tuple[str, bytes], ...]
    topic: str
    source_partition: int
    source_offset: int
    timestamp: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None

    @property
    def place(self) -> str:
        return f"{self.partition}@{self.offset}"

    def mark(self, marks: Marks) -> "DeadLetterReplay | None":
        """Give its mark, None if it was never replayed."""
        return marks.of(self.partition, self.offset, self.refused_at)


@dataclass(frozen=True, slots=True)
class Event:
    """What a letter becomes: the record to send, and the letters that would become the same, this one among them."""

    letter: Letter
    key: str
    value: bytes
    alike: list[Letter] = field(default_factory=list)


Reason = Annotated[str | None, typer.Option("--reason", help="Only those refused for this reason, `unknown_location` say.")]
Source = Annotated[str | None, typer.Option("--topic", help="Only those from this topic.")]
Pool = Annotated[str | None, typer.Option("--pool", metavar="KEY", help="Only those with this key.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="AGE|TIME", help="Only those refused since: 90s, 10m, 2h, 3d ago, or an ISO time (UTC)."),
]
Places = Annotated[list[str] | None, typer.Argument(metavar="[PLACE]...", help="As `list` prints them: partition@offset.")]


@group.command(name="list")
def list_(
    reason: Reason = None,
    topic: Source = None,
    pool: Pool = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="So many, the newest.")] = 100,
    bootstrap_servers: Bootstrap = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """List dead letters, newest first, and which were replayed, when and by whom; with --json one object a line."""
    settings = read_settings(assignments, bootstrap_servers=bootstrap_servers)
    found = _read(settings, _wanted(reason, topic, pool), _since(since))
    newest = heapq.nlargest(limit, found, key=lambda letter: (letter.refused_at, letter.partition, letter.offset))
    marks = read_marks_if_any(settings)
    if as_json:
        for letter in newest:
            typer.echo(json.dumps(_summary(letter, marks)))
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        *(Column(name, no_wrap=True) for name in ("place", "refused at", "from", "key", "reason")),
        "replayed",
        "detail",
        box=None,
    )
    for letter in newest:
        source = f"{letter.topic}/{letter.source_partition}@{letter.source_offset}"
        key, mark = tail.as_text(letter.key) or "-", letter.mark(marks)
        row = (letter.place, tail.iso(letter.refused_at), source, key, letter.reason, _marked(mark), letter.detail)
        table.add_row(*map(Text, row))
    console = Console() if sys.stdout.isatty() else Console(width=250)
    console.print(table)
    if len(newest) == limit:
        typer.echo(f"The newest {limit}; --limit shows more.", err=True)


@group.command()
def show(
    place: Annotated[str, typer.Argument(help="As `list` prints it: partition@offset.")],
    bootstrap_servers: Bootstrap = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter whole, its key and value as JSON or text where they are, and what is wrong with it now."""
    settings = read_settings(assignments, bootstrap_servers=bootstrap_servers)
    letter = _at(settings, place)
    fault = _fault(letter.topic, letter.value)
    marks = read_marks_if_any(settings)
    answer = _summary(letter, marks) | {
        "timestamp": letter.timestamp,
        "headers": {name: tail.as_text(value) for name, value in letter.headers},
        "value": tail.parsed(letter.value),
        "fault": fault,
    }
    if as_json:
        typer.echo(json.dumps(answer))
        return
    for name in ("place", "refused_at", "topic", "partition", "offset", "timestamp", "key", "reason", "detail", "headers"):
        typer.echo(f"{name.replace('_', ' '):<11}{answer[name]}")
    typer.echo(f"{'replayed':<11}{_marked(letter.mark(marks))}")
    typer.echo(f"{'now':<11}{fault or 'the models take it; what the state says to it, the worker tells'}")
    value = answer["value"]
    typer.echo(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


@group.command()
def replay(
    places: Places = None,
    value: Annotated[
        Path | None, typer.Option("--value", allow_dash=True, help="Send this file's content instead; - is standard input.")
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=JSON", help="Change a field: sku='\"A\"', lines.0.quantity=2. Repeatable."),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="The pool, where the event does not tell it.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Instead of places: all that the filters let through and nobody has replayed.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="With --all: also those that were replayed before.")] = False,
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who replays, for the mark.", show_default="user@host")
    ] = None,
    reason: Reason = None,
    topic: Source = None,
    pool: Pool = None,
    since: Since = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    bootstrap_servers: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Send refused events again, repaired or as they are, to the topic they came from; exit status 1 if one was not sent.

    Many are sent oldest first, and those that are alike once. What the models would refuse again is not sent. What depends on
    the state (unknown_order, order_exists, a limit) only the worker can tell: refused again, it is a new dead letter. An event
    keeps its event_id, so that one sent twice counts once, within the dedupe window. A record of locations.v1 becomes its
    location's latest.

    Each record is sent in one transaction with a mark that its letter was replayed, when and by whom. --all leaves out what has
    a mark; a place that is named is sent whether or not it has one.
    """
    filtered = any((reason, topic, pool, since))
    _check_use(places, every, filtered, value, asked=not (yes or dry_run), as_json=as_json)
    changes = [_change(assignment) for assignment in fields or []]
    settings = read_settings(bootstrap_servers=bootstrap_servers)
    marks = read_marks(settings)
    done: list[Letter] = []
    if every:
        wanted = _wanted(reason, topic, pool)
        found = list(_read(settings, wanted, _since(since)))
        done = [] if again else [letter for letter in found if letter.mark(marks)]
        found = [letter for letter in found if again or not letter.mark(marks)]
        letters = sorted(found, key=lambda letter: (letter.refused_at, letter.partition, letter.offset))
    else:
        letters = [_at(settings, place) for place in places or ()]
    replacement = None if value is None else sys.stdin.buffer.read() if str(value) == "-" else value.read_bytes()
    events, faults = _repaired(settings, letters, replacement, changes, key)
    if not as_json:
        _tell(faults)
        if done:
            typer.echo(f"{len(done)} were replayed before and are left out; --again includes them", err=True)
    if dry_run:
        _tell_plan(events, faults, len(done), as_json)
    else:
        if events and not yes:
            typer.confirm(f"Send {len(events)} to {', '.join(sorted({event.letter.topic for event in events}))}?", abort=True)
        sent, undelivered = _send(settings, events, by or operator(), skip_marked=every and not again)
        faults |= undelivered
        if as_json:
            typer.echo(json.dumps({"sent": sent, "replayed_before": len(done), "faults": _listed(faults)}))
        else:
            _tell(undelivered)
            typer.echo(f"{sent} sent" + (f", {len(faults)} not" if faults else ""))
    raise typer.Exit(1 if faults else 0)


def _check_use(
    places: list[str] | None, every: bool, filtered: bool, value: Path | None, *, asked: bool, as_json: bool
) -> None:
    """Refuse what contradicts itself."""
    if bool(places) == every:
        raise typer.BadParameter("expected places, or --all with filters", param_hint="PLACE")
    if filtered and not every:
        raise typer.BadParameter("filters go with --all, not with places", param_hint="--all")
    if value is not None and len(places or []) != 1:
        raise typer.BadParameter("one value replaces that of one place", param_hint="--value")
    if asked and (as_json or not sys.stdin.isatty()):
        raise typer.BadParameter("nobody can be asked here: give --yes, or --dry-run", param_hint="--yes")


# Reading


def _read(settings: Any, wanted: Callable[[Letter], bool], since: int | None) -> Iterator[Letter]:
    """Give the wanted letters that are committed now, partition by partition in their order."""
    from streams.kafka.clients import partitions_of
    from topics.catalogue import DEAD_LETTERS

    partitions = partitions_of(DEAD_LETTERS, settings)
    for message in _messages(settings, dict.fromkeys(partitions, 0), since):
        letter = _letter(message)
        if letter is None:
            typer.echo(f"{message.partition()}@{message.offset()}: no dead letter, but something else; left out", err=True)
        elif wanted(letter):
            yield letter


def _at(settings: Any, place: str) -> Letter:
    """Read one place; exits with status 1 if there is no dead letter."""
    from streams.kafka.clients import partitions_of
    from topics.catalogue import DEAD_LETTERS

    match = _PLACE.fullmatch(place)
    if match is None:
        raise typer.BadParameter(f"expected partition@offset, found {place}", param_hint="PLACE")
    partition, offset = map(int, match.groups())
    message = None
    if partition in partitions_of(DEAD_LETTERS, settings):
        message = next(_messages(settings, {partition: offset}, None), None)
    letter = _letter(message) if message is not None and message.offset() == offset else None
    if letter is None:
        typer.echo(
            f"nearshelf: there is no dead letter at {place}; `nearshelf dead-letter list` names those there are", err=True
        )
        raise typer.Exit(1)
    return letter


def _messages(settings: Any, starts: dict[int, int], since: int | None) -> Iterator[Any]:
    """Give dead-letter.v1's committed messages from an offset of each partition, or a time, to its present end."""
    from streams.kafka.reading import LogReader
    from topics.catalogue import DEAD_LETTERS

    with LogReader(settings, f"{settings.group_id}-dead-letter", log_level=0) as reader:
        if since is not None:
            found = {partition: reader.since(DEAD_LETTERS, partition, since) for partition in starts}
            starts = {partition: offset for partition, offset in found.items() if offset >= 0}
        yield from reader.read(DEAD_LETTERS, starts)


def _letter(message: Any) -> Letter | None:
    from pydantic import ValidationError

    from topics.outputs import DeadLetterRecord

    try:
        record = DeadLetterRecord.model_validate_json(message.value() or b"")
        return Letter(
            message.partition(),
            message.offset(),
            message.timestamp()[1],
            tuple(message.headers() or ()),
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            record.reason,
            record.detail,
            None if record.key is None else b64decode(record.key, validate=True),
            None if record.value is None else b64decode(record.value, validate=True),
        )
    except (ValidationError, ValueError):
        return None


def _wanted(reason: str | None, topic: str | None, pool: str | None) -> Callable[[Letter], bool]:
    """Check the filters, and return them as one."""
    from topics.events import MODELS
    from topics.reasons import DeadLetter

    reasons = [known.wire for known in DeadLetter]
    if reason is not None and reason not in reasons:
        raise typer.BadParameter(f"expected one of {', '.join(reasons)}, found {reason}", param_hint="--reason")
    if topic is not None and topic not in MODELS:
        raise typer.BadParameter(f"expected one of {', '.join(MODELS)}, found {topic}", param_hint="--topic")
    key = None if pool is None else pool.encode()
    return lambda letter: (
        (reason is None or letter.reason == reason)
        and (topic is None or letter.topic == topic)
        and (key is None or letter.key == key)
    )


def _since(text: str | None) -> int | None:
    """Read an age or a time; epoch ms."""
    if text is None:
        return None
    age = _AGE.fullmatch(text)
    try:
        if age:
            then = datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        else:
            then = datetime.fromisoformat(text)
            then = then if then.tzinfo else then.replace(tzinfo=UTC)
        return max(0, int(then.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"expected 90s, 10m, 2h, 3d or 2026-01-31T12:00, found {text}", param_hint="--since") from None


# Repairing


def _change(assignment: str) -> tuple[list[str], Any]:
    """Read FIELD=JSON: the path to the field, and its new value."""
    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"expected FIELD=JSON, found {assignment}", param_hint="--set")
    try:
        return name.split("."), json.loads(text)
    except (ValueError, RecursionError):
        raise typer.BadParameter(
            f"{name}: expected JSON, found {text}. Text needs its quotes: --set {name}='\"{text}\"'", param_hint="--set"
        ) from None


def _changed(value: bytes | None, changes: list[tuple[list[str], Any]]) -> bytes:
    """Return the event with its fields changed; raises ValueError where it can't be."""
    try:
        event = json.loads((value or b"").decode())
    except (ValueError, RecursionError):
        raise ValueError("the value is no JSON: no field of it can be changed. Give it whole, by --value") from None
    for path, new in changes:
        place = event
        for i, step in enumerate(path):
            at: str | int = step
            if isinstance(place, list) and step.isdecimal() and int(step) < len(place):
                at = int(step)
            elif not isinstance(place, dict) or (i + 1 < len(path) and step not in place):
                raise ValueError(f"{'.'.join(path[: i + 1])}: there is no such place in the event")
            if i + 1 == len(path):
                place[at] = new
            else:
                place = place[at]
    return json.dumps(event).encode()


def _repaired(
    settings: Any, letters: list[Letter], replacement: bytes | None, changes: list[tuple[list[str], Any]], key: str | None
) -> tuple[list[Event], dict[str, str]]:
    """Give what can be sent, and place → why not for the rest; letters that are alike become one event."""
    by_pool = key is None and any(_own_key(letter.topic) is None for letter in letters)
    pools = publish.published_pools(settings) if by_pool else {}
    events: dict[tuple[str, str, bytes], Event] = {}
    faults: dict[str, str] = {}
    for letter in letters:
        try:
            value = letter.value if replacement is None else replacement
            value = _changed(value, changes) if changes else value
            fault = _fault(letter.topic, value)
            if fault or value is None:
                raise ValueError(fault)
            own = _key(letter, value, pools) if key is None or _own_key(letter.topic) else key
        except ValueError as error:
            faults[letter.place] = str(error)
            continue
        events.setdefault((letter.topic, own, value), Event(letter, own, value)).alike.append(letter)
    return list(events.values()), faults


def _fault(topic: str, value: bytes | None) -> str:
    """Say why the event would be refused again; empty if the models take it."""
    from topics.catalogue import publishable

    if topic not in {each.name for each in publishable()}:
        return f"{topic} is written by workers only; there is nothing to send again"
    return fault_of(topic, value)


def _key(letter: Letter, value: bytes, pools: dict[str, str]) -> str:
    """Find the event's key as `publish` does; an order without a pool's name stays in the pool it was sent to.

    Raises
    ------
    ValueError
        No known pool is the event's.
    """
    from topics.catalogue import CATALOGUE

    event = fields_of(value)
    if own_key := _own_key(letter.topic):
        return event[own_key]
    if CATALOGUE[letter.topic].every_value_has("location_id"):
        if event["location_id"] in pools:
            return pools[event["location_id"]]
        raise ValueError(f"location_id: expected a known location, found {event['location_id']}")
    known = sorted(set(pools.values()))
    pool = text_field(event, "pool_id") or tail.as_text(letter.key) or (known[0] if len(known) == 1 else None)
    if pool in known:
        return pool
    expected = f"one of {', '.join(known)}" if known else "a pool of locations.v1, which is empty"
    raise ValueError(f"pool: expected {expected}, found {pool or 'none'}. Name it by --key")


def _own_key(topic: str) -> str | None:
    """Name the field that keys a topic's values; None where a pool does, or the topic is none of the catalogue."""
    from topics.catalogue import CATALOGUE

    return CATALOGUE[topic].own_key if topic in CATALOGUE else None


# Sending and telling


def _send(settings: Any, events: list[Event], by: str, *, skip_marked: bool) -> tuple[int, dict[str, str]]:
    """Send the events with their marks; give how many were sent, and place → why for each that was not.

    With `skip_marked` an event whose letters were all replayed since they were listed is a fault.
    """
    if not events:
        return 0, {}
    replayer = Replayer(settings, by, {event.letter.topic for event in events})
    faults: dict[str, str] = {}
    chosen = []
    for event in events:
        marks = [letter.mark(replayer.marks) for letter in event.alike]
        if skip_marked and all(marks):
            faults[event.letter.place] = f"replayed meanwhile, {_marked(marks[0])}"
        else:
            chosen.append(event)
    unsent = replayer.send([_sending(event) for event in chosen])
    faults |= {chosen[number].letter.place: why for number, why in unsent.items()}
    return len(chosen) - len(unsent), faults


def _sending(event: Event) -> Sending:
    marks = tuple(
        Mark(letter.partition, letter.offset, letter.refused_at, changed=letter.value != event.value) for letter in event.alike
    )
    return Sending(event.letter.topic, event.key, event.value, marks, _headers(event.letter))


def _headers(letter: Letter) -> list[tuple[str, bytes]]:
    from topics.catalogue import DEAD_LETTERS

    traces = [header for header in letter.headers if header[0] == "traceparent"]
    return [("replayed-from", f"{DEAD_LETTERS}/{letter.partition}/{letter.offset}".encode()), *traces]


def _tell(faults: dict[str, str]) -> None:
    for place, fault in faults.items():
        typer.echo(f"{place}: {fault}", err=True)


def _tell_plan(events: list[Event], faults: dict[str, str], done: int, as_json: bool) -> None:
    if as_json:
        plan = [
            {
                "place": event.letter.place,
                "topic": event.letter.topic,
                "key": event.key,
                "value": tail.parsed(event.value),
            }
            for event in events
        ]
        typer.echo(json.dumps({"sent": 0, "replayed_before": done, "events": plan, "faults": _listed(faults)}))
        return
    for event in events:
        typer.echo(f"{event.letter.place}: to {event.letter.topic}, key {event.key}: {tail.as_text(event.value)}")


def _listed(faults: dict[str, str]) -> list[dict[str, str]]:
    return [{"place": place, "detail": fault} for place, fault in faults.items()]


def _marked(mark: "DeadLetterReplay | None") -> str:
    if mark is None:
        return "-"
    return f"{tail.iso(mark.replayed_at)} by {mark.replayed_by}" + (f", {mark.times} times" if mark.times > 1 else "")


def _summary(letter: Letter, marks: Marks) -> dict[str, Any]:
    mark = letter.mark(marks)
    replayed = mark and {
        "at": tail.iso(mark.replayed_at),
        "by": mark.replayed_by,
        "client_id": mark.client_id,
        "changed": mark.changed,
        "times": mark.times,
    }
    return {
        "place": letter.place,
        "refused_at": tail.iso(letter.refused_at),
        "topic": letter.topic,
        "partition": letter.source_partition,
        "offset": letter.source_offset,
        "key": tail.as_text(letter.key),
        "reason": letter.reason,
        "detail": letter.detail,
        "replayed": replayed,
    }
