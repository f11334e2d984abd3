"""Copying rows of tables and rings, whole.

numpy copies a structured array with gaps between its fields field by field, ten to twenty times as slowly as its bytes; so
rows are copied here as items without fields.
"""

import mmap
import sys
from typing import Any

import numpy as np

RESERVE = 16
RESERVE_FROM = 1 << 20
"""Bytes from which a table grows in place."""
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0  # MAP_NORESERVE; Python 3.11 has no name for it
HUGE_FROM = 4 << 20
"""Bytes from which a table is in large pages: its rows are visited at random, and small pages would miss the TLB."""


def raw(rows: np.ndarray) -> np.ndarray:
    """View rows as items of so many bytes; arrays without fields are given back as they are."""
    return rows if rows.dtype.names is None else rows.view(f"V{rows.dtype.itemsize}")


def take(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copy rows by their numbers (integers[n])."""
    return raw(table)[rows].view(table.dtype)


def put(table: np.ndarray, rows: np.ndarray | slice, values: np.ndarray) -> None:
    """Replace rows by values of the same layout.

    Raises
    ------
    ValueError
        The values' layout is another.
    """
    if values.dtype != table.dtype:
        raise ValueError(f"expected rows of {table.dtype}, found {values.dtype}: another version wrote them")
    raw(table)[rows] = raw(values)


def join(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate rows of one layout; at least one part."""
    return np.concatenate([raw(part) for part in parts]).view(parts[0].dtype)


def enlarged(table: np.ndarray, size: int) -> np.ndarray:
    """Give a table more rows, of zeros.

    A large one grows where it is: when it is copied, `RESERVE` times the address space it needs is reserved, and the kernel
    finds memory for what is written to. So a pool grows without a pause, the old array stays valid, and memory is used as rows
    are, not by the doubling. A small one is copied each time: a process may have some 65,000 mappings.
    """
    room: Any = table.base
    taken = size * table.dtype.itemsize
    if isinstance(room, mmap.mmap) and taken <= len(room):
        new = np.ndarray(size, table.dtype, room)
    else:
        room = _reserved(taken) if taken >= RESERVE_FROM else None
        new = np.zeros(size, table.dtype) if room is None else np.ndarray(size, table.dtype, room)
        put(new, slice(table.size), table)
    if room is not None and taken >= HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        room.madvise(mmap.MADV_HUGEPAGE, 0, taken)
    return new


def _reserved(taken: int) -> mmap.mmap:
    """Reserve address space, of which `taken` bytes are to be used at once."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory, mmap's default, has no large pages
    try:
        return mmap.mmap(-1, RESERVE * taken, flags=private | _NO_RESERVE)
    except OSError:  # a machine that counts address space as memory (vm.overcommit_memory=2)
        return mmap.mmap(-1, taken, flags=private)


def entries(ring: np.ndarray, head: int, tail: int) -> np.ndarray:
    """Copy a ring's entries from position `head` up to `tail`, oldest first."""
    return take(ring, np.arange(head, tail) & (ring.size - 1))


def room_for(count: int) -> int:
    """Give the size of a table or ring with room for so many."""
    return max(256, 1 << (count - 1).bit_length())


def moved(ring: np.ndarray, size: int, head: int, tail: int) -> np.ndarray:
    """Enlarge a ring; of the positions from `head` to `tail`, those stay that it still has."""
    kept = np.arange(max(head, tail - ring.size), tail)
    values = take(ring, kept & (ring.size - 1))
    new = enlarged(ring, size)
    put(new, kept & (size - 1), values)
    return new


def extended(ring: np.ndarray, start: int, values: np.ndarray, head: int, tail: int) -> np.ndarray:
    """Enter values from position `start` on, less those before `head`; in a larger ring if `head` to `tail` need one."""
    if tail - head > ring.size:
        ring = moved(ring, room_for(tail - head), head, start)
    gone = min(max(head - start, 0), values.size)
    put(ring, np.arange(start + gone, start + values.size) & (ring.size - 1), values[gone:])
    return ring
