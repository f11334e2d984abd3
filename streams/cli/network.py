"""`nearshelf network check|diff|apply`: is a network file right, how does it differ from what is published, and publish it."""

import json
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.options import Bootstrap, Json, Set, read_settings

if TYPE_CHECKING:
    from streams.kafka.network import Differences

SHOWN_WARNINGS = 5
SHOWN_ELSEWHERE = 5
NetworkFile = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A network file, YAML.")]

group = typer.Typer(no_args_is_help=True, help="The file that names pools and locations.")


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="network")


@group.command()
def check(
    file: NetworkFile,
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


@group.command()
def diff(file: NetworkFile, bootstrap_servers: Bootstrap = None, assignments: Set = None, as_json: Json = False) -> None:
    """Say how a network file differs from what is published in locations.v1; exit status 1 if it does.

    Published locations of pools that the file does not declare are not its concern: they are counted, and are no difference.
    """
    differences = _compared(file, read_settings(assignments, bootstrap_servers=bootstrap_servers))
    if as_json:
        typer.echo(json.dumps(_as_json(differences)))
    else:
        _tell(file, differences)
    raise typer.Exit(1 if differences else 0)


@group.command()
def apply(
    file: NetworkFile,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what the file lacks, without asking.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Remove nothing: keep what the file lacks.")] = False,
    bootstrap_servers: Bootstrap = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Publish a network file: what is missing or differs, and, after asking, an empty record for what the file lacks.

    A removed location gets no new orders; its stock and its open orders remain. Only pools that the file declares are
    touched. Exit status 1 if something is left as it was: the answer was no, or a location would change its pool.
    """
    from confluent_kafka import KafkaException

    from streams.kafka.clients import BrokerUnreachable
    from streams.kafka.network import write_network

    if yes and keep:
        raise typer.BadParameter("expected one of --yes and --keep, found both", param_hint="--keep")
    settings = read_settings(assignments, bootstrap_servers=bootstrap_servers)
    differences = _compared(file, settings)
    stuck = [each for each in differences.different if each.changes_pool]
    wanted = [*differences.missing, *(each.location for each in differences.different if not each.changes_pool)]
    removed = [] if keep else [location.id for location in differences.only_published]
    if not as_json:
        _tell(file, differences)
    if removed and not yes:
        _ask(removed, as_json)
    try:
        write_network(settings, wanted, removed)
    except (KafkaException, TimeoutError) as failure:
        why = f"to publish the network ({failure}). Some may be published: run the command again"
        raise BrokerUnreachable(settings.bootstrap_servers, why) from None
    if as_json:
        published = [location.id for location in wanted]
        typer.echo(json.dumps({"published": published, "removed": removed, "refused": [each.location.id for each in stuck]}))
    else:
        typer.echo(f"{len(wanted)} published, {len(removed)} removed")
        for each in stuck:
            typer.echo(f"not published: {each.location.id}: a location can't change its pool. Give it another id", err=True)
    raise typer.Exit(1 if stuck else 0)


def _ask(removed: list[str], as_json: bool) -> None:
    """Ask whether locations shall be removed; end the command if not."""
    choice = "give --yes to remove them, --keep to keep them"
    if as_json:
        raise typer.BadParameter(f"{len(removed)} published locations are not in the file: {choice}", param_hint="--json")
    try:
        agreed = typer.confirm(f"Remove {len(removed)} locations that the file lacks?")
    except typer.Abort:
        typer.echo("", err=True)
        raise typer.BadParameter(f"expected an answer, found none: {choice}", param_hint="FILE") from None
    if not agreed:
        typer.echo("Nothing is published. With --keep the rest is.")
        raise typer.Exit(1)


def _compared(file: Path, settings: Any) -> "Differences":
    from config.network import load_network
    from streams.kafka.clients import partitions_of
    from streams.kafka.network import read_network
    from topics.catalogue import LOCATIONS

    network = load_network(file)
    published = read_network(settings, partitions_of(LOCATIONS, settings))
    return published.differences(network.pools, network.locations)


def _tell(file: Path, differences: "Differences") -> None:
    """Print what differs, a line each."""
    counts = f"{len(differences.missing)} missing, {len(differences.different)} different"
    verdict = f"{counts}, {len(differences.only_published)} only published" if differences else "no difference"
    typer.echo(f"{file} and locations.v1: {verdict}")
    for location in differences.missing:
        typer.echo(f"  missing         {location.id}: {location.kind} of pool {location.pool}, never published")
    for each in differences.different:
        typer.echo(f"  different       {each}")
    for location in differences.only_published:
        state = "" if location.enabled else ", disabled"
        typer.echo(f"  only published  {location.id}: {location.kind} of pool {location.pool}{state}")
    if differences.elsewhere:
        pools = Counter(location.pool for location in differences.elsewhere)
        shown = ", ".join(f"{pool} {count}" for pool, count in pools.most_common(SHOWN_ELSEWHERE))
        more = f" and {len(pools) - SHOWN_ELSEWHERE} more" if len(pools) > SHOWN_ELSEWHERE else ""
        typer.echo(f"  published of pools that the file does not declare: {shown}{more}")


def _as_json(differences: "Differences") -> dict[str, Any]:
    return {
        "equal": not differences,
        "missing": [location.id for location in differences.missing],
        "different": [
            {
                "id": each.location.id,
                "fields": {found.name: {"file": found.file, "published": found.published} for found in each.fields},
                "why": each.why or None,
                "published_at": each.published_at,
            }
            for each in differences.different
        ],
        "only_published": [location.id for location in differences.only_published],
        "other_pools": Counter(location.pool for location in differences.elsewhere),
    }
