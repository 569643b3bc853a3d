"""What happens after a trial did not end by itself: another try, a division, a slot out of service, the end.

Decides from endings alone; knows no process, no clock and no file. The policy is the sweep's `on_failure`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from hpo.errors import HpoError
from hpo.journal import History
from hpo.operation import OnFailure
from hpo.trials import Ending, Outcome

_UNWELL = (Ending.KILLED, Ending.HUNG, Ending.FAILED)
_PATHS = re.compile(r"0x[0-9a-fA-F]+|(?<![\w.])/[^\s'\":,;)]+")
_LARGEST_DIVISION = 1024


class RepeatedFailure(HpoError):
    """Several trials in a row failed alike; more of them would only burn the budget."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Begin again from the last checkpoint, after a while, with forward passes in so many parts."""

    wait_seconds: float
    divide: int


@dataclass
class Retries:
    """Whether a trial gets another try.

    Attributes:
        policy: of the sweep.
        divides: whether the objective can do forward passes in parts.
        lost: how often each trial was killed or hung since it last came further, by its number.
        hung: how often each was taken for hung in all.
    """

    policy: OnFailure
    divides: bool
    lost: dict[int, int]
    hung: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, policy: OnFailure, history: History, *, divides: bool) -> Retries:
        lost = {number: trial.losses for number, trial in history.trials.items()}
        hung = {
            number: sum(setback.ending is Ending.HUNG for setback in trial.setbacks)
            for number, trial in history.trials.items()
        }
        return cls(policy, divides, lost, hung)

    def after(self, number: int, outcome: Outcome, divide: int, *, divisible: bool) -> Retry | None:
        """The next try of a trial that ended so, or None where that is its ending."""
        if outcome.ending is Ending.OUT_OF_MEMORY:
            further = self.policy.out_of_memory == "divide" and self.divides and divisible
            return Retry(0.0, 2 * divide) if further and divide < _LARGEST_DIVISION else None
        if outcome.ending not in (Ending.KILLED, Ending.HUNG):
            return None
        if outcome.ending is Ending.HUNG:
            self.hung[number] = self.hung.get(number, 0) + 1
        before = self.lost.get(number, 0)
        if before >= self.policy.retries:
            return None
        self.lost[number] = before + 1
        return Retry(self.policy.wait_seconds * 2**before, divide)


@dataclass
class Slots:
    """Which slots are fit for service, from what ended in each."""

    limit: int
    in_a_row: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    others_fine: set[int] = field(default_factory=set)

    def ended(self, slot: int, outcome: Outcome) -> str | None:
        """Why this slot is to be taken out of service, now that a trial in it ended so; or None."""
        if outcome.ending is Ending.OUT_OF_MEMORY:
            return None  # the configuration's doing or the slot's: it speaks neither for nor against it
        if outcome.ending not in _UNWELL:
            self.in_a_row[slot] = 0
            self.others_fine |= {other for other, count in self.in_a_row.items() if other != slot and count}
            return None
        if self.in_a_row[slot] == 0:
            self.others_fine.discard(slot)
        self.in_a_row[slot] += 1
        if self.in_a_row[slot] >= self.limit and slot in self.others_fine:
            return f"{self.in_a_row[slot]} trials in a row did not end well here while others did elsewhere"
        return None


@dataclass
class Alike:
    """Endings that say that something is wrong with the study rather than with a trial."""

    limit: int
    reasons: list[tuple[str, int]] = field(default_factory=list)

    def ended(self, slot: int, outcome: Outcome, *, elsewhere: bool) -> str | None:
        """Note an ending.

        Args:
            slot: where.
            outcome: how.
            elsewhere: whether trials run in other slots, which may yet end better.

        Returns:
            Why the slot is to be taken out of service: all that failed alike did so in it. Or None.

        Raises:
            RepeatedFailure: as many trials in a row as the policy allows failed alike.
        """
        if outcome.ending is Ending.OUT_OF_MEMORY:
            return None
        if outcome.ending not in _UNWELL:
            self.reasons = []
            return None
        said = outcome.ending.value if outcome.ending is Ending.HUNG else _PATHS.sub("...", outcome.reason)
        alike = [(reason, where) for reason, where in self.reasons if reason == said]
        self.reasons = [*alike, (said, slot)]
        if len(self.reasons) < self.limit:
            return None
        if elsewhere and {where for _, where in self.reasons} == {slot}:
            self.reasons.pop()  # the next that fails so, in whatever slot, ends the study
            return f"{self.limit} trials in a row failed alike here: {outcome.reason}"
        raise RepeatedFailure(f"{len(self.reasons)} trials in a row failed alike: {outcome.reason}")
