"""`nearshelf topics create|list`: the catalogue (topics/catalogue.py) and what the cluster has of it."""

import json
from typing import Annotated, Any

import typer

from streams.cli.options import Bootstrap, Json, Set, read_settings

group = typer.Typer(no_args_is_help=True, help="The topics of the contract.")


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="topics")


@group.command()
def create(
    partitions: Annotated[int | None, typer.Option(help="Of inventory topics. Default: the setting partitions.")] = None,
    click_partitions: Annotated[int | None, typer.Option(help="Of topics of clicks. Default: click_partitions.")] = None,
    bootstrap_servers: Bootstrap = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Create the topics that are missing, and check those that are there; warns of inputs that take only smaller records."""
    from streams.kafka.clients import connect
    from streams.kafka.create import create_topics, narrow_topics
    from streams.kafka.names import on_cluster
    from topics.catalogue import CATALOGUE

    settings = read_settings(
        assignments, bootstrap_servers=bootstrap_servers, partitions=partitions, click_partitions=click_partitions
    )
    admin = connect(settings)
    created = create_topics(admin, settings)
    warnings = narrow_topics(admin, settings)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        existing = [name for name in CATALOGUE if name not in created]
        typer.echo(json.dumps({"created": created, "existing": existing, "warnings": warnings}))
    elif created:
        typer.echo(f"Created at {settings.bootstrap_servers}: {', '.join(on_cluster(settings, name) for name in created)}")
    else:
        typer.echo(f"All {len(CATALOGUE)} topics are there already, at {settings.bootstrap_servers}")


@group.command(name="list")
def list_(bootstrap_servers: Bootstrap = None, assignments: Set = None, as_json: Json = False) -> None:
    """List the contract's topics, and what the cluster has of them."""
    rows = _rows(read_settings(assignments, bootstrap_servers=bootstrap_servers))
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("topic", no_wrap=True), "key", "partitions", "time", "kept", box=None)
    for row in rows:
        table.add_row(row["on_cluster"], row["key"], str(row["partitions"] or "missing"), row["time"], row["kept"])
    Console().print(table)


def _rows(settings: Any) -> list[dict[str, Any]]:
    from streams.kafka.clients import connect
    from streams.kafka.create import topic_config
    from streams.kafka.names import on_cluster
    from topics.catalogue import CATALOGUE

    admin = connect(settings)
    found = admin.list_topics(timeout=10).topics
    configs = topic_config(admin, [name for name in CATALOGUE if name in found])
    return [
        {
            "topic": topic.name,
            "on_cluster": on_cluster(settings, topic.name),
            "key": "/".join(topic.key_fields),
            "partitions": len(found[topic.name].partitions) if topic.name in found else None,
            "time": configs[topic.name]["message.timestamp.type"] if topic.name in found else "",
            "kept": _kept(configs.get(topic.name) or topic.config(settings)),
        }
        for topic in CATALOGUE.values()
    ]


def _kept(config: dict[str, str]) -> str:
    if config["cleanup.policy"] == "compact":
        return "latest of each key"
    hours = int(config["retention.ms"]) / 3_600_000
    return "for ever" if hours < 0 else f"{hours:g} h"
