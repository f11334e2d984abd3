"""The network as published: what is in force, how a file differs from it, and what `network diff`, `apply` and a worker do."""

import json
import logging

import pytest
from typer.testing import CliRunner

from streams.batch.pipeline import LocationChange
from streams.cli import build_app
from streams.kafka import clients, network
from streams.kafka.network import PublishedNetwork
from streams.worker import locations as feeds
from streams.worker.locations import LocationFeed
from topics.events import LocationRecord

HEAD = "version: 1\npools:\n  - {id: uk}\nlocations:\n"


def place(name, pool="uk", **fields):
    return LocationRecord(id=name, pool=pool, **{"kind": "store", "latitude": 51.0, "longitude": 0.0, **fields})


def published(*records):
    """A network of records: locations, or (key, bytes or None)."""
    found = PublishedNetwork()
    for at, record in enumerate(records):
        key, value = record if isinstance(record, tuple) else (record.id, record.model_dump_json().encode())
        found.take(key.encode(), value, at)
    return found


def summary(found):
    different = {
        each.location.id: [(field.name, field.file, field.published) for field in each.fields] for each in found.different
    }
    return [place.id for place in found.missing], different, [place.id for place in found.only_published]


def test_a_file_that_says_what_is_published_makes_no_difference():
    differences = published(place("A", capabilities=["pickup", "ship"])).differences(["uk"], [place("A")])
    assert not differences
    assert summary(differences) == ([], {}, [])


def test_each_kind_of_difference_is_told_by_field():
    known = published(place("A", enabled=False, priority=5), place("B"), place("F", pool="fr"))
    differences = known.differences(["uk"], [place("A"), place("C")])
    assert summary(differences) == (["C"], {"A": [("enabled", True, False), ("priority", 100, 5)]}, ["B"])
    assert [each.id for each in differences.elsewhere] == ["F"], "a pool that the file does not declare is not its concern"
    assert str(differences.different[0]) == (
        "A: enabled: file true, published false; priority: file 100, published 5 (published 1970-01-01 00:00:00 UTC)"
    )


def test_a_removed_location_is_different_and_not_missing():
    differences = published(place("A"), ("A", None)).differences(["uk"], [place("A")])
    assert summary(differences) == ([], {"A": []}, [])
    assert "removed" in str(differences.different[0])
    assert not published(place("A"), ("A", None)).differences(["uk"], []), "removed, and not in the file: as it shall be"


@pytest.mark.parametrize(
    "junk", [("A", b"{"), ("A", place("B").model_dump_json().encode()), ("A", place("A", pool="fr").model_dump_json().encode())]
)
def test_a_record_that_never_comes_into_force_changes_nothing(junk):
    assert not published(place("A"), junk).differences(["uk"], [place("A")])


def test_what_was_never_readable_is_different():
    (different,) = published(("A", b"{")).differences(["uk"], [place("A")]).different
    assert "can't be read (not_json" in str(different)


@pytest.mark.parametrize("records", [[place("A", pool="fr")], [place("A", pool="fr"), ("A", None)]])
def test_a_location_of_another_pool_is_told_apart(records):
    (different,) = published(*records).differences(["uk"], [place("A")]).different
    assert different.changes_pool


# The commands


@pytest.fixture
def cluster(monkeypatch):
    """What is published, and what the commands write."""
    found = published(place("A", enabled=False), place("B"))
    written = []

    def write(settings, locations, removed=()):
        written.append(([each.id for each in locations], list(removed)))

    monkeypatch.setattr(clients, "partitions_of", lambda topic, settings: [0])
    monkeypatch.setattr(network, "read_network", lambda settings, partitions: found)
    monkeypatch.setattr(network, "write_network", write)
    return written


@pytest.fixture
def run(tmp_path):
    def call(*arguments, file="  - {id: A, pool: uk, kind: store, latitude: 51, longitude: 0}\n", answer=None):
        path = tmp_path / "network.yaml"
        path.write_text(HEAD + file)
        return CliRunner().invoke(build_app(), ["network", arguments[0], str(path), *arguments[1:]], input=answer)

    return call


def test_diff_says_no_and_what_differs(cluster, run):
    done = run("diff")
    assert done.exit_code == 1
    assert "0 missing, 1 different, 1 only published" in done.output
    assert "A: enabled: file true, published false" in done.output
    answer = json.loads(run("diff", "--json").output)
    assert (answer["equal"], answer["missing"], answer["only_published"]) == (False, [], ["B"])
    assert answer["different"][0]["fields"] == {"enabled": {"file": True, "published": False}}
    assert not cluster


def test_diff_of_what_is_published_is_done(cluster, run):
    same = "  - {id: A, pool: uk, kind: store, latitude: 51, longitude: 0, enabled: false}\n"
    same += "  - {id: B, pool: uk, kind: store, latitude: 51, longitude: 0}\n"
    assert run("diff", file=same).exit_code == 0


@pytest.mark.parametrize(
    "options, answer, status, written",
    [
        (["--yes"], None, 0, [(["A"], ["B"])]),
        (["--keep"], None, 0, [(["A"], [])]),
        ([], "y\n", 0, [(["A"], ["B"])]),
        ([], "n\n", 1, []),
        ([], "", 2, []),
        (["--json"], None, 2, []),
        (["--yes", "--keep"], None, 2, []),
    ],
)
def test_apply_removes_only_what_was_agreed_to(cluster, run, options, answer, status, written):
    done = run("apply", *options, answer=answer)
    assert done.exit_code == status, done.output
    assert cluster == written


def test_apply_publishes_the_rest_where_a_location_would_change_its_pool(cluster, run):
    places = "".join(f"  - {{id: {name}, pool: uk, kind: store, latitude: 51, longitude: 0}}\n" for name in "ABC")
    network.read_network(None, []).take(b"C", place("C", pool="fr").model_dump_json().encode(), 0)
    done = run("apply", file=places)
    assert (done.exit_code, cluster) == (1, [(["A"], [])])
    assert "C: a location can't change its pool" in done.output


# A worker's start


def test_a_worker_publishes_only_what_is_missing_and_names_what_differs(monkeypatch, caplog):
    feed = LocationFeed.__new__(LocationFeed)
    records = [place("A", enabled=False), place("B")]
    changes = [LocationChange(0, at, at, each.id.encode(), each.model_dump_json().encode()) for at, each in enumerate(records)]
    changes.append(LocationChange(0, 2, 2, b"B", None))
    feed._condition = feeds.threading.Condition()
    feed._latest = {change.key: change for change in changes}
    feed._good = {change.key: change for change in changes[:2]}
    feed._settings, feed._timeout_s = None, 1.0
    written = []
    monkeypatch.setattr(feed, "catch_up", lambda timeout_s: True, raising=False)
    monkeypatch.setattr(feeds, "write_network", lambda settings, locations: written.extend(locations) or len(written))
    with caplog.at_level(logging.WARNING):
        assert feed.publish([place("A"), place("B"), place("C")]) == 1
    assert [each.id for each in written] == ["C"]
    assert "A: enabled: file true, published false" in caplog.text
    assert "B: removed" in caplog.text
    assert "nearshelf network apply" in caplog.text
