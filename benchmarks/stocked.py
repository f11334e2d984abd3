"""A pool with any number of stocked cells, for benchmarks that ask what growth costs.

Every location stocks every SKU: cell i, of the table too, is SKU i // LOCATIONS at location i % LOCATIONS. Stocked by receipts,
each of which is a movement that is kept until the horizon, or by counts, which leave none; over ten days of the log's time, so
that what the pool remembers of movements and event ids is what one in use does.
Owner: the input of restart.py and state.py. Not here: a pool as it sells (synthetic.py).
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import orjson

from benchmarks.record import movement
from streams.batch.pipeline import LocationChange, Outcome, Segment
from streams.inventory.pipeline import InventoryPipeline
from topics.codec.records import ROW, Records

POOL = b"bench"
LOCATIONS = 500
BATCH = 20_000  # events
TEN_DAYS_MS = 10 * 86_400_000
TIME_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
END_MS = TIME_MS + TEN_DAYS_MS

Kind = Literal["receipt", "count"]


def stock(pipeline: InventoryPipeline, cells: int, kind: Kind = "receipt", units: int = 1) -> Iterator[Outcome]:
    """Stock cells by one event each, in an empty pipeline; gives the outcome of each batch as it is processed.

    Parameters
    ----------
    pipeline : InventoryPipeline
        Of a topic with one partition.
    cells : int
    kind : "receipt" or "count"
    units : int
        Fewest units of a cell; `units_of` tells how many it gets.
    """
    changes = list(_network())
    for first in range(0, cells, BATCH):
        values = [_stock_value(number, kind, units) for number in range(first, min(first + BATCH, cells))]
        timestamp = TIME_MS + TEN_DAYS_MS * first // cells
        yield pipeline.process(pipeline.decode([segment("stock.v1", values, first, timestamp)]), changes)
        changes = []


def units_of(cells: np.ndarray, units: int = 1) -> np.ndarray:
    """Units that `stock` puts into cells: int64[n] of their numbers."""
    return units + cells % 7


def segment(topic: str, values: Sequence[bytes], first: int, timestamp: int) -> Segment:
    """Make a segment of the pool's records, from an offset on, all appended at one time (epoch ms)."""
    sizes = np.fromiter(map(len, values), np.int64, len(values))
    rows = np.zeros(len(values), ROW)
    rows["offset"] = np.arange(first, first + len(values))
    rows["timestamp"] = timestamp
    rows["key_size"] = len(POOL)
    rows["value_size"] = sizes
    rows["value_at"] = len(POOL) + np.cumsum(sizes) - sizes
    return Segment(topic, [Records(np.frombuffer(POOL + b"".join(values), np.uint8), rows)])


def _network() -> Iterator[LocationChange]:
    for number in range(LOCATIONS):
        name, latitude, longitude = f"L{number:05}", 50 + number % 25 / 3, -5 + number / 100
        value = {"id": name, "pool": POOL.decode(), "kind": "store", "latitude": latitude, "longitude": longitude}
        yield LocationChange(0, number, TIME_MS, name.encode(), orjson.dumps(value))


def _stock_value(number: int, kind: Kind, units: int) -> bytes:
    sku, location = divmod(number, LOCATIONS)
    return movement(f"r{number:09}", TIME_MS, kind, location, f"SKU-{sku:06}", units + number % 7)
