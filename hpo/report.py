"""What a study found, for people and for programs: the summary, its tables, its JSON.

Reads the journal and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpo.journal import History, StudyFolder, StudyRecord, TrialRecord, is_locked
from hpo.trials import Direction, Ending

STYLES = {
    "complete": "green",
    "stopped": "yellow",
    "running": "cyan",
    "interrupted": "magenta",
    "diverged": "red",
    "out of memory": "red",
    "killed": "red",
    "failed": "red",
}


@dataclass(frozen=True)
class Summary:
    """A study as its journal stands."""

    record: StudyRecord
    history: History
    live: bool

    @classmethod
    def read(cls, folder: StudyFolder) -> Summary:
        return cls(StudyRecord.read(folder), History.read(folder.journal), is_locked(folder))

    @property
    def direction(self) -> Direction:
        return Direction(self.record.metric["direction"])

    @property
    def trials(self) -> list[TrialRecord]:
        return [self.history.trials[number] for number in sorted(self.history.trials)]

    @property
    def state(self) -> str:
        """running, finished, interrupted, failed or new. A dead coordinator leaves an interrupted study."""
        if self.live:
            return "running"
        return "interrupted" if self.history.state == "running" else self.history.state

    def state_of(self, trial: TrialRecord) -> str:
        return "interrupted" if trial.state == "running" and not self.live else trial.state

    @property
    def baseline(self) -> TrialRecord | None:
        return self.history.trials.get(0)

    @property
    def best(self) -> TrialRecord | None:
        """The best trial that was trained in full; stopped ones have no comparable value."""
        complete = [t for t in self.trials if t.ending is Ending.COMPLETE and t.value is not None]
        if not complete:
            return None
        key = 1.0 if self.direction is Direction.MINIMIZE else -1.0
        return min(complete, key=lambda trial: key * (trial.value if trial.value is not None else math.inf))


# -- numbers for people -------------------------------------------------------------------------------


def number(value: object, digits: int = 4) -> str:
    """A setting or a metric at four significant digits, without trailing noise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if math.isfinite(value) and 1e4 <= abs(value) < 1e12:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """Time as people say it: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def parameters(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())


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


# -- tables -------------------------------------------------------------------------------------------


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
    table.add_column("trial", justify="right")
    table.add_column("state")
    table.add_column(summary.record.metric["name"], justify="right")
    table.add_column("progress", justify="right")
    table.add_column("time", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    best = summary.best
    for trial in sorted(summary.trials, key=lambda trial: _rank(summary, trial)):
        state = summary.state_of(trial)
        label = f"{trial.number}{' (baseline)' if trial.protected else ''}"
        table.add_row(
            Text(label, style="bold green" if trial is best else ""),
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


def study_view(summary: Summary) -> RenderableType:
    """The whole of `hpo show NAME`."""
    record = summary.record
    head = Text.assemble(
        (record.name, "bold"), "  ", (summary.state, STYLES.get(summary.state, "bold")),
        f"  {len(summary.history.ended)} of {record.search['trials']} trials ended",
        f"  {record.metric['direction']} {record.metric['name']}",
    )  # fmt: skip
    parts: list[RenderableType] = [head]
    if summary.history.reason:
        parts.append(Text(summary.history.reason, style="red"))
    parts += [Text(), trial_table(summary), Text()]
    if (sentence := gain(summary)) is not None:
        parts.append(Text(sentence, style="bold"))
    failed = [t for t in summary.trials if t.ending in (Ending.FAILED, Ending.KILLED, Ending.OUT_OF_MEMORY)]
    parts += [Text(f"trial {t.number} {t.state}: {t.reason}", style="red") for t in failed[:5]]
    return Group(*parts)


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
    }
