"""News may come in any order: two events about one order, shipment or cell end the same whichever is known first.

`python -m tests.property.test_news_order 10000` tries so many histories.
"""

import random
import sys
from collections.abc import Callable

import pytest

from streams.inventory.pipeline import InventoryPipeline
from tests.complaints.story import START_MS, Ending, Story, shipment, table
from tests.inventory_log import Log, make_log, play, settings

HISTORIES = 1_500
EXPIRES = 60_000
Tell = Callable[[Story], object]


class History:
    """A shop with an order that is promised, and two pieces of news about it.

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
        story = Story("W1", "W2", "P")
        for place, units in self.first.items():
            if units:
                story.stock("receipt", place, "s", units)
        more = {"mode": "pickup", "pickup_location_id": "P"} if self.pickup else {}
        if self.held:
            more |= {"kind": "held", "expires_at": START_MS + EXPIRES}
        return story.order("o", ("s", self.units), **more)

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
        return lambda story, at: story.stock("sale", "P", "s", self.units, order_id="o", time=at)

    def _sale(self) -> Tell:
        place = self.place
        return lambda story, at: story.stock("sale", place, "s", self.part, time=at)

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


def books(ending: Ending) -> dict[str, tuple[int, int]]:
    """Place → on hand and reserved of the article."""
    return {place: (cell["on_hand"], cell["reserved"]) for (place, sku), cell in table(ending.state).items() if sku == "s"}


def _essence(found: dict[str, tuple[int, int]]) -> tuple:
    """On hand everywhere, and all that is reserved: where is a matter of what else could be had in between."""
    on_hand = {place: found.get(place, (0, 0))[0] for place in ("W1", "W2", "P")}
    return on_hand, sum(reserved for _, reserved in found.values())


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


@pytest.mark.parametrize("seed", range(12))
def test_after_each_event_no_cell_promises_more_than_it_has(seed):
    pipeline, log = InventoryPipeline(0, 1, settings()), make_log(seed, 250)
    for number, record in enumerate(log.records):
        play(pipeline, Log([] if number else log.locations, [record]), 1)
        for state in pipeline.pools.values():
            for name, cell in table(state).items():
                assert cell["reserved"] <= max(cell["on_hand"], 0), (number, name, cell)


if __name__ == "__main__":
    count = int(sys.argv[1])
    bad = [found for seed in range(count) if (found := differs(seed))]
    print(f"{count} histories, {len(bad)} end differently", *bad[:20], sep="\n")
    sys.exit(1 if bad else 0)
