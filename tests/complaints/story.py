"""A shop's day told event by event, run through the inventory pipeline in batches of any size, and what came of it.

Times are milliseconds since the story began; each event comes a second after the one before.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import orjson
import pytest

from state.digest import digest
from state.pool import PoolState
from streams.batch.pipeline import LocationChange, Outcome, Segment
from streams.inventory.pipeline import InventoryPipeline
from tests.inventory_log import START_MS, Log, LogRecord, kit, location, play, product, published, settings

POOL = "uk"
STEP_MS = 1_000
TICK = orjson.dumps({"pool_id": POOL})

in_batches = pytest.mark.parametrize("size", [1, 10_000], ids=["one by one", "at once"])


def shipment(sequence: int, number: int = 1) -> str:
    """The id of a shipment that the pool's n-th decision made."""
    return f"{PoolState(POOL.encode()).tag.decode()}-{sequence}-{number}"


@dataclass
class Ending:
    """What a story came to: all that was published, and the pipeline as it is."""

    pipeline: InventoryPipeline
    outcomes: list[Outcome]
    decisions: list[dict] = field(init=False)
    letters: list[dict] = field(init=False)

    def __post_init__(self):
        self.decisions = published(self.outcomes, "allocations.v1")
        self.letters = published(self.outcomes, "dead-letter.v1")

    @property
    def state(self) -> PoolState:
        return self.pipeline.pools[POOL.encode()]

    def last(self, order_id: str) -> dict:
        """The last decision for an order."""
        return [decision for decision in self.decisions if decision["order_id"] == order_id][-1]

    def promised(self, order_id: str) -> dict[str, int]:
        """Line → units promised by the last decision for an order."""
        shipments = self.last(order_id)["shipments"]
        return {line["line_id"]: line["quantity"] for shipment in shipments for line in shipment["lines"]}

    def cells(self) -> dict[tuple[str, str], dict]:
        """(Location, SKU) → what was published of the cell last."""
        return {(cell["location_id"], cell["sku"]): cell for cell in published(self.outcomes, "inventory.v1")}

    def cell(self, place: str, sku: str) -> tuple[int, int, int]:
        """On hand, reserved, available."""
        cell = self.cells()[place, sku]
        return cell["on_hand"], cell["reserved"], cell["available"]

    def reasons(self) -> list[str]:
        return [letter["reason"] for letter in self.letters]

    def count(self, outcome: str) -> int:
        return sum(n for found in self.outcomes for (_, name), n in found.counts.items() if name == outcome)


class Story:
    """Collects a pool's events. Places are north of each other: the i-th is at latitude 50 + i."""

    def __init__(self, *places: str, **changed):
        self._settings = settings(**changed)
        self.log = Log([location(place, POOL, i, latitude=50.0 + i) for i, place in enumerate(places)])
        self.time = 0
        self._offsets: dict[str, int] = {}

    def tell(self, topic: str, *, time: int | None = None, event_id: str | None = None, **body) -> "Story":
        """Append an event; `time` is its own (`event_time`), by default when it comes."""
        self.time += STEP_MS
        event = {"event_id": event_id or f"e{self.time}", "event_time": START_MS + (self.time if time is None else time)} | body
        return self.send(topic, orjson.dumps(event))

    def send(self, topic: str, value: bytes) -> "Story":
        """Append a record as it is, at the present time."""
        offset = self._offsets[topic] = self._offsets.get(topic, -1) + 1
        self.log.records.append(LogRecord(topic, offset, START_MS + self.time, POOL.encode(), value))
        return self

    def kit(self, sku: str, *parts: tuple[str, int]) -> "Story":
        """Let a SKU be a kit from before the first event on."""
        self.log.products.append(product(sku, len(self.log.products), kit(*parts)))
        return self

    def stock(self, kind: str, place: str, sku: str, quantity: int, **more) -> "Story":
        topic = "sales.v1" if kind in ("sale", "return") else "stock.v1"
        return self.tell(topic, kind=kind, location_id=place, sku=sku, quantity=quantity, **more)

    def counted(self, place: str, sku: str, quantity: int, at: int, **more) -> "Story":
        """Tell of a count that was taken at a time, however late it comes."""
        return self.stock("count", place, sku, quantity, counted_at=START_MS + at, **more)

    def order(self, order_id: str, *lines: tuple[str, int], kind: str = "placed", near: float = 50.0, **more) -> "Story":
        """Place or hold an order of (SKU, units) lines called l0, l1, ..., to be delivered at a latitude."""
        asked = [{"line_id": f"l{i}", "sku": sku, "quantity": units} for i, (sku, units) in enumerate(lines)]
        body = {"destination": {"latitude": near, "longitude": 0.0}} | more
        return self.tell("orders.v1", kind=kind, order_id=order_id, lines=asked, **body)

    def cancelled(self, order_id: str, **more) -> "Story":
        return self.tell("orders.v1", kind="cancelled", order_id=order_id, **more)

    def answer(self, kind: str, order_id: str, shipment_id: str, place: str, **more) -> "Story":
        return self.tell("fulfilments.v1", kind=kind, order_id=order_id, shipment_id=shipment_id, location_id=place, **more)

    def run(self, size: int) -> Ending:
        """Run the story in batches of so many records."""
        pipeline = InventoryPipeline(0, 1, self._settings)
        return Ending(pipeline, play(pipeline, self.log, size))


def change_places(ending: Ending, *changes: LocationChange) -> Ending:
    """Go on with a change of locations, or of products; returns all so far."""
    outcome = ending.pipeline.process(ending.pipeline.decode([]), list(changes))
    return Ending(ending.pipeline, [*ending.outcomes, outcome])


def go_on(ending: Ending, story: Story, size: int) -> Ending:
    """Go on with the events told since; returns all so far."""
    done = sum(sum(outcome.counts.values()) for outcome in ending.outcomes)
    rest = story.log.records[done:]
    return Ending(ending.pipeline, [*ending.outcomes, *play(ending.pipeline, Log([], rest), size)])


def table(state: PoolState) -> dict[tuple[str, str], dict]:
    """(Location, SKU) → the cell as the table has it."""
    rows = state.rows("cells")
    text = lambda name, row: state.text(int(row["id_at"]), int(row["id_size"])).decode()  # noqa: E731
    places = [text("locations", row) for row in state.rows("locations")]
    skus = [text("skus", row) for row in state.rows("skus")]
    names = ("on_hand", "reserved", "safety_stock", "version")
    return {
        (places[row["location"]], skus[row["sku"]]): {name: int(row[name]) for name in names} for row in np.atleast_1d(rows)
    }


def refuses(story: Story, size: int, *reasons: str) -> Ending:
    """Run a story; its last events must be refused for these reasons, whole, and have changed nothing but the clock.

    The same log with a tick in each refused event's place gives a state with the same digest.
    """
    ending = story.run(size)
    refused = story.log.records[-len(reasons) :]
    assert ending.reasons() == list(reasons)
    assert [letter["offset"] for letter in ending.letters] == [record.offset for record in refused]
    assert all(letter["detail"] for letter in ending.letters)
    twin = InventoryPipeline(0, 1, story._settings)
    play(twin, replace(story.log, records=story.log.records[: -len(reasons)]), size)
    for i, record in enumerate(refused):
        twin.process(twin.decode([Segment.of("ticks.v1", [LogRecord("ticks.v1", i, record.timestamp, b"uk", TICK)])]), [])
    assert digest(ending.state) == digest(twin.pools[b"uk"])
    return ending
