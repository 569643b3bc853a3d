"""What trainings of the baseline with several seeds say of a study's result: how much of it may be chance.

Knows a study's summary, and no sampler or rule.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from hpo.journal import TrialRecord
from hpo.summary import Summary
from hpo.trials import Direction, Ending
from hpo.wording import number

_TOLD_APART = 2.0  # deviations of the difference; beyond, about one pair in twenty is by chance alone
_ROUGH = 6  # of fewer seeds, the true deviation may be more than two and a half times as large (with 95%)
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Between:
    """How the final metric of one configuration varies between seeds.

    Attributes:
        trainings: of the baseline, one a seed, whatever became of them.
        values: of those that were trained in full; at least one to have a mean, two to have a deviation.
    """

    trainings: tuple[TrialRecord, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation, unbiased in its square (n - 1)."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def between(summary: Summary) -> Between | None:
    """What the seeds of the baseline say, or None where it is trained once."""
    trainings = tuple(trial for trial in summary.trials if trial.repeat or trial.number == 0)
    if not any(trial.repeat for trial in trainings):
        return None
    full = (trial.value for trial in trainings if trial.ending is Ending.COMPLETE)
    return Between(trainings, tuple(value for value in full if value is not None))


def _ahead(summary: Summary, one: float, other: float) -> float:
    """How much better one value is than another; negative where it is worse."""
    return other - one if summary.direction is Direction.MINIMIZE else one - other


def lead(summary: Summary, found: Between) -> float | None:
    """How far the best trial is ahead of the baseline's mean; None where there is no best but the baseline."""
    best = summary.best
    if best is None or best.value is None or best.number == 0 or found.mean is None:
        return None
    return _ahead(summary, best.value, found.mean)


def alike(summary: Summary, found: Between) -> list[int]:
    """Trials that cannot be told apart from the best: within two deviations of a difference. The baseline is not named.

    A difference of two trainings deviates by the root of 2 times what one does.
    """
    best, deviation = summary.best, found.deviation
    if best is None or best.value is None or not deviation or summary.tradeoff:
        return []  # of a front, each is better than the others in something
    limit = _TOLD_APART * math.sqrt(2) * deviation
    rivals = [trial for trial in summary.complete if trial.number not in (0, best.number) and trial.value is not None]
    near = [(_ahead(summary, best.value, rival.value or 0.0), rival.number) for rival in rivals]
    return [which for far, which in sorted(near) if far < limit]


def sentences(summary: Summary) -> list[str]:
    """What there is to say, a sentence each; nothing where the baseline is trained once."""
    found = between(summary)
    if found is None:
        return []
    mean, deviation, count = found.mean, found.deviation, len(found.values)
    if mean is None or deviation is None:
        return [f"How much seeds change the metric is not known: {_of(found)}, and it takes two."]
    metric = summary.record.metric["name"]
    if not deviation:
        return [f"All {count} seeds of the baseline measured the same: {metric} does not depend on the seed."]
    rough = "; from so few seeds it is rough" if count < _ROUGH else ""
    said = f"Standard deviation of {metric} between seeds: {number(deviation, 3)} ({_of(found)}, mean {number(mean)})"
    return [f"{said}{rough}.", *_beside_baseline(summary, found, deviation), *_beside_others(summary, found, deviation)]


def _of(found: Between) -> str:
    """How many seeds were trained in full, and what became of the others."""
    count, asked = len(found.values), len(found.trainings)
    if count == asked:
        return f"{count} seeds"
    ended = [f"trial {trial.number} {trial.state}" for trial in found.trainings if trial.ending is not Ending.COMPLETE]
    return f"{count} of {asked} seeds trained in full, {', '.join(ended)}"


def _beside_baseline(summary: Summary, found: Between, deviation: float) -> list[str]:
    best, far, count = summary.best, lead(summary, found), len(found.values)
    if best is None or far is None:
        return []
    where = "ahead of" if far > 0 else "behind"
    text = f"The winner is {where} the baseline's mean by {number(abs(far), 3)}, "
    text += f"{abs(far) / deviation:.1f} deviations between seeds ({number(deviation, 3)}, {count} seeds)"
    if far <= 0:
        first = found.trainings[0].ending is Ending.COMPLETE
        return [f"{text}: it is ahead of the baseline's first seed alone." if first else f"{text}."]
    # One training beside the mean of some.
    chance = far < _TOLD_APART * deviation * math.sqrt(1 + 1 / count)
    return [f"{text}: chance alone may do that." if chance else f"{text}."]


def _beside_others(summary: Summary, found: Between, deviation: float) -> list[str]:
    near = alike(summary, found)
    if not near:
        return []
    named = [str(which) for which in near[:_NAMED]] + ([f"{len(near) - _NAMED} more"] if len(near) > _NAMED else [])
    listed = " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
    which = f"trial{'s' if len(near) > 1 else ''} {listed}"
    within = number(_TOLD_APART * math.sqrt(2) * deviation, 3)
    return [
        f"The best and {which} cannot be told apart: less than {within} lies between, 2 deviations of a difference."
    ]


def repeats_view(summary: Summary) -> list[RenderableType]:
    """The sentences as `hpo show` has them."""
    return [Text(sentence) for sentence in sentences(summary)]


def repeats_json(summary: Summary) -> dict[str, Any]:
    """What `hpo show --json` says of seeds; nothing of a study whose baseline is trained once."""
    found = between(summary)
    if found is None:
        return {}
    far, deviation = lead(summary, found), found.deviation
    numbers: Sequence[int] = [trial.number for trial in found.trainings]
    return {
        "seeds": {
            "trials": numbers,
            "trained_in_full": len(found.values),
            "mean": found.mean,
            "deviation": deviation,
            "lead": far,
            "lead_in_deviations": far / deviation if far is not None and deviation else None,
            "not_told_apart": alike(summary, found),
        }
    }
