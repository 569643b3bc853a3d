"""What a study found, for people and for programs: its tables and its JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpo.journal import TrialRecord
from hpo.outlook import Bill, bill, rates_of
from hpo.promote import Promotion
from hpo.repeats import repeats_json, repeats_view
from hpo.spending import Rates, Spent, spent
from hpo.statistics import expected_curve
from hpo.summary import Summary
from hpo.tradeoffs import front_json, front_view
from hpo.trials import Direction, Ending
from hpo.wording import STYLES, duration, number


def gain(summary: Summary) -> str | None:
    """What the search gained over the baseline, as one sentence."""
    baseline, best = summary.baseline, summary.best
    if baseline is None or best is None or baseline.value is None or best.value is None:
        return None
    metric = summary.record.metric["name"]
    if best.number == baseline.number:
        return f"No trial beat the baseline: {metric} {number(baseline.value)}."
    change = f"{metric} {number(baseline.value)} -> {number(best.value)}"
    if baseline.value:
        change += f" ({100 * (best.value - baseline.value) / abs(baseline.value):+.1f}%)"
    return f"Trial {best.number} beats the baseline: {change}."


def study_table(summaries: list[Summary]) -> Table:
    """One line a study, for `hpo list`."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("study", "state", "trials", "metric", "baseline", "best", "objective"):
        table.add_column(column, justify="right" if column in ("trials", "baseline", "best") else "left")
    for summary in summaries:
        baseline, best = summary.baseline, summary.best
        table.add_row(
            summary.record.name,
            Text(summary.state, style=STYLES.get(summary.state, "")),
            f"{len(summary.history.ended)}/{summary.record.search['trials']}",
            summary.record.metric["name"],
            number(baseline.value if baseline else None),
            number(best.value if best else None),
            summary.record.objective,
        )
    return table


def trial_table(summary: Summary) -> Table:
    """One line a trial, best first, for `hpo show`."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = list(summary.record.space)
    for name in ("trial", "state", summary.record.metric["name"], "progress", "time", *names):
        # Names break at their joints, so that a screen of 80 columns still shows every value whole.
        table.add_column(
            re.sub(r"([/._])", "\\1\n", name), justify="left" if name == "state" else "right", no_wrap=True
        )
    best = summary.best
    for trial in sorted(summary.trials, key=lambda trial: _rank(summary, trial)):
        state = summary.state_of(trial)
        table.add_row(
            Text(trial.label, style="bold green" if trial is best else ""),
            Text(state, style=STYLES.get(state, "")),
            number(trial.value),
            number(trial.progress),
            duration(trial.seconds),
            *(number(trial.parameters.get(name)) for name in names),
        )
    return table


def _rank(summary: Summary, trial: TrialRecord) -> tuple[int, float, int]:
    """Complete trials by value, then the others by how far they came."""
    if trial.ending is Ending.COMPLETE and trial.value is not None:
        return (0, trial.value if summary.direction is Direction.MINIMIZE else -trial.value, trial.number)
    return (1, -trial.progress, trial.number)


def study_view(summary: Summary, promotions: Sequence[Promotion] = ()) -> RenderableType:
    """The whole of `hpo show NAME`."""
    record = summary.record
    head = Text.assemble(
        (record.name, "bold"), "  ", (summary.state, STYLES.get(summary.state, "bold")),
        f"  {len(summary.history.ended)} of {record.search['trials']} trials ended",
        f"  {record.metric['direction']} {record.metric['name']}",
        *(f", {one['direction']} {one['name']}" for one in record.tradeoff),
    )  # fmt: skip
    parts: list[RenderableType] = [head]
    if summary.history.reason:
        parts.append(Text(summary.history.reason, style="red"))
    parts += [Text(), trial_table(summary), Text(), *front_view(summary)]
    if (sentence := gain(summary)) is not None:
        parts.append(Text(sentence, style="bold"))
    parts += repeats_view(summary)
    failed = [t for t in summary.trials if t.ending is not None and t.ending.is_failure]
    parts += [Text(f"trial {t.number} {t.state}: {t.reason}", style="red") for t in failed[:5]]
    parts += [Text(_promoted(promotion)) for promotion in promotions]
    parts += drawn_view(summary)
    if summary.history.trials:
        parts += [Text(), *cost_view(summary)]
    return Group(*parts)


def drawn_view(summary: Summary) -> list[RenderableType]:
    """What random search is expected to find with so many trials, from those that were drawn at random."""
    values = summary.drawn_values
    if not values:
        return []
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("random trials", f"expected best {summary.record.metric['name']}", "95% interval"):
        table.add_column(column, justify="right")
    curve = expected_curve(values, minimize=summary.direction is Direction.MINIMIZE)
    for count, best in curve:
        table.add_row(str(count), number(best.middle), f"{number(best.low)} to {number(best.high)}")
    bad = sum(trial.ending is not Ending.COMPLETE for trial in summary.drawn)
    text = f"from {len(values)} trials that were drawn at random and never stopped"
    if bad:
        text += f"; {bad} of them could not be trained to the end, and count as the worst"
    if len(values) < 20:
        text += "; so few say little"
    return [Text(), *([table] if curve else []), Text(text)]


def cost_view(summary: Summary) -> list[RenderableType]:
    """What each ending cost, what early stopping saved, and how often trials began again."""
    found, rates = bill(summary.history), rates_of(summary.record)
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = ("what it cost", "trials", "time", rates.unit, "share")
    for column in columns if rates.price_per_gpu_hour is None else (*columns, "cost"):
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for share in found.shares:
        state = "interrupted" if share.state == "running" and not summary.live else share.state
        _cost_row(table, (state, share.trials, share.seconds, share.share), rates)
    _cost_row(table, ("all", len(summary.trials), found.seconds, 1.0), rates)
    parts: list[RenderableType] = [table]
    if summary.history.elapsed:
        parts.append(Text(f"in {duration(summary.history.elapsed)} of wall time"))
    if found.saved:
        text = f"early stopping saved {duration(found.saved)} of training"
        parts.append(Text(f"{text}, {100 * found.saved_share:.0f}% of what the same trials would have taken in full"))
    if found.setbacks:
        listed = ", ".join(f"{count} {word}" for word, count in sorted(found.setbacks.items()))
        parts.append(Text(f"trials that began again from their last checkpoints: {listed}"))
    return parts


def _cost_row(table: Table, row: tuple[str, int, float, float], rates: Rates) -> None:
    state, trials, seconds, share = row
    amount = Spent.of(seconds, seconds, rates)
    cells = [str(trials), duration(seconds), number(amount.gpu_hours, 3), f"{100 * share:.0f}%"]
    if amount.cost is not None:
        cells.append(number(amount.cost, 3))
    table.add_row(Text(state, style=STYLES.get(state, "")), *cells)


def _promoted(promotion: Promotion) -> str:
    """One line on a promotion, from the trial to the model."""
    line = f"promotion {promotion.number}: trial {promotion.trial} trained in full"
    if not promotion.done:
        return f"{line}, not finished; hpo promote {promotion.study} goes on"
    line += ": " + ", ".join(f"{name} {number(value)}" for name, value in sorted(promotion.test.items()))
    registered = promotion.registered
    if registered.get("version"):
        line += f"; models:/{registered['name']}/{registered['version']}"
        line += " (champion when it was registered)" if registered["alias"] else ""
    return line


def trial_view(summary: Summary, trial: TrialRecord) -> RenderableType:
    """The whole of `hpo show NAME TRIAL`: its settings and its curve."""
    state = summary.state_of(trial)
    head = Text.assemble((f"{summary.record.name} trial {trial.number}", "bold"), "  ", (state, STYLES.get(state, "")))
    if trial.reason:
        head.append(f"  {trial.reason}")
    settings = Table(box=None, header_style="bold", pad_edge=False)
    settings.add_column("setting")
    settings.add_column("value")
    settings.add_column("")
    for name, value in trial.settings.items():
        settings.add_row(name, number(value, 6), "searched" if name in trial.parameters else "")
    curve = Table(box=None, header_style="bold", pad_edge=False)
    curve.add_column("progress", justify="right")
    names = list(dict.fromkeys(name for m in trial.measurements for name in m.metrics))
    for name in names:
        curve.add_column(name, justify="right")
    for measurement in trial.measurements:
        curve.add_row(number(measurement.progress), *(number(measurement.metrics.get(name)) for name in names))
    return Group(
        head,
        Text(f"seed {trial.seed}, {duration(trial.seconds)} of training"),
        Text(),
        settings,
        Text(),
        curve,
    )


def promotion_view(promotion: Promotion, model: Path) -> RenderableType:
    """What a promotion found: the winner beside the baseline on the test split, and its place in the registry."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("test split", "this model", "baseline"):
        table.add_column(column, justify="left" if column == "test split" else "right")
    for name, value in sorted(promotion.test.items()):
        table.add_row(name, number(value), number(promotion.baseline_test.get(name)))
    lines = [f"promotion {promotion.number} of {promotion.study}: trial {promotion.trial}, saved in {model}"]
    registered = promotion.registered
    if registered.get("version"):
        alias = f" and the champion ({registered['verdict']})" if registered["alias"] else ""
        lines.append(f"registered as models:/{registered['name']}/{registered['version']}{alias}")
        if not alias:
            lines.append(f"not the champion: {registered['verdict']}")
    elif registered:
        lines.append(registered["verdict"])
    return Group(Text(lines[0]), Text(), table, Text(), *(Text(line) for line in lines[1:]))


# -- JSON ---------------------------------------------------------------------------------------------


def _plain(value: float | None) -> float | None:
    """JSON has no NaN or infinity: they are null, and the state says why."""
    return value if value is not None and math.isfinite(value) else None


def trial_json(summary: Summary, trial: TrialRecord) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": summary.state_of(trial),
        "params": trial.parameters,
        "value": _plain(trial.value),
        "progress": trial.progress,
        "seconds": trial.seconds,
        "metrics": {name: _plain(value) for name, value in trial.metrics.items()},
        "reason": trial.reason,
    }


def study_json(summary: Summary) -> dict[str, Any]:
    """The study as `hpo show --json` prints it."""
    baseline, best = summary.baseline, summary.best
    return {
        "name": summary.record.name,
        "state": summary.state,
        "metric": summary.record.metric["name"],
        "direction": summary.direction.value,
        "baseline": None if baseline is None else trial_json(summary, baseline),
        "best": None if best is None else trial_json(summary, best),
        "trials": [trial_json(summary, trial) for trial in summary.trials],
        **front_json(summary),
        **repeats_json(summary),
        "spent": _cost_json(summary, bill(summary.history)),
        **_drawn_json(summary),
    }


def _drawn_json(summary: Summary) -> dict[str, Any]:
    values = summary.drawn_values
    if not values:
        return {}
    curve = expected_curve(values, minimize=summary.direction is Direction.MINIMIZE)
    best = [{"trials": n, "value": one.middle, "low": one.low, "high": one.high} for n, one in curve]
    return {"unbiased": {"trials": [trial.number for trial in summary.drawn], "expected_best": best}}


def _cost_json(summary: Summary, found: Bill) -> dict[str, Any]:
    rates = rates_of(summary.record)
    total = spent(summary.history, rates)
    return {
        "wall_seconds": summary.history.elapsed,
        "slot_seconds": found.seconds,
        "gpu_hours": total.gpu_hours,
        "unit": rates.unit,
        "cost": total.cost,
        "endings": {
            share.state: {"trials": share.trials, "seconds": share.seconds, "share": share.share}
            for share in found.shares
        },
        "saved_by_early_stopping_seconds": found.saved,
        "setbacks": dict(found.setbacks),
    }
