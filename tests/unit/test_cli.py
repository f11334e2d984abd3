"""The command line without a broker: parsing, help, exit statuses, keys. With one: tests/integration/test_publish_tail.py."""

import io
import json
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from state.schema import NewerLayout
from streams.cli import build_app, lines, main
from streams.cli import publish as publishing
from streams.cli.publish import Report
from streams.kafka import clients, names
from streams.worker import app as worker_app
from streams.worker import warm

COMMANDS = [
    ["broker", "start"],
    ["broker", "fetch"],
    ["broker", "stop"],
    ["broker", "status"],
    ["topics", "create"],
    ["topics", "list"],
    ["network", "check"],
    ["network", "diff"],
    ["network", "apply"],
    ["worker"],
    ["publish"],
    ["tail"],
    ["dead-letter", "list"],
    ["alerts"],
    ["settings"],
]
SALE = {"event_id": "e", "event_time": 1, "location_id": "A", "sku": "s", "quantity": 1, "kind": "sale"}


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `nearshelf` with arguments in this process; gives status, standard output and error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["nearshelf", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture
def nobody(monkeypatch):
    """An address at which nothing answers; it is not waited for long."""
    monkeypatch.setattr(clients, "CONNECT_TIMEOUT_S", 0.3)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command):
    done = CliRunner().invoke(build_app(), [*command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.output


def test_the_listed_commands_are_the_commands():
    commands = {command.name or command.callback.__name__ for command in build_app().registered_commands}
    groups = {group.name for group in build_app().registered_groups}
    assert {command[0] for command in COMMANDS} <= commands | groups


def test_help_loads_neither_kafka_nor_numba():
    code = "import sys; from streams.cli import build_app; build_app(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"typer", "streams.cli.publish"} <= set(done.stdout.split())
    assert not {"confluent_kafka", "numba", "faust", "pydantic"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["topics", "create", "--partitions", "many"],
        ["topics", "create", "--set", "partitions"],
        ["topics", "create", "--set", "partition=3"],
        ["publish", "allocations.v1"],
        ["publish", "orders.v1", "no-such-file"],
        ["worker", "--preset", "fast"],
        ["network", "check"],
        ["network", "diff"],
        ["network", "apply"],
        ["alerts", "--kind", "bad_luck"],
        ["alerts", "--follow", "--check"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2_and_says_why(run, arguments):
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert err.strip()


@pytest.mark.parametrize(("failure", "status"), [(NewerLayout("written by another"), 2), (ValueError("a fault of ours"), 1)])
def test_a_worker_ends_with_the_status_of_the_error_that_stopped_it(run, monkeypatch, caplog, failure, status):
    def stop(_):
        raise SystemExit(1)

    flows = SimpleNamespace(failure=failure, prepare=lambda: None, release=lambda: None)
    monkeypatch.setattr(clients, "connect", lambda settings: None)
    monkeypatch.setattr(worker_app, "build_app", lambda settings, groups: SimpleNamespace(flows=flows))
    monkeypatch.setattr(worker_app, "_keep_freed_memory", lambda: None)
    monkeypatch.setattr(worker_app.gc, "freeze", lambda: None)
    monkeypatch.setattr(worker_app.gc, "set_threshold", lambda objects: None)
    monkeypatch.setattr(worker_app.faust, "Worker", lambda *_, **__: SimpleNamespace(execute_from_commandline=lambda: stop(0)))
    monkeypatch.setattr(warm, "warm_kernels", lambda settings: None)
    found, _, err = run("worker")
    assert found == status
    assert (f"nearshelf: {failure}\n" in err) == (status == 2)
    assert (f"the worker stopped: {failure}" in caplog.text) == (status == 1)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        *(["topics", "list"], ["topics", "create"], ["tail", "orders.v1"], ["publish", "orders.v1"], ["worker"]),
        *(["alerts"], ["dead-letter", "list"]),
    ],
    ids=" ".join,
)
def test_an_unreachable_broker_exits_with_3_and_names_the_ways_out(run, nobody, arguments):
    status, _, err = run(*arguments, "--bootstrap-servers", nobody)
    assert status == 3
    assert all(part in err for part in (nobody, "nearshelf broker start", "docker compose", "--bootstrap-servers"))


def test_an_unreachable_broker_is_told_of_within_5_s(monkeypatch):
    """By what the client is told to wait for an answer."""
    waited = []

    def list_topics(self, timeout):
        waited.append(timeout)
        raise clients.KafkaException

    monkeypatch.setattr(clients.AdminClient, "list_topics", list_topics)
    with pytest.raises(clients.BrokerUnreachable):
        clients.connect(publishing.read_settings())
    assert sum(waited) <= 5


def test_the_environment_names_the_cluster_too(run, nobody, monkeypatch):
    monkeypatch.setenv("NEARSHELF_BOOTSTRAP_SERVERS", nobody)
    assert run("topics", "list")[0] == 3
    assert nobody in run("topics", "list")[2]


def test_status_of_a_broker_that_does_not_run_is_no(run, tmp_path):
    status, out, _ = run("broker", "status", "--json", "--set", f"data_directory={tmp_path}")
    assert status == 1
    assert json.loads(out)["running"] is False


def test_stopping_a_broker_that_does_not_run_is_done(run, tmp_path):
    assert run("broker", "stop", "--set", f"data_directory={tmp_path}")[0] == 0


def test_a_right_network_file_is_counted(run, tmp_path):
    file = tmp_path / "network.yaml"
    places = "".join(f"  - {{id: S{n}, pool: uk, kind: store, latitude: 1, longitude: 2}}\n" for n in range(3))
    file.write_text("version: 1\npools: [{id: uk}]\nlocations:\n" + places)
    assert run("network", "check", file)[:2] == (
        0,
        f"{file} is right: 3 locations in 1 pools\n  uk: 3 store\n"
        "    latitude 1.00 to 1.00, longitude 2.00 to 2.00; farthest apart: S0 and S0, 0 km\n",
    )
    assert json.loads(run("network", "check", file, "--json")[1]) == {
        "valid": True,
        "pools": {"uk": {"store": 3}},
        "warnings": [],
    }


def test_a_wrong_network_file_is_no_with_each_fault(run, tmp_path):
    file = tmp_path / "network.yaml"
    file.write_text("version: 2\npools: [{id: uk}]\nlocations: []\n")
    status, out, _ = run("network", "check", file, "--json")
    assert status == 1
    assert [fault.split(":")[1] for fault in json.loads(out)["faults"]] == ["1", "3"]


def test_settings_are_listed_with_the_values_in_force(run):
    _, out, _ = run("settings", "--json", "--preset", "latency", "--set", "batch_rows=9")
    assert json.loads(out)["batch_rows"] == 9
    assert json.loads(out)["preset"] == "latency"


# Keys of published records.


def keyed(topic, *events, pool=None, pools=None, unchecked=False):
    values = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    report = Report()
    messages = list(publishing._keyed(topic, enumerate(values, 1), pool, pools or {}, unchecked, report))
    return [(number, key) for number, key, _ in messages], report.faults


@pytest.mark.parametrize("topic", ["sales.v1", "stock.v1", "fulfilments.v1"])
def test_an_event_goes_to_the_pool_of_its_location(topic):
    fields = {
        "sales.v1": {"kind": "sale"},
        "stock.v1": {"kind": "receipt"},
        "fulfilments.v1": {"kind": "shipped", "order_id": "o", "shipment_id": "s"},
    }
    found, faults = keyed(topic, SALE | fields[topic], pools={"A": "uk", "B": "us"})
    assert found == [(1, "uk")]
    assert faults == {}


def test_an_unknown_location_is_refused_by_line_and_the_others_are_sent():
    found, faults = keyed("sales.v1", SALE, SALE | {"location_id": "Z"}, SALE, pools={"A": "uk"})
    assert found == [(1, "uk"), (3, "uk")]
    assert faults == {2: "location_id: expected a known location, found Z"}


def test_a_wrong_record_is_refused_by_line_with_the_models_words():
    found, faults = keyed("sales.v1", b"{", SALE | {"quantity": 0}, SALE, pools={"A": "uk"})
    assert found == [(3, "uk")]
    assert faults.keys() == {1, 2}
    assert "quantity: expected greater than or equal to 1, found 0" in faults[2]


def test_unchecked_lines_are_all_sent_as_they_are():
    found, faults = keyed("sales.v1", b"{", SALE | {"location_id": "Z"}, b"[]", pools={"A": "uk", "B": "us"}, unchecked=True)
    assert found == [(1, None), (2, None), (3, None)]
    assert faults == {}


ORDER = {
    "event_id": "e",
    "event_time": 1,
    "order_id": "o",
    "kind": "placed",
    "destination": {"latitude": 1, "longitude": 1},
    "lines": [{"line_id": "1", "sku": "s", "quantity": 1}],
}


def test_an_order_goes_to_the_pool_it_names_or_to_the_only_one():
    assert keyed("orders.v1", ORDER | {"pool_id": "us"}, pools={"A": "uk", "B": "us"})[0] == [(1, "us")]
    assert keyed("orders.v1", ORDER, pools={"A": "uk", "B": "uk"})[0] == [(1, "uk")]
    assert keyed("orders.v1", ORDER, pool="fr")[0] == [(1, "fr")]


def test_an_order_of_no_evident_pool_is_refused_with_the_remedy():
    assert "--pool" in keyed("orders.v1", ORDER, pools={"A": "uk", "B": "us"})[1][1]
    assert "--network" in keyed("orders.v1", ORDER)[1][1]


def test_clicks_are_keyed_by_visitor_and_locations_by_id():
    click = {"event_id": "e", "event_time": 1, "visitor_id": "v", "kind": "view", "channel": "web"}
    place = {"id": "A", "pool": "uk", "kind": "store", "latitude": 1, "longitude": 1}
    assert keyed("clicks.v1", click)[0] == [(1, "v")]
    assert keyed("locations.v1", place)[0] == [(1, "A")]


def test_empty_lines_count_but_are_not_sent():
    assert list(lines.numbered(io.BytesIO(b"a\n\n  \nb"))) == [(1, b"a"), (4, b"b")]


# Pools of locations.


def place(name, pool, **changed):
    return name.encode(), json.dumps(
        {"id": name, "pool": pool, "kind": "store", "latitude": 1, "longitude": 1} | changed
    ).encode()


def test_a_location_is_in_the_pool_of_its_first_valid_record():
    refused = place("W2", "fr")
    assert publishing.first_pools([place("W2", "uk"), refused, place("W3", "fr")]) == {"W2": "uk", "W3": "fr"}
    assert publishing.first_pools([place("W2", "fr", latitude=91), place("W2", "uk")]) == {"W2": "uk"}
    assert publishing.first_pools([(b"W3", place("W2", "fr")[1]), place("W2", "uk")]) == {"W2": "uk"}


def test_a_location_that_is_deleted_is_still_in_its_pool():
    assert publishing.first_pools([place("W2", "uk"), (b"W2", None), place("W2", "fr")]) == {"W2": "uk"}
    assert publishing.first_pools([(b"W2", None), place("W2", "fr")]) == {"W2": "fr"}


# What a producer takes.


@pytest.mark.parametrize(
    ("limits", "compression", "expected"),
    [
        ({}, "none", (4_259_840, 1_000_000)),
        ({"sales.v1": 4_259_840}, "none", (4_259_840, 1_000_000)),
        ({"sales.v1": 100_000}, "none", (100_000, 100_000)),
        ({"sales.v1": 100_000}, "gzip", (4_259_840, 100_000)),
        ({"sales.v1": 100_000, "stock.v1": 8_000_000}, "none", (4_259_840, 100_000)),
        ({"sales.v1": 10}, "none", (1000, 10)),
    ],
)
def test_no_batch_is_larger_than_the_topic_takes(monkeypatch, limits, compression, expected):
    monkeypatch.setattr(names, "Producer", lambda config: config)
    settings = publishing.read_settings(["compression=" + compression], bootstrap_servers="a:1")
    config = publishing.producer_of(settings, limits)
    assert (config["message.max.bytes"], config["batch.size"]) == expected
