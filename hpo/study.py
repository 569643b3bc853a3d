"""The study: the one room that talks to Optuna. Asks it for trials, tells it measurements and endings.

Optuna's store is a journal file of its own with one writer, this process. The record in `hpo.journal` is
always ahead of it or level; on opening, Optuna's is brought up to the record. Knows nothing of processes.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from hpo import warming
from hpo.avoidance import Avoiding
from hpo.errors import HpoError, Mistake, SweepError, UserError
from hpo.folder import StudyFolder
from hpo.journal import History, TrialRecord
from hpo.plan import Plan, by_line, draft
from hpo.prior import Prior
from hpo.samplers import make_sampler
from hpo.space import Choices, Dimension, IntRange, Parameter
from hpo.stopping import make_rule
from hpo.store import Store
from hpo.sweep import Sweep
from hpo.trials import (
    Assignment,
    Ended,
    Ending,
    Event,
    Interrupted,
    Measured,
    Outcome,
    Progressed,
    Started,
    Value,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)

_TOLD = {
    Ending.COMPLETE: TrialState.COMPLETE,
    Ending.STOPPED: TrialState.PRUNED,
    # A diverged configuration is a bad one, and the sampler should learn that: pruned without a value ranks
    # below every trial that has one. What failed or was killed says nothing of its configuration.
    Ending.DIVERGED: TrialState.PRUNED,
    # So is one that does not fit, which it is told as a constraint that does not hold.
    Ending.OUT_OF_MEMORY: TrialState.PRUNED,
    Ending.KILLED: TrialState.FAIL,
    Ending.HUNG: TrialState.FAIL,
    Ending.FAILED: TrialState.FAIL,
}


_FITS = "fits into memory"


def plan(text: str, path: Path, assignments: Sequence[str] = (), name: str | None = None) -> Plan:
    """A sweep checked as a whole: its shape, its settings and its strategies.

    Raises:
        SweepError: every mistake, in the order of its lines.
        UserError: an override is malformed.
    """
    drafted, sweep, mistakes = draft(text, path, assignments, name)
    mistakes += _check_strategies(sweep)
    if drafted is None or mistakes:
        raise SweepError(by_line(mistakes))
    return drafted


def _check_strategies(sweep: Sweep) -> list[Mistake]:
    mistakes: list[Mistake] = []
    search = sweep.search
    try:
        sampler = make_sampler(search.sampler, seed=0, number=0, conditional=sweep.space.conditional)
        with _quiet():
            distributions = {p.name: _distribution(p.dimension) for p in sweep.space.parameters}
            optuna.create_study(sampler=sampler).ask(distributions)
    except UserError as error:
        mistakes.append(Mistake(sweep.place("search", "sampler"), f"search.sampler: {error}"))
    except Exception as error:  # options that Optuna takes at first and trips over at its first trial
        text = f"search.sampler: {search.sampler}: {type(error).__name__}: {error}."
        mistakes.append(Mistake(sweep.place("search", "sampler"), text))
    try:
        make_rule(search.pruner, sweep.metric.direction, 1)
    except UserError as error:
        mistakes.append(Mistake(sweep.place("search", "pruner"), f"search.pruner: {error}"))
    return mistakes


class Study:
    """A search in progress.

    Args:
        plan: the checked sweep.
        folder: the study's folder; the caller holds its lock.
        history: what its journal says so far.
        first_rung: progress of the first rung in tokens.
    """

    def __init__(self, plan: Plan, folder: StudyFolder, history: History, first_rung: int) -> None:
        self._plan, self._folder, self._first_rung = plan, folder, first_rung
        self._metric = plan.sweep.metric
        self._begin(history)
        grid = plan.space.grid() if plan.sweep.search.sampler.name == "grid" else None
        self._grid = None if grid is None else [values for values in grid if values not in plan.known]
        with _quiet():
            dimensions = {parameter.name: _distribution(parameter.dimension) for parameter in plan.space.parameters}
            lessons = [lesson for source in warming.read(folder.warm) for lesson in source.lessons]
            self._prior = Prior(lessons, dimensions, self._metric.direction)

    def _begin(self, history: History) -> None:
        """Open Optuna's store and bring it up to the record, or back to it."""
        folder = self._folder
        self._rule, pruner = make_rule(self._plan.sweep.search.pruner, self._metric.direction, self._first_rung)
        self._live: dict[int, Trial] = {}
        self._curves: dict[int, list[Measured]] = {}
        # Their coordinator died, perhaps before it answered their last measurement: it is judged once more.
        self._has_overflown = any(trial.ending is Ending.OUT_OF_MEMORY for trial in history.ended)
        self._unanswered = {trial.number for trial in history.unfinished if not trial.interrupted}
        with _quiet():
            self._study = self._open(folder, pruner)
            if self._is_ahead(history):
                # The record was lost in part, or another folder's store lies here: the record decides.
                folder.optuna.rename(folder.optuna.with_suffix(f".{int(time.time())}.jsonl"))
                self._study = self._open(folder, pruner)
            Store(folder.optuna).keep(self._whole(history))
            self._study = self._open(folder, pruner)
            self._reconcile(history)
        self._asked = len(history.trials)

    def _open(self, folder: StudyFolder, pruner: optuna.pruners.BasePruner) -> optuna.Study:
        return optuna.create_study(
            storage=JournalStorage(Store(folder.optuna)),
            study_name=folder.name,
            direction=self._metric.direction.value,
            pruner=pruner,
            load_if_exists=True,
        )

    def _is_ahead(self, history: History) -> bool:
        """Whether Optuna's store knows of endings or parameters that the record does not."""
        for trial in self._study.get_trials(deepcopy=False):
            record = history.trials.get(trial.number)
            if record is None:
                if trial.state.is_finished():
                    return True
            elif (trial.state.is_finished() and record.ending is None) or any(
                not _same(record.parameters.get(name, value), value) for name, value in trial.params.items()
            ):
                return True
        return False

    def _whole(self, history: History) -> int:
        """How many trials, from the first on, Optuna's store has as they were assigned."""
        trials = self._study.get_trials(deepcopy=False)
        for count, trial in enumerate(trials):
            record = history.trials.get(trial.number)
            if record is None or trial.state is TrialState.WAITING:
                return count
            if not trial.params.keys() >= record.parameters.keys():
                return count
        return len(trials)

    @property
    def size(self) -> float:
        """Trials there are to run at most: a grid ends, everything else does not."""
        return math.inf if self._grid is None else len(self._plan.known) + len(self._grid)

    def ask(self) -> Assignment:
        """The next trial: the baseline, the known configurations, then what the sampler suggests."""
        number = self._asked
        search = self._plan.sweep.search
        conditional = self._plan.space.conditional
        with _quiet(), _named(f"the sampler {search.sampler}"):
            strategy = self._prior.strategy(search.sampler)

            def make(draw: int) -> optuna.samplers.BaseSampler:
                sampler = make_sampler(strategy, seed=search.seed, number=number, conditional=conditional, draw=draw)
                return self._prior.shown_to(sampler, strategy)

            self._study.sampler = Avoiding(make) if self._has_overflown else make(0)
            if (known := self._known(number)) is not None:
                self._study.enqueue_trial(dict(known))
            trial = self._study.ask()
            assert trial.number == number, f"Optuna numbers this trial {trial.number}, the journal {number}"
            parameters = self._plan.space.fill(lambda parameter: _suggest(trial, parameter))
        self._asked += 1
        self._live[number] = trial
        self._curves[number] = []
        return Assignment(
            number=number,
            parameters=parameters,
            settings=self._plan.settings(parameters),
            seed=search.seed,
            rungs=self._plan.rungs,
            protected=number == 0,
        )

    def _known(self, number: int) -> Mapping[str, Value] | None:
        known = self._plan.known
        if number < len(known):
            return known[number]
        return None if self._grid is None else self._grid[number - len(known)]

    def report(self, assignment: Assignment, measurement: Measured, *, final: bool = False) -> Outcome | None:
        """Tell one measurement, and say how the trial is to end here, or None where it goes on.

        A resumed trial measures again where its checkpoint was taken: it is judged once more, because its
        coordinator may have died before it answered, and reported only once. A `final` measurement is never a
        reason to stop: the trial has been trained in full, and counts as complete.
        """
        outcome = self._judge(assignment.number, measurement)
        stopped = outcome is not None and outcome.ending is Ending.STOPPED
        return None if stopped and (assignment.protected or final) else outcome

    def _judge(self, number: int, measurement: Measured) -> Outcome | None:
        name = self._metric.name
        if name not in measurement.metrics:
            got = ", ".join(sorted(measurement.metrics)) or "nothing"
            return Outcome(Ending.FAILED, f"the objective measured {got}, not the metric {name}")
        value = measurement.metrics[name]
        curve = self._curves[number]
        again = bool(curve) and measurement.progress <= curve[-1].progress
        if not again:
            curve.append(measurement)
        elif measurement.progress < curve[-1].progress or number not in self._unanswered:
            return None  # it was told to go on here; those that came later must not change that
        self._unanswered.discard(number)
        if not math.isfinite(value):
            return Outcome(Ending.DIVERGED, f"{name} is {value} at {measurement.progress:,}")
        trial = self._live[number]
        with _quiet():
            if not again:
                trial.report(value, step=measurement.progress)
            # The rule hears of protected trials too: others are compared with them.
            reason = self._rule.reason_to_stop(trial, measurement.progress, value)
        return None if reason is None else Outcome(Ending.STOPPED, reason)

    def value(self, number: int) -> float | None:
        """The trial's value from its measurements so far."""
        return self._metric.of_curve(self._curves[number])

    def tell(self, number: int, outcome: Outcome) -> None:
        """Tell how a trial ended."""
        state = _TOLD[outcome.ending]
        value = self.value(number) if state is TrialState.COMPLETE else None
        self._tell(self._live.pop(number), outcome.ending, value)
        del self._curves[number]

    def rewind(self, history: History) -> None:
        """Go back to the record: a trial that was asked for did not come to be."""
        self._begin(history)

    def hear(self, event: Event) -> None:
        """Take note of what another coordinator did: the sampler and the stopping rule know of it from now on."""
        match event:
            case Started(assignment, _, resumed):
                self._unanswered.add(assignment.number)
                if not resumed:
                    self._add(assignment)
            case Progressed(number, measurement):
                self._judge(number, measurement)  # whether it goes on is decided there
            case Interrupted(number, _, setback) if setback is None:
                self._unanswered.discard(number)
            case Ended(number, outcome):
                self.tell(number, outcome)
            case _:
                pass

    def _add(self, assignment: Assignment) -> None:
        number = assignment.number
        with _quiet():
            self._study.add_trial(self._frozen(assignment.parameters))
            frozen = self._study.get_trials(deepcopy=False)[number]
        self._live[number] = Trial(self._study, frozen._trial_id)
        self._curves[number] = []
        self._asked = number + 1

    def _tell(self, trial: Trial, ending: Ending, value: float | None) -> None:
        with _quiet():
            self._has_overflown |= ending is Ending.OUT_OF_MEMORY
            if ending is Ending.OUT_OF_MEMORY and not trial.constraints:
                trial.set_constraint(_FITS, 1.0)
            self._study.tell(trial, value, state=_TOLD[ending])

    # -- bringing Optuna's store up to the record -------------------------------------------------------

    def _reconcile(self, history: History) -> None:
        """Add, report and tell what the record has and Optuna's store lacks."""
        stored = {trial.number: trial for trial in self._study.get_trials(deepcopy=False)}
        for number in sorted(history.trials):
            record = history.trials[number]
            if number not in stored:
                self._study.add_trial(self._frozen(record.parameters))
                stored[number] = self._study.get_trials(deepcopy=False)[number]
            frozen = stored[number]
            trial = None if frozen.state.is_finished() else Trial(self._study, frozen._trial_id)
            self._replay(record, trial, frozen)

    def _replay(self, record: TrialRecord, trial: Trial | None, frozen: FrozenTrial) -> None:
        name = self._metric.name
        for measurement in record.measurements:
            value = measurement.metrics.get(name, math.nan)
            if not math.isfinite(value):
                continue
            if trial is not None and measurement.progress not in frozen.intermediate_values:
                trial.report(value, step=measurement.progress)
            # A rule remembers who has reached which rung; it must not decide again.
            self._rule.reason_to_stop(trial or _Finished(record.number), measurement.progress, value)  # type: ignore[arg-type]
        if trial is None:
            return
        if record.ending is not None:
            self._tell(trial, record.ending, record.value if record.ending is Ending.COMPLETE else None)
        else:
            self._live[record.number] = trial
            self._curves[record.number] = list(record.measurements)

    def _frozen(self, recorded: Mapping[str, Value]) -> FrozenTrial:
        """A recorded trial as Optuna's, still running; its measurements and ending are told afterwards."""
        dimensions = {parameter.name: parameter.dimension for parameter in self._plan.space.parameters}
        parameters = {name: value for name, value in recorded.items() if name in dimensions}
        return optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=parameters,
            distributions={name: _distribution(dimensions[name]) for name in parameters},
        )


@dataclass(frozen=True, slots=True)
class _Finished:
    """Stands for a trial that Optuna has finished with, where only its number is of interest."""

    number: int

    def should_prune(self) -> bool:
        return False


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)  # a value on a step is recorded rounded
    return one == other


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.values)
    if isinstance(dimension, IntRange):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _suggest(trial: Trial, parameter: Parameter) -> Value:
    value: Value
    match parameter.dimension:
        case Choices(values):
            value = trial.suggest_categorical(parameter.name, values)
        case IntRange(low, high, log, step):
            value = trial.suggest_int(parameter.name, low, high, log=log, step=step)
        case dimension:
            value = trial.suggest_float(
                parameter.name, dimension.low, dimension.high, log=dimension.log, step=dimension.step
            )
            if dimension.step is not None:  # 0.15, not 0.15000000000000002
                value = round(value, 12)
    return value


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """An error inside Optuna as one line that says which part of the sweep it comes from."""
    try:
        yield
    except (HpoError, AssertionError):
        raise
    except Exception as error:
        raise HpoError(f"{what} failed: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna's notices on experimental features and step ranges are not for the user of a sweep."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
