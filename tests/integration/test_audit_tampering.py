"""A changelog that somebody changed, in the very files of a real Kafka: found by `nearshelf audit`, and located.

A worker writes the log; then the broker is stopped, a record of the changelog's segment is altered or cut out, and the
broker is started again. Kafka's own checksum guards a record on its way, not in the log of a broker: whoever changes the
bytes can change the sum with them, and if they don't, it is only seen by readers that compute it (librdkafka does not,
unless told so).
"""

import json
import struct
import subprocess
import sys
import time

import pytest
from aiokafka.record.util import calc_crc32c
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.fleet import drain, running
from config.settings import load_settings
from streams.audit import audit
from streams.kafka.create import create_topics
from tests.hand_log import T0, line, order, stock

CHANGELOG = "inventory-changelog.v1"
PATIENCE_S = 60
SEGMENT = "00000000000000000000"
NETWORK = """
version: 1
pools: [{id: uk}]
locations:
  - {id: DC, pool: uk, kind: warehouse, latitude: 53.48, longitude: -2.24}
  - {id: LEEDS, pool: uk, kind: store, latitude: 53.8, longitude: -1.55}
"""


class Shop:
    """A broker of its own, and a worker that has written some batches."""

    def __init__(self, directory):
        (directory / "network.yaml").write_text(NETWORK)
        self.directory = directory
        self.broker = load_settings(data_directory=directory).local_broker()
        self.settings = load_settings(
            bootstrap_servers=self.broker.start(),
            app_id="tampered",
            data_directory=directory,
            network=directory / "network.yaml",
            metrics_port=0,
            partitions=1,
            click_partitions=1,
            batch_rows=4,
        )
        self.segment = self.broker.directory / "data" / f"{CHANGELOG}-0" / f"{SEGMENT}.log"
        self.sent = 0
        self.written = b""
        self.messages = []  # of the changelog, as written
        create_topics(AdminClient({"bootstrap.servers": self.settings.bootstrap_servers}), self.settings)

    def send(self, count):
        """Append receipts and orders."""
        producer = Producer({"bootstrap.servers": self.settings.bootstrap_servers, "partitioner": "murmur2_random"})
        for _ in range(count):
            self.sent += 1
            number = self.sent
            receipt = stock(
                f"s{number}", "receipt", ("DC", "LEEDS")[number % 2], f"SKU-{number % 5}", 3, event_time=T0 + number
            )
            placed = order(f"o{number}", f"O{number}", line("l1", f"SKU-{number % 5}", 2), line("l2", f"SKU-{number % 3}", 1))
            producer.produce("stock.v1", json.dumps(receipt), "uk")
            producer.produce("orders.v1", json.dumps(placed), "uk")
        assert producer.flush(30) == 0

    def send_and_wait(self, workers):
        """Append some, and return when they are in a batch."""
        self.send(2)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return drain(self.settings, workers)
            except KafkaException:  # a broker that has just started knows no coordinator yet
                if time.monotonic() > deadline:
                    raise

    def audit(self):
        return audit(self.settings, complete=True)

    def changelog(self):
        """The changelog's batches' messages."""
        config = {"bootstrap.servers": self.settings.bootstrap_servers, "group.id": "reader", "enable.partition.eof": True}
        consumer = Consumer(config)
        consumer.assign([TopicPartition(CHANGELOG, 0, 0)])
        found = []
        while (message := consumer.poll(30)).error() is None:
            found += [message] if message.key() == b"batch" else []
        consumer.close()
        return found

    def restart(self, change=lambda segment: segment, rebuild=False):
        """Stop the broker, make the changelog's segment what it was but for a change, and start again.

        `rebuild`: the broker is to make the segment's indexes anew, which makes it read and check the segment.
        """
        self.broker.stop()
        self.written = self.written or self.segment.read_bytes()
        self.segment.write_bytes(change(bytearray(self.written)))
        for index in ("index", "timeindex") if rebuild else ():
            self.segment.with_suffix(f".{index}").unlink()
        self.broker.start()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    found = Shop(tmp_path_factory.mktemp("tampered"))
    with running(found.settings, found.directory, 1) as workers:
        for _ in range(12):
            found.send_and_wait(workers)
        workers.stop()
    found.messages = found.changelog()
    yield found
    found.broker.stop()


def batches_of(segment):
    """A segment's record batches: position, size, first offset."""
    at = 0
    while at + 61 <= len(segment):
        offset, length = struct.unpack_from(">qi", segment, at)
        if length <= 0:
            return
        yield at, 12 + length, offset
        at += 12 + length


def flip(messages, mend):
    """A change of a segment: a bit of each message's value, so many bytes before its end; the checksums are mended, or not."""

    def change(segment):
        for message, back in messages:
            value = message.value()
            segment[segment.index(value) + len(value) - back] ^= 4
        for at, size, *_ in batches_of(segment) if mend else ():
            struct.pack_into(">I", segment, at + 17, calc_crc32c(bytes(segment[at + 21 : at + size])))
        return segment

    return change


def chain_faults(report):
    return [fault for fault in report.faults if fault.kind == "chain"]


def test_the_log_is_clean_as_it_was_written(shop):
    report = shop.audit()
    assert report.clean, report.faults[:3]
    assert report.batches >= 12


@pytest.mark.parametrize("mend", [True, False], ids=["checksums mended", "checksums wrong"])
def test_flipped_bits_in_changelog_records_are_found_and_located(shop, mend):
    messages = shop.messages
    # Twice in what the batch left behind; and in a manifest, behind which nothing can be judged.
    written = messages[9].value()
    key = written.index(b'"batch"') + 1
    flipped = [(messages[3], 3), (messages[6], 11), (messages[9], len(written) - key)]
    shop.restart(flip(flipped, mend))
    faults = chain_faults(shop.audit())
    places = [message.offset() for message, _ in flipped]
    assert [(fault.topic, fault.partition, fault.offset) for fault in faults[:3]] == [(CHANGELOG, 0, at) for at in places]
    assert [fault.expected.split(" with")[0] for fault in faults[:3]] == ["batch 4", "batch 7", "batch 10"]
    assert [fault.offset for fault in faults[3:]] == [places[2]]
    command = ["audit", "--bootstrap-servers", shop.settings.bootstrap_servers, "--set", "app_id=tampered"]
    done = subprocess.run(
        [sys.executable, "-c", "from streams.cli import main; main()", *command], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert f"chain at {CHANGELOG}[0]@{places[0]}: expected batch 4 with link" in done.stdout


def test_a_reader_that_checks_sums_refuses_a_record_whose_sum_is_wrong(shop):
    message = shop.messages[5]
    shop.restart(flip([(message, 3)], mend=False))
    consumer = Consumer({"bootstrap.servers": shop.settings.bootstrap_servers, "group.id": "x", "check.crcs": True})
    consumer.assign([TopicPartition(CHANGELOG, 0, message.offset())])
    assert consumer.poll(30).error().code() == KafkaError._BAD_MSG
    consumer.close()


def test_a_changelog_that_its_broker_cut_off_at_a_wrong_sum_is_found_by_the_groups_offsets(shop):
    message = shop.messages[5]
    shop.restart(flip([(message, 3)], mend=False), rebuild=True)
    assert len(shop.changelog()) == 5
    report = shop.audit()
    faults = chain_faults(report)
    assert {fault.topic for fault in faults} == {"stock.v1", "orders.v1"}
    assert all(fault.expected.startswith("the workers' group at offset") for fault in faults)
    assert {fault.kind for fault in report.faults} == {"chain", "input"}


def test_a_record_cut_out_of_the_changelog_is_found_and_located(shop):
    taken, following = shop.messages[5:7]

    def cut(segment):
        at, size = next((at, size) for at, size, offset in batches_of(segment) if offset == taken.offset())
        del segment[at : at + size]
        return segment

    shop.restart(cut, rebuild=True)
    (fault,) = chain_faults(shop.audit())
    assert (fault.topic, fault.partition, fault.offset) == (CHANGELOG, 0, following.offset())
    assert (fault.expected, fault.found) == ("batch 6, part 1", "batch 7, part 1")


def test_a_record_put_into_the_changelog_is_found_and_located_and_what_follows_is_judged(shop):
    shop.restart(rebuild=True)
    assert shop.audit().clean
    with running(shop.settings, shop.directory, 1) as workers:
        shop.send_and_wait(workers)
        last = shop.changelog()[-1]
        headers = dict(last.headers()) | {"batch": str(int(dict(last.headers())["batch"]) + 1).encode()}
        forged = []
        producer = Producer({"bootstrap.servers": shop.settings.bootstrap_servers})
        told = {"on_delivery": lambda error, message: forged.append(message.offset())}
        producer.produce(CHANGELOG, last.value(), last.key(), 0, headers=headers, **told)
        producer.flush(30)
        shop.send_and_wait(workers)
        workers.stop()
    report = shop.audit()
    (fault,) = report.faults
    assert (fault.kind, fault.topic, fault.partition, fault.offset) == ("chain", CHANGELOG, 0, forged[0])
    assert "inserted" in fault.found
    assert report.unprocessed == 0
