"""Promotions and models in MLflow: a full run linked to its trial, versions of a model, who is champion."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.folder import StudyRecord
from hpo.track import spelling
from hpo.track.mlflow import store
from hpo.trials import Measurement

_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
CHAMPION, PREVIOUS = "champion", "previous"


@dataclass(frozen=True, slots=True)
class PromotionRun:
    """A full run of a study's configuration.

    Attributes:
        number: of the promotion in its study, from 1.
        trial: whose configuration it trains.
        settings: the whole configuration, by dotted name.
        curve: its measurements, each with its time in seconds since the epoch.
        started_at: seconds since the epoch; the run is found again by its number, so that it may be logged
            while it goes on and once more when it has ended.
        ended_at: None while it goes on.
        test: of the trained model on the test split.
        baseline_test: of the baseline's configuration, trained in the same way.
        facts: what the objective says of its data and its scores.
    """

    number: int
    trial: int
    settings: Mapping[str, object]
    curve: Sequence[tuple[float, Measurement]]
    started_at: float
    ended_at: float | None = None
    test: Mapping[str, float] = field(default_factory=dict)
    baseline_test: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained model to be registered.

    Attributes:
        name: of the registered model.
        folder: with its weights, tokenizer and card; copied into the artifact store.
        run_id: of its promotion.
        serving_module: import path of a module with `_load_pyfunc(path)`; None registers the folder alone.
        requirements: pinned packages that loading it needs ("torch==2.13.0").
        code: packages to carry along, so that it loads where they are not installed.
        description: the model card, Markdown.
        tags: shown on the version: study, trial, data digest, test results.
        metrics: shown on the model.
    """

    name: str
    folder: Path
    run_id: str
    serving_module: str | None
    requirements: Sequence[str]
    description: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    code: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Champion:
    """The version of a model that serves."""

    version: str
    tags: Mapping[str, str]
    run_id: str


def log_promotion(uri: str, record: StudyRecord, promotion: PromotionRun) -> str:
    """Write a promotion as a run, linked with its study's and its trial's runs in both directions.

    Returns:
        The run's id; the same one however often it is logged.
    """
    client = store.client(uri)
    experiment = store.ensure_experiment(client, uri, (record.mlflow or {}).get("experiment") or record.sweep_name, {})
    study_run = trial_run = run_id = ""
    notes: dict[str, str] = {}
    for run in store.runs_of(client, experiment, record.id):
        notes[run.info.run_id] = run.data.tags.get(store.NOTE, "")
        match run.data.tags.get("kind"):
            case "study":
                study_run = study_run or run.info.run_id
            case "trial" if run.data.tags.get("hpo.trial") == str(promotion.trial):
                trial_run = trial_run or run.info.run_id
            case "promotion" if run.data.tags.get("hpo.promotion") == str(promotion.number):
                run_id = run_id or run.info.run_id
    name = f"promotion-{promotion.number:04d}"
    tags = {
        "kind": "promotion",
        "hpo.study": record.name,
        "hpo.study_id": record.id,
        "hpo.promotion": str(promotion.number),
        "hpo.trial": str(promotion.trial),
        "hpo.study_run": study_run,
        "hpo.trial_run": trial_run,
        store.NOTE: _note(record, promotion, experiment, study_run, trial_run),
        **store.source_tags(record),
        **store.signatures(promotion.facts),
    }
    if not run_id:
        start = spelling.milliseconds(promotion.started_at)
        run_id = client.create_run(experiment, start_time=start, tags=tags, run_name=name).info.run_id
    params = {spelling.name(key): spelling.value(value) for key, value in promotion.settings.items()}
    store.log(client, run_id, _metrics(promotion), params, tags)
    link = f"[{name}](#/experiments/{experiment}/runs/{run_id})"
    for linked in filter(None, (study_run, trial_run)):
        note = store.with_promotion(notes[linked], link)
        store.log(client, linked, [], {}, {"hpo.promotion": name, "hpo.promotion_run": run_id, store.NOTE: note})
    if promotion.ended_at is not None:
        client.set_terminated(run_id, "FINISHED", spelling.milliseconds(promotion.ended_at))
    return str(run_id)


def _note(record: StudyRecord, promotion: PromotionRun, experiment: str, study_run: str, trial_run: str) -> str:
    trial = f"trial {promotion.trial}"
    if trial_run:
        trial = f"[{trial}](#/experiments/{experiment}/runs/{trial_run})"
    study = f"study {record.name}"
    if study_run:
        study = f"[{study}](#/experiments/{experiment}/runs/{study_run})"
    return f"The full run of {trial} of {study}."


def _metrics(promotion: PromotionRun) -> list[Any]:
    metrics = [
        store.metric(name, value, at, measurement.progress)
        for at, measurement in promotion.curve
        for name, value in measurement.metrics.items()
    ]
    at = promotion.ended_at or promotion.started_at
    step = promotion.curve[-1][1].progress if promotion.curve else 0
    for group, results in (("test", promotion.test), ("baseline_test", promotion.baseline_test)):
        metrics += [
            store.metric(f"{group}/{name.removeprefix('test/')}", value, at, step) for name, value in results.items()
        ]
    return metrics


@contextlib.contextmanager
def _addressed(uri: str, experiment_id: str) -> Iterator[Any]:
    """MLflow's module-level functions, pointed at an experiment for a while: logging a model has no other form.

    What it says on the way ("Successfully registered model ...") goes to stderr; errors are raised all the same.
    """
    mlflow = store.library()
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)
    mlflow.set_tracking_uri(uri)
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment_id
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield mlflow
    finally:
        # This also sets the environment variable, which would decide where the next study goes.
        mlflow.set_tracking_uri(before["MLFLOW_TRACKING_URI"])
        del os.environ["MLFLOW_EXPERIMENT_ID"]
        os.environ.update({name: setting for name, setting in before.items() if setting is not None})


def register(uri: str, candidate: Candidate) -> str:
    """Copy a model into MLflow's artifact store and make it a version of its registered model.

    Its Python is not pickled: the version names the module that loads it, and its requirements are those given.

    Returns:
        The version; the same one if its run registered it before.
    """
    client = store.client(uri)
    for version in client.search_model_versions(f"name = '{candidate.name}'"):
        if version.run_id == candidate.run_id:
            return str(version.version)
    experiment_id = client.get_run(candidate.run_id).info.experiment_id
    with _addressed(uri, experiment_id) as mlflow:
        if candidate.serving_module is None:
            version = _register_folder(client, candidate)
        else:
            info = mlflow.models.Model.log(
                artifact_path=None,
                name=candidate.name,
                flavor=mlflow.pyfunc,
                run_id=candidate.run_id,
                registered_model_name=candidate.name,
                loader_module=candidate.serving_module,
                data_path=str(candidate.folder),
                code_paths=[str(path) for path in candidate.code] or None,
                # Without these, MLflow imports the model to guess them, and fails on transformers 5.
                pip_requirements=list(candidate.requirements),
            )
            version = str(info.registered_model_version)
            _log_model_metrics(client, candidate, info.model_id)
    client.update_model_version(candidate.name, version, description=candidate.description)
    if not client.get_registered_model(candidate.name).description:
        loads = f'Load: `mlflow.pyfunc.load_model("models:/{candidate.name}@{CHAMPION}")`'
        client.update_registered_model(candidate.name, description=loads)
    for key, value in candidate.tags.items():
        client.set_model_version_tag(candidate.name, version, key, value)
    return version


def _register_folder(client: Any, candidate: Candidate) -> str:
    from mlflow.exceptions import MlflowException

    client.log_artifacts(candidate.run_id, str(candidate.folder), "model")
    source = f"{client.get_run(candidate.run_id).info.artifact_uri}/model"
    try:
        client.create_registered_model(candidate.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return str(client.create_model_version(candidate.name, source, candidate.run_id).version)


def _log_model_metrics(client: Any, candidate: Candidate, model_id: str) -> None:
    for key, value in candidate.metrics.items():
        client.log_metric(candidate.run_id, spelling.name(key), spelling.number(value), model_id=model_id)


def champion(uri: str, name: str) -> Champion | None:
    """The present champion of a model, or None where there is none."""
    path = store.sqlite_path(uri)
    if path is not None and not path.exists():
        return None
    client = store.client(uri)
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
    return Champion(str(version.version), dict(version.tags), str(version.run_id))


def crown(uri: str, name: str, version: str) -> None:
    """Point `champion` at a version; the one it pointed at becomes `previous`."""
    client = store.client(uri)
    present = champion(uri, name)
    if present is not None and present.version == version:
        return
    if present is not None:
        client.set_registered_model_alias(name, PREVIOUS, present.version)
    client.set_registered_model_alias(name, CHAMPION, version)
