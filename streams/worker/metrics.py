"""The metrics of a worker, for Prometheus, on a port of their own.

Histograms take a whole batch's values as an array: one call, whatever the batch's size.
Owner: one `Metrics` per worker, with a registry of its own, so that several workers may live in one process (tests).
Names say the unit. Not here: who measures (flow.py), dashboards (config/).
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

SECONDS = np.array(
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
)  # fmt: skip
EVENTS = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000])


class Histogram:
    """A Prometheus histogram that is observed an array at a time; any thread may call it.

    Parameters
    ----------
    name, documentation : str
    labels : tuple of str
    bounds : float64[n]
        Upper bounds of the buckets, ascending, inclusive; one without bound is added.
    """

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...], bounds: np.ndarray):
        self._name, self._documentation, self._labels, self._bounds = name, documentation, labels, bounds
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, ...], np.ndarray] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, values: np.ndarray | float, *labels: str) -> None:
        """Count values into the buckets of one set of labels."""
        values = np.atleast_1d(np.asarray(values, np.float64))
        counts = np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._bounds) + 1)
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + counts
            self._sums[labels] = self._sums.get(labels, 0.0) + float(values.sum())

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        with self._lock:
            for labels, counts in self._counts.items():
                buckets = [(bound, int(count)) for bound, count in zip(bounds, np.cumsum(counts), strict=True)]
                family.add_metric(labels, buckets, self._sums[labels])
        yield family


class _Scraped:
    """Gauges whose values are computed at each scrape."""

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...]):
        self._family = (name, documentation, labels)
        self.ask: Callable[[], Iterable[tuple[tuple[str, ...], float]]] = tuple

    def collect(self) -> Iterator[Metric]:
        name, documentation, labels = self._family
        family = GaugeMetricFamily(name, documentation, labels=labels)
        for values, number in self.ask():
            family.add_metric(values, number)
        yield family


class Metrics:
    """All metrics of a worker. `lag` and `backlog` are computed at each scrape: set their `ask`."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.events = Counter(
            "nearshelf_events", "Input events by what became of them", ["topic", "outcome"], registry=registry
        )
        self.left_out = Counter(
            "nearshelf_fields_left_out",
            "Fields that only describe an event, were wrong, and were left out",
            ["topic", "field"],
            registry=registry,
        )
        self.transactions = Counter(
            "nearshelf_transactions",
            "Transactions by how they ended: committed, fenced, doubtful or refused",
            ["group", "result"],
            registry=registry,
        )
        self.rebuilds = Counter(
            "nearshelf_rebuilds", "States restored from the changelog, by what made it necessary", ["group", "cause"],
            registry=registry,
        )  # fmt: skip
        self.ticks = Counter("nearshelf_ticks_written", "Ticks appended to the log", registry=registry)
        self.owned = Gauge("nearshelf_owned_partitions", "Input partitions this worker owns", ["group"], registry=registry)
        self.batch = Histogram("nearshelf_batch_events", "Events in a batch", ("group",), EVENTS)
        self.stage = Histogram("nearshelf_stage_seconds", "Time of one stage of one batch", ("group", "stage"), SECONDS)
        self.commit = Histogram("nearshelf_commit_seconds", "Time of one transaction", ("group",), SECONDS)
        self.latency = Histogram(
            "nearshelf_event_to_commit_seconds",
            "From an event's timestamp in the log to its commit",
            ("group",),
            SECONDS,
        )
        self.rebuild = Histogram("nearshelf_rebuild_seconds", "Time to restore a partition's state", ("group",), SECONDS)
        self.lag = _Scraped("nearshelf_lag_events", "Offsets between the end of an input and what is committed",
                            ("topic", "partition"))  # fmt: skip
        self.backlog = _Scraped("nearshelf_backlog_events", "Events fetched and not yet processed", ("group", "partition"))
        for collector in (self.batch, self.stage, self.commit, self.latency, self.rebuild, self.lag, self.backlog):
            registry.register(collector)

    def serve(self, port: int) -> tuple[int, Callable[[], Any]]:
        """Serve the metrics over HTTP; give the port (0: any free one was chosen) and a function that stops it."""
        server, thread = start_http_server(port, registry=self.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return server.server_port, stop
