"""Every topic, and all that is true of it: who reads or writes it, its key, its models, its partitions, what it keeps.

Owner: the public contract. Every other list of topics is derived from this one. Inventory topics share one partition count,
since a pool's events, decisions, cells and changelog all lie in the partition of the pool's id; the topics of clicks share
another. Inputs carry the log's own time, so that no sender's clock moves a pool's, and take values as large as the models do.
Changelogs are the state itself and are kept without limit.
Invariant: the order of a group's inputs stands in its changelog, as the codes of its events: inputs are appended, never moved.
Not here: what the fields mean (events.py, outputs.py), creating topics (streams/kafka/create.py).
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from topics import events, outputs

HOUR_MS = 3_600_000
INPUT_BYTES = events.MAX_VALUE_BYTES + (64 << 10)
"""Of a record of an input: the largest value, and 64 KiB for its key, its headers and its frame."""
INPUT = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(INPUT_BYTES)}
# A refused record goes to the dead letters whole, in base64, and a decision may name 1000 lines.
LARGE_RECORD = {"max.message.bytes": str(8 << 20)}
# The empty record of a removed location stays for a hundred years: an old network file must not bring it back.
KEPT_REMOVALS = {"delete.retention.ms": str(100 * 365 * 24 * HOUR_MS)}

# The topics that code speaks of one by one.
CLICKS, TICKS, LOCATIONS = "clicks.v1", "ticks.v1", "locations.v1"
INVENTORY, ALLOCATIONS, DEMAND = "inventory.v1", "allocations.v1", "demand.v1"
DEAD_LETTERS, REPLAYS = "dead-letter.v1", "dead-letter-replays.v1"
ALERTS, ACKNOWLEDGEMENTS = "alerts.v1", "acknowledgements.v1"


class TopicSettings(Protocol):
    """What the configuration of a topic needs of the settings."""

    partitions: int
    click_partitions: int
    replication_factor: int
    input_retention_hours: int
    output_retention_hours: int


class Role(Enum):
    """What a topic is to its groups."""

    INPUT = "input"  # each record once, by the partition's owner
    STATE = "state"  # read whole by every worker
    OUTPUT = "output"
    CHANGELOG = "changelog"


class Partitions(Enum):
    """Which partition count a topic has."""

    INVENTORY = "inventory"
    CLICKS = "clicks"
    LARGER = "the larger of both"  # records of either kind lie in their input's partition
    ANY = "any"  # one when created by us


class Keep(Enum):
    """How long a topic keeps its records."""

    INPUT = "input"
    OUTPUT = "output"
    LATEST = "latest by key"
    FOREVER = "forever"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic.

    Attributes
    ----------
    groups : tuple of str
        Which workers' groups read or write it: inventory, clicks; "audit" is written by the audit, "operators" by a
        command that a person gives.
    key_fields : tuple of str
        The fields of the value that make the key, joined by `keys.compound_key`; none: records have no key. The sender of an
        input knows its `pool_id`, which is no field of the value.
    models : tuple of type
        The values' models; empty where the value is not JSON.
    internal : bool
        Whether only workers write this input.
    """

    name: str
    groups: tuple[str, ...]
    role: Role
    key_fields: tuple[str, ...]
    models: tuple[type[events.Record], ...]
    partitions: Partitions
    keep: Keep
    settings: dict[str, str] = field(default_factory=dict)
    internal: bool = False

    @property
    def own_key(self) -> str | None:
        """The field of each value that is the key; None where there is no such field, or the key has several."""
        return self.key_fields[0] if len(self.key_fields) == 1 and self.every_value_has(*self.key_fields) else None

    def every_value_has(self, *names: str) -> bool:
        """Tell whether each of the models has these fields."""
        return all(name in model.model_fields for model in self.models for name in names)

    def partition_count(self, settings: TopicSettings) -> int:
        """Return how many partitions the topic is created with."""
        counts = {
            Partitions.INVENTORY: settings.partitions,
            Partitions.CLICKS: settings.click_partitions,
            Partitions.LARGER: max(settings.partitions, settings.click_partitions),
            Partitions.ANY: 1,
        }
        return counts[self.partitions]

    def config(self, settings: TopicSettings) -> dict[str, str]:
        """Return the topic's configuration as Kafka takes it."""
        retention_ms = {
            Keep.INPUT: settings.input_retention_hours * HOUR_MS,
            Keep.OUTPUT: settings.output_retention_hours * HOUR_MS,
            Keep.FOREVER: -1,
        }
        if self.keep is Keep.LATEST:
            return {"cleanup.policy": "compact", **self.settings}
        return {"cleanup.policy": "delete", "retention.ms": str(retention_ms[self.keep]), **self.settings}


def _input(name: str, group: str, key_field: str, *, internal: bool = False) -> Topic:
    partitions, models = Partitions(group), events.MODELS[name]
    return Topic(name, (group,), Role.INPUT, (key_field,), models, partitions, Keep.INPUT, INPUT, internal)


def _output(
    name: str, groups: str, keys: str, model: type[events.Record], partitions: Partitions, keep: Keep, **settings: str
) -> Topic:
    key_fields = tuple(keys.split("/"))
    return Topic(name, tuple(groups.split()), Role.OUTPUT, key_fields, (model,), partitions, keep, settings)


def _changelog(group: str) -> Topic:
    name, partitions = f"{group}-changelog.v1", Partitions(group)
    return Topic(name, (group,), Role.CHANGELOG, (), (), partitions, Keep.FOREVER, LARGE_RECORD)


_INVENTORY, _CLICKS, _OUTPUT = Partitions.INVENTORY, Partitions.CLICKS, Keep.OUTPUT
_CATALOGUE = (
    _input("sales.v1", "inventory", "pool_id"),
    _input("stock.v1", "inventory", "pool_id"),
    _input("orders.v1", "inventory", "pool_id"),
    _input("fulfilments.v1", "inventory", "pool_id"),
    _input(TICKS, "inventory", "pool_id", internal=True),
    _input(CLICKS, "clicks", "visitor_id"),
    Topic(
        LOCATIONS,
        ("inventory",),
        Role.STATE,
        ("id",),
        events.MODELS[LOCATIONS],
        Partitions.ANY,
        Keep.LATEST,
        INPUT | KEPT_REMOVALS,
    ),
    _output(INVENTORY, "inventory", "location_id/sku", outputs.Inventory, _INVENTORY, Keep.LATEST),
    _output(ALLOCATIONS, "inventory", "order_id", outputs.Allocation, _INVENTORY, _OUTPUT, **LARGE_RECORD),
    _output(DEMAND, "clicks", "pool_id/sku/partition", outputs.Demand, _CLICKS, _OUTPUT),
    _output(DEAD_LETTERS, "inventory clicks", "key", outputs.DeadLetterRecord, Partitions.LARGER, _OUTPUT, **LARGE_RECORD),
    Topic(
        ALERTS,
        ("inventory", "audit"),
        Role.OUTPUT,
        ("alert_id",),
        (outputs.Alert, outputs.AuditAlert),
        Partitions.LARGER,
        _OUTPUT,
    ),
    Topic(
        ACKNOWLEDGEMENTS,
        ("audit",),
        Role.OUTPUT,
        ("topic", "partition", "offset"),
        (outputs.Acknowledgement,),
        Partitions.ANY,
        Keep.LATEST,
    ),
    # As long as its letters, and of each the latest.
    Topic(
        REPLAYS,
        ("operators",),
        Role.OUTPUT,
        ("topic", "partition", "offset"),
        (outputs.DeadLetterReplay,),
        Partitions.ANY,
        _OUTPUT,
        {"cleanup.policy": "compact,delete"},
    ),
    _changelog("inventory"),
    _changelog("clicks"),
)
CATALOGUE: dict[str, Topic] = {topic.name: topic for topic in _CATALOGUE}


def topics_of(group: str, *roles: Role) -> tuple[str, ...]:
    """Name a group's topics of some roles, role by role, in the catalogue's order.

    Raises
    ------
    LookupError
        There is no such group.

    Examples
    --------
    >>> topics_of("inventory", Role.INPUT, Role.STATE)
    ('sales.v1', 'stock.v1', 'orders.v1', 'fulfilments.v1', 'ticks.v1', 'locations.v1')
    >>> inputs_of("clicks"), outputs_of("clicks"), changelog_of("clicks")
    (('clicks.v1',), ('demand.v1', 'dead-letter.v1'), 'clicks-changelog.v1')
    """
    groups = sorted({name for topic in _CATALOGUE for name in topic.groups})
    if group not in groups:
        raise LookupError(f"expected a group of the catalogue, one of {', '.join(groups)}, found {group}")
    return tuple(topic.name for role in roles for topic in _CATALOGUE if topic.role is role and group in topic.groups)


def inputs_of(group: str) -> tuple[str, ...]:
    """Name a group's inputs; the place of each is the code of its events."""
    return topics_of(group, Role.INPUT)


def outputs_of(group: str) -> tuple[str, ...]:
    """Name a group's outputs."""
    return topics_of(group, Role.OUTPUT)


def changelog_of(group: str) -> str:
    """Name the topic that holds a group's state."""
    (name,) = topics_of(group, Role.CHANGELOG)
    return name


def publishable() -> list[Topic]:
    """List the topics that people and other systems write."""
    return [topic for topic in _CATALOGUE if topic.role in (Role.INPUT, Role.STATE) and not topic.internal]


GROUPS = tuple(group for topic in _CATALOGUE if topic.role is Role.CHANGELOG for group in topic.groups)
"""The groups that workers serve."""
INVENTORY_TOPICS = inputs_of("inventory")
