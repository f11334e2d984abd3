"""The retail workload: every line accounted for, every outcome as the records say, the same bytes for the same seed."""

import csv
import gzip
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import orjson
import pytest
import yaml

import config
from benchmarks.record import APPLIED, Record
from benchmarks.retail.clicks import retail_clicks
from benchmarks.retail.lines import SAMPLE
from benchmarks.retail.workload import DAY_MS, NOW_MS, Workload, retail_events
from tests.bad_records import bad_fulfilments, bad_records, too_large
from topics.events import LocationRecord, Refusal, judge
from topics.reasons import DeadLetter

LINES = 50_062
# What the value alone tells; the other reasons need the key, the network or the state.
OF_THE_VALUE = {
    reason.wire
    for reason in (
        DeadLetter.NOT_JSON,
        DeadLetter.MISSING_FIELD,
        DeadLetter.WRONG_FIELD,
        DeadLetter.OUT_OF_RANGE,
        DeadLetter.UNKNOWN_KIND,
        DeadLetter.TOO_LARGE,
    )
}


def locations_of(name: str) -> list[LocationRecord]:
    path = Path(config.__file__).parent / "networks" / f"{name}.yaml"
    return [LocationRecord.model_validate(location) for location in yaml.safe_load(path.read_text())["locations"]]


@pytest.fixture(scope="module", params=["uk", "uk4"])
def network(request) -> list[LocationRecord]:
    return locations_of(request.param)


@pytest.fixture(scope="module")
def work(network) -> Workload:
    return retail_events(network)


def good(work: Workload) -> list[tuple[Record, dict]]:
    return [(record, orjson.loads(record.value)) for record in work.opening + work.stream if record.outcome == APPLIED]


def sample_rows() -> list[dict[str, str]]:
    with gzip.open(SAMPLE, "rt", newline="") as file:
        return list(csv.DictReader(file))


def test_the_census_adds_up_to_every_line_of_the_sample(work):
    census = {row.fate: row.lines for row in work.census}
    assert work.lines == sum(census.values()) == LINES
    assert census == {
        "order_line": 40_747,
        "till_sale": 8_040,
        "return": 883,
        "adjustment": 160,
        "carriage": 158,
        "manual": 47,
        "discount": 9,
        "fee": 12,
        "sample": 2,
        "voucher": 4,
    }


def test_every_line_of_the_sample_is_in_exactly_one_event_with_its_article_and_units(work):
    place_on_invoice: Counter[str] = Counter()
    expected = {}
    for row in sample_rows():
        invoice = row["invoice_no"]
        place_on_invoice[invoice] += 1
        expected[invoice, str(place_on_invoice[invoice])] = (row["stock_code"], abs(int(row["quantity"])))
    found: Counter[tuple[str, str]] = Counter()
    for record in work.stream:
        if record.outcome == "duplicate":
            continue
        event = orjson.loads(record.value)
        if event["event_id"].startswith("line-"):
            _, invoice, place = event["event_id"].split("-")
            found[invoice, place] += 1
            if record.outcome == APPLIED:
                assert (event["sku"], abs(event["quantity"])) == expected[invoice, place]
        elif event["kind"] == "placed":
            for line in event["lines"]:
                found[event["order_id"], line["line_id"]] += 1
                assert (line["sku"], line["quantity"]) == expected[event["order_id"], line["line_id"]]
    assert found == dict.fromkeys(expected, 1)


def test_the_judge_finds_of_every_record_what_the_workload_says(work, network):
    pool_of = {location.id: location.pool for location in network}
    for record in work.opening + work.stream:
        found = judge(record.topic, record.value)
        if record.outcome in OF_THE_VALUE:
            assert isinstance(found, Refusal) and found.reason.wire == record.outcome, record
            continue
        assert not isinstance(found, Refusal), (record, found)
        location = getattr(found, "location_id", None)
        assert (record.outcome == "unknown_location") == (location is not None and location not in pool_of)
        if location in pool_of:
            assert pool_of[location] == record.key.decode()


def test_only_repeats_share_an_event_id_and_they_are_the_same_bytes(work):
    first: dict[str, bytes] = {}
    repeats = 0
    for record in work.opening + work.stream:
        event_id = orjson.loads(record.value)["event_id"]
        if record.outcome == "duplicate":
            repeats += 1
            assert first[event_id] == record.value
        else:
            assert first.setdefault(event_id, record.value) is record.value, f"{event_id} is used twice"
    assert repeats == work.facts["repeats"] >= 20


def test_the_stale_counts_and_only_these_are_older_than_a_count_before(work):
    newest: dict[tuple, int] = {}
    stale = 0
    for record in work.opening + work.stream:
        event = orjson.loads(record.value)
        if record.topic != "stock.v1" or event["kind"] != "count" or record.outcome == "duplicate":
            continue
        cell = event["location_id"], event["sku"]
        counted_at = event.get("counted_at", event["event_time"])
        assert (record.outcome == "stale") == (counted_at < newest.get(cell, 0))
        stale += record.outcome == "stale"
        newest[cell] = max(counted_at, newest.get(cell, 0))
    assert stale == work.facts["stale_counts"] > 50


def test_orders_are_placed_once_and_held_or_cancelled_in_their_turn(work):
    placed: dict[str, dict] = {}
    held: dict[str, dict] = {}
    cancelled: set[str] = set()
    for record, event in good(work):
        if record.topic != "orders.v1":
            continue
        order = event["order_id"]
        match event["kind"]:
            case "held":
                assert order not in placed and order not in held
                held[order] = event
            case "placed":
                assert order not in placed
                placed[order] = event
            case "cancelled":
                assert order in placed and order not in cancelled
                assert event.get("line_ids") != []
                assert set(event.get("line_ids", [])) <= {line["line_id"] for line in placed[order]["lines"]}
                assert placed[order].get("pickup_location_id") != "STORE-CLOSED"
                cancelled.add(order)
    assert len(placed) == work.facts["orders"]
    assert len(cancelled) == work.facts["cancellations"] > 20
    assert len(held.keys() & placed.keys()) == work.facts["holds_confirmed"] > 20
    assert len(held.keys() - placed.keys()) == work.facts["holds_abandoned"] > 5
    same = sum(held[order]["lines"] == placed[order]["lines"] for order in held.keys() & placed.keys())
    assert same == work.facts["holds_confirmed"] - work.facts["holds_grown"]
    assert work.facts["holds_grown"] > 5


def test_every_wish_occurs_among_the_orders(work):
    orders = [event for record, event in good(work) if event["kind"] == "placed"]
    wishes = Counter()
    for order in orders:
        wishes["pickups"] += order.get("mode") == "pickup"
        wishes["pickups_at_closed_shops"] += order.get("pickup_location_id") == "STORE-CLOSED"
        wishes["no_split"] += order.get("allow_split") is False
        wishes["all_or_nothing"] += order.get("allow_partial") is False
        wishes["urgent"] += order.get("service_level") == "urgent"
    assert all(wishes.values())
    assert wishes == {name: work.facts[name] for name in wishes}
    assert max(len(order["lines"]) for order in orders) > 600


def test_event_times_lie_in_the_day_before_and_follow_the_order_of_the_stream(work):
    times = [orjson.loads(record.value)["event_time"] for record in work.stream if record.outcome != "duplicate"]
    assert times == sorted(times)
    assert NOW_MS - DAY_MS <= times[0] < times[-1] <= NOW_MS


def test_opening_stock_is_sparse_and_tight_and_deliveries_bring_what_was_announced(work, network):
    announced: Counter[tuple] = Counter()
    arrived: Counter[tuple] = Counter()
    cells = set()
    for record in work.opening:
        event = orjson.loads(record.value)
        cells.add((event["location_id"], event["sku"]))
        if event["kind"] == "expected":
            announced[event["location_id"], event["sku"]] += event["quantity"]
    for _, event in good(work):
        if event["event_id"].startswith("receipt-") and "lot_id" in event:
            arrived[event["location_id"], event["sku"]] += event["quantity"]
    assert announced == arrived
    assert work.facts["deliveries"] == len(announced) > 100
    skus = {sku for _, sku in cells}
    assert len(cells) < 0.1 * len(skus) * len(network)
    assert 0.8 < promised_share(work, network) < 0.95


def promised_share(work: Workload, network: list[LocationRecord]) -> float:
    """Share of the ordered units that some location of the pool can promise at once, line by whole line."""
    ships = {location.id for location in network if "ship" in location.capabilities}
    signs = {"receipt": 1, "count": 1, "return": 1, "transfer_in": 1, "release": 1, "adjustment": 1}
    signs |= {"sale": -1, "transfer_out": -1, "quarantine": -1}
    available: dict[tuple, Counter[str]] = defaultdict(Counter)
    asked = promised = 0
    for record, event in good(work):
        if event["kind"] in signs and "counted_at" not in event and event["location_id"] in ships:
            units = signs[event["kind"]] * event["quantity"]
            available[record.key, event["sku"]][event["location_id"]] += units
        elif event["kind"] == "placed":
            for line in event["lines"]:
                cells = available[record.key, line["sku"]]
                asked += line["quantity"]
                enough = [location for location, units in cells.items() if units >= line["quantity"]]
                if enough:
                    cells[min(enough)] -= line["quantity"]
                    promised += line["quantity"]
    return promised / asked


def test_the_same_seed_gives_the_same_bytes_everywhere_and_another_seed_others(network):
    def digest(seed: int) -> str:
        work = retail_events(network, lines=3_000, seed=seed)
        values = b"\n".join(record.value for record in work.opening + work.stream)
        return hashlib.blake2b(values, digest_size=8).hexdigest()

    known = {1: "b8e952b03e5ddcde", 4: "da8de3210c305159"}
    assert digest(1) == known[len({location.pool for location in network})]
    assert digest(2) != digest(1)


@pytest.mark.parametrize("lines", [1, 10, 999, 5_000])
def test_the_census_of_a_part_of_the_sample_adds_up_to_that_part(network, lines):
    work = retail_events(network, lines=lines)
    assert work.lines == sum(row.lines for row in work.census) == lines
    assert sum(row.lines for row in work.census if row.outcome != APPLIED) == sum(
        count for (_, outcome), count in work.expected().items() if outcome not in (APPLIED, "duplicate", "stale")
    )


def test_customers_live_in_the_same_place_under_every_network():
    def destinations(name: str) -> dict:
        stream = retail_events(locations_of(name), lines=2_000).stream
        orders = (orjson.loads(record.value) for record in stream if record.topic == "orders.v1")
        return {order["order_id"]: order["destination"] for order in orders if "destination" in order}

    assert destinations("uk") == destinations("uk4")


def test_every_pool_has_its_share_of_the_orders():
    work = retail_events(locations_of("uk4"))
    orders = Counter(record.key.decode() for record in work.stream if record.topic == "orders.v1")
    assert set(orders) == {"uk-north", "uk-midlands", "uk-south", "uk-west"}
    assert min(orders.values()) > 80


def test_a_pool_without_a_warehouse_is_named(network):
    stores = [location for location in network if location.kind == "store"]
    with pytest.raises(ValueError, match=r"pool uk[a-z-]*: expected at least one warehouse.*found 0 and \d+ among"):
        retail_events(stores, lines=10)


def test_bad_records_are_refused_for_the_reason_they_name(network):
    records = bad_records(network, NOW_MS, partitions=4)
    for record in [*records, too_large(network, NOW_MS)]:
        found = judge(record.topic, record.value)
        if isinstance(found, Refusal):
            assert found.reason.wire == record.outcome, (record, found)
        else:
            # Out of range by the state: a cell that would hold too much.
            assert record.outcome not in OF_THE_VALUE or b"FULL" in record.value, record


def test_bad_records_cover_every_reason_that_needs_no_shipment(network):
    needs_a_shipment = {"unknown_shipment", "wrong_location", "shipment_closed", "exceeds_shipped", "not_shipped"}
    of_former_versions = {"exceeds_shipment"}
    needs_an_old_movement = {"count_too_old"}
    needs_a_full_pool = {"too_many_skus", "too_many_cells", "too_many_lines", "too_many_supplies"}
    others = needs_a_shipment | needs_an_old_movement | needs_a_full_pool | of_former_versions
    missing = {reason.wire for reason in DeadLetter} - others
    if len({location.pool for location in network}) == 1:
        missing.discard("wrong_pool")
    records = [*bad_records(network, NOW_MS, partitions=4), too_large(network, NOW_MS)]
    assert {record.outcome for record in records} - {APPLIED} == missing


def test_bad_records_keep_the_order_of_what_belongs_together(network):
    for seed in range(5):
        records = bad_records(network, NOW_MS, seed=seed)
        twice = [r.outcome for r in records if r.value and b'"bad-twice"' in r.value]
        assert twice == [
            APPLIED,
            "order_exists",
            "order_exists",
            "unknown_line",
            APPLIED,
            "order_closed",
            "order_exists",
        ]


def test_bad_answers_to_a_shipment_are_well_formed_and_cover_the_reasons_that_need_one():
    line = {"line_id": "1", "sku": "A", "quantity": 2}
    shipment = {"shipment_id": "s-1-1", "location_id": "L1", "kind": "ship", "distance_km": 1.0, "lines": [line]}
    allocation = {"order_id": "o", "pool_id": "uk", "shipments": [shipment]}
    records = bad_fulfilments(allocation, "L2", NOW_MS)
    assert not any(isinstance(judge(record.topic, record.value), Refusal) for record in records)
    assert {record.outcome for record in records} >= {
        "unknown_shipment",
        "wrong_location",
        "shipment_closed",
        "not_shipped",
    }
    assert [record.outcome for record in records].count(APPLIED) == 1


def test_clicks_are_good_and_each_line_bought_was_viewed_put_in_a_cart_and_checked_out(network):
    work = retail_events(network, lines=5_000)
    clicks = retail_clicks(work)
    steps: dict[tuple, list[str]] = defaultdict(list)
    for record in clicks:
        click = judge(record.topic, record.value)
        assert not isinstance(click, Refusal), click
        assert record.key == click.visitor_id.encode()
        if click.sku:
            steps[click.event_id.rsplit("-", 1)[0], click.sku].append(click.kind)
    orders = [
        orjson.loads(record.value)
        for record in work.stream
        if record.topic == "orders.v1" and record.outcome == APPLIED and b'"placed"' in record.value
    ]
    for order in orders:
        for sku, lines in Counter(line["sku"] for line in order["lines"]).items():
            found = steps[f"click-{order['order_id']}", sku]
            assert found[0] == "view"
            assert found.count("view") >= lines
            assert found.count("cart") == lines
            assert found[-lines:] == ["checkout"] * lines
    assert any(key[0].startswith("click-BASKET-") and "checkout" not in kinds for key, kinds in steps.items())
