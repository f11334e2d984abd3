"""Rows of demand to records of `demand.v1`: keys and values in one buffer, without the GIL, as encode.py does it."""

import numpy as np

from topics.codec.messages import Messages
from topics.codec.put import put, put_number, put_part, put_text
from topics.compiled.kernels import kernel

_FIXED_ROOM = 512  # names and integers


def encode_demand(
    rows: np.ndarray, numbers: np.ndarray, heap: np.ndarray, *, partition: int, window_ms: int, step_ms: int
) -> Messages:
    """Write rows as records of `demand.v1`.

    Parameters
    ----------
    rows : ROW[]
        The partition's table (state/demand.py).
    numbers : int64[n]
        The rows to write.
    heap : uint8[]
        The rows' keys.
    partition : int
        Of `clicks.v1`.
    window_ms, step_ms : int
        Length of the window and of its steps, ms.

    Returns
    -------
    Messages
        For each row, in order; key: pool_id/sku/partition (keys.compound_key).
    """
    spans = np.empty((numbers.size, 3), np.int64)
    # A text is at most tripled by the key's escapes, and doubled by the value's.
    room = _FIXED_ROOM * numbers.size + 5 * int(rows["id_size"][numbers].sum())
    out = np.empty(room, np.uint8)
    size = _demand_kernel(rows, numbers, heap, partition, window_ms, step_ms, out, spans)
    messages = Messages()
    messages.add(out[:size], spans)
    return messages


@kernel
def _demand_kernel(rows, numbers, heap, partition, window_ms, step_ms, out, spans_out):
    """Write keys and values one after the other; `spans_out` gets each key's start, its value's start and end."""
    at = np.int64(0)
    for i in range(numbers.size):
        row = rows[numbers[i]]
        sku_at = row.id_at + row.pool_size + 1
        sku_size = row.id_size - row.pool_size - 1
        spans_out[i, 0] = at
        at = put(out, put_part(out, at, heap, row.id_at, np.int64(row.pool_size)), b"/")
        at = put_part(out, at, heap, sku_at, sku_size)
        at = put_number(out, at, b"/", partition)
        spans_out[i, 1] = at
        at = put_text(out, at, b'{"pool_id":"', heap, row.id_at, row.pool_size)
        at = put_text(out, at, b'","sku":"', heap, sku_at, sku_size)
        at = put_number(out, at, b'","partition":', partition)
        start = row.updated_at - row.updated_at % step_ms + step_ms - window_ms
        at = put_number(out, at, b',"window_start":', max(0, start))
        at = put_number(out, at, b',"window_ms":', window_ms)
        at = put_number(out, at, b',"views":', row.views)
        at = put_number(out, at, b',"carts":', row.carts)
        at = put_number(out, at, b',"checkouts":', row.checkouts)
        at = put_number(out, at, b',"version":', row.version)
        at = put_number(out, at, b',"updated_at":', row.updated_at)
        at = put(out, at, b"}")
        spans_out[i, 2] = at
    return at
