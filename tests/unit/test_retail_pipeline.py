"""The retail workload through the inventory pipeline, without a broker: what the records say in advance is what happens."""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

import config
from benchmarks.record import APPLIED, Record
from benchmarks.retail.workload import NOW_MS, retail_events
from config.network import Network, load_network
from streams.batch.pipeline import LocationChange
from streams.inventory.pipeline import InventoryPipeline
from tests.bad_records import bad_fulfilments, bad_records, too_large
from tests.inventory_log import LogRecord, segments, settings
from topics.keys import partition_of

BATCH = 1_000
STREAM_MS = 20_000


@dataclass
class Site:
    """The pipelines of all partitions, fed as a log would, and what came out of them."""

    network: Network
    partitions: int
    offsets: Counter = field(default_factory=Counter)
    sent: dict[tuple[str, int, int], Record] = field(default_factory=dict)
    refused: dict[tuple[str, int, int], str] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    allocations: list[dict] = field(default_factory=list)

    def __post_init__(self):
        self.pipelines = [InventoryPipeline(p, self.partitions, settings()) for p in range(self.partitions)]
        changes = [
            LocationChange(0, offset, NOW_MS, location.id.encode(), orjson.dumps(location.model_dump()))
            for offset, location in enumerate(self.network.locations)
        ]
        for pipeline in self.pipelines:
            pipeline.process(pipeline.decode([]), changes)

    def send(self, records: list[Record], start_ms: int, end_ms: int) -> None:
        """Append records to the log, evenly from start to end, and process them in batches."""
        logs: list[list[LogRecord]] = [[] for _ in self.pipelines]
        for number, record in enumerate(records):
            home = partition_of(record.key, self.partitions) if record.key else 0
            partition = home if record.partition is None else record.partition
            offset = self.offsets[record.topic, partition]
            self.offsets[record.topic, partition] += 1
            self.sent[record.topic, partition, offset] = record
            timestamp = start_ms + (end_ms - start_ms) * number // len(records)
            logs[partition].append(LogRecord(record.topic, offset, timestamp, record.key, record.value))
        for pipeline, log in zip(self.pipelines, logs, strict=True):
            for first in range(0, len(log), BATCH):
                self._process(pipeline, log[first : first + BATCH])

    def _process(self, pipeline: InventoryPipeline, batch: list[LogRecord]) -> None:
        outcome = pipeline.process(pipeline.decode(segments(batch)), [])
        self.counts.update(outcome.counts)
        for message in outcome.outputs.get("dead-letter.v1", []):
            letter = orjson.loads(message["value"])
            self.refused[letter["topic"], letter["partition"], letter["offset"]] = letter["reason"]
        self.allocations += [orjson.loads(message["value"]) for message in outcome.outputs.get("allocations.v1", [])]


def mixed(good: list[Record], bad: list[Record]) -> list[Record]:
    """Both lists in one, each in its own order."""
    sources = [good] * len(good) + [bad] * len(bad)
    random.Random(7).shuffle(sources)
    iterators = {id(good): iter(good), id(bad): iter(bad)}
    return [next(iterators[id(source)]) for source in sources]


def network_of(name: str) -> Network:
    return load_network(Path(config.__file__).parent / "networks" / f"{name}.yaml")


@pytest.mark.parametrize(("name", "partitions"), [("uk", 1), ("uk4", 4)])
def test_every_record_becomes_what_the_workload_says(name, partitions):
    network = network_of(name)
    site = Site(network, partitions)
    work = retail_events(network.locations)
    bad = [*bad_records(network.locations, NOW_MS, partitions=partitions), too_large(network.locations, NOW_MS)]
    site.send(work.opening, NOW_MS, NOW_MS)
    site.send(mixed(work.stream, bad), NOW_MS, NOW_MS + STREAM_MS)

    fates = {APPLIED, "duplicate", "stale"}
    expected = {place: record.outcome for place, record in site.sent.items() if record.outcome not in fates}
    assert site.refused == expected
    outcomes = Counter(
        (record.topic, record.outcome if record.outcome in fates else "dead_letter") for record in site.sent.values()
    )
    assert site.counts == outcomes

    # Tight stock: every kind of decision occurs, and what comes later rescues some who waited.
    first: dict[str, dict] = {}
    for allocation in site.allocations:
        first.setdefault(allocation["order_id"], allocation)
    statuses = Counter(allocation["status"] for allocation in site.allocations)
    assert set(statuses) == {"allocated", "partial", "backordered", "held", "cancelled", "expired", "rejected"}
    assert statuses["expired"] >= work.facts["holds_abandoned"] - 2
    promised = sum(line["quantity"] for a in first.values() for s in a["shipments"] for line in s["lines"])
    waiting = sum(line["quantity"] for a in first.values() for line in a["unallocated"])
    assert 0.8 < promised / (promised + waiting) < 0.95
    assert sum(len(allocation["shipments"]) > 1 for allocation in first.values()) > 200
    assert sum(allocation != first[allocation["order_id"]] for allocation in site.allocations) > 200


def test_good_records_are_decided_as_if_the_bad_ones_were_not_there():
    network = network_of("uk")
    work = retail_events(network.locations, lines=3_000)

    def decisions(records: list[Record]) -> list:
        site = Site(network, 1)
        site.send(work.opening, NOW_MS, NOW_MS)
        # A millisecond each: the order between topics is the list's, and no hold expires meanwhile.
        site.send(records, NOW_MS, NOW_MS + len(records))
        return [
            (
                allocation["order_id"],
                allocation["status"],
                [(shipment["location_id"], shipment["lines"]) for shipment in allocation["shipments"]],
                allocation["unallocated"],
            )
            for allocation in site.allocations
            if not allocation["order_id"].startswith("bad-")
        ]

    assert decisions(mixed(work.stream, bad_records(network.locations, NOW_MS))) == decisions(work.stream)


def test_bad_answers_to_a_shipment_are_refused_as_they_say():
    network = network_of("uk")
    site = Site(network, 1)
    work = retail_events(network.locations, lines=2_000)
    site.send(work.opening + work.stream, NOW_MS, NOW_MS)
    allocation = next(
        allocation
        for allocation in reversed(site.allocations)
        if allocation["status"] == "allocated" and allocation["shipments"][0]["kind"] == "ship"
    )
    used = {shipment["location_id"] for shipment in allocation["shipments"]}
    other = next(location.id for location in network.locations if location.id not in used)
    site.refused.clear()
    site.send(bad_fulfilments(allocation, other, NOW_MS), NOW_MS, NOW_MS)
    answers = {place: record.outcome for place, record in site.sent.items() if place[0] == "fulfilments.v1"}
    assert site.refused == {place: outcome for place, outcome in answers.items() if outcome != APPLIED}
    assert site.counts["fulfilments.v1", APPLIED] == 1
