"""A forecast of a sweep from a probe of it: wall time, GPU-hours, money, and where a budget would stop it.

The sweep is simulated some hundred times. What is not known beforehand is drawn anew each time over all it may
be: which configurations the sampler will prefer, how many trials the rule will stop, how far the machine's speed
and the fitted costs are off. The interval is what lies between the 5th and the 95th percentile. Knows a plan and
a probe's findings; runs nothing.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpo.corners import Values, reference
from hpo.plan import Plan
from hpo.probe import Findings, Probed
from hpo.schema import Invalid
from hpo.space import Choices, Parameter
from hpo.spending import Rates, Spent
from hpo.sweep import Strategy
from hpo.trials import Value

_POOL = 300
_RANGE = (0.05, 0.5, 0.95)
_SPEED = 0.08  # a machine's speed from one minute to the next; measured on shared cores at 0.05 to 0.1
_EXTRAPOLATION = 0.08  # of a hundredth of a trial to the whole, where not even the baseline was trained in full


@dataclass(frozen=True, slots=True)
class Interval:
    """Half of the simulated sweeps lie below `median`, one in twenty below `low`, one in twenty above `high`."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        ranked = sorted(values)
        return cls(*(ranked[min(len(ranked) - 1, int(share * len(ranked)))] for share in _RANGE))

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of a whole sweep.

    Attributes:
        trials: asked for.
        seconds: of wall time, from the first trial's start to the last one's end.
        gpu_hours: in the unit of the rates.
        cost: None where no price is known.
        trial_seconds: of one trial that is not stopped.
        ended: trials that will have ended; fewer than `trials` where a limit comes first.
        limit: what comes first in most simulations: `time limit`, or of the budget `wall time`, `hours` or `money`;
            empty where nothing does.
    """

    trials: int
    seconds: Interval
    gpu_hours: Interval
    cost: Interval | None
    trial_seconds: Interval
    ended: Interval
    limit: str = ""


class CostModel:
    """Seconds of a whole trial by its configuration: the baseline's, times a factor for each setting.

    A setting's factor is measured at its ends and interpolated in between, on the setting's own scale; one that was not
    measured alone has none. `spread` is how far the probed configurations that were not used for this lie from it,
    `bias` their mean and `doubt` how uncertain that is, all in logarithms.
    """

    def __init__(self, plan: Plan, findings: Findings) -> None:
        self._plan = plan
        self._base = findings.baseline.seconds or 0.0
        self._effects: dict[str, dict[Value, float]] = {}
        parameters = plan.space.parameters
        for parameter in parameters:
            self._effects[parameter.name] = {reference(plan, parameter): 0.0}
        for parameter in parameters:  # conditions come first, so that what they change is not counted twice
            for probed in findings.probed:
                if probed.changed == parameter.name and probed.seconds:
                    value = probed.values[parameter.name]
                    self._effects[parameter.name][value] = math.log(probed.seconds / self.seconds(probed.values))
        rest = [p for p in findings.probed if not p.changed and p is not findings.baseline and p.seconds]
        residuals = [math.log(p.seconds / self.seconds(p.values)) for p in rest if p.seconds]
        self.bias = sum(residuals) / len(residuals) if residuals else 0.0
        about = sum((residual - self.bias) ** 2 for residual in residuals)
        self.spread = math.sqrt(about / (len(residuals) - 1)) if len(residuals) > 1 else 0.1
        self.doubt = self.spread / math.sqrt(max(1, len(residuals)))

    def seconds(self, values: Values) -> float:
        found = 0.0
        for parameter in self._plan.space.parameters:
            if parameter.name in values:
                found += _interpolated(parameter, self._effects[parameter.name], values[parameter.name])
        return self._base * math.exp(found)


def _interpolated(parameter: Parameter, effects: Mapping[Value, float], value: Value) -> float:
    """The effect at a value, from those at the nearest measured values on both sides."""
    if value in effects:
        return effects[value]
    positions = {at: where for at in effects if (where := _position(parameter, at)) is not None}
    here = _position(parameter, value)
    if here is None or not positions:
        return sum(effects.values()) / len(effects)
    below = max((at for at in positions if positions[at] <= here), key=lambda at: positions[at], default=None)
    above = min((at for at in positions if positions[at] >= here), key=lambda at: positions[at], default=None)
    if below is None or above is None:
        nearest = above if below is None else below
        return effects[nearest]
    if positions[above] == positions[below]:
        return effects[below]
    share = (here - positions[below]) / (positions[above] - positions[below])
    return effects[below] + share * (effects[above] - effects[below])


def _position(parameter: Parameter, value: Value) -> float | None:
    """Where a number stands on its setting's scale; costs of choices such as batch sizes go by their ratio."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    dimension = parameter.dimension
    log = all(isinstance(v, int | float) and v > 0 for v in dimension.values) if isinstance(dimension, Choices) else (
        dimension.log
    )  # fmt: skip
    return math.log(value) if log and value > 0 else float(value)


def stops_at_most(pruner: Strategy, trial: int, arrived: int) -> float:
    """The chance that a rule stops a trial at a rung, if the order of trials were chance.

    Args:
        pruner: the rule.
        trial: the trial's number.
        arrived: trials that have reached the rung, this one among them.
    """

    def option(name: str, default: float) -> float:
        value = pruner.options.get(name, default)
        return float(value) if isinstance(value, int | float) else default

    match pruner.name:
        case "none":
            return 0.0
        case "successive halving" | "pausing halving" | "hyperband":
            return 1 - max(1, arrived // int(option("reduction_factor", 3))) / arrived
        case "median" | "percentile":
            return 1 - option("percentile", 50.0) / 100 if trial >= option("n_startup_trials", 5) else 0.0
        case _:
            return 0.9


class Simulation:
    """A sweep that is run on paper.

    Args:
        plan: the checked sweep.
        findings: of its probe.
        rates: of a slot's hour.
        slots: how many trials run at once.
    """

    def __init__(self, plan: Plan, findings: Findings, rates: Rates, slots: int) -> None:
        self._plan = plan
        self._findings = findings
        self._rates = rates
        self._slots = slots
        self._generator = random.Random(plan.sweep.search.seed)
        self._model = CostModel(plan, findings)
        grid = plan.space.grid() if plan.sweep.search.sampler.name == "grid" else None
        self._baselines = plan.sweep.search.seeds
        listed = [dict(plan.baseline)] * (self._baselines - 1) + [dict(values) for values in plan.known]
        if grid is not None:
            listed += [values for values in grid if values not in listed]
        self._listed = [self._cost(values) for values in listed]
        self._listed[: self._baselines] = [findings.baseline.seconds or 0.0] * self._baselines
        self.trials = plan.sweep.search.trials if grid is None else min(plan.sweep.search.trials, len(listed))
        self._pool = [self._cost(plan.space.draw(self._generator)) for _ in range(_POOL)]
        # What others did on the machine meanwhile is in both, and may not be there when the sweep runs.
        measured = math.hypot(math.log(findings.drift) / 2, math.log(findings.crowding) / 3)
        self._doubt = math.hypot(measured, _SPEED, 0.0 if findings.whole else _EXTRAPOLATION)

    def _cost(self, values: Values) -> float:
        try:
            self._plan.objective.config(self._plan.settings(values))
        except Invalid:
            return 0.0  # it fails at once
        return self._model.seconds(values)

    def forecast(self) -> Forecast:
        """Simulate, and say what lies between the extremes."""
        count = max(100, min(600, 30_000 // self.trials))
        runs = [self._once() for _ in range(count)]
        price = self._rates.price_per_gpu_hour
        limits = Counter(run.limit for run in runs if run.limit)
        limit = limits.most_common(1)[0][0] if 2 * limits.total() > count else ""
        hours = Interval.of([run.spent.gpu_hours for run in runs])
        whole = [cost for cost in self._pool if cost] or self._listed
        factor = self._findings.crowding
        return Forecast(
            trials=self.trials,
            seconds=Interval.of([run.spent.seconds for run in runs]),
            gpu_hours=hours,
            cost=None if price is None else Interval(hours.low * price, hours.median * price, hours.high * price),
            trial_seconds=Interval.of([cost * factor for cost in whole]),
            ended=Interval.of([run.ended for run in runs]),
            limit=limit,
        )

    def _once(self) -> _Run:
        generator, model = self._generator, self._model
        speed = self._findings.crowding * math.exp(generator.gauss(0.0, self._doubt))
        off = generator.gauss(model.bias, model.doubt)
        # A sampler comes to prefer some region, and nobody knows which: from no preference to one configuration.
        preferred, preference = generator.choice(self._pool), generator.random()
        strictness = min(1.0, max(0.0, generator.uniform(-0.2, 1.2)))
        arrived: Counter[int] = Counter()
        free = [0.0] * min(self._slots, self.trials)
        jobs: list[tuple[float, float]] = []
        for trial in range(self.trials):
            begins = heapq.heappop(free)
            if trial < len(self._listed):
                seconds, sure = self._listed[trial], trial < self._baselines
            else:
                seconds = preferred if generator.random() < preference else generator.choice(self._pool)
                sure = False
            if not sure:
                seconds *= math.exp(off + generator.gauss(-(model.spread**2) / 2, model.spread))
                seconds *= self._share(trial, arrived, strictness)
            ends = begins + seconds * speed
            jobs.append((begins, ends))
            heapq.heappush(free, ends + self._findings.overhead)
        return self._limited(jobs)

    def _share(self, trial: int, arrived: Counter[int], strictness: float) -> float:
        """How much of a trial's time passes before it is stopped; 1 where it is not."""
        stages = self._findings.stages
        for rung in range(self._findings.incomparable, len(stages) - 1):
            arrived[rung] += 1
            chance = stops_at_most(self._plan.search.pruner, trial, arrived[rung])
            if self._generator.random() < strictness * chance:
                return stages[rung]
        return 1.0

    def _limited(self, jobs: Sequence[tuple[float, float]]) -> _Run:
        """What is spent until the last trial ends or the first limit is reached."""
        end, limit = max(end for _, end in jobs), ""
        for cap, words in self._limits(jobs):
            if cap < end:
                end, limit = cap, words
        busy = sum(max(0.0, min(ends, end) - begins) for begins, ends in jobs)
        return _Run(Spent.of(end, busy, self._rates), sum(ends <= end for _, ends in jobs), limit)

    def _limits(self, jobs: Sequence[tuple[float, float]]) -> list[tuple[float, str]]:
        budget, search, rates = self._plan.sweep.budget, self._plan.sweep.search, self._rates
        found: list[tuple[float, str]] = []
        if search.time_limit_seconds is not None:
            found.append((search.time_limit_seconds, "time limit"))
        if budget.seconds is not None:
            found.append((budget.seconds, "wall time"))
        if budget.gpu_hours is not None:
            found.append((_when(jobs, budget.gpu_hours * 3600 / rates.gpus_per_slot), "hours"))
        if budget.cost is not None and rates.price_per_gpu_hour:
            slot_seconds = budget.cost / rates.price_per_gpu_hour * 3600 / rates.gpus_per_slot
            found.append((_when(jobs, slot_seconds), "money"))
        return found


@dataclass(frozen=True, slots=True)
class _Run:
    spent: Spent
    ended: int
    limit: str


def _when(jobs: Sequence[tuple[float, float]], slot_seconds: float) -> float:
    """When slots have been busy for so many seconds in all; infinity where they never are."""
    left, last, running = slot_seconds, 0.0, 0
    edges = sorted([(begins, 1) for begins, _ in jobs] + [(ends, -1) for _, ends in jobs])
    for at, change in edges:
        if running * (at - last) >= left and running:
            return last + left / running
        left -= running * (at - last)
        last, running = at, running + change
    return math.inf


def peak_memory(findings: Findings) -> Probed | None:
    """The configuration that took most memory, or None where the objective does not measure it."""
    measured = [probed for probed in findings.probed if probed.memory is not None]
    return max(measured, key=lambda probed: probed.memory or 0.0, default=None)
