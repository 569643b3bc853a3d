"""What a death leaves lying about must not stand in the way of what comes after it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Commands

from hpo.folder import StudyFolder, write_atomically
from hpo.journal import History, Journal
from hpo.keeping import Keeper
from hpo.trials import Assignment, Direction, Ended, Ending, Outcome, Started

_DIE_WHILE_MAKING = """
import os, signal
from pathlib import Path
from hpo.folder import StudyRecord
from hpo.run import create
StudyRecord.write = lambda self, folder: os.kill(os.getpid(), signal.SIGKILL)
create(Path("sweep.yaml"), Path("studies"), None, [])
"""


def test_a_death_while_a_study_is_made_leaves_its_name_free(place: Path, commands: Commands) -> None:
    died = subprocess.run([sys.executable, "-c", _DIE_WHILE_MAKING], cwd=place, check=False)
    assert died.returncode == -signal.SIGKILL
    assert commands.run("list") == 0
    assert commands.run("run", "sweep.yaml", "--trials", "1", "--set", "track={}") == 0, commands.said.read_text()
    assert (place / "studies/sweep/study.json").exists()


def test_folders_of_trials_that_ended_right_before_a_death_are_removed_on_resuming(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    with Journal(folder.journal, lambda: 0.0) as journal:
        for number, value in enumerate([3.0, 1.0, 2.0]):
            folder.trial(number).mkdir(parents=True)
            journal.append(Started(Assignment(number, {}, {}, 0, (1,)), 0))
            journal.append(Ended(number, Outcome(Ending.COMPLETE), 1.0, value))
        folder.trial(3).mkdir()
        journal.append(Started(Assignment(3, {}, {}, 0, (1,)), 0))
    Keeper(folder, Direction.MINIMIZE, "best", History.read(folder.journal))
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == ["0001", "0003"]


def test_a_file_that_the_disk_does_not_take_is_named_and_nothing_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.json"
    path.write_text("before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*/study\.json"):
        write_atomically(path, "after")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("study.json", "before")]
