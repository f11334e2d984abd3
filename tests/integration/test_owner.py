"""Two shops on one real Kafka: on the same topics the second refuses; with prefixes neither sees the other."""

import contextlib
import json
import subprocess
import sys
import threading

import pytest
from confluent_kafka.admin import AdminClient

from benchmarks.fleet import Sender, drain, running, worker_arguments
from benchmarks.record import Record
from streams.audit import audit
from streams.kafka.clients import connect
from streams.kafka.create import create_topics
from streams.kafka.reading import LogReader
from streams.worker.flows import claim
from streams.worker.owner import OtherOwner, owner_of
from tests.hand_log import T0, line, order, stock
from topics.catalogue import CATALOGUE

QUICK = {"session_timeout_ms": 3_000, "heartbeat_ms": 500, "partitions": 1, "click_partitions": 1, "snapshot_interval_ms": 200}
CHANGELOGS = ("inventory-changelog.v1", "clicks-changelog.v1")
NETWORK = """
version: 1
pools: [{id: uk}]
locations:
  - {id: DC, pool: uk, kind: warehouse, latitude: 53.48, longitude: -2.24}
"""


@pytest.fixture
def shop(make_settings, tmp_path):
    (tmp_path / "network.yaml").write_text(NETWORK)
    return make_settings(network=tmp_path / "network.yaml", **QUICK)


def nearshelf(settings, *arguments, given=""):
    command = [sys.executable, "-m", "streams.cli", *arguments, "--bootstrap-servers", settings.bootstrap_servers]
    changed = settings.model_dump(include={"topic_prefix", "app_id"}).items()
    command += [part for name, value in changed for part in ("--set", f"{name}={value}")]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)


def send(settings, workers, number, at_once=False):
    """A receipt of two units, then an order of one, each waited for until it is in a batch; or both at once."""
    receipt = stock(f"s{number}", "receipt", "DC", "SKU", 2, event_time=T0 + number)
    placed = order(f"o{number}", f"O{number}", line("l1", "SKU", 1))
    for topic, event in (("stock.v1", receipt), ("orders.v1", placed)):
        Sender(settings).send([Record(topic, b"uk", json.dumps(event).encode())])
        if not at_once:
            drain(settings, workers)
    drain(settings, workers)


def decisions(settings):
    with LogReader(settings) as reader:
        return [json.loads(message.value())["order_id"] for message in reader.messages("allocations.v1", 0, lambda: False)]


def test_a_second_worker_with_another_app_id_refuses_and_the_first_goes_on(shop, tmp_path):
    with running(shop, tmp_path, 1) as workers:
        send(shop, workers, 1)
        command = [sys.executable, "-m", "streams.cli", *worker_arguments(shop, app_id="other", metrics_port=0)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert second.returncode == 2
        assert (
            f"nearshelf: inventory-changelog.v1[0] belongs to the workers with app_id {shop.app_id}, "
            "this worker has app_id other. "
        ) in second.stderr
        assert "--set topic_prefix=other." in second.stderr
        assert "Traceback" not in second.stderr
        send(shop, workers, 2)
        workers.stop()
    assert decisions(shop) == ["O1", "O2"]
    report = audit(shop, complete=True)
    assert report.clean, report.faults
    with LogReader(shop) as reader:
        log = list(reader.messages("inventory-changelog.v1", 0, lambda: False))
    assert {owner_of(message) for message in log} == {shop.app_id}


def test_of_many_that_claim_an_empty_changelog_at_once_one_gets_it_whole(shop):
    names = [f"shop-{number}" for number in range(8)]
    refused, began = [], threading.Barrier(len(names))

    def come(name):
        settings = shop.model_copy(update={"app_id": name})
        with LogReader(settings) as reader:
            began.wait()
            try:
                claim(settings, CHANGELOGS, reader)
            except OtherOwner:
                refused.append(name)

    threads = [threading.Thread(target=come, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (owner,) = set(names) - set(refused)
    with LogReader(shop) as reader:
        logs = [list(reader.messages(changelog, 0, lambda: False)) for changelog in CHANGELOGS]
    assert [[owner_of(message) for message in log] for log in logs] == [[owner], [owner]]


def test_two_shops_with_prefixes_and_one_app_id_do_not_see_each_other(shop, tmp_path):
    shops = [shop, *(shop.model_copy(update={"topic_prefix": prefix}) for prefix in ("one.", "two-"))]
    for each in shops[1:]:
        create_topics(connect(each), each)
    with contextlib.ExitStack() as stack:
        crews = []
        for number, each in enumerate(shops):
            directory = tmp_path / f"shop-{number}"
            directory.mkdir()
            crews.append(stack.enter_context(running(each, directory, 1)))
        for number in range(1, 4):
            for each, workers in list(zip(shops, crews, strict=True))[: 4 - number]:
                send(each, workers, number)
        for workers in crews:
            workers.stop()
    assert [decisions(each) for each in shops] == [["O1", "O2", "O3"], ["O1", "O2"], ["O1"]]
    for each in shops:
        report = audit(each, complete=True)
        assert report.clean, report.faults
    admin = AdminClient({"bootstrap.servers": shop.bootstrap_servers})
    found = set(admin.list_topics(timeout=10).topics)
    assert {f"{each.topic_prefix}{topic}" for each in shops for topic in CATALOGUE} <= found
    groups = {group.group_id for group in admin.list_consumer_groups().result().valid}
    assert {shop.app_id, f"one./{shop.app_id}", f"two-/{shop.app_id}"} <= groups
    states = sorted(path.name for path in (shop.data_directory / "state").iterdir())
    assert [name for name in states if name.endswith("inventory-changelog.v1-0")] == [
        f"{prefix}inventory-changelog.v1-0" for prefix in ("", "one.", "two-")
    ]


def test_the_commands_go_by_the_prefix_and_say_the_contracts_names(shop, tmp_path):
    other = shop.model_copy(update={"topic_prefix": "one."})
    missing = nearshelf(other, "audit")
    assert missing.returncode == 2 and "topics missing" in missing.stderr and "one.sales.v1" in missing.stderr
    created = nearshelf(other, "topics", "create", "--partitions", "1", "--click-partitions", "1")
    assert created.returncode == 0 and "one.orders.v1" in created.stdout
    listed = json.loads(nearshelf(other, "topics", "list", "--json").stdout)
    assert [row["topic"] for row in listed] == list(CATALOGUE) and all(row["partitions"] for row in listed)
    with running(other, tmp_path, 1) as workers:
        send(other, workers, 1)
        bad = nearshelf(other, "publish", "orders.v1", "--pool", "uk", "--unchecked", given="{\n")
        assert bad.stdout == "1 sent to orders.v1\n"
        drain(other, workers)
        workers.stop()
    letters = json.loads(nearshelf(other, "dead-letter", "list", "--json").stdout.splitlines()[0])
    assert letters["topic"] == "orders.v1"
    tailed = nearshelf(other, "tail", "allocations.v1", "--from-beginning", "--count", "1", "--json")
    decision = json.loads(tailed.stdout)
    assert (decision["topic"], decision["value"]["source"]["topic"]) == ("allocations.v1", "orders.v1")
    assert nearshelf(other, "audit").returncode == 0
    assert decisions(shop) == []
