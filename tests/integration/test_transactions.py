"""What becomes of a transaction whose producer is fenced, or whose broker refuses it, between two of its messages."""

import time

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from streams.batch.pipeline import Outcome
from streams.kafka import direct
from streams.worker import failpoints, transactions
from streams.worker.cluster import CannotStart
from topics.codec.messages import Messages

WITH_HEADERS = [{"key": b"a", "value": b"1", "headers": [("h", b"x")]}]
WITHOUT = [{"key": b"a", "value": b"1"}]


@pytest.fixture(params=["librdkafka", "direct"])
def settings(make_settings, request):
    """Settings of one kind of producer."""
    return make_settings(transactions=request.param)


def make_producer(settings, passed=lambda point: None):
    return transactions.PartitionProducer(settings, "here", 0, "inventory-changelog.v1", None, passed)


def commit(producer, outcome, before=None):
    """Commit a batch alone, or behind another."""
    return producer.commit(outcome, transactions.Turn(), before)


@pytest.fixture
def slow_spans(monkeypatch):
    """The answers to a message's requests are there before the next message is given to librdkafka."""
    produce_spans = transactions.produce_spans

    def slow(*given):
        produce_spans(*given)
        time.sleep(1)

    monkeypatch.setattr(transactions, "produce_spans", slow)


@pytest.mark.parametrize("second", [WITH_HEADERS, WITHOUT])
def test_who_is_fenced_between_two_messages_says_that_it_is_fenced(settings, slow_spans, second):
    """With librdkafka, which sends as it is given them; a direct producer sends all at once."""
    former = make_producer(settings)
    make_producer(settings)
    outputs = {"inventory.v1": Messages.of(WITHOUT), "allocations.v1": Messages.of(second)}
    with pytest.raises(transactions.Fenced):
        commit(former, Outcome(outputs, b"", {}, 1))


def test_who_is_fenced_before_its_messages_are_acknowledged_says_so(settings):
    successors = []

    def passed(point):
        if point == failpoints.AFTER_PRODUCE:
            successors.append(make_producer(settings))

    former = make_producer(settings, passed)
    large = [{"key": b"a", "value": bytes(100_000)}] * 100  # so much that some of it is not yet sent
    with pytest.raises(transactions.Fenced):
        commit(former, Outcome({"allocations.v1": Messages.of(large)}, b"", {}, 1))
    assert len(successors) == 1
    former.close()


def test_a_transaction_that_fails_between_two_messages_is_aborted_and_in_doubt(settings, monkeypatch):
    producer = make_producer(settings)
    send = producer._send

    def fail_behind(topic, messages):
        send(topic, messages)
        producer._reject(topic, KafkaException(KafkaError(KafkaError._STATE)))

    monkeypatch.setattr(producer, "_send", fail_behind)
    with pytest.raises(transactions.Doubt):
        commit(producer, Outcome({"inventory.v1": Messages.of(WITHOUT)}, b"", {}, 1))
    monkeypatch.undo()  # nothing is left open: the next batch is taken
    stages = commit(producer, Outcome({"inventory.v1": Messages.of(WITHOUT)}, b"", {}, 2))
    assert stages.keys() == {"offsets", "turn", "produce", "flush", "order", "commit"}


def make_lanes(settings, passed=lambda point: None):
    return transactions.Lanes(
        lambda name: transactions.PartitionProducer(settings, name, 0, "inventory-changelog.v1", None, passed), "here"
    )


def outcome(number):
    return Outcome({"inventory.v1": Messages.of(WITHOUT)}, b"", {}, number)


def test_batches_on_two_lanes_lie_in_the_log_in_their_order(settings):
    lanes = make_lanes(settings)
    made = [{"key": b"a", "value": str(number).encode()} for number in range(40)]
    results = [lanes.commit(Outcome({"orders.v1": Messages.of([each])}, b"", {}, 1)) for each in made]
    for result in results:
        result.result(20)
    reader = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": "g", "isolation.level": "read_committed"})
    reader.assign([TopicPartition(settings.topic_prefix + "orders.v1", 0, OFFSET_BEGINNING)])
    read = [reader.poll(10) for _ in made]
    reader.close()
    assert [message.value() for message in read] == [each["value"] for each in made]


def test_what_is_behind_a_batch_that_failed_is_not_committed(settings, monkeypatch):
    """The batch before is fenced, once the one behind it has its records in the log."""
    passes = []

    def passed(point):
        passes.append(point)
        if passes.count(failpoints.AFTER_FLUSH) == 1 and point == failpoints.AFTER_FLUSH:
            while passes.count(failpoints.AFTER_FLUSH) < 2:
                time.sleep(0.01)
            make_producer(settings)  # takes the first lane

    lanes = make_lanes(settings, passed)
    first, second = lanes.commit(outcome(1)), lanes.commit(outcome(2))
    with pytest.raises(transactions.Fenced):
        first.result(20)
    with pytest.raises(transactions.Doubt, match="batch 2 did not get its turn"):
        second.result(20)
    assert passes.count(failpoints.AFTER_COMMIT) == 0


def test_a_broker_without_the_newer_protocol_gets_librdkafka_or_a_sentence(make_settings, monkeypatch, caplog):
    monkeypatch.setattr(direct, "TRANSACTION_VERSION", "a.feature.it.lacks")
    settings = make_settings()
    with caplog.at_level("INFO"):
        producer = make_producer(settings)
    assert "here commits by librdkafka: the cluster's a.feature.it.lacks is 0" in caplog.text
    commit(producer, outcome(1))
    with pytest.raises(CannotStart, match="transactions=auto"):
        make_producer(settings.model_copy(update={"transactions": "direct"}))


def test_a_broker_with_the_newer_protocol_is_spoken_to_directly(make_settings):
    assert isinstance(make_producer(make_settings())._producer, direct.DirectProducer)
