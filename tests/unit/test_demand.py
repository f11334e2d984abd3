"""What a click does to demand.v1: what counts, when it counts, how long, and what is refused."""

import base64
from dataclasses import dataclass

import numpy as np
import orjson
import pytest

from config.settings import Settings
from state import changelog
from streams.batch.pipeline import ChangelogGap, Segment
from streams.demand.pipeline import ClicksPipeline
from topics.events import EARLIEST_MS
from topics.outputs import DeadLetterRecord, Demand

START_MS = 1_700_000_100_000  # begins a minute, and five
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


@dataclass(slots=True)
class LogRecord:
    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = b"v"
    headers: tuple = ()


class Partition:
    """A pipeline and its log: `send` appends one batch and gives its outcome."""

    def __init__(self, partition=0, **changed):
        self.settings = Settings(bootstrap_servers="none:1", **changed)
        self.pipeline = ClicksPipeline(partition, 4, self.settings)
        self.pipeline.seal()
        self.offset = 0

    def send(self, *given):
        """Each of `given`: (timestamp, value), (timestamp, value, headers) or what `click` gives."""
        records = [LogRecord(self.offset + i, time, value, headers=tuple(more)) for i, (time, value, *more) in enumerate(given)]
        self.offset += len(records)
        return self.pipeline.process(self.pipeline.decode([Segment.of("clicks.v1", records)] if records else []), [])


def click(after_ms=0, event_id=None, kind="view", **more):
    """(Timestamp, value); `event_id` is different each time unless given."""
    click.number += 1
    value = {
        "event_id": event_id or f"e{click.number}",
        "event_time": START_MS,
        "visitor_id": "v",
        "kind": kind,
        "channel": "web",
    }
    value |= {"sku": "A", "pool_id": "uk"} | more
    return START_MS + after_ms, orjson.dumps({name: found for name, found in value.items() if found is not None})


click.number = 0


def demands(outcome):
    return {
        message["key"].decode(): Demand.model_validate_json(message["value"])
        for message in outcome.outputs.get("demand.v1", [])
    }


def counts(demand):
    return demand.views, demand.carts, demand.checkouts


def test_views_carts_and_checkouts_are_counted_per_pool_and_sku():
    outcome = Partition(partition=3).send(
        click(), click(kind="cart"), click(kind="checkout"), click(), click(sku="B"), click(pool_id="fr", kind="cart")
    )
    found = demands(outcome)
    assert {key: counts(demand) for key, demand in found.items()} == {
        "uk/A/3": (2, 1, 1),
        "uk/B/3": (1, 0, 0),
        "fr/A/3": (0, 1, 0),
    }
    assert {(demand.pool_id, demand.sku, demand.partition) for demand in found.values()} == {
        ("uk", "A", 3),
        ("uk", "B", 3),
        ("fr", "A", 3),
    }
    assert outcome.counts == {("clicks.v1", "applied"): 6}
    assert outcome.offsets == {"clicks.v1": 6}
    assert outcome.sequence == 1


def test_pool_a_slash_b_and_sku_c_are_not_pool_a_and_sku_b_slash_c():
    partition = Partition()
    messages = partition.send(click(pool_id="a/b", sku="c"), click(pool_id="a", sku="b/c")).outputs["demand.v1"]
    assert sorted((orjson.loads(m["value"])["sku"], orjson.loads(m["value"])["views"]) for m in messages) == [
        ("b/c", 1),
        ("c", 1),
    ]


@pytest.mark.parametrize(
    "more",
    [{"kind": "search"}, {"kind": "wishlist"}, {"sku": None}, {"pool_id": None}],
    ids=["search", "wishlist", "sku", "pool"],
)
def test_a_click_that_says_nothing_of_demand_is_applied_and_gives_none(more):
    partition = Partition()
    outcome = partition.send(click(event_id="x", **more))
    assert outcome.counts == {("clicks.v1", "applied"): 1}
    assert outcome.outputs == {}
    assert partition.send(click(event_id="x", **more)).counts == {("clicks.v1", "duplicate"): 1}
    assert partition.send(click(event_id="x")).counts == {("clicks.v1", "dead_letter"): 1}


def test_texts_come_out_as_they_went_in():
    sku, pool = 'q"\\\u00e9\U0001f600' + "x" * 120, "p" * 128
    (demand,) = demands(Partition().send(click(sku=sku, pool_id=pool))).values()
    assert (demand.sku, demand.pool_id) == (sku, pool)


def test_a_click_counts_for_a_window_and_falls_out_with_the_step_it_was_in():
    partition = Partition()
    partition.send(click(59_999))
    still = demands(partition.send(click(HOUR_MS - 1, kind="cart")))["uk/A/0"]
    assert counts(still) == (1, 1, 0)
    assert (still.window_start, still.window_ms) == (START_MS, HOUR_MS)
    gone = demands(partition.send(click(HOUR_MS, sku="B")))["uk/A/0"]
    assert counts(gone) == (0, 1, 0)
    assert gone.window_start == START_MS + MINUTE_MS
    assert gone.updated_at == START_MS + HOUR_MS
    assert gone.version > still.version


def test_what_a_sender_says_of_the_time_moves_nothing():
    partition = Partition()
    partition.send(click(0), click(1_000, event_time=START_MS + 60_000))
    assert counts(demands(partition.send(click(2_000, event_time=EARLIEST_MS)))["uk/A/0"]) == (3, 0, 0)


def test_a_record_stamped_in_the_past_counts_now():
    partition = Partition()
    partition.send(click(HOUR_MS), click(0))
    found = demands(partition.send(click(2 * HOUR_MS - 1)))["uk/A/0"]
    assert counts(found) == (3, 0, 0)


@pytest.mark.parametrize("what", ["bad", "duplicate", "search"])
def test_any_record_moves_the_window(what):
    partition = Partition()
    partition.send(click(0, event_id="first"))
    later = START_MS + 2 * HOUR_MS
    sent = {
        "bad": (later, b"?"),
        "duplicate": click(2 * HOUR_MS, event_id="first"),
        "search": click(2 * HOUR_MS, kind="search"),
    }
    assert counts(demands(partition.send(sent[what]))["uk/A/0"]) == (0, 0, 0)


def test_a_row_changed_often_in_a_batch_is_published_once_as_it_is_at_the_end():
    outcome = Partition().send(*(click(i) for i in range(9)))
    (message,) = outcome.outputs["demand.v1"]
    assert Demand.model_validate_json(message["value"]).views == 9


def test_a_version_grows_even_if_the_row_was_empty_in_between():
    partition = Partition()
    versions = [demands(partition.send(click(i * 2 * HOUR_MS)))["uk/A/0"].version for i in range(3)]
    partition.send(click(7 * HOUR_MS, kind="search"))
    versions.append(demands(partition.send(click(8 * HOUR_MS)))["uk/A/0"].version)
    assert versions == sorted(set(versions))


def test_the_same_event_id_counts_once():
    partition = Partition()
    outcome = partition.send(click(0, event_id="x"), click(0, event_id="x"))
    assert outcome.counts == {("clicks.v1", "applied"): 1, ("clicks.v1", "duplicate"): 1}
    again = partition.send(click(23 * HOUR_MS, event_id="x", customer_id="c", campaign_id="m"))
    assert again.counts == {("clicks.v1", "duplicate"): 1}
    assert counts(demands(again)["uk/A/0"]) == (0, 0, 0)


def test_an_event_id_is_its_visitors_own_and_stands_for_one_click():
    partition = Partition()
    partition.send(click(event_id="x"))
    assert partition.send(click(event_id="x", visitor_id="w")).counts == {("clicks.v1", "applied"): 1}
    for change in ({"kind": "cart"}, {"sku": "B"}, {"pool_id": "fr"}, {"channel": "app"}, {"latitude": 1}, {"longitude": 1}):
        (letter,) = partition.send(click(event_id="x", **change)).outputs["dead-letter.v1"]
        letter = DeadLetterRecord.model_validate_json(letter["value"])
        assert letter.reason == "event_id_reused" and "which visitor 'v' has used" in letter.detail


def test_an_event_id_is_forgotten_when_it_is_neither_among_the_last_nor_young():
    partition = Partition(dedupe_events=2, dedupe_hours=1)
    partition.send(click(0, event_id="x"), click(0), click(0))
    assert partition.send(click(HOUR_MS, event_id="x")).counts == {("clicks.v1", "duplicate"): 1}
    assert partition.send(click(HOUR_MS + 1, event_id="x")).counts == {("clicks.v1", "applied"): 1}


BAD = {
    "not_json": b"?",
    "missing_field": b"{}",
    "wrong_field": click(channel=5)[1],
    "out_of_range": click(latitude=91)[1],
    "time_out_of_range": click(event_time=START_MS // 1000)[1],
    "unknown_kind": click(kind="stare")[1],
    "too_large": b" " * (4 << 20) + click()[1],
}


def test_a_bad_click_goes_whole_to_the_dead_letters_and_costs_no_good_one():
    trace = ("traceparent", b"00-aa-bb-01")
    sent = [item for value in BAD.values() for item in ((START_MS, value, trace, ("other", b"")), click())]
    outcome = Partition(partition=2).send(*sent)
    letters = [DeadLetterRecord.model_validate_json(message["value"]) for message in outcome.outputs["dead-letter.v1"]]
    assert [letter.reason for letter in letters] == list(BAD)
    assert [base64.b64decode(letter.value) for letter in letters] == list(BAD.values())
    assert [(letter.topic, letter.partition, letter.offset) for letter in letters] == [
        ("clicks.v1", 2, 2 * i) for i in range(len(BAD))
    ]
    assert all(letter.detail for letter in letters)
    assert [message["headers"] for message in outcome.outputs["dead-letter.v1"]] == [[trace]] * len(BAD)
    assert counts(demands(outcome)["uk/A/2"]) == (len(BAD), 0, 0)
    assert outcome.counts == {("clicks.v1", "applied"): len(BAD), ("clicks.v1", "dead_letter"): len(BAD)}


def test_a_record_without_a_value_or_key_is_refused_or_counted_like_any():
    partition = Partition()
    records = [LogRecord(0, START_MS, None, None), LogRecord(1, START_MS, click()[1], None)]
    outcome = partition.pipeline.process(partition.pipeline.decode([Segment.of("clicks.v1", records)]), [])
    assert outcome.counts == {("clicks.v1", "dead_letter"): 1, ("clicks.v1", "applied"): 1}


def test_a_row_carries_the_trace_of_the_click_that_changed_it_last():
    first, last = ("traceparent", b"1"), ("traceparent", b"2")
    outcome = Partition().send((*click(), first), (*click(), last), click(sku="B"), (*click(kind="search"), first))
    found = {message["key"]: message.get("headers") for message in outcome.outputs["demand.v1"]}
    assert found == {b"uk/A/0": [last], b"uk/B/0": None}


def test_nothing_in_gives_nothing_out_and_no_batch():
    outcome = Partition().send()
    assert (outcome.outputs, outcome.changelog, outcome.offsets, outcome.sequence) == ({}, b"", {}, 0)


def test_a_changelog_record_says_what_was_read():
    partition = Partition(partition=1)
    partition.send(click())
    manifest, _ = changelog.manifest_of(partition.send(click(), click()).changelog)
    assert (manifest["batch"], manifest["partition"], manifest["topics"]) == (2, 1, ["clicks.v1"])
    assert manifest["inputs"] == [{"topic": "clicks.v1", "first": 1, "next": 3, "count": 2}]


def test_a_gap_in_the_changelog_is_found():
    partition = Partition()
    records = [partition.send(click()).changelog for _ in range(3)]
    restored = Partition().pipeline
    restored.restore(records[0], bytes(32))
    with pytest.raises(ChangelogGap, match="expected batch 2, found 3"):
        restored.restore(records[2], bytes(32))


def test_a_changelog_that_reads_an_offset_twice_is_refused():
    one, other = Partition(), Partition()
    first = one.send(click(), click()).changelog
    other.send(click())
    second = other.send(click()).changelog
    restored = Partition().pipeline
    restored.restore(first, bytes(32))
    with pytest.raises(ChangelogGap, match="offset 1, but was already read up to 2"):
        restored.restore(second, bytes(32))


def test_memory_follows_the_window_not_the_history():
    partition = Partition(demand_window_ms=10_000, demand_buckets=10, dedupe_events=1, dedupe_hours=0)
    for second in range(200):
        partition.send(*(click(second * 1_000, sku=f"{second}-{i}") for i in range(20)))
    state = partition.pipeline.state
    assert np.count_nonzero(state.rows("rows")["id_size"]) == 10 * 20
    # A batch's new rows are made before those that it emptied are free.
    assert len(state.rows("rows")) <= 11 * 20
    assert len(state.rows("steps")) <= 11 * 20
    assert int(state.row["heap_size"][0]) <= 11 * 20 * 16
    assert state.t.seen.size == 256


def test_a_window_of_another_length_takes_over_what_was_counted():
    before = Partition(demand_window_ms=HOUR_MS, demand_buckets=60)
    records = [before.send(click(minute * MINUTE_MS)).changelog for minute in range(30)]
    after = Partition(demand_window_ms=10 * MINUTE_MS, demand_buckets=2)
    for record in records:
        after.pipeline.restore(record, bytes(32))
    after.pipeline.seal()
    after.offset = 30
    found = demands(after.send(click(30 * MINUTE_MS)))["uk/A/0"]
    assert counts(found) == (6, 0, 0)  # of the minutes 25 to 30
    assert counts(demands(after.send(click(41 * MINUTE_MS)))["uk/A/0"]) == (1, 0, 0)
