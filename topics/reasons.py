"""Closed lists: every kind, status and reason that a topic, a metric or a kernel may name: code, wire name and sentence.

Owner: the public contract. A member's number is its code in the arrays and in the changelog: members are appended, never
renumbered or renamed. `wire` is the word that stands in JSON; `sentence` says what it means, for people.
Not here: what the words do (streams/), which fields carry them (events.py, outputs.py).
"""

from enum import IntEnum


class Wire(IntEnum):
    """An integer code with a wire name, the member's name in lower case, and a sentence.

    Examples
    --------
    >>> DeadLetter.TOO_LARGE.wire, int(DeadLetter.TOO_LARGE), DeadLetter.TOO_LARGE.sentence
    ('too_large', 21, "The record's value is larger than 4 MiB.")
    """

    sentence: str

    def __new__(cls, code: int, sentence: str = "") -> "Wire":
        member = int.__new__(cls, code)
        member._value_, member.sentence = code, sentence
        return member

    @property
    def wire(self) -> str:
        return self.name.lower()


class Kind(Wire):
    """What an input event is."""

    UNDECODED = 0, "The record could not be read; its reason says why."
    # sales.v1
    SALE = 1, "Units were sold at a till and leave on hand."
    RETURN = 2, "Units were brought back to a till and join on hand."
    # stock.v1
    RECEIPT = 10, "Units arrived."
    ADJUSTMENT = 11, "On hand is corrected by a signed number of units."
    COUNT = 12, "On hand was counted; the count replaces what was known."
    TRANSFER_OUT = 13, "Units left for another location."
    TRANSFER_IN = 14, "Units of a transfer arrived."
    EXPECTED = 15, "Units are to come from a supplier."
    SAFETY_STOCK = 16, "So many units of the cell are never promised to online orders."
    QUARANTINE = 17, "Units are taken off on hand for inspection."
    RELEASE = 18, "Units in quarantine join on hand again."
    # orders.v1
    PLACED = 30, "A customer ordered; an order that was held is confirmed."
    CANCELLED = 31, "The order, or some of its lines, is not wanted any more."
    HELD = 32, "A checkout holds units until a time."
    CHANGED = 33, "The order shall be another now."
    # fulfilments.v1
    SHIPPED = 40, "A location sent units of a shipment."
    COLLECTED = 41, "A customer picked units of a shipment up."
    REJECTED = 42, "A location can't provide units of a shipment."
    RETURNED = 43, "Shipped units came back to a location."
    # ticks.v1
    TICK = 50, "Time passes in a quiet pool."
    # locations.v1
    LOCATION = 60, "A location is new, changed or gone."
    # products.v1
    PRODUCT = 61, "A product is new, changed or gone."
    # clicks.v1
    VIEW = 70, "A visitor looked at a SKU."
    SEARCH = 71, "A visitor searched."
    CART = 72, "A visitor put a SKU into the cart."
    WISHLIST = 73, "A visitor put a SKU on the wish list."
    CHECKOUT = 74, "A visitor went to the checkout."


class Status(Wire):
    """What a decision says of its order."""

    ALLOCATED = 1, "Every unit is promised."
    PARTIAL = 2, "Some lines are promised, others wait."
    BACKORDERED = 3, "All lines wait."
    HELD = 4, "The order is a hold that has not been confirmed."
    CANCELLED = 5, "Nothing of the order is left after a cancellation."
    EXPIRED = 6, "The hold's time is over and its units are free again."
    REJECTED = 7, "The order can never be met: its pickup location is unknown or does no pickup."
    CLOSED_SHORT = 8, "Some units were shipped; the rest is cancelled."


class ShipmentKind(Wire):
    """How a shipment's units reach the customer."""

    SHIP = 1, "The location sends the units to the customer."
    PICKUP = 2, "The customer picks the units up at the location."
    TRANSFER = 3, "The location sends the units to the pickup location."


class Unallocated(Wire):
    """Why a line holds no promise."""

    NO_STOCK = 1, "No eligible location has enough available for the line."
    NO_SINGLE_LOCATION = 2, "The order allows no split, and no location has the whole of it."
    ALL_OR_NOTHING = 3, "The order allows no partial promise; this line could be met, another could not."
    TOO_FAR = 4, "Each location that has the stock and may ship it is farther away than its max_distance_km."
    NOT_ELIGIBLE = 5, "Stock is only at locations that may not ship the line or have refused it."
    UNKNOWN_LOCATION = 6, "The pickup location is not known in the pool."
    NO_PICKUP = 7, "The pickup location does no pickup."
    LOCATION_DISABLED = 8, "The pickup location is disabled for now."


class Won(Wire):
    """Why the chosen location, or set of locations, won."""

    NOTHING = 0, "Nothing was chosen."
    ONLY_CANDIDATE = 1, "No other location could take the order."
    NEAREST = 2, "No other location is as near."
    PRIORITY = 3, "Of equally near locations it has the lowest priority number."
    LOCATION_ID = 4, "Of locations of equal distance and priority it has the smallest id."
    FEWEST_SHIPMENTS = 5, "No smaller set covers as many units, and no other set of that size is as near."
    OWN_STOCK = 6, "The pickup location serves the order from its own stock."


class Lost(Wire):
    """Why a considered location did not get the order."""

    NO_STOCK = 1, "Too little is available for any line."
    NOT_ELIGIBLE = 2, "It is disabled, can't ship, or has refused the line before."
    FARTHER = 3, "The chosen location is nearer."
    FEWER_UNITS = 4, "It could take only a part of the order."
    PRIORITY = 5, "It is as near as the chosen location, and its priority number is higher."
    LOCATION_ID = 6, "Its distance and priority are those of the chosen location, and its id is larger."
    TOO_FAR = 7, "It is farther away than its max_distance_km."


class DeadLetter(Wire):
    """Why a record went to `dead-letter.v1`."""

    NOT_JSON = 1, "The value is not a UTF-8 JSON object."
    MISSING_FIELD = 2, "A required field is missing or null."
    WRONG_FIELD = 3, "A field has the wrong type or form."
    OUT_OF_RANGE = 4, "A number is outside its bounds."
    UNKNOWN_KIND = 5, "The topic has no event of this kind."
    MISSING_KEY = 6, "The record has no key, which should be the pool's id."
    UNKNOWN_POOL = 7, "No location names the pool."
    WRONG_PARTITION = 8, "The pool belongs to another partition."
    UNKNOWN_LOCATION = 9, "No record of locations.v1 names the location."
    WRONG_POOL = 10, "The location belongs to another pool."
    ORDER_EXISTS = 11, "The pool has an order of this id already."
    UNKNOWN_ORDER = 12, "The pool has no order of this id, or not any more."
    ORDER_CLOSED = 13, "Nothing of the order is left to cancel."
    UNKNOWN_LINE = 14, "The order or shipment has no line of this id."
    UNKNOWN_SHIPMENT = 15, "The order has no shipment of this id."
    WRONG_LOCATION = 16, "The shipment belongs to another location."
    SHIPMENT_CLOSED = 17, "Nothing of the shipment is left to ship, collect or reject."
    EXCEEDS_SHIPMENT = 18, "The shipment holds fewer units than named; said by versions up to 0.1.0."
    NOT_SHIPPED = 19, "Units of a transfer were collected, or units returned, before they were shipped."
    COUNT_TOO_OLD = 20, "The count is older than the movements the cell remembers."
    TOO_LARGE = 21, "The record's value is larger than 4 MiB."
    TOO_MANY_SKUS = 22, "The pool, or the window of clicks, keeps as many SKUs as it may."
    TOO_MANY_CELLS = 23, "The pool keeps as many cells as it may."
    TOO_MANY_LINES = 24, "The pool keeps as many order lines as it may, or the order is cut into as many parts as it may be."
    TOO_MANY_SUPPLIES = 25, "The pool keeps as many expected supplies and open transfers as it may."
    TIME_OUT_OF_RANGE = 26, "The event's time is before the year 2000, or ahead of the log."
    EVENT_ID_REUSED = 27, "The sender has used the event id before, for an event that says something else."
    EXCEEDS_SHIPPED = 28, "More units of a line were shipped than the changed order has."


class AlertKind(Wire):
    """What differs from the promise; the sentence is the remedy."""

    SHORTFALL = 1, "Count the cell: orders are promised more than is on hand. Orders that it can't cover are routed again."
    SHIPPED_AFTER_CLOSE = 2, "Ask the location why it sent what was given back, and count the cell."
    SHIPPED_FROM_ELSEWHERE = 3, "Tell both locations: the goods left another one than the promise named."
    OVER_SHIPPED = 4, "Ask the customer for the goods that were sent beyond the promise, and count the cell."
    SHIPPED_UNPROMISED = 5, "Ask the location why it sent goods that no shipment promises from there."
    SHIPPED_UNKNOWN = 6, "Find the order that these goods were sent for; nobody knows it or its line."
    OVER_RETURNED = 7, "Compare what came back with what was sent; more came back than was shipped."
    LATE_MOVEMENT = 8, "Count the cell: a movement came after a count that may or may not have seen it."
    TRANSFER_EXCESS = 9, "Ask the source what it sent: more arrived than `transfer_out` names, or that event is missing."
    TRANSFER_OVERDUE = (
        10,
        "Look for the goods on their way: publish what arrived as `transfer_in`, also if it came back.",
    )
    FIELD_LEFT_OUT = 11, "Mend the sender: a field that only describes its event is wrong, and was left out."

    @property
    def severity(self) -> str:
        """`critical` where a customer or goods may be lost, else `warning`."""
        critical = AlertKind.SHORTFALL, AlertKind.SHIPPED_AFTER_CLOSE, AlertKind.OVER_SHIPPED
        return "critical" if self in critical else "warning"


class AlertStatus(Wire):
    """Whether an alert stands."""

    RAISED = 1, "It stands."
    CLEARED = 2, "It is settled."


class TransferStatus(Wire):
    """How a transfer of a SKU stands."""

    OPEN = 1, "Units are under way."
    RECEIVED = 2, "All that was sent has arrived."
    EXCESS = 3, "More arrived than was sent; so it also is while news of the departure is still to come."
    OVERDUE = 4, "Units are under way for longer than a transfer may take."


class Outcome(Wire):
    """What became of an input event; the label of the events metric."""

    APPLIED = 0, "The event changed the state."
    DUPLICATE = 1, "The same event was applied before; nothing changed."
    STALE = 2, "A later count of the cell has been applied: this count or movement changes nothing."
    DEAD_LETTER = 3, "The event was refused and stands in dead-letter.v1 with its reason."
    CLOCK = 4, "A tick moved the pool's clock."
