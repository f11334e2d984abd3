"""Fuzzing the whole pipelines: no record stops them, each has one outcome, bad ones are kept whole, good ones undisturbed.

A round takes a log of good events and puts odd records between them: any topic, key, headers. What the models refuse is
garbage: it can't matter but for its time. So the log is played once more with a tick in each garbage record's place, and all
that was published and the state must be the same. The odd records that the models take (some are events of the very shop,
changed a little) are in both runs. A round called wild has timestamps that jump and go back, and is not played again.
"""

import json
import random
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from config.settings import Settings
from streams.batch.pipeline import LocationChange, Outcome, Segment
from streams.demand.pipeline import ClicksPipeline
from streams.inventory.pipeline import InventoryPipeline
from tests.fuzz import inputs
from tests.fuzz.report import Found
from tests.inventory_log import START_MS, LogRecord, make_log, segments
from tests.property import test_codec_parity as parity
from topics.catalogue import INVENTORY_TOPICS
from topics.events import Refusal, judge
from topics.keys import partition_of

ROUND = 2_000
GOOD_EVENTS = 250
KEYS = (b"uk", b"uk", b"uk", b"fr", b"fr", None, b"", b"mars", b"\xff\xfe", b"u" * 500, b"uk\x00", "ük".encode())
HEADERS = (
    (),
    (),
    (),
    (("traceparent", b"00-1-2-01"),),
    (("traceparent", None), ("traceparent", b"\xff")),
    (("", b""), ("x" * 300, b"y" * 300)),
)

Batches = list[tuple[list[Segment], list[LocationChange]]]
Played = tuple[list[Outcome], Any]  # and the pipeline as it is then
Places = dict[tuple[str, int], tuple[str, int]]  # a tick's topic and offset → those of what it stands for


def run_round(seed: str, count: int, wild: bool = False) -> Found:
    """Put so many odd records between a shop's events, and a few between its locations."""
    rng = random.Random(seed)
    log = make_log(rng.randrange(1 << 30), GOOD_EVENTS, tight=rng.choice([2, 6, 30]))
    partitions = rng.choice([1, 1, 2, 3])
    partition = partition_of(b"uk", partitions)
    good = [replace(record, headers=rng.choice(HEADERS)) for record in log.records]
    records, garbage = _mixed(rng, good, [_odd_record(rng, good, INVENTORY_TOPICS) for _ in range(count)], wild)
    changes = _odd_changes(rng, log.locations, count // 50)
    cut = _Cut(rng, len(records), log.locations)
    found = Found(inputs=count + len(changes), good=len(good))
    make = lambda: InventoryPipeline(partition, partitions, Settings(bootstrap_servers="none:1"))  # noqa: E731
    played = _play_and_check(make, cut.batches(records, changes), found, owns_all=partitions == 1)
    if played and not wild:
        ticked, places = _ticked(records, garbage)
        bad = {(records[i].topic, records[i].offset) for i in garbage}
        bad |= {("locations.v1", change.offset) for change in changes if not _matters(change)}
        _compare(played, make, cut.batches(ticked, [change for change in changes if _matters(change)]), places, bad, found)
    return found


def run_clicks_round(seed: str, count: int, wild: bool = False) -> Found:
    """Put so many odd records between clicks."""
    rng = random.Random(seed)
    clicks = (
        parity.good(rng, "clicks.v1") | {"event_id": f"e{i}", "sku": f"s{i % 9}", "pool_id": "uk"} for i in range(GOOD_EVENTS)
    )
    good = [LogRecord("clicks.v1", 0, 0, b"v", orjson.dumps(click), rng.choice(HEADERS)) for click in clicks]
    records, garbage = _mixed(rng, good, [_odd_record(rng, good, ["clicks.v1"]) for _ in range(count)], wild)
    cut = _Cut(rng, len(records), [])
    found = Found(inputs=count, good=len(good))
    settings = Settings(bootstrap_servers="none:1", demand_window_ms=rng.choice([60_000, 3_600_000]))
    make = lambda: ClicksPipeline(0, 1, settings)  # noqa: E731
    played = _play_and_check(make, cut.batches(records, []), found)
    if played and not wild:
        bare = [replace(record, value=b"?") if i in garbage else record for i, record in enumerate(records)]
        bad = {(records[i].topic, records[i].offset) for i in garbage}
        _compare(played, make, cut.batches(bare, []), {}, bad, found)
    return found


# Making a log


def _odd_record(rng: random.Random, good: list[LogRecord], topics: Sequence[str]) -> LogRecord:
    """A record of any sort, often one of this very shop with something changed."""
    headers = rng.choice(HEADERS)
    if rng.random() < 0.4:
        former = rng.choice(good)
        spoil = _spoil if rng.random() < 0.7 else parity.mutate
        return replace(former, key=rng.choice([former.key, rng.choice(KEYS)]), value=spoil(rng, former.value), headers=headers)
    topic = rng.choice(topics)
    return LogRecord(topic, 0, 0, rng.choice(KEYS), None if rng.random() < 0.01 else inputs.odd(rng, topic), headers)


def _spoil(rng: random.Random, value: bytes) -> bytes:
    """Change a field or two; an id of its own, mostly, or it would be a duplicate."""
    event = parity.spoil(rng, json.loads(value))
    if isinstance(event, dict) and rng.random() < 0.7:
        event["event_id"] = f"odd-{rng.randrange(1 << 40)}"
    return json.dumps(event).encode()


def _mixed(rng: random.Random, good: list[LogRecord], odd: list[LogRecord], wild: bool) -> tuple[list[LogRecord], set[int]]:
    """Put odd records between the good ones, which keep their order; give all offsets and times, and tell which are garbage."""
    places = sorted(rng.choices(range(len(good) + 1), k=len(odd)))
    mixed, at = [], 0
    for i, record in enumerate(good):
        while at < len(odd) and places[at] <= i:
            mixed.append(odd[at])
            at += 1
        mixed.append(record)
    mixed += odd[at:]
    offsets: dict[str, int] = {}
    now, records = START_MS, []
    for record in mixed:
        now += rng.choice([1, 1, 5, 700])
        offsets[record.topic] = offsets.get(record.topic, -1) + rng.choice([1, 1, 3])
        time = rng.choice([now, now - 5_000, 0, -1, 253_402_300_799_999]) if wild and rng.random() < 0.1 else now
        records.append(replace(record, offset=offsets[record.topic], timestamp=time))
    return records, {i for i, record in enumerate(records) if isinstance(judge(record.topic, record.value), Refusal)}


def _odd_changes(rng: random.Random, known: list[LocationChange], count: int) -> list[LocationChange]:
    """Records of locations.v1 that follow the network's: most of them bad."""
    changes = []
    for i in range(count):
        former = rng.choice(known)
        levels = rng.choice([3, 100, 190, 250, 300, 2_000])
        deep = former.value[:-1] + b',"note":' + b"[" * levels + b"]" * levels + b"}"
        value = rng.choice([None, former.value, parity.mutate(rng, former.value), inputs.noise(rng, ""), b"{}", deep])
        key = rng.choice([former.key, former.key, None, b"", b"nowhere", b"\xff"])
        changes.append(LocationChange(0, len(known) + i, START_MS, key, value))
    return changes


def _matters(change: LocationChange) -> bool:
    """Tell whether a change of locations may change something: those the models take, and removals."""
    return change.value is None or not isinstance(judge("locations.v1", change.value), Refusal)


class _Cut:
    """One way to cut a log into batches, to be used for several logs of the same length."""

    def __init__(self, rng: random.Random, count: int, network: list[LocationChange]):
        self._network = network
        self._sizes = []
        while sum(self._sizes) < count:
            self._sizes.append(rng.choice([1, 2, 10, 100, 500]))

    def batches(self, records: list[LogRecord], changes: list[LocationChange]) -> Batches:
        """The network comes with the first batch; of the other changes each with the batch of its number, the rest at last."""
        due = {change.offset - len(self._network) + 1: change for change in changes}
        found, at = [(segments(records[: self._sizes[0]]), self._network)], self._sizes[0]
        for number, size in enumerate(self._sizes[1:], 1):
            found.append((segments(records[at : at + size]), [due.pop(number)] if number in due else []))
            at += size
        return [*found, ([], list(due.values()))]


def _ticked(records: list[LogRecord], garbage: set[int]) -> tuple[list[LogRecord], Places]:
    """Put a tick in each garbage record's place; with those of the log's own, all are numbered anew."""
    ticked, places, ticks = [], {}, 0
    for i, record in enumerate(records):
        if i in garbage or record.topic == "ticks.v1":
            places["ticks.v1", ticks] = (record.topic, record.offset)
            value = orjson.dumps({"pool_id": "uk"}) if i in garbage else record.value
            record = replace(record, topic="ticks.v1", offset=ticks, value=value)
            ticks += 1
        ticked.append(record)
    return ticked, places


# Playing and checking


def _play_and_check(make: Callable, batches: Batches, found: Found, owns_all: bool = True) -> Played | None:
    """Run the batches, and check each by itself and what the changelog gives back; None after a stop."""
    played = _play(make, batches, found)
    if played is None:
        return None
    outcomes, pipeline = played
    for (given, changes), outcome in zip(batches, outcomes, strict=True):
        found.refused += _check_batch(given, changes if owns_all else [], changes, outcome, found)
    restored = make()
    for outcome in outcomes:
        if outcome.changelog:
            restored.restore(outcome.changelog, outcome.link)
    restored.seal()
    if restored.digests() != pipeline.digests():
        found.stops.append("the changelog gives another state back")
    return played


def _play(make: Callable, batches: Batches, found: Found) -> Played | None:
    """Run the batches; what raises is a stop."""
    pipeline, outcomes = make(), []
    for given, changes in batches:
        try:
            decoded = pipeline.decode(given)
            pipeline.lacks_locations(decoded)
            outcomes.append(pipeline.process(decoded, changes))
        except Exception as error:
            shown = [(segment.topic, record.key, record.value) for segment in given for record in segment]
            found.stops.append(f"{type(error).__name__}: {error!s:.300} at {shown!r:.2000}")
            return None
    return outcomes, pipeline


def _check_batch(
    given: list[Segment], own: list[LocationChange], changes: list[LocationChange], outcome: Outcome, found: Found
) -> int:
    """Each record has one outcome, and what was refused is in the dead letters, whole and once. Returns how many were."""
    records: dict[tuple[str, int], Any] = {(one.topic, record.offset): record for one in given for record in one}
    letters = [(orjson.loads(message["value"]), message) for message in outcome.outputs.get("dead-letter.v1", [])]
    places = [(letter["topic"], letter["offset"]) for letter, _ in letters]
    if sum(outcome.counts.values()) != len(records):
        found.stops.append(f"{len(records)} records, outcomes {outcome.counts}")
    counted = Counter({topic: number for (topic, fate), number in outcome.counts.items() if fate == "dead_letter"})
    if counted != Counter(topic for topic, _ in places if topic != "locations.v1") or len(places) != len(set(places)):
        found.stops.append(f"dead letters counted {counted}, written {places!r:.1000}")
    refused = {place for place, record in records.items() if isinstance(judge(place[0], record.value), Refusal)}
    refused |= {("locations.v1", change.offset) for change in own if not _matters(change)}
    if not refused <= set(places):
        found.stops.append(f"no dead letter for {sorted(refused - set(places))}")
    records |= {("locations.v1", change.offset): change for change in changes}
    for (letter, message), place in zip(letters, places, strict=True):
        _check_letter(records.get(place), letter, message, found)
    return len(letters)


def _check_letter(record: Any, letter: dict, message: dict, found: Found) -> None:
    key, value = (None if letter[part] is None else b64decode(letter[part]) for part in ("key", "value"))
    traces = [header for header in getattr(record, "headers", ()) if header[0] == "traceparent"]
    said = key, value, letter["timestamp"], message["key"], message.get("headers", [])
    if record is None or said != (record.key, record.value, record.timestamp, record.key, traces) or not letter["detail"]:
        found.stops.append(f"not whole: {letter!r:.1000} for {record!r:.1000}")


def _compare(played: Played, make: Callable, batches: Batches, places: Places, bad: set, found: Found) -> None:
    """Play the log without its garbage: the state and all that was published, but the garbage's letters, must be the same."""
    other = _play(make, batches, found)
    if other is None:
        return
    if played[1].digests() != other[1].digests():
        found.lost.append("the state is another with garbage between the good events")
    for topic in ("allocations.v1", "inventory.v1", "transfers.v1", "supplies.v1", "demand.v1", "dead-letter.v1"):
        one, two = Counter(_published(played[0], topic, {}, bad)), Counter(_published(other[0], topic, places, bad))
        if one != two:
            found.lost.append(f"{topic}: {list((one - two).items())!r:.500} became {list((two - one).items())!r:.500}")


def _published(outcomes: list[Outcome], topic: str, places: Places, bad: set) -> list[bytes]:
    """What was published but for the garbage's letters; causes are named by the garbage, not by the ticks in its place."""
    found = []
    for outcome in outcomes:
        for message in outcome.outputs.get(topic, []):
            value = orjson.loads(message["value"] or b"{}")
            cause = value.get("source", value)
            if "topic" in cause:
                place = cause["topic"], cause["offset"]
                cause["topic"], cause["offset"] = place = places.get(place, place)
                if cause is value and place in bad:
                    continue
            found.append(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
    return found
