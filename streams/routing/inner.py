"""`inner_kernel`: how functions are compiled that only other routing kernels call.

They lack the wrappers by which Python could call them, which unpack each array of the working memory and cost half of the
compilation. They are kept under a digest of what they are made from, this package and the schema, so that a change of the
engine leaves them as they are.
"""

import hashlib
from functools import cache
from pathlib import Path

import numba

from topics.kernels import kernel

_HERE = Path(__file__).resolve().parent
_SCHEMA = ("state/columns.py", "state/tables.py", "topics/bundle.py", "topics/reasons.py", "topics/kernels.py")


@cache
def _cache_directory():
    """The directory of these sources, a sibling of those in which `kernel` keeps this package's others."""
    found = hashlib.blake2b(digest_size=8)
    for path in [*sorted(_HERE.glob("*.py")), *(_HERE.parents[1] / name for name in _SCHEMA)]:
        found.update(path.read_bytes())
    kernel(lambda: None)  # sets numba's directory
    own = Path(numba.config.CACHE_DIR).with_name(f"routing-{found.hexdigest()}")
    own.mkdir(parents=True, exist_ok=True)
    own.touch()
    return str(own)


def keep_here():
    """Make numba keep what it compiles next in this package's directory."""
    numba.config.CACHE_DIR = _cache_directory()


def inner_kernel(function):
    """Compile a function for other kernels: without the GIL, without reference counting, without wrappers for Python."""
    keep_here()
    return numba.njit(cache=True, nogil=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
