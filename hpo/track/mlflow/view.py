"""The MLflow UI's saved view of a study: trials best first, parallel coordinates before all other charts.

A saved view is an experiment tag in the UI's own format, read from the page of MLflow 3.17: not a documented
interface. Another version may ignore it, so nothing depends on it. Pure functions; no MLflow here.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any
from urllib.parse import quote

from hpo.folder import StudyRecord
from hpo.track import spelling

_TAG_CHARACTERS = 20_000
_SCATTERED = 7
_OPEN = {"display": True, "isReordered": True}


def key(record: StudyRecord) -> str:
    """The view's name in links."""
    return f"hpo-{record.id[:12]}"


def tag(record: StudyRecord) -> str:
    """The experiment tag that holds the view."""
    return f"mlflow.sharedViewState.{key(record)}"


def content(record: StudyRecord, study_run: str) -> str | None:
    """What the tag holds, or None where it would be too long for one.

    Args:
        record: of the study.
        study_run: id of the study's run; its trials are its children.
    """
    packed = zlib.compress(json.dumps(state(record, study_run)).encode())
    written = "deflate;" + base64.b64encode(packed).decode()
    at = spelling.milliseconds(record.created)
    view = json.dumps({"name": f"{record.name}: trials", "createdAt": at, "updatedAt": at, "state": written})
    return view if len(view) <= _TAG_CHARACTERS else None


def state(record: StudyRecord, study_run: str) -> dict[str, Any]:
    """What the UI shows: columns, order, and charts."""
    metric = objective_metric(record)
    parameters = [spelling.name(parameter) for parameter in record.space]
    # Few columns: more metrics would push the settings and the ending out of a laptop's window.
    columns = [f"metrics.`{metric}`", *(f"params.`{parameter}`" for parameter in parameters), "tags.`hpo.ending`"]
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{study_run}'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": record.metric["direction"] == "minimize",
        "selectedColumns": columns,
        "runsHiddenMode": "SHOW_ALL",
        # Beside the table of runs and MLflow's assistant, charts would have a third of the window.
        "runListHidden": True,
        "compareRunSections": [
            {"uuid": "hpo-all", "name": "All settings", "columns": 1, "cardHeight": 420, **_OPEN},
            {"uuid": "hpo-each", "name": "Curves, and each setting", "columns": 2, "cardHeight": 360, **_OPEN},
        ],
        "compareRunCharts": _charts(record, metric, [charted(record, parameter) for parameter in record.space]),
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
    }


def charted(record: StudyRecord, parameter: str) -> str:
    """Under which parameter of its run a setting is drawn: one searched on a log scale as its logarithm.

    The UI's axes are linear, and learning rates from 1e-5 to 1e-1 would all stand at the left edge but two.
    """
    name = spelling.name(parameter)
    return f"log10/{name}" if record.space[parameter].endswith("(log)") else name


def objective_metric(record: StudyRecord) -> str:
    """The metric that ranks trials in a table of latest values."""
    name = spelling.name(record.metric["name"])
    return f"best/{name}" if record.metric.get("at") == "best" else name


def _charts(record: StudyRecord, metric: str, parameters: list[str]) -> list[dict[str, Any]]:
    trials = max(20, int(record.search.get("trials", 0)))
    whole = {"metricSectionId": "hpo-all", "deleted": False, "isGenerated": False, "runsCountToCompare": trials}
    whole = {"metricSectionId": "hpo-all", "deleted": False, "isGenerated": False, "runsCountToCompare": trials}
    shared = {**whole, "metricSectionId": "hpo-each"}
    parallel = {
        "type": "PARALLEL",
        "uuid": "hpo-parallel",
        "selectedParams": parameters,
        "selectedMetrics": [metric],
        "showAllRuns": True,
        **whole,
    }
    curve = spelling.name(record.metric["name"])
    line = {
        "type": "LINE",
        "uuid": "hpo-curves",
        "metricKey": curve,
        "selectedMetricKeys": [curve],
        "displayName": f"{curve} by tokens seen",
        "xAxisKey": "step",
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
        **shared,
    }
    scatters = [
        {
            "type": "SCATTER",
            "uuid": f"hpo-scatter-{index}",
            "xaxis": {"key": parameter, "type": "PARAM"},
            "yaxis": {"key": metric, "type": "METRIC"},
            **shared,
        }
        for index, parameter in enumerate(parameters[:_SCATTERED])
    ]
    weighed = [
        {
            "type": "SCATTER",
            "uuid": f"hpo-tradeoff-{index}",
            "xaxis": {"key": spelling.name(other["name"]), "type": "METRIC"},
            "yaxis": {"key": metric, "type": "METRIC"},
            **shared,
        }
        for index, other in enumerate(record.tradeoff)
    ]
    return [parallel, line, *weighed, *scatters]


def study_link(base_url: str, experiment_id: str, view_key: str | None = None, *, charts: bool = False) -> str:
    """The page of a study's trials.

    Args:
        base_url: of the MLflow server.
        experiment_id: of the study's experiment.
        view_key: from `key`; without it, the whole experiment.
        charts: open the charts rather than the table.
    """
    # Without this, MLflow 3 opens in its mode for language-model applications, with neither runs nor models.
    query = "workflowType=machine_learning"
    if view_key:
        query += f"&viewStateShareKey={quote(view_key)}"
    if charts:
        query += "&compareRunsMode=CHART"
    return f"{base_url.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs?{query}"


def run_link(base_url: str, experiment_id: str, run_id: str) -> str:
    """The page of one run."""
    return f"{base_url.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs/{run_id}?workflowType=machine_learning"


def model_link(base_url: str, model: str, version: str | None = None) -> str:
    """The page of a registered model, or of one of its versions."""
    path = f"/versions/{version}" if version else ""
    return f"{base_url.rstrip('/')}/#/models/{quote(model)}{path}?workflowType=machine_learning"
