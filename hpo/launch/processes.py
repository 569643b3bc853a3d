"""Local slots: one fresh process a job, forked from a server that has imported everything already.

Knows processes, sockets and slots; nothing of Optuna or the journal.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import HpoError
from hpo.launch import Begun, Finished, Happening, Job, Report, host
from hpo.trials import Ending, Measurement, Outcome

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip


_SERVER_DEATHS = 2
_DUMP_SECONDS = 0.3
_LOST = Outcome(Ending.KILLED, "the process that starts trials has died")


class Processes:
    """Jobs in processes of this machine.

    Args:
        objective: import path.
        folder: what the path is relative to.
        slots: how many jobs run at once.
        threads: CPU threads each job may use.
        gpus: identifiers for CUDA_VISIBLE_DEVICES; slots are dealt over them in turn. Empty for CPU.
        log: where the server's own output goes.
        memory_bytes: what each job's process may take of the host's memory; None: all there is.
        where: the folder that jobs run in; the current one if not given.

    The server begins to import as soon as this is made; `ready` waits for it.
    """

    def __init__(
        self,
        objective: str,
        folder: Path,
        *,
        slots: int,
        threads: int,
        gpus: Sequence[str],
        log: Path,
        where: Path | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self._slots = slots
        self._memory_bytes = memory_bytes
        self._request = json.dumps({"objective": objective, "folder": str(folder.resolve())}).encode() + b"\n"
        self._where = where
        self._environment = (
            os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads)) | {"TOKENIZERS_PARALLELISM": "false"}
        )
        self._gpus = tuple(gpus)
        self._jobs: dict[int, _Running] = {}
        self._pids: dict[int, int] = {}
        self._lines: collections.deque[dict[str, Any]] = collections.deque()
        self._log = log
        self._deaths = 0  # of servers, since a job last ended by itself
        self._late: list[Happening] = []  # of a server that was found dead when a job was to be started
        self._begin()

    def _begin(self) -> None:
        """Start the server, which begins to import at once."""
        self._lines.clear()
        self._buffer = b""
        self._ready = False
        ours, theirs = socket.socketpair()
        with self._log.open("ab") as output:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "hpo.launch.server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                cwd=self._where,
                start_new_session=True,
            )
        # Our copy of its end must go: else its death would never show as the end of the stream.
        theirs.close()
        self._control = ours
        self._control.sendall(self._request)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._control, selectors.EVENT_READ, None)

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def free(self) -> list[int]:
        taken = {running.slot for running in self._jobs.values()}
        return [slot for slot in range(self._slots) if slot not in taken]

    def ready(self) -> None:
        """Wait until the server has imported everything.

        Raises:
            HpoError: it could not; the message says why.
        """
        if not self._ready:
            message = self._next_line(("ready", "refused"))
            if "refused" in message:
                raise HpoError(message["refused"])
            self._ready = True

    def start(self, job: Job, slot: int) -> None:
        environment: dict[str, str] = {}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        task = {
            "settings": dict(job.settings),
            "seed": job.seed,
            "rungs": [rung if isinstance(rung, int) else str(rung) for rung in job.rungs],
            "directory": str(job.directory.resolve()),
            "divide": job.divide,
            "memory_bytes": self._memory_bytes,
            "environment": environment,
        }
        try:
            pid, connection = self._fork(task, job.log)
        except _ServerDied:
            self._late += [*self._bury(), Finished(job.number, _LOST, 0.0)]
            return
        connection.setblocking(False)
        self._jobs[pid] = _Running(job.number, slot, pid, connection)
        self._pids[job.number] = pid
        self._selector.register(connection, selectors.EVENT_READ, pid)

    def wait(self, timeout: float | None) -> Iterator[Happening]:
        if self._late:
            late, self._late = self._late, []
            yield from late
            return
        try:
            yield from self._happenings(timeout)
        except _ServerDied:
            yield from self._bury()

    def _bury(self) -> Iterator[Finished]:
        """The server has died, and its jobs with it: they have ended, and another server takes its place."""
        self._deaths += 1
        if self._deaths > _SERVER_DEATHS:
            raise _ServerDied(f"the process that starts trials has died {self._deaths} times; see {self._log}.")
        lost = list(self._jobs.values())
        for running in lost:
            _kill(running.pid)
        self._release()
        self._jobs, self._pids = {}, {}
        self._begin()
        for running in lost:
            yield Finished(running.number, running.outcome or _LOST, running.seconds)

    def _release(self) -> None:
        self._control.close()
        self._selector.close()
        for running in self._jobs.values():
            running.connection.close()
        try:
            self._server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def _happenings(self, timeout: float | None) -> Iterator[Happening]:
        ready = [] if self._lines else self._selector.select(timeout)
        # Measurements first: a job waits for each answer, an exit waits for nobody.
        for key, _ in ready:
            if key.data is not None and (running := self._jobs.get(key.data)) is not None:
                yield from self._read(running)
        # Asked anew: while its measurements were looked at, a start may have read the server's lines.
        if select.select([self._control], [], [], 0)[0]:
            self._read_control()
        yield from self._exits()

    def answer(self, number: int, *, go_on: bool) -> None:
        running = self._jobs[self._pids[number]]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            running.connection.sendall(b"go\n" if go_on else b"stop\n")

    def end(self, number: int, outcome: Outcome) -> None:
        running = self._jobs[self._pids[number]]
        running.outcome = outcome
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGUSR1)  # the worker has its stack written to its log
        time.sleep(_DUMP_SECONDS)
        _kill(running.pid)

    def call(self, companion: str, settings: Mapping[str, object], log: Path, **arguments: Any) -> Any:
        task = {
            "call": companion,
            "settings": dict(settings),
            "arguments": {name: str(Path(value).resolve()) for name, value in arguments.items()},
            "environment": {"CUDA_VISIBLE_DEVICES": self._gpus[0]} if self._gpus else {},
        }
        pid, connection = self._fork(task, log)
        try:
            with connection, connection.makefile("r", encoding="utf-8") as reader:
                answer = reader.readline()
        except BaseException:
            _kill(pid)
            raise
        exited = self._next_line(("exited",), pid)
        if not answer:
            raise HpoError(f"{companion} ended without a result ({_signal_name(exited['status'])}); see {log}.")
        message = json.loads(answer)
        if "refused" in message:
            raise HpoError(message["refused"])
        return message["result"]

    def kill(self) -> None:
        for pid in self._jobs:
            _kill(pid)

    def close(self) -> None:
        self.kill()
        self._release()

    # -- the server -------------------------------------------------------------------------------------

    def _fork(self, task: Mapping[str, Any], log: Path) -> tuple[int, socket.socket]:
        self.ready()
        log.parent.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        try:
            with theirs, log.open("ab") as output:
                data = json.dumps(task).encode() + b"\n"
                sent = socket.send_fds(self._control, [data], [theirs.fileno(), output.fileno()])
                self._control.sendall(data[sent:])
                return self._next_line(("forked",))["forked"], ours
        except BaseException as error:
            ours.close()
            if isinstance(error, BrokenPipeError | ConnectionResetError):
                raise self._death() from None
            raise

    def _next_line(self, kinds: tuple[str, ...], pid: int | None = None) -> dict[str, Any]:
        """The server's next line of one of these kinds (about this process); others are kept for later."""
        seen = 0
        while True:
            for index in range(seen, len(self._lines)):
                line = self._lines[index]
                kind = next(iter(line))
                if kind in kinds and (pid is None or line[kind] == pid):
                    del self._lines[index]
                    return line
            seen = len(self._lines)
            self._read_control()

    def _read_control(self) -> None:
        data = b""
        with contextlib.suppress(ConnectionResetError):  # it died with something of ours unread
            data = self._control.recv(1 << 16)
        if not data:
            raise self._death()
        *whole, self._buffer = (self._buffer + data).split(b"\n")
        self._lines.extend(json.loads(line) for line in whole)

    def _death(self) -> _ServerDied:
        return _ServerDied(f"the process that starts trials has died; see {self._log}.")

    def _exits(self) -> Iterator[Happening]:
        while self._lines:
            line = self._lines.popleft()
            running = self._jobs.get(line["exited"])
            if running is None:
                continue
            # All it ever said is in the socket by now.
            yield from self._read(running)
            del self._jobs[running.pid]
            del self._pids[running.number]
            with contextlib.suppress(KeyError):
                self._selector.unregister(running.connection)
            running.connection.close()
            self._deaths = 0
            outcome = running.outcome or _exit_outcome(line["status"], host.memory_kills() > running.memory_kills)
            divisible = running.divisible or running.outcome is None
            yield Finished(running.number, outcome, running.seconds, divisible, running.disk_full)

    def _read(self, running: _Running) -> Iterator[Happening]:
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while data := running.connection.recv(1 << 16):
                *whole, running.buffer = (running.buffer + data).split(b"\n")
                for line in whole:
                    message = json.loads(line)
                    running.seconds = message["seconds"]
                    if "ending" in message:
                        running.outcome = Outcome(Ending(message["ending"]), message["reason"])
                        running.divisible = message.get("divisible", False)
                        running.disk_full = message.get("disk_full", False)
                    elif "begun" in message:
                        yield Begun(running.number, message["begun"])
                    else:
                        metrics = {name: float(value) for name, value in message["metrics"].items()}
                        measurement = Measurement(message["progress"], metrics)
                        length, warmup = message["length"], message["warmup"]
                        yield Report(running.number, measurement, running.seconds, length, warmup)
            # The end of the stream: its exit is yet to come, and this must not wake us until then.
            with contextlib.suppress(KeyError):
                self._selector.unregister(running.connection)


class _Running:
    """One job's process as this side knows it."""

    def __init__(self, number: int, slot: int, pid: int, connection: socket.socket) -> None:
        self.number = number
        self.slot = slot
        self.pid = pid
        self.connection = connection
        self.buffer = b""
        self.seconds = 0.0
        self.outcome: Outcome | None = None
        self.divisible = self.disk_full = False
        self.memory_kills = host.memory_kills()


class _ServerDied(HpoError):
    """The end of the server's stream."""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _signal_name(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


def _exit_outcome(status: int, memory_kills: bool) -> Outcome:
    """The ending of a process that did not say one itself.

    Args:
        status: its exit code, negative for a signal.
        memory_kills: whether the kernel has ended processes for want of memory while it ran.
    """
    if -status == signal.SIGKILL and memory_kills:
        return Outcome(Ending.OUT_OF_MEMORY, "the system ran out of memory and killed it")
    if status < 0:
        return Outcome(Ending.KILLED, _signal_name(status))
    return Outcome(Ending.KILLED, f"its process ended by itself with exit code {status}")
