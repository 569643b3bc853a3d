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
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hpo.observations import Observed, Seen, chosen
from hpo.pareto import Point, tchebycheff, tchebycheff_of_many, weights

if TYPE_CHECKING:  # numpy is imported when a trial is asked for: `hpo check` must not wait for it
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Weighed:
    """The trials of a study, ready to be told as if they had one metric.

    What comes is noted once. For each weighting, all trials are put in order at once, and only those that a model is
    made of are told again.

    Args:
        observed: trials with points.
        levels: shares of a trial at which measurements compare, increasing.
        seed: of the study.
    """

    def __init__(self, observed: Observed, levels: Sequence[float], seed: int) -> None:
        self.observed = observed
        self._levels, self._seed = levels, seed
        self._scales: dict[int, _Scale] = {}
        self._open: dict[int, _Noted] = {}  # by place: those that have not ended, which may go on
        self._begun = 0
        # Of each trial that is known or waits, in no order: its place, how far it came, its last point, on which level.
        self._slots: dict[int, int] = {}
        self._places, self._far, self._level = array("q"), array("d"), array("q")
        self._axes: list[array[float]] = []

    def chosen(self, number: int, most: int, leading: int, first: int, mixed: int) -> list[Seen]:
        """Those that a model is made of, each measurement with one value of which smaller is better.

        Args:
            number: of the trial that is asked for; it decides the weighting.
            most: see `Observed.chosen`, as of those that follow.
            leading: see there.
            first: see there.
            mixed: the seed there.
        """
        self._note()
        trials = self.observed.trials
        weighting = weights(self._metrics, self._seed, number)
        begun = [place for place in range(min(first, len(trials))) if place in self._slots]
        order = self._ordered(weighting) if len(self._places) > most else self._places
        places = chosen(len(order), lambda index: int(order[index]), begun, most, leading, mixed)
        places |= {place for place, noted in self._open.items() if not noted.waits}
        return [self._told(trials[place], weighting) for place in sorted(places)]

    @property
    def _metrics(self) -> int:
        return next(len(seen.points[0]) for seen in self.observed.trials if seen.points)

    def _told(self, seen: Seen, weighting: Point) -> Seen:
        curve = [
            (progress, tchebycheff(self._scales[level].scaled(point), weighting))
            for (progress, _), point, level in zip(seen.curve, seen.points, self._found(seen), strict=True)
        ]
        value = None if seen.value is None or not curve else curve[-1][1]
        return replace(seen, curve=curve, value=value, points=[])

    def _found(self, seen: Seen) -> list[int]:
        return [_level(seen, progress, self._levels) for progress, _ in seen.curve]

    # -- what is noted of each trial --------------------------------------------------------------------

    def _note(self) -> None:
        trials = self.observed.trials
        for seen in trials[self._begun :]:
            self._open[seen.place] = _Noted(seen)
        self._begun = len(trials)
        for noted in [noted for noted in self._open.values() if noted.is_old]:
            seen = noted.seen
            if len(seen.points) != noted.points or seen.length != noted.length:
                self._measured(seen, noted)
            self._rank(seen)
            noted.waits = seen.waits
            if seen.ending is not None:
                del self._open[seen.place]

    def _measured(self, seen: Seen, noted: _Noted) -> None:
        """What a trial last was at each level; of an unknown length, a level is of the farthest measurement."""
        latest = dict(zip(self._found(seen), seen.points, strict=True))
        for level in latest.keys() | noted.latest.keys():
            scale = self._scales.setdefault(level, _Scale.of(len(seen.points[0])))
            if not seen.repeat:  # several seeds of one configuration would be so many rivals of the others
                scale.replace(noted.latest.get(level, ()), latest.get(level, ()))
        noted.points, noted.length, noted.latest = len(seen.points), seen.length, latest

    def _rank(self, seen: Seen) -> None:
        """Enter a trial among those that are put in order, or take it out while it runs."""
        slot = self._slots.get(seen.place)
        if not (seen.waits or seen.is_known):
            if slot is not None:
                self._leave(seen.place, slot)
            return
        level, point = (self._found(seen)[-1], seen.points[-1]) if seen.points else (-1, ())
        far = 0.0 if seen.is_bad or not seen.curve else 1.0 if seen.value is not None else seen.share(seen.curve[-1][0])
        if slot is None:
            slot = self._slots[seen.place] = len(self._places)
            for column in (self._places, self._level):
                column.append(0)
            for axis in (self._far, *self._axes):
                axis.append(0.0)
        self._places[slot], self._far[slot], self._level[slot] = seen.place, far, level
        if not self._axes:
            self._axes = [array("d", bytes(8 * len(self._places))) for _ in point]
        for axis, value in zip(self._axes, point, strict=False):
            axis[slot] = value

    def _leave(self, place: int, slot: int) -> None:
        """The last one takes its slot."""
        del self._slots[place]
        last = self._places[-1]
        for column in (self._places, self._level):
            column[slot] = column[-1]
            column.pop()
        for axis in (self._far, *self._axes):
            axis[slot] = axis[-1]
            axis.pop()
        if last != place:
            self._slots[last] = slot

    def _ordered(self, weighting: Point) -> Array:
        """The places of all that are known or wait, those that came farthest first, and of those the best."""
        import numpy as np

        level, values = np.array(self._level), np.full(len(self._level), np.inf)
        axes = [np.array(axis) for axis in self._axes]
        for one, scale in self._scales.items():
            here = level == one
            values[here] = tchebycheff_of_many(scale.scaled_all([axis[here] for axis in axes]), weighting)
        places = np.array(self._places)
        order: Array = places[np.lexsort((places, values, -np.array(self._far)))]
        return order


def _level(seen: Seen, progress: int, levels: Sequence[float]) -> int:
    share = seen.share(progress)
    return min(range(len(levels)), key=lambda level: abs(math.log(share / levels[level])))


@dataclass(slots=True)
class _Noted:
    """Of a trial, what was noted when it was last looked at: how many points, and the last of them at each level."""

    seen: Seen
    points: int = 0
    length: int | None = None
    latest: dict[int, Point] = field(default_factory=dict)
    waits: bool = False

    @property
    def is_old(self) -> bool:
        """Whether the trial has changed since."""
        seen = self.seen
        return (
            len(seen.points) != self.points
            or seen.waits != self.waits
            or seen.ending is not None
            or seen.length != self.length
        )


@dataclass(frozen=True, slots=True)
class _Scale:
    """Of one level: the sorted values of each metric, of each trial the last."""

    axes: tuple[array[float], ...]

    @classmethod
    def of(cls, metrics: int) -> _Scale:
        return cls(tuple(array("d") for _ in range(metrics)))

    def replace(self, old: Point, new: Point) -> None:
        """Either may be empty."""
        if old == new:
            return
        for axis, value in zip(self.axes, old, strict=False):
            del axis[bisect.bisect_left(axis, value)]
        for axis, value in zip(self.axes, new, strict=False):
            bisect.insort(axis, value)

    def scaled(self, point: Point) -> Point:
        """The rank in each metric: 0 for the best, 1 in the middle, 2 for the worst; of equals, their mean."""
        return tuple(
            max(0, bisect.bisect_left(axis, value) + bisect.bisect_right(axis, value) - 1) / max(1, len(axis) - 1)
            for value, axis in zip(point, self.axes, strict=True)
        )

    def scaled_all(self, axes: Sequence[Array]) -> list[Array]:
        """The same for many points, an axis each."""
        import numpy as np

        found = []
        for values, axis in zip(axes, map(np.array, self.axes), strict=True):
            both = np.searchsorted(axis, values, "left") + np.searchsorted(axis, values, "right")
            found.append(np.maximum(both - 1, 0) / max(1, len(axis) - 1))
        return found
