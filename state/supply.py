"""What is to come: expected supply and transfers between locations; the only code that changes them.

A transfer's row counts what was sent and what arrived, whichever is known first. It is settled while both are equal. A settled
one is remembered until it would have been due, so that what arrives late is known as too much; beside `max_supplies` that are
not settled a pool remembers as many that are.
A row that is dropped keeps its place and its text until the next batch, since the outputs of the batch in hand name it.
Not here: what units do to a cell (stock.py), the records (topics/codec/encode.py).
"""

import numpy as np

from state.alerts import tell_supply
from state.columns import EXPECTED_SUPPLY, GONE_SUPPLY, IN_TRANSIT
from state.hashing import hash_text
from state.index import cell_home, find_hash, insert, remove
from state.tables import DUE_COUNT, MAX_SUPPLIES, SUPPLIES, TRANSFER_MS, mark, take_row
from state.text import free_text_block, name_row
from state.timed import pop_timed, push_timed
from topics.compiled.kernels import kernel
from topics.reasons import AlertKind, AlertStatus

EXCESS_BIT = 1 << AlertKind.TRANSFER_EXCESS.value
OVERDUE_BIT = 1 << AlertKind.TRANSFER_OVERDUE.value
_FEWEST_DUE = 64


@kernel
def has_supply(t, kind, text, at, size, sku):
    """Tell whether a supply, or a transfer that is not settled, is kept; its key is its reference with its kind and SKU."""
    if sku < 0:
        return False
    low, high = hash_text(text, at, size)
    row = find_hash(t.supply_index, t.supplies, low ^ cell_home(sku, kind), high)
    return row >= 0 and t.supplies[row].quantity != 0


@kernel
def _supply_row(t, kind, text, at, size, sku):
    """Find a supply's row or make it; one of layout 1 gets its text, and the sums that its units in transit allow."""
    low, high = hash_text(text, at, size)
    low ^= cell_home(sku, kind)
    row = find_hash(t.supply_index, t.supplies, low, high)
    if row < 0:
        pool = t.pool[0]
        row, pool.free_supply, pool.supply_count = take_row(t.supplies, pool.free_supply, pool.supply_count)
        supply = t.supplies[row]
        t.supply_links[row].event = 0
        supply.sku = sku
        supply.location = -1
        supply.origin = -1
        supply.quantity = 0
        supply.received = 0
        supply.sent_at = -1
        supply.expected_at = 0
        supply.alerts = 0
        supply.kind = kind
        name_row(t, supply, low, high, text, at, size, size)
        insert(t.supply_index, low, row)
        pool.kept_supplies += 1
        return row
    supply = t.supplies[row]
    if supply.id_size == 0:
        name_row(t, supply, low, high, text, at, size, size)
        if kind == IN_TRANSIT:
            supply.received = max(0, -supply.quantity)
    elif kind == IN_TRANSIT and supply.quantity == 0:
        t.pool[0].settled_supplies -= 1
        t.pool[0].kept_supplies += 1
    return row


@kernel
def _touch(t, row, event_row):
    supply = t.supplies[row]
    supply.updated_at = t.pool[0].now
    t.supply_links[row].event = event_row + 1
    mark(t.journal, t.counters, SUPPLIES, supply, row)


@kernel
def _drop(t, row):
    """Take a supply out; its row is free after the batch."""
    supply = t.supplies[row]
    remove(t.supply_index, t.supplies, row)
    supply.kind += GONE_SUPPLY - EXPECTED_SUPPLY
    supply.next = t.pool[0].gone_supply
    t.pool[0].gone_supply = row


@kernel
def expect_supply(t, text, at, size, sku, location, units, expected_at, event_row):
    """Set an expected supply to so many units; one of none is dropped."""
    row = _supply_row(t, EXPECTED_SUPPLY, text, at, size, sku)
    supply = t.supplies[row]
    supply.location = location
    supply.quantity = units
    supply.expected_at = expected_at
    _touch(t, row, event_row)
    if units == 0:
        t.pool[0].kept_supplies -= 1
        _drop(t, row)


@kernel
def change_transfer(t, text, at, size, sku, origin, location, units, event_time, event_row):
    """Note units of a transfer that left `origin` for `location` (> 0), or that arrived at `location` (< 0).

    Where a transfer leads is what its last departure said; until one is known, where its units arrived.
    """
    row = _supply_row(t, IN_TRANSIT, text, at, size, sku)
    supply = t.supplies[row]
    if units > 0:
        supply.origin = origin
        supply.location = location
        if supply.sent_at < 0 or event_time < supply.sent_at:
            supply.sent_at = event_time
            push_timed(t.due, t.counters, DUE_COUNT, event_time + t.limits[TRANSFER_MS], 0, row)
    else:
        if supply.location < 0 or supply.quantity + supply.received == 0:
            supply.location = location
        supply.received -= units
    supply.quantity += units
    due = _is_due(t, supply)
    _tell(t, row, AlertKind.TRANSFER_EXCESS.value, supply.quantity < 0, event_row)
    _tell(t, row, AlertKind.TRANSFER_OVERDUE.value, supply.quantity > 0 and due, event_row)
    _touch(t, row, event_row)
    if supply.quantity == 0:
        pool = t.pool[0]
        pool.kept_supplies -= 1
        if due or supply.sent_at < 0 or pool.settled_supplies >= t.limits[MAX_SUPPLIES]:
            _drop(t, row)
        else:
            pool.settled_supplies += 1


@kernel
def _is_due(t, supply):
    return supply.sent_at >= 0 and supply.sent_at + t.limits[TRANSFER_MS] <= t.pool[0].now


@kernel
def _tell(t, row, kind, stands, event_row):
    """Raise an alert of a transfer, anew if it stands already, or clear it."""
    supply = t.supplies[row]
    if stands:
        supply.alerts |= 1 << kind
        tell_supply(t, kind, AlertStatus.RAISED.value, event_row, row)
    elif supply.alerts >> kind & 1:
        supply.alerts &= ~(1 << kind)
        tell_supply(t, kind, AlertStatus.CLEARED.value, event_row, row)


@kernel
def _still_due(t, entry):
    """Whether an entry of the heap says when a transfer is due: one that left earlier than was known is in it twice."""
    supply = t.supplies[entry.order]
    return supply.kind == IN_TRANSIT and supply.sent_at >= 0 and supply.sent_at + t.limits[TRANSFER_MS] == entry.time


@kernel
def pass_due(t, event_row):
    """Raise the next transfer that is overdue by the pool's now, or forget it if it is settled; false = none is due."""
    while t.counters[DUE_COUNT] > 0 and t.due[0].time <= t.pool[0].now:
        row, due = t.due[0].order, _still_due(t, t.due[0])
        pop_timed(t.due, t.counters, DUE_COUNT)
        supply = t.supplies[row]
        if not due or supply.quantity < 0 or supply.alerts & OVERDUE_BIT:
            continue
        if supply.quantity > 0:
            _tell(t, row, AlertKind.TRANSFER_OVERDUE.value, True, event_row)
        _touch(t, row, event_row)
        if supply.quantity == 0:
            t.pool[0].settled_supplies -= 1
            _drop(t, row)
        return True
    return False


@kernel
def forget_supplies(t):
    """Free the rows that were dropped; between batches, since outputs of a batch in hand point to their text."""
    pool = t.pool[0]
    while pool.gone_supply >= 0:
        row = pool.gone_supply
        supply = t.supplies[row]
        pool.gone_supply = supply.next
        free_text_block(t.pool, t.heap, t.page_dirty, t.journal, t.counters, supply.id_at, supply.id_size)
        supply.kind = 0
        supply.next = pool.free_supply
        pool.free_supply = row
        mark(t.journal, t.counters, SUPPLIES, supply, row)
    if t.counters[DUE_COUNT] > 2 * (pool.kept_supplies + pool.settled_supplies) + _FEWEST_DUE:
        link_due(t)


@kernel
def link_due(t):
    """Enter the transfers that are to be looked at when their time has come."""
    t.counters[DUE_COUNT] = 0
    for row in range(t.pool[0].supply_count):
        supply = t.supplies[row]
        if supply.kind == IN_TRANSIT and supply.sent_at >= 0 and not supply.alerts & OVERDUE_BIT:
            push_timed(t.due, t.counters, DUE_COUNT, supply.sent_at + t.limits[TRANSFER_MS], 0, np.int32(row))
