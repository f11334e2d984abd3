"""The outputs of one inventory batch: decisions, cells, supplies, alerts, dead letters.

Not here: their bytes (topics/codec/encode.py).
"""

from typing import Any

import numpy as np

from state.columns import GONE_SUPPLY, GONE_TRANSIT, IN_TRANSIT
from state.pool import PoolState
from state.tables import ALERT_COUNT, MOST_PIECES, TRANSFER_MS
from streams.batch.letters import letter
from streams.batch.outputs import Outputs
from streams.batch.pipeline import LocationChange
from streams.inventory.decide import N_DECISIONS
from streams.inventory.decoded import TOPICS, Decoded
from streams.inventory.refusals import sentence
from streams.routing.policy import POLICIES
from topics.catalogue import ALERTS, SUPPLIES, TRANSFERS
from topics.codec.decode import text_of
from topics.codec.encode import (
    OF_ORDERS,
    encode_alerts,
    encode_allocations,
    encode_inventory,
    encode_left_out,
    encode_supplies,
    encode_transfers,
)
from topics.codec.messages import Messages
from topics.reasons import DeadLetter, Outcome


class InventoryOutputs(Outputs):
    """A batch's outputs.

    Parameters
    ----------
    partition : int
        From which the batch was read.
    decoded : Decoded
    changes : list of LocationChange
        Those applied with the batch.

    Attributes
    ----------
    events : EVENT[n + changes]
        The batch's events, and behind them the changes of locations and products.
    """

    def __init__(self, partition: int, decoded: Decoded, changes: list[LocationChange]):
        super().__init__(decoded.inputs.records)
        self.events = decoded.with_changes(changes)
        self._decoded = decoded
        self._changes = changes
        self._details = decoded.batch.details
        self._partitions = np.full(len(self.events), partition, np.int32)
        self._partitions[len(decoded) :] = [change.partition for change in changes]

    def refuse(self, row: int, reason: DeadLetter, detail: str) -> None:
        """Make an event a dead letter, with a sentence of its own."""
        self.events["outcome"][row] = Outcome.DEAD_LETTER
        self.events["reason"][row] = reason
        self._details[row] = detail

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
            pieces=state.t.lines,
            most_pieces=int(state.t.counters[MOST_PIECES]),
            events=self.events,
            partitions=self._partitions,
            topic_names=TOPICS,
            policies=POLICIES,
            pool_id=state.pool_id,
            tag=state.tag,
        )
        self.add("allocations.v1", messages, decisions["event"])
        out.counts[:] = 0

    def add_state(self, state: PoolState, rows: np.ndarray) -> None:
        """Encode what a pool publishes: cells and supplies that changed, as they are now, and alerts of its events (`rows`)."""
        changed, causes = state.changed_cells()
        t = state.t
        messages = encode_inventory(t.cells, changed, skus=t.skus, locations=t.locations, heap=t.heap, pool_id=state.pool_id)
        self.add("inventory.v1", messages, causes)
        self._add_supplies(state)
        self._add_alerts(state)
        self._add_left_out(state, rows)

    def _add_supplies(self, state: PoolState) -> None:
        rows, causes = state.changed_supplies()
        t = state.t
        kinds = t.supplies["kind"][rows]
        gone = kinds >= GONE_SUPPLY
        shared = {"skus": t.skus, "locations": t.locations, "heap": t.heap, "pool_id": state.pool_id}
        of = np.isin(kinds, (IN_TRANSIT, GONE_TRANSIT))
        transfer_ms = int(t.limits[TRANSFER_MS])
        if of.any():
            messages = encode_transfers(t.supplies, rows[of], gone[of], transfer_ms=transfer_ms, **shared)
            self.add(TRANSFERS, messages, causes[of])
        if not of.all():
            self.add(SUPPLIES, encode_supplies(t.supplies, rows[~of], gone[~of], **shared), causes[~of])

    def _add_alerts(self, state: PoolState) -> None:
        counters = state.t.counters
        alerts = state.t.alerts[: counters[ALERT_COUNT]]
        if alerts.size:
            t = state.t
            messages = encode_alerts(
                alerts,
                supplies=t.supplies,
                skus=t.skus,
                locations=t.locations,
                heap=t.heap,
                events=self.events,
                partitions=self._partitions,
                buffer=self._decoded.batch.buffer,
                topic_names=TOPICS,
                pool_id=state.pool_id,
            )
            self.add(ALERTS, messages, alerts["event"])
            counters[ALERT_COUNT] = 0

    def _add_left_out(self, state: PoolState, rows: np.ndarray) -> None:
        """Encode an alert for each field that was left out of an event that was not refused."""
        left_out = self._decoded.batch.left_out
        if not left_out:
            return
        own = rows[np.isin(rows, list(left_out))]
        good = own[self.events["outcome"][own] != Outcome.DEAD_LETTER].tolist()
        fields = [(row, name) for row in good for name in dict.fromkeys(left_out[row])]
        self.add(ALERTS, Messages.of([self._left_out(state, row, name) for row, name in fields]), [row for row, _ in fields])

    def _left_out(self, state: PoolState, row: int, name: str) -> dict[str, Any]:
        event = self.events[row]
        of_order = event["kind"] in OF_ORDERS and event["reference_size"] > 0
        order_id = text_of(event, "reference", self._decoded.batch.buffer) if of_order else None
        topic, partition, offset = TOPICS[event["topic"]], int(self._partitions[row]), int(event["offset"])
        return encode_left_out(name, topic, partition, offset, order_id, int(event["timestamp"]), state.pool_id)

    def add_dead_letters(self, location_pools: dict[bytes, bytes], clock_skew_ms: int) -> None:
        """Encode the events that were refused, each whole, with a reason and a sentence."""
        rows = np.flatnonzero(self.events["outcome"] == Outcome.DEAD_LETTER).tolist()
        self.add("dead-letter.v1", Messages.of([self._dead_letter(row, location_pools, clock_skew_ms) for row in rows]), rows)

    def _dead_letter(self, row: int, location_pools: dict[bytes, bytes], clock_skew_ms: int) -> dict[str, Any]:
        event, count = self.events[row], len(self._decoded)
        record = self._decoded.inputs.records.record(row) if row < count else self._changes[row - count]
        detail = self._details.get(row)
        if detail is None:
            event["reason"], detail = sentence(event, self._decoded.batch, record.key, location_pools, clock_skew_ms)
        topic, partition = TOPICS[event["topic"]], int(self._partitions[row])
        return letter(topic, partition, record, DeadLetter(int(event["reason"])), detail)
