"""What does an order cost with one, two and four workers, and what would a million orders a second take?

Eight pools, each in a partition of its own, and the same orders each time, on a broker and workers of their own. The workers
are started together; time does not start before all of them own their share and have decided a warm-up's orders. A round's
orders are then appended to all partitions inside one open transaction, and its commit releases them at once; it ends when
every partition's last order is committed with its decision. Exactly once, as always.

Two cores, which broker and workers share, bound the throughput: more workers can't be faster here. What can be seen is whether
an order costs more when there are more of them: CPU-seconds of all workers and of the broker a million orders, which should
stay flat. From these `paper_model` works out, on paper, what 1,000,000 orders/s take; it prints what it assumes.

Checked: each order decided once, each pool's sequence unbroken, none refused, the audit clean.
Not here: what a broker's copies of a record cost beyond their bytes, several brokers, machines with a network between them.
"""

import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil
from typing import Any

from benchmarks import account, answers, harness
from benchmarks.cluster import SETTLE_S, Bench, Part, bench, pools_for
from benchmarks.fleet import Process
from benchmarks.harness import WrongAnswer
from benchmarks.record import values
from benchmarks.synthetic import Synthetic
from topics.keys import partition_of

PACKAGES = ("confluent-kafka", "faust-streaming", "aiokafka", "numba", "numpy")
SEED = 1
FILL = 8.0
WANTED_PER_S = 1_000_000
USE = 0.7
"""Share of its cores that a machine is planned to use."""
COPIES = 3
"""Of each record, on as many brokers."""
FLAT = 1.25
"""CPU an order with most workers is at most this multiple of that with one."""
OUTPUTS = ("allocations.v1", "inventory.v1", "inventory-changelog.v1")


@dataclass(frozen=True)
class Size:
    """How much is measured; all but `workers` and `pools` are per pool."""

    workers: tuple[int, ...]
    pools: int
    orders: int
    warm_up: int
    shop: Synthetic

    def works(self) -> list[Synthetic]:
        """A workload per pool, warm-up first; no two have a location, an order or a seed in common."""
        orders, each = self.warm_up + self.orders, self.shop.locations
        return [
            replace(
                self.shop,
                orders=orders,
                pool=pool,
                seed=SEED + number,
                first_location=number * each,
                first_order=number * orders,
            )
            for number, pool in enumerate(pools_for(self.pools))
        ]


SIZES = {
    "smoke": Size((1, 2), pools=4, orders=500, warm_up=100, shop=Synthetic(1, 20, 100, 5, FILL)),
    "full": Size((1, 2, 4), pools=8, orders=50_000, warm_up=10_000, shop=Synthetic(1, 100, 1_000, 20, FILL)),
}


def run(size: str) -> dict[str, Any]:
    """Measure each number of workers; see the module."""
    shape = SIZES[size]
    works = shape.works()
    orders = [list(values(chain.from_iterable(work.order_records()))) for work in works]
    rows = []
    for workers in shape.workers:
        with bench("throughput", partitions=shape.pools) as cluster:
            rows.append(_run_workers(cluster, shape, works, orders, workers))
    return {
        "seed": SEED,
        "pools": shape.pools,
        "orders": shape.pools * shape.orders,
        "rows": rows,
        "model": paper_model(rows),
        "correct": True,
    }


def _run_workers(
    cluster: Bench, shape: Size, works: list[Synthetic], orders: list[list[bytes]], workers: int
) -> dict[str, Any]:
    for work in works:
        cluster.append_opening(work)
    command = cluster.worker_command(*works)
    places = {work.pool: partition_of(work.pool.encode(), shape.pools) for work in works}
    opened = cluster.ends("stock.v1")
    with ExitStack() as stack:
        processes = [stack.enter_context(cluster.process(f"worker-{number}", command)) for number in range(workers)]
        first = processes[0]
        first.await_that(lambda: cluster.reached(opened) and _is_shared(processes, shape.pools))

        def part(begin: int, end: int) -> list[Part]:
            return [("orders.v1", work.pool, values[begin:end]) for work, values in zip(works, orders, strict=True)]

        cluster.round(first, part(0, shape.warm_up))
        time.sleep(SETTLE_S)
        spread = [account.owned(process.metrics()) for process in processes]
        since = {(topic, place): cluster.end(topic, place) for topic in OUTPUTS for place in places.values()}
        round_ = cluster.round(first, part(shape.warm_up, shape.warm_up + shape.orders), processes[1:])
        if (after := [account.owned(process.metrics()) for process in processes]) != spread:
            raise WrongAnswer(f"partitions moved while time ran: {spread} before, {after} after")
        time.sleep(SETTLE_S)
    statuses: Counter[str] = Counter()
    for work in works:
        statuses += answers.decisions(cluster, work.orders, work.pool, places[work.pool], work.first_order)[0]
    return {
        "workers": workers,
        "spread": spread,
        **account.figures([round_]),
        "statuses": dict(statuses),
        "audited": sum(answers.audited(cluster).events.values()),
        "bytes": {"orders.v1": _mean_size(values[shape.warm_up :] for values in orders)}
        | {topic: _bytes_since(cluster, topic, since) / round_.events for topic in OUTPUTS},
    }


def _is_shared(processes: list[Process], partitions: int) -> bool:
    """Whether every partition has an owner, and every worker its share."""
    owned = [account.owned(process.metrics()) if process.serves() else 0 for process in processes]
    return sum(owned) == partitions and min(owned) >= partitions // len(processes)


def _mean_size(values: Any) -> float:
    sizes = [len(value) for part in values for value in part]
    return sum(sizes) / len(sizes)


def _bytes_since(cluster: Bench, topic: str, since: dict[tuple[str, int], int]) -> int:
    """Keys and values of what was written after the offsets."""
    return sum(
        len(message.key() or b"") + len(message.value() or b"")
        for (name, partition), start in since.items()
        if name == topic
        for message in cluster.read(topic, start, partition)
    )


def paper_model(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Work out what `WANTED_PER_S` orders a second take, from what was measured.

    Parameters
    ----------
    rows : list of dict
        Of `run`; the first is one worker's, the last has the most workers, and gives the costs.

    Returns
    -------
    dict
        Cores of workers and of brokers, partitions, and bytes a second: what comes in, what the brokers write on all their
        disks, what leaves them for the workers and for one reader of each output.
    """
    costs, alone = rows[-1], rows[0]
    millions = WANTED_PER_S / 1e6
    # Measured is one worker of all partitions. It has a thread for each, but they share its interpreter and, here, two cores
    # with the broker: a partition that has a worker to itself is no slower.
    sizes = costs["bytes"]
    written = sum(sizes.values())
    return {
        "worker_cores": _whole(costs["process_cpu_s_per_million"] * millions / USE),
        "broker_cores": _whole(costs["broker_cpu_s_per_million"] * millions / USE),
        "broker_cores_with_copies": _whole(costs["broker_cpu_s_per_million"] * millions * COPIES / USE),
        "orders_per_s_of_one": alone["events_per_s"],
        "partitions": _whole(WANTED_PER_S / (alone["events_per_s"] * USE)),
        "bytes_an_order": written,
        "in_bytes_per_s": written * WANTED_PER_S,
        "disk_bytes_per_s": written * COPIES * WANTED_PER_S,
        "between_brokers_bytes_per_s": written * (COPIES - 1) * WANTED_PER_S,
        "out_bytes_per_s": written * WANTED_PER_S,
    }


def _whole(number: float) -> int:
    """Round up what is not whole but for floating point."""
    return ceil(round(number, 6))


def lines(result: dict[str, Any]) -> list[str]:
    """Put the answer into words."""
    rows, model = result["rows"], result["model"]
    head = ["workers", "partitions each", "orders/s", "CPU-s/M, workers", "CPU-s/M, broker", "cores busy"]
    shown = [
        [
            str(row["workers"]),
            " + ".join(map(str, row["spread"])),
            *account.cells(row),
        ]
        for row in rows
    ]
    return [
        f"Broker on the same cores; seed {result['seed']}; {result['orders']:,} orders of one line in "
        f"{result['pools']} pools, a partition each",
        "",
        *harness.table(head, shown),
        "",
        *(_flat(name, rows) for name in ("process", "broker")),
        "",
        *_model_lines(model, rows, result["pools"]),
        "",
        f"Checked, for each number of workers: {sum(rows[-1]['statuses'].values()):,} decisions for as many orders, warm-up "
        f"included, each pool's sequence unbroken ({answers.counts(rows[-1]['statuses'])}); "
        f"audit of {rows[-1]['audited']:,} events clean",
    ]


def _flat(name: str, rows: list[dict[str, Any]]) -> str:
    key = f"{name}_cpu_s_per_million"
    ratio = rows[-1][key] / max(rows[0][key], 1e-9)
    who = "workers'" if name == "process" else "broker's"
    said = f"{who} CPU an order, {rows[-1]['workers']} workers / 1 = {ratio:.2f}"
    return harness.verdict(said, f"at most {FLAT:g}", ratio <= FLAT)


def _model_lines(model: dict[str, float], rows: list[dict[str, Any]], pools: int) -> list[str]:
    costs = rows[-1]
    sizes = ", ".join(f"{topic} {size:,.0f}" for topic, size in costs["bytes"].items())
    return [
        f"On paper, {WANTED_PER_S:,} orders/s would take, if the costs of the last row stayed what they are:",
        f"  workers: {costs['process_cpu_s_per_million']:.1f} CPU-s/M at {USE:.0%} use = {model['worker_cores']:,.0f} cores",
        f"  brokers: {costs['broker_cpu_s_per_million']:.1f} CPU-s/M at {USE:.0%} use = {model['broker_cores']:,.0f} cores for "
        f"the first copies; {model['broker_cores_with_copies']:,.0f} if all {COPIES} cost as much, which they don't",
        f"  partitions: {model['orders_per_s_of_one']:,.0f} orders/s at {USE:.0%} = {model['partitions']:,.0f} at the least, "
        "and as many pools",
        f"  bytes an order: {model['bytes_an_order']:,.0f} ({sizes})",
        f"  network: {_gigabits(model['in_bytes_per_s'])} into the brokers, {_gigabits(model['between_brokers_bytes_per_s'])} "
        f"between them, {_gigabits(model['out_bytes_per_s'])} out to workers and one reader of each output",
        f"  disks: {model['disk_bytes_per_s'] / 1e9:.1f} GB/s over all of them",
        "  assumed: orders of one line, spread evenly over pools of one size, each in a partition of its own (a pool can't be",
        "  split, so none may be busier than one partition allows); costs that depend neither on how many workers, brokers and",
        "  partitions there are nor on cores being shared, as here; as one partition's rate that of the first row, "
        f"of {pools} in one",
        f"  worker beside the broker; no compression; {COPIES} copies of everything; protocol headers and offsets left out.",
    ]


def _gigabits(bytes_per_s: float) -> str:
    return f"{bytes_per_s * 8 / 1e9:.1f} Gbit/s"


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
