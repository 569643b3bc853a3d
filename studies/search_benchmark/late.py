"""Where early measurements mislead: does it pay to compare waiting trials by where they are expected to end?

    python studies/search_benchmark/late.py [--surfaces FOLDER] [--repeats 50] [--slots 1] [TABLE ...]

`auto` with pausing halving as it is and with `project: false`, random search and Optuna's default, paired by seed, on
made surfaces on which settings work late, or on recorded tables that are named. Prints two rows for each.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from measure import entrant, tables  # after the number of threads

from hpo.replay.contest import Terms, compete
from hpo.replay.synthetic import late
from hpo.statistics import difference
from hpo.sweep import Strategy

DESIGN = ("late-0", "late-1", "late-2")
CONFIRM = ("late-100", "late-101", "late-102", "late-103")
BUDGETS = (10.0, 20.0)
AUTO = entrant("hpo auto")
AS_MEASURED = dataclasses.replace(AUTO, name="as measured", pruner=Strategy("pausing halving", {"project": False}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=[*DESIGN, *CONFIRM])
    parser.add_argument("--surfaces", type=Path)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--slots", type=int, default=1)
    given = parser.parse_args()
    found = {} if given.surfaces is None else tables(given.surfaces)
    entrants = [entrant("random"), entrant("optuna default"), AS_MEASURED, AUTO]
    print("| table | at | random | optuna default | auto, project: false | auto | auto minus Optuna's (95% interval) | "
          "auto minus project: false |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name in given.tables:
        table = late(int(name.removeprefix("late-"))) if name.startswith("late-") else found[name]
        results = list(compete(table, entrants, Terms(given.repeats, given.slots, BUDGETS[-1])))
        for budget in BUDGETS:
            columns = [result.regrets(budget) for result in results]
            gaps = [difference(columns[3], columns[other]) for other in (1, 2)]
            medians = " | ".join(f"{statistics.median(column):.4f}" for column in columns)
            told = " | ".join(f"{gap.middle:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})" for gap in gaps)
            kind = "design" if name in DESIGN else "confirm" if name in CONFIRM else "recorded"
            label = f"{name}, {kind}" if budget == BUDGETS[0] else ""
            print(f"| {label} | {budget:.0f} | {medians} | {told} |", flush=True)


if __name__ == "__main__":
    main()
