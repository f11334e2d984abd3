"""Kits by the pipeline, by the state, and by the audit, which shares no code with them: the same after every record."""

import random

import orjson
import pytest

from state.digest import digest
from state.kits import kits_of, put_kit
from state.pool import PoolState
from streams.audit.log import Record
from streams.audit.memory import RefusedEvent
from streams.audit.products import Kits
from streams.batch.pipeline import LocationChange
from streams.inventory.products import Products

SKUS = ("A", "B%", "C/", "D" * 128, "É")
KEYS = (*(sku.encode() for sku in SKUS), b"", b" ", b"\xff", b"x" * 129, None)


def record(rng: random.Random) -> tuple[bytes | None, bytes | None]:
    """Make a key and a value: mostly a kit of SKUs that are kits now and then."""
    key = rng.choice(KEYS) if rng.random() < 0.1 else rng.choice(SKUS).encode()
    if rng.random() < 0.15:
        return key, rng.choice([None, b"", b"{", b"[1]", b"\xff", b'{"kit": 7}', b'{"kit": [7]}', b'{"kit": []}', b"{}"])
    parts = [
        {"sku": rng.choice(SKUS), "quantity": rng.choice([1, 2, 10**9, 0, 1.0, "1"])} for _ in range(rng.choice([1, 1, 2, 3]))
    ]
    value: dict = {"kit": parts, "name": rng.choice(["x", 5, None]), "sku": rng.choice([None, None, *SKUS])}
    return key, orjson.dumps({name: each for name, each in value.items() if rng.random() < 0.8})


@pytest.mark.parametrize("seed", range(20))
def test_all_have_the_same_kits_and_refuse_the_same(seed):
    rng, state = random.Random(seed), PoolState(b"uk")
    products, audited, taken = Products({}), Kits(), 0
    for offset in range(200):
        key, value = record(rng)
        refusal = products.put(LocationChange(0, offset, 0, key, value, "products.v1"), [state])
        found = None
        try:
            audited.follow(Record(offset, 0, key, value, ()))
        except RefusedEvent as refused:
            found = refused.reason
        assert (refusal and refusal.reason) == found, (key, value, refusal)
        taken += found is None
        assert kits_of(state) == products.kits
        kits = {sku.encode(): tuple((part.encode(), units) for part, units in parts) for sku, parts in audited.parts.items()}
        assert products.kits == kits
        assert not {part for parts in kits.values() for part, _ in parts} & kits.keys()
    assert 10 < taken < 190


def test_the_digest_sees_the_kits_and_not_how_they_came():
    def digest_of(*kits):
        state = PoolState(b"uk")
        for sku, parts in kits:
            put_kit(state, sku, parts)
        return digest(state)

    box, tin = (b"BOX", ((b"CUP", 2), (b"LID", 1))), (b"TIN", ((b"TEA", 1),))
    assert digest_of(box, tin) == digest_of(tin, (b"BAG", tin[1]), (b"BOX", tin[1]), (b"BAG", ()), box)
    others = [digest_of(*kits) for kits in ([box], [tin], [box, (b"TIN", ((b"TEA", 2),))], [box, (b"TIN", ((b"PIE", 1),))])]
    assert len({digest_of(box, tin), *others}) == 5
