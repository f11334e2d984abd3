"""Product changes: which SKUs are kits, of which parts. All else that a product's record says changes no decision.

Every partition reads all of `products.v1`, as far as it is of kits, and keeps the kits in each of its pools. Partition 0
refuses what is no good, so that each record is refused once. A refused record leaves the kit as it was; an empty one ends it.
Owner: the inventory pipeline. Not here: a kit's rows (state/kits.py), reading the topic (worker/locations.py).
"""

from collections import Counter
from typing import Any

from pydantic import TypeAdapter, ValidationError

from state.kits import Parts, kits_of, put_kit
from state.pool import PoolState
from streams.batch.pipeline import LocationChange
from topics.catalogue import PRODUCTS
from topics.events import Id, ProductRecord, Refusal, judge
from topics.reasons import DeadLetter

_ID = TypeAdapter(Id)


class Products:
    """The kits in force, as one partition has read them.

    Parameters
    ----------
    applied : dict
        Partition of products.v1 → offset after the last change that a batch applied; the pipeline's own.
    """

    def __init__(self, applied: dict[int, int]):
        self.kits: dict[bytes, Parts] = {}
        self._part_of: Counter[bytes] = Counter()  # SKU → kits that it is a part of
        self._applied = applied
        self._restored = False

    def restore(self, state: PoolState) -> None:
        """Take the kits over from a pool that was restored; all pools of a partition have the same."""
        self.kits, self._restored = kits_of(state), True
        self._part_of = Counter(part for parts in self.kits.values() for part, _ in parts)

    def register(self, change: LocationChange) -> bool:
        """Tell whether a change is still to be applied. One that was is followed all the same while there is no pool."""
        if change.offset >= self._applied.get(change.partition, 0):
            return True
        if not self._restored:
            self.put(change, [])
        return False

    def put(self, change: LocationChange, pools: list[PoolState]) -> Refusal | None:
        """Put a change into pools, and count it as applied; give why it is refused, if it is."""
        self._applied[change.partition] = max(change.offset + 1, self._applied.get(change.partition, 0))
        parts = self._judged(change)
        if isinstance(parts, Refusal):
            return parts
        sku = change.key or b""
        former = self.kits.pop(sku, ())
        if parts:
            self.kits[sku] = parts
        if parts != former:
            self._part_of.subtract(part for part, _ in former)
            self._part_of.update(part for part, _ in parts)
            for state in pools:
                put_kit(state, sku, parts)
        return None

    def enter(self, state: PoolState) -> None:
        """Give a new pool the kits in force."""
        for sku, parts in self.kits.items():
            put_kit(state, sku, parts)

    def _judged(self, change: LocationChange) -> Parts | Refusal:
        """Read what a change says of its SKU's parts; () = it is no kit."""
        try:
            sku = _ID.validate_python((change.key or b"").decode())
        except (ValidationError, UnicodeDecodeError):
            return Refusal(
                DeadLetter.WRONG_FIELD, f"key: expected a SKU of 1 to 128 printable characters, found {change.key!r}"
            )
        if change.value is None:
            return ()
        product = judge(PRODUCTS, change.value)
        if isinstance(product, Refusal):
            return product
        assert isinstance(product, ProductRecord), "the model of products.v1"
        if product.sku not in (None, sku):
            return Refusal(DeadLetter.WRONG_FIELD, f"sku: expected the record's key {sku!r}, found {product.sku!r}")
        for number, part in enumerate(product.kit or ()):
            fault = f"kit[{number}].sku: expected a SKU that is no kit, found {part.sku!r}"
            if part.sku == sku:
                return Refusal(DeadLetter.WRONG_FIELD, f"{fault}, the kit itself")
            if part.sku.encode() in self.kits:
                return Refusal(DeadLetter.WRONG_FIELD, f"{fault}, which is one: list that kit's parts instead")
        if product.kit and self._part_of[sku.encode()]:
            holder = next(kit.decode() for kit, parts in self.kits.items() if change.key in dict(parts))
            holds = f"kit: expected none, since {sku!r} is a part of kit {holder!r}"
            return Refusal(DeadLetter.WRONG_FIELD, f"{holds}; change that one first")
        return tuple((part.sku.encode(), part.quantity) for part in product.kit or ())


def told(change: LocationChange) -> dict[str, Any]:
    """Describe a change for the changelog's manifest; `value` None = the product is gone, false = a record refused."""
    judged = None if change.value is None else judge(PRODUCTS, change.value)
    return {
        "partition": change.partition,
        "offset": change.offset,
        "timestamp": change.timestamp,
        "key": None if change.key is None else change.key.decode(errors="replace"),
        "value": False if isinstance(judged, Refusal) else judged and {"sku": judged.sku, "kit": _plain(judged)},
    }


def _plain(product: ProductRecord) -> list[dict[str, Any]] | None:
    return None if product.kit is None else [part.model_dump() for part in product.kit]
