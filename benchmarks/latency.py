"""How long does an event take, from the moment it was due to be sent until a reader has what came of it, at a given rate?

Open loop: a sender sends every event at its planned time, however the worker fares, so that a delay is not hidden by sending
later; latency counts from the plan. Half of the events are sales, each seen in `inventory.v1` by a reader of all that is
written (read_uncommitted); half are orders of one line, each seen in `allocations.v1` by a reader of what is committed
(read_committed). Sender, worker, broker and the two readers share the machine's cores. Kafka Streams gets the orders alone,
so half of the events.

Checked: every sale and every order came back, each order once. A rate at which they did not within `DRAIN_S` of the last
send, or at which the worker fell behind for good, is named as beyond saturation, its figures are those of the queue.
The first `WARM_S` of each rate are left out.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from benchmarks import account, harness
from benchmarks.cluster import POOL, Bench, Process, bench
from benchmarks.peers import java
from benchmarks.synthetic import TIME_MS, Synthetic
from config.broker import KAFKA_VERSION
from streams.librdkafka import handle_of, produce_spans

PACKAGES = ("confluent-kafka", "faust-streaming", "aiokafka", "numba", "numpy")
SEED = 1
PRESET = "latency"
WARM_S = 5.0
DRAIN_S = 30.0
READY_S = 120.0  # until the sender has made its events
TICK_S = 0.0005  # the sender looks what is due so often
SALE_CELLS = 5_000
PERCENTILES = (50, 90, 99, 99.9, 100)
GOALS = {"sale": (6.0, 20.0), "order": (10.0, 35.0)}
"""ms at p50 and p99, at `GOAL_RATE` events a second."""
GOAL_RATE = 10_000


@dataclass(frozen=True)
class Size:
    """Events a second, and seconds each of them lasts, the warm-up included."""

    rates: tuple[int, ...]
    seconds: float
    locations: int
    skus: int
    cells_per_sku: int
    streams_intervals_ms: tuple[int, ...]


SIZES = {
    "smoke": Size((1_000,), WARM_S + 3, locations=50, skus=500, cells_per_sku=10, streams_intervals_ms=()),
    "full": Size(
        (1_000, 5_000, 10_000, 20_000, 50_000),
        WARM_S + 60,
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
        for interval_ms in shape.streams_intervals_ms:
            try:
                with bench(PRESET) as cluster:
                    rows.append(_streams(cluster, shape, rate, interval_ms))
            except java.BuildError as failure:
                left_out = str(failure)
    return {
        "seed": SEED,
        "kafka": KAFKA_VERSION,
        "preset": PRESET,
        "seconds": shape.seconds - WARM_S,
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
        f"{result['seconds']:.0f} s each after {WARM_S:.0f} s of warm-up",
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
    per_s, count = rate // 2, int(rate // 2 * shape.seconds)
    work = _work(shape, count)
    for chunk in work.opening():
        cluster.append("stock.v1", [record.value for record in chunk])
    cluster.append("stock.v1", [_opening_of_sales(cell, work) for cell in range(SALE_CELLS)])
    with cluster.process("worker", cluster.worker_command(work)) as process:
        process.await_that(lambda: cluster.committed("stock.v1") >= cluster.end("stock.v1"))
        before = account.stages(process.metrics())
        parts = {"sale": ("sales.v1", "inventory.v1"), "order": ("orders.v1", "allocations.v1")}
        found = _measure(cluster, process, shape, per_s, count, parts)
        stages = _per_batch(before, account.stages(process.metrics()))
    return {"who": "nearshelf", "rate": rate, "stages": stages, **found}


def _streams(cluster: Bench, shape: Size, rate: int, interval_ms: int) -> dict[str, Any]:
    per_s, count = rate // 2, int(rate // 2 * shape.seconds)
    work = _work(shape, count)
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
        cluster.append(topics["stock.v1"], [record.value for record in chunk])
    with cluster.group("peer") as committed, cluster.process("streams", command) as process:
        process.await_that(lambda: committed(topics["stock.v1"]) >= cluster.end(topics["stock.v1"]))
        parts = {"order": (topics["orders.v1"], topics["allocations.v1"])}
        return {"who": name, "rate": rate, **_measure(cluster, process, shape, per_s, count, parts)}


def _work(shape: Size, orders: int) -> Synthetic:
    return Synthetic(orders, shape.locations, shape.skus, shape.cells_per_sku, fill=2.0, pool=POOL, seed=SEED)


def _measure(
    cluster: Bench, process: Process, shape: Size, per_s: int, count: int, parts: dict[str, tuple[str, str]]
) -> dict[str, Any]:
    """Run a sender and a reader per kind of event; give their latencies in ms, by percentile."""
    began = cluster.directory / "began"  # the sender writes when it begins
    seen = {kind: cluster.directory / f"{kind}.npy" for kind in parts}
    given = {"began": str(began), "per_s": per_s, "count": count, "shape": vars(shape) | {"rates": []}}
    given |= {"bootstrap_servers": cluster.settings.bootstrap_servers}
    roles = [
        ("send", {"topics": {kind: source for kind, (source, _) in parts.items()}}),
        *(
            ("read", {"kind": kind, "topic": target, "start": cluster.end(target), "out": str(seen[kind])})
            for kind, (_, target) in parts.items()
        ),
    ]
    children = [
        Process(
            f"{role}-{more.get('kind', '')}",
            [sys.executable, "-m", "benchmarks.latency", "--role", role, json.dumps(given | more)],
            cluster.directory / f"{role}-{more.get('kind', 'all')}.log",
            {},
        )
        for role, more in roles
    ]
    try:
        for child in children:
            child.finish(READY_S + shape.seconds + 2 * DRAIN_S)
    finally:
        for child in children:
            child.stop()
    answer: dict[str, Any] = {"missing": 0, "saturated": False}
    begin = float(began.read_text())
    planned = begin + np.arange(count) / per_s
    for kind, path in seen.items():
        latency_ms = (np.load(path) - planned) * 1000
        kept = latency_ms[planned >= begin + WARM_S]
        answer["missing"] += int(np.isnan(latency_ms).sum())
        answer[kind] = np.nanpercentile(kept, PERCENTILES).tolist()
        third = len(kept) // 3
        answer["saturated"] |= bool(np.nanmedian(kept[-third:]) > 3 * np.nanmedian(kept[:third]) + 50)
    return answer | {"complete": answer["missing"] == 0, "saturated": answer["saturated"] or answer["missing"] > 0}


def _per_batch(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    spent = {name: value - before.get(name, 0.0) for name, value in after.items()}
    events, batches = spent.pop("sum"), max(1.0, spent.pop("count"))
    return {"events a batch": events / batches} | {name: seconds / batches * 1000 for name, seconds in spent.items()}


# Sender and reader, each a process


def _opening_of_sales(cell: int, work: Synthetic) -> bytes:
    return (
        f'{{"event_id":"t{cell}","event_time":{TIME_MS - 1},"kind":"receipt","location_id":"L{cell % work.locations:05}",'
        f'"sku":"SALE-{cell:05}","quantity":1000000}}'
    ).encode()


def _sales(count: int, locations: int) -> list[bytes]:
    """Sale i is the (i // SALE_CELLS + 1)-th of cell i % SALE_CELLS, so the cell's version tells which have been seen."""
    return [
        (
            f'{{"event_id":"s{i}","event_time":{TIME_MS + i},"kind":"sale","location_id":"L{i % SALE_CELLS % locations:05}",'
            f'"sku":"SALE-{i % SALE_CELLS:05}","quantity":1}}'
        ).encode()
        for i in range(count)
    ]


def _send(given: dict[str, Any]) -> None:
    shape = Size(**given["shape"])
    work = _work(shape, given["count"])
    producer = Producer(
        {
            "bootstrap.servers": given["bootstrap_servers"],
            "client.id": "sender",
            "acks": "all",
            "linger.ms": 0,
            "queue.buffering.max.messages": 0,
            "queue.buffering.max.kbytes": 1 << 20,
            "delivery.report.only.error": True,
        }
    )
    handle = handle_of(producer, "sender")
    planned = []
    for kind, topic in given["topics"].items():
        values = (
            _sales(given["count"], work.locations)
            if kind == "sale"
            else [record.value for chunk in work.order_records() for record in chunk]
        )
        ends = np.cumsum([len(POOL) + len(value) for value in values])
        key = POOL.encode()
        buffer = np.frombuffer(b"".join(key + value for value in values), np.uint8)
        starts = ends - np.array([len(POOL) + len(value) for value in values])
        planned.append((topic, buffer, np.stack([starts, starts + len(POOL), ends], 1)))
    producer.list_topics(timeout=10)
    sent, begin = 0, time.monotonic() + 0.5
    Path(given["began"]).write_text(repr(begin))
    while sent < given["count"]:
        due = min(given["count"], int((time.monotonic() - begin) * given["per_s"]) + 1)
        if due > sent:
            for topic, buffer, spans in planned:
                produce_spans(handle, topic, 0, buffer, spans[sent:due])
            sent = due
            producer.poll(0)
        time.sleep(TICK_S)
    sys.exit(1 if producer.flush(DRAIN_S) else 0)


def _read(given: dict[str, Any]) -> None:
    """Note when each event was seen, and write it as float64[count], NaN for those that were not."""
    sale = given["kind"] == "sale"
    consumer = Consumer(
        {
            "bootstrap.servers": given["bootstrap_servers"],
            "group.id": f"latency-{given['kind']}",  # never joined
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted" if sale else "read_committed",
            "fetch.queue.backoff.ms": 1,
            "fetch.wait.max.ms": 100,
            "queued.min.messages": 200_000,
        }
    )
    consumer.assign([TopicPartition(given["topic"], 0, given["start"])])
    seen = np.full(given["count"], np.nan)
    note = _note_sale if sale else _note_order
    next_of_cell = np.zeros(SALE_CELLS, np.int64)
    began, left = Path(given["began"]), given["count"]
    lasts_s, begin = given["count"] / given["per_s"] + DRAIN_S, float("inf")
    while left and time.monotonic() < begin + lasts_s:
        if begin == float("inf") and began.exists() and (text := began.read_text()):
            begin = float(text)
        first = consumer.poll(0.5)
        if first is None:
            continue
        now = time.monotonic()
        for message in (first, *consumer.consume(20_000, 0)):
            if message.error() is None:
                left -= note(message, now, seen, next_of_cell)
            elif message.error().code() != KafkaError._PARTITION_EOF:
                raise KafkaException(message.error())
    np.save(given["out"], seen)
    consumer.close()


def _note_order(message: Any, now: float, seen_out: np.ndarray, _: np.ndarray) -> int:
    key = message.key()
    number = int(key[1:])
    if not np.isnan(seen_out[number]):
        sys.exit(f"order {key} was decided twice")
    seen_out[number] = now
    return 1


def _note_sale(message: Any, now: float, seen_out: np.ndarray, next_out: np.ndarray) -> int:
    """A cell's version n tells that all its sales up to the (n - 1)-th are counted: the receipt was its first."""
    _, _, sku = message.key().partition(b"/SALE-")
    if not sku:
        return 0
    value = message.value()
    at = value.index(b'"version":') + 10
    cell, done = int(sku), int(value[at : value.index(b",", at)]) - 1
    first = cell + int(next_out[cell]) * SALE_CELLS
    fresh = slice(first, cell + done * SALE_CELLS, SALE_CELLS)
    count = len(range(*fresh.indices(len(seen_out))))
    seen_out[fresh] = now
    next_out[cell] = max(done, next_out[cell])
    return count


ROLES: dict[str, Callable[[dict[str, Any]], None]] = {"send": _send, "read": _read}

if __name__ == "__main__":
    if "--role" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--role", choices=ROLES)
        parser.add_argument("given", type=json.loads)
        asked = parser.parse_args()
        ROLES[asked.role](asked.given)
    else:
        harness.main(sys.modules[__name__])
