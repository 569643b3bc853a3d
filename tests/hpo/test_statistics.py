"""Intervals and expectations against what counting says."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest

from hpo.statistics import bootstrap, difference, expected_best, probability_smaller


def test_the_expected_best_is_the_mean_over_all_choices() -> None:
    values = [0.3, 1.7, 0.9, 2.2, 0.9, 1.1, 0.05]
    for count in range(1, 8):
        counted = statistics.fmean(min(chosen) for chosen in itertools.combinations(values, count))
        assert expected_best(values, count) == pytest.approx(counted, abs=1e-12)
    with pytest.raises(ValueError, match="1 to 7"):
        expected_best(values, 8)


def test_a_bootstrap_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    generator, held = random.Random(4), 0
    for trial in range(120):
        found = bootstrap([generator.gauss(1.0, 2.0) for _ in range(50)], statistics.fmean, 0.9, seed=trial)
        held += found.low <= 1.0 <= found.high
    assert 0.8 <= held / 120 <= 0.97


def test_paired_differences_cancel_what_pairs_have_in_common() -> None:
    generator = random.Random(1)
    common = [generator.gauss(0, 10) for _ in range(40)]
    ours, theirs = [value - 0.1 for value in common], common
    found = difference(ours, theirs)
    assert found.middle == pytest.approx(-0.1)
    assert found.high < 0
    assert probability_smaller(ours, theirs) == 1.0


def test_nothing_found_is_worse_than_anything_and_equal_to_itself() -> None:
    assert difference([math.inf, 1.0], [math.inf, 1.0]).middle == 0.0
    assert difference([math.inf, 1.0], [0.5, 3.0]).middle == pytest.approx(0.0)  # one worse by the most there is, 2
    assert probability_smaller([1.0, math.inf], [math.inf, math.inf]) == 0.75
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])
