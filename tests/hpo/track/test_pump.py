from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from recorded import append, by_name, contents, ended, measured, started, study, whole_search

from hpo.errors import HpoError, UserError
from hpo.folder import locked
from hpo.journal import History, StudyState
from hpo.track import Line, pump
from hpo.track.pump import Courier, Pump, follow, read_cursor, sync
from hpo.track.trouble import Discreet
from hpo.trials import Ending


@dataclass
class Notebook:
    """A tracker in memory, which fails as often as it is told to: before it writes, or after."""

    address: str = "memory"
    failures: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    settled: int = 0
    name: str = "notebook"

    def open(self, memory: Mapping[str, str]) -> bool:
        return memory.get("pages", "0") == "0" or bool(self.lines)

    def write(self, lines: Sequence[Line], history: History) -> None:
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "before":
            raise ConnectionError("Connection refused")
        self.lines += [line for line in lines if line not in self.lines]
        if failure == "after":
            raise ConnectionError("timed out")

    def settle(self, history: History) -> None:
        self.settled += 1

    def memory(self) -> dict[str, str]:
        return {"pages": str(len(self.lines))}


@dataclass
class Patient:
    """A coordinator that leaves after some waits, and does something at each."""

    waits: list[float] = field(default_factory=list)
    leaves_after: int = 3
    then: Callable[[int], None] = lambda wait: None

    @property
    def present(self) -> bool:
        return len(self.waits) < self.leaves_after

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.then(len(self.waits))


def numbered(count: int) -> list[Any]:
    return [started(0), *(measured(0, progress, 1.0) for progress in range(1, count))]


def test_what_the_journal_gains_is_carried_until_the_coordinator_leaves(studies: Path) -> None:
    folder, tracker = study(studies, numbered(3)), Notebook()
    more = [measured(0, 10, 1.0), measured(0, 20, 1.0), measured(0, 30, 1.0)]
    coordinator = Patient(then=lambda wait: append(folder, [more[wait - 1]]))
    assert follow(Courier(folder, tracker), coordinator)
    assert [line.get("progress") for line in tracker.lines] == [None, 1, 2, 10, 20, 30]


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_outage_delays_and_loses_nothing(studies: Path, when: str) -> None:
    folder = study(studies, numbered(5))
    tracker = Notebook(failures=[when] * 8)
    coordinator = Patient(leaves_after=12)
    assert follow(Courier(folder, tracker), coordinator)
    assert len(tracker.lines) == 5
    assert coordinator.waits[:8] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_an_outage_is_told_to_who_asks_and_forgotten_when_it_is_over(studies: Path) -> None:
    folder = study(studies, numbered(2))
    courier = Courier(folder, Notebook(failures=["before"]))
    with pytest.raises(ConnectionError):
        courier.carry()
    assert read_cursor(folder, "notebook")["trouble"] == "memory: Connection refused"
    courier.carry()
    assert "trouble" not in read_cursor(folder, "notebook")


def test_a_password_in_an_error_is_neither_told_nor_logged(studies: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Talkative(Notebook):
        def write(self, lines: Sequence[Line], history: History) -> None:
            raise RuntimeError("cannot reach postgresql://me:secret@there/x")

    folder = study(studies, numbered(2))
    caplog.handler.setFormatter(Discreet("%(message)s"))
    assert not follow(Courier(folder, Talkative()), Patient(leaves_after=1))
    assert "me:***@there/x" in caplog.text
    assert "Traceback" in caplog.text
    assert "secret" not in caplog.text.replace('"cannot reach postgresql://me:secret@there/x"', "")
    assert (
        read_cursor(folder, "notebook")["trouble"] == "memory: RuntimeError: cannot reach postgresql://me:***@there/x"
    )


def test_once_the_coordinator_has_left_a_dead_tracker_is_given_up_after_four_tries(studies: Path) -> None:
    folder = study(studies, numbered(2))
    tracker = Notebook(failures=["before"] * 99)
    assert not follow(Courier(folder, tracker), Patient(leaves_after=0))
    assert len(tracker.failures) == 99 - 4


def test_a_torn_last_line_waits_until_it_is_whole(studies: Path) -> None:
    folder, tracker = study(studies, numbered(3)), Notebook()
    whole = folder.journal.read_bytes()
    folder.journal.write_bytes(whole[:-20])
    courier = Courier(folder, tracker)
    assert courier.carry() == 2
    folder.journal.write_bytes(whole)
    assert courier.carry() == 1
    assert len(tracker.lines) == 3


def test_a_long_journal_is_carried_in_batches(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "BATCH_LINES", 4)
    folder, tracker = study(studies, numbered(10)), Notebook()
    courier = Courier(folder, tracker)
    assert [courier.carry() for _ in range(4)] == [4, 4, 2, 0]
    assert len(tracker.lines) == 10


def test_the_next_process_goes_on_where_the_last_one_stopped(studies: Path) -> None:
    folder, tracker = study(studies, numbered(3)), Notebook()
    assert Courier(folder, tracker).carry() == 3
    append(folder, [measured(0, 50, 1.0)])
    assert Courier(folder, tracker).carry() == 1
    assert pump.behind(folder, "notebook") == 0


def test_another_address_is_given_everything(studies: Path) -> None:
    folder = study(studies, numbered(3))
    Courier(folder, Notebook()).carry()
    assert Courier(folder, Notebook(address="elsewhere")).carry() == 3


def test_a_copy_that_is_gone_is_written_again_from_the_first_line(studies: Path) -> None:
    folder = study(studies, numbered(3))
    Courier(folder, Notebook()).carry()
    Courier(folder, Notebook(lines=[{}])).carry()  # still there: the cursor now remembers one page
    emptied = Notebook()
    assert Courier(folder, emptied).carry() == 3


def test_nobody_says_a_living_coordinators_trials_are_set_aside(studies: Path) -> None:
    from hpo.folder import locked

    folder, tracker = study(studies, numbered(2)), Notebook()
    with locked(folder):
        follow(Courier(folder, tracker), Patient(leaves_after=0))
    assert tracker.settled == 0
    follow(Courier(folder, tracker), Patient(leaves_after=0))
    assert tracker.settled == 1


def test_the_pump_process_carries_a_search_and_ends_with_it(studies: Path, client: Any) -> None:
    events = whole_search()
    folder = study(studies, events[:5])
    running = Pump.start(folder)
    append(folder, events[5:])
    assert running.finish(60)
    assert by_name(client, "trial-0001").data.metrics["validation/loss"] == 2.25
    assert by_name(client, "lr").info.status == "FINISHED"
    assert (folder.tracking / "mlflow.log").read_text() == ""
    assert sync(folder) == 0


def test_a_killed_pump_leaves_nothing_that_sync_does_not_mend(studies: Path, client: Any) -> None:
    folder = study(studies, whole_search())
    running = Pump.start(folder)
    process = running._process
    assert process is not None
    while not read_cursor(folder).get("offset") and by_count(client) < 3:
        pass
    os.kill(process.pid, signal.SIGKILL)
    assert not running.finish(10)
    sync(folder)
    before = contents(client)
    assert sorted(run["name"] for run in before.values() if "name" in run) == [
        "lr",
        *(f"trial-{number:04d}" for number in range(6)),
    ]
    sync(folder, from_start=True)
    assert contents(client) == before


def by_count(client: Any) -> int:
    experiments = [each.experiment_id for each in client.search_experiments()]
    return len(client.search_runs(experiments))


def test_a_pump_whose_coordinator_was_killed_carries_the_rest_and_says_so(studies: Path, client: Any) -> None:
    folder = study(studies, [StudyState("running"), started(0), measured(0, 100, 3.0)])
    # A coordinator that starts a pump and is killed at once.
    script = f"""
import os, pathlib, signal
from hpo.folder import StudyFolder
from hpo.track.pump import Pump
pump = Pump.start(StudyFolder(pathlib.Path({str(folder.root)!r})))
print(pump._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    import psutil

    psutil.wait_procs([psutil.Process(int(done.stdout))] if psutil.pid_exists(int(done.stdout)) else [], timeout=60)
    assert by_name(client, "trial-0000").info.status == "SCHEDULED"
    assert "the coordinator died" in by_name(client, "lr").data.tags["hpo.state"]


@pytest.mark.parametrize("whose", ["another's", "its own"])
def test_a_pump_whose_coordinator_has_let_go_leaves_the_study_to_another_alone(
    studies: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """A coordinator killed and resumed again and again must not leave a queue of pumps behind; but one that waits for
    its pump, which had not begun when the study was over, waits for all of it."""
    folder, tracker = study(studies, numbered(3)), Notebook()
    monkeypatch.setattr(Notebook, "close", lambda self: None, raising=False)
    monkeypatch.setattr(pump, "tracker_of", lambda folder, name: tracker)
    monkeypatch.setattr(os, "nice", lambda increment: 0)
    read, write = os.pipe()
    os.close(write)
    before = os.dup(0)
    try:
        os.dup2(read, 0)
        with locked(folder):
            parent = os.getpid() if whose == "its own" else 1
            monkeypatch.setattr(os, "getppid", lambda: parent)
            assert pump.main([str(folder.root), "mlflow"]) == 0
            assert len(tracker.lines) == (3 if whose == "its own" else 0)
        assert pump.main([str(folder.root), "mlflow"]) == 0
        assert len(tracker.lines) == 3
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(read)


def test_sync_says_in_one_line_that_the_server_cannot_be_reached(studies: Path) -> None:
    address = {"tracking_uri": "http://127.0.0.1:9", "experiment": None}
    folder = study(studies, [started(0), ended(0, Ending.COMPLETE, 1.0)], mlflow=address)
    with pytest.raises(HpoError, match=r"^MLflow at http://127.0.0.1:9 cannot be written to: Connection refused\. "):
        sync(folder, sleep=lambda seconds: None)
    assert pump.behind(folder) > 0


def test_sync_of_an_untracked_study_is_a_mistake(studies: Path) -> None:
    with pytest.raises(UserError, match="is not tracked"):
        sync(study(studies, [], mlflow=None))


def test_sync_beside_the_studys_own_pump_is_refused(studies: Path) -> None:
    folder = study(studies, [])
    with pump._alone(folder, wait=False), pytest.raises(UserError, match="by its own run"):
        sync(folder)


def test_the_room_is_imported_without_any_tracker(tmp_path: Path) -> None:
    script = (
        "import sys, hpo.track, hpo.track.pump, hpo.track.mlflow.runs, hpo.track.mlflow.registry, "
        "hpo.track.mlflow.server, hpo.track.mlflow.pages, hpo.track.wandb.runs, hpo.track.words; "
        "print([name for name in ('mlflow', 'wandb', 'sqlalchemy', 'pandas', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_a_fresh_store_that_several_processes_want_at_once_is_made_once(tmp_path: Path) -> None:
    script = "import sys; from hpo.track.mlflow import store; print(store.client(sys.argv[1]).get_experiment('0').name)"
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    command = [sys.executable, "-c", script, uri]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == ["Default"] * 2
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".mlflow.db.lock", "mlflow.db"]
