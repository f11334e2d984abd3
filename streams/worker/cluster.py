"""What the worker needs of the cluster before it starts: the topics, and partition counts that go together.

Not here: making topics (`nearshelf topics create`), who owns which partition (flows.py).
"""

from collections.abc import Iterable

from confluent_kafka import KafkaException

from config.settings import Settings
from streams.kafka.clients import BrokerUnreachable, MissingTopics, client_config
from streams.kafka.names import AdminClient
from streams.worker.groups import Group
from topics.catalogue import LOCATIONS
from topics.errors import WrongUse


class CannotStart(WrongUse):
    """The cluster, or this machine, is not as the worker needs it; the message says what is missing and what to do."""


def partition_counts(settings: Settings, groups: Iterable[Group]) -> dict[str, int]:
    """Give the partition counts of all topics the worker reads.

    Raises
    ------
    BrokerUnreachable
        No broker answers.
    MissingTopics
        A topic is missing.
    CannotStart
        Topics of a group differ in their partition count.
    """
    admin = AdminClient(client_config(settings))
    try:
        found = admin.list_topics(timeout=min(10.0, settings.request_timeout_ms / 1000)).topics
    except KafkaException as failure:
        raise BrokerUnreachable(settings.bootstrap_servers, f"({failure.args[0].str()})") from None
    counts = {name: len(topic.partitions) for name, topic in found.items()}
    needed = {LOCATIONS, *(topic for group in groups for topic in (*group.topics, group.changelog_topic))}
    if missing := sorted(needed - counts.keys()):
        raise MissingTopics(missing, settings)
    for group in groups:
        sizes = {topic: counts[topic] for topic in (*group.topics, group.changelog_topic)}
        if len(set(sizes.values())) > 1:
            shown = ", ".join(f"{topic} {count}" for topic, count in sizes.items())
            raise CannotStart(f"the {group.name} topics must all have the same number of partitions, found: {shown}.")
    return counts
