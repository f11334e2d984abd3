"""A record to be produced, with the outcome that is known in advance: what every workload is made of.

Owner: the workloads; the demo, the tests and the benchmarks read them.
Not here: producing it.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

APPLIED = "applied"


class Record(NamedTuple):
    """One record of an input topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    outcome: str = APPLIED
    """What must become of it: `applied`, `duplicate`, `stale`, or the wire name of the dead letter's reason."""
    partition: int | None = None
    """Where to produce it; None = where its key belongs."""


def values(records: Iterable[Record]) -> Iterator[bytes]:
    """Give the records' values; raises `ValueError` for one that has none."""
    for record in records:
        if record.value is None:
            raise ValueError(f"expected records with a value, found {record}")
        yield record.value
