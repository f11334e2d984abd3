"""Many seeds on several processes: `python -m tests.simulation --seeds 10000`; or one, line by line: `--seed 7 --trace`.

Exit status: 0 if nothing was found, 1 if something was.
"""

import argparse
import gc
import logging
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator

COMMAND = "make simulate SEED={0}    (or: .venv/bin/python -m tests.simulation --seed {0} --trace)"
CHUNK = 50  # seeds that a process is given at once
SHOWN = 20  # violations shown whole


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--trace", action="store_true", help="tell what happens, line by line; with --seed")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of a set of texts is part of what a seed decides
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"}
        )
    seeds = range(given.start, given.start + given.seeds) if given.seed is None else range(given.seed, given.seed + 1)
    started = time.monotonic()
    results = run_seeds(seeds, print if given.trace else None) if given.seed is not None else spread(seeds, given.processes)
    total = Total()
    for result in results:
        total.add(result)
        if sys.stderr.isatty() and total.seeds % CHUNK == 0:
            print(f"\r{total.seeds} of {len(seeds)} seeds, {total.violations} violations ", end="", file=sys.stderr)
    total.show(time.monotonic() - started)
    return 1 if total.violations else 0


def spread(seeds: range, processes: int) -> Iterator:
    """Run seeds on several processes; gives their results as they come."""
    if processes < 2:
        yield from run_seeds(seeds)
        return
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for found in pool.imap_unordered(_run_chunk, chunks):
            yield from found


def _run_chunk(seeds: range) -> list:
    return list(run_seeds(seeds))


def run_seeds(seeds: range, trace=None) -> Iterator:
    """Run seeds one after another."""
    from tests.simulation.run import Result, simulate  # compiles at its import
    from tests.simulation.scheduler import alive
    from tests.simulation.worker import installed

    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")  # of the dead
    if trace is None:
        logging.disable(logging.CRITICAL)
    else:
        logging.basicConfig(format=f"{'':38} %(name)s: %(message)s", level=logging.INFO, stream=sys.stdout)
        logging.getLogger().handlers[0].addFilter(lambda _: alive())
    gc.disable()  # it takes a third of the time, at moments of its own choice
    with installed():
        for number, seed in enumerate(seeds):
            try:
                yield simulate(seed, trace)
            except Exception as error:
                yield Result(seed, problems=[f"{type(error).__name__}: {error}"])
            if number == 0:
                gc.collect()  # what the seeds of the chunk before left would stay for ever
                gc.freeze()  # all that was imported
            elif number % 20 == 0:
                gc.collect()


class Total:
    """What many seeds come to."""

    def __init__(self) -> None:
        self.seeds = self.violations = 0
        self.sums: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()

    def add(self, result) -> None:
        self.seeds += 1
        for name in ("events", "batches", "decisions", "transactions", "crashes", "snapshots", "cpu_s", "simulated_s"):
            self.sums[name] += getattr(result, name)
        self.faults += result.faults
        self.points += result.points
        self.outcomes += result.outcomes
        if result.problems:
            self.violations += 1
            if self.violations <= SHOWN:
                print(f"\nVIOLATION in seed {result.seed}:", *result.problems[:5], sep="\n  ")
                print("  replay:", COMMAND.format(result.seed), flush=True)

    def show(self, seconds: float) -> None:
        from streams.worker.failpoints import FAIL_POINTS

        sums = self.sums
        rows = [
            (name, f"{sums[name]:,.0f}") for name in ("events", "decisions", "batches", "transactions", "crashes", "snapshots")
        ]
        print("\n" + _table(("seeds", f"{self.seeds:,}"), *rows, ("simulated hours", f"{sums['simulated_s'] / 3600:,.1f}")))
        print("\nFault x times injected\n" + _table(*((kind, f"{count:,}") for kind, count in sorted(self.faults.items()))))
        print("\nFail point x times passed, killed there, paused there")
        counts = [(self.points[point], self.faults[f"kill:{point}"], self.faults[f"pause:{point}"]) for point in FAIL_POINTS]
        print(_table(*((point, *(f"{count:,}" for count in found)) for point, found in zip(FAIL_POINTS, counts, strict=True))))
        print(
            "\nTransactions and rebuilds\n" + _table(*((kind, f"{count:,}") for kind, count in sorted(self.outcomes.items())))
        )
        each = sums["cpu_s"] / max(self.seeds, 1) * 1000
        print(f"\n{self.violations} violations in {self.seeds:,} seeds, {seconds:.0f} s ({each:.0f} ms of CPU time a seed)")


def _table(*rows: tuple[str, ...]) -> str:
    return "\n".join(f"  {row[0]:32}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows)
