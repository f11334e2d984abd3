"""The demo's stories say what happened to an order, and nothing else."""

from benchmarks.stories import order_histories, three_stories

PLACED = {
    "kind": "placed",
    "order_id": "o",
    "lines": [{"line_id": "1", "sku": "A", "quantity": 3}],
    "destination": {"latitude": 51.5, "longitude": -0.1},
}


def decision(number: int, place: str | None, topic: str, considered: int = 2, won: str = "nearest") -> dict:
    lines = [{"line_id": "1", "sku": "A", "quantity": 3}]
    shipments = [{"shipment_id": f"s-{number}", "location_id": place, "distance_km": 7.0, "lines": lines}] if place else []
    return {
        "order_id": "o",
        "status": "allocated" if place else "backordered",
        "shipments": shipments,
        "unallocated": [] if place else [{**lines[0], "reason": "no_stock"}],
        "source": {"topic": topic},
        "explanation": {"considered": considered, "won": won, "lost": []},
    }


def told(*decisions: dict) -> dict[str, str]:
    return {title: " ".join(sentences) for title, sentences in three_stories(order_histories([PLACED], decisions))}


def test_an_order_waited_only_if_units_of_it_did():
    first = decision(1, None, "orders.v1", won="nothing")
    assert (
        "Later a delivery or a count makes units available: STORE, 7 km away, sends 3"
        in told(first, decision(2, "STORE", "stock.v1"))["It waited"]
    )
    assert "It waited" not in told(decision(1, "STORE", "orders.v1"), decision(2, "DC", "sales.v1"))


def test_a_basket_that_is_confirmed_was_promised_before_and_a_promise_that_is_lost_is_told():
    confirmed, lost = decision(1, "STORE", "orders.v1", 0, "nothing"), decision(2, "DC", "sales.v1")
    waits = decision(3, None, "sales.v1", won="nothing")
    story = told(confirmed, lost, waits, decision(4, "STORE", "sales.v1"))["It waited"]
    assert "It was promised as a basket before: STORE, 7 km away, sends 3." in story
    assert "Later goods that it was promised are not there any more: DC, 7 km away, sends 3." in story
    assert "Later a return at a till makes units available: STORE, 7 km away, sends 3." in story
    assert "0 locations" not in story and "Nothing was chosen" not in story
