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
