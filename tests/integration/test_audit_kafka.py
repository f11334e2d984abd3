"""`nearshelf audit` on a real Kafka: it sees what is committed, all of it, and nothing else."""

import json
import subprocess
import sys

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic

from config.settings import load_settings
from streams.audit import audit
from tests.hand_log import OUTPUTS, TOPICS, clean

PLAIN = (*TOPICS, "locations.v1")
TRANSACTIONAL = [topic for topic in OUTPUTS if topic != "locations.v1"]
# The records bring their own, old times.
CONFIG = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}


@pytest.fixture
def settings(empty_cluster, broker):
    """Settings on a cluster that has the topics, empty, with one partition each."""
    topics = [NewTopic(topic, 1, 1, config=CONFIG) for topic in (*TOPICS, *OUTPUTS)]
    for future in empty_cluster.create_topics(topics, operation_timeout=30).values():
        future.result()
    return load_settings(bootstrap_servers=broker.start(), app_id="test-audit")


@pytest.fixture
def worker(settings):
    """A transactional producer, as a worker has one."""
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "transactional.id": "test-audit-0"})
    producer.init_transactions(30)
    return producer


def produce(producer, topic, record):
    headers = list(record.headers)
    producer.produce(topic, record.value, record.key, 0, timestamp=record.timestamp, headers=headers)


def publish(hand, settings, worker):
    """Write a log to the cluster: inputs as they are, outputs and offsets in one transaction."""
    sender = Producer({"bootstrap.servers": settings.bootstrap_servers})
    for topic in PLAIN:
        for record in hand.records[topic]:
            produce(sender, topic, record)
    assert sender.flush(30) == 0
    worker.begin_transaction()
    for topic in TRANSACTIONAL:
        for record in hand.records[topic]:
            produce(worker, topic, record)
    group = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.app_id})
    offsets = [TopicPartition(topic, 0, len(hand.records[topic])) for topic in TOPICS]
    worker.send_offsets_to_transaction(offsets, group.consumer_group_metadata(), 30)
    worker.commit_transaction(30)
    group.close()


def test_what_is_committed_is_audited_and_what_was_aborted_is_not_there(settings, worker):
    hand = clean()
    publish(hand, settings, worker)
    worker.begin_transaction()
    produce(worker, "allocations.v1", hand.records["allocations.v1"][0])
    worker.flush(30)
    worker.abort_transaction(30)
    seen = []
    report = audit(settings, lambda done, total: seen.append((done, total)), complete=True)
    assert not report.faults
    assert report.batches == hand.batches
    assert seen[-1][0] == sum(len(hand.records[topic]) for topic in TOPICS)


def test_offsets_that_the_changelog_does_not_account_for_are_found(settings, worker):
    publish(clean(), settings, worker)
    group = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.app_id})
    group.commit(offsets=[TopicPartition("sales.v1", 0, 3)], asynchronous=False)
    group.close()
    (fault,) = audit(settings).faults
    assert (fault.kind, fault.topic, fault.offset) == ("chain", "sales.v1", 3)


def nearshelf(*arguments):
    command = [sys.executable, "-c", "from streams.cli import main; main()", "audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_command_answers_by_its_exit_status_and_names_the_faults(settings, worker):
    where = "--bootstrap-servers", settings.bootstrap_servers, "--set", "app_id=test-audit"
    hand = clean()
    publish(hand, settings, worker)
    good = nearshelf(*where)
    assert (good.returncode, good.stderr) == (0, "")
    assert "none" in good.stdout.splitlines()[-2]
    worker.begin_transaction()
    produce(worker, "dead-letter.v1", hand.records["dead-letter.v1"][0])
    worker.commit_transaction(30)
    bad = nearshelf(*where)
    assert bad.returncode == 1
    assert "dead_letter at dead-letter.v1[0]@" in bad.stdout
    answer = json.loads(nearshelf(*where, "--json").stdout)
    assert (answer["clean"], answer["fault_count"], answer["faults"][0]["kind"]) == (False, 1, "dead_letter")


def test_a_cluster_without_the_topics_is_wrong_use(empty_cluster, broker):
    done = nearshelf("--bootstrap-servers", broker.start())
    assert done.returncode == 2
    assert "nearshelf topics create" in done.stderr


def test_no_cluster_at_all_is_unreachable():
    done = nearshelf("--bootstrap-servers", "127.0.0.1:1")
    assert done.returncode == 3
    assert "no Kafka answers" in done.stderr
