"""The audit over a log written by hand: clean as it stands, and each way of spoiling it is found and named."""

import json
from collections.abc import Callable

import pytest

from tests.hand_log import LINCOLN, T0, TOPICS, Hand, clean, line, order, says, stock, tells


def test_a_clean_log_is_found_clean():
    report = clean().audit(complete=True)
    assert not report.faults
    assert report.clean


def test_the_report_counts_what_was_judged():
    hand = clean()
    report = hand.audit()
    assert report.batches == hand.batches
    assert report.events == {topic: len(hand.records[topic]) for topic in TOPICS}
    assert report.outcomes == {"applied": 28, "duplicate": 1, "stale": 2, "dead_letter": 13, "clock": 2}
    assert sum(report.dead_letters.values()) == 13
    assert report.decisions == {
        "allocated": 7,
        "partial": 1,
        "backordered": 4,
        "held": 2,
        "expired": 1,
        "cancelled": 1,
        "rejected": 1,
    }
    assert (report.pools, report.partitions, report.cells) == (1, 1, 4)
    assert (report.units_on_hand, report.units_reserved) == (4 + 6 - 1 + 0, 4 + 4 + 0 + 0)


# Spoiling it, one way at a time: what is done, and the fault that must be among those found: kind, topic, words.

SPOILS: dict[str, tuple[Callable[[Hand], object], str, str, str]] = {}


def spoil(kind: str, topic: str, words: str):
    """Register a way of spoiling the clean log, by what it is called."""

    def register(function: Callable[[Hand], object]):
        SPOILS[function.__name__.strip("_")] = (function, kind, topic, words)
        return function

    return register


def decision_of(hand: Hand, order_id: str, status: str) -> int:
    return hand.find("allocations.v1", order_id=order_id, status=status)


def rewrite(hand: Hand, batch: int, change: Callable[[dict], object]) -> None:
    """Change a batch's manifest, keeping its blobs, as if it had been written so."""
    data = hand.data_of(batch)
    size = int.from_bytes(data[:4], "little")
    manifest = json.loads(data[4 : 4 + size])
    change(manifest)
    text = json.dumps(manifest).encode()
    hand.rewrite(batch, len(text).to_bytes(4, "little") + text + data[4 + size :])
    hand.relink()


@spoil("decision", "orders.v1", "a decision for order O2; found none")
def _a_decision_is_missing(hand):
    hand.drop("allocations.v1", decision_of(hand, "O2", "backordered"))


@spoil("sequence", "allocations.v1", "sequence 2 of pool uk; found 3")
def _a_number_is_missing(hand):
    hand.drop("allocations.v1", decision_of(hand, "O2", "backordered"))


@spoil("decision", "allocations.v1", "new promises for order H2, which waits for 0 lines")
def _a_decision_stands_twice(hand):
    at = decision_of(hand, "H2", "allocated")
    hand.records["allocations.v1"].insert(at, hand.records["allocations.v1"][at])


@spoil("decision", "allocations.v1", "a source among the records processed; found another decision by orders.v1[0]@9")
def _a_decision_is_repeated_in_the_end(hand):
    record = hand.records["allocations.v1"][decision_of(hand, "H2", "allocated")]
    hand.records["allocations.v1"].append(record._replace(offset=1000))


@spoil("sequence", "allocations.v1", "sequence 11 of pool uk; found 10")
def _a_number_stands_twice(hand):
    for sequence in range(11, hand.sequence + 1):
        change = {"sequence": sequence - 1, "allocation_id": f"0000abcd-{sequence - 1}"}
        hand.edit("allocations.v1", hand.find("allocations.v1", sequence=sequence), lambda d, c=change: d.update(c))


@spoil("decision", "allocations.v1", "a source among the records processed")
def _a_decision_by_nothing(hand):
    record = hand.records["allocations.v1"][0]
    value = json.loads(record.value) | {"source": {"topic": "orders.v1", "partition": 0, "offset": 999}}
    hand.records["allocations.v1"].append(record._replace(offset=1000, value=json.dumps(value).encode()))


@spoil("promise", "allocations.v1", "at most 7 units of DC/A, all that is available; found 8")
def _more_is_promised_than_there_is(hand):
    hand.edit("orders.v1", 1, lambda order: order["lines"][0].update(quantity=8))
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0]["lines"][0].update(quantity=8))


@spoil("promise", "allocations.v1", "at most 2 units of DC/A, all that is available; found 4")
def _two_lines_are_promised_the_same_units(hand):
    hand.edit("orders.v1", 1, lambda order: order["lines"][1].update(quantity=4))
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0]["lines"][1].update(quantity=4))


@spoil("promise", "allocations.v1", "an enabled location; found ship by LEEDS, which is disabled")
def _a_disabled_location_promises(hand):
    hand.drop("locations.v1", 4)
    rewrite(hand, hand.batches, lambda manifest: manifest["locations"][0]["value"].update(enabled=False))


@spoil("promise", "allocations.v1", "a location that can ship; found ship by LEEDS, which can ['pickup']")
def _a_location_promises_what_it_cannot(hand):
    hand.records["locations.v1"].clear()
    rewrite(hand, 1, lambda manifest: manifest["locations"][1]["value"].update(capabilities=["pickup"]))


@spoil("promise", "allocations.v1", "a location within its 100 km; found ship by DC over")
def _a_location_promises_farther_than_it_may(hand):
    hand.records["locations.v1"].clear()
    rewrite(hand, 1, lambda manifest: manifest["locations"][0]["value"].update(max_distance_km=100))


@spoil("promise", "allocations.v1", "elsewhere than where it was refused; found DC")
def _a_line_goes_where_it_was_refused(hand):
    offset = decision_of(hand, "O1", "allocated") + 2
    hand.edit("allocations.v1", offset, lambda d: d["shipments"].__setitem__(1, d["shipments"][1] | {"location_id": "DC"}))


@spoil("promise", "allocations.v1", "a location of the pool; found MOON")
def _a_location_nobody_knows_promises(hand):
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0].update(location_id="MOON"))


@spoil("promise", "allocations.v1", "one of the lines that wait, whole")
def _a_line_is_promised_in_part(hand):
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0]["lines"][0].update(quantity=4))


@spoil("promise", "allocations.v1", "one of the lines that wait, whole")
def _a_line_is_promised_that_was_not_ordered(hand):
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0]["lines"].append(line("l9", "A", 1)))


@spoil("promise", "allocations.v1", "all lines from one location (allow_split=false)")
def _an_order_is_split_that_may_not_be(hand):
    hand.edit("orders.v1", hand.find("orders.v1", order_id="O5"), lambda order: order.update(allow_split=False))


@spoil("promise", "allocations.v1", "all 2 waiting lines or none (allow_partial=false)")
def _a_part_is_promised_of_all_or_nothing(hand):
    def change(decision):
        decision["shipments"].pop()
        decision["unallocated"] = [line("l2", "B", 2, "no_stock")]
        decision["status"] = "partial"

    hand.edit("allocations.v1", decision_of(hand, "O5", "allocated"), change)


@spoil("promise", "allocations.v1", "transfer by DC; found ship by DC")
def _a_pickup_is_shipped_to_nobody(hand):
    offset = decision_of(hand, "P1", "allocated")
    hand.edit("allocations.v1", offset, lambda d: d["shipments"][1].update(kind="ship"))


@spoil("decision", "allocations.v1", "shipment 0000abcd-1-1 kept")
def _a_promise_is_moved(hand):
    offset = hand.find("allocations.v1", sequence=3)
    hand.edit("allocations.v1", offset, lambda d: d["shipments"][0].update(location_id="LEEDS"))


@spoil("decision", "allocations.v1", "shipment 0000abcd-1-1 kept")
def _a_promise_is_forgotten(hand):
    hand.edit("allocations.v1", hand.find("allocations.v1", sequence=3), lambda d: d["shipments"].pop(0))


@spoil("decision", "allocations.v1", "status backordered; found allocated")
def _a_status_says_too_much(hand):
    hand.edit("allocations.v1", decision_of(hand, "O2", "backordered"), lambda d: d.update(status="allocated"))


@spoil("decision", "allocations.v1", "unallocated [('l1', 'A', 4)]; found []")
def _a_waiting_line_is_not_named(hand):
    hand.edit("allocations.v1", decision_of(hand, "O2", "backordered"), lambda d: d.update(unallocated=[]))


@spoil("decision", "allocations.v1", "a reason that can be: no_stock or not_eligible; found no_pickup")
def _a_reason_that_cannot_be(hand):
    offset = decision_of(hand, "O2", "backordered")
    hand.edit("allocations.v1", offset, lambda d: d["unallocated"][0].update(reason="no_pickup"))


@spoil("decision", "allocations.v1", "a reason that can be: no_stock or not_eligible; found too_far")
def _a_location_without_a_limit_is_too_far(hand):
    offset = decision_of(hand, "O2", "backordered")
    hand.edit("allocations.v1", offset, lambda d: d["unallocated"][0].update(reason="too_far"))


@spoil("decision", "allocations.v1", "distance_km")
def _a_distance_is_wrong(hand):
    hand.edit("allocations.v1", 0, lambda d: d["shipments"][0].update(distance_km=d["shipments"][0]["distance_km"] + 0.01))


@spoil("decision", "allocations.v1", "a Allocation record")
def _a_decision_is_unreadable(hand):
    hand.edit("allocations.v1", 0, lambda d: d.pop("policy"))


@spoil("decision", "allocations.v1", "key O1")
def _a_decision_has_the_wrong_key(hand):
    hand.records["allocations.v1"][0] = hand.records["allocations.v1"][0]._replace(key=b"O9")


@spoil("clock", "allocations.v1", "decided_at")
def _a_decision_is_dated_wrong(hand):
    hand.edit("allocations.v1", 0, lambda d: d.update(decided_at=d["decided_at"] + 1))


@spoil("expiry", "ticks.v1", "hold H1 expired")
def _a_hold_does_not_expire(hand):
    hand.drop("allocations.v1", decision_of(hand, "H1", "expired"))


@spoil("expiry", "allocations.v1", "hold H1 expired at")
def _a_hold_expires_too_soon(hand):
    offset = decision_of(hand, "H1", "expired")
    hand.edit("allocations.v1", offset, lambda d: d["source"].update(offset=0))


@spoil("waiting", "fulfilments.v1", "order O2 served")
def _an_order_waits_that_could_be_served(hand):
    hand.drop("allocations.v1", hand.find("allocations.v1", order_id="O2", status="allocated"))


@spoil("waiting", "orders.v1", "order O1 served")
def _an_order_is_not_promised_what_is_there(hand):
    waits = [line("l1", "A", 5, "no_stock"), line("l2", "A", 2, "no_stock")]
    hand.edit("allocations.v1", 0, lambda d: d.update(shipments=[], unallocated=waits, status="backordered"))


@spoil("waiting", "locations.v1", "order O5 served")
def _nobody_is_served_when_a_place_opens(hand):
    hand.drop("allocations.v1", decision_of(hand, "O5", "allocated"))


@spoil("dead_letter", "sales.v1", "a dead letter, reason not_json; found none")
def _a_dead_letter_is_missing(hand):
    hand.drop("dead-letter.v1", 0)


@spoil("dead_letter", "dead-letter.v1", "reason not_json; found missing_field")
def _a_dead_letter_has_another_reason(hand):
    hand.edit("dead-letter.v1", 0, lambda letter: letter.update(reason="missing_field"))


@spoil("dead_letter", "dead-letter.v1", "the record whole")
def _a_dead_letter_is_not_whole(hand):
    hand.edit("dead-letter.v1", 0, lambda letter: letter.update(value="W10="))


@spoil("dead_letter", "dead-letter.v1", "one dead letter for sales.v1[0]@2")
def _a_dead_letter_stands_twice(hand):
    hand.records["dead-letter.v1"].insert(0, hand.records["dead-letter.v1"][0])


@spoil("dead_letter", "dead-letter.v1", "a record among those processed; found another dead letter for sales.v1[0]@2")
def _a_dead_letter_is_repeated_in_the_end(hand):
    hand.records["dead-letter.v1"].append(hand.records["dead-letter.v1"][0]._replace(offset=1000))


@spoil("dead_letter", "dead-letter.v1", "no dead letter for sales.v1[0]@0, which is good")
def _a_good_record_is_refused(hand):
    hand.edit("dead-letter.v1", 0, lambda letter: letter.update(offset=0))


@spoil("dead_letter", "dead-letter.v1", "a record among those processed")
def _a_dead_letter_for_nothing(hand):
    hand.edit("dead-letter.v1", 0, lambda letter: letter.update(offset=999))


@spoil("chain", "inventory-changelog.v1", "batch 5, part 1; found batch 6")
def _a_batch_is_missing(hand):
    kept = [record for record in hand.records["inventory-changelog.v1"] if record.headers[0][1] != b"5"]
    hand.records["inventory-changelog.v1"] = kept


@spoil("chain", "inventory-changelog.v1", "batch 5, part 2; found batch 6, part 1")
def _a_part_is_missing(hand):
    hand.drop("inventory-changelog.v1", 9)


@spoil("chain", "inventory-changelog.v1", "all parts of batch")
def _the_last_part_is_missing(hand):
    hand.records["inventory-changelog.v1"].pop()


@spoil("chain", "inventory-changelog.v1", "found batch 5, part 1")
def _a_batch_stands_twice(hand):
    again = [record for record in hand.records["inventory-changelog.v1"] if record.headers[0][1] == b"5"]
    hand.records["inventory-changelog.v1"][10:10] = again


@spoil("chain", "inventory-changelog.v1", "a readable batch 5")
def _a_batch_is_unreadable(hand):
    record = hand.records["inventory-changelog.v1"][8]
    hand.records["inventory-changelog.v1"][8] = record._replace(value=record.value[:5] + b"x" + record.value[6:])


@spoil("chain", "inventory-changelog.v1", "batch 5 of partition 0; found batch 5 of partition 1")
def _a_batch_of_another_partition(hand):
    rewrite(hand, 5, lambda manifest: manifest.update(partition=1))


@spoil("chain", "inventory-changelog.v1", "a batch of version 1; found version 2")
def _a_batch_of_another_version(hand):
    rewrite(hand, 5, lambda manifest: manifest.update(version=2))


@spoil("input", "orders.v1", "each record in a batch")
def _a_record_is_skipped(hand):
    rewrite(hand, 5, lambda manifest: manifest["inputs"][0].update(first=2, next=2))


@spoil("input", "orders.v1", "offset 2 as the next to be consumed")
def _a_record_is_consumed_twice(hand):
    rewrite(hand, 6, lambda manifest: manifest["inputs"][0].update(first=1))


@spoil("input", "stock.v1", "1 records from 4")
def _a_consumed_record_is_gone(hand):
    hand.drop("stock.v1", 4)


@spoil("chain", "inventory-changelog.v1", "an order of events with 8 of sales.v1; found 7")
def _the_order_of_events_lacks_one(hand):
    rewrite(hand, 4, lambda manifest: manifest["order"].update(at=1, bytes=manifest["order"]["bytes"] - 1))


@spoil("network", "locations.v1", "")
def _a_location_is_not_as_published(hand):
    rewrite(hand, 1, lambda manifest: manifest["locations"][0]["value"].update(latitude=53.49))


@spoil("clock", "inventory-changelog.v1", "pool uk now")
def _the_clock_is_wrong(hand):
    hand.records["sales.v1"][1] = hand.records["sales.v1"][1]._replace(timestamp=hand.now + 10**6)


@spoil("cell", "inventory-changelog.v1", "uk/DC/A = CellRow(on_hand=6, reserved=0, safety_stock=0")
def _a_sale_is_lost(hand):
    hand.edit("sales.v1", 0, lambda sale: sale.update(quantity=4))


@spoil("cell", "inventory-changelog.v1", "uk/DC/A among the cells of batch 4")
def _a_repetition_counts(hand):
    hand.edit("sales.v1", 1, lambda sale: sale.update(event_id="e2b"))


@spoil("cell", "inventory-changelog.v1", "uk/LEEDS/A = CellRow(on_hand=5, reserved=2, safety_stock=1")
def _a_count_forgets_what_came_after(hand):
    hand.edit("stock.v1", hand.find("stock.v1", event_id="e14"), lambda count: count.update(quantity=4))


@spoil("cell", "inventory-changelog.v1", "uk/LEEDS/A among the cells of batch")
def _a_stale_count_is_fresh(hand):
    hand.edit("stock.v1", hand.find("stock.v1", event_id="e15"), lambda count: count.update(counted_at=T0 + 30))


@spoil("inventory", "inventory.v1", "uk/DC/A = CellRow(on_hand=7")
def _a_value_is_wrong(hand):
    hand.edit("inventory.v1", 1, lambda value: value.update(on_hand=8, available=8))


@spoil("inventory", "inventory.v1", "available = max(0, on_hand - reserved - safety_stock)")
def _what_is_available_is_wrong(hand):
    hand.edit("inventory.v1", 1, lambda value: value.update(available=8))


@spoil("inventory", "inventory.v1", "found no such record")
def _the_last_value_is_missing(hand):
    hand.records["inventory.v1"].pop()


@spoil("inventory", "inventory.v1", "a version above 2")
def _a_version_does_not_grow(hand):
    hand.edit("inventory.v1", 1, lambda value: value.update(version=2))


@spoil("inventory", "inventory.v1", "a value of a batch")
def _a_value_of_no_batch(hand):
    record = hand.records["inventory.v1"][-1]
    value = json.loads(record.value) | {"version": 100}
    hand.records["inventory.v1"].append(record._replace(offset=1000, value=json.dumps(value).encode()))


@pytest.mark.parametrize("name", SPOILS)
def test_a_spoiled_log_is_found_out(name):
    change, kind, topic, words = SPOILS[name]
    hand = clean()
    change(hand)
    report = hand.audit()
    assert not report.clean
    assert any(
        fault.kind == kind and fault.topic == topic and words in f"{fault.expected}; found {fault.found}"
        for fault in report.faults
    ), "\n".join(map(str, report.faults))


def test_the_report_is_json():
    hand = clean()
    hand.edit("allocations.v1", 0, lambda d: d.update(decided_at=0))
    answer = json.loads(json.dumps(hand.audit().as_dict()))
    assert (answer["clean"], answer["fault_count"], answer["decisions"]["held"]) == (False, 1, 2)
    assert answer["faults"][0]["kind"] == "clock"


def test_a_fault_is_named_once_and_does_not_spread():
    hand = clean()
    hand.edit("allocations.v1", 0, lambda d: d.update(decided_at=0))
    assert hand.audit().fault_count == 1


def test_inputs_nobody_consumed_yet_are_counted_and_a_fault_only_if_all_must_be():
    hand = clean()
    hand.event("sales.v1", stock("e99", "sale", "DC", "A", 1))
    assert hand.audit().clean
    assert hand.audit().unprocessed == 1
    assert [fault.kind for fault in hand.audit(complete=True).faults] == ["input"]


def test_transaction_markers_between_inputs_are_no_gap():
    hand = clean()
    shifted = [record._replace(offset=record.offset + 7) for record in hand.records["sales.v1"]]
    hand.records["sales.v1"] = shifted
    for topic in ("allocations.v1", "alerts.v1", "dead-letter.v1"):
        for record in list(hand.records[topic]):
            value = json.loads(record.value)
            source = value.get("source", value)
            if source["topic"] == "sales.v1":
                hand.edit(topic, record.offset, lambda v: v.get("source", v).update(offset=v.get("source", v)["offset"] + 7))
    for batch in range(1, hand.batches + 1):

        def shift(manifest):
            for given in manifest["inputs"]:
                if given["topic"] == "sales.v1":
                    given.update(first=given["first"] + 7, next=given["next"] + 7)

        rewrite(hand, batch, shift)
    assert not hand.audit().faults


def test_a_compacted_inventory_topic_is_clean():
    hand = clean()
    last = {record.key: record for record in hand.records["inventory.v1"]}
    hand.records["inventory.v1"] = sorted(last.values())
    assert not hand.audit().faults


def test_a_compacted_locations_topic_is_clean():
    hand = clean()
    last = {record.key: record for record in hand.records["locations.v1"]}
    hand.records["locations.v1"] = sorted(last.values())
    assert not hand.audit().faults


def test_outputs_ahead_of_the_changelog_are_no_fault_while_batches_are_committed():
    hand = clean()
    offset = hand.event("sales.v1", stock("e99", "sale", "DC", "A", 0), dead="out_of_range")
    hand.decide(says("O9", "backordered"), "sales.v1", offset)
    hand.versions["DC", "A"] += 10
    hand._cell("DC", "A", 9)
    assert hand.audit(moving=True).clean
    assert {fault.kind for fault in hand.audit().faults} == {"decision", "dead_letter", "inventory"}


def test_an_id_of_its_sender_used_for_another_event_must_be_a_dead_letter():
    hand = clean()
    hand.event("sales.v1", stock("e2", "sale", "DC", "A", 2, event_time=hand.now), dead="event_id_reused")
    hand.event("sales.v1", stock("e2", "sale", "DC", "A", 3, customer_id="c"))
    hand.event("stock.v1", stock("e14", "count", "LEEDS", "A", 3, counted_at=T0 + 20, reason="again"))
    hand.event("orders.v1", order("e20", "H2", line("l1", "A", 1), mode="delivery", destination=LINCOLN))
    sale = stock("e2", "sale", "LEEDS", "B", 1, event_time=hand.now)
    hand.event("sales.v1", sale, alerts=[tells("shortfall", "LEEDS", "B", -1)])
    hand.batch(LEEDS_B=(-1,))
    assert not hand.audit().faults
    hand.event("sales.v1", stock("e2", "sale", "DC", "A", 2))
    hand.batch()
    assert [fault.expected for fault in hand.audit().faults] == ["a dead letter, reason event_id_reused"]


def test_an_event_known_by_its_id_alone_as_before_layout_2_is_a_duplicate():
    hand = clean()
    for number in range(1, hand.batches + 1):
        rewrite(hand, number, lambda manifest: manifest.pop("layout"))
    hand.relink()
    hand.event("sales.v1", stock("e2", "sale", "DC", "A", 3))
    hand.event("sales.v1", stock("e1", "sale", "LEEDS", "A", 1))
    hand.batch()
    assert not hand.audit().faults


@pytest.mark.parametrize("dead", ["time_out_of_range", None])
@pytest.mark.parametrize("times", [{"event_time": T0 // 1000}, {"event_time": T0 + 10**7}, {"counted_at": T0 + 10**7}])
def test_an_event_whose_time_is_not_plausible_must_be_a_dead_letter(times, dead):
    hand = clean()
    hand.event("stock.v1", stock("e99", "count", "DC", "A", 1, **times), dead=dead)
    hand.batch()
    expected = [] if dead else ["a dead letter, reason time_out_of_range"]
    assert [fault.expected for fault in hand.audit().faults] == expected


def test_the_groups_offsets_must_be_those_of_the_changelog():
    hand = clean()
    ends = {topic: len(hand.records[topic]) for topic in TOPICS}
    assert hand.audit(committed=ends).clean
    assert hand.audit(committed=ends | {"sales.v1": ends["sales.v1"] - 1}).faults[0].kind == "chain"
    ahead = ends | {"sales.v1": ends["sales.v1"] + 1}
    assert hand.audit(committed=ahead).faults[0].topic == "sales.v1"
    assert hand.audit(committed=ahead, moving=True).clean


def test_a_broken_chain_ends_the_audit_of_its_partition_only():
    hand = clean()
    _a_batch_is_missing(hand)
    report = hand.audit()
    assert [fault.kind for fault in report.faults] == ["chain"]
    assert report.batches == 4
