"""An MLflow store made once: its migrations take a second."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.folder import StudyFolder, StudyRecord
from hpo.track.mlflow import store
from hpo.track.mlflow.runs import MlflowTracker


@pytest.fixture(scope="session", autouse=True)
def _hasty_disk() -> Iterator[None]:
    """SQLite need not wait for the disk: nobody reads these stores after a power cut."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def hasten(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hasten)
    yield
    event.remove(Engine, "connect", hasten)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    store.initialise(f"sqlite:///{path}")
    return path


@pytest.fixture
def studies(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "studies"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def uri(studies: Path) -> str:
    return f"sqlite:///{studies}/mlflow.db"


@pytest.fixture
def client(uri: str) -> Any:
    return store.client(uri)


@pytest.fixture
def tracker(uri: str) -> Callable[[StudyFolder], MlflowTracker]:
    return lambda folder: MlflowTracker(folder, StudyRecord.read(folder), uri)
