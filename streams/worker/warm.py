"""Compiling all kernels before the worker starts: a minute, once a machine and version; after that a second or two.

A worker does it before it joins its group, so that it is never given partitions it could not serve yet.
"""

import orjson

from config.settings import Settings, load_settings
from streams.batch.pipeline import LocationChange, Segment
from streams.demand.pipeline import warm as warm_demand
from streams.inventory.pipeline import InventoryPipeline
from streams.kafka import record_batches
from topics.codec.records import Record
from topics.events import EARLIEST_MS

_LOCATION = {"id": "A", "pool": "warm", "kind": "store", "latitude": 51.0, "longitude": 0.0}
_EVENT = {"event_time": EARLIEST_MS, "location_id": "A", "sku": "B"}
_RECEIPT = _EVENT | {"event_id": "1", "kind": "receipt", "quantity": 9}
_TRANSFER = _RECEIPT | {"event_id": "4", "kind": "transfer_out", "transfer_id": "T", "to_location_id": "A"}
_EXPECTED = _RECEIPT | {"event_id": "5", "kind": "expected", "supply_id": "P", "expected_at": EARLIEST_MS}
_SALE = _EVENT | {"event_id": "2", "kind": "sale", "quantity": 1}
_OVERSOLD = _SALE | {"event_id": "6", "sku": "E"}
_ORDER = {
    "event_id": "3",
    "event_time": EARLIEST_MS,
    "kind": "held",
    "expires_at": EARLIEST_MS + 9,
    "order_id": "C",
    "lines": [{"line_id": "1", "sku": "B", "quantity": 2}, {"line_id": "2", "sku": "D", "quantity": 2}],
    "destination": {"latitude": 51.0, "longitude": 0.0},
}


def _segment(topic: str, *events: dict) -> Segment:
    records = [Record(offset, EARLIEST_MS, b"warm", orjson.dumps(event), []) for offset, event in enumerate(events)]
    return Segment.of(topic, records)


def warm_kernels(settings: Settings) -> None:
    """Run every kernel once: a shop of one location through the inventory pipeline, a restoration, then the clicks."""
    record_batches.warm()
    warm_demand(settings)
    pipeline = InventoryPipeline(0, 1, settings)
    network = [LocationChange(0, 0, 0, b"A", orjson.dumps(_LOCATION))]
    stock = _segment("stock.v1", _RECEIPT, _TRANSFER, _EXPECTED)
    segments = [stock, _segment("sales.v1", _SALE, _OVERSOLD), _segment("orders.v1", _ORDER, {})]
    first = pipeline.process(pipeline.decode(segments), network)
    restored = InventoryPipeline(0, 1, settings)
    restored.restore(first.changelog, first.link)
    restored.seal()
    decoded = restored.decode([_segment("ticks.v1", {"pool_id": "warm"})])
    restored.lacks_locations(decoded)
    restored.process(decoded, [])


if __name__ == "__main__":
    warm_kernels(load_settings())
