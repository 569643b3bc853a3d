"""Promotion: a trial's configuration trained in full beside the baseline's, tested on data no trial has seen.

A promotion is a study of two trials that are given, not sampled: the baseline's configuration (0) and the
winner's (1), each with the full-run changes of the sweep's `promote:` section and `--set`. It has a folder, a
journal and a search like any other, and is resumed like any other. Knows nothing of registries
(`hpo.track.mlflow` does) or of what a model is.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from hpo.document import load_yaml
from hpo.errors import HpoError, UserError, did_you_mean
from hpo.folder import StudyFolder, StudyRecord, write_atomically
from hpo.journal import History, TrialRecord
from hpo.launch import Launcher
from hpo.objective import Objective
from hpo.plan import Plan
from hpo.schema import Invalid, flatten
from hpo.summary import Summary
from hpo.trials import Assignment, Direction, Ending, Measured, Metric, Outcome

BASELINE, WINNER = 0, 1
_MEASUREMENTS = 20


@dataclass(frozen=True, slots=True)
class Promotion:
    """What is promoted, and once it is over what came of it; kept as promotion.json.

    Attributes:
        number: counts the promotions of a study from 1.
        trial: whose configuration it is.
        settings: the winner's full-run configuration by dotted name.
        baseline_settings: the baseline's, with the same changes.
        changes: what differs from the trial's own configuration.
        test: the winner's metrics on the test split, once tested.
        baseline_test: the baseline's.
        registered: {"name", "version", "alias", "verdict"} in the model registry, once registered.
    """

    number: int
    study: str
    study_id: str
    trial: int
    created: float
    settings: dict[str, Any]
    baseline_settings: dict[str, Any]
    changes: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    baseline_test: dict[str, float] = field(default_factory=dict)
    registered: dict[str, str] = field(default_factory=dict)
    format: int = 1

    @property
    def done(self) -> bool:
        return bool(self.test)

    def write(self, folder: StudyFolder) -> None:
        write_atomically(folder.root / "promotion.json", json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def promotions(folder: StudyFolder) -> list[Promotion]:
    """A study's promotions, oldest first."""
    paths = sorted(folder.promotions.glob("*/promotion.json"))
    return [Promotion(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def chosen(summary: Summary, number: int | None) -> TrialRecord:
    """The trial to promote: the given one, or the best that was trained in full.

    Raises:
        UserError: there is no such trial, or none that was trained in full.
    """
    name = summary.record.name
    if number is None:
        if summary.best is None:
            raise UserError(f"no trial of study {name!r} was trained in full yet; hpo show {name} says why.")
        return summary.best
    trial = summary.history.trials.get(number)
    if trial is None:
        raise UserError(f"study {name!r} has no trial {number}; it has 0 to {len(summary.trials) - 1}.")
    return trial


def full_run_changes(planned: Plan, assignments: Sequence[str]) -> dict[str, Any]:
    """Settings that a full run changes: the sweep's `promote:`, then `--set`, by dotted name.

    Raises:
        UserError: an assignment is malformed or names no setting.
    """
    schema = planned.objective.schema
    changes = {name: value for _, name, value in flatten(planned.sweep.promote, schema)}
    for text in assignments:
        name, equals, written = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: expected key=value, for example --set tokens=10000000.")
        if schema.unknown(name) is not None:
            raise UserError(f"--set {name}: no such setting.{did_you_mean(name, schema.settings)}")
        changes[name] = load_yaml(f"value: {written}", f"--set {name}")[0]["value"]
    return changes


def draft(
    planned: Plan, folder: StudyFolder, trial: int | None, assignments: Sequence[str]
) -> tuple[Promotion, StudyFolder]:
    """The promotion to run and its folder: an unfinished one of the same configuration, else a new one.

    Raises:
        UserError: nothing to promote, the objective cannot test or save, or the full run's settings do not hold.
    """
    for companion in ("test", "save"):
        if not planned.objective.has(companion):
            raise UserError(
                f"{planned.objective.name} cannot be promoted: its module has no function {companion}(); "
                "see `hpo.objective` for what a promotable objective has."
            )
    summary = Summary.read(folder)
    winner, baseline = chosen(summary, trial), summary.history.trials[BASELINE]
    changes = full_run_changes(planned, assignments)
    earlier = promotions(folder)
    promotion = Promotion(
        number=len(earlier) + 1,
        study=folder.name,
        study_id=summary.record.id,
        trial=winner.number,
        created=time.time(),
        settings={**winner.settings, **changes},
        baseline_settings={**baseline.settings, **changes},
        changes=changes,
    )
    for settings in (promotion.baseline_settings, promotion.settings):
        try:
            planned.objective.config(settings)
        except Invalid as error:
            raise UserError(f"the full run is not allowed: {error}") from None
    for other in earlier:
        same = other.settings == promotion.settings and other.trial == promotion.trial
        if same and not other.registered and not _failed(StudyFolder(folder.promotion(other.number))):
            promotion = other
    return promotion, StudyFolder(folder.promotion(promotion.number))


def _failed(place: StudyFolder) -> bool:
    """Whether one of its runs ended otherwise than complete; a promotion is then begun anew."""
    return any(trial.ending is not Ending.COMPLETE for trial in History.read(place.journal).ended)


class Given:
    """The two trials of a promotion, for `hpo.search`. Only divergence ends one early."""

    def __init__(self, promotion: Promotion, metric: Metric, seed: int, history: History, *, with_rungs: bool) -> None:
        settings = [promotion.baseline_settings, promotion.settings]
        if promotion.settings == promotion.baseline_settings:
            del settings[WINNER]  # the baseline itself is promoted: one run is both
        shares = range(1, _MEASUREMENTS + 1) if with_rungs else ()  # shares of what has no known length are none
        rungs = tuple(Fraction(share, _MEASUREMENTS) for share in shares)
        self._assignments = [
            Assignment(number, {}, own, seed, rungs, protected=number == BASELINE)
            for number, own in enumerate(settings)
        ]
        self._metric = metric
        self._asked = len(history.trials)
        self._curves: dict[int, list[Measured]] = {n: list(t.measurements) for n, t in history.trials.items()}

    @property
    def size(self) -> float:
        return len(self._assignments)

    def ask(self) -> Assignment:
        self._asked += 1
        return self._assignments[self._asked - 1]

    def revive(self, *, last: bool) -> int | None:
        return None

    def pause(self, number: int) -> None:
        """No rule sets a promotion aside."""

    def least(self) -> int | None:
        return None

    def report(
        self, assignment: Assignment, measurement: Measured, *, length: int | None, warmup: int, seconds: float | None
    ) -> Outcome | None:
        value = measurement.metrics.get(self._metric.name)
        self._curves.setdefault(assignment.number, []).append(measurement)
        if value is not None and Metric.of_curve(self._metric, [measurement]) is None:
            return Outcome(Ending.DIVERGED, f"{self._metric.name} is {value} at {measurement.progress:,}")
        return None

    def value(self, number: int) -> float | None:
        return self._metric.of_curve(self._curves.get(number, []))

    def tell(self, number: int, outcome: Outcome) -> None:
        """Nobody learns from a promotion."""


def test(promotion: Promotion, folder: StudyFolder, launcher: Launcher, objective: Objective) -> Promotion:
    """Measure both models on the test split and write the winner's as a model folder.

    Beside what the objective saves, the folder gets an `hpo.json`: which module serves it.

    Raises:
        HpoError: a run did not end well, or the objective could not test or save it.
    """
    history = History.read(folder.journal)
    for trial in history.trials.values():
        if trial.ending is not Ending.COMPLETE:
            role = "baseline" if trial.number == BASELINE else "winner"
            raise HpoError(
                f"the full run of the {role} ended {trial.state}: {trial.reason} (see {folder.trial_log(trial.number)})"
            )
    log = folder.root / "test.log"
    winner = max(history.trials)
    tested = launcher.call("test", promotion.settings, log, directory=folder.trial(winner))
    baseline = tested
    if winner != BASELINE:
        baseline = launcher.call("test", promotion.baseline_settings, log, directory=folder.trial(BASELINE))
    model, fresh = folder.root / "model", folder.root / ".model"
    for leftover in (model, fresh):
        shutil.rmtree(leftover, ignore_errors=True)
    launcher.call("save", promotion.settings, log, directory=folder.trial(winner), destination=fresh)
    served_by = {"objective": objective.name, "serving": getattr(objective.module, "SERVING", None)}
    write_atomically(fresh / "hpo.json", json.dumps(served_by, indent=2) + "\n")
    fresh.rename(model)
    promotion = dataclasses.replace(promotion, test=tested, baseline_test=baseline)
    promotion.write(folder)
    return promotion


def test_metric(metric: str, tested: Mapping[str, float]) -> str:
    """The test metric that answers to a study's metric: "validation/loss" is judged by "test/loss".

    Raises:
        HpoError: the objective's test measures nothing of that name.
    """
    name = f"test/{metric.rsplit('/', 1)[-1]}"
    if name not in tested:
        raise HpoError(f"the objective's test measured {', '.join(sorted(tested)) or 'nothing'}, not {name}.")
    return name


def beats(promotion: Promotion, record: StudyRecord, other: Mapping[str, float]) -> bool:
    """Whether the promoted model is better than `other` on the test split."""
    name = test_metric(record.metric["name"], promotion.test)
    return Direction(record.metric["direction"]).better(promotion.test[name], other[name])


def data_digest(promotion: Promotion) -> str:
    """What the test split is told apart by; models are compared only on the same data."""
    return str(promotion.facts.get("digest", ""))


def model_folder(folder: StudyFolder) -> Path:
    return folder.root / "model"


FRONT_MATTER = "---\ntags: [hpo]\n---\n\n"
"""What the Hugging Face hub reads at the top of a model's README.md."""


# -- the model card -------------------------------------------------------------------------------------


def model_card(
    promotion: Promotion, record: StudyRecord, folder: StudyFolder, model_name: str, use: Sequence[str] = ()
) -> str:
    """A promoted model in Markdown: use, results, data, configuration, commands, versions.

    use: lines of Markdown on how the model is used, from who knows what it is.
    """
    history = History.read(folder.journal)
    winner = history.trials[max(history.trials)]
    metric = record.metric["name"]
    changes = _sets(f"{name}={_written(value)}" for name, value in promotion.changes.items())
    settings = [(name, value, promotion.baseline_settings.get(name)) for name, value in promotion.settings.items()]
    return "\n".join([
        f"# {model_name}", "",
        f"Trial {promotion.trial} of study `{promotion.study}`, trained in full and tested on data that no trial of "
        "the study has seen, beside the study's baseline configuration trained in the same way.", "",
        *(["## Use", "", *use, ""] if use else []),
        "## Results", "", "| metric | this model | baseline |", "|---|---|---|",
        *results(promotion, metric, winner.value, history.trials[BASELINE].value), "",
        _uncertainty(promotion, winner.seed), "",
        "## Data", "", *(f"- {name}: {_cell(value)}" for name, value in promotion.facts.items()), "",
        "## Configuration", "", "| setting | this model | baseline |", "|---|---|---|",
        *(f"| {name} | {_cell(value)} | {_cell(other)} |" for name, value, other in settings), "",
        "Settings that are not listed have the objective's defaults.", "",
        "## How it was made", "", "```",
        f"hpo run {Path(record.origin).name} --name {record.name}{_sets(record.assignments)}",
        f"hpo promote {record.name} --trial {promotion.trial}{changes}", "```", "",
        "## Versions", "", *(f"- {package} {version}" for package, version in record.versions.items()), "",
    ])  # fmt: skip


def results(promotion: Promotion, metric: str, value: float | None, baseline: float | None) -> list[str]:
    """The rows of the card's first table: what the test measured, then the study's own metric at the end."""
    rows: list[tuple[str, float | None, float | None]] = [
        (name, promotion.test[name], promotion.baseline_test.get(name)) for name in sorted(promotion.test)
    ]
    rows.append((metric, value, baseline))
    return [f"| {name} | {_cell(one)} | {_cell(other)} |" for name, one, other in rows]


def _uncertainty(promotion: Promotion, seed: int) -> str:
    if promotion.settings == promotion.baseline_settings:
        return "The promoted configuration is the baseline's own: both columns are the same model."
    return f"One run with seed {seed} each: how much of the difference is chance, one run cannot say."


def _sets(assignments: Iterable[str]) -> str:
    """The options of a command that can be pasted into a shell."""
    return "".join(f" --set {shlex.quote(assignment)}" for assignment in assignments)


def _written(value: object) -> str:
    """A value as `--set` reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
