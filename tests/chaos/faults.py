"""Every fault that can be done to a round, by name: whom it hits, what it does at once, and what undoes it later.

A fault is a function of the round; it returns which workers it hit, or None if there was nobody it could hit now. What is to
happen later it gives to `round.later`. Names of fail points are faults too; those happen by themselves in workers set to
die there (round.py).
"""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streams.worker.failpoints import FAIL_POINTS
from tests.chaos.workers import Place, Worker

if TYPE_CHECKING:
    from tests.chaos.round import Round

Hit = list[Worker] | None
STOP_S = 45.0
READY_S = 45.0
SOON_S = 30.0
"""For so long after a fault of the way to the broker a worker that starts may find none, on a machine that has much to do."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How a fault is done, and how often it is chosen, relative to others."""

    do: Callable[["Round"], Hit]
    weight: float


def _victim(round_: "Round") -> Worker | None:
    """A running worker; rather one that has partitions."""
    awake = [worker for worker in round_.crew.alive() if not worker.paused and worker.told is None]
    owners = [worker for worker in awake if worker.owned()]
    return round_.chance.choice(owners or awake) if awake else None


def _kill(round_: "Round") -> Hit:
    victim = _victim(round_)
    if victim is not None:
        victim.kill()
        round_.restart_later(victim.place)
    return victim and [victim]


def _zombie(round_: "Round") -> Hit:
    """Stopped for longer than its session, then continued: it wakes up in a world that went on."""
    victim = _victim(round_)
    if victim is None or len(round_.crew.alive()) < 2:
        return None
    victim.pause()
    round_.disturb(victim.place, SOON_S)
    round_.later(round_.session_s + round_.chance.uniform(0.5, 4.0), victim.go_on)
    return [victim]


def _short_pause(round_: "Round") -> Hit:
    """Stopped for a part of its session: nobody must notice but those who wait."""
    victim = _victim(round_)
    if victim is None:
        return None
    victim.pause()
    round_.disturb(victim.place, SOON_S)
    round_.later(round_.chance.uniform(0.1, 0.8) * round_.session_s, victim.go_on)
    return [victim]


def _stop(round_: "Round") -> Hit:
    victim = _victim(round_)
    if victim is None:
        return None
    victim.stop()
    round_.restart_later(victim.place)
    return [victim]


def _add(round_: "Round") -> Hit:
    empty = [place for place in round_.crew.places if place.worker is None and place.restart_at is None]
    if not empty:
        return None
    round_.start(round_.chance.choice(empty))
    return round_.crew.alive()


def _remove(round_: "Round") -> Hit:
    victim = _victim(round_)
    if victim is None or len(round_.crew.alive()) < 3:
        return None
    victim.stop()
    round_.expect_end(victim, STOP_S)
    return [victim]


def _rival(round_: "Round") -> Hit:
    """A worker of another `app_id` comes: it must refuse to start, and the others go on."""
    round_.expect_refusal(round_.crew.start_rival(round_.chance.choice(round_.crew.places)), STOP_S)
    return round_.crew.alive()


def _rolling_restart(round_: "Round") -> Hit:
    """One after another is asked to stop, and the next only when the successor is ready."""
    hit = []
    for place in round_.crew.places:
        worker = place.worker
        if worker is None or worker.paused or worker.told is not None:
            continue
        worker.stop()
        hit.append(worker)
        round_.wait(lambda worker=worker: worker.child.poll() is not None, STOP_S)
        round_.bury()
        if place.worker is None:
            fresh = round_.start(place)
            round_.wait(lambda fresh=fresh: fresh.ready() or fresh.child.poll() is not None, READY_S)
    return hit or None


def _kill_broker(round_: "Round") -> Hit:
    round_.away_until(SOON_S)
    round_.cluster.kill()
    round_.wait(lambda: False, round_.chance.uniform(0.0, 2.0))
    round_.cluster.restart()
    round_.away_until(SOON_S)
    return round_.crew.alive()


def _pause_broker(round_: "Round") -> Hit:
    seconds = round_.chance.uniform(5, 30 if round_.long else 6)
    round_.away_until(seconds + SOON_S)
    round_.cluster.pause()
    round_.later(seconds, round_.cluster.go_on)
    round_.wait(lambda: False, seconds + 0.1)
    return round_.crew.alive()


def _through(what: str) -> Callable[["Round"], Hit]:
    """A fault of one worker's way to the broker."""

    def do(round_: "Round") -> Hit:
        victim, chance = _victim(round_), round_.chance
        if victim is None:
            return None
        proxy = round_.cluster.proxies[victim.place.number]
        round_.disturb(victim.place, SOON_S)
        if what == "delay":
            proxy.delay(chance.uniform(0.05, 1.0))
            round_.later(chance.uniform(0.5, 4.0), lambda: proxy.delay(0))
        elif what == "cut":
            proxy.cut(chance.choice((0, 1, 10, 100, 1_000, 10_000)))
        elif what == "half_close":
            proxy.half_close(answers=chance.random() < 0.5)
        else:
            proxy.drop_answers(True)
            round_.later(chance.uniform(0.2, 4.0), lambda: proxy.drop_answers(False))
        return [victim]

    return do


def _snapshot(damage: Callable[["Round", Path], None]) -> Callable[["Round"], Hit]:
    """A worker dies, and its disk is not what it was when the next one starts there."""

    def do(round_: "Round") -> Hit:
        owners = [place for place in round_.crew.places if place.worker in round_.crew.alive() and place.snapshots()]
        owners = [place for place in owners if place.worker.told is None and not place.worker.paused]
        if not owners:
            return None
        place: Place = round_.chance.choice(owners)
        victim = place.worker
        victim.kill()
        victim.child.wait(10)
        damage(round_, round_.chance.choice(place.snapshots()))
        round_.bury()
        round_.restart_later(place)
        return [victim]

    return do


def _files(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.rglob("*")) if path.is_file() and path.stat().st_size > 0]


def _delete(round_: "Round", directory: Path) -> None:
    """All of it, or one of its files."""
    files = _files(directory)
    if round_.chance.random() < 0.5 or not files:
        shutil.rmtree(directory)
    else:
        round_.chance.choice(files).unlink()


def _truncate(round_: "Round", directory: Path) -> None:
    if files := _files(directory):
        path = round_.chance.choice(files)
        with open(path, "r+b") as file:
            file.truncate(round_.chance.randrange(path.stat().st_size))


def _flip(round_: "Round", directory: Path) -> None:
    if files := _files(directory):
        path = round_.chance.choice(files)
        content = bytearray(path.read_bytes())
        content[round_.chance.randrange(len(content))] ^= 1 << round_.chance.randrange(8)
        path.write_bytes(content)


def _fill_disk(round_: "Round") -> Hit:
    places = [place for place in round_.crew.places if place.small and place.worker in round_.crew.alive()]
    if not places:
        return None
    place = round_.chance.choice(places)
    victim = place.worker
    place.fill()

    def empty() -> None:
        with contextlib.suppress(FileNotFoundError):
            place.clear()

    round_.later(round_.chance.uniform(1.0, 6.0), empty)
    return [victim]


FAULTS: dict[str, Fault] = {
    "kill": Fault(_kill, 10),
    "zombie": Fault(_zombie, 8),
    "pause": Fault(_short_pause, 5),
    "stop": Fault(_stop, 6),
    "add": Fault(_add, 3),
    "remove": Fault(_remove, 3),
    "rival": Fault(_rival, 2),
    "rolling_restart": Fault(_rolling_restart, 1.5),
    "kill_broker": Fault(_kill_broker, 2),
    "pause_broker": Fault(_pause_broker, 1.5),
    "delay": Fault(_through("delay"), 7),
    "cut": Fault(_through("cut"), 9),
    "half_close": Fault(_through("half_close"), 7),
    "drop_answers": Fault(_through("drop_answers"), 7),
    "delete_snapshot": Fault(_snapshot(_delete), 3),
    "truncate_snapshot": Fault(_snapshot(_truncate), 3),
    "flip_snapshot": Fault(_snapshot(_flip), 4),
    "disk_full": Fault(_fill_disk, 4),
}
NAMES = (*FAIL_POINTS, *FAULTS)
# Their kill falls, by its very place, between the first record of a transaction and its owner's knowing how it ended.
INSIDE = ("after_offsets", "after_produce", "after_flush", "after_turn", "after_commit")
WHOLE_CLUSTER = ("kill_broker", "pause_broker", "rolling_restart", "add", "rival")
