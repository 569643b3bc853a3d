"""Run trials in this very process, one after the other: for tests, for debuggers, for reading along.

`pdb` works, breakpoints hold, an exception's traceback is the trial's own. There is one slot.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.errors import HpoError
from hpo.launch import Finished, Happening, Job, Report
from hpo.launch.worker import Stopwatch, checked, failure, is_disk_full
from hpo.objective import Objective
from hpo.schema import Invalid
from hpo.trials import Ending, Measured, Outcome, rung_tokens


@dataclass(slots=True)
class _Current:
    job: Job
    watch: Stopwatch
    trial: Generator[Measured, None, None] | None = None
    length: int | None = None
    warmup: int = 0
    last: int | None = None
    go_on: bool = True


class Inline:
    """One slot: this process."""

    slots = 1

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._current: _Current | None = None

    @property
    def free(self) -> list[int]:
        return [] if self._current else [0]

    def start(self, job: Job, slot: int) -> None:
        job.directory.mkdir(parents=True, exist_ok=True)
        self._current = _Current(job, Stopwatch())

    def wait(self, timeout: float | None) -> Iterator[Happening]:
        current = self._current
        if current is None:
            return
        divisible = disk_full = False
        try:
            with current.watch:
                measured = self._advance(current)
            if measured is not None:
                measurement = checked(measured, current.last)
                current.last = measurement.progress
                seconds = current.watch.seconds
                yield Report(current.job.number, measurement, seconds, current.length, current.warmup)
                return
            outcome = Outcome(Ending.COMPLETE)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            outcome = failure(error)
            divisible = self._objective.divides and getattr(error, "divisible", True)
            disk_full = is_disk_full(error)
        self._current = None
        yield Finished(current.job.number, outcome, current.watch.seconds, divisible, disk_full)

    def _advance(self, current: _Current) -> Measured | None:
        """The trial's next measurement, or None where it has ended."""
        job = current.job
        if current.trial is None:
            config = self._objective.config(job.settings)
            current.length, current.warmup = self._objective.length(config), self._objective.warmup(config)
            rungs = rung_tokens(job.rungs, current.length)
            current.trial = self._objective.train(
                config, seed=job.seed, rungs=rungs, directory=job.directory, divide=job.divide
            )
        if current.go_on:
            return next(current.trial, None)
        current.trial.close()
        return None

    def answer(self, number: int, *, go_on: bool) -> None:
        assert self._current is not None
        self._current.go_on = go_on

    def end(self, number: int, outcome: Outcome) -> None:
        """Not here: whoever could end it waits for it."""

    def call(self, companion: str, settings: Mapping[str, object], log: Path, **arguments: Any) -> Any:
        try:
            return self._objective.call(companion, settings, **arguments)
        except (ValueError, Invalid) as error:
            raise HpoError(str(error)) from error
        except Exception as error:
            raise HpoError(f"{type(error).__name__}: {error}") from error

    def kill(self) -> None:
        if self._current is not None and self._current.trial is not None:
            with contextlib.suppress(Exception):
                self._current.trial.close()
        self._current = None

    def close(self) -> None:
        self.kill()
