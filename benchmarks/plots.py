"""Pictures of what benchmarks found: `python -m benchmarks.plots RESULT.json OUT.png`.

RESULT is what `--json` printed or `--out` wrote. One function per benchmark that has a picture; each takes its
result and a matplotlib figure, and draws on it.
Not here: any figure that the result does not hold.
"""

import argparse
import json
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

INCHES, DOTS_PER_INCH = (8.5, 4.5), 90
COLORS = 64  # of the file: half the bytes, and nobody sees it
KINDS = {"sale": "sales", "order": "orders"}
DASHES = ("-", "--", ":", "-.")


def plot_soak(result: dict[str, Any], figure: Any) -> None:
    """Memory and snapshots above, p50 and p99 below, over time."""
    memory, latency = figure.subplots(2, 1, sharex=True)
    minutes = [sample["at_s"] / 60 for sample in result["samples"]]
    for name, label in (("rss_mb", "worker's memory"), ("snapshot_mb", "its snapshots")):
        memory.plot(minutes, [sample[name] for sample in result["samples"]], label=label)
    memory.set(ylabel="MB", ylim=(0, None), title=f"{result['rate']:,.0f} events/s over {result['seconds'] / 60:g} min")
    for color, (kind, slices) in enumerate(result["latency"].items()):
        middles = [(number + 0.5) * result["slice_s"] / 60 for number in range(len(slices))]
        for at, (name, dash) in enumerate((("p50", "--"), ("p99", "-"))):
            values = [each[at] for each in slices]
            latency.plot(middles, values, dash, color=f"C{color}", label=f"{name}, {KINDS[kind]}")
    latency.set(xlabel="minutes", ylabel="ms", yscale="log")
    for axes in (memory, latency):
        axes.axvline(result["settle_s"] / 60, color="grey", linewidth=0.8)
        _finish(axes)


def plot_latency(result: dict[str, Any], figure: Any) -> None:
    """p50 and p99 against the rate, both on log axes; a rate beyond saturation is left out."""
    axes = figure.subplots()
    rows = [row for row in result["rows"] if not row["saturated"]]
    whos = list(dict.fromkeys(row["who"] for row in rows))
    for color, (who, kind) in enumerate((who, kind) for who in whos for kind in KINDS):
        found = [row for row in rows if row["who"] == who and row.get(kind)]
        for at, name, dash in ((0, "p50", "--"), (2, "p99", "-")) if found else ():
            values = [row[kind][at] for row in found]
            axes.plot(
                [row["rate"] for row in found], values, f"o{dash}", color=f"C{color}", label=f"{who}: {name}, {KINDS[kind]}"
            )
    rates = sorted({row["rate"] for row in rows})
    _finish_logarithmic(axes, rates, xlabel="events/s", ylabel="ms from the planned send")


def plot_kernel(result: dict[str, Any], figure: Any) -> None:
    """Time an order against the locations, a line per number of order lines, solid where all locations stock every SKU."""
    axes = figure.subplots()
    cases = result["cases"]
    densities = sorted({case["density"] for case in cases}, reverse=True)
    for color, count in enumerate(sorted({case["lines"] for case in cases})):
        for density, dash in zip(densities, DASHES, strict=False):
            found = [case for case in cases if (case["lines"], case["density"]) == (count, density)]
            label = f"{count} line{'s' if count > 1 else ''}, stocked at {density:.0%}"
            micros = [1e6 / case["kernel_per_s"] for case in found]
            axes.plot([case["locations"] for case in found], micros, f"o{dash}", color=f"C{color}", label=label)
    places = sorted({case["locations"] for case in cases})
    _finish_logarithmic(axes, places, xlabel="locations", ylabel="µs an order")


def _finish_logarithmic(axes: Any, ticks: list[int], **labels: str) -> None:
    axes.set(**labels, xscale="log", yscale="log")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    _finish(axes)


def _finish(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))


PLOTS: dict[str, Callable[[dict[str, Any], Any], None]] = {"soak": plot_soak, "latency": plot_latency, "kernel": plot_kernel}
"""Benchmark's module → what draws its result."""


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw a benchmark's result into a PNG.

    Raises
    ------
    ValueError
        There is no picture of that benchmark.
    """
    name = result["command"].split()[2].rpartition(".")[2]
    if name not in PLOTS:
        raise ValueError(f"expected the result of {', '.join(PLOTS)}, found that of {name}")
    from matplotlib.figure import Figure  # only here: benchmarks run without them
    from PIL import Image

    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    PLOTS[name](result, figure)
    drawn = BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Draw as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    try:
        plot(json.loads(given.result.read_text()), given.out)
    except ValueError as wrong:
        sys.exit(str(wrong))


if __name__ == "__main__":
    main()
