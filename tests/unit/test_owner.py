"""Whose a changelog is: by each of its records, and by the claim of one that has none."""

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from state.changelog import FIRST_LINK, next_link
from state.columns import SCHEMA
from state.store import Store
from streams.kafka.clients import BrokerUnreachable
from streams.worker import owner
from streams.worker.chain import Chain
from streams.worker.owner import CLAIM, OtherOwner, claim
from streams.worker.snapshots import GroupPartition, Snapshots

LOG = "inventory-changelog.v1"


class Message:
    def __init__(self, offset, key, value, headers):
        self._given = offset, key, value, headers

    def topic(self):
        return LOG

    def partition(self):
        return 0

    def offset(self):
        return self._given[0]

    def key(self):
        return self._given[1]

    def value(self):
        return self._given[2]

    def headers(self):
        return self._given[3]


def log_of(*owners):
    """A claim for each name in brackets, a batch for each other; None: a batch of an earlier version."""
    found, link, number = [], FIRST_LINK, 0
    for offset, name in enumerate(owners):
        named = [] if name is None else [("owner", name.strip("[]").encode())]
        if name and name.startswith("["):
            found.append(Message(offset, CLAIM, b"", named))
            continue
        number += 1
        record = b"record %d" % number
        link = next_link(link, record)
        headers = [("batch", b"%d" % number), ("part", b"1/1"), ("link", link.hex().encode()), *named]
        found.append(Message(offset, b"batch", record, headers))
    return found


def taken(owners, app_id):
    return [batch.number for batch in Chain(app_id=app_id).batches(log_of(*owners))]


def test_a_claim_is_in_no_batch_and_a_record_that_names_nobody_is_anybodys():
    assert taken(["[a]", "a", "a"], "a") == [1, 2]
    assert taken([None, None, "[a]", "a"], "a") == [1, 2, 3]
    assert taken(["[b]", "b", "a"], None) == [1, 2]


@pytest.mark.parametrize("owners", [["[b]"], ["b"], [None, "b"], ["a", "b"], ["a", "[b]"]])
def test_a_changelog_with_a_record_of_another_owner_is_not_read_further(owners):
    with pytest.raises(OtherOwner) as caught:
        taken(owners, "a")
    assert caught.value.exit_status == 2
    assert str(caught.value).startswith(
        "inventory-changelog.v1[0] belongs to the workers with app_id b, this worker has app_id a. Two sets of workers on "
    )
    assert "--set app_id=b" in str(caught.value) and "--set topic_prefix=a." in str(caught.value)


class Reader:
    """A log, of which `hidden` lie at its end but were aborted."""

    def __init__(self, messages, hidden=0):
        self.log, self.hidden, self.failures, self.asked = messages, hidden, 0, []

    def range(self, topic, partition):
        if self.failures:
            self.failures -= 1
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return 0, len(self.log) + self.hidden

    def messages(self, topic, partition, interrupted, start):
        self.asked.append(start)
        return iter([message for message in self.log if message.offset() >= start])


@pytest.fixture
def cluster(monkeypatch):
    """A log to which a claim is appended, and who comes between the fence and the claim."""

    class Producer:
        def __init__(self, config):
            cluster.names.append(config["transactional.id"])

        def init_transactions(self, timeout_s):
            if cluster.rival:
                cluster.reader.log.append(*log_of(f"[{cluster.rival}]"))

        def begin_transaction(self): ...

        def produce(self, topic, key, value, partition, headers):
            self.message = Message(len(cluster.reader.log), key, value, headers)

        def commit_transaction(self, timeout_s):
            cluster.reader.log.append(self.message)

    monkeypatch.setattr(owner, "Producer", Producer)
    monkeypatch.setattr(owner, "RETRY_S", 0)
    monkeypatch.setattr(owner, "WAIT_S", 0)
    cluster = SimpleNamespace(reader=Reader([]), names=[], rival="")
    return cluster


def settings(app_id):
    return SimpleNamespace(
        app_id=app_id, bootstrap_servers="a:9092", topic_prefix="", request_timeout_ms=1_000, transaction_timeout_ms=9
    )


def test_who_comes_first_owns_the_changelog_and_who_comes_second_refuses(cluster):
    claim(settings("a"), [LOG], cluster.reader)
    claim(settings("a"), [LOG], cluster.reader)
    with pytest.raises(OtherOwner):
        claim(settings("b"), [LOG], cluster.reader)
    assert [owner.owner_of(message) for message in cluster.reader.log] == ["a"]
    assert cluster.names == ["inventory-changelog.v1-owner"]


def test_a_claim_made_until_the_fence_counts_and_is_not_followed_by_another(cluster):
    cluster.rival = "b"
    with pytest.raises(OtherOwner):
        claim(settings("a"), [LOG], cluster.reader)
    assert [owner.owner_of(message) for message in cluster.reader.log] == ["b"]


def test_a_changelog_of_an_earlier_version_becomes_that_of_the_first_who_comes(cluster):
    cluster.reader.log += log_of(None, None)
    claim(settings("a"), [LOG], cluster.reader)
    assert [owner.owner_of(message) for message in cluster.reader.log] == [None, None, "a"]


def test_the_last_record_is_found_behind_many_that_were_aborted(cluster):
    cluster.reader.log, cluster.reader.hidden = log_of("[b]", "b"), 1_000
    with pytest.raises(OtherOwner):
        claim(settings("a"), [LOG], cluster.reader)
    assert cluster.reader.asked == [986, 938, 746, 0]


def test_a_broker_that_is_away_is_asked_again_and_named_when_the_time_is_up(cluster, monkeypatch):
    cluster.reader.failures = 2
    claim(settings("a"), [LOG], cluster.reader)
    cluster.reader.failures = 1 << 60
    monkeypatch.setattr(owner, "PATIENCE_S", 0.001)
    with pytest.raises(BrokerUnreachable, match="to ask whose inventory-changelog"):
        claim(settings("a"), [LOG], cluster.reader)


def test_a_snapshot_of_the_name_that_an_earlier_version_gave_it_is_taken_over(tmp_path):
    given = SimpleNamespace(data_directory=tmp_path, snapshot_interval_ms=0)
    snapshots = Snapshots(given, lambda point: None)
    given.snapshot_interval_ms = 1  # without its thread
    place = GroupPartition("inventory-changelog.v1-0", LOG, 0, 1, SCHEMA, "shop", "shop-inventory-0")
    Store(tmp_path / "state" / "shop-inventory-0", place.identity, SCHEMA).close()
    assert snapshots.load(place, None, None, lambda: False) is None  # it is empty
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["inventory-changelog.v1-0"]
