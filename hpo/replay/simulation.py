"""Slots in which recorded trials run, in a time of their own: the clock jumps from one measurement to the next.

A launcher as `hpo.search` knows it. Nothing is trained and nothing is written; what a trial costs is what it cost when
it was recorded. Knows no strategy.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo import pareto
from hpo.folder import StudyFolder
from hpo.journal import History, Journal, StudyState
from hpo.launch import Begun, Finished, Happening, Job, Report
from hpo.operation import OnFailure
from hpo.replay.tables import Point, Row, Table
from hpo.search import Search, Trials
from hpo.trials import Ended, Ending, Event, Measured, Measurement, Outcome, Progressed, rung_tokens


class Clock:
    """Simulated seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Unwritten(Journal):
    """A journal that keeps nothing."""

    def __init__(self) -> None:
        """No file is opened."""

    def append(self, event: Event | StudyState) -> None:
        """Forgotten."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class _Trial:
    """A recorded trial that runs: where it measures, and how far it is."""

    row: Row
    measures: list[Point]
    position: int = 0
    go_on: bool = True
    earlier: float = 0.0  # cost of what it trained before it was taken up again

    @property
    def cost(self) -> float:
        return self.measures[self.position - 1].cost if self.position else 0.0


@dataclass
class Simulated:
    """Slots that replay a table.

    Attributes:
        table: what is replayed.
        slots: how many trials run at once.
        clock: is moved on by `wait`.
        spent: cost of all that was trained so far.
        off_table: distances from what was asked for to what was recorded, one a trial.
    """

    table: Table
    slots: int
    clock: Clock
    spent: float = 0.0
    off_table: list[float] = field(default_factory=list)
    _trials: dict[int, _Trial] = field(default_factory=dict)
    _busy: dict[int, int] = field(default_factory=dict)
    _events: list[tuple[float, int, int, Begun | Report | Finished]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)

    @property
    def free(self) -> list[int]:
        taken = set(self._busy.values())
        return [slot for slot in range(self.slots) if slot not in taken]

    def start(self, job: Job, slot: int) -> None:
        self._busy[job.number] = slot
        if job.number not in self._trials:
            row, distance = self.table.answer(job.settings)  # type: ignore[arg-type]
            self.off_table.append(distance)
            self._trials[job.number] = _Trial(row, self._measures(row, job))
        trial = self._trials[job.number]
        trial.go_on, trial.earlier = True, trial.cost
        self._push(self.clock.now, job.number, Begun(job.number, self.table.length))
        self._advance(job.number)

    def _measures(self, row: Row, job: Job) -> list[Point]:
        """Where a trial measures: at its rungs, each the last recorded point up to it, and at its end."""
        rungs = rung_tokens(job.rungs, self.table.length)
        if not rungs:
            return list(row.points)
        found: list[Point] = []
        for rung in rungs:
            reached = [point for point in row.points if point.progress <= rung]
            if reached and rung < row.points[-1].progress:
                kept = self._kept(reached)
                found.append(Point(rung, kept.value, reached[-1].cost, kept.others))
        end, kept = row.points[-1], self._kept(row.points)
        return [*found, Point(end.progress, kept.value, end.cost, kept.others)]

    def _kept(self, points: Sequence[Point]) -> Point:
        """The measurement that a trial's value is of."""
        if self.table.metric.at == "last":
            return points[-1]
        best = min if self.table.metric.direction.value == "minimize" else max
        return best(points, key=lambda point: point.value)

    def _push(self, at: float, number: int, event: Begun | Report | Finished) -> None:
        heapq.heappush(self._events, (at, next(self._order), number, event))

    def _advance(self, number: int) -> None:
        """Let a trial train to its next measurement, or end."""
        trial = self._trials[number]
        if not trial.go_on or trial.position == len(trial.measures):
            ending = Ending.DIVERGED if trial.go_on and trial.row.diverged else Ending.COMPLETE
            outcome = Outcome(ending, "the loss was no number" if ending is Ending.DIVERGED else "")
            self._push(self.clock.now, number, Finished(number, outcome, trial.cost - trial.earlier))
            return
        before, point = trial.cost, trial.measures[trial.position]
        trial.position += 1
        measurement = Measurement(point.progress, {self.table.metric.name: point.value, **point.others})
        self._push(
            self.clock.now + point.cost - before,
            number,
            Report(number, measurement, point.cost - trial.earlier, self.table.length, trial.row.warmup),
        )

    def wait(self, timeout: float | None) -> Iterator[Happening]:
        if not self._events:
            return
        at, _, number, event = heapq.heappop(self._events)
        self.clock.now = max(self.clock.now, at)
        if isinstance(event, Report):
            trial = self._trials[number]
            self.spent += trial.cost - (trial.measures[trial.position - 2].cost if trial.position > 1 else 0.0)
        if isinstance(event, Finished):
            del self._busy[number]
        yield event

    def answer(self, number: int, *, go_on: bool) -> None:
        self._trials[number].go_on = go_on
        self._advance(number)

    def end(self, number: int, outcome: Outcome) -> None:
        """Nothing hangs here."""

    def call(self, companion: str, settings: Mapping[str, object], log: Path, **arguments: Any) -> Any:
        """A table has no companions."""

    def kill(self) -> None:
        self._events.clear()

    def close(self) -> None:
        self.kill()


@dataclass(frozen=True, slots=True)
class Step:
    """What is known after a trial was trained to its end: the cost and time until then, its value and its point."""

    spent: float
    seconds: float
    number: int
    value: float
    point: pareto.Point = ()


@dataclass(frozen=True)
class Replay:
    """One search of a table.

    Attributes:
        steps: trials trained to their ends, in order.
        spent: cost of all trials together, of those not trained to the end too.
        seconds: until the last one ended.
        endings: how many trials ended how.
        off_table: distance from each asked configuration to the recorded one.
    """

    steps: tuple[Step, ...]
    spent: float
    seconds: float
    endings: Mapping[str, int]
    off_table: tuple[float, ...]

    def best(self, better: Callable[[float, float], bool], spent: float | None = None) -> float | None:
        """The best value of a trial trained to its end by the time that so much was spent."""
        found: float | None = None
        for step in self.steps:
            if spent is not None and step.spent > spent * (1 + 1e-9):
                break
            if found is None or better(step.value, found):
                found = step.value
        return found


def replay(table: Table, trials: Trials, *, count: int, slots: int, budget: float | None = None) -> Replay:
    """Search a table once.

    Args:
        table: what was recorded.
        trials: the strategy: a study of the table, or another package's search behind the same door.
        count: how many trials.
        slots: how many at once.
        budget: cost after which no trial goes on, beyond its next measurement; None: none.
    """
    clock = Clock()
    launcher = Simulated(table, slots, clock)

    def leave() -> bool:
        return budget is not None and launcher.spent >= budget

    # The folder is a path that nobody opens.
    nothing_hangs = OnFailure(hung_after=None, same_error=count + 1)
    search = Search(
        trials, launcher, Unwritten(), StudyFolder(Path("replay")), History(), count, leave, nothing_hangs, clock=clock
    )
    steps: list[Step] = []
    endings: dict[str, int] = {}
    curves: dict[int, list[Measured]] = {}
    for event in search.events():
        if isinstance(event, Progressed):
            curves.setdefault(event.number, []).append(event.measurement)
        if isinstance(event, Ended):
            ending = event.outcome.ending
            endings[ending.value] = endings.get(ending.value, 0) + 1
            if ending is Ending.COMPLETE and event.value is not None:
                point = table.tradeoff.point(curves[event.number]) or ()
                steps.append(Step(launcher.spent, clock.now, event.number, event.value, point))
    return Replay(tuple(steps), launcher.spent, clock.now, endings, tuple(launcher.off_table))
