"""A seeded workload of any size: locations in a box over Britain, SKUs that sell by Zipf's law, opening stock, orders.

Owner: the input of benchmarks that ask how fast, and of tests that need much of it.
Invariants: the same parameters give the same bytes, however much of them is read; records are made in chunks, so memory does
not grow with the number of orders.
Not here: real demand (benchmarks/retail), of which only the mix of order sizes is taken.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from benchmarks.record import Record, line, movement, placed
from benchmarks.retail.lines import Fate, fates_of, read_invoices
from topics.events import LocationRecord

CHUNK = 10_000  # records
TIME_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z, of the first order; one a millisecond after it
SOUTH, NORTH, WEST, EAST = 50.0, 58.6, -5.5, -0.1  # degrees
MOST_UNITS = 3  # of a line: 1 to 3, each as often
ZIPF_EXPONENT = 1.0


@dataclass(frozen=True)
class Synthetic:
    """Parameters of a workload, and its records.

    Parameters
    ----------
    orders : int
        How many orders there are; stock is made for as many.
    locations, skus : int
        How many of each.
    cells_per_sku : int
        Locations that stock a SKU, at most `locations`.
    fill : float
        Opening stock as a share of the units that will be ordered; each cell has at least 1.
    mix : "single" or "retail"
        Orders of one line, each 207 bytes; or sizes as in the retail sample's orders (1 to 674 lines, 30 on average).
    pool : str
        Pool id, and key of all records.
    seed : int
        Of everything.
    first_location, first_order : int
        Numbers of the first of each: several pools need locations and orders of different names.

    Examples
    --------
    >>> work = Synthetic(orders=2, locations=10, skus=5, cells_per_sku=2)
    >>> [record.topic for chunk in work.order_records() for record in chunk]
    ['orders.v1', 'orders.v1']
    """

    orders: int
    locations: int = 500
    skus: int = 10_000
    cells_per_sku: int = 50
    fill: float = 1.1
    mix: Literal["single", "retail"] = "single"
    pool: str = "bench"
    seed: int = 1
    first_location: int = 0
    first_order: int = 0

    def network(self) -> list[LocationRecord]:
        """The locations: stores anywhere in the box, all of which ship."""
        latitudes, longitudes = _points(self._random(0), self.locations)
        return [
            LocationRecord(
                id=f"L{self.first_location + number:05}",
                kind="store",
                pool=self.pool,
                latitude=float(latitude),
                longitude=float(longitude),
            )
            for number, (latitude, longitude) in enumerate(zip(latitudes, longitudes, strict=True))
        ]

    def opening(self) -> Iterator[list[Record]]:
        """Receipts of the opening stock, in chunks: a SKU's units evenly over its locations."""
        key, time = self.pool.encode(), TIME_MS - 1
        chunk: list[Record] = []
        for sku, (locations, units) in enumerate(zip(self.stocked.tolist(), self.units.tolist(), strict=True)):
            for location in locations:
                event_id, place = f"r{sku:06}-{location:05}", self.first_location + location
                value = movement(event_id, time, "receipt", place, f"SKU-{sku:06}", units)
                chunk.append(Record("stock.v1", key, value))
            if len(chunk) >= CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    @cached_property
    def stocked(self) -> np.ndarray:
        """int64[skus, cells]: numbers of the locations that stock each SKU."""
        random, cells = self._random(1), min(self.cells_per_sku, self.locations)
        drawn = (np.argsort(random.random(self.locations), kind="stable")[:cells] for _ in range(self.skus))
        return np.stack(list(drawn))

    @cached_property
    def units(self) -> np.ndarray:
        """int64[skus]: units of a SKU's opening stock in each of its cells."""
        ordered = np.diff(self.popularity, prepend=0) * self._ordered_units()
        return np.ceil(ordered * self.fill / self.stocked.shape[1]).astype(np.int64)

    def draw_skus(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Draw SKUs as they sell: int64[count] of their numbers."""
        return np.searchsorted(self.popularity, random.random(count), side="right")

    def order_records(self) -> Iterator[list[Record]]:
        """The orders, in chunks."""
        key = self.pool.encode()
        for number, first in enumerate(range(0, self.orders, CHUNK)):
            values = self._order_values(first, min(CHUNK, self.orders - first), self._random(2, number))
            yield [Record("orders.v1", key, value) for value in values]

    def _order_values(self, first: int, count: int, random: np.random.Generator) -> Iterator[bytes]:
        sizes = self._sizes[(random.random(count) * len(self._sizes)).astype(np.int64)]
        latitudes, longitudes = (degrees.tolist() for degrees in _points(random, count))
        skus = self.draw_skus(random, sizes.sum()).tolist()
        units = (1 + random.random(sizes.sum()) * MOST_UNITS).astype(np.int64).tolist()
        at = 0
        for i, size in enumerate(sizes.tolist()):
            lines = ",".join(line(number + 1, skus[at + number], units[at + number]) for number in range(size))
            at += size
            order = self.first_order + first + i
            yield placed(order, TIME_MS + order, lines, latitudes[i], longitudes[i])

    @cached_property
    def popularity(self) -> np.ndarray:
        """float64[skus]: share of the lines that ask for this SKU or a more popular one."""
        weights = 1 / np.arange(1, self.skus + 1) ** ZIPF_EXPONENT
        until = np.cumsum(weights / weights.sum())
        until[-1] = 1
        return until

    @cached_property
    def _sizes(self) -> np.ndarray:
        """int64[n]: lines an order, each as likely."""
        if self.mix == "single":
            return np.ones(1, np.int64)
        sizes = [fates_of(invoice, self.seed).count(Fate.ORDER_LINE) for invoice in read_invoices()]
        return np.array([size for size in sizes if size])

    def _ordered_units(self) -> float:
        return self.orders * float(self._sizes.mean()) * (1 + MOST_UNITS) / 2

    def _random(self, *purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, *purpose]))


SMALL, LARGE = Synthetic(1, 50, 500, 10, fill=8.0), Synthetic(1, 500, 4_000, 50, fill=8.0)
"""The shops of benchmarks at their two sizes, whose orders never wait for long; `replace` gives them as many as it takes."""


def _points(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes, float64[count] each, degrees."""
    latitudes = SOUTH + random.random(count) * (NORTH - SOUTH)
    longitudes = WEST + random.random(count) * (EAST - WEST)
    return latitudes, longitudes
