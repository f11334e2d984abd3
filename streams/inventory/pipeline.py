"""The inventory pipeline: one partition's sales, stock, orders and fulfilments in, exact state and decisions out.

The stages of a batch: decode; then, numbered in `process`: change locations and kits, assign to pools, apply, encode, record.
Owner of the partition's pools, one PoolState each. A batch that raises leaves the state in doubt: the flow restores it.
Not here: Kafka and its transactions (worker/flow.py), what an event does (apply.py), which location wins (routing/).
"""

from collections.abc import Collection
from typing import Any, Literal, Protocol

import numpy as np

from state.pool import Limits, PoolState
from streams.batch.base import GroupPipeline
from streams.batch.clock import Clock
from streams.batch.pipeline import LocationChange, Outcome, Segment
from streams.inventory import network, products
from streams.inventory.apply import (
    ALERTS_ROOM,
    LINES_ROOM,
    MOVES_ROOM,
    apply_events,
    forget_old,
    lines_at_most,
    names_unknown_location,
    promises_at_most,
    rows_a_line,
)
from streams.inventory.decide import N_DECISIONS, N_LINES, make_decisions, make_work
from streams.inventory.decoded import TOPICS, Decoded
from streams.inventory.messages import InventoryOutputs
from topics.catalogue import INVENTORY_TOPICS, LOCATIONS, PRODUCTS, changelog_of
from topics.codec.decode import by_field
from topics.events import Refusal
from topics.keys import partition_of
from topics.reasons import DeadLetter, Kind
from topics.reasons import Outcome as Fate

_FATES = len(Fate)
_ROOM_PER_LINE = 2_048  # bytes of heap
_FEWEST_LINES = 64


class Settings(Protocol):
    """The settings that this group reads."""

    dedupe_events: int
    dedupe_hours: int
    count_horizon_hours: int
    closed_order_days: int
    max_skus: int
    max_cells: int
    max_order_lines: int
    max_supplies: int
    transfer_days: int
    on_shortfall: Literal["reroute", "keep"]
    clock_skew_ms: int


class InventoryPipeline(GroupPipeline[PoolState]):
    """The state and the rules of one partition of the inventory topics."""

    topics = INVENTORY_TOPICS
    changelog_topic = changelog_of("inventory")
    schema = PoolState.schema

    def __init__(self, partition: int, partitions: int, settings: Settings):
        super().__init__(partition, partitions)
        self._limits = Limits(
            dedupe_events=settings.dedupe_events,
            dedupe_ms=settings.dedupe_hours * 3_600_000,
            horizon_ms=settings.count_horizon_hours * 3_600_000,
            closed_ms=settings.closed_order_days * 86_400_000,
            max_skus=settings.max_skus,
            max_cells=settings.max_cells,
            max_lines=settings.max_order_lines,
            max_supplies=settings.max_supplies,
            reroutes=settings.on_shortfall == "reroute",
            clock_skew_ms=settings.clock_skew_ms,
            transfer_ms=settings.transfer_days * 86_400_000,
        )
        self.network = network.Network(partition, partitions, self.location_offsets)
        self.products = products.Products(self.product_offsets)
        self._work = make_work(2 * _FEWEST_LINES, 256, 256)
        self._out = make_decisions(1_024, 4_096)

    def pool(self, pool_id: bytes) -> PoolState:
        """Give a pool's state; an empty one if it is new."""
        if pool_id not in self.pools:
            self.pools[pool_id] = PoolState(pool_id, self._limits)
        return self.pools[pool_id]

    def decode(self, segments: list[Segment]) -> Decoded:
        """Read a batch's records, merged by timestamp."""
        return Decoded(segments)

    def lacks_locations(self, decoded: Decoded) -> bool:
        """Tell whether a record names a location or a pool that is unknown here."""
        for key, rows in decoded.inputs.records.groups.items():
            state = self.pools.get(key or b"")
            if state is None:
                if key and partition_of(key, self.partitions) == self.partition:
                    return True
            elif names_unknown_location(state.t, decoded.batch.events, decoded.batch.buffer, rows):
                return True
        return False

    def process(self, decoded: Decoded, changes: list[LocationChange]) -> Outcome:
        """Apply a batch: changes of locations and products first, then its records."""
        clock = Clock()
        # 1: change locations and products
        register = {LOCATIONS: self.network.register, PRODUCTS: self.products.register}
        changes = [change for change in changes if register[change.topic](change)]
        outputs = InventoryOutputs(self.partition, decoded, changes)
        events = outputs.events
        for row, change in enumerate(changes, len(decoded)):
            if change.topic == LOCATIONS:
                self._change_location(change, row, decoded, outputs)
            else:
                self._change_product(change, row, outputs)
        places = [change for change in changes if change.topic == LOCATIONS]
        articles = [change for change in changes if change.topic == PRODUCTS]
        clock.stage("locations")
        # 2: assign to pools; the records of an unknown pool are refused
        touched: dict[bytes, np.ndarray] = {}
        for key, rows in decoded.inputs.records.groups.items():
            if key in self.pools:
                touched[key] = rows
                forget_old(self.pools[key].t)
            else:
                self._refuse(key, events, rows)
        for key in self.pools if articles else self.network.touched(places):
            if key in self.pools:
                touched.setdefault(key, np.empty(0, np.int64))
        clock.stage("assign")
        # 3, 4: apply and encode, pool by pool
        for key, rows in touched.items():
            self._apply(self.pools[key], events, decoded, rows)
            clock.stage("apply")
            outputs.add_decisions(self.pools[key], self._out)
            outputs.add_state(self.pools[key], rows)
            clock.stage("encode")
        outputs.add_dead_letters(self.network.pools, self._limits.clock_skew_ms)
        clock.stage("encode")
        # 5: the changelog record
        record = b""
        if len(decoded) or changes:
            told = [network.told(change) for change in places], list(touched), [products.told(change) for change in articles]
            record = self.record(decoded.inputs, *told)
        clock.stage("record")
        return Outcome(
            outputs=outputs.messages,
            changelog=record,
            offsets=decoded.inputs.next_offsets,
            sequence=self.sequence,
            link=self.link,
            counts=_counts(events[: len(decoded)]),
            left_out=by_field(decoded.batch.left_out, lambda row: TOPICS[events["topic"][row]]),
            stages=clock.seconds,
            timestamps=events["timestamp"][: len(decoded)].copy(),
        )

    def _refuse(self, key: bytes | None, events: np.ndarray, rows: np.ndarray) -> None:
        """Refuse the records of a key that is no pool of this partition."""
        if not key:
            reason = DeadLetter.MISSING_KEY
        elif partition_of(key, self.partitions) != self.partition:
            reason = DeadLetter.WRONG_PARTITION
        else:
            reason = DeadLetter.UNKNOWN_POOL
        undecoded = events["kind"][rows] == Kind.UNDECODED
        events["reason"][rows[~undecoded]] = reason
        events["outcome"][rows] = Fate.DEAD_LETTER

    def _change_location(self, change: LocationChange, row: int, decoded: Decoded, outputs: InventoryOutputs) -> None:
        """Put a change into its pool, and try the orders that wait there."""
        judged = self.network.judged(change, self.pools)
        if isinstance(judged, Refusal):
            outputs.refuse(row, judged.reason, judged.detail)
            return
        new = judged.pool.encode() not in self.pools
        state = self.pool(judged.pool.encode())
        if new:
            self.products.enter(state)
        if network.put(state, judged, change):
            self._apply(state, outputs.events, decoded, np.array([row]))
            outputs.add_decisions(state, self._out)

    def _change_product(self, change: LocationChange, row: int, outputs: InventoryOutputs) -> None:
        """Put a change into all pools."""
        refusal = self.products.put(change, list(self.pools.values()))
        if refusal is not None and self.partition == 0:
            outputs.refuse(row, refusal.reason, refusal.detail)

    def _apply(self, state: PoolState, events: np.ndarray, decoded: Decoded, rows: np.ndarray) -> None:
        tag = np.frombuffer(state.tag, np.uint8)
        lines, buffer, at = decoded.batch.lines, decoded.batch.buffer, 0
        while True:
            at = apply_events(state.t, self._out, self._work, events, lines, buffer, rows, at, tag)
            if at == rows.size:
                return
            self._make_room(state, int(events["line_count"][rows[at]]))

    def _make_room(self, state: PoolState, line_count: int) -> None:
        """Grow what may be too small for the next event; see `_has_room` of the engine."""
        n, each = int(lines_at_most(state.t, line_count)), int(rows_a_line(state.t))
        cells = n * each
        lost = int(promises_at_most(state.t, cells))
        state.ensure(
            skus=cells,
            cells=cells,
            orders=2,
            lines=each * (LINES_ROOM * n + lost),
            refusals=n,
            supplies=1,
            movements=MOVES_ROOM * cells,
            seen=1,
            heap=(cells + 1) * _ROOM_PER_LINE,
            sku_cells=cells * 2 * (state.count("locations") + 4),
            holds=1,
            due=1,
            alerts=2 * ALERTS_ROOM * cells,
        )
        t, pool = state.t, state.row[0]
        too_small = self._work.route.candidates.size < t.locations.size
        rows = LINES_ROOM * n
        if too_small or self._work.rows.size < rows or self._work.stamps.size < t.orders.size:
            self._work = make_work(max(rows, self._work.rows.size), t.orders.size, max(t.locations.size, 256))
        decisions = int(self._out.counts[N_DECISIONS] + pool["waiting_lines"] + pool["held_orders"]) + 2 + lost
        lines = int(self._out.counts[N_LINES] + 2 * pool["open_lines"]) + 2 * lost + rows
        if decisions > self._out.decisions.size or lines > self._out.lines.size:
            self._out = _larger(self._out, 2 * decisions, 2 * lines)

    def seal(self) -> None:
        """Build what is derived from the restored tables; once, after the last `restore`."""
        super().seal()
        for key, state in self.pools.items():
            self.products.restore(state)
            for row in state.rows("locations"):
                self.network.pools[state.text(int(row["id_at"]), int(row["id_size"]))] = key

    def kept_products(self) -> Collection[bytes]:
        """Give the SKUs that are kits."""
        return self.products.kits.keys()

    def needs_ticks(self, now_ms: float) -> list[bytes]:
        """Give the ids of the pools in which a hold waits to expire, or a transfer is due by now."""
        return [key for key, state in self.pools.items() if _waits(state, now_ms)]


def _waits(state: PoolState, now_ms: float) -> bool:
    due = state.next_due()
    return state.row["held_orders"][0] > 0 or (due is not None and due <= now_ms)


def _counts(events: np.ndarray) -> dict[tuple[str, str], int]:
    cases = np.bincount(events["topic"].astype(np.int64) * _FATES + events["outcome"], minlength=1)
    return {(TOPICS[case // _FATES], Fate(case % _FATES).wire): int(cases[case]) for case in np.flatnonzero(cases).tolist()}


def _larger(out: Any, decisions: int, lines: int) -> Any:
    """Copy the decisions so far into more room."""
    new = make_decisions(max(decisions, out.decisions.size), max(lines, out.lines.size))
    for name, used in zip(("decisions", "shipments", "lines", "losers"), out.counts, strict=True):
        getattr(new, name)[:used] = getattr(out, name)[:used]
    new.counts[:] = out.counts
    return new
