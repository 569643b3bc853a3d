"""Rules over rungs."""

from __future__ import annotations

import random

import optuna
import pytest

from hpo.errors import UserError
from hpo.halving import RULES, Look, Rule, SuccessiveHalving
from hpo.stopping import OptunaPruner, make_rule
from hpo.sweep import PRUNERS, Strategy
from hpo.trials import Direction

OPTIONS = {
    "percentile": {"percentile": 25.0},
    "patient": {"wrapped": "median", "patience": 1},
    "threshold": {"upper": 1.0},
}


def judge(rule: Rule, number: int, progress: int, value: float) -> bool:
    """Whether a trial is not to go on."""
    return rule.judge(Look(number, progress, value), lambda: False) is not None


@pytest.mark.parametrize("name", PRUNERS)
def test_each_pruner_of_the_sweep_can_be_made(name: str) -> None:
    rule, pruner = make_rule(Strategy(name, OPTIONS.get(name, {})), Direction.MINIMIZE, 10)
    assert isinstance(pruner, optuna.pruners.BasePruner)
    assert isinstance(rule, OptunaPruner) == (name not in (*RULES, "auto"))


def test_a_pruner_by_import_path_is_any_optuna_class() -> None:
    _, pruner = make_rule(Strategy("optuna.pruners:MedianPruner", {"n_startup_trials": 2}), Direction.MINIMIZE, 1)
    assert isinstance(pruner, optuna.pruners.MedianPruner)
    with pytest.raises(UserError, match="no optuna BasePruner"):
        make_rule(Strategy("pathlib:Path"), Direction.MINIMIZE, 1)


@pytest.mark.parametrize("direction", Direction)
def test_halving_keeps_the_best_third_of_those_that_have_arrived(direction: Direction) -> None:
    sign = 1 if direction is Direction.MINIMIZE else -1
    rule = SuccessiveHalving(direction)
    assert not judge(rule, 0, 10, sign * 5.0)  # the first is the best so far
    assert judge(rule, 1, 10, sign * 6.0)
    assert not judge(rule, 2, 10, sign * 4.0)
    assert judge(rule, 3, 10, sign * 4.5)
    assert judge(rule, 4, 10, sign * 4.5)
    assert not judge(rule, 5, 10, sign * 4.4)  # second of six: two go on


def test_halving_never_stops_the_best() -> None:
    for seed in range(30):
        generator = random.Random(seed)
        values = {number: generator.random() for number in range(40)}
        best = min(values, key=values.__getitem__)
        rule = SuccessiveHalving(Direction.MINIMIZE)
        stopped = {n for n in generator.sample(sorted(values), 40) if any(judge(rule, n, p, values[n]) for p in (1, 3))}
        assert best not in stopped
        assert len(stopped) > 15


def test_halving_compares_only_at_the_same_progress() -> None:
    rule = SuccessiveHalving(Direction.MINIMIZE)
    judge(rule, 0, 10, 1.0)
    assert not judge(rule, 1, 11, 9.0)


def test_halving_judged_twice_at_a_rung_judges_alike() -> None:
    rule = SuccessiveHalving(Direction.MINIMIZE)
    for number, value in enumerate((5.0, 4.0, 3.0)):
        judge(rule, number, 10, value)
    assert judge(rule, 3, 10, 3.5) == judge(rule, 3, 10, 3.5) is True


def test_halving_agrees_with_optuna_at_optunas_own_rungs() -> None:
    """Equal rungs, equal factor, one report a rung: the same trials are stopped."""
    for seed in range(10):
        generator = random.Random(seed)
        ours = SuccessiveHalving(Direction.MINIMIZE)
        study = optuna.create_study(pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3))
        for number in range(40):
            trial = study.ask()
            level = generator.random()
            for progress in (1, 3):
                value = level + generator.random() / 5
                trial.report(value, progress)
                stop = judge(ours, number, progress, value)
                assert trial.should_prune() == stop, (seed, number, progress)
                if stop:
                    break
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
