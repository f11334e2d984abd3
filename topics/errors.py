"""All exceptions of nearshelf, as one tree. Each class stands in the module that raises it, and here in the drawing.

NearshelfError
├── WrongUse                  what was given is wrong: mend it and try again; exit status 2
│   ├── SettingsError         a setting is unknown, or its value is wrong
│   ├── EntriesError          a file that people write is missing or wrong
│   ├── WrongPlace            a record was named that is not there
│   ├── MissingTopics         the cluster lacks topics
│   ├── CannotStart           the cluster, or this machine, is not as a worker needs it
│   ├── OtherOwner            the topics belong to workers of another app_id
│   └── NewerLayout           a later version wrote the changelog or the snapshot
├── AnswerIsNo                it was tried, and the answer is no; exit status 1
│   ├── TopicMismatch         an existing topic would give wrong results
│   ├── DemoFailed            the demo can't go on
│   ├── ProcessFailed         a process that was started ended or hangs
│   ├── WrongAnswer           what a benchmark measured did not do its job
│   └── PeerMissing           a benchmark's peer can't be built here
├── NoBroker                  there is no broker to work with; exit status 3
│   ├── BrokerUnreachable     no broker answers at the address
│   ├── Disconnected          a request has no answer; the broker may have done what it was asked
│   ├── _Unanswered           nobody says yet which broker leads or coordinates
│   └── BrokerError           the local broker can't be fetched, started or stopped
│       └── _PortTaken        its port is taken
├── Contradiction             what is stored can't all be true: nobody may go on from it
│   ├── Inconsistent          offsets, changelog and inputs contradict each other
│   ├── ChangelogGap          a batch of the changelog is missing, or was altered
│   ├── NotCopartitioned      topics of one group are at different workers
│   ├── BrokenChain           the audit can't follow the changelog further
│   └── Deleted               the audit has yet to read a record that is gone
├── CheckpointUnusable        an audit can't go on from a file
├── SnapshotUnusable          a snapshot can't be read or written; the changelog has all of it
│   ├── StoreDamaged          the disk holds something else than was written
│   ├── StoreForeign          the snapshot belongs to another partition or changelog
│   ├── StoreInUse            another process has the snapshot open
│   └── StoreFull             the disk takes no more
├── NotCommitted              what became of a batch that was to be committed
│   ├── Fenced                another producer took over; the batch has no effect
│   ├── Doubt                 nobody knows whether the batch took effect
│   └── Refused               the broker will never take the batch
├── Interrupted               the caller was told to stop
└── RefusedEvent              the audit's ledger refuses an event; its record is a dead letter

Owner: everybody. Lowest layer: nothing of ours is imported here.
Invariant: tests/unit/test_errors.py holds the drawing to the classes.
"""

from typing import ClassVar


class NearshelfError(Exception):
    """Base of all exceptions of nearshelf.

    Attributes
    ----------
    exit_status : int or None
        What the command line ends with, and shows the message alone; None: a fault of ours, shown with its traceback.
    """

    exit_status: ClassVar[int | None] = None


class WrongUse(NearshelfError):
    """What was given is wrong; the message says what to do."""

    exit_status = 2


class AnswerIsNo(NearshelfError):
    """It was tried, and the answer is no; the message says why."""

    exit_status = 1


class NoBroker(NearshelfError):
    """There is no broker to work with; the message says how to get one."""

    exit_status = 3


class Contradiction(NearshelfError):
    """What is stored can't all be true; the message says what contradicts what. Nobody may go on from it."""


class SnapshotUnusable(NearshelfError):
    """A snapshot can't be read or written; the state is restored from the changelog."""


class NotCommitted(NearshelfError):
    """A batch was not committed, or may not have been."""
