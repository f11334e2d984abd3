"""What an older version left behind is restored, into this version and into one with other columns; a newer one's is refused.

The version with other columns is real: a copy of this tree with two columns more in each group and, in the inventory, one
fewer. Its kernels are compiled, and it runs in a process of its own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from state.schema import LAYOUT, NEARSHELF, NewerLayout
from state.store import Store
from tests.golden.upgrade import PIPELINES, check, empty, from_changelog, place_of, read_group, unpack_snapshot
from tests.inventory_log import segments

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
CHANGED = {
    "state/columns.py": {
        '    ("on_hand", "i4"),\n': '    ("shelf", "i8", NEVER),\n    ("on_hand", "i4"),\n',  # moves the columns behind it
        '    ("age", "i8"),\n    ("id_at"': '    ("age", "i8"),\n    ("promise_at", "i8"),\n    ("id_at"',
        '    ("source_partition", "i4"),  # the locations.v1 record in force\n': "",
    },
    "state/stock.py": {"    cell.counted_at = -1\n": "    cell.counted_at = -1\n    cell.shelf = -1\n"},
    "state/network.py": {
        'location["source_partition"], location["source_offset"] = source\n': 'location["source_offset"] = source[1]\n'
    },
    "state/demand.py": {
        '    ("views", "i8"),\n': '    ("searches", "i8"),\n    ("views", "i8"),\n',
        '    ("changes", "i8"),  # of all rows, ever\n': '    ("changes", "i8"),\n    ("warm_since", "i8", NO_ROW),\n',
    },
    "state/schema.py": {
        f"LAYOUT = {LAYOUT}\n": f"LAYOUT = {LAYOUT + 1}\n",
        'NEARSHELF = version("nearshelf")\n': 'NEARSHELF = "99.1"\n',
    },
}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A tree of the version with other columns."""
    tree = tmp_path_factory.mktemp("other")
    names = subprocess.run(["git", "ls-files", "*.py", "*.gz"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    for path, changes in CHANGED.items():
        text = (tree / path).read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, f"{path}: expected once, found {text.count(old)} times: {old}"
            text = text.replace(old, new)
        (tree / path).write_text(text)
    return tree


def run_in(tree, *arguments):
    command = [sys.executable, "-m", "tests.golden.upgrade", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("version", sorted(path.name for path in FIXTURES.iterdir()))
def test_what_an_older_version_wrote_is_restored_and_answers_as_it_did(version):
    assert list(check(FIXTURES / version)) == []


@pytest.mark.parametrize("version", sorted(path.name for path in FIXTURES.iterdir()))
@pytest.mark.parametrize("group", PIPELINES)
def test_an_event_applied_by_an_older_version_and_sent_again_is_a_duplicate(version, group):
    told = read_group(FIXTURES / version, group)
    pipeline = from_changelog(group, told, told["kept"])
    digests, sent = pipeline.digests(), told["records"][: told["kept"] * told["size"]]
    letters = [json.loads(value) for batch in told["batches"] for _, value in batch["outputs"].get("dead-letter.v1", ())]
    refused = {(letter["topic"], letter["offset"]) for letter in letters}
    applied = {record.value: record for record in sent if (record.topic, record.offset) not in refused}
    again = [record for record in applied.values() if record.topic != "ticks.v1"][-told["size"] :]
    outcome = pipeline.process(pipeline.decode(segments([replace(each, offset=each.offset + 10_000) for each in again])), [])
    assert {fate for _, fate in outcome.counts} == {"duplicate"} and not outcome.outputs
    assert pipeline.digests() == digests


def test_what_this_version_writes_is_restored_by_one_with_other_columns(other):
    for path in sorted(FIXTURES.iterdir()):
        assert "answers as it did" in run_in(other, "check", path)


def test_what_a_newer_version_wrote_is_refused_with_both_versions_and_what_to_do(other, tmp_path):
    run_in(other, "write", tmp_path / "newer")
    sentence = re.escape(
        f"was written by nearshelf 99.1 in layout {LAYOUT + 1}; this is nearshelf {NEARSHELF}, which reads layouts up to "
        f"{LAYOUT}: run nearshelf 99.1 or a later version here too"
    )
    for group in PIPELINES:
        told = read_group(tmp_path / "newer", group)
        with pytest.raises(NewerLayout, match=f"^the changelog's batch 1 of partition 0 {sentence}$"):
            empty(group, told).restore(told["batches"][0]["changelog"], told["batches"][0]["link"])
        directory, place = unpack_snapshot(tmp_path / "newer", group, tmp_path / group), place_of(group)
        with pytest.raises(NewerLayout, match=f"^the snapshot in {directory} {sentence}$"):
            Store(directory, place.identity, place.schema)
