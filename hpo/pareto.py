"""Points of several metrics, none of which is worth more than another: who dominates whom, and what a front is worth.

Pure arithmetic on tuples of finite numbers, of which smaller is always better. Knows no trials and no sweep.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence

Point = tuple[float, ...]
"""One number a metric, smaller is better."""

_SUM = 0.05  # rho of Knowles 2006, equation 2
_PLASTIC = {2: 1.618033988749895, 3: 1.324717957244746}  # the root of x**d = x + 1 for d + 1 metrics (Roberts 2018)


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better. Equals do not dominate each other."""
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def fronts(points: Sequence[Point]) -> list[list[int]]:
    """Non-dominated sorting: the points that no other dominates, then those that only these dominate, and so on.

    Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm, IEEE TEC 6(2), 2002, section III.A; found here in
    the order of the first metric and by bisection over the fronts (Zhang et al., ENS, IEEE TEC 19(2), 2015).

    Returns:
        Their indices, in increasing order within a front.
    """
    found: list[list[int]] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index], index)):
        low, high = 0, len(found)
        while low < high:
            middle = (low + high) // 2
            # Whoever dominates came before, and of two metrics it is the latest that does if any does.
            if any(dominates(points[other], points[index]) for other in reversed(found[middle])):
                low = middle + 1
            else:
                high = middle
        if low == len(found):
            found.append([])
        found[low].append(index)
    return [sorted(front) for front in found]


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates."""
    return next(iter(fronts(points)), [])


def spread(points: Sequence[Point]) -> list[int]:
    """An order in which any first few lie far from each other: the best by the first metric, then always the farthest.

    The epsilon-net of Salinas et al., A multi-objective perspective on jointly tuning hardware and hyperparameters,
    2021, as Schmucker et al., Multi-objective Asynchronous Successive Halving, 2021, use it. Each metric counts by its
    range over the points; of equals, the first.
    """
    if not points:
        return []
    spans = [max(axis) - min(axis) or 1.0 for axis in zip(*points, strict=True)]
    places = [tuple(value / span for value, span in zip(point, spans, strict=True)) for point in points]
    order = [min(range(len(points)), key=lambda index: (points[index], index))]
    left = {index: math.inf for index in range(len(points)) if index != order[0]}
    while left:
        last = places[order[-1]]
        left = {index: min(far, math.dist(places[index], last)) for index, far in left.items()}
        order.append(max(left, key=lambda index: (left[index], -index)))
        del left[order[-1]]
    return order


def ranked(points: Sequence[Point]) -> Iterator[int]:
    """Indices front by front, each in an order that spreads over it."""
    for members in fronts(points):
        yield from (members[position] for position in spread([points[index] for index in members]))


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume that points dominate up to a reference that is worse in everything; exact, by slices."""
    inside = sorted({point for point in points if all(one < end for one, end in zip(point, reference, strict=True))})
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - inside[0][0]
    inside.sort(key=lambda point: point[-1])
    ends = [*(point[-1] for point in inside[1:]), reference[-1]]
    return sum(
        (end - point[-1]) * hypervolume([other[:-1] for other in inside[: count + 1]], reference[:-1])
        for count, (point, end) in enumerate(zip(inside, ends, strict=True))
        if end > point[-1]
    )


def weights(metrics: int, seed: int, number: int) -> Point:
    """What each metric weighs in the search for one trial: evenly spread over all weightings, the same at each call.

    Knowles 2006 draws from a grid of weightings. Here successive trials follow an additive recurrence (Roberts, The
    Unreasonable Effectiveness of Quasirandom Sequences, 2018), so that few trials already cover them all.

    Args:
        metrics: 2 or 3.
        seed: of the study; where the sequence begins.
        number: of the trial.

    Returns:
        Weights from 0 to 1 whose sum is 1.
    """
    ratio, draw = _PLASTIC[metrics], random.Random(seed)
    cuts = sorted((draw.random() + number / ratio**axis) % 1.0 for axis in range(1, metrics))
    return tuple(after - before for before, after in itertools.pairwise((0.0, *cuts, 1.0)))


def tchebycheff(point: Point, weighting: Point) -> float:
    """A point as one number, smaller is better (augmented Tchebycheff: Knowles, ParEGO, IEEE TEC 10(1), 2006, eq. 2).

    Args:
        point: each metric 0 at the best there is, and about 1 where it is ordinary.
        weighting: see `weights`.
    """
    weighted = [weight * value for weight, value in zip(weighting, point, strict=True)]
    return max(weighted) + _SUM * sum(weighted)
