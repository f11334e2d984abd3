"""The schema of a pool's state, once: a structured array per table, a row per thing, a field per column.

A row's fields lie side by side because an event touches one row's fields together (one cache line) and a table's rows
are what the changelog carries; `cells["on_hand"]` is still a numpy column.
`dirty` says that the batch in hand has changed the row; it is 0 between batches.
Row references are row numbers of the named table, -1 = none. Text references are (`_at`, `_size`) into the pool's heap.
`hash_low`, `hash_high`: the 128-bit hash of the key (state/hashing.py).
Persistent tables are in the changelog, row by row; links and indexes are derived from them (state/pool.py).
"""

import numpy as np

# One row: the pool's counters and its clock.
POOL = np.dtype(
    [
        ("now", "i8"),  # epoch ms: the largest record timestamp seen
        ("sequence", "i8"),  # last decision's number
        ("age", "i8"),  # orders ever placed: an order's place in the queue
        ("location_count", "i4"),
        ("sku_count", "i4"),
        ("cell_count", "i4"),
        ("order_count", "i4"),  # rows in use or free
        ("line_count", "i4"),
        ("refusal_count", "i4"),
        ("supply_count", "i4"),
        ("free_order", "i4"),  # heads of the free lists
        ("free_line", "i4"),
        ("free_refusal", "i4"),
        ("free_supply", "i4"),
        ("heap_size", "i8"),  # bytes in use or free
        ("movement_head", "i8"),  # oldest movement kept; positions count from the pool's first ever
        ("movement_tail", "i8"),  # one past the newest
        ("seen_head", "i8"),
        ("seen_tail", "i8"),
        ("waiting_lines", "i8"),
        ("held_orders", "i8"),
        ("open_lines", "i8"),  # lines of all orders not closed: what one event can decide on at most
        ("kept_lines", "i8"),  # lines of all orders kept
        ("kept_supplies", "i8"),
        ("free_text", "i8", (24,)),  # heads of the free blocks of 16 << k bytes
    ],
    align=True,
)

LOCATION = np.dtype(
    [
        ("hash_low", "u8"),
        ("hash_high", "u8"),
        ("x", "f8"),  # unit vector on the sphere
        ("y", "f8"),
        ("z", "f8"),
        ("latitude", "f8"),  # degrees
        ("longitude", "f8"),
        ("id_at", "i8"),
        ("id_size", "i4"),
        ("rank", "i4"),  # place among the pool's location ids in code-point order: the last tie-break
        ("priority", "i4"),
        ("daily_capacity", "i4"),  # shipments a day, -1 = no limit
        ("flags", "u1"),  # ENABLED | SHIPS | PICKS_UP
        ("kind", "u1"),
        ("source_partition", "i4"),  # the locations.v1 record in force
        ("source_offset", "i8"),
        ("dirty", "u1"),
    ],
    align=True,
)
ENABLED = 1
SHIPS = 2
PICKS_UP = 4

SKU = np.dtype(
    [("hash_low", "u8"), ("hash_high", "u8"), ("id_at", "i8"), ("id_size", "i4"), ("dirty", "u1")],
    align=True,
)
# Derived. A SKU's cells are `sku_cells[block_at : block_at + block_count]`, by their location's z, then by row.
SKU_CELL = np.dtype([("row", "i4"), ("location", "i4")])
SKU_LINK = np.dtype(
    [
        ("block_at", "i8"),
        ("block_count", "i4"),
        ("block_capacity", "i4"),
        ("waiting_head", "i4"),  # waiting lines, oldest order first
        ("waiting_tail", "i4"),
    ],
    align=True,
)

CELL = np.dtype(
    [
        ("sku", "i4"),
        ("location", "i4"),
        ("on_hand", "i4"),
        ("reserved", "i4"),
        ("safety_stock", "i4"),
        ("version", "i4"),
        ("updated_at", "i8"),  # epoch ms
        ("counted_at", "i8"),  # of the last count applied, -1 = never
        ("movement", "i8"),  # position of the newest movement, -1 = none
        ("forgotten", "i8"),  # latest event_time among the movements no longer kept, epoch ms, -1 = none
        ("dirty", "u1"),
    ],
    align=True,
)

ORDER = np.dtype(
    [
        ("hash_low", "u8"),
        ("hash_high", "u8"),
        ("age", "i8"),
        ("id_at", "i8"),  # heap block: the order id, then the line ids
        ("id_size", "i4"),
        ("text_size", "i4"),  # bytes of the whole block in use
        ("x", "f8"),  # destination, unit vector
        ("y", "f8"),
        ("z", "f8"),
        ("expires_at", "i8"),  # of a hold
        ("closed_at", "i8"),
        ("first_line", "i4"),
        ("line_count", "i4"),
        ("pickup_location", "i4"),  # -1: none or unknown
        ("refusal", "i4"),  # first of the refusals of its lines
        ("state", "u1"),  # FREE | OPEN | HELD | CLOSED | EXPIRED | GONE
        ("flags", "u1"),  # columns.ALLOW_SPLIT | ALLOW_PARTIAL | PICKUP | URGENT
        ("next", "i4"),  # of the free list
        ("dirty", "u1"),
    ],
    align=True,
)
FREE, OPEN, HELD, CLOSED, EXPIRED, GONE = range(6)

# A line, or a part of one after a location refused some of its units.
LINE = np.dtype(
    [
        ("order", "i4"),
        ("next", "i4"),  # next line of the order; of the free list
        ("sku", "i4"),
        ("quantity", "i4"),
        ("shipped", "i4"),
        ("returned", "i4"),
        ("collected", "i4"),  # of a transfer, at the pickup location
        ("location", "i4"),  # where it is reserved or was shipped from, -1 = nowhere
        ("root", "i4"),  # the line it is a part of; itself
        ("id_at", "i4"),  # within the order's text block
        ("id_size", "i4"),
        ("shipment_sequence", "i8"),
        ("shipment_number", "i4"),
        ("distance_m", "i4"),
        ("shipment_kind", "u1"),  # reasons.ShipmentKind
        ("state", "u1"),  # WAITING | RESERVED | SHIPPED | COLLECTED | DROPPED | ADDED; 0 = free
        ("reason", "u1"),  # reasons.Unallocated, while it waits
        ("dirty", "u1"),
    ],
    align=True,
)
WAITING, RESERVED, SHIPPED, COLLECTED, DROPPED, ADDED = range(1, 7)
# Derived: neighbours in the SKU's queue of waiting lines.
LINE_LINK = np.dtype([("waiting_next", "i4"), ("waiting_previous", "i4")], align=True)

# A location that rejected units of a line: the line is never promised to it again.
REFUSAL = np.dtype([("root", "i4"), ("location", "i4"), ("next", "i4"), ("dirty", "u1")], align=True)

# Stock that is not there yet: expected supply and units in transit between locations.
SUPPLY = np.dtype(
    [
        ("hash_low", "u8"),
        ("hash_high", "u8"),
        ("sku", "i4"),
        ("location", "i4"),  # where it will be, -1 = not known yet
        ("quantity", "i4"),
        ("kind", "u1"),  # EXPECTED_SUPPLY | IN_TRANSIT; 0 = free
        ("expected_at", "i8"),
        ("next", "i4"),
        ("dirty", "u1"),
    ],
    align=True,
)
EXPECTED_SUPPLY, IN_TRANSIT = 1, 2

# Rings, appended to: positions count from the pool's first ever.
MOVEMENT = np.dtype(
    [
        ("event_time", "i8"),
        ("applied_at", "i8"),
        ("previous", "i8"),  # the cell's movement before, -1 = none
        ("cell", "i4"),
        ("quantity", "i4"),  # signed change of on hand
    ],
    align=True,
)
SEEN = np.dtype([("hash_low", "u8"), ("hash_high", "u8"), ("time", "i8")], align=True)

# Derived: the holds by time (a binary heap) and the closed orders by time (a ring), both checked against the order's age.
TIMED = np.dtype([("time", "i8"), ("age", "i8"), ("order", "i4")], align=True)
