"""One run of a study or a promotion, in full view: search, show, note how it was left.

Puts search, journal, screen and budget together for as long as the command runs. Knows no Optuna, no tracker.
"""

from __future__ import annotations

import contextlib
import signal
import time
import types
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console

from hpo.errors import HpoError
from hpo.folder import StudyFolder, StudyRecord
from hpo.journal import History, Journal, JournalError, StudyState, steady_clock
from hpo.keeping import Keeper
from hpo.launch import Launcher
from hpo.live import View, open_view
from hpo.notification import News, Notifier
from hpo.operation import Budget, Notify, OnFailure
from hpo.search import DiskFull, Search, Trials
from hpo.spending import Meter, Rates
from hpo.trials import Direction


class Interrupt:
    """Ctrl-C once: leave in good order. Twice: at once. SIGTERM counts as one."""

    def __init__(self) -> None:
        self.asked = ""

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        # Nothing is printed here: the signal may have come in the middle of a print.
        self.asked = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"


@dataclass(frozen=True)
class Terms:
    """How long a run may go on, and what happens meanwhile.

    Attributes:
        trials: how many are to have ended when it is over.
        seconds: how long this run may take; None: as long as it needs.
        keep: which working folders stay.
        policy: of failures.
        divides: whether the objective can do forward passes in parts.
        budget: of all runs of the study together.
        notify: who is told of what.
        webhook: the address for that, a secret.
        journal: one that other coordinators write too; None: the folder's own.
        checkpoint_bytes: what trials that the stopping rule set aside may take on disk; None: no bound.
    """

    trials: int
    seconds: float | None = None
    keep: Literal["best", "all"] = "all"
    policy: OnFailure = field(default_factory=OnFailure)
    divides: bool = False
    budget: Budget = field(default_factory=Budget)
    notify: Notify | None = None
    webhook: str | None = field(default=None, repr=False)
    journal: Journal | None = None
    checkpoint_bytes: int | None = None


class _Leaving:
    """Whether to leave, and why: asked by the search between events."""

    def __init__(self, interrupt: Interrupt, seconds: float | None, meter: Meter, view: View) -> None:
        self._interrupt = interrupt
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._meter = meter
        self._view = view
        self.reason = ""

    def __call__(self) -> bool:
        if not self.reason or (self._interrupt.asked and self.reason != self._interrupt.asked):
            late = self._deadline is not None and time.monotonic() >= self._deadline
            reason = self._interrupt.asked or self._meter.reached() or ("its time limit was reached" if late else "")
            if reason and reason != self.reason:
                self.reason = reason
                why = "" if self._interrupt.asked else f"{reason[0].upper()}{reason[1:]}. "
                again = " Ctrl-C again stops at once." if self._interrupt.asked else ""
                self._view.note(f"{why}Stopping: each trial is set aside at its next measurement.{again}")
        return bool(self.reason)


def drive(
    trials: Trials, terms: Terms, folder: StudyFolder, launcher: Launcher, record: StudyRecord, console: Console
) -> StudyState:
    """Search until enough trials have ended, in full view, and journal how it was left.

    Raises:
        HpoError: trials kept failing alike, the disk is full, or the launcher died.
        KeyboardInterrupt: the user asked to stop at once.
    """
    history = History.read(folder.journal)
    count = int(min(terms.trials, trials.size))
    keeper = Keeper(folder, Direction(record.metric["direction"]), terms.keep, history)
    meter = Meter(terms.budget, Rates.read(record.rates), history, time.monotonic)
    began = time.monotonic()
    notifier = Notifier(
        terms.notify, folder.name, terms.webhook, lambda text: console.print(text, style="yellow", markup=False)
    )
    news = News(notifier, folder, record, history)
    with terms.journal or Journal(folder.journal, steady_clock()) as journal:
        view: View = open_view(console, record, history, count, launcher.slots)
        state = StudyState("failed", "the coordinator raised an error")
        try:
            journal.append(StudyState("running"))
            with Interrupt() as interrupt:
                leaving = _Leaving(interrupt, terms.seconds, meter, view)
                journal.attend(leaving, view.note)
                search = Search(
                    trials, launcher, journal, folder, history, count, leaving, terms.policy, terms.divides, meter,
                    checkpoint_bytes=terms.checkpoint_bytes,
                )  # fmt: skip
                for event in search.events():
                    view.show(event)
                    keeper.hear(event)
                    news.hear(event)
                state = _left(folder, count, leaving.reason)
        except KeyboardInterrupt:
            state = StudyState("interrupted", "stopped at once")
            raise
        except (JournalError, DiskFull) as error:
            state = StudyState("interrupted", str(error))
            raise
        except HpoError as error:
            state = StudyState("failed", str(error))
            raise
        finally:
            launcher.kill()
            with contextlib.suppress(JournalError):  # a full disk; the lock says that nobody runs the study any more
                journal.append(StudyState(state.state, state.reason, time.monotonic() - began))
            view.close()
            news.left(state)
    return state


def _left(folder: StudyFolder, count: int, reason: str) -> StudyState:
    if len(History.read(folder.journal).ended) >= count:
        return StudyState("finished")
    return StudyState("interrupted", reason or "there was nothing left to try")
