"""What a checked sweep will run, in words: the answer of `hpo check`."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpo.launch.devices import cores, gpus, layout
from hpo.plan import Plan
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
    parts.append(Text(f"\n{sweep.path} is in order. Run it: hpo run {sweep.path}", style="green"))
    return Group(*parts)


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
