"""What open loops send, and which of it a record shows: sales of cells of their own, and orders of one line.

Makers and noters are called in the sender's and the readers' processes (open_loop.py).
Owner: the events of latency.py and soak.py. Not here: when they are sent.
"""

import sys
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from benchmarks.cluster import POOL, Bench
from benchmarks.fleet import Process
from benchmarks.open_loop import Flow, Note, Take
from benchmarks.record import movement
from benchmarks.stencil import Blocks, Records, Stencil, mixed
from benchmarks.synthetic import TIME_MS, Synthetic

SEED = 1
SALE_CELLS = 5_000


def worker(cluster: Bench, work: Synthetic) -> AbstractContextManager[Process]:
    """Stock the shop, and run a worker that has read all of it."""
    cluster.append("stock.v1", _opening_of_sales(work.locations))
    return cluster.worker(work)


def flows(work: Synthetic, lag: int, block: int) -> dict[str, Flow]:
    """Sales at the locations of a workload, and orders of its SKUs, each cancelled `lag` events later; made in blocks."""
    orders: dict[str, Any] = {"skus": work.skus, "lag": lag, "block": block}
    sales: dict[str, Any] = {"locations": work.locations, "block": block}
    sold, noted, ordered, decided = (
        f"{__name__}:{name}" for name in ("make_sales", "note_sales", "make_order_events", "note_order_events")
    )
    return {
        "sale": Flow("sales.v1", "inventory.v1", sold, noted, committed=False, arguments=sales),
        "order": Flow("orders.v1", "allocations.v1", ordered, decided, committed=True, arguments=orders),
    }


def _opening_of_sales(locations: int) -> list[bytes]:
    """Stock that lasts for the cells that sell: a receipt each."""
    return [
        movement(f"t{cell}", TIME_MS - 1, "receipt", cell % locations, f"SALE-{cell:05}", 1_000_000)
        for cell in range(SALE_CELLS)
    ]


def note_sales(count: int, **_: Any) -> Note:
    """Sale i is the (i // SALE_CELLS + 1)-th of cell i % SALE_CELLS, so the cell's version tells which have been seen.

    A cell's version n tells that all its sales up to the (n - 1)-th are counted: the receipt was its first.
    """
    next_of_cell = np.zeros(SALE_CELLS, np.int64)

    def note(message: Any, now: float, seen_out: np.ndarray) -> int:
        _, _, sku = message.key().partition(b"/SALE-")
        if not sku:
            return 0
        value = message.value()
        at = value.index(b'"version":') + 10
        cell, done = int(sku), int(value[at : value.index(b",", at)]) - 1
        first = cell + int(next_of_cell[cell]) * SALE_CELLS
        fresh = slice(first, cell + done * SALE_CELLS, SALE_CELLS)
        seen_out[fresh] = now
        next_of_cell[cell] = max(done, next_of_cell[cell])
        return len(range(*fresh.indices(count)))

    return note


def make_sales(count: int, locations: int, block: int) -> Take:
    """Make sales; see `note_sales`."""
    stencil = Stencil(
        POOL,
        '{"event_id":"s<number:9>","event_time":<time:13>,"kind":"sale","location_id":"L<location:5>","sku":"SALE-<cell:5>",'
        '"quantity":1}',
    )

    def make(first: int, until: int) -> Records:
        number = np.arange(first, until)
        cell = number % SALE_CELLS
        return stencil.fill(len(number), number=number, time=TIME_MS + number, location=cell % locations, cell=cell)

    return Blocks(make, block)


def make_order_events(count: int, skus: int, lag: int, block: int) -> Take:
    """Even events place orders of one line, odd ones cancel the order placed `lag` events ago; the first odd ones place too."""
    placed = Stencil(
        POOL,
        '{"event_id":"e<number:9>","event_time":<time:13>,"kind":"placed","order_id":"o<number:9>","lines":[{"line_id":"1",'
        '"sku":"SKU-<sku:6>","quantity":<units:1>}],"destination":{"latitude":5<north:1>.<north_part:5>,'
        '"longitude":-<west:1>.<west_part:5>}}',
    )
    cancelled = Stencil(POOL, '{"event_id":"e<number:9>","event_time":<time:13>,"kind":"cancelled","order_id":"o<order:9>"}')
    work = Synthetic(1, skus=skus)

    def make(first: int, until: int) -> Records:
        random = np.random.Generator(np.random.PCG64([SEED, first]))
        number = np.arange(first, until)
        cancels = (number % 2 == 1) & (number >= lag)
        new, old = number[~cancels], number[cancels]
        north, west = random.integers(0, 860_000, len(new)), random.integers(10_000, 550_000, len(new))  # 10⁻⁵ degrees
        parts = [
            placed.fill(
                len(new),
                number=new,
                time=TIME_MS + new,
                sku=work.draw_skus(random, len(new)),
                units=random.integers(1, 4, len(new)),
                north=north // 100_000,
                north_part=north,
                west=west // 100_000,
                west_part=west,
            ),
            cancelled.fill(len(old), number=old, time=TIME_MS + old, order=old - lag),
        ]
        return mixed(parts, [np.flatnonzero(~cancels), np.flatnonzero(cancels)])

    return Blocks(make, block)


def note_order_events(count: int, lag: int, **_: Any) -> Note:
    """An order is seen in its first decision, its cancellation in the second; there is no third."""

    def note(message: Any, now: float, seen_out: np.ndarray) -> int:
        number = int(message.key()[1:])
        if b'"status":"cancelled"' in message.value():
            number += lag
        if not np.isnan(seen_out[number]):
            sys.exit(f"order event {number} was decided twice: {message.value()!r}")
        seen_out[number] = now
        return 1

    return note
