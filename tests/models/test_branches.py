"""Branches of the loop: a decay at each rung, thrown away, as if the run had ended there."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models import training
from models.configuration import EarlyStopping, Training
from models.metrics import Measurement
from models.schedules import segments
from models.training import Batch, Task

RUNGS = [100, 250, 400, 550]
TOKENS = 600
SETTINGS = Training(
    schedule="wsd",
    decay_at_rungs=True,
    decay=0.2,
    warmup_examples=40,
    batch_size=5,
    learning_rate=0.05,
    checkpoint_seconds=1e9,
)
KINDS: list[dict[str, Any]] = [
    {},
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.0, "gradient_clip": None},
    {"ema_decay": 0.9},
    {"gradient_noise": 0.1},
    {"batch_size": 7, "micro_batch_size": 3},
    {"decay": 0.45, "final_learning_rate": 0.0},  # a branch begins before the rung below it
    {"decay": 1.0, "warmup_examples": 0},
    {"warmup_examples": 180},  # rises beyond the first rung, and at the second while the decay should begin
]


FEATURES = torch.randn(1000, 4, generator=torch.Generator().manual_seed(1))


def draw(first: int, count: int) -> Batch:
    features = FEATURES[first : first + count]
    return Batch({"x": features, "y": features.sum(dim=1, keepdim=True)}, weight=count, tokens=count)


def summed_loss(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return ((model(inputs["x"]) - inputs["y"]) ** 2).sum()


def evaluate(model: nn.Module, device: torch.device, last: bool) -> dict[str, float]:
    batch = draw(900, 100)
    return {"validation/loss": summed_loss(model, batch.inputs).item() / batch.weight}


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))


TASK = Task(build=build, draw=draw, loss=summed_loss, evaluate=evaluate)


def run(directory: Path, settings: Training = SETTINGS, *, task: Task = TASK, tokens: int = TOKENS) -> Any:
    parts = segments(rungs=RUNGS, tokens=tokens, example_tokens=1, batch_size=settings.batch_size)
    return training.train(task, settings, segments=parts, seed=0, directory=directory, identity={})


def told(item: Measurement, *, without: str = "second memory") -> dict[str, float]:
    """A measurement's metrics but for what a clock says."""
    return {name: value for name, value in item.metrics.items() if not any(word in name for word in without.split())}


def trained(directory: Path) -> nn.Module:
    model = build()
    training.load_trained(directory, model)
    return model.train(False)


def equal(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("changes", KINDS)
def test_a_rung_has_what_a_whole_run_of_its_length_ends_with(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = replace(SETTINGS, **changes)
    for item in run(tmp_path / "trunk", settings):
        directory = tmp_path / str(item.progress)
        *_, last = run(directory, replace(settings, decay_at_rungs=False), tokens=item.progress)
        assert last.progress == item.progress
        assert told(item, without="second memory branch") == told(last, without="second memory branch")
    assert equal(trained(tmp_path / "trunk"), trained(tmp_path / str(TOKENS)))


def test_a_rung_is_measured_without_the_decay_where_that_is_not_asked(tmp_path: Path) -> None:
    decayed = list(run(tmp_path / "decayed"))
    plain = list(run(tmp_path / "plain", replace(SETTINGS, decay_at_rungs=False)))
    assert [item.metrics["train/learning_rate"] < 0.02 for item in decayed] == [True, True, True, True, True]
    assert [item.metrics["train/learning_rate"] < 0.02 for item in plain] == [False, False, False, False, True]
    assert decayed[1].metrics["validation/loss"] != plain[1].metrics["validation/loss"]


@pytest.mark.parametrize("changes", KINDS)
def test_a_run_left_at_every_rung_ends_like_one_that_was_not(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = replace(SETTINGS, **changes)
    whole = list(run(tmp_path / "whole", settings))
    found: list[Measurement] = []
    for _ in whole:
        part = run(tmp_path / "parts", settings)
        if found:
            assert next(part) == found[-1]
        found.append(next(part))
        part.close()
        torch.manual_seed(99)  # whatever happens in between
    assert [told(item) for item in found] == [told(item) for item in whole]
    assert equal(trained(tmp_path / "parts"), trained(tmp_path / "whole"))


def test_a_run_killed_after_a_rung_ends_like_one_that_was_not(tmp_path: Path) -> None:
    settings = replace(SETTINGS, checkpoint_seconds=0.0)
    whole = [told(item) for item in run(tmp_path / "whole", settings)]
    first = run(tmp_path / "parts", settings)
    next(first), next(first)
    # Never closed while the other goes on from what is on disk.
    assert [told(item) for item in run(tmp_path / "parts", settings)] == whole[1:]
    first.close()


def test_random_numbers_drawn_in_an_evaluation_change_nothing(tmp_path: Path) -> None:
    def drawing(model: nn.Module, device: torch.device, last: bool) -> dict[str, float]:
        torch.rand(3)
        return evaluate(model, device, last)

    whole = [told(item) for item in run(tmp_path / "whole")]
    assert [told(item) for item in run(tmp_path / "drawing", task=replace(TASK, evaluate=drawing))] == whole


class Counted:
    """Counts the examples that are drawn, and is a clock on which each takes a second."""

    def __init__(self) -> None:
        self.examples = 0

    def draw(self, first: int, count: int) -> Batch:
        self.examples += count
        return draw(first, count)

    def clock(self) -> float:
        return float(self.examples)


def test_tokens_and_seconds_of_branches_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    monkeypatch.setattr(training.time, "perf_counter", counted.clock)
    drawn, found = [], []
    for item in run(tmp_path, task=replace(TASK, draw=counted.draw)):
        drawn.append(counted.examples)
        found.append(item.metrics)
    branches = [20, 20 + 50, 20 + 50 + 80, 20 + 50 + 80 + 110, 20 + 50 + 80 + 110]  # a fifth of each rung
    assert [metrics["train/branch_tokens"] for metrics in found] == branches
    assert drawn == [100, 250 + 20, 400 + 70, 550 + 150, 600 + 260]
    assert [metrics["train/seconds"] for metrics in found] == drawn
    assert [metrics["train/tokens_per_second"] for metrics in found] == [1.0] * 5


def test_a_run_without_branches_trains_no_tokens_in_them(tmp_path: Path) -> None:
    found = list(run(tmp_path, replace(SETTINGS, decay_at_rungs=False)))
    assert [item.metrics["train/branch_tokens"] for item in found] == [0.0] * 5


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}])
def test_early_stopping_keeps_the_weights_that_were_measured(tmp_path: Path, changes: dict[str, Any]) -> None:
    seen = []

    def worse(model: nn.Module, device: torch.device, last: bool) -> dict[str, float]:
        seen.append(evaluate(model, device, last)["validation/loss"])
        return {"validation/loss": float(len(seen))}

    settings = replace(SETTINGS, early_stopping=EarlyStopping(patience=2), **changes)
    assert [item.progress for item in run(tmp_path, settings, task=replace(TASK, evaluate=worse))] == [100, 250, 400]
    assert evaluate(trained(tmp_path), torch.device("cpu"), True)["validation/loss"] == seen[0]


def test_a_loss_that_is_no_number_ends_the_run_with_nan(tmp_path: Path) -> None:
    def loss(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return summed_loss(model, inputs) * math.inf

    (only,) = run(tmp_path, task=replace(TASK, loss=loss))
    assert math.isnan(only.metrics["validation/loss"])


def test_a_rung_on_the_last_example_is_the_end(tmp_path: Path) -> None:
    def ended(name: str, rungs: list[int]) -> list[Measurement]:
        parts = segments(rungs=rungs, tokens=6000, example_tokens=10, batch_size=5)
        return list(training.train(TASK, SETTINGS, segments=parts, seed=0, directory=tmp_path / name, identity={}))

    (close, end), (only,) = ended("two", [5999]), ended("one", [])
    assert told(close) == told(end) == told(only)
    assert equal(trained(tmp_path / "two"), trained(tmp_path / "one"))
