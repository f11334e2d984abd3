"""A pool's state as one number, whatever its row numbers: for replays, recovery, the audit's cross-check and benchmarks.

Two pools with the same digest answer every further event alike. Rows are named by their keys (location id, SKU, order id),
not by their numbers, and what counts as forgotten is left out whether it was dropped yet or not, so that the digest does not
depend on how the log was cut into batches.
"""

import hashlib

import numpy as np
import orjson

from state import columns
from state.demand import DemandState
from state.pool import PoolState
from state.tables import CLOSED_MS, DEDUPE_EVENTS, DEDUPE_MS, HORIZON_MS


def digest(state: PoolState) -> str:
    """Hash all that decides a pool's further answers; 32 hex digits."""
    parts = [_counters(state), _locations(state), _cells(state), _orders(state), _supplies(state), _seen(state)]
    return hashlib.blake2b(orjson.dumps(parts, option=orjson.OPT_SERIALIZE_NUMPY), digest_size=16).hexdigest()


def _texts(state: PoolState, table: str) -> list[str]:
    return [state.text(int(row["id_at"]), int(row["id_size"])).decode() for row in state.rows(table)]


def _counters(state: PoolState) -> list[int]:
    return [int(state.row[name][0]) for name in ("now", "sequence", "waiting_lines", "held_orders", "open_lines")]


def _locations(state: PoolState) -> list:
    names = ("x", "y", "z", "rank", "priority", "daily_capacity", "flags", "kind")
    rows = state.rows("locations")
    texts = _texts(state, "locations")
    return sorted([text, *(row[name].item() for name in names)] for text, row in zip(texts, rows, strict=True))


def _cells(state: PoolState) -> list:
    locations, skus = _texts(state, "locations"), _texts(state, "skus")
    names = ("on_hand", "reserved", "safety_stock", "version", "updated_at", "counted_at")
    kept, forgotten = _movements(state)
    return sorted(
        [locations[row["location"]], skus[row["sku"]], *(int(row[name]) for name in names), kept[i], forgotten[i]]
        for i, row in enumerate(state.rows("cells"))
    )


def _movements(state: PoolState) -> tuple[list[list], list[int]]:
    """Per cell: the movements inside the horizon, and the latest time among those outside."""
    _, ring = state.ring("movements")
    oldest = int(state.row["now"][0]) - int(state.t.limits[HORIZON_MS])
    kept: list[list] = [[] for _ in range(state.count("cells"))]
    forgotten = state.rows("cells")["forgotten"].tolist()
    for movement in ring:
        cell = int(movement["cell"])
        if movement["applied_at"] < oldest:
            forgotten[cell] = max(forgotten[cell], int(movement["event_time"]))
        else:
            kept[cell].append([int(movement["event_time"]), int(movement["quantity"])])
    return kept, forgotten


def _lines(state: PoolState, order: np.void, skus: list[str]) -> list:
    result = []
    names = (
        "quantity",
        "shipped",
        "returned",
        "collected",
        "location",
        "shipment_sequence",
        "shipment_number",
        "state",
        "reason",
    )
    row = int(order["first_line"])
    lines = state.t.lines
    while row >= 0:
        line = lines[row]
        text = state.text(int(order["id_at"] + line["id_at"]), int(line["id_size"])).decode()
        result.append([text, skus[line["sku"]], *(int(line[name]) for name in names)])
        row = int(line["next"])
    return result


def _orders(state: PoolState) -> list:
    skus = _texts(state, "skus")
    names = ("age", "state", "flags", "pickup_location", "expires_at", "closed_at")
    oldest = int(state.row["now"][0]) - int(state.t.limits[CLOSED_MS])
    result = []
    for row in state.rows("orders"):
        if row["state"] in (columns.OPEN, columns.HELD) or (
            row["state"] in (columns.CLOSED, columns.EXPIRED) and row["closed_at"] >= oldest
        ):
            order_id = state.text(int(row["id_at"]), int(row["id_size"])).decode()
            result.append([order_id, *(int(row[name]) for name in names), _lines(state, row, skus)])
    return sorted(result)


def _supplies(state: PoolState) -> list:
    names = ("hash_low", "hash_high", "location", "quantity", "kind", "expected_at")
    return sorted([int(row[name]) for name in names] for row in state.rows("supplies") if row["kind"])


def _seen(state: PoolState) -> list:
    head, ring = state.ring("seen")
    return _inside(ring, head + ring.size, int(state.row["now"][0]), state.t.limits)


def _inside(ring: np.ndarray, tail: int, now: int, limits: np.ndarray) -> list:
    """Give what of the dedupe window still counts; what does not is dropped between batches only."""
    recent = ring["time"] >= now - int(limits[DEDUPE_MS])
    inside = ring[recent | (np.arange(tail - ring.size, tail) >= tail - int(limits[DEDUPE_EVENTS]))]
    return [tail, inside["hash_low"].tolist(), inside["hash_high"].tolist(), inside["time"].tolist()]


def digest_demand(state: DemandState) -> str:
    """Hash all that decides the further demand of one partition's clicks; 32 hex digits."""
    clock = state.clock[0]
    rows, steps = state.rows("rows"), state.rows("steps")
    names = ("views", "carts", "checkouts")
    live = sorted(
        [*state.text(row), *(int(row[name]) for name in (*names, "version", "updated_at"))] for row in rows if row["step"] >= 0
    )
    queue, number = [], int(clock["first_step"])
    while number >= 0:
        step = steps[number]
        queue.append([int(step["start"]), *state.text(rows[step["row"]]), *(int(step[name]) for name in names)])
        number = int(step["next"])
    seen = _inside(state.seen(), int(clock["seen_tail"]), int(clock["now"]), state.t.limits)
    parts = [int(clock["now"]), int(clock["changes"]), live, queue, seen]
    return hashlib.blake2b(orjson.dumps(parts), digest_size=16).hexdigest()
