"""The MLflow UI as a process on loopback, stopped with all its children."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import IO

from hpo.errors import HpoError
from hpo.track import children
from hpo.track.mlflow import store

_READY_SECONDS = 120.0
_POLL_SECONDS = 0.2
# A worker that is handing out a page ends within 2 s; one with background jobs took 10 s.
_STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running UI.

    Attributes:
        url: where it answers.
        asked_port_taken: whether another program had the port that was asked for.
    """

    url: str
    asked_port_taken: bool = False
    process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """End it and its children; nothing to do for a server that is not ours."""
        if self.process is not None:
            _end(self.process)

    def wait(self) -> None:
        """Until it ends by itself."""
        if self.process is not None:
            self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def serve_ui(uri: str, port: int = 5000) -> Server:
    """Start the MLflow UI over a store, and wait until it answers.

    Args:
        uri: from `store.tracking_uri`. If it is a server's address, that one's UI is meant and nothing is started.
        port: on 127.0.0.1; a free one is taken instead if it is in use.

    Raises:
        HpoError: it ended at once, or does not answer.
    """
    if uri.startswith(("http://", "https://")):
        return Server(uri.rstrip("/"))
    store.initialise(uri)
    given = _free_port(port)
    environment = children.environment(
        # Huey consumers for evaluation jobs: eight more processes and 2 GB that nobody here uses.
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        MLFLOW_DISABLE_TELEMETRY="true",
        # Not on the command line: an address may have a password in it.
        MLFLOW_BACKEND_STORE_URI=uri,
    )
    arguments = ["server", "--host", "127.0.0.1", "--port", str(given), "--workers", "1"]
    if (artifacts := store.artifacts_folder(uri)) is not None:
        arguments += ["--artifacts-destination", str(artifacts)]
    url = f"http://127.0.0.1:{given}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            children.command("hpo.track.mlflow.server", *arguments),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _await(url, process, log)
        except BaseException:
            _end(process)
            raise
    return Server(url, given != port, process)


def _free_port(port: int) -> int:
    for candidate in (port, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            # As the server will: without it, a port whose last connections are still closing seems taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", candidate))
            return int(probe.getsockname()[1])
    raise HpoError("no free port on 127.0.0.1 for the MLflow UI.")


def _await(url: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise HpoError(f"the MLflow UI did not start: {_tail(log)}")
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/health", timeout=2):
            return
        time.sleep(_POLL_SECONDS)
    raise HpoError(f"the MLflow UI does not answer at {url} after {_READY_SECONDS:.0f} s: {_tail(log)}")


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    said = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return said[-1] if said else "it said nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS + 5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main(arguments: list[str]) -> int:
    """The server's keeper: ends it, workers and all, when whoever started us closes our stdin or dies."""
    server = subprocess.Popen([sys.executable, "-m", "mlflow", *arguments], stdin=subprocess.DEVNULL)
    # Set after the start, for it would be inherited: what we send to our group must not end us.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while server.poll() is None:
        if select.select([0], [], [], _POLL_SECONDS)[0] and not os.read(0, 4096):
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(_STOP_SECONDS)
            break
    os.killpg(0, signal.SIGTERM)
    return server.poll() or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
