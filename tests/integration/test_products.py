"""products.v1 on a real Kafka: kits are in force without a restart, what is no good is named, and a restart forgets nothing."""

import time

import pytest

from benchmarks.fleet import drain, running
from config.settings import Settings
from state import changelog
from streams.audit import audit
from streams.kafka.reading import LogReader
from tests.integration.test_publish_tail import json_lines, nearshelf, records, sale

NETWORK = """
version: 1
pools: [{id: uk, max_distance_km: 300}]
locations:
  - {id: A, pool: uk, kind: store, latitude: 51, longitude: 0}
"""


def publish(settings, *products):
    done = nearshelf(settings, "publish", "products.v1", lines=json_lines(*products))
    assert done.returncode == 0, done.stderr


def kit(sku, *parts):
    return {"sku": sku, "kit": [{"sku": part, "quantity": quantity} for part, quantity in parts]}


def applied(settings: Settings) -> list[tuple[str, bool]]:
    """The products that the changelog says were applied: key, and whether it is a kit then."""
    with LogReader(settings) as reader:
        parts: dict[bytes, bytes] = {}
        for message in reader.read("inventory-changelog.v1", {0: 0}):
            number = dict(message.headers()).get("batch")
            if number:
                parts[number] = parts.get(number, b"") + message.value()
    manifests = [changelog.manifest_of(record)[0] for record in parts.values()]
    return [(each["key"], bool(each["value"] and each["value"]["kit"])) for found in manifests for each in found["products"]]


def wait_for(settings: Settings, expected: list[tuple[str, bool]]) -> None:
    deadline = time.monotonic() + 60
    while applied(settings) != expected:
        assert time.monotonic() < deadline, applied(settings)
        time.sleep(0.2)


@pytest.fixture
def shop(make_settings, tmp_path):
    network = tmp_path / "network.yaml"
    network.write_text(NETWORK)
    return make_settings(network=network, partitions=1)


def test_kits_come_change_and_end_with_and_without_a_worker(shop, tmp_path):
    publish(shop, kit("BOX", ("CUP", 2)), kit("SET", ("PEN", 1)), {"sku": "CUP", "name": "only described"})
    with running(shop, tmp_path, 1) as workers:
        first = [("BOX", True), ("SET", True)]
        wait_for(shop, first)
        publish(shop, kit("CRATE", ("BOX", 4)), kit("SET", ("PEN", 2)))
        (letter,) = records(shop, "dead-letter.v1", 1)
        assert letter["value"]["topic"] == "products.v1"
        assert "expected a SKU that is no kit, found 'BOX'" in letter["value"]["detail"]
        second = [*first, ("CRATE", True), ("SET", True)]
        wait_for(shop, second)
        workers.check()
    publish(shop, {"sku": "BOX", "name": "no kit any more"}, kit("CRATE", ("BOX", 4)))
    with running(shop, tmp_path, 1) as workers:
        wait_for(shop, [*second, ("BOX", False), ("CRATE", True)])
        assert nearshelf(shop, "publish", "sales.v1", lines=json_lines(sale(1, "A"))).returncode == 0
        drain(shop, workers)
    report = audit(shop, complete=True)
    assert not report.faults
    assert report.dead_letters == {"wrong_field": 1}
