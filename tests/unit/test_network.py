"""The network file: read whole, or refused with every fault and its line."""

from pathlib import Path

import pytest

from config.network import NetworkError, load_network

GOOD = """\
version: 1
pools:
  - {id: uk}
locations:
  - {id: A, pool: uk, kind: store, latitude: 51, longitude: -0.1}
  - id: B
    pool: uk
    kind: warehouse
    latitude: 52.5
    longitude: -1
    enabled: false
    priority: 7
"""


def write(tmp_path, text):
    path = tmp_path / "network.yaml"
    path.write_text(text)
    return path


def test_a_right_file_is_read_with_its_defaults(tmp_path):
    network = load_network(write(tmp_path, GOOD))
    store, warehouse = network.locations
    assert network.pools == ("uk",)
    assert (store.capabilities, store.enabled, store.priority, store.daily_capacity) == (["ship", "pickup"], True, 100, None)
    assert (warehouse.capabilities, warehouse.enabled, warehouse.priority) == (["ship"], False, 7)


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("config/networks/*.yaml")), ids=lambda path: path.stem)
def test_the_networks_that_come_with_the_project_are_right(path):
    assert load_network(path).locations


@pytest.mark.parametrize(
    "old, new, fault",
    [
        ("version: 1", "version: 2", ":1: version: expected 1, found 2"),
        ("latitude: 51,", "latitude: 151,", ":5: location A: latitude: expected less than or equal to 90, found 151"),
        ("kind: store", "kind: shop", ":5: location A: kind: expected 'warehouse'"),
        ("    priority: 7", "    priorty: 7", ":6: location B: expected the fields .*, found priorty"),
        ("id: B", "id: A", ":6: location A: id: expected to be unique, found 2 times"),
        ("    pool: uk", "    pool: us", ":6: location B: pool: expected one of uk .*, found us"),
        ("id: B", "id: 5", ":6: location 5: id: expected a valid string, found 5"),
        ("  - id: B\n    pool", "  - pool", ":6: location None: id: expected, found none"),
        ("pools:\n  - {id: uk}\n", "pools: []\n", ":2: pools: expected a list of entries"),
        ("locations:", "places:", ":1: expected version, pools and locations, found version, pools, places"),
        ("{id: uk}", "{id: uk", ":4: expected YAML"),
    ],
)
def test_a_fault_is_named_with_its_line_and_what_was_expected(tmp_path, old, new, fault):
    assert old in GOOD
    with pytest.raises(NetworkError, match=fault):
        load_network(write(tmp_path, GOOD.replace(old, new, 1)))


def test_all_faults_are_told_at_once_in_the_files_order(tmp_path):
    wrong = GOOD.replace("kind: store", "kind: shop").replace("priority: 7", "priority: -7")
    with pytest.raises(NetworkError) as raised:
        load_network(write(tmp_path, wrong))
    assert [line.split(":")[1] for line in str(raised.value).splitlines()] == ["5", "6"]


def test_many_faults_are_counted_not_all_printed(tmp_path):
    shops = "".join(f"  - {{id: S{n}, pool: uk, kind: shop, latitude: 1, longitude: 1}}\n" for n in range(25))
    with pytest.raises(NetworkError, match=r"\.\.\. and 5 more"):
        load_network(write(tmp_path, GOOD + shops))


@pytest.mark.parametrize("content", [b"", b"[]", b"text", b"\xff\xfe\xff", b"version: 1"])
def test_what_is_no_network_at_all_is_refused(tmp_path, content):
    path = tmp_path / "network.yaml"
    path.write_bytes(content)
    with pytest.raises(NetworkError, match="expected"):
        load_network(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NetworkError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_network(tmp_path / "nowhere.yaml")
