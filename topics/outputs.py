"""What goes out: a pydantic model for each output record.

Owner: the public contract; conventions as in events.py. The codec writes these records byte by byte; tests read each one back
by its model.
Invariant: nothing is renamed, removed or given another meaning.
Not here: what comes in (events.py), who writes a record (streams/), keys, partitions and retention (catalogue.py).
"""

from typing import Annotated, Literal

from pydantic import Field

from topics.events import Id, Record, Time, Units, UnitsOrNone
from topics.reasons import AlertKind, AlertStatus, DeadLetter, Lost, ShipmentKind, Status, TransferStatus, Unallocated, Won


class Inventory(Record):
    """`inventory.v1`, key: `{location_id}/{sku}` (keys.py). A cell after a change; a greater `version` is newer."""

    pool_id: Id
    location_id: Id
    sku: Id
    on_hand: int
    reserved: Annotated[int, Field(ge=0)]
    safety_stock: UnitsOrNone
    available: Annotated[int, Field(ge=0)]
    version: Annotated[int, Field(ge=1)]
    updated_at: Time


class Transfer(Record):
    """`transfers.v1`, key: `{pool_id}/{transfer_id}/{sku}` (keys.py). A SKU of a transfer after a change.

    A key's last record is the newest. `sent` and `received` are sums of all `transfer_out` and all `transfer_in`, in whatever
    order they came; `open` units are under way. `from` and `to` are what the last `transfer_out` said. Until one is known,
    `from` is null and `to` is where units arrived. `sent_at` is the earliest `event_time` of a `transfer_out`, `expected_at` is
    `transfer_days` later; both are null until a `transfer_out` is known. `updated_at` is the pool's clock at the change.
    An empty record: the transfer is forgotten. One that is settled is forgotten at `expected_at`, or at once if that is past;
    what arrives later is `excess`, in sums that begin anew.
    """

    pool_id: Id
    transfer_id: Id
    from_: Annotated[Id | None, Field(alias="from")]
    to: Id
    sku: Id
    sent: Annotated[int, Field(ge=0)]
    received: Annotated[int, Field(ge=0)]
    open: Annotated[int, Field(ge=0)]
    sent_at: Time | None
    expected_at: Time | None
    status: Literal[*(status.wire for status in TransferStatus)]
    updated_at: Time


class Supply(Record):
    """`supplies.v1`, key: `{pool_id}/{supply_id}/{sku}` (keys.py). Units that are to come, as the last `expected` says.

    `updated_at` is the pool's clock at the change. An empty record: nothing is to come any more.
    """

    pool_id: Id
    supply_id: Id
    location_id: Id
    sku: Id
    quantity: Units
    expected_at: Time
    updated_at: Time


class LinePart(Record):
    """A part of a kit's line: `quantity` is the units of `sku` for all kits of the line together."""

    sku: Id
    quantity: Annotated[int, Field(ge=1)]


class ShipmentLine(Record):
    """Units of a line that a shipment holds. If `sku` is a kit, `quantity` counts kits; `parts` is what they are made of."""

    line_id: Id
    sku: Id
    quantity: Units
    parts: list[LinePart] | None = None


class Shipment(Record):
    """What one location ships of an order, and how far it is from there to the customer or the pickup location."""

    shipment_id: Id
    location_id: Id
    kind: Literal[*(kind.wire for kind in ShipmentKind)]
    distance_km: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    lines: list[ShipmentLine]


class UnallocatedLine(Record):
    """Units of a line that wait, or can't be met, and why; `parts` as in a shipment."""

    line_id: Id
    sku: Id
    quantity: Units
    parts: list[LinePart] | None = None
    reason: Literal[*(reason.wire for reason in Unallocated)]


class Source(Record):
    """The record that caused a decision."""

    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]


class LostLocation(Record):
    """A location that was considered and not chosen."""

    location_id: Id
    distance_km: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    reason: Literal[*(reason.wire for reason in Lost)]


class Explanation(Record):
    """Why a decision is as it is: how many locations were considered, what won, the best few that lost."""

    policy: str
    version: int
    considered: Annotated[int, Field(ge=0)]
    won: Literal[*(reason.wire for reason in Won)]
    lost: list[LostLocation]


class Allocation(Record):
    """`allocations.v1`, key: order id. One decision; `shipments` are the order's open ones after it, whole."""

    allocation_id: Id
    sequence: Annotated[int, Field(ge=1)]
    order_id: Id
    pool_id: Id
    status: Literal[*(status.wire for status in Status)]
    shipments: list[Shipment]
    unallocated: list[UnallocatedLine]
    policy: str
    decided_at: Time
    source: Source
    explanation: Explanation


class DeadLetterRecord(Record):
    """`dead-letter.v1`, key: the refused record's. A record that was refused, whole; `key` and `value` are base64."""

    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    timestamp: int
    reason: Literal[*(reason.wire for reason in DeadLetter)]
    detail: str
    key: str | None
    value: str | None


class DeadLetterReplay(Record):
    """`dead-letter-replays.v1`, key: `{topic}/{partition}/{offset}`. The record of the dead letter there was sent again.

    Written in the transaction that sends the record. `refused_at` is the dead letter's own time, by which it is told from one
    of an earlier topic; `replayed_at` is the sender's. Both are epoch ms. `replayed_by` is who, `user@host` if nothing else was
    said; `client_id` is the `app_id` of the sender's settings. `changed` says whether the value differs from the letter's;
    `times` counts the replays.
    """

    topic: Literal["dead-letter.v1"]
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    refused_at: int
    replayed_to: str
    replayed_at: Time
    replayed_by: str
    client_id: str
    changed: bool
    times: Annotated[int, Field(ge=1)]


class Demand(Record):
    """`demand.v1`, key: `{pool_id}/{sku}/{partition}`. Clicks on a SKU in [`window_start`, `window_start + window_ms`).

    Of one `partition` of `clicks.v1`, which is keyed by visitor: the demand is the sum of all partitions' last records.
    Counts are absolute and stand until the key's next record; a greater `version` is newer. The window slides with the
    clock of the log: `updated_at` is the partition's now, and `window_start` the window's then.
    """

    pool_id: Id
    sku: Id
    partition: Annotated[int, Field(ge=0)]
    window_start: Time
    window_ms: Annotated[int, Field(ge=1)]
    views: Annotated[int, Field(ge=0)]
    carts: Annotated[int, Field(ge=0)]
    checkouts: Annotated[int, Field(ge=0)]
    version: Annotated[int, Field(ge=1)]
    updated_at: Time


class Alert(Record):
    """`alerts.v1`, key: `alert_id`. What is told differs from what was promised; a cleared alert has the same id.

    `alert_id` is `{kind}/{pool_id}/{location_id}/{sku}`, of a late movement `{kind}/{pool_id}/{location_id}/{minute}`, of a
    field left out `{kind}/{pool_id}/{topic}/{field}`; such an alert has a `field`, and no location or SKU. Of a
    transfer it is `{kind}/{pool_id}/{transfer_id}/{sku}`; `location_id` is then where it leads.
    `found` and `expected` are units: of a shortfall on hand and reserved, of a transfer received and sent, else the units in
    question and 0.
    `since` is when the alert came to stand, or was cleared, by the pool's clock.
    """

    alert_id: str
    kind: Literal[*(kind.wire for kind in AlertKind)]
    severity: Literal["critical", "warning"]
    status: Literal[*(status.wire for status in AlertStatus)]
    pool_id: Id
    location_id: Id | None = None
    sku: Id | None = None
    order_id: Id | None = None
    field: str | None = None
    transfer_id: Id | None = None
    found: int
    expected: int
    since: Time
    source: Source
    remedy: str


class AuditAlert(Record):
    """`alerts.v1`, key: `alert_id`. The audit found something that is not as it must be, at the record named.

    `alert_id` follows from what was found: an audit that finds the same again does not repeat it. `fault` is one of
    the kinds of faults (streams/audit/report.py), `offset` null where a record is missing; `raised_at` is when it was found,
    epoch ms.
    """

    kind: Literal["audit"]
    alert_id: Id
    severity: Literal["critical", "warning"]
    fault: str
    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)] | None
    expected: str
    found: str
    raised_at: Time


class Acknowledgement(Record):
    """`acknowledgements.v1`, key: `{topic}/{partition}/{offset}` (keys.py). Somebody has looked at the faults of one record.

    The audit names them from then on, and does not count them. `topic_id` is the cluster's own of the topic: one that is
    created anew under the name has another. `acknowledged_at` is epoch ms, `reason` free text. An empty record withdraws it.
    """

    topic: Annotated[str, Field(min_length=1)]
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    topic_id: str
    acknowledged_at: Time
    acknowledged_by: Id
    reason: Annotated[str, Field(min_length=1, max_length=1000)]
