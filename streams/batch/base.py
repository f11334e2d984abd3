"""What the log of every group of topics needs: numbers, links, input offsets, changelog records, and restoring from them.

A group's pipeline (inventory/pipeline.py, demand/pipeline.py) stands on this and adds what its records do.
Owner: the flow's thread. Invariants: batch numbers have no gaps; a batch begins at or after the offset up to which its topic
was read before.
Not here: Kafka, the batch's parts (chain.py), the tables (state/).
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, Generic, TypeVar

from state import changelog
from state.digest import digest
from state.schema import Schema
from state.tableset import Delta, TableSet
from streams.batch.inputs import Inputs
from streams.batch.pipeline import ChangelogGap, Cursor

S = TypeVar("S", bound=TableSet)


class GroupPipeline(ABC, Generic[S]):
    """The state of one partition of a group, and its place in the changelog.

    Attributes
    ----------
    sequence : int
        Number of the last batch; 0 = none.
    link : bytes
        That batch's link in the hash chain.
    next_offsets : dict
        Input topic → offset to read next.
    location_offsets : dict
        Partition of locations.v1 → offset after the last record that a batch of this partition applied.
    product_offsets : dict
        The same of products.v1.
    pools : dict
        Pool id → its state.
    """

    topics: tuple[str, ...]
    changelog_topic: str
    schema: Schema
    """Of each pool's state."""

    def __init__(self, partition: int, partitions: int):
        self.partition = partition
        self.partitions = partitions
        self.sequence = 0
        self.link = changelog.FIRST_LINK
        self.next_offsets: dict[str, int] = {}
        self.location_offsets: dict[int, int] = {}
        self.product_offsets: dict[int, int] = {}
        self.pools: dict[bytes, S] = {}

    @abstractmethod
    def pool(self, pool_id: bytes) -> S:
        """Give a pool's state; an empty one if it is new."""

    def record(
        self, inputs: Inputs, locations: list[dict[str, Any]], changed: list[bytes], products: Sequence[dict[str, Any]] = ()
    ) -> bytes:
        """Number the batch, and write its changelog record.

        Parameters
        ----------
        inputs : Inputs
        locations : list of dict
            The location changes that were applied, as the manifest names them.
        changed : list of bytes
            Ids of the pools that the batch may have changed.
        products : sequence of dict
            The product changes that were applied.
        """
        self.sequence += 1
        self.next_offsets |= inputs.next_offsets
        head = {
            "batch": self.sequence,
            "partition": self.partition,
            "topics": list(self.topics),
            "inputs": inputs.manifest,
            "locations": locations,
            "products": products,
        }
        deltas = {pool_id.decode(): self.pools[pool_id].take_delta() for pool_id in changed}
        record = changelog.encode(head, inputs.codes, deltas)
        self.link = changelog.next_link(self.link, record)
        return record

    def load(self, cursor: Cursor, pools: dict[str, Delta]) -> None:
        """Take over a snapshot: all rows of all pools, as one delta each. The pipeline is empty before."""
        self.sequence, self.link = cursor.batch, cursor.link
        self.next_offsets.update(cursor.inputs)
        self.location_offsets.update(cursor.locations)
        self.product_offsets.update(cursor.products)
        for pool_id, delta in pools.items():
            self.pool(pool_id.encode()).fold(delta)

    def restore(self, record: bytes, link: bytes) -> None:
        """Fold one whole changelog record, whose link is proven.

        Raises
        ------
        ChangelogGap
            It is not the next of the chain.
        """
        manifest, blobs = changelog.manifest_of(record)
        number, where = manifest["batch"], f"{self.changelog_topic}[{self.partition}]"
        if number != self.sequence + 1:
            raise ChangelogGap(
                f"{where}: expected batch {self.sequence + 1}, found {number}; "
                "records were deleted or written by another application"
            )
        for given in manifest["inputs"]:
            topic, read = given["topic"], self.next_offsets.get(given["topic"], 0)
            if given["first"] < read:
                raise ChangelogGap(
                    f"{where} batch {number}: {topic} begins at offset {given['first']}, but was already read up to {read}"
                )
            self.next_offsets[topic] = given["next"]
        self.location_offsets |= {change["partition"]: change["offset"] + 1 for change in manifest["locations"]}
        self.product_offsets |= {change["partition"]: change["offset"] + 1 for change in manifest.get("products", ())}
        for pool in manifest["pools"]:
            self.pool(pool["pool_id"].encode()).fold(changelog.delta_of(pool["tables"], blobs))
        self.sequence, self.link = number, link

    def seal(self) -> None:
        """Build what is derived from the restored tables; once, after the last `restore`."""
        for state in self.pools.values():
            state.seal()

    def digests(self) -> dict[str, str]:
        """Give each pool's state as one number (state/digest.py)."""
        return {pool_id.decode(): digest(state) for pool_id, state in self.pools.items()}

    def kept_products(self) -> Collection[bytes]:
        """Give the SKUs whose records of `products.v1` the state keeps something of: none, unless a group says otherwise."""
        return ()

    def needs_ticks(self, now_ms: float) -> list[bytes]:
        """Give the ids of the pools in which something waits on time, at `now_ms` by the owner's clock, epoch ms.

        None, unless a group says otherwise. The owner's clock says whether to append a tick; the log's says what the tick does.
        """
        return []
