"""`nearshelf broker start|stop|status`: the local Apache Kafka (config/broker.py)."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from streams.cli.options import Json, Set, read_settings

group = typer.Typer(no_args_is_help=True, help="A local Apache Kafka, one node, without Java, Maven or Docker.")


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="broker")


@group.command()
def start(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: the last one used, or a free one.")] = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Start the local broker and wait until it answers; the first time, fetch it (45 MB)."""
    from rich.console import Console

    broker = read_settings(assignments).local_broker()
    ran = broker.status().running
    with Console(stderr=True).status("Apache Kafka") as progress:
        address = broker.start(port, report=progress.update)
    if as_json:
        typer.echo(json.dumps(asdict(broker.status())))
    else:
        typer.echo(f"Apache Kafka {'runs already' if ran else 'runs'} at {address} (data in {broker.directory})")


@group.command()
def fetch(assignments: Set = None) -> None:
    """Fetch what the local broker needs, so that it starts without a network later."""
    from rich.console import Console

    broker = read_settings(assignments).local_broker()
    with Console(stderr=True).status("Apache Kafka") as progress:
        broker.fetch(report=progress.update)
    typer.echo(f"Apache Kafka is in {broker.jars}")


@group.command()
def stop(assignments: Set = None) -> None:
    """Stop the local broker; its data stays."""
    broker = read_settings(assignments).local_broker()
    typer.echo(
        f"Apache Kafka is stopped; its data stays in {broker.directory}"
        if broker.stop()
        else f"No broker runs in {broker.directory}"
    )


@group.command()
def status(assignments: Set = None, as_json: Json = False) -> None:
    """Say whether the local broker runs, and where; exit status 1 if it does not."""
    found = read_settings(assignments).local_broker().status()
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    elif found.running:
        where = f"at {found.bootstrap_servers}, process {found.pid} (data in {found.directory})"
        typer.echo(f"Apache Kafka {found.kafka_version} runs {where}")
    else:
        typer.echo(f"No broker runs in {found.directory}. Start it: nearshelf broker start")
    raise typer.Exit(0 if found.running else 1)
