"""Pausing halving for a trade-off: trials are compared by the front they are on, not by one metric.

A small model is worse than a large one and yet worth having: stopped for its loss alone it would be lost. Knows no
Optuna, no process and no file.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

from hpo.halving import Ladder, Level, Look, PausingHalving
from hpo.pareto import Fronts
from hpo.trials import Direction, Rung


class FrontLadder(Ladder):
    """A ladder whose rungs are ordered front by front, each front so that its first few spread over it."""

    def __init__(self, direction: Direction, reduction_factor: int, rungs: Sequence[Rung] = ()) -> None:
        super().__init__(direction, reduction_factor, rungs)
        self._fronts: dict[Level, Fronts] = {}

    def place(self, look: Look) -> Level | None:
        level = super().place(look)
        if level is not None:
            self._fronts.setdefault(level, Fronts()).put(look.number, look.point)
        return level

    def order(self, level: Level) -> Iterator[int]:
        return self._fronts[level].ranked()

    def before(self, number: int, level: Level) -> int:
        return self._fronts[level].before(number)

    def first(self, level: Level, places: int, waiting: Mapping[int, Level]) -> int | None:
        return self._fronts[level].first(places, lambda number: waiting.get(number) == level)

    def last(self, level: Level, numbers: Container[int]) -> int:
        found = self._fronts[level].last(numbers.__contains__)
        assert found is not None, "some are on the rung"
        return found

    def leading(self, level: Level) -> int:
        """How many on the rung are dominated by none."""
        return self._fronts[level].leading


class FrontHalving(PausingHalving):
    """At each rung the best 1/`reduction_factor` by non-dominated sorting go on, the others wait.

    MO-ASHA (Schmucker et al., Multi-objective Asynchronous Successive Halving, 2021) in the pausing form of
    `hpo.halving`. Within a front those go on first that spread over it, the best by the study's own metric before all:
    by that metric alone, a front of small and large models would keep its large ones. When no further trial will be
    begun, the whole first front of each rung goes on, be it more than a third: what no other trial beat is not lost.

    Args:
        direction: of the study's own metric.
        reduction_factor: of the trials on a rung, one in so many goes on.
    """

    def __init__(self, direction: Direction, rungs: Sequence[Rung] = (), reduction_factor: int = 3) -> None:
        super().__init__(direction, rungs, reduction_factor, noise=0.0)  # one metric's noise says nothing of a front
        self._fronts = self._ladder = FrontLadder(direction, reduction_factor, rungs)

    def _places(self, level: Level, *, last: bool) -> int:
        places = super()._places(level, last=last)
        return max(places, self._fronts.leading(level)) if last else places
