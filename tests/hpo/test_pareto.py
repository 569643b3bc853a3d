"""Fronts, their order and their volume, against definitions written out."""

from __future__ import annotations

import itertools
import random

import pytest

from hpo.pareto import Point, dominates, front, fronts, hypervolume, ranked, spread, tchebycheff, weights


def drawn(metrics: int, count: int, seed: int) -> list[Point]:
    generator = random.Random(seed)  # on a coarse grid, so that there are equals and ties
    return [tuple(float(generator.randrange(8)) for _ in range(metrics)) for _ in range(count)]


def peeled(points: list[Point]) -> list[list[int]]:
    """Front by front as defined: who is dominated by none of those left."""
    left, found = set(range(len(points))), []
    while left:
        free = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        found.append(sorted(free))
        left -= set(free)
    return found


@pytest.mark.parametrize("metrics", [2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_sorting_is_that_of_the_definition(metrics: int, seed: int) -> None:
    points = drawn(metrics, 40, seed)
    assert fronts(points) == peeled(points)
    assert front(points) == peeled(points)[0]


def test_equals_do_not_dominate_each_other_and_better_in_one_does() -> None:
    assert not dominates((1.0, 2.0), (1.0, 2.0))
    assert dominates((1.0, 1.0), (1.0, 2.0))
    assert not dominates((0.0, 3.0), (1.0, 2.0))


@pytest.mark.parametrize("metrics", [2, 3])
def test_the_volume_is_the_count_of_dominated_cells(metrics: int) -> None:
    for seed in range(10):
        points = drawn(metrics, 6, seed)
        cells = itertools.product(range(8), repeat=metrics)
        counted = sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)
        assert hypervolume(points, (8.0,) * metrics) == counted


def test_the_order_within_a_front_begins_at_the_best_and_goes_far() -> None:
    points = [(float(x), 10.0 - x) for x in range(11)]
    assert spread(points)[:3] == [0, 10, 5]
    assert sorted(spread(points)) == list(range(11))
    assert list(ranked([(2.0, 2.0), (1.0, 1.0), (3.0, 0.0)])) == [1, 2, 0]


@pytest.mark.parametrize("metrics", [2, 3])
def test_weightings_are_repeatable_sum_to_one_and_cover_all(metrics: int) -> None:
    found = [weights(metrics, 3, number) for number in range(60)]
    assert found == [weights(metrics, 3, number) for number in range(60)]
    assert found != [weights(metrics, 4, number) for number in range(60)]
    assert all(sum(one) == pytest.approx(1) and min(one) >= 0 for one in found)
    for axis in range(metrics):
        assert min(one[axis] for one in found) < 0.05
        assert max(one[axis] for one in found) > 0.75


def test_the_worst_weighted_metric_decides_and_the_sum_breaks_ties() -> None:
    assert tchebycheff((1.0, 0.5), (0.5, 0.5)) == pytest.approx(0.5 + 0.05 * 0.75)
    assert tchebycheff((1.0, 0.2), (0.5, 0.5)) < tchebycheff((1.0, 0.5), (0.5, 0.5))
