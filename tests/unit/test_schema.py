"""The layout has a number that says when it changed, and rows of any layout fit into this one."""

import numpy as np
import pytest

from state import columns, demand
from state.schema import INTERNAL, LAYOUT, NEVER, Table

# Layout → what the schemas were then: of a pool, of clicks.
FINGERPRINTS = {1: ("fdd964f6b65bd779", "975f7939f3942ff5"), 2: ("48460ba1c03ae042", "c2c6c35daba599ab")}


def test_a_schema_that_changed_has_a_layout_of_its_own():
    found = columns.SCHEMA.fingerprint(), demand.SCHEMA.fingerprint()
    assert found == FINGERPRINTS.get(LAYOUT), (
        f"a persistent schema is not that of layout {LAYOUT}. If no released version has written this layout yet, correct the "
        f"fingerprint; else: 1. with the last release, `python -m tests.golden.upgrade write tests/fixtures/v(its version)`; "
        f"2. LAYOUT = {LAYOUT + 1} in state/schema.py; 3. add {LAYOUT + 1}: {found} to FINGERPRINTS; "
        "4. `python -m tests.golden record`, in a commit that says so"
    )
    assert max(FINGERPRINTS) == LAYOUT


OLD = Table("cells", ("sku", "i4"), ("dropped", "i8"), ("on_hand", "i4"), ("dirty", "u1", INTERNAL))
NEW = Table("cells", ("on_hand", "i8"), ("counted_at", "i8", NEVER), ("sku", "i4"), ("dirty", "u1", INTERNAL))


def test_rows_of_another_layout_are_read_by_the_names_of_their_columns():
    rows = np.array([(1, 2, -3, 0), (4, 5, 6, 1)], OLD.dtype)
    assert NEW.fitted(rows).tolist() == [(-3, -1, 1, 0), (6, -1, 4, 1)]
    assert NEW.fitted(rows).dtype == NEW.dtype


def test_rows_of_the_same_layout_are_not_copied():
    rows = NEW.new(3)
    assert NEW.fitted(rows) is rows


def test_a_value_that_does_not_fit_is_an_error():
    rows = np.array([(2**40, -1, 0, 0)], NEW.dtype)
    with pytest.raises(ValueError, match="table cells, column on_hand: values of int64 do not fit into int32"):
        OLD.fitted(rows)


def test_an_empty_head_has_the_defaults():
    head = columns.POOL_ROW.new(1)
    assert head["free_order"].tolist() == [-1] and set(head["free_text"][0].tolist()) == {-1} and head["now"].tolist() == [0]
