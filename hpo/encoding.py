"""A search space as a unit cube, and as the features that a model of it sees.

Each parameter is one axis of the cube, log ranges by their logarithm. A range is one feature from 0 to 1. Choices that
are numbers keep their order (8, 16, 32 are neighbours, whatever is between them); others are a feature each. A
parameter that is not active in a configuration is at the middle of its axis, and a feature says that it is not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpo.space import Choices, Dimension, FloatRange, IntRange, Parameter, Space
from hpo.trials import Value

Array = NDArray[np.float64]

_APART = math.sqrt(0.5)  # two choices without an order are as far apart as the ends of a range


class Axis(Protocol):
    """One parameter's side of the cube."""

    def unit(self, value: Value) -> float:
        """Where a value lies, 0 to 1."""
        ...

    def value(self, unit: float) -> Value:
        """The value at a place, 0 to 1."""
        ...

    def snap(self, units_N: Array) -> Array:
        """The places of the nearest values that the parameter can take."""
        ...

    def features(self, units_N: Array) -> Array:
        """What a model sees of snapped places: (N, features)."""
        ...


class _Real:
    """A range of real numbers."""

    def __init__(self, dimension: FloatRange) -> None:
        self._range = dimension
        self._low, self._high = (
            (math.log(dimension.low), math.log(dimension.high)) if dimension.log else (dimension.low, dimension.high)
        )

    def unit(self, value: Value) -> float:
        assert isinstance(value, int | float)
        if self._high <= self._low:
            return 0.5
        place = math.log(value) if self._range.log else float(value)
        return min(max((place - self._low) / (self._high - self._low), 0.0), 1.0)

    def value(self, unit: float) -> Value:
        place = self._low + unit * (self._high - self._low)
        if self._range.log:
            return min(max(math.exp(place), self._range.low), self._range.high)
        if self._range.step is None:
            return min(max(place, self._range.low), self._range.high)
        steps = round((place - self._low) / self._range.step)
        return round(self._range.low + min(steps, self._steps) * self._range.step, 12)

    @property
    def _steps(self) -> int:
        assert self._range.step is not None
        return int((self._range.high - self._range.low) / self._range.step + 1e-9)

    def snap(self, units_N: Array) -> Array:
        if self._range.step is None or self._high <= self._low:
            return units_N
        width = self._range.step / (self._high - self._low)
        return np.minimum(np.round(units_N / width), self._steps) * width

    def features(self, units_N: Array) -> Array:
        return units_N[:, None]


class _Ordered:
    """Numbers in order: a range of whole numbers, or choices that are numbers.

    `places` are where the values lie, increasing, from 0 to 1; each owns what is nearest to it.
    """

    def __init__(self, values: Sequence[Value], places: Sequence[float]) -> None:
        self._values = list(values)
        self._index = {(type(value), value): index for index, value in enumerate(values)}
        self._places = np.array(places, dtype=np.float64)
        # Drawn evenly from the cube, each value has the room that its neighbours leave it, those at the ends as well.
        inner = (self._places[1:] + self._places[:-1]) / 2
        self._edges = inner

    def unit(self, value: Value) -> float:
        return float(self._places[self._index[type(value), value]])

    def value(self, unit: float) -> Value:
        return self._values[int(np.searchsorted(self._edges, unit))]

    def snap(self, units_N: Array) -> Array:
        snapped: Array = self._places[np.searchsorted(self._edges, units_N)]
        return snapped

    def features(self, units_N: Array) -> Array:
        return units_N[:, None]


class _Unordered:
    """Choices without an order."""

    def __init__(self, values: Sequence[Value]) -> None:
        self._values = list(values)

    def unit(self, value: Value) -> float:
        for index, other in enumerate(self._values):
            if type(other) is type(value) and other == value:
                return (index + 0.5) / len(self._values)
        raise KeyError(value)

    def _indices(self, units_N: Array) -> NDArray[np.int64]:
        return np.minimum((units_N * len(self._values)).astype(np.int64), len(self._values) - 1)

    def value(self, unit: float) -> Value:
        return self._values[int(self._indices(np.array([unit]))[0])]

    def snap(self, units_N: Array) -> Array:
        return (self._indices(units_N) + 0.5) / len(self._values)

    def features(self, units_N: Array) -> Array:
        return _APART * np.eye(len(self._values))[self._indices(units_N)]


def _axis(dimension: Dimension) -> Axis:
    match dimension:
        case FloatRange():
            return _Real(dimension)
        case IntRange(low, high, log, step):
            values = list(range(low, high + 1, step))
            return _Ordered(values, _spread([math.log(v) if log else float(v) for v in values]))
        case Choices(values):
            numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
            if len(numbers) < len(values) or len({type(value) for value in values}) > 1:
                return _Unordered(values)
            ordered = sorted(numbers)
            return _Ordered(ordered, _spread([float(rank) for rank in range(len(ordered))]))


def _spread(places: Sequence[float]) -> list[float]:
    """Places scaled to 0 to 1; a single one lies in the middle."""
    low, high = places[0], places[-1]
    return [0.5] if high <= low else [(place - low) / (high - low) for place in places]


class Encoding:
    """A space as a cube of P axes and as F features.

    Args:
        space: what is searched.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._axes = [_axis(parameter.dimension) for parameter in space.parameters]
        self._place = {parameter.name: index for index, parameter in enumerate(space.parameters)}

    @property
    def axes(self) -> int:
        return len(self._axes)

    def units(self, parameters: Mapping[str, Value]) -> Array:
        """Where a configuration lies in the cube: (P,)."""
        return np.array(
            [
                axis.unit(parameters[parameter.name]) if parameter.name in parameters else 0.5
                for axis, parameter in zip(self._axes, self._space.parameters, strict=True)
            ],
            dtype=np.float64,
        )

    def units_of(self, configurations: Sequence[Mapping[str, Value]]) -> Array:
        """Where configurations lie in the cube: (N, P)."""
        return np.array([self.units(parameters) for parameters in configurations])

    def parameters(self, units_P: Array) -> dict[str, Value]:
        """The configuration at a place of the cube, conditions decided on the way."""
        return self._space.fill(lambda parameter: self._value(parameter, units_P))

    def _value(self, parameter: Parameter, units_P: Array) -> Value:
        index = self._place[parameter.name]
        return self._axes[index].value(float(units_P[index]))

    def snap(self, units_NP: Array) -> Array:
        """Places of configurations that can be: what is not active lies in the middle."""
        snapped = np.column_stack([axis.snap(units_NP[:, index]) for index, axis in enumerate(self._axes)])
        for index, active in enumerate(self._active(snapped)):
            if active is not None:
                snapped[~active, index] = 0.5
        return snapped

    def features(self, snapped_NP: Array) -> Array:
        """What a model sees of snapped places: (N, F)."""
        columns: list[Array] = []
        for index, active in enumerate(self._active(snapped_NP)):
            part = self._axes[index].features(snapped_NP[:, index])
            if active is not None:
                part = np.column_stack([np.where(active[:, None], part, 0.5), active.astype(np.float64)])
            columns.append(part)
        return np.column_stack(columns)

    def _active(self, snapped_NP: Array) -> list[NDArray[np.bool_] | None]:
        """Of each parameter, in which configurations it is active; None where it always is."""
        found: list[NDArray[np.bool_] | None] = []
        for parameter in self._space.parameters:
            active: NDArray[np.bool_] | None = None
            for name, allowed in parameter.when.items():
                index = self._place[name]
                places = [self._axes[index].unit(value) for value in allowed]
                holds = np.isclose(snapped_NP[:, index, None], np.array(places)[None, :], atol=1e-9).any(axis=1)
                parent = found[index]
                holds = holds if parent is None else holds & parent
                active = holds if active is None else active & holds
            found.append(active)
        return found
