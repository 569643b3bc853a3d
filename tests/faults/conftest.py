"""A folder with the trial to be broken and its sweep, and the study that nothing happens to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Commands

from hpo.folder import StudyFolder
from hpo.journal import History, Journal
from hpo.launch.inline import Inline
from hpo.search import Search
from hpo.study import Study, plan
from hpo.track.mlflow import store

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store made once: its migrations take a second."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    store.initialise(f"sqlite:///{path}")
    return path


@pytest.fixture
def place(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a test: objective, sweep, and a store beside the studies that are to come."""
    for name in ("curve.py", "sweep.yaml"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "studies").mkdir()
    shutil.copy(migrated, tmp_path / "studies" / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPO_STUDIES", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def uri(place: Path) -> str:
    return f"sqlite:///{place}/studies/mlflow.db"


@pytest.fixture
def commands(place: Path) -> Iterator[Commands]:
    made = Commands(place)
    yield made
    made.end()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., History]:
    """The history of a study of so many trials that nothing happened to, searched inline without a pause."""
    done: dict[int, History] = {}

    def search(trials: int) -> History:
        if trials not in done:
            folder = StudyFolder(tmp_path_factory.mktemp("undisturbed") / "study")
            folder.root.mkdir()
            sweep = HERE / "sweep.yaml"
            planned = plan(sweep.read_text(), sweep, ["pace=0", f"search.trials={trials}"])
            study = Study(planned, folder, History(), 25)
            with Journal(folder.journal, lambda: 0.0) as journal:
                launcher = Inline(planned.objective)
                list(Search(study, launcher, journal, folder, History(), trials, lambda: False).events())
            done[trials] = History.read(folder.journal)
        return done[trials]

    return search
