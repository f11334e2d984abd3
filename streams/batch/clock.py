"""Seconds that a batch spends in each of its stages, for the metrics. The clock of the state is the log's, not this one."""

import time


class Clock:
    """Runs from its making; `stage` gives a stage the time since the one before.

    Examples
    --------
    >>> clock = Clock()
    >>> clock.stage("decode")
    >>> list(clock.seconds)
    ['decode']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        """End a stage. A stage that occurs more than once in a batch has the sum of its times."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
