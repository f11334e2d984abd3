"""Replays and their marks: one transaction, whatever the broker says. With one: tests/integration/test_dead_letter.py."""

import json
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.cli import replays
from streams.cli.replays import Mark, Marks, Replayer, Sending
from topics.outputs import DeadLetterReplay

SETTINGS = SimpleNamespace(topic_prefix="", app_id="shop", request_timeout_ms=1000, transaction_timeout_ms=1000)


class Cluster:
    """A transactional producer, and what it has committed. `refuse` maps values to errors, at the call or at delivery."""

    def __init__(self):
        self.committed, self.open, self.refuse, self.late, self.failure = [], [], {}, {}, None
        self.ids, self.ends = [], []

    def init_transactions(self, timeout_s): ...

    def begin_transaction(self):
        self.open = []

    def produce(self, topic, value, key, headers=None, on_delivery=None):
        if value in self.refuse:
            raise KafkaException(KafkaError(self.refuse[value]))
        self.open.append((topic, key, value, on_delivery))

    def poll(self, timeout_s): ...

    def flush(self, timeout_s):
        for _, _, value, told in self.open:
            if told is not None:
                told(KafkaError(self.late[value]) if value in self.late else None, None)

    def commit_transaction(self, timeout_s):
        if self.failure:
            raise KafkaException(KafkaError(self.failure))
        self.committed += [(topic, key, value) for topic, key, value, _ in self.open]
        self.ends.append("commit")

    def abort_transaction(self, timeout_s):
        self.ends.append("abort")


@pytest.fixture
def cluster(monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr(
        replays, "producer_of", lambda settings, limits, **own: cluster.ids.append(own["transactional_id"]) or cluster
    )
    monkeypatch.setattr(replays, "read_marks", lambda settings: cluster.marks)
    monkeypatch.setattr(replays, "limits_of", lambda settings, topics: dict.fromkeys(topics, 9))
    cluster.marks = Marks()
    return cluster


def sending(number, *places):
    return Sending("sales.v1", "uk", b"%d" % number, tuple(Mark(0, place, 5, False) for place in places or (number,)))


def replay(offset, **changed):
    mark = {"topic": "dead-letter.v1", "partition": 0, "offset": offset, "refused_at": 5, "replayed_to": "sales.v1"}
    mark |= {"replayed_at": 7, "replayed_by": "ann@till", "client_id": "shop", "changed": False, "times": 1}
    return DeadLetterReplay(**mark | changed)


def test_a_mark_is_of_the_letter_of_its_place_and_time():
    marks = Marks([replay(1), replay(1, times=2)])
    assert marks.of(0, 1, 5).times == 2
    assert marks.of(0, 1, 6) is None, "the topic was made anew"
    assert marks.of(0, 2, 5) is None


def test_each_record_is_committed_with_a_mark_for_every_letter_it_settles(cluster):
    cluster.marks = Marks([replay(2)])
    assert Replayer(SETTINGS, "bob@desk", ["sales.v1"]).send([sending(1, 1, 2)]) == {}
    assert [(topic, key) for topic, key, _ in cluster.committed] == [
        ("sales.v1", "uk"),
        ("dead-letter-replays.v1", "dead-letter.v1/0/1"),
        ("dead-letter-replays.v1", "dead-letter.v1/0/2"),
    ]
    first, second = (DeadLetterReplay.model_validate_json(value) for _, _, value in cluster.committed[1:])
    assert (first.replayed_by, first.client_id, first.replayed_to, first.times) == ("bob@desk", "shop", "sales.v1", 1)
    assert second.times == 2
    assert cluster.ids == ["dead-letter-replays.v1"], "one for all, so that the second ends the first"


@pytest.mark.parametrize("when", ["refuse", "late"])
def test_what_the_cluster_refuses_leaves_the_others_and_their_marks(cluster, when):
    setattr(cluster, when, {b"2": KafkaError.MSG_SIZE_TOO_LARGE})
    faults = Replayer(SETTINGS, "me", ["sales.v1"]).send([sending(1), sending(2), sending(3)])
    assert faults.keys() == {1}
    assert "takes at most 9 bytes" in faults[1]
    assert [value for topic, _, value in cluster.committed if topic == "sales.v1"] == [b"1", b"3"]
    assert [json.loads(value)["offset"] for topic, _, value in cluster.committed if topic != "sales.v1"] == [1, 3]
    assert cluster.ends == ["abort", "commit"]


@pytest.mark.parametrize(
    "failure, words", [(KafkaError._FENCED, "somebody else"), (KafkaError._TIMED_OUT, "or not known to be")]
)
def test_a_transaction_that_fails_is_told_for_all_that_is_left(cluster, monkeypatch, failure, words):
    monkeypatch.setattr(replays, "CHUNK", 1)
    replayer = Replayer(SETTINGS, "me", ["sales.v1"])
    assert replayer.send([sending(1)]) == {}
    cluster.failure = failure
    faults = replayer.send([sending(2), sending(3)])
    assert faults.keys() == {0, 1}
    assert all(words in said and "nearshelf dead-letter list" in said for said in faults.values())


def test_who_replays_has_a_name_also_where_the_system_has_none(monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(replays.getpass, "getuser", nobody)
    user, _, host = replays.operator().partition("@")
    assert user.isdigit() and host
