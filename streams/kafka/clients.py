"""What all of the worker's librdkafka clients have in common.

Not here: Faust's own client, which is aiokafka's (transport.py).
"""

from typing import Any


def client_config(settings: Any, **own: Any) -> dict[str, Any]:
    """Give a client's configuration; `own` names more settings, `_` for each `.`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> client_config(SimpleNamespace(bootstrap_servers="a:9092"), linger_ms=5)["linger.ms"]
    5
    """
    common = {
        "bootstrap.servers": settings.bootstrap_servers,
        # By default a broker that is back after an outage is tried again after up to 10 s.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
        # Lost connections are reported by those who wait for them: once, and by what it means.
        "log_level": 2,
    }
    return common | {name.replace("_", "."): value for name, value in own.items()}


def reading_config(settings: Any, group: str, **own: Any) -> dict[str, Any]:
    """Give the configuration of a consumer that reads committed records and commits no offsets."""
    return client_config(settings, group_id=group, enable_auto_commit=False, isolation_level="read_committed", **own)
