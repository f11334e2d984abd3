"""Closed lists: every kind, status and reason that a topic, a metric or a kernel may name, with its wire name and code.

Owner: the public contract. A member's number is its code in the arrays and in the changelog: members are appended, never
renumbered or renamed. `wire` is the word that stands in JSON.
Not here: what the words do (streams/), which fields carry them (events.py).
"""

from enum import IntEnum


class Wire(IntEnum):
    """An integer code whose wire name is the member's name in lower case."""

    @property
    def wire(self) -> str:
        return self.name.lower()


class Kind(Wire):
    """What an input event is. `UNDECODED` marks a record that could not be read; its reason says why."""

    UNDECODED = 0
    # sales.v1
    SALE = 1
    RETURN = 2
    # stock.v1
    RECEIPT = 10
    ADJUSTMENT = 11
    COUNT = 12
    TRANSFER_OUT = 13
    TRANSFER_IN = 14
    EXPECTED = 15
    SAFETY_STOCK = 16
    QUARANTINE = 17
    RELEASE = 18
    # orders.v1
    PLACED = 30
    CANCELLED = 31
    HELD = 32
    # fulfilments.v1
    SHIPPED = 40
    COLLECTED = 41
    REJECTED = 42
    RETURNED = 43
    # ticks.v1: time passes in a quiet pool
    TICK = 50
    # locations.v1: the network changes
    LOCATION = 60
    # clicks.v1
    VIEW = 70
    SEARCH = 71
    CART = 72
    WISHLIST = 73
    CHECKOUT = 74


class Status(Wire):
    """What a decision says of its order."""

    ALLOCATED = 1
    PARTIAL = 2
    BACKORDERED = 3
    HELD = 4
    CANCELLED = 5
    EXPIRED = 6
    REJECTED = 7


class ShipmentKind(Wire):
    """How a shipment's units reach the customer; a `transfer` goes to the pickup location."""

    SHIP = 1
    PICKUP = 2
    TRANSFER = 3


class Unallocated(Wire):
    """Why a line holds no promise."""

    NO_STOCK = 1  # no eligible location has enough available for the line
    NO_SINGLE_LOCATION = 2  # allow_split=false, and no location has the whole order
    ALL_OR_NOTHING = 3  # allow_partial=false; this line could be met, another could not
    TOO_FAR = 4
    NOT_ELIGIBLE = 5  # stock is there, but only at locations that may not ship it or refused it
    UNKNOWN_LOCATION = 6  # the pickup location is not known in the pool
    NO_PICKUP = 7  # the pickup location does no pickup
    LOCATION_DISABLED = 8  # the pickup location is disabled for now


class Won(Wire):
    """Why the chosen location, or set of them, won."""

    NOTHING = 0  # nothing was chosen
    ONLY_CANDIDATE = 1
    NEAREST = 2
    PRIORITY = 3  # equal distance, lower priority number
    LOCATION_ID = 4  # equal distance and priority, smaller id
    FEWEST_SHIPMENTS = 5  # a set: no smaller one covers as many units; the nearest such set
    OWN_STOCK = 6  # a pickup served from its own location


class Lost(Wire):
    """Why a considered location did not get the order."""

    NO_STOCK = 1  # too little available for any line
    NOT_ELIGIBLE = 2  # disabled, cannot ship, or refused the line before
    FARTHER = 3
    FEWER_UNITS = 4  # could take part of the order only
    PRIORITY = 5
    LOCATION_ID = 6


class DeadLetter(Wire):
    """Why a record went to `dead-letter.v1`."""

    NOT_JSON = 1  # not a UTF-8 JSON object
    MISSING_FIELD = 2
    WRONG_FIELD = 3  # a field of the wrong type or form
    OUT_OF_RANGE = 4  # a number outside its bounds
    UNKNOWN_KIND = 5
    MISSING_KEY = 6  # no pool id as the record's key
    UNKNOWN_POOL = 7
    WRONG_PARTITION = 8  # the pool belongs to another partition
    UNKNOWN_LOCATION = 9
    WRONG_POOL = 10  # the location belongs to another pool
    ORDER_EXISTS = 11
    UNKNOWN_ORDER = 12
    ORDER_CLOSED = 13  # nothing of the order is left to cancel
    UNKNOWN_LINE = 14
    UNKNOWN_SHIPMENT = 15
    WRONG_LOCATION = 16  # the shipment belongs to another location
    SHIPMENT_CLOSED = 17  # nothing of the shipment is left to ship, collect or reject
    EXCEEDS_SHIPMENT = 18  # more units than the shipment holds
    NOT_SHIPPED = 19  # a transfer collected, or units returned, before they were shipped
    COUNT_TOO_OLD = 20  # older than the movements the cell remembers
    TOO_LARGE = 21
    # the pool keeps as many as it may
    TOO_MANY_SKUS = 22
    TOO_MANY_CELLS = 23
    TOO_MANY_LINES = 24
    TOO_MANY_SUPPLIES = 25


class Outcome(Wire):
    """What became of an input event; the label of the events metric."""

    APPLIED = 0
    DUPLICATE = 1
    STALE = 2  # a count older than the last one applied, or a movement that the last count has seen
    DEAD_LETTER = 3
    CLOCK = 4  # a tick
