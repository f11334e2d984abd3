"""Clicks on SKUs in a sliding window, for one partition of `clicks.v1`: the tables, what changes them, deltas and folding.

A row per (pool, SKU) clicked on within the window. Time goes in steps: the clicks of a row in one step of time are a step
entry, and all entries stand in one queue, oldest first. When the clock leaves an entry behind, its clicks come off its row.
So a click costs the same whatever the window's length, and memory follows what was clicked on, not rows × steps.

Owner: the partition's pipeline (streams/demand), the only writer.
Invariants: a row's counts are the sums of its entries; a row without clicks is gone when its batch is; `version` is the
partition's count of changes at the row's last one, so it grows even if the row was gone in between.
Not here: whether a click counts (streams/demand/kernel.py), the dedupe window's rule (seen.py), Kafka.
"""

from typing import Any, ClassVar

import numpy as np

from state import columns
from state.hashing import hash_text
from state.index import find_text, insert, remove
from state.schema import INTERNAL, NO_ROW, TEXT, Schema, Table, row_of
from state.seen import remembered
from state.tables import DEDUPE_EVENTS, DEDUPE_MS, JOURNAL_SIZE, mark, take_row
from state.tableset import TableSet
from state.text import SMALLEST_BYTES, copy_text, free_text_block, name_row
from topics.compiled.bundle import Bundle
from topics.compiled.kernels import kernel
from topics.events import MAX_ID
from topics.reasons import Kind

# One row: the partition's counters and its clock. The fields that seen.py and text.py know have the names of columns.POOL_ROW.
CLOCK = Table(
    "pool",
    ("now", "i8"),  # epoch ms: the largest record timestamp seen
    ("changes", "i8"),  # of all rows, ever
    ("live_rows", "i8"),  # rows with clicks
    ("row_count", "i4", INTERNAL),  # rows in use or free
    ("step_count", "i4", INTERNAL),
    ("free_row", "i4", NO_ROW),  # heads of the free lists, -1 = none
    ("free_step", "i4", NO_ROW),
    ("first_step", "i4", NO_ROW),  # the queue of steps, oldest first, -1 = empty
    ("last_step", "i4", NO_ROW),
    ("heap_size", "i8", INTERNAL),  # bytes in use or free
    ("seen_head", "i8", INTERNAL),  # positions count from the partition's first click
    ("seen_tail", "i8"),
    ("seen_keyed", "i8"),
    ("free_text", "(24,)i8", NO_ROW),  # heads of the free blocks of 16 << k bytes
)

ROW = Table(
    "rows",
    *columns.HASH,  # of pool id, NUL, SKU: ids are printable, so NUL is in neither
    ("id_at", "i8", TEXT),  # heap
    ("id_size", "i4"),  # 0 = free
    ("pool_size", "i4"),
    ("views", "i8"),
    ("carts", "i8"),
    ("checkouts", "i8"),
    ("version", "i8"),
    ("updated_at", "i8"),  # epoch ms, the partition's now at the last change
    ("step", "i4", row_of("steps")),  # newest step, -1 = none
    ("next", "i4", NO_ROW),  # of the free list
    ("dirty", "u1", INTERNAL),
)

# A row's clicks in one step of time.
STEP = Table(
    "steps",
    ("start", "i8"),  # epoch ms
    ("row", "i4", row_of("rows")),
    ("next", "i4", NO_ROW),  # in the queue, or of the free list
    ("views", "i4"),
    ("carts", "i4"),
    ("checkouts", "i4"),
    ("dirty", "u1", INTERNAL),
)

SCHEMA = Schema(CLOCK, (ROW, STEP), (columns.SEEN_IDS,))


class Tables(Bundle):
    """All arrays of a partition."""

    _fields = (
        *SCHEMA.tables,
        "heap",  # uint8[]: the rows' keys
        # derived
        *("row_index", "seen_index"),
        # of the batch in hand
        "row_event",  # int32[]: per row of the journal, the event that changed it last
        "page_dirty",
        "journal",  # int64[]: table << 40 | row, a row once
        "counters",  # int64[1]: JOURNAL_SIZE
        "key",  # uint8[]: scratch
        "limits",  # int64[6]: DEDUPE_EVENTS, DEDUPE_MS, WINDOW_MS, STEP_MS, MAX_ROWS, SKEW_MS
    )


ROWS, STEPS = range(2)
WINDOW_MS, STEP_MS, MAX_ROWS, SKEW_MS = 2, 3, 4, 5
_KEY_BYTES = 2 * 4 * MAX_ID + 1
_NUMBER = (1 << 40) - 1


@kernel
def advance(t, timestamp, event):
    """Move the clock to a record's timestamp, unless it is there already, and take off what the window leaves behind."""
    pool = t.pool[0]
    if timestamp <= pool.now:
        return
    pool.now = timestamp
    oldest = timestamp - timestamp % t.limits[STEP_MS] + t.limits[STEP_MS] - t.limits[WINDOW_MS]
    while pool.first_step >= 0 and t.steps[pool.first_step].start < oldest:
        _drop_first_step(t, event)


@kernel
def _drop_first_step(t, event):
    pool = t.pool[0]
    number = pool.first_step
    step = t.steps[number]
    row = t.rows[step.row]
    row.views -= step.views
    row.carts -= step.carts
    row.checkouts -= step.checkouts
    if row.step == number:
        row.step = -1
        pool.live_rows -= 1
    _changed(t, step.row, event)
    pool.first_step = step.next
    if step.next < 0:
        pool.last_step = -1
    step.row = -1
    step.next = pool.free_step
    pool.free_step = number
    mark(t.journal, t.counters, STEPS, step, number)


@kernel
def _changed(t, number, event):
    pool = t.pool[0]
    row = t.rows[number]
    pool.changes += 1
    row.version = pool.changes
    row.updated_at = pool.now
    t.row_event[number] = event
    mark(t.journal, t.counters, ROWS, row, number)


@kernel
def has_room(t, click, buffer):
    """Tell whether a click may be counted: its pool and SKU have clicks in the window already, or one more may."""
    if t.pool[0].live_rows < t.limits[MAX_ROWS]:
        return True
    number = _find_row(t, click, buffer)
    return number >= 0 and t.rows[number].step >= 0


@kernel
def count_click(t, click, buffer, event):
    """Add a view, cart or checkout to its row in the step of time that the clock is in."""
    pool = t.pool[0]
    number = _row_of(t, click, buffer)
    row = t.rows[number]
    start = pool.now - pool.now % t.limits[STEP_MS]
    if row.step < 0 or t.steps[row.step].start != start:
        pool.live_rows += row.step < 0
        row.step = _new_step(t, number, start)
    step = t.steps[row.step]
    row.views += click.kind == Kind.VIEW
    step.views += click.kind == Kind.VIEW
    row.carts += click.kind == Kind.CART
    step.carts += click.kind == Kind.CART
    row.checkouts += click.kind == Kind.CHECKOUT
    step.checkouts += click.kind == Kind.CHECKOUT
    mark(t.journal, t.counters, STEPS, step, row.step)
    _changed(t, number, event)


@kernel
def _find_row(t, click, buffer):
    """Find the row of a click's pool and SKU, -1 = none; their key is then in `t.key`."""
    size = click.pool_size + 1 + click.sku_size
    copy_text(t.key, 0, buffer, click.pool_at, click.pool_size)
    t.key[click.pool_size] = 0
    copy_text(t.key, click.pool_size + 1, buffer, click.sku_at, click.sku_size)
    low, high = hash_text(t.key, 0, size)
    return find_text(t.row_index, t.rows, low, high, t.heap, t.key, 0, size)


@kernel
def _row_of(t, click, buffer):
    """Find the row of a click's pool and SKU, or make it."""
    number = _find_row(t, click, buffer)
    if number >= 0:
        return number
    size = click.pool_size + 1 + click.sku_size
    low, high = hash_text(t.key, 0, size)
    pool = t.pool[0]
    number, pool.free_row, pool.row_count = take_row(t.rows, pool.free_row, pool.row_count)
    row = t.rows[number]
    name_row(t, row, low, high, t.key, 0, size, size)
    row.pool_size = click.pool_size
    row.step = -1
    insert(t.row_index, low, number)
    return number


@kernel
def _new_step(t, row, start):
    """Put an empty step at the end of the queue."""
    pool = t.pool[0]
    number, pool.free_step, pool.step_count = take_row(t.steps, pool.free_step, pool.step_count)
    step = t.steps[number]
    step.start = start
    step.row = row
    step.next = -1
    step.views = step.carts = step.checkouts = 0
    if pool.last_step < 0:
        pool.first_step = number
    else:
        last = t.steps[pool.last_step]
        last.next = number
        mark(t.journal, t.counters, STEPS, last, pool.last_step)
    pool.last_step = number
    return number


@kernel
def drop_empty_rows(t):
    """Free the rows that the batch left without clicks; after they were published."""
    pool = t.pool[0]
    for i in range(t.counters[JOURNAL_SIZE]):
        if t.journal[i] >> 40 != ROWS:
            continue
        number = t.journal[i] & _NUMBER
        row = t.rows[number]
        if row.step >= 0:
            continue
        remove(t.row_index, t.rows, number)
        free_text_block(t.pool, t.heap, t.page_dirty, t.journal, t.counters, row.id_at, row.id_size)
        row.id_size = 0
        row.next = pool.free_row
        pool.free_row = number


class DemandState(TableSet):
    """One partition's tables.

    Parameters
    ----------
    window_ms, step_ms : int
        Length of the window and of one step, ms. They may differ from those the folded deltas were made with.
    dedupe_events, dedupe_ms : int
        How long event ids are remembered, as in a pool (seen.py).
    max_rows : int
        Rows that may have clicks at a time.
    clock_skew_ms : int
        How far a click's own time may be ahead of the log, ms.
    """

    schema = SCHEMA
    indexes: ClassVar = {"rows": "row_index", "seen": "seen_index"}
    beside: ClassVar = {"rows": ("row_event", np.dtype(np.int32))}

    def __init__(
        self, window_ms: int, step_ms: int, dedupe_events: int, dedupe_ms: int, max_rows: int = 5_000_000,
        clock_skew_ms: int = 300_000,
    ):  # fmt: skip
        limits = np.zeros(6, np.int64)
        limits[[DEDUPE_EVENTS, DEDUPE_MS, WINDOW_MS, STEP_MS, MAX_ROWS, SKEW_MS]] = (
            dedupe_events, dedupe_ms, window_ms, step_ms, max_rows, clock_skew_ms
        )  # fmt: skip
        super().__init__(counters=np.zeros(1, np.int64), key=np.zeros(_KEY_BYTES, np.uint8), limits=limits)

    def bundled(self) -> Any:
        """Make the bundle of the arrays."""
        return Tables(**self._arrays)

    def indexed(self, name: str) -> np.ndarray:
        """Give the rows (int64[]) of a table that its index has: those in use."""
        return np.flatnonzero(self.rows(name)["id_size"])

    def make_room(self, clicks: int, text_bytes: int) -> None:
        """Make room for so many clicks, whose pool ids and SKUs are so long together, all of them new."""
        self.ensure(rows=clicks, steps=clicks, seen=clicks, heap=2 * text_bytes + (SMALLEST_BYTES + 2) * clicks)

    def key(self, row: np.void) -> tuple[str, str]:
        """Read a row's pool id and SKU."""
        split, key = int(row["pool_size"]), self.text(int(row["id_at"]), int(row["id_size"]))
        return key[:split].decode(), key[split + 1 :].decode()

    def changed_rows(self) -> np.ndarray:
        """Numbers (int64[]) of the rows that changed since the last `take_delta`, in the order of their first change."""
        return self.journal(ROWS)

    def counting(self) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], np.ndarray]]:
        """Say what counts for the digest: rows with clicks, steps in the queue, event ids in the window."""
        queue, following = [], self.table("steps")["next"].tolist()
        number = int(self.row["first_step"][0])
        while number >= 0:
            queue.append(number)
            number = following[number]
        rows = self.by_key("rows", np.flatnonzero(self.rows("rows")["step"] >= 0))
        return {"rows": rows, "steps": np.array(queue, np.int64), "seen": remembered(self.t)}, {}
