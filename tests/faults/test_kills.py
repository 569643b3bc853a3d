"""The coordinator killed with -9 at random instants, and each time resumed: in the end nothing shows of it.

The long form: `python -m pytest tests/faults -m slow -n 0`, a hundred kills; HPO_FAULTS_KILLS sets another number.
"""

from __future__ import annotations

import os
import random
import sys
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

_NAME = "sweep"
_STARTUP_SECONDS = 0.9  # until the first trial begins, on an idle core; where it takes longer, more kills hit it
_GONE_SECONDS = 10.0
_CAUGHT_UP_SECONDS = 90.0


class Executioner:
    """Runs a study by command and kills its coordinator at random instants.

    A kill falls either into the start-up, at a random time of it, or at a random place of the journal that is still
    to be written, a random time after the line before it. So the instants are spread over all of the study
    however fast the machine is, and the last is dealt before the study is over.
    """

    def __init__(self, commands: Commands, lines: int, seed: int, options: tuple[str, ...]) -> None:
        self._commands = commands
        self._lines = lines
        self._random = random.Random(seed)
        self._options = options
        self.folder = StudyFolder(commands.where / "studies" / _NAME)
        self.kills = 0
        self.early = 0

    def go_on(self) -> tuple[str, ...]:
        if self.folder.exists:
            return ("resume", _NAME, *(("--slots", "2") if "--slots" in self._options else ()))
        return ("run", "sweep.yaml", "--name", _NAME, *self._options)

    def kill_many(self, times: int) -> None:
        for number in range(times):
            self._kill_once(times - number)

    def _kill_once(self, left: int) -> None:
        process = self._commands.start(*self.go_on())
        if self._random.random() < 0.3:
            self.early += 1
            time.sleep(self._random.uniform(0, _STARTUP_SECONDS))
        else:
            written = self._written()
            target = written + self._random.uniform(0, 2 * (self._lines - written) / (left + 1))
            await_true(lambda: self._written() >= target or process.poll() is not None, 60)
            time.sleep(self._random.uniform(0, 0.06))
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        said = self._commands.said
        assert process.poll() is None, f"it ended by itself, with {process.returncode}: {said.read_text()[-2000:]}"
        process.kill()
        process.wait()
        self.kills += 1
        workers = [child for child in family if not _is_pump(child)]
        assert psutil.wait_procs(workers, timeout=_GONE_SECONDS)[1] == [], "trials outlive their coordinator"

    def _written(self) -> int:
        """Lines of trials in the journal, those of the study's own runs left out."""
        path = self.folder.journal
        return path.read_bytes().count(b'"trial"') if path.exists() else 0


def _is_pump(process: psutil.Process) -> bool:
    try:
        return "hpo.track.pump" in process.cmdline()
    except psutil.Error:
        return True


def _lines(history: History) -> int:
    return sum(len(trial.measurements) + 2 for trial in history.trials.values())


def _check(folder: StudyFolder, commands: Commands, trials: int, uri: str) -> History:
    assert commands.left_behind(_CAUGHT_UP_SECONDS) == []
    check_said(commands.said)
    history = check_journal(folder, trials)
    check_optuna(folder, history)
    check_folders(folder, history)
    pump.sync(folder)
    check_mlflow(folder, history, uri)
    return history


def _one_slot(commands: Commands, uri: str, twin: History, kills: int, seed: int) -> Executioner:
    trials = len(twin.trials)
    executioner = Executioner(commands, _lines(twin), seed, ("--trials", str(trials)))
    executioner.kill_many(kills)
    assert commands.run(*executioner.go_on()) == 0, commands.said.read_text()[-3000:]
    check_same(_check(executioner.folder, commands, trials, uri), twin)
    return executioner


def test_a_coordinator_killed_six_times_leaves_what_an_undisturbed_study_leaves(
    place: Path, uri: str, commands: Commands, undisturbed: Callable[..., History]
) -> None:
    _one_slot(commands, uri, undisturbed(14), 6, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_coordinator_killed_a_hundred_times_leaves_what_an_undisturbed_study_leaves(
    place: Path, uri: str, commands: Commands, undisturbed: Callable[..., History]
) -> None:
    kills = int(os.environ.get("HPO_FAULTS_KILLS", "100"))
    began = time.monotonic()
    done = _one_slot(commands, uri, undisturbed(max(14, kills)), kills, seed=2)
    took = time.monotonic() - began
    sys.stdout.write(f"{done.kills} kills, {done.early} of them in the start-up, {took:.0f} s\n")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_with_two_slots_nothing_is_lost_either(
    place: Path, uri: str, commands: Commands, undisturbed: Callable[..., History]
) -> None:
    """Not compared with an undisturbed study: which of two trials measures first is chance, and the sampler sees it."""
    kills = int(os.environ.get("HPO_FAULTS_KILLS", "100")) // 4
    trials = max(14, kills)
    executioner = Executioner(commands, 2 * trials, 3, ("--trials", str(trials), "--slots", "2"))
    executioner.kill_many(kills)
    assert commands.run(*executioner.go_on()) == 0
    _check(executioner.folder, commands, trials, uri)
