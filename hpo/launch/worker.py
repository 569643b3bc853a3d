"""What happens inside a slot: drive one trial function and speak with the coordinator about it.

One line of JSON each way: the worker sends a measurement and waits for "go" or "stop". Knows nothing of
Optuna, the study or how it was started.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import json
import math
import operator
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from hpo.errors import HpoError
from hpo.objective import Objective
from hpo.schema import Invalid
from hpo.trials import Ending, Measured, Measurement, Outcome, Rung, rung_tokens

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


class Stopwatch:
    """Adds up the time between `start` and `stop`, in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0

    def __enter__(self) -> Stopwatch:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds += time.perf_counter() - self._started


class Channel:
    """Lines of JSON over a connected socket, blocking."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._reader = connection.makefile("r", encoding="utf-8")

    def send(self, message: Mapping[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> str:
        """The next line, empty where the coordinator is gone."""
        return self._reader.readline().strip()


def checked(measured: Measured, last: int | None) -> Measurement:
    """A yielded measurement as plain numbers.

    Args:
        measured: what the trial function yielded.
        last: the progress before it, if there was one.

    Raises:
        TypeError: it is no measurement; the message says what one is.
        ValueError: progress did not increase.
    """
    metrics = getattr(measured, "metrics", None)
    try:
        progress = operator.index(getattr(measured, "progress", None))  # type: ignore[arg-type]  # numpy's too
    except TypeError:
        progress = None
    if progress is None or not isinstance(metrics, Mapping):
        # The type alone: values differ from trial to trial, and failures that are alike must read alike.
        raise TypeError(
            "a trial function yields measurements with `progress` (tokens or examples, a whole number) and "
            f"`metrics` (names to numbers), such as hpo.trials.Measurement; got {type(measured).__name__}"
        )
    if last is not None and progress <= last:
        raise ValueError("progress must increase from one measurement to the next")
    return Measurement(progress, {str(name): float(value) for name, value in metrics.items()})


def failure(error: BaseException) -> Outcome:
    """The named ending of an exception raised by a trial."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    if is_out_of_memory(error):
        return Outcome(Ending.OUT_OF_MEMORY, first_line or type(error).__name__)
    if isinstance(error, FloatingPointError):
        return Outcome(Ending.DIVERGED, first_line)
    if isinstance(error, SystemExit):
        return Outcome(Ending.FAILED, f"the trial called sys.exit({error.code!r})")
    if isinstance(error, Invalid | HpoError):
        return Outcome(Ending.FAILED, str(error))
    return Outcome(Ending.FAILED, f"{type(error).__name__}: {first_line}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, a GPU's or the host's, did not suffice."""
    # By name and by words, because this package must not import torch to know its errors; and what the CPU's and
    # the linear algebra libraries' allocators raise has no type of its own.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if not isinstance(error, RuntimeError | OSError):
        return False
    text = str(error).lower()
    return (isinstance(error, OSError) and error.errno == errno.ENOMEM) or any(words in text for words in _NO_MEMORY)


def is_disk_full(error: BaseException) -> bool:
    """Whether something could not be written for want of room."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return os.strerror(errno.ENOSPC) in str(error)  # in the words of libraries that raise their own errors


def limit_memory(limit_bytes: int | None) -> None:
    """Have the kernel refuse this process more memory of its own than this."""
    if limit_bytes is not None:
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


def parse_rungs(rungs: list[int | str]) -> tuple[Rung, ...]:
    return tuple(rung if isinstance(rung, int) else Fraction(rung) for rung in rungs)


def run_trial(objective: Objective, task: Mapping[str, Any], channel: Channel) -> None:
    """Drive one trial to its end, its stop or its failure, and say which."""
    watch = Stopwatch()
    outcome = Outcome(Ending.COMPLETE)
    directory = Path(task["directory"])
    told: dict[str, Any] = {}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        limit_memory(task["memory_bytes"])
        with watch:
            config = objective.config(task["settings"])
            said = {"length": objective.length(config), "warmup": objective.warmup(config)}
            rungs = rung_tokens(parse_rungs(task["rungs"]), said["length"])
            trial = objective.train(config, seed=task["seed"], rungs=rungs, directory=directory, divide=task["divide"])
        channel.send({"begun": said["length"], "seconds": watch.seconds})
        last: int | None = None
        with contextlib.closing(trial):
            while True:
                with watch:
                    measured = next(trial, None)
                if measured is None:
                    break
                measurement = checked(measured, last)
                last = measurement.progress
                metrics = {
                    name: value if math.isfinite(value) else str(value) for name, value in measurement.metrics.items()
                }
                channel.send({"progress": last, "metrics": metrics, "seconds": watch.seconds, **said})
                if channel.receive() != "go":
                    break
            with watch:
                trial.close()
    except (Exception, SystemExit) as error:
        outcome = failure(error)
        divisible = objective.divides and getattr(error, "divisible", True)
        told = {"divisible": divisible, "disk_full": is_disk_full(error)}
        with contextlib.suppress(OSError):  # the log may be what the disk has no room for
            traceback.print_exc()
    channel.send({"ending": outcome.ending.value, "reason": outcome.reason, "seconds": watch.seconds, **told})


def run_call(objective: Objective, task: Mapping[str, Any], channel: Channel) -> None:
    """Call one companion of the objective and send back what it returned."""
    arguments = {name: Path(value) for name, value in task["arguments"].items()}
    try:
        result = objective.call(task["call"], task["settings"], **arguments)
        channel.send({"result": result})
    except (ValueError, OSError, Invalid, HpoError) as error:
        # What a companion refuses, it refuses in words for people.
        traceback.print_exc()
        channel.send(
            {
                "refused": str(error)
                if not isinstance(error, OSError)
                else f"{error.strerror or error}: {error.filename}"
            }
        )
    except Exception as error:
        traceback.print_exc()
        channel.send({"refused": f"{type(error).__name__}: {error}"})


def run(objective: Objective, task: Mapping[str, Any], connection: socket.socket) -> None:
    """The whole life of a worker process."""
    os.environ.update(task["environment"])
    if hasattr(signal, "SIGUSR1"):
        # Where a process hangs, it is in C: only this says where, without asking the interpreter.
        faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    channel = Channel(connection)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        (run_call if "call" in task else run_trial)(objective, task, channel)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
