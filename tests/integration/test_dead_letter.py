"""`nearshelf dead-letter` on a real Kafka: what was refused is listed, shown, repaired, and then applied exactly once."""

import json
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path

import pytest
from confluent_kafka import Producer

from benchmarks.fleet import drain, running
from streams.audit import audit
from streams.cli.replays import Mark, Replayer, Sending
from streams.cli.tail import iso
from tests.integration.test_publish_tail import json_lines, limit, location, records, sale

REFUSED_AT = (int(time.time()) - 7200) * 1000  # epoch ms; a time of long ago would have the broker delete the letters
NEARSHELF = [sys.executable, "-m", "streams.cli"]


def run(settings, *arguments, lines=""):
    command = [*NEARSHELF, *arguments, "--bootstrap-servers", settings.bootstrap_servers]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120)


def listed(settings, *filters):
    done = run(settings, "dead-letter", "list", "--json", *filters)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def replay(settings, *arguments, status=0, lines=""):
    done = run(settings, "dead-letter", "replay", "--yes", "--json", *arguments, lines=lines)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


# Without a worker: letters as one would write them.


def write(settings, *letters, partition=0, headers=None):
    """Write letters of (topic, reason, key, value), refused two hours ago and each a ms later than the one before."""
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    for number, (topic, reason, key, value) in enumerate(letters):
        record = {"topic": topic, "partition": 0, "offset": number, "timestamp": number, "reason": reason, "detail": "said"}
        record |= {"key": b64encode(key).decode(), "value": b64encode(value).decode()}
        producer.produce("dead-letter.v1", json.dumps(record), key, partition, headers=headers, timestamp=REFUSED_AT + number)
    assert producer.flush(30) == 0


def event(number, place="A", **changed):
    return json.dumps(sale(number, place) | changed).encode()


def test_letters_are_listed_newest_first_and_filtered(settings):
    write(settings, ("sales.v1", "wrong_field", b"uk", b"1"), ("orders.v1", "not_json", b"fr", b"2"))
    write(settings, ("sales.v1", "not_json", b"uk", b"3"), partition=1)
    places = lambda *filters: [letter["place"] for letter in listed(settings, *filters)]  # noqa: E731
    assert places() == ["0@1", "1@0", "0@0"]
    assert places("--limit", "1") == ["0@1"]
    assert places("--reason", "not_json") == ["0@1", "1@0"]
    assert places("--topic", "sales.v1") == ["1@0", "0@0"]
    assert places("--pool", "fr") == ["0@1"]
    assert places("--since", iso(REFUSED_AT + 1)) == ["0@1"]
    assert places("--since", "1h") == []
    assert "newest 2" in run(settings, "dead-letter", "list", "--limit", "2").stderr
    table = run(settings, "dead-letter", "list").stdout
    assert "orders.v1/0@1" in table and iso(REFUSED_AT + 1) in table


def test_what_is_not_there_is_no(settings):
    write(settings, ("sales.v1", "not_json", b"uk", b"1"))
    for place in ("0@1", "9@0"):
        done = run(settings, "dead-letter", "show", place)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"no dead letter at {place}" in done.stderr


@pytest.mark.parametrize("value, shown", [(b'{"a": 1}', {"a": 1}), (b"{", "{"), (b"\xff\xfe", "base64://4=")])
def test_a_value_is_shown_as_what_it_is(settings, value, shown):
    write(settings, ("sales.v1", "not_json", b"uk", value))
    found = json.loads(run(settings, "dead-letter", "show", "0@0", "--json").stdout)
    assert found["value"] == shown
    assert found["key"] == "uk"


def test_a_replayed_event_goes_where_it_belongs_with_its_trace_and_its_origin(settings):
    run(settings, "publish", "locations.v1", lines=json_lines(location("A", "uk")))
    headers = [("traceparent", b"00-1-2-01"), ("other", b"x")]
    write(settings, ("sales.v1", "wrong_partition", b"mars", event(1)), partition=2, headers=headers)
    assert replay(settings, "2@0") == {"sent": 1, "replayed_before": 0, "faults": []}
    (found,) = consumed(settings, "sales.v1")
    assert (found.key(), found.value()) == (b"uk", event(1))
    assert found.headers() == [("replayed-from", b"dead-letter.v1/2/0"), ("traceparent", b"00-1-2-01")]


def test_a_dry_run_tells_what_would_be_sent_and_sends_nothing(settings):
    run(settings, "publish", "locations.v1", lines=json_lines(location("A", "uk")))
    write(settings, ("sales.v1", "wrong_field", b"uk", event(1, quantity="3")), ("sales.v1", "not_json", b"uk", b"?"))
    told = replay(settings, "--all", "--dry-run", "--set", "quantity=3", status=1)
    assert [(found["place"], found["value"]["quantity"]) for found in told["events"]] == [("0@0", 3)]
    assert [fault["place"] for fault in told["faults"]] == ["0@1"]
    assert consumed(settings, "sales.v1") == []


def test_what_was_replayed_is_marked_and_left_out_by_all_unless_told_otherwise(settings):
    run(settings, "publish", "locations.v1", lines=json_lines(location("A", "uk")))
    letters = [("sales.v1", "unknown_location", b"uk", event(number)) for number in (1, 2, 2)]
    write(settings, *letters)
    assert [letter["replayed"] for letter in listed(settings)] == [None] * 3
    assert replay(settings, "0@0", "--set", "quantity=2", "--by", "ann")["sent"] == 1
    marks = {letter["place"]: letter["replayed"] for letter in listed(settings)}
    assert {name: marks["0@0"][name] for name in ("by", "changed", "times")} == {"by": "ann", "changed": True, "times": 1}
    assert marks["0@1"] is None and marks["0@2"] is None
    assert " by ann" in run(settings, "dead-letter", "list").stdout
    assert " by ann" in run(settings, "dead-letter", "show", "0@0").stdout

    assert replay(settings, "--all") == {"sent": 1, "replayed_before": 1, "faults": []}, "the other two are alike"
    assert all(letter["replayed"] for letter in listed(settings))
    assert "@" in listed(settings)[0]["replayed"]["by"]
    assert replay(settings, "--all") == {"sent": 0, "replayed_before": 3, "faults": []}
    assert len(consumed(settings, "sales.v1")) == 2
    assert replay(settings, "--all", "--again")["sent"] == 2
    assert replay(settings, "0@0")["sent"] == 1, "a place that is named is sent"
    assert {letter["place"]: letter["replayed"]["times"] for letter in listed(settings)} == {"0@0": 3, "0@1": 2, "0@2": 2}


def test_what_one_topic_does_not_take_is_not_marked_and_the_others_are_sent(settings):
    run(settings, "publish", "locations.v1", lines=json_lines(location("A", "uk")))
    limit(settings, "sales.v1", "100000")
    values = [event(1), event(2, note="x" * 200_000), event(3)]
    letters = [("sales.v1", "unknown_location", b"uk", value) for value in values]
    write(settings, *letters)
    told = replay(settings, "--all", status=1)
    assert (told["sent"], [fault["place"] for fault in told["faults"]]) == (2, ["0@1"]), told
    assert "sales.v1 takes at most 100000 bytes" in told["faults"][0]["detail"]
    assert [letter["place"] for letter in listed(settings) if not letter["replayed"]] == ["0@1"]


def test_of_two_who_replay_at_once_one_sends(settings):
    run(settings, "publish", "locations.v1", lines=json_lines(location("A", "uk")))
    first, second = (Replayer(settings, name, ["sales.v1"]) for name in ("first", "second"))
    record = Sending("sales.v1", "uk", event(1), (Mark(0, 0, 5, changed=False),))
    assert "somebody else" in first.send([record])[0]
    assert second.send([record]) == {}
    assert Replayer(settings, "third", ["sales.v1"]).marks.of(0, 0, 5).replayed_by == "second"


def test_a_cluster_without_the_topic_of_marks_still_lists_its_letters(settings, empty_cluster):
    write(settings, ("sales.v1", "not_json", b"uk", b"1"))
    empty_cluster.delete_topics(["dead-letter-replays.v1"])["dead-letter-replays.v1"].result(30)
    done = run(settings, "dead-letter", "list", "--json")
    assert (done.returncode, json.loads(done.stdout)["replayed"]) == (0, None)
    assert "nearshelf topics create" in done.stderr
    done = run(settings, "dead-letter", "replay", "--all", "--yes")
    assert done.returncode == 2
    assert "nearshelf topics create" in done.stderr


def test_a_value_given_whole_replaces_the_old_one(settings):
    run(settings, "publish", "locations.v1", lines=json_lines(location("A", "uk")))
    write(settings, ("sales.v1", "not_json", b"uk", b"?"))
    assert replay(settings, "0@0", "--value", "-", lines=event(1).decode())["sent"] == 1
    assert records(settings, "sales.v1", 1)[0]["value"] == sale(1, "A")


def consumed(settings, topic):
    """All of a topic's messages, partition by partition."""
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": "x", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(settings.partitions)])
    found, left = [], settings.partitions
    while left:
        message = consumer.poll(30)
        if not message.error():
            found.append(message)
        else:
            assert message.error().code() == KafkaError._PARTITION_EOF
            left -= 1
    consumer.close()
    return found


# With a worker.

NETWORK = """
version: 1
pools: [{id: uk}]
locations:
  - {id: A, pool: uk, kind: store, latitude: 51, longitude: 0}
"""


@pytest.fixture
def worker(make_settings, tmp_path: Path):
    """Settings of a cluster with one worker, and a function that waits until all that was sent is committed."""
    network = tmp_path / "network.yaml"
    network.write_text(NETWORK)
    settings = make_settings(network=network, partitions=2)
    with running(settings, tmp_path, 1) as workers:
        deadline = time.monotonic() + 120
        while not workers.ready():
            workers.check()
            assert time.monotonic() < deadline, workers.log_path.read_text()
            time.sleep(0.1)
        yield settings, lambda: drain(settings, workers)


def receipt(number, place, **changed):
    return {
        "event_id": f"e{number}",
        "event_time": 1_700_000_000_000,
        "location_id": place,
        "sku": "s",
        "quantity": 1,
        "kind": "receipt",
    } | changed


def cell(settings, place):
    return [record["value"] for record in latest(settings) if record["value"]["location_id"] == place][-1]


def latest(settings):
    count = len(consumed(settings, "inventory.v1"))
    return records(settings, "inventory.v1", count) if count else []


def send(settings, *events):
    done = run(settings, "publish", "stock.v1", "--pool", "uk", "--unchecked", lines=json_lines(*events))
    assert done.returncode == 0, done.stderr


def test_a_bad_event_is_listed_shown_repaired_and_then_applied_exactly_once(worker):
    settings, drained = worker
    run(settings, "publish", "locations.v1", lines=json_lines(location("A", "uk")))
    send(settings, receipt(1, "A", quantity=2), receipt(2, "A", quantity="3"))
    drained()
    (letter,) = listed(settings, "--reason", "wrong_field")
    assert (letter["topic"], letter["key"], letter["offset"]) == ("stock.v1", "uk", 1)
    shown = json.loads(run(settings, "dead-letter", "show", letter["place"], "--json").stdout)
    assert shown["value"] == receipt(2, "A", quantity="3")
    assert shown["fault"] == shown["detail"] == "quantity: expected a valid integer, found '3'"

    assert replay(settings, letter["place"], status=1)["sent"] == 0, "as it is, it would be refused again"
    assert replay(settings, letter["place"], "--set", "quantity=3")["sent"] == 1
    drained()
    assert cell(settings, "A")["on_hand"] == 5
    version = cell(settings, "A")["version"]
    assert replay(settings, letter["place"], "--set", "quantity=3")["sent"] == 1
    drained()
    assert (cell(settings, "A")["on_hand"], cell(settings, "A")["version"]) == (5, version)
    report = audit(settings, complete=True)
    assert report.clean, report.faults
    assert (report.outcomes["applied"], report.outcomes["duplicate"], report.outcomes["dead_letter"]) == (2, 1, 1)


def test_what_named_an_unknown_location_is_replayed_once_the_location_is_there(worker):
    settings, drained = worker
    send(settings, *(receipt(number, "NEW") for number in range(5)), receipt(9, "ELSEWHERE"))
    drained()
    assert len(listed(settings, "--reason", "unknown_location")) == 6
    assert replay(settings, "--all", "--reason", "unknown_location", status=1)["sent"] == 0
    run(settings, "publish", "locations.v1", lines=json_lines(location("NEW", "uk")))
    told = replay(settings, "--all", "--reason", "unknown_location", status=1)
    assert (told["sent"], len(told["faults"])) == (5, 1)
    drained()
    assert cell(settings, "NEW")["on_hand"] == 5
    report = audit(settings, complete=True)
    assert report.clean, report.faults
    assert (report.outcomes["applied"], report.outcomes["dead_letter"]) == (5, 6)
