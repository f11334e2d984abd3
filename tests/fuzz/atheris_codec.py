"""`python -m tests.fuzz.atheris_codec -max_total_time=300`: libFuzzer's inputs against the codec, guided by what they reach.

The first byte chooses the topic, the rest is the record: scanner and models must read it alike. It begins with good records and
a dictionary of the contract's names. Arguments are libFuzzer's; it ends with a crash file at the first record read otherwise.
The scanner runs as plain Python here, so that each of its branches is seen: slow, and not the machine code that the other
fuzzers and the parity test try. Needs the extra `fuzz` (atheris).
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ["NUMBA_DISABLE_JIT"] = "1"

import atheris
import numpy as np

with atheris.instrument_imports(include=["topics"]):
    from topics.codec import grammar, scan
    from topics.events import MODELS

from tests.fuzz import inputs
from tests.property import test_codec_parity as parity

SIGNS = ('{"', '":', '",', '":"', "[{", "}]", "\\u", "null", "true", "false", "-0", "1e", ".5", "253402300799999", "1000000000")


def byte_at(buffer: np.ndarray, at: int) -> int:
    return int(buffer[at])


def word_at(buffer: np.ndarray, at: int) -> np.uint64:
    return np.uint64(int.from_bytes(buffer[at : at + 8].tobytes(), "little"))


def lowest_bit(word: np.uint64) -> int:
    return (int(word) & -int(word)).bit_length() - 1


def plainly(scanner: Callable) -> Callable:
    """Let a scanner that is plain Python reach a row's fields by name."""

    def scan_rows(buffer, starts, ends, rows_inout, lines_out, *workspace):
        return scanner(buffer, starts, ends, rows_inout.view(np.recarray), lines_out.view(np.recarray), *workspace)

    return scan_rows


def make_plain() -> None:
    """Put plain Python where the scanner has machine code of its own, and where numpy differs from it."""
    for module in (grammar, scan):
        module.byte_at, module.word_at = byte_at, word_at
    grammar._lowest_bit = lowest_bit
    parity.scan_events, parity.scan_clicks = plainly(parity.scan_events), plainly(parity.scan_clicks)
    np.seterr(over="ignore")  # hashes wrap around


def try_one(data: bytes) -> None:
    """One input; raises where the two ways differ."""
    if data:
        parity.assert_parity([data[1:]], data[0] % len(parity.TOPICS))


def write_corpus(directory: Path) -> None:
    """Good records of every topic."""
    for number, topic in enumerate(parity.TOPICS):
        for i, value in enumerate(inputs.samples(topic)):
            (directory / f"{topic}-{i}").write_bytes(bytes([number]) + value)


def write_dictionary(path: Path) -> None:
    """Every field's name, every kind, and JSON's signs, as libFuzzer reads them."""
    names = {name for models in MODELS.values() for model in models for name in model.model_fields}
    kinds = {kind for kinds in parity.KINDS.values() for kind in kinds}
    words = [*(f'"{word}"' for word in sorted(names | kinds)), *SIGNS]
    path.write_text("".join('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"\n' for word in words))


def main() -> None:
    make_plain()
    if not parity.taken(inputs.samples("sales.v1"), 0).any():
        sys.exit("the plain scanner reads nothing: its plain parts are wrong")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (directory / "corpus").mkdir()
        write_corpus(directory / "corpus")
        write_dictionary(directory / "words")
        own = [f"-dict={directory / 'words'}", "-max_len=4096", "-timeout=60"]
        atheris.Setup([sys.argv[0], *own, *sys.argv[1:], str(directory / "corpus")], try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
