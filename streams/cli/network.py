"""`nearshelf network check`: is a network file right, and what is in it."""

import json
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.options import Json

SHOWN_WARNINGS = 5

group = typer.Typer(no_args_is_help=True, help="The file that names pools and locations.")


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="network")


@group.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A network file, YAML.")],
    as_json: Json = False,
) -> None:
    """Check a network file; exit status 1 and a line for each fault if it has any.

    Says where each pool's locations lie, and warns of those that look misplaced.
    """
    from config.entries import EntriesError
    from config.network import Extent, load_network

    try:
        network = load_network(file)
    except EntriesError as error:
        typer.echo(json.dumps({"valid": False, "faults": str(error).splitlines()}) if as_json else str(error))
        raise typer.Exit(1) from None
    pools = {pool: [place for place in network.locations if place.pool == pool] for pool in network.pools}
    kinds = {pool: Counter(place.kind for place in places) for pool, places in pools.items()}
    extents = {pool: Extent(places) for pool, places in pools.items() if places}
    warnings = {pool: list(extent.warnings()) for pool, extent in extents.items()}
    if as_json:
        typer.echo(json.dumps({"valid": True, "pools": kinds, "warnings": [*chain.from_iterable(warnings.values())]}))
        return
    doubts = sum(map(len, warnings.values()))
    verdict = f"is valid, with {doubts} warning(s)" if doubts else "is right"
    typer.echo(f"{file} {verdict}: {len(network.locations)} locations in {len(network.pools)} pools")
    for pool, counts in kinds.items():
        typer.echo(f"  {pool}: " + (", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "no location"))
        if pool in extents:
            typer.echo(f"    {extents[pool].sentence()}")
            for warning in warnings[pool][:SHOWN_WARNINGS]:
                typer.echo(f"    warning: {warning}")
            if len(warnings[pool]) > SHOWN_WARNINGS:
                typer.echo(f"    ... and {len(warnings[pool]) - SHOWN_WARNINGS} more warnings")
