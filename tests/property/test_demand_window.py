"""Demand is what a naive recount says, however the log is cut into batches, and whether or not the state was restored."""

import random
from operator import itemgetter

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Settings
from streams.batch.pipeline import Segment
from streams.demand.pipeline import ClicksPipeline
from topics.events import Refusal, judge

START_MS = 1_700_000_000_123
SMALL = {"demand_window_ms": 10_000, "demand_buckets": 5, "dedupe_events": 6, "dedupe_hours": 0}
KINDS = ("view", "cart", "checkout")


class LogRecord:
    """A record as the flow hands it over."""

    key, headers = b"v", ()

    def __init__(self, offset, timestamp, value):
        self.offset, self.timestamp, self.value = offset, timestamp, value


def pipeline(**changed):
    found = ClicksPipeline(0, 1, Settings(bootstrap_servers="none:1", **changed))
    found.seal()
    return found


def recount(log, window_ms, buckets, dedupe_events, dedupe_ms):
    """(Pool, SKU) → its counts and when they changed last; and the offsets refused. One click at a time, in plain Python."""
    step_ms, now, clicks, seen, found, refused = window_ms // buckets, 0, [], {}, {}, []
    for record in log:
        now = max(now, record.timestamp)
        oldest = now // step_ms * step_ms + step_ms - window_ms
        for _, key, kind in [click for click in clicks if click[0] < oldest]:
            found[key][kind] -= 1
            found[key]["updated_at"] = now
        clicks = [click for click in clicks if click[0] >= oldest]
        click = judge("clicks.v1", record.value)
        if isinstance(click, Refusal) or not 946_684_800_000 <= click.event_time <= record.timestamp + 300_000:
            refused.append(record.offset)
            continue
        position, time, former = seen.get(click.event_id, (-(10**9), -(10**18), None))
        number = len(seen_order := seen.setdefault(None, []))
        if number - position <= dedupe_events or time >= now - dedupe_ms:
            if former != click:
                refused.append(record.offset)
            continue
        seen_order.append(click.event_id)
        seen[click.event_id] = (number, now, click)
        if click.kind in KINDS and click.sku and click.pool_id:
            clicks.append((now // step_ms * step_ms, (click.pool_id, click.sku), click.kind))
            row = found.setdefault((click.pool_id, click.sku), dict.fromkeys(KINDS, 0))
            row[click.kind] += 1
            row["updated_at"] = now
    return found, refused


def play(under_test, log, sizes):
    """Process a log in batches of the given sizes, over and over; gives the outcomes."""
    outcomes, at, number = [], 0, 0
    while at < len(log):
        size = sizes[number % len(sizes)]
        outcomes.append(under_test.process(under_test.decode([Segment.of("clicks.v1", log[at : at + size])]), []))
        at, number = at + size, number + 1
    return outcomes


def last(outcomes):
    """Key → the last value published; versions of a key must grow."""
    found = {}
    for outcome in outcomes:
        keys = [message["key"] for message in outcome.outputs.get("demand.v1", [])]
        assert len(keys) == len(set(keys))
        for message in outcome.outputs.get("demand.v1", []):
            value = orjson.loads(message["value"])
            assert value["version"] > found.get(message["key"], {"version": 0})["version"]
            found[message["key"]] = value
    return found


def letters(outcomes):
    return [message["value"] for outcome in outcomes for message in outcome.outputs.get("dead-letter.v1", [])]


def contents(state):
    """All that decides further answers, whatever the row numbers; checks the tables' own invariants on the way."""
    rows, steps, clock = state.rows("rows"), state.rows("steps"), state.row[0]
    queue, number = [], int(clock["first_step"])
    sums = {}
    while number >= 0:
        step = steps[number]
        found = [int(step[name]) for name in ("views", "carts", "checkouts")]
        queue.append((state.key(rows[step["row"]]), int(step["start"]), *found))
        sums[int(step["row"])] = [a + b for a, b in zip(sums.get(int(step["row"]), [0, 0, 0]), found, strict=True)]
        number = int(step["next"])
    live = {i: row for i, row in enumerate(rows) if row["id_size"]}
    assert sums == {i: [int(row[name]) for name in ("views", "carts", "checkouts")] for i, row in live.items()}
    assert sorted(state.t.row_index[state.t.row_index >= 0].tolist()) == sorted(live)
    assert not any(state.t.counters) and not rows["dirty"].any() and not steps["dirty"].any()
    named = sorted((*state.key(row), int(row["version"]), int(row["updated_at"])) for row in live.values())
    tail, now = int(clock["seen_tail"]), int(clock["now"])
    seen = state.ring("seen")[1][["hash_low", "hash_high", "time", "content"]].tolist()
    inside = [
        entry
        for i, entry in enumerate(seen)
        if len(seen) - i <= state.t.limits[0] or entry[2] >= now - state.t.limits[1]
    ]  # fmt: skip
    return [now, int(clock["changes"]), tail, queue, named, inside]


def restored(outcomes, **changed):
    found = ClicksPipeline(0, 1, Settings(bootstrap_servers="none:1", **changed))
    for outcome in outcomes:
        found.restore(outcome.changelog, outcome.link)
    found.seal()
    return found


value = st.one_of(
    st.builds(
        lambda event_id, kind, sku, pool, time: orjson.dumps(
            {
                "event_id": event_id,
                "event_time": time,
                "visitor_id": "v",
                "kind": kind,
                "channel": "web",
                "sku": sku,
                "pool_id": pool,
            }
        ),
        st.integers(0, 20).map(str),
        st.sampled_from([*KINDS, *KINDS, "search", "wishlist"]),
        st.sampled_from(["A", "B", "C" * 40, "é/", "\\", None]),
        st.sampled_from(["uk", "fr", None]),
        st.sampled_from([START_MS] * 9 + [START_MS // 1000, 946_684_799_999, 946_684_800_000, START_MS + 306_000]),
    ),
    st.sampled_from([b"?", b"{}", None]),
)
pause_ms = st.sampled_from([0, 0, 1, 500, 1_999, 2_000, 9_999, 10_000, 30_000, -700])
logs = st.lists(st.tuples(pause_ms, value), min_size=1, max_size=60).map(
    lambda given: [
        LogRecord(offset, START_MS + sum(pause for pause, _ in given[: offset + 1]), found)
        for offset, (_, found) in enumerate(given)
    ]
)
cuts = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@settings(deadline=None, max_examples=200)
@given(logs, cuts)
def test_demand_is_what_a_recount_says_however_the_log_is_cut(log, sizes):
    expected, refused = recount(log, 10_000, 5, 6, 0)
    under_test = pipeline(**SMALL)
    outcomes = play(under_test, log, sizes)
    found = last(outcomes)
    assert {
        (row["pool_id"], row["sku"]): {
            "view": row["views"], "cart": row["carts"], "checkout": row["checkouts"], "updated_at": row["updated_at"],
        }
        for row in found.values()
    } == expected  # fmt: skip
    assert [orjson.loads(letter)["offset"] for letter in letters(outcomes)] == refused
    whole = pipeline(**SMALL)
    at_once = play(whole, log, [len(log)])
    assert last(at_once) == found
    assert letters(at_once) == letters(outcomes)
    assert contents(whole.state) == contents(under_test.state)


@settings(deadline=None, max_examples=200)
@given(logs, cuts, st.data())
def test_folding_the_deltas_gives_the_state_and_it_goes_on_alike(log, sizes, data):
    under_test = pipeline(**SMALL)
    outcomes = play(under_test, log, sizes)
    assert contents(restored(outcomes, **SMALL).state) == contents(under_test.state)
    at = data.draw(st.integers(0, len(outcomes)))
    done = sum(len(outcome.timestamps) for outcome in outcomes[:at])
    again = restored(outcomes[:at], **SMALL)
    assert again.next_offsets == ({"clicks.v1": done} if at else {})
    moved = sizes[at % len(sizes) :] + sizes[: at % len(sizes)]
    rest = play(again, log[done:], moved)
    assert list(map(_outputs, rest)) == list(map(_outputs, outcomes[at:]))
    assert [outcome.sequence for outcome in rest] == [outcome.sequence for outcome in outcomes[at:]]


def _outputs(outcome):
    in_order = itemgetter("key", "value")
    return {topic: sorted(map(in_order, messages)) for topic, messages in outcome.outputs.items()}


def test_many_skus_over_many_windows_are_counted_and_restored_as_a_recount_says():
    rng = random.Random(5)
    small = SMALL | {"dedupe_events": 3_000}
    log, timestamp = [], START_MS
    for offset in range(6_000):
        timestamp += rng.choice((0, 1, 3, 6, 4_000 if offset % 499 == 0 else 1))
        click = {"event_id": str(rng.randrange(9_000)), "event_time": START_MS, "visitor_id": "v", "channel": "web"}
        click |= {"kind": rng.choice(KINDS), "sku": f"SKU-{rng.randrange(3_000)}", "pool_id": rng.choice(("uk", "fr"))}
        if log and rng.random() < 0.2:
            click = orjson.loads(rng.choice(log[-4_000:]).value)
        log.append(LogRecord(offset, timestamp, orjson.dumps(click)))
    expected, _ = recount(log, 10_000, 5, 3_000, 0)
    results = []
    for size in (7, 700, len(log)):
        under_test = pipeline(**small)
        outcomes = play(under_test, log, [size])
        if size == 700:
            assert contents(restored(outcomes, **small).state) == contents(under_test.state)
        results.append((last(outcomes), contents(under_test.state)))
    assert {(row["pool_id"], row["sku"]): row["views"] for row in results[0][0].values()} == {
        key: row["view"] for key, row in expected.items()
    }
    assert all(result == results[0] for result in results[1:])
