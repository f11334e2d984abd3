"""The store alone: what was written is what is read, and what is not what was written is found. The disk is real."""

import os
import shutil
import subprocess

import numpy as np
import orjson
import pytest

from config.settings import load_settings
from state import changelog
from state.columns import SCHEMA
from state.digest import digest
from state.store import Store, StoreDamaged, StoreForeign, StoreFull, StoreInUse
from streams.batch.pipeline import Cursor
from streams.inventory.pipeline import InventoryPipeline
from tests.inventory_log import make_log, play

IDENTITY = {"changelog": "log", "partition": 0, "partitions": 1}
SETTINGS = load_settings(bootstrap_servers="nowhere:1", dedupe_events=50, dedupe_hours=0, count_horizon_hours=1)


@pytest.fixture(scope="module")
def history():
    """A pipeline that has seen a long log, and what each batch of it changed."""
    pipeline = InventoryPipeline(0, 1, SETTINGS)
    log = make_log(3, 1_500, step_ms=60_000, dedupe_events=50, dedupe_hours=0, count_horizon_hours=1)
    return pipeline, [outcome for outcome in play(pipeline, log, 20) if outcome.changelog]


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "state" / "shop"


def cursor_at(number):
    return {"batch": number}


def write(store, outcomes):
    for start in range(0, len(outcomes), 7):
        some = outcomes[start : start + 7]
        store.write([changelog.manifest_of(outcome.changelog) for outcome in some], cursor_at(some[-1].sequence))


def loaded(store):
    pipeline = InventoryPipeline(0, 1, SETTINGS)
    pipeline.load(Cursor(0, b"", 0, 0, {}, {}), store.read())
    pipeline.seal()
    return pipeline


def digests(pipeline):
    return {key: digest(state) for key, state in pipeline.pools.items()}


def test_what_was_written_in_pieces_is_read_whole_by_another_process_of_later(directory, history):
    pipeline, outcomes = history
    store = Store(directory, IDENTITY, SCHEMA)
    assert store.cursor is None
    write(store, outcomes)
    store.close()
    again = Store(directory, IDENTITY, SCHEMA)
    assert again.cursor == cursor_at(outcomes[-1].sequence)
    assert loaded(again).digests() == pipeline.digests()
    again.close()


def test_each_write_leaves_the_state_of_its_last_batch(directory, history):
    _, outcomes = history
    store = Store(directory, IDENTITY, SCHEMA)
    for count in (1, 2, 40):
        start = store.cursor["batch"] if store.cursor else 0
        write(store, outcomes[start:count])
        folded = InventoryPipeline(0, 1, SETTINGS)
        for outcome in outcomes[:count]:
            folded.restore(outcome.changelog, outcome.link)
        folded.seal()
        assert loaded(store).digests() == folded.digests()
    store.close()


def test_what_the_pool_forgets_leaves_the_disk(directory):
    """The ring of event ids keeps 50; a page of it holds 2048."""
    limits = {"dedupe_events": 50, "dedupe_hours": 0}
    pipeline = InventoryPipeline(0, 1, load_settings(bootstrap_servers="nowhere:1", **limits))
    outcomes = play(pipeline, make_log(5, 12_000, step_ms=1_000, **limits), 500)
    store = Store(directory, IDENTITY, SCHEMA)
    write(store, [outcome for outcome in outcomes if outcome.changelog])
    meta = store._meta["pools"]
    for pool_id, state in ((key.decode(), state) for key, state in pipeline.pools.items()):
        head, ring = state.ring("seen")
        if head > 2_048:
            assert meta[pool_id]["seen"]["pages"] <= 2
            assert meta[pool_id]["seen"]["first"] == head
            np.testing.assert_array_equal(store.read()[pool_id].appended["seen"][1], ring)
            break
    else:
        pytest.fail("no pool has forgotten a page")
    store.close()


def test_a_store_of_something_else_is_foreign(directory, history):
    Store(directory, IDENTITY | {"partition": 1}, SCHEMA).close()
    store = Store(directory, IDENTITY | {"partition": 1}, SCHEMA)
    write(store, history[1][:1])
    store.close()
    with pytest.raises(StoreForeign, match=r"'partition': 0.* expected, found .*'partition': 1"):
        Store(directory, IDENTITY, SCHEMA)


def test_a_store_that_is_open_elsewhere_is_in_use(directory):
    store = Store(directory, IDENTITY, SCHEMA)
    with pytest.raises(StoreInUse, match=str(directory)):
        Store(directory, IDENTITY, SCHEMA)
    store.close()


def files(directory, suffix):
    return sorted(directory.glob(f"*.{suffix}"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_flipped_bit_is_found(directory, history, place):
    store = Store(directory, IDENTITY, SCHEMA)
    write(store, history[1])
    store._db.flush()
    store.close()
    path = files(directory, "sst")[-1]
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=str(directory)):
        Store(directory, IDENTITY, SCHEMA).read()


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("name", ["MANIFEST-*", "*.log"])
def test_a_flipped_bit_in_a_records_type_is_found_before_rocksdb_reads_it_for_ever(directory, history, name, bit):
    store = Store(directory, IDENTITY, SCHEMA)
    write(store, history[1])
    found = directory.with_name("left by a worker that was killed")
    shutil.copytree(directory, found)
    store.close()
    (path,) = (each for each in found.glob(name) if each.stat().st_size)
    content = bytearray(path.read_bytes())
    second = 7 + int.from_bytes(content[4:6], "little")
    content[second + 6] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=f"{path}: the record at byte {second} is not as it was written"):
        Store(found, IDENTITY, SCHEMA)


def test_a_page_that_is_not_what_was_written_is_named(directory, history):
    """RocksDB's own checksums are right here: the damage happened before it was given the page."""
    store = Store(directory, IDENTITY, SCHEMA)
    write(store, history[1])
    key = b"uk\0cells\0\0\0\0\0"
    value = bytearray(store._db[key])
    value[100] ^= 1
    store._db[key] = bytes(value)
    with pytest.raises(StoreDamaged, match="checksum of pool uk, table cells, page 0"):
        store.read()
    store.close()


def test_a_page_in_the_place_of_another_is_found(directory, history):
    store = Store(directory, IDENTITY, SCHEMA)
    write(store, history[1])
    store._db[b"uk\0cells\0\0\0\0\0"] = store._db[b"uk\0lines\0\0\0\0\0"]
    with pytest.raises(StoreDamaged, match="table cells, page 0"):
        store.read()
    store.close()


@pytest.mark.parametrize("key", [b"uk\0cells\0\0\0\0\0", b"uk\0heap\0\0\0\0\0", b""])
def test_a_missing_page_is_found(directory, history, key):
    store = Store(directory, IDENTITY, SCHEMA)
    write(store, history[1])
    store._db.delete(key)
    store.close()
    with pytest.raises(StoreDamaged):
        Store(directory, IDENTITY, SCHEMA).read()


@pytest.mark.parametrize("suffix", ["sst", "log"])
def test_a_truncated_file_is_found_or_leaves_an_older_snapshot_whole(directory, history, suffix):
    _, outcomes = history
    store = Store(directory, IDENTITY, SCHEMA)
    write(store, outcomes[:35])
    if suffix == "sst":
        store._db.flush()
    store.close()
    path = files(directory, suffix)[-1]
    os.truncate(path, path.stat().st_size // 2)
    try:
        store = Store(directory, IDENTITY, SCHEMA)
        found = loaded(store) if store.cursor else InventoryPipeline(0, 1, SETTINGS)
    except StoreDamaged:
        return
    assert suffix == "log"
    folded = InventoryPipeline(0, 1, SETTINGS)
    for outcome in outcomes[: store.cursor["batch"] if store.cursor else 0]:
        folded.restore(outcome.changelog, outcome.link)
    folded.seal()
    assert found.digests() == folded.digests()
    store.close()


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "small"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk_leaves_the_snapshot_where_it_stood(small_disk, history):
    pipeline, outcomes = history
    directory = small_disk / "state" / "shop"
    store = Store(directory, IDENTITY, SCHEMA)
    write(store, outcomes[:7])
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    with pytest.raises(StoreFull, match="No space left"):
        for _ in range(20):
            write(store, outcomes[7:])
    stood_at = store.cursor
    store.close()
    (small_disk / "filler").unlink()
    again = Store(directory, IDENTITY, SCHEMA)
    assert again.cursor == stood_at
    write(again, outcomes[stood_at["batch"] :])
    assert loaded(again).digests() == pipeline.digests()
    again.close()


def test_a_write_is_all_or_nothing_in_what_it_says_it_holds(directory, history):
    store = Store(directory, IDENTITY, SCHEMA)
    write(store, history[1][:3])
    meta = orjson.loads(bytes(store._db[b""])[4:])
    assert meta["cursor"] == cursor_at(3)
    assert set(meta["pools"]) <= {"uk", "ie", "fr"}
    store.close()
