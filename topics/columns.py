"""The columns of a decoded batch of inventory events and of a batch of decisions: what the codec writes and reads.

A text column is a slice: `<name>_at` (byte offset) and `<name>_size` (bytes, 0 = absent). Offsets of an event's texts lead
into the batch's own buffer; offsets of a decision's texts lead into the pool's text heap (state/text.py).
Owner: the codec writes EVENT and LINE rows; the engine (streams/inventory) writes the decision rows; the encoder reads them.
Not here: the persistent tables (state/columns.py).
"""

import numpy as np


def _text(name: str) -> list[tuple[str, str]]:
    return [(f"{name}_at", "i4"), (f"{name}_size", "i4")]


# What an event needs, whatever its topic; unused fields are zero.
EVENT = np.dtype(
    [
        ("kind", "u1"),  # reasons.Kind
        ("reason", "u1"),  # reasons.DeadLetter; 0 = none
        ("outcome", "u1"),  # reasons.Outcome, written by the engine
        ("flags", "u1"),  # ALLOW_SPLIT | ...
        ("given", "u1"),  # what a changed order gives: GIVEN_MODE | ...
        ("topic", "u1"),  # index into the batch's list of topics
        ("quantity", "i4"),  # units; adjustments are signed
        ("offset", "i8"),
        ("timestamp", "i8"),  # the record's own, epoch ms
        ("content", "u8"),  # what the event says, hashed (codec/content.py)
        ("event_time", "i8"),  # epoch ms
        ("time", "i8"),  # counted_at | expected_at | expires_at, epoch ms; a count's default is filled in
        ("latitude", "f8"),  # destination, degrees
        ("longitude", "f8"),
        *_text("event_id"),
        *_text("location"),  # location_id, or pickup_location_id of an order
        *_text("sku"),
        *_text("reference"),  # order_id | transfer_id | supply_id
        *_text("shipment"),  # shipment_id | line_id of a sale
        *_text("target"),  # to_location_id of a transfer
        ("first_line", "i4"),
        ("line_count", "i4"),
    ],
    align=True,
)

# EVENT.flags
ALLOW_SPLIT = 1
ALLOW_PARTIAL = 2
PICKUP = 4  # mode
URGENT = 8  # service_level
HAS_LINES = 16  # lines / line_ids was given (an empty list counts as given)
MISSING = 32  # of a rejection: the units could not be found

# EVENT.given
GIVEN_MODE = 1
GIVEN_DESTINATION = 2
GIVEN_PICKUP = 4
GIVEN_LEVEL = 8
GIVEN_SPLIT = 16
GIVEN_PARTIAL = 32

# A line of an order event; `sku` is absent in a cancellation's, `quantity` too in its line_ids (0).
# A fulfilment's has a line id or a SKU, or both.
LINE = np.dtype(
    [
        *_text("line_id"),
        *_text("sku"),
        ("quantity", "i4"),
        ("flags", "u1"),  # UNSTOCKED
    ],
    align=True,
)
UNSTOCKED = 1

# One decision: a record of allocations.v1. Rows of its children are contiguous, in the tables below.
DECISION = np.dtype(
    [
        ("sequence", "i8"),
        ("decided_at", "i8"),  # epoch ms, the pool's now
        ("order_id_at", "i8"),  # heap
        ("order_id_size", "i4"),
        ("event", "i4"),  # row in the batch's events: the decision's source
        ("status", "u1"),  # reasons.Status
        ("won", "u1"),  # reasons.Won
        ("policy", "u1"),  # index into the policies the encoder is given
        ("considered", "i4"),  # locations with a cell of an ordered SKU
        ("first_shipment", "i4"),
        ("shipment_count", "i4"),
        ("first_unallocated", "i4"),  # row in decision lines
        ("unallocated_count", "i4"),
        ("first_loser", "i4"),
        ("loser_count", "i4"),
    ],
    align=True,
)

DECISION_SHIPMENT = np.dtype(
    [
        ("sequence", "i8"),  # of the decision that made the shipment; its id is {pool tag}-{sequence}-{number}
        ("number", "i4"),  # from 1 within that decision
        ("location", "i4"),  # row in the pool's locations
        ("distance_m", "i4"),  # metres, rounded
        ("kind", "u1"),  # reasons.ShipmentKind
        ("first_line", "i4"),  # row in decision lines
        ("line_count", "i4"),
    ],
    align=True,
)

DECISION_LINE = np.dtype(
    [
        ("line_id_at", "i8"),  # heap
        ("line_id_size", "i4"),
        ("sku", "i4"),  # row in the pool's SKUs
        ("kit", "i4"),  # row in the pool's lines: the first of its parts (columns.LINES), -1 = no kit
        ("quantity", "i4"),
        ("reason", "u1"),  # reasons.Unallocated; 0 in a shipment
    ],
    align=True,
)

LOSER = np.dtype([("location", "i4"), ("distance_m", "i4"), ("reason", "u1")], align=True)  # reasons.Lost

# One discrepancy: a record of alerts.v1.
ALERT = np.dtype(
    [
        ("kind", "u1"),  # reasons.AlertKind
        ("status", "u1"),  # reasons.AlertStatus
        ("event", "i4"),  # row in the batch's events
        ("location", "i4"),  # row in the pool's locations
        ("sku", "i4"),  # row in the pool's SKUs, -1 = none
        ("supply", "i4"),  # row in the pool's supplies: the transfer, -1 = none
        ("time", "i8"),  # epoch ms, the pool's now
        ("found", "i8"),  # units
        ("expected", "i8"),  # units
    ],
    align=True,
)

# What a click needs.
CLICK = np.dtype(
    [
        ("kind", "u1"),  # reasons.Kind
        ("reason", "u1"),  # reasons.DeadLetter; 0 = none
        ("topic", "u1"),  # index into the batch's list of topics
        ("offset", "i8"),
        ("timestamp", "i8"),  # the record's own, epoch ms
        ("content", "u8"),  # what the event says, hashed (codec/content.py)
        ("event_time", "i8"),  # epoch ms
        ("latitude", "f8"),  # degrees, NaN = absent
        ("longitude", "f8"),
        *_text("event_id"),
        *_text("visitor"),
        *_text("sku"),
        *_text("pool"),
        *_text("customer"),
        *_text("channel"),
        *_text("campaign"),
    ],
    align=True,
)
