"""What a training reports, and the arithmetic between the units of a language model's loss.

Knows nothing of tensors: losses arrive as plain numbers, in nats a token.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """What a run has reached at one moment.

    progress: tokens seen (strictly increasing within a run).
    metrics: name to value, for example `validation/loss` in nats a token.
    """

    progress: int
    metrics: Mapping[str, float]


GUESS_MARGIN = 0.05
"""By how much, as a share, losses must be above a guess's to count as diverged."""


def worse_than_guessing(
    before: Mapping[str, float], now: Mapping[str, float], *, uniform: float | None, lowest: float
) -> str | None:
    """Why a run has diverged, judged by two measurements in a row, or None where it has not.

    It has when training and validation loss are above `uniform` at both, by more than `GUESS_MARGIN`, and the
    validation loss is not the lowest so far. The validation loss alone would also condemn a model that has learned
    its training data by heart, and may name labels well; one that falls from measurement to measurement has begun
    high, and learns (T5 begins at up to 140 nats where a guess has 6). uniform: the loss in nats where all answers
    are taken for equally likely; None where there is no such loss. lowest: validation loss before `now`.
    """
    if uniform is None:
        return None
    names = ("train/loss", "validation/loss")
    bound = uniform * (1 + GUESS_MARGIN)
    if any(found.get(name, -math.inf) <= bound for found in (before, now) for name in names):
        return None
    if now["validation/loss"] < lowest:
        return None
    return (
        f"validation loss {now['validation/loss']:.4g} is above the {uniform:.4g} of a uniform guess for two "
        "measurements in a row, and so is the training loss"
    )


def perplexity(loss_nats: float) -> float:
    """exp(loss); infinity where that is beyond a 64-bit float (a loss above 709 nats)."""
    try:
        return math.exp(loss_nats)
    except OverflowError:
        return math.inf


def bits_per_byte(loss_nats: float, *, tokens: int, utf8_bytes: int) -> float:
    """The loss in bits a byte of text, the one unit in which models with different tokenisers compare.

    loss_nats: mean loss, nats a token. tokens, utf8_bytes: the measured split's size in each. End-of-text
    tokens cost bits and stand for no byte, as in Gao et al. 2020, The Pile, section 3.1.
    """
    return loss_nats / math.log(2) * tokens / utf8_bytes


def loss_metrics(prefix: str, loss_nats: float, *, tokens: int, utf8_bytes: int) -> dict[str, float]:
    """`<prefix>/loss`, `/perplexity` and `/bits_per_byte` of one split (see `bits_per_byte` for the
    arguments)."""
    return {
        f"{prefix}/loss": loss_nats,
        f"{prefix}/perplexity": perplexity(loss_nats),
        f"{prefix}/bits_per_byte": bits_per_byte(loss_nats, tokens=tokens, utf8_bytes=utf8_bytes),
    }
