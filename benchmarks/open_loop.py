"""An open loop: events are sent at their planned times, however the worker fares, and readers note when each came back.

So a delay is not hidden by sending later: latency counts from the plan. Sender and readers are processes of their own, told by
name who makes the events and who knows which of them a record shows.
Owner: the processes of one `run`. Not here: which events (open_events.py), rates and figures (latency.py, soak.py).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from benchmarks.cluster import POOL, Bench
from benchmarks.stencil import Records
from streams.kafka.librdkafka import handle_of, produce_spans

DRAIN_S = 30.0  # after the last event's time that readers wait
READY_S = 120.0  # until the sender has made its events
TICK_S = 0.002  # the sender looks what is due so often; each millisecond, its requests alone are a sixth of the machine's load

Take = Callable[[int, int], Records]
"""(First number, number behind the last) → these events, or the first of them."""
Note = Callable[[Any, float, np.ndarray], int]
"""(Message, time, float64[count] to note it in) → how many more events have been seen."""


@dataclass(frozen=True)
class Flow:
    """Events of one kind; `maker` and `noter` are functions as `package.module:name`, called with `arguments`."""

    source: str
    """Topic they are sent to."""
    target: str
    """Topic in which can be seen what came of them."""
    maker: str
    """Called with `count` too; returns a `Take`."""
    noter: str
    """Called with `count` too; returns a `Note`."""
    committed: bool
    """Whether the reader reads what is committed, or all that is written."""
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Clock:
    """Lets the log's time run faster than the world's, by ticks with timestamps ahead; ticks.v1 must take its senders' time."""

    speed: float
    every_s: float


@dataclass(frozen=True)
class Seen:
    """When events were due, and when they were seen: float64[count], s; NaN for those that were not."""

    planned: np.ndarray
    at: dict[str, np.ndarray]

    def latency_ms(self, kind: str) -> np.ndarray:
        return (self.at[kind] - self.planned) * 1000

    @property
    def missing(self) -> int:
        return sum(int(np.isnan(at).sum()) for at in self.at.values())


def run(cluster: Bench, flows: dict[str, Flow], per_s: float, count: int, clock: Clock | None = None) -> Seen:
    """Send `count` events of each kind, `per_s` of each a second, and read what comes of them.

    Raises
    ------
    WrongAnswer
        A sender or reader ended badly: an event was seen twice, say.
    """
    began = cluster.directory / "began"  # the sender writes when it begins
    began.unlink(missing_ok=True)
    given = {"began": str(began), "per_s": per_s, "count": count, "bootstrap_servers": cluster.settings.bootstrap_servers}
    out = {kind: cluster.directory / f"{kind}.npy" for kind in flows}
    roles: list[tuple[str, str, dict[str, Any]]] = [
        ("send", "all", {"flows": {kind: asdict(flow) for kind, flow in flows.items()}, "clock": clock and asdict(clock)}),
        *(
            ("read", kind, {"kind": kind, "flow": asdict(flow), "start": cluster.end(flow.target), "out": str(out[kind])})
            for kind, flow in flows.items()
        ),
    ]
    with ExitStack() as stack:
        children = []
        for role, kind, more in roles:
            command = [sys.executable, "-m", "benchmarks.open_loop", "--role", role, json.dumps(given | more)]
            children.append(stack.enter_context(cluster.process(f"{role}-{kind}", command)))
        for child in children:
            child.finish(READY_S + count / per_s + 2 * DRAIN_S)
    planned = float(began.read_text()) + np.arange(count) / per_s
    return Seen(planned, {kind: np.load(path) for kind, path in out.items()})


# Sender and reader, each a process


def _send(given: dict[str, Any]) -> None:
    count, per_s, clock = given["count"], given["per_s"], given["clock"]
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
    flows = [Flow(**flow) for flow in given["flows"].values()]
    takes: list[Take] = [resolve_name(flow.maker)(count=count, **flow.arguments) for flow in flows]
    producer.list_topics(timeout=10)
    for take in takes:
        take(0, 1)
    began_ms, begin = time.time() * 1000, time.monotonic() + 0.5
    Path(given["began"]).write_text(repr(begin))
    sent, ticked = [0] * len(flows), begin
    while min(sent) < count:
        now = time.monotonic()
        due = min(count, int((now - begin) * per_s) + 1)
        for number, (flow, take) in enumerate(zip(flows, takes, strict=True)):
            while sent[number] < due:
                buffer, spans = take(sent[number], due)
                produce_spans(handle, flow.source, 0, buffer, spans)
                sent[number] += len(spans)
        if clock and now >= ticked:
            ticked += clock["every_s"]
            timestamp = int(began_ms + (now - begin) * 1000 * clock["speed"])
            value = json.dumps({"pool_id": POOL}).encode()
            producer.produce("ticks.v1", key=POOL.encode(), value=value, partition=0, timestamp=timestamp)
        producer.poll(0)
        time.sleep(TICK_S)
    sys.exit(1 if producer.flush(DRAIN_S) else 0)


def _read(given: dict[str, Any]) -> None:
    """Note when each event was seen, and write it as float64[count], NaN for those that were not."""
    count, flow = given["count"], Flow(**given["flow"])
    consumer = Consumer(
        {
            "bootstrap.servers": given["bootstrap_servers"],
            "group.id": f"open-loop-{given['kind']}",  # never joined
            "enable.auto.commit": False,
            "isolation.level": "read_committed" if flow.committed else "read_uncommitted",
            "fetch.queue.backoff.ms": 1,
            "fetch.wait.max.ms": 100,
            "queued.min.messages": 200_000,
        }
    )
    consumer.assign([TopicPartition(flow.target, 0, given["start"])])
    seen = np.full(count, np.nan)
    note: Note = resolve_name(flow.noter)(count=count, **flow.arguments)
    began, left = Path(given["began"]), count
    lasts_s, begin = count / given["per_s"] + DRAIN_S, float("inf")
    while left and time.monotonic() < begin + lasts_s:
        if begin == float("inf") and began.exists():
            with suppress(ValueError):  # being written
                begin = float(began.read_text())
        first = consumer.poll(0.5)
        if first is None:
            continue
        now = time.monotonic()
        for message in (first, *consumer.consume(20_000, 0)):
            error = message.error()
            if error is None:
                left -= note(message, now, seen)
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
    np.save(given["out"], seen)
    consumer.close()


ROLES: dict[str, Callable[[dict[str, Any]], None]] = {"send": _send, "read": _read}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--role", choices=ROLES)
    parser.add_argument("given", type=json.loads)
    asked = parser.parse_args()
    ROLES[asked.role](asked.given)
