"""A batch of inventory records, decoded: what the inventory pipeline's `decode` gives and its `process` takes."""

import numpy as np

from streams.batch.inputs import Inputs
from streams.batch.pipeline import LocationChange, Segment
from topics.catalogue import INVENTORY_TOPICS, LOCATIONS, Role, topics_of
from topics.codec.decode import decode
from topics.columns import EVENT
from topics.reasons import Kind

TOPICS = topics_of("inventory", Role.INPUT, Role.STATE)
"""An event's topic is its place here."""


class Decoded:
    """A batch's records as columns.

    Attributes
    ----------
    inputs : Inputs
        The n records.
    batch : topics.codec.decode.Batch
        Their rows, EVENT[n], and texts.
    """

    def __init__(self, segments: list[Segment]):
        self.inputs = Inputs(segments, INVENTORY_TOPICS)
        self.batch = decode(self.inputs.records, self.inputs.codes)

    def __len__(self) -> int:
        return len(self.inputs)

    def with_changes(self, changes: list[LocationChange]) -> np.ndarray:
        """Give the batch's events, and behind them a row for each change: a decision may name it as its cause."""
        if not changes:
            return self.batch.events
        rows = np.zeros(len(changes), EVENT)
        rows["kind"] = [Kind.LOCATION if change.topic == LOCATIONS else Kind.PRODUCT for change in changes]
        rows["topic"] = [TOPICS.index(change.topic) for change in changes]
        rows["offset"] = [change.offset for change in changes]
        rows["timestamp"] = [change.timestamp for change in changes]
        return np.concatenate([self.batch.events, rows])
