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

from models import adapters, checkpoints, memory, optimizers, schedules, snapshots
from models.averages import Average
from models.configuration import Training
from models.errors import CheckpointError, Diverged, SettingError
from models.metrics import Measurement, worse_than_guessing
from models.schedules import Segment
from models.snapshots import Snapshots

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

    segments: measured so far. steps: of the optimizer, not counting branches. seconds: spent training, branch_tokens:
    trained on in branches. best: lowest validation loss in nats, reference: the one a gain is counted from, stale:
    measurements since the last gain (early stopping). ended: why it is over, or None. reason: of a run that has
    diverged with finite losses, in words.
    """

    segments: int = 0
    steps: int = 0
    seconds: float = 0.0
    branch_tokens: int = 0
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

    With `decay_at_rungs` a measurement before the end is that of a branch: what a run with these rungs would have ended
    with there (on a CPU to the last bit, given `warmup_examples`). `train/loss` is that on the way there, part of it in
    the branch; what the task measures at a run's end alone is not measured. Early stopping counts these measurements
    and keeps the weights that were measured; a run that is only left at a rung holds those it goes on from.

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
        run = _Run(task, settings, division, seed=seed, segments=segments)
        if folder is not None:
            run.restore(folder, state)
    saved_at = time.monotonic()
    while state.segments < len(segments):
        with division:
            state = run.advance(state)
            saved = state.ended is not None or time.monotonic() - saved_at >= settings.checkpoint_seconds
            if saved:
                run.save(directory, state, identity)
                saved_at = time.monotonic()
        generators = snapshots.generators(run.device)
        try:
            yield state.measurement
        except GeneratorExit:
            snapshots.set_generators(run.device, generators)
            if not saved:
                run.save(directory, state, identity)
            raise
        if _is_over(state):
            return
        snapshots.set_generators(run.device, generators)  # whoever iterates may have drawn from torch's


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


class _Sums:
    """What the steps from example `first` on come to, on the way to a measurement. tokens: of all steps."""

    def __init__(self, first: int, device: torch.device) -> None:
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.first = first
        self.loss = torch.zeros((), dtype=precise, device=device)
        self.norm: torch.Tensor | None = None
        self.weight = self.rate = 0.0
        self.steps = self.tokens = 0

    def add(
        self, first: int, batch: Batch, losses: Sequence[torch.Tensor], norm: torch.Tensor | None, rate: float
    ) -> None:
        """Take in a step that began at example `first`; losses: of its micro-batches, summed. norm: of its gradient."""
        self.tokens += batch.tokens
        self.rate = rate
        if first < self.first:  # on the way to an earlier rung, where a branch has measured it
            return
        for loss in losses:
            self.loss += loss
        if norm is not None:
            self.norm = norm.to(self.loss) if self.norm is None else self.norm + norm
        self.weight += batch.weight
        self.steps += 1

    @property
    def finite(self) -> bool:
        """Whether the loss is a number. Waits for the device."""
        return math.isfinite(self.loss.item())

    def metrics(self) -> dict[str, float]:
        """Means over the steps, and the last learning rate."""
        found = {"train/loss": self.loss.item() / self.weight, "train/learning_rate": self.rate}
        return found if self.norm is None else {**found, "train/gradient_norm": self.norm.item() / self.steps}


class _Run:
    """A model in training: everything that has tensors."""

    def __init__(
        self, task: Task, settings: Training, division: memory.Division, *, seed: int, segments: Sequence[Segment]
    ) -> None:
        self.task = task
        self.settings = settings
        self.division = division
        self.segments = segments
        self.examples = segments[-1].end
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
        self.snapshots = Snapshots(self.module, self.optimizer.optimizer, self.average, self.device)
        self.steps = 0

    def advance(self, state: State) -> State:
        """Train to the next measurement and measure; the state after it."""
        path = self.segments[: state.segments + 1]
        state = replace(state, segments=len(path), progress=path[-1].progress)
        if not path[-1].steps:  # two rungs fall on the same example, and the model is the one just measured
            return self._judge(state)
        sums = _Sums(path[-1].first, self.device)
        started = time.perf_counter()
        end = sum(segment.steps for segment in path)
        if not self.settings.decay_at_rungs or not any(later.steps for later in self.segments[len(path) :]):
            self._train(sums, stop=end, horizon=self.examples)
            state = self._measure(state, sums, started)
            return replace(state, steps=self.steps)
        stable = schedules.stable_steps(self.settings, path, examples=self.examples)
        self._train(sums, stop=stable, horizon=self.examples)
        tokens, steps, trunk = sums.tokens, self.steps, self.snapshots.copy()
        self._train(sums, stop=end, horizon=path[-1].end)
        state = replace(state, branch_tokens=state.branch_tokens + sums.tokens - tokens)
        state = self._measure(state, sums, started)
        self.snapshots.put_back(trunk)
        self.steps = steps
        return replace(state, steps=steps)

    def _train(self, sums: _Sums, *, stop: int, horizon: int) -> None:
        """The optimizer steps up to `stop`; fewer when the loss is no longer a number.

        horizon: examples after which the learning rate has fallen to its end.
        """
        self.model.train()
        for first, count in schedules.batches(self.segments, self.steps, stop):
            rate = schedules.learning_rate(
                self.settings, schedules.middle(first, count), examples=self.examples, horizon=horizon
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            batch = self.task.draw(first, count)
            self.division.rows = self._rows(count)
            losses = []
            for inputs in _micro_batches(batch.inputs, self.division.rows):
                loss = self.task.loss(self.model, self._moved(inputs))
                # Divided by the weight of the whole batch: micro-batches then add up to exactly its gradient.
                self.accelerator.backward(loss / batch.weight)
                losses.append(loss.detach())
            norm = None
            if self.settings.gradient_clip is not None:
                norm = self.accelerator.clip_grad_norm_(self.trained, self.settings.gradient_clip)
            if self.settings.gradient_noise:
                self._add_noise()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1
            if self.average is not None:
                self.average.update(self.steps)
            sums.add(first, batch, losses, norm, rate)
            if sums.steps and sums.steps % FINITE_CHECK_STEPS == 0 and not sums.finite:
                break

    def _measure(self, state: State, sums: _Sums, started: float) -> State:
        """Measure the model as it is, trained since `started`, and judge."""
        before, metrics = dict(state.metrics or {}), sums.metrics()  # which waits for the device
        seconds = time.perf_counter() - started
        state = replace(state, seconds=state.seconds + seconds)
        metrics |= {
            "train/tokens_per_second": sums.tokens / seconds,
            "train/seconds": state.seconds,
            "train/branch_tokens": float(state.branch_tokens),
            "model/parameters": float(adapters.size(self.module)),
        }
        finite = math.isfinite(metrics["train/loss"])
        metrics |= self._evaluate(state.segments == len(self.segments)) if finite else {"validation/loss": math.nan}
        metrics["train/peak_memory_gib"] = memory.peak_gib(self.device)
        state = replace(state, metrics=metrics)
        if not math.isfinite(metrics["validation/loss"]):
            return replace(state, ended="diverged", metrics={**metrics, "validation/loss": math.nan})
        reason = worse_than_guessing(before, metrics, uniform=self.task.uniform_loss, lowest=state.best)
        return self._judge(state) if reason is None else replace(state, ended="diverged", reason=reason)

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

    def _judge(self, state: State) -> State:
        """Whether the run is over. Early stopping: keep the best weights, count measurements without a gain."""
        rule, loss = self.settings.early_stopping, (state.metrics or {})["validation/loss"]
        complete = state.segments == len(self.segments)
        if rule.patience is None:
            return replace(state, best=min(loss, state.best), ended="complete" if complete else None)
        if loss < state.best:
            self.best = {name: tensor.to("cpu", copy=True) for name, tensor in self._kept().items()}
        gained = loss < state.reference - rule.min_gain
        stale = 0 if gained else state.stale + 1
        return replace(
            state,
            best=min(loss, state.best),
            reference=loss if gained else state.reference,
            stale=stale,
            ended="complete" if complete else "early" if stale >= rule.patience else None,
        )

    def save(self, directory: Path, state: State, identity: Mapping[str, Any]) -> None:
        """Write a checkpoint: all that a run needs to go on; of one that is over, its weights."""
        tensors: dict[str, checkpoints.Tensors] = {}
        if state.ended is None:
            tensors = self.snapshots.present() | ({"best": self.best} if self.best else {})
        elif state.ended != "diverged":
            tensors = {"model": self.best or self._kept()}
        checkpoints.write(directory, checkpoints.Checkpoint({"identity": identity, "run": asdict(state)}, tensors))

    def _kept(self) -> dict[str, torch.Tensor]:
        """The weights that a run is about: the averaged ones where there are such, else the last ones."""
        present = checkpoints.weights(self.module)
        return present if self.average is None else {**present, **self.average.tensors}

    def restore(self, folder: Path, state: State) -> None:
        """Take over the tensors of the checkpoint in `folder`, taken at `state`."""
        self.best = checkpoints.read_tensors(folder, "best")
        names = ("model", "optimizer", "generators", "average")
        self.snapshots.put_back({name: checkpoints.read_tensors(folder, name) for name in names})
        self.steps = state.steps


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
