"""What all benchmarks share: their sizes, the facts printed beside their numbers, and how one is started.

A benchmark is a module of this package with `run(size) -> dict`, whose answer has `correct`, and `lines(result)`, which puts
it into words; `OPTIONS`, if it has them, are numbers that `run` takes by name: name → what it is. Numbers without machine,
versions, commit and command cannot be compared, so `answer` adds these.
Not here: timing, which differs from question to question; workloads (synthetic.py, retail/).
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

SIZES = ("smoke", "full")
ROOT = Path(__file__).resolve().parent.parent


def facts(packages: tuple[str, ...]) -> dict[str, Any]:
    """Tell when, where and with what a benchmark runs; `packages` are those whose versions matter to it."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": psutil.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9),
            "system": f"{platform.system()} {platform.release()}",
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def answer(benchmark: ModuleType, size: str, as_json: bool, **options: float) -> bool:
    """Run a benchmark, print its facts and its answer, and return whether its answers were right.

    Parameters
    ----------
    benchmark : module
        Has `run`, `lines`, and `PACKAGES`, the distributions whose versions matter.
    size : "smoke" or "full"
    as_json : bool
        One JSON object instead of text.
    **options
        Of the benchmark's `OPTIONS`.
    """
    asked = "".join(f" --{name} {value:g}" for name, value in options.items())
    command = f"python -m {benchmark.__spec__.name} --size {size}{asked}"
    known = {"command": command, "size": size} | facts(benchmark.PACKAGES)
    result = known | benchmark.run(size, **options)
    print(json.dumps(result, default=asdict) if as_json else "\n".join([*_heading(known), "", *benchmark.lines(result)]))
    return bool(result["correct"])


def main(benchmark: ModuleType) -> None:
    """Run a benchmark as the command line says; exit status 1 if it found a wrong answer."""
    parser = argparse.ArgumentParser(description=(benchmark.__doc__ or "").split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="smoke")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    options = getattr(benchmark, "OPTIONS", {})
    for name, meaning in options.items():
        parser.add_argument(f"--{name}", type=float, help=meaning)
    given = parser.parse_args()
    asked = {name: value for name in options if (value := getattr(given, name)) is not None}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped
    sys.exit(0 if answer(benchmark, given.size, given.json, **asked) else 1)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lay out a Markdown table, first column left, others right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    pad = [str.ljust, *[str.rjust] * (len(head) - 1)]
    return [
        "| " + " | ".join(put(cell, width) for put, cell, width in zip(pad, row, widths, strict=True)) + " |"
        for row in (head, rule, *rows)
    ]


def _heading(known: dict[str, Any]) -> list[str]:
    machine = known["machine"]
    return [
        f"{known['date']}, commit {known['commit']}: {known['command']}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; "
        f"load {machine['load_before']} before the start",
        ", ".join(f"{name} {number}" for name, number in known["versions"].items()),
    ]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
