"""A search space as a unit cube, and as the features that a model of it sees.

Each parameter is one axis of the cube, log ranges by their logarithm. A range is one feature from 0 to 1. Choices that
are numbers keep their order (8, 16, 32 are neighbours, whatever is between them); others are a feature each. A
parameter that is not active in a configuration is at the middle of its axis, and a feature says that it is not there.

A range with a law is centred by it: the law's value is the middle of the axis, what is below it one half and what is
above it the other. A model sees how far a value is from the law, by logarithm, so that a best value which moves as the
law says is always at the same place. A law beyond the range counts as its end, one that says nothing as its middle.

No value gathers trials: near an end of the range, what is between the law and that end gets less than half of the axis,
in proportion to its width, and nothing at the end itself; the axis is then that of a range without a law.
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

_LONG = 10_000  # values of a range
_APART = math.sqrt(0.5)  # two choices without an order are as far apart as the ends of a range
_DENSEST = 10.0  # times as many trials as without a law, at most, where a law lies near the end of a range


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
        if self._high <= self._low:
            return np.full_like(units_N, 0.5)
        if self._range.step is None:
            return units_N
        width = self._range.step / (self._high - self._low)
        return np.minimum(np.round(units_N / width), self._steps) * width

    def features(self, units_N: Array) -> Array:
        return units_N[:, None]


class _Centred(_Real):
    """A log range whose middle is what a law says of the rest of the configuration.

    By place in the range the axis is two straight lines that meet at the law: increasing, from end to end.
    """

    def place(self, law: float) -> float:
        """Where in the range, 0 to 1, a law's value lies."""
        if not 0 < law < math.inf:
            return 0.5
        return super().unit(law)

    def unit_at(self, value: Value, centre: float) -> float:
        place, middle = super().unit(value), _middle(centre)
        if place <= centre:
            return middle * place / centre if place < centre else middle
        return middle + (1 - middle) * (place - centre) / (1 - centre)

    def value_at(self, unit: float, centre: float) -> Value:
        middle = _middle(centre)
        if unit <= middle:
            return super().value(centre * unit / middle if unit < middle else centre)
        return super().value(centre + (1 - centre) * (unit - middle) / (1 - middle))

    def feature(self, value: Value, centre: float) -> float:
        """How far a value is from the law."""
        return 0.5 + super().unit(value) - centre


def _middle(centre: float) -> float:
    """Where on its axis the place of a law lies: in the middle, unless one side of it has next to no room."""
    return min(max(0.5, 1 - _DENSEST * (1 - centre)), _DENSEST * centre)


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


class _Whole:
    """A long range of whole numbers, of which no list is made."""

    def __init__(self, dimension: IntRange) -> None:
        self._range = dimension
        self._log = dimension.log
        self._low, self._high = self._place(dimension.low), self._place(dimension.high)

    def _place(self, value: float) -> float:
        return math.log(value) if self._log else float(value)

    def unit(self, value: Value) -> float:
        assert isinstance(value, int)
        return (self._place(value) - self._low) / (self._high - self._low)

    def value(self, unit: float) -> Value:
        place = self._low + unit * (self._high - self._low)
        low, step = self._range.low, self._range.step
        steps = round(((math.exp(place) if self._log else place) - low) / step)
        return low + min(max(steps, 0), (self._range.high - low) // step) * step

    def snap(self, units_N: Array) -> Array:
        return np.array([self.unit(self.value(unit)) for unit in units_N.tolist()])

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


def _axis(parameter: Parameter) -> Axis:
    dimension: Dimension = parameter.dimension
    if parameter.centre is not None and isinstance(dimension, FloatRange):
        return _Centred(dimension)
    match dimension:
        case FloatRange():
            return _Real(dimension)
        case IntRange(low, high, step=step) if (high - low) // step > _LONG:
            return _Whole(dimension)
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
        self._axes = [_axis(parameter) for parameter in space.parameters]
        self.is_centred = any(parameter.centre is not None for parameter in space.parameters)
        self._place = {parameter.name: index for index, parameter in enumerate(space.parameters)}

    @property
    def axes(self) -> int:
        return len(self._axes)

    def units(self, parameters: Mapping[str, Value]) -> Array:
        """Where a configuration lies in the cube: (P,)."""
        return np.array(
            [
                self._unit(axis, parameter, parameters) if parameter.name in parameters else 0.5
                for axis, parameter in zip(self._axes, self._space.parameters, strict=True)
            ],
            dtype=np.float64,
        )

    def units_of(self, configurations: Sequence[Mapping[str, Value]]) -> Array:
        """Where configurations lie in the cube: (N, P)."""
        return np.array([self.units(parameters) for parameters in configurations])

    def parameters(self, units_P: Array) -> dict[str, Value]:
        """The configuration at a place of the cube, conditions decided on the way."""
        values: dict[str, Value] = {}

        def choose(parameter: Parameter) -> Value:
            values[parameter.name] = self._value(parameter, units_P, values)
            return values[parameter.name]

        return self._space.fill(choose)

    def _value(self, parameter: Parameter, units_P: Array, values: Mapping[str, Value]) -> Value:
        index = self._place[parameter.name]
        axis, unit = self._axes[index], float(units_P[index])
        if isinstance(axis, _Centred) and parameter.centre is not None:
            return axis.value_at(unit, axis.place(parameter.centre(values)))
        return axis.value(unit)

    def _unit(self, axis: Axis, parameter: Parameter, values: Mapping[str, Value]) -> float:
        if isinstance(axis, _Centred) and parameter.centre is not None:
            return axis.unit_at(values[parameter.name], axis.place(parameter.centre(values)))
        return axis.unit(values[parameter.name])

    def _from_laws(self, units_NP: Array) -> dict[int, Array]:
        """Of each axis with a law, what a model sees of each configuration: (N,)."""
        if not self.is_centred:
            return {}
        configurations = [self.parameters(place) for place in units_NP]
        found: dict[int, Array] = {}
        for index, (axis, parameter) in enumerate(zip(self._axes, self._space.parameters, strict=True)):
            if isinstance(axis, _Centred) and parameter.centre is not None:
                found[index] = np.full(len(units_NP), 0.5)
                for row, values in enumerate(configurations):
                    if parameter.name in values:
                        centre = axis.place(parameter.centre(values))
                        found[index][row] = axis.feature(values[parameter.name], centre)
        return found

    def snap(self, units_NP: Array) -> Array:
        """Places of configurations that can be: what is not active lies in the middle."""
        snapped = np.column_stack([axis.snap(units_NP[:, index]) for index, axis in enumerate(self._axes)])
        for index, active in enumerate(self._active(snapped)):
            if active is not None:
                snapped[~active, index] = 0.5
        return snapped

    def active(self, snapped_P: Array) -> NDArray[np.bool_]:
        """Which settings are there at a snapped place: (P,)."""
        return np.array([one is None or bool(one[0]) for one in self._active(snapped_P[None, :])])

    def apart(self, place_P: Array, places_NP: Array) -> Array:
        """How far places are from one: along the axis where it is most; other names are a whole axis apart: (N,)."""
        gaps = np.abs(places_NP - place_P)
        for index, axis in enumerate(self._axes):
            if isinstance(axis, _Unordered):
                gaps[:, index] = gaps[:, index] > 1e-9
        farthest: Array = gaps.max(axis=1)
        return farthest

    def activated(self, place_P: Array, index: int, turn: int) -> Array:
        """A place with a setting there, those that it hangs on changed where they must be: (P,).

        Conditions are met one after the other: where one undoes another, the setting is not there after all.

        Args:
            place_P: where to begin.
            index: of the setting.
            turn: which of several values that would do is taken.
        """
        place_P = place_P.copy()
        for name, allowed in self._space.parameters[index].when.items():
            parent = self._place[name]
            place_P = self.activated(place_P, parent, turn)
            places = [self._axes[parent].unit(value) for value in allowed]
            if not np.isclose(self._axes[parent].snap(place_P[parent : parent + 1]), places, atol=1e-9).any():
                place_P[parent] = places[turn % len(places)]
        return place_P

    def features(self, snapped_NP: Array) -> Array:
        """What a model sees of snapped places: (N, F)."""
        columns: list[Array] = []
        centred = self._from_laws(snapped_NP)
        for index, active in enumerate(self._active(snapped_NP)):
            part = centred[index][:, None] if index in centred else self._axes[index].features(snapped_NP[:, index])
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
