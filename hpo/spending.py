"""What a study has spent, and what it may: wall time, GPU-hours, money.

Computed from the record alone, so that it is the same whoever asks and however often a study was resumed. Knows
no process and no screen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpo.journal import History
from hpo.operation import Budget, Launch
from hpo.wording import duration, number


@dataclass(frozen=True, slots=True)
class Rates:
    """What an hour of a slot is.

    Attributes:
        gpus_per_slot: GPUs that a trial holds, a share where several share one; 1 on a machine without GPUs, whose
            slots are counted instead.
        price_per_gpu_hour: None where nobody said.
        unit: "GPU-hours" or "slot-hours".
    """

    gpus_per_slot: float = 1.0
    price_per_gpu_hour: float | None = None
    unit: str = "slot-hours"

    @classmethod
    def of(cls, launch: Launch, budget: Budget, gpus: int, slots: int) -> Rates:
        """Of a sweep on a machine with so many GPUs, whose trials run in so many slots."""
        share = min(1.0, gpus / slots) if launch.slots != "auto" else 1 / launch.trials_per_gpu
        if not gpus:
            return cls(1.0, budget.price_per_gpu_hour)
        return cls(share, budget.price_per_gpu_hour, "GPU-hours")

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Rates:
        """From a study's record; of an older study, the defaults."""
        return cls(**written)


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent: wall seconds, GPU-hours (or slot-hours), and money where there is a price."""

    seconds: float
    gpu_hours: float
    cost: float | None

    @classmethod
    def of(cls, seconds: float, slot_seconds: float, rates: Rates) -> Spent:
        """From wall seconds and the seconds that slots were busy, all together."""
        gpu_hours = slot_seconds / 3600 * rates.gpus_per_slot
        price = rates.price_per_gpu_hour
        return cls(seconds, gpu_hours, None if price is None else gpu_hours * price)


def spent(history: History, rates: Rates) -> Spent:
    """What a study has spent by its record; of runs that ended in good order to the second."""
    return Spent.of(history.seconds, sum(trial.seconds for trial in history.trials.values()), rates)


class Meter:
    """What a running study has spent, and whether that is all it may.

    Args:
        budget: of its sweep.
        rates: of its slots.
        history: what was spent before this run.
        clock: monotonic seconds.
    """

    def __init__(self, budget: Budget, rates: Rates, history: History, clock: Callable[[], float]) -> None:
        self._budget = budget
        self._rates = rates
        self._before = history.seconds
        self._slot_seconds = sum(trial.seconds for trial in history.trials.values())
        self._clock = clock
        self._began = clock()
        self._busy: dict[int, float] = {}

    def started(self, slot: int) -> None:
        self._busy[slot] = self._clock()

    def stopped(self, slot: int) -> None:
        self._slot_seconds += self._clock() - self._busy.pop(slot)

    def elsewhere(self, seconds: float) -> None:
        """So much was spent in the slots of other coordinators of the study."""
        self._slot_seconds += max(0.0, seconds)

    @property
    def spent(self) -> Spent:
        """Until now, with the trials that run."""
        now = self._clock()
        busy = sum(now - since for since in self._busy.values())
        return Spent.of(self._before + now - self._began, self._slot_seconds + busy, self._rates)

    def reached(self) -> str:
        """Which part of the budget is spent, in words; empty while none is."""
        now, budget = self.spent, self._budget
        if budget.seconds is not None and now.seconds >= budget.seconds:
            return f"its budget of {duration(budget.seconds)} is spent"
        if budget.gpu_hours is not None and now.gpu_hours >= budget.gpu_hours:
            return f"its budget of {number(budget.gpu_hours)} {self._rates.unit} is spent"
        if budget.cost is not None and now.cost is not None and now.cost >= budget.cost:
            return f"its budget of {number(budget.cost)} at {number(self._rates.price_per_gpu_hour)} an hour is spent"
        return ""
