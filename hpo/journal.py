"""The journal of a study: its append-only record, and what the record says.

Every assignment, measurement and ending is a line on disk here before anything else hears of it. Optuna's
store decides and trackers show; this record is the truth both are brought up to. Knows nothing of either.

"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from hpo.errors import HpoError, UserError
from hpo.trials import (
    Assignment,
    Elsewhere,
    Ended,
    Ending,
    Event,
    Interrupted,
    Measurement,
    Outcome,
    Progressed,
    Retired,
    Started,
    Value,
)


def _number(value: float) -> float | str:
    """JSON has no NaN; a journal that other tools read keeps to JSON."""
    return value if math.isfinite(value) else str(value)


def encode(event: Event | StudyState, at: float) -> str:
    """One event as a line. `at` is seconds since the epoch."""
    line: dict[str, Any]
    match event:
        case Started(assignment, slot, resumed):
            line = {"event": "started", "trial": assignment.number, "slot": slot, "resumed": resumed}
            if not resumed:
                line |= {
                    "parameters": dict(assignment.parameters),
                    "settings": dict(assignment.settings),
                    "seed": assignment.seed,
                    "rungs": [rung if isinstance(rung, int) else str(rung) for rung in assignment.rungs],
                    "protected": assignment.protected,
                }
                if assignment.repeat:
                    line["repeat"] = True
        case Progressed(number, measurement, seconds, length, warmup):
            metrics = {name: _number(value) for name, value in measurement.metrics.items()}
            line = {
                "event": "measured",
                "trial": number,
                "progress": measurement.progress,
                "metrics": metrics,
                "seconds": round(seconds, 4),
                "length": length,
            }
            if warmup:
                line["warmup"] = warmup
        case Ended(number, outcome, seconds, value):
            line = {
                "event": "ended",
                "trial": number,
                "ending": outcome.ending.value,
                "reason": outcome.reason,
            }
            line |= {"seconds": round(seconds, 4), "value": None if value is None else _number(value)}
        case Interrupted(number, seconds, setback, divide, paused):
            line = {"event": "interrupted", "trial": number, "seconds": round(seconds, 4)}
            if paused:
                line["paused"] = paused
            if setback is not None:
                line |= {"setback": setback.ending.value, "reason": setback.reason}
            if paused or setback is not None:
                line["divide"] = divide
        case Retired(slot, reason):
            line = {"event": "retired", "slot": slot, "reason": reason}
        case Elsewhere():
            raise AssertionError("what others did is copied, not written")
        case StudyState(state, reason, seconds):
            line = {"event": "study", "state": state, "reason": reason}
            if seconds is not None:
                line["seconds"] = round(seconds, 3)
    return json.dumps({"at": round(at, 3), **line}, allow_nan=False)


@dataclass(frozen=True, slots=True)
class StudyState:
    """A run of the study began or ended: running, finished, interrupted or failed, and why if there is more to say.

    `seconds` is how long the run took, where it ended in good order: clocks are set, a day ahead or back.
    """

    state: str
    reason: str = ""
    seconds: float | None = None


def decode(line: Mapping[str, Any], history: History) -> Started | Progressed | Ended | Interrupted:
    """A trial's line as the event it was. `history` has it already."""
    number = line["trial"]
    match line["event"]:
        case "started":
            return Started(history.assignment(number), line["slot"], line["resumed"])
        case "measured":
            metrics = {name: float(value) for name, value in line["metrics"].items()}
            measurement = Measurement(line["progress"], metrics)
            return Progressed(number, measurement, line["seconds"], line["length"], line.get("warmup", 0))
        case "ended":
            value = None if line["value"] is None else float(line["value"])
            return Ended(number, Outcome(Ending(line["ending"]), line["reason"]), line["seconds"], value)
        case _:
            setback = Outcome(Ending(line["setback"]), line["reason"]) if "setback" in line else None
            return Interrupted(number, line["seconds"], setback, line.get("divide", 1), line.get("paused", ""))


class Lost(HpoError):
    """Another coordinator runs this trial now."""

    def __init__(self, number: int) -> None:
        super().__init__(f"trial {number} was taken over by another coordinator")


class JournalError(HpoError):
    """The disk does not take the journal, or Optuna's."""

    @classmethod
    def of(cls, path: Path, error: OSError) -> Self:
        return cls(
            f"cannot write the study's journal: {error.strerror} ({path}). "
            "Trials were stopped; once that is mended, resume from the last checkpoints."
        )


def steady_clock() -> Callable[[], float]:
    """Seconds since the epoch as they are now, and from now on steadily: no clock that is set moves them."""
    # The time that a machine sleeps counts as well, where the system tells it.
    ticks = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
    start = time.time() - ticks()
    return lambda: start + ticks()


class Journal:
    """Appends events, each on disk when `append` returns. One writer: hold the study's lock.

    `append` raises JournalError where the disk does not take the whole line; the journal is then as before.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        mend(path)
        self._file = path.open("ab", buffering=0)

    def append(self, event: Event | StudyState) -> None:
        self._write(encode(event, self._clock()))

    def copy(self, line: Mapping[str, Any]) -> None:
        """Append a line of the same study that was written elsewhere."""
        self._write(json.dumps(line, allow_nan=False))

    def _write(self, line: str) -> None:
        data = line.encode() + b"\n"
        descriptor = self._file.fileno()
        end = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError as error:
            # A disk that is nearly full takes a part of a line. What follows must not be glued to it.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, end)
            raise JournalError.of(self._path, error) from error

    def close(self) -> None:
        self._file.close()

    # What follows is for a journal that several coordinators write (`hpo.sharing`); this one is alone.

    def attend(self, leave: Callable[[], bool], note: Callable[[str], None]) -> None:
        """Whom to ask whether to go on, and to tell what is waited for, where writing takes long."""

    def decide(self, choose: Callable[[], Started | None]) -> Started | None:
        """Append the start of a trial that is chosen while nobody else chooses one; what it was, if any."""
        started = choose()
        if started is not None:
            self.append(started)
        return started

    def heard(self) -> list[Elsewhere]:
        """What other coordinators did since this was last asked."""
        return []

    def free(self) -> list[Assignment]:
        """Trials of other coordinators that may be taken over."""
        return []

    def holds(self, number: int) -> bool:
        """Whether an unfinished trial is this coordinator's."""
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def mend(path: Path) -> None:
    """Cut a line that a power cut or a full disk left unfinished, so that the next one starts on its own."""
    path.touch()
    with path.open("r+b") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def lines(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Whole lines from byte `start` on, each with the byte after it. An unfinished last line is left alone."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            try:
                line = json.loads(raw)
            except ValueError as error:
                raise UserError(f"{path} is damaged at byte {start}: {error}. Restore it from a copy.") from None
            start += len(raw)
            yield start, line


# -- what the record says -------------------------------------------------------------------------------


@dataclass(slots=True)
class TrialRecord:
    """One trial as the journal tells it. `ending` is None while it runs or waits to be resumed.

    Of a shared study, `place` is the study folder of the coordinator that ran it last. `set_back` says that it waits
    to be begun again after something happened to it; `paused`, why a rule set it aside, while it is; `taken_up_at`, the
    progress at which the rule last took it up again, None where it never did. `repeat` says that it is trial 0's
    configuration once more, with another seed (`search.seeds`): it is no rival of the others.
    """

    number: int
    parameters: dict[str, Value]
    settings: dict[str, object]
    seed: int
    rungs: tuple[str | int, ...]
    protected: bool
    started_at: float
    slot: int
    attempts: int = 1
    measurements: list[Measurement] = field(default_factory=list)
    measured_at: list[float] = field(default_factory=list)
    seconds: float = 0.0
    timed: float = 0.0  #: seconds it had trained when it last measured
    ending: Ending | None = None
    ended_at: float | None = None
    reason: str = ""
    value: float | None = None
    interrupted: bool = False
    length: int | None = None
    warmup: int = 0
    setbacks: list[Outcome] = field(default_factory=list)
    losses: int = 0  #: how often it was killed or hung since it last came further
    divide: int = 1
    place: str = ""
    set_back: bool = False
    paused: str = ""
    repeat: bool = False
    taken_up_at: int | None = None

    @property
    def progress(self) -> int:
        return self.measurements[-1].progress if self.measurements else 0

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.measurements[-1].metrics if self.measurements else {}

    @property
    def kind(self) -> str:
        """What one that is never stopped early is called: baseline, repeat or random; empty for any other."""
        if not self.protected:
            return ""
        return "baseline" if self.number == 0 else "repeat" if self.repeat else "random"

    @property
    def label(self) -> str:
        """Its number, behind its kind."""
        return f"{self.kind} {self.number}".lstrip()

    @property
    def may_be_unanswered(self) -> bool:
        """Whether its coordinator died, perhaps before it answered the last measurement; it is then judged once more.

        Where the stopping rule has taken it up since, the answer is known: it is to go on.
        """
        return self.ending is None and not self.interrupted and self.taken_up_at != self.progress

    @property
    def state(self) -> str:
        if self.ending is not None:
            return self.ending.value
        if self.paused:
            return "paused"
        return "interrupted" if self.interrupted else "running"


class History:
    """The trials of a study, folded from its journal."""

    def __init__(self) -> None:
        self.trials: dict[int, TrialRecord] = {}
        self.state = "new"
        self.reason = ""
        self.seconds = 0.0  #: wall time of all runs of the study together
        self.offset = 0
        self._running_since: float | None = None
        self._last_at = 0.0
        self.latest_at = 0.0  #: of all lines; not the last one's, where a clock was set back between two runs

    @classmethod
    def read(cls, path: Path) -> History:
        history = cls()
        for offset, line in lines(path):
            history.add(line)
            history.offset = offset
        return history

    def add(self, line: Mapping[str, Any]) -> None:
        if line["event"] == "study":
            self._study(line)
        elif "trial" in line:
            self._trial(line)
        self._last_at = line["at"]
        self.latest_at = max(self.latest_at, line["at"])

    def _trial(self, line: Mapping[str, Any]) -> None:
        number = line["trial"]
        match line["event"]:
            case "started" if number in self.trials:
                trial = self.trials[number]
                trial.attempts += 1
                trial.taken_up_at = trial.progress if trial.paused else trial.taken_up_at
                trial.slot, trial.interrupted, trial.set_back, trial.paused = line["slot"], False, False, ""
                trial.place = line.get("place", "")
            case "started":
                self.trials[number] = TrialRecord(
                    number=number,
                    parameters=line["parameters"],
                    settings=line["settings"],
                    seed=line["seed"],
                    rungs=tuple(line["rungs"]),
                    protected=line["protected"],
                    started_at=line["at"],
                    slot=line["slot"],
                    place=line.get("place", ""),
                    # Before it was written down: all trials but the repeats have the study's seed, as trial 0 has.
                    repeat=line.get("repeat", 0 in self.trials and line["seed"] != self.trials[0].seed),
                )
            case "measured":
                trial = self.trials[number]
                metrics = {name: float(value) for name, value in line["metrics"].items()}
                trial.measurements.append(Measurement(line["progress"], metrics))
                trial.measured_at.append(line["at"])
                trial.seconds = trial.timed = line["seconds"]
                trial.length, trial.warmup, trial.losses = line["length"], line.get("warmup", 0), 0
            case "ended":
                trial = self.trials[number]
                trial.ending = Ending(line["ending"])
                trial.reason, trial.ended_at, trial.seconds = line["reason"], line["at"], line["seconds"]
                trial.paused = ""
                trial.value = None if line["value"] is None else float(line["value"])
            case "interrupted":
                trial = self.trials[number]
                trial.interrupted, trial.seconds = True, line["seconds"]
                trial.set_back, trial.paused = "setback" in line, line.get("paused", "")
                trial.divide = line.get("divide", trial.divide)
                if trial.set_back:
                    trial.setbacks.append(Outcome(Ending(line["setback"]), line["reason"]))
                    trial.losses += trial.setbacks[-1].ending in (Ending.KILLED, Ending.HUNG)

    def _study(self, line: Mapping[str, Any]) -> None:
        self.state, self.reason = line["state"], line["reason"]
        if self._running_since is not None:
            # A run that was killed says no duration: from its first line to its last, unless the clock was set back.
            lasted = max(0.0, (self._last_at if self.state == "running" else line["at"]) - self._running_since)
            self.seconds += line.get("seconds", lasted)
        self._running_since = line["at"] if self.state == "running" else None

    @property
    def elapsed(self) -> float:
        """Wall time of all runs of the study together, in seconds, the present one as far as it is recorded."""
        since = self._last_at if self._running_since is None else self._running_since
        return self.seconds + max(0.0, self._last_at - since)

    @property
    def ended(self) -> list[TrialRecord]:
        return [trial for trial in self.trials.values() if trial.ending is not None]

    @property
    def unfinished(self) -> list[TrialRecord]:
        return [trial for trial in self.trials.values() if trial.ending is None]

    def assignment(self, number: int) -> Assignment:
        """A recorded trial as the assignment it was, to be run again from its checkpoint."""
        from fractions import Fraction

        trial = self.trials[number]
        rungs = tuple(rung if isinstance(rung, int) else Fraction(rung) for rung in trial.rungs)
        return Assignment(
            number, trial.parameters, trial.settings, trial.seed, rungs, trial.protected, trial.divide, trial.repeat
        )
