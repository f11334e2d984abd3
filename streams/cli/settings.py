"""`nearshelf settings`: every setting, what it is for, and its value here and now."""

import typer

from streams.cli.options import Json, Preset, Set, read_settings


def register(app: typer.Typer) -> None:
    app.command()(settings)


def settings(preset: Preset = None, assignments: Set = None, as_json: Json = False) -> None:
    """List all settings with their values; each is also an environment variable, NEARSHELF_<NAME>."""
    found = read_settings(assignments, preset=preset)
    if as_json:
        typer.echo(found.model_dump_json())
        return
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("setting", no_wrap=True), "value", "meaning", box=None)
    for name, field in type(found).model_fields.items():
        table.add_row(name, str(getattr(found, name)), field.description)
    Console().print(table)
