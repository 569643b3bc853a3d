"""Where trials run. A launcher starts jobs in slots and passes on what they say; it decides nothing.

Every launcher keeps this contract (tests/hpo/test_launch.py holds each of them to it): a job's measurements
arrive in order, each waits for its answer, and exactly one `Finished` ends the job, however it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hpo.trials import Measurement, Outcome, Rung


@dataclass(frozen=True, slots=True)
class Job:
    """What a slot is given: a trial to run in a folder."""

    number: int
    settings: Mapping[str, object]
    seed: int
    rungs: tuple[Rung, ...]
    directory: Path
    log: Path
    divide: int = 1


@dataclass(frozen=True, slots=True)
class Begun:
    """A job has its configuration; `length` is the progress at which it will be complete, where that is known."""

    number: int
    length: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """A job measured and waits to hear whether it goes on.

    Attributes:
        seconds: time spent inside the trial function so far.
        length: progress at which the job will be complete, where its objective says so.
        warmup: progress up to which its learning rate warms up; 0 where its objective says nothing of it.
    """

    number: int
    measurement: Measurement
    seconds: float
    length: int | None = None
    warmup: int = 0

    @property
    def final(self) -> bool:
        """Whether the whole length is behind it; only what follows the last measurement is left."""
        return self.length is not None and self.measurement.progress >= self.length


@dataclass(frozen=True, slots=True)
class Finished:
    """A job's process has ended and its slot is free. A job that was told to stop finishes as complete.

    Attributes:
        divisible: of a job that ran out of memory: whether it may fit in smaller forward passes.
        disk_full: it could not write; what it needs is a disk, not another try.
    """

    number: int
    outcome: Outcome
    seconds: float
    divisible: bool = False
    disk_full: bool = False


Happening = Begun | Report | Finished


class Launcher(Protocol):
    """Runs jobs in a fixed number of slots."""

    @property
    def slots(self) -> int: ...

    @property
    def free(self) -> list[int]:
        """Slots without a job, lowest first."""
        ...

    def start(self, job: Job, slot: int) -> None:
        """Begin a job in a free slot; returns as soon as it runs."""
        ...

    def wait(self, timeout: float | None) -> Iterator[Happening]:
        """What has happened, waiting up to `timeout` seconds for the first."""
        ...

    def answer(self, number: int, *, go_on: bool) -> None:
        """Tell a job that has reported whether it goes on; a job that does not closes and finishes."""
        ...

    def end(self, number: int, outcome: Outcome) -> None:
        """End one job at once, however it hangs; what its process was doing goes to its log. It finishes so."""
        ...

    def call(self, companion: str, settings: Mapping[str, object], log: Path, **arguments: Any) -> Any:
        """Run one of the objective's companion functions to its end and give back what it returned.

        Raises:
            HpoError: it raised; the message is its own where it was meant for people.
        """
        ...

    def kill(self) -> None:
        """End every job at once."""
        ...

    def close(self) -> None:
        """Kill what still runs and give everything back."""
        ...
