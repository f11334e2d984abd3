"""What a version of nearshelf leaves behind, kept small: its changelog, its snapshot, and what it answered next.

`python -m tests.golden.upgrade write DIRECTORY` writes, for the inventory and the clicks, `{group}.json.gz` (settings, input
batches, each batch's changelog record, link and outputs) and `{group}-snapshot.tar.gz` (the store of the first `KEPT` batches).
`... check DIRECTORY` restores from both and compares the answers. Before a version changes a schema, the version before it
writes its directory, tests/fixtures/v{version}; all of them must restore.
"""

import gzip
import io
import json
import shutil
import sys
import tarfile
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from state import changelog
from state.store import Store
from streams.batch.pipeline import Cursor, LocationChange, Outcome
from streams.demand.pipeline import ClicksPipeline
from streams.inventory.pipeline import InventoryPipeline
from streams.worker.snapshots import GroupPartition, _cursor
from tests.golden.logs import SMALL_CLICKS, clicks_pipeline, make_clicks, play_clicks
from tests.inventory_log import LogRecord, make_log, play, segments, settings

RECORDS, SIZE, KEPT = 480, 30, 12
SEED = 7
PIPELINES: dict[str, Any] = {"inventory": InventoryPipeline, "clicks": ClicksPipeline}


def _text(content: bytes | None) -> str | None:
    return None if content is None else b64encode(content).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def _bare(content: bytes | None) -> bytes | None:
    return content


def _written(outcome: Outcome, form: Callable[[bytes | None], Any] = _text) -> dict[str, Any]:
    outputs = {
        topic: [(form(message["key"]), form(message["value"])) for message in messages]
        for topic, messages in outcome.outputs.items()
    }
    return {"changelog": form(outcome.changelog), "link": outcome.link.hex(), "outputs": outputs}


def _record(record: LogRecord) -> list:
    return [record.topic, record.offset, record.timestamp, _text(record.key), _text(record.value)]


def write_group(
    directory: Path, group: str, place: GroupPartition, records: list[LogRecord], locations: list[LocationChange],
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
        store = Store(Path(scratch) / "snapshot", place.identity, place.schema)
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
    shutil.unpack_archive(directory / f"{group}-snapshot.tar.gz", into)
    return into / "snapshot"


def place_of(group: str) -> GroupPartition:
    """The partition that a group's log is of."""
    made = PIPELINES[group]
    return GroupPartition(f"old-{group}-0", made.changelog_topic, 0, 1, made.schema)


def empty(group: str, told: dict[str, Any]) -> Any:
    """An empty pipeline with the settings of a log; promises are kept as 0.1.0 kept them."""
    return PIPELINES[group](0, 1, settings(**told["settings"], on_shortfall="keep"))


def from_changelog(group: str, told: dict[str, Any], batches: int) -> Any:
    """A pipeline restored from the records of the first batches."""
    pipeline = empty(group, told)
    for batch in told["batches"][:batches]:
        pipeline.restore(batch["changelog"], batch["link"])
    pipeline.seal()
    return pipeline


def from_store(group: str, told: dict[str, Any], store: Store) -> Any:
    """A pipeline loaded from a snapshot."""
    pipeline = empty(group, told)
    pipeline.load(_cursor({"locations": [], "inputs": {}, "at": 0, "next": 0} | store.cursor), store.read())
    pipeline.seal()
    return pipeline


def answer(pipeline: Any, told: dict[str, Any]) -> Iterator[tuple[int, Outcome]]:
    """Process the batches that follow the pipeline's last; each with its place in the log."""
    for number in range(pipeline.sequence, len(told["batches"])):
        records = told["records"][number * told["size"] : (number + 1) * told["size"]]
        refused = {(letter["topic"], letter["offset"]) for letter in _letters(told["batches"][number])}
        records = [replace(each, value=b"?") if (each.topic, each.offset) in refused else each for each in records]
        yield number, pipeline.process(pipeline.decode(segments(records)), [])


def _letters(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Give a batch's dead letters. What 0.1.0 refused may be taken today: it is answered as something that is refused still."""
    return [json.loads(value) for _, value in batch["outputs"].get("dead-letter.v1", ())]


def check(directory: Path) -> Iterator[str]:
    """Restore each group from changelog and from snapshot, and process the rest; gives what is not as it was."""
    for group in PIPELINES:
        told = read_group(directory, group)
        kept, batches = told["kept"], told["batches"]
        with tempfile.TemporaryDirectory() as scratch:
            place = place_of(group)
            store = Store(unpack_snapshot(directory, group, Path(scratch)), place.identity, place.schema)
            restored = {"changelog": from_changelog(group, told, kept), "snapshot": from_store(group, told, store)}
            if restored["changelog"].digests() != restored["snapshot"].digests():
                yield f"{group}: changelog and snapshot give different states"
            # The snapshot goes on, at first with records of the old layout.
            for number in range(kept, kept + 2):
                _keep(store, number, batches[number]["changelog"], batches[number]["link"])
            restored["longer snapshot"] = from_store(group, told, store)
            if restored["longer snapshot"].digests() != from_changelog(group, told, kept + 2).digests():
                yield f"{group}: the snapshot of batch {kept + 2} gives another state"
            for source, pipeline in restored.items():
                for number, outcome in answer(pipeline, told):
                    if _answers(_written(outcome, _bare)) != _answers(batches[number]):
                        yield f"{group} from {source}: batch {number + 1} has other outputs"
                    if source == "longer snapshot":
                        _keep(store, number, outcome.changelog, outcome.link)
            if from_store(group, told, store).digests() != restored["longer snapshot"].digests():
                yield f"{group}: the snapshot of the last batch gives another state"
            store.close()


def _answers(batch: dict[str, Any]) -> dict[str, list]:
    """Give a batch's outputs; keys as 0.1.0 wrote them, without escapes, and of a dead letter its place alone."""
    return {
        topic: [
            (json.loads(value)["offset"],)
            if topic == "dead-letter.v1"
            else (key and key.replace(b"%2F", b"/").replace(b"%25", b"%"), value)
            for key, value in messages
        ]
        for topic, messages in batch["outputs"].items()
        if topic not in ("alerts.v1", "transfers.v1", "supplies.v1")  # 0.1.0 told of nothing
    }


def _keep(store: Store, number: int, record: bytes, link: bytes) -> None:
    store.write([changelog.manifest_of(record)], {"batch": number + 1, "link": link.hex()})


def write(directory: Path) -> None:
    """Write what this version leaves behind."""
    directory.mkdir(parents=True, exist_ok=True)
    log, clicks = make_log(SEED, RECORDS), make_clicks(SEED, RECORDS)
    outcomes = play(InventoryPipeline(0, 1, settings()), log, SIZE)
    write_group(directory, "inventory", place_of("inventory"), log.records, log.locations, {}, outcomes)
    written = play_clicks(clicks_pipeline(**SMALL_CLICKS), clicks, SIZE)
    write_group(directory, "clicks", place_of("clicks"), clicks, [], SMALL_CLICKS, written)


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "write":
        write(where)
    else:
        faults = list(check(where))
        print("\n".join(faults) or f"{where}: restored, and answers as it did")
        sys.exit(bool(faults))
