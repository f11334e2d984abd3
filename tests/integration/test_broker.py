"""The local broker, and the catalogue on it."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from io import BytesIO
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from config import broker as broker_module
from config.broker import Broker, BrokerError
from config.settings import load_settings
from streams.kafka.create import TopicMismatch, create_topics, topic_config
from topics.catalogue import CATALOGUE

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def own_broker(tmp_path):
    """A broker of the test's own, to be started and stopped by it."""
    found = load_settings(data_directory=tmp_path).local_broker()
    yield found
    found.stop()


def topics_of(address):
    """Answers only if a broker does."""
    return set(AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=30).topics)


def test_a_broker_needs_neither_java_nor_maven_on_the_path(tmp_path, own_broker):
    """Also no environment at all; the cache is the user's unless it is empty, then everything is fetched."""
    environment = {"PATH": "/nowhere", "HOME": str(tmp_path), "NEARSHELF_DATA_DIRECTORY": str(tmp_path)}
    environment |= {"NEARSHELF_CACHE_DIRECTORY": str(load_settings().cache_directory.expanduser())}
    code = "from config.settings import load_settings; print(load_settings().local_broker().start())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert own_broker.status().bootstrap_servers == done.stdout.strip()


def test_topics_outlive_a_stop_and_the_address_stays(own_broker):
    address = own_broker.start()
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    admin.create_topics([NewTopic("kept", 1)])["kept"].result()
    assert own_broker.stop()
    assert own_broker.start() == address
    assert "kept" in topics_of(address)


def test_starting_twice_is_one_broker(broker):
    before = broker.status()
    assert broker.start() == before.bootstrap_servers
    assert Broker(broker.directory).status() == before


def test_another_port_than_the_running_one_is_refused(broker):
    with pytest.raises(BrokerError, match="runs already at"):
        broker.start(port=1)


def test_a_taken_port_is_refused_and_nothing_is_left_running(own_broker):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} is taken"):
            own_broker.start(port=port)
    assert not own_broker.status().running


def test_stopping_one_broker_leaves_another_alone(broker, own_broker):
    own_broker.start()
    assert own_broker.stop()
    assert not own_broker.status().running
    assert topics_of(broker.start()) is not None


def test_stop_never_touches_a_process_that_took_over_the_pid(own_broker):
    """After a crash and a reboot the remembered pid may belong to anyone: here, to this test run."""
    own_broker.directory.mkdir(parents=True)
    (own_broker.directory / "broker.json").write_text(f'{{"pid": {os.getpid()}, "port": 1}}')
    assert not own_broker.status().running
    assert not own_broker.stop()


def test_a_broker_killed_hard_is_seen_as_stopped_and_starts_again(own_broker):
    own_broker.start()
    process = psutil.Process(own_broker.status().pid)
    process.kill()
    process.wait()
    assert not own_broker.status().running
    assert topics_of(own_broker.start()) is not None


def test_a_jar_with_another_sum_is_fetched_anew_and_never_run(broker, own_broker, tmp_path, monkeypatch):
    """The jar in the cache is damaged, and so is the repository's: the start fails and names both sums."""
    shutil.copytree(broker.jars, tmp_path / "jars")
    next((tmp_path / "jars").glob("slf4j-api-*.jar")).write_bytes(b"not a jar")
    monkeypatch.setattr(own_broker, "jars", tmp_path / "jars")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: BytesIO(b"not a jar either"))
    with pytest.raises(BrokerError, match=r"slf4j-api.*SHA256 .*expected [0-9a-f]{64} but got [0-9a-f]{64}"):
        own_broker.start()
    assert not own_broker.status().running


def test_a_failed_fetch_names_what_is_missing_and_the_ways_out(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        broker = Broker(tmp_path / "broker", cache=tmp_path / "cache", maven_url=url)
        with pytest.raises(BrokerError) as raised:
            broker.start()
    message = str(raised.value)
    assert all(part in message for part in (".jar", url, "NEARSHELF_MAVEN_URL", "--bootstrap-servers", "docker compose"))


def test_a_broker_that_dies_while_starting_shows_the_end_of_its_log(own_broker, monkeypatch):
    properties = broker_module._server_properties
    monkeypatch.setattr(broker_module, "_server_properties", lambda *given: properties(*given) + "num.partitions=none\n")
    with pytest.raises(BrokerError, match=r"num\.partitions"):
        own_broker.start()
    assert not own_broker.status().running


def test_topics_are_created_as_the_catalogue_has_them(make_settings):
    settings = make_settings(partitions=3, click_partitions=5, input_retention_hours=2)
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    found = admin.list_topics(timeout=30).topics
    configs = topic_config(admin, list(CATALOGUE))
    for name, topic in CATALOGUE.items():
        assert len(found[name].partitions) == topic.partition_count(settings), name
        assert topic.config(settings).items() <= configs[name].items(), name
    assert len(found["dead-letter.v1"].partitions) == 5
    assert configs["orders.v1"]["retention.ms"] == str(2 * 3_600_000)


def test_creating_topics_again_changes_nothing(settings):
    assert create_topics(AdminClient({"bootstrap.servers": settings.bootstrap_servers}), settings) == []


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("orders.v1", {"message.timestamp.type": "CreateTime"}),
        ("inventory.v1", {"cleanup.policy": "delete"}),
        ("inventory-changelog.v1", {"retention.ms": "1000"}),
        ("clicks.v1", {}),
    ],
)
def test_an_existing_topic_that_would_give_wrong_results_is_refused(empty_cluster, name, wrong):
    settings = load_settings()
    topic = CATALOGUE[name]
    partitions = topic.partition_count(settings) + (not wrong)
    wanted = NewTopic(name, partitions, config=topic.config(settings) | wrong)
    empty_cluster.create_topics([wanted])[name].result()
    while name not in empty_cluster.list_topics(timeout=30).topics:
        pass
    with pytest.raises(TopicMismatch) as raised:
        create_topics(empty_cluster, settings)
    assert f"{name}: expected" in str(raised.value)
    assert all(f"{key}={value}" not in str(raised.value) for key, value in topic.config(settings).items() if key not in wrong)


def test_an_operators_own_retention_of_inputs_is_accepted(settings):
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    assert create_topics(admin, load_settings(**settings.model_dump() | {"input_retention_hours": 9})) == []
