"""Snapshots: each owned partition's committed state on this machine's disk, and how a restart takes it from there.

One thread per worker reads the changelogs of the partitions it owns, as anybody may, and writes what they say to their stores
every `snapshot_interval_ms`. It reads committed records only, so nothing else can reach the disk; and it follows the log, not
the flow, so it costs the flow no time and neither can harm the other. A restart loads the snapshot and folds the changelog
from there on: what was committed since the last write.

A snapshot proves itself: page by page by checksums, as a whole by its link, which must be that of the changelog's record at its
place. One that is damaged or foreign is put aside as `NAME.bad`, and the changelog is folded from its beginning.
Not here: the layout on disk (state/store.py), the chain of batches (chain.py).
"""

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from state import changelog
from state.schema import NewerLayout, Schema
from state.store import Store, StoreDamaged, StoreForeign, StoreFull, StoreInUse
from streams.batch.pipeline import ChangelogGap, Cursor, Pipeline
from streams.kafka.reading import Interrupted, LogReader
from streams.worker import failpoints
from streams.worker.chain import Batch, Chain, header_of
from streams.worker.owner import OtherOwner, check

log = logging.getLogger("nearshelf.snapshots")

# Changelog bytes in one write, about.
WRITE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class GroupPartition:
    """One partition of a group of topics: whose state it is, and where its changelog is."""

    name: str
    """``{changelog on the cluster}-{partition}``: its transactional id, and its snapshot's directory."""
    changelog_topic: str
    partition: int
    partitions: int
    schema: Schema
    """Of the group's state."""
    app_id: str | None = None
    """Whose it must be; None: anybody's."""
    former: str | None = None
    """Its name in earlier versions: ``{app id}-{group}-{partition}``."""

    @property
    def identity(self) -> dict[str, Any]:
        """What its snapshot says it is of."""
        return {"changelog": self.changelog_topic, "partition": self.partition, "partitions": self.partitions}


class Snapshots:
    """All snapshots of a worker. `keep` and `release` are the flows', each for its own partition.

    Parameters
    ----------
    settings
        `data_directory`, `snapshot_interval_ms`, and what a LogReader needs.
    passed : callable
        Told each fail point as it is passed.
    """

    def __init__(self, settings: Any, passed: Callable[[str], None]):
        self._settings = settings
        self._passed = passed
        self._condition = threading.Condition()
        self._kept: dict[str, Snapshot] = {}
        self._writing: str | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        if settings.snapshot_interval_ms:
            self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
            self._thread.start()

    def load(
        self, place: GroupPartition, pipeline: Pipeline, reader: LogReader, interrupted: Callable[[], bool]
    ) -> Cursor | None:
        """Load the snapshot of a partition that is not kept into an empty pipeline; `seal` is still to come.

        Returns
        -------
        Cursor or None
            Where the snapshot stands; None = there is none that is any good, and the pipeline is as empty as before.

        Raises
        ------
        NewerLayout
            A later version wrote it.
        OtherOwner
            Workers of another `app_id` wrote the changelog at its place.
        """
        directory = _directory(self._settings, place)
        if place.former is not None and not directory.exists():
            with contextlib.suppress(OSError):
                directory.with_name(place.former).rename(directory)
        if not self._settings.snapshot_interval_ms or not directory.exists():
            return None
        try:
            store = Store(directory, place.identity, place.schema)
            try:
                if store.cursor is None:
                    return None
                cursor = _cursor(store.cursor)
                _prove(cursor, place, reader, interrupted)
                pools = store.read()
            finally:
                store.close()
            pipeline.load(cursor, pools)
            return cursor
        except (StoreDamaged, StoreForeign) as error:
            _put_aside(directory, error)
        except (StoreInUse, StoreFull) as error:
            log.warning("no snapshot is read: %s", error)
        return None

    def keep(self, place: GroupPartition) -> None:
        """Write this partition's snapshots from now on."""
        with self._condition:
            self._kept[place.name] = Snapshot(self._settings, place)

    def release(self, place: GroupPartition) -> None:
        """Stop; returns when its store is closed."""
        with self._condition:
            kept = self._kept.pop(place.name, None)
            self._condition.wait_for(lambda: self._writing != place.name)
        if kept is not None:
            kept.close()

    def stop(self) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()
        for kept in self._kept.values():
            kept.close()

    def _run(self) -> None:
        reader: LogReader | None = None
        while self._wait():
            for name in list(self._kept):
                kept = self._begin(name)
                if kept is None:
                    continue
                try:
                    reader = reader or LogReader(self._settings)
                    kept.write(reader, partial(self._unwanted, name), self._passed)
                except Interrupted:
                    pass
                except KafkaException as failure:
                    log.warning("%s: its changelog can't be read, no snapshot this time: %s", name, failure)
                    if reader is not None:
                        reader.close()
                    reader = None
                except BaseException as error:  # whatever it is, the flow must not suffer from it
                    log.exception("%s: no snapshot this time: %s", name, error)
                finally:
                    self._end()
        if reader is not None:
            reader.close()

    def _unwanted(self, name: str) -> bool:
        return self._stopping or name not in self._kept

    def _wait(self) -> bool:
        due_at = time.monotonic() + self._settings.snapshot_interval_ms / 1000
        with self._condition:
            while not self._stopping and time.monotonic() < due_at:
                self._condition.wait(due_at - time.monotonic())
            return not self._stopping

    def _begin(self, name: str) -> "Snapshot | None":
        with self._condition:
            kept = self._kept.get(name)
            self._writing = name if kept is not None else None
            return kept

    def _end(self) -> None:
        with self._condition:
            self._writing = None
            self._condition.notify_all()


class Snapshot:
    """One partition's snapshot, as it is written: one thread's."""

    def __init__(self, settings: Any, place: GroupPartition):
        self._place = place
        self._directory = _directory(settings, place)
        self._store: Store | None = None
        self._broken = False

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def write(self, reader: LogReader, interrupted: Callable[[], bool], passed: Callable[[str], None]) -> None:
        """Bring the snapshot up to the changelog's end."""
        if self._broken:
            return
        try:
            if self._store is None:
                self._store = Store(self._directory, self._place.identity, self._place.schema)
            self._follow(self._store, reader, interrupted, passed)
        except (StoreDamaged, StoreForeign) as error:
            self.close()
            _put_aside(self._directory, error)  # the next one is written from the changelog's beginning
        except (StoreInUse, StoreFull) as error:
            self.close()
            log.warning("no snapshot this time: %s", error)
        except (ChangelogGap, NewerLayout, OtherOwner) as error:
            self.close()
            self._broken = True
            log.error("no more snapshots of %s: %s", self._place.name, error)

    def _follow(self, store: Store, reader: LogReader, interrupted: Callable[[], bool], passed: Callable[[str], None]) -> None:
        place = self._place
        cursor = _cursor(store.cursor) if store.cursor is not None else None
        if cursor is not None:
            _prove(cursor, place, reader, interrupted)
        chain = Chain(cursor.batch, cursor.link, place.app_id) if cursor is not None else Chain(app_id=place.app_id)
        start = None if cursor is None else cursor.next
        batches: list[Batch] = []
        size = 0
        for batch in chain.batches(reader.messages(place.changelog_topic, place.partition, interrupted, start)):
            batches.append(batch)
            size += len(batch.record)
            if size >= WRITE_BYTES:
                cursor = _write(store, batches, cursor, passed)
                batches, size = [], 0
        if batches:
            _write(store, batches, cursor, passed)


def _write(store: Store, batches: list[Batch], cursor: Cursor | None, passed: Callable[[str], None]) -> Cursor:
    manifests = [changelog.manifest_of(batch.record) for batch in batches]
    inputs = dict(cursor.inputs) if cursor is not None else {}
    locations = dict(cursor.locations) if cursor is not None else {}
    for manifest, _ in manifests:
        inputs |= {given["topic"]: given["next"] for given in manifest["inputs"]}
        locations |= {change["partition"]: change["offset"] + 1 for change in manifest["locations"]}
    last = batches[-1]
    moved = Cursor(last.number, last.link, last.at, last.next, inputs, locations)
    passed(failpoints.BEFORE_SNAPSHOT)
    store.write(manifests, {**asdict(moved), "link": last.link.hex(), "locations": list(locations.items())})
    passed(failpoints.AFTER_SNAPSHOT)
    return moved


def _cursor(stored: dict[str, Any]) -> Cursor:
    return Cursor(**{**stored, "link": bytes.fromhex(stored["link"]), "locations": dict(stored["locations"])})


def _prove(cursor: Cursor, place: GroupPartition, reader: LogReader, interrupted: Callable[[], bool]) -> None:
    """Check that the changelog has, at the snapshot's place, the batch it ends with."""
    topic, partition = place.changelog_topic, place.partition
    where = f"{topic}[{partition}] at offset {cursor.at}"
    first, last = reader.range(topic, partition)
    if not first <= cursor.at < cursor.next <= last:
        raise StoreForeign(f"{place.name}: the snapshot ends with {where}, the changelog holds {first} to {last}")
    message = next(iter(reader.messages(topic, partition, interrupted, cursor.at)), None)
    found = None
    if message is not None and message.offset() == cursor.at:
        check(message, place.app_id)
        number, _, _, link = header_of(message, where)
        found = number, link
    if found != (cursor.batch, cursor.link):
        shown = "no such batch" if found is None else f"batch {found[0]}, link {found[1].hex()}"
        raise StoreForeign(f"{place.name}: {where}: batch {cursor.batch}, link {cursor.link.hex()} expected, found {shown}")


def _directory(settings: Any, place: GroupPartition) -> Path:
    return Path(settings.data_directory) / "state" / place.name


def _put_aside(directory: Path, error: Exception) -> None:
    """Rename a snapshot that can't be used, in the place of the one put aside before."""
    aside = directory.with_name(f"{directory.name}.bad")
    shutil.rmtree(aside, ignore_errors=True)
    directory.rename(aside)
    log.warning("a snapshot can't be used and is put aside as %s: %s: %s", aside, type(error).__name__, error)
