"""The trade-off of a sweep: further metrics that its own is weighed against, and what a trial's curve says of them all.

Reads the section `tradeoff:` and turns measurements into points (`hpo.pareto`). Knows no sampler and no rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpo.document import Document
from hpo.pareto import Point
from hpo.trials import Direction, Ending, Measured, Metric, Outcome

MOST = 2
"""Further metrics there may be: on a front of four metrics nearly every trial would lie."""

SAMPLERS = ("auto", "random", "qmc", "grid")
"""Those that can search a trade-off: the first looks for all of it, the others for nothing in particular."""

PRUNERS = ("auto", "pausing halving", "none")


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """The metric of a study and those that it is weighed against; false where there are none."""

    metric: Metric
    others: tuple[Metric, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.others)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (self.metric, *self.others)

    def point(self, measurements: Sequence[Measured]) -> Point | None:
        """What a trial with these measurements has reached in each metric, smaller is better.

        All are values of one measurement, for a trial is one model: the last, or with `at: best` the one at which the
        study's own metric was best. None where there is no trade-off, or one of them is missing or not finite there.
        """
        if not self.others or not measurements:
            return None
        name = self.metric.name
        last = measurements[-1]
        if self.metric.at == "best":
            finite = [m for m in measurements if math.isfinite(m.metrics.get(name, math.nan))]
            pick = min if self.metric.direction is Direction.MINIMIZE else max
            last = pick(finite, key=lambda m: m.metrics[name], default=last)
        values = [last.metrics.get(metric.name, math.nan) for metric in self.metrics]
        if not all(map(math.isfinite, values)):
            return None
        return tuple(sign(metric) * value for metric, value in zip(self.metrics, values, strict=True))

    def trouble(self, measurement: Measured) -> Outcome | None:
        """How a trial ends that does not measure what its metric is weighed against, or no number of it."""
        for metric in self.others:
            if metric.name not in measurement.metrics:
                got = ", ".join(sorted(measurement.metrics))
                return Outcome(Ending.FAILED, f"the objective measured {got}, not {metric.name} of the trade-off")
            if not math.isfinite(value := measurement.metrics[metric.name]):
                return Outcome(Ending.DIVERGED, f"{metric.name} is {value} at {measurement.progress:,}")
        return None


def recorded(metric: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> Tradeoff:
    """The trade-off of a study as its record has it."""
    own = Metric(metric["name"], Direction(metric["direction"]), metric.get("at", "last"))
    return Tradeoff(own, tuple(Metric(one["name"], Direction(one["direction"])) for one in others))


def sign(metric: Metric) -> float:
    """What makes a value of the metric one of which smaller is better."""
    return 1.0 if metric.direction is Direction.MINIMIZE else -1.0


def read(document: Document, own: str) -> tuple[Metric, ...]:
    """The section `tradeoff:`.

    An entry with a mistake keeps its place and what is sound of it, so that the rest is checked as well.

    Args:
        document: notes what is wrong.
        own: name of the study's metric.

    Returns:
        A metric for each entry; a name that cannot be is left empty.
    """
    node = document.tree.get("tradeoff")
    if node is None:
        return ()
    if not isinstance(node, list) or not 1 <= len(node) <= MOST:
        document.wrong(
            ("tradeoff",),
            f"requires a list of one or two metrics such as [{{name: model/parameters, direction: minimize}}], "
            f"got {node!r}.",
        )
    if not isinstance(node, list):
        return ()
    found: list[Metric] = []
    for index, item in enumerate(node):
        values = document.known(("tradeoff", index), item, ("name", "direction"))
        name, direction = values.get("name"), values.get("direction")
        if not isinstance(name, str) or not name:
            document.wrong(
                ("tradeoff", index, "name"), f"requires the name of a metric the objective measures, got {name!r}."
            )
            name = ""
        elif name in (own, *(metric.name for metric in found)):
            document.wrong(("tradeoff", index, "name"), f"{name} is there already; a metric is weighed against others.")
            name = ""
        if direction not in list(Direction):
            document.wrong(("tradeoff", index, "direction"), f"requires minimize or maximize, got {direction!r}.")
            direction = Direction.MINIMIZE
        found.append(Metric(name, Direction(direction)))
    return tuple(found)
