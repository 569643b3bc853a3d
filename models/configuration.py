"""Every setting of a training, with its unit, range and default: the parts that the doors' `Config` types are
made of.

Light to import (no torch, no numpy): `hpo check` reads these types to check a sweep before anything starts.
Ranges stand in the annotations, where pydantic finds them; rules between fields stand in `__post_init__`.
Says what a setting means and never acts on one.
"""

from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from models.errors import SettingError

Positive = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Where the text comes from and how it is split."""

    source: str = "sample"
    """`sample` (built in, no download), a file, a folder, a glob, or `hub:owner/name` on the Hugging Face
    hub."""
    configuration: str | None = None
    """A hub data set's configuration, such as `wikitext-103-raw-v1`."""
    revision: str | None = None
    """A hub data set's branch, tag or commit. None: `main` as it was when it was first prepared."""
    format: Literal["auto", "txt", "jsonl", "csv", "parquet"] = "auto"
    """Format of local files. auto: by their suffix."""
    text_column: str = "text"
    """The column that holds the text (jsonl, csv, parquet, hub)."""
    split_by: Literal["hash", "position"] = "hash"
    """hash: each document (of plain text: each paragraph) goes where a hash of its text sends it, so that no
    text is in two splits. position: first train, then validation, then test, by characters."""
    validation: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Share of the text that validates, unless the source names a split for it."""
    test: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Share of the text kept for the test, unless the source names a split for it. 0: no test split."""
    train_split: str | None = None
    """Name of the training split: a hub split, or the stem of files in a folder. None: `train` where the
    source has that split, else everything (a hub set must have it)."""
    validation_split: str | None = None
    """Name of the validation split. None: `validation`, `valid`, `val` or `dev` where the source has one,
    else the share above of the train split."""
    test_split: str | None = None
    """Name of the test split. None: `test` where the source has it, else the share above of the train
    split."""

    def __post_init__(self) -> None:
        if self.validation + self.test >= 1:
            raise SettingError(
                f"data: validation + test must leave something to train on, got {self.validation} + "
                f"{self.test}. Lower one of them."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenizer:
    """How text becomes tokens."""

    kind: Literal["characters", "bytes", "bpe", "pretrained"] = "bpe"
    """characters: those of the train split. bytes: UTF-8. bpe: byte-level BPE, trained on the train split.
    pretrained: the one at `path`."""
    vocabulary: Annotated[int, Ge(257)] = 1024
    """Entries of a bpe vocabulary: 256 bytes, the end-of-text token, and merges."""
    path: str | None = None
    """A pretrained tokenizer: a folder or a hub name. None: that of `model.pretrained`."""

    def __post_init__(self) -> None:
        if self.path is not None and self.kind != "pretrained":
            raise SettingError(
                f"tokenizer.path: only for tokenizer.kind 'pretrained', got kind {self.kind!r}. "
                "Set the kind or leave the path out."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """The architecture; or, with `pretrained`, the model to go on from."""

    family: Literal["gpt2", "llama"] = "gpt2"
    """gpt2: learned positions, LayerNorm, GELU. llama: rotary positions, RMSNorm, SwiGLU."""
    layers: Positive = 4
    """Transformer blocks."""
    width: Positive = 128
    """Size of the residual stream; divisible by `heads`."""
    heads: Positive = 4
    """Attention heads."""
    kv_heads: Positive | None = None
    """Key and value heads (llama only); divides `heads`. None: as many as `heads`."""
    context: Annotated[int, Ge(2)] = 128
    """Tokens in a training sequence, and the longest the model attends over."""
    feed_forward: Annotated[float, Gt(0)] | None = None
    """Inner width of the feed-forward block, as a multiple of `width`. None: 4 (gpt2), 8/3 (llama)."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Probability of dropout. gpt2: attention, residual and embedding alike; llama has it in attention
    only."""
    bias: bool = False
    """Trained biases in linear layers and norms (llama: in linear layers; its norms have none)."""
    tie_embeddings: bool = True
    """One matrix for the input embedding and the output layer."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """sdpa: torch's fused attention. eager: written out, slower, for debugging."""
    pretrained: str | None = None
    """A folder or hub name to start from. The shape is then that model's: leave the settings of shape out."""

    def __post_init__(self) -> None:
        if self.pretrained is not None:
            self._check_pretrained()
        elif self.width % self.heads:
            raise SettingError(
                f"model.width: must be divisible by model.heads, got {self.width} and {self.heads}. "
                f"Use width {self.width - self.width % self.heads or self.heads} or "
                f"{self.width + self.heads - self.width % self.heads}."
            )
        elif self.family == "llama" and self.width // self.heads % 2:
            raise SettingError(
                f"model.width: rotary positions need an even width a head, got {self.width} / {self.heads} = "
                f"{self.width // self.heads}. Use {self.width // self.heads + 1} x {self.heads} = "
                f"{(self.width // self.heads + 1) * self.heads}."
            )
        if self.kv_heads is not None and (self.family != "llama" or self.heads % self.kv_heads):
            raise SettingError(
                f"model.kv_heads: must divide model.heads, and only llama has it; got kv_heads "
                f"{self.kv_heads}, heads {self.heads}, family {self.family!r}. Leave it out or use a divisor."
            )

    def _check_pretrained(self) -> None:
        shape = ("family", "layers", "width", "heads", "kv_heads", "feed_forward", "bias", "tie_embeddings")
        defaults = {item.name: item.default for item in fields(self)}
        if given := [name for name in shape if getattr(self, name) != defaults[name]]:
            raise SettingError(
                f"model.{given[0]}: the shape comes from model.pretrained ({self.pretrained!r}). "
                f"Leave out {', '.join('model.' + name for name in given)}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlyStopping:
    """When a run ends before its time because validation no longer gains."""

    patience: Positive | None = None
    """Measurements without a gain after which the run ends; the best weights are kept. None: never."""
    min_gain: Annotated[float, Ge(0)] = 0.0
    """Smallest fall of the validation loss that counts as a gain, in nats."""


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
    tokens: Positive | None = None
    """Length of a full run in training tokens. None: by `epochs`."""
    epochs: Annotated[float, Gt(0)] | None = None
    """Length of a full run in passes over the training split. With neither this nor `tokens`: one pass."""
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
    decay: Share = 0.2
    """wsd: share of the run's tokens over which the learning rate falls."""
    final_learning_rate: Share = 0.1
    """The learning rate at the end, as a share of `learning_rate` (not for constant)."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Probability spread evenly over the vocabulary in the training loss. Validation is never smoothed."""
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
        if self.tokens is not None and self.epochs is not None:
            raise SettingError(
                f"tokens, epochs: give one of them, got tokens {self.tokens} and epochs {self.epochs}. "
                "Leave one out: each says how long a full run is."
            )
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise SettingError(
                f"warmup, decay: together at most 1 with schedule 'wsd', got {self.warmup} + {self.decay}. "
                "Lower one of them."
            )
