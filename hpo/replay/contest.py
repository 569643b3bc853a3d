"""Strategies on a table: each searched many times, paired by seed, and what each had found when so much was spent.

Knows no terminal and no file.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial

from hpo.journal import History
from hpo.replay.simulation import Replay, replay
from hpo.replay.tables import Table
from hpo.search import Trials
from hpo.study import Study
from hpo.sweep import Search, Strategy
from hpo.trials import Direction

ENDLESS = 10**6
RANDOM, NOTHING = Strategy("random"), Strategy("none")
RECORDED = Strategy("recorded")
"""Not a sampler: the table's own trials, in their own order."""


@dataclass(frozen=True)
class Entrant:
    """A strategy that takes part.

    Attributes:
        name: for people.
        sampler: as a sweep names it; `RECORDED` asks for the table's trials in their order.
        pruner: as a sweep names it.
        shares: rungs; empty: trials measure wherever the table has a measurement.
        trials: how many, of a budget in whole trainings; None: as many as the budget takes.
        unbiased: share of the trials that are drawn at random and never stopped.
        make: of another package: the trials of a table, from a seed and a number of slots.
    """

    name: str
    sampler: Strategy = RANDOM
    pruner: Strategy = NOTHING
    shares: tuple[Fraction, ...] = ()
    trials: Callable[[float], int] | None = None
    make: Callable[[Table, int, int], Trials] | None = None
    unbiased: float = 0.0

    def enter(self, table: Table, seed: int, slots: int, count: int) -> Trials:
        if self.make is not None:
            return self.make(table, seed, slots)
        rungs = table.rungs(self.shares) if self.shares else ()
        known = [row.parameters for row in table.rows] if self.sampler == RECORDED else table.known
        sampler = Strategy("random") if self.sampler == RECORDED else self.sampler
        search = Search(count, sampler, self.pruner, seed=seed, rungs=rungs, unbiased=self.unbiased)
        first = min((point.progress for row in table.rows for point in row.points), default=1)
        return Study(table.asked_by(search, known), None, History(), first)


@dataclass(frozen=True)
class Terms:
    """How strategies are compared.

    Attributes:
        repeats: seeds, from 0 on.
        slots: at once.
        budget: in whole trainings of the table's mean cost; None: until the trials have ended.
        trials: how many; None: as many as the budget takes.
    """

    repeats: int = 50
    slots: int = 1
    budget: float | None = 20.0
    trials: int | None = None


@dataclass(frozen=True)
class Result:
    """What one strategy did on one table.

    Attributes:
        replays: one a seed.
    """

    table: Table
    entrant: Entrant
    terms: Terms
    replays: tuple[Replay, ...] = field(repr=False)

    def regrets(self, spent: float | None = None) -> list[float]:
        """How far the best trained in full is from the table's best when so many whole trainings were spent.

        Of a trade-off, what the trials trained in full lack of the hypervolume of all recorded ones: 1 less their share
        (`hpo.replay.volume`), from 0 to 1; where a model answers, it may be below 0.

        One a seed, in the metric's unit, 0 and above but for noise; infinite where none was trained in full by then.
        """
        minimize = self.table.metric.direction is Direction.MINIMIZE
        limit = None if spent is None else spent * self.table.full_cost
        if self.table.volume is not None:
            most = math.inf if limit is None else limit * (1 + 1e-9)
            counts = [bisect.bisect_right(one.steps, most, key=lambda step: step.spent) for one in self.replays]
            return [
                1.0 - shares[count - 1] if count else math.inf
                for shares, count in zip(self._shares, counts, strict=True)
            ]
        found = [one.best(self.table.metric.direction.better, limit) for one in self.replays]
        sign = 1.0 if minimize else -1.0
        return [math.inf if best is None else sign * (best - self.table.best) for best in found]

    @cached_property
    def _shares(self) -> list[list[float]]:
        """Of each search of a trade-off, the share of the volume after each trial trained in full."""
        volume = self.table.volume
        assert volume is not None
        return [list(volume.shares(step.point for step in one.steps)) for one in self.replays]

    def curve(self, grid: Sequence[float]) -> list[float]:
        """The median regret at each of these costs, in whole trainings."""
        return [statistics.median(self.regrets(spent)) for spent in grid]

    def cost_to_reach(self, regret: float) -> float:
        """The least cost, in whole trainings, at which the median regret is no larger; infinite if never."""
        most = max((one.spent for one in self.replays), default=0.0) / self.table.full_cost
        costs = sorted({step.spent / self.table.full_cost for one in self.replays for step in one.steps})
        low, high = 0, len(costs)
        while low < high:  # the median of curves that only fall only falls
            middle = (low + high) // 2
            if statistics.median(self.regrets(costs[middle])) <= regret + 1e-12:
                high = middle
            else:
                low = middle + 1
        return costs[low] if low < len(costs) and costs[low] <= most * (1 + 1e-9) else math.inf


def _once(table: Table, entrant: Entrant, terms: Terms, seed: int) -> Replay:
    count = terms.trials or ENDLESS
    if entrant.trials is not None and terms.budget is not None:
        count = entrant.trials(terms.budget)
    if entrant.sampler == RECORDED:
        count = min(count, len(table.rows))
    budget = None if terms.budget is None else terms.budget * table.full_cost
    trials = entrant.enter(table, seed, terms.slots, count)
    return replay(table, trials, count=count, slots=terms.slots, budget=budget)


def compete(
    table: Table, entrants: Sequence[Entrant], terms: Terms, pool: ProcessPoolExecutor | None = None
) -> Iterator[Result]:
    """The result of each strategy, one after the other.

    Args:
        table: that is searched.
        entrants: strategies; each has the same seeds.
        terms: how they are compared.
        pool: runs repeats side by side, where there is one (tables that are functions cannot be sent to it).
    """
    for entrant in entrants:
        once = partial(_once, table, entrant, terms)
        repeats = 1 if entrant.sampler == RECORDED and terms.slots == 1 else terms.repeats
        spread = map(once, range(repeats)) if pool is None else pool.map(once, range(repeats), chunksize=4)
        yield Result(table, entrant, terms, tuple(spread))


def by_name(results: Sequence[Result]) -> Mapping[str, Result]:
    return {result.entrant.name: result for result in results}
