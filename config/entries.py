"""Reads YAML files that people write: entries, each with its line, held to a model; all faults at once.

Owner: the network file (network.py); policies and rules are to be read here too.
Invariants: what is returned is whole. A file with faults is refused with all of them, each with file, line, field, what is
expected and what was found. Unknown and repeated fields are faults: in a file written by hand they are mistakes.
Not here: settings and their presets, which have no entries (settings.py).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from topics.errors import WrongUse
from topics.events import Record, refusal

SHOWN_FAULTS = 20

Entry = TypeVar("Entry", bound=Record)


class EntriesError(WrongUse):
    """A file cannot be read or has faults; the message names each, with its line."""


class EntriesFile:
    """A YAML file of `version` and lists of entries.

    Parameters
    ----------
    path : Path
        The file.
    version : int
        What `version` must be.
    sections : sequence of str
        Names of the lists; each must be there and not empty, and nothing else may be.

    Raises
    ------
    EntriesError
        The file is missing, is no YAML, or has not these sections.
    """

    def __init__(self, path: Path, version: int, sections: Sequence[str]):
        self._path = path
        self._faults: list[tuple[int, str]] = []
        try:
            loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
            root = loader.get_single_node()
            content = loader.construct_document(root) if root else None
        except OSError as error:
            raise EntriesError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise EntriesError(f"{path}: expected UTF-8 text, found other bytes") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{path}:{mark.line + 1}" if mark else path
            raise EntriesError(f"{where}: expected YAML, found {getattr(error, 'problem', error)}") from None
        expected = ["version", *sections]
        if root is None or not isinstance(content, dict) or sorted(map(str, content)) != sorted(expected):
            found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
            raise EntriesError(f"{path}:1: expected {', '.join(expected)}, found {found}")
        self._content, self._nodes = content, {key.value: value for key, value in root.value}
        if content["version"] != version:
            self.fault(_line(self._nodes["version"]), f"version: expected {version}, found {content['version']!r}")

    def entries(self, section: str, model: type[Entry]) -> list[tuple[Entry, int]]:
        """Read a section's entries, each with its line; what is wrong with others is kept for `check`."""
        what, content, node = section.removesuffix("s"), self._content[section], self._nodes[section]
        if not isinstance(content, list) or not content:
            self.fault(_line(node), f"{section}: expected a list of entries, found {content!r}")
            return []
        entries, ids = [], []
        for value, part in zip(content, node.value, strict=True):
            name = f"{what} {value.get('id')}" if isinstance(value, dict) else what
            if fault := _field_fault(part, model):
                self.fault(_line(part), f"{name}: {fault}")
                continue
            try:
                entries.append((model.model_validate(value), _line(part)))
                ids.append(value["id"])
            except ValidationError as error:
                self.fault(_line(part), f"{name}: {refusal(error).detail}{_quoting(error, part)}")
        counts = Counter(ids)
        for own, (_, line) in zip(ids, entries, strict=True):
            if counts[own] > 1:
                self.fault(line, f"{what} {own}: id: expected to be unique, found {counts[own]} times")
        return entries

    def fault(self, line: int, text: str) -> None:
        """Keep a fault for `check`."""
        self._faults.append((line, text))

    def check(self) -> None:
        """Raise `EntriesError` with all faults in the file's order, if there are any."""
        if self._faults:
            more = [f"... and {len(self._faults) - SHOWN_FAULTS} more"] if len(self._faults) > SHOWN_FAULTS else []
            shown = [f"{self._path}:{line}: {fault}" for line, fault in sorted(self._faults)[:SHOWN_FAULTS]]
            raise EntriesError("\n".join(shown + more))


def _field_fault(node: yaml.Node, model: type[Record]) -> str:
    """Say which field of an entry is unknown or repeated, if any is."""
    counts = Counter(str(key.value) for key, _ in node.value) if isinstance(node, yaml.MappingNode) else Counter()
    unknown = [name for name in counts if name not in model.model_fields]
    if unknown:
        return f"expected the fields {', '.join(model.model_fields)}, found {unknown[0]}"
    return next((f"{name}: expected once, found {count} times" for name, count in counts.items() if count > 1), "")


def _quoting(error: ValidationError, node: yaml.MappingNode) -> str:
    """Say how to write a text that YAML reads as a number, a date, true or false, if that is the first fault."""
    first = error.errors(include_url=False)[0]
    written = next((value for key, value in node.value if (key.value,) == first["loc"]), None)
    if first["type"] != "string_type" or not isinstance(written, yaml.ScalarNode) or first["input"] is None:
        return ""
    return f'; YAML reads {written.value} as that: write "{written.value}", in quotes'


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
