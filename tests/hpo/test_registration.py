"""Who becomes champion, and who may not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpo.errors import HpoError
from hpo.objective import load
from hpo.promote import Promotion
from hpo.registration import judge, objection_to
from hpo.track.mlflow.registry import Champion

PROMOTION = Promotion(
    1, "s", "id", 3, 0.0, {"learning_rate": 1e-3}, {}, {}, {"digest": "d"}, {"test/loss": 1.0}, {"test/loss": 2.0}
)


RECORD: Any = SimpleNamespace(metric={"name": "validation/loss", "direction": "minimize", "at": "last"})


def champion(loss: float, digest: str = "d") -> Champion:
    return Champion("1", {"hpo.data_digest": digest, "test/loss": repr(loss)}, "run")


@pytest.mark.parametrize(
    ("present", "earned", "words"),
    [
        (None, True, "there was no champion yet"),
        (champion(1.5), True, "it beats the champion"),
        (champion(0.5), False, "it does not beat the champion"),
        (champion(1.5, "other"), False, "was tested on other data"),
    ],
)
def test_the_champion_is_who_tested_best_on_the_same_data(present: Champion | None, earned: bool, words: str) -> None:
    verdict, crowned = judge(PROMOTION, RECORD, present, "2")
    assert (crowned, words in verdict) == (earned, True)


def test_a_model_that_its_objective_objects_to_is_never_champion() -> None:
    reason = "it loses to a linear model (test/macro_f1 0.81 against 0.85)"
    assert judge(PROMOTION, RECORD, None, "2", reason) == (reason, False)


def test_a_model_that_loses_to_its_own_baseline_is_never_champion() -> None:
    worse = dataclasses.replace(PROMOTION, baseline_test={"test/loss": 0.5})
    assert judge(worse, RECORD, None, "2")[1] is False


@pytest.mark.parametrize(
    ("body", "said"),
    [("return None", None), ("return ''", None), ("return f\"{tested['test/loss']} is bad\"", "1.0 is bad")],
)
def test_an_objective_may_object(
    write_sweep: Callable[..., Path], workplace: Path, body: str, said: str | None
) -> None:
    with (workplace / "objective.py").open("a") as file:
        file.write(f"\ndef objection(config, tested):\n    assert config.learning_rate == 1e-3\n    {body}\n")
    assert objection_to(PROMOTION, load("objective.py:train", workplace)) == said


def test_without_the_function_there_is_no_objection_and_one_that_fails_is_one_line(workplace: Path) -> None:
    assert objection_to(PROMOTION, load("objective.py:train", workplace)) is None
    with (workplace / "objective.py").open("a") as file:
        file.write("\ndef objection(config, tested):\n    return tested['nothing']\n")
    with pytest.raises(HpoError, match=r"objective.py:train: objection\(\) failed: KeyError: 'nothing'"):
        objection_to(PROMOTION, load("objective.py:train", workplace))
