"""`nearshelf alerts`: what differs from what was promised, and stands.

An alert is raised and cleared under one id: its latest record says whether it stands. What the audit found stands for good.
Not here: which alerts there are (streams/inventory, streams/audit), their form (topics/outputs.py).
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli import tail
from streams.cli.options import Bootstrap, Json, Set, read_settings

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from topics.outputs import Alert, AuditAlert

AUDIT = "audit"
AUDIT_REMEDY = "Run nearshelf audit: it judges the log again, and says whether the fault still stands."
FOLLOW_S = 0.5
"""Between two looks of --follow."""


def register(app: typer.Typer) -> None:
    app.command()(alerts)


@dataclass(frozen=True, slots=True)
class Row:
    """The latest record of an alert. `since` is epoch ms; `topic`, `partition` and `offset` are of the record that shows it."""

    alert_id: str
    kind: str
    severity: str
    status: str
    pool_id: str | None
    location_id: str | None
    sku: str | None
    order_id: str | None
    found: int | str
    expected: int | str
    since: int
    topic: str
    partition: int
    offset: int | None
    remedy: str
    fault: str | None = None
    field: str | None = None

    @property
    def open(self) -> bool:
        return self.status == "raised"

    @property
    def place(self) -> str:
        if self.pool_id is None:
            return f"{self.topic}/{self.partition}" + ("" if self.offset is None else f"@{self.offset}")
        return self.pool_id + (f"/{self.location_id}" if self.location_id else "")


def alerts(
    kind: Annotated[str | None, typer.Option("--kind", help="Only those of this kind: shortfall say, or audit.")] = None,
    pool: Annotated[str | None, typer.Option("--pool", help="Only those of this pool; the audit's name none.")] = None,
    location: Annotated[str | None, typer.Option("--location", help="Only those at this location.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that are cleared.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="So many, the newest.")] = 100,
    check: Annotated[bool, typer.Option("--check", help="Exit status 1 if one of them is open.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Then show each that is raised or cleared, until Ctrl-C.")] = False,
    bootstrap_servers: Bootstrap = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """List the open alerts, newest first, each with its remedy; with --json one object a line.

    A worker raises an alert when a fact contradicts a promise, and clears it when that is settled. What `nearshelf audit` has
    found is of kind audit. An alert is kept as long as alerts.v1 keeps its record (output_retention_hours).
    """
    from streams.kafka.clients import partitions_of
    from streams.kafka.reading import LogReader
    from topics.catalogue import ALERTS

    if follow and check:
        raise typer.BadParameter("there is no last answer while it is followed", param_hint="--check")
    wanted = _wanted(kind, pool, location)
    settings = read_settings(assignments, bootstrap_servers=bootstrap_servers)
    starts = dict.fromkeys(partitions_of(ALERTS, settings), 0)
    with LogReader(settings, f"{settings.group_id}-alerts", log_level=0) as reader:
        latest = latest_of(_rows(reader, starts))
        rows = [row for row in latest if wanted(row)]
        opened = sum(row.open for row in rows)
        _show([row for row in rows if every or row.open], limit, as_json, opened)
        if follow:
            _follow(reader, starts, wanted, as_json)
    raise typer.Exit(1 if check and opened else 0)


def latest_of(rows: Iterable[Row]) -> list[Row]:
    """Give the latest record of each alert, newest first."""
    latest = {row.alert_id: row for row in rows}
    return sorted(latest.values(), key=lambda row: (row.since, row.alert_id), reverse=True)


def _wanted(kind: str | None, pool: str | None, location: str | None) -> Callable[[Row], bool]:
    """Check the filters, and return them as one."""
    from topics.reasons import AlertKind

    kinds = [*(known.wire for known in AlertKind), AUDIT]
    if kind is not None and kind not in kinds:
        raise typer.BadParameter(f"expected one of {', '.join(kinds)}, found {kind}", param_hint="--kind")
    return lambda row: (
        (kind is None or row.kind == kind)
        and (pool is None or row.pool_id == pool)
        and (location is None or row.location_id == location)
    )


def _rows(reader: Any, starts: dict[int, int]) -> Iterator[Row]:
    """Give the committed records from `starts` on, which are moved behind them; what is no alert is named and left out."""
    from topics.catalogue import ALERTS

    for message in reader.read(ALERTS, dict(starts)):
        starts[message.partition()] = message.offset() + 1
        row = row_of(message.value())
        if row is None:
            place = f"{ALERTS}[{message.partition()}]@{message.offset()}"
            typer.echo(f"{place}: no alert, but something else; left out", err=True)
        else:
            yield row


def row_of(value: bytes | None) -> Row | None:
    """Read a record of `alerts.v1`; None if it is none."""
    from pydantic import ValidationError

    from topics.outputs import AuditAlert

    try:
        found = _either().validate_json(value or b"")
    except ValidationError:
        return None
    if isinstance(found, AuditAlert):
        return Row(
            alert_id=found.alert_id,
            kind=AUDIT,
            severity=found.severity,
            status="raised",
            pool_id=None,
            location_id=None,
            sku=None,
            order_id=None,
            found=found.found,
            expected=found.expected,
            since=found.raised_at,
            topic=found.topic,
            partition=found.partition,
            offset=found.offset,
            remedy=AUDIT_REMEDY,
            fault=found.fault,
        )
    return Row(**found.model_dump(exclude={"source"}), **found.source.model_dump())


@cache
def _either() -> "TypeAdapter[Alert | AuditAlert]":
    from pydantic import TypeAdapter

    from topics.outputs import Alert, AuditAlert

    return TypeAdapter(Alert | AuditAlert)


def _show(rows: list[Row], limit: int, as_json: bool, opened: int) -> None:
    if as_json:
        for row in rows[:limit]:
            typer.echo(json.dumps(asdict(row)))
    else:
        _print_table(rows[:limit])
        typer.echo(f"{opened} open", err=True)
    if len(rows) > limit:
        typer.echo(f"The newest {limit} of {len(rows)}; --limit shows more.", err=True)


def _print_table(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    narrow = ("since", "status", "severity", "kind", "place", "SKU", "order")
    table = Table(*(Column(name, no_wrap=True) for name in narrow), "found", "expected", "remedy", box=None)
    for row in rows:
        table.add_row(*map(Text, _cells(row)))
    console = Console() if sys.stdout.isatty() else Console(width=250)
    console.print(table)


def _cells(row: Row) -> tuple[str, ...]:
    kind = f"{row.kind}: {row.fault or row.field}" if row.fault or row.field else row.kind
    things = (row.sku or "-", row.order_id or "-", str(row.found), str(row.expected))
    return (tail.iso(row.since), row.status, row.severity, kind, row.place, *things, row.remedy)


def _follow(reader: Any, starts: dict[int, int], wanted: Callable[[Row], bool], as_json: bool) -> None:
    try:
        while True:
            for row in _rows(reader, starts):
                if wanted(row):
                    sys.stdout.write((json.dumps(asdict(row)) if as_json else "  ".join(_cells(row))) + "\n")
            sys.stdout.flush()
            time.sleep(FOLLOW_S)
    except KeyboardInterrupt:
        pass
