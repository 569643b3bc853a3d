"""Where trials cost unlike amounts: does it pay to expect improvement per second, and not per trial?

    python studies/search_benchmark/cost_aware.py --surfaces FOLDER [--repeats 50] [--slots 1] [TABLE ...]

`auto` with and without `cost_aware`, and Optuna's default, paired by seed. Prints a row for each table.
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
from hpo.replay.synthetic import sized
from hpo.statistics import difference
from hpo.sweep import Strategy

DESIGN = ("sized-0", "sized-1", "sized-2", "nmt-sw-en")
CONFIRM = ("sized-100", "sized-101", "sized-102", "sized-103", "nmt-en-ja", "nmt-ru-en", "nmt-zh-en", "nasbench-nlp")
BUDGETS = (5.0, 10.0, 20.0)
PLAIN = entrant("hpo auto")
AWARE = dataclasses.replace(PLAIN, name="by cost", sampler=Strategy("auto", {"cost_aware": True}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=[*DESIGN, *CONFIRM])
    parser.add_argument("--surfaces", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--slots", type=int, default=1)
    given = parser.parse_args()
    found = tables(given.surfaces)
    print("| table | at | optuna default | auto | auto, cost_aware | mean difference of the two (95% interval) | "
          "cost_aware is better / worse |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for name in given.tables:
        table = sized(int(name.removeprefix("sized-"))) if name.startswith("sized-") else found[name]
        terms = Terms(given.repeats, given.slots, BUDGETS[-1])
        theirs, plain, aware = compete(table, [entrant("optuna default"), PLAIN, AWARE], terms)
        for budget in BUDGETS:
            columns = [result.regrets(budget) for result in (theirs, plain, aware)]
            gap = difference(columns[2], columns[1])
            better = sum(one < other for one, other in zip(columns[2], columns[1], strict=True))
            worse = sum(one > other for one, other in zip(columns[2], columns[1], strict=True))
            medians = " | ".join(f"{statistics.median(column):.4f}" for column in columns)
            label = f"{name}, {'design' if name in DESIGN else 'confirm'}" if budget == BUDGETS[0] else ""
            print(f"| {label} | {budget:.0f} | {medians} | {gap.middle:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}) | "
                  f"{better} / {worse} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
