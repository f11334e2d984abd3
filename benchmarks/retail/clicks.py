"""Clicks of the customers who placed the retail orders: a search, then views, carts and checkouts of what they bought.

Owner: the realistic input of `clicks.v1`. A basket that was held and never paid has no checkout.
Invariants: the same workload gives the same bytes; the clicks that led to an order are in order and lie before it.
Not here: what the clicks are counted for.
"""

from collections.abc import Iterator

import orjson

from benchmarks.record import APPLIED, Record
from benchmarks.retail.workload import Workload

CLICK_MS = 4_000  # from one click to the visitor's next
ABANDONED = "BASKET-"  # beginning of an order id


def retail_clicks(workload: Workload) -> list[Record]:
    """Make the clicks that led to a workload's orders, by time.

    Per order line one to three views and a cart, per line bought a checkout; keyed by visitor id.
    """
    clicks: list[tuple[int, bytes, bytes]] = []
    for record in workload.stream:
        if record.topic != "orders.v1" or record.outcome != APPLIED:
            continue
        assert record.key and record.value, record
        order = orjson.loads(record.value)
        bought = order["kind"] == "placed"
        if bought or order["order_id"].startswith(ABANDONED):
            clicks += _clicks_of(order, record.key.decode(), bought)
    clicks.sort(key=lambda click: click[0])
    return [Record("clicks.v1", key, value) for _, key, value in clicks]


def _clicks_of(order: dict, pool: str, bought: bool) -> Iterator[tuple[int, bytes, bytes]]:
    """(Event time, visitor, value) of each click, first to last."""
    visitor = f"visitor-{order.get('customer_id', order['order_id'])}"
    kinds: list[tuple[str, str | None]] = [("search", None)]
    for number, line in enumerate(order["lines"]):
        views = 1 + (number * 7 + line["quantity"]) % 3
        kinds += [("view", line["sku"])] * views + [("cart", line["sku"])]
    if bought:
        kinds += [("checkout", line["sku"]) for line in order["lines"]]
    about = {"visitor_id": visitor, "channel": order["channel"], "pool_id": pool} | order.get("destination", {})
    if "customer_id" in order:
        about["customer_id"] = order["customer_id"]
    start = order["event_time"] - len(kinds) * CLICK_MS
    for number, (kind, sku) in enumerate(kinds):
        time = start + number * CLICK_MS
        click = {"event_id": f"click-{order['order_id']}-{number}", "event_time": time, "kind": kind}
        if sku:
            click["sku"] = sku
        yield time, visitor.encode(), orjson.dumps(click | about)
