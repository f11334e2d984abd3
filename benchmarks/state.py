"""How many bytes does a stocked cell take, how many cells a second are changed and found, and what does growth cost an order?

One pool, every SKU at every location, stocked by receipts or by counts (stocked.py). Without Kafka; each case is a process of
its own, so that its memory is its own.
Bytes: each array of the pool, as rows and slots in use, as allocated (tables grow by doubling; what nobody wrote to yet is
address space, not memory), and what the process has grown by (resident: with what was outgrown and not yet used again, some
tens of MB, so that it says little below a million cells).
On the pool stocked by counts then: cells found by SKU and location; receipts and sales through the pipeline; orders of one
line through the pipeline (decode, route and apply, encode, record), their SKUs each as likely or by Zipf's law, to any place.
All in random order; the median of several batches. Cells have units enough for all that is sold and ordered, so what grows is
the state, not the search.

Checked outside the timer: each cell is found in its row; every event is applied and every cell's units are right; every order
is promised whole. Not here: the time until the state is there again (restart.py), Kafka (end_to_end.py).
"""

import gc
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median
from typing import Any, get_args

import numba
import numpy as np
import psutil

from benchmarks import harness
from benchmarks.harness import WrongAnswer
from benchmarks.record import line, movement, placed
from benchmarks.stocked import BATCH, END_MS, LOCATIONS, POOL, Kind, segment, stock, units_of
from benchmarks.synthetic import EAST, NORTH, SOUTH, WEST, Synthetic
from config.settings import load_settings
from state.index import find_cell
from state.pool import PoolState
from state.stock import find_sku
from state.tables import RINGS, ROW_TABLES
from streams.batch.clock import Clock
from streams.batch.pipeline import Outcome
from streams.inventory.pipeline import InventoryPipeline

PACKAGES = ("numba", "numpy", "psutil")
SEED = 1
UNITS = 1_000  # of a cell, at least
GOAL_BYTES = 40
GOAL_CELLS = 10_000_000
DEMANDS = ("uniform", "Zipf")
STAGES = ("decode", "apply", "encode", "record")
SHOWN_BYTES = 0.5  # a cell; arrays below it are summed up
ROWS_LIKE = {"cell_event": "cells", "sku_cells": "cells", "sku_links": "skus", "line_links": "lines"}
"""Arrays beside a table, with an entry for each of its rows."""
BATCH_ARRAYS = ("cell_event", "page_dirty", "journal", "freed", "counters", "limits")


@dataclass(frozen=True)
class Size:
    """Cells of each case, and how much is done with them."""

    cells: tuple[int, ...]
    lookups: int
    updates: int
    """A batch."""
    orders: int
    """A batch: the worker's default."""
    batches: int
    """After one to warm up."""


SIZES = {
    "smoke": Size((2_000, 20_000), lookups=10_000, updates=2_000, orders=500, batches=3),
    "full": Size((100_000, 1_000_000, 10_000_000), lookups=1_000_000, updates=20_000, orders=5_000, batches=11),
}


def run(size: str) -> dict[str, Any]:
    """Measure each number of cells, stocked by counts and by receipts, in a process each.

    Raises
    ------
    WrongAnswer
        A case found one.
    """
    shape = SIZES[size]
    # A process started anew for each case, so that its memory is its own.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        cases = [processes.submit(_case, shape, cells, kind).result() for cells in shape.cells for kind in get_args(Kind)]
    return {"seed": SEED, "locations": LOCATIONS, "cases": cases, "correct": True}


def _case(shape: Size, cells: int, kind: Kind) -> dict[str, Any]:
    settings = load_settings()
    warm = InventoryPipeline(0, 1, settings)  # what the kernels and a batch need is there before
    for _ in stock(warm, BATCH, kind):
        pass
    gc.collect()
    before = psutil.Process().memory_info().rss
    pipeline = InventoryPipeline(0, 1, settings)
    for _ in stock(pipeline, cells, kind, UNITS):
        pass
    gc.collect()
    pool = pipeline.pools[POOL]
    rss_bytes = psutil.Process().memory_info().rss - before
    result: dict[str, Any] = {"cells": cells, "kind": kind, "rss_bytes": rss_bytes, "arrays": _arrays(pool)}
    _check_units(pool, np.zeros(cells, np.int64))
    if kind == "count":
        random = np.random.default_rng(SEED)
        result["lookups_per_s"] = _lookups(pool, shape, random)
        result["updates_per_s"] = _updates(pipeline, shape, random)
        result["orders"] = _orders(pipeline, shape, random)
    return result


# Bytes


def _arrays(pool: PoolState) -> dict[str, dict[str, Any]]:
    """Name of each array → what it is, its bytes in use and its bytes."""
    return {
        name: {"is": _is(name), "used": _used(pool, name) * array.itemsize, "allocated": array.nbytes}
        for name, array in pool.t.arrays().items()
    }


def _is(name: str) -> str:
    if name in ROW_TABLES:
        return "table"
    if name in RINGS:
        return "ring"
    if name.endswith("_index") or name in ROWS_LIKE.keys() - set(BATCH_ARRAYS):
        return "index"
    return "batch" if name in BATCH_ARRAYS else "other"


def _used(pool: PoolState, name: str) -> int:
    """Entries of an array that are in use between two batches; all, where that is not known and not much."""
    array = getattr(pool.t, name)
    if (table := ROWS_LIKE.get(name, name)) in ROW_TABLES:
        return pool.count(table)
    if name in RINGS:
        prefix = name.removesuffix("s")
        return int(pool.row[f"{prefix}_tail"][0] - pool.row[f"{prefix}_head"][0])
    if name.endswith("_index"):
        return int(np.count_nonzero(array >= 0))
    if name == "heap":
        return int(pool.row["heap_size"][0])
    return 0 if name in BATCH_ARRAYS else array.size


# Speed


@numba.njit(nogil=True)
def _find(t, text, size, locations, rows_out):
    """Find each cell's row by its SKU's id, `size` bytes each in `text`, and its location's row."""
    for i in range(locations.size):
        rows_out[i] = find_cell(t.cell_index, t.cells, find_sku(t, text, i * size, size), locations[i])


def _lookups(pool: PoolState, shape: Size, random: np.random.Generator) -> float:
    cells = random.integers(pool.count("cells"), size=shape.lookups)
    text = "".join(f"SKU-{sku:06}" for sku in (cells // LOCATIONS).tolist())
    given = np.frombuffer(text.encode(), np.uint8), len(text) // len(cells), (cells % LOCATIONS).astype(np.int32)
    rows, seconds = np.empty(len(cells), np.int32), []
    for _ in range(1 + shape.batches):  # the first compiles
        rows[:] = -1
        started = time.perf_counter()
        _find(pool.t, *given, rows)
        seconds.append(time.perf_counter() - started)
    if not np.array_equal(rows, cells):
        raise WrongAnswer(f"{np.count_nonzero(rows != cells)} of {len(cells)} cells are found in another's row")
    return len(cells) / median(seconds[1:])


def _updates(pipeline: InventoryPipeline, shape: Size, random: np.random.Generator) -> float:
    """Events a second: receipts and sales by turns, of random cells, a topic a batch as they come from one."""
    pool = pipeline.pools[POOL]
    moved = np.zeros(pool.count("cells"), np.int64)
    seconds = []
    for number in range(1 + shape.batches):
        cells = random.integers(moved.size, size=shape.updates)
        units = random.integers(1, 4, shape.updates)
        topic, kind, sign = (("stock.v1", "receipt", 1), ("sales.v1", "sale", -1))[number % 2]
        first = moved.size + number * shape.updates
        values = [
            movement(f"u{first + i:09}", END_MS, kind, cell % LOCATIONS, f"SKU-{cell // LOCATIONS:06}", quantity)
            for i, (cell, quantity) in enumerate(zip(cells.tolist(), units.tolist(), strict=True))
        ]
        outcome, spent = _processed(pipeline, topic, values, first)
        if outcome.counts != {(topic, "applied"): shape.updates}:
            raise WrongAnswer(f"expected {shape.updates} events of {topic} to be applied, found {outcome.counts}")
        np.add.at(moved, cells, sign * units)
        seconds.append(spent)
    _check_units(pool, moved)
    return shape.updates / median(seconds[1:])


def _orders(pipeline: InventoryPipeline, shape: Size, random: np.random.Generator) -> dict[str, dict[str, float]]:
    """Microseconds an order, in all and by stage, for each demand; a batch of each by turns."""
    pool = pipeline.pools[POOL]
    skus = -(-pool.count("cells") // LOCATIONS)
    shop = Synthetic(1, skus=skus)
    spent: dict[str, list[dict[str, float]]] = {demand: [] for demand in DEMANDS}
    units = placed = 0
    for _ in range(1 + shape.batches):
        for demand in DEMANDS:
            by_zipf = demand == "Zipf"
            drawn = shop.draw_skus(random, shape.orders) if by_zipf else random.integers(skus, size=shape.orders)
            quantities = random.integers(1, 4, shape.orders)
            values = list(_order_values(placed, drawn, quantities, random))
            outcome, seconds = _processed(pipeline, "orders.v1", values, placed)
            placed, units = placed + shape.orders, units + int(quantities.sum())
            spent[demand].append({"all": seconds} | {stage: outcome.stages[stage] for stage in STAGES})
    row, reserved = pool.row[0], int(pool.rows("cells")["reserved"].sum())
    if (row["sequence"], row["waiting_lines"], reserved) != (placed, 0, units):
        raise WrongAnswer(
            f"expected {placed} decisions, no line that waits, {units} units reserved; "
            f"found {row['sequence']}, {row['waiting_lines']}, {reserved}"
        )
    return {
        demand: {name: median(each[name] for each in batches[1:]) / shape.orders * 1e6 for name in ("all", *STAGES)}
        for demand, batches in spent.items()
    }


def _order_values(first: int, skus: np.ndarray, quantities: np.ndarray, random: np.random.Generator) -> Iterator[bytes]:
    latitudes, longitudes = random.uniform(SOUTH, NORTH, skus.size), random.uniform(WEST, EAST, skus.size)
    columns = (each.tolist() for each in (skus, quantities, latitudes, longitudes))
    for number, (sku, quantity, latitude, longitude) in enumerate(zip(*columns, strict=True), first):
        yield placed(number, END_MS, line(1, sku, quantity), latitude, longitude)


def _processed(pipeline: InventoryPipeline, topic: str, values: list[bytes], first: int) -> tuple[Outcome, float]:
    given = [segment(topic, values, first, END_MS)]
    clock = Clock()
    decoded = pipeline.decode(given)
    clock.stage("decode")
    outcome = pipeline.process(decoded, [])
    clock.stage("process")
    outcome.stages |= clock.seconds
    return outcome, clock.seconds["decode"] + clock.seconds["process"]


def _check_units(pool: PoolState, moved: np.ndarray) -> None:
    """Compare each cell's units on hand with what it was stocked with and what moved since, int64[cells]."""
    found = pool.rows("cells")["on_hand"]
    if found.size != moved.size or (wrong := np.flatnonzero(found != units_of(np.arange(moved.size), UNITS) + moved)).size:
        at = "" if found.size != moved.size else f", of which {wrong.size} have other units than expected"
        raise WrongAnswer(f"expected {moved.size} cells, found {found.size}{at}")


# In words


def lines(result: dict[str, Any]) -> list[str]:
    """Put the answer into words."""
    largest = max(case["cells"] for case in result["cases"])
    measured = [case for case in result["cases"] if "orders" in case]
    return [
        f"seed {result['seed']}; {result['locations']} locations; answers checked: all right",
        "",
        f"Bytes a cell, {largest:,} cells:",
        *harness.table(*_split({case["kind"]: case for case in result["cases"] if case["cells"] == largest})),
        "",
        *harness.table(
            ["cells", "stocked by", "bytes a cell, in use", "allocated", "the process grew by"],
            [[f"{case['cells']:,}", f"{case['kind']}s", *(f"{each:.0f}" for each in _bytes(case))] for case in result["cases"]],
        ),
        "",
        *(_verdict(case) for case in result["cases"] if case["cells"] == largest),
        "",
        *harness.table(
            ["cells", "found/s", "changed/s", "demand", "µs an order", "decode", "route, apply", "encode", "record"],
            [_row(case, demand) for case in measured for demand in DEMANDS],
        ),
        "",
        *(_growth(measured[0], case) for case in measured[1:]),
    ]


def _split(cases: dict[Kind, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A table of the arrays, largest first."""
    head = ["array", "is", *(f"{kind}s, {what}" for kind in cases for what in ("in use", "allocated"))]
    found: dict[tuple[str, str], Any] = {}
    for name, array in next(iter(cases.values()))["arrays"].items():
        each = [case["arrays"][name][what] / case["cells"] for case in cases.values() for what in ("used", "allocated")]
        key = (name, array["is"]) if max(each) >= SHOWN_BYTES else ("the others", "")
        found[key] = found.get(key, 0) + np.array(each)
    rows = sorted(found.items(), key=lambda row: (row[0][0] == "the others", -row[1].max()))
    rows.append((("all", ""), np.sum([each for _, each in rows], axis=0)))
    return head, [[*key, *(f"{value:.1f}" for value in each)] for key, each in rows]


def _bytes(case: dict[str, Any]) -> tuple[float, float, float]:
    """Bytes a cell: in use, allocated, resident."""
    totals = (sum(array[what] for array in case["arrays"].values()) for what in ("used", "allocated"))
    used, allocated, resident = (total / case["cells"] for total in (*totals, case["rss_bytes"]))
    return used, allocated, resident


def _verdict(case: dict[str, Any]) -> str:
    used, allocated, resident = _bytes(case)
    said = (
        f"bytes a cell, {case['cells']:,} cells stocked by {case['kind']}s: {used:.0f} in use, {allocated:.0f} allocated, "
        f"{resident:.0f} resident"
    )
    expected = f"at most {GOAL_BYTES} at {GOAL_CELLS:,}"
    if case["cells"] < GOAL_CELLS:  # what a pool has whatever its size, spread over too few
        return f"{said}; expected {expected}"
    return harness.verdict(said, expected, max(used, resident) <= GOAL_BYTES)


def _row(case: dict[str, Any], demand: str) -> list[str]:
    shown = [f"{case['cells']:,}", f"{case['lookups_per_s']:,.0f}", f"{case['updates_per_s']:,.0f}"]
    return [*(shown if demand == DEMANDS[0] else [""] * 3), demand, *(f"{us:.2f}" for us in case["orders"][demand].values())]


def _growth(smallest: dict[str, Any], case: dict[str, Any]) -> str:
    times = {demand: case["orders"][demand]["all"] / smallest["orders"][demand]["all"] for demand in DEMANDS}
    return (
        f"{case['cells'] // smallest['cells']} times the cells, {smallest['cells']:,} to {case['cells']:,}: an order costs "
        + ", ".join(f"{ratio:.2f} times as much ({demand})" for demand, ratio in times.items())
    )


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
