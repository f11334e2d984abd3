"""What is said of lines that are no events, and that nothing stops `publish` from the next line."""

import io
import json

import pytest

from streams.cli import lines, publish
from topics.events import MAX_VALUE_BYTES

SALE = {"event_id": "e", "event_time": 1_700_000_000_000, "location_id": "A", "sku": "s", "quantity": 1, "kind": "sale"}
TEXT = json.dumps(SALE)
GOOD = TEXT.encode()
UNREADABLE = {
    "too large": (json.dumps(SALE | {"note": "x" * MAX_VALUE_BYTES}).encode(), "at most 4194304 bytes"),
    "too deep": (b"[" * 5000, "at most 200 levels"),
    "too deep inside": (GOOD[:-1] + b', "n": ' + b'{"a":' * 5000, "at most 200 levels"),
    "surrogate": (rb'{"event_id": "\ud800 ", "kind": "sale"}', "Half of a character"),
    "surrogate at the end": (rb'{"event_id": "\ud800"}', "Half of a character"),
    "mark": (b"\xef\xbb\xbf" + GOOD, "without one"),
    "UTF-16 with a mark": (TEXT.encode("utf-16"), "iconv -f UTF-16"),
    "UTF-16, little end first": (TEXT.encode("utf-16-le"), "iconv -f UTF-16"),
    "UTF-16, big end first": (TEXT.encode("utf-16-be"), "iconv -f UTF-16"),
    "Latin 1": ('{"sku": "é"}'.encode("latin-1"), "0xE9 at column 10"),
    "not JSON": (b"event_id;kind", "expected a JSON object, found expected value at line 1 column 1"),
    "JSON over several lines": (b"{", "jq -c ."),
    "a long number": (GOOD[:-1] + b', "n": ' + b"1" * 5000 + b"}", "number out of range"),
    "not an object": (b"5", "expected an object, found 5"),
}
WRAPPED = {
    "array": ([SALE, SALE], "an array of 2", ".[]"),
    "empty array": ([], "an array of 0", ".[]"),
    "REST proxy": ({"records": [{"key": "uk", "value": SALE}]}, "REST proxy", "jq -c '.records[].value'"),
    "events": ({"events": [SALE]}, "a list of events", "jq -c '.events[]'"),
    "CloudEvents": ({"specversion": "1.0", "id": "1", "source": "/t", "type": "x", "data": SALE}, "CloudEvents", "jq -c .data"),
    "CloudEvents, base64": (
        {"specversion": "1.0", "id": "1", "source": "/", "type": "x", "data_base64": "e30="},
        "CloudEvents",
        "@base64d",
    ),
    "Debezium": ({"before": None, "after": SALE, "op": "c", "source": {}}, "Debezium", "jq -c .after"),
    "Debezium with schema": ({"schema": {}, "payload": {"after": SALE, "op": "c"}}, "Debezium", "jq -c .payload.after"),
    "Connect": ({"schema": {"type": "struct"}, "payload": SALE}, "Kafka Connect", "jq -c .payload"),
    "record": (
        {"topic": "sales.v1", "partition": 0, "offset": 1, "key": "uk", "value": SALE},
        "record with its key",
        "jq -c .value",
    ),
    "string": (TEXT, "JSON inside a JSON string", "jq -r ."),
}


@pytest.mark.parametrize("line, words", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_wrong_with_a_line_is_said(line, words):
    assert words in lines.fault_of("sales.v1", line)


@pytest.mark.parametrize("value, found, remedy", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("topic", ["sales.v1", "stock.v1", "locations.v1"])
def test_a_line_that_wraps_its_event_is_told_what_to_send_instead(topic, value, found, remedy):
    said = lines.fault_of(topic, json.dumps(value).encode())
    assert found in said
    assert remedy in said


def test_a_good_event_may_have_fields_that_others_use_as_wrappers():
    more = {"payload": {"op": "c", "after": 1}, "records": [{}], "specversion": "1.0", "data": {}, "value": {}, "key": 1}
    assert lines.fault_of("sales.v1", json.dumps(SALE | more).encode()) == ""


def test_a_plain_fault_is_said_in_the_models_words():
    assert lines.fault_of("sales.v1", json.dumps(SALE | {"quantity": 0}).encode()) == (
        "quantity: expected greater than or equal to 1, found 0"
    )


@pytest.mark.parametrize("unchecked", [False, True])
def test_no_line_keeps_the_others_from_being_sent(unchecked):
    bad = [line for line, _ in UNREADABLE.values()] + [json.dumps(value).encode() for value, _, _ in WRAPPED.values()]
    report = publish.Report()
    source = io.BytesIO(b"\n".join([GOOD, *bad, GOOD]))
    sent = list(publish._keyed("sales.v1", lines.numbered(source), None, {"A": "uk"}, unchecked, report))
    assert [(number, key) for number, key, _ in sent if not unchecked or number in (1, len(bad) + 2)] == [
        (1, "uk"),
        (len(bad) + 2, "uk"),
    ]
    assert sorted(report.faults) == ([] if unchecked else list(range(2, len(bad) + 2)))


def test_a_file_in_utf_16_has_as_many_faults_as_lines():
    source = io.BytesIO(f"{TEXT}\n{TEXT}\n".encode("utf-16"))
    found = [(number, lines.fault_of("sales.v1", line)) for number, line in lines.numbered(source)]
    assert [number for number, said in found if "UTF-16" in said] == [1, 2]
    assert len(found) == 2


def test_of_an_endless_line_no_more_is_kept_than_the_bound(monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 10)
    found = list(lines.numbered(io.BytesIO(b"a\n" + b"x" * 35 + b"\nb\n" + b"y" * 11)))
    assert found == [(1, b"a"), (2, b"x" * 11), (3, b"b"), (4, b"y" * 11)]


@pytest.mark.parametrize("name", ["\ud800", "\udfff"])
def test_half_a_character_is_no_key(name):
    assert lines.text_field({"pool_id": name}, "pool_id") is None


def test_a_number_is_no_text():
    assert lines.text_field(lines.fields_of(b'{"pool_id": 5}'), "pool_id") is None
