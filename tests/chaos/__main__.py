"""`python -m tests.chaos --faults N | --minutes M [--seed S] [--fault NAME ...]`: break it, and see that nothing is lost.

Runs rounds (round.py) until that many faults were done or that much time is over, prints each round and the table at the end,
and writes the table to `chaos.md` and `chaos.json` in the directory. Exit status 1 if anything was violated; the round's
broker data and logs are kept then, and named.
"""

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import psutil

from streams.worker.failpoints import FAIL_POINTS
from tests.chaos import report
from tests.chaos.faults import NAMES
from tests.chaos.round import Options, Result, run_round

PER_ROUND = 80


def main() -> int:
    given = _arguments()
    options = Options(
        seed=given.seed, names=tuple(given.fault or NAMES), rate=given.rate, long=not given.short, keep=given.keep,
    )  # fmt: skip
    directory = given.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    print(f"chaos: seed {given.seed}", flush=True)
    results: list[Result] = []
    for result in _rounds(given, options, directory, results):
        results.append(result)
        _tell(result)
        report.write(directory, results, " ".join(["python -m tests.chaos", *sys.argv[1:]]))
    print(report.table(results))
    for result in results:
        for what in result.violations:
            print(f"VIOLATION round {result.number}: {what}")
    print(f"written to {directory}/chaos.md and chaos.json")
    return 1 if any(result.violations for result in results) else 0


def _rounds(given: argparse.Namespace, options: Options, directory: Path, results: list[Result]) -> Iterator[Result]:
    """Run rounds, `parallel` of them at a time, each in a process of its own, until it is enough; gives each as it ends."""
    ends_at = time.monotonic() + given.minutes * 60 if given.minutes else float("inf")
    numbers = count(given.round)
    running: set[Future[Result]] = set()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    executor = ProcessPoolExecutor(given.parallel, get_context("spawn"))
    try:
        while True:
            done = Counter(event.name for result in results for event in result.events)
            missing = _missing(given, done, len(running))
            stop = any(result.violations for result in results) and not given.keep_going
            while missing > 0 and not stop and time.monotonic() < ends_at and len(running) < given.parallel:
                number, wanted = next(numbers), min(PER_ROUND, missing)
                seconds = min(given.round_seconds, ends_at - time.monotonic())
                running.add(executor.submit(run_round, number, options, directory / f"round-{number}", done, wanted, seconds))
                missing -= wanted
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()
    finally:
        for process in psutil.Process().children():  # none has anything left to do, or all are to stop
            process.terminate()


def _missing(given: argparse.Namespace, done: Counter[str], rounds_running: int) -> int:
    """Count the faults still to be done: in all, or so that each fail point is met as often as wanted."""
    if not given.faults:
        return PER_ROUND
    points = [name for name in FAIL_POINTS if name in (given.fault or NAMES)]
    short = max((given.each_point - done[name] for name in points), default=0)
    return max(given.faults - done.total(), short * len(points)) - rounds_running * PER_ROUND


def _tell(result: Result) -> None:
    print(
        f"round {result.number}: {len(result.events)} faults, {sum(event.inside for event in result.events)} inside a commit "
        f"window, {result.records:,} records, {result.decisions:,} decisions; digests of "
        f"{result.owners} owners and {result.snapshots} snapshots compared; "
        f"{result.seconds:.0f} s, of them {result.rested_s:.0f} to come to rest and {result.checked_s:.0f} to check; "
        f"{len(result.violations)} violations",
        flush=True,
    )
    for what in result.notes:
        print(f"  note: {what}", flush=True)
    for what in result.violations[:20]:
        print(f"  VIOLATION: {what}", flush=True)
    if result.kept:
        print(f"  kept: {result.kept}; again: python -m tests.chaos ... --round {result.number}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--faults", type=int, default=0, help="how many faults to do, at least")
    length.add_argument("--minutes", type=float, default=0.0, help="how long new rounds may begin, and faults be done")
    parser.add_argument("--seed", type=int, default=1, help="of what is chosen; the machine's timing is not in it")
    parser.add_argument("--fault", action="append", choices=NAMES, help="only these; may be given several times")
    parser.add_argument("--each-point", type=int, default=0, help="times each fail point must be met, at least")
    parser.add_argument("--rate", type=float, default=150.0, help="events a second")
    parser.add_argument("--parallel", type=int, default=1, help="rounds at a time; each wants about a core")
    parser.add_argument("--round", type=int, default=1, help="number of the first round")
    parser.add_argument("--round-seconds", type=float, default=240.0, help="how long a round's faults go on, at most")
    parser.add_argument("--short", action="store_true", help="a paused broker stays so for 6 s at most")
    parser.add_argument("--keep", action="store_true", help="keep data and logs even of rounds without a violation")
    parser.add_argument("--keep-going", action="store_true", help="go on after a violation")
    parser.add_argument("--directory", type=Path, default=Path("var/chaos"), help="where broker data, logs and tables go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
