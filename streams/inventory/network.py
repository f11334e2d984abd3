"""Location changes: which pool each location is in, which partition acts on a change, and what a change puts into the state.

Every partition reads all of `locations.v1`, and acts on the changes of its own pools. A location stays in its first pool.
Owner: the inventory pipeline. Not here: the location's row (state/network.py), reading the topic (worker/locations.py).
"""

from collections.abc import Mapping
from typing import Any

from state.columns import LOCATION
from state.network import flags_of, limit_chord2, location_row, put_location
from state.pool import PoolState
from streams.batch.pipeline import LocationChange
from topics.events import CAPABILITIES, LocationRecord, Refusal, judge
from topics.keys import partition_of
from topics.reasons import DeadLetter

_KINDS = tuple(CAPABILITIES)
# A location's fields that stand in its row under the same name.
_COLUMNS = [name for name in LocationRecord.model_fields if name in (LOCATION.names or ())]


class Network:
    """The whole network, as far as one partition needs it.

    Parameters
    ----------
    partition, partitions : int
        Whose changes to act on.
    applied : dict
        Partition of locations.v1 → offset after the last change that a batch applied; the pipeline's own.

    Attributes
    ----------
    pools : dict
        Location id → pool id, of all pools.
    """

    def __init__(self, partition: int, partitions: int, applied: dict[int, int]):
        self.pools: dict[bytes, bytes] = {}
        self._partition = partition
        self._partitions = partitions
        self._applied = applied

    def register(self, change: LocationChange) -> bool:
        """Note which pool a location is in; True if the change is for this partition to act on, and not applied yet."""
        judged = judge("locations.v1", change.value)
        if isinstance(judged, LocationRecord) and change.key == judged.id.encode():
            self.pools.setdefault(judged.id.encode(), judged.pool.encode())
        pool = self.pools.get(change.key or b"")
        # Partition 0 refuses the records of unknown locations, so that each is refused once.
        owner = 0 if pool is None else partition_of(pool, self._partitions)
        return owner == self._partition and change.offset >= self._applied.get(change.partition, 0)

    def judged(self, change: LocationChange, pools: Mapping[bytes, PoolState]) -> LocationRecord | Refusal:
        """Read a change that is to be applied, and count it as applied.

        A deleted location is a disabled one, since its stock and its orders remain.
        """
        self._applied[change.partition] = change.offset + 1
        known = self.pools.get(change.key or b"", b"")
        state = pools.get(known)
        if change.key and change.value is None and state is not None and (row := location_row(state, change.key)) >= 0:
            location = state.t.locations[row]
            return LocationRecord(
                id=change.key.decode(),
                pool=known.decode(),
                kind=_KINDS[location["kind"]],
                latitude=float(location["latitude"]),
                longitude=float(location["longitude"]),
                enabled=False,
            )
        judged = judge("locations.v1", change.value)
        if isinstance(judged, Refusal):
            return judged
        assert isinstance(judged, LocationRecord), "the model of locations.v1"
        if change.key != judged.id.encode():
            return Refusal(DeadLetter.WRONG_FIELD, f"id: expected the record's key {change.key!r}, found {judged.id!r}")
        if known != judged.pool.encode():
            return Refusal(
                DeadLetter.WRONG_POOL,
                f"pool: expected {known.decode()!r}, where location {judged.id!r} is, found {judged.pool!r}; "
                "a location stays in its pool: give the place a new id in the other",
            )
        return judged

    def touched(self, changes: list[LocationChange]) -> list[bytes]:
        """Give the ids of the pools whose locations are named, in the order of the changes."""
        return list(dict.fromkeys(self.pools[change.key] for change in changes if change.key in self.pools))


def put(state: PoolState, location: LocationRecord, change: LocationChange) -> bool:
    """Put a change into its pool; false if that change, or a later one, is in force there already."""
    columns = {name: getattr(location, name) for name in _COLUMNS}
    columns |= {"kind": _KINDS.index(location.kind), "flags": flags_of(location.enabled, location.capabilities or [])}
    columns["limit_chord2"] = limit_chord2(location.max_distance_km)
    return put_location(state, location.id.encode(), columns, (change.partition, change.offset))


def told(change: LocationChange) -> dict[str, Any]:
    """Describe a change for the changelog's manifest; `value` None = the location is gone, false = a record refused."""
    judged = None if change.value is None else judge("locations.v1", change.value)
    return {
        "partition": change.partition,
        "offset": change.offset,
        "timestamp": change.timestamp,
        "key": None if change.key is None else change.key.decode(errors="replace"),
        "value": False if isinstance(judged, Refusal) else judged and judged.model_dump(),
    }
