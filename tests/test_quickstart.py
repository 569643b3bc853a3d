"""The whole way, as the README's first command takes a new user: search, show, promote, load, serve by name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
HPO = str(Path(sys.executable).with_name("hpo"))


def readme_command() -> list[str]:
    """What the README's first command runs once it has installed."""
    found = re.search(r"<!-- run command -->\n```bash\n.*&& hpo (.*)\n```", (ROOT / "README.md").read_text())
    assert found
    return found[1].split()


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart, run once for all tests here, exactly as shipped."""
    folder = tmp_path_factory.mktemp("quickstart") / "studies"
    hpo(folder, *readme_command())
    return folder


def hpo(studies: Path, *arguments: str) -> str:
    command = [HPO, *arguments, "--studies", str(studies)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def promoted(studies: Path) -> dict[str, Any]:
    """The winner, promoted with a shorter full run than the sweep asks for."""
    hpo(studies, "promote", "quickstart", "--set", "tokens=150_000")
    return dict(json.loads((studies / "quickstart/promotions/0001/promotion.json").read_text()))


def test_the_best_trial_beats_the_baseline(studies: Path) -> None:
    study = json.loads(hpo(studies, "show", "quickstart", "--json"))
    assert study["state"] == "finished"
    assert len(study["trials"]) >= 12
    assert study["best"]["value"] < study["baseline"]["value"]


def test_the_best_learning_rate_lies_inside_its_range(studies: Path) -> None:
    study = json.loads(hpo(studies, "show", "quickstart", "--json"))
    assert 1e-4 * 3 < study["best"]["params"]["learning_rate"] < 1e-1 / 3


def test_everything_in_the_journal_is_in_mlflow(studies: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{studies}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "quickstart"]
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'", max_results=1000)
    by_trial = {int(run.data.tags["hpo.trial"]): run for run in runs}
    study = json.loads(hpo(studies, "show", "quickstart", "--json"))
    assert sorted(by_trial) == [trial["number"] for trial in study["trials"]]
    for trial in study["trials"]:
        logged = by_trial[trial["number"]]
        assert logged.data.tags["hpo.ending"] == trial["state"]
        assert logged.data.metrics["validation/loss"] == trial["metrics"]["validation/loss"]


def test_the_promoted_folder_loads_and_generates(studies: Path, promoted: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = studies / "quickstart/promotions/0001/model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer("The statement", return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=20)[0])
    assert text.startswith("The statement")
    assert len(text) > len("The statement")


def test_winner_and_baseline_have_a_test_perplexity(promoted: dict[str, Any]) -> None:
    assert 1 < promoted["test"]["test/perplexity"] < promoted["baseline_test"]["test/perplexity"] < 512


def test_the_model_is_registered_and_the_champion_answers(studies: Path, promoted: dict[str, Any]) -> None:
    import mlflow

    assert promoted["registered"]["version"] == "1"
    assert promoted["registered"]["alias"] == "champion"
    mlflow.set_tracking_uri(f"sqlite:///{studies}/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/quickstart@champion")
    (answer,) = model.predict(["The statement"])
    assert isinstance(answer, str)


def test_links_lead_from_model_to_promotion_to_trial_to_study_and_back(studies: Path, promoted: dict[str, Any]) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{studies}/mlflow.db")
    version = client.get_model_version_by_alias("quickstart", "champion")
    promotion = client.get_run(version.run_id)
    trial, study = (client.get_run(promotion.data.tags[f"hpo.{kind}_run"]) for kind in ("trial", "study"))
    assert trial.data.tags["hpo.trial"] == str(promoted["trial"])
    assert trial.data.tags["mlflow.parentRunId"] == study.info.run_id
    assert trial.data.tags["hpo.promotion_run"] == promotion.info.run_id == study.data.tags["hpo.promotion_run"]
    assert "models:/quickstart/1 (champion" in hpo(studies, "show", "quickstart")


def test_a_worse_model_does_not_take_the_name(studies: Path, promoted: dict[str, Any]) -> None:
    output = hpo(studies, "promote", "quickstart", "--set", "tokens=20_000")
    assert "not the champion: it does not beat the champion" in output


def test_nothing_is_left_outside_studies_and_caches(studies: Path) -> None:
    listed = subprocess.run(["git", "clean", "-xdn"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    left = [line.removeprefix("Would remove ") for line in listed.stdout.splitlines()]
    caches = re.compile(r"(^|/)(__pycache__|\.[a-z_]*cache)/$|^studies/|^\.venv/$")
    untracked = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    # Files a developer is just writing are untracked and not ignored; what a run leaves behind would be too, but
    # never at places where code lives.
    written = tuple(path for path in untracked if path.startswith(("hpo/", "models/", "tests/", "sweeps/", ".")))
    assert [
        path
        for path in left
        if not caches.search(path) and path.rstrip("/") not in written and not any(w.startswith(path) for w in written)
    ] == []
