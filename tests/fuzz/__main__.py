"""`python -m tests.fuzz`: so many bad inputs, and what they did. Exit status 1 if anything stopped, or a good event was lost.

Each round has a seed of its own, made of `--seed`, the generator's name and the round's number, and can be run again by itself.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

from tests.fuzz import codec, worker
from tests.fuzz.report import Found

# Name → (share of the inputs, inputs a round, what a round does)
GENERATORS: dict[str, tuple[float, int, Callable[[str, int], Found]]] = {
    "codec": (0.5, codec.ROUND, codec.run_round),
    "inventory": (0.3, worker.ROUND, worker.run_round),
    "inventory-wild": (0.1, worker.ROUND, partial(worker.run_round, wild=True)),
    "clicks": (0.08, worker.ROUND, worker.run_clicks_round),
    "clicks-wild": (0.02, worker.ROUND, partial(worker.run_clicks_round, wild=True)),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=GENERATORS, help="this generator alone")
    parser.add_argument("--round", type=int, help="this round alone, of the generator given by --only")
    given = parser.parse_args()
    print(f"{'generator':<15}{'inputs':>10}{'refused':>10}{'good':>9}{'stops':>7}{'lost good':>11}{'seconds':>9}")
    total = Found()
    for name in [given.only] if given.only else GENERATORS:
        started = time.monotonic()
        found = run(name, given.inputs, given.seed, given.round, whole=given.only is not None)
        total.add(found)
        print(line(name, found, time.monotonic() - started), flush=True)
    print(line("all", total, 0))
    return 0 if total.clean else 1


def run(name: str, inputs: int, seed: int, number: int | None = None, whole: bool = False) -> Found:
    """Run a generator's share of the inputs, or one round of it; tells at once what it finds."""
    share, size, run_round = GENERATORS[name]
    total = Found()
    rounds = max(1, round(inputs * (1 if whole else share) / size))
    for at in range(rounds) if number is None else [number]:
        found = run_round(f"{seed}/{name}/{at}", size)
        for sentence in found.stops + found.lost:
            print(f"{sentence}\n  again: python -m tests.fuzz --seed {seed} --only {name} --round {at}", file=sys.stderr)
        total.add(found)
    return total


def line(name: str, found: Found, seconds: float) -> str:
    numbers = f"{found.inputs:>10,}{found.refused:>10,}{found.good:>9,}{len(found.stops):>7}{len(found.lost):>11}"
    return f"{name:<15}{numbers}{seconds:>9.0f}" if seconds else f"{name:<15}{numbers}"


if __name__ == "__main__":
    sys.exit(main())
