"""Writes faults to `alerts.v1`, as they are found: each once, however often an audit finds it, while the topic keeps it.

Owner: the audit's command. Not here: what a fault is (report.py), the record's form (topics/outputs.py).
"""

import time
from contextlib import suppress
from hashlib import sha256

from confluent_kafka import KafkaException
from pydantic import ValidationError

from config.settings import Settings
from streams.audit.report import Fault
from streams.kafka.clients import client_config, partitions_of
from streams.kafka.names import Producer
from streams.kafka.reading import LogReader
from topics.catalogue import ALERTS
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
        self._told = told_before(settings)

    def tell(self, fault: Fault) -> bool:
        """Write one fault, unless it was written before; tells whether it was new."""
        alert = alert_of(fault, int(time.time() * 1000))
        if alert.alert_id in self._told:
            return False
        self._told.add(alert.alert_id)
        while True:
            try:
                self._producer.produce(ALERTS, alert.model_dump_json(), alert.alert_id, on_delivery=self._delivered)
                self._producer.poll(0)
                return True
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


def told_before(settings: Settings) -> set[str]:
    """Give the ids of the audit's alerts that `alerts.v1` has.

    Raises
    ------
    BrokerUnreachable, MissingTopics, KafkaException
        They can't be read.
    """
    found = set()
    with LogReader(settings, f"{settings.group_id}-audit", log_level=0) as reader:
        for message in reader.read(ALERTS, dict.fromkeys(partitions_of(ALERTS, settings), 0)):
            if b"audit" in (message.value() or b""):
                with suppress(ValidationError):  # a worker's own alert
                    found.add(AuditAlert.model_validate_json(message.value()).alert_id)
    return found


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
