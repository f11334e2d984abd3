"""Writes faults to `alerts.v1`, as they are found.

Owner: the audit's command. Not here: what a fault is (report.py), the record's form (topics/outputs.py).
"""

import time
from hashlib import sha256

from confluent_kafka import KafkaException, Producer

from config.settings import Settings
from streams.audit.report import Fault
from streams.kafka.clients import client_config
from topics.catalogue import ALERTS
from topics.keys import compound_key
from topics.outputs import AuditAlert

WARNINGS = ("transaction", "retention")
"""Kinds of faults that keep the audit, or readers, from seeing something, and break no promise by themselves."""


class Alerts:
    """The producer of alerts.

    Raises
    ------
    confluent_kafka.KafkaException
        From `flush`: an alert could not be written.
    """

    def __init__(self, settings: Settings):
        self._timeout_s = settings.request_timeout_ms / 1000
        self._failure: KafkaException | None = None
        own = {"enable_idempotence": True, "partitioner": "murmur2_random", "log_level": 0}
        self._producer = Producer(client_config(settings, message_timeout_ms=settings.request_timeout_ms, **own))

    def tell(self, fault: Fault) -> None:
        """Write one fault."""
        alert = alert_of(fault, int(time.time() * 1000))
        while True:
            try:
                key = compound_key("audit", fault.topic, str(fault.partition))
                self._producer.produce(ALERTS, alert.model_dump_json(), key, on_delivery=self._delivered)
                self._producer.poll(0)
                return
            except BufferError:  # the queue is full
                self._producer.poll(0.1)

    def flush(self) -> None:
        """Return when all that was told is written."""
        self._producer.flush(self._timeout_s)
        if self._failure:
            raise self._failure

    def _delivered(self, error: object, message: object) -> None:
        if error is not None:
            self._failure = KafkaException(error)


def alert_of(fault: Fault, now_ms: int) -> AuditAlert:
    """Make the record of a fault; its id is the same whenever the same is found."""
    place = (fault.kind, fault.topic, fault.partition, fault.offset, fault.expected)
    return AuditAlert(
        kind="audit",
        alert_id=sha256(repr(place).encode()).hexdigest()[:32],
        severity="warning" if fault.kind in WARNINGS else "critical",
        fault=fault.kind,
        topic=fault.topic,
        partition=fault.partition,
        offset=fault.offset,
        expected=fault.expected,
        found=fault.found,
        raised_at=now_ms,
    )
