"""An audit's own state in a file, from which a later one goes on: exact, though the inputs before it are deleted by then.

The file has all that the replays hold, as Python pickles it, where each reads on, and what was found so far. The log and the
report are not in it: those of the audit that goes on stand in their places.
Invariants: only the same code, with the same limits, goes on from it; a changelog whose last batch judged has another link by
now is a fault; a checkpoint is used whole or not at all.
Owner: the audit. A pickle can run anything, so only a file that nobody else can write is read.
"""

import os
import pickle
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from streams.audit.auditor import Auditor
from streams.audit.log import Log
from streams.audit.memory import Limits
from streams.audit.report import Report
from topics.errors import NearshelfError

FORM = "nearshelf audit checkpoint 1"
_PASSED_ON = ("told", "acknowledgements", "acknowledged", "acknowledged_count", "faults", "fault_count", "open_transactions")
"""Of a report: what is not simply taken from the file."""


class CheckpointUnusable(NearshelfError):
    """An audit can't go on from a file; the message says why."""


class _Pickler(pickle.Pickler):
    """Writes a name in the place of what is shared."""

    def __init__(self, file: Any, shared: Mapping[int, str]):
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._shared = shared

    def persistent_id(self, thing: Any) -> str | None:
        return self._shared.get(id(thing))


class _Unpickler(pickle.Unpickler):
    """Puts what is shared in the place of its name."""

    def __init__(self, file: Any, shared: Mapping[str, Any]):
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, name: str) -> Any:
        return self._shared[name]


def save(path: Path, auditor: Auditor, limits: Limits) -> None:
    """Write an audit's state; the file is there whole, or as it was before. Before `Auditor.finish`, which consumes.

    Raises
    ------
    OSError
        It can't be written.
    """
    new = path.with_name(path.name + ".new")
    report = auditor.report
    kept = {each.name: getattr(report, each.name) for each in fields(report) if each.name not in _PASSED_ON}
    found = [*report.faults, *(each.fault for each in report.acknowledged)]
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        pickle.dump((FORM, code(), limits), file)
        pickler = _Pickler(file, {id(auditor.log): "log", id(report): "report"})
        pickler.dump((kept, found, report.fault_count + report.acknowledged_count - len(found), auditor))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def resume(path: Path, log: Log, limits: Limits, report: Report) -> Auditor | None:
    """Go on from a file with this log, and note in the report what was found before; None = there is no file.

    Raises
    ------
    CheckpointUnusable
        It is of other code or limits, damaged, or what comes behind it is deleted already.
    """
    if not path.exists():
        return None
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise CheckpointUnusable(f"expected {path} to be a file that only you can write, found mode {status.st_mode:o}")
    try:
        with path.open("rb") as file:
            form, written_by, written_limits = pickle.load(file)
            if (form, written_by) != (FORM, code()):
                raise CheckpointUnusable(f"{path} was written by another version of the audit")
            if written_limits != limits:
                raise CheckpointUnusable(f"{path} was written with other settings: expected {limits}, found {written_limits}")
            kept, found, uncounted, auditor = _Unpickler(file, {"log": log, "report": report}).load()
    except CheckpointUnusable:
        raise
    except Exception as error:  # what a damaged pickle raises is anything
        raise CheckpointUnusable(f"{path} can't be read: {type(error).__name__}: {error}") from None
    if log.short:
        raise CheckpointUnusable(f"what comes behind {path} is deleted already: {', '.join(sorted(log.short))}")
    for name, value in kept.items():
        setattr(report, name, value)
    for fault in found:
        report.fault(fault.kind, fault.topic, fault.partition, fault.offset, fault.expected, fault.found, fault.ends)
    report.fault_count += uncounted
    for replay in auditor.replays:
        replay.check_link()
    return auditor


@cache
def code() -> str:
    """Name the audit's code and the contract's: a hash of their sources."""
    told = sha256()
    for package in (Path(__file__).parent, Path(__file__).parents[2] / "topics"):
        for path in sorted(package.glob("*.py")):
            told.update(path.name.encode() + b"\0" + path.read_bytes())
    return told.hexdigest()
