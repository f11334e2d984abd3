"""Where customers live, and which locations of a network are near them.

Owner: the towns (config/networks/towns.json), drawn by population.
Invariants: a customer is in the same town under every network; a town belongs to the pool of its nearest location.
Not here: what nearest means to an allocation (streams/routing).
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np

import config
from benchmarks.retail.lines import draw
from config.network import distances_km
from topics.events import LocationRecord

TOWNS = Path(config.__file__).parent / "networks" / "towns.json"
SPREAD_DEGREES = 0.05  # how far from their town's centre customers live


@dataclass(frozen=True, slots=True)
class Customer:
    """Who buys: a point in a town, and the places at hand there."""

    latitude: float
    longitude: float
    pool: str
    store: str
    """Id of the pool's nearest store that hands over."""
    pickup: str
    """Id of the pool's nearest location that hands over."""
    shipper: str
    """Id of the pool's nearest store or front warehouse that ships."""


@dataclass(frozen=True, slots=True)
class Tiers:
    """A pool's ids of locations that may ship, in the network's order."""

    warehouses: list[str]
    regional: list[str]
    """Regional and front warehouses."""


@cache
def _towns() -> tuple[list[str], np.ndarray, list[int]]:
    """The towns: names, float64[towns, 2] of their points in degrees, populations."""
    towns = json.loads(TOWNS.read_text())["towns"]
    return [town[0] for town in towns], np.array([[town[2], town[3]] for town in towns]), [town[4] for town in towns]


class Places:
    """Towns, and the nearest of a network's locations to each.

    Parameters
    ----------
    locations : sequence of LocationRecord
        The network. Each pool needs a warehouse and a store that both ships and hands over.
    seed : int
        Chooses each customer's town and the point in it.

    Raises
    ------
    ValueError
        A pool has no warehouse, or no such store.
    """

    def __init__(self, locations: Sequence[LocationRecord], seed: int):
        self._seed = seed
        _, self._points, shares = _towns()
        self._shares = list(accumulate(shares))
        enabled = [location for location in locations if location.enabled]
        self.tiers = {pool: _tiers(pool, enabled) for pool in sorted({location.pool for location in enabled})}
        self._shippers = {
            location.id
            for location in enabled
            if location.kind in ("front_warehouse", "store") and "ship" in (location.capabilities or ())
        }
        self._nearest = self._nearest_locations(enabled)

    def customer(self, name: str) -> Customer:
        """The customer of that name, or a nameless one named by the invoice."""
        town = bisect_right(self._shares, draw(self._seed, "town", name) * self._shares[-1])
        north, east = (draw(self._seed, side, name) * 2 - 1 for side in ("north", "east"))
        latitude = round(self._points[town, 0] + north * SPREAD_DEGREES, 5)
        longitude = round(self._points[town, 1] + east * SPREAD_DEGREES, 5)
        return Customer(float(latitude), float(longitude), *self._nearest[town])

    def _nearest_locations(self, locations: list[LocationRecord]) -> list[tuple[str, str, str, str]]:
        """Pool, store, pickup and shipper of each town."""
        nearest = []
        for row in np.argsort(_closeness(self._points, locations), axis=1, kind="stable"):
            pool = locations[row[0]].pool
            near = [locations[i] for i in row if locations[i].pool == pool]
            hands_over = [location for location in near if "pickup" in (location.capabilities or ())]
            store = next(location for location in hands_over if location.kind == "store")
            shipper = next(location for location in near if location.id in self._shippers)
            nearest.append((pool, store.id, hands_over[0].id, shipper.id))
        return nearest


def town_near(latitude: float, longitude: float) -> str:
    """Name the British town that is nearest to a point."""
    names, points, _ = _towns()
    return names[distances_km(points, np.array([latitude, longitude])).argmin()]


def _tiers(pool: str, locations: list[LocationRecord]) -> Tiers:
    mine = [location for location in locations if location.pool == pool]
    ships = [location for location in mine if "ship" in (location.capabilities or ())]
    tiers = Tiers(
        [location.id for location in ships if location.kind == "warehouse"],
        [location.id for location in ships if location.kind in ("regional_warehouse", "front_warehouse")],
    )
    stores = [x for x in ships if x.kind == "store" and "pickup" in (x.capabilities or ())]
    if not tiers.warehouses or not stores:
        raise ValueError(
            f"pool {pool}: expected at least one warehouse, and one store that ships and hands over; found"
            f" {len(tiers.warehouses)} and {len(stores)} among {len(mine)} locations; add them to the network file"
        )
    return tiers


def _closeness(points: np.ndarray, locations: list[LocationRecord]) -> np.ndarray:
    """float64[points, locations]: minus the cosine of the angle between them, smaller = nearer."""
    places = np.array([[location.latitude, location.longitude] for location in locations])

    def unit(degrees: np.ndarray) -> np.ndarray:
        latitude, longitude = np.radians(degrees).T
        return np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1)

    # Rounded so that equal places tie on every machine: numpy's product may differ in the last bits.
    return np.round(-unit(points) @ unit(places).T, 12)
