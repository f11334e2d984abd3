"""The same job on Quix Streams: exactly once, its RocksDB store for the cells, a changelog; one message at a time.

A key of the state per cell (SKU, location), and one per SKU that names the locations which stock it. The latter never change
once they are there, so they are kept in memory too, as an array: an order costs one or two look-ups. One process only: with
several, what is in memory would have to go when a partition does.
Quix Streams asks for older versions of confluent-kafka and pydantic than we do, so it lives in an environment of its own.
Start: `environment(directory)` gives the Python for `-m benchmarks.peers.quix`, with PEER set to JSON: `bootstrap_servers`,
`application_id`, `stock`, `orders`, `allocations` (topics), `network` (file, JSON), `state_directory`, `commit_interval_ms`.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import build, kilometres, unit_vector

PACKAGES = ("quixstreams==3.28.1", "numpy==2.4.6")
MOST_LOSERS = 3


def environment(directory: Path) -> Path:
    """Make a virtual environment with Quix Streams in it, if that is not done yet, and give its Python.

    Raises
    ------
    PeerMissing
        It can't be made, or pip can't install what it needs.
    """
    python = directory.resolve() / "bin" / "python"
    finished = directory / "packages.txt"
    wanted = "\n".join(PACKAGES)
    if finished.exists() and finished.read_text() == wanted:
        return python
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(directory)],
        [str(python), "-m", "pip", "install", "--quiet", *PACKAGES],
    ):
        advice = "It takes Python's venv (Debian, Ubuntu: apt-get install python3-venv) and a package index."
        build(command, f"no environment with {PACKAGES[0]} could be made", advice)
    finished.write_text(wanted)
    return python


class Shelves:
    """The locations that stock a SKU, by their ids, with the state's key of each one's cell."""

    def __init__(self, sku: str, location_ids: Iterable[str], places: dict[str, tuple[float, float, float]]):
        self.location_ids = sorted(location_ids)
        self.cells = [f"{sku}/{location_id}".encode() for location_id in self.location_ids]
        self._vectors = np.array([places[location_id] for location_id in self.location_ids]).reshape(-1, 3)

    def nearest_first(self, latitude: float, longitude: float) -> tuple[list[int], list[float]]:
        """The shelves from the nearest on, equally near ones by location id, and the cosine of each shelf."""
        cosines = self._vectors @ unit_vector(latitude, longitude)
        return np.argsort(-cosines, kind="stable").tolist(), cosines.tolist()


class Allocator:
    """Decides; `source` gives the topic, partition and offset of the message at hand."""

    def __init__(self, places: dict[str, tuple[float, float, float]], source: Any):
        self._places = places
        self._source = source
        self._shelves: dict[str, Shelves] = {}

    def __call__(self, event: dict, key: Any, timestamp: int, headers: Any, state: Any) -> list[dict]:
        """Apply an event to the state; give the decision if it is an order."""
        if event["kind"] == "receipt":
            self._receive(event, state)
            return []
        return [self._decide(event, key, timestamp, state)]

    def _of(self, sku: str, state: Any) -> Shelves:
        shelves = self._shelves.get(sku)
        if shelves is None:
            shelves = self._shelves[sku] = Shelves(sku, state.get(sku.encode(), []), self._places)
        return shelves

    def _receive(self, receipt: dict, state: Any) -> None:
        sku, location_id = receipt["sku"], receipt["location_id"]
        shelves = self._of(sku, state)
        if location_id not in shelves.location_ids:
            shelves = self._shelves[sku] = Shelves(sku, [*shelves.location_ids, location_id], self._places)
            state.set(sku.encode(), shelves.location_ids)
        cell = shelves.cells[shelves.location_ids.index(location_id)]
        state.set(cell, state.get(cell, 0) + receipt["quantity"])

    def _decide(self, order: dict, key: Any, timestamp: int, state: Any) -> dict:
        (line,) = order["lines"]
        quantity, destination = line["quantity"], order["destination"]
        shelves = self._of(line["sku"], state)
        near, cosines = shelves.nearest_first(destination["latitude"], destination["longitude"])
        winner = None
        losers: list[dict] = []
        for shelf in near:
            if winner is None and (units := state.get(shelves.cells[shelf])) >= quantity:
                state.set(shelves.cells[shelf], units - quantity)
                winner = shelf
            elif len(losers) < MOST_LOSERS:
                reason = "no_stock" if winner is None else "farther" if cosines[shelf] < cosines[winner] else "location_id"
                losers.append(
                    {
                        "location_id": shelves.location_ids[shelf],
                        "distance_km": kilometres(cosines[shelf]),
                        "reason": reason,
                    }
                )
            elif winner is not None:
                break
        sequence = state.get(b"sequence", 0) + 1
        state.set(b"sequence", sequence)
        pool_id = key if isinstance(key, str) else key.decode()
        allocation_id = f"{pool_id}-{sequence}"
        promised = {"line_id": line["line_id"], "sku": line["sku"], "quantity": quantity}
        shipment = winner is not None and {
            "shipment_id": f"{allocation_id}-1",
            "location_id": shelves.location_ids[winner],
            "kind": "ship",
            "distance_km": kilometres(cosines[winner]),
            "lines": [promised],
        }
        source = self._source()
        return {
            "allocation_id": allocation_id,
            "sequence": sequence,
            "order_id": order["order_id"],
            "pool_id": pool_id,
            "status": "allocated" if shipment else "backordered",
            "shipments": [shipment] if shipment else [],
            "unallocated": [] if shipment else [{**promised, "reason": "no_stock"}],
            "policy": "nearest",
            "decided_at": timestamp,
            "source": {"topic": source.topic, "partition": source.partition, "offset": source.offset},
            "explanation": {
                "policy": "nearest",
                "version": 1,
                "considered": len(near),
                "won": "nearest" if shipment else "nothing",
                "lost": losers,
            },
        }


def main() -> None:
    """Run until told to end."""
    from quixstreams import Application, message_context  # here: not there where `environment` is called

    given = json.loads(os.environ["PEER"])
    network = json.loads(Path(given["network"]).read_text())["locations"]
    places = {place["id"]: unit_vector(place["latitude"], place["longitude"]) for place in network}
    commit_interval_s = given.get("commit_interval_ms", 100) / 1000
    app = Application(
        broker_address=given["bootstrap_servers"],
        consumer_group=given["application_id"],
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=commit_interval_s,
        # A fetch of several topics waits for a full buffer or for this long; 1 s by default, and no commit before it.
        consumer_poll_timeout=min(0.05, commit_interval_s),
        state_dir=given["state_directory"],
        consumer_extra_config={
            "fetch.queue.backoff.ms": 1,
            "max.partition.fetch.bytes": 8 << 20,
            "queued.min.messages": 200_000,
            **given.get("consumer", {}),
        },
        producer_extra_config={
            "linger.ms": 5,
            "retry.backoff.ms": 1,
            "queue.buffering.max.messages": 500_000,
            **given.get("producer", {}),
        },
        loglevel="INFO",
    )
    stock = app.dataframe(app.topic(given["stock"], value_deserializer="json"))
    orders = app.dataframe(app.topic(given["orders"], value_deserializer="json"))
    allocations = app.topic(given["allocations"], key_serializer="str", value_serializer="json")
    events = stock.concat(orders)
    decisions = events.apply(Allocator(places, message_context), stateful=True, metadata=True, expand=True)
    decisions.to_topic(allocations, key=lambda allocation: allocation["order_id"])
    app.run()


if __name__ == "__main__":
    main()
