"""What an audit answers: counts of what was judged, and each fault with its place, what was expected and what was found.

Owner: the audit. Not here: how it is shown (streams/cli/audit.py).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields

from topics.outputs import Acknowledgement

FaultSink = Callable[[str, str, int | None, object, object], None]
"""(kind, topic, offset, expected, found)."""
KEPT_FAULTS = 1000
"""Faults kept whole in a report; beyond that they are only counted."""
LONGEST_TEXT = 600
"""Characters of what was expected or found that a fault keeps."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it must be, at the record that shows it."""

    kind: str
    """What sort of promise is broken: one of `FAULTS`."""
    topic: str
    partition: int
    offset: int | None
    """Of the record named; None where a record is missing and nothing stands in its place."""
    expected: str
    found: str
    ends: bool = False
    """Whether nothing behind it can be judged."""

    def __str__(self) -> str:
        place = f"{self.topic}[{self.partition}]" + ("" if self.offset is None else f"@{self.offset}")
        return f"{self.kind} at {place}: expected {self.expected}; found {self.found}"


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A fault that somebody has looked at: it is named, and not counted."""

    fault: Fault
    by: str
    at: int
    """Epoch ms."""
    reason: str

    def __str__(self) -> str:
        return f"acknowledged by {self.by} at {self.at} ({self.reason}): {self.fault}"


@dataclass(slots=True)
class NotJudged:
    """What an audit could not judge of a partition, since it is not there any more; no fault by itself."""

    batches: int
    """From the first on."""
    deleted: tuple[str, ...]
    """Topics whose first records retention has deleted."""
    inputs_from: dict[str, int] = field(default_factory=dict)
    """Input → offset from which each record was judged by itself."""

    def __str__(self) -> str:
        begin = ", ".join(f"{topic} from {offset:,}" for topic, offset in sorted(self.inputs_from.items()))
        return (
            f"orders, decisions, alerts and what events add up to in batches 1 to {self.batches:,}, since the first records of "
            f"{', '.join(self.deleted)} are deleted (retention). Judged: the chain of batches, offsets, cells against "
            f"inventory.v1, the numbers of decisions, and each record of {begin or 'no input'}"
        )


FAULTS = {
    "chain": "the changelog's batches follow each other without a gap, each as it was written",
    "transaction": "no transaction stays open: the last stable offset comes to the end",
    "retention": "a changelog holds its records from the first, and no record is deleted while it is judged",
    "input": "each input record up to the committed offset is in exactly one batch",
    "network": "the locations a batch names are those of locations.v1",
    "dead_letter": "exactly the bad and refused records are dead letters, once, with the right reason",
    "decision": "each order event has exactly one decision, and it says what it must",
    "sequence": "a pool's decisions are numbered without gaps",
    "promise": "no promise beyond available, nor by a location that may not make it",
    "expiry": "a hold expires once its time has come, and not before",
    "waiting": "an order that could be served does not wait",
    "alert": "exactly what differs from a promise, and what is settled again, is told on alerts.v1, as it is",
    "clock": "a pool's now is the largest timestamp seen",
    "cell": "the changelog's cells are what the inputs and decisions add up to",
    "inventory": "inventory.v1 holds each cell's value",
    "demand": "demand.v1 holds the clicks on each SKU within the window",
}


@dataclass(slots=True)
class Report:
    """An audit's answer."""

    partitions: int = 0
    """Of the inventory topics."""
    pools: int = 0
    batches: int = 0
    """Of inventory and of clicks."""
    links: dict[str, str] = field(default_factory=dict)
    """Changelog partition → its last batch and that one's link: two audits of one log agree in them."""
    events: Counter[str] = field(default_factory=Counter)
    """Topic → records judged."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Wire name of what became of an event → events: applied, duplicate, stale, dead_letter, clock."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """Reason → records."""
    decisions: Counter[str] = field(default_factory=Counter)
    """Status → decisions."""
    alerts: Counter[str] = field(default_factory=Counter)
    """Kind → alerts of the workers that were called for, raised or cleared."""
    orders: int = 0
    order_lines: int = 0
    shipments: int = 0
    """Ever promised."""
    distance_km: float = 0.0
    """Of those shipments, in sum."""
    cells: int = 0
    units_on_hand: int = 0
    units_reserved: int = 0
    unprocessed: int = 0
    """Input records beyond the last committed batch."""
    not_judged: dict[str, NotJudged] = field(default_factory=dict)
    """Changelog partition → what retention has put beyond judgement."""
    checkpoint: str = ""
    """What the audit went on from, or why it did not."""
    open_transactions: list[str] = field(default_factory=list)
    """Partitions with a transaction open for seconds, and since which offset; no fault before it is over due."""
    faults: list[Fault] = field(default_factory=list)
    """The first `KEPT_FAULTS`."""
    fault_count: int = 0
    acknowledged: list[Acknowledged] = field(default_factory=list)
    """The first `KEPT_FAULTS` of those that are not counted."""
    acknowledged_count: int = 0
    told: Callable[[Fault], None] | None = None
    """Told each fault at once."""
    acknowledgements: dict[tuple[str, int, int], Acknowledgement] = field(default_factory=dict)
    """Topic, partition and offset of a record → who has acknowledged its faults."""

    @property
    def clean(self) -> bool:
        """Whether nothing is at fault."""
        return self.fault_count == 0

    def fault(
        self, kind: str, topic: str, partition: int, offset: int | None, expected: object, found: object, ends: bool = False
    ) -> None:
        """Note one fault; `ends`: nothing behind it can be judged, so it counts whatever was acknowledged."""
        assert kind in FAULTS, kind
        given = None if offset is None else self.acknowledgements.get((topic, partition, offset))
        if given and not ends:
            self.acknowledged_count += 1
            if len(self.acknowledged) < KEPT_FAULTS:
                fault = Fault(kind, topic, partition, offset, _short(expected), _short(found))
                self.acknowledged.append(Acknowledged(fault, given.acknowledged_by, given.acknowledged_at, given.reason))
            return
        if given:
            found = f"{found} (acknowledged by {given.acknowledged_by}, but nothing behind it can be judged: it counts)"
        self.fault_count += 1
        if len(self.faults) < KEPT_FAULTS or self.told:
            fault = Fault(kind, topic, partition, offset, _short(expected), _short(found), ends)
            self.faults += [fault] if len(self.faults) < KEPT_FAULTS else []
            if self.told:
                self.told(fault)

    def as_dict(self) -> dict:
        """Give the report as JSON can carry it."""
        # asdict() would take a Counter apart wrongly
        left_out = "told", "acknowledgements"
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}
        named: dict[str, object] = {name: [asdict(fault) for fault in values[name]] for name in ("faults", "acknowledged")}
        named["not_judged"] = {place: asdict(each) for place, each in self.not_judged.items()}
        return {"clean": self.clean, **values, **named}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"
