"""The outputs of one inventory batch: decisions, cells and dead letters. Not here: their bytes (topics/codec/encode.py)."""

from typing import Any

import numpy as np

from state.pool import PoolState
from streams.batch.letters import letter
from streams.batch.outputs import Outputs
from streams.batch.pipeline import LocationChange
from streams.inventory.decide import N_DECISIONS
from streams.inventory.decoded import TOPICS, Decoded
from streams.inventory.refusals import sentence
from streams.routing.policy import POLICIES
from topics.codec.encode import encode_allocations, encode_inventory
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
        The batch's events, and behind them the location changes.
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
            events=self.events,
            partitions=self._partitions,
            topic_names=TOPICS,
            policies=POLICIES,
            pool_id=state.pool_id,
            tag=state.tag,
        )
        self.add("allocations.v1", messages, decisions["event"])
        out.counts[:] = 0

    def add_cells(self, state: PoolState) -> None:
        """Encode the cells that changed, as they are now."""
        rows, causes = state.changed_cells()
        t = state.t
        messages = encode_inventory(t.cells, rows, skus=t.skus, locations=t.locations, heap=t.heap, pool_id=state.pool_id)
        self.add("inventory.v1", messages, causes)

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
