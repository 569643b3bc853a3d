"""What a sampler is shown beside its own study's trials: those of a warm start.

They are in no store: a store numbers its trials, and theirs are not this study's numbers. Knows Optuna's samplers;
where the trials come from is not its matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hpo.distributions import distribution
from hpo.notices import quiet
from hpo.space import Space
from hpo.sweep import Strategy
from hpo.trials import Direction, Ending, Value
from hpo.warming import UNTAUGHT, Lesson

_OWN_START = ("x0", "sigma0", "use_separable_cma", "source_trials")
_TENTH = 10  # of fewer trials, there is no best tenth


class Prior:
    """Lessons as finished trials for Optuna.

    Args:
        lessons: of a warm start; none is fine.
        space: what is searched.
        direction: of the study.
    """

    def __init__(self, lessons: Sequence[Lesson], space: Space, direction: Direction) -> None:
        self._sign = 1.0 if direction is Direction.MINIMIZE else -1.0
        self._names = {parameter.name for parameter in space.parameters}
        with quiet():
            distributions = {parameter.name: distribution(parameter.dimension) for parameter in space.parameters}
            self._trials = [_frozen(lesson, distributions) for lesson in lessons]

    def strategy(self, strategy: Strategy) -> Strategy:
        """A sampler's strategy that makes use of them, where the sampler has an option for that.

        CMA-ES begins from a distribution estimated from the best tenth of them (Nomura et al., "Warm Starting
        CMA-ES for Hyperparameter Optimization", AAAI 2021); of too few for that, around the best one. Its own
        options come first where they say how to begin.
        """
        if strategy.name != "cma-es" or any(option in strategy.options for option in _OWN_START):
            return strategy
        # It refuses to begin from trials none of which has all parameters of its space.
        whole = [t for t in self._trials if set(t.params) == self._names and t.state is TrialState.COMPLETE]
        if not whole:
            return strategy
        begin: dict[str, object] = {"source_trials": whole}
        if len(whole) < _TENTH:
            begin = {"x0": min(whole, key=lambda trial: self._sign * (trial.value or 0.0)).params}
        return dataclasses.replace(strategy, options={**strategy.options, **begin})

    def shown_to(self, sampler: BaseSampler, strategy: Strategy) -> BaseSampler:
        """A sampler that sees them before its own study's trials; one that learns from none, as it is."""
        if not self._trials or strategy.name in (*UNTAUGHT, "cma-es"):
            return sampler
        return _Informed(sampler, self._trials)


def _frozen(lesson: Lesson, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    parameters: dict[str, Value] = dict(lesson.parameters)
    complete = lesson.ending is Ending.COMPLETE
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        value=lesson.value if complete else None,
        params=parameters,
        distributions={name: distributions[name] for name in parameters},
        # A diverged trial ranks below all that have a value: as in the study itself, it is told without any.
        intermediate_values={} if lesson.ending is Ending.DIVERGED else dict(lesson.curve),
    )


class _View:
    """A study whose trials begin with others. All else is the study's own."""

    def __init__(self, study: optuna.Study, earlier: Sequence[FrozenTrial]) -> None:
        self._viewed = study
        self._earlier = earlier

    def __getattr__(self, name: str) -> Any:
        return getattr(self._viewed, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        own = self._viewed._get_trials(deepcopy, states, use_cache)
        return [trial for trial in self._earlier if states is None or trial.state in states] + own

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self._get_trials()


class _Informed(BaseSampler):
    """A sampler asked about a view of its study."""

    def __init__(self, sampler: BaseSampler, earlier: Sequence[FrozenTrial]) -> None:
        self._sampler = sampler
        self._earlier = earlier

    def _view(self, study: optuna.Study) -> Any:
        return _View(study, self._earlier)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(self._view(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(self._view(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(self._view(study), trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(self._view(study), trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(self._view(study), trial, state, values)
