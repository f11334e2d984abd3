"""`python -m tests.golden check|record`: the bytes of 200 seeds, held to those on record, or put on record."""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.golden.logs import hashes

ON_RECORD = Path(__file__).with_name("hashes.json")
SEEDS = 200


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("what", choices=["check", "record"])
    parser.add_argument("--only", default="", help="check only the hashes whose name contains this, such as `outputs`")
    given = parser.parse_args()
    with ProcessPoolExecutor(2) as pool:
        found = {str(seed): each for seed, each in enumerate(pool.map(hashes, range(SEEDS), chunksize=5))}
    if given.what == "record":
        ON_RECORD.write_text(json.dumps(found, indent=0) + "\n")
        print(f"{len(found)} seeds on record")
        return 0
    expected = json.loads(ON_RECORD.read_text())
    other = [
        f"seed {seed}: {name}"
        for seed, names in expected.items()
        for name, value in names.items()
        if given.only in name and found[seed][name] != value
    ]
    print(*other[:20], sep="\n", end="\n" if other else "")
    print(f"{len(expected)} seeds, {sum(len(each) for each in expected.values())} hashes: {len(other)} differ")
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())
