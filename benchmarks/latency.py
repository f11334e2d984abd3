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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks import account, harness, open_events, open_loop
from benchmarks.cluster import Bench, bench
from benchmarks.open_loop import Flow
from benchmarks.peers import PeerMissing, java
from benchmarks.synthetic import LARGE, SMALL, Synthetic

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
    shop: Synthetic
    streams_intervals_ms: tuple[int, ...]

    def count(self, per_s: int) -> int:
        """Events of a kind, of which so many a second are sent."""
        return int(per_s * (self.warm_s + self.seconds))

    def work(self, per_s: int) -> Synthetic:
        """A shop with stock for twice the orders."""
        return replace(self.shop, orders=self.count(per_s), fill=2.0, seed=SEED)

    def flows(self, per_s: int) -> dict[str, Flow]:
        """Sales and orders, all made before the first is sent, and no order cancelled."""
        count = self.count(per_s)
        return open_events.flows(self.work(per_s), lag=count, block=count)


SIZES = {
    "smoke": Size((1_000,), 5, 3, SMALL, streams_intervals_ms=()),
    "full": Size((1_000, 5_000, 10_000, 20_000, 50_000), 30, 60, LARGE, streams_intervals_ms=(10, 100)),
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
        f"Broker on the same cores; seed {result['seed']}; preset {result['preset']}; "
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
                shown = f"{kind} at {GOAL_RATE:,}/s, {name}: {value:.1f} ms"
                said.append(harness.verdict(shown, f"at most {most:g}", value <= most))
    return said


# Those measured


def _worker(cluster: Bench, shape: Size, rate: int) -> dict[str, Any]:
    per_s = rate // 2
    with open_events.worker(cluster, shape.work(per_s)) as process:
        before = account.stages(process.metrics())
        found = _measure(cluster, shape, per_s, shape.flows(per_s))
        stages = _per_batch(before, account.stages(process.metrics()))
    return {"who": "nearshelf", "rate": rate, "stages": stages, **found}


def _streams(cluster: Bench, shape: Size, rate: int, interval_ms: int) -> dict[str, Any]:
    per_s = rate // 2
    name = f"Kafka Streams, commit {interval_ms} ms"
    command = java.build(cluster.settings.cache_directory / "kafka-streams-peer")
    with cluster.peer("streams", command, shape.work(per_s), interval_ms) as (_, topics, _):
        order = replace(shape.flows(per_s)["order"], source=topics["orders.v1"], target=topics["allocations.v1"])
        return {"who": name, "rate": rate, **_measure(cluster, shape, per_s, {"order": order})}


def _measure(cluster: Bench, shape: Size, per_s: int, flows: dict[str, Flow]) -> dict[str, Any]:
    """Send and read each kind of event; give their latencies in ms, by percentile."""
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


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
