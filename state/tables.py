"""All arrays of one pool as one bundle, which the kernels take, and the marking of changed rows.

Persistent rows are changed only by the functions of stock.py, supply.py, orders.py, seen.py and text.py. Each marks what it
changes: the journal of marks becomes the batch's delta (pool.py).
"""

import numpy as np

from state.columns import SCHEMA
from topics.compiled.bundle import Bundle
from topics.compiled.kernels import forced_inline, kernel


class View(Bundle):
    """What routing reads of a pool: CELL, LOCATION, SKU_LINK and SKU_CELL rows (columns.py)."""

    _fields = ("cells", "locations", "sku_links", "sku_cells")


class Tables(Bundle):
    """All arrays of a pool. Their dtypes are those of state/columns.py; indexes are int32 (index.py)."""

    _fields = (
        *SCHEMA.tables,
        "heap",  # uint8[]: text
        # derived
        *("location_index", "sku_index", "cell_index", "order_index", "supply_index", "seen_index"),
        *("kit_index", "sku_links", "line_links"),
        "supply_links",  # SUPPLY_LINK[]
        "sku_cells",  # SKU_CELL[]: the SKUs' blocks of cells
        "holds",  # TIMED[], binary heap by (time, age)
        "closed",  # TIMED[], ring by time
        "due",  # TIMED[], binary heap by time: transfers
        # of the batch in hand
        "cell_links",  # CELL_LINK[]
        "page_dirty",  # uint8[]: of each page of the heap
        "journal",  # int64[]: table << 40 | row, a row once
        "freed",  # int32[]: cells whose available rose in the event in hand
        "watched",  # int32[]: cells of the event in hand that are short, or were
        "alerts",  # ALERT[] (topics/columns.py)
        "counters",  # int64[]: see below
        "limits",  # int64[]: see below
        "routing_view",  # View of the tables above
    )


# Tables whose rows the journal names.
LOCATIONS, SKUS, CELLS, ORDERS, LINES, REFUSALS, SUPPLIES, KITS, KIT_PARTS, PAGES = range(10)
ROW_TABLES = tuple(table.name for table in SCHEMA.rows)
RINGS = tuple(table.name for table in SCHEMA.rings)
PAGE_BYTES = 64

# counters
JOURNAL_SIZE, BLOCKS_TAIL, HOLD_COUNT, CLOSED_HEAD, CLOSED_TAIL, FREED_COUNT, LONGEST_ORDER = range(7)
WATCHED_COUNT, ALERT_COUNT = 7, 8
MOST_PROMISED = 9  # promises that any cell has had at once
DUE_COUNT = 10
MOST_PIECES = 11  # parts of the largest kit that a line has, or that is in force
# limits, from the settings
DEDUPE_EVENTS, DEDUPE_MS, HORIZON_MS, CLOSED_MS, MAX_SKUS, MAX_CELLS, MAX_LINES, MAX_SUPPLIES = range(8)
REROUTES, CLOCK_SKEW_MS, TRANSFER_MS = 8, 9, 10

MAX_UNITS = 1_000_000_000


@kernel
def mark(journal, counters, table, record, row):
    """Note once a batch that a row has changed."""
    if record.dirty == 0:
        record.dirty = 1
        journal[counters[JOURNAL_SIZE]] = (np.int64(table) << 40) | row
        counters[JOURNAL_SIZE] += 1


@forced_inline
def take_row(table, free, count):
    """Take the first free row of a table, or the one behind its last: (row, what is then `free`, what is then `count`)."""
    if free >= 0:
        return free, table[free].next, count
    table[count].dirty = 0
    return count, free, np.int32(count + 1)
