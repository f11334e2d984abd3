"""A state as one number, whatever its row numbers: for replays, recovery, the audit's cross-check and benchmarks.

Two states with the same digest answer every further event alike. All columns are in it but those that the schema calls
internal. A reference stands for the row it names, by that row's place in the order of keys; a text's place stands for the text.
What counts as forgotten is left out whether it was dropped yet or not (`counting` of each state), so the digest does not depend
on how the log was cut into batches.
"""

import hashlib

import numpy as np

from state.tableset import TableSet

_WIDEST = {"i": np.int64, "u": np.uint64, "f": np.float64}


def digest(state: TableSet) -> str:
    """Hash all that decides a state's further answers; 32 hex digits."""
    found, (rows, instead) = hashlib.blake2b(digest_size=16), state.counting()
    rows = {"pool": np.zeros(1, np.int64)} | rows
    places = {name: _places(numbers) for name, numbers in rows.items()}
    for name, numbers in rows.items():
        table = state.table(name)
        for column, role in state.schema.tables[name].roles.items():
            if not role.digested:
                continue
            values = instead[name, column] if (name, column) in instead else table[column][numbers]
            found.update(f"{name}.{column}[{len(values)}]".encode())
            if role.table:
                places_of = places[role.table]
                values = places_of[np.minimum(values, len(places_of) - 1)]
            elif role.size:
                starts = values.astype(np.int64)
                if role.within:
                    parent = state.schema.tables[name].roles[role.within].table
                    starts += state.table(parent)["id_at"][table[role.within][numbers]]
                values = _texts(state.table("heap"), starts, table[role.size][numbers].astype(np.int64))
            else:
                values = values.astype(_WIDEST[values.dtype.kind])  # so that a column may become wider
            found.update(values.tobytes())
    return found.hexdigest()


def _places(numbers: np.ndarray) -> np.ndarray:
    """Give int64[]: at each row's number its place in an order, -1 at those not in it and, for no row (-1), at the end."""
    places = np.full(int(numbers.max(initial=-1)) + 2, -1)
    places[numbers] = np.arange(numbers.size)
    return places


def _texts(heap: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Join texts of the heap."""
    ends = np.cumsum(sizes)
    return heap[np.arange(ends[-1] if ends.size else 0) + np.repeat(starts - ends + sizes, sizes)]
