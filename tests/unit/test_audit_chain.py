"""The changelog's hash chain: whatever is done to a record is found and located, and the rest is judged where that is safe."""

from typing import NamedTuple

import pytest

from streams.audit import rows
from streams.audit.chain import Batch, BrokenChain, Chain
from streams.audit.rows import cells_of
from tests.hand_log import clean, parts_of, sha256

CHANGELOG = "inventory-changelog.v1"


def chain_faults(hand):
    report = hand.audit()
    return report, [fault for fault in report.faults if fault.kind == "chain"]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_flipped_bit_is_found_at_its_batch_and_the_rest_is_judged():
    hand = clean()
    data = hand.data_of(5)
    hand.rewrite(5, flipped(data, len(data) - 2))  # of the last cell's updated_at
    report, (fault,) = chain_faults(hand)
    at = hand.records[CHANGELOG][hand.batch_at(5)].offset
    assert (fault.topic, fault.partition, fault.offset) == (CHANGELOG, 0, at)
    assert fault.expected.startswith("batch 5 with link ")
    assert report.batches == hand.batches
    assert {each.offset for each in report.faults if each.topic == CHANGELOG} == {at}


@pytest.mark.parametrize("at", range(0, 900, 13))
def test_no_flipped_bit_goes_unseen(at):
    hand = clean()
    data = hand.data_of(7)
    hand.rewrite(7, flipped(data, at % len(data)))
    _, faults = chain_faults(hand)
    assert faults[0].offset == hand.records[CHANGELOG][hand.batch_at(7)].offset


def test_a_record_altered_with_its_headers_shows_at_the_next():
    hand = clean()
    before = bytes.fromhex(hand.records[CHANGELOG][hand.batch_at(4)].headers[1][1].decode())
    data = hand.data_of(5)
    data = flipped(data, len(data) - 2)
    hand.rewrite(5, data, sha256(before + data).digest())
    report, (fault,) = chain_faults(hand)
    at = hand.records[CHANGELOG][hand.batch_at(5)].offset
    assert fault.offset == hand.records[CHANGELOG][hand.batch_at(6)].offset
    assert f"the link of batch 5 @{at}" in fault.expected
    assert "or the one before it together with its headers" in fault.found
    assert report.batches == hand.batches


def test_a_damaged_link_is_found_and_costs_nothing_else():
    hand = clean()
    hand.rewrite(5, hand.data_of(5), bytes(32))
    report, (fault,) = chain_faults(hand)
    assert fault.offset == hand.records[CHANGELOG][hand.batch_at(5)].offset
    assert report.fault_count == 1
    assert report.batches == hand.batches


def test_a_changelog_without_links_is_not_taken_for_proven():
    hand = clean()
    hand.records[CHANGELOG] = [record._replace(headers=record.headers[::2]) for record in hand.records[CHANGELOG]]
    assert not hand.audit().clean


def test_records_altered_one_behind_the_other_are_each_named():
    hand = clean()
    for batch in (5, 6):
        data = hand.data_of(batch)
        hand.rewrite(batch, flipped(data, len(data) - 2))
    report, faults = chain_faults(hand)
    assert [fault.expected.split(" with")[0] for fault in faults] == ["batch 5", "batch 6"]
    assert report.batches == hand.batches


def test_an_inserted_batch_is_named_and_left_out():
    hand = clean()
    at = hand.batch_at(6)
    forged = [
        hand.records[CHANGELOG][at]._replace(offset=at * 10, value=value, headers=headers)
        for value, _, headers in parts_of(hand.data_of(6), 6, bytes(32))
    ]
    hand.records[CHANGELOG][at:at] = forged
    report, (fault,) = chain_faults(hand)
    assert fault.offset == forged[0].offset
    assert report.fault_count == 1
    assert report.batches == hand.batches


def test_inserted_records_of_another_sort_are_named_and_left_out():
    hand = clean()
    at = hand.batch_at(6)
    hand.records[CHANGELOG].insert(at, hand.records[CHANGELOG][at]._replace(offset=999, headers=()))
    report, (fault,) = chain_faults(hand)
    assert (fault.offset, report.fault_count, report.batches) == (999, 1, hand.batches)


def test_a_batch_taken_out_is_named_where_it_is_missing_and_ends_the_audit_there():
    hand = clean()
    at = hand.batch_at(5)
    del hand.records[CHANGELOG][at : at + 2]
    report, (fault,) = chain_faults(hand)
    assert fault.offset == hand.records[CHANGELOG][at].offset
    assert (fault.expected, fault.found) == ("batch 5, part 1", "batch 6, part 1")
    assert (report.fault_count, report.batches) == (1, 4)


def test_a_batch_taken_out_and_the_others_numbered_anew_is_found():
    hand = clean()
    at = hand.batch_at(5)
    del hand.records[CHANGELOG][at : at + 2]
    for number in range(6, hand.batches + 1):
        at = hand.batch_at(number)
        link = bytes.fromhex(hand.records[CHANGELOG][at].headers[1][1].decode())
        for i, (_, _, headers) in enumerate(parts_of(b"", number - 1, link), at):
            hand.records[CHANGELOG][i] = hand.records[CHANGELOG][i]._replace(headers=headers)
    report, faults = chain_faults(hand)
    assert faults[0].offset == hand.records[CHANGELOG][hand.batch_at(5)].offset
    assert report.batches == 4


def test_an_altered_last_batch_is_named_and_not_judged():
    hand = clean()
    data = hand.data_of(hand.batches)
    hand.rewrite(hand.batches, flipped(data, len(data) - 2))
    report, (fault,) = chain_faults(hand)
    assert fault.offset == hand.records[CHANGELOG][-2].offset
    assert (report.fault_count, report.batches) == (1, hand.batches - 1)


def test_parts_that_differ_in_their_link_are_named():
    hand = clean()
    at = hand.batch_at(5) + 1
    record = hand.records[CHANGELOG][at]
    headers = tuple((name, b"00" * 32 if name == "link" else value) for name, value in record.headers)
    hand.records[CHANGELOG][at] = record._replace(headers=headers)
    report, (fault,) = chain_faults(hand)
    assert (fault.offset, report.fault_count) == (record.offset, 1)


def test_the_report_says_where_each_chain_ends():
    hand = clean()
    assert hand.audit().links == {f"{CHANGELOG}[0]": f"batch {hand.batches}, link {hand.link.hex()}"}


@pytest.mark.parametrize(
    "spoilt", [{"formats": ["(04,)<i8"]}, {"formats": ["?!"]}, {"offsets": [1 << 70]}, {"names": 5}, {"itemsize": -1}]
)
def test_a_batch_whose_rows_are_described_wrongly_is_a_broken_chain(spoilt):
    columns = {"names": ["now"], "formats": ["<i8"], "offsets": [0], "itemsize": 8} | spoilt
    tables = {"pool": {"count": 0, "rows_at": 0, "at": 0, "columns": columns}}
    batch = Batch(number=1, offset=7, inputs={}, order=[], locations=[], pools={"uk": tables}, blobs=memoryview(b""))
    with pytest.raises(BrokenChain, match="readable batch 1"):
        cells_of(batch, {})


def test_a_field_that_a_later_version_added_has_its_default_in_the_rows_of_an_older_one(monkeypatch):
    class Later(NamedTuple):
        on_hand: int
        reserved: int
        safety_stock: int
        version: int
        updated_at: int
        moved_at: int | None = None

    before = cells_of(second_batch(), names := {})
    monkeypatch.setattr(rows, "CellRow", Later)
    after = cells_of(second_batch(), names)
    assert before["uk"].cells
    assert after["uk"].cells == {name: Later(*row, None) for name, row in before["uk"].cells.items()}


def second_batch():
    chain = Chain(CHANGELOG, 0, iter(clean().records[CHANGELOG]), print)
    return [chain.next_batch() for _ in range(2)][1]
