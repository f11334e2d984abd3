"""An order becomes another: promises that still fit stay, what no longer fits is given back, what is new waits.

Owner: the pool's ledger (ledger.py). It shares no code with the state or the engine, on purpose.
"""

from typing import TYPE_CHECKING

from streams.audit.memory import RefusedEvent
from streams.audit.orders import MAX_ORDER_PARTS, Order, Part, asked_by, part_of, place_of
from topics.events import Changed, Held, Placed
from topics.reasons import DeadLetter

if TYPE_CHECKING:
    from streams.audit.ledger import Pool

TERMS = ("mode", "destination", "pickup_location_id", "service_level", "allow_split", "allow_partial")


def change(pool: "Pool", order: Order, event: Changed | Placed | Held) -> None:
    """Apply `changed`, or what works as it does: a hold's `placed` or `held` of other content.

    Raises
    ------
    RefusedEvent
        The order can't be so; nothing was changed.
    """
    if len(order.parts) >= MAX_ORDER_PARTS:
        raise RefusedEvent(DeadLetter.TOO_MANY_LINES)
    terms = {term: getattr(event, term) for term in TERMS if getattr(event, term) is not None}
    former, request = order.request, order.request.model_copy(update=terms)
    if request.mode == "pickup" and event.pickup_location_id:
        pool.place(event.pickup_location_id)
        if not pool.can_be_met(request):
            raise RefusedEvent(DeadLetter.UNKNOWN_LOCATION)
    lines = order.roots()
    kept = {root: sum(part.quantity for part in parts) for root, parts in lines.items()}
    asked = kept if event.lines is None else asked_by(event.lines)
    for root, parts in lines.items():
        if sum(part.shipped for part in parts) > asked.get(root, 0):
            raise RefusedEvent(DeadLetter.EXCEEDS_SHIPPED)
    pool.check_order_room(event.lines or [])
    fits = place_of(former)[0] == request.mode and (request.mode == "delivery" or place_of(former) == place_of(request))
    order.request = request
    for root, parts in lines.items():
        _change_line(pool, order, parts, asked.get(root, 0), fits)
    new = [part_of(line, pool.kits) for line in event.lines or () if (line.line_id, line.sku, line.stocked) not in lines]
    order.parts += new
    pool.note_lines(new)
    if fits and place_of(former) != place_of(request):
        for shipment in order.shipments.values():
            shipment.distance_km = None


def _change_line(pool: "Pool", order: Order, parts: list[Part], asked: int, fits: bool) -> None:
    """Let a line be as many units as are asked for."""
    last = parts[-1]
    if not last.stocked:
        last.quantity = asked
        return
    excess = sum(part.quantity for part in parts) - asked
    wanted = asked - sum(part.shipped for part in parts)
    anew = excess < 0 or (not fits and asked > 0)
    left = excess + wanted if anew else excess
    for part in parts:
        left -= part.want_less(left)
    for part in reversed(parts):
        left -= pool.give_back(part, left)
    if anew and wanted:
        pool.split(order, last, last.split_off(wanted))
