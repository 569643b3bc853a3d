"""A real PostgreSQL server for tests: made in a folder, started on a free port, and stopped."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

USER = "hpo"


def binaries() -> Path | None:
    """Where the server's programs are, the newest version's; None where it is not installed."""
    on_path = shutil.which("initdb")
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = [Path(on_path)] if on_path else versions
    return found[-1].parent if found else None


class Server:
    """A server of its own in a new folder. It refuses to run as root, so root runs it as another user.

    Durability is off: what is tested is what this program does when the server is gone, not the server.
    """

    def __init__(self) -> None:
        self._bin = binaries()
        assert self._bin is not None
        self.root = Path(tempfile.mkdtemp(prefix="hpo-postgres-"))
        self._data = self.root / "data"
        self._as: dict[str, int] = {}
        if os.geteuid() == 0:
            names = {entry.pw_name: entry for entry in pwd.getpwall()}
            account = names.get("postgres") or names["nobody"]
            self._as = {"user": account.pw_uid, "group": account.pw_gid}
            os.chown(self.root, account.pw_uid, account.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._run("initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()

    @property
    def address(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        assert self._bin is not None
        subprocess.run(
            [self._bin / program, *arguments], check=True, capture_output=True, cwd=self.root, **self._as, timeout=60
        )  # type: ignore[call-overload]

    def start(self) -> None:
        """Start it as a child that dies with this process, however that ends; return once it answers."""
        assert self._bin is not None
        command = [self._bin / "postgres", "-D", self._data, "-p", str(self.port), "-k", self.root, "-h", "127.0.0.1"]
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*map(str, command), "-c", "fsync=off", "-c", "max_connections=60"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.root, preexec_fn=_die_with_parent, **self._as,
            )  # type: ignore[call-overload]  # fmt: skip
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.address, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.root / "log").read_text()
                assert time.monotonic() < until, (self.root / "log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """As a crash would: at once, and whoever is connected finds out."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG
