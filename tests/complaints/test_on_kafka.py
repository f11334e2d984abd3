"""The complaints that are about concurrency, on a real Kafka: a second worker comes, and the first goes, in mid-stream."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from benchmarks.fleet import Sender, Workers, drain, running
from benchmarks.record import Record
from config.settings import Settings
from streams.audit import audit

POOLS = ("one", "two", "three", "four")
PATIENCE_S = 60
QUICK = {"session_timeout_ms": 3_000, "heartbeat_ms": 900, "partitions": 4}


@pytest.fixture
def shop(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator["Shop"]:
    network = tmp_path / "network.yaml"
    places = "".join(f"  - {{id: {pool}-A, pool: {pool}, kind: store, latitude: 51, longitude: 0}}\n" for pool in POOLS)
    network.write_text(f"version: 1\npools: [{', '.join(f'{{id: {pool}}}' for pool in POOLS)}]\nlocations:\n{places}")
    settings = make_settings(network=network, **QUICK)
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    with running(settings, first, 1) as old:
        await_that(old.ready, old)
        yield Shop(settings, old, lambda: running(settings, second, 1))


class Shop:
    """Four pools of one place each, a worker that runs, and one that may be started."""

    def __init__(self, settings: Settings, first: Workers, start_second: Callable):
        self.settings, self.first, self.start_second = settings, first, start_second
        self._sender = Sender(settings)
        self._told = 0

    def tell(self, topic: str, pool: str, **body) -> None:
        """Send an event, and now and then send it twice."""
        self._told += 1
        event = {"event_id": f"e{self._told}", "event_time": int(time.time() * 1000)} | body
        record = Record(topic, pool.encode(), json.dumps(event).encode(), "applied")
        self._sender.send([record] * (2 if self._told % 5 == 0 else 1), wait=False)

    def stock(self, pool: str, sku: str, units: int) -> None:
        self.tell("stock.v1", pool, kind="receipt", location_id=f"{pool}-A", sku=sku, quantity=units)

    def order(self, pool: str, order_id: str, sku: str) -> None:
        lines = [{"line_id": "l", "sku": sku, "quantity": 1}]
        self.tell(
            "orders.v1", pool, kind="placed", order_id=order_id, lines=lines, destination={"latitude": 51, "longitude": 0}
        )

    def told(self) -> None:
        self._sender.flush()

    def read(self, topic: str) -> list:
        """All of a topic that is committed, partition by partition."""
        config = {"bootstrap.servers": self.settings.bootstrap_servers, "group.id": "reader", "enable.partition.eof": True}
        consumer = Consumer(config | {"isolation.level": "read_committed"})
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(self.settings.partitions)])
        found, left = [], self.settings.partitions
        while left:
            message = consumer.poll(PATIENCE_S)
            assert message is not None
            if not message.error():
                found.append(message)
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF
                left -= 1
        consumer.close()
        return found

    def decisions(self) -> list[dict]:
        return [json.loads(message.value()) for message in self.read("allocations.v1")]


def await_that(condition: Callable[[], bool], *workers: Workers) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        for one in workers:
            one.check()
        assert time.monotonic() < deadline, [one.log_path.read_text()[-3_000:] for one in workers]
        time.sleep(0.1)


def test_of_many_orders_for_the_last_unit_one_is_promised_it_though_workers_come_and_go(shop: Shop):
    """Two orders at the same moment both get the last unit.

    https://github.com/magento/inventory/issues/2722
    https://github.com/vendurehq/vendure/issues/3508
    https://github.com/medusajs/medusa/issues/16569
    """
    skus, rivals = 40, 12

    def rush(part: int) -> None:
        """A third of the rivals for every last unit, in every pool."""
        for rival in range(part * rivals // 3, (part + 1) * rivals // 3):
            for sku in range(skus):
                for pool in POOLS:
                    shop.order(pool, f"{pool}-{sku}-{rival}", f"s{sku}")

    rush(0)  # before there is any stock: these wait, and the oldest is served first
    for sku in range(skus):
        for pool in POOLS:
            shop.stock(pool, f"s{sku}", 1)
    with shop.start_second() as second:
        rush(1)  # while the second worker joins, and takes over some of the pools
        shop.told()
        await_that(second.ready, shop.first, second)
        rush(2)
        shop.told()
        shop.first.kill(replace=False)  # and while the first one dies
        drain(shop.settings, second)
        second.stop()
    promised, decided = defaultdict(set), Counter()
    for decision in shop.decisions():
        source = decision["source"]
        decided[source["topic"], source["partition"], source["offset"], decision["order_id"]] += 1
        for shipment in decision["shipments"]:
            for line in shipment["lines"]:
                promised[decision["pool_id"], line["sku"]].add(decision["order_id"])
    assert len(promised) == skus * len(POOLS)
    assert {len(orders) for orders in promised.values()} == {1}
    assert set(decided.values()) == {1}, "no decision twice"
    placed = {order_id for topic, _, _, order_id in decided if topic == "orders.v1"}
    assert len(placed) == skus * len(POOLS) * rivals, "every order was decided"
    report = audit(shop.settings, complete=True)
    assert report.clean, report.faults[:5]
    assert (report.units_on_hand, report.units_reserved) == (skus * len(POOLS), skus * len(POOLS))
    assert report.outcomes["duplicate"] > 0


def test_every_change_is_told_once_with_a_greater_version_though_the_worker_is_killed(shop: Shop):
    """Stock events are not sent for what orders do to the stock.

    https://github.com/saleor/saleor/issues/19449
    """
    for number in range(200):
        for pool in POOLS:
            shop.stock(pool, f"s{number % 10}", 2)
            shop.order(pool, f"{pool}-{number}", f"s{number % 10}")
        if number == 100:
            shop.told()
            shop.first.kill(replace=True)
    shop.told()
    drain(shop.settings, shop.first)
    shop.first.stop()
    versions: dict[bytes, int] = {}
    last: dict[bytes, dict] = {}
    for message in shop.read("inventory.v1"):
        cell = last[message.key()] = json.loads(message.value())
        assert cell["version"] > versions.get(message.key(), 0)
        versions[message.key()] = cell["version"]
    assert len(last) == 10 * len(POOLS)
    # 20 receipts of 2 and 20 orders of 1, each one change.
    assert {(cell["on_hand"], cell["reserved"], cell["version"]) for cell in last.values()} == {(40, 20, 40)}
    report = audit(shop.settings, complete=True)
    assert report.clean, report.faults[:5]
    assert report.outcomes["duplicate"] > 0
