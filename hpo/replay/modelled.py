"""What was not recorded, answered by a model of what was: a weighted mean of recorded curves.

The weights are those of a forest of extremely randomized trees that is fitted to the final values: a recorded trial
counts as often as it shares a leaf with what is asked (Geurts et al., Extremely Randomized Trees, 2006; weights: Lin
and Jeon, Random Forests and Adaptive Nearest Neighbors, 2006). Trees, because a Gaussian process would draw the very
surfaces that the sampler `auto` expects; surrogate benchmarks are made of forests too (Eggensperger et al., Efficient
Benchmarking of Hyperparameter Optimizers via Surrogates, 2015). A mean of recorded trials is never better than the best
of them, so that the distance to the best recorded stays above 0. Knows no strategy and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hpo.errors import UserError
from hpo.replay.tables import Point, Row, Table

Array = NDArray[np.float64]

WAYS = ("nearest", "model")
_TREES = 100
_FOLDS = 10
_LEAST = 5  # configurations
_MOST_POINTS = 64  # of an answered curve


@dataclass(frozen=True, slots=True)
class Miss:
    """What one way of answering misses of final values that it was not shown.

    Attributes:
        error: median absolute difference, in the metric's unit; a few losses that exploded would be most of a mean.
        correlation: of the order, Spearman's: 1 is the same order; NaN where all answers are equal.
    """

    error: float
    correlation: float


@dataclass(frozen=True, slots=True)
class Answers:
    """Both ways of answering a table, cross-validated in the same terms.

    Attributes:
        trials: that were left out in turn.
        folds: in which; all trials of one configuration are in one of them.
        diverged: recorded trials that ended in no number; what is nearest to one of them ends as it did.
    """

    trials: int
    folds: int
    nearest: Miss
    model: Miss
    diverged: int

    @property
    def better(self) -> str | None:
        """The way that misses less and orders better; None where each does one of both."""
        votes = [
            _order(self.nearest.error, self.model.error),
            _order(-_finite(self.nearest.correlation), -_finite(self.model.correlation)),
        ]
        return "nearest" if sum(votes) < 0 else "model" if sum(votes) > 0 else None


def _order(nearest: float, model: float) -> int:
    return (nearest > model) - (nearest < model)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


class Forest:
    """A model of a table's whole trials; a function of the table alone.

    Args:
        table: of which at least one row was trained to its end.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows = _whole(table)
        self._features = table.features(self._rows)
        finals = np.array([_final(table, row) for row in self._rows])
        self._trees, self._leaves = _grown(self._features, finals)
        self._grid = _progresses(self._rows)
        self._curves = np.array([_on(table, row, self._grid) for row in self._rows])
        self._finals = finals
        self._others = {
            metric.name: np.array([_other_on(table, row, metric.name, self._grid) for row in self._rows])
            for metric in table.others
        }
        self._lengths = np.log([row.points[-1].progress for row in self._rows])
        self._rates = np.log([max(row.cost, 1e-12) / row.points[-1].progress for row in self._rows])

    def answer(self, features: Array, nearest: Row) -> Row:
        """What a configuration that was not recorded would have measured, and at what cost.

        Args:
            features: of the configuration, (features,).
            nearest: the recorded trial nearest to it: where that diverged, it answers.
        """
        if nearest.diverged:
            return nearest
        weights = _weights(self._trees, self._leaves, features)
        end = max(1, round(math.exp(float(weights @ self._lengths))))
        rate = math.exp(float(weights @ self._rates))
        values = weights @ self._curves
        others = {name: weights @ curves for name, curves in self._others.items()}
        points = [
            Point(progress, float(value), rate * progress, {name: float(own[at]) for name, own in others.items()})
            for at, (progress, value) in enumerate(zip(self._grid, values, strict=True))
            if progress < end
        ]
        # What each recorded trial had at its own end.
        final = {name: float(own[-1]) for name, own in others.items()}
        last = Point(end, float(weights @ self._finals), rate * end, final)
        return Row({}, (*points, last), number=nearest.number, warmup=nearest.warmup)


def _whole(table: Table) -> list[Row]:
    return [row for row in table.rows if row.complete and row.points and table.value(row) is not None]


def _final(table: Table, row: Row) -> float:
    value = table.value(row)
    assert value is not None
    return value


def _grown(features: Array, finals: Array) -> tuple[list[object], NDArray[np.int64]]:
    """The trees, and in which leaf of each a row is: (rows, trees)."""
    from sklearn.ensemble import ExtraTreesRegressor

    forest = ExtraTreesRegressor(_TREES, random_state=0, n_jobs=1).fit(features, finals)
    leaves: NDArray[np.int64] = forest.apply(features)
    return list(forest.estimators_), leaves


def _weights(trees: list[object], leaves: NDArray[np.int64], features: Array) -> Array:
    """How much each row counts, in all 1: (rows,)."""
    asked = features[None, :].astype(np.float32)
    own = np.array([tree.apply(asked, check_input=False)[0] for tree in trees])  # type: ignore[attr-defined]
    shared = leaves == own[None, :]
    weights: Array = (shared / shared.sum(axis=0)).mean(axis=1)
    return weights


def _progresses(rows: list[Row]) -> list[int]:
    """Where an answered trial measures: wherever one did, or evenly over those places where they are many."""
    found = sorted({point.progress for row in rows for point in row.points})
    if len(found) <= _MOST_POINTS:
        return found
    return [found[round(step * (len(found) - 1) / (_MOST_POINTS - 1))] for step in range(_MOST_POINTS)]


def _on(table: Table, row: Row, grid: list[int]) -> Array:
    """A row's curve at these progresses, its ends held; of a metric that counts at its best, the best so far."""
    values = np.array([point.value for point in row.points])
    if table.metric.at == "best":
        best = np.minimum if table.metric.direction.value == "minimize" else np.maximum
        values = best.accumulate(values)
    curve: Array = np.interp(grid, [point.progress for point in row.points], values)
    return curve


def _other_on(table: Table, row: Row, name: str, grid: list[int]) -> Array:
    """A row's curve of a metric that its own is weighed against: of the measurement that the row has its value from."""
    kept = list(row.points)
    if table.metric.at == "best":
        best = min if table.metric.direction.value == "minimize" else max
        kept = [best(kept[:count], key=lambda point: point.value) for count in range(1, len(kept) + 1)]
    values = [point.others[name] for point in kept]
    curve: Array = np.interp(grid, [point.progress for point in row.points], values)
    return curve


def answered(table: Table) -> Table:
    """The table, with a model for what was not recorded.

    Raises:
        UserError: it answers everything itself, or too few configurations were recorded.
    """
    if table.answers is not None:
        raise UserError(f"--answers model: {table.name} is a surface that answers everything itself.")
    if (count := len(np.unique(_groups(table)))) < _LEAST:
        raise UserError(
            f"--answers model: requires {_LEAST} configurations that were trained to their ends, {table.name} has "
            f"{count}. Leave it out: the nearest then answers."
        )
    return replace(table, model=Forest(table))


# -- how well each answers ------------------------------------------------------------------------------


def validated(table: Table) -> Answers | None:
    """Both ways, each asked for the final values of trials that it was not shown; None where too few were recorded.

    Ten-fold; of ten configurations or fewer, each is left out once.
    """
    if table.answers is not None or len(np.unique(groups := _groups(table))) < _LEAST:
        return None
    rows = _whole(table)
    features = table.features(rows)
    finals = np.array([_final(table, row) for row in rows])
    near, modelled = np.empty_like(finals), np.empty_like(finals)
    folds = list(_folds(groups))
    for left_out in folds:
        shown = ~left_out
        squares = ((features[left_out][:, None, :] - features[shown][None, :, :]) ** 2).sum(axis=2)
        near[left_out] = finals[shown][squares.round(12).argmin(axis=1)]
        trees, leaves = _grown(features[shown], finals[shown])
        modelled[left_out] = [_weights(trees, leaves, one) @ finals[shown] for one in features[left_out]]
    diverged = sum(row.diverged for row in table.rows)
    return Answers(len(rows), len(folds), _miss(near, finals), _miss(modelled, finals), diverged)


def _groups(table: Table) -> NDArray[np.int64]:
    """Of each whole row, which configuration it is."""
    rows = _whole(table)
    if not rows:
        return np.empty(0, dtype=np.int64)
    _, found = np.unique(table.features(rows).round(9), axis=0, return_inverse=True)
    groups: NDArray[np.int64] = found.ravel()
    return groups


def _folds(groups: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    count = int(groups.max()) + 1
    shuffled = np.random.default_rng(0).permutation(count)
    folds = min(_FOLDS, count)
    for fold in range(folds):
        yield shuffled[groups] % folds == fold


def _miss(answers: Array, finals: Array) -> Miss:
    from scipy.stats import rankdata

    one, other = rankdata(answers), rankdata(finals)
    varies = np.ptp(one) > 0 and np.ptp(other) > 0
    correlation = float(np.corrcoef(one, other)[0, 1]) if varies else math.nan
    return Miss(float(np.median(np.abs(answers - finals))), correlation)
