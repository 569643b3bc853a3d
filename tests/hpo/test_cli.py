"""The commands as a user meets them: real processes, real signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpo.promote import Promotion, results

HPO = str(Path(sys.executable).with_name("hpo"))
Write = Callable[..., Path]


def hpo(*arguments: str, code: int = 0) -> str:
    """Run a command to its end; its output, after its exit code was checked."""
    done = subprocess.run([HPO, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def shown(name: str = "sweep") -> dict[str, Any]:
    content = json.loads(hpo("show", name, "--json"))
    assert isinstance(content, dict)
    return content


STARTED: list[subprocess.Popen[str]] = []


def started(*arguments: str) -> subprocess.Popen[str]:
    STARTED.append(subprocess.Popen([HPO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    return STARTED[-1]


@pytest.fixture(autouse=True)
def nothing_stays_running() -> Iterator[None]:
    """Ends what a test started, and closes its pipe."""
    yield
    for process in STARTED:
        with process:
            process.kill()
    STARTED.clear()


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"the command ended before it said {words!r}")


@pytest.fixture
def gated(write_sweep: Write, workplace: Path) -> Path:
    """A sweep whose trials wait for a file before each measurement; the file's path."""
    gate = workplace / "open"
    write_sweep(("  tokens: 900", f"  tokens: 900\n  gate: {gate}"))
    return gate


def test_a_run_ends_with_a_finished_study_and_the_next_two_commands(workplace: Path) -> None:
    output = hpo("run", "sweep.yaml", "--slots", "2")
    assert "hpo ui sweep" in output
    assert "hpo promote sweep" in output
    content = shown()
    assert content["state"] == "finished"
    assert [trial["number"] for trial in content["trials"]] == list(range(6))
    assert content["baseline"]["params"] == {"learning_rate": 1e-4, "model.dropout": 0.1}


def test_inline_and_processes_find_the_same_with_one_slot(workplace: Path) -> None:
    hpo("run", "sweep.yaml", "--name", "inline", "--inline")
    hpo("run", "sweep.yaml", "--name", "slot", "--slots", "1")
    kept = ("number", "state", "params", "value", "progress", "metrics")
    first, second = (
        [{key: trial[key] for key in kept} for trial in shown(name)["trials"]] for name in ("inline", "slot")
    )
    assert first == second


def test_names_trials_and_settings_can_be_given_on_the_command_line(workplace: Path) -> None:
    hpo("run", "sweep.yaml", "--name", "mine", "--trials", "2", "--set", "tokens=90", "--set", "search.pruner=none")
    content = shown("mine")
    assert [trial["progress"] for trial in content["trials"]] == [90, 90]


def test_a_study_is_not_begun_twice(workplace: Path) -> None:
    hpo("run", "sweep.yaml", "--trials", "1")
    message = hpo("run", "sweep.yaml", code=2)
    assert "hpo resume sweep" in message
    assert "--name sweep-2" in message


def test_mistakes_are_printed_with_their_lines_and_nothing_is_left_behind(write_sweep: Write, workplace: Path) -> None:
    write_sweep(("  tokens: 900", "  tokns: 900"), ("trials: 6", "trials: 0"))
    message = hpo("run", "sweep.yaml", code=2)
    assert message.splitlines()[:2] == [
        "sweep.yaml:7: fixed.tokns: no such setting of objective.py. Did you mean 'tokens'?",
        "sweep.yaml:10: search.trials: requires a whole number from 1, got 0.",
    ]
    assert not (workplace / "studies").exists()


def test_data_that_is_refused_is_one_line_and_the_name_stays_free(write_sweep: Write, workplace: Path) -> None:
    write_sweep(("  tokens: 900", "  misbehave: data"))
    message = hpo("run", "sweep.yaml", code=1)
    assert "hpo: data.source: no file 'x.txt'. Give a path that exists." in message
    assert hpo("list").startswith("No studies")


def test_wrong_commands_names_and_files_say_what_to_do(workplace: Path) -> None:
    assert "Did you mean 'check'" in hpo("chekc", code=2)
    assert "no sweep file nowhere.yaml" in hpo("run", "nowhere.yaml", code=2)
    assert "no study 'nothing'" in hpo("show", "nothing", code=2)
    hpo("run", "sweep.yaml", "--trials", "1")
    assert "Did you mean 'sweep'" in hpo("resume", "sweeep", code=2)
    assert "no trial 7; it has 0 to 0" in hpo("show", "sweep", "7", code=2)
    assert "nothing is left to resume" in hpo("resume", "sweep", code=2)


def test_a_finished_study_is_extended(workplace: Path) -> None:
    hpo("run", "sweep.yaml", "--trials", "2")
    hpo("resume", "sweep", "--trials", "5")
    assert [trial["number"] for trial in shown()["trials"]] == list(range(5))
    assert hpo("list").splitlines()[1].split()[2] == "5/5"


def test_only_the_best_trials_folder_stays_unless_all_are_asked_for(workplace: Path) -> None:
    hpo("run", "sweep.yaml", "--name", "best")
    kept = [path.name for path in (workplace / "studies/best/trials").iterdir() if path.is_dir()]
    assert kept == [f"{shown('best')['best']['number']:04d}"]
    hpo("run", "sweep.yaml", "--name", "all", "--set", "launch.keep=all")
    assert len([path for path in (workplace / "studies/all/trials").iterdir() if path.is_dir()]) == 6


def test_ctrl_c_sets_trials_aside_and_resume_ends_with_exactly_the_asked_number(gated: Path) -> None:
    process = started("run", "sweep.yaml", "--slots", "2")
    read_until(process, "trial 1 started")
    process.send_signal(signal.SIGINT)
    read_until(process, "Stopping: each trial is set aside")
    gated.touch()
    assert process.wait(60) == 130
    content = shown()
    assert content["state"] == "interrupted"
    assert {trial["state"] for trial in content["trials"]} <= {"interrupted", "paused"}
    hpo("resume", "sweep")
    content = shown()
    assert content["state"] == "finished"
    assert [trial["number"] for trial in content["trials"]] == list(range(6))


def test_a_second_ctrl_c_stops_at_once_and_leaves_nothing_running(gated: Path) -> None:
    process = started("run", "sweep.yaml", "--slots", "2")
    read_until(process, "trial 1 started")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    read_until(process, "Stopping")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert psutil.wait_procs(children, timeout=10)[1] == []
    gated.touch()
    hpo("resume", "sweep")
    assert [trial["number"] for trial in shown()["trials"]] == list(range(6))


def test_a_killed_coordinator_loses_nothing(gated: Path) -> None:
    process = started("run", "sweep.yaml", "--slots", "2")
    read_until(process, "trial 1 started")
    process.kill()
    process.wait()
    assert shown()["state"] == "interrupted"
    gated.touch()
    hpo("resume", "sweep")
    trials = shown()["trials"]
    assert [trial["number"] for trial in trials] == list(range(6))
    lines = [json.loads(line) for line in Path("studies/sweep/journal.jsonl").read_text().splitlines()]
    ended = [line["trial"] for line in lines if line["event"] == "ended"]
    measured = [(line["trial"], line["progress"]) for line in lines if line["event"] == "measured"]
    assert sorted(ended) == list(range(6))
    assert len(set(measured)) == len(measured)


def test_a_trial_killed_from_outside_is_tried_again_and_the_study_goes_on(gated: Path) -> None:
    process = started("run", "sweep.yaml", "--slots", "1")
    read_until(process, "trial 0 started")
    deadline = time.monotonic() + 30
    victims: list[psutil.Process] = []
    while not victims and time.monotonic() < deadline:  # the trial is the server's child
        victims = [grandchild for child in psutil.Process(process.pid).children() for grandchild in child.children()]
    os.kill(victims[0].pid, signal.SIGKILL)
    gated.touch()
    process.communicate(timeout=60)
    assert process.returncode == 0
    content = shown()
    assert [trial["state"] for trial in content["trials"]].count("killed") == 0
    journal = (gated.parent / "studies" / "sweep" / "journal.jsonl").read_text()
    assert journal.count('"setback": "killed", "reason": "killed by SIGKILL"') == 1
    assert len(content["trials"]) == 6


def test_a_running_study_cannot_be_run_resumed_or_deleted_by_another(gated: Path) -> None:
    process = started("run", "sweep.yaml", "--slots", "1")
    read_until(process, "trial 0 started")
    for command in (("resume", "sweep"), ("delete", "sweep", "--yes")):
        assert f"is being run by process {process.pid}" in hpo(*command, code=2)
    assert shown()["state"] == "running"
    gated.touch()
    process.communicate(timeout=60)


def test_a_time_limit_leaves_in_good_order(gated: Path, workplace: Path) -> None:
    gated.touch()
    hpo("run", "sweep.yaml", "--set", "search.time_limit=0.0001s")
    content = shown()
    assert content["state"] == "interrupted"
    assert "time limit" in hpo("show", "sweep")


def test_a_study_at_its_time_limit_goes_on_when_it_is_resumed(gated: Path) -> None:
    gated.touch()
    hpo(
        "run",
        "sweep.yaml",
        "--set",
        "search.time_limit=2s",
        "--set",
        "search.trials=500",
        "--set",
        "search.sampler=random",
    )
    before = len(shown()["trials"])
    hpo("resume", "sweep")
    assert len(shown()["trials"]) > before


def test_a_folder_that_is_no_study_is_left_alone(write_sweep: Write, workplace: Path) -> None:
    write_sweep(("  tokens: 900", "  misbehave: data"))
    precious = workplace / "studies" / "mine" / "precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    assert "is there already and is no study" in hpo("run", "sweep.yaml", "--name", "mine", code=2)
    assert precious.read_text() == "mine"
    assert "where MLflow keeps its things" in hpo("run", "sweep.yaml", "--name", "mlartifacts", code=2)


def test_one_broken_study_does_not_hide_the_others(workplace: Path) -> None:
    hpo("run", "sweep.yaml", "--trials", "1")
    broken = workplace / "studies" / "broken"
    broken.mkdir()
    (broken / "study.json").write_text("{")
    assert "sweep" in hpo("list")
    assert "cannot be read" in hpo("show", "broken", code=2)


def test_a_studies_folder_that_cannot_be_one_is_one_line(workplace: Path) -> None:
    assert "Use --studies." in hpo("run", "sweep.yaml", "--studies", "/proc/nothing", code=2)
    assert "is no folder" in hpo("list", "--studies", "sweep.yaml", code=2)


def test_delete_asks_and_then_removes(workplace: Path) -> None:
    hpo("run", "sweep.yaml", "--trials", "1")
    refused = subprocess.run([HPO, "delete", "sweep"], input="n\n", capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert (workplace / "studies" / "sweep").exists()
    hpo("delete", "sweep", "--yes")
    assert not (workplace / "studies" / "sweep").exists()


def test_studies_can_live_elsewhere(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hpo promote sweep --studies elsewhere" in hpo(
        "run", "sweep.yaml", "--trials", "1", "--studies", "elsewhere"
    )
    monkeypatch.setenv("HPO_STUDIES", "elsewhere")
    assert shown()["name"] == "sweep"


def test_show_of_a_trial_has_its_settings_and_its_curve(workplace: Path) -> None:
    hpo("run", "sweep.yaml", "--trials", "1")
    page = hpo("show", "sweep", "0")
    assert "learning_rate" in page
    assert "searched" in page
    assert json.loads(hpo("show", "sweep", "0", "--json"))["progress"] == 900


class TestPromotion:
    def test_a_score_of_zero_stands_on_the_card_and_what_is_not_there_is_a_dash(self) -> None:
        tested = {"test/bleu": 0.0}
        promotion = Promotion(1, "s", "id", 0, 0.0, {}, {}, {}, test=tested, baseline_test={})
        assert results(promotion, "validation/bleu", 0.0, None) == [
            "| test/bleu | 0 | - |",
            "| validation/bleu | 0 | - |",
        ]

    def test_the_winner_is_trained_in_full_beside_the_baseline_and_tested(self, workplace: Path) -> None:
        hpo("run", "sweep.yaml", "--trials", "8")
        best = shown()["best"]
        output = hpo("promote", "sweep", "--set", "tokens=9000")
        promotion = json.loads((workplace / "studies/sweep/promotions/0001/promotion.json").read_text())
        assert promotion["trial"] == best["number"]
        assert promotion["settings"]["tokens"] == promotion["baseline_settings"]["tokens"] == 9000
        assert promotion["test"]["test/loss"] < promotion["baseline_test"]["test/loss"]
        assert "not registered: the study is not tracked" in output
        assert (workplace / "studies/sweep/promotions/0001/model/weights.json").exists()
        card = (workplace / "studies/sweep/promotions/0001/model/README.md").read_text()
        assert "hpo promote sweep --trial" in card
        assert "how much of the difference is chance" in card
        assert "promotion 1: trial" in hpo("show", "sweep")

    def test_the_commands_on_the_card_can_be_pasted_and_a_promoted_baseline_is_called_so(self, workplace: Path) -> None:
        hpo("run", "sweep.yaml", "--trials", "2", "--set", "search.pruner={name: none}")
        hpo("promote", "sweep", "--trial", "0")
        card = (workplace / "studies/sweep/promotions/0001/model/README.md").read_text()
        assert "--set 'search.pruner={name: none}'" in card
        assert "both columns are the same model" in card

    def test_an_interrupted_promotion_goes_on_where_it_was(self, gated: Path, workplace: Path) -> None:
        gated.touch()
        hpo("run", "sweep.yaml", "--trials", "8")
        gated.unlink()
        process = started("promote", "sweep", "--slots", "2")
        read_until(process, "trial 1 started")
        process.kill()
        process.wait()
        gated.touch()
        hpo("promote", "sweep")
        assert [path.name for path in (workplace / "studies/sweep/promotions").iterdir()] == ["0001"]

    def test_a_promotion_whose_run_failed_is_begun_anew(self, workplace: Path) -> None:
        hpo("run", "sweep.yaml", "--trials", "3")
        spoil = ("promote", "sweep", "--set", "misbehave=raise", "--set", "misbehave_above=0")
        assert "ended failed: RuntimeError" in hpo(*spoil, code=1)
        assert "ended failed: RuntimeError" in hpo(*spoil, code=1)
        assert len(list((workplace / "studies/sweep/promotions").iterdir())) == 2
        hpo("promote", "sweep")

    def test_an_interrupted_promotion_ends_with_130(self, gated: Path) -> None:
        gated.touch()
        hpo("run", "sweep.yaml", "--trials", "3")
        gated.unlink()
        process = started("promote", "sweep", "--slots", "2")
        read_until(process, "trial 1 started")
        process.send_signal(signal.SIGINT)
        read_until(process, "Stopping")
        gated.touch()
        assert process.wait(60) == 130

    def test_an_objective_that_does_not_say_its_length_can_be_promoted(self, workplace: Path) -> None:
        source = (workplace / "objective.py").read_text().replace("def length(", "def size(")
        source = source.replace("for rung in rungs:", "for rung in rungs or [config.tokens]:")
        (workplace / "objective.py").write_text(source)
        hpo("run", "sweep.yaml", "--trials", "3")
        hpo("promote", "sweep")

    def test_a_given_trial_is_promoted(self, workplace: Path) -> None:
        hpo("run", "sweep.yaml", "--trials", "3", "--set", "search.pruner=none")
        hpo("promote", "sweep", "--trial", "0")
        promotion = json.loads((workplace / "studies/sweep/promotions/0001/promotion.json").read_text())
        assert promotion["trial"] == 0
        assert promotion["test"] == promotion["baseline_test"]

    def test_an_objective_without_a_test_cannot_be_promoted(self, workplace: Path) -> None:
        hpo("run", "sweep.yaml", "--trials", "1")
        source = (workplace / "objective.py").read_text()
        (workplace / "objective.py").write_text(source.replace("def test(", "def examine("))
        assert "has no function test()" in hpo("promote", "sweep", code=2)

    def test_a_full_run_that_is_not_allowed_is_refused_before_it_starts(self, workplace: Path) -> None:
        hpo("run", "sweep.yaml", "--trials", "1")
        assert "tokens: should be greater than 0, got -1" in hpo("promote", "sweep", "--set", "tokens=-1", code=2)
        assert "Did you mean 'tokens'" in hpo("promote", "sweep", "--set", "tokns=1", code=2)
        assert not (workplace / "studies/sweep/promotions").exists()
