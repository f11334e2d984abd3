"""The round's workers: places in which worker processes live, one after another, each place with a proxy and a directory.

Owner: the round. A place keeps its data directory when its worker dies, as a machine would; its worker reaches the broker
only through the place's proxy.
Not here: which fault hits whom (faults.py), how a process comes about (nursery.py).
"""

import contextlib
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fleet import worker_arguments
from config.settings import Settings
from streams.worker.failpoints import FAIL_POINTS
from tests.chaos.nursery import Child, Nursery

TMPFS = "size=48m"
READY = re.compile(r"ready: (.*)")
OWNED = re.compile(r"inventory partitions ([\d, ]+)")
DIGEST = re.compile(r"(inventory-changelog\.v1-(\d+)) at batch (\d+): (\{.*\})")


@dataclass(slots=True)
class Worker:
    """A process, and what is expected of it."""

    place: "Place"
    child: Child
    log: Path
    fail_at: str
    started_at: float = field(default_factory=time.monotonic)
    told: str | None = None
    """Why it may end: `killed` or `stopped`."""
    paused: bool = False

    def ready(self) -> bool:
        return "ready: " in self.log.read_text(errors="replace")

    def owned(self) -> list[int]:
        """The partitions of the inventory topics it last said it owns."""
        said = READY.findall(self.log.read_text(errors="replace"))
        found = OWNED.search(said[-1]) if said else None
        return [int(partition) for partition in found[1].strip(", ").split(", ")] if found else []

    def digests(self) -> dict[int, tuple[int, str]]:
        """Partition → (batch, JSON of pool → digest), as logged at an orderly stop."""
        text = self.log.read_text(errors="replace")
        return {int(partition): (int(batch), found) for _, partition, batch, found in DIGEST.findall(text)}

    def kill(self) -> None:
        self.told = "killed"
        self.child.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to leave."""
        self.told = self.told or "stopped"
        self.child.send_signal(signal.SIGTERM)

    def pause(self) -> None:
        self.paused = True
        self.child.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.paused = False
        self.child.send_signal(signal.SIGCONT)


class Place:
    """Where a worker lives. `small` tells whether its disk is a small one of its own (tmpfs)."""

    def __init__(self, number: int, address: str, directory: Path):
        self.number = number
        self.address = address
        self.directory = directory / f"place-{number}"
        self.disk = self.directory / "disk"
        self.disk.mkdir(parents=True)
        self.worker: Worker | None = None
        self.count = 0
        self.small = False
        self.restart_at: float | None = None

    def mount(self) -> str | None:
        """Put a small file system under the data directory; the reason if that is not permitted."""
        command = ["mount", "-t", "tmpfs", "-o", TMPFS, "tmpfs", str(self.disk)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            return str(error)
        self.small = done.returncode == 0
        return None if self.small else done.stderr.strip()

    def unmount(self) -> None:
        if self.small:
            subprocess.run(["umount", "-l", str(self.disk)], check=False)
            self.small = False

    def fill(self) -> None:
        """Leave no room on the small disk."""
        block = bytes(1 << 16)
        with contextlib.suppress(OSError), open(self.disk / "filler", "ab", buffering=0) as file:
            while file.write(block) == len(block):
                pass

    def clear(self) -> None:
        (self.disk / "filler").unlink(missing_ok=True)

    def snapshots(self) -> list[Path]:
        """Directories of snapshots, one a partition, that have not been put aside."""
        return [path for path in sorted((self.disk / "state").glob("*")) if path.is_dir() and ".bad-" not in path.name]


KINDS = ("direct", "librdkafka")
"""Of producers: workers of both kinds take over from each other."""


class Crew:
    """All places of a round."""

    def __init__(self, settings: Settings, nursery: Nursery, addresses: list[str], directory: Path):
        self.places = [Place(number, address, directory) for number, address in enumerate(addresses)]
        self.workers: list[Worker] = []
        self._settings = settings
        self._nursery = nursery

    def start(self, place: Place, fail_at: str = "", **changed: object) -> Worker:
        """Start a worker in an empty place."""
        assert place.worker is None
        place.restart_at = None
        log = place.directory / f"worker-{place.count}.log"
        log.touch()
        own = {"bootstrap_servers": place.address, "data_directory": place.disk, "metrics_port": 0, "fail_at": fail_at}
        own["transactions"] = KINDS[(place.number + place.count) % len(KINDS)]
        child = self._nursery.start(worker_arguments(self._settings, **own, **changed), log)
        place.count += 1
        place.worker = Worker(place, child, log, fail_at)
        self.workers.append(place.worker)
        return place.worker

    def start_rival(self, place: Place) -> Worker:
        """Start a worker of another `app_id`, which reaches the broker as the place's own does and must refuse to start."""
        log = place.directory / f"rival-{place.count}.log"
        own = {"bootstrap_servers": place.address, "data_directory": place.directory / "rival", "metrics_port": 0}
        child = self._nursery.start(worker_arguments(self._settings, **own, app_id="rival"), log)
        place.count += 1
        self.workers.append(Worker(place, child, log, ""))
        return self.workers[-1]

    def alive(self) -> list[Worker]:
        return [place.worker for place in self.places if place.worker is not None and place.worker.child.poll() is None]

    def buried(self) -> list[Worker]:
        """Take the workers that ended since out of their places."""
        dead = [place.worker for place in self.places if place.worker is not None and place.worker.child.poll() is not None]
        for worker in dead:
            worker.place.worker = None
        return dead

    def end(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.child.send_signal(signal.SIGKILL)
            worker.child.wait(10)
        for place in self.places:
            place.unmount()


def point_of(worker: Worker) -> str | None:
    """The fail point at which a worker was set to die, if it was."""
    name = worker.fail_at.partition(":")[0]
    return name if name in FAIL_POINTS else None
