"""What must hold of a study after any accident, read from its three records: the journal, Optuna's store, MLflow.

Each function raises AssertionError that says what is missing or too much. Nothing here changes a study: Optuna's
journal is read as a file, and its state through Optuna's own reader.
"""

from __future__ import annotations

import collections
import json
import math
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from hpo.folder import StudyFolder, StudyRecord
from hpo.journal import History
from hpo.track import spelling
from hpo.track.mlflow import store
from hpo.track.progress import best_trial, counts, optimisation_curve
from hpo.trials import Direction, Ending

_CREATE, _STATE, _INTERMEDIATE = 4, 6, 7  # of Optuna's JournalOperation
_TOLD = {Ending.COMPLETE: "COMPLETE", Ending.STOPPED: "PRUNED", Ending.DIVERGED: "PRUNED"}  # all else has failed


def check_journal(folder: StudyFolder, asked: int) -> History:
    """Exactly the asked trials, each begun once and ended once, each measurement once and in order."""
    seen: dict[int, list[int]] = {}
    ended: set[int] = set()
    for raw in folder.journal.read_text().splitlines():
        line = json.loads(raw)
        if "trial" not in line:
            continue
        number = line["trial"]
        assert number not in ended, f"trial {number} goes on after its ending: {raw}"
        match line["event"]:
            case "started":
                assert line["resumed"] == (number in seen), f"trial {number} begins twice or from nowhere: {raw}"
                seen.setdefault(number, [])
            case "measured":
                last = seen[number][-1] if seen[number] else 0
                assert line["progress"] > last, f"trial {number} measures {line['progress']} after {last}"
                seen[number].append(line["progress"])
                assert line["seconds"] >= 0
            case "ended":
                ended.add(number)
    assert list(seen) == list(range(asked)), "trials begin in the order of their numbers, as many as were asked"
    assert ended == set(range(asked)), f"without an ending: {set(seen) - ended}"
    history = History.read(folder.journal)
    assert history.state == "finished"
    return history


def check_optuna(folder: StudyFolder, history: History, metric: str = "validation/loss") -> None:
    """Optuna's store says the same, and each measurement and ending was told to it once."""
    lines = [json.loads(raw) for raw in folder.optuna.read_text().splitlines()]
    told = collections.Counter((line["trial_id"], line["step"]) for line in lines if line["op_code"] == _INTERMEDIATE)
    assert set(told.values()) <= {1}, f"told twice: {[key for key, count in told.items() if count > 1]}"
    created = sum(line["op_code"] == _CREATE for line in lines)
    assert created == len(history.trials), f"Optuna began {created} trials"
    storage = JournalStorage(JournalFileBackend(str(folder.optuna)))
    trials = optuna.load_study(study_name=folder.name, storage=storage).get_trials()
    assert [trial.number for trial in trials] == sorted(history.trials)
    for trial in trials:
        record = history.trials[trial.number]
        assert record.ending is not None
        assert trial.state.name == _TOLD.get(record.ending, "FAIL"), f"trial {trial.number} is {trial.state.name}"
        assert trial.params == record.parameters
        curve = {m.progress: m.metrics[metric] for m in record.measurements if math.isfinite(m.metrics[metric])}
        assert trial.intermediate_values == curve, f"trial {trial.number} in Optuna"
        if record.ending is Ending.COMPLETE:
            assert trial.value == record.value


def check_mlflow(folder: StudyFolder, history: History, uri: str) -> None:
    """MLflow has one run for the study and one for each trial, with the journal's values and nothing besides."""
    record = StudyRecord.read(folder)
    client = store.client(uri)
    experiment = client.get_experiment_by_name((record.mlflow or {}).get("experiment") or record.sweep_name)
    by_trial: dict[int, Any] = {}
    studies = []
    for run in store.runs_of(client, experiment.experiment_id, record.id):
        if run.data.tags["kind"] == "study":
            studies.append(run)
            continue
        number = int(run.data.tags["hpo.trial"])
        assert number not in by_trial, f"trial {number} has two runs in MLflow"
        by_trial[number] = run
    assert sorted(by_trial) == sorted(history.trials)
    assert len(studies) == 1, f"the study has {len(studies)} runs in MLflow"
    for number, run in by_trial.items():
        _check_trial_run(client, run, history, number)
    _check_study_run(client, studies[0], history, record)


def _check_trial_run(client: Any, run: Any, history: History, number: int) -> None:
    trial = history.trials[number]
    where = f"trial {number} in MLflow"
    assert trial.ending is not None
    names = {name for measurement in trial.measurements for name in measurement.metrics}
    assert set(run.data.metrics) == names, where
    for name in names:
        wanted = [(m.progress, m.metrics[name]) for m in trial.measurements if name in m.metrics]
        assert _curve(client, run, name) == [(step, spelling.number(value)) for step, value in wanted], where
    assert json.loads(run.data.tags["hpo.parameters"]) == trial.parameters, where
    for key, value in trial.parameters.items():
        assert run.data.params[spelling.name(key)] == spelling.value(value), where
    assert run.data.tags["hpo.ending"] == trial.ending.value, where
    assert run.info.status == ("FINISHED" if trial.ending in _TOLD else "FAILED"), where
    assert run.info.end_time >= run.info.start_time, f"{where} ends before it begins"


def _check_study_run(client: Any, run: Any, history: History, record: StudyRecord) -> None:
    direction = Direction(record.metric["direction"])
    best = best_trial(history, direction)
    assert best is not None
    assert run.data.tags["hpo.best_trial"] == str(best.number)
    assert run.data.tags["hpo.state"] == "finished"
    assert run.info.status == "FINISHED"
    assert run.info.end_time >= run.info.start_time, "the study ends before it begins, in MLflow"
    for word, count in counts(history).items():
        assert run.data.metrics[f"search/trials_{word}"] == count, f"MLflow shows another number of trials {word}"
    metric = spelling.name(record.metric["name"]).replace("/", "_")
    wanted = [(point.number, point.best) for point in optimisation_curve(history, direction)]
    assert _curve(client, run, f"search/best_{metric}") == wanted


def _curve(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    """Every value there is, so that one stored twice shows."""
    return sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))


def check_same(history: History, twin: History) -> None:
    """The same trials with the same parameters, curves and endings as in a study that nothing happened to.

    Only for one slot: with several, trials arrive in another order each time, and the sampler and the stopping
    rule see what has arrived.
    """
    for number, expected in twin.trials.items():
        trial = history.trials[number]
        assert trial.parameters == expected.parameters, f"trial {number} was given other parameters"
        assert trial.measurements == expected.measurements, f"trial {number} has another curve"
        assert (trial.ending, trial.value) == (expected.ending, expected.value), f"trial {number} ended otherwise"
    ours, theirs = best_trial(history, Direction.MINIMIZE), best_trial(twin, Direction.MINIMIZE)
    assert ours is not None
    assert theirs is not None
    assert (ours.number, ours.value) == (theirs.number, theirs.value)


def check_folders(folder: StudyFolder, history: History) -> None:
    """Checkpoints of the best trial stay, and no others (`keep: best`)."""
    best = best_trial(history, Direction(StudyRecord.read(folder).metric["direction"]))
    assert best is not None
    kept = [path.name for path in (folder.root / "trials").iterdir() if path.is_dir()]
    assert kept == [folder.trial(best.number).name]


def check_said(path: Path) -> None:
    """No command ever ended in a traceback."""
    said = path.read_text()
    assert "Traceback" not in said, said[said.index("Traceback") - 500 :][:4000]
