"""The retail sample as a stream of events: 50,062 dirty invoice lines become orders, till sales, returns, stock events.

    locations = the network's LocationRecords
    work = retail_events(locations)
    publish work.opening, then work.stream, both in order

Owner: the demo's and the tests' realistic input. Each record carries the outcome that is known in advance, so whoever
sends them can say what must come out: applied, duplicate, stale, or dead-lettered and why.
Invariants: the same arguments give the same bytes; each line of the sample is in exactly one row of the census.
What is made up, since the sample does not tell: towns, times (a day before `now_ms`, in the file's order), which invoices
were paid at a till, wishes such as pickup or no split, holds, cancellations, stock and its movements. Each is a draw by a
stable hash of its invoice, customer or cell.
Not here: fulfilments, whose shipment ids are known only when allocations are (bad.py has a few); clicks (clicks.py). Who
sends fulfilments besides must expect that a cancellation finds nothing left to cancel, and other outcomes with it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from benchmarks.record import APPLIED, Record
from benchmarks.retail.lines import HOME, Fate, Invoice, Line, draw, fates_of, read_invoices
from benchmarks.retail.places import Customer, Places
from benchmarks.retail.supply import Cell, Supply, Wish, home_warehouse, plan_supply
from topics.events import LocationRecord
from topics.reasons import Outcome

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DAY_MS = 86_400_000
HOLD_MARGIN_MS = 3_000  # an abandoned hold expires so much after it is sent

# Shares of the orders.
PICKUP_SHARE = 0.1
CLOSED_SHOP_SHARE = 0.05  # of the pickups: ordered to a shop that is no more
HELD_SHARE = 0.06
GROWN_SHARE = 0.25  # of the holds: more lines when it is paid than when it was held
ABANDONED_SHARE = 0.01  # a basket that is held and never paid, beside the order
CANCELLED_SHARE = 0.03
URGENT_SHARE = 0.1
# Shares of the orders of at most so many lines: who buys more takes what comes.
CHOOSY_LINES = 15
NO_SPLIT_SHARE = 0.08
ALL_OR_NOTHING_SHARE = 0.06

# One in so many.
RECORDS_A_REPEAT = 500  # is sent twice
CELLS_A_SAFETY_STOCK = 40  # outside warehouses has safety stock
CELLS_A_TRANSFER = 30  # in warehouses sends units to a regional warehouse
CELLS_A_QUARANTINE = 400  # has damaged units


@dataclass(frozen=True, slots=True)
class CensusRow:
    """What became of a part of the sample's lines."""

    fate: str
    """Wire name of the fate."""
    lines: int
    outcome: str
    """`applied`, or the reason of the dead letter each of the lines becomes."""
    why: str


@dataclass(frozen=True, slots=True)
class Workload:
    """Records in the order in which they are to be produced, and what is known of them in advance."""

    opening: list[Record]
    """Opening stock, safety stock and announced supply; to be produced before the stream."""
    stream: list[Record]
    census: list[CensusRow]
    """Accounts for every line that was read."""
    facts: dict[str, int]
    """Name → how many, of what the stream holds (`orders`, `pickups`, ...) and of the sample's dirt (`dirt_...`)."""
    lines: int
    """Lines read from the sample."""

    def expected(self) -> Counter[tuple[str, str]]:
        """(Topic, outcome) → records, opening included."""
        return Counter((record.topic, record.outcome) for part in (self.opening, self.stream) for record in part)


@dataclass(slots=True)
class _Stream:
    """Collects records by their place in the day; a place is a number of lines into the sample."""

    lines: int
    now_ms: int
    facts: Counter = field(default_factory=Counter)
    moved: dict[Cell, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    """Cell → (place, signed units) of what tills sell and take back."""
    _placed: list[tuple[float, Record]] = field(default_factory=list)

    def time(self, place: float) -> int:
        """Epoch ms of a place: the day before `now_ms`, evenly."""
        return self.now_ms - DAY_MS + int(min(max(place / self.lines, 0), 1) * DAY_MS)

    def add(self, place: float, topic: str, pool: str, event: dict, outcome: str = APPLIED) -> None:
        event["event_time"] = self.time(place)
        self._placed.append((place, Record(topic, pool.encode(), orjson.dumps(event), outcome)))

    def records(self) -> list[Record]:
        self._placed.sort(key=lambda placed: placed[0])
        return [record for _, record in self._placed]


def retail_events(
    locations: Sequence[LocationRecord],
    lines: int | None = None,
    seed: int = 1,
    now_ms: int = NOW_MS,
    duration_ms: int = 20_000,
) -> Workload:
    """Turn the retail sample into a reproducible stream of events for a network.

    Parameters
    ----------
    locations : sequence of LocationRecord
        The network; each pool needs a warehouse and a store that ships and hands over. A record's key is the pool of the
        customer's town.
    lines : int, optional
        Lines of the sample to use, from its first; all by default.
    seed : int
        Of everything that is made up.
    now_ms : int
        Log time, epoch ms, at which sending begins. Event times lie in the day before it. Counts and holds are judged
        by the log's clock, so whoever sends to a broker passes the present.
    duration_ms : int
        How long sending the stream will take; abandoned holds expire that they can be seen to.

    Returns
    -------
    Workload

    Raises
    ------
    ValueError
        A pool has too few locations.
    """
    places = Places(locations, seed)
    invoices = read_invoices(lines)
    count = sum(len(invoice.lines) for invoice in invoices)
    stream = _Stream(count, now_ms)
    fates: Counter[Fate] = Counter()
    wishes: dict[tuple[str, str], list[Wish]] = defaultdict(list)
    for invoice in invoices:
        customer = places.customer(invoice.customer or invoice.number)
        found = fates_of(invoice, seed)
        fates.update(found)
        ordered = [line for line, fate in zip(invoice.lines, found, strict=True) if fate is Fate.ORDER_LINE]
        if ordered:
            _add_order(stream, invoice, ordered, customer, duration_ms, seed)
        for line in ordered:
            wishes[customer.pool, line.sku].append(Wish(line.quantity, customer.shipper))
        for line, fate in zip(invoice.lines, found, strict=True):
            if fate is not Fate.ORDER_LINE:
                _add_line(stream, invoice, line, fate, customer, places, seed)
    tills = _till_demand(stream)
    supply = plan_supply(wishes, tills, places, seed)
    pools = {location.id: location.pool for location in locations}
    warehouses = {location.id for location in locations if location.kind == "warehouse"}
    opening = _opening(stream, supply, pools, warehouses, seed)
    _add_stock_events(stream, supply, pools, places, seed)
    _count_dirt(stream.facts, invoices)
    records = _with_repeats(stream, seed)
    census = [CensusRow(fate.name.lower(), fates[fate], fate.outcome, fate.why) for fate in Fate if fates[fate]]
    return Workload(opening, records, census, dict(stream.facts), count)


def _add_order(stream: _Stream, invoice: Invoice, lines: list[Line], customer: Customer, duration_ms: int, seed: int) -> None:
    """An invoice's goods as one order; some are held first, some cancelled, some leave a basket behind."""

    def chance(name: str, share: float) -> bool:
        return draw(seed, name, invoice.number) < share

    def add(place: float, kind: str, content: dict, order_id: str = invoice.number) -> None:
        event = {"event_id": f"{kind}-{order_id}", "event_time": 0, "kind": kind, "order_id": order_id}
        stream.add(place, "orders.v1", customer.pool, event | content)

    place: float = lines[-1].number
    closed = chance("pickup", PICKUP_SHARE) and chance("closed shop", CLOSED_SHOP_SHARE)
    order_lines = [
        {"line_id": str(line.position), "sku": line.sku, "quantity": line.quantity, "unit_price": line.price} for line in lines
    ]
    terms = _terms(stream.facts, invoice, len(lines), customer, closed, seed)
    facts = stream.facts
    facts["orders"] += 1
    facts["order_lines"] += len(lines)
    facts["ordered_units"] += sum(line.quantity for line in lines)
    if closed:
        facts["pickups_at_closed_shops"] += 1
        add(place, "placed", terms | {"lines": order_lines})  # rejected at once: nothing to hold or to cancel
        return
    if chance("abandoned", ABANDONED_SHARE):
        expires_at = stream.now_ms + int(place / stream.lines * duration_ms) + HOLD_MARGIN_MS
        basket = terms | {"lines": order_lines[:3], "expires_at": expires_at}
        add(place - 40, "held", basket, f"BASKET-{invoice.number}")
        facts["holds_abandoned"] += 1
    if chance("held", HELD_SHARE):
        grown = len(lines) > 1 and chance("grown", GROWN_SHARE)
        held = order_lines[: len(lines) // 2] if grown else order_lines
        add(place, "held", terms | {"lines": held, "expires_at": stream.now_ms + DAY_MS})
        facts["holds_confirmed"] += 1
        facts["holds_grown"] += grown
        place += 10 + 100 * draw(seed, "paid after", invoice.number)
    add(place, "placed", terms | {"lines": order_lines})
    if chance("cancelled", CANCELLED_SHARE):
        some = len(lines) >= 3 and chance("in part", 1 / 3)
        line_ids = {"line_ids": [line["line_id"] for line in order_lines[: len(lines) // 3]]} if some else {}
        add(place + 50 + 600 * draw(seed, "cancelled after", invoice.number), "cancelled", line_ids)
        facts["cancellations"] += 1
        facts["cancellations_in_part"] += some


def _terms(facts: Counter, invoice: Invoice, line_count: int, customer: Customer, closed_shop: bool, seed: int) -> dict:
    """Where an order goes, and under which conditions."""

    def chance(name: str, share: float) -> bool:
        return draw(seed, name, invoice.number) < share

    terms: dict = {}
    if chance("pickup", PICKUP_SHARE):
        facts["pickups"] += 1
        terms |= {"mode": "pickup", "pickup_location_id": "STORE-CLOSED" if closed_shop else customer.pickup}
    else:
        terms["destination"] = {"latitude": customer.latitude, "longitude": customer.longitude}
    choosy = line_count <= CHOOSY_LINES
    if chance("urgent", URGENT_SHARE):
        facts["urgent"] += 1
        terms["service_level"] = "urgent"
    if choosy and chance("no split", NO_SPLIT_SHARE):
        facts["no_split"] += 1
        terms["allow_split"] = False
    if choosy and chance("all or nothing", ALL_OR_NOTHING_SHARE):
        facts["all_or_nothing"] += 1
        terms["allow_partial"] = False
    if invoice.customer:
        terms["customer_id"] = invoice.customer
    return terms | {"channel": "web", "currency": "GBP"}


def _add_line(stream: _Stream, invoice: Invoice, line: Line, fate: Fate, customer: Customer, places: Places, seed: int) -> None:
    """The event of a line that is no order's, as a naive system upstream would send it."""
    event = {
        "event_id": f"line-{invoice.number}-{line.position}",
        "event_time": 0,
        "kind": "sale",
        "location_id": customer.store,
        "sku": line.sku,
        "quantity": abs(line.quantity),
    }
    if fate is Fate.ADJUSTMENT:
        event |= {"kind": "adjustment", "quantity": line.quantity, "reason": "booked at price 0"}
        event["location_id"] = home_warehouse(places, customer.pool, line.sku, seed)
        stream.add(line.number, "stock.v1", customer.pool, event)
        return
    event |= {"channel": "till", "receipt_id": invoice.number, "unit_price": line.price, "currency": "GBP"}
    if invoice.customer:
        event["customer_id"] = invoice.customer
    match fate:
        case Fate.TILL_SALE:
            stream.moved[customer.store, line.sku].append((line.number, -line.quantity))
        case Fate.RETURN:
            event["kind"] = "return"
            stream.moved[customer.store, line.sku].append((line.number, -line.quantity))
        case Fate.CARRIAGE:
            event["kind"] = "carriage"
        case Fate.MANUAL:
            event["sku"] = ""
        case Fate.DISCOUNT:
            event["quantity"] = line.quantity
        case Fate.FEE:
            del event["sku"]
        case Fate.SAMPLE:
            event["location_id"] = "SAMPLES"
        case Fate.VOUCHER:
            event["quantity"] = str(line.quantity)
    stream.add(line.number, "sales.v1", customer.pool, event, fate.outcome)


def _till_demand(stream: _Stream) -> dict[Cell, int]:
    """Cell → units that its till sells."""
    sold = {cell: -sum(units for _, units in moves if units < 0) for cell, moves in stream.moved.items()}
    return {cell: units for cell, units in sold.items() if units}


def _stock_event(number: str, kind: str, cell: Cell, quantity: int, **more: object) -> dict:
    event = {"event_id": f"{kind}-{number}", "event_time": 0, "kind": kind, "location_id": cell[0], "sku": cell[1]}
    return event | {"quantity": quantity} | more


def _opening(stream: _Stream, supply: Supply, pools: dict[str, str], warehouses: set[str], seed: int) -> list[Record]:
    """What the books say before the day: receipts in warehouses, counts elsewhere, safety stock, announced supply."""
    opening = _Stream(stream.lines, stream.now_ms)
    for number, (cell, units) in enumerate(supply.opening.items()):
        kind = "receipt" if cell[0] in warehouses else "count"
        opening.add(0, "stock.v1", pools[cell[0]], _stock_event(f"opening-{number}", kind, cell, units))
    kept = [cell for cell, units in supply.opening.items() if units >= 4 and cell[0] not in warehouses]
    for cell in _some(seed, "safety stock", kept, len(kept) // CELLS_A_SAFETY_STOCK):
        units = 1 + int(draw(seed, "safety units", cell) * 3)
        opening.add(0, "stock.v1", pools[cell[0]], _stock_event("-".join(cell), "safety_stock", cell, units))
        stream.facts["safety_stocks"] += 1
    for number, delivery in enumerate(supply.deliveries):
        cell = delivery.location_id, delivery.sku
        more = {"expected_at": stream.time(delivery.at * stream.lines), "supply_id": f"SUPPLY-{number}"}
        event = _stock_event(f"{number}", "expected", cell, delivery.quantity, **more)
        opening.add(0, "stock.v1", pools[cell[0]], event)
    stream.facts["opening_cells"] = len(supply.opening)
    stream.facts["opening_units"] = sum(supply.opening.values())
    return opening.records()


def _add_stock_events(stream: _Stream, supply: Supply, pools: dict[str, str], places: Places, seed: int) -> None:
    """Deliveries, transfers, quarantine and late counts during the day."""

    def add(place: float, event: dict, outcome: str = APPLIED) -> None:
        stream.add(place, "stock.v1", pools[event["location_id"]], event, outcome)

    _add_deliveries(stream, supply, add)
    _add_transfers(stream, supply, pools, places, seed, add)
    _add_quarantines(stream, supply, seed, add)
    _add_counts(stream, supply, seed, add)


def _add_deliveries(stream: _Stream, supply: Supply, add: Callable) -> None:
    for number, delivery in enumerate(supply.deliveries):
        cell, place = (delivery.location_id, delivery.sku), delivery.at * stream.lines
        more = {"expected_at": stream.time(place), "supply_id": f"SUPPLY-{number}"}
        add(place, _stock_event(f"{number}-arrived", "expected", cell, 0, **more))
        add(place, _stock_event(f"{number}", "receipt", cell, delivery.quantity, lot_id=f"LOT-{number}"))
        stream.facts["deliveries"] += 1
        stream.facts["delivered_units"] += delivery.quantity


def _add_transfers(stream: _Stream, supply: Supply, pools: dict[str, str], places: Places, seed: int, add: Callable) -> None:
    """A quarter of a warehouse's cell goes to a regional warehouse of the pool; one in twelve never arrives."""
    tiers = {cell: places.tiers[pools[cell[0]]] for cell, units in supply.opening.items() if units >= 40}
    ample = [cell for cell, tier in tiers.items() if cell[0] in tier.warehouses and tier.regional]
    for number, cell in enumerate(_some(seed, "transfer", ample, len(ample) // CELLS_A_TRANSFER)):
        regional = tiers[cell].regional
        target = regional[int(draw(seed, "target", cell) * len(regional))]
        place = draw(seed, "sent", cell) * 0.7 * stream.lines
        units, transfer = supply.opening[cell] // 4, f"TRANSFER-{number}"
        out = _stock_event(f"{number}", "transfer_out", cell, units, transfer_id=transfer, to_location_id=target)
        add(place, out)
        stream.facts["transfers"] += 1
        if number % 12 == 11:
            stream.facts["transfers_lost"] += 1
            continue
        arrived = _stock_event(f"{number}", "transfer_in", (target, cell[1]), units, transfer_id=transfer)
        add(place + 0.1 * stream.lines, arrived)


def _add_quarantines(stream: _Stream, supply: Supply, seed: int, add: Callable) -> None:
    """A few units are put aside; half of them turn out to be good."""
    ample = [cell for cell, units in supply.opening.items() if units >= 10]
    for number, cell in enumerate(_some(seed, "quarantine", ample, len(ample) // CELLS_A_QUARANTINE)):
        place = draw(seed, "put aside", cell) * 0.8 * stream.lines
        add(place, _stock_event(f"{number}", "quarantine", cell, 4))
        stream.facts["quarantines"] += 1
        if number % 2 == 0:
            add(place + 0.1 * stream.lines, _stock_event(f"{number}", "release", cell, 4))
            stream.facts["releases"] += 1


def _add_counts(stream: _Stream, supply: Supply, seed: int, add: Callable) -> None:
    """Stores whose till sold more than was booked count the shelf; every third sends an older count after that."""
    for number, cell in enumerate(supply.short_tills):
        moves = stream.moved[cell]
        place = moves[-1][0] + 60
        there = max(0, supply.opening[cell] + sum(units for _, units in moves)) + 2
        counted_at = stream.time(place - 20)
        add(place, _stock_event(f"{number}", "count", cell, there, counted_at=counted_at))
        stream.facts["counts"] += 1
        if number % 3 == 0:
            late = _stock_event(f"{number}-late", "count", cell, there + 1, counted_at=counted_at - 60_000)
            add(place + 100, late, Outcome.STALE.name.lower())
            stream.facts["stale_counts"] += 1


def _with_repeats(stream: _Stream, seed: int) -> list[Record]:
    """The records in order; a few come again later, byte for byte, as a sender that missed an answer sends them."""
    records = stream.records()
    good = [index for index, record in enumerate(records) if record.outcome == APPLIED]
    again = _some(seed, "again", good, len(records) // RECORDS_A_REPEAT + 1)
    stream.facts["repeats"] = len(again)
    placed = list(enumerate(records))
    for index in again:
        after = index + 0.5 + int(draw(seed, "again after", index) * 500)
        placed.append((after, records[index]._replace(outcome=Outcome.DUPLICATE.name.lower())))
    placed.sort(key=lambda item: item[0])
    return [record for _, record in placed]


def _count_dirt(facts: Counter, invoices: Iterable[Invoice]) -> None:
    """What is odd about the sample's lines; a line may count under several heads."""
    codes: dict[str, set[str]] = defaultdict(set)
    for invoice in invoices:
        seen = Counter((line.sku, line.quantity, line.price) for line in invoice.lines)
        facts["dirt_repeated_lines"] += sum(seen.values()) - len(seen)
        facts["dirt_lines_without_customer"] += 0 if invoice.customer else len(invoice.lines)
        facts["dirt_lines_from_abroad"] += len(invoice.lines) if invoice.country != HOME else 0
        for line in invoice.lines:
            facts["dirt_price_zero"] += line.price == 0
            facts["dirt_negative_quantity"] += line.quantity < 0
            codes[line.sku.upper()].add(line.sku)
    facts["dirt_codes_in_two_cases"] = sum(len(spellings) > 1 for spellings in codes.values())


def _some(seed: int, purpose: str, among: list, count: int) -> list:
    """`count` of the things, by draw, in their own order."""
    chosen = set(sorted(range(len(among)), key=lambda index: draw(seed, purpose, index))[:count])
    return [thing for index, thing in enumerate(among) if index in chosen]
