"""The study: where a search's trials come from, and what becomes of them.

Every trial is given, or comes from our own sampler or one of Optuna's; every measurement is told to the sampler and to
the stopping rule. What they know is made anew from the record in `hpo.journal`. Knows nothing of processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hpo import warming
from hpo.errors import SweepError
from hpo.folder import StudyFolder
from hpo.given import GivenTrials
from hpo.halving import Look
from hpo.journal import History, TrialRecord
from hpo.mirror import Mirror
from hpo.notices import named, quiet
from hpo.observations import Observed, Seen
from hpo.plan import Plan, by_line, draft
from hpo.prior import Prior
from hpo.projection import ProjectedHalving
from hpo.samplers import make_sampler
from hpo.space import Space
from hpo.stopping import make_rule
from hpo.strategies import mistakes_in
from hpo.suggesting import make_suggester
from hpo.sweep import Search
from hpo.tradeoff import Tradeoff
from hpo.trials import (
    Assignment,
    Ended,
    Ending,
    Event,
    Interrupted,
    Measured,
    Metric,
    Outcome,
    Paused,
    Progressed,
    Rung,
    Started,
    Value,
    Verdict,
)

if TYPE_CHECKING:
    from hpo.encoding import Encoding


def plan(text: str, path: Path, assignments: Sequence[str] = (), name: str | None = None) -> Plan:
    """A sweep checked as a whole: its shape, its settings and its strategies.

    Raises:
        SweepError: every mistake, in the order of its lines.
        UserError: an override is malformed.
    """
    drafted, sweep, mistakes = draft(text, path, assignments, name)
    mistakes += mistakes_in(sweep, sweep.search if drafted is None else drafted.search)
    if drafted is None or mistakes:
        raise SweepError(by_line(mistakes))
    return drafted


class Question(Protocol):
    """What a study searches: a checked sweep (`hpo.plan.Plan`), or a recorded table (`hpo.replay`)."""

    @property
    def metric(self) -> Metric: ...

    @property
    def tradeoff(self) -> Tradeoff: ...

    @property
    def search(self) -> Search: ...

    @property
    def space(self) -> Space: ...

    @property
    def known(self) -> tuple[Mapping[str, Value], ...]:
        """Configurations to begin with, the baseline first."""
        ...

    @property
    def rungs(self) -> tuple[Rung, ...]: ...

    def settings(self, parameters: Mapping[str, Value]) -> dict[str, object]: ...


class Study:
    """A search in progress.

    Args:
        question: what is searched.
        folder: the study's folder, whose lock the caller holds; None: nothing is kept.
        history: what its journal says so far.
        first_rung: progress of the first rung in tokens.
    """

    def __init__(self, question: Question, folder: StudyFolder | None, history: History, first_rung: int) -> None:
        self._question, self._folder, self._first_rung = question, folder, first_rung
        self._metric, self._tradeoff = question.metric, question.tradeoff
        self._given = GivenTrials(question.search, question.space, question.known)
        self._sampler = question.search.sampler
        lessons = [] if folder is None else [one for source in warming.read(folder.warm) for one in source.lessons]
        self._lessons = [_lesson(lesson) for lesson in lessons]
        self._suggester = make_suggester(
            self._sampler,
            question.space,
            self._metric.direction,
            question.search.seed,
            weighs=bool(self._tradeoff),
        )
        self._begin(history)
        self._prior = Prior(lessons, question.space, self._metric.direction)

    def _begin(self, history: History) -> None:
        """What the sampler and the rule know, as the record has it."""
        question = self._question
        self._rule, pruner = make_rule(
            question.search.pruner, self._metric.direction, self._first_rung, question.rungs,
            weighs=bool(self._tradeoff),
        )  # fmt: skip
        self.mirror = Mirror(question.space, self._metric.direction, self._folder, history, pruner)
        self._curves: dict[int, list[Measured]] = {}
        self._described: dict[int, tuple[float, ...]] = {}
        self._observed = Observed(self._metric.direction, self._lessons)
        self._unanswered = {trial.number for trial in history.unfinished if trial.may_be_unanswered}
        for number in sorted(history.trials):
            self._recall(history.trials[number])
        self._asked = len(history.trials)

    @property
    def size(self) -> float:
        """Trials there are to run at most: a grid ends, everything else does not."""
        return self._given.size

    def ask(self) -> Assignment:
        """The next trial: what is given (`hpo.given`), then what the sampler suggests."""
        number = self._asked
        with quiet(), named(f"the sampler {self._sampler}"):
            parameters = self._asked_of_optuna(number) if self._suggester is None else self._suggested(number)
        self._asked += 1
        self._curves[number] = []
        self._observed.began(number, parameters, repeat=number in self._given.repeats)
        return Assignment(
            number=number,
            parameters=parameters,
            settings=self._question.settings(parameters),
            seed=self._given.seed(number),
            rungs=self._question.rungs,
            protected=self._given.protected(number),
            repeat=number in self._given.repeats,
        )

    def _suggested(self, number: int) -> dict[str, Value]:
        """By our own sampler. Optuna gets it whole, as a trial that was asked for elsewhere."""
        assert self._suggester is not None
        parameters = self._given.parameters(number)
        if parameters is None:
            parameters = self._suggester.suggest(number, self._observed, self.mirror.fits())
        self.mirror.add(number, parameters)
        return dict(parameters)

    def _asked_of_optuna(self, number: int) -> dict[str, Value]:
        seed, conditional = self._question.search.seed, self._question.space.conditional
        strategy = self._prior.strategy(self._sampler)
        make = partial(make_sampler, strategy, seed=seed, number=number, conditional=conditional)
        return self.mirror.ask(
            number, lambda draw: self._prior.shown_to(make(draw=draw), strategy), self._given.parameters(number)
        )

    def revive(self, *, last: bool) -> int | None:
        """A trial that the stopping rule set aside and takes up again."""
        number = self._rule.revive(last=last)
        if number is not None:
            self._observed.taken_up(number)
        return number

    def pause(self, number: int) -> None:
        self._rule.set_aside(number)
        self._observed.set_aside(number)

    def least(self) -> int | None:
        return self._rule.least()

    def report(
        self,
        assignment: Assignment,
        measurement: Measured,
        *,
        length: int | None = None,
        warmup: int = 0,
        seconds: float | None = None,
    ) -> Verdict | None:
        """Tell one measurement, and say how the trial is to end here, or None where it goes on.

        A resumed trial measures again where its checkpoint was taken: it is judged once more, because its
        coordinator may have died before it answered, and reported only once. A final measurement is never a
        reason to stop: the trial has been trained in full, and counts as complete. One in the warm-up is none either.
        """
        verdict = self._judge(assignment.number, measurement, length, warmup)
        if seconds is not None:
            self._observed.took(assignment.number, measurement.progress, seconds)
        by_rule = isinstance(verdict, Paused) or (verdict is not None and verdict.ending is Ending.STOPPED)
        final = length is not None and measurement.progress >= length
        return None if by_rule and (assignment.protected or final) else verdict

    def _judge(self, number: int, measurement: Measured, length: int | None, warmup: int) -> Verdict | None:
        name = self._metric.name
        if name not in measurement.metrics:
            got = ", ".join(sorted(measurement.metrics)) or "nothing"
            return Outcome(Ending.FAILED, f"the objective measured {got}, not the metric {name}")
        value = measurement.metrics[name]
        curve = self._curves[number]
        again = bool(curve) and measurement.progress <= curve[-1].progress
        curve += [] if again else [measurement]
        look = self._look(number, curve, length, warmup)
        if not again:
            self._observe(look)
        elif measurement.progress < curve[-1].progress or number not in self._unanswered:
            return None  # it was told to go on here; those that came later must not change that
        self._unanswered.discard(number)
        if not math.isfinite(value):
            return Outcome(Ending.DIVERGED, f"{name} is {value} at {measurement.progress:,}")
        if (trouble := self._tradeoff.trouble(measurement)) is not None:
            return trouble
        if look.incomparable:
            return None
        if not again:
            self.mirror.report(number, measurement.progress, value)
        # The rule hears of protected trials too: others are compared with them.
        return self._rule.judge(look, lambda: self.mirror.should_prune(number))

    def _observe(self, look: Look) -> None:
        """Tell the sampler a measurement that can be compared; of a trade-off, only where it is whole."""
        value = math.nan if look.incomparable or (self._tradeoff and not look.point) else look.value
        self._observed.measured(look.number, look.progress, value, look.length, look.point or None)

    def _look(self, number: int, curve: Sequence[Measured], length: int | None, warmup: int) -> Look:
        """The last measurement of a curve as a rule sees it."""
        value = self._so_far(curve, curve[-1].metrics.get(self._metric.name, math.nan))
        point = self._tradeoff.point(curve) or ()
        repeated, features = self._given.repeated(number), self._features(number)
        return Look(number, curve[-1].progress, value, length, point, repeated, warmup, features)

    def _features(self, number: int) -> tuple[float, ...]:
        """A trial's configuration in numbers, for the rule that compares by them."""
        if not isinstance(self._rule, ProjectedHalving):
            return ()
        if number not in self._described:
            units = self._encoding.units(self._observed.parameters(number))
            self._described[number] = tuple(self._encoding.features(units[None, :])[0].tolist())
        return self._described[number]

    @cached_property
    def _encoding(self) -> Encoding:
        from hpo.encoding import Encoding

        return Encoding(self._question.space)

    def _so_far(self, curve: Sequence[Measured], value: float) -> float:
        """What a trial that ended with this measurement would have for its value."""
        return value if self._metric.at == "last" else self._metric.of_curve(curve) or value

    def value(self, number: int) -> float | None:
        """The trial's value from its measurements so far."""
        return self._metric.of_curve(self._curves[number])

    def tell(self, number: int, outcome: Outcome) -> None:
        """Tell how a trial ended."""
        value = self.value(number) if outcome.ending is Ending.COMPLETE else None
        self.mirror.tell(number, outcome.ending, value)
        self._rule.ended(number)
        self._observed.ended(number, outcome.ending, value)
        del self._curves[number]
        self._described.pop(number, None)

    def rewind(self, history: History) -> None:
        """Go back to the record: a trial that was asked for did not come to be."""
        self._begin(history)

    def hear(self, event: Event) -> None:
        """Take note of what another coordinator did: the sampler and the stopping rule know of it from now on."""
        match event:
            case Started(assignment, _, resumed):
                self._unanswered.add(assignment.number)
                if not resumed:
                    self._add(assignment)
            case Progressed(number, measurement, seconds, length, warmup):
                self._judge(number, measurement, length, warmup)  # whether it goes on is decided there
                self._observed.took(number, measurement.progress, seconds)
            case Interrupted(number, _, setback) if setback is None:
                self._unanswered.discard(number)
            case Ended(number, outcome):
                self.tell(number, outcome)

    def _add(self, assignment: Assignment) -> None:
        number = assignment.number
        self.mirror.add(number, assignment.parameters)
        self._curves[number] = []
        self._observed.began(number, assignment.parameters, repeat=assignment.repeat)
        self._asked = number + 1

    def _recall(self, record: TrialRecord) -> None:
        """Tell the sampler, the rule and Optuna what the record has of a trial."""
        number, told = record.number, dict[int, float]()
        self._observed.began(number, record.parameters, repeat=record.repeat)
        for count, measurement in enumerate(record.measurements, start=1):
            value = measurement.metrics.get(self._metric.name, math.nan)
            look = self._look(number, record.measurements[:count], record.length, record.warmup)
            self._observe(look)
            if look.incomparable or not math.isfinite(value) or self._tradeoff.trouble(measurement) is not None:
                continue
            told[measurement.progress] = value
            self._rule.recall(look)
        if record.measurements:
            self._observed.took(number, record.progress, record.timed)
        if record.taken_up_at is not None:
            self._rule.taken_up(number)
            self._observed.cut_short = True  # it had been set aside, whatever became of it
        if record.paused:
            self._rule.set_aside(number)
            self._observed.set_aside(number)
        if record.ending is None:
            self._curves[number] = list(record.measurements)
        else:
            complete = record.ending is Ending.COMPLETE
            self._observed.ended(number, record.ending, record.value if complete else None)
            self._described.pop(number, None)
        self.mirror.recall(record, told)


def _lesson(lesson: warming.Lesson) -> Seen:
    whole = lesson.curve[-1][0] if lesson.curve and lesson.ending is Ending.COMPLETE else None
    return Seen(lesson.parameters, list(lesson.curve), whole, lesson.ending, lesson.value)
