"""The one place where a topic's name in the contract and its name on the cluster meet: `topic_prefix` and the contract's name.

`Producer`, `Consumer` and `AdminClient` are confluent-kafka's. Made with a configuration that has `PREFIX` (`client_config`
puts it there if the setting is not empty), they put it before each topic they are given, and take it from each they give back.
So no other module knows of it, but for Faust's side (transport.py) and librdkafka's batches (worker/transactions.py).
Invariants: a client of confluent-kafka's own refuses a configuration with `PREFIX`, so none goes to other topics in silence; a
method that names topics and is not mapped here refuses to be called.
"""

# mypy: disable-error-code="override,call-arg"
# What is mapped takes what confluent-kafka's own takes, and names only what it looks at.

from types import SimpleNamespace
from typing import Any

import confluent_kafka
from confluent_kafka import TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient as _AdminClient
from confluent_kafka.admin import ConfigResource, NewTopic

PREFIX = "nearshelf.topic.prefix"
"""Of a client's configuration; never librdkafka's."""


def on_cluster(settings: Any, topic: str) -> str:
    """Give the cluster's name of a topic of the contract.

    Examples
    --------
    >>> on_cluster(SimpleNamespace(topic_prefix="shop1."), "orders.v1")
    'shop1.orders.v1'
    """
    return f"{settings.topic_prefix}{topic}"


class Producer(confluent_kafka.Producer):
    """confluent-kafka's, with the contract's names."""

    def __new__(cls, config: dict[str, Any], *_: Any, **__: Any) -> "Producer":
        return super().__new__(_PrefixedProducer if PREFIX in config else cls)


class Consumer(confluent_kafka.Consumer):
    """confluent-kafka's, with the contract's names."""

    def __new__(cls, config: dict[str, Any], *_: Any, **__: Any) -> "Consumer":
        return super().__new__(_PrefixedConsumer if PREFIX in config else cls)


class AdminClient(_AdminClient):
    """confluent-kafka's, with the contract's names."""

    def __new__(cls, config: dict[str, Any], *_: Any, **__: Any) -> "AdminClient":
        return super().__new__(_PrefixedAdminClient if PREFIX in config else cls)


class _Names:
    """What the three have in common."""

    prefix: str

    def __init__(self, config: dict[str, Any], *more: Any, **own: Any):
        config = dict(config)
        self.prefix = config.pop(PREFIX)
        super().__init__(config, *more, **own)

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
        found = super().list_topics(*([] if topic is None else [self.prefix + topic]), timeout=timeout)  # type: ignore[misc]
        found.topics = {self.bare(name): each for name, each in found.topics.items() if name.startswith(self.prefix)}
        return found

    def bare(self, name: str) -> str:
        return name.removeprefix(self.prefix)

    def places(self, bare: Any) -> list[TopicPartition]:
        return [TopicPartition(self.prefix + each.topic, each.partition, each.offset) for each in bare]

    def answers(self, places: Any) -> Any:
        """Give places with the contract's names, in the shape of TopicPartitions, whose topic and error can't be set."""
        return [
            SimpleNamespace(topic=self.bare(each.topic), partition=each.partition, offset=each.offset, error=each.error)
            for each in places
        ]


def _unmapped(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{name} names topics: have streams/kafka/names.py map it before its use")

    return refuse


class _PrefixedProducer(_Names, Producer):
    produce_batch = _unmapped("produce_batch")

    def produce(self, topic: str, *given: Any, **named: Any) -> None:
        tell = named.get("on_delivery")
        if tell is not None:
            named["on_delivery"] = lambda error, message: tell(error, self._bared(message))
        super().produce(self.prefix + topic, *given, **named)

    def _bared(self, message: Any) -> Any:
        if message is not None:
            message.set_topic(self.bare(message.topic()))
        return message

    def send_offsets_to_transaction(self, positions: Any, *given: Any) -> None:
        super().send_offsets_to_transaction(self.places(positions), *given)


class _PrefixedConsumer(_Names, Consumer):
    assignment = subscribe = seek = position = pause = resume = _unmapped("this method of Consumer")
    commit = store_offsets = incremental_assign = incremental_unassign = _unmapped("this method of Consumer")

    def assign(self, partitions: Any) -> None:
        super().assign(self.places(partitions))

    def committed(self, partitions: Any, *given: Any, **named: Any) -> Any:
        return self.answers(super().committed(self.places(partitions), *given, **named))

    def offsets_for_times(self, partitions: Any, *given: Any, **named: Any) -> Any:
        return self.answers(super().offsets_for_times(self.places(partitions), *given, **named))

    def get_watermark_offsets(self, partition: Any, *given: Any, **named: Any) -> Any:
        return super().get_watermark_offsets(self.places([partition])[0], *given, **named)

    def poll(self, *given: Any, **named: Any) -> Any:
        return self._bared(super().poll(*given, **named))

    def consume(self, *given: Any, **named: Any) -> Any:
        return [self._bared(message) for message in super().consume(*given, **named)]

    def _bared(self, message: Any) -> Any:
        if message is not None and message.topic() is not None:
            message.set_topic(self.bare(message.topic()))
        return message


class _PrefixedAdminClient(_Names, AdminClient):
    create_partitions = delete_records = alter_configs = incremental_alter_configs = _unmapped("this method of AdminClient")
    list_consumer_group_offsets = alter_consumer_group_offsets = _unmapped("this method of AdminClient")

    def create_topics(self, topics: Any, **named: Any) -> Any:
        wanted = [
            NewTopic(
                self.prefix + each.topic,
                num_partitions=each.num_partitions,
                replication_factor=each.replication_factor,
                config=each.config,
            )
            for each in topics
        ]
        return {self.bare(name): future for name, future in super().create_topics(wanted, **named).items()}

    def delete_topics(self, topics: Any, **named: Any) -> Any:
        found = super().delete_topics([self.prefix + each for each in topics], **named)
        return {self.bare(name): future for name, future in found.items()}

    def describe_topics(self, topics: Any, **named: Any) -> Any:
        wanted = TopicCollection([self.prefix + name for name in topics.topic_names])
        return {self.bare(name): future for name, future in super().describe_topics(wanted, **named).items()}

    def describe_configs(self, resources: Any, **named: Any) -> Any:
        wanted = [ConfigResource(each.restype, self.prefix + each.name) for each in resources]
        found = super().describe_configs(wanted, **named)
        return {ConfigResource(each.restype, self.bare(each.name)): future for each, future in found.items()}

    def list_offsets(self, offsets: Any, **named: Any) -> Any:
        wanted = {self.places([place])[0]: which for place, which in offsets.items()}
        found = super().list_offsets(wanted, **named)
        return {TopicPartition(self.bare(place.topic), place.partition): future for place, future in found.items()}
