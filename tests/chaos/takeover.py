"""`python -m tests.chaos.takeover --kills 20`: how long are a dead worker's pools without decisions?

Two workers share the partitions; one is killed with `kill -9`, again and again, each time when both are at work. Measured is
the time from the kill until a reader of committed decisions has one, on an event from after the kill, of each pool that the
dead worker had: the slowest of them. Detection is in it: nobody tells the group but the session time-out. Done with `standby`
off and on, over the same log, which is so long to begin with that reading it all takes a while.
"""

import argparse
import json
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from config.settings import load_settings
from streams.kafka.create import create_topics
from tests.chaos.cluster import Cluster
from tests.chaos.load import PARTITIONS, POOLS, Load, Shop, write_network
from tests.chaos.nursery import Nursery
from tests.chaos.watch import Reader, Watch
from tests.chaos.workers import Crew
from topics.keys import partition_of

SESSION_MS = 3_000
HEARTBEAT_MS = 500
PATIENCE_S = 120.0
SETTLED_S = 3.0
"""Both workers are at work for so long before the next kill."""


class TooLate(Exception):
    """Something that should come within `PATIENCE_S` did not; the message says what, and where the logs are."""


def main() -> int:
    given = _arguments()
    directory = given.directory.absolute()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that brokers and workers are ended, as by Ctrl-C
    nursery = Nursery()
    found = []
    try:
        for standby in (False, True):
            waits = measure(nursery, directory / f"standby-{'on' if standby else 'off'}", standby, given)
            found.append(
                {
                    "standby": standby,
                    "kills": len(waits),
                    "p50_s": round(statistics.median(waits), 2),
                    "max_s": round(max(waits), 2),
                    "all_s": [round(wait, 2) for wait in waits],
                }
            )
            print(json.dumps(found[-1]), flush=True)
    finally:
        nursery.close()
    head = {"session_timeout_ms": SESSION_MS, "heartbeat_ms": HEARTBEAT_MS, "events_before": given.events, "rate": given.rate}
    (directory / "takeover.json").write_text(json.dumps(head | {"runs": found}, indent=1) + "\n")
    print("| standby | kills | time to the next decision p50, s | max, s |\n|---|---:|---:|---:|")
    for one in found:
        print(f"| {'on' if one['standby'] else 'off'} | {one['kills']} | {one['p50_s']} | {one['max_s']} |")
    return 0


def measure(nursery: Nursery, directory: Path, standby: bool, given: argparse.Namespace) -> list[float]:
    """Kill so many times; gives the seconds of each takeover."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    write_network(directory / "network.yaml")
    cluster = Cluster(directory, 0)
    settings = load_settings(
        bootstrap_servers=cluster.address,
        app_id="takeover",
        network=directory / "network.yaml",
        data_directory=directory,
        partitions=PARTITIONS,
        click_partitions=PARTITIONS,
        session_timeout_ms=SESSION_MS,
        heartbeat_ms=HEARTBEAT_MS,
        standby=standby,
    )
    crew = Crew(settings, nursery, [cluster.address] * 2, directory)
    shop = Shop(f"takeover/{given.seed}")
    watch = Watch(shop.received, shop.learn)
    reader = Reader(cluster.address, watch, PARTITIONS)
    before, load = Load(cluster.address, shop, given.events), Load(cluster.address, shop, given.rate)
    try:
        create_topics(cluster.admin, settings)
        reader.start()
        for place in crew.places:
            crew.start(place)
        _await(lambda: _shared(crew), f"both workers at work; logs in {directory}")
        before.start()
        _await(lambda: before.sent >= given.events, "the events before")
        before.stop()
        load.start()
        waits = []
        for _ in range(given.kills):
            waits.append(_takeover(crew, watch))
            print(f"standby {'on' if standby else 'off'}: {waits[-1]:.2f} s", flush=True)
        load.stop()
        if watch.violations:
            raise AssertionError(watch.violations)
        return waits
    finally:
        crew.end()
        reader.stop()
        cluster.close()


def _takeover(crew: Crew, watch: Watch) -> float:
    _await(lambda: _shared(crew) and _all_decide(watch), "both workers at work, and decisions of all pools")
    time.sleep(SETTLED_S)
    victim = max(crew.alive(), key=lambda worker: len(worker.owned()))
    partitions = victim.owned()
    pools = [pool for pool in POOLS if partition_of(pool.encode(), PARTITIONS) in partitions]
    recovery = watch.expect(time.time() * 1000, pools)
    victim.kill()
    _await(lambda: recovery.seconds is not None, f"a takeover of partitions {partitions}")
    crew.buried()
    crew.start(victim.place)
    return recovery.seconds


def _shared(crew: Crew) -> bool:
    """Whether two workers, and the two alone, say they own all partitions, and no less than one each."""
    owned = [worker.owned() for worker in crew.alive()]
    return len(owned) == 2 and all(owned) and sorted(owned[0] + owned[1]) == list(range(PARTITIONS))


def _all_decide(watch: Watch) -> bool:
    recovery = watch.expect(time.time() * 1000, POOLS)
    deadline = time.monotonic() + PATIENCE_S
    while recovery.seconds is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return recovery.seconds is not None


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TooLate(f"{what}: not within {PATIENCE_S:g} s")
        time.sleep(0.05)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.takeover", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="with standby off, and as many with it on")
    parser.add_argument("--events", type=int, default=50_000, help="in the log before the first kill")
    parser.add_argument("--rate", type=float, default=200.0, help="events a second meanwhile")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, default=Path("var/takeover"), help="where broker data and logs go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
