"""The loop, on a task that has nothing to do with language: a linear fit of noisy numbers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models import memory, optimizers, training
from models.configuration import EarlyStopping, Training
from models.errors import CheckpointError, Diverged, DoesNotFit, SettingError
from models.metrics import Measurement
from models.schedules import segments
from models.training import Batch, Task

SETTINGS = Training(batch_size=6, learning_rate=0.05, checkpoint_seconds=1e9, weight_decay=0.0)


def draw(first: int, count: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(1000, 4, generator=generator)[first : first + count]
    return Batch({"x": features, "y": features.sum(dim=1, keepdim=True)}, weight=count, tokens=count)


def summed_loss(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return ((model(inputs["x"]) - inputs["y"]) ** 2).sum()


def evaluate(model: nn.Module, device: torch.device, last: bool) -> dict[str, float]:
    assert not model.training
    batch = draw(900, 100)
    return {"validation/loss": summed_loss(model, batch.inputs).item() / batch.weight}


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))


TASK = Task(build=build, draw=draw, loss=summed_loss, evaluate=evaluate)


def doubled(batch: Batch) -> Batch:
    return Batch({name: tensor.double() for name, tensor in batch.inputs.items()}, batch.weight, batch.tokens)


def evaluate_exactly(model: nn.Module, device: torch.device, last: bool) -> dict[str, float]:
    batch = doubled(draw(900, 100))
    return {"validation/loss": summed_loss(model, batch.inputs).item() / batch.weight}


EXACT = Task(
    build=lambda: nn.Linear(4, 1).double(),
    draw=lambda first, count: doubled(draw(first, count)),
    loss=summed_loss,
    evaluate=evaluate_exactly,
)
"""In double precision, and without dropout, whose draws depend on the shape of a micro-batch."""


def run(
    directory: Path, settings: Training = SETTINGS, task: Task = TASK, seed: int = 0, divide: int = 1, **identity: Any
) -> Any:
    parts = segments(rungs=[100, 250, 400], tokens=600, example_tokens=1, batch_size=settings.batch_size)
    return training.train(
        task, settings, segments=parts, seed=seed, directory=directory, identity=identity, divide=divide
    )


def curve(measurements: list[Measurement]) -> list[tuple[int, dict[str, float]]]:
    """Measurements without what a clock says."""
    return [
        (
            item.progress,
            {name: value for name, value in item.metrics.items() if "second" not in name and "memory" not in name},
        )
        for item in measurements
    ]


def trained(directory: Path) -> dict[str, torch.Tensor]:
    model = build()
    training.load_trained(directory, model)
    return dict(model.state_dict())


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def sequence(losses: list[float]) -> Callable[[nn.Module, torch.device, bool], dict[str, float]]:
    left = iter(losses)
    return lambda model, device, last: {"validation/loss": next(left)}


def test_it_learns_and_measures_at_rungs_and_end(tmp_path: Path) -> None:
    found = list(run(tmp_path))
    assert [item.progress for item in found] == [100, 250, 400, 600]
    assert found[-1].metrics["validation/loss"] < 0.7 * found[0].metrics["validation/loss"]


def test_two_runs_with_one_seed_are_equal(tmp_path: Path) -> None:
    assert curve(list(run(tmp_path / "a"))) == curve(list(run(tmp_path / "b")))
    assert equal(trained(tmp_path / "a"), trained(tmp_path / "b"))


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    assert curve(list(run(tmp_path / "a"))) != curve(list(run(tmp_path / "b", seed=1)))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("measured", [1, 2, 3])
def test_a_closed_run_that_goes_on_ends_like_one_that_was_not(tmp_path: Path, measured: int, optimizer: Any) -> None:
    settings = replace(SETTINGS, optimizer=optimizer)
    whole = list(run(tmp_path / "whole", settings))
    first = run(tmp_path / "parts", settings)
    before = [next(first) for _ in range(measured)]
    first.close()
    torch.manual_seed(99)  # whatever happens in between
    after = list(run(tmp_path / "parts", settings))
    assert after[0] == before[-1]
    assert curve(before[:-1] + after) == curve(whole)
    assert equal(trained(tmp_path / "parts"), trained(tmp_path / "whole"))


def test_random_numbers_drawn_between_measurements_change_nothing(tmp_path: Path) -> None:
    whole = list(run(tmp_path / "whole"))
    found = []
    for item in run(tmp_path / "disturbed"):
        torch.manual_seed(7)
        found.append(item)
    assert curve(found) == curve(whole)


def test_a_finished_run_gives_its_last_measurement_again_and_trains_nothing(tmp_path: Path) -> None:
    found = list(run(tmp_path))
    assert list(run(tmp_path, task=replace(TASK, build=lambda: pytest.fail("built again")))) == [found[-1]]


def test_checkpoints_are_written_at_each_measurement_when_asked(tmp_path: Path) -> None:
    parts = run(tmp_path, replace(SETTINGS, checkpoint_seconds=0.0))
    next(parts)
    assert (tmp_path / "checkpoint-000001" / "optimizer.safetensors").exists()
    next(parts)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000002"]
    parts.close()


def test_another_runs_folder_is_refused_with_what_differs(tmp_path: Path) -> None:
    list(run(tmp_path, width=3))
    with pytest.raises(CheckpointError, match="holds another run: width was 3, is now 4"):
        list(run(tmp_path, width=4))


@pytest.mark.parametrize("micro", [1, 2, 4, 5, 99])
def test_micro_batches_add_up_to_the_gradient_of_the_batch(tmp_path: Path, micro: int) -> None:
    # Plain SGD, so that the weights show the gradients.
    settings = replace(SETTINGS, optimizer="sgd", momentum=0.0, learning_rate=0.01)
    whole = list(run(tmp_path / "whole", settings, EXACT))
    parts = list(run(tmp_path / "parts", replace(settings, micro_batch_size=micro), EXACT))
    for first, second in zip(whole, parts, strict=True):
        assert second.metrics["validation/loss"] == pytest.approx(first.metrics["validation/loss"], rel=1e-12)


def test_uneven_weights_count_by_weight_when_accumulated(tmp_path: Path) -> None:
    # A mask leaves micro-batches with different numbers of losses: a mean of means would be wrong.
    def masked(first: int, count: int) -> Batch:
        batch = doubled(draw(first, count))
        mask = (torch.arange(first, first + count) % 3 == 0).double()[:, None]
        return Batch({**batch.inputs, "mask": mask}, weight=int(mask.sum()), tokens=int(mask.sum()))

    def loss(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (inputs["mask"] * (model(inputs["x"]) - inputs["y"]) ** 2).sum()

    task = replace(EXACT, draw=masked, loss=loss)
    settings = replace(SETTINGS, optimizer="sgd", momentum=0.0)
    whole = list(run(tmp_path / "whole", settings, task))
    parts = list(run(tmp_path / "parts", replace(settings, micro_batch_size=4), task))
    assert parts[-1].metrics["validation/loss"] == pytest.approx(whole[-1].metrics["validation/loss"], rel=1e-12)


class Full:
    """A task on a device whose memory holds forward passes of so many sequences, and no more."""

    def __init__(self, most: int, task: Task = EXACT) -> None:
        self.most = most
        self.seen: list[int] = []
        self.task = replace(task, loss=self.loss)

    def loss(self, model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self.seen.append(len(inputs["x"]))
        if len(inputs["x"]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nSee the manual.")
        return summed_loss(model, inputs)


def test_memory_that_runs_out_is_told_as_it_was_and_a_divided_run_goes_on_to_the_same_curve(tmp_path: Path) -> None:
    whole = list(run(tmp_path / "whole", task=EXACT))
    first = run(tmp_path / "parts", task=EXACT)
    next(first)
    first.close()
    for divide in (1, 2):
        with pytest.raises(torch.OutOfMemoryError) as told:
            list(run(tmp_path / "parts", task=Full(2).task, divide=divide))
        assert not isinstance(told.value, DoesNotFit)
    full = Full(2)
    rest = list(run(tmp_path / "parts", task=full.task, divide=4))
    assert max(full.seen) == 2
    for one, other in zip(whole, rest, strict=True):
        for name in ("train/loss", "validation/loss", "train/gradient_norm"):
            assert other.metrics[name] == pytest.approx(one.metrics[name], rel=1e-9)


@pytest.mark.parametrize(("batch_size", "micro", "divide"), [(6, None, 6), (6, None, 100), (6, 2, 2), (1, None, 1)])
def test_memory_that_runs_out_with_one_sequence_cannot_be_divided(
    tmp_path: Path, batch_size: int, micro: int | None, divide: int
) -> None:
    settings = replace(SETTINGS, batch_size=batch_size, micro_batch_size=micro)
    message = "one sequence alone does not fit: CUDA out of memory. Tried to allocate 20.00 MiB."
    with pytest.raises(DoesNotFit) as told:
        list(run(tmp_path, settings, Full(0).task, divide=divide))
    assert str(told.value) == message
    assert not told.value.divisible
    assert isinstance(told.value.__cause__, torch.OutOfMemoryError)


def test_a_model_for_which_there_is_no_memory_cannot_be_divided(tmp_path: Path) -> None:
    def build() -> nn.Module:
        raise MemoryError

    with pytest.raises(DoesNotFit, match="the model alone does not fit: MemoryError"):
        list(run(tmp_path, task=replace(TASK, build=build)))


def test_memory_that_runs_out_while_measuring_can_be_divided_until_a_batch_is_one_row(tmp_path: Path) -> None:
    def evaluate(model: nn.Module, device: torch.device, last: bool) -> dict[str, float]:
        if memory.rows(1024, 64) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return {"validation/loss": 1.0}

    def never(model: nn.Module, device: torch.device, last: bool) -> dict[str, float]:
        memory.rows(1024, 64)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(torch.OutOfMemoryError):  # though the training's forward passes are of one sequence
        list(run(tmp_path, replace(SETTINGS, micro_batch_size=1), replace(TASK, evaluate=evaluate)))
    assert len(list(run(tmp_path, task=replace(TASK, evaluate=evaluate), divide=4))) == 4
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        list(run(tmp_path / "never", task=replace(TASK, evaluate=never), divide=8))
    with pytest.raises(DoesNotFit):
        list(run(tmp_path / "never", task=replace(TASK, evaluate=never), divide=16))


def test_other_errors_are_told_as_they_are(tmp_path: Path) -> None:
    def loss(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(run(tmp_path, replace(SETTINGS, batch_size=1), replace(TASK, loss=loss)))


@pytest.mark.parametrize("divide", [0, -1])
def test_a_divisor_below_one_is_refused(tmp_path: Path, divide: int) -> None:
    with pytest.raises(SettingError, match=f"divide: must be at least 1, got {divide}"):
        list(run(tmp_path, divide=divide))


def test_the_memory_taken_is_measured(tmp_path: Path) -> None:
    found = [item.metrics["train/peak_memory_gib"] for item in run(tmp_path)]
    assert 0.05 < found[0] <= found[-1] < 64


def guessing(losses: list[float], *, uniform: float | None = 1.0, trained: float = 9.0) -> Task:
    """A task with these validation losses, and about that training loss at each."""

    def loss(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return summed_loss(model, inputs) * 0 + trained * len(inputs["x"])

    return replace(TASK, loss=loss, evaluate=sequence(losses), uniform_loss=uniform)


def until_diverged(found: Any) -> tuple[list[float], str]:
    losses = []
    try:
        for item in found:
            losses.append(item.metrics["validation/loss"])
    except Diverged as reason:
        return losses, str(reason)
    pytest.fail("it did not diverge")


def test_losses_above_a_guess_twice_end_the_run_after_their_measurement(tmp_path: Path) -> None:
    losses, reason = until_diverged(run(tmp_path, task=guessing([0.5, 1.2, 1.3, 0.1])))
    assert losses == [0.5, 1.2, 1.3]
    assert reason == (
        "validation loss 1.3 is above the 1 of a uniform guess for two measurements in a row, and so is the training "
        "loss"
    )
    assert issubclass(Diverged, FloatingPointError)


def test_the_last_measurement_of_a_run_counts(tmp_path: Path) -> None:
    assert until_diverged(run(tmp_path, task=guessing([0.5, 0.6, 1.2, 1.3])))[0] == [0.5, 0.6, 1.2, 1.3]


def test_a_loss_that_falls_from_a_height_it_had_risen_to_is_no_gain(tmp_path: Path) -> None:
    assert until_diverged(run(tmp_path, task=guessing([0.5, 7.0, 6.0])))[0] == [0.5, 7.0, 6.0]


def test_a_run_that_ended_above_a_guess_comes_to_the_same_end_when_it_goes_on(tmp_path: Path) -> None:
    first = run(tmp_path, task=guessing([1.2, 1.3]))
    next(first), next(first)
    first.close()  # by whoever had no time to ask for more
    losses, reason = until_diverged(run(tmp_path, task=replace(TASK, build=lambda: pytest.fail("built again"))))
    assert losses == [1.3]
    assert "validation loss 1.3 is above" in reason
    with pytest.raises(CheckpointError, match="a run that diverged"):
        trained(tmp_path)


def test_a_measurement_above_a_guess_is_remembered_when_a_run_goes_on(tmp_path: Path) -> None:
    first = run(tmp_path, task=guessing([1.2]))
    next(first)
    first.close()
    assert until_diverged(run(tmp_path, task=guessing([1.3])))[0] == [1.2, 1.3]


@pytest.mark.parametrize(
    ("losses", "changes"),
    [
        ([1.2, 0.9, 1.2, 0.9], {}),  # not in a row
        ([1.04, 1.04, 1.04, 1.04], {}),  # hardly above
        ([6.0, 5.9, 5.8, 5.7], {}),  # begun high, and falling
        ([1.2, 1.3, 1.4, 1.5], {"trained": 0.5}),  # learned by heart
        ([1.2, 1.3, 1.4, 1.5], {"uniform": None}),
    ],
)
def test_a_run_goes_on_with_losses_that_do_not_mean_divergence(
    tmp_path: Path, losses: list[float], changes: dict[str, Any]
) -> None:
    assert len(list(run(tmp_path, task=guessing(losses, **changes)))) == 4


def test_rungs_on_one_example_are_one_measurement(tmp_path: Path) -> None:
    parts = segments(rungs=[100, 101], tokens=200, example_tokens=100, batch_size=6)
    assert parts[1].steps == 0
    task = guessing([1.2, 0.9])
    found = training.train(task, SETTINGS, segments=parts, seed=0, directory=tmp_path, identity={})
    assert [item.metrics["validation/loss"] for item in found] == [1.2, 1.2, 0.9]


def test_a_training_loss_that_is_no_number_ends_the_run_with_nan(tmp_path: Path) -> None:
    def loss(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return summed_loss(model, inputs) * math.inf

    found = list(run(tmp_path, task=replace(TASK, loss=loss)))
    assert [item.progress for item in found] == [100]
    assert math.isnan(found[0].metrics["validation/loss"])


def test_a_validation_loss_that_is_no_number_ends_the_run_with_nan(tmp_path: Path) -> None:
    found = list(run(tmp_path, task=replace(TASK, evaluate=sequence([1.0, math.inf]))))
    assert [item.progress for item in found] == [100, 250]
    assert math.isnan(found[1].metrics["validation/loss"])


def test_a_diverged_run_stays_diverged_and_has_no_model(tmp_path: Path) -> None:
    list(run(tmp_path, task=replace(TASK, evaluate=sequence([math.nan]))))
    (again,) = run(tmp_path)
    assert math.isnan(again.metrics["validation/loss"])
    with pytest.raises(CheckpointError, match="a run that diverged"):
        trained(tmp_path)


PATIENT = replace(SETTINGS, early_stopping=EarlyStopping(patience=2))


def test_early_stopping_ends_after_its_patience(tmp_path: Path) -> None:
    assert len(list(run(tmp_path, PATIENT, replace(TASK, evaluate=sequence([1.0, 1.1, 1.2, 0.1]))))) == 3


def test_a_gain_starts_patience_anew(tmp_path: Path) -> None:
    assert len(list(run(tmp_path, PATIENT, replace(TASK, evaluate=sequence([1.0, 1.1, 0.9, 1.2]))))) == 4


def test_a_fall_below_the_least_gain_is_none(tmp_path: Path) -> None:
    settings = replace(SETTINGS, early_stopping=EarlyStopping(patience=2, min_gain=0.2))
    assert len(list(run(tmp_path, settings, replace(TASK, evaluate=sequence([1.0, 0.9, 0.85, 0.1]))))) == 3


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    list(run(tmp_path / "stopped", PATIENT, replace(TASK, evaluate=sequence([1.0, 0.5, 0.9, 0.8]))))
    until_best = run(tmp_path / "best", SETTINGS)
    next(until_best), next(until_best)
    until_best.close()
    assert equal(trained(tmp_path / "stopped"), trained(tmp_path / "best"))


def test_the_best_weights_and_patience_survive_an_interruption(tmp_path: Path) -> None:
    losses = [0.5, 0.9, 0.8, 0.7]
    list(run(tmp_path / "whole", PATIENT, replace(TASK, evaluate=sequence(losses))))
    first = run(tmp_path / "parts", PATIENT, replace(TASK, evaluate=sequence(losses)))
    next(first), next(first)
    first.close()
    rest = list(run(tmp_path / "parts", PATIENT, replace(TASK, evaluate=sequence(losses[2:]))))
    assert [item.progress for item in rest] == [250, 400]
    assert equal(trained(tmp_path / "parts"), trained(tmp_path / "whole"))


def test_runs_of_different_precision_follow_one_another_in_a_process(tmp_path: Path) -> None:
    full = list(run(tmp_path / "a"))
    half = list(run(tmp_path / "b", replace(SETTINGS, precision="bf16")))
    again = list(run(tmp_path / "c"))
    assert curve(full) == curve(again) != curve(half)


def test_matrices_decay_and_biases_and_norms_do_not() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    decayed, free = optimizers.build(replace(SETTINGS, weight_decay=0.3), model).param_groups
    assert [tuple(parameter.shape) for parameter in decayed["params"]] == [(5, 4), (2, 4)]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert len(free["params"]) == 3


def test_the_fused_update_is_that_of_the_plain_loop() -> None:
    torch.manual_seed(0)
    models = [nn.Linear(6, 3).double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    fused = optimizers.build(replace(SETTINGS, weight_decay=0.1), models[0])
    plain = optimizers.build(replace(SETTINGS, weight_decay=0.1), models[1])
    for group in plain.param_groups:
        group["fused"], group["foreach"] = False, False
    for _ in range(20):
        x = torch.randn(5, 6, dtype=torch.float64)
        for model, optimizer in zip(models, (fused, plain), strict=True):
            optimizer.zero_grad()
            model(x).pow(2).sum().backward()
            optimizer.step()
    assert torch.allclose(models[0].weight, models[1].weight, rtol=1e-10)


@pytest.mark.parametrize("changes", [{"ema_decay": 0.9}, {"gradient_noise": 0.1}])
def test_a_stopped_run_with_averaging_or_noise_ends_with_the_same_weights(
    tmp_path: Path, changes: dict[str, float]
) -> None:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    whole = list(run(tmp_path / "whole", settings))
    first = run(tmp_path / "parts", settings)
    next(first)
    first.close()
    parts = list(run(tmp_path / "parts", settings))
    assert [m.metrics["validation/loss"] for m in whole] == [m.metrics["validation/loss"] for m in parts]


def test_what_is_validated_and_kept_with_averaging_is_the_average(tmp_path: Path) -> None:
    settings = replace(SETTINGS, ema_decay=0.99)
    (*_, last) = run(tmp_path / "averaged", settings)
    model = build()
    training.load_trained(tmp_path / "averaged", model.train(False))
    assert evaluate(model, torch.device("cpu"), True)["validation/loss"] == last.metrics["validation/loss"]


def test_gradient_noise_changes_the_training_and_falls_with_the_steps(tmp_path: Path) -> None:
    quiet = [m.metrics["train/loss"] for m in run(tmp_path / "quiet", SETTINGS)]
    noisy = [m.metrics["train/loss"] for m in run(tmp_path / "noisy", replace(SETTINGS, gradient_noise=0.5))]
    assert quiet != noisy
    assert noisy[-1] < noisy[0]
