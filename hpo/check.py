"""What a checked sweep will run, in words: the answer of `hpo check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpo import laws
from hpo.errors import Stopped, UserError
from hpo.forecast import Forecast, Interval, Simulation, peak_memory
from hpo.given import GivenTrials
from hpo.halving import RULES
from hpo.launch.devices import cores, gpus, layout
from hpo.plan import Plan
from hpo.probe import Findings, Probed, probing
from hpo.schema import Invalid
from hpo.spending import Rates
from hpo.track import words
from hpo.trials import Ending, compared_at, rung_tokens
from hpo.wording import duration, number, parameters


def sweep_view(plan: Plan) -> RenderableType:
    """The space, the baseline, and how it will be searched."""
    sweep = plan.sweep
    search = plan.search
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
    count = int(min(search.trials, GivenTrials(search, plan.space, plan.known).size))
    lines = [
        f"{sweep.metric.direction} {sweep.metric.name} of {plan.objective.name}"
        + "".join(f", against {one.name} ({one.direction})" for one in sweep.tradeoff.others),
        f"{count} trials: {_first(len(plan.known) - 1, search.seeds)}, then {search.sampler}",
        f"stopping: {search.pruner} at {_rungs(plan)}",
        *plan.reasons,
        str(layout(sweep.launch, gpus(), cores())) + f"; seed {search.seed}",
    ]
    if search.unbiased:
        lines.append(f"a share of {search.unbiased:g} of the trials: drawn at random, and never stopped")
    if search.seeds > 1:
        lines.append(_seeds(plan))
    if search.time_limit_seconds:
        lines.append(f"at most {duration(search.time_limit_seconds)}")
    lines.append(f"tracking: {words.plan(sweep.mlflow, sweep.wandb, sweep.path.stem)}")
    parts: list[RenderableType] = [Text("\n".join(lines)), Text(), space]
    parts += [Text(f"\n{line}") for line in _laws(plan)]
    if plan.fixed:
        parts += [Text(), fixed]
    parts += [Text(f"\nnote: {warning}", style="yellow") for warning in plan.warnings]
    return Group(*parts)


def _laws(plan: Plan) -> list[str]:
    """What each law says of the baseline, and whose it is."""
    return [
        f"{parameter.law}: {parameter.name} {number(law(plan.baseline), 3)} for the baseline"
        + (f" ({law.source})" if law.source else "")
        for parameter, _, law in laws.centred(plan.space)
        if parameter.name in plan.baseline
    ]


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


def uncompared(plan: Plan) -> list[str]:
    """Which rungs lie in the baseline's warm-up, in words; none where there are none.

    Raises:
        UserError: the objective cannot say; the message is its own.
    """
    objective, settings = plan.objective, plan.settings(plan.baseline)
    if not objective.has("warmup") or plan.search.pruner.name == "none":
        return []
    try:
        warmup: int = objective.call("warmup", settings)
        length: int | None = objective.call("length", settings) if objective.has("length") else None
    except (ValueError, Invalid) as error:
        raise UserError(str(error)) from error
    except UserError:
        raise
    except Exception as error:  # it may need what `prepare` leaves, and it is the objective's own code
        return [f"which rungs lie within the warm-up is known when trials run ({type(error).__name__}: {error})"]
    rungs = {rung: tokens for rung in plan.rungs for tokens in rung_tokens([rung], length)}
    left = set(compared_at(plan.rungs, length, warmup))
    within = [
        number(rung) if isinstance(rung, int) else str(rung) for rung, tokens in rungs.items() if tokens not in left
    ]
    if not within:
        return []
    lie = f"rungs at {', '.join(within)} lie" if len(within) > 1 else f"rung at {within[0]} lies"
    share = (
        f"the first {warmup:,} tokens" if length is None else f"the first {number(warmup / length, 2)} of its training"
    )
    found = [f"the {lie} within the baseline's warm-up ({share}): trials that warm up so are not compared there"]
    if not left - {length}:
        found.append(
            "no rung but the end lies behind the baseline's warm-up: nothing can be stopped early. Shorten the "
            "warm-up, or set search.rungs to later ones."
        )
    return found


def _cell(column: str, value: object) -> str:
    if isinstance(value, float) and 0 <= value <= 1:
        return f"{100 * value:.1f}%"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _seeds(plan: Plan) -> str:
    """What the trainings of the baseline with several seeds are for."""
    search = plan.search
    first = f"seeds {search.seed} to {search.seed + search.seeds - 1} of the baseline, never stopped: "
    measured = "noise" in RULES.get(search.pruner.name, (None, ()))[1] and "noise" not in search.pruner.options
    if measured and not plan.tradeoff:
        return (
            f"{first}how far they differ at a rung is the noise of {search.pruner.name}, and at the end of the result"
        )
    return f"{first}how far they differ at the end is the noise of the result; no trial is spared for it"


def _first(known: int, seeds: int) -> str:
    baseline = "the baseline" + (f" with {seeds} seeds" if seeds > 1 else "")
    return baseline + (f", {known} known configuration{'s' if known > 1 else ''}" if known else "")


def _rungs(plan: Plan) -> str:
    rungs = ", ".join(number(rung) if isinstance(rung, int) else str(rung) for rung in plan.rungs)
    if not rungs:
        return "every measurement"
    return f"{rungs} tokens" if isinstance(plan.rungs[0], int) else f"{rungs} of a trial"


def forecast(plan: Plan, slots: int | None, console: Console) -> Forecast:
    """Probe a sweep on this machine, in view, and print what it will cost.

    Raises:
        HpoError: the baseline does not train, so that nothing can be said.
        Stopped: Ctrl-C.
    """
    console.print("\nprobing: a few steps of each configuration, in one slot; the baseline in full if that is short")
    try:
        with probing(plan, slots) as (probe, shape):
            for probed in probe.run():
                console.print(_probed(probed), markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        raise Stopped("the probe was stopped; nothing is left of it.") from None
    rates = Rates.of(plan.sweep.launch, plan.sweep.budget, len(shape.gpus), shape.slots)
    found = Simulation(plan, probe.findings, rates, shape.slots).forecast()
    console.print(forecast_view(plan, probe.findings, found, rates))
    return found


def _probed(probed: Probed) -> str:
    if probed.trouble is not None:
        return f"  {probed.what}: {probed.trouble.ending}"
    return f"  {probed.what}: {'about ' + duration(probed.seconds) if probed.seconds else 'unknown time'} a trial"


def forecast_view(plan: Plan, findings: Findings, found: Forecast, rates: Rates) -> RenderableType:
    """Each probed configuration, what will not fit, and the forecast of the sweep."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("probed", "progress/s", "time a trial", "peak GiB", "settings"):
        table.add_column(column, justify="left" if column in ("probed", "settings") else "right")
    for probed in findings.probed:
        if probed.trouble is None:
            cells = (number(probed.rate), duration(probed.seconds or 0.0), number(probed.memory, 3))
        else:
            cells = ("-", Text(probed.trouble.ending, style="red"), number(probed.memory, 3))  # type: ignore[assignment]
        table.add_row(probed.what, *cells, parameters(probed.values))
    parts: list[RenderableType] = [Text(), table, Text()]
    parts += [Text(line, style="red") for line in _troubles(findings)]
    if findings.left_out:
        parts.append(Text(f"not measured alone: {', '.join(findings.left_out)}", style="yellow"))
    if findings.crowding >= 1.1:
        parts.append(Text(f"with every slot busy a trial takes {findings.crowding:.2f} times as long; counted below"))
    parts.append(_forecast_table(findings, found, rates))
    if found.limit:
        parts.append(Text(_limited(plan, found, rates), style="yellow"))
    return Group(*parts)


def _forecast_table(findings: Findings, found: Forecast, rates: Rates) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in (f"forecast of {found.trials} trials", "median", "90% of the time between"):
        table.add_column(column)
    rows = [
        ("wall time", _times(found.seconds)),
        (rates.unit, _numbers(found.gpu_hours)),
        ("cost", ("-", "no price_per_gpu_hour in the sweep's budget") if found.cost is None else _numbers(found.cost)),
        ("a trial that is not stopped", _times(found.trial_seconds)),
    ]
    most = peak_memory(findings)
    if most is not None:
        rows.append(("peak memory", (f"{number(most.memory, 3)} GiB", f"the most of all probed: {most.what}")))
    for row, cells in rows:
        table.add_row(row, *cells)
    return table


def _times(interval: Interval) -> tuple[str, str]:
    return duration(interval.median), f"{duration(interval.low)} and {duration(interval.high)}"


def _numbers(interval: Interval) -> tuple[str, str]:
    return number(interval.median, 3), f"{number(interval.low, 3)} and {number(interval.high, 3)}"


def _troubles(findings: Findings) -> list[str]:
    """Each configuration that went wrong, named with its settings."""
    lines = []
    for probed in findings.probed:
        if probed.trouble is not None:
            verdict = "will not fit" if probed.trouble.ending is Ending.OUT_OF_MEMORY else probed.trouble.ending.value
            lines.append(f"{verdict}: {parameters(probed.values)} ({probed.trouble.reason})")
    return lines


def _limited(plan: Plan, found: Forecast, rates: Rates) -> str:
    """Which limit stops the sweep, and where."""
    budget = plan.sweep.budget
    what = {
        "time limit": f"the time limit of {duration(plan.sweep.search.time_limit_seconds or 0.0)}",
        "wall time": f"the budget of {duration(budget.seconds or 0.0)}",
        "hours": f"the budget of {number(budget.gpu_hours)} {rates.unit}",
        "money": f"the budget of {number(budget.cost)}",
    }[found.limit]
    low, high = number(int(found.ended.low)), number(int(found.ended.high))
    between = f" ({low} to {high})" if low != high else ""
    return f"{what} will stop it after about {int(found.ended.median)} of {found.trials} trials{between}"
