"""Many slots with a budget to match: what sixteen slots find in 80 whole trainings, five rounds of all slots.

    python studies/search_benchmark/wide.py --surfaces FOLDER [--repeats 50] [--workers 2]

With 20 whole trainings sixteen slots have hardly a second round, in which nobody can have learned anything
(report.md). Prints a row for each table with curves as it is done, and a line that sums them up. Strategies of other
packages take part where their packages are installed.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import measure

from hpo.replay.contest import Terms, compete
from hpo.statistics import bootstrap, difference

SLOTS, BUDGET = 16, 80.0
GRID = [step * BUDGET / 80 for step in range(1, 81)]
STRATEGIES = ("hpo auto", "optuna default", "one rung, top 4", "syne-tune asha", "ray tune asha optuna")
OURS, OPTUNA = STRATEGIES[:2]


def searched(surfaces: Path, repeats: int, job: tuple[str, str]) -> list[list[float]]:
    """One strategy on one table: regrets of all seeds at each cost of the grid."""
    table_name, strategy = job
    table = measure.tables(surfaces)[table_name]
    (result,) = compete(table, [measure.entrant(strategy)], Terms(repeats, SLOTS, BUDGET))
    return [result.regrets(spent) for spent in GRID]


def _cell(regrets: list[float]) -> str:
    interval = bootstrap(regrets)
    if math.isinf(interval.middle):
        return "–"
    high = "–" if math.isinf(interval.high) else f"{interval.high:.4f}"
    return f"{interval.middle:.4f} ({interval.low:.4f} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    here = [name for name in STRATEGIES if name not in measure.PEERS or name in measure.installed()]
    names = [name for name, table in measure.tables(given.surfaces).items() if measure.curved(table)]
    jobs = [(name, strategy) for name in names for strategy in here]
    print("| table | | " + " | ".join(here) + " | cost ratio |\n|---|---|" + "---|" * (len(here) + 1), flush=True)
    ratios, worse = [], list[str]()
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("forkserver")) as pool:
        results = pool.map(partial(searched, given.surfaces, given.repeats), jobs)
        for name in names:
            found = {strategy: next(results) for strategy in here}
            target = statistics.median(found[OPTUNA][-1])
            reached = next(spent for spent, column in zip(GRID, found[OURS], strict=True)
                           if statistics.median(column) <= target + 1e-12 or spent == GRID[-1])  # fmt: skip
            never = statistics.median(found[OURS][-1]) > target + 1e-12
            ratios.append(math.inf if never else reached / BUDGET)
            worse += [f"{name} ({other})" for other in here[1:]
                      if difference(found[OURS][-1], found[other][-1]).low > 0]  # fmt: skip
            for share in (0.25, 0.5, 1.0):
                column = int(share * len(GRID)) - 1
                label = f"{name}, {measure.kind(name)}" if share == 0.25 else ""
                ratio = f"{ratios[-1]:.2f}" if share == 1.0 else ""
                cells = " | ".join(_cell(found[strategy][column]) for strategy in here)
                print(f"| {label} | {share * BUDGET:.0f} | {cells} | {ratio} |", flush=True)
    print(f"\nmedian ratio {statistics.median(ratios):.2f} of {len(ratios)}; "
          f"worse beyond the interval at {BUDGET:.0f}: {', '.join(worse) or 'nowhere'}")  # fmt: skip


if __name__ == "__main__":
    main()
