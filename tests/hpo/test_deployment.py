"""Which model a name means: studies, folders and the registry, and what is said where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpo import deployment
from hpo.deployment import Deployment, find
from hpo.errors import HpoError, UserError
from hpo.folder import StudyFolder
from hpo.promote import Promotion

HPO = str(Path(sys.executable).with_name("hpo"))

SERVING = """
import json
from pathlib import Path

def describe(folder):
    columns = {"input": "text", "target": None}
    return {"task": "echoing", "writes": True, "columns": columns, "python": "print(folder)"}

def load(folder):
    raise ValueError(f"{folder}: nothing to load. Save it anew.")

def _load_pyfunc(path):
    return None
"""


def model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    return folder


def promoted(studies: Path, name: str, *finished: bool) -> None:
    """A study with promotions, finished or not."""
    root = studies / name
    root.mkdir(parents=True)
    (root / "study.json").write_text("{}")
    for number, done in enumerate(finished, start=1):
        place = StudyFolder(root / "promotions" / f"{number:04d}")
        place.root.mkdir(parents=True)
        test = {"test/loss": 1.0} if done else {}
        Promotion(number, name, "id", 0, 0.0, {}, {}, {}, test=test).write(place)
        if done:
            model(place.root / "model")


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "studies"
    promoted(folder, "ready", True, True, False)
    promoted(folder, "begun", False)
    promoted(folder, "raw")
    return folder


def test_a_study_means_its_newest_finished_promotion(studies: Path) -> None:
    assert find("ready", studies) == Deployment("ready", studies / "ready/promotions/0002/model", "models.serving")
    assert find("ready", studies, 1).folder == studies / "ready/promotions/0001/model"


def test_a_folder_means_itself_and_is_called_after_its_study(studies: Path, tmp_path: Path) -> None:
    assert find(str(studies / "ready/promotions/0001/model"), studies).name == "ready"
    model(tmp_path / "elsewhere")
    for target in ("elsewhere", "./elsewhere", str(tmp_path / "elsewhere")):
        assert find(target, studies).folder.resolve() == tmp_path / "elsewhere"
    assert find("elsewhere", studies).name == "elsewhere"


def test_a_folder_names_its_serving_module(studies: Path, tmp_path: Path) -> None:
    (model(tmp_path / "own") / "hpo.json").write_text(json.dumps({"objective": "x:train", "serving": "my.serving"}))
    assert find("own", studies).serving == "my.serving"
    (tmp_path / "own" / "hpo.json").write_text("[")
    with pytest.raises(UserError, match=r"hpo\.json cannot be read"):
        find("own", studies)


@pytest.mark.parametrize(
    ("target", "promotion", "message"),
    [
        ("redy", None, "no study 'redy' in .*Did you mean 'ready'"),
        ("raw", None, "study 'raw': nothing of it was promoted yet. First:  hpo promote raw"),
        ("begun", None, "study 'begun': no promotion is finished yet. First:  hpo promote begun"),
        ("ready", 3, "promotion 3 of study 'ready' is not finished. Go on:  hpo promote ready"),
        ("ready", 9, "study 'ready' has no promotion 9; it has 1 to 3"),
        ("raw", 1, "has no promotion 1; it has none. First:  hpo promote raw"),
        ("redy", 1, "no study 'redy'"),
        ("./studies", 1, "counts the promotions of a study"),
        ("./nowhere", None, "no folder ./nowhere"),
        ("studies/redy", None, "no folder studies/redy. Did you mean 'ready'"),
        ("studies/ready/promotions/0001", None, "has no config.json.*Did you mean studies/ready/promotions/0001/model"),
        ("studies", None, "has no config.json: it is no model's folder"),
        ("models:/x@champion", None, "no model 'x': there is no registry at"),
        ("models:/x", None, "expected models:/NAME@alias"),
    ],
)
def test_what_is_not_there_is_one_line(studies: Path, target: str, promotion: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        find(target, Path("studies"), promotion)
    assert "\n" not in str(caught.value)


def test_a_serving_module_is_imported_from_the_working_folder_and_its_words_are_passed_on(
    studies: Path, tmp_path: Path
) -> None:
    (tmp_path / "served_here.py").write_text(SERVING)
    own = Deployment("x", tmp_path, "served_here")
    assert own.describe()["task"] == "echoing"
    with pytest.raises(UserError, match=r"nothing to load. Save it anew."):
        own.load()
    with pytest.raises(UserError, match="cannot import no_such_serving"):
        Deployment("x", tmp_path, "no_such_serving").load()
    with pytest.raises(UserError, match=r"hpo.objective has no function describe\(\)"):
        Deployment("x", tmp_path, "hpo.objective").describe()


def test_a_registry_that_does_not_answer_is_one_line(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://name:secret@127.0.0.1:9")
    with pytest.raises(HpoError, match=r"the model registry at http://127.0.0.1:9 does not answer: Connection refused"):
        find("models:/x@champion", studies)


def test_instructions_offer_a_conversation_only_where_the_model_writes(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served_here.py").write_text(SERVING)
    folder = studies / "ready/promotions/0001/model"
    assert deployment.instructions("ready", folder) == []
    (folder / "hpo.json").write_text('{"serving": "served_here"}')
    lines = deployment.instructions("ready", folder)
    assert [line.split()[1] for line in lines if line.startswith("hpo ")] == ["serve", "chat", "predict"]
    assert 'folder = "studies/ready/promotions/0001/model"' in lines
    assert "print(folder)" in lines


class TestPromotion:
    """What `hpo promote` leaves for those who use the model."""

    @staticmethod
    def promote(workplace: Path, addition: str) -> tuple[str, Path]:
        with (workplace / "objective.py").open("a") as file:
            file.write(addition)
        for command in (["run", "sweep.yaml", "--trials", "4"], ["promote", "sweep"]):
            done = subprocess.run([HPO, *command], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        return done.stdout, workplace / "studies/sweep/promotions/0001"

    def test_the_folder_names_what_serves_it_and_the_card_says_how(self, workplace: Path) -> None:
        (workplace / "echoes.py").write_text(SERVING)
        config = "\n_save = save\ndef save(config, *, directory, destination):\n"
        config += "    _save(config, directory=directory, destination=destination)\n"
        config += '    (destination / "config.json").write_text("{}")\n'
        _, place = self.promote(workplace, config + 'SERVING = "echoes"\n')
        assert json.loads((place / "model/hpo.json").read_text()) == {
            "objective": "objective.py:train",
            "serving": "echoes",
        }
        card = (place / "model/README.md").read_text()
        assert "## Use" in card
        assert "hpo serve sweep " in card
        assert find("sweep", workplace / "studies").serving == "echoes"

    def test_an_objection_of_the_objective_is_said(self, workplace: Path) -> None:
        objection = (
            "\ndef objection(config, tested):\n"
            "    return f\"it loses to a linear model (test/loss {tested['test/loss']:.2g} against 0.01)\"\n"
        )
        output, place = self.promote(workplace, objection)
        verdict = json.loads((place / "promotion.json").read_text())["registered"]["verdict"]
        assert "it loses to a linear model (test/loss " in verdict
        assert "it loses to a linear model" in " ".join(output.split())
