"""The journal: what is written is read, a torn line is mended, one coordinator at a time."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from fractions import Fraction
from pathlib import Path

import pytest

from hpo.errors import UserError
from hpo.folder import StudyFolder, find_study, is_locked, locked
from hpo.journal import History, Journal, JournalError, StudyState, decode, lines
from hpo.trials import Assignment, Ended, Ending, Interrupted, Measurement, Outcome, Progressed, Started

ASSIGNMENT = Assignment(
    0, {"lr": 0.1}, {"lr": 0.1, "layers": 2}, seed=7, rungs=(Fraction(1, 9), Fraction(1)), protected=True
)


def written(path: Path) -> History:
    with Journal(path, lambda: 12.5) as journal:
        journal.append(StudyState("running"))
        journal.append(Started(ASSIGNMENT, slot=1))
        journal.append(Progressed(0, Measurement(10, {"loss": 2.0, "bad": math.nan, "worse": math.inf}), 1.5, 90))
        journal.append(Ended(0, Outcome(Ending.COMPLETE), 3.0, 1.25))
    return History.read(path)


def test_a_trial_is_read_as_it_was_written(tmp_path: Path) -> None:
    trial = written(tmp_path / "journal.jsonl").trials[0]
    assert (trial.parameters, trial.settings, trial.seed, trial.slot) == ({"lr": 0.1}, {"lr": 0.1, "layers": 2}, 7, 1)
    assert (trial.state, trial.value, trial.seconds, trial.progress, trial.length) == ("complete", 1.25, 3.0, 10, 90)
    assert trial.metrics["loss"] == 2.0
    assert math.isnan(trial.metrics["bad"])
    assert trial.metrics["worse"] == math.inf


def test_an_assignment_is_recovered_whole(tmp_path: Path) -> None:
    assert written(tmp_path / "journal.jsonl").assignment(0) == ASSIGNMENT


def test_every_line_is_json_without_nan(tmp_path: Path) -> None:
    written(tmp_path / "journal.jsonl")

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    for line in (tmp_path / "journal.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_cut_and_the_rest_kept(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.jsonl"
    written(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert History.read(path).trials[0].state == "running"
    with Journal(path, lambda: 1.0) as journal:
        journal.append(Ended(0, Outcome(Ending.FAILED, "why"), 3.0))
    assert History.read(path).trials[0].reason == "why"
    assert path.read_bytes().startswith(whole[: whole.rstrip(b"\n").rfind(b"\n") + 1])


def test_a_line_that_the_disk_takes_only_in_part_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    written(path)
    before = path.read_bytes()
    whole_write = os.write
    with Journal(path, lambda: 1.0) as journal:
        monkeypatch.setattr(os, "write", lambda descriptor, data: whole_write(descriptor, data[:20]))
        with pytest.raises(JournalError, match="No space left"):
            journal.append(StudyState("finished"))
        assert path.read_bytes() == before
        monkeypatch.undo()
        journal.append(StudyState("finished"))
    assert History.read(path).state == "finished"


def test_reading_goes_on_from_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    written(path)
    offsets = [offset for offset, _ in lines(path)]
    assert [line["event"] for _, line in lines(path, offsets[1])] == ["measured", "ended"]
    assert offsets[-1] == path.stat().st_size


def test_a_trial_set_aside_is_unfinished_until_it_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, lambda: 1.0) as journal:
        journal.append(Started(ASSIGNMENT, slot=0))
        journal.append(Interrupted(0, 4.0))
        history = History.read(path)
        assert [trial.state for trial in history.unfinished] == ["interrupted"]
        journal.append(Started(ASSIGNMENT, slot=1, resumed=True))
    trial = History.read(path).trials[0]
    assert (trial.state, trial.attempts, trial.seconds, trial.slot) == ("running", 2, 4.0, 1)


def _hold(root: Path, held: multiprocessing.synchronize.Event, release: multiprocessing.synchronize.Event) -> None:
    with locked(StudyFolder(root)):
        held.set()
        release.wait(30)


def test_a_study_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    folder = StudyFolder(tmp_path)
    holder = context.Process(target=_hold, args=(tmp_path, held, release))
    holder.start()
    assert held.wait(30)
    assert is_locked(folder)
    with pytest.raises(UserError, match=f"run by process {holder.pid} on"), locked(folder):
        pass
    holder.kill()
    holder.join()
    assert not is_locked(folder)
    with locked(folder):
        assert is_locked(folder)


def test_a_study_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart" / "study.json").write_text("{}")
    with pytest.raises(UserError, match="Did you mean 'quickstart'"):
        find_study(tmp_path, "quikstart")


def test_a_warm_up_is_read_as_it_was_written_and_not_written_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events = [Progressed(0, Measurement(progress, {"loss": 2.0}), 1.5, 90, warmup=30) for progress in (10, 20)]
    with Journal(path, lambda: 12.5) as journal:
        journal.append(Started(ASSIGNMENT, slot=1))
        for event in events:
            journal.append(event)
    history = History.read(path)
    assert history.trials[0].warmup == 30
    assert [decode(line, history) for _, line in lines(path)][1:] == events
    written(tmp_path / "other.jsonl")
    assert "warmup" not in (tmp_path / "other.jsonl").read_text()
