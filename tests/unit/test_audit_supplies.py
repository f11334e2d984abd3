"""The audit of transfers and supplies, over a log written by hand: clean as it stands, and what is spoiled is found."""

import json

import pytest

from streams.audit.latest import Latest
from streams.audit.log import Record
from tests.hand_log import PLACES, T0, Hand, stock, tells
from topics.outputs import Supply

DAY_MS = 86_400_000
TRANSFERS, SUPPLIES = "transfers.v1", "supplies.v1"


def told(kind: str, found: int, expected: int, status: str = "raised", transfer: str = "T/1") -> dict:
    of = {"alert_id": f"{kind}/uk/{transfer.replace('/', '%2F')}/A", "transfer_id": transfer}
    return tells(kind, "LEEDS", "A", found, expected, status) | of


def transfer(hand: Hand, sent: int, received: int, status: str, transfer_id: str = "T/1", **fields) -> None:
    value = {
        "pool_id": "uk",
        "transfer_id": transfer_id,
        "from": "DC",
        "to": "LEEDS",
        "sku": "A",
        "sent": sent,
        "received": received,
        "open": max(0, sent - received),
        "sent_at": T0,
        "expected_at": T0 + 14 * DAY_MS,
        "status": status,
        "updated_at": hand.now,
    }
    hand.append(TRANSFERS, value | fields, f"uk/{transfer_id.replace('/', '%2F')}/A".encode())


def supply(hand: Hand, quantity: int) -> None:
    of = {"pool_id": "uk", "supply_id": "P1", "location_id": "DC", "sku": "A"}
    value = of | {"quantity": quantity, "expected_at": T0 + 9, "updated_at": hand.now}
    hand.append(SUPPLIES, value if quantity else None, b"uk/P1/A")


def clean() -> Hand:
    """A transfer that arrives before it is known to have left, in excess and late; one that settles; a supply that comes."""
    hand = Hand()
    for name, place in PLACES.items():
        hand.location(name, **place)
    hand.event("stock.v1", stock("e1", "receipt", "DC", "A", 20))
    hand.batch(DC_A=(20,))
    expected = {"supply_id": "P1", "expected_at": T0 + 9}
    hand.event("stock.v1", stock("e2", "expected", "DC", "A", 7, **expected))
    hand.event("stock.v1", stock("e3", "expected", "DC", "A", 9, **expected))
    supply(hand, 9)
    hand.batch()
    came, left = {"transfer_id": "T/1"}, {"transfer_id": "T/1", "to_location_id": "LEEDS"}
    hand.event("stock.v1", stock("e4", "transfer_in", "LEEDS", "A", 4, **came), alerts=[told("transfer_excess", 4, 0)])
    transfer(hand, 0, 4, "excess", **{"from": None, "sent_at": None, "expected_at": None})
    hand.batch(LEEDS_A=(4,))
    cleared = told("transfer_excess", 4, 6, "cleared")
    hand.event("stock.v1", stock("e5", "transfer_out", "DC", "A", 6, **left), alerts=[cleared])
    transfer(hand, 6, 4, "open")
    hand.batch(DC_A=(14,))
    other = {"transfer_id": "T2", "to_location_id": "LEEDS"}
    hand.event("stock.v1", stock("e6", "transfer_out", "DC", "A", 1, event_time=T0 + 5, **other))
    transfer(hand, 1, 0, "open", "T2", sent_at=T0 + 5, expected_at=T0 + 14 * DAY_MS + 5)
    hand.batch(DC_A=(13,))
    hand.event("stock.v1", stock("e7", "transfer_in", "LEEDS", "A", 1, transfer_id="T2"))
    transfer(hand, 1, 1, "received", "T2", sent_at=T0 + 5, expected_at=T0 + 14 * DAY_MS + 5)
    hand.batch(LEEDS_A=(5,))
    overdue = told("transfer_overdue", 4, 6)
    hand.event("ticks.v1", {"pool_id": "uk"}, alerts=[overdue], after_ms=14 * DAY_MS)
    transfer(hand, 6, 4, "overdue")
    hand.append(TRANSFERS, None, b"uk/T2/A")
    hand.batch()
    hand.event("stock.v1", stock("e8", "expected", "DC", "A", 0, **expected))
    supply(hand, 0)
    hand.batch()
    arrived = told("transfer_overdue", 6, 6, "cleared")
    hand.event("stock.v1", stock("e9", "transfer_in", "LEEDS", "A", 2, **came), alerts=[arrived])
    hand.append(TRANSFERS, None, b"uk/T%2F1/A")
    hand.batch(LEEDS_A=(7,))
    return hand


def test_a_clean_log_is_found_clean():
    report = clean().audit(complete=True)
    assert not report.faults
    assert report.alerts == {"transfer_excess": 2, "transfer_overdue": 2}


def compacted(hand: Hand) -> None:
    """Keep of each key the last record, and none that is empty."""
    for topic in (TRANSFERS, SUPPLIES):
        last = {record.key: record for record in hand.records[topic]}
        hand.records[topic] = sorted(record for record in last.values() if record.value is not None)


def test_a_compacted_log_is_found_clean():
    hand = clean()
    compacted(hand)
    assert hand.records[TRANSFERS] == hand.records[SUPPLIES] == []
    assert not hand.audit().faults
    hand.event("stock.v1", stock("e10", "transfer_in", "LEEDS", "A", 1, transfer_id="T2"), alerts=[])
    hand.alert(told("transfer_excess", 1, 0, transfer="T2"), "stock.v1", len(hand.records["stock.v1"]) - 1, None)
    unknown = {"from": None, "sent_at": None, "expected_at": None}
    transfer(hand, 0, 1, "excess", "T2", **unknown)
    hand.batch(LEEDS_A=(8,))
    compacted(hand)
    assert not hand.audit().faults
    hand.records[TRANSFERS] = []
    assert [fault.kind for fault in hand.audit().faults] == ["supply"]


@pytest.mark.parametrize("topic, count", [(TRANSFERS, 7), (SUPPLIES, 2)])
def test_each_last_value_that_is_missing_or_wrong_is_found(topic, count):
    assert len(clean().records[topic]) == count
    for place in range(count):
        hand = clean()
        key = hand.records[topic][place].key
        is_last = all(record.key != key for record in hand.records[topic][place + 1 :])
        hand.drop(topic, place)
        assert [fault.kind for fault in hand.audit().faults] == ["supply"] * is_last, f"{topic} {place}"
        hand = clean()
        record = hand.records[topic][place]
        if record.value is not None:
            hand.edit(topic, place, lambda value: value.update(updated_at=1))
        else:
            hand.records[topic][place] = record._replace(key=b"uk/nothing/A")
        assert "supply" in {fault.kind for fault in hand.audit().faults}, f"{topic} {place}"


def test_a_supply_that_ends_and_comes_again_in_one_batch_is_found_clean_and_one_that_did_not_end_is_not():
    def again(quantity: int) -> Hand:
        hand = clean()
        of = {"supply_id": "P1", "expected_at": T0 + 9}
        hand.event("stock.v1", stock("e10", "expected", "DC", "A", 5, **of))
        supply(hand, 5)
        hand.batch()
        hand.event("stock.v1", stock("e11", "expected", "DC", "A", quantity, **of))
        hand.append(SUPPLIES, None, b"uk/P1/A")
        hand.event("stock.v1", stock("e12", "expected", "DC", "A", 3, **of))
        supply(hand, 3)
        hand.batch()
        return hand

    assert not again(0).audit(complete=True).faults
    assert [fault.kind for fault in again(4).audit().faults] == ["supply"]


def test_a_key_that_is_not_that_of_its_value_is_found():
    hand = clean()
    hand.edit(TRANSFERS, 0, lambda value: value.update(sku="B"))
    assert "key uk/T%2F1/B" in str(hand.audit().faults[0])


def test_a_value_that_no_batch_left_is_found_unless_batches_are_committed_meanwhile():
    hand = clean()
    supply(hand, 3)
    assert hand.audit(moving=True).clean
    assert [(fault.kind, fault.topic, fault.offset) for fault in hand.audit().faults] == [("supply", SUPPLIES, 2)]


@pytest.mark.parametrize("place", range(4))
def test_each_alert_of_a_transfer_that_is_missing_or_wrong_is_found(place):
    hand = clean()
    hand.drop("alerts.v1", place)
    assert [fault.kind for fault in hand.audit().faults] == ["alert"]
    hand = clean()
    hand.edit("alerts.v1", place, lambda alert: alert.update(found=99))
    assert [fault.kind for fault in hand.audit().faults] == ["alert"]


def test_an_alert_of_a_transfer_names_no_order_though_an_orders_event_moved_the_clock():
    hand = clean()
    assert {json.loads(record.value)["order_id"] for record in hand.records["alerts.v1"]} == {None}


class Growing:
    """Records that come in later than what is read of the batches."""

    def __init__(self):
        self.records = []

    def __iter__(self):
        return self

    def __next__(self):
        if not self.records:
            raise StopIteration
        return self.records.pop(0)


@pytest.mark.parametrize("standing", [False, True])
def test_an_empty_record_that_outlives_what_it_takes_out_is_no_fault(standing):
    faults, source = [], Growing()
    names = "pool_id", "supply_id", "sku"
    latest = Latest(source, SUPPLIES, Supply, names, lambda *fault: faults.append(fault))
    if standing:
        hand = clean()
        source.records = hand.records[SUPPLIES][:1]
        latest.expect(("uk", "P1", "A"), 0, Supply.model_validate_json(source.records[0].value))
    latest.expect(("uk", "P1", "A"), 1, None)
    latest.settle()
    source.records.append(Record(1, T0, b"uk/P1/A", None))
    source.records.append(Record(2, T0, b"uk/P1/A", None))
    latest.rest(3)
    assert not faults
    source.records = clean().records[SUPPLIES][:1]
    latest.rest(3)
    assert [fault[0] for fault in faults] == ["supply"]
