"""What a sampler knows of a study: each trial's configuration, its curve so far and how it ended.

Kept up to date event by event, so that asking for a trial costs the same however many there were. Knows no Optuna.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Callable, Iterable, Mapping
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
        pace: seconds that a unit of progress took, on average; None where nobody timed it.
        ending: None while it runs or waits.
        value: of a complete trial.
        place: in the order in which trials began, those of a warm start first.
        waits: whether the stopping rule has set it aside.
        repeat: whether it is an earlier trial's configuration once more, with another seed: it tells of no new place.
    """

    parameters: Mapping[str, Value]
    curve: list[tuple[int, float]] = field(default_factory=list)
    length: int | None = None
    ending: Ending | None = None
    value: float | None = None
    place: int = 0
    waits: bool = False
    points: list[Point] = field(default_factory=list)
    pace: float | None = None
    repeat: bool = False

    @property
    def is_bad(self) -> bool:
        """Whether it ended in a way that says that its configuration is a bad one."""
        return self.ending in (Ending.DIVERGED, Ending.OUT_OF_MEMORY)

    @property
    def says_nothing(self) -> bool:
        """Whether it ended in a way that says nothing of its configuration."""
        return self.ending in (Ending.KILLED, Ending.HUNG, Ending.FAILED)

    @property
    def is_known(self) -> bool:
        """Whether it has ended, and in a way that says something."""
        return self.ending is not None and not self.says_nothing

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
        self.cut_short = False
        """Whether any trial of the study has been set aside or stopped: to begin one is then cheap."""
        self._own: dict[int, Seen] = {}
        self._running: dict[int, Seen] = {}
        self._ranked: list[tuple[_Rank, Seen]] = []
        for lesson in lessons:
            lesson.place = len(self.trials)
            self.trials.append(lesson)
            if not lesson.says_nothing:
                self.useful += 1
                self._rank(lesson)

    def began(self, number: int, parameters: Mapping[str, Value], *, repeat: bool = False) -> None:
        seen = self._own[number] = self._running[number] = Seen(parameters, place=len(self.trials), repeat=repeat)
        self.trials.append(seen)
        self.useful += not repeat

    def measured(
        self, number: int, progress: int, value: float, length: int | None, point: Point | None = None
    ) -> None:
        self._own[number].note(progress, value, length, point)

    def took(self, number: int, progress: int, seconds: float) -> None:
        """A trial had trained for so many seconds when it measured."""
        if progress > 0:  # a look before training has begun takes its time, too
            self._own[number].pace = max(seconds, 1e-6) / progress

    def parameters(self, number: int) -> Mapping[str, Value]:
        return self._own[number].parameters

    def set_aside(self, number: int) -> None:
        """A trial waits: it counts as one that was stopped, until it is taken up again."""
        seen = self._running.pop(number)
        seen.waits = self.cut_short = True
        self._rank(seen)

    def taken_up(self, number: int) -> None:
        """A trial goes on that waited, if it did."""
        seen = self._own[number]
        if seen.waits:
            self._running[number] = seen
            self._unrank(seen)

    def ended(self, number: int, ending: Ending, value: float | None) -> None:
        self.taken_up(number)
        seen = self._running.pop(number)
        seen.ending, seen.value = ending, value
        self.cut_short |= ending is Ending.STOPPED
        if seen.says_nothing:
            self.useful -= not seen.repeat
        else:
            self._rank(seen)

    def _rank(self, seen: Seen) -> None:
        bisect.insort(self._ranked, (self._key(seen), seen), key=lambda pair: pair[0])

    def _unrank(self, seen: Seen) -> None:
        del self._ranked[bisect.bisect_left(self._ranked, self._key(seen), key=lambda pair: pair[0])]
        seen.waits = False

    def _key(self, seen: Seen) -> _Rank:
        """Those that came farthest first, and of those the best."""
        far = 0.0 if seen.is_bad or not seen.curve else 1.0 if seen.value is not None else seen.share(seen.curve[-1][0])
        value = seen.value if seen.value is not None else seen.curve[-1][1] if seen.curve else math.inf
        return -far, self._sign * value, seen.place

    def chosen(self, most: int, leading: int, first: int, seed: int) -> list[Seen]:
        """Those that a model is made of, in the order in which they began: all, or so many.

        Then they are the first, which were spread over the space; those that lead, which came farthest with the best
        values; and others drawn from the rest. Trials that run are always among them. Takes no longer of many trials
        than of few.
        """
        begun = [seen.place for seen in self.trials[:first] if seen.waits or seen.is_known]
        kept = chosen(len(self._ranked), lambda index: self._ranked[index][1].place, begun, most, leading, seed)
        kept |= {seen.place for seen in self._running.values()}
        return [self.trials[place] for place in sorted(kept)]


def chosen(
    count: int, place: Callable[[int], int], first: Iterable[int], most: int, leading: int, seed: int
) -> set[int]:
    """Places of those that a model is made of, of so many in the order of their promise; see `Observed.chosen`."""
    if count <= most:
        return {place(index) for index in range(count)}
    kept = {place(index) for index in range(leading)} | set(first)
    for index in random.Random(seed).sample(range(leading, count), min(most, count - leading)):
        if len(kept) >= most:
            break
        kept.add(place(index))
    return kept
