"""What an event says, as one number: by it an event that is sent again is told from another one of the same id.

All columns of EVENT, LINE and CLICK are content but those listed here, so a column that is added counts unless it is listed.
Descriptive fields have no column, and how the JSON was written has none either.
Rows are read as words of their table's alignment. Each is masked by which of its bytes are content, and texts follow by what
they say.
Owner: decode.py. Not here: whose ids are compared, and for how long (state/seen.py).
"""

import numpy as np

from topics.codec.grammar import PREFIX, word_at
from topics.columns import CLICK, EVENT, LINE
from topics.compiled.kernels import forced_inline, kernel

_PLACE = ("topic", "offset", "timestamp", "event_id")  # which record it is, and what the ids compared have in common
_WRITTEN = ("reason", "outcome", "content")  # by the decoder, the engine, this file
_CHILDREN = ("first_line",)  # a place in the batch; the lines are content
_DESCRIPTIVE = ("customer", "campaign")

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
_SHIFT = np.uint64(29)


def _content_of(table: np.dtype, *left_out: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the content of a table's rows: all columns but those left out, texts by what they say, not by where they are.

    Returns
    -------
    places : int64[n]
        The words of a row that have some of it.
    masks : uint64[n]
        Those bytes of each that are content.
    texts : int64[k, 2]
        Of each text, the places of its `_at` and `_size` in words of 4 bytes.
    """
    fields, names = dict(table.fields or {}), list(table.names or ())
    texts = [name.removesuffix("_at") for name in names if name.endswith("_at")]
    if unknown := [name for name in left_out if name not in names and name not in texts]:
        raise ValueError(f"expected columns of the table, to be left out of its content; found {unknown}")
    kept = bytearray(table.itemsize)
    for name in names:
        if name not in left_out and name.rpartition("_")[0] not in left_out and not name.endswith("_at"):
            dtype, at = fields[name][:2]
            kept[at : at + dtype.itemsize] = b"\xff" * dtype.itemsize
    masks = np.frombuffer(kept, _word(table)).astype(np.uint64)
    places = np.flatnonzero(masks)
    spans = [(fields[f"{text}_at"][1] // 4, fields[f"{text}_size"][1] // 4) for text in texts if text not in left_out]
    return places, masks[places], np.array(spans, np.int64).reshape(len(spans), 2)


def _word(table: np.dtype) -> np.dtype:
    return np.dtype(f"u{table.alignment}")


_EVENT_PLACES, _EVENT_MASKS, _EVENT_TEXTS = _content_of(EVENT, *_PLACE, *_WRITTEN, *_CHILDREN)
_LINE_PLACES, _LINE_MASKS, _LINE_TEXTS = _content_of(LINE)
_CLICK_PLACES, _CLICK_MASKS, _CLICK_TEXTS = _content_of(CLICK, *_PLACE, "reason", "content", *_DESCRIPTIVE)


def note_contents(events_inout: np.ndarray, lines: np.ndarray, buffer: np.ndarray) -> None:
    """Fill the column `content` of EVENT rows that could be read.

    Parameters
    ----------
    events_inout : EVENT[n]
    lines : LINE[]
    buffer : uint8[]
        Where the texts are, and at least seven bytes more.
    """
    _note_events(events_inout, *_as_words(events_inout), *_as_words(lines), buffer)


def note_click_contents(clicks_inout: np.ndarray, buffer: np.ndarray) -> None:
    """Fill the column `content` of CLICK rows, as `note_contents` does."""
    _note_clicks(clicks_inout, *_as_words(clicks_inout), buffer)


def _as_words(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """View rows as words of the table's alignment, and as signed words of 4 bytes."""
    table = rows.dtype
    words, numbers = rows.view(_word(table)), rows.view(np.int32)
    return words.reshape(-1, table.itemsize // table.alignment), numbers.reshape(-1, table.itemsize // 4)


@forced_inline
def _mixed(hashed, word):
    hashed = (hashed ^ word) * _MULTIPLIER
    return hashed ^ hashed >> _SHIFT


@forced_inline
def _row(hashed, words, numbers, row, places, masks, texts, buffer):
    """Mix a row's content into a hash."""
    for i in range(places.size):
        hashed = _mixed(hashed, np.uint64(words[row, places[i]]) & masks[i])
    for i in range(texts.shape[0]):
        at = np.int64(numbers[row, texts[i, 0]])
        end = at + numbers[row, texts[i, 1]]
        while at < end:
            hashed = _mixed(hashed, word_at(buffer, at) & PREFIX[min(end - at, 8)])
            at += 8
    return hashed


@kernel
def _note_events(events_inout, words, numbers, line_words, line_numbers, buffer):
    for row in range(events_inout.size):
        event = events_inout[row]
        if event.kind == 0:
            continue
        hashed = _row(np.uint64(0), words, numbers, row, _EVENT_PLACES, _EVENT_MASKS, _EVENT_TEXTS, buffer)
        for line in range(event.first_line, event.first_line + event.line_count):
            hashed = _row(hashed, line_words, line_numbers, line, _LINE_PLACES, _LINE_MASKS, _LINE_TEXTS, buffer)
        event.content = hashed


@kernel
def _note_clicks(clicks_inout, words, numbers, buffer):
    for row in range(clicks_inout.size):
        if clicks_inout[row].kind > 0:
            hashed = _row(np.uint64(0), words, numbers, row, _CLICK_PLACES, _CLICK_MASKS, _CLICK_TEXTS, buffer)
            clicks_inout[row].content = hashed
