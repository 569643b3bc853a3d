"""A real PostgreSQL server for tests: made in a folder, started on a free port, and stopped."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

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
        options = f"-p {self.port} -k {self.root} -h 127.0.0.1 -c fsync=off -c max_connections=60"
        log = str(self.root / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", log, "-o", options, "start")

    def stop(self, how: str = "immediate") -> None:
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", how, "stop")

    def close(self) -> None:
        process = self._data / "postmaster.pid"
        if process.exists():
            number = int(process.read_text().split()[0])
            os.kill(number, signal.SIGQUIT)
            until = time.monotonic() + 10
            while process.exists() and time.monotonic() < until:
                time.sleep(0.05)
        shutil.rmtree(self.root, ignore_errors=True)
