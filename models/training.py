"""The training loop, one for all objectives: steps, measurements, early stopping, checkpoints, on Accelerate.

Knows nothing of language: a `Task` brings the model, the batches, the loss and the evaluation. Knows nothing
of searches: it yields measurements and saves when it is closed. One process and one device a run; several
runs may follow one another in a process.
"""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn

from models import checkpoints, memory, optimizers
from models.averages import Average
from models.configuration import Training
from models.errors import CheckpointError, Diverged, SettingError
from models.metrics import Measurement, worse_than_guessing
from models.schedules import Segment, learning_rate, middle

FINITE_CHECK_STEPS = 50
"""Steps between looks at whether the loss is still a number. Each look makes a GPU's queue run empty."""

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Batch:
    """inputs: tensors on the CPU whose first dimension is the example. weight: what the summed loss is divided
    by (of a language model: tokens predicted). tokens: that the model reads or predicts, padding not counted."""

    inputs: Inputs
    weight: float
    tokens: int


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and how well it does.

    build: makes the model, its weights drawn from torch's generator. draw: (first example, examples) to a
    batch, the same for the same arguments. loss: the summed loss of a (micro-)batch in nats, a tensor of
    shape (), and the sum of those of its parts. evaluate: the metrics of a model in evaluation mode,
    `validation/loss` among them; its last argument says whether the run is at its end, where a task may measure more
    closely. uniform_loss: what `train/loss` and `validation/loss` are where all answers are taken for equally likely,
    in nats; None where that says nothing.
    """

    build: Callable[[], nn.Module]
    draw: Callable[[int, int], Batch]
    loss: Callable[[nn.Module, Inputs], torch.Tensor]
    evaluate: Callable[[nn.Module, torch.device, bool], dict[str, float]]
    uniform_loss: float | None = None


@dataclass(frozen=True)
class State:
    """Where a run is, but for its tensors.

    segments: measured so far. steps: of the optimizer. seconds: spent training. best: lowest validation loss in
    nats, reference: the one a gain is counted from, stale: measurements since the last gain (early stopping).
    ended: why it is over, or None. reason: of a run that has diverged with finite losses, in words.
    """

    segments: int = 0
    steps: int = 0
    seconds: float = 0.0
    best: float = math.inf
    reference: float = math.inf
    stale: int = 0
    ended: Literal["complete", "early", "diverged"] | None = None
    reason: str = ""
    progress: int = 0
    metrics: Mapping[str, float] | None = None

    @property
    def measurement(self) -> Measurement:
        """The last one."""
        return Measurement(self.progress, dict(self.metrics or {}))


def train(
    task: Task,
    settings: Training,
    *,
    segments: Sequence[Segment],
    seed: int,
    directory: Path,
    identity: Mapping[str, Any],
    divide: int = 1,
) -> Generator[Measurement, None, None]:
    """Train through `segments`, yielding a measurement at the end of each.

    seed: of weights and dropout. directory: for checkpoints. identity: what makes this run the same run, as JSON; a
    checkpoint of another one is refused. Where the directory holds a checkpoint, the measurement it was taken at comes
    first, again. divide: above 1 a forward pass sees at most ceil(m / divide) sequences, m being
    min(micro_batch_size or batch_size, batch_size), and an evaluation's batches that share of their tokens; the curve
    stays the same, and a checkpoint may be gone on with under another.

    The run ends early when it has diverged: its last measurement then has a `validation/loss` of NaN, or Diverged is
    raised after it. Raises DoesNotFit where memory runs out and no larger `divide` would help; else the error as it is.
    """
    state, folder = State(), checkpoints.latest(directory)
    if folder is not None:
        state = _resumed(folder, identity)
        yield state.measurement
        if _is_over(state):
            return
    division = memory.Division(divide)
    with division:
        run = _Run(task, settings, division, seed=seed, examples=segments[-1].first + segments[-1].examples)
        if folder is not None:
            run.restore(folder, state)
    saved_at = time.monotonic()
    for segment in segments[state.segments :]:
        with division:
            state = run.advance(state, segment, last=segment is segments[-1])
            saved = state.ended is not None or time.monotonic() - saved_at >= settings.checkpoint_seconds
            if saved:
                run.save(directory, state, identity)
                saved_at = time.monotonic()
        generators = run.generators()
        try:
            yield state.measurement
        except GeneratorExit:
            run.set_generators(generators)
            if not saved:
                run.save(directory, state, identity)
            raise
        if _is_over(state):
            return
        run.set_generators(generators)  # whoever iterates may have drawn from torch's


def load_trained(directory: Path, model: nn.Module) -> None:
    """Give `model` the weights that a run left in `directory`: the best with early stopping, else the last.

    Raises CheckpointError where there is none.
    """
    folder = checkpoints.latest(directory)
    saved = {} if folder is None else checkpoints.read_tensors(folder, "best")
    if folder is not None and not saved:
        saved = checkpoints.read_tensors(folder, "model")
    if not saved:
        why = "no checkpoint" if folder is None else "the checkpoint of a run that diverged"
        raise CheckpointError(f"{directory}: must hold a trained model, holds {why}. Train it first.")
    checkpoints.load_weights(model, saved)


class _Run:
    """A model in training: everything that has tensors."""

    def __init__(self, task: Task, settings: Training, division: memory.Division, *, seed: int, examples: int) -> None:
        self.task = task
        self.settings = settings
        self.division = division
        self.examples = examples
        self.accelerator = _accelerator(settings)
        self.device: torch.device = self.accelerator.device
        memory.forget_peak(self.device)
        torch.manual_seed(seed)
        self.module = task.build()  # the model itself; self.model may be wrapped
        optimizer = optimizers.build(settings, self.module.to(self.device))
        self.model, self.optimizer = self.accelerator.prepare(self.module, optimizer)
        self.trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.best: dict[str, torch.Tensor] = {}
        self.average = Average(self.module, settings.ema_decay) if settings.ema_decay else None
        self.steps = 0

    def advance(self, state: State, segment: Segment, *, last: bool) -> State:
        """Train through one segment and measure; the state after it."""
        before = metrics = dict(state.metrics or {})
        seconds = state.seconds
        reason = None
        if segment.steps:  # else two rungs fall on the same example, and the model is the one just measured
            started = time.perf_counter()
            metrics = self._train(segment)
            taken = time.perf_counter() - started
            seconds += taken
            metrics |= {"train/tokens_per_second": metrics.pop("tokens") / taken, "train/seconds": seconds}
            finite = math.isfinite(metrics["train/loss"])
            metrics |= self._evaluate(last) if finite else {"validation/loss": math.nan}
            metrics["train/peak_memory_gib"] = memory.peak_gib(self.device)
            reason = worse_than_guessing(before, metrics, uniform=self.task.uniform_loss, lowest=state.best)
        state = replace(
            state,
            segments=state.segments + 1,
            steps=self.steps,
            seconds=seconds,
            progress=segment.progress,
            metrics=metrics,
        )
        if not math.isfinite(metrics["validation/loss"]):
            return replace(state, ended="diverged", metrics={**metrics, "validation/loss": math.nan})
        if reason is not None:
            return replace(state, ended="diverged", reason=reason)
        state = self._judge(state, metrics["validation/loss"])
        return replace(state, ended="complete") if last else state

    def _train(self, segment: Segment) -> dict[str, float]:
        """The optimizer steps of a segment; stops short when the loss is no longer a number."""
        self.model.train()
        precise = torch.float32 if self.device.type == "mps" else torch.float64
        loss_sum = torch.zeros((), dtype=precise, device=self.device)
        norm_sum = torch.zeros((), dtype=precise, device=self.device)
        tokens = steps = 0
        weight = rate = 0.0
        for first, count in segment.batches():
            rate = learning_rate(self.settings, middle(first, count), examples=self.examples)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            batch = self.task.draw(first, count)
            self.division.rows = self._rows(count)
            for inputs in _micro_batches(batch.inputs, self.division.rows):
                loss = self.task.loss(self.model, self._moved(inputs))
                # Divided by the weight of the whole batch: micro-batches then add up to exactly its gradient.
                self.accelerator.backward(loss / batch.weight)
                loss_sum += loss.detach()
            if self.settings.gradient_clip is not None:
                norm_sum += self.accelerator.clip_grad_norm_(self.trained, self.settings.gradient_clip)
            if self.settings.gradient_noise:
                self._add_noise()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1
            if self.average is not None:
                self.average.update(self.steps)
            weight, tokens, steps = weight + batch.weight, tokens + batch.tokens, steps + 1
            if steps % FINITE_CHECK_STEPS == 0 and not math.isfinite(loss_sum.item()):
                break
        metrics = {
            "train/loss": loss_sum.item() / weight,
            "train/learning_rate": rate,
            "tokens": float(tokens),
        }
        if self.settings.gradient_clip is not None:
            metrics["train/gradient_norm"] = norm_sum.item() / steps
        return metrics

    def _rows(self, count: int) -> int:
        """Sequences a forward pass of a batch of `count`, which may be a few more or fewer than `batch_size`."""
        whole = self.settings.micro_batch_size or count
        if self.division.by > 1:
            asked = min(self.settings.micro_batch_size or math.inf, self.settings.batch_size)
            whole = math.ceil(asked / self.division.by)
        return min(whole, count)

    def _moved(self, inputs: Inputs) -> Inputs:
        if self.device.type == "cuda":  # pinned memory lets the copy overlap with the step before
            return {name: x.pin_memory().to(self.device, non_blocking=True) for name, x in inputs.items()}
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def _add_noise(self) -> None:
        """Gaussian noise on each gradient, its deviation falling with the steps (Neelakantan et al. 2015)."""
        deviation = self.settings.gradient_noise * (1 + self.steps) ** -0.275
        for parameter in self.trained:
            if parameter.grad is not None:
                parameter.grad.add_(torch.randn_like(parameter.grad), alpha=deviation)

    def _evaluate(self, last: bool) -> dict[str, float]:
        self.model.eval()
        started = time.perf_counter()
        averaged = contextlib.nullcontext() if self.average is None else self.average.in_place()
        with torch.no_grad(), averaged:
            metrics = self.task.evaluate(self.model, self.device, last)
        return {**metrics, "validation/seconds": time.perf_counter() - started}

    def _judge(self, state: State, loss: float) -> State:
        """Early stopping: keep the best weights, count measurements without a gain."""
        rule = self.settings.early_stopping
        if rule.patience is None:
            return replace(state, best=min(loss, state.best))
        if loss < state.best:
            self.best = {name: tensor.to("cpu", copy=True) for name, tensor in self._kept().items()}
        gained = loss < state.reference - rule.min_gain
        stale = 0 if gained else state.stale + 1
        return replace(
            state,
            best=min(loss, state.best),
            reference=loss if gained else state.reference,
            stale=stale,
            ended="early" if stale >= rule.patience else None,
        )

    def save(self, directory: Path, state: State, identity: Mapping[str, Any]) -> None:
        """Write a checkpoint: all that a run needs to go on; of one that is over, its weights."""
        tensors: dict[str, checkpoints.Tensors] = {}
        if state.ended is None:
            tensors = {
                "model": checkpoints.weights(self.module),
                "optimizer": self._optimizer_tensors(),
                "generators": self.generators(),
            }
            if self.best:
                tensors["best"] = self.best
            if self.average is not None:
                tensors["average"] = self.average.tensors
        elif state.ended != "diverged":
            tensors = {"model": self.best or self._kept()}
        checkpoints.write(directory, checkpoints.Checkpoint({"identity": identity, "run": asdict(state)}, tensors))

    def _kept(self) -> dict[str, torch.Tensor]:
        """The weights that a run is about: the averaged ones where there are such, else the last ones."""
        present = checkpoints.weights(self.module)
        return present if self.average is None else {**present, **self.average.tensors}

    def restore(self, folder: Path, state: State) -> None:
        """Take over the tensors of the checkpoint in `folder`, taken at `state`."""
        self.steps = state.steps
        checkpoints.load_weights(self.module, checkpoints.read_tensors(folder, "model"))
        self.best = checkpoints.read_tensors(folder, "best")
        if self.average is not None:
            self.average.load(checkpoints.read_tensors(folder, "average"))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in checkpoints.read_tensors(folder, "optimizer").items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = tensor
        raw = self.optimizer.optimizer
        raw.load_state_dict({"state": moments, "param_groups": raw.state_dict()["param_groups"]})
        self.set_generators(checkpoints.read_tensors(folder, "generators"))

    def _optimizer_tensors(self) -> dict[str, torch.Tensor]:
        state: dict[int, dict[str, Any]] = self.optimizer.optimizer.state_dict()["state"]
        return {
            f"{index}.{key}": value
            for index, values in state.items()
            for key, value in values.items()
            if isinstance(value, torch.Tensor)
        }

    def generators(self) -> dict[str, torch.Tensor]:
        """The states of torch's random generators, which dropout draws from; uint8."""
        found = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            found["cuda"] = torch.cuda.get_rng_state(self.device)
        return found

    def set_generators(self, states: checkpoints.Tensors) -> None:
        """Put back what `generators` gave."""
        torch.set_rng_state(states["cpu"])
        if self.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], self.device)


def _is_over(state: State) -> bool:
    """Whether the run has ended. Raises Diverged where a reason is to be told."""
    if state.reason:
        raise Diverged(state.reason)
    return state.ended is not None


def _resumed(folder: Path, identity: Mapping[str, Any]) -> State:
    saved = checkpoints.read_state(folder)
    found = saved["identity"]
    if differing := [key for key in {**found, **identity} if found.get(key) != identity.get(key)]:
        key = differing[0]
        others = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise CheckpointError(
            f"{folder.parent}: holds another run: {key} was {found.get(key)!r}, is now {identity.get(key)!r}"
            f"{others}. Use another folder, or delete it."
        )
    return State(**saved["run"])


def _accelerator(settings: Training) -> Any:
    """A fresh Accelerator. Its states are singletons that refuse another precision: an earlier run's are
    dropped."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    on_gpu = torch.cuda.is_available()
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and on_gpu and torch.cuda.is_bf16_supported())
    accelerator = Accelerator(
        mixed_precision="bf16" if bf16 else "no", dynamo_backend="inductor" if settings.compile else "no"
    )
    if accelerator.num_processes > 1:
        raise SettingError(
            f"a run is one process on one device, got {accelerator.num_processes} processes (WORLD_SIZE). "
            "Start it without accelerate launch or torchrun."
        )
    return accelerator


def _micro_batches(inputs: Inputs, size: int) -> Iterator[Inputs]:
    examples = len(next(iter(inputs.values())))
    for start in range(0, examples, size):
        yield {name: tensor[start : start + size] for name, tensor in inputs.items()}
