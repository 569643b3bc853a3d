"""Search strategies of other packages, driven by our own search loop: each class is a `hpo.search.Trials`.

Every strategy runs through its own package, with the settings that package has by default; nothing is implemented here
but the translation. All classes are made from the same five things: the space (without conditions or steps), the
metric, the rungs (the last one is a trial's full length), a seed, and the number of slots. No package asks how many
slots there are.

What these classes were written against: syne-tune 0.16.0, ray 2.60.0 with optuna 5.0.0, neural-pipeline-search 0.17.0.

Left out, and why:

- ifBO (`neps.algorithms.ifbo`): its model is downloaded when it is first used (`ifbo.download`, from figshare); the
  package does not ship it. Without that network there is no ifBO.
- Syne Tune's BOHB: in 0.16.0 its density estimator sees a logarithmic range on a linear scale, and draws at random as
  long as 15 % of the trials are no more than the settings that are searched: of 4 settings, for the first 33 trials.
- NePS's ASHA and asynchronous Hyperband: in 0.17.0 a trial is promoted whenever three of its rung have not been, so
  that only two of a rung are ever left behind (36 of 40 trials were trained in full); and a trial that is still
  running may be promoted.
- NePS's model-based Hyperband (`priorband` with `bayesian_optimization_kick_in_point`): in 0.17.0, with botorch 0.12.0,
  its Gaussian process computed for minutes when it was first asked for a trial of full length, then raised an
  AssertionError: the trial it had found was shorter.
- Syne Tune's MOBSTER, Hyper-Tune, DyHPO and the promoting form of ASHA: no longer part of the package.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import os
import random
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hpo.space import Choices, Dimension, FloatRange, IntRange, Parameter, Space
from hpo.trials import Assignment, Direction, Ending, Measured, Metric, Outcome, Paused, Value, Verdict

_States = tuple[Any, Any]  # of Python's and numpy's generators

_METRIC = "metric"
_PROGRESS = "progress"


class Peer(ABC):
    """What all strategies share: numbering, curves, and what no package is asked about.

    Args:
        space: searched settings, without conditions and steps.
        metric: what is optimized.
        rungs: progresses at which every trial measures, increasing; the last is a trial's full length.
        seed: of the strategy; also given to every trial.
        slots: trials that run at the same time.

    Raises:
        ValueError: the space has a condition or a step, which not every package knows.
    """

    label: ClassVar[str]
    """The strategy's name for people."""

    def __init__(self, space: Space, metric: Metric, rungs: tuple[int, ...], seed: int, slots: int) -> None:
        del slots
        self._vocabulary = _Vocabulary(space)
        self._metric, self._rungs, self._seed = metric, rungs, seed
        self._curves: dict[int, list[Measured]] = {}
        self._generators = _Generators(seed)
        with self._apart():
            self._begin()

    @property
    def size(self) -> float:
        """There is always another trial."""
        return math.inf

    def ask(self) -> Assignment:
        """The next new trial."""
        number = len(self._curves)
        with self._apart():
            parameters = self._vocabulary.parameters(self._suggest(number))
        self._curves[number] = []
        return Assignment(number, parameters, parameters, self._seed, self._rungs)

    def report(
        self, assignment: Assignment, measurement: Measured, *, length: int | None, warmup: int, seconds: float | None
    ) -> Verdict | None:
        """How the trial is to end or wait at this measurement, or None where it goes on."""
        del length, warmup, seconds  # all trials have the same, and no package asks how long one took
        number, curve = assignment.number, self._curves[assignment.number]
        if curve and measurement.progress <= curve[-1].progress:
            return None  # measured again where it had been set aside
        value = measurement.metrics.get(self._metric.name)
        if value is None:
            return Outcome(Ending.FAILED, f"the metric {self._metric.name} was not measured")
        curve.append(measurement)
        if not math.isfinite(value):
            return Outcome(Ending.DIVERGED, f"{self._metric.name} is {value} at {measurement.progress:,}")
        with self._apart():
            verdict = self._judge(number, measurement.progress, value)
        # A trial trained in full is complete, whatever the package calls it.
        return None if measurement.progress >= self._rungs[-1] else verdict

    def pause(self, number: int) -> None:
        """A trial that `report` paused is set aside now: only some strategies set any aside."""
        del number

    def revive(self, *, last: bool = False) -> int | None:
        """A trial that was set aside and is to go on now; with `last`, no further trial will be begun."""
        return None

    def least(self) -> int | None:
        """No package says which of the waiting trials is least likely to go on."""
        return None

    def value(self, number: int) -> float | None:
        """The trial's value from its measurements so far."""
        return self._metric.of_curve(self._curves[number])

    def tell(self, number: int, outcome: Outcome) -> None:
        """Tell how a trial ended."""
        with self._apart():
            self._end(number, outcome)

    @abstractmethod
    def _begin(self) -> None:
        """Make the package's search."""

    @abstractmethod
    def _suggest(self, number: int) -> Mapping[str, Any]:
        """Settings for a new trial, in the package's words."""

    @abstractmethod
    def _judge(self, number: int, progress: int, value: float) -> Verdict | None:
        """Tell a measurement, and what becomes of the trial."""

    @abstractmethod
    def _end(self, number: int, outcome: Outcome) -> None:
        """Tell the package that a trial is over."""

    @property
    def _minimizes(self) -> bool:
        return self._metric.direction is Direction.MINIMIZE

    def _stopped(self, progress: int) -> Outcome:
        return Outcome(Ending.STOPPED, f"{self.label} ends it at {progress:,}")

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        """Within a package: it draws from this search's generators, and prints neither logs nor warnings."""
        disabled, handlers = logging.root.manager.disable, logging.root.handlers[:]
        with warnings.catch_warnings(), self._generators.own():
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            try:
                yield
            finally:
                logging.disable(disabled)
                logging.root.handlers[:] = handlers  # Syne Tune adds one when it is imported


# -- Syne Tune -----------------------------------------------------------------------------------------------------


class _SyneTune(Peer):
    _baseline: ClassVar[str]

    def __init__(
        self,
        space: Space,
        metric: Metric,
        rungs: tuple[int, ...],
        seed: int,
        slots: int,
        *,
        reduction_factor: float = 3,
    ) -> None:
        self._reduction_factor = reduction_factor
        self._trials: dict[int, Any] = {}
        super().__init__(space, metric, rungs, seed, slots)

    def _begin(self) -> None:
        from syne_tune.optimizer import baselines

        self._scheduler = getattr(baselines, self._baseline)(
            config_space=self._vocabulary.told(_syne_tune_domain),
            metric=_METRIC,
            time_attr=_PROGRESS,
            max_t=self._rungs[-1],
            grace_period=self._rungs[0],
            reduction_factor=self._reduction_factor,
            do_minimize=self._minimizes,
            random_seed=self._seed,
        )

    def _suggest(self, number: int) -> Mapping[str, Any]:
        from syne_tune.backend.trial_status import Trial

        settings: dict[str, Any] = self._scheduler.suggest().config
        self._trials[number] = Trial(number, settings, datetime.datetime.now(datetime.UTC))
        self._scheduler.on_trial_add(self._trials[number])
        return settings

    def _judge(self, number: int, progress: int, value: float) -> Verdict | None:
        result = {_METRIC: value, _PROGRESS: progress}
        decision = self._scheduler.on_trial_result(self._trials[number], result)
        return self._stopped(progress) if decision == "STOP" else None

    def _end(self, number: int, outcome: Outcome) -> None:
        # As in `syne_tune.Tuner`: what the scheduler stopped, at its full length too, is removed.
        if outcome.ending.has_value:
            self._scheduler.on_trial_remove(self._trials.pop(number))
        else:
            self._scheduler.on_trial_error(self._trials.pop(number))


class SyneTuneAsha(_SyneTune):
    """Syne Tune's ASHA: random search with asynchronous successive halving, in its stopping form.

    Its defaults: one bracket, reduction factor 3. Rungs are at 1, 3, 9, ... times the first of ours, as far as the
    full length; a trial is judged at its first measurement on or after each.
    """

    label = "Syne Tune's ASHA"
    _baseline = "ASHA"


class SyneTuneAshaCqr(_SyneTune):
    """Syne Tune's ASHA with new trials from conformalized quantile regression (Salinas et al., ICML 2023).

    The package's own authors' method for several fidelities; gradient-boosted quantiles of the last value of every
    trial, from the fifth on. Its defaults, with the rungs of `SyneTuneAsha`.
    """

    label = "Syne Tune's ASHA with CQR"
    _baseline = "ASHACQR"


class SyneTuneAshaBore(_SyneTune):
    """Syne Tune's ASHA with new trials from density-ratio estimation by XGBoost (BORE, Tiao et al., ICML 2021).

    Its defaults, with the rungs of `SyneTuneAsha`.
    """

    label = "Syne Tune's ASHA with BORE"
    _baseline = "ASHABORE"


def _syne_tune_domain(dimension: Dimension) -> object:
    from syne_tune import config_space

    match dimension:
        case Choices():
            return config_space.choice(_labels(dimension))
        case IntRange(low, high, log):
            return (config_space.lograndint if log else config_space.randint)(low, high)
        case FloatRange(low, high, log):
            return (config_space.loguniform if log else config_space.uniform)(low, high)


# -- Ray Tune ------------------------------------------------------------------------------------------------------


class RayTuneAsha(Peer):
    """Ray Tune's ASHA (`AsyncHyperBandScheduler`) with `OptunaSearch`, without a Ray cluster.

    The scheduler's defaults: one bracket, reduction factor 4, so rungs are at 1, 4, 16, ... times the first of ours,
    as far as the full length. The search's: Optuna's TPE, univariate, ten random trials first. As in Ray Tune's own
    loop, a trial that the scheduler stopped is complete for Optuna, with its last value.
    """

    label = "Ray Tune's ASHA with OptunaSearch"

    def __init__(
        self,
        space: Space,
        metric: Metric,
        rungs: tuple[int, ...],
        seed: int,
        slots: int,
        *,
        reduction_factor: float = 4,
    ) -> None:
        self._reduction_factor = reduction_factor
        self._trials: dict[int, Any] = {}
        self._last: dict[int, dict[str, Any]] = {}
        super().__init__(space, metric, rungs, seed, slots)

    def _begin(self) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler
        from ray.tune.search.optuna import OptunaSearch

        mode = "min" if self._minimizes else "max"
        self._scheduler = AsyncHyperBandScheduler(
            time_attr=_PROGRESS,
            metric=_METRIC,
            mode=mode,
            max_t=self._rungs[-1],
            grace_period=self._rungs[0],
            reduction_factor=self._reduction_factor,
        )
        space = self._vocabulary.told(_optuna_distribution)
        self._searcher = OptunaSearch(space, metric=_METRIC, mode=mode, seed=self._seed)

    def _suggest(self, number: int) -> Mapping[str, Any]:
        from ray.tune.experiment import Trial

        settings: dict[str, Any] = self._searcher.suggest(str(number))
        self._trials[number] = Trial("stub", config=settings, trial_id=str(number), stub=True)
        self._scheduler.on_trial_add(None, self._trials[number])
        return settings

    def _judge(self, number: int, progress: int, value: float) -> Verdict | None:
        result = {_METRIC: value, _PROGRESS: progress, "training_iteration": len(self._curves[number])}
        self._last[number] = result
        if self._scheduler.on_trial_result(None, self._trials[number], result) == "STOP":
            return self._stopped(progress)
        self._searcher.on_trial_result(str(number), result)
        return None

    def _end(self, number: int, outcome: Outcome) -> None:
        trial, result = self._trials.pop(number), self._last.pop(number, None)
        if outcome.ending.has_value and result is not None:
            self._scheduler.on_trial_complete(None, trial, result)
            self._searcher.on_trial_complete(str(number), result=result)
        else:
            self._scheduler.on_trial_error(None, trial)
            self._searcher.on_trial_complete(str(number), error=True)


def _optuna_distribution(dimension: Dimension) -> object:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match dimension:
        case Choices():
            return CategoricalDistribution(_labels(dimension))
        case IntRange(low, high, log):
            return IntDistribution(low, high, log=log)
        case FloatRange(low, high, log):
            return FloatDistribution(low, high, log=log)


# -- NePS ----------------------------------------------------------------------------------------------------------


class _Neps(Peer):
    """A strategy that sets trials aside: NePS trains each as far as one rung, and says later which go on.

    One question to NePS is answered by either a new trial or one that goes on; we are asked for the two apart. A new
    trial that came as the answer to `revive` is kept for `ask`, or withdrawn once NePS has heard more.
    """

    def __init__(self, space: Space, metric: Metric, rungs: tuple[int, ...], seed: int, slots: int) -> None:
        self._numbers: dict[str, int] = {}  # by what NePS calls the configuration
        self._running: dict[int, Any] = {}  # trials whose result NePS waits for, as it knows them
        self._endings: dict[int, Ending] = {}
        self._due: list[int] = []
        self._kept: Any = None
        self._news = False
        super().__init__(space, metric, rungs, seed, slots)

    @abstractmethod
    def _algorithm(self, space: Any) -> Any:
        """One of `neps.algorithms`."""

    def _begin(self) -> None:
        # NePS imports matplotlib, which writes down what fonts there are.
        os.environ.setdefault("MPLCONFIGDIR", str(Path(tempfile.gettempdir(), "search_benchmark_matplotlib")))
        import neps

        domains = self._vocabulary.told(_neps_domain)
        self._aliases = {name: f"setting_{place}" for place, name in enumerate(domains)}  # it takes no dots in names
        self._space = neps.PipelineSpace().from_attrs({self._aliases[name]: domain for name, domain in domains.items()})
        setattr(self._space, _PROGRESS, neps.IntegerFidelity(self._rungs[0], self._rungs[-1]))
        self._neps = neps.AskAndTell(self._algorithm(self._space))

    def revive(self, *, last: bool = False) -> int | None:
        """A trial that was set aside and that NePS promotes now."""
        if self._due:
            return self._due.pop(0)
        with self._apart():
            return self._promoted()

    def pause(self, number: int) -> None:
        """A trial is set aside: only now may NePS promote it."""
        with self._apart():
            self._conclude(number, self._running.pop(number))

    def _suggest(self, number: int) -> Mapping[str, Any]:
        while (promoted := self._promoted()) is not None:
            self._due.append(promoted)
        trial, self._kept = self._kept, None
        self._numbers[_configuration(trial)] = number
        self._running[number] = trial
        settings = self._resolved(trial)
        return {name: settings[alias] for name, alias in self._aliases.items()}

    def _resolved(self, trial: Any) -> Mapping[str, Any]:
        """A trial's settings and how far it is to train; NePS itself keeps what was drawn for each."""
        from neps.space.neps_spaces import neps_space
        from neps.space.neps_spaces.sampling import OnlyPredefinedValuesSampler

        drawn = neps_space.NepsCompatConverter.from_neps_config(trial.config)
        resolved, _ = neps_space.resolve(
            self._space,
            domain_sampler=OnlyPredefinedValuesSampler(drawn.predefined_samplings),
            environment_values=drawn.environment_values,
        )
        return dict(resolved.get_attrs())

    def _promoted(self) -> int | None:
        """A trial that goes on, or None where NePS would begin a new one, which is kept then."""
        if self._kept is not None and not self._news:
            return None
        if self._kept is not None:
            del self._neps.trials[self._kept.id]
        trial, self._news = self._next(), False
        number = self._numbers.get(_configuration(trial))
        if number is None:
            self._kept = trial
        else:
            self._kept, self._running[number] = None, trial
        return number

    def _next(self) -> Any:
        while True:
            trial = self._neps.ask()
            number = self._numbers.get(_configuration(trial))
            if number is None or not (number in self._endings or self._is_past(number, trial)):
                return trial
            self._conclude(number, trial)

    def _is_past(self, number: int, trial: Any) -> bool:
        """Whether a trial has been trained as far already: our rungs may be further apart than NePS's."""
        return bool(self._curves[number][-1].progress >= self._resolved(trial)[_PROGRESS])

    def _judge(self, number: int, progress: int, value: float) -> Verdict | None:
        if not self._is_past(number, self._running[number]):
            return None
        return Paused(f"{self.label} has it wait at {progress:,}")

    def _end(self, number: int, outcome: Outcome) -> None:
        self._endings[number] = outcome.ending
        if (trial := self._running.pop(number, None)) is not None:
            self._conclude(number, trial)

    def _conclude(self, number: int, trial: Any) -> None:
        """Tell NePS the last value of a trial, or that there is none."""
        ending, curve = self._endings.get(number, Ending.COMPLETE), self._curves[number]
        self._news = True
        if ending is Ending.COMPLETE and curve:
            value = curve[-1].metrics[self._metric.name]
            self._neps.tell(trial, value if self._minimizes else -value)
        else:
            self._neps.tell(trial, RuntimeError(str(ending)))


class NepsHyperband(_Neps):
    """NePS's Hyperband, which `neps.run` chooses by itself for a space with a fidelity and without priors.

    Its defaults: reduction factor 3, and rungs at the full length divided by 1, 3, 9, ... and rounded down, as far as
    the first of ours; a trial is set aside at its first measurement on or after each. Brackets are synchronous, but a
    slot that would wait begins the next one. New trials are drawn at random.
    """

    label = "NePS's Hyperband"

    def _algorithm(self, space: Any) -> Any:
        import neps

        return neps.algorithms.neps_hyperband(space)


class NepsPriorBand(_Neps):
    """NePS's PriorBand (Mallik et al., NeurIPS 2023), which draws near the best trial so far or at random.

    Its defaults: the Hyperband of `NepsHyperband`. It is made for spaces with priors, and there are none here: what it
    would draw from a prior is drawn at random.
    """

    label = "NePS's PriorBand"

    def _algorithm(self, space: Any) -> Any:
        import neps

        return neps.algorithms.neps_priorband(space)


def _configuration(trial: Any) -> str:
    """What NePS calls a configuration; the trial's name has its rung behind it."""
    return str(trial.id.rpartition("_rung_")[0])


def _neps_domain(dimension: Dimension) -> object:
    import neps

    match dimension:
        case Choices():
            return neps.Categorical(_labels(dimension))
        case IntRange(low, high, log):
            return neps.Integer(low, high, log=log)
        case FloatRange(low, high, log):
            return neps.Float(low, high, log=log)


# -- translation ---------------------------------------------------------------------------------------------------


class _Vocabulary:
    """A space in a package's words, and its answers in ours.

    Choices are told by their places, as text: some packages require all of one type, or do not take None. A setting
    with a single value is not told at all: some packages refuse those.
    """

    def __init__(self, space: Space) -> None:
        for parameter in space.parameters:
            _check(parameter)
        self._dimensions = {parameter.name: parameter.dimension for parameter in space.parameters}
        self.searched = {name: dimension for name, dimension in self._dimensions.items() if not _is_single(dimension)}

    def told(self, translate: Callable[[Dimension], object]) -> dict[str, Any]:
        return {name: translate(dimension) for name, dimension in self.searched.items()}

    def parameters(self, answer: Mapping[str, Any]) -> dict[str, Value]:
        return {
            name: _understood(dimension, answer[name]) if name in self.searched else dimension.ends()[0]
            for name, dimension in self._dimensions.items()
        }


def _check(parameter: Parameter) -> None:
    dimension = parameter.dimension
    stepped = (isinstance(dimension, FloatRange) and dimension.step is not None) or (
        isinstance(dimension, IntRange) and dimension.step != 1
    )
    if parameter.when or stepped:
        raise ValueError(f"{parameter.name}: conditions and steps are not translated")


def _is_single(dimension: Dimension) -> bool:
    return len(set(map(repr, dimension.ends()))) == 1


def _labels(choices: Choices) -> list[str]:
    return [str(place) for place in range(len(choices.values))]


def _understood(dimension: Dimension, answer: Any) -> Value:
    """A package's answer as one of our values; logarithms and their inverses may have left the range by a hair."""
    match dimension:
        case Choices(values):
            return values[int(answer)]
        case IntRange(low, high):
            return min(max(round(float(answer)), low), high)
        case FloatRange(low, high):
            return float(min(max(float(answer), low), high))


class _Generators:
    """The global random generators as one search left them.

    Syne Tune and NePS draw from them, whatever seed they are given: two searches in one process would change each
    other, and a search whatever else draws.
    """

    def __init__(self, seed: int) -> None:
        self._states: _States = (random.Random(seed).getstate(), np.random.RandomState(seed % 2**32).get_state())

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Whatever draws within, draws from where this search had come to."""
        others = self._read()
        self._write(self._states)
        try:
            yield
        finally:
            self._states = self._read()
            self._write(others)

    def _read(self) -> _States:
        return random.getstate(), np.random.get_state()

    def _write(self, states: _States) -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])


PEERS: Mapping[str, type[Peer]] = {
    "syne-tune asha": SyneTuneAsha,
    "syne-tune asha cqr": SyneTuneAshaCqr,
    "syne-tune asha bore": SyneTuneAshaBore,
    "ray tune asha optuna": RayTuneAsha,
    "neps hyperband": NepsHyperband,
    "neps priorband": NepsPriorBand,
}
"""Every strategy by a short name."""
