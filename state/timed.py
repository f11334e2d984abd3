"""Binary heaps of what is due at a time: the earliest on top, of equal ones that of the smallest age, then of the smallest row.

An entry is a TIMED row (columns.py). Not here: whether an entry still says what is so (orders.py, supply.py).
"""

from topics.compiled.kernels import kernel


@kernel
def _earlier(a, b):
    if a.time != b.time:
        return a.time < b.time
    return a.age < b.age or (a.age == b.age and a.order < b.order)


@kernel
def _swap(heap, i, j):
    time, age, order = heap[i].time, heap[i].age, heap[i].order
    heap[i].time, heap[i].age, heap[i].order = heap[j].time, heap[j].age, heap[j].order
    heap[j].time, heap[j].age, heap[j].order = time, age, order


@kernel
def push_timed(heap, counters, count, time, age, row):
    """Enter what is due at `time`; `counters[count]` is the heap's size."""
    i = counters[count]
    counters[count] += 1
    heap[i].time = time
    heap[i].age = age
    heap[i].order = row
    while i > 0 and _earlier(heap[i], heap[(i - 1) // 2]):
        _swap(heap, i, (i - 1) // 2)
        i = (i - 1) // 2


@kernel
def pop_timed(heap, counters, count):
    """Take the top out: it is then behind the heap's last."""
    counters[count] -= 1
    last = counters[count]
    _swap(heap, 0, last)
    i = 0
    while True:
        least = i
        for child in (2 * i + 1, 2 * i + 2):
            if child < last and _earlier(heap[child], heap[least]):
                least = child
        if least == i:
            break
        _swap(heap, i, least)
        i = least
