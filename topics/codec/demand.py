"""Rows of demand to records of `demand.v1`: keys and values in one buffer, without the GIL, as encode.py does it."""

import numpy as np

from topics.codec.messages import Messages
from topics.codec.put import CLOSE, SLASH, put, put_escaped, put_integer, put_raw, text_bytes
from topics.compiled.kernels import kernel

_POOL = text_bytes('{"pool_id":"')
_SKU = text_bytes('","sku":"')
_PARTITION = text_bytes('","partition":')
_WINDOW_START = text_bytes(',"window_start":')
_WINDOW_MS = text_bytes(',"window_ms":')
_VIEWS = text_bytes(',"views":')
_CARTS = text_bytes(',"carts":')
_CHECKOUTS = text_bytes(',"checkouts":')
_VERSION = text_bytes(',"version":')
_UPDATED_AT = text_bytes(',"updated_at":')
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
        For each row, in order; key: pool_id/sku/partition.
    """
    spans = np.empty((numbers.size, 3), np.int64)
    # A text stands in the key as it is, and in the value at most doubled by escapes.
    room = _FIXED_ROOM * numbers.size + 3 * int(rows["id_size"][numbers].sum())
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
        at = put_raw(out, at, heap, row.id_at, np.int64(row.pool_size))
        out[at] = SLASH
        at = put_raw(out, at + 1, heap, sku_at, sku_size)
        out[at] = SLASH
        at = put_integer(out, at + 1, partition)
        spans_out[i, 1] = at
        at = put(out, at, _POOL)
        at = put_escaped(out, at, heap, row.id_at, row.pool_size)
        at = put(out, at, _SKU)
        at = put_escaped(out, at, heap, sku_at, sku_size)
        at = put(out, at, _PARTITION)
        at = put_integer(out, at, partition)
        at = put(out, at, _WINDOW_START)
        at = put_integer(out, at, max(0, row.updated_at - row.updated_at % step_ms + step_ms - window_ms))
        at = put(out, at, _WINDOW_MS)
        at = put_integer(out, at, window_ms)
        at = put(out, at, _VIEWS)
        at = put_integer(out, at, row.views)
        at = put(out, at, _CARTS)
        at = put_integer(out, at, row.carts)
        at = put(out, at, _CHECKOUTS)
        at = put_integer(out, at, row.checkouts)
        at = put(out, at, _VERSION)
        at = put_integer(out, at, row.version)
        at = put(out, at, _UPDATED_AT)
        at = put_integer(out, at, row.updated_at)
        out[at] = CLOSE
        at += 1
        spans_out[i, 2] = at
    return at
