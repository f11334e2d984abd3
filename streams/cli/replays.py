"""The marks of replayed dead letters: reading them from `dead-letter-replays.v1`, and sending records together with them.

A record and its mark are sent in one transaction, whose id is that of the topic. So whoever comes second to replay ends the
transaction of whoever came first, and reads marks only then: nothing is sent twice, nor sent without its mark.
Invariant: a mark is of the letter that has its place and its time; a topic made anew has the places again, not the times.
Not here: which letters are replayed, and as what (dead_letter.py).
"""

import getpass
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.publish import Undelivered, enqueue, limits_of, producer_of

if TYPE_CHECKING:
    from topics.outputs import DeadLetterReplay

CHUNK = 500
"""Records of one transaction."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is noted of a letter: where it is, when it was refused, whether its record was changed."""

    partition: int
    offset: int
    refused_at: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Sending:
    """A record to send, and the letters that it settles; `headers` go with it."""

    topic: str
    key: str
    value: bytes
    marks: tuple[Mark, ...]
    headers: list[tuple[str, bytes]] = field(default_factory=list)


class Marks:
    """The latest mark of each letter.

    Parameters
    ----------
    found : iterable of DeadLetterReplay
        In the order of the topic.
    """

    def __init__(self, found: "Sequence[DeadLetterReplay]" = ()):
        self._by_place = {(mark.partition, mark.offset): mark for mark in found}

    def of(self, partition: int, offset: int, refused_at: int) -> "DeadLetterReplay | None":
        """Give a letter's mark, None if it was never replayed."""
        mark = self._by_place.get((partition, offset))
        return mark if mark is not None and mark.refused_at == refused_at else None


def read_marks(settings: Any) -> Marks:
    """Read the marks that are committed now.

    Raises
    ------
    MissingTopics
        The cluster has no such topic yet.
    """
    from pydantic import ValidationError

    from streams.kafka.clients import partitions_of
    from streams.kafka.reading import LogReader
    from topics.catalogue import REPLAYS
    from topics.outputs import DeadLetterReplay

    starts = dict.fromkeys(partitions_of(REPLAYS, settings), 0)
    found = []
    with LogReader(settings, f"{settings.group_id}-dead-letter", log_level=0) as reader:
        for message in reader.read(REPLAYS, starts):
            try:
                found.append(DeadLetterReplay.model_validate_json(message.value() or b""))
            except ValidationError:
                place = f"{REPLAYS}[{message.partition()}]@{message.offset()}"
                typer.echo(f"{place}: no mark of a replay, but something else; left out", err=True)
    return Marks(found)


def read_marks_if_any(settings: Any) -> Marks:
    """Read the marks; on a cluster without their topic there are none, which is said."""
    from streams.kafka.clients import MissingTopics

    try:
        return read_marks(settings)
    except MissingTopics as missing:
        typer.echo(f"nearshelf: which letters were replayed is not known: {missing}", err=True)
        return Marks()


def operator() -> str:
    """Name who is at the keyboard, as `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may have a number and no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


class Replayer:
    """Sends records and their marks, a transaction for each `CHUNK`.

    Parameters
    ----------
    settings
        `topic_prefix`, `app_id`, `request_timeout_ms`, `transaction_timeout_ms` and what a producer needs.
    by : str
        Who replays.
    topics : iterable of str
        Where records go.

    Attributes
    ----------
    marks : Marks
        As they are now that nobody else can add one.

    Raises
    ------
    KafkaException
        The broker does not answer, or allows no transaction.
    """

    def __init__(self, settings: Any, by: str, topics: Iterable[str]):
        from streams.kafka.names import on_cluster
        from topics.catalogue import REPLAYS

        self._settings = settings
        self._by = by
        self._timeout_s = settings.request_timeout_ms / 1000
        limits = limits_of(settings, {*topics, REPLAYS})
        self._undelivered = Undelivered(settings, limits)
        self._producer = producer_of(
            settings,
            limits,
            transactional_id=on_cluster(settings, REPLAYS),
            transaction_timeout_ms=settings.transaction_timeout_ms,
            message_timeout_ms=min(settings.request_timeout_ms, settings.transaction_timeout_ms),
        )
        self._producer.init_transactions(self._timeout_s)
        self.marks = read_marks(settings)

    def send(self, sendings: Sequence[Sending]) -> dict[int, str]:
        """Send all; give the number of each that was not sent → why."""
        from confluent_kafka import KafkaError, KafkaException

        faults: dict[int, str] = {}
        for start in range(0, len(sendings), CHUNK):
            chunk = {number: sendings[number] for number in range(start, min(start + CHUNK, len(sendings)))}
            try:
                while chunk and (refused := self._transact(chunk)):
                    faults |= refused
                    chunk = {number: sending for number, sending in chunk.items() if number not in refused}
            # Poll and flush raise a fatal error as it is, and it is no Exception.
            except (KafkaException, KafkaError) as error:  # type: ignore[misc]
                why = self._ended(error if isinstance(error, KafkaError) else error.args[0])
                return faults | {number: why for number in range(start, len(sendings)) if number not in faults}
        return faults

    def _transact(self, chunk: dict[int, Sending]) -> dict[int, str]:
        """Send a chunk with its marks, all or nothing; give those that the cluster refuses → why, if there are any."""
        from confluent_kafka import KafkaException

        from topics.catalogue import DEAD_LETTERS, REPLAYS
        from topics.keys import compound_key

        refused: dict[int, str] = {}
        self._producer.begin_transaction()
        for number, sending in chunk.items():
            told = self._delivered(number, sending, refused)
            try:
                enqueue(self._producer, sending.topic, sending.key, sending.value, headers=sending.headers, on_delivery=told)
            except KafkaException as error:
                refused[number] = self._undelivered.because(error.args[0], sending.topic, sending.value)
                continue
            for mark in sending.marks:
                key = compound_key(DEAD_LETTERS, str(mark.partition), str(mark.offset))
                enqueue(self._producer, REPLAYS, key, self._replay(sending, mark).model_dump_json().encode())
        self._producer.flush(self._timeout_s)
        if refused:
            self._producer.abort_transaction(self._timeout_s)
        else:
            self._producer.commit_transaction(self._timeout_s)
        return refused

    def _delivered(self, number: int, sending: Sending, refused: dict[int, str]) -> Callable[[Any, Any], None]:
        def note(error: Any, message: Any) -> None:
            from confluent_kafka import KafkaError

            # Of those that were thrown away with the transaction, none is at fault itself.
            if error is not None and error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
                refused[number] = self._undelivered.because(error, sending.topic, sending.value)

        return note

    def _replay(self, sending: Sending, mark: Mark) -> "DeadLetterReplay":
        from topics.outputs import DeadLetterReplay

        before = self.marks.of(mark.partition, mark.offset, mark.refused_at)
        return DeadLetterReplay(
            topic="dead-letter.v1",
            partition=mark.partition,
            offset=mark.offset,
            refused_at=mark.refused_at,
            replayed_to=sending.topic,
            replayed_at=int(time.time() * 1000),
            replayed_by=self._by,
            client_id=self._settings.app_id,
            changed=mark.changed,
            times=1 if before is None else before.times + 1,
        )

    def _ended(self, error: Any) -> str:
        """Say what an error means that ends the whole."""
        from confluent_kafka import KafkaError

        if error.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED):
            return "not sent: somebody else has begun a replay. `nearshelf dead-letter list` shows what was replayed by whom"
        return f"not sent, or not known to be: {error.str()}. `nearshelf dead-letter list` shows whether it was replayed"
