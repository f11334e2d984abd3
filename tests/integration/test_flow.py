"""The flow on a real Kafka: whatever happens to workers, each event is counted once, in order, and the next owner knows it.

The pipeline under test counts (counting.py); what it publishes is checked against the inputs by reading the topics alone.
"""

import json
import signal
import subprocess
import sys
import time
import urllib.request
import zlib
from collections import defaultdict
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.kafka.clients import BrokerUnreachable, MissingTopics
from streams.worker.chain import Chain
from streams.worker.cluster import partition_counts
from streams.worker.failpoints import FAIL_POINTS
from tests.integration.counting import CHANGELOG, GATE, GROUP, OUTPUT, SLOW, TICKING, TOPICS, WRONG

INPUTS = [topic for topic in TOPICS if topic != "ticks.v1"]
# Short, so that a dead worker is missed soon; batches small, so that there are many.
QUICK = {"session_timeout_ms": 2_000, "heartbeat_ms": 300, "batch_rows": 40, "batch_age_ms": 2, "partitions": 4}
PATIENCE_S = 60


class Workers:
    """Starts workers as processes, and ends what is left of them."""

    def __init__(self, settings, directory):
        self.settings = settings
        self._directory = directory
        self._processes = []

    def start(self, **options):
        given = {name: getattr(self.settings, name) for name in (*QUICK, "bootstrap_servers", "app_id", "metrics_port")}
        log = self._directory / f"worker-{len(self._processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("counting.py"), json.dumps(given | options)],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
            )
        process.log = log
        self._processes.append(process)
        return process

    def await_line(self, process, text, count=1):
        await_that(
            lambda: process.log.read_text().count(text) >= count,
            lambda: f"{text!r} expected {count} times in:\n{process.log.read_text()}",
        )

    def end(self):
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def workers(make_settings, tmp_path):
    found = Workers(make_settings(**QUICK), tmp_path)
    yield found
    found.end()


def await_that(condition, otherwise):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


class Log:
    """What the topics say, to a reader of committed records."""

    def __init__(self, settings):
        self.settings = settings
        self.sent = defaultdict(int)  # (topic, partition) → records
        # Batches as small as the smallest fetch: a broker gives a whole batch at least, however little was asked for.
        limits = {"batch.size": 1 << 16}
        self._producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0} | limits)

    def send(self, count, value=b"x", topics=INPUTS, partitions=None, **message):
        """Append to each topic and partition."""
        for _ in range(count):
            for topic in topics:
                for partition in range(self.settings.partitions) if partitions is None else partitions:
                    key = message.get("key", b"pool-%d" % partition)
                    self._producer.produce(topic, value, partition=partition, **(message | {"key": key}))
                    self.sent[topic, partition] += 1
        assert self._producer.flush(PATIENCE_S) == 0

    def read(self, topic, partition, isolation="read_committed"):
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.bootstrap_servers,
                "group.id": "test-reader",
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        consumer.assign([TopicPartition(topic, partition, 0)])
        found = []
        while True:
            message = consumer.poll(PATIENCE_S)
            assert message is not None
            if message.error():
                assert message.error().code() == KafkaError._PARTITION_EOF
                consumer.close()
                return found
            found.append(message)

    def counted(self):
        return sum(
            not message.value().startswith(b"ticks.v1")
            for partition in range(self.settings.partitions)
            for message in self.read(OUTPUT, partition)
        )

    def batches(self, partition):
        """The changelog's messages, but for a claim."""
        return [message for message in self.read(CHANGELOG, partition) if message.key() == b"batch"]

    def await_all_counted(self):
        total = sum(self.sent.values())
        await_that(lambda: self.counted() >= total, lambda: f"{self.counted()} of {total} events counted")

    def check(self):
        """Each event counted once; numbers and hashes without a break; changelog and offsets at the end of the inputs."""
        self.await_all_counted()
        for partition in range(self.settings.partitions):
            self._check_partition(partition)

    def _check_partition(self, partition):
        digest, seen = 0, defaultdict(list)
        for number, message in enumerate(self.read(OUTPUT, partition), 1):
            topic, offset, found_number, found_digest, _ = message.value().decode().split()
            digest = zlib.crc32(b"%s %s" % (topic.encode(), offset.encode()), digest)
            assert (int(found_number), int(found_digest)) == (number, digest), f"partition {partition}: {message.value()}"
            seen[topic].append(int(offset))
        for topic in INPUTS:
            assert seen[topic] == list(range(self.sent[topic, partition])), f"{topic}[{partition}]"
        changelog = [json.loads(batch.record) for batch in Chain().batches(self.read(CHANGELOG, partition))]
        assert [record["batch"] for record in changelog] == list(range(1, len(changelog) + 1))
        if changelog:
            assert (changelog[-1]["number"], changelog[-1]["digest"]) == (sum(map(len, seen.values())), digest)
        group = Consumer({"bootstrap.servers": self.settings.bootstrap_servers, "group.id": self.settings.app_id})
        committed = group.committed([TopicPartition(topic, partition) for topic in INPUTS], 10)
        group.close()
        assert {one.topic: max(one.offset, 0) for one in committed} == {topic: self.sent[topic, partition] for topic in INPUTS}


@pytest.fixture
def log(workers):
    return Log(workers.settings)


@pytest.mark.parametrize("fail_point", [point for point in FAIL_POINTS if "snapshot" not in point])
def test_each_event_is_counted_once_when_the_worker_is_killed_at(fail_point, workers, log):
    log.send(50)
    first = workers.start(fail_at=f"{fail_point}:5")
    await_that(lambda: first.poll() is not None, first.log.read_text)
    assert first.returncode == -signal.SIGKILL
    log.send(50)
    workers.start()
    log.check()


def test_a_batch_is_open_to_nobody_before_its_commit(workers, log):
    """The kill comes after the messages are in the log: they are there, and no reader of committed records sees them."""
    log.send(10, partitions=[0])
    worker = workers.start(fail_at="after_flush:1", batch_rows=1_000)
    await_that(lambda: worker.poll() is not None, worker.log.read_text)
    assert log.read(OUTPUT, 0) == []
    assert len(log.read(OUTPUT, 0, isolation="read_uncommitted")) > 0


def test_two_workers_share_the_partitions_and_one_takes_over_from_the_other(workers, log):
    first, second = workers.start(), workers.start()
    for worker in (first, second):
        workers.await_line(worker, "ready: counting partitions")
    log.send(50)
    await_that(
        lambda: sorted([*last_ready(first), *last_ready(second)]) == [0, 1, 2, 3],
        lambda: f"{last_ready(first)} {last_ready(second)}",
    )
    assert len(last_ready(first)) == 2
    log.check()
    first.kill()
    log.send(50)
    log.check()
    assert last_ready(second) == [0, 1, 2, 3]


def last_ready(process):
    """The partitions that the worker last said it owns."""
    said = process.log.read_text().rpartition("ready: counting partitions ")[2].splitlines()[0]
    return [int(partition) for partition in said.split(", ")]


def test_a_worker_stopped_beyond_its_session_and_continued_counts_nothing_twice(workers, log):
    zombie = workers.start()
    workers.await_line(zombie, "ready: counting partitions 0, 1, 2, 3")
    log.send(20)
    log.check()
    log.send(20, SLOW)  # so that it is stopped with work in hand
    time.sleep(0.3)
    zombie.send_signal(signal.SIGSTOP)
    heir = workers.start()
    workers.await_line(heir, "ready: counting partitions 0, 1, 2, 3")
    log.send(20)
    log.await_all_counted()
    zombie.send_signal(signal.SIGCONT)
    log.send(200)
    log.check()
    await_that(lambda: zombie.log.read_text().count("ready: counting") > 1, zombie.log.read_text)  # a member again
    log.send(50)
    log.check()
    assert zombie.poll() is None and heir.poll() is None


def test_a_worker_told_to_stop_finishes_its_batch_and_leaves_cleanly(workers, log):
    worker = workers.start()
    workers.await_line(worker, "ready: counting partitions 0, 1, 2, 3")
    log.send(5, SLOW)
    await_that(lambda: log.counted() > 0, worker.log.read_text)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0, worker.log.read_text()
    assert "given up" not in worker.log.read_text()
    # Nothing is left open: to readers of committed records the end is the end.
    for partition in range(4):
        counts = [len(log.read(OUTPUT, partition, isolation)) for isolation in ("read_committed", "read_uncommitted")]
        assert counts[0] == counts[1]
    admin = AdminClient({"bootstrap.servers": workers.settings.bootstrap_servers})
    group = admin.describe_consumer_groups([workers.settings.app_id])[workers.settings.app_id].result()
    assert group.members == []
    workers.start()
    log.check()


@pytest.mark.parametrize("fail_point", ["after_produce", "after_flush", "after_commit"])
def test_a_partition_goes_on_from_the_log_when_a_commits_fate_is_unknown(fail_point, workers, log):
    """`after_commit`: it took effect and nobody was told; before: it did not."""
    log.send(50)
    worker = workers.start(doubt_at=f"{fail_point}:5")
    log.send(50)
    log.check()
    assert "is unknown" in worker.log.read_text()
    assert worker.poll() is None


def test_a_broken_invariant_stops_the_worker_with_an_error(workers, log):
    log.send(1)
    worker = workers.start()
    log.check()
    log.send(1, WRONG, topics=["orders.v1"], partitions=[2])
    assert worker.wait(PATIENCE_S) == 1
    assert "the worker stopped: told to fail" in worker.log.read_text()


def test_a_changelog_that_does_not_belong_to_the_offsets_stops_the_worker(workers, log):
    log.send(1)
    worker = workers.start()
    log.check()
    worker.send_signal(signal.SIGTERM)
    worker.wait(PATIENCE_S)
    meddler = Consumer({"bootstrap.servers": workers.settings.bootstrap_servers, "group.id": workers.settings.app_id})
    meddler.commit(offsets=[TopicPartition("sales.v1", 1, 0)], asynchronous=False)
    meddler.close()
    worker = workers.start()
    assert worker.wait(PATIENCE_S) == 1
    assert "sales.v1: the group's committed offset is 0, the changelog ends at 1" in worker.log.read_text()


def test_a_location_change_makes_a_batch_by_itself_and_an_event_that_needs_it_finds_it(workers, log, tmp_path):
    network = tmp_path / "network.yaml"
    network.write_text(
        "version: 1\npools: [{id: p}]\n"
        "locations: [{id: a, pool: p, kind: store, latitude: 1, longitude: 1},\n"
        "            {id: b, pool: p, kind: store, latitude: 1, longitude: 2}]\n"
    )
    worker = workers.start(network=str(network))
    workers.await_line(worker, "2 of the network's 2 locations were missing: published")
    await_that(lambda: len(log.batches(0)) > 0, worker.log.read_text)
    assert set(json.loads(log.batches(0)[-1].value())["locations"]) == {"a", "b"}
    log.send(1, key=b"c", topics=["locations.v1"], partitions=[0])
    del log.sent["locations.v1", 0]
    log.send(1, b"where", topics=["orders.v1"])
    log.check()
    assert [log.read(OUTPUT, partition)[0].value().split()[-1] for partition in range(4)] == [b"3"] * 4
    # A second worker with the same file changes nothing.
    worker = workers.start(network=str(network))
    workers.await_line(worker, "0 of the network's 2 locations")


def test_a_pool_that_waits_on_time_gets_ticks_and_others_none(workers, log):
    log.send(1, TICKING, topics=["orders.v1"], partitions=[3], key=b"waiting")
    worker = workers.start()
    await_that(lambda: len(log.read("ticks.v1", 3)) >= 3, worker.log.read_text)
    assert {message.key() for message in log.read("ticks.v1", 3)} == {b"waiting"}
    assert json.loads(log.read("ticks.v1", 3)[0].value()) == {"pool_id": "waiting"}
    assert [len(log.read("ticks.v1", partition)) for partition in range(3)] == [0, 0, 0]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0
    log.check()  # the ticks are events like others, in the same order of numbers


def test_a_full_backlog_pauses_its_partition_and_no_other(workers, log, tmp_path):
    worker = workers.start(backlog_rows=100, batch_rows=10, fetch_bytes=1 << 16, data_directory=str(tmp_path))
    workers.await_line(worker, "ready: counting partitions 0, 1, 2, 3")
    port = int(worker.log.read_text().split("http://127.0.0.1:")[1].split("/")[0])
    log.send(1, GATE, partitions=[0])
    log.send(2_000, partitions=[0], headers=[("padding", b"x" * 500)])
    log.send(500, partitions=[1, 2, 3])
    others = sum(count for (_, partition), count in log.sent.items() if partition)
    await_that(lambda: sum(len(log.read(OUTPUT, partition)) for partition in (1, 2, 3)) == others, worker.log.read_text)
    assert log.read(OUTPUT, 0) == []
    # At most what is allowed, and what one fetch brought: 64 KiB of more than 500 bytes each, or a topic's first batch.
    backlog = metric(port, 'nearshelf_backlog_events{group="counting",partition="0"}')
    assert 100 <= backlog <= 100 + 130 * len(INPUTS)
    (tmp_path / "gate").touch()
    log.check()
    lag = 'nearshelf_lag_events{partition="0",topic="sales.v1"}'
    await_that(lambda: metric(port, lag) == 0, lambda: metric(port, lag))


def metric(port, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        lines = page.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_headers_and_large_changelog_records_come_through(workers, log):
    worker = workers.start(batch_rows=2_000, batch_age_ms=500)
    log.send(500, topics=["sales.v1", "orders.v1"], partitions=[0], headers=[("traceparent", b"00-1-2-01")])
    log.check()
    assert {tuple(message.headers()) for message in log.read(OUTPUT, 0)} == {(("traceparent", b"00-1-2-01"),)}
    assert max(int(dict(message.headers())["part"].split(b"/")[1]) for message in log.batches(0)) > 1
    worker.send_signal(signal.SIGTERM)
    worker.wait(PATIENCE_S)
    workers.start()
    log.send(1)
    log.check()


def test_a_worker_says_what_is_missing(workers):
    nowhere = workers.settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1", "request_timeout_ms": 1_000})
    with pytest.raises(BrokerUnreachable, match="nearshelf broker start"):
        partition_counts(nowhere, [GROUP])
    admin = AdminClient({"bootstrap.servers": workers.settings.bootstrap_servers})
    admin.delete_topics(["stock.v1"])["stock.v1"].result()
    await_that(lambda: "stock.v1" not in admin.list_topics().topics, lambda: "deleted")
    with pytest.raises(MissingTopics, match=r"topics missing at .*: stock.v1. `nearshelf topics create`"):
        partition_counts(workers.settings, [GROUP])
