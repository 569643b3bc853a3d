"""Laws of a sweep: what an objective says of where a setting's best value lies, bound to what the sweep fixes.

Knows no formula (the objective has them) and no sampler: `hpo.encoding` makes a law the centre of a range.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpo.errors import did_you_mean
from hpo.objective import Objective
from hpo.schema import Invalid
from hpo.space import FloatRange, Parameter, Space
from hpo.trials import Value


class Law:
    """One setting's law, as a function of the values that are searched.

    Args:
        parameter: whose centre it says.
        function: the objective's.
        objective: makes configurations.
        fixed: settings that do not vary.
        unsettled: a value for each parameter that a law may not read: its own, and those that come after it.
    """

    def __init__(
        self,
        parameter: Parameter,
        function: Callable[[Any], float],
        objective: Objective,
        fixed: Mapping[str, object],
        unsettled: Mapping[str, Value],
    ) -> None:
        self.source = (function.__doc__ or "").strip().partition("\n")[0]
        self._function, self._objective = function, objective
        self._fixed, self._unsettled = fixed, unsettled
        self._remembered = functools.lru_cache(maxsize=8192)(self._asked)

    def told(self, values: Mapping[str, Value]) -> float:
        """What the law says of a configuration.

        Raises:
            Invalid: it is no configuration.
            ValueError: the objective gives no law here, or none that is a number above 0.
        """
        settings = {name: value for name, value in values.items() if name not in self._unsettled}
        found = float(self._function(self._objective.config({**self._fixed, **self._unsettled, **settings})))
        if not 0 < found < math.inf:
            raise ValueError(f"requires a finite number above 0, got {found:g} from the objective's law.")
        return found

    def __call__(self, values: Mapping[str, Value]) -> float:
        """The same; not a number where there is no law."""
        known = ((name, type(value), value) for name, value in values.items() if name not in self._unsettled)
        return self._remembered(tuple(known))

    def _asked(self, known: tuple[tuple[str, type, Value], ...]) -> float:
        try:
            return self.told({name: value for name, _, value in known})
        except (Invalid, ValueError):
            return math.nan


def objection(parameter: Parameter, objective: Objective, sampler: str) -> str | None:
    """Why a parameter cannot have the law that it names."""
    door = objective.name.partition(":")[0]
    if not objective.laws:
        return f"no law was fitted for {door}; leave `law` out."
    if parameter.name not in objective.laws:
        others = ", ".join(objective.laws)
        return f"no law says where {parameter.name} is best; leave `law` out. There are some for {others}."
    if parameter.law not in (known := objective.laws[parameter.name]):
        return f"no such law of {parameter.name}, got {parameter.law!r}.{did_you_mean(str(parameter.law), known)}"
    if not isinstance(parameter.dimension, FloatRange):
        return "a law centres a range of real numbers; leave `law` out."
    if sampler != "auto":
        return f"requires `sampler: auto`, which alone knows laws, got {sampler}. Leave one of them out."
    return None


def bound(parameters: Sequence[Parameter], objective: Objective, fixed: Mapping[str, object]) -> Space:
    """A space whose laws are functions; parameters that have one come last, each after those its law reads."""
    order = list(objective.laws)
    own = sorted((p for p in parameters if p.law is not None), key=lambda parameter: order.index(parameter.name))
    settled: list[Parameter] = [parameter for parameter in parameters if parameter.law is None]
    for index, parameter in enumerate(own):
        unsettled = {later.name: later.dimension.ends()[0] for later in own[index:]}
        function = objective.laws[parameter.name][str(parameter.law)]
        settled.append(replace(parameter, centre=Law(parameter, function, objective, fixed, unsettled)))
    return Space(tuple(settled))


def centred(space: Space) -> list[tuple[Parameter, FloatRange, Law]]:
    """The parameters that have a law."""
    return [
        (parameter, parameter.dimension, parameter.centre)
        for parameter in space.parameters
        if isinstance(parameter.centre, Law) and isinstance(parameter.dimension, FloatRange)
    ]


def refusal(law: Law, values: Mapping[str, Value]) -> str | None:
    """Why the law says nothing of an allowed configuration, in words."""
    try:
        law.told(values)
    except Invalid:
        return None  # it would not be trained
    except ValueError as error:
        return str(error)
    return None


def caution(parameter: Parameter, dimension: FloatRange, said: float) -> str | None:
    """What to say of a law whose value for the baseline lies outside the range."""
    if dimension.low <= said <= dimension.high:
        return None
    return f"space.{parameter.name}: {parameter.law} says {said:.2g}, outside the range; there it centres nothing"
