"""The search: keep every slot busy, write each event to the journal before anyone hears of it, go on until done.

A generator of events: whoever iterates it shows them, or does not. Knows a study, a launcher and a journal by
what they do; nothing of Optuna, processes, screens or trackers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from hpo.errors import HpoError
from hpo.folder import StudyFolder
from hpo.journal import History, Journal
from hpo.launch import Finished, Job, Launcher, Report
from hpo.trials import Assignment, Ended, Ending, Event, Interrupted, Measured, Outcome, Progressed, Started

_POLL_SECONDS = 1.0
_SAME_FAILURES = 3


class Trials(Protocol):
    """Where trials come from and what they are told to: a study, or a list of them (`hpo.promote`)."""

    @property
    def size(self) -> float:
        """Trials there are at most; infinity where there is always another."""
        ...

    def ask(self) -> Assignment: ...

    def report(self, assignment: Assignment, measurement: Measured, *, final: bool) -> Outcome | None:
        """How the trial is to end at this measurement, or None where it goes on."""
        ...

    def value(self, number: int) -> float | None: ...

    def tell(self, number: int, outcome: Outcome) -> None: ...


class RepeatedFailure(HpoError):
    """Several trials in a row failed alike; more of them would only burn the budget."""


@dataclass(slots=True)
class _Running:
    """A trial in a slot. `verdict` is set once it was told to stop; None then means: set aside, to be resumed."""

    assignment: Assignment
    earlier_seconds: float
    seen: int
    told: bool = False
    verdict: Outcome | None = None


@dataclass
class Search:
    """One run of a study, from wherever its journal stands.

    Attributes:
        trials: how many trials are to have ended when this is over.
        leave: asked between events; once true, nothing is started and running trials are set aside at
            their next measurement.
    """

    study: Trials
    launcher: Launcher
    journal: Journal
    folder: StudyFolder
    history: History
    trials: int
    leave: Callable[[], bool]
    _running: dict[int, _Running] = field(default_factory=dict)

    def events(self) -> Iterator[Event]:
        """Run until enough trials have ended or `leave` says so; each event is on disk when it is yielded.

        Raises:
            RepeatedFailure: the last trials all failed with the same message.
        """
        waiting = [self.history.assignment(trial.number) for trial in self.history.unfinished]
        ended = len(self.history.ended)
        failures: list[str] = []
        while True:
            leaving = self.leave()
            for slot in [] if leaving else self.launcher.free:
                resumed = bool(waiting)
                # Those already recorded count towards the number asked for, so none is ever run in excess.
                if not resumed and ended + len(self._running) >= min(self.trials, self.study.size):
                    break
                assignment = waiting.pop(0) if resumed else self.study.ask()
                yield self._start(assignment, slot, resumed)
            if not self._running:
                return
            for happened in self.launcher.wait(_POLL_SECONDS):
                if isinstance(happened, Report):
                    if (progressed := self._measured(happened)) is not None:
                        yield progressed
                    continue
                event = self._finished(happened)
                yield event
                if isinstance(event, Ended):
                    ended += 1
                    failures = self._failures(failures, event.outcome)

    def _start(self, assignment: Assignment, slot: int, resumed: bool) -> Started:
        started = Started(assignment, slot, resumed)
        self.journal.append(started)
        earlier = self.history.trials.get(assignment.number)
        self._running[assignment.number] = _Running(
            assignment,
            earlier_seconds=earlier.seconds if earlier else 0.0,
            seen=earlier.progress if earlier else 0,
        )
        number = assignment.number
        directory, log = self.folder.trial(number), self.folder.trial_log(number)
        self.launcher.start(Job(number, assignment.settings, assignment.seed, assignment.rungs, directory, log), slot)
        return started

    def _measured(self, report: Report) -> Progressed | None:
        """Record a measurement, decide, answer. A resumed trial may measure again what the record has."""
        running = self._running[report.number]
        event: Progressed | None = None
        if report.measurement.progress > running.seen:
            running.seen = report.measurement.progress
            seconds = running.earlier_seconds + report.seconds
            event = Progressed(report.number, report.measurement, seconds, report.length)
            self.journal.append(event)
        verdict = self.study.report(running.assignment, report.measurement, final=report.final)
        if verdict is not None or self.leave():
            running.told, running.verdict = True, verdict
        self.launcher.answer(report.number, go_on=not running.told)
        return event

    def _finished(self, finished: Finished) -> Ended | Interrupted:
        running = self._running.pop(finished.number)
        number, seconds = finished.number, running.earlier_seconds + finished.seconds
        outcome = running.verdict or finished.outcome
        event: Ended | Interrupted
        if running.told and running.verdict is None and outcome.ending is Ending.COMPLETE:
            event = Interrupted(number, seconds)
            self.journal.append(event)
            return event
        value = self.study.value(number)
        if outcome.ending is Ending.COMPLETE and value is None:
            outcome = Outcome(Ending.FAILED, "the trial function ended without yielding a measurement")
        event = Ended(number, outcome, seconds, value if outcome.ending.has_value else None)
        self.journal.append(event)
        self.study.tell(number, outcome)
        return event

    def _failures(self, failures: list[str], outcome: Outcome) -> list[str]:
        """The reasons of the latest trials, as long as all failed alike."""
        if outcome.ending is not Ending.FAILED:
            return []
        alike = [reason for reason in failures if reason == outcome.reason] + [outcome.reason]
        if len(alike) >= _SAME_FAILURES:
            raise RepeatedFailure(f"{len(alike)} trials in a row failed alike: {outcome.reason}")
        return alike
