"""A disk that fills up in the middle of a study, is freed, and the study resumed: in the end nothing shows of it.

On a real one, a small tmpfs, for which one must be root. Each record refusing a line is in test_every_instant.py.
The long form: `python -m pytest tests/faults/test_full_disk.py -m slow -n 0`.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Commands, await_true
from oracles import check_folders, check_journal, check_mlflow, check_optuna, check_same

from hpo.folder import StudyFolder
from hpo.journal import History
from hpo.track import pump

_PAGE = 4096  # what tmpfs gives a file at a time
_TRIALS = 14
_CLEAR = re.compile(r"^hpo: (?=.*No space left on device)(?=.*/small).*$", re.MULTILINE)


class Disk:
    """A small disk of its own, which can be filled up to the last so many pages, and freed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, pages_left: int) -> None:
        with self._filler.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(16 * _PAGE))
            # Whole pages only: what a part of one holds is not given back.
            size = os.fstat(file.fileno()).st_size // _PAGE * _PAGE
            file.truncate(max(0, size - pages_left * _PAGE))

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(place: Path) -> Iterator[Disk]:
    path = place / "small"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


class Flood:
    """Runs a study on a small disk and fills it, once in each run of the study."""

    def __init__(self, commands: Commands, disk: Disk, twin: History, options: tuple[str, ...]) -> None:
        self._commands = commands
        self._disk = disk
        self._lines = sum(len(trial.measurements) + 2 for trial in twin.trials.values())
        self._options = options
        self.folder = StudyFolder(disk.path / "sweep")

    def go_on(self) -> tuple[str, ...]:
        if self.folder.exists:
            return ("resume", "sweep", "--studies", str(self._disk.path))
        return ("run", "sweep.yaml", "--studies", str(self._disk.path), "--trials", str(_TRIALS), *self._options)

    def fill_once(self, share: float, pages_left: int) -> bool:
        """Fill the disk when this share of the study is written. Whether that stopped it."""
        before = self._commands.said.stat().st_size
        process = self._commands.start(*self.go_on())
        await_true(lambda: self._written() >= share * self._lines or process.poll() is not None, 60)
        self._disk.fill(pages_left)
        code = process.wait(120)
        self._disk.free()
        said = self._commands.said.read_bytes()[before:].decode()
        assert "Traceback" not in said, said
        if code == 0:
            return False
        made = self.folder.exists
        assert code == (1 if made else 2), said  # a study that cannot be made is a matter of where it is to be
        assert len(_CLEAR.findall(said)) == 1, said
        return True

    def _written(self) -> int:
        path = self.folder.journal
        return path.read_bytes().count(b'"trial"') if path.exists() else 0


def _check(flood: Flood, commands: Commands, twin: History) -> History:
    assert commands.run(*flood.go_on()) == 0, commands.said.read_text()[-3000:]
    assert commands.left_behind(90) == []
    history = check_journal(flood.folder, _TRIALS)
    check_optuna(flood.folder, history)
    check_folders(flood.folder, history)
    check_same(history, twin)
    return history


def test_a_disk_filled_and_freed_loses_nothing(
    disk: Disk, commands: Commands, undisturbed: Callable[..., History]
) -> None:
    """With no page left a trial's checkpoint is refused, with some left the records or the logs are first."""
    twin = undisturbed(_TRIALS)
    flood = Flood(commands, disk, twin, ("--set", "track={}"))
    stopped = [flood.fill_once(share, pages) for share, pages in ((0.1, 0), (0.3, 3), (0.6, 2))]
    assert stopped[0]
    assert sum(stopped) >= 2
    _check(flood, commands, twin)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
def test_a_disk_filled_to_many_levels_loses_nothing_and_mlflow_has_it_all(
    disk: Disk, uri: str, commands: Commands, undisturbed: Callable[..., History], seed: int
) -> None:
    twin = undisturbed(_TRIALS)
    flood = Flood(commands, disk, twin, ("--set", f"track.mlflow.tracking_uri={uri}"))
    draw = random.Random(seed)
    levels = [draw.randrange(6) for _ in range(8)]
    for number, pages in enumerate(levels):
        flood.fill_once(0.8 * number / len(levels), pages)
    history = _check(flood, commands, twin)
    pump.sync(flood.folder)
    check_mlflow(flood.folder, history, uri)
