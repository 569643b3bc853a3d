"""The search: keep every slot busy, write each event to the journal before anyone hears of it, go on until done.

A generator of events: whoever iterates it shows them, or does not. Knows a study, a launcher and a journal by
what they do; nothing of Optuna, processes, screens or trackers.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from hpo.errors import HpoError
from hpo.folder import StudyFolder, size
from hpo.journal import History, Journal, Lost
from hpo.launch import Begun, Finished, Job, Launcher, Report
from hpo.operation import OnFailure
from hpo.recovery import Alike, RepeatedFailure, Retries, Slots
from hpo.spending import Meter
from hpo.trials import (
    Assignment,
    Elsewhere,
    Ended,
    Ending,
    Event,
    Interrupted,
    Measured,
    Outcome,
    Paused,
    Progressed,
    Retired,
    Started,
    Verdict,
    rung_tokens,
)  # fmt: skip
from hpo.watching import Watch
from hpo.wording import duration

__all__ = ["DiskFull", "RepeatedFailure", "Search", "Trials"]

_POLL_SECONDS = 1.0


class Trials(Protocol):
    """Where trials come from and what they are told to: a study, or a list of them (`hpo.promote`)."""

    @property
    def size(self) -> float:
        """Trials there are at most; infinity where there is always another."""
        ...

    def ask(self) -> Assignment: ...

    def revive(self, *, last: bool) -> int | None:
        """A trial that was set aside and is to go on now; with `last`, no further trial will be begun."""
        ...

    def pause(self, number: int) -> None:
        """A trial that `report` paused is set aside now."""
        ...

    def least(self) -> int | None:
        """Of the trials set aside, the one that is least likely to go on."""
        ...

    def report(
        self, assignment: Assignment, measurement: Measured, *, length: int | None, warmup: int, seconds: float | None
    ) -> Verdict | None:
        """How the trial is to end at this measurement, or None where it goes on.

        `length` is the progress at which it is complete, where that is known, and `warmup` that up to which its
        learning rate warms up. `seconds` is how long it has trained; None where it measures again what it had measured.
        """
        ...

    def value(self, number: int) -> float | None: ...

    def tell(self, number: int, outcome: Outcome) -> None: ...


class DiskFull(HpoError):
    """A trial could not write its checkpoint; others will not be able to either."""


@dataclass(slots=True)
class _Running:
    """A trial in a slot. `verdict` is set once it was told to stop; None then means: set aside, to be resumed."""

    assignment: Assignment
    slot: int
    earlier_seconds: float
    seen: int
    started: float
    told: bool = False
    verdict: Verdict | None = None
    lost: bool = False  # another coordinator has taken it over: what it does here no longer counts


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A trial to begin again, not before `due`."""

    assignment: Assignment
    due: float = 0.0


@dataclass
class Search:
    """One run of a study, from wherever its journal stands.

    Attributes:
        trials: how many trials are to have ended when this is over.
        leave: asked between events; once true, nothing is started and running trials are set aside at
            their next measurement.
        policy: what happens when trials do not end by themselves.
        divides: whether the objective can do its forward passes in parts.
        meter: told when slots are busy.
        clock: monotonic seconds.
        checkpoint_bytes: what the folders of trials set aside by the stopping rule may take on disk; None: no bound.
    """

    study: Trials
    launcher: Launcher
    journal: Journal
    folder: StudyFolder
    history: History
    trials: int
    leave: Callable[[], bool]
    policy: OnFailure = field(default_factory=OnFailure)
    divides: bool = False
    meter: Meter | None = None
    clock: Callable[[], float] = time.monotonic
    checkpoint_bytes: int | None = None
    _running: dict[int, _Running] = field(default_factory=dict)
    _waiting: list[_Waiting] = field(default_factory=list)
    _retired: set[int] = field(default_factory=set)
    _seconds: dict[int, float] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)
    _elsewhere: set[int] = field(default_factory=set)
    _told: list[Elsewhere] = field(default_factory=list)
    _paused: dict[int, Assignment] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._retries = Retries.of(self.policy, self.history, divides=self.divides)
        self._slots = Slots(self.policy.slot_failures)
        self._alike = Alike(self.policy.same_error)
        unfinished = {trial.number for trial in self.history.unfinished}
        self._elsewhere = {number for number in unfinished if not self.journal.holds(number)}
        here = sorted(unfinished - self._elsewhere)
        self._paused = {
            number: self.history.assignment(number) for number in here if self.history.trials[number].paused
        }
        self._sizes = {number: size(self.folder.trial(number)) for number in self._paused}
        self._waiting = [_Waiting(self.history.assignment(number)) for number in here if number not in self._paused]
        self._seconds = {number: trial.seconds for number, trial in self.history.trials.items()}
        self._seen = {number: trial.progress for number, trial in self.history.trials.items()}
        self._ended = len(self.history.ended)
        self._watch = Watch(self.policy.hung_after, self.clock)

    def events(self) -> Iterator[Event]:
        """Run until enough trials have ended or `leave` says so; each event is on disk when it is yielded.

        Raises:
            RepeatedFailure: the last trials all failed with the same message.
            DiskFull: a trial could not write; it is set aside.
        """
        while True:
            leaving = self.leave()
            self._listen()
            if not leaving:
                yield from self._fill()
            yield from self._retell()
            # Trials elsewhere are waited for: their coordinators may die.
            if not self._running and (leaving or not (self._waiting or self._elsewhere)):
                if not leaving:
                    yield from self._give_up(self._paused)
                return
            for happened in self._happenings():
                match happened:
                    case Begun(number, length):
                        self._begun(number, length)
                    case Report():
                        if (progressed := self._measured(happened)) is not None:
                            yield progressed
                    case Finished():
                        yield from self._finished(happened)
            self._end_hung()

    def _fill(self) -> Iterator[Event]:
        """Give each free slot a trial: those set aside first, then new ones."""
        for slot in self.launcher.free:
            if slot in self._retired:
                continue
            if not (self._due() or self._lacking or self._free() or self._paused):
                return
            started = self.journal.decide(partial(self._choose, slot))
            if started is None:
                return
            number = started.assignment.number
            self._waiting = [waiting for waiting in self._waiting if waiting.assignment.number != number]
            self._paused.pop(number, None)
            self._elsewhere.discard(number)
            self._listen()
            yield from self._retell()
            self._start(started)
            yield started

    def _choose(self, slot: int) -> Started | None:
        self._listen()  # to what others did until just now
        if (again := self._due() or self._free()) is not None:
            return Started(again, slot, resumed=True)
        if self._paused and (number := self.study.revive(last=not self._lacking)) is not None:
            return Started(self._paused[number], slot, resumed=True)
        return Started(self.study.ask(), slot) if self._lacking else None

    def _give_up(self, numbers: Iterable[int]) -> Iterator[Event]:
        """End trials that were set aside and will not be taken up again."""
        for number in sorted(numbers):
            del self._paused[number]
            self._sizes.pop(number, None)
            outcome = Outcome(Ending.STOPPED, "was set aside by the stopping rule and not taken up again")
            yield from self._end(number, outcome, self._seconds[number])

    def _within_bounds(self) -> Iterator[Event]:
        """End those trials set aside that are least likely to go on, while their checkpoints take too much disk."""
        if self.checkpoint_bytes is None:
            return
        while sum(self._sizes[number] for number in self._paused) > self.checkpoint_bytes:
            number = self.study.least()
            if number is None or number not in self._paused:
                return
            yield from self._give_up([number])

    def _due(self) -> Assignment | None:
        return next((waiting.assignment for waiting in self._waiting if waiting.due <= self.clock()), None)

    def _free(self) -> Assignment | None:
        return next((trial for trial in self.journal.free() if trial.number not in self._running), None)

    @property
    def _lacking(self) -> bool:
        """Whether there is to be another trial. Those recorded count, so that none is ever run in excess."""
        recorded = self._ended + len(self._running.keys() | self._elsewhere) + len(self._waiting) + len(self._paused)
        return recorded < min(self.trials, self.study.size)

    def _listen(self) -> None:
        """Take note of what other coordinators did."""
        heard = self.journal.heard()
        self._told += heard
        for event in (elsewhere.event for elsewhere in heard):
            match event:
                case Started(Assignment(number=number)):
                    self._elsewhere.add(number)
                    self._waiting = [waiting for waiting in self._waiting if waiting.assignment.number != number]
                    if number in self._running:
                        self._running[number].lost = True
                case Progressed(number, measurement, seconds):
                    self._seen[number] = measurement.progress
                    self._spent_elsewhere(number, seconds)
                case Interrupted(number, seconds):
                    self._spent_elsewhere(number, seconds)
                case Ended(number, _, seconds):
                    self._spent_elsewhere(number, seconds)
                    self._elsewhere.discard(number)
                    self._ended += 1

    def _spent_elsewhere(self, number: int, seconds: float) -> None:
        if self.meter is not None:
            self.meter.elsewhere(seconds - self._seconds.get(number, 0.0))
        self._seconds[number] = seconds

    def _retell(self) -> Iterator[Event]:
        told, self._told = self._told, []
        yield from told

    def _happenings(self) -> Iterator[Begun | Report | Finished]:
        pause = min([_POLL_SECONDS, *(max(0.0, waiting.due - self.clock()) for waiting in self._waiting)])
        if not self._running:
            time.sleep(pause)  # a launcher without a job may have nothing to wait for
            return
        yield from self.launcher.wait(pause if self._idle and not self.leave() else _POLL_SECONDS)

    @property
    def _idle(self) -> bool:
        """Whether a slot waits for a trial to be due."""
        return any(slot not in self._retired for slot in self.launcher.free)

    def _start(self, started: Started) -> None:
        assignment, slot, number = started.assignment, started.slot, started.assignment.number
        self._running[number] = _Running(
            assignment, slot, self._seconds.get(number, 0.0), self._seen.get(number, 0), self.clock()
        )
        self._watch.started(number, self._retries.hung.get(number, 0))
        if self.meter is not None:
            self.meter.started(slot)
        directory, log = self.folder.trial(number), self.folder.trial_log(number)
        self.launcher.start(
            Job(number, assignment.settings, assignment.seed, assignment.rungs, directory, log, assignment.divide), slot
        )

    def _begun(self, number: int, length: int | None) -> None:
        rungs = [] if length is None else rung_tokens(self._running[number].assignment.rungs, length)
        self._watch.begun(number, rungs, length)

    def _measured(self, report: Report) -> Progressed | None:
        """Record a measurement, decide, answer. A resumed trial may measure again what the record has."""
        running = self._running[report.number]
        if not running.lost:
            try:
                return self._judged(report, running)
            except Lost:
                running.lost = True
        self.launcher.answer(report.number, go_on=False)
        return None

    def _judged(self, report: Report, running: _Running) -> Progressed | None:
        event: Progressed | None = None
        now = self.clock()
        self._watch.measured(report.number, max(0, report.measurement.progress - running.seen))
        if report.measurement.progress > running.seen:
            self._retries.lost.pop(report.number, None)  # it came further
            running.seen = self._seen[report.number] = report.measurement.progress
            # As the journal keeps it: who reads it later is to choose as we do now.
            seconds = self._seconds[report.number] = round(running.earlier_seconds + report.seconds, 4)
            event = Progressed(report.number, report.measurement, seconds, report.length, report.warmup)
            self.journal.append(event)
            self._watch.held(self.clock() - now)  # a shared journal may have to be waited for, and the trials wait too
        timed = None if event is None else event.seconds
        verdict = self.study.report(
            running.assignment, report.measurement, length=report.length, warmup=report.warmup, seconds=timed
        )
        if verdict is not None or (self.leave() and not report.final):
            running.told, running.verdict = True, verdict
        self.launcher.answer(report.number, go_on=not running.told)
        return event

    def _end_hung(self) -> None:
        """End trials that have measured nothing for far longer than any has needed."""
        for number, silent in list(self._watch.overdue()):
            log = self.folder.trial_log(number)
            reason = f"no measurement for {duration(silent)}; where it hung is at the end of {log}"
            self.launcher.end(number, Outcome(Ending.HUNG, reason))
            self._watch.measured(number, 0)  # it is ended once

    def _finished(self, finished: Finished) -> Iterator[Event]:
        running = self._running.pop(finished.number)
        self._watch.ended(finished.number)
        if self.meter is not None:
            self.meter.stopped(running.slot)
        number, here = finished.number, finished.seconds
        if finished.outcome.ending in (Ending.KILLED, Ending.HUNG):
            here = max(here, self.clock() - running.started)  # it could not say how long it took
        seconds = running.earlier_seconds + here
        self._seconds[number] = seconds
        if not running.lost:
            try:
                yield from self._concluded(running, finished, seconds)
                return
            except Lost:
                pass
        yield Interrupted(number, seconds)  # of what is seen here alone: it goes on elsewhere

    def _concluded(self, running: _Running, finished: Finished, seconds: float) -> Iterator[Event]:
        number = finished.number
        verdict, outcome = running.verdict, finished.outcome
        if running.told and not isinstance(verdict, Outcome) and outcome.ending is Ending.COMPLETE:
            yield from self._put_down(running, verdict, seconds)
            return
        if isinstance(verdict, Outcome):
            outcome = verdict
        paused = verdict.reason if isinstance(verdict, Paused) else ""  # it died while it was being set aside
        if finished.disk_full and not isinstance(verdict, Outcome):
            yield self._set_aside(Interrupted(number, seconds, outcome, running.assignment.divide, paused))
            raise DiskFull(
                f"trial {number} could not write: {outcome.reason} (its folder: {self.folder.trial(number)}). Trials "
                "were stopped; once there is room, resume from the last checkpoints."
            )
        divide = running.assignment.divide
        retry = self._retries.after(number, outcome, divide, divisible=finished.divisible)
        if retry is not None:
            event = self._set_aside(Interrupted(number, seconds, outcome, retry.divide, paused))
            again = dataclasses.replace(running.assignment, divide=retry.divide)
            if paused:
                yield from self._pause(again, event)
            else:
                yield event
                self._waiting.append(_Waiting(again, self.clock() + retry.wait_seconds))
        else:
            outcome = yield from self._end(number, outcome, seconds)
        yield from self._judge_slot(running.slot, outcome, ended=retry is None)

    def _put_down(self, running: _Running, verdict: Paused | None, seconds: float) -> Iterator[Event]:
        """Set a trial aside in good order: for whoever resumes the study, or until the stopping rule takes it up."""
        assignment, number = running.assignment, running.assignment.number
        if verdict is None:
            yield self._set_aside(Interrupted(number, seconds, None, assignment.divide))
            return
        event = self._set_aside(Interrupted(number, seconds, None, assignment.divide, verdict.reason))
        yield from self._pause(assignment, event)

    def _pause(self, assignment: Assignment, event: Interrupted) -> Iterator[Event]:
        """A trial waits from now on until the stopping rule takes it up."""
        number = assignment.number
        self._paused[number] = assignment
        self._sizes[number] = 0 if self.checkpoint_bytes is None else size(self.folder.trial(number))
        self.study.pause(number)
        yield event
        yield from self._within_bounds()

    def _set_aside(self, event: Interrupted) -> Interrupted:
        self.journal.append(event)
        return event

    def _end(self, number: int, outcome: Outcome, seconds: float) -> Generator[Event, None, Outcome]:
        value = self.study.value(number)
        if outcome.ending is Ending.COMPLETE and value is None:
            outcome = Outcome(Ending.FAILED, "the trial function ended without yielding a measurement")
        event = Ended(number, outcome, seconds, value if outcome.ending.has_value else None)
        self.journal.append(event)
        self.study.tell(number, outcome)
        self._ended += 1
        yield event
        return outcome

    def _judge_slot(self, slot: int, outcome: Outcome, *, ended: bool) -> Iterator[Event]:
        """Take a slot out of service that fails while others do not."""
        in_service = [other for other in range(self.launcher.slots) if other not in self._retired]
        elsewhere = any(running.slot != slot for running in self._running.values())
        reason = self._slots.ended(slot, outcome)
        if ended:
            reason = self._alike.ended(slot, outcome, elsewhere=elsewhere and len(in_service) > 1) or reason
        if reason is not None and slot not in self._retired and len(in_service) > 1:
            self._retired.add(slot)
            event = Retired(slot, reason)
            self.journal.append(event)
            yield event
