"""Every topic: its key, its models, how many partitions it has, how long it keeps what, and how it is created.

Owner: the public contract. Inventory topics share one partition count, since a pool's events, decisions, cells and changelog
all lie in the partition of the pool's id; the topics of clicks share another. Inputs carry the log's own time, so that no
sender's clock moves a pool's. Changelogs are the state itself and are kept without limit.
Invariants: an existing topic is never altered; one that would give wrong results is refused.
Not here: what the fields mean (events.py), which record goes where (the flow).
"""

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from topics import alerts, events

HOUR_MS = 3_600_000
REQUEST_TIMEOUT_S = 30
# A refused record goes to the dead letters whole, in base64, and a decision may name 1000 lines.
LARGE_RECORD = {"max.message.bytes": str(8 << 20)}
LOG_TIME = {"message.timestamp.type": "LogAppendTime"}
# A difference in these would give wrong results, in others it is the operator's choice.
DECISIVE = ("message.timestamp.type", "cleanup.policy")


class TopicSettings(Protocol):
    """What `create_topics` needs of the settings."""

    partitions: int
    click_partitions: int
    replication_factor: int
    input_retention_hours: int
    output_retention_hours: int


class Partitions(Enum):
    """Which partition count a topic has."""

    INVENTORY = "inventory"
    CLICKS = "clicks"
    LARGER = "the larger of both"  # records of either kind lie in their input's partition
    ANY = "any"  # one when created by us


class Keep(Enum):
    """How long a topic keeps its records."""

    INPUT = "input"
    OUTPUT = "output"
    LATEST = "latest by key"
    FOREVER = "forever"


class TopicMismatch(Exception):
    """An existing topic differs from the catalogue in what results depend on; the message says in what."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `models` are the values' models, empty where the value is not JSON; `key` says what the key is."""

    name: str
    key: str
    models: tuple[type[events.Record], ...]
    partitions: Partitions
    keep: Keep
    settings: dict[str, str] = field(default_factory=dict)

    def partition_count(self, settings: TopicSettings) -> int:
        """Return how many partitions the topic is created with."""
        counts = {
            Partitions.INVENTORY: settings.partitions,
            Partitions.CLICKS: settings.click_partitions,
            Partitions.LARGER: max(settings.partitions, settings.click_partitions),
            Partitions.ANY: 1,
        }
        return counts[self.partitions]

    def config(self, settings: TopicSettings) -> dict[str, str]:
        """Return the topic's configuration as Kafka takes it."""
        retention_ms = {
            Keep.INPUT: settings.input_retention_hours * HOUR_MS,
            Keep.OUTPUT: settings.output_retention_hours * HOUR_MS,
            Keep.FOREVER: -1,
        }
        if self.keep is Keep.LATEST:
            return {"cleanup.policy": "compact", **self.settings}
        return {"cleanup.policy": "delete", "retention.ms": str(retention_ms[self.keep]), **self.settings}


def _input(name: str, key: str, partitions: Partitions, keep: Keep = Keep.INPUT) -> Topic:
    return Topic(name, key, events.MODELS[name], partitions, keep, LOG_TIME)


_CATALOGUE = (
    _input("sales.v1", "pool id", Partitions.INVENTORY),
    _input("stock.v1", "pool id", Partitions.INVENTORY),
    _input("orders.v1", "pool id", Partitions.INVENTORY),
    _input("fulfilments.v1", "pool id", Partitions.INVENTORY),
    _input("ticks.v1", "pool id", Partitions.INVENTORY),
    _input("clicks.v1", "visitor id", Partitions.CLICKS),
    _input("locations.v1", "location id", Partitions.ANY, Keep.LATEST),
    Topic("inventory.v1", "location id/SKU", (events.Inventory,), Partitions.INVENTORY, Keep.LATEST),
    Topic("allocations.v1", "order id", (events.Allocation,), Partitions.INVENTORY, Keep.OUTPUT, LARGE_RECORD),
    Topic("demand.v1", "pool id/SKU/partition", (events.Demand,), Partitions.CLICKS, Keep.OUTPUT),
    Topic(
        "dead-letter.v1",
        "the refused record's",
        (events.DeadLetterRecord,),
        Partitions.LARGER,
        Keep.OUTPUT,
        LARGE_RECORD,
    ),
    Topic("alerts.v1", "what it is about", (alerts.AuditAlert,), Partitions.ANY, Keep.OUTPUT),
    Topic("inventory-changelog.v1", "batch", (), Partitions.INVENTORY, Keep.FOREVER, LARGE_RECORD),
    Topic("clicks-changelog.v1", "batch", (), Partitions.CLICKS, Keep.FOREVER, LARGE_RECORD),
)
CATALOGUE: dict[str, Topic] = {topic.name: topic for topic in _CATALOGUE}


def create_topics(admin: AdminClient, settings: TopicSettings) -> list[str]:
    """Create the topics that are missing, and check those that are there.

    Parameters
    ----------
    admin : AdminClient
        Connected to the cluster.
    settings : TopicSettings
        Partition counts, copies and retention of new topics.

    Returns
    -------
    list of str
        The names of the topics that were created; empty when all were there.

    Raises
    ------
    TopicMismatch
        An existing topic has another partition count, timestamp type or cleanup policy, or a changelog forgets.
    KafkaException
        The cluster cannot be reached or refuses.
    """
    existing = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    _check([topic for topic in _CATALOGUE if topic.name in existing], existing, admin, settings)
    missing = [topic for topic in _CATALOGUE if topic.name not in existing]
    if not missing:
        return []
    created, raced = [], []
    for topic, future in zip(missing, _request(admin, missing, settings), strict=True):
        try:
            future.result()
            created.append(topic.name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            raced.append(topic)  # another process creates them too
    _await_leaders(admin, [topic.name for topic in missing])
    _check(raced, admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics, admin, settings)
    return created


def topic_config(admin: AdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """Return each existing topic's configuration in force, by topic and key."""
    if not names:  # the client refuses to ask for nothing
        return {}
    futures = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names])
    return {
        resource.name: {key: entry.value for key, entry in future.result(REQUEST_TIMEOUT_S).items()}
        for resource, future in futures.items()
    }


def _request(admin: AdminClient, topics: list[Topic], settings: TopicSettings) -> list[Any]:
    wanted = [
        NewTopic(
            topic.name,
            num_partitions=topic.partition_count(settings),
            replication_factor=settings.replication_factor,
            config=topic.config(settings),
        )
        for topic in topics
    ]
    futures = admin.create_topics(wanted, operation_timeout=REQUEST_TIMEOUT_S)
    return [futures[topic.name] for topic in topics]


def _await_leaders(admin: AdminClient, names: list[str]) -> None:
    """Return when the brokers know the topics: the controller, which has created them, is some 100 ms ahead of them."""
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while True:
        found = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        late = [name for name in names if name not in found or not _has_leaders(found[name])]
        if not late:
            return
        if time.monotonic() > deadline:
            text = f"topics created, but without a leader after {REQUEST_TIMEOUT_S} s: {', '.join(late)}"
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, text))
        time.sleep(0.02)


def _has_leaders(topic: Any) -> bool:
    return bool(topic.partitions) and all(partition.leader >= 0 for partition in topic.partitions.values())


def _check(topics: list[Topic], existing: dict[str, Any], admin: AdminClient, settings: TopicSettings) -> None:
    found_configs = topic_config(admin, [topic.name for topic in topics])
    faults = [
        fault
        for topic in topics
        for fault in _faults(topic, len(existing[topic.name].partitions), found_configs[topic.name], settings)
    ]
    if faults:
        raise TopicMismatch(
            "existing topics differ from what results depend on:\n  "
            + "\n  ".join(faults)
            + "\nPartition counts: set NEARSHELF_PARTITIONS (inventory) and NEARSHELF_CLICK_PARTITIONS (clicks) to what the "
            "cluster has. Configuration: alter the topics (kafka-configs.sh --alter). Or delete the topics, their history "
            "with them, and create them anew."
        )


def _faults(topic: Topic, found_count: int, found: dict[str, str], settings: TopicSettings) -> list[str]:
    faults = []
    expected_count = topic.partition_count(settings)
    if topic.partitions is not Partitions.ANY and found_count != expected_count:
        faults.append(f"{topic.name}: expected {expected_count} partitions ({topic.partitions.value}), found {found_count}")
    expected = topic.config(settings)
    decisive = (*DECISIVE, "retention.ms") if topic.keep is Keep.FOREVER else DECISIVE
    faults += [
        f"{topic.name}: expected {name}={expected[name]}, found {found[name]}"
        for name in decisive
        if name in expected and found[name] != expected[name]
    ]
    return faults
