"""Starts workers by forking a process that has loaded program and kernels, so that a start costs 0.1 s, not 3 s of CPU.

`python -m tests.chaos.nursery` is that process. It reads one JSON object a line, `{"arguments", "log"}`, forks,
and the child runs `nearshelf ARGUMENTS` as the command line would; it answers `{"started": pid}`, and `{"ended": pid,
"status"}` when a child is gone (status as subprocess has it: negative for a signal).
`Nursery` is the other side: it starts that process and gives a `Child` for each worker.
Why not plain subprocesses: a thousand starts would take most of two cores' time for half an hour, and the faults would fall on
workers that are loading Python modules. What a worker does after its start is the same.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Queue
from typing import Any

ROOT = Path(__file__).parents[2]
START_S = 900.0  # the kernels may have to be compiled
GONE_S = 30.0


class Child:
    """A worker's process; like a `subprocess.Popen` as far as it goes."""

    def __init__(self, pid: int):
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it unless it is gone: its process id is kept by the nursery until its end is known here."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; None if the time was up first."""
        deadline = time.monotonic() + timeout_s
        while self.returncode is None and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.returncode


class Nursery:
    """The process that forks workers, seen from outside."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._started: Queue[Child | None] = Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("NEARSHELF_")},
        )
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()
        if self._started.get(timeout=START_S) is None:
            raise RuntimeError("the nursery could not load the worker; its error is above")

    def start(self, arguments: list[str], log: Path) -> Child:
        """Start `nearshelf ARGUMENTS`, its output appended to `log`."""
        order = {"arguments": arguments, "log": str(log)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        child = self._started.get(timeout=GONE_S)
        if child is None:
            raise RuntimeError("the nursery ended")
        return child

    def close(self) -> None:
        """End all children and the nursery."""
        for child in self._children.values():
            child.send_signal(signal.SIGKILL)
        for child in self._children.values():
            child.wait(GONE_S)
        self._process.stdin.close()
        self._process.wait(GONE_S)

    def _listen(self) -> None:
        for line in self._process.stdout:
            told: dict[str, Any] = json.loads(line)
            if "ended" in told:
                self._children[told["ended"]].returncode = told["status"]
            else:
                child = Child(told["started"])  # 0: the nursery itself has started
                if child.pid:
                    self._children[child.pid] = child
                self._started.put(child)
        self._started.put(None)


def _serve() -> None:
    """The nursery itself."""
    from config.settings import load_settings
    from streams import cli  # noqa: F401  all that a worker needs is loaded once, here
    from streams.cli import worker  # noqa: F401
    from streams.worker.warm import warm_kernels

    warm_kernels(load_settings(bootstrap_servers="none:1"))
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _tell({"started": 0})
    orders = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 1_000)
            _bury()
        if 0 in ready:
            found = os.read(0, 1 << 16)
            if not found:
                return
            *lines, orders = (orders + found).split(b"\n")
            for line in lines:
                _fork(json.loads(line), (woken, wake))


def _bury() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _fork(order: dict[str, Any], pipes: tuple[int, int]) -> None:
    pid = os.fork()
    if pid:
        _tell({"started": pid})
        return
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for pipe in pipes:
        os.close(pipe)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
        os.close(source) if source != log else None
    os.close(log)
    sys.argv = ["nearshelf", *order["arguments"]]
    from streams.cli import main

    main()
    os._exit(0)


def _tell(what: dict[str, int]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    _serve()
