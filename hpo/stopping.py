"""Stopping rules by the name that a sweep gives them.

Ours compare only what may be compared, and can set trials aside (`hpo.halving`); the others are Optuna's, reached
through a trial's `should_prune`. Knows nothing of processes or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna

from hpo.errors import UserError, did_you_mean
from hpo.fronts import FrontHalving
from hpo.halving import RULES, Lasting, Look, PausingHalving, Rule
from hpo.projection import ProjectedHalving
from hpo.samplers import build, import_class
from hpo.sweep import Strategy
from hpo.trials import Direction, Ending, Outcome, Rung, Verdict


class OptunaPruner(Lasting):
    """Any of Optuna's pruners."""

    def __init__(self, name: str) -> None:
        self._name = name

    def judge(self, look: Look, prunes: Callable[[], bool]) -> Verdict | None:
        return Outcome(Ending.STOPPED, f"{self._name} at {look.progress:,}") if prunes() else None


def make_rule(
    strategy: Strategy, direction: Direction, first_rung: int, rungs: Sequence[Rung] = (), *, weighs: bool = False
) -> tuple[Rule, optuna.pruners.BasePruner]:
    """The stopping rule of a sweep, and the pruner its Optuna study is given.

    Args:
        strategy: name and options from the sweep.
        direction: of the metric.
        first_rung: progress of the first rung (tokens), for rules that count their rungs from it.
        rungs: as the sweep has them.
        weighs: whether there is a trade-off.

    Raises:
        UserError: the class cannot be imported or does not take these options.
    """
    if strategy.name == "auto":  # of a sweep whose objective is not known, so that it is not decided yet
        strategy = Strategy("none")
    if strategy.name not in RULES:
        return OptunaPruner(strategy.name.rpartition(":")[2]), _pruner(strategy, first_rung)
    make, known = RULES[strategy.name]
    if weighs and make is PausingHalving:
        make = FrontHalving
        if "noise" in strategy.options:
            raise UserError(f"{strategy.name}: noise is that of one metric; a trade-off has several. Leave it out.")
        known = tuple(option for option in known if option != "project")
    for option in strategy.options:
        if option not in known:
            raise UserError(f"{strategy.name} has no option {option!r}.{did_you_mean(option, known)}")
    options: dict[str, Any] = dict(strategy.options)
    if make is PausingHalving and _projects(strategy.name, options.pop("project", True)):
        make = ProjectedHalving
    try:
        rule: Rule = make(direction, rungs, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{strategy.name}: {error}.") from None
    return rule, optuna.pruners.NopPruner()


def _projects(name: str, asked: object) -> bool:
    if not isinstance(asked, bool):
        raise UserError(f"{name}: project requires true or false, got {asked!r}.")
    return asked


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
