"""Generated logs of one seed, and the bytes that the pipelines make of them: outputs and changelog, one hash each.

What a refactoring must not change. The hashes on record were made by `python -m tests.golden record`; a change that is meant to
alter an output or the changelog records them anew, and says so in its commit.
"""

import hashlib
import random
from collections.abc import Iterable
from typing import Any

import orjson

from config.settings import Settings
from state import changelog
from streams.batch.pipeline import Outcome, Segment
from streams.demand.pipeline import ClicksPipeline
from streams.inventory.pipeline import InventoryPipeline
from tests.inventory_log import LogRecord, make_log, play
from tests.inventory_log import settings as inventory_settings

START_MS = 1_700_000_000_123
INVENTORY_RECORDS, CLICK_RECORDS = 300, 400
SMALL_INVENTORY = {"dedupe_events": 50, "dedupe_hours": 0, "count_horizon_hours": 1, "closed_order_days": 1}
SMALL_CLICKS = {"demand_window_ms": 10_000, "demand_buckets": 5, "dedupe_events": 40, "dedupe_hours": 0}


def make_clicks(seed: int, count: int) -> list[LogRecord]:
    """Make `count` records of `clicks.v1`: some sent twice, some that can't be read, some with a trace."""
    rng = random.Random(seed)
    records: list[LogRecord] = []
    now, offset = START_MS, -1
    for number in range(count):
        now += rng.randint(0, 900)
        offset += rng.choice([1, 1, 1, 2])
        value: dict[str, Any] = {"event_id": f"c{number}", "event_time": now - rng.choice([0, 3, 5_000]), "visitor_id": "v"}
        value |= {"kind": rng.choice(["view", "view", "view", "cart", "checkout", "search", "wishlist"]), "channel": "web"}
        if rng.random() < 0.9:
            value |= {"sku": f'SKU-{rng.randrange(9)}"/', "pool_id": rng.choice(["uk", "fr"])}
        if rng.random() < 0.1:
            value |= {"latitude": rng.choice([51.5, 91]), "customer_id": rng.choice(["c", 5])}
        body = orjson.dumps(value)
        if records and rng.random() < 0.05:
            body = rng.choice(records[-60:]).value
        elif rng.random() < 0.02:
            body = rng.choice([b"?", b"{}", b"[1]", None])
        headers = (("traceparent", b"00-1-2-01"),) if rng.random() < 0.05 else ()
        records.append(LogRecord("clicks.v1", offset, now, b"v", body, headers))
    return records


def play_clicks(pipeline: ClicksPipeline, records: list[LogRecord], size: int) -> list[Outcome]:
    """Run clicks through a pipeline in batches of `size` records."""
    batches = ([Segment.of("clicks.v1", records[at : at + size])] for at in range(0, len(records), size))
    return [pipeline.process(pipeline.decode(batch), []) for batch in batches]


def clicks_pipeline(**changed: Any) -> ClicksPipeline:
    """An empty clicks pipeline, ready to process."""
    pipeline = ClicksPipeline(0, 1, Settings(bootstrap_servers="none:1", **changed))
    pipeline.seal()
    return pipeline


def outputs_hash(outcomes: Iterable[Outcome]) -> str:
    """Hash all that was produced: topics, keys, values, headers, in order."""
    found = hashlib.blake2b(digest_size=16)
    for outcome in outcomes:
        for topic, messages in sorted(outcome.outputs.items()):
            for message in messages:
                found.update(repr((topic, message["key"], message["value"], message.get("headers"))).encode())
        found.update(repr((sorted(outcome.offsets.items()), sorted(outcome.counts.items()))).encode())
    return found.hexdigest()


def changelog_hash(outcomes: Iterable[Outcome]) -> str:
    """Hash the changelog's records and their links."""
    found = hashlib.blake2b(digest_size=16)
    for outcome in outcomes:
        found.update(outcome.changelog)
        found.update(outcome.link)
    return found.hexdigest()


def hashes(seed: int) -> dict[str, str]:
    """Play one seed's inventory and click logs; every third seed with windows that end within the log."""
    changelog.NEARSHELF = "golden"  # a release changes no hash
    small, size = seed % 3 == 0, 1 + seed * 7 % 60
    changed, step_ms = (SMALL_INVENTORY, 400_000) if small else ({}, 700)
    log = make_log(seed, INVENTORY_RECORDS, step_ms=step_ms, **changed)
    inventory = play(InventoryPipeline(0, 1, inventory_settings(**changed)), log, size)
    clicks = play_clicks(clicks_pipeline(**(SMALL_CLICKS if small else {})), make_clicks(seed, CLICK_RECORDS), size)
    return {
        "inventory outputs": outputs_hash(inventory),
        "inventory changelog": changelog_hash(inventory),
        "clicks outputs": outputs_hash(clicks),
        "clicks changelog": changelog_hash(clicks),
    }
