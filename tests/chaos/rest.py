"""What must hold when everything has come to rest: read from the topics, the workers' last words and their disks.

1. the group's offsets are the inputs' ends; 2. in every topic the last stable offset is the end: no transaction hangs;
3. the reader has read all, and the log still says what it read; 4. the audit is clean and complete; 5. each pool's digest is
the same by its last owner, by the changelog, by the snapshots on disk, and by a replay of the inputs.
Not here: how to come to rest (round.py).
"""

import time
from typing import TYPE_CHECKING

import orjson
from confluent_kafka import KafkaException

from streams.audit import audit
from streams.worker.transactions import LANES, lane_id
from tests.chaos import digests
from tests.chaos.faults import INSIDE
from tests.chaos.load import PARTITIONS
from tests.chaos.watch import CELLS, DECISIONS, TRANSFERS
from topics.catalogue import CATALOGUE, INVENTORY_TOPICS

if TYPE_CHECKING:
    from tests.chaos.round import Round

INPUTS = (*INVENTORY_TOPICS, "clicks.v1")
MARKERS_S = 10.0
READ_S = 60.0


def offsets(round_: "Round") -> dict | None:
    """Give the inputs' ends if all of it is committed, else None."""
    cluster = round_.cluster
    try:
        ends = cluster.ends(cluster.places(INPUTS), stable=True)
        return ends if cluster.committed(round_.settings.app_id, ends) == ends else None
    except KafkaException:
        return None


def lag(round_: "Round") -> dict:
    """Give, for each input that is not read to its end, (committed, end)."""
    ends = round_.cluster.ends(round_.cluster.places(INPUTS), stable=True)
    committed = round_.cluster.committed(round_.settings.app_id, ends)
    return {place: (committed[place], end) for place, end in ends.items() if committed[place] != end}


def check(round_: "Round") -> None:
    """Tell the round of every violation."""
    started = time.monotonic()
    cluster = round_.cluster
    places = cluster.places(CATALOGUE)
    deadline = time.monotonic() + MARKERS_S
    while (stable := cluster.ends(places, True)) != (ends := cluster.ends(places, False)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for place in places:
        if stable[place] != ends[place]:
            round_.violate(f"a transaction hangs: {place} is stable up to {stable[place]}, and ends at {ends[place]}")
    if offsets(round_) is None:
        round_.violate(f"the group's offsets are not the inputs' ends: {lag(round_)}")
    watched = {place: end for place, end in stable.items() if place[0] in (DECISIONS, CELLS, TRANSFERS)}
    if not round_.reader.at(watched, READ_S):
        round_.violate(f"the reader did not come to the end within {READ_S:g} s: {round_.reader.failure}")
    for partition in range(PARTITIONS):
        round_.watch.reread(partition, cluster.messages(DECISIONS, partition))
    report = audit(round_.settings, complete=True)
    for fault in report.faults[:5]:
        round_.violate(f"audit: {fault}")
    if report.fault_count > 5:
        round_.violate(f"audit: {report.fault_count} faults in all")
    _digests(round_)
    _windows(round_)
    round_.result.checked_s = time.monotonic() - started


def _digests(round_: "Round") -> None:
    live: dict[int, tuple[int, dict]] = {}
    for worker in round_.crew.workers:
        if worker.child.returncode == 0:
            for partition, (batch, text) in worker.digests().items():
                if batch >= live.get(partition, (0, {}))[0]:
                    live[partition] = batch, orjson.loads(text)
    read, settings = round_.cluster.messages, round_.settings
    for partition in range(PARTITIONS):
        found = {"the changelog": digests.folded(read, partition, PARTITIONS, settings)}
        found["a replay"] = digests.replayed(read, partition, PARTITIONS, settings, seed=round_.number)
        batch, of_owner = live.get(partition, (0, {}))
        if batch >= digests.count_batches(read, partition):  # else the last owner did not live to tell
            found["its owner"] = of_owner
            round_.result.owners += 1
        for place in round_.crew.places:
            for directory in place.snapshots():
                if directory.name == f"inventory-changelog.v1-{partition}":
                    snapshot = digests.from_snapshot(directory, read, partition, PARTITIONS, settings)
                    if snapshot is not None:
                        found[f"the snapshot of place {place.number}"] = snapshot
                        round_.result.snapshots += 1
        if len({orjson.dumps(one, option=orjson.OPT_SORT_KEYS) for one in found.values()}) > 1:
            round_.violate(f"partition {partition}: digests differ: {found}")


def _windows(round_: "Round") -> None:
    """Tell which faults fell into an open transaction of a partition they hit, by the coordinator's own log."""
    windows = round_.cluster.windows()
    for event in round_.result.events:
        partitions = [
            f"{group}-changelog.v1-{partition}" for partition in event.partitions for group in ("inventory", "clicks")
        ]
        names = [lane_id(name, lane) for name in partitions for lane in range(LANES)]
        event.inside = event.name in INSIDE or any(
            window.begun_ms <= event.at_ms <= window.ended_ms for name in names for window in windows.get(name, [])
        )
