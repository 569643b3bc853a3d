"""The corners of a space: configurations that tell what its settings cost, each near the baseline.

Pure choice; knows a plan, and nothing of how they are run.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpo.plan import Plan
from hpo.space import FloatRange, Parameter
from hpo.trials import Value

ENDS = 6  #: settings' ends measured one at a time, at most

Values = Mapping[str, Value]


def reference(plan: Plan, parameter: Parameter) -> Value:
    """The value a setting has in a probe that is about another one."""
    return plan.baseline.get(parameter.name, parameter.dimension.ends()[0])


def configuration(plan: Plan, given: Values) -> dict[str, Value]:
    """The baseline with some settings changed, and with what these require so that they are searched at all."""
    wanted = dict(given)
    for parameter in reversed(plan.space.parameters):
        if parameter.name in wanted:
            for other, allowed in parameter.when.items():
                if other not in wanted and plan.baseline.get(other) not in allowed:
                    wanted[other] = allowed[0]

    def choose(parameter: Parameter) -> Value:
        return wanted.get(parameter.name, reference(plan, parameter))

    return plan.space.fill(choose)


def ends(plan: Plan) -> tuple[list[tuple[str, Value]], list[str]]:
    """Ends of whole-number settings and choices to be measured one at a time; those left out, in words.

    The largest of each setting comes before the others of any.
    """
    ranked: list[tuple[int, str, Value]] = []
    for parameter in plan.space.parameters:
        if isinstance(parameter.dimension, FloatRange):
            continue
        own = reference(plan, parameter)
        values = [value for value in parameter.dimension.ends() if value != own or type(value) is not type(own)]
        if all(isinstance(value, int | float) for value in values):
            low, high = values[:1], values[1:]
            values = sorted(values, key=float, reverse=True) if high else low  # type: ignore[arg-type]
            values = [*values[:1], *reversed(values[1:])]
        ranked += [(place, parameter.name, value) for place, value in enumerate(dict.fromkeys(values))]
    ranked.sort(key=lambda entry: entry[0])
    chosen = [(name, value) for _, name, value in ranked]
    return chosen[:ENDS], [f"{name} {value}" for name, value in chosen[ENDS:]]
