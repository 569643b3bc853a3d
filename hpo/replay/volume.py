"""What the trials of a search are worth beside all that were recorded, where a trade-off has no one best: the volume.

Knows points, and neither a table nor a strategy.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from hpo import pareto
from hpo.pareto import Point

_BEYOND = 0.1  # of the front's range


class Volume:
    """The hypervolume of recorded points, as the measure of others.

    The reference point is in each metric a tenth of the front's range beyond the worst on the front (near the nadir, as
    Ishibuchi et al., How to Specify a Reference Point in Hypervolume Calculation, Evolutionary Computation 26(3), 2018,
    ask for), so that the ends of the front count, and trials that exploded do not. Where the front has but one value,
    the range is that of all points. Where the median of all points is worse still, it takes the place: beside a narrow
    front, good trials would else count for nothing. Each metric counts by its range; no unit does.

    Args:
        points: of all trials that were recorded to their ends, at least one; smaller is better.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self.front = [points[index] for index in pareto.front(points)]
        axes = zip(zip(*self.front, strict=True), zip(*points, strict=True), strict=True)
        self.reference: Point = tuple(
            max(max(own) + _BEYOND * (_range(own) or _range(every) or 1.0), statistics.median(every))
            for own, every in axes
        )

    @cached_property
    def whole(self) -> float:
        return pareto.hypervolume(self.front, self.reference)

    def shares(self, points: Iterable[Point]) -> Iterator[float]:
        """The share of the recorded volume that points dominate, after each of them.

        From 0, and 1 for the whole front. Above 1 only for points that were not recorded: a model's answers.
        """
        front: list[Point] = []
        share = 0.0
        for point in points:
            if not any(one == point or pareto.dominates(one, point) for one in front):
                front = [*(one for one in front if not pareto.dominates(point, one)), point]
                share = pareto.hypervolume(front, self.reference) / self.whole
            yield share

    def found(self, points: Iterable[Point]) -> int:
        """How many points of the recorded front are among some."""
        return len(set(self.front) & set(points))


def _range(values: Sequence[float]) -> float:
    """How far values are apart; 0 where that is no more than rounding."""
    apart = max(values) - min(values)
    return apart if apart > 1e-9 * max(map(abs, values)) else 0.0
