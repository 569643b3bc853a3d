"""MLflow's real server frozen, stopped and started again while a study runs: afterwards nothing is missing from it.

What it costs the trials is measured by studies/faults/outage.py. `python -m pytest tests/faults -m slow -n 0`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from commands import Commands, await_true
from oracles import check_journal, check_mlflow, check_said, check_same

from hpo.folder import StudyFolder
from hpo.journal import History
from hpo.track.mlflow.server import Server, serve_ui
from hpo.track.pump import read_cursor

_TRIALS = 120
_REQUEST_SECONDS = 3  # after which a call to the server is given up; 20 s where nobody says otherwise


class Landlord:
    """MLflow's server, over the store beside the studies, always at the same address."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._server: Server = serve_ui(uri, 0)
        self.url = self._server.url

    @property
    def _family(self) -> list[psutil.Process]:
        assert self._server.process is not None
        keeper = psutil.Process(self._server.process.pid)
        return [keeper, *keeper.children(recursive=True)]

    def freeze(self) -> None:
        for process in self._family:
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        for process in self._family:
            process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server = serve_ui(self._uri, int(self.url.rpartition(":")[2]))
        assert self._server.url == self.url


@pytest.fixture
def landlord(uri: str) -> Iterator[Landlord]:
    made = Landlord(uri)
    yield made
    made.thaw()
    made.stop()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_frozen_stopped_and_restarted_misses_nothing(
    place: Path, landlord: Landlord, commands: Commands, undisturbed: Callable[..., History]
) -> None:
    commands.environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(_REQUEST_SECONDS)
    folder = StudyFolder(place / "studies" / "sweep")
    address = ("--set", f"track.mlflow.tracking_uri={landlord.url}")
    process = commands.start("run", "sweep.yaml", "--trials", str(_TRIALS), "--set", "pace=0.1", *address)
    assert await_true(lambda: bool(read_cursor(folder, "mlflow").get("offset")), 60), "MLflow has been given something"
    landlord.freeze()
    time.sleep(3 * _REQUEST_SECONDS)
    landlord.thaw()
    time.sleep(2)
    landlord.stop()
    time.sleep(3)
    assert process.poll() is None, "the study was over before the server was back"
    landlord.start()
    assert process.wait(300) == 0, commands.said.read_text()[-3000:]
    assert commands.left_behind(60) == []
    check_said(commands.said)
    history = check_journal(folder, _TRIALS)
    check_same(history, undisturbed(_TRIALS))
    for _ in range(2):  # the second changes nothing
        assert commands.run("sync", "sweep") == 0
        check_mlflow(folder, history, landlord.url)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("moment", range(4))
def test_a_server_frozen_while_it_is_written_to_gets_each_run_once(
    place: Path, landlord: Landlord, commands: Commands, moment: int
) -> None:
    """A call that was given up is carried out all the same, once the server goes on: runs must not be there twice."""
    commands.environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "1"
    folder = StudyFolder(place / "studies" / "sweep")
    address = ("--set", f"track.mlflow.tracking_uri={landlord.url}")
    process = commands.start("run", "sweep.yaml", "--trials", "40", "--set", "pace=0.1", *address)
    assert await_true(lambda: bool(read_cursor(folder, "mlflow").get("offset")), 60)
    for round_ in range(4):
        time.sleep(0.3 * moment + 0.17 * round_)
        landlord.freeze()
        time.sleep(3)
        landlord.thaw()
    assert process.wait(300) == 0, commands.said.read_text()[-3000:]
    assert commands.left_behind(60) == []
    assert commands.run("sync", "sweep") == 0
    check_mlflow(folder, check_journal(folder, 40), landlord.url)
