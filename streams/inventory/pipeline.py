"""The inventory pipeline: one partition's sales, stock, orders and fulfilments in, exact state and decisions out.

The stages of a batch, numbered in `process`: merge and decode, change locations, assign to pools, apply, encode, record.
Owner of the partition's pools, one PoolState each. A batch that raises leaves the state in doubt: the flow rebuilds it.
Not here: Kafka and its transactions (flow.py), what an event does (engine/), which location wins (routing/).
"""

import time
from typing import Any

import numpy as np

from config.settings import Settings
from state import changelog
from state.digest import digest
from state.network import flags_of, location_row, put_location
from state.pool import Delta, Limits, PoolState
from streams.batch.pipeline import ChangelogGap, Cursor, LocationChange, Outcome, Segment, trace_of
from streams.inventory.apply import apply_events, forget_old, lines_at_most, names_unknown_location
from streams.inventory.decide import N_DECISIONS, N_LINES, Work, make_decisions, make_work
from streams.inventory.refusals import letter, sentence
from topics.codec.decode import Batch, decode
from topics.codec.encode import encode_allocations, encode_inventory
from topics.codec.messages import Messages
from topics.codec.records import Joined, Records, join
from topics.columns import EVENT
from topics.events import CAPABILITIES, INVENTORY_TOPICS, LocationRecord, Refusal, judge
from topics.keys import partition_of
from topics.reasons import DeadLetter, Kind
from topics.reasons import Outcome as Fate

TOPICS = (*INVENTORY_TOPICS, "locations.v1")
_TOPIC_CODES = {topic: code for code, topic in enumerate(TOPICS)}
_LOCATION_KINDS = tuple(CAPABILITIES)
_FATES = len(Fate)
_ROOM_PER_LINE = 2_048  # bytes of heap
_FEWEST_LINES = 64


class InventoryPipeline:
    """The state and the rules of one partition of the inventory topics."""

    topics = INVENTORY_TOPICS
    changelog_topic = "inventory-changelog.v1"

    def __init__(self, partition: int, partitions: int, settings: Settings):
        self.partition = partition
        self.partitions = partitions
        self.sequence = 0
        self.link = changelog.FIRST_LINK
        self.next_offsets: dict[str, int] = {}
        self.pools: dict[bytes, PoolState] = {}
        self._limits = Limits(
            dedupe_events=settings.dedupe_events,
            dedupe_ms=settings.dedupe_hours * 3_600_000,
            horizon_ms=settings.count_horizon_hours * 3_600_000,
            closed_ms=settings.closed_order_days * 86_400_000,
            max_skus=settings.max_skus,
            max_cells=settings.max_cells,
            max_lines=settings.max_order_lines,
            max_supplies=settings.max_supplies,
        )
        # Of the whole network: location id → pool id.
        self._location_pools: dict[bytes, bytes] = {}
        # Of locations.v1, by partition: the offset after the last record taken into the changelog.
        self._location_next: dict[int, int] = {}
        self._work = make_work(2 * _FEWEST_LINES, 256, 256)
        self._out = make_decisions(1_024, 4_096)
        self._ahead: tuple[list[Segment], _Decoded] | None = None

    def needs_locations(self, segments: list[Segment]) -> bool:
        """Tell whether a record names a location or a pool nobody knows; `process` goes on with what is decoded here."""
        decoded = _Decoded(segments)
        self._ahead = (segments, decoded)
        for key, rows in decoded.rows_of.items():
            state = self.pools.get(key)
            if state is None:
                if key and partition_of(key, self.partitions) == self.partition:
                    return True
            elif names_unknown_location(state.t, decoded.batch.events, decoded.batch.buffer, rows):
                return True
        return False

    def process(self, segments: list[Segment], locations: list[LocationChange]) -> Outcome:
        """Apply a batch: location changes first, then the segments' records merged by timestamp."""
        clock = _Clock()
        # 1: merge and decode, unless `needs_locations` already did
        ahead, self._ahead = self._ahead, None
        decoded = ahead[1] if ahead is not None and ahead[0] is segments else _Decoded(segments)
        clock.stage("decode")
        # 2: change locations
        changes = [change for change in locations if self._register(change)]
        events = decoded.with_changes(changes)
        messages = _Messages(self, decoded, events, changes)
        for i, change in enumerate(changes):
            self._change_location(change, decoded.count + i, messages)
        clock.stage("locations")
        # 3: assign to pools; what belongs to none is refused
        touched = {key: rows for key, rows in decoded.rows_of.items() if self._accepts(key, events, rows)}
        for key in touched:
            forget_old(self.pools[key].t)
        touched |= {key: np.empty(0, np.int64) for key in self._changed_pools(changes) if key not in touched}
        clock.stage("assign")
        # 4, 5: apply and encode, pool by pool
        for key, rows in touched.items():
            self._apply(self.pools[key], events, decoded.batch, rows)
            clock.stage("route")
            messages.add_decisions(self.pools[key], self._out)
            messages.add_cells(self.pools[key])
            clock.stage("encode")
        messages.add_dead_letters(self._location_pools)
        clock.stage("encode")
        # 6: the changelog record
        record = b""
        if decoded.count or changes:
            self.sequence += 1
            deltas = {key.decode(): self.pools[key].take_delta() for key in touched}
            record = self._record(decoded, changes, deltas)
        clock.stage("record")
        return Outcome(
            outputs=messages.outputs,
            changelog=record,
            offsets=decoded.offsets,
            sequence=self.sequence,
            link=self.link,
            counts=_counts(events[: decoded.count]),
            stages=clock.seconds,
            timestamps=events["timestamp"][: decoded.count].copy(),
        )

    def _accepts(self, key: bytes | None, events: np.ndarray, rows: np.ndarray) -> bool:
        """Tell whether a key is a pool of this partition; if not, its records are refused."""
        if key in self.pools:
            return True
        if not key:
            reason = DeadLetter.MISSING_KEY
        elif partition_of(key, self.partitions) != self.partition:
            reason = DeadLetter.WRONG_PARTITION
        else:
            reason = DeadLetter.UNKNOWN_POOL
        undecoded = events["kind"][rows] == Kind.UNDECODED
        events["reason"][rows[~undecoded]] = reason
        events["outcome"][rows] = Fate.DEAD_LETTER
        return False

    # Locations

    def _register(self, change: LocationChange) -> bool:
        """Note which pool a location is in; True if the change is for this partition to act on."""
        judged = judge("locations.v1", change.value)
        if isinstance(judged, LocationRecord) and change.key == judged.id.encode():
            pool = self._location_pools.setdefault(change.key, judged.pool.encode())
        else:
            pool = self._location_pools.get(change.key or b"")
        # Somebody must bury what belongs to nobody.
        owner = 0 if pool is None else partition_of(pool, self.partitions)
        return owner == self.partition and change.offset >= self._location_next.get(change.partition, 0)

    def _change_location(self, change: LocationChange, event: int, messages: "_Messages") -> None:
        """Put a change into its pool, and serve those who wait there."""
        self._location_next[change.partition] = change.offset + 1
        judged = self._judged(change)
        if isinstance(judged, Refusal):
            messages.events["outcome"][event] = Fate.DEAD_LETTER
            messages.events["reason"][event] = judged.reason
            messages.details[event] = judged.detail
            return
        state = self._pool(judged.pool.encode())
        if _put(state, judged, change):
            self._apply(state, messages.events, messages.batch, np.array([event]))
            messages.add_decisions(state, self._out)

    def _pool(self, pool_id: bytes) -> PoolState:
        if pool_id not in self.pools:
            self.pools[pool_id] = PoolState(pool_id, self._limits)
        return self.pools[pool_id]

    def _judged(self, change: LocationChange) -> LocationRecord | Refusal:
        """Read a change; a deleted location is a disabled one, since its stock and its orders remain."""
        known = self._location_pools.get(change.key or b"")
        state = self.pools.get(known)
        if change.value is None and state is not None and location_row(state, change.key) >= 0:
            row = state.t.locations[location_row(state, change.key)]
            return LocationRecord(
                id=change.key.decode(),
                pool=known.decode(),
                kind=_LOCATION_KINDS[row["kind"]],
                latitude=float(row["latitude"]),
                longitude=float(row["longitude"]),
                enabled=False,
            )
        judged = judge("locations.v1", change.value)
        if isinstance(judged, Refusal):
            return judged
        if change.key != judged.id.encode():
            return Refusal(DeadLetter.WRONG_FIELD, f"id: expected the record's key {change.key!r}, found {judged.id!r}")
        known = self._location_pools[change.key]
        if known != judged.pool.encode():
            return Refusal(
                DeadLetter.WRONG_POOL,
                f"pool: expected {known.decode()!r}, where location {judged.id!r} is, found {judged.pool!r}; "
                "a location stays in its pool: give the place a new id in the other",
            )
        return judged

    def _changed_pools(self, changes: list[LocationChange]) -> set[bytes]:
        pools = {self._location_pools.get(change.key or b"") for change in changes}
        return {pool for pool in pools if pool in self.pools}

    # Applying

    def _apply(self, state: PoolState, events: np.ndarray, batch: Batch, rows: np.ndarray) -> None:
        tag = np.frombuffer(state.tag, np.uint8)
        at = 0
        while True:
            at = apply_events(state.t, self._out, self._work, events, batch.lines, batch.buffer, rows, at, tag)
            if at == rows.size:
                return
            self._make_room(state, int(events["line_count"][rows[at]]))

    def _make_room(self, state: PoolState, line_count: int) -> None:
        """Grow what may be too small for the next event; see `_has_room` of the engine."""
        n = int(lines_at_most(state.t, line_count))
        state.ensure(
            skus=n,
            cells=n,
            orders=1,
            lines=n,
            refusals=n,
            supplies=1,
            movements=n,
            seen=1,
            heap=(n + 1) * _ROOM_PER_LINE,
            sku_cells=n * 2 * (state.count("locations") + 4),
            holds=1,
        )
        t, pool = state.t, state.row[0]
        if self._work.rows.size < 2 * n or self._work.stamps.size < t.orders.size or not _fits(self._work, t):
            self._work = make_work(max(2 * n, self._work.rows.size), t.orders.size, max(t.locations.size, 256))
        decisions = int(self._out.counts[N_DECISIONS] + pool["waiting_lines"] + pool["held_orders"]) + 2
        lines = int(self._out.counts[N_LINES] + pool["open_lines"]) + 2 * n
        if decisions > self._out.decisions.size or lines > self._out.lines.size:
            self._out = _larger(self._out, 2 * decisions, 2 * lines)

    # The changelog

    def _record(self, decoded: "_Decoded", changes: list[LocationChange], deltas: dict) -> bytes:
        self.next_offsets |= decoded.offsets
        head = {
            "batch": self.sequence,
            "partition": self.partition,
            "topics": list(INVENTORY_TOPICS),
            "inputs": decoded.inputs,
            "locations": [
                {
                    "partition": change.partition,
                    "offset": change.offset,
                    "timestamp": change.timestamp,
                    "key": None if change.key is None else change.key.decode(errors="replace"),
                    "value": _said(change.value),
                }
                for change in changes
            ],
        }
        record = changelog.encode(head, decoded.batch.events["topic"], deltas)
        self.link = changelog.next_link(self.link, record)
        return record

    def load(self, cursor: Cursor, pools: dict[str, Delta]) -> None:
        """Take over a snapshot: all rows of all pools, as one delta each. The pipeline is empty before."""
        self.sequence, self.link = cursor.batch, cursor.link
        self.next_offsets, self._location_next = dict(cursor.inputs), dict(cursor.locations)
        for pool_id, delta in pools.items():
            self._pool(pool_id.encode()).fold(delta)

    def restore(self, record: bytes, link: bytes) -> None:
        """Fold one whole changelog record, whose link is proven; raises `ChangelogGap` if it is not the next of the chain."""
        manifest, blobs = changelog.manifest_of(record)
        if manifest["batch"] != self.sequence + 1:
            raise ChangelogGap(
                f"{self.changelog_topic}[{self.partition}]: expected batch {self.sequence + 1}, found {manifest['batch']}; "
                "records were deleted or written by another application"
            )
        for given in manifest["inputs"]:
            expected = self.next_offsets.get(given["topic"], 0)
            if given["first"] < expected:
                raise ChangelogGap(
                    f"{self.changelog_topic}[{self.partition}] batch {manifest['batch']}: {given['topic']} begins at offset "
                    f"{given['first']}, but was already read up to {expected}"
                )
            self.next_offsets[given["topic"]] = given["next"]
        for change in manifest["locations"]:
            self._location_next[change["partition"]] = change["offset"] + 1
        for pool in manifest["pools"]:
            key = pool["pool_id"].encode()
            self._pool(key).fold(changelog.delta_of(pool["tables"], blobs))
        self.sequence, self.link = manifest["batch"], link

    def seal(self) -> None:
        """Build what is derived from the restored tables; once, after the last `restore`."""
        for key, state in self.pools.items():
            state.seal()
            for row in state.rows("locations"):
                self._location_pools[state.text(int(row["id_at"]), int(row["id_size"]))] = key

    def digests(self) -> dict[str, str]:
        """Give each pool's state as one number (state/digest.py); slow."""
        return {key.decode(): digest(state) for key, state in self.pools.items()}

    def needs_ticks(self) -> list[bytes]:
        """Give the ids of the pools in which a hold waits to expire."""
        return [key for key, state in self.pools.items() if state.row["held_orders"][0] > 0]


class _Decoded:
    """A batch's records in the order they are applied, decoded, and which pool id each came with."""

    def __init__(self, segments: list[Segment]):
        self.records, codes = _merged(segments)
        self.count = len(self.records)
        self.timestamps = self.records.rows["timestamp"]
        self.batch = decode(self.records, codes)
        self.rows_of = self.records.groups
        self.inputs = _inputs(segments)
        self.offsets = {given["topic"]: given["next"] for given in self.inputs}

    def with_changes(self, changes: list[LocationChange]) -> np.ndarray:
        """The batch's events, with a row for each location change behind them: decisions may name it as their source."""
        if not changes:
            return self.batch.events
        rows = np.zeros(len(changes), EVENT)
        rows["kind"] = Kind.LOCATION
        rows["topic"] = _TOPIC_CODES["locations.v1"]
        rows["offset"] = [change.offset for change in changes]
        rows["timestamp"] = [change.timestamp for change in changes]
        return np.concatenate([self.batch.events, rows])


class _Messages:
    """The batch's outputs, topic by topic, with the trace of the record that caused each."""

    def __init__(self, pipeline: InventoryPipeline, decoded: _Decoded, events: np.ndarray, changes: list[LocationChange]):
        self.outputs: dict[str, Messages] = {}
        self.events = events
        self.batch = decoded.batch
        self.details = decoded.batch.details
        self._decoded = decoded
        self._changes = changes
        self._partitions = np.full(len(events), pipeline.partition, np.int32)
        self._partitions[decoded.count :] = [change.partition for change in changes]
        records = decoded.records
        self._traces = {row: trace for row in records.with_headers() if (trace := trace_of(records.record(row)))}

    def _add(self, topic: str, messages: Messages, causes: np.ndarray | list[int]) -> None:
        if self._traces:
            for number, event in enumerate(causes):
                if int(event) in self._traces:
                    messages.headers[number] = self._traces[int(event)]
        if len(messages):
            self.outputs.setdefault(topic, Messages()).extend(messages)

    def add_decisions(self, state: PoolState, out: Any) -> None:
        """Encode a pool's decisions, and make `out` empty for the next pool."""
        decisions = out.decisions[: out.counts[N_DECISIONS]]
        messages = encode_allocations(
            decisions,
            out.shipments,
            out.lines,
            out.losers,
            heap=state.t.heap,
            skus=state.t.skus,
            locations=state.t.locations,
            events=self.events,
            partitions=self._partitions,
            topic_names=TOPICS,
            pool_id=state.pool_id,
            tag=state.tag,
        )
        self._add("allocations.v1", messages, decisions["event"])
        out.counts[:] = 0

    def add_cells(self, state: PoolState) -> None:
        """Encode the cells that changed, as they are now."""
        rows, causes = state.changed_cells()
        t = state.t
        messages = encode_inventory(t.cells, rows, skus=t.skus, locations=t.locations, heap=t.heap, pool_id=state.pool_id)
        self._add("inventory.v1", messages, causes)

    def add_dead_letters(self, location_pools: dict[bytes, bytes]) -> None:
        """Encode what was refused, whole, with a reason and a sentence."""
        dead = np.flatnonzero(self.events["outcome"] == Fate.DEAD_LETTER).tolist()
        self._add("dead-letter.v1", Messages.of([self._dead_letter(row, location_pools) for row in dead]), dead)

    def _dead_letter(self, row: int, location_pools: dict[bytes, bytes]) -> dict:
        event = self.events[row]
        count = self._decoded.count
        record = self._decoded.records.record(row) if row < count else self._changes[row - count]
        detail = self.details.get(row)
        if detail is None:
            reason, detail = sentence(event, self._decoded.batch, record.key, location_pools)
            event["reason"] = reason
        topic, partition = TOPICS[event["topic"]], int(self._partitions[row])
        return letter(topic, partition, record, DeadLetter(int(event["reason"])), detail)


class _Clock:
    """Seconds spent per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def _merged(segments: list[Segment]) -> tuple[Joined, np.ndarray]:
    """Merge topics by timestamp, each in its own order; gives the records and their topics' codes."""
    by_topic: dict[str, list[Records]] = {}
    for segment in segments:
        by_topic.setdefault(segment.topic, []).extend(segment.records)
    chunks = [chunk for found in by_topic.values() for chunk in found]
    sizes = [sum(map(len, found)) for found in by_topic.values()]
    codes = np.repeat(np.array([_TOPIC_CODES[topic] for topic in by_topic], np.uint8), sizes)
    if len(by_topic) <= 1:
        return join(chunks), codes
    # A topic's own order stands even where its timestamps go back.
    times = [np.maximum.accumulate(np.concatenate([chunk.rows["timestamp"] for chunk in found])) for found in by_topic.values()]
    order = np.argsort(np.concatenate(times), kind="stable")
    return join(chunks, order), codes[order]


def _inputs(segments: list[Segment]) -> list[dict[str, Any]]:
    """What the batch reads of each topic, for the manifest."""
    inputs: dict[str, dict[str, Any]] = {}
    for segment in segments:
        given = inputs.setdefault(segment.topic, {"topic": segment.topic, "first": segment.first, "next": 0, "count": 0})
        given["next"] = segment.last + 1
        given["count"] += len(segment)
    return list(inputs.values())


def _counts(events: np.ndarray) -> dict[tuple[str, str], int]:
    cases = np.bincount(events["topic"].astype(np.int64) * _FATES + events["outcome"], minlength=1)
    return {(TOPICS[case // _FATES], Fate(case % _FATES).wire): int(cases[case]) for case in np.flatnonzero(cases).tolist()}


def _put(state: PoolState, location: LocationRecord, change: LocationChange) -> bool:
    return put_location(
        state,
        location.id.encode(),
        latitude=location.latitude,
        longitude=location.longitude,
        kind=_LOCATION_KINDS.index(location.kind),
        flags=flags_of(location.enabled, location.capabilities or []),
        priority=location.priority,
        daily_capacity=-1 if location.daily_capacity is None else location.daily_capacity,
        source=(change.partition, change.offset),
    )


def _fits(work: Work, t: Any) -> bool:
    return work.route.candidates.size >= t.locations.size


def _larger(out: Any, decisions: int, lines: int) -> Any:
    """Copy the decisions so far into more room."""
    new = make_decisions(max(decisions, out.decisions.size), max(lines, out.lines.size))
    for name, used in zip(("decisions", "shipments", "lines", "losers"), out.counts, strict=True):
        getattr(new, name)[:used] = getattr(out, name)[:used]
    new.counts[:] = out.counts
    return new


def _said(value: bytes | None) -> Any:
    """What a record of locations.v1 says, for the manifest: None = the location is gone, false = nothing that is taken."""
    judged = None if value is None else judge("locations.v1", value)
    return False if isinstance(judged, Refusal) else judged and judged.model_dump()
