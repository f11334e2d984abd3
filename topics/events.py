"""What comes in: a pydantic model for each input record, and the judge that takes or refuses it.

Owner: the public contract. Values are UTF-8 JSON objects; unknown fields are ignored; types are strict ("5", 5.5 and
true are not integers, 5.0 is); `null` for an optional field means that it is absent. Quantities are units, money is minor units
(cents), times are epoch milliseconds UTC, coordinates are degrees, distances kilometres. A field that only describes its event
(`Described`) is left out if it is wrong.
Invariants: nothing is renamed, removed or given another meaning; the fast decoder (codec/decode.py) never accepts what
`judge` refuses, nor reads it otherwise.
Not here: what goes out (outputs.py), the numbers behind the words (reasons.py), keys, partitions and retention (catalogue.py),
what events do (streams/).
"""

import re
import reprlib
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from topics.reasons import DeadLetter

MAX_QUANTITY = 1_000_000_000  # units
MAX_TIME = 253_402_300_799_999  # epoch ms: the end of the year 9999
EARLIEST_MS = 946_684_800_000  # 2000-01-01T00:00:00Z: no event happened before
MAX_MONEY = 1_000_000_000_000  # minor units, either sign
MAX_ID = 128  # characters
MAX_LINES = 1000
MAX_VALUE_BYTES = 4 << 20


# What no id may contain: first and last code points. Listed, since what Python calls printable depends on its Unicode version;
# a character that some later version assigns is printable here from the start.
UNPRINTABLE = (
    *((0x00, 0x1F), (0x7F, 0x9F)),  # controls
    *((0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)),  # other spaces
    (0x2028, 0x2029),  # separators of lines and paragraphs
    *((0xAD, 0xAD), (0x600, 0x605), (0x61C, 0x61C), (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2)),  # format
    *((0x180E, 0x180E), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB)),
    *((0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE007F)),
    (0xD800, 0xF8FF),  # surrogates, private use
    (0xF0000, 0x10FFFF),  # private use
    *((0xFDD0, 0xFDEF), *((plane + 0xFFFE, plane + 0xFFFF) for plane in range(0, 0xF0000, 0x10000))),  # no characters
)
_UNPRINTABLE = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in UNPRINTABLE) + "]")


def _printable(text: str) -> str:
    if _UNPRINTABLE.search(text):
        raise PydanticCustomError("not_printable", "Input should be printable text")
    if not text.strip(" "):
        raise PydanticCustomError("blank", "Input should be more than blanks")
    return text


def _whole(found: Any) -> Any:
    return int(found) if isinstance(found, float) and found.is_integer() else found


def _not_zero(quantity: int) -> int:
    if quantity == 0:
        raise PydanticCustomError("zero", "Input should be other than 0")
    return quantity


def _distinct_line_ids(lines: list) -> list:
    seen = set()
    for line in lines:
        if line.line_id in seen:
            raise PydanticCustomError(
                "line_id_repeated", "Input should be lines with different line ids", {"found": line.line_id}
            )
        seen.add(line.line_id)
    return lines


def _check_place(order: Any) -> None:
    """Check that an order has the place that its mode needs."""
    needed = "destination" if order.mode == "delivery" else "pickup_location_id"
    if getattr(order, needed) is None:
        raise PydanticCustomError(
            "missing_for_mode", "Input should be given for mode {mode}", {"mode": order.mode, "where": needed}
        )


def _null_means(default: Any) -> BeforeValidator:
    return BeforeValidator(lambda found: default if found is None else found)


def _left_out_if_wrong(found: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Read a field that only describes its event; if it is wrong it is left out, and noted in the context, a list."""
    try:
        return read(found)
    except ValidationError:
        if info.context is not None:
            info.context.append(info.field_name)
        return None


Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID), AfterValidator(_printable)]
Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer, which may be written `12.0` or `1.2e1`."""
Time = Annotated[Whole, Field(ge=0, le=MAX_TIME)]
Units = Annotated[Whole, Field(ge=1, le=MAX_QUANTITY)]
UnitsOrNone = Annotated[Whole, Field(ge=0, le=MAX_QUANTITY)]
Change = Annotated[Whole, Field(ge=-MAX_QUANTITY, le=MAX_QUANTITY), AfterValidator(_not_zero)]
Money = Annotated[Whole, Field(ge=-MAX_MONEY, le=MAX_MONEY)]
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Reach = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""How far, km."""
Described = WrapValidator(_left_out_if_wrong)
"""Of an optional field that changes nothing but what is told of the event: a wrong one never costs the event."""
Label = Annotated[Id | None, Described]


class Record(BaseModel):
    """Any record's value."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


# Inputs. `kind` stands first in a model that is not chosen by it, so that a wrong kind is named before other errors.


class Sale(Record):
    """`sales.v1`, key: pool id. A till's line: on hand − `quantity` (1 to 10⁹ units) for `sale`, + for `return`.

    A sale with `order_id` (and `line_id`) is the collection of a pickup order's line at the till.
    """

    kind: Literal["sale", "return"]
    event_id: Id
    event_time: Time
    location_id: Id
    sku: Id
    quantity: Units
    channel: Label = None
    customer_id: Label = None
    receipt_id: Label = None
    unit_price: Annotated[Money | None, Described] = None
    currency: Label = None
    order_id: Id | None = None
    line_id: Id | None = None


class StockEvent(Record):
    """`stock.v1`, key: pool id. What every kind of stock event has."""

    event_id: Id
    event_time: Time
    location_id: Id
    sku: Id


class Receipt(StockEvent):
    """`stock.v1`: on hand + `quantity` (1 to 10⁹ units)."""

    kind: Literal["receipt"]
    quantity: Units
    lot_id: Label = None
    expires_at: Annotated[Time | None, Described] = None


class Adjustment(StockEvent):
    """`stock.v1`: on hand ± `quantity` (-10⁹ to 10⁹ units, not 0); `reason` is free text."""

    kind: Literal["adjustment"]
    quantity: Change
    reason: Annotated[str | None, Described] = None


class Count(StockEvent):
    """`stock.v1`: on hand was `quantity` (0 to 10⁹ units) at `counted_at` (default: `event_time`)."""

    kind: Literal["count"]
    quantity: UnitsOrNone
    counted_at: Time | None = None


class TransferOut(StockEvent):
    """`stock.v1`: `quantity` (1 to 10⁹ units) left `location_id` for `to_location_id`."""

    kind: Literal["transfer_out"]
    quantity: Units
    transfer_id: Id
    to_location_id: Id


class TransferIn(StockEvent):
    """`stock.v1`: `quantity` (1 to 10⁹ units) of a transfer arrived at `location_id`."""

    kind: Literal["transfer_in"]
    quantity: Units
    transfer_id: Id
    to_location_id: Id | None = None


class Expected(StockEvent):
    """`stock.v1`: future supply, set absolute per `supply_id` (0 to 10⁹ units); not available to promise yet."""

    kind: Literal["expected"]
    quantity: UnitsOrNone
    expected_at: Time
    supply_id: Id


class SafetyStock(StockEvent):
    """`stock.v1`: sets the units (0 to 10⁹) of the cell that are never promised to online orders."""

    kind: Literal["safety_stock"]
    quantity: UnitsOrNone


class Quarantine(StockEvent):
    """`stock.v1`: `quarantine` takes `quantity` units (1 to 10⁹) off on hand, `release` gives them back."""

    kind: Literal["quarantine", "release"]
    quantity: Units


class OrderLine(Record):
    """A line of an order: `quantity` is 1 to 10⁹ units, `unit_price` minor units.

    A line that is not `stocked` (carriage, a gift wrap) is never routed or waited for.
    """

    line_id: Id
    sku: Id
    quantity: Units
    unit_price: Annotated[Money | None, Described] = None
    stocked: Annotated[bool, _null_means(True)] = True


class Destination(Record):
    """Where a delivery goes: degrees, [-90, 90] and [-180, 180]."""

    latitude: Latitude
    longitude: Longitude


class OrderEvent(Record):
    """`orders.v1`, key: pool id. What every kind of order event has."""

    event_id: Id
    event_time: Time
    order_id: Id


OrderLines = Annotated[list[OrderLine], Field(min_length=1, max_length=MAX_LINES), AfterValidator(_distinct_line_ids)]


class OrderRequest(OrderEvent):
    """What `placed` and `held` share: 1 to 1000 lines, and `destination` or `pickup_location_id` as `mode` needs."""

    lines: OrderLines
    mode: Annotated[Literal["delivery", "pickup"], _null_means("delivery")] = "delivery"
    destination: Destination | None = None
    pickup_location_id: Id | None = None
    service_level: Annotated[Literal["standard", "urgent"], _null_means("standard")] = "standard"
    allow_split: Annotated[bool, _null_means(True)] = True
    allow_partial: Annotated[bool, _null_means(True)] = True
    channel: Label = None
    customer_id: Label = None
    currency: Label = None
    campaign_id: Label = None

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        _check_place(self)
        return self


class Placed(OrderRequest):
    """`orders.v1`: an order to be promised; it confirms a hold of the same `order_id`."""

    kind: Literal["placed"]


class Held(OrderRequest):
    """`orders.v1`: a checkout hold, which expires by itself at `expires_at`."""

    kind: Literal["held"]
    expires_at: Time


class CancelledLine(Record):
    """Units (1 to 10⁹) of a line that are not wanted any more."""

    line_id: Id
    quantity: Units


CancelledLines = Annotated[list[CancelledLine], Field(min_length=1, max_length=MAX_LINES), AfterValidator(_distinct_line_ids)]


class Cancelled(OrderEvent):
    """`orders.v1`: unshipped units of the order, of `line_ids` only, or so many of each of `lines`, are given back."""

    kind: Literal["cancelled"]
    line_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_LINES)] | None = None
    lines: CancelledLines | None = None

    @model_validator(mode="after")
    def _names_lines_once(self) -> Self:
        if self.line_ids is not None and self.lines is not None:
            raise PydanticCustomError("both", "Input should be given without line_ids", {"where": "lines"})
        return self


class Changed(OrderEvent):
    """`orders.v1`: the order as it shall be now. What is absent stays; `lines` is the whole list; `mode` needs its place."""

    kind: Literal["changed"]
    lines: OrderLines | None = None
    mode: Literal["delivery", "pickup"] | None = None
    destination: Destination | None = None
    pickup_location_id: Id | None = None
    service_level: Literal["standard", "urgent"] | None = None
    allow_split: bool | None = None
    allow_partial: bool | None = None

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if self.mode is not None:
            _check_place(self)
        return self


class FulfilmentLine(Record):
    """Units (1 to 10⁹) of a line that a fulfilment is about. A `sku` says what it was if nobody knows the line."""

    quantity: Units
    line_id: Id | None = None
    sku: Id | None = None

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if self.line_id is None and self.sku is None:
            raise PydanticCustomError("missing_what", "Input should name a line or a SKU", {"where": "line_id"})
        return self


class Fulfilment(Record):
    """`fulfilments.v1`, key: pool id. What a location answers; without `lines` it is about the whole shipment."""

    event_id: Id
    event_time: Time
    order_id: Id
    location_id: Id
    lines: Annotated[list[FulfilmentLine], Field(max_length=MAX_LINES)] | None = None
    reason: Annotated[str | None, Described] = None


class Answered(Fulfilment):
    """`fulfilments.v1`: units of a shipment left, were picked up, or can't be provided; `missing` ones could not be found."""

    kind: Literal["shipped", "collected", "rejected"]
    shipment_id: Id
    missing: Annotated[bool, _null_means(False)] = False


class Returned(Fulfilment):
    """`fulfilments.v1`: units came back to `location_id`; without `shipment_id` the order's shipments are searched."""

    kind: Literal["returned"]
    shipment_id: Id | None = None


class Tick(Record):
    """`ticks.v1`, key: pool id. Internal: the owner of a quiet pool notes in the log that time has passed."""

    pool_id: Id


class Click(Record):
    """`clicks.v1`, key: visitor id. What a visitor did."""

    kind: Literal["view", "search", "cart", "wishlist", "checkout"]
    event_id: Id
    event_time: Time
    visitor_id: Id
    channel: Id
    sku: Id | None = None
    customer_id: Label = None
    campaign_id: Label = None
    pool_id: Id | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None


CAPABILITIES = {
    "warehouse": ["ship"],
    "regional_warehouse": ["ship"],
    "front_warehouse": ["ship", "pickup"],
    "store": ["ship", "pickup"],
    "pickup_point": ["pickup"],
}


class LocationRecord(Record):
    """`locations.v1`, key: location id; also an entry of the network file. A place of a pool as it is now.

    `capabilities` default by kind (`CAPABILITIES`); of equally near locations the lower `priority` (0 to 10⁹) is
    preferred; `daily_capacity` is shipments a day (0 to 10⁹), null = no limit. A destination, or a pickup location that gets a
    transfer, may be no farther than `max_distance_km`; null = no limit.
    """

    kind: Literal["warehouse", "regional_warehouse", "front_warehouse", "store", "pickup_point"]
    id: Id
    pool: Id
    latitude: Latitude
    longitude: Longitude
    capabilities: list[Literal["ship", "pickup"]] | None = None
    enabled: Annotated[bool, _null_means(True)] = True
    priority: Annotated[UnitsOrNone, _null_means(100)] = 100
    daily_capacity: UnitsOrNone | None = None
    max_distance_km: Reach | None = None

    @model_validator(mode="before")
    @classmethod
    def _capable_by_kind(cls, found: Any) -> Any:
        if isinstance(found, dict) and found.get("capabilities") is None and isinstance(found.get("kind"), str):
            return {**found, "capabilities": CAPABILITIES.get(found["kind"])}
        return found


# The judge.

MODELS: dict[str, tuple[type[Record], ...]] = {
    "sales.v1": (Sale,),
    "stock.v1": (Receipt, Adjustment, Count, TransferOut, TransferIn, Expected, SafetyStock, Quarantine),
    "orders.v1": (Placed, Held, Cancelled, Changed),
    "fulfilments.v1": (Answered, Returned),
    "ticks.v1": (Tick,),
    "clicks.v1": (Click,),
    "locations.v1": (LocationRecord,),
}


def _one_of(models: tuple[type[Record], ...]) -> Any:
    """Make the type of a record that is one of the models, by its `kind`."""
    return Annotated[reduce(or_, models), Field(discriminator="kind")]


_BY_KIND = {topic for topic, models in MODELS.items() if len(models) > 1}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    topic: TypeAdapter(_one_of(models) if topic in _BY_KIND else models[0]) for topic, models in MODELS.items()
}

_REASONS = {
    "json_invalid": DeadLetter.NOT_JSON,
    "missing": DeadLetter.MISSING_FIELD,
    "missing_for_mode": DeadLetter.MISSING_FIELD,
    "missing_what": DeadLetter.MISSING_FIELD,
    "both": DeadLetter.WRONG_FIELD,
    "union_tag_not_found": DeadLetter.MISSING_FIELD,
} | dict.fromkeys(
    (
        "greater_than",
        "greater_than_equal",
        "less_than_equal",
        "finite_number",
        "zero",
        "too_short",
        "too_long",
        "int_parsing_size",
    ),
    DeadLetter.OUT_OF_RANGE,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record is refused: a reason of the closed list, and a sentence with where, expected and found."""

    reason: DeadLetter
    detail: str


def judge(topic: str, value: bytes | None, left_out: list[str] | None = None) -> Any:
    """Read one input record as the contract has it.

    Parameters
    ----------
    topic : str
        A key of `MODELS`.
    value : bytes or None
        The record's value.
    left_out : list of str, optional
        Told the fields that only describe a good record, were wrong, and are left out.

    Returns
    -------
    Record or Refusal
        The model of the topic and kind, or why there is none.

    Examples
    --------
    >>> judge("ticks.v1", b'{"pool_id": "uk"}')
    Tick(pool_id='uk')
    >>> judge("ticks.v1", b'{"pool_id": 5}')
    Refusal(reason=<DeadLetter.WRONG_FIELD: 3>, detail='pool_id: expected a valid string, found 5')
    >>> sale = b'{"event_id":"e","event_time":5,"kind":"sale","location_id":"A","sku":"s","quantity":1,"customer_id":""}'
    >>> judge("sales.v1", sale, left_out := []).customer_id, left_out
    (None, ['customer_id'])
    """
    if value is None:
        return Refusal(DeadLetter.NOT_JSON, "value: expected a JSON object, found none")
    if len(value) > MAX_VALUE_BYTES:
        return Refusal(DeadLetter.TOO_LARGE, f"value: expected at most {MAX_VALUE_BYTES} bytes, found {len(value)}")
    try:
        return _ADAPTERS[topic].validate_json(value, context=left_out)
    except ValidationError as error:
        return refusal(error, skip=topic in _BY_KIND)


def refusal(error: ValidationError, skip: bool = False) -> Refusal:
    """Say in the contract's words what pydantic found first; `skip` leaves out the first part of each place."""
    errors = error.errors(include_url=False)
    first = errors[0]
    place = first["loc"][1:] if skip else first["loc"]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Refusal(_reason(first, place), _sentence(first, place) + more)


def looks_like(time: int, latest: int) -> str:
    """Name the unit in which a number would be a time from `EARLIEST_MS` to `latest`; "" if there is none.

    Examples
    --------
    >>> looks_like(1_700_000_000, MAX_TIME), looks_like(1_700_000_000_000_000, MAX_TIME), looks_like(5, MAX_TIME)
    ('seconds', 'microseconds', '')
    """
    for unit, read in (("seconds", time * 1000), ("microseconds", time // 1000), ("nanoseconds", time // 1_000_000)):
        if EARLIEST_MS <= read <= latest:
            return unit
    return ""


def _reason(error: ErrorDetails, place: tuple) -> DeadLetter:
    if error["type"] in _REASONS:
        reason = _REASONS[error["type"]]
        past = reason is DeadLetter.OUT_OF_RANGE and place[-1] in ("event_time", "counted_at")
        return DeadLetter.TIME_OUT_OF_RANGE if past else reason
    if error["type"] == "union_tag_invalid":
        return DeadLetter.MISSING_FIELD if error["input"]["kind"] is None else DeadLetter.UNKNOWN_KIND
    if not place:
        return DeadLetter.NOT_JSON  # the value is JSON, but no object
    if error["input"] is None:
        return DeadLetter.MISSING_FIELD
    return DeadLetter.UNKNOWN_KIND if place == ("kind",) else DeadLetter.WRONG_FIELD


def _sentence(error: ErrorDetails, place: tuple) -> str:
    context = error.get("ctx", {})
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")
    match error["type"]:
        case "json_invalid":
            return f"value: expected a JSON object, found {context['error']}"
        case "union_tag_not_found":
            return "kind: expected, found none"
        case "union_tag_invalid":
            return f"kind: expected one of {context['expected_tags']}, found {_shown(error['input']['kind'])}"
        case "missing":
            return f"{where}: expected, found none"
        case "missing_for_mode":
            return f"{context['where']}: expected for mode {context['mode']}, found none"
        case "missing_what":
            return f"{where}: expected line_id or sku, found neither"
        case "both":
            return "lines: expected either lines or line_ids, found both"
        case "too_short" | "too_long":
            bound = context.get("min_length", context.get("max_length"))
            least = "least" if error["type"] == "too_short" else "most"
            return f"{where}: expected at {least} {bound} entries, found {context['actual_length']}"
        case _:
            expected = error["msg"].removeprefix("Input should be ").removeprefix("String should have ")
            found = context.get("found", error["input"])
            unit = looks_like(found, MAX_TIME) if context.get("le") == MAX_TIME else ""
            return f"{where or 'value'}: expected {expected}, found {_shown(found)}" + (unit and f", which looks like {unit}")


def _shown(found: Any) -> str:
    return "null" if found is None else reprlib.repr(found)
