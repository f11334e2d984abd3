"""The audit of clicks over what the real pipeline makes of them, and over logs that were spoiled."""

import json
import random
from collections import defaultdict

import pytest

from config.settings import load_settings
from streams.audit import audit_log, limits_of
from streams.audit.log import Record
from streams.batch.pipeline import Segment
from streams.demand.pipeline import ClicksPipeline
from tests.memory_log import MemoryLog

T0 = 1_700_000_000_000
TOPICS = ("clicks.v1", "demand.v1", "dead-letter.v1", "clicks-changelog.v1")


def click(rng: random.Random, number: int) -> bytes:
    """A click, or something bad."""
    if rng.random() < 0.05:
        return rng.choice([b"{", b"[]", b'{"kind": "whim"}', b'{"kind": "view"}'])
    number = number if rng.random() < 0.95 else rng.randrange(number + 1)
    fields = {"event_id": f"c{number}", "event_time": T0, "visitor_id": rng.choice("vvvw"), "channel": "web"}
    fields["kind"] = rng.choice(["view", "view", "search", "cart", "wishlist", "checkout"])
    fields |= {"sku": f"S{rng.choice('/%x')}{rng.randrange(3)}"} if rng.random() < 0.9 else {}
    fields |= {"pool_id": rng.choice(["uk", "ié"])} if rng.random() < 0.9 else {}
    fields |= {"event_time": rng.choice([5, T0 // 1000, T0 * 1000, T0 + 10**8])} if rng.random() < 0.03 else {}
    return json.dumps(fields).encode()


class Topics:
    """The records of one partition, as a broker would keep them."""

    def __init__(self, partition: int = 2):
        self.partition = partition
        self.records: dict[str, list[Record]] = defaultdict(list)
        self.now = T0

    def append(self, topic: str, key, value, headers=()) -> Record:
        record = Record(len(self.records[topic]), self.now, key, value, tuple(headers))
        self.records[topic].append(record)
        return record

    def commit(self, outcome) -> None:
        for topic, messages in outcome.outputs.items():
            for message in messages:
                self.append(topic, message["key"], message["value"])
        number, link = str(outcome.sequence).encode(), outcome.link.hex().encode()
        headers = [("batch", number), ("part", b"1/1"), ("link", link)]
        self.append("clicks-changelog.v1", b"batch", outcome.changelog, headers)

    def audit(self, settings, **arguments):
        records = {(topic, self.partition): found for topic, found in self.records.items()}
        log = MemoryLog(records, dict.fromkeys(TOPICS, self.partition + 1), **arguments)
        return audit_log(log, limits_of(settings), complete=True)


def run(seed: int, clicks: int, most: int, restarts: float = 0.0, **changed) -> tuple[Topics, object]:
    settings = load_settings(bootstrap_servers="nowhere:1", demand_window_ms=60_000, demand_buckets=6, **changed)
    rng, topics = random.Random(seed), Topics()
    pipeline = ClicksPipeline(topics.partition, 3, settings)
    values: list[bytes] = []
    while len(values) < clicks:
        taken = []
        for _ in range(rng.randint(1, most)):
            topics.now += rng.choice([0, 1, 100, 5_000, -700])
            values.append(rng.choice(values) if values and rng.random() < 0.1 else click(rng, len(values)))
            taken.append(topics.append("clicks.v1", b"v", values[-1]))
        if rng.random() < restarts:
            pipeline = ClicksPipeline(topics.partition, 3, settings)
            for record in topics.records["clicks-changelog.v1"]:
                pipeline.restore(record.value, bytes.fromhex(dict(record.headers)["link"].decode()))
            pipeline.seal()
        topics.commit(pipeline.process(pipeline.decode([Segment.of("clicks.v1", taken)]), []))
    return topics, settings


@pytest.mark.parametrize("seed", range(6))
def test_what_the_pipeline_makes_of_clicks_is_clean(seed):
    topics, settings = run(seed, clicks=400, most=[1, 7, 40][seed % 3], restarts=0.05)
    report = topics.audit(settings)
    assert not report.faults
    assert report.events["clicks.v1"] >= 400
    assert min(report.outcomes[name] for name in ("applied", "duplicate", "dead_letter")) > 5
    assert len(topics.records["demand.v1"]) > 100


def test_a_full_window_refuses_exactly_what_it_must():
    topics, settings = run(3, clicks=400, most=9, restarts=0.05, max_demand_rows=5)
    report = topics.audit(settings)
    assert not report.faults
    assert report.dead_letters["too_many_skus"] > 5


def test_forgotten_event_ids_count_again():
    topics, settings = run(1, clicks=300, most=5, dedupe_events=10, dedupe_hours=0)
    assert not topics.audit(settings).faults


def edit(topics: Topics, topic: str, at: int, **fields) -> None:
    record = topics.records[topic][at]
    topics.records[topic][at] = record._replace(value=json.dumps(json.loads(record.value) | fields).encode())


def _views_are_wrong(topics):
    edit(topics, "demand.v1", 40, views=99)


def _the_window_is_wrong(topics):
    edit(topics, "demand.v1", 40, window_start=7)


def _a_record_is_missing(topics):
    del topics.records["demand.v1"][40]


def _a_record_stands_twice(topics):
    topics.records["demand.v1"].insert(40, topics.records["demand.v1"][40])


def _a_record_of_no_batch(topics):
    record = topics.records["demand.v1"][-1]
    topics.append("demand.v1", record.key, json.dumps(json.loads(record.value) | {"version": 10**6}).encode())


def _a_record_has_the_wrong_key(topics):
    topics.records["demand.v1"][40] = topics.records["demand.v1"][40]._replace(key=b"uk/S1/0")


def _a_click_was_another(topics):
    offset = next(
        r.offset for r in topics.records["clicks.v1"] if b'"view"' in r.value and b"sku" in r.value and b"uk" in r.value
    )
    edit(topics, "clicks.v1", offset, kind="cart")


@pytest.mark.parametrize(
    "spoil",
    [
        _views_are_wrong,
        _the_window_is_wrong,
        _a_record_is_missing,
        _a_record_stands_twice,
        _a_record_of_no_batch,
        _a_record_has_the_wrong_key,
        _a_click_was_another,
    ],
)
def test_demand_that_is_not_what_the_clicks_add_up_to_is_found(spoil):
    topics, settings = run(5, clicks=200, most=7)
    spoil(topics)
    report = topics.audit(settings)
    assert "demand" in {fault.kind for fault in report.faults}


def test_a_click_in_two_batches_or_none_is_found():
    topics, settings = run(5, clicks=100, most=7)
    topics.records["clicks.v1"].append(topics.records["clicks.v1"][-1]._replace(offset=len(topics.records["clicks.v1"])))
    assert [fault.kind for fault in topics.audit(settings).faults] == ["input"]


def test_a_dead_letter_of_a_good_click_is_found():
    topics, settings = run(5, clicks=100, most=7)
    good = next(r.offset for r in topics.records["clicks.v1"] if b"visitor_id" in r.value)
    edit(topics, "dead-letter.v1", 0, offset=good)
    assert {fault.kind for fault in topics.audit(settings).faults} == {"dead_letter"}


def test_the_clicks_offsets_must_be_those_of_their_changelog():
    topics, settings = run(5, clicks=100, most=7)
    end = len(topics.records["clicks.v1"])
    assert topics.audit(settings, offsets={("clicks.v1", 2): end}).clean
    (fault,) = topics.audit(settings, offsets={("clicks.v1", 2): end - 1}).faults
    assert (fault.kind, fault.topic, fault.partition, fault.offset) == ("chain", "clicks.v1", 2, end - 1)
