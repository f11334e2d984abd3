"""The values of a compacted topic that has no versions, compared with what the batches left: `transfers.v1`, `supplies.v1`.

Compaction may have taken out any value but a key's last one, and an empty record together with what it takes out.
Owner: the audit. Not here: what the values should say (supplies.py), topics with versions (outputs.Cells).
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

from streams.audit.log import Record
from streams.audit.outputs import CELLS_AHEAD, Tape, key_of, read
from streams.audit.report import FaultSink


class Latest:
    """One partition's values.

    Parameters
    ----------
    records : iterator of Record
    topic : str
    model : type
        The values' model.
    names : tuple of str
        The fields that make the key.
    fault : FaultSink
    """

    def __init__(self, records: Iterator[Record], topic: str, model: Any, names: tuple[str, ...], fault: FaultSink):
        self._tape = Tape(records)
        self._topic, self._model, self._names, self._fault = topic, model, names, fault
        self._owed: dict[str, deque[tuple[int, Any]]] = {}
        """Key → batches that left it a value which was not met yet, and the values; None = taken out."""
        self._fresh: set[str] = set()
        """Those owed by the batch in hand."""
        self._ahead: dict[str, deque[tuple[int, Any]]] = {}
        """Key → offsets and values read ahead."""
        self._ahead_count = 0
        self._standing: set[str] = set()
        """Keys whose last record met has a value."""

    def expect(self, names: tuple[str, ...], batch: int, value: Any) -> None:
        """Note what a batch left of a key."""
        key = key_of(*names)
        ahead = self._ahead.get(key, ())
        place = next((at for at, (_, found) in enumerate(ahead) if found == value), None)
        if place is not None:
            self._refuse(key, place)
            self._ahead[key].popleft()
            self._ahead_count -= 1
            if not self._ahead[key]:
                del self._ahead[key]
            self._owed.pop(key, None)
            self._met(key, value)
        elif not ahead:
            self._owed.setdefault(key, deque()).append((batch, value))
            self._fresh.add(key)

    def settle(self) -> None:
        """Look for the values of the batch in hand."""
        while self._fresh and self._ahead_count < CELLS_AHEAD and self._pull():
            pass
        for key in self._fresh:  # what was compacted away whole
            if self._owed[key][-1][1] is None and key not in self._standing:
                del self._owed[key]
        self._fresh.clear()

    def drain(self) -> None:
        """Judge the values still owed, when all that there is of the topic is in sight."""
        while self._owed and self._pull():
            pass
        for key, owed in self._owed.items():
            batch, value = owed[-1]
            if value is not None or key in self._standing:
                self._fault("supply", self._topic, None, f"{_shown(key, value)}, as batch {batch} left it", "no such record")
        self._owed.clear()
        self._fresh.clear()

    def rest(self, due: float) -> None:
        """Judge what stands before the offset `due` and no batch left."""
        while (head := self._tape.head) and head.offset < due:
            self._pull()
        for key, ahead in list(self._ahead.items()):
            self._refuse(key, sum(offset < due for offset, _ in ahead))
            if not ahead:
                del self._ahead[key]

    def _refuse(self, key: str, count: int) -> None:
        for _ in range(count):
            offset, value = self._ahead[key].popleft()
            self._ahead_count -= 1
            if value is not None or key in self._standing:  # an empty record may come after what it took out is compacted away
                self._fault("supply", self._topic, offset, "a value of a batch", _shown(key, value))

    def _met(self, key: str, value: Any) -> None:
        if value is None:
            self._standing.discard(key)
        else:
            self._standing.add(key)

    def _pull(self) -> bool:
        record = self._tape.take()
        if record is None:
            return False
        key, value = (record.key or b"").decode(errors="replace"), None
        if record.value is not None:
            value = read(self._model, self._topic, "supply", record, self._fault)
            if value is None:
                return True
            wanted = key_of(*(getattr(value, name) for name in self._names))
            if key != wanted:
                self._fault("supply", self._topic, record.offset, f"key {wanted}", record.key)
                return True
        owed = self._owed.get(key, deque())
        place = next((at for at, (_, wanted) in enumerate(owed) if wanted == value), None)
        if place is None:
            self._ahead.setdefault(key, deque()).append((record.offset, value))
            self._ahead_count += 1
            return True
        if key in self._ahead:
            self._refuse(key, len(self._ahead[key]))
            del self._ahead[key]
        for _ in range(place + 1):
            owed.popleft()
        if not owed:
            del self._owed[key]
            self._fresh.discard(key)
        self._met(key, value)
        return True


def _shown(key: str, value: Any) -> str:
    if value is None:
        return f"{key}: an empty record"
    return f"{key}: " + " ".join(f"{name}={each}" for name, each in value.model_dump(by_alias=True).items())
