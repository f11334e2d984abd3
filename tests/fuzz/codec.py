"""Fuzzing the codec: the scanner's rows are the models' rows, whatever the bytes. The comparison is the parity test's."""

import random
from collections.abc import Callable

from tests.fuzz import inputs
from tests.fuzz.report import Found
from tests.property import test_codec_parity as parity

ROUND = 500


def run_round(seed: str, count: int) -> Found:
    """Try so many records of one topic."""
    rng = random.Random(seed)
    topic = rng.randrange(len(parity.TOPICS))
    values = [inputs.odd(rng, parity.TOPICS[topic]) for _ in range(count)]
    found = Found(inputs=count)
    found.stops += [f"{parity.TOPICS[topic]} {value!r:.500}: {why}" for value, why in differing(values, topic)]
    found.refused = (
        count - sum(row["kind"] > 0 for row in parity.decoded(values, topic, scanned=True)) if not found.stops else 0
    )
    return found


def differing(values: list[bytes], topic: int, check: Callable = parity.assert_parity) -> list[tuple[bytes, str]]:
    """The records that are not read alike, or at which reading raises, each by itself; in one go where all is well."""
    try:
        check(values, topic)
        return []
    except Exception as error:  # whatever it is, it would have stopped a worker
        if len(values) == 1:
            return [(values[0], f"{type(error).__name__}: {error!s:.300}")]
    half = len(values) // 2
    found = differing(values[:half], topic, check) + differing(values[half:], topic, check)
    return found or [(b"", f"{len(values)} records together, none of them alone")]
