"""A day at peak, as fast as it goes: how long do a million orders of one pool take, with all that happens beside them?

A day has, for each order, fifty clicks, a fifth of a sale at a till and a tenth of a receipt or count. Orders, sales and stock
events lie in their topics in the order of their times; clicks are views, searches, carts and checkouts of visitors, made from
stencils and compressed by their sender, as such senders do, in partitions of their own.

The worker is warm and has read the opening stock. All events are then appended inside an open transaction, the clicks in one
of their own, whose commits release them at once: time starts there. It ends for the orders when the last is committed with
its decision; sales, stock events and clicks may still be read then, and are awaited. Measured are, each on a broker and a
worker of their own:

- `clicks`: the orders with sales, stock events and clicks, all at the same time in the same worker;
- `alone`: the same without the clicks;
- `lines`: as `alone`, as many lines in orders as large as the retail sample's (30 lines on average).

Memory is the worker's resident set, looked at while it runs. It does grow: orders are kept for 30 days, event ids for 24 hours
and movements for 48, which is more than this day. So what is reported is its growth per order, beside the bytes that the rows
of an order have by their columns (state/columns.py), without text and indexes; arrays grow by doubling, so it comes in steps.

Checked: each order decided once, the sequence unbroken, none refused; each view, cart and checkout counted once in the demand;
the audit of all inventory topics clean, and of `Size.audited_clicks` partitions of the clicks: none at full size, for it judges
event by event in plain Python, hours for 50 million.
Not here: latency, several pools, clicks that arrive slower than they can be read.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from confluent_kafka import Producer

from benchmarks import account, answers, harness
from benchmarks.cluster import POOL, SETTLE_S, Bench, Ends, Part, Sampler, bench, cpu_s
from benchmarks.harness import WrongAnswer
from benchmarks.record import movement, values
from benchmarks.stencil import Records, Stencil, mixed
from benchmarks.synthetic import CHUNK, LARGE, SMALL, TIME_MS, Synthetic
from state import columns
from streams.audit import Report, limits_of
from streams.audit.auditor import Auditor
from streams.audit.kafka_log import KafkaLog
from streams.kafka.librdkafka import handle_of, produce_spans

PACKAGES = ("confluent-kafka", "faust-streaming", "aiokafka", "numba", "numpy")
SEED = 1
GOAL_S = 15.0
"""For a million orders."""
SALE_EVERY, STOCK_EVERY = 5, 10  # orders
CLICKS = {"search": 8, "view": 34, "cart": 6, "wishlist": 1, "checkout": 1}
"""Of each kind, for one order."""
DEMAND = {"views": "view", "carts": "cart", "checkouts": "checkout"}
CLICKS_AN_ORDER = sum(CLICKS.values())
VISITS = 10  # clicks of a visitor, on average
CLICK_BLOCK = 20_000  # made at a time
COMPRESSION = "lz4"
CLIENT = "clicks"
ANY_PARTITION = -1
"""The key's, by the producer's partitioner."""
MOST_QUEUED = 1_000_000
SAMPLE_S = 0.1
TENTHS = 10
PER_ORDER = 1 + 1 / SALE_EVERY + 1 / STOCK_EVERY  # events
NAMES = {
    "clicks": "orders, sales, stock, clicks",
    "alone": "the same without clicks",
    "lines": "as many lines in larger orders",
}
OPTIONS = {"variants": "how many of the three days: 1 = the one with clicks, 2 = the one without them too; by default all"}


@dataclass(frozen=True)
class Size:
    """How large the day is."""

    orders: int
    retail_orders: int
    """In the variant of orders of many lines."""
    warm_up: int
    shop: Synthetic
    click_partitions: int
    audited_clicks: int
    """Partitions."""

    def work(self, variant: str) -> Synthetic:
        """The workload of a variant, warm-up first."""
        mix: Literal["single", "retail"] = "retail" if variant == "lines" else "single"
        orders = self.warm_up_of(variant) + self.orders_of(variant)
        return replace(self.shop, orders=orders, mix=mix, seed=SEED)

    def orders_of(self, variant: str) -> int:
        return self.retail_orders if variant == "lines" else self.orders

    def warm_up_of(self, variant: str) -> int:
        return max(1, self.warm_up * self.orders_of(variant) // self.orders)


SIZES = {
    "smoke": Size(2_000, 60, 500, SMALL, click_partitions=2, audited_clicks=2),
    "full": Size(1_000_000, 33_000, 20_000, LARGE, click_partitions=4, audited_clicks=0),
}


def run(size: str, variants: float = len(NAMES)) -> dict[str, Any]:
    """Measure the first of the three variants, or all; see the module."""
    shape = SIZES[size]
    days = {}
    for variant in list(NAMES)[: max(1, int(variants))]:
        with bench("throughput", click_partitions=shape.click_partitions) as cluster:
            days[variant] = _day(cluster, shape, variant)
    kept = columns.ORDER.itemsize + columns.LINE.itemsize
    rows = {"order": kept, "event id": columns.SEEN.itemsize, "movement": columns.MOVEMENT.itemsize}
    return {"seed": SEED, "compression": COMPRESSION, "row_bytes": rows, "days": days, "correct": True}


def _day(cluster: Bench, shape: Size, variant: str) -> dict[str, Any]:
    work, warm_up, count = shape.work(variant), shape.warm_up_of(variant), shape.orders_of(variant)
    orders = list(values(chain.from_iterable(work.order_records())))
    clicks = Clicks(shape, count) if variant == "clicks" else None
    with cluster.worker(work) as process:
        cluster.round(process, [("orders.v1", POOL, orders[:warm_up])])
        clicked = clicks.append(cluster) if clicks else {}
        others, release_others = cluster.load(_in_time(work, orders[warm_up:]))
        placed = {place: end for place, end in others.items() if place[0] == "orders.v1"}

        def release_all() -> None:
            release_others()
            if clicks:
                clicks.release()

        used_s, began = cpu_s(process.pid), time.monotonic()
        with Sampler([process], SAMPLE_S) as sampler:
            round_ = cluster.measure(process, count, release_all, lambda: cluster.reached(placed))
            process.await_that(lambda: cluster.reached(others))
            if clicked:
                process.await_that(lambda: cluster.reached(clicked))
            whole_s = time.monotonic() - began
        whole_cpu_s = cpu_s(process.pid) - used_s
        time.sleep(SETTLE_S)
    disk_bytes = _size(cluster.directory, "clicks.v1-*")
    statuses, _ = answers.decisions(cluster, len(orders), waiting=True)
    answers.check_refused(cluster)
    if clicks:
        _check_clicks(cluster, shape, clicks)
    audited_s, report = _audit(cluster, shape.audited_clicks if clicked else 0)
    return {
        **account.figures([round_]),
        "seconds": round_.seconds,
        "seconds_a_million": round_.seconds / count * 1e6,
        "whole_s": whole_s,
        "whole_cpu_s": whole_cpu_s,
        "memory": _memory(sampler, round_.seconds, count),
        "statuses": dict(statuses),
        "audited": {"events": sum(report.events.values()), "seconds": audited_s, "clicks": report.events["clicks.v1"]},
        "clicks": clicks
        and {
            "clicks": clicks.count,
            "per_s": clicks.count / whole_s,
            "made_s": clicks.seconds,
            "value_bytes": clicks.bytes / clicks.count,
            "disk_bytes": disk_bytes,
            "outputs_bytes": _size(cluster.directory, "demand.v1-*") + _size(cluster.directory, "clicks-changelog.v1-*"),
        },
    }


def _size(directory: Path, partitions: str) -> int:
    """Bytes on the broker's disk."""
    return sum(path.stat().st_blocks * 512 for path in directory.glob(f"broker/**/{partitions}/*.log"))


# What happens in a day


def _in_time(work: Synthetic, orders: list[bytes]) -> Iterator[Part]:
    """The day's records, by time: a chunk of orders, then what happened at tills and in stock meanwhile."""
    random = np.random.Generator(np.random.PCG64([SEED, 1]))
    for first in range(0, len(orders), CHUNK):
        part = orders[first : first + CHUNK]
        yield "orders.v1", POOL, part
        yield "sales.v1", POOL, list(_sales(work, random, first, len(part) // SALE_EVERY))
        yield "stock.v1", POOL, list(_stock(work, random, first, len(part) // STOCK_EVERY))


def _cells(work: Synthetic, random: np.random.Generator, count: int) -> Iterator[tuple[int, int, str]]:
    """Number, location's number and SKU of events of a kind, SKUs by their popularity, anywhere."""
    skus = work.draw_skus(random, count).tolist()
    places = random.integers(0, work.locations, count).tolist()
    for number, (sku, place) in enumerate(zip(skus, places, strict=True)):
        yield number, place, f"SKU-{sku:06}"


def _sales(work: Synthetic, random: np.random.Generator, first: int, count: int) -> Iterator[bytes]:
    for number, place, sku in _cells(work, random, count):
        time_ms, more = TIME_MS + first + number * SALE_EVERY, f',"channel":"store","receipt_id":"b{first + number // 2}"'
        yield movement(f"s{first}-{number}", time_ms, "sale", place, sku, 1, more)


def _stock(work: Synthetic, random: np.random.Generator, first: int, count: int) -> Iterator[bytes]:
    """Receipts, and a count for each ninth of them."""
    for number, place, sku in _cells(work, random, count):
        kind, quantity = ("count", 40) if number % 10 == 9 else ("receipt", 24)
        yield movement(f"k{first}-{number}", TIME_MS + first + number * STOCK_EVERY, kind, place, sku, quantity)


class Clicks:
    """The day's clicks. `count` of them, appended in `seconds`, their values `bytes` long in all."""

    def __init__(self, shape: Size, orders: int):
        self._partitions, self._work = shape.click_partitions, Synthetic(1, skus=shape.shop.skus)
        self.count, self.seconds, self.bytes = orders * CLICKS_AN_ORDER, 0.0, 0
        self._stencils = [_click(kind) for kind in CLICKS]
        self._kinds = np.repeat(np.arange(len(CLICKS)), list(CLICKS.values()))
        self._visitors = max(1, self.count // VISITS)

    def append(self, cluster: Bench) -> Ends:
        """Append them all, each where its visitor belongs; nobody can read them before their `release`."""
        producer = Producer(
            {
                "bootstrap.servers": cluster.settings.bootstrap_servers,
                "client.id": CLIENT,
                "transactional.id": CLIENT,
                "transaction.timeout.ms": 900_000,  # the most that a broker allows
                "partitioner": "murmur2_random",
                "compression.type": COMPRESSION,
                "linger.ms": 20,
                "queue.buffering.max.messages": 0,
                "queue.buffering.max.kbytes": 2_000_000,
                "log_level": 0,
            }
        )
        producer.init_transactions()
        producer.begin_transaction()
        started, handle = time.perf_counter(), handle_of(producer, CLIENT)
        for first in range(0, self.count, CLICK_BLOCK):
            buffer, spans = self.make(first, min(self.count, first + CLICK_BLOCK))
            self.bytes += int((spans[:, 2] - spans[:, 1]).sum())
            produce_spans(handle, "clicks.v1", ANY_PARTITION, buffer, spans)
            while len(producer) > MOST_QUEUED:
                producer.poll(0.05)
        if producer.flush(600):
            raise WrongAnswer(f"clicks.v1 does not take the benchmark's {self.count} clicks")
        self.seconds = time.perf_counter() - started
        self.release = producer.commit_transaction
        return {("clicks.v1", partition): cluster.written("clicks.v1", partition) for partition in range(self._partitions)}

    def make(self, first: int, until: int) -> Records:
        """Make some of them."""
        count = until - first
        random = np.random.Generator(np.random.PCG64([SEED, 2, first]))
        number, kinds = np.arange(first, until), random.permutation(np.resize(self._kinds, count))
        of_all = {
            "number": number,
            "time": TIME_MS + number // CLICKS_AN_ORDER,
            "visitor": random.integers(0, self._visitors, count),
            "sku": self._work.draw_skus(random, count),
            "north": random.integers(0, 860_000, count),  # 10⁻⁵ degrees
            "west": random.integers(10_000, 550_000, count),
        }
        of_all |= {"north_degree": of_all["north"] // 100_000, "west_degree": of_all["west"] // 100_000}
        places = [np.flatnonzero(kinds == kind) for kind in range(len(CLICKS))]
        parts = [
            stencil.fill(len(place), **{name: values[place] for name, values in of_all.items()})
            for stencil, place in zip(self._stencils, places, strict=True)
        ]
        return mixed(parts, places)


def _click(kind: str) -> Stencil:
    """As benchmarks/retail/clicks.py has them: all but a search have a SKU."""
    sku = "" if kind == "search" else '"sku":"SKU-<sku:6>",'
    return Stencil(
        "visitor-<visitor:8>",
        f'{{"event_id":"click-<number:10>","event_time":<time:13>,"kind":"{kind}",{sku}"visitor_id":"visitor-<visitor:8>",'
        f'"channel":"web","pool_id":"{POOL}","latitude":5<north_degree:1>.<north:5>,"longitude":-<west_degree:1>.<west:5>}}',
    )


# Answers


def _check_clicks(cluster: Bench, shape: Size, clicks: Clicks) -> None:
    """Compare the demand of all SKUs, within the window of an hour and so all of the day's, with the clicks made."""
    found: Counter[str] = Counter()
    for partition in range(shape.click_partitions):
        newest = {message.key(): message.value() for message in cluster.read("demand.v1", partition=partition)}
        for value in newest.values():
            demand = orjson.loads(value)
            found.update({name: demand[name] for name in DEMAND})
    expected = {name: CLICKS[kind] * clicks.count // CLICKS_AN_ORDER for name, kind in DEMAND.items()}
    if found != expected:
        raise WrongAnswer(f"expected the demand {expected}, found {dict(found)}")


def _audit(cluster: Bench, click_partitions: int) -> tuple[float, Report]:
    """Audit the inventory topics, and some partitions of the clicks."""
    started, report = time.perf_counter(), Report()
    with KafkaLog(cluster.settings) as log:
        log.cut_at_rest()
        auditor = Auditor(log, limits_of(cluster.settings), report, log.deletions)
        auditor.replays = auditor.replays[: cluster.settings.partitions + click_partitions]
        auditor.catch_up(lambda events: None)
        auditor.finish(complete=True)
    return time.perf_counter() - started, answers.check_clean(report)


def _memory(sampler: Sampler, seconds: float, orders: int) -> dict[str, Any]:
    """Memory in MB: at the start, at the end of each tenth of the orders' time, and the most; bytes an order."""
    found = [sample for sample in sampler.samples if sample["at_s"] <= seconds] or sampler.samples[:1]
    at = np.array([sample["at_s"] for sample in found])
    mb = [sample["rss_mb"] for sample in found]
    tenths = [mb[int(np.searchsorted(at, seconds * part / TENTHS, side="right")) - 1] for part in range(1, TENTHS + 1)]
    return {
        "start_mb": mb[0],
        "tenths_mb": tenths,
        "most_mb": max(sample["rss_mb"] for sample in sampler.samples),
        "bytes_an_order": (tenths[-1] - mb[0]) * 1e6 / orders,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """Put the answer into words."""
    days, rows = result["days"], result["row_bytes"]
    head = ["", "orders", "seconds", "s/M orders", "orders/s", "CPU-s/M, worker", "CPU-s/M, broker", "cores busy"]
    timed = [
        [
            NAMES[name],
            f"{day['events']:,}",
            f"{day['seconds']:.2f}",
            f"{day['seconds_a_million']:.1f}",
            *account.cells(day),
        ]
        for name, day in days.items()
    ]
    memory = [
        [
            NAMES[name],
            *(f"{value:,.0f}" for value in (day["memory"]["start_mb"], *day["memory"]["tenths_mb"], day["memory"]["most_mb"])),
            f"{day['memory']['bytes_an_order']:,.0f}",
        ]
        for name, day in days.items()
    ]
    return [
        f"Broker on the same cores; seed {result['seed']}; for each order {CLICKS_AN_ORDER} clicks, "
        f"{1 / SALE_EVERY:g} sales, {1 / STOCK_EVERY:g} receipts and counts; time until the last order is committed",
        "",
        *harness.table(head, timed),
        "",
        *(_verdict(NAMES[name], days[name]) for name in ("alone", "clicks") if name in days),
        "",
        *_clicks_lines(days["clicks"], result["compression"]),
        "",
        "The worker's memory in MB, at the end of each tenth of the orders' time:",
        *harness.table(["", "start", *map(str, range(1, TENTHS + 1)), "most", "bytes an order"], memory),
        f"An order of one line and its share of the other events keep {_kept(rows):.0f} bytes of rows (order and line "
        f"{rows['order']}, each event's id {rows['event id']}, each movement {rows['movement']}), text and indexes besides.",
        "",
        *(_checked(NAMES[name], day) for name, day in days.items()),
    ]


def _kept(rows: dict[str, int]) -> float:
    return rows["order"] + PER_ORDER * rows["event id"] + (PER_ORDER - 1) * rows["movement"]


def _verdict(name: str, day: dict[str, Any]) -> str:
    seconds = day["seconds_a_million"]
    return harness.verdict(f"{name}: {seconds:.1f} s a million orders", f"at most {GOAL_S:g}", seconds <= GOAL_S)


def _clicks_lines(day: dict[str, Any], compression: str) -> list[str]:
    clicks = day["clicks"]
    return [
        f"Clicks: {clicks['clicks']:,} in {day['whole_s']:.1f} s, so {clicks['per_s']:,.0f}/s, the orders among them; the "
        f"worker's CPU for all of it {day['whole_cpu_s']:.1f} s",
        f"  {clicks['value_bytes']:.0f} bytes each, {clicks['disk_bytes'] / clicks['clicks']:.0f} on disk ({compression} by "
        f"their sender), {clicks['outputs_bytes'] / clicks['clicks']:.0f} for their demand and changelog; made and appended at "
        f"{clicks['clicks'] / clicks['made_s']:,.0f}/s",
    ]


def _checked(name: str, day: dict[str, Any]) -> str:
    audited = day["audited"]
    clicks = f", {audited['clicks']:,} clicks among them," if audited["clicks"] else ""
    counted = ", each click on a SKU counted once in its demand" if day["clicks"] else ""
    return (
        f"Checked, {name}: each order decided once, sequence unbroken ({answers.counts(day['statuses'])}){counted}; "
        f"audit of {audited['events']:,} events{clicks} clean, in {audited['seconds']:.0f} s"
    )


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
