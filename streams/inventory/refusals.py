"""The sentence of a dead letter: what was expected, what was found, where. The letter itself: streams/batch/letters.py."""

from typing import Any

import numpy as np

from state.orders import MAX_LINE_PARTS, MAX_ORDER_PARTS
from streams.batch.letters import reused
from streams.batch.times import implausible, is_plausible
from topics.codec.decode import Batch, text_of
from topics.reasons import DeadLetter, Kind


def _text(batch: Batch, event: np.void, column: str) -> str:
    return text_of(event, column, batch.buffer)


def _wrong_time(event: np.void, clock_skew_ms: int) -> str:
    timestamp, time = int(event["timestamp"]), int(event["event_time"])
    if is_plausible(time, timestamp, clock_skew_ms):
        return implausible("counted_at", int(event["time"]), timestamp, clock_skew_ms)
    return implausible("event_time", time, timestamp, clock_skew_ms)


def sentence(
    event: Any, batch: Batch, key: bytes | None, location_pools: dict[bytes, bytes], clock_skew_ms: int
) -> tuple[DeadLetter, str]:
    """Give the reason why an event was refused, and its sentence. A location of another pool has a reason of its own."""
    reason = DeadLetter(int(event["reason"]))
    if reason is DeadLetter.TIME_OUT_OF_RANGE:
        return reason, _wrong_time(event, clock_skew_ms)
    location, order = _text(batch, event, "location"), _text(batch, event, "reference")
    field = "location_id"
    if event["kind"] == Kind.TRANSFER_OUT and location_pools.get(location.encode()) == key:
        field, location = "to_location_id", _text(batch, event, "target")
    elif event["kind"] in (Kind.PLACED, Kind.HELD, Kind.CHANGED):
        field = "pickup_location_id"
    shipment, pool = _text(batch, event, "shipment"), (key or b"").decode(errors="replace")
    found = location_pools.get(location.encode())
    if reason is DeadLetter.UNKNOWN_LOCATION and found == key:
        return reason, f"{field}: expected a location that does pickup, found {location!r}, which does none"
    if reason is DeadLetter.UNKNOWN_LOCATION and found is not None:
        reason = DeadLetter.WRONG_POOL
    sentences = {
        DeadLetter.MISSING_KEY: "key: expected the pool's id, found none",
        DeadLetter.UNKNOWN_POOL: f"key: expected a pool with a location in locations.v1, found {pool!r}",
        DeadLetter.WRONG_PARTITION: f"key: pool {pool!r} belongs to another partition; expected the partition of "
        "murmur2(key), Java's default partitioner (librdkafka: partitioner=murmur2_random)",
        DeadLetter.UNKNOWN_LOCATION: f"{field}: expected a location of locations.v1, found {location!r}",
        DeadLetter.WRONG_POOL: f"{field}: expected a location of pool {pool!r}, found {location!r} of pool "
        f"{location_pools.get(location.encode(), b'').decode()!r}; the record's key must be the location's pool",
        DeadLetter.EVENT_ID_REUSED: reused(
            _text(batch, event, "event_id"), f"order {order!r}" if event["kind"] >= Kind.PLACED else f"location {location!r}"
        ),
        DeadLetter.OUT_OF_RANGE: f"quantity: {event['quantity']} would bring on hand of the cell beyond ±1000000000 units",
        DeadLetter.ORDER_EXISTS: f"order_id: expected an order not placed before, found {order!r}, which was",
        DeadLetter.UNKNOWN_ORDER: f"order_id: expected an order that was placed, found {order!r}, which was not",
        DeadLetter.ORDER_CLOSED: f"order_id: nothing of order {order!r}, or of the lines named, is left to cancel",
        DeadLetter.UNKNOWN_LINE: f"lines: expected line ids of order {order!r} in the shipment or order named, found another",
        DeadLetter.UNKNOWN_SHIPMENT: f"shipment_id: expected a shipment of order {order!r}, found {shipment!r}",
        DeadLetter.WRONG_LOCATION: f"location_id: shipment {shipment!r} does not belong to location {location!r}",
        DeadLetter.SHIPMENT_CLOSED: f"shipment_id: nothing of shipment {shipment!r} is left for this event",
        DeadLetter.EXCEEDS_SHIPMENT: f"lines: expected no more units than shipment {shipment!r} still holds, found more",
        DeadLetter.NOT_SHIPPED: f"shipment_id: expected a shipment that was shipped, found {shipment!r}, which was not",
        DeadLetter.COUNT_TOO_OLD: f"counted_at: {event['time']} is before movements of the cell that are no longer kept; "
        "send a newer count (how long they are kept: setting count_horizon_hours)",
        DeadLetter.TOO_MANY_SKUS: f"sku: pool {pool!r} has as many SKUs as it may, found one more (setting max_skus)",
        DeadLetter.TOO_MANY_CELLS: f"location_id: pool {pool!r} has as many cells as it may, found one more "
        "(setting max_cells)",
        DeadLetter.TOO_MANY_LINES: f"lines: more than pool {pool!r} may keep of its orders, open or not forgotten yet "
        f"(settings max_order_lines, closed_order_days), or a change of order {order!r}, which is in {MAX_ORDER_PARTS} parts "
        "already; if so, cancel it and place another"
        if event["kind"] < Kind.SHIPPED
        else f"lines: rejections may cut a line into {MAX_LINE_PARTS} parts and an order into {MAX_ORDER_PARTS}, found one "
        "more; reject all that is left of the line",
        DeadLetter.EXCEEDS_SHIPPED: f"lines: expected at least what was shipped of each line of order {order!r}, found fewer",
        DeadLetter.TOO_MANY_SUPPLIES: f"supply_id, transfer_id: pool {pool!r} has as many supplies under way as it may, found "
        "one more (setting max_supplies)",
    }
    return reason, sentences[reason]
