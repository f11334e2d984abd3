"""The tree of exceptions, as it is drawn in topics/errors.py, against the classes of the product."""

import ast
import builtins
import re
from pathlib import Path

from topics import errors

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("topics", "state", "streams", "config", "benchmarks")


def classes():
    """Every exception class of ours, as its source has it: (name, names of its bases)."""
    found = []
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found.append((node.name, [ast.unparse(base).split(".")[-1] for base in node.bases]))
    known = {name for name, each in vars(builtins).items() if isinstance(each, type) and issubclass(each, BaseException)}
    known |= {"KafkaException", "BadParameter"}
    while more := [name for name, bases in found if name not in known and known & set(bases)]:
        known.update(more)
    return [(name, bases) for name, bases in found if name in known]


def drawing():
    """Name → the name above it, as drawn."""
    found, path = {}, []
    for line in errors.__doc__.splitlines():
        match = re.match(r"^((?:[│ ]   )*)[├└]── (\w+)|^(NearshelfError)$", line)
        if match:
            depth = 0 if match[3] else len(match[1]) // 4 + 1
            path[depth:] = [match[3] or match[2]]
            found[path[-1]] = path[-2] if depth else None
    return found


def test_every_exception_of_ours_is_drawn_below_its_base_and_nothing_else_is():
    found = classes()
    assert len(found) == len(dict(found)), "two exceptions have one name"
    drawn = {name: [base or "Exception"] for name, base in drawing().items()}
    assert dict(found) == drawn


def test_a_branch_says_with_which_status_a_command_ends():
    branches = [name for name, base in drawing().items() if base == "NearshelfError"]
    statuses = {name: getattr(errors, name).exit_status for name in branches if hasattr(errors, name)}
    assert {name: status for name, status in statuses.items() if status} == {"AnswerIsNo": 1, "WrongUse": 2, "NoBroker": 3}
