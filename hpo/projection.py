"""Pausing halving by where trials are expected to end, and not by where they stand.

An early measurement misleads where settings work late: dropout and weight decay cost at first what they are to earn,
and a learning rate is ahead as long as the schedule has not come down. How much a trial gains from one rung to the next
is known of those that went on; where that depends on the configuration, trials are compared by what they measured and
what their configurations are expected to gain. Pure arithmetic; knows no Optuna, no process and no file.

Shape suffixes: N trials on a rung, F features of a configuration.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hpo.halving import SPARED, Ladder, Level, Look, PausingHalving
from hpo.trials import Direction, Rung, compared_at

Array = NDArray[np.float64]

_FEWEST = 4  # trials, of which two say how much differs and two by what
_RATIOS = (1.0, 3.0, 10.0, 30.0, 100.0)  # variance of a weight over that of the noise
_EVEN = 0.5  # probability, before anything is seen, that gains do not depend on the configuration
_FLOOR = 0.02  # of the gains' variance: that much of it is noise, however well few of them are explained


class Gains:
    """Gains from one rung to the next, as far as they are linear in a configuration's features.

    Bayesian linear regression with the noise integrated out, averaged over models by their evidence: several variances
    of the weights, and that all gains are alike (Bishop, Pattern Recognition and Machine Learning, 2006, sections 3.3
    and 3.4). It is fitted to those who went on. That they were chosen by what they measured before does not bias it,
    but for the part of the gain that makes good for noise. Only sums are kept, so that many cost what few do.

    Args:
        features: how many there are of a configuration, each about 0 to 1.
    """

    def __init__(self, features: int) -> None:
        self._count = 0
        self._sum_F, self._with_F = np.zeros(features), np.zeros(features)
        self._products_FF = np.zeros((features, features))
        self._total = self._squares = 0.0
        self._found_F: Array | None = None

    def add(self, features_F: Array, gain: float) -> None:
        self._count, self._found_F = self._count + 1, None
        self._sum_F += features_F
        self._with_F += gain * features_F
        self._products_FF += np.outer(features_F, features_F)
        self._total += gain
        self._squares += gain * gain

    @property
    def weights_F(self) -> Array:
        """What a unit of each feature adds to the gain; 0 where gains seem to depend on none."""
        if self._found_F is None:
            self._found_F = self._fitted()
        return self._found_F

    def _fitted(self) -> Array:
        count = self._count
        none = np.zeros_like(self._sum_F)
        if count < _FEWEST:
            return none
        mean_F, mean = self._sum_F / count, self._total / count
        spread = self._squares - count * mean * mean  # sums of squares and products around the means
        scatter_FF = self._products_FF - count * np.outer(mean_F, mean_F)
        if spread <= 1e-12 * self._squares:
            return none
        sizes_F, axes_FF = np.linalg.eigh(scatter_FF)
        sizes_F = np.maximum(sizes_F, 0.0)
        along_F = axes_FF.T @ (self._with_F - count * mean * mean_F)
        floor = _FLOOR * spread / count
        evidence = [math.log(_EVEN) - (count + 1) / 2 * math.log(spread + floor)]
        found = [none]
        for ratio in _RATIOS:
            weights_F = ratio * along_F / (1 + ratio * sizes_F)
            left = max(spread - float(along_F @ weights_F), 0.0) + floor
            size = -0.5 * float(np.log1p(ratio * sizes_F).sum()) - (count + 1) / 2 * math.log(left)
            evidence.append(math.log((1 - _EVEN) / len(_RATIOS)) + size)
            found.append(axes_FF @ weights_F)
        shares = np.exp(np.array(evidence) - max(evidence))
        mixed: Array = (shares / shares.sum()) @ np.array(found)
        return mixed


class _Standing:
    """The trials on a rung in the order in which they came there."""

    def __init__(self, features: int) -> None:
        self._places: dict[int, int] = {}
        self._numbers_N = np.zeros(8, dtype=np.int64)
        self._values_N = np.zeros(8)
        self._features_NF = np.zeros((8, features))
        self._weights_F = np.zeros(features)
        self._expected_N: Array | None = None
        self._order: list[int] | None = None

    def put(self, number: int, value: float, features: Sequence[float]) -> None:
        place = self._places.setdefault(number, len(self._places))
        if place == len(self._numbers_N):
            self._numbers_N = np.concatenate([self._numbers_N, np.zeros_like(self._numbers_N)])
            self._values_N = np.concatenate([self._values_N, np.zeros_like(self._values_N)])
            self._features_NF = np.concatenate([self._features_NF, np.zeros_like(self._features_NF)])
        self._numbers_N[place], self._values_N[place], self._features_NF[place] = number, value, features
        self._expected_N = self._order = None

    def weigh(self, weights_F: Array) -> None:
        """What a unit of each feature adds until the end."""
        self._weights_F, self._expected_N, self._order = weights_F, None, None

    @property
    def is_weighed(self) -> bool:
        return bool(self._weights_F.any())

    @property
    def expected_N(self) -> Array:
        """What each is expected to end with, but for what all gain; smaller is better."""
        if self._expected_N is None:
            count = len(self._places)
            self._expected_N = self._values_N[:count] + self._features_NF[:count] @ self._weights_F
        return self._expected_N

    @property
    def leader(self) -> int:
        """The place in these arrays of the best by what it measured; of equals, the lowest number."""
        values = self._values_N[: len(self._places)]
        equals = np.flatnonzero(values == values.min())
        return int(equals[self._numbers_N[equals].argmin()])

    def before(self, number: int) -> int:
        """How many come before it: the leader, those that are expected to end better, equals of lower numbers."""
        place, leader = self._places[number], self.leader
        if place == leader:
            return 0
        expected, numbers = self.expected_N, self._numbers_N[: len(self._places)]
        better = (expected < expected[place]) | ((expected == expected[place]) & (numbers < number))
        better[leader] = True
        return int(better.sum())

    def order(self) -> Sequence[int]:
        """Their numbers, the first that goes on first."""
        if self._order is None:
            numbers, leader = self._numbers_N[: len(self._places)], int(self._numbers_N[self.leader])
            self._order = [
                leader,
                *(n for n in numbers[np.lexsort((numbers, self.expected_N))].tolist() if n != leader),
            ]
        return self._order


class ProjectedLadder(Ladder):
    """A ladder whose rungs are ordered by where trials are expected to end.

    Whoever leads a rung by what it measured comes first all the same: where the order of a rung is that of the end, the
    best of all leads each, and is never kept waiting by a wrong expectation.
    """

    def __init__(self, direction: Direction, reduction_factor: int, rungs: Sequence[Rung] = ()) -> None:
        super().__init__(direction, reduction_factor, rungs)
        self._standing: dict[Level, _Standing] = {}
        self._gains: dict[Level, Gains] = {}

    def place(self, look: Look) -> Level | None:
        before, known = self.highest.get(look.number), self.rungs
        level = super().place(look)
        if level is None:
            return None
        count, value = len(look.features), self.rungs[level][look.number]
        if level not in self._standing:
            self._standing[level] = _Standing(count)
            self._weigh(level)
        self._standing[level].put(look.number, value, look.features)
        if count and before is not None and before != level and self._is_next(before, look):
            gains = self._gains.setdefault(before, Gains(count))
            gains.add(np.array(look.features), value - known[before][look.number])
            for lower in self._standing:
                if lower[0] == before[0] and lower[1] <= before[1]:
                    self._weigh(lower)
        return level

    def _is_next(self, before: Level, look: Look) -> bool:
        """Whether a trial came from one rung to the next, over none."""
        if before[0] != (look.length or 0) or look.number not in self.rungs.get(before, {}):
            return False
        if not self.given or (look.length is None and not all(isinstance(rung, int) for rung in self.given)):
            return True
        rungs = compared_at(self.given, look.length, look.warmup)
        return sum(before[1] < rung <= look.progress for rung in rungs) == 1

    def _weigh(self, level: Level) -> None:
        """From a rung to the end it is the gains of all rungs in between."""
        further = [gains.weights_F for (length, progress), gains in self._gains.items()
                   if length == level[0] and progress >= level[1]]  # fmt: skip
        if further:
            self._standing[level].weigh(np.sum(further, axis=0))

    def order(self, level: Level) -> Iterator[int]:
        return iter(self._standing[level].order())

    def before(self, number: int, level: Level) -> int:
        return self._standing[level].before(number)

    def spared(self, level: Level, places: int, noise: float) -> int:
        expected = self._standing[level].expected_N
        if not noise or not 0 < places < len(expected):
            return places
        cut = np.partition(expected, places - 1)[places - 1]
        return int((expected <= cut + SPARED * noise).sum())

    def how(self, level: Level) -> str:
        return " by its expected end" if self._standing[level].is_weighed else ""


class ProjectedHalving(PausingHalving):
    """At each rung those go on that are expected to end best, as far as that is known; else those that measured best.

    What a trial is expected to gain from a rung to the end is learned from those that got further (`Gains`), and the
    others are compared anew whenever one more did. Where configurations are not known, or gains do not depend on them,
    it is pausing halving as it stands in `hpo.halving`.
    """

    def __init__(
        self, direction: Direction, rungs: Sequence[Rung] = (), reduction_factor: int = 3, noise: float | None = None
    ) -> None:
        super().__init__(direction, rungs, reduction_factor, noise)
        self._ladder = ProjectedLadder(direction, reduction_factor, rungs)
