"""`alerts.v1`: what somebody should look at. One model per kind of alert.

Owner: the public contract. Not here: who raises an alert (streams/audit).
"""

from typing import Annotated, Literal

from pydantic import Field

from topics.events import Id, Record, Time


class AuditAlert(Record):
    """`alerts.v1`, key: `audit/{topic}/{partition}`. The audit found something that is not as it must be, at the record named.

    `alert_id` follows from what was found: an audit that is started again repeats it, under the same id. `fault` is one of
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
