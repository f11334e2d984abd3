"""The records of one batch in the order they are applied, and what the batch's changelog record says of them.

Owner: the pipeline that decodes the batch. Not here: what the records mean (topics/codec).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streams.batch.pipeline import Segment
from topics.codec.records import Records, join


class Inputs:
    """A batch's records, merged by timestamp; each topic's own order stands even where its timestamps go back.

    Parameters
    ----------
    segments : list of Segment
    topics : sequence of str
        The group's topics. A record's code is its topic's place among them.

    Attributes
    ----------
    records : Joined
        The n records.
    codes : uint8[n]
        Each record's topic.
    manifest : list of dict
        Per topic read: `topic`, `first` offset, `next` offset, `count` of records.
    next_offsets : dict
        Topic → offset to read next.
    """

    def __init__(self, segments: list[Segment], topics: Sequence[str]):
        by_topic: dict[str, list[Records]] = {}
        for segment in segments:
            by_topic.setdefault(segment.topic, []).extend(segment.records)
        chunks = [chunk for found in by_topic.values() for chunk in found]
        sizes = [sum(map(len, found)) for found in by_topic.values()]
        self.codes = np.repeat(np.array([topics.index(topic) for topic in by_topic], np.uint8), sizes)
        if len(by_topic) <= 1:
            self.records = join(chunks)
        else:
            rows = [np.concatenate([chunk.rows["timestamp"] for chunk in found]) for found in by_topic.values()]
            order = np.argsort(np.concatenate([np.maximum.accumulate(times) for times in rows]), kind="stable")
            self.records, self.codes = join(chunks, order), self.codes[order]
        self.manifest: list[dict[str, Any]] = [
            {
                "topic": topic,
                "first": int(found[0].rows["offset"][0]),
                "next": int(found[-1].rows["offset"][-1]) + 1,
                "count": size,
            }
            for (topic, found), size in zip(by_topic.items(), sizes, strict=True)
        ]
        self.next_offsets: dict[str, int] = {given["topic"]: given["next"] for given in self.manifest}

    def __len__(self) -> int:
        return len(self.records)
