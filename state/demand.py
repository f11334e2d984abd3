"""Clicks on SKUs in a sliding window, for one partition of `clicks.v1`: the tables, what changes them, deltas and folding.

A row per (pool, SKU) clicked on within the window. Time goes in steps: the clicks of a row in one step of time are a step
entry, and all entries stand in one queue, oldest first. When the clock leaves an entry behind, its clicks come off its row.
So a click costs the same whatever the window's length, and memory follows what was clicked on, not rows × steps.

Owner: the partition's pipeline (streams/demand), the only writer.
Invariants: a row's counts are the sums of its entries; a row without clicks is gone when its batch is; `version` is the
partition's count of changes at the row's last one, so it grows even if the row was gone in between.
Not here: whether a click counts (streams/demand/kernel.py), the dedupe window's rule (seen.py), Kafka.
"""

import numpy as np

from state import columns
from state.hashing import hash_text
from state.index import find_text, index_newest, index_rows, insert, remove
from state.pool import Delta
from state.rows import enlarged, entries, extended, moved, put, room_for, take
from state.tables import DEDUPE_EVENTS, DEDUPE_MS, JOURNAL_SIZE, PAGE_BYTES, PAGES, mark
from state.text import SMALLEST_BYTES, allocate_text, copy_text, free_text_block, touch_text
from topics.compiled.bundle import bundle
from topics.compiled.kernels import kernel
from topics.events import MAX_ID
from topics.reasons import Kind

# One row: the partition's counters and its clock. The fields that seen.py and text.py know have the names of columns.POOL.
CLOCK = np.dtype(
    [
        ("now", "i8"),  # epoch ms: the largest record timestamp seen
        ("changes", "i8"),  # of all rows, ever
        ("live_rows", "i8"),  # rows with clicks
        ("row_count", "i4"),  # rows in use or free
        ("step_count", "i4"),
        ("free_row", "i4"),  # heads of the free lists, -1 = none
        ("free_step", "i4"),
        ("first_step", "i4"),  # the queue of steps, oldest first, -1 = empty
        ("last_step", "i4"),
        ("heap_size", "i8"),  # bytes in use or free
        ("seen_head", "i8"),  # positions count from the partition's first click
        ("seen_tail", "i8"),
        ("free_text", "i8", (24,)),  # heads of the free blocks of 16 << k bytes
    ],
    align=True,
)

ROW = np.dtype(
    [
        ("hash_low", "u8"),  # of pool id, NUL, SKU: ids are printable, so NUL is in neither
        ("hash_high", "u8"),
        ("id_at", "i8"),  # heap
        ("id_size", "i4"),  # 0 = free
        ("pool_size", "i4"),
        ("views", "i8"),
        ("carts", "i8"),
        ("checkouts", "i8"),
        ("version", "i8"),
        ("updated_at", "i8"),  # epoch ms, the partition's now at the last change
        ("step", "i4"),  # newest step, -1 = none
        ("next", "i4"),  # of the free list
        ("dirty", "u1"),
    ],
    align=True,
)

# A row's clicks in one step of time.
STEP = np.dtype(
    [
        ("start", "i8"),  # epoch ms
        ("row", "i4"),
        ("next", "i4"),  # in the queue, or of the free list
        ("views", "i4"),
        ("carts", "i4"),
        ("checkouts", "i4"),
        ("dirty", "u1"),
    ],
    align=True,
)

Tables = bundle(
    "Tables",
    [
        "pool",  # CLOCK[1]
        "heap",  # uint8[]: the rows' keys
        "rows",
        "steps",
        "seen",  # ring
        # derived
        "row_index",
        "seen_index",
        # of the batch in hand
        "row_event",  # int32[]: per row of the journal, the event that changed it last
        "page_dirty",
        "journal",  # int64[]: table << 40 | row, a row once
        "counters",  # int64[1]: JOURNAL_SIZE
        "key",  # uint8[]: scratch
        "limits",  # int64[5]: DEDUPE_EVENTS, DEDUPE_MS, WINDOW_MS, STEP_MS, MAX_ROWS
    ],
)
ROWS, STEPS = range(2)
_ROW_TABLES = ("rows", "steps")
WINDOW_MS, STEP_MS, MAX_ROWS = 2, 3, 4
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
    if click.kind == Kind.VIEW:
        row.views += 1
        step.views += 1
    elif click.kind == Kind.CART:
        row.carts += 1
        step.carts += 1
    else:
        row.checkouts += 1
        step.checkouts += 1
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
    number = pool.free_row
    if number >= 0:
        pool.free_row = t.rows[number].next
    else:
        number = pool.row_count
        pool.row_count += 1
    row = t.rows[number]
    row.hash_low = low
    row.hash_high = high
    row.id_at = allocate_text(t.pool, t.heap, size)
    row.id_size = size
    row.pool_size = click.pool_size
    row.step = -1
    copy_text(t.heap, row.id_at, t.key, 0, size)
    touch_text(t.page_dirty, t.journal, t.counters, row.id_at, size)
    insert(t.row_index, low, number)
    return number


@kernel
def _new_step(t, row, start):
    """Put an empty step at the end of the queue."""
    pool = t.pool[0]
    number = pool.free_step
    if number >= 0:
        pool.free_step = t.steps[number].next
    else:
        number = pool.step_count
        pool.step_count += 1
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


class DemandState:
    """One partition's tables; `t` is what the kernels take, renewed whenever an array grows.

    Parameters
    ----------
    window_ms, step_ms : int
        Length of the window and of one step, ms. They may differ from those the folded deltas were made with.
    dedupe_events, dedupe_ms : int
        How long event ids are remembered, as in a pool (seen.py).
    max_rows : int
        Rows that may have clicks at a time.
    """

    def __init__(self, window_ms: int, step_ms: int, dedupe_events: int, dedupe_ms: int, max_rows: int = 5_000_000):
        clock = np.zeros(1, CLOCK)
        for name in ("free_row", "free_step", "first_step", "last_step", "free_text"):
            clock[name] = -1
        limits = np.zeros(5, np.int64)
        limits[[DEDUPE_EVENTS, DEDUPE_MS, WINDOW_MS, STEP_MS, MAX_ROWS]] = (
            dedupe_events, dedupe_ms, window_ms, step_ms, max_rows
        )  # fmt: skip
        self._arrays = {
            "pool": clock,
            "heap": np.zeros(0, np.uint8),
            "rows": np.zeros(0, ROW),
            "steps": np.zeros(0, STEP),
            "seen": np.zeros(0, columns.SEEN),
            "row_index": np.full(2, -1, np.int32),
            "seen_index": np.full(2, -1, np.int32),
            "row_event": np.zeros(0, np.int32),
            "page_dirty": np.zeros(0, np.uint8),
            "journal": np.zeros(0, np.int64),
            "counters": np.zeros(1, np.int64),
            "key": np.zeros(_KEY_BYTES, np.uint8),
            "limits": limits,
        }
        self._recorded = 0  # entries of the ring, by position, that a delta has taken
        self.make_room(1, 0)

    @property
    def clock(self) -> np.ndarray:
        """The partition's counters, CLOCK[1]."""
        return self._arrays["pool"]

    def rows(self, table: str) -> np.ndarray:
        """View the rows of `rows` or `steps`, in use or free."""
        return self._arrays[table][: self._count(table)]

    def _count(self, table: str) -> int:
        return int(self.clock[f"{table[:-1]}_count"][0])

    def seen(self) -> np.ndarray:
        """Copy the dedupe window, SEEN[], oldest first."""
        ring = self._arrays["seen"]
        return ring[np.arange(*self._span()) & (ring.size - 1)]

    def text(self, row: np.void) -> tuple[str, str]:
        """Read a row's pool id and SKU."""
        at, split, size = int(row["id_at"]), int(row["pool_size"]), int(row["id_size"])
        key = self._arrays["heap"][at : at + size].tobytes()
        return key[:split].decode(), key[split + 1 :].decode()

    def make_room(self, clicks: int, text_bytes: int) -> None:
        """Make room for so many clicks, whose pool ids and SKUs are so long together, all of them new."""
        a = self._arrays
        if self._grow("rows", self._count("rows") + clicks):
            self._index_rows()
            a["row_event"] = np.zeros(a["rows"].size, np.int32)
        self._grow("steps", self._count("steps") + clicks)
        self._grow_heap(2 * text_bytes + (SMALLEST_BYTES + 2) * clicks)
        head, tail = self._span()
        if tail - head + clicks > a["seen"].size:
            a["seen"] = moved(a["seen"], room_for(tail - head + clicks), head, tail)
            self._index_seen()
        journal = a["rows"].size + a["steps"].size + a["page_dirty"].size
        if a["journal"].size < journal:
            a["journal"] = np.zeros(journal, np.int64)
        self.t = Tables(**a)

    def _span(self) -> tuple[int, int]:
        return int(self.clock["seen_head"][0]), int(self.clock["seen_tail"][0])

    def _grow(self, name: str, needed: int) -> bool:
        old = self._arrays[name]
        if needed <= old.size:
            return False
        self._arrays[name] = enlarged(old, room_for(needed))
        return True

    def _grow_heap(self, more: int) -> None:
        self._grow("heap", int(self.clock["heap_size"][0]) + more)
        self._grow("page_dirty", self._arrays["heap"].size // PAGE_BYTES)

    def _index_rows(self) -> None:
        table = self._arrays["rows"]
        slots = enlarged(self._arrays["row_index"], 2 * table.size)
        index_rows(slots, table, np.flatnonzero(table["id_size"]))
        self._arrays["row_index"] = slots

    def _index_seen(self) -> None:
        ring = self._arrays["seen"]
        slots = enlarged(self._arrays["seen_index"], 2 * ring.size)
        index_newest(slots, ring, np.arange(*self._span()) & (ring.size - 1))
        self._arrays["seen_index"] = slots

    def changed_rows(self) -> np.ndarray:
        """Numbers (int64[]) of the rows that changed since the last `take_delta`, in the order of their first change."""
        journal = self._journal()
        return journal[journal >> 40 == ROWS] & _NUMBER

    def _journal(self) -> np.ndarray:
        return self._arrays["journal"][: self._arrays["counters"][JOURNAL_SIZE]]

    def take_delta(self) -> Delta:
        """Give what changed since the last call, and call it clean."""
        a = self._arrays
        tables, numbers = self._journal() >> 40, self._journal() & _NUMBER
        delta = Delta(take(self.clock, np.zeros(1, np.intp)))
        for code, name in enumerate(_ROW_TABLES):
            rows = numbers[tables == code]
            if rows.size:
                a[name]["dirty"][rows] = 0
                delta.rows[name] = (rows.astype(np.int32), take(a[name], rows))
        pages = numbers[tables == PAGES]
        if pages.size:
            a["page_dirty"][pages] = 0
            delta.pages = (pages * PAGE_BYTES, a["heap"].reshape(-1, PAGE_BYTES)[pages])
        tail = int(self.clock["seen_tail"][0])
        if tail > self._recorded:
            delta.appended["seen"] = (self._recorded, entries(a["seen"], self._recorded, tail))
            self._recorded = tail
        a["counters"][JOURNAL_SIZE] = 0
        return delta

    def fold(self, delta: Delta) -> None:
        """Apply a delta to the persistent tables; `seal()` follows the last."""
        a = self._arrays
        a["pool"][:] = delta.pool
        for name, (rows, values) in delta.rows.items():
            self._grow(name, self._count(name))
            put(a[name], rows, values)
        self._grow_heap(0)
        if delta.pages is not None:
            at, pages = delta.pages
            a["heap"].reshape(-1, PAGE_BYTES)[at // PAGE_BYTES] = pages
        for start, values in delta.appended.values():
            a["seen"] = extended(a["seen"], start, values, *self._span())

    def seal(self) -> None:
        """Build what is derived from the persistent tables."""
        a = self._arrays
        self._recorded = self._span()[1]
        a["row_event"] = np.zeros(a["rows"].size, np.int32)
        self._index_rows()
        self._index_seen()
        self.make_room(1, 0)
