"""What becomes of a transaction whose producer is fenced, or whose broker refuses it, between two of its messages."""

import time

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.batch.pipeline import Outcome
from streams.worker import failpoints, transactions
from topics.codec.messages import Messages

WITH_HEADERS = [{"key": b"a", "value": b"1", "headers": [("h", b"x")]}]
WITHOUT = [{"key": b"a", "value": b"1"}]


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


def test_a_transaction_that_fails_between_two_messages_is_aborted_and_tried_again(settings, monkeypatch):
    producer = make_producer(settings)
    send, failures = producer._send, []

    def fail_once(topic, messages):
        send(topic, messages)
        if not failures:
            failures.append(KafkaException(KafkaError(KafkaError._STATE)))
            producer._reject(topic, failures[0])

    monkeypatch.setattr(producer, "_send", fail_once)
    stages = commit(producer, Outcome({"inventory.v1": Messages.of(WITHOUT)}, b"", {}, 1))
    assert len(failures) == 1
    assert stages.keys() == {"offsets", "turn", "produce", "flush", "order", "commit"}
