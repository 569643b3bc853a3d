"""The search space: ranges, choices and the conditions under which a setting is searched at all.

Pure values: this room knows nothing of YAML (hpo.sweep reads it) or of Optuna (hpo.study samples from it).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from hpo.trials import Value


@dataclass(frozen=True, slots=True)
class FloatRange:
    """Real numbers from `low` to `high`, both included; `log` samples the exponent, `step` rounds to a grid."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def contains(self, value: Value) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-6)

    def ends(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def grid(self) -> tuple[Value, ...] | None:
        """Every value, or None where there are infinitely many."""
        if self.low == self.high:
            return (self.low,)
        if self.step is None:
            return None
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(round(self.low + index * self.step, 12) for index in range(count))

    def draw(self, generator: random.Random) -> Value:
        if self.log:
            drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
            return min(max(drawn, self.low), self.high)
        if (grid := self.grid()) is not None:
            return generator.choice(grid)
        return generator.uniform(self.low, self.high)

    def __str__(self) -> str:
        step = "" if self.step is None else f", step {self.step:g}"
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}{step}"


@dataclass(frozen=True, slots=True)
class IntRange:
    """Whole numbers from `low` to `high`, both included; `log` samples the exponent, `step` skips."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def contains(self, value: Value) -> bool:
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0

    def ends(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def grid(self) -> tuple[Value, ...]:
        return tuple(range(self.low, self.high + 1, self.step))

    def draw(self, generator: random.Random) -> Value:
        if self.log:
            drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high + 1)))
            return min(max(int(drawn), self.low), self.high)
        return generator.randrange(self.low, self.high + 1, self.step)

    def __str__(self) -> str:
        step = "" if self.step == 1 else f", step {self.step}"
        return f"{self.low} to {self.high}{' (log)' if self.log else ''}{step}"


@dataclass(frozen=True, slots=True)
class Choices:
    """One of a list of values, without an order."""

    values: tuple[Value, ...]

    def contains(self, value: Value) -> bool:
        # 1 == True and 1 == 1.0 in Python; a choice is the same only when its type is too.
        return any(type(choice) is type(value) and choice == value for choice in self.values)

    def ends(self) -> tuple[Value, ...]:
        return self.values

    def grid(self) -> tuple[Value, ...]:
        return self.values

    def draw(self, generator: random.Random) -> Value:
        return generator.choice(self.values)

    def __str__(self) -> str:
        return "one of " + ", ".join(str(value) for value in self.values)


Dimension = FloatRange | IntRange | Choices


@dataclass(frozen=True, slots=True)
class Parameter:
    """One searched setting.

    Attributes:
        name: the setting's dotted name in the objective's configuration.
        dimension: the values it may take.
        when: it is searched only where each named parameter has one of these values; elsewhere the
            setting has its default value.
        law: name of the law that says where in the range the best value is expected.
        centre: that law, of a configuration's other values; whatever it answers, the range is not left.
    """

    name: str
    dimension: Dimension
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    law: str | None = None
    centre: Callable[[Mapping[str, Value]], float] | None = field(default=None, compare=False)

    def active(self, values: Mapping[str, Value]) -> bool:
        return all(name in values and values[name] in allowed for name, allowed in self.when.items())


@dataclass(frozen=True, slots=True)
class Space:
    """All searched settings, each after those its condition names (`ordered` makes it so) and its law reads."""

    parameters: tuple[Parameter, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def conditional(self) -> bool:
        return any(parameter.when for parameter in self.parameters)

    def fill(self, choose: Callable[[Parameter], Value]) -> dict[str, Value]:
        """Values for every active parameter, each chosen by `choose`, conditions decided on the way."""
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.active(values):
                values[parameter.name] = choose(parameter)
        return values

    def draw(self, generator: random.Random) -> dict[str, Value]:
        return self.fill(lambda parameter: parameter.dimension.draw(generator))

    def grid(self) -> Iterator[dict[str, Value]] | None:
        """Every configuration once, or None where a range has no step."""
        axes = [parameter.dimension.grid() for parameter in self.parameters]
        if any(axis is None for axis in axes):
            return None
        return self._product([axis for axis in axes if axis is not None])

    def _product(self, axes: list[tuple[Value, ...]]) -> Iterator[dict[str, Value]]:
        seen: set[tuple[tuple[str, Value], ...]] = set()
        for combination in itertools.product(*axes):
            by_name = dict(zip(self.names, combination, strict=True))
            values = self.fill(lambda parameter, by_name=by_name: by_name[parameter.name])  # type: ignore[misc]
            # Inactive parameters make several combinations one configuration.
            if (key := tuple(values.items())) not in seen:
                seen.add(key)
                yield values


def ordered(parameters: list[Parameter]) -> Space:
    """A space in which every parameter comes after those its condition names.

    Raises:
        ValueError: conditions go in a circle; the message names it.
    """
    remaining = list(parameters)
    placed: dict[str, Parameter] = {}
    names = {parameter.name for parameter in parameters}
    while remaining:
        ready = [p for p in remaining if all(name in placed or name not in names for name in p.when)]
        if not ready:
            raise ValueError("conditions go in a circle: " + ", ".join(p.name for p in remaining))
        for parameter in ready:
            placed[parameter.name] = parameter
            remaining.remove(parameter)
    return Space(tuple(placed.values()))
