"""The clicks pipeline: one partition's clicks in, demand per pool and SKU in a sliding window out.

The stages of a batch: decode; then, numbered in `process`: count, encode, record. Owner of the partition's DemandState. A batch
that raises leaves the state in doubt: the flow restores it.
Not here: Kafka and its transactions (worker/flow.py), what a click does (kernel.py), the tables (state/demand.py).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from state.demand import SKEW_MS, DemandState, drop_empty_rows
from state.seen import forget_seen
from streams.batch.base import GroupPipeline
from streams.batch.clock import Clock
from streams.batch.inputs import Inputs
from streams.batch.letters import letter, reused
from streams.batch.outputs import Outputs
from streams.batch.pipeline import LocationChange, Outcome, Segment
from streams.batch.times import implausible
from streams.demand.kernel import apply_clicks
from topics.catalogue import CLICKS as TOPIC
from topics.catalogue import changelog_of, inputs_of
from topics.codec.decode import ClickBatch, by_field, decode_clicks
from topics.codec.demand import encode_demand
from topics.codec.messages import Messages
from topics.codec.records import Record
from topics.reasons import DeadLetter
from topics.reasons import Outcome as Fate

_ALL_POOLS = b"-"
"""The state is kept by pool; that of clicks is one for all pools of a partition."""
_NO_ROOM = "sku: as many SKUs as may be were clicked on within the window, found one more (setting max_demand_rows)"


class Settings(Protocol):
    """The settings that this group reads."""

    demand_window_ms: int
    demand_buckets: int
    dedupe_events: int
    dedupe_hours: int
    max_demand_rows: int
    clock_skew_ms: int


@dataclass(slots=True)
class Decoded:
    """A batch of clicks, decoded: its n records, and their rows."""

    inputs: Inputs
    batch: ClickBatch


class ClicksPipeline(GroupPipeline[DemandState]):
    """The state and the rules of one partition of `clicks.v1`."""

    topics = inputs_of("clicks")
    changelog_topic = changelog_of("clicks")
    schema = DemandState.schema

    def __init__(self, partition: int, partitions: int, settings: Settings):
        super().__init__(partition, partitions)
        self._window = {
            "window_ms": settings.demand_window_ms,
            "step_ms": settings.demand_window_ms // settings.demand_buckets,
        }
        self.state = DemandState(
            **self._window,
            dedupe_events=settings.dedupe_events,
            dedupe_ms=settings.dedupe_hours * 3_600_000,
            max_rows=settings.max_demand_rows,
            clock_skew_ms=settings.clock_skew_ms,
        )
        self.pools = {_ALL_POOLS: self.state}

    def pool(self, pool_id: bytes) -> DemandState:
        """Give the state of all pools."""
        return self.pools[pool_id]

    def decode(self, segments: list[Segment]) -> Decoded:
        """Read a batch's records."""
        inputs = Inputs(segments, self.topics)
        return Decoded(inputs, decode_clicks(inputs.records))

    def lacks_locations(self, decoded: Decoded) -> bool:
        """False: a click names no location."""
        return False

    def process(self, decoded: Decoded, changes: list[LocationChange]) -> Outcome:
        """Apply a batch of clicks; there are no location changes."""
        inputs, batch = decoded.inputs, decoded.batch
        if not len(inputs):
            return Outcome({}, b"", {}, self.sequence)
        clock = Clock()
        # 1: count
        fates = self._count(batch)
        clock.stage("count")
        # 2: encode what changed, and what was refused
        outputs = Outputs(inputs.records)
        self._add_demand(outputs)
        self._add_dead_letters(outputs, decoded, fates)
        clock.stage("encode")
        # 3: the changelog record
        drop_empty_rows(self.state.t)
        record = self.record(inputs, [], [_ALL_POOLS])
        clock.stage("record")
        return Outcome(
            outputs=outputs.messages,
            changelog=record,
            offsets=inputs.next_offsets,
            sequence=self.sequence,
            link=self.link,
            counts={(TOPIC, Fate(fate).wire): number for fate, number in enumerate(np.bincount(fates).tolist()) if number},
            left_out=by_field(batch.left_out, lambda row: TOPIC),
            stages=clock.seconds,
            timestamps=inputs.records.rows["timestamp"].copy(),
        )

    def _count(self, batch: ClickBatch) -> np.ndarray:
        """Apply the clicks; returns uint8[n], what became of each."""
        clicks, fates = batch.clicks, np.empty(len(batch.clicks), np.uint8)
        forget_seen(self.state.t)
        self.state.make_room(clicks.size, int(clicks["pool_size"].sum() + clicks["sku_size"].sum()))
        apply_clicks(self.state.t, clicks, batch.buffer, fates)
        return fates

    def _add_demand(self, outputs: Outputs) -> None:
        """Encode the rows that changed; the cause of each is the click that changed it last."""
        t, numbers = self.state.t, self.state.changed_rows()
        messages = encode_demand(t.rows, numbers, t.heap, partition=self.partition, **self._window)
        outputs.add("demand.v1", messages, t.row_event[numbers].tolist())

    def _add_dead_letters(self, outputs: Outputs, decoded: Decoded, fates: np.ndarray) -> None:
        """Encode the clicks that were refused, each whole, with a reason and a sentence."""
        records, rows = decoded.inputs.records, np.flatnonzero(fates == Fate.DEAD_LETTER).tolist()
        letters = [letter(TOPIC, self.partition, records.record(row), *self._refusal(decoded.batch, row)) for row in rows]
        outputs.add("dead-letter.v1", Messages.of(letters), rows)

    def _refusal(self, batch: ClickBatch, row: int) -> tuple[DeadLetter, str]:
        """Give the reason why a click was refused, and its sentence."""
        click = batch.clicks[row]
        reason = DeadLetter(int(click["reason"]))
        if row in batch.details:
            return reason, batch.details[row]
        if reason is DeadLetter.TIME_OUT_OF_RANGE:
            skew = int(self.state.t.limits[SKEW_MS])
            return reason, implausible("event_time", int(click["event_time"]), int(click["timestamp"]), skew)
        if reason is DeadLetter.EVENT_ID_REUSED:
            return reason, reused(batch.text(row, "event_id"), f"visitor {batch.text(row, 'visitor')!r}")
        return reason, _NO_ROOM


def warm(settings: Settings) -> None:
    """Compile the kernels, or load what was compiled before, so that no first click waits for it."""
    pipeline = ClicksPipeline(0, 1, settings)
    pipeline.seal()
    pipeline.process(pipeline.decode([Segment.of(TOPIC, [Record(0, 0, None, None, [])])]), [])
