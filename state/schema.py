"""What persistent tables are made of: each column's name, format, default and role. All else is derived from it.

The arrays' layout, folding what another version wrote, the digest and the layout's fingerprint read the schemas, which stand in
columns.py (a pool) and demand.py (clicks).

To change a schema: add a column with the default that rows written before shall have, or drop one, and raise `LAYOUT`. Whatever
makes a row sets its new column too, to the default or better. A name is never used again for something else, and no column
becomes narrower. A version reads every layout up to its own.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from topics.errors import WrongUse

LAYOUT = 2
"""Number of the schemas' layout; raised with each change of a schema (tests/unit/test_schema.py has the fingerprints)."""


NEARSHELF = version("nearshelf")
"""This version."""


class NewerLayout(WrongUse):
    """What was read was written by a later version, whose layout is unknown here; the message names both versions."""


@dataclass(frozen=True, slots=True)
class Role:
    """What a column holds."""

    default: int = 0
    """Of an empty head, and of rows written before the column was there."""
    table: str = ""
    """The table whose row number it is; "" = it is none. In a digest the number stands for the row."""
    size: str = ""
    """If it is a text's place in the heap: the column with the text's bytes. In a digest the place stands for the text."""
    within: str = ""
    """If that place is relative: the column with the row whose `id_at` it counts from."""
    digested: bool = True
    """Whether two states that differ in it have different digests."""


CONTENT = Role()
INTERNAL = Role(digested=False)
"""How rows are kept (marks, chains, free lists, counts of rows): two states that differ in it alone answer alike."""
NO_ROW = Role(default=-1, digested=False)
"""Internal too: a row or position, -1 = none."""
NEVER = Role(default=-1)
"""Content, -1 = never, none."""
TEXT = Role(size="id_size")


def row_of(table: str) -> Role:
    """The role of a number of a row of `table`, -1 = none."""
    return Role(default=-1, table=table)


class Table:
    """A persistent table: `dtype` of its rows, and the `roles` of their columns.

    Parameters
    ----------
    name : str
        In the changelog, in snapshots, and in the bundle that kernels take. In the singular it is the `prefix` of the table's
        columns of the head: `{prefix}_count` rows in use or free; of a ring, from position `{prefix}_head` to `{prefix}_tail`.
    columns : (name, format) or (name, format, Role)
        Without a role: content.
    """

    def __init__(self, name: str, *columns: tuple[str, str] | tuple[str, str, Role]):
        self.name = name
        self.prefix = re.sub("s$", "", re.sub("ies$", "y", name))
        self.dtype = np.dtype([(column[0], column[1]) for column in columns], align=True)
        self.roles = {column[0]: column[2] if len(column) == 3 else CONTENT for column in columns}

    def new(self, count: int) -> np.ndarray:
        """Make rows that have the defaults."""
        rows = np.zeros(count, self.dtype)
        for name, role in self.roles.items():
            if role.default:
                rows[name] = role.default
        return rows

    def fitted(self, rows: np.ndarray) -> np.ndarray:
        """Give rows of any layout in this one, column by column: those missing have the default, those unknown are left out.

        Rows of this layout are given back as they are.

        Raises
        ------
        ValueError
            A value does not fit into its column.

        Examples
        --------
        >>> old = np.array([(5, 1)], [("units", "i4"), ("dropped", "i4")])
        >>> Table("cells", ("units", "i8"), ("counted_at", "i8", NEVER)).fitted(old).tolist()
        [(5, -1)]
        """
        if rows.dtype == self.dtype:
            return rows
        fitted = self.new(rows.size)
        for name in self.roles.keys() & set(rows.dtype.names or ()):
            fitted[name] = rows[name]
            if not np.array_equal(fitted[name], rows[name]):
                raise ValueError(
                    f"table {self.name}, column {name}: values of {rows.dtype[name]} do not fit into {self.dtype[name]}; "
                    "a column must not become narrower"
                )
        return fitted


@dataclass(frozen=True)
class Schema:
    """The persistent tables of a state."""

    head: Table
    """One row: counters and clock. Its name is `pool`."""
    rows: tuple[Table, ...]
    """Tables whose rows are changed. A table's place here is its code in the journal."""
    rings: tuple[Table, ...]
    """Tables that are appended to, and forgotten from the oldest entry on."""

    @cached_property
    def tables(self) -> dict[str, Table]:
        """All of them, by name."""
        return {table.name: table for table in (self.head, *self.rows, *self.rings)}

    def fingerprint(self) -> str:
        """Name the layout by a hash; 16 hex digits."""
        told = [
            (table.name, name, table.dtype[name].base.str, table.dtype[name].shape, role.default)
            for table in self.tables.values()
            for name, role in table.roles.items()
        ]
        return hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()


def check_layout(written: dict[str, Any], what: str) -> None:
    """Raise `NewerLayout` if a later version wrote what was found.

    Parameters
    ----------
    written : dict
        The `layout`, and the version (`nearshelf`) that wrote it. The first version of layout 1 named neither.
    what : str
        What was found, and where.
    """
    layout = written.get("layout", 1)
    if layout > LAYOUT:
        raise NewerLayout(
            f"{what} was written by nearshelf {written['nearshelf']} in layout {layout}; this is nearshelf {NEARSHELF}, which "
            f"reads layouts up to {LAYOUT}: run nearshelf {written['nearshelf']} or a later version here too"
        )
