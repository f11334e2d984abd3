"""Copying rows and growing tables: every byte arrives, in the same memory while there is room."""

import mmap

import numpy as np
import pytest

from state import columns, rows

LARGE = -(-rows.RESERVE_FROM // columns.CELL.itemsize)


def _table(count: int) -> np.ndarray:
    table = np.zeros(count, columns.CELL)
    table["sku"], table["movement"], table["dirty"] = np.arange(count), -np.arange(count), 1
    return table


def test_rows_are_taken_put_and_joined_whole():
    table = _table(10)
    wanted = np.array([7, 2])
    found = rows.take(table, wanted)
    assert found.dtype == table.dtype
    assert found.tolist() == table[wanted].tolist()
    target = np.zeros(10, columns.CELL)
    rows.put(target, wanted, found)
    assert target[wanted].tolist() == found.tolist()
    assert not target[[0, 1, 3, 4, 5, 6, 8, 9]]["dirty"].any()
    assert rows.join([table[:3], table[3:]]).tolist() == table.tolist()


def test_rows_of_another_layout_are_refused():
    with pytest.raises(ValueError, match="another version"):
        rows.put(np.zeros(2, columns.CELL), np.array([0]), np.zeros(1, columns.LINE))


def test_a_large_table_grows_in_place_and_the_rest_is_zero():
    first = rows.enlarged(_table(100), LARGE)
    second = rows.enlarged(first, 2 * LARGE)
    assert second.ctypes.data == first.ctypes.data
    assert second[:100].tolist() == _table(100).tolist()
    assert not second[100:].view(np.uint8).any()
    second["sku"][-1] = 5
    third = rows.enlarged(second, LARGE * rows.RESERVE * 2)  # beyond what was reserved
    assert third.ctypes.data != second.ctypes.data
    assert third["sku"][2 * LARGE - 1] == 5
    assert third[:100].tolist() == _table(100).tolist()
    assert first[:100].tolist() == _table(100).tolist()  # who has the old one can go on reading it


def test_a_small_table_takes_no_mapping():
    table = rows.enlarged(rows.enlarged(_table(100), 256), 512)
    assert table.base is None
    assert table[:100].tolist() == _table(100).tolist()
    assert not table[100:].view(np.uint8).any()


def test_a_large_table_may_lie_in_large_pages():
    size = -(-rows.HUGE_FROM // columns.CELL.itemsize)
    table = rows.enlarged(_table(1), size)
    assert isinstance(table.base, mmap.mmap)
    assert table.size == size
    table["sku"][-1] = 1  # writable to its end


def test_a_table_grows_by_copying_where_no_address_space_is_to_be_had(monkeypatch):
    monkeypatch.setattr(rows, "RESERVE", 1 << 27)
    first = rows.enlarged(_table(100), LARGE)
    assert len(first.base) == first.nbytes
    second = rows.enlarged(first, 2 * LARGE)
    assert second[:100].tolist() == _table(100).tolist()
    assert second.ctypes.data != first.ctypes.data


@pytest.mark.parametrize("head", [0, 3, 250, 1_000])
def test_a_ring_keeps_its_entries_by_position_as_it_grows(head):
    small, large, count = 256, 1_024, 200
    ring = rows.enlarged(np.zeros(0, columns.SEEN), small)
    tail = head + count
    entries = np.zeros(count, columns.SEEN)
    entries["time"] = np.arange(head, tail)
    ring = rows.extended(ring, head, entries, head, tail)
    assert ring.size == small
    more = np.zeros(400, columns.SEEN)
    more["time"] = np.arange(tail, tail + 400)
    ring = rows.extended(ring, tail, more, head, tail + 400)
    assert ring.size == large
    assert rows.entries(ring, head, tail + 400)["time"].tolist() == list(range(head, tail + 400))


def test_what_left_a_ring_is_not_entered():
    ring = rows.enlarged(np.zeros(0, columns.SEEN), 256)
    entries = np.zeros(10, columns.SEEN)
    entries["time"] = np.arange(10)
    ring = rows.extended(ring, 0, entries, 7, 10)
    assert ring["time"][:10].tolist() == [0] * 7 + [7, 8, 9]
    ring = rows.extended(ring, 10, entries, 40, 40)  # all of it gone already
    assert ring["time"][:10].tolist() == [0] * 7 + [7, 8, 9]
