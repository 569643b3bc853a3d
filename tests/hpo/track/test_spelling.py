from __future__ import annotations

import math

import pytest

from hpo.track import spelling


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("validation/loss", "validation/loss"),
        ("precision@5", "precision-at-5"),
        ("a=b,c", "a-is-b-c"),
        ("accuracy%", "accuracy-percent"),
        ("train//loss", "train/loss"),
        ("/loss/", "loss"),
        ("a/../b", "a/dotdot/b"),
        ("loss?", "loss-u003f-"),
        ("", "unnamed"),
        ("verlust/größe", "verlust/größe"),
    ],
)
def test_a_name_changes_only_where_mlflow_would_refuse_it(written: str, spelled: str) -> None:
    assert spelling.name(written) == spelled


def test_mlflow_takes_every_spelled_name() -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    for code in range(32, 0x250):
        for written in (chr(code), f"a{chr(code)}b", f"a/{chr(code)}/{chr(code)}", chr(code) * 300):
            _validate_metric_name(spelling.name(written))
            _validate_param_name(spelling.name(written))


def test_long_names_that_differ_at_their_end_stay_different() -> None:
    one, other = spelling.name("x" * 300 + "1"), spelling.name("x" * 300 + "2")
    assert one != other
    assert len(one) == 250


def test_settings_are_readable_text() -> None:
    given = [0.000822345678, 1e-5, 16, True, None, "cosine", [1, 2], {"a": 1}]
    expected = ["0.0008223", "1e-05", "16", "true", "null", "cosine", "[1, 2]", '{"a": 1}']
    assert [spelling.value(value) for value in given] == expected


def test_what_is_cut_says_so() -> None:
    text = spelling.value("x" * 7000)
    assert len(text) == 6000
    assert text.endswith("... [cut; 7000 characters in all]")


def test_infinity_becomes_not_a_number() -> None:
    assert math.isnan(spelling.number(math.inf))
    assert math.isnan(spelling.number(-math.inf))
    assert spelling.number(1.5) == 1.5
