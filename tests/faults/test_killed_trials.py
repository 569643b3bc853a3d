"""Trials killed with -9 at random instants, and with them what they hang on: each goes on from its last checkpoint.

The long form: `python -m pytest tests/faults/test_killed_trials.py -m slow -n 0`; HPO_FAULTS_KILLS sets how many.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import Commands, await_true
from oracles import check_folders, check_journal, check_mlflow, check_optuna, check_said, check_same

from hpo.folder import StudyFolder
from hpo.journal import History
from hpo.track import pump
from hpo.trials import Ending

_PATIENT = ("--set", "on_failure={retries: 1000, wait: 0s, slot_failures: 1000}")


def _children(process: subprocess.Popen[bytes], module: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):
            if module in child.cmdline():
                found.append(child)
    return found


def _trials(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The forks of the server that trials are forked from."""
    with contextlib.suppress(psutil.Error):
        return [trial for server in _children(process, "hpo.launch.server") for trial in server.children()]
    return []


def _kill_trials(process: subprocess.Popen[bytes], folder: StudyFolder, lines: int, times: int, seed: int) -> None:
    """Kill a trial so many times, spread over the lines that the journal is to have."""
    draw = random.Random(seed)
    for number in range(times):
        written = _written(folder)
        target = written + draw.uniform(0, 2 * max(0, lines - written) / (times - number + 1))
        await_true(lambda wanted=target: _written(folder) >= wanted or process.poll() is not None, 60)  # type: ignore[misc]
        time.sleep(draw.uniform(0, 0.05))
        await_true(lambda: bool(_trials(process)) or process.poll() is not None, 30)
        assert process.poll() is None, "the study was over before all kills were dealt"
        with contextlib.suppress(psutil.Error, IndexError):
            draw.choice(_trials(process)).kill()


def _written(folder: StudyFolder) -> int:
    """Beginnings, measurements and endings in the journal, each counted once however often a trial is retried."""
    if not folder.journal.exists():
        return 0
    raw = folder.journal.read_bytes()
    return raw.count(b'"measured"') + raw.count(b'"ended"') + raw.count(b'"resumed": false')


def _lines(twin: History) -> int:
    return sum(len(trial.measurements) + 2 for trial in twin.trials.values())


def _setbacks(history: History) -> int:
    return sum(outcome.ending is Ending.KILLED for trial in history.trials.values() for outcome in trial.setbacks)


def test_killed_trials_go_on_from_their_checkpoints_and_the_study_is_as_if_they_had_not_been(
    place: Path, commands: Commands, undisturbed: Callable[..., History]
) -> None:
    twin = undisturbed(14)
    folder = StudyFolder(place / "studies" / "sweep")
    process = commands.start("run", "sweep.yaml", "--set", "track={}", *_PATIENT)
    _kill_trials(process, folder, _lines(twin), 8, seed=1)
    assert process.wait(120) == 0, commands.said.read_text()[-3000:]
    assert commands.left_behind(30) == []
    check_said(commands.said)
    history = check_journal(folder, 14)
    assert 4 <= _setbacks(history) <= 8
    check_optuna(folder, history)
    check_same(history, twin)
    check_folders(folder, history)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_killed_trials_change_nothing(
    place: Path, uri: str, commands: Commands, undisturbed: Callable[..., History]
) -> None:
    kills = int(os.environ.get("HPO_FAULTS_KILLS", "100"))
    twin = undisturbed(max(14, kills // 2))
    trials = len(twin.trials)
    folder = StudyFolder(place / "studies" / "sweep")
    process = commands.start("run", "sweep.yaml", "--trials", str(trials), *_PATIENT)
    _kill_trials(process, folder, _lines(twin), kills, seed=2)
    assert process.wait(600) == 0, commands.said.read_text()[-3000:]
    assert commands.left_behind(90) == []
    check_said(commands.said)
    history = check_journal(folder, trials)
    assert _setbacks(history) >= kills // 2
    check_optuna(folder, history)
    check_same(history, twin)
    check_folders(folder, history)
    pump.sync(folder)
    check_mlflow(folder, history, uri)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
def test_any_process_of_a_study_may_be_killed_in_two_slots(
    place: Path, uri: str, commands: Commands, seed: int
) -> None:
    """Trials, the server they are forked from, the pump, the coordinator: whatever chance finds, study resumed."""
    trials, draw = 20, random.Random(seed)
    folder = StudyFolder(place / "studies" / "sweep")
    for _ in range(30):
        go_on = ("resume", "sweep") if folder.exists else ("run", "sweep.yaml", "--trials", str(trials), *_PATIENT)
        process = commands.start(*go_on, "--slots", "2")
        until = time.monotonic() + draw.uniform(0.5, 2.5)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(draw.uniform(0.05, 0.4))
            with contextlib.suppress(psutil.Error, IndexError):
                draw.choice(psutil.Process(process.pid).children(recursive=True)).kill()
        if process.poll() is None:
            process.kill()
        process.wait()
        if folder.exists and len(History.read(folder.journal).ended) >= trials:
            break
    assert not folder.exists or commands.run("resume", "sweep", "--slots", "2") in (0, 2)
    assert commands.left_behind(90) == []
    check_said(commands.said)
    history = check_journal(folder, trials)
    check_optuna(folder, history)
    pump.sync(folder)
    check_mlflow(folder, history, uri)
