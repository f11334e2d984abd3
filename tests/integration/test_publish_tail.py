"""`nearshelf publish` and `tail` on a real Kafka."""

import json
import subprocess
import sys
import threading
import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streams.audit.alerts import Alerts
from streams.audit.report import Fault
from streams.kafka.create import topic_config

NEARSHELF = [sys.executable, "-c", "from streams.cli import main; main()"]


def nearshelf(settings, *arguments, lines=""):
    command = [*NEARSHELF, *arguments, "--bootstrap-servers", settings.bootstrap_servers]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120)


def json_lines(*objects):
    return "".join(json.dumps(event) + "\n" for event in objects)


def location(name, pool):
    return {"id": name, "pool": pool, "kind": "store", "latitude": 1, "longitude": 2}


def sale(number, place):
    return {
        "event_id": f"e{number}",
        "event_time": 1_700_000_000_000,
        "location_id": place,
        "sku": "s",
        "quantity": 1,
        "kind": "sale",
    }


def limit(settings, topic, size):
    """Have the broker take no larger records; returns when it knows of it, which is some 100 ms after the controller."""
    narrow = ConfigResource(ResourceType.TOPIC, topic)
    narrow.add_incremental_config(ConfigEntry("max.message.bytes", size, incremental_operation=AlterConfigOpType.SET))
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    admin.incremental_alter_configs([narrow])[narrow].result(30)
    deadline = time.monotonic() + 60
    while topic_config(admin, [topic])[topic]["max.message.bytes"] != size:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def records(settings, topic, count, *options):
    done = nearshelf(settings, "tail", topic, "--from-beginning", "--json", "--count", str(count), *options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_sales_find_their_pool_in_the_locations_that_were_published(settings):
    places = json_lines(location("A", "uk"), location("B", "us"), location("A", "fr"))
    assert nearshelf(settings, "publish", "locations.v1", lines=places).returncode == 0
    done = nearshelf(settings, "publish", "sales.v1", "--json", lines=json_lines(sale(1, "A"), sale(2, "B"), sale(3, "C")))
    assert done.returncode == 1, "line 3 names a location that nobody knows"
    assert json.loads(done.stdout)["sent"] == 2
    assert [fault["line"] for fault in json.loads(done.stdout)["faults"]] == [3]
    found = {record["value"]["location_id"]: record["key"] for record in records(settings, "sales.v1", 2)}
    assert found == {"A": "uk", "B": "us"}, "a record that moves a location to another pool is refused by the workers"


def test_a_pool_lies_in_the_partition_that_javas_partitioner_gives(settings):
    pools = ["uk", "us", "fr", "21", "foobar", "a-little-bit-long-string"]
    assert murmur2(b"foobar") == -790332482 & 0x7FFFFFFF, "as in Kafka's own test of it"
    nearshelf(settings, "publish", "locations.v1", lines=json_lines(*(location(pool, pool) for pool in pools)))
    nearshelf(settings, "publish", "sales.v1", lines=json_lines(*(sale(pool, pool) for pool in pools)))
    found = {record["key"]: record["partition"] for record in records(settings, "sales.v1", len(pools))}
    assert found == {pool: murmur2(pool.encode()) % settings.partitions for pool in pools}


def test_bad_lines_are_named_by_number_and_all_good_ones_are_sent(settings):
    bad = {
        2: (sale(2, "A") | {"note": "x" * 4_200_000}, "expected at most 4194304 bytes"),
        4: ("[" * 5000, "at most 200 levels"),
        5: (r'{"event_id": "\ud800 ", "kind": "sale"}', "Half of a character"),
        6: ({"specversion": "1.0", "data": sale(6, "A")}, "CloudEvents"),
        7: ([sale(7, "A")], "an array of 1"),
    }
    large = sale(3, "A") | {"note": "x" * 1_200_000}
    good = {1: sale(1, "A"), 3: large, 8: sale(8, "A")}
    lines = [found if isinstance(found, str) else json.dumps(found) for _, (found, _) in sorted(bad.items())]
    for number, event in good.items():
        lines.insert(number - 1, json.dumps(event))
    done = nearshelf(settings, "publish", "sales.v1", "--pool", "uk", lines="\n".join(lines))
    assert (done.returncode, done.stdout) == (1, "3 sent to sales.v1, 5 not\n")
    said = dict(line.removeprefix("line ").split(": ", 1) for line in done.stderr.splitlines())
    assert sorted(said) == [str(number) for number in bad]
    assert all(words in said[str(number)] for number, (_, words) in bad.items())
    assert [record["value"]["event_id"] for record in records(settings, "sales.v1", 3)] == ["e1", "e3", "e8"]


@pytest.mark.parametrize("size, more", [(1_048_588, []), (100_000, ["--unchecked"])], ids=["checked", "unchecked"])
def test_what_the_topic_does_not_take_is_named_with_the_remedy_and_the_others_are_sent(settings, size, more):
    topic = "sales.v1"
    limit(settings, topic, str(size))
    events = [sale(number, "A") | ({"note": "x" * size} if number % 3 == 1 else {}) for number in range(9)]
    done = nearshelf(settings, "publish", topic, "--pool", "uk", *more, lines=json_lines(*events))
    assert (done.returncode, done.stdout) == (1, f"6 sent to {topic}, 3 not\n"), done.stderr
    said = done.stderr.splitlines()
    assert [line.split(":")[0] for line in said] == ["line 2", "line 5", "line 8"]
    assert all(f"{topic} takes at most {size} bytes" in line and "kafka-configs.sh" in line for line in said)
    found = [record["value"]["event_id"] for record in records(settings, topic, 6)]
    assert found == ["e0", "e2", "e3", "e5", "e6", "e8"]
    created = nearshelf(settings, "topics", "create", "--json")
    assert created.returncode == 0
    (warning,) = json.loads(created.stdout)["warnings"]
    assert f"{topic}: expected max.message.bytes=4259840, found {size}" in warning
    assert warning in created.stderr


def test_lines_far_too_large_are_named_also_where_nothing_is_checked(settings):
    lines = json_lines(sale(1, "A")) + "x" * 20_000_000 + "\n" + json_lines(sale(2, "A"))
    done = nearshelf(settings, "publish", "sales.v1", "--pool", "uk", "--unchecked", lines=lines)
    assert (done.returncode, done.stdout) == (1, "2 sent to sales.v1, 1 not\n")
    assert "line 2: not delivered: sales.v1 takes at most 4259840 bytes" in done.stderr


def test_alerts_of_workers_and_of_the_audit_are_listed_until_they_are_cleared(settings):
    shortfall = {
        **{"alert_id": "shortfall/uk/A/s", "kind": "shortfall", "severity": "critical", "status": "raised", "pool_id": "uk"},
        **{"location_id": "A", "sku": "s", "found": 1, "expected": 3, "since": 5, "remedy": "Count the cell."},
        "source": {"topic": "sales.v1", "partition": 0, "offset": 7},
    }
    late = shortfall | {"alert_id": "late_movement/uk/A/1", "kind": "late_movement", "since": 6}
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "transactional.id": settings.app_id})
    producer.init_transactions()
    for records_of, end in (
        ([shortfall, late], producer.commit_transaction),
        ([late | {"status": "cleared", "since": 7}], producer.commit_transaction),
        ([shortfall | {"status": "cleared"}], producer.abort_transaction),
    ):
        producer.begin_transaction()
        for record in records_of:
            producer.produce("alerts.v1", json.dumps(record), record["alert_id"], partition=1)
        producer.flush()
        end()
    told = Alerts(settings)
    told.tell(Fault("cell", "inventory.v1", 2, 9, "on hand 3", "on hand 4"))
    told.flush()
    done = nearshelf(settings, "alerts", "--json", "--check")
    assert done.returncode == 1, done.stderr
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["audit", "shortfall"]
    cleared = nearshelf(settings, "alerts", "--kind", "late_movement", "--all", "--check", "--json")
    assert (cleared.returncode, json.loads(cleared.stdout)["status"]) == (0, "cleared")
    assert "uk/A" in nearshelf(settings, "alerts").stdout


def test_order_of_lines_is_order_in_the_log(settings):
    nearshelf(settings, "publish", "sales.v1", "--pool", "uk", lines=json_lines(*(sale(n, "A") for n in range(5000))))
    found = records(settings, "sales.v1", 5000)
    assert [record["value"]["event_id"] for record in found] == [f"e{n}" for n in range(5000)]


@pytest.mark.parametrize("option, expected", [("--committed", ["last"]), ("--uncommitted", ["aborted", "last"])])
def test_tail_waits_for_commits_unless_told_otherwise(settings, option, expected):
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "transactional.id": settings.app_id})
    producer.init_transactions()
    for value, end in (("aborted", producer.abort_transaction), ("last", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce("sales.v1", value, partition=0)
        producer.flush()
        end()
    assert [record["value"] for record in records(settings, "sales.v1", len(expected), option)] == expected


def test_tail_shows_bytes_that_are_no_text_as_base64(settings):
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    producer.produce("sales.v1", b"\xff\xfe", key=b"uk")
    producer.flush()
    assert records(settings, "sales.v1", 1)[0]["value"] == "base64://4="


def test_tail_prints_what_comes_while_it_runs_and_ends_at_its_count(settings):
    command = [*NEARSHELF, "tail", "sales.v1", "--count", "1", "--bootstrap-servers", settings.bootstrap_servers]
    tail = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stop = threading.Event()
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    while tail.poll() is None and not stop.wait(0.1):  # it starts at the end, wherever that is when it is ready
        producer.produce("sales.v1", b"now", key=b"uk")
        producer.flush()
    assert tail.communicate()[0].endswith(" uk now\n")


@pytest.mark.parametrize("command", [["publish", "sales.v1"], ["tail", "sales.v1"], ["worker"]], ids=" ".join)
def test_a_missing_topic_is_wrong_use_with_the_remedy(empty_cluster, broker, command):
    command = [*NEARSHELF, *command, "--bootstrap-servers", broker.start(), "--set", "metrics_port=0"]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "nearshelf topics create" in done.stderr


def test_topics_are_created_once_and_listed(empty_cluster, broker):
    address = ["--bootstrap-servers", broker.start()]
    created = subprocess.run([*NEARSHELF, "topics", "create", "--partitions", "2", "--json", *address], capture_output=True)
    assert "orders.v1" in json.loads(created.stdout)["created"]
    again = subprocess.run([*NEARSHELF, "topics", "create", "--partitions", "2", "--json", *address], capture_output=True)
    assert json.loads(again.stdout)["created"] == []
    other = subprocess.run([*NEARSHELF, "topics", "create", "--partitions", "3", *address], capture_output=True, text=True)
    assert other.returncode == 1
    assert "orders.v1: expected 3 partitions (inventory), found 2" in other.stderr
    listed = json.loads(subprocess.run([*NEARSHELF, "topics", "list", "--json", *address], capture_output=True).stdout)
    assert next(row for row in listed if row["topic"] == "orders.v1")["partitions"] == 2


def murmur2(data):
    """Kafka's murmur2 as its Java source has it, made positive."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def test_a_network_file_is_compared_and_published_and_an_old_one_undoes_nothing(settings, tmp_path):
    """Disabled and removed by `network apply`: a worker's start with the old file leaves both as they are."""
    from streams.kafka.reading import LogReader
    from streams.worker.locations import LocationFeed
    from topics.events import LocationRecord

    def write(name, *places):
        path = tmp_path / name
        path.write_text(json.dumps({"version": 1, "pools": [{"id": "uk"}], "locations": places}))
        return path

    old = write("old.yaml", location("A", "uk"), location("B", "uk"))
    new = write("new.yaml", location("A", "uk") | {"enabled": False}, location("C", "uk"))
    assert nearshelf(settings, "network", "apply", old).returncode == 0, "nothing to remove: nothing is asked"
    assert nearshelf(settings, "network", "diff", old).returncode == 0
    assert nearshelf(settings, "network", "diff", new).returncode == 1
    done = nearshelf(settings, "network", "apply", new, lines="y\n")
    assert done.returncode == 0, done.stderr
    assert "2 published, 1 removed" in done.stdout
    assert nearshelf(settings, "network", "diff", new).returncode == 0
    with LogReader(settings) as reader:
        feed = LocationFeed(settings, 1, reader, lambda error: None)
        feed.start()
        try:
            network = [LocationRecord(**location(name, "uk")) for name in ("A", "B", "D")]
            assert feed.publish(network) == 1
        finally:
            feed.stop()
    done = nearshelf(settings, "network", "diff", new, "--json")
    assert json.loads(done.stdout)["only_published"] == ["D"]
    assert json.loads(done.stdout)["different"] == []
