"""The command line `nearshelf`: one module per group of commands, joined here, and what an error's exit status is.

A module of `GROUPS` has `register(app)`, which adds its commands; it imports at its top only what parsing needs, and the
rest where a command runs, so that `--help` answers at once.
Exit status: 0 done, 1 the answer is no, 2 wrong use, 3 there is no broker; topics/errors.py says which error is which.
"""

import importlib
import sys

import typer

GROUPS = (
    *("broker", "topics", "network", "worker", "publish", "tail"),
    *("dead_letter", "alerts", "audit", "demo", "bench", "settings"),
)


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    try:
        build_app()()
    except Exception as error:
        status = exit_status(error)
        if status is None:
            raise
        typer.echo(f"nearshelf: {error}", err=True)
        sys.exit(status)


def build_app() -> typer.Typer:
    """Join all groups of commands."""
    app = typer.Typer(
        name="nearshelf",
        help="Exact stock per SKU and location, and each order promised to the nearest location that has it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    for name in GROUPS:
        importlib.import_module(f"streams.cli.{name}").register(app)
    return app


def exit_status(error: Exception) -> int | None:
    """Return the status for an error whose message is meant for the user, None for a fault of our own."""
    from confluent_kafka import KafkaException

    from topics.errors import NearshelfError, NoBroker

    if isinstance(error, KafkaException):  # the broker answered first and failed then
        return NoBroker.exit_status
    return error.exit_status if isinstance(error, NearshelfError) else None


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"nearshelf {version('nearshelf')}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
    ),
) -> None:
    pass
