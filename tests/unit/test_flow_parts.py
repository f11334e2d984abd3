"""The parts around the flow, each by itself: fetching, recovery's checks, the changelog's parts, metrics, fail points."""

import asyncio
import signal
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Place
from faust.types import TP
from kio.schema.errors import ErrorCode
from prometheus_client import CollectorRegistry, generate_latest

from config.settings import load_settings
from state.changelog import FIRST_LINK, next_link
from streams.batch.pipeline import ChangelogGap, Outcome
from streams.kafka.fetching import Fetcher
from streams.kafka.librdkafka import handle_of, produce_spans
from streams.worker import transactions
from streams.worker.backlog import Waiting, fitting
from streams.worker.chain import Chain
from streams.worker.failpoints import FAIL_POINTS, fail_points
from streams.worker.locations import LocationFeed
from streams.worker.metrics import Histogram
from streams.worker.recovery import Inconsistent, read_positions
from topics.codec.messages import Messages
from topics.codec.records import Record, Records
from topics.events import LocationRecord

# Fetching


def log_batch(first, values, producer=-1, transactional=False, compression=0, headers=()):
    builder = DefaultRecordBatchBuilder(2, compression, transactional, producer, 0, 0, 1 << 20)
    for place, value in enumerate(values):
        builder.append(place, 1_000 + place, b"key", value, list(headers))
    written = bytearray(builder.build())
    written[0:8] = first.to_bytes(8, "big")
    return bytes(written)


def spoil(batch, name):
    """Put bytes that are no UTF-8 in place of a header's name."""
    spoilt = bytearray(batch.replace(name, b"\xff" * len(name)))
    spoilt[17:21] = calc_crc32c(bytes(spoilt[21:])).to_bytes(4, "big")
    return bytes(spoilt)


class Fetches:
    """A fetcher that is given answers, and what it hands on."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(Fetcher, "_start", lambda *_: None)
        self.taken, self.lost = [], []
        settings = load_settings(topic_prefix="shop.")
        self.fetcher = Fetcher(settings, self.taken.append, lambda *which: self.lost.append(which), None)
        self.fetcher.assign({PLACE: 5})

    def asked(self, offset):
        self.fetcher.seek(PLACE, offset)
        return {PLACE: (self.fetcher._positions[PLACE], offset)}

    def answer(self, wanted, *batches, aborted=(), code=ErrorCode.none):
        part = SimpleNamespace(
            partition_index=3,
            error_code=code,
            high_watermark=99,
            records=b"".join(batches),
            aborted_transactions=[SimpleNamespace(producer_id=each, first_offset=first) for each, first in aborted],
        )
        topic = SimpleNamespace(topic="shop.a.v1", partitions=[part])
        return self.fetcher._judge(SimpleNamespace(error_code=ErrorCode.none, responses=[topic]), wanted)

    def fetch(self, offset, *batches, **own):
        self.answer(self.asked(offset), *batches, **own)
        return self.taken[-1]

    @property
    def position(self):
        return self.fetcher._positions[PLACE]


PLACE = ("a.v1", 3)


@pytest.fixture
def fetches(monkeypatch):
    return Fetches(monkeypatch)


def test_a_fetch_is_one_range_of_raw_records_and_moves_the_position(fetches):
    found = fetches.fetch(5, log_batch(5, [b"1", b"2"]), log_batch(7, [b"3"], compression=3))
    assert (found.topic, found.partition, found.start, found.end, found.highwater) == ("a.v1", 3, 5, 8, 99)
    assert [(record.offset, record.key, record.value) for record in found.records] == [
        (5, b"key", b"1"),
        (6, b"key", b"2"),
        (7, b"key", b"3"),
    ]
    assert fetches.position.offset == 8


def test_a_fetch_that_begins_within_a_batch_leaves_out_what_is_below(fetches):
    found = fetches.fetch(6, log_batch(5, [b"1", b"2", b"3"]))
    assert (found.start, [record.offset for record in found.records]) == (6, [6, 7])


def test_aborted_records_are_left_out_and_the_range_goes_over_them(fetches):
    aborted = log_batch(5, [b"1", b"2"], producer=9, transactional=True)
    found = fetches.fetch(5, aborted, log_batch(7, [b"3"]), aborted=[(9, 5)])
    assert (found.start, found.end, [record.offset for record in found.records]) == (5, 8, [7])


def test_a_header_whose_name_is_no_text_stops_nothing(fetches):
    committed = log_batch(4, [b"0", b"1"], producer=9, transactional=True)
    aborted = log_batch(6, [b"2", b"3"], producer=9, transactional=True)
    spoilt = spoil(log_batch(8, [b"4", None], headers=[("name", b"x"), ("b", b"y")]), b"name")
    whole = log_batch(10, [b"6"], headers=[("name", b"x")])
    found = fetches.fetch(5, committed, aborted, spoilt, whole, aborted=[(9, 6)])
    unread = [("\ufffd" * 4, b"x"), ("b", b"y")]
    assert [(record.offset, record.timestamp, record.value, list(record.headers)) for record in found.records] == [
        (5, 1_001, b"1", []),
        (8, 1_000, b"4", unread),
        (9, 1_001, None, unread),
        (10, 1_000, b"6", [("name", b"x")]),
    ]
    assert {record.key for record in found.records} == {b"key"}
    assert (found.start, found.end, fetches.position.offset) == (5, 11, 11)


@pytest.mark.parametrize("meanwhile", ["sought", "assigned", "revoked"])
def test_a_fetch_from_before_a_seek_or_an_assignment_is_thrown_away(fetches, meanwhile):
    wanted = fetches.asked(5)
    if meanwhile == "sought":
        fetches.fetcher.seek(PLACE, 2)
    else:
        fetches.fetcher.assign({PLACE: 2} if meanwhile == "assigned" else {})
    fetches.answer(wanted, log_batch(5, [b"1"]))
    assert not fetches.taken
    assert meanwhile == "revoked" or fetches.position.offset == 2


def test_an_offset_that_the_log_lacks_is_told_once_and_not_fetched_until_it_is_sought(fetches):
    fetches.position.leader = ("a", 1)
    fetches.answer(fetches.asked(5), code=ErrorCode.offset_out_of_range)
    assert fetches.lost == [("a.v1", 3, 5)] and fetches.fetcher._ready(("a", 1)) == []
    fetches.fetcher.seek(PLACE, 7)
    assert [each.offset for each in fetches.fetcher._ready(("a", 1))] == [7]


def test_another_leader_is_looked_up_and_any_other_code_waits(fetches):
    fetches.position.leader = ("a", 1)
    assert not fetches.answer(fetches.asked(5), code=ErrorCode.unknown_server_error)
    assert fetches.position.leader == ("a", 1)
    assert not fetches.answer(fetches.asked(5), code=ErrorCode.not_leader_or_follower)
    assert fetches.position.leader is None and fetches.fetcher._homeless() == [fetches.position]


def test_a_held_partition_is_left_out_though_it_is_assigned_anew(fetches):
    fetches.position.leader = ("a", 1)
    fetches.fetcher.throttle([PLACE], True)
    fetches.fetcher.assign({PLACE: 9})
    assert fetches.fetcher._ready(("a", 1)) == []
    fetches.fetcher.throttle([PLACE], False)
    assert [each.offset for each in fetches.fetcher._ready(("a", 1))] == [9]


# Batches


def waiting(*sizes):
    records = Records.of(Record(offset, 0, None, b"x" * size, []) for offset, size in enumerate(sizes))
    return Waiting(0.0, "a.v1", records, sum(sizes))


@pytest.mark.parametrize(
    ("sizes", "rows", "size_bytes", "must", "expected"),
    [
        ((5, 5, 5), 3, 15, False, (3, 15)),
        ((5, 5, 5), 2, 15, False, (2, 10)),
        ((5, 5, 5), 3, 14, False, (2, 10)),
        ((50, 5), 3, 10, False, (0, 0)),
        ((50, 5), 3, 10, True, (1, 50)),
    ],
)
def test_as_many_records_fit_as_rows_and_bytes_allow(sizes, rows, size_bytes, must, expected):
    assert fitting(waiting(*sizes), rows, size_bytes, must) == expected


# Recovery


class Part:
    def __init__(self, headers, value, offset=42):
        self._headers, self._value, self._offset = headers, value, offset

    def headers(self):
        return self._headers

    def key(self):
        return b"batch"

    def value(self):
        return self._value

    def topic(self):
        return "log"

    def partition(self):
        return 0

    def offset(self):
        return self._offset


def parts_of(*batches):
    """The changelog of batches, each given as the contents of its parts."""
    made, link = [], FIRST_LINK
    for number, contents in enumerate(batches, 1):
        link = next_link(link, b"".join(contents))
        for part, content in enumerate(contents, 1):
            headers = [("batch", b"%d" % number), ("part", b"%d/%d" % (part, len(contents))), ("link", link.hex().encode())]
            made.append(Part(headers, content, len(made)))
    return made


def test_batches_come_together_from_their_parts_with_their_places():
    batches = list(Chain().batches(parts_of([b"a"], [b"b", b"c", b"d"])))
    assert [(batch.number, batch.record, batch.at, batch.next) for batch in batches] == [(1, b"a", 0, 1), (2, b"bcd", 1, 4)]
    assert batches[1].link == next_link(next_link(FIRST_LINK, b"a"), b"bcd")


def test_a_chain_goes_on_from_any_batch():
    parts = parts_of([b"a"], [b"b"], [b"c"])
    first = next(Chain().batches(parts))
    assert [batch.record for batch in Chain(first.number, first.link).batches(parts[1:])] == [b"b", b"c"]


def altered(part, value):
    return Part(part.headers(), value, part.offset())


LOG = parts_of([b"a"], [b"b1", b"b2"], [b"c"])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (LOG[1:], "part 1 of batch 1 expected, found part 1 of batch 2"),
        ([LOG[0], LOG[2]], "part 1 of batch 2 expected, found part 2 of batch 2"),
        ([LOG[0], LOG[1], LOG[3]], "part 2 of batch 2 expected, found part 1 of batch 3"),
        ([LOG[0], LOG[0]], "part 1 of batch 2 expected, found part 1 of batch 1"),
        (LOG[:2], "ends with part 1 of batch 2, which has more"),
        ([altered(LOG[0], b"x")], "offset 0: batch 1 does not follow"),
        ([LOG[0], LOG[1], altered(LOG[2], b"b3")], "offset 2: batch 2 does not follow"),
        ([parts_of([b"x"])[0], *LOG[1:]], "offset 2: batch 2 does not follow"),  # altered, and its own link made anew
        ([Part([], b"")], r"log\[0\] at offset 42: headers"),
        ([Part([("batch", b""), ("part", b""), ("link", b"")], b"")], r"log\[0\] at offset 42: headers"),
        ([Part([("batch", b"1"), ("part", b"1/1")], b"")], r"log\[0\] at offset 42: headers"),
    ],
)
def test_what_is_missing_or_altered_in_the_changelog_is_found_at_its_place(parts, said):
    with pytest.raises(ChangelogGap, match=said):
        list(Chain().batches(parts))


RANGES = {"a": (0, 9), "b": (2, 5)}


@pytest.mark.parametrize(
    ("restored", "committed", "expected"),
    [
        ({}, {}, {"a": 0, "b": 2}),  # the first start
        ({"a": 9, "b": 3}, {"a": 9, "b": 3}, {"a": 9, "b": 3}),
        ({"a": 4}, {"a": 4}, {"a": 4, "b": 2}),
        ({"a": 4}, {}, {"a": 4, "b": 2}),  # the group was idle so long that its offsets expired
    ],
)
def test_offsets_and_changelog_that_agree_say_where_to_read_on(restored, committed, expected):
    assert read_positions(restored, committed, RANGES) == expected


@pytest.mark.parametrize(
    ("restored", "committed", "said"),
    [
        ({"a": 4}, {"a": 5}, "a: the group's committed offset is 5, the changelog ends at 4"),
        ({}, {"a": 5}, "a: the group's committed offset is 5, the changelog ends at None"),
        ({"b": 1}, {"b": 1}, "b: to be read on from offset 1, but the log holds 2 to 5"),
        ({"b": 6}, {"b": 6}, "b: to be read on from offset 6, but the log holds 2 to 5"),
    ],
)
def test_offsets_changelog_and_inputs_that_contradict_each_other_are_refused(restored, committed, said):
    with pytest.raises(Inconsistent, match=said):
        read_positions(restored, committed, RANGES)


def test_records_that_may_be_deleted_unread_may_be_missing():
    assert read_positions({"b": 1}, {"b": 1}, RANGES, expendable=["b"]) == {"a": 0, "b": 2}


# Transactions


class Sent:
    """Stands in for librdkafka's producer."""

    def __init__(self):
        self.messages = []

    def produce(self, topic, partition, **message):
        self.messages.append((topic, partition, message))


def producer(sent):
    made = object.__new__(transactions.PartitionProducer)
    made._producer, made._partition, made._changelog_topic = sent, 2, "log"
    made._owner, made._topic_prefix = b"t", ""
    return made


def test_a_changelog_record_is_cut_into_parts_that_join_again():
    sent = Sent()
    record = bytes(range(256)) * 6_000
    producer(sent)._send_changelog(Outcome({}, record, {}, 1, link=next_link(FIRST_LINK, record)))
    parts = [Part(message["headers"], message["value"]) for _, _, message in sent.messages]
    assert len(parts) == 3
    assert max(len(part.value()) for part in parts) <= transactions.PART_BYTES
    assert [batch.record for batch in Chain().batches(parts)] == [record]
    assert {(topic, partition, message["key"]) for topic, partition, message in sent.messages} == {("log", 2, b"batch")}


def test_messages_with_headers_keep_their_place_among_those_without():
    sent = Sent()
    messages = [
        {"key": b"a", "value": b"1"},
        {"key": None, "value": b"2", "headers": [("h", b"x")]},
        {"key": b"", "value": b"3"},
        {"key": b"gone", "value": None},
    ]
    producer(sent)._send("out", Messages.of(messages))
    assert [message for _, _, message in sent.messages] == messages


def test_messages_that_librdkafka_does_not_take_are_not_left_out():
    real = Producer({"bootstrap.servers": "127.0.0.1:1", "client.id": "me", "queue.buffering.max.messages": 2, "log_level": 0})
    made = producer(real)
    made._produce_block = partial(produce_spans, handle_of(real, "me"))
    with pytest.raises(transactions.Refused, match="a message to out was not accepted: Local: Queue full"):
        made._send("out", Messages.of([{"value": b"1"}] * 3))
    real.purge()


def test_librdkafka_sends_keys_and_values_that_are_missing_as_missing():
    """By the stand-in for a cluster that librdkafka itself has."""
    real = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1, "client.id": "me", "log_level": 0})
    broker = next(iter(real.list_topics("out", timeout=30).brokers.values()))
    reader = Consumer({"bootstrap.servers": f"{broker.host}:{broker.port}", "group.id": "g", "log_level": 0})
    reader.assign([Place("out", 0, 0)])
    sent = [(b"a", b"1"), (b"gone", None), (None, b"2"), (b"empty", b"")]
    for buffer, spans in Messages.of([{"key": key, "value": value} for key, value in sent]).blocks:
        produce_spans(handle_of(real, "me"), "out", 0, buffer, spans)
    assert real.flush(30) == 0
    assert [(message.key(), message.value()) for message in reader.consume(len(sent), 30)] == sent
    reader.close()


def test_a_handle_is_proven_to_be_one():
    real = Producer({"bootstrap.servers": "127.0.0.1:1", "client.id": "me", "log_level": 0})
    with pytest.raises(ImportError, match=r"expected the handle of 'you'.*found b'me#producer-"):
        handle_of(real, "you")


# Locations


def test_a_new_inbox_has_the_latest_record_of_each_location_in_the_order_of_the_log():
    feed = _feed(2)
    early = feed.subscribe(lambda: None)
    feed._take([Told(0, 1, b"a", b"1"), Told(1, 1, b"b", b"1"), Told(0, 2, b"c", b"1")])
    feed._take([Told(1, 4, b"b", None), Told(0, 7, b"a", b"2"), Told(0, 8, None, None, end=True)])
    assert [(change.partition, change.offset) for change in feed.subscribe(lambda: None).take()] == [
        (0, 2),
        (0, 7),
        (1, 4),
    ]
    assert [(change.partition, change.offset) for change in early.take()] == [(0, 1), (1, 1), (0, 2), (1, 4), (0, 7)]
    assert not early.take()
    assert feed._reached == {("locations.v1", 0): 8, ("locations.v1", 1): 5, ("products.v1", 0): -1}


def test_a_new_inbox_has_a_locations_latest_good_record_too_so_that_its_pool_is_known():
    feed = _feed(1)
    good = LocationRecord(id="a", pool="uk", kind="store", latitude=51.0, longitude=0.0).model_dump_json().encode()
    feed._take([Told(0, 1, b"a", good), Told(0, 2, b"a", good), Told(0, 3, b"a", b"{"), Told(0, 4, b"a", None)])
    assert [change.offset for change in feed.subscribe(lambda: None).take()] == [2, 4]


def test_of_products_only_kits_what_was_one_and_what_cannot_be_read_are_passed_on():
    feed, kit = _feed(1), b'{"kit": [{"sku": "p", "quantity": 1}]}'
    values = [b'{"name": "x"}', kit, b"{", b'{"kit": null}', b'{"sku": "other"}', None]
    feed._take([Told(0, at, b"%d" % at, value, topic="products.v1") for at, value in enumerate(values)])
    feed._take([Told(0, 6, b"1", b'{"name": "no kit any more"}', topic="products.v1")])
    feed._take([Told(0, 7, b"2", None, topic="products.v1"), Told(0, 8, b"9", b'{"sku": "9"}', topic="products.v1")])
    assert [change.offset for change in feed.subscribe(lambda: None).take()] == [4, 6, 7]


def test_a_kit_that_ended_while_nobody_looked_is_passed_on_to_who_has_it_still():
    feed, told = _feed(1), [Told(0, at, key, b"{}", topic="products.v1") for at, key in enumerate((b"a", b"b"))]
    feed._take(told)
    feed.want([b"b", b"c"], SimpleNamespace(read=lambda topic, starts: iter(told)))
    feed._take([Told(0, 2, b"c", b"{}", topic="products.v1"), Told(0, 3, b"a", b"{}", topic="products.v1")])
    assert [change.offset for change in feed.subscribe(lambda: None).take()] == [1, 2]


def _feed(partitions):
    """A feed that reads nothing itself."""
    feed = object.__new__(LocationFeed)
    places = [*(("locations.v1", number) for number in range(partitions)), ("products.v1", 0)]
    feed._condition, feed._latest, feed._good, feed._inboxes = threading.Condition(), {}, {}, []
    feed._reached, feed._wanted = dict.fromkeys(places, -1), set()
    return feed


class Told:
    def __init__(self, partition, offset, key, value, end=False, topic="locations.v1"):
        self.topic = lambda: topic
        self.partition, self.offset = lambda: partition, lambda: offset
        self.key, self.value, self.timestamp = lambda: key, lambda: value, lambda: (1, 99 - offset)
        self.error = lambda: transactions.KafkaError(transactions.KafkaError._PARTITION_EOF) if end else None


# Metrics


def test_a_histogram_counts_a_whole_array_as_prometheus_counts_values_one_by_one():
    histogram = Histogram("x_seconds", "help", ("group",), np.array([1.0, 2.0, 5.0]))
    histogram.observe(np.array([0.5, 1.0, 1.5, 7.0]), "g")
    histogram.observe(3.0, "g")
    histogram.observe(np.empty(0), "g")
    registry = CollectorRegistry()
    registry.register(histogram)
    text = generate_latest(registry).decode()
    for line in (
        'x_seconds_bucket{group="g",le="1"} 2.0',
        'x_seconds_bucket{group="g",le="2"} 3.0',
        'x_seconds_bucket{group="g",le="5"} 4.0',
        'x_seconds_bucket{group="g",le="+Inf"} 5.0',
        'x_seconds_count{group="g"} 5.0',
        'x_seconds_sum{group="g"} 13.0',
    ):
        assert line in text


# Fail points


@pytest.mark.parametrize("wrong", ["nowhere:1", "after_flush", "after_flush:0", "after_flush:x"])
def test_a_wrong_fail_point_is_named(wrong):
    with pytest.raises(ValueError, match="fail_at must be NAME:HITS"):
        fail_points(wrong)


@pytest.mark.parametrize("name", FAIL_POINTS)
def test_a_fail_point_kills_at_the_given_hit_and_not_before(name):
    program = (
        f"from streams.worker.failpoints import fail_points; passed = fail_points('{name}:3')\n"
        "for hit in range(1, 9):\n    passed('another'); print(hit, flush=True); passed(" + repr(name) + ")"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.split()) == (-signal.SIGKILL, ["1", "2", "3"])


def test_without_a_fail_point_nothing_happens():
    assert [fail_points("")(name) for name in FAIL_POINTS] == [None] * len(FAIL_POINTS)


# The assignment


def test_a_partition_of_which_a_topic_is_missing_is_refused():
    from streams.worker.flows import Flows, NotCopartitioned
    from streams.worker.groups import Group

    signals = SimpleNamespace(connect=lambda handler: None)
    app = SimpleNamespace(
        on_partitions_revoked=signals, on_partitions_assigned=signals, on_rebalance_complete=signals,
        on_before_shutdown=signals, settings=SimpleNamespace(app_id="t"),
    )  # fmt: skip
    flows = Flows(app, [Group("g", ("a", "b"), "log", None, None), Group("clicks", ("c",), "clog", None, None)], ())
    flows._partitions = {"a": 2, "b": 2, "c": 3}
    whole = [TP("a", 0), TP("b", 0), TP("c", 2)]
    assert flows._owned(whole) == {("g", 0), ("clicks", 2)}
    with pytest.raises(NotCopartitioned, match="partition 1 of b was assigned without a"):
        flows._owned([*whole, TP("b", 1)])
    with pytest.raises(NotCopartitioned, match="had 3 partitions when this worker started, now there is a partition 3"):
        flows._owned([*whole, TP("c", 3)])
    assert asyncio.iscoroutinefunction(flows.on_revoked)
