"""Keep a sampler away from configurations that would not fit into memory.

Samplers learn of such a trial as of a bad one: TPE as a constraint that does not hold, the others not at all. With
few trials that keeps none of them from asking for the like again. What fits is decided by few settings (batch
size, width), and mostly by thresholds, so a decision tree over the trials so far tells it well (Breiman et al.,
Classification and Regression Trees, 1984); a suggestion that it expects not to fit is drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

_DRAWS = 10
_UNIFORM_DRAWS = 100
_ABSENT = -1e9

Space = Mapping[str, BaseDistribution]


class Avoiding(optuna.samplers.BaseSampler):
    """A sampler whose joint suggestions are drawn again where they are expected not to fit.

    A few times from the sampler, then evenly from the space: where a model of the losses is drawn to is often just
    where nothing fits. If none is expected to, the sampler's stands.

    Args:
        make: the sampler by the number of the draw, each with a seed of its own.
    """

    def __init__(self, make: Callable[[int], optuna.samplers.BaseSampler]) -> None:
        self._make = make
        self._first = make(0)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._first.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        values = self._first.sample_relative(study, trial, search_space)
        if not values:
            return values
        fits = expectation(study.get_trials(deepcopy=False), search_space)
        for draw in range(_DRAWS + _UNIFORM_DRAWS):
            further = values if draw == 0 else self._further(draw, study, trial, search_space)
            if fits(further):
                return further
        return values

    def _further(
        self, draw: int, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if draw < _DRAWS:
            sampler = self._make(draw)
            sampler.infer_relative_search_space(study, trial)  # it may remember what it is asked for next
            return sampler.sample_relative(study, trial, search_space)
        even = optuna.samplers.RandomSampler(seed=1000 * trial.number + draw)
        return {
            name: even.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._first.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._first.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._first.after_trial(study, trial, state, values)


def fitted(trial: FrozenTrial) -> bool:
    """Whether a finished trial fitted into memory."""
    return not any(value > 0 for value in trial.constraints.values())


def expectation(trials: Sequence[FrozenTrial], space: Space) -> Callable[[Mapping[str, Any]], bool]:
    """Whether values of `space` are expected to fit, from trials that did or did not."""
    known = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    labels = [fitted(trial) for trial in known]
    if all(labels) or not any(labels):
        return lambda values: True
    from sklearn.tree import DecisionTreeClassifier  # only where something did not fit: 1 s of imports

    tree = DecisionTreeClassifier(random_state=0).fit([_row(trial.params, space) for trial in known], labels)
    return lambda values: bool(tree.predict([_row(values, space)])[0])


def _row(values: Mapping[str, Any], space: Space) -> list[float]:
    """Values as numbers in the order of the space: logarithms where it is a log range, a column a choice.

    Of a conditional space a trial has some; what it has not is a number that no other value has.
    """
    row: list[float] = []
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            row += [float(name in values and values[name] == choice) for choice in distribution.choices]
        elif name not in values:
            row.append(_ABSENT)
        else:
            log = getattr(distribution, "log", False)
            row.append(math.log(values[name]) if log else float(values[name]))
    return row
