"""Real `hpo` processes to be killed: started with a mark that all they start inherits, and found again by it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

HPO = str(Path(sys.executable).with_name("hpo"))
_MARK = "HPO_FAULTS_MARK"
_PUMP = "hpo.track.pump"


class Commands:
    """Commands in one folder, their output in `said.txt` there.

    A process that was started by one, and by what that started, carries the mark in its environment: so orphans are
    found whoever their parent is by then.
    """

    def __init__(self, where: Path) -> None:
        self.where = where
        self.said = where / "said.txt"
        self.said.touch()
        self._mark = uuid.uuid4().hex
        self.environment = os.environ | {_MARK: self._mark}

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.said.open("ab") as said:
            said.write(f"$ hpo {' '.join(arguments)}\n".encode())
            said.flush()
            return subprocess.Popen(
                [HPO, *arguments], cwd=self.where, env=self.environment, stdout=said, stderr=said,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def run(self, *arguments: str, timeout: float = 120) -> int:
        """Run a command to its end; its exit code."""
        with self.start(*arguments) as process:
            try:
                return process.wait(timeout)
            except BaseException:
                process.kill()
                raise

    def processes(self, *, pumps: bool = True) -> list[psutil.Process]:
        """All that live and carry the mark."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError, FileNotFoundError):
                if process.environ().get(_MARK) != self._mark or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if pumps or _PUMP not in process.cmdline():
                    found.append(process)
        return found

    def left_behind(self, seconds: float, *, pumps: bool = True) -> list[str]:
        """What is still there after so many seconds; nobody ends it but itself."""
        await_true(lambda: not self.processes(pumps=pumps), seconds, poll=0.2)
        return [" ".join(process.cmdline()) for process in self.processes(pumps=pumps)]

    def end(self) -> None:
        """Kill whatever is left, for a test that failed."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


def await_true(condition: Callable[[], bool], seconds: float, poll: float = 0.005) -> bool:
    """Whether the condition came true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll)
    return True
