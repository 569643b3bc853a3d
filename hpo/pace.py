"""What a whole trial costs, from the first measurements of it.

A trial is a start, training at a steady rate, and a validation at each rung. Pure arithmetic on what a trial
reported; knows nothing of where it ran or why.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpo.trials import Outcome, Rung, rung_tokens

_MEMORY = ("train/peak_memory_gib", "train/gpu_memory_gib")


@dataclass(frozen=True, slots=True)
class Look:
    """A measurement as a clock saw it: `seconds` spent in the trial function by then."""

    progress: int
    seconds: float
    metrics: Mapping[str, float]


@dataclass(slots=True)
class Trace:
    """What was seen of one trial.

    Attributes:
        length: progress at which it is complete, where its objective says so.
        warmup: progress up to which its learning rate warms up; 0 where its objective says nothing of it.
        outcome: how it ended by itself; None where it was ended, having shown enough.
        seconds: in the trial function, all told; of use where it ended by itself.
        overhead: seconds it held its slot without being in the trial function.
    """

    looks: list[Look] = field(default_factory=list)
    length: int | None = None
    warmup: int = 0
    outcome: Outcome | None = None
    seconds: float = 0.0
    overhead: float = 0.0

    @property
    def memory(self) -> float | None:
        """The most memory it took, in GiB, where its objective measures that."""
        found = [look.metrics[name] for look in self.looks for name in _MEMORY if name in look.metrics]
        return max((gib for gib in found if math.isfinite(gib)), default=None)


@dataclass(frozen=True, slots=True)
class Pace:
    """A trial's cost by its parts.

    Attributes:
        start: seconds before the first step, and of what is slower only once.
        rate: progress a second while it trains.
        validation: seconds of one validation; 0 where it cannot be told from training.
    """

    start: float
    rate: float
    validation: float

    def seconds(self, progress: int, validations: int) -> float:
        return self.start + progress / self.rate + validations * self.validation


def pace(trace: Trace, before: int | None = None) -> Pace | None:
    """The pace of a trial: its rate from its second measurement on, the first one having the warm-up in it.

    Args:
        trace: what was seen.
        before: only measurements up to this progress.

    Returns:
        None where nothing was measured.
    """
    looks = [look for look in trace.looks if before is None or look.progress <= before]
    if not looks:
        return None
    told = [_told(look) for look in looks]
    if all(one is not None for one in told):
        return _pace_told(looks, [one for one in told if one is not None])
    first, last = looks[0], looks[-1]
    if last.progress == first.progress or last.seconds <= first.seconds:
        return Pace(0.0, last.progress / max(last.seconds, 1e-9), 0.0)
    validation = _validation(looks)
    training = max(last.seconds - first.seconds - validation * (len(looks) - 1), 1e-9)
    rate = (last.progress - first.progress) / training
    return Pace(max(0.0, first.seconds - first.progress / rate - validation), rate, validation)


def _told(look: Look) -> tuple[float, float] | None:
    """Seconds trained so far and of this validation, where the objective measures them."""
    trained, validation = look.metrics.get("train/seconds"), look.metrics.get("validation/seconds")
    if trained is None or validation is None or not math.isfinite(trained + validation):
        return None
    return trained, validation


def _pace_told(looks: Sequence[Look], told: Sequence[tuple[float, float]]) -> Pace:
    validations = [seconds for _, seconds in told]
    validation = sum(validations[1:] or validations) / len(validations[1:] or validations)
    progress, trained = looks[-1].progress - looks[0].progress, told[-1][0] - told[0][0]
    rate = progress / trained if progress and trained > 0 else looks[-1].progress / max(told[-1][0], 1e-9)
    outside = looks[0].seconds - told[0][0] - told[0][1]
    warm_up = told[0][0] - looks[0].progress / rate
    return Pace(max(0.0, outside) + max(0.0, warm_up), rate, validation)


def _validation(looks: Sequence[Look]) -> float:
    """Seconds a measurement costs whatever was trained before it: a line through steps of unequal length."""
    steps = [
        (later.progress - earlier.progress, later.seconds - earlier.seconds)
        for earlier, later in itertools.pairwise(looks)
    ]
    mean_x, mean_y = sum(x for x, _ in steps) / len(steps), sum(y for _, y in steps) / len(steps)
    spread = sum((x - mean_x) ** 2 for x, _ in steps)
    if not spread:  # equal steps: what is trained and what is validated cannot be told apart, and need not be
        return 0.0
    slope = sum((x - mean_x) * (y - mean_y) for x, y in steps) / spread
    return min(max(0.0, mean_y - slope * mean_x), *(y for _, y in steps))


def is_enough(trace: Trace, length: int | None, waited: float, patience: float = 1.0) -> bool:
    """Whether a trial's pace is known well enough for it to be ended.

    Args:
        trace: what was seen of it.
        length: progress at which it is complete, where known.
        waited: seconds since it began.
        patience: how many times longer than usual to look.
    """
    if len(trace.looks) < 2:
        return waited >= 60 and bool(trace.looks)
    trained = (trace.looks[-1].seconds - trace.looks[0].seconds) / patience
    if waited >= 60 or trained >= 5:
        return True
    if length is None:
        return trained >= 1 and len(trace.looks) > 3
    share = trace.looks[-1].progress / length
    return share >= patience / 10 or (share >= 1 / 25 and trained >= 1)


def stages(rungs: Sequence[Rung], length: int) -> list[int]:
    """Progress at each measurement of a whole trial, its end included."""
    return sorted({rung for rung in rung_tokens(rungs, length) if rung <= length} | {length})
