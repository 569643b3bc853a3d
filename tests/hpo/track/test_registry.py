from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded import BEGIN, by_name, contents, record, study, whole_search

from hpo.errors import UserError
from hpo.folder import StudyFolder
from hpo.track.mlflow import store
from hpo.track.mlflow.downloads import fetch
from hpo.track.mlflow.registry import Candidate, PromotionRun, champion, crown, log_promotion, register
from hpo.track.mlflow.runs import MlflowTracker
from hpo.track.pump import Courier
from hpo.trials import Measurement

SERVING = """
from pathlib import Path

class Echo:
    def __init__(self, folder):
        self.word = (Path(folder) / "word.txt").read_text()

    def predict(self, texts, params=None):
        return [f"{self.word}: {text}" for text in texts]

def _load_pyfunc(path):
    return Echo(path)
"""


@pytest.fixture
def folder(studies: Path, tracker: Callable[[StudyFolder], MlflowTracker]) -> StudyFolder:
    folder = study(studies, whole_search())
    Courier(folder, tracker(folder)).carry()
    return folder


def promotion(number: int = 1) -> PromotionRun:
    curve = [(BEGIN + 60 + step, Measurement(step, {"validation/loss": 3.0 - step / 100})) for step in (50, 100)]
    return PromotionRun(
        number=number,
        trial=1,
        settings={"learning_rate": 0.00246913, "model.layers": 6},
        curve=curve,
        started_at=BEGIN + 60,
        ended_at=BEGIN + 200,
        test={"test/loss": 1.9, "test/perplexity": 6.7},
        baseline_test={"test/loss": 2.1},
    )


def candidate(tmp_path: Path, run_id: str, *, serving: str | None = "echo_serving") -> Candidate:
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    (model / "word.txt").write_text("hello")
    return Candidate(
        name="lr",
        folder=model,
        run_id=run_id,
        serving_module=serving,
        requirements=["psutil==7.0.0"],
        description="# lr\n\nThe card.",
        tags={"hpo.study": "lr", "test/loss": "1.9"},
        metrics={"test/loss": 1.9},
    )


def test_a_promotion_is_a_run_that_leads_to_its_study_and_trial_and_back(
    folder: StudyFolder, uri: str, client: Any
) -> None:
    run_id = log_promotion(uri, record(), promotion())
    run, trial, whole = by_name(client, "promotion-0001"), by_name(client, "trial-0001"), by_name(client, "lr")
    assert run.info.run_id == run_id
    assert run.data.tags["hpo.trial_run"] == trial.info.run_id
    assert run.data.tags["hpo.study_run"] == whole.info.run_id
    for linked in (trial, whole):
        assert linked.data.tags["hpo.promotion_run"] == run_id
        assert f"runs/{run_id})" in linked.data.tags["mlflow.note.content"]
    assert run.data.params == {"learning_rate": "0.002469", "model.layers": "6"}
    assert run.data.metrics["test/perplexity"] == 6.7
    assert run.data.metrics["baseline_test/loss"] == 2.1
    history = client.get_metric_history(run_id, "validation/loss")
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (step, 3.0 - step / 100, round((BEGIN + 60 + step) * 1000)) for step in (50, 100)
    ]
    assert run.info.status == "FINISHED"


def test_a_promotion_logged_twice_is_one_run(folder: StudyFolder, uri: str, client: Any) -> None:
    first = log_promotion(uri, record(), promotion())
    before = contents(client)
    assert log_promotion(uri, record(), promotion()) == first
    assert contents(client) == before
    assert log_promotion(uri, record(), promotion(2)) != first


def test_a_study_keeps_the_link_to_its_promotion_when_it_is_extended(
    folder: StudyFolder, uri: str, client: Any, tracker: Callable[[StudyFolder], MlflowTracker]
) -> None:
    run_id = log_promotion(uri, record(), promotion())
    Courier(folder, tracker(folder), from_start=True).carry()
    note = by_name(client, "lr").data.tags["mlflow.note.content"]
    assert note.count(run_id) == 1
    assert note.startswith("Best: ")


def test_a_registered_model_is_loaded_by_its_alias_through_its_serving_module(
    folder: StudyFolder, uri: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "echo_serving.py").write_text(SERVING)
    monkeypatch.syspath_prepend(tmp_path)
    run_id = log_promotion(uri, record(), promotion())
    assert champion(uri, "lr") is None
    version = register(uri, candidate(tmp_path, run_id))
    assert register(uri, candidate(tmp_path, run_id)) == version
    crown(uri, "lr", version)
    found = champion(uri, "lr")
    assert found is not None
    assert (found.version, found.run_id, found.tags["test/loss"]) == (version, run_id, "1.9")
    assert client.get_model_version("lr", version).description == "# lr\n\nThe card."
    (logged,) = client.search_logged_models([by_name(client, "lr").info.experiment_id])
    assert {metric.key: metric.value for metric in logged.metrics} == {"test/loss": 1.9}
    mlflow = store.library()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    model = mlflow.pyfunc.load_model("models:/lr@champion")
    assert list(model.predict(["world"])) == ["hello: world"]
    assert not list((folder.root.parent / "mlartifacts").rglob("*.pkl"))


def test_the_crown_passes_on_and_the_last_champion_is_remembered(
    folder: StudyFolder, uri: str, client: Any, tmp_path: Path
) -> None:
    versions = [
        register(uri, candidate(tmp_path, log_promotion(uri, record(), promotion(number)), serving=None))
        for number in (1, 2)
    ]
    for version in (*versions, versions[-1]):
        crown(uri, "lr", version)
    aliases = [str(client.get_model_version_by_alias("lr", alias).version) for alias in ("champion", "previous")]
    assert aliases == [versions[1], versions[0]]


def test_registering_leaves_no_trace_in_the_environment_or_the_working_folder(
    folder: StudyFolder, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = dict(os.environ)
    register(uri, candidate(tmp_path, log_promotion(uri, record(), promotion())))
    assert {name for name in os.environ if os.environ.get(name) != before.get(name)} <= set(store._ENVIRONMENT)
    assert list((tmp_path / "here").iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_asking_for_a_champion_does_not_make_a_store(tmp_path: Path) -> None:
    assert champion(f"sqlite:///{tmp_path}/none.db", "lr") is None
    assert list(tmp_path.iterdir()) == []


class TestDownloads:
    """A registered model's folder, found again by name."""

    @pytest.mark.parametrize("serving", ["echo_serving", None])
    def test_a_version_and_an_alias_lead_to_the_folder_that_was_registered(
        self,
        folder: StudyFolder,
        uri: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        serving: str | None,
    ) -> None:
        (tmp_path / "echo_serving.py").write_text(SERVING)
        monkeypatch.syspath_prepend(tmp_path)
        version = register(uri, candidate(tmp_path, log_promotion(uri, record(), promotion()), serving=serving))
        crown(uri, "lr", version)
        for reference in (f"models:/lr/{version}", "models:/lr@champion"):
            name, files = fetch(uri, reference)
            assert name == "lr"
            assert (files / "word.txt").read_text() == "hello"
            assert files.is_relative_to(folder.root.parent)
        for reference, message in {
            "models:/rl@champion": "no model 'rl' in the registry. Known: lr",
            "models:/lr@champoin": "has no alias 'champoin'. Did you mean 'champion'",
            "models:/lr/7": "has no version 7; it has 1",
        }.items():
            with pytest.raises(UserError, match=message):
                fetch(uri, reference)
