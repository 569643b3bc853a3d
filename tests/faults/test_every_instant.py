"""The coordinator's death between any two of its writes, one after the other: no chance in it.

Its state on disk changes only when it writes to the journal or to Optuna's store. So a study that is cut after each
of these writes in turn, with the checkpoints there were, stands for a death at any instant. A line torn in its
middle, and a store of Optuna's that a power cut has taken further back (it is not synced), are cuts as well.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from oracles import check_optuna, check_same

from hpo.folder import StudyFolder
from hpo.journal import History, Journal, JournalError
from hpo.launch.inline import Inline
from hpo.plan import Plan
from hpo.search import Search
from hpo.store import Store
from hpo.study import Study, plan

HERE = Path(__file__).parent
_TRIALS = 14


@dataclass(frozen=True)
class Instant:
    """What was on disk after one write: sizes in bytes, and a copy of the trials' folders."""

    journal: int
    optuna: int
    trials: Path


def _searched(planned: Plan, folder: StudyFolder, trials: int) -> History:
    history = History.read(folder.journal)
    study = Study(planned, folder, history, 25)
    with Journal(folder.journal, lambda: 0.0) as journal:
        list(Search(study, Inline(planned.objective), journal, folder, history, trials, lambda: False).events())
    return History.read(folder.journal)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.fixture(scope="module")
def planned() -> Plan:
    sweep = HERE / "sweep.yaml"
    # Few random trials at first, so that the model behind the sampler is asked too.
    changes = ["pace=0", f"search.trials={_TRIALS}", "search.sampler={name: tpe, n_startup_trials: 5}"]
    return plan(sweep.read_text(), sweep, changes)


@pytest.fixture(scope="module")
def whole(planned: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, list[Instant]]:
    """A study that was let go to its end, and every instant of it."""
    root = tmp_path_factory.mktemp("whole")
    folder = StudyFolder(root / "study")
    folder.trial(0).mkdir(parents=True)
    instants: list[Instant] = []

    def note() -> None:
        copy = root / f"trials-{len(instants)}"
        shutil.copytree(folder.root / "trials", copy)
        instants.append(Instant(_size(folder.journal), _size(folder.optuna), copy))

    def noted(write: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            write(*arguments)
            note()

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "append", noted(Journal.append))
        patch.setattr(Store, "append_logs", noted(Store.append_logs))
        _searched(planned, folder, _TRIALS)
    return folder, instants


def _cut(whole: StudyFolder, instant: Instant, root: Path) -> StudyFolder:
    folder = StudyFolder(root / "study")
    shutil.rmtree(folder.root, ignore_errors=True)
    shutil.copytree(instant.trials, folder.root / "trials")
    folder.journal.write_bytes(whole.journal.read_bytes()[: max(0, instant.journal)])
    folder.optuna.write_bytes(whole.optuna.read_bytes()[: max(0, instant.optuna)])
    return folder


def _go_on(planned: Plan, whole: tuple[StudyFolder, list[Instant]], instants: list[Instant], root: Path) -> None:
    folder, _ = whole
    twin = History.read(folder.journal)
    for instant in instants:
        cut = _cut(folder, instant, root)
        history = _searched(planned, cut, _TRIALS)
        try:
            assert list(history.trials) == list(range(_TRIALS))
            check_same(history, twin)
            check_optuna(cut, history)
        except AssertionError as error:
            raise AssertionError(f"cut at {instant}: {error}") from error


def _torn(instants: list[Instant]) -> list[Instant]:
    """Each write stopped in its middle; Optuna's store put back by up to three lines."""
    torn = []
    for before, after in itertools.pairwise(instants):
        journal, optuna = (before.journal + after.journal) // 2, (before.optuna + after.optuna) // 2
        torn.append(Instant(journal, optuna, before.trials))
    late = [Instant(one.journal, instants[max(0, at - 7)].optuna, one.trials) for at, one in enumerate(instants)]
    return torn + late


def test_a_death_after_any_write_changes_nothing(
    planned: Plan, whole: tuple[StudyFolder, list[Instant]], tmp_path: Path
) -> None:
    # A prime step: within a dozen trials every kind of write comes to its turn.
    _go_on(planned, whole, whole[1][::11], tmp_path)


def test_a_write_that_a_death_tore_apart_changes_nothing(
    planned: Plan, whole: tuple[StudyFolder, list[Instant]], tmp_path: Path
) -> None:
    _go_on(planned, whole, _torn(whole[1])[::23], tmp_path)


@pytest.mark.parametrize("call", [3, 24, 50])
def test_a_journal_that_takes_half_a_line_stops_the_study_and_loses_nothing(
    planned: Plan, whole: tuple[StudyFolder, list[Instant]], tmp_path: Path, call: int
) -> None:
    write, calls = os.write, itertools.count(1)

    def half(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[: len(data) // 2] if next(calls) == call else data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", half)
        _stops(planned, tmp_path)
    check_same(_searched(planned, StudyFolder(tmp_path), _TRIALS), History.read(whole[0].journal))


@pytest.mark.parametrize("call", [2, 31, 90])
def test_a_store_of_optunas_that_takes_nothing_more_stops_the_study_and_loses_nothing(
    planned: Plan, whole: tuple[StudyFolder, list[Instant]], tmp_path: Path, call: int
) -> None:
    open_, calls = Path.open, itertools.count(1)

    def full(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if path.name == "optuna.jsonl" and mode == "a" and next(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open_(path, mode, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", full)
        _stops(planned, tmp_path)
    check_same(_searched(planned, StudyFolder(tmp_path), _TRIALS), History.read(whole[0].journal))


def _stops(planned: Plan, root: Path) -> None:
    with pytest.raises(JournalError, match=r"No space left on device .*resume from the last checkpoints"):
        _searched(planned, StudyFolder(root), _TRIALS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_death_after_every_single_write_changes_nothing(
    planned: Plan, whole: tuple[StudyFolder, list[Instant]], tmp_path: Path
) -> None:
    _go_on(planned, whole, whole[1] + _torn(whole[1]), tmp_path)


# -- rules that set trials aside ------------------------------------------------------------------------

_RULES = {
    "pausing halving": ["search.pruner=pausing halving"],
    "best of rung": ["search.pruner={name: best of rung, keep: 2}"],
    "front by front": ["search.pruner=pausing halving", "tradeoff=[{name: train/loss, direction: minimize}]"],
}


class Death(BaseException):
    """Nothing catches it, as nothing catches kill -9."""


def _dying(planned: Plan, folder: StudyFolder, lines: int) -> bool:
    """Search until the journal has got so many lines; whether the search was over before."""
    write, left = Journal.append, itertools.count(lines - 1, -1)

    def last(journal: Journal, event: Any) -> None:
        write(journal, event)
        if next(left) <= 0:
            raise Death

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "append", last)
        try:
            _searched(planned, folder, _WAITERS)
        except Death:
            return False
    return True


_WAITERS = 10


@pytest.fixture(scope="module", params=list(_RULES))
def waiting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, History]:
    """A sweep whose trials are set aside and taken up again, and how it ends where nothing happens to it."""
    sweep = HERE / "sweep.yaml"
    changes = ["pace=0", "search.sampler=random", "search.rungs=[1/8, 3/8, 1.0]", *_RULES[request.param]]
    planned = plan(sweep.read_text(), sweep, changes)
    return planned, _searched(planned, StudyFolder(_made(tmp_path_factory.mktemp("waiting"))), _WAITERS)


def _made(root: Path) -> Path:
    (root / "trials").mkdir(parents=True)
    return root


def _same(folder: StudyFolder, twin: History, deaths: int) -> None:
    history = History.read(folder.journal)
    check_same(history, twin)
    check_optuna(folder, history)
    # Each death makes one trial begin again, and no other: none is set aside that had just been taken up.
    begun, expected = (sum(trial.attempts for trial in one.trials.values()) for one in (history, twin))
    assert begun <= expected + deaths, f"{begun} starts, of which {expected} + {deaths} were needed"


def test_what_waits_and_what_goes_on_is_the_same_after_a_death_at_any_line(
    waiting: tuple[Plan, History], tmp_path: Path
) -> None:
    planned, twin = waiting
    assert any(trial.attempts > 1 for trial in twin.trials.values())
    for lines in itertools.count(1):
        folder = StudyFolder(_made(tmp_path / f"{lines}"))
        if _dying(planned, folder, lines):
            break
        _searched(planned, folder, _WAITERS)
        try:
            _same(folder, twin, 1)
        except AssertionError as error:
            raise AssertionError(f"died after line {lines}: {error}") from error


@pytest.mark.parametrize("lines", [2, 3])
def test_what_waits_and_what_goes_on_is_the_same_after_death_upon_death(
    waiting: tuple[Plan, History], tmp_path: Path, lines: int
) -> None:
    planned, twin = waiting
    folder = StudyFolder(_made(tmp_path / "study"))
    for deaths in itertools.count():
        if _dying(planned, folder, lines):
            break
        assert deaths < 200, "it comes no further"
    _same(folder, twin, deaths)
