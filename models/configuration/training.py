"""How a model is trained: what all objectives share."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from models.configuration.ranges import Above0, AtLeast0, Count, Positive, Probability, Share
from models.errors import SettingError


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlyStopping:
    """When a run ends before its time because validation no longer gains."""

    patience: Positive | None = None
    """Measurements without a gain after which the run ends; the best weights are kept. None: never."""
    min_gain: Annotated[float, Ge(0)] = 0.0
    """Smallest fall of the validation loss that counts as a gain, in nats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2022), through PEFT."""

    rank: Positive = 8
    """Rank of the additions."""
    alpha: Above0 = 16.0
    """The additions are scaled by alpha / rank."""
    dropout: Probability = 0.0
    """Probability of dropout before the additions."""
    targets: Literal["attention", "all"] = "all"
    """Which linear layers get an addition: those of attention, or all but the output layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """How text is generated where it is scored."""

    beams: Positive = 1
    """Width of beam search; 1: greedy."""
    length_penalty: float = 1.0
    """Beam search divides a hypothesis's log-probability by its length to this power."""
    max_new_tokens: Positive | None = None
    """Longest text generated, in tokens. None: as long as the context allows, of a decoder alone half of it."""
    sample: Positive | None = 200
    """How many examples of the validation split are generated at each rung before the end, always the same
    ones; the end of a run takes `final_sample`. None: all."""
    final_sample: Positive | None = None
    """How many at the end of a run. None: all. A promotion tests on all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """The settings that every objective shares."""

    learning_rate: Annotated[float, Gt(0)] = 1e-3
    """Peak learning rate."""
    batch_size: Positive = 16
    """Sequences an optimizer step."""
    micro_batch_size: Positive | None = None
    """Sequences a forward pass; the gradient is accumulated exactly over a batch. None, or more than
    `batch_size`: the whole batch at once."""
    epochs: Annotated[float, Gt(0)] | None = None
    """Length of a full run in passes over the training split. None: one, unless another setting says it."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw: Loshchilov & Hutter 2019. sgd: with momentum; its weight decay is added to the gradient (L2)."""
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    """adamw: decay of the mean of gradients."""
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.95
    """adamw: decay of the mean of squared gradients."""
    epsilon: Annotated[float, Gt(0)] = 1e-8
    """adamw: added to the root of the second moment."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    """sgd: momentum."""
    weight_decay: Annotated[float, Ge(0)] = 0.1
    """Weight decay of matrices, embeddings included; biases and norms have none."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """How the learning rate falls after the warm-up. wsd: stable, then a linear fall over the last
    `decay`."""
    warmup: Share = 0.05
    """Share of the run's tokens over which the learning rate rises linearly from 0."""
    warmup_examples: Count | None = None
    """The same in training examples (of running text: sequences of `model.context` tokens), so that runs of different
    lengths rise alike; takes the place of `warmup`. A run that is too short to rise and fall in full takes the lower
    of both. None: `warmup`."""
    decay: Share = 0.2
    """wsd: share of the run's tokens over which the learning rate falls."""
    decay_at_rungs: bool = False
    """wsd: measure at each rung what a run of that length would have ended with (Haegele et al. 2024). The trial
    branches `decay` of the rung's tokens before it: the learning rate falls to its end, the model is measured there
    and thrown away, and the trial goes on as if the branch had never been. Costs `decay` times the sum of all rungs
    before the end in tokens more, and, while a branch trains, host memory for a copy of the weights and the
    optimizer's state (12 bytes a trained parameter with adamw, 16 with `ema_decay`)."""
    final_learning_rate: Share = 0.1
    """The learning rate at the end, as a share of `learning_rate` (not for constant)."""
    label_smoothing: Probability = 0.0
    """Probability spread evenly over all answers in the training loss. Validation is never smoothed."""
    gradient_noise: AtLeast0 = 0.0
    """Standard deviation, at the first step, of noise added to the gradient; it falls with the power 0.275 of
    the step (Neelakantan et al. 2015, equation 1: variance eta / (1 + t)^0.55). 0: none."""
    ema_decay: Probability = 0.0
    """Average the weights over the steps, each step's average keeping this share of the last one (Polyak
    averaging); the averaged weights are what is validated and kept. 0: none. Warmed up as
    min(decay, (1 + t) / (10 + t))."""
    tuning: Literal["full", "lora"] = "full"
    """full: train the model's own weights. lora: freeze them and train low-rank additions to its matrices
    (Hu et al. 2022), which are merged into the weights when the model is saved."""
    lora: Lora = field(default_factory=Lora)
    """The low-rank additions."""
    freeze_layers: Count = 0
    """Leave this many of the lowest blocks, and the embeddings below them, as they are (a pretrained model's;
    all blocks: only the head is trained)."""
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    """Each block's learning rate as a share of that of the block above it (Howard & Ruder 2018,
    discriminative fine-tuning). 1: the same for all."""
    gradient_clip: Annotated[float, Gt(0)] | None = 1.0
    """Largest norm of the gradient; a longer one is scaled down. None: no clipping."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bfloat16 autocast on a GPU that has it, fp32 elsewhere. Weights are fp32 throughout."""
    compile: bool = False
    """torch.compile the model. Pays on long GPU runs; costs 60 to 105 s on a CPU and gains nothing there."""
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    """When a run ends before its time."""
    checkpoint_seconds: Annotated[float, Ge(0)] = 60.0
    """Least time between checkpoints, which are taken at measurements. 0: at each one."""

    def __post_init__(self) -> None:
        if self.schedule == "wsd" and self.warmup_examples is None and self.warmup + self.decay > 1:
            raise SettingError(
                f"warmup, decay: together at most 1 with schedule 'wsd', got {self.warmup} + {self.decay}. "
                "Lower one of them."
            )
        if self.decay_at_rungs and self.schedule != "wsd":
            raise SettingError(
                f"decay_at_rungs: only for schedule 'wsd', got True with {self.schedule!r}, whose learning rate "
                "depends on the run's length from its beginning. Leave it out, or use 'wsd'."
            )
        if self.decay_at_rungs and not self.decay:
            raise SettingError(
                "decay: must be above 0 with decay_at_rungs, got 0: nothing would fall at a rung. "
                "Leave decay_at_rungs out."
            )
        if self.freeze_layers and self.tuning == "lora":
            raise SettingError(
                f"freeze_layers: only for tuning 'full', got {self.freeze_layers} with 'lora', which freezes every "
                "weight of the model. Leave it out."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTraining(Training):
    """The settings of objectives whose progress is counted in tokens."""

    tokens: Positive | None = None
    """Length of a full run in training tokens. None: by `epochs`."""

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        if self.tokens is not None and self.epochs is not None:
            raise SettingError(
                f"tokens, epochs: give one of them, got tokens {self.tokens} and epochs {self.epochs}. "
                "Leave one out: each says how long a full run is."
            )
