"""What came of a run, as a table, as Markdown and as JSON: fault × times × inside a commit window × violations × recovery.

Not here: how any of it was measured (round.py, watch.py).
"""

import json
import platform
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from config.broker import KAFKA_VERSION
from tests.chaos.faults import NAMES
from tests.chaos.round import AT_REST, Result

WHOLE = "all"


def rows(results: Iterable[Result]) -> list[dict]:
    """One row a fault, one for what was found at rest, one for all; a violation counts for the fault done last before it."""
    times: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    recoveries: dict[str, list[float]] = defaultdict(list)
    violations: Counter[str] = Counter()
    for result in results:
        for event in result.events:
            for name in (event.name, WHOLE):
                times[name] += 1
                inside[name] += event.inside
                if event.recovery.pools and event.recovery.seconds is not None:
                    recoveries[name].append(event.recovery.seconds)
        violations.update(result.blamed)
        violations[WHOLE] += len(result.violations)
    return [
        {
            "fault": name,
            "times": times[name],
            "inside_a_commit_window": inside[name],
            "violations": violations[name],
            "recovery_p50_s": round(statistics.median(recoveries[name]), 2) if recoveries[name] else None,
            "recovery_max_s": round(max(recoveries[name]), 2) if recoveries[name] else None,
        }
        for name in (*NAMES, AT_REST, WHOLE)
        if times[name] or violations[name]
    ]


def table(results: list[Result]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| fault | times | inside a commit window | violations | recovery p50, s | max, s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows(results):
        cells = ["-" if value is None else f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(directory: Path, results: list[Result], command: str) -> tuple[Path, Path]:
    """Write `chaos.json` and `chaos.md`."""
    found = {
        "command": command,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, Apache Kafka {KAFKA_VERSION}",
        "rounds": len(results),
        "seconds": round(sum(result.seconds for result in results)),
        "faults": sum(len(result.events) for result in results),
        "decisions": sum(result.decisions for result in results),
        "records_sent": sum(result.records for result in results),
        "digests_of_owners": sum(result.owners for result in results),
        "digests_of_snapshots": sum(result.snapshots for result in results),
        "violations": [f"round {result.number}: {what}" for result in results for what in result.violations],
        "notes": sorted({note for result in results for note in result.notes}),
        "rows": rows(results),
    }
    json_path, markdown_path = directory / "chaos.json", directory / "chaos.md"
    json_path.write_text(json.dumps(found, indent=1) + "\n")
    head = "\n".join(f"- {name}: {found[name]}" for name in list(found)[:9])
    said = "".join(f"\n- {one}" for one in (*found["violations"], *found["notes"]))
    markdown_path.write_text(f"# Chaos on a real Kafka\n\n{head}\n{said}\n\n{table(results)}\n")
    return json_path, markdown_path
