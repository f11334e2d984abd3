"""Kits as the records of `products.v1` have them, record by record, in the order that the batches name.

A record that can't be read, has another key than its `sku`, or makes a kit of kits, is refused and changes nothing.
Owner: the audit. Not here: whether the record is the one published (inventory.py).
"""

from collections import defaultdict

from pydantic import TypeAdapter, ValidationError

from streams.audit.log import Record
from streams.audit.memory import RefusedEvent
from topics.catalogue import PRODUCTS
from topics.events import Id, Refusal, judge
from topics.reasons import DeadLetter

_KEY = TypeAdapter(Id)
Goods = tuple[tuple[str, int], ...]
"""SKUs, and units of each."""


class Kits:
    """The kits in force."""

    def __init__(self) -> None:
        self.parts: dict[str, list[tuple[str, int]]] = {}
        """SKU → its parts' SKUs and units, in the record's order."""
        self._holders: dict[str, set[str]] = defaultdict(set)
        """SKU → the kits that it is a part of."""

    def of(self, sku: str) -> Goods:
        """Give a kit's parts; empty if the SKU is no kit now."""
        return tuple(self.parts.get(sku, ()))

    def follow(self, record: Record) -> None:
        """Let a record change the kits.

        Raises
        ------
        RefusedEvent
            It is no good.
        """
        try:
            sku = _KEY.validate_python((record.key or b"").decode())
        except (ValidationError, UnicodeDecodeError):
            raise RefusedEvent(DeadLetter.WRONG_FIELD) from None
        parts = []
        if record.value is not None:
            product = judge(PRODUCTS, record.value)
            if isinstance(product, Refusal):
                raise RefusedEvent(product.reason)
            if product.sku is not None and product.sku != sku:
                raise RefusedEvent(DeadLetter.WRONG_FIELD)
            parts = [(part.sku, part.quantity) for part in product.kit or ()]
        named = {part for part, _ in parts}
        if sku in named or named & self.parts.keys() or (parts and self._holders[sku]):
            raise RefusedEvent(DeadLetter.WRONG_FIELD)
        for part, _ in self.parts.pop(sku, ()):
            self._holders[part].discard(sku)
        if parts:
            self.parts[sku] = parts
        for part in named:
            self._holders[part].add(sku)
