"""Odd records of every sort on a real Kafka, between a shop's events: the worker goes on, and the audit finds all in order."""

import json
import random
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import Producer

from benchmarks.fleet import drain, running
from streams.audit import audit
from tests.fuzz import inputs
from tests.fuzz.worker import HEADERS, KEYS
from tests.property import test_codec_parity as parity
from topics.catalogue import INVENTORY_TOPICS
from topics.events import Refusal, judge

NETWORK = """
version: 1
pools: [{id: uk}]
locations:
  - {id: A, pool: uk, kind: store, latitude: 51, longitude: 0}
  - {id: B, pool: uk, kind: warehouse, latitude: 52, longitude: 0}
"""
ODD, GOOD, WAIT_S = 6_000, 300, 120


def test_a_worker_takes_all_that_odd_senders_send_and_no_good_event_is_lost(make_settings, tmp_path: Path):
    network = tmp_path / "network.yaml"
    network.write_text(NETWORK)
    settings = make_settings(network=network, partitions=3)
    rng = random.Random(7)
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "partitioner": "murmur2_random", "linger.ms": 2})
    refused = Counter()

    def odd() -> None:
        topic = rng.choice(parity.TOPICS)
        value = None if rng.random() < 0.01 else inputs.odd(rng, topic)
        partition = rng.choice([-1, rng.randrange(settings.partitions)])
        producer.produce(topic, value, rng.choice(KEYS), partition, headers=list(rng.choice(HEADERS)))
        refused[topic] += isinstance(judge(topic, value), Refusal)
        producer.poll(0)

    with running(settings, tmp_path, 1) as workers:
        deadline = time.monotonic() + WAIT_S
        while not workers.ready():
            workers.check()
            assert time.monotonic() < deadline, workers.log_path.read_text()
            time.sleep(0.1)
        for value in (b"NaN", b'{"id":1e400}', b"[" * 300 + b"]" * 300, b"[" * 100_000, b"\xff", b'{"id":"A"}', b'"\\ud800"'):
            producer.produce("locations.v1", value, rng.choice([b"A", b"B", b"nowhere", None]))
        for number in range(GOOD):
            for _ in range(ODD // GOOD):
                odd()
            for topic, event in shop(number):
                producer.produce(topic, json.dumps(event), b"uk")
        assert producer.flush(WAIT_S) == 0
        drain(settings, workers)
        workers.stop()
    report = audit(settings, complete=True)
    assert report.clean, report.faults[:5]
    letters = report.outcomes["dead_letter"]
    assert letters >= sum(refused[topic] for topic in INVENTORY_TOPICS)
    decided = Counter(report.decisions)
    assert decided["allocated"] >= GOOD, "each good order was promised at once"


def shop(number: int) -> list[tuple[str, dict]]:
    """Two units in, one of them ordered."""
    base = {"event_time": int(time.time() * 1000)}
    stock = {"event_id": f"good-{number}-in", "kind": "receipt", "location_id": "A", "sku": "s", "quantity": 2}
    order = {"event_id": f"good-{number}-out", "kind": "placed", "order_id": f"good-{number}"}
    order |= {"lines": [{"line_id": "l", "sku": "s", "quantity": 1}], "destination": {"latitude": 51, "longitude": 0}}
    return [("stock.v1", base | stock), ("orders.v1", base | order)]
