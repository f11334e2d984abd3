"""`nearshelf demo`: the main job on real data, watched, audited and summed up (benchmarks/demo.py)."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streams.cli.options import Bootstrap, Json, Preset, Set, read_settings

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.demo import Summary


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    lines: Annotated[int | None, typer.Option(min=1, help="Only so many of the sample's 50,062 lines.")] = None,
    speed: Annotated[Literal["paced", "max"], typer.Option(help="paced: about 20 s; max: as fast as it goes.")] = "paced",
    kill: Annotated[int, typer.Option(min=0, max=20, help="kill -9 a worker so many times.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=8, help="Worker processes.")] = 1,
    pools: Annotated[Literal[1, 4], typer.Option(help="One market, or the same towns cut into four.")] = 1,
    seed: Annotated[int, typer.Option(help="Of what the sample does not tell: towns, stock, who picks up.")] = 1,
    bootstrap_servers: Bootstrap = None,
    preset: Preset = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Send real retail data through a real Kafka; exit status 0 only if the audit is clean."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from benchmarks.demo import Demo, DemoFailed, Options

    settings = read_settings(assignments, bootstrap_servers=bootstrap_servers, preset=preset)
    if bootstrap_servers is not None:
        from streams.cli.cluster import connect

        connect(settings)
    import config

    network = settings.network or Path(config.__file__).parent / "networks" / ("uk.yaml" if pools == 1 else "uk4.yaml")
    settings = settings.model_copy(update={"network": network, "partitions": pools})
    options = Options(lines, speed == "paced", kill, workers, kill >= workers, seed, own_broker=bootstrap_servers is None)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("lines", total=lines or 50_062)
        try:
            summary = Demo(
                settings,
                options,
                say=lambda text: progress.console.print(text, highlight=False),
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            ).run()
        except DemoFailed as failed:
            console.print(f"nearshelf: {failed}", style="red")
            raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), default=str))
    else:
        _print(summary, Console())
    raise typer.Exit(0 if summary.clean else 1)


def _print(summary: "Summary", console) -> None:
    from streams.cli.audit import print_report

    console.print(_census(summary))
    console.print(_results(summary))
    print_report(summary.report, console)
    for sentence in summary.unexpected:
        console.print(f"not as the workload says: {sentence}", style="red")


def _census(summary: "Summary") -> "Table":
    from rich.table import Table

    table = Table("lines", "became", "outcome", "because", title=f"What became of {summary.lines:,} lines of a shop")
    for row in summary.census:
        table.add_row(f"{row.lines:,}", row.fate.replace("_", " "), row.outcome, row.why)
    return table


def _results(summary: "Summary") -> "Table":
    from rich.table import Table

    report = summary.report
    table = Table("result", "", show_header=False, title="What the topics say")
    table.add_row("orders, lines", f"{report.orders:,}, {report.order_lines:,}")
    statuses = ", ".join(f"{status} {count:,}" for status, count in report.decisions.most_common())
    table.add_row("decisions", f"{sum(report.decisions.values()):,}: {statuses}")
    table.add_row("shipments", f"{report.shipments:,} ({report.shipments / max(1, report.orders):.2f} an order)")
    kilometres = report.distance_km / max(1, report.shipments)
    table.add_row("kilometres", f"{report.distance_km:,.0f} ({kilometres:.1f} a shipment)")
    table.add_row("duplicates", f"{report.outcomes['duplicate']:,} changed nothing")
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.dead_letters.most_common())
    table.add_row("dead letters", f"{sum(report.dead_letters.values()):,}: {reasons or 'none'}")
    table.add_row("events/s", f"{summary.events / summary.seconds:,.0f} ({summary.events:,} in {summary.seconds:.1f} s)")
    table.add_row("order to decision", f"p50 {summary.latency_p50_ms:.0f} ms, p99 {summary.latency_p99_ms:.0f} ms")
    if summary.kills:
        table.add_row("workers killed", f"{summary.kills}")
    table.add_row("audit", "clean" if report.clean else f"{report.fault_count} faults")
    return table
