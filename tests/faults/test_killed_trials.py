"""Trials killed with -9 at random instants, and with them what they hang on: each goes on from its last checkpoint.

The long form: `python -m pytest tests/faults/test_killed_trials.py -m slow -n 0`; HPO_FAULTS_KILLS sets how many.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from commands import Commands, await_true
from oracles import check_folders, check_journal, check_mlflow, check_optuna, check_said, check_same

from hpo.folder import StudyFolder
from hpo.journal import History
from hpo.launch import Finished, Job, Report
from hpo.launch.processes import Processes
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
        _await_lines(process, folder, target)
        time.sleep(draw.uniform(0, 0.05))
        while not _trials(process) and process.poll() is None:
            time.sleep(0.005)
        if process.poll() is not None:
            return  # it was over before all were dealt
        with contextlib.suppress(psutil.Error, IndexError):
            draw.choice(_trials(process)).kill()


def _await_lines(process: subprocess.Popen[bytes], folder: StudyFolder, lines: float) -> None:
    await_true(lambda: _written(folder) >= lines or process.poll() is not None, 60)


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


@pytest.fixture
def slots(place: Path) -> Iterator[Processes]:
    made = Processes("curve.py:train", place, slots=2, threads=1, gpus=(), log=place / "launch.log")
    made.ready()
    yield made
    made.close()


def _job(number: int, log: Path, **settings: object) -> Job:
    values = {"learning_rate": 3e-3, "pace": 0.0, **settings}
    return Job(number, values, seed=4, rungs=(100, 200), directory=log.parent / str(number), log=log)


def _outcomes(launcher: Processes, count: int) -> dict[int, Finished]:
    found: dict[int, Finished] = {}
    while len(found) < count:
        for item in launcher.wait(5.0):
            if isinstance(item, Report):
                launcher.answer(item.number, go_on=True)
            elif isinstance(item, Finished):
                found[item.number] = item
    return found


def test_a_server_found_dead_when_a_trial_is_to_start_costs_that_try_and_no_more(place: Path, slots: Processes) -> None:
    server = psutil.Process(slots._server.pid)
    server.kill()
    psutil.wait_procs([server], timeout=5)
    slots.start(_job(0, place / "0.log"), 0)
    assert _outcomes(slots, 1)[0].outcome.ending is Ending.KILLED
    slots.start(_job(0, place / "0.log"), 0)
    assert _outcomes(slots, 1)[0].outcome.ending is Ending.COMPLETE


def test_a_trial_whose_log_has_no_room_says_so_and_the_other_slot_goes_on(place: Path, slots: Processes) -> None:
    full = place / "full.log"
    full.symlink_to("/dev/full")
    slots.start(_job(0, full, chatter=100_000), 0)
    slots.start(_job(1, place / "1.log", pace=0.05), 1)
    outcomes = _outcomes(slots, 2)
    assert outcomes[0].disk_full
    assert outcomes[1].outcome.ending is Ending.COMPLETE


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_killed_trials_change_nothing(
    place: Path, uri: str, commands: Commands, undisturbed: Callable[..., History]
) -> None:
    kills = int(os.environ.get("HPO_FAULTS_KILLS", "100"))
    twin = undisturbed(max(14, kills))
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


def _two_slots(folder: StudyFolder, trials: int) -> tuple[str, ...]:
    begin = ("run", "sweep.yaml", "--trials", str(trials), *_PATIENT)
    return (*(("resume", "sweep") if folder.exists else begin), "--slots", "2")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
def test_any_process_of_a_study_may_be_killed_in_two_slots(
    place: Path, uri: str, commands: Commands, seed: int
) -> None:
    """Trials, the server they are forked from, the pump, the coordinator: whatever chance finds, study resumed."""
    trials, draw = 20, random.Random(seed)
    folder = StudyFolder(place / "studies" / "sweep")
    go_on = functools.partial(_two_slots, folder, trials)
    for _ in range(15):
        process, written = commands.start(*go_on()), _written(folder)
        if draw.random() < 0.75:  # else in its start-up
            _await_lines(process, folder, written + 1)
        for _ in range(draw.randrange(1, 4)):
            time.sleep(draw.uniform(0, 0.4))
            with contextlib.suppress(psutil.Error, IndexError):
                draw.choice(psutil.Process(process.pid).children(recursive=True)).kill()
        process.kill()
        process.wait()
    commands.run(*go_on())  # 2 where nothing is left to resume
    assert commands.left_behind(90) == []
    check_said(commands.said)
    history = check_journal(folder, trials)
    check_optuna(folder, history)
    pump.sync(folder)
    check_mlflow(folder, history, uri)
