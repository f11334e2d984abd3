"""Whose a changelog is: it names the `app_id` of its workers, and a worker with another refuses to start.

Each record that a worker writes to a changelog names its `app_id` in the header `owner`. A changelog that names nobody, since
it is new or an earlier version's, gets a claim: a record of key `owner` in partition 0, which is in no batch.
A claim is first come, first served, decided by a fence of its own: who fences last reads what the others have claimed, and
only then writes. So of any number of workers that come at once exactly one `app_id` stays.
The name is looked at twice: before a worker does anything else (`claim`), and by whoever reads a changelog's records
(chain.py, snapshots.py), so also behind the fence of each take-over.
Not here: what the fence of a partition is (transactions.py).
"""

import logging
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaException

from streams.kafka.clients import BrokerUnreachable, client_config
from streams.kafka.names import Producer, on_cluster
from streams.kafka.reading import LogReader
from topics.errors import WrongUse

log = logging.getLogger("nearshelf.worker")

HEADER = "owner"
CLAIM = b"owner"
"""Key of a claim."""
RETRY_S = 0.1
PATIENCE_S = 60.0
"""A broker that is new and slow makes the topic of all transactions first: half a minute was seen."""
WAIT_S = 0.25
"""Twice as long before the second fence, and so on."""
# Offsets before a partition's end in which its last record is looked for; four times as many if there are only aborted ones.
NEAR = 16


class OtherOwner(WrongUse):
    """The changelog belongs to the workers of another `app_id`; the message says to whose, and the two ways out."""

    def __init__(self, changelog: str, owner: str, app_id: str):
        super().__init__(
            f"{changelog} belongs to the workers with app_id {owner}, this worker has app_id {app_id}. Two sets of workers on "
            "the same topics would promise the same units twice.\n"
            f"  To be one of its workers:                    --set app_id={owner}\n"
            f"  To have topics of your own on this cluster:  --set topic_prefix={app_id}. with every command, "
            "the first being `nearshelf topics create`"
        )


def owner_of(message: Any) -> str | None:
    """Give the owner that a changelog's record names; None if it names none."""
    owner = dict(message.headers() or ()).get(HEADER)
    return None if owner is None else owner.decode(errors="replace")


def check(message: Any, app_id: str | None) -> None:
    """Raise `OtherOwner` if a changelog's record names another owner than this; None: anybody may."""
    owner = owner_of(message)
    if owner is not None and app_id is not None and owner != app_id:
        raise OtherOwner(f"{message.topic()}[{message.partition()}]", owner, app_id)


def claim(settings: Any, changelogs: Iterable[str], reader: LogReader) -> None:
    """Claim the changelogs that name nobody, in the order given, and return if all are this worker's.

    Raises
    ------
    OtherOwner
        One is another's; those behind it are not claimed.
    BrokerUnreachable
        It can't be read or written within `PATIENCE_S`.
    """
    for changelog in changelogs:
        check(_named(settings, changelog, reader), settings.app_id)


def _named(settings: Any, changelog: str, reader: LogReader) -> Any:
    """Give a changelog's last record, which names its owner, after a claim if need be."""
    deadline = time.monotonic() + PATIENCE_S
    fence_at, wait_s = 0.0, WAIT_S
    while True:
        try:
            message = _last(reader, changelog)
            if message is not None and owner_of(message) is not None:
                return message
            # Each that fences ends what others have begun: who was fenced looks on, longer each time, before the next try.
            if time.monotonic() >= fence_at:
                wait_s *= 2
                _write(settings, changelog, reader)
                fence_at = time.monotonic() + wait_s  # what is committed can be read a moment later
        except (BufferError, KafkaException) as failure:  # another claims it at this moment, or the broker is away
            if time.monotonic() > deadline:
                raise BrokerUnreachable(settings.bootstrap_servers, f"to ask whose {changelog} is ({failure})") from None
            log.warning("whose %s is can't be told yet: %s", changelog, failure)
            fence_at = time.monotonic() + wait_s
        time.sleep(RETRY_S)


def _write(settings: Any, changelog: str, reader: LogReader) -> None:
    """Fence all others that claim; then claim, unless one of them was sooner."""
    timeout_s = settings.request_timeout_ms / 1000
    name = f"{on_cluster(settings, changelog)}-owner"
    producer = Producer(
        client_config(settings, transactional_id=name, transaction_timeout_ms=settings.transaction_timeout_ms, acks="all")
    )
    producer.init_transactions(timeout_s)
    message = _last(reader, changelog)
    if message is not None and owner_of(message) is not None:
        return
    producer.begin_transaction()
    producer.produce(changelog, key=CLAIM, value=b"", partition=0, headers=[(HEADER, settings.app_id.encode())])
    producer.commit_transaction(timeout_s)
    log.info("%s had no owner: now it belongs to the workers with app_id %s", changelog, settings.app_id)


def _last(reader: LogReader, changelog: str) -> Any:
    """Give the last committed record of a changelog's partition 0; None if it has none."""
    first, end = reader.range(changelog, 0)
    near = NEAR
    while first < end:
        start = max(first, end - near)
        last = None
        for message in reader.messages(changelog, 0, lambda: False, start):
            last = message
        if last is not None or start == first:
            return last
        near *= 4
    return None
