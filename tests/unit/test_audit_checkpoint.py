"""An audit goes on from what an earlier one knew: exact, though the inputs before it are deleted by then."""

import os

import pytest

from streams.audit import audit_log
from streams.audit.report import Report
from tests.hand_log import LIMITS, OUTPUTS, TOPICS, clean, says, stock
from tests.memory_log import MemoryLog
from topics.outputs import Acknowledgement

CHANGELOG = "inventory-changelog.v1"
KEPT = (CHANGELOG, "inventory.v1", "locations.v1")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.checkpoint"


def audited(hand, path, deleted=(), limits=LIMITS, **of_report):
    records = {(topic, 0): list(found) for topic, found in hand.records.items()}
    log = MemoryLog(records, dict.fromkeys((*TOPICS, *OUTPUTS), 1))
    report = Report(**of_report)
    return audit_log(log, limits, report=report, deletions=lambda changelog, partition: deleted, checkpoint=path)


def grow(hand):
    """Sell one more of a cell that earlier records made, and decide on an order that an earlier record placed."""
    hand.event("sales.v1", stock("e90", "sale", "LEEDS", "A", 1, event_time=hand.now))
    hand.batch(LEEDS_A=(5, 4, 1))
    hand.event(
        "orders.v1",
        {"event_id": "e91", "event_time": hand.now, "kind": "cancelled", "order_id": "O5"},
        says("O5", "cancelled"),
    )
    hand.batch(LEEDS_A=(5, 3, 1))


def delete(hand, before):
    """Delete the first records of each topic, so many."""
    for topic, count in before.items():
        hand.records[topic] = hand.records[topic][count:]


def deleted_and_grown(path):
    hand = clean()
    first = audited(hand, path)
    counts = {topic: len(found) for topic, found in hand.records.items() if topic not in KEPT}
    grow(hand)
    delete(hand, counts)
    return first, hand


def test_an_audit_goes_on_from_an_earlier_one_and_judges_all_that_came_since(path):
    first, hand = deleted_and_grown(path)
    assert first.clean
    report = audited(hand, path, deleted=TOPICS)
    assert not report.faults
    assert report.checkpoint == f"went on from {path}"
    assert not report.not_judged
    whole = clean()
    grow(whole)
    expected = audited(whole, None)
    for name in ("batches", "events", "outcomes", "decisions", "orders", "cells", "units_on_hand", "units_reserved"):
        assert getattr(report, name) == getattr(expected, name), name


def test_a_fault_behind_a_checkpoint_is_found_by_what_is_before_it(path):
    _, hand = deleted_and_grown(path)
    hand.edit("allocations.v1", 0, lambda decision: decision.update(status="closed_short"))
    assert {fault.kind for fault in audited(hand, path, deleted=TOPICS).faults} == {"decision"}


def test_without_a_checkpoint_the_same_log_is_not_judged(path):
    _, hand = deleted_and_grown(path)
    report = audited(hand, path.with_name("none"), deleted=TOPICS)
    assert report.clean
    assert report.orders == 0
    assert report.not_judged
    assert "none at" in report.checkpoint


def test_a_fault_found_before_counts_until_it_is_acknowledged(path):
    hand = clean()
    hand.edit("allocations.v1", 0, lambda decision: decision.update(sequence=7))
    first = audited(hand, path)
    assert not first.clean
    told = []
    again = audited(hand, path, told=told.append)
    assert [str(fault) for fault in again.faults] == [str(fault) for fault in first.faults]
    assert told == again.faults
    given = {
        (fault.topic, fault.partition, fault.offset): Acknowledgement(
            topic=fault.topic,
            partition=fault.partition,
            offset=fault.offset,
            topic_id="",
            acknowledged_at=1,
            acknowledged_by="ann",
            reason="known",
        )
        for fault in first.faults
    }
    acknowledged = audited(hand, path, acknowledgements=given)
    assert (acknowledged.clean, acknowledged.acknowledged_count) == (True, first.fault_count)


def test_a_changelog_that_is_another_one_by_now_is_a_fault(path):
    hand = clean()
    assert audited(hand, path).clean
    hand.rewrite(hand.batches, hand.data_of(hand.batches) + b" ")
    hand.relink()
    (fault,) = audited(hand, path).faults
    assert (fault.kind, fault.topic, fault.ends) == ("chain", CHANGELOG, True)
    assert "as the checkpoint has it" in fault.expected


def test_a_checkpoint_is_not_used_when_what_comes_behind_it_is_deleted(path):
    _, hand = deleted_and_grown(path)
    hand.records["sales.v1"] = [record._replace(offset=record.offset + 1) for record in hand.records["sales.v1"]]
    report = audited(hand, path, deleted=TOPICS)
    assert "deleted already: sales.v1[0]@" in report.checkpoint
    assert report.not_judged


def test_a_checkpoint_of_other_settings_is_not_used(path):
    hand = clean()
    audited(hand, path)
    report = audited(hand, path, limits=LIMITS.__class__(dedupe_events=9, dedupe_ms=0, horizon_ms=1, closed_ms=1))
    assert "written with other settings" in report.checkpoint


@pytest.mark.parametrize("data", [b"", b"hello", b"\x80\x05."])
def test_a_damaged_checkpoint_is_not_used_and_made_anew(path, data):
    path.write_bytes(data)
    os.chmod(path, 0o600)
    hand = clean()
    report = audited(hand, path)
    assert report.clean
    assert report.checkpoint.startswith("not used: ")
    assert audited(hand, path).checkpoint == f"went on from {path}"


def test_a_file_that_others_can_write_is_not_read(path):
    hand = clean()
    audited(hand, path)
    os.chmod(path, 0o666)
    assert "expected" in (checkpoint := audited(hand, path).checkpoint)
    assert "only you can write" in checkpoint
