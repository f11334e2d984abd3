"""A few thousand of the fuzzers' inputs, a shop that hypothesis plays, and proof that a fault would show."""

import random
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from hypothesis import settings as how
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streams.inventory import decoded, messages
from streams.inventory.pipeline import InventoryPipeline
from tests.fuzz import codec, inputs, worker
from tests.fuzz.__main__ import GENERATORS, run
from tests.inventory_log import START_MS, LogRecord, location, segments, settings
from tests.property import test_codec_parity as parity
from topics.reasons import Kind


@pytest.mark.parametrize("name", GENERATORS)
def test_no_input_stops_a_worker_or_costs_a_good_event(name):
    found = run(name, inputs=2_000, seed=0, whole=True)
    assert found.inputs >= 2_000 and found.refused > 0
    assert (found.stops, found.lost) == ([], [])


@pytest.mark.parametrize("maker", inputs.MAKERS, ids=lambda maker: maker.__name__)
def test_every_sort_of_record_is_made_for_every_topic(maker):
    rng = random.Random(1)
    for topic in parity.TOPICS:
        values = [maker(rng, topic) for _ in range(20)]
        assert all(isinstance(value, bytes) for value in values)
        assert len(set(values)) > 1


# What the fuzzers are there to find, put in on purpose.


def test_a_row_read_otherwise_by_the_scanner_is_found():
    values = [inputs.plain(random.Random(i), "sales.v1") for i in range(20)]

    def check(values, topic):
        assert values[0] not in chosen or len(values) > 1
        assert not set(values) & chosen

    chosen = {values[7], values[13]}
    assert [value for value, _ in codec.differing(values, 0, check)] == [values[7], values[13]]


def test_a_record_that_raises_is_found(monkeypatch):
    class Raising(InventoryPipeline):
        def decode(self, given):
            if any(record.key == b"mars" for segment in given for record in segment):
                raise ValueError("told to")
            return super().decode(given)

    monkeypatch.setattr(worker, "InventoryPipeline", Raising)
    assert "told to" in worker.run_round("x", 100).stops[0]


def test_a_bad_record_that_costs_its_neighbour_is_found(monkeypatch):
    decode = decoded.decode

    def greedy(*arguments):
        batch = decode(*arguments)
        bad = np.flatnonzero(batch.events["kind"][:-1] == Kind.UNDECODED)
        for row in bad[batch.events["kind"][bad + 1] == Kind.PLACED].tolist():
            batch.events["kind"][row + 1] = Kind.UNDECODED
            batch.events["reason"][row + 1] = batch.events["reason"][row]
            batch.details[row + 1] = "a neighbour's"
        return batch

    monkeypatch.setattr(decoded, "decode", greedy)
    assert worker.run_round("x", 500).lost


def test_a_dead_letter_that_is_not_whole_is_found(monkeypatch):
    letter = messages.letter

    def cut(record):
        return SimpleNamespace(
            key=record.key, value=record.value and record.value[:20], offset=record.offset, timestamp=record.timestamp
        )

    monkeypatch.setattr(messages, "letter", lambda topic, partition, record, *a: letter(topic, partition, cut(record), *a))
    assert "not whole" in worker.run_round("x", 100).stops[0]


def test_a_refused_event_that_is_remembered_is_found(monkeypatch):
    """By the reference: garbage can't be remembered, so the fault is put where garbage is told from good."""
    monkeypatch.setattr(worker, "_ticked", lambda records, garbage: (records[:-1], {}))
    assert worker.run_round("x", 100).lost


# A shop of two places and two SKUs, whose log is cut and restarted as hypothesis likes.

PLACES = ["uk-0", "uk-1"]
IDS = st.integers(0, 5)
SKUS = st.sampled_from(["s", "t"])
UNITS = st.integers(1, 3)
ANSWERS = st.sampled_from(["shipped", "rejected", "returned"])


class Shop(RuleBasedStateMachine):
    """Two pipelines read one log: in batches, restarted, with garbage; and one by one, with ticks for the garbage."""

    def __init__(self):
        super().__init__()
        self.made, self.offsets = 0, {"uk": {}, "twin": {}}
        self.pending: list[LogRecord] = []
        self.outcomes = []
        limits = (None, 150.0, None)
        self.network = [
            location(place, "uk", i, latitude=50.0 + i, max_distance_km=limits[i % 3]) for i, place in enumerate(PLACES)
        ]
        self.pipeline, self.twin = InventoryPipeline(0, 1, settings()), InventoryPipeline(0, 1, settings())
        self.outcomes.append(self.pipeline.process(self.pipeline.decode([]), self.network))
        self.twin.process(self.twin.decode([]), self.network)

    def _append(self, topic: str, value: bytes, twin_topic: str, twin_value: bytes) -> None:
        self.made += 1
        for name, place, data in (("uk", topic, value), ("twin", twin_topic, twin_value)):
            offset = self.offsets[name][place] = self.offsets[name].get(place, -1) + 1
            record = LogRecord(place, offset, START_MS + 500 * self.made, b"uk", data)
            if name == "uk":
                self.pending.append(record)
            else:
                self.twin.process(self.twin.decode(segments([record])), [])

    def _tell(self, topic: str, **body) -> None:
        event = {"event_id": f"e{self.made}", "event_time": START_MS + 500 * self.made} | body
        self._append(topic, orjson.dumps(event), topic, orjson.dumps(event))

    @rule(kind=st.sampled_from(["receipt", "count", "quarantine"]), place=st.sampled_from(PLACES), sku=SKUS, units=UNITS)
    def stock(self, kind, place, sku, units):
        self._tell("stock.v1", kind=kind, location_id=place, sku=sku, quantity=units)

    @rule(number=IDS, lines=st.lists(st.tuples(SKUS, UNITS), min_size=1, max_size=3), held=st.booleans(), north=st.booleans())
    def order(self, number, lines, held, north):
        asked = [{"line_id": f"l{i}", "sku": sku, "quantity": units} for i, (sku, units) in enumerate(lines)]
        body = {"order_id": f"o{number}", "lines": asked, "destination": {"latitude": 50 + north, "longitude": 0}}
        more = {"kind": "held", "expires_at": START_MS + 500 * self.made + 2_000} if held else {"kind": "placed"}
        self._tell("orders.v1", **body, **more)

    @rule(number=IDS)
    def cancel(self, number):
        self._tell("orders.v1", kind="cancelled", order_id=f"o{number}")

    @rule(
        kind=st.sampled_from(["shipped", "rejected", "returned"]),
        number=IDS,
        sequence=st.integers(1, 9),
        place=st.sampled_from(PLACES),
    )
    def answer(self, kind, number, sequence, place):
        tag = next(iter(self.twin.pools.values())).tag.decode()
        body = {"order_id": f"o{number}", "shipment_id": f"{tag}-{sequence}-1", "location_id": place}
        self._tell("fulfilments.v1", kind=kind, **body)

    @rule(topic=st.sampled_from(["sales.v1", "stock.v1", "orders.v1", "fulfilments.v1"]), seed=st.integers(0, 1 << 20))
    def garbage(self, topic, seed):
        self._append(topic, b"{" + inputs.noise(random.Random(seed), topic)[:50], "ticks.v1", b'{"pool_id":"uk"}')

    @rule(keep=st.integers(0, 3))
    @precondition(lambda self: self.pending)
    def commit(self, keep):
        batch = self.pending[: max(1, len(self.pending) - keep)]
        del self.pending[: len(batch)]
        self.outcomes.append(self.pipeline.process(self.pipeline.decode(segments(batch)), []))

    @rule()
    def restart(self):
        self.pipeline = InventoryPipeline(0, 1, settings())
        for outcome in self.outcomes:
            self.pipeline.restore(outcome.changelog, outcome.link)
        self.pipeline.seal()

    @invariant()
    def both_agree_where_all_is_committed(self):
        if not self.pending:
            assert self.pipeline.digests() == self.twin.digests()

    @invariant()
    def no_promise_is_negative_or_beyond_what_is_there(self):
        for state in self.twin.pools.values():
            assert (state.rows("cells")["reserved"] >= 0).all()

    def teardown(self):
        if self.pending:
            self.commit(0)
        self.both_agree_where_all_is_committed()


Shop.TestCase.settings = how(max_examples=60, stateful_step_count=40, deadline=None)
TestShop = Shop.TestCase
