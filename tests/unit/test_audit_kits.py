"""The audit of kits: it works out by itself what a kit's units do to its parts, and compares what was said and done."""

import pytest

from tests.hand_log import PLACES, Hand, answer, line, order, says, ship, stock


def boxes(units: int, reason: str | None = None, parts: tuple[tuple[str, int], ...] = (("CUP", 2), ("LID", 1))) -> dict:
    """A published line of so many boxes."""
    return line("l1", "BOX", units, reason) | {"parts": [{"sku": sku, "quantity": each * units} for sku, each in parts]}


def kits(lids: int = 4, promised: dict | None = None, sold: dict | None = None, late: bool = False) -> Hand:
    """Boxes are promised, shipped, sold at a till, and waited for; each argument puts something else in what is right."""
    hand = Hand()
    hand.location("DC", **PLACES["DC"])
    hand.product("BOX", ("CUP", 2), ("LID", 1))
    hand.event("stock.v1", stock("e1", "receipt", "DC", "CUP", 9))
    hand.batch(DC_CUP=(9,))
    hand.event("stock.v1", stock("e2", "receipt", "DC", "LID", lids))
    hand.batch(DC_LID=(lids,))
    asked = order("e3", "O1", line("l1", "BOX", 3))
    hand.event("orders.v1", asked, says("O1", "allocated", ship("DC", promised or boxes(3))))
    hand.batch(DC_CUP=(9, 6), DC_LID=(lids, 3))
    hand.event("fulfilments.v1", answer("e4", "shipped", "O1", "0000abcd-1-1", "DC", ("l1", 1)))
    hand.batch(DC_CUP=(7, 4), DC_LID=(lids - 1, 2))
    hand.event("sales.v1", stock("e5", "sale", "DC", "BOX", 1))
    hand.batch(**sold or {"DC_CUP": (5, 4), "DC_LID": (lids - 2, 2)})
    hand.event("orders.v1", order("e6", "O2", line("l1", "BOX", 1)), says("O2", "backordered", waits=(boxes(1, "no_stock"),)))
    hand.batch()
    hand.product("BOX", ("CUP", 1))
    hand.event("stock.v1", stock("e7", "receipt", "DC", "CUP", 1))
    hand.batch(DC_CUP=(6, 4))
    served = says("O2", "allocated", ship("DC", boxes(1)))
    hand.event("stock.v1", stock("e8", "receipt", "DC", "LID", 1), *(() if late else (served,)))
    hand.batch(DC_LID=(lids - 1, 2)) if late else hand.batch(DC_CUP=(6, 6), DC_LID=(lids - 1, 3))
    now = boxes(1, "no_stock", (("CUP", 1),))
    hand.event("orders.v1", order("e9", "O3", line("l1", "BOX", 1)), says("O3", "backordered", waits=(now,)))
    hand.batch()
    return hand


def faults(hand: Hand) -> set[str]:
    return {fault.kind for fault in hand.audit().faults}


def test_all_is_well_where_each_kit_is_its_parts():
    assert not kits().audit(complete=True).faults


@pytest.mark.parametrize(
    ("spoilt", "kind"),
    [
        ({"promised": line("l1", "BOX", 3)}, "promise"),
        ({"promised": boxes(3, parts=(("CUP", 2),))}, "promise"),
        ({"promised": boxes(3, parts=(("CUP", 1), ("LID", 1)))}, "promise"),
        ({"lids": 2}, "promise"),
        ({"sold": {"DC_CUP": (5, 4)}}, "cell"),
        ({"sold": {"DC_BOX": (-1,)}}, "cell"),
        ({"late": True}, "waiting"),
    ],
    ids=["no parts", "a part less", "fewer units", "a part lacks", "sold in part", "sold as it is", "left waiting"],
)
def test_the_audit_finds_what_is_not_as_the_parts_are(spoilt, kind):
    assert kind in faults(kits(**spoilt))
