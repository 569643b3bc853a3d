"""The door: load an objective by its import path.

An objective is a module with a trial function. Nothing else is required of it; what else it can do, it says
with further functions and names beside the trial function:

    train(config, *, seed, rungs, directory)   yields measurements; `config`'s annotation is the settings type.
                                               With a further argument `divide`, it may be asked to go on from its
                                               last checkpoint doing each forward pass in so many parts (a number
                                               from 1), because the whole did not fit into memory
    length(config) -> int                      tokens of a whole trial; needed for rungs given as shares
    warmup(config) -> int                      tokens (the unit of progress) up to which the learning rate warms up, 0
                                               where it does not. A trial still measures there, but is compared with no
                                               other, stopped or set aside only once it is beyond; one that diverges
                                               ends at once
    prepare(config) -> dict                    done once before any trial; returns facts worth showing
    test(config, *, directory) -> dict         metrics on data no trial has seen; needed for promotion
    describe(config) -> dict                   what the data is like, for `hpo check`: `splits` (a row each), and
                                               lists of sentences: `notes`, `examples`, `cautions`
    promotable(config)                         raises ValueError, in words, where test() could not be done
    save(config, *, directory, destination)    writes what train() left as a model folder; needed for promotion
    objection(config, tested) -> str | None    why a model that test() measured so should not be used, in words
                                               ("it loses to a linear model (...)"); it is then no champion
    PRELOAD                                    heavy modules to import once, before trials are forked
    METRICS                                    names that train() measures, so that a sweep's is checked
    SERVING                                    import path of its serving module
    LAWS                                       by setting and name, functions law(config) -> float that say where a
                                               setting's best value is expected, for ranges that name one. A setting
                                               comes after those that its laws read; they read none that comes later,
                                               and not the setting itself. ValueError, in words, where none was fitted.
                                               The docstring's first line says whose law it is, for `hpo check`

A serving module makes saved folders answer. All of it is optional but what is asked for:

    _load_pyfunc(path)                         what the model registry loads: an object with
                                               predict(model_input, params)
    describe(folder) -> dict                   without heavy imports: `task` (in words), `writes` (whether it writes
                                               text), `columns` ({"input", "target"} of its data; target None where
                                               nothing is right), `python` (lines that use it)
    load(folder)                               a `hpo.deployment.Served`, for `hpo serve`, `chat` and `predict`

This room knows the shape of that door and nothing of what is behind it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import operator
import sys
import typing
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from hpo.errors import UserError, did_you_mean
from hpo.schema import Schema
from hpo.trials import Measured

_ARGUMENTS = ("seed", "rungs", "directory", "divide")


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
    laws: Mapping[str, Mapping[str, Callable[[Any], float]]] = field(default_factory=dict)

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

    def warmup(self, config: Any) -> int:
        """Progress up to which the learning rate of this configuration warms up; 0 where the objective says nothing.

        Raises:
            UserError: what the objective says is no progress.
        """
        if not self.has("warmup"):
            return 0
        found = self.module.warmup(config)
        try:
            progress = operator.index(found)  # numpy's numbers too
        except TypeError:
            progress = -1  # 0.2 would be 0, and the trial compared in its warm-up
        if progress < 0:
            raise UserError(
                f"warmup() of {self.name} requires a progress (tokens or examples, a whole number from 0), "
                f"got {found!r}. A share is to be multiplied with the trial's length."
            )
        return progress

    @property
    def divides(self) -> bool:
        """Whether a trial can do its forward passes in parts."""
        return "divide" in self.accepts

    def train(
        self, config: Any, *, seed: int, rungs: list[int], directory: Path, divide: int = 1
    ) -> Generator[Measured, None, None]:
        """The trial as a generator of measurements."""
        given = {"seed": seed, "rungs": rungs, "directory": directory, "divide": divide}
        return self.function(config, **{name: given[name] for name in self.accepts})

    def call(self, companion: str, settings: Mapping[str, object], **arguments: Any) -> Any:
        """One of the companions, on a configuration made of `settings`."""
        if companion == "warmup":
            return self.warmup(self.config(settings))
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
    module = _load_file(where, folder) if where.endswith(".py") else load_module(where)
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
    unknown = [
        key
        for key in list(parameters)[1:]
        if key not in _ARGUMENTS and parameters[key].default is inspect.Parameter.empty
    ]
    if unknown:
        raise UserError(
            f"{name} requires {', '.join(unknown)}; a trial function is given config, {', '.join(_ARGUMENTS)}."
        )
    annotation = typing.get_type_hints(function, include_extras=True).get(config_name, dict)
    return Objective(
        name=name,
        function=function,
        module=module,
        schema=Schema(annotation),
        accepts=frozenset(_ARGUMENTS) & parameters.keys(),
        preload=tuple(getattr(module, "PRELOAD", ())),
        metrics=tuple(getattr(module, "METRICS", ())),
        laws=dict(getattr(module, "LAWS", {})),
    )


def load_module(name: str) -> ModuleType:
    """Import a module by its name, from what is installed or the current folder.

    Raises:
        UserError: it cannot be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        # A console script does not have the current folder on its path; `python -m` has, and people expect it.
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        what = f"no module named {missing!r}"
        hint = "" if missing.split(".")[0] == name.split(".", maxsplit=1)[0] else f" (imported by {name})"
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
