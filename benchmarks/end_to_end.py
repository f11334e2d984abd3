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
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import orjson

from benchmarks import account, harness
from benchmarks.cluster import POOL, SETTLE_S, Bench, Round
from benchmarks.cluster import bench as on_a_broker
from benchmarks.harness import WrongAnswer
from benchmarks.peers import PeerMissing, java, quix
from benchmarks.record import values
from benchmarks.synthetic import Synthetic
from config.broker import KAFKA_VERSION
from streams.audit import audit

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
    locations: int
    skus: int
    cells_per_sku: int
    peers: bool
    """Whether those take part that have to be built first."""

    def work(self) -> Synthetic:
        """The workload of all rounds, warm-up first."""
        return Synthetic(
            self.warm_up + self.rounds * self.orders,
            self.locations,
            self.skus,
            self.cells_per_sku,
            FILL,
            pool=POOL,
            seed=SEED,
        )

    @property
    def warm_up(self) -> int:
        return self.warm_up_rounds * self.orders

    def fewer(self) -> "Size":
        """Three rounds, for a slow peer."""
        return replace(self, rounds=min(self.rounds, 3))

    def manual(self) -> "Size":
        """The manual's way is given fewer orders, the first ones of the same workload."""
        return replace(self.fewer(), orders=self.manual_orders)


SIZES = {
    "smoke": Size(
        orders=5_000, manual_orders=500, rounds=1, warm_up_rounds=1, locations=50, skus=2_000, cells_per_sku=10, peers=False
    ),
    "full": Size(
        orders=100_000, manual_orders=5_000, rounds=6, warm_up_rounds=2, locations=500, skus=4_000, cells_per_sku=50, peers=True
    ),
}


def run(size: str) -> dict[str, Any]:
    """Measure all of them on a broker of their own.

    Parameters
    ----------
    size : "smoke" or "full"

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
        orders = list(values(chain.from_iterable(shape.work().order_records())))
        checks: dict[str, Any] = {}
        decided: list[str | None] = []
        runs = {"worker": _run_worker(bench, shape, orders, checks, decided), "loop": _run_loop(bench, shape, orders, checks)}
        left_out: dict[str, str] = {}
        later = {}
        for name, start in _peers(bench).items() if shape.peers else ():
            try:
                command = start()
            except PeerMissing as failure:
                left_out[name] = str(failure)
                continue
            if name == "quix":
                later[name] = _run_peer(bench, name, *command, shape, shape.fewer(), orders, decided, checks)
            else:
                runs[name] = _run_peer(bench, name, *command, shape, shape, orders, decided, checks)
        rates = _in_turn(runs) | _in_turn(later)
        worker = rates["worker"]
        rates["manual"] = _run_manual(bench, shape, orders, decided, checks)
        report = audit(bench.settings, complete=True)
        checks["audit"] = {"faults": report.fault_count, "events": sum(report.events.values())}
        if not report.clean:
            raise WrongAnswer(f"the audit found {report.fault_count} faults, the first: {report.faults[0]}")
    ratios = {name: worker["events_per_s"] / rates[name]["events_per_s"] for name in AT_LEAST if name in rates}
    return {
        "seed": SEED,
        "kafka": KAFKA_VERSION,
        **rates,
        "ratios": ratios,
        "stages": checks.pop("stages"),
        "compression": bench.settings.compression,
        "checks": checks,
        "left_out": left_out,
        "correct": True,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """Put the answer into words."""
    checks, stages = result["checks"], result["stages"]
    return [
        f"Apache Kafka {result['kafka']} on the same cores; seed {result['seed']}; median of "
        f"{len(result['worker']['rounds'])} rounds of {result['worker']['events']:,} orders "
        f"({result['manual']['events']:,} for the manual's way); all but it compress what they write with "
        f"{result['compression']}",
        "",
        *harness.table(
            ["", "orders/s", "slowest - fastest round", "of the worker's", "CPU-s/M, process", "CPU-s/M, broker", "cores busy"],
            [_row(title, result[name], result) for name, title in NAMES.items() if name in result],
        ),
        "",
        *(_verdict(name, ratio) for name, ratio in result["ratios"].items()),
        _cpu_verdict(result["worker"]["process_cpu_s_per_million"]),
        *(f"left out: {NAMES[name]}: {why}" for name, why in result["left_out"].items()),
        "",
        "Where the worker's time goes (share of the clock; the two threads run at once, waiting for the broker is in it):",
        *account.stage_lines(stages),
        "",
        f"Checked: {checks['decisions']:,} decisions for as many orders, sequence unbroken "
        f"({', '.join(f'{name} {count:,}' for name, count in checks['statuses'].items())}); audit of "
        f"{checks['audit']['events']:,} events clean; the same location chosen as by the worker: "
        + ", ".join(f"{NAMES[name].partition(',')[0]} {share:.2%}" for name, share in checks["agrees"].items()),
        f"An order's records: allocation {checks['bytes']['allocation']:.0f} bytes, inventory "
        f"{checks['bytes']['inventory']:.0f} in {checks['inventory_share']:.0%} of the cases (both also the loop's), changelog "
        f"{checks['bytes']['changelog']:.0f} (the worker's alone)",
    ]


def _row(name: str, figures: dict[str, Any], result: dict[str, Any]) -> list[str]:
    rate, spread, *others = account.cells(figures)
    return [name, rate, spread, f"{figures['events_per_s'] / result['worker']['events_per_s']:.3g}", *others]


def _verdict(name: str, ratio: float) -> str:
    met = "met" if ratio >= AT_LEAST[name] else "MISSED"
    return f"worker / {name} = {ratio:.2f}; expected at least {AT_LEAST[name]:g}: {met}"


def _cpu_verdict(seconds: float) -> str:
    met = "met" if seconds <= MOST_CPU_S else "MISSED"
    return f"worker's CPU-seconds a million orders = {seconds:.1f}; expected at most {MOST_CPU_S:g}: {met}"


# Those measured


Run = Generator[None, None, dict[str, Any]]
"""Of one process: yields before each of its rounds, returns its figures."""


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


def _run_worker(bench: Bench, shape: Size, orders: list[bytes], checks: dict[str, Any], decided: list[str | None]) -> Run:
    """Measure the worker; adds its stages and what was checked to `checks`, and the location each order got to `decided`."""
    work = shape.work()
    for chunk in work.opening():
        bench.append("stock.v1", list(values(chunk)))
    with bench.settled("worker", bench.worker_command(work)) as process:
        starts = {topic: bench.end(topic) for topic in ("inventory.v1", "inventory-changelog.v1")}

        def release_and_await(count: int, given: list[bytes]) -> Round:
            target, release = bench.load("orders.v1", given)
            return bench.measure(process, count, release, lambda: bench.committed("orders.v1") >= target)

        release_and_await(shape.warm_up, orders[: shape.warm_up])
        checks["bytes"], checks["inventory_share"], checks["samples"] = _sizes(bench, starts)
        before = account.stages(process.metrics())
        rounds = []
        for part in _parts(orders, shape):
            yield
            rounds.append(release_and_await(len(part), part))
        time.sleep(SETTLE_S)
        after = account.stages(process.metrics())
    checks["stages"] = account.shares(before, after, rounds)
    decided += _check_worker(bench, len(orders), checks)
    return account.figures(rounds)


def _run_loop(bench: Bench, shape: Size, orders: list[bytes], checks: dict[str, Any]) -> Run:
    """Measure the bare loop, with as many records as the worker's, and of the same content."""
    topics = bench.create("loop", "orders.v1", "allocations.v1", "inventory.v1")
    share, samples = checks["inventory_share"], checks.pop("samples")
    command = ["-m", "benchmarks.peers.bare_loop", "--bootstrap-servers", bench.settings.bootstrap_servers]
    command += ["--orders", topics["orders.v1"], "--inventory-share", repr(share)]
    command += ["--compression", bench.settings.compression]
    for option, topic in (("allocations", "allocations.v1"), ("inventory", "inventory.v1")):
        records = bench.directory / f"{option}.json"
        records.write_bytes(orjson.dumps([(key.decode(), value.decode()) for key, value in samples[topic]]))
        command += [f"--{option}", topics[topic], str(records)]
    done = cells = 0
    rounds: list[Round] = []
    with bench.process("loop", [sys.executable, *command]) as process:
        for part in _parts(orders, shape, warm_up=True):
            done += len(part)
            cells = int(done * share)

            def finished(done: int = done, cells: int = cells) -> bool:
                ends = bench.end(topics["allocations.v1"]), bench.end(topics["inventory.v1"])
                return ends[0] >= done and ends[1] >= cells - 1  # shares are summed up in floating point

            if rounds:
                yield
            _, release = bench.load(topics["orders.v1"], part)
            rounds.append(bench.measure(process, len(part), release, finished))
        time.sleep(SETTLE_S)
    if (found := bench.end(topics["allocations.v1"])) != done:
        raise WrongAnswer(f"the bare loop produced {found} allocations for {done} orders")
    return account.figures(rounds[1:])


def _peers(bench: Bench) -> dict[str, Callable[[], tuple[list[str], dict[str, str]]]]:
    """Name → what gives the peer's command line and environment, but for its topics; it may have to be built first."""

    def streams(store: str) -> Callable[[], tuple[list[str], dict[str, str]]]:
        def start() -> tuple[list[str], dict[str, str]]:
            return [*java.build(bench.settings.cache_directory / "kafka-streams-peer"), "--store", store], {}

        return start

    def quix_streams() -> tuple[list[str], dict[str, str]]:
        return [str(quix.environment(bench.settings.cache_directory / "quix-streams-peer")), "-m", "benchmarks.peers.quix"], {}

    return {"streams": streams("memory"), "streams-rocksdb": streams("rocksdb"), "quix": quix_streams}


def _run_peer(
    bench: Bench,
    name: str,
    command: list[str],
    environment: dict[str, str],
    shape: Size,
    given_shape: Size,
    orders: list[bytes],
    decided: list[str | None],
    checks: dict[str, Any],
) -> Run:
    """Measure a peer that works in transactions, and compare its decisions with the worker's.

    It gets the stock of `shape` and, of its orders, those of `given_shape`.
    """
    models = {"stock": "stock.v1", "orders": "orders.v1", "allocations": "allocations.v1"}
    topics = bench.create(name, *models.values())
    given: dict[str, Any] = {
        "bootstrap_servers": bench.settings.bootstrap_servers,
        "application_id": f"peer-{name}",
        "network": str(bench.write_network(shape.work())),
        "state_directory": str(bench.directory / f"{name}-state"),
        "commit_interval_ms": COMMIT_INTERVAL_MS,
        **{option: topics[model] for option, model in models.items()},
    }
    if name == "quix":
        given["producer"] = {"compression.type": bench.settings.compression}
        environment = environment | {"PEER": json.dumps(given)}
    else:
        command = [*command, *(part for key, value in given.items() for part in (f"--{key.replace('_', '-')}", str(value)))]
        command += ["--set", f"producer.compression.type={bench.settings.compression}"]
    for chunk in shape.work().opening():
        bench.append(topics["stock.v1"], list(values(chunk)))
    rounds: list[Round] = []
    with bench.group(given["application_id"]) as committed, bench.process(name, command, environment) as process:
        process.await_that(lambda: committed(topics["stock.v1"]) >= bench.end(topics["stock.v1"]))

        def release_and_await(part: list[bytes]) -> Round:
            target, release = bench.load(topics["orders.v1"], part)
            return bench.measure(process, len(part), release, lambda: committed(topics["orders.v1"]) >= target)

        for part in _parts(orders, given_shape, warm_up=True):
            if rounds:
                yield
            rounds.append(release_and_await(part))
        time.sleep(SETTLE_S)
    found = {}
    for message in bench.read(topics["allocations.v1"]):
        allocation = orjson.loads(message.value())
        found[allocation["order_id"]] = next((each["location_id"] for each in allocation["shipments"]), None)
    _compare(name, found, decided, sum(each.events for each in rounds), checks)
    return account.figures(rounds[1:])


def _compare(name: str, found: dict[str, str | None], decided: list[str | None], count: int, checks: dict[str, Any]) -> None:
    """Compare a peer's locations, by order id, with the worker's."""
    if len(found) != count:
        raise WrongAnswer(f"{NAMES[name]} decided {len(found)} of {count} orders")
    agreed = sum(found[_order_id(number)] == decided[number] for number in range(count))
    checks.setdefault("agrees", {})[name] = agreed / count
    if agreed / count < AGREEMENT:
        raise WrongAnswer(f"{NAMES[name]} agrees with the worker in {agreed} of {count} orders only")


def _run_manual(
    bench: Bench, shape: Size, orders: list[bytes], decided: list[str | None], checks: dict[str, Any]
) -> dict[str, Any]:
    """Measure the manual's way on the first orders, and compare its decisions with the worker's."""
    topics = bench.create("manual", "orders.v1", "allocations.v1")
    work = shape.work()
    given = {
        "bootstrap_servers": bench.settings.bootstrap_servers,
        "orders": topics["orders.v1"],
        "allocations": topics["allocations.v1"],
        "work": {name: getattr(work, name) for name in ("orders", "locations", "skus", "cells_per_sku", "fill", "seed")},
    }
    command = ["-m", "benchmarks.peers.faust_manual", "worker", "--without-web", "--loglevel", "warn"]
    done = 0
    rounds = []
    with bench.process("manual", [sys.executable, *command], {"PEER": json.dumps(given)}) as process:
        for part in _parts(orders, shape.manual(), warm_up=True):
            done += len(part)

            def append(part: list[bytes] = part) -> None:
                bench.append(topics["orders.v1"], part)

            def finished(done: int = done) -> bool:
                return bench.end(topics["allocations.v1"]) >= done

            rounds.append(bench.measure(process, len(part), append, finished))
        time.sleep(SETTLE_S)
    found = {}
    for message in bench.read(topics["allocations.v1"]):
        allocation = orjson.loads(message.value())
        found[allocation["order_id"]] = allocation["location_id"]
    _compare("manual", found, decided, done, checks)
    checks["manual_waiting"] = sum(location is None for location in found.values())
    return account.figures(rounds[1:])


def _parts(orders: list[bytes], shape: Size, warm_up: bool = False) -> Iterator[list[bytes]]:
    """The orders of each round, and of the warm-up before them if asked for."""
    if warm_up:
        yield orders[: shape.warm_up]
    for number in range(shape.rounds):
        start = shape.warm_up + number * shape.orders
        yield orders[start : start + shape.orders]


# Its answer


def _order_id(number: int) -> str:
    return f"o{number:09}"


def _sizes(bench: Bench, starts: dict[str, int]) -> tuple[dict[str, float], float, dict[str, list[tuple[bytes, bytes]]]]:
    """Measure the records written since `starts`: their mean bytes, inventory records an order, and of each topic the first."""
    sizes, counts, samples = {}, {}, {}
    for topic, name in (
        ("allocations.v1", "allocation"),
        ("inventory.v1", "inventory"),
        ("inventory-changelog.v1", "changelog"),
    ):
        found = [(message.key(), message.value()) for message in bench.read(topic, starts.get(topic, 0))]
        counts[name], samples[topic] = len(found), found[:SAMPLES]
        sizes[name] = sum(len(key) + len(value) for key, value in found) / len(found)
    sizes["changelog"] *= counts["changelog"] / counts["allocation"]
    return sizes, counts["inventory"] / counts["allocation"], samples


def _check_worker(bench: Bench, orders: int, checks: dict[str, Any]) -> list[str | None]:
    """Check that each order was decided once, in sequence; give the location each order got."""
    decided: list[str | None] = [None] * orders
    statuses: Counter[str] = Counter()
    number = 0
    for number, message in enumerate(bench.read("allocations.v1"), 1):
        allocation = orjson.loads(message.value())
        expected = number, _order_id(number - 1)
        if (allocation["sequence"], allocation["order_id"]) != expected:
            raise WrongAnswer(
                f"decision {number}: expected sequence and order {expected}, "
                f"found {(allocation['sequence'], allocation['order_id'])}"
            )
        statuses[allocation["status"]] += 1
        decided[number - 1] = next((shipment["location_id"] for shipment in allocation["shipments"]), None)
    if number != orders:
        raise WrongAnswer(f"the worker decided {number} of {orders} orders")
    if refused := bench.end("dead-letter.v1"):
        raise WrongAnswer(f"the worker refused {refused} records; none is bad")
    checks |= {"decisions": number, "statuses": dict(statuses)}
    return decided


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
