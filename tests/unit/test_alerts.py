"""`nearshelf alerts` without a broker: which records stand, and how they are shown."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from streams.cli import build_app
from streams.kafka import clients, reading

ALERT = {
    "alert_id": "shortfall/uk/A/s",
    "kind": "shortfall",
    "severity": "critical",
    "status": "raised",
    "pool_id": "uk",
    "location_id": "A",
    "sku": "s",
    "order_id": None,
    "found": 1,
    "expected": 3,
    "since": 1_700_000_000_000,
    "source": {"topic": "sales.v1", "partition": 0, "offset": 7},
    "remedy": "Count the cell.",
}
FAULT = {
    "kind": "audit",
    "alert_id": "0f",
    "severity": "critical",
    "fault": "cell",
    "topic": "inventory.v1",
    "partition": 2,
    "offset": 9,
    "expected": "on hand 3",
    "found": "on hand 4",
    "raised_at": 1_700_000_000_002,
}
OTHER = ALERT | {"alert_id": "late_movement/fr/B/1", "kind": "late_movement", "pool_id": "fr", "location_id": "B"}


@pytest.fixture
def run(monkeypatch):
    """A function from records and arguments to the command's result; a record that is bytes is written as it is."""

    def call(records, *arguments):
        values = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]

        @contextmanager
        def reader(*_, **__):
            yield SimpleNamespace(read=lambda topic, starts: [message(*each) for each in enumerate(values)])

        monkeypatch.setattr(reading, "LogReader", reader)
        monkeypatch.setattr(clients, "partitions_of", lambda topic, settings: [0])
        return CliRunner().invoke(build_app(), ["alerts", *arguments])

    return call


def message(offset, value):
    return SimpleNamespace(partition=lambda: 0, offset=lambda: offset, value=lambda: value)


def listed(done):
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_latest_record_of_an_alert_says_whether_it_stands(run):
    cleared = ALERT | {"status": "cleared", "since": ALERT["since"] + 1}
    assert listed(run([ALERT, cleared], "--json")) == []
    assert [row["status"] for row in listed(run([ALERT, cleared], "--json", "--all"))] == ["cleared"]
    assert [row["since"] for row in listed(run([cleared, ALERT | {"since": 9}], "--json"))] == [9]


def test_faults_of_the_audit_are_listed_with_the_others_newest_first(run):
    rows = listed(run([ALERT, OTHER | {"since": 5}, FAULT], "--json"))
    assert [row["kind"] for row in rows] == ["audit", "shortfall", "late_movement"]
    own = {name: found for name, found in ALERT.items() if name != "source"}
    assert rows[1] == own | ALERT["source"] | {"fault": None, "field": None}
    assert (rows[0]["fault"], rows[0]["found"], rows[0]["expected"]) == ("cell", "on hand 4", "on hand 3")
    assert (rows[0]["topic"], rows[0]["partition"], rows[0]["offset"]) == ("inventory.v1", 2, 9)


@pytest.mark.parametrize(
    "filters, kinds",
    [
        (["--kind", "audit"], ["audit"]),
        (["--kind", "shortfall"], ["shortfall"]),
        (["--pool", "fr"], ["late_movement"]),
        (["--location", "A"], ["shortfall"]),
        (["--pool", "uk", "--location", "B"], []),
        (["--limit", "1"], ["audit"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_alerts_are_filtered(run, filters, kinds):
    assert [row["kind"] for row in listed(run([ALERT, OTHER, FAULT], "--json", *filters))] == kinds


def test_the_table_shows_what_where_how_much_since_when_and_the_remedy(run):
    done = run([ALERT, FAULT])
    assert done.exit_code == 0
    for word in ("critical", "shortfall", "uk/A", " s ", "1", "3", "2023-11-14T22:13:20.000Z", "Count the cell."):
        assert word in done.stdout
    for word in ("audit: cell", "inventory.v1/2@9", "on hand 4", "on hand 3", "nearshelf audit"):
        assert word in done.stdout
    assert "2 open" in done.stderr


def test_check_is_no_if_one_is_open(run):
    cleared = ALERT | {"status": "cleared"}
    assert run([ALERT], "--check").exit_code == 1
    assert run([ALERT, cleared], "--check").exit_code == 0
    assert run([ALERT, cleared], "--check", "--all").exit_code == 0
    assert run([ALERT], "--check", "--kind", "audit").exit_code == 0


def test_what_is_no_alert_is_named_and_left_out(run):
    done = run([b"{", b"[" * 5000, ALERT | {"kind": "bad_luck"}, ALERT], "--json")
    assert len(listed(done)) == 1
    assert all(f"alerts.v1[0]@{offset}: no alert" in done.stderr for offset in range(3))
