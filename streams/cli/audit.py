"""`nearshelf audit`: is what the workers published what the inputs add up to? Exit status 1 if a fault was found."""

import getpass
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.options import Bootstrap, Json, Set, read_settings

if TYPE_CHECKING:
    from rich.console import Console

    from config.settings import Settings
    from streams.audit import Fault, Report

PROGRESS_S = 10.0
"""Between two lines about how far an audit that follows is."""


def register(app: typer.Typer) -> None:
    app.command()(audit)


def audit(
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", help="Go on beside production until Ctrl-C or SIGTERM: a batch is judged soon after its commit."
        ),
    ] = False,
    alert: Annotated[
        bool | None,
        typer.Option("--alert/--no-alert", help="Write each fault to alerts.v1.", show_default="only with --follow"),
    ] = None,
    faults: Annotated[
        int, typer.Option(min=0, metavar="N", help="Show the first N faults; with --follow, each as it is found.")
    ] = 20,
    complete: Annotated[
        bool, typer.Option("--complete", help="All is at rest: inputs in no batch, and open transactions, are faults.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            help="Go on from FILE if it is there, and leave in it what is known at the end. Only you may write it.",
        ),
    ] = None,
    acknowledge: Annotated[
        list[str] | None,
        typer.Option(
            "--acknowledge",
            metavar="TOPIC[PARTITION]@OFFSET",
            help="Audit nothing; from now on name the faults of this record, and count them no more. Repeatable.",
        ),
    ] = None,
    withdraw: Annotated[
        list[str] | None,
        typer.Option("--withdraw", metavar="TOPIC[PARTITION]@OFFSET", help="Take an acknowledgement back. Repeatable."),
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why a fault is acknowledged.")] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who acknowledges it. Default: this user, at this machine.")
    ] = None,
    bootstrap_servers: Bootstrap = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Fold all that is committed, slowly and independently of the workers, and compare it with what they published.

    It begins at the topics' first records, also with --follow. Where retention has deleted them, it says what it could not
    judge, which is no fault. With --checkpoint it goes on from what an earlier audit knew, and judges all that came since. With
    alerts a fault that alerts.v1 has already is counted, and not told again. Exit status 1 if there was a fault that nobody
    has acknowledged.
    """
    from rich.console import Console

    from streams.kafka.clients import connect

    if follow and complete:
        raise typer.BadParameter("nothing is at rest while it is followed", param_hint="--complete")
    settings = read_settings(assignments, bootstrap_servers=bootstrap_servers)
    if acknowledge or withdraw:
        _acknowledge(settings, acknowledge or [], withdraw or [], reason, by, as_json)
        return
    if reason or by:
        raise typer.BadParameter("expected --acknowledge TOPIC[PARTITION]@OFFSET with it, found none", param_hint="--reason")
    connect(settings)
    with _alerts(settings, follow if alert is None else alert) as told:
        run = _followed if follow else _at_once
        report = run(settings, told, complete, faults, as_json, checkpoint)
    if as_json:
        answer = report.as_dict()
        typer.echo(json.dumps(answer | {name: answer[name][:faults] for name in ("faults", "acknowledged")}))
    else:
        print_report(report, Console(), 0 if follow else faults)
    raise typer.Exit(0 if report.clean else 1)


def _acknowledge(
    settings: "Settings", places: list[str], withdrawn: list[str], reason: str | None, by: str | None, as_json: bool
) -> None:
    """Write acknowledgements, and take others back."""
    from streams.audit.acknowledged import acknowledge, withdraw

    if places and not (reason or "").strip():
        raise typer.BadParameter(
            "expected why the fault is acknowledged, found nothing: add --reason TEXT", param_hint="--reason"
        )
    given = acknowledge(settings, places, by or f"{getpass.getuser()}@{socket.gethostname()}", reason or "") if places else []
    gone = withdraw(settings, withdrawn) if withdrawn else []
    if as_json:
        typer.echo(json.dumps({"acknowledged": [each.model_dump() for each in given], "withdrawn": gone}))
        return
    for each in given:
        typer.echo(
            f"acknowledged: faults at {each.topic}[{each.partition}]@{each.offset}, by {each.acknowledged_by}: {each.reason}"
        )
    for topic, partition, offset in gone:
        typer.echo(f"withdrawn: faults at {topic}[{partition}]@{offset} count again")


def _at_once(
    settings: "Settings", told: Callable, complete: bool, faults: int, as_json: bool, checkpoint: Path | None
) -> "Report":
    from rich.console import Console

    from streams.audit import audit as run

    with _progress(Console(stderr=True)) as progress:
        return run(settings, progress, complete, told, checkpoint)


def _followed(
    settings: "Settings", told: Callable, complete: bool, faults: int, as_json: bool, checkpoint: Path | None
) -> "Report":
    """Audit until a signal comes; faults go to stdout as they are found, and a line on how far it is to stderr now and then."""
    from streams.audit.follow import Progress, follow

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    shown, said_at, caught_up = 0, time.monotonic(), False

    def show(fault: "Fault") -> None:
        nonlocal shown
        if not told(fault):
            return
        shown += 1
        if shown <= faults:
            typer.echo(json.dumps({"fault": asdict(fault)}) if as_json else str(fault))

    def say(progress: Progress, report: "Report") -> None:
        nonlocal said_at, caught_up
        first = progress.caught_up and not caught_up
        caught_up = caught_up or first
        if first or time.monotonic() - said_at >= PROGRESS_S:
            said_at = time.monotonic()
            where = "up to now" if progress.caught_up else f"of {max(progress.length, progress.events):,}"
            line = f"audit: {progress.events:,} events {where}, {report.batches:,} batches, {report.fault_count:,} faults"
            typer.echo(line, err=True)

    return follow(settings, stop, show, say, checkpoint)


@contextmanager
def _alerts(settings: "Settings", wanted: bool) -> Iterator[Callable[["Fault"], bool]]:
    """Give what writes a fault to alerts.v1, or does nothing, and tells whether it is new; all are written when it is left."""
    if not wanted:
        yield lambda fault: True
        return
    from streams.audit.alerts import Alerts

    alerts = Alerts(settings)
    yield alerts.tell
    alerts.flush()


def print_report(report: "Report", console: "Console", faults: int = 20) -> None:
    """Print an audit's answer: what was judged, then the first faults, a line each."""
    from rich.table import Table
    from rich.text import Text

    from topics.reasons import Outcome

    table = Table("audit", "", show_header=False, title="What the audit has judged")
    pools = f"{report.pools} in {report.partitions} partitions, {report.batches:,} batches"
    table.add_row("pools", pools)
    table.add_row("events", _counts(report.events))
    table.add_row("outcomes", _counts(report.outcomes))
    table.add_row("dead letters", _counts(report.dead_letters))
    table.add_row("orders", f"{report.orders:,} with {report.order_lines:,} lines")
    table.add_row("decisions", _counts(report.decisions))
    table.add_row("shipments", f"{report.shipments:,} over {report.distance_km:,.0f} km")
    table.add_row("cells", f"{report.cells:,}: {report.units_on_hand:,} on hand, {report.units_reserved:,} reserved")
    if report.unprocessed:
        table.add_row("not yet processed", f"{report.unprocessed:,}")
    if report.open_transactions:
        table.add_row("transactions open", ", ".join(report.open_transactions))
    if report.checkpoint:
        table.add_row("checkpoint", report.checkpoint)
    for place, not_judged in sorted(report.not_judged.items()):
        table.add_row("not judged", f"{place}: {not_judged}")
    if report.acknowledged_count:
        table.add_row("acknowledged", f"{report.acknowledged_count:,} faults, not counted")
    table.add_row("faults", "none" if report.clean else f"{report.fault_count:,}")
    console.print(table)
    for outcome in Outcome:
        if report.outcomes[outcome.wire]:
            console.print(f"  {outcome.wire}: {outcome.sentence}", highlight=False)
    for each in report.acknowledged[:faults]:
        console.print(Text(str(each)), soft_wrap=True)
    for fault in report.faults[:faults]:
        console.print(Text(str(fault)), soft_wrap=True)
    if report.fault_count > faults:
        console.print(f"... and {report.fault_count - faults:,} more")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


@contextmanager
def _progress(console: "Console") -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the audit runs, on a terminal."""
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("audit", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
