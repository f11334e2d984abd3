"""A dead letter: the record that was refused, whole, with the reason and a sentence. Every group writes its letters here."""

from typing import Any

from topics.codec.encode import encode_dead_letter
from topics.reasons import DeadLetter

# A broker measures a record compressed, so an input may be of any size. Its letter, in base64, must fit into a record again.
LARGEST_BYTES = 5 << 20
LONGEST_DETAIL = 2_000  # characters


def letter(topic: str, partition: int, record: Any, reason: DeadLetter, detail: str) -> dict[str, Any]:
    """Write a refused record as a dead letter.

    A key and a value that are too large to be written again are left out, and the detail says where to read them.
    A detail that is too long is cut.

    Parameters
    ----------
    topic, partition
        Where the record was read.
    record
        With `offset`, `timestamp`, `key` and `value`.
    reason : DeadLetter
    detail : str
        What was expected, what was found, where.
    """
    key, value = record.key, record.value
    size = len(key or b"") + len(value or b"")
    if len(detail) > LONGEST_DETAIL:
        detail = f"{detail[:LONGEST_DETAIL]} ... ({len(detail)} characters)"
    if size > LARGEST_BYTES:
        key = value = None
        detail += f"; key and value, {size} bytes, are left out: read them at {topic}[{partition}] offset {record.offset}"
    return encode_dead_letter(topic, partition, record.offset, record.timestamp, key, value, reason, detail)


def reused(event_id: str, sender: str) -> str:
    """Say that a sender has used an event id before.

    Examples
    --------
    >>> reused("3", "location 'S1'").split(";")[0]
    "event_id: expected an id of its own, found '3', which location 'S1' has used for an event that says something else"
    """
    return (
        f"event_id: expected an id of its own, found {event_id!r}, which {sender} has used for an event that says something "
        "else; give each event a new id, and send an event again as it was"
    )
