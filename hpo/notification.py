"""Tell people of a study's turns: by a command of theirs, or by a message to a webhook.

Whatever happens to a message, the search goes on: each is delivered by a thread of its own, has ten seconds, and
what goes wrong is said once, in one line. A webhook's address is a secret: it is read from the environment, and
stands in no message, file or log. Knows neither processes of trials nor trackers.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from hpo.errors import Mistake, SweepError
from hpo.folder import StudyFolder, StudyRecord
from hpo.journal import History, StudyState
from hpo.operation import Notify
from hpo.report import gain
from hpo.summary import Summary
from hpo.sweep import Sweep
from hpo.trials import Assignment, Direction, Elsewhere, Ended, Ending, Event, Outcome, Started
from hpo.wording import number

_SECONDS = 10.0
_PARTING_SECONDS = 5.0
_BY_PEOPLE = ("Ctrl-C", "SIGTERM", "stopped at once")
_SPENT = ("its budget", "its time limit")

Message = Mapping[str, Any]
"""`event`, `study`, `text`, `value` and `trial` (None where there is none)."""


def address(sweep: Sweep) -> str | None:
    """The webhook's address, from the environment variable that the sweep names.

    Raises:
        SweepError: the variable is not set, or holds no address; what it holds is not shown.
    """
    variable = None if sweep.notify is None else sweep.notify.webhook
    if variable is None:
        return None
    given = os.environ.get(variable.removeprefix("$"), "").strip()
    try:
        sound = urlsplit(given).scheme in ("http", "https") and bool(urlsplit(given).hostname)
    except ValueError:
        sound = False
    if not sound:
        trouble = "holds no http(s) address" if given else "is not set"
        rule = f"notify.webhook: the environment variable {variable.removeprefix('$')} {trouble}. Export it, or remove"
        raise SweepError([Mistake(sweep.place("notify", "webhook"), f"{rule} the line.")])
    return given


def cautions(sweep: Sweep) -> list[str]:
    """What would stop a run here, though the sweep is in order; it may be run elsewhere."""
    try:
        address(sweep)
    except SweepError as error:
        return [mistake.text for mistake in error.mistakes]
    return []


class Notifier:
    """Delivers messages, one after another, in a thread of its own.

    Args:
        notify: of which events, and to whom; None: nobody is told of anything.
        study: its name.
        webhook: the address itself, from `address`.
        note: takes a line on what could not be delivered; called in the caller's thread only.
        seconds: that a command or the webhook may take for one message.
    """

    def __init__(
        self,
        notify: Notify | None,
        study: str,
        webhook: str | None,
        note: Callable[[str], None],
        seconds: float = _SECONDS,
    ) -> None:
        self._notify = notify
        self._study = study
        self._webhook = webhook
        self._note = note
        self._seconds = seconds
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._troubles: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._said: set[str] = set()
        self._thread: threading.Thread | None = None
        self._command: subprocess.Popen[bytes] | None = None

    def tell(self, event: str, text: str, *, value: float | None = None, trial: int | None = None) -> None:
        """Tell of an event, if the sweep asks for it. Returns at once, and never raises."""
        if self._notify is None or event not in self._notify.on:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._deliver, name="notifications", daemon=True)
            self._thread.start()
        self._messages.put({"event": event, "study": self._study, "text": text, "value": value, "trial": trial})
        self._say()

    def close(self, seconds: float = _PARTING_SECONDS) -> None:
        """Let what is left be delivered, no longer than this; then let go of it."""
        if self._thread is not None:
            self._messages.put(None)
            self._thread.join(seconds)
            if self._thread.is_alive():
                self._troubles.put(f"a notification was not delivered within {seconds:g} s, and given up")
                if self._command is not None:
                    _kill(self._command)
        self._say()

    def _say(self) -> None:
        while True:
            try:
                trouble = self._troubles.get_nowait()
            except queue.Empty:
                return
            if trouble not in self._said:
                self._said.add(trouble)
                self._note(trouble)

    def _deliver(self) -> None:
        while (message := self._messages.get()) is not None:
            if self._notify is not None and self._notify.command is not None:
                self._attempt("notify.command", self._run, self._notify.command, message)
            if self._webhook is not None:
                self._attempt("notify.webhook", self._post, self._webhook, message)

    def _attempt(self, channel: str, deliver: Callable[[str, Message], str], to: str, message: Message) -> None:
        try:
            trouble = deliver(to, message)
        except Exception as error:  # an error's text may have the address in it: only its kind is said
            trouble = type(error).__name__
        if trouble:
            self._troubles.put(f"{channel} failed: {trouble}")

    def _run(self, command: str, message: Message) -> str:
        environment = {
            **os.environ,
            "HPO_EVENT": message["event"],
            "HPO_STUDY": message["study"],
            "HPO_MESSAGE": message["text"],
            "HPO_VALUE": "" if message["value"] is None else repr(message["value"]),
            "HPO_TRIAL": "" if message["trial"] is None else str(message["trial"]),
        }
        quiet = subprocess.DEVNULL
        self._command = process = subprocess.Popen(
            command, shell=True, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        try:
            code = process.wait(self._seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            return f"not done after {self._seconds:g} s"
        finally:
            self._command = None
        return f"exit code {code}" if code else ""

    def _post(self, url: str, message: Message) -> str:
        body = json.dumps(message, allow_nan=False).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self._seconds):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                return f"it answered {error.code}"
        except urllib.error.URLError as error:
            reason = error.reason
            return (reason.strerror if isinstance(reason, OSError) else None) or f"{type(reason).__name__}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)


class News:
    """What of a search is worth telling: a new best beside the baseline, and how the study was left.

    Args:
        notifier: who tells it.
        folder: of the study.
        record: what it is.
        history: what ended in earlier runs, and which trials are the baseline once more: those are no news.
    """

    def __init__(self, notifier: Notifier, folder: StudyFolder, record: StudyRecord, history: History) -> None:
        self._notifier = notifier
        self._folder = folder
        self._record = record
        self._direction = Direction(record.metric["direction"])
        self._repeats = {trial.number for trial in history.trials.values() if trial.repeat}
        self._best: float | None = None
        for trial in history.ended:
            if trial.ending is Ending.COMPLETE and trial.value is not None:
                self._consider(trial.number, trial.value)

    def _consider(self, number: int, value: float) -> bool:
        """Whether this is the best so far."""
        if number in self._repeats:
            return False
        better = self._best is None or self._direction.better(value, self._best)
        self._best = value if better else self._best
        return better

    def hear(self, event: Event) -> None:
        """Take note of what happened, and tell of a new best; of one elsewhere, its own coordinator does."""
        match event:
            case Started(Assignment(number=number, repeat=True)) | Elsewhere(
                Started(Assignment(number=number, repeat=True))
            ):
                self._repeats.add(number)
            case Elsewhere(Ended(number, Outcome(Ending.COMPLETE), _, value)) if value is not None:
                self._consider(number, value)
            case Ended(number, Outcome(Ending.COMPLETE), _, value) if value is not None:
                self._ended(number, value)

    def _ended(self, trial: int, value: float) -> None:
        """Tell of a trial trained to its end if it is a new best. The baseline's is none."""
        before = self._best
        if not self._consider(trial, value) or trial == 0:
            return
        metric = self._record.metric["name"]
        text = f"study {self._folder.name}: trial {trial} is the best so far, {metric} {number(value)}"
        text += f" (before: {number(before)})" if before is not None else ""
        self._notifier.tell("best", text, value=value, trial=trial)

    def left(self, state: StudyState) -> None:
        """Tell how a run of the study ended, unless a person ended it; then wait a little for what is left."""
        with contextlib.suppress(Exception):  # a journal that a full disk has cut: the news are not worth a crash
            self._tell_left(state)
        self._notifier.close()

    def _tell_left(self, state: StudyState) -> None:
        if state.reason in _BY_PEOPLE:
            return
        spent = state.reason.startswith(_SPENT)
        event = "finished" if state.state == "finished" else "budget" if spent else "failed"
        summary = Summary.read(self._folder)
        ended = f"{len(summary.history.ended)} of {summary.record.search['trials']} trials ended"
        words = {"finished": "finished", "budget": f"stopped, {state.reason}", "failed": f"failed: {state.reason}"}
        text = f"study {self._folder.name} {words[event]}; {ended}. {gain(summary) or ''}".strip()
        best = summary.best
        self._notifier.tell(
            event, text, value=None if best is None else best.value, trial=None if best is None else best.number
        )
