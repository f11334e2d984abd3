"""`kernel`: how every numba function of nearshelf is compiled. Without the GIL, and kept on disk.

numba keeps a compiled function for as long as its own file is unchanged, even when a function it calls, in another file, has
changed: an upgrade could leave old code running inside new. So kernels are kept under a digest of all sources that they may
call: those of their own package and of the packages below it (topics ← state ← streams). What was kept for a digest that
nobody used for a day is deleted.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numba

_ROOT = Path(__file__).resolve().parent.parent
_KEPT_S = 86_400
_SCHEMA = ("bundle.py", "columns.py", "reasons.py", "kernels.py", "events.py", "fields.py")  # frozen into kernels
# What a package's kernels may call: `topics` above this file is schema, the codec below is its own.
_SOURCES = {
    "topics": ["topics/*.py", "topics/codec/*.py"],
    "state": ["topics/bundle.py", "topics/columns.py", "topics/reasons.py", "topics/kernels.py", "state/*.py"],
}
_SOURCES["streams"] = [*_SOURCES["state"], "streams/engine/*.py", "streams/routing/*.py"]


@cache
def _cache_directory(package: str) -> str:
    """Give the directory for a package's very sources, beside them, or in the temporary directory if that is not writable."""
    found = hashlib.blake2b(digest_size=8)
    for pattern in _SOURCES.get(package, [f"{package}/**/*.py"]):
        for path in sorted(_ROOT.glob(pattern)):
            source = path.read_bytes()
            if b"topics.kernels import" in source or path.name in _SCHEMA:
                found.update(source)
    kept = Path(__file__).with_name("__pycache__") / "kernels" / package
    own = kept / found.hexdigest()
    try:
        own.mkdir(parents=True, exist_ok=True)
        own.touch()
        for other in kept.iterdir():
            if time.time() - other.stat().st_mtime > _KEPT_S:
                shutil.rmtree(other, ignore_errors=True)
    except OSError:
        return str(Path(tempfile.gettempdir()) / f"nearshelf-kernels-{package}-{own.name}")
    return str(own)


def _decorator(**options: object) -> Callable:
    def decorate(function: Callable) -> Callable:
        numba.config.CACHE_DIR = _cache_directory(function.__module__.split(".")[0])
        return numba.njit(cache=True, nogil=True, **options)(function)

    return decorate


# Arrays come in and are never made: without reference counting, which saves a third of the compilation and some of the run.
kernel = _decorator(_nrt=False)
allocating_kernel = _decorator(_nrt=True)
# Put into its callers by LLVM, for what runs once a key or value: left to itself it passes some twenty words of array headers
# a call, and the scanner is 30 % slower.
forced_inline = _decorator(_nrt=False, forceinline=True)
