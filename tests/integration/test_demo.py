"""The main job on a real Kafka, small: killed workers, two workers, every kind of bad record. The audit has the last word."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import orjson
import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition

import config
from benchmarks.demo import Demo, Options, Summary
from benchmarks.fleet import Process, ProcessFailed, Sender, drain, running, worker_arguments
from benchmarks.record import APPLIED
from config.network import load_network
from config.settings import Settings
from streams.audit import audit
from tests.bad_records import bad_records

NETWORKS = Path(config.__file__).parent / "networks"


def _run(settings: Settings, **options) -> Summary:
    return Demo(settings, Options(own_broker=False, paced=False, **options), say=print).run()


def _check(summary: Summary) -> None:
    assert summary.report.clean, summary.report.faults[:5]
    assert not summary.unexpected
    placed = summary.facts["orders"] + summary.facts["holds_confirmed"] + summary.facts["holds_abandoned"]
    decided = Counter(summary.report.decisions)
    assert sum(decided.values()) >= placed
    assert summary.report.orders == summary.facts["orders"] + summary.facts["holds_abandoned"]
    assert decided["partial"] and decided["allocated"] and decided["backordered"]
    assert [title for title, _ in summary.stories] == ["From one place", "From several places", "It waited"]
    assert all("Order " in sentences[0] and "sends" in " ".join(sentences) for _, sentences in summary.stories)
    promised, centrally = summary.ways.promised[0], summary.ways.centrally[0]
    assert promised.units == centrally.units > 0
    assert promised.parcels > centrally.parcels > 0 and promised.near_units > 0


def test_every_order_is_decided_once_though_the_worker_is_killed_three_times(make_settings: Callable[..., Settings]):
    settings = make_settings(network=NETWORKS / "uk.yaml", partitions=1, session_timeout_ms=3_000, heartbeat_ms=900)
    summary = _run(settings, lines=8_000, kills=3)
    assert summary.kills == 3
    _check(summary)


def test_a_second_worker_takes_over_the_pools_of_one_that_was_killed(make_settings: Callable[..., Settings]):
    settings = make_settings(network=NETWORKS / "uk4.yaml", partitions=4, session_timeout_ms=3_000, heartbeat_ms=900)
    summary = _run(settings, lines=8_000, kills=1, workers=2, replace=False)
    assert summary.kills == 1
    assert summary.report.pools == 4
    _check(summary)


def test_good_records_come_through_and_bad_ones_are_dead_letters_with_the_right_reason(
    make_settings: Callable[..., Settings], tmp_path: Path
):
    settings = make_settings(network=NETWORKS / "uk4.yaml", partitions=4)
    records = bad_records(load_network(settings.network).locations, int(time.time() * 1000), partitions=4)
    assert {record.outcome for record in records} >= {
        "not_json",
        "missing_key",
        "wrong_partition",
        "wrong_pool",
        "order_exists",
    }
    with running(settings, tmp_path, 1) as workers:
        sender = Sender(settings)
        sender.send(records)
        drain(settings, workers)
        workers.stop()
    report = audit(settings, complete=True)
    assert report.clean, report.faults[:5]
    expected = Counter(record.outcome for record in records)
    assert Counter(report.dead_letters) == {
        reason: n for reason, n in expected.items() if reason not in (APPLIED, "duplicate", "stale")
    }
    assert report.outcomes["applied"] == expected[APPLIED]
    assert _dead_values(settings) == Counter(record.value for record in records if record.outcome in report.dead_letters)


def _dead_values(settings: Settings) -> Counter:
    """The values in the dead letters, as they were sent."""
    from base64 import b64decode

    consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": "x", "isolation.level": "read_committed"})
    found: Counter = Counter()
    for partition in consumer.list_topics("dead-letter.v1", 10).topics["dead-letter.v1"].partitions:
        place = TopicPartition("dead-letter.v1", partition, 0)
        _, end = consumer.get_watermark_offsets(place, 10)
        consumer.assign([place])
        while consumer.position([place])[0].offset < end and end > 0:
            for message in consumer.consume(1_000, 1):
                if message.error() is None:
                    value = orjson.loads(message.value())["value"]
                    found[None if value is None else b64decode(value)] += 1
    consumer.close()
    return found


def test_a_worker_whose_metrics_port_is_taken_names_a_remedy_that_exists(
    make_settings: Callable[..., Settings], tmp_path: Path
):
    settings = make_settings(partitions=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = worker_arguments(settings, metrics_port=taken.getsockname()[1])
        worker = Process("worker", [sys.executable, "-m", "streams.cli", *arguments], tmp_path / "worker.log")
        with pytest.raises(ProcessFailed, match=r"(?s)worker ended with 2.*--set metrics_port=PORT"):
            worker.finish(120)


@pytest.mark.parametrize("lines", [300])
def test_a_cluster_in_use_is_left_alone(make_settings: Callable[..., Settings], lines: int):
    from benchmarks.demo import DemoFailed

    settings = make_settings(network=NETWORKS / "uk.yaml", partitions=1)
    sender = Sender(settings)
    sender.send([record for record in bad_records(load_network(settings.network).locations, int(time.time() * 1000))[:5]])
    with pytest.raises(DemoFailed, match="holds records already"):
        _run(settings, lines=lines)


def _demo(directory: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """`nearshelf demo` as a person starts it, small; it says on its standard error what goes on."""
    command = [sys.executable, "-m", "streams.cli", "demo", "--lines", "300", "--speed", "max", *arguments]
    own = {"NEARSHELF_DATA_DIRECTORY": str(directory), "NEARSHELF_SNAPSHOT_INTERVAL_MS": "0"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Who runs the tests in the background may ignore Ctrl-C; a person's terminal does not.
    return subprocess.Popen(command, env=os.environ | own | environment, preexec_fn=_mind_interrupts, **pipes)


def _mind_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _ended(processes: list[psutil.Process]) -> bool:
    return not [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("moment", "how"), [("worker is ready", signal.SIGTERM), ("Ctrl-C", signal.SIGTERM), ("Ctrl-C", signal.SIGINT)]
)
def test_a_demo_that_is_ended_leaves_neither_broker_nor_worker(tmp_path: Path, moment: str, how: int):
    demo = _demo(tmp_path, "--stay")
    said = []
    for line in demo.stderr:
        said.append(line)
        if moment in line:
            break
    else:
        pytest.fail("".join(said))
    started = psutil.Process(demo.pid).children(recursive=True)
    names = [" ".join(each.cmdline()) for each in started]
    assert any("kafka.Kafka" in name for name in names) and any(" worker " in name for name in names), names
    demo.send_signal(how)
    assert demo.wait(90) == (0 if how == signal.SIGINT else 128 + how), demo.stderr.read()
    assert _ended(started), names


def test_a_demo_that_stays_can_be_asked_as_it_says(tmp_path: Path):
    demo = _demo(tmp_path, "--stay", "--json")
    said = ""
    for line in demo.stderr:
        said += line
        if "Ctrl-C" in line:
            break
    try:
        address = re.search(r"NEARSHELF_BOOTSTRAP_SERVERS=(\S+)", demo.stderr.readline())[1]
        command = [sys.executable, "-m", "streams.cli", "tail", "allocations.v1", "--from-beginning", "--count", "3"]
        environment = os.environ | {"NEARSHELF_BOOTSTRAP_SERVERS": address}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        assert len(done.stdout.splitlines()) == 3
    finally:
        demo.send_signal(signal.SIGINT)
    assert orjson.loads(demo.communicate(timeout=90)[0])["clean"]


def test_the_demo_runs_on_the_cluster_that_the_environment_names(tmp_path: Path, make_settings: Callable[..., Settings]):
    """It says that this one is in use, and starts no broker of its own."""
    settings = make_settings(partitions=1)
    Sender(settings).send(bad_records(load_network(NETWORKS / "uk.yaml").locations, int(time.time() * 1000))[:5])
    demo = _demo(tmp_path, NEARSHELF_BOOTSTRAP_SERVERS=settings.bootstrap_servers)
    assert f"at {settings.bootstrap_servers} holds records already" in demo.communicate(timeout=90)[1].replace("\n", " ")
    assert demo.returncode == 1
    assert not (tmp_path / "demo").exists()
