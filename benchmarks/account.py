"""What rounds of a process took, as figures: events a second, CPU, and where a worker's time went by its own account.

Owner: the benchmarks whose rounds cluster.py times; latency.py takes the stages. Not here: how a round is timed (cluster.py).
"""

from collections.abc import Iterator
from statistics import median
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from benchmarks.cluster import Round

COMMIT_STAGES = ("offsets", "turn", "produce", "flush", "order", "commit")
"""Stages of the commit thread; the others are the flow thread's."""


def figures(rounds: list[Round]) -> dict[str, Any]:
    """Medians over rounds, and the rounds."""
    return {
        "events": rounds[0].events,
        "events_per_s": median(each.events / each.seconds for each in rounds),
        "process_cpu_s_per_million": median(each.process_cpu_s / each.events * 1e6 for each in rounds),
        "broker_cpu_s_per_million": median(each.broker_cpu_s / each.events * 1e6 for each in rounds),
        "busy": median(each.busy for each in rounds),
        "rounds": [vars(each) for each in rounds],
    }


def cells(found: dict[str, Any]) -> list[str]:
    """Lay out what `figures` gave: events/s, CPU-s/M of process and of broker, cores busy."""
    return [
        f"{found['events_per_s']:,.0f}",
        f"{found['process_cpu_s_per_million']:.1f}",
        f"{found['broker_cpu_s_per_million']:.1f}",
        f"{found['busy']:.0%}",
    ]


def spread(found: dict[str, Any]) -> str:
    """Lay out the events/s of the slowest and of the fastest of `figures`' rounds."""
    rates = [each["events"] / each["seconds"] for each in found["rounds"]]
    return f"{min(rates):,.0f} - {max(rates):,.0f}"


def stages(text: str) -> dict[str, float]:
    """Seconds per stage of a worker's inventory, and its batches (`count`) and their events (`sum`), since its start.

    Parameters
    ----------
    text : str
        The worker's metrics, as Prometheus reads them.
    """
    found: dict[str, float] = {}
    for sample in _samples(text):
        if sample.name == "nearshelf_stage_seconds_sum":
            found[sample.labels["stage"]] = sample.value
        elif sample.name in ("nearshelf_batch_events_sum", "nearshelf_batch_events_count"):
            found[sample.name.rpartition("_")[2]] = sample.value
    return found


def owned(text: str) -> int:
    """Partitions of the inventory topics that a worker owns, by its metrics."""
    return next((int(sample.value) for sample in _samples(text) if sample.name == "nearshelf_owned_partitions"), 0)


def _samples(text: str) -> Iterator[Sample]:
    """Those of a worker's metrics that are its inventory's."""
    found = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return (sample for sample in found if sample.labels.get("group") == "inventory")


def shares(before: dict[str, float], after: dict[str, float], rounds: list[Round]) -> dict[str, Any]:
    """Each stage's share of the rounds' time, by the thread it is in, from the `stages` before and after them."""
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    events, batches = spent.pop("sum"), spent.pop("count")
    seconds = sum(each.seconds for each in rounds)
    return {
        "flow thread": {name: spent[name] / seconds for name in spent if name not in COMMIT_STAGES},
        "commit thread": {name: spent[name] / seconds for name in COMMIT_STAGES},
        "events_a_batch": events / batches,
        "commit_ms": sum(spent[name] for name in COMMIT_STAGES) / batches * 1000,
    }


def stage_lines(found: dict[str, Any]) -> list[str]:
    """Put what `shares` gave into words."""
    return [
        *(
            f"  {thread}: {sum(found[thread].values()):.0%} = "
            + ", ".join(f"{stage} {share:.0%}" for stage, share in found[thread].items())
            for thread in ("flow thread", "commit thread")
        ),
        f"  a batch: {found['events_a_batch']:,.0f} events, {found['commit_ms']:.1f} ms to commit",
    ]
