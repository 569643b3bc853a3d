"""What was not recorded, answered by a model: what it may say, and how its error is told."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace

import pytest

from hpo.backtest import answering
from hpo.errors import UserError
from hpo.replay.modelled import answered, validated
from hpo.replay.synthetic import synthetic
from hpo.replay.tables import Point, Row, Table
from hpo.space import FloatRange, Parameter, Space
from hpo.trials import Direction, Metric

SPACE = Space((Parameter("x", FloatRange(0.0, 1.0)), Parameter("noise", FloatRange(0.0, 1.0))))


def row(x: float, noise: float, number: int, diverged: bool = False) -> Row:
    """A bowl in x alone, which falls by 1/progress; a trial of larger x costs more."""
    points = tuple(Point(at, (x - 0.5) ** 2 + 1 / at, at * (1 + x)) for at in (1, 3, 9))
    return Row({"x": x, "noise": noise}, points[:1] if diverged else points, diverged=diverged, number=number)


def bowl(count: int = 60) -> Table:
    """The second setting says nothing, and what is nearest is often only nearest in it."""
    rows = [row((7 * index % count) / count, (13 * index % 17) / 17, index) for index in range(count)]
    return Table("bowl", SPACE, Metric("loss", Direction.MINIMIZE), tuple(rows), 9)


def test_a_recorded_configuration_answers_as_it_was_recorded() -> None:
    made = answered(bowl())
    for own in made.rows:
        assert made.answer(own.parameters) == (own, 0.0)


def test_a_model_answers_with_a_whole_curve_and_its_cost_between_those_recorded() -> None:
    made = answered(bowl())
    found, distance = made.answer({"x": 0.255, "noise": 0.5})
    assert distance > 0
    assert [point.progress for point in found.points] == [1, 3, 9]
    for point in found.points:
        assert point.value == pytest.approx((0.255 - 0.5) ** 2 + 1 / point.progress, abs=0.03)
        assert point.cost == pytest.approx(point.progress * 1.255, rel=0.1)
    assert found.points[-1].value >= made.best


def test_a_model_is_a_function_of_the_table_and_can_be_sent_to_another_process() -> None:
    asked = {"x": 0.111, "noise": 0.222}
    one, other = answered(bowl()), pickle.loads(pickle.dumps(answered(bowl())))  # noqa: S301
    assert one.answer(asked) == other.answer(asked)


def test_what_is_nearest_to_a_diverged_trial_diverges() -> None:
    made = bowl()
    made = answered(replace(made, rows=(*made.rows, row(0.97, 0.97, 99, diverged=True))))
    assert made.answer({"x": 0.971, "noise": 0.971})[0].diverged
    assert not made.answer({"x": 0.5, "noise": 0.511})[0].diverged


def test_of_a_metric_that_counts_at_its_best_a_curve_only_falls_and_ends_at_its_final_value() -> None:
    def up_and_down(index: int) -> Row:
        values = (2.0, 1.0 + index / 40, 1.5)
        points = tuple(Point(at, value, float(at)) for at, value in zip((1, 2, 3 + index % 2), values, strict=True))
        return Row({"x": index / 40, "noise": 0.0}, points, number=index)

    made = Table("t", SPACE, Metric("loss", Direction.MINIMIZE, "best"), tuple(map(up_and_down, range(40))), 4)
    found, _ = answered(made).answer({"x": 0.3142, "noise": 0.0})
    values = [point.value for point in found.points]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(1.31, abs=0.05)


def test_both_ways_are_judged_by_trials_that_they_were_not_shown() -> None:
    found = validated(bowl())
    assert found is not None
    assert (found.trials, found.folds) == (60, 10)
    assert found.better == "model"
    assert found.model.error < found.nearest.error / 2
    assert found.model.correlation > found.nearest.correlation
    doubled = replace(bowl(10), rows=bowl(10).rows * 2)  # each was trained twice: its twin must not answer for it
    again = validated(doubled)
    assert again is not None
    assert again.nearest.error > 0


def test_of_noise_the_model_does_not_claim_to_know_the_order() -> None:
    made = bowl()
    noise = random.Random(0)
    rows = tuple(replace(own, points=(Point(1, noise.random(), 1.0),)) for own in made.rows)
    found = validated(replace(made, rows=rows, length=1))
    assert found is not None
    assert abs(found.model.correlation) < 0.35


def test_what_cannot_be_modelled_is_said() -> None:
    with pytest.raises(UserError, match="requires nearest or model"):
        answering(bowl(), "forest")
    with pytest.raises(UserError, match="requires 5 configurations"):
        answering(bowl(4), "model")
    with pytest.raises(UserError, match="answers everything itself"):
        answering(synthetic(1), "model")
    assert validated(bowl(4)) is None
