"""Lines of JSON: reading them from a file one by one, and saying what is wrong with one and what to send instead.

Invariants: no line stops the reading, whatever it holds; at most `LONGEST_LINE` bytes of a line are in memory.
Not here: what a record must be (topics/events.py), sending (publish.py).
"""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

LONGEST_LINE = 16 << 20
"""Bytes. A longer line is given cut off: it is too large for any topic."""
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LISTS = ("records", "events", "messages", "items", "batch")
"""Names under which others send many events at once; `records` is that of Kafka's REST proxies."""


def numbered(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Give each line that is not empty, with its number from 1.

    Examples
    --------
    >>> from io import BytesIO
    >>> list(numbered(BytesIO(b"a\\n\\n  \\nb")))
    [(1, b'a'), (4, b'b')]
    """
    number = 0
    while line := source.readline(LONGEST_LINE + 1):
        number += 1
        rest = line
        while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
            rest = source.readline(LONGEST_LINE + 1)
        # UTF-16 leaves a zero byte of its line break to the next line.
        if line.strip(b" \t\r\n\0"):
            yield number, line.strip()


def fields_of(line: bytes) -> dict[str, Any]:
    """Give the fields of an object, its numbers as floats; empty if the line is none that can be read.

    Examples
    --------
    >>> fields_of(b'{"sku": "A", "quantity": 5}'), fields_of(b"[" * 100_000), fields_of(b"5")
    ({'sku': 'A', 'quantity': 5.0}, {}, {})
    """
    found = _read(line)
    return found if isinstance(found, dict) else {}


def _read(line: bytes) -> Any:
    try:
        return json.loads(line.decode(), parse_int=float)  # Python reads no integer of more than 4300 digits
    except (ValueError, RecursionError):
        return None


def text_field(event: dict[str, Any], name: str) -> str | None:
    """Give a field that is text, and can be written as UTF-8."""
    text = event.get(name)
    if not isinstance(text, str) or re.search("[\ud800-\udfff]", text):
        return None
    return text


def fault_of(topic: str, line: bytes | None) -> str:
    """Say why the models refuse a line, and what to send instead where that can be told; empty if they take it.

    Examples
    --------
    >>> fault_of("ticks.v1", b'{"pool_id": "uk"}')
    ''
    >>> fault_of("ticks.v1", b'[{"pool_id": "uk"}]')
    "value: expected one JSON object, found an array of 1. Send each of its entries as a line of its own: jq -c '.[]'"
    """
    from topics.events import Refusal, judge
    from topics.reasons import DeadLetter

    judged = judge(topic, line)
    if not isinstance(judged, Refusal):
        return ""
    if line is None or judged.reason is DeadLetter.TOO_LARGE:
        return judged.detail
    return _unreadable(line) or _nested_or_cut(judged.detail) or _wrapped(line) or judged.detail


def _unreadable(line: bytes) -> str:
    """Say what is wrong with the bytes themselves."""
    if line.startswith(_UTF8_MARK):
        return "value: expected a JSON object, found a byte order mark before it (EF BB BF). Save the file as UTF-8 without one"
    if line.startswith(_UTF16_MARKS) or b"\0" in line[:4]:
        return "value: expected UTF-8, found what looks like UTF-16. Convert the file: iconv -f UTF-16 -t UTF-8"
    try:
        line.decode()
    except UnicodeDecodeError as error:
        found = f"found byte 0x{line[error.start]:02X} at column {error.start + 1}"
        return f"value: expected UTF-8, {found}. Convert the file: iconv -f WINDOWS-1252 -t UTF-8, if that is what it is"
    return ""


def _nested_or_cut(detail: str) -> str:
    """Say more of what the parser found; empty if there is no more to say."""
    if "recursion limit exceeded" in detail:
        column = detail.rpartition(" ")[2]
        return f"value: expected JSON of at most 200 levels, found more at column {column}. Leave out what is nested so deep"
    if "surrogate" in detail or "hex escape" in detail:
        return f"{detail}. Half of a character, \\ud800 to \\udfff alone, is no text: write the whole one, or leave it out"
    if "EOF while parsing" in detail:
        return f"{detail}. An event stands on one line; jq -c . makes one of several"
    return ""


def _wrapped(line: bytes) -> str:
    """Say that a line holds its event in something else, and how to take it out; empty if it doesn't look so."""
    found = _read(line)
    if isinstance(found, list):
        return f"value: expected one JSON object, found an array of {len(found)}. {_each('.[]')}"
    if isinstance(found, str) and found.lstrip().startswith(("{", "[")):
        return "value: expected a JSON object, found JSON inside a JSON string. Take it out: jq -r ."
    return _envelope(found) if isinstance(found, dict) else ""


def _envelope(found: dict[str, Any]) -> str:
    payload = found.get("payload")
    change = payload if isinstance(payload, dict) else found
    if "specversion" in found and found.keys() & {"data", "data_base64"}:
        how = ".data" if "data" in found else "'.data_base64 | @base64d | fromjson'"
        return _told("what looks like a CloudEvents envelope", f"its data alone: jq -c {how}")
    if "op" in change and change.keys() & {"before", "after"}:
        how = ".payload.after" if change is payload else ".after"
        return _told("what looks like a change event of Debezium", f"an event made of the row after the change: jq -c {how}")
    if isinstance(payload, dict):
        return _told("what looks like an envelope of Kafka Connect", "its payload alone: jq -c .payload")
    for name in _LISTS:
        entries = found.get(name)
        if isinstance(entries, list) and entries and all(isinstance(entry, dict) for entry in entries):
            inside = ".value" if all("value" in entry for entry in entries) else ""
            whose = "a request to a REST proxy" if inside else "a list of events"
            return f"value: expected one event, found what looks like {whose}. {_each(f'.{name}[]{inside}')}"
    if isinstance(found.get("value"), dict) and found.keys() & {"key", "topic", "offset"}:
        return _told("what looks like a record with its key", "its value alone: jq -c .value")
    return ""


def _told(found: str, send: str) -> str:
    return f"value: expected the event itself, found {found}. Send {send}"


def _each(how: str) -> str:
    return f"Send each of its entries as a line of its own: jq -c '{how}'"
