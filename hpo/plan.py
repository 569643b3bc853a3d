"""A plan: a sweep checked against its objective, so that nothing in it can be wrong by name, type or range.

Knows both sides of that check and nothing of how the plan will be carried out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from hpo import laws
from hpo.defaults import PAUSING, Circumstances, reasons, settled
from hpo.document import Path_
from hpo.errors import Mistake, UserError, did_you_mean
from hpo.objective import Objective, load
from hpo.schema import Invalid, flatten
from hpo.space import Choices, FloatRange, IntRange, Parameter, Space
from hpo.sweep import Search, Sweep, parse
from hpo.tradeoff import PRUNERS, SAMPLERS, Tradeoff
from hpo.trials import Metric, Rung, Value

_SAMPLED_CONFIGURATIONS = 200


@dataclass(frozen=True)
class Plan:
    """A sweep and its objective, checked against each other; `known` begins with the baseline."""

    sweep: Sweep
    objective: Objective
    space: Space
    fixed: Mapping[str, object]
    known: tuple[Mapping[str, Value], ...] = field(default=())
    warnings: tuple[str, ...] = ()

    @property
    def metric(self) -> Metric:
        return self.sweep.metric

    @property
    def tradeoff(self) -> Tradeoff:
        return self.sweep.tradeoff

    @cached_property
    def search(self) -> Search:
        """How it is searched, with every `auto` decided."""
        return settled(self.sweep.search, self.circumstances)

    @property
    def circumstances(self) -> Circumstances:
        written = ("search", "rungs") in self.sweep.places
        shared = self.sweep.storage is not None
        resumes, weighs = "directory" in self.objective.accepts, bool(self.sweep.tradeoff)
        centred = tuple(parameter.name for parameter in self.space.parameters if parameter.law is not None)
        return Circumstances(resumes, shared, written, weighs, centred)

    @property
    def reasons(self) -> list[str]:
        """Why `auto` stands for what it does."""
        return reasons(self.sweep.search, self.circumstances)

    @property
    def baseline(self) -> Mapping[str, Value]:
        return self.known[0]

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Where trials measure; an objective that does not say its length measures where it likes."""
        return self.search.rungs if self.circumstances.rungs_written or self.objective.has("length") else ()

    def settings(self, parameters: Mapping[str, Value]) -> dict[str, object]:
        """The whole configuration of a trial by dotted name: what is fixed, and what was sampled."""
        return {**self.fixed, **parameters}


def draft(
    text: str, path: Path, assignments: Sequence[str] = (), name: str | None = None
) -> tuple[Plan | None, Sweep, list[Mistake]]:
    """Read a sweep, load its objective and check one against the other.

    Returns:
        The plan (None where the objective cannot be loaded), the sweep, and all mistakes so far; the plan
        is of use only without any.
    """
    sweep, mistakes = parse(text, path, assignments, name)
    if not sweep.objective:
        return None, sweep, mistakes
    try:
        objective = load(sweep.objective, path.parent)
    except UserError as error:
        return None, sweep, [*mistakes, Mistake(sweep.place("objective"), f"objective: {error}")]
    checker = _Checker(sweep, objective)
    checked = checker.plan(sound=not mistakes)
    return checked, sweep, mistakes + checker.mistakes


def by_line(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """Mistakes in the order of the file, each once."""

    def line(mistake: Mistake) -> tuple[str, int]:
        name, _, number = mistake.where.rpartition(":")
        return (name, int(number)) if number.isdigit() else (mistake.where, 0)

    return sorted(dict.fromkeys(mistakes), key=line)


class _Checker:
    """Checks each part of a sweep against the objective's settings."""

    def __init__(self, sweep: Sweep, objective: Objective) -> None:
        self.sweep = sweep
        self.objective = objective
        self.schema = objective.schema
        self.mistakes: list[Mistake] = []
        self.warnings: list[str] = []

    def wrong(self, path: Path_, text: str) -> None:
        dotted = ".".join(str(part) for part in path)
        self.mistakes.append(Mistake(self.sweep.place(*path), f"{dotted}: {text}"))

    def unknown(self, path: Path_, name: str) -> bool:
        problem = self.schema.unknown(name)
        if problem is not None:
            door = self.objective.name.partition(":")[0]
            self.wrong(path, f"no such setting of {door}. {problem}")
        return problem is not None

    def plan(self, *, sound: bool) -> Plan:
        """Check part by part; what goes together is checked only of a sweep that is `sound` otherwise."""
        fixed = self.tree("fixed", self.sweep.fixed)
        space = self.space(fixed)
        self.metrics()
        self.strategy()
        self.tradeoff()
        known = self.known(space, fixed)
        self.tree("promote", self.sweep.promote, base={**fixed, **(known[0] if known else {})})
        if sound and not self.mistakes:
            self.combinations(space, fixed, known)
        return Plan(self.sweep, self.objective, space, fixed, known, tuple(self.warnings))

    def tree(
        self, section: str, tree: Mapping[str, object], base: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        """The dotted settings of `fixed` or `promote`, each checked by name, alone and together."""
        flat: dict[str, object] = {}
        paths: dict[str, tuple[str, ...]] = {}
        for path, name, value in flatten(tree, self.schema):
            if self.unknown((section, *path), name):
                continue
            if name in flat:
                self.wrong((section, *path), "is set twice, once dotted and once nested. Keep one.")
            flat[name], paths[name] = value, path
        for name, text in self.problems({**(base or {}), **flat}, flat):
            self.wrong((section, *paths.get(name, ())), text)
        return flat

    def problems(self, settings: Mapping[str, object], names: Mapping[str, object]) -> list[tuple[str, str]]:
        """What is wrong with the values of `names`, whatever else the configuration still lacks."""
        try:
            self.objective.config(settings)
        except Invalid as error:
            return [(name, text) for name, text in error.problems if name in names]
        except Exception as error:
            return [("", f"{self.objective.name} refuses this configuration: {type(error).__name__}: {error}")]
        return []

    def space(self, fixed: Mapping[str, object]) -> Space:
        typed: list[Parameter] = []
        for parameter in self.sweep.space.parameters:
            path = self.path("space", parameter.name)
            if self.unknown(path, parameter.name):
                continue
            if parameter.name in fixed:
                self.wrong(
                    path,
                    f"is searched and fixed at once ({self.sweep.place('fixed', parameter.name)}). Keep one.",
                )
                continue
            before = len(self.mistakes)
            typed_parameter = self.typed(path, parameter)
            ends = typed_parameter.dimension.ends() if len(self.mistakes) == before else ()
            for value in ends:
                for name, text in self.problems({**fixed, parameter.name: value}, {parameter.name: value}):
                    if name == parameter.name:
                        self.wrong(path, text)
            if parameter.law is not None:
                objection = laws.objection(typed_parameter, self.objective, self.sweep.search.sampler.name)
                if objection is not None:
                    self.wrong((*path, "law"), objection)
            if len(self.mistakes) == before:
                typed.append(typed_parameter)
        if any(parameter.law is not None for parameter in typed):
            return laws.bound(typed, self.objective, fixed)
        return Space(tuple(typed))

    def typed(self, path: Path_, parameter: Parameter) -> Parameter:
        """A range takes its kind from the setting: `{low: 0, high: 1}` of a real setting is real numbers."""
        dimension = parameter.dimension
        setting = self.schema.settings.get(parameter.name)
        if setting is None or isinstance(dimension, Choices):
            return parameter
        if setting.whole and isinstance(dimension, FloatRange):
            self.wrong(
                path,
                f"takes whole numbers, got the range {dimension}. Write low, high and step without a point.",
            )
        if not setting.whole and isinstance(dimension, IntRange):
            step = None if dimension.step == 1 else float(dimension.step)
            dimension = FloatRange(float(dimension.low), float(dimension.high), dimension.log, step)
        return Parameter(parameter.name, dimension, parameter.when, parameter.law)

    def path(self, section: str, name: str) -> Path_:
        """Where a dotted name stands in a section, however it is nested there."""
        parts = name.split(".")
        for split in range(len(parts), 0, -1):
            head = ".".join(parts[:split])
            if (section, head) in self.sweep.places:
                rest = ".".join(parts[split:])
                inner: Path_ = (section, head)
                return (*inner, rest) if rest and (*inner, rest) in self.sweep.places else inner
        return (section, name)

    def metrics(self) -> None:
        """Whether each metric is measured, of those that the objective says it measures."""
        named: dict[Path_, str] = {("metric", "name"): self.sweep.metric.name}
        for index, metric in enumerate(self.sweep.tradeoff.others):
            named["tradeoff", index, "name"] = metric.name
        for path, name in named.items():
            if name and self.objective.metrics and name not in self.objective.metrics:
                self.wrong(
                    path,
                    f"{self.objective.name} does not measure {name!r}.{did_you_mean(name, self.objective.metrics)}",
                )

    def tradeoff(self) -> None:
        """Whether sampler, stopping rule and warm start can do with several metrics."""
        search = self.sweep.search
        if not self.sweep.tradeoff:
            return
        for key, strategy, able in (("sampler", search.sampler, SAMPLERS), ("pruner", search.pruner, PRUNERS)):
            if strategy.name not in able:
                text = f"{strategy.name} knows one metric, and there is a trade-off. Use one of {', '.join(able)}."
                self.wrong(("search", key), text)
        if self.sweep.warm_start:
            self.wrong(("warm_start",), "what is learned from other studies is of one metric. Leave out one of both.")

    def strategy(self) -> None:
        search = self.sweep.search
        if any(not isinstance(rung, int) for rung in search.rungs) and not self.objective.has("length"):
            path: Path_ = ("search", "rungs")
            if path in self.sweep.places:
                self.wrong(
                    path,
                    f"shares require a function length(config) beside {self.objective.name}. "
                    "Write the rungs in tokens.",
                )
        if search.pruner.name in PAUSING:
            path = ("search", "pruner")
            if self.sweep.storage is not None:
                self.wrong(
                    path,
                    f"{search.pruner.name} sets trials aside, which trials of a shared study cannot be. "
                    "Use median or successive halving.",
                )
            elif "directory" not in self.objective.accepts:
                self.warnings.append(
                    f"{search.pruner.name} takes trials up again, and {self.objective.name} keeps no checkpoints (it "
                    "has no argument `directory`): they will begin anew"
                )
        if search.sampler.name == "grid" and self.sweep.space.grid() is None:
            self.wrong(("search", "sampler"), "grid requires a step or choices for every searched setting.")

    def known(self, space: Space, fixed: Mapping[str, object]) -> tuple[Mapping[str, Value], ...]:
        """The baseline and the configurations to start with, each complete and inside the space."""
        given = [("baseline", self.sweep.baseline)]
        configurations = [self.complete(("baseline",), given[0][1], space)]
        for index, values in enumerate(self.sweep.start_with):
            configurations.append(self.complete(("start_with", index), values, space))
        return tuple(configurations)

    def complete(self, section: Path_, given: Mapping[str, Value], space: Space) -> Mapping[str, Value]:
        for name in given:
            if name not in self.sweep.searched and not self.unknown((*section, name), name):
                self.wrong(
                    (*section, name),
                    f"is not searched; only searched settings vary.{did_you_mean(name, space.names)}",
                )
        lacking: list[str] = []

        def choose(parameter: Parameter) -> Value:
            setting = self.schema.settings.get(parameter.name)
            if parameter.name in given:
                value = given[parameter.name]
            elif setting is not None and not setting.required:
                value = setting.default  # type: ignore[assignment]
            else:
                lacking.append(parameter.name)
                return parameter.dimension.ends()[0]
            if isinstance(parameter.dimension, FloatRange) and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if not parameter.dimension.contains(value):
                source = "" if parameter.name in given else " (the objective's default)"
                self.wrong(
                    (*section, parameter.name),
                    f"{value!r}{source} is outside the space: {parameter.dimension}.",
                )
            return value

        values = space.fill(choose)
        if lacking:
            self.wrong(
                section,
                f"requires a value for {', '.join(lacking)}: "
                "trial 0 is what a sensible person would use without a search.",
            )
        for name in given:
            if name in space.names and name not in values:
                self.wrong((*section, name), "is not searched here: its `when` does not hold for these values.")
        return values

    def combinations(self, space: Space, fixed: Mapping[str, object], known: Sequence[Mapping[str, Value]]) -> None:
        """Values allowed one by one may not go together; known and sampled configurations tell."""
        for index, values in enumerate(known):
            path: Path_ = ("baseline",) if index == 0 else ("start_with", index - 1)
            for name, text in self.combined({**fixed, **values}):
                # A group's rule stands where the sweep sets something of the group.
                inside = [key for key in fixed if key == name or key.startswith(f"{name}.")]
                if name and inside and name not in values:
                    place = self.sweep.place(*self.path("fixed", inside[0]))
                    self.mistakes.append(Mistake(place, f"fixed.{name}: {text}"))
                else:
                    self.wrong(path, f"{name}: {text}" if name else text)
        if self.mistakes:
            return
        self.laws(space, known)
        generator = random.Random(0)
        refused = [
            (values, problems[0][1])
            for values in (space.draw(generator) for _ in range(_SAMPLED_CONFIGURATIONS))
            if (problems := self.combined({**fixed, **values}))
        ]
        if len(refused) == _SAMPLED_CONFIGURATIONS:
            self.wrong(("space",), f"no configuration of this space is allowed: {refused[0][1]}")
        elif refused:
            shown = ", ".join(f"{name} {value}" for name, value in refused[0][0].items())
            share = 100 * len(refused) / _SAMPLED_CONFIGURATIONS
            self.warnings.append(
                f"about {share:.0f}% of this space is not allowed and would fail at once: {refused[0][1]} ({shown})"
            )

    def laws(self, space: Space, known: Sequence[Mapping[str, Value]]) -> None:
        """A law must say something wherever its parameter is searched; known and sampled configurations tell."""
        generator = random.Random(0)
        drawn = [space.draw(generator) for _ in range(_SAMPLED_CONFIGURATIONS)] if laws.centred(space) else []
        for parameter, dimension, law in laws.centred(space):
            refused = (
                text
                for values in (*known, *drawn)
                if parameter.name in values and (text := laws.refusal(law, values)) is not None
            )
            if (text := next(refused, None)) is not None:
                self.wrong((*self.path("space", parameter.name), "law"), text)
            elif parameter.name in known[0] and (said := laws.caution(parameter, dimension, law(known[0]))):
                self.warnings.append(said)

    def combined(self, settings: Mapping[str, object]) -> list[tuple[str, str]]:
        try:
            self.objective.config(settings)
        except Invalid as error:
            return error.problems
        return []
