"""Others' ways to do the same job, each a process of its own: what our figures stand beside."""

import subprocess
from math import acos, cos, radians, sin

from topics.errors import AnswerIsNo

EARTH_KM = 6371.0088


class PeerMissing(AnswerIsNo):
    """A peer can't be built here; the message says why and what to do."""


def build(command: list[str], failed: str, advice: str) -> None:
    """Run a command that builds a peer; raises `PeerMissing` with what failed, the end of its output, and the advice."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)  # the first time it fetches what it needs
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise PeerMissing(f"{failed}:\n{last}\n{advice} Or leave this peer out.")


def unit_vector(latitude: float, longitude: float) -> tuple[float, float, float]:
    """Give a place, in degrees, as x, y, z on a globe of radius 1."""
    north, east = radians(latitude), radians(longitude)
    return cos(north) * cos(east), cos(north) * sin(east), sin(north)


def kilometres(cosine: float) -> float:
    """Give the great circle between two places by the cosine of their angle."""
    return round(EARTH_KM * acos(min(1.0, cosine)), 3)
