"""The benchmarks that take long at full size find their answers right at their small one; how fast is no test's matter."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import answers, cluster, day, harness, kernel, latency, open_events, plots, scale_out, soak
from benchmarks.harness import WrongAnswer
from benchmarks.stencil import Blocks, Stencil, mixed
from topics import events
from topics.keys import partition_of


@pytest.fixture(scope="module")
def soaked() -> dict:
    """The soak's answer, as JSON has it."""
    return json.loads(json.dumps({"command": "python -m benchmarks.soak --size smoke"} | soak.run("smoke")))


def test_every_pool_has_a_partition_to_itself():
    pools = cluster.pools_for(8)
    assert [partition_of(pool.encode(), 8) for pool in pools] == list(range(8))


def test_scale_out_decides_every_order_once_with_any_number_of_workers():
    shape = scale_out.SIZES["smoke"]
    result = scale_out.run("smoke")
    assert result["correct"] is True
    assert [(row["workers"], sum(row["spread"])) for row in result["rows"]] == [(n, shape.pools) for n in shape.workers]
    for row in result["rows"]:
        assert min(row["spread"]) >= shape.pools // row["workers"]
        assert sum(row["statuses"].values()) == shape.pools * (shape.warm_up + shape.orders)
    text = "\n".join(scale_out.lines(result))
    for shown in ("On paper, 1,000,000 orders/s", "assumed:", "bytes an order", "CPU an order"):
        assert shown in text


def test_the_paper_model_multiplies_what_was_measured():
    sizes = {"orders.v1": 200.0, "allocations.v1": 700.0, "inventory.v1": 0.0, "inventory-changelog.v1": 100.0}
    row = {"events_per_s": 100_000, "process_cpu_s_per_million": 7.0, "broker_cpu_s_per_million": 3.5, "bytes": sizes}
    model = scale_out.paper_model([row])
    assert (model["worker_cores"], model["broker_cores"], model["partitions"]) == (10, 5, 15)
    assert (model["broker_cores_with_copies"], model["disk_bytes_per_s"]) == (15, 3e9)


def test_a_day_decides_every_order_once_with_and_without_its_clicks():
    shape = day.SIZES["smoke"]
    result = day.run("smoke")
    assert result["correct"] is True
    assert result["days"].keys() == day.NAMES.keys()
    clicks = result["days"]["clicks"]
    assert clicks["clicks"]["clicks"] == clicks["audited"]["clicks"] == day.CLICKS_AN_ORDER * shape.orders
    for name, found in result["days"].items():
        decided = sum(count for status, count in found["statuses"].items() if status != answers.LATER)
        assert decided == shape.warm_up_of(name) + shape.orders_of(name)
        assert found["memory"]["start_mb"] <= found["memory"]["most_mb"]
    text = "\n".join(day.lines(result))
    for shown in (*day.NAMES.values(), "a million orders; expected", "bytes an order", "audit of"):
        assert shown in text


@pytest.mark.parametrize("lost", [0, 1])
def test_a_day_misses_a_click_that_is_not_in_the_demand(lost):
    shape = day.SIZES["smoke"]
    clicks = day.Clicks(shape, 10)
    older = {name: 1 for name in day.DEMAND}
    newest = {name: day.CLICKS[kind] * 10 for name, kind in day.DEMAND.items()}
    newest["views"] -= lost
    records = {0: [_Record("a", older), _Record("a", newest)], 1: []}
    topics = SimpleNamespace(read=lambda topic, partition: iter(records[partition]))
    if not lost:
        day._check_clicks(topics, shape, clicks)
        return
    with pytest.raises(WrongAnswer, match=r"expected the demand .*'views': 340.* found .*'views': 339"):
        day._check_clicks(topics, shape, clicks)


class _Record:
    def __init__(self, key, value):
        self.key, self.value = (lambda: key), (lambda: json.dumps(value))


def test_a_soak_sees_every_event_and_audits_clean_though_its_clock_runs_fast(soaked):
    assert soaked["correct"] is True
    assert soaked["audited"] > 0
    slices = round(soaked["seconds"] / soaked["slice_s"])
    assert [len(soaked["latency"][kind]) for kind in ("sale", "order")] == [slices, slices]
    text = "\n".join(soak.lines(soaked))
    for shown in ("memory then grows by", "p99 of the first tenth", "sockets", "every event came back"):
        assert shown in text
    assert text.count("not judged") == 1 and "MISSED" not in text  # a slope over seconds is no slope


def test_a_soak_judges_a_slope_over_enough_time():
    settled, last = {"at_s": 300.0, "rss_mb": 400.0}, {"at_s": 300.0 + soak.JUDGED_S}
    assert soak._slope_line(40.0, settled, last).endswith("40 MB: met")
    assert soak._slope_line(41.0, settled, last).endswith("40 MB: MISSED")


def test_a_benchmarks_options_are_in_the_command_it_prints(capsys):
    class Benchmark:
        __spec__ = soak.__spec__
        PACKAGES = ("numpy",)

        @staticmethod
        def run(size, rate):
            return {"correct": True, "rate": rate}

        @staticmethod
        def lines(result):
            return []

    assert harness.answer(Benchmark, "smoke", as_json=True, rate=500.0) is True
    answer = json.loads(capsys.readouterr().out)
    assert (answer["command"], answer["rate"]) == ("python -m benchmarks.soak --size smoke --rate 500", 500.0)


def _values(records):
    buffer, spans = records
    return [buffer[value:end].tobytes() for _, value, end in spans]


def test_what_stencils_make_is_what_the_contract_allows():
    made = {
        "clicks.v1": day.Clicks(day.SIZES["smoke"], 100).make(0, 500),
        "sales.v1": open_events.make_sales(count=500, locations=7, block=1_000)(0, 500),
        "orders.v1": open_events.make_order_events(count=500, skus=20, lag=101, block=1_000)(0, 500),
    }
    for topic, records in made.items():
        values = _values(records)
        assert len({json.loads(value)["event_id"] for value in values}) == 500
        for value in values:
            assert not isinstance(events.judge(topic, value), events.Refusal), value


def test_the_soaks_orders_are_each_cancelled_once_and_after_their_placing():
    take, placed, cancelled = open_events.make_order_events(count=3_000, skus=20, lag=101, block=1_000), set(), set()
    for first in range(0, 3_000, 1_000):
        for event in map(json.loads, _values(take(first, first + 1_000))):
            if event["kind"] == "placed":
                assert event["order_id"] not in placed
                placed.add(event["order_id"])
            else:
                assert event["order_id"] in placed - cancelled
                cancelled.add(event["order_id"])
    assert len(cancelled) == (3_000 - 101 + 1) // 2


def test_blocks_give_the_same_records_however_they_are_asked_for():
    def make(first, until):
        return Stencil("", "<n:4>").fill(until - first, n=np.arange(first, until))

    whole, found, at = _values(make(0, 35)), [], 0
    take = Blocks(make, 10)
    while at < 35:
        part = _values(take(at, min(35, at + 7)))
        found += part
        at += len(part)
    assert found == whole


def test_mixed_records_lie_where_they_were_put():
    one, two = (Stencil("", f"{name}<n:1>").fill(2, n=np.array([0, 1])) for name in "ab")
    assert _values(mixed([one, two], [np.array([3, 0]), np.array([1, 2])])) == [b"a1", b"b0", b"b1", b"a0"]


def test_an_order_event_that_is_decided_twice_ends_the_reader():
    class Message:
        def key(self):
            return b"o000000000"

        def value(self):
            return b'{"status":"allocated"}'

    seen, note = np.full(3, np.nan), open_events.note_order_events(count=3, lag=1)
    assert note(Message(), 1.0, seen) == 1
    with pytest.raises(SystemExit, match="decided twice"):
        note(Message(), 2.0, seen)


@pytest.mark.parametrize("name", plots.PLOTS)
def test_a_picture_of_each_result_is_small(name, soaked, tmp_path):
    if name == "kernel":
        cases = [
            {"lines": lines, "locations": locations, "density": density, "kernel_per_s": 1e6 / lines / locations}
            for lines in kernel.LINES
            for locations in kernel.LOCATIONS
            for density in kernel.DENSITIES
        ]
        result = {"command": "python -m benchmarks.kernel --size full", "cases": cases}
    elif name == "latency":
        row = {"who": "nearshelf", "saturated": False, "sale": [1, 2, 3, 4, 5], "order": [2, 3, 4, 5, 6]}
        rows = [row | {"rate": rate} for rate in latency.SIZES["full"].rates]
        result = {"command": "python -m benchmarks.latency --size full", "rows": rows}
    else:
        result = soaked
    plots.plot(result, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out.png").stat().st_size < 60_000


def test_a_result_without_a_picture_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected the result of soak, latency, kernel"):
        plots.plot({"command": "python -m benchmarks.restart --size full"}, tmp_path / "out.png")


def test_sales_are_seen_by_their_cells_versions():
    class Message:
        def key(self):
            return b"L00000/SALE-00001"

        def value(self):
            return b'{"version":3,"updated_at":0}'

    count = 2 * open_events.SALE_CELLS + 1
    seen, note = np.full(count, np.nan), open_events.note_sales(count)
    assert note(Message(), 1.0, seen) == 2
    assert np.flatnonzero(np.isfinite(seen)).tolist() == [1, 1 + open_events.SALE_CELLS]
    assert note(Message(), 2.0, seen) == 0
