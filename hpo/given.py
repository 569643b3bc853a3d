"""What a trial is without being suggested: the baseline and its repeats, known configurations, random draws, a grid.

The baseline is trained with as many seeds as `search.seeds` says, trial 0 with the study's own; what follows is
numbered from there as it would be from trial 1 on without repeats. A function of the sweep and the trial's number: a
study that was interrupted, or is shared, has each trial where it would have had it. Knows no sampler and no rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hpo.space import Space
from hpo.sweep import Search
from hpo.trials import Value
from hpo.unbiased import Unbiased


class GivenTrials:
    """The trials of a study that no sampler chooses.

    Args:
        search: as the sweep has it.
        space: what is searched.
        known: configurations to begin with, the baseline first; without one, nothing is repeated.
    """

    def __init__(self, search: Search, space: Space, known: Sequence[Mapping[str, Value]]) -> None:
        self._seed, self._space, self._known = search.seed, space, known
        self._unbiased = Unbiased(search.unbiased, search.seed)
        grid = space.grid() if search.sampler.name == "grid" else None
        self._grid = None if grid is None else [values for values in grid if values not in known]
        self.repeats = range(1, search.seeds if known else 1)
        """Numbers of the trials that are trial 0 once more, each with a seed of its own."""

    @property
    def size(self) -> float:
        """Trials there are to run at most: a grid ends, everything else does not."""
        return math.inf if self._grid is None else len(self.repeats) + len(self._known) + len(self._grid)

    def parameters(self, number: int) -> Mapping[str, Value] | None:
        """A trial's configuration, or None where it is the sampler's to choose; random draws put off the others."""
        number = self._without_repeats(number)
        if self._unbiased.takes(number):
            return self._unbiased.draw(self._space, number)
        place = number - self._unbiased.before(number)
        if place < len(self._known):
            return self._known[place]
        return None if self._grid is None else self._grid[place - len(self._known)]

    def seed(self, number: int) -> int:
        """The study's seed; of the repeats, those that follow it."""
        return self._seed + (number if number in self.repeats else 0)

    def repeated(self, number: int) -> int | None:
        """Of a repeat, the trial whose configuration it has; of any other trial, None."""
        return 0 if number in self.repeats else None

    def protected(self, number: int) -> bool:
        """Whether a trial is trained to its end whatever the rule says: the baseline, its repeats, random draws."""
        number = self._without_repeats(number)
        return (number == 0 and bool(self._known)) or self._unbiased.takes(number)

    def _without_repeats(self, number: int) -> int:
        """The number that a trial would have if the baseline were trained once; a repeat, that of the baseline."""
        return max(0, number - len(self.repeats))
