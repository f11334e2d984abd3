"""How long does an event take, from the moment it was due to be sent until a reader has what came of it, at a given rate?

Open loop: a sender sends every event at its planned time, however the worker fares, so that a delay is not hidden by sending
later; latency counts from the plan. Half of the events are sales, each seen in `inventory.v1` by a reader of all that is
written (read_uncommitted); half are orders of one line, each seen in `allocations.v1` by a reader of what is committed
(read_committed). Sender, worker, broker and the two readers share the machine's cores. Kafka Streams gets the orders alone,
so half of the events.

Checked: every sale and every order came back, each order once. A rate at which they did not within 30 s of the last
send, or at which the worker fell behind for good, is named as beyond saturation, its figures are those of the queue.
The first `Size.warm_s` of each rate are left out: the broker's Java compiles itself for half a minute.
"""

import sys
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from benchmarks import account, harness, open_loop
from benchmarks.cluster import POOL, Bench, bench
from benchmarks.open_loop import SALE_CELLS, Flow, Note, Take
from benchmarks.peers import PeerMissing, java
from benchmarks.record import values
from benchmarks.synthetic import TIME_MS, Synthetic
from config.broker import KAFKA_VERSION

PACKAGES = ("confluent-kafka", "faust-streaming", "aiokafka", "numba", "numpy")
SEED = 1
PRESET = "latency"
PERCENTILES = (50, 90, 99, 99.9, 100)
GOALS = {"sale": (6.0, 20.0), "order": (10.0, 35.0)}
"""ms at p50 and p99, at `GOAL_RATE` events a second."""
GOAL_RATE = 10_000


@dataclass(frozen=True)
class Size:
    """Events a second, and for how long each of these rates is kept up."""

    rates: tuple[int, ...]
    warm_s: float
    """Not measured yet."""
    seconds: float
    """Measured."""
    locations: int
    skus: int
    cells_per_sku: int
    streams_intervals_ms: tuple[int, ...]

    def count(self, per_s: int) -> int:
        """Events of a kind, of which so many a second are sent."""
        return int(per_s * (self.warm_s + self.seconds))


SIZES = {
    "smoke": Size((1_000,), 5, 3, locations=50, skus=500, cells_per_sku=10, streams_intervals_ms=()),
    "full": Size(
        (1_000, 5_000, 10_000, 20_000, 50_000),
        warm_s=30,
        seconds=60,
        locations=500,
        skus=4_000,
        cells_per_sku=50,
        streams_intervals_ms=(10, 100),
    ),
}


def run(size: str) -> dict[str, Any]:
    """Measure each rate on a broker and a worker of its own; Kafka Streams at each rate and commit interval too."""
    shape = SIZES[size]
    rows, left_out = [], None
    for rate in shape.rates:
        with bench(PRESET) as cluster:
            rows.append(_worker(cluster, shape, rate))
        # Its shortest interval everywhere, the others where the goals are.
        for interval_ms in shape.streams_intervals_ms[: None if rate == GOAL_RATE else 1]:
            try:
                with bench(PRESET) as cluster:
                    rows.append(_streams(cluster, shape, rate, interval_ms))
            except PeerMissing as failure:
                left_out = str(failure)
    return {
        "seed": SEED,
        "kafka": KAFKA_VERSION,
        "preset": PRESET,
        "warm_s": shape.warm_s,
        "seconds": shape.seconds,
        "rows": rows,
        "left_out": left_out,
        "correct": all(row["complete"] or row["saturated"] for row in rows),
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The answer as tables."""
    head = ["", "events/s", "seen by a reader of", *(_name(each) + ", ms" for each in PERCENTILES), "all came back"]
    rows = [
        [
            row["who"],
            f"{row['rate']:,}",
            "all, sale" if kind == "sale" else "committed, order",
            *(f"{value:,.1f}" for value in row[kind]),
            "yes" if row["complete"] else f"no, {row['missing']:,} missing",
        ]
        for row in result["rows"]
        for kind in ("sale", "order")
        if row.get(kind)
    ]
    stages = [
        f"  {row['rate']:,} events/s: " + ", ".join(f"{name} {ms:.2f}" for name, ms in row["stages"].items())
        for row in result["rows"]
        if row.get("stages")
    ]
    return [
        f"Apache Kafka {result['kafka']} on the same cores; seed {result['seed']}; preset {result['preset']}; "
        f"{result['seconds']:.0f} s each after {result['warm_s']:.0f} s of warm-up",
        "",
        *harness.table(head, rows),
        "",
        *_verdicts(result["rows"]),
        "",
        "Where a batch's time goes, ms on average (flow thread: to encode; commit thread: produce on):",
        *stages,
        *([f"left out: Kafka Streams: {result['left_out']}"] if result["left_out"] else []),
    ]


def _name(percentile: float) -> str:
    return "max" if percentile == 100 else f"p{percentile:g}"


def _verdicts(rows: list[dict[str, Any]]) -> list[str]:
    found = [row for row in rows if row["who"] == "nearshelf" and row["rate"] == GOAL_RATE]
    said = []
    for row in found:
        for kind, (p50, p99) in GOALS.items():
            for name, most, value in (("p50", p50, row[kind][0]), ("p99", p99, row[kind][2])):
                met = "met" if value <= most else "MISSED"
                said.append(f"{kind} at {GOAL_RATE:,}/s, {name}: {value:.1f} ms; expected at most {most:g}: {met}")
    return said


# Those measured


def _worker(cluster: Bench, shape: Size, rate: int) -> dict[str, Any]:
    per_s = rate // 2
    work = _work(shape, shape.count(per_s))
    for chunk in work.opening():
        cluster.append("stock.v1", list(values(chunk)))
    cluster.append("stock.v1", open_loop.opening_of_sales(work.locations))
    with cluster.settled("worker", cluster.worker_command(work)) as process:
        before = account.stages(process.metrics())
        parts = {"sale": ("sales.v1", "inventory.v1"), "order": ("orders.v1", "allocations.v1")}
        found = _measure(cluster, shape, per_s, parts)
        stages = _per_batch(before, account.stages(process.metrics()))
    return {"who": "nearshelf", "rate": rate, "stages": stages, **found}


def _streams(cluster: Bench, shape: Size, rate: int, interval_ms: int) -> dict[str, Any]:
    per_s = rate // 2
    work = _work(shape, shape.count(per_s))
    name = f"Kafka Streams, commit {interval_ms} ms"
    topics = cluster.create("streams", "stock.v1", "orders.v1", "allocations.v1")
    command = [*java.build(cluster.settings.cache_directory / "kafka-streams-peer")]
    given = {
        "bootstrap-servers": cluster.settings.bootstrap_servers,
        "application-id": "peer",
        "network": str(cluster.write_network(work)),
        "state-directory": str(cluster.directory / "state"),
        "commit-interval-ms": str(interval_ms),
        "stock": topics["stock.v1"],
        "orders": topics["orders.v1"],
        "allocations": topics["allocations.v1"],
    }
    command += [part for key, value in given.items() for part in (f"--{key}", value)]
    for chunk in work.opening():
        cluster.append(topics["stock.v1"], list(values(chunk)))
    with cluster.group("peer") as committed, cluster.process("streams", command) as process:
        process.await_that(lambda: committed(topics["stock.v1"]) >= cluster.end(topics["stock.v1"]))
        parts = {"order": (topics["orders.v1"], topics["allocations.v1"])}
        return {"who": name, "rate": rate, **_measure(cluster, shape, per_s, parts)}


def _work(shape: Size, orders: int) -> Synthetic:
    return Synthetic(orders, shape.locations, shape.skus, shape.cells_per_sku, fill=2.0, pool=POOL, seed=SEED)


def _measure(cluster: Bench, shape: Size, per_s: int, parts: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Send and read each kind of event; give their latencies in ms, by percentile."""
    made: dict[str, dict[str, Any]] = {"sale": {"locations": shape.locations}, "order": {"shape": vars(shape)}}
    flows = {
        kind: Flow(
            source,
            target,
            f"benchmarks.latency:make_{kind}s",
            "benchmarks.open_loop:note_sales" if kind == "sale" else "benchmarks.latency:note_orders",
            committed=kind == "order",
            arguments=made[kind],
        )
        for kind, (source, target) in parts.items()
    }
    seen = open_loop.run(cluster, flows, per_s, shape.count(per_s))
    answer: dict[str, Any] = {"missing": seen.missing, "saturated": False}
    for kind in flows:
        kept = seen.latency_ms(kind)[seen.planned >= seen.planned[0] + shape.warm_s]
        answer[kind] = np.nanpercentile(kept, PERCENTILES).tolist()
        third = len(kept) // 3
        answer["saturated"] |= bool(np.nanmedian(kept[-third:]) > 3 * np.nanmedian(kept[:third]) + 50)
    return answer | {"complete": answer["missing"] == 0, "saturated": answer["saturated"] or answer["missing"] > 0}


def _per_batch(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    spent = {name: value - before.get(name, 0.0) for name, value in after.items()}
    events, batches = spent.pop("sum"), max(1.0, spent.pop("count"))
    return {"events a batch": events / batches} | {name: seconds / batches * 1000 for name, seconds in spent.items()}


# The events, and which of them a record shows: called in the sender's and the readers' processes


def make_sales(count: int, locations: int) -> Take:
    """Make all sales; see `open_loop.note_sales`."""
    return open_loop.in_memory(
        [
            (
                f'{{"event_id":"s{i}","event_time":{TIME_MS + i},"kind":"sale",'
                f'"location_id":"L{i % SALE_CELLS % locations:05}","sku":"SALE-{i % SALE_CELLS:05}","quantity":1}}'
            ).encode()
            for i in range(count)
        ]
    )


def make_orders(count: int, shape: dict[str, Any]) -> Take:
    """Make all orders."""
    work = _work(Size(**shape), count)
    return open_loop.in_memory(list(values(chain.from_iterable(work.order_records()))))


def note_orders(count: int, **_: Any) -> Note:
    """An order is seen in its decision, and each once."""

    def note(message: Any, now: float, seen_out: np.ndarray) -> int:
        key = message.key()
        number = int(key[1:])
        if not np.isnan(seen_out[number]):
            sys.exit(f"order {key} was decided twice")
        seen_out[number] = now
        return 1

    return note


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
