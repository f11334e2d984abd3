"""Whether a worker's answers are right, read from the topics when time no longer runs, and how that is said.

Owner: what several benchmarks check alike. Not here: what one alone claims.
"""

from collections import Counter
from collections.abc import Mapping

import orjson

from benchmarks.cluster import POOL, Bench
from benchmarks.harness import WrongAnswer
from streams.audit import Report, audit

LATER = "later, when stock came"
"""Said of a decision on an order that waited."""


def decisions(
    cluster: Bench, orders: int, pool: str = POOL, partition: int = 0, first_order: int = 0, waiting: bool = False
) -> tuple[Counter[str], list[str | None]]:
    """Check that each order of a pool was decided once, in the order in which they were placed, the sequence unbroken.

    Parameters
    ----------
    cluster : Bench
    orders : int
        How many the pool has, numbered from `first_order` on.
    pool, partition, first_order
    waiting : bool
        Whether stock comes after orders: one that waited may then be decided again, which the audit judges.

    Returns
    -------
    Counter of str
        Statuses of the decisions; `LATER` for those on orders that waited.
    list of str or None
        The location each order's first shipment is from.
    """
    statuses: Counter[str] = Counter()
    places: list[str | None] = []
    for number, message in enumerate(cluster.read("allocations.v1", partition=partition), 1):
        allocation = orjson.loads(message.value())
        later = waiting and allocation["source"]["topic"] != "orders.v1"
        order = allocation["order_id"] if later else f"o{first_order + len(places):09}"
        expected, found = (pool, number, order), tuple(allocation[name] for name in ("pool_id", "sequence", "order_id"))
        if found != expected:
            raise WrongAnswer(f"decision {number}: expected pool, sequence and order {expected}, found {found}")
        statuses[LATER if later else allocation["status"]] += 1
        if not later:
            places.append(next((shipment["location_id"] for shipment in allocation["shipments"]), None))
    if len(places) != orders:
        raise WrongAnswer(f"{len(places)} of {orders} orders of pool {pool} were decided")
    return statuses, places


def check_refused(cluster: Bench) -> None:
    """Check that no record became a dead letter."""
    partitions = max(cluster.settings.partitions, cluster.settings.click_partitions)
    if refused := sum(cluster.end("dead-letter.v1", partition) for partition in range(partitions)):
        raise WrongAnswer(f"the worker refused {refused} records; none is bad")


def check_clean(report: Report) -> Report:
    """Check that an audit found no fault."""
    if not report.clean:
        raise WrongAnswer(f"the audit found {report.fault_count} faults, the first: {report.faults[0]}")
    return report


def audited(cluster: Bench) -> Report:
    """Audit all that is at rest now; check that nothing is wrong, and that no record was refused."""
    check_refused(cluster)
    return check_clean(audit(cluster.settings, complete=True))


def counts(found: Mapping[str, int]) -> str:
    """Put counts by name into words."""
    return ", ".join(f"{name} {count:,}" for name, count in found.items())
