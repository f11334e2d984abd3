"""Faults that somebody has looked at: named, and not counted; what ends an audit counts all the same."""

import json

import pytest

from streams.audit.acknowledged import WrongPlace, place_of
from streams.audit.report import Report
from topics.outputs import Acknowledgement

FAULT = "decision", "allocations.v1", 0, 12, "an Allocation record", "hello"


def report(*places, told=None):
    given = {
        (topic, partition, offset): Acknowledgement(
            topic=topic,
            partition=partition,
            offset=offset,
            topic_id="id",
            acknowledged_at=1,
            acknowledged_by="ann",
            reason="sent by hand",
        )
        for topic, partition, offset in places
    }
    return Report(acknowledgements=given, told=told)


def test_an_acknowledged_fault_is_named_with_who_and_why_and_not_counted_or_told():
    told = []
    found = report(("allocations.v1", 0, 12), told=told.append)
    found.fault(*FAULT)
    assert (found.clean, found.fault_count, found.acknowledged_count, told) == (True, 0, 1, [])
    assert str(found.acknowledged[0]).startswith("acknowledged by ann at 1 (sent by hand): decision at allocations.v1[0]@12")
    answer = json.loads(json.dumps(found.as_dict()))
    assert (answer["clean"], answer["acknowledged"][0]["reason"]) == (True, "sent by hand")
    assert answer["acknowledged"][0]["fault"]["offset"] == 12


@pytest.mark.parametrize("place", [("allocations.v1", 0, 11), ("allocations.v1", 1, 12), ("inventory.v1", 0, 12)])
def test_a_fault_elsewhere_counts(place):
    found = report(place)
    found.fault(*FAULT)
    assert (found.clean, found.acknowledged_count) == (False, 0)


def test_a_fault_without_a_record_can_not_be_acknowledged():
    found = report(("inventory.v1", 0, 0))
    found.fault("inventory", "inventory.v1", 0, None, "uk/DC/A", "no such record")
    assert not found.clean


def test_a_fault_behind_which_nothing_is_judged_counts_and_says_so():
    found = report(("allocations.v1", 0, 12))
    found.fault(*FAULT, ends=True)
    assert not found.clean
    assert "acknowledged by ann, but nothing behind it can be judged" in found.faults[0].found


@pytest.mark.parametrize("text", ["allocations.v1", "allocations.v1[0]", "allocations.v1[x]@1", "@1", "a[0]@-1", ""])
def test_what_names_no_record_is_refused(text):
    with pytest.raises(WrongPlace, match=r"expected TOPIC\[PARTITION\]@OFFSET"):
        place_of(text)
