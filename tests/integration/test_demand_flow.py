"""Clicks on a real Kafka: each counts once in demand.v1, though the worker is killed in mid-stream."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from topics.keys import compound_key
from topics.outputs import DeadLetterRecord, Demand

FLAGS = {"session_timeout_ms": 2_000, "heartbeat_ms": 300, "batch_rows": 50, "click_partitions": 3, "partitions": 2}
WORKER = """
import json, logging, sys
from config.settings import load_settings
from streams.worker.app import run_worker
from streams.worker.groups import clicks_group
logging.basicConfig(level=logging.INFO)
settings = load_settings(**json.loads(sys.argv[1]))
sys.exit(run_worker(settings, [clicks_group(settings)]))
"""
ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
COUNTS = {"view": "views", "cart": "carts", "checkout": "checkouts"}


@pytest.fixture
def settings(make_settings):
    return make_settings(**FLAGS)


@pytest.fixture
def start_worker(settings, tmp_path):
    """A function that starts a worker of the clicks; what is left of them is ended."""
    processes = []
    flags = FLAGS | {name: getattr(settings, name) for name in ("bootstrap_servers", "app_id", "metrics_port")}

    def start():
        log = (tmp_path / f"worker-{len(processes)}.log").open("wb")
        command = [sys.executable, "-c", WORKER, json.dumps(flags)]
        processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def send(settings, count, first):
    """Append clicks, some of them twice, some bad; returns (pool, SKU, kind) → how often it must count, and the bad ones."""
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "partitioner": "murmur2_random"})
    expected, bad = Counter(), 0
    for i in range(first, first + count):
        kind, sku, pool = ("view", "view", "cart", "checkout", "search")[i % 5], f"SKU-{i % 11}", ("uk", "fr")[i % 2]
        click = {
            "event_id": f"e{i}",
            "event_time": 1_700_000_000_000,
            "visitor_id": f"v{i % 37}",
            "kind": kind,
            "channel": "web",
        }
        value = orjson.dumps(click | {"sku": sku, "pool_id": pool})
        for _ in range(2 if i % 7 == 0 else 1):
            producer.produce("clicks.v1", value, click["visitor_id"])
        if i % 13 == 0:
            producer.produce("clicks.v1", b"?", b"k")
            bad += 1
        if kind in COUNTS:
            expected[pool, sku, kind] += 1
    assert producer.flush(PATIENCE_S) == 0
    return expected, bad


def read(settings, topic):
    """All committed messages, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": "test-reader",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    partitions = len(consumer.list_topics(topic, PATIENCE_S).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found = []
    while partitions:
        message = consumer.poll(PATIENCE_S)
        assert message is not None
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF
            partitions -= 1
        else:
            found.append(message)
    consumer.close()
    return found


def counted(settings):
    """What demand.v1 adds up to: the sum of the partitions' last records."""
    shares = {}
    for message in read(settings, "demand.v1"):
        demand = Demand.model_validate_json(message.value())
        assert message.key().decode() == compound_key(demand.pool_id, demand.sku, str(demand.partition))
        assert message.partition() == demand.partition
        assert demand.version > (shares[message.key()].version if message.key() in shares else 0)
        shares[message.key()] = demand
    total = Counter()
    for demand in shares.values():
        for kind, name in COUNTS.items():
            total[demand.pool_id, demand.sku, kind] += getattr(demand, name)
    return +total


def await_equal(find, expected):
    deadline = time.monotonic() + PATIENCE_S
    while (found := find()) != expected:
        assert time.monotonic() < deadline, f"{found} is not {expected}"
        time.sleep(0.2)


def test_each_click_counts_once_though_the_worker_is_killed(settings, start_worker):
    expected, bad = send(settings, 3_000, first=0)
    worker = start_worker()
    await_equal(lambda: len(counted(settings)) > 10, True)
    worker.kill()
    worker.wait()
    more, more_bad = send(settings, 1_000, first=3_000)
    start_worker()
    await_equal(lambda: counted(settings), expected + more)
    letters = [DeadLetterRecord.model_validate_json(message.value()) for message in read(settings, "dead-letter.v1")]
    assert len({(letter.partition, letter.offset) for letter in letters}) == len(letters) == bad + more_bad
    assert {(letter.topic, letter.reason) for letter in letters} == {("clicks.v1", "not_json")}
