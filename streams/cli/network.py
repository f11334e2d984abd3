"""`nearshelf network check`: is a network file right, and what is in it."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.options import Json

group = typer.Typer(no_args_is_help=True, help="The file that names pools and locations.")


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="network")


@group.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A network file, YAML.")],
    as_json: Json = False,
) -> None:
    """Check a network file; exit status 1 and a line for each fault if it has any."""
    from config.network import NetworkError, load_network

    try:
        network = load_network(file)
    except NetworkError as error:
        typer.echo(json.dumps({"valid": False, "faults": str(error).splitlines()}) if as_json else str(error))
        raise typer.Exit(1) from None
    kinds = {pool: Counter(place.kind for place in network.locations if place.pool == pool) for pool in network.pools}
    if as_json:
        typer.echo(json.dumps({"valid": True, "pools": kinds}))
        return
    typer.echo(f"{file} is right: {len(network.locations)} locations in {len(network.pools)} pools")
    for pool, counts in kinds.items():
        typer.echo(f"  {pool}: " + ", ".join(f"{count} {kind}" for kind, count in counts.most_common()))
