"""Where in a run each optimizer step lies, and the learning rate there.

Everything is counted in examples and tokens, never in steps, so that trials with different batch sizes
measure at the same progress and follow the same schedule. Pure arithmetic: no torch, no data.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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

    @property
    def end(self) -> int:
        """Examples seen after it."""
        return self.first + self.examples

    def batch(self, step: int) -> tuple[int, int]:
        """(first example, examples) of a step; sizes differ by one at most."""
        start, end = (self.examples * edge // self.steps for edge in (step, step + 1))
        return self.first + start, end - start

    def batches(self) -> Iterator[tuple[int, int]]:
        """Those of all steps."""
        return map(self.batch, range(self.steps))


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


def batches(run: Sequence[Segment], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """(first example, examples) of the steps `start` to `stop` of a run, counted from its beginning."""
    before = 0
    for segment in run:
        for step in range(max(start - before, 0), min(stop - before, segment.steps)):
            yield segment.batch(step)
        before += segment.steps


def stable_steps(settings: Training, path: Sequence[Segment], *, examples: int) -> int:
    """Steps of a run before the first whose learning rate would be lower if the run ended where `path` does (wsd).

    A run that ends there and one that goes on have them in common: a branch begins after them. path: the run's first
    segments. examples: of the whole run, which its warm-up may be a share of.
    """
    found = 0
    for segment in path:
        falls = partial(_falls, settings, segment, examples=examples, horizon=path[-1].end)
        steps = bisect_left(range(segment.steps), True, key=falls)
        found += steps
        if steps < segment.steps:
            break
    return found


def _falls(settings: Training, segment: Segment, step: int, *, examples: int, horizon: int) -> bool:
    example = middle(*segment.batch(step))
    return _fall(settings, example / horizon) < _rise(settings, example, examples)


def middle(first: int, count: int) -> float:
    """Where in a run a step takes its learning rate: at the middle of the examples it covers.

    It is never 0 there, and the sum over a run of rate times examples is the same for all batch sizes (the midpoint
    rule).
    """
    return first + count / 2


def learning_rate(settings: Training, example: float, *, examples: int, horizon: int | None = None) -> float:
    """The learning rate after `example` examples of a run of `examples`.

    horizon: after how many the rate has fallen to its end (of schedule wsd, where a run may branch). None: at the
    run's end.
    """
    share = _rise(settings, example, examples)
    if settings.schedule == "wsd":
        return settings.learning_rate * min(share, _fall(settings, example / (horizon or examples)))
    if share < 1:
        return settings.learning_rate * share
    warmup = settings.warmup if settings.warmup_examples is None else settings.warmup_examples / examples
    after = (example / examples - warmup) / (1 - warmup) if warmup < 1 else 1.0
    return settings.learning_rate * _left(settings, after)


def warmup_end(settings: Training, *, tokens: int, example_tokens: float) -> int:
    """The last progress at which a measurement cannot have a step at the peak behind it; 0 without a warm-up.

    A step takes its learning rate at its middle, so the first one at the peak ends half a batch after the warm-up.
    Where a run is cut into steps that are larger or smaller than `batch_size` (`segments`), this is off by half of the
    difference. The peak of a wsd run too short to rise in full is where its rise meets the fall at its end.

    tokens: length of the run, which is the most that is returned. example_tokens: mean tokens an example.
    """
    examples = max(1, round(tokens / example_tokens))

    def ends_at_peak(seen: int) -> bool:
        example = seen - settings.batch_size / 2
        peak = _fall(settings, example / examples) if settings.schedule == "wsd" else 1.0
        return _rise(settings, example, examples) >= peak

    last = bisect_left(range(examples + 1), True, key=ends_at_peak) - 1
    # A rung is measured at the nearest whole example.
    return min(tokens, int((last + 0.5) * example_tokens)) if last > 0 else 0


def _rise(settings: Training, example: float, examples: int) -> float:
    """How far the warm-up has come, 0 to 1."""
    if settings.warmup_examples is not None:
        return min(1.0, example / settings.warmup_examples) if settings.warmup_examples else 1.0
    return min(1.0, example / examples / settings.warmup) if settings.warmup else 1.0


def _fall(settings: Training, position: float) -> float:
    """wsd: Hu et al. 2024, MiniCPM, section 4; the linear fall is that of Haegele et al. 2024."""
    left = (1 - position) / settings.decay if settings.decay else 1.0
    return settings.final_learning_rate + (1 - settings.final_learning_rate) * min(1.0, left)


def _left(settings: Training, after: float) -> float:
    """What is left of the rate; after: position between the warm-up and the end, 0 to 1."""
    final = settings.final_learning_rate
    match settings.schedule:
        case "constant" | "wsd":
            return 1.0
        case "linear":
            return 1 - (1 - final) * after
        case "cosine":  # Loshchilov & Hutter 2017, SGDR, equation 5, without restarts
            return final + (1 - final) * (1 + math.cos(math.pi * after)) / 2
        case _:
            assert_never(settings.schedule)
