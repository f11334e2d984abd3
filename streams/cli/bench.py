"""`nearshelf bench`: benchmarks, each the answer to one question. Exit status 1 if an answer was wrong, not if it was slow."""

from typing import Annotated

import typer

from streams.cli.options import Json

MODULES = {
    "kernel": "benchmarks.kernel",
    "exactness": "benchmarks.exactness",
    "end-to-end": "benchmarks.end_to_end",
    "latency": "benchmarks.latency",
    "restart": "benchmarks.restart",
    "scale-out": "benchmarks.scale_out",
    "day": "benchmarks.day",
    "soak": "benchmarks.soak",
}


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    name: Annotated[str, typer.Argument(help="One of " + ", ".join(MODULES) + ".")],
    size: Annotated[str, typer.Option(help="smoke: seconds, does it work; full: minutes, the numbers count.")] = "smoke",
    as_json: Json = False,
) -> None:
    """Run a benchmark on this machine; full sizes want a machine that does nothing else. Results: benchmarks/RESULTS.md."""
    import importlib

    from benchmarks.harness import SIZES, answer

    if name not in MODULES:
        raise typer.BadParameter(f"expected one of {', '.join(MODULES)}, found {name}", param_hint="NAME")
    if size not in SIZES:
        raise typer.BadParameter(f"expected one of {', '.join(SIZES)}, found {size}", param_hint="--size")
    raise typer.Exit(0 if answer(importlib.import_module(MODULES[name]), size, as_json) else 1)
