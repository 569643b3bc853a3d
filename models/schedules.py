"""Where in a run each optimizer step lies, and the learning rate there.

Everything is counted in examples and tokens, never in steps, so that trials with different batch sizes
measure at the same progress and follow the same schedule. Pure arithmetic: no torch, no data.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from models.configuration import Training


@dataclass(frozen=True)
class Segment:
    """A stretch of a run that ends in a measurement.

    first: examples seen before it. examples: how many it trains on. steps: optimizer steps, into which the
    examples are divided evenly. progress: tokens to report at its end, as they were asked for.
    """

    first: int
    examples: int
    steps: int
    progress: int

    def batches(self) -> Iterator[tuple[int, int]]:
        """(first example, examples) of each step; sizes differ by one at most."""
        for step in range(self.steps):
            start, end = (self.examples * edge // self.steps for edge in (step, step + 1))
            yield self.first + start, end - start


def segments(*, rungs: Sequence[int], tokens: int, example_tokens: float, batch_size: int) -> tuple[Segment, ...]:
    """A run cut at its rungs and its end.

    rungs: progresses in tokens to measure at, in any order; those beyond the end are left out. tokens: length
    of the run. example_tokens: mean tokens an example. batch_size: examples a step, kept as nearly as whole
    steps allow.
    """
    found: list[Segment] = []
    seen = 0
    for progress in sorted({*(rung for rung in rungs if 0 < rung < tokens), tokens}):
        reached = max(1, round(progress / example_tokens))
        examples = reached - seen
        steps = max(1, round(examples / batch_size)) if examples else 0
        found.append(Segment(first=seen, examples=examples, steps=steps, progress=progress))
        seen = reached
    return tuple(found)


def learning_rate(settings: Training, position: float) -> float:
    """The learning rate at a position in the run, as a share of its tokens, 0 to 1.

    A step takes the rate at the middle of the tokens it covers: it is never 0, and the sum over a run of rate
    times tokens is the same for all batch sizes (the midpoint rule).
    """
    return settings.learning_rate * _share(settings, position)


def _share(settings: Training, position: float) -> float:
    if position < settings.warmup:
        return position / settings.warmup
    final = settings.final_learning_rate
    after = (position - settings.warmup) / (1 - settings.warmup) if settings.warmup < 1 else 1.0
    match settings.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1 - (1 - final) * after
        case "cosine":  # Loshchilov & Hutter 2017, SGDR, equation 5, without restarts
            return final + (1 - final) * (1 + math.cos(math.pi * after)) / 2
        case "wsd":  # Hu et al. 2024, MiniCPM, section 4; the linear fall is that of Haegele et al. 2024
            left = (1 - position) / settings.decay if settings.decay else 1.0
            return final + (1 - final) * min(1.0, left)
        case _:
            assert_never(settings.schedule)
