"""What a batch produces, topic by topic. A message carries on the trace of the record that caused it.

Owner: the batch's pipeline. Not here: the messages' bytes (topics/codec), the transaction (worker/transactions.py).
"""

from collections.abc import Iterable

from topics.codec.messages import Messages
from topics.codec.records import Joined, Record

TRACE_BYTES = 256


def trace_of(record: Record) -> list[tuple[str, bytes | None]]:
    """Give the headers of a record that its outputs carry on: a `traceparent`, if it is of the size that one has."""
    return [header for header in record.headers if header[0] == "traceparent" and len(header[1] or b"") <= TRACE_BYTES]


class Outputs:
    """The batch's messages so far.

    Parameters
    ----------
    records : Joined
        The batch's.

    Attributes
    ----------
    messages : dict
        Topic → its messages; only topics that have some.
    """

    def __init__(self, records: Joined):
        self.messages: dict[str, Messages] = {}
        self._traces = {row: trace for row in records.with_headers() if (trace := trace_of(records.record(row)))}

    def add(self, topic: str, messages: Messages, causes: Iterable[int]) -> None:
        """Append messages; `causes` are the rows, in the batch, of the records that caused them."""
        if self._traces:
            for number, row in enumerate(causes):
                if int(row) in self._traces:
                    messages.headers[number] = self._traces[int(row)]
        if len(messages):
            self.messages.setdefault(topic, Messages()).extend(messages)
