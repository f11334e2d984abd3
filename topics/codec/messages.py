"""`Messages`: the records that a batch produces to one topic, as places in byte buffers.

Owner: the pipeline that made them; librdkafka takes the bytes from the buffers (streams/kafka/librdkafka.py).
Not here: what the bytes say (encode.py, demand.py), the producer.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class Messages:
    """Records to be produced to one topic, in order.

    Attributes
    ----------
    blocks : list of (uint8[], int64[n, 3])
        Buffers, and where in them each message's key begins (-1: it has none), its value begins (-1: it has none), and it ends.
    headers : dict of int to list
        Number of a message → its headers, of those that have some.
    """

    __slots__ = ("_count", "blocks", "headers")

    def __init__(self) -> None:
        self.blocks: list[tuple[np.ndarray, np.ndarray]] = []
        self.headers: dict[int, list[tuple[str, bytes | None]]] = {}
        self._count = 0

    @classmethod
    def of(cls, messages: Sequence[dict]) -> "Messages":
        """Make them of dicts with `key` (or None), `value` (or None) and, maybe, `headers`."""
        made, parts, spans, at = cls(), [], [], 0
        for number, message in enumerate(messages):
            key, value = message.get("key"), message["value"]
            value_at = at + len(key or b"")
            end = value_at + len(value or b"")
            spans.append((-1 if key is None else at, -1 if value is None else value_at, end))
            parts += [key or b"", value or b""]
            at = end
            if message.get("headers"):
                made.headers[number] = message["headers"]
        made.add(np.frombuffer(b"".join(parts), np.uint8), np.array(spans, np.int64).reshape(len(spans), 3))
        return made

    def add(self, buffer: np.ndarray, spans: np.ndarray) -> None:
        """Append a block."""
        if len(spans):
            self.blocks.append((buffer, spans))
            self._count += len(spans)

    def extend(self, others: "Messages") -> None:
        """Append others."""
        self.headers |= {self._count + number: headers for number, headers in others.headers.items()}
        self.blocks += others.blocks
        self._count += len(others)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict]:
        """Give each as `Producer.produce` takes it."""
        number = 0
        for buffer, spans in self.blocks:
            content = buffer.tobytes()
            for key, value, end in spans.tolist():
                message: dict[str, Any] = {"key": None if key < 0 else content[key : end if value < 0 else value]}
                message["value"] = None if value < 0 else content[value:end]
                if number in self.headers:
                    message["headers"] = self.headers[number]
                yield message
                number += 1
