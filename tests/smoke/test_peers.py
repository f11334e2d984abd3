"""The stream processors we stand beside do the job: every order decided once, as plain Python decides it, also after a restart.

Skipped where a peer can't be built: it takes Maven and a JDK, or a package index to install Quix Streams from.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import cos, radians, sin
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.fleet import NOT_YET
from benchmarks.harness import ROOT
from benchmarks.peers import PeerMissing, java, quix
from benchmarks.synthetic import Synthetic
from config.broker import Broker

WORK = Synthetic(orders=2_000, locations=50, skus=200, cells_per_sku=10, fill=0.9)
PATIENCE_S = 120
SESSION_MS = 6_000  # a peer that was killed is missed for so long


@dataclass(frozen=True)
class Job:
    """What a peer is told: where to read and write."""

    bootstrap_servers: str
    application_id: str
    network: Path
    state_directory: Path

    @property
    def topics(self) -> dict[str, str]:
        return {name: f"{self.application_id}-{name}" for name in ("stock", "orders", "allocations")}


def kafka_streams(store: str, directory: Path) -> Callable[[Job], tuple[list[str], dict[str, str]]]:
    try:
        prefix = java.build(directory)
    except PeerMissing as failure:
        pytest.skip(str(failure))

    def command(job: Job) -> tuple[list[str], dict[str, str]]:
        given = {
            "bootstrap-servers": job.bootstrap_servers,
            "application-id": job.application_id,
            "network": str(job.network),
            "state-directory": str(job.state_directory),
            "store": store,
            "set": f"consumer.session.timeout.ms={SESSION_MS}",
            **job.topics,
        }
        return [*prefix, *(part for name, value in given.items() for part in (f"--{name}", value))], {}

    return command


def quix_streams(directory: Path) -> Callable[[Job], tuple[list[str], dict[str, str]]]:
    try:
        python = quix.environment(directory)
    except PeerMissing as failure:
        pytest.skip(str(failure))

    def command(job: Job) -> tuple[list[str], dict[str, str]]:
        given = {
            "bootstrap_servers": job.bootstrap_servers,
            "application_id": job.application_id,
            "network": str(job.network),
            "state_directory": str(job.state_directory),
            "consumer": {"session.timeout.ms": SESSION_MS},
            **job.topics,
        }
        return [str(python), "-m", "benchmarks.peers.quix"], {"PEER": json.dumps(given)}

    return command


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(params=["kafka streams, memory", "kafka streams, rocksdb", "quix streams"])
def peer(request: pytest.FixtureRequest, builds: Path) -> Callable[[Job], tuple[list[str], dict[str, str]]]:
    _, _, store = request.param.partition(", ")
    return kafka_streams(store, builds / "java") if store else quix_streams(builds / "quix")


@pytest.fixture
def job(broker: Broker, tmp_path: Path) -> Job:
    """A job with empty topics of its own, and the workload's network."""
    name = f"peer-{time.time_ns()}"
    locations = [place.model_dump(mode="json", exclude_none=True) for place in WORK.network()]
    network = tmp_path / "network.json"
    network.write_text(json.dumps({"version": 1, "pools": [{"id": WORK.pool}], "locations": locations}))
    found = Job(broker.start(), name, network, tmp_path / "state")
    wanted = [NewTopic(topic, 1, 1, config={"message.timestamp.type": "LogAppendTime"}) for topic in found.topics.values()]
    admin = AdminClient({"bootstrap.servers": found.bootstrap_servers})
    for future in admin.create_topics(wanted).values():
        future.result()
    return found


def test_a_peer_decides_every_order_once_as_plain_python_does(peer, job):
    stock, orders = ([record.value for chunk in part for record in chunk] for part in (WORK.opening(), WORK.order_records()))
    append(job, "stock", stock)
    with running(peer, job) as process:
        await_committed(job, "stock", len(stock), process)
        append(job, "orders", orders[:500])
        await_committed(job, "orders", 500, process)
        process.kill()
    append(job, "orders", orders[500:])
    with running(peer, job) as process:
        await_committed(job, "orders", len(orders), process)
        process.terminate()
        process.wait(PATIENCE_S)
    found = list(read(job))
    assert [allocation["sequence"] for allocation in found] == list(range(1, len(orders) + 1))
    decided = [(each["order_id"], each["shipments"][0]["location_id"] if each["shipments"] else None) for each in found]
    expected = list(decide(stock, orders))
    assert decided == expected
    assert 0 < sum(location is None for _, location in expected) < len(orders)


def decide(stock: list[bytes], orders: list[bytes]) -> Iterator[tuple[str, str | None]]:
    """Order by order: its id, and the nearest location that has its units."""
    places = {place.id: unit_vector(place.latitude, place.longitude) for place in WORK.network()}
    units: dict[str, dict[str, int]] = {}
    for receipt in map(orjson.loads, stock):
        at = units.setdefault(receipt["sku"], {})
        at[receipt["location_id"]] = at.get(receipt["location_id"], 0) + receipt["quantity"]
    for order in map(orjson.loads, orders):
        (line,) = order["lines"]
        point = unit_vector(**order["destination"])
        cells = units.get(line["sku"], {})
        able = [location for location, have in cells.items() if have >= line["quantity"]]
        nearest = min(able, key=lambda at: (-sum(map(float.__mul__, places[at], point)), at), default=None)
        if nearest is not None:
            cells[nearest] -= line["quantity"]
        yield order["order_id"], nearest


def unit_vector(latitude: float, longitude: float) -> tuple[float, float, float]:
    north, east = radians(latitude), radians(longitude)
    return cos(north) * cos(east), cos(north) * sin(east), sin(north)


class running:
    """A peer's process; what is left of it at the end is killed."""

    def __init__(self, peer: Callable[[Job], tuple[list[str], dict[str, str]]], job: Job):
        self._command, self._environment = peer(job)
        self._log = job.network.with_name("peer.log")

    def __enter__(self) -> subprocess.Popen:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=os.environ | self._environment
            )
        return self._process

    def __exit__(self, kind, *_) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if kind is not None:
            print(self._log.read_text()[-5_000:], file=sys.stderr)


def append(job: Job, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": job.bootstrap_servers})
    for value in values:
        producer.produce(job.topics[topic], value, key=WORK.pool, partition=0)
    assert producer.flush(PATIENCE_S) == 0


def await_committed(job: Job, topic: str, offset: int, process: subprocess.Popen) -> None:
    consumer = Consumer({"bootstrap.servers": job.bootstrap_servers, "group.id": job.application_id})
    deadline = time.monotonic() + PATIENCE_S
    found = -1
    while found < offset:
        assert process.poll() is None and time.monotonic() < deadline, f"{topic}: {found} of {offset} after {PATIENCE_S} s"
        time.sleep(0.05)
        try:
            found = consumer.committed([TopicPartition(job.topics[topic], 0)], PATIENCE_S)[0].offset
        except KafkaException as failure:
            if failure.args[0].code() not in NOT_YET:
                raise
    consumer.close()


def read(job: Job) -> Iterator[dict]:
    """The committed allocations."""
    consumer = Consumer({"bootstrap.servers": job.bootstrap_servers, "group.id": "read", "enable.partition.eof": True})
    consumer.assign([TopicPartition(job.topics["allocations"], 0, 0)])
    while True:
        message = consumer.poll(PATIENCE_S)
        if message.error() is None:
            allocation = orjson.loads(message.value())
            assert message.key().decode() == allocation["order_id"]
            yield allocation
        elif message.error().code() == KafkaError._PARTITION_EOF:
            consumer.close()
            return
        else:
            raise KafkaException(message.error())
