"""Architectures: the shape of a model from scratch, or the pretrained one to go on from."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from annotated_types import Ge

from models.configuration.ranges import Above0, Positive, Probability
from models.errors import SettingError

LACKING: Mapping[str, tuple[str, ...]] = {
    "llama": ("hidden", "embedding"),
    "bert": ("embedding",),
    "marian": ("embedding",),
    "t5": ("embedding", "attention"),
}
"""Kinds of dropout that a family does not have of its own: setting one would change nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """What every transformer has."""

    width: Positive = 128
    """Size of the residual stream; divisible by `heads`."""
    heads: Positive = 4
    """Attention heads."""
    context: Annotated[int, Ge(2)] = 128
    """Longest sequence in tokens."""
    feed_forward: Above0 | None = None
    """Inner width of the feed-forward block, as a multiple of `width`. None: 4, of llama 8/3."""
    dropout: Probability = 0.0
    """Probability of dropout wherever the family has it, unless a kind below says otherwise."""
    attention_dropout: Probability | None = None
    """Of attention weights. None: `dropout`."""
    hidden_dropout: Probability | None = None
    """After attention and feed-forward blocks. None: `dropout`. llama has none there, and refuses it."""
    embedding_dropout: Probability | None = None
    """Of embeddings. None: `dropout`. Where a family has one for embeddings and blocks together (bert,
    marian, t5), that is `hidden_dropout`, and this is refused."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """sdpa: torch's fused attention. eager: written out, slower, for debugging."""
    pretrained: str | None = None
    """A folder or hub name to start from, such as a model that `hpo promote` wrote. The shape is then that
    model's: leave the settings of shape out."""

    def __post_init__(self) -> None:
        if self.pretrained is not None:
            self._check_pretrained()
            return
        self._check_dropout()
        if self.width % self.heads:
            raise SettingError(
                f"model.width: must be divisible by model.heads, got {self.width} and {self.heads}. "
                f"Use width {self.width - self.width % self.heads or self.heads} or "
                f"{self.width + self.heads - self.width % self.heads}."
            )
        if getattr(self, "family", "") in ("llama", "modernbert") and self.width // self.heads % 2:
            raise SettingError(
                f"model.width: rotary positions need an even width a head, got {self.width} / {self.heads} = "
                f"{self.width // self.heads}. Use {self.width // self.heads + 1} x {self.heads} = "
                f"{(self.width // self.heads + 1) * self.heads}."
            )

    def _check_pretrained(self) -> None:
        free = ("context", "dropout", "attention_dropout", "hidden_dropout", "embedding_dropout")
        shape = [item for item in fields(self) if item.name not in (*free, "attention", "pretrained")]
        if given := [item.name for item in shape if getattr(self, item.name) != item.default]:
            raise SettingError(
                f"model.{given[0]}: the shape comes from model.pretrained ({self.pretrained!r}). "
                f"Leave out {', '.join('model.' + name for name in given)}."
            )

    def _check_dropout(self) -> None:
        family = getattr(self, "family", "")
        for kind in LACKING.get(family, ()):
            value = getattr(self, f"{kind}_dropout")
            if value is not None:
                raise SettingError(
                    f"model.{kind}_dropout: {family} has no dropout of that kind, got {value}. "
                    "Leave it out, or search it only where the family has it (when: {model.family: ...})."
                )

    def drop(self, kind: Literal["attention", "hidden", "embedding"]) -> float:
        """The probability of one kind of dropout."""
        value: float | None = getattr(self, f"{kind}_dropout")
        return self.dropout if value is None else value


@dataclass(frozen=True, kw_only=True, slots=True)
class Causal(Network):
    """A decoder-only language model."""

    family: Literal["gpt2", "llama"] = "gpt2"
    """gpt2: learned positions, LayerNorm, GELU. llama: rotary positions, RMSNorm, SwiGLU."""
    layers: Positive = 4
    """Transformer blocks."""
    kv_heads: Positive | None = None
    """Key and value heads (llama only); divides `heads`. None: as many as `heads`."""
    bias: bool = False
    """Trained biases in linear layers and norms (llama: in linear layers; its norms have none)."""
    tie_embeddings: bool = True
    """One matrix for the input embedding and the output layer."""

    def __post_init__(self) -> None:
        Network.__post_init__(self)
        check_kv_heads(self.kv_heads, self.heads, self.family)


@dataclass(frozen=True, kw_only=True, slots=True)
class Classifier(Network):
    """A transformer with a classification layer on top."""

    family: Literal["modernbert", "bert", "gpt2", "llama"] = "modernbert"
    """modernbert: rotary positions, gated feed-forward, the mean of all tokens is classified. bert: learned
    positions, the first token is classified. gpt2, llama: decoders, the last token is classified."""
    layers: Positive = 2
    """Transformer blocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceToSequence(Network):
    """A model that turns one text into another."""

    family: Literal["marian", "t5", "gpt2", "llama"] = "marian"
    """marian: encoder and decoder with sinusoidal positions, LayerNorm after each block (Vaswani et al.
    2017). t5: encoder and decoder with relative positions, RMSNorm before. gpt2, llama: a decoder alone that
    reads the source and goes on with the target."""
    layers: Positive = 2
    """Transformer blocks of the encoder, and of a decoder-only family."""
    decoder_layers: Positive | None = None
    """Transformer blocks of the decoder. None: as many as `layers`."""
    tie_embeddings: bool = True
    """One matrix for the output layer and the embeddings, which source and target always share."""

    def __post_init__(self) -> None:
        Network.__post_init__(self)
        if self.decoder_layers is not None and self.family in ("gpt2", "llama"):
            raise SettingError(
                f"model.decoder_layers: {self.family} is a decoder alone, with model.layers blocks, got "
                f"{self.decoder_layers}. Leave it out."
            )


def check_kv_heads(kv_heads: int | None, heads: int, family: str) -> None:
    """Raises SettingError for key and value heads that the family lacks or that do not divide the heads."""
    if kv_heads is not None and (family != "llama" or heads % kv_heads):
        raise SettingError(
            f"model.kv_heads: must divide model.heads, and only llama has it; got kv_heads "
            f"{kv_heads}, heads {heads}, family {family!r}. Leave it out or use a divisor."
        )
