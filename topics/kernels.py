"""`kernel`: how every numba function of nearshelf is compiled. Without the GIL, and kept on disk.

numba keeps a compiled function for as long as its own file is unchanged, even when a function it calls, in another file, has
changed: an upgrade could leave old code running inside new. So all kernels are kept under a digest of all sources that hold
any: a change of one compiles all anew. What was kept for a digest that nobody used for a day is deleted.
"""

import hashlib
import shutil
import tempfile
import time
from pathlib import Path

import numba

_ROOT = Path(__file__).resolve().parent.parent
_SOURCES = ("topics", "state", "streams")
_KEPT_S = 86_400


def _digest() -> str:
    found = hashlib.blake2b(digest_size=8)
    for package in _SOURCES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            source = path.read_bytes()
            if b"topics.kernels import" in source or path.name in ("columns.py", "reasons.py", "kernels.py"):
                found.update(source)
    return found.hexdigest()


def _cache_directory() -> str:
    """Give the directory for these very sources, beside them, or in the temporary directory if that is not writable."""
    digest = _digest()
    kept = Path(__file__).with_name("__pycache__") / "kernels"
    try:
        (kept / digest).mkdir(parents=True, exist_ok=True)
    except OSError:
        return str(Path(tempfile.gettempdir()) / f"nearshelf-kernels-{digest}")
    (kept / digest).touch()
    for other in kept.iterdir():
        if time.time() - other.stat().st_mtime > _KEPT_S:
            shutil.rmtree(other, ignore_errors=True)
    return str(kept / digest)


numba.config.CACHE_DIR = _cache_directory()

# Arrays come in and are never made: without reference counting, which saves a third of the compilation and some of the run.
kernel = numba.njit(cache=True, nogil=True, _nrt=False)
allocating_kernel = numba.njit(cache=True, nogil=True, _nrt=True)
# Put into its callers before they are compiled: a step between two large kernels would compile the lower one once more.
inlined = numba.njit(cache=True, nogil=True, inline="always")
