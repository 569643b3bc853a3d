"""Does the sampler `auto`, whose model is made of 64 trials at most, find as much as one whose model is made of all?

    python studies/search_benchmark/bounded.py --surfaces FOLDER [--repeats 20] [--budget 40] [TABLE ...]

Long searches, so that there are far more trials than 64, paired by seed. Prints a row for each table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from measure import entrant, tables  # after the number of threads

from hpo import suggesting
from hpo.replay.contest import Result, Terms, compete
from hpo.replay.tables import Table
from hpo.statistics import difference

TABLES = ("synthetic-0", "synthetic-100", "synthetic-101", "nmt-curves-sw-en")
BOUNDED = suggesting._MOST_TRIALS


def searched(table: Table, most: int, terms: Terms) -> tuple[Result, float]:
    suggesting._MOST_TRIALS = most
    began = time.process_time()
    (result,) = compete(table, [entrant("hpo auto")], terms)
    return result, (time.process_time() - began) / terms.repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=TABLES)
    parser.add_argument("--surfaces", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--budget", type=float, default=40.0)
    given = parser.parse_args()
    found = tables(given.surfaces)
    terms = Terms(given.repeats, 1, given.budget)
    print(f"| table | trials | regret at {given.budget:.0f}: of {BOUNDED} trials | of all | mean difference (95% interval) | "
          "CPU seconds a search |\n|---|---|---|---|---|---|")  # fmt: skip
    for name in given.tables:
        bounded, quick = searched(found[name], BOUNDED, terms)
        whole, slow = searched(found[name], 10**6, terms)
        one, other = bounded.regrets(given.budget), whole.regrets(given.budget)
        gap = difference(one, other)
        trials = statistics.median(len(replay.off_table) for replay in bounded.replays)
        print(f"| {name} | {trials:.0f} | {statistics.median(one):.4f} | {statistics.median(other):.4f} | "
              f"{gap.middle:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}) | {quick:.1f} / {slow:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
