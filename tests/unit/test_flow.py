"""The flow without Kafka: what it takes, how batches close, what it does when a commit fails. The producer is a fake."""

import threading
import time
import weakref
from concurrent.futures import wait
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from state import changelog, schema, store
from state.schema import LAYOUT, NEARSHELF, NewerLayout
from streams.batch.pipeline import Cursor, LocationChange, Outcome
from streams.kafka.fetching import Fetched
from streams.worker import flow as flow_module
from streams.worker.flow import PartitionFlow, Shared
from streams.worker.groups import Group
from streams.worker.metrics import Metrics
from streams.worker.snapshots import Snapshots
from streams.worker.transactions import LANES, Doubt, Fenced, Refused
from tests.golden.logs import clicks_pipeline, make_clicks, play_clicks
from topics.codec.records import Record, Records

A, B = "a.v1", "b.v1"
PATIENCE_S = 10
UNTOLD = Doubt("committed, but nobody was told")


def fetched(topic, start, end, missing=(), value=b"12345678"):
    records = [Record(offset, 0, b"k", value, []) for offset in range(start, end) if offset not in missing]
    return Fetched(topic, 0, start, end, Records.of(records), end)


class Ledger:
    """The fake log: what was committed, and what becomes of the next commits."""

    def __init__(self):
        self.committed = []  # outcomes
        self.fates = []  # of the next commits; none = it succeeds
        self.fences = 0
        self.open = threading.Event()  # commits wait for it
        self.open.set()
        self.under_way = 0

    def offsets(self):
        return {topic: offset for outcome in self.committed for topic, offset in outcome.offsets.items()}


class FakeProducer:
    """Of one lane; the first lane's fence counts, and ends what a former owner may do."""

    def __init__(self, ledger, name):
        self.ledger = ledger
        self.ledger.fences += "-lane-" not in name
        self.fence = self.ledger.fences

    def commit(self, outcome, turn, before):
        turn.written.set_result(None)
        self.ledger.under_way += 1
        self.ledger.open.wait(PATIENCE_S)
        self.ledger.under_way -= 1
        if before is not None:
            try:
                before.committed.result(PATIENCE_S)
            except Exception as error:
                raise Doubt("the batch before was not committed") from error
        if self.fence != self.ledger.fences:
            raise Fenced("a later producer")
        fate = self.ledger.fates.pop(0) if self.ledger.fates else None
        if fate in (None, UNTOLD):
            self.ledger.committed.append(outcome)
        if fate == "no answer":
            time.sleep(0.3)
            raise Doubt(fate)
        if fate is not None:
            raise fate
        return {"commit": 0.001}

    def close(self):
        pass


class Counting:
    topics = (A, B)
    changelog_topic = "changelog"

    def __init__(self, ledger, partition, partitions, settings):
        self.sequence = len(ledger.committed)
        self.next_offsets = dict(ledger.offsets())
        self.batches = []
        self.wants_locations = False
        self.ledger = ledger
        self.pools = []
        ledger.pipeline = self

    def process(self, segments, locations):
        if not segments and not locations:
            return Outcome({}, b"", {}, self.sequence)
        self.sequence += 1
        batch = [(segment.topic, [record.offset for record in segment]) for segment in segments]
        self.batches.append((batch, list(locations)))
        offsets = {topic: found[-1] + 1 for topic, found in batch}
        self.next_offsets |= offsets
        return Outcome({}, b"x", offsets, self.sequence, {(topic, "applied"): len(found) for topic, found in batch})

    def decode(self, segments):
        return segments

    def lacks_locations(self, decoded):
        return self.wants_locations

    def kept_products(self):
        return ()

    def needs_ticks(self, now_ms):
        return self.pools


class FakeReader:
    def __init__(self, ledger):
        self.ledger = ledger

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def committed(self, topics, partition):
        return self.ledger.offsets()

    def range(self, topic, partition):
        return 0, 1_000_000


class FakeFeed:
    def __init__(self):
        self.inboxes, self.caught_up, self.to_come = [], 0, []

    def subscribe(self, arrived):
        inbox = flow_module.Inbox([], arrived)
        self.inboxes.append(inbox)
        return inbox

    def unsubscribe(self, inbox):
        self.inboxes.remove(inbox)

    def catch_up(self, timeout_s):
        self.caught_up += 1
        for inbox in self.inboxes:
            inbox.put(self.to_come)
        self.to_come = []
        return True


class Bench:
    """A flow with fakes around it."""

    def __init__(self, monkeypatch, **options):
        given = {
            "app_id": "t", "topic_prefix": "", "batch_rows": 100, "batch_bytes": 1 << 20, "batch_age_ms": 0,
            "backlog_rows": 1_000, "tick_ms": 50, "location_catchup_ms": 10, "heartbeat_ms": 10, "request_timeout_ms": 1_000,
            "digest_at_stop": False,
        }  # fmt: skip
        self.ledger, self.feed, self.throttled, self.failures, self.ticks = Ledger(), FakeFeed(), [], [], []
        self.sought = []
        monkeypatch.setattr(flow_module, "PartitionProducer", lambda _, name, *more: FakeProducer(self.ledger, name))
        monkeypatch.setattr(flow_module, "fence", lambda *_: None)
        monkeypatch.setattr(flow_module, "LogReader", lambda _: FakeReader(self.ledger))
        monkeypatch.setattr(flow_module.recovery, "restore", lambda *_: len(self.ledger.committed))
        self.shared = Shared(
            settings=SimpleNamespace(**(given | options)),
            group_metadata=None,
            locations=self.feed,
            ticks=SimpleNamespace(write=lambda pools, partition: self.ticks.append((list(pools), partition))),
            snapshots=SimpleNamespace(load=lambda *_: None, keep=lambda _: None, release=lambda _: None),
            standby=SimpleNamespace(take=lambda _: None),
            metrics=Metrics(),
            passed=lambda name: None,
            throttle=lambda tps, held: self.throttled.append((sorted(tps), held)),
            fetch_again=lambda flow, topic, found: self.sought.append((topic, found)),
            failed=self.failures.append,
        )
        group = Group("g", (A, B), "changelog", lambda *given: Counting(self.ledger, *given), None)
        self.flow = PartitionFlow(group, 0, 1, self.shared)

    def start(self):
        done(self.flow.resume())
        return self.flow

    @property
    def batches(self):
        return [batch for batch, _ in self.ledger.pipeline.batches]

    def await_committed(self, offsets):
        await_that(lambda: self.ledger.offsets() == offsets and not self.ledger.under_way)


def await_that(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def done(future):
    assert wait([future], PATIENCE_S).done
    return future.result()


@pytest.fixture
def bench(monkeypatch):
    made = []

    def make(**options):
        made.append(Bench(monkeypatch, **options))
        return made[-1]

    yield make
    for one in made:
        one.ledger.open.set()
        done(one.flow.close())


def test_a_flow_takes_nothing_before_it_is_resumed_and_reads_on_from_the_committed_offsets(bench):
    made = bench()
    made.ledger.committed.append(Outcome({}, b"x", {A: 5}, 1))
    assert made.flow.offer(fetched(A, 0, 3))
    assert made.flow.positions() == {}
    made.start()
    assert made.flow.positions() == {A: 5, B: 0}
    assert made.ledger.fences == 1


def test_records_below_the_next_offset_are_dropped_and_gaps_within_a_range_are_the_logs_own(bench):
    made = bench(batch_age_ms=20)
    flow = made.start()
    assert flow.offer(fetched(A, 0, 6, missing={2, 3}))
    assert flow.offer(fetched(A, 4, 9))  # 4 and 5 again
    assert flow.offer(fetched(A, 0, 3))  # all of it again
    made.await_committed({A: 9})
    assert made.batches == [[(A, [0, 1, 4, 5, 6, 7, 8])]]


def test_a_range_that_leaves_out_records_is_refused(bench):
    made = bench()
    flow = made.start()
    assert flow.offer(fetched(A, 0, 3))
    assert not flow.offer(fetched(A, 5, 7))
    assert flow.positions()[A] == 3
    assert flow.offer(Fetched(A, 0, 3, 5, [], 5))  # markers only: the log has nothing there
    assert flow.offer(fetched(A, 5, 7))
    made.await_committed({A: 7})


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        ({"batch_rows": 4}, [4, 4, 2]),
        ({"batch_bytes": 24}, [3, 3, 3, 1]),
        ({"batch_bytes": 1}, [1] * 10),  # one event always fits
    ],
)
def test_a_batch_closes_on_rows_and_on_bytes(bench, limits, sizes):
    made = bench(**limits)
    flow = made.start()
    flow.offer(fetched(A, 0, 10))
    made.await_committed({A: 10})
    assert [len(offsets) for [(_, offsets)] in made.batches] == sizes


def test_a_batch_has_one_segment_a_topic_in_the_order_fetched(bench):
    made = bench(batch_age_ms=200)
    flow = made.start()
    for start in (0, 2, 4):
        flow.offer(fetched(A, start, start + 2))
        flow.offer(fetched(B, start, start + 2))
    made.await_committed({A: 6, B: 6})
    assert made.batches == [[(A, list(range(6))), (B, list(range(6)))]]


def test_at_most_one_batch_is_ahead_of_the_commits_under_way(bench):
    made = bench(batch_rows=2)
    flow = made.start()
    made.ledger.open.clear()
    flow.offer(fetched(A, 0, 20))
    await_that(lambda: len(made.batches) == LANES + 1)
    time.sleep(0.05)
    assert (len(made.batches), made.ledger.under_way) == (LANES + 1, LANES)
    made.ledger.open.set()
    made.await_committed({A: 20})


def test_an_open_batch_waits_for_a_lane_and_takes_what_comes_meanwhile(bench):
    made = bench()
    flow = made.start()
    made.ledger.open.clear()
    flow.offer(fetched(A, 0, 1))
    for under_way in range(1, LANES):
        await_that(lambda: made.ledger.under_way == under_way)  # noqa: B023
        flow.offer(fetched(A, under_way, under_way + 1))
    await_that(lambda: made.ledger.under_way == LANES)
    for offset in range(LANES, LANES + 4):
        flow.offer(fetched(A, offset, offset + 1))
        time.sleep(0.005)
    made.ledger.open.set()
    made.await_committed({A: LANES + 4})
    assert made.batches == [*([(A, [lane])] for lane in range(LANES)), [(A, list(range(LANES, LANES + 4)))]]


def test_a_full_backlog_holds_all_its_topics_until_half_of_it_is_gone(bench):
    made = bench(batch_rows=10, backlog_rows=40)
    flow = made.start()
    made.ledger.open.clear()
    flow.offer(fetched(A, 0, 60))
    assert made.throttled == [([(A, 0), (B, 0)], True)]
    flow.offer(fetched(A, 60, 70))  # already fetched when it was held
    assert len(made.throttled) == 1
    made.ledger.open.set()
    made.await_committed({A: 70})
    assert made.throttled[1:] == [([(A, 0), (B, 0)], False)]


@pytest.mark.parametrize("fate", [UNTOLD, Doubt("not committed"), Fenced("another"), "no answer", SystemError("whatever")])
def test_after_a_doubtful_commit_each_record_is_committed_once_and_in_order(bench, fate):
    made = bench(batch_rows=3, request_timeout_ms=100 if fate == "no answer" else 5_000)
    flow = made.start()
    made.ledger.fates = [None, fate]
    for start in range(0, 30, 5):
        flow.offer(fetched(A, start, start + 5))
        flow.offer(fetched(B, start, start + 5))
    made.await_committed({A: 30, B: 30})
    assert made.ledger.fences == 2
    assert [outcome.sequence for outcome in made.ledger.committed] == list(range(1, len(made.ledger.committed) + 1))
    assert sum(sum(outcome.counts.values()) for outcome in made.ledger.committed) == 60
    assert not made.failures


def test_what_another_owner_committed_meanwhile_is_not_taken_when_it_is_fetched(bench):
    made = bench(heartbeat_ms=1)
    flow = made.start()
    another = Outcome({}, b"x", {A: 16, B: 3}, 1)
    made.ledger.fates = [Fenced("another")]
    made.ledger.open.clear()
    flow.offer(fetched(A, 0, 4))
    await_that(lambda: made.ledger.under_way)
    made.ledger.committed.append(another)
    made.ledger.open.set()
    await_that(lambda: made.ledger.fences == 2)
    await_that(lambda: flow.positions() == {A: 16, B: 3})
    flow.offer(fetched(A, 4, 20))
    made.await_committed({A: 20, B: 3})
    assert [offsets for batch in made.batches for _, offsets in batch] == [[16, 17, 18, 19]]
    assert not made.failures


def test_what_a_broker_confirmed_and_lost_is_fetched_again(bench):
    made = bench()
    flow = made.start()
    flow.offer(fetched(A, 0, 4))
    flow.offer(fetched(B, 0, 2))
    made.await_committed({A: 4, B: 2})
    made.ledger.committed[:] = [Outcome({}, b"x", {A: 1, B: 2}, 1)]
    made.ledger.fates = [Doubt("not committed")]
    flow.offer(fetched(A, 4, 6))
    await_that(lambda: made.sought)
    assert made.sought == [(A, 4)]
    assert flow.positions() == {A: 1, B: 2}
    assert flow.offer(fetched(A, 6, 8)) is False
    flow.offer(fetched(A, 1, 8))
    made.await_committed({A: 8, B: 2})
    assert [offsets for batch in made.batches for _, offsets in batch] == [[1, 2, 3, 4, 5, 6, 7]]
    assert not made.failures


def test_a_commit_without_an_answer_is_given_up_though_nothing_else_comes(bench):
    made = bench(request_timeout_ms=50)
    flow = made.start()
    made.ledger.fates = ["no answer"]
    flow.offer(fetched(A, 0, 5))
    made.await_committed({A: 5})
    assert made.ledger.fences == 2


def test_a_committed_record_is_kept_no_longer(bench):
    made = bench()
    flow = made.start()
    batch = fetched(A, 0, 1)
    record = weakref.ref(batch.records.buffer)
    flow.offer(batch)
    del batch
    made.await_committed({A: 1})
    await_that(lambda: record() is None)


def test_a_refused_batch_stops_the_worker(bench):
    made = bench()
    flow = made.start()
    made.ledger.fates = [Refused("too large")]
    flow.offer(fetched(A, 0, 1))
    await_that(lambda: made.failures)
    assert str(made.failures[0]) == "too large"
    done(flow.close())


def test_a_commit_that_fails_twice_in_a_way_nobody_foresaw_stops_the_worker(bench):
    made = bench()
    flow = made.start()
    made.ledger.fates = [TypeError("ours"), TypeError("ours, again")]
    flow.offer(fetched(A, 0, 1))
    await_that(lambda: made.failures)
    assert str(made.failures[0]) == "ours, again"
    done(flow.close())


def test_a_suspended_flow_finishes_its_batch_drops_the_rest_and_goes_on_from_there(bench):
    made = bench(batch_rows=2)
    flow = made.start()
    made.ledger.open.clear()
    flow.offer(fetched(A, 0, 20))
    await_that(lambda: len(made.batches) == LANES + 1)  # one waits for a lane
    quiet = flow.suspend()
    time.sleep(0.02)
    assert not quiet.done()
    made.ledger.open.set()
    done(quiet)
    assert made.ledger.offsets() == {A: 2 * LANES + 2} == {A: flow.positions()[A]}
    assert flow.offer(fetched(A, 2 * LANES + 2, 2 * LANES + 4))  # ignored
    done(flow.resume())
    assert made.ledger.fences == 1, "nobody else can have owned it"
    assert not flow.offer(fetched(A, 20, 25)), "fetched before the seek"
    flow.offer(fetched(A, 2 * LANES + 2, 25))
    made.await_committed({A: 25})


def test_a_flow_resumed_in_doubt_restores_its_state_first(bench):
    made = bench()
    flow = made.start()
    flow.offer(fetched(A, 0, 5))
    made.await_committed({A: 5})
    done(flow.suspend())
    made.ledger.committed.append(Outcome({}, b"x", {A: 9}, 2))  # by another owner
    done(flow.resume(rebuild="assigned"))
    assert made.ledger.fences == 2
    assert flow.positions()[A] == 9


def test_a_flow_resumed_before_it_was_quiet_becomes_ready_too(bench):
    made = bench()
    flow = made.start()
    made.ledger.open.clear()
    flow.offer(fetched(A, 0, 5))
    await_that(lambda: made.ledger.under_way)
    flow.suspend()
    ready = flow.resume()
    made.ledger.open.set()
    done(ready)
    flow.offer(fetched(A, 5, 6))
    made.await_committed({A: 6})


def test_a_fenced_flow_waits_for_the_groups_verdict_and_gives_way(bench):
    made = bench(heartbeat_ms=60_000)
    flow = made.start()
    made.ledger.fates = [Fenced("another")]
    flow.offer(fetched(A, 0, 5))
    await_that(lambda: flow._rebuild == "fenced")
    done(flow.suspend())
    done(flow.close())
    assert made.ledger.fences == 1, "the other one owns it"


def test_a_location_change_makes_a_batch_without_events(bench):
    made = bench()
    made.start()
    change = LocationChange(0, 7, 0, b"l", b"{}")
    made.feed.inboxes[0].put([change])
    await_that(lambda: made.ledger.committed)
    assert made.ledger.pipeline.batches == [([], [change])]


def test_a_batch_that_names_an_unknown_location_gets_what_the_feed_catches_up_with(bench):
    made = bench()
    flow = made.start()
    change = LocationChange(0, 7, 0, b"l", b"{}")
    made.feed.to_come = [change]
    made.ledger.pipeline.wants_locations = True
    flow.offer(fetched(A, 0, 1))
    made.await_committed({A: 1})
    assert made.ledger.pipeline.batches == [([(A, [0])], [change])]


def test_pools_that_wait_on_time_get_a_tick_each_interval(bench):
    made = bench(tick_ms=5)
    made.start()
    made.ledger.pipeline.pools = [b"p"]
    await_that(lambda: len(made.ticks) >= 3)
    made.ledger.pipeline.pools = []
    time.sleep(0.02)
    count = len(made.ticks)
    time.sleep(0.03)
    assert made.ticks == [([b"p"], 0)] * count


# A changelog or snapshot of a later version, with the real clicks pipeline, recovery and store


class Changelog(FakeReader):
    """Reads batches, one message each."""

    def __init__(self, ledger, outcomes):
        super().__init__(ledger)
        self.outcomes = outcomes

    def range(self, topic, partition):
        return 0, len(self.outcomes)

    def messages(self, topic, partition, interrupted, start=None):
        for offset, outcome in list(enumerate(self.outcomes))[start or 0 :]:
            headers = {"batch": b"%d" % outcome.sequence, "part": b"1/1", "link": outcome.link.hex().encode()}
            yield SimpleNamespace(
                topic=lambda: topic, partition=lambda: partition, offset=lambda offset=offset: offset,
                headers=lambda headers=headers: list(headers.items()), value=lambda outcome=outcome: outcome.changelog,
                key=lambda: None,
            )  # fmt: skip


@pytest.fixture
def of_clicks(bench, monkeypatch, tmp_path):
    """A flow of clicks whose changelog and, if asked for, snapshot a later version wrote."""
    real_restore = flow_module.recovery.restore

    def make(snapshot):
        with monkeypatch.context() as later:
            for module in (schema, changelog, store):
                later.setattr(module, "LAYOUT", LAYOUT + 1)
                later.setattr(module, "NEARSHELF", "99.1")
            outcomes = play_clicks(clicks_pipeline(), make_clicks(1, 40), 20)
            made = bench(snapshot_interval_ms=3_600_000 if snapshot else 0, data_directory=tmp_path)
            pipeline = clicks_pipeline()
            group = Group("clicks", pipeline.topics, pipeline.changelog_topic, lambda *_: clicks_pipeline(), pipeline.schema)
            place = group.place(0, 1, made.shared.settings)
            if snapshot:
                kept = store.Store(tmp_path / "state" / place.name, place.identity, place.schema)
                cursor = asdict(Cursor(1, outcomes[0].link, 0, 1, {}, {})) | {"link": outcomes[0].link.hex(), "locations": []}
                kept.write([changelog.manifest_of(outcomes[0].changelog)], cursor)
                kept.close()
        monkeypatch.setattr(flow_module.recovery, "restore", real_restore)
        monkeypatch.setattr(flow_module, "LogReader", lambda _: Changelog(made.ledger, outcomes))
        made.shared.snapshots = Snapshots(made.shared.settings, made.shared.passed)
        done(made.flow.close())
        made.flow = PartitionFlow(group, 0, 1, made.shared)
        return made, tmp_path / "state" / place.name

    return make


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_worker_that_meets_a_newer_layout_stops_with_both_versions_and_what_to_do(of_clicks, snapshot, caplog):
    made, directory = of_clicks(snapshot)
    ready = made.flow.resume()
    await_that(lambda: made.failures)
    what = f"the snapshot in {directory}" if snapshot else "the changelog's batch 1 of partition 0"
    sentence = (
        f"{what} was written by nearshelf 99.1 in layout {LAYOUT + 1}; this is nearshelf {NEARSHELF}, which reads layouts "
        f"up to {LAYOUT}: run nearshelf 99.1 or a later version here too"
    )
    assert (type(made.failures[0]), str(made.failures[0])) == (NewerLayout, sentence)
    done(made.flow.close())
    assert ready.cancelled() and len(made.failures) == 1
    assert [record.message for record in caplog.records if record.levelname == "CRITICAL"] == [
        f"clicks-changelog.v1-0 stopped: {sentence}"
    ]
    assert directory.exists() == snapshot, "a snapshot of a later version is not put aside"
    made.shared.snapshots.stop()
