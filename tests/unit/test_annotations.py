"""Every function of the product that is no kernel says what it takes and gives: the type checker looks into no other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("topics", "state", "streams", "config", "benchmarks")
NUMBA = {
    "njit",
    "kernel",
    "allocating_kernel",
    "inner_kernel",
    "forced_inline",
    "intrinsic",
    "infer_getattr",
    "lower_getattr_generic",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _names(node: ast.AST) -> set[str]:
    """Name all that an expression names: `numba.njit(nogil=True)` → numba, njit."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return names | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def _is_numbas(function: Function) -> bool:
    return any(_names(decorator) & NUMBA for decorator in function.decorator_list)


def unannotated(source: str) -> list[str]:
    """Name the functions that lack an annotation; what stands inside a kernel is numba's business too."""
    found = []

    def look(node: ast.AST, method: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                if _is_numbas(child):
                    continue
                given = [*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs]
                given += [each for each in (child.args.vararg, child.args.kwarg) if each is not None]
                static = any(_names(decorator) == {"staticmethod"} for decorator in child.decorator_list)
                missing = [each.arg for each in given[int(method and not static) :] if each.annotation is None]
                if missing or (child.returns is None and child.name != "__init__"):
                    found.append(f"{child.name} (line {child.lineno}): {', '.join(missing) or 'what it gives'}")
            look(child, isinstance(child, ast.ClassDef) or (method and isinstance(child, ast.If)))

    look(ast.parse(source), False)
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_every_function_that_is_no_kernel_is_annotated(package):
    found = {str(path.relative_to(ROOT)): unannotated(path.read_text()) for path in sorted((ROOT / package).rglob("*.py"))}
    assert found, f"no sources of {package}"
    assert not {path: names for path, names in found.items() if names}


def test_a_function_without_annotations_is_found_and_a_kernel_is_not():
    assert unannotated("def f(a, b: int): ...") == ["f (line 1): a"]
    assert unannotated("def f(a: int): ...") == ["f (line 1): what it gives"]
    assert unannotated("class A:\n  def f(self, *, a): ...") == ["f (line 2): a"]
    assert unannotated("@kernel\ndef f(a):\n  return a") == []
