"""A search space in Optuna's terms: its distributions, its suggestions, its values."""

from __future__ import annotations

import math

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from hpo.space import Choices, Dimension, IntRange, Parameter
from hpo.trials import Value


def same(one: Value, other: Value) -> bool:
    """Whether a value in Optuna's store is the recorded one."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)  # a value on a step is recorded rounded
    return one == other


def distribution(dimension: Dimension) -> BaseDistribution:
    """What Optuna calls a dimension."""
    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.values)
    if isinstance(dimension, IntRange):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def suggest(trial: Trial, parameter: Parameter) -> Value:
    """The value that a trial's sampler has for a parameter."""
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
