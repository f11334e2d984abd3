"""Options that several commands share, and the settings made of them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from config.settings import Settings

Bootstrap = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers",
        metavar="HOST:PORT,...",
        help="The Kafka cluster. Default: NEARSHELF_BOOTSTRAP_SERVERS, else the local broker.",
    ),
]
Preset = Annotated[
    str | None, typer.Option("--preset", metavar="NAME", help="A named set of settings: latency or throughput. Default: none.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting; `nearshelf settings` lists them. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def read_settings(assignments: list[str] | None = None, **flags: Any) -> "Settings":
    """Read the settings from flags, `--set` assignments, environment and preset.

    Raises
    ------
    typer.BadParameter
        An assignment is not NAME=VALUE.
    SettingsError
        A setting is unknown or has a wrong value.
    """
    from config.settings import load_settings

    given = {}
    for assignment in assignments or []:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise typer.BadParameter(f"expected NAME=VALUE, found {assignment!r}", param_hint="--set")
        given[name] = value
    return load_settings(**(given | {name: value for name, value in flags.items() if value is not None}))
