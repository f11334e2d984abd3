"""How many orders a second does a worker decide, exactly once, on a real Kafka, and how far is that from what is possible?

Beside it, on the same broker in the same run: the limit (peers/bare_loop.py: the same orders consumed, as many and the same
records produced, without transactions), the way Faust's manual shows (peers/faust_manual.py), and at full size the same job
exactly once on Kafka Streams, in memory and on RocksDB (peers/java.py), and on Quix Streams (peers/quix.py). A peer that can't
be built here is left out, and named.

A round. The process under test is started, warmed with a round's orders (a Java virtual machine is slow before) and has
nothing left to do. A round's orders are then appended to its topic inside one open transaction, so nobody can read them yet;
its commit releases all at once, and that is where time starts. It ends when the last order is done: for those that work in
transactions, when the offset behind it is committed (decision, changelog and offset are one), for the others when their last
record can be read.
CPU time is what the processes used in between. The manual's consumer reads what is not committed, so its orders are simply
appended at the start. One pool, so one partition, so one thread of decisions.
The worker, the loop and Kafka Streams take turns, round by round, so that a machine that is slow for a minute is slow for all;
those that wait for their turn run idle. Quix Streams and the manual's way follow.

Answers are checked outside the timer: each order decided once, in an unbroken sequence, none refused, the audit clean; the
peers' records counted; the manual's decisions compared with the worker's.
Not here: latency at a given rate, several partitions, workloads other than orders of one line (mixes.py).
"""

import json
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import orjson

from benchmarks import account, answers, harness
from benchmarks.cluster import POOL, SETTLE_S, Bench, Round
from benchmarks.cluster import bench as on_a_broker
from benchmarks.fleet import Process
from benchmarks.harness import WrongAnswer
from benchmarks.peers import PeerMissing, java, quix
from benchmarks.record import values
from benchmarks.synthetic import LARGE, SMALL, Synthetic

PACKAGES = ("confluent-kafka", "faust-streaming", "aiokafka", "numba", "numpy")
SEED = 1
FILL = 8.0
"""Opening stock as a share of what is ordered. At full size every order finds its units; at smoke size, where the rarest SKUs
have a unit a location, a few wait, so that the comparison of decisions has such cases."""
AT_LEAST = {"loop": 0.5, "manual": 60.0, "streams": 3.0}
"""The worker's orders/s as a multiple of the peers'."""
MOST_CPU_S = 8.0
"""The worker's CPU-seconds per million orders."""
COMMIT_INTERVAL_MS = 100
"""The peers' that work in transactions: Kafka Streams' own default for exactly once."""
NAMES = {
    "worker": "nearshelf's worker, exactly once",
    "loop": "bare librdkafka loop, nothing decided",
    "streams": "Kafka Streams, exactly once, in memory",
    "streams-rocksdb": "Kafka Streams, exactly once, RocksDB",
    "quix": "Quix Streams, exactly once, RocksDB",
    "manual": "Faust's manual's way, at least once",
}
RECORDS = {"allocations.v1": "allocation", "inventory.v1": "inventory", "inventory-changelog.v1": "changelog"}
SAMPLES = 10_000
"""Of the worker's records, those that the loop writes again and again."""
AGREEMENT = 0.999
"""Of the manual's decisions with the worker's: two locations within a metre are equal to the worker."""


@dataclass(frozen=True)
class Size:
    """How much is measured; orders are per round."""

    orders: int
    manual_orders: int
    rounds: int
    warm_up_rounds: int
    shop: Synthetic
    peers: bool
    """Whether those take part that have to be built first."""

    def work(self) -> Synthetic:
        """The workload of all rounds, warm-up first."""
        return replace(self.shop, orders=self.all_orders, fill=FILL, seed=SEED)

    @property
    def warm_up(self) -> int:
        return self.warm_up_rounds * self.orders

    @property
    def all_orders(self) -> int:
        return self.warm_up + self.rounds * self.orders

    def fewer(self) -> "Size":
        """Three rounds, for a slow peer."""
        return replace(self, rounds=min(self.rounds, 3))

    def manual(self) -> "Size":
        """The manual's way is given fewer orders, the first ones of the same workload."""
        return replace(self.fewer(), orders=self.manual_orders)


SIZES = {
    "smoke": Size(5_000, manual_orders=500, rounds=1, warm_up_rounds=1, shop=replace(SMALL, skus=2_000), peers=False),
    "full": Size(100_000, manual_orders=5_000, rounds=6, warm_up_rounds=2, shop=LARGE, peers=True),
}


def run(size: str) -> dict[str, Any]:
    """Measure all of them on a broker of their own.

    Returns
    -------
    dict
        Those measured (the keys of `NAMES`) with their figures, `ratios`, `stages`, `checks`, `left_out`, `correct`.

    Raises
    ------
    WrongAnswer
        A process ended, stood still or gave a wrong answer.
    BrokerError
        The local Kafka can't be started.
    """
    with on_a_broker("throughput") as bench:
        shape = SIZES[size]
        found = _Comparison(bench, shape)
        runs = {"worker": found.worker(), "loop": found.loop()}
        later: dict[str, Run] = {}
        left_out: dict[str, str] = {}
        for name, build in _peer_commands(bench).items() if shape.peers else ():
            try:
                (later if name == "quix" else runs)[name] = found.peer(name, build())
            except PeerMissing as failure:
                left_out[name] = str(failure)
        rates = _in_turn(runs) | _in_turn(later) | _in_turn({"manual": found.manual()})
        report = answers.audited(bench)
        found.checks["audit"] = {"faults": report.fault_count, "events": sum(report.events.values())}
    ratios = {name: rates["worker"]["events_per_s"] / rates[name]["events_per_s"] for name in AT_LEAST if name in rates}
    return {
        "seed": SEED,
        **rates,
        "ratios": ratios,
        "stages": found.stages,
        "compression": bench.settings.compression,
        "checks": found.checks,
        "left_out": left_out,
        "correct": True,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """Put the answer into words."""
    checks, cpu_s = result["checks"], result["worker"]["process_cpu_s_per_million"]
    return [
        f"Broker on the same cores; seed {result['seed']}; median of "
        f"{len(result['worker']['rounds'])} rounds of {result['worker']['events']:,} orders "
        f"({result['manual']['events']:,} for the manual's way); all but it compress what they write with "
        f"{result['compression']}",
        "",
        *harness.table(
            ["", "slowest - fastest round", "of the worker's", "orders/s", "CPU-s/M, process", "CPU-s/M, broker", "cores busy"],
            [_row(title, result[name], result) for name, title in NAMES.items() if name in result],
        ),
        "",
        *(
            harness.verdict(f"worker / {name} = {ratio:.2f}", f"at least {AT_LEAST[name]:g}", ratio >= AT_LEAST[name])
            for name, ratio in result["ratios"].items()
        ),
        harness.verdict(f"worker's CPU-seconds a million orders = {cpu_s:.1f}", f"at most {MOST_CPU_S:g}", cpu_s <= MOST_CPU_S),
        *(f"left out: {NAMES[name]}: {why}" for name, why in result["left_out"].items()),
        "",
        "Where the worker's time goes (share of the clock; the two threads run at once, waiting for the broker is in it):",
        *account.stage_lines(result["stages"]),
        "",
        f"Checked: {checks['decisions']:,} decisions for as many orders, sequence unbroken "
        f"({answers.counts(checks['statuses'])}); audit of "
        f"{checks['audit']['events']:,} events clean; the same location chosen as by the worker: "
        + ", ".join(f"{NAMES[name].partition(',')[0]} {share:.2%}" for name, share in checks["agrees"].items()),
        f"An order's records: allocation {checks['bytes']['allocation']:.0f} bytes, inventory "
        f"{checks['bytes']['inventory']:.0f} in {checks['inventory_share']:.0%} of the cases (both also the loop's), changelog "
        f"{checks['bytes']['changelog']:.0f} (the worker's alone)",
    ]


def _row(name: str, figures: dict[str, Any], result: dict[str, Any]) -> list[str]:
    of_worker = figures["events_per_s"] / result["worker"]["events_per_s"]
    return [name, account.spread(figures), f"{of_worker:.3g}", *account.cells(figures)]


# Those measured


Run = Generator[None, None, dict[str, Any]]
"""Of one process: yields before each of its rounds, returns its figures."""
Load = Callable[[list[bytes]], tuple[Callable[[], Any], Callable[[], bool]]]
"""Gets a round's orders ready; gives what releases them, and what tells whether all are done."""


def _peer_commands(bench: Bench) -> dict[str, Callable[[], list[str]]]:
    """Name → what gives the peer's command line, but for its topics; it may have to be built first."""
    cache = bench.settings.cache_directory

    def streams(store: str) -> list[str]:
        return [*java.build(cache / "kafka-streams-peer"), "--store", store]

    return {
        "streams": lambda: streams("memory"),
        "streams-rocksdb": lambda: streams("rocksdb"),
        "quix": lambda: [str(quix.environment(cache / "quix-streams-peer")), "-m", "benchmarks.peers.quix"],
    }


def _in_turn(runs: dict[str, Run]) -> dict[str, Any]:
    """Let each run a round in turn until all have ended; gives what they return."""
    figures = {}
    try:
        while left := [name for name in runs if name not in figures]:
            for name in left:
                try:
                    next(runs[name])
                except StopIteration as ended:
                    figures[name] = ended.value
    finally:
        for run in runs.values():
            run.close()
    return figures


class _Comparison:
    """The runs on one broker, and what was found about their answers."""

    def __init__(self, bench: Bench, shape: Size):
        self.bench, self.shape = bench, shape
        self.orders = list(values(chain.from_iterable(shape.work().order_records())))
        self.checks: dict[str, Any] = {"agrees": {}}
        self.stages: dict[str, Any] = {}
        self._decided: list[str | None] = []
        """The location each order got from the worker."""
        self._samples: dict[str, list[tuple[bytes, bytes]]] = {}
        """Topic → keys and values of records that the worker wrote."""

    def worker(self) -> Run:
        """Measure the worker."""
        bench = self.bench
        with bench.worker(self.shape.work()) as process:
            starts = {topic: bench.end(topic) for topic in ("inventory.v1", "inventory-changelog.v1")}
            warm_up, *parts = self._parts(self.shape)
            bench.round(process, [("orders.v1", POOL, warm_up)])
            self._measure_records(starts)
            before = account.stages(process.metrics())
            rounds = []
            for part in parts:
                yield
                rounds.append(bench.round(process, [("orders.v1", POOL, part)]))
            time.sleep(SETTLE_S)
            self.stages = account.shares(before, account.stages(process.metrics()), rounds)
        statuses, self._decided = answers.decisions(bench, len(self.orders))
        self.checks |= {"decisions": len(self._decided), "statuses": dict(statuses)}
        return account.figures(rounds)

    def loop(self) -> Run:
        """Measure the bare loop, with as many records as the worker's, and of the same content."""
        bench, share = self.bench, self.checks["inventory_share"]
        topics = bench.create("loop", "orders.v1", "allocations.v1", "inventory.v1")
        command = ["-m", "benchmarks.peers.bare_loop", "--bootstrap-servers", bench.settings.bootstrap_servers]
        command += ["--orders", topics["orders.v1"], "--inventory-share", repr(share)]
        command += ["--compression", bench.settings.compression]
        for option, topic in (("allocations", "allocations.v1"), ("inventory", "inventory.v1")):
            records = bench.directory / f"{option}.json"
            records.write_bytes(orjson.dumps([(key.decode(), value.decode()) for key, value in self._samples[topic]]))
            command += [f"--{option}", topics[topic], str(records)]
        done = 0

        def load(part: list[bytes]) -> tuple[Callable[[], Any], Callable[[], bool]]:
            nonlocal done
            done += len(part)
            return bench.load([(topics["orders.v1"], POOL, part)])[1], finished

        def finished() -> bool:
            ends = bench.end(topics["allocations.v1"]), bench.end(topics["inventory.v1"])
            return ends[0] >= done and ends[1] >= int(done * share) - 1  # shares are summed up in floating point

        with bench.process("loop", [sys.executable, *command]) as process:
            figures = yield from self._rounds(process, self.shape, load)
        if (found := bench.end(topics["allocations.v1"])) != done:
            raise WrongAnswer(f"the bare loop produced {found} allocations for {done} orders")
        return figures

    def peer(self, name: str, command: list[str]) -> Run:
        """Measure a peer that works in transactions, and compare its decisions with the worker's."""
        bench = self.bench
        with bench.peer(name, command, self.shape.work(), COMMIT_INTERVAL_MS) as (process, topics, reached):

            def load(part: list[bytes]) -> tuple[Callable[[], Any], Callable[[], bool]]:
                ends, release = bench.load([(topics["orders.v1"], POOL, part)])
                return release, lambda: reached(ends)

            shape = self.shape.fewer() if name == "quix" else self.shape
            figures = yield from self._rounds(process, shape, load)
        self._compare(name, topics, shape, lambda made: next((each["location_id"] for each in made["shipments"]), None))
        return figures

    def manual(self) -> Run:
        """Measure the manual's way on the first orders, and compare its decisions with the worker's."""
        bench, work, shape = self.bench, self.shape.work(), self.shape.manual()
        topics = bench.create("manual", "orders.v1", "allocations.v1")
        given = {
            "bootstrap_servers": bench.settings.bootstrap_servers,
            "orders": topics["orders.v1"],
            "allocations": topics["allocations.v1"],
            "work": {name: getattr(work, name) for name in ("orders", "locations", "skus", "cells_per_sku", "fill", "seed")},
        }
        command = ["-m", "benchmarks.peers.faust_manual", "worker", "--without-web", "--loglevel", "warn"]
        done = 0

        def load(part: list[bytes]) -> tuple[Callable[[], Any], Callable[[], bool]]:
            nonlocal done
            done += len(part)
            return lambda: bench.append(topics["orders.v1"], part), lambda: bench.end(topics["allocations.v1"]) >= done

        with bench.process("manual", [sys.executable, *command], {"PEER": json.dumps(given)}) as process:
            figures = yield from self._rounds(process, shape, load)
        found = self._compare("manual", topics, shape, lambda allocation: allocation["location_id"])
        self.checks["manual_waiting"] = sum(location is None for location in found)
        return figures

    def _parts(self, shape: Size) -> Iterator[list[bytes]]:
        """The orders of the warm-up, and of each round."""
        yield self.orders[: shape.warm_up]
        for start in range(shape.warm_up, shape.all_orders, shape.orders):
            yield self.orders[start : start + shape.orders]

    def _rounds(self, process: Process, shape: Size, load: Load) -> Run:
        """Measure a process, the warm-up left out."""
        rounds: list[Round] = []
        for part in self._parts(shape):
            if rounds:
                yield
            rounds.append(self.bench.measure(process, len(part), *load(part)))
        time.sleep(SETTLE_S)
        return account.figures(rounds[1:])

    def _measure_records(self, starts: dict[str, int]) -> None:
        """Measure what the worker wrote since `starts`, mean bytes and inventory records an order; keep some of each topic."""
        sizes, counts = {}, {}
        for topic, name in RECORDS.items():
            found = [(message.key(), message.value()) for message in self.bench.read(topic, starts.get(topic, 0))]
            counts[name], self._samples[topic] = len(found), found[:SAMPLES]
            sizes[name] = sum(len(key) + len(value) for key, value in found) / len(found)
        sizes["changelog"] *= counts["changelog"] / counts["allocation"]
        self.checks |= {"bytes": sizes, "inventory_share": counts["inventory"] / counts["allocation"]}

    def _compare(
        self, name: str, topics: dict[str, str], shape: Size, location_of: Callable[[dict], str | None]
    ) -> list[str | None]:
        """Compare a peer's locations with the worker's; gives the peer's, order by order."""
        allocations = [orjson.loads(message.value()) for message in self.bench.read(topics["allocations.v1"])]
        found = {allocation["order_id"]: location_of(allocation) for allocation in allocations}
        count = shape.all_orders
        if len(found) != count:
            raise WrongAnswer(f"{NAMES[name]} decided {len(found)} of {count} orders")
        places = [found[f"o{number:09}"] for number in range(count)]
        agreed = sum(place == other for place, other in zip(places, self._decided, strict=False))
        self.checks["agrees"][name] = agreed / count
        if agreed / count < AGREEMENT:
            raise WrongAnswer(f"{NAMES[name]} agrees with the worker in {agreed} of {count} orders only")
        return places


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
