"""Ranges, choices, conditions."""

from __future__ import annotations

import random

import pytest

from hpo.space import Choices, FloatRange, IntRange, Parameter, Space, ordered

OPTIMIZER = Parameter("optimizer", Choices(("adamw", "sgd")))
MOMENTUM = Parameter("momentum", FloatRange(0.0, 1.0, step=0.5), when={"optimizer": ("sgd",)})


def test_a_range_contains_its_ends_and_nothing_beyond() -> None:
    for dimension in (FloatRange(1e-4, 1e-2, log=True), IntRange(2, 9)):
        low, high = dimension.ends()
        assert dimension.contains(low)
        assert dimension.contains(high)
        assert not dimension.contains(high * 2)  # type: ignore[operator]
        assert not dimension.contains(True)


def test_a_stepped_range_contains_its_grid_only() -> None:
    dimension = FloatRange(0.0, 0.3, step=0.05)
    assert all(dimension.contains(value) for value in dimension.grid() or ())
    assert dimension.contains(0.15)
    assert not dimension.contains(0.17)
    assert len(dimension.grid() or ()) == 7
    assert not IntRange(0, 10, step=5).contains(6)


def test_a_choice_is_told_apart_by_its_type() -> None:
    dimension = Choices((1, "1", None))
    assert dimension.contains(1)
    assert dimension.contains(None)
    assert not dimension.contains(True)
    assert not dimension.contains(1.0)


def test_drawn_values_lie_inside() -> None:
    generator = random.Random(0)
    for dimension in (
        FloatRange(1e-5, 1e-1, log=True),
        FloatRange(0, 1, step=0.25),
        IntRange(1, 64, log=True),
        IntRange(3, 9, step=3),
    ):
        assert all(dimension.contains(dimension.draw(generator)) for _ in range(300))


def test_a_conditional_setting_is_there_only_where_its_condition_holds() -> None:
    space = ordered([MOMENTUM, OPTIMIZER])
    assert space.names == ("optimizer", "momentum")
    drawn = [space.draw(random.Random(seed)) for seed in range(50)]
    assert {("momentum" in values) == (values["optimizer"] == "sgd") for values in drawn} == {True}


def test_a_grid_has_each_configuration_once() -> None:
    grid = list(ordered([MOMENTUM, OPTIMIZER]).grid() or ())
    assert len(grid) == 4  # adamw, and sgd with three momenta
    assert len({tuple(values.items()) for values in grid}) == 4


def test_a_continuous_space_has_no_grid() -> None:
    assert Space((Parameter("x", FloatRange(0.0, 1.0)),)).grid() is None


def test_conditions_in_a_circle_are_refused() -> None:
    one = Parameter("a", Choices((1, 2)), when={"b": (1,)})
    other = Parameter("b", Choices((1, 2)), when={"a": (1,)})
    with pytest.raises(ValueError, match="circle: a, b"):
        ordered([one, other])
