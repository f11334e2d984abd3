"""The audit of a log that grows, or is long: what was judged before stays judged, and little of the log is held at any time."""

from math import inf

import pytest

from streams.audit.auditor import Auditor
from streams.audit.report import Report
from tests.hand_log import LIMITS, OUTPUTS, TOPICS, Hand, clean, line, order, ship, stock
from tests.memory_log import MemoryLog
from topics.catalogue import ALLOCATIONS

CHANGELOG = "inventory-changelog.v1"


class GrowingLog(MemoryLog):
    """A log in sight up to some records of each topic; it remembers how far it was read."""

    def __init__(self, hand: Hand):
        super().__init__({(topic, 0): found for topic, found in hand.records.items()}, dict.fromkeys((*TOPICS, *OUTPUTS), 1))
        self.ends = dict.fromkeys(self.records, 0)
        self.taken = dict.fromkeys(self.records, 0)

    def read(self, topic, partition):
        return _Reader(self, (topic, partition))


class _Reader:
    def __init__(self, log, place):
        self.log, self.place, self.at = log, place, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at >= self.log.ends.get(self.place, 0):
            raise StopIteration
        self.at += 1
        self.log.taken[self.place] = max(self.log.taken[self.place], self.at)
        return self.log.records[self.place][self.at - 1]


def grown(hand: Hand, due=inf):
    """Judge a log that comes in sight batch by batch, its outputs and inputs first; yields after each."""
    log = GrowingLog(hand)
    auditor = Auditor(log, LIMITS, Report())
    for place in log.ends:
        log.ends[place] = len(log.records[place]) if place[0] != CHANGELOG else 0
    for _ in range(hand.batches):
        log.ends[CHANGELOG, 0] += 2
        auditor.catch_up(lambda events: None)
        auditor.settle(lambda changelog, partition, topic: 0)
        yield log, auditor
    auditor.settle(lambda changelog, partition, topic: None if topic in TOPICS else inf)
    yield log, auditor


def test_a_log_that_comes_batch_by_batch_is_judged_as_it_is_whole():
    hand = clean()
    *_, (_, auditor) = grown(hand)
    whole = hand.audit()
    assert not auditor.report.faults
    assert (auditor.report.events, auditor.report.decisions) == (whole.events, whole.decisions)
    assert auditor.report.batches == hand.batches


def test_a_fault_is_named_in_the_cut_in_which_it_comes_in_sight():
    hand = clean()
    hand.edit("allocations.v1", 0, lambda d: d.update(decided_at=0))  # of batch 5
    counts = [auditor.report.fault_count for _, auditor in grown(hand)]
    assert counts == [0] * 4 + [1] * (hand.batches - 3)


def test_what_no_batch_has_caused_is_named_when_it_is_due():
    hand = clean()
    stray = hand.records[ALLOCATIONS][3]
    hand.records[ALLOCATIONS].append(stray._replace(offset=len(hand.records[ALLOCATIONS])))
    *_, (_, before), (_, after) = grown(hand)
    assert before is after
    assert [fault.offset for fault in after.report.faults] == [len(hand.records[ALLOCATIONS]) - 1]


def shop(batches: int) -> Hand:
    """A long log in which nothing lasts: an order a batch, shipped in the next."""
    hand = Hand()
    hand.location("DC", kind="warehouse", latitude=53.48, longitude=-2.24)
    hand.event("stock.v1", stock("s", "receipt", "DC", "A", 2 * batches))
    hand.batch(DC_A=(2 * batches,))
    for i in range(batches):
        lines = line("l1", "A", 1)
        hand.event("sales.v1", b"{", dead="not_json")
        decision = {"order_id": f"O{i}", "status": "allocated", "shipments": [ship("DC", lines)], "unallocated": []}
        hand.event("orders.v1", order(f"o{i}", f"O{i}", lines), decision, after_ms=1000)
        shipped = {"event_id": f"f{i}", "event_time": hand.now, "kind": "shipped", "order_id": f"O{i}"}
        hand.event("fulfilments.v1", shipped | {"shipment_id": f"0000abcd-{hand.sequence}-1", "location_id": "DC"})
        hand.batch(DC_A=(2 * batches - i - 1,))
    return hand


def test_no_more_is_read_than_the_batches_in_sight_need():
    hand = shop(60)
    for log, auditor in list(grown(hand))[:-1]:
        for topic in (ALLOCATIONS, "inventory.v1", "dead-letter.v1", "orders.v1"):
            assert log.taken[topic, 0] <= auditor.report.batches + 1, topic


def test_forgotten_orders_are_not_held():
    hand = shop(50)
    log = MemoryLog({(topic, 0): found for topic, found in hand.records.items()}, dict.fromkeys((*TOPICS, *OUTPUTS), 1))
    limits = LIMITS.__class__(dedupe_events=5, dedupe_ms=0, horizon_ms=48 * 3_600_000, closed_ms=10_000)
    auditor = Auditor(log, limits, Report())
    auditor.catch_up(lambda events: None)
    auditor.finish(complete=True)
    assert not auditor.report.faults
    assert auditor.report.orders == 50
    pool = auditor.replays[0].pools["uk"]
    assert len(pool.orders) == pool.kept_lines == 10
    assert len(pool.seen._entries) <= 6


def cut(hand, records=5):
    """The log without the first records of two inputs, as retention leaves it; gives what audits it."""
    for topic in ("orders.v1", "stock.v1"):
        hand.records[topic] = hand.records[topic][records:]
    log = MemoryLog({(topic, 0): found for topic, found in hand.records.items()}, dict.fromkeys((*TOPICS, *OUTPUTS), 1))

    def audited():
        report = Report()
        auditor = Auditor(log, LIMITS, report, lambda changelog, partition: ("stock.v1", "orders.v1"))
        auditor.catch_up(lambda events: None)
        auditor.finish(complete=False)
        return report

    return log, audited


def test_what_retention_has_put_beyond_judgement_is_said_and_is_no_fault():
    hand = clean()
    _, audited = cut(hand)
    report = audited()
    assert not report.faults
    (not_judged,) = report.not_judged.values()
    assert (not_judged.batches, not_judged.deleted) == (hand.batches, ("stock.v1", "orders.v1"))
    assert not_judged.inputs_from["sales.v1"] == 0
    assert not_judged.inputs_from["stock.v1"] >= 5
    assert report.events["sales.v1"] == len(hand.records["sales.v1"])
    assert 0 < report.events["stock.v1"] <= len(hand.records["stock.v1"])
    assert (report.pools, report.cells, report.orders) == (1, 4, 0)
    assert "are deleted (retention)" in str(not_judged)


@pytest.mark.parametrize(
    "spoil, kind, topic",
    [
        (lambda hand, log: log.records[CHANGELOG, 0].__delitem__(slice(6, 8)), "chain", CHANGELOG),
        (
            lambda hand, log: hand.edit("inventory.v1", 3, lambda cell: cell.update(on_hand=99, available=99)),
            "inventory",
            "inventory.v1",
        ),
        (lambda hand, log: hand.records["allocations.v1"].pop(4), "sequence", "allocations.v1"),
        (lambda hand, log: hand.records["allocations.v1"].pop(), "sequence", "allocations.v1"),
        (lambda hand, log: hand.records["sales.v1"].pop(2), "input", "sales.v1"),
        (lambda hand, log: hand.records["dead-letter.v1"].pop(0), "dead_letter", "sales.v1"),
    ],
    ids=["a batch", "a cell's value", "a decision", "the last decision", "an input", "a dead letter"],
)
def test_what_is_left_is_judged_where_inputs_are_deleted(spoil, kind, topic):
    hand = clean()
    log, audited = cut(hand)
    spoil(hand, log)
    assert (kind, topic) in {(fault.kind, fault.topic) for fault in audited().faults}


def test_an_audit_whose_inputs_are_all_deleted_counts_what_no_batch_has():
    hand = clean()
    left = len(hand.records["stock.v1"])
    hand.event("stock.v1", stock("e90", "receipt", "DC", "A", 1))
    _, audited = cut(hand, left)
    report = audited()
    assert (report.fault_count, report.unprocessed) == (0, 1)
