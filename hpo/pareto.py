"""Points of several metrics, none of which is worth more than another: who dominates whom, and what a front is worth.

Pure arithmetic on tuples of finite numbers, of which smaller is always better. Knows no trials and no sweep.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # numpy is imported where there are points to sort: `hpo check` must not wait for it
    from numpy.typing import NDArray

    Array = NDArray[Any]

Point = tuple[float, ...]
"""One number a metric, smaller is better."""

_NET = 64  # of a front, the first that are spread over it
_FEW = 8  # comparisons that are made sooner one by one
_SUM = 0.05  # rho of Knowles 2006, equation 2
_PLASTIC = {2: 1.618033988749895, 3: 1.324717957244746}  # the root of x**d = x + 1 for d + 1 metrics (Roberts 2018)


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better. Equals do not dominate each other."""
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


class Fronts:
    """Non-dominated sorting kept up to date: the points that no other dominates, then those that only these do, etc.

    Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm, IEEE TEC 6(2), 2002, section III.A. A point is put
    where it belongs by bisection over the fronts (Zhang et al., ENS, IEEE TEC 19(2), 2015), and whoever it dominates
    there goes one front down, and so on (Li et al., Efficient Nondomination Level Update, IEEE TCyb 47(9), 2017): what
    was sorted is not sorted again.
    """

    def __init__(self) -> None:
        self._fronts: list[_Front] = []
        self._known: dict[int, Point] = {}
        self._new: dict[int, Point] = {}  # not sorted yet; many at once are cheaper in order

    def put(self, key: int, point: Point) -> None:
        """Add a point, or replace it."""
        if self._known.get(key, point) != point:
            self._new = self._known | self._new
            self._known, self._fronts = {}, []
        if key not in self._known:
            self._new[key] = point

    def fronts(self) -> list[list[int]]:
        """The keys front by front, in increasing order within a front."""
        return [front.members() for front in self._sorted()]

    def ranked(self) -> Iterator[int]:
        """The keys front by front, each in an order that spreads over it."""
        for front in self._sorted():
            yield from front.order()

    def before(self, key: int) -> int:
        """How many come before a key in that order. Only its own front is put in order for that."""
        passed = 0
        for front in self._sorted():
            if key in front.points:
                return passed + front.order().index(key)
            passed += len(front.points)
        raise KeyError(key)

    def first(self, count: int, wanted: Callable[[int], bool]) -> int | None:
        """Of the first so many in that order, the first that is wanted. Fronts without one are not put in order."""
        for front in self._sorted():
            if count <= 0:
                return None
            if any(map(wanted, front.points)):
                found = next(filter(wanted, front.order()[:count]), None)
                if found is not None:
                    return found
            count -= len(front.points)
        return None

    def last(self, wanted: Callable[[int], bool]) -> int | None:
        """The last in that order that is wanted."""
        front = next((front for front in reversed(self._sorted()) if any(map(wanted, front.points))), None)
        return None if front is None else next(filter(wanted, reversed(front.order())))

    @property
    def leading(self) -> int:
        """How many are dominated by none."""
        return len(self._sorted()[0].points) if self._sorted() else 0

    def _sorted(self) -> list[_Front]:
        for key in sorted(self._new, key=lambda key: (self._new[key], key)):
            self._add(key, self._new[key])
        self._known |= self._new
        self._new = {}
        return self._fronts

    def _add(self, key: int, point: Point) -> None:
        low, high = 0, len(self._fronts)
        while low < high:
            middle = (low + high) // 2
            if self._fronts[middle].dominates(point):
                low = middle + 1
            else:
                high = middle
        moving = {key: point}
        for index in range(low, len(self._fronts)):
            front = self._fronts[index]
            beaten = front.beaten(moving)
            if len(beaten) == len(front.points):  # then each front from here on goes one down as a whole
                self._fronts.insert(index, _Front(moving))
                return
            front.replace(beaten, moving)
            if not beaten:
                return
            moving = beaten
        self._fronts.append(_Front(moving))


class _Front:
    """Points of which none dominates another, by key."""

    def __init__(self, points: Mapping[int, Point]) -> None:
        self.points = dict(points)
        self._order: list[int] | None = None
        self._columns: Array | None = None

    def columns(self) -> Array:
        """The points in the order of the dictionary: (metrics, points)."""
        if self._columns is None:
            self._columns = _columns(self.points.values())
        return self._columns

    def dominates(self, point: Point) -> bool:
        """Whether one of them dominates a point."""
        if len(self.points) <= _FEW:
            return any(dominates(one, point) for one in self.points.values())
        return bool(_dominated([[value] for value in point], self.columns()).any())

    def beaten(self, others: Mapping[int, Point]) -> dict[int, Point]:
        """Those that one of some others dominates."""
        if len(self.points) * len(others) <= _FEW:
            return {
                key: point
                for key, point in self.points.items()
                if any(dominates(other, point) for other in others.values())
            }
        found = _dominated(self.columns(), list(zip(*others.values(), strict=True)))
        if not found.any():
            return {}
        return {key: self.points[key] for key, is_one in zip(self.points, found, strict=True) if is_one}

    def replace(self, old: Mapping[int, Point], new: Mapping[int, Point]) -> None:
        import numpy as np

        for key in old:
            del self.points[key]
        self.points |= new
        self._order = None
        if old or self._columns is None:
            self._columns = None
        else:
            self._columns = np.concatenate([self._columns, _columns(new.values())], axis=1)

    def members(self) -> list[int]:
        return sorted(self.points)

    def order(self) -> list[int]:
        if self._order is None and len(self.points) > _NET:
            import numpy as np

            keys = np.fromiter(self.points, np.int64, len(self.points))
            by_key = keys.argsort()
            self._order = keys[by_key[_spread_of_many(self.columns()[:, by_key])]].tolist()
        elif self._order is None:
            members = self.members()
            self._order = [members[position] for position in spread([self.points[key] for key in members])]
        return self._order


def _dominated(points: Sequence[Sequence[float]] | Array, others: Sequence[Sequence[float]] | Array) -> Array:
    """Of each point, whether one of some others dominates it; both as (metrics, points)."""
    import numpy as np

    pairs = [
        (mine[None, :], theirs[:, None])
        for mine, theirs in zip(map(np.asarray, points), map(np.asarray, others), strict=True)
    ]
    nowhere_worse = np.logical_and.reduce([theirs <= mine for mine, theirs in pairs])
    better = np.logical_or.reduce([theirs < mine for mine, theirs in pairs])
    found: Array = (nowhere_worse & better).any(axis=0)
    return found


def fronts(points: Sequence[Point]) -> list[list[int]]:
    """Non-dominated sorting (see `Fronts`).

    Returns:
        Indices of the points, in increasing order within a front.
    """
    found = Fronts()
    for index, point in enumerate(points):
        found.put(index, point)
    return found.fronts()


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates, in increasing order."""
    found: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index], index)):
        # Whoever dominates came before, and of two metrics it is the latest that does if any does.
        if not any(dominates(points[other], points[index]) for other in reversed(found)):
            found.append(index)
    return sorted(found)


def spread(points: Sequence[Point]) -> list[int]:
    """An order in which any first few lie far from each other: the best by the first metric, then always the farthest.

    The epsilon-net of Salinas et al., A multi-objective perspective on jointly tuning hardware and hyperparameters,
    2021, as Schmucker et al., Multi-objective Asynchronous Successive Halving, 2021, use it. Each metric counts by its
    range over the points; of equals, the first. Deviation: where there are more than 64, the others follow those 64 by
    how far they are from them; else a front of thousands would take seconds.
    """
    if len(points) > _NET:
        return _spread_of_many(_columns(points))
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


def _spread_of_many(columns: Array) -> list[int]:
    import numpy as np

    spans = np.ptp(columns, axis=1, keepdims=True)
    axes = columns / np.where(spans == 0, 1.0, spans)
    order, squares = [int(np.lexsort(columns[::-1])[0])], np.full(columns.shape[1], np.inf)
    while True:
        np.minimum(squares, ((axes - axes[:, order[-1:]]) ** 2).sum(axis=0), out=squares)
        squares[order[-1]] = -1.0
        if len(order) == _NET:
            return [*order, *np.argsort(-squares, kind="stable")[: len(squares) - _NET].tolist()]
        order.append(int(squares.argmax()))


def _columns(points: Iterable[Point]) -> Array:
    """Points as an array: (metrics, points)."""
    import numpy as np

    return np.array(list(points)).T


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


def tchebycheff_of_many(axes: Sequence[Array], weighting: Point) -> Array:
    """The same for many points: of each metric, their values, (points,); returns (points,)."""
    import numpy as np

    weighted = [weight * values for weight, values in zip(weighting, axes, strict=True)]
    found: Array = np.maximum.reduce(weighted) + _SUM * sum(weighted)
    return found
