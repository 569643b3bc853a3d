"""Which running trials have been silent for far longer than any has needed: those that hang.

Knows times, tokens and trials' numbers; ends nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_PAUSED_SECONDS = 60.0
_LEAST_SECONDS = 300.0  # a slow disk or a busy machine is not yet a hang, however quick the trials


@dataclass(slots=True)
class _Watched:
    """When a trial was last heard of, how much more patience it gets, and the most tokens between two of its
    measurements, where known."""

    since: float
    patience: float
    gap: int | None = None


class Watch:
    """Hears of measurements, and says who is overdue.

    What a trial may take is told from the slowest so far: seconds for a token, and between two measurements where
    tokens are not known. Nothing is expected before a first measurement of anybody.

    Args:
        times: how many times the expected time is a hang; None: nothing ever is.
        clock: monotonic seconds.
    """

    def __init__(self, times: float | None, clock: Callable[[], float]) -> None:
        self._times = times
        self._clock = clock
        self._looked = clock()
        self._trials: dict[int, _Watched] = {}
        self._per_token = self._between = 0.0

    def started(self, number: int, earlier_hangs: int) -> None:
        """A try of a trial began. Each earlier one that was taken for hung makes it four times more patient: it may
        be a dear configuration rather than a hang."""
        self._trials[number] = _Watched(self._clock(), 4.0**earlier_hangs)

    def begun(self, number: int, rungs: Sequence[int], length: int | None) -> None:
        """A trial said where it measures: at its rungs, and at its end."""
        if length is not None:
            self._trials[number].gap = max(after - before for before, after in pairwise([0, *rungs, length]))

    def measured(self, number: int, tokens: int) -> None:
        """A trial measured, so many tokens after the last measurement that is on record."""
        watched = self._trials[number]
        self.look()
        if tokens > 0:
            seconds = self._clock() - watched.since
            self._per_token = max(self._per_token, seconds / tokens)
            self._between = max(self._between, seconds)
        watched.since = self._clock()

    def held(self, seconds: float) -> None:
        """Everybody waited for this process."""
        for watched in self._trials.values():
            watched.since += seconds

    def ended(self, number: int) -> None:
        del self._trials[number]

    def look(self) -> None:
        """Notice where this process or the machine stood still, and the trials perhaps with it."""
        paused, self._looked = self._clock() - self._looked, self._clock()
        if paused > _PAUSED_SECONDS:
            self.held(paused)

    def overdue(self) -> Iterator[tuple[int, float]]:
        """The trials that hang, each with the seconds it has been silent."""
        self.look()
        if self._times is None:
            return
        for number, watched in self._trials.items():
            silent = self._clock() - watched.since
            expected = self._between if watched.gap is None else self._per_token * watched.gap
            if expected and silent > max(_LEAST_SECONDS, self._times * expected) * watched.patience:
                yield number, silent
