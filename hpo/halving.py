"""Successive halving over rungs of equal progress: trials below the cut are stopped, or set aside and taken up again.

A rung is a progress, in tokens, of trials of one length: a trial is compared with those that had as much training out
of as much, and with no others. Which of them arrived first matters only where the rule stops trials; where it sets
them aside, whoever turns out to deserve it goes on later. Pure values: knows no Optuna, no process and no file.
"""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hpo.pareto import Point
from hpo.trials import Direction, Ending, Outcome, Paused, Rung, Verdict, compared_at


@dataclass(frozen=True, slots=True)
class Look:
    """A measurement as a rule sees it.

    Attributes:
        number: of the trial.
        progress: tokens (or examples) seen.
        value: of the metric; finite.
        length: progress at which the trial is complete, where its objective says so.
        warmup: progress up to which its learning rate warms up. A rule is shown no look in it.
        point: of a trade-off, its values in all metrics, smaller is better.
        repeats: the trial whose configuration this one has once more, with another seed; None: it has one of its own.
            There is at most one such configuration in a study.
        features: of the configuration, each about 0 to 1 (`hpo.encoding`), for rules that ask for them.
    """

    number: int
    progress: int
    value: float
    length: int | None = None
    point: Point = ()
    repeats: int | None = None
    warmup: int = 0
    features: tuple[float, ...] = ()

    @property
    def final(self) -> bool:
        return self.length is not None and self.progress >= self.length

    @property
    def incomparable(self) -> bool:
        """Whether its learning rate still warmed up: it says nothing of the trial beside others. Its end does."""
        return self.progress <= self.warmup and not self.final


class Rule(Protocol):
    """Decides at each measurement whether a trial goes on, and which of those set aside is taken up again."""

    def judge(self, look: Look, prunes: Callable[[], bool]) -> Verdict | None:
        """What is to become of a trial that measured, or None where it goes on. In order of a trial's progress.

        `prunes` asks the Optuna pruner of the study.
        """
        ...

    def recall(self, look: Look) -> None:
        """Take note of a measurement that was judged in an earlier run."""
        ...

    def set_aside(self, number: int) -> None:
        """A trial waits with its checkpoint, until `revive` names it or it ends."""
        ...

    def revive(self, *, last: bool) -> int | None:
        """A trial that was set aside and is to go on now; with `last`, no further trial will be begun."""
        ...

    def taken_up(self, number: int) -> None:
        """A trial is one that `revive` named in an earlier run. It may be set aside again, or have ended."""
        ...

    def ended(self, number: int) -> None:
        """A trial has ended, however it did."""
        ...

    def least(self) -> int | None:
        """Of the trials set aside, the one that is least likely to be taken up again."""
        ...


class Lasting:
    """What a rule does that sets nothing aside."""

    def recall(self, look: Look) -> None:
        """Nothing is remembered."""

    def set_aside(self, number: int) -> None:
        """Not by this rule: by an earlier one of the study, perhaps."""

    def revive(self, *, last: bool) -> int | None:
        return None

    def taken_up(self, number: int) -> None:
        """Nothing is remembered."""

    def ended(self, number: int) -> None:
        """Nothing is remembered."""

    def least(self) -> int | None:
        return None


class Never(Lasting):
    """Lets every trial train to its end."""

    def __init__(self, direction: Direction, rungs: Sequence[Rung] = ()) -> None:
        del direction, rungs

    def judge(self, look: Look, prunes: Callable[[], bool]) -> Verdict | None:
        return None


SPARED = 2  # standard deviations below the cut
Level = tuple[int, int]  # of a trial: its length (0 where unknown), and the progress at which it is compared


class Ladder:
    """Who has reached which rung with which value.

    A trial is on a rung with its first measurement at or after it; rungs in its warm-up it passes over. Where nobody
    said which rungs there are, a trial's first measurement is one, and each that is `reduction_factor` times as far as
    the last: every epoch is not. A rung compares configurations: of one that is repeated the first training counts, and
    all of them tell its noise.

    Args:
        direction: of the metric.
        reduction_factor: between two rungs, where they are not given.
        rungs: as the sweep has them.
    """

    def __init__(self, direction: Direction, reduction_factor: int, rungs: Sequence[Rung] = ()) -> None:
        self.factor = reduction_factor
        self.given = tuple(rungs)
        self.rungs: dict[Level, dict[int, float]] = {}  # values, smaller is better
        self.highest: dict[int, Level] = {}
        self._sign = 1.0 if direction is Direction.MINIMIZE else -1.0
        self._sorted: dict[Level, list[tuple[float, int]]] = {}  # the same, the best first: thousands are compared with
        self._reached: dict[int, int] = {}
        self._repeated: int | None = None
        self._again: dict[Level, dict[int, float]] = {}  # values of its repeats

    def place(self, look: Look) -> Level | None:
        """Put a trial on the rung that it has reached; None where it has reached none since its last measurement.

        A repeat is put on none.
        """
        before = self._reached.get(look.number, 0)
        level = (look.length or 0, look.progress)
        if look.progress > before:
            self._reached[look.number] = look.progress
            if not self._crossed(look, before):
                return None
        elif self.highest.get(look.number) != level:
            return None
        self.highest[look.number] = level
        if look.repeats is not None:
            self._repeated = look.repeats
            self._again.setdefault(level, {})[look.number] = look.value
            return None
        rung, order = self.rungs.setdefault(level, {}), self._sorted.setdefault(level, [])
        if look.number in rung:
            del order[bisect.bisect_left(order, (rung[look.number], look.number))]
        rung[look.number] = self._sign * look.value
        bisect.insort(order, (rung[look.number], look.number))
        return level

    def _crossed(self, look: Look, before: int) -> bool:
        if self.given and (look.length is not None or all(isinstance(rung, int) for rung in self.given)):
            return any(before < rung <= look.progress for rung in compared_at(self.given, look.length, look.warmup))
        last = self.highest.get(look.number)
        return last is None or look.progress >= self.factor * last[1]

    def better(self, number: int, level: Level) -> int:
        """How many on the rung are better."""
        return bisect.bisect_left(self._sorted[level], (self.rungs[level][number], -1))

    def before(self, number: int, level: Level) -> int:
        """How many on the rung come before: the better ones, and equals of lower numbers."""
        return bisect.bisect_left(self._sorted[level], (self.rungs[level][number], number))

    def how(self, level: Level) -> str:
        """By what trials of a rung are compared, where it is not by what they measured there."""
        return ""

    def order(self, level: Level) -> Iterator[int]:
        """Trials of a rung, best first; of equals, the lowest number."""
        return (number for _, number in self._sorted[level])

    def first(self, level: Level, places: int, waiting: Mapping[int, Level]) -> int | None:
        """Of the first so many on the rung, the first that waits there."""
        best = itertools.islice(self.order(level), places)
        return next((number for number in best if waiting.get(number) == level), None)

    def last(self, level: Level, numbers: Container[int]) -> int:
        """Of some trials, the last on the rung."""
        return next(number for number in reversed(list(self.order(level))) if number in numbers)

    def noise(self, level: Level) -> float:
        """Standard deviation on the rung between trainings of the repeated configuration; 0 before two are there.

        Unbiased in its square (n - 1). Two or three say it roughly: of three, the true one is with 95% between 0.5
        and 6.3 times as large (chi-square with two degrees of freedom).
        """
        values = list(self._again.get(level, {}).values())
        if self._repeated is not None and self._repeated in self.rungs.get(level, {}):
            values.append(self._sign * self.rungs[level][self._repeated])
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def spared(self, level: Level, places: int, noise: float) -> int:
        """How many on the rung are above the cut, or so little below it that noise alone may have put them there.

        Args:
            level: the rung.
            places: how many are above the cut.
            noise: standard deviation of the metric between trainings of one configuration; those within two of the last
                above the cut are spared.
        """
        if not noise or not 0 < places < len(self.rungs[level]):
            return places
        cut, _ = self._sorted[level][places - 1]
        return bisect.bisect_right(self._sorted[level], (cut + SPARED * noise, math.inf))


class _Halving:
    """Trials on a ladder, of which at each rung one in so many goes on.

    Args:
        direction: of the metric.
        rungs: as the sweep has them.
        reduction_factor: of the trials on a rung, one in so many goes on.
        noise: standard deviation of the metric between trainings of one configuration; see `Ladder.spared`. None: that
            which repeats of one measured on the rung (`Ladder.noise`).
    """

    def __init__(
        self, direction: Direction, rungs: Sequence[Rung] = (), reduction_factor: int = 3, noise: float | None = None
    ) -> None:
        self._factor = checked(reduction_factor)
        self._noise = None if noise is None else deviation(noise)
        self._ladder = Ladder(direction, reduction_factor, rungs)

    def recall(self, look: Look) -> None:
        self._ladder.place(look)

    def _spared(self, level: Level, places: int) -> int:
        """The places of a rung, with those that noise alone may have put below the cut."""
        noise = self._ladder.noise(level) if self._noise is None else self._noise
        return self._ladder.spared(level, places, noise)


class SuccessiveHalving(_Halving, Lasting):
    """At each rung the best 1/`reduction_factor` of the trials that have reached it go on, the others are stopped.

    Asynchronous: a trial is judged when it arrives, against those that arrived before it (ASHA's stopping form; Li et
    al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, section 3). Nothing is taken back.
    """

    def judge(self, look: Look, prunes: Callable[[], bool]) -> Verdict | None:
        level = self._ladder.place(look)
        if level is None:
            return None
        size = len(self._ladder.rungs[level])
        places = self._spared(level, max(1, size // self._factor))
        better = self._ladder.better(look.number, level)
        if better < places:
            return None
        return Outcome(Ending.STOPPED, f"place {better + 1} of {size} at {look.progress:,}; the best {places} go on")


class PausingHalving(_Halving):
    """Successive halving that takes back: a trial below the cut waits, and goes on once it is above it.

    The promoting form of ASHA (Li et al., MLSys 2020, algorithm 2), with two differences. A trial that is above the cut
    as it arrives goes on at once, which spares it a restart. And when no further trial will be begun, the best of those
    that wait are trained on (the flush): as many of each rung as the cut allows, rounded up, so that
    whoever leads a rung leaves it. ASHA without it missed the best of 64 in a quarter of noise-free searches.
    """

    def __init__(
        self, direction: Direction, rungs: Sequence[Rung] = (), reduction_factor: int = 3, noise: float | None = None
    ) -> None:
        super().__init__(direction, rungs, reduction_factor, noise)
        self._waiting: dict[int, Level] = {}

    def judge(self, look: Look, prunes: Callable[[], bool]) -> Verdict | None:
        level = self._ladder.place(look)
        if level is None or look.final:
            return None
        size = len(self._ladder.rungs[level])
        places = self._places(level, last=False)
        better = self._ladder.before(look.number, level)
        if better < places:
            return None
        best = f"the best {places} go on" if places else f"{self._factor} are needed to compare"
        return Paused(f"place {better + 1} of {size} at {look.progress:,}{self._ladder.how(level)}; {best}")

    def set_aside(self, number: int) -> None:
        if number in self._ladder.highest:
            self._waiting[number] = self._ladder.highest[number]

    def taken_up(self, number: int) -> None:
        """It no longer waits, and that is all: the rungs tell who has gone on."""
        self._waiting.pop(number, None)

    def ended(self, number: int) -> None:
        self._waiting.pop(number, None)

    def revive(self, *, last: bool) -> int | None:
        """The best one above the cut, highest rung first."""
        for level in sorted(set(self._waiting.values()), key=lambda level: (-level[1], level[0])):
            number = self._ladder.first(level, self._places(level, last=last), self._waiting)
            if number is not None:
                del self._waiting[number]
                return number
        return None

    def _places(self, level: Level, *, last: bool) -> int:
        size = len(self._ladder.rungs[level])
        return self._spared(level, -(-size // self._factor) if last else size // self._factor)

    def least(self) -> int | None:
        """On the lowest rung, the last."""
        if not self._waiting:
            return None
        level = min(self._waiting.values(), key=lambda level: level[1])
        return self._ladder.last(level, {number for number, where in self._waiting.items() if where == level})


class BestOfRung:
    """Every trial waits at its first measurement; once all are there, the best `keep` are trained to their ends.

    "One epoch, then the best k": hard to beat where the order at the rung tells that at the end (Egele et al., Is One
    Epoch All You Need For Multi-Fidelity Hyperparameter Optimization?, ESANN 2023).
    """

    def __init__(self, direction: Direction, rungs: Sequence[Rung] = (), keep: int = 4) -> None:
        del rungs
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ValueError(f"keep requires a whole number from 1, got {keep!r}")
        self._direction = direction
        self._keep = keep
        self._first: dict[int, tuple[int, float]] = {}  # progress and value
        self._waiting: set[int] = set()
        self._gone_on: set[int] = set()

    def recall(self, look: Look) -> None:
        self._first.setdefault(look.number, (look.progress, look.value))

    def judge(self, look: Look, prunes: Callable[[], bool]) -> Verdict | None:
        if look.final:
            return None
        first, _ = self._first.setdefault(look.number, (look.progress, look.value))
        if look.progress > first:
            return None
        return Paused(f"waits at {look.progress:,} for the others; the best {self._keep} go on")

    def set_aside(self, number: int) -> None:
        self._waiting.add(number)

    def taken_up(self, number: int) -> None:
        self._gone_on.add(number)
        self._waiting.discard(number)

    def ended(self, number: int) -> None:
        self._waiting.discard(number)

    def revive(self, *, last: bool) -> int | None:
        if not last or len(self._gone_on) >= self._keep:
            return None
        order = self._order()
        if not order:
            return None
        self.taken_up(order[0])
        return order[0]

    def least(self) -> int | None:
        return next(reversed(self._order()), None)

    def _order(self) -> list[int]:
        sign = 1.0 if self._direction is Direction.MINIMIZE else -1.0
        return sorted(self._waiting & self._first.keys(), key=lambda number: (sign * self._first[number][1], number))


def checked(reduction_factor: int) -> int:
    if isinstance(reduction_factor, bool) or not isinstance(reduction_factor, int) or reduction_factor < 2:
        raise ValueError(f"reduction_factor requires a whole number from 2, got {reduction_factor!r}")
    return reduction_factor


def deviation(noise: float) -> float:
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < math.inf:
        raise ValueError(f"noise requires a standard deviation, a number from 0, got {noise!r}")
    return float(noise)


RULES: Mapping[str, tuple[type, tuple[str, ...]]] = {
    "none": (Never, ()),
    "successive halving": (SuccessiveHalving, ("reduction_factor", "noise")),
    "pausing halving": (PausingHalving, ("reduction_factor", "noise", "project")),
    "best of rung": (BestOfRung, ("keep",)),
}
"""Rules of this room by the name a sweep gives them, with their options."""
