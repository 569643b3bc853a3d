"""The fork server: imports the objective and its heavy libraries once, then forks a process for each job.

A fresh process that imports torch and transformers needs seconds before its first step; a fork of this one
needs milliseconds, and what a trial leaks or breaks goes with its process. Run as
`python -m hpo.launch.server FD`, spoken to by `hpo.launch.processes` over the socket FD: a request is one
line of JSON with two descriptors (the worker's connection, its log); every fork and every exit is answered by
a line. When the coordinator is gone, so is every job, and then this server.

CUDA must not be touched before a fork: nothing here or in an objective's PRELOAD may.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
import types
from pathlib import Path
from typing import Any, NoReturn

from hpo.errors import HpoError
from hpo.launch import worker
from hpo.objective import Objective, load

_PR_SET_PDEATHSIG = 1


class Server:
    """Forks on request, reaps what ends."""

    def __init__(self, control: socket.socket, objective: Objective) -> None:
        self._control = control
        self._objective = objective
        self._children: set[int] = set()
        self._buffer = b""

    def serve(self) -> None:
        """Until the coordinator closes its end."""
        woken, wake = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is woken:
                        with contextlib.suppress(BlockingIOError):
                            woken.recv(4096)
                        self._reap()
                    elif not self._request():
                        return

    def _request(self) -> bool:
        data = b""
        with contextlib.suppress(ConnectionResetError):  # it was killed before it had read all that we told it
            data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 20, 2)
        if not data:
            return False
        while not data.endswith(b"\n"):
            more = self._control.recv(1 << 20)
            if not more:
                return False
            data += more
        task = json.loads(data)
        pid = os.fork()
        if pid == 0:
            self._become(task, *descriptors)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, 0)  # here too: whoever is told of the process may kill its group at once
        for descriptor in descriptors:
            os.close(descriptor)
        self._children.add(pid)
        self._tell({"forked": pid})
        return True

    def _become(self, task: dict[str, Any], connection: int, log: int) -> NoReturn:
        """In the forked child: let go of the server's things and run the job. Never returns."""
        status = 1
        try:
            os.setpgid(0, 0)  # its own group, so that all it starts can be ended with it
            _die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            worker.run(self._objective, task, socket.socket(fileno=connection))
            status = 0
        except BaseException:
            with contextlib.suppress(OSError):  # the log's disk is full
                traceback.print_exc()
        finally:
            try:
                sys.stderr.flush()
            finally:
                # Not sys.exit: the server's atexit handlers and threads are not the child's to run, nor are its
                # other children the child's to end.
                os._exit(status)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._children.discard(pid)
            _end_group(pid)
            self._tell({"exited": pid, "status": os.waitstatus_to_exitcode(status)})

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(json.dumps(message).encode() + b"\n")

    def end_children(self) -> None:
        for pid in self._children:
            _end_group(pid)


def _end_group(pid: int) -> None:
    """Kill a job's process group, and with it whatever the job started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _die_with_parent() -> None:
    """Have the kernel end this process with its parent: a server that is killed can end nobody itself."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def _preload(objective: Objective) -> None:
    for name in objective.preload:
        importlib.import_module(name)
    objective.schema.ready()
    # What is loaded stays: collections in the children need not walk it, nor copy its pages.
    gc.collect()
    gc.freeze()


def main(descriptor: int) -> None:
    """Load the objective named on the first line, then serve."""
    control = socket.socket(fileno=descriptor)
    first = control.recv(1 << 20)
    if not first:
        return
    request = json.loads(first)
    try:
        objective = load(request["objective"], Path(request["folder"]))
        _preload(objective)
    except HpoError as error:
        control.sendall(json.dumps({"refused": str(error)}).encode() + b"\n")
        return
    except Exception as error:
        traceback.print_exc()
        control.sendall(json.dumps({"refused": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        return
    server = Server(control, objective)
    try:
        server._tell({"ready": os.getpid()})
        server.serve()
    finally:
        server.end_children()


def _ignore(number: int, frame: types.FrameType | None) -> None:
    """Ctrl-C is the coordinator's to answer."""


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _ignore)
    main(int(sys.argv[1]))
