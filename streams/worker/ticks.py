"""Ticks: the owner of a quiet pool appends records to the pool's own log, so that time passes there.

A tick is a record of `ticks.v1`, stamped by the broker. It takes effect when it is read back, like any event, so a replay sees
the same time. A tick of a worker that has lost its partition is an event like any other and does no harm.
Not here: when a tick is due (flow.py), which pools need one and what it does (the pipeline).
"""

import json
import logging
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from streams.kafka.clients import client_config
from streams.kafka.names import Producer
from topics.catalogue import TICKS

log = logging.getLogger("nearshelf.ticks")


class TickWriter:
    """Appends ticks, for all partitions a worker owns; any thread may call it."""

    def __init__(self, settings: Any):
        self._failing = False
        self._producer = Producer(
            client_config(
                settings,
                enable_idempotence=True,
                linger_ms=0,
                # A late tick is worth nothing: the next one replaces it.
                message_timeout_ms=max(1_000, 4 * settings.tick_ms),
            )
        )

    def write(self, pools: Iterable[bytes], partition: int) -> None:
        """Append a tick for each pool to its partition, without waiting; one that can't be written is left out."""
        for pool in pools:
            value = json.dumps({"pool_id": pool.decode()}, ensure_ascii=False, separators=(",", ":")).encode()
            try:
                self._producer.produce(TICKS, key=pool, value=value, partition=partition, on_delivery=self._report)
            except (BufferError, KafkaException) as failure:
                self._report(failure, None)
        self._producer.poll(0)

    def close(self) -> None:
        self._producer.flush(1)

    def _report(self, error: KafkaError | Exception | None, _: Any) -> None:
        """Log the first of the ticks that are not written, not each."""
        if error is not None and not self._failing:
            log.warning("ticks can't be written: %s", error)
        self._failing = error is not None
