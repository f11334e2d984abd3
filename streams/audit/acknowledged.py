"""Faults that somebody has looked at: kept on `acknowledgements.v1`, by the place of the record that shows them.

An acknowledged fault is named and not counted. A fault behind which the audit can judge nothing can't be acknowledged away.
Invariant: an acknowledgement is of one topic as it was created; of a topic created anew under the name it says nothing.
Owner: the audit's command. Not here: how a report uses them (report.py).
"""

import re
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from config.settings import Settings
from streams.kafka.clients import MissingTopics, client_config, connect
from streams.kafka.names import Producer
from streams.kafka.reading import LogReader
from topics.catalogue import ACKNOWLEDGEMENTS
from topics.errors import WrongUse
from topics.keys import compound_key
from topics.outputs import Acknowledgement

Place = tuple[str, int, int]
"""Topic, partition and offset of a record."""
_PLACE = re.compile(r"(?P<topic>[^\[\]@]+)(\[(?P<partition>\d+)\])?@(?P<offset>\d+)")


class WrongPlace(WrongUse):
    """A record was named that is not there; the message says what was expected."""


def place_of(text: str) -> tuple[str, int | None, int]:
    """Read a place as faults show it; without a partition it is None.

    Raises
    ------
    WrongPlace
        It is none.

    Examples
    --------
    >>> place_of("allocations.v1[0]@12"), place_of("allocations.v1@12")
    (('allocations.v1', 0, 12), ('allocations.v1', None, 12))
    """
    found = _PLACE.fullmatch(text.strip())
    if found is None:
        raise WrongPlace(f"expected TOPIC[PARTITION]@OFFSET, as the audit names a fault's place, found {text}")
    partition = found["partition"]
    return found["topic"], None if partition is None else int(partition), int(found["offset"])


def read_acknowledgements(settings: Settings) -> dict[Place, Acknowledgement]:
    """Read what is acknowledged on a cluster; nothing if the topic is not there.

    Raises
    ------
    BrokerUnreachable, KafkaException
        It can't be read.
    """
    admin = connect(settings)
    found = admin.list_topics(timeout=settings.request_timeout_ms / 1000).topics
    if ACKNOWLEDGEMENTS not in found:
        return {}
    latest: dict[bytes, Acknowledgement | None] = {}
    with LogReader(settings, f"{settings.group_id}-audit", log_level=0) as reader:
        for message in reader.read(ACKNOWLEDGEMENTS, dict.fromkeys(found[ACKNOWLEDGEMENTS].partitions, 0)):
            latest[message.key() or b""] = _read(message.value())
    given = [each for each in latest.values() if each is not None]
    ids = _topic_ids(settings, admin, {each.topic for each in given} & found.keys())
    return {(each.topic, each.partition, each.offset): each for each in given if ids.get(each.topic) == each.topic_id}


def acknowledge(settings: Settings, texts: Iterable[str], by: str, reason: str) -> list[Acknowledgement]:
    """Acknowledge the faults at some places.

    Raises
    ------
    WrongPlace
        A place is none, or has no record; nothing is acknowledged.
    MissingTopics, BrokerUnreachable, KafkaException
        They can't be written.
    """
    admin, places = connect(settings), _checked(settings, texts)
    ids = _topic_ids(settings, admin, {topic for topic, _, _ in places})
    now_ms = int(time.time() * 1000)
    given = [
        Acknowledgement(
            topic=topic,
            partition=partition,
            offset=offset,
            topic_id=ids[topic],
            acknowledged_at=now_ms,
            acknowledged_by=by,
            reason=reason,
        )
        for topic, partition, offset in places
    ]
    _write(settings, [((each.topic, each.partition, each.offset), each.model_dump_json()) for each in given])
    return given


def withdraw(settings: Settings, texts: Iterable[str]) -> list[Place]:
    """Take acknowledgements back: the faults count again. Raises as `acknowledge` does."""
    places = _checked(settings, texts)
    _write(settings, [(place, None) for place in places])
    return places


def _checked(settings: Settings, texts: Iterable[str]) -> list[Place]:
    """Read places, and check that each has a record, or had one."""
    found = connect(settings).list_topics(timeout=settings.request_timeout_ms / 1000).topics
    if ACKNOWLEDGEMENTS not in found:
        raise MissingTopics([ACKNOWLEDGEMENTS], settings)
    places = []
    with LogReader(settings, f"{settings.group_id}-audit", log_level=0) as reader:
        for text in texts:
            topic, partition, offset = place_of(text)
            if topic not in found:
                raise WrongPlace(f"expected a topic of the cluster, found {topic} in {text}")
            partitions = sorted(found[topic].partitions)
            if partition is None and len(partitions) == 1:
                partition = partitions[0]
            if partition is None or partition not in partitions:
                raise WrongPlace(f"expected a partition of {topic}, 0 to {partitions[-1]}, found {text}")
            _, end = reader.range(topic, partition)
            if offset >= end:
                raise WrongPlace(f"expected an offset before {end}, the end of {topic}[{partition}], found {text}")
            places.append((topic, partition, offset))
    return places


def _topic_ids(settings: Settings, admin: Any, topics: Iterable[str]) -> dict[str, str]:
    """Give the id that the cluster gave each topic when it was created."""
    names = sorted(topics)
    if not names:  # the client refuses to ask for nothing
        return {}
    timeout_s = settings.request_timeout_ms / 1000
    futures = admin.describe_topics(TopicCollection(names), request_timeout=timeout_s)
    return {name: str(future.result(timeout_s).topic_id) for name, future in futures.items()}


def _write(settings: Settings, records: Iterable[tuple[Place, str | None]]) -> None:
    errors: list[KafkaError] = []
    timeout_ms = settings.request_timeout_ms
    own = {"enable_idempotence": True, "partitioner": "murmur2_random", "message_timeout_ms": timeout_ms, "log_level": 0}
    producer = Producer(client_config(settings, **own))
    for (topic, partition, offset), value in records:
        key = compound_key(topic, str(partition), str(offset))
        producer.produce(ACKNOWLEDGEMENTS, value, key, on_delivery=lambda error, _: errors.extend([error] if error else []))
    producer.flush(timeout_ms / 1000 + 1)
    if errors:
        raise KafkaException(errors[0])


def _read(value: bytes | None) -> Acknowledgement | None:
    try:
        return None if value is None else Acknowledgement.model_validate_json(value)
    except ValueError:
        return None
