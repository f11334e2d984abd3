"""`nearshelf publish` and `tail` on a real Kafka."""

import json
import subprocess
import sys
import threading

import pytest
from confluent_kafka import Producer

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
    assert {record["value"]["location_id"]: record["key"] for record in records(settings, "sales.v1", 2)} == {
        "A": "fr",
        "B": "us",
    }


def test_a_pool_lies_in_the_partition_that_javas_partitioner_gives(settings):
    pools = ["uk", "us", "fr", "21", "foobar", "a-little-bit-long-string"]
    assert murmur2(b"foobar") == -790332482 & 0x7FFFFFFF, "as in Kafka's own test of it"
    nearshelf(settings, "publish", "locations.v1", lines=json_lines(*(location(pool, pool) for pool in pools)))
    nearshelf(settings, "publish", "sales.v1", lines=json_lines(*(sale(pool, pool) for pool in pools)))
    found = {record["key"]: record["partition"] for record in records(settings, "sales.v1", len(pools))}
    assert found == {pool: murmur2(pool.encode()) % settings.partitions for pool in pools}


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
