"""Faust's consumer scheduler: a whole fetched range per partition, not a record at a time.

Faust spends 60 µs on whatever a scheduler yields. Given to it record by record that is the limit of a worker; given a
fetched range at a time it is nothing.
Not here: what a range is (transport.py), who takes it (app.py).
"""

from collections.abc import Iterator, Mapping

from faust.types import TP

from streams.kafka.transport import Fetched


class BatchScheduler:
    """`App(ConsumerScheduler=…)`: yields each partition's fetched range once, in the order fetched."""

    def iterate(self, records: Mapping[TP, Fetched]) -> Iterator[tuple[TP, Fetched]]:
        return iter(records.items())
