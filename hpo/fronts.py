"""Pausing halving for a trade-off: trials are compared by the front they are on, not by one metric.

A small model is worse than a large one and yet worth having: stopped for its loss alone it would be lost. Knows no
Optuna, no process and no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpo import pareto
from hpo.halving import Ladder, Level, Look, PausingHalving
from hpo.pareto import Point
from hpo.trials import Direction, Rung


class FrontLadder(Ladder):
    """A ladder whose rungs are ordered front by front, each front so that its first few spread over it."""

    def __init__(self, direction: Direction, reduction_factor: int, rungs: Sequence[Rung] = ()) -> None:
        super().__init__(direction, reduction_factor, rungs)
        self._points: dict[Level, dict[int, Point]] = {}
        self._orders: dict[Level, list[int]] = {}

    def place(self, look: Look) -> Level | None:
        level = super().place(look)
        if level is not None:
            self._points.setdefault(level, {})[look.number] = look.point
            self._orders.pop(level, None)
        return level

    def order(self, level: Level) -> Iterator[int]:
        if level not in self._orders:
            numbers = sorted(self._points[level])
            points = [self._points[level][number] for number in numbers]
            self._orders[level] = [numbers[index] for index in pareto.ranked(points)]
        return iter(self._orders[level])

    def before(self, number: int, level: Level) -> int:
        return list(self.order(level)).index(number)

    def leading(self, level: Level) -> int:
        """How many on the rung are dominated by none."""
        return len(pareto.front(list(self._points[level].values())))


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
