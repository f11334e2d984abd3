"""README.md's own commands and programs, run as they stand: an order of a newcomer ends with an allocation."""

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
    before = {process.pid for process in psutil.process_iter()}
    done = subprocess.run(
        ["bash", "-c", script], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    log = tmp_path / "nearshelf-worker.log"
    assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")
    assert "o-1 allocated ['STORE-LEEDS']\n" in done.stdout
    assert '"available":5' in done.stdout.replace(" ", "")
    left = [process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(process.info["cmdline"] or ())]
    assert not [process for process in left if process.pid not in before]
    assert re.search(r"faults *│ none", done.stdout)
