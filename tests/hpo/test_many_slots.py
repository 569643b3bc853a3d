"""Thirty-two trials at once on the embedded default: no database, one coordinator, none lost."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpo.folder import StudyFolder
from hpo.journal import History
from hpo.run import reopened
from hpo.study import Study
from hpo.trials import Ending

HPO = str(Path(sys.executable).with_name("hpo"))
SLOTS, TRIALS = 32, 64


def test_of_thirty_two_trials_at_once_none_is_lost(workplace: Path) -> None:
    folder, gate = StudyFolder(workplace / "studies" / "sweep"), workplace / "gate"
    options = [f"--slots={SLOTS}", f"--trials={TRIALS}", "--set", f"gate={gate}", "--set", "search.pruner=none"]
    with Path("said.txt").open("wb") as said:
        process = subprocess.Popen([HPO, "run", "sweep.yaml", *options], stdout=said, stderr=said)
    try:
        until = time.monotonic() + 60
        while len(History.read(folder.journal).trials) < SLOTS:  # all of them run, and none goes on
            assert process.poll() is None, Path("said.txt").read_text()
            assert time.monotonic() < until, Path("said.txt").read_text()
            time.sleep(0.05)
        assert History.read(folder.journal).ended == []
        gate.touch()
        assert process.wait(100) == 0, Path("said.txt").read_text()
    finally:
        process.kill()
        process.wait()
    history = History.read(folder.journal)
    assert sorted(history.trials) == list(range(TRIALS))
    for trial in history.trials.values():
        assert trial.ending is Ending.COMPLETE
        assert trial.attempts == 1
        assert [m.progress for m in trial.measurements] == [300, 600, 900]
    stored = Study(reopened(folder), folder, history, 300).mirror.trials
    assert [(t.number, t.state.name, t.value) for t in stored] == [
        (trial.number, "COMPLETE", trial.value) for trial in history.trials.values()
    ]
    for trial, record in zip(stored, history.trials.values(), strict=True):
        assert trial.params == pytest.approx(record.parameters)  # those on a step are recorded rounded
