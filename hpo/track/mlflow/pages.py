"""Which page of the MLflow UI shows what."""

from __future__ import annotations

from hpo.errors import HpoError
from hpo.folder import StudyRecord
from hpo.track.mlflow import store, view


def study_page(uri: str, base_url: str, record: StudyRecord) -> str:
    """The page of one study's trials: its saved view where it was published, else its whole experiment.

    Args:
        uri: of the store.
        base_url: of the server that shows it.
        record: of the study.

    Raises:
        HpoError: the store does not answer.
    """
    name = (record.mlflow or {}).get("experiment") or record.sweep_name
    client = store.client(uri)
    from mlflow.exceptions import MlflowException

    try:
        experiment = client.get_experiment_by_name(name)
    except MlflowException as error:
        raise HpoError(f"MLflow at {store.shown(uri)} does not answer: {store.line_of(error)}.") from error
    if experiment is None:
        return front_page(base_url)
    key = view.key(record)
    published = f"mlflow.sharedViewState.{key}" in experiment.tags
    return view.study_link(base_url, experiment.experiment_id, key if published else None)


def front_page(base_url: str) -> str:
    """All experiments, in the mode that has runs and models."""
    return f"{base_url.rstrip('/')}/#/experiments?workflowType=machine_learning"
