"""A share of random, never-stopped trials: which they are, that they stay, and what is told of them."""

from __future__ import annotations

import itertools
import random
import statistics
from pathlib import Path

import pytest

from hpo.halving import RULES, Lasting, Look
from hpo.journal import History
from hpo.replay.simulation import replay
from hpo.replay.synthetic import SPACE, synthetic
from hpo.statistics import expected_best, expected_curve
from hpo.study import Study
from hpo.sweep import Search, Strategy, parse
from hpo.trials import Assignment, Direction, Ending, Measurement, Outcome
from hpo.unbiased import Unbiased

TEXT = "objective: a:b\nmetric: {name: m, direction: minimize}\nspace: {x: [1, 2]}\nsearch:\n  unbiased: %s\n"


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.25, 1 / 3, 0.8, 1.0])
def test_the_share_is_kept_in_every_stretch(share: float) -> None:
    for seed in range(20):
        own = Unbiased(share, seed)
        taken = [own.takes(number) for number in range(401)]
        assert not taken[0]
        assert [sum(taken[:number]) for number in range(401)] == [own.before(number) for number in range(401)]
        for first in range(1, 300):
            assert abs(sum(taken[first : first + 100]) - 100 * share) < 1 + 1e-9


def test_they_are_spread_over_the_space_and_differ_by_seed() -> None:
    drawn = [Unbiased(0.1, 3).draw(SPACE, number)["dropout"] for number in range(2000)]
    assert statistics.fmean(drawn) == pytest.approx(0.25, abs=0.01)  # type: ignore[type-var]
    assert Unbiased(0.1, 3).draw(SPACE, 5) != Unbiased(0.1, 4).draw(SPACE, 5)


class Everything(Lasting):
    """Stops every trial at its first measurement."""

    def __init__(self, direction: Direction, rungs: object = ()) -> None:
        del direction, rungs

    def judge(self, look: Look, prunes: object) -> Outcome:
        return Outcome(Ending.STOPPED, "always")


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random", "cma-es", "qmc", "gp"])
def test_they_alone_reach_the_end_under_a_rule_that_stops_everything(
    sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "none", (Everything, ()))  # type: ignore[arg-type]
    table = synthetic(1)
    search = Search(12, Strategy(sampler), Strategy("none"), seed=2, unbiased=0.25)
    study = Study(table.asked_by(search), None, History(), 1)
    found = replay(table, study, count=12, slots=2)
    own = Unbiased(0.25, 2)
    expected = {n for n in range(12) if own.takes(n) and not table.answer(own.draw(SPACE, n))[0].diverged}
    assert {step.number for step in found.steps} == expected
    assert expected


@pytest.mark.parametrize("rule", ["pausing halving", "best of rung", "median", "successive halving"])
def test_no_rule_stops_or_pauses_them(rule: str) -> None:
    table = synthetic(1)
    search = Search(40, Strategy("random"), Strategy(rule), seed=1, rungs=(81, 243), unbiased=0.2)
    found = replay(table, Study(table.asked_by(search), None, History(), 1), count=40, slots=3)
    own, ended = Unbiased(0.2, 1), {step.number for step in found.steps}
    taken = [n for n in range(40) if own.takes(n)]
    assert {n for n in taken if not table.answer(own.draw(SPACE, n))[0].diverged} <= ended
    assert len(ended) < 40


def _asked(study: Study, count: int) -> list[Assignment]:
    return [study.ask() for _ in range(count)]


def test_a_study_that_goes_on_asks_for_what_it_would_have_asked_and_known_ones_are_put_off() -> None:
    known = [{**SPACE.draw(random.Random(one))} for one in range(8)]
    search = Search(30, Strategy("random"), Strategy("none"), seed=5, unbiased=0.25)
    question = synthetic(1).asked_by(search, known)
    asked = _asked(Study(question, None, History(), 1), 20)
    own = Unbiased(0.25, 5)
    others = [one for one in asked if not own.takes(one.number)]
    assert [dict(one.parameters) for one in others[:8]] == known
    assert [one.number for one in asked if one.protected] == [0, *(n for n in range(20) if own.takes(n))]
    for one in asked:
        if own.takes(one.number):
            assert dict(one.parameters) == own.draw(SPACE, one.number)


def test_without_the_option_nothing_is_drawn() -> None:
    search = Search(30, Strategy("tpe"), Strategy("none"), seed=5)
    asked = _asked(Study(synthetic(1).asked_by(search), None, History(), 1), 12)
    assert not any(one.protected for one in asked)


def test_one_that_diverges_ends_so() -> None:
    search = Search(3, Strategy("random"), Strategy("none"), unbiased=1.0)
    study = Study(synthetic(1).asked_by(search), None, History(), 1)
    _, second = _asked(study, 2)
    verdict = study.report(second, Measurement(3, {"validation/loss": float("nan")}), length=243)
    assert isinstance(verdict, Outcome)
    assert verdict.ending is Ending.DIVERGED


@pytest.mark.parametrize("share", ["-0.1", "1.5", "true", "many"])
def test_a_share_outside_0_and_1_is_a_mistake_with_its_line(share: str) -> None:
    (mistake,) = parse(TEXT % share, Path("s.yaml"))[1]
    assert mistake.where == "s.yaml:5"
    assert "search.unbiased: requires a share" in mistake.text


def test_a_grid_has_none() -> None:
    (mistake,) = parse(TEXT % "0.1\n  sampler: grid", Path("s.yaml"))[1]
    assert "a grid has every configuration" in mistake.text
    assert parse(TEXT % "0.1", Path("s.yaml"))[0].search.unbiased == 0.1


@pytest.mark.parametrize("minimize", [True, False])
def test_the_curve_of_the_expected_best_is_what_counting_says(minimize: bool) -> None:
    values = [0.3, 1.7, 0.9, 2.2, 0.9, 1.1, 0.05, 3.0, 2.5]
    best = min if minimize else max
    curve = expected_curve(values, minimize=minimize)
    assert [count for count, _ in curve] == [1, 2, 4]
    for count, found in curve:
        counted = statistics.fmean(best(chosen) for chosen in itertools.combinations(values, count))
        assert found.middle == pytest.approx(counted, abs=1e-12)
        assert found.low <= found.middle <= found.high
    assert expected_best(values, 9) == min(values)
