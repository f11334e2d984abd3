"""The limit: a well-set librdkafka loop that consumes orders and produces as many and as large records as a worker does.

It decides nothing, keeps nothing, commits nothing: no transactions, no state, no changelog. What it produces is ready made:
records that a worker wrote, again and again, so that they shrink as well as a worker's.
Its settings are the fastest found for this job; `fetch.queue.backoff.ms` alone, 1000 by default, is worth a factor of three.
"""

import argparse
import json
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

BATCH = 5_000  # records


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--orders", required=True, metavar="TOPIC")
    for output in ("allocations", "inventory"):
        parser.add_argument(
            f"--{output}", nargs=2, required=True, metavar=("TOPIC", "RECORDS"), help="a JSON file: [[key, value], ...]"
        )
    parser.add_argument("--inventory-share", type=float, required=True, help="inventory records an order")
    parser.add_argument("--compression", default="none", help="librdkafka compression.type")
    given = parser.parse_args()
    consumer = Consumer(
        {
            "bootstrap.servers": given.bootstrap_servers,
            "group.id": "bare-loop",  # never joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "fetch.queue.backoff.ms": 1,
            "fetch.max.bytes": 32 << 20,
            "max.partition.fetch.bytes": 8 << 20,
            "queued.min.messages": 200_000,
        }
    )
    consumer.assign([TopicPartition(given.orders, 0, 0)])
    producer = Producer(
        {
            "bootstrap.servers": given.bootstrap_servers,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": given.compression,
            "queue.buffering.max.messages": 200_000,
            "queue.buffering.max.kbytes": 1 << 20,
        }
    )
    allocations, inventory = _messages(*given.allocations), _messages(*given.inventory)
    due = 0.0
    while True:
        count = len(consumer.consume(BATCH, 0.1))
        due += count * given.inventory_share
        cells = int(due)
        due -= cells
        _produce(producer, *allocations, count)
        _produce(producer, *inventory, cells)
        producer.poll(0)


def _messages(topic: str, records: str) -> tuple[str, list[dict]]:
    made = [{"key": key.encode(), "value": value.encode()} for key, value in json.loads(Path(records).read_text())]
    return topic, (made * (2 * BATCH // len(made) + 1))[: 2 * BATCH]


def _produce(producer: Producer, topic: str, messages: list[dict], count: int) -> None:
    """Produce the first `count`; all are alike, so where the queue is full, any others will do later."""
    while count:
        count -= producer.produce_batch(topic, messages[:count], partition=0)
        if count:
            producer.poll(0.01)


if __name__ == "__main__":
    main()
