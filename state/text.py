"""The pool's text heap: blocks of 16 << k bytes with a free list per size, so that a shop may run for years.

A free block's first 8 bytes hold the offset of the next free block of its size. Heads of the free lists and the heap's size
stand in the pool row; pages of PAGE_BYTES are what the changelog carries.
"""

from state.tables import JOURNAL_SIZE, PAGE_BYTES, PAGES
from topics.compiled.kernels import kernel

SMALLEST_BYTES = 16


@kernel
def _size_class(size):
    k = 0
    while (SMALLEST_BYTES << k) < size:
        k += 1
    return k


@kernel
def copy_text(heap, at, text, text_at, size):
    """Write a text into the heap."""
    for i in range(size):
        heap[at + i] = text[text_at + i]


@kernel
def touch_text(page_dirty, journal, counters, at, size):
    """Note that bytes of the heap have changed."""
    for page in range(at // PAGE_BYTES, (at + size - 1) // PAGE_BYTES + 1):
        if page_dirty[page] == 0:
            page_dirty[page] = 1
            journal[counters[JOURNAL_SIZE]] = (PAGES << 40) | page
            counters[JOURNAL_SIZE] += 1


@kernel
def allocate_text(pool, heap, size):
    """Take a block of at least `size` bytes; returns its offset."""
    k = _size_class(size)
    free_text = pool[0].free_text
    at = free_text[k]
    if at >= 0:
        following = 0
        for i in range(8):
            following |= int(heap[at + i]) << (8 * i)
        free_text[k] = following - 1
        return at
    at = pool[0].heap_size
    pool[0].heap_size += SMALLEST_BYTES << k
    return at


@kernel
def name_row(t, row, low, high, text, at, size, room):
    """Give a row of a hashed table its key: the hash, and the text in a new block of `room` bytes of the heap."""
    row.hash_low = low
    row.hash_high = high
    row.id_at = allocate_text(t.pool, t.heap, room)
    row.id_size = size
    copy_text(t.heap, row.id_at, text, at, size)
    touch_text(t.page_dirty, t.journal, t.counters, row.id_at, room)


@kernel
def free_text_block(pool, heap, page_dirty, journal, counters, at, size):
    """Give a block back; `size` is what was asked for."""
    k = _size_class(size)
    free_text = pool[0].free_text
    following = free_text[k] + 1
    for i in range(8):
        heap[at + i] = (following >> (8 * i)) & 0xFF
    touch_text(page_dirty, journal, counters, at, 8)
    free_text[k] = at
