"""Studies as a coordinator leaves them on disk, and what a person would see of them in MLflow."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpo.folder import StudyFolder, StudyRecord
from hpo.journal import Journal, StudyState
from hpo.track import Line
from hpo.trials import Assignment, Ended, Ending, Event, Measurement, Outcome, Progressed, Started

BEGIN = 1_790_000_000.125


def record(name: str = "lr", **changes: Any) -> StudyRecord:
    fields: dict[str, Any] = {
        "name": name,
        "id": f"{name}-0123456789abcdef",
        "created": BEGIN,
        "sweep_name": "lr",
        "origin": "/sweeps/lr.yaml",
        "assignments": [],
        "objective": "models.language_modelling:train",
        "metric": {"name": "validation/loss", "direction": "minimize", "at": "last"},
        "search": {"sampler": "tpe", "pruner": "none", "trials": 6, "seed": 0, "rungs": ["1/3", "1"]},
        "fixed": {"model.layers": 2, "data": {"source": "sample"}},
        "space": {"learning_rate": "0.0001 to 0.1 (log)", "batch_size": "one of 8, 16"},
        "facts": {
            "dataset": "sample",
            "digest": "9728d7c3e50ca25c",
            "vocabulary": 512,
            "signature.bleu": "nrefs:1|case:mixed",
        },
        "versions": {"python": "3.11.7"},
        "mlflow": {"tracking_uri": None, "experiment": None},
    }
    return StudyRecord(**{**fields, **changes})


def study(studies: Path, events: list[Event | StudyState], name: str = "lr", **changes: Any) -> StudyFolder:
    """A study's folder as a coordinator leaves it."""
    folder = StudyFolder(studies / name)
    (folder.root / "trials").mkdir(parents=True)
    folder.sweep.write_text("objective: models.language_modelling:train\n")
    record(name, **changes).write(folder)
    append(folder, events)
    return folder


def append(folder: StudyFolder, events: list[Event | StudyState]) -> None:
    there = len(folder.journal.read_text().splitlines()) if folder.journal.exists() else 0
    ticks = itertools.count(there)
    with Journal(folder.journal, lambda: BEGIN + next(ticks) * 0.517) as journal:
        for event in events:
            journal.append(event)


def started(number: int, *, resumed: bool = False, **parameters: Any) -> Started:
    values = {"learning_rate": 0.0012345678 * (number + 1), "batch_size": 8, **parameters}
    return Started(Assignment(number, values, {**values, "model.layers": 2}, 7, (3, 9), number == 0), 0, resumed)


def measured(number: int, progress: int, loss: float, **metrics: float) -> Progressed:
    return Progressed(number, Measurement(progress, {"validation/loss": loss, "train/loss": loss / 2, **metrics}), 1.5)


def ended(number: int, ending: Ending, value: float | None = None, reason: str = "") -> Ended:
    return Ended(number, Outcome(ending, reason), 2.5, value)


def whole_search() -> list[Event | StudyState]:
    """Six trials, one for each way of ending, two at a time."""
    return [
        StudyState("running"),
        started(0),
        started(1),
        measured(0, 100, 3.0),
        measured(1, 100, 2.5),
        measured(1, 300, 2.25),
        ended(1, Ending.COMPLETE, 2.25),
        started(2),
        measured(0, 300, 2.75),
        ended(0, Ending.COMPLETE, 2.75),
        measured(2, 100, 9.0),
        ended(2, Ending.STOPPED, 9.0, "place 3 of 3 at 100"),
        started(3),
        measured(3, 100, math.nan, **{"train/gradient_norm": math.inf}),
        ended(3, Ending.DIVERGED, None, "validation/loss is nan"),
        started(4),
        ended(4, Ending.FAILED, None, "ValueError: no"),
        started(5),
        ended(5, Ending.OUT_OF_MEMORY, None, "CUDA out of memory"),
        StudyState("finished"),
    ]


def contents(client: Any) -> dict[str, Any]:
    """Everything in the store that a person could see, by run id."""
    found: dict[str, Any] = {}
    for experiment in client.search_experiments():
        found[f"experiment {experiment.name}"] = experiment.tags
        for run in client.search_runs([experiment.experiment_id], max_results=1000):
            history = {key: sorted(points(client, run, key)) for key in run.data.metrics}
            found[run.info.run_id] = {
                "name": run.info.run_name,
                "status": run.info.status,
                "times": (run.info.start_time, run.info.end_time),
                "params": run.data.params,
                "tags": run.data.tags,
                "metrics": history,
                "files": [file.path for file in client.list_artifacts(run.info.run_id)],
                "data": [(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs],
            }
    return found


def points(client: Any, run: Any, key: str) -> Iterator[tuple[int, int, str]]:
    """A metric's history: step, time in ms, value as text (NaN equals itself so)."""
    return ((m.step, m.timestamp, repr(m.value)) for m in client.get_metric_history(run.info.run_id, key))


def by_name(client: Any, name: str) -> Any:
    runs = [
        run
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id], max_results=1000)
        if run.info.run_name == name
    ]
    assert len(runs) == 1, f"{len(runs)} runs are called {name}"
    return runs[0]


def journal_lines(folder: StudyFolder) -> list[Line]:
    return [json.loads(line) for line in folder.journal.read_text().splitlines()]
