"""The numbers of a partition's decisions, judged by themselves where what caused them is deleted.

Owner: the audit of a partition whose first inputs are gone (inventory.py). Not here: what a decision says (decisions.py).
"""

from collections.abc import Iterator, Mapping
from math import inf

from streams.audit.log import Record
from streams.audit.outputs import Tape, read
from streams.audit.report import FaultSink
from topics.catalogue import ALLOCATIONS
from topics.outputs import Allocation


class Sequences:
    """Each pool's decisions that are left: without a gap, and as many as the changelog counts.

    Parameters
    ----------
    records : iterator of Record
        Of `allocations.v1`.
    fault : callable
    """

    def __init__(self, records: Iterator[Record], fault: FaultSink):
        self._tape = Tape(records)
        self._fault = fault
        self._last: dict[str, tuple[int, int]] = {}
        """Pool → its last decision's number and offset."""

    def settle(self, due: float, counted: Mapping[str, int], moving: bool) -> None:
        """Judge the decisions before the offset `due`; `counted`: pool → decisions by the last batch in sight.

        `moving`: decisions of batches that are not in sight may be among them.
        """
        while (head := self._tape.head) and head.offset < due:
            self._tape.take()
            self._judge(head)
        for pool, (number, offset) in self._last.items():
            reached = counted.get(pool, 0)
            if (number > reached and not moving) or (number < reached and due == inf):
                self._fault("sequence", ALLOCATIONS, offset, f"sequence {reached} as the last of pool {pool}", number)

    def _judge(self, record: Record) -> None:
        decision = read(Allocation, ALLOCATIONS, "decision", record, self._fault)
        if decision is None:
            return
        if record.key != decision.order_id.encode():
            self._fault("decision", ALLOCATIONS, record.offset, f"key {decision.order_id}", record.key)
        last, _ = self._last.get(decision.pool_id, (decision.sequence - 1, 0))
        if decision.sequence != last + 1:
            expected = f"sequence {last + 1} of pool {decision.pool_id}"
            self._fault("sequence", ALLOCATIONS, record.offset, expected, decision.sequence)
        self._last[decision.pool_id] = decision.sequence, record.offset
