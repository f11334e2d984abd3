"""Creating the catalogue's topics on a cluster, and checking those that are there.

Owner: `nearshelf topics create`, the demo, the benchmarks and the tests.
Invariants: an existing topic is never altered; one that would give wrong results is refused; one that only takes smaller
records is named.
Not here: what topics there are, and their configuration (topics/catalogue.py).
"""

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from streams.kafka.names import on_cluster
from topics.catalogue import CATALOGUE, Keep, Partitions, Role, Topic, TopicSettings
from topics.errors import AnswerIsNo

REQUEST_TIMEOUT_S = 30
# A difference in these would give wrong results, in others it is the operator's choice.
DECISIVE = ("message.timestamp.type", "cleanup.policy")


class TopicMismatch(AnswerIsNo):
    """An existing topic differs from the catalogue in what results depend on; the message says in what."""


def create_topics(admin: AdminClient, settings: TopicSettings) -> list[str]:
    """Create the topics that are missing, and check those that are there.

    Parameters
    ----------
    admin : AdminClient
        Connected to the cluster, with the settings' `topic_prefix` (names.py).
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
    _check([topic for topic in CATALOGUE.values() if topic.name in existing], existing, admin, settings)
    missing = [topic for topic in CATALOGUE.values() if topic.name not in existing]
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


def narrow_topics(admin: AdminClient, settings: TopicSettings) -> list[str]:
    """Say which existing inputs take smaller records than the models; results are right, but large records are not taken.

    Returns
    -------
    list of str
        A sentence for each, with the remedy; empty for a cluster whose inputs this version has created.
    """
    expected = {
        topic.name: int(topic.settings["max.message.bytes"])
        for topic in CATALOGUE.values()
        if topic.role in (Role.INPUT, Role.STATE) and not topic.internal
    }
    existing = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    found = topic_config(admin, [name for name in expected if name in existing])
    return [
        f"{name}: expected max.message.bytes={expected[name]}, found {config['max.message.bytes']}: the broker refuses larger "
        f"records. kafka-configs.sh --alter --entity-type topics --entity-name {on_cluster(settings, name)} "
        f"--add-config max.message.bytes={expected[name]}"
        for name, config in found.items()
        if int(config["max.message.bytes"]) < expected[name]
    ]


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
