"""The clicks pipeline: one partition's clicks in, demand per pool and SKU in a sliding window out.

The stages of a batch, numbered in `process`: decode, count, encode, record. Owner of the partition's DemandState. A batch
that raises leaves the state in doubt: the flow rebuilds it.
Not here: Kafka and its transactions (flow.py), what a click does (kernel.py), the tables (state/demand.py).
"""

import time

import numpy as np

from config.settings import Settings
from state import changelog
from state.demand import DemandState, drop_empty_rows
from state.digest import digest_demand
from state.pool import Delta
from state.seen import forget_seen
from streams.batch.pipeline import ChangelogGap, Cursor, LocationChange, Outcome, Segment, trace_of
from streams.demand.kernel import apply_clicks
from streams.inventory.refusals import letter
from topics.codec.decode import ClickBatch, decode_clicks
from topics.codec.demand import encode_demand
from topics.codec.messages import Messages
from topics.codec.records import Joined, Record, join
from topics.reasons import DeadLetter
from topics.reasons import Outcome as Fate

TOPIC = "clicks.v1"
# The changelog keeps tables by pool; these are all pools' of a partition.
_ALL_POOLS = "-"
_NO_ROOM = "sku: as many SKUs as may be were clicked on within the window, found one more (setting max_demand_rows)"


class ClicksPipeline:
    """The state and the rules of one partition of `clicks.v1`."""

    topics = (TOPIC,)
    changelog_topic = "clicks-changelog.v1"

    def __init__(self, partition: int, partitions: int, settings: Settings):
        self.partition = partition
        self.sequence = 0
        self.link = changelog.FIRST_LINK
        self.next_offsets: dict[str, int] = {}
        self._window = {
            "window_ms": settings.demand_window_ms,
            "step_ms": settings.demand_window_ms // settings.demand_buckets,
        }
        self.state = DemandState(
            **self._window,
            dedupe_events=settings.dedupe_events,
            dedupe_ms=settings.dedupe_hours * 3_600_000,
            max_rows=settings.max_demand_rows,
        )

    def needs_locations(self, segments: list[Segment]) -> bool:
        """False: a click names no location."""
        return False

    def needs_ticks(self) -> list[bytes]:
        """None: the window of a quiet partition slides with its next click."""
        return []

    def process(self, segments: list[Segment], locations: list[LocationChange]) -> Outcome:
        """Apply a batch of clicks; `locations` is empty."""
        if not segments:
            return Outcome({}, b"", {}, self.sequence)
        times = [time.perf_counter()]
        # 1: decode
        records = join([chunk for segment in segments for chunk in segment.records])
        batch = decode_clicks(records)
        times.append(time.perf_counter())
        # 2: count
        fates = self._count(batch)
        times.append(time.perf_counter())
        # 3: encode what changed, and what was refused
        outputs = {"demand.v1": self._demand(records), "dead-letter.v1": self._dead_letters(records, batch, fates)}
        times.append(time.perf_counter())
        # 4: the changelog record
        drop_empty_rows(self.state.t)
        record = self._record(records)
        times.append(time.perf_counter())
        numbers = np.bincount(fates).tolist()
        return Outcome(
            outputs={topic: messages for topic, messages in outputs.items() if len(messages)},
            changelog=record,
            offsets=dict(self.next_offsets),
            sequence=self.sequence,
            link=self.link,
            counts={(TOPIC, Fate(fate).wire): number for fate, number in enumerate(numbers) if number},
            stages=dict(zip(("decode", "count", "encode", "record"), np.diff(times).tolist(), strict=True)),
            timestamps=records.rows["timestamp"].copy(),
        )

    def _count(self, batch: ClickBatch) -> np.ndarray:
        """Apply the clicks; returns uint8[n], what became of each."""
        clicks, fates = batch.clicks, np.empty(len(batch.clicks), np.uint8)
        forget_seen(self.state.t)
        self.state.make_room(clicks.size, int(clicks["pool_size"].sum() + clicks["sku_size"].sum()))
        apply_clicks(self.state.t, clicks, batch.buffer, fates)
        return fates

    def _demand(self, records: Joined) -> Messages:
        """Encode the rows that changed, each with the trace of the record that changed it last."""
        t, numbers = self.state.t, self.state.changed_rows()
        messages = encode_demand(t.rows, numbers, t.heap, partition=self.partition, **self._window)
        traced = set(records.with_headers())
        if traced:
            for number, event in enumerate(t.row_event[numbers].tolist()):
                if event in traced and (trace := trace_of(records.record(event))):
                    messages.headers[number] = trace
        return messages

    def _dead_letters(self, records: Joined, batch: ClickBatch, fates: np.ndarray) -> Messages:
        """Encode the records that could not be read, whole, with a reason and a sentence."""
        messages = []
        for row in np.flatnonzero(fates == Fate.DEAD_LETTER).tolist():
            record = records.record(row)
            reason = DeadLetter(int(batch.clicks["reason"][row]))
            message = letter(TOPIC, self.partition, record, reason, batch.details.get(row, _NO_ROOM))
            messages.append(message | {"headers": trace_of(record)})
        return Messages.of(messages)

    def _record(self, records: Joined) -> bytes:
        self.sequence += 1
        offsets = records.rows["offset"]
        first, self.next_offsets[TOPIC] = int(offsets[0]), int(offsets[-1]) + 1
        head = {
            "batch": self.sequence,
            "partition": self.partition,
            "topics": [TOPIC],
            "inputs": [{"topic": TOPIC, "first": first, "next": self.next_offsets[TOPIC], "count": len(records)}],
            "locations": [],
        }
        record = changelog.encode(head, np.zeros(len(records), np.uint8), {_ALL_POOLS: self.state.take_delta()})
        self.link = changelog.next_link(self.link, record)
        return record

    def load(self, cursor: Cursor, pools: dict[str, Delta]) -> None:
        """Take over a snapshot: all rows, as one delta. The pipeline is empty before."""
        self.sequence, self.link, self.next_offsets = cursor.batch, cursor.link, dict(cursor.inputs)
        for delta in pools.values():
            self.state.fold(delta)

    def restore(self, record: bytes, link: bytes) -> None:
        """Fold one whole changelog record, whose link is proven; raises `ChangelogGap` if it is not the next of the chain."""
        manifest, blobs = changelog.manifest_of(record)
        (given,) = manifest["inputs"]
        where = f"{self.changelog_topic}[{self.partition}]"
        if manifest["batch"] != self.sequence + 1:
            raise ChangelogGap(
                f"{where}: expected batch {self.sequence + 1}, found {manifest['batch']}; "
                "records were deleted or written by another application"
            )
        if given["first"] < self.next_offsets.get(TOPIC, 0):
            raise ChangelogGap(
                f"{where} batch {manifest['batch']}: {TOPIC} begins at offset {given['first']}, "
                f"but was already read up to {self.next_offsets[TOPIC]}"
            )
        (tables,) = manifest["pools"]
        self.state.fold(changelog.delta_of(tables["tables"], blobs))
        self.next_offsets[TOPIC] = given["next"]
        self.sequence, self.link = manifest["batch"], link

    def seal(self) -> None:
        """Build what is derived from the restored tables; once, after the last `restore`."""
        self.state.seal()

    def digests(self) -> dict[str, str]:
        """Give the state as one number; slow."""
        return {_ALL_POOLS: digest_demand(self.state)}


def warm(settings: Settings) -> None:
    """Compile the kernels, or load what was compiled before, so that no first click waits for it."""
    pipeline = ClicksPipeline(0, 1, settings)
    pipeline.seal()
    pipeline.process([Segment.of(TOPIC, [Record(0, 0, None, None, [])])], [])
