"""What a version of nearshelf leaves behind, kept small: its changelog, its snapshot, and what it would have answered next.

`python -m tests.golden.upgrade DIRECTORY` writes, for the inventory and the clicks, `{group}.json.gz` (settings, input batches,
each batch's changelog record, link and outputs) and `{group}-snapshot.tar.gz` (the store of the first `KEPT` batches).
Every version that changes a layout adds the directory that the version before it wrote; all of them must restore.
"""

import gzip
import io
import json
import shutil
import sys
import tarfile
import tempfile
from base64 import b64decode, b64encode
from dataclasses import asdict
from pathlib import Path
from typing import Any

from state import changelog
from state.store import Store
from streams.batch.pipeline import Cursor, LocationChange, Outcome
from streams.inventory.pipeline import InventoryPipeline
from streams.worker.snapshots import Place, _identity
from tests.golden.logs import SMALL_CLICKS, clicks_pipeline, make_clicks, play_clicks
from tests.inventory_log import LogRecord, make_log, play, settings

RECORDS, SIZE, KEPT = 480, 30, 12
SEED = 7


def _text(content: bytes | None) -> str | None:
    return None if content is None else b64encode(content).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def _written(outcome: Outcome) -> dict[str, Any]:
    outputs = {
        topic: [[_text(message["key"]), _text(message["value"])] for message in messages]
        for topic, messages in outcome.outputs.items()
    }
    return {"changelog": _text(outcome.changelog), "link": outcome.link.hex(), "outputs": outputs}


def _record(record: LogRecord) -> list:
    return [record.topic, record.offset, record.timestamp, _text(record.key), _text(record.value)]


def write_group(
    directory: Path, group: str, place: Place, records: list[LogRecord], locations: list[LocationChange],
    changed: dict[str, Any], outcomes: list[Outcome],
) -> None:  # fmt: skip
    """Write one group's log, and a snapshot of its first batches."""
    told = {
        "settings": changed,
        "size": SIZE,
        "kept": KEPT,
        "records": [_record(record) for record in records],
        "locations": [[each.partition, each.offset, each.timestamp, _text(each.key), _text(each.value)] for each in locations],
        "batches": [_written(outcome) for outcome in outcomes],
    }
    with gzip.GzipFile(directory / f"{group}.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps(told).encode())
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "snapshot", _identity(place))
        kept = outcomes[:KEPT]
        manifests = [changelog.manifest_of(outcome.changelog) for outcome in kept]
        inputs = {given["topic"]: given["next"] for manifest, _ in manifests for given in manifest["inputs"]}
        known = {change["partition"]: change["offset"] + 1 for manifest, _ in manifests for change in manifest["locations"]}
        cursor = Cursor(KEPT, kept[-1].link, KEPT - 1, KEPT, inputs, known)
        store.write(manifests, {**asdict(cursor), "link": cursor.link.hex(), "locations": list(known.items())})
        store.close()
        for log in Path(scratch).glob("snapshot/LOG*"):
            log.unlink()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(Path(scratch) / "snapshot", "snapshot")
        with gzip.GzipFile(directory / f"{group}-snapshot.tar.gz", "wb", mtime=0) as file:
            file.write(buffer.getvalue())


def read_group(directory: Path, group: str) -> dict[str, Any]:
    """Read what `write_group` wrote, with bytes as bytes and records as records."""
    told = json.loads(gzip.decompress((directory / f"{group}.json.gz").read_bytes()))
    told["records"] = [LogRecord(*each[:3], _bytes(each[3]), _bytes(each[4])) for each in told["records"]]
    told["locations"] = [LocationChange(*each[:3], _bytes(each[3]), _bytes(each[4])) for each in told["locations"]]
    for batch in told["batches"]:
        batch["changelog"], batch["link"] = _bytes(batch["changelog"]), bytes.fromhex(batch["link"])
        batch["outputs"] = {
            topic: [(_bytes(key), _bytes(value)) for key, value in messages] for topic, messages in batch["outputs"].items()
        }
    return told


def unpack_snapshot(directory: Path, group: str, into: Path) -> Path:
    """Unpack a group's snapshot; gives the store's directory."""
    shutil.unpack_archive(directory / f"{group}-snapshot.tar.gz", into, filter="data")
    return into / "snapshot"


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    log = make_log(SEED, RECORDS)
    place = Place("old-inventory-0", "inventory-changelog.v1", 0, 1)
    outcomes = play(InventoryPipeline(0, 1, settings()), log, SIZE)
    write_group(directory, "inventory", place, log.records, log.locations, {}, outcomes)
    clicks = make_clicks(SEED, RECORDS)
    place = Place("old-clicks-0", "clicks-changelog.v1", 0, 1)
    written = play_clicks(clicks_pipeline(**SMALL_CLICKS), clicks, SIZE)
    write_group(directory, "clicks", place, clicks, [], SMALL_CLICKS, written)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
