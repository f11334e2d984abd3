"""How a partition's owner comes to its state: committed offsets, changelog, and the proof that the two belong together.

The steps, in this order, each in the flow's thread:
1. fence (transactions.py): from here on nobody else commits, and what a former owner left open is settled;
2. read the group's committed offsets, stable ones only;
3. fold the changelog up to its last stable offset, from where a standby or a snapshot stands, or from its first record;
4. check: it is our `app_id`'s, its chain of batches has no gap (the pipeline does), it ends where the committed offsets are;
5. give the offsets from which to read on.
Not here: the state itself (state/), who calls (flow.py).
"""

from collections.abc import Callable, Iterable

from streams.batch.pipeline import Pipeline
from streams.kafka.reading import LogReader
from streams.worker.chain import Chain
from topics.errors import Contradiction


class Inconsistent(Contradiction):
    """Offsets, changelog and inputs contradict each other: what is committed is not whole. Nothing may go on from it."""


def restore(
    pipeline: Pipeline,
    reader: LogReader,
    partition: int,
    interrupted: Callable[[], bool],
    start: int | None = None,
    app_id: str | None = None,
) -> int:
    """Fold the partition's changelog into a pipeline and seal it.

    Parameters
    ----------
    pipeline : Pipeline
        Empty, or as a snapshot or a standby left it. Its `changelog_topic` is read, `partition` of it, up to the last stable
        offset.
    interrupted : callable
        Asked every now and then; when true, the restoration is given up.
    start : int, optional
        Offset to read from, after the last batch that the pipeline has. Default: the changelog's first record.
    app_id : str, optional
        Whose the changelog must be. Default: anybody's.

    Returns
    -------
    int
        Batches folded.

    Raises
    ------
    ChangelogGap
        A batch or a part of one is missing, or was altered.
    OtherOwner
        Workers of another `app_id` wrote to it.
    Interrupted
        `interrupted` said so.
    KafkaException
        The changelog can't be read.
    """
    count = 0
    chain = Chain(pipeline.sequence, pipeline.link, app_id)
    for batch in chain.batches(reader.messages(pipeline.changelog_topic, partition, interrupted, start)):
        pipeline.restore(batch.record, batch.link)
        count += 1
    pipeline.seal()
    return count


def read_positions(
    restored: dict[str, int],
    committed: dict[str, int],
    ranges: dict[str, tuple[int, int]],
    expendable: Iterable[str] = (),
) -> dict[str, int]:
    """Check that offsets, changelog and inputs agree, and give the offset to read on from for each topic.

    Parameters
    ----------
    restored : dict
        Topic → next offset by the changelog; topics without a record yet are absent.
    committed : dict
        Topic → next offset by the consumer group. May lack topics: a group's offsets expire when it is long idle.
    ranges : dict
        Topic → first and last stable offset of the input.
    expendable : iterable of str
        Topics whose records may be deleted unread.

    Raises
    ------
    Inconsistent
        They don't agree, or records were deleted before they were read.

    Examples
    --------
    >>> read_positions({"a": 7}, {"a": 7}, {"a": (0, 9), "b": (2, 2)})
    {'a': 7, 'b': 2}
    """
    positions = {}
    for topic, (first, last) in ranges.items():
        known = restored.get(topic)
        if topic in committed and committed[topic] != known:
            raise Inconsistent(
                f"{topic}: the group's committed offset is {committed[topic]}, the changelog ends at {known}. They are "
                "written together, so one was changed or deleted from outside; see docs/repair-a-changelog.md."
            )
        if known is None or (known < first and topic in expendable):
            known = first
        elif not first <= known <= last:
            raise Inconsistent(
                f"{topic}: to be read on from offset {known}, but the log holds {first} to {last}. Records were deleted "
                "before they were read (retention shorter than the worker's absence?), or the topic was made anew; "
                "what they said is missing from the state: see docs/repair-a-changelog.md."
            )
        positions[topic] = known
    return positions
