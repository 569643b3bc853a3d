"""A trade-off as one metric, another one for each trial that is asked for: what the sampler `auto` makes its model of.

ParEGO (Knowles, ParEGO: a hybrid algorithm with on-line landscape approximation for expensive multiobjective
optimization problems, IEEE TEC 10(1), 2006): every suggestion weighs the metrics differently, so that together they
spread along the front. Deviations: a metric counts by its rank among the trials at the same level of progress, so that
whole curves take part and neither a loss that exploded nor sizes over three decades need a scale; weightings follow an
even sequence; and the model is that of `hpo.suggesting`. Knows no model.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpo.observations import Observed, Seen
from hpo.pareto import Point, tchebycheff, weights
from hpo.trials import Direction


def scalarized(observed: Observed, levels: Sequence[float], seed: int, number: int) -> Observed:
    """The same trials told again, each measurement with one value of which smaller is better.

    Args:
        observed: trials with points.
        levels: shares of a trial at which measurements compare, increasing.
        seed: of the study.
        number: of the trial that is asked for; it decides the weighting.
    """
    at = [[_level(seen, progress, levels) for progress, _ in seen.curve] for seen in observed.trials]
    scales = {level: _Scale.of(_points(observed.trials, at, level)) for level in {one for found in at for one in found}}
    weighting: Point = ()
    told = Observed(Direction.MINIMIZE)
    for place, (seen, found) in enumerate(zip(observed.trials, at, strict=True)):
        told.began(place, seen.parameters, repeat=seen.repeat)
        told.trials[place].seconds = seen.seconds
        value = None
        for (progress, _), point, level in zip(seen.curve, seen.points, found, strict=True):
            weighting = weighting or weights(len(point), seed, number)
            value = tchebycheff(scales[level].scaled(point), weighting)
            told.measured(place, progress, value, seen.length)
        if seen.waits:
            told.set_aside(place)
        elif seen.ending is not None:
            told.ended(place, seen.ending, None if seen.value is None else value)
    return told


def _level(seen: Seen, progress: int, levels: Sequence[float]) -> int:
    share = seen.share(progress)
    return min(range(len(levels)), key=lambda level: abs(math.log(share / levels[level])))


def _points(trials: Sequence[Seen], at: Sequence[Sequence[int]], level: int) -> list[Point]:
    """What each trial last was at a level, in the order in which they began."""
    found: list[Point] = []
    for seen, levels in zip(trials, at, strict=True):
        here = [point for point, one in zip(seen.points, levels, strict=True) if one == level]
        found += here[-1:]
    return found


@dataclass(frozen=True, slots=True)
class _Scale:
    """Of one level: the sorted values of each metric."""

    axes: tuple[list[float], ...]

    @classmethod
    def of(cls, points: Sequence[Point]) -> _Scale:
        return cls(tuple(sorted(axis) for axis in zip(*points, strict=True)))

    def scaled(self, point: Point) -> Point:
        """The rank in each metric: 0 for the best, 1 in the middle, 2 for the worst; of equals, their mean."""
        return tuple(
            (bisect.bisect_left(axis, value) + bisect.bisect_right(axis, value) - 1) / max(1, len(axis) - 1)
            for value, axis in zip(point, self.axes, strict=True)
        )
