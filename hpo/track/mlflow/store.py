"""Where MLflow keeps runs, and the calls every writer to it makes.

What of MLflow's behaviour the writers rely on, version 3.17: a metric logged twice with the same key, step,
time and value is stored once; a parameter may be logged again with the same value; neither holds for runs,
so these are looked for by their tags before one is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import logging
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import UserError
from hpo.folder import StudyRecord
from hpo.operation import MlflowSettings
from hpo.track import spelling

_log = logging.getLogger("hpo.track.mlflow")

# MLflow allows 1000 entities a batch, of which 100 parameters and 100 tags.
_METRICS, _PARAMETERS, _TAGS = 800, 100, 100
_TAG_CHARACTERS = 8000
_RUNS = 1000

NOTE = "mlflow.note.content"  #: the tag that the UI shows as a run's or an experiment's description
_PROMOTED = "\n\nPromoted: "

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # The default of 7 retries holds a call for 247 s when the server is gone; the pump decides when to try again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}


def tracking_uri(settings: MlflowSettings, studies: Path) -> str:
    """Where runs go: the sweep's address, else MLFLOW_TRACKING_URI, else a SQLite store beside the studies.

    Raises:
        UserError: the address is a folder; MLflow 3 no longer writes to those.
    """
    uri = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{studies.resolve()}/mlflow.db"
    if (path := sqlite_path(uri)) is not None:
        return f"sqlite:///{path}"
    if "://" not in uri and uri != "databricks":
        raise UserError(
            f"MLflow address {uri!r}: requires a server (http://...) or a database (sqlite:///path/mlflow.db); "
            "MLflow 3 no longer writes to folders."
        )
    return uri


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite address, absolute; None for any other address."""
    if not uri.startswith("sqlite:///") or uri == "sqlite:///:memory:":
        return None
    return Path(uri.removeprefix("sqlite:///")).resolve()


def artifacts_folder(uri: str) -> Path | None:
    """Where a SQLite store beside the studies keeps files; None where a server decides that."""
    path = sqlite_path(uri)
    return None if path is None else path.with_name("mlartifacts")


def library() -> Any:
    """MLflow, quiet: no telemetry, no addresses on stdout, short retries."""
    for variable, setting in _ENVIRONMENT.items():
        os.environ.setdefault(variable, setting)
    import mlflow

    with warnings.catch_warnings():
        # MLflow 3.17 uses what SQLAlchemy 2.1 deprecates; it says so to whoever imports its store.
        warnings.simplefilter("ignore", DeprecationWarning)
        import mlflow.store.tracking.sqlalchemy_store
    # Its own traceback of every failed call; the error itself reaches us.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return mlflow


def client(uri: str) -> Any:
    """A client of the store at `uri`, which is made first where it is a SQLite file that is not there yet."""
    mlflow = library()
    initialise(uri)
    # Without it, models would be looked for in a database of the working folder.
    registry = os.environ.get("MLFLOW_REGISTRY_URI") or uri
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=registry)


def initialise(uri: str) -> None:
    """Make a SQLite store once, whoever comes first; nothing for other addresses or where there is one.

    Several processes that open a fresh file at once leave it unusable, so it is made under a lock and another
    name, and renamed when whole. MLflow's 60 migrations wait for the disk at each step: on a file that nobody
    reads yet, not waiting takes 0.9 s where it took 1.1 to 5.6 s.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        return
    library()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def hasten(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        event.listen(Engine, "connect", hasten)
        try:
            store = SqlAlchemyStore(f"sqlite:///{temporary}", str(artifacts_folder(uri)))
            store.engine.dispose()
        finally:
            event.remove(Engine, "connect", hasten)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(path)


def shown(uri: str) -> str:
    """An address without its password."""
    return spelling.masked(uri)


def ensure_experiment(mlflow_client: Any, uri: str, name: str, tags: Mapping[str, str]) -> str:
    """The id of the experiment of this name, which is made, or taken out of the bin, if need be."""
    from mlflow.exceptions import MlflowException

    found = mlflow_client.get_experiment_by_name(name)
    if found is None:
        folder = artifacts_folder(uri)
        location = None if folder is None else (folder / re.sub(r"[^\w.-]", "-", name)).as_uri()
        try:
            return str(mlflow_client.create_experiment(name, artifact_location=location, tags=dict(tags)))
        except MlflowException as error:
            # Another study's pump was faster.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = mlflow_client.get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":
        mlflow_client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def runs_of(mlflow_client: Any, experiment_id: str, study_id: str) -> Iterable[Any]:
    """Every run of a study, promotions included, oldest first."""
    token = None
    while True:
        page = mlflow_client.search_runs(
            [experiment_id],
            filter_string=f"tags.`hpo.study_id` = '{study_id}'",
            max_results=_RUNS,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def source_tags(record: StudyRecord) -> dict[str, str]:
    """Who ran it, and from what: columns of the UI's table."""
    user = "unknown"
    with contextlib.suppress(Exception):
        user = getpass.getuser()
    return {"mlflow.user": user, "mlflow.source.name": f"{record.sweep_name}.yaml", "mlflow.source.type": "LOCAL"}


def promoted(note: str) -> str:
    """The part of a run's description that leads to its promotion, or ""."""
    _, mark, link = note.rpartition(_PROMOTED)
    return mark + link if mark else ""


def with_promotion(note: str, link: str) -> str:
    """A run's description, leading to its latest promotion."""
    return note.removesuffix(promoted(note)) + _PROMOTED + link


def metric(name: str, value: float, at: float, step: int) -> Any:
    """One value of a metric; `at` in seconds since the epoch, `step` in tokens or trials."""
    from mlflow.entities import Metric

    return Metric(spelling.name(name), spelling.number(value), spelling.milliseconds(at), step)


def log(
    mlflow_client: Any,
    run_id: str,
    metrics: Sequence[Any],
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> None:
    """Log to a run in as few calls as MLflow's limits allow. What it refuses is left out and said in the log."""
    from mlflow.entities import Param, RunTag

    params_left = [Param(key, value) for key, value in params.items()]
    tags_left = [RunTag(key, spelling.cut(value, _TAG_CHARACTERS)) for key, value in tags.items()]
    metrics_left = list(metrics)
    while metrics_left or params_left or tags_left:
        batch = metrics_left[:_METRICS], params_left[:_PARAMETERS], tags_left[:_TAGS]
        _log_batch(mlflow_client, run_id, *batch)
        del metrics_left[:_METRICS], params_left[:_PARAMETERS], tags_left[:_TAGS]


def _log_batch(mlflow_client: Any, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
    from mlflow.exceptions import MlflowException

    try:
        mlflow_client.log_batch(run_id, metrics=metrics, params=params, tags=tags)
        return
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        refusal = error
    if mlflow_client.get_run(run_id).info.lifecycle_stage == "deleted":
        _log.warning("run %s was deleted in MLflow: nothing more is written to it", run_id)
        return
    single = [{"metrics": [m]} for m in metrics] + [{"params": [p]} for p in params] + [{"tags": [t]} for t in tags]
    if len(single) == 1:
        _log.warning("run %s: MLflow refuses %s: %s", run_id, single[0], line_of(refusal))
        return
    # One value that MLflow refuses must not hold up the rest.
    for entity in single:
        _log_batch(mlflow_client, run_id, **{"metrics": [], "params": [], "tags": [], **entity})


def line_of(error: BaseException) -> str:
    """An exception as one line."""
    text = spelling.masked(" ".join(str(error).split())) or type(error).__name__
    refused = re.search(
        r"(Connection refused|Name or service not known|timed out|Temporary failure in name resolution)", text
    )
    return refused[1] if refused else spelling.cut(text, 300)


def signatures(facts: Mapping[str, Any]) -> dict[str, str]:
    """The tags that say how scores were computed: facts of an objective named `signature.<metric>`."""
    return {name: str(value) for name, value in facts.items() if name.startswith("signature.")}
