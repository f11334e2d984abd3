"""A small, honest pipeline for the flow's tests, and a worker that runs it: `python counting.py SETTINGS_JSON`.

It gives each event the partition's next number and publishes it to allocations.v1. Its state is that number and a running
hash of all events in the order taken, so that a state rebuilt wrongly shows in every later output.
"""

import json
import logging
import sys
import time
import zlib

import numpy as np

from config.settings import Settings
from state.changelog import FIRST_LINK, next_link
from state.columns import SCHEMA
from streams.batch.pipeline import ChangelogGap, LocationChange, Outcome, Segment
from streams.worker import app, flows
from streams.worker.groups import Group
from streams.worker.transactions import Doubt
from topics.codec.messages import Messages

TOPICS = ("sales.v1", "stock.v1", "orders.v1", "fulfilments.v1", "ticks.v1")
OUTPUT = "allocations.v1"
CHANGELOG = "inventory-changelog.v1"
SLOW = b"slow"  # a record with this value takes 100 ms
GATE = b"gate"  # a record with this value takes until the file `gate` is in the data directory
WRONG = b"wrong"  # at a record with this value the pipeline raises
TICKING = b"ticking"  # from a record with this value on, its key is a pool that waits on time


class WorkerSettings(Settings):
    fail_at: str = ""
    snapshot_interval_ms: int = 0  # its changelog has no tables
    doubt_at: str = ""  # as fail_at, but the transaction's fate becomes unknown there


class CountingPipeline:
    topics = TOPICS
    changelog_topic = CHANGELOG

    def __init__(self, partition: int, partitions: int, settings: Settings):
        self.partition = partition
        self.sequence = 0
        self.link = FIRST_LINK
        self.next_offsets: dict[str, int] = {}
        self.number = 0
        self.digest = 0
        self.locations: dict[str, list] = {}
        self.pools: set[bytes] = set()
        self.sealed = False
        self.gate = settings.data_directory / "gate"

    def process(self, segments: list[Segment], locations: list[LocationChange]) -> Outcome:
        assert self.sealed
        changes = self._new(locations)
        if not segments and not changes:
            return Outcome({}, b"", {}, self.sequence)
        self.sequence += 1
        first, outputs = {}, []
        for change in changes:
            self.locations[change.key.decode()] = [change.partition, change.offset]
        for segment in segments:
            first[segment.topic] = next(iter(segment)).offset
            for record in segment:
                expected = self.next_offsets.get(segment.topic, 0)
                assert record.offset >= expected, f"{segment.topic}: {record.offset} again, {expected} expected"
                assert record.value != WRONG, "told to fail"
                if record.value == SLOW:
                    time.sleep(0.1)
                while record.value == GATE and not self.gate.exists():
                    time.sleep(0.01)
                if record.value == TICKING:
                    self.pools.add(record.key)
                self.next_offsets[segment.topic] = record.offset + 1
                self.number += 1
                self.digest = zlib.crc32(b"%s %d" % (segment.topic.encode(), record.offset), self.digest)
                value = f"{segment.topic} {record.offset} {self.number} {self.digest} {len(self.locations)}"
                message = {"key": b"%d" % self.number, "value": value.encode()}
                if record.headers:
                    message["headers"] = list(record.headers)
                outputs.append(message)
        moved = {segment.topic: self.next_offsets[segment.topic] for segment in segments}
        state = {
            "batch": self.sequence,
            "first": first,
            "next": moved,
            "number": self.number,
            "digest": self.digest,
            "locations": self.locations,
            "pools": [pool.decode() for pool in self.pools],
            "padding": "x" * 1000 * len(outputs),  # so that some records have to be cut
        }
        count = {(segment.topic, "applied"): len(segment) for segment in segments}
        timestamps = [record.timestamp for segment in segments for record in segment]
        record = json.dumps(state).encode()
        self.link = next_link(self.link, record)
        return Outcome(
            {OUTPUT: Messages.of(outputs)} if outputs else {}, record, moved, self.sequence, count, {}, self.link,
            np.array(timestamps, np.int64),
        )  # fmt: skip

    def _new(self, locations: list[LocationChange]) -> list[LocationChange]:
        return [
            change
            for change in locations
            if self.locations.get(change.key.decode(), [-1, -1]) < [change.partition, change.offset]
        ]

    def decode(self, segments: list[Segment]) -> list[Segment]:
        return segments

    def lacks_locations(self, decoded: list[Segment]) -> bool:
        return any(record.value == b"where" for segment in decoded for record in segment)

    def kept_products(self) -> tuple[bytes, ...]:
        return ()

    def needs_ticks(self, now_ms: float) -> list[bytes]:
        return sorted(self.pools)

    def restore(self, record: bytes, link: bytes) -> None:
        state = json.loads(record)
        if state["batch"] != self.sequence + 1:
            raise ChangelogGap(f"batch {self.sequence + 1} expected, found {state['batch']}")
        self.sequence, self.link = state["batch"], link
        self.number, self.digest, self.locations = state["number"], state["digest"], state["locations"]
        self.pools = {pool.encode() for pool in state["pools"]}
        self.next_offsets.update(state["next"])

    def seal(self) -> None:
        self.sealed = True


def doubtful(doubt_at):
    name, hits = doubt_at.split(":")
    left = int(hits)

    def passed(at):
        nonlocal left
        left -= at == name
        if at == name and left == 0:
            raise Doubt("told to doubt")

    return passed


GROUP = Group("counting", TOPICS, CHANGELOG, CountingPipeline, SCHEMA, expendable=("ticks.v1",))

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    for noisy in ("faust", "aiokafka", "mode"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    options = json.loads(sys.argv[1])
    settings = WorkerSettings(**options)
    if settings.doubt_at:
        flows.fail_points = lambda _: doubtful(settings.doubt_at)
    sys.exit(app.run_worker(settings, [GROUP]))
