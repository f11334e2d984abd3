"""How many events a second does a worker commit, exactly once, when they are not all orders of one line?

Sales alone (a tenth of them returns), stock alone (receipts and counts by turns), orders of several lines (as many as the
retail sample's orders have), and all three interleaved, as many of each as in the sample's stream. SKUs by Zipf's law, at any
location that stocks them.

One worker on one broker, mix by mix; a round is timed as in end_to_end.py: loaded in one open transaction, a thousand events
at a time, released at once by its commit, over when the offset behind its last event is committed in each topic. The first
round of each mix is to warm up.

Checked outside the timer, by the audit: every event that was sent is judged, applied or outdated by a count that came before
it; none is refused; every order is decided; no fault. Not here: orders of one line (end_to_end.py), latency (latency.py).
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from benchmarks import account, answers, harness
from benchmarks.cluster import POOL, SETTLE_S, Bench, Part
from benchmarks.cluster import bench as on_a_broker
from benchmarks.fleet import Process
from benchmarks.harness import WrongAnswer
from benchmarks.record import movement, values
from benchmarks.synthetic import LARGE, MOST_UNITS, SMALL, TIME_MS, Synthetic
from streams.audit import Report, audit

PACKAGES = ("confluent-kafka", "faust-streaming", "aiokafka", "numba", "numpy")
SEED = 1
PART = 1_000  # events of all topics that are appended before the next
RETURNS = 10  # one in so many of a till's lines
SHARES = {
    "sales": {"sales.v1": 1.0},
    "stock": {"stock.v1": 1.0},
    "orders": {"orders.v1": 1.0},
    "all": {"sales.v1": 0.65, "stock.v1": 0.25, "orders.v1": 0.10},
}
"""Mix → topic → share of the events. The retail sample's stream: 9,175 sales and returns, 3,508 of stock, 1,499 of orders."""
NAMES = {
    "sales": "sales and returns",
    "stock": "receipts and counts",
    "orders": "orders of several lines",
    "all": "all three, as in retail",
}


@dataclass(frozen=True)
class Size:
    """How much is measured: events of a round, by mix."""

    events: dict[str, int]
    rounds: int
    shop: Synthetic

    def work(self) -> Synthetic:
        """The orders of all mixes, and the stock for them."""
        share = SHARES["all"]["orders.v1"]
        orders = (1 + self.rounds) * (self.events["orders"] + int(self.events["all"] * share))
        return replace(self.shop, orders=orders, mix="retail", seed=SEED)


SIZES = {
    "smoke": Size({"sales": 5_000, "stock": 5_000, "orders": 200, "all": 2_000}, rounds=1, shop=replace(SMALL, skus=2_000)),
    "full": Size({"sales": 100_000, "stock": 100_000, "orders": 3_000, "all": 30_000}, rounds=3, shop=LARGE),
}


class _Events:
    """The workload's events in the order they are sent; sales and stock have one clock, so a count is of its time."""

    def __init__(self, work: Synthetic):
        self._work = work
        self._orders = values(chain.from_iterable(work.order_records()))
        self._random = np.random.default_rng(SEED)
        self._number = 0

    def round(self, shares: dict[str, float], count: int) -> list[Part]:
        """Make a round's events, as parts of topics."""
        sizes = [min(PART, count - start) for start in range(0, count, PART)]
        return [(topic, POOL, self._values(topic, round(size * share))) for size in sizes for topic, share in shares.items()]

    def _values(self, topic: str, count: int) -> list[bytes]:
        if topic == "orders.v1":
            return list(islice(self._orders, count))
        return list(self._movements(topic, count))

    def _movements(self, topic: str, count: int) -> Iterator[bytes]:
        """Lines of tills, or of stock."""
        skus, stocked = self._work.draw_skus(self._random, count), self._work.stocked
        locations = stocked[skus, self._random.integers(stocked.shape[1], size=count)]
        units = self._random.integers(1, MOST_UNITS + 1, count)
        opening = self._work.units[skus]
        for sku, location, quantity, counted in zip(*(a.tolist() for a in (skus, locations, units, opening)), strict=True):
            self._number += 1
            if topic == "sales.v1":
                kind = "sale" if self._number % RETURNS else "return"
            elif self._number % 2:
                kind = "receipt"
            else:
                kind, quantity = "count", counted
            number = self._number
            yield movement(f"m{number:09}", TIME_MS + number, kind, location, f"SKU-{sku:06}", quantity)


def run(size: str) -> dict[str, Any]:
    """Measure each mix on a broker of their own.

    Returns
    -------
    dict
        `mixes`: name → figures, `lines` of a round, `lines_per_s`, `stages`; `checks`, `correct`.

    Raises
    ------
    WrongAnswer
        The worker ended, stood still or gave a wrong answer.
    BrokerError
        The local Kafka can't be started.
    """
    shape = SIZES[size]
    work = shape.work()
    events, sent = _Events(work), Counter[str]()
    with on_a_broker("throughput") as bench:
        with bench.worker(work) as process:
            sent["stock.v1"] = work.stocked.size  # a receipt each
            mixes = {mix: _measure(bench, process, events, mix, shape, sent) for mix in SHARES}
        report = audit(bench.settings, complete=True)
    _check(report, sent)
    checks = {
        "events": dict(report.events),
        "outcomes": dict(report.outcomes),
        "decisions": dict(report.decisions),
        "orders": report.orders,
        "order_lines": report.order_lines,
        "faults": report.fault_count,
    }
    return {"seed": SEED, "mixes": mixes, "checks": checks, "correct": True}


def _measure(bench: Bench, process: Process, events: _Events, mix: str, shape: Size, sent: Counter[str]) -> dict[str, Any]:
    """Measure a mix; adds what was sent to `sent`, by topic."""
    rounds, lines, before = [], [], {}
    for number in range(1 + shape.rounds):
        if number == 1:
            before = account.stages(process.metrics())
        parts = events.round(SHARES[mix], shape.events[mix])
        for topic, _, contents in parts:
            sent[topic] += len(contents)
        rounds.append(bench.round(process, parts))
        lines.append(sum(value.count(b'"sku"') for *_, values in parts for value in values))
        time.sleep(SETTLE_S)
    after = account.stages(process.metrics())
    measured = account.figures(rounds[1:])
    lines_an_event = sum(lines[1:]) / sum(each.events for each in rounds[1:])
    return {
        **measured,
        "lines_an_event": lines_an_event,
        "lines_per_s": measured["events_per_s"] * lines_an_event,
        "stages": account.shares(before, after, rounds[1:]),
    }


def _check(report: Report, sent: Counter[str]) -> None:
    """Compare what the audit judged with what was sent."""
    answers.check_clean(report)
    judged = {topic: report.events[topic] for topic in sent}
    if judged != sent:
        raise WrongAnswer(f"expected the events that were sent, {dict(sent)}; found {judged}")
    if other := {outcome: count for outcome, count in report.outcomes.items() if outcome not in ("applied", "stale", "clock")}:
        raise WrongAnswer(f"every event is good and sent once, but the worker found {other}")
    if report.orders != sent["orders.v1"]:
        raise WrongAnswer(f"the worker decided {report.orders} of {sent['orders.v1']} orders")


def lines(result: dict[str, Any]) -> list[str]:
    """Put the answer into words."""
    checks, mixes = result["checks"], result["mixes"]
    head = ["", "events of a round", "lines an event", "lines/s", "slowest - fastest round"]
    return [
        f"Broker on the same cores; seed {result['seed']}; nearshelf's worker, exactly once; median of "
        f"{len(mixes['all']['rounds'])} rounds",
        "",
        *harness.table(
            [*head, "events/s", "CPU-s/M, process", "CPU-s/M, broker", "cores busy"],
            [
                [
                    NAMES[mix],
                    f"{found['events']:,}",
                    f"{found['lines_an_event']:.1f}",
                    f"{found['lines_per_s']:,.0f}",
                    account.spread(found),
                    *account.cells(found),
                ]
                for mix, found in mixes.items()
            ],
        ),
        "",
        "Where the worker's time goes (share of the clock; the two threads run at once, waiting for the broker is in it):",
        *(line for mix, found in mixes.items() for line in (f"{NAMES[mix]}:", *account.stage_lines(found["stages"]))),
        "",
        f"Checked: audit of {sum(checks['events'].values()):,} events clean ({answers.counts(checks['outcomes'])}); "
        f"{checks['orders']:,} orders of {checks['order_lines']:,} lines decided ({answers.counts(checks['decisions'])})",
    ]


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
