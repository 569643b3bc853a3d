"""The machine's clock set forwards and backwards by a day in the middle of a study: no time shown goes mad of it.

The long form runs real commands, all of whose processes have a clock that can be set.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Commands, await_true
from oracles import check_journal, check_mlflow, check_optuna, check_same
from rich.console import Console

from hpo.folder import StudyFolder, StudyRecord
from hpo.journal import History
from hpo.report import study_view
from hpo.run import conduct, create, reopen
from hpo.summary import Summary
from hpo.track import pump

_DAY = 86_400.0
_TRIALS = 6
ROOT = Path(__file__).parents[2]
# Imported by every Python that a command starts, before anything else: its clock is off by what stands in a file.
# libfaketime would do, but Python 3.11's sleep fails under it.
_OFF_CLOCK = """
import os, time
_real = time.time

def _off():
    with open(os.environ["OFFSET"]) as file:
        return _real() + float(file.read() or 0)

time.time = _off
"""


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Iterator[float]], None]]:
    """Have `time.time` be off by so many seconds, the next of them at each call."""
    real = time.time

    def set_(offsets: Iterator[float]) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + next(offsets))

    yield set_
    monkeypatch.undo()


def _jumps() -> Iterator[float]:
    """Right, a day ahead, a day behind, right again, each for some calls."""
    return itertools.cycle([0.0] * 13 + [_DAY] * 7 + [-_DAY] * 11)


def _run(folder: StudyFolder | None, *assignments: str) -> tuple[StudyFolder, str, str]:
    """A run of the study in this process: its folder, how it was left, and what was said."""
    said = io.StringIO()
    console = Console(file=said, width=200)
    if folder is None:
        changes = ["pace=0", "track={}", f"search.trials={_TRIALS}", *assignments]
        planned, folder = create(Path("sweep.yaml"), Path("studies"), None, changes)
    else:
        planned = reopen(folder, None)
    with contextlib.redirect_stdout(io.StringIO()):
        state = conduct(planned, folder, console=console, inline=True)
    console.print(study_view(Summary.read(folder)))
    return folder, state, said.getvalue()


def _check_times(folder: StudyFolder, said: str) -> History:
    """Of a study of a few seconds, nothing lasts for hours or less than nothing."""
    history = History.read(folder.journal)
    assert 0 <= history.seconds < 60
    assert all(0 <= trial.seconds < 10 for trial in history.trials.values())
    assert not re.search(r"-\d[\d.]* (s|min|h)\b|\d (h|d|days?)\b", said), said
    return history


def _track(folder: StudyFolder, uri: str) -> None:
    record = StudyRecord.read(folder)
    dataclasses.replace(record, mlflow={"tracking_uri": uri, "experiment": "faults"}).write(folder)
    pump.sync(folder)


def test_a_clock_that_jumps_during_a_study_changes_nothing_but_dates(
    place: Path, uri: str, set_clock: Callable[[Iterator[float]], None], undisturbed: Callable[..., History]
) -> None:
    set_clock(_jumps())
    folder, state, said = _run(None, "search.time_limit=1h")
    assert state == "finished"
    history = _check_times(folder, said)
    check_journal(folder, _TRIALS)
    check_optuna(folder, history)
    check_same(history, undisturbed(_TRIALS))
    _track(folder, uri)
    check_mlflow(folder, history, uri)


@pytest.mark.parametrize("days", [-1, pytest.param(1, marks=pytest.mark.slow)])
def test_a_study_resumed_on_another_day_by_the_clock_shows_what_it_found_last(
    place: Path, uri: str, set_clock: Callable[[Iterator[float]], None], days: int
) -> None:
    folder, state, _ = _run(None, "search.time_limit=0.0001s")
    assert state == "interrupted"
    assignments = StudyRecord.read(folder)
    kept = [text for text in assignments.assignments if not text.startswith("search.time_limit")]
    dataclasses.replace(assignments, assignments=kept).write(folder)
    _track(folder, uri)
    set_clock(itertools.repeat(days * _DAY))
    _, state, said = _run(folder)
    assert state == "finished"
    history = _check_times(folder, said)
    pump.sync(folder)
    check_mlflow(folder, history, uri)


def _has_lines(folder: StudyFolder, count: int) -> bool:
    return folder.journal.exists() and folder.journal.read_bytes().count(b"\n") >= count


@pytest.mark.slow
def test_commands_whose_clock_is_set_while_they_run_finish_as_ever(
    place: Path, uri: str, commands: Commands, undisturbed: Callable[..., History]
) -> None:
    setting = place / "offset"
    setting.write_text("0")
    (place / "early").mkdir()
    (place / "early" / "sitecustomize.py").write_text(_OFF_CLOCK)
    commands.environment |= {"PYTHONPATH": f"{place / 'early'}:{ROOT}", "OFFSET": str(setting)}
    folder = StudyFolder(place / "studies" / "sweep")
    process = commands.start("run", "sweep.yaml", "--set", "search.time_limit=1h")
    for lines, offset in ((10, _DAY), (25, -_DAY), (40, 0.0)):
        assert await_true(functools.partial(_has_lines, folder, lines), 60), commands.said.read_text()[-2000:]
        setting.write_text(str(offset))
    assert process.wait(180) == 0, commands.said.read_text()[-2000:]
    assert commands.left_behind(60) == []
    _check_times(folder, commands.said.read_text())
    history = check_journal(folder, 14)
    check_same(history, undisturbed(14))
    pump.sync(folder)
    check_mlflow(folder, history, uri)
