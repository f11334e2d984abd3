"""The audit of clicks: one partition of `clicks.v1`, folded click by click, against `demand.v1` and the changelog.

A click moves the clock to its record's timestamp, the largest so far. Time goes in steps; the window ends with the step
the clock is in, and is `demand_window_ms` long: what lies before it no longer counts. A view, cart or checkout that names
a pool and a SKU counts at the clock, unless its own time is not plausible or it was seen within the dedupe window. After a
batch, each SKU that changed in it has one record.
Owner: the audit; it shares no code with the state or the kernels. Not here: what both audits check (batches.py).
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from streams.audit.batches import BatchReplay, Due
from streams.audit.chain import Batch
from streams.audit.log import Log, Record
from streams.audit.memory import Limits, RefusedEvent, Seen, check_times
from streams.audit.outputs import Tape, key_of, read
from streams.audit.report import FaultSink, Report
from streams.audit.rows import DemandRow, Names, demand_of
from topics.catalogue import CLICKS, DEMAND, changelog_of, inputs_of
from topics.events import Click, Refusal, judge
from topics.outputs import Demand
from topics.reasons import DeadLetter, Outcome

COUNTED = ("view", "cart", "checkout")
DEMAND_AHEAD = 10_000
"""Records of `demand.v1` read beyond a batch's own, in search of one that is missing."""

Sku = tuple[str, str]
"""Pool id and SKU."""


@dataclass(slots=True)
class Row:
    """A SKU's clicks within the window."""

    counts: list[int]
    """As `COUNTED`."""
    version: int = 0
    updated_at: int = 0


class DemandWindow:
    """The clicks of a partition within the sliding window, by SKU and step of time."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.now = 0
        self.rows: dict[Sku, Row] = {}
        self.changed: dict[Sku, Row] = {}
        """Since the batch began; a row without clicks is in it for the last time."""
        self._changes = 0
        self.seen = Seen(limits)
        self._steps: deque[tuple[int, Sku, list[int]]] = deque()
        """(Start, SKU, counts), in the order in which they began."""
        self._newest: dict[Sku, tuple[int, list[int]]] = {}

    def advance(self, timestamp: int) -> None:
        """Let the clock see a record, and take off what the window leaves behind."""
        if timestamp <= self.now:
            return
        self.now = timestamp
        step = self.limits.demand_step_ms
        begin = timestamp - timestamp % step + step - self.limits.demand_window_ms
        while self._steps and self._steps[0][0] < begin:
            start, sku, counts = self._steps.popleft()
            row = self.rows[sku]
            row.counts = [had - gone for had, gone in zip(row.counts, counts, strict=True)]
            self._change(sku, row)
            if self._newest[sku][0] == start:
                del self._newest[sku], self.rows[sku]

    def apply(self, click: Click) -> Outcome:
        """Count a click; raises RefusedEvent if there is no room for it."""
        if self.seen.knows(CLICKS, click, self.now):
            return Outcome.DUPLICATE
        if click.kind in COUNTED and click.sku and click.pool_id:
            self._count((click.pool_id, click.sku), COUNTED.index(click.kind))
        self.seen.remember(CLICKS, click, self.now)
        return Outcome.APPLIED

    def _count(self, sku: Sku, which: int) -> None:
        row = self.rows.get(sku)
        if row is None:
            if len(self.rows) >= self.limits.max_demand_rows:
                raise RefusedEvent(DeadLetter.TOO_MANY_SKUS)
            row = self.rows[sku] = Row([0, 0, 0])
        start = self.now - self.now % self.limits.demand_step_ms
        if sku not in self._newest or self._newest[sku][0] != start:
            self._newest[sku] = start, [0, 0, 0]
            self._steps.append((start, sku, self._newest[sku][1]))
        self._newest[sku][1][which] += 1
        row.counts[which] += 1
        self._change(sku, row)

    def _change(self, sku: Sku, row: Row) -> None:
        self._changes += 1
        row.version, row.updated_at = self._changes, self.now
        self.changed[sku] = row

    def begins(self, updated_at: int) -> int:
        """Where the window begins at a time."""
        step = self.limits.demand_step_ms
        return max(0, updated_at - updated_at % step + step - self.limits.demand_window_ms)


class _Published(NamedTuple):
    offset: int
    value: Demand


class ClickReplay(BatchReplay):
    """Judges one partition of `clicks.v1`; see `BatchReplay`."""

    changelog = changelog_of("clicks")
    topics = inputs_of("clicks")
    dead_letter_topics = topics

    def __init__(self, log: Log, partition: int, limits: Limits, report: Report, deleted: tuple[str, ...] = ()):
        super().__init__(log, partition, limits, report, deleted)
        self.window = DemandWindow(limits)
        self.names = Names()
        self.demand = _DemandRecords(log.read(DEMAND, partition), partition, self._fault)

    def judge_batch(self, batch: Batch) -> None:
        now, rows = demand_of(batch, self.names)
        self.window.changed.clear()
        self.window.seen.by_id = batch.layout < 2
        records = {topic: self._consumed(batch, topic, given) for topic, given in batch.inputs.items()}
        self.dead_letters.open(self._reached)
        for topic in self._order(batch, records):  # of one topic: only to judge the order given
            self.report.events[topic] += 1
        for record in records.get(CLICKS, ()):
            self._click(record)
        for offset, place in self.dead_letters.left(self._reached):
            self._unclaimed_letter(offset, place)
        if now is not None and now != self.window.now:
            self._fault("clock", self.changelog, batch.offset, f"clicks[{self.partition}] now {self.window.now}", now)
        self._compare(batch, rows)
        for sku, row in self.window.changed.items():
            self._check_published(batch, sku, row)

    def _click(self, record: Record) -> None:
        self.window.advance(record.timestamp)
        click = judge(CLICKS, record.value)
        refused = None
        try:
            if isinstance(click, Refusal):
                raise RefusedEvent(click.reason)
            check_times(click, record.timestamp, self.limits)
            outcome = self.window.apply(click)
        except RefusedEvent as raised:
            outcome, refused = Outcome.DEAD_LETTER, raised
        self.report.outcomes[outcome.wire] += 1
        self._check_dead_letters((CLICKS, self.partition, record.offset), record, refused)

    def _compare(self, batch: Batch, rows: dict[Sku, DemandRow]) -> None:
        """Check the changelog's rows: those that changed and have clicks, and no others."""
        expected = {sku: _as_row(row) for sku, row in self.window.changed.items() if sku in self.window.rows}
        for sku in sorted(expected.keys() | rows.keys()):
            if expected.get(sku) != rows.get(sku):
                found = f"{rows.get(sku)}, batch {batch.number}"
                self._fault("demand", self.changelog, batch.offset, f"{'/'.join(sku)}: {expected.get(sku)}", found)

    def _check_published(self, batch: Batch, sku: Sku, row: Row) -> None:
        published = self.demand.at(sku, row.version)
        shown = f"{'/'.join(sku)} with {_as_row(row)}, as batch {batch.number} left it"
        if published is None:
            self._fault("demand", DEMAND, None, shown, "no such record")
            return
        value = published.value
        window = self.window.begins(row.updated_at), self.window.limits.demand_window_ms
        if _as_row(value) != _as_row(row) or (value.window_start, value.window_ms) != window:
            expected = f"{shown}, (window_start, window_ms) = {window}"
            found = f"{_as_row(value)}, {(value.window_start, value.window_ms)}"
            self._fault("demand", DEMAND, published.offset, expected, found)

    def settle_outputs(self, due: Due, moving: bool) -> None:
        for published in () if moving else self.demand.rest(due(DEMAND) or 0):
            self._fault("demand", DEMAND, published.offset, "a record of a batch", published.value)


class _DemandRecords:
    """The records of `demand.v1` of a partition, read in step with the batches."""

    def __init__(self, records: Iterator[Record], partition: int, fault: FaultSink):
        self._tape = Tape(records)
        self._partition = partition
        self._fault = fault
        self._ahead: dict[tuple[Sku, int], _Published] = {}

    def at(self, sku: Sku, version: int) -> _Published | None:
        """Take the record of a SKU's version."""
        while (sku, version) not in self._ahead and len(self._ahead) < DEMAND_AHEAD and self._pull():
            pass
        return self._ahead.pop((sku, version), None)

    def rest(self, due: float) -> Iterator[_Published]:
        """Take out what lies before an offset and nobody took."""
        while (head := self._tape.head) and head.offset < due:
            self._pull()
            yield from self._before(due)
        yield from self._before(due)

    def _before(self, due: float) -> list[_Published]:
        keys = [key for key, published in self._ahead.items() if published.offset < due]
        return [self._ahead.pop(key) for key in keys]

    def _pull(self) -> bool:
        record = self._tape.take()
        if record is None:
            return False
        value = read(Demand, DEMAND, "demand", record, self._fault)
        if value is None:
            return True
        key = key_of(value.pool_id, value.sku, str(self._partition))
        if (record.key, value.partition) != (key.encode(), self._partition):
            found = f"key {record.key!r}, partition {value.partition}"
            self._fault("demand", DEMAND, record.offset, f"key {key}, partition {self._partition}", found)
        place = (value.pool_id, value.sku), value.version
        if place in self._ahead:
            self._fault("demand", DEMAND, record.offset, f"one record of {key} with version {value.version}", "another one")
        self._ahead[place] = _Published(record.offset, value)
        return True


def _as_row(source: Any) -> DemandRow:
    counts = source.counts if isinstance(source, Row) else (source.views, source.carts, source.checkouts)
    return DemandRow._make((*counts, source.version, source.updated_at))
