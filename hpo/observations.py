"""What a sampler knows of a study: each trial's configuration, its curve so far and how it ended.

Kept up to date event by event, so that asking for a trial costs the same however many there were. Knows no Optuna.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hpo.pareto import Point
from hpo.trials import Direction, Ending, Value


@dataclass(slots=True)
class Seen:
    """One trial, as a sampler sees it.

    Attributes:
        parameters: values of the space's active parameters.
        curve: progress and the metric's value at each finite measurement.
        points: of a trade-off, what each measurement of the curve was in all metrics; else empty.
        length: progress at which it is complete, where its objective says so.
        ending: None while it runs or waits.
        value: of a complete trial.
        place: in the order in which trials began, those of a warm start first.
    """

    parameters: Mapping[str, Value]
    curve: list[tuple[int, float]] = field(default_factory=list)
    length: int | None = None
    ending: Ending | None = None
    value: float | None = None
    place: int = 0
    points: list[Point] = field(default_factory=list)

    @property
    def is_bad(self) -> bool:
        """Whether it ended in a way that says that its configuration is a bad one."""
        return self.ending in (Ending.DIVERGED, Ending.OUT_OF_MEMORY)

    @property
    def says_nothing(self) -> bool:
        """Whether it ended in a way that says nothing of its configuration."""
        return self.ending in (Ending.KILLED, Ending.HUNG, Ending.FAILED)

    def share(self, progress: int) -> float:
        """A progress as a share of the whole trial; of an unknown length, of the farthest measurement."""
        whole = self.length or (self.curve[-1][0] if self.curve else progress)
        return min(1.0, progress / whole) if whole else 1.0

    def note(self, progress: int, value: float, length: int | None, point: Point | None = None) -> None:
        if math.isfinite(value):
            self.curve.append((progress, value))
            self.points += [] if point is None else [point]
        self.length = length if length is not None else self.length


_Rank = tuple[float, float, int]


class Observed:
    """All trials of a study and its warm start, in order, the promising ones at hand.

    Args:
        direction: of the metric.
        lessons: finished trials of other studies.
    """

    def __init__(self, direction: Direction, lessons: Iterable[Seen] = ()) -> None:
        self._sign = 1.0 if direction is Direction.MINIMIZE else -1.0
        self.trials: list[Seen] = []
        self.useful = 0
        self._own: dict[int, Seen] = {}
        self._unfinished: dict[int, Seen] = {}
        self._ranked: list[tuple[_Rank, Seen]] = []
        for lesson in lessons:
            lesson.place = len(self.trials)
            self.trials.append(lesson)
            self._rank(lesson)

    def began(self, number: int, parameters: Mapping[str, Value]) -> None:
        seen = self._own[number] = self._unfinished[number] = Seen(parameters, place=len(self.trials))
        self.trials.append(seen)
        self.useful += 1

    def measured(
        self, number: int, progress: int, value: float, length: int | None, point: Point | None = None
    ) -> None:
        self._own[number].note(progress, value, length, point)

    def ended(self, number: int, ending: Ending, value: float | None) -> None:
        seen = self._unfinished.pop(number)
        seen.ending, seen.value = ending, value
        self.useful -= 1
        self._rank(seen)

    def _rank(self, seen: Seen) -> None:
        if seen.says_nothing:
            return
        self.useful += 1
        far = 0.0 if seen.is_bad or not seen.curve else 1.0 if seen.value is not None else seen.share(seen.curve[-1][0])
        value = seen.value if seen.value is not None else seen.curve[-1][1] if seen.curve else math.inf
        bisect.insort(self._ranked, ((-far, self._sign * value, len(self._ranked)), seen), key=lambda pair: pair[0])

    def chosen(self, most: int, leading: int, first: int, seed: int) -> list[Seen]:
        """Those that a model is made of, in the order in which they began: all, or so many.

        Then they are the first, which were spread over the space; those that lead, which came farthest with the best
        values; and others drawn from the rest. Trials that have not ended are always among them.
        """
        ranked = [seen for _, seen in self._ranked]
        if len(ranked) > most:
            kept = [*ranked[:leading], *(seen for seen in ranked[leading:] if seen.place < first)]
            rest = [seen for seen in ranked[leading:] if seen.place >= first]
            ranked = [*kept, *random.Random(seed).sample(rest, max(0, most - len(kept)))]
        return sorted([*ranked, *self._unfinished.values()], key=lambda seen: seen.place)
