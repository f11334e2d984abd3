"""A partition's changelog as a chain: batches put together from their records, each proven to follow the one before.

A batch is n records (headers `batch`, `part` as "i/n", `link`, `owner`). Its link is the hash of the link before and of its
bytes (state/changelog.py), so what was altered, removed or inserted does not fit, and is named by its place.
Whoever reads the changelog reads it through here: recovery, snapshots, standby. A claim (owner.py) is in no batch.
Not here: what a batch says (state/changelog.py), where its records come from (recovery.py).
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from state.changelog import FIRST_LINK, next_link
from streams.batch.pipeline import ChangelogGap
from streams.worker import owner


class Batch(NamedTuple):
    """One whole batch."""

    number: int
    link: bytes
    record: bytes
    at: int
    """Offset of its first record."""
    next: int
    """Offset after its last."""


class Chain:
    """Takes one partition's messages in order.

    Parameters
    ----------
    number : int
        Of the last batch taken before; 0 = none.
    link : bytes
        Its link.
    app_id : str, optional
        Whose the changelog must be. Default: anybody's.
    """

    def __init__(self, number: int = 0, link: bytes = FIRST_LINK, app_id: str | None = None):
        self.number = number
        self.link = link
        self._app_id = app_id
        self._parts: list[bytes] = []
        self._at = 0

    def batches(self, messages: Iterable[Any]) -> Iterator[Batch]:
        """Give the whole batches; raises what `take` does, and `ChangelogGap` if the messages end within a batch."""
        for message in messages:
            batch = self.take(message)
            if batch is not None:
                yield batch
        if self._parts:
            raise ChangelogGap(f"the changelog ends with part {len(self._parts)} of batch {self.number + 1}, which has more")

    def take(self, message: Any) -> Batch | None:
        """Take the next message; give the batch that it completes.

        Raises
        ------
        ChangelogGap
            A batch or a part is missing, stands out of place or was altered.
        OtherOwner
            Workers of another `app_id` wrote it.
        """
        owner.check(message, self._app_id)
        if message.key() == owner.CLAIM:
            return None
        place = f"{message.topic()}[{message.partition()}] at offset {message.offset()}"
        number, part, count, link = header_of(message, place)
        expected = self.number + 1, len(self._parts) + 1
        if (number, part) != expected:
            raise ChangelogGap(
                f"{place}: part {expected[1]} of batch {expected[0]} expected, found part {part} of batch {number}; "
                "records were deleted, or written by another application"
            )
        if part == 1:
            self._at = message.offset()
        self._parts.append(message.value() or b"")
        if part < count:
            return None
        record = self._parts[0] if count == 1 else b"".join(self._parts)
        self._parts = []
        found = next_link(self.link, record)
        if found != link:
            raise ChangelogGap(
                f"{place}: batch {number} does not follow the one before: link {found.hex()} expected, found {link.hex()}; "
                "one of the two was altered"
            )
        self.number, self.link = number, link
        return Batch(number, link, record, self._at, message.offset() + 1)


def header_of(message: Any, place: str) -> tuple[int, int, int, bytes]:
    """Read a message's headers: batch, part, parts, link; raises `ChangelogGap` if they are not those of a changelog."""
    headers = dict(message.headers() or ())
    try:
        part, count = (int(number) for number in headers["part"].split(b"/"))
        return int(headers["batch"]), part, count, bytes.fromhex(headers["link"].decode())
    except (KeyError, ValueError):
        raise ChangelogGap(f"{place}: headers `batch`, `part` and `link` expected, found {headers}") from None
