"""How a worker comes back on a real Kafka: from its snapshot, without one, from a wrong one, or out of another's standby.

The state that a worker has when it stops is compared, by its digest, with what its changelog alone adds up to.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

import config
from benchmarks.fleet import Sender, drain, running
from benchmarks.retail.workload import retail_events
from config.network import load_network
from state import changelog, schema
from streams.audit import audit
from streams.inventory.pipeline import InventoryPipeline
from streams.kafka.create import create_topics
from streams.kafka.reading import LogReader
from streams.worker import recovery
from tests.golden.logs import clicks_pipeline, make_clicks, play_clicks

NETWORKS = Path(config.__file__).parent / "networks"
QUICK = {"session_timeout_ms": 3_000, "heartbeat_ms": 500, "snapshot_interval_ms": 200, "digest_at_stop": True}
PATIENCE_S = 60


@pytest.fixture
def shop(make_settings):
    """Settings of one pool, and a shop's stream in three pieces."""
    settings = make_settings(network=NETWORKS / "uk.yaml", partitions=1, **QUICK)
    locations = load_network(settings.network).locations
    workload = retail_events(locations, lines=1_500, seed=1, now_ms=int(time.time() * 1000), duration_ms=1_000)
    records = [*workload.opening, *workload.stream]
    return settings, [records[: len(records) // 2], records[len(records) // 2 : -500], records[-500:]]


def run(settings, directory, records, count=1):
    """Let workers process records, stop them, and give what they logged."""
    directory.mkdir(exist_ok=True)
    with running(settings, directory, count) as workers:
        await_that(lambda: workers.ready())
        sender = Sender(settings)
        sender.send(records)
        drain(settings, workers)
        if settings.snapshot_interval_ms:
            await_that(lambda: any((settings.data_directory / "state").glob("*/CURRENT")))
            time.sleep(1.0)  # some more snapshots
        workers.stop()
    return workers.log_path.read_text()


def await_that(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def batch_in(log, settings):
    """The number of the last batch at the stop; the state then is what the changelog adds up to."""
    (found,) = re.findall(r"inventory-changelog\.v1-0 at batch (\d+): (.*)", log)
    pipeline = InventoryPipeline(0, 1, settings)
    with LogReader(settings) as reader:
        recovery.restore(pipeline, reader, 0, lambda: False)
    assert (int(found[0]), json.loads(found[1])) == (pipeline.sequence, pipeline.digests())
    return pipeline.sequence


def restored_from(log):
    (found,) = re.findall(r"inventory-changelog\.v1-0 restored in [\d.]+ s from (.*?) and (\d+) batches of the changelog", log)
    return found[0], int(found[1])


def store_of(settings):
    return settings.data_directory / "state" / "inventory-changelog.v1-0"


def test_a_restart_reads_the_snapshot_and_what_came_after_it(shop, tmp_path):
    settings, (first, second, third) = shop
    before = batch_in(run(settings, tmp_path / "1", first), settings)
    unwritten = settings.model_copy(update={"snapshot_interval_ms": 3_600_000})
    log = run(unwritten, tmp_path / "2", second)
    after = batch_in(log, settings)
    source, batches = restored_from(log)
    assert source.startswith("the snapshot of batch")
    assert int(source.split()[-1]) + batches == before
    log = run(settings, tmp_path / "3", third)
    batch_in(log, settings)
    source, batches = restored_from(log)
    assert int(source.split()[-1]) + batches == after
    assert batches > 0
    assert audit(settings, complete=True).clean


def test_state_survives_the_loss_of_the_disk(shop, tmp_path):
    settings, (first, _, third) = shop
    before = batch_in(run(settings, tmp_path / "1", first), settings)
    shutil.rmtree(settings.data_directory / "state")
    log = run(settings, tmp_path / "2", third)
    assert restored_from(log) == ("nothing", before)
    batch_in(log, settings)
    assert audit(settings, complete=True).clean


def flip_a_bit(store):
    path = max(store.glob("*.sst"), default=None, key=lambda path: path.stat().st_size) or max(store.glob("*.log"))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)


def cut_short(store):
    (store / "CURRENT").write_text("")


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_a_damaged_snapshot_is_named_put_aside_and_made_anew(damage, shop, tmp_path):
    settings, (first, second, third) = shop
    run(settings, tmp_path / "1", first)
    # A restart moves what RocksDB still has in its journal into tables.
    run(settings, tmp_path / "2", second)
    damage(store_of(settings))
    log = run(settings, tmp_path / "3", [])
    batch_in(log, settings)
    aside = store_of(settings).with_name(f"{store_of(settings).name}.bad")
    assert f"put aside as {aside}: StoreDamaged" in log
    assert aside.is_dir()
    log = run(settings, tmp_path / "4", third)
    assert restored_from(log)[0].startswith("the snapshot of batch")
    assert audit(settings, complete=True).clean


def test_a_snapshot_of_another_log_is_foreign(shop, tmp_path, empty_cluster):
    from tests.conftest import delete_topics

    settings, (first, second, _) = shop
    run(settings, tmp_path / "1", first)
    delete_topics(empty_cluster)
    create_topics(empty_cluster, settings)
    other = settings.model_copy(update={"snapshot_interval_ms": 0})
    # The same application on a cluster made anew has committed offsets of the former one: they went with the topics.
    run(other, tmp_path / "2", second)
    log = run(settings, tmp_path / "3", [])
    assert "StoreForeign" in log
    assert restored_from(log)[0] == "nothing"
    assert audit(settings, complete=True).clean


def test_a_standby_takes_over_with_what_it_has(make_settings, tmp_path):
    settings = make_settings(network=NETWORKS / "uk4.yaml", partitions=4, standby=True, **QUICK)
    locations = load_network(settings.network).locations
    workload = retail_events(locations, lines=1_500, seed=1, now_ms=int(time.time() * 1000), duration_ms=1_000)
    with running(settings, tmp_path, 2) as workers:
        await_that(lambda: workers.log_path.exists() and workers.log_path.read_bytes().count(b"ready: ") >= 2)
        sender = Sender(settings)
        sender.send(workload.opening)
        drain(settings, workers)
        sender.send(workload.stream[: len(workload.stream) // 2])
        drain(settings, workers)
        time.sleep(1.0)
        marker = len(workers.log_path.read_text())
        workers.kill(replace=False)
        sender.send(workload.stream[len(workload.stream) // 2 :])
        drain(settings, workers)
        workers.stop()
        log = workers.log_path.read_text()[marker:]
    taken = re.findall(r"inventory-changelog\.v1-\d restored in [\d.]+ s from standby and (\d+) batches", log)
    assert taken, log
    assert audit(settings, complete=True).clean


def test_a_worker_that_meets_a_newer_layout_says_so_last_and_ends_with_2(make_settings, monkeypatch):
    settings = make_settings()
    with monkeypatch.context() as later:
        for module in (schema, changelog):
            later.setattr(module, "LAYOUT", schema.LAYOUT + 1)
            later.setattr(module, "NEARSHELF", "99.1")
        (written,) = play_clicks(clicks_pipeline(), make_clicks(1, 20), 20)
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    headers = [("batch", b"1"), ("part", b"1/1"), ("link", written.link.hex().encode())]
    producer.produce("clicks-changelog.v1", written.changelog, partition=0, headers=headers)
    producer.flush()
    command = [sys.executable, "-m", "streams.cli", "worker", "--bootstrap-servers", settings.bootstrap_servers]
    given = {"app_id": settings.app_id, "data_directory": settings.data_directory, "metrics_port": 0}
    command += [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE_S, check=False)
    assert done.returncode == 2, done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("nearshelf: the changelog's batch 1 of partition 0 was written by nearshelf 99.1"), sentence
    assert sentence.endswith(f"up to {schema.LAYOUT}: run nearshelf 99.1 or a later version here too")
    assert "Traceback" not in done.stderr
