"""Rules that stop hopeless trials at their rungs.

A rule compares only what may be compared: the metric at the same progress, in tokens. Successive halving is
our own, because Optuna's counts its rungs from the first step on and fills several of them with one report;
the others are Optuna's, reached through a trial's `should_prune`. Knows nothing of processes or files.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Protocol

import optuna

from hpo.errors import UserError, did_you_mean
from hpo.samplers import build, import_class
from hpo.sweep import Strategy
from hpo.trials import Direction


class Rule(Protocol):
    """Decides at each measurement whether a trial goes on."""

    def reason_to_stop(self, trial: optuna.trial.Trial, progress: int, value: float) -> str | None:
        """Why the trial should stop at this progress, or None. Called in order of a trial's progress.

        `value` is finite; the trial has reported it already.
        """
        ...


class Never:
    """Lets every trial train to its end."""

    def reason_to_stop(self, trial: optuna.trial.Trial, progress: int, value: float) -> str | None:
        return None


class SuccessiveHalving:
    """At each rung the best 1/`reduction_factor` of the trials that have reached it go on.

    Asynchronous: a trial is judged when it arrives, against those that arrived before it (ASHA's stopping
    form; Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, section 3).
    """

    def __init__(self, direction: Direction, reduction_factor: int = 3) -> None:
        if reduction_factor < 2:
            raise ValueError(f"reduction_factor requires a whole number from 2, got {reduction_factor!r}")
        self._direction = direction
        self._factor = reduction_factor
        self._rungs: dict[int, dict[int, float]] = defaultdict(dict)

    def reason_to_stop(self, trial: optuna.trial.Trial, progress: int, value: float) -> str | None:
        rung = self._rungs[progress]
        rung[trial.number] = value
        places = max(1, len(rung) // self._factor)
        better = sum(self._direction.better(other, value) for other in rung.values())
        if better < places:
            return None
        return f"place {better + 1} of {len(rung)} at {progress:,}; the best {places} go on"


class OptunaPruner:
    """Any of Optuna's pruners."""

    def __init__(self, name: str) -> None:
        self._name = name

    def reason_to_stop(self, trial: optuna.trial.Trial, progress: int, value: float) -> str | None:
        return f"{self._name} at {progress:,}" if trial.should_prune() else None


def make_rule(strategy: Strategy, direction: Direction, first_rung: int) -> tuple[Rule, optuna.pruners.BasePruner]:
    """The stopping rule of a sweep, and the pruner its Optuna study is given.

    Args:
        strategy: name and options from the sweep.
        direction: of the metric.
        first_rung: progress of the first rung (tokens), for rules that count their rungs from it.

    Raises:
        UserError: the class cannot be imported or does not take these options.
    """
    nop = optuna.pruners.NopPruner()
    match strategy.name:
        case "none":
            _no_options(strategy, ())
            return Never(), nop
        case "successive halving":
            _no_options(strategy, ("reduction_factor",))
            options: dict[str, Any] = dict(strategy.options)
            try:
                return SuccessiveHalving(direction, **options), nop
            except (TypeError, ValueError) as error:
                raise UserError(f"successive halving: {error}.") from None
        case _:
            return OptunaPruner(strategy.name.rpartition(":")[2]), _pruner(strategy, first_rung)


def _no_options(strategy: Strategy, known: tuple[str, ...]) -> None:
    for option in strategy.options:
        if option not in known:
            raise UserError(f"{strategy.name} has no option {option!r}.{did_you_mean(option, known)}")


def _pruner(strategy: Strategy, first_rung: int) -> optuna.pruners.BasePruner:
    pruners = optuna.pruners
    options = dict(strategy.options)
    pruner: optuna.pruners.BasePruner
    match strategy.name:
        case "median":
            pruner = build(pruners.MedianPruner, strategy, options)
        case "percentile":
            pruner = build(pruners.PercentilePruner, strategy, options)
        case "hyperband":
            pruner = build(pruners.HyperbandPruner, strategy, {"min_resource": first_rung, **options})
        case "wilcoxon":
            pruner = build(pruners.WilcoxonPruner, strategy, options)
        case "threshold":
            pruner = build(pruners.ThresholdPruner, strategy, options)
        case "patient":
            wrapped = options.pop("wrapped", None)
            inner = None if wrapped is None else _pruner(Strategy(str(wrapped)), first_rung)
            outer = Strategy(strategy.name, options)
            pruner = build(pruners.PatientPruner, outer, {"wrapped_pruner": inner, **options})
        case _:
            pruner = build(import_class(strategy.name, pruners.BasePruner), strategy, options)
    return pruner
