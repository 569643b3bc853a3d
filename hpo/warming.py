"""A warm start: what other studies learned, as far as it holds for this one.

A trial of another study whose every setting could be this study's own, and whose trial was the same in all that is
not searched here, is a lesson: the sampler is told its value as if it had been a trial of this study. Where anything
else differs (the size, the data, the length of a trial), values do not compare; the best configurations are then
tried first, and nothing more is believed of them. What was learned is copied into the study's folder, so that it
goes on as it began whatever becomes of the others. Knows nothing of samplers.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.archive import opened, read_history, read_record
from hpo.errors import Mistake, SweepError, UserError, did_you_mean
from hpo.folder import StudyFolder, StudyRecord, study_names, write_atomically
from hpo.journal import History, TrialRecord
from hpo.plan import Plan
from hpo.schema import Invalid
from hpo.space import FloatRange, Parameter
from hpo.trials import Direction, Ending, Value
from hpo.wording import number

SUGGESTIONS = 3
_TOLD = (Ending.COMPLETE, Ending.STOPPED, Ending.DIVERGED)
_ABSENT = object()
UNTAUGHT = ("random", "qmc", "grid")


@dataclass(frozen=True, slots=True)
class Lesson:
    """A finished trial of another study, as this study would have recorded it.

    Attributes:
        number: the trial's, in its own study.
        parameters: values of this study's space.
        ending: complete, stopped or diverged.
        value: None unless it is complete.
        curve: progress and the metric's value at each finite measurement.
    """

    number: int
    parameters: Mapping[str, Value]
    ending: Ending
    value: float | None
    curve: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """What one other study gives.

    Attributes:
        study: its name.
        id: its id.
        digest: of its data, as its objective said; empty if it said nothing.
        lessons: trials whose values hold here too.
        suggestions: configurations to be tried first.
        differs: what is otherwise there, in words; why values were not taken.
        left_out: how many trials were left out for each reason.
    """

    study: str
    id: str
    digest: str = ""
    lessons: tuple[Lesson, ...] = ()
    suggestions: tuple[Mapping[str, Value], ...] = ()
    differs: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = []
        if self.lessons:
            parts.append(f"{_counted(len(self.lessons), 'trial')} taken with values")
        if self.suggestions:
            parts.append(f"its best {_counted(len(self.suggestions), 'configuration')} tried first, without values")
        if self.differs:
            parts.append(f"values do not compare: {self.differs}")
        if self.left_out:
            parts.append("left out: " + ", ".join(f"{count} {reason}" for reason, count in self.left_out.items()))
        return f"warm start from {self.study}: " + "; ".join(parts or ["it has no finished trial"])


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


# -- learning -------------------------------------------------------------------------------------------


def learn(planned: Plan, studies: Path) -> tuple[Source, ...]:
    """What the studies of `warm_start:` give to a plan.

    Args:
        planned: the checked sweep.
        studies: the folder in which studies are found by name.

    Raises:
        SweepError: one of them is not there, cannot be read, or searched something else.
    """
    sources: list[Source] = []
    mistakes: list[Mistake] = []
    for index, given in enumerate(planned.sweep.warm_start):
        try:
            record, history = _found(given, studies)
            _check_same(planned, record)
        except UserError as error:
            mistakes.append(Mistake(planned.sweep.place("warm_start", index), f"warm_start.{index}: {error}"))
            continue
        if record.id not in [source.id for source in sources]:
            sources.append(_Reader(planned, record).source(history))
    if mistakes:
        raise SweepError(mistakes)
    return _once(sources)


def _once(sources: Sequence[Source]) -> tuple[Source, ...]:
    """No configuration is tried first that another source has a value of, or suggests too."""
    seen = [lesson.parameters for source in sources for lesson in source.lessons]
    kept: list[Source] = []
    for source in sources:
        suggestions = tuple(parameters for parameters in source.suggestions if parameters not in seen)
        seen += suggestions
        kept.append(dataclasses.replace(source, suggestions=suggestions))
    return tuple(kept)


def _found(given: str, studies: Path) -> tuple[StudyRecord, History]:
    for root in (studies / given, Path(given)):
        folder = StudyFolder(root)
        if folder.exists:
            return StudyRecord.read(folder), History.read(folder.journal)
    path = Path(given)
    if not path.is_file():
        hint = did_you_mean(given, study_names(studies))
        raise UserError(f"no study {given!r} in {studies}, and no folder or archive of that name.{hint}")
    with opened(path) as archive, tempfile.TemporaryDirectory() as unpacked:
        folder = StudyFolder(Path(unpacked))
        archive.extract(folder.root, lambda name: name in ("study.json", "journal.jsonl"))
        return read_record(folder, path), read_history(folder, path)


def _check_same(planned: Plan, record: StudyRecord) -> None:
    metric = planned.sweep.metric
    own = {"name": metric.name, "direction": metric.direction.value, "at": metric.at}
    for key, value in own.items():
        if record.metric.get(key) != value:
            raise UserError(
                f"study {record.name!r} has metric.{key} {record.metric.get(key)}, this sweep {value}. "
                "A warm start requires the same metric."
            )
    # A file's folder may differ between two places, its name may not.
    if record.objective.rpartition("/")[2] != planned.sweep.objective.rpartition("/")[2]:
        raise UserError(
            f"study {record.name!r} searched {record.objective}, this sweep {planned.sweep.objective}. "
            "A warm start requires the same objective."
        )


class _Reader:
    """Reads the trials of one study as trials of another."""

    def __init__(self, planned: Plan, record: StudyRecord) -> None:
        self._planned = planned
        self._record = record
        self._schema = planned.objective.schema.settings

    def source(self, history: History) -> Source:
        left_out: Counter[str] = Counter()
        lessons: list[Lesson] = []
        others: list[Lesson] = []
        differing: Counter[str] = Counter()
        for trial in history.trials.values():
            if trial.ending not in _TOLD:
                left_out[trial.state if trial.ending is not None else "not finished"] += 1
                continue
            if trial.repeat:
                left_out["with another seed"] += 1
                continue
            parameters = self._parameters(trial)
            if isinstance(parameters, str):
                left_out[parameters] += 1
            elif differs := self._differs(trial, parameters):
                others.append(self._lesson(trial, parameters))
                differing[differs] += 1
            else:
                lessons.append(self._lesson(trial, parameters))
        # One trial that happens to match (the other's baseline, say) is no reason to forget what was best there.
        asked = others if len(others) > len(lessons) else []
        suggestions = self._best([o for o in asked if o.parameters not in [lesson.parameters for lesson in lessons]])
        if others and lessons:
            left_out |= {f"otherwise unlike this sweep's ({differing.most_common(1)[0][0]})": len(others)}
        return Source(
            self._record.name, self._record.id, str(self._record.facts.get("digest", "")),
            tuple(lessons), suggestions,
            differing.most_common(1)[0][0] if others and not lessons else "", dict(left_out),
        )  # fmt: skip

    def _best(self, lessons: Sequence[Lesson]) -> tuple[Mapping[str, Value], ...]:
        return best(lessons, self._planned.sweep.metric.direction, self._allowed)

    def _allowed(self, parameters: Mapping[str, Value]) -> bool:
        try:
            self._planned.objective.config(self._planned.settings(parameters))
        except Invalid:
            return False
        return parameters not in self._planned.known

    def _theirs(self, trial: TrialRecord, name: str) -> Any:
        return trial.settings.get(name, self._default(name))

    def _default(self, name: str) -> Any:
        setting = self._schema.get(name)
        return _ABSENT if setting is None or setting.required else setting.default

    def _parameters(self, trial: TrialRecord) -> dict[str, Value] | str:
        """A trial's values in this space, or why it has none."""
        outside: list[str] = []

        def choose(parameter: Parameter) -> Value:
            value = self._theirs(trial, parameter.name)
            if isinstance(parameter.dimension, FloatRange) and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if value is _ABSENT:
                outside.append(f"without {parameter.name}")
            elif isinstance(value, list | dict) or not parameter.dimension.contains(value):
                outside.append(f"with {parameter.name} outside this space")
            chosen: Value = value
            return chosen

        parameters = self._planned.space.fill(choose)
        return outside[0] if outside else parameters

    def _differs(self, trial: TrialRecord, parameters: Mapping[str, Value]) -> str:
        """In which setting that is not searched here a trial was otherwise, in words; empty where in none."""
        fixed = self._planned.fixed
        for name in dict.fromkeys((*fixed, *trial.settings, *self._schema)):
            if name in parameters:
                continue
            theirs, ours = self._theirs(trial, name), fixed.get(name, self._default(name))
            if type(theirs) is bool or type(ours) is bool:
                same = theirs is ours
            else:
                same = theirs == ours
            if not same:
                there, here = ("absent" if value is _ABSENT else number(value) for value in (theirs, ours))
                return f"{name} is {there} there, {here} here"
        return ""

    def _lesson(self, trial: TrialRecord, parameters: dict[str, Value]) -> Lesson:
        assert trial.ending is not None
        name = self._planned.sweep.metric.name
        # What was measured in a warm-up is compared with nothing, there or here.
        behind = [m for m in trial.measurements if m.progress > trial.warmup or m.progress == trial.length]
        curve = [(m.progress, m.metrics[name]) for m in behind if name in m.metrics]
        finite = tuple((progress, value) for progress, value in curve if math.isfinite(value))
        complete = trial.ending is Ending.COMPLETE
        return Lesson(trial.number, parameters, trial.ending, trial.value if complete else None, finite)


def best(
    lessons: Sequence[Lesson], direction: Direction, allowed: Callable[[Mapping[str, Value]], bool]
) -> tuple[Mapping[str, Value], ...]:
    """The configurations of the best complete trials, each once, best first."""
    sign = 1.0 if direction is Direction.MINIMIZE else -1.0
    complete = sorted(
        (lesson for lesson in lessons if lesson.value is not None), key=lambda lesson: sign * (lesson.value or 0.0)
    )
    found: list[Mapping[str, Value]] = []
    for lesson in complete:
        if lesson.parameters not in found and allowed(lesson.parameters):
            found.append(lesson.parameters)
    return tuple(found[:SUGGESTIONS])


# -- what a study keeps of it ---------------------------------------------------------------------------


def settled(sources: Sequence[Source], planned: Plan, facts: Mapping[str, Any]) -> tuple[Source, ...]:
    """The sources now that this study's data are known: values on other data are not believed."""
    digest = str(facts.get("digest", ""))
    direction = planned.sweep.metric.direction
    kept: list[Source] = []
    for source in sources:
        if source.lessons and digest and source.digest and source.digest != digest:
            source = dataclasses.replace(
                source,
                lessons=(),
                suggestions=best(source.lessons, direction, lambda parameters: parameters not in planned.known),
                differs="it was measured on other data",
            )
        kept.append(source)
    return _once(kept)


def suggested(planned: Plan, sources: Sequence[Source]) -> Plan:
    """The plan with what the sources suggest after the configurations that it knows itself."""
    known = list(planned.known)
    for source in sources:
        known += [parameters for parameters in source.suggestions if parameters not in known]
    return dataclasses.replace(planned, known=tuple(known))


def sentences(sources: Sequence[Source], sampler: str) -> Iterator[str]:
    """What was taken from where, for people."""
    yield from map(str, sources)
    if sampler in UNTAUGHT and any(source.lessons for source in sources):
        yield f"the sampler {sampler} does not learn from trials, neither from these nor from its own"


def write(path: Path, sources: Sequence[Source]) -> None:
    """Keep sources, one a line."""
    write_atomically(path, "".join(json.dumps(dataclasses.asdict(source)) + "\n" for source in sources))


def read(path: Path) -> tuple[Source, ...]:
    """What `write` kept; nothing where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return ()
    try:
        return tuple(_source(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}. Restore it from a copy.") from None


def _source(fields: Mapping[str, Any]) -> Source:
    lessons = tuple(
        Lesson(
            number=lesson["number"],
            parameters=lesson["parameters"],
            ending=Ending(lesson["ending"]),
            value=lesson["value"],
            curve=tuple((progress, value) for progress, value in lesson["curve"]),
        )
        for lesson in fields["lessons"]
    )
    return Source(**{**fields, "lessons": lessons, "suggestions": tuple(fields["suggestions"])})
