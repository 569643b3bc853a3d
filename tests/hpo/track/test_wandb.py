from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import wandb_files
from recorded import append, by_name, ended, journal_lines, measured, record, started, study, whole_search
from wandb_server import Server, serving

from hpo.errors import HpoError
from hpo.folder import StudyFolder, StudyRecord, locked
from hpo.journal import History, StudyState
from hpo.operation import WandbSettings
from hpo.registration import forget
from hpo.track import Refusal, pump, words
from hpo.track.mlflow.registry import PromotionRun
from hpo.track.progress import optimisation_curve
from hpo.track.pump import Courier, Pump, follow, read_cursor, sync
from hpo.track.wandb import destination, promotions
from hpo.track.wandb.contents import key, nested
from hpo.track.wandb.runs import WandbTracker
from hpo.trials import Direction, Ending, Interrupted, Measurement, Progressed

SETTINGS = {"project": None, "entity": None, "mode": "auto"}
ALONE: dict[str, Any] = {"mlflow": None, "wandb": SETTINGS}
KEY = "0123456789abcdef0123456789abcdef01234567"
NAMES = ["lr", *(f"trial-{number:04d}" for number in range(6))]


@pytest.fixture(autouse=True)
def _nobody_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as one:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", one.address)
        yield one


def equal(one: object, other: object) -> bool:
    """Equality in which NaN equals itself."""
    return repr(one) == repr(other)


def as_told(folder: StudyFolder) -> dict[int, list[dict[str, Any]]]:
    """The rows of each trial, from the journal's own lines."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for line in journal_lines(folder):
        if line["event"] == "started" and not line["resumed"]:
            rows[line["trial"]] = []
        if line["event"] == "measured":
            metrics = {name: float(value) for name, value in line["metrics"].items()}
            finite = {name: value if math.isfinite(value) else math.nan for name, value in metrics.items()}
            rows[line["trial"]].append({"progress": line["progress"], **finite, "_timestamp": line["at"]})
    return rows


def compare(folder: StudyFolder) -> None:
    """Every value of the journal is in the offline files, once, unrounded; and nothing else is."""
    found, history = wandb_files.runs(folder), History.read(folder.journal)
    rows = as_told(folder)
    assert set(found) == {folder.name, *(f"trial-{number:04d}" for number in rows)}
    for number, expected in rows.items():
        seen, trial = found[f"trial-{number:04d}"], history.trials[number]
        own = [{name: value for name, value in row.items() if name not in ("_step", "_runtime")} for row in seen.rows]
        assert [sorted(row) for row in own] == [sorted(row) for row in expected]
        for row, told in zip(own, expected, strict=True):
            assert all(equal(float(row[name]), float(told[name])) for name in told)
        settings = {name: value for name, value in seen.config.items() if name != "hpo"}
        assert settings == nested({**trial.settings, **trial.parameters})
        assert seen.config["hpo"]["trial"] == number
        assert seen.summary["hpo/ending"] == (trial.ending.value if trial.ending else "interrupted")
        assert seen.summary.get("hpo/value") == trial.value
        assert seen.summary.get("hpo/reason", "") == trial.reason
        last = expected[-1] if expected else {}
        assert all(equal(float(seen.summary[name]), float(value)) for name, value in last.items())
    compare_study(found[folder.name], history)


def compare_study(seen: wandb_files.Seen, history: History) -> None:
    points = optimisation_curve(history, Direction.MINIMIZE)
    curve = [row for row in seen.rows if "trials" not in row]
    assert [(row["trial"], row["search/best_validation_loss"]) for row in curve] == [(p.number, p.best) for p in points]
    table = [dict(zip(seen.table["columns"], row, strict=True)) for row in seen.table["data"]]
    assert [row["trial"] for row in table] == sorted(history.trials)
    for row, number in zip(table, sorted(history.trials), strict=True):
        trial = history.trials[number]
        assert (row["value"], row["progress"], row["reason"]) == (trial.value, trial.progress, trial.reason)
        assert {name: row[name] for name in trial.parameters} == trial.parameters


def test_every_value_of_the_journal_is_in_the_offline_files(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = study(studies, whole_search(), **ALONE)
    assert sync(folder) == len(whole_search())
    compare(folder)
    found = wandb_files.runs(folder)
    assert {name: seen.job_type for name, seen in found.items()} == {
        "lr": "study",
        **dict.fromkeys(NAMES[1:], "trial"),
    }
    assert {seen.group for seen in found.values()} == {"lr-lr-01234"}
    assert [found[name].exit_code for name in NAMES] == [0, 0, 0, 0, 0, 1, 1]
    assert found["trial-0000"].tags == ["baseline"]
    summary = found["lr"].summary
    assert (summary["hpo/best_trial"], summary["hpo/best_value"], summary["search/trials_complete"]) == (1, 2.25, 2)
    assert found["lr"].config["space"]["learning_rate"] == "0.0001 to 0.1 (log)"
    assert {path.name for path in tmp_path.iterdir()} == {"studies"}


def test_syncing_twice_changes_nothing(studies: Path) -> None:
    folder = study(studies, whole_search(), **ALONE)
    sync(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.tracking.rglob("*.wandb")}
    assert sync(folder) == 0
    assert sync(folder, from_start=True) == len(whole_search())
    assert {path: path.stat().st_mtime_ns for path in folder.tracking.rglob("*.wandb")} == before


def test_a_killed_pump_leaves_nothing_that_sync_does_not_mend(studies: Path) -> None:
    folder = study(studies, whole_search(), **ALONE)
    running = Pump.start(folder, "wandb")
    process = running._process
    assert process is not None
    deadline = time.monotonic() + 30
    while len(list(folder.tracking.glob("wandb/offline-run-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    assert not running.finish(10)
    half = next(folder.tracking.glob("wandb/offline-run-*"))
    (half.parent / "offline-run-20200101_000000-lr-0123456789abcdef-0005").mkdir()
    sync(folder)
    compare(folder)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, "the library's own process outlived the pump"


def test_a_trial_that_was_set_aside_is_replaced_when_it_has_ended(studies: Path) -> None:
    events = [StudyState("running"), started(0), measured(0, 100, 3.0), Interrupted(0, 1.0)]
    folder = study(studies, [*events, StudyState("interrupted", "Ctrl-C")], **ALONE)
    sync(folder)
    compare(folder)
    found = wandb_files.runs(folder)
    assert (found["lr"].exit_code, found["trial-0000"].exit_code) == (255, 255)
    assert found["lr"].summary["hpo/state"] == "interrupted: Ctrl-C"
    more = [started(0, resumed=True), measured(0, 300, 2.0), ended(0, Ending.COMPLETE, 2.0)]
    append(folder, [StudyState("running"), *more, StudyState("finished")])
    sync(folder)
    compare(folder)
    assert wandb_files.runs(folder)["trial-0000"].exit_code == 0


def test_what_a_dead_coordinator_left_running_is_written_as_set_aside(studies: Path) -> None:
    folder = study(studies, [StudyState("running"), started(0), measured(0, 100, 3.0)], **ALONE)
    with locked(folder):
        sync(folder)
        assert wandb_files.runs(folder) == {}
    sync(folder)
    compare(folder)
    assert "the coordinator died" in wandb_files.runs(folder)["lr"].summary["hpo/state"]


def test_both_trackers_get_the_same_from_one_journal(studies: Path, client: Any) -> None:
    folder = study(studies, whole_search(), wandb=SETTINGS)
    assert [said.partition("; ")[2] for said in pump.sync_all(folder)] == [
        "MLflow has everything.", "W&B has everything.",
    ]  # fmt: skip
    compare(folder)
    for name, seen in wandb_files.runs(folder).items():
        run = by_name(client, name)
        for metric in run.data.metrics:
            there = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]
            axis = "trial" if name == "lr" else "progress"
            here = [(row[axis], row[metric]) for row in seen.rows if metric in row]
            # MLflow keeps counts as a metric at step 0; at W&B a number that has no course is in the summary.
            assert equal(there, here) or seen.summary[metric] == there[-1][1]


def test_names_that_the_trackers_use_themselves_arrive_under_others(studies: Path) -> None:
    odd = Measurement(100, {"validation/loss": 3.0, "progress": 0.5, "_step": 0.25, "precision@5": 0.125})
    folder = study(studies, [started(0), Progressed(0, odd, 1.0), ended(0, Ending.COMPLETE, 3.0)], **ALONE)
    sync(folder)
    (row,) = wandb_files.runs(folder)["trial-0000"].rows
    assert (row["metric/progress"], row["metric/_step"], row["precision-at-5"]) == (0.5, 0.25, 0.125)
    assert (row["progress"], row["_step"]) == (100, 0)
    assert key("validation/loss") == "validation/loss"


def test_settings_by_dotted_name_become_a_tree_and_none_is_lost() -> None:
    assert nested({"a.b": 1, "a.c": {"d": 2}, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert nested({"a": 1, "a.b": 2}) == {"a": 1, "a.b": 2}
    assert nested({"a.b": 2, "a": 1}) == {"a": 1, "a.b": 2}


def test_other_peoples_settings_in_the_environment_change_nothing(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"WANDB_RUN_ID": "mine", "WANDB_RESUME": "must", "WANDB_DIR": str(tmp_path), "WANDB_PROJECT": "other"}
    for name, value in {**there, "WANDB_NAME": "n", "WANDB_TAGS": "x", "WANDB_SWEEP_ID": "s"}.items():
        monkeypatch.setenv(name, value)
    folder = study(studies, [started(0), measured(0, 1, 1.0), ended(0, Ending.COMPLETE, 1.0)], **ALONE)
    sync(folder)
    compare(folder)
    assert wandb_files.runs(folder)["trial-0000"].project == "lr"
    assert os.environ["WANDB_RESUME"] == "must"


def test_a_promotion_is_a_run_of_its_own(studies: Path) -> None:
    folder = study(studies, [started(0), ended(0, Ending.COMPLETE, 1.0), StudyState("finished")], **ALONE)
    curve = [(1_790_000_100.5, Measurement(100, {"validation/loss": 1.5})), (1_790_000_101.5, Measurement(300, {}))]
    results: dict[str, Any] = {"test": {"test/loss": 1.25}, "baseline_test": {"test/loss": 2.5}}
    run = PromotionRun(1, 0, {"learning_rate": 0.1}, curve, 1_790_000_100.0, 1_790_000_200.0, **results)
    promotions.keep(folder, record(), run)
    sync(folder)
    sync(folder)
    seen = wandb_files.runs(folder)["promotion-0001"]
    assert (seen.job_type, seen.group, seen.exit_code) == ("promotion", "lr-lr-01234", 0)
    assert (seen.summary["test/loss"], seen.summary["baseline_test/loss"]) == (1.25, 2.5)
    assert [row["progress"] for row in seen.rows] == [100, 300]
    assert seen.config["learning_rate"] == 0.1


# -- where runs go --------------------------------------------------------------------------------------


def test_without_a_key_runs_are_written_offline_and_the_upload_is_said(studies: Path) -> None:
    folder = study(studies, whole_search()[:7], **ALONE)
    assert not destination.of_study(StudyRecord.read(folder)).online
    sync(folder)
    (line,) = words.next_steps(folder)
    assert line == f"W&B, 3 runs written offline. Upload them:  wandb sync {folder.tracking}/wandb"


def test_a_key_or_a_netrc_makes_it_online_and_wandb_mode_offline_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not destination.destination(WandbSettings(), "lr").online
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert destination.destination(WandbSettings(), "lr").shown == "https://api.wandb.ai, project lr"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.com")
    assert not destination.destination(WandbSettings(), "lr").online
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert destination.destination(WandbSettings(), "lr").online
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not destination.destination(WandbSettings(), "lr").online
    assert destination.destination(WandbSettings(mode="online"), "lr").online


def test_the_line_that_uploads_offline_runs_does_so_and_again_after_the_study_went_on(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = whole_search()
    folder = study(studies, [*events[:6], StudyState("interrupted", "Ctrl-C")], **ALONE)

    monkeypatch.chdir(tmp_path)  # its own log goes to ./wandb

    def upload(server: Server) -> None:
        sync(folder)
        (line,) = words.next_steps(folder)
        program, *arguments = line.partition("Upload them:  ")[2].split()
        there = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.address, "WANDB_ERROR_REPORTING": "false"}
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        done = subprocess.run(command, env={**os.environ, **there}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert destination.offline_runs(folder) == 0

    with serving() as server:
        upload(server)
        append(folder, [StudyState("running"), *events[6:]])
        upload(server)
        for number, expected in as_told(folder).items():
            rows = server.history(f"lr-0123456789abcdef-{number:04d}")
            assert [(row["progress"], row["_timestamp"]) for row in rows] == [
                (told["progress"], told["_timestamp"]) for told in expected
            ]
    assert words.next_steps(folder) == []


def test_of_a_deleted_study_what_was_uploaded_stays_and_is_named(
    studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = study(studies, whole_search(), mlflow=None, wandb={**SETTINGS, "entity": "team"})
    assert forget(folder) is None
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert forget(folder) == "at https://api.wandb.ai, project team/lr, as group lr-lr-01234"
    assert words.wandb_page(folder, StudyRecord.read(folder)) == ["W&B: https://wandb.ai/team/lr"]


# -- online, with a server on this machine --------------------------------------------------------------


class Present:
    """A coordinator that stays for some rounds and appends at each."""

    def __init__(self, folder: StudyFolder, rounds: list[Any], seen: Any) -> None:
        self.folder, self.rounds, self.seen = folder, rounds, seen

    @property
    def present(self) -> bool:
        return bool(self.rounds)

    def wait(self, seconds: float) -> None:
        self.seen()
        append(self.folder, self.rounds.pop(0))


def test_online_a_trial_is_shown_while_it_trains_and_each_row_is_there_once(studies: Path, server: Server) -> None:
    events = whole_search()
    folder = study(studies, events[:6], **ALONE)
    live: list[int] = []

    def look() -> None:
        deadline = time.monotonic() + 20
        while len(server.rows.get("lr-0123456789abcdef-0001", {})) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        live.append(len(server.history("lr-0123456789abcdef-0001")))
        assert "lr-0123456789abcdef-0001" not in server.closed

    tracker = WandbTracker(folder, StudyRecord.read(folder))
    try:
        assert follow(Courier(folder, tracker), Present(folder, [events[6:]], look))
    finally:
        tracker.close()
    assert live == [2]
    for number, expected in as_told(folder).items():
        rows = server.history(f"lr-0123456789abcdef-{number:04d}")
        assert [(row["progress"], row["_timestamp"]) for row in rows] == [
            (told["progress"], told["_timestamp"]) for told in expected
        ]
    assert server.closed["lr-0123456789abcdef-study"] == 0
    assert server.upserts["lr-0123456789abcdef-0001"]["groupName"] == "lr-lr-01234"
    assert not list(folder.tracking.glob("wandb/*run-2*"))


def test_rows_that_the_server_lost_are_sent_again_to_the_same_place(studies: Path, server: Server) -> None:
    folder = study(studies, whole_search()[:7], **ALONE)
    server.loses = 1
    sync(folder, sleep=lambda seconds: None)
    assert [row["progress"] for row in server.history("lr-0123456789abcdef-0001")] == [100, 300]
    assert sync(folder) == 0


def test_a_wrong_key_is_one_clear_line_and_nothing_is_lost(studies: Path, server: Server) -> None:
    server.refuses = True
    folder = study(studies, whole_search(), **ALONE)
    with pytest.raises(HpoError, match=r"^W&B at \S+, project lr cannot be written to: W&B refuses the key"):
        sync(folder)
    left = [path for path in folder.root.rglob("*") if path.is_file()]
    assert any(path.name == "debug-internal.log" for path in left)
    assert [path for path in left if KEY.encode() in path.read_bytes()] == []
    server.refuses = False
    assert sync(folder) > 0
    assert "trouble" not in read_cursor(folder, "wandb")


def test_a_study_without_the_key_that_its_sweep_asks_for_is_told_so_at_once(studies: Path) -> None:
    folder = study(studies, whole_search()[:3], mlflow=None, wandb={**SETTINGS, "mode": "online"})
    with pytest.raises(HpoError, match="W&B needs a key: set WANDB_API_KEY"):
        sync(folder)


def test_what_was_written_offline_is_written_online_once_there_is_a_key(
    studies: Path, request: pytest.FixtureRequest
) -> None:
    folder = study(studies, whole_search(), **ALONE)
    sync(folder)
    server = request.getfixturevalue("server")
    assert sync(folder) == len(whole_search())
    assert {number: len(server.history(f"lr-0123456789abcdef-{number:04d}")) for number in range(4)} == {
        0: 2, 1: 2, 2: 1, 3: 1,
    }  # fmt: skip
    assert destination.offline_runs(folder) == 0


def test_a_key_that_cannot_be_one_is_refused_too(
    studies: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    folder = study(studies, whole_search()[:3], **ALONE)
    with pytest.raises(HpoError, match="W&B refuses the key") as raised:
        sync(folder)
    assert isinstance(raised.value.__cause__, Refusal)


def test_a_server_that_is_not_there_is_said_in_a_line(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    folder = study(studies, whole_search()[:3], **ALONE)
    with pytest.raises(
        HpoError, match=r"^W&B at http://127.0.0.1:9, project lr cannot be written to: connection refus"
    ):
        sync(folder, sleep=lambda seconds: None)


def test_one_tracker_that_is_down_does_not_hold_up_the_other(
    studies: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    folder = study(studies, whole_search(), wandb=SETTINGS)
    said = pump.sync_all(folder)
    assert "MLflow has everything" in next(said)
    with pytest.raises(HpoError, match=r"^W&B at"):
        next(said)
    assert by_name(client, "lr").info.status == "FINISHED"


def hpo(*arguments: str) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("hpo")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_study_with_a_wrong_key_runs_to_its_end_and_says_so_in_a_line(
    write_sweep: Callable[..., Path], server: Server
) -> None:
    write_sweep(("track: {}", "track: [wandb]"))
    server.refuses = True
    code, said = hpo("run", "sweep.yaml", "--trials", "2", "--slots", "1")
    assert code == 0, said
    (line,) = [line for line in said.splitlines() if "key" in line]
    assert line == (
        f"W&B has not taken everything yet: {server.address}, project sweep: W&B refuses the key: "
        "user is not logged in. Nothing is lost: hpo sync sweep"
    )
    assert "Traceback" not in said
    code, said = hpo("ui", "sweep")
    assert (code, said) == (0, f"W&B: {server.address}, project sweep\n")
    server.refuses = False
    code, said = hpo("sync", "sweep")
    assert code == 0, said
    assert re.fullmatch(r"sweep: \d+ lines of the journal carried; W&B has everything.\n", said)
    assert [run["jobType"] for run in server.upserts.values()] == ["trial", "trial", "study"]
