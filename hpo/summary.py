"""A study as its journal stands: its trials, its baseline, its best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from hpo import pareto
from hpo.folder import StudyFolder, StudyRecord, is_locked
from hpo.journal import History, TrialRecord
from hpo.pareto import Point
from hpo.tradeoff import Tradeoff, recorded
from hpo.trials import Direction, Ending


@dataclass(frozen=True)
class Summary:
    """A study as its journal stands."""

    record: StudyRecord
    history: History
    live: bool

    @classmethod
    def read(cls, folder: StudyFolder) -> Summary:
        return cls(StudyRecord.read(folder), History.read(folder.journal), is_locked(folder))

    @property
    def direction(self) -> Direction:
        return Direction(self.record.metric["direction"])

    @property
    def trials(self) -> list[TrialRecord]:
        return [self.history.trials[number] for number in sorted(self.history.trials)]

    @property
    def state(self) -> str:
        """running, finished, interrupted, failed or new. A dead coordinator leaves an interrupted study."""
        if self.live:
            return "running"
        if self.record.shared is not None and len(self.history.ended) >= self.record.search["trials"]:
            return "finished"  # by others, whatever became of the coordinator here
        return "interrupted" if self.history.state == "running" else self.history.state

    def state_of(self, trial: TrialRecord) -> str:
        return "interrupted" if trial.state == "running" and not self.live else trial.state

    @property
    def baseline(self) -> TrialRecord | None:
        return self.history.trials.get(0)

    @property
    def complete(self) -> list[TrialRecord]:
        """The trials trained in full that are compared with each other: the baseline with its first seed alone."""
        return [trial for trial in self.trials if trial.ending is Ending.COMPLETE and not trial.repeat]

    @property
    def tradeoff(self) -> Tradeoff:
        return recorded(self.record.metric, self.record.tradeoff)

    @cached_property
    def points(self) -> dict[int, Point]:
        """Of a trade-off, what each trial that was trained in full has reached in all metrics; smaller is better."""
        found = {trial.number: self.tradeoff.point(trial.measurements) for trial in self.complete}
        return {number: point for number, point in found.items() if point is not None}

    @cached_property
    def front(self) -> list[TrialRecord]:
        """Of a trade-off, the trials trained in full that no other dominates, best by the first metric first."""
        numbers = list(self.points)
        kept = [numbers[index] for index in pareto.front(list(self.points.values()))]
        return [
            self.history.trials[number] for number in sorted(kept, key=lambda number: (self.points[number], number))
        ]

    @property
    def best(self) -> TrialRecord | None:
        """The best trial that was trained in full; stopped ones have no comparable value.

        A repeat is none, however lucky its seed was: its configuration is the baseline's.
        Of a trade-off, the one on the front that is best by the study's own metric.
        """
        complete = [trial for trial in self.complete if trial.value is not None]
        if self.front:
            complete = [t for t in self.front if t.value is not None]
        if not complete:
            return None
        key = 1.0 if self.direction is Direction.MINIMIZE else -1.0
        return min(complete, key=lambda trial: key * (trial.value if trial.value is not None else math.inf))

    @property
    def drawn(self) -> list[TrialRecord]:
        """Trials drawn at random and never stopped (`search.unbiased`) that ended as their configurations let them."""
        own = [trial for trial in self.trials if trial.kind == "random"]
        return [trial for trial in own if trial.ending in (Ending.COMPLETE, Ending.DIVERGED, Ending.OUT_OF_MEMORY)]

    @property
    def drawn_values(self) -> list[float]:
        """What they measured; one that could not be trained to its end counts as the worst of those that could."""
        values = [trial.value for trial in self.drawn if trial.ending is Ending.COMPLETE and trial.value is not None]
        if not values:
            return []
        worst = max(values) if self.direction is Direction.MINIMIZE else min(values)
        return values + [worst] * (len(self.drawn) - len(values))
