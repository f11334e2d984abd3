"""Writes kafka-jars.txt: every jar the local broker runs on, with its SHA-256 sum. Run it to move to another Kafka.

`python -m config.lock_jars`, from a checkout with the `dev` extra (jgo resolves the Maven coordinates).
kafka_2.13 is resolved by itself: asked for together with log4j, log4j's bill of materials pins kafka-clients to 3.8 and
the broker dies at start. Of the logging binding only its own jar is taken, in the version of log4j-core that Kafka has.
Not here: fetching the jars and checking their sums (broker.py).
"""

import hashlib
from pathlib import Path

from jgo.maven import MavenContext

from config.broker import KAFKA_VERSION, LOCK_FILE


def locked_lines() -> list[str]:
    """Return the lock file's lines, ``sha256  group:artifact:version``, sorted by coordinate."""
    maven = MavenContext()
    kafka = maven.create_dependency(f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}")
    inputs, transitive = maven.resolver.resolve([kafka])
    artifacts = [found.artifact for found in [*inputs, *transitive] if found.scope in (None, "compile", "runtime")]
    log4j_version = next(found.version for found in artifacts if found.artifactId == "log4j-core")
    binding = maven.create_dependency(f"org.apache.logging.log4j:log4j-slf4j-impl:{log4j_version}")
    artifacts.append(binding.artifact)
    return sorted(
        (
            f"{_sha256(artifact.resolve())}  {artifact.groupId}:{artifact.artifactId}:{artifact.version}"
            for artifact in artifacts
        ),
        key=lambda line: line.split()[1],
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    LOCK_FILE.write_text("\n".join(locked_lines()) + "\n")
