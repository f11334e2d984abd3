"""The same job as Faust's manual shows it: one event at a time, a Table, `topic.send`; every setting as it comes.

At least once, where a worker is exactly once. The stock that was there at the start is read into a dict, which costs nothing
per order; the units promised are the Table. Only the locations that stock the SKU are looked at, nearest first.
Start: `python -m benchmarks.peers.faust_manual worker --without-web`, with PEER set as in benchmarks/end_to_end.py.
"""

import json
import os
from collections import defaultdict
from typing import Any

import faust

from benchmarks.peers import kilometres, unit_vector
from benchmarks.record import values
from benchmarks.synthetic import Synthetic

given = json.loads(os.environ["PEER"])


class Line(faust.Record):
    line_id: str
    sku: str
    quantity: int


class Destination(faust.Record):
    latitude: float
    longitude: float


class Order(faust.Record):
    order_id: str
    lines: list[Line]
    destination: Destination


class Allocation(faust.Record):
    order_id: str
    location_id: str | None
    sku: str
    quantity: int
    distance_km: float | None


work = Synthetic(**given["work"])
places = {place.id: unit_vector(place.latitude, place.longitude) for place in work.network()}
opening: dict[str, int] = {}  # "location/SKU" → units
stocked: defaultdict[str, list] = defaultdict(list)  # SKU → (location, its unit vector)
for records in work.opening():
    for receipt in map(json.loads, values(records)):
        opening[f"{receipt['location_id']}/{receipt['sku']}"] = receipt["quantity"]
        stocked[receipt["sku"]].append((receipt["location_id"], places[receipt["location_id"]]))

app = faust.App("faust-manual", broker=f"kafka://{given['bootstrap_servers']}", value_serializer="json", topic_partitions=1)
orders = app.topic(given["orders"], value_type=Order)
allocations = app.topic(given["allocations"], value_type=Allocation)
reserved = app.Table("reserved", default=int)


@app.agent(orders)
async def allocate(stream: Any) -> None:
    async for order in stream:
        line = order.lines[0]
        x, y, z = unit_vector(order.destination.latitude, order.destination.longitude)
        near = sorted(
            ((-(x * at[0] + y * at[1] + z * at[2]), location_id) for location_id, at in stocked[line.sku]),
        )
        allocation = Allocation(
            order_id=order.order_id, location_id=None, sku=line.sku, quantity=line.quantity, distance_km=None
        )
        for cosine, location_id in near:
            cell = f"{location_id}/{line.sku}"
            if opening[cell] - reserved[cell] >= line.quantity:
                reserved[cell] += line.quantity
                allocation.location_id = location_id
                allocation.distance_km = kilometres(-cosine)
                break
        await allocations.send(key=order.order_id, value=allocation)


if __name__ == "__main__":
    app.main()
