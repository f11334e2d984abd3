"""Named places at which a worker can be made to die, so that tests can kill it in the middle of anything.

`fail_at="after_flush:3"` in the settings kills the process (SIGKILL: no handler, no clean-up) the third time it passes
`after_flush`. Empty: nothing is ever counted or killed.
"""

import os
import signal
import threading
from collections.abc import Callable

AFTER_PROCESS = "after_process"  # the state is ahead of the log; nothing is sent
AFTER_OFFSETS = "after_offsets"  # a transaction is open and has its offsets
AFTER_PRODUCE = "after_produce"  # its messages are being sent
AFTER_FLUSH = "after_flush"  # all of it is in the log, uncommitted
AFTER_TURN = "after_turn"  # the batch before is known to be committed, this one's end is not sent
AFTER_COMMIT = "after_commit"  # the log has it all; the worker does not know yet
BEFORE_SNAPSHOT = "before_snapshot"  # batches are read from the changelog, not on the disk
AFTER_SNAPSHOT = "after_snapshot"  # the disk has them
FAIL_POINTS = (
    AFTER_PROCESS,
    AFTER_OFFSETS,
    AFTER_PRODUCE,
    AFTER_FLUSH,
    AFTER_TURN,
    AFTER_COMMIT,
    BEFORE_SNAPSHOT,
    AFTER_SNAPSHOT,
)


def fail_points(fail_at: str) -> Callable[[str], None]:
    """Make the function that a worker calls with a fail point's name whenever it passes one.

    Parameters
    ----------
    fail_at : str
        ``name:hits``, or empty for none.

    Raises
    ------
    ValueError
        The name is none of `FAIL_POINTS`, or `hits` is no integer ≥ 1.
    """
    if not fail_at:
        return lambda name: None
    name, _, hits = fail_at.partition(":")
    if name not in FAIL_POINTS or not hits.isdecimal() or int(hits) < 1:
        raise ValueError(f"fail_at must be NAME:HITS with NAME one of {', '.join(FAIL_POINTS)}; was {fail_at!r}")
    left = int(hits)
    lock = threading.Lock()

    def passed(at: str) -> None:
        nonlocal left
        with lock:
            left -= at == name
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    return passed
