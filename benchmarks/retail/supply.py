"""Opening stock and later deliveries, generated from the demand itself: tight, and sparse where a SKU sells little.

Owner: the plan of supply. The shares and fills below were chosen so that on the whole sample 85 to 95 % of the ordered
units can be promised at first, and deliveries rescue a part of the rest.
Invariants: a SKU is stocked in pools where it is asked for only; the same demand and seed give the same plan.
Not here: the events made of the plan (workload.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from benchmarks.retail.lines import draw
from benchmarks.retail.places import Places

Cell = tuple[str, str]  # location id, SKU


@dataclass(frozen=True, slots=True)
class Spread:
    """How a SKU's stock is spread over a pool: shares of the units, and over how many locations."""

    home: float
    """Share of the SKU's home warehouse."""
    other: float
    """Share of the other warehouses."""
    others: int
    regional: float
    regionals: int
    store: float
    stores: int


SLOW = Spread(1, 0, 0, 0, 0, 0, 0)
STEADY = Spread(0.7, 0.1, 1, 0.12, 3, 0.08, 4)
POPULAR = Spread(0.55, 0.15, 3, 0.17, 8, 0.13, 20)
STEADY_LINES = 8  # order lines in the pool from which a SKU is steady
POPULAR_LINES = 40

SHORT_TILL_SHARE = 0.05  # of the cells that tills sell from: opened with half of what will be sold
DELIVERED_SHARE = 0.75  # of the SKUs that opened short: the missing units come later
DELIVERY_TIMES = (0.35, 0.55, 0.8)  # of the stream


@dataclass(frozen=True, slots=True)
class Wish:
    """One order line's demand in a pool."""

    quantity: int
    shipper: str
    """Id of the store or front warehouse nearest to the customer."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Units that come later to a SKU's home warehouse."""

    location_id: str
    sku: str
    quantity: int
    at: float
    """When: share of the stream."""


@dataclass(slots=True)
class Supply:
    """What is there at first, and what comes later."""

    opening: dict[Cell, int] = field(default_factory=dict)
    short_tills: list[Cell] = field(default_factory=list)
    """Cells whose tills will sell more than was booked in."""
    deliveries: list[Delivery] = field(default_factory=list)


def plan_supply(
    wishes: Mapping[tuple[str, str], Sequence[Wish]], tills: Mapping[Cell, int], places: Places, seed: int
) -> Supply:
    """Plan a supply for the demand.

    Parameters
    ----------
    wishes : mapping of (pool id, SKU) to order lines
    tills : mapping of cell to units that the location's till will sell
    places : Places
        The network's locations.
    seed : int
        Chooses how well each SKU is stocked, and where.
    """
    supply = Supply()
    for (pool, sku), asked in wishes.items():
        _stock_for_orders(supply, pool, sku, asked, places, seed)
    for cell, units in tills.items():
        short = draw(seed, "short till", cell) < SHORT_TILL_SHARE
        if short:
            supply.short_tills.append(cell)
        supply.opening[cell] = supply.opening.get(cell, 0) + (units // 2 if short else units + 1)
    return supply


def home_warehouse(places: Places, pool: str, sku: str, seed: int) -> str:
    """The warehouse of the pool that a SKU is delivered to."""
    warehouses = places.tiers[pool].warehouses
    return warehouses[int(draw(seed, "home", pool, sku) * len(warehouses))]


def _stock_for_orders(supply: Supply, pool: str, sku: str, asked: Sequence[Wish], places: Places, seed: int) -> None:
    wanted = sum(wish.quantity for wish in asked)
    opening = round(wanted * _fill(draw(seed, "fill", pool, sku)))
    home = home_warehouse(places, pool, sku, seed)
    shares = _shares(pool, sku, asked, home, places, seed)
    total = sum(shares.values())
    until = [round(opening * part / total) for part in accumulate(shares.values())]
    for location, upto, before in zip(shares, until, [0, *until], strict=False):
        if upto > before:
            supply.opening[location, sku] = supply.opening.get((location, sku), 0) + upto - before
    missing = wanted - opening
    chance = draw(seed, "delivered", pool, sku)
    if missing > 0 and chance < DELIVERED_SHARE:
        when = DELIVERY_TIMES[int(chance / DELIVERED_SHARE * len(DELIVERY_TIMES))]
        supply.deliveries.append(Delivery(home, sku, missing, when))


def _fill(chance: float) -> float:
    """Opening stock as a share of all that will be ordered: most SKUs suffice, some are short, a few come late."""
    if chance < 0.74:
        return 1.15 + chance
    if chance < 0.94:
        return 0.6 + (chance - 0.74) * 1.6
    return (chance - 0.94) * 5


def _shares(pool: str, sku: str, asked: Sequence[Wish], home: str, places: Places, seed: int) -> dict[str, float]:
    """Location id → share of the SKU's opening stock; its stores are some of those nearest to who will ask."""
    spread = SLOW if len(asked) < STEADY_LINES else STEADY if len(asked) < POPULAR_LINES else POPULAR
    tiers = places.tiers[pool]

    def some(among: list[str], count: int) -> list[str]:
        return sorted(among, key=lambda location: draw(seed, "stocked", sku, location))[:count]

    shares = {home: spread.home}
    stores = dict.fromkeys(wish.shipper for wish in asked)
    for names, count, share in (
        ([x for x in tiers.warehouses if x != home], spread.others, spread.other),
        (tiers.regional, spread.regionals, spread.regional),
        (list(stores), spread.stores, spread.store),
    ):
        chosen = some(names, count) if count else []
        shares |= {location: share / len(chosen) for location in chosen}
    return shares
