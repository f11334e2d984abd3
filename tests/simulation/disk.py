"""The workers' disks: where snapshots are kept, and what befalls them between two lives of a worker.

Real directories, in memory where the machine has such a place; each number of a worker has one of its own for all its lives.
"""

import os
import random
import shutil
import tempfile
from pathlib import Path

from state.store import Store
from streams.worker.snapshots import GroupPartition

SHARED_MEMORY = Path("/dev/shm")
TROUBLES = {
    "snapshot:old": "replaced by one of before, this worker's or another's",
    "snapshot:flipped": "a bit of a file is flipped",
    "snapshot:cut": "a file loses its end",
    "snapshot:foreign": "taken over from a log that went another way",
    "snapshot:swapped": "put in the place of another partition's",
    "snapshot:lost": "all files gone",
}


class Disks:
    """The disks of one seed's workers."""

    def __init__(self, rng: random.Random):
        base = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        self.root = base / f"nearshelf-simulation-{os.getpid()}"
        self.random = rng
        self.remove()

    def directory(self, number: int) -> Path:
        return self.root / f"worker-{number}"

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def places(self, number: int) -> list[Path]:
        """The directories of one worker's snapshots."""
        state = self.directory(number) / "state"
        return sorted(each for each in state.glob("*") if not each.name.endswith(".bad")) if state.exists() else []

    def found(self, name: str) -> list[Path]:
        """All workers' snapshots of a partition."""
        return sorted(self.root.glob(f"worker-*/state/{name}"))

    def keep_copy(self, number: int) -> None:
        """Remember a disk as it is, to come back as an old one."""
        if self.places(number):
            copy = self.root / f"copy-{number}"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(self.directory(number), copy)

    def trouble(self, number: int, kind: str, places: dict[str, GroupPartition]) -> bool:
        """Do it to a worker that is not running; False if there is nothing to do it to."""
        found = self.places(number)
        if kind == "snapshot:old":
            copies = sorted(self.root.glob("copy-*"))
            if copies:
                shutil.rmtree(self.directory(number), ignore_errors=True)
                shutil.copytree(self.random.choice(copies), self.directory(number))
            return bool(copies)
        if not found:
            return False
        chosen = self.random.choice(found)
        if kind == "snapshot:lost":
            shutil.rmtree(chosen)
        elif kind == "snapshot:swapped":
            if len(found) < 2:
                return False
            aside = chosen.with_name("aside")
            other = next(each for each in found if each != chosen)
            chosen.rename(aside)
            other.rename(chosen)
            aside.rename(other)
        elif kind == "snapshot:foreign":
            return _fork(chosen, places[chosen.name])
        else:
            self._damage(chosen, cut=kind == "snapshot:cut")
        return True

    def _damage(self, directory: Path, cut: bool) -> None:
        files = [*directory.glob("*.sst"), *directory.glob("*.log"), *directory.glob("MANIFEST*"), *directory.glob("CURRENT")]
        files = sorted(each for each in files if each.stat().st_size)
        if not files:
            return
        chosen = self.random.choice(files)
        content = bytearray(chosen.read_bytes())
        at = int(self.random.random() * len(content))
        if cut:
            del content[at:]
        else:
            content[at] ^= 1 << self.random.randrange(8)
        chosen.write_bytes(bytes(content))


def _fork(directory: Path, place: GroupPartition) -> bool:
    """Make a snapshot claim another history: the same place in the log, another link."""
    try:
        store = Store(directory, place.identity, place.schema)
    except Exception:  # damaged already
        return False
    cursor = store.cursor
    if cursor is not None:
        store.write([], {**cursor, "link": cursor["link"][::-1]})
    store.close()
    return cursor is not None
