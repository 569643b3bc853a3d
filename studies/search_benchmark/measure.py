"""Search strategies on recorded sweeps: what each had found when so much was spent, many times over.

    python studies/search_benchmark/measure.py run RAW --surfaces FOLDER [--repeats 50] [--workers 2]
    python studies/search_benchmark/measure.py report RAW --surfaces FOLDER

`run` appends a line to the file RAW for each table, strategy and number of slots, and leaves out those that are there;
`report` makes the tables of report.md and the plots from it. FOLDER holds the published files that `hpo replay` reads.
Strategies of other packages (peers.py) take part where their packages are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from fractions import Fraction
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import quicker

from hpo.replay.contest import Entrant, Terms, compete
from hpo.replay.recorded import read_tables
from hpo.replay.synthetic import synthetic
from hpo.replay.tables import Table
from hpo.search import Trials
from hpo.statistics import bootstrap, difference, probability_smaller
from hpo.sweep import Strategy
from hpo.trials import Rung, rung_tokens

HERE = Path(__file__).parent
BUDGET = 20.0
GRID = [step / 4 for step in range(2, 81)]
THIRDS = (Fraction(1, 9), Fraction(1, 3), Fraction(1))
KEEP = 4

# The strategy was designed on these, and on nothing else; all other tables were first searched for the report.
DESIGN = {
    "synthetic-0", "synthetic-1", "synthetic-2", "synthetic-3", "nmt-curves-sw-en", "nmt-curves-ru-en",
    "steplaw-215M-4B", "steplaw-215M-11.4B", "steplaw-215M-20B", "nmt-sw-en", "lora-Llama-3.2-1B",
    "lora-Qwen3-30B-A3B",
}  # fmt: skip
SYNTHETIC = (0, 2, 100, 101, 102)  # it was designed on 0 to 3


def _affordable(budget: float) -> int:
    """How many trials one rung at 1/9 takes, so that the best four can be trained to their ends."""
    return max(KEEP, int((budget - KEEP * 8 / 9) * 9))


OURS = (
    Entrant("hpo auto", Strategy("auto"), Strategy("pausing halving"), THIRDS),
    Entrant("optuna default", Strategy("tpe"), Strategy("median")),
    Entrant("random", Strategy("random"), Strategy("none")),
    Entrant("tpe + hyperband", Strategy("tpe"), Strategy("hyperband")),
    Entrant("tpe + halving", Strategy("tpe"), Strategy("optuna.pruners:SuccessiveHalvingPruner")),
    Entrant("cma-es + median", Strategy("cma-es"), Strategy("median")),
    Entrant("gp + median", Strategy("gp"), Strategy("median")),
    Entrant("one rung, top 4", Strategy("random"), Strategy("best of rung", {"keep": KEEP}), THIRDS, _affordable),
)
PEERS = ("syne-tune asha", "ray tune asha optuna", "neps hyperband", "neps priorband", "syne-tune asha cqr",
         "syne-tune asha bore")  # fmt: skip
# From 2 s to more than a minute a search: only where `--only` names them.
SLOW = ("syne-tune asha cqr", "syne-tune asha bore", "gp + median")
# On a table without curves no rule does anything, so that a strategy is what its sampler is: random for most.
SAMPLERS = ("hpo auto", "optuna default", "random", "cma-es + median", "ray tune asha optuna", "syne-tune asha cqr")
SLOTS = (1, 4, 16)


def _peers() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("peers", HERE / "peers.py")
    if spec is None or spec.loader is None:
        return {}
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers"] = module
    try:
        spec.loader.exec_module(module)
    except ImportError:
        return {}
    return dict(module.PEERS)


def _peer(name: str) -> Entrant:
    def make(table: Table, seed: int, slots: int) -> Trials:
        rungs = tuple(_measured(table))
        made: Trials = _peers_cached()[name](table.space, table.metric, rungs, seed, slots)
        return made

    return Entrant(name, make=make)


_CACHE: dict[str, Any] = {}


def _peers_cached() -> dict[str, Any]:
    if not _CACHE:
        _CACHE.update(_peers())
    return _CACHE


def installed() -> set[str]:
    """Strategies of other packages that are there."""
    return set(_peers_cached())


def _measured(table: Table) -> list[int]:
    """Where peers' trials measure: at rungs by factors of three, as ours; where there are no curves, at their ends."""
    if not curved(table):
        return [table.length]
    rungs: Sequence[Rung] = table.rungs(THIRDS)
    found = rung_tokens(rungs, table.length)
    return found if found[-1] == table.length else [*found, table.length]


def tables(surfaces: Path) -> dict[str, Table]:
    found = [table for path in sorted(surfaces.iterdir()) if path.suffix in (".csv", ".jsonl")
             for table in read_tables(path)]  # fmt: skip
    found += [synthetic(seed) for seed in SYNTHETIC]
    return {table.name: table for table in found}


def curved(table: Table) -> bool:
    return table.has_curves or table.answers is not None


def entrant(name: str) -> Entrant:
    return next((own for own in OURS if own.name == name), None) or _peer(name)


def jobs(found: dict[str, Table]) -> Iterator[tuple[str, str, int]]:
    """What there is to run, the most telling first, and what is slow at last."""
    strategies = [*(own.name for own in OURS), *PEERS]
    every = [
        (name, strategy, slots)
        for name, table in found.items()
        for strategy in (strategies if curved(table) else SAMPLERS)
        for slots in SLOTS
    ]

    def rank(job: tuple[str, str, int]) -> tuple[bool, int, bool, bool, int]:
        name, strategy, slots = job
        rest = not curved(found[name])
        return strategy in SLOW, slots, rest, rest and name.startswith("lora"), strategies.index(strategy)

    return iter(sorted(every, key=rank))


def once(surfaces: str, job: tuple[str, str, int], repeats: int) -> dict[str, Any]:
    """One strategy on one table: of each seed the regret on the grid of costs."""
    table_name, entrant_name, slots = job
    if entrant_name in SLOW and entrant_name.startswith("syne-tune"):
        quicker.install()
    if not _TABLES:
        _TABLES.update(tables(Path(surfaces)))
    table = _TABLES[table_name]
    began = time.process_time()
    terms = Terms(repeats, slots, BUDGET)
    (result,) = compete(table, [entrant(entrant_name)], terms)
    columns = [result.regrets(spent) for spent in GRID]
    return {
        "table": table_name,
        "strategy": entrant_name,
        "slots": slots,
        "regrets": [[_short(column[seed]) for column in columns] for seed in range(terms.repeats)],
        "trials": statistics.median(len(one.off_table) for one in result.replays),
        "full": statistics.median(len(one.steps) for one in result.replays),
        "wall": statistics.median(one.seconds for one in result.replays) / table.full_cost,
        "seconds": round((time.process_time() - began) / terms.repeats, 3),
    }


_TABLES: dict[str, Table] = {}


def _short(value: float) -> float | None:
    return None if math.isinf(value) else float(f"{value:.5g}")


def run(raw: Path, surfaces: Path, repeats: int, workers: int, only: str) -> None:
    done = {(line["table"], line["strategy"], line["slots"]) for line in _lines(raw)}
    here = {*(own.name for own in OURS), *installed()}
    wanted = {name for name in here if only in name and (only or name not in SLOW)}
    todo = [job for job in jobs(tables(surfaces)) if job not in done and job[1] in wanted]
    began = time.monotonic()
    with (
        raw.open("a", encoding="utf-8") as file,
        ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver")) as pool,
    ):
        futures = [pool.submit(once, str(surfaces), job, repeats) for job in todo]
        for count, future in enumerate(as_completed(futures), start=1):
            if (error := future.exception()) is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                raise error
            line = future.result()
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
            file.flush()
            print(f"{count}/{len(todo)} {line['table']} {line['strategy']} {line['slots']}: {line['seconds']} s each, "
                  f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip


def _lines(raw: Path) -> list[dict[str, Any]]:
    if not raw.exists():
        return []
    return [json.loads(line) for line in raw.read_text(encoding="utf-8").splitlines() if line.strip()]


class Cell:
    """What one strategy did on one table with so many slots."""

    def __init__(self, line: dict[str, Any]) -> None:
        self.line = line
        self.regrets = [[math.inf if value is None else value for value in seed] for seed in line["regrets"]]

    def at(self, cost: float) -> list[float]:
        index = min(range(len(GRID)), key=lambda place: abs(GRID[place] - cost))
        return [seed[index] for seed in self.regrets]

    def median(self, cost: float) -> float:
        return statistics.median(self.at(cost))

    def cost_to_reach(self, regret: float) -> float:
        return next((cost for cost in GRID if self.median(cost) <= regret + 1e-12), math.inf)


def report(raw: Path, surfaces: Path) -> None:
    cells = {(line["table"], line["strategy"], line["slots"]): Cell(line) for line in _lines(raw)}
    found = tables(surfaces)
    print(halves(cells, found))
    for slots in SLOTS:
        print(f"\n### {slots} slot{'s' if slots > 1 else ''}, tables with curves\n")
        print(with_curves(cells, found, slots))
    print("\n### Tables without curves, one slot\n")
    print(without_curves(cells, found, 1))
    print("\n### Against each other strategy\n")
    print(against(cells))
    plots(cells, found)


def kind(name: str) -> str:
    return "design" if name in DESIGN else "confirm"


def halves(cells: dict[tuple[str, str, int], Cell], found: dict[str, Table]) -> str:
    """The headline: the cost at which ours is as good as Optuna's default is at 20."""
    rows = ["| tables | slots | number | cost ratio, median (quartiles) | at half or less | better than Optuna's default at equal cost | worse beyond the interval |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    for group, names in _groups(found).items():
        for slots in SLOTS:
            ratios, worse, better = [], [], 0
            for name in names:
                ours, theirs = cells.get((name, "hpo auto", slots)), cells.get((name, "optuna default", slots))
                if ours is None or theirs is None:
                    continue
                ratios.append(ours.cost_to_reach(theirs.median(BUDGET)) / BUDGET)
                gap = difference(ours.at(BUDGET), theirs.at(BUDGET))
                better += gap.high < 0
                if gap.low > 0:
                    worse.append(name)
            if ratios:
                ratios.sort()
                quarter = len(ratios) // 4
                rows.append(
                    f"| {group} | {slots} | {len(ratios)} | **{_ratio(statistics.median(ratios))}** "
                    f"({_ratio(ratios[quarter])} to {_ratio(ratios[-1 - quarter])}) | "
                    f"{sum(ratio <= 0.5 for ratio in ratios)} | {better} | {', '.join(worse) or 'none'} |"
                )
    return "\n".join(rows)


def _groups(found: dict[str, Table]) -> dict[str, list[str]]:
    made: dict[str, list[str]] = {}
    for part in ("design", "confirm"):
        for label, holds in (("with curves", True), ("without curves", False)):
            made[f"{part}, {label}"] = [
                name for name, table in found.items() if kind(name) == part and curved(table) is holds
            ]
    made["all"] = list(found)
    return made


def _ratio(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.2f}"


def _figure(value: float) -> str:
    if math.isinf(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"


def with_curves(cells: dict[tuple[str, str, int], Cell], found: dict[str, Table], slots: int) -> str:
    names = [name for name, table in found.items() if curved(table)]
    strategies = _in_order(key[1] for key in cells if key[2] == slots and key[0] in names)
    rows = ["| table | | " + " | ".join(strategies) + " |", "|---|---|" + "---|" * len(strategies)]
    for name in names:
        for cost in (10.0, 20.0):
            row = []
            for strategy in strategies:
                cell = cells.get((name, strategy, slots))
                if cell is None:
                    row.append("")
                    continue
                interval = bootstrap(cell.at(cost))
                text = _figure(interval.middle)
                if not math.isinf(interval.low):
                    text += f" ({_figure(interval.low)} to {_figure(interval.high)})"
                row.append(f"**{text}**" if strategy == "hpo auto" else text)
            label = f"{name}, {kind(name)}" if cost == 10.0 else ""
            rows.append(f"| {label} | {cost:.0f} | " + " | ".join(row) + " |")
    return "\n".join(rows)


def _in_order(strategies: Iterable[str]) -> list[str]:
    order = {name: place for place, name in enumerate([*(own.name for own in OURS), *PEERS])}
    return sorted(set(strategies), key=lambda name: (order.get(name, len(order)), name))


def without_curves(cells: dict[tuple[str, str, int], Cell], found: dict[str, Table], slots: int) -> str:
    """Medians of samplers, at 10 and at 20."""
    names = [name for name, table in found.items() if not curved(table)]
    strategies = _in_order(key[1] for key in cells if key[2] == slots and key[0] in names)
    rows = ["| table | " + " | ".join(strategies) + " | cost ratio |", "|---|" + "---|" * (len(strategies) + 1)]
    for name in names:
        if not {(name, "hpo auto", slots), (name, "optuna default", slots)} <= cells.keys():
            continue
        at_budget = {one: cells[name, one, slots].median(BUDGET) for one in strategies if (name, one, slots) in cells}
        row = []
        for strategy in strategies:
            if strategy not in at_budget:
                row.append("")
                continue
            last = _figure(at_budget[strategy])
            last = f"**{last}**" if strategy == "hpo auto" else last
            row.append(f"{_figure(cells[name, strategy, slots].median(BUDGET / 2))}, {last}")
        ratio = cells[name, "hpo auto", slots].cost_to_reach(at_budget["optuna default"]) / BUDGET
        rows.append(f"| {name}, {kind(name)} | " + " | ".join(row) + f" | {_ratio(ratio)} |")
    return "\n".join(rows)


def against(cells: dict[tuple[str, str, int], Cell]) -> str:
    """How often ours is better, pair by pair, and where it is worse beyond the interval."""
    rows = ["| strategy | slots | tables | ours is better, share of pairs, at 10 | at 20 | ours is worse beyond 95%, at 20 |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    strategies = _in_order(key[1] for key in cells if key[1] != "hpo auto")
    for strategy in strategies:
        for slots in SLOTS:
            names = [key[0] for key in cells if key[1] == strategy and key[2] == slots]
            wins: dict[float, list[float]] = {10.0: [], 20.0: []}
            worse = []
            for name in names:
                ours, theirs = cells.get((name, "hpo auto", slots)), cells[name, strategy, slots]
                if ours is None:
                    continue
                for cost, found in wins.items():
                    one, other = ours.at(cost)[: len(theirs.regrets)], theirs.at(cost)
                    found.append(probability_smaller(one, other))
                one, other = ours.at(20.0)[: len(theirs.regrets)], theirs.at(20.0)
                if difference(one, other).low > 0:
                    worse.append(name)
            if wins[20.0]:
                rows.append(
                    f"| {strategy} | {slots} | {len(wins[20.0])} | {statistics.fmean(wins[10.0]):.2f} | "
                    f"{statistics.fmean(wins[20.0]):.2f} | {', '.join(worse) or 'none'} |"
                )
    return "\n".join(rows)


def plots(cells: dict[tuple[str, str, int], Cell], found: dict[str, Table]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "curves"  # the same figures are the same file
    from matplotlib import pyplot

    names = [name for name, table in found.items() if curved(table)]
    shown = ("hpo auto", "optuna default", "random", "tpe + hyperband", "one rung, top 4", "syne-tune asha",
             "ray tune asha optuna")  # fmt: skip
    columns = 3
    figure, grid = pyplot.subplots(-(-len(names) // columns), columns, figsize=(12, 3 * -(-len(names) // columns)),
                                   layout="constrained", squeeze=False)  # fmt: skip
    for axes in grid.flat[len(names) :]:
        axes.axis("off")
    for axes, name in zip(grid.flat, names, strict=False):
        for strategy in shown:
            cell = cells.get((name, strategy, 1))
            if cell is None:
                continue
            middle = [cell.median(cost) for cost in GRID]
            line = axes.plot(GRID, [value if math.isfinite(value) else math.nan for value in middle], label=strategy,
                             linewidth=2.2 if strategy == "hpo auto" else 1.2)[0]  # fmt: skip
            if strategy in ("hpo auto", "optuna default"):
                low, high = zip(*((sorted(cell.at(cost))[len(cell.regrets) // 4],
                                   sorted(cell.at(cost))[3 * len(cell.regrets) // 4]) for cost in GRID), strict=True)  # fmt: skip
                axes.fill_between(GRID, [v if math.isfinite(v) else math.nan for v in low],
                                  [v if math.isfinite(v) else math.nan for v in high], alpha=0.12,
                                  color=line.get_color(), linewidth=0)  # fmt: skip
        axes.set_title(f"{name} ({kind(name)})", fontsize=9)
        axes.set_yscale("symlog", linthresh=0.01)
        axes.tick_params(labelsize=7)
    grid[0][0].legend(frameon=False, fontsize=7)
    figure.supxlabel("cost in whole trainings")
    figure.supylabel("median distance to the best, nats")
    figure.savefig(HERE / "curves.svg", metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("raw", type=Path)
    parser.add_argument("--surfaces", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="strategies whose name has this in it")
    given = parser.parse_args()
    if given.command == "run":
        run(given.raw, given.surfaces, given.repeats, given.workers, given.only)
    else:
        report(given.raw, given.surfaces)


if __name__ == "__main__":
    main()
