"""Whole batches of records to columns: the scanner takes the surely good ones, the models judge the rest.

Owner: the pipelines, one batch at a time; a batch's arrays are theirs once returned.
Invariants: each record is read by itself, never as part of another; a row is the same whether the scanner or the model
filled it; a record that can't be read is a row of kind UNDECODED with a reason, and never costs another its row.
Not here: the JSON scanner (scan.py), what a record must be (topics/events.py).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topics.catalogue import CLICKS, INVENTORY_TOPICS
from topics.codec.content import note_click_contents, note_contents
from topics.codec.fields import TEXTS, TIMES
from topics.codec.grammar import PADDING
from topics.codec.records import Joined, Record, Records, join
from topics.codec.scan import scan_clicks, scan_events, workspace
from topics.columns import (
    ALLOW_PARTIAL,
    ALLOW_SPLIT,
    CLICK,
    EVENT,
    GIVEN_DESTINATION,
    GIVEN_LEVEL,
    GIVEN_MODE,
    GIVEN_PARTIAL,
    GIVEN_PICKUP,
    GIVEN_SPLIT,
    HAS_LINES,
    LINE,
    MISSING,
    PICKUP,
    UNSTOCKED,
    URGENT,
)
from topics.events import Changed, Refusal, judge
from topics.reasons import Kind

_GIVEN = {
    "mode": GIVEN_MODE,
    "destination": GIVEN_DESTINATION,
    "pickup_location_id": GIVEN_PICKUP,
    "service_level": GIVEN_LEVEL,
    "allow_split": GIVEN_SPLIT,
    "allow_partial": GIVEN_PARTIAL,
}
_SHORTEST_LINE = 4  # bytes: `"a",` in line_ids


@dataclass(slots=True)
class Batch:
    """A decoded batch of inventory events.

    Attributes
    ----------
    events : EVENT[n]
        A row per record, in the order given.
    lines : LINE[]
        The events' lines, each event's side by side; rows in between may belong to none.
    buffer : uint8[]
        Where the texts are.
    details : dict of int to str
        For each UNDECODED row a sentence: where, expected, found.
    left_out : dict of int to list of str
        Row of a good event → the fields that it lacks here, since they only describe the event and were wrong.
    """

    events: np.ndarray
    lines: np.ndarray
    buffer: np.ndarray
    details: dict[int, str]
    left_out: dict[int, list[str]]


@dataclass(slots=True)
class ClickBatch:
    """A decoded batch of clicks: CLICK[n], else as in `Batch`."""

    clicks: np.ndarray
    buffer: np.ndarray
    details: dict[int, str]
    left_out: dict[int, list[str]]

    def text(self, row: int, column: str) -> str:
        """Read a text of a row."""
        return text_of(self.clicks[row], column, self.buffer)


def text_of(row: np.void, column: str, buffer: np.ndarray) -> str:
    """Read a text of a row of EVENT or CLICK."""
    at, size = int(row[f"{column}_at"]), int(row[f"{column}_size"])
    return buffer[at : at + size].tobytes().decode()


class _Tail:
    """Texts and lines of the records that the models read: what is appended to the scanner's."""

    def __init__(self, buffer_size: int, line_count: int):
        self.texts: list[bytes] = []
        self.lines: list[tuple] = []
        self.end = buffer_size
        self.line_end = line_count

    def text(self, text: str | None) -> tuple[int, int]:
        """Append a text; returns its place and size."""
        if text is None:
            return 0, 0
        encoded = text.encode()
        at = self.end
        self.texts.append(encoded)
        self.end += len(encoded)
        return at, len(encoded)

    def line(self, line_id: str | None, sku: str | None, quantity: int, flags: int = 0) -> None:
        self.lines.append((*self.text(line_id), *self.text(sku), quantity, flags))

    def grown(self, buffer: np.ndarray) -> np.ndarray:
        """The buffer with the texts behind it; read-only like the scanner's, or kernels would be compiled for both."""
        if not self.texts:
            return buffer
        grown = np.concatenate([buffer, np.frombuffer(b"".join([*self.texts, bytes(PADDING)]), np.uint8)])
        grown.flags.writeable = False
        return grown


def by_field(left_out: dict[int, list[str]], topic_of: Callable[[int], str]) -> Counter[tuple[str, str]]:
    """Count the fields left out of good events by (topic, field); `topic_of` names the topic of a row.

    Examples
    --------
    >>> by_field({0: ["currency"], 2: ["currency", "channel"]}, lambda row: "sales.v1")
    Counter({('sales.v1', 'currency'): 2, ('sales.v1', 'channel'): 1})
    """
    return Counter((topic_of(row), name) for row, names in left_out.items() for name in names)


def decode(records: Joined, topics: np.ndarray | Sequence[int]) -> Batch:
    """Read a batch of inventory events.

    Parameters
    ----------
    records : Joined
        The n records.
    topics : uint8[n]
        Each record's topic as its place in `catalogue.INVENTORY_TOPICS`.

    Returns
    -------
    Batch

    Examples
    --------
    >>> records = records_of([b'{"pool_id":"uk"}', b"?"])
    >>> batch = decode(records, [4, 4])
    >>> batch.events["kind"].tolist(), batch.details[1]
    ([50, 0], 'value: expected a JSON object, found expected value at line 1 column 1')
    """
    events = np.zeros(len(records), EVENT)
    events["topic"] = topics
    events["offset"] = records.rows["offset"]
    events["timestamp"] = records.rows["timestamp"]
    lines = np.empty(len(records.buffer) // _SHORTEST_LINE, LINE)
    line_count = scan_events(records.buffer, records.starts, records.ends, events, lines, *workspace())
    lines = lines[:line_count]
    tail = _Tail(len(records.buffer), line_count)
    details, left_out = _judge_rows(events, INVENTORY_TOPICS, records, tail, _fill_event)
    if tail.lines:
        lines = np.concatenate([lines, np.array(tail.lines, LINE)])
    buffer = tail.grown(records.buffer)
    note_contents(events, lines, buffer)
    return Batch(events, lines, buffer, details, left_out)


def decode_clicks(records: Joined) -> ClickBatch:
    """Read a batch of `clicks.v1`, as `decode` does; all rows' `topic` is 0.

    Examples
    --------
    >>> value = b'{"event_id":"e","event_time":5,"visitor_id":"v","kind":"view","channel":"web","sku":"A"}'
    >>> clicks = decode_clicks(records_of([value])).clicks
    >>> clicks["event_time"].tolist(), clicks["sku_size"].tolist(), clicks["latitude"].tolist()
    ([5], [1], [nan])
    """
    clicks = np.zeros(len(records), CLICK)
    clicks["offset"] = records.rows["offset"]
    clicks["timestamp"] = records.rows["timestamp"]
    scan_clicks(records.buffer, records.starts, records.ends, clicks, np.empty(0, LINE), *workspace())
    tail = _Tail(len(records.buffer), 0)
    details, left_out = _judge_rows(clicks, (CLICKS,), records, tail, _fill_click)
    buffer = tail.grown(records.buffer)
    note_click_contents(clicks, buffer)
    return ClickBatch(clicks, buffer, details, left_out)


def records_of(
    values: Sequence[bytes | None], offsets: Sequence[int] | None = None, timestamps: Sequence[int] | None = None
) -> Joined:
    """Join values to a batch; their offsets, and their timestamps in epoch ms, are counted from 0 unless given."""
    counted = range(len(values))
    rows = zip(counted if offsets is None else offsets, counted if timestamps is None else timestamps, values, strict=True)
    return join([Records.of(Record(offset, timestamp, None, value, []) for offset, timestamp, value in rows)])


def _judge_rows(
    table_inout: np.ndarray, topics: Sequence[str], values: Joined, tail: _Tail, fill: Callable
) -> tuple[dict[int, str], dict[int, list[str]]]:
    """Let the models decide on each record that the scanner left: fill its row, or note why not; and what they left out."""
    details, left_out = dict[int, str](), dict[int, list[str]]()
    for number in np.flatnonzero(table_inout["kind"] == Kind.UNDECODED).tolist():
        topic, wrong = topics[table_inout["topic"][number]], list[str]()
        judged = judge(topic, values[number], wrong)
        if isinstance(judged, Refusal):
            table_inout["reason"][number] = judged.reason
            details[number] = judged.detail
            continue
        if wrong:
            left_out[number] = wrong
        # By way of a dict, since each assignment to a field of an array's row costs as much as five.
        row = dict(zip(table_inout.dtype.names or (), table_inout[number].item(), strict=True))
        fill(row, judged, tail)
        table_inout[number] = tuple(row.values())
    return details, left_out


def _fill_text(row_out: dict, column: str, text: str | None, tail: _Tail) -> None:
    row_out[f"{column}_at"], row_out[f"{column}_size"] = tail.text(text)


def _fill_event(event_out: dict, record: Any, tail: _Tail) -> None:
    """Write a model's fields into its EVENT row; the twin of the scanner's `_fill_event`."""
    kind = Kind[getattr(record, "kind", "tick").upper()]
    event_out["kind"] = kind
    for column, field in TEXTS[kind].items():
        _fill_text(event_out, column, getattr(record, field), tail)
    event_out["event_time"] = getattr(record, "event_time", 0)
    event_out["quantity"] = getattr(record, "quantity", 0)
    if kind in TIMES:
        time = getattr(record, TIMES[kind])
        event_out["time"] = record.event_time if time is None else time
    if kind in (Kind.PLACED, Kind.HELD, Kind.CHANGED):
        _fill_request(event_out, record, tail)
    if getattr(record, "missing", False):
        event_out["flags"] |= MISSING
    line_ids, lines = getattr(record, "line_ids", None), getattr(record, "lines", None)
    if lines is None:
        lines = line_ids
    if lines is None:
        return
    event_out["flags"] |= HAS_LINES
    event_out["first_line"] = tail.line_end + len(tail.lines)
    event_out["line_count"] = len(lines)
    for line in lines:
        if lines is line_ids:
            tail.line(line, None, 0)
        else:
            tail.line(line.line_id, getattr(line, "sku", None), line.quantity, UNSTOCKED * (not getattr(line, "stocked", True)))


def _fill_request(event_out: dict, record: Any, tail: _Tail) -> None:
    """Write what only a placed, held or changed order has: flags, and the place its mode asks for."""
    pickup = record.mode == "pickup"
    event_out["flags"] = (
        ALLOW_SPLIT * bool(record.allow_split)
        | ALLOW_PARTIAL * bool(record.allow_partial)
        | PICKUP * pickup
        | URGENT * (record.service_level == "urgent")
    )
    if isinstance(record, Changed):
        event_out["given"] = sum(bit for field, bit in _GIVEN.items() if getattr(record, field) is not None)
        if record.destination is None:
            return
    elif pickup:
        return
    else:
        _fill_text(event_out, "location", None, tail)
    event_out["latitude"] = record.destination.latitude + 0.0  # never -0.0
    event_out["longitude"] = record.destination.longitude + 0.0


def _fill_click(click_out: dict, record: Any, tail: _Tail) -> None:
    """Write a click's fields into its CLICK row."""
    click_out["kind"] = Kind[record.kind.upper()]
    click_out["event_time"] = record.event_time
    click_out["latitude"] = np.nan if record.latitude is None else record.latitude + 0.0  # never -0.0
    click_out["longitude"] = np.nan if record.longitude is None else record.longitude + 0.0
    _fill_text(click_out, "event_id", record.event_id, tail)
    for column in ("visitor", "pool", "customer", "campaign"):
        _fill_text(click_out, column, getattr(record, f"{column}_id"), tail)
    for column in ("sku", "channel"):
        _fill_text(click_out, column, getattr(record, column), tail)


def warm() -> None:
    """Compile the scanner, or load it from numba's cache, before the first batch is waited for."""
    decode(records_of([]), [])
    decode_clicks(records_of([]))
