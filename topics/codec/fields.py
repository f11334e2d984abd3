"""What the scanner knows of the contract, drawn from the models: field codes, who has which field, words by hash.

A field's code is its place in `FIELDS`; a set of fields is a bit mask of codes. Fields are grouped by how they are read, and
a model's field that is in no group fails the import, since the scanner could not read it.
`TEXTS` and `TIMES` say which column a kind's field fills, for the scanner and for the models' way alike.
Not here: reading (scan.py), bounds and meaning (topics/events.py).
"""

from collections.abc import Iterable
from typing import Any, get_args

import numpy as np
from annotated_types import Ge

from topics.catalogue import CLICKS as CLICKS_TOPIC
from topics.catalogue import INVENTORY_TOPICS
from topics.events import MODELS, Destination, FulfilmentLine, OrderLine, Record
from topics.reasons import Kind

IDS = (
    *("event_id", "location_id", "sku", "order_id", "shipment_id", "transfer_id", "supply_id", "pool_id", "visitor_id"),
    *("to_location_id", "pickup_location_id", "line_id", "channel", "customer_id", "receipt_id", "currency", "lot_id"),
    "campaign_id",
)
FREE_TEXTS = ("reason",)
MOMENTS = ("event_time", "counted_at", "expires_at", "expected_at")
INTEGERS = ("quantity", "unit_price")
DEGREES = ("latitude", "longitude")
SWITCHES = ("allow_split", "allow_partial", "stocked", "missing")
CHOICES = ("kind", "mode", "service_level")
NESTED = ("destination", "lines", "line_ids")
FIELDS = ("", *IDS, *FREE_TEXTS, *MOMENTS, *INTEGERS, *DEGREES, *SWITCHES, *CHOICES, *NESTED)  # code 0: nobody reads it
CODE = {name: code for code, name in enumerate(FIELDS)}


def mask(names: Iterable[str]) -> int:
    """The set of these fields."""
    return sum(1 << CODE[name] for name in set(names))


def required(model: type[Record]) -> int:
    """The set of fields that a record must have."""
    return mask(name for name, field in model.model_fields.items() if field.is_required())


def _kinds(model: type[Record]) -> list[Kind]:
    if "kind" not in model.model_fields:
        return [Kind.TICK]
    return [Kind[word.upper()] for word in get_args(model.model_fields["kind"].annotation)]


SALES, STOCK, ORDERS, FULFILMENTS, TICKS = range(len(INVENTORY_TOPICS))
CLICKS = len(INVENTORY_TOPICS)  # only the scanner counts clicks.v1 among the topics
_SCANNED = (*INVENTORY_TOPICS, CLICKS_TOPIC)

# By topic: the fields that any of its models has. By kind: its topic, its model's required fields, its smallest quantity.
KIND_COUNT = max(Kind) + 1
KNOWN = np.array([mask(name for model in MODELS[topic] for name in model.model_fields) for topic in _SCANNED])
TOPIC_OF = np.full(KIND_COUNT, -1)
NEEDS = np.zeros(KIND_COUNT, np.int64)
LEAST = np.ones(KIND_COUNT, np.int64)
for _code, _topic in enumerate(_SCANNED):
    for _model in MODELS[_topic]:
        TOPIC_OF[_kinds(_model)] = _code
        NEEDS[_kinds(_model)] = required(_model)
        if "quantity" in _model.model_fields:
            _bounds: list[Any] = [each.ge for each in _model.model_fields["quantity"].metadata if isinstance(each, Ge)]
            LEAST[_kinds(_model)] = _bounds[0]

ORDER_LINE, ORDER_LINE_NEEDS = mask(OrderLine.model_fields), required(OrderLine)
FULFILMENT_LINE, FULFILMENT_LINE_NEEDS = mask(FulfilmentLine.model_fields), required(FulfilmentLine)
DESTINATION, DESTINATION_NEEDS = mask(Destination.model_fields), required(Destination)

# Which text column a field fills, and what each kind fills: column -> field. An order's location counts for a pickup only.
_FILLS = {
    "event_id": ("event_id",),
    "location": ("location_id", "pickup_location_id"),
    "sku": ("sku",),
    "reference": ("order_id", "transfer_id", "supply_id", "pool_id"),
    "shipment": ("shipment_id", "line_id"),
    "target": ("to_location_id",),
}
COLUMNS = tuple(_FILLS)
TEXTS: dict[Kind, dict[str, str]] = {
    kind: {column: name for column, names in _FILLS.items() for name in names if name in model.model_fields}
    for topic in INVENTORY_TOPICS
    for model in MODELS[topic]
    for kind in _kinds(model)
}
TIMES = {Kind.COUNT: "counted_at", Kind.EXPECTED: "expected_at", Kind.HELD: "expires_at"}  # fills `time`

TEXT_OF = np.zeros((KIND_COUNT, len(COLUMNS)), np.int64)  # field codes
TIME_OF = np.zeros(KIND_COUNT, np.int64)
for _kind, _texts in TEXTS.items():
    for _column, _field in _texts.items():
        TEXT_OF[_kind, COLUMNS.index(_column)] = CODE[_field]
for _kind, _field in TIMES.items():
    TIME_OF[_kind] = CODE[_field]

# A lexicon finds words of at most `LONGEST_WORD` bytes by one multiplication.
# A row: the word as three little-endian integers, its code.
LEXICON_BITS = 8
LONGEST_WORD = 24
_WORD_BITS = (1 << 64) - 1


def _lexicon(words: dict[str, int]) -> tuple[np.ndarray, np.uint64]:
    """Lay words out so that no two share a row: (uint64[rows, 4], the multiplier, found by trial)."""
    if long := [word for word in words if len(word.encode()) > LONGEST_WORD]:
        raise ValueError(f"expected words of at most {LONGEST_WORD} bytes, which the scanner finds; found {long}")
    parts = {word: [int.from_bytes(word.encode()[at : at + 8], "little") for at in (0, 8, 16)] for word in words}
    multiplier = 0x9E3779B97F4A7C15
    while len({_row(part, multiplier) for part in parts.values()}) < len(words):
        multiplier = (multiplier * 0xD1342543DE82EF95 + 2) & _WORD_BITS
    table = np.zeros((1 << LEXICON_BITS, 4), np.uint64)
    for word, code in words.items():
        table[_row(parts[word], multiplier)] = [*parts[word], code]
    return table, np.uint64(multiplier)


def _row(parts: list[int], multiplier: int) -> int:
    first, second, third = parts
    mixed = first ^ (second >> 7) ^ (second << 9 & _WORD_BITS) ^ third
    return (mixed * multiplier & _WORD_BITS) >> (64 - LEXICON_BITS)


DELIVERY, PICKUP_MODE, STANDARD, URGENT_LEVEL = range(KIND_COUNT, KIND_COUNT + 4)  # the codes of choices that are no kind
KEY_TABLE, KEY_MULTIPLIER = _lexicon({name: code for name, code in CODE.items() if name})
CHOICE_TABLE, CHOICE_MULTIPLIER = _lexicon(
    {kind.wire: kind.value for kind in Kind if TOPIC_OF[kind] >= 0}
    | {"delivery": DELIVERY, "pickup": PICKUP_MODE, "standard": STANDARD, "urgent": URGENT_LEVEL}
)
