"""`kernel`: how every numba function of nearshelf is compiled. Without the GIL, and kept on disk.

numba keeps a compiled function for as long as its own file is unchanged. If a function that it calls, in another file, has
changed, numba would go on with old code. So each module's kernels are kept under a digest of the module's source and of all
sources of ours that it imports, whether directly or through others. What was kept under another digest is deleted a day after
its last use.
"""

import ast
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

_ROOT = Path(__file__).resolve().parents[2]
_KEPT_S = 86_400


@cache
def _imported(source: Path) -> frozenset[Path]:
    """Find the sources of ours that a source imports, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    paths = [_ROOT.joinpath(*name.split(".")) for name in names]
    return frozenset(each for path in paths for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file())


def sources_of(source: Path) -> list[Path]:
    """List a source and all of ours that it imports, directly or through others."""
    found, waiting = set(), [source]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += _imported(each)
    return sorted(found)


@cache
def _cache_directory(source: Path) -> str:
    """Give the directory for a module's kernels: beside this file, or in the temporary directory if that is not writable."""
    digest = hashlib.blake2b(digest_size=8)
    for each in sources_of(source):
        digest.update(each.read_bytes())
    name = ".".join(source.with_suffix("").parts[-3:])
    kept = Path(__file__).with_name("__pycache__") / "kernels" / name
    own = kept / digest.hexdigest()
    try:
        own.mkdir(parents=True, exist_ok=True)
        own.touch()
        for other in kept.iterdir():
            if time.time() - other.stat().st_mtime > _KEPT_S:
                shutil.rmtree(other, ignore_errors=True)
    except OSError:
        return str(Path(tempfile.gettempdir()) / f"nearshelf-kernels-{name}-{own.name}")
    return str(own)


def keep_with(function: Callable) -> None:
    """Have numba keep what it compiles next where this function's kernels are kept."""
    numba.config.CACHE_DIR = _cache_directory(Path(function.__code__.co_filename).resolve())


class _Unlinked(JITCodeLibrary):
    """A function's code that is only ever a part of its callers'. LLVM optimizes it, and makes machine code of it, there alone.

    numba would do both for each function, with all that it calls, at each level of a chain of calls: 40 % of the compilation.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        # numba writes the address of each function's environment to the function's symbol for it, which must be there.
        names = [each.name for each in self._final_module.global_variables if each.name.startswith("_ZN08NumbaEnv")]
        symbols = "".join(f'@"{name}" = common global i8* null\n' for name in names)
        self._codegen._add_module(llvm.parse_assembly(symbols))
        self._codegen._engine.finalize_object()
        self._finalized = True

    def serialize_using_object_code(self) -> Any:
        return self.serialize_using_bitcode()


class _InnerCompiler(Compiler):
    """numba's compiler, into `_Unlinked` code."""

    def __init__(self, typing: Any, target: Any, library: Any, arguments: Any, returned: Any, flags: Any, names: Any):
        super().__init__(typing, target, library, arguments, returned, flags, names)
        if library is None:
            self.state.library = _Unlinked(self.state.targetctx.codegen(), "inner")
            self.state.library.enable_object_caching()


def _decorator(**options: Any) -> Callable:
    def decorate(function: Callable) -> Callable:
        keep_with(function)
        return numba.njit(cache=True, nogil=True, **options)(function)

    return decorate


# Arrays come in and are never made: without reference counting, which saves a third of the compilation and some of the run.
kernel = _decorator(_nrt=False)
allocating_kernel = _decorator(_nrt=True)
# Called by other kernels only: without the wrappers by which Python could call them. Those unpack each array of the working
# memory and cost half of the compilation.
inner_kernel = _decorator(_nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=_InnerCompiler)
# Put into its callers by LLVM, for what runs once a key or value: left to itself it passes some twenty words of array headers
# a call, and the scanner is 30 % slower.
forced_inline = _decorator(_nrt=False, forceinline=True)
