"""`nearshelf worker`: the process that keeps the stock and decides the orders (streams/worker/app.py)."""

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.options import Bootstrap, Preset, Set, read_settings


def register(app: typer.Typer) -> None:
    app.command()(worker)


def worker(
    network: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Publish this file's locations that never were. Default: none."),
    ] = None,
    bootstrap_servers: Bootstrap = None,
    preset: Preset = None,
    assignments: Set = None,
) -> None:
    """Run a worker until Ctrl-C, which finishes the batch and leaves; start as many as there are partitions."""
    settings = read_settings(assignments, network=network, bootstrap_servers=bootstrap_servers, preset=preset)

    from streams.kafka.clients import connect

    connect(settings)

    import logging

    from streams.worker.app import run_worker
    from streams.worker.warm import warm_kernels

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("nearshelf.worker").info("loading the kernels; the first time they are compiled, which takes minutes")
    warm_kernels(settings)
    raise typer.Exit(run_worker(settings))
