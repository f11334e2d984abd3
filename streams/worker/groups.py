"""The groups of topics: each has a state, a changelog and transactions of its own. `all_groups` is the one list of them.

Not here: what a group's pipeline does (streams/inventory, streams/demand), who owns which partition (flows.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from config.settings import Settings
from state.schema import Schema
from streams.batch.pipeline import Pipeline
from streams.kafka.names import on_cluster
from streams.worker.snapshots import GroupPartition
from topics.catalogue import TICKS


@dataclass(frozen=True, slots=True)
class Group:
    """Topics that share partitions, state and transactions."""

    name: str
    topics: tuple[str, ...]
    changelog_topic: str
    make_pipeline: Callable[[int, int, Any], Pipeline[Any]]
    """(partition, partitions, settings) → an empty pipeline."""
    schema: Schema
    """Of its state."""
    expendable: tuple[str, ...] = ()
    """Topics whose records may be deleted unread."""
    reads_locations: bool = True

    def place(self, partition: int, partitions: int, settings: Any) -> GroupPartition:
        """Name one partition of the group."""
        name = f"{on_cluster(settings, self.changelog_topic)}-{partition}"
        former = None if settings.topic_prefix else f"{settings.app_id}-{self.name}-{partition}"
        return GroupPartition(name, self.changelog_topic, partition, partitions, self.schema, settings.app_id, former)


def inventory_group() -> Group:
    """The group of the inventory topics."""
    from streams.inventory.pipeline import InventoryPipeline  # compiles at its import

    return Group(
        name="inventory",
        topics=InventoryPipeline.topics,
        changelog_topic=InventoryPipeline.changelog_topic,
        schema=InventoryPipeline.schema,
        make_pipeline=InventoryPipeline,
        expendable=(TICKS,),
    )


def clicks_group(settings: Settings) -> Group:
    """The group of `clicks.v1`; its kernels are compiled here, before any click waits."""
    from streams.demand.pipeline import ClicksPipeline, warm

    warm(settings)
    return Group(
        name="clicks",
        topics=ClicksPipeline.topics,
        changelog_topic=ClicksPipeline.changelog_topic,
        schema=ClicksPipeline.schema,
        make_pipeline=ClicksPipeline,
        reads_locations=False,
    )


def all_groups(settings: Settings) -> list[Group]:
    """All groups that a worker serves."""
    return [inventory_group(), clicks_group(settings)]
