"""Events of orders as they come in reality, for the tests' shops: orders change, answers differ from what was promised.

Each function draws one event from `rng`; a shop adds who sends it and when.
"""

import random
from collections.abc import Sequence


def order_lines(rng: random.Random, skus: Sequence[str], count: int, most: int) -> list[dict]:
    """Lines of an order; some are in no stock."""
    lines = [{"line_id": f"l{i}", "sku": rng.choice(skus), "quantity": rng.randint(1, most)} for i in range(count)]
    return [line | ({"stocked": False} if rng.random() < 0.06 else {}) for line in lines]


def cancellation(rng: random.Random, order_id: str, lines: list[dict]) -> dict:
    """All of an order, some lines, or units of some."""
    body: dict = {"kind": "cancelled", "order_id": order_id}
    some = [line for line in lines if rng.random() < 0.5]
    which = rng.random()
    if which < 0.3:
        body["line_ids"] = [line["line_id"] for line in some]
    elif which < 0.6:
        body["lines"] = [{"line_id": line["line_id"], "quantity": rng.randint(1, 3)} for line in some]
    return body


def change(rng: random.Random, order_id: str, lines: list[dict], skus: Sequence[str], place: str) -> dict:
    """An order becomes another: its lines, its place, its terms."""
    body: dict = {"kind": "changed", "order_id": order_id}
    if rng.random() < 0.75:
        kept = [line | {"quantity": max(1, line["quantity"] + rng.choice([-2, -1, 0, 0, 0, 1]))} for line in lines]
        kept = [line if rng.random() < 0.9 else line | {"sku": rng.choice(skus)} for line in kept if rng.random() < 0.85]
        kept += [{"line_id": f"m{rng.randrange(3)}", "sku": rng.choice(skus), "quantity": 1}] if rng.random() < 0.3 else []
        body["lines"] = rng.sample(kept, len(kept)) if rng.random() < 0.2 else kept
    if rng.random() < 0.3:
        body |= somewhere(rng, place)
    elif rng.random() < 0.2:
        body["destination"] = somewhere(rng, None)["destination"]
    for term in ("allow_split", "allow_partial"):
        if rng.random() < 0.15:
            body[term] = rng.random() < 0.5
    return body


def somewhere(rng: random.Random, place: str | None) -> dict:
    """Where an order goes: to a customer, or, if there is a `place`, maybe to be picked up there."""
    if place and rng.random() < 0.4:
        return {"mode": "pickup", "pickup_location_id": place}
    latitude, longitude = round(rng.uniform(50, 58), 2), round(rng.uniform(-5, 1), 2)
    return {"mode": "delivery", "destination": {"latitude": latitude, "longitude": longitude}}


def answer(rng: random.Random, order_id: str, shipment: dict, pickup: str | None, place: str, skus: Sequence[str]) -> dict:
    """What a location says that it did with a shipment; `place` is where it may have been instead."""
    kind = rng.choice(["shipped", "shipped", "shipped", "collected", "collected", "rejected", "rejected", "returned"])
    at = shipment["location_id"]
    if kind == "collected" and pickup and rng.random() < 0.8:
        at = pickup
    if kind == "returned" or rng.random() < 0.15:
        at = place
    body = {"kind": kind, "order_id": order_id, "shipment_id": shipment["shipment_id"], "location_id": at}
    if kind == "rejected" and rng.random() < 0.4:
        body["missing"] = True
    if kind == "returned" and rng.random() < 0.4:
        body["shipment_id"] = None
    if rng.random() < 0.06:
        body |= rng.choice([{"order_id": "nobody"}, {"shipment_id": "nothing"}])
    if rng.random() < 0.5:
        body["lines"] = [_named(rng, line, skus) for line in shipment["lines"] if rng.random() < 0.8]
    return body


def _named(rng: random.Random, line: dict, skus: Sequence[str]) -> dict:
    """Units of a line, as a location names them."""
    named = {"line_id": line["line_id"], "quantity": rng.randint(1, line["quantity"] + rng.choice([0, 0, 0, 1]))}
    which = rng.random()
    if which < 0.1:
        return {"sku": line["sku"], "quantity": named["quantity"]}
    if which < 0.2:
        return named | {"sku": rng.choice(skus)}
    if which < 0.25:
        return named | {"line_id": rng.choice(["l0", "l1", "l9"])}
    return named


def till_sale(rng: random.Random, order_id: str, shipment: dict, pickup: str | None) -> dict:
    """A sale of a pickup order's goods at the till."""
    line = rng.choice(shipment["lines"])
    units = rng.randint(1, line["quantity"] + rng.choice([0, 0, 1]))
    body = {"kind": "sale", "location_id": pickup or shipment["location_id"], "sku": line["sku"], "quantity": units}
    return body | {"order_id": order_id} | ({"line_id": line["line_id"]} if rng.random() < 0.5 else {})
