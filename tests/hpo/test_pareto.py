"""Fronts, their order and their volume, against definitions written out."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from hpo.pareto import Fronts, Point, dominates, front, fronts, hypervolume, spread, tchebycheff, weights


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


def together(points: list[Point]) -> Fronts:
    found = Fronts()
    for key, point in enumerate(points):
        found.put(key, point)
    return found


def farthest_first(points: list[Point]) -> list[int]:
    """As defined: the best by the first metric, then always whoever is farthest from its nearest so far."""
    spans = [max(axis) - min(axis) or 1.0 for axis in zip(*points, strict=True)]
    places = [tuple(value / span for value, span in zip(point, spans, strict=True)) for point in points]
    order = [points.index(min(points))]
    while len(order) < len(points):
        left = [index for index in range(len(points)) if index not in order]
        order.append(max(left, key=lambda i: (min(math.dist(places[i], places[j]) for j in order), -i)))
    return order


@pytest.mark.parametrize("metrics", [2, 3])
@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_points_that_come_one_by_one_are_sorted_as_all_at_once(metrics: int, fine: bool, seed: int) -> None:
    generator = random.Random(seed)
    points = (
        [tuple(generator.random() for _ in range(metrics)) for _ in range(60)] if fine else drawn(metrics, 60, seed)
    )
    found = Fronts()
    for count, point in enumerate(points, start=1):
        found.put(count - 1, point)
        if count % generator.choice((1, 5)):
            continue  # now and then several at once
        plain = peeled(points[:count])
        assert found.fronts() == plain
        order = [members[i] for members in plain for i in farthest_first([points[key] for key in members])]
        assert list(found.ranked()) == order
        assert found.leading == len(plain[0])
        wanted = set(generator.sample(range(count), max(1, count // 4)))
        asked = generator.randrange(count)
        assert found.before(asked) == order.index(asked)
        for most in (0, count // 3, count):
            expected = next((key for key in order[:most] if key in wanted), None)
            assert found.first(most, wanted.__contains__) == expected
        assert found.last(wanted.__contains__) == [key for key in order if key in wanted][-1]


def test_a_point_that_is_told_again_counts_as_it_was_told_last() -> None:
    found = together([(2.0, 2.0), (1.0, 1.0), (3.0, 3.0)])
    assert found.fronts() == [[1], [0], [2]]
    found.put(1, (1.0, 1.0))
    assert found.fronts() == [[1], [0], [2]]
    found.put(2, (0.0, 0.0))
    found.put(3, (4.0, 4.0))
    found.put(3, (1.5, 0.5))
    assert found.fronts() == [[2], [1, 3], [0]]


@pytest.mark.parametrize("metrics", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_of_a_large_front_are_those_of_the_definition_and_all_others_follow(metrics: int, seed: int) -> None:
    generator = random.Random(seed)
    points = [tuple(generator.random() for _ in range(metrics)) for _ in range(150)]
    order = spread(points)
    assert order[:64] == farthest_first(points)[:64]
    assert sorted(order) == list(range(150))
    one_by_one = Fronts()
    for x in generator.sample(range(150), 150):
        one_by_one.put(x, (float(x), -float(x**2), *([1.0] * (metrics - 2))))
    assert one_by_one.fronts() == [list(range(150))]
    line = spread([(float(x), -float(x**2), *([1.0] * (metrics - 2))) for x in range(150)])
    assert list(one_by_one.ranked()) == line
    net = [points[index] for index in order[:64]]
    spans = [max(axis) - min(axis) for axis in zip(*points, strict=True)]
    far = [
        min(sum(((a - b) / s) ** 2 for a, b, s in zip(points[i], one, spans, strict=True)) for one in net)
        for i in order[64:]
    ]
    assert far == sorted(far, reverse=True)


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
    assert list(together([(2.0, 2.0), (1.0, 1.0), (3.0, 0.0)]).ranked()) == [1, 2, 0]


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
