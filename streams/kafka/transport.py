"""Faust's Kafka transport: the worker's membership in the consumer group, and nothing else.

Registered as the scheme `nearshelf://` (entry point `faust.transports`). Faust and aiokafka keep the membership and its
heartbeats. What they would fetch is fetched past them (fetching.py); what they would commit, the flows commit.

Not here: what becomes of an assignment (worker/flows.py). This and app.py are all that know of Faust's driver.
"""

import asyncio
import logging

from aiokafka.errors import KafkaConnectionError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

log = logging.getLogger("nearshelf.transport")

RETRY_S = 1.0
IDLE_S = 1.0
"""How often Faust's and aiokafka's own loops look for work that there is none of."""


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread in which aiokafka runs; everything here is called in it."""

    logger = logging.getLogger("faust.transport")

    async def on_start(self) -> None:
        """Start aiokafka's consumer, as soon as a broker answers: it gives up at the first attempt."""
        while True:
            try:
                await super().on_start()
                # Its fetcher is asked for nothing (fetching.py): no requests, no positions to look up.
                self._consumer._fetcher._get_actions_per_node = lambda _: ([], {}, IDLE_S, False, [])
                return
            except KafkaConnectionError as error:
                log.warning("no broker answers, trying again: %s", error)
                await self._consumer.stop()
                await asyncio.sleep(RETRY_S)


class Consumer(driver.Consumer):
    """Faust's consumer; everything here is called on Faust's event loop."""

    logger = logging.getLogger("faust.transport")

    _thread: ConsumerThread

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _wait_next_records(self, timeout: float) -> tuple[dict, set]:
        await self.sleep(IDLE_S)
        return {}, set()

    def owned(self) -> set[TP]:
        """Give the partitions that are assigned, by the contract's names of topics."""
        prefix = self.app.settings.topic_prefix
        return {TP(tp.topic.removeprefix(prefix), tp.partition) for tp in self.assignment()}

    async def perform_seek(self) -> None:
        """Nothing: the flows say where to fetch from, once they are ready."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: the driver judges by Faust's acks and commits, of which there are none."""


class Transport(driver.Transport):
    """`nearshelf://host:port`."""

    Consumer = Consumer
    driver_version = f"nearshelf on {driver.Transport.driver_version}"
