"""What a guard of tests/guards takes away is there, once: a guard whose text has changed would be found missing an hour on."""

import pytest

from tests.guards.__main__ import GUARDS, ROOT, TESTS


@pytest.mark.parametrize("name", GUARDS)
def test_the_text_of_a_guard_stands_once_in_its_file_and_its_absence_is_python_too(name):
    guard = GUARDS[name]
    text = (ROOT / guard.path).read_text()
    assert text.count(guard.old) == 1, f"{guard.path}: expected once, found {text.count(guard.old)} times:\n{guard.old}"
    compile(text.replace(guard.old, guard.new), guard.path, "exec")


def test_the_tests_that_are_to_miss_a_guard_are_there():
    assert all((ROOT / path).exists() for path in (*TESTS, *(guard.first for guard in GUARDS.values() if guard.first)))
