"""A record to be produced, with the outcome that is known in advance: what every workload is made of.

Owner: the workloads; the demo, the tests and the benchmarks read them.
Not here: producing it; what the retail sample adds to events (retail/).
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


def movement(event_id: str, time_ms: int, kind: str, place: int, sku: str, quantity: int, more: str = "") -> bytes:
    """Give the value of a stock event or a sale at the location of that number; `more` is JSON, from its comma on."""
    return (
        f'{{"event_id":"{event_id}","event_time":{time_ms},"kind":"{kind}","location_id":"L{place:05}","sku":"{sku}",'
        f'"quantity":{quantity}{more}}}'
    ).encode()


def placed(number: int, time_ms: int, lines: str, latitude: float, longitude: float) -> bytes:
    """Give the value of the order of that number; `lines` are of `line`, between commas."""
    return (
        f'{{"event_id":"e{number:09}","event_time":{time_ms},"kind":"placed","order_id":"o{number:09}",'
        f'"lines":[{lines}],"destination":{{"latitude":{latitude:.5f},"longitude":{longitude:.5f}}}}}'
    ).encode()


def line(number: int, sku: int, quantity: int) -> str:
    """Give a line of an order."""
    return f'{{"line_id":"{number}","sku":"SKU-{sku:06}","quantity":{quantity}}}'


def values(records: Iterable[Record]) -> Iterator[bytes]:
    """Give the records' values; raises `ValueError` for one that has none."""
    for record in records:
        if record.value is None:
            raise ValueError(f"expected records with a value, found {record}")
        yield record.value
