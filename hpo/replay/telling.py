"""What came of a replay, in words, as a table and as a plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from hpo.replay.contest import Result
from hpo.replay.modelled import Answers
from hpo.replay.tables import Table
from hpo.replay.volume import Volume
from hpo.statistics import bootstrap
from hpo.tradeoff import sign
from hpo.wording import duration, number


def about(table: Table, continued: int, error: float | None) -> list[str]:
    """What is replayed, and what of it is a guess."""
    whole = sum(row.complete for row in table.rows)
    against = "".join(f", {one.direction} {one.name}" for one in table.others)
    lines = [
        f"{table.name}: {len(table.rows)} recorded trials, {table.metric.direction} {table.metric.name}{against}; "
        f"the best is {number(table.best)}"
        + (f" ({table.metric.name})" if table.others else "")
        + (f", a whole trial costs {_cost(table.full_cost, table)} on average" if len(table.rows) > 1 else "")
    ]
    if continued:
        miss = (
            "" if error is None else f"; such a guess misses by {number(error, 2)} (median, trials cut off on purpose)"
        )
        lines.append(
            f"{continued} of them were stopped early: from there they go on here as the {whole - continued} trained in "
            f"full did on average, which is a guess{miss}"
        )
    if table.volume is not None:
        ends = ", ".join(
            f"{metric.name} {number(sign(metric) * end)}"
            for metric, end in zip(table.tradeoff.metrics, table.volume.reference, strict=True)
        )
        lines.append(
            f"a trade-off: {len(table.volume.front)} of the {len(table.rows)} are the front. Searches are compared by "
            f"hypervolume: of what the front dominates, up to {ends}, the share that those trained in full dominate"
        )
    return lines


def _cost(value: float, table: Table) -> str:
    return duration(value) if table.cost_unit == "seconds" else f"{number(value, 3)} {table.cost_unit}"


def backtest_view(results: Sequence[Result]) -> RenderableType:
    """Stopping rules on the trials of a study, in the order in which they were run."""
    grid = Grid(box=None, header_style="bold", pad_edge=False, title_justify="left")
    volume = results[0].table.volume
    found = ("best found", "the winner") if volume is None else ("hypervolume", "the front")
    for column in ("stopping rule, the same trials", "cost", "saved", "in full", *found):
        grid.add_column(column, justify="left" if column == "stopping rule, the same trials" else "right")
    for result in results:
        whole = sum(row.cost for row in result.table.rows)
        spent = statistics.median(one.spent for one in result.replays)
        full = statistics.median(len(one.steps) for one in result.replays)
        regrets = result.regrets()
        kept = sum(regret <= 1e-12 for regret in regrets) / len(result.replays)
        grid.add_row(
            result.entrant.name,
            _cost(spent, result.table),
            f"{100 * max(0.0, 1 - spent / whole):.0f}%",
            f"{full:.0f} of {len(result.table.rows)}",
            number(statistics.median_low(sorted(_best(result)))) if volume is None else _share(regrets),
            Text("kept", style="green")
            if kept == 1
            else Text(_lost(result, volume) if kept == 0 else f"kept {100 * kept:.0f}%", "red"),
        )
    return grid


def _share(regrets: Sequence[float]) -> str:
    """The median share of the volume, rounded down: 100% is all of it."""
    share = 1.0 - statistics.median(min(regret, 1.0) for regret in regrets)
    return f"{math.floor(1000 * share + 1e-9) / 10:g}%"


def _lost(result: Result, volume: Volume | None) -> str:
    if volume is None:
        return "lost"
    found = statistics.median_low(volume.found(step.point for step in one.steps) for one in result.replays)
    return f"{found} of {len(volume.front)}"


def _best(result: Result) -> list[float]:
    better = result.table.metric.direction.better
    return [value for one in result.replays if (value := one.best(better)) is not None]


def contest_view(results: Sequence[Result], answers: Answers | None = None) -> RenderableType:
    """Searches of a table from new suggestions: what each had found by when, and how well the table answered."""
    terms = results[0].terms
    budget = terms.budget or max(one.spent for result in results for one in result.replays) / results[0].table.full_cost
    shares = [budget / 4, budget / 2, budget]
    grid = Grid(box=None, header_style="bold", pad_edge=False)
    grid.add_column("search")
    for share in shares:
        grid.add_column(f"after {number(share, 3)}", justify="right")
    for column in ("95% interval", "trials", "in full", "curve"):
        grid.add_column(column, justify="left" if column == "curve" else "right")
    for result in results:
        found = bootstrap(result.regrets(budget))
        trials = statistics.median(len(one.off_table) for one in result.replays)
        full = statistics.median(len(one.steps) for one in result.replays)
        grid.add_row(
            result.entrant.name,
            *(_regret(regret) for regret in result.curve(shares)),
            f"{_regret(found.low)} to {_regret(found.high)}",
            f"{trials:.0f}",
            f"{full:.0f}",
            Text(_bars(result, budget), style="cyan"),
        )
    table = results[0].table
    what = (
        "distance to the best recorded" if table.volume is None else "share of the recorded hypervolume still missing"
    )
    head = (
        f"median {what}, when so many whole trainings were paid for: {terms.repeats} searches each, "
        f"{terms.slots} slot{'s' if terms.slots > 1 else ''}; what was not recorded is answered by "
        + ("the nearest that was" if table.model is None else "the model")
        + (", of several and so perhaps beyond the front (below 0)" if table.model is not None and table.volume else "")
    )
    told: list[RenderableType] = []
    if answers is not None:
        told = [answers_view(answers, by_model=table.model is not None)]
        told += [Text(f"(both of {table.metric.name} alone)")] if table.others else []
    return Group(Text(head), grid, *(Text(line) for line in _answered(results)), *told)


def _answered(results: Sequence[Result]) -> list[str]:
    table = results[0].table
    if table.answers is not None:
        return []
    distances = [distance for result in results for one in result.replays for distance in one.off_table]
    if not distances or max(distances) < 1e-9:
        return []
    miss = table.distances
    text = f"asked and recorded configurations are {number(statistics.median(distances), 2)} apart (median, unit cube)"
    if miss:
        text += f"; nearest neighbours among the recorded differ by {number(statistics.median(miss), 2)} (median)"
    return [text]


def answers_view(found: Answers, *, by_model: bool) -> RenderableType:
    """How well both ways answer for what was not recorded, and which of them is better here."""
    grid = Grid(box=None, header_style="bold", pad_edge=False)
    for column in ("what was not recorded is answered by", "misses the final value by", "rank correlation"):
        grid.add_column(column, justify="left" if column.endswith("by") and "what" in column else "right")
    for way, miss in (("the nearest that was", found.nearest), ("a model of all", found.model)):
        grid.add_row(way, number(miss.error, 2), number(miss.correlation, 2))
    terms = f"of {found.trials} trials, left out in {found.folds} parts in turn; medians"
    if found.diverged:
        terms += f". What is nearest to one of the {found.diverged} diverged ends as it did, both ways"
    return Group(grid, Text(terms), _verdict(found, by_model=by_model))


def _verdict(found: Answers, *, by_model: bool) -> Text:
    if found.better is None:
        return Text("each is better in one of both: neither is to be preferred here")
    chosen, other = ("model", "nearest") if by_model else ("nearest", "model")
    if found.better == chosen:
        return Text(f"the {chosen} answers better here")
    text = f"the {chosen} answers WORSE than the {other} here" if by_model else "the model answers better here"
    return Text(f"{text}: --answers {other}", style="yellow")


def _regret(value: float) -> str:
    return "none yet" if math.isinf(value) else number(max(value, 0.0) if abs(value) < 1e-12 else value, 3)


_BARS = "▁▂▃▄▅▆▇█"


def _bars(result: Result, budget: float, width: int = 20) -> str:
    """The median regret over cost, by its logarithm."""
    curve = result.curve([budget * (step + 1) / width for step in range(width)])
    finite = [max(value, 1e-6) for value in curve if math.isfinite(value)]
    if not finite:
        return ""
    low, high = math.log(min(finite)), math.log(max(finite))
    span = (high - low) or 1.0
    return "".join(
        " " if math.isinf(value) else _BARS[round((math.log(max(value, 1e-6)) - low) / span * (len(_BARS) - 1))]
        for value in curve
    )


def plot(results: Sequence[Result], path: Path) -> None:
    """Median regret over cost, with the middle half of the searches, as a picture (by its suffix: .svg, .png)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    terms = results[0].terms
    most = terms.budget or max(one.spent for result in results for one in result.replays) / results[0].table.full_cost
    grid = [most * (step + 1) / 60 for step in range(60)]
    for result in results:
        columns = [sorted(result.regrets(spent)) for spent in grid]
        middle = [_finite(statistics.median(column)) for column in columns]
        line = axes.plot(grid, middle, label=result.entrant.name, linewidth=1.8)[0]
        low = [_finite(column[len(column) // 4]) for column in columns]
        high = [_finite(column[(3 * len(column)) // 4]) for column in columns]
        axes.fill_between(grid, low, high, alpha=0.12, color=line.get_color(), linewidth=0)
    table = results[0].table
    span = 1.0 if table.volume is not None else max(table.values) - min(table.values)
    axes.set_yscale("symlog", linthresh=max(1e-4, span / 1000 or 1e-3))
    axes.set_xlabel("cost in whole trainings")
    axes.set_ylabel(
        f"distance to the best {table.metric.name}" if table.volume is None else "share of the hypervolume missing"
    )
    axes.set_title(f"{table.name}, {terms.slots} slot{'s' if terms.slots > 1 else ''}, {terms.repeats} searches each")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)
    pyplot.close(figure)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
