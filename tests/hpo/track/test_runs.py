from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded import append, by_name, contents, ended, journal_lines, measured, record, started, study, whole_search

from hpo.errors import UserError
from hpo.folder import StudyFolder, StudyRecord, locked
from hpo.journal import StudyState
from hpo.operation import MlflowSettings
from hpo.track.mlflow import pages, store, view
from hpo.track.mlflow.runs import MlflowTracker, delete_study
from hpo.track.pump import Courier, read_cursor
from hpo.trials import Ending, Interrupted

Make = Callable[[StudyFolder], MlflowTracker]


def carry(folder: StudyFolder, tracker: Make, *, from_start: bool = False) -> Courier:
    courier = Courier(folder, tracker(folder), from_start=from_start)
    courier.carry()
    return courier


def test_every_measurement_is_in_mlflow_with_its_step_and_time(studies: Path, client: Any, tracker: Make) -> None:
    folder = study(studies, whole_search())
    carry(folder, tracker)
    expected: dict[tuple[str, str], list[tuple[int, int, str]]] = {}
    for line in journal_lines(folder):
        if line["event"] == "measured":
            for key, value in line["metrics"].items():
                stored = repr(float(value)) if math.isfinite(float(value)) else "nan"
                point = (line["progress"], round(line["at"] * 1000), stored)
                expected.setdefault((f"trial-{line['trial']:04d}", key), []).append(point)
    found = {
        (run["name"], key): history
        for run in contents(client).values()
        if "name" in run and run["name"].startswith("trial-")
        for key, history in run["metrics"].items()
    }
    assert found == expected


def test_carrying_a_journal_twice_changes_nothing(studies: Path, client: Any, tracker: Make) -> None:
    folder = study(studies, whole_search())
    carry(folder, tracker)
    before = contents(client)
    carry(folder, tracker, from_start=True)
    assert contents(client) == before


@pytest.mark.parametrize("carried", range(1, 20, 5))
def test_a_death_between_writing_and_moving_the_cursor_changes_nothing(
    studies: Path, client: Any, tracker: Make, carried: int
) -> None:
    events = whole_search()
    folder = study(studies, events[:carried])
    carry(folder, tracker)
    cursor = (folder.tracking / "mlflow.json").read_text()
    append(folder, events[carried:])
    carry(folder, tracker)
    before = contents(client)
    (folder.tracking / "mlflow.json").write_text(cursor)
    carry(folder, tracker)
    assert contents(client) == before


def test_a_journal_in_portions_comes_to_the_same_as_at_once(studies: Path, client: Any, tracker: Make) -> None:
    events = whole_search()
    slowly, at_once = study(studies, [], "slowly", sweep_name="a"), study(studies, events, "once", sweep_name="b")
    for event in events:
        append(slowly, [event])
        carry(slowly, tracker)
    carry(at_once, tracker)
    for name in [f"trial-{number:04d}" for number in range(6)]:
        one, other = [run for run in contents(client).values() if run.get("name") == name]
        assert one["metrics"] == other["metrics"]
        assert one["params"] == other["params"]
        assert (one["status"], one["times"]) == (other["status"], other["times"])
    assert by_name(client, "slowly").data.metrics == by_name(client, "once").data.metrics


def test_a_trial_that_was_stopped_has_not_failed(studies: Path, client: Any, tracker: Make) -> None:
    carry(study(studies, whole_search()), tracker)
    trials = [by_name(client, f"trial-{number:04d}") for number in range(6)]
    statuses = [trial.info.status for trial in trials]
    assert statuses == ["FINISHED", "FINISHED", "FINISHED", "FINISHED", "FAILED", "FAILED"]
    endings = [trial.data.tags["hpo.ending"] for trial in trials]
    assert endings == ["complete", "complete", "stopped", "diverged", "failed", "out of memory"]
    assert [trial.data.tags["optuna.state"] for trial in trials][1:4] == ["COMPLETE", "PRUNED", "FAIL"]
    assert trials[4].data.tags["mlflow.note.content"] == "failed: ValueError: no"


def test_the_log_of_a_failed_trial_lies_with_its_run(studies: Path, client: Any, tracker: Make) -> None:
    folder = study(studies, whole_search())
    folder.trial_log(4).write_text("Traceback ...\nValueError: no\n")
    carry(folder, tracker)
    run = by_name(client, "trial-0004")
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["0004.log"]
    assert (studies / "mlartifacts").is_dir()


def test_parameters_are_readable_and_exact_in_a_tag(studies: Path, client: Any, tracker: Make) -> None:
    carry(study(studies, whole_search()), tracker)
    run = by_name(client, "trial-0001")
    assert run.data.params == {"learning_rate": "0.002469", "batch_size": "8", "log10/learning_rate": "-2.607"}
    assert json.loads(run.data.tags["hpo.parameters"])["learning_rate"] == 0.0012345678 * 2


def test_the_best_so_far_starts_with_the_baseline_and_never_gets_worse(
    studies: Path, client: Any, tracker: Make
) -> None:
    carry(study(studies, whole_search()), tracker)
    run = by_name(client, "lr")
    history = client.get_metric_history(run.info.run_id, "search/best_validation_loss")
    assert [(m.step, m.value) for m in history] == [(0, 2.75), *((n, 2.25) for n in range(1, 6))]
    assert run.data.metrics["search/baseline_validation_loss"] == 2.75
    assert run.data.metrics["search/trials_complete"] == 2
    assert run.data.tags["hpo.best_trial"] == "1"
    assert run.data.tags["hpo.best_run_id"] == by_name(client, "trial-0001").info.run_id


def test_the_study_has_its_settings_files_and_data(studies: Path, client: Any, tracker: Make) -> None:
    carry(study(studies, whole_search()), tracker)
    run = by_name(client, "lr")
    assert run.data.params["fixed/model.layers"] == "2"
    assert run.data.params["space/learning_rate"] == "0.0001 to 0.1 (log)"
    assert sorted(file.path for file in client.list_artifacts(run.info.run_id)) == ["study.json", "sweep.yaml"]
    assert run.data.tags["signature.bleu"] == "nrefs:1|case:mixed"
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("sample", "9728d7c3e50ca25c")


def test_an_interrupted_trial_waits_and_goes_on_in_the_same_run(studies: Path, client: Any, tracker: Make) -> None:
    events = [StudyState("running"), started(0), measured(0, 100, 3.0), Interrupted(0, 1.0)]
    folder = study(studies, [*events, StudyState("interrupted", "Ctrl-C")])
    carry(folder, tracker)
    assert by_name(client, "trial-0000").info.status == "SCHEDULED"
    assert by_name(client, "lr").info.status == "KILLED"
    assert by_name(client, "lr").data.tags["hpo.state"] == "interrupted: Ctrl-C"
    append(folder, [StudyState("running"), started(0, resumed=True)])
    carry(folder, tracker)
    assert by_name(client, "trial-0000").info.status == "RUNNING"
    assert by_name(client, "lr").info.status == "RUNNING"
    append(folder, [measured(0, 300, 2.0), ended(0, Ending.COMPLETE, 2.0), StudyState("finished")])
    carry(folder, tracker)
    assert by_name(client, "trial-0000").info.status == "FINISHED"
    assert by_name(client, "lr").info.status == "FINISHED"


def test_what_a_dead_coordinator_left_running_is_shown_as_waiting(studies: Path, client: Any, tracker: Make) -> None:
    folder = study(studies, [StudyState("running"), started(0), measured(0, 100, 3.0)])
    courier = carry(folder, tracker)
    with locked(folder):
        courier.settle()
        assert by_name(client, "trial-0000").info.status == "RUNNING"
    courier.settle()
    assert by_name(client, "trial-0000").info.status == "SCHEDULED"
    assert by_name(client, "lr").info.status == "KILLED"


def test_names_that_mlflow_refuses_arrive_under_others(studies: Path, client: Any, tracker: Make) -> None:
    odd = measured(0, 100, 3.0, **{"precision@5": 0.5, "a//b": 0.25})
    carry(study(studies, [started(0, **{"top,k": 3}), odd]), tracker)
    run = by_name(client, "trial-0000")
    assert run.data.metrics["precision-at-5"] == 0.5
    assert run.data.metrics["a/b"] == 0.25
    assert run.data.params["top-k"] == "3"


def test_more_than_a_batch_takes_is_written_in_several(studies: Path, client: Any, tracker: Make) -> None:
    parameters = {f"p{index}": index for index in range(250)}
    metrics = {f"m{index}": float(index) for index in range(2500)}
    carry(study(studies, [started(0, **parameters), measured(0, 100, 3.0, **metrics)]), tracker)
    run = by_name(client, "trial-0000")
    assert len(run.data.params) == 250 + 3
    assert len(run.data.metrics) == 2500 + 2


def test_one_value_that_mlflow_refuses_does_not_hold_up_the_rest(studies: Path, client: Any, tracker: Make) -> None:
    folder = study(studies, [started(0)])
    carry(folder, tracker)
    run = by_name(client, "trial-0000")
    # The same parameter again with another value is what MLflow refuses.
    store.log(client, run.info.run_id, [store.metric("x", 1.0, 1.0, 1)], {"batch_size": "16", "new": "1"}, {"t": "1"})
    run = by_name(client, "trial-0000")
    assert (run.data.params["batch_size"], run.data.params["new"]) == ("8", "1")
    assert (run.data.metrics["x"], run.data.tags["t"]) == (1.0, "1")


def test_a_run_deleted_in_the_ui_stays_deleted(studies: Path, client: Any, tracker: Make) -> None:
    folder = study(studies, [started(0), started(1)])
    carry(folder, tracker)
    client.delete_run(by_name(client, "trial-0000").info.run_id)
    append(folder, [measured(0, 100, 3.0), measured(1, 100, 2.0)])
    carry(folder, tracker)
    names = [run["name"] for run in contents(client).values() if "name" in run]
    assert sorted(names) == ["lr", "trial-0001"]
    assert by_name(client, "trial-0001").data.metrics["validation/loss"] == 2.0


def test_a_store_that_lost_the_study_is_given_all_of_it_again(
    studies: Path, client: Any, tracker: Make, empty_store: Path
) -> None:
    events = whole_search()
    folder = study(studies, events[:9])
    carry(folder, tracker)
    client.delete_run(by_name(client, "lr").info.run_id)
    for number in (0, 1, 2):
        client.delete_run(by_name(client, f"trial-{number:04d}").info.run_id)
    append(folder, events[9:])
    carry(folder, tracker)
    assert by_name(client, "trial-0000").data.metrics["validation/loss"] == 2.75


def test_trials_that_measure_their_best_are_ranked_by_it(studies: Path, client: Any, tracker: Make) -> None:
    events = [started(0), measured(0, 100, 2.0), measured(0, 300, 3.0), ended(0, Ending.COMPLETE, 2.0)]
    metric = {"name": "validation/loss", "direction": "minimize", "at": "best"}
    folder = study(studies, events, metric=metric)
    carry(folder, tracker)
    assert by_name(client, "trial-0000").data.metrics["best/validation/loss"] == 2.0
    assert view.state(StudyRecord.read(folder), "r")["orderByKey"] == "metrics.`best/validation/loss`"


def test_the_link_opens_the_published_view_of_the_study(studies: Path, uri: str, client: Any, tracker: Make) -> None:
    folder = study(studies, whole_search())
    page = pages.study_page(uri, "http://127.0.0.1:5000", StudyRecord.read(folder))
    assert "viewStateShareKey" not in page
    carry(folder, tracker)
    page = pages.study_page(uri, "http://127.0.0.1:5000", StudyRecord.read(folder))
    key = read_cursor(folder)["memory"]["view"]
    assert page.endswith(f"/runs?workflowType=machine_learning&viewStateShareKey={key}")
    experiment = client.get_experiment_by_name("lr")
    published = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
    state = json.loads(zlib.decompress(base64.b64decode(published["state"].removeprefix("deflate;"))))
    assert by_name(client, "lr").info.run_id in state["searchFilter"]
    assert state["orderByAsc"] is True
    assert state["selectedColumns"] == [
        "metrics.`validation/loss`", "params.`learning_rate`", "params.`batch_size`", "tags.`hpo.ending`",
    ]  # fmt: skip
    assert state["compareRunCharts"][0]["type"] == "PARALLEL"


def test_a_view_that_somebody_saved_over_is_left_alone(studies: Path, client: Any, tracker: Make) -> None:
    folder = study(studies, whole_search())
    carry(folder, tracker)
    experiment, tag = client.get_experiment_by_name("lr").experiment_id, view.tag(StudyRecord.read(folder))
    client.set_experiment_tag(experiment, tag, "mine")
    carry(folder, tracker, from_start=True)
    assert client.get_experiment(experiment).tags[tag] == "mine"


def test_a_deleted_study_is_gone_from_mlflow_and_its_neighbour_is_not(
    studies: Path, uri: str, client: Any, tracker: Make
) -> None:
    for name in ("one", "other"):
        carry(study(studies, [started(0)], name), tracker)
    assert delete_study(record("one"), uri) == 2
    assert sorted(run["name"] for run in contents(client).values() if "name" in run) == ["other", "trial-0000"]
    assert delete_study(record("one"), uri) == 0


def test_deleting_from_a_store_that_was_never_made_does_not_make_it(tmp_path: Path) -> None:
    assert delete_study(record(), f"sqlite:///{tmp_path}/none.db") == 0
    assert not (tmp_path / "none.db").exists()


def test_the_sweep_decides_where_runs_go_then_the_environment_then_the_studies_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store.tracking_uri(MlflowSettings(), tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert store.tracking_uri(MlflowSettings(), tmp_path) == "http://there:5000"
    assert store.tracking_uri(MlflowSettings("https://here"), tmp_path) == "https://here"


def test_a_folder_is_no_tracking_address(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'\./mlruns': requires a server"):
        store.tracking_uri(MlflowSettings("./mlruns"), tmp_path)


def test_a_password_in_an_address_is_not_shown() -> None:
    assert store.shown("postgresql://me:secret@db/mlflow") == "postgresql://me:***@db/mlflow"


def test_a_study_of_another_experiment_goes_there(studies: Path, client: Any, tracker: Make) -> None:
    carry(study(studies, [started(0)], mlflow={"tracking_uri": None, "experiment": "mine"}), tracker)
    experiment = client.get_experiment_by_name("mine")
    assert by_name(client, "lr").info.experiment_id == experiment.experiment_id


def test_an_experiment_in_the_bin_is_taken_out_again(studies: Path, client: Any, tracker: Make) -> None:
    carry(study(studies, [started(0)], "one"), tracker)
    client.delete_experiment(client.get_experiment_by_name("lr").experiment_id)
    carry(study(studies, [started(0)], "other"), tracker)
    assert client.get_experiment_by_name("lr").lifecycle_stage == "active"


@pytest.mark.parametrize("answered", ["first", "second"])
def test_a_run_that_a_hanging_server_made_twice_is_there_once_in_the_end(
    studies: Path, client: Any, tracker: Make, monkeypatch: pytest.MonkeyPatch, answered: str
) -> None:
    events = whole_search()
    folder = study(studies, events)
    create = type(client).create_run

    def create_twice(self: Any, *arguments: Any, **named: Any) -> Any:
        runs = [create(self, *arguments, **named) for _ in range(2)]
        return runs[0] if answered == "first" else runs[1]

    with monkeypatch.context() as hanging:
        hanging.setattr(type(client), "create_run", create_twice)
        courier = Courier(folder, tracker(folder))
        with pytest.raises(Exception, match="runs are there twice"):
            courier.carry()
    assert courier.carry() == len(events)
    found = [run["name"] for run in contents(client).values() if "name" in run]
    assert sorted(found) == ["lr", *(f"trial-{number:04d}" for number in range(6))]
    carry(folder, tracker, from_start=True)
    before = contents(client)
    alone = study(studies, events, "alone")
    carry(alone, tracker)
    metrics = {
        run["name"]: run["metrics"]
        for run in contents(client).values()
        if run.get("tags", {}).get("hpo.study") == "alone"
    }
    again = {run["name"]: run["metrics"] for run in before.values() if "name" in run}
    assert {name: metrics[name] for name in metrics if name != "alone"} == {
        name: again[name] for name in again if name != "lr"
    }
