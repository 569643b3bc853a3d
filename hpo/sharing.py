"""A study that several coordinators share: each one's journal is a copy of the ledger, line by line.

A line counts once it is in the ledger, and stands in the journal here afterwards; what is told to Optuna and to the
trackers comes from the journal, as everywhere. A trial belongs to the coordinator that started it last. It is free
for the others once that coordinator has left, has set it aside, or gives no sign of life; whoever takes it goes on
from its checkpoint where that can be reached. A coordinator that was taken for dead notices at its next line.

Knows the journal and the ledger; nothing of Optuna, processes or screens.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from hpo.errors import HpoError, UserError
from hpo.folder import StudyFolder, StudyRecord
from hpo.journal import History, Journal, JournalError, Lost, StudyState, decode, encode
from hpo.ledger import Coordinator, Heartbeat, Ledger, Post, Unreachable
from hpo.membership import copied, position
from hpo.trials import Assignment, Elsewhere, Ended, Ending, Event, Interrupted, Outcome, Progressed, Started
from hpo.wording import duration

T = TypeVar("T")

_PATIENCE_SECONDS = 600.0
_LATER = "Nothing is lost; when it is back"
_LONGEST_WAIT_SECONDS = 15.0
_LISTEN_SECONDS = 1.0
_BEATS = 5  # in the time after which a coordinator is taken for dead


class Listener(Protocol):
    """Who must know what happens elsewhere before it decides anything here: a study."""

    def hear(self, event: Event) -> None:
        """Take note of what another coordinator did."""
        ...

    def rewind(self, history: History) -> None:
        """Forget everything that is not in this history: what was asked for here did not count."""
        ...


class SharedJournal(Journal):
    """The journal of one coordinator among several.

    Args:
        folder: of the study here; the caller holds its lock, and its study.json says where the ledger is.
        listener: hears what the others do, in order, before anything is decided here.
        lost_after_seconds: without a sign of life, after which a coordinator is taken for dead.
        patience_seconds: how long to wait for a database that does not answer, where nobody wants to leave earlier.
    """

    def __init__(
        self,
        folder: StudyFolder,
        listener: Listener,
        lost_after_seconds: float,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        record = StudyRecord.read(folder)
        assert record.shared is not None
        super().__init__(folder.journal, time.time)
        self._folder, self._listener, self._study = folder, listener, record.id
        self._lost_after, self._patience = lost_after_seconds, patience_seconds
        self._leave: Callable[[], bool] = lambda: False
        self._note: Callable[[str], None] = lambda text: None
        self.history = History.read(folder.journal)
        self._at = position(folder)
        self._heard: list[Elsewhere] = []
        self._listened = self._looked = -1e9
        self._free: set[int] = set()
        self._deciding = False
        self._ledger = Ledger(record.shared["address"])
        place, root = record.shared["place"], str(folder.root.resolve())
        self._who = Coordinator(place, socket.gethostname(), root, os.getpid())

    @property
    def place(self) -> str:
        return self._who.place

    def __enter__(self) -> Self:
        self._alone()
        self._ledger.beat(self._study, self._who)
        every = self._lost_after / _BEATS
        self._heart = Heartbeat(self._ledger.address, self._study, self._who, every)
        return self

    def _alone(self) -> None:
        """A folder that was copied brings its place along, and two must not share one."""
        other = self._ledger.coordinators(self._study).get(self.place)
        if other is None or (other.host, other.root) == (self._who.host, self._who.root) or not self._lives(other):
            return
        raise UserError(
            f"{self._folder.root} is a copy of a study folder in use by {other}. "
            f"Remove this copy and join the study: hpo join {self._folder.name} --storage {self._ledger.address}"
        )

    def __exit__(self, *exception: object) -> None:
        self._heart.stop()
        try:
            self._ledger.leave(self._study, self.place)
        except HpoError:
            pass  # the others find out by its silence
        finally:
            self._ledger.close()
            super().__exit__(*exception)

    # -- what Search asks of a journal ----------------------------------------------------------------------

    def attend(self, leave: Callable[[], bool], note: Callable[[str], None]) -> None:
        self._leave, self._note = leave, note

    def append(self, event: Event | StudyState) -> None:
        """Write one event.

        Raises:
            Lost: another coordinator runs this trial now.
            JournalError: the database did not answer for too long, or the user did not want to wait.
        """
        if not isinstance(event, Started | Progressed | Ended | Interrupted):
            super().append(event)  # of this coordinator alone
            return
        number = event.assignment.number if isinstance(event, Started) else event.number

        def write() -> None:
            posts: list[Post] = []
            with self._ledger.held(self._study):
                if self._receive():
                    return  # it had come through before the connection was lost
                if self.history.trials[number].place != self.place:
                    raise Lost(number)
                posts = self._post([event])
            self._keep(posts)

        self._insist(write)

    def decide(self, choose: Callable[[], Started | None]) -> Started | None:
        """Start what `choose` says, while nobody else can decide anything."""
        pending: Started | None = None

        def attempt() -> Started | None:
            nonlocal pending
            posts: list[Post] = []
            before: Coordinator | None = None
            if pending is not None:
                self._listener.rewind(self.history)
            with self._ledger.held(self._study):
                if self._receive() and pending is not None:
                    return pending  # it had come through before the connection was lost
                pending = self._chosen(choose)
                if pending is None:
                    return None
                setback, before = self._setback(pending)
                posts = self._post([pending] if setback is None else [setback, pending])
            self._keep(posts)
            if setback is not None:
                self._heard.append(Elsewhere(setback))
            if before is not None:
                self._bring(pending.assignment.number, before)
            return pending

        return self._insist(attempt)

    def _chosen(self, choose: Callable[[], Started | None]) -> Started | None:
        """What is chosen from what is free now, not a second ago."""
        self._look()
        self._deciding = True
        try:
            return choose()
        finally:
            self._deciding = False

    def heard(self) -> list[Elsewhere]:
        """What the others did since this was last asked."""
        if not self._deciding and time.monotonic() - self._listened >= _LISTEN_SECONDS:
            self._insist(self._receive)
        heard, self._heard = self._heard, []
        return heard

    def free(self) -> list[Assignment]:
        """Trials of others that may be taken over: their coordinator is dead or has left, or set them aside."""
        elsewhere = [trial for trial in self.history.unfinished if trial.place != self.place]
        if not elsewhere:
            return []
        if not self._deciding and time.monotonic() - self._looked >= _LISTEN_SECONDS:
            self._insist(self._look)
        return [self.history.assignment(trial.number) for trial in elsewhere if trial.number in self._free]

    def holds(self, number: int) -> bool:
        """Whether a trial is still to be run here."""
        return self.history.trials[number].place == self.place

    # -- the ledger -----------------------------------------------------------------------------------------

    def _lives(self, who: Coordinator) -> bool:
        return who.silent_seconds is not None and who.silent_seconds < self._lost_after

    def _look(self) -> None:
        """Which trials of others are free at this moment."""
        who = self._ledger.coordinators(self._study)
        alive = {place for place, coordinator in who.items() if self._lives(coordinator)}
        self._free = {
            trial.number
            for trial in self.history.unfinished
            if trial.place not in alive or (trial.interrupted and not trial.set_back)
        }
        self._looked = time.monotonic()

    def _receive(self) -> bool:
        """Copy what the ledger has gained, and pass on what others did; whether a line of ours was among it."""
        ours = False
        for post in self._ledger.read(self._study, self._at):
            self._keep([post])
            event = decode(json.loads(post.line), self.history)
            if post.place == self.place:
                ours = True
                if isinstance(event, Started) and not event.resumed:
                    self._listener.hear(event)  # it was rewound: this start was believed not to have come through
                continue
            if isinstance(event, Interrupted) and self.holds(event.number):  # on behalf of this coordinator
                self._note(
                    f"trial {event.number} was taken over: this coordinator had given no sign of life. "
                    "What it still does here does not count."
                )
            self._listener.hear(event)
            self._heard.append(Elsewhere(event))
        self._listened = time.monotonic()
        return ours

    def _post(self, events: list[Started | Progressed | Ended | Interrupted] | list[Any]) -> list[Post]:
        texts = [encode(event, self._clock()) for event in events]
        posts = [Post(self._at + 1 + index, self.place, text) for index, text in enumerate(texts)]
        self._ledger.append(self._study, posts)
        return posts

    def _keep(self, posts: list[Post]) -> None:
        for post in posts:
            line = copied(post)
            self.copy(line)
            self.history.add(line)
            self._at = post.number

    def _insist(self, work: Callable[[], T]) -> T:
        """Until it is done: a database may be down for a while, and trials wait at their next measurement."""
        wait, since = 0.5, time.monotonic()
        while True:
            try:
                done = work()
            except Unreachable as error:
                if self._leave() or time.monotonic() - since > self._patience:
                    raise JournalError(f"{error}. {_LATER}: hpo resume {self._folder.name}") from None
                self._note(f"{error}. Trying again; nothing is lost.")
                self._pause(wait)
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
                continue
            if wait > 0.5:
                self._note("the database answers again.")
            return done

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._leave():
            time.sleep(0.1)

    # -- taking over ----------------------------------------------------------------------------------------

    def _setback(self, started: Started) -> tuple[Interrupted | None, Coordinator | None]:
        """What is to be said of a trial's last attempt, where its coordinator could not; and who that was."""
        number = started.assignment.number
        trial = self.history.trials.get(number)
        if trial is None or trial.place == self.place:
            return None, None
        before = self._ledger.coordinators(self._study).get(trial.place)
        if trial.interrupted or trial.set_back:
            return None, before
        silent = "left without a word" if before is None or before.silent_seconds is None else ""
        silent = silent or f"has given no sign of life for {duration(before.silent_seconds or 0.0) if before else '?'}"
        reason = f"{before or 'its coordinator'} {silent}; taken over by {self._who.host} ({self._who.root})"
        return Interrupted(number, trial.seconds, Outcome(Ending.KILLED, reason), trial.divide), before

    def _bring(self, number: int, before: Coordinator) -> None:
        """Fetch a trial's checkpoint from where it ran, if that is on this machine or on a disk that both see.

        A copy, so that a coordinator that was only frozen writes to its own.
        """
        there = StudyFolder(Path(before.root))
        try:
            shared = StudyRecord.read(there).shared
        except UserError:
            shared = None
        here, source = self._folder.trial(number), there.trial(number)
        if shared is None or shared.get("place") != before.place or not source.is_dir():
            self._note(f"trial {number}: no checkpoint within reach; it begins from its start.")
            return
        partial = here.with_name(f".{here.name}.partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source, partial)
            shutil.rmtree(here, ignore_errors=True)
            partial.rename(here)
        except OSError as error:
            self._note(
                f"trial {number}: its checkpoint in {source} cannot be copied: {error}. It begins from its start."
            )
