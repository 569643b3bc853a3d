"""A sweep file: a document in, one frozen `Sweep` and every mistake out.

What can be told without knowing the objective is told here: shapes, names of sections, ranges, strategies.
Whether a searched or fixed setting exists and may take its values is the objective's to say
(`hpo.plan.draft`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from hpo import operation, tradeoff
from hpo.document import Document, Path_, load_yaml, override
from hpo.errors import Mistake, did_you_mean
from hpo.operation import Budget, Launch, MlflowSettings, Notify, OnFailure, Storage, WandbSettings
from hpo.space import Choices, Dimension, FloatRange, IntRange, Parameter, Space, ordered
from hpo.tradeoff import Tradeoff
from hpo.trials import Direction, Metric, Rung, Value

SAMPLERS = ("auto", "tpe", "gp", "cma-es", "qmc", "random", "grid")
PRUNERS = (
    "auto",
    "median",
    "percentile",
    "successive halving",
    "pausing halving",
    "best of rung",
    "hyperband",
    "patient",
    "wilcoxon",
    "threshold",
    "none",
)
SECTIONS = (
    "objective",
    "metric",
    "tradeoff",
    "space",
    "fixed",
    "baseline",
    "start_with",
    "search",
    "warm_start",
    "budget",
    "launch",
    "on_failure",
    "storage",
    "track",
    "notify",
    "promote",
)


@dataclass(frozen=True, slots=True)
class Strategy:
    """A sampler or a pruner: one of ours by name, or the import path of any Optuna class, with its options."""

    name: str
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def imported(self) -> bool:
        return ":" in self.name

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name


@dataclass(frozen=True, slots=True)
class Search:
    """How to search. `trials` counts every trial that ended, the baseline included.

    What `auto` stands for is decided in `hpo.defaults`, and so are rungs that are not given. `unbiased` is the share of
    trials that are drawn at random and never stopped (`hpo.unbiased`); `seeds`, with how many the baseline is trained
    (`hpo.given`).
    """

    trials: int = 20
    sampler: Strategy = Strategy("auto")
    pruner: Strategy = Strategy("auto")
    time_limit_seconds: float | None = None
    seed: int = 0
    rungs: tuple[Rung, ...] = ()
    unbiased: float = 0.0
    seeds: int = 1


@dataclass(frozen=True, slots=True)
class Sweep:
    """One sweep file, parsed.

    `places` says where each part stands, for messages; `searched` are the names its space has, those with
    mistakes too, so that one mistake does not bring on others.
    """

    path: Path
    objective: str
    metric: Metric
    tradeoff: Tradeoff
    space: Space
    fixed: Mapping[str, object]
    baseline: Mapping[str, Value]
    start_with: tuple[Mapping[str, Value], ...]
    search: Search
    warm_start: tuple[str, ...]
    budget: Budget
    launch: Launch
    on_failure: OnFailure
    storage: Storage | None
    mlflow: MlflowSettings | None
    wandb: WandbSettings | None
    notify: Notify | None
    promote: Mapping[str, object]
    places: Mapping[Path_, str]
    searched: frozenset[str]

    def place(self, *path: str | int) -> str:
        """`file:line` of a part, or of the nearest part around it."""
        for depth in range(len(path), -1, -1):
            if path[:depth] in self.places:
                return self.places[path[:depth]]
        return str(self.path)


def parse(
    text: str, path: Path, assignments: Sequence[str] = (), name: str | None = None
) -> tuple[Sweep, list[Mistake]]:
    """One sweep and its mistakes. Parts with mistakes are left at their defaults, so that the rest is checked too.

    Args:
        text: the file's content.
        path: where it lies; the paths in it are relative to its folder.
        assignments: `--set` overrides, applied before anything is read.
        name: what messages call the file; `path` if not given.

    Raises:
        SweepError: it is no YAML mapping at all.
        UserError: an override is malformed.
    """
    tree, places = load_yaml(text, name or str(path))
    override(tree, places, assignments, SECTIONS)
    reader = _Reader(tree, places, name or str(path))
    return reader.sweep(path), reader.mistakes


class _Reader(Document):
    """Reads the sections one by one and collects what is wrong."""

    def __init__(self, tree: dict[str, Any], places: dict[Path_, str], name: str) -> None:
        super().__init__(tree, places, name)
        self.searched: set[str] = set()

    def sweep(self, path: Path) -> Sweep:
        for key in self.tree:
            if key not in SECTIONS:
                self.wrong((key,), f"no such section.{did_you_mean(str(key), SECTIONS)}")
        objective = self.tree.get("objective")
        if not isinstance(objective, str) or ":" not in objective:
            self.wrong(
                ("objective",),
                f"requires an import path such as models.language_modelling:train, got {objective!r}.",
            )
            objective = ""
        mlflow, wandb = operation.track(self)
        metric = self.metric()
        return Sweep(
            path=path,
            objective=objective,
            metric=metric,
            tradeoff=Tradeoff(metric, tradeoff.read(self, metric.name)),
            space=self.space(),
            fixed=self.mapping(("fixed",), self.tree.get("fixed")),
            baseline=self.scalars(("baseline",), self.tree.get("baseline")),
            start_with=self.start_with(),
            search=self.search(),
            warm_start=operation.warm_start(self),
            budget=operation.budget(self),
            launch=operation.launch(self),
            on_failure=operation.on_failure(self),
            storage=operation.storage(self),
            mlflow=mlflow,
            wandb=wandb,
            notify=operation.notify(self),
            promote=self.mapping(("promote",), self.tree.get("promote")),
            places=self.places,
            searched=frozenset(self.searched),
        )

    def metric(self) -> Metric:
        node = self.tree.get("metric")
        fallback = Metric("", Direction.MINIMIZE)
        if node is None:
            self.wrong(("metric",), "is required, for example {name: validation/loss, direction: minimize}.")
            return fallback
        values = self.known(("metric",), node, ("name", "direction", "at"))
        name, direction, at = values.get("name"), values.get("direction"), values.get("at", "last")
        if not isinstance(name, str) or not name:
            self.wrong(("metric", "name"), f"requires the name of a metric the objective measures, got {name!r}.")
            name = ""
        if direction not in list(Direction):
            self.wrong(("metric", "direction"), f"requires minimize or maximize, got {direction!r}.")
            direction = Direction.MINIMIZE
        if at not in ("last", "best"):
            self.wrong(("metric", "at"), f"requires last or best (of a trial's measurements), got {at!r}.")
            at = "last"
        return Metric(name, Direction(direction), at)

    def space(self) -> Space:
        node = self.tree.get("space")
        if not node:
            self.wrong(
                ("space",),
                "requires at least one searched setting, "
                "for example learning_rate: {low: 1e-4, high: 1e-2, log: true}.",
            )
        parameters = [p for p in self.parameters(("space",), node, "") if p is not None]
        names = [parameter.name for parameter in parameters]
        for name in {name for name in names if names.count(name) > 1}:
            self.wrong(("space", name), "is searched twice, once dotted and once nested. Keep one.")
        return self.conditions(parameters)

    def parameters(self, path: Path_, node: Any, prefix: str) -> list[Parameter | None]:
        found: list[Parameter | None] = []
        for key, value in self.mapping(path, node).items():
            name = f"{prefix}{key}"
            nested = isinstance(value, dict) and not set(value) & {
                "low",
                "high",
                "choices",
                "log",
                "step",
                "when",
                "law",
            }
            if nested and value:
                found += self.parameters((*path, key), value, f"{name}.")
            else:
                found.append(self.parameter((*path, key), name, value))
        return found

    def parameter(self, path: Path_, name: str, node: Any) -> Parameter | None:
        self.searched.add(name)
        if isinstance(node, list):
            node = {"choices": node}
        if not isinstance(node, dict) or not node:
            self.wrong(
                path,
                f"requires a range {{low, high}} or a list of choices, got {node!r}. "
                "A value that does not vary belongs in `fixed`.",
            )
            return None
        values = self.known(path, node, ("low", "high", "log", "step", "choices", "when", "law"))
        when: dict[str, tuple[Value, ...]] = {}
        for other, allowed in self.mapping((*path, "when"), values.get("when")).items():
            when[other] = tuple(allowed) if isinstance(allowed, list) else (allowed,)
        dimension = self.choices(path, values) if "choices" in values else self.range(path, values)
        if (law := values.get("law")) is not None:
            if not isinstance(law, str):
                self.wrong((*path, "law"), f"requires the name of a law, got {law!r}.")
                law = None
            elif dimension is not None and not getattr(dimension, "log", False):
                self.wrong((*path, "law"), "a law centres a log range; add `log: true`, or leave `law` out.")
        return None if dimension is None else Parameter(name, dimension, when, law)

    def choices(self, path: Path_, values: Mapping[str, Any]) -> Choices | None:
        choices = values["choices"]
        extra = [key for key in ("low", "high", "log", "step", "law") if key in values]
        if extra:
            self.wrong((*path, extra[0]), "belongs to a range; this setting has choices.")
        if not isinstance(choices, list) or not choices:
            self.wrong(path, f"requires at least one choice, got {choices!r}.")
            return None
        for index, choice in enumerate(choices):
            if isinstance(choice, dict | list):
                self.wrong((*path, index), f"a choice is one value, got {choice!r}.")
                return None
            if any(type(choice) is type(other) and choice == other for other in choices[:index]):
                self.wrong((*path, index), f"the choice {choice!r} is there twice.")
                return None
        return Choices(tuple(choices))

    def range(self, path: Path_, values: Mapping[str, Any]) -> Dimension | None:
        before = len(self.mistakes)
        for key in ("low", "high"):
            if key not in values:
                self.wrong(path, f"a range requires `{key}`.")
            elif isinstance(values[key], bool) or not isinstance(values[key], int | float):
                self.wrong((*path, key), f"requires a number, got {values[key]!r}.")
        log, step = values.get("log", False), values.get("step")
        if not isinstance(log, bool):
            self.wrong((*path, "log"), f"requires true or false, got {log!r}.")
        if step is not None and (isinstance(step, bool) or not isinstance(step, int | float) or step <= 0):
            self.wrong((*path, "step"), f"requires a number above 0, got {step!r}.")
        if len(self.mistakes) > before:
            return None
        low, high = values["low"], values["high"]
        if not low <= high:
            self.wrong(path, f"requires low <= high, got low {low:g} and high {high:g}.")
        if log and low <= 0:
            self.wrong((*path, "low"), f"a log range requires low > 0, got {low:g}.")
        if log and step is not None:
            self.wrong((*path, "step"), "a log range cannot have a step; leave one out.")
        if len(self.mistakes) > before:
            return None
        if all(isinstance(number, int) for number in (low, high, 1 if step is None else step)):
            return IntRange(low, high, log, 1 if step is None else step)
        return FloatRange(float(low), float(high), log, None if step is None else float(step))

    def conditions(self, parameters: list[Parameter]) -> Space:
        by_name = {parameter.name: parameter for parameter in parameters}
        for parameter in parameters:
            for other, allowed in parameter.when.items():
                path = ("space", parameter.name, "when", other)
                if other not in by_name:
                    self.wrong(
                        path,
                        f"a condition names another searched setting; {other!r} is not searched."
                        f"{did_you_mean(other, by_name)}",
                    )
                    continue
                if by_name[other].law is not None:
                    self.wrong(path, f"a condition cannot name a range with a law; {other!r} has one.")
                for value in allowed:
                    if not by_name[other].dimension.contains(value):
                        self.wrong(path, f"{other} never is {value!r}: it is {by_name[other].dimension}.")
        try:
            return ordered(parameters)
        except ValueError as error:
            self.wrong(("space",), f"{error}.")
            return Space()

    def start_with(self) -> tuple[Mapping[str, Value], ...]:
        node = self.tree.get("start_with")
        if node is None:
            return ()
        if not isinstance(node, list):
            self.wrong(("start_with",), f"requires a list of configurations, got {node!r}.")
            return ()
        return tuple(self.scalars(("start_with", index), item) for index, item in enumerate(node))

    def search(self) -> Search:
        path: Path_ = ("search",)
        keys = ("sampler", "pruner", "trials", "time_limit", "seed", "rungs", "unbiased", "seeds")
        values = self.known(path, self.tree.get("search"), keys)
        default = Search()
        trials = self.trials(path, values, default.trials)
        return Search(
            trials=trials,
            sampler=self.strategy((*path, "sampler"), values.get("sampler"), SAMPLERS, default.sampler),
            pruner=self.strategy((*path, "pruner"), values.get("pruner"), PRUNERS, default.pruner),
            time_limit_seconds=self.seconds((*path, "time_limit"), values.get("time_limit")),
            seed=self.whole(path, values, "seed", default.seed, 0),
            rungs=self.rungs((*path, "rungs"), values.get("rungs", [])),
            unbiased=self.unbiased((*path, "unbiased"), values),
            seeds=self.seeds(path, values, trials),
        )

    def seeds(self, path: Path_, values: Mapping[str, Any], trials: int) -> int:
        seeds = int(self.whole(path, values, "seeds", 1, 1))
        if seeds > trials:
            self.wrong((*path, "seeds"), f"requires no more than there are trials ({trials}), got {seeds}.")
        return seeds

    def unbiased(self, path: Path_, values: Mapping[str, Any]) -> float:
        share = values.get("unbiased", 0.0)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            self.wrong(path, f"requires a share of the trials from 0 to 1, such as 0.1, got {share!r}.")
            return 0.0
        sampler = values.get("sampler")
        if share and "grid" in (sampler, sampler.get("name") if isinstance(sampler, dict) else None):
            self.wrong(path, "a grid has every configuration once, and draws none at random. Leave one out.")
        return float(share)

    def trials(self, path: Path_, values: Mapping[str, Any], default: int) -> int:
        """How many trials; `budget.trials` says the same."""
        spent = self.tree.get("budget")
        if not isinstance(spent, dict) or "trials" not in spent:
            return int(self.whole(path, values, "trials", default, 1))
        if "trials" in values:
            if self.places[("search", "trials")].startswith("--set"):
                return int(self.whole(path, values, "trials", default, 1))  # as --trials writes it
            self.wrong(("budget", "trials"), "is set twice: search.trials says it too. Keep one.")
        return int(self.whole(("budget",), spent, "trials", default, 1))

    def strategy(self, path: Path_, node: Any, known: Sequence[str], default: Strategy) -> Strategy:
        if node is None:
            return default
        options: dict[str, Any] = {}
        if isinstance(node, dict):
            options = {key: value for key, value in node.items() if key != "name"}
            node = node.get("name")
        if not isinstance(node, str) or (node not in known and ":" not in node):
            self.wrong(
                path,
                f"requires one of {', '.join(known)}, or an import path such as optuna.{path[-1]}s:ClassName; "
                f"got {node!r}.{did_you_mean(str(node), known)}",
            )
            return default
        return Strategy(node, options)

    def rungs(self, path: Path_, node: Any) -> tuple[Rung, ...]:
        """Whole numbers are tokens; "1/9", 0.25 and 1.0 are shares of a trial's own length."""
        if not isinstance(node, list):
            self.wrong(path, f"requires a list such as [1/9, 1/3, 1.0] or [100000, 300000], got {node!r}.")
            return ()
        rungs: list[Rung] = []
        for index, item in enumerate(node):
            rung: Rung | None = None
            if isinstance(item, int) and not isinstance(item, bool) and item > 1:
                rung = item
            elif isinstance(item, float | str) or item == 1:
                try:
                    rung = Fraction(str(item))
                except (ValueError, ZeroDivisionError):
                    rung = None
                if rung is not None and not 0 < rung <= 1:
                    rung = None
            if rung is None:
                self.wrong(
                    (*path, index),
                    "requires a number of tokens, or a share of the trial above 0 and up to 1 such as 1/9; "
                    f"got {item!r}.",
                )
            else:
                rungs.append(rung)
        kinds = {isinstance(rung, Fraction) for rung in rungs}
        if len(kinds) > 1 and not all(rung == 1 for rung in rungs if isinstance(rung, Fraction)):
            self.wrong(path, "requires all rungs in tokens or all as shares, got both.")
        if any(one >= other for one, other in itertools.pairwise(rungs)) and len(kinds) == 1:
            self.wrong(path, f"requires rungs in increasing order, got {node!r}.")
        return tuple(rungs)
