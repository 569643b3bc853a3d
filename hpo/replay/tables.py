"""Recorded trials as a table to be searched: which configurations there are, and what each measured when.

A table has the shape of a question (`hpo.study.Question`), so that the real study asks it. What is suggested and was
not recorded is answered by the nearest recorded trial, or by a model of them (`hpo.replay.modelled`), and the distance
is kept. Knows no strategy and no clock.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpo import pareto
from hpo.encoding import Encoding
from hpo.replay.volume import Volume
from hpo.space import Space
from hpo.sweep import Search
from hpo.tradeoff import Tradeoff
from hpo.trials import Measurement, Metric, Rung, Value

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: after so much progress and so much cost (of the trial's own, from its start).

    `others` are metrics that the table's is weighed against.
    """

    progress: int
    value: float
    cost: float
    others: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded trial.

    Attributes:
        parameters: values of the table's space.
        points: in order; the last is where it ended.
        complete: whether it was trained to its end (of its own accord early, perhaps); else nobody knows how it would
            have gone on.
        diverged: whether it ended in a loss that is no number, after its last point.
        number: of the trial in the study it comes from, or its row.
        warmup: progress up to which its learning rate warmed up, where that is known; else 0.
    """

    parameters: Mapping[str, Value]
    points: tuple[Point, ...]
    complete: bool = True
    diverged: bool = False
    number: int = 0
    warmup: int = 0

    @property
    def cost(self) -> float:
        return self.points[-1].cost


class Model(Protocol):
    """Answers for what was not recorded."""

    def answer(self, features: Array, nearest: Row) -> Row:
        """What a configuration would have measured, by its features and the recorded trial nearest to it."""
        ...


@dataclass(frozen=True)
class Table:
    """Recorded trials of one search space.

    Attributes:
        name: short, for people.
        space: what was searched.
        metric: what every row measured.
        rows: at least one.
        length: progress of a whole trial; a row may end before, by early stopping of its own.
        unit: of progress, in words ("epochs").
        cost_unit: of cost, in words ("seconds").
        source: where it comes from, in words.
        others: metrics that the first is weighed against.
        known: configurations that every search begins with.
        answers: of a made surface: every configuration's trial.
        model: answers for what was not recorded; None: the nearest recorded trial does.
    """

    name: str
    space: Space
    metric: Metric
    rows: tuple[Row, ...]
    length: int
    unit: str = "tokens"
    cost_unit: str = "tokens"
    source: str = ""
    known: tuple[Mapping[str, Value], ...] = ()
    answers: Callable[[Mapping[str, Value]], Row] | None = field(default=None, compare=False)
    others: tuple[Metric, ...] = ()
    model: Model | None = field(default=None, compare=False, repr=False)

    @property
    def has_curves(self) -> bool:
        return any(len(row.points) > 1 for row in self.rows)

    @cached_property
    def encoding(self) -> Encoding:
        return Encoding(self.space)

    def features(self, rows: Sequence[Row]) -> Array:
        """Rows as a model sees them: (rows, features)."""
        return self.encoding.features(self.encoding.units_of([row.parameters for row in rows]))

    @cached_property
    def _features(self) -> Array:
        return self.features(self.rows)

    def answer(self, parameters: Mapping[str, Value]) -> tuple[Row, float]:
        """What a configuration measures here, and how far it is from what was recorded; what was, answers itself."""
        row, distance = self.nearest(parameters)
        if self.model is None or distance < 1e-9:
            return row, distance
        asked = self.encoding.features(self.encoding.units(parameters)[None, :])[0]
        return self.model.answer(asked, row), distance

    def nearest(self, parameters: Mapping[str, Value]) -> tuple[Row, float]:
        """The recorded trial nearest to a configuration, and how far it is in the unit cube; 0 is the same.

        Of several that are as near, those of one configuration trained again, the first.
        """
        if self.answers is not None:
            return self.answers(parameters), 0.0
        asked = self.encoding.features(self.encoding.units(parameters)[None, :])
        squares = ((self._features - asked) ** 2).sum(axis=1)
        index = int(np.argmin(squares.round(12)))
        return self.rows[index], math.sqrt(float(squares[index]))

    def value(self, row: Row) -> float | None:
        """A row's value when trained to its end."""
        values = [point.value for point in row.points if math.isfinite(point.value)]
        if row.diverged or not values:
            return None
        if self.metric.at == "last":
            return values[-1]
        return min(values) if self.metric.direction.value == "minimize" else max(values)

    @cached_property
    def values(self) -> list[float]:
        """Of all rows trained to their ends, the best first."""
        found = [value for row in self.rows if row.complete and (value := self.value(row)) is not None]
        return sorted(found, reverse=self.metric.direction.value == "maximize")

    @property
    def best(self) -> float:
        return self.values[0]

    @cached_property
    def full_cost(self) -> float:
        """The mean cost of a trial trained to its end."""
        return statistics.fmean(row.cost for row in self.rows if row.complete)

    def rungs(self, shares: Sequence[Fraction]) -> tuple[Rung, ...]:
        """Shares of a trial as a person would set them who knows how long training takes.

        Where trials end by early stopping of their own, far before the most that they may take, a share is one of the
        median trial's length; the rungs are then whole numbers.
        """
        lengths = [row.points[-1].progress for row in self.rows if row.complete]
        typical = int(statistics.median(lengths))
        if typical == self.length:
            return tuple(shares)
        found = {max(1, int(share * typical)) for share in shares if share < 1}
        return tuple(sorted(found | {self.length}))

    @cached_property
    def distances(self) -> list[float]:
        """Of each row, how much its value differs from that of the nearest other configuration.

        The error of answering by the nearest, were a row not there: an upper bound where the grid is dense.
        """
        kept = [index for index, row in enumerate(self.rows) if row.complete and self.value(row) is not None]
        found: list[float] = []
        for index in kept:
            squares = ((self._features[kept] - self._features[index]) ** 2).sum(axis=1)
            squares[squares < 1e-12] = np.inf
            if not np.isfinite(squares).any():
                continue
            other = self.rows[kept[int(np.argmin(squares))]]
            one, two = self.value(self.rows[index]), self.value(other)
            if one is not None and two is not None:
                found.append(abs(one - two))
        return found

    @property
    def tradeoff(self) -> Tradeoff:
        return Tradeoff(self.metric, self.others)

    def whole_point(self, row: Row) -> pareto.Point | None:
        """Of a trade-off, what a row trained to its end reached in each metric, smaller is better."""
        if row.diverged or not row.complete:
            return None
        name = self.metric.name
        return self.tradeoff.point([Measurement(one.progress, {name: one.value, **one.others}) for one in row.points])

    @cached_property
    def volume(self) -> Volume | None:
        """What the trials of a search are measured by; None where there is no trade-off, but one metric."""
        points = [point for row in self.rows if (point := self.whole_point(row)) is not None]
        return Volume(points) if points else None

    def asked_by(self, search: Search, known: Sequence[Mapping[str, Value]] = ()) -> TableQuestion:
        """The table as what a study searches."""
        return TableQuestion(self.metric, search, self.space, tuple(known), search.rungs, self.tradeoff)


@dataclass(frozen=True)
class TableQuestion:
    """A table and a way to search it, as a study asks it (`hpo.study.Question`)."""

    metric: Metric
    search: Search
    space: Space
    known: tuple[Mapping[str, Value], ...]
    rungs: tuple[Rung, ...]
    tradeoff: Tradeoff

    def settings(self, parameters: Mapping[str, Value]) -> dict[str, object]:
        return dict(parameters)


# -- curves that were cut off ---------------------------------------------------------------------------


def continued(table: Table) -> tuple[Table, int, float | None]:
    """A table in which trials that were stopped go on as those that were not did, on average.

    From its last measurement on, a stopped trial changes as the mean of the complete ones between the same progresses.
    That keeps the order in which it was stopped, and is no more than a guess.

    Returns:
        The table, how many rows were continued, and the error of such a guess: the median of what it misses when a
        complete row is cut off at the progress of a stopped one. None where there is nothing to guess from.
    """
    whole = [row for row in table.rows if row.complete and not row.diverged]
    cut = [row for row in table.rows if not row.complete and not row.diverged and row.points]
    if not cut or not whole:
        return replace(table, rows=tuple(row for row in table.rows if row.points)), 0, None
    errors = [
        abs(guessed.points[-1].value - row.points[-1].value)
        for row, stopped in itertools.product(whole, cut)
        if len(others := [other for other in whole if other is not row]) > 0
        and (guessed := _extended(_until(row, stopped.points[-1].progress), others)) is not None
    ]
    rows = tuple(
        (_extended(row, whole) or row) if not row.complete and not row.diverged else row
        for row in table.rows
        if row.points
    )
    return replace(table, rows=rows), len(cut), statistics.median(errors) if errors else None


def _until(row: Row, progress: int) -> Row | None:
    points = tuple(point for point in row.points if point.progress <= progress)
    return replace(row, points=points, complete=False) if points and len(points) < len(row.points) else None


def _extended(row: Row | None, whole: Sequence[Row]) -> Row | None:
    """A cut row with what the mean of whole ones does after it; None where none has a point there."""
    if row is None:
        return None
    last = row.points[-1]
    rate = last.cost / last.progress
    points = list(row.points)
    for progress in sorted(
        {point.progress for other in whole for point in other.points if point.progress > last.progress}
    ):
        pairs = [
            (begin, end)
            for other in whole
            if (begin := _at(other, last.progress)) is not None and (end := _at(other, progress)) is not None
        ]
        if pairs:
            value = last.value + statistics.fmean(end.value - begin.value for begin, end in pairs)
            others = {
                name: own + statistics.fmean(end.others[name] - begin.others[name] for begin, end in pairs)
                for name, own in last.others.items()
            }
            points.append(Point(progress, value, last.cost + rate * (progress - last.progress), others))
    if len(points) == len(row.points):
        return None
    return replace(row, points=tuple(points), complete=True)


def _at(row: Row, progress: int) -> Point | None:
    return next((point for point in row.points if point.progress == progress), None)
