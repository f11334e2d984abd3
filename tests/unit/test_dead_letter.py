"""`nearshelf dead-letter` without a broker: wrong use, repairs, keys. With one: tests/integration/test_dead_letter.py."""

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
import typer

from streams.cli import dead_letter, main, tail
from streams.cli import publish as publishing
from streams.cli.dead_letter import Letter

SALE = {"event_id": "e", "event_time": 1, "location_id": "A", "sku": "s", "quantity": 1, "kind": "sale"}
ORDER = {
    "event_id": "e",
    "event_time": 1,
    "order_id": "o",
    "kind": "placed",
    "destination": {"latitude": 1, "longitude": 1},
    "lines": [{"line_id": "1", "sku": "s", "quantity": 1}],
}


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["nearshelf", "dead-letter", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return call


@pytest.mark.parametrize("command", ["list", "show", "replay"])
def test_every_command_has_help(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert "dead-letter" in out


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["list", "--reason", "bad_luck"], "unknown_location"),
        (["list", "--topic", "allocations.v1"], "orders.v1"),
        (["list", "--since", "yesterday"], "10m"),
        (["show", "seven"], "partition@offset"),
        (["replay", "--yes"], "--all"),
        (["replay", "0@1", "--all", "--yes"], "--all"),
        (["replay", "0@1", "--reason", "not_json", "--yes"], "--all"),
        (["replay", "0@1", "0@2", "--value", "-", "--yes"], "one value"),
        (["replay", "0@1", "--set", "sku=A", "--yes"], "--set sku='\"A\"'"),
        (["replay", "0@1", "--set", "sku", "--yes"], "FIELD=JSON"),
        (["replay", "0@1"], "--yes"),
        (["replay", "0@1", "--json"], "--yes"),
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2_and_says_what_is_right(run, arguments, word):
    status, _, err = run(*arguments)
    assert status == 2
    assert word in err


@pytest.mark.parametrize(
    "text, ago", [("90s", timedelta(seconds=90)), ("10m", timedelta(minutes=10)), ("3d", timedelta(days=3))]
)
def test_an_age_is_counted_back_from_now(text, ago):
    assert abs(dead_letter._since(text) - (datetime.now(UTC) - ago).timestamp() * 1000) < 60_000


def test_a_time_without_a_zone_is_utc():
    assert dead_letter._since("2026-01-31T12:00") == dead_letter._since("2026-01-31T13:00+01:00") == 1_769_860_800_000


# Repairs.


def letter(topic, value, key=b"uk", offset=0, headers=()):
    value = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Letter(0, offset, 0, headers, topic, 3, 5, 0, "wrong_field", "said", key, value)


@pytest.fixture
def repaired(monkeypatch):
    """A function from letters to [(place, key, value)] and the faults, in a network of two pools."""
    monkeypatch.setattr(publishing, "published_pools", lambda settings: {"A": "uk", "B": "fr"})

    def call(*letters, value=None, changes=(), key=None):
        parsed = [dead_letter._change(change) for change in changes]
        events, faults = dead_letter._repaired(None, list(letters), value, parsed, key)
        return [(found.letter.place, found.key, json.loads(found.value)) for found in events], faults

    return call


def test_a_field_is_changed_and_all_else_stays(repaired):
    events, faults = repaired(letter("sales.v1", SALE | {"quantity": "3", "note": "x"}), changes=["quantity=3"])
    assert events == [("0@0", "uk", SALE | {"quantity": 3, "note": "x"})]
    assert faults == {}


def test_a_field_deep_inside_is_changed(repaired):
    bad = ORDER | {"lines": [*ORDER["lines"], {"line_id": "2", "sku": "t", "quantity": 0}]}
    ((_, _, event),), _ = repaired(letter("orders.v1", bad), changes=["lines.1.quantity=4", "destination.latitude=5.5"])
    assert event["lines"][1] == {"line_id": "2", "sku": "t", "quantity": 4}
    assert event["destination"] == {"latitude": 5.5, "longitude": 1}


@pytest.mark.parametrize("change", ["lines.7.quantity=1", "sku.a=1", "where.a=1", "lines.x=1"])
def test_a_place_that_is_not_there_is_named(repaired, change):
    events, faults = repaired(letter("orders.v1", ORDER | {"sku": "s"}), changes=[change])
    assert events == []
    assert "there is no such place" in faults["0@0"]


@pytest.mark.parametrize("value", [b"{", b"", None, b"\xff"])
def test_a_value_that_is_no_json_can_only_be_given_whole(repaired, value):
    assert "--value" in repaired(letter("sales.v1", value), changes=["quantity=1"])[1]["0@0"]
    assert repaired(letter("sales.v1", value), value=json.dumps(SALE).encode())[0] == [("0@0", "uk", SALE)]


def test_what_the_models_would_refuse_again_is_not_sent_and_what_is_wrong_is_said(repaired):
    letters = [letter("sales.v1", SALE | {"quantity": 0}), letter("sales.v1", SALE, offset=1)]
    events, faults = repaired(*letters)
    assert [place for place, _, _ in events] == ["0@1"]
    assert "quantity: expected greater than or equal to 1, found 0" in faults["0@0"]


def test_an_event_is_keyed_by_its_location_though_it_came_with_another_key(repaired):
    assert repaired(letter("sales.v1", SALE | {"location_id": "B"}, key=b"mars"))[0][0][1] == "fr"
    assert repaired(letter("stock.v1", SALE | {"kind": "receipt"}, key=None))[0][0][1] == "uk"


def test_an_unknown_location_is_refused_again(repaired):
    events, faults = repaired(letter("sales.v1", SALE | {"location_id": "Z"}))
    assert events == []
    assert faults == {"0@0": "location_id: expected a known location, found Z"}


@pytest.mark.parametrize(
    "event, key, expected",
    [(ORDER, b"fr", "fr"), (ORDER | {"pool_id": "uk"}, b"fr", "uk"), (ORDER, b"mars", None), (ORDER, None, None)],
)
def test_an_order_stays_in_its_pool_unless_it_names_another(repaired, event, key, expected):
    events, faults = repaired(letter("orders.v1", event, key=key))
    assert [own for _, own, _ in events] == ([expected] if expected else [])
    assert expected or "expected one of fr, uk" in faults["0@0"]
    assert repaired(letter("orders.v1", event, key=key), key="fr")[0][0][1] == "fr"


def test_clicks_and_locations_have_their_own_keys(repaired):
    click = {"event_id": "e", "event_time": 1, "visitor_id": "v", "kind": "view", "channel": "web"}
    place = {"id": "A", "pool": "uk", "kind": "store", "latitude": 1, "longitude": 1}
    assert repaired(letter("clicks.v1", click), key="uk")[0][0][1] == "v"
    assert repaired(letter("locations.v1", place), key="uk")[0][0][1] == "A"


def test_letters_that_are_alike_are_sent_once(repaired):
    letters = [letter("sales.v1", SALE, offset=offset) for offset in range(3)]
    assert [place for place, _, _ in repaired(*letters)[0]] == ["0@0"]


def test_letters_that_are_alike_are_all_marked_with_the_one_that_is_sent(monkeypatch):
    monkeypatch.setattr(publishing, "published_pools", lambda settings: {"A": "uk"})
    letters = [letter("sales.v1", SALE, offset=1), letter("sales.v1", SALE | {"quantity": 2}, offset=2)]
    (event,), _ = dead_letter._repaired(None, letters, None, [dead_letter._change("quantity=2")], None)
    sending = dead_letter._sending(event)
    assert [(mark.offset, mark.changed) for mark in sending.marks] == [(1, True), (2, False)]
    assert (sending.topic, sending.key, json.loads(sending.value)["quantity"]) == ("sales.v1", "uk", 2)


@pytest.mark.parametrize(
    "value", [b"[" * 5000, b'{"a":' * 5000, b"\xef\xbb\xbf{}", b'{"sku": "\\ud800"}', "{}".encode("utf-16")]
)
def test_no_letter_stops_a_replay(repaired, value):
    letters = [letter("sales.v1", value), letter("sales.v1", SALE, offset=1)]
    for changes in ((), ["quantity=3"]):
        events, faults = repaired(*letters, changes=changes)
        assert [place for place, _, _ in events] == ["0@1"]
        assert faults["0@0"]


def test_a_value_that_is_too_deep_is_shown_as_text():
    for depth in (300, 1000, 5000):
        assert tail.parsed(b"[" * depth + b"]" * depth) == "[" * depth + "]" * depth
    assert tail.parsed(b"[[1]]") == [[1]]


def test_a_time_that_no_calendar_has_is_shown_as_its_number():
    assert (tail.iso(0), tail.iso(10**18)) == ("1970-01-01T00:00:00.000Z", str(10**18))


def test_a_tick_is_not_for_anybody_to_send_again(repaired):
    assert "workers only" in repaired(letter("ticks.v1", {"pool_id": "uk"}))[1]["0@0"]


def test_a_replayed_event_names_its_dead_letter_and_keeps_its_trace():
    found = letter("sales.v1", SALE, offset=7, headers=(("traceparent", b"00-1-2-01"), ("other", b"x")))
    assert dead_letter._headers(found) == [("replayed-from", b"dead-letter.v1/0/7"), ("traceparent", b"00-1-2-01")]


@pytest.mark.parametrize("text", ["a", "=1"])
def test_an_assignment_names_its_field(text):
    with pytest.raises(typer.BadParameter):
        dead_letter._change(text)
