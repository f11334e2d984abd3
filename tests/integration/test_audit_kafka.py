"""`nearshelf audit` on a real Kafka: it sees all that is committed and nothing else; with --follow, what comes later too."""

import json
import signal
import subprocess
import sys
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic

from config.settings import load_settings
from streams.audit import audit
from streams.kafka.reading import LogReader
from tests.hand_log import OUTPUTS, TOPICS, clean, line, order, says, stock

PATIENCE_S = 60
PLAIN = (*TOPICS, "locations.v1")
OTHERS = ("clicks.v1", "demand.v1", "clicks-changelog.v1", "acknowledgements.v1")
TRANSACTIONAL = [topic for topic in OUTPUTS if topic != "locations.v1"]
# The records bring their own, old times.
CONFIG = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}


@pytest.fixture
def settings(empty_cluster, broker):
    """Settings on a cluster that has the topics, empty, with one partition each."""
    topics = [NewTopic(topic, 1, 1, config=CONFIG) for topic in (*TOPICS, *OUTPUTS, *OTHERS)]
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


class Publisher:
    """Writes what a log by hand has more than before, as a worker would: outputs and offsets in one transaction."""

    def __init__(self, hand, settings, worker):
        self.hand, self.settings, self.worker = hand, settings, worker
        self.sent = dict.fromkeys((*PLAIN, *TRANSACTIONAL), 0)

    def publish(self):
        sender = Producer({"bootstrap.servers": self.settings.bootstrap_servers})
        for topic in PLAIN:
            self._send(sender, topic)
        assert sender.flush(30) == 0
        self.worker.begin_transaction()
        for topic in TRANSACTIONAL:
            self._send(self.worker, topic)
        group = Consumer({"bootstrap.servers": self.settings.bootstrap_servers, "group.id": self.settings.app_id})
        offsets = [TopicPartition(topic, 0, self.sent[topic]) for topic in TOPICS]
        self.worker.send_offsets_to_transaction(offsets, group.consumer_group_metadata(), 30)
        self.worker.commit_transaction(30)
        group.close()

    def _send(self, producer, topic):
        for record in self.hand.records[topic][self.sent[topic] :]:
            produce(producer, topic, record)
        self.sent[topic] = len(self.hand.records[topic])


@pytest.fixture
def published(settings, worker):
    """The clean log, on the cluster."""
    publisher = Publisher(clean(), settings, worker)
    publisher.publish()
    return publisher


def test_what_is_committed_is_audited_and_what_was_aborted_is_not_there(published, settings, worker):
    hand = published.hand
    worker.begin_transaction()
    produce(worker, "allocations.v1", hand.records["allocations.v1"][0])
    worker.flush(30)
    worker.abort_transaction(30)
    seen = []
    report = audit(settings, lambda done, total: seen.append((done, total)), complete=True)
    assert not report.faults
    assert report.batches == hand.batches
    assert seen[-1][0] == sum(len(hand.records[topic]) for topic in TOPICS)


def test_offsets_that_the_changelog_does_not_account_for_are_found(published, settings):
    group = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.app_id})
    group.commit(offsets=[TopicPartition("sales.v1", 0, 3)], asynchronous=False)
    group.close()
    (fault,) = audit(settings).faults
    assert (fault.kind, fault.topic, fault.offset) == ("chain", "sales.v1", 3)


def nearshelf(*arguments):
    command = [sys.executable, "-c", "from streams.cli import main; main()", "audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_command_answers_by_its_exit_status_and_names_the_faults(published, settings, worker):
    where = "--bootstrap-servers", settings.bootstrap_servers, "--set", "app_id=test-audit"
    hand = published.hand
    good = nearshelf(*where)
    assert (good.returncode, good.stderr) == (0, "")
    assert any("faults" in line and "none" in line for line in good.stdout.splitlines())
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


class Follower:
    """`nearshelf audit --follow`, running."""

    def __init__(self, settings, directory, *flags):
        self.errors = directory / "stderr"
        self.out = directory / "stdout"
        where = "--bootstrap-servers", settings.bootstrap_servers, "--set", f"app_id={settings.app_id}"
        command = [sys.executable, "-c", "from streams.cli import main; main()", "audit", "--follow", *where, *flags]
        with self.errors.open("wb") as errors, self.out.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=errors)

    def await_text(self, file, text):
        deadline = time.monotonic() + PATIENCE_S
        while text not in file.read_text():
            assert time.monotonic() < deadline, f"{text!r} expected in:\n{file.read_text()}\n{self.errors.read_text()}"
            assert self.process.poll() is None, self.errors.read_text()
            time.sleep(0.05)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE_S)
        return status, self.out.read_text()


@pytest.fixture
def follow(settings, tmp_path):
    started = []

    def start(*flags):
        directory = tmp_path / str(len(started))
        directory.mkdir()
        started.append(Follower(settings, directory, *flags))
        return started[-1]

    yield start
    for follower in started:
        follower.process.kill()
        follower.process.wait()


def alerts(settings):
    """The alerts that audits have written."""
    with LogReader(settings) as reader:
        found = [(message.key(), json.loads(message.value())) for message in reader.read("alerts.v1", {0: 0})]
    return [(key, value) for key, value in found if value["kind"] == "audit"]


def test_batches_that_are_committed_later_are_judged_and_an_orderly_end_reports_them(published, follow):
    follower = follow("--json")
    follower.await_text(follower.errors, "events up to now")
    hand = published.hand
    hand.event("stock.v1", stock("e40", "receipt", "LEEDS", "A", 5, event_time=hand.now))
    hand.batch(LEEDS_A=(11, 4, 1))
    published.publish()
    hand.event("sales.v1", b"{", dead="not_json")
    hand.event("sales.v1", stock("e41", "sale", "LEEDS", "A", 1, event_time=hand.now))
    hand.batch(LEEDS_A=(10, 4, 1))
    published.publish()
    time.sleep(3)
    status, out = follower.stop(signal.SIGINT)
    report = json.loads(out)
    assert (status, report["faults"]) == (0, [])
    assert report["batches"] == hand.batches
    assert report["events"] == {topic: len(hand.records[topic]) for topic in TOPICS}


def test_inputs_that_no_worker_has_taken_yet_are_no_fault_while_they_are_followed(settings, follow):
    sender = Producer({"bootstrap.servers": settings.bootstrap_servers})
    for topic in PLAIN:
        for record in clean().records[topic]:
            produce(sender, topic, record)
    sender.flush(30)
    follower = follow()
    follower.await_text(follower.errors, "events up to now")
    time.sleep(2)
    status, _ = follower.stop()
    assert status == 0


def test_a_fault_goes_to_alerts_at_once_and_a_restart_counts_it_and_tells_it_no_more(published, follow, settings):
    follower = follow()
    follower.await_text(follower.errors, "events up to now")
    hand = published.hand
    hand.event("sales.v1", stock("e40", "sale", "LEEDS", "A", 1, event_time=hand.now))
    hand.batch(LEEDS_A=(4, 4, 1))  # was 6: one unit too many is gone
    published.publish()
    follower.await_text(follower.out, "cell at inventory-changelog.v1[0]@")
    follower.await_text(follower.errors, "events up to now")
    status, out = follower.stop()
    assert status == 1
    assert "faults" in out
    ((key, value),) = alerts(settings)
    assert key == value["alert_id"].encode()
    assert (value["fault"], value["severity"]) == ("cell", "critical")
    assert (value["topic"], value["partition"]) == ("inventory-changelog.v1", 0)
    assert "uk/LEEDS/A = CellRow(on_hand=5, reserved=4, safety_stock=1" in value["expected"]
    again = follow()
    again.await_text(again.errors, "1 faults")
    status, out = again.stop()
    assert (status, out.count("cell at inventory-changelog.v1[0]@")) == (1, 0)
    assert len(alerts(settings)) == 1


def test_a_foreign_record_is_acknowledged_named_and_counted_no_more_until_that_is_withdrawn(published, settings):
    sender = Producer({"bootstrap.servers": settings.bootstrap_servers})
    places = []
    sender.produce("allocations.v1", b"hello", b"x", 0, on_delivery=lambda error, message: places.append(message.offset()))
    sender.flush(30)
    place = f"allocations.v1[0]@{places[0]}"
    where = "--bootstrap-servers", settings.bootstrap_servers, "--set", "app_id=test-audit"
    assert place in (found := nearshelf(*where)).stdout
    assert found.returncode == 1
    assert nearshelf(*where, "--acknowledge", place).returncode == 2, "nobody said why"
    missing = nearshelf(*where, "--acknowledge", "allocations.v1[0]@999", "--reason", "none")
    assert missing.returncode == 2
    assert "expected an offset before" in missing.stderr
    done = nearshelf(*where, "--acknowledge", place.replace("[0]", ""), "--reason", "sent by hand", "--by", "ann")
    assert (done.returncode, done.stderr) == (0, "")
    good = nearshelf(*where)
    assert good.returncode == 0
    assert "acknowledged by ann at" in good.stdout
    assert place in good.stdout
    assert nearshelf(*where, "--withdraw", place).returncode == 0
    assert nearshelf(*where).returncode == 1


def test_what_no_batch_has_caused_is_found_while_batches_go_on(published, follow, settings):
    follower = follow("--no-alert")
    follower.await_text(follower.errors, "events up to now")
    sender = Producer({"bootstrap.servers": settings.bootstrap_servers})
    stray = published.hand.records["allocations.v1"][0]
    sender.produce("allocations.v1", stray.value, stray.key, 0)
    sender.flush(30)
    follower.await_text(follower.out, "decision at allocations.v1[0]@")
    lines = line("l1", "C", 1)
    hand = published.hand
    decision = says("O40", "backordered", waits=(line("l1", "C", 1, "no_stock"),))
    hand.event("orders.v1", order("e40", "O40", lines), decision)
    hand.batch()
    published.publish()
    time.sleep(2)
    status, out = follower.stop()
    assert status == 1
    assert out.count(" at allocations.v1[0]@") == 1


def test_an_open_transaction_is_named_with_the_offset_since_which_it_is(published, settings):
    hanging = Producer({"bootstrap.servers": settings.bootstrap_servers, "transactional.id": "hanging"})
    hanging.init_transactions(30)
    hanging.begin_transaction()
    written = []
    hanging.produce("allocations.v1", b"{}", partition=0, on_delivery=lambda error, message: written.append(message.offset()))
    hanging.flush(30)
    (since,) = written
    report = audit(settings)
    assert report.clean
    assert report.open_transactions == [f"allocations.v1[0] since offset {since}"]
    (fault,) = (fault for fault in audit(settings, complete=True).faults if fault.kind == "transaction")
    assert (fault.topic, fault.partition, fault.offset) == ("allocations.v1", 0, since)
    hanging.abort_transaction(30)
    assert audit(settings, complete=True).clean


def test_inputs_that_retention_has_deleted_are_not_judged_unless_a_checkpoint_knows_them(
    published, settings, empty_cluster, tmp_path
):
    where = "--bootstrap-servers", settings.bootstrap_servers, "--set", "app_id=test-audit", "--json"
    checkpoint = "--checkpoint", str(tmp_path / "checkpoint")
    assert json.loads(nearshelf(*where, *checkpoint).stdout)["clean"]
    hand = published.hand
    ends = [TopicPartition(topic, 0, len(hand.records[topic])) for topic in TOPICS if hand.records[topic]]
    for future in empty_cluster.delete_records(ends).values():
        future.result()
    hand.event("sales.v1", stock("e40", "sale", "LEEDS", "A", 1, event_time=hand.now))
    hand.batch(LEEDS_A=(5, 4, 1))
    published.publish()
    fresh = nearshelf(*where)
    answer = json.loads(fresh.stdout)
    assert (fresh.returncode, answer["fault_count"], answer["orders"]) == (0, 0, 0)
    (not_judged,) = answer["not_judged"].values()
    assert not_judged["batches"] == hand.batches
    assert not_judged["inputs_from"]["sales.v1"] == len(hand.records["sales.v1"]) - 1
    again = nearshelf(*where, *checkpoint)
    answer = json.loads(again.stdout)
    assert (again.returncode, answer["fault_count"], answer["not_judged"]) == (0, 0, {})
    assert answer["checkpoint"].startswith("went on from")
    assert answer["orders"] > 0
    assert answer["batches"] == hand.batches
