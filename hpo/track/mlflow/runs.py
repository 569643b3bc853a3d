"""A study as runs in MLflow: one for the study, one below it for each trial, all written from the journal."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.folder import StudyFolder, StudyRecord
from hpo.journal import History, TrialRecord
from hpo.outlook import spend_curve, spending_words
from hpo.track import Line, spelling
from hpo.track.mlflow import store, view
from hpo.track.progress import best_trial, counts, optimisation_curve, setbacks, summary
from hpo.trials import Direction, Ending

_log = logging.getLogger("hpo.track.mlflow")

_TAG_CHARACTERS = 8000

_OPTUNA = {Ending.COMPLETE: "COMPLETE", Ending.STOPPED: "PRUNED"}
_STUDY_STATUS = {"running": "RUNNING", "finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class _Doubled(Exception):
    """To be put right by opening the study's copy again."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Runs of a study: a server that hangs may make one that it was asked for later, beside the one asked for anew."""

    kept: list[Any] = field(default_factory=list)
    doubles: list[Any] = field(default_factory=list)


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
        self._costs = 0
        self._promoted = ""
        self._client: Any = None

    @property
    def address(self) -> str:
        return store.shown(self._uri)

    def memory(self) -> dict[str, str]:
        return {
            "experiment_id": self._experiment_id,
            "run_id": self._study_run,
            "view": view.key(self._record),
        }

    def open(self, memory: Mapping[str, str]) -> bool:
        self._client = store.client(self._uri)
        name = (self._record.mlflow or {}).get("experiment") or self._record.sweep_name
        self._experiment_id = store.ensure_experiment(self._client, self._uri, name, self._experiment_tags())
        self._study_run, self._trial_runs, self._points, self._costs = "", {}, 0, 0
        known: Mapping[str, str] = {}
        found = self._first_of_each(memory.get("run_id"))
        for run in found.kept:
            if run.data.tags.get("kind") == "trial":
                self._trial_runs[int(run.data.tags["hpo.trial"])] = run.info.run_id
            else:
                self._study_run, known = run.info.run_id, run.data.params
                self._promoted = store.promoted(run.data.tags.get(store.NOTE, ""))
        for run in found.doubles:
            self._client.delete_run(run.info.run_id)
        # What was written to a double is missing from the run that stays.
        whole = memory.get("run_id", self._study_run) == self._study_run and not found.doubles
        if not self._study_run:
            self._study_run = self._create(self._record.name, self._record.created, {"kind": "study"})
        self._describe(known)
        return whole

    def _first_of_each(self, study_run: str | None) -> _Found:
        """The study's run and its trials', each once; of several of the study, the one that trials were made below."""
        found = _Found()
        runs = list(store.runs_of(self._client, self._experiment_id, self._record.id))
        seen: set[str] = set()
        for run in sorted(runs, key=lambda run: run.info.run_id != study_run):
            kind = run.data.tags.get("kind")
            if kind not in ("study", "trial"):
                continue
            name = f"{kind} {run.data.tags.get('hpo.trial', '')}"
            (found.doubles if name in seen else found.kept).append(run)
            seen.add(name)
        return found

    def write(self, lines: Sequence[Line], history: History) -> None:
        by_trial: dict[int, list[Line]] = {}
        states: list[Line] = []
        for line in lines:
            if line["event"] == "study":
                states.append(line)
            elif "trial" in line:
                by_trial.setdefault(line["trial"], []).append(line)
        for number, own in by_trial.items():
            self._write_trial(history.trials[number], own)
        if states or any(line["event"] == "ended" for line in lines):
            self._write_study(states, history)
        if states and states[-1]["state"] != "running" and self._first_of_each(self._study_run).doubles:
            raise _Doubled("runs are there twice: a call that was given up was carried out after all")

    def settle(self, history: History) -> None:
        if history.state != "running":
            return
        for trial in history.unfinished:
            if trial.number in self._trial_runs:
                self._client.update_run(self._trial_runs[trial.number], status="SCHEDULED")
        tags = {"hpo.state": "interrupted: the coordinator died; hpo resume goes on"}
        store.log(self._client, self._study_run, [], {}, tags)
        self._client.update_run(self._study_run, status="KILLED")

    def close(self) -> None:
        """Nothing: each call to MLflow stands for itself."""

    # -- runs ---------------------------------------------------------------------------------------------

    def _create(self, name: str, started: float, tags: Mapping[str, str]) -> str:
        record = self._record
        tags = {
            "hpo.study": record.name,
            "hpo.study_id": record.id,
            **store.source_tags(record),
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
        params = self._parameters(trial) if began else {}
        metrics = [metric for line in lines if line["event"] == "measured" for metric in _measured(line)]
        ended = next((line for line in lines if line["event"] == "ended"), None)
        if ended is not None and trial.value is not None and self._record.metric.get("at") == "best":
            metrics.append(store.metric(view.objective_metric(self._record), trial.value, ended["at"], trial.progress))
        store.log(self._client, run_id, metrics, params, {} if ended is None else self._ending_tags(trial))
        if trial.ending is not None and ended is not None:
            if trial.ending.is_failure or trial.ending is Ending.DIVERGED:
                self._attempt("a log", self._upload, run_id, self._folder.trial_log(trial.number))
            # KILLED draws the same red cross as FAILED; a trial that was rightly stopped has not failed.
            status = "FAILED" if trial.ending.is_failure else "FINISHED"
            # Not before its beginning: the clock may have been set back between two runs of the study.
            self._client.set_terminated(run_id, status, spelling.milliseconds(max(trial.started_at, ended["at"])))
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
                store.NOTE: "The baseline: what one would use without a search.",
            }
        if trial.repeat:
            tags |= {"hpo.repeat": "true", store.NOTE: f"The baseline once more, with seed {trial.seed}."}
        return tags

    def _parameters(self, trial: TrialRecord) -> dict[str, str]:
        params = {spelling.name(key): spelling.value(value) for key, value in trial.parameters.items()}
        for key, value in trial.parameters.items():
            drawn = view.charted(self._record, key) if key in self._record.space else key
            if drawn not in params and isinstance(value, int | float) and value > 0:
                params[drawn] = f"{math.log10(value):.4g}"
        return params

    def _ending_tags(self, trial: TrialRecord) -> dict[str, str]:
        ending = trial.ending or Ending.FAILED
        tags = {"hpo.ending": ending.value, "optuna.state": _OPTUNA.get(ending, "FAIL")}
        # Of training alone; the run's duration has the time it lay interrupted in it.
        tags["hpo.seconds"] = f"{trial.seconds:.4g}"
        if trial.setbacks:
            tags |= {"hpo.setbacks": setbacks(trial), "hpo.divide": str(trial.divide)}
        if trial.reason:
            tags |= {"hpo.reason": trial.reason, store.NOTE: f"{ending.value}: {trial.reason}"}
        return tags

    # -- the study's run ----------------------------------------------------------------------------------

    def _write_study(self, states: Sequence[Line], history: History) -> None:
        metric = spelling.name(self._metric).replace("/", "_")
        points = optimisation_curve(history, self._direction)
        metrics = []
        for point in points[self._points :]:
            metrics.append(store.metric(f"search/best_{metric}", point.best, point.at, point.number))
            if point.baseline is not None:
                metrics.append(store.metric(f"search/baseline_{metric}", point.baseline, point.at, point.number))
        costs = spend_curve(history, self._record)
        for cost in costs[self._costs :]:
            metrics += [store.metric(name, value, cost.at, cost.number) for name, value in cost.metrics.items()]
        note = f"{summary(history, self._record, self._trial_link)}\n\n{spending_words(history, self._record)}"
        tags = {store.NOTE: note + self._promoted}
        best = best_trial(history, self._direction)
        if best is not None:
            tags |= {"hpo.best_trial": str(best.number), "hpo.best_value": f"{best.value:.6g}"}
            if best.number in self._trial_runs:
                tags["hpo.best_run_id"] = self._trial_runs[best.number]
        if states:
            last = states[-1]
            tags["hpo.state"] = f"{last['state']}: {last['reason']}" if last["reason"] else last["state"]
            if last["state"] != "running":
                # At step 0 the UI draws a bar with its number; later ones replace it by their time.
                tally = counts(history).items()
                metrics += [store.metric(f"search/trials_{word}", count, history.latest_at, 0) for word, count in tally]
        store.log(self._client, self._study_run, metrics, {}, tags)
        self._points, self._costs = len(points), len(costs)
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
        at = max(self._record.created, state["at"])
        self._client.set_terminated(self._study_run, status, spelling.milliseconds(at))

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
        tags["hpo.versions"] = ", ".join(f"{package} {version}" for package, version in record.versions.items())
        tags |= store.signatures(record.facts)
        store.log(self._client, self._study_run, [], {key: params[key] for key in params if key not in known}, tags)
        for path in (self._folder.sweep, self._folder.record):
            self._attempt("a file", self._upload, self._study_run, path)
        if "dataset" in record.facts:
            self._attempt("the dataset", self._dataset)
        self._attempt("the saved view", self._publish_view)

    def _experiment_tags(self) -> dict[str, str]:
        note = (
            f"Searches of `{self._record.sweep_name}.yaml`: {self._direction.value} {self._metric} of "
            f"`{self._record.objective}`.\n\n"
            "A run for each study (its best so far and the baseline, by trial), and its trials below it."
        )
        return {store.NOTE: note, "mlflow.experimentKind": "custom_model_development"}

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
        """Once: somebody may have changed and saved it in the UI since."""
        if view.tag(self._record) not in self._client.get_experiment(self._experiment_id).tags:
            content = view.content(self._record, self._study_run)
            if content is not None:
                self._client.set_experiment_tag(self._experiment_id, view.tag(self._record), content)

    def _attempt(self, what: str, call: Callable[..., None], *arguments: object) -> None:
        """Extras: a store that takes metrics but no files, or another version's UI, must not hold up the rest."""
        try:
            call(*arguments)
        except Exception as error:
            _log.warning("%s could not be written to MLflow: %s", what, store.line_of(error))


def _measured(line: Line) -> list[Any]:
    return [store.metric(key, float(value), line["at"], line["progress"]) for key, value in line["metrics"].items()]


def delete_study(record: StudyRecord, uri: str) -> int:
    """Put a study's runs, and its saved view, into MLflow's bin.

    Returns:
        How many runs.
    """
    path = store.sqlite_path(uri)
    if path is not None and not path.exists():
        return 0
    mlflow_client = store.client(uri)
    name = (record.mlflow or {}).get("experiment") or record.sweep_name
    experiment = mlflow_client.get_experiment_by_name(name)
    if experiment is None:
        return 0
    runs = list(store.runs_of(mlflow_client, experiment.experiment_id, record.id))
    for run in runs:
        mlflow_client.delete_run(run.info.run_id)
    if view.tag(record) in experiment.tags:
        mlflow_client.delete_experiment_tag(experiment.experiment_id, view.tag(record))
    return len(runs)
