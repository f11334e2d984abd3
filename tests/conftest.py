"""What tests share: one real Kafka a session, and a fresh set of topics for each test that asks for one.

Isolation is by time: `settings` and `make_settings` delete every topic and create the catalogue anew (0.5 s), under an
application id of the test's own.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from config.broker import Broker
from config.settings import PREFIX, Settings, load_settings
from streams.kafka.clients import connect
from streams.kafka.create import create_topics

FETCHING = {f"{PREFIX}CACHE_DIRECTORY", f"{PREFIX}MAVEN_URL"}  # where this machine gets Kafka from


def pytest_configure() -> None:
    """The developer's own settings are not the tests'."""
    for variable in [name for name in os.environ if name.startswith(PREFIX) and name not in FETCHING]:
        del os.environ[variable]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "broker" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.broker)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The session's Apache Kafka, running; `broker.start()` gives its address."""
    found = load_settings(data_directory=tmp_path_factory.mktemp("kafka")).local_broker()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def empty_cluster(broker: Broker) -> AdminClient:
    """The session's Kafka without any topic but its own."""
    admin = AdminClient({"bootstrap.servers": broker.start()})
    delete_topics(admin)
    return admin


@pytest.fixture
def make_settings(empty_cluster: AdminClient, broker: Broker, tmp_path: Path) -> Callable[..., Settings]:
    """A function from flags to settings on a cluster whose topics are all new; to be called once a test."""

    def make(**flags: object) -> Settings:
        own = {
            "bootstrap_servers": broker.start(),
            "app_id": f"test-{uuid.uuid4().hex[:12]}",
            "data_directory": tmp_path / "var",
            "metrics_port": 0,
        }
        settings = load_settings(**(own | flags))
        create_topics(connect(settings), settings)
        return settings

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """Settings on a cluster whose topics are all new, with the default partition counts."""
    return make_settings()


def delete_topics(admin: AdminClient) -> None:
    """Delete every topic but Kafka's own, and return when they are gone.

    The broker learns of a creation or deletion some 100 ms after the controller, so what it lists may be of the past.
    """
    deadline = time.monotonic() + 30
    while names := [name for name in admin.list_topics(timeout=30).topics if not name.startswith("__")]:
        assert time.monotonic() < deadline, f"topics are still there after 30 s: {names}"
        for future in admin.delete_topics(names, operation_timeout=30).values():
            with contextlib.suppress(KafkaException):  # gone already
                future.result()
        time.sleep(0.02)
