"""What a checked sweep will run, in words: the answer of `hpo check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpo.errors import UserError
from hpo.launch.devices import cores, gpus, layout
from hpo.plan import Plan
from hpo.schema import Invalid
from hpo.wording import duration, number


def sweep_view(plan: Plan) -> RenderableType:
    """The space, the baseline, and how it will be searched."""
    sweep = plan.sweep
    search = sweep.search
    space = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("searched", "values", "baseline", "only when"):
        space.add_column(column)
    for parameter in plan.space.parameters:
        when = ", ".join(f"{name} is {' or '.join(map(str, allowed))}" for name, allowed in parameter.when.items())
        baseline = number(plan.baseline.get(parameter.name)) if parameter.name in plan.baseline else "-"
        space.add_row(parameter.name, str(parameter.dimension), baseline, when)
    fixed = Table(box=None, header_style="bold", pad_edge=False)
    fixed.add_column("fixed")
    fixed.add_column("value")
    for name, value in plan.fixed.items():
        fixed.add_row(name, number(value))
    size = plan.space.grid() if search.sampler.name == "grid" else None
    count = search.trials if size is None else min(search.trials, sum(1 for _ in size) + len(plan.known))
    lines = [
        f"{sweep.metric.direction} {sweep.metric.name} of {plan.objective.name}",
        f"{count} trials: {_first(len(plan.known) - 1)}, then {search.sampler}",
        f"stopping: {search.pruner} at {_rungs(plan)}",
        str(layout(sweep.launch, gpus(), cores())) + f"; seed {search.seed}",
    ]
    if search.time_limit_seconds:
        lines.append(f"at most {duration(search.time_limit_seconds)}")
    lines.append(f"tracking: {_tracking(plan)}")
    parts: list[RenderableType] = [Text("\n".join(lines)), Text(), space]
    if plan.fixed:
        parts += [Text(), fixed]
    parts += [Text(f"\nnote: {warning}", style="yellow") for warning in plan.warnings]
    return Group(*parts)


def described(plan: Plan) -> Mapping[str, Any]:
    """What the objective says of the data that the baseline is trained on.

    Raises:
        UserError: the data is refused; the message is the objective's own.
    """
    try:
        found: Mapping[str, Any] = plan.objective.call("describe", plan.settings(plan.baseline))
    except (ValueError, Invalid) as error:
        raise UserError(str(error)) from error
    return found


def data_view(description: Mapping[str, Any]) -> RenderableType:
    """The data as the objective describes it: its splits, notes, examples and cautions."""
    parts: list[RenderableType] = []
    if splits := description.get("splits"):
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in splits[0]:
            table.add_column(column, justify="left" if column in ("split", "from") else "right")
        for row in splits:
            table.add_row(*(_cell(column, value) for column, value in row.items()))
        parts += [Text(), table]
    parts += [Text(f"- {note}") for note in description.get("notes", ())]
    examples = description.get("examples", ())
    if examples:
        parts += [Text("\nexamples as they are trained on:"), *(Text(f"  {example}"[:400]) for example in examples)]
    parts += [Text(f"\nnote: {caution}", style="yellow") for caution in description.get("cautions", ())]
    return Group(*parts)


def _cell(column: str, value: object) -> str:
    if isinstance(value, float) and 0 <= value <= 1:
        return f"{100 * value:.1f}%"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _first(known: int) -> str:
    return "the baseline" + (f", {known} known configuration{'s' if known > 1 else ''}" if known else "")


def _rungs(plan: Plan) -> str:
    rungs = ", ".join(number(rung) if isinstance(rung, int) else str(rung) for rung in plan.rungs)
    if not rungs:
        return "every measurement"
    return f"{rungs} tokens" if isinstance(plan.rungs[0], int) else f"{rungs} of a trial"


def _tracking(plan: Plan) -> str:
    settings = plan.sweep.mlflow
    if settings is None:
        return "none"
    where = settings.tracking_uri or "(MLFLOW_TRACKING_URI, else the store beside the studies)"
    return f"MLflow {where}"
