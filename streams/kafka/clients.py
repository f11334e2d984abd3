"""What all librdkafka clients of nearshelf have in common: configuration, and whether a broker answers.

Not here: Faust's own client, which is aiokafka's (transport.py).
"""

from typing import Any

from confluent_kafka import KafkaException

from streams.kafka.names import PREFIX, AdminClient, on_cluster
from topics.errors import NoBroker, WrongUse

CONNECT_TIMEOUT_S = 4


class BrokerUnreachable(NoBroker):
    """No broker answers at the address; the message names it, what was waited for, and the ways out."""

    def __init__(self, bootstrap_servers: str, why: str):
        super().__init__(
            f"no Kafka answers at {bootstrap_servers} {why}.\n"
            "  Start the local one:  nearshelf broker start\n"
            "  or with Docker:       docker compose -f config/compose.yaml up -d\n"
            "  or name yours:        --bootstrap-servers HOST:PORT (or NEARSHELF_BOOTSTRAP_SERVERS)"
        )


class MissingTopics(WrongUse):
    """The cluster lacks topics of the catalogue; the message names them and the remedy."""

    def __init__(self, topics: list[str], settings: Any):
        names = ", ".join(on_cluster(settings, topic) for topic in topics)
        super().__init__(f"topics missing at {settings.bootstrap_servers}: {names}. `nearshelf topics create` makes them.")


def client_config(settings: Any, **own: Any) -> dict[str, Any]:
    """Give a client's configuration; `own` names more settings, `_` for each `.`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> client_config(SimpleNamespace(bootstrap_servers="a:9092", topic_prefix=""), linger_ms=5)["linger.ms"]
    5
    """
    common = {
        "bootstrap.servers": settings.bootstrap_servers,
        # By default a broker that is back after an outage is tried again after up to 10 s.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
        # Lost connections are reported by those who wait for them: once, and by what it means.
        "log_level": 2,
    }
    if settings.topic_prefix:
        common[PREFIX] = settings.topic_prefix
    # The only name with an underscore.
    named = {name if name == "log_level" else name.replace("_", "."): value for name, value in own.items()}
    return common | named


def reading_config(settings: Any, group: str, **own: Any) -> dict[str, Any]:
    """Give the configuration of a consumer that commits no offsets, and reads committed records unless `own` says otherwise."""
    reading = {"group_id": group, "enable_auto_commit": False, "isolation_level": "read_committed"}
    return client_config(settings, **reading | own)


def connect(settings: Any) -> AdminClient:
    """Give a client of the cluster that has just answered.

    Raises
    ------
    BrokerUnreachable
        No broker answers within `CONNECT_TIMEOUT_S`.
    """
    # What goes wrong is said by the caller: librdkafka would add lines of its own to the terminal.
    admin = AdminClient(client_config(settings, log_level=0))
    try:
        admin.list_topics(timeout=CONNECT_TIMEOUT_S)
    except KafkaException:
        why = f"within {CONNECT_TIMEOUT_S} s (a local one would lie in {settings.broker_directory})"
        raise BrokerUnreachable(settings.bootstrap_servers, why) from None
    return admin


def partitions_of(topic: str, settings: Any) -> list[int]:
    """Give a topic's partition numbers.

    Raises
    ------
    BrokerUnreachable, MissingTopics
        No broker answers, or the cluster lacks the topic.
    """
    found = connect(settings).list_topics(timeout=CONNECT_TIMEOUT_S).topics
    if topic not in found:
        raise MissingTopics([topic], settings)
    return sorted(found[topic].partitions)
