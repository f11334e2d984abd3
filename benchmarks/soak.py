"""Does a worker that runs for long at 70 % of what it can do keep its memory, its latency and its open files?

Open loop, as in latency.py, and with its preset: half of the events are sales, half order events. Every order is cancelled
`lag_s` after it was placed, so that stock lasts and orders end. The rate is `--rate`, events a second; by default it is
`SHARE` of the saturation measured first, on a broker and a worker of their own: more events than it can do, through the same
sender and readers, until the last is seen.

A steady state within minutes needs a worker that forgets within minutes, but a finished order is kept for a day at the least
(closed_order_days), a movement for an hour (count_horizon_hours). So the settings are at their least, the last 1,000,000 event
ids are kept whatever their age, and the log's time runs fast: ticks with timestamps ahead let a day of the log pass in `day_s`
seconds, which for the worker is a day. All that it keeps is bounded by then. For that `ticks.v1` takes its sender's time here;
all other topics take the log's, as always. Topics keep 1 GB each, or half an hour would fill a disk.

Reported, from samples of the worker: memory and the size of its snapshots, with their slope by least squares after `settle_s`;
latency per slice of time, and the first tenth of the rest against its last; files, sockets and threads, first and last.
Checked: every sale and every order event came back, each order event once, none refused; at smoke size the audit is clean
(at full size the topics have forgotten what it needs).
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import answers, harness, open_events, open_loop
from benchmarks.cluster import Bench, Sampler, bench
from benchmarks.open_loop import Clock, Flow, Seen
from benchmarks.synthetic import LARGE, SMALL, Synthetic

PACKAGES = ("confluent-kafka", "faust-streaming", "aiokafka", "rocksdict", "numba", "numpy")
OPTIONS = {
    "rate": "events a second; by default 70 % of the saturation, which is measured first",
    "minutes": "how long; by default as the size says",
}
SEED = 1
PRESET = "latency"
SHARE = 0.7
FORGETS = {"closed_order_days": 1, "count_horizon_hours": 1, "dedupe_hours": 0, "dedupe_events": 1_000_000}
"""Settings of the worker."""
DAY_S = 86_400
TICK_S = 0.1
BLOCK = 1_000  # events made at a time
KEPT_BYTES = 1 << 30
"""Of each topic."""
FLAT = 0.1
"""Growth of memory in an hour, as a share of it, that still counts as none."""
PERCENTILES = (50, 99)
COUNTED = ("fds", "sockets", "threads")
JUDGED_S = 1_200
"""Settled time below which a slope is not judged: one snapshot's buffers would be all of it."""


@dataclass(frozen=True)
class Size:
    """How long, and what; times in seconds."""

    seconds: float
    settle_s: float
    slice_s: float
    sample_s: float
    day_s: float
    lag_s: float
    flood: int
    """Events of each kind with which the saturation is measured."""
    flood_per_s: float
    """Of each kind: more than any worker can do on such a machine."""
    shop: Synthetic
    audited: bool

    def work(self, per_s: float) -> Synthetic:
        """A shop with stock for some times the orders that are open at once: none ever waits."""
        return replace(self.shop, orders=int(8 * per_s * self.lag_s), seed=SEED)

    def flows(self, per_s: float) -> dict[str, Flow]:
        """Sales, and orders that are cancelled: an odd number of events later, since orders are the even ones."""
        return open_events.flows(self.work(per_s), int(self.lag_s * per_s) | 1, BLOCK)


SIZES = {
    "smoke": Size(10, 3, 1, 0.25, 3, 1, 2_000, 20_000, SMALL, audited=True),
    "full": Size(1_800, 300, 60, 5, 240, 10, 150_000, 40_000, LARGE, audited=False),
}
SMOKE_RATE = 1_000
"""Most events a second at smoke size: it is to work, beside other tests."""


def run(size: str, rate: float | None = None, minutes: float | None = None) -> dict[str, Any]:
    """Soak a worker; see the module."""
    shape = SIZES[size]
    seconds = shape.seconds if minutes is None else minutes * 60
    saturation = None
    if rate is None:
        saturation = _saturation(shape)
        rate = SHARE * saturation if size == "full" else min(SMOKE_RATE, SHARE * saturation)
    per_s = max(1.0, rate / 2)
    count = int(per_s * seconds)
    with bench(PRESET, **FORGETS) as cluster:
        for topic in ("sales.v1", "orders.v1", "stock.v1", "allocations.v1", "inventory-changelog.v1"):
            cluster.configure(topic, retention_bytes=str(KEPT_BYTES), segment_bytes=str(KEPT_BYTES // 8))
        cluster.configure("ticks.v1", message_timestamp_type="CreateTime", message_timestamp_after_max_ms=str(2**63 - 1))
        samples, seen = _soak(cluster, shape, per_s, count)
        answers.check_refused(cluster)
        report = answers.audited(cluster) if shape.audited else None
    settled = [sample for sample in samples if sample["at_s"] >= shape.settle_s]
    return {
        "seed": SEED,
        "preset": PRESET,
        "settings": FORGETS | {"a day of the log, s": shape.day_s},
        "saturation": saturation,
        "rate": rate,
        "seconds": seconds,
        "settle_s": shape.settle_s,
        "slice_s": shape.slice_s,
        "samples": samples,
        "slopes": {name: _per_hour(settled, name) for name in ("rss_mb", "snapshot_mb")},
        "counts": {name: [samples[0][name], settled[0][name], samples[-1][name]] for name in COUNTED},
        "latency": {kind: _by_slice(seen, kind, shape.slice_s) for kind in seen.at},
        "drift": {kind: _drift(seen, kind, shape.settle_s) for kind in seen.at},
        "missing": seen.missing,
        "audited": report and sum(report.events.values()),
        "correct": seen.missing == 0,
    }


def _saturation(shape: Size) -> float:
    """Send more than it can do, and give the events a second that came back."""
    with bench(PRESET, **FORGETS) as cluster, open_events.worker(cluster, shape.work(shape.flood_per_s)):
        seen = open_loop.run(cluster, shape.flows(shape.flood_per_s), shape.flood_per_s, shape.flood)
    at = np.concatenate(list(seen.at.values()))
    return float(np.isfinite(at).sum() / (np.nanmax(at) - seen.planned[0]))


def _soak(cluster: Bench, shape: Size, per_s: float, count: int) -> tuple[list[dict[str, float]], Seen]:
    snapshots = cluster.directory / "state"
    with open_events.worker(cluster, shape.work(per_s)) as process:
        with Sampler([process], shape.sample_s, lambda: {"snapshot_mb": _size_mb(snapshots)}) as sampler:
            clock = Clock(DAY_S / shape.day_s, TICK_S)
            seen = open_loop.run(cluster, shape.flows(per_s), per_s, count, clock)
        offset_s = seen.planned[0] - sampler.began  # samples count from the first event on
        samples = [sample | {"at_s": sample["at_s"] - offset_s} for sample in sampler.samples]
        return [sample for sample in samples if 0 <= sample["at_s"] <= count / per_s], seen


def _size_mb(directory: Path) -> float:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # compacted away meanwhile
            continue
    return total / 1e6


# Figures


def _per_hour(samples: list[dict[str, float]], name: str) -> float:
    """Slope by least squares."""
    at_s, values = (np.array([sample[each] for sample in samples]) for each in ("at_s", name))
    return float(np.polyfit(at_s / 3_600, values, 1)[0])


def _by_slice(seen: Seen, kind: str, slice_s: float) -> list[list[float]]:
    """The percentiles of each slice's events, ms."""
    which = ((seen.planned - seen.planned[0]) / slice_s).astype(int)
    latency_ms = seen.latency_ms(kind)
    return [_percentiles(latency_ms[which == number]) for number in range(which[-1] + 1)]


def _drift(seen: Seen, kind: str, settle_s: float) -> list[list[float]]:
    """The percentiles of the first and the last tenth, ms, of what comes after `settle_s`."""
    latency_ms = seen.latency_ms(kind)[seen.planned - seen.planned[0] >= settle_s]
    tenth = max(1, len(latency_ms) // 10)
    return [_percentiles(latency_ms[:tenth]), _percentiles(latency_ms[-tenth:])]


def _percentiles(latency_ms: np.ndarray) -> list[float]:
    return np.percentile(latency_ms, PERCENTILES).tolist() if np.isfinite(latency_ms).all() else [float("inf")] * 2


def lines(result: dict[str, Any]) -> list[str]:
    """Put the answer into words."""
    first, last = result["samples"][0], result["samples"][-1]
    settled = next(sample for sample in result["samples"] if sample["at_s"] >= result["settle_s"])
    saturation = result["saturation"]
    chosen = f"{result['rate'] / saturation:.0%} of the {saturation:,.0f} that it can do" if saturation else "as asked"
    memory = [
        [
            name,
            *(f"{sample[key]:,.0f}" for sample in (first, settled, last)),
            f"{max(sample[key] for sample in result['samples']):,.0f}",
            f"{result['slopes'][key]:+,.1f}",
        ]
        for name, key in (("worker's memory, MB", "rss_mb"), ("its snapshots, MB", "snapshot_mb"))
    ]
    latency = [
        [kind, *(f"{value:,.1f}" for pair in zip(*result["drift"][kind], strict=True) for value in pair)]
        for kind in result["drift"]
    ]
    audited = f"audit of {result['audited']:,} events clean" if result["audited"] else "not audited, the topics forget"
    came = (
        "every event came back, order events once" if result["correct"] else f"WRONG: {result['missing']:,} events are missing"
    )
    return [
        f"Broker on the same cores; seed {result['seed']}; preset {result['preset']}; "
        f"{result['rate']:,.0f} events/s ({chosen}) for {result['seconds'] / 60:,.1f} minutes; "
        + ", ".join(f"{name} {value:,}" for name, value in result["settings"].items()),
        "",
        *harness.table(["", "first", f"after {result['settle_s']:g} s", "last", "most", "then per hour"], memory),
        "",
        _slope_line(result["slopes"]["rss_mb"], settled, last),
        "a snapshot every ten seconds makes it rise and fall: few of them, no slope",
        "",
        "Latency from the planned send: sales to a reader of all that is written, order events to one of what is committed.",
        *harness.table(["", "p50 of the first tenth, ms", "of the last", "p99 of the first tenth, ms", "of the last"], latency),
        "",
        f"first, after {result['settle_s']:g} s, last: "
        + "; ".join(f"{name} {', '.join(f'{value:g}' for value in values)}" for name, values in result["counts"].items()),
        f"checked: {came}; none refused; {audited}",
    ]


def _slope_line(mb_per_hour: float, settled: dict[str, float], last: dict[str, float]) -> str:
    """Say what the slope is of, and judge it if there is enough of it."""
    span_s, most = last["at_s"] - settled["at_s"], FLAT * settled["rss_mb"]
    judged = ("met" if mb_per_hour <= most else "MISSED") if span_s >= JUDGED_S else "not judged, the run is too short"
    return (
        f"memory then grows by {mb_per_hour:+,.1f} MB an hour (least squares over {span_s / 60:,.1f} minutes); "
        f"expected at most {FLAT:.0%} of it, {most:,.0f} MB: {judged}"
    )


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
