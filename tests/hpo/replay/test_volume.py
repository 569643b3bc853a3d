"""A trade-off searched again: what a search is worth is the volume that its trials dominate, and not one metric."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from hpo.backtest import entrants
from hpo.errors import UserError
from hpo.pareto import hypervolume
from hpo.replay.contest import RECORDED, Entrant, Result, Terms, compete
from hpo.replay.modelled import answered
from hpo.replay.tables import Point, Row, Table, continued
from hpo.replay.volume import Volume
from hpo.space import Choices, Parameter, Space
from hpo.sweep import Strategy
from hpo.trials import Direction, Metric

LOSS = Metric("loss", Direction.MINIMIZE)
SPEED = Metric("speed", Direction.MAXIMIZE)
THIRDS = (Fraction(1, 9), Fraction(1, 3), Fraction(1))


def row(which: int, loss: float, speed: float, until: int = 9) -> Row:
    """A curve that is a ninth better at each ninth, at a speed that it has from the first."""
    points = tuple(Point(at, loss + 1 - at / 9, 10.0 * at, {"speed": speed}) for at in range(1, until + 1))
    return Row({"which": which}, points, complete=until == 9, number=which)


def table(*rows: Row) -> Table:
    space = Space((Parameter("which", Choices(tuple(range(len(rows))))),))
    return Table("made", space, LOSS, rows, 9, cost_unit="seconds", others=(SPEED,))


FOUR = table(row(0, 3.0, 1.0), row(1, 2.0, 2.0), row(2, 1.0, 1.0), row(3, 4.0, 3.0))
"""All but the first are the front: (2, -2), (1, -1) and (4, -3), whose ranges are 3 and 2."""


def replayed(made: Table, entrant: Entrant) -> Result:
    (result,) = compete(made, [entrant], Terms(1, 1, None))
    return result


def test_the_reference_is_a_tenth_of_the_range_beyond_the_front() -> None:
    assert FOUR.volume is not None
    assert sorted(FOUR.volume.front) == [(1.0, -1.0), (2.0, -2.0), (4.0, -3.0)]
    assert FOUR.volume.reference == pytest.approx((4.3, -0.8))
    # (1, -1): 3.3 x 0.2; (2, -2) adds 2.3 x 1.0; (4, -3) adds 0.3 x 1.0.
    assert FOUR.volume.whole == pytest.approx(3.26)


def test_what_a_search_lacks_is_told_by_cost() -> None:
    result = replayed(FOUR, Entrant("as it was", RECORDED))
    assert result.regrets(0.9) == [float("inf")]
    # Trial 0 at (3, -1) dominates 1.3 x 0.2; then come (2, -2) with 2.3 x 1.2, (1, -1) with 0.2 more, and the rest.
    lacking = [1 - 0.26 / 3.26, 1 - 2.76 / 3.26, 1 - 2.96 / 3.26, 0.0]
    assert result.curve([1, 2, 3, 4]) == pytest.approx(lacking)
    assert result.cost_to_reach(0.5) == pytest.approx(2.0)
    assert result.regrets() == pytest.approx([0.0])


def test_a_rule_that_keeps_the_best_by_one_metric_alone_has_lost_most_of_the_front() -> None:
    result = replayed(FOUR, Entrant("best by loss", RECORDED, Strategy("best of rung", {"keep": 1}), THIRDS))
    # The first is the baseline, which is never stopped; the other is all that the metric asks for.
    assert [step.value for step in result.replays[0].steps] == [3.0, 1.0]
    assert result.regrets() == pytest.approx([1 - 3.3 * 0.2 / 3.26])


@pytest.mark.parametrize("metrics", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_shares_are_those_of_all_points_so_far_whatever_the_units(metrics: int, seed: int) -> None:
    draw = random.Random(seed)
    points = [tuple(draw.random() for _ in range(metrics)) for _ in range(30)]
    volume = Volume(points)
    whole = hypervolume(points, volume.reference)
    plain = [hypervolume(points[:count], volume.reference) / whole for count in range(1, 31)]
    assert list(volume.shares(points)) == pytest.approx(plain)
    assert plain[-1] == pytest.approx(1.0)
    scales = [10.0 ** draw.randint(-6, 6) for _ in range(metrics)]
    other = [tuple(scale * value - 7 * scale for scale, value in zip(scales, one, strict=True)) for one in points]
    assert list(Volume(other).shares(other)) == pytest.approx(plain)


def test_a_trial_that_exploded_does_not_make_all_others_alike() -> None:
    points = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]
    exploded = [*points, (1e6, 2.5)]
    assert Volume(exploded).reference == Volume(points).reference
    assert list(Volume(exploded).shares(points)) == list(Volume(points).shares(points))


def test_beside_a_narrow_front_the_better_half_counts() -> None:
    points = [(1.0, 1.1), (1.1, 1.0), (2.0, 2.0), (3.0, 3.0), (3.0, 4.0)]
    volume = Volume(points)
    assert volume.reference == (2.0, 2.0)
    assert list(volume.shares([(1.5, 1.5), (3.0, 3.0)])) == pytest.approx([0.25 / 0.99, 0.25 / 0.99])


def test_a_metric_in_which_all_are_level_counts_for_nothing() -> None:
    points = [(1.0, 5.0), (2.0, 5.0), (1.05, 5.0)]
    assert list(Volume(points).shares(reversed(points))) == pytest.approx([0.5, 0.5, 1.0])


def test_a_trial_that_was_stopped_goes_on_in_every_metric() -> None:
    slower = replace(row(1, 2.0, 2.0), points=tuple(
        replace(point, others={"speed": 2.0 - point.progress / 9}) for point in row(1, 2.0, 2.0).points
    ))  # fmt: skip
    whole, count, _ = continued(table(row(0, 1.0, 1.0), slower, row(2, 3.0, 5.0, until=3)))
    assert count == 1
    last = whole.rows[2].points[-1]
    assert last.value == pytest.approx(3.0)
    assert last.others["speed"] == pytest.approx(5.0 - (0 + 6 / 9) / 2)  # as both others did on average
    assert whole.whole_point(whole.rows[2]) == pytest.approx((3.0, -5.0 + 3 / 9))


@pytest.mark.parametrize("at", ["last", "best"])
def test_a_model_answers_with_every_metric_of_one_measurement(at: str) -> None:
    rows = tuple(
        Row(
            {"which": which},
            (
                Point(1, 3.0, 1.0, {"speed": 1.0}),
                Point(2, 1.0, 2.0, {"speed": 2.0}),
                Point(3, 2.0, 3.0, {"speed": 3.0}),
            ),
            number=which,
        )
        for which in range(6)
    )
    made = replace(table(*rows), metric=replace(LOSS, at=at), length=3)
    asked = made.features(made.rows[:1])[0]
    model = answered(made).model
    assert model is not None
    found = model.answer(asked, made.rows[0])
    expected = [(3.0, 1.0), (1.0, 2.0), (2.0, 3.0) if at == "last" else (1.0, 2.0)]
    assert [(point.value, point.others["speed"]) for point in found.points] == [
        (pytest.approx(value), pytest.approx(speed)) for value, speed in expected
    ]


@pytest.mark.parametrize("at", ["last", "best"])
def test_what_is_measured_at_rungs_is_what_the_recorded_trial_is_worth(at: str) -> None:
    draw = random.Random(3)
    rows = tuple(
        Row({"which": which}, tuple(Point(n, draw.random(), 1.0 * n, {"speed": draw.random()}) for n in range(1, 10)))
        for which in range(8)
    )
    made = replace(table(*rows), metric=replace(LOSS, at=at))
    result = replayed(made, Entrant("as it was", RECORDED, Strategy("none"), THIRDS))
    assert [step.point for step in result.replays[0].steps] == [made.whole_point(one) for one in rows]
    assert result.regrets() == pytest.approx([0.0])


def test_only_those_that_a_sweep_may_name_take_part() -> None:
    backtests, searches = entrants([], [], THIRDS, is_study=True, curves=True, weighs=True)
    assert [one.pruner.name for one in backtests] == ["none", "pausing halving"]
    assert [(one.sampler.name, one.pruner.name) for one in searches] == [
        ("random", "none"), ("auto", "pausing halving"),
    ]  # fmt: skip
    for samplers, pruners in ((["tpe"], []), ([], ["median"])):
        with pytest.raises(UserError, match="knows one metric, and there is a trade-off"):
            entrants(samplers, pruners, THIRDS, is_study=True, curves=True, weighs=True)
    assert len(entrants([], [], THIRDS, is_study=True, curves=True)[0]) == 5


def test_a_study_of_a_trade_off_says_what_it_compares_by(
    write_sweep: Callable[..., Path], workplace: Path, hpo: Callable[..., str]
) -> None:
    path = write_sweep(
        ("track: {}", "tradeoff: [{name: validation/accuracy, direction: maximize}]"),
        ("trials: 6", "trials: 14"),
        ("seed: 3", "seed: 3\n  sampler: random\n  pruner: pausing halving\n  rungs: [1/9, 1/3, 1.0]"),
    )
    objective = path.with_name("objective.py")
    text = objective.read_text().replace('"seed": float(seed)', '"validation/accuracy": config.model.dropout')
    objective.write_text(text)

    hpo("run", str(path), "--name", "mine", "--inline")
    plot = workplace / "curve.svg"
    told = hpo("replay", "mine", "--repeats", "3", "--budget", "6", "--plot", str(plot), "--answers", "model")
    assert "14 recorded trials, minimize validation/loss, maximize validation/accuracy" in told
    assert "Searches are compared by hypervolume" in told
    assert "share of the recorded hypervolume still missing" in told
    rules = {line.split("  ")[0]: line for line in told.splitlines() if "%" in line and "of 14" in line}
    assert set(rules) == {"nothing stopped", "pausing halving at 1/9, 1/3"}
    assert rules["nothing stopped"].split()[-2:] == ["100%", "kept"]
    assert "auto, auto at 1/9, 1/3" in told
    assert "share of the hypervolume missing" in plot.read_text()
