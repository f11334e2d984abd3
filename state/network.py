"""The pool's locations: the only code that changes them. Rare, so plain Python.

A location keeps the offset of the `locations.v1` record in force, so that records read again after a restart change nothing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from state.columns import ENABLED, PICKS_UP, SHIPS
from state.hashing import hash_bytes
from state.index import insert
from state.pool import PoolState
from state.stock import find_location, relink_cells
from state.tables import LOCATIONS, mark
from state.text import name_row

EARTH_RADIUS_KM = 6371.0088


def unit_vector(latitude: float, longitude: float) -> tuple[float, float, float]:
    """Place degrees on the unit sphere; (x, y, z)."""
    phi, theta = math.radians(latitude), math.radians(longitude)
    return math.cos(phi) * math.cos(theta), math.cos(phi) * math.sin(theta), math.sin(phi)


def limit_chord2(max_distance_km: float | None) -> float:
    """Give the squared chord of a great circle, which routing compares; 0 = no limit.

    Examples
    --------
    >>> round(limit_chord2(10_007.557), 6), limit_chord2(None), limit_chord2(20_100)  # a quarter of the equator; over half
    (2.0, 0.0, 0.0)
    """
    angle = (max_distance_km or 0.0) / EARTH_RADIUS_KM
    return 4 * math.sin(angle / 2) ** 2 if angle < math.pi else 0.0


def location_row(state: PoolState, location_id: bytes) -> int:
    """Find a location's row; -1 = unknown."""
    text = np.frombuffer(location_id, np.uint8)
    return int(find_location(state.t, text, 0, text.size))


def flags_of(enabled: bool, capabilities: Sequence[str]) -> int:
    """Pack what a location may do."""
    return ENABLED * enabled | SHIPS * ("ship" in capabilities) | PICKS_UP * ("pickup" in capabilities)


def put_location(state: PoolState, location_id: bytes, columns: Mapping[str, Any], source: tuple[int, int]) -> bool:
    """Add or change a location as of a `locations.v1` record (`source` = partition, offset).

    `columns` are LOCATION's, latitude and longitude among them; None, as in a record, is -1 in the row.
    Returns False if that record, or a later one, is in force already.
    """
    row = location_row(state, location_id)
    if row >= 0 and int(state.t.locations[row]["source_offset"]) >= source[1]:
        return False
    known = row >= 0
    if not known:
        row = _add_location(state, location_id)
    location = state.t.locations[row]
    former_z = location["z"]
    location["x"], location["y"], location["z"] = unit_vector(columns["latitude"], columns["longitude"])
    if known and location["z"] != former_z:
        relink_cells(state.t, row)
    for name, value in columns.items():
        location[name] = -1 if value is None else value
    location["source_partition"], location["source_offset"] = source
    _mark(state, row)
    return True


def _mark(state: PoolState, row: int) -> None:
    t = state.t
    mark(t.journal, t.counters, LOCATIONS, t.locations[row], row)


def _add_location(state: PoolState, location_id: bytes) -> int:
    state.ensure(locations=1, heap=2 * len(location_id) + 32)
    t = state.t
    row = state.count("locations")
    state.row["location_count"] += 1
    location = t.locations[row]
    low, high = hash_bytes(location_id)
    text = np.frombuffer(location_id, np.uint8)
    name_row(t, location, np.uint64(low), np.uint64(high), text, 0, text.size, text.size)
    insert(t.location_index, np.uint64(low), row)
    _rank(state)
    return row


def _rank(state: PoolState) -> None:
    """Number the locations in the order of their ids."""
    rows = state.rows("locations")
    ids = [state.text(int(row["id_at"]), int(row["id_size"])).decode() for row in rows]
    for rank, row in enumerate(sorted(range(len(ids)), key=ids.__getitem__)):
        if rows[row]["rank"] != rank:
            rows[row]["rank"] = rank
            _mark(state, row)
