"""Takes each guard of the product away, one at a time, and shows that the tests fail: `python -m tests.guards`.

A guard is a few lines without which everything works until something goes wrong. Each is removed in a copy of this tree, by
replacing its text. Then the simulation runs until a seed finds something, and if none does, the tests below until one fails;
where the simulation can't see what is missing, the tests named with the guard come first.
The answer is a table: which guard, and which seed or test missed it. Exit status 1 if none missed one.

Not part of `make test`: a guard inside a kernel takes minutes to compile.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = [
    "tests/unit/test_flow.py",
    "tests/unit/test_flow_parts.py",
    "tests/unit/test_store.py",
    "tests/unit/test_limits.py",
    "tests/property/test_inventory_log.py",
    "tests/property/test_log.py",
    "tests/complaints",
]
SEEDS = 1_000
PATIENCE_S = 1_200
SHOWN = 160  # characters of what a seed found, whole words
_FIRST_VIOLATION = (
    "import json; from tests.simulation.test_simulation import first_violation; print(json.dumps(first_violation(range({}))))"
)


@dataclass(frozen=True)
class Guard:
    """What is removed: in `path`, `old` becomes `new`."""

    says: str
    path: str
    old: str
    new: str
    first: str = ""
    """Tests to be tried before the simulation, where it can't see what is missing."""


GUARDS = {
    "limit of distance": Guard(
        "a location serves nobody beyond its limit of distance",
        "streams/routing/fences.py",
        "    if place.limit_chord2 > 0.0 and",
        "    if place.limit_chord2 > 9.0 and",
        "tests/unit/test_routing_rules.py",
    ),
    "no kit of kits": Guard(
        "a kit has no part that is a kit",
        "streams/inventory/products.py",
        "            if part.sku.encode() in self.kits:",
        "            if False:",
        "tests/unit/test_products.py",
    ),
    "no part becomes a kit": Guard(
        "a part of a kit becomes no kit",
        "streams/inventory/products.py",
        "        if product.kit and self._part_of[sku.encode()]:",
        "        if False:",
        "tests/unit/test_products.py",
    ),
    "kits of a new pool": Guard(
        "a pool that is new has the kits in force",
        "streams/inventory/pipeline.py",
        "            self.products.enter(state)\n",
        "            pass\n",
        "tests/unit/test_products.py",
    ),
    "products once": Guard(
        "a product's record that was applied is not applied again after a restart",
        "streams/inventory/products.py",
        "        if change.offset >= self._applied.get(change.partition, 0):",
        "        if True:",
        "tests/unit/test_products.py",
    ),
    "one refusal for all partitions": Guard(
        "a product is refused by partition 0 alone",
        "streams/inventory/pipeline.py",
        "refusal is not None and self.partition == 0",
        "refusal is not None",
        "tests/unit/test_products.py",
    ),
    "a kit that ended": Guard(
        "a state learns of a kit that ended while nobody read the topic",
        "streams/worker/locations.py",
        "                    self._latest.setdefault((PRODUCTS, key), change)\n",
        "                    pass\n",
        "tests/unit/test_flow_parts.py",
    ),
    "limit of distance, of its pool": Guard(
        "a location has its pool's limit of distance",
        "config/network.py",
        "_within_its_pool(place, pools[place.pool]) for",
        "place for",
        "tests/unit/test_network.py",
    ),
    "fencing": Guard(
        "a new owner's producer ends what a former one may still do",
        "streams/worker/transactions.py",
        "        self.transactional_id = transactional_id\n",
        '        self.transactional_id = f"{transactional_id}-{id(self)}"\n',
    ),
    "next offset": Guard(
        "a fetched record is taken once, though it is fetched again",
        "streams/worker/backlog.py",
        "        if fetched.start < position:\n",
        "        if False:\n",
    ),
    "no gap between fetches": Guard(
        "a fetched range joins on to the one before",
        "streams/worker/backlog.py",
        "        if fetched.start > position:\n            return False\n",
        "",
    ),
    "undo": Guard(
        "a state whose commit is in doubt is thrown away",
        "streams/worker/flow.py",
        '.name, outcome.sequence, why)\n            self._rebuild = "doubt"\n        except Refused:',
        ".name, outcome.sequence, why)\n            self._unsettled.popleft()\n        except Refused:",
    ),
    "put back": Guard(
        "batches that were not settled go through again",
        "streams/worker/backlog.py",
        " for batch in unsettled for topic, chunks",
        " for batch in () for topic, chunks",
    ),
    "put back, less what is committed": Guard(
        "a batch that was committed after all does not go through again",
        "streams/worker/backlog.py",
        "else positions.get(waiting.topic, NEVER))\n",
        "else 0)\n",
    ),
    "another owner's progress": Guard(
        "what another owner committed meanwhile is not taken when it is fetched",
        "streams/worker/backlog.py",
        "        self.positions = {topic: max(at, positions[topic]) for topic, at in self.positions.items()}\n",
        "",
    ),
    "confirmed and lost": Guard(
        "what a broker confirmed and lost is fetched again",
        "streams/worker/flow.py",
        "        lost = {topic: at for topic, at in self.committed.items() if positions[topic] < at}\n",
        "        lost = {}\n",
        "tests/unit/test_flow.py",
    ),
    "lanes in order: records": Guard(
        "a batch's first record is sent when all of the batch before are in the log",
        "streams/worker/transactions.py",
        "            self._await(before.written, outcome)\n",
        "            pass\n",
    ),
    "lanes in order: commits": Guard(
        "a batch's transaction ends when the one before is known to be committed",
        "streams/worker/transactions.py",
        "            self._await(before.committed, outcome)\n",
        "            pass\n",
    ),
    "all lanes": Guard(
        "who takes a partition over fences all its lanes",
        "streams/worker/transactions.py",
        'return f"{name}-lane-{lane}" if lane else name',
        'return f"{name}-lane-{lane}-{time.time()}" if lane else name',
    ),
    "direct: a repeated end": Guard(
        "a direct producer that is fenced when it asks for an end again does not know how it ended",
        "streams/kafka/direct.py",
        "elif code in FENCED and attempt > 1 and isinstance(answer, EndTxnResponse):",
        "elif False:",
        "tests/unit/test_direct.py",
    ),
    "direct: the same again": Guard(
        "a direct producer's batch that is repeated has its first sequence number",
        "streams/kafka/direct.py",
        "            self._sequences[topic] = (sequence + count) & 0x7FFFFFFF\n",
        "            self._sequences[topic] = 0\n",
        "tests/unit/test_direct.py",
    ),
    "direct: what is open": Guard(
        "a direct producer ends no transaction that the broker has not heard of",
        "streams/kafka/direct.py",
        "        if not self._open:\n",
        "        if False:\n",
        "tests/unit/test_direct.py",
    ),
    "a backlog of another time": Guard(
        "what was fetched under an earlier assignment is dropped",
        "streams/worker/flow.py",
        "                self._backlog.drop()\n",
        "",
    ),
    "batch chain": Guard(
        "the changelog's batches follow each other without a gap",
        "streams/worker/chain.py",
        "        if (number, part) != expected:\n",
        "        if False:\n",
        "tests/unit/test_flow_parts.py",
    ),
    "hash chain": Guard(
        "a changelog record is as it was written",
        "streams/worker/chain.py",
        "        if found != link:\n",
        "        if False:\n",
        "tests/unit/test_flow_parts.py",
    ),
    "offsets and changelog agree": Guard(
        "committed offsets are where the changelog ends",
        "streams/worker/recovery.py",
        "        if topic in committed and committed[topic] != known:\n",
        "        if False:\n",
        "tests/unit/test_flow_parts.py",
    ),
    "owner": Guard(
        "a worker of another app_id refuses to start, and to take over",
        "streams/worker/owner.py",
        "    if owner is not None and app_id is not None and owner != app_id:\n",
        "    if False:\n",
    ),
    "committed-only snapshots": Guard(
        "recovery, snapshots and standby read what is committed, and nothing else",
        "streams/kafka/clients.py",
        '"isolation_level": "read_committed"',
        '"isolation_level": "read_uncommitted"',
    ),
    "a snapshot's place in the log": Guard(
        "a snapshot is of this very changelog",
        "streams/worker/snapshots.py",
        "                _prove(cursor, place, reader, interrupted)\n                pools",
        "                pools",
    ),
    "a snapshot's checksums": Guard(
        "a page is as it was written",
        "state/store.py",
        "    if len(value) < _CRC.size or _CRC.unpack_from(value)[0] != zlib.crc32(content, zlib.crc32(key)):\n",
        "    if False:\n",
        "tests/unit/test_store.py",
    ),
    "a snapshot's pages": Guard(
        "no page is missing",
        "state/store.py",
        '        if found != table["pages"]:\n',
        "        if False:\n",
        "tests/unit/test_store.py",
    ),
    "aborted": Guard(
        "what an aborted transaction wrote is not taken",
        "streams/kafka/record_batches.py",
        "        elif not (attributes & _TRANSACTIONAL and producer in dead):\n",
        "        else:\n",
        "tests/property/test_log.py",
    ),
    "a location change once": Guard(
        "a record of locations.v1 that a batch has applied is not applied again",
        "streams/inventory/network.py",
        " and change.offset >= self._applied.get(change.partition, 0)\n",
        "\n",
    ),
    "partition of the key": Guard(
        "a pool has one partition, and so one writer",
        "streams/inventory/pipeline.py",
        "        elif partition_of(key, self.partitions) != self.partition:\n",
        "        elif False:\n",
    ),
    # Inside kernels
    "dedupe": Guard(
        "an event id that was applied changes nothing",
        "state/seen.py",
        "    if slot >= 0 and _in_window(t, t.seen[slot].time, _position(t, slot)):\n",
        "    if slot < -1 and _in_window(t, t.seen[slot].time, _position(t, slot)):\n",
        "tests/complaints",
    ),
    "stale count": Guard(
        "a count older than the last one is ignored",
        "streams/inventory/stock_events.py",
        "        if event.time < t.cells[known].counted_at:\n",
        "        if event.time < 0:\n",
        "tests/complaints",
    ),
    "counted movement": Guard(
        "a movement from before the last count of its cell is ignored",
        "state/stock.py",
        "    return row >= 0 and event_time < t.cells[row].counted_at\n",
        "    return row >= 0 and event_time < -1\n",
        "tests/complaints",
    ),
    "reservation": Guard(
        "a promised unit is not available",
        "state/stock.py",
        "cell.on_hand, cell.reserved + units, cell.safety_stock, event_row)\n\n\n@kernel\ndef within_bounds",
        "cell.on_hand, cell.reserved, cell.safety_stock, event_row)\n\n\n@kernel\ndef within_bounds",
        "tests/complaints",
    ),
    "another event of the id": Guard(
        "an event id used again for something else is refused",
        "state/seen.py",
        "        return SEEN if t.seen[slot].content == content else REUSED\n",
        "        return SEEN\n",
        "tests/complaints",
    ),
    "plausible times": Guard(
        "an event from the future is refused",
        "streams/inventory/apply.py",
        "        if not _times_are_plausible(t, event):\n",
        "        if False and not _times_are_plausible(t, event):\n",
        "tests/complaints",
    ),
    "released, and left all the same": Guard(
        "a parcel that left after its promise was given back leaves on hand",
        "streams/inventory/fulfilments.py",
        "    taken = min(units, np.int64(line.released))\n    if taken <= 0:\n",
        "    taken = min(units, np.int64(line.released))\n    if taken <= taken:\n",
        "tests/complaints",
    ),
    "shortfall": Guard(
        "promises that a cell can't cover are released",
        "streams/inventory/shortfall.py",
        "            while t.limits[REROUTES] and cell.reserved",
        "            while False and cell.reserved",
        "tests/complaints",
    ),
    "a kit's other parts": Guard(
        "what a kit's line gives back, it gives back of all its parts",
        "state/orders.py",
        "units * units_each(t, piece), event_row)\n        piece = next_piece(t, piece)\n\n",
        "units * units_each(t, piece), event_row)\n        piece = np.int32(-1)\n\n",
        "tests/complaints/test_kits.py",
    ),
    "a kit sold at a till": Guard(
        "a till's sale of a kit moves its parts",
        "streams/inventory/stock_events.py",
        "    if event.kind == Kind.SALE or event.kind == Kind.RETURN:",
        "    if False:",
        "tests/complaints/test_kits.py",
    ),
    "one sale, one collection": Guard(
        "goods that a till and a store both tell of leave once",
        "streams/inventory/fulfilments.py",
        "            units -= _confirm(t, work.rows[k], units, 1, location, kind)\n    for",
        "            pass\n    for",
        "tests/complaints",
    ),
    "a hold held again": Guard(
        "a hold ends at the time it was held until last, and at no earlier one",
        "state/orders.py",
        " and order.age == hold.age and order.expires_at == hold.time\n",
        " and order.age == hold.age\n",
        "tests/complaints",
    ),
    "escaped keys": Guard(
        "no two cells share a key",
        "topics/codec/put.py",
        'at = put(out, at, b"%2F")',
        'at = put(out, at, b"/")',
        "tests/complaints",
    ),
    "a transfer's sums": Guard(
        "a settled transfer is remembered until it would be due",
        "state/supply.py",
        "        if due or supply.sent_at < 0 or pool",
        "        if supply.quantity == 0 or pool",
        "tests/complaints/test_reality.py",
    ),
    "excess": Guard(
        "more that arrives than left is told",
        "state/supply.py",
        "supply.quantity < 0, event_row)\n",
        "supply.quantity < -(1 << 40), event_row)\n",
        "tests/complaints/test_reality.py",
    ),
    "overdue": Guard(
        "a transfer that does not arrive becomes overdue by the clock alone",
        "streams/inventory/apply.py",
        "        if not pass_due(t, event_row):\n",
        "        if t.counters[ALERT_COUNT] >= 0:\n",
        "tests/complaints/test_reality.py",
    ),
    "a tick for a transfer": Guard(
        "a quiet pool gets a tick when a transfer is due",
        "streams/inventory/pipeline.py",
        " or (due is not None and due <= now_ms)\n",
        "\n",
        "tests/complaints/test_reality.py",
    ),
    "taken out before": Guard(
        "a supply that goes and comes again in one batch stands",
        "state/pool.py",
        "        return rows[order], events[order]\n",
        "        return rows[order[::-1]], events[order[::-1]]\n",
        "tests/complaints/test_reality.py",
    ),
    "limits": Guard(
        "a pool keeps no more SKUs than it may",
        "streams/inventory/stock_events.py",
        "    if sku < 0 and pool.sku_count >= t.limits[MAX_SKUS]:\n",
        "    if sku < -1 and pool.sku_count >= t.limits[MAX_SKUS]:\n",
        "tests/unit/test_limits.py",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.guards", description=__doc__.splitlines()[0])
    parser.add_argument("--guard", action="append", choices=sorted(GUARDS), help="this one only; may be repeated")
    given = parser.parse_args()
    missed = []
    with tempfile.TemporaryDirectory(prefix="nearshelf-guards-") as directory:
        tree = _copied(Path(directory) / "tree")
        print("| guard | what it sees to | who misses it |\n| --- | --- | --- |", flush=True)
        for name in given.guard or GUARDS:
            guard = GUARDS[name]
            started = time.monotonic()
            with _Removed(tree, guard):
                found = (guard.first and _failing_test(tree, guard.first)) or _violation(tree) or _failing_test(tree, *TESTS)
            if not found:
                missed.append(name)
            print(f"| {name} | {guard.says} | {found or 'NOBODY'} |", flush=True)
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(f"\n{len(given.guard or GUARDS) - len(missed)} of {len(given.guard or GUARDS)} guards: their absence is found")
    for name in missed:
        print(f"NOT FOUND: {name}")
    return 1 if missed else 0


def _copied(tree: Path) -> Path:
    """Copy the tree's own files, and check that nothing fails there."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    _run(tree, "-m", "streams.worker.warm")
    if failure := _violation(tree, 100) or _failing_test(tree, *TESTS):
        sys.exit(f"with all guards in place there is a failure already: {failure}")
    return tree


class _Removed:
    """A guard's absence."""

    def __init__(self, tree: Path, guard: Guard):
        self._path, self._guard = tree / guard.path, guard

    def __enter__(self) -> None:
        self._text = self._path.read_text()
        if self._text.count(self._guard.old) != 1:
            sys.exit(f"{self._guard.path}: expected once, found {self._text.count(self._guard.old)} times:\n{self._guard.old}")
        self._path.write_text(self._text.replace(self._guard.old, self._guard.new))

    def __exit__(self, *_: object) -> None:
        stamp = (ROOT / self._guard.path).stat()
        self._path.write_text(self._text)
        os.utime(self._path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # what was compiled from it is good again


def _run(tree: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(tree)}
    try:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True, timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(arguments, 1, f"FAILED no end after {PATIENCE_S} s", "")


def _failing_test(tree: Path, *tests: str) -> str:
    """Run the tests up to the first that fails; give its name, or nothing."""
    done = _run(tree, "-m", "pytest", "-x", "-q", "-m", "not broker", "-p", "no:cacheprovider", *tests)
    if done.returncode == 0:
        return ""
    failed = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    # Less the parameters, which may have spaces in them.
    return f"test `{re.split(r'[[ ]', failed[0].split('::', 1)[-1])[0]}`" if failed else f"exit status {done.returncode}"


def _violation(tree: Path, seeds: int = SEEDS) -> str:
    """Run seeds up to the first that finds something; give it and what it found, or nothing."""
    done = _run(tree, "-c", _FIRST_VIOLATION.format(seeds))
    if not done.stdout.strip():
        return f"exit status {done.returncode}"
    found = json.loads(done.stdout.splitlines()[-1])
    if found is None:
        return ""
    seed, what = found
    return f"simulation, seed {seed}: {textwrap.shorten(what, SHOWN, placeholder=' …')}".replace("|", "/")


if __name__ == "__main__":
    sys.exit(main())
