"""Every setting, with its unit, default and bounds. The only reader of the environment.

`load_settings()` is called where a command starts; what it returns is passed on and never changes.
Precedence: flags > environment (`NEARSHELF_<NAME>`) > preset (`presets/<name>.yaml`) > the defaults below.
Not here: the broker itself (broker.py), the network's locations (network.py).
"""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from platformdirs import user_data_path
from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config.broker import CACHE_DIRECTORY, MAVEN_CENTRAL, Broker
from topics.catalogue import CATALOGUE
from topics.errors import WrongUse

PREFIX = "NEARSHELF_"
PRESETS = Path(__file__).with_name("presets")
DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
CHECKOUT = Path(__file__).resolve().parents[1]
# Kafka's limit of a topic's name, 249, less the longest of the contract's.
PREFIX_LENGTH = 249 - max(map(len, CATALOGUE))
DATA_DIRECTORY = CHECKOUT / "var" if (CHECKOUT / "pyproject.toml").exists() else user_data_path("nearshelf")


class SettingsError(WrongUse):
    """A setting is unknown or has a wrong value; the message names it, what was found and what is expected."""


class Settings(BaseSettings):
    """All settings of one process; immutable."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    # Where things are
    bootstrap_servers: str = Field(
        "", description="Kafka, host:port,... Default: the local broker if it runs, else 127.0.0.1:9092"
    )
    preset: str | None = Field(None, description="Named set of settings in config/presets: latency, throughput")
    app_id: str = Field(
        "nearshelf",
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9._-]+$",
        description=(
            "Name of the shop or environment whose workers these are. The changelog keeps it: workers of another name refuse "
            "to start. Also the consumer group, or the part of its name behind topic_prefix"
        ),
    )
    topic_prefix: str = Field(
        "",
        max_length=PREFIX_LENGTH,
        pattern=r"^([A-Za-z0-9._-]*[._-])?$",  # without an end, al and locations.v1 would be another's allocations.v1
        description=(
            "Put before the name of every topic, shop1. say; ends with a dot, a hyphen or an underscore. Gives each shop or "
            "environment its own set of all topics on one cluster. The names inside records stay the contract's"
        ),
    )
    network: Path | None = Field(None, description="Network file (YAML): a worker publishes what locations.v1 lacks of it")
    data_directory: Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())] = Field(
        DATA_DIRECTORY,
        description=(
            "What is written while running, the local broker among it. Default: var in the checkout, wherever the command "
            "runs; without a checkout, nearshelf in the user's data directory"
        ),
    )
    metrics_port: int = Field(
        9464, ge=0, le=65535, description="Port of the Prometheus metrics; 0: any free one, named in the log"
    )

    # The local broker
    cache_directory: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        CACHE_DIRECTORY, description="Fetched jars of Apache Kafka, shared by all checkouts"
    )
    maven_url: str = Field(MAVEN_CENTRAL, description="Maven Central, or a mirror of it")
    broker_heap_mb: int = Field(1024, ge=256, description="Java heap of the local broker, MiB")

    # Topics; in force when they are created
    partitions: int = Field(
        4,
        ge=1,
        le=10_000,
        description=(
            "Partitions of each inventory topic. A pool lives in one of them, so more than there are pools gain nothing"
        ),
    )
    click_partitions: int = Field(4, ge=1, le=10_000, description="Partitions of clicks.v1, demand.v1 and clicks-changelog.v1")
    replication_factor: int = Field(-1, ge=-1, description="Copies of each partition; -1: the cluster's own default")
    input_retention_hours: int = Field(
        168, ge=1, description="How long inputs are kept, hours; an audit needs them from the first"
    )
    output_retention_hours: int = Field(720, ge=1, description="How long decisions, demand and dead letters are kept, hours")

    # A batch closes on whichever comes first
    batch_rows: int = Field(5_000, ge=1, le=1_000_000, description="Events in a batch, at most")
    batch_bytes: int = Field(
        4 << 20, ge=1_000, le=256 << 20, description="Bytes of event values in a batch, at most (one event always fits)"
    )
    batch_age_ms: int = Field(5, ge=0, le=10_000, description="How long a batch waits for more events, ms")
    backlog_rows: int = Field(
        50_000, ge=1, description="Events fetched and not yet processed, per partition; beyond it fetching pauses"
    )

    # Kafka clients
    fetch_wait_ms: int = Field(25, ge=1, le=10_000, description="How long the broker may hold an empty fetch, ms")
    fetch_pause_ms: float = Field(
        2,
        ge=0,
        le=1_000,
        description="Time between two fetches that bring something, at least, ms: each costs the worker a millisecond of CPU",
    )
    fetch_bytes: int = Field(8 << 20, ge=1 << 16, description="Bytes of one fetch, at most")
    fetch_queue_backoff_ms: int = Field(
        1, ge=0, le=1_000, description="librdkafka fetch.queue.backoff.ms: pause when its queue is full, ms"
    )
    linger_ms: float = Field(1, ge=0, le=1_000, description="librdkafka linger.ms: how long a message waits for company, ms")
    retry_backoff_ms: int = Field(
        1, ge=1, le=1_000, description="librdkafka retry.backoff.ms: pause before a request is repeated, ms"
    )
    transactions: Literal["auto", "librdkafka", "direct"] = Field(
        "auto",
        description=(
            "Who commits. direct: nearshelf's own client of the newer protocol of transactions (Kafka 4.0 and later, "
            "transaction.version 2), in fewer round trips; librdkafka: any broker; auto: direct where the broker can"
        ),
    )
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = Field("none", description="Compression of what is produced")
    request_timeout_ms: int = Field(
        10_000,
        ge=1_000,
        description="How long a produce, commit or fencing may take before the partition is rebuilt, ms",
    )
    transaction_timeout_ms: int = Field(
        30_000,
        ge=1_000,
        le=900_000,
        description=("After how long the broker aborts a dead worker's transaction, ms; readers of committed data wait for it"),
    )
    session_timeout_ms: int = Field(
        6_000,
        ge=1_000,
        description=(
            "After how long without a heartbeat a worker counts as dead, ms; by default brokers allow no less than 6000"
        ),
    )
    heartbeat_ms: int = Field(1_500, ge=100, description="Time between heartbeats, ms; at most a third of session_timeout_ms")

    # What a pool remembers
    dedupe_events: int = Field(4_000_000, ge=1, description="Event ids of a pool kept to find duplicates, at least")
    dedupe_hours: int = Field(24, ge=0, description="How long they are kept even when there are more, hours")
    count_horizon_hours: int = Field(
        48,
        ge=1,
        description="How long a cell's movements are kept for late counts, hours; older counts are dead letters",
    )
    closed_order_days: int = Field(30, ge=1, description="How long a finished order is kept for returns and repeats, days")

    # How much a pool keeps; an event beyond it is a dead letter
    max_skus: int = Field(5_000_000, ge=1, le=1 << 30, description="SKUs of a pool, at most")
    max_cells: int = Field(20_000_000, ge=1, le=1 << 30, description="Cells (SKU at location) of a pool, at most")
    max_order_lines: int = Field(
        10_000_000, ge=1, le=1 << 30, description="Lines of a pool's orders, open or not forgotten yet, at most"
    )
    max_supplies: int = Field(
        2_000_000, ge=1, le=1 << 30, description="Expected supplies and transfers under way of a pool, at most"
    )
    transfer_days: int = Field(
        14,
        ge=1,
        le=3_650,
        description="How long a transfer may take before it is overdue, and a settled one is remembered, days",
    )
    on_shortfall: Literal["reroute", "keep"] = Field(
        "reroute", description="What becomes of the newest promises that a cell can't cover: reroute, or keep"
    )
    max_demand_rows: int = Field(
        5_000_000, ge=1, le=1 << 30, description="Pools' SKUs clicked on within the window, per partition, at most"
    )

    # Restarts
    snapshot_interval_ms: int = Field(
        10_000,
        ge=0,
        le=3_600_000,
        description="Time between snapshots of the state in data_directory, ms; 0: none, a restart reads the whole changelog",
    )
    standby: bool = Field(
        False, description="Keep the state of partitions owned by other workers in memory, to take them over sooner"
    )

    # Time and locations
    tick_ms: int = Field(
        500, ge=50, le=1_000, description="Time between ticks of a quiet pool in which something waits on time, ms"
    )
    location_catchup_ms: int = Field(
        2_000,
        ge=0,
        le=60_000,
        description=("How long a batch that names an unknown location waits for locations.v1 to catch up, ms"),
    )

    clock_skew_ms: int = Field(
        300_000, ge=0, description="How far an event's own time may be ahead of its record's in the log, ms"
    )

    # Tests
    fail_at: str = Field(
        "", description="Kill this worker at a named point, for tests: `after_flush:3` = the third time it is passed"
    )

    digest_at_stop: bool = Field(
        False, description="Log a digest of each pool's state at an orderly stop, for tests; slow for a large state"
    )

    # Clicks
    demand_window_ms: int = Field(3_600_000, ge=1_000, description="Length of the sliding demand window, ms")
    demand_buckets: int = Field(
        60, ge=1, le=10_000, description="Steps in which the window slides; they divide demand_window_ms"
    )

    @property
    def group_id(self) -> str:
        """The workers' consumer group; no two pairs of prefix and app_id have the same, since neither holds a slash."""
        return f"{self.topic_prefix}/{self.app_id}" if self.topic_prefix else self.app_id

    @property
    def broker_directory(self) -> Path:
        """Where the local broker lives."""
        return self.data_directory / "broker"

    def local_broker(self) -> Broker:
        """The broker that `nearshelf broker` starts and stops."""
        return Broker(self.broker_directory, self.cache_directory, self.maven_url, self.broker_heap_mb)

    def model_post_init(self, context: Any) -> None:
        if not self.bootstrap_servers:
            found = self.local_broker().status().bootstrap_servers or DEFAULT_BOOTSTRAP
            object.__setattr__(self, "bootstrap_servers", found)
        if self.heartbeat_ms * 3 > self.session_timeout_ms:
            raise ValueError(
                f"heartbeat_ms must be at most a third of session_timeout_ms ({self.session_timeout_ms}), "
                f"was {self.heartbeat_ms}"
            )
        if self.demand_window_ms % self.demand_buckets:
            raise ValueError(
                f"demand_buckets must divide demand_window_ms ({self.demand_window_ms}), was {self.demand_buckets}"
            )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _PresetSource(settings_cls)


class _PresetSource(PydanticBaseSettingsSource):
    """The values of the preset that a flag or the environment names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        name = self.current_state.get("preset")
        if name is None:
            return {}
        known = sorted(path.stem for path in PRESETS.glob("*.yaml"))
        if name not in known:
            raise SettingsError(f"preset must be one of {', '.join(known)}; was {name!r}")
        return yaml.safe_load((PRESETS / f"{name}.yaml").read_text())


def load_settings(**flags: Any) -> Settings:
    """Read flags, environment and preset into one `Settings`.

    Parameters
    ----------
    **flags
        Settings by name, as given on the command line (text is converted); None counts as not given.

    Raises
    ------
    SettingsError
        An unknown name, a value of the wrong type or out of its bounds, an unknown preset.

    Examples
    --------
    >>> load_settings(bootstrap_servers="kafka:9092", preset="latency", batch_age_ms="3").batch_age_ms
    3
    """
    given = {name: value for name, value in flags.items() if value is not None}
    for name in given:
        _known(name, name)
    for variable in os.environ:
        if variable.startswith(PREFIX):
            _known(variable.removeprefix(PREFIX).lower(), variable)
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(part) for part in error.errors())) from None


def _known(name: str, shown: str) -> None:
    if name in Settings.model_fields:
        return
    near = difflib.get_close_matches(name, Settings.model_fields, n=1)
    guess = f" Did you mean {near[0] if shown == name else PREFIX + near[0].upper()}?" if near else ""
    raise SettingsError(f"{shown} is no setting.{guess} `nearshelf settings` lists them all.")


def _sentence(error: Any) -> str:
    if not error["loc"]:
        return error["msg"].removeprefix("Value error, ")
    name = error["loc"][0]
    return f"{name}: {error['msg']}; was {error['input']!r} (from the flag or {PREFIX}{str(name).upper()})"
