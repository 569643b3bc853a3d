"""The vocabulary of a search: what is assigned, what is measured, how a trial ends.

Frozen values only. This module knows nothing of files, processes, Optuna or trackers; every other room
speaks in these words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Protocol, runtime_checkable

Value = None | bool | int | float | str
"""What a searched setting can be: a YAML scalar."""

Rung = int | Fraction
"""A progress at which every trial measures: tokens (int), or a share of the trial's own length (Fraction)."""


@runtime_checkable
class Measured(Protocol):
    """What a trial function yields; any object with these two attributes will do."""

    @property
    def progress(self) -> int: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True)
class Measurement:
    """One look at a trial while it trains.

    Attributes:
        progress: tokens (or examples) seen so far; strictly increasing within a trial. Never optimizer
            steps: batch sizes differ between trials, tokens compare.
        metrics: finite or not, by name; `/` groups names ("validation/loss").
    """

    progress: int
    metrics: Mapping[str, float]


class Ending(StrEnum):
    """How a trial ended. `show`, the journal and the trackers use these very words."""

    COMPLETE = "complete"  #: trained to its full length
    STOPPED = "stopped"  #: ended early by the stopping rule (Optuna says pruned)
    DIVERGED = "diverged"  #: the metric was NaN or infinite
    OUT_OF_MEMORY = "out of memory"
    KILLED = "killed"  #: its process was ended by a signal, or ended without a word
    HUNG = "hung"  #: it measured nothing for far too long, and was ended
    FAILED = "failed"  #: the trial function raised

    @property
    def is_failure(self) -> bool:
        """Whether the trial was neither trained to where it was to be nor found to be bad."""
        return self in (Ending.OUT_OF_MEMORY, Ending.KILLED, Ending.HUNG, Ending.FAILED)

    @property
    def has_value(self) -> bool:
        """Whether the trial's last metric may be compared with others' (at equal progress)."""
        return self in (Ending.COMPLETE, Ending.STOPPED)


class Direction(StrEnum):
    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is strictly better than `other`. NaN is never better."""
        return one < other if self is Direction.MINIMIZE else one > other


@dataclass(frozen=True, slots=True)
class Metric:
    """What a study optimizes.

    Attributes:
        name: a metric the objective measures.
        direction: minimize or maximize.
        at: which measurement is the trial's value: the `last` one, or the `best` of its curve. Use `best`
            only where the objective keeps the weights of its best measurement (early stopping).
    """

    name: str
    direction: Direction
    at: str = "last"

    def of_curve(self, measurements: Sequence[Measured]) -> float | None:
        """The trial's value from its measurements so far, or None where none holds a finite value."""
        values = [m.metrics[self.name] for m in measurements if self.name in m.metrics]
        if self.at == "last":
            values = values[-1:]
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return None
        return min(finite) if self.direction is Direction.MINIMIZE else max(finite)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the study hands to a slot.

    Attributes:
        number: the trial's number in its study, from 0; Optuna's number too.
        parameters: the sampled values, only of settings active in this trial, by dotted name.
        settings: the whole configuration of the objective by dotted name: fixed and sampled.
        seed: for weights, data order and dropout. The same for every trial of a study, so that trials
            are compared on the same initial weights and the same order of data.
        rungs: where the trial measures.
        protected: never stopped early (the baseline, and those drawn at random: `hpo.unbiased`).
        divide: parts that each forward pass is done in, so that it needs less memory; 1 at first.
        repeat: it is trial 0's configuration once more, with another seed (`search.seeds`): no rival of the others.
    """

    number: int
    parameters: Mapping[str, Value]
    settings: Mapping[str, object]
    seed: int
    rungs: tuple[Rung, ...]
    protected: bool = False
    divide: int = 1
    repeat: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended, and one line for people on why, where there is something to say."""

    ending: Ending
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Paused:
    """A rule's verdict: the trial is set aside with its checkpoint, and may be taken up again. Not an ending."""

    reason: str


Verdict = Outcome | Paused
"""What is decided of a trial that is not to go on."""


@dataclass(frozen=True, slots=True)
class Started:
    """A slot began a trial. `resumed` says it had begun before."""

    assignment: Assignment
    slot: int
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Progressed:
    """A trial measured.

    Attributes:
        seconds: time it has trained so far, over all its attempts.
        length: progress at which it will be complete, where its objective says so.
        warmup: progress up to which its learning rate warms up; 0 where its objective says nothing of it.
    """

    number: int
    measurement: Measurement
    seconds: float
    length: int | None = None
    warmup: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial ended, its slot is free."""

    number: int
    outcome: Outcome
    seconds: float
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A running trial was set aside to be resumed: its slot is free, the trial has not ended.

    Attributes:
        setback: what happened to it, where it was not set aside in good order.
        divide: of the attempt that follows.
        paused: why a stopping rule set it aside; empty where it was not a rule that did. It then waits until the rule
            takes it up again, rather than for the next free slot; with a setback, it died as it was being set aside.
    """

    number: int
    seconds: float
    setback: Outcome | None = None
    divide: int = 1
    paused: str = ""


@dataclass(frozen=True, slots=True)
class Retired:
    """A slot was taken out of service until the study is run again."""

    slot: int
    reason: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What another coordinator of a shared study did."""

    event: Started | Progressed | Ended | Interrupted


Event = Started | Progressed | Ended | Interrupted | Retired | Elsewhere


def rung_tokens(rungs: Sequence[Rung], length: int | None) -> list[int]:
    """The rungs of one trial in tokens, increasing and without repeats.

    Args:
        rungs: as the sweep gives them.
        length: tokens the whole trial sees; needed for rungs given as fractions.

    Raises:
        ValueError: a fraction was given and `length` is None.
    """
    tokens: set[int] = set()
    for rung in rungs:
        if isinstance(rung, Fraction):
            if length is None:
                raise ValueError("rungs are given as fractions, but the objective's length is unknown")
            # Exact arithmetic: 243 * Fraction(1, 3) is 81, where 243 * 0.333... may be 80.
            tokens.add(max(1, int(rung * length)))
        elif length is None or rung <= length:
            tokens.add(rung)
    return sorted(tokens)


def compared_at(rungs: Sequence[Rung], length: int | None, warmup: int) -> list[int]:
    """The rungs, in tokens, at which a trial is compared with others: those behind its warm-up, and its end.

    While the learning rate rises, how a trial does says how it rises, and not what it comes to.

    Args:
        rungs: as the sweep gives them.
        length: tokens the whole trial sees; needed for rungs given as fractions.
        warmup: progress up to which its learning rate warms up, from 0.

    Raises:
        ValueError: a fraction was given and `length` is None.
    """
    return [rung for rung in rung_tokens(rungs, length) if rung > warmup or rung == length]
