"""README.md's own commands and programs, run as they stand: an order of a newcomer ends with an allocation."""

import contextlib
import os
import re
import socket
import subprocess
from pathlib import Path

import psutil

PROJECT = Path(__file__).parents[2]
PORT = "9092"


def _script() -> str:
    """All blocks of the section, in order, as one shell script that stops at the first command that fails."""
    section = (PROJECT / "README.md").read_text().partition("## Your own events\n")[2].partition("\n## ")[0]
    script = ["set -e"]
    for language, block in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL):
        if language == "console":
            script += [line.removeprefix("$ ") for line in block.splitlines()]
        else:
            assert language == "python"
            script.append(f"python - <<'END'\n{block}END")
    return "\n".join(script)


def test_the_readmes_example_ends_with_an_allocation_and_leaves_nothing_running(tmp_path: Path):
    """Only the port and the log's place are the test's own, since both may be in use."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    script = _script()
    assert script.count(PORT) == 3 and script.count("/tmp/") == 1
    script = script.replace(PORT, port).replace("/tmp/", f"{tmp_path}/")
    environment = os.environ | {"NEARSHELF_DATA_DIRECTORY": str(tmp_path / "var")}
    output, log = tmp_path / "output", tmp_path / "nearshelf-worker.log"
    try:
        with output.open("w") as file:
            done = subprocess.run(
                ["bash", "-c", script], cwd=PROJECT, env=environment, stdout=file, stderr=file, timeout=300, check=False
            )
        said = output.read_text()
        assert done.returncode == 0, said + (log.read_text() if log.exists() else "")
        assert not _alive(tmp_path)
    finally:
        for process in _alive(tmp_path):
            process.kill()
    assert "o-1 allocated ['STORE-LEEDS']\n" in said
    assert '"available":5' in said.replace(" ", "")
    assert re.search(r"faults *│ none", said)


def _alive(directory: Path) -> list[psutil.Process]:
    """The processes of the commands: their data directory is in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("NEARSHELF_DATA_DIRECTORY", "").startswith(str(directory)):
                found.append(process)
    return found
