"""How well what was not recorded is answered, and what a share of random, never-stopped trials costs, as tables.

python studies/search_benchmark/answers.py answered --surfaces FOLDER
python studies/search_benchmark/answers.py unbiased --surfaces FOLDER [--repeats 20] [--tables NAME ...]
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from fractions import Fraction

from hpo.replay.contest import Entrant, Terms, compete
from hpo.replay.modelled import validated
from hpo.replay.recorded import read_tables
from hpo.replay.synthetic import synthetic
from hpo.replay.tables import Table
from hpo.statistics import difference
from hpo.sweep import Strategy

THIRDS = (Fraction(1, 9), Fraction(1, 3), Fraction(1))
SHARED = ("nmt-curves-sw-en", "nmt-curves-ru-en", "synthetic-100", "synthetic-101")
GRIDS = ("steplaw-215M-4B", "steplaw-429M-22.7B", "nmt-sw-en", "nmt-ru-en", "lora-Llama-3.2-1B", "lora-Qwen3-30B-A3B")


def tables(folder: Path) -> dict[str, Table]:
    found = [table for path in sorted(folder.iterdir()) if path.suffix in (".csv", ".jsonl")
             for table in read_tables(path)]  # fmt: skip
    return {table.name: table for table in (*found, *(synthetic(seed) for seed in (100, 101)))}


def answered(found: dict[str, Table]) -> None:
    print("| table | trials | nearest: error | rank correlation | model: error | rank correlation | better |")
    print("|---|---|---|---|---|---|---|")
    for name, table in found.items():
        if not (table.has_curves or name in GRIDS) or (both := validated(table)) is None:
            continue
        cells = [f"{miss.error:.4f} | {miss.correlation:.3f}" for miss in (both.nearest, both.model)]
        print(f"| {name} | {both.trials} | {cells[0]} | {cells[1]} | {both.better or 'neither'} |", flush=True)


def unbiased(found: dict[str, Table], names: list[str], repeats: int) -> None:
    print("| table | without | with 0.1 | mean difference (95% interval) | trained in full, without | with |")
    print("|---|---|---|---|---|---|")
    for name in names:
        own = [Entrant(str(share), Strategy("auto"), Strategy("pausing halving"), THIRDS, unbiased=share)
               for share in (0.0, 0.1)]  # fmt: skip
        without, shared = compete(found[name], own, Terms(repeats, 1, 20.0))
        apart = difference(shared.regrets(20.0), without.regrets(20.0))
        full = [statistics.median(len(one.steps) for one in result.replays) for result in (without, shared)]
        regrets = [statistics.median(result.regrets(20.0)) for result in (without, shared)]
        print(f"| {name} | {regrets[0]:.4f} | {regrets[1]:.4f} | {apart.middle:+.4f} ({apart.low:+.4f} to "
              f"{apart.high:+.4f}) | {full[0]:.0f} | {full[1]:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("answered", "unbiased"))
    parser.add_argument("--surfaces", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--tables", nargs="*", default=list(SHARED))
    given = parser.parse_args()
    if given.what == "answered":
        answered(tables(given.surfaces))
    else:
        unbiased(tables(given.surfaces), given.tables, given.repeats)
