"""Reads a network file: the pools and the locations of each, as `locations.v1` will carry them.

Owner: `nearshelf network check`, and whoever starts a worker or publishes with `--network`.
Invariants: a network that is returned is whole: every field valid, ids unique, every location's pool declared. A file with
faults is refused with all of them at once, each with its line. Unknown fields are faults here: in a file written by hand
they are misspelt ones.
Not here: publishing to `locations.v1` (streams), what the fields do (topics/events.py).
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from topics.events import Id, LocationRecord, Record, refusal

VERSION = 1
SHOWN_FAULTS = 20


Entry = TypeVar("Entry", bound=Record)


class NetworkError(Exception):
    """The network file cannot be read or has faults; the message names each, with its line."""


class _Pool(Record):
    id: Id


@dataclass(frozen=True, slots=True)
class Network:
    """All pools and locations of a file, in the file's order."""

    pools: tuple[str, ...]
    locations: tuple[LocationRecord, ...]


def load_network(path: Path) -> Network:
    """Read and check a network file.

    Parameters
    ----------
    path : Path
        A YAML file with `version`, `pools` and `locations`.

    Returns
    -------
    Network
        Locations with their defaults filled in.

    Raises
    ------
    NetworkError
        The file is missing, is no YAML, or has entries that are wrong: each with line, expected and found.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        content = loader.construct_document(root) if root else None
    except OSError as error:
        raise NetworkError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise NetworkError(f"{path}: expected UTF-8 text, found other bytes") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise NetworkError(f"{where}: expected YAML, found {getattr(error, 'problem', error)}") from None
    faults: list[tuple[int, str]] = []
    network = _network(content, root, faults)
    if faults:
        more = [f"... and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
        raise NetworkError("\n".join([f"{path}:{line}: {fault}" for line, fault in sorted(faults)[:SHOWN_FAULTS]] + more))
    return network


def _network(content: Any, root: yaml.Node | None, faults: list[tuple[int, str]]) -> Network:
    fields = {"version", "pools", "locations"}
    if not isinstance(content, dict) or content.keys() != fields:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        faults.append((1, f"expected version, pools and locations, found {found}"))
        return Network((), ())
    sections = {key.value: value for key, value in root.value}
    if content["version"] != VERSION:
        fault = f"version: expected {VERSION}, found {content['version']!r}"
        faults.append((_line(sections["version"]), fault))
    pools = [pool.id for pool, _ in _entries("pool", content["pools"], sections["pools"], _Pool, faults)]
    places = _entries("location", content["locations"], sections["locations"], LocationRecord, faults)
    faults += [
        (line, f"location {place.id}: pool: expected one of {', '.join(pools)} (declared under pools), found {place.pool}")
        for place, line in places
        if place.pool not in pools
    ]
    return Network(tuple(pools), tuple(location for location, _ in places))


def _entries(
    what: str, content: Any, node: yaml.Node, model: type[Entry], faults: list[tuple[int, str]]
) -> list[tuple[Entry, int]]:
    """Read a section's entries, each with its line."""
    if not isinstance(content, list) or not content:
        faults.append((_line(node), f"{what}s: expected a list of entries, found {content!r}"))
        return []
    entries = []
    for value, line in zip(content, map(_line, node.value), strict=True):
        name = f"{what} {value.get('id')}" if isinstance(value, dict) else what
        unknown = [str(key) for key in value if key not in model.model_fields] if isinstance(value, dict) else []
        if unknown:
            faults.append((line, f"{name}: expected the fields {', '.join(model.model_fields)}, found {unknown[0]}"))
            continue
        try:
            entries.append((model.model_validate(value), line))
        except ValidationError as error:
            faults.append((line, f"{name}: {refusal(error).detail}"))
    counts = Counter(entry.id for entry, _ in entries)
    faults += [
        (line, f"{what} {entry.id}: id: expected to be unique, found {counts[entry.id]} times")
        for entry, line in entries
        if counts[entry.id] > 1
    ]
    return entries


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
