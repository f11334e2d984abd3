"""How long until a worker has its state again: from the snapshot on its disk, and from the changelog alone?

A pool's cells are stocked by receipts (stocked.py). Their changelog is written to a real Kafka by the worker's own producer,
in transactions: one that only is idempotent may lose its order in a partition so new that the broker refuses its first request
and takes the second. Timed is what a restart does between its fence and its first batch: read, check and fold, then build the
indexes. The snapshot is written as a worker does, from the changelog.

Answers are checked outside the timer: all tables of the restored states are, byte for byte, those of the state that was
changed event by event. Not here: the fence, the group's rebalance and the process's own start (tests/chaos/takeover.py).
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.cluster import bench
from benchmarks.harness import main, table
from benchmarks.stocked import POOL, stock
from config.settings import Settings, load_settings
from state.tables import ROW_TABLES
from streams.inventory.pipeline import InventoryPipeline
from streams.kafka.reading import LogReader
from streams.worker import recovery
from streams.worker.groups import inventory_group
from streams.worker.snapshots import Snapshot, Snapshots
from streams.worker.transactions import PartitionProducer, Turn
from streams.worker.warm import warm_kernels

PACKAGES = ("rocksdict", "confluent-kafka", "numba", "numpy")
CELLS = {"smoke": (20_000,), "full": (1_000_000, 10_000_000)}
GOALS_S = {"snapshot": 5.0, "changelog": 60.0}
"""For 10 M cells."""


def run(size: str) -> dict[str, Any]:
    """Measure each number of cells on a broker of its own; see the module."""
    warm_kernels(load_settings())
    results = []
    for cells in CELLS[size]:
        with bench() as cluster:
            results.append(_case(cells, cluster.settings))
    return {"results": results, "correct": all(result["same"] for result in results)}


def _case(cells: int, settings: Settings) -> dict[str, Any]:
    live, changelog_bytes, events_s = _stock(settings, cells)
    place = inventory_group().place(0, 1, settings)
    snapshots = Snapshots(settings, lambda name: None)
    times: dict[str, float] = {}
    with LogReader(settings) as reader:
        folded = InventoryPipeline(0, 1, settings)
        with _timed(times, "changelog"):
            recovery.restore(folded, reader, 0, lambda: False)
        same = _same(live, folded)
        del folded
        snapshot = Snapshot(settings, place)
        with _timed(times, "write"):
            snapshot.write(reader, lambda: False, lambda name: None)
        snapshot.close()
        loaded = InventoryPipeline(0, 1, settings)
        with _timed(times, "snapshot"):
            cursor = snapshots.load(place, loaded, reader, lambda: False)
            assert cursor is not None, "the snapshot was written a moment ago"
            recovery.restore(loaded, reader, 0, lambda: False, cursor.next)
        same &= _same(live, loaded)
    snapshots.stop()
    disk = sum(path.stat().st_size for path in (settings.data_directory / "state").rglob("*") if path.is_file())
    return {
        "cells": cells,
        "seconds": times,
        "events_per_s": events_s,
        "changelog_bytes": changelog_bytes,
        "snapshot_bytes": disk,
        "state_bytes": sum(array.nbytes for array in live.pools[POOL].t.arrays().values()),
        "same": same,
    }


def _stock(settings: Settings, cells: int) -> tuple[InventoryPipeline, int, float]:
    """Stock every cell by a receipt; returns the state, the changelog's bytes, events a second."""
    pipeline = InventoryPipeline(0, 1, settings)
    producer = PartitionProducer(settings, settings.app_id, 0, pipeline.changelog_topic, None, lambda point: None)
    size, started = 0, time.perf_counter()
    for outcome in stock(pipeline, cells):
        size += len(outcome.changelog)
        # The changelog alone; raises if it is not taken.
        producer.commit(replace(outcome, outputs={}, offsets={}), Turn(), None)
    producer.close()
    return pipeline, size, cells / (time.perf_counter() - started)


@contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    times[name] = time.perf_counter() - started


def _same(one: InventoryPipeline, other: InventoryPipeline) -> bool:
    """Tell whether all persistent tables are the same, byte for byte."""
    a, b = one.pools[POOL], other.pools[POOL]
    tables = all(np.array_equal(a.rows(name), b.rows(name)) for name in ROW_TABLES)
    rings = all(np.array_equal(a.ring(name)[1], b.ring(name)[1]) for name in ("movements", "seen"))
    heap = int(a.row["heap_size"][0])
    return bool(
        tables
        and rings
        and np.array_equal(a.row, b.row)
        and np.array_equal(a.t.heap[:heap], b.t.heap[:heap])
        and one.link == other.link
    )


def lines(result: dict[str, Any]) -> list[str]:
    """Put the answer into words."""
    head = [
        "cells",
        "from the snapshot, s",
        "from the changelog, s",
        "writing it, s",
        "snapshot, MB",
        "changelog, MB",
        "bytes a cell",
    ]
    rows = [
        [
            f"{case['cells']:,}",
            *(f"{case['seconds'][name]:.2f}" for name in ("snapshot", "changelog", "write")),
            f"{case['snapshot_bytes'] / 1e6:,.0f}",
            f"{case['changelog_bytes'] / 1e6:,.0f}",
            f"{case['state_bytes'] / case['cells']:.0f}",
        ]
        for case in result["results"]
    ]
    right = "all tables as they were" if result["correct"] else "WRONG: a restored state differs"
    return [f"answers checked: {right}", "", *table(head, rows)]


if __name__ == "__main__":
    main(sys.modules[__name__])
