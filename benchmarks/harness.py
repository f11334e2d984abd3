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
import traceback
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from config.broker import KAFKA_VERSION
from topics.errors import AnswerIsNo

SIZES = ("smoke", "full")
ROOT = Path(__file__).resolve().parent.parent


class WrongAnswer(AnswerIsNo):
    """What was measured did not do its job; the message says in what."""


def facts(packages: tuple[str, ...]) -> dict[str, Any]:
    """Tell when, where and with what a benchmark runs; `packages` are those whose versions matter to it."""
    broker = {"Apache Kafka": KAFKA_VERSION} if "confluent-kafka" in packages else {}
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
        "versions": {"python": platform.python_version()} | broker | {name: version(name) for name in packages},
    }


def environment() -> dict[str, str]:
    """The environment of a process that imports what this one does."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}


def answer(benchmark: ModuleType, size: str, as_json: bool, out: Path | None = None, **options: float) -> bool:
    """Run a benchmark, print its facts and its answer, and return whether its answers were right.

    Parameters
    ----------
    benchmark : module
        Has `run`, `lines`, and `PACKAGES`, the distributions whose versions matter.
    size : "smoke" or "full"
    as_json : bool
        One JSON object instead of text.
    out : Path, optional
        Directory for both: the benchmark's name with .txt and .json. If it raises, the text tells that instead.
    **options
        Of the benchmark's `OPTIONS`.
    """
    assert benchmark.__spec__ is not None, "a benchmark is a module that was imported"
    name = benchmark.__spec__.name
    asked = "".join(f" --{option} {value:g}" for option, value in options.items())
    known = {"command": f"python -m {name} --size {size}{asked}", "size": size} | facts(benchmark.PACKAGES)
    try:
        result = known | benchmark.run(size, **options)
    except Exception:
        _write(out, name, [*_heading(known), "", traceback.format_exc()], None)
        raise
    as_text = [*_heading(known), "", *benchmark.lines(result)]
    _write(out, name, as_text, result)
    print(json.dumps(result, default=asdict) if as_json else "\n".join(as_text))
    return bool(result["correct"])


def _write(out: Path | None, name: str, text: list[str], result: dict[str, Any] | None) -> None:
    """Put an answer into a directory; one that is not there takes an older one's file away."""
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    path = out / name.rpartition(".")[2]
    path.with_suffix(".txt").write_text("\n".join([*text, ""]))
    path.with_suffix(".json").unlink(missing_ok=True)
    if result is not None:
        path.with_suffix(".json").write_text(json.dumps(result, default=asdict) + "\n")


def main(benchmark: ModuleType) -> None:
    """Run a benchmark as the command line says; exit status 1 if it found a wrong answer."""
    parser = argparse.ArgumentParser(description=(benchmark.__doc__ or "").split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="smoke", help="smoke: seconds; full: minutes. Default: smoke")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    parser.add_argument("--out", type=Path, help="directory to write text and JSON into as well. Default: none")
    options = getattr(benchmark, "OPTIONS", {})
    for name, meaning in options.items():
        parser.add_argument(f"--{name}", type=float, help=meaning.replace("%", "%%"))  # argparse fills in
    given = parser.parse_args()
    asked = {name: value for name in options if (value := getattr(given, name)) is not None}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped
    sys.exit(0 if answer(benchmark, given.size, given.json, given.out, **asked) else 1)


def verdict(said: str, expected: str, met: bool) -> str:
    """Say what was found beside what was expected, and whether the one meets the other."""
    return f"{said}; expected {expected}: {'met' if met else 'MISSED'}"


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
