"""docs/repair-a-changelog.md, step by step, on changelogs that are broken in the ways it names."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.fleet import Process, drain, running, worker_arguments
from streams.kafka.reading import LogReader
from tests.integration.test_owner import NETWORK, QUICK, nearshelf, send

PAGE = Path(__file__).parents[2] / "docs" / "repair-a-changelog.md"
CHANGELOG = "inventory-changelog.v1"


@pytest.fixture
def shop(make_settings, tmp_path):
    """A shop whose workers have made three decisions, and stopped."""
    (tmp_path / "network.yaml").write_text(NETWORK)
    settings = make_settings(network=tmp_path / "network.yaml", **QUICK)
    with running(settings, tmp_path, 1) as workers:
        for number in (1, 2, 3):
            send(settings, workers, number)
        workers.stop()
    return settings


def follow(section, settings):
    """Run a section's commands and programs as they stand, with the settings in the environment."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    names = ("bootstrap_servers", "app_id", "partitions", "click_partitions")
    given = {f"NEARSHELF_{name.upper()}": str(getattr(settings, name)) for name in names}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    assert blocks
    for language, block in blocks:
        command = [sys.executable, "-c", block] if language == "python" else ["bash", "-c", block.replace("$ ", "", 1)]
        subprocess.run(command, cwd=PAGE.parents[1], env=os.environ | given | {"PATH": path}, check=True, timeout=120)


def refusal(settings, directory):
    """What a worker says that stops by itself, with status 1."""
    command = [sys.executable, "-m", "streams.cli", *worker_arguments(settings, metrics_port=0)]
    process = Process("a worker", command, directory / "refused.log")
    assert process._process.wait(120) == 1
    return process.output()


def outcomes(settings):
    """Order → status of its last decision."""
    with LogReader(settings) as reader:
        values = [json.loads(message.value()) for message in reader.messages("allocations.v1", 0, lambda: False)]
    return {value["order_id"]: value["status"] for value in values}


def go_on(settings, directory, number):
    with running(settings, directory, 1) as workers:
        send(settings, workers, number, at_once=True)  # a topic has a committed offset again with its next batch
        workers.stop()
    audited = nearshelf(settings, "audit", "--complete")
    assert audited.returncode == 0, audited.stdout


def test_offsets_changed_from_outside_are_forgotten_and_the_workers_go_on(shop, tmp_path):
    meddler = Consumer({"bootstrap.servers": shop.bootstrap_servers, "group.id": shop.group_id})
    meddler.commit(offsets=[TopicPartition("orders.v1", 0, 1)], asynchronous=False)
    meddler.close()
    assert "orders.v1: the group's committed offset is 1, the changelog ends at 3" in refusal(shop, tmp_path)
    audited = nearshelf(shop, "audit", "--json")
    (fault,) = json.loads(audited.stdout)["faults"]
    assert (fault["expected"], fault["found"]) == ("the workers' group at offset 3, where the changelog is", "at offset 1")
    follow("Forget the offsets", shop)
    go_on(shop, tmp_path, 4)
    assert outcomes(shop) == dict.fromkeys(["O1", "O2", "O3", "O4"], "allocated")


def test_a_changelog_with_a_batch_of_somebody_elses_is_tried_and_started_over(shop, tmp_path):
    with LogReader(shop) as reader:
        *_, last = reader.messages(CHANGELOG, 0, lambda: False)
    somebody = Producer({"bootstrap.servers": shop.bootstrap_servers})
    somebody.produce(CHANGELOG, last.value(), last.key(), 0, headers=last.headers())
    assert somebody.flush(10) == 0
    number = int(dict(last.headers())["batch"])
    assert f"part 1 of batch {number + 1} expected, found part 1 of batch {number}" in refusal(shop, tmp_path)
    assert "chain at inventory-changelog.v1[0]@" in nearshelf(shop, "audit").stdout

    follow("Try it first", shop)
    trial = shop.model_copy(update={"topic_prefix": "trial."})
    with running(trial, tmp_path, 1) as workers:
        drain(trial, workers)
        workers.stop()
    assert outcomes(trial) == dict.fromkeys(["O1", "O2", "O3"], "allocated")
    assert nearshelf(trial, "audit", "--complete").returncode == 0

    follow("Start over", shop)
    go_on(shop, tmp_path, 4)
    assert outcomes(shop) == dict.fromkeys(["O1", "O2", "O3", "O4"], "allocated")
