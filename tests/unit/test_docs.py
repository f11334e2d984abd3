"""The pages in docs/ and the README say what the code says: fields, folders, links, the picture."""

import html
import re
import subprocess
from pathlib import Path

import pytest

from topics.events import CAPABILITIES, LocationRecord

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"


def _rows(page: str) -> list[list[str]]:
    """The cells of all tables' rows."""
    lines = [line for line in (DOCS / page).read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _tracked(pattern: str) -> list[Path]:
    found = subprocess.run(["git", "ls-files", pattern], cwd=PROJECT, capture_output=True, text=True, check=True)
    return [PROJECT / name for name in found.stdout.splitlines()]


def test_every_field_of_a_location_has_its_line_with_its_default():
    lines = {cells[0].strip("`"): cells for cells in _rows("network-file.md") if len(cells) == 4 and cells[0].startswith("`")}
    assert set(lines) == set(LocationRecord.model_fields)
    said = {"": None, "by kind": None, "no limit": None, "`true`": True, "`100`": 100}
    for name, field in LocationRecord.model_fields.items():
        _, needed, default, meaning = lines[name]
        assert (needed == "yes") == field.is_required(), name
        assert field.is_required() or said[default] == field.default, name
        assert len(meaning) > 15, name


def test_every_kind_of_location_has_its_line_with_what_it_can_do():
    lines = {cells[0].strip("`"): cells[1] for cells in _rows("network-file.md") if len(cells) == 2}
    assert lines.pop("kind") == "default `capabilities`"
    assert {kind: said.split(", ") for kind, said in lines.items()} == CAPABILITIES


def test_every_folder_has_its_line():
    said = {cells[0].split("](")[0].strip("[`/") for cells in _rows("where-things-are.md")}
    folders = {str(path.parent.relative_to(PROJECT)) for path in _tracked("*.py")} - {"."}
    assert folders <= said, f"docs/where-things-are.md lacks {folders - said}"
    assert said <= {"folder"} | folders, f"docs/where-things-are.md has {said - folders}, which are no more"


@pytest.mark.parametrize("page", _tracked("*.md"), ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_link_to_a_file_leads_to_one(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_picture_is_of_its_source():
    picture = html.unescape((DOCS / "flow.svg").read_text())
    source = (DOCS / "flow.dot").read_text()
    texts = [text for label in re.findall(r'label="([^"]+)"', source) for text in label.split("\\n")]
    texts += [text for cell in re.findall(r"<td[^>]*>(.*?)</td>", source) for text in cell.split("<br/>")]
    assert len(texts) > 20
    assert not [text for text in texts if f">{text}<" not in picture], "run make picture"


@pytest.mark.parametrize("page", _tracked("*/README.md"), ids=lambda path: str(path.parent.relative_to(PROJECT)))
def test_a_folders_readme_names_each_of_its_modules(page: Path):
    modules = {path.name for path in page.parent.glob("*.py")} - {"__init__.py"}
    text = page.read_text()
    assert not {name for name in modules if name not in text and f"`{name.removesuffix('.py')}`" not in text}
