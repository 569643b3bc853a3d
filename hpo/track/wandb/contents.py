"""A study's runs as W&B shows them: pure functions from the record and the history. Knows nothing of the library.

The same history gives the same content, whatever was written before; the digest says whether it has changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpo.folder import StudyRecord
from hpo.journal import History, TrialRecord
from hpo.outlook import spend_curve, spending_words
from hpo.track import spelling
from hpo.track.mlflow.registry import PromotionRun
from hpo.track.progress import best_trial, counts, optimisation_curve, setbacks, summary
from hpo.trials import Direction

PROGRESS, TRIAL, TABLE = "progress", "trial", "trials"
_SET_ASIDE = 255  # what W&B itself records of a run that was stopped by Ctrl-C
_STUDY_EXIT = {"running": None, "finished": 0, "failed": 1}
_DIED = "the coordinator died; hpo resume goes on"


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows."""

    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True, slots=True)
class Content:
    """One W&B run.

    Attributes:
        id: follows from the study; never another run's.
        job_type: "study", "trial" or "promotion".
        axis: the metric that all others are drawn over.
        rows: of its history, in order, each with `_timestamp` in seconds since the epoch.
        exit_code: None while it goes on; 0 ended well, 255 set aside, else failed.
    """

    id: str
    name: str
    group: str
    job_type: str
    axis: str
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    notes: str = ""
    tags: tuple[str, ...] = ()
    exit_code: int | None = None
    table: Table | None = None
    version: int = field(default=1)

    def digest(self) -> str:
        """Of all that is written."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Content:
        table = fields.get("table")
        return cls(**{**fields, "tags": tuple(fields["tags"]), "table": None if table is None else Table(**table)})


def group(record: StudyRecord) -> str:
    """What a study's runs have in common at W&B. The id is part of it: a name may be used again."""
    return f"{record.name}-{record.id[:8]}"


def trial_run(record: StudyRecord, trial: TrialRecord, *, left: bool) -> Content:
    """A trial. `left`: nobody runs it any more, so that one which has not ended is set aside."""
    ending = trial.ending
    rows = [
        {PROGRESS: measurement.progress, **numbers(measurement.metrics), "_timestamp": at}
        for at, measurement in zip(trial.measured_at, trial.measurements, strict=True)
    ]
    found: dict[str, Any] = {"hpo/ending": trial.state, "hpo/attempts": trial.attempts}
    if ending is not None or left:
        found["hpo/ending"] = "interrupted" if ending is None else ending.value
        found["hpo/seconds"] = trial.seconds
    if trial.reason:
        found["hpo/reason"] = trial.reason
    if trial.setbacks:
        found |= {"hpo/setbacks": setbacks(trial), "hpo/divide": trial.divide}
    if trial.value is not None:
        found["hpo/value"] = spelling.number(trial.value)
        if record.metric.get("at") == "best":
            found[f"best/{key(record.metric['name'])}"] = spelling.number(trial.value)
    exit_code = None
    if ending is not None:
        exit_code = 1 if ending is not None and ending.is_failure else 0
    elif left:
        exit_code = _SET_ASIDE
    own = {"study": record.name, "study_id": record.id, "trial": trial.number, "seed": trial.seed}
    own |= {"baseline": trial.number == 0, "started_at": trial.started_at}
    return Content(
        id=f"{record.id}-{trial.number:04d}",
        name=f"trial-{trial.number:04d}",
        group=group(record),
        job_type="trial",
        axis=PROGRESS,
        config={**nested({**trial.settings, **trial.parameters}), "hpo": own},
        rows=rows,
        summary=found,
        notes=_trial_notes(trial),
        tags=("baseline",) if trial.number == 0 else ("repeat",) if trial.repeat else (),
        exit_code=exit_code,
    )


def _trial_notes(trial: TrialRecord) -> str:
    if trial.ending is not None and trial.reason:
        return f"{trial.ending.value}: {trial.reason}"
    if trial.repeat:
        return f"The baseline once more, with seed {trial.seed}."
    return "The baseline: what one would use without a search." if trial.number == 0 else ""


def study_run(record: StudyRecord, history: History, *, left: bool) -> Content:
    """The study itself: the best so far by trial number, how many ended how, and all trials as a table.

    left: nobody runs it any more, whatever its last line says.
    """
    died = left and history.state == "running"
    state, reason = ("interrupted", _DIED) if died else (history.state, history.reason)
    found: dict[str, Any] = {f"search/trials_{word}": n for word, n in counts(history).items()}
    found |= {"hpo/state": f"{state}: {reason}" if reason else state}
    best = best_trial(history, Direction(record.metric["direction"]))
    if best is not None and best.value is not None:
        found |= {"hpo/best_trial": best.number, "hpo/best_value": spelling.number(best.value)}
        found |= {f"hpo/best/{name}": value for name, value in best.parameters.items()}
    exit_code = _STUDY_EXIT.get(state, _SET_ASIDE)
    return Content(
        id=f"{record.id}-study",
        name=record.name,
        group=group(record),
        job_type="study",
        axis=TRIAL,
        config=_study_config(record),
        rows=_study_rows(record, history),
        summary=found,
        notes=f"{summary(history, record, lambda number: '')}\n\n{spending_words(history, record)}",
        exit_code=exit_code,
        table=None if exit_code is None else trials_table(record, history),
    )


def _study_rows(record: StudyRecord, history: History) -> list[dict[str, Any]]:
    """The best so far and the cost so far, by trial; what is added later stands at the end."""
    short = spelling.name(record.metric["name"]).replace("/", "_")
    rows: dict[int, dict[str, Any]] = {}
    for cost in spend_curve(history, record):
        rows[cost.number] = {TRIAL: cost.number, **cost.metrics, "_timestamp": cost.at}
    for point in optimisation_curve(history, Direction(record.metric["direction"])):
        row = rows.setdefault(point.number, {TRIAL: point.number, "_timestamp": point.at})
        row[f"search/best_{short}"] = spelling.number(point.best)
        if point.baseline is not None:
            row[f"search/baseline_{short}"] = spelling.number(point.baseline)
    return [rows[number] for number in sorted(rows)]


def _study_config(record: StudyRecord) -> dict[str, Any]:
    search = {name: record.search[name] for name in ("sampler", "pruner", "seed", "rungs")}
    return {
        "objective": record.objective,
        "metric": dict(record.metric),
        "search": search,
        "space": dict(record.space),
        "fixed": nested(record.fixed),
        "facts": dict(record.facts),
        "versions": dict(record.versions),
        "hpo": {"study": record.name, "study_id": record.id, "sweep": record.origin},
    }


def trials_table(record: StudyRecord, history: History) -> Table:
    """All trials, a row each: how it ended, its value, its parameters, its last metrics."""
    trials = [history.trials[number] for number in sorted(history.trials)]
    parameters = list(dict.fromkeys(name for trial in trials for name in trial.parameters))
    metrics = list(dict.fromkeys(name for trial in trials for name in trial.metrics))
    columns = ["trial", "ending", "value", PROGRESS, "seconds", *parameters, *map(key, metrics), "reason"]
    rows = [
        [
            trial.number,
            "interrupted" if trial.ending is None else trial.ending.value,
            None if trial.value is None else spelling.number(trial.value),
            trial.progress,
            trial.seconds,
            *(trial.parameters.get(name) for name in parameters),
            *(spelling.number(trial.metrics[name]) if name in trial.metrics else None for name in metrics),
            trial.reason,
        ]
        for trial in trials
    ]
    return Table(columns, rows)


def promotion_run(record: StudyRecord, promotion: PromotionRun) -> Content:
    """A full run: its curve, and what the test says of it and of the baseline."""
    found: dict[str, Any] = {}
    for title, results in (("test", promotion.test), ("baseline_test", promotion.baseline_test)):
        for name, value in results.items():
            found[spelling.name(f"{title}/{name.removeprefix('test/')}")] = spelling.number(value)
    own = {"study": record.name, "study_id": record.id, "trial": promotion.trial, "promotion": promotion.number}
    return Content(
        id=f"{record.id}-promotion-{promotion.number:04d}",
        name=f"promotion-{promotion.number:04d}",
        group=group(record),
        job_type="promotion",
        axis=PROGRESS,
        config={**nested(promotion.settings), "hpo": own},
        rows=[
            {PROGRESS: measurement.progress, **numbers(measurement.metrics), "_timestamp": at}
            for at, measurement in promotion.curve
        ],
        summary=found,
        notes=f"The full run of trial {promotion.trial} of study {record.name}.",
        exit_code=None if promotion.ended_at is None else 0,
    )


def key(written: str) -> str:
    """A metric's name: as MLflow has it, but not one that W&B or this room uses itself."""
    spelled = spelling.name(written)
    return f"metric/{spelled}" if spelled.startswith("_") or spelled in (PROGRESS, TABLE) else spelled


def numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics as they are stored: unrounded, infinity as NaN."""
    return {key(name): spelling.number(value) for name, value in metrics.items()}


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name as a tree, which is how W&B shows a dot.

    Where one name is the beginning of another ("a" and "a.b"), the longer one keeps its dots.
    """
    tree: dict[str, Any] = {}
    for name, value in settings.items():
        parts = name.split(".")
        if any(".".join(parts[:length]) in settings for length in range(1, len(parts))):
            tree[name] = value
            continue
        branch = tree
        for part in parts[:-1]:
            branch = branch.setdefault(part, {})
        branch[parts[-1]] = value
    return tree
