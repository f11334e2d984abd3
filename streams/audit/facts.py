"""What a fact does to an order's parts: units shipped, collected, rung up at a till, returned; each in numbered steps.

A fact is about demands: units of the same goods, and the parts of the order that they may be (in the chain's order). What the
event has promised comes first, then what was given back, then what others were to ship; what is beyond all is a fact, too.
Owner: the pool's ledger (ledger.py), which has checked that the fact may be applied. It shares no code with the engine.
"""

from typing import TYPE_CHECKING, NamedTuple

from streams.audit.memory import RefusedEvent
from streams.audit.orders import Order, Part
from streams.audit.products import Goods, Kits
from topics.events import Answered, FulfilmentLine, Returned
from topics.reasons import AlertKind, DeadLetter

if TYPE_CHECKING:
    from streams.audit.ledger import Pool


class Demand(NamedTuple):
    """Units that a fact is about, what each takes of stock, and whose they may be; no parts: goods that nobody knows."""

    goods: Goods
    units: int
    parts: list[Part]

    def moves(self, sign: int) -> list[tuple[str, int]]:
        """Say what it moves: SKUs, and signed units of each."""
        return moved(self.goods, sign * self.units)


def moved(goods: Goods, units: int) -> list[tuple[str, int]]:
    """Say what signed units move of goods: SKUs, and signed units of each."""
    return [(sku, units * each) for sku, each in goods]


# What a fact is about


def demands_of(order: Order | None, event: Answered | Returned, kits: Kits) -> list[Demand]:
    """Say what a fact is about.

    Raises
    ------
    RefusedEvent
        It does not say what, and nothing tells.
    """
    if event.lines is None:
        return _whole_shipment(order, event)
    return [demand for line in event.lines for demand in _named(order, event, line, kits)]


def _whole_shipment(order: Order | None, event: Answered | Returned) -> list[Demand]:
    if order is None:
        raise RefusedEvent(DeadLetter.UNKNOWN_ORDER)
    parts = [part for part in order.parts if is_of(part, event)]
    if not parts:
        raise RefusedEvent(DeadLetter.UNKNOWN_SHIPMENT)
    if isinstance(event, Returned):
        if not any(part.shipped for part in parts):
            raise RefusedEvent(DeadLetter.NOT_SHIPPED)
        units = {part: part.shipped - part.returned for part in parts}
    else:
        units = {part: _due(part, event.kind, arrives(order, event, part)) for part in parts}
        if not any(units.values()) and not any(part.shipped for part in parts):
            units = {part: part.released for part in parts}
    if not any(units.values()):
        raise RefusedEvent(DeadLetter.SHIPMENT_CLOSED)
    return [Demand(part.goods, units[part], [part]) for part in parts if units[part]]


def _due(part: Part, kind: str, arrival: bool) -> int:
    """Say how many units of a part of its shipment a fact of this kind confirms, hands over, or ships."""
    return _confirmable(part, kind) + (part.shipped - part.collected if arrival else 0) + part.open_units


def _confirmable(part: Part, kind: str) -> int:
    if part.kind == "transfer" and kind == "shipped":
        return part.implied
    return max(part.rung, 0) if part.kind == "pickup" or (part.kind, kind) == ("transfer", "collected") else 0


def _named(order: Order | None, event: Answered | Returned, line: FulfilmentLine, kits: Kits) -> list[Demand]:
    parts = order.parts if order else []
    if line.line_id is not None:
        parts = [part for part in parts if part.line_id == line.line_id]
        if not parts and line.sku is None:
            raise RefusedEvent(DeadLetter.UNKNOWN_LINE if order else DeadLetter.UNKNOWN_ORDER)
    if line.sku is not None:
        parts = [part for part in parts if part.sku == line.sku]
    if not parts:
        assert line.sku is not None, line
        return [Demand(kits.of(line.sku) or ((line.sku, 1),), line.quantity, [])]
    stocked = [part for part in parts if part.stocked]
    if not stocked:
        return []  # units of what is in no stock
    own = [part for part in stocked if is_of(part, event)]
    first = own[0] if own else stocked[-1]
    same = [part for part in stocked if (part.sku, part.goods) == (first.sku, first.goods)]
    return [Demand(first.goods, line.quantity, same)]


def is_of(part: Part, event: Answered | Returned) -> bool:
    """Tell whether a part is in the shipment that an event names."""
    return part.shipment is not None and part.shipment.id == event.shipment_id


def arrives(order: Order, event: Answered | Returned, part: Part) -> bool:
    """Tell whether units of a part, of which an event tells, were brought to the pickup location and handed over there."""
    return part.kind == "transfer" and event.kind == "collected" and event.location_id == order.pickup


def may_be_rung_up(part: Part) -> bool:
    """Tell whether a sale may be the collection of a part's units."""
    arrived = part.shipped - part.collected if part.kind == "transfer" else 0
    promised = part.open_units if part.kind in ("pickup", "transfer") else 0
    return part.rung < 0 or arrived + promised + part.released > 0


def rejected_units(order: Order, event: Answered) -> tuple[dict[Part, int], dict[Part, int]]:
    """Say what a rejection is about: open units of parts of its shipment, and units that were given back before.

    The latter count if it says something new of them: that they are missing, or that the location refuses their line.
    """
    parts = [part for part in order.parts if is_of(part, event)]
    room = {part: part.open_units for part in parts}
    spare = {
        part: max(part.released - part.missing, 0)
        if event.missing or (part.root, event.location_id) not in order.refusals
        else 0
        for part in parts
    }
    if event.lines is None:
        taken, given_back = dict(room), {} if any(room.values()) else dict(spare)
    else:
        taken, given_back = dict.fromkeys(parts, 0), dict.fromkeys(parts, 0)
    for line in event.lines or ():
        named = [part for part in parts if (part.sku == line.sku if line.line_id is None else part.line_id == line.line_id)]
        if not named:
            raise RefusedEvent(DeadLetter.UNKNOWN_LINE)
        left = line.quantity
        for of, there in ((taken, room), (given_back, spare)):
            for part in named:
                units = min(left, there[part] - of[part])
                of[part] += units
                left -= units
    if not any(taken.values()) and not any(given_back.values()):
        raise RefusedEvent(DeadLetter.SHIPMENT_CLOSED)
    promised, before = ({part: units for part, units in of.items() if units} for of in (taken, given_back))
    return promised, before


# What it does


class Fact:
    """One fact about a known order, at a location.

    Parameters
    ----------
    pool : Pool
    order : Order
    location_id : str
    event_time : int
        Epoch ms, of its movements.
    """

    def __init__(self, pool: "Pool", order: Order, location_id: str, event_time: int):
        self.pool = pool
        self.order = order
        self.location_id = location_id
        self.event_time = event_time
        self.took_from_others = False
        """Whether units were taken from parts that waited, or that another shipment was to bring."""

    # Shipped, collected

    def send(self, event: Answered, demand: Demand) -> None:
        """Take the units of `shipped` or `collected`."""
        left = demand.units
        arrival = {part: arrives(self.order, event, part) for part in demand.parts}
        own = [part for part in demand.parts if is_of(part, event)]
        others = [part for part in demand.parts if part not in own]
        for part in own:
            left -= self._confirm(part, event.kind, left)
        for part in own:
            left -= self._hand_over(part, left) if arrival[part] else self._send_promised(part, left)
        for part in own:
            left -= self._send_released(part, left, arrival[part])
        for part in others:
            if arrival[part]:
                left -= self._hand_over(part, min(left, part.shipped - part.collected))
            taken = self._send_promised(part, left, arrival[part])
            self.took_from_others |= taken > 0
            left -= taken
        for part in others:
            left -= self._send_unpromised(part, left)
        if left:
            self._send_beyond(own[0] if own else None, demand.goods, left, bool(own) and arrival[own[0]])

    def _confirm(self, part: Part, kind: str, left: int) -> int:
        """Step 0: what the till, or the collection, told before."""
        taken = min(left, _confirmable(part, kind))
        if part.kind == "transfer" and kind == "shipped":
            part.implied -= taken
        else:
            part.rung -= taken
        return taken

    def _send_promised(self, part: Part, left: int, arrival: bool = False, rung: int = -1) -> int:
        """Steps 1 and 3: what is promised. What arrived at the pickup location has left the place that was to bring it."""
        taken = min(left, part.open_units)
        if not taken:
            return 0
        assert part.shipment
        location_id = part.shipment.location_id if arrival else self.location_id
        part.shipped += taken
        self._note_handed_over(part, taken, arrival, rung)
        self.pool.unreserve(part, taken)
        self._leave(location_id, part.goods, taken)
        if part.shipment.location_id != location_id:
            self._tell(AlertKind.SHIPPED_FROM_ELSEWHERE, location_id, part.goods, taken)
        return taken

    def _hand_over(self, part: Part, left: int, rung: int = -1) -> int:
        """Step 1 of an arrival: of a transfer, what was shipped is handed over, then what must have been shipped."""
        assert part.shipment
        arrived = min(left, part.shipped - part.collected)
        implied = min(left - arrived, part.open_units)
        taken = arrived + implied
        part.collected += taken
        part.rung += rung * taken
        part.shipped += implied
        part.implied += implied
        if implied:
            self.pool.unreserve(part, implied)
            self._leave(part.shipment.location_id, part.goods, implied)
        return taken

    def _send_released(self, part: Part, left: int, arrival: bool, rung: int = -1) -> int:
        """Step 2: what was given back, and left all the same. The order wants so many less."""
        taken = min(left, part.released)
        if not taken:
            return 0
        assert part.shipment
        location_id = part.shipment.location_id if arrival else self.location_id
        found = min(taken, part.missing) if location_id == part.shipment.location_id else 0
        part.released -= taken
        part.missing = min(part.missing - found, part.released)
        part.quantity += taken
        part.shipped += taken
        self._note_handed_over(part, taken, arrival, rung)
        self._leave(location_id, part.goods, taken - found)
        self._tell(AlertKind.SHIPPED_AFTER_CLOSE, location_id, part.goods, taken)
        self.took_from_others |= self.pool.want_less(self.order, part, taken) > 0
        return taken

    def _note_handed_over(self, part: Part, units: int, arrival: bool, rung: int) -> None:
        if arrival:
            part.collected += units
            part.implied += units
        if arrival or part.kind == "pickup":
            part.rung += rung * units

    def _send_unpromised(self, part: Part, left: int) -> int:
        """Step 3: what waits for a promise; it needs none any more."""
        taken = min(left, part.quantity) if part.waiting else 0
        if not taken:
            return 0
        if taken < part.quantity:
            part.want_less(taken)
            self.pool.split(self.order, part, part.split_off(taken, shipped=taken))
        else:
            part.shipped, part.waiting = taken, False
        self._leave(self.location_id, part.goods, taken)
        self._tell(AlertKind.SHIPPED_UNPROMISED, self.location_id, part.goods, taken)
        self.took_from_others = True
        return taken

    def _send_beyond(self, part: Part | None, goods: Goods, units: int, arrival: bool) -> None:
        """Step 4: what nobody asked for."""
        if part:
            part.quantity += units
            part.shipped += units
            self._note_handed_over(part, units, arrival, rung=-1)
        self._leave(self.location_id, goods, units)
        self._tell(AlertKind.OVER_SHIPPED, self.location_id, goods, units)

    # Rung up at a till

    def ring_up(self, parts: list[Part], units: int) -> int:
        """Take the units of a sale that are the order's; returns how many are not."""
        left = units
        for part in parts:
            taken = min(left, max(-part.rung, 0))
            part.rung += taken
            left -= taken
        transfers = [part for part in parts if part.kind == "transfer"]
        others = [part for part in parts if part.kind != "transfer"]
        for part in parts:  # what is at the location comes before what is on its way
            if part.kind == "transfer":
                left -= self._hand_over(part, min(left, part.shipped - part.collected), rung=1)
            elif part.kind == "pickup":
                left -= self._send_promised(part, left, rung=1)
        for part in others:
            left -= self._send_released(part, left, arrival=False, rung=1)
        for part in transfers:
            left -= self._hand_over(part, left, rung=1)
        for part in transfers:
            left -= self._send_released(part, left, arrival=True, rung=1)
        return left

    # Returned

    def take_back(self, event: Returned, demand: Demand) -> None:
        """Take the units of `returned`."""
        left = demand.units
        for part in sorted(demand.parts, key=lambda part: not is_of(part, event)):
            taken = min(left, part.shipped - part.returned)
            part.returned += taken
            left -= taken
        if left:
            self._tell(AlertKind.OVER_RETURNED, self.location_id, demand.goods, left)
        self._leave(self.location_id, demand.goods, -demand.units)

    def _leave(self, location_id: str, goods: Goods, units: int) -> None:
        if units:
            for sku, signed in moved(goods, -units):
                self.pool.stock.move((location_id, sku), signed, self.event_time)

    def _tell(self, kind: AlertKind, location_id: str, goods: Goods, units: int) -> None:
        for sku, of_sku in moved(goods, units):
            self.pool.discrepancies.tell(kind, (location_id, sku), of_sku)
