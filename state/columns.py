"""The schema of a pool's state, once: a table per kind of thing, a row per thing, a column per property (schema.py).

The columns of a row lie side by side, because an event touches one row's columns together (one cache line) and rows are what
the changelog carries. `cells["on_hand"]` is still a numpy column.
Columns that mean the same in every table: `dirty`: the batch in hand has changed the row (0 between batches); `hash_low` and
`hash_high`: the 128-bit hash of the key (hashing.py); `id_at` and `id_size`: the key's place in the heap; `next`: the next row
of a chain, or of the table's free rows.
Links and indexes are derived from the persistent tables (pool.py) and are in no changelog.
"""

import numpy as np

from state.schema import INTERNAL, NEVER, NO_ROW, TEXT, Role, Schema, Table, row_of

HASH = (("hash_low", "u8"), ("hash_high", "u8"))

# One row: the pool's counters and its clock.
POOL_ROW = Table(
    "pool",
    ("now", "i8"),  # epoch ms: the largest record timestamp seen
    ("sequence", "i8"),  # last decision's number
    ("age", "i8"),  # orders ever placed: an order's place in the queue
    ("location_count", "i4", INTERNAL),
    ("sku_count", "i4", INTERNAL),
    ("cell_count", "i4", INTERNAL),
    ("order_count", "i4", INTERNAL),  # rows in use or free
    ("line_count", "i4", INTERNAL),
    ("refusal_count", "i4", INTERNAL),
    ("supply_count", "i4", INTERNAL),
    ("kit_count", "i4", INTERNAL),
    ("kit_part_count", "i4", INTERNAL),
    ("free_order", "i4", NO_ROW),  # heads of the free lists
    ("free_line", "i4", NO_ROW),
    ("free_refusal", "i4", NO_ROW),
    ("free_supply", "i4", NO_ROW),
    ("gone_supply", "i4", NO_ROW),  # head of the chain of supplies that were dropped since the last batch
    ("free_kit", "i4", NO_ROW),
    ("free_kit_part", "i4", NO_ROW),
    ("heap_size", "i8", INTERNAL),  # bytes in use or free
    ("movement_head", "i8", INTERNAL),  # oldest movement kept; positions count from the pool's first ever
    ("movement_tail", "i8"),  # one past the newest
    ("seen_head", "i8", INTERNAL),
    ("seen_tail", "i8"),
    ("seen_keyed", "i8"),  # entries remembered by their sender too; those before them, by layout 1, by their event id alone
    ("waiting_lines", "i8"),
    ("held_orders", "i8"),
    ("open_lines", "i8"),  # lines of all orders not closed: what one event can decide on at most
    ("kept_lines", "i8", INTERNAL),  # lines of all orders kept
    ("kept_supplies", "i8"),  # supplies, and transfers that are not settled
    ("settled_supplies", "i8"),  # transfers that are settled, and remembered until they would be due
    ("free_text", "(24,)i8", NO_ROW),  # heads of the free blocks of 16 << k bytes
)

LOCATIONS = Table(
    "locations",
    *HASH,
    ("x", "f8"),  # unit vector on the sphere
    ("y", "f8"),
    ("z", "f8"),
    ("latitude", "f8"),  # degrees
    ("longitude", "f8"),
    ("limit_chord2", "f8"),  # squared straight line through the unit sphere to the farthest it serves, 0 = no limit
    ("id_at", "i8", TEXT),
    ("id_size", "i4"),
    ("rank", "i4"),  # place among the pool's location ids in code-point order: the last tie-break
    ("priority", "i4"),
    ("daily_capacity", "i4", NEVER),  # shipments a day, -1 = no limit
    ("flags", "u1"),  # ENABLED | SHIPS | PICKS_UP
    ("kind", "u1"),
    ("source_partition", "i4"),  # the locations.v1 record in force
    ("source_offset", "i8"),
    ("dirty", "u1", INTERNAL),
)
LOCATION = LOCATIONS.dtype
ENABLED = 1
SHIPS = 2
PICKS_UP = 4

SKUS = Table(
    "skus",
    *HASH,
    ("id_at", "i8", TEXT),
    ("id_size", "i4"),
    ("dirty", "u1", INTERNAL),
)
SKU = SKUS.dtype
# Derived. A SKU's cells are `sku_cells[block_at : block_at + block_count]`, by their location's z, then by row.
SKU_CELL = np.dtype([("row", "i4"), ("location", "i4")])
SKU_LINK = np.dtype(
    [
        ("block_at", "i8"),
        ("block_count", "i4"),
        ("block_capacity", "i4"),
        ("waiting_head", "i4"),  # waiting lines and pieces, oldest order first
        ("waiting_tail", "i4"),
    ],
    align=True,
)

CELLS = Table(
    "cells",
    ("sku", "i4", row_of("skus")),
    ("location", "i4", row_of("locations")),
    ("on_hand", "i4"),
    ("reserved", "i4"),
    ("safety_stock", "i4"),
    ("version", "i4"),
    ("updated_at", "i8"),  # epoch ms
    ("counted_at", "i8", NEVER),  # of the last count applied, -1 = never
    ("movement", "i8", NO_ROW),  # position of the newest movement, -1 = none
    ("forgotten", "i8", NEVER),  # latest event_time among the movements no longer kept, epoch ms, -1 = none
    ("alerts", "u4"),  # bit 1 << reasons.AlertKind: one of this kind stands
    ("dirty", "u1", INTERNAL),
)
CELL = CELLS.dtype
# Derived: what the batch in hand does to a cell, and its promises.
CELL_LINK = np.dtype(
    [
        ("event", "i4"),  # 1 + the event (row of the batch) that changed it last; 0 = none yet
        ("promised_head", "i4"),  # 1 + its newest promised line or piece; 0 = none
        ("promised_count", "i4"),
        ("watched", "u1"),  # in `watched`: this event may have raised or settled a shortfall
    ],
    align=True,
)

ORDERS = Table(
    "orders",
    *HASH,
    ("age", "i8"),
    ("id_at", "i8", TEXT),  # heap block: the order id, then the line ids
    ("id_size", "i4"),
    ("text_size", "i4"),  # bytes of the whole block in use
    ("x", "f8"),  # destination, unit vector
    ("y", "f8"),
    ("z", "f8"),
    ("expires_at", "i8"),  # of a hold
    ("closed_at", "i8"),
    ("first_line", "i4", NO_ROW),
    ("line_count", "i4"),
    ("pickup_location", "i4", row_of("locations")),  # -1: none or unknown
    ("refusal", "i4", NO_ROW),  # first of the refusals of its lines
    ("state", "u1"),  # FREE | OPEN | HELD | CLOSED | EXPIRED | GONE
    ("flags", "u1"),  # columns.ALLOW_SPLIT | ALLOW_PARTIAL | PICKUP | URGENT
    ("next", "i4", NO_ROW),  # of the free list
    ("dirty", "u1", INTERNAL),
)
ORDER = ORDERS.dtype
FREE, OPEN, HELD, CLOSED, EXPIRED, GONE = range(6)

# A line, or a part of one after a location refused some of its units. Of a kit it counts kits, and has a piece per part of the
# kit: a row of its own chain, in state KIT_PART, whose `order`, `sku`, `quantity` (units in one kit), `root` (its line) and
# `next` are set.
LINES = Table(
    "lines",
    ("order", "i4", row_of("orders")),
    ("next", "i4", NO_ROW),  # next line of the order, next piece of the line; of the free list
    ("kit", "i4", NO_ROW),  # the first of its pieces, -1 = a plain line
    ("sku", "i4", row_of("skus")),
    ("quantity", "i4"),
    ("shipped", "i4"),
    ("returned", "i4"),
    ("collected", "i4"),  # of a transfer, at the pickup location
    ("location", "i4", row_of("locations")),  # where it is reserved or was shipped from, -1 = nowhere
    ("root", "i4", row_of("lines")),  # the line it is a part of; itself
    ("id_at", "i4", Role(size="id_size", within="order")),  # within the order's text block
    ("id_size", "i4"),
    ("shipment_sequence", "i8"),
    ("shipment_number", "i4"),
    ("distance_m", "i4"),
    ("released", "i4"),  # units of the shipment that were given back: they may still leave the location
    ("missing", "i4"),  # of those, units that left on hand because they could not be found
    ("rung", "i4"),  # > 0: a till reported them, `collected` has yet to; < 0: the other way round
    ("implied", "i4"),  # of a transfer: taken as shipped since they were collected; `shipped` has yet to say so
    ("shipment_kind", "u1"),  # reasons.ShipmentKind
    ("state", "u1"),  # WAITING | RESERVED | SHIPPED | COLLECTED | DROPPED | ADDED | CARRIED | KIT_PART; 0 = free
    ("reason", "u1"),  # reasons.Unallocated, while it waits
    ("dirty", "u1", INTERNAL),
)
LINE = LINES.dtype
WAITING, RESERVED, SHIPPED, COLLECTED, DROPPED, ADDED, CARRIED, KIT_PART = range(1, 9)  # COLLECTED: in old logs only
# Derived: neighbours in the SKU's queue of waiting lines, and in the cell's list of promises, newest first (1 + row, 0 = none).
# A kit's line is in them by its pieces.
LINE_LINK = np.dtype(
    [("waiting_next", "i4"), ("waiting_previous", "i4"), ("promised_next", "i4"), ("promised_previous", "i4")], align=True
)

# A location that rejected units of a line: the line is never promised to it again.
REFUSALS = Table(
    "refusals",
    ("root", "i4", row_of("lines")),
    ("location", "i4", row_of("locations")),
    ("next", "i4", NO_ROW),
    ("dirty", "u1", INTERNAL),
)

# Stock that is not there yet: expected supply, and transfers between locations.
SUPPLIES = Table(
    "supplies",
    *HASH,  # of the reference, with the kind and the SKU
    ("id_at", "i8", TEXT),  # the reference: supply_id or transfer_id
    ("id_size", "i4"),  # 0 = not known: layout 1 kept its hash alone
    ("sku", "i4", row_of("skus")),
    ("location", "i4", row_of("locations")),  # where it will be, -1 = not known
    ("origin", "i4", row_of("locations")),  # of a transfer: where it left, -1 = not known
    ("quantity", "i8"),  # to come; of a transfer: sent less received, so that below 0 more arrived
    ("received", "i8"),  # of a transfer
    ("sent_at", "i8", NEVER),  # of a transfer: the earliest event_time of its departures, epoch ms
    ("expected_at", "i8"),  # of a supply, epoch ms
    ("updated_at", "i8"),  # epoch ms
    ("alerts", "u4"),  # of a transfer: bit 1 << reasons.AlertKind: one of this kind stands
    ("kind", "u1"),  # EXPECTED_SUPPLY | IN_TRANSIT; GONE_SUPPLY | GONE_TRANSIT = dropped since the last batch; 0 = free
    ("next", "i4", NO_ROW),
    ("dirty", "u1", INTERNAL),
)
EXPECTED_SUPPLY, IN_TRANSIT, GONE_SUPPLY, GONE_TRANSIT = range(1, 5)
# Derived: what the batch in hand does to a supply.
SUPPLY_LINK = np.dtype([("event", "i4")], align=True)  # 1 + the event (row of the batch) that changed it last; 0 = none yet

# A SKU that is promised as others, by products.v1. SKUs by their text: no event need have named them.
KITS = Table(
    "kits",
    *HASH,
    ("id_at", "i8", TEXT),
    ("id_size", "i4"),
    ("part_count", "i4"),  # 0 = free
    ("first_part", "i4", NO_ROW),
    ("next", "i4", NO_ROW),
    ("dirty", "u1", INTERNAL),
)
KIT_PARTS = Table(
    "kit_parts",
    *HASH,
    ("id_at", "i8", TEXT),
    ("id_size", "i4"),
    ("kit", "i4", row_of("kits")),
    ("quantity", "i4"),  # units of one kit
    ("next", "i4", NO_ROW),
    ("dirty", "u1", INTERNAL),
)

# Rings, appended to: positions count from the pool's first ever.
MOVEMENTS = Table(
    "movements",
    ("event_time", "i8"),
    ("applied_at", "i8"),
    ("previous", "i8", NO_ROW),  # the cell's movement before, -1 = none
    ("cell", "i4", row_of("cells")),
    ("quantity", "i4"),  # signed change of on hand,
)
MOVEMENT = MOVEMENTS.dtype
SEEN_IDS = Table(
    "seen",
    *HASH,  # of topic, sender and event id
    ("content", "u8"),  # what the event said
    ("time", "i8"),
)
SEEN = SEEN_IDS.dtype

# Derived: the holds by time (a binary heap) and the closed orders by time (a ring), both checked against the order's age; the
# transfers by the time they are due (a binary heap), checked against that time: `order` is the supply's row then, `age` 0.
TIMED = np.dtype([("time", "i8"), ("age", "i8"), ("order", "i4")], align=True)

SCHEMA = Schema(POOL_ROW, (LOCATIONS, SKUS, CELLS, ORDERS, LINES, REFUSALS, SUPPLIES, KITS, KIT_PARTS), (MOVEMENTS, SEEN_IDS))
