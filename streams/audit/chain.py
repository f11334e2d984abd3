"""A changelog as the audit reads it: whole batches, each proven to follow the one before it by the chain of hashes.

A batch is n records of one partition (headers `batch`, `part`, "i/n", `link`, and `owner`); joined: a size (uint32, little
endian), a JSON manifest, blobs. link(n) = SHA-256(link(n - 1) + the joined bytes of batch n), link(0) = 32 zero bytes;
so a record that was altered, removed or inserted shows where it stands, or, if its own headers were made anew, at the
one behind it.
Invariant: a batch is given only when it follows from the last one given, or when a later one proves that it is in its
place: a batch whose link is wrong waits for the next. If that follows from it, it was altered, and what can be read of
it is judged; if a batch of the same number follows from the last good one, it was inserted, and is left out.
Owner: the audit; it computes links by itself. Not here: whether what a batch says is right (inventory.py, clicks.py).
"""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from streams.audit.log import Log, Record
from streams.audit.report import FaultSink
from topics.errors import Contradiction

VERSION = 1
CLAIM = b"owner"
"""Key of a record that only names the changelog's owner, in the header `owner`, as all others do; earlier versions' don't."""
DOUBTFUL_BATCHES = 20
"""So many batches in a row with wrong links are held for one that follows; beyond it nothing is left to follow."""
UNREADABLE = (KeyError, ValueError, IndexError, TypeError, OverflowError, MemoryError, SyntaxError)
"""What reading an altered batch may raise; SyntaxError: numpy's, of a format that is none."""
Tables = dict[str, dict]
"""Name → the manifest's entry of a table."""


class BrokenChain(Contradiction):
    """The changelog cannot be followed further: where, what was expected, what was found."""

    def __init__(self, offset: int | None, expected: str, found: str):
        super().__init__(f"expected {expected}, found {found}")
        self.offset = offset
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class Input:
    """What a batch consumed of one topic."""

    first: int
    next: int
    count: int


class Change(NamedTuple):
    """A record of `locations.v1` that a batch applied before its events."""

    partition: int
    offset: int
    timestamp: int
    key: str | None
    value: Any
    """As JSON has it; None for a tombstone, false for what is refused."""


@dataclass(slots=True)
class Batch:
    """One batch of one partition."""

    number: int
    offset: int
    """Of its first changelog record."""
    inputs: dict[str, Input]
    order: list[str]
    """Topic of each event, in the order applied."""
    locations: list[Change]
    pools: dict[str, Tables]
    """Pool id → what the batch changed there."""
    blobs: memoryview
    layout: int = 1
    """Of the state that wrote it."""


@dataclass(slots=True)
class _Joined:
    """A batch's parts put together."""

    number: int
    offset: int
    link: bytes
    """As its headers say."""
    data: bytes
    computed: bytes = b""
    """From the link before it and its bytes."""


class Chain:
    """One partition of a changelog, in order.

    Parameters
    ----------
    topic, partition
        Of the changelog.
    records : iterator of Record
        It may end and go on later, when the topic has grown.
    fault : callable
        Told each record that is not as it was written.
    """

    def __init__(self, topic: str, partition: int, records: Iterator[Record], fault: FaultSink):
        self.partition = partition
        self.number = 0
        """Of the last batch that is proven to be in its place."""
        self.link = bytes(32)
        """Of that batch."""
        self._topic = topic
        self._records = records
        self._fault = fault
        self._offset: int | None = None
        self._parts: list[tuple[int, int, bytes, bytes]] = []  # batch, offset, link, data
        self._doubtful: list[_Joined] = []
        self._ready: deque[_Joined] = deque()
        self._strayed = False
        self._owner: bytes | None = None

    @property
    def offset(self) -> int | None:
        """Of the first record of that batch."""
        return self._offset

    def link_at(self, log: Log) -> bytes | None:
        """Read the last proven batch's link again; None = its first record is not there."""
        if self._offset is None:
            return self.link
        record = next(log.read(self._topic, self.partition, self._offset), None)
        header = None if record is None or record.offset != self._offset else _header(record)
        return None if header is None else header[3]

    def next_batch(self) -> Batch | None:
        """Give the next batch; None while there is none.

        Raises
        ------
        BrokenChain
            A part or a batch is missing, or cannot be read.
        """
        while not self._ready:
            joined = self._join()
            if joined is None:
                return None
            self._place(joined)
        return self._batch(self._ready.popleft())

    def end(self) -> bool:
        """Tell whether the chain ends in good order, if it ends here; false = with batches that nothing follows.

        Raises
        ------
        BrokenChain
            It ends within a batch.
        """
        if self._parts:
            number, offset, *_ = self._parts[0]
            raise BrokenChain(offset, f"all parts of batch {number}", f"the first {len(self._parts)} only")
        return not self._doubtful

    # 1. Parts to batches

    def _join(self) -> _Joined | None:
        for record in self._records:
            self._check_owner(record)
            if record.key == CLAIM:
                continue
            header = _header(record)
            if header is None:
                self._stray(record.offset, "headers `batch`, `part` (i/n) and `link`", record.headers)
                continue
            number, part, of, link = header
            if number <= self.number:
                self._stray(record.offset, f"batch {self.number + 1}, part 1", f"batch {number}, part {part} of {of}")
                continue
            expected = (self._parts[0][0] if self._parts else number), len(self._parts) + 1
            if (number, part) != expected:
                found = f"batch {number}, part {part} of {of}"
                raise BrokenChain(record.offset, f"batch {expected[0]}, part {expected[1]}", found)
            self._parts.append((number, record.offset, link, record.value or b""))
            if part == of:
                _, offset, link, _ = self._parts[0]
                for _, other, differing, _ in self._parts:
                    if differing != link:
                        self._fault(
                            "chain", self._topic, other, f"link {link.hex()}, as part 1 of batch {number}", differing.hex()
                        )
                        break
                data = b"".join(part for *_, part in self._parts)
                self._parts.clear()
                return _Joined(number, offset, link, data)
        return None

    def _check_owner(self, record: Record) -> None:
        """Name the first record of another owner than those before it."""
        owner = dict(record.headers).get("owner", self._owner)
        if self._owner is not None and owner != self._owner:
            expected, found = ((each or b"").decode(errors="replace") for each in (self._owner, owner))
            self._fault("chain", self._topic, record.offset, f"a record of the owner {expected}", f"one of {found}")
        self._owner = owner

    def _stray(self, offset: int, expected: str, found: object) -> None:
        """Name a record that has no place in the chain; of several in a row the first."""
        if not self._strayed:
            self._fault("chain", self._topic, offset, expected, f"{found}: inserted, since it follows from nothing")
        self._strayed = True

    # 2. Batches to a chain

    def _place(self, joined: _Joined) -> None:
        """Put a batch where it belongs: behind the last good one, behind those in doubt, or among them."""
        if joined.number == self.number + 1:
            joined.computed = _next_link(self.link, joined.data)
            if joined.computed == joined.link:
                self._doubtful.clear()  # inserted: this one stands in their place
                self._accept([joined])
                return
        if self._doubtful and joined.number == self._doubtful[-1].number + 1:
            last = self._doubtful[-1]
            # An altered record still has the link it was written with; one with a damaged header, the bytes.
            if joined.link in (_next_link(last.link, joined.data), _next_link(last.computed, joined.data)):
                self._accept([*self._doubtful, joined])
                return
            joined.computed = _next_link(last.link, joined.data)
        expected = self.number + len(self._doubtful) + 1
        if joined.number > expected:
            raise BrokenChain(joined.offset, f"batch {expected}, part 1", f"batch {joined.number}, part 1")
        if joined.number < expected:
            self._stray(joined.offset, f"batch {expected}, part 1", f"another batch {joined.number}")
            return
        self._doubt(joined)

    def _doubt(self, joined: _Joined) -> None:
        before = "the chain's beginning"
        if self._doubtful or self._offset is not None:
            before = f"batch {joined.number - 1} @{self._doubtful[-1].offset if self._doubtful else self._offset}"
        expected = f"batch {joined.number} with link {joined.computed.hex()}, by its bytes and the link of {before}"
        found = f"link {joined.link.hex()}: this batch was altered or inserted, or the one before it together with its headers"
        self._fault("chain", self._topic, joined.offset, expected, found)
        self._doubtful.append(joined)
        if len(self._doubtful) > DOUBTFUL_BATCHES:
            raise BrokenChain(joined.offset, "a batch that follows from one of those before it", "none of the last has")

    def _accept(self, batches: list[_Joined]) -> None:
        last = batches[-1]
        self.number, self.link, self._offset = last.number, last.link, last.offset
        self._ready.extend(batches)
        self._doubtful = []
        self._strayed = False

    # 3. What a batch says

    def _batch(self, joined: _Joined) -> Batch:
        data, offset = joined.data, joined.offset
        try:
            size = int.from_bytes(data[:4], "little")
            manifest = json.loads(data[4 : 4 + size])
            blobs = memoryview(data)[4 + size :]
            if manifest["version"] != VERSION:
                raise BrokenChain(offset, f"a batch of version {VERSION}", f"version {manifest['version']}")
            if (manifest["batch"], manifest["partition"]) != (joined.number, self.partition):
                found = f"batch {manifest['batch']} of partition {manifest['partition']}"
                raise BrokenChain(offset, f"batch {joined.number} of partition {self.partition}", f"{found} inside")
            order = blobs[manifest["order"]["at"] :][: manifest["order"]["bytes"]]
            topics = manifest["topics"]
            return Batch(
                number=joined.number,
                offset=offset,
                inputs={each["topic"]: Input(each["first"], each["next"], each["count"]) for each in manifest["inputs"]},
                order=[topics[index] for index in order],
                locations=[Change(*(each[field] for field in Change._fields)) for each in manifest["locations"]],
                pools={each["pool_id"]: {table["name"]: table for table in each["tables"]} for each in manifest["pools"]},
                blobs=blobs,
                layout=int(manifest.get("layout", 1)),
            )
        except UNREADABLE as error:
            raise unreadable(offset, joined.number, error) from None


def unreadable(offset: int, number: int, error: Exception) -> BrokenChain:
    """Say that a batch cannot be read."""
    return BrokenChain(offset, f"a readable batch {number}", f"{type(error).__name__}: {error}")


def _next_link(previous: bytes, data: bytes) -> bytes:
    return sha256(previous + data).digest()


def _header(record: Record) -> tuple[int, int, int, bytes] | None:
    headers = dict(record.headers)
    try:
        part, of = headers["part"].split(b"/")
        return int(headers["batch"]), int(part), int(of), _link(headers.get("link", b""))
    except (KeyError, ValueError):
        return None


def _link(header: bytes) -> bytes:
    """Read a link; one that is none follows from nothing."""
    try:
        return bytes.fromhex(header.decode())
    except ValueError:
        return b""
