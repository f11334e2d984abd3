"""What must be true of a seed's log: by the auditor, by a reader that followed all along, and by the state in all its forms.

Not here: when it is asked (run.py).
"""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from state import changelog
from state.changelog import FIRST_LINK, next_link
from state.store import Store, StoreDamaged, StoreForeign
from streams.audit import audit_log, limits_of
from streams.audit.log import Record
from streams.batch.inputs import Inputs
from streams.batch.pipeline import LocationChange, Pipeline, Segment
from streams.worker.chain import Chain
from streams.worker.groups import Group
from streams.worker.owner import CLAIM
from streams.worker.snapshots import GroupPartition, _cursor
from tests.memory_log import MemoryLog
from tests.simulation.clients import Message
from tests.simulation.kafka import MARKER, Cluster, Entry, Partition


class Follower:
    """A reader of committed records who is there all along; tells at once what no reader may ever see."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.problems: list[str] = []
        self.decisions: list[dict] = []
        self.batches = 0
        self._seen = -1
        self._positions: dict[tuple[str, int], int] = {}
        self._sequences: dict[str, int] = {}
        self._ids: set[str] = set()
        self._versions: dict[bytes, int] = {}

    def look(self) -> None:
        """Read what has become visible since the last look."""
        if self._seen == self.cluster.changes:
            return
        self._seen = self.cluster.changes
        for topic, see in (
            ("allocations.v1", self._decision),
            ("inventory.v1", self._cell),
            ("inventory-changelog.v1", self._batch),
        ):
            for number in range(self.cluster.partition_counts[topic]):
                start = self._positions.get((topic, number), 0)
                entries, self._positions[topic, number] = self.cluster.partitions[topic, number].read(start, 1_000_000)
                for entry in entries:
                    see(entry)

    def _batch(self, entry: Any) -> None:
        self.batches += entry.key != CLAIM

    def _decision(self, entry: Any) -> None:
        decision = orjson.loads(entry.value)
        pool, sequence = decision["pool_id"], decision["sequence"]
        expected = self._sequences.get(pool, 0) + 1
        if sequence != expected:
            self.problems.append(f"reader: decision {expected} of pool {pool} expected, found {sequence}")
        self._sequences[pool] = sequence
        if decision["allocation_id"] in self._ids:
            self.problems.append(f"reader: decision {decision['allocation_id']} seen twice")
        self._ids.add(decision["allocation_id"])
        self.decisions.append(decision)

    def _cell(self, entry: Any) -> None:
        cell = orjson.loads(entry.value)
        shown = f"{entry.key} version {cell['version']}"
        if cell["version"] <= self._versions.get(entry.key, 0):
            self.problems.append(f"reader: {shown} after version {self._versions[entry.key]}")
        self._versions[entry.key] = cell["version"]
        if cell["available"] != max(0, cell["on_hand"] - cell["reserved"] - cell["safety_stock"]) or cell["reserved"] < 0:
            self.problems.append(f"reader: {shown} contradicts itself: {cell}")


def visible(partition: Partition) -> list[Any]:
    return partition.read(0, 1_000_000)[0]


def audited(cluster: Cluster, settings: Any) -> list[str]:
    """The auditor's answer on the whole log."""
    records = {
        place: [Record(entry.offset, entry.timestamp, entry.key, entry.value, entry.headers) for entry in visible(partition)]
        for place, partition in cluster.partitions.items()
    }
    log = MemoryLog(records, cluster.partition_counts, dict(cluster.group.committed))
    report = audit_log(log, limits_of(settings), complete=True)
    return [f"audit: {fault}" for fault in report.faults]


def at_rest(cluster: Cluster, inputs: Iterable[str]) -> Iterator[str]:
    """Name what is left open."""
    if not cluster.settled():
        yield "a transaction is open"
    for (topic, number), partition in cluster.partitions.items():
        if partition.last_stable != partition.end:
            yield f"{topic}[{number}]: last stable offset {partition.last_stable}, end {partition.end}"
        if topic in inputs:
            committed = cluster.group.committed.get((topic, number), 0)
            if partition.read(committed, 1)[0]:
                yield f"{topic}[{number}]: consumed up to {committed}, end {partition.end}"


def _empty(cluster: Cluster, group: Group, number: int, settings: Any) -> Pipeline:
    return group.make_pipeline(number, cluster.partition_counts[group.changelog_topic], settings)


def folded(cluster: Cluster, group: Group, number: int, settings: Any) -> Pipeline:
    """A pipeline restored from the changelog."""
    pipeline = _empty(cluster, group, number, settings)
    for batch in Chain().batches(_messages(cluster, group, number)):
        pipeline.restore(batch.record, batch.link)
    pipeline.seal()
    return pipeline


def stored(
    cluster: Cluster, group: Group, number: int, settings: Any, directory: Path, place: GroupPartition
) -> Pipeline | None:
    """A pipeline loaded from a snapshot, with the changelog's tail; None if the snapshot is damaged or of another history."""
    pipeline = _empty(cluster, group, number, settings)
    try:
        store = Store(directory, place.identity, place.schema)
    except (StoreDamaged, StoreForeign):
        return None
    try:
        if store.cursor is None:
            return None
        cursor, pools = _cursor(store.cursor), store.read()
    except StoreDamaged:
        return None
    finally:
        store.close()
    entries = cluster.partitions[group.changelog_topic, number].entries
    if cursor.at >= len(entries) or dict(entries[cursor.at].headers).get("link") != cursor.link.hex().encode():
        return None
    pipeline.load(cursor, pools)
    for batch in Chain(cursor.batch, cursor.link).batches(_messages(cluster, group, number, cursor.next)):
        pipeline.restore(batch.record, batch.link)
    pipeline.seal()
    return pipeline


def tamper(cluster: Cluster, group: Group, rng: random.Random) -> tuple[str, int] | None:
    """Change a changelog, or the group's offsets, behind the workers' back; gives what was done and in which partition."""
    kind = rng.choice(["altered", "removed", "inserted", "swapped", "forged", "owned", "truncated", "offset"])
    number = rng.randrange(cluster.partition_counts[group.changelog_topic])
    partition = cluster.partitions[group.changelog_topic, number]
    entries = [entry for entry in visible(partition) if entry.key != CLAIM]
    if len(entries) < 3:
        return None
    place = rng.randrange(len(entries) - 1)
    entry, following = entries[place], entries[place + 1]
    if kind == "offset":
        places = [(topic, number) for topic in group.topics if cluster.group.committed.get((topic, number))]
        if not places:
            return None
        cluster.group.committed[rng.choice(places)] += rng.choice([-1, 1])
        return "changelog:offset", number
    if kind == "truncated":
        if not changelog.manifest_of(entries[-1].value)[0]["inputs"]:
            return None  # the locations it tells of are read again, and nobody is wiser
        entries[-1].value = MARKER
        return "changelog:truncated", number
    if kind == "altered":
        value = bytearray(entry.value)
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        entry.value = bytes(value)
    elif kind == "removed":
        entry.value = MARKER
    elif kind == "inserted":
        partition.entries.append(Entry(partition.end, entry.timestamp, entry.key, entry.value, entry.headers, None))
    elif kind == "owned":
        entry.headers = tuple((name, b"somebody" if name == "owner" else value) for name, value in entry.headers)
    elif kind == "swapped":
        entry.value, following.value = following.value, entry.value
        entry.headers, following.headers = following.headers, entry.headers
    else:  # another record with a header of its own to fit
        entry.value = entry.value + b" "
        number_header = int(dict(entry.headers)["batch"])
        link = next_link(_link_before(entries, number_header), entry.value)
        entry.headers = tuple((name, link.hex().encode() if name == "link" else value) for name, value in entry.headers)
    return f"changelog:{kind}", number


def written(cluster: Cluster, group: Group, number: int, outputs: Iterable[str]) -> list:
    """How far a group's outputs, changelog and offsets are in one partition."""
    ends = [cluster.partitions[topic, number].end for topic in (*outputs, group.changelog_topic)]
    return ends + [cluster.group.committed.get((topic, number)) for topic in group.topics]


def _link_before(entries: list[Entry], number: int) -> bytes:
    links = {int(dict(entry.headers)["batch"]): bytes.fromhex(dict(entry.headers)["link"].decode()) for entry in entries}
    return links.get(number - 1, FIRST_LINK)


def _messages(cluster: Cluster, group: Group, number: int, start: int = 0) -> Iterable[Message]:
    entries, _ = cluster.partitions[group.changelog_topic, number].read(start, 1_000_000)
    return [Message(group.changelog_topic, number, entry.offset, entry) for entry in entries]


def replayed(cluster: Cluster, group: Group, number: int, settings: Any, rng: random.Random) -> Pipeline:
    """A pipeline that took the inputs in the changelog's order, cut in another way."""
    pipeline = _empty(cluster, group, number, settings)
    inputs = {topic: iter(visible(cluster.partitions[topic, number])) for topic in group.topics}
    pending: list[tuple[str, Any]] = []
    for batch in Chain().batches(_messages(cluster, group, number)):
        manifest, blobs = changelog.manifest_of(batch.record)
        changes = [_change(cluster, change) for change in manifest["locations"]]
        if changes:
            _play(pipeline, pending, rng, to_end=True)
            pipeline.process(pipeline.decode([]), changes)
        at = manifest["order"]["at"]
        order = bytes(blobs[at : at + manifest["order"]["bytes"]])
        pending += [(manifest["topics"][code], next(inputs[manifest["topics"][code]])) for code in order]
        _play(pipeline, pending, rng, to_end=False)
    _play(pipeline, pending, rng, to_end=True)
    return pipeline


def _change(cluster: Cluster, change: dict) -> LocationChange:
    entry = cluster.partitions["locations.v1", change["partition"]].entries[change["offset"]]
    return LocationChange(change["partition"], change["offset"], entry.timestamp, entry.key, entry.value)


def _places(batch: list[Segment], pipeline: Pipeline) -> list[tuple[str, int]]:
    """Topic and offset of a batch's records, in the order that the pipeline applies them."""
    inputs = Inputs(batch, pipeline.topics)
    offsets = inputs.records.rows["offset"].tolist()
    return [(pipeline.topics[code], offset) for code, offset in zip(inputs.codes, offsets, strict=True)]


def _play(pipeline: Pipeline, pending: list[tuple[str, Any]], rng: random.Random, to_end: bool) -> None:
    """Process what is pending in batches of random size that keep its order."""
    while pending:
        size = rng.randint(1, 60)
        if size > len(pending) and not to_end:
            return
        wanted = pending[:size]
        while True:
            segments: dict[str, list[Any]] = {}
            for topic, record in wanted:
                segments.setdefault(topic, []).append(record)
            batch = [Segment.of(topic, records) for topic, records in segments.items()]
            if len(batch) == 1 or _places(batch, pipeline) == [(topic, record.offset) for topic, record in wanted]:
                break
            wanted = wanted[: (len(wanted) + 1) // 2]  # another order by timestamps: fewer at once
        pipeline.process(pipeline.decode(batch), [])
        del pending[: len(wanted)]
