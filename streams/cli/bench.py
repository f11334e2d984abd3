"""`nearshelf bench`: benchmarks, each the answer to one question. Exit status 1 if an answer was wrong, not if it was slow.

Several run one after the other, each in a process of its own; one that fails does not stop the others.
"""

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.options import Json

MODULES = {
    "kernel": "benchmarks.kernel",
    "exactness": "benchmarks.exactness",
    "end-to-end": "benchmarks.end_to_end",
    "mixes": "benchmarks.mixes",
    "latency": "benchmarks.latency",
    "restart": "benchmarks.restart",
    "state": "benchmarks.state",
    "scale-out": "benchmarks.scale_out",
    "day": "benchmarks.day",
    "soak": "benchmarks.soak",
}
ALL = "all"
NOT_IN_ALL = {"soak"}
"""Too long to be run unless it is named."""


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    names: Annotated[list[str], typer.Argument(help=f"Of {', '.join(MODULES)}; or {ALL}.")],
    size: Annotated[str, typer.Option(help="smoke: seconds, does it work; full: minutes, the numbers count.")] = "smoke",
    out: Annotated[Path | None, typer.Option(help="Directory for text and JSON of each answer too. Default: none.")] = None,
    as_json: Json = False,
) -> None:
    """Run benchmarks on this machine; full sizes want a machine that does nothing else. Results: benchmarks/RESULTS.md."""
    import importlib

    from benchmarks.harness import SIZES, answer

    for name in names:
        if name not in MODULES and name != ALL:
            raise typer.BadParameter(f"expected one of {', '.join((*MODULES, ALL))}, found {name}", param_hint="NAMES")
    if size not in SIZES:
        raise typer.BadParameter(f"expected one of {', '.join(SIZES)}, found {size}", param_hint="--size")
    if len(names) == 1 and names[0] != ALL:
        raise typer.Exit(0 if answer(importlib.import_module(MODULES[names[0]]), size, as_json, out) else 1)
    failed = _run_each(chosen(names), size, as_json, out)
    typer.echo(f"wrong or failed: {', '.join(failed)}" if failed else "all answers right", err=True)
    raise typer.Exit(1 if failed else 0)


def chosen(names: list[str]) -> list[str]:
    """Give the benchmarks that are named, `all` among the names perhaps, in the order of `MODULES`."""
    every = set(MODULES) - NOT_IN_ALL if ALL in names else set()
    return [name for name in MODULES if name in every | set(names)]


def _run_each(names: list[str], size: str, as_json: bool, out: Path | None) -> list[str]:
    """Run benchmarks one after the other; returns those that did not end well."""
    import subprocess
    import sys

    from benchmarks.harness import environment

    options = ["--size", size, *(["--json"] if as_json else []), *(["--out", str(out)] if out else [])]
    failed = []
    for name in names:
        typer.echo(f"\n== {name} ==\n", err=True)
        if subprocess.run([sys.executable, "-m", MODULES[name], *options], env=environment()).returncode:
            failed.append(name)
    return failed
