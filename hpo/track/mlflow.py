"""A study in MLflow: a run for the study, a run below it for each trial, all written from the journal.

The only module that imports MLflow, and only inside functions: it takes seconds. Other modules of this room
that need it ask `client` and `library`. What of MLflow's behaviour this relies on, version 3.17: a metric
logged twice with the same key, step, time and value is stored once; a parameter may be logged again with the
same value; neither holds for runs, so these are looked for by their tags before one is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import getpass
import json
import logging
import os
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import UserError
from hpo.journal import History, StudyFolder, StudyRecord, TrialRecord
from hpo.sweep import MlflowSettings
from hpo.track import Line, spelling, view
from hpo.track.progress import best_trial, counts, optimisation_curve, summary
from hpo.trials import Direction, Ending

_log = logging.getLogger("hpo.track.mlflow")

# MLflow allows 1000 entities a batch, of which 100 parameters and 100 tags.
_METRICS, _PARAMETERS, _TAGS = 800, 100, 100
_TAG_CHARACTERS = 8000
_RUNS = 1000

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

_STATUS = {
    # KILLED and FAILED draw the same red cross; a trial that was rightly stopped has not failed.
    Ending.COMPLETE: "FINISHED",
    Ending.STOPPED: "FINISHED",
    Ending.DIVERGED: "FINISHED",
    Ending.OUT_OF_MEMORY: "FAILED",
    Ending.KILLED: "FAILED",
    Ending.FAILED: "FAILED",
}
_OPTUNA = {Ending.COMPLETE: "COMPLETE", Ending.STOPPED: "PRUNED"}
_STUDY_STATUS = {"running": "RUNNING", "finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


# -- the store ------------------------------------------------------------------------------------------


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


def library() -> types.ModuleType:
    """MLflow, quiet: no telemetry, no addresses on stdout, short retries."""
    for variable, setting in _ENVIRONMENT.items():
        os.environ.setdefault(variable, setting)
    import mlflow

    # Its own traceback of every failed call; the error itself reaches us.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return mlflow


def client(uri: str) -> Any:
    """A client of the store at `uri`, which is made first where it is a SQLite file that is not there yet."""
    mlflow = library()
    initialise(uri)
    return mlflow.MlflowClient(tracking_uri=uri)


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
    return re.sub(r"(://[^:/@]+):[^@/]+@", r"\1:***@", uri)


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
    text = " ".join(str(error).split()) or type(error).__name__
    refused = re.search(
        r"(Connection refused|Name or service not known|timed out|Temporary failure in name resolution)", text
    )
    return refused[1] if refused else spelling.cut(text, 300)


# -- the tracker ----------------------------------------------------------------------------------------


class MlflowTracker:
    """One study in MLflow (see `hpo.track.Tracker`)."""

    name = "mlflow"

    def __init__(self, folder: StudyFolder, record: StudyRecord, uri: str) -> None:
        self._folder = folder
        self._record = record
        self._uri = uri
        self._metric = record.metric["name"]
        self._direction = Direction(record.metric["direction"])
        self._experiment_id = ""
        self._study_run = ""
        self._trial_runs: dict[int, str] = {}
        self._points = 0
        self._client: Any = None

    @property
    def address(self) -> str:
        return shown(self._uri)

    def memory(self) -> dict[str, str]:
        return {
            "experiment_id": self._experiment_id,
            "run_id": self._study_run,
            "view": view.key(self._record),
        }

    def open(self, memory: Mapping[str, str]) -> bool:
        self._client = client(self._uri)
        name = (self._record.mlflow or {}).get("experiment") or self._record.sweep_name
        self._experiment_id = ensure_experiment(self._client, self._uri, name, self._experiment_tags())
        self._study_run, self._trial_runs, self._points = "", {}, 0
        known: Mapping[str, str] = {}
        for run in runs_of(self._client, self._experiment_id, self._record.id):
            kind = run.data.tags.get("kind")
            if kind == "trial":
                self._trial_runs.setdefault(int(run.data.tags["hpo.trial"]), run.info.run_id)
            elif kind == "study" and not self._study_run:
                self._study_run, known = run.info.run_id, run.data.params
        whole = memory.get("run_id", self._study_run) == self._study_run
        if not self._study_run:
            self._study_run = self._create(self._record.name, self._record.created, {"kind": "study"})
        self._describe(known)
        return whole

    def write(self, lines: Sequence[Line], history: History) -> None:
        by_trial: dict[int, list[Line]] = {}
        states: list[Line] = []
        for line in lines:
            if line["event"] == "study":
                states.append(line)
            else:
                by_trial.setdefault(line["trial"], []).append(line)
        for number, own in by_trial.items():
            self._write_trial(history.trials[number], own)
        if states or any(line["event"] == "ended" for line in lines):
            self._write_study(states, history)

    def settle(self, history: History) -> None:
        if history.state != "running":
            return
        for trial in history.unfinished:
            if trial.number in self._trial_runs:
                self._client.update_run(self._trial_runs[trial.number], status="SCHEDULED")
        tags = {"hpo.state": "interrupted", "hpo.reason": "the coordinator died; hpo resume goes on"}
        log(self._client, self._study_run, [], {}, tags)
        self._client.update_run(self._study_run, status="KILLED")

    # -- runs ---------------------------------------------------------------------------------------------

    def _create(self, name: str, started: float, tags: Mapping[str, str]) -> str:
        record = self._record
        tags = {
            "hpo.study": record.name,
            "hpo.study_id": record.id,
            "mlflow.user": _user(),
            "mlflow.source.name": f"{record.sweep_name}.yaml",
            "mlflow.source.type": "LOCAL",
            **tags,
        }
        start = spelling.milliseconds(started)
        run = self._client.create_run(self._experiment_id, start_time=start, tags=tags, run_name=name)
        return str(run.info.run_id)

    def _write_trial(self, trial: TrialRecord, lines: Sequence[Line]) -> None:
        began = any(line["event"] == "started" and not line["resumed"] for line in lines)
        run_id = self._trial_runs.get(trial.number)
        if run_id is None:
            if not began:
                _log.warning("trial %d has no run in MLflow any more: it was removed there", trial.number)
                return
            run_id = self._create(f"trial-{trial.number:04d}", trial.started_at, self._birth_tags(trial))
            self._trial_runs[trial.number] = run_id
        params = {spelling.name(key): spelling.value(value) for key, value in trial.parameters.items()} if began else {}
        metrics = [metric for line in lines if line["event"] == "measured" for metric in _measured(line)]
        ended = next((line for line in lines if line["event"] == "ended"), None)
        if ended is not None:
            metrics += self._final_metrics(trial, spelling.milliseconds(ended["at"]))
        log(self._client, run_id, metrics, params, {} if ended is None else self._ending_tags(trial))
        if trial.ending is not None and ended is not None:
            if _STATUS[trial.ending] == "FAILED" or trial.ending is Ending.DIVERGED:
                self._attempt("a log", self._upload, run_id, self._folder.trial_log(trial.number))
            self._client.set_terminated(run_id, _STATUS[trial.ending], spelling.milliseconds(ended["at"]))
        elif any(line["event"] == "interrupted" or (line["event"] == "started" and line["resumed"]) for line in lines):
            self._client.update_run(run_id, status="SCHEDULED" if trial.interrupted else "RUNNING")

    def _birth_tags(self, trial: TrialRecord) -> dict[str, str]:
        tags = {
            "kind": "trial",
            "mlflow.parentRunId": self._study_run,
            "hpo.trial": str(trial.number),
            "hpo.seed": str(trial.seed),
            # Parameters are shown at four digits; these are exact.
            "hpo.parameters": spelling.cut(json.dumps(trial.parameters), _TAG_CHARACTERS),
        }
        if trial.number == 0:
            tags |= {
                "hpo.baseline": "true",
                "mlflow.note.content": "The baseline: what one would use without a search.",
            }
        return tags

    def _ending_tags(self, trial: TrialRecord) -> dict[str, str]:
        ending = trial.ending or Ending.FAILED
        tags = {"hpo.ending": ending.value, "optuna.state": _OPTUNA.get(ending, "FAIL")}
        if trial.reason:
            tags |= {"hpo.reason": trial.reason, "mlflow.note.content": f"{ending.value}: {trial.reason}"}
        return tags

    def _final_metrics(self, trial: TrialRecord, at: int) -> list[Any]:
        metrics = [_metric("seconds", trial.seconds, at, trial.progress)]
        if self._record.metric.get("at") == "best" and trial.value is not None:
            metrics.append(_metric(view.objective_metric(self._record), trial.value, at, trial.progress))
        return metrics

    # -- the study's run ----------------------------------------------------------------------------------

    def _write_study(self, states: Sequence[Line], history: History) -> None:
        metric = spelling.name(self._metric)
        points = optimisation_curve(history, self._direction)
        metrics = []
        for point in points[self._points :]:
            at = spelling.milliseconds(point.at)
            metrics.append(_metric(f"best/{metric}", point.best, at, point.number))
            if point.baseline is not None:
                metrics.append(_metric(f"baseline/{metric}", point.baseline, at, point.number))
        tags = {"mlflow.note.content": summary(history, self._record, self._trial_link)}
        best = best_trial(history, self._direction)
        if best is not None:
            tags |= {"hpo.best_trial": str(best.number), "hpo.best_value": f"{best.value:.6g}"}
            if best.number in self._trial_runs:
                tags["hpo.best_run_id"] = self._trial_runs[best.number]
        if states:
            last = states[-1]
            tags |= {"hpo.state": last["state"], "hpo.reason": last["reason"]}
            if last["state"] != "running":
                at, ended = spelling.milliseconds(last["at"]), len(history.ended)
                metrics += [_metric(f"trials/{word}", count, at, ended) for word, count in counts(history).items()]
        log(self._client, self._study_run, metrics, {}, tags)
        self._points = len(points)
        if states:
            self._study_status(states[-1], best)

    def _study_status(self, state: Line, best: TrialRecord | None) -> None:
        status = _STUDY_STATUS[state["state"]]
        if status == "RUNNING":
            self._client.update_run(self._study_run, status=status)
            return
        if best is not None and best.number in self._trial_runs:
            path = self._folder.trial_log(best.number)
            self._attempt("a log", self._upload, self._trial_runs[best.number], path)
        self._client.set_terminated(self._study_run, status, spelling.milliseconds(state["at"]))

    def _trial_link(self, number: int) -> str:
        run_id = self._trial_runs.get(number)
        return f"#/experiments/{self._experiment_id}/runs/{run_id}" if run_id else ""

    def _describe(self, known: Mapping[str, str]) -> None:
        """What does not change while the study runs. `known`: parameters its run has already."""
        record = self._record
        params = {"objective": record.objective, "metric": self._metric, "direction": self._direction.value}
        # How many trials may change when the study is resumed, and an MLflow parameter may not: that is a tag.
        params |= {key: spelling.value(record.search[key]) for key in ("sampler", "pruner", "seed", "rungs")}
        params |= {spelling.name(f"space/{key}"): spelling.value(text) for key, text in record.space.items()}
        params |= {spelling.name(f"fixed/{key}"): spelling.value(value) for key, value in record.fixed.items()}
        tags = {"hpo.sweep": record.origin, "hpo.trials": str(record.search["trials"])}
        tags |= {f"hpo.version.{package}": version for package, version in record.versions.items()}
        log(self._client, self._study_run, [], {key: params[key] for key in params if key not in known}, tags)
        for path in (self._folder.sweep, self._folder.record):
            self._attempt("a file", self._upload, self._study_run, path)
        if "dataset" in record.facts:
            self._attempt("the dataset", self._dataset)
        self._attempt("the saved view", self._publish_view)

    def _experiment_tags(self) -> dict[str, str]:
        note = (
            f"Searches of `{self._record.sweep_name}.yaml`: {self._direction.value} {self._metric} of "
            f"`{self._record.objective}`.\n\nA run for each study (its best so far and the baseline, by trial), its trials below it."
        )
        return {"mlflow.note.content": note, "mlflow.experimentKind": "custom_model_development"}

    def _upload(self, run_id: str, path: Path) -> None:
        if path.is_file():
            self._client.log_artifact(run_id, str(path))

    def _dataset(self) -> None:
        from mlflow.entities import Dataset, DatasetInput

        facts = self._record.facts
        source = json.dumps({"uri": str(facts["dataset"])})
        profile = json.dumps({key: value for key, value in facts.items() if key not in ("dataset", "digest")})
        name = Path(str(facts["dataset"])).name or str(facts["dataset"])
        digest = str(facts.get("digest", ""))[:36] or "unknown"
        self._client.log_inputs(
            self._study_run, [DatasetInput(Dataset(name, digest, "local", source, profile=profile), [])]
        )

    def _publish_view(self) -> None:
        tag = view.tag(self._record, self._study_run, spelling.milliseconds(self._record.created))
        if tag is not None:
            self._client.set_experiment_tag(self._experiment_id, *tag)

    def _attempt(self, what: str, call: Callable[..., None], *arguments: object) -> None:
        """Extras: a store that takes metrics but no files, or another version's UI, must not hold up the rest."""
        try:
            call(*arguments)
        except Exception as error:
            _log.warning("%s could not be written to MLflow: %s", what, line_of(error))


def _metric(key: str, value: float, at: int, step: int) -> Any:
    from mlflow.entities import Metric

    return Metric(key, spelling.number(value), at, step)


def _measured(line: Line) -> list[Any]:
    at, step = spelling.milliseconds(line["at"]), line["progress"]
    return [_metric(spelling.name(key), float(value), at, step) for key, value in line["metrics"].items()]


@functools.cache
def _user() -> str:
    with contextlib.suppress(Exception):
        return getpass.getuser()
    return "unknown"


def delete_study(record: StudyRecord, uri: str) -> int:
    """Put a study's runs, and its saved view, into MLflow's bin.

    Returns:
        How many runs.
    """
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return 0
    mlflow_client = client(uri)
    name = (record.mlflow or {}).get("experiment") or record.sweep_name
    experiment = mlflow_client.get_experiment_by_name(name)
    if experiment is None:
        return 0
    runs = list(runs_of(mlflow_client, experiment.experiment_id, record.id))
    for run in runs:
        mlflow_client.delete_run(run.info.run_id)
    tag = f"mlflow.sharedViewState.{view.key(record)}"
    if tag in experiment.tags:
        mlflow_client.delete_experiment_tag(experiment.experiment_id, tag)
    return len(runs)
