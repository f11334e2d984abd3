"""Records that are small on the wire and large unpacked: a broker limits what it takes compressed, so any may come."""

import json
import time
from pathlib import Path

from confluent_kafka import Producer

from benchmarks.fleet import drain, running
from streams.audit import audit

NETWORK = """
version: 1
pools: [{id: uk}]
locations:
  - {id: A, pool: uk, kind: store, latitude: 51, longitude: 0}
"""
WAIT_S = 120


def receipt(number: int, **more) -> bytes:
    event = {
        "event_id": f"e{number}",
        "event_time": 1_700_000_000_000 + number,
        "kind": "receipt",
        "location_id": "A",
        "sku": "s",
        "quantity": 1,
    }
    return json.dumps(event | more).encode()


def test_a_record_of_any_size_is_a_dead_letter_and_the_worker_goes_on(make_settings, tmp_path: Path):
    network = tmp_path / "network.yaml"
    network.write_text(NETWORK)
    settings = make_settings(network=network, partitions=1)
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "partitioner": "murmur2_random",
            "compression.type": "gzip",
            "message.max.bytes": 100_000_000,
        }
    )
    with running(settings, tmp_path, 1) as workers:
        deadline = time.monotonic() + WAIT_S
        while not workers.ready():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for number, size in enumerate((3_000_000, 5_000_000, 7_000_000, 20_000_000)):
            producer.produce("stock.v1", receipt(number, note="x" * size), b"uk")
        producer.produce("stock.v1", receipt(10), b"k" * 20_000_000)
        producer.produce("stock.v1", receipt(11), b"uk", headers=[("traceparent", b"t" * 9_000_000)])
        producer.produce("locations.v1", b'{"id":"' + b"x" * 20_000_000 + b'"}', b"A")
        producer.produce("stock.v1", receipt(12), b"uk")
        assert producer.flush(WAIT_S) == 0
        drain(settings, workers)
        workers.stop()
    report = audit(settings, complete=True)
    assert report.clean, report.faults[:5]
    assert report.dead_letters["too_large"] == 4  # three values of stock.v1, one of locations.v1
    assert report.units_on_hand == 3
