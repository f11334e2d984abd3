"""Kits: what products.v1 makes of SKUs, in every pool, on record, once; and what is refused of it."""

import json

import orjson
import pytest

from state.digest import digest
from state.kits import kits_of
from streams.inventory.pipeline import InventoryPipeline
from tests.hand_log import clean
from tests.inventory_log import kit, location, product, settings
from topics.events import MAX_KIT_PARTS, ProductRecord, Refusal, judge
from topics.reasons import DeadLetter

BOX = {b"BOX": ((b"CUP", 2), (b"LID", 1))}


def pipeline(partition=0, partitions=1):
    made = InventoryPipeline(partition, partitions, settings())
    made.seal()
    return made


def apply(made, *changes):
    return made.process(made.decode([]), list(changes))


def letters(outcome):
    return [orjson.loads(message["value"]) for message in outcome.outputs.get("dead-letter.v1", [])]


def box(offset=0):
    return product("BOX", offset, {"name": "A box"} | kit(("CUP", 2), ("LID", 1)))


def test_a_kit_is_in_every_pool_also_in_one_that_comes_later():
    made = pipeline()
    apply(made, location("A", "uk", 0), location("B", "fr", 1), box())
    assert {kits_of(state) == BOX for state in made.pools.values()} == {True}
    apply(made, location("C", "es", 2))
    assert kits_of(made.pools[b"es"]) == BOX
    assert [state.count("skus") for state in made.pools.values()] == [0, 0, 0], "a SKU has a row once an event names it"


def test_a_kit_changes_and_ends():
    made = pipeline()
    apply(made, location("A", "uk", 0), box(), product("SET", 1, kit(("PEN", 3))))
    apply(made, product("BOX", 2, kit(("CUP", 1))))
    assert kits_of(made.pools[b"uk"]) == {b"BOX": ((b"CUP", 1),), b"SET": ((b"PEN", 3),)}
    apply(made, product("BOX", 3, {"name": "no kit any more"}), product("SET", 4, None))
    assert kits_of(made.pools[b"uk"]) == {}
    apply(made, product("CUP", 5, kit(("BOX", 7))))
    assert kits_of(made.pools[b"uk"]) == {b"CUP": ((b"BOX", 7),)}
    assert made.pools[b"uk"].count("kits") == 2, "rows that are free are used again"


def test_what_was_applied_is_not_applied_again_after_a_restart():
    made = pipeline()
    outcomes = [
        apply(made, location("A", "uk", 0), box(), product("SET", 1, kit(("PEN", 3)))),
        apply(made, product("SET", 2, None)),
    ]
    restored = pipeline()
    for outcome in outcomes:
        restored.restore(outcome.changelog, outcome.link)
    restored.seal()
    assert kits_of(restored.pools[b"uk"]) == BOX == restored.products.kits
    assert digest(restored.pools[b"uk"]) == digest(made.pools[b"uk"])
    again = apply(restored, box(), product("SET", 1, kit(("PEN", 3))), product("SET", 2, None))
    assert (again.changelog, again.outputs) == (b"", {})
    apply(restored, product("SET", 3, kit(("PEN", 4))))
    assert kits_of(restored.pools[b"uk"]) == BOX | {b"SET": ((b"PEN", 4),)}


def test_a_partition_that_had_no_pool_when_a_kit_came_has_it_after_a_restart():
    made = pipeline()
    outcome = apply(made, box())
    restored = pipeline()
    restored.restore(outcome.changelog, outcome.link)
    restored.seal()
    assert apply(restored, box()).changelog == b""
    apply(restored, location("A", "uk", 0))
    assert kits_of(restored.pools[b"uk"]) == BOX


def test_the_interleaving_is_on_record():
    made = pipeline()
    outcome = apply(made, location("A", "uk", 0), box(7), product("LID", 8, b"nonsense".decode()))
    size = int.from_bytes(outcome.changelog[:4], "little")
    changes = json.loads(outcome.changelog[4 : 4 + size])["products"]
    assert [(change["offset"], change["key"], bool(change["value"])) for change in changes] == [
        (7, "BOX", True),
        (8, "LID", False),
    ]


NESTED = "expected a SKU that is no kit, found 'BOX'"


@pytest.mark.parametrize(
    ("sku", "value", "reason", "words"),
    [
        ("SET", kit(("PEN", 0)), "out_of_range", "kit[0].quantity: expected greater than or equal to 1, found 0"),
        ("SET", kit(("PEN", 1), ("PEN", 2)), "wrong_field", "kit: expected parts of different SKUs, found 'PEN'"),
        ("SET", {"kit": []}, "out_of_range", "kit: expected at least 1 entries, found 0"),
        ("SET", kit(*((f"P{n}", 1) for n in range(51))), "out_of_range", "kit: expected at most 50 entries, found 51"),
        ("SET", {"kit": [{"sku": "PEN"}]}, "missing_field", "kit[0].quantity: expected, found none"),
        (
            "SET",
            kit(("PEN", 1), ("SET", 1)),
            "wrong_field",
            "kit[1].sku: expected a SKU that is no kit, found 'SET', the kit itself",
        ),
        ("SET", kit(("BOX", 1)), "wrong_field", f"kit[0].sku: {NESTED}, which is one: list that kit's parts instead"),
        (
            "CUP",
            kit(("PEN", 1)),
            "wrong_field",
            "kit: expected none, since 'CUP' is a part of kit 'BOX'; change that one first",
        ),
        ("SET", {"sku": "OTHER"}, "wrong_field", "sku: expected the record's key 'SET', found 'OTHER'"),
        ("", kit(("PEN", 1)), "wrong_field", "key: expected a SKU of 1 to 128 printable characters, found b''"),
    ],
)
def test_a_product_that_is_no_good_is_refused_once_and_changes_nothing(sku, value, reason, words):
    for partition in (0, 1):
        made = pipeline(partition, 2)
        apply(made, *(location(name, name, at) for at, name in enumerate(("uk", "fr", "es"))), box())
        outcome = apply(made, product(sku, 1, value))
        assert [(letter["reason"], letter["detail"]) for letter in letters(outcome)] == [(reason, words)][partition:]
        assert {kits_of(state) == BOX for state in made.pools.values()} == {True}


def test_all_else_of_a_product_is_optional_and_costs_nothing_if_it_is_wrong():
    assert MAX_KIT_PARTS == 50
    assert judge("products.v1", b"{}") == ProductRecord()
    left_out = []
    found = judge("products.v1", b'{"name": "x", "price": 1.5, "weight_g": -1, "tags": "new", "unit": "piece"}', left_out)
    assert (found.name, found.unit, found.price) == ("x", "piece", None)
    assert left_out == ["price", "weight_g", "tags"]
    assert judge("products.v1", b"[]") == Refusal(DeadLetter.NOT_JSON, judge("products.v1", b"[]").detail)


# The audit


def with_kits():
    hand = clean()
    hand.product("BOX", ("CUP", 2), ("LID", 1))
    hand.product("SET", ("PEN", 3))
    hand.batch()
    hand.product("SET")
    hand.product("LID", ("PEN", 1), dead="wrong_field")
    hand.batch()
    return hand


def faults(hand):
    return [(fault.kind, fault.topic) for fault in hand.audit().faults]


def test_the_audit_finds_clean_what_is():
    assert not with_kits().audit(complete=True).faults


def test_the_audit_finds_a_kit_that_the_state_lacks_or_has_otherwise():
    hand = clean()
    hand.product("BOX", ("CUP", 2))
    hand.kits = {}
    hand.batch()
    assert faults(hand) == [("kit", "inventory-changelog.v1")]
    hand = clean()
    hand.product("BOX", ("CUP", 2))
    hand.kits = {"BOX": [("CUP", 3)]}
    hand.batch()
    assert faults(hand) == [("kit", "inventory-changelog.v1")]


def test_the_audit_finds_a_product_that_is_not_as_published_and_a_letter_that_is_missing():
    hand = with_kits()
    hand.edit("products.v1", 0, lambda value: value["kit"][0].update(quantity=9))
    assert ("network", "products.v1") in faults(hand)
    hand = with_kits()
    hand.drop("dead-letter.v1", hand.records["dead-letter.v1"][-1].offset)
    assert faults(hand) == [("dead_letter", "products.v1")]
