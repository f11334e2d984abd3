"""Records by the million without Python for each: a key and a value with places for digits, filled in by numpy.

A place is written `<name:width>` and takes a number with leading zeros, so all records of a stencil have one length; they lie
one behind the other in one buffer, which `streams.kafka.librdkafka.produce_spans` takes as it is.
Not here: what the numbers are (day.py, open_events.py).
"""

import re
from collections.abc import Callable

import numpy as np

Records = tuple[np.ndarray, np.ndarray]
"""uint8[], and int64[n, 3] as `produce_spans` takes them: where in it each record's key and value begin, and where it ends."""
_PLACE = re.compile(r"<(\w+):(\d+)>")


class Stencil:
    """One form of a record.

    Parameters
    ----------
    key, value : str
        ASCII, with places.

    Examples
    --------
    >>> buffer, spans = Stencil("v<visitor:2>", '{"at":5<place:3>}').fill(2, visitor=np.array([7, 8]), place=np.array([1, 20]))
    >>> buffer.tobytes()
    b'v07{"at":5001}v08{"at":5020}'
    >>> spans.tolist()
    [[0, 3, 14], [14, 17, 28]]
    """

    def __init__(self, key: str, value: str):
        self._places: list[tuple[str, int, int]] = []
        text, begun = "", 0
        both = key + value
        for place in _PLACE.finditer(both):
            text += both[begun : place.start()]
            self._places.append((place[1], len(text), int(place[2])))
            text += "0" * int(place[2])
            begun = place.end()
        self._record = np.frombuffer((text + both[begun:]).encode("ascii"), np.uint8)
        self._key_size = len(_PLACE.sub(lambda place: "0" * int(place[2]), key))

    def fill(self, count: int, **numbers: np.ndarray) -> Records:
        """Make records.

        Parameters
        ----------
        count : int
        **numbers : int64[count]
            By place, each >= 0; digits beyond its width are cut off.
        """
        rows = np.tile(self._record, (count, 1))
        for name, at, width in self._places:
            left = numbers[name]
            for place in range(at + width - 1, at - 1, -1):
                left, digit = np.divmod(left, 10)
                rows[:, place] += digit.astype(np.uint8)
        begin = np.arange(count) * len(self._record)
        return rows.ravel(), np.stack([begin, begin + self._key_size, begin + len(self._record)], 1)


def mixed(parts: list[Records], places: list[np.ndarray]) -> Records:
    """Join several parts; `places` says which places each part's records take among all."""
    order, spans, at = np.concatenate(places), [], 0
    for buffer, found in parts:
        spans.append(found + at)
        at += len(buffer)
    joined = np.empty((len(order), 3), np.int64)
    joined[order] = np.concatenate(spans)
    return np.concatenate([buffer for buffer, _ in parts]), joined


class Blocks:
    """Records by number, of which one block at a time is made and kept.

    Parameters
    ----------
    make : callable
        (First number, number behind the last) → `Records`.
    size : int
        Records of a block.
    """

    def __init__(self, make: Callable[[int, int], Records], size: int):
        self._make, self._size = make, size
        self._first, self._made = -1, (np.empty(0, np.uint8), np.empty((0, 3), np.int64))

    def __call__(self, first: int, until: int) -> Records:
        """Give the records from `first` on that lie in its block, `until` at the most."""
        begin = first - first % self._size
        if begin != self._first:
            self._first, self._made = begin, self._make(begin, begin + self._size)
        buffer, spans = self._made
        return buffer, spans[first - begin : until - begin]
