"""Where the worker's parts are joined: Faust, which hosts them, and the flows of the partitions it is given.

Faust is the member of the consumer group: its agents, one a group, name the topics, and it says which partitions are ours and
when that changes. It fetches nothing (streams/kafka/fetching.py), commits nothing, keeps no tables and sends nothing: that is
the flows' work (flows.py).
Not here: the flows (flows.py), settings (config/), the command line (cli/).
"""

import ctypes
import gc
import logging
from collections.abc import Sequence
from typing import Any

import faust
from faust.app.base import BootStrategy

from config.network import load_network
from config.settings import Settings
from streams.kafka.names import on_cluster
from streams.worker.flows import Flows
from streams.worker.groups import Group, all_groups
from topics.errors import NearshelfError

log = logging.getLogger("nearshelf.worker")

# Time between two fetches after which aiokafka leaves the group: a long restoration is no reason to.
MAX_POLL_INTERVAL_S = 86_400.0
# New objects, less those freed, between two searches for garbage in cycles, of which Faust leaves some per fetch.
GC_THRESHOLD = 20_000
# glibc's names and numbers, malloc.h; no freed block up to so many bytes goes back to the kernel (more is not allowed).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 32 << 20


class _Boot(BootStrategy):
    enable_kafka_producer = False


class WorkerApp(faust.App):
    """Faust's app with the worker's own settings and flows. Made by `build_app`."""

    BootStrategy = _Boot
    logger = logging.getLogger("faust.app")

    settings: Settings
    flows: Flows

    def _create_directories(self) -> None:
        """Nothing: Faust's directories are for tables."""


def build_app(settings: Settings, groups: Sequence[Group] | None = None) -> WorkerApp:
    """Join the worker's parts; `run_worker` prepares and starts them.

    Parameters
    ----------
    settings : Settings
    groups : sequence of Group, optional
        By default all that nearshelf has.

    Raises
    ------
    EntriesError
        The network file of the settings is missing or wrong.
    """
    network = load_network(settings.network).locations if settings.network else ()
    groups = all_groups(settings) if groups is None else groups
    session_s = settings.session_timeout_ms / 1000
    app = WorkerApp(
        settings.group_id,
        broker=[f"nearshelf://{server.strip()}" for server in settings.bootstrap_servers.split(",")],
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=1,  # with 0 the assignor no longer keeps a group's topics together
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=settings.fetch_bytes,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=settings.heartbeat_ms / 1000,
        broker_request_timeout=max(settings.request_timeout_ms / 1000, session_s + 1),
        broker_max_poll_interval=MAX_POLL_INTERVAL_S,
        broker_commit_interval=60.0,  # of Faust's own commits, of which there are none
    )
    app.settings = settings
    app.flows = Flows(app, groups, network)
    for group in groups:
        _add_agent(app, group)
    return app


def _add_agent(app: WorkerApp, group: Group) -> None:
    names = [on_cluster(app.settings, topic) for topic in group.topics]
    topic = app.topic(*names, key_type=bytes, value_type=bytes, value_serializer="raw", acks=False)

    @app.agent(topic, name=group.name, concurrency=1)
    async def subscribe(stream: Any) -> None:
        """Make the group's topics those of the membership; what is fetched goes to the flows past the stream (fetching.py)."""
        async for _ in stream:
            raise AssertionError("nothing is fetched by Faust")


def run_worker(settings: Settings, groups: Sequence[Group] | None = None) -> int:
    """Run a worker until it is told to stop (SIGINT, SIGTERM) or must not go on.

    Returns
    -------
    int
        0 after an orderly stop, 1 after an error, which the log names.

    Raises
    ------
    NewerLayout
        A later version wrote the changelog or the snapshot of a partition.
    EntriesError
        The network file of the settings is missing or wrong.
    BrokerUnreachable
        No broker answers, or the network can't be published.
    MissingTopics, CannotStart
        Topics are missing or don't fit, or the metrics' port is taken.
    OtherOwner
        The topics belong to workers of another `app_id`.
    """
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("aiokafka", "aiokafka.conn", "aiokafka.consumer.fetcher", "aiokafka.consumer.group_coordinator"):
        logging.getLogger(name).addFilter(_Seldom())
    app = build_app(settings, groups)
    try:
        app.flows.prepare()
        return _host(app)
    finally:
        app.flows.release()


def _keep_freed_memory() -> None:
    """Have the C library keep what is freed: a batch's buffers, given back and asked for again, were 5 % of the flow's time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


class _Seldom(logging.Filter):
    """Passes each message once in ten seconds: aiokafka logs sixty times a second that a broker is away."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        passes = record.created >= self._passed_at.get(str(record.msg), 0.0) + 10.0
        if passes:
            self._passed_at[str(record.msg)] = record.created
        return passes


def _host(app: WorkerApp) -> int:
    """Let Faust run the app until it stops."""
    # What is imported stays; searched at Python's own threshold of 700 objects, it took half of the fetching time.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    _keep_freed_memory()
    worker = faust.Worker(app, quiet=True, override_logging=False, redirect_stdouts=False)
    worker.spinner = None  # it writes to the terminal even when quiet
    try:
        worker.execute_from_commandline()
    except SystemExit as stopped:
        failure = app.flows.failure or (worker.crash_reason if stopped.code else None)
        if isinstance(failure, NearshelfError) and failure.exit_status is not None:
            raise failure from None  # the command line shows it, and ends with its status
        if failure is not None:
            log.critical("the worker stopped: %s", failure)
        return 1 if failure is not None or stopped.code else 0
