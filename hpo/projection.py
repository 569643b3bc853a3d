"""Pausing halving by where trials are expected to end, and not by where they stand.

An early measurement misleads where settings work late: dropout and weight decay cost at first what they are to earn,
and a learning rate is ahead as long as the schedule has not come down. How much a trial gains from one rung to the next
is known of those that went on; where that depends on the configuration, trials are compared by what they measured and
what their configurations are expected to gain. Pure arithmetic; knows no Optuna, no process and no file.

Shape suffixes: N trials, F features of a configuration.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.halving import SPARED, Ladder, Level, Look, PausingHalving
from hpo.trials import Direction, Rung, compared_at

Array = NDArray[np.float64]

_FEWEST = 4  # trials, of which two say how much differs and two by what
_RATIOS = (1.0, 3.0, 10.0, 30.0, 100.0)  # variance of a weight over that of the noise
_EVEN = 0.5  # probability, before anything is seen, that gains do not depend on the configuration
_FLOOR = 0.02  # of the gains' variance: that much of it is noise, however well few of them are explained
_OUTLYING = 3 * 1.4826  # median absolute deviations: three standard deviations of normal gains
_DIGITS = 30  # binary ones of what trials are compared by: sums come out otherwise in another order


class _Table:
    """A row for each of some trials, in the order in which they came: a number and the trial's features.

    Args:
        features: how many there are of a configuration, each about 0 to 1.
    """

    def __init__(self, features: int) -> None:
        self.places: dict[int, int] = {}
        self._numbers_N = np.zeros(8, dtype=np.int64)
        self._values_N = np.zeros(8)
        self._features_NF = np.zeros((8, features))

    def __len__(self) -> int:
        return len(self.places)

    def put(self, number: int, value: float, features: Sequence[float]) -> int:
        """Where the trial stands from now on, or did before."""
        place = self.places.setdefault(number, len(self.places))
        if place == len(self._numbers_N):
            self._numbers_N = _doubled(self._numbers_N)
            self._values_N = _doubled(self._values_N)
            self._features_NF = _doubled(self._features_NF)
        self._numbers_N[place], self._values_N[place], self._features_NF[place] = number, value, features
        return place

    @property
    def numbers_N(self) -> NDArray[np.int64]:
        return self._numbers_N[: len(self)]

    @property
    def values_N(self) -> Array:
        return self._values_N[: len(self)]

    @property
    def features_NF(self) -> Array:
        return self._features_NF[: len(self)]


def _doubled(rows: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([rows, np.zeros_like(rows)])


class Gains:
    """Gains from one rung to the next, as far as they are linear in a configuration's features.

    Bayesian linear regression with the noise integrated out, averaged over models by their evidence: several variances
    of the weights, and that all gains are alike (Bishop, Pattern Recognition and Machine Learning, 2006, sections 3.3
    and 3.4). It is fitted to those who went on. That they were chosen by what they measured before does not bias it,
    but for the part of the gain that makes good for noise. A gain far from all others (a training that has blown up) is
    taken for one at three standard deviations from their median.

    Args:
        features: how many there are of a configuration, each about 0 to 1.
    """

    def __init__(self, features: int) -> None:
        self._rows = _Table(features)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, number: int, features: Sequence[float], gain: float) -> None:
        """What a trial gained."""
        self._rows.put(number, gain, features)
        self.__dict__.pop("weights_F", None)

    @cached_property
    def weights_F(self) -> Array:
        """What a unit of each feature adds to the gain; 0 where gains seem to depend on none."""
        order = np.argsort(self._rows.numbers_N)  # in whatever order they came, sums are the same
        features_NF, gain_N = self._rows.features_NF[order], self._rows.values_N[order]
        none = np.zeros(features_NF.shape[1])
        if len(self) < _FEWEST:
            return none
        middle = float(np.median(gain_N))
        outlying = _OUTLYING * float(np.median(np.abs(gain_N - middle)))
        near_N = np.clip(gain_N, middle - outlying, middle + outlying)
        apart_N = near_N - near_N.mean()
        with np.errstate(over="ignore"):
            spread, size = float(apart_N @ apart_N), float(near_N @ near_N)
        if not (math.isfinite(size) and spread > 1e-12 * size):
            return none
        return _averaged(features_NF - features_NF.mean(axis=0), apart_N, spread)


def _averaged(features_NF: Array, apart_N: Array, spread: float) -> Array:
    """The mean of the weights over models. Features and gains are around their means; `spread` sums gains squared."""
    count = len(apart_N)
    sizes_F, axes_FF = np.linalg.eigh(features_NF.T @ features_NF)
    sizes_F = np.maximum(sizes_F, 0.0)
    along_F = axes_FF.T @ (features_NF.T @ apart_N)
    floor = _FLOOR * spread / count
    evidence = [math.log(_EVEN) - (count + 1) / 2 * math.log(spread + floor)]
    found = [np.zeros_like(along_F)]
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
    """The trials on a rung, by what they measured and by what they are expected to end with.

    Args:
        features: how many there are of a configuration.
    """

    def __init__(self, features: int) -> None:
        self._rows = _Table(features)
        self._weights_F = np.zeros(features)
        self._expected_N = np.zeros(8)

    def put(self, number: int, value: float, features: Sequence[float]) -> None:
        place = self._rows.put(number, value, features)
        if place >= len(self._expected_N):
            self._expected_N = _doubled(self._expected_N)
        self._expected_N[place] = self._expect(slice(place, place + 1))[0]

    def weigh(self, weights_F: Array) -> None:
        """What a unit of each feature adds until the end."""
        if not np.array_equal(weights_F, self._weights_F):
            self._weights_F = weights_F
            self._expected_N[: len(self._rows)] = self._expect(slice(None))

    def _expect(self, rows: slice) -> Array:
        values_N = self._rows.values_N[rows]
        if not self.is_weighed:
            return values_N
        added_N = (self._rows.features_NF[rows] * self._weights_F).sum(axis=1)
        parts_N, exponents_N = np.frexp(values_N + added_N)
        return np.asarray(np.ldexp(np.round(np.ldexp(parts_N, _DIGITS)), exponents_N - _DIGITS), dtype=np.float64)

    @property
    def is_weighed(self) -> bool:
        return bool(self._weights_F.any())

    @property
    def expected_N(self) -> Array:
        """What each is expected to end with, but for what all gain; smaller is better."""
        return self._expected_N[: len(self._rows)]

    @property
    def leader(self) -> int:
        """The place in these arrays of the best by what it measured; of equals, the lowest number."""
        values_N = self._rows.values_N
        equals = np.flatnonzero(values_N == values_N.min())
        return int(equals[self._rows.numbers_N[equals].argmin()])

    def before(self, number: int) -> int:
        """How many come before it: the leader, those that are expected to end better, equals of lower numbers."""
        place, leader = self._rows.places[number], self.leader
        if place == leader:
            return 0
        expected_N, numbers_N = self.expected_N, self._rows.numbers_N
        better_N = (expected_N < expected_N[place]) | ((expected_N == expected_N[place]) & (numbers_N < number))
        better_N[leader] = True
        return int(better_N.sum())

    def first(self, count: int) -> list[int]:
        """The numbers of the first so many that go on, in their order."""
        expected_N, leader = self.expected_N, self.leader
        count = min(count, len(expected_N))
        if count < 1:
            return []
        last = np.partition(expected_N, count - 1)[count - 1]
        near = np.flatnonzero(expected_N <= last)
        near = near[np.lexsort((self._rows.numbers_N[near], expected_N[near]))]
        near = np.concatenate([[leader], near[near != leader]])[:count]
        found: list[int] = self._rows.numbers_N[near].tolist()
        return found

    def spared(self, places: int, noise: float) -> int:
        """How many are above the cut or within two deviations of the last above it."""
        cut = self.expected_N[self._rows.places[self.first(places)[-1]]]
        if places == 1:  # the leader alone, which is first by what it measured: the next by what they are expected to
            cut = self.expected_N.min()
        near_N = self.expected_N <= cut + SPARED * noise
        near_N[self.leader] = True
        return max(places, int(near_N.sum()))


class _OneLength:
    """Rungs of trials of one length."""

    def __init__(self) -> None:
        self.standing: dict[Level, _Standing] = {}
        self._gains: dict[Level, dict[Level, Gains]] = {}
        self._weighed: set[Level] = set()

    def gained(self, before: Level, after: Level, number: int, features: tuple[float, ...], gain: float) -> None:
        self._gains.setdefault(before, {}).setdefault(after, Gains(len(features))).add(number, features, gain)
        self._weighed.clear()

    def at(self, level: Level) -> _Standing:
        """A rung as it stands by all that is known now."""
        standing = self.standing[level]
        if level not in self._weighed:
            further = [gains.weights_F for gains in self._until_the_end(level)]
            if further:
                standing.weigh(np.sum(further, axis=0))
            self._weighed.add(level)
        return standing

    def _until_the_end(self, level: Level) -> Iterator[Gains]:
        """Gains from rung to rung, from each to where most went; trials may measure in different places near a rung."""
        while following := self._gains.get(level):
            level = min(following, key=lambda after: (-len(following[after]), after))
            yield following[level]


class ProjectedLadder(Ladder):
    """A ladder whose rungs are ordered by where trials are expected to end.

    The end is one more rung, whoever said which there are. Whoever leads a rung by what it measured comes first all the
    same: where the order of a rung is that of the end, the best of all leads each, and no expectation keeps it waiting.
    """

    def __init__(self, direction: Direction, reduction_factor: int, rungs: Sequence[Rung] = ()) -> None:
        super().__init__(direction, reduction_factor, rungs)
        self._lengths: dict[int, _OneLength] = {}

    def place(self, look: Look) -> Level | None:
        before, reached = self.highest.get(look.number), self._reached.get(look.number, 0)
        level = super().place(look)
        length = self._lengths.setdefault(look.length or 0, _OneLength())
        if level is not None:
            standing = length.standing.setdefault(level, _Standing(len(look.features)))
            standing.put(look.number, self.rungs[level][look.number], look.features)
        came = look.progress > reached and (level is not None or look.final)
        if came and before is not None and look.features and self._is_next(before, look):
            gain = self._sign * look.value - self.rungs[before][look.number]
            length.gained(before, (look.length or 0, look.progress), look.number, look.features, gain)
        return level

    def _is_next(self, before: Level, look: Look) -> bool:
        """Whether a trial came from one rung to the next, over none."""
        if before[0] != (look.length or 0) or look.number not in self.rungs.get(before, {}):
            return False
        if not self.given or (look.length is None and not all(isinstance(rung, int) for rung in self.given)):
            return True
        rungs = {*compared_at(self.given, look.length, look.warmup), *([look.length] if look.length else [])}
        return sum(before[1] < rung <= look.progress for rung in rungs) == 1

    def _at(self, level: Level) -> _Standing:
        return self._lengths[level[0]].at(level)

    def order(self, level: Level) -> Iterator[int]:
        return iter(self._at(level).first(len(self.rungs[level])))

    def first(self, level: Level, places: int, waiting: Mapping[int, Level]) -> int | None:
        return next((number for number in self._at(level).first(places) if waiting.get(number) == level), None)

    def before(self, number: int, level: Level) -> int:
        return self._at(level).before(number)

    def spared(self, level: Level, places: int, noise: float) -> int:
        if not noise or not 0 < places < len(self.rungs[level]):
            return places
        return self._at(level).spared(places, noise)

    def how(self, level: Level) -> str:
        return " by its expected end" if self._at(level).is_weighed else ""


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
