"""How sure one may be: intervals, paired comparisons, and what the best of so many random trials is expected to be.

Pure arithmetic on lists of numbers; knows nothing of studies.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and where it lies with the level's probability."""

    middle: float
    low: float
    high: float


def bootstrap(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float] = statistics.median,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A statistic with its percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: at least one; infinite ones are allowed where the statistic allows them.
        statistic: of a sample.
        level: 0 to 1.
        seed: of the resampling.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    draw = random.Random(seed)
    found = sorted(statistic(draw.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    tail = (1 - level) / 2
    return Interval(
        statistic(values), found[int(tail * _RESAMPLES)], found[min(_RESAMPLES - 1, int((1 - tail) * _RESAMPLES))]
    )


def difference(ours: Sequence[float], theirs: Sequence[float], level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of paired differences, ours less theirs, with its bootstrap interval.

    Pairs in which both are infinite (neither has found anything) differ by nothing; one that is infinite alone counts
    as the largest finite difference there is.

    Raises:
        ValueError: the samples are not of one length.
    """
    pairs = list(zip(ours, theirs, strict=True))
    finite = [abs(one - other) for one, other in pairs if math.isfinite(one - other)]
    most = max(finite, default=1.0) or 1.0
    return bootstrap([_difference(one, other, most) for one, other in pairs], statistics.fmean, level, seed)


def _difference(one: float, other: float, most: float) -> float:
    if math.isinf(one) and math.isinf(other):
        return 0.0
    return math.copysign(most, one - other) if math.isinf(one - other) else one - other


def probability_smaller(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How often ours is smaller than theirs, pair by pair; ties count half."""
    pairs = list(zip(ours, theirs, strict=True))
    return sum(1.0 if one < other else 0.5 if one == other else 0.0 for one, other in pairs) / len(pairs)


def expected_best(values: Sequence[float], count: int) -> float:
    """The expected smallest of so many values drawn at random from these, without repetition.

    Unbiased where the values are of independent random trials: sum over sorted values v(i), i from 1 to N, of
    v(i) C(N-i, n-1) / C(N, n) (Dodge et al., Expected Validation Performance and Estimation of a Random Variable's
    Maximum, 2021, section 3). Trials that a sampler chose, or that were stopped, are no such draws.

    Raises:
        ValueError: count is not from 1 to the number of values.
    """
    if not 1 <= count <= len(values):
        raise ValueError(f"count requires 1 to {len(values)}, got {count}")
    total = math.comb(len(values), count)
    return sum(
        value * (math.comb(len(values) - place, count - 1) / total)
        for place, value in enumerate(sorted(values), start=1)
    )


def expected_curve(values: Sequence[float], *, minimize: bool) -> list[tuple[int, Interval]]:
    """The expected best after 1, 2, 4, ... random trials, with 95% bootstrap intervals.

    Dodge et al., Show Your Work, EMNLP 2019, equation 1, in the unbiased form that Tang et al., Showing Your Work
    Doesn't Always Work, ACL 2020, ask for. As many as half of the values are asked after, no more: beyond, draws
    overlap so much that an interval from them would be too narrow.
    """
    sign = 1.0 if minimize else -1.0
    signed = [sign * value for value in values]
    found: list[tuple[int, Interval]] = []
    count = 1
    while 2 * count <= len(signed):
        one = bootstrap(signed, lambda drawn, count=count: expected_best(drawn, count))  # type: ignore[misc]
        ends = sorted((sign * one.low, sign * one.high))
        found.append((count, Interval(sign * one.middle, ends[0], ends[1])))
        count *= 2
    return found
