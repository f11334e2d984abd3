"""News may come in any order: two events about one order, shipment or cell end the same whichever is known first.

`python -m tests.property.test_news_order 10000` tries so many histories.
"""

import random
import sys
from collections.abc import Callable

import pytest

from streams.inventory.pipeline import InventoryPipeline
from tests.complaints.story import START_MS, TICK, Ending, Story, shipment, table
from tests.inventory_log import Log, latest, make_log, play, settings

HISTORIES = 1_500
EXPIRES = 60_000
TRANSFER_MS = 14 * 86_400_000
Tell = Callable[[Story], object]


class History:
    """A shop with an order that is promised, of an article or of kits of it, and two pieces of news about it.

    What nobody could know is left out: who names no units tells of what the shipment held when he read of it, a till has what a
    transfer was to bring only if that was sent, and of a line that is partly refused a shortfall may take back the rest.
    """

    def __init__(self, seed: int):
        self.rng = rng = random.Random(seed)
        self.held = rng.random() < 0.25
        self.pickup = rng.random() < 0.5
        self.units = rng.randint(1, 4)
        self.first = {place: rng.choice([0, 1, 2, 5, 9]) for place in ("W1", "W2", "P")}
        self.first[rng.choice(["W1", "W2", "P"])] = 9
        self.wanted, self.each = rng.choice([("s", 1), ("s", 1), ("kit", 2)])
        """What is ordered, and how many units of the article one takes."""
        self.part = rng.randint(1, self.units)
        self.place = self.begin().run(1).decisions[0]["shipments"][0]["location_id"]
        """Where it is promised."""
        news = [] if self.place == "P" and self.pickup else [self._shipped]  # there it is collected
        news += [self._cancelled, self._rejected, self._count]
        news += [self._sale, self._expiry, self._returned, self._moved]
        if self.pickup:
            news += [self._rung_up, self._rung_up, self._collected, self._collected]
        makers = rng.sample(news, 2)
        self.names_all = self._cancelled in makers or self._rejected in makers
        self.whole = any(make in makers for make in (self._sale, self._count, self._moved))
        self.brought = self.place != "P" and any(make in makers for make in (self._rung_up, self._collected))
        self.kinds = [make.__name__ for make in makers]
        self.news = [make() for make in makers]

    def begin(self) -> Story:
        """Stock the shop and place the order; the first decision is its own."""
        story = Story("W1", "W2", "P").kit("kit", ("s", 2), ("t", 1))
        for place, units in self.first.items():
            if units:
                story.stock("receipt", place, "s", self.each * units)
            if units and self.wanted == "kit":
                story.stock("receipt", place, "t", units)
        more = {"mode": "pickup", "pickup_location_id": "P"} if self.pickup else {}
        if self.held:
            more |= {"kind": "held", "expires_at": START_MS + EXPIRES}
        return story.order("o", (self.wanted, self.units), **more)

    def told(self, swapped: bool) -> Ending:
        """Tell it all; the two pieces of news, each with a time of its own, in this order or the other."""
        story = self.begin()
        if self.brought:
            story.answer("shipped", "o", shipment(1), self.place)
        times = [story.time + 1_000, story.time + 2_000]
        order = (1, 0) if swapped else (0, 1)
        for which in order:
            self.news[which](story, times[which])
        return story.run(1)

    def _lines(self, units: int) -> dict:
        return {"lines": [{"line_id": "l0", "quantity": units}]}

    def _answer(self, kind: str, place: str, **more) -> Tell:
        return lambda story, at: story.answer(kind, "o", shipment(1), place, time=at, **more)

    def _shipped(self) -> Tell:
        if self.names_all or self.brought:
            return self._answer("shipped", self.place, **self._lines(self.rng.choice([self.part, self.units])))
        lines = self.rng.choice([{}, self._lines(self.part)])
        return self._answer("shipped", self.rng.choice([self.place, self.place, "W2"]), **lines)

    def _collected(self) -> Tell:
        return self._answer("collected", "P", **self._lines(self.units))

    def _rejected(self) -> Tell:
        units = self.units if self.whole else self.rng.choice([self.part, self.units])
        return self._answer("rejected", self.place, missing=self.rng.random() < 0.5, **self._lines(units))

    def _returned(self) -> Tell:
        return self._answer("returned", "W2", **self._lines(self.part))

    def _cancelled(self) -> Tell:
        more = self.rng.choice([{}, self._lines(self.part)])
        return lambda story, at: story.cancelled("o", time=at, **more)

    def _rung_up(self) -> Tell:
        return lambda story, at: story.stock("sale", "P", self.wanted, self.units, order_id="o", time=at)

    def _sale(self) -> Tell:
        place, sku = self.place, self.rng.choice(["s", self.wanted])
        return lambda story, at: story.stock("sale", place, sku, self.part, time=at)

    def _moved(self) -> Tell:
        place, kind = self.place, self.rng.choice(["quarantine", "receipt", "adjustment"])
        return lambda story, at: story.stock(kind, place, "s", self.part, time=at)

    def _count(self) -> Tell:
        place, units, ago = self.place, self.rng.randint(0, 6), self.rng.choice([0, 1_500])
        return lambda story, at: story.counted(place, "s", units, at=at - ago, time=at)

    def _expiry(self) -> Tell:
        def pass_time(story: Story, at: int) -> None:
            if self.held:
                story.time = max(story.time, EXPIRES + 1_000)
                story.stock("receipt", "W1", "other", 1)

        return pass_time


class Transfers:
    """A shop in which units move between locations, and two pieces of news about one transfer.

    Each kind of news has a sender of its own, the source or the destination: what one sender says keeps its order.
    """

    def __init__(self, seed: int):
        self.rng = rng = random.Random(seed)
        self.before = [self._news() for _ in range(rng.randint(0, 2))]
        self.sent, self.received = self._sent(), self._received()
        self.after = [self._news() for _ in range(rng.randint(0, 1))]

    def told(self, swapped: bool) -> Ending:
        """Tell it all, the departure first or the arrival."""
        story = Story("W1", "W2").stock("receipt", "W1", "s", 40).stock("receipt", "W2", "s", 40)
        for tell in self.before:
            tell(story, story.time)
        times = [story.time + 1_000, story.time + 2_000]
        for which in (1, 0) if swapped else (0, 1):
            (self.sent, self.received)[which](story, times[which])
        for tell in self.after:
            tell(story, story.time)
        return story.run(self.rng.choice([1, 100]))

    def _news(self) -> Tell:
        return self.rng.choice([self._sent, self._received, self._ticked])()

    def _sent(self) -> Tell:
        units, ago = self.rng.randint(1, 4), self.rng.choice([0, 0, TRANSFER_MS - 2_500, TRANSFER_MS])
        more = {"transfer_id": "t", "to_location_id": "W2"}
        return lambda story, at: story.stock("transfer_out", "W1", "s", units, time=at - ago, **more)

    def _received(self) -> Tell:
        units = self.rng.randint(1, 4)
        return lambda story, at: story.stock("transfer_in", "W2", "s", units, time=at, transfer_id="t")

    def _ticked(self) -> Tell:
        return lambda story, at: story.send("ticks.v1", TICK)


def _told_of(ending: Ending) -> tuple:
    """What is published of the transfer, and which alerts of it stand."""
    standing = {key for key, alert in latest(ending.outcomes, "alerts.v1").items() if alert["status"] == "raised"}
    rows = latest(ending.outcomes, "transfers.v1").values()
    return [{name: value for name, value in row.items() if name != "updated_at"} for row in rows], standing, books(ending)


def transfer_differs(seed: int) -> str | None:
    """Say how the two orders of a transfer's news end differently; None if they don't.

    A transfer that is settled past its time is forgotten at once, which only the order in which it was told can decide.
    """
    one, other = (Transfers(seed).told(swapped) for swapped in (False, True))
    if _told_of(one) == _told_of(other) or any(_forgot_too_soon(ending) for ending in (one, other)):
        return None
    return f"seed {seed}, a transfer: {_told_of(one)}, the other way round {_told_of(other)}"


def _forgot_too_soon(ending: Ending) -> bool:
    """Whether the transfer was forgotten, and heard of again."""
    values = [message["value"] for outcome in ending.outcomes for message in outcome.outputs.get("transfers.v1", [])]
    return None in values[:-1]


def books(ending: Ending) -> dict[tuple[str, str], tuple[int, int]]:
    """Place, article → on hand and reserved."""
    cells = table(ending.state)
    return {name: (cell["on_hand"], cell["reserved"]) for name, cell in cells.items() if name[1] in ("s", "t")}


def _essence(found: dict[tuple[str, str], tuple[int, int]]) -> tuple:
    """On hand everywhere, and all that is reserved: where is a matter of what else could be had in between."""
    on_hand = {name: units for name, (units, _) in found.items() if units}
    return on_hand, [sum(reserved for (_, sku), (_, reserved) in found.items() if sku == article) for article in "st"]


def differs(seed: int) -> str | None:
    """Say how the two orders of a history's news end differently; None if they don't."""
    history = History(seed)
    one, other = (books(history.told(swapped)) for swapped in (False, True))
    if _essence(one) == _essence(other):
        return None
    return f"seed {seed}, news {history.kinds}: {one}, the other way round {other}"


@pytest.mark.parametrize("part", range(3))
def test_two_pieces_of_news_end_the_same_in_either_order(part):
    found = [differs(seed) for seed in range(part * HISTORIES // 3, (part + 1) * HISTORIES // 3)]
    assert not list(filter(None, found))


def test_two_pieces_of_news_of_a_transfer_end_the_same_in_either_order():
    assert not list(filter(None, map(transfer_differs, range(HISTORIES // 5))))


@pytest.mark.parametrize("seed", range(12))
def test_after_each_event_no_cell_promises_more_than_it_has(seed):
    pipeline, log = InventoryPipeline(0, 1, settings()), make_log(seed, 250)
    for number, record in enumerate(log.records):
        play(pipeline, Log([] if number else log.changes, [record]), 1)
        for state in pipeline.pools.values():
            for name, cell in table(state).items():
                assert cell["reserved"] <= max(cell["on_hand"], 0), (number, name, cell)


if __name__ == "__main__":
    count = int(sys.argv[1])
    bad = [found for seed in range(count) for found in (differs(seed), transfer_differs(seed)) if found]
    print(f"{count} histories, {len(bad)} end differently", *bad[:20], sep="\n")
    sys.exit(1 if bad else 0)
