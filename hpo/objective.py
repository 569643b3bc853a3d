"""The door: load an objective by its import path, and check a sweep against the settings it takes.

An objective is a module with a trial function. Nothing else is required of it; what else it can do, it says
with further functions and names beside the trial function:

    train(config, *, seed, rungs, directory)   yields measurements; `config`'s annotation is the settings type
    length(config) -> int                      tokens of a whole trial; needed for rungs given as shares
    prepare(config) -> dict                    done once before any trial; returns facts worth showing
    test(config, *, directory) -> dict         metrics on data no trial has seen; needed for promotion
    save(config, *, directory, destination)    writes what train() left as a model folder; needed for promotion
    PRELOAD                                    heavy modules to import once, before trials are forked
    METRICS                                    names that train() measures, so that a sweep's is checked
    SERVING                                    module with `_load_pyfunc`, for the model registry

This room knows the shape of that door and nothing of what is behind it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import random
import sys
import typing
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from hpo import sweep as sweeps
from hpo.errors import Mistake, UserError, did_you_mean
from hpo.schema import Invalid, Schema, flatten
from hpo.space import Choices, FloatRange, IntRange, Parameter, Space
from hpo.sweep import Sweep
from hpo.trials import Measured, Rung, Value

_ARGUMENTS = ("seed", "rungs", "directory")
_SAMPLED_CONFIGURATIONS = 200


@dataclass(frozen=True)
class Objective:
    """A loaded objective: its trial function, its settings type and its companions."""

    name: str
    function: Callable[..., Generator[Measured, None, None]]
    module: ModuleType
    schema: Schema
    accepts: frozenset[str]
    preload: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    def has(self, companion: str) -> bool:
        return callable(getattr(self.module, companion, None))

    def config(self, settings: Mapping[str, object]) -> Any:
        """The configuration object of dotted settings.

        Raises:
            Invalid: a value or a combination is not allowed.
        """
        return self.schema.build(settings)

    def length(self, config: Any) -> int | None:
        """Tokens a whole trial of this configuration sees, where the objective says."""
        return int(self.module.length(config)) if self.has("length") else None

    def train(self, config: Any, *, seed: int, rungs: list[int], directory: Path) -> Generator[Measured, None, None]:
        """The trial as a generator of measurements."""
        given = {"seed": seed, "rungs": rungs, "directory": directory}
        return self.function(config, **{name: given[name] for name in self.accepts})

    def call(self, companion: str, settings: Mapping[str, object], **arguments: Any) -> Any:
        """One of the companions, on a configuration made of `settings`."""
        return getattr(self.module, companion)(self.config(settings), **arguments)


def load(name: str, folder: Path) -> Objective:
    """Import an objective.

    Args:
        name: "package.module:function", importable from where the command runs, or "file.py:function".
        folder: where relative files are looked for (the sweep's folder).

    Raises:
        UserError: it cannot be imported, or is not a trial function.
    """
    where, _, attribute = name.partition(":")
    module = _load_file(where, folder) if where.endswith(".py") else _load_module(where)
    function = getattr(module, attribute, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if inspect.isgeneratorfunction(value)]
        raise UserError(f"{where} has no function {attribute!r}.{did_you_mean(attribute, functions)}")
    if not inspect.isgeneratorfunction(inspect.unwrap(function)):
        raise UserError(f"{name} is not a generator function: a trial function yields measurements while it trains.")
    parameters = inspect.signature(function).parameters
    if not parameters:
        raise UserError(f"{name} takes no arguments: a trial function takes its configuration first.")
    config_name = next(iter(parameters))
    unknown = [key for key in list(parameters)[1:] if key not in _ARGUMENTS and parameters[key].default is inspect.Parameter.empty]
    if unknown:
        raise UserError(f"{name} requires {', '.join(unknown)}; a trial function is given config, {', '.join(_ARGUMENTS)}.")
    annotation = typing.get_type_hints(function, include_extras=True).get(config_name, dict)
    return Objective(
        name=name,
        function=function,
        module=module,
        schema=Schema(annotation),
        accepts=frozenset(_ARGUMENTS) & parameters.keys(),
        preload=tuple(getattr(module, "PRELOAD", ())),
        metrics=tuple(getattr(module, "METRICS", ())),
    )


def _load_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        # A console script does not have the current folder on its path; `python -m` has, and people expect it.
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        what = f"no module named {missing!r}"
        hint = "" if missing.split(".")[0] == name.split(".")[0] else f" (imported by {name})"
        raise UserError(f"cannot import {name}: {what}{hint}. Is it installed, or in the current folder?") from None
    except Exception as error:
        raise UserError(f"cannot import {name}: {type(error).__name__}: {error}") from error


def _load_file(name: str, folder: Path) -> ModuleType:
    path = (folder / name).resolve()
    if not path.is_file():
        raise UserError(f"no file {path}; a file's objective is found relative to its sweep.")
    module_name = f"hpo_objective_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs: dataclasses and pickling look their module up by name. Its neighbours are
    # importable, as they are for `python file.py`.
    sys.modules[module_name] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"cannot run {path}: {type(error).__name__}: {error}") from error
    return module


@dataclass(frozen=True)
class Plan:
    """A sweep that was checked against its objective: nothing in it can be wrong by name, type or range."""

    sweep: Sweep
    objective: Objective
    space: Space
    fixed: Mapping[str, object]
    known: tuple[Mapping[str, Value], ...] = field(default=())
    warnings: tuple[str, ...] = ()

    @property
    def baseline(self) -> Mapping[str, Value]:
        return self.known[0]

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Where trials measure; an objective that does not say its length measures where it likes."""
        written = ("search", "rungs") in self.sweep.places
        return self.sweep.search.rungs if written or self.objective.has("length") else ()

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
    sweep, mistakes = sweeps.parse(text, path, assignments, name)
    if not sweep.objective:
        return None, sweep, mistakes
    try:
        objective = load(sweep.objective, path.parent)
    except UserError as error:
        return None, sweep, [*mistakes, Mistake(sweep.place("objective"), f"objective: {error}")]
    checker = _Checker(sweep, objective)
    checked = checker.plan()
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

    def wrong(self, path: sweeps.Path_, text: str) -> None:
        dotted = ".".join(str(part) for part in path)
        self.mistakes.append(Mistake(self.sweep.place(*path), f"{dotted}: {text}"))

    def unknown(self, path: sweeps.Path_, name: str) -> bool:
        problem = self.schema.unknown(name)
        if problem is not None:
            door = self.objective.name.partition(":")[0]
            self.wrong(path, f"no such setting of {door}. {problem}")
        return problem is not None

    def plan(self) -> Plan:
        fixed = self.tree("fixed", self.sweep.fixed)
        space = self.space(fixed)
        self.metric()
        self.strategy()
        known = self.known(space, fixed)
        self.tree("promote", self.sweep.promote, base={**fixed, **(known[0] if known else {})})
        if known and not self.mistakes:
            self.combinations(space, fixed, known)
        return Plan(self.sweep, self.objective, space, fixed, known, tuple(self.warnings))

    def tree(self, section: str, tree: Mapping[str, object], base: Mapping[str, object] | None = None) -> dict[str, object]:
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
                self.wrong(path, f"is searched and fixed at once ({self.sweep.place('fixed', parameter.name)}). Keep one.")
                continue
            before = len(self.mistakes)
            typed_parameter = self.typed(path, parameter)
            ends = typed_parameter.dimension.ends() if len(self.mistakes) == before else ()
            for value in ends:
                for name, text in self.problems({**fixed, parameter.name: value}, {parameter.name: value}):
                    if name == parameter.name:
                        self.wrong(path, text)
            if len(self.mistakes) == before:
                typed.append(typed_parameter)
        return Space(tuple(typed))

    def typed(self, path: sweeps.Path_, parameter: Parameter) -> Parameter:
        """A range takes its kind from the setting: `{low: 0, high: 1}` of a real setting is real numbers."""
        dimension = parameter.dimension
        setting = self.schema.settings.get(parameter.name)
        if setting is None or isinstance(dimension, Choices):
            return parameter
        if setting.whole and isinstance(dimension, FloatRange):
            self.wrong(path, f"takes whole numbers, got the range {dimension}. Write low, high and step without a point.")
        if not setting.whole and isinstance(dimension, IntRange):
            step = None if dimension.step == 1 else float(dimension.step)
            dimension = FloatRange(float(dimension.low), float(dimension.high), dimension.log, step)
        return Parameter(parameter.name, dimension, parameter.when)

    def path(self, section: str, name: str) -> sweeps.Path_:
        """Where a dotted name stands in a section, however it is nested there."""
        parts = name.split(".")
        for split in range(len(parts), 0, -1):
            head = ".".join(parts[:split])
            if (section, head) in self.sweep.places:
                rest = ".".join(parts[split:])
                inner: sweeps.Path_ = (section, head)
                return (*inner, rest) if rest and (*inner, rest) in self.sweep.places else inner
        return (section, name)

    def metric(self) -> None:
        name = self.sweep.metric.name
        if name and self.objective.metrics and name not in self.objective.metrics:
            self.wrong(("metric", "name"), f"{self.objective.name} does not measure {name!r}.{did_you_mean(name, self.objective.metrics)}")

    def strategy(self) -> None:
        search = self.sweep.search
        if any(not isinstance(rung, int) for rung in search.rungs) and not self.objective.has("length"):
            path: sweeps.Path_ = ("search", "rungs")
            if path in self.sweep.places:
                self.wrong(path, f"shares require a function length(config) beside {self.objective.name}. Write the rungs in tokens.")
        if search.sampler.name == "grid" and self.sweep.space.grid() is None:
            self.wrong(("search", "sampler"), "grid requires a step or choices for every searched setting.")

    def known(self, space: Space, fixed: Mapping[str, object]) -> tuple[Mapping[str, Value], ...]:
        """The baseline and the configurations to start with, each complete and inside the space."""
        given = [("baseline", self.sweep.baseline)]
        configurations = [self.complete(("baseline",), given[0][1], space)]
        for index, values in enumerate(self.sweep.start_with):
            configurations.append(self.complete(("start_with", index), values, space))
        return tuple(configurations)

    def complete(self, section: sweeps.Path_, given: Mapping[str, Value], space: Space) -> Mapping[str, Value]:
        for name in given:
            if name not in self.sweep.space.names and not self.unknown((*section, name), name):
                self.wrong((*section, name), f"is not searched; only searched settings vary.{did_you_mean(name, space.names)}")
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
                self.wrong((*section, parameter.name), f"{value!r}{source} is outside the space: {parameter.dimension}.")
            return value

        values = space.fill(choose)
        if lacking:
            self.wrong(section, f"requires a value for {', '.join(lacking)}: trial 0 is what a sensible person would use without a search.")
        for name in given:
            if name in space.names and name not in values:
                self.wrong((*section, name), "is not searched here: its `when` does not hold for these values.")
        return values

    def combinations(self, space: Space, fixed: Mapping[str, object], known: Sequence[Mapping[str, Value]]) -> None:
        """Values allowed one by one may not go together; known and sampled configurations tell."""
        for index, values in enumerate(known):
            path: sweeps.Path_ = ("baseline",) if index == 0 else ("start_with", index - 1)
            for name, text in self.combined({**fixed, **values}):
                self.wrong(path if name in values or not name else ("fixed",), f"{name}: {text}" if name else text)
        if self.mistakes:
            return
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

    def combined(self, settings: Mapping[str, object]) -> list[tuple[str, str]]:
        try:
            self.objective.config(settings)
        except Invalid as error:
            return error.problems
        return []


