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

from hpo.journal import StudyRecord
from hpo.track import spelling

_TAG_CHARACTERS = 20_000
_SCATTERED = 6


def key(record: StudyRecord) -> str:
    """The view's name in links."""
    return f"hpo-{record.id[:12]}"


def tag(record: StudyRecord, study_run: str, at: int) -> tuple[str, str] | None:
    """The view as an experiment tag, or None where it would be too long for one.

    Args:
        record: of the study.
        study_run: id of the study's run; its trials are its children.
        at: milliseconds since the epoch.
    """
    packed = zlib.compress(json.dumps(state(record, study_run)).encode())
    written = "deflate;" + base64.b64encode(packed).decode()
    content = json.dumps({"name": f"{record.name}: trials", "createdAt": at, "updatedAt": at, "state": written})
    return (f"mlflow.sharedViewState.{key(record)}", content) if len(content) <= _TAG_CHARACTERS else None


def state(record: StudyRecord, study_run: str) -> dict[str, Any]:
    """What the UI shows: columns, order, and charts."""
    metric = objective_metric(record)
    parameters = [spelling.name(parameter) for parameter in record.space]
    columns = [
        f"metrics.`{metric}`",
        *(f"params.`{parameter}`" for parameter in parameters),
        "tags.`hpo.ending`",
    ]
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{study_run}'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": record.metric["direction"] == "minimize",
        "selectedColumns": columns,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": [
            {
                "uuid": "hpo",
                "name": "What was tried and what came of it",
                "display": True,
                "isReordered": True,
            }
        ],
        "compareRunCharts": _charts(record, metric, parameters),
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
    }


def objective_metric(record: StudyRecord) -> str:
    """The metric that ranks trials in a table of latest values."""
    name = spelling.name(record.metric["name"])
    return f"best/{name}" if record.metric.get("at") == "best" else name


def _charts(record: StudyRecord, metric: str, parameters: list[str]) -> list[dict[str, Any]]:
    trials = max(20, int(record.search.get("trials", 0)))
    shared = {"metricSectionId": "hpo", "deleted": False, "isGenerated": False, "runsCountToCompare": trials}
    parallel = {
        "type": "PARALLEL",
        "uuid": "hpo-parallel",
        "selectedParams": parameters,
        "selectedMetrics": [metric],
        "showAllRuns": True,
        **shared,
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
    return [parallel, line, *scatters]


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
