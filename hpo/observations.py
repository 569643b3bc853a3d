"""What a sampler knows of a study: each trial's configuration, its curve so far and how it ended.

Kept up to date event by event, so that asking for a trial costs the same however many there were. Knows no Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpo.trials import Ending, Value


@dataclass(slots=True)
class Seen:
    """One trial, as a sampler sees it.

    Attributes:
        parameters: values of the space's active parameters.
        curve: progress and the metric's value at each finite measurement.
        length: progress at which it is complete, where its objective says so.
        ending: None while it runs or waits.
        value: of a complete trial.
    """

    parameters: Mapping[str, Value]
    curve: list[tuple[int, float]] = field(default_factory=list)
    length: int | None = None
    ending: Ending | None = None
    value: float | None = None

    @property
    def is_bad(self) -> bool:
        """Whether it ended in a way that says that its configuration is a bad one."""
        return self.ending in (Ending.DIVERGED, Ending.OUT_OF_MEMORY)

    @property
    def says_nothing(self) -> bool:
        """Whether it ended in a way that says nothing of its configuration."""
        return self.ending in (Ending.KILLED, Ending.HUNG, Ending.FAILED)

    def share(self, progress: int) -> float:
        """A progress as a share of the whole trial; of an unknown length, of the farthest measurement."""
        whole = self.length or (self.curve[-1][0] if self.curve else progress)
        return min(1.0, progress / whole) if whole else 1.0

    def note(self, progress: int, value: float, length: int | None) -> None:
        if math.isfinite(value):
            self.curve.append((progress, value))
        self.length = length if length is not None else self.length
