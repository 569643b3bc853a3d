from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from recorded import append, by_name, contents, study, whole_search

from hpo.errors import HpoError
from hpo.folder import StudyFolder, StudyRecord
from hpo.track.mlflow import store
from hpo.track.mlflow.pages import study_page
from hpo.track.mlflow.runs import MlflowTracker
from hpo.track.mlflow.server import serve_ui
from hpo.track.pump import Courier


def test_a_server_that_goes_away_and_comes_back_misses_nothing(studies: Path, uri: str) -> None:
    """One story, for a server takes seconds to start: it serves, is stopped without orphans, and comes back."""
    events = whole_search()
    with serve_ui(uri, 0) as server:
        address = {"tracking_uri": server.url, "experiment": None}
        folder = study(studies, events[:9], mlflow=address)
        courier = Courier(folder, tracker(folder, server.url))
        assert courier.carry() == 9
        page = urllib.request.urlopen(server.url, timeout=10).read()
        assert b"MLflow" in page
        assert server.process is not None
        family = psutil.Process(server.process.pid).children(recursive=True)
        assert family
    assert psutil.wait_procs(family, timeout=5)[1] == []
    append(folder, events[9:])
    with pytest.raises(Exception, match="Connection refused"):
        courier.carry()
    with serve_ui(uri, int(server.url.rpartition(":")[2])):
        assert courier.carry() == len(events) - 9
        client = store.client(server.url)
        assert by_name(client, "trial-0000").data.metrics["validation/loss"] == 2.75
        before = contents(client)
        Courier(folder, tracker(folder, server.url), from_start=True).carry()
        assert contents(client) == before


def tracker(folder: StudyFolder, uri: str) -> MlflowTracker:
    return MlflowTracker(folder, StudyRecord.read(folder), uri)


def test_a_server_ends_with_the_process_that_started_it_however_that_ends(studies: Path, uri: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        script = f"""
import os, signal
from hpo.track.mlflow.server import serve_ui
server = serve_ui({uri!r}, {port})
print(server.url, server.asked_port_taken, server.process.pid, flush=True)
input()
os.kill(os.getpid(), signal.SIGKILL)
"""
        starter = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert starter.stdout is not None
        url, taken, pid = starter.stdout.readline().split()
        assert taken == "True"
        assert not url.endswith(f":{port}")
        keeper = psutil.Process(int(pid))
        family = [keeper, *keeper.children(recursive=True)]
        starter.communicate("\n")
    assert psutil.wait_procs(family, timeout=20)[1] == []


def test_a_remote_servers_own_page_is_its_ui() -> None:
    server = serve_ui("https://mlflow.example.org/", 5000)
    assert server.url == "https://mlflow.example.org"
    server.stop()


def test_a_ui_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database")
    with pytest.raises(HpoError, match=r"^the MLflow UI did not start: .+") as caught:
        serve_ui(f"sqlite:///{tmp_path}/mlflow.db", 0)
    assert "\n" not in str(caught.value)


def test_a_study_whose_server_is_gone_has_no_page_and_says_so_in_one_line(studies: Path, uri: str) -> None:
    record = StudyRecord.read(study(studies, whole_search()))
    with pytest.raises(HpoError, match=r"^MLflow at http://127.0.0.1:9 does not answer: [^\n]*refused"):
        study_page("http://127.0.0.1:9", "http://127.0.0.1:9", record)
