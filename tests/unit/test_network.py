"""The network file: read whole, or refused with every fault and its line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from config.entries import EntriesError
from config.network import Extent, load_network
from streams.cli import build_app
from topics.events import LocationRecord

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


def test_a_pools_limit_of_distance_is_each_locations_that_has_none_of_its_own(tmp_path):
    text = GOOD.replace("{id: uk}", "{id: uk, max_distance_km: 300}").replace("priority: 7", "max_distance_km: 20.5")
    assert [place.max_distance_km for place in load_network(write(tmp_path, text)).locations] == [300.0, 20.5]
    assert [place.max_distance_km for place in load_network(write(tmp_path, GOOD)).locations] == [None, None]


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
        ("    latitude: 52.5", "    id: C\n    latitude: 52.5", ":6: location C: id: expected once, found 2 times"),
        ("    pool: uk", "    pool: us", ":6: location B: pool: expected one of uk .*, found us"),
        ("id: B", "id: 5", ':6: location 5: id: expected a valid string, found 5; YAML reads 5 as that: write "5", in quotes'),
        ("id: B", "id: 0012", 'id: expected a valid string, found 10; YAML reads 0012 as that: write "0012", in quotes'),
        ("id: B", "id: NO", 'id: expected a valid string, found False; YAML reads NO as that: write "NO", in quotes'),
        (
            "{id: uk}",
            "{id: NO}",
            ':3: pool False: id: expected a valid string, found False; YAML reads NO as that: write "NO", in',
        ),
        ("{id: uk}", "{id: uk, max_distance_km: 0}", ":3: pool uk: max_distance_km: expected greater than 0, found 0"),
        ("{id: uk}", "{id: uk, max_km: 5}", ":3: pool uk: expected the fields id, max_distance_km, found max_km"),
        ("id: B", "id: '  '", "id: expected more than blanks, found '  '"),
        ("  - id: B\n    pool", "  - pool", ":6: location None: id: expected, found none"),
        ("pools:\n  - {id: uk}\n", "pools: []\n", ":2: pools: expected a list of entries"),
        ("locations:", "places:", ":1: expected version, pools, locations, found version, pools, places"),
        ("{id: uk}", "{id: uk", ":4: expected YAML"),
    ],
)
def test_a_fault_is_named_with_its_line_and_what_was_expected(tmp_path, old, new, fault):
    assert old in GOOD
    with pytest.raises(EntriesError, match=fault):
        load_network(write(tmp_path, GOOD.replace(old, new, 1)))


def test_all_faults_are_told_at_once_in_the_files_order(tmp_path):
    wrong = GOOD.replace("kind: store", "kind: shop").replace("priority: 7", "priority: -7")
    with pytest.raises(EntriesError) as raised:
        load_network(write(tmp_path, wrong))
    assert [line.split(":")[1] for line in str(raised.value).splitlines()] == ["5", "6"]


def test_many_faults_are_counted_not_all_printed(tmp_path):
    shops = "".join(f"  - {{id: S{n}, pool: uk, kind: shop, latitude: 1, longitude: 1}}\n" for n in range(25))
    with pytest.raises(EntriesError, match=r"\.\.\. and 5 more"):
        load_network(write(tmp_path, GOOD + shops))


@pytest.mark.parametrize("content", [b"", b"[]", b"text", b"\xff\xfe\xff", b"version: 1"])
def test_what_is_no_network_at_all_is_refused(tmp_path, content):
    path = tmp_path / "network.yaml"
    path.write_bytes(content)
    with pytest.raises(EntriesError, match="expected"):
        load_network(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(EntriesError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_network(tmp_path / "nowhere.yaml")


def places(*points):
    at = {"pool": "uk", "kind": "store"}
    return [LocationRecord(id=f"L{i}", latitude=lat, longitude=lon, **at) for i, (lat, lon) in enumerate(points)]


LONDON, LEEDS, BRISTOL, YORK = (51.51, -0.13), (53.80, -1.55), (51.45, -2.59), (53.96, -1.08)


def test_the_extent_has_the_box_and_the_two_that_are_farthest_apart():
    assert Extent(places(LONDON, LEEDS, YORK)).sentence() == (
        "latitude 51.51 to 53.96, longitude -1.55 to -0.13; farthest apart: L0 and L2, 280 km"
    )


def test_a_location_with_swapped_coordinates_is_named_and_so_is_each_of_a_file_in_which_all_are():
    assert not list(Extent(places(LONDON, LEEDS, BRISTOL, YORK)).warnings())
    (warning,) = Extent(places(LONDON, LEEDS[::-1], BRISTOL, YORK)).warnings()
    assert warning.startswith("L1 (-1.55, 53.8): are latitude and longitude swapped?") and "Leeds is 0 km" in warning
    assert len(list(Extent(places(LONDON[::-1], LEEDS[::-1], BRISTOL[::-1])).warnings())) == 3


def test_a_location_far_from_all_others_of_its_pool_is_named():
    (warning,) = Extent(places(*[LONDON, LEEDS, BRISTOL, YORK] * 3, (40.71, -74.01))).warnings()
    assert warning.startswith("L12 (40.71, -74.01): ") and "km from the middle of its pool" in warning


def test_a_check_prints_the_extent_and_warns(tmp_path):
    swapped = GOOD.replace("latitude: 52.5", "latitude: -1").replace("longitude: -1\n", "longitude: 52.5\n")
    done = CliRunner().invoke(build_app(), ["network", "check", str(write(tmp_path, swapped))])
    assert done.exit_code == 0, done.output
    assert "is valid, with 1 warning(s): 2 locations in 1 pools" in done.output
    assert "latitude -1.00 to 51.00" in done.output
    assert "warning: B (-1, 52.5): are latitude and longitude swapped?" in done.output
