"""`nearshelf demo`: the main job on real data, watched, audited and summed up (benchmarks/demo.py)."""

import contextlib
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streams.cli.options import Bootstrap, Json, Preset, Set, read_settings

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.demo import Summary
    from streams.audit import Report

NEXT = """\
What next: the same with broker and worker left running: nearshelf demo --stay
           with workers killed on the way: nearshelf demo --kill 3
           your own events: see "Your own events" in README.md"""
STAYING = """
Broker and workers stay until Ctrl-C. What to try, in another terminal:
  export NEARSHELF_BOOTSTRAP_SERVERS={address}
  nearshelf tail allocations.v1 --from-beginning --count 3
  nearshelf dead-letter list --limit 5
  nearshelf audit
(nearshelf lies in .venv/bin; `. .venv/bin/activate` puts it on the path)"""


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    lines: Annotated[int | None, typer.Option(min=1, help="Only so many of the sample's 50,062 lines.")] = None,
    speed: Annotated[Literal["paced", "max"], typer.Option(help="paced: about 20 s; max: as fast as it goes.")] = "paced",
    kill: Annotated[int, typer.Option(min=0, max=20, help="kill -9 a worker so many times.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=8, help="Worker processes.")] = 1,
    pools: Annotated[Literal[1, 4], typer.Option(help="One market, or the same towns cut into four.")] = 1,
    seed: Annotated[int, typer.Option(help="Of what is made up: towns, stock, who picks up.")] = 1,
    stay: Annotated[bool, typer.Option("--stay", help="Keep broker and workers running until Ctrl-C.")] = False,
    bootstrap_servers: Bootstrap = None,
    preset: Preset = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Send real retail data through a real Kafka; exit status 0 only if the audit is clean.

    On a broker of its own, unless another is named; that one must be empty.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from benchmarks.demo import Demo, DemoFailed, Options, Summary
    from benchmarks.fleet import ProcessFailed
    from config.settings import Settings

    settings = read_settings(assignments, bootstrap_servers=bootstrap_servers, preset=preset)
    named = "bootstrap_servers" in settings.model_fields_set  # by the option, the environment or --set
    if named:
        from streams.kafka.clients import connect

        connect(settings)
    import config

    network = settings.network or Path(config.__file__).parent / "networks" / ("uk.yaml" if pools == 1 else "uk4.yaml")
    settings = settings.model_copy(update={"network": network, "partitions": pools})
    options = Options(lines, speed == "paced", kill, workers, kill >= workers, seed, own_broker=not named)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def progress(doing: str, done: int, total: int | None) -> None:
            bar.update(task, description=doing, completed=done, total=total)

        def keep(settings: Settings, summary: Summary) -> None:
            bar.stop()
            _tell(summary, as_json)
            with contextlib.suppress(KeyboardInterrupt):  # who reads "Ctrl-C" may press it before the sentence is out
                console.print(STAYING.format(address=settings.bootstrap_servers), highlight=False)
                signal.pause()
            console.print("Stopping the workers and the broker.")

        try:
            summary = Demo(
                settings, options, lambda text: bar.console.print(text, highlight=False), progress, keep if stay else None
            ).run()
        except (DemoFailed, ProcessFailed) as failed:
            console.print(f"nearshelf: {failed}", style="red", markup=False)
            raise typer.Exit(1) from None
    if not stay:
        _tell(summary, as_json)
        console.print(NEXT, highlight=False)
    raise typer.Exit(0 if summary.clean else 1)


def _leave(number: int, _: object) -> None:
    """End as on Ctrl-C, so that broker and workers are stopped; a second signal does not interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _tell(summary: "Summary", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), default=str))
        return
    from rich.console import Console
    from rich.padding import Padding

    from streams.cli.audit import print_report

    console = Console()
    console.print(_census(summary))
    console.print(_results(summary))
    console.print(_decisions(summary.report))
    console.print(_ways(summary))
    each = summary.report.order_lines / max(1, summary.report.orders)
    console.print(f"  This shop sells wholesale, {each:.0f} lines an order, and no one location has them all.")
    console.print("\n[bold]Three orders, as the topics have them[/]\n")
    for title, sentences in summary.stories:
        for sentence in (f"[bold]{title}.[/] {sentences[0]}", *sentences[1:]):
            console.print(Padding(sentence, (0, 0, 0, 2)), highlight=False)
        console.print()
    if not summary.report.clean:
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
    table.add_row("orders", f"{report.orders:,} with {report.order_lines:,} lines")
    ignored = f"{report.outcomes['duplicate']:,} sent twice, {report.outcomes['stale']:,} from before the cell's last count"
    table.add_row("without effect", ignored)
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.dead_letters.most_common())
    table.add_row("dead letters", f"{sum(report.dead_letters.values()):,}: {reasons or 'none'}")
    table.add_row("events/s", f"{summary.events / summary.seconds:,.0f} ({summary.events:,} in {summary.seconds:.1f} s)")
    table.add_row("order to decision", f"p50 {summary.latency_p50_ms:.0f} ms, p99 {summary.latency_p99_ms:.0f} ms")
    if summary.kills:
        table.add_row("workers killed", f"{summary.kills}")
    events = sum(report.events.values())
    audited = f"clean: {events:,} events, {report.batches:,} batches and {report.cells:,} cells add up"
    table.add_row("audit", audited if report.clean else f"{report.fault_count} faults")
    return table


def _decisions(report: "Report") -> "Table":
    from rich.table import Column, Table

    from topics.reasons import Status

    table = Table(Column("times", justify="right"), "status", "meaning", title="Decisions, as allocations.v1 has them")
    for status, count in report.decisions.most_common():
        table.add_row(f"{count:,}", status, Status[status.upper()].sentence)
    return table


def _ways(summary: "Summary") -> "Table":
    from rich.table import Column, Table

    from benchmarks.stories import NEAR_KM, SHORT_LINES

    ways = summary.ways
    head = ("nearshelf", f"all from {', '.join(ways.central)}")
    title = "Deliveries, and the same goods from one warehouse that has them all"
    table = Table("", *(Column(name, justify="right") for name in head), title=title)
    for group, whose in enumerate(("all orders", f"orders of at most {SHORT_LINES} lines")):
        pair = ways.promised[group], ways.centrally[group]
        table.add_row(f"{whose}: parcels", *(f"{way.parcels:,}" for way in pair))
        table.add_row("  kilometres", *(f"{way.kilometres:,.0f}" for way in pair))
        table.add_row("  kilometres a parcel", *(f"{way.kilometres / max(1, way.parcels):.0f}" for way in pair))
        near = (f"{way.near_units / max(1, way.units):.0%}" for way in pair)
        table.add_row(f"  units from within {NEAR_KM:.0f} km", *near, end_section=group == 0)
    return table
