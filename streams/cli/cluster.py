"""The command line's connection to Kafka: an answer within seconds, or an error that says what to do."""

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from config.settings import Settings

CONNECT_TIMEOUT_S = 4
# What goes wrong is said by the command; librdkafka would add lines of its own to the terminal.
QUIET = {"log_level": 0}


class Unreachable(Exception):
    """No Kafka answers at the address; the message names it and the ways out."""

    def __init__(self, bootstrap_servers: str):
        super().__init__(
            f"no Kafka answers at {bootstrap_servers} within {CONNECT_TIMEOUT_S} s.\n"
            "  Start the local one:  nearshelf broker start\n"
            "  or with Docker:       docker compose -f config/compose.yaml up -d\n"
            "  or name yours:        --bootstrap-servers HOST:PORT (or NEARSHELF_BOOTSTRAP_SERVERS)"
        )


class NoTopic(Exception):
    """The cluster lacks a topic of the catalogue."""

    def __init__(self, topic: str, bootstrap_servers: str):
        super().__init__(f"{topic} does not exist at {bootstrap_servers}. Create the topics: nearshelf topics create")


def connect(settings: Settings) -> AdminClient:
    """Return a client of the cluster that has just answered, or raise `Unreachable`."""
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, **QUIET})
    try:
        admin.list_topics(timeout=CONNECT_TIMEOUT_S)
    except KafkaException:
        raise Unreachable(settings.bootstrap_servers) from None
    return admin


def partitions_of(topic: str, settings: Settings) -> list[int]:
    """Return the topic's partition numbers, or raise `Unreachable` or `NoTopic`."""
    found = connect(settings).list_topics(timeout=CONNECT_TIMEOUT_S).topics
    if topic not in found:
        raise NoTopic(topic, settings.bootstrap_servers)
    return sorted(found[topic].partitions)
