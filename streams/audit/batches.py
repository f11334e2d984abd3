"""What the audits of inventory and of clicks have in common: batches in order, each one's inputs, dead letters and offsets.

For each batch of a changelog: does it follow from the one before it, are its inputs the next ones, are exactly the
records that must be refused dead letters; then, whenever all that was published is in sight: is there nothing that no
batch has caused, and are the group's offsets where the changelog is.
Where retention has deleted the first inputs, events can't be folded (`blind`): what can be judged without is, and the report
says what was not; that is no fault.
The audit follows what was published, also where it is at fault, so that a fault is named once and does not spread; only
a gap in the chain of batches ends a partition's audit, since nobody knows what was applied in it.
Owner: the audit; one `BatchReplay` per partition and changelog, no state shared between them.
Not here: what an event does (inventory.py, clicks.py).
"""

from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Iterator
from math import inf

from streams.audit.chain import Batch, BrokenChain, Chain, Input
from streams.audit.log import Deleted, Log, Record
from streams.audit.memory import Limits, RefusedEvent
from streams.audit.outputs import DeadLetters, Place, Tape
from streams.audit.report import NotJudged, Report
from topics.catalogue import DEAD_LETTERS, LOCATIONS
from topics.events import Refusal, judge

Due = Callable[[str], float | None]
"""Topic → of an output: the offset before which each record must belong to a batch that was judged; of an input: where the
group's offset was, up to which each record must be in such a batch; None = not known now."""

LARGEST_BYTES = 5 << 20
"""Of key and value, in a dead letter; larger ones are left out."""


class BatchReplay(ABC):
    """Judges one partition of the topics of a changelog.

    Parameters
    ----------
    log : Log
        What is read, as far as it goes; more of it whenever `catch_up` is called again.
    partition : int
    limits : Limits
    report : Report
        Told what is found.
    deleted : sequence of str
        Topics whose first records are gone here: events can't be folded then, but each record that is left is judged by itself.
    """

    changelog: str
    topics: tuple[str, ...]
    """Its inputs."""
    dead_letter_topics: tuple[str, ...]

    def __init__(self, log: Log, partition: int, limits: Limits, report: Report, deleted: tuple[str, ...] = ()):
        self.log = log
        self.partition = partition
        self.limits = limits
        self.report = report
        self.stopped = False
        self.blind = bool(deleted)
        self.deleted = deleted
        self._begun: dict[str, int] = {}
        """Blind: input → offset from which all of its records are there."""
        self.positions = dict.fromkeys(self.topics, 0)
        self.located: dict[int, int] = {}
        """Partition of `locations.v1` → offset behind the last record a batch has applied."""
        self.chain = Chain(self.changelog, partition, log.read(self.changelog, partition), self._fault)
        self.tapes = {topic: Tape(log.read(topic, partition)) for topic in self.topics}
        self.dead_letters = DeadLetters(log.read(DEAD_LETTERS, partition), self.dead_letter_topics, self._fault)
        self._told_offsets: dict[str, float] = {}
        if self.changelog in deleted:
            self._fault("retention", self.changelog, None, "records from offset 0 on, kept for ever", _GONE % self.changelog)

    def catch_up(self, tell: Callable[[int], None]) -> None:
        """Judge the batches that are there; `tell` is told how many events each had."""
        try:
            while not self.stopped and (batch := self.chain.next_batch()):
                self.report.batches += 1
                for change in batch.locations:
                    self.located[change.partition] = max(change.offset + 1, self.located.get(change.partition, 0))
                if self.blind:
                    self._skip(batch)
                    self.skip_batch(batch)
                else:
                    self.judge_batch(batch)
                tell(len(batch.order))
        except BrokenChain as broken:
            self._fault("chain", self.changelog, broken.offset, broken.expected, broken.found, ends=True)
            self.stopped = True
        except Deleted as deleted:
            self._fault("retention", deleted.topic, deleted.offset, "a record not yet judged", _GONE % deleted.topic, ends=True)
            self.stopped = True
        if self.chain.number:
            shown = f"batch {self.chain.number}, link {self.chain.link.hex()}"
            self.report.links[f"{self.changelog}[{self.partition}]"] = shown

    def check_link(self) -> None:
        """Check, going on from a checkpoint, that the changelog's last batch judged is still the one that was judged."""
        found = self.chain.link_at(self.log)
        if found != self.chain.link:
            expected = f"batch {self.chain.number} with link {self.chain.link.hex()}, as the checkpoint has it"
            shown = "no record" if found is None else f"link {found.hex()}"
            place = f"{shown}: the changelog was altered, or the checkpoint is of another one"
            self._fault("chain", self.changelog, self.chain.offset, expected, place, ends=True)
            self.stopped = True

    def settle(self, due: Due, moving: bool = False) -> None:
        """Judge what no batch has caused, and the group's offsets, when all batches in sight are judged.

        `moving`: outputs of batches that are not in sight may be among it.
        """
        try:
            if self.stopped or not self.chain.end():
                return  # what is behind the break, or behind a batch in doubt, can't be told from what nobody has caused
        except BrokenChain as broken:
            self._fault("chain", self.changelog, broken.offset, broken.expected, broken.found, ends=True)
            self.stopped = True
            return
        for topic in self.topics:
            self._check_committed(topic, self.log.committed(topic, self.partition), due(topic))
        if not (self.blind or self.stopped):
            for offset, place in self.dead_letters.rest(due(DEAD_LETTERS) or 0):
                if not (moving and self._beyond(place)):
                    self._unclaimed_letter(offset, place)
            self.settle_outputs(due, moving)
        if self.blind and not self.stopped:
            self.settle_blind(due, moving)

    def count_unprocessed(self, complete: bool) -> None:
        """Count the inputs that no batch has consumed; `complete`: they are faults."""
        for topic, tape in self.tapes.items():
            left = 0 if self.stopped else tape.count_rest()
            self.report.unprocessed += left
            if left and complete:
                self._fault("input", topic, self.positions[topic], "every record in a batch", f"{left} in none yet")

    # What an audit adds

    @abstractmethod
    def judge_batch(self, batch: Batch) -> None:
        """Judge one batch."""

    @abstractmethod
    def settle_outputs(self, due: Due, moving: bool) -> None:
        """Judge what no batch has caused among the other outputs."""

    def skip_batch(self, batch: Batch) -> None:  # noqa: B027 (not every audit has more to judge)
        """Judge what can be of a batch whose causes are deleted."""

    def settle_blind(self, due: Due, moving: bool) -> None:  # noqa: B027
        """Judge what can be of the outputs where causes are deleted."""

    def add_totals(self) -> None:  # noqa: B027 (not every audit has totals)
        """Add to the report what there is in the end."""

    # What they share

    def _fault(self, kind: str, topic: str, offset: int | None, expected: object, found: object, ends: bool = False) -> None:
        self.report.fault(kind, topic, self.partition, offset, expected, found, ends)

    def _skip(self, batch: Batch) -> None:
        """Follow a batch where events can't be folded: its offsets, and those of its records that are left, one by one."""
        self.dead_letters.open(self._reached)
        for topic, given in batch.inputs.items():
            if topic in self._begun or self._begins(topic, given):
                for record in self._consumed(batch, topic, given):
                    self._judge_alone((topic, self.partition, record.offset), record)
                continue
            position = self.positions.get(topic, 0)
            if given.first < position:
                expected = f"{topic} from offset {position} on in batch {batch.number}"
                self._fault("input", self.changelog, batch.offset, expected, f"from {given.first}")
            self.positions[topic] = max(position, given.next)
        for _ in self.dead_letters.left(self._reached):
            pass  # of what is deleted, or of what is read and yet refused
        place = f"{self.changelog}[{self.partition}]"
        self.report.not_judged[place] = NotJudged(batch.number, self.deleted, self._begun)

    def _begins(self, topic: str, given: Input) -> bool:
        """Tell whether all is there of a topic from what a batch consumed on; goes by what is left of it if not."""
        tape = self.tapes.get(topic)
        if tape is None or tape.head is None or tape.head.offset > given.first:
            if tape is not None:
                tape.until(given.next)
            return False
        self._begun[topic] = given.first
        return True

    def _judge_alone(self, place: Place, record: Record) -> None:
        """Judge what a record calls for by itself: one that can't be read is a dead letter."""
        self.report.events[place[0]] += 1
        event = judge(place[0], record.value)
        if isinstance(event, Refusal) and DEAD_LETTERS not in self.deleted:
            self._check_dead_letters(place, record, RefusedEvent(event.reason))

    def _reached(self, place: Place) -> bool:
        """Tell whether a record is in the batch in hand or one before it; what can be in none counts as reached."""
        topic, partition, offset = place
        if topic == LOCATIONS:
            return offset < self.located.get(partition, 0)
        return partition != self.partition or offset < self.positions.get(topic, inf)

    def _beyond(self, place: Place) -> bool:
        """Tell whether a record may belong to a batch that was committed after the audit began to read."""
        return place[0] == LOCATIONS or not self._reached(place)

    def _consumed(self, batch: Batch, topic: str, given: Input) -> list[Record]:
        """Take what a batch says it consumed of a topic, and check that it is the next there is."""
        if topic not in self.tapes:
            self._fault("input", self.changelog, batch.offset, f"inputs of {', '.join(self.tapes)}", topic)
            return []
        position = self.positions[topic]
        if given.first < position:
            found = f"batch {batch.number} from offset {given.first}"
            self._fault("input", topic, given.first, f"offset {position} as the next to be consumed", found)
        self.positions[topic] = max(position, given.next)
        records = self.tapes[topic].until(given.next)
        skipped = [record for record in records if record.offset < given.first]
        if skipped:
            found = f"batch {batch.number} from offset {given.first}: {len(skipped)} records in no batch"
            self._fault("input", topic, skipped[0].offset, "each record in a batch", found)
        records = records[len(skipped) :]
        if len(records) != given.count:
            expected = f"{given.count} records from {given.first} to before {given.next}, as batch {batch.number} says"
            self._fault("input", topic, given.first, expected, f"{len(records)} in the topic")
        return records

    def _order(self, batch: Batch, records: dict[str, list[Record]]) -> Iterator[str]:
        """Give the topic of each event in the order applied, as many as there are records."""
        left = {topic: len(taken) for topic, taken in records.items()}
        for topic, count in left.items():
            if batch.order.count(topic) != count:
                expected = f"an order of events with {count} of {topic}"
                self._fault("chain", self.changelog, batch.offset, expected, batch.order.count(topic))
        unordered = [topic for topic, count in left.items() for _ in range(count)]
        for topic in (*batch.order, *unordered):
            if left.get(topic):
                left[topic] -= 1
                yield topic

    def _check_dead_letters(self, place: Place, record: Record, refused: RefusedEvent | None) -> None:
        letters = self.dead_letters.take(place, due=refused is not None)
        if refused is None and not letters:
            return
        shown = f"{place[0]}[{place[1]}]@{place[2]}"
        if refused is None:
            for offset, letter in letters:
                found = f"{letter.reason}: {letter.detail}"
                self._fault("dead_letter", DEAD_LETTERS, offset, f"no dead letter for {shown}, which is good", found)
            return
        reason = refused.reason.wire
        if not letters:
            self.report.fault("dead_letter", *place, f"a dead letter, reason {reason}", "none")
        for offset, letter in letters[:1]:
            if refused.instead and letter.reason == refused.instead.wire:
                reason = letter.reason
            if letter.reason != reason:
                found = f"{letter.reason}: {letter.detail}"
                self._fault("dead_letter", DEAD_LETTERS, offset, f"{shown}: reason {reason}", found)
            whole = (record.timestamp, _base64(record.key), _base64(record.value))
            if len(record.key or b"") + len(record.value or b"") > LARGEST_BYTES:  # too large to be written again
                whole = (record.timestamp, None, None)
            kept = (letter.timestamp, letter.key, letter.value)
            if kept != whole:
                self._fault("dead_letter", DEAD_LETTERS, offset, f"{shown}: the record whole: {whole}", kept)
        for offset, _ in letters[1:]:
            self._fault("dead_letter", DEAD_LETTERS, offset, f"one dead letter for {shown}", "another one")
        self.report.dead_letters[reason] += 1

    def _unclaimed_letter(self, offset: int, place: Place) -> None:
        found = f"another dead letter for {place[0]}[{place[1]}]@{place[2]}, or one for what is no input"
        self._fault("dead_letter", DEAD_LETTERS, offset, "a record among those processed", found)

    def _check_committed(self, topic: str, committed: int | None, reached: float | None) -> None:
        """Check that the group's offset is not behind the changelog, nor was before it where that is known to have come."""
        position = self.positions[topic]
        wrong: float
        if committed is not None and committed < position:
            wrong = committed
        elif reached is not None and reached > position:
            wrong = reached
            self.stopped = True  # the changelog's last batches are gone: what they caused can't be told from what nobody has
        else:
            return
        if self._told_offsets.get(topic) != wrong:
            self._told_offsets[topic] = wrong
            expected = f"the workers' group at offset {position}, where the changelog is"
            self._fault("chain", topic, int(min(wrong, position)), expected, f"at offset {wrong}", ends=self.stopped)


_GONE = "the first records of %s are deleted (retention): what they did is not to be judged, only the chain of batches"


def refusal_of(event: object, refused: RefusedEvent) -> RefusedEvent:
    """Which of two reasons comes first: a record that can't be read is refused for that."""
    return RefusedEvent(event.reason) if isinstance(event, Refusal) else refused


def _base64(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()
