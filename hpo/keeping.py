"""Which trials' working folders stay: checkpoints of forty trials fill a disk, and only the best is worth it.

Knows folders and values; nothing of what is in them.
"""

from __future__ import annotations

import shutil
from typing import Literal

from hpo.folder import StudyFolder
from hpo.journal import History
from hpo.trials import Assignment, Direction, Elsewhere, Ended, Ending, Event, Started


class Keeper:
    """Removes the folder of each trial that has ended, but the best one's. Logs stay.

    Args:
        folder: of the study.
        direction: of its metric.
        keep: `best`, or `all` to remove nothing.
        history: what ended in earlier runs, and which trials are the baseline once more: those are never the best.
    """

    def __init__(
        self, folder: StudyFolder, direction: Direction, keep: Literal["best", "all"], history: History
    ) -> None:
        self._folder = folder
        self._direction = direction
        self._keep = keep
        self._repeats = {trial.number for trial in history.trials.values() if trial.repeat}
        self._best: tuple[float, int] | None = None
        # A coordinator may have died between an ending and the removal that it called for.
        for trial in history.ended:
            self._end(trial.number, trial.ending, trial.value)

    def _consider(self, value: float, number: int) -> int | None:
        """Whose folder is not needed any more, now that this trial is complete."""
        if self._best is not None:
            # Of equals, the lowest number is the best: as everywhere.
            better = self._direction.better(value, self._best[0]) or (value == self._best[0] and number < self._best[1])
            if not better:
                return number
        beaten = None if self._best is None else self._best[1]
        self._best = (value, number)
        return beaten

    def hear(self, event: Event) -> None:
        """Take note of what happened, here or elsewhere, and remove what an ending makes superfluous."""
        match event:
            case Elsewhere(other):
                self.hear(other)
            case Started(Assignment(number=number, repeat=True)):
                self._repeats.add(number)
            case Ended(number, outcome, _, value):
                self._end(number, outcome.ending, value)

    def _end(self, number: int, ending: Ending | None, value: float | None) -> None:
        superfluous: int | None = number
        if ending is Ending.COMPLETE and value is not None and number not in self._repeats:
            superfluous = self._consider(value, number)
        if self._keep == "best" and superfluous is not None:
            shutil.rmtree(self._folder.trial(superfluous), ignore_errors=True)
