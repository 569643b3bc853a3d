"""Notifications: delivered by a real command and a real server, never in the way, the address in no file."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpo.errors import HpoError, SweepError
from hpo.folder import StudyFolder
from hpo.journal import History
from hpo.notification import Notifier, address, cautions
from hpo.operation import Notify
from hpo.relocation import export_study
from hpo.run import conduct, create
from hpo.study import plan
from hpo.trials import Ending

ALL = ("finished", "failed", "budget", "best")


class Board(HTTPServer):
    """A server that keeps what is posted, and answers with `code` after `delay` seconds."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Posted)
        self.posted: list[dict[str, Any]] = []
        self.code, self.delay = 200, 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/services/hush"


class _Posted(BaseHTTPRequestHandler):
    server: Board

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append(json.loads(content))
        time.sleep(self.server.delay)
        self.send_response(self.server.code)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def board() -> Iterator[Board]:
    server = Board()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def told(notify: Notify, webhook: str | None = None, *, seconds: float = 10.0, parting: float = 5.0) -> list[str]:
    """What is noted when a study tells of a new best and of its end."""
    notes: list[str] = []
    notifier = Notifier(notify, "mine", webhook, notes.append, seconds)
    notifier.tell("best", "trial 3 is the best so far", value=0.25, trial=3)
    notifier.tell("finished", "finished; it's $HOME over")
    notifier.close(parting)
    return notes


def test_a_webhook_is_posted_what_chat_servers_read(board: Board) -> None:
    assert told(Notify(ALL, webhook="$X"), board.url) == []
    assert board.posted == [
        {"event": "best", "study": "mine", "text": "trial 3 is the best so far", "value": 0.25, "trial": 3},
        {"event": "finished", "study": "mine", "text": "finished; it's $HOME over", "value": None, "trial": None},
    ]


def test_a_command_has_the_message_in_its_environment(tmp_path: Path) -> None:
    line = f'echo "$HPO_EVENT|$HPO_STUDY|$HPO_MESSAGE|$HPO_VALUE|$HPO_TRIAL" >> {tmp_path}/told'
    assert told(Notify(ALL, command=line)) == []
    assert (tmp_path / "told").read_text().splitlines() == [
        "best|mine|trial 3 is the best so far|0.25|3",
        "finished|mine|finished; it's $HOME over||",
    ]


def test_only_the_events_asked_for_are_told(board: Board) -> None:
    told(Notify(("finished",), webhook="$X"), board.url)
    assert [message["event"] for message in board.posted] == ["finished"]


def test_what_fails_is_said_once_and_without_the_address(board: Board) -> None:
    board.code = 403
    assert told(Notify(ALL, command="exit 3", webhook="$X"), board.url) == [
        "notify.command failed: exit code 3",
        "notify.webhook failed: it answered 403",
    ]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/hush", "http://127.0.0.1:hush/x"])
def test_a_webhook_that_cannot_be_reached_is_one_line_without_its_address(url: str) -> None:
    notes = told(Notify(ALL, webhook="$X"), url)
    assert len(notes) == 1
    assert notes[0].startswith("notify.webhook failed: ")
    assert "hush" not in notes[0]


def test_nobody_waits_for_a_slow_webhook(board: Board) -> None:
    board.delay = 1.0
    notes: list[str] = []
    notifier = Notifier(Notify(ALL, webhook="$X"), "mine", board.url, notes.append, 0.2)
    began = time.monotonic()
    notifier.tell("best", "one")
    assert time.monotonic() - began < 0.1
    notifier.close(0.05)
    assert time.monotonic() - began < 0.5
    assert notes == ["a notification was not delivered within 0.05 s, and given up"]


def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    line = f"(sleep 0.6; touch {tmp_path}/late) & sleep 60"
    assert told(Notify(("best",), command=line), seconds=0.2) == ["notify.command failed: not done after 0.2 s"]
    time.sleep(0.8)
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize(("value", "words"), [(None, "HPO_HOOK is not set"), ("hush", "holds no http")])
def test_a_webhook_without_an_address_is_a_mistake_with_its_line(
    value: str | None, words: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workplace / "sweep.yaml"
    path.write_text(path.read_text() + "notify: {webhook: $HPO_HOOK}\n")
    monkeypatch.delenv("HPO_HOOK", raising=False)
    if value is not None:
        monkeypatch.setenv("HPO_HOOK", value)
    with pytest.raises(SweepError, match=words) as caught:
        address(plan(path.read_text(), path).sweep)
    assert str(caught.value).startswith(f"{path}:13: ")
    assert "hush" not in str(caught.value)


# -- told by a run --------------------------------------------------------------------------------------


def ran(path: Path, *assignments: str) -> StudyFolder:
    planned, folder = create(path, Path("studies"), None, assignments)
    with contextlib.suppress(HpoError):
        conduct(planned, folder, console=Console(), inline=True)
    return folder


def notified(board: Board, workplace: Path, monkeypatch: pytest.MonkeyPatch, *assignments: str) -> StudyFolder:
    path = workplace / "sweep.yaml"
    path.write_text(path.read_text() + "notify: {on: [finished, failed, budget, best], webhook: $HPO_HOOK}\n")
    monkeypatch.setenv("HPO_HOOK", board.url)
    return ran(path, *assignments)


def test_a_run_tells_each_new_best_after_the_baseline_and_its_end(
    board: Board, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = notified(board, workplace, monkeypatch)
    best, expected = float("inf"), []
    for trial in History.read(folder.journal).trials.values():
        if trial.ending is Ending.COMPLETE and trial.value is not None and trial.value < best:
            best = trial.value
            expected += [(trial.number, best)] if trial.number else []
    bests = [(message["trial"], message["value"]) for message in board.posted if message["event"] == "best"]
    assert bests == expected != []
    assert [message["event"] for message in board.posted].count("finished") == 1
    last = board.posted[-1]
    assert (last["event"], last["study"], last["value"]) == ("finished", "sweep", best)
    assert last["text"].startswith("study sweep finished; 6 of 6 trials ended. Trial ")


def test_a_run_that_fails_tells_why(board: Board, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notified(board, workplace, monkeypatch, "misbehave=raise", "misbehave_above=1e-9", "on_failure.same_error=2")
    assert [message["event"] for message in board.posted] == ["failed"]
    assert "this configuration does not work" in board.posted[0]["text"]


def test_a_spent_budget_is_told_as_such(board: Board, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notified(board, workplace, monkeypatch, "budget.time=0.001s")
    assert [message["event"] for message in board.posted] == ["budget"]
    assert "its budget of 0.0 s is spent" in board.posted[0]["text"]


def test_a_webhook_that_refuses_costs_one_line_and_its_address_is_in_no_file(
    board: Board, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    board.code = 500
    folder = notified(board, workplace, monkeypatch)
    assert History.read(folder.journal).state == "finished"
    output = capsys.readouterr()
    assert (output.out + output.err).count("notify.webhook failed: it answered 500") == 1
    export_study(folder, workplace / "packed.zip")
    with zipfile.ZipFile(workplace / "packed.zip") as packed:
        packed.extractall(workplace / "unpacked")
    contents = [path.read_bytes() for path in workplace.rglob("*") if path.is_file()]
    assert contents
    assert not [content for content in contents if b"hush" in content]
    assert "hush" not in output.out + output.err


def test_without_the_variable_a_run_is_refused_and_a_check_says_so(
    write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sweep(("track: {}", "track: {}\nnotify: {webhook: $HPO_HOOK}"))
    monkeypatch.delenv("HPO_HOOK", raising=False)
    with pytest.raises(SweepError, match="HPO_HOOK is not set"):
        create(path, Path("studies"), None, [])
    assert not Path("studies").exists()
    assert len(cautions(plan(path.read_text(), path).sweep)) == 1
