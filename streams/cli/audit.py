"""`nearshelf audit`: is what the workers published what the inputs add up to? Exit status 1 if a fault was found."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.options import Bootstrap, Json, Set, read_settings

if TYPE_CHECKING:
    from rich.console import Console

    from streams.audit import Report


def register(app: typer.Typer) -> None:
    app.command()(audit)


def audit(
    faults: Annotated[int, typer.Option(min=0, metavar="N", help="Show the first N faults.")] = 20,
    complete: Annotated[bool, typer.Option("--complete", help="Inputs that no batch has consumed yet are faults.")] = False,
    bootstrap_servers: Bootstrap = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Fold all that is committed, slowly and independently of the workers, and compare it with what they published."""
    from rich.console import Console

    from streams.audit import audit as run
    from streams.audit.kafka_log import MissingTopics
    from streams.cli.cluster import connect

    settings = read_settings(assignments, bootstrap_servers=bootstrap_servers)
    connect(settings)
    try:
        with _progress(Console(stderr=True)) as progress:
            report = run(settings, progress, complete)
    except MissingTopics as missing:
        typer.echo(f"nearshelf: {missing}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        answer = report.as_dict()
        typer.echo(json.dumps(answer | {"faults": answer["faults"][:faults]}))
    else:
        print_report(report, Console(), faults)
    raise typer.Exit(0 if report.clean else 1)


def print_report(report: "Report", console: "Console", faults: int = 20) -> None:
    """Print an audit's answer: what was judged, then the first faults, a line each."""
    from rich.table import Table
    from rich.text import Text

    table = Table("audit", "", show_header=False)
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
    table.add_row("faults", "none" if report.clean else f"{report.fault_count:,}")
    console.print(table)
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
