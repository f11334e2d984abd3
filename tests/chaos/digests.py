"""A partition's state, come by in ways that share as little as can be: they must agree, or one of them is wrong.

`folded`: the changelog, record by record, into an empty pipeline. `replayed`: the inputs themselves, in the order that the
changelog says they were taken, through an empty pipeline in batches of another cut. `from_snapshot`: the snapshot on a
worker's disk, and the changelog's tail. Each gives pool id → digest; the live worker logs its own when it stops.
Not here: comparing them (rest.py).
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from config.settings import Settings
from state import changelog
from state.digest import digest
from state.store import Store, StoreDamaged
from streams.batch.pipeline import LocationChange, Segment
from streams.inventory.pipeline import InventoryPipeline
from streams.worker.owner import CLAIM

LONGEST = 40  # events of a batch of `replayed`
Read = Callable[[str, int], Iterator[Any]]
"""(Topic, partition) → its committed messages, from the first."""


@dataclass(slots=True)
class Taken:
    """An input record as a pipeline takes it."""

    topic: str
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple = ()


def pool_digests(pipeline: InventoryPipeline) -> dict[str, str]:
    """Give each pool's digest."""
    return {key.decode(): digest(state) for key, state in sorted(pipeline.pools.items())}


def batches(read: Read, partition: int) -> Iterator[tuple[dict[str, Any], memoryview]]:
    """Yield each batch's manifest and blobs."""
    parts: list[bytes] = []
    for message in read(InventoryPipeline.changelog_topic, partition):
        if message.key() == CLAIM:
            continue
        part, count = dict(message.headers())["part"].split(b"/")
        parts.append(message.value())
        if part == count:
            yield changelog.manifest_of(b"".join(parts))
            parts = []


def count_batches(read: Read, partition: int) -> int:
    """Count the batches of the changelog."""
    return sum(1 for _ in batches(read, partition))


def folded(read: Read, partition: int, partitions: int, settings: Settings) -> dict[str, str]:
    """Fold the changelog into an empty pipeline."""
    pipeline = InventoryPipeline(partition, partitions, settings)
    for manifest, blobs in batches(read, partition):
        for pool in manifest["pools"]:
            pipeline.pool(pool["pool_id"].encode()).fold(changelog.delta_of(pool["tables"], blobs))
    pipeline.seal()
    return pool_digests(pipeline)


def from_snapshot(directory: Path, read: Read, partition: int, partitions: int, settings: Settings) -> dict[str, str] | None:
    """Fold the changelog's tail onto a snapshot; None if there is none, or one that is known to be damaged."""
    pipeline = InventoryPipeline(partition, partitions, settings)
    identity = {"changelog": pipeline.changelog_topic, "partition": partition, "partitions": partitions}
    try:
        store = Store(directory, identity, pipeline.schema)
        try:
            cursor, pools = store.cursor, store.read()
        finally:
            store.close()
    except StoreDamaged:
        return None
    if cursor is None:
        return None
    for pool_id, delta in pools.items():
        pipeline.pool(pool_id.encode()).fold(delta)
    for manifest, blobs in batches(read, partition):
        if manifest["batch"] > cursor["batch"]:
            for pool in manifest["pools"]:
                pipeline.pool(pool["pool_id"].encode()).fold(changelog.delta_of(pool["tables"], blobs))
    pipeline.seal()
    return pool_digests(pipeline)


def replayed(read: Read, partition: int, partitions: int, settings: Settings, seed: int) -> dict[str, str]:
    """Apply the partition's inputs, in the changelog's order, in batches cut by the seed."""
    pipeline = InventoryPipeline(partition, partitions, settings)
    pipeline.seal()
    inputs = {topic: _records(read, topic, partition) for topic in InventoryPipeline.topics}
    taken: list[Taken] = []
    chance = random.Random(seed)
    for manifest, blobs in batches(read, partition):
        at, size = manifest["order"]["at"], manifest["order"]["bytes"]
        if manifest["locations"]:
            _apply(pipeline, taken, chance)
            taken = []
            pipeline.process(pipeline.decode([]), [_change(change) for change in manifest["locations"]])
        taken.extend(next(inputs[manifest["topics"][code]]) for code in bytes(blobs[at : at + size]))
    _apply(pipeline, taken, chance)
    return pool_digests(pipeline)


def _records(read: Read, topic: str, partition: int) -> Iterator[Taken]:
    for message in read(topic, partition):
        headers = tuple(message.headers() or ())
        yield Taken(topic, message.offset(), message.timestamp()[1], message.key(), message.value(), headers)


def _change(change: dict[str, Any]) -> LocationChange:
    key = None if change["key"] is None else change["key"].encode()
    value = None if change["value"] is None else orjson.dumps(change["value"])
    return LocationChange(change["partition"], change["offset"], change["timestamp"], key, value)


def _apply(pipeline: InventoryPipeline, taken: list[Taken], chance: random.Random) -> None:
    for batch in cuts(taken, chance):
        by_topic: dict[str, list[Taken]] = {}
        for record in batch:
            by_topic.setdefault(record.topic, []).append(record)
        pipeline.process(pipeline.decode([Segment.of(topic, records) for topic, records in by_topic.items()]), [])


def cuts(taken: Iterable[Taken], chance: random.Random) -> Iterator[list[Taken]]:
    """Cut records, in the order they were applied, into batches that a pipeline applies in this very order.

    A pipeline merges the topics of a batch by time; so a batch ends where the order taken is not that of time, which between
    topics must be a strict one.
    """
    batch: list[Taken] = []
    latest: dict[str, int] = {}  # topic → the latest time in this batch
    at, longest = 0, chance.randint(1, LONGEST)
    for record in taken:
        time = max(record.timestamp, latest.get(record.topic, 0))
        joins_on = not batch or time > at or (time == at and record.topic == batch[-1].topic)
        if len(batch) >= longest or not joins_on:
            yield batch
            batch, latest, longest = [], {}, chance.randint(1, LONGEST)
            time = record.timestamp
        batch.append(record)
        latest[record.topic] = at = time
    if batch:
        yield batch
