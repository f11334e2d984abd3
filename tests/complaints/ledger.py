"""What every cell must be, added up from a log and the decisions alone: a second opinion in plain Python.

On hand is the last count plus the movements after it, whichever was told first; reserved is what the orders' last decisions
promise and nobody shipped.
Shares nothing with the product but the topics' formats. Not here: who gets what (that is the decisions'), times gone by
(windows and horizons are taken for endless).
"""

from collections import defaultdict

import orjson

from tests.inventory_log import LogRecord

_SIGN = {
    "sale": -1,
    "return": 1,
    "receipt": 1,
    "adjustment": 1,
    "transfer_in": 1,
    "transfer_out": -1,
    "release": 1,
    "quarantine": -1,
}


class Ledger:
    """Folds records one by one, each with the decisions it caused; `on_hand` and `reserved` are by (location, SKU)."""

    def __init__(self):
        self.on_hand: dict[tuple[str, str], int] = defaultdict(int)
        self._moved: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)  # (its own time, units)
        self._counted: dict[tuple[str, str], int] = {}
        self._seen: set[tuple[str, str, str]] = set()  # topic, sender, event id
        self._open: dict[str, dict[str, dict]] = {}  # order → shipment id → shipment with what is left of it
        self._shipped: dict[tuple[str, str, str], list[dict]] = {}  # order, shipment, line → parts as they were

    @property
    def reserved(self) -> dict[tuple[str, str], int]:
        found = defaultdict(int)
        for shipments in self._open.values():
            for shipment in shipments.values():
                for line in shipment["lines"]:
                    found[shipment["location_id"], line["sku"]] += line["quantity"]
        return +_Sums(found)

    def fold(self, record: LogRecord, decisions: list[dict], refused: bool) -> None:
        event = None if refused or record.topic == "ticks.v1" else orjson.loads(record.value)
        of_stock = record.topic in ("sales.v1", "stock.v1")
        key = event and (record.topic, event["location_id" if of_stock else "order_id"], event["event_id"])
        if key and key not in self._seen:
            self._seen.add(key)
            if of_stock:
                self._stock(event)
            elif record.topic == "fulfilments.v1":
                self._answer(event)
        for decision in decisions:
            self._open[decision["order_id"]] = {shipment["shipment_id"]: shipment for shipment in decision["shipments"]}

    def _stock(self, event: dict) -> None:
        cell = event["location_id"], event["sku"]
        if event["kind"] in _SIGN:
            self._move(cell, _SIGN[event["kind"]] * event["quantity"], event["event_time"])
        elif event["kind"] == "count":
            at = event.get("counted_at", event["event_time"])
            if at >= self._counted.get(cell, -1):
                self._counted[cell] = at
                self.on_hand[cell] = event["quantity"] + sum(units for time, units in self._moved[cell] if time > at)

    def _move(self, cell: tuple[str, str], units: int, time: int) -> None:
        if time < self._counted.get(cell, -1):  # the count has seen it
            return
        self._moved[cell].append((time, units))
        self.on_hand[cell] += units

    def _answer(self, event: dict) -> None:
        shipment_id = event["shipment_id"]
        if event["kind"] == "returned":
            self._return(event)
            return
        shipment = self._open[event["order_id"]].get(shipment_id)
        if event["kind"] == "rejected" or shipment is None:  # a transfer's collection: it was shipped before
            return
        asked = None if event.get("lines") is None else _Sums.of(event["lines"], "line_id")
        for line in shipment["lines"]:
            units = line["quantity"] if asked is None else min(line["quantity"], asked[line["line_id"]])
            if asked is not None:
                asked[line["line_id"]] -= units
            if units:
                line["quantity"] -= units
                self._move((shipment["location_id"], line["sku"]), -units, event["event_time"])
                parts = self._shipped.setdefault((event["order_id"], shipment_id, line["line_id"]), [])
                parts.append({"sku": line["sku"], "units": units})
        shipment["lines"] = [line for line in shipment["lines"] if line["quantity"]]

    def _return(self, event: dict) -> None:
        asked = None if event.get("lines") is None else _Sums.of(event["lines"], "line_id")
        for (order_id, shipment_id, line_id), parts in self._shipped.items():
            if (order_id, shipment_id) != (event["order_id"], event["shipment_id"]):
                continue
            for part in parts:
                units = part["units"] if asked is None else min(part["units"], asked[line_id])
                if asked is not None:
                    asked[line_id] -= units
                part["units"] -= units
                if units:
                    self._move((event["location_id"], part["sku"]), units, event["event_time"])


class _Sums(defaultdict):
    """Key → units; `+` leaves out the zeros."""

    def __init__(self, found=()):
        super().__init__(int, found)

    @classmethod
    def of(cls, lines: list[dict], key: str) -> "_Sums":
        sums = cls()
        for line in lines:
            sums[line[key]] += line["quantity"]
        return sums

    def __pos__(self) -> dict:
        return {key: units for key, units in self.items() if units}
